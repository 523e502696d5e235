//! A training step as data.

use std::ops::Range;

use super::{ParamLayout, gpt2};
use crate::memory::Row;
use crate::ops::backend::{BufferId, BufferSpec, GradientWrite, Matrix, Op, Span};
use crate::ops::gemm::{Problem, TrainingGemm};
use crate::terms::{Engine, Inputs, Job, ModelDims, Precision, Purpose, Rung};

/// An operation, and the block that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub op: Op,
    /// `None` outside the blocks.
    pub layer: Option<usize>,
    /// Done again in the backward, for activations that were not kept.
    pub is_recomputed: bool,
}

/// The places of what lasts among a program's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateIds {
    pub weights: BufferId,
    /// `None` in a program for inference.
    pub training: Option<TrainingIds>,
}

/// The places of what lasts in training beside the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingIds {
    /// The fp32 weights behind weights of lower precision.
    pub master: Option<BufferId>,
    pub gradients: BufferId,
    pub m: BufferId,
    pub v: BufferId,
}

/// Everything that a model is, for one rung: its parameters, its buffers, and the operations of a micro-step.
///
/// Whatever needs to know the model folds over this: the memory table sums the buffers, the tuner collects the GEMMs,
/// the plan predicts the time of every operation, and an executor runs them.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub params: ParamLayout,
    pub rung: Rung,
    /// Positions of a sequence, T.
    pub block_size: usize,
    /// Whether a generation goes on behind positions that were computed before: every block keeps their keys and values.
    pub keeps_keys: bool,
    /// See [`Frame::rows_alone`](crate::ops::backend::Frame::rows_alone).
    pub rows_alone: bool,
    /// Most rows of a forward, R.
    pub(super) rows: usize,
    /// Those that do not depend on the rung come first, then those of a rung, then those of the micro-batch.
    pub buffers: Vec<BufferSpec>,
    /// Number of buffers that do not depend on the rung.
    pub(super) state_len: usize,
    /// Number of buffers that are no part of the micro-batch.
    pub(super) batch_start: usize,
    pub state: StateIds,
    /// The losses of all rows, (R, 1).
    pub losses: Matrix,
    /// A chunk of logits, (rung.logits_rows, V).
    pub logits: Matrix,
    /// Before the losses of a step or an evaluation: empties the loss so far.
    pub reset: Vec<Node>,
    /// Behind `reset`, before the gradients of a step.
    pub begin: Vec<Node>,
    /// The way in which the first micro-step writes gradients after `begin`.
    pub first_write: GradientWrite,
    /// From the embeddings to the final norm.
    pub forward: Vec<Node>,
    /// Copies of cached keys and values, block by block; only in a program for generation.
    pub copy: Vec<Node>,
    /// The logits of a chunk of rows.
    pub head: Vec<Node>,
    /// The losses of that chunk, behind `head`. Overwrites the logits.
    pub chunk_losses: Vec<Node>,
    /// The losses of that chunk, and the gradients of the parameters and of the final norm's output. Instead of
    /// `chunk_losses`.
    pub chunk_gradients: Vec<Node>,
    /// From the gradient of the final norm's output down to the embeddings.
    pub backward: Vec<Node>,
    /// Behind the losses of all chunks: adds them to the loss so far.
    pub tally: Vec<Node>,
}

impl Program {
    /// The model of a run that trains or evaluates.
    pub fn of(
        job: Job,
        dims: &ModelDims,
        rung: Rung,
        engine: Engine,
        precision: Precision,
    ) -> Self {
        let purpose = match job {
            Job::Train => Purpose::Training,
            Job::Evaluate => Purpose::Inference,
        };
        gpt2(dims, rung, purpose, engine, precision)
    }

    /// Buffers that do not depend on the rung.
    pub fn lasting(&self) -> &[BufferSpec] {
        &self.buffers[..self.state_len]
    }

    /// Buffers of the rung, with those of the micro-batch.
    pub fn of_rung(&self) -> &[BufferSpec] {
        &self.buffers[self.state_len..]
    }

    /// Buffers of the rung, without those of the micro-batch.
    pub fn workspace(&self) -> &[BufferSpec] {
        &self.buffers[self.state_len..self.batch_start]
    }

    /// Bytes of all buffers on a device that computes in `precision`, saturating at 64 bits.
    pub fn bytes(&self, precision: Precision) -> u64 {
        let bytes = self.buffers.iter().map(|spec| spec.bytes(precision));
        bytes.fold(0, u64::saturating_add)
    }

    /// Bytes of [`Program::workspace`], as [`Program::bytes`].
    pub fn workspace_bytes(&self, precision: Precision) -> u64 {
        let bytes = self.workspace().iter().map(|spec| spec.bytes(precision));
        bytes.fold(0, u64::saturating_add)
    }

    /// The memory table of all buffers.
    pub fn table(&self, precision: Precision) -> Vec<Row> {
        let row = |spec: &BufferSpec| Row {
            group: spec.group,
            name: spec.name.to_string(),
            bytes: spec.bytes(precision),
        };
        self.buffers.iter().map(row).collect()
    }

    /// Rows of a micro-batch, R.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `rows` in chunks, each as long as the buffer of logits or shorter.
    pub fn chunks(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let (end, chunk) = (rows.end, self.rung.logits_rows);
        rows.step_by(chunk)
            .map(move |start| start..(start + chunk).min(end))
    }

    /// The nodes of a micro-step of full size in their order, a chunk of rows standing for all that are as long: with
    /// the rows that each computes, and how often.
    pub fn micro_step(&self, training: bool) -> Vec<(&Node, usize, usize)> {
        let rows = self.rows();
        let after_head = if training {
            &self.chunk_gradients
        } else {
            &self.chunk_losses
        };
        let chunk = self.rung.logits_rows.min(rows);
        let chunks = [(chunk, rows / chunk), (rows % chunk, 1)];
        let of_chunks =
            chunks
                .into_iter()
                .filter(|&(rows, _)| rows > 0)
                .flat_map(|(rows, times)| {
                    let nodes = self.head.iter().chain(after_head);
                    nodes.map(move |node| (node, rows, times))
                });
        let forward = self.forward.iter().map(|node| (node, rows, 1));
        let backward = if training { &*self.backward } else { &[] };
        let rest = backward.iter().chain(&self.tally);
        let rest = rest.map(|node| (node, rows, 1));
        forward.chain(of_chunks).chain(rest).collect()
    }

    /// The whole micro-batch.
    pub fn span(&self) -> Span {
        Span::whole(self.rung.micro_batch, self.block_size)
    }

    /// GEMMs of a micro-step in its order, without those of attention, each with the number of times that a
    /// micro-step computes it. Two of them may be one problem. Those of the last rows, if they fill no chunk of logits,
    /// have names of their own.
    pub fn gemms(&self, inputs: Inputs) -> Vec<TrainingGemm> {
        let chunk = self.rung.logits_rows.min(self.rows());
        let mut gemms: Vec<TrainingGemm> = Vec::new();
        for (node, rows, times) in self.micro_step(true) {
            let gemm = node.op.gemm_name().zip(node.op.gemm(rows, inputs));
            let Some((name, problem)) = gemm.filter(|_| !node.is_recomputed) else {
                continue;
            };
            let is_rest = node.layer.is_none() && rows < chunk;
            let name = if is_rest {
                format!("last {name}")
            } else {
                name
            };
            match gemms.iter_mut().find(|gemm| gemm.name == name) {
                Some(gemm) => gemm.per_micro_step += times,
                None => gemms.push(TrainingGemm {
                    name,
                    problem,
                    per_micro_step: times,
                }),
            }
        }
        gemms
    }

    /// The problems of [`Program::gemms`].
    pub fn problems(&self, inputs: Inputs) -> Vec<Problem> {
        let gemms = self.gemms(inputs);
        gemms.into_iter().map(|gemm| gemm.problem).collect()
    }
}
