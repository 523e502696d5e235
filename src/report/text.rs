//! Blocks of text around a run: the startup and the summary.

use std::fmt::Write;

use super::{Finish, Startup, Summary};
use crate::device::{DeviceProfile, Hardware};
use crate::metrics::{Meter, perplexity};
use crate::model::ParamLayout;
use crate::plan::PredictedTime;
use crate::schedule::LrSchedule;
use crate::terms::{NamedChoice, VectorExtension, shell_word};
use crate::units::{self, bytes, count, flops, learning_rate, rate, short_time, span};

/// Wide enough for the longest label, "checkpoints".
const LABEL_WIDTH: usize = 13;

/// Width of a row that is broken into several.
const LINE_WIDTH: usize = 100;

/// Lines of `  label        value` below a heading.
struct LabeledRows {
    text: String,
}

impl LabeledRows {
    fn new(heading: &str) -> Self {
        Self {
            text: heading.to_owned(),
        }
    }

    fn row(&mut self, label: &str, value: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "\n  {label:LABEL_WIDTH$}{value}");
    }

    /// Rows as long as they may be of these parts, with commas between them.
    fn lines(&mut self, label: &str, parts: &[String]) {
        let mut label = label;
        let mut line = String::new();
        for (i, part) in parts.iter().enumerate() {
            let comma = if i + 1 < parts.len() { "," } else { "" };
            if !line.is_empty() && line.len() + part.len() > LINE_WIDTH {
                self.row(std::mem::take(&mut label), line.trim_end());
                line.clear();
            }
            line += &format!("{part}{comma} ");
        }
        if !line.is_empty() {
            self.row(label, line.trim_end());
        }
    }

    fn choices(&mut self, choices: &[NamedChoice]) {
        for (i, choice) in choices.iter().enumerate() {
            self.row(if i == 0 { "choices" } else { "" }, &choice_text(choice));
        }
    }
}

/// Every choice once and without its reason, which is where the choice was made; of two with one name the last.
fn values_of(choices: &[NamedChoice]) -> Vec<String> {
    let mut values = Vec::new();
    for (at, choice) in choices.iter().enumerate() {
        let is_last = choices[at + 1..]
            .iter()
            .all(|later| later.name != choice.name);
        if is_last {
            values.push(format!("{} = {}", choice.name, choice.value));
        }
    }
    values
}

pub(super) fn choice_text(choice: &NamedChoice) -> String {
    format!("{} = {}  ({})", choice.name, choice.value, choice.because)
}

/// Everything that was resolved before the first step.
pub(super) fn startup_block(startup: &Startup) -> String {
    let mut block = LabeledRows::new(&format!("taper {}", startup.version));
    block.row("device", &device_text(&startup.device));
    block.row("memory", &memory_text(startup));
    let model = &startup.model;
    block.row(
        "model",
        &format!(
            "n_layer {} x n_head {} x n_embd {}, block size {}, vocabulary {}",
            model.n_layer,
            model.n_head,
            model.n_embd,
            count(model.block_size as u64),
            count(model.vocab_size as u64),
        ),
    );
    block.row("parameters", &parameters_text(startup));
    let data = &startup.data;
    block.row(
        "data",
        &format!(
            "{}: {} train tokens, {} val tokens, vocabulary {}",
            data.name,
            count(data.train_tokens),
            count(data.val_tokens),
            count(data.vocab_size as u64),
        ),
    );
    block.row(
        "step",
        &format!(
            "{} sequences x {} accumulated x {} tokens = {} tokens per step",
            startup.micro_batch,
            startup.gradient_accumulation_steps,
            count(model.block_size as u64),
            count(startup.tokens_per_step()),
        ),
    );
    block.row("schedule", &schedule_text(startup));
    let folder = startup.checkpoint_dir.display().to_string();
    block.row("checkpoints", &folder);
    block.choices(&startup.choices);
    block.text
}

/// The device in words, such as `AMD EPYC, 2 cores, AVX-512`.
pub fn device_text(device: &DeviceProfile) -> String {
    let mut text = device.name.clone();
    match &device.hardware {
        Hardware::Cpu(cpu) => {
            match cpu.cores {
                Some(1) => text.push_str(", 1 core"),
                Some(cores) => text.push_str(&format!(", {} cores", count(cores as u64))),
                None => {}
            }
            if !cpu.vector_extensions.is_empty() {
                text.push_str(", ");
                text.push_str(&VectorExtension::names(&cpu.vector_extensions));
            }
        }
        Hardware::Cuda(cuda) => {
            let (major, minor) = cuda.compute_capability;
            let sms = cuda.sm_count;
            text.push_str(&format!(", {sms} SMs, compute capability {major}.{minor}"));
        }
    }
    text
}

/// `about 37m 12s a step, 42y 118d in all (predicted; the first steps will tell)`.
pub(super) fn time_text(predicted: &PredictedTime) -> String {
    let run = span(predicted.run());
    match predicted.step() {
        Some(step) => format!(
            "about {} a step, {run} in all (predicted; the first steps will tell)",
            short_time(step)
        ),
        None => format!("about {run} for both splits (predicted)"),
    }
}

fn memory_text(startup: &Startup) -> String {
    let planned = bytes(startup.planned_bytes);
    match startup.budget_bytes {
        Some(budget) => format!("{planned} planned; {} may be used", bytes(budget)),
        None => format!("{planned} planned"),
    }
}

fn parameters_text(startup: &Startup) -> String {
    let layout = ParamLayout::new(&startup.model);
    let decayed: usize = layout
        .params
        .iter()
        .filter(|param| param.decays())
        .map(|param| param.len)
        .sum();
    format!(
        "{}: {} with weight decay, {} without",
        count(layout.len as u64),
        count(decayed as u64),
        count((layout.len - decayed) as u64),
    )
}

fn schedule_text(startup: &Startup) -> String {
    let max_iters = startup.max_iters;
    let schedule = startup.schedule;
    let steps = match startup.start_step {
        0 => format!("{} steps", count(max_iters)),
        start => format!("steps {} to {}", count(start + 1), count(max_iters)),
    };
    let lr = learning_rate(schedule.learning_rate);
    let warm_up = format!(
        "lr {lr} after {} warm-up steps",
        count(schedule.warmup_iters)
    );
    let (min_lr, end) = (
        learning_rate(schedule.min_lr),
        count(schedule.lr_decay_iters),
    );
    match (schedule.lr_schedule, schedule.decay_start()) {
        (LrSchedule::Constant, _) if schedule.warmup_iters == 0 => {
            format!("{steps}; lr {lr} throughout")
        }
        (LrSchedule::Wsd, Some(start)) => format!(
            "{steps}; {warm_up}, 1 - sqrt to {min_lr} from step {} to {end}",
            count(start)
        ),
        (shape, Some(_)) => format!(
            "{steps}; {warm_up}, {} to {min_lr} at step {end}",
            shape.name()
        ),
        (_, None) => format!("{steps}; {warm_up}, then constant"),
    }
}

/// Summary of a finished or stopped run.
pub(super) fn summary_block(finish: &Finish, max_iters: u64) -> String {
    let (summary, meter) = (finish.summary, finish.meter);
    let mut block = LabeledRows::new(&heading(summary.step, max_iters));
    if let Some(because) = &summary.stopped {
        block.row("stopped", because);
    }
    if meter.steps() > 0 {
        block.row("this run", &work_text(summary, meter));
    }
    if let (Some(average), Some(achieved)) =
        (meter.average_tokens_per_second(), finish.flops_per_second)
    {
        let share = summary.gpu.map_or(String::new(), |gpu| {
            let peak = gpu.peak_flops_per_second;
            let percent = 100.0 * achieved / peak;
            format!(", {percent:.1} % of the datasheet's {}", flops(peak))
        });
        let text = format!(
            "{}, {} at nanoGPT's 6 N + 12 L H Q T per token{share}",
            rate(average),
            flops(achieved)
        );
        block.row("speed", &text);
    }
    if let Some(peak) = summary.peak_bytes {
        let text = match summary.gpu {
            None => format!("{} at its peak", bytes(peak)),
            Some(gpu) => format!(
                "{} of the GPU, {} of the host at its peak",
                bytes(gpu.held_bytes),
                bytes(peak)
            ),
        };
        block.row("memory", &text);
    }
    if let Some(best) = &summary.best {
        let text = format!(
            "val loss {:.4} (perplexity {}) at step {}",
            best.val_loss,
            units::perplexity(perplexity(best.val_loss)),
            count(best.step)
        );
        block.row("best", &text);
    }
    block.lines("choices", &values_of(finish.choices));
    for (i, warning) in finish.warnings.iter().enumerate() {
        let label = if i == 0 { "warnings" } else { "" };
        block.row(label, &warning.to_string());
    }
    if let Some(checkpoint) = &summary.checkpoint {
        block.row("checkpoint", &checkpoint.display().to_string());
        block.row(
            "sample",
            &format!("taper sample --checkpoint {}", shell_word(checkpoint)),
        );
    }
    block.text
}

fn heading(step: u64, max_iters: u64) -> String {
    if step >= max_iters {
        format!("done: {} steps", count(step))
    } else {
        format!("stopped at step {} of {}", count(step), count(max_iters))
    }
}

fn work_text(summary: &Summary, meter: &Meter) -> String {
    format!(
        "{} steps, {} tokens in {} ({} of it in steps)",
        count(meter.steps()),
        count(meter.tokens()),
        span(summary.wall),
        span(meter.training_time()),
    )
}
