//! Dropout from a counter-based generator, and the residual add that it is fused with.
//!
//! The mask of an element is a function of (seed, step, sample, site, row, column): the same at every micro-batch, in
//! the forward, in the backward (for which no mask is stored), and after a resume. A kept element is scaled by 1 / (1
//! - p), as in PyTorch.

use crate::ops::backend::DropoutSite;
use crate::ops::loops::Element;
use crate::ops::loops::parallel::for_row_blocks;
use crate::ops::loops::vectorised::vectorised;
use crate::rng::{Seed, Stream, philox4x32};

/// Dropout of one micro-step.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Probability of dropping an element, in (0, 1).
    pub p: f64,
    pub seed: Seed,
    pub step: u32,
    /// Index, within the step, of the micro-batch's first sequence.
    pub first_sample: u32,
}

/// One row of a mask. Rows of one width, site and sample never share random numbers.
#[derive(Clone, Copy)]
pub(super) struct MaskRow {
    pub site: DropoutSite,
    /// Sequence, counted from the first of the micro-batch.
    pub sample: usize,
    /// Row, counted within its sample.
    pub row: usize,
    pub width: usize,
}

/// Dropout at one site.
#[derive(Clone, Copy, Debug)]
pub struct SiteDropout {
    pub dropout: Dropout,
    pub site: DropoutSite,
}

/// Mask of a block of neighbouring rows of a (B * positions, columns) array.
#[derive(Clone, Copy)]
struct MaskBlock {
    dropout: Dropout,
    site: DropoutSite,
    first_row: usize,
    positions: usize,
    columns: usize,
}

impl MaskBlock {
    /// Calls [`Dropout::for_strips`] for the whole of row `first_row + i`.
    #[inline(always)]
    fn for_strips<T: Element>(&self, i: usize, apply: impl FnMut(std::ops::Range<usize>, &[T])) {
        let row = self.first_row + i;
        let mask = MaskRow {
            site: self.site,
            sample: row / self.positions,
            row: row % self.positions,
            width: self.columns,
        };
        self.dropout.for_strips(mask, self.columns, apply);
    }
}

/// Columns masked at a time: the mask then stays in the first-level cache.
const STRIP: usize = 256;
/// Counters advanced together, so that the generator vectorises.
const LANES: usize = 16;

impl Dropout {
    /// Calls `apply(columns, factors)` for consecutive strips of the first `len` elements of a row,
    /// with factor 0 for a dropped element and 1 / (1 - p) for a kept one.
    #[inline(always)]
    pub(super) fn for_strips<T: Element>(
        &self,
        mask: MaskRow,
        len: usize,
        mut apply: impl FnMut(std::ops::Range<usize>, &[T]),
    ) {
        let mut factors = [T::ZERO; STRIP];
        // A counter yields four elements; every row starts at a counter of its own.
        let row_counter = mask.row * mask.width.div_ceil(4);
        let mut start = 0;
        while start < len {
            let end = (start + STRIP).min(len);
            let counter = (row_counter + start / 4) as u32;
            let groups = (end - start).div_ceil(4 * LANES);
            for (group, factors) in factors.chunks_exact_mut(4 * LANES).take(groups).enumerate() {
                self.draw_factors(mask, counter + (group * LANES) as u32, factors);
            }
            apply(start..end, &factors[..end - start]);
            start = end;
        }
    }

    /// Draws the factors of `4 * LANES` elements from `counter` on.
    #[inline(always)]
    fn draw_factors<T: Element>(&self, mask: MaskRow, counter: u32, out: &mut [T]) {
        let keep = T::of(1.0 / (1.0 - self.p));
        let threshold = (self.p * 2f64.powi(32)) as u32;
        let tag = self.seed.tag(Stream::Dropout, mask.site.number());
        let sample = self.first_sample + mask.sample as u32;
        let mut words = [[0u32; LANES]; 4];
        for lane in 0..LANES {
            let draw = philox4x32(
                [counter + lane as u32, sample, self.step, tag],
                self.seed.key(),
            );
            for (word, draw) in words.iter_mut().zip(draw) {
                word[lane] = draw;
            }
        }
        // Element 4 * i + w takes word w of counter i.
        for (i, out) in out.chunks_exact_mut(4).enumerate() {
            for (out, word) in out.iter_mut().zip(&words) {
                *out = if word[i] >= threshold { keep } else { T::ZERO };
            }
        }
    }
}

/// Computes `out = x + dropout(branch)`, all (R, C); the sequence of a row is `row / positions`.
pub fn residual_forward<T: Element>(
    x: &[T],
    branch: &[T],
    out: &mut [T],
    columns: usize,
    positions: usize,
    dropout: Option<SiteDropout>,
) {
    for_row_blocks(out, columns, |first_row, rows| {
        let offset = first_row * columns;
        let mask = dropout.map(|SiteDropout { dropout, site }| MaskBlock {
            dropout,
            site,
            first_row,
            positions,
            columns,
        });
        add_block(&x[offset..], &branch[offset..], rows, mask);
    });
}

vectorised! {
    fn add_block<T: Element>(x: &[T], branch: &[T], out: &mut [T], mask: Option<MaskBlock>) {
        let Some(mask) = mask else {
            for ((out, &x), &branch) in out.iter_mut().zip(x).zip(branch) {
                *out = x + branch;
            }
            return;
        };
        for (i, out) in out.chunks_exact_mut(mask.columns).enumerate() {
            let (x, branch) = (&x[i * mask.columns..], &branch[i * mask.columns..]);
            mask.for_strips(i, |strip, factors: &[T]| {
                let terms = x[strip.clone()].iter().zip(&branch[strip.clone()]);
                let terms = terms.zip(factors);
                for (out, ((&x, &branch), &factor)) in out[strip].iter_mut().zip(terms) {
                    *out = branch.mul_add(factor, x);
                }
            });
        }
    }
}

/// Multiplies `x` (R, C) by the mask of `site` in place. It is the backward of [`residual_forward`] with
/// respect to the branch, and the embedding's dropout in both directions.
pub fn mask_in_place<T: Element>(
    x: &mut [T],
    columns: usize,
    positions: usize,
    dropout: Dropout,
    site: DropoutSite,
) {
    for_row_blocks(x, columns, |first_row, rows| {
        let mask = MaskBlock {
            dropout,
            site,
            first_row,
            positions,
            columns,
        };
        multiply_block(rows, mask);
    });
}

vectorised! {
    fn multiply_block<T: Element>(x: &mut [T], mask: MaskBlock) {
        for (i, x) in x.chunks_exact_mut(mask.columns).enumerate() {
            mask.for_strips(i, |strip, factors: &[T]| {
                for (x, &factor) in x[strip].iter_mut().zip(factors) {
                    *x *= factor;
                }
            });
        }
    }
}

/// Mask of `site` for `rows` rows of one sample, as factors (rows, width) for the oracles to multiply by.
pub fn factors<T: Element>(
    dropout: Dropout,
    site: DropoutSite,
    sample: usize,
    rows: usize,
    width: usize,
) -> Vec<T> {
    let mut out = vec![T::ZERO; rows * width];
    for (row, out) in out.chunks_exact_mut(width).enumerate() {
        let mask = MaskRow {
            site,
            sample,
            row,
            width,
        };
        dropout.for_strips(mask, width, |strip, factors| {
            out[strip].copy_from_slice(factors);
        });
    }
    out
}

const _: () = assert!(STRIP.is_multiple_of(4 * LANES));
