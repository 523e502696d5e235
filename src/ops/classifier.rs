//! The fused, chunked classifier: logits, softmax cross-entropy and both gradients, a chunk of
//! rows at a time, so that the (R, V) logits never exist as a whole.
//!
//! `logits = x wte^T`, `loss[r] = log(sum(exp(logits[r]))) - logits[r, target[r]]`,
//! `dlogits = scale * (softmax(logits) - onehot(target))`.

use candle_core::{D, Result, Tensor};

use super::Element;
use super::element::{max, sum};
use super::gemm::cpu::Operands;
use super::gemm::{Epilogue, Inputs, Problem, Products};
use super::parallel::for_row_blocks2;
use super::vectorised::vectorised;

/// The tied head and its chunk of scratch.
pub struct Classifier<'a, T: Element> {
    pub products: &'a Products<T>,
    /// Token embedding, (V, C).
    pub wte: &'a [T],
    /// Scratch for (chunk, V) logits, chunk >= 1.
    pub logits: &'a mut [T],
    pub columns: usize,
}

impl<T: Element> Classifier<'_, T> {
    fn vocab(&self) -> usize {
        self.wte.len() / self.columns
    }

    fn chunk_rows(&self) -> usize {
        self.logits.len() / self.vocab()
    }

    /// The loss of every row into `losses` (R), in nats; `x` is (R, C).
    pub fn losses(&mut self, x: &[T], targets: &[u32], losses: &mut [T]) {
        let (columns, vocab, chunk) = (self.columns, self.vocab(), self.chunk_rows());
        let chunks = x.chunks(chunk * columns).zip(targets.chunks(chunk));
        for ((x, targets), losses) in chunks.zip(losses.chunks_mut(chunk)) {
            let logits = self.logits_of(x);
            for_row_blocks2((logits, vocab), (losses, 1), |first, logits, losses| {
                cross_entropies(logits, &targets[first..], losses);
            });
        }
    }

    /// As [`Classifier::losses`], and for the summed loss times `scale`: `dx` (R, C) is replaced,
    /// `dwte` (V, C) is added to.
    pub fn losses_and_gradients(
        &mut self,
        x: &[T],
        targets: &[u32],
        scale: T,
        losses: &mut [T],
        (dx, dwte): (&mut [T], &mut [T]),
    ) {
        let (columns, vocab, chunk) = (self.columns, self.vocab(), self.chunk_rows());
        let (products, wte) = (self.products, self.wte);
        let inputs = x.chunks(chunk * columns).zip(targets.chunks(chunk));
        let outputs = losses.chunks_mut(chunk).zip(dx.chunks_mut(chunk * columns));
        for ((x, targets), (losses, dx)) in inputs.zip(outputs) {
            let logits = self.logits_of(x);
            for_row_blocks2((logits, vocab), (losses, 1), |first, logits, losses| {
                into_gradients(logits, &targets[first..], scale, losses);
            });
            let (rows, none) = (targets.len(), Epilogue::None);
            let problem = Problem::input_gradient(rows, vocab, columns, Inputs::Float32, none);
            products.compute(problem, Operands::new(logits, wte, dx));
            let problem = Problem::weight_gradient(rows, vocab, columns, Inputs::Float32);
            products.compute(problem, Operands::new(logits, x, dwte));
        }
    }

    /// The logits (rows, V) of at most a chunk of rows `x`, in the scratch.
    pub fn logits_of(&mut self, x: &[T]) -> &mut [T] {
        let (columns, vocab) = (self.columns, self.vocab());
        let rows = x.len() / columns;
        let logits = &mut self.logits[..rows * vocab];
        let problem = Problem::forward(rows, vocab, columns, Inputs::Float32, Epilogue::None);
        let operands = Operands::new(x, self.wte, logits);
        self.products.compute(problem, operands);
        logits
    }
}

/// The loss of one row; its logits become `exp(logit - max)`. Also returns their sum.
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
    /// The losses of a block of rows; their logits become `scale * (softmax - onehot)`.
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

/// The oracle: the loss of every row (R) for `x` (R, C), `wte` (V, C), `targets` (R).
pub fn classifier_ref(x: &Tensor, wte: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let logits = x.matmul(&wte.t()?)?;
    let log_probabilities = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    log_probabilities
        .gather(&targets.unsqueeze(1)?, 1)?
        .squeeze(1)?
        .neg()
}
