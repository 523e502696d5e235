//! Lengths of scratch on each engine, and the partition of rows among the blocks of a GPU's kernels.
//!
//! Both are functions of shapes alone: a plan knows them without the device, and every card adds up in one order.

use super::backend::{Op, Shape};
use super::cpu::attention::cached;
use super::cpu::layer_norm;
use crate::terms::{Engine, Purpose};

/// Most blocks of layer norm's backward on a GPU: enough for any card, few enough that adding their sums is
/// cheap.
const NORM_MOST_BLOCKS: usize = 1024;
/// Fewest rows of one of these blocks.
const NORM_FEWEST_BLOCK_ROWS: usize = 16;

/// Blocks, about, of the first pass of column sums on a GPU.
const COLUMN_SUM_BLOCKS: usize = 1024;
/// Columns of one of these blocks.
const COLUMN_SUM_COLUMNS: usize = 256;
/// Fewest rows of one of these blocks.
const COLUMN_SUM_FEWEST_ROWS: usize = 64;

/// Rows that one block of the embedding's backward adds up on a GPU.
pub(super) const EMBEDDING_WINDOW: usize = 32;

/// Numbers, in fp32, that attention's backward on a GPU keeps of every row of every head.
pub(super) const ATTENTION_STATISTICS: usize = 2;

/// Elements of the scratch of attention: of its backward, and on the CPU of its forward, too.
pub fn attention_scratch_len(engine: Engine, purpose: Purpose, shape: Shape) -> usize {
    match (engine, purpose) {
        (Engine::Cpu { threads }, Purpose::Generation { positions }) => {
            cached::scratch_len(positions, threads)
        }
        (Engine::Cpu { threads }, _) => shape.scratch_len(threads),
        (Engine::Cuda, Purpose::Training) => gpu_attention_len(shape),
        // A buffer on a GPU has at least one element.
        (Engine::Cuda, Purpose::Inference | Purpose::Generation { .. }) => 1,
    }
}

/// Elements of the partial sums of an operation over up to `rows` rows.
pub fn partials_len(engine: Engine, op: &Op, rows: usize) -> usize {
    match (engine, op) {
        (Engine::Cpu { .. }, Op::NormGradients { x, .. }) => {
            layer_norm::partials_len(rows, x.columns)
        }
        (Engine::Cpu { .. }, _) => 0,
        // Upper bounds, which also hold for fewer rows.
        (Engine::Cuda, Op::NormGradients { x, .. }) => {
            let blocks = rows.div_ceil(NORM_FEWEST_BLOCK_ROWS).min(NORM_MOST_BLOCKS);
            2 * blocks * x.columns
        }
        (Engine::Cuda, Op::WeightGradients { layer, dy, .. }) if layer.bias.is_some() => {
            let lines = rows.div_ceil(COLUMN_SUM_FEWEST_ROWS);
            lines.min(column_sum_most_lines(dy.columns)) * dy.columns
        }
        (Engine::Cuda, Op::EmbeddingGradients { dx, .. }) => embedding_heads_len(rows, dx.columns),
        (Engine::Cuda, _) => 0,
    }
}

/// Elements of the scratch of attention's backward on a GPU.
pub fn gpu_attention_len(shape: Shape) -> usize {
    ATTENTION_STATISTICS * shape.sequences * shape.heads * shape.positions
}

/// Rows of a block of layer norm's backward on a GPU.
pub(super) fn norm_block_rows(rows: usize) -> usize {
    rows.div_ceil(NORM_MOST_BLOCKS).max(NORM_FEWEST_BLOCK_ROWS)
}

/// Elements of the partial sums of layer norm's backward on a GPU.
pub fn norm_partials_len(rows: usize, columns: usize) -> usize {
    rows.div_ceil(norm_block_rows(rows)) * 2 * columns
}

/// Number of partial sums of every column on a GPU.
pub(super) fn column_sum_lines(rows: usize, columns: usize) -> usize {
    let line_rows = rows.div_ceil(column_sum_most_lines(columns));
    rows.div_ceil(line_rows.max(COLUMN_SUM_FEWEST_ROWS))
}

fn column_sum_most_lines(columns: usize) -> usize {
    let tiles = columns.div_ceil(COLUMN_SUM_COLUMNS);
    COLUMN_SUM_BLOCKS / tiles.min(COLUMN_SUM_BLOCKS)
}

/// Elements of the partial sums of column sums on a GPU.
pub fn column_sum_partials_len(rows: usize, columns: usize) -> usize {
    column_sum_lines(rows, columns) * columns
}

/// Elements of the sums of the windows' first tokens, in the embedding's backward on a GPU.
pub fn embedding_heads_len(rows: usize, columns: usize) -> usize {
    rows.div_ceil(EMBEDDING_WINDOW) * columns
}
