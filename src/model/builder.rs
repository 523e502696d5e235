//! The parts that a program is put together from.

use std::ops::Range;

use super::program::{Node, StateIds, TrainingIds};
use super::{Init, ParamLayout, ParamRole, Program};
use crate::memory::Group;
use crate::ops::backend::{
    Affine, BufferId, BufferName, BufferSpec, ElementType, GradientWrite, Matrix, Op, Owner,
    RowStats, Shape, batch_specs,
};
use crate::ops::partition;
use crate::terms::{Engine, ModelDims, Precision, Purpose, Recompute, Rung};

/// A list of operations under construction.
#[derive(Default)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    layer: Option<usize>,
    is_recomputed: bool,
}

impl Nodes {
    pub fn push(&mut self, op: Op) {
        self.nodes.push(Node {
            op,
            layer: self.layer,
            is_recomputed: self.is_recomputed,
        });
    }

    /// Lets what follows belong to block `index`.
    pub fn enter_block(&mut self, index: usize) {
        self.layer = Some(index);
    }

    /// Lets what follows belong to no block.
    pub fn leave_blocks(&mut self) {
        self.layer = None;
    }

    /// Marks all that `push` adds as done again: the forward did it before.
    pub fn recompute(&mut self, push: impl FnOnce(&mut Self)) {
        self.is_recomputed = true;
        push(self);
        self.is_recomputed = false;
    }
}

/// A program under construction.
pub(super) struct Builder {
    pub params: ParamLayout,
    /// nanoGPT's name of the module that parameters are declared in.
    pub path: String,
    has_biases: bool,
    block_size: usize,
    rung: Rung,
    purpose: Purpose,
    engine: Engine,
    /// Those that last come first; their length is known at the end.
    buffers: Vec<BufferSpec>,
    state: StateIds,
    state_len: usize,
    partials: Option<BufferId>,
    pub forward: Nodes,
    pub copy: Nodes,
    pub head: Nodes,
    pub chunk_losses: Nodes,
    pub chunk_gradients: Nodes,
    pub backward: Nodes,
    pub tally: Nodes,
}

impl Builder {
    pub fn new(
        dims: &ModelDims,
        rung: Rung,
        purpose: Purpose,
        engine: Engine,
        precision: Precision,
    ) -> Self {
        let mut buffers = Vec::new();
        let state = state_buffers(purpose, precision, &mut buffers);
        Self {
            params: ParamLayout::default(),
            path: String::new(),
            has_biases: dims.bias,
            block_size: match purpose {
                Purpose::Generation { positions } => positions,
                Purpose::Training | Purpose::Inference => dims.block_size,
            },
            rung,
            purpose,
            engine,
            state_len: buffers.len(),
            buffers,
            state,
            partials: None,
            forward: Nodes::default(),
            copy: Nodes::default(),
            head: Nodes::default(),
            chunk_losses: Nodes::default(),
            chunk_gradients: Nodes::default(),
            backward: Nodes::default(),
            tally: Nodes::default(),
        }
    }

    pub fn is_training(&self) -> bool {
        self.purpose == Purpose::Training
    }

    /// An embedding, (rows, columns).
    pub fn embedding(&mut self, name: &str, shape: [usize; 2], std: f64) -> Range<usize> {
        let (init, role) = (Init::Normal { std }, ParamRole::Embedding);
        self.param(&format!("{name}.weight"), &shape, init, role)
    }

    /// Weight and bias of a layer norm over `columns`.
    pub fn norm(&mut self, name: &'static str, columns: usize) -> Affine {
        self.affine(name, name, &[columns], Init::Constant(1.0), ParamRole::Norm)
    }

    /// Weight (out, in) and bias (out) of a linear layer. `label` is its name in messages.
    pub fn linear(
        &mut self,
        label: &'static str,
        name: &str,
        shape: [usize; 2],
        std: f64,
    ) -> Affine {
        self.affine(label, name, &shape, Init::Normal { std }, ParamRole::Linear)
    }

    fn affine(
        &mut self,
        label: &'static str,
        name: &str,
        shape: &[usize],
        init: Init,
        role: ParamRole,
    ) -> Affine {
        let (zeros, bias) = (Init::Constant(0.0), ParamRole::Bias);
        Affine {
            label,
            weight: self.param(&format!("{name}.weight"), shape, init, role),
            bias: self
                .has_biases
                .then(|| self.param(&format!("{name}.bias"), &shape[..1], zeros, bias)),
        }
    }

    fn param(&mut self, name: &str, shape: &[usize], init: Init, role: ParamRole) -> Range<usize> {
        let name = format!("{}.{name}", self.path);
        self.params.push(name, shape, init, role)
    }

    /// Whether the attention is that of generation.
    pub fn is_generation(&self) -> bool {
        matches!(self.purpose, Purpose::Generation { .. })
    }

    fn rows(&self) -> usize {
        match self.purpose {
            Purpose::Generation { positions } => positions.max(self.rung.micro_batch),
            Purpose::Training | Purpose::Inference => self.rung.micro_batch * self.block_size,
        }
    }

    /// A result of the forward in the precision that the model computes in, (R, columns). That of all blocks is made
    /// once.
    pub fn activation(&mut self, owner: Owner, part: &'static str, columns: usize) -> Matrix {
        self.matrix(
            owner,
            part,
            Group::Activations,
            ElementType::Compute,
            columns,
        )
    }

    /// A result of the forward in fp32, (R, columns).
    pub fn statistic(&mut self, owner: Owner, part: &'static str, columns: usize) -> Matrix {
        self.matrix(owner, part, Group::Activations, ElementType::Full, columns)
    }

    /// The statistics of a norm: mean and reciprocal deviation.
    pub fn row_stats(&mut self, owner: Owner, [mean, rstd]: [&'static str; 2]) -> RowStats {
        RowStats {
            mean: self.statistic(owner, mean, 1),
            rstd: self.statistic(owner, rstd, 1),
        }
    }

    /// Scratch of the model, (R, columns).
    pub fn workspace(&mut self, part: &'static str, columns: usize) -> Matrix {
        let group = Group::Workspaces;
        self.matrix(Owner::Model, part, group, ElementType::Compute, columns)
    }

    fn matrix(
        &mut self,
        owner: Owner,
        part: &'static str,
        group: Group,
        element: ElementType,
        columns: usize,
    ) -> Matrix {
        let (name, len) = (BufferName { owner, part }, self.rows() * columns);
        Matrix {
            buffer: self.shared_or_new(name, group, element, len),
            columns,
            is_chunk: false,
        }
    }

    /// A buffer; that of all blocks if it was made before.
    fn shared_or_new(
        &mut self,
        name: BufferName,
        group: Group,
        element: ElementType,
        len: usize,
    ) -> BufferId {
        let made = match name.owner {
            Owner::AllBlocks => self.buffers.iter().position(|spec| spec.name == name),
            Owner::Model | Owner::Block(_) => None,
        };
        match made {
            Some(index) => BufferId(index),
            None => self.push(name, group, element, len),
        }
    }

    /// A chunk of logits, (rung.logits_rows, columns).
    pub fn logits(&mut self, columns: usize) -> Matrix {
        let (name, len) = (model("logits"), self.rung.logits_rows * columns);
        Matrix {
            buffer: self.push(name, Group::Classifier, ElementType::Compute, len),
            columns,
            is_chunk: true,
        }
    }

    /// The slots of a generation, for attention to (R, columns) in `heads`.
    pub fn slots(&self, heads: usize, columns: usize) -> Option<Shape> {
        self.is_generation().then(|| self.shape(heads, columns))
    }

    /// Cached keys and values of all slots of a generation. Those of all blocks are made once.
    pub fn cache(&mut self, owner: Owner, heads: usize, columns: usize) -> Option<BufferId> {
        let slots = self.slots(heads, columns)?;
        let len = 2 * slots.sequences * slots.positions * columns;
        let (group, element) = (Group::Activations, ElementType::Compute);
        let name = BufferName {
            owner,
            part: "attn.cache",
        };
        Some(self.shared_or_new(name, group, element, len))
    }

    fn shape(&self, heads: usize, columns: usize) -> Shape {
        Shape {
            sequences: self.rung.micro_batch,
            positions: self.block_size,
            heads,
            head_size: columns / heads,
        }
    }

    /// Scratch for attention to (R, columns) in `heads`.
    pub fn attention_scratch(&mut self, heads: usize, columns: usize) -> BufferId {
        let shape = self.shape(heads, columns);
        let len = partition::attention_scratch_len(self.engine, self.purpose, shape);
        self.push(
            model("attention"),
            Group::Workspaces,
            ElementType::Full,
            len,
        )
    }

    /// Scratch for partial sums, as long as the operations need that are pushed until the end.
    pub fn partials(&mut self) -> BufferId {
        let partials = self.push(model("partials"), Group::Workspaces, ElementType::Full, 0);
        *self.partials.insert(partials)
    }

    fn push(
        &mut self,
        name: BufferName,
        group: Group,
        element: ElementType,
        len: usize,
    ) -> BufferId {
        self.buffers.push(BufferSpec {
            name,
            group,
            element,
            len,
        });
        BufferId(self.buffers.len() - 1)
    }

    /// The program, whose results are in `losses` and `logits`.
    pub fn finish(mut self, losses: Matrix, logits: Matrix) -> Program {
        let (engine, rows, is_generation) = (self.engine, self.rows(), self.is_generation());
        for spec in &mut self.buffers[..self.state_len] {
            spec.len = self.params.len;
        }
        if let Some(BufferId(partials)) = self.partials {
            let nodes = [&self.chunk_gradients, &self.backward];
            let ops = nodes.into_iter().flat_map(|nodes| &nodes.nodes);
            let lens = ops.map(|node| partition::partials_len(engine, &node.op, rows));
            self.buffers[partials].len = lens.fold(0, usize::max);
        }
        let batch_start = self.buffers.len();
        self.buffers.extend(batch_specs(engine, rows));
        let (mut reset, mut begin) = (Nodes::default(), Nodes::default());
        reset.push(Op::ResetLoss);
        let first_write = match engine {
            Engine::Cpu { .. } => GradientWrite::Overwrite,
            // One recording serves all micro-steps, so the first adds to zeros.
            Engine::Cuda => {
                begin.push(Op::ZeroGradients {
                    parameters: self.params.len,
                });
                GradientWrite::Accumulate
            }
        };
        Program {
            params: self.params,
            rung: self.rung,
            block_size: self.block_size,
            keeps_keys: is_generation && self.rung.recompute != Recompute::Block,
            rows_alone: is_generation,
            rows,
            buffers: self.buffers,
            state_len: self.state_len,
            batch_start,
            state: self.state,
            losses,
            logits,
            reset: reset.nodes,
            begin: begin.nodes,
            first_write,
            forward: self.forward.nodes,
            copy: self.copy.nodes,
            head: self.head.nodes,
            chunk_losses: self.chunk_losses.nodes,
            chunk_gradients: self.chunk_gradients.nodes,
            backward: self.backward.nodes,
            tally: self.tally.nodes,
        }
    }
}

fn model(part: &'static str) -> BufferName {
    BufferName {
        owner: Owner::Model,
        part,
    }
}

/// Declares the buffers that last.
fn state_buffers(
    purpose: Purpose,
    precision: Precision,
    buffers: &mut Vec<BufferSpec>,
) -> StateIds {
    let mut declare = |part, group, element| {
        buffers.push(BufferSpec {
            name: model(part),
            group,
            element,
            len: 0,
        });
        BufferId(buffers.len() - 1)
    };
    let weights = declare("weights", Group::Weights, ElementType::Compute);
    let mut full = |part, group| declare(part, group, ElementType::Full);
    let training = (purpose == Purpose::Training).then(|| TrainingIds {
        master: precision
            .is_mixed()
            .then(|| full("master weights", Group::Master)),
        gradients: full("gradients", Group::Gradients),
        m: full("first moment", Group::Moments),
        v: full("second moment", Group::Moments),
    });
    StateIds { weights, training }
}
