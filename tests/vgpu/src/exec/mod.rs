//! Runs kernels.

mod async_copy;
mod atomics;
mod bits;
mod block;
mod bulk;
mod bulk_tensor;
mod calls;
pub(crate) mod code;
mod compare;
mod convert;
pub(crate) mod decode;
mod descriptor;
mod float;
pub(crate) mod flow;
mod half_float;
mod integer;
mod lanes;
mod launch;
mod local;
mod mbarrier;
mod memory_ops;
mod moves;
mod order;
mod paths;
mod phases;
pub(crate) mod products;
mod proxy;
mod rounding;
mod running;
mod shared;
mod step;
mod tensor;
mod warp;
mod warp_ops;
mod wgmma;

pub use launch::{Limits, LoadError, LoadedModule, launch};
