//! JSON lines, each told by its number.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::EvalsError;
use crate::terms::read_text;

/// The most bytes of a file of examples, or of a text; HellaSwag has 12 MB.
pub(super) const LARGEST: u64 = 256 << 20;

/// A line, parsed, and its number from 1.
pub(super) struct Line<T> {
    pub number: usize,
    pub value: T,
}

/// The first `limit` lines of a file, and the number of all. Blank ones do not count.
///
/// # Errors
/// `File`, `Empty`, and `Line` for one that is no `T`.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    limit: Option<usize>,
) -> Result<(Vec<Line<T>>, usize), EvalsError> {
    let text = read_text("read", path, LARGEST)?;
    let lines = (1..).zip(text.lines());
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let (first, all) = (limit.unwrap_or(usize::MAX), lines.clone().count());
    if all == 0 {
        let (path, reason) = (path.to_owned(), "it has no line");
        return Err(EvalsError::Empty { path, reason });
    }
    let parse = |(number, line): (usize, &str)| match serde_json::from_str(line) {
        // serde takes an array for the fields of a struct in their order.
        _ if !line.trim_start().starts_with('{') => {
            Err(wrong(path, number, "no JSON object".into()))
        }
        Ok(value) => Ok(Line { number, value }),
        Err(error) => Err(wrong(path, number, error.to_string())),
    };
    let parsed: Result<_, _> = lines.take(first).map(parse).collect();
    Ok((parsed?, all))
}

/// The refusal of a line.
pub(super) fn wrong(path: &Path, line: usize, reason: String) -> EvalsError {
    EvalsError::Line {
        path: path.to_owned(),
        line,
        reason,
    }
}
