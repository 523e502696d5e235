//! `wgmma.mma_async`: products of a warpgroup's matrices, done asynchronously.
//!
//! A warp computes its 16 of the 64 rows when it issues the instruction, and what it read and wrote is locked until it
//! has waited: registers in `products.rs`, shared memory by `Shared::hold`. Fragments are those of the PTX ISA,
//! "Register Fragments and Shared Memory Matrix Layouts".

use half::{bf16, f16};

use super::code::{Code, PredicateSource, Reg, Source};
use super::decode::{Decoded, Decoding};
use super::descriptor::{Descriptor, Part};
use super::lanes::{Lanes, WARP};
use super::order::Who;
use super::products::{Product, Shape};
use super::tensor::{registers, whole_warp};
use super::warp::{Machine, Trouble, View, Warp};
use crate::fault::What;
use crate::ptx::names::Operand;
use crate::ptx::types::Type;

/// Rows of a warp.
const ROWS: usize = 16;

enum MatrixA {
    Registers(Vec<Source>),
    Descriptor(Source),
}

/// `D = A * B + D`, or `A * B`: 64 x n, A of 64 x k.
pub struct Wgmma {
    shape: Shape,
    to: Vec<Reg>,
    a: MatrixA,
    b: Source,
    /// Whether D is added.
    add: PredicateSource,
    negate: [bool; 2],
    mn_major: [bool; 2],
}

pub fn decode(d: &mut Decoding) -> Decoded {
    if d.name != "wgmma" {
        return Ok(None);
    }
    d.names.needs_target(90, true)?;
    let what = d.take_one_of(&[
        ("fence", 0),
        ("commit_group", 1),
        ("wait_group", 2),
        ("mma_async", 3),
    ]);
    if !d.take("sync") || !d.take("aligned") {
        return Ok(None);
    }
    match what {
        Some(0) => Ok(Some(Code::FenceProducts)),
        Some(1) => Ok(Some(Code::CommitProducts)),
        Some(2) => Ok(Some(Code::WaitProducts {
            groups: d.integer(0)? as u32,
        })),
        Some(_) => product(d),
        None => Ok(None),
    }
}

fn product(d: &mut Decoding) -> Decoded {
    let [Type::F32, element, other] = d.types[..] else {
        return Ok(None);
    };
    let k = match element {
        Type::F16 | Type::Bf16 => 16,
        Type::Tf32 => 8,
        _ => return Ok(None),
    };
    let names = (8..=256).step_by(8).map(|n| (format!("m64n{n}k{k}"), n));
    let Some((_, n)) = names.into_iter().find(|(name, _)| d.take(name)) else {
        return Ok(None);
    };
    if element != other {
        return Ok(None);
    }
    let to = registers(d, 0)?;
    if to.len() != n / 2 {
        return Err(format!(
            "{} registers were expected, {} found",
            n / 2,
            to.len()
        ));
    }
    let a = match d.operand(1)? {
        Operand::Vector(list) if list.len() == 4 => {
            MatrixA::Registers(d.vector_from(1, Type::B32)?)
        }
        Operand::Vector(list) => {
            return Err(format!(
                "4 registers of A were expected, {} found",
                list.len()
            ));
        }
        _ => MatrixA::Descriptor(d.from(1, Type::B64)?),
    };
    let sign = |d: &Decoding, at: usize| match d.integer(at)? as i64 {
        1 => Ok(false),
        -1 => Ok(true),
        other => Err(format!("a scale of {other}, 1 and -1 are possible")),
    };
    // Only 16-bit types in shared memory can be transposed.
    let transposable = match (&a, element) {
        (_, Type::Tf32) => [None; 2],
        (MatrixA::Registers(_), _) => [None, Some(6)],
        (MatrixA::Descriptor(_), _) => [Some(6), Some(7)],
    };
    let mut mn_major = [false; 2];
    for (major, at) in mn_major.iter_mut().zip(transposable) {
        *major = at.map_or(Ok(0), |at| d.integer(at))? != 0;
    }
    d.expect_operands(6 + transposable.iter().flatten().count())?;
    Ok(Some(Code::Wgmma(Box::new(Wgmma {
        shape: Shape { n, k, element },
        to,
        a,
        b: d.from(2, Type::B64)?,
        add: d.predicate(3)?,
        negate: [sign(d, 4)?, sign(d, 5)?],
        mn_major,
    }))))
}

impl Wgmma {
    pub fn run(
        &self,
        machine: &mut Machine,
        warp: &mut Warp,
        view: &View,
        active: u32,
    ) -> Result<(), Trouble> {
        whole_warp(active, "wgmma.mma_async")?;
        if !machine.running.threads.is_multiple_of(128) {
            let what = "the block is not made of whole warpgroups (128 threads)";
            return Err(Trouble::of(0, What::Wgmma(what.into())));
        }
        let absolute = |index: usize| (view.registers + index) as u32;
        let to: Vec<u32> = (self.to.iter())
            .map(|reg| absolute(reg.index as usize))
            .collect();
        let inputs: Vec<u32> = match &self.a {
            MatrixA::Registers(list) => (list.iter().filter_map(|s| s.index().ok()))
                .map(absolute)
                .collect(),
            MatrixA::Descriptor(_) => Vec::new(),
        };
        warp.products
            .check_issue(&to, &inputs, self.shape)
            .map_err(|what| Trouble::of(0, what))?;
        let mut words = Vec::new();
        let a = self.matrix_a(machine, warp, view, &mut words)?;
        let part = Part {
            first: 0,
            rows: self.shape.n,
            k: self.shape.k,
            element_bytes: self.element_bytes(),
            mn_major: self.mn_major[1],
        };
        let b = self.shared_matrix(machine, warp, view, self.b, part, &mut words)?;
        self.multiply(warp, view, &a, &b);
        machine.shared.hold(&words, "`wgmma.mma_async`", view.line);
        warp.products.issue(
            Product::new(to, inputs, self.shape, words, view.line),
            self.fingerprint(warp, view),
        );
        Ok(())
    }

    /// What the warps of a warpgroup must have in common.
    fn fingerprint(&self, warp: &Warp, view: &View) -> u64 {
        let b = warp.value(view, self.b).0[0];
        let a = match &self.a {
            MatrixA::Descriptor(a) => warp.value(view, *a).0[0],
            MatrixA::Registers(_) => 0,
        };
        a.rotate_left(32) ^ b ^ u64::from(view.line).rotate_left(16)
    }

    fn element_bytes(&self) -> usize {
        self.shape.element.bytes() as usize
    }

    fn value(&self, bits: u32) -> f64 {
        f64::from(match self.shape.element {
            Type::F16 => f16::from_bits(bits as u16).to_f32(),
            Type::Bf16 => bf16::from_bits(bits as u16).to_f32(),
            // The lower bits of a tf32 are not seen.
            _ => f32::from_bits(bits & !0x1fff),
        })
    }

    fn shared_matrix(
        &self,
        machine: &mut Machine,
        warp: &Warp,
        view: &View,
        descriptor: Source,
        part: Part,
        words: &mut Vec<u32>,
    ) -> Result<Vec<f64>, Trouble> {
        let bits = warp.value(view, descriptor);
        if let Some(lane) = (0..WARP).find(|&lane| bits.0[lane] != bits.0[0]) {
            let what = "the lanes of the warp have different descriptors";
            return Err(Trouble::of(lane, What::Wgmma(what.into())));
        }
        let who = Who {
            thread: warp.first_thread,
            line: view.line,
            strong: false,
        };
        let descriptor = Descriptor::of(bits.0[0]).map_err(|what| Trouble::of(0, *what))?;
        let elements = descriptor
            .read(machine, who, part, words)
            .map_err(|(address, what)| Trouble::at(0, address, what))?;
        Ok(elements.iter().map(|&bits| self.value(bits)).collect())
    }

    /// This warp's rows of A.
    fn matrix_a(
        &self,
        machine: &mut Machine,
        warp: &Warp,
        view: &View,
        words: &mut Vec<u32>,
    ) -> Result<Vec<f64>, Trouble> {
        let k = self.shape.k;
        let list = match &self.a {
            MatrixA::Descriptor(source) => {
                let part = Part {
                    first: warp.first_thread as usize / WARP % 4 * ROWS,
                    rows: ROWS,
                    k,
                    element_bytes: self.element_bytes(),
                    mn_major: self.mn_major[0],
                };
                return self.shared_matrix(machine, warp, view, *source, part, words);
            }
            MatrixA::Registers(list) => list,
        };
        // As in `mma.m16n8k16`, and `.m16n8k8` with tf32.
        let per = 4 / self.element_bytes();
        let mut a = vec![0.0; ROWS * k];
        for (register, source) in list.iter().enumerate() {
            let values = warp.value(view, *source);
            for lane in 0..WARP {
                let row = lane / 4 + 8 * (register % 2);
                for i in 0..per {
                    let column = lane % 4 * per + i + 4 * per * (register / 2);
                    let bits = values.0[lane] as u32 >> (16 * i);
                    a[row * k + column] = self.value(bits);
                }
            }
        }
        Ok(a)
    }

    /// Sums in double precision, rounded once: a card sums in an order and a precision of its own.
    fn multiply(&self, warp: &mut Warp, view: &View, a: &[f64], b: &[f64]) {
        let Shape { n, k, .. } = self.shape;
        let add = warp.predicate(view, self.add);
        let sign = if self.negate[0] == self.negate[1] {
            1.0
        } else {
            -1.0
        };
        let mut by_k = vec![0.0; k * n];
        for (column, elements) in b.chunks_exact(k).enumerate() {
            for (i, &element) in elements.iter().enumerate() {
                by_k[i * n + column] = sign * element;
            }
        }
        // row = lane / 4 + 8 * (i / 2 % 2), column = 8 * (i / 4) + lane % 4 * 2 + i % 2.
        let row_of = |lane: usize, i: usize| lane / 4 + 8 * (i / 2 % 2);
        let column_of = |lane: usize, i: usize| 8 * (i / 4) + lane % 4 * 2 + i % 2;
        let mut sums = vec![0.0f64; ROWS * n];
        for (i, to) in self.to.iter().enumerate() {
            let old = &warp.registers[view.registers + to.index as usize];
            for lane in (0..WARP).filter(|lane| add >> lane & 1 == 1) {
                sums[row_of(lane, i) * n + column_of(lane, i)] =
                    f32::from_bits(old.0[lane] as u32).into();
            }
        }
        for (sums, a) in sums.chunks_exact_mut(n).zip(a.chunks_exact(k)) {
            for (&a, b) in a.iter().zip(by_k.chunks_exact(n)) {
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum += a * b;
                }
            }
        }
        for (i, to) in self.to.iter().enumerate() {
            let mut out = Lanes::ZERO;
            for (lane, x) in out.0.iter_mut().enumerate() {
                let sum = sums[row_of(lane, i) * n + column_of(lane, i)] as f32;
                *x = if sum.is_nan() {
                    super::float::NAN.to_bits().into()
                } else {
                    sum.to_bits().into()
                };
            }
            warp.set(view, *to, u32::MAX, &out);
        }
    }
}
