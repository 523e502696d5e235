//! Matrices of `wgmma` in shared memory, found by a matrix descriptor.
//!
//! Layouts are those of the PTX ISA, "Asynchronous Warpgroup Level Canonical Layouts": the matrix in pieces of 16 bytes
//! (T elements each), K-major with T elements along K in a piece, MN-major with T along M or N; then the swizzle.

use super::order::Who;
use super::warp::Machine;
use crate::fault::What;
use crate::tensor_map::Swizzle;

/// "Matrix descriptor format" of the PTX ISA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    start: u64,
    leading: u64,
    stride: u64,
    swizzle: Swizzle,
}

/// What part of a matrix is wanted: rows (of M or N) `first` to `first + rows`, and the whole of `k`.
#[derive(Clone, Copy)]
pub struct Part {
    pub first: usize,
    pub rows: usize,
    pub k: usize,
    pub element_bytes: usize,
    /// M or N is contiguous, not K.
    pub mn_major: bool,
}

impl Descriptor {
    pub fn of(bits: u64) -> Result<Self, Box<What>> {
        let field = |at: u32| (bits >> at & 0x3fff) << 4;
        let swizzle = match bits >> 62 {
            0 => Swizzle::None,
            1 => Swizzle::Bytes128,
            2 => Swizzle::Bytes64,
            _ => Swizzle::Bytes32,
        };
        let descriptor = Self {
            start: field(0),
            leading: field(16),
            stride: field(32),
            swizzle,
        };
        // The pattern repeats after eight rows: a base offset is for those that start in between.
        let span = swizzle.span();
        let rows = descriptor.start & (8 * span - 1) & !(span - 1);
        if bits >> 49 & 7 != 0 || (swizzle != Swizzle::None && rows != 0) {
            return Err(Box::new(What::Undefined(format!(
                "a matrix at {:#x} whose {span} B swizzle does not start there ({} is executed only)",
                descriptor.start, "base offset 0"
            ))));
        }
        Ok(descriptor)
    }

    /// Address of the piece that holds `row` (of M or N) and `k`, before the swizzle.
    fn piece(&self, part: &Part, row: usize, k: usize) -> u64 {
        let per = 16 / part.element_bytes;
        let span = self.swizzle.span();
        let [row, k] = [row, k].map(|i| i as u64);
        let per = per as u64;
        let offset = match (part.mn_major, self.swizzle) {
            // ((8,m),(T,2k)):((span,SBO),(1,LBO)), where swizzled columns of pieces follow each other.
            (false, Swizzle::None) => row % 8 * 16 + row / 8 * self.stride + k / per * self.leading,
            (false, _) => row % 8 * span + row / 8 * self.stride + k / per * 16,
            // ((T,1,m),(8,k)):((1,T,SBO),(1T,LBO))
            (true, Swizzle::None) => row / per * self.stride + k % 8 * 16 + k / 8 * self.leading,
            // ((T,span,m),(8,k)):((1,T,LBO),(span,SBO))
            (true, _) => {
                let (piece, wide) = (row / per, span / 16);
                piece % wide * 16 + piece / wide * self.leading + k % 8 * span + k / 8 * self.stride
            }
        };
        self.start + offset
    }

    /// The part, row by row, as bits of elements; the words read are added to `words`. The error names an address.
    pub fn read(
        &self,
        machine: &mut Machine,
        who: Who,
        part: Part,
        words: &mut Vec<u32>,
    ) -> Result<Vec<u32>, (u64, Box<What>)> {
        let per = 16 / part.element_bytes;
        let mut out = vec![0; part.rows * part.k];
        let (row_step, k_step) = if !part.mn_major { (1, per) } else { (per, 1) };
        for row in (0..part.rows).step_by(row_step) {
            for k in (0..part.k).step_by(k_step) {
                let piece = self.piece(&part, part.first + row, k);
                let at = self.swizzle.place(piece);
                for word in 0..4 {
                    let address = at + 4 * word as u64;
                    let value = machine.shared.load_by_proxy(address, who);
                    let value = value.map_err(|what| (address, what))?;
                    words.push((address / 4) as u32);
                    for i in 0..4 / part.element_bytes {
                        let element = word * (4 / part.element_bytes) + i;
                        let (row, k) = if !part.mn_major {
                            (row, k + element)
                        } else {
                            (row + element, k)
                        };
                        let bits = value >> (8 * part.element_bytes * i);
                        out[row * part.k + k] = match part.element_bytes {
                            2 => bits & 0xffff,
                            _ => bits,
                        };
                    }
                }
            }
        }
        Ok(out)
    }
}
