//! Output of `taper bench`.

mod gemm;
mod step;

use crate::device::{DeviceProfile, Hardware};

pub use gemm::{CandidateBench, GemmBench, ProblemBench};
pub use step::{Measured, StepBench, step_bench_heading};

/// `, 2 threads`; empty on a GPU.
fn threads_text(device: &DeviceProfile, threads: usize) -> String {
    match &device.hardware {
        Hardware::Cpu(_) => format!(", {threads} threads"),
        Hardware::Cuda(_) => String::new(),
    }
}

fn percent(part: f64, whole: f64) -> f64 {
    100.0 * part / whole
}

fn percent_if_known(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    Some(percent(part?, whole?))
}
