//! GEMMs on the CPU: the `gemm` crate, called in several ways.
//!
//! The crate sums each element of C over K in blocks whose size depends on K alone, so that neither cutting C into tiles nor
//! the number of threads changes a bit. The exception is the last tile, where little is left over: the
//! crate has other code for vectors and for tiny matrices. So a candidate that cuts C promises the fallback's bits,
//! and tuning, which compares them all, passes it over where it breaks the promise. A limited search has only such
//! candidates: it decides how fast a run is and never which numbers come out, at any rung. Cutting K (a full search)
//! sums in another order.
//!
//! On CPUs with instructions for bf16, GEMMs can use those: see `bf16`. Generation has its own: see `rows`.

mod bf16;
mod kernels;
mod matrix;
mod rows;
mod trial;

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::DType;

use super::cache::{self, Header};
use super::candidate::{Device, Offer, Operand, Unavailable};
use super::check::{Comparison, Fill, Tolerance};
use super::dispatch::Dispatch;
use super::problem::{Epilogue, Layout, Problem};
use crate::device::DeviceProfile;
use crate::ops::loops::{Element, gelu};
use crate::terms::{Effort, Inputs, VectorExtension};

pub(in crate::ops) use matrix::{Matrix, MatrixMut, Output};
pub(in crate::ops) use rows::{dots, mix, multiply_rows};

use matrix::{TileShape, gemm_sequential};
pub use trial::TrialOperands;

/// The GEMMs of the training path on the CPU. `T` is f32, or f64 in tests.
pub type Products<T> = Dispatch<Cpu<T>>;

/// The CPU; its threads are those of the current pool.
#[derive(Debug)]
pub struct Cpu<T> {
    inputs: Inputs,
    pieces_from: usize,
    /// Packed B of the current GEMM.
    packed: Mutex<bf16::PackedB>,
    element: PhantomData<T>,
}

impl<T> Cpu<T> {
    /// Multiplies `inputs`: in T, or fp32 in bf16 where the CPU has instructions for it.
    pub fn new(inputs: Inputs) -> Self {
        Self::with_pieces_from(inputs, SHORTEST_SIDE_IN_PIECES)
    }

    /// A CPU that multiplies in pieces, where `inputs` says so, only if none of M, N and K is below `side`.
    pub fn with_pieces_from(inputs: Inputs, side: usize) -> Self {
        Self {
            inputs,
            pieces_from: side,
            packed: Mutex::default(),
            element: PhantomData,
        }
    }
}

impl<T> Default for Cpu<T> {
    fn default() -> Self {
        Self::new(Inputs::Float32)
    }
}

/// A way to compute a GEMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// All of C at once; the `gemm` crate splits it among the threads.
    Whole,
    /// C in tiles of so many rows and columns (`None`: all), each computed by one thread.
    Tiles { rows: usize, columns: Option<usize> },
    /// K in this many parts, whose sums are added in their order.
    SplitK(usize),
    /// `Tiles`, multiplied in bf16.
    Bfloat16 { rows: usize, columns: usize },
    /// `Tiles`, multiplied as three bf16 pieces each.
    InPieces { rows: usize, columns: usize },
}

impl Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Candidate::Whole => f.pad("gemm crate"),
            Candidate::Tiles {
                rows,
                columns: None,
            } => f.pad(&format!("tiles of {rows} rows")),
            Candidate::Tiles {
                rows,
                columns: Some(columns),
            } => f.pad(&format!("tiles {rows}x{columns}")),
            Candidate::SplitK(parts) => f.pad(&format!("split-k {parts}")),
            Candidate::Bfloat16 { rows, columns } => f.pad(&format!("bf16 tiles {rows}x{columns}")),
            Candidate::InPieces { rows, columns } => {
                f.pad(&format!("bf16 pieces, tiles {rows}x{columns}"))
            }
        }
    }
}

/// Tiles that won somewhere: bands for tall C, small tiles for weight gradients of small models, large ones for wide B.
const TILES: [Candidate; 5] = [
    tiles(96, None),
    tiles(192, None),
    tiles(384, None),
    tiles(384, Some(64)),
    tiles(384, Some(512)),
];

/// Tiles that are multiplied in bf16: small ones for small C, wide ones as every tile packs its rows; the fallback first.
const BFLOAT16_TILES: [TileShape; 5] = [
    bfloat16_tile(128, 512),
    bfloat16_tile(128, 256),
    bfloat16_tile(128, 4096),
    bfloat16_tile(256, 512),
    bfloat16_tile(256, 4096),
];

const fn bfloat16_tile(rows: usize, columns: usize) -> TileShape {
    TileShape { rows, columns }
}

const SPLITS: [Candidate; 2] = [Candidate::SplitK(2), Candidate::SplitK(4)];

const fn tiles(rows: usize, columns: Option<usize>) -> Candidate {
    Candidate::Tiles { rows, columns }
}

/// Hash of the candidates' code and of the version of the `gemm` crate.
fn fingerprint() -> String {
    cache::fingerprint([
        concat!("gemm crate ", env!("TAPER_GEMM")),
        include_str!("mod.rs"),
        include_str!("kernels.rs"),
        include_str!("matrix.rs"),
        include_str!("bf16/mod.rs"),
        include_str!("bf16/amx.rs"),
        include_str!("bf16/avx512.rs"),
        include_str!("bf16/pack.rs"),
        include_str!("bf16/pack_avx512.rs"),
    ])
}

/// Header of the cache on the CPU: everything that timings depend on.
pub fn header(device: &DeviceProfile, threads: usize) -> Header {
    let extensions = VectorExtension::names(device.vector_extensions());
    [
        ("device", device.name.clone()),
        ("threads", threads.to_string()),
        ("vector extensions", extensions),
        ("candidates", fingerprint()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The operands of one GEMM, dense and row-major.
pub struct Operands<'a, T> {
    pub a: &'a [T],
    pub b: &'a [T],
    pub c: &'a mut [T],
    /// C holds nothing that counts: a GEMM that accumulates overwrites it.
    pub c_is_empty: bool,
    /// Shape (N), with an epilogue that adds one; else empty.
    pub bias: &'a [T],
    pub aux: Aux<'a, T>,
}

/// The second matrix of an epilogue.
pub enum Aux<'a, T> {
    None,
    /// The pre-activation, for `BiasGelu`.
    Written(&'a mut [T]),
    /// For `GeluBackward`.
    Read(&'a [T]),
}

impl<'a, T> Operands<'a, T> {
    /// Operands of a GEMM without an epilogue.
    pub fn new(a: &'a [T], b: &'a [T], c: &'a mut [T]) -> Self {
        Self {
            a,
            b,
            c,
            c_is_empty: false,
            bias: &[],
            aux: Aux::None,
        }
    }
}

impl<T: Element> Products<T> {
    /// Inputs of the GEMMs.
    pub fn inputs(&self) -> Inputs {
        self.device().inputs
    }

    /// GEMMs of one thread, for operands that are not worth all threads. They do not multiply in pieces.
    pub fn sequential(&self) -> Sequential {
        Sequential(match self.device().inputs {
            Inputs::Float32AsBfloat16 => bf16::Isa::probe(),
            _ => None,
        })
    }

    /// [`Dispatch::run`], which cannot fail on the CPU.
    pub fn compute(&self, problem: Problem, mut operands: Operands<T>) {
        let Ok(()) = self.run(&problem, &mut operands);
    }
}

/// GEMMs of one thread: by the `gemm` crate, or in bf16.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequential(Option<bf16::Isa>);

impl Sequential {
    /// `c (M, N) = a (M, K) b (K, N)`, or `+=`.
    pub(in crate::ops) fn gemm<T: Element>(
        self,
        c: MatrixMut<T>,
        output: Output,
        a: Matrix<T>,
        b: Matrix<T>,
    ) {
        let Some(isa) = self.0.filter(|_| T::DTYPE == DType::F32) else {
            return gemm_sequential(c, output, a, b);
        };
        kernels::in_bfloat16(c, output, a, b, |product| {
            bf16::gemm_sequential(isa, product);
        });
    }
}

/// The operand of a product that lies in memory as (rows, columns), in this layout.
fn view<T>(data: &[T], (rows, columns): (usize, usize), layout: Layout) -> Matrix<'_, T> {
    let matrix = Matrix::new(data, rows, columns);
    match layout {
        Layout::AsIs => matrix,
        Layout::Transposed => matrix.t(),
    }
}

/// M, N and K from which pieces pay: at 256 of each they were even on a Xeon with AMX, at 384 1.3 to 1.5 times as fast.
pub const SHORTEST_SIDE_IN_PIECES: usize = 256;

/// Whether `problem` is multiplied in pieces: its inputs are, and none of its sides is shorter than `shortest_side`.
fn is_in_pieces(problem: &Problem, shortest_side: usize) -> bool {
    let sides = [problem.m, problem.n, problem.k];
    problem.inputs == Inputs::Float32InPieces && sides.iter().all(|&side| side >= shortest_side)
}

/// Pieces of the bf16 values that a CPU with `extensions` packs for `problem`; `None` where it packs fp32.
fn packed_pieces(problem: &Problem, extensions: &[VectorExtension]) -> Option<usize> {
    let (needed, pieces) = match problem.inputs {
        Inputs::Float32AsBfloat16 => (VectorExtension::Avx512Bf16, 1),
        _ if is_in_pieces(problem, SHORTEST_SIDE_IN_PIECES) => {
            (VectorExtension::AmxBf16, bf16::PIECES)
        }
        _ => return None,
    };
    extensions.contains(&needed).then_some(pieces)
}

/// The most that fp32 GEMMs take beside their operands on `threads` threads of a CPU with `extensions`, in bytes: what one
/// of `problems` takes while it is computed with the candidates of `effort`, and what is kept to pack into.
///
/// A pure function: the CPU need not be that of this machine.
pub fn packed_bytes(
    problems: &[Problem],
    threads: usize,
    effort: Effort,
    extensions: &[VectorExtension],
) -> usize {
    let (mut passing, mut kept) = (0, [0, 0]);
    for problem in problems {
        match packed_pieces(problem, extensions) {
            Some(pieces) => {
                let sides = [problem.m, problem.n, problem.k];
                let rows = BFLOAT16_TILES.map(|tile| tile.rows).into_iter().max();
                let [a, b] = bf16::packed_bytes(sides, rows.unwrap_or(0), pieces);
                kept = [kept[0].max(threads * a), kept[1].max(b)];
            }
            None => {
                let bytes = kernels::packed_bytes(problem, threads, effort, size_of::<f32>());
                passing = passing.max(bytes);
            }
        }
    }
    passing + kept[0] + kept[1]
}

impl<T: Element> Device for Cpu<T> {
    type Candidate = Candidate;
    type Operands<'a> = Operands<'a, T>;
    type Failure = Infallible;
    type Trial = TrialOperands<T>;

    fn offers(&self, problem: &Problem, effort: Effort) -> Vec<Offer<Candidate>> {
        let offer = |candidate: Candidate, same_bits| Offer {
            candidate,
            same_bits,
            is_spare: false,
            available: candidate.available(problem, size_of::<T>()),
        };
        let in_tiles = |candidate: fn(TileShape) -> Candidate| {
            let wanted = match effort {
                Effort::Off => 1,
                Effort::Limited | Effort::Full => BFLOAT16_TILES.len(),
            };
            let tiles = BFLOAT16_TILES.into_iter().take(wanted);
            tiles.map(|tile| offer(candidate(tile), true)).collect()
        };
        if problem.inputs == Inputs::Float32AsBfloat16 {
            return in_tiles(|TileShape { rows, columns }| Candidate::Bfloat16 { rows, columns });
        }
        if is_in_pieces(problem, self.pieces_from) {
            return in_tiles(|TileShape { rows, columns }| Candidate::InPieces { rows, columns });
        }
        let mut offers = vec![offer(Candidate::Whole, true)];
        if effort >= Effort::Limited {
            offers.extend(TILES.map(|candidate| offer(candidate, true)));
        }
        if effort >= Effort::Full {
            offers.extend(SPLITS.map(|candidate| offer(candidate, false)));
        }
        offers
    }

    fn launch(
        &self,
        problem: &Problem,
        candidate: Candidate,
        operands: &mut Operands<T>,
    ) -> Result<(), Infallible> {
        let Operands {
            a,
            b,
            c,
            c_is_empty,
            bias,
            aux,
        } = operands;
        let a = view(a, problem.a_shape(), problem.a);
        let b = view(b, problem.b_shape(), problem.b);
        let output = if problem.accumulate && !*c_is_empty {
            Output::Accumulate
        } else {
            Output::Replace
        };
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut compute = |c: &mut [T], output| candidate.compute(c, output, a, b, &mut packed);
        match (problem.epilogue, aux) {
            (Epilogue::Bias, _) => {
                kernels::fill_rows(c, bias);
                compute(c, Output::Accumulate);
            }
            (Epilogue::BiasGelu(form), Aux::Written(sum)) => {
                kernels::fill_rows(sum, bias);
                compute(sum, Output::Accumulate);
                gelu::forward(form, sum, c);
            }
            (Epilogue::GeluBackward(form), Aux::Read(x)) => {
                compute(c, output);
                gelu::backward(form, x, c);
            }
            _ => compute(c, output),
        }
        Ok(())
    }

    fn trial_bytes(&self, problem: &Problem) -> u64 {
        trial::bytes::<T>(problem)
    }

    /// Halves the longest side until the trial fits: tiles are far smaller than what remains.
    fn stand_in(&self, problem: &Problem, room: u64) -> Option<Problem> {
        trial::stand_in::<T>(problem, room)
    }

    fn trial(&self, problems: &[Problem]) -> Result<TrialOperands<T>, Unavailable> {
        TrialOperands::new(problems)
    }

    fn operands<'a>(&self, trial: &'a mut TrialOperands<T>, problem: &Problem) -> Operands<'a, T> {
        trial.operands(problem)
    }

    fn fill(
        &self,
        trial: &mut TrialOperands<T>,
        problem: &Problem,
        operand: Operand,
        fill: Fill,
    ) -> Result<(), Unavailable> {
        trial.fill(problem, operand, fill);
        Ok(())
    }

    fn read(
        &self,
        trial: &mut TrialOperands<T>,
        problem: &Problem,
        operand: Operand,
        indices: &[usize],
    ) -> Result<Vec<f32>, Unavailable> {
        Ok(trial.read(problem, operand, indices))
    }

    fn keep(&self, trial: &mut TrialOperands<T>, problem: &Problem) -> Result<(), Unavailable> {
        trial.keep(problem);
        Ok(())
    }

    fn compare(
        &self,
        trial: &mut TrialOperands<T>,
        problem: &Problem,
        operand: Operand,
        tolerance: &Tolerance,
    ) -> Result<Comparison, Unavailable> {
        Ok(trial.compare(problem, operand, tolerance))
    }

    fn rest(&self) {
        crate::device::return_freed_memory();
    }

    fn time(
        &self,
        problem: &Problem,
        candidate: Candidate,
        trial: &mut TrialOperands<T>,
    ) -> Result<Duration, Infallible> {
        let started = Instant::now();
        self.launch(problem, candidate, &mut self.operands(trial, problem))?;
        Ok(started.elapsed())
    }
}
