//! What `taper bench` prints.

mod gemm;
mod step;

use crate::device::{DeviceProfile, Hardware};

pub use gemm::{CandidateBench, GemmBench, ProblemBench};
pub use step::{Measured, StepBench, step_bench_heading};

/// `, 2 threads`; a GPU is not asked for any.
fn threads_text(device: &DeviceProfile, threads: usize) -> String {
    match &device.hardware {
        Hardware::Cpu(_) => format!(", {threads} threads"),
        Hardware::Cuda(_) => String::new(),
    }
}
