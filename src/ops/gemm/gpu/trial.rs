//! Buffers on a GPU for tuning.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, DriverError, SyncOnDrop};
use half::{bf16, f16};

use super::check::{self, Found};
use crate::ops::gemm::candidate::{MOST_READ, Operand, Unavailable};
use crate::ops::gemm::check::{Comparison, Fill, Tolerance, significant_bits};
use crate::ops::gemm::ptx::{DeviceMatrix, DeviceOperands, dtype};
use crate::ops::gemm::{Epilogue, Problem};
use crate::ops::launch::host::{download, upload};
use crate::ops::launch::{Gpu, LaunchError, is_out_of_memory};
use crate::terms::Precision;
use crate::units;

/// Alignment of an operand in bytes: that of `cudaMalloc`.
const ALIGNMENT: usize = 256;

/// Buffers for the dense operands of one problem at a time, for the kept copy of its results, and for checks and
/// timings.
pub struct GpuTrial {
    stream: Arc<CudaStream>,
    arena: CudaSlice<u8>,
    /// See [`super::GpuGemm::flush_bytes`].
    pub(super) flush: CudaSlice<u8>,
    /// Indices of the elements that are read.
    indices: CudaSlice<i64>,
    /// Values of these elements.
    values: CudaSlice<f32>,
    found: CudaSlice<Found>,
}

/// Place of one operand in the arena.
#[derive(Clone, Copy)]
struct Place {
    /// In bytes.
    start: usize,
    precision: Precision,
    rows: usize,
    columns: usize,
}

impl Place {
    fn elements(&self) -> usize {
        self.rows * self.columns
    }

    /// In bytes.
    fn end(&self) -> usize {
        self.start + self.elements() * self.precision.element_bytes() as usize
    }
}

/// Places of A, B, C, bias, aux, the kept C and the kept aux. Those that a problem does not have are empty.
fn places(problem: &Problem) -> [Place; 7] {
    let (input, output) = (problem.inputs.storage(), problem.output_precision());
    let (m, n) = (problem.m, problem.n);
    let (bias, aux, kept_aux) = match problem.epilogue {
        Epilogue::None => (0, 0, 0),
        Epilogue::Bias => (1, 0, 0),
        Epilogue::BiasGelu(_) => (1, m, m),
        Epilogue::GeluBackward(_) => (0, m, 0),
    };
    let shapes = [
        (input, problem.a_shape()),
        (input, problem.b_shape()),
        (output, (m, n)),
        (input, (bias, n)),
        (input, (aux, n)),
        (output, (m, n)),
        (input, (kept_aux, n)),
    ];
    let mut places = shapes.map(|(precision, (rows, columns))| Place {
        start: 0,
        precision,
        rows,
        columns,
    });
    // C and aux lie last, so that a candidate that writes beyond them damages neither its inputs nor the kept results.
    let mut end: usize = 0;
    for index in [5, 6, 0, 1, 3, 4, 2] {
        places[index].start = end.next_multiple_of(ALIGNMENT);
        end = places[index].end();
    }
    places
}

/// Places of an output: the one that is written, and its kept copy.
fn output_places(problem: &Problem, operand: Operand) -> [Place; 2] {
    let [_, _, c, _, aux, kept_c, kept_aux] = places(problem);
    match operand {
        Operand::Aux => [aux, kept_aux],
        _ => [c, kept_c],
    }
}

fn arena_bytes(problem: &Problem) -> usize {
    let ends = places(problem).map(|place| place.end());
    ends.into_iter().max().unwrap_or(0)
}

/// Calls one of the generic functions of `check` for the type of a place.
macro_rules! for_type {
    ($place:expr, $function:ident($($argument:expr),*)) => {
        match $place.precision {
            Precision::Float32 => check::$function::<f32>($($argument),*),
            Precision::Bfloat16 => check::$function::<bf16>($($argument),*),
            Precision::Float16 => check::$function::<f16>($($argument),*),
        }
    };
}

/// Bytes of a trial on the GPU, without the few that `read` and `compare` need.
pub(super) fn bytes(problem: &Problem, flush_bytes: usize) -> u64 {
    (arena_bytes(problem) + flush_bytes) as u64
}

impl GpuTrial {
    /// Allocates buffers that are large enough for any one of `problems`.
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
                indices: stream.alloc_zeros(MOST_READ)?,
                values: stream.alloc_zeros(MOST_READ)?,
                found: stream.alloc_zeros(check::MOST_BLOCKS)?,
                stream: stream.clone(),
            })
        };
        allocate().map_err(|error| {
            if is_out_of_memory(&error) {
                let bytes = units::bytes((largest + flush_bytes) as u64);
                Unavailable(format!("no memory for tuning: {bytes} are needed"))
            } else {
                refused(error)
            }
        })
    }

    pub fn operands(&mut self, problem: &Problem) -> DeviceOperands<'_> {
        let [a, b, c, bias, aux, ..] = places(problem);
        let (base, guard) = self.arena.device_ptr_mut(&self.stream);
        let matrix = |place: Place, writable, guard| {
            let address = base + place.start as u64;
            // SAFETY: the arena is borrowed for as long as the operands live, and has room for all places of
            // the problem, which do not overlap.
            unsafe {
                DeviceMatrix::at(
                    address,
                    dtype(place.precision),
                    place.elements(),
                    place.columns,
                    writable,
                    guard,
                )
            }
        };
        // One guard serves for the whole arena.
        let told = || SyncOnDrop::Sync(None);
        DeviceOperands {
            a: matrix(a, false, told()),
            b: matrix(b, false, told()),
            c: matrix(c, true, guard),
            bias: (bias.rows > 0).then(|| matrix(bias, false, told())),
            aux: (aux.rows > 0).then(|| matrix(aux, true, told())),
        }
    }

    /// Address of the arena. Work in its own stream needs no guard.
    fn base(&mut self) -> u64 {
        self.arena.device_ptr_mut(&self.stream).0
    }

    pub fn fill(
        &mut self,
        gpu: &Gpu,
        problem: &Problem,
        operand: Operand,
        fill: Fill,
    ) -> Result<(), Unavailable> {
        let place = places(problem)[operand as usize];
        let bits = match fill {
            Fill::Integers => 0,
            Fill::Random => significant_bits(problem.inputs),
        };
        let (to, count) = (self.base() + place.start as u64, place.elements());
        // SAFETY: the elements lie in the arena, which is borrowed for writing.
        let filled = unsafe { for_type!(place, fill(gpu, to, count, operand, bits)) };
        filled.map_err(refused_launch)
    }

    pub fn read(
        &mut self,
        gpu: &Gpu,
        problem: &Problem,
        operand: Operand,
        indices: &[usize],
    ) -> Result<Vec<f32>, Unavailable> {
        let place = places(problem)[operand as usize];
        let count = indices.len();
        assert!(count <= MOST_READ && indices.iter().all(|&index| index < place.elements()));
        let indices: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
        let mut to = self.indices.slice_mut(..count);
        upload(&self.stream, &indices, &mut to).map_err(refused)?;
        let from = self.base() + place.start as u64;
        let (places, mut values) = (self.indices.slice(..count), self.values.slice_mut(..count));
        // SAFETY: every index is one of the operand's.
        let read = unsafe { for_type!(place, gather(gpu, from, &places, &mut values)) };
        read.map_err(refused_launch)?;
        download(&self.stream, &self.values.slice(..count)).map_err(refused)
    }

    pub fn keep(&mut self, problem: &Problem) -> Result<(), Unavailable> {
        for &operand in problem.writes() {
            let [from, to] = output_places(problem, operand);
            // The kept copies lie before the outputs.
            let (mut kept, operands) = self.arena.split_at_mut(from.start);
            let from = operands.slice(..from.end() - from.start);
            let mut to = kept.slice_mut(to.start..to.end());
            self.stream.memcpy_dtod(&from, &mut to).map_err(refused)?;
        }
        Ok(())
    }

    pub fn compare(
        &mut self,
        gpu: &Gpu,
        problem: &Problem,
        operand: Operand,
        tolerance: &Tolerance,
    ) -> Result<Comparison, Unavailable> {
        let [place, kept] = output_places(problem, operand);
        let base = self.base();
        let (got, want) = (base + place.start as u64, base + kept.start as u64);
        let (count, mut out) = (place.elements(), self.found.as_view_mut());
        // SAFETY: both lie in the arena and have so many elements.
        let compared =
            unsafe { for_type!(place, compare(gpu, got, want, count, tolerance, &mut out)) };
        let blocks = compared.map_err(refused_launch)?;
        let found = download(&self.stream, &self.found.slice(..blocks)).map_err(refused)?;
        let found = found.into_iter().map(Comparison::from);
        Ok(found.fold(Comparison::default(), Comparison::and))
    }
}

fn refused_launch(error: LaunchError) -> Unavailable {
    Unavailable(error.to_string())
}

fn refused(error: DriverError) -> Unavailable {
    Unavailable(error.to_string())
}
