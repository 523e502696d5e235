//! A sweep: several values of a key train several runs, one after the other in sibling folders, and end with a table.
//!
//! All runs are checked before the first begins. Each has its own folder, lock, plan and log, as if it had been started
//! alone; a run that fails stops no other.

mod members;
mod result;

use std::io;
use std::time::Instant;

use crate::checkpoint::OutDir;
use crate::commands::train::{Asked, TrainArgs, WHERE_TEXT_GOES};
use crate::commands::{print_now, until_reader_leaves};
use crate::config::{DataConfig, Sweep};
use crate::data::Dataset;
use crate::device::{forget_peak_resident_bytes, return_freed_memory};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::report::{ReportOptions, Reporter, only_stdout_is_redirected, say};
use crate::session::{SessionError, hold_folder};
use members::{Fate, Member};

/// Trains every run of a sweep.
pub(super) fn run(
    args: &TrainArgs,
    sweep: &Sweep,
    interrupt: &Interrupt,
    options: ReportOptions,
) -> Result<()> {
    let mut reporter = Reporter::new(options);
    if !args.json && only_stdout_is_redirected() {
        reporter.note(WHERE_TEXT_GOES);
    }
    let mut members = members::load_all(args, sweep, interrupt, options, &mut reporter)?;
    let mut datasets = OpenDataset::default();
    check_all(&mut members, &mut datasets, &mut reporter)?;
    let ended = train_all(&mut members, &mut datasets, &mut reporter);
    let failed = members.iter().filter(|it| it.fate.is_failure()).count();
    let text = if args.json {
        result::json(&members) + "\n"
    } else {
        result::table(sweep, &members) + "\n"
    };
    until_reader_leaves(print_now(&text))?;
    ended?;
    match failed {
        0 => Ok(()),
        failed => Err(Error::Sweep {
            failed,
            runs: members.len(),
        }),
    }
}

/// The dataset that was opened last: the runs of most sweeps have one in common.
#[derive(Default)]
struct OpenDataset(Option<(DataConfig, Dataset)>);

impl OpenDataset {
    fn of(&mut self, config: &DataConfig) -> Result<&mut Dataset> {
        let opened = match self.0.take() {
            Some((of, dataset)) if of == *config => dataset,
            _ => Dataset::open(config)?,
        };
        let (_, dataset) = self.0.insert((config.clone(), opened));
        Ok(dataset)
    }
}

/// Checks that every run can begin, so that no fault shows after hours. Notes those that are done.
fn check_all(
    members: &mut [Member],
    datasets: &mut OpenDataset,
    reporter: &mut Reporter,
) -> Result<()> {
    let mut goes_on = false;
    for member in &mut *members {
        let checked = member.check(datasets);
        let (step, is_done) = checked.inspect_err(|_| say(member.named()))?;
        goes_on |= step > 0;
        if is_done {
            member.fate = Fate::DoneBefore;
            reporter.note(&format!("{} is done: skipped", member.named()));
        }
    }
    let must_go_on = members.iter().any(|member| member.must_resume);
    if must_go_on && !goes_on {
        return Err(Error::Usage {
            what: "nothing to resume: no run of the sweep has a checkpoint".into(),
            hint: "leave `--resume` out to begin, or use `--resume=auto`, which does so where there is nothing to resume"
                .into(),
        });
    }
    Ok(())
}

impl Member<'_> {
    /// Does everything that the run does before it allocates, and leaves nothing behind. Returns the steps that are done
    /// and whether that is all of them.
    fn check(&self, datasets: &mut OpenDataset) -> Result<(u64, bool)> {
        // What there is to say is said when the run begins.
        let silent = ReportOptions {
            quiet: true,
            ..ReportOptions::default()
        };
        let mut silent = Reporter::with_outputs(silent, Box::new(io::sink()), Box::new(io::sink()));
        let folder = &self.asked.config.checkpoint.out_dir;
        let _held: Option<OutDir> = if folder.exists() {
            Some(hold_folder(folder, &mut silent)?)
        } else {
            None
        };
        let dataset = datasets.of(&self.asked.config.data)?;
        self.asked.planned(dataset, &mut silent, |run, _, _| {
            run.start.refuse_to_overwrite(&run.plan.out_dir)?;
            let step = run.start.step();
            Ok((step, step > 0 && step >= run.plan.max_iters))
        })
    }
}

/// Trains the runs that are not done, one after the other.
///
/// # Errors
/// A signal's, and that of a device that failed: the runs behind it are not begun.
fn train_all(
    members: &mut [Member],
    datasets: &mut OpenDataset,
    reporter: &mut Reporter,
) -> Result<()> {
    for member in members {
        if matches!(member.fate, Fate::DoneBefore) {
            continue;
        }
        let Asked {
            interrupt,
            options,
            args,
            ..
        } = member.asked;
        if interrupt.requested() {
            let signal = interrupt.signal();
            return Err(SessionError::InterruptedBeforeTraining { signal }.into());
        }
        reporter.note(&member.named());
        if args.json {
            until_reader_leaves(print_now(&(result::announcement(member) + "\n")))?;
        }
        let began = Instant::now();
        let ended = train(member, datasets, options);
        member.wall = Some(began.elapsed());
        match ended {
            Ok(()) => member.fate = Fate::Done,
            Err(error) if error.is_interrupt() => {
                member.fate = Fate::Stopped;
                return Err(error);
            }
            Err(error) => {
                member.fate = Fate::Failed(error.to_string());
                if error.is_device_failure() {
                    return Err(error);
                }
                say(format_args!("{} failed", member.named()));
                say(error.account());
            }
        }
    }
    Ok(())
}

/// Trains one run, and gives back what it held.
fn train(member: &mut Member, datasets: &mut OpenDataset, options: ReportOptions) -> Result<()> {
    forget_peak_resident_bytes();
    // `train.max_minutes` is each run's own.
    member.asked.begun = Instant::now();
    let dataset = datasets.of(&member.asked.config.data)?;
    let mut reporter = Reporter::without_results(options);
    let ended = member.asked.run(dataset, &mut reporter);
    return_freed_memory();
    ended
}
