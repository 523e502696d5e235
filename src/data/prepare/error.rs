//! Failures to make text into a dataset.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::encoding::Content;
use super::json::JsonError;
use crate::terms::shell_word;
use crate::tokenizer::TokenizerError;

/// A failure to make text into a dataset. The out folder is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("`{}` is not a file but {what}", path.display())]
    NotAFile { path: PathBuf, what: &'static str },
    #[error("`{}` is the same file as `{}`", path.display(), first.display())]
    NamedTwice { path: PathBuf, first: PathBuf },
    #[error("`{}` is not UTF-8 text: it is {content}", path.display())]
    NotText { path: PathBuf, content: Content },
    #[error("`{}` is compressed with {name} and holds no UTF-8 text: it is {content}", path.display())]
    NotPackedText {
        path: PathBuf,
        name: &'static str,
        content: Content,
    },
    /// The compressed contents end too early, or are damaged.
    #[error(
        "`{}` cannot be unpacked: {}",
        path.display(),
        if *is_cut { format!("its {name} data is cut short") } else { format!("its {name} data is damaged") }
    )]
    BadPacked {
        path: PathBuf,
        name: &'static str,
        is_cut: bool,
        source: std::io::Error,
    },
    #[error("`{}` is no Parquet table: it does not begin with `PAR1`", path.display())]
    NoTable { path: PathBuf },
    #[error("the Parquet table `{}` cannot be read: {what}", path.display())]
    BadTable { path: PathBuf, what: String },
    #[error("`{}` has no column `{field}`; it has {}", path.display(), names(columns))]
    MissingColumn {
        path: PathBuf,
        field: String,
        columns: Vec<String>,
        /// A column of text.
        text: Option<String>,
    },
    #[error("the column `{field}` of `{}` is no UTF-8 text but {found}", path.display())]
    NotTextColumn {
        path: PathBuf,
        field: String,
        /// The type in words.
        found: String,
        /// A column of text.
        text: Option<String>,
    },
    #[error("the column `{field}` of `{}` is no UTF-8 text in row {row}", path.display())]
    InvalidRow {
        path: PathBuf,
        field: String,
        /// From 1.
        row: u64,
    },
    #[error(
        "`{}` is not UTF-8 text: no character begins at byte {offset}, in line {line}; it may be {content}",
        path.display()
    )]
    InvalidUtf8 {
        path: PathBuf,
        /// From 0.
        offset: u64,
        /// From 1.
        line: u64,
        content: Content,
    },
    #[error(
        "`{}` is {}, not JSON lines",
        path.display(),
        if *is_array { "one JSON array" } else { "one JSON value or none" }
    )]
    NotLines { path: PathBuf, is_array: bool },
    #[error("`{}` has {bytes} bytes without a line break or space", path.display())]
    Unbroken { path: PathBuf, bytes: usize },
    #[error("{}:{line}: not JSON", path.display())]
    BadJson {
        path: PathBuf,
        line: u64,
        source: JsonError,
    },
    #[error("{}:{line}: no text in the field `{field}`: {found}", path.display())]
    MissingField {
        path: PathBuf,
        line: u64,
        field: String,
        /// The thing that is there instead.
        found: String,
        /// The field that may be meant.
        other: Option<String>,
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
    /// The folder cannot be exchanged for another, so that its dataset would be a mixture of two for a while.
    #[error(
        "the dataset in `{}` cannot be replaced as a whole: that takes a folder beside it, on the same file system",
        folder.display()
    )]
    Irreplaceable {
        folder: PathBuf,
        source: std::io::Error,
    },
    #[error("interrupted; `{}` is as it was", folder.display())]
    Interrupted {
        folder: PathBuf,
        /// Whether the work so far is kept.
        kept: bool,
    },
    #[error("no file in the folder `{}` is text, JSON lines or a Parquet table by its name", folder.display())]
    NothingIn { folder: PathBuf },
    #[error("`{}`: no file matches{why}", pattern.display())]
    NoMatch { pattern: PathBuf, why: String },
    #[error("cannot start a thread")]
    Thread { source: std::io::Error },
    #[error("cannot {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// The names of columns, or the first ten of many.
fn names(columns: &[String]) -> String {
    const MOST: usize = 10;
    let mut names: Vec<String> = columns
        .iter()
        .take(MOST)
        .map(|c| format!("`{c}`"))
        .collect();
    if columns.len() > MOST {
        names.push(format!("{} more", columns.len() - MOST));
    }
    if names.is_empty() {
        return "none".into();
    }
    names.join(", ")
}

/// The paths, or the first three of many.
pub(super) fn shown(paths: &[PathBuf]) -> String {
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
            NotAFile {
                path,
                what: "a folder",
            } => {
                format!("name its files, such as `{}/*.txt`", shell_word(path))
            }
            NotAFile { .. } => {
                "the input is read twice: save it first, such as with `... > text.txt`".into()
            }
            NamedTwice { path, .. } => format!(
                "leave out `{}`: its text would be in train and in val",
                shell_word(path)
            ),
            NotText { path, content } | InvalidUtf8 { path, content, .. } => content.hint(path),
            NotLines { path, is_array } => {
                let (from, to) = (shell_word(path), shell_word(&path.with_extension("jsonl")));
                if *is_array {
                    format!(
                        "run `jq -c '.[]' {from} > {to}`, which puts each element on a line, and prepare `{to}`"
                    )
                } else {
                    format!(
                        "expected one JSON object on each line, as `jq -c . {from} > {to}` writes them; for plain \
                         text, call it .txt"
                    )
                }
            }
            Unbroken { .. } => "this is hardly text; break its lines, as with `fold`".into(),
            BadJson { .. } => "expected one JSON object on each line".into(),
            MissingField {
                other: Some(other), ..
            } => format!(
                "name the field that holds the text, such as `--field {}`",
                shell_word(other.as_ref())
            ),
            MissingField { .. } => {
                "name the field that holds the text with `--field NAME`, or leave out the line"
                    .into()
            }
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
            Irreplaceable { folder, .. } => format!(
                "choose another folder, such as `--out {}`, or remove `{}` first",
                shell_word(&folder.join("new")),
                shell_word(&folder.join("train.bin"))
            ),
            Interrupted { kept: true, .. } => {
                "run the same command again: it goes on where it stopped".into()
            }
            Interrupted { .. } => "run the same command again to start over".into(),
            Io {
                action,
                path,
                source,
            } => io_hint(action, path, source.kind()),
            Tokenizer(e) => return e.hint(),
            other => return other.hint_on_files(),
        })
    }

    /// Hints on compressed files, tables, folders and patterns.
    fn hint_on_files(&self) -> Option<String> {
        use PrepareError::*;
        Some(match self {
            NotPackedText { path, name, .. } => {
                let (from, to) = (shell_word(path), shell_word(&path.with_extension("")));
                format!("run `{name} -dc {from} > {to}`, and prepare `{to}`")
            }
            BadPacked { is_cut: true, .. } => {
                "copy or download the file again; this one is not complete".into()
            }
            BadPacked { path, name, .. } => format!(
                "copy or download the file again; `{name} -t {}` checks it",
                shell_word(path)
            ),
            NoTable { .. } => {
                "copy or download the file again, or give it the name of what it is".into()
            }
            BadTable { path, .. } => format!(
                "copy or download the file again, or write it anew: `python3 -c 'import sys, pyarrow.parquet as p; \
                 p.write_table(p.read_table(sys.argv[1]), sys.argv[1] + \".new.parquet\")' {}`",
                shell_word(path)
            ),
            MissingColumn {
                text: Some(text), ..
            }
            | NotTextColumn {
                text: Some(text), ..
            } => format!(
                "name the column that holds the text, such as `--field {}`",
                shell_word(text.as_ref())
            ),
            MissingColumn { .. } | NotTextColumn { .. } => {
                "expected a column of UTF-8 text, one document in each row".into()
            }
            InvalidRow { .. } => {
                "write the table anew with valid text in that row, or without the row".into()
            }
            NothingIn { folder } => format!(
                "name the files, such as `{}/*.md`; by its folder are found .txt, .jsonl, .json (also .gz and .zst) and .parquet",
                shell_word(folder)
            ),
            NoMatch { .. } => {
                "check the pattern; `*` stays inside of a name, `**` goes through folders".into()
            }
            Thread { .. } => "raise the limits `ulimit -u` or `ulimit -v`".into(),
            _ => return None,
        })
    }
}

fn io_hint(action: &str, path: &Path, kind: ErrorKind) -> String {
    let path = path.display();
    match kind {
        ErrorKind::NotFound => format!("check the path `{path}`"),
        ErrorKind::AlreadyExists if action == "move" => format!(
            "a `prepare` that was killed left it: rename `{path}`, then run the same command"
        ),
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => format!(
            "`{path}` is a file, or a link to a folder that is gone: choose another folder with `--out`"
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free some disk space, 2 bytes per token are needed, then run the same command again: it goes on where it \
             stopped; or choose another folder with `--out`"
                .into()
        }
        ErrorKind::FileTooLarge => "raise the limit `ulimit -f`, then run the same command again: it goes on where it stopped"
            .into(),
        _ => "check the permissions, or choose another folder with `--out`".into(),
    }
}
