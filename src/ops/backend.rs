//! The one seam between the model and what computes it.
//!
//! [`Backend`] is every operation of a training step over buffers of one device. The model says which, in
//! which order; a backend says how: [`OnCpu`](super::cpu::OnCpu) by the bodies of this room, `OnGpu` by kernels. What a GPU
//! does in one pass (the residual add and the norm after it, a product and GELU) is one operation here.

use std::ops::Range;

use super::attention::Shape;
use super::dropout::Site;
use super::gemm::{Table, TrainingGemm};
use crate::error::Error;
use crate::memory::{AllocationError, Allocator, Memory, Refused};
use crate::optim::{Ended, Update};
use crate::rng::Seed;
use crate::terms::{Engine, Gelu, Inputs, NamedChoice, Precision};

/// What an operation says: nothing, or why the device did not do it. On a GPU it may still be under way.
pub type Done = Result<(), Refused>;

/// A micro-batch that was not loaded.
#[derive(Debug)]
pub enum LoadError {
    /// Its samples could not be read.
    Read(Error),
    /// The device did not take them.
    Refused(Refused),
}

impl From<Error> for LoadError {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

impl From<Refused> for LoadError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Writes inputs and targets.
pub type ReadTokens<'a> = dyn FnMut(&mut [u32], &mut [u32]) -> Result<(), Error> + 'a;

/// Elements of a buffer that an operation reads.
pub struct Part<'a, B> {
    pub buffer: &'a B,
    start: usize,
    end: usize,
}

/// Elements of a buffer that an operation writes.
pub struct PartMut<'a, B> {
    pub buffer: &'a mut B,
    start: usize,
    end: usize,
}

impl<'a, B> Part<'a, B> {
    pub fn new(buffer: &'a B, Range { start, end }: Range<usize>) -> Self {
        Self { buffer, start, end }
    }

    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

impl<B> Clone for Part<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Part<'_, B> {}

impl<'a, B> PartMut<'a, B> {
    pub fn new(buffer: &'a mut B, Range { start, end }: Range<usize>) -> Self {
        Self { buffer, start, end }
    }

    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// What differs from one micro-step to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    pub step: u32,
    /// Index, within the step, of the micro-batch's first sequence.
    pub first_sample: u32,
    /// What the gradients of a row's loss are multiplied by.
    pub scale: f64,
}

/// Every dropout mask of a micro-step. `M` is a backend's moment.
pub struct Masks<'a, M> {
    /// Probability of dropping an element, in (0, 1).
    pub p: f64,
    pub seed: Seed,
    pub moment: &'a M,
}

impl<M> Clone for Masks<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Masks<'_, M> {}

impl<'a, M> Masks<'a, M> {
    pub fn at(self, site: Site) -> Mask<'a, M> {
        Mask { masks: self, site }
    }
}

/// The mask of one site.
pub struct Mask<'a, M> {
    pub masks: Masks<'a, M>,
    pub site: Site,
}

/// A weight and its bias.
pub struct Affine<'a, C> {
    pub weight: Part<'a, C>,
    pub bias: Option<Part<'a, C>>,
}

/// What gradients hold when something is added to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// Nothing that counts: it is replaced.
    Empty,
    Begun,
}

/// Where the gradients of a weight and its bias are added.
pub struct Gradients<'a, F> {
    pub buffer: &'a mut F,
    pub sum: Sum,
    pub weight: Range<usize>,
    pub bias: Option<Range<usize>>,
}

/// Mean and reciprocal deviation of every row, (R) each.
pub struct NormStats<'a, F> {
    pub mean: PartMut<'a, F>,
    pub rstd: PartMut<'a, F>,
}

/// What a layer norm's backward reads.
pub struct NormSaved<'a, C, F> {
    pub x: Part<'a, C>,      // (R, C)
    pub weight: Part<'a, C>, // (C)
    pub mean: Part<'a, F>,   // (R)
    pub rstd: Part<'a, F>,   // (R)
}

/// Both embeddings, and which of the positions, of `columns` each, are wanted.
pub struct EmbeddingTables<'a, C> {
    pub wte: Part<'a, C>, // (V, C)
    pub wpe: Part<'a, C>, // (at least all positions, C)
    pub positions: Range<usize>,
    pub columns: usize,
}

/// Where the gradients of both embeddings are added. That of tokens was begun by the head, which shares it.
pub struct EmbeddingGradients<'a, F> {
    pub buffer: &'a mut F,
    pub positions: Sum,
    pub wte: Range<usize>,
    pub wpe: Range<usize>,
}

/// A branch that joins the residual stream: `out = x + dropout(branch)`, (R, C) each.
pub struct Residual<'a, C> {
    pub x: Part<'a, C>,
    pub branch: Part<'a, C>,
    pub out: PartMut<'a, C>,
    /// Rows of one sample.
    pub positions: usize,
}

/// What attention writes.
pub struct AttentionOut<'a, C, F> {
    pub out: PartMut<'a, C>, // (B, T, C)
    pub lse: PartMut<'a, F>, // (B, H, T)
}

/// What attention's backward reads.
pub struct AttentionSaved<'a, C, F> {
    pub qkv: Part<'a, C>, // (B, T, 3C)
    pub out: Part<'a, C>, // (B, T, C)
    pub lse: Part<'a, F>, // (B, H, T)
}

/// What an update of the weights changes and reads, flat in the parameters' order.
pub struct TrainingState<'a, B: Backend> {
    pub weights: &'a mut B::Compute,
    /// In fp32, where `weights` are of lower precision.
    pub master: Option<&'a mut B::Full>,
    pub m: &'a mut B::Full,
    pub v: &'a mut B::Full,
    pub gradients: &'a B::Full,
}

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
    /// Its moment, where they read that.
    type Moment;
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
    fn load(
        &self,
        batch: &mut Self::Batch,
        rows: usize,
        moment: Moment,
        read: &mut ReadTokens,
    ) -> Result<(), LoadError>;
    fn moment(batch: &Self::Batch) -> &Self::Moment;

    /// Does `work`, whose operations and buffers are the same whenever it is called with this recording.
    fn record(&self, recording: &mut Self::Recording, work: impl FnMut() -> Done) -> Done;

    /// Before gradients are summed: what they hold from here on. The first micro-step replaces what is
    /// [`Sum::Empty`]; who cannot do that zeroes them.
    fn begin(&self, gradients: &mut Self::Full) -> Result<Sum, Refused>;
    fn clear(&self, part: PartMut<Self::Compute>) -> Done;

    /// Embeds the first rows of the micro-batch, as many as `out` has.
    fn embed(
        &self,
        batch: &Self::Batch,
        tables: EmbeddingTables<Self::Compute>,
        out: PartMut<Self::Compute>,
        mask: Option<Mask<Self::Moment>>,
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
        mask: Option<Mask<Self::Moment>>,
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
        mask: Option<Mask<Self::Moment>>,
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

    /// As [`Backend::cross_entropy`], and the logits become the gradients of the losses times the moment's
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
        mask: Option<Mask<Self::Moment>>,
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
        mask: Mask<Self::Moment>,
    ) -> Done;
    /// Adds the gradients of the micro-batch's embeddings, of which `dx` are those before dropout, to those
    /// of both tables. `dx` may be masked in place.
    fn embedding_gradients(
        &self,
        batch: &Self::Batch,
        dx: PartMut<Self::Compute>,
        into: EmbeddingGradients<Self::Full>,
        rows: (usize, usize),
        mask: Option<Mask<Self::Moment>>,
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
