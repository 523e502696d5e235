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

/// A mask of one site, and its header in the memory of the GPU.
pub(super) struct MaskWithHeader<'a> {
    mask: Mask<'a, CudaSlice<u32>>,
    header: CudaView<'a, u32>,
}

impl<'a> MaskWithHeader<'a> {
    /// The header is at the head of the batch's packet.
    pub(super) fn new(mask: Mask<'a, CudaSlice<u32>>) -> Self {
        Self {
            header: mask.masks.header.slice(0..2),
            mask,
        }
    }

    pub(super) fn view(&self) -> dropout::MaskView<'_> {
        dropout::MaskView {
            p: self.mask.masks.p,
            seed: self.mask.masks.seed,
            site: self.mask.site,
            header: &self.header,
        }
    }
}
