//! The token ids of a micro-batch.

use super::{BufferName, BufferSpec, ElementType, Owner};
use crate::memory::Group;
use crate::terms::Engine;

/// The numbers that differ from one micro-step to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BatchHeader {
    pub step: u32,
    /// Index, within the step, of the micro-batch's first sequence.
    pub first_sample: u32,
    /// Factor of the gradients of a row's loss.
    pub scale: f64,
}

/// Words of a packet before its tokens.
pub(crate) const PACKET_HEAD: usize = 4;

/// The buffers of a micro-batch of up to `rows` tokens.
pub fn batch_specs(engine: Engine, rows: usize) -> Vec<BufferSpec> {
    match engine {
        Engine::Cpu { .. } => token_specs(rows).into(),
        Engine::Cuda => packet_specs(rows).into(),
    }
}

/// Inputs and targets, in the memory of the host.
pub(crate) fn token_specs(rows: usize) -> [BufferSpec; 2] {
    ["inputs", "targets"].map(|part| ids(part, rows))
}

/// The packet that operations on a GPU read, and two that are copied there ahead of their time.
pub(crate) fn packet_specs(rows: usize) -> [BufferSpec; 3] {
    // Inputs, targets, and the rows in the order of their tokens.
    let words = PACKET_HEAD + 3 * rows;
    ["micro-batch", "micro-batch ahead 1", "micro-batch ahead 2"].map(|part| ids(part, words))
}

fn ids(part: &'static str, len: usize) -> BufferSpec {
    BufferSpec {
        name: BufferName {
            owner: Owner::Model,
            part,
        },
        group: Group::Workspaces,
        element: ElementType::Id,
        len,
    }
}

/// Sorts the rows by their token into `order`, and those of one token by row: the order in which a GPU adds
/// up the gradients of tokens. `starts` is scratch, an element for every id up to the largest.
pub fn rows_by_token(tokens: &[u32], starts: &mut [u32], order: &mut [u32]) {
    starts.fill(0);
    for &token in tokens {
        starts[token as usize] += 1;
    }
    let mut next = 0;
    for start in starts.iter_mut() {
        next += std::mem::replace(start, next);
    }
    for (row, &token) in tokens.iter().enumerate() {
        let place = &mut starts[token as usize];
        order[*place as usize] = row as u32;
        *place += 1;
    }
}
