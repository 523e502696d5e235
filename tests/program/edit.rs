//! The operands of a program, to look at and to plant mistakes in.

use crate::flow::{Dataflow, Operand};
use taper::model::{Node, Program};
use taper::ops::backend::{BufferId, Matrix, Op, RowStats};

/// The buffer of that name.
#[track_caller]
pub fn buffer(program: &Program, name: &str) -> BufferId {
    let mut names = program.buffers.iter().map(|spec| spec.name.to_string());
    let index = names.position(|known| known == name);
    BufferId(index.unwrap_or_else(|| panic!("no buffer is called `{name}`")))
}

/// The names of the buffers that an operation writes.
pub fn written(program: &Program, node: &Node) -> Vec<String> {
    let flow = node.op.flow();
    let results = flow.writes.iter().chain(&flow.changes);
    let buffers = results.filter_map(|operand| match operand {
        Operand::Buffer(BufferId(index)) => Some(program.buffers[*index].name.to_string()),
        _ => None,
    });
    buffers.collect()
}

/// The place of the first operation of `layer` that writes the buffer of that name.
#[track_caller]
pub fn writer(program: &Program, nodes: &[Node], layer: Option<usize>, name: &str) -> usize {
    let writes = |node: &Node| {
        node.layer == layer && written(program, node).iter().any(|known| known == name)
    };
    nodes.iter().position(writes).unwrap()
}

/// The lists of a micro-step: forward, head, losses, gradients of a chunk, backward.
pub fn lists(program: &mut Program) -> [&mut Vec<Node>; 5] {
    [
        &mut program.forward,
        &mut program.head,
        &mut program.chunk_losses,
        &mut program.chunk_gradients,
        &mut program.backward,
    ]
}

/// Lets all operations use buffer `to` where they used `from`.
pub fn replace(program: &mut Program, from: BufferId, to: BufferId) {
    for node in lists(program).into_iter().flatten() {
        let (matrices, scratch) = operands(&mut node.op);
        let buffers = matrices.into_iter().map(|matrix| &mut matrix.buffer);
        for buffer in buffers.chain(scratch).filter(|buffer| **buffer == from) {
            *buffer = to;
        }
    }
}

/// The matrices of an operation, and its scratch.
pub fn operands(op: &mut Op) -> (Vec<&mut Matrix>, Option<&mut BufferId>) {
    match op {
        Op::ResetLoss | Op::ZeroGradients { .. } => (Vec::new(), None),
        Op::Zero { x } => (vec![x], None),
        Op::Embed { out, .. } | Op::EmbedAt { out, .. } => (vec![out], None),
        Op::CachedAttention {
            qkv, out, scratch, ..
        } => (vec![qkv, out], Some(scratch)),
        Op::CopyCache { .. } => (Vec::new(), None),
        Op::Norm {
            x,
            out,
            stats: RowStats { mean, rstd },
            ..
        } => (vec![x, out, mean, rstd], None),
        Op::ResidualNorm {
            x,
            branch,
            sum,
            out,
            stats: RowStats { mean, rstd },
            ..
        } => (vec![x, branch, sum, out, mean, rstd], None),
        Op::Linear { x, y, .. } => (vec![x, y], None),
        Op::LinearGelu {
            x, y, activated, ..
        } => (vec![x, y, activated], None),
        Op::Gelu { x, out, .. } | Op::Dropout { x, out, .. } => (vec![x, out], None),
        Op::Attention {
            qkv,
            out,
            lse,
            scratch,
            ..
        } => (vec![qkv, out, lse], Some(scratch)),
        Op::CrossEntropy { logits, losses } | Op::CrossEntropyGradients { logits, losses } => {
            (vec![logits, losses], None)
        }
        Op::AddLosses { losses } => (vec![losses], None),
        Op::InputGradients { dy, dx, .. } => (vec![dy, dx], None),
        Op::GeluInputGradients { dy, x, dx, .. } => (vec![dy, x, dx], None),
        Op::WeightGradients {
            dy, x, partials, ..
        } => (vec![dy, x], Some(partials)),
        Op::AttentionGradients {
            dout,
            qkv,
            out,
            lse,
            dqkv,
            scratch,
            ..
        } => (vec![dout, qkv, out, lse, dqkv], Some(scratch)),
        Op::NormGradients {
            dout,
            x,
            stats: RowStats { mean, rstd },
            dx,
            partials,
            ..
        } => (vec![dout, x, mean, rstd, dx], Some(partials)),
        Op::EmbeddingGradients { dx, partials, .. } => (vec![dx], Some(partials)),
    }
}
