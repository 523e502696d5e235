//! A config of nanoGPT, a file of flat names in Python or TOML, in taper's words.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;

use toml::de::DeValue;

use super::error::{ConfigError, Diagnostic, SourceText};
use super::keys::{self, Domain, Key, STEP_SIZE};
use super::python::{self, Assignment, Defect, Script, Value};
use super::{NANOGPT_ACCUMULATION, NANOGPT_BATCH_SIZE, flat, nanogpt};

/// Values for keys of taper, and what is to be said of them.
#[derive(Default)]
pub(super) struct Translation {
    pub values: Vec<Translated>,
    pub notes: Vec<String>,
}

/// The value of a key.
pub(super) struct Translated {
    pub key: &'static Key,
    /// In TOML.
    pub value: String,
    /// Its place in the file; empty for a default of nanoGPT's.
    pub span: Range<usize>,
}

/// Keys that nanoGPT takes from OpenAI's weights, whatever the config says.
const OF_WEIGHTS: [&str; 4] = ["n_layer", "n_head", "n_embd", "bias"];

/// Letters by which a name may differ from a key that was meant; a file may have names of its own.
const SLIP: usize = 2;

/// Statements that are quoted in a note.
const QUOTED: usize = 5;

/// The language of a config of nanoGPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    /// TOML without sections.
    FlatToml,
}

/// The translation of `file`.
///
/// # Errors
/// [`ConfigError::Invalid`] with every value and statement that matters and would have to be executed, and with names that
/// are probably slips; of TOML, with what [`flat::read`] refuses.
pub(super) fn translated(
    file: &SourceText,
    language: Language,
) -> Result<Translation, ConfigError> {
    let script = match language {
        Language::Python => read_python(file)?,
        Language::FlatToml => flat::read(file)?,
    };
    translated_script(file, script)
}

fn read_python(file: &SourceText) -> Result<Script, ConfigError> {
    let matters = |name: &str| keys::find(name).is_some();
    python::read(&file.text, matters).map_err(|defects| {
        let diagnostics = defects.into_iter().map(|defect| diagnostic(file, defect));
        ConfigError::Invalid(diagnostics.collect())
    })
}

fn translated_script(file: &SourceText, script: Script) -> Result<Translation, ConfigError> {
    let mut work = Work {
        file,
        assignments: last_of_each(script.assignments),
        done: Translation::default(),
        reasons: BTreeMap::new(),
        unknown: Vec::new(),
    };
    let slips: Vec<Diagnostic> = work
        .assignments
        .iter()
        .filter(|assignment| !script.used.contains(&assignment.name))
        .filter_map(|assignment| slip(file, assignment))
        .take(python::MOST_DEFECTS)
        .collect();
    if !slips.is_empty() {
        return Err(ConfigError::Invalid(slips));
    }
    work.translate(&script.used);
    work.say(&script.left_out);
    Ok(work.done)
}

/// The assignments that count: the last one of each name.
fn last_of_each(all: Vec<Assignment>) -> Vec<Assignment> {
    let mut seen = HashSet::new();
    let last = all.into_iter().rev();
    let mut last: Vec<Assignment> = last
        .filter(|assignment| seen.insert(assignment.name.clone()))
        .collect();
    last.reverse();
    last
}

/// A translation in the making.
struct Work<'a> {
    file: &'a SourceText,
    /// One for each name.
    assignments: Vec<Assignment>,
    done: Translation,
    /// Names that are left out, by the reason.
    reasons: BTreeMap<String, Vec<String>>,
    unknown: Vec<String>,
}

impl Work<'_> {
    fn text_of(&self, name: &str) -> Option<&str> {
        let assignment = self.assignments.iter().find(|given| given.name == name)?;
        match assignment.value.as_ref()? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn translate(&mut self, used: &HashSet<String>) {
        let init_from = self.text_of("init_from").unwrap_or("scratch").to_owned();
        let of_openai = init_from.starts_with("gpt2");
        let on_cpu = self.text_of("device") == Some("cpu");
        for assignment in std::mem::take(&mut self.assignments) {
            let name = assignment.name.as_str();
            let text = match &assignment.value {
                Some(Value::Text(text)) => text.as_str(),
                _ => "",
            };
            let Some(key) = keys::find(name) else {
                match nanogpt::answer(name) {
                    Some(answer) => self.leave_out(name, answer),
                    None if used.contains(name) => {}
                    None => self.unknown.push(format!("`{name}`")),
                }
                continue;
            };
            let answer = nanogpt::value_answer(key, text);
            match (name, answer, &assignment.value) {
                (_, _, None) => {}
                (_, _, Some(Value::None)) => {
                    self.leave_out(name, "a key that is None has its default");
                }
                ("device", Some(_), _) => {
                    let note = format!(
                        "`device` is \"auto\" in the place of \"{text}\", which taper does not have"
                    );
                    self.done.notes.push(note);
                }
                (_, Some(answer), _) => self.leave_out(name, answer),
                (name, ..) if of_openai && OF_WEIGHTS.contains(&name) => {
                    self.leave_out(name, "the weights of `init_from` decide it, as in nanoGPT");
                }
                ("dtype", ..) if on_cpu => {
                    self.leave_out(
                        name,
                        "on the CPU nanoGPT computes in float32 whatever it says",
                    );
                }
                (_, None, Some(value)) => self.done.values.push(Translated {
                    key,
                    value: in_toml(key, value),
                    span: assignment.span,
                }),
            }
        }
        self.add_step_size();
        if of_openai {
            let note =
                "`gelu` is that of the weights, tanh, where nanoGPT computes with erf on them";
            self.done.notes.push(note.into());
        }
        if init_from == "scratch" {
            self.add(
                "gelu",
                "\"erf\"".into(),
                "PyTorch's `nn.GELU()`, which nanoGPT computes with",
            );
        }
    }

    /// Adds nanoGPT's default of one factor of the step's size, or of both: its step is always their product.
    fn add_step_size(&mut self) {
        let is_taper_s = |given: &Translated| STEP_SIZE[1..].contains(&given.key.name);
        if self.done.values.iter().any(is_taper_s) {
            return;
        }
        let default = "nanoGPT's default";
        self.add("batch_size", NANOGPT_BATCH_SIZE.to_string(), default);
        let steps = NANOGPT_ACCUMULATION.to_string();
        self.add("gradient_accumulation_steps", steps, default);
    }

    /// Adds a value that the file does not give.
    fn add(&mut self, name: &str, value: String, because: &str) {
        let is_given = self.done.values.iter().any(|given| given.key.name == name);
        let Some(key) = keys::find(name).filter(|_| !is_given) else {
            return;
        };
        let note = format!("`{name} = {value}` is added: {because}");
        self.done.notes.push(note);
        self.done.values.push(Translated {
            key,
            value,
            span: 0..0,
        });
    }

    fn leave_out(&mut self, name: &str, reason: &str) {
        let reason = reason.strip_prefix("remove it: ").unwrap_or(reason);
        let names = self.reasons.entry(reason.to_owned()).or_default();
        names.push(format!("`{name}`"));
    }

    fn say(&mut self, statements: &[Range<usize>]) {
        let sections = keys::sections().filter_map(|section| {
            let of_section =
                |given: &&Translated| given.key.section == section && !given.span.is_empty();
            let names = self.done.values.iter().filter(of_section);
            let names: Vec<&str> = names.map(|given| given.key.name).collect();
            (!names.is_empty()).then(|| format!("[{section}] {}", names.join(", ")))
        });
        let sections: Vec<String> = sections.collect();
        let read = match &sections[..] {
            [] => "read: no key".into(),
            sections => format!("read: {}", sections.join("; ")),
        };
        self.done.notes.insert(0, read);
        for (reason, names) in &self.reasons {
            let note = format!("left out: {} ({reason})", names.join(", "));
            self.done.notes.push(note);
        }
        if !self.unknown.is_empty() {
            let names = shown(&self.unknown);
            self.done
                .notes
                .push(format!("left out: {names} (no keys of nanoGPT or taper)"));
        }
        let quoted: Vec<String> = statements
            .iter()
            .take(QUOTED)
            .map(|span| {
                let line = self.file.text[..span.start].matches('\n').count() + 1;
                let text = self.file.text[span.clone()].lines().next();
                format!("line {line}, `{}`", text.unwrap_or_default())
            })
            .collect();
        if !quoted.is_empty() {
            let more = match statements.len() - quoted.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            self.done.notes.push(format!(
                "left out, as nothing of the file is executed: {}{more}",
                quoted.join("; ")
            ));
        }
        let file = self.file.file.clone().unwrap_or_default();
        for note in &mut self.done.notes {
            *note = format!("`{file}`: {note}");
        }
    }
}

/// The first few names, and how many more there are.
fn shown(names: &[String]) -> String {
    let few = names
        .iter()
        .take(QUOTED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(QUOTED) {
        0 => few,
        more => format!("{few} and {more} more"),
    }
}

impl Translation {
    /// The values as a TOML file, which says where they are from.
    pub(super) fn to_toml(&self, file: &str) -> String {
        let mut text = format!("# From {file}, a config of nanoGPT.\n");
        for section in keys::sections() {
            let values = self
                .values
                .iter()
                .filter(|given| given.key.section == section);
            let lines = values.map(|given| format!("{} = {}\n", given.key.name, given.value));
            let lines: String = lines.collect();
            if !lines.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(text, "\n[{section}]\n{lines}");
            }
        }
        text
    }
}

/// A value in TOML. A float without a fraction is a whole number where the key takes one.
fn in_toml(key: &Key, value: &Value) -> String {
    match value {
        Value::Float(number) => {
            let text = format!("{number:?}");
            let takes_whole = matches!(key.domain, Domain::Whole(_) | Domain::AutoOrCount);
            let whole = key.domain.meant(&DeValue::Boolean(false), &text);
            whole.filter(|_| takes_whole).unwrap_or(text)
        }
        Value::Bool(switch) => switch.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Text(text) => toml::Value::String(text.clone()).to_string(),
        Value::None => String::new(),
    }
}

/// The diagnostic of a name that is no key and much like one.
fn slip(file: &SourceText, assignment: &Assignment) -> Option<Diagnostic> {
    let name = assignment.name.as_str();
    if keys::find(name).is_some() || nanogpt::answer(name).is_some() || name.starts_with('_') {
        return None;
    }
    let nearest = keys::nearest(name, keys::all().map(|key| key.name))
        .filter(|nearest| strsim::damerau_levenshtein(name, nearest) <= SLIP)?;
    Some(Diagnostic {
        what: format!("unknown key `{name}`"),
        excerpt: Some(file.excerpt(assignment.name_span.clone())),
        expected: None,
        hint: Some(format!(
            "did you mean `{nearest}`? A name of your own may have any other spelling"
        )),
    })
}

fn diagnostic(file: &SourceText, defect: Defect) -> Diagnostic {
    let key = defect.key.as_deref().and_then(keys::find);
    let hint = match key {
        Some(key) => format!(
            "write its value as a literal, or leave it out and add `--set {}.{}=VALUE`",
            key.section, key.name
        ),
        None => {
            "taper reads literal assignments, such as `n_layer = 12`, and arithmetic on them".into()
        }
    };
    Diagnostic {
        what: defect.what,
        excerpt: Some(file.excerpt(defect.span)),
        expected: None,
        hint: Some(hint),
    }
}
