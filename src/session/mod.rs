//! A training run in progress: the trainer, its data, its reports and its checkpoints.
//!
//! State that a resumed run needs is in [`TrainState`]; sample order and dropout follow from the
//! step, so nothing else is remembered.

mod dataset;
mod divergence;
mod error;
mod evaluation;
mod folder;
mod scoring;
mod start;

pub use divergence::Divergence;
pub use error::SessionError;
pub use evaluation::evaluate_weights;
pub use folder::hold_folder;
pub use scoring::ScoredTasks;
pub use start::{Resume, Resumed, Start};

use evaluation::{evaluate_splits, reader};

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::checkpoint::{self, OutDir, Snapshot, TrainState};
use crate::data::Dataset;
use crate::data::order::train_window;
use crate::interrupt::Interrupt;
use crate::memory::{AllocationError, Memory, Recoverable};
use crate::metrics::{StepPhases, StepReport};
use crate::ops::backend::Backend;
use crate::ops::gemm::Table;
use crate::plan::Plan;
use crate::report::{BestEval, GpuUse, Reporter, Summary, Warning};
use crate::step::recovery::Recovery;
use crate::step::{StepTimes, Trainer};
use crate::terms::Engine;

/// A training run with its buffers allocated.
pub struct Session<'a> {
    pub plan: &'a Plan,
    pub dataset: &'a Dataset,
    pub reporter: &'a mut Reporter,
    pub interrupt: &'a Interrupt,
    pub trainer: Trainer,
    pub state: TrainState,
    /// The newest checkpoint that this run wrote or started from, and its step.
    pub saved: Option<(u64, PathBuf)>,
    /// The moment from which on the run saves and ends at the next border of a step. At least one step is done.
    pub deadline: Option<Instant>,
    /// Steps done by this process.
    steps: u64,
    /// Scored every so many steps.
    pub tasks: ScoredTasks,
    /// Written into every checkpoint.
    extra_files: Vec<(String, Vec<u8>)>,
    folder: OutDir,
    /// Checkpoints of other branches with later steps.
    others: Vec<(u64, PathBuf)>,
}

impl<'a> Session<'a> {
    /// Allocates everything the run needs, and tunes its GEMMs. Weights, moments and state are those of step 0.
    pub fn allocate(
        plan: &'a Plan,
        dataset: &'a Dataset,
        reporter: &'a mut Reporter,
        interrupt: &'a Interrupt,
        backend: Box<dyn Backend>,
        memory: Memory,
        folder: OutDir,
    ) -> Result<Self, SessionError> {
        let step = plan.step.clone();
        let trainer = Trainer::new(&plan.model, backend, plan.rungs(), step, memory)?;
        // In the middle of tuning, perhaps.
        if interrupt.requested() {
            return Err(SessionError::InterruptedBeforeTraining {
                signal: interrupt.signal(),
            });
        }
        Ok(Self {
            plan,
            dataset,
            reporter,
            interrupt,
            state: TrainState {
                step: 0,
                seed: plan.step.seed.0,
                sequences_per_step: plan.step.sequences_per_step,
                dataset: Some(dataset.identity.clone()),
                rung: Some(trainer.rung()),
                recoveries: Vec::new(),
                tokens_seen: 0,
                best_val_loss: None,
                best_step: None,
                evaluated_step: None,
                scored_step: None,
                metrics_bytes: 0,
                choices: plan.choices.clone(),
                gemm: Table::default(),
                loss_scale: None,
                outliers: None,
            },
            trainer,
            tasks: ScoredTasks::default(),
            saved: None,
            deadline: None,
            steps: 0,
            folder,
            others: Vec::new(),
            extra_files: match &dataset.tokenizer {
                Some(tokenizer) => tokenizer.files()?,
                None => Vec::new(),
            },
        })
    }

    /// Trains until `max_iters`, until the time is up, or until somebody asks to stop. When memory is refused for good, or the data can no
    /// longer be read, the steps done are saved first.
    pub fn train(&mut self) -> Result<Summary, SessionError> {
        let ended = self.train_on().or_else(|error| self.save_in_need(error));
        let saved = self.saved.as_ref().map_or(0, |(step, _)| *step);
        let steps = self.state.step.saturating_sub(saved);
        if ended.is_err() && steps > 0 {
            self.reporter.warning(Warning::StepsLost { steps });
        }
        let skipped = self.trainer.outliers.skipped;
        if ended.is_ok() && skipped > 0 {
            let step = self.state.step;
            self.reporter
                .warning(Warning::UpdatesSkipped { skipped, step });
        }
        ended
    }

    /// Saves the steps done before `error` if it left them intact, and returns it.
    fn save_in_need(&mut self, error: SessionError) -> Result<Summary, SessionError> {
        let (error, because) = if error.leaves_state_intact() {
            (error, "the data cannot be read")
        } else {
            let refusal = AllocationError::from(error.into_out_of_memory()?);
            (refusal.into(), "memory was refused for good")
        };
        if self.state.step > 0 && !self.is_saved() {
            let line = format!("{because}: saving step {}", self.state.step);
            self.reporter.note(&line);
            self.save()?;
        }
        Err(error)
    }

    fn train_on(&mut self) -> Result<Summary, SessionError> {
        let started = Instant::now();
        self.tell_recoveries();
        loop {
            let evaluates = self.evaluation_is_due() && !self.time_is_up();
            let improved = evaluates && self.evaluate_and_report()?;
            let scores = self.scoring_is_due() && !self.time_is_up();
            if scores && !self.interrupt.requested() {
                self.score_and_report()?;
            }
            if self.interrupt.requested() {
                return Err(self.stop()?);
            }
            if self.time_is_up() && self.has_work_left() {
                return self.stop_in_time(started);
            }
            if improved && self.state.step > 0 || self.checkpoint_is_due() {
                self.save()?;
            }
            if !self.has_work_left() {
                return Ok(self.summary(started.elapsed()));
            }
            self.step()?;
        }
    }

    /// Whether a step is left, or what is due after the last one.
    fn has_work_left(&self) -> bool {
        self.state.step < self.plan.max_iters || self.evaluation_is_due() || self.scoring_is_due()
    }

    fn time_is_up(&self) -> bool {
        self.steps > 0 && is_past(self.deadline)
    }

    fn step(&mut self) -> Result<(), SessionError> {
        let (step, started) = (self.state.step, Instant::now());
        let (seed, block_size) = (self.plan.step.seed, self.plan.model.block_size);
        let (tokens, interrupt) = (&self.dataset.train, self.interrupt);
        let windows = tokens.window_count(block_size);
        let sequences = self.plan.step.sequences_per_step;
        let work = self.reporter.progress().step(step + 1, sequences);
        let reading = Cell::new(Duration::ZERO);
        let outcome = self.trainer.step(step, |sample, inputs, targets| {
            work.reach(u64::from(sample));
            if interrupt.requested() {
                return Err(AllocationError::Interrupted.into());
            }
            let began = Instant::now();
            let window = train_window(seed, step, sample, windows);
            let read = tokens.copy_window(window, inputs, targets);
            reading.set(reading.get() + began.elapsed());
            read.map_err(SessionError::from)
        });
        drop(work);
        self.tell_recoveries();
        let outcome = match outcome {
            // Nothing of it counts: the resumed run makes this step from its beginning.
            Err(SessionError::Allocation(AllocationError::Interrupted)) => return Ok(()),
            outcome => outcome?,
        };
        if !outcome.is_finite() {
            let (loss, norm) = (outcome.loss, outcome.gradient_norm);
            let found = format!("loss {loss}, gradient norm {norm}");
            return Err(self.diverged(step + 1, found));
        }
        self.steps += 1;
        self.state.step += 1;
        self.state.tokens_seen += self.plan.tokens_per_step();
        self.look_after_folder()?;
        self.reporter.step(&StepReport {
            step: self.state.step,
            loss: outcome.loss,
            learning_rate: outcome.learning_rate,
            grad_norm: outcome.gradient_norm,
            tokens: self.plan.tokens_per_step(),
            tokens_seen: self.state.tokens_seen,
            duration: started.elapsed(),
            phases: phases(self.trainer.times, reading.get()),
            device_bytes: self.device_bytes(),
        });
        if let Some(skipped) = outcome.skipped {
            self.reporter.skipped(self.state.step, &skipped);
        }
        Ok(())
    }

    /// Whether to evaluate now: every `eval_interval` steps and at the end; before the first step if that is asked for and
    /// there is one.
    fn evaluation_is_due(&self) -> bool {
        let step = self.state.step;
        let due = step.is_multiple_of(self.plan.eval_interval) || step == self.plan.max_iters;
        let wanted = step > 0 || (self.plan.eval_on_start && self.plan.max_iters > 0);
        due && wanted && self.state.evaluated_step != Some(step)
    }

    /// Evaluates, and returns whether the validation loss is the best so far. An evaluation in which a signal comes or the time
    /// is up counts as not made: the resumed run makes it.
    fn evaluate_and_report(&mut self) -> Result<bool, SessionError> {
        let (plan, dataset, interrupt) = (self.plan, self.dataset, self.interrupt);
        let deadline = self.deadline.filter(|_| self.steps > 0);
        let stops = || interrupt.requested() || is_past(deadline);
        let (step, trainer) = (self.state.step, &mut self.trainer);
        let progress = self.reporter.progress();
        let report = evaluate_splits(step, |split| {
            let read = reader(plan, dataset, &progress, split, stops);
            trainer.evaluate(plan.eval_sequences, read)
        });
        self.tell_recoveries();
        let report = match report {
            Err(SessionError::EvaluationInterrupted) => return Ok(false),
            report => report?,
        };
        let (train, val) = (report.train_loss, report.val_loss);
        if !(train + val).is_finite() {
            self.reporter.eval(&report, false);
            let found = format!("train loss {train}, validation loss {val}");
            return Err(self.diverged(step, found));
        }
        let improved = self
            .state
            .best_val_loss
            .is_none_or(|best| report.val_loss < best);
        if improved {
            self.state.best_val_loss = Some(report.val_loss);
            self.state.best_step = Some(step);
        }
        self.state.evaluated_step = Some(step);
        self.reporter.eval(&report, improved && step > 0);
        Ok(improved)
    }

    fn checkpoint_is_due(&self) -> bool {
        let step = self.state.step;
        let due = step.is_multiple_of(self.plan.checkpoint_interval) || step == self.plan.max_iters;
        due && step > 0 && !self.is_saved()
    }

    /// Whether `saved` is a checkpoint of this very step.
    fn is_saved(&self) -> bool {
        self.saved
            .as_ref()
            .is_some_and(|(step, _)| *step == self.state.step)
    }

    /// Writes a checkpoint of the state after `state.step` steps, and prunes older ones.
    fn save(&mut self) -> Result<(), SessionError> {
        self.look_after_folder()?;
        let started = Instant::now();
        let step = self.state.step;
        let path = self.write_checkpoint();
        self.tell_recoveries();
        let path = path?;
        let bytes = checkpoint_bytes(self.trainer.layout.len);
        self.reporter
            .checkpoint_saved(&path, started.elapsed(), bytes);
        self.saved = Some((step, path));
        self.tell_replaced(step);
        self.prune();
        Ok(())
    }

    fn write_checkpoint(&mut self) -> Result<PathBuf, SessionError> {
        let (out_dir, dims) = (&self.plan.out_dir, &self.plan.model);
        let (config_toml, extra_files) = (&self.plan.config_toml, &self.extra_files);
        let bytes = checkpoint_bytes(self.trainer.layout.len);
        let work = self.reporter.progress().saving(self.state.step, bytes);
        let (state, reporter) = (&mut self.state, &mut *self.reporter);
        let is_guarded = self.plan.step.skip.is_on();
        self.trainer.save(|saved| {
            tell(saved.recoveries, state, reporter);
            state.rung = Some(saved.rung);
            state.gemm = saved.products;
            state.loss_scale = Some(saved.loss_scale);
            state.outliers = is_guarded.then(|| saved.outliers.clone());
            match reporter.metrics_bytes() {
                Ok(bytes) => state.metrics_bytes = bytes,
                // The work matters more than its log.
                Err(error) => reporter.warn_once(Warning::MetricsNotWritten {
                    path: error.path,
                    reason: error.source.to_string(),
                }),
            }
            let snapshot = Snapshot {
                dims,
                weights: saved.weights,
                m: saved.m,
                v: saved.v,
                state,
                config_toml,
                extra_files,
            };
            checkpoint::save_counted(out_dir, &snapshot, work.done()).map_err(SessionError::from)
        })
    }

    /// Reports and records recoveries and choices since the last call.
    fn tell_recoveries(&mut self) {
        let recoveries = self.trainer.take_recoveries();
        tell(recoveries, &mut self.state, self.reporter);
        for choice in self.trainer.take_choices() {
            self.reporter.choice(&choice);
            self.state.choices.push(choice);
        }
    }

    /// Saves, and returns the error that says how to go on.
    fn stop(&mut self) -> Result<SessionError, SessionError> {
        let step = self.state.step;
        if step > 0 && !self.is_saved() {
            let signal = self.interrupt.signal();
            let line = format!("{signal}: saving step {step}; a second Ctrl-C exits at once");
            self.reporter.note(&line);
            self.save()?;
        }
        let signal = self.interrupt.signal();
        Ok(match self.saved.clone() {
            Some((_, checkpoint)) => SessionError::Interrupted {
                step,
                checkpoint,
                signal,
            },
            None => SessionError::InterruptedBeforeTraining { signal },
        })
    }

    /// Saves, and says how to go on.
    fn stop_in_time(&mut self, started: Instant) -> Result<Summary, SessionError> {
        if !self.is_saved() {
            self.save()?;
        }
        let minutes = self.plan.max_minutes;
        Ok(Summary {
            stopped: Some(format!(
                "`train.max_minutes` = {minutes} are over; the same command with plain `--resume` goes on exactly here"
            )),
            ..self.summary(started.elapsed())
        })
    }

    fn summary(&self, wall: Duration) -> Summary {
        let best = self.state.best_step.zip(self.state.best_val_loss);
        Summary {
            step: self.state.step,
            wall,
            best: best.map(|(step, val_loss)| BestEval { step, val_loss }),
            checkpoint: self.saved.as_ref().map(|(_, path)| path.clone()),
            stopped: None,
            peak_bytes: crate::device::peak_resident_bytes(),
            gpu: self.plan.gpu_peak_flops.map(|peak| GpuUse {
                held_bytes: self.trainer.memory().held_bytes(),
                peak_flops_per_second: peak,
            }),
        }
    }

    /// Memory held on the GPU; `None` on the CPU.
    fn device_bytes(&self) -> Option<u64> {
        let is_gpu = self.plan.engine == Engine::Cuda;
        is_gpu.then(|| self.trainer.memory().held_bytes())
    }
}

/// The parts of a step that read samples for `data`.
fn phases(times: StepTimes, data: Duration) -> StepPhases {
    StepPhases {
        data,
        micro_steps: times.accumulate.saturating_sub(data),
        update: times.commit,
    }
}

fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Bytes of the tensors of a checkpoint: weights and both moments.
fn checkpoint_bytes(parameters: usize) -> u64 {
    3 * (size_of::<f32>() * parameters) as u64
}

/// Reports recoveries, and records them in `state`.
fn tell(recoveries: Vec<Recovery>, state: &mut TrainState, reporter: &mut Reporter) {
    for recovery in recoveries {
        reporter.recovered(state.step, &recovery);
        state.recoveries.push(recovery);
    }
}
