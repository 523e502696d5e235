//! Losses of chosen tokens, each predicted by the tokens before it.
//!
//! A sequence may be shorter than a block. Neighbours are computed together, as many as fit the rows of a micro-batch,
//! each as long as the longest of them; causal attention keeps the padding behind a sequence out of it. Logits are
//! computed only for rows that are scored, and for the few between two of them.

use std::io;
use std::ops::Range;

use super::micro::load_rows;
use crate::faults::Site;
use crate::memory::{Memory, Recoverable};
use crate::model::{LookAtLogits, State, Workspace};
use crate::ops::backend::{BatchHeader, Span, Values, on_host};

/// Most sequences that are computed together: blocks of a grid that every GPU has.
const MOST_SEQUENCES: usize = 1 << 15;

/// Most rows between two scored ones that get logits, too: a GEMM of so few rows takes as long as none.
const GAP: usize = 32;

/// Chunks of logits begin and end at multiples of so many rows where they can, so that their addresses are aligned and
/// few GEMMs differ.
const WHOLE_ROWS: usize = 8;

/// Sequences of which some tokens are scored. Those of similar length should be neighbours.
pub trait Scoring<E> {
    /// Number of sequences.
    fn count(&self) -> usize;

    /// Inputs of a sequence, from 1 to the block size.
    fn positions(&self, index: usize) -> usize;

    /// Positions of a sequence whose targets are scored.
    fn scored(&self, index: usize) -> Range<usize>;

    /// Whether scored targets are compared with the likeliest token.
    fn wants_greedy(&self) -> bool;

    /// Writes inputs and targets of a sequence, as many as its positions.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read(&self, index: usize, inputs: &mut [u32], targets: &mut [u32]) -> Result<(), E>;

    /// Takes the score of a sequence. Each comes once, in order.
    fn record(&mut self, index: usize, score: SequenceScore);
}

/// Score of one sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequenceScore {
    /// Sum of the losses of the scored targets, in nats.
    pub loss: f64,
    /// Number of scored targets.
    pub tokens: usize,
    /// Whether every scored target has a larger logit than all other tokens; of equal logits the first counts.
    /// Meaningless unless it was asked for.
    pub is_greedy: bool,
}

/// Scores all sequences. After a refusal of memory, a second call goes on at `done`, the number of those recorded.
pub(super) fn score<E: Recoverable>(
    state: &State,
    workspace: &mut Workspace,
    scoring: &mut impl Scoring<E>,
    done: &mut usize,
    memory: &mut Memory,
    site: Site,
) -> Result<(), E> {
    let program = workspace.program();
    let (most_rows, logits_rows) = (program.rows(), program.rung.logits_rows);
    let vocab_size = program.logits.columns;
    let (mut copy, mut losses) = (Vec::new(), Vec::new());
    while *done < scoring.count() {
        let batch = Batch::from(scoring, *done, most_rows, logits_rows);
        let targets = batch.load(workspace, scoring, memory, site)?;
        memory.enter(site)?;
        let mut misses = vec![false; batch.sequences.len()];
        let mut look = |rows: Range<usize>, logits: &dyn Values| {
            let logits = Logits {
                rows,
                values: logits,
                vocab_size,
                copy: &mut copy,
            };
            batch.look(logits, &targets, &mut misses)
        };
        let look: Option<&mut LookAtLogits> = match scoring.wants_greedy() {
            true => Some(&mut look),
            false => None,
        };
        let scored = workspace.score(state, &batch.span(), &batch.chunks, look);
        losses.resize(batch.span().rows().len(), 0.0);
        scored
            .and_then(|()| workspace.read_losses(&mut losses))
            .map_err(|refused| memory.refusal(site, refused))?;
        let scores = batch.scores(&losses, &misses);
        for (index, score) in batch.sequences.clone().zip(scores) {
            scoring.record(index, score);
        }
        *done = batch.sequences.end;
    }
    Ok(())
}

/// Logits of a chunk of rows.
struct Logits<'a> {
    rows: Range<usize>,
    /// (rows, V), and whatever lies behind them.
    values: &'a dyn Values,
    vocab_size: usize,
    /// Room for one row.
    copy: &'a mut Vec<f32>,
}

impl Logits<'_> {
    fn of_row(&mut self, row: usize) -> io::Result<&[f32]> {
        let start = (row - self.rows.start) * self.vocab_size;
        on_host(self.values, start..start + self.vocab_size, self.copy)
    }
}

/// Neighbouring sequences that are computed together.
#[derive(Debug, PartialEq)]
struct Batch {
    sequences: Range<usize>,
    /// Positions of the longest.
    positions: usize,
    /// Scored rows of each sequence.
    scored: Vec<Range<usize>>,
    /// Rows that get logits, a chunk at a time.
    chunks: Vec<Range<usize>>,
}

impl Batch {
    /// The sequences from `first` on that fit `rows` rows together.
    fn from<E>(scoring: &impl Scoring<E>, first: usize, rows: usize, logits_rows: usize) -> Self {
        let (mut end, mut positions) = (first, 0);
        while end < scoring.count() && end - first < MOST_SEQUENCES {
            let longer = positions.max(scoring.positions(end));
            if end > first && (end + 1 - first) * longer > rows {
                break;
            }
            (positions, end) = (longer, end + 1);
        }
        let scored = (first..end).map(|index| {
            let (Range { start, end }, before) =
                (scoring.scored(index), (index - first) * positions);
            before + start..before + end
        });
        let scored: Vec<Range<usize>> = scored.collect();
        let chunks = chunks(&scored, logits_rows, (end - first) * positions);
        Self {
            sequences: first..end,
            positions,
            scored,
            chunks,
        }
    }

    fn span(&self) -> Span {
        Span::whole(self.sequences.len(), self.positions)
    }

    /// Makes these sequences the micro-batch, padded with token 0. Returns the targets of all rows.
    fn load<E: Recoverable>(
        &self,
        workspace: &mut Workspace,
        scoring: &impl Scoring<E>,
        memory: &Memory,
        site: Site,
    ) -> Result<Vec<u32>, E> {
        let rows = self.span().rows().len();
        let mut kept = Vec::with_capacity(rows);
        let mut read = |inputs: &mut [u32], targets: &mut [u32]| -> Result<(), E> {
            inputs.fill(0);
            targets.fill(0);
            let each = inputs.chunks_exact_mut(self.positions);
            let each = each.zip(targets.chunks_exact_mut(self.positions));
            for (index, (inputs, targets)) in self.sequences.clone().zip(each) {
                let positions = scoring.positions(index);
                scoring.read(index, &mut inputs[..positions], &mut targets[..positions])?;
            }
            kept.extend_from_slice(targets);
            Ok(())
        };
        load_rows(
            workspace,
            rows,
            BatchHeader::default(),
            &mut read,
            memory,
            site,
        )?;
        Ok(kept)
    }

    /// Compares the scored targets of some rows with their logits. A sequence with a target that is not the likeliest
    /// token becomes a miss.
    fn look(&self, mut logits: Logits, targets: &[u32], misses: &mut [bool]) -> io::Result<()> {
        let Range { start, end } = logits.rows;
        for (scored, misses) in self.scored.iter().zip(misses) {
            for row in scored.start.max(start)..scored.end.min(end) {
                *misses = *misses || !is_likeliest(logits.of_row(row)?, targets[row] as usize);
            }
        }
        Ok(())
    }

    /// Scores of the sequences, from the losses of all rows.
    fn scores(&self, losses: &[f32], misses: &[bool]) -> impl Iterator<Item = SequenceScore> {
        let scored = self.scored.iter().zip(misses);
        scored.map(|(rows, miss)| SequenceScore {
            loss: losses[rows.clone()]
                .iter()
                .map(|&loss| f64::from(loss))
                .sum(),
            tokens: rows.len(),
            is_greedy: !miss,
        })
    }
}

/// Whether the first of the largest logits is that of `target`. NaN is no logit.
fn is_likeliest(logits: &[f32], target: usize) -> bool {
    let (top, rest) = (logits[target], &logits[target + 1..]);
    logits[..target].iter().all(|&logit| logit < top) && rest.iter().all(|&logit| logit <= top)
}

/// Chunks of at most `most` of `rows` rows that cover the ranges of `scored`, which ascend.
fn chunks(scored: &[Range<usize>], most: usize, rows: usize) -> Vec<Range<usize>> {
    let mut chunks: Vec<Range<usize>> = Vec::new();
    for range in scored.iter().filter(|range| !range.is_empty()) {
        let mut start = range.start - range.start % WHOLE_ROWS;
        let end = range.end.next_multiple_of(WHOLE_ROWS).min(rows);
        if let Some(last) = chunks.last_mut() {
            start = start.max(last.end);
            if start - last.end <= GAP && end.saturating_sub(last.start) <= most {
                last.end = last.end.max(end);
                continue;
            }
        }
        while start < end {
            let stop = end.min(start + most);
            chunks.push(start..stop);
            start = stop;
        }
    }
    chunks
}
