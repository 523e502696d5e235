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
use crate::terms::{Gelu, Inputs, ModelDims, Precision, Rung};

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

    /// GEMMs of a training step in its order, without those of attention. Two of them may be one problem.
    pub fn of_training(dims: &ModelDims, rung: Rung, inputs: Inputs) -> Vec<TrainingGemm> {
        let (c, rows) = (dims.n_embd, rung.micro_batch * dims.block_size);
        let (bias, bias_gelu) = if dims.bias {
            (Epilogue::Bias, Epilogue::BiasGelu(dims.gelu))
        } else {
            // Without a bias the activation is an operation of its own.
            (Epilogue::None, Epilogue::None)
        };
        let slope = Epilogue::GeluBackward(dims.gelu);
        let in_blocks = |name, problem| TrainingGemm {
            name,
            problem,
            per_micro_step: dims.n_layer,
        };
        let forward = |name, outputs, columns, epilogue| {
            let problem = Self::forward(rows, outputs, columns, inputs, epilogue);
            in_blocks(name, problem)
        };
        let dx = |name, outputs, columns, epilogue| {
            let problem = Self::input_gradient(rows, outputs, columns, inputs, epilogue);
            in_blocks(name, problem)
        };
        let dw = |name, outputs, columns| {
            let problem = Self::weight_gradient(rows, outputs, columns, inputs);
            in_blocks(name, problem)
        };
        let mut gemms = vec![
            forward("c_attn", 3 * c, c, bias),
            forward("attn.c_proj", c, c, bias),
            forward("c_fc", 4 * c, c, bias_gelu),
            forward("mlp.c_proj", c, 4 * c, bias),
        ];
        gemms.extend(TrainingGemm::of_classifier(dims, rung, inputs));
        gemms.extend([
            dw("mlp.c_proj dW", c, 4 * c),
            dx("mlp.c_proj dX", c, 4 * c, slope),
            dw("c_fc dW", 4 * c, c),
            dx("c_fc dX", 4 * c, c, Epilogue::None),
            dw("attn.c_proj dW", c, c),
            dx("attn.c_proj dX", c, c, Epilogue::None),
            dw("c_attn dW", 3 * c, c),
            dx("c_attn dX", 3 * c, c, Epilogue::None),
        ]);
        gemms
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

    /// Multiplications and additions, without those of the epilogue. Basis of the rates of candidates in tuning and
    /// `taper bench gemm`.
    ///
    /// Other counts: `plan/throughput.rs` predicts times to rank rungs, `ops/timed/work.rs` counts each timed operation
    /// of a step, and `metrics::flops_per_token` is nanoGPT's formula for the utilization of a run.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingGemm {
    pub name: &'static str,
    pub problem: Problem,
    /// Times that a micro-step computes it, without recomputation.
    pub per_micro_step: usize,
}

impl TrainingGemm {
    /// GEMMs of the classifier: those of whole chunks of rows, then those of the last rows if they fill no chunk.
    fn of_classifier(dims: &ModelDims, rung: Rung, inputs: Inputs) -> Vec<Self> {
        let rows = rung.micro_batch * dims.block_size;
        let chunk = rung.logits_rows.min(rows);
        let (v, c) = (dims.vocab_size, dims.n_embd);
        let gemms = |names: [&'static str; 3], rows, per_micro_step| {
            let problems = [
                Problem::forward(rows, v, c, inputs, Epilogue::None),
                Problem::input_gradient(rows, v, c, inputs, Epilogue::None),
                Problem::weight_gradient(rows, v, c, inputs),
            ];
            let named = names.into_iter().zip(problems);
            named.map(move |(name, problem)| Self {
                name,
                problem,
                per_micro_step,
            })
        };
        let mut all: Vec<Self> =
            gemms(["logits", "logits dX", "logits dW"], chunk, rows / chunk).collect();
        if !rows.is_multiple_of(chunk) {
            let names = ["last logits", "last logits dX", "last logits dW"];
            all.extend(gemms(names, rows % chunk, 1));
        }
        all
    }
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
        let gemms = Problem::of_training(&DIMS, rung(64), Inputs::Bfloat16);
        assert_eq!(gemms.len(), 5 * 3);
        let (c, rows, chunk) = (16, 4 * 32, 64);
        let flops: u64 = gemms.iter().map(|gemm| gemm.problem.flops()).sum();
        assert_eq!(
            flops,
            6 * (12 * c * c * rows + DIMS.vocab_size as u64 * c * chunk)
        );
    }

    #[test]
    fn a_micro_step_does_six_flops_per_weight_and_row() {
        let flops = |gemm: &TrainingGemm| gemm.problem.flops() * gemm.per_micro_step as u64;
        let gemms = Problem::of_training(&DIMS, rung(100), Inputs::Bfloat16);
        let (c, rows) = (16, 4 * 32);
        let weights = 2 * 12 * c * c + DIMS.vocab_size as u64 * c;
        assert_eq!(gemms.iter().map(flops).sum::<u64>(), 6 * weights * rows);
    }

    #[test]
    fn what_is_left_of_the_rows_after_whole_chunks_is_a_problem_of_its_own() {
        let gemms = Problem::of_training(&DIMS, rung(100), Inputs::Float32);
        let find = |wanted| {
            let found = gemms.iter().find(|gemm| gemm.name == wanted);
            found.map(|gemm| gemm.problem)
        };
        assert_eq!(find("logits").map(|problem| problem.m), Some(100));
        assert_eq!(find("last logits").map(|problem| problem.m), Some(28));
        assert_eq!(find("last logits dW").map(|problem| problem.k), Some(28));
        let mut names: Vec<_> = gemms.iter().map(|gemm| gemm.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), gemms.len());
    }

    #[test]
    fn a_model_without_biases_has_none_in_its_products() {
        let dims = ModelDims {
            bias: false,
            ..DIMS
        };
        for TrainingGemm { name, problem, .. } in
            Problem::of_training(&dims, rung(64), Inputs::Bfloat16)
        {
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
