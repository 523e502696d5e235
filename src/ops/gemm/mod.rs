//! Matrix products: verified, measured, remembered.
//!
//! A reader's way through the room, in the order of a launch:
//!
//! 1. [`problem`]: what a product is. [`Problem::of_training`] lists those of a training step.
//! 2. [`candidate`]: the trait of a device, which offers candidates for a problem, the fallback first.
//!    [`cpu`] implements it; [`ptx`] is what our own kernels offer a GPU.
//! 3. [`tune`]: verifies each candidate against the fallback and f64 (`verify.rs`, and [`check`] where the matrices
//!    are), times those that are right, and takes another than the fallback only if that is more than 2 % faster.
//! 4. [`cache`]: keeps what was found between runs, under a header that says what it depends on. A
//!    checkpoint keeps the winners, too, and a resumed run uses those.
//! 5. [`dispatch`]: computes each product by its winner, and by the next candidate after a failure.
//!
//! What a product is computed by may change its last bits. So the table of winners decides, with the
//! seed, which numbers a run gives; on the CPU only a full search can make a difference (see [`cpu`]).

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

use crate::device::Cuda;

/// What a product on a GPU may use beside its operands: partial sums, and what cuBLASLt wants. NVIDIA
/// recommends 32 MiB for Hopper and newer, 4 MiB before (cuBLAS documentation, "cublasSetWorkspace"); 8 MiB
/// leave split-K some room.
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
