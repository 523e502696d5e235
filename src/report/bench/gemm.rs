//! What `taper bench gemm` prints.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::threads_text;
use crate::device::DeviceProfile;
use crate::ops::gemm::tune::{TuneOutcome, Tuned};
use crate::ops::gemm::{Problem, TrainingGemm};
use crate::plan::Plan;
use crate::report::text::device_text;
use crate::terms::{Precision, Rung};
use crate::units::{bytes, flops};

/// Every product of a training step, measured.
#[derive(Debug, Serialize)]
pub struct GemmBench<'a> {
    pub config: &'a str,
    pub device: &'a DeviceProfile,
    pub threads: usize,
    pub precision: Precision,
    pub rung: Rung,
    /// The rate of a large square product in the same run, in operations per second.
    #[serde(rename = "ceiling_flops_per_second")]
    pub ceiling: Option<f64>,
    /// The file that earlier timings are from, and that those of this run go to.
    #[serde(skip)]
    pub cache: Option<PathBuf>,
    pub problems: Vec<ProblemBench>,
}

/// A product by everything that can compute it.
#[derive(Debug, Serialize)]
pub struct ProblemBench {
    pub name: &'static str,
    #[serde(flatten)]
    pub problem: Problem,
    /// The problem as one line.
    pub text: String,
    pub flops: u64,
    pub bytes: u64,
    pub times_per_micro_step: usize,
    /// Whether it was timed in an earlier run.
    pub is_cached: bool,
    /// Which of the candidates the others had to beat.
    pub fallback: usize,
    /// In order of trust.
    pub candidates: Vec<CandidateBench>,
}

#[derive(Debug, Serialize)]
pub struct CandidateBench {
    pub name: String,
    /// Median, scaled up where a smaller product was timed in its place; absent where it was not timed.
    pub seconds: Option<f64>,
    pub flops_per_second: Option<f64>,
    /// Percent.
    pub of_best: Option<f64>,
    /// Percent.
    pub of_ceiling: Option<f64>,
    pub chosen: bool,
    /// Why it was chosen, or why it could not be.
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
            Some(ceiling) => format!("{}, a large square product in this run", flops(ceiling)),
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

    /// The time of all products of a micro-step, by what was chosen and by the fallbacks.
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
    /// `tuned` is what was found out about the problem, and whether that was in an earlier run; `ceiling` is of the same
    /// run.
    pub fn new(
        gemm: TrainingGemm,
        (tuned, is_cached): (Tuned<String>, bool),
        ceiling: Option<f64>,
    ) -> Self {
        let TrainingGemm {
            name,
            problem,
            per_micro_step,
        } = gemm;
        let scale = tuned.scale(&problem);
        let seconds = |outcome: &TuneOutcome| match outcome {
            TuneOutcome::Timed { seconds } => Some(seconds * scale),
            _ => None,
        };
        let times = tuned
            .outcomes
            .iter()
            .filter_map(|(_, outcome)| seconds(outcome));
        let best = times.min_by(f64::total_cmp);
        let candidate = |(index, (candidate, outcome)): (usize, &(String, TuneOutcome))| {
            let chosen = index == tuned.chosen;
            let seconds = seconds(outcome);
            let rate = seconds.map(|seconds| problem.flops() as f64 / seconds);
            CandidateBench {
                name: candidate.clone(),
                seconds,
                flops_per_second: rate,
                of_best: seconds
                    .zip(best)
                    .map(|(seconds, best)| 100.0 * best / seconds),
                of_ceiling: rate
                    .zip(ceiling)
                    .map(|(rate, ceiling)| 100.0 * rate / ceiling),
                chosen,
                because: match outcome {
                    _ if chosen => Some(tuned.because.clone()),
                    TuneOutcome::Timed { .. } => None,
                    TuneOutcome::Untimed => Some("not timed".into()),
                    TuneOutcome::Unavailable(because) => Some(format!("unavailable: {because}")),
                    TuneOutcome::Wrong(because) => Some(format!("wrong: {because}")),
                },
            }
        };
        Self {
            name,
            text: problem.to_string(),
            flops: problem.flops(),
            bytes: problem.bytes(),
            problem,
            times_per_micro_step: per_micro_step,
            is_cached,
            fallback: tuned.fallback(),
            candidates: tuned.outcomes.iter().enumerate().map(candidate).collect(),
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
            match self.is_cached {
                true => "; timed in an earlier run",
                false => "",
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
                percent(candidate.of_ceiling, "the ceiling"),
            );
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}
