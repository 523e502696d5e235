//! Token plus position embedding: `out[b, t] = wte[token[b, t]] + wpe[t]`.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::zero_if_overwritten;
use crate::ops::backend::GradientWrite;
use crate::ops::loops::Element;
use crate::ops::loops::parallel::for_row_blocks;
use crate::ops::loops::vectorised::vectorised;

/// Computes `out` (R, C) from tokens (B, T), `wte` (V, C) and `wpe` (at least all positions, C). The position
/// of row r is `positions.start + r % positions.len()`.
pub fn forward<T: Element>(
    tokens: &[u32],
    wte: &[T],
    wpe: &[T],
    out: &mut [T],
    positions: Range<usize>,
    columns: usize,
) {
    for_row_blocks(out, columns, |first_row, rows| {
        for (i, out) in rows.chunks_exact_mut(columns).enumerate() {
            let row = first_row + i;
            let token = &wte[tokens[row] as usize * columns..][..columns];
            let position = &wpe[(positions.start + row % positions.len()) * columns..][..columns];
            for ((out, &token), &position) in out.iter_mut().zip(token).zip(position) {
                *out = token + position;
            }
        }
    });
}

/// Computes `out` (R, C) from tokens (R) at `places` (R), whose positions are `place % positions`.
pub fn forward_at<T: Element>(
    tokens: &[u32],
    places: &[u32],
    wte: &[T],
    wpe: &[T],
    out: &mut [T],
    positions: usize,
    columns: usize,
) {
    let rows = out.chunks_exact_mut(columns).zip(tokens.iter().zip(places));
    for (out, (&token, &place)) in rows {
        let token = &wte[token as usize * columns..][..columns];
        let position = &wpe[place as usize % positions * columns..][..columns];
        for ((out, &token), &position) in out.iter_mut().zip(token).zip(position) {
            *out = token + position;
        }
    }
}

/// Computes `dwte[token] += dout[row]` and `dwpe[t] += dout[row]`, each in row order: a token may occur in many
/// rows, and a fixed order keeps the sum reproducible. `write` is the way that `dwpe` is written; `dwte` is always
/// added to.
pub fn backward<T: Element>(
    tokens: &[u32],
    dout: &[T],
    dwte: &mut [T],
    dwpe: &mut [T],
    write: GradientWrite,
    positions: usize,
    columns: usize,
) {
    for (&token, dout) in tokens.iter().zip(dout.chunks_exact(columns)) {
        add(&mut dwte[token as usize * columns..][..columns], dout);
    }
    zero_if_overwritten(dwpe, write);
    for_row_blocks(&mut dwpe[..positions * columns], columns, |first, rows| {
        for sequence in dout.chunks_exact(positions * columns) {
            add(rows, &sequence[first * columns..][..rows.len()]);
        }
    });
}

vectorised! {
    fn add<T: Element>(total: &mut [T], term: &[T]) {
        for (total, &term) in total.iter_mut().zip(term) {
            *total += term;
        }
    }
}

/// Oracle of [`forward`]: tokens (B, T) -> (B, T, C).
pub fn embedding_ref(tokens: &Tensor, wte: &Tensor, wpe: &Tensor) -> Result<Tensor> {
    let (sequences, positions) = tokens.dims2()?;
    let token = wte
        .index_select(&tokens.flatten_all()?, 0)?
        .reshape((sequences, positions, ()))?;
    token.broadcast_add(&wpe.narrow(0, 0, positions)?)
}
