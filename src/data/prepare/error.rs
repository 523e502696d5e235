//! Failures to make text into a dataset.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::tokenizer::TokenizerError;

/// A failure to make text into a dataset. The out folder is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("`{}` is not a file", path.display())]
    NotAFile { path: PathBuf },
    #[error("`{}` is not UTF-8 text: no character begins at byte {offset}", path.display())]
    InvalidUtf8 { path: PathBuf, offset: u64 },
    #[error("`{}` has {bytes} bytes without a line break or space", path.display())]
    Unbroken { path: PathBuf, bytes: usize },
    #[error("{}:{line}: not JSON", path.display())]
    BadJson {
        path: PathBuf,
        line: u64,
        source: serde_json::Error,
    },
    #[error("{}:{line}: no text in the field `{field}`", path.display())]
    MissingField {
        path: PathBuf,
        line: u64,
        field: String,
    },
    #[error("the input is empty: no text in {}", shown(paths))]
    NoText { paths: Vec<PathBuf> },
    #[error("one document cannot be divided between train and val")]
    OneDocument,
    #[error("the text is too short: nothing is left for the {split} split")]
    EmptySplit { split: &'static str },
    #[error("`{}` changed while it was read", path.display())]
    Changed { path: PathBuf },
    #[error(
        "`{place}` is not the text of the dataset `{dataset}`: its sha256 is {found}, expected \
         {expected}"
    )]
    WrongChecksum {
        place: String,
        dataset: &'static str,
        found: String,
        expected: &'static str,
    },
    #[error("cannot download the text of `{dataset}` from {url}")]
    Download {
        dataset: &'static str,
        url: &'static str,
        source: Box<ureq::Error>,
    },
    #[error("another `taper prepare` is writing to `{}`", folder.display())]
    Busy { folder: PathBuf },
    #[error("interrupted; `{}` is as it was", folder.display())]
    Interrupted { folder: PathBuf },
    #[error("cannot {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

fn shown(paths: &[PathBuf]) -> String {
    let mut shown: Vec<String> = paths
        .iter()
        .take(3)
        .map(|p| format!("`{}`", p.display()))
        .collect();
    if paths.len() > 3 {
        shown.push(format!("{} more", paths.len() - 3));
    }
    shown.join(", ")
}

impl PrepareError {
    /// For `map_err`: names the file and the operation.
    pub(super) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> PrepareError + use<> {
        let path = path.to_owned();
        move |source| PrepareError::Io {
            action,
            path,
            source,
        }
    }

    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        use PrepareError::*;
        Some(match self {
            NotAFile { path } => format!(
                "name its files, such as `{}/*.txt`; the input is read twice, so a pipe must be saved first",
                path.display()
            ),
            InvalidUtf8 { path, .. } => format!(
                "convert it, such as with `iconv -f LATIN1 -t UTF-8 {}`; binary and compressed \
                 files (.parquet, .gz) must become .txt or .jsonl first",
                path.display()
            ),
            Unbroken { .. } => "this is hardly text; break its lines, as with `fold`".into(),
            BadJson { .. } => "expected one JSON object on each line".into(),
            MissingField { .. } => "name the field that holds the text with `--field NAME`".into(),
            NoText { .. } => "give a file with text".into(),
            OneDocument => "give more documents, or the text itself as a .txt file".into(),
            EmptySplit { .. } => "give more text, or another `--val-fraction`".into(),
            Changed { .. } => "run the same command again once nothing writes to the file".into(),
            WrongChecksum { .. } => {
                "to prepare a text of your own, name it as a file: `taper prepare \
                 FILE --out DIR`; to download the dataset's, remove its `input.txt` and leave out \
                 `--from`"
                    .into()
            }
            Download { dataset, url, .. } => format!(
                "on a machine with a network, save {url} as `input.txt`; then run \
                 `taper prepare {dataset} --from input.txt`"
            ),
            Busy { .. } => "wait for it, or choose another folder with `--out`".into(),
            Interrupted { .. } => "run the same command again to start over".into(),
            Io { path, source, .. } => match source.kind() {
                ErrorKind::NotFound => format!("check the path `{}`", path.display()),
                ErrorKind::StorageFull => "free some disk space, or choose another folder with \
                     `--out`: 2 bytes per token are needed"
                    .into(),
                _ => "check the permissions, or choose another folder with `--out`".into(),
            },
            Tokenizer(e) => return e.hint(),
        })
    }
}
