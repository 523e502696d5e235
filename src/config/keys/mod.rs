//! The keys of the configuration: their meanings, defaults and valid values.
//!
//! Their two tables are the only source of the checks, the messages, the suggestions and the explanations for one key; a
//! test holds the documentation of the types against them. Rules that need two keys are in `rules`.

mod domain;
#[cfg(test)]
mod drift;
mod experiment;
mod running;

pub(super) use domain::{Domain, whole};

/// A key of the configuration. Names are unique across sections.
#[derive(Debug)]
pub(super) struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub domain: Domain,
    /// Sentences.
    pub meaning: &'static str,
    pub origin: Origin,
    /// The end of the sentence "When absent, ..."; `None` for a key that always has a value.
    pub absent: Option<&'static str>,
}

/// The program that has a key of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    NanoGpt,
    /// taper alone, with what nanoGPT does instead, if anything.
    Taper(Option<&'static str>),
}

/// The sections with their meanings.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("model", "The architecture; nanoGPT's `GPTConfig`."),
    ("data", "The tokens to train on."),
    (
        "train",
        "The run: its start, its length and the size of its steps.",
    ),
    ("optimizer", "AdamW and its learning rate."),
    ("eval", "The times and the size of evaluations."),
    (
        "checkpoint",
        "The checkpoints of the run, and their folder.",
    ),
    ("system", "The machine and its precision."),
    ("gemm", "GEMMs, the matrix products."),
];

/// Three keys that each give the size of a step. A `--set` of one replaces another one of the file.
pub(super) const STEP_SIZE: [&str; 3] = [
    "gradient_accumulation_steps",
    "sequences_per_step",
    "tokens_per_step",
];

/// Every key, section after section.
pub(super) fn all() -> impl Iterator<Item = &'static Key> + Clone {
    experiment::KEYS.iter().chain(running::KEYS)
}

pub(super) fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// The sections, in order.
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|(name, _)| *name)
}

/// The candidate that is nearest to what was typed, if one is near.
pub(super) fn nearest<'a>(
    typed: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // Below 0.8 the Jaro-Winkler similarity pairs words that have little more than letters in
    // common (`steps` and `seed`).
    candidates
        .map(|candidate| (strsim::jaro_winkler(typed, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b` and `c` `` with the given last joint.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>, joint: &str) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {joint} {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// A key of nanoGPT's that always has a value.
const fn key(
    section: &'static str,
    name: &'static str,
    domain: Domain,
    meaning: &'static str,
) -> Key {
    Key {
        section,
        name,
        domain,
        meaning,
        origin: Origin::NanoGpt,
        absent: None,
    }
}

impl Key {
    /// Makes it a key of taper's own.
    const fn own(self, instead: Option<&'static str>) -> Self {
        Self {
            origin: Origin::Taper(instead),
            ..self
        }
    }

    /// Makes it a key that may be absent.
    const fn absent(self, meaning: &'static str) -> Self {
        Self {
            absent: Some(meaning),
            ..self
        }
    }
}
