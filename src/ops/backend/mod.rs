//! The one seam between the model and what computes it.
//!
//! [`Backend`] is every operation of a training step over buffers of one device. The model says which, in
//! which order; a backend says how: [`OnCpu`](super::cpu::OnCpu) by the bodies of this room, `OnGpu` by kernels. What a GPU
//! does in one pass (the residual add and the norm after it, a product and GELU) is one operation here.

mod arguments;
mod batch;
mod update;
mod values;

pub use arguments::{
    Affine, AttentionOut, AttentionSaved, BatchHeader, DropoutSite, EmbeddingGradients,
    EmbeddingTables, GradientWrite, Gradients, Mask, Masks, NormSaved, NormStats, Part, PartMut,
    Residual, Shape, TrainingState,
};
#[cfg(feature = "cuda")]
pub(crate) use batch::PACKET_HEAD;
pub use batch::rows_by_token;
pub(crate) use batch::{Packets, Tokens, plan_batch};
pub use update::{AdamW, Ended, OptimizerSettings, Update};
pub use values::{CHUNK, StoredBackend, Values, ValuesMut};
pub(crate) use values::{chunks, on_host, room};

use std::ops::Range;

use super::gemm::{Table, TrainingGemm};
use crate::memory::{AllocationError, Allocator, Memory, Refused};
use crate::terms::{Engine, Gelu, Inputs, NamedChoice, Precision};

/// What an operation says: nothing, or why the device did not do it. On a GPU it may still be under way.
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

/// Writes inputs and targets.
pub type ReadTokens<'a, E> = dyn FnMut(&mut [u32], &mut [u32]) -> Result<(), E> + 'a;

/// Everything that a device computes in a training step.
///
/// Shapes are those of the CPU bodies of this room, whose documentation says what is computed. Operations
/// allocate nothing. They panic when a part is of another length than its neighbours ask for: a defect of
/// the caller.
pub trait Backend: Sized + 'static {
    /// A buffer in the precision that the model computes in.
    type Compute: 'static;
    /// A buffer in fp32.
    type Full: 'static;
    /// A micro-batch, where operations read it.
    type Batch: 'static;
    /// Its header, where they read that.
    type Header;
    /// The loss so far, and what an update of the weights reads beside the state.
    type Tally: 'static;
    /// Work that was done once and can be done again.
    type Recording: Default + 'static;
    type Allocator<'a>: Allocator<Compute = Self::Compute, Full = Self::Full, Error = AllocationError>
    where
        Self: 'a;

    fn engine(&self) -> Engine;
    fn precision(&self) -> Precision;
    /// What products multiply.
    fn inputs(&self) -> Inputs;
    fn allocator<'a>(&'a self, memory: &'a mut Memory) -> Self::Allocator<'a>;

    /// Decides what computes the products of a rung, in at most `room` bytes; see
    /// [`Dispatch::prepare`](super::gemm::Dispatch::prepare).
    fn prepare(&self, gemms: &[TrainingGemm], room: Option<u64>);
    /// What computes which product, for a checkpoint.
    fn products(&self) -> Table;
    fn take_choices(&self) -> Vec<NamedChoice>;

    /// Room for micro-batches of up to `rows` tokens.
    ///
    /// # Errors
    /// When its memory is refused.
    fn batch(&self, rows: usize, memory: &mut Memory) -> Result<Self::Batch, AllocationError>;
    /// Lets `read` write the inputs and targets, (B, T) each with `rows` tokens, at the beginning of two
    /// slices, and makes them the micro-batch.
    ///
    /// # Errors
    /// What `read` or the device says.
    fn load<E>(
        &self,
        batch: &mut Self::Batch,
        rows: usize,
        header: BatchHeader,
        read: &mut ReadTokens<E>,
    ) -> Result<(), LoadError<E>>;
    fn header(batch: &Self::Batch) -> &Self::Header;

    /// Does `work`, whose operations and buffers are the same whenever it is called with this recording.
    fn record(&self, recording: &mut Self::Recording, work: impl FnMut() -> Done) -> Done;

    /// Before gradients are summed: what they hold from here on. The first micro-step replaces what is
    /// [`GradientWrite::Overwrite`]; who cannot do that zeroes them.
    fn begin(&self, gradients: &mut Self::Full) -> Result<GradientWrite, Refused>;
    fn clear(&self, part: PartMut<Self::Compute>) -> Done;

    /// Embeds the first rows of the micro-batch, as many as `out` has.
    fn embed(
        &self,
        batch: &Self::Batch,
        tables: EmbeddingTables<Self::Compute>,
        out: PartMut<Self::Compute>,
        mask: Option<Mask<Self::Header>>,
    ) -> Done;
    fn norm(
        &self,
        norm: Affine<Self::Compute>,
        x: Part<Self::Compute>,
        out: PartMut<Self::Compute>,
        stats: NormStats<Self::Full>,
    ) -> Done;
    /// Joins a branch to the residual stream, and `out` is the norm of that.
    fn residual_norm(
        &self,
        residual: Residual<Self::Compute>,
        mask: Option<Mask<Self::Header>>,
        norm: Affine<Self::Compute>,
        out: PartMut<Self::Compute>,
        stats: NormStats<Self::Full>,
    ) -> Done;
    fn linear(
        &self,
        layer: Affine<Self::Compute>,
        x: Part<Self::Compute>,
        y: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    fn linear_gelu(
        &self,
        form: Gelu,
        layer: Affine<Self::Compute>,
        x: Part<Self::Compute>,
        y: PartMut<Self::Compute>,
        activated: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    fn gelu(&self, form: Gelu, x: Part<Self::Compute>, out: PartMut<Self::Compute>) -> Done;
    /// `queries` are the positions that are computed; a GPU computes all of them. The mask is that of head 0.
    fn attention(
        &self,
        shape: Shape,
        queries: Range<usize>,
        qkv: Part<Self::Compute>,
        into: AttentionOut<Self::Compute, Self::Full>,
        mask: Option<Mask<Self::Header>>,
        scratch: &mut Self::Full,
    ) -> Done;
    /// The losses of `rows` of the micro-batch, whose `logits` may be lost.
    fn cross_entropy(
        &self,
        batch: &Self::Batch,
        rows: Range<usize>,
        logits: PartMut<Self::Compute>,
        losses: PartMut<Self::Full>,
    ) -> Done;

    /// As [`Backend::cross_entropy`], and the logits become the gradients of the losses times the header's
    /// scale.
    fn cross_entropy_gradients(
        &self,
        batch: &Self::Batch,
        rows: Range<usize>,
        logits: PartMut<Self::Compute>,
        losses: PartMut<Self::Full>,
    ) -> Done;
    fn input_gradients(
        &self,
        weight: Part<Self::Compute>,
        dy: Part<Self::Compute>,
        dx: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    /// As [`Backend::input_gradients`] through the activation of `x`.
    fn gelu_input_gradients(
        &self,
        form: Gelu,
        weight: Part<Self::Compute>,
        dy: Part<Self::Compute>,
        x: Part<Self::Compute>,
        dx: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    fn weight_gradients(
        &self,
        dy: Part<Self::Compute>,
        x: Part<Self::Compute>,
        into: Gradients<Self::Full>,
        columns: usize,
        partials: &mut Self::Full,
    ) -> Done;
    fn attention_gradients(
        &self,
        shape: Shape,
        dout: Part<Self::Compute>,
        saved: AttentionSaved<Self::Compute, Self::Full>,
        dqkv: PartMut<Self::Compute>,
        mask: Option<Mask<Self::Header>>,
        scratch: &mut Self::Full,
    ) -> Done;
    /// Adds to `dx`.
    fn norm_gradients(
        &self,
        dout: Part<Self::Compute>,
        saved: NormSaved<Self::Compute, Self::Full>,
        dx: PartMut<Self::Compute>,
        into: Gradients<Self::Full>,
        partials: &mut Self::Full,
    ) -> Done;
    /// `out = dropout(x)`, (R, columns) with `positions` rows of a sample.
    fn drop(
        &self,
        x: Part<Self::Compute>,
        out: PartMut<Self::Compute>,
        rows: (usize, usize),
        mask: Mask<Self::Header>,
    ) -> Done;
    /// Adds the gradients of the micro-batch's embeddings, of which `dx` are those before dropout, to those
    /// of both tables. `dx` may be masked in place.
    fn embedding_gradients(
        &self,
        batch: &Self::Batch,
        dx: PartMut<Self::Compute>,
        into: EmbeddingGradients<Self::Full>,
        rows: (usize, usize),
        mask: Option<Mask<Self::Header>>,
        partials: &mut Self::Full,
    ) -> Done;

    /// A tally of nothing, for the updates of parameters of which `decays` says which do.
    ///
    /// # Errors
    /// When its memory is refused.
    fn tally(&self, decays: &[(Range<usize>, bool)]) -> Result<Self::Tally, Refused>;
    /// Makes it a tally of nothing again.
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
    /// Clips, and updates the weights unless the loss or a gradient is not finite. Waits for the device.
    fn update(
        &self,
        state: TrainingState<Self>,
        update: &Update,
        tally: &mut Self::Tally,
    ) -> Result<Ended, Refused>;
}
