//! Failures of the hub, with their hints.

use std::path::PathBuf;

use super::{Repository, RepositoryKind};
use crate::terms::FileError;
use crate::units::bytes;

/// A failure to list or to download files of the hub. Whatever was downloaded stays in the cache.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("`{name}` is {found}; expected {expected}")]
    Setting {
        name: &'static str,
        found: String,
        expected: &'static str,
    },
    #[error(
        "`{id}` is no name of the hub; expected `owner/name`, of letters, digits, `-`, `_` and `.`"
    )]
    Name { id: String },
    #[error("the hub has no {repository}{}", if *has_token { " that this token may see" } else { "" })]
    NoRepository {
        repository: Repository,
        has_token: bool,
    },
    #[error("the {repository} has no revision `{revision}`")]
    NoRevision {
        repository: Repository,
        revision: String,
    },
    #[error("the {repository} has no file `{file}` in this revision")]
    NoFile {
        repository: Repository,
        file: String,
    },
    #[error(
        "the {repository} is gated: its licence must be accepted before its files can be downloaded"
    )]
    Gated {
        repository: Repository,
        page: String,
        has_token: bool,
    },
    #[error("the hub refuses the token: {message}")]
    TokenRefused { message: String },
    #[error("the hub refuses access to the {repository}: {message}")]
    Forbidden {
        repository: Repository,
        message: String,
    },
    /// `status` is final, or came once more after every retry.
    #[error("{url} answers with status {status}{}", after(*tries))]
    Status {
        url: String,
        status: u16,
        tries: u32,
    },
    #[error(
        "the hub limits the rate of requests, and asks to wait for {} s",
        seconds
    )]
    RateLimited { seconds: u64, has_token: bool },
    #[error("cannot reach {url}{}", after(*tries))]
    Unreachable {
        url: String,
        tries: u32,
        source: Box<ureq::Error>,
    },
    #[error("{url} gives an answer that the hub does not give: {reason}")]
    Answer { url: String, reason: String },
    #[error("`{file}` arrived damaged twice: its {quantity} is {found}, expected {expected}")]
    Damaged {
        file: String,
        quantity: &'static str,
        found: String,
        expected: String,
    },
    #[error("`{}` has room for {}; the download takes {}", folder.display(), bytes(*free), bytes(*needed))]
    NoRoom {
        folder: PathBuf,
        free: u64,
        needed: u64,
    },
    #[error("the {repository} has {}", missing("subset", asked.as_deref()))]
    NoSubset {
        repository: Repository,
        /// `None` where one of several must be named.
        asked: Option<String>,
        there: Vec<String>,
    },
    #[error("the {repository} has {}", missing("split", Some(asked)))]
    NoSplit {
        repository: Repository,
        asked: String,
        there: Vec<String>,
    },
    #[error("the {repository} has no Parquet, JSON lines or text in this split")]
    NoDocuments { repository: Repository },
    #[error("the hub has converted only the beginning of the split `{split}` of the {repository}")]
    Partial {
        repository: Repository,
        split: String,
    },
    #[error("`HF_HUB_OFFLINE` is set, and the cache `{}` does not hold {what}", cache.display())]
    Offline { what: String, cache: PathBuf },
    #[error("interrupted; what was downloaded is kept")]
    Interrupted,
    #[error(transparent)]
    File(#[from] FileError),
}

fn missing(noun: &str, asked: Option<&str>) -> String {
    match asked {
        Some(asked) => format!("no {noun} `{asked}`"),
        None => format!("several {noun}s"),
    }
}

/// The first names of many, to choose from.
fn choice(flag: &str, there: &[String]) -> String {
    const MOST: usize = 20;
    let shown = there.iter().take(MOST).map(|name| format!("`{name}`"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match there.len() {
        0 => "look at its files on the hub".into(),
        n if n > MOST => format!("name one with `{flag}`: {shown} and {} more", n - MOST),
        _ => format!("name one with `{flag}`: {shown}"),
    }
}

fn after(tries: u32) -> String {
    match tries {
        0 | 1 => String::new(),
        tries => format!(", after {tries} tries"),
    }
}

impl HubError {
    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        const AGAIN: &str = "run the same command again: it goes on where this download stopped";
        Some(match self {
            Self::Setting { name, .. } => format!("correct `{name}`, or unset it"),
            Self::Name { .. } => {
                "look it up at https://huggingface.co; a path begins with `./` or `/`".into()
            }
            Self::NoRepository {
                repository,
                has_token,
            } => {
                let kind = match repository.kind {
                    RepositoryKind::Model => "models",
                    RepositoryKind::Dataset => "datasets",
                };
                let private = if *has_token {
                    "the token of an account that may see it"
                } else {
                    "a token in `HF_TOKEN`: without one it looks as if it were not there"
                };
                format!(
                    "check the name at https://huggingface.co/{kind}; a private one needs {private}"
                )
            }
            Self::NoRevision { .. } | Self::NoFile { .. } => {
                "look at its files on the hub; they may have been renamed".into()
            }
            Self::Gated {
                page, has_token, ..
            } => {
                let token = if *has_token {
                    "with the account of your token"
                } else {
                    "and set `HF_TOKEN` to a token of your account (https://huggingface.co/settings/tokens)"
                };
                format!("accept the licence at {page} {token}, then run the same command")
            }
            Self::TokenRefused { .. } => {
                "set `HF_TOKEN` to a token from https://huggingface.co/settings/tokens, or unset it where none is needed"
                    .into()
            }
            Self::Forbidden { .. } => {
                "use a token that may read the repository: fine-grained tokens list what they may".into()
            }
            Self::RateLimited { has_token, .. } if !has_token => {
                "set `HF_TOKEN`, which raises the limit, or run the same command later: it goes on where it stopped"
                    .into()
            }
            Self::RateLimited { .. } => {
                "run the same command later: it goes on where it stopped".into()
            }
            Self::Unreachable { .. } => format!(
                "check the network, `HF_ENDPOINT` and `HTTPS_PROXY`; then {AGAIN}"
            ),
            Self::Status { status, .. } if *status >= 500 => AGAIN.into(),
            Self::Status { .. } | Self::Answer { .. } => {
                "check `HF_ENDPOINT` and `HTTPS_PROXY`: something else than the hub may answer there".into()
            }
            Self::Damaged { .. } => {
                "run the same command again; a proxy that changes files, or the disk, may be at fault".into()
            }
            Self::NoRoom { .. } => {
                "free some disk space, or name another folder in `HF_HUB_CACHE`".into()
            }
            Self::NoSubset { there, .. } => choice("--subset", there),
            Self::NoSplit { there, .. } => choice("--split", there),
            Self::NoDocuments { .. } | Self::Partial { .. } => {
                "download it with the tools of its own, and name the files: `taper prepare FILES... --out DIR`".into()
            }
            Self::Offline { .. } => {
                "unset `HF_HUB_OFFLINE`, or copy the cache of a machine that has it, and name its folder in `HF_HUB_CACHE`"
                    .into()
            }
            Self::Interrupted => AGAIN.into(),
            Self::File(error) => return error.hint(),
        })
    }
}
