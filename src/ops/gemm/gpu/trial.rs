//! Operands on a GPU to tune with.

use std::sync::Arc;

use candle_core::DType;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, DriverError, SyncOnDrop};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::ops::cuda::host::{download, upload};
use crate::ops::cuda::is_out_of_memory;
use crate::ops::gemm::candidate::{Operand, Unavailable};
use crate::ops::gemm::ptx::{DeviceMatrix, Operands};
use crate::ops::gemm::{Epilogue, Inputs, OutputType, Problem};
use crate::units;

/// Where an operand may begin: what `cudaMalloc` aligns to.
const ALIGNMENT: usize = 256;

/// Dense operands of one problem after the other, and what a timing needs beside them.
pub struct Trial {
    pub(super) stream: Arc<CudaStream>,
    arena: CudaSlice<u8>,
    /// Written before every timing, so that the level-2 cache holds nothing of the operands.
    pub(super) flush: CudaSlice<u8>,
}

/// Where one operand lies in the arena.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    dtype: DType,
    rows: usize,
    columns: usize,
}

impl Place {
    fn elements(&self) -> usize {
        self.rows * self.columns
    }

    fn end(&self) -> usize {
        self.start + self.elements() * self.dtype.size_in_bytes()
    }
}

/// A, B, C, bias and aux; what a problem does not have is empty.
fn places(problem: &Problem) -> [Place; 5] {
    let input = match problem.inputs {
        Inputs::Float32 | Inputs::Tf32 | Inputs::Float32AsBfloat16 | Inputs::Float32InPieces => {
            DType::F32
        }
        Inputs::Bfloat16 => DType::BF16,
        Inputs::Float16 => DType::F16,
    };
    let output = match problem.output {
        OutputType::Float32 => DType::F32,
        OutputType::LikeInputs => input,
    };
    let (m, n) = (problem.m, problem.n);
    let (bias, aux) = match problem.epilogue {
        Epilogue::None => (0, 0),
        Epilogue::Bias => (1, 0),
        Epilogue::BiasGelu(_) => (1, m),
        Epilogue::GeluBackward(_) => (0, m),
    };
    let shapes = [
        (input, problem.a_shape()),
        (input, problem.b_shape()),
        (output, (m, n)),
        (input, (bias, n)),
        (input, (aux, n)),
    ];
    let mut end: usize = 0;
    shapes.map(|(dtype, (rows, columns))| {
        let place = Place {
            start: end.next_multiple_of(ALIGNMENT),
            dtype,
            rows,
            columns,
        };
        end = place.end();
        place
    })
}

fn arena_bytes(problem: &Problem) -> usize {
    places(problem)[4].end()
}

/// On the GPU.
pub(super) fn bytes(problem: &Problem, flush_bytes: usize) -> u64 {
    (arena_bytes(problem) + flush_bytes) as u64
}

impl Trial {
    /// With room for any one of `problems`.
    pub fn new(
        stream: Arc<CudaStream>,
        problems: &[Problem],
        flush_bytes: usize,
    ) -> Result<Self, Unavailable> {
        let largest = problems.iter().map(arena_bytes).max().unwrap_or(0).max(1);
        let allocate = || {
            Ok::<_, DriverError>(Self {
                arena: stream.alloc_zeros(largest)?,
                flush: stream.alloc_zeros(flush_bytes)?,
                stream: stream.clone(),
            })
        };
        allocate().map_err(|error| match is_out_of_memory(&error) {
            true => Unavailable(format!(
                "no memory for tuning: {} are needed",
                units::bytes((largest + flush_bytes) as u64)
            )),
            false => refused(error),
        })
    }

    pub fn operands(&mut self, problem: &Problem) -> Operands<'_> {
        let [a, b, c, bias, aux] = places(problem);
        let (base, guard) = self.arena.device_ptr_mut(&self.stream);
        let matrix = |place: Place, writable, guard| {
            let address = base + place.start as u64;
            // SAFETY: the arena is borrowed for as long as the operands live, and has room for all places of
            // the problem, which do not overlap.
            unsafe {
                DeviceMatrix::at(
                    address,
                    (place.dtype, place.elements()),
                    place.columns,
                    writable,
                    guard,
                )
            }
        };
        // One guard tells for the whole arena what the stream does with it.
        let told = || SyncOnDrop::Sync(None);
        Operands {
            a: matrix(a, false, told()),
            b: matrix(b, false, told()),
            c: matrix(c, true, guard),
            bias: (bias.rows > 0).then(|| matrix(bias, false, told())),
            aux: (aux.rows > 0).then(|| matrix(aux, true, told())),
        }
    }

    pub fn write(
        &mut self,
        problem: &Problem,
        operand: Operand,
        value: &(dyn Fn(usize) -> f32 + Sync),
    ) -> Result<(), Unavailable> {
        let place = places(problem)[operand as usize];
        let mut host = vec![0; place.end() - place.start];
        match place.dtype {
            DType::BF16 => fill(&mut host, |i| bf16::from_f32(value(i)).to_le_bytes()),
            DType::F16 => fill(&mut host, |i| f16::from_f32(value(i)).to_le_bytes()),
            _ => fill(&mut host, |i| value(i).to_le_bytes()),
        }
        let mut device = self.arena.slice_mut(place.start..place.end());
        upload(&self.stream, &host, &mut device).map_err(refused)
    }

    pub fn read(
        &self,
        problem: &Problem,
        operand: Operand,
        into: &mut Vec<f32>,
    ) -> Result<(), Unavailable> {
        let place = places(problem)[operand as usize];
        let device = self.arena.slice(place.start..place.end());
        let host: Vec<u8> = download(&self.stream, &device).map_err(refused)?;
        match place.dtype {
            DType::BF16 => widen(&host, into, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            DType::F16 => widen(&host, into, |bytes| f16::from_le_bytes(bytes).to_f32()),
            _ => widen(&host, into, f32::from_le_bytes),
        }
        Ok(())
    }
}

fn refused(error: DriverError) -> Unavailable {
    Unavailable(error.to_string())
}

fn fill<const N: usize>(host: &mut [u8], value: impl Fn(usize) -> [u8; N] + Sync) {
    let elements = host.par_chunks_exact_mut(N).enumerate();
    elements.for_each(|(index, element)| element.copy_from_slice(&value(index)));
}

fn widen<const N: usize>(host: &[u8], into: &mut Vec<f32>, value: impl Fn([u8; N]) -> f32 + Sync) {
    let (elements, _) = host.as_chunks::<N>();
    let values = elements.par_iter().map(|element| value(*element));
    values.collect_into_vec(into);
}
