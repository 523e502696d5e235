//! Least work of each operation, bytes or arithmetic, by the sizes of its operands.
//!
//! Basis of the rates of operations in `taper bench step`. Other counts: `plan/throughput.rs` predicts times to rank
//! rungs, `metrics::flops_per_token` is nanoGPT's formula for the utilization of a run, and
//! `ops::gemm::Problem::flops` counts one GEMM.

use std::ops::Range;

use super::spent::Work;
use crate::ops::backend::Shape;
use crate::terms::{ModelDims, Precision};

/// Bytes of an fp32 element, and of a token id.
const FULL_BYTES: usize = 4;

/// GEMMs in attention's forward: `Q K^T` and `P V`.
pub(super) const ATTENTION_PRODUCTS: usize = 2;

/// GEMMs in attention's backward, which recomputes the weights: `Q K^T` again, `dP`, `dV`, `dQ` and `dK`.
pub(super) const ATTENTION_BACKWARD_PRODUCTS: usize = 5;

/// Sizes of the model that the operands of operations do not tell.
pub(super) struct Sizes {
    precision: Precision,
    parameters: usize,
    vocabulary: usize,
    /// Place among the parameters of the embedding, which is the classifier's weight.
    classifier: Range<usize>,
}

impl Sizes {
    pub fn new(dims: &ModelDims, parameters: usize, precision: Precision) -> Self {
        Self {
            precision,
            parameters,
            vocabulary: dims.vocab_size,
            classifier: 0..dims.vocab_size * dims.n_embd,
        }
    }

    /// Whether the parameters in `weight` are the classifier's.
    pub fn is_classifier(&self, weight: &Range<usize>) -> bool {
        *weight == self.classifier
    }

    /// Work of moving `compute` elements in the precision that the model computes in, and `full` elements in fp32 or
    /// ids.
    pub fn moved(&self, compute: usize, full: usize) -> Work {
        let compute_bytes = compute as u64 * self.precision.element_bytes();
        Work {
            bytes: compute_bytes + (full * FULL_BYTES) as u64,
            flops: 0,
        }
    }

    /// Work of setting all gradients to zero.
    pub fn zeroing(&self) -> Work {
        self.moved(0, self.parameters)
    }

    /// Work of an update: it reads gradients for their norm and once more, reads and writes weights and moments, and
    /// writes the weights of lower precision if there are any.
    pub fn update(&self) -> Work {
        let copies = if self.precision.is_mixed() {
            self.parameters
        } else {
            0
        };
        self.moved(copies, (2 + 3 * 2) * self.parameters)
    }

    /// Expected number of distinct tokens in `rows` rows, if tokens are drawn uniformly, as a bench draws them.
    pub fn distinct_tokens(&self, rows: usize) -> usize {
        let all = self.vocabulary as f64;
        (all * (1.0 - (1.0 - 1.0 / all).powf(rows as f64))).round() as usize
    }
}

/// Work of the GEMM of (rows, columns) and (columns, outputs), in any order of the three; `values` is
/// rows * columns.
pub(super) fn product(values: usize, outputs: usize) -> Work {
    Work {
        bytes: 0,
        flops: 2 * (values * outputs) as u64,
    }
}

/// Work of `products` GEMMs over every pair of a query and a key that it sees.
pub(super) fn attention(shape: Shape, queries: Range<usize>, products: usize) -> Work {
    // Query number t sees t + 1 keys.
    let pairs = (queries.start + 1 + queries.end) * queries.len() / 2;
    let per_product = 2 * shape.sequences * shape.heads * shape.head_size * pairs;
    Work {
        bytes: 0,
        flops: (products * per_product) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::Gelu;

    fn sizes(precision: Precision) -> Sizes {
        let dims = ModelDims {
            n_layer: 2,
            n_head: 2,
            n_embd: 16,
            block_size: 32,
            vocab_size: 50,
            bias: true,
            dropout: 0.0,
            gelu: Gelu::Tanh,
        };
        Sizes::new(&dims, 1000, precision)
    }

    #[test]
    fn an_update_moves_32_bytes_per_parameter_and_2_for_a_copy() {
        let single = sizes(Precision::Float32);
        let parameters = single.parameters as u64;
        assert_eq!(single.update().bytes, 32 * parameters);
        let mixed = sizes(Precision::Bfloat16);
        assert_eq!(mixed.update().bytes, 34 * parameters);
    }

    #[test]
    fn attention_counts_what_is_seen() {
        let shape = Shape {
            sequences: 3,
            positions: 4,
            heads: 2,
            head_size: 8,
        };
        // 1 + 2 + 3 + 4 pairs.
        let whole = attention(shape, 0..4, 1).flops;
        assert_eq!(whole, 2 * 3 * 2 * 8 * 10);
        let last = attention(shape, 3..4, 1).flops;
        assert_eq!(last, 2 * 3 * 2 * 8 * 4);
    }

    #[test]
    fn tokens_repeat_as_they_do_when_drawn_uniformly() {
        let sizes = sizes(Precision::Float32);
        assert_eq!(sizes.distinct_tokens(1), 1);
        // 50 (1 - 0.98^50) = 31.8.
        assert_eq!(sizes.distinct_tokens(50), 32);
        assert_eq!(sizes.distinct_tokens(100_000), 50);
    }
}
