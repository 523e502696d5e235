//! The runs of a sweep: their configs and their folders.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::time::Instant;

use crate::commands::request::{load, load_and_keep};
use crate::commands::train::{Asked, TrainArgs, with_limit};
use crate::config::{Config, Sweep};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::report::{ReportOptions, Reporter};
use crate::session::Resume;
use crate::terms::Job;

/// A run of a sweep.
pub(super) struct Member<'a> {
    /// Its number, from 1, and the number of runs.
    number: (usize, usize),
    pub asked: Asked<'a>,
    /// `section.key` and value in TOML, for every key that has several values in the sweep.
    pub settings: Vec<(String, String)>,
    /// Whether the command is one that only goes on: plain `--resume`.
    pub must_resume: bool,
    pub fate: Fate,
    /// Time that it took in this process.
    pub wall: Option<Duration>,
}

/// The end of a run.
pub(super) enum Fate {
    NotBegun,
    /// An earlier command trained it to its end.
    DoneBefore,
    Done,
    /// A signal stopped it.
    Stopped,
    /// It failed, with this error.
    Failed(String),
}

impl Fate {
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

impl Member<'_> {
    pub fn folder(&self) -> &Path {
        &self.asked.config.checkpoint.out_dir
    }

    /// `run 2 of 3, optimizer.learning_rate=6e-4, in out-learning_rate=6e-4`
    pub fn named(&self) -> String {
        let (number, runs) = self.number;
        let settings = self.settings.iter();
        let settings = settings.map(|(key, value)| format!("{key}={}, ", plain(value)));
        let settings: String = settings.collect();
        let folder = self.folder().display();
        format!("run {number} of {runs}, {settings}in `{folder}`")
    }
}

/// The value without the quotes of TOML's text.
pub(super) fn plain(value: &str) -> &str {
    value.trim_matches('"')
}

/// The runs of a sweep, each with a config of its own.
///
/// # Errors
/// The first invalid config; flags that make no sense in a sweep; two runs that are the same.
pub(super) fn load_all<'a>(
    args: &'a TrainArgs,
    sweep: &Sweep,
    interrupt: &'a Interrupt,
    options: ReportOptions,
    reporter: &mut Reporter,
) -> Result<Vec<Member<'a>>> {
    let resume = args
        .resume
        .as_ref()
        .map(|path| Resume::parse(path.as_deref()));
    refuse(args, resume.as_ref(), sweep.runs.len())?;
    let mut members: Vec<Member> = Vec::new();
    for (index, overrides) in sweep.runs.iter().enumerate() {
        let overrides = with_limit(overrides, args);
        let (config, given) = match index {
            0 => load_and_keep(&args.config, &overrides, |told| reporter.note(told))?,
            _ => load(&args.config, &overrides, |_| {})?,
        };
        if config.eval.eval_only {
            return Err(only_evaluates("`eval.eval_only`", sweep.runs.len()));
        }
        let settings = settings(sweep, &config);
        let same = members.iter().find(|member| member.settings == settings);
        if same.is_some() {
            return Err(same_twice(&settings));
        }
        // nanoGPT's `init_from = "resume"` asks for the same.
        let is_resume = resume.is_some() || config.train.init_from == "resume";
        members.push(Member {
            number: (index + 1, sweep.runs.len()),
            must_resume: is_resume && resume != Some(Resume::Auto),
            asked: Asked {
                args,
                config: in_sibling_folder(config, &settings),
                given,
                // A run of a sweep that was stopped may not have begun.
                resume: is_resume.then_some(Resume::Auto),
                job: Job::Train,
                interrupt,
                options,
                begun: Instant::now(),
            },
            settings,
            fate: Fate::NotBegun,
            wall: None,
        });
    }
    Ok(members)
}

fn refuse(args: &TrainArgs, resume: Option<&Resume>, runs: usize) -> Result<()> {
    if args.eval_only {
        return Err(only_evaluates("`--eval-only`", runs));
    }
    if let Some(Resume::From(path)) = resume {
        return Err(Error::Usage {
            what: format!(
                "`--resume {}` goes on with one run, and `--set` asks for {runs}",
                path.display()
            ),
            hint: "plain `--resume` goes on with every run of the sweep, each in its own folder"
                .into(),
        });
    }
    Ok(())
}

fn only_evaluates(flag: &str, runs: usize) -> Error {
    Error::Usage {
        what: format!("{flag} trains nothing, and `--set` asks for {runs} runs"),
        hint: "give every key one value, or let the runs train".into(),
    }
}

fn same_twice(settings: &[(String, String)]) -> Error {
    let settings = settings.iter();
    let settings: Vec<String> = settings
        .map(|(key, value)| format!("`{key}={}`", plain(value)))
        .collect();
    Error::Usage {
        what: format!(
            "{} is asked for twice, and would be the same run",
            settings.join(" with ")
        ),
        hint: "give every value once".into(),
    }
}

/// The values of the swept keys, as the config has them: 1e-3 and 0.001 are one.
fn settings(sweep: &Sweep, config: &Config) -> Vec<(String, String)> {
    let keys = sweep.keys.iter();
    keys.map(|key| {
        let value = config.value_of(key.name).unwrap_or_default();
        (format!("{}.{}", key.section, key.name), value)
    })
    .collect()
}

/// Sends the run into a folder beside `checkpoint.out_dir` that is called after its settings.
fn in_sibling_folder(mut config: Config, settings: &[(String, String)]) -> Config {
    let names = settings.iter().map(|(key, value)| {
        let name = key.rsplit('.').next().unwrap_or(key);
        format!("{name}={}", plain(value))
    });
    let name = names.collect::<Vec<_>>().join("-");
    let folder = &mut config.checkpoint.out_dir;
    *folder = sibling(folder, &name);
    config
}

/// `out` and `a=1` make `out-a=1`; a path without a name, such as `..`, makes a folder inside.
fn sibling(folder: &Path, name: &str) -> PathBuf {
    match folder.file_name() {
        Some(own) => {
            let mut beside = own.to_owned();
            beside.push(format!("-{name}"));
            folder.with_file_name(beside)
        }
        None => folder.join(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_named_beside_the_one_that_is_asked_for() {
        for (folder, expected) in [
            ("out", "out-a=1"),
            ("out/", "out-a=1"),
            ("x/out.d", "x/out.d-a=1"),
            ("/out", "/out-a=1"),
            (".", "./a=1"),
            ("..", "../a=1"),
            ("/", "/a=1"),
        ] {
            assert_eq!(sibling(Path::new(folder), "a=1"), Path::new(expected));
        }
    }
}
