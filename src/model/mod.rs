//! GPT-2 as a fixed sequence of operations over pre-allocated buffers.

mod params;

pub use params::{ParamLayout, ParamSpec};
