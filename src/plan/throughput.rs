//! Predicted speed of a rung: a roofline estimate that ranks launches, never a promise.
//!
//! Time of a step = micro-steps x (GEMMs at the device's rate, less the waste of a partly filled device +
//! bytes that every operation moves + a fixed cost for each operation) + optimizer, summed over the operations of the
//! program by the work that each says it does. A card that cannot sustain its peak is taken at the rate that was measured
//! on it (`device::named::sustained_flops`).
//! The estimate knows why larger micro-batches are faster: fuller devices, fewer kernels per token, and
//! fewer passes over the fp32 gradients. It also knows why recompute is slower.

use super::draft::Measure;
use crate::device::{Cuda, DeviceProfile, Hardware, named};
use crate::model::Program;
use crate::ops::backend::{Op, Span, Work};
use crate::ops::gemm::Problem;
use crate::terms::{Inputs, Job, Precision, VectorExtension};

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
                flops_per_second: gemm_rate(&device.name, cuda, inputs),
                bytes_per_second: GPU_BANDWIDTH_EFFICIENCY * cuda.memory_bytes_per_second,
                units: cuda.sm_count as usize,
                tile: 128,
                seconds_per_kernel: 3e-6,
            },
        }
    }

    /// Seconds of a GEMM. The sum over K of one that accumulates may be shared out.
    fn gemm(&self, gemm: &Problem) -> f64 {
        let tiles = gemm.m.div_ceil(self.tile) * gemm.n.div_ceil(self.tile);
        let (splits, accumulated) = if gemm.accumulate {
            let splits = (self.units / tiles).clamp(1, gemm.k.div_ceil(4 * self.tile));
            // C is read and written.
            (
                splits,
                2 * (gemm.m * gemm.n) as u64 * size_of::<f32>() as u64,
            )
        } else {
            (1, 0)
        };
        let waves = (tiles * splits).div_ceil(self.units);
        let computed =
            (waves * self.units) as f64 / splits as f64 * (self.tile * self.tile * gemm.k) as f64;
        self.seconds_per_kernel + 2.0 * computed / self.flops_per_second + self.moved(accumulated)
    }

    /// Seconds to read and write `bytes`.
    fn moved(&self, bytes: u64) -> f64 {
        bytes as f64 / self.bytes_per_second
    }
}

/// Operations per second that GEMMs reach on the GPU called `name`: a share of its peak, or of what its power limit lets
/// it hold.
fn gemm_rate(name: &str, cuda: &Cuda, inputs: Inputs) -> f64 {
    let peak = cuda.peak(inputs).unwrap_or(cuda.peak_fp32);
    GPU_EFFICIENCY * named::sustained_flops(name).map_or(peak, |sustained| sustained.min(peak))
}

/// Predicts the throughput of rungs of one model on one device.
pub(super) struct Predictor {
    roofline: Roofline,
    inputs: Inputs,
    precision: Precision,
    job: Job,
    sequences_per_step: usize,
}

impl Predictor {
    pub fn new(measure: &Measure, threads: usize, sequences_per_step: usize) -> Self {
        Self {
            roofline: Roofline::of(&measure.device, measure.inputs, threads),
            inputs: measure.inputs,
            precision: measure.precision,
            job: measure.job,
            sequences_per_step,
        }
    }

    /// Predicted tokens per second of training or evaluation with `program`.
    pub fn tokens_per_second(&self, program: &Program) -> f64 {
        let micro_steps = self.sequences_per_step.div_ceil(program.rung.micro_batch) as f64;
        let tokens = (self.sequences_per_step * program.block_size) as f64;
        let update = match self.job {
            Job::Train => {
                let work = Work::update(self.precision, program.params.len);
                self.roofline.moved(work.bytes)
            }
            Job::Evaluate => 0.0,
        };
        let begin = program.begin.iter();
        let begin = begin.map(|node| self.seconds(&node.op, &program.span(), program.rows()));
        tokens / (micro_steps * self.micro_step(program) + begin.sum::<f64>() + update)
    }

    fn micro_step(&self, program: &Program) -> f64 {
        let nodes = program.micro_step(self.job == Job::Train).into_iter();
        let seconds = nodes.map(|(node, rows, times)| {
            times as f64 * self.seconds(&node.op, &program.span(), rows)
        });
        seconds.sum()
    }

    /// Seconds of an operation over `rows` rows of `span`.
    fn seconds(&self, op: &Op, span: &Span, rows: usize) -> f64 {
        let roofline = &self.roofline;
        if let Some(gemm) = op.gemm(rows, self.inputs) {
            return roofline.gemm(&gemm) + self.gelu_alone(op, rows);
        }
        let work = op.work(span, rows, self.precision);
        // Attention reaches half the rate of a plain GEMM (FlashAttention-2, section 4.1: 50 to 73 %).
        let computed = 2.0 * work.flops as f64 / roofline.flops_per_second;
        roofline.seconds_per_kernel + computed + roofline.moved(work.bytes)
    }

    /// Seconds of GELU behind a GEMM that has no bias to be fused with it.
    fn gelu_alone(&self, op: &Op, rows: usize) -> f64 {
        match op {
            Op::LinearGelu { layer, y, .. } if layer.bias.is_none() => {
                let work = Work::moved(self.precision, 2 * rows * y.columns, 0);
                self.roofline.seconds_per_kernel + self.roofline.moved(work.bytes)
            }
            _ => 0.0,
        }
    }
}
