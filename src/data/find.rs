//! Files by pattern; and the files of a split: one by its name, or all that match.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, glob_with};

use super::{DataError, DataWarning, Split};

/// The file at `pattern`, or the files that match its `*`, `?`, `[...]` and `**`, sorted by path. A file that exists under
/// that very name is meant by it. Folders that match are passed over, with a warning.
pub(super) fn find_files(
    split: Split,
    pattern: &Path,
    dataset: &str,
    warnings: &mut Vec<DataWarning>,
) -> Result<Vec<PathBuf>, DataError> {
    if pattern.is_file() {
        return Ok(vec![pattern.to_owned()]);
    }
    let no_match = |why| DataError::NoMatch {
        split: split.name(),
        pattern: pattern.to_owned(),
        why,
    };
    let found = matches(pattern).map_err(|fault| match fault.source {
        Some((path, source)) => DataError::io("read the folder", &path)(source),
        None => no_match(format!(" ({})", fault.why)),
    })?;
    let Some(Matches { files, others }) = found else {
        return Err(missing(split, pattern, dataset));
    };
    match others.first() {
        Some(first) if files.is_empty() => {
            let why = format!(" (`{}` matches, and is no file)", first.display());
            return Err(no_match(why));
        }
        None if files.is_empty() => return Err(no_match(String::new())),
        _ => {}
    }
    warnings.extend(others.into_iter().map(|path| DataWarning::NoFile {
        split: split.name(),
        path,
    }));
    Ok(files)
}

/// Everything that matches a pattern, sorted by path.
pub(super) struct Matches {
    pub files: Vec<PathBuf>,
    /// Folders, and whatever else is no file.
    pub others: Vec<PathBuf>,
}

/// A pattern that is none, or a folder that cannot be read.
pub(super) struct MatchFault {
    pub why: String,
    /// The folder, and the system's error.
    pub source: Option<(PathBuf, std::io::Error)>,
}

/// Files and folders that match the `*`, `?`, `[...]` and `**` of `pattern`; `None` for a name without them.
pub(super) fn matches(pattern: &Path) -> Result<Option<Matches>, MatchFault> {
    let Some((text, options)) = glob_of(pattern) else {
        return Ok(None);
    };
    let found = glob_with(&text, options).map_err(|error| MatchFault {
        why: error.msg.into(),
        source: None,
    })?;
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for path in found {
        let path = path.map_err(|error| MatchFault {
            why: "a folder cannot be read".into(),
            source: Some((error.path().to_owned(), error.into())),
        })?;
        if path.is_file() {
            files.push(path);
        } else {
            others.push(path);
        }
    }
    files.sort();
    others.sort();
    Ok(Some(Matches { files, others }))
}

/// The pattern for the glob crate; `None` for a name without a wildcard. The folders that exist are taken literally, so
/// that only what follows them is a pattern. It matches as shells do: `*` stays inside a name, and passes over hidden
/// files, such as the `._x` that macOS leaves beside `x`, unless the pattern has a name that begins with a dot.
fn glob_of(pattern: &Path) -> Option<(String, MatchOptions)> {
    let folder = pattern.ancestors().skip(1).find(|path| path.is_dir());
    let folder = folder.unwrap_or(Path::new(""));
    let rest = pattern.strip_prefix(folder).ok()?.to_str()?;
    if !rest.contains(['*', '?', '[']) {
        return None;
    }
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: !rest.split('/').any(|name| name.starts_with('.')),
    };
    let folder = Pattern::escape(folder.to_str()?);
    Some((Path::new(&folder).join(rest).display().to_string(), options))
}

fn missing(split: Split, path: &Path, dataset: &str) -> DataError {
    let (split, path) = (split.name(), path.to_owned());
    if path.exists() {
        let is_folder = path.is_dir();
        return DataError::NotAFile {
            split,
            path,
            is_folder,
        };
    }
    let dataset = dataset.to_owned();
    DataError::Missing {
        split,
        path,
        dataset,
    }
}
