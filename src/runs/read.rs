//! Reading of `metrics.jsonl`, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{METRICS, Point, Run, RunError, RunEvent};
use crate::checkpoint;
use crate::record::{EvalRecord, Line, Moment, Record, StepRecord};
use crate::terms::{FileError, expand_home, read_text};

/// Far more than any line that a run writes.
const LONGEST_LINE_BYTES: u64 = 16 << 20;
/// Far more than a config has.
const LARGEST_CONFIG_BYTES: u64 = 1 << 20;

pub(super) fn open(path: &Path) -> Result<Run, RunError> {
    let path = &expand_home(path);
    let (folder, file) = places(path)?;
    let mut run = Run {
        name: name(&folder),
        description: None,
        config: None,
        steps: Vec::new(),
        evals: Vec::new(),
        scores: Vec::new(),
        events: Vec::new(),
        checkpoints: checkpoint::saved(&folder)?,
        notes: Vec::new(),
        folder,
    };
    read_lines(&mut run, &file)?;
    run.config = match &run.description {
        Some(description) => Some(description.config.clone()),
        None => config_of_checkpoint(&run),
    };
    Ok(run)
}

/// The folder of the run that `path` means, and its metrics.
fn places(path: &Path) -> Result<(PathBuf, PathBuf), RunError> {
    if path.is_dir() {
        let file = path.join(METRICS);
        let folder = path.to_owned();
        return if file.exists() {
            Ok((folder, file))
        } else {
            Err(RunError::NoMetrics { folder })
        };
    }
    if !path.exists() {
        return Err(RunError::NotFound { path: path.into() });
    }
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    Ok((folder.unwrap_or(Path::new(".")).into(), path.into()))
}

fn name(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    name.to_string_lossy().into()
}

fn read_lines(run: &mut Run, path: &Path) -> Result<(), RunError> {
    let file = File::open(path).map_err(FileError::at("open", path))?;
    let mut reader = BufReader::new(file);
    let (mut number, mut unread, mut first_unread) = (0, 0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(LONGEST_LINE_BYTES);
        let read = bounded.read_until(b'\n', &mut line);
        let is_whole = line.ends_with(b"\n");
        match read.map_err(FileError::at("read", path))? {
            0 => break,
            bytes if bytes as u64 == LONGEST_LINE_BYTES && !is_whole => {
                return Err(RunError::LongLine {
                    path: path.into(),
                    line: number + 1,
                    most: LONGEST_LINE_BYTES,
                });
            }
            _ => number += 1,
        }
        match serde_json::from_slice::<Line>(&line) {
            Ok(Line { record, moment }) => run.take(record, moment),
            // A run that is training now, or that was killed, may be in the middle of its last line.
            Err(_) if !is_whole || line.iter().all(u8::is_ascii_whitespace) => {}
            Err(_) => {
                unread += 1;
                first_unread = if unread == 1 { number } else { first_unread };
            }
        }
    }
    let is_empty = run.steps.is_empty() && run.evals.is_empty();
    match (is_empty, unread) {
        (true, 1..) if run.description.is_none() => Err(RunError::Foreign { path: path.into() }),
        (true, _) => Err(RunError::Empty { path: path.into() }),
        (false, 0) => Ok(()),
        (false, _) => {
            let (path, lines) = (path.display(), if unread == 1 { "line" } else { "lines" });
            run.notes.push(format!(
                "`{path}`: {unread} {lines} left out that cannot be read, the first at line {first_unread}"
            ));
            Ok(())
        }
    }
}

impl Run {
    fn take(&mut self, record: Record, moment: Moment) {
        let step = self.last_step();
        match record {
            Record::Run(description) => {
                if let Some(from) = &description.resumed_from {
                    let (from, version) = (from.clone(), description.version.clone());
                    self.rewind(description.step);
                    let resumed = RunEvent::Resumed { from, version };
                    self.mark(description.step, moment, resumed);
                }
                self.description = Some(*description);
            }
            Record::Step(record) => self.take_step(record, moment),
            Record::Eval(record) => self.take_eval(record, moment),
            Record::Score { step, score } => self.scores.push(Point {
                step,
                moment,
                record: score,
            }),
            Record::Recovery { step, recovery } => {
                self.mark(step, moment, RunEvent::Recovered(recovery));
            }
            Record::Choice(choice) => self.mark(step, moment, RunEvent::Chosen(choice)),
            Record::Checkpoint { path, bytes, .. } => {
                self.mark(step, moment, RunEvent::Saved { path, bytes });
            }
            Record::Warning { message } => self.mark(step, moment, RunEvent::Warned { message }),
            Record::Skip { step, skipped } => self.mark(step, moment, RunEvent::Skipped(skipped)),
            Record::Diverged { step, message } => {
                self.mark(step, moment, RunEvent::Diverged { message });
            }
            Record::Unknown => {}
        }
    }

    fn take_step(&mut self, record: StepRecord, moment: Moment) {
        if record.step <= self.last_step() && !self.steps.is_empty() {
            self.rewind(record.step.saturating_sub(1));
        }
        self.steps.push(Point {
            step: record.step,
            moment: Moment {
                // Files of earlier versions do not tell; their steps are all of one size.
                tokens_seen: moment
                    .tokens_seen
                    .or(record.step.checked_mul(record.tokens)),
                ..moment
            },
            record,
        });
    }

    fn take_eval(&mut self, record: EvalRecord, moment: Moment) {
        let last = self.steps.last();
        let last = last.filter(|last| last.step == record.step);
        let tokens_seen = last.and_then(|last| last.moment.tokens_seen);
        self.evals.retain(|eval| eval.step < record.step);
        self.evals.push(Point {
            step: record.step,
            moment: Moment {
                tokens_seen: moment.tokens_seen.or(tokens_seen),
                ..moment
            },
            record,
        });
    }

    fn mark(&mut self, step: u64, moment: Moment, record: RunEvent) {
        self.events.push(Point {
            step,
            moment,
            record,
        });
    }

    /// Forgets what came after `step`: it is done again.
    fn rewind(&mut self, step: u64) {
        self.steps.retain(|point| point.step <= step);
        self.evals.retain(|point| point.step <= step);
        self.scores.retain(|point| point.step <= step);
        self.events.retain(|point| point.step <= step);
    }

    fn last_step(&self) -> u64 {
        let last = self.steps.last().map(|point| point.step);
        let evaluated = self.evals.last().map(|point| point.step);
        last.max(evaluated).unwrap_or(0)
    }
}

/// The config in the newest checkpoint that has one.
fn config_of_checkpoint(run: &Run) -> Option<Value> {
    let texts = run.checkpoints.iter().filter_map(|(_, path)| {
        read_text("read", &path.join("config.toml"), LARGEST_CONFIG_BYTES).ok()
    });
    let mut configs = texts.filter_map(|text| toml::from_str::<Value>(&text).ok());
    configs.next()
}
