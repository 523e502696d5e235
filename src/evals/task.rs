//! A task with its tokens in memory, and its scores.

use std::ops::Range;
use std::time::Instant;

use super::perplexity::Windows;
use super::sequences::Examples;
use super::{EvalsError, Metrics, Score, hellaswag, lambada};
use crate::data::DataWarning;
use crate::step::scoring::{Scoring, SequenceScore};
use crate::units::count;

/// A task that can be scored again and again.
pub struct Task {
    pub name: String,
    pub(super) work: Work,
    /// Examples, or windows, of the whole file.
    pub(super) all: usize,
    pub(super) block_size: usize,
    /// Oddities of a token file.
    pub warnings: Vec<DataWarning>,
}

pub(super) enum Work {
    HellaSwag {
        examples: Examples,
        labels: Vec<usize>,
    },
    Lambada(Examples),
    Perplexity(Windows),
}

impl Task {
    /// Sequences that a model is given.
    pub fn sequences(&self) -> usize {
        match &self.work {
            Work::HellaSwag { examples, .. } | Work::Lambada(examples) => examples.count(),
            Work::Perplexity(windows) => windows.count(),
        }
    }

    /// Scores of the examples' sequences when they were scored last, in the order of the file: four of HellaSwag for a
    /// context. None of a file's windows.
    pub fn sequence_scores(&self) -> &[SequenceScore] {
        match &self.work {
            Work::HellaSwag { examples, .. } | Work::Lambada(examples) => &examples.scores,
            Work::Perplexity(_) => &[],
        }
    }

    fn truncated(&self) -> usize {
        match &self.work {
            Work::HellaSwag { examples, .. } | Work::Lambada(examples) => examples.truncated,
            Work::Perplexity(_) => 0,
        }
    }

    /// Sentences on what is left out.
    pub fn notes(&self) -> Vec<String> {
        let (name, mut notes) = (&self.name, Vec::new());
        let (scored, noun) = match &self.work {
            Work::HellaSwag { labels, .. } => (labels.len(), "examples"),
            Work::Lambada(examples) => (examples.count(), "examples"),
            Work::Perplexity(windows) => (windows.count(), "windows"),
        };
        if scored < self.all {
            let [scored, all] = [scored, self.all].map(|n| count(n as u64));
            notes.push(format!("{name}: the first {scored} of {all} {noun}"));
        }
        if self.truncated() > 0 {
            let [truncated, all, most] =
                [self.truncated(), self.sequences(), self.block_size].map(|n| count(n as u64));
            notes.push(format!(
                "{name}: {truncated} of {all} sequences are longer than the model's context of {most} tokens, and lost \
                 their beginning"
            ));
        }
        notes
    }

    /// Scores all sequences with `run`, a model that scores what it is given. `reach` is told the number of sequences
    /// that were begun, and returns whether to go on.
    ///
    /// # Errors
    /// Those of `run`, and `Interrupted`.
    pub fn score(
        &mut self,
        reach: &dyn Fn(usize) -> bool,
        run: impl FnOnce(&mut Running) -> Result<(), EvalsError>,
    ) -> Result<Score, EvalsError> {
        let started = Instant::now();
        if let Work::Perplexity(windows) = &mut self.work {
            windows.reset();
        }
        run(&mut Running { task: self, reach })?;
        Ok(Score {
            task: self.name.clone(),
            metrics: self.metrics(),
            truncated: self.truncated(),
            duration: started.elapsed(),
        })
    }

    fn metrics(&self) -> Metrics {
        match &self.work {
            Work::HellaSwag { examples, labels } => {
                let (acc, acc_norm) = hellaswag::accuracies(&examples.scores, labels);
                Metrics::HellaSwag {
                    acc,
                    acc_norm,
                    examples: labels.len(),
                }
            }
            Work::Lambada(examples) => {
                let (acc, perplexity) = lambada::accuracy_and_perplexity(&examples.scores);
                Metrics::Lambada {
                    acc,
                    perplexity,
                    examples: examples.count(),
                }
            }
            Work::Perplexity(windows) => windows.metrics(),
        }
    }
}

/// A task that is being scored.
pub struct Running<'a> {
    task: &'a mut Task,
    reach: &'a dyn Fn(usize) -> bool,
}

impl Scoring<EvalsError> for Running<'_> {
    fn count(&self) -> usize {
        self.task.sequences()
    }

    fn positions(&self, index: usize) -> usize {
        match &self.task.work {
            Work::HellaSwag { examples, .. } | Work::Lambada(examples) => examples.positions(index),
            Work::Perplexity(windows) => windows.positions(index),
        }
    }

    fn scored(&self, index: usize) -> Range<usize> {
        match &self.task.work {
            Work::HellaSwag { examples, .. } | Work::Lambada(examples) => examples.scored(index),
            Work::Perplexity(windows) => windows.scored(index),
        }
    }

    fn wants_greedy(&self) -> bool {
        matches!(self.task.work, Work::Lambada(_))
    }

    fn read(
        &self,
        index: usize,
        inputs: &mut [u32],
        targets: &mut [u32],
    ) -> Result<(), EvalsError> {
        if !(self.reach)(index) {
            return Err(EvalsError::Interrupted);
        }
        match &self.task.work {
            Work::HellaSwag { examples, .. } | Work::Lambada(examples) => {
                examples.read(index, inputs, targets);
                Ok(())
            }
            Work::Perplexity(windows) => windows.read(index, inputs, targets),
        }
    }

    fn record(&mut self, index: usize, score: SequenceScore) {
        match &mut self.task.work {
            Work::HellaSwag { examples, .. } | Work::Lambada(examples) => {
                examples.record(index, score);
            }
            Work::Perplexity(windows) => windows.record(score),
        }
    }
}
