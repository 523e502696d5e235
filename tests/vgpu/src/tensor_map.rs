//! Tensor maps: how `cp.async.bulk.tensor` finds a box of a tensor in global memory and lays it out in shared memory.
//!
//! The 128 bytes are opaque; ours are not those of a real driver.

/// What `cuTensorMapEncodeTiled` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Bytes of an element.
    pub element: u32,
    /// First address.
    pub address: u64,
    /// Elements of each dimension, the innermost first.
    pub dims: Vec<u64>,
    /// Bytes from one index of a dimension to the next, from the second dimension on.
    pub strides: Vec<u64>,
    /// Elements of a box.
    pub boxes: Vec<u32>,
    pub swizzle: Swizzle,
}

/// How 16-byte pieces of rows change places, so that columns spread over the banks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Swizzle {
    #[default]
    None,
    Bytes32,
    Bytes64,
    Bytes128,
}

pub const BYTES: usize = 128;
const MAGIC: u64 = 0x7667_7075_6d61_7001;

impl Swizzle {
    /// Bytes of a row; 16 without.
    pub fn span(self) -> u64 {
        match self {
            Swizzle::None => 16,
            Swizzle::Bytes32 => 32,
            Swizzle::Bytes64 => 64,
            Swizzle::Bytes128 => 128,
        }
    }

    /// Where what belongs at `address` really lies: bits 4 and up are changed by as many bits from 7 on.
    #[inline]
    pub fn place(self, address: u64) -> u64 {
        address ^ (address >> 7 & (self.span() / 16 - 1)) << 4
    }

    fn of(number: u64) -> Option<Self> {
        [
            Swizzle::None,
            Swizzle::Bytes32,
            Swizzle::Bytes64,
            Swizzle::Bytes128,
        ]
        .get(number as usize)
        .copied()
    }
}

impl TensorMap {
    /// What a driver refuses.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let rank = self.dims.len();
        let element = u64::from(self.element);
        if !(1..=5).contains(&rank) || self.strides.len() + 1 != rank || self.boxes.len() != rank {
            return Err(format!("{rank} dimensions, 1 to 5 are possible"));
        }
        if self.address == 0 || !self.address.is_multiple_of(16) {
            return Err(format!("address {:#x} is no multiple of 16", self.address));
        }
        if let Some(dim) = self.dims.iter().find(|d| !(1..=1 << 32).contains(*d)) {
            return Err(format!(
                "a dimension of {dim} elements, 1 to 2^32 are possible"
            ));
        }
        if let Some(stride) =
            (self.strides.iter()).find(|s| !s.is_multiple_of(16) || **s >= 1 << 40)
        {
            return Err(format!(
                "a stride of {stride} bytes, multiples of 16 below 2^40 are possible"
            ));
        }
        if let Some(side) = self.boxes.iter().find(|b| !(1..=256).contains(*b)) {
            return Err(format!("a box of {side} elements, 1 to 256 are possible"));
        }
        let inner = u64::from(self.boxes[0]) * element;
        if !inner.is_multiple_of(16) {
            return Err(format!(
                "a box whose rows have {inner} bytes, no multiple of 16"
            ));
        }
        if self.swizzle != Swizzle::None && inner > self.swizzle.span() {
            return Err(format!(
                "a box whose rows have {inner} bytes, the swizzle {}",
                self.swizzle.span()
            ));
        }
        Ok(())
    }

    /// As 16 words.
    pub fn encode(&self) -> [u8; BYTES] {
        let rank = self.dims.len();
        let swizzle = self.swizzle.span().trailing_zeros() - 4;
        let mut words = [0u64; 16];
        words[0] = MAGIC;
        words[1] = self.address;
        words[2] = rank as u64 | u64::from(self.element) << 8 | u64::from(swizzle) << 16;
        words[3..3 + rank].copy_from_slice(&self.dims);
        words[8..8 + rank - 1].copy_from_slice(&self.strides);
        for (i, &side) in self.boxes.iter().enumerate() {
            words[12 + i / 2] |= u64::from(side) << (32 * (i % 2));
        }
        let mut bytes = [0; BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The map that these bytes are, if they are one.
    pub fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        let word = |i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * i..8 * i + 8]);
            u64::from_le_bytes(word)
        };
        let rank = (word(2) & 0xff) as usize;
        if word(0) != MAGIC || !(1..=5).contains(&rank) {
            return None;
        }
        let side = |i: usize| (word(12 + i / 2) >> (32 * (i % 2))) as u32;
        let map = Self {
            element: (word(2) >> 8 & 0xff) as u32,
            address: word(1),
            dims: (3..3 + rank).map(word).collect(),
            strides: (8..8 + rank - 1).map(word).collect(),
            boxes: (0..rank).map(side).collect(),
            swizzle: Swizzle::of(word(2) >> 16 & 0xff)?,
        };
        map.check().is_ok().then_some(map)
    }

    /// Bytes of a box.
    pub fn box_bytes(&self) -> u64 {
        self.boxes
            .iter()
            .map(|&side| u64::from(side))
            .product::<u64>()
            * u64::from(self.element)
    }
}
