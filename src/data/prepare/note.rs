//! Remarks on a preparation that succeeded: what was guessed, changed, left out or replaced.

use std::fmt;
use std::path::PathBuf;

use super::error::shown;
use crate::units::count;

/// A remark for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// `.json` files that were read line by line.
    JsonLines(Vec<PathBuf>),
    /// Text files whose first line is a JSON object.
    LikeJsonLines(Vec<PathBuf>),
    /// Files with line ends of CR or CRLF, which became LF.
    LineEnds(Vec<PathBuf>),
    /// Files whose byte order mark was left out.
    Marks(Vec<PathBuf>),
    /// Files with the bytes of another one; the first pair of them.
    SameText {
        files: usize,
        path: PathBuf,
        first: PathBuf,
    },
    /// Lines or rows without a document, whose field is null.
    Nulls { lines: Lines, field: String },
    /// Lines with half of a surrogate pair.
    Surrogates(Lines),
    /// The text has U+0000.
    ZeroCharacter,
    /// Entries of a folder that were not read.
    LeftOut {
        folder: PathBuf,
        files: Vec<PathBuf>,
    },
    /// The work of a preparation that was killed or interrupted, which was not done again.
    Resumed { documents: u64, tokens: u64 },
    /// Staged work that was thrown away, and why.
    StartedOver { why: String },
    /// Files of an earlier dataset, which are gone.
    Replaced { folder: PathBuf, files: Vec<String> },
}

impl Note {
    /// False for a note on no files.
    pub(super) fn is_due(&self) -> bool {
        match self {
            Note::JsonLines(files)
            | Note::LikeJsonLines(files)
            | Note::LineEnds(files)
            | Note::Marks(files)
            | Note::LeftOut { files, .. } => !files.is_empty(),
            _ => true,
        }
    }
}

/// Some lines, or rows of tables, of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    pub count: u64,
    /// `line` or `row`.
    pub unit: &'static str,
    /// The first of them: its file and its number, from 1.
    pub first: (PathBuf, u64),
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (path, line) = &self.first;
        let plural = if self.count == 1 { "" } else { "s" };
        let path = path.display();
        let unit = self.unit;
        write!(f, "{} {unit}{plural} ({path}:{line}", count(self.count))?;
        f.write_str(if self.count == 1 {
            ")"
        } else {
            " is the first)"
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Note::JsonLines(files) => {
                write!(f, "read as JSON lines, one document per line: {}", shown(files))
            }
            Note::LikeJsonLines(files) => write!(
                f,
                "read as text, braces and keys included, although the first line is JSON: {} (call it .jsonl to read \
                 one document per line)",
                shown(files)
            ),
            Note::LineEnds(files) => write!(
                f,
                "line ends of CR or CRLF are read as LF, as Python reads text: {}",
                shown(files)
            ),
            Note::Marks(files) => write!(
                f,
                "a byte order mark is no text and was left out: {}",
                shown(files)
            ),
            Note::SameText { files, path, first } => {
                let (path, first) = (path.display(), first.display());
                write!(f, "`{path}` has the same text as `{first}`")?;
                if *files > 1 {
                    write!(f, ", and {} more files are such copies", files - 1)?;
                }
                f.write_str(": val may repeat train")
            }
            Note::Nulls { lines, field } => {
                write!(f, "passed over {lines} where `{field}` is null")
            }
            Note::Surrogates(lines) => write!(
                f,
                "half of a surrogate pair is no character and became U+FFFD in {lines}"
            ),
            Note::ZeroCharacter => f.write_str(
                "the text has zero bytes, which are kept as the character U+0000: is all of it text?",
            ),
            Note::LeftOut { folder, files } => write!(
                f,
                "left out of the folder `{}`: {}",
                folder.display(),
                shown(files)
            ),
            Note::Resumed { documents: 0, .. } => f.write_str(
                "went on with what an earlier `prepare` had done: the first pass over its input",
            ),
            Note::Resumed { documents, tokens } => write!(
                f,
                "went on with what an earlier `prepare` had done: {} documents, {} tokens",
                count(*documents),
                count(*tokens)
            ),
            Note::StartedOver { why } => write!(
                f,
                "started over, without what an earlier `prepare` had done: {why}"
            ),
            Note::Replaced { folder, files } => write!(
                f,
                "replaced the dataset in `{}`: its {}",
                folder.display(),
                files.join(", ")
            ),
        }
    }
}
