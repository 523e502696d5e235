//! What a matrix product is, whatever computes it.
//!
//! `C (M, N) = op(A) (M, K) x op(B) (K, N)`, everything row-major. In training:
//!
//! | product | C | op(A) | op(B) |
//! |---|---|---|---|
//! | forward `y = x W^T` | (R, out) | `x` as is | `W` transposed |
//! | `dX = dY W` | (R, in) | `dY` as is | `W` as is |
//! | `dW += dY^T X` | (out, in) | `dY` transposed | `X` as is |

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::candidate::Operand;
use crate::terms::{Gelu, Inputs, ModelDims, Rung};

/// All that decides which code can compute a product, and how fast. The key of tuning.
///
/// Row strides are the operands' affair: they may exceed the width of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Problem {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Stored,
    pub b: Stored,
    pub inputs: Inputs,
    pub output: OutputType,
    /// Added to what C holds, instead of replacing it.
    pub accumulate: bool,
    pub epilogue: Epilogue,
}

/// How an operand lies in memory, row-major: A as (M, K) or (K, M), B as (K, N) or (N, K).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stored {
    AsIs,
    Transposed,
}

/// The type of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputType {
    Float32,
    LikeInputs,
}

/// What is done to C on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Epilogue {
    None,
    /// Adds a bias (N) to every row.
    Bias,
    /// Adds a bias (N) to every row and writes two matrices: the sum, `aux` (M, N), and its activation, C.
    BiasGelu(Gelu),
    /// Multiplies by the activation's slope at `aux` (M, N).
    GeluBackward(Gelu),
}

impl Problem {
    /// `y (R, out) = x (R, in) W^T`, with W stored (out, in).
    pub fn forward(
        rows: usize,
        outputs: usize,
        columns: usize,
        inputs: Inputs,
        epilogue: Epilogue,
    ) -> Self {
        Self {
            m: rows,
            n: outputs,
            k: columns,
            a: Stored::AsIs,
            b: Stored::Transposed,
            inputs,
            output: OutputType::LikeInputs,
            accumulate: false,
            epilogue,
        }
    }

    /// `dX (R, in) = dY (R, out) W`, with W stored (out, in).
    pub fn input_gradient(
        rows: usize,
        outputs: usize,
        columns: usize,
        inputs: Inputs,
        epilogue: Epilogue,
    ) -> Self {
        Self {
            m: rows,
            n: columns,
            k: outputs,
            b: Stored::AsIs,
            ..Self::forward(rows, outputs, columns, inputs, epilogue)
        }
    }

    /// `dW (out, in) += dY^T X`, in fp32.
    pub fn weight_gradient(rows: usize, outputs: usize, columns: usize, inputs: Inputs) -> Self {
        Self {
            m: outputs,
            n: columns,
            k: rows,
            a: Stored::Transposed,
            b: Stored::AsIs,
            inputs,
            output: OutputType::Float32,
            accumulate: true,
            epilogue: Epilogue::None,
        }
    }

    /// Every product of a training step but those inside attention, by name and in the order of the
    /// step. Two names may stand for one problem.
    pub fn of_training(
        dims: &ModelDims,
        rung: Rung,
        inputs: Inputs,
    ) -> Vec<(&'static str, Problem)> {
        let (c, v, rows) = (
            dims.n_embd,
            dims.vocab_size,
            rung.micro_batch * dims.block_size,
        );
        let (bias, bias_gelu) = match dims.bias {
            true => (Epilogue::Bias, Epilogue::BiasGelu(dims.gelu)),
            // Without a bias the activation is an operation of its own.
            false => (Epilogue::None, Epilogue::None),
        };
        let slope = Epilogue::GeluBackward(dims.gelu);
        let forward =
            |outputs, columns, epilogue| Self::forward(rows, outputs, columns, inputs, epilogue);
        let dx = |outputs, columns, epilogue| {
            Self::input_gradient(rows, outputs, columns, inputs, epilogue)
        };
        let dw = |outputs, columns| Self::weight_gradient(rows, outputs, columns, inputs);
        let chunk = rung.logits_rows.min(rows);
        let head = |rows| {
            [
                Self::forward(rows, v, c, inputs, Epilogue::None),
                Self::input_gradient(rows, v, c, inputs, Epilogue::None),
                Self::weight_gradient(rows, v, c, inputs),
            ]
        };
        let mut problems = vec![
            ("c_attn", forward(3 * c, c, bias)),
            ("attn.c_proj", forward(c, c, bias)),
            ("c_fc", forward(4 * c, c, bias_gelu)),
            ("mlp.c_proj", forward(c, 4 * c, bias)),
        ];
        problems.extend(
            ["logits", "logits dX", "logits dW"]
                .into_iter()
                .zip(head(chunk)),
        );
        if !rows.is_multiple_of(chunk) {
            let names = ["last logits", "last logits dX", "last logits dW"];
            problems.extend(names.into_iter().zip(head(rows % chunk)));
        }
        problems.extend([
            ("mlp.c_proj dW", dw(c, 4 * c)),
            ("mlp.c_proj dX", dx(c, 4 * c, slope)),
            ("c_fc dW", dw(4 * c, c)),
            ("c_fc dX", dx(4 * c, c, Epilogue::None)),
            ("attn.c_proj dW", dw(c, c)),
            ("attn.c_proj dX", dx(c, c, Epilogue::None)),
            ("c_attn dW", dw(3 * c, c)),
            ("c_attn dX", dx(3 * c, c, Epilogue::None)),
        ]);
        problems
    }

    /// How often a micro-step computes the product of this name in [`Problem::of_training`]; what is
    /// recomputed is not counted again.
    pub fn times_per_micro_step(name: &str, dims: &ModelDims, rung: Rung) -> usize {
        let rows = rung.micro_batch * dims.block_size;
        match name.split(' ').next() {
            Some("logits") => rows / rung.logits_rows.min(rows),
            Some("last") => 1,
            _ => dims.n_layer,
        }
    }

    /// Rows and columns of A in memory.
    pub fn a_shape(&self) -> (usize, usize) {
        match self.a {
            Stored::AsIs => (self.m, self.k),
            Stored::Transposed => (self.k, self.m),
        }
    }

    /// Rows and columns of B in memory.
    pub fn b_shape(&self) -> (usize, usize) {
        match self.b {
            Stored::AsIs => (self.k, self.n),
            Stored::Transposed => (self.n, self.k),
        }
    }

    /// The operands that a candidate writes.
    pub fn writes(&self) -> &'static [Operand] {
        match self.epilogue {
            Epilogue::BiasGelu(_) => &[Operand::C, Operand::Aux],
            _ => &[Operand::C],
        }
    }

    /// Multiplications and additions; those of the epilogue are not counted.
    pub fn flops(&self) -> u64 {
        2 * (self.m * self.n * self.k) as u64
    }

    /// Bytes that are read or written at the least: every matrix once, C twice where it is added to.
    pub fn bytes(&self) -> u64 {
        let element = self.inputs.element_bytes();
        let (m, n, k) = (self.m as u64, self.n as u64, self.k as u64);
        let output = match self.output {
            OutputType::Float32 => 4,
            OutputType::LikeInputs => element,
        };
        let epilogue = match self.epilogue {
            Epilogue::None => 0,
            Epilogue::Bias => n * element,
            Epilogue::BiasGelu(_) => (n + m * n) * element,
            Epilogue::GeluBackward(_) => m * n * element,
        };
        let passes = 1 + u64::from(self.accumulate);
        (m * k + k * n) * element + passes * m * n * output + epilogue
    }
}

/// `8192 x 2304 x 768 NT bfloat16, bias`: M, N, K; whether A and B are as they are (N) or transposed (T).
impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let letter = |stored| match stored {
            Stored::AsIs => 'N',
            Stored::Transposed => 'T',
        };
        let (a, b) = (letter(self.a), letter(self.b));
        write!(
            f,
            "{} x {} x {} {a}{b} {}",
            self.m, self.n, self.k, self.inputs
        )?;
        if self.output == OutputType::Float32 && self.inputs.element_bytes() != 4 {
            f.write_str(" to float32")?;
        }
        if self.accumulate {
            f.write_str(", added")?;
        }
        match self.epilogue {
            Epilogue::None => Ok(()),
            Epilogue::Bias => f.write_str(", bias"),
            Epilogue::BiasGelu(_) => f.write_str(", bias and GELU"),
            Epilogue::GeluBackward(_) => f.write_str(", slope of GELU"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::Recompute;

    const DIMS: ModelDims = ModelDims {
        n_layer: 2,
        n_head: 2,
        n_embd: 16,
        block_size: 32,
        vocab_size: 50,
        bias: true,
        dropout: 0.0,
        gelu: Gelu::Tanh,
    };

    fn rung(logits_rows: usize) -> Rung {
        Rung {
            micro_batch: 4,
            recompute: Recompute::None,
            logits_rows,
        }
    }

    #[test]
    fn a_step_does_three_products_per_weight_and_six_flops_per_weight_and_row() {
        let problems = Problem::of_training(&DIMS, rung(64), Inputs::Bfloat16);
        assert_eq!(problems.len(), 5 * 3);
        let (c, rows, chunk) = (16, 4 * 32, 64);
        let flops: u64 = problems.iter().map(|(_, problem)| problem.flops()).sum();
        assert_eq!(
            flops,
            6 * (12 * c * c * rows + DIMS.vocab_size as u64 * c * chunk)
        );
    }

    #[test]
    fn a_micro_step_does_six_flops_per_weight_and_row() {
        let rung = rung(100);
        let flops = |(name, problem): &(&str, Problem)| {
            problem.flops() * Problem::times_per_micro_step(name, &DIMS, rung) as u64
        };
        let problems = Problem::of_training(&DIMS, rung, Inputs::Bfloat16);
        let (c, rows) = (16, 4 * 32);
        let weights = 2 * 12 * c * c + DIMS.vocab_size as u64 * c;
        assert_eq!(problems.iter().map(flops).sum::<u64>(), 6 * weights * rows);
    }

    #[test]
    fn what_is_left_of_the_rows_after_whole_chunks_is_a_problem_of_its_own() {
        let problems = Problem::of_training(&DIMS, rung(100), Inputs::Float32);
        let find = |wanted| problems.iter().find(|(name, _)| *name == wanted);
        assert_eq!(find("logits").map(|(_, problem)| problem.m), Some(100));
        assert_eq!(find("last logits").map(|(_, problem)| problem.m), Some(28));
        assert_eq!(
            find("last logits dW").map(|(_, problem)| problem.k),
            Some(28)
        );
        assert!(
            problems.iter().all(|(name, _)| problems
                .iter()
                .filter(|(other, _)| other == name)
                .count()
                == 1)
        );
    }

    #[test]
    fn a_model_without_biases_has_none_in_its_products() {
        let dims = ModelDims {
            bias: false,
            ..DIMS
        };
        for (name, problem) in Problem::of_training(&dims, rung(64), Inputs::Bfloat16) {
            let slope = name == "mlp.c_proj dX";
            assert_eq!(problem.epilogue != Epilogue::None, slope, "{name}");
        }
    }

    #[test]
    fn bytes_count_every_matrix_once_and_an_accumulator_twice() {
        let [m, n, k] = [8, 4, 2];
        let forward = Problem::forward(m, n, k, Inputs::Bfloat16, Epilogue::None);
        assert_eq!(forward.bytes() as usize, 2 * (m * k + k * n + m * n));
        let gelu = Epilogue::BiasGelu(Gelu::Tanh);
        let gelu = Problem::forward(m, n, k, Inputs::Bfloat16, gelu);
        assert_eq!(gelu.bytes() as usize, 2 * (m * k + k * n + 2 * m * n + n));
        let gradient = Problem::weight_gradient(k, m, n, Inputs::Bfloat16);
        assert_eq!(
            gradient.bytes() as usize,
            2 * (m * k + k * n) + 2 * 4 * m * n
        );
    }
}
