//! Every key explained: its meaning, its default, its valid values, and a request with all of that as comments.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key, Origin, SECTIONS};
use super::{Config, LoadedConfig, nanogpt};

/// A key, for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyExplanation {
    pub section: &'static str,
    pub name: &'static str,
    pub meaning: &'static str,
    /// The default in TOML; `None` for a key that is absent by default.
    #[serde(skip)]
    pub default_toml: Option<String>,
    /// The default for programs; `null` for a key that is absent by default.
    pub default: Value,
    /// Meaning of an absent key; `None` for a key that always has a value.
    pub absent: Option<&'static str>,
    /// Description of the valid values.
    pub valid: String,
    /// nanoGPT's name of the key; `None` for a key of taper's own.
    pub nanogpt: Option<&'static str>,
    /// nanoGPT's way, for a key that it does not have.
    pub nanogpt_instead: Option<&'static str>,
}

/// A name that is neither a section nor a key.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownName {
    pub what: String,
    pub hint: String,
}

/// The sections with their meanings, in order.
pub fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    SECTIONS.iter().copied()
}

/// The keys that `name` means: a section, a key, or `section.key`; all without a name.
///
/// # Errors
/// [`UnknownName`] with the nearest name, or with what takes the place of a key of nanoGPT's.
pub fn explain_keys(name: Option<&str>) -> Result<Vec<KeyExplanation>, UnknownName> {
    let path = name.map(|name| name.trim_matches(['[', ']']));
    let is_meant = |key: &&Key| match path.map(|path| path.split_once('.')) {
        None => true,
        Some(Some((section, name))) => key.section == section && key.name == name,
        Some(None) => path == Some(key.section) || path == Some(key.name),
    };
    let defaults = Values::of(&Config::default());
    let meant: Vec<KeyExplanation> = keys::all()
        .filter(is_meant)
        .map(|key| defaults.explanation(key))
        .collect();
    match path {
        Some(path) if meant.is_empty() => Err(unknown(path)),
        _ => Ok(meant),
    }
}

fn unknown(path: &str) -> UnknownName {
    let name = path.rsplit('.').next().unwrap_or(path);
    if let Some(answer) = nanogpt::answer(name) {
        return UnknownName {
            what: format!("taper does not have nanoGPT's `{name}`"),
            hint: answer.into(),
        };
    }
    let names = keys::sections().chain(keys::all().map(|key| key.name));
    let nearest = keys::nearest(name, names);
    let nearest_key = keys::find(name).or_else(|| keys::find(nearest?));
    let hint = match (nearest_key, nearest) {
        (Some(key), _) => format!("did you mean `{}.{}`?", key.section, key.name),
        (None, Some(section)) => format!("did you mean `{section}`?"),
        (None, None) => "`taper config keys` lists all of them".into(),
    };
    UnknownName {
        what: format!("no section and no key is called `{path}`"),
        hint,
    }
}

/// The values of a config in TOML, and for programs.
struct Values {
    /// By the names of the keys. Absent keys are not in it.
    toml: BTreeMap<&'static str, String>,
    json: Value,
}

impl Values {
    fn of(config: &Config) -> Self {
        let text = config.to_toml();
        // What `to_toml` writes can be read.
        let table = DeTable::parse(&text).map_or_else(|_| DeTable::new(), Spanned::into_inner);
        let value = |key: &Key| {
            let section = table.get(key.section)?.get_ref().as_table()?;
            toml_text(section.get(key.name)?.get_ref())
        };
        Self {
            toml: keys::all()
                .filter_map(|key| Some((key.name, value(key)?)))
                .collect(),
            json: json!(config),
        }
    }

    /// The value of a key in TOML; `None` if it is absent.
    fn toml(&self, key: &Key) -> Option<String> {
        self.toml.get(key.name).cloned()
    }

    fn explanation(&self, key: &'static Key) -> KeyExplanation {
        let (nanogpt, nanogpt_instead) = match key.origin {
            Origin::NanoGpt => (Some(key.name), None),
            Origin::Taper(instead) => (None, instead),
        };
        KeyExplanation {
            section: key.section,
            name: key.name,
            meaning: key.meaning,
            default_toml: self.toml(key),
            default: self.json[key.section][key.name].clone(),
            absent: key.absent,
            valid: key.domain.expected(),
            nanogpt,
            nanogpt_instead,
        }
    }
}

/// Numbers below this are written with an exponent, as people do.
const SMALL: f64 = 1e-2;

/// A value as people write it: a number with its shortest digits, `0.95` and `6e-4`.
fn toml_text(value: &DeValue) -> Option<String> {
    match value {
        DeValue::String(text) => Some(toml::Value::String(text.to_string()).to_string()),
        DeValue::Integer(number) => Some(number.as_str().into()),
        DeValue::Float(number) => {
            let number: f64 = number.as_str().parse().ok()?;
            let is_small = number != 0.0 && number.abs() < SMALL;
            Some(if is_small {
                format!("{number:e}")
            } else {
                format!("{number:?}")
            })
        }
        DeValue::Boolean(switch) => Some(switch.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

impl Config {
    /// The value of the key of this name, in TOML; `None` if it is absent, or there is no such key.
    pub fn value_of(&self, name: &str) -> Option<String> {
        Values::of(self).toml(keys::find(name)?)
    }
}

/// Width of the comments.
const WIDTH: usize = 100;

impl LoadedConfig {
    /// The request with every key, its meaning and its default as comments, in a form that `--config` reads back as the
    /// same request. `heading` comes first.
    ///
    /// A size of the model that nobody gave is a comment too, so that weights may still decide it.
    pub fn explained_toml(&self, heading: &str) -> String {
        let (own, defaults) = (Values::of(&self.config), Values::of(&Config::default()));
        let mut text = String::new();
        comment(&mut text, heading);
        text += "#\n# `*` marks what is not the default.\n";
        for (section, meaning) in SECTIONS {
            text += "\n";
            comment(&mut text, meaning);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "[{section}]");
            for key in keys::all().filter(|key| key.section == *section) {
                text += "\n";
                comment(&mut text, key.meaning);
                let is_open = self.given.leaves_open(key.name);
                line(&mut text, key, own.toml(key), defaults.toml(key), is_open);
            }
        }
        text
    }
}

/// Adds the line of a key. `is_open`: nobody gave the value, and weights may decide it.
fn line(
    text: &mut String,
    key: &Key,
    value: Option<String>,
    default: Option<String>,
    is_open: bool,
) {
    let name = key.name;
    let absent = key.absent.unwrap_or_default();
    let Some(value) = value else {
        return comment(text, &format!("Absent: {absent}."));
    };
    let (mark, default) = match default {
        Some(default) if default == value => ("", Cow::from("the default")),
        Some(default) => ("* ", Cow::from(format!("default: {default}"))),
        None => ("* ", Cow::from("absent by default")),
    };
    let open = if is_open {
        ("# ", "; weights that a run starts from decide it")
    } else {
        ("", "")
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}{name} = {value} # {mark}{default}{}",
        open.0, open.1
    );
}

/// Adds a comment, broken into lines.
fn comment(text: &mut String, sentences: &str) {
    let mut line = String::from("#");
    for word in sentences.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH && line.len() > 1 {
            text.push_str(&line);
            text.push('\n');
            line = "#".into();
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}
