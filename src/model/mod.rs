//! GPT-2 as a program: named buffers, and lists of operations on them.
//!
//! [`gpt2()`] is the model, and all that knows it. A [`Workspace`] holds a program's buffers and runs it on a device
//! through an [`Executor`]; [`State`] is what lasts from step to step.

mod builder;
mod executor;
mod gpt2;
mod init;
mod params;
mod program;
mod state;
mod workspace;

pub use executor::{Executor, Lap};
pub use gpt2::gpt2;
pub use init::{init_values, init_weights};
pub use params::{Init, ParamLayout, ParamRole, ParamSpec};
pub use program::{Node, Program, StateIds, TrainingIds};
pub use state::State;
pub use workspace::{LookAtLogits, Workspace};
