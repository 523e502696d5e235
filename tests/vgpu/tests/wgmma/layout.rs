//! The canonical layouts of operands in shared memory.

/// A mode of a canonical layout: extents and strides in bytes, the innermost first.
type Mode = [(usize, usize); 3];

/// An operand in shared memory: rows (of M or N) and K of "Canonical Layouts", strides in bytes, then Swizzle<b,4,3>.
pub struct Layout {
    rows: Mode,
    k: Mode,
    swizzle_bits: usize,
    leading: usize,
    stride: usize,
}

fn place(mode: &Mode, mut index: usize) -> usize {
    mode.iter()
        .map(|&(extent, stride)| {
            let here = index % extent;
            index /= extent;
            here * stride
        })
        .sum()
}

impl Layout {
    /// The ISA's layout for swizzle mode `bits`: 0 to 3 for none, 32, 64 and 128 bytes. Strides leave gaps.
    pub fn new(mn_major: bool, bits: usize, element: usize, rows: usize) -> Self {
        const MANY: usize = usize::MAX;
        let (per, span) = (16 / element, 16 << bits);
        match (mn_major, bits) {
            // ((8,m),(T,2k)):((1T,SBO),(1,LBO))
            (false, 0) => {
                let (leading, stride) = (rows * 16 + 128, 128);
                Self {
                    rows: [(8, 16), (MANY, stride), (1, 0)],
                    k: [(per, element), (MANY, leading), (1, 0)],
                    swizzle_bits: 0,
                    leading,
                    stride,
                }
            }
            // ((8,m),(T,2k)):((S,SBO),(1,T))
            (false, _) => Self {
                rows: [(8, span), (MANY, 8 * span), (1, 0)],
                k: [(per, element), (MANY, 16), (1, 0)],
                swizzle_bits: bits,
                leading: 0,
                stride: 8 * span,
            },
            // ((T,1,m),(8,k)):((1,T,SBO),(1T,LBO))
            (true, 0) => {
                let (leading, stride) = (128, 256 + 16);
                Self {
                    rows: [(per, element), (MANY, stride), (1, 0)],
                    k: [(8, 16), (MANY, leading), (1, 0)],
                    swizzle_bits: 0,
                    leading,
                    stride,
                }
            }
            // ((T,S/16,m),(8,k)):((1,T,LBO),(S,SBO))
            (true, _) => {
                let (leading, stride) = (16 * span, 8 * span);
                Self {
                    rows: [(per, element), (span / 16, 16), (MANY, leading)],
                    k: [(8, span), (MANY, stride), (1, 0)],
                    swizzle_bits: bits,
                    leading,
                    stride,
                }
            }
        }
    }

    pub fn offset(&self, row: usize, k: usize) -> usize {
        let plain = place(&self.rows, row) + place(&self.k, k);
        plain ^ (plain >> 7 & ((1 << self.swizzle_bits) - 1)) << 4
    }

    pub fn descriptor(&self, start: usize) -> u64 {
        let mode = [0u64, 3, 2, 1][self.swizzle_bits];
        let field = |bytes: usize| (bytes >> 4 & 0x3fff) as u64;
        field(start) | field(self.leading) << 16 | field(self.stride) << 32 | mode << 62
    }
}
