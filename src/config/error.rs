//! Defects of a configuration, shown at the place where they were written.

use std::fmt;
use std::ops::Range;

use super::presets;
use crate::terms::FileError;

/// A configuration that was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    File(#[from] FileError),
    /// `--config` named neither a file nor a preset.
    #[error(
        "no file and no preset is called `{name}`\n  = presets:{}",
        presets::listing()
    )]
    NotFound { name: String },
    /// Every defect of the file and of the `--set` values, in the order written.
    #[error("{}", Diagnostics(.0))]
    Invalid(Vec<Diagnostic>),
}

impl ConfigError {
    /// A literal edit; with several defects, that of the last one (`Display` has the others).
    pub fn hint(&self) -> Option<String> {
        match self {
            ConfigError::File(error) => error.hint(),
            ConfigError::NotFound { name } => {
                let nearest = presets::nearest(name)?;
                Some(format!("did you mean `--config {nearest}`?"))
            }
            ConfigError::Invalid(diagnostics) => diagnostics.last()?.hint.clone(),
        }
    }
}

/// A defect and its place in the text.
#[derive(Debug)]
pub struct Diagnostic {
    pub(super) what: String,
    pub(super) excerpt: Option<Excerpt>,
    /// Description of the valid values.
    pub(super) expected: Option<String>,
    pub(super) hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "\n  = expected {expected}")?;
        }
        Ok(())
    }
}

/// Diagnostics one below the other. The caller prints `error: ` before the first and the hint of the
/// last; those between are written here in the same way.
struct Diagnostics<'a>(&'a [Diagnostic]);

impl fmt::Display for Diagnostics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if let Some(previous) = index.checked_sub(1).map(|i| &self.0[i]) {
                if let Some(hint) = &previous.hint {
                    write!(f, "\nhint: {hint}")?;
                }
                f.write_str("\n\nerror: ")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

/// A text that values come from: a file, or one `--set`.
pub(super) struct SourceText {
    /// Name of the file in messages. A `--set` needs none, because its whole text is shown.
    pub file: Option<String>,
    /// The text; that of a `--set` starts with `--set `, so that it is shown as it was typed.
    pub text: String,
}

pub(super) const SET: &str = "--set ";

impl SourceText {
    pub fn set(text: &str) -> Self {
        Self {
            file: None,
            text: format!("{SET}{text}"),
        }
    }

    /// Whether a line looks like the heading of a section.
    pub fn has_sections(&self) -> bool {
        let mut lines = self.text.lines();
        lines.any(|line| line.trim_start().starts_with('['))
    }

    /// `key = value` in the syntax of this text; `value` is TOML.
    pub fn assignment(&self, section: &str, key: &str, value: &str) -> String {
        match self.file {
            Some(_) => format!("{key} = {value}"),
            None => format!("{SET}{section}.{key}={}", value.trim_matches('"')),
        }
    }

    /// The line that holds the start of `span`, with that part of it marked.
    pub fn excerpt(&self, span: Range<usize>) -> Excerpt {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let marked = first_line(self.text.get(span).unwrap_or_default());
        Excerpt {
            file: self.file.clone(),
            line_number: before.matches('\n').count() + 1,
            line: first_line(&self.text[line_start..]).replace('\t', " "),
            column: before[line_start..].chars().count(),
            marked: marked.trim_end().chars().count().max(1),
        }
    }
}

/// A line of a source with a part of it underlined, as compilers show it.
#[derive(Debug)]
pub(super) struct Excerpt {
    file: Option<String>,
    /// Number of the line, from 1.
    line_number: usize,
    line: String,
    /// Column of the marked part, in characters from 0.
    column: usize,
    /// Characters that are marked.
    marked: usize,
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match &self.file {
            Some(_) => self.line_number.to_string(),
            None => " ".into(),
        };
        let margin = " ".repeat(number.len());
        if let Some(file) = &self.file {
            let (line, column) = (self.line_number, self.column + 1);
            writeln!(f, "{margin}--> {file}:{line}:{column}")?;
        }
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.line)?;
        let before = " ".repeat(self.column);
        write!(f, "{margin} | {before}{}", "^".repeat(self.marked))
    }
}
