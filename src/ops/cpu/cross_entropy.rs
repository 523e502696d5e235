//! Softmax cross-entropy of rows of logits: `loss = log(sum(exp(logits))) - logits[target]`, in nats.

use candle_core::{D, Result, Tensor};

use crate::ops::loops::Element;
use crate::ops::loops::element::{max, sum};
use crate::ops::loops::parallel::for_row_blocks2;
use crate::ops::loops::vectorised::vectorised;

/// Writes the loss of every row into `losses` (R). `logits` (R, V) are overwritten; `targets` are (R).
pub fn losses<T: Element>(logits: &mut [T], targets: &[u32], losses: &mut [T]) {
    let vocab = logits.len() / losses.len();
    for_row_blocks2(logits, vocab, losses, 1, |first, logits, losses| {
        cross_entropies(logits, &targets[first..], losses);
    });
}

/// Writes the losses, as [`losses`] does; the logits become `scale * (softmax(logits) - onehot(target))`.
pub fn losses_and_gradients<T: Element>(
    logits: &mut [T],
    targets: &[u32],
    scale: T,
    losses: &mut [T],
) {
    let vocab = logits.len() / losses.len();
    for_row_blocks2(logits, vocab, losses, 1, |first, logits, losses| {
        into_gradients(logits, &targets[first..], scale, losses);
    });
}

/// Returns the loss of one row, and the sum of `exp(logit - max)`, which its logits become.
#[inline(always)]
fn cross_entropy<T: Element>(row: &mut [T], target: u32) -> (T, T) {
    let top = max(row);
    let shifted = row[target as usize] - top;
    for x in row.iter_mut() {
        *x = (*x - top).exp();
    }
    let total = sum([row], |[x]| x);
    (total.ln() - shifted, total)
}

vectorised! {
    fn cross_entropies<T: Element>(logits: &mut [T], targets: &[u32], losses: &mut [T]) {
        let rows = logits.chunks_exact_mut(logits.len() / losses.len());
        for ((row, &target), loss) in rows.zip(targets).zip(losses) {
            *loss = cross_entropy(row, target).0;
        }
    }
}

vectorised! {
    /// Writes the losses of a block of rows; their logits become `scale * (softmax - onehot)`.
    fn into_gradients<T: Element>(logits: &mut [T], targets: &[u32], scale: T, losses: &mut [T]) {
        let rows = logits.chunks_exact_mut(logits.len() / losses.len());
        for ((row, &target), loss) in rows.zip(targets).zip(losses) {
            let (row_loss, total) = cross_entropy(row, target);
            *loss = row_loss;
            let factor = scale / total;
            for x in row.iter_mut() {
                *x *= factor;
            }
            row[target as usize] -= scale;
        }
    }
}

/// Oracle of [`losses`]: the loss of every row (R) of `logits` (R, V) with `targets` (R).
pub fn cross_entropy_ref(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let log_probabilities = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    log_probabilities
        .gather(&targets.unsqueeze(1)?, 1)?
        .squeeze(1)?
        .neg()
}
