//! Every large buffer of a run, by name.
//!
//! A program lists its buffers ([`crate::model::Program`]). A plan sums that list, and a backend allocates from it, so
//! that both are equal by construction. [`Memory`] keeps the account.

mod ledger;
mod passing;

use std::fmt::{self, Display};

use serde::Serialize;

use crate::faults::Site;
use crate::units;

pub use ledger::{Memory, Pool, Refused};
pub(crate) use passing::{SPARE_BYTES, has_spare, passing_buffer};

/// Purpose of a buffer; the memory table is summed by group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The parameters that the model computes with.
    Weights,
    /// The fp32 parameters behind weights of lower precision.
    Master,
    /// AdamW's two moments, fp32.
    Moments,
    /// Accumulators of the parameters' gradients, fp32.
    Gradients,
    /// Results of the forward that the backward reads.
    Activations,
    /// The chunk of logits.
    Classifier,
    /// Scratch, overwritten all the time.
    Workspaces,
    /// Memory that taper does not allocate itself: the process, libraries.
    Reserve,
}

impl Group {
    pub const ALL: [Group; 8] = [
        Group::Weights,
        Group::Master,
        Group::Moments,
        Group::Gradients,
        Group::Activations,
        Group::Classifier,
        Group::Workspaces,
        Group::Reserve,
    ];
}

impl Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Group::Weights => "weights",
            Group::Master => "master weights",
            Group::Moments => "moments",
            Group::Gradients => "gradients",
            Group::Activations => "activations",
            Group::Classifier => "classifier chunk",
            Group::Workspaces => "workspaces",
            Group::Reserve => "reserve",
        })
    }
}

/// One buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub group: Group,
    pub name: String,
    pub bytes: u64,
}

/// Sum of the bytes of `rows`, saturating at 64 bits.
pub fn total_bytes<'a>(rows: impl IntoIterator<Item = &'a Row>) -> u64 {
    let bytes = rows.into_iter().map(|row| row.bytes);
    bytes.fold(0, u64::saturating_add)
}

/// Refusal of memory by the device, or by the limit set for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "out of memory at {site}{}, with {} held{}",
    need_text(name, *bytes), units::bytes(*held), limit_text(*limit)
)]
pub struct OutOfMemory {
    pub site: Site,
    pub name: String,
    /// Bytes requested; 0 if the device does not tell.
    pub bytes: u64,
    pub held: u64,
    /// The limit in bytes, if the limit refused.
    pub limit: Option<u64>,
}

fn need_text(name: &str, bytes: u64) -> String {
    match bytes {
        0 => String::new(),
        bytes => format!(": `{name}` needs {}", units::bytes(bytes)),
    }
}

fn limit_text(limit: Option<u64>) -> String {
    limit.map_or(String::new(), |limit| {
        format!(", of {} allowed", units::bytes(limit))
    })
}

/// Failure of a request for memory.
#[derive(Debug, thiserror::Error)]
pub enum AllocationError {
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// Any failure but a lack of memory.
    #[error("the device failed at {site}: {reason}")]
    Device { site: Site, reason: String },
    /// Somebody asked to stop in the middle of the work.
    #[error("interrupted")]
    Interrupted,
}

impl AllocationError {
    /// The device failed; memory is not what it lacks.
    pub fn is_device_failure(&self) -> bool {
        matches!(self, Self::Device { .. })
    }

    /// Advice on the next step.
    pub fn hint(&self) -> String {
        match self {
            Self::OutOfMemory(_) => {
                "see what holds the memory with `taper doctor`, or raise `--memory-limit`, then run the \
                 same command again; checkpoints are as they were"
            }
            Self::Interrupted => "run the same command again",
            Self::Device { .. } => {
                "look at the device with `taper doctor`; checkpoints are as they were"
            }
        }
        .into()
    }
}

/// An error that may be a lack of memory, from which a run recovers. (`CheckpointError` cannot be made from an
/// [`AllocationError`]: it has a method of the same name.)
pub trait Recoverable: From<AllocationError> {
    /// The lack of memory if this error is one, else the error itself. Told by type, never by text.
    ///
    /// # Errors
    /// Every other failure.
    fn into_out_of_memory(self) -> Result<OutOfMemory, Self>;
}

impl Recoverable for AllocationError {
    fn into_out_of_memory(self) -> Result<OutOfMemory, Self> {
        match self {
            Self::OutOfMemory(refusal) => Ok(refusal),
            other @ (Self::Device { .. } | Self::Interrupted) => Err(other),
        }
    }
}
