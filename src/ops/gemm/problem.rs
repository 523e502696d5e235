//! A GEMM, whatever computes it.
//!
//! `C (M, N) = op(A) (M, K) x op(B) (K, N)`, everything row-major. In training:
//!
//! | GEMM | C | op(A) | op(B) |
//! |---|---|---|---|
//! | forward `y = x W^T` | (R, out) | `x` as is | `W` transposed |
//! | `dX = dY W` | (R, in) | `dY` as is | `W` as is |
//! | `dW += dY^T X` | (out, in) | `dY` transposed | `X` as is |

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::candidate::Operand;
use crate::terms::{Gelu, Inputs, Precision};

/// Everything that decides which code can compute a GEMM, and how fast: the key of tuning.
///
/// Row strides belong to the operands. They may exceed the width of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Problem {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Layout,
    pub b: Layout,
    pub inputs: Inputs,
    pub output: OutputType,
    /// Accumulate into C instead of overwriting it.
    pub accumulate: bool,
    pub epilogue: Epilogue,
}

/// Layout of an operand in memory, row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A (M, K), B (K, N).
    AsIs,
    /// A (K, M), B (N, K).
    Transposed,
}

/// Type of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputType {
    Float32,
    LikeInputs,
}

/// Operation on C before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Epilogue {
    None,
    /// Adds a bias (N) to every row.
    Bias,
    /// Adds a bias (N) to every row. Writes the sum to `aux` (M, N) and its activation to C.
    BiasGelu(Gelu),
    /// Multiplies C by the activation's slope at `aux` (M, N).
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
            a: Layout::AsIs,
            b: Layout::Transposed,
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
            b: Layout::AsIs,
            ..Self::forward(rows, outputs, columns, inputs, epilogue)
        }
    }

    /// `dW (out, in) += dY^T X`, in fp32.
    pub fn weight_gradient(rows: usize, outputs: usize, columns: usize, inputs: Inputs) -> Self {
        Self {
            m: outputs,
            n: columns,
            k: rows,
            a: Layout::Transposed,
            b: Layout::AsIs,
            inputs,
            output: OutputType::Float32,
            accumulate: true,
            epilogue: Epilogue::None,
        }
    }

    /// Rows and columns of A in memory.
    pub fn a_shape(&self) -> (usize, usize) {
        match self.a {
            Layout::AsIs => (self.m, self.k),
            Layout::Transposed => (self.k, self.m),
        }
    }

    /// Rows and columns of B in memory.
    pub fn b_shape(&self) -> (usize, usize) {
        match self.b {
            Layout::AsIs => (self.k, self.n),
            Layout::Transposed => (self.n, self.k),
        }
    }

    /// Precision of C in memory.
    pub fn output_precision(&self) -> Precision {
        match self.output {
            OutputType::Float32 => Precision::Float32,
            OutputType::LikeInputs => self.inputs.storage(),
        }
    }

    /// Whether C has the precision of A and B in memory.
    pub fn has_output_like_inputs(&self) -> bool {
        self.output_precision() == self.inputs.storage()
    }

    /// Operands that a candidate writes.
    pub fn writes(&self) -> &'static [Operand] {
        match self.epilogue {
            Epilogue::BiasGelu(_) => &[Operand::C, Operand::Aux],
            _ => &[Operand::C],
        }
    }

    /// Multiplications and additions, without those of the epilogue.
    pub fn flops(&self) -> u64 {
        2 * (self.m * self.n * self.k) as u64
    }

    /// Smallest number of bytes read and written: every matrix once, C twice if it accumulates.
    pub fn bytes(&self) -> u64 {
        let element = self.inputs.element_bytes();
        let (m, n, k) = (self.m as u64, self.n as u64, self.k as u64);
        let output = self.output_precision().element_bytes();
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

/// A GEMM of a training step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingGemm {
    pub name: String,
    pub problem: Problem,
    /// Times that a micro-step computes it, without recomputation.
    pub per_micro_step: usize,
}

/// `8192 x 2304 x 768 NT bfloat16, bias`: M, N, K, then the layouts of A and B, N as is and T transposed.
impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let letter = |layout| match layout {
            Layout::AsIs => 'N',
            Layout::Transposed => 'T',
        };
        let (a, b) = (letter(self.a), letter(self.b));
        write!(
            f,
            "{} x {} x {} {a}{b} {}",
            self.m, self.n, self.k, self.inputs
        )?;
        if !self.has_output_like_inputs() {
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
