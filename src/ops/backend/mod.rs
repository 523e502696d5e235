//! The one seam between the model and what computes it: buffers, the micro-batch, and the operations on them.
//!
//! [`Backend`] is every operation of a training step over buffers of one device. The model says which, in which
//! order; a backend says how: [`OnCpu`](super::cpu::OnCpu) by functions over slices, `OnGpu` by kernels. Work that a
//! GPU does in one pass (the residual add and the norm after it, a product and GELU) is one operation here.

mod arguments;
mod backward;
mod batch;
mod forward;
mod update;
mod values;

pub use arguments::{
    Affine, AttentionOut, AttentionSaved, BatchHeader, DropoutSite, EmbeddingGradients,
    EmbeddingTables, GradientWrite, Gradients, Mask, Masks, NormSaved, NormStats, Part, PartMut,
    Residual, RowShape, Shape, TrainingState,
};
pub use backward::Backward;
#[cfg(feature = "cuda")]
pub(crate) use batch::PACKET_HEAD;
pub use batch::rows_by_token;
pub(crate) use batch::{Packets, Tokens, plan_batch};
pub use forward::Forward;
pub use update::{AdamW, DecayRun, Ended, OptimizerSettings, Update};
pub use values::{CHUNK, StoredBackend, Values, ValuesMut};
pub(crate) use values::{chunks, on_host, room};

use super::gemm::{Table, TrainingGemm};
use crate::memory::{AllocationError, Allocator, Memory, Refused};
use crate::terms::{Engine, Inputs, NamedChoice, Precision};

/// The outcome of an operation. On a GPU it may still be under way.
pub type Done = Result<(), Refused>;

/// The failure to load a micro-batch. `E` is the error of whoever reads its samples.
#[derive(Debug)]
pub enum LoadError<E> {
    /// The samples could not be read.
    Read(E),
    /// The device did not take them.
    Refused(Refused),
}

impl<E> From<Refused> for LoadError<E> {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// A function that writes inputs and targets.
pub type ReadTokens<'a, E> = dyn FnMut(&mut [u32], &mut [u32]) -> Result<(), E> + 'a;

/// The buffers of one device.
pub trait Buffers: Sized + 'static {
    /// A buffer in the precision that the model computes in.
    type Compute: 'static;
    /// A buffer in fp32.
    type Full: 'static;
    /// A micro-batch in the memory of the device.
    type Batch: 'static;
    /// The header of a micro-batch, there, too.
    type Header;
    type Allocator<'a>: Allocator<Compute = Self::Compute, Full = Self::Full, Error = AllocationError>
    where
        Self: 'a;

    fn engine(&self) -> Engine;
    fn precision(&self) -> Precision;
    fn allocator<'a>(&'a self, memory: &'a mut Memory) -> Self::Allocator<'a>;
    /// Allocates a micro-batch of up to `rows` tokens.
    ///
    /// # Errors
    /// When its memory is refused.
    fn batch(&self, rows: usize, memory: &mut Memory) -> Result<Self::Batch, AllocationError>;
    /// Lets `read` write the inputs and targets, (B, T) each with `rows` tokens, at the beginning of two
    /// slices, and makes them the micro-batch.
    ///
    /// # Errors
    /// The errors of `read` and of the device.
    fn load<E>(
        &self,
        batch: &mut Self::Batch,
        rows: usize,
        header: BatchHeader,
        read: &mut ReadTokens<E>,
    ) -> Result<(), LoadError<E>>;
    fn header(batch: &Self::Batch) -> &Self::Header;
    /// Zeroes the part.
    fn clear(&self, part: PartMut<Self::Compute>) -> Done;
}

/// Everything that a device computes in a training step.
///
/// Shapes are those of the CPU bodies, whose documentation gives the formulas. Operations allocate nothing. They panic
/// when a part has another length than its neighbours require: a defect of the caller.
pub trait Backend: Forward + Backward {
    /// The loss so far.
    type Tally: 'static;
    /// The numbers that an update of the weights reads beside the state.
    type Optimizer: 'static;
    /// A recording of work that was done once and can be replayed.
    type Recording: Default + 'static;
    /// The input type of GEMMs.
    fn inputs(&self) -> Inputs;
    /// Decides which candidates compute the GEMMs of a rung, in at most `room` bytes; see
    /// [`Dispatch::prepare`](super::gemm::Dispatch::prepare).
    fn prepare(&self, gemms: &[TrainingGemm], room: Option<u64>);
    /// The candidate of each GEMM, for a checkpoint.
    fn products(&self) -> Table;
    /// Choices since the last call.
    fn take_choices(&self) -> Vec<NamedChoice>;
    /// Does `work`, whose operations and buffers are the same whenever it is called with this recording.
    fn record(&self, recording: &mut Self::Recording, work: impl FnMut() -> Done) -> Done;
    /// Allocates an empty tally.
    ///
    /// # Errors
    /// When its memory is refused.
    fn tally(&self) -> Result<Self::Tally, Refused>;
    /// Empties the tally.
    fn reset(&self, tally: &mut Self::Tally) -> Done;
    /// Adds the losses of whole samples, `positions` each. The sum has the same bits whatever the
    /// micro-batch.
    fn add_losses(
        &self,
        losses: Part<Self::Full>,
        positions: usize,
        tally: &mut Self::Tally,
    ) -> Done;
    /// The sum so far, in nats. Waits for the device.
    fn loss(&self, tally: &Self::Tally) -> Result<f64, Refused>;
    /// Allocates the numbers for updates of parameters with these runs of decay.
    ///
    /// # Errors
    /// When their memory is refused.
    fn optimizer(&self, decays: &[DecayRun]) -> Result<Self::Optimizer, Refused>;
    /// Clips, and updates the weights unless the loss or a gradient is not finite. Waits for the device. An optimizer
    /// is used with one tally and one state for life: a recording holds their addresses.
    fn update(
        &self,
        optimizer: &mut Self::Optimizer,
        state: TrainingState<Self>,
        update: &Update,
        tally: &mut Self::Tally,
    ) -> Result<Ended, Refused>;
}
