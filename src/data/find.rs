//! The files of a split: one by its name, or all that match a pattern.

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
    let Some((text, options)) = glob_of(pattern) else {
        return Err(missing(split, pattern, dataset));
    };
    let no_match = |why| DataError::NoMatch {
        split: split.name(),
        pattern: pattern.to_owned(),
        why,
    };
    let found = glob_with(&text, options).map_err(|error| no_match(format!(" ({})", error.msg)))?;
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for path in found {
        let path = path.map_err(|error| {
            let path = error.path().to_owned();
            DataError::io("read the folder", &path)(error.into())
        })?;
        if path.is_file() {
            files.push(path);
        } else {
            others.push(path);
        }
    }
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
    files.sort();
    Ok(files)
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
