//! The tokens that may come next, and the choice among them.

use std::cmp::Ordering;

use super::SamplingSettings;

/// The tokens that the settings leave, from the likeliest on, with weights in proportion to their probabilities.
///
/// Every filter leaves a beginning of the tokens in descending order, so that they are sorted only as far as one looks.
pub struct Candidates {
    descending: Descending,
    count: usize,
    /// The largest logit, and the temperature.
    scale: [f64; 2],
    /// The sum of the weights of the first `count` tokens.
    total: f64,
}

impl Candidates {
    /// The candidates of `logits` (V), which follow `context`. Filters apply in the order of transformers' `generate`.
    /// With temperature 0 the likeliest token is the only one; of equal ones that with the lowest id.
    pub fn new(logits: &[f32], context: &[u32], settings: &SamplingSettings) -> Self {
        let penalised = penalised(logits, context, settings.repetition_penalty);
        let logits = penalised.as_deref().unwrap_or(logits);
        let is_greedy = settings.temperature == 0.0;
        let most = if is_greedy { 1 } else { settings.top_k };
        let mut descending = Descending::new(logits, most);
        let top = descending.get(0).map_or(0.0, |(logit, _)| f64::from(logit));
        let mut candidates = Self {
            count: descending.items.len(),
            descending,
            scale: [top, settings.temperature],
            total: 0.0,
        };
        if is_greedy {
            (candidates.count, candidates.total) = (1, 1.0);
            return candidates;
        }
        if settings.top_k < logits.len() {
            candidates.count = candidates.descending.with_equals(settings.top_k);
            candidates.sum();
        } else {
            let items = candidates.descending.items.iter();
            let weights = items.map(|&(logit, _)| weight(logit, top, settings.temperature));
            candidates.total = weights.sum();
        }
        if settings.top_p < 1.0 {
            candidates.keep_mass(settings.top_p);
        }
        if settings.min_p > 0.0 {
            candidates.keep_likely(settings.min_p);
        }
        candidates
    }

    fn sum(&mut self) {
        self.total = (0..self.count).map(|index| self.weight(index)).sum();
    }

    /// Keeps a candidate if those before it have less than the share `top_p` of all weight.
    fn keep_mass(&mut self, top_p: f64) {
        let (mut count, mut mass) = (0, 0.0);
        while count < self.count && (count == 0 || mass < top_p * self.total) {
            mass += self.weight(count);
            count += 1;
        }
        (self.count, self.total) = (count, mass);
    }

    /// Keeps candidates with the share `min_p` of the first one's weight, which is 1.
    fn keep_likely(&mut self, min_p: f64) {
        let likely = (1..self.count).take_while(|&index| self.weight(index) >= min_p);
        self.count = 1 + likely.count();
        self.sum();
    }

    fn weight(&mut self, index: usize) -> f64 {
        let [top, temperature] = self.scale;
        let (logit, _) = self.descending.get(index).unwrap_or_default();
        weight(logit, top, temperature)
    }

    /// The token that `draw`, uniform in [0, 1), selects.
    pub fn choose(mut self, draw: f64) -> u32 {
        let mut left = draw * self.total;
        let mut chosen = 0;
        for index in 0..self.count {
            chosen = self.descending.get(index).map_or(0, |(_, id)| id);
            if self.count > 1 {
                left -= self.weight(index);
            }
            if left < 0.0 {
                break;
            }
        }
        chosen
    }

    /// The ids of all candidates from the likeliest on, with their probabilities.
    pub fn probabilities(mut self) -> Vec<(u32, f64)> {
        if self.count == 1 {
            return self
                .descending
                .get(0)
                .map(|(_, id)| (id, 1.0))
                .into_iter()
                .collect();
        }
        let (count, total) = (self.count, self.total);
        let probability = |index| {
            let weight = self.weight(index);
            let (_, id) = self.descending.get(index)?;
            Some((id, weight / total))
        };
        (0..count).filter_map(probability).collect()
    }
}

fn weight(logit: f32, top: f64, temperature: f64) -> f64 {
    ((f64::from(logit) - top) / temperature).exp()
}

/// The logits with those of the tokens of `context` penalised; `None` if that changes nothing.
fn penalised(logits: &[f32], context: &[u32], penalty: f64) -> Option<Vec<f32>> {
    if penalty == 1.0 {
        return None;
    }
    let mut penalised = logits.to_vec();
    for &id in context {
        // A token that comes twice is penalised once.
        if let Some((to, &logit)) = penalised.get_mut(id as usize).zip(logits.get(id as usize)) {
            let penalty = penalty as f32;
            *to = if logit < 0.0 {
                logit * penalty
            } else {
                logit / penalty
            };
        }
    }
    Some(penalised)
}

/// Logits and their ids from the largest logit on, sorted as far as they were looked at. Equal ones are in the order of
/// their ids.
struct Descending {
    items: Vec<(f32, u32)>,
    sorted: usize,
}

impl Descending {
    /// Items that are sorted first. Later there are twice as many as before at a time.
    const FIRST: usize = 64;

    /// At least the `most` largest of `logits`, and all that equal the last of them.
    fn new(logits: &[f32], most: usize) -> Self {
        let bound = bound(logits, most);
        let items = logits.iter().zip(0..);
        let items = items.filter(|(logit, _)| **logit >= bound || logit.is_nan());
        Self {
            items: items.map(|(&logit, id)| (logit, id)).collect(),
            sorted: 0,
        }
    }

    fn get(&mut self, index: usize) -> Option<(f32, u32)> {
        while self.sorted <= index && self.sorted < self.items.len() {
            let rest = &mut self.items[self.sorted..];
            let count = (2 * self.sorted).max(Self::FIRST).min(rest.len());
            if count < rest.len() {
                rest.select_nth_unstable_by(count - 1, larger_first);
            }
            rest[..count].sort_unstable_by(larger_first);
            self.sorted += count;
        }
        self.items.get(index).copied()
    }

    /// Number of items up to the last that equals number `count - 1`.
    fn with_equals(&mut self, count: usize) -> usize {
        let last = self.get(count - 1);
        let equals = |index: &usize| {
            let found = self.get(*index);
            found
                .zip(last)
                .is_some_and(|(found, last)| found.0 == last.0)
        };
        count + (count..).take_while(equals).count()
    }
}

fn larger_first(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// A number that at least `most` of the logits reach, close to the largest such: that many of the maxima of blocks do.
fn bound(logits: &[f32], most: usize) -> f32 {
    /// Blocks for every logit that is wanted: with more, fewer logits lie between the bound and the last one wanted.
    const BLOCKS: usize = 8;
    let block = logits.len() / most.saturating_mul(BLOCKS).max(1);
    if block < 2 {
        return f32::NEG_INFINITY;
    }
    let maximum = |block: &[f32]| block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut maxima: Vec<f32> = logits.chunks(block).map(maximum).collect();
    let (_, bound, _) = maxima.select_nth_unstable_by(most - 1, |a, b| b.total_cmp(a));
    *bound
}
