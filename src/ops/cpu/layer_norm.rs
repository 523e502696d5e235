//! Layer normalisation: `out = (x - mean) * rstd * weight + bias` for every row.
//!
//! mean and variance (biased) are over the C channels, `rstd = 1 / sqrt(variance + 1e-5)`
//! (Ba et al. 2016; PyTorch's `layer_norm`). Saved for the backward: mean and rstd, (R) each.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::zero_if_overwritten;
use crate::ops::backend::GradientWrite;
use crate::ops::loops::Element;
use crate::ops::loops::element::sum;
use crate::ops::loops::parallel::BLOCK_ROWS;
use crate::ops::loops::vectorised::vectorised;

/// GPT-2's epsilon.
pub const EPSILON: f64 = 1e-5;

/// Statistics of every row for the backward, (R) each.
pub struct NormStatsSlices<'a, T> {
    pub mean: &'a mut [T],
    pub rstd: &'a mut [T],
}

/// Normalises the rows of `x` into `out`, (R, C) each; `weight` and `bias` are (C).
pub fn forward<T: Element>(
    x: &[T],
    weight: &[T],
    bias: Option<&[T]>,
    out: &mut [T],
    stats: NormStatsSlices<T>,
) {
    let columns = weight.len();
    (
        out.par_chunks_mut(BLOCK_ROWS * columns),
        x.par_chunks(BLOCK_ROWS * columns),
        stats.mean.par_chunks_mut(BLOCK_ROWS),
        stats.rstd.par_chunks_mut(BLOCK_ROWS),
    )
        .into_par_iter()
        .for_each(|(out, x, mean, rstd)| {
            normalise(x, weight, bias, out, NormStatsSlices { mean, rstd });
        });
}

vectorised! {
    fn normalise<T: Element>(
        x: &[T],
        weight: &[T],
        bias: Option<&[T]>,
        out: &mut [T],
        stats: NormStatsSlices<T>,
    ) {
        let columns = weight.len();
        let rows = out.chunks_exact_mut(columns).zip(x.chunks_exact(columns));
        for (((out, x), mean), rstd) in rows.zip(stats.mean).zip(stats.rstd) {
            (*mean, *rstd) = normalise_row(x, weight, bias, out);
        }
    }
}

/// Normalises one row, and returns its mean and reciprocal deviation.
#[inline(always)]
fn normalise_row<T: Element>(x: &[T], weight: &[T], bias: Option<&[T]>, out: &mut [T]) -> (T, T) {
    let columns = x.len();
    let scale = T::ONE / T::of(columns as f64);
    let mean = sum([x], |[x]| x) * scale;
    let variance = sum([x], |[x]| (x - mean) * (x - mean)) * scale;
    let rstd = T::ONE / (variance + T::of(EPSILON)).sqrt();
    match bias {
        Some(bias) => {
            for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = ((x - mean) * rstd).mul_add(w, b);
            }
        }
        None => {
            for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
                *out = (x - mean) * rstd * w;
            }
        }
    }
    (mean, rstd)
}

/// Inputs and saved results of the forward.
#[derive(Clone, Copy)]
pub struct NormSavedSlices<'a, T> {
    pub x: &'a [T],      // (R, C)
    pub weight: &'a [T], // (C)
    pub mean: &'a [T],   // (R)
    pub rstd: &'a [T],   // (R)
}

/// Elements of the `partials` that [`backward`] needs for `rows` rows.
pub fn partials_len(rows: usize, columns: usize) -> usize {
    rows.div_ceil(BLOCK_ROWS) * 2 * columns
}

/// Adds the gradient through the normalisation to `dx` (R, C), and those of the weight and the bias to `dweight`
/// and `dbias` (C), or overwrites the latter two, by `write`.
///
/// With g = dout * weight and n = (x - mean) * rstd:
/// `dx += rstd * (g - mean(g) - n * mean(g * n))`, `dweight += sum(dout * n)` and
/// `dbias += sum(dout)`.
/// `partials` is scratch of [`partials_len`] elements.
pub fn backward<T: Element>(
    dout: &[T],
    saved: NormSavedSlices<T>,
    dx: &mut [T],
    dweight: &mut [T],
    dbias: Option<&mut [T]>,
    write: GradientWrite,
    partials: &mut [T],
) {
    let columns = saved.weight.len();
    let block = BLOCK_ROWS * columns;
    (
        dx.par_chunks_mut(block),
        dout.par_chunks(block),
        saved.x.par_chunks(block),
        partials.par_chunks_mut(2 * columns),
    )
        .into_par_iter()
        .enumerate()
        .for_each(|(index, (dx, dout, x, partial))| {
            let rows = index * BLOCK_ROWS..;
            let (mean, rstd) = (&saved.mean[rows.clone()], &saved.rstd[rows]);
            let saved = NormSavedSlices {
                x,
                mean,
                rstd,
                ..saved
            };
            backward_block(dout, saved, dx, partial);
        });
    let blocks = saved.mean.len().div_ceil(BLOCK_ROWS);
    zero_if_overwritten(dweight, write);
    add_partials(dweight, &partials[..blocks * 2 * columns], 0);
    if let Some(dbias) = dbias {
        zero_if_overwritten(dbias, write);
        add_partials(dbias, &partials[..blocks * 2 * columns], columns);
    }
}

vectorised! {
    /// Computes the backward of a block of at most `BLOCK_ROWS` rows. `partial` (2, C) is its share of dweight, then
    /// of dbias.
    fn backward_block<T: Element>(dout: &[T], saved: NormSavedSlices<T>, dx: &mut [T], partial: &mut [T]) {
        let columns = saved.weight.len();
        partial.fill(T::ZERO);
        let gradients = dx.chunks_exact_mut(columns).zip(dout.chunks_exact(columns));
        for (row, ((dx, dout), x)) in gradients.zip(saved.x.chunks_exact(columns)).enumerate() {
            let (mean, rstd) = (saved.mean[row], saved.rstd[row]);
            backward_row(dout, x, saved.weight, mean, rstd, dx, partial);
        }
    }
}

/// Computes the backward of one row, and adds its share to `partial` (2, C).
#[inline(always)]
fn backward_row<T: Element>(
    dout: &[T],
    x: &[T],
    weight: &[T],
    mean: T,
    rstd: T,
    dx: &mut [T],
    partial: &mut [T],
) {
    let columns = x.len();
    // One length for every slice lets the bounds checks of the loops below vanish.
    let (dout, weight) = (&dout[..columns], &weight[..columns]);
    let (dweight, dbias) = partial.split_at_mut(columns);
    let dbias = &mut dbias[..columns];
    let dx = &mut dx[..columns];
    let scale = T::ONE / T::of(columns as f64);
    let mean_g = sum([dout, weight], |[d, w]| d * w) * scale;
    let mean_gn = sum([dout, weight, x], |[d, w, x]| d * w * (x - mean)) * rstd * scale;
    for i in 0..columns {
        let n = (x[i] - mean) * rstd;
        dx[i] += rstd * (dout[i] * weight[i] - mean_g - n * mean_gn);
    }
    for i in 0..columns {
        dweight[i] += dout[i] * ((x[i] - mean) * rstd);
        dbias[i] += dout[i];
    }
}

/// Adds the C elements from `offset` of every (2C) row of `partials` to `total` (C), in row order.
fn add_partials<T: Element>(total: &mut [T], partials: &[T], offset: usize) {
    let columns = total.len();
    for partial in partials.chunks_exact(2 * columns) {
        for (total, &value) in total.iter_mut().zip(&partial[offset..]) {
            *total += value;
        }
    }
}

/// Oracle of [`forward`]: the same formula in differentiable candle operations.
///
/// Not `candle_nn::LayerNorm`: its fused path has no backward, and gradients stop there silently.
pub fn layer_norm_ref(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
    let scaled = normal.broadcast_mul(weight)?;
    match bias {
        Some(bias) => scaled.broadcast_add(bias),
        None => Ok(scaled),
    }
}
