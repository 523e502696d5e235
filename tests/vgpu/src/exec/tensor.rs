//! `ldmatrix` and `mma.sync`: small matrices spread over the lanes of a warp.
//!
//! Layouts are those of the PTX ISA, "Matrix fragments for mma.m16n8k8" and "... m16n8k16": with group = lane / 4 and
//! member = lane % 4, a lane holds rows `group` and `group + 8` of A and D, and column `group` of B.

use half::{bf16, f16};

use super::code::{Code, Reg, Source};
use super::decode::{Decoded, Decoding};
use super::lanes::{Lanes, WARP};
use super::memory_ops::{Place, lanes, read, space_of};
use super::rounding::{HALF, Rounding, round_to};
use super::warp::{Machine, Trouble, View, Warp};
use crate::fault::What;
use crate::ptx::ir::Space;
use crate::ptx::types::Type;

/// Loads one, two or four 8x8 matrices of 16-bit values; lanes 8i to 8i+7 give the row addresses of matrix i.
pub struct LoadMatrix {
    place: Place,
    to: Vec<Reg>,
    transposed: bool,
}

/// `D = A * B + C`, with A of 16 x k and B of k x 8.
pub struct Mma {
    k: usize,
    element: Type,
    /// C and D are singles, else halves.
    single: bool,
    to: Vec<Reg>,
    a: Vec<Source>,
    b: Vec<Source>,
    c: Vec<Source>,
}

pub fn decode(d: &mut Decoding) -> Decoded {
    match d.name {
        "ldmatrix" => load_matrix(d),
        "mma" => mma(d),
        _ => Ok(None),
    }
}

pub fn registers(d: &Decoding, at: usize) -> Result<Vec<Reg>, String> {
    let list = d.vector_to(at)?;
    list.into_iter()
        .map(|reg| reg.ok_or_else(|| "a register was expected, not `_`".to_string()))
        .collect()
}

fn load_matrix(d: &mut Decoding) -> Decoded {
    if !d.take("sync") || !d.take("m8n8") || d.ty()? != Type::B16 {
        return Ok(None);
    }
    d.take("aligned");
    let Some(count) = d.take_one_of(&[("x1", 1), ("x2", 2), ("x4", 4)]) else {
        return Ok(None);
    };
    let transposed = d.take("trans");
    let to = registers(d, 0)?;
    if to.len() != count {
        return Err(format!(
            "{count} registers were expected, {} found",
            to.len()
        ));
    }
    let (space, address) = space_of(d, 1)?;
    let place = Place {
        space,
        address,
        bytes: 16,
        strong: false,
    };
    Ok(Some(Code::LoadMatrix(Box::new(LoadMatrix {
        place,
        to,
        transposed,
    }))))
}

fn mma(d: &mut Decoding) -> Decoded {
    let [to, a, b, c] = d.types[..] else {
        return Ok(None);
    };
    let Some(k) = d.take_one_of(&[("m16n8k4", 4), ("m16n8k8", 8), ("m16n8k16", 16)]) else {
        return Ok(None);
    };
    let single = to == Type::F32;
    let possible = match (a, k) {
        (Type::F16, 8 | 16) => single || to == Type::F16,
        (Type::Bf16, 8 | 16) | (Type::Tf32, 4 | 8) => single,
        _ => false,
    };
    if !possible || a != b || to != c || !d.take("sync") || !d.take("row") || !d.take("col") {
        return Ok(None);
    }
    d.take("aligned");
    let mma = Mma {
        k,
        element: a,
        single,
        to: registers(d, 0)?,
        a: d.vector_from(1, Type::B32)?,
        b: d.vector_from(2, Type::B32)?,
        c: d.vector_from(3, Type::B32)?,
    };
    let per_register = if a == Type::Tf32 { 1 } else { 2 };
    let (wants_a, wants_d) = (k / 2 / per_register, if single { 4 } else { 2 });
    if mma.a.len() != wants_a
        || mma.b.len() != wants_a / 2
        || mma.c.len() != wants_d
        || mma.to.len() != wants_d
    {
        return Err("the vectors do not have the lengths of this shape".into());
    }
    Ok(Some(Code::Mma(Box::new(mma))))
}

pub fn whole_warp(active: u32, what: &str) -> Result<(), Trouble> {
    match active {
        u32::MAX => Ok(()),
        _ => {
            let lane = (!active).trailing_zeros() as usize % WARP;
            Err(Trouble::of(
                lane,
                What::WarpDivergence(format!("`{what}`, which needs all 32 lanes")),
            ))
        }
    }
}

impl LoadMatrix {
    pub fn run(
        &self,
        machine: &mut Machine,
        warp: &mut Warp,
        view: &View,
        active: u32,
    ) -> Result<(), Trouble> {
        whole_warp(active, "ldmatrix")?;
        let addresses = self.place.addresses(warp, view);
        for (matrix, to) in self.to.iter().enumerate() {
            let mut rows = [[0u16; 8]; 8];
            for (i, row) in rows.iter_mut().enumerate() {
                let lane = matrix * 8 + i;
                let address = addresses.0[lane];
                let (space, at) = self.place.resolve(address);
                if space != Space::Shared {
                    let what = What::Undefined("`ldmatrix` of memory that is not shared".into());
                    return Err(Trouble::at(lane, address, what));
                }
                if !at.is_multiple_of(16) {
                    return Err(Trouble::at(lane, address, What::Misaligned { bytes: 16 }));
                }
                for word in 0..2 {
                    let at = at + 8 * word as u64;
                    let bits = read(machine, warp, lane, space, at, 8, view.line, false)
                        .map_err(|what| Trouble::at(lane, at, what))?;
                    (0..4).for_each(|j| row[4 * word + j] = (bits >> (16 * j)) as u16);
                }
            }
            let mut out = Lanes::ZERO;
            for lane in 0..WARP {
                let (row, column) = (lane / 4, lane % 4 * 2);
                let [low, high] = if !self.transposed {
                    [rows[row][column], rows[row][column + 1]]
                } else {
                    [rows[column][row], rows[column + 1][row]]
                };
                out.0[lane] = u64::from(low) | u64::from(high) << 16;
            }
            warp.set(view, *to, active, &out);
        }
        Ok(())
    }
}

impl Mma {
    fn per_register(&self) -> usize {
        if self.element == Type::Tf32 { 1 } else { 2 }
    }

    /// Element `i` of a register, as a single.
    fn element(&self, register: u64, i: usize) -> f32 {
        let half = (register >> (16 * i)) as u16;
        match self.element {
            Type::F16 => f16::from_bits(half).to_f32(),
            Type::Bf16 => bf16::from_bits(half).to_f32(),
            // The lower bits of a tf32 are not seen.
            _ => f32::from_bits(register as u32 & !0x1fff),
        }
    }

    pub fn run(&self, warp: &mut Warp, view: &View, active: u32) -> Result<(), Trouble> {
        whole_warp(active, "mma.sync")?;
        let (mut a, mut b) = ([[0f32; 16]; 16], [[0f32; 16]; 8]);
        let per = self.per_register();
        // Columns of A that one register of a lane and its three fellows hold.
        let span = 4 * per;
        for (register, source) in self.a.iter().enumerate() {
            let values = warp.value(view, *source);
            for lane in 0..WARP {
                let row = lane / 4 + 8 * (register % 2);
                for i in 0..per {
                    a[row][lane % 4 * per + i + span * (register / 2)] =
                        self.element(values.0[lane], i);
                }
            }
        }
        // B by columns.
        for (register, source) in self.b.iter().enumerate() {
            let values = warp.value(view, *source);
            for lane in 0..WARP {
                for i in 0..per {
                    b[lane / 4][lane % 4 * per + i + span * register] =
                        self.element(values.0[lane], i);
                }
            }
        }
        self.products(warp, view, &a, &b);
        Ok(())
    }

    /// Sums in double precision, rounded once: a card sums in an order and a precision of its own.
    fn products(&self, warp: &mut Warp, view: &View, a: &[[f32; 16]; 16], b: &[[f32; 16]; 8]) {
        let dot = |row: usize, column: usize, c: f64| {
            let pairs = a[row][..self.k].iter().zip(&b[column][..self.k]);
            pairs.fold(c, |sum, (&x, &y)| sum + f64::from(x) * f64::from(y))
        };
        let columns = |lane: usize| [lane % 4 * 2, lane % 4 * 2 + 1];
        let c: Vec<Lanes> = self
            .c
            .iter()
            .map(|source| *warp.value(view, *source))
            .collect();
        for (register, to) in self.to.iter().enumerate() {
            let mut out = Lanes::ZERO;
            for lane in lanes(u32::MAX) {
                let bits = c[register].0[lane];
                out.0[lane] = if self.single {
                    let row = lane / 4 + 8 * (register / 2);
                    let sum = dot(
                        row,
                        columns(lane)[register % 2],
                        f32::from_bits(bits as u32).into(),
                    ) as f32;
                    u64::from(if sum.is_nan() {
                        super::float::NAN.to_bits()
                    } else {
                        sum.to_bits()
                    })
                } else {
                    let row = lane / 4 + 8 * register;
                    let [low, high] = [0, 1].map(|i| {
                        let c = f16::from_bits((bits >> (16 * i)) as u16).to_f32();
                        let sum = dot(row, columns(lane)[i], c.into());
                        if sum.is_nan() {
                            0x7fff
                        } else {
                            round_to(sum, HALF, Rounding::NearestEven)
                        }
                    });
                    low | high << 16
                };
            }
            warp.set(view, *to, u32::MAX, &out);
        }
    }
}
