//! D = alpha op(A) op(B) + beta C, batched, in plain code: what cuBLAS and cuBLASLt come down to.
//!
//! Sums run in the type of the computation and in a fixed order, so that a product is the same
//! whenever it is computed; a real library's order, and with it the last bits, differ.

use half::{bf16, f16};
use rayon::prelude::*;

use super::epilogue::Epilogue;
use crate::fault::{Fault, Place};
use crate::memory::ForOperation;

/// What a matrix holds: a `cudaDataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    F16,
    Bf16,
    F32,
    F64,
}

impl Kind {
    /// The numbers of `library_types.h`.
    pub fn from_code(code: u32) -> Option<Kind> {
        match code {
            0 => Some(Kind::F32),
            1 => Some(Kind::F64),
            2 => Some(Kind::F16),
            14 => Some(Kind::Bf16),
            _ => None,
        }
    }

    pub fn bytes(self) -> u64 {
        match self {
            Kind::F16 | Kind::Bf16 => 2,
            Kind::F32 => 4,
            Kind::F64 => 8,
        }
    }

    /// f32 holds f16 and bf16 exactly, f64 everything.
    pub fn read<R: Real>(self, bytes: &[u8]) -> Vec<R> {
        match self {
            Kind::F16 => elements(bytes, |b| R::from_f32(f16::from_le_bytes(b).to_f32())),
            Kind::Bf16 => elements(bytes, |b| R::from_f32(bf16::from_le_bytes(b).to_f32())),
            Kind::F32 => elements(bytes, |b| R::from_f32(f32::from_le_bytes(b))),
            Kind::F64 => elements(bytes, |b| R::from_f64(f64::from_le_bytes(b))),
        }
    }

    fn write<R: Real>(self, values: &[R]) -> Vec<u8> {
        let values = values.iter();
        match self {
            Kind::F16 => values
                .flat_map(|v| f16::from_f32(v.to_f32()).to_le_bytes())
                .collect(),
            Kind::Bf16 => values
                .flat_map(|v| bf16::from_f32(v.to_f32()).to_le_bytes())
                .collect(),
            Kind::F32 => values.flat_map(|v| v.to_f32().to_le_bytes()).collect(),
            Kind::F64 => values.flat_map(|v| v.to_f64().to_le_bytes()).collect(),
        }
    }

    /// A value as it would be read again after it was written.
    fn round<R: Real>(self, value: R) -> R {
        match self {
            Kind::F16 => R::from_f32(f16::from_f32(value.to_f32()).to_f32()),
            Kind::Bf16 => R::from_f32(bf16::from_f32(value.to_f32()).to_f32()),
            Kind::F32 => R::from_f32(value.to_f32()),
            Kind::F64 => value,
        }
    }
}

fn elements<R, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> R) -> Vec<R> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|chunk| value(*chunk)).collect()
}

/// The type that sums run in.
pub trait Real: Copy + Send + Sync + Default + 'static {
    fn from_f32(value: f32) -> Self;
    fn from_f64(value: f64) -> Self;
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
}

macro_rules! real {
    ($kind:ty) => {
        impl Real for $kind {
            fn from_f32(value: f32) -> Self {
                value as $kind
            }
            fn from_f64(value: f64) -> Self {
                value as $kind
            }
            fn to_f32(self) -> f32 {
                self as f32
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn add(self, other: Self) -> Self {
                self + other
            }
            fn mul(self, other: Self) -> Self {
                self * other
            }
        }
    };
}
real!(f32);
real!(f64);

/// How operands are rounded before they are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Full,
    /// 10 bits behind the point, as tensor cores take f32.
    Tf32,
    F16,
    Bf16,
}

impl Precision {
    fn round_all<R: Real>(self, values: &mut [R]) {
        if self != Precision::Full {
            for value in values {
                *value = R::from_f32(self.round(value.to_f32()));
            }
        }
    }

    fn round(self, value: f32) -> f32 {
        match self {
            Precision::Full => value,
            Precision::Tf32 if value.is_finite() => {
                // To the nearest, ties away from zero, as `cvt.rna.tf32.f32` does.
                f32::from_bits((value.to_bits() + 0x1000) & !0x1fff)
            }
            Precision::Tf32 => value,
            Precision::F16 => f16::from_f32(value).to_f32(),
            Precision::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }
}

/// A batch of matrices in the card's memory.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub address: u64,
    pub kind: Kind,
    /// Elements from one column to the next, or from one row to the next if `by_rows`.
    pub leading: u64,
    pub by_rows: bool,
    /// Elements from one matrix of the batch to the next.
    pub stride: i64,
}

/// alpha or beta: given by the host, or lying in the card's memory.
#[derive(Clone, Copy, Debug)]
pub enum Scale {
    Value(f64),
    At { address: u64, kind: Kind },
}

impl Scale {
    fn read(self, memory: &ForOperation) -> Result<f64, Fault> {
        match self {
            Scale::Value(value) => Ok(value),
            Scale::At { address, kind } => {
                let mut bytes = vec![0; kind.bytes() as usize];
                memory.copy_out(address, &mut bytes)?;
                Ok(kind.read::<f64>(&bytes)[0])
            }
        }
    }
}

/// A batch of products: A is m x k, B is k x n, C and D are m x n, after transposing.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// The entry point that was called, for faults.
    pub name: &'static str,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub batch: usize,
    pub a: Matrix,
    pub transpose_a: bool,
    pub b: Matrix,
    pub transpose_b: bool,
    pub c: Matrix,
    pub d: Matrix,
    pub alpha: Scale,
    pub beta: Scale,
    pub precision: Precision,
    /// Whether sums run in f64.
    pub double: bool,
    /// Whether K is cut in two, each part of a sum is rounded to D's type, and what they add up to is, too.
    pub halves: bool,
    pub epilogue: Epilogue,
}

impl Product {
    /// Computes it. Nothing is read that the product does not need: with beta zero, C may hold anything.
    pub fn run(&self, memory: &ForOperation) -> Result<(), Fault> {
        if self.m == 0 || self.n == 0 {
            return Ok(());
        }
        let done = if self.double {
            self.run_in::<f64>(memory)
        } else {
            self.run_in::<f32>(memory)
        };
        done.map_err(|fault| Fault {
            place: Some(Place {
                kernel: self.name.into(),
                line: 0,
                block: [0; 3],
                thread: [0; 3],
            }),
            ..fault
        })
    }

    fn run_in<R: Real>(&self, memory: &ForOperation) -> Result<(), Fault> {
        let (alpha, beta) = (self.alpha.read(memory)?, self.beta.read(memory)?);
        for index in 0..self.batch {
            self.run_one::<R>(memory, index, alpha, beta)?;
        }
        Ok(())
    }

    fn run_one<R: Real>(
        &self,
        memory: &ForOperation,
        index: usize,
        alpha: f64,
        beta: f64,
    ) -> Result<(), Fault> {
        let (m, n) = (self.m, self.n);
        // With alpha zero, A and B may hold anything, too.
        let k = if alpha == 0.0 { 0 } else { self.k };
        // A by rows and B by columns, so that every element of the product is one dot product.
        let mut a = self
            .a
            .read::<R>(memory, index, [m, k], self.transpose_a, true)?;
        let mut b = self
            .b
            .read::<R>(memory, index, [k, n], self.transpose_b, false)?;
        self.precision.round_all(&mut a);
        self.precision.round_all(&mut b);
        let mut product = if beta == 0.0 {
            vec![R::default(); m * n]
        } else {
            self.c.read(memory, index, [m, n], false, false)?
        };
        let (alpha, beta) = (R::from_f64(alpha), R::from_f64(beta));
        let columns = product.par_chunks_mut(m).enumerate();
        columns.for_each(|(column, out)| {
            let b = &b[column * k..][..k];
            for (row, out) in out.iter_mut().enumerate() {
                let sum = self.sum(alpha, &a[row * k..][..k], b);
                *out = sum.add(beta.mul(*out));
            }
        });
        self.epilogue.apply(memory, index, [m, n], &mut product)?;
        self.d.write(memory, index, [m, n], product)
    }

    /// An element of alpha A B.
    fn sum<R: Real>(&self, alpha: R, a: &[R], b: &[R]) -> R {
        if !self.halves {
            return alpha.mul(dot(a, b));
        }
        let ((a, a_rest), (b, b_rest)) = (in_two(a), in_two(b));
        let parts = [dot(a, b), dot(a_rest, b_rest)];
        let [first, second] = parts.map(|part| self.d.kind.round(alpha.mul(part)));
        self.d.kind.round(first.add(second))
    }
}

impl Matrix {
    /// Where one of the batch begins.
    fn start(&self, index: usize) -> u64 {
        let elements = self.stride.wrapping_mul(index as i64);
        let bytes = elements.wrapping_mul(self.kind.bytes() as i64);
        self.address.wrapping_add_signed(bytes)
    }

    /// One matrix of the batch, `shape` after transposing: row after row, or column after column.
    /// Only its elements are read, not what lies between its columns.
    pub fn read<R: Real>(
        &self,
        memory: &ForOperation,
        index: usize,
        [rows, columns]: [usize; 2],
        transposed: bool,
        by_rows: bool,
    ) -> Result<Vec<R>, Fault> {
        let lies_by_rows = transposed != self.by_rows;
        let (runs, length) = if lies_by_rows {
            (rows, columns)
        } else {
            (columns, rows)
        };
        let mut values = Vec::with_capacity(runs * length);
        let mut bytes = vec![0; length * self.kind.bytes() as usize];
        for run in 0..runs {
            let offset = run as u64 * self.leading * self.kind.bytes();
            memory.copy_out(self.start(index).wrapping_add(offset), &mut bytes)?;
            values.extend(self.kind.read::<R>(&bytes));
        }
        Ok(if lies_by_rows == by_rows {
            values
        } else {
            turned(&values, runs, length)
        })
    }

    /// Writes one matrix of the batch, given column after column.
    pub fn write<R: Real>(
        &self,
        memory: &ForOperation,
        index: usize,
        [rows, columns]: [usize; 2],
        values: Vec<R>,
    ) -> Result<(), Fault> {
        let (values, length) = if self.by_rows {
            (turned(&values, columns, rows), columns)
        } else {
            (values, rows)
        };
        for (run, values) in values.chunks(length).enumerate() {
            let offset = run as u64 * self.leading * self.kind.bytes();
            let address = self.start(index).wrapping_add(offset);
            memory.copy_in(address, &self.kind.write(values))?;
        }
        Ok(())
    }
}

/// `runs` runs of `length`, element by element of all runs.
fn turned<R: Real>(values: &[R], runs: usize, length: usize) -> Vec<R> {
    let positions = (0..length).flat_map(|offset| (0..runs).map(move |run| run * length + offset));
    positions.map(|position| values[position]).collect()
}

fn in_two<R>(values: &[R]) -> (&[R], &[R]) {
    values.split_at(values.len().div_ceil(2))
}

/// Sixteen sums side by side, which a compiler turns into vectors.
fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    let (a_chunks, a_rest) = a.as_chunks::<16>();
    let (b_chunks, b_rest) = b.as_chunks::<16>();
    let mut sums = [R::default(); 16];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = sum.add(a.mul(*b));
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a.mul(*b));
    sums.into_iter().chain(rest).fold(R::default(), R::add)
}
