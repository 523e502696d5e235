//! Examples of a benchmark as sequences of tokens, the longest first, so that neighbours are of one length.

use std::ops::Range;

use crate::step::scoring::SequenceScore;

/// Sequences whose last tokens are scored, and their scores.
pub(super) struct Examples {
    block_size: usize,
    /// Tokens of one sequence after the other.
    tokens: Vec<u32>,
    entries: Vec<Entry>,
    /// Sequences that lost their beginning.
    pub truncated: usize,
    /// Scores in the order in which sequences were pushed.
    pub scores: Vec<SequenceScore>,
}

struct Entry {
    tokens: Range<usize>,
    /// Scored tokens at the end.
    last: usize,
    /// Place in the order of the file.
    number: usize,
}

impl Entry {
    fn positions(&self) -> usize {
        self.tokens.len() - 1
    }
}

impl Examples {
    pub fn new(block_size: usize) -> Self {
        Self {
            block_size,
            tokens: Vec::new(),
            entries: Vec::new(),
            truncated: 0,
            scores: Vec::new(),
        }
    }

    /// Adds a sequence of at least two tokens, of which the `last` are scored. One that is too long for the model loses
    /// its beginning, as in lm-evaluation-harness.
    pub fn push(&mut self, tokens: &[u32], last: usize) {
        let most = self.block_size + 1;
        let kept = &tokens[tokens.len().saturating_sub(most)..];
        self.truncated += usize::from(kept.len() < tokens.len());
        let start = self.tokens.len();
        self.tokens.extend_from_slice(kept);
        self.entries.push(Entry {
            tokens: start..self.tokens.len(),
            last: last.min(kept.len() - 1),
            number: self.entries.len(),
        });
    }

    /// Puts the sequences in order, after the last was added.
    pub fn finish(&mut self) {
        self.entries
            .sort_by_key(|entry| std::cmp::Reverse(entry.positions()));
        let unscored = SequenceScore {
            loss: f64::NAN,
            tokens: 0,
            is_greedy: false,
        };
        self.scores = vec![unscored; self.entries.len()];
    }

    pub fn count(&self) -> usize {
        self.entries.len()
    }

    pub fn positions(&self, index: usize) -> usize {
        self.entries[index].positions()
    }

    pub fn scored(&self, index: usize) -> Range<usize> {
        let entry = &self.entries[index];
        entry.positions() - entry.last..entry.positions()
    }

    pub fn read(&self, index: usize, inputs: &mut [u32], targets: &mut [u32]) {
        let tokens = &self.tokens[self.entries[index].tokens.clone()];
        inputs.copy_from_slice(&tokens[..tokens.len() - 1]);
        targets.copy_from_slice(&tokens[1..]);
    }

    pub fn record(&mut self, index: usize, score: SequenceScore) {
        self.scores[self.entries[index].number] = score;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sequences_come_first_and_lose_their_beginning() {
        let mut examples = Examples::new(4);
        examples.push(&[1, 2, 3], 1);
        examples.push(&[1, 2, 3, 4, 5, 6], 2);
        // The scored tokens alone are too many.
        examples.push(&[1, 2, 3, 4, 5, 6, 7], 6);
        examples.push(&[1, 2, 3, 4, 5], 4);
        examples.finish();
        assert_eq!(examples.truncated, 2);
        let read = |index| {
            let mut inputs = vec![0; examples.positions(index)];
            let mut targets = inputs.clone();
            examples.read(index, &mut inputs, &mut targets);
            (inputs, targets, examples.scored(index))
        };
        assert_eq!(read(0), (vec![2, 3, 4, 5], vec![3, 4, 5, 6], 2..4));
        assert_eq!(read(1), (vec![3, 4, 5, 6], vec![4, 5, 6, 7], 0..4));
        assert_eq!(read(2), (vec![1, 2, 3, 4], vec![2, 3, 4, 5], 0..4));
        assert_eq!(read(3), (vec![1, 2], vec![2, 3], 1..2));
    }

    #[test]
    fn scores_keep_the_order_of_the_file() {
        let mut examples = Examples::new(8);
        examples.push(&[1, 2], 1);
        examples.push(&[1, 2, 3], 1);
        examples.finish();
        for (index, loss) in [(0, 7.0), (1, 8.0)] {
            let score = SequenceScore {
                loss,
                tokens: 1,
                is_greedy: true,
            };
            examples.record(index, score);
        }
        let losses: Vec<f64> = examples.scores.iter().map(|score| score.loss).collect();
        assert_eq!(losses, [8.0, 7.0]);
    }
}
