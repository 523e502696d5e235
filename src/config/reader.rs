//! The reader: from a file and `--set` values to a checked `Config`, keeping the place of each value.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::error::{ConfigError, Diagnostic, SET, SourceText};
use super::keys::{self, Domain, Key, STEP_SIZE};
use super::nanogpt;
use super::rules::{self, Conflict};
use super::translation::{Translated, Translation};
use crate::terms::expand_home;

/// The values read so far, in the order given, and their defects.
#[derive(Default)]
pub(super) struct ConfigReader<'a> {
    given: Vec<Given<'a>>,
    /// Values that later ones replaced.
    replaced: Vec<Given<'a>>,
    diagnostics: Vec<Diagnostic>,
}

/// A value, with the text it was given in.
struct Given<'a> {
    key: &'static Key,
    source: &'a SourceText,
    value: Spanned<DeValue<'a>>,
}

impl<'a> Given<'a> {
    /// The value, with a home folder in place of `~` if it is a path.
    fn expanded(&self) -> Spanned<DeValue<'a>> {
        let value = self.value.get_ref();
        match (&self.key.domain, value.as_str()) {
            (Domain::Path(_), Some(path)) => {
                let path = expand_home(path).to_string_lossy().into_owned();
                Spanned::new(self.value.span(), DeValue::String(path.into()))
            }
            _ => self.value.clone(),
        }
    }
}

impl<'a> ConfigReader<'a> {
    pub fn read_file(&mut self, file: &'a SourceText) {
        let table = match DeTable::parse(&file.text) {
            Ok(table) => table.into_inner(),
            Err(error) => return self.diagnostics.push(syntax_diagnostic(file, &error)),
        };
        for (name, value) in table {
            let span = name.span();
            let name: &str = name.get_ref();
            let section = keys::sections().find(|section| *section == name);
            match (section, value.into_inner()) {
                (Some(section), DeValue::Table(entries)) => {
                    for (name, value) in entries {
                        let text = value.get_ref().as_str().unwrap_or_default();
                        let key = self.find(file, Some(section), name.get_ref(), name.span(), text);
                        if let Some(key) = key {
                            self.give(key, file, value);
                        }
                    }
                }
                (Some(section), _) => self.diagnostics.push(Diagnostic {
                    what: format!("`{section}` is a section, not a key"),
                    excerpt: Some(file.excerpt(span)),
                    expected: None,
                    hint: Some(format!("write `[{section}]`, and its keys below it")),
                }),
                (None, DeValue::Table(_)) => self.unknown_section(file, name, span),
                (None, value) => {
                    self.find(file, None, name, span, value.as_str().unwrap_or_default());
                }
            }
        }
    }

    /// Reads the values of a Python file, which `file` is.
    pub fn read_translation(&mut self, file: &'a SourceText, translation: &'a Translation) {
        for Translated { key, value, span } in &translation.values {
            // What TOML does not have no key admits, and no key admits an empty text.
            let value = DeValue::parse(value).map(Spanned::into_inner);
            let value = value.unwrap_or(DeValue::String("".into()));
            self.give(key, file, Spanned::new(span.clone(), value));
        }
    }

    pub fn read_set(&mut self, set: &'a SourceText) {
        let path = set.text.split('=').next().unwrap_or_default();
        let value_start = path.len() + 1;
        let path = path.trim_end();
        let typed = path.get(SET.len()..).unwrap_or_default();
        let (section, name) = match typed.rsplit_once('.') {
            Some((section, name)) => (Some(section.trim()), name.trim()),
            None => (None, typed.trim()),
        };
        if name.is_empty() || value_start > set.text.len() {
            return self.diagnostics.push(Diagnostic {
                what: "a `--set` needs a key and a value".into(),
                excerpt: Some(set.excerpt(SET.len()..set.text.len())),
                expected: Some("`section.key=value`".into()),
                hint: Some("for example `--set train.max_iters=10`".into()),
            });
        }
        if let Some(section) = section
            && !keys::sections().any(|known| known == section)
            && keys::find(name).is_none()
        {
            return self.unknown_section(set, section, SET.len()..SET.len() + section.len());
        }
        let span = path.len() - name.len()..path.len();
        let value = set.text[value_start..].trim_matches([' ', '"', '\'']);
        if let Some(key) = self.find(set, section, name, span, value) {
            self.give(key, set, set_value(key, set, value_start));
        }
    }

    /// The names of all keys that have a value.
    pub fn given_keys(&self) -> impl Iterator<Item = &'static str> {
        self.given.iter().map(|given| given.key.name)
    }

    /// The configuration of all keys together, checked.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every defect found.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        if !self.diagnostics.is_empty() {
            return Err(ConfigError::Invalid(self.diagnostics));
        }
        let mut root = DeTable::new();
        for section in keys::sections() {
            let entries = self
                .given
                .iter()
                .filter(|given| given.key.section == section);
            let entries: DeTable = entries
                .map(|given| (text(given.key.name), given.expanded()))
                .collect();
            root.insert(text(section), Spanned::new(0..0, DeValue::Table(entries)));
        }
        // The table of keys admits only what the types hold, so that this does not fail.
        let config = Config::deserialize(toml::de::Deserializer::from(Spanned::new(0..0, root)))
            .map_err(|error| {
                ConfigError::Invalid(vec![Diagnostic {
                    what: error.message().into(),
                    excerpt: None,
                    expected: None,
                    hint: None,
                }])
            })?;
        let conflicts: Vec<Diagnostic> = rules::conflicts(&config, self.replaced_batch_size())
            .into_iter()
            .map(|conflict| self.conflict_diagnostic(conflict))
            .collect();
        if !conflicts.is_empty() {
            return Err(ConfigError::Invalid(conflicts));
        }
        Ok(config)
    }

    /// The key of this name, which must belong to `section`; a `--set` may leave the section out. `value` is the text that
    /// is given for it, if it is text: nanoGPT has some keys for something else.
    fn find(
        &mut self,
        source: &SourceText,
        section: Option<&str>,
        name: &str,
        span: Range<usize>,
        value: &str,
    ) -> Option<&'static Key> {
        let in_file = source.file.is_some();
        let Some(key) = keys::find(name) else {
            self.unknown_key(source, section, name, span);
            return None;
        };
        let what = match section {
            Some(section) if section == key.section => return Some(key),
            None if !in_file => return Some(key),
            Some(section) => format!("`{name}` does not belong to `[{section}]`"),
            None => format!("`{name}` stands outside any section"),
        };
        let answer = nanogpt::value_answer(key, value).map(String::from);
        let hint = answer.unwrap_or_else(|| match source.text.split_once('=') {
            Some((_, value)) if !in_file => {
                let edit = source.assignment(key.section, name, value);
                format!("write `{edit}`")
            }
            _ if !source.has_sections() => format!(
                "move it below `[{}]`; `taper config import FILE` does so with every key of nanoGPT's",
                key.section
            ),
            _ => format!("move it below `[{}]`", key.section),
        });
        self.diagnostics.push(Diagnostic {
            what,
            excerpt: Some(source.excerpt(span)),
            expected: None,
            hint: Some(hint),
        });
        None
    }

    fn unknown_key(
        &mut self,
        source: &SourceText,
        section: Option<&str>,
        name: &str,
        span: Range<usize>,
    ) {
        let within = section.map_or(String::new(), |section| format!(" in `[{section}]`"));
        let of_section = keys::all().filter(|key| Some(key.section) == section);
        let expected = match section {
            Some(_) => keys::list(of_section.clone().map(|key| key.name), "or"),
            None => format!("a key of {}", keys::list(keys::sections(), "or")),
        };
        let nearest = keys::nearest(name, of_section.map(|key| key.name))
            .or_else(|| keys::nearest(name, keys::all().map(|key| key.name)));
        let nearest = nearest.and_then(keys::find).map(|key| match section {
            Some(section) if section == key.section => format!("did you mean `{}`?", key.name),
            _ => format!("did you mean `{}` of `[{}]`?", key.name, key.section),
        });
        let listed = section.map_or(String::new(), |section| format!(" {section}"));
        let listed = Some(format!("`taper config keys{listed}` tells what each means"));
        let answer = nanogpt::answer(name);
        let (what, expected) = match answer {
            Some(_) => (format!("taper does not have nanoGPT's `{name}`"), None),
            None => (format!("unknown key `{name}`{within}"), Some(expected)),
        };
        self.diagnostics.push(Diagnostic {
            what,
            excerpt: Some(source.excerpt(span)),
            expected,
            hint: answer.map(String::from).or(nearest).or(listed),
        });
    }

    fn unknown_section(&mut self, source: &SourceText, name: &str, span: Range<usize>) {
        let nearest = keys::nearest(name, keys::sections());
        self.diagnostics.push(Diagnostic {
            what: format!("unknown section `[{name}]`"),
            excerpt: Some(source.excerpt(span)),
            expected: Some(keys::list(keys::sections(), "or")),
            hint: nearest.map(|section| format!("did you mean `[{section}]`?")),
        });
    }

    /// Records a value; the last one given for a key counts. There are three keys for the size of a
    /// step, and no way to unset one: a `--set` of any of them replaces what the file says.
    fn give(&mut self, key: &'static Key, source: &'a SourceText, value: Spanned<DeValue<'a>>) {
        if !key.domain.admits(value.get_ref()) {
            return self.diagnostics.push(value_diagnostic(key, source, &value));
        }
        let replaces = |old: &Given| {
            let of_step_size = |key: &Key| STEP_SIZE.contains(&key.name);
            let set_over_file = old.source.file.is_some() && source.file.is_none();
            let same_key = old.key.name == key.name;
            same_key || (set_over_file && of_step_size(old.key) && of_step_size(key))
        };
        self.replaced
            .extend(self.given.extract_if(.., |old| replaces(old)));
        self.given.push(Given { key, source, value });
    }

    /// The last number for `batch_size` that a later value replaced.
    fn replaced_batch_size(&self) -> Option<usize> {
        let of_batch = |given: &&Given| given.key.name == "batch_size";
        let replaced = self.replaced.iter().rev().filter(of_batch);
        let mut numbers = replaced.filter_map(|given| keys::whole(given.value.get_ref()));
        numbers.next()?.try_into().ok()
    }

    /// The diagnostic of a conflict, at the key that was given last: it is the likely culprit.
    fn conflict_diagnostic(&self, conflict: Conflict) -> Diagnostic {
        let of_conflict = |given: &&Given| conflict.keys.contains(&given.key.name);
        let given = self.given.iter().rev().find(of_conflict);
        let edit = conflict.edit.and_then(|(name, value)| {
            let section = keys::find(name)?.section;
            let edit = given?.source.assignment(section, name, &value);
            Some(format!("write `{edit}`"))
        });
        Diagnostic {
            what: conflict.what,
            excerpt: given.map(|given| given.source.excerpt(given.value.span())),
            expected: Some(conflict.expected),
            hint: edit,
        }
    }
}

/// The value of a `--set`, which is TOML if it can be and plain text otherwise.
fn set_value<'a>(key: &Key, set: &'a SourceText, start: usize) -> Spanned<DeValue<'a>> {
    let raw = set.text[start..].trim();
    let start = start + (set.text[start..].len() - set.text[start..].trim_start().len());
    let span = start..start + raw.len();
    let value = match DeValue::parse(raw).map(Spanned::into_inner) {
        // For a path, `out_dir=2024` means the text.
        Ok(value) if value.is_str() || !matches!(key.domain, Domain::Path(_)) => value,
        _ => DeValue::String(Cow::Borrowed(raw)),
    };
    Spanned::new(span, value)
}

fn value_diagnostic(key: &Key, source: &SourceText, value: &Spanned<DeValue>) -> Diagnostic {
    let raw = source.text.get(value.span()).unwrap_or_default();
    let shown = raw.lines().next().unwrap_or_default();
    let text = value.get_ref().as_str().unwrap_or_default();
    let answer = match text {
        "None" | "null" => Some("leave it out: a key that is absent has its default".into()),
        _ => nanogpt::value_answer(key, text).map(String::from),
    };
    let meant = key.domain.meant(value.get_ref(), raw).map(|meant| {
        let edit = source.assignment(key.section, key.name, &meant);
        format!("write `{edit}`")
    });
    Diagnostic {
        what: match shown {
            "" => format!("`{}` has no value", key.name),
            _ => format!("`{}` cannot be `{shown}`", key.name),
        },
        excerpt: Some(source.excerpt(value.span())),
        expected: Some(key.domain.expected()),
        hint: answer.or(meant),
    }
}

/// The TOML parser's error, with a hint for syntax that Python has and TOML does not.
pub(super) fn syntax_diagnostic(file: &SourceText, error: &toml::de::Error) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let culprit = file.text.get(span.clone()).unwrap_or_default();
    let (unquoted, number) = (unquoted(file, span.start), number(file, span.start));
    let excerpt = Some(file.excerpt(span));
    if error.message().starts_with("duplicate key") {
        let first = first_line_with(file, culprit);
        return Diagnostic {
            what: format!("`{culprit}` is given twice"),
            excerpt,
            expected: None,
            hint: first.map(|line| format!("remove this one or the one in line {line}")),
        };
    }
    let is_sum =
        culprit.contains(['*', '+', '/']) && culprit.contains(|c: char| c.is_ascii_digit());
    let hint = match culprit {
        "True" | "False" => Some(format!("write `{}`", culprit.to_lowercase())),
        "None" => Some("remove the line: a key that is absent has its default".into()),
        _ => match (unquoted, number) {
            (Some(text), _) => Some(format!("text needs quotes: `\"{text}\"`")),
            (_, Some((key, meant))) => Some(format!("write `{key} = {meant}`")),
            _ => is_sum.then(|| "write the result: TOML does not calculate".into()),
        },
    };
    Diagnostic {
        what: format!("not valid TOML: {}", error.message()),
        excerpt,
        expected: None,
        hint,
    }
}

/// The key and the raw value in the line of the character at `position`.
fn assignment_at(file: &SourceText, position: usize) -> Option<(&'static Key, &str)> {
    let before = file.text.get(..position)?;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = file.text[line_start..].lines().next()?;
    let (name, value) = line.split_once('=')?;
    Some((keys::find(name.trim())?, value.split('#').next()?.trim()))
}

/// The key and the value in the line of the character at `position`, if it is a number that Python would take.
fn number(file: &SourceText, position: usize) -> Option<(&'static str, String)> {
    let (key, value) = assignment_at(file, position)?;
    let meant = key
        .domain
        .meant(&DeValue::String(Cow::Borrowed(value)), value)?;
    meant.parse::<f64>().ok()?;
    Some((key.name, meant))
}

/// The value in the line of the character at `position`, if it would be valid in quotes.
fn unquoted(file: &SourceText, position: usize) -> Option<&str> {
    let (key, value) = assignment_at(file, position)?;
    let as_text = DeValue::String(Cow::Borrowed(value));
    let valid = key.domain.admits(&as_text);
    (valid && !value.contains(['"', '\'', '\\'])).then_some(value)
}

/// The line of the first section or key of this name; no two of them may share a name.
fn first_line_with(file: &SourceText, name: &str) -> Option<usize> {
    let has_name = |line: &str| {
        let line = line.trim_start_matches([' ', '\t', '[']);
        let after = line.strip_prefix(name).map(str::trim_start);
        after.is_some_and(|after| after.starts_with(['=', ']']))
    };
    let index = file.text.lines().position(has_name)?;
    Some(index + 1)
}

fn text(name: &'static str) -> Spanned<Cow<'static, str>> {
    Spanned::new(0..0, Cow::Borrowed(name))
}
