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
    let mut copy = Vec::new();
    while *done < scoring.count() {
        let mut batch = Batch::from(scoring, *done, most_rows, logits_rows);
        batch.load(workspace, scoring, memory, site)?;
        memory.enter(site)?;
        let (span, chunks) = (batch.span(), std::mem::take(&mut batch.chunks));
        let mut look = |rows: Range<usize>, values: &dyn Values| {
            batch.look(Logits {
                rows,
                values,
                vocab_size,
                copy: &mut copy,
            })
        };
        let look: Option<&mut LookAtLogits> = match scoring.wants_greedy() {
            true => Some(&mut look),
            false => None,
        };
        let refused = |refused| E::from(memory.refusal(site, refused));
        workspace
            .score(state, &span, &chunks, look)
            .map_err(refused)?;
        for (index, scored) in batch.sequences.zip(batch.scored) {
            let loss = workspace.sum_of_losses(scored.rows.clone());
            let score = SequenceScore {
                loss: loss.map_err(refused)?,
                tokens: scored.rows.len(),
                is_greedy: scored.is_greedy,
            };
            scoring.record(index, score);
        }
        *done = span.sequences + *done;
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
struct Batch {
    sequences: Range<usize>,
    /// Positions of the longest.
    positions: usize,
    scored: Vec<Scored>,
    /// Rows that get logits, a chunk at a time.
    chunks: Vec<Range<usize>>,
    /// Targets of the scored rows, if they are compared with logits.
    targets: Vec<u32>,
}

/// Scored rows of a sequence.
struct Scored {
    rows: Range<usize>,
    is_greedy: bool,
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
        let rows = |index: usize| {
            let (scored, before) = (scoring.scored(index), (index - first) * positions);
            before + scored.start..before + scored.end
        };
        let chunks = chunks(
            (first..end).map(rows),
            logits_rows,
            (end - first) * positions,
        );
        let scored = (first..end).map(|index| Scored {
            rows: rows(index),
            is_greedy: true,
        });
        Self {
            sequences: first..end,
            positions,
            scored: scored.collect(),
            chunks,
            targets: Vec::new(),
        }
    }

    fn span(&self) -> Span {
        Span::whole(self.sequences.len(), self.positions)
    }

    /// Makes these sequences the micro-batch, padded with token 0.
    fn load<E: Recoverable>(
        &mut self,
        workspace: &mut Workspace,
        scoring: &impl Scoring<E>,
        memory: &Memory,
        site: Site,
    ) -> Result<(), E> {
        let rows = self.span().rows().len();
        let mut read = |inputs: &mut [u32], targets: &mut [u32]| -> Result<(), E> {
            inputs.fill(0);
            targets.fill(0);
            let each = inputs.chunks_exact_mut(self.positions);
            let each = each.zip(targets.chunks_exact_mut(self.positions));
            for (index, (inputs, targets)) in self.sequences.clone().zip(each) {
                let positions = scoring.positions(index);
                scoring.read(index, &mut inputs[..positions], &mut targets[..positions])?;
                if scoring.wants_greedy() {
                    self.targets.extend(&targets[scoring.scored(index)]);
                }
            }
            Ok(())
        };
        let header = BatchHeader::default();
        load_rows(workspace, rows, header, &mut read, memory, site)
    }

    /// Compares the scored targets of some rows with their logits.
    fn look(&mut self, mut logits: Logits) -> io::Result<()> {
        let chunk = logits.rows.clone();
        let mut before = 0;
        for Scored { rows, is_greedy } in &mut self.scored {
            for row in rows.start.max(chunk.start)..rows.end.min(chunk.end) {
                let target = self.targets[before + row - rows.start] as usize;
                *is_greedy = *is_greedy && is_likeliest(logits.of_row(row)?, target);
            }
            before += rows.len();
        }
        Ok(())
    }
}

/// Whether the first of the largest logits is that of `target`. NaN is no logit.
fn is_likeliest(logits: &[f32], target: usize) -> bool {
    let (top, rest) = (logits[target], &logits[target + 1..]);
    logits[..target].iter().all(|&logit| logit < top) && rest.iter().all(|&logit| logit <= top)
}

/// Chunks of at most `most` of `rows` rows that cover the ranges of `scored`, which ascend.
fn chunks(
    scored: impl Iterator<Item = Range<usize>>,
    most: usize,
    rows: usize,
) -> Vec<Range<usize>> {
    let most = if most > WHOLE_ROWS {
        most - most % WHOLE_ROWS
    } else {
        most
    };
    let mut chunks: Vec<Range<usize>> = Vec::new();
    for range in scored.filter(|range| !range.is_empty()) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_of_equal_logits_is_the_likeliest() {
        let nan = f32::NAN;
        assert!(is_likeliest(&[1.0, 2.0, 2.0], 1));
        assert!(!is_likeliest(&[1.0, 2.0, 2.0], 2));
        assert!(!is_likeliest(&[3.0, 2.0], 1));
        assert!(!is_likeliest(&[1.0, nan], 1) && !is_likeliest(&[1.0, nan], 0));
    }

    #[test]
    fn near_rows_share_a_chunk_and_distant_ones_do_not() {
        let of = |scored: &[Range<usize>]| chunks(scored.iter().cloned(), 64, 200);
        assert_eq!(of(&[9..11, 20..21]), [8..24]);
        assert_eq!(of(&[9..11, 60..61]), [8..16, 56..64]);
        // No chunk is longer than the buffer of logits, and none ends behind the last row.
        assert_eq!(of(&[0..100]), [0..64, 64..104]);
        assert_eq!(of(&[190..200]), [184..200]);
        assert!(of(&[5..5]).is_empty());
    }

    proptest! {
        #[test]
        fn chunks_cover_every_scored_row_once_and_fit(
            lengths in prop::collection::vec((0..40usize, 0..40usize), 1..20), most in 1..100usize,
        ) {
            let mut end = 0;
            let scored = lengths.iter().map(|(gap, length)| {
                let start = end + gap;
                end = start + length;
                start..end
            });
            let scored: Vec<Range<usize>> = scored.collect();
            let chunks = chunks(scored.iter().cloned(), most, end);
            for pair in chunks.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
            }
            for chunk in &chunks {
                prop_assert!((1..=most).contains(&chunk.len()) && chunk.end <= end);
            }
            for row in scored.into_iter().flatten() {
                prop_assert!(chunks.iter().any(|chunk| chunk.contains(&row)), "{row}: {chunks:?}");
            }
        }
    }
}
