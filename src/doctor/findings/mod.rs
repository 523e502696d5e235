//! Findings, a pure function of a probe's figures.

use serde::Serialize;

use super::probe::{Holder, Machine};
use crate::terms::VectorExtension;
use crate::units::bytes;

mod folders;
mod gpus;

const GIB: u64 = 1 << 30;

/// Available memory, in bytes, below which no useful run starts.
const TOO_LITTLE_MEMORY: u64 = GIB / 4;

/// A fact about the machine, with a suggestion unless all is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub subject: &'static str,
    pub status: Status,
    pub text: String,
    /// Absent exactly when the status is `ok`.
    pub suggestion: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Works, but could be better.
    Note,
    /// Can stop a run.
    Problem,
}

impl Finding {
    fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self {
            subject,
            status: Status::Ok,
            text: text.into(),
            suggestion: None,
        }
    }

    fn note(subject: &'static str, text: String, suggestion: impl Into<String>) -> Self {
        Self {
            subject,
            status: Status::Note,
            text,
            suggestion: Some(suggestion.into()),
        }
    }

    fn problem(subject: &'static str, text: String, suggestion: impl Into<String>) -> Self {
        Self {
            status: Status::Problem,
            ..Self::note(subject, text, suggestion)
        }
    }
}

/// Every finding, in the order in which they are shown.
pub fn examine(machine: &Machine) -> Vec<Finding> {
    let mut findings = vec![cpu(machine), cores(machine), memory(machine)];
    findings.extend(memory_limit(machine));
    findings.extend(gpus::gpus(machine));
    findings.push(gpus::toolkit(machine));
    findings.extend(gpus::requirements(machine));
    findings.extend(gpus::libraries(machine));
    findings.push(libraries());
    findings.push(folders::data(&machine.data));
    findings.push(folders::checkpoints(&machine.checkpoints));
    findings
}

fn cpu(machine: &Machine) -> Finding {
    let mut text = machine.cpu.name.clone();
    let extensions = machine.cpu.vector_extensions();
    if machine.architecture == "x86_64" && !extensions.contains(&VectorExtension::Avx2) {
        return Finding::note(
            "cpu",
            format!("{text} has no AVX2: matrix products take several times as long"),
            "train on a CPU with AVX2 (most since 2013); in a virtual machine, pass on the host's \
             CPU model",
        );
    }
    if !extensions.is_empty() {
        text += &format!(", {}", VectorExtension::names(extensions));
    }
    Finding::ok("cpu", text)
}

fn cores(machine: &Machine) -> Finding {
    match (machine.cpu.cores(), machine.cores) {
        (Some(usable), Some(all)) if usable < all => Finding::note(
            "cores",
            format!("{usable} of {all}, by a CPU quota or an affinity mask"),
            format!("for more, ask for more: `docker run --cpus {all}`, or the job's CPU request"),
        ),
        (Some(usable), _) => Finding::ok("cores", usable.to_string()),
        (None, _) => Finding::ok("cores", "the system does not tell"),
    }
}

fn memory(machine: &Machine) -> Finding {
    let cpu = &machine.cpu;
    let (Some(available), Some(total)) = (cpu.available_bytes, cpu.total_bytes) else {
        return Finding::ok("memory", "the system does not tell");
    };
    let mut text = format!("{} of {} available", bytes(available), bytes(total));
    match machine.swap {
        Some(swap) if swap.total_bytes > 0 => {
            let used = swap.total_bytes.saturating_sub(swap.free_bytes);
            text += &format!(", {} of {} swap used", bytes(used), bytes(swap.total_bytes));
        }
        Some(_) => text += ", no swap",
        None => {}
    }
    if available >= GIB.max(total / 10) {
        return Finding::ok("memory", text);
    }
    let suggestion = match machine.holders.first() {
        Some(holder) => {
            let held: Vec<String> = machine.holders.iter().map(held).collect();
            text += &format!("; most is held by {}", held.join(", "));
            format!(
                "stop `{}` (pid {}), if it can be spared",
                holder.name, holder.pid
            )
        }
        None => "stop other programs, or train on a machine with more memory".into(),
    };
    if available < TOO_LITTLE_MEMORY {
        Finding::problem("memory", text, suggestion)
    } else {
        Finding::note("memory", text, suggestion)
    }
}

fn held(holder: &Holder) -> String {
    format!(
        "`{}` (pid {}) {}",
        holder.name,
        holder.pid,
        bytes(holder.bytes)
    )
}

fn memory_limit(machine: &Machine) -> Option<Finding> {
    let (limit, physical) = (machine.cpu.total_bytes?, machine.physical_bytes?);
    (limit < physical).then(|| {
        Finding::note(
            "limit",
            format!(
                "a control group allows {} of the machine's {}",
                bytes(limit),
                bytes(physical)
            ),
            "for more, raise it: `docker run --memory`, or the job's memory request",
        )
    })
}

fn libraries() -> Finding {
    Finding::ok(
        "libraries",
        concat!("candle-core ", env!("TAPER_CANDLE_CORE"), ", built in"),
    )
}
