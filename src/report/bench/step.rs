//! Output of `taper bench step`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::{percent, percent_if_known, threads_text};
use crate::device::{DeviceProfile, Hardware};
use crate::metrics::{flops_per_token, median};
use crate::model::{Lap, ParamLayout};
use crate::ops::backend::{OpKind, Work};
use crate::plan::Plan;
use crate::report::text::{choice_text, device_text};
use crate::report::warning::recovery_text;
use crate::step::recovery::Recovery;
use crate::terms::{Inputs, ModelDims, NamedChoice, Precision, Rung};
use crate::units::{bytes, count, flops, rate, short_time};

/// Formula of the model FLOPs; see [`flops_per_token`].
const FORMULA: &str = "6 N + 12 L H Q T";

/// Raw measurements of a training step.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Rung of the last step.
    pub rung: Rung,
    pub inputs: Inputs,
    /// Time of every step as `train` does it; not empty.
    pub step_seconds: Vec<f64>,
    /// Time of a step that was done operation by operation.
    pub taken_apart_seconds: f64,
    /// Every operation of that step.
    pub laps: Vec<Lap>,
    /// Bytes of every buffer and the reserve.
    pub planned_bytes: u64,
    /// On a GPU: the increase of memory in use. On the CPU: the peak of the process. `None` if the system does not
    /// tell.
    pub used_bytes: Option<u64>,
    /// Best rate of a large square product, in FLOP/s.
    pub ceiling: Option<f64>,
    /// Choices that were made during the steps.
    pub choices: Vec<NamedChoice>,
    pub recoveries: Vec<Recovery>,
}

/// Figures of a training step.
#[derive(Debug, Serialize)]
pub struct StepBench<'a> {
    pub config: &'a str,
    pub device: &'a DeviceProfile,
    pub threads: usize,
    pub precision: Precision,
    pub cuda_graph: bool,
    pub model: &'a ModelDims,
    pub parameters: usize,
    pub rung: Rung,
    pub gradient_accumulation_steps: usize,
    pub tokens_per_step: u64,
    pub step_seconds: Vec<f64>,
    pub median_step_seconds: f64,
    pub tokens_per_second: f64,
    /// FLOPs by `model_flops_formula`.
    pub model_flops_per_token: f64,
    pub model_flops_formula: &'static str,
    pub model_flops_per_second: f64,
    pub peak_flops_per_second: Option<f64>,
    pub model_flops_of_peak_percent: Option<f64>,
    pub ceiling_flops_per_second: Option<f64>,
    pub model_flops_of_ceiling_percent: Option<f64>,
    pub planned_bytes: u64,
    pub used_bytes: Option<u64>,
    pub used_of_planned_percent: Option<f64>,
    /// Time of a step that was done operation by operation; longer than `median_step_seconds` where operations are
    /// short.
    pub taken_apart_step_seconds: f64,
    pub parts: Vec<PartBench>,
    /// Time of the parts that belong to a block, by block.
    pub blocks: Vec<BlockBench>,
    /// Rest of that step: launches, and all that is no operation.
    pub other_seconds: f64,
    pub other_percent: f64,
    pub choices: Vec<NamedChoice>,
    pub recoveries: Vec<Recovery>,
}

/// Time of all operations of one block in the step that was taken apart.
#[derive(Debug, Serialize)]
pub struct BlockBench {
    /// nanoGPT's: `h.3`.
    pub name: String,
    pub seconds: f64,
    pub of_step_percent: f64,
}

/// Totals of the operations of one kind.
#[derive(Default)]
struct Spent {
    calls: u64,
    seconds: f64,
    work: Work,
}

fn by_kind(laps: &[Lap]) -> BTreeMap<OpKind, Spent> {
    let mut parts: BTreeMap<_, Spent> = BTreeMap::new();
    for lap in laps {
        let spent = parts.entry(lap.kind).or_default();
        spent.calls += 1;
        spent.seconds += lap.seconds;
        spent.work.flops += lap.work.flops;
        spent.work.bytes += lap.work.bytes;
    }
    parts
}

fn by_block(laps: &[Lap]) -> BTreeMap<usize, f64> {
    let mut blocks = BTreeMap::new();
    for (layer, seconds) in laps
        .iter()
        .filter_map(|lap| Some((lap.layer?, lap.seconds)))
    {
        *blocks.entry(layer).or_default() += seconds;
    }
    blocks
}

/// Figures of all operations of one kind in the step that was taken apart.
#[derive(Debug, Serialize)]
pub struct PartBench {
    pub name: OpKind,
    pub calls: u64,
    pub seconds: f64,
    pub of_step_percent: f64,
    /// Multiplications and additions of products; `None` for operations that memory bounds.
    pub flops: Option<u64>,
    pub flops_per_second: Option<f64>,
    pub of_ceiling_percent: Option<f64>,
    /// Least number of bytes read and written; `None` for operations that arithmetic bounds.
    pub bytes: Option<u64>,
    pub bytes_per_second: Option<f64>,
    pub of_memory_bandwidth_percent: Option<f64>,
}

/// Description of the step, before it is measured.
pub fn step_bench_heading(config: &str, device: &DeviceProfile, plan: &Plan) -> String {
    let mut text = format!("a training step of {config} on {}\n", device_text(device));
    let model = &plan.model;
    row(
        &mut text,
        "model",
        &format!(
            "n_layer {} x n_head {} x n_embd {}, {} parameters",
            model.n_layer,
            model.n_head,
            model.n_embd,
            count(ParamLayout::new(model).len as u64),
        ),
    );
    let graph = if plan.cuda_graph {
        ", recorded as CUDA graphs"
    } else {
        ""
    };
    let threads = threads_text(device, plan.threads);
    let computed = format!("{}{threads}{graph}", plan.inputs);
    row(&mut text, "computed in", &computed);
    row(
        &mut text,
        "step",
        &format!(
            "{} sequences x {} tokens = {} tokens",
            count(plan.step.sequences_per_step as u64),
            count(model.block_size as u64),
            count(plan.tokens_per_step()),
        ),
    );
    text
}

fn row(text: &mut String, label: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {label:13}{value}");
}

/// Limits of the device that rates are compared with; `None` where unknown.
#[derive(Clone, Copy)]
struct Limits {
    /// Peak of the datasheet.
    peak_flops_per_second: Option<f64>,
    /// Rate of a large square product.
    ceiling_flops_per_second: Option<f64>,
    /// Memory bandwidth of the datasheet.
    memory_bytes_per_second: Option<f64>,
}

impl Limits {
    fn new(device: &DeviceProfile, measured: &Measured) -> Self {
        let (peak, bandwidth) = match &device.hardware {
            Hardware::Cpu(_) => (None, None),
            Hardware::Cuda(cuda) => (
                cuda.peak(measured.inputs),
                Some(cuda.memory_bytes_per_second),
            ),
        };
        Self {
            peak_flops_per_second: peak,
            ceiling_flops_per_second: measured.ceiling,
            memory_bytes_per_second: bandwidth,
        }
    }
}

impl<'a> StepBench<'a> {
    pub fn new(
        config: &'a str,
        device: &'a DeviceProfile,
        plan: &'a Plan,
        measured: Measured,
    ) -> Self {
        let limits = Limits::new(device, &measured);
        let (peak, ceiling) = (
            limits.peak_flops_per_second,
            limits.ceiling_flops_per_second,
        );
        let step_seconds = median(measured.step_seconds.iter().copied()).unwrap_or(f64::NAN);
        let tokens_per_second = plan.tokens_per_step() as f64 / step_seconds;
        let per_token = flops_per_token(&plan.model);
        let achieved = per_token * tokens_per_second;
        let whole = measured.taken_apart_seconds;
        let (parts, blocks) = (by_kind(&measured.laps), by_block(&measured.laps));
        let other = whole - measured.laps.iter().map(|lap| lap.seconds).sum::<f64>();
        Self {
            config,
            device,
            threads: plan.threads,
            precision: plan.precision,
            cuda_graph: plan.cuda_graph,
            model: &plan.model,
            parameters: ParamLayout::new(&plan.model).len,
            rung: measured.rung,
            gradient_accumulation_steps: plan
                .step
                .sequences_per_step
                .div_ceil(measured.rung.micro_batch),
            tokens_per_step: plan.tokens_per_step(),
            median_step_seconds: step_seconds,
            tokens_per_second,
            model_flops_per_token: per_token,
            model_flops_formula: FORMULA,
            model_flops_per_second: achieved,
            peak_flops_per_second: peak,
            model_flops_of_peak_percent: percent_if_known(Some(achieved), peak),
            ceiling_flops_per_second: ceiling,
            model_flops_of_ceiling_percent: percent_if_known(Some(achieved), ceiling),
            planned_bytes: measured.planned_bytes,
            used_bytes: measured.used_bytes,
            used_of_planned_percent: measured
                .used_bytes
                .map(|used| percent(used as f64, measured.planned_bytes as f64)),
            taken_apart_step_seconds: whole,
            parts: parts
                .into_iter()
                .map(|(name, spent)| PartBench::new(name, &spent, whole, limits))
                .collect(),
            blocks: blocks
                .into_iter()
                .map(|(index, seconds)| BlockBench {
                    name: format!("h.{index}"),
                    seconds,
                    of_step_percent: percent(seconds, whole),
                })
                .collect(),
            other_seconds: other,
            other_percent: percent(other, whole),
            step_seconds: measured.step_seconds,
            choices: measured.choices,
            recoveries: measured.recoveries,
        }
    }

    pub fn json(&self) -> String {
        // Numbers, text and lists: nothing that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Text of the figures, below [`step_bench_heading`].
    pub fn text(&self) -> String {
        let mut text = String::new();
        let accumulated = count(self.gradient_accumulation_steps as u64);
        let rung = format!("{}; {accumulated} x per step", self.rung);
        row(&mut text, "rung", &rung);
        for choice in &self.choices {
            row(&mut text, "choice", &choice_text(choice));
        }
        for recovery in &self.recoveries {
            row(&mut text, "recovered", &recovery_text(recovery));
        }
        text.push('\n');
        row(&mut text, "speed", &self.speed_text());
        row(&mut text, "model flops", &self.model_flops_text());
        for share in self.mfu_texts() {
            row(&mut text, "MFU", &share);
        }
        row(&mut text, "memory", &self.memory_text());
        text.push('\n');
        text + &self.table()
    }

    fn speed_text(&self) -> String {
        let time = |seconds: f64| short_time(Duration::from_secs_f64(seconds.max(0.0)));
        let all = self.step_seconds.iter().copied();
        let [least, most] = [
            all.clone().fold(f64::INFINITY, f64::min),
            all.fold(0.0, f64::max),
        ]
        .map(time);
        format!(
            "{}: {} a step, the median of {}, {least} to {most}",
            rate(self.tokens_per_second),
            time(self.median_step_seconds),
            self.step_seconds.len(),
        )
    }

    fn model_flops_text(&self) -> String {
        format!(
            "{}, at nanoGPT's {FORMULA} = {:.1} MFLOP per token",
            flops(self.model_flops_per_second),
            self.model_flops_per_token / 1e6,
        )
    }

    /// Model FLOP/s as shares of the peak and of the ceiling.
    fn mfu_texts(&self) -> Vec<String> {
        let share = |share: Option<f64>, whole: Option<f64>, what: &str| {
            let (share, whole) = share.zip(whole)?;
            Some(format!("{share:.1} % of {}, {what}", flops(whole)))
        };
        let shares = [
            share(
                self.model_flops_of_peak_percent,
                self.peak_flops_per_second,
                "the datasheet's",
            ),
            share(
                self.model_flops_of_ceiling_percent,
                self.ceiling_flops_per_second,
                "the ceiling: a large square product in this run",
            ),
        ];
        shares.into_iter().flatten().collect()
    }

    fn memory_text(&self) -> String {
        let planned = bytes(self.planned_bytes);
        let what = match &self.device.hardware {
            Hardware::Cpu(_) => "resident at its peak",
            Hardware::Cuda(_) => "of the card in use more than before",
        };
        match (self.used_bytes, self.used_of_planned_percent) {
            (Some(used), Some(share)) => {
                let used = bytes(used);
                format!("{planned} planned; {used} {what}, {share:.1} % of the plan")
            }
            _ => format!("{planned} planned; the system does not tell what is used"),
        }
    }

    fn table(&self) -> String {
        let mut text = format!("{:22}{:>8}{:>14}{:>9}\n", "part", "calls", "ms", "share");
        let mut line = |name: &str, calls: &str, seconds: f64, share: f64, rates: &str| {
            let line = format!(
                "{name:22}{calls:>8}{:>14.3}{share:>7.1} %  {rates}",
                1e3 * seconds
            );
            let _ = writeln!(text, "{}", line.trim_end());
        };
        for part in &self.parts {
            let (name, calls) = (part.name.to_string(), count(part.calls));
            let (seconds, share) = (part.seconds, part.of_step_percent);
            line(&name, &calls, seconds, share, &part.rates_text());
        }
        line("other", "", self.other_seconds, self.other_percent, "");
        let whole = self.taken_apart_step_seconds;
        line("the step, taken apart", "", whole, 100.0, "");
        text += &format!("\n{:22}{:>8}{:>14}{:>9}\n", "block", "", "ms", "share");
        for block in &self.blocks {
            let _ = writeln!(
                text,
                "{:30}{:>14.3}{:>7.1} %",
                block.name,
                1e3 * block.seconds,
                block.of_step_percent
            );
        }
        text
    }
}

impl PartBench {
    fn new(name: OpKind, spent: &Spent, step_seconds: f64, limits: Limits) -> Self {
        let some = |count: u64| (count > 0).then_some(count);
        // Too short for a coarse clock: 0 seconds.
        let per_second = |count: u64| {
            let rate = count as f64 / spent.seconds;
            rate.is_finite().then_some(rate)
        };
        let (flops, bytes) = (some(spent.work.flops), some(spent.work.bytes));
        let flops_per_second = flops.and_then(per_second);
        let bytes_per_second = bytes.and_then(per_second);
        Self {
            name,
            calls: spent.calls,
            seconds: spent.seconds,
            of_step_percent: percent(spent.seconds, step_seconds),
            flops,
            flops_per_second,
            of_ceiling_percent: percent_if_known(flops_per_second, limits.ceiling_flops_per_second),
            bytes,
            bytes_per_second,
            of_memory_bandwidth_percent: percent_if_known(
                bytes_per_second,
                limits.memory_bytes_per_second,
            ),
        }
    }

    fn rates_text(&self) -> String {
        let (rate, share) = match (self.flops_per_second, self.bytes_per_second) {
            (Some(rate), _) => (flops(rate), self.of_ceiling_percent),
            (None, Some(rate)) => (
                format!("{:.1} GB/s", rate / 1e9),
                self.of_memory_bandwidth_percent,
            ),
            (None, None) => return String::new(),
        };
        let whole = match self.flops_per_second {
            Some(_) => "the ceiling",
            None => "the datasheet",
        };
        match share {
            Some(share) => format!("{rate:>16}{share:>7.1} % of {whole}"),
            None => format!("{rate:>16}"),
        }
    }
}
