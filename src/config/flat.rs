//! nanoGPT's keys in TOML without sections: the form of the same settings that many tools write.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Diagnostic, SourceText};
use super::keys;
use super::python::{Assignment, MOST_DEFECTS, Script, Value};
use super::reader::syntax_diagnostic;

/// The assignments of a file, as those of a Python file.
///
/// # Errors
/// [`ConfigError::Invalid`] with text that is not TOML, with sections, and with values of a kind that no key has.
pub(super) fn read(file: &SourceText) -> Result<Script, ConfigError> {
    let table = DeTable::parse(&file.text)
        .map_err(|error| ConfigError::Invalid(vec![syntax_diagnostic(file, &error)]))?;
    let mut script = Script::default();
    let mut diagnostics = Vec::new();
    for (name, value) in table.into_inner() {
        let value_span = value.span();
        let is_section = value.get_ref().is_table();
        match of_toml(value.get_ref()) {
            Some(value) => script.assignments.push(Assignment {
                name_span: name.span(),
                name: name.into_inner().into_owned(),
                value: Some(value),
                span: value_span,
            }),
            None => diagnostics.push(refusal(file, &name, value.get_ref(), value_span)),
        }
        // Of a config with sections, one refusal says all there is to say.
        if is_section || diagnostics.len() == MOST_DEFECTS {
            break;
        }
    }
    if diagnostics.is_empty() {
        Ok(script)
    } else {
        Err(ConfigError::Invalid(diagnostics))
    }
}

/// A value that a Python literal can have too; `None` for another.
fn of_toml(value: &DeValue) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::Text(text.to_string())),
        DeValue::Boolean(switch) => Some(Value::Bool(*switch)),
        DeValue::Float(number) => number.as_str().parse().ok().map(Value::Float),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(Value::Int),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn refusal(
    file: &SourceText,
    name: &Spanned<std::borrow::Cow<str>>,
    value: &DeValue,
    value_span: Range<usize>,
) -> Diagnostic {
    let word: &str = name.get_ref();
    let is_section = keys::sections().any(|section| section == word);
    let (what, hint) = match value {
        DeValue::Table(_) if is_section => (
            format!("`[{word}]` is a section: this is a config of taper's already"),
            "use it as it is, with `--config`; `taper config show` explains its keys".into(),
        ),
        DeValue::Table(_) => (
            format!("`[{word}]` is a section, and nanoGPT's keys have none"),
            "remove the line, so that its keys stand by themselves".into(),
        ),
        _ => (
            format!("`{word}` is neither a number, a switch nor text"),
            format!("write one of these, or remove `{word}`"),
        ),
    };
    let span = match value {
        DeValue::Table(_) => name.span(),
        _ => value_span,
    };
    Diagnostic {
        what,
        excerpt: Some(file.excerpt(span)),
        expected: None,
        hint: Some(hint),
    }
}
