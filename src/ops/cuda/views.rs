//! The operands of the seam as views of GPU memory.

use cudarc::driver::{CudaSlice, CudaView, CudaViewMut};

use super::dropout;
use crate::ops::backend::{Mask, Part, PartMut};

impl<'a, E> Part<'a, CudaSlice<E>> {
    pub(super) fn view(self) -> CudaView<'a, E> {
        self.buffer.slice(self.range())
    }
}

impl<'a, E> PartMut<'a, CudaSlice<E>> {
    pub(super) fn view(self) -> CudaViewMut<'a, E> {
        let range = self.range();
        self.buffer.slice_mut(range)
    }
}

/// A mask of one site, whose header is the head of a packet.
pub(super) struct Held<'a> {
    mask: Mask<'a, CudaSlice<u32>>,
    header: CudaView<'a, u32>,
}

impl<'a> Held<'a> {
    pub(super) fn new(mask: Mask<'a, CudaSlice<u32>>) -> Self {
        Self {
            header: mask.masks.header.slice(0..2),
            mask,
        }
    }

    pub(super) fn mask(&self) -> dropout::MaskView<'_> {
        dropout::MaskView {
            p: self.mask.masks.p,
            seed: self.mask.masks.seed,
            site: self.mask.site,
            header: &self.header,
        }
    }
}

pub(super) fn held<'a>(mask: Option<Mask<'a, CudaSlice<u32>>>) -> Option<Held<'a>> {
    mask.map(Held::new)
}

pub(super) fn mask<'a>(held: &'a Option<Held>) -> Option<dropout::MaskView<'a>> {
    held.as_ref().map(Held::mask)
}
