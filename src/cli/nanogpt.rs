//! nanoGPT's command line where it is unambiguous: `--key=value`, and a config without a flag.
//!
//! The words are changed before clap reads them, and every change is told. What has two meanings, or none, stays as it is,
//! for clap to refuse.

use std::ffi::OsString;
use std::path::Path;

use clap::{Command, CommandFactory};

use super::Cli;
use crate::config::{PRESETS, Setting, setting};

/// A command line in taper's words.
pub struct Understood {
    pub words: Vec<OsString>,
    /// Sentences about the words that were changed or left out. Tell the user about those.
    pub notes: Vec<String>,
}

/// Verbs that take a config.
const VERBS: [&str; 3] = ["train", "plan", "bench"];

/// Puts taper's words in the place of nanoGPT's.
pub fn understood(typed: impl IntoIterator<Item = OsString>) -> Understood {
    let mut words: Vec<OsString> = typed.into_iter().collect();
    let mut reading = Reading::default();
    let verb = words.get(1).and_then(|word| word.to_str());
    if verb.is_some_and(|verb| VERBS.contains(&verb)) {
        let mut command = Cli::command();
        let mut known = 1;
        while let Some(inner) = words
            .get(known)
            .and_then(|word| command.find_subcommand(word))
        {
            command = inner.clone();
            known += 1;
        }
        let rest = words.split_off(known);
        reading.has_config = rest.iter().any(is_config_flag);
        for word in rest {
            reading.read(&command, word);
        }
        words.append(&mut reading.words);
    }
    Understood {
        words,
        notes: reading.notes(),
    }
}

fn is_config_flag(word: &OsString) -> bool {
    let word = word.to_string_lossy();
    word == "--config" || word.starts_with("--config=")
}

/// The words that are read so far.
#[derive(Default)]
struct Reading {
    words: Vec<OsString>,
    has_config: bool,
    /// A flag that waits for its value.
    waits: bool,
    /// Behind `--` there are no flags.
    ended: bool,
    /// Each word of nanoGPT's with taper's.
    changed: Vec<String>,
    left_out: Vec<String>,
}

impl Reading {
    fn read(&mut self, command: &Command, word: OsString) {
        let is_value = std::mem::take(&mut self.waits);
        let text = word.to_str().unwrap_or_default().to_owned();
        self.ended |= text == "--";
        let flag = text.strip_prefix("--").filter(|_| !is_value && !self.ended);
        match (flag, flag.and_then(|flag| flag.split_once('='))) {
            (_, Some((name, value))) if is_nanogpts(command, name) => {
                if !self.assign(command, &text, name, value) {
                    self.words.push(word);
                }
            }
            (Some(flag), _) => {
                self.waits = takes_value(command, flag) == Some(true);
                self.words.push(word);
            }
            (None, _) if !is_value && !self.ended && !self.has_config && is_config(&text) => {
                self.has_config = true;
                self.change(&text, format!("--config={text}"));
            }
            _ => self.words.push(word),
        }
    }

    /// Reads `--name=value`, which `text` is; false if that has no meaning here.
    fn assign(&mut self, command: &Command, text: &str, name: &str, value: &str) -> bool {
        let dashed = name.replace('_', "-");
        match (takes_value(command, &dashed), value) {
            (Some(true), _) => self.change(text, format!("--{dashed}={value}")),
            (Some(false), "True" | "true" | "1") => self.change(text, format!("--{dashed}")),
            (Some(false), "False" | "false" | "0") => {
                self.left_out
                    .push(format!("`{text}` (that is the default)"));
            }
            (Some(false), _) => return false,
            (None, _) => match setting(name, Some(value)) {
                Some(Setting::Set(set)) => self.change(text, format!("--set={set}")),
                Some(Setting::Superfluous(reason)) => {
                    self.left_out.push(format!("`{text}` ({reason})"));
                }
                Some(Setting::Elsewhere(_)) | None => return false,
            },
        }
        true
    }

    fn change(&mut self, text: &str, to: String) {
        self.changed.push(format!("`{text}` as `{to}`"));
        self.words.push(to.into());
    }

    fn notes(&self) -> Vec<String> {
        let said = |what: &str, words: &[String]| {
            (!words.is_empty()).then(|| format!("{what} {}", words.join(", ")))
        };
        let changed = said("nanoGPT's words are read as taper's:", &self.changed);
        let left_out = said("left out of nanoGPT's words:", &self.left_out);
        changed.into_iter().chain(left_out).collect()
    }
}

/// Whether a name is in nanoGPT's spelling, and no flag of the verb.
fn is_nanogpts(command: &Command, name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.chars().all(is_letter) && takes_value(command, name).is_none()
}

/// Whether the flag `--name` of a verb takes a value; `None` if it has no such flag.
fn takes_value(command: &Command, name: &str) -> Option<bool> {
    let mut flags = command.get_arguments();
    let flag = flags.find(|argument| argument.get_long() == Some(name))?;
    Some(flag.get_action().takes_values())
}

/// Whether a word alone is a config: a file, or a preset with its ending.
fn is_config(word: &str) -> bool {
    let path = Path::new(word);
    let ends = |ending| path.extension().is_some_and(|found| found == ending);
    let is_preset = || {
        let mut names = PRESETS.iter().map(|preset| preset.name);
        ends("toml") && names.any(|name| word.strip_suffix(".toml") == Some(name))
    };
    (ends("py") || ends("toml")) && path.is_file() || is_preset()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words behind `taper`, and the notes.
    fn of(line: &str) -> (String, Vec<String>) {
        let Understood { words, notes } = understood(line.split(' ').map(OsString::from));
        let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
        (words.join(" "), notes)
    }

    #[test]
    fn keys_of_nanogpt_become_settings_and_are_told_once() {
        for (line, expected) in [
            (
                "taper train --config a.toml --batch_size=32",
                "taper train --config a.toml --set=train.batch_size=32",
            ),
            (
                "taper train --config=a.toml --decay_lr=False --learning_rate=.001 --out_dir=out=x",
                "taper train --config=a.toml --set=optimizer.decay_lr=false \
                 --set=optimizer.learning_rate=0.001 --set=checkpoint.out_dir=out=x",
            ),
            (
                "taper train --compile=False --wandb_log=True --backend=nccl --max_iters=5",
                "taper train --set=train.max_iters=5",
            ),
            ("taper train --eval_only=True", "taper train --eval-only"),
            ("taper train --eval_only=False", "taper train"),
            (
                "taper train --memory_limit=2GiB",
                "taper train --memory-limit=2GiB",
            ),
            (
                "taper train --device=mps",
                "taper train --set=system.device=auto",
            ),
            (
                "taper train --device=cpu",
                "taper train --set=system.device=cpu",
            ),
            (
                "taper bench step --n_layer=2",
                "taper bench step --set=model.n_layer=2",
            ),
            (
                "taper plan quickstart.toml",
                "taper plan --config=quickstart.toml",
            ),
            (
                "taper train src/lib.rs Cargo.toml",
                "taper train src/lib.rs --config=Cargo.toml",
            ),
        ] {
            let (words, notes) = of(line);
            assert_eq!(words, expected, "{line}");
            assert!((1..=2).contains(&notes.len()), "{line}: {notes:?}");
        }
        let (_, notes) = of("taper train --n_layer=2 --compile=False --n_head=2");
        assert_eq!(
            notes,
            [
                "nanoGPT's words are read as taper's: `--n_layer=2` as `--set=model.n_layer=2`, `--n_head=2` as \
                 `--set=model.n_head=2`",
                "left out of nanoGPT's words: `--compile=False` (nothing is compiled at run time)",
            ]
        );
    }

    #[test]
    fn words_that_taper_has_or_that_have_no_meaning_stay() {
        for line in [
            "taper",
            "taper train --config a.toml --set train.max_iters=5 --json",
            "taper plan --device=rtx3060 --free=2GiB --config quickstart.toml",
            "taper train --batch_size 32",
            "taper train --batch-size=32",
            "taper train --nonsense=1 --start=Once",
            "taper train --eval_only=maybe",
            "taper train --resume Cargo.toml",
            "taper train --config Cargo.toml quickstart.toml",
            "taper train absent.py",
            "taper train -- --batch_size=32 quickstart.toml",
            "taper sample --num_samples=3 --top_k=2",
            "taper prepare quickstart.toml --dataset=x",
        ] {
            let (words, notes) = of(line);
            assert_eq!((words.as_str(), notes.len()), (line, 0));
        }
    }
}
