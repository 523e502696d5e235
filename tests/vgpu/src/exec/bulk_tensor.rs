//! `cp.async.bulk.tensor`: boxes of tensors that a tensor map describes, tiled mode.

use super::bulk::{Landing, is_load, load, read_global, shared_side, take_source, write_global};
use super::code::{Address, Code, Source};
use super::decode::{Decoded, Decoding};
use super::memory_ops::{lanes, read, resolve};
use super::order::Who;
use super::warp::{Machine, Trouble, View, Warp};
use crate::fault::What;
use crate::ptx::ir::Space;
use crate::ptx::names::Operand;
use crate::ptx::types::Type;
use crate::tensor_map::{BYTES, Swizzle, TensorMap};

pub struct TensorCopy {
    /// In shared memory.
    shared: Address,
    map: Address,
    /// Of the box's first element, the innermost first.
    coordinates: Vec<Source>,
    /// Of a load.
    barrier: Option<Address>,
}

/// What follows `cp.async.bulk.tensor`.
pub fn decode(d: &mut Decoding) -> Decoded {
    const RANKS: [(&str, usize); 5] = [("1d", 1), ("2d", 2), ("3d", 3), ("4d", 4), ("5d", 5)];
    let Some(rank) = d.take_one_of(&RANKS) else {
        return Ok(None);
    };
    d.take("tile");
    let loads = is_load(d)?;
    let (shared, map) = if loads { (0, 1) } else { (1, 0) };
    d.expect_operands(if loads { 3 } else { 2 })?;
    let Operand::Pair(pair) = d.operand(map)?.clone() else {
        return Err("a tensor map with coordinates was expected".into());
    };
    let (Operand::Address(map, _), Operand::Vector(list)) = *pair else {
        return Err("a tensor map with coordinates was expected".into());
    };
    if list.len() != rank {
        return Err(format!(
            "{rank} coordinates were expected, {} found",
            list.len()
        ));
    }
    let coordinates: Result<_, _> = list.iter().map(|c| d.source(c, Type::S32)).collect();
    let barrier = if loads { Some(d.address(2)?.0) } else { None };
    Ok(Some(Code::CopyTensor(Box::new(TensorCopy {
        shared: d.address(shared)?.0,
        map,
        coordinates: coordinates?,
        barrier,
    }))))
}

impl TensorCopy {
    pub fn run(
        &self,
        machine: &mut Machine,
        warp: &mut Warp,
        view: &View,
        mask: u32,
    ) -> Result<(), Trouble> {
        for lane in lanes(mask) {
            let map = self.tensor_map(machine, warp, view, lane)?;
            let corner: Vec<i64> = (self.coordinates.iter())
                .map(|&c| i64::from(warp.value(view, c).0[lane] as i32))
                .collect();
            // A swizzle moves bytes within 128 bytes times eight; the copy starts at any 128.
            let at = shared_side(warp, view, self.shared, lane, 128)?;
            let who = Who {
                thread: warp.first_thread + lane as u32,
                line: view.line,
                strong: false,
            };
            match self.barrier {
                Some(barrier) => {
                    let mut bytes = vec![0; map.box_bytes() as usize];
                    for row in rows(&map, &corner) {
                        let from = &mut bytes[row.at..row.at + row.bytes];
                        read_global(machine, row.address, from, lane)?;
                    }
                    let landing = Landing {
                        to: at,
                        bytes: swizzled(&bytes, at, map.swizzle, true),
                        thread: who.thread,
                        line: view.line,
                    };
                    let to = warp.value(view, barrier.base).0[lane].wrapping_add(barrier.offset);
                    load(machine, who, lane, landing, to)?;
                }
                None => {
                    let bytes = take_source(machine, warp, who, lane, at, map.box_bytes())?;
                    let bytes = swizzled(&bytes, at, map.swizzle, false);
                    for row in rows(&map, &corner) {
                        let from = &bytes[row.at..row.at + row.bytes];
                        write_global(machine, row.address, from, lane)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn tensor_map(
        &self,
        machine: &mut Machine,
        warp: &Warp,
        view: &View,
        lane: usize,
    ) -> Result<TensorMap, Trouble> {
        let address = warp.value(view, self.map.base).0[lane].wrapping_add(self.map.offset);
        let wrong = |what: &str| Trouble::at(lane, address, What::Undefined(what.into()));
        let (space, at) = resolve(Space::Generic, address);
        if !matches!(space, Space::Param | Space::Global) {
            return Err(wrong(
                "a tensor map that lies neither in a `__grid_constant__` parameter nor in global memory",
            ));
        }
        if !at.is_multiple_of(64) {
            return Err(Trouble::at(lane, address, What::Misaligned { bytes: 64 }));
        }
        let mut bytes = [0; BYTES];
        for (i, to) in bytes.chunks_exact_mut(8).enumerate() {
            let from = at + 8 * i as u64;
            let value = read(machine, warp, lane, space, from, 8, view.line, false);
            let value = value.map_err(|what| Trouble::at(lane, from, what))?;
            to.copy_from_slice(&value.to_le_bytes());
        }
        let map = TensorMap::decode(&bytes)
            .ok_or_else(|| wrong("these 128 bytes are no tensor map of this driver"))?;
        if map.dims.len() != self.coordinates.len() {
            return Err(wrong(&format!(
                "{} coordinates for a tensor of {} dimensions",
                self.coordinates.len(),
                map.dims.len()
            )));
        }
        let inner = u64::from(map.boxes[0] * map.element);
        if map.swizzle != Swizzle::None && inner != map.swizzle.span() {
            return Err(wrong(
                "boxes narrower than their swizzle are not executed by the virtual GPU",
            ));
        }
        Ok(map)
    }
}

/// A part of a box that lies in the tensor: side by side there and in the box.
struct Row {
    address: u64,
    /// In the box.
    at: usize,
    bytes: usize,
}

/// The rows of the box at `corner`, without what lies outside.
fn rows<'a>(map: &'a TensorMap, corner: &'a [i64]) -> impl Iterator<Item = Row> + 'a {
    let element = map.element as usize;
    let inner = map.boxes[0] as usize;
    let dim = map.dims[0] as i64;
    let first = corner[0].clamp(0, dim);
    let last = (corner[0] + inner as i64).clamp(0, dim);
    let count: usize = map.boxes[1..].iter().map(|&side| side as usize).product();
    (0..count).filter_map(move |number| {
        let (mut rest, mut address) = (number, map.address);
        for (i, &side) in map.boxes[1..].iter().enumerate() {
            let index = corner[i + 1] + (rest % side as usize) as i64;
            rest /= side as usize;
            if index < 0 || index >= map.dims[i + 1] as i64 {
                return None;
            }
            address = address.wrapping_add(index as u64 * map.strides[i]);
        }
        (first < last).then(|| Row {
            address: address + first as u64 * element as u64,
            at: (number * inner + (first - corner[0]) as usize) * element,
            bytes: (last - first) as usize * element,
        })
    })
}

/// A box as it lies from `start` on in shared memory, or (not `into`) back.
fn swizzled(bytes: &[u8], start: u64, swizzle: Swizzle, into: bool) -> Vec<u8> {
    let mut out = vec![0; bytes.len()];
    for (i, piece) in bytes.chunks_exact(16).enumerate() {
        let plain = start + 16 * i as u64;
        let other = (swizzle.place(plain) - start) as usize;
        if into {
            out[other..other + 16].copy_from_slice(piece)
        } else {
            out[16 * i..16 * i + 16].copy_from_slice(&bytes[other..other + 16])
        }
    }
    out
}
