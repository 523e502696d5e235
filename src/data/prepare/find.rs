//! The files that are meant by names, patterns and folders.

use std::path::{Path, PathBuf};

use super::PrepareError;
use super::input::{InputFile, Name, RequestedFile};
use super::note::Note;
use crate::data::find::{Matches, matches};

/// The files that were found, and notes on what was left out.
#[derive(Debug, Default)]
pub struct FoundInputs {
    pub files: Vec<PathBuf>,
    pub notes: Vec<Note>,
}

/// The files at `inputs`, in order. A pattern stands for all files that match, sorted by path; it is looked at only if no
/// file has that very name. A folder stands for its files whose names are of a kind that is read, sorted by name.
///
/// # Errors
/// When a pattern matches nothing, or a folder has no such file. A name that is neither is returned as it is.
pub fn find_inputs(inputs: &[PathBuf]) -> Result<FoundInputs, PrepareError> {
    let mut found = FoundInputs::default();
    for input in inputs {
        if input.is_dir() {
            found.folder(input)?;
        } else if input.exists() {
            found.files.push(input.clone());
        } else {
            found.pattern(input)?;
        }
    }
    Ok(found)
}

impl FoundInputs {
    fn pattern(&mut self, pattern: &Path) -> Result<(), PrepareError> {
        let matched = matches(pattern).map_err(|fault| match fault.source {
            Some((path, source)) => PrepareError::io("read", &path)(source),
            None => no_match(pattern, format!(" ({})", fault.why)),
        })?;
        match matched {
            None => self.files.push(pattern.to_owned()),
            Some(Matches { files, others }) => {
                if files.is_empty() {
                    let other = others.first();
                    let why =
                        other.map(|other| format!(" (`{}` does, and is no file)", other.display()));
                    return Err(no_match(pattern, why.unwrap_or_default()));
                }
                self.files.extend(files);
                self.leave_out(pattern, others);
            }
        }
        Ok(())
    }

    fn folder(&mut self, folder: &Path) -> Result<(), PrepareError> {
        let fault = || PrepareError::io("read the folder", folder);
        let entries = std::fs::read_dir(folder).map_err(fault())?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut paths: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(fault())?;
        paths.retain(|path| !is_hidden(path));
        paths.sort();
        let (files, others): (Vec<_>, Vec<_>) =
            paths.into_iter().partition(|path| is_readable(path));
        if files.is_empty() {
            return Err(PrepareError::NothingIn {
                folder: folder.to_owned(),
            });
        }
        self.files.extend(files);
        self.leave_out(folder, others);
        Ok(())
    }

    fn leave_out(&mut self, folder: &Path, files: Vec<PathBuf>) {
        if !files.is_empty() {
            self.notes.push(Note::LeftOut {
                folder: folder.to_owned(),
                files,
            });
        }
    }
}

fn no_match(pattern: &Path, why: String) -> PrepareError {
    PrepareError::NoMatch {
        pattern: pattern.to_owned(),
        why,
    }
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with('.'))
}

/// True for a file with a name of text, JSON lines or a table. A `.json` file must be JSON lines, which many are not.
fn is_readable(path: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else {
        return false;
    };
    metadata.is_file()
        && match Name::of(path) {
            Name::JsonLines | Name::Parquet | Name::Text => true,
            Name::Json => {
                InputFile::new(&RequestedFile::from(path.to_owned()), &metadata, "").is_ok()
            }
            Name::Other => false,
        }
}
