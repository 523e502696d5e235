//! The token ids of a micro-batch.

use crate::memory::{Allocator, Group};
use crate::terms::Engine;

/// Ids, (B, T) row-major each, in the memory of the host.
pub(crate) struct Tokens<I> {
    pub inputs: I,
    pub targets: I,
}

impl<I> Tokens<I> {
    pub fn new<A: Allocator<Ids = I>>(rows: usize, memory: &mut A) -> Result<Self, A::Error> {
        Ok(Self {
            inputs: memory.ids(Group::Workspaces, format_args!("inputs"), rows)?,
            targets: memory.ids(Group::Workspaces, format_args!("targets"), rows)?,
        })
    }
}

/// A micro-batch on a GPU, and room for two that are copied there ahead of their time.
#[cfg_attr(
    not(feature = "cuda"),
    expect(dead_code, reason = "only planned, and held for a trial")
)]
pub(crate) struct Packets<I> {
    pub current: I,
    pub ahead: [I; 2],
}

/// Words of a packet before its tokens.
pub(crate) const PACKET_HEAD: usize = 4;

impl<I> Packets<I> {
    pub fn new<A: Allocator<Ids = I>>(rows: usize, memory: &mut A) -> Result<Self, A::Error> {
        // Inputs, targets, and the rows in the order of their tokens.
        let words = PACKET_HEAD + 3 * rows;
        let mut ids = |name| memory.ids(Group::Workspaces, format_args!("{name}"), words);
        Ok(Self {
            current: ids("micro-batch")?,
            ahead: [ids("micro-batch ahead 1")?, ids("micro-batch ahead 2")?],
        })
    }
}

/// Notes in `memory` the buffers of a backend's batch of `rows` tokens.
pub(crate) fn plan_batch<A: Allocator>(
    rows: usize,
    engine: Engine,
    memory: &mut A,
) -> Result<(), A::Error> {
    match engine {
        Engine::Cpu { .. } => Tokens::new(rows, memory).map(|_| ()),
        Engine::Cuda => Packets::new(rows, memory).map(|_| ()),
    }
}

/// Sorts the rows by their token into `order`, and those of one token by row: the order in which a GPU adds
/// up the gradients of tokens. `starts` is scratch, an element for every token of the vocabulary.
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
