//! Predicted speed of a rung: a roofline estimate that ranks launches, never a promise.
//!
//! Time of a step = micro-steps x (GEMMs at the device's rate, less the waste of a partly filled device +
//! bytes that every operation moves + a fixed cost for each of its kernels) + optimizer.
//! The estimate knows why larger micro-batches are faster: fuller devices, fewer kernels per token, and
//! fewer passes over the fp32 gradients. It also knows why recompute is slower.
//!
//! Other counts of operations: `metrics::flops_per_token` is nanoGPT's formula for the utilization of a run,
//! `ops/timed/work.rs` counts each timed operation of `taper bench step`, and `ops::gemm::Problem::flops` counts one
//! GEMM.

use crate::device::{DeviceProfile, Hardware};
use crate::model::ParamLayout;
use crate::terms::{Inputs, Job, ModelDims, Recompute, Rung, VectorExtension};

/// Rates of a device: all that the estimate knows of it.
#[derive(Clone, Copy, Debug)]
struct Roofline {
    /// Operations per second that large GEMMs reach.
    flops_per_second: f64,
    bytes_per_second: f64,
    /// Streaming multiprocessors or cores: the number of tiles of a GEMM that are computed at a time.
    units: usize,
    /// Rows and columns of the output that one unit computes at a time.
    tile: usize,
    seconds_per_kernel: f64,
}

/// Share of the datasheet's rate that good GEMMs reach: cuBLAS on large bf16 ones.
const GPU_EFFICIENCY: f64 = 0.7;
/// Share of the datasheet's bandwidth that element-wise kernels reach.
const GPU_BANDWIDTH_EFFICIENCY: f64 = 0.85;
/// Rate of one core with 512-bit vectors at about 3 GHz. It is half of that with 256 bits, twice with bf16 pairs, four
/// times with tiles, and one and a half times with tiles of pieces.
const CORE_FLOPS_PER_SECOND: f64 = 1e11;
/// One core's share of the memory channels.
const CORE_BYTES_PER_SECOND: f64 = 1e10;

impl Roofline {
    fn of(device: &DeviceProfile, inputs: Inputs, threads: usize) -> Self {
        match &device.hardware {
            Hardware::Cpu(cpu) => {
                let has = |extension| cpu.vector_extensions.contains(&extension);
                let rate = match inputs {
                    Inputs::Float32AsBfloat16 if has(VectorExtension::AmxBf16) => 4.0,
                    Inputs::Float32AsBfloat16 => 2.0,
                    Inputs::Float32InPieces => 1.5,
                    _ if has(VectorExtension::Avx512) => 1.0,
                    _ => 0.5,
                };
                Self {
                    flops_per_second: rate * threads as f64 * CORE_FLOPS_PER_SECOND,
                    bytes_per_second: threads as f64 * CORE_BYTES_PER_SECOND,
                    units: threads,
                    tile: 32,
                    seconds_per_kernel: 5e-6,
                }
            }
            Hardware::Cuda(cuda) => Self {
                flops_per_second: GPU_EFFICIENCY * cuda.peak(inputs).unwrap_or(cuda.peak_fp32),
                bytes_per_second: GPU_BANDWIDTH_EFFICIENCY * cuda.memory_bytes_per_second,
                units: cuda.sm_count as usize,
                tile: 128,
                seconds_per_kernel: 3e-6,
            },
        }
    }

    /// Seconds of the GEMM (M, K) (K, N). With `split_k`, the sum over K may be shared out.
    fn product(&self, [m, n, k]: [usize; 3], split_k: bool) -> f64 {
        let tiles = m.div_ceil(self.tile) * n.div_ceil(self.tile);
        let splits = if split_k {
            (self.units / tiles).clamp(1, k.div_ceil(4 * self.tile))
        } else {
            1
        };
        let waves = (tiles * splits).div_ceil(self.units);
        let computed =
            (waves * self.units) as f64 / splits as f64 * (self.tile * self.tile * k) as f64;
        self.seconds_per_kernel + 2.0 * computed / self.flops_per_second
    }

    /// Seconds to read and write `bytes`.
    fn moved(&self, bytes: f64) -> f64 {
        bytes / self.bytes_per_second
    }
}

/// Predicts the throughput of rungs of one model on one device.
pub(super) struct Predictor<'a> {
    dims: &'a ModelDims,
    job: Job,
    roofline: Roofline,
    element_bytes: f64,
    parameters: f64,
    sequences_per_step: usize,
}

impl<'a> Predictor<'a> {
    pub fn new(
        dims: &'a ModelDims,
        device: &DeviceProfile,
        inputs: Inputs,
        threads: usize,
        job: Job,
        sequences_per_step: usize,
    ) -> Self {
        Self {
            dims,
            job,
            roofline: Roofline::of(device, inputs, threads),
            element_bytes: inputs.element_bytes() as f64,
            parameters: ParamLayout::new(dims).len as f64,
            sequences_per_step,
        }
    }

    /// Predicted tokens per second of training or evaluation at `rung`.
    pub fn tokens_per_second(&self, rung: Rung) -> f64 {
        let micro_steps = self.sequences_per_step.div_ceil(rung.micro_batch) as f64;
        let tokens = (self.sequences_per_step * self.dims.block_size) as f64;
        let optimizer = match self.job {
            // AdamW reads four fp32 values per parameter and writes three.
            Job::Train => self.roofline.moved(28.0 * self.parameters),
            Job::Evaluate => 0.0,
        };
        tokens / (micro_steps * self.micro_step(rung) + optimizer)
    }

    fn micro_step(&self, rung: Rung) -> f64 {
        let rows = rung.micro_batch * self.dims.block_size;
        let forward = self.block_forward(rows);
        if self.job == Job::Evaluate {
            return self.dims.n_layer as f64 * forward + self.classifier(rows, rung.logits_rows);
        }
        let extra = match rung.recompute {
            Recompute::None => 0.0,
            // Two norms (C in, C out) and GELU (4C in, 4C out).
            Recompute::GeluLn => self.elementwise(rows, 12, 3),
            Recompute::Block => forward,
        };
        let blocks = self.dims.n_layer as f64 * (forward + extra + self.block_backward(rows));
        blocks + self.classifier(rows, rung.logits_rows)
    }

    fn block_forward(&self, rows: usize) -> f64 {
        let (c, roofline) = (self.dims.n_embd, &self.roofline);
        let products: f64 = [
            [rows, 3 * c, c],
            [rows, c, c],
            [rows, 4 * c, c],
            [rows, c, 4 * c],
        ]
        .map(|shape| roofline.product(shape, false))
        .iter()
        .sum();
        // Two norms 4C, GELU 8C, two residual additions 6C, attention 4C.
        products + self.attention(rows, 4.0) + self.elementwise(rows, 22, 6)
    }

    fn block_backward(&self, rows: usize) -> f64 {
        let (c, roofline) = (self.dims.n_embd, &self.roofline);
        let linears = [[c, 3 * c], [c, c], [c, 4 * c], [4 * c, c]];
        let products: f64 = linears
            .iter()
            .map(|&[inputs, outputs]| {
                let accumulate = roofline.moved((8 * inputs * outputs) as f64);
                roofline.product([rows, inputs, outputs], false)
                    + roofline.product([outputs, inputs, rows], true)
                    + accumulate
            })
            .sum();
        products + self.attention(rows, 10.0) + self.elementwise(rows, 40, 10)
    }

    /// Seconds of `products` times the operations of one causal GEMM of queries and keys.
    fn attention(&self, rows: usize, products: f64) -> f64 {
        let operations = products * 0.5 * (rows * self.dims.block_size * self.dims.n_embd) as f64;
        // Half the rate of a plain GEMM (FlashAttention-2, section 4.1, reaches 50 to 73 %).
        2.0 * operations / self.roofline.flops_per_second
    }

    /// Seconds of operations that read and write `columns` values of C per row, in `kernels` kernels.
    fn elementwise(&self, rows: usize, columns: usize, kernels: usize) -> f64 {
        let values = (rows * columns * self.dims.n_embd) as f64;
        self.roofline.moved(values * self.element_bytes)
            + kernels as f64 * self.roofline.seconds_per_kernel
    }

    fn classifier(&self, rows: usize, chunk: usize) -> f64 {
        let (c, v, roofline) = (self.dims.n_embd, self.dims.vocab_size, &self.roofline);
        let chunks = rows.div_ceil(chunk);
        let chunk = chunk.min(rows);
        let logits = roofline.product([chunk, v, c], false);
        // Softmax in place over the logits.
        let softmax = roofline.moved(4.0 * self.element_bytes * (chunk * v) as f64);
        let gradients = match self.job {
            // fp32 gradients of the embedding are read and written.
            Job::Train => {
                roofline.product([chunk, c, v], true)
                    + roofline.product([v, c, chunk], true)
                    + roofline.moved(8.0 * (v * c) as f64)
            }
            Job::Evaluate => 0.0,
        };
        chunks as f64 * (logits + softmax + gradients + roofline.seconds_per_kernel)
    }
}
