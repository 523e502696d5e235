//! GEMMs: verified, timed, dispatched.
//!
//! The files in the order of a launch:
//!
//! 1. [`problem`]: the description of a GEMM. [`Program::gemms`](crate::model::Program::gemms) lists those of a step.
//! 2. [`candidate`]: the trait of a device, which offers candidates for a problem, the fallback first.
//!    [`cpu`] implements it, and so does `gpu` in builds with CUDA. [`ptx`] has our own kernels for a GPU.
//! 3. [`tune`]: verifies each candidate against the fallback and f64 (`verify.rs`, and [`check`] where the matrices
//!    are), times those that are right, and takes another than the fallback only if that is more than 2 % faster.
//! 4. [`cache`]: keeps the results between runs, under a header that says what they depend on. A checkpoint keeps the
//!    winners, too, and a resumed run uses those.
//! 5. [`dispatch`]: computes each GEMM by its winner, and by the next candidate after a failure.
//!
//! Another candidate may give other last bits. So the table of winners decides, with the seed, the numbers of a run.
//! On the CPU only a full search can make a difference (see [`cpu`]).

pub mod cache;
pub mod candidate;
pub mod check;
pub mod cpu;
pub mod dispatch;
#[cfg(feature = "cuda")]
pub mod gpu;
pub mod problem;
pub mod ptx;
pub mod tune;
mod verify;
pub mod watch;

use crate::device::Cuda;

/// Bytes of scratch for GEMMs on a GPU: partial sums, and cuBLASLt's workspace. NVIDIA recommends 32 MiB for Hopper and
/// newer, 4 MiB before (cuBLAS documentation, "cublasSetWorkspace"). 8 MiB leave split-K some room.
pub fn workspace_bytes(cuda: &Cuda) -> u64 {
    match cuda.compute_capability.0 {
        9.. => 32 << 20,
        _ => 8 << 20,
    }
}

pub use cache::{Cache, Table, cache_folder};
pub use cpu::{Cpu, Products};
pub use dispatch::Dispatch;
pub use problem::{Epilogue, Layout, OutputType, Problem, TrainingGemm};
pub use watch::{Unwatched, Watch};
