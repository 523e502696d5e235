//! The CUDA driver API, as a program calls it: what `libcuda.so.1` exports.
//!
//! Streams are queues (`queue.rs`), and `VGPU_ORDER` says when what was given to them is done. A kernel that faults
//! leaves an error on the context that every later call returns, as on a card: the launch itself still succeeds,
//! unless `CUDA_LAUNCH_BLOCKING=1`. Handles are numbers, not pointers: a stale one is an error, never a crash.
//! What is not implemented says its name and returns `CUDA_ERROR_NOT_SUPPORTED`.
//!
//! In reading order: results, the checks at the border to C, the state, then one file per area of the API.
#![allow(non_snake_case)]

pub mod result;

pub mod guard;
pub mod state;

pub mod device;

pub mod context;

pub mod counts;
pub mod operation;

pub mod giving;
pub mod host_side;
pub mod queue;
pub mod waiting;

pub mod event;
pub mod stream;

pub mod allocation;
pub mod blocks;
pub mod copy;
pub mod holdings;
pub mod host;
pub mod pool;

pub mod function;
pub mod launch;
pub mod module;
pub mod occupancy;
pub mod tensor_map;

pub mod capture;
pub mod graph;

pub mod age;
pub mod lookup;
pub mod refused;
