//! Every operation of the training step: forward, hand-written backward, and its oracle.
//!
//! `backend` is the seam: operations as data, and a device that runs them, the CPU (`cpu`) or a GPU (`cuda`).
//!
//! One file per operation. Each has a CPU body over plain slices, generic over f32 and f64, and a twin `*_ref`
//! written with differentiable candle operations only, whose autograd is the oracle of the backward. `unsafe` lives
//! in this room, but for what asks the driver and the system (`UNSAFE` in tests/structure).
//!
//! Letters, here and in `model`: B sequences in a micro-batch, T positions, C channels (`n_embd`),
//! H heads, D = C / H head size, V vocabulary, R = B * T rows. Arrays are row-major; a comment
//! such as `// (R, 3C)` gives a slice's shape.
//!
//! Work is split among threads in blocks whose size depends on the shapes alone, and partial sums
//! are combined in block order: results are bit-identical at any thread count.

pub mod loops;

#[cfg(feature = "cuda")]
pub mod launch;

pub mod gemm;

pub mod clock;

pub mod backend;

pub mod cpu;

pub mod partition;

#[cfg(feature = "cuda")]
pub mod cuda;
