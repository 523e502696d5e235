//! Output of `taper bench gemm`.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::{percent_if_known, threads_text};
use crate::device::DeviceProfile;
use crate::ops::gemm::tune::{TuneOutcome, Tuned};
use crate::ops::gemm::{Problem, TrainingGemm};
use crate::plan::Plan;
use crate::report::text::device_text;
use crate::terms::{Precision, Rung};
use crate::units::{bytes, flops};

/// Measurements of every matrix product of a training step.
#[derive(Debug, Serialize)]
pub struct GemmBench<'a> {
    pub config: &'a str,
    pub device: &'a DeviceProfile,
    pub threads: usize,
    pub precision: Precision,
    pub rung: Rung,
    /// Rate of a large square product in the same run, in FLOP/s.
    #[serde(rename = "ceiling_flops_per_second")]
    pub ceiling: Option<f64>,
    /// File that earlier timings are read from and timings of this run are written to.
    #[serde(skip)]
    pub cache: Option<PathBuf>,
    pub problems: Vec<ProblemBench>,
}

/// Measurements of one product by every candidate.
#[derive(Debug, Serialize)]
pub struct ProblemBench {
    pub name: String,
    #[serde(flatten)]
    pub problem: Problem,
    /// The problem as one line.
    pub text: String,
    pub flops: u64,
    pub bytes: u64,
    pub times_per_micro_step: usize,
    /// Whether the product was timed in an earlier run.
    pub is_cached: bool,
    /// Index of the candidate that the others had to beat.
    pub fallback: usize,
    /// Candidates in order of trust.
    pub candidates: Vec<CandidateBench>,
}

/// Measurement of one candidate for a product.
#[derive(Debug, Serialize)]
pub struct CandidateBench {
    pub name: String,
    /// Median time; `None` if it was not timed. A time of a smaller product is scaled up.
    pub seconds: Option<f64>,
    pub flops_per_second: Option<f64>,
    /// Rate in percent of the fastest candidate's.
    pub of_best: Option<f64>,
    /// Rate in percent of the ceiling.
    pub of_ceiling: Option<f64>,
    pub chosen: bool,
    /// Reason why it was chosen, or could not be.
    pub because: Option<String>,
}

impl<'a> GemmBench<'a> {
    pub fn new(
        config: &'a str,
        device: &'a DeviceProfile,
        plan: &Plan,
        ceiling: Option<f64>,
    ) -> Self {
        Self {
            config,
            device,
            threads: plan.threads,
            precision: plan.precision,
            rung: plan.launch().rung,
            ceiling,
            cache: None,
            problems: Vec::new(),
        }
    }

    pub fn heading(&self) -> String {
        let threads = threads_text(self.device, self.threads);
        let ceiling = match self.ceiling {
            Some(ceiling) => format!(
                "{}, a large square product in this run: an estimate that some shapes exceed",
                flops(ceiling)
            ),
            None => "unknown: a large square product could not be timed".into(),
        };
        format!(
            "matrix products of {} on {}\n  {:13}{}{threads}\n  {:13}{}\n  {:13}{ceiling}\n",
            self.config,
            device_text(self.device),
            "computed in",
            self.precision,
            "rung",
            self.rung,
            "ceiling",
        )
    }

    /// Time of all products of a micro-step, by the chosen candidates and by the fallbacks.
    pub fn total(&self) -> String {
        let sum = |pick: fn(&ProblemBench) -> Option<f64>| -> Option<f64> {
            let times = self.problems.iter().map(|problem| {
                let seconds = pick(problem)?;
                Some(seconds * problem.times_per_micro_step as f64)
            });
            times.sum()
        };
        let (chosen, fallback) = (
            sum(ProblemBench::chosen_seconds),
            sum(ProblemBench::fallback_seconds),
        );
        let total = match (chosen, fallback) {
            (Some(chosen), Some(fallback)) => format!(
                "\nall products of a micro-step: {:.2} ms by what was chosen, {:.2} ms by the fallbacks ({:+.1} %)\n",
                chosen * 1e3,
                fallback * 1e3,
                100.0 * (chosen / fallback - 1.0),
            ),
            _ => "\nall products of a micro-step: unknown, for not every one was timed\n".into(),
        };
        match &self.cache {
            Some(cache) if self.problems.iter().any(|problem| problem.is_cached) => format!(
                "{total}what was timed in an earlier run is timed again without `{}`\n",
                cache.display()
            ),
            _ => total,
        }
    }

    pub fn json(&self) -> String {
        // Numbers, text and lists: nothing that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

impl ProblemBench {
    /// `tuned` is the result of the search for `problem`; `is_cached` if it is from an earlier run. `ceiling` is from
    /// the same run as `tuned`, in FLOP/s.
    pub fn new(
        gemm: TrainingGemm,
        tuned: Tuned<String>,
        is_cached: bool,
        ceiling: Option<f64>,
    ) -> Self {
        let TrainingGemm {
            name,
            problem,
            per_micro_step,
        } = gemm;
        let outcomes = tuned.outcomes.iter();
        let scale = tuned.scale(&problem);
        let times = outcomes
            .clone()
            .filter_map(|(_, outcome)| timed_seconds(outcome, scale));
        let best = times.min_by(f64::total_cmp);
        let candidates = outcomes.enumerate().map(|(index, (candidate, outcome))| {
            let chosen = index == tuned.chosen;
            let seconds = timed_seconds(outcome, scale);
            let rate = seconds.map(|seconds| problem.flops() as f64 / seconds);
            CandidateBench {
                name: candidate.clone(),
                seconds,
                flops_per_second: rate,
                of_best: percent_if_known(best, seconds),
                of_ceiling: percent_if_known(rate, ceiling),
                chosen,
                because: if chosen {
                    Some(tuned.because.clone())
                } else {
                    why_not(outcome)
                },
            }
        });
        Self {
            name,
            text: problem.to_string(),
            flops: problem.flops(),
            bytes: problem.bytes(),
            problem,
            times_per_micro_step: per_micro_step,
            is_cached,
            fallback: tuned.fallback(),
            candidates: candidates.collect(),
        }
    }

    fn chosen_seconds(&self) -> Option<f64> {
        self.candidates
            .iter()
            .find(|candidate| candidate.chosen)?
            .seconds
    }

    fn fallback_seconds(&self) -> Option<f64> {
        self.candidates.get(self.fallback)?.seconds
    }

    pub fn text(&self) -> String {
        let mut text = format!(
            "\n{}: {}; {} x per micro-step, {} moved{}\n",
            self.name,
            self.text,
            self.times_per_micro_step,
            bytes(self.bytes),
            if self.is_cached {
                "; timed in an earlier run"
            } else {
                ""
            }
        );
        let names = self.candidates.iter().map(|candidate| candidate.name.len());
        let width = names.max().unwrap_or(0).max(20);
        for candidate in &self.candidates {
            let percent = |value: Option<f64>, of: &str| match value {
                Some(value) => format!("{value:>5.1} % of {of}"),
                None => " ".repeat("100.0 % of ".len() + of.len()),
            };
            let verdict = match (candidate.chosen, &candidate.because) {
                (true, Some(because)) => format!("<- chosen: {because}"),
                (_, because) => because.clone().unwrap_or_default(),
            };
            let line = format!(
                "  {:<width$}{:>15}  {}  {}  {verdict}",
                candidate.name,
                candidate.flops_per_second.map(flops).unwrap_or_default(),
                percent(candidate.of_best, "the best"),
                percent(candidate.of_ceiling, "the square product"),
            );
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

/// `scale` is the ratio of the problem's FLOPs to those of the product that was timed for it.
fn timed_seconds(outcome: &TuneOutcome, scale: f64) -> Option<f64> {
    match outcome {
        TuneOutcome::Timed { seconds } => Some(seconds * scale),
        _ => None,
    }
}

/// Reason why a candidate that was not chosen could not be; `None` if it was only slower.
fn why_not(outcome: &TuneOutcome) -> Option<String> {
    match outcome {
        TuneOutcome::Timed { .. } => None,
        TuneOutcome::Untimed => Some("not timed".into()),
        TuneOutcome::Unavailable(because) => Some(format!("unavailable: {because}")),
        TuneOutcome::Wrong(because) => Some(format!("refused by the check, never used: {because}")),
    }
}
