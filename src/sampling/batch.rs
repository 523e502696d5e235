//! The sequences of a batch, and the slots of the cache that they are computed in.

use crate::memory::Refused;
use crate::model::{Placed, State, Workspace};

/// A sequence under way.
pub(super) struct Sequence {
    /// Number of its request.
    pub number: usize,
    pub sample: u32,
    pub tokens: Vec<u32>,
    pub prompt_len: usize,
    slot: Option<usize>,
}

impl Sequence {
    pub fn new(number: usize, sample: u32, prompt: &[u32]) -> Self {
        Self {
            number,
            sample,
            tokens: prompt.to_vec(),
            prompt_len: prompt.len(),
            slot: None,
        }
    }

    pub fn new_tokens(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// The last of its tokens, at most `positions`.
    fn context(&self, positions: usize) -> &[u32] {
        &self.tokens[self.tokens.len().saturating_sub(positions)..]
    }
}

/// The tokens whose keys and values each slot has, from position 0 on.
#[derive(Default)]
pub(super) struct Slots(Vec<Vec<u32>>);

impl Slots {
    /// Says that all keys and values are gone.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// Computes the logits (N, V) that follow the first sequences, as many as there are slots for, and returns that
    /// number N.
    ///
    /// Keys and values that a slot lacks are copied from a slot that has them or computed, with those of other
    /// sequences at once. When a context is full, its window moves: all positions have new tokens and are computed again.
    ///
    /// # Errors
    /// The device's refusal; then nothing is known of the cache.
    pub fn next_logits(
        &mut self,
        workspace: &mut Workspace,
        state: &State,
        sequences: &mut [Sequence],
        logits: &mut Vec<f32>,
    ) -> Result<usize, Refused> {
        let program = workspace.program();
        let (slots, positions) = (program.rung.micro_batch, program.block_size);
        let keeps_keys = program.keeps_keys;
        let count = slots.min(sequences.len());
        let sequences = &mut sequences[..count];
        if self.0.len() != slots {
            self.0 = vec![Vec::new(); slots];
        }
        if !keeps_keys {
            let context = sequences[0].context(positions);
            let rows: Vec<Placed> = context.iter().zip(0..).map(placed).collect();
            workspace.generate(state, &rows, 1, logits)?;
            return Ok(1);
        }
        assign(sequences, slots);
        let mut last = Vec::with_capacity(count);
        let mut rows = Vec::new();
        for sequence in sequences.iter() {
            let slot = sequence.slot.unwrap_or(0);
            let context = sequence.context(positions);
            let (token, before) = context.split_last().unwrap_or((&0, &[]));
            let known = self.known(slot, before, &mut rows, positions, workspace, state)?;
            let place = (slot * positions) as u32;
            let new = before[known..].iter().zip(place + known as u32..);
            rows.extend(new.map(placed));
            last.push(placed((token, place + before.len() as u32)));
            self.0[slot].clear();
            self.0[slot].extend_from_slice(before);
        }
        flush(&mut rows, workspace, state)?;
        workspace.generate(state, &last, count, logits)?;
        for (sequence, last) in sequences.iter().zip(last) {
            self.0[sequence.slot.unwrap_or(0)].push(last.token);
        }
        Ok(count)
    }

    /// The number of positions whose keys and values `slot` has of `tokens`, after it got those that another slot has
    /// more of. `rows` are still to be computed, and are if the other slot needs them.
    fn known(
        &self,
        slot: usize,
        tokens: &[u32],
        rows: &mut Vec<Placed>,
        positions: usize,
        workspace: &mut Workspace,
        state: &State,
    ) -> Result<usize, Refused> {
        let own = common(&self.0[slot], tokens);
        if own == tokens.len() {
            return Ok(own);
        }
        let shared = self.0.iter().map(|kept| common(kept, tokens));
        let Some((shared, donor)) = shared.zip(0..).max().filter(|(shared, _)| *shared > own)
        else {
            return Ok(own);
        };
        flush(rows, workspace, state)?;
        let from = |slot: usize| (slot * positions) as u32;
        let places: Vec<(u32, u32)> = (own as u32..shared as u32)
            .map(|at| (from(donor) + at, from(slot) + at))
            .collect();
        for places in places.chunks(workspace.program().rows()) {
            workspace.copy_cached(state, places)?;
        }
        Ok(shared)
    }
}

/// Gives every sequence a slot of its own: that which it had, if there still is one.
fn assign(sequences: &mut [Sequence], slots: usize) {
    let mut is_taken = vec![false; slots];
    for sequence in sequences.iter_mut() {
        sequence.slot = sequence
            .slot
            .filter(|&slot| slot < slots && !is_taken[slot]);
        if let Some(slot) = sequence.slot {
            is_taken[slot] = true;
        }
    }
    let mut free = (0..slots).filter(|&slot| !is_taken[slot]);
    for sequence in sequences
        .iter_mut()
        .filter(|sequence| sequence.slot.is_none())
    {
        sequence.slot = free.next();
    }
}

fn placed((&token, place): (&u32, u32)) -> Placed {
    Placed { token, place }
}

/// Computes the keys and values of `rows`, which are then none.
fn flush(rows: &mut Vec<Placed>, workspace: &mut Workspace, state: &State) -> Result<(), Refused> {
    for rows in rows.chunks(workspace.program().rows()) {
        workspace.generate(state, rows, 0, &mut Vec::new())?;
    }
    rows.clear();
    Ok(())
}

/// Length of the beginning that two lists of tokens have in common.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
