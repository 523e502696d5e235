//! Tasks that are scored during a run, in the buffers of the training.

use super::{Session, SessionError};
use crate::config::{Config, EvalConfig};
use crate::data::Dataset;
use crate::evals::{EvalsError, Loader, Score, Task, TaskRequest, find};
use crate::hub::Watch;
use crate::report::{Reporter, Warning};
use crate::tokenizer::TokenizerError;
use crate::units::count;

/// Tasks, with their tokens in memory, and the steps between two scorings.
#[derive(Default)]
pub struct ScoredTasks {
    tasks: Vec<Task>,
    interval: u64,
}

impl ScoredTasks {
    /// Reads the tasks of `eval.eval_tasks`, and downloads what is not here.
    ///
    /// # Errors
    /// When a task cannot be read, or written in the vocabulary of the dataset.
    pub fn load(
        config: &Config,
        dataset: &Dataset,
        reporter: &mut Reporter,
        watch: &dyn Watch,
    ) -> Result<Self, SessionError> {
        let EvalConfig {
            eval_tasks,
            eval_tasks_interval,
            eval_tasks_limit,
            eval_interval,
            ..
        } = &config.eval;
        let Some(list) = eval_tasks else {
            if eval_tasks_interval.or(*eval_tasks_limit).is_some() {
                reporter.note("no tasks are scored: `eval.eval_tasks` names none");
            }
            return Ok(Self::default());
        };
        let requests = TaskRequest::list(list)?;
        let tokenizer = dataset.tokenizer.as_ref().ok_or_else(|| {
            EvalsError::from(TokenizerError::Missing {
                path: config.data.data_dir.join(&config.data.dataset),
            })
        })?;
        let loader = Loader {
            tokenizer,
            vocab_size: tokenizer.vocab_size(),
            block_size: config.model.block_size,
            limit: eval_tasks_limit.map(|limit| limit as usize),
        };
        let interval = eval_tasks_interval.unwrap_or(*eval_interval);
        let mut tasks = Vec::new();
        for request in &requests {
            let task = loader.load(request, &find(request, None, watch)?)?;
            for warning in &task.warnings {
                reporter.warning(Warning::Data(warning.clone()));
            }
            for note in task.notes() {
                reporter.note(&note);
            }
            tasks.push(task);
        }
        let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
        let steps = count(interval);
        reporter.note(&format!(
            "scoring {} every {steps} steps and at the end",
            names.join(", ")
        ));
        Ok(Self { tasks, interval })
    }
}

impl Session<'_> {
    /// Whether to score the tasks now: every `interval` steps and at the end.
    pub(super) fn scoring_is_due(&self) -> bool {
        let (step, tasks) = (self.state.step, &self.tasks);
        let due = step.is_multiple_of(tasks.interval) || step == self.plan.max_iters;
        due && step > 0 && !tasks.tasks.is_empty() && self.state.scored_step != Some(step)
    }

    /// Scores all tasks, and reports them together. A scoring that a signal interrupts counts as not made: the resumed
    /// run makes it.
    ///
    /// # Errors
    /// When a file cannot be read any more, memory is refused for good, or the device fails.
    pub(super) fn score_and_report(&mut self) -> Result<(), SessionError> {
        let scored = self.score_tasks();
        self.tell_recoveries();
        let scores = match scored {
            Err(EvalsError::Interrupted) => return Ok(()),
            scores => scores?,
        };
        let step = self.state.step;
        for score in &scores {
            self.reporter.score(step, score);
        }
        self.state.scored_step = Some(step);
        Ok(())
    }

    fn score_tasks(&mut self) -> Result<Vec<Score>, EvalsError> {
        let (trainer, interrupt) = (&mut self.trainer, self.interrupt);
        let progress = self.reporter.progress();
        let score = |task: &mut Task| {
            let work = progress.scoring(&task.name, task.sequences());
            let reach = |index: usize| {
                work.reach(index as u64);
                !interrupt.requested()
            };
            task.score(&reach, |running| trainer.score(running))
        };
        self.tasks.tasks.iter_mut().map(score).collect()
    }
}
