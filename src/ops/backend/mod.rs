//! The one seam between the model and what computes it: operations as data, buffers, and a device that runs one on the
//! other.
//!
//! A program ([`crate::model::Program`]) says which operations, in which order, on which buffers; a [`Backend`] says
//! how: [`OnCpu`](super::cpu::OnCpu) by functions over slices, `OnGpu` by kernels.

mod batch;
mod buffer;
mod frame;
mod op;
mod operands;
mod update;
mod values;
mod work;

pub(crate) use batch::token_specs;
pub use batch::{BatchHeader, batch_specs, rows_by_token};
#[cfg(feature = "cuda")]
pub(crate) use batch::{PACKET_HEAD, packet_specs};
pub use buffer::Buffer;
pub use frame::{Frame, Mask};
pub use op::{Op, attention_shape};
pub use operands::{
    Affine, BufferId, BufferName, BufferSpec, DropoutSettings, DropoutSite, ElementType,
    Embeddings, GradientWrite, Matrix, Owner, RowShape, RowStats, Shape, Span,
};
pub use update::{Accept, AdamW, DecayRun, Ended, OptimizerSettings, TrainingState, Update};
pub use values::{CHUNK, Values, ValuesMut};
pub(crate) use values::{chunks, on_host, room};
pub use work::{OpKind, Work};

use std::any::Any;

use super::clock::Clock;
use super::gemm::{Table, TrainingGemm};
use crate::memory::{AllocationError, Memory, Refused};
use crate::terms::{Engine, Inputs, NamedChoice, Precision};

/// The outcome of an operation. On a GPU it may still be under way.
pub type Done = Result<(), Refused>;

/// A function that writes inputs and targets, and tells whether it could.
pub type ReadTokens<'a> = dyn FnMut(&mut [u32], &mut [u32]) -> bool + 'a;

/// Work that was done once and can be replayed; a backend's own.
#[derive(Default)]
#[cfg_attr(
    not(feature = "cuda"),
    expect(dead_code, reason = "the CPU records nothing")
)]
pub struct Recording(pub(in crate::ops) Option<Box<dyn Any>>);

/// A device that runs the operations of a program.
///
/// Operations allocate nothing. They panic when a part has another length than its neighbours require: a defect of the
/// caller.
pub trait Backend {
    fn engine(&self) -> Engine;
    /// Precision of weights and activations in memory.
    fn precision(&self) -> Precision;
    /// The input type of GEMMs.
    fn inputs(&self) -> Inputs;
    /// Decides which candidates compute `gemms`, in at most `room` bytes; see
    /// [`Dispatch::prepare`](super::gemm::Dispatch::prepare).
    fn prepare(&self, gemms: &[TrainingGemm], room: Option<u64>);
    /// The candidate of each GEMM, for a checkpoint.
    fn gemm_table(&self) -> Table;
    /// Choices since the last call.
    fn take_choices(&self) -> Vec<NamedChoice>;
    /// A clock of the device's work.
    fn clock(&self) -> Box<dyn Clock>;

    /// A buffer of zeros.
    ///
    /// # Errors
    /// When its memory is refused.
    fn allocate(&self, spec: &BufferSpec, memory: &mut Memory) -> Result<Buffer, AllocationError>;
    /// A micro-batch of up to `rows` tokens, in the buffers of [`batch_specs`].
    ///
    /// # Errors
    /// When its memory is refused.
    fn batch(&self, rows: usize, memory: &mut Memory) -> Result<Buffer, AllocationError>;
    /// The loss so far, empty, and all that an update of parameters with these runs of decay reads beside the
    /// [`TrainingState`]. Without runs there are no updates.
    ///
    /// # Errors
    /// When their memory is refused.
    fn numbers(&self, decays: &[DecayRun]) -> Result<Buffer, Refused>;

    /// Lets `read` write the inputs and targets, (B, T) each with `rows` tokens, at the beginning of two
    /// slices, and makes them the micro-batch. Does nothing more when `read` could not.
    ///
    /// # Errors
    /// Those of the device.
    fn load(&self, batch: &Buffer, rows: usize, header: BatchHeader, read: &mut ReadTokens)
    -> Done;
    /// Computes `op` on the operands that `frame` has for it.
    ///
    /// # Errors
    /// The device's refusal.
    fn run(&self, op: &Op, frame: &Frame) -> Done;
    /// Does `work`, whose operations and buffers are the same whenever it is called with this recording.
    ///
    /// # Errors
    /// Those of `work`, and the device's refusal.
    fn record(&self, recording: &mut Recording, work: &mut dyn FnMut() -> Done) -> Done;
    /// Clips, and updates the weights unless the loss or a gradient is not finite, or `accept` says no. Waits for the device:
    /// once without `accept`, twice with it. The numbers are used with one state for life: a recording holds its addresses.
    ///
    /// # Errors
    /// The device's refusal.
    fn update(
        &self,
        numbers: &Buffer,
        state: TrainingState,
        update: &Update,
        accept: Option<Accept>,
    ) -> Result<Ended, Refused>;
    /// The loss so far, in nats. Waits for the device.
    ///
    /// # Errors
    /// The device's refusal.
    fn loss(&self, numbers: &Buffer) -> Result<f64, Refused>;

    /// A buffer's values, to read and write as fp32, rounded where its precision is lower.
    fn values<'a>(&'a self, buffer: &'a mut Buffer) -> Box<dyn ValuesMut + 'a>;
    /// `weights` become `master`, rounded.
    ///
    /// # Errors
    /// The device's refusal.
    fn round(&self, master: &Buffer, weights: &Buffer) -> Done;
}
