//! The operands of a frame as views of GPU memory.

use std::cell::{Ref, RefMut};
use std::marker::PhantomData;
use std::ops::Range;

use cudarc::driver::{CudaSlice, CudaView, CudaViewMut};

use super::batch::Batch;
use super::dropout::MaskView;
use crate::ops::backend::{Affine, BufferId, DropoutSite, Frame, Mask, Matrix};
use crate::ops::launch::GpuElement;

/// Elements of a buffer that an operation reads.
pub(super) struct Reading<'a, E> {
    buffer: Ref<'a, CudaSlice<E>>,
    range: Range<usize>,
}

impl<E> Reading<'_, E> {
    pub fn view(&self) -> CudaView<'_, E> {
        self.buffer.slice(self.range.clone())
    }
}

/// Elements of a buffer that an operation writes.
pub(super) struct Writing<'a, E> {
    buffer: RefMut<'a, CudaSlice<E>>,
    range: Range<usize>,
}

impl<E> Writing<'_, E> {
    pub fn view(&mut self) -> CudaViewMut<'_, E> {
        self.buffer.slice_mut(self.range.clone())
    }
}

/// The operands of a frame, of `T` where they have the precision that the model computes in.
pub(super) struct Views<'f, 'a, T> {
    pub frame: &'f Frame<'a>,
    element: PhantomData<T>,
}

impl<'f, 'a, T: GpuElement> Views<'f, 'a, T> {
    pub fn of(frame: &'f Frame<'a>) -> Self {
        Self {
            frame,
            element: PhantomData,
        }
    }

    pub fn part<E: 'static>(&self, buffer: BufferId, range: Range<usize>) -> Reading<'a, E> {
        Reading {
            buffer: self.frame.buffer(buffer).read(),
            range,
        }
    }

    pub fn part_mut<E: 'static>(&self, buffer: BufferId, range: Range<usize>) -> Writing<'a, E> {
        Writing {
            buffer: self.frame.buffer(buffer).write(),
            range,
        }
    }

    pub fn read(&self, matrix: &Matrix) -> Reading<'a, T> {
        self.part(matrix.buffer, self.frame.range(*matrix))
    }

    pub fn write(&self, matrix: &Matrix) -> Writing<'a, T> {
        self.part_mut(matrix.buffer, self.frame.range(*matrix))
    }

    /// The rows of an fp32 matrix, to read.
    pub fn read_full(&self, matrix: &Matrix) -> Reading<'a, f32> {
        self.part(matrix.buffer, self.frame.range(*matrix))
    }

    /// The rows of an fp32 matrix, to write.
    pub fn write_full(&self, matrix: &Matrix) -> Writing<'a, f32> {
        self.part_mut(matrix.buffer, self.frame.range(*matrix))
    }

    pub fn scratch(&self, buffer: BufferId) -> RefMut<'a, CudaSlice<f32>> {
        self.frame.buffer(buffer).write()
    }

    /// All of a buffer.
    pub fn whole(&self, buffer: BufferId) -> RefMut<'a, CudaSlice<T>> {
        self.frame.buffer(buffer).write()
    }

    pub fn weight(&self, range: &Range<usize>) -> Reading<'a, T> {
        Reading {
            buffer: self.frame.weights().read(),
            range: range.clone(),
        }
    }

    pub fn bias(&self, affine: &Affine) -> Option<Reading<'a, T>> {
        affine.bias.as_ref().map(|bias| self.weight(bias))
    }

    pub fn gradients(&self) -> RefMut<'a, CudaSlice<f32>> {
        self.frame.gradients().write()
    }

    pub fn batch(&self) -> Ref<'a, Batch> {
        self.frame.batch.read()
    }

    /// The dropout at `site`, in a run with dropout. `batch` is [`Views::batch`].
    pub fn mask<'b>(&self, site: DropoutSite, batch: &'b Batch) -> Option<MaskWithHeader<'b>> {
        Some(MaskWithHeader {
            mask: self.frame.mask(site)?,
            header: batch.header(),
        })
    }
}

/// The dropout at one site, and its header in the memory of the GPU.
pub(super) struct MaskWithHeader<'a> {
    mask: Mask,
    header: CudaView<'a, u32>,
}

impl MaskWithHeader<'_> {
    pub fn view(&self) -> MaskView<'_> {
        MaskView {
            p: self.mask.settings.p,
            seed: self.mask.settings.seed,
            site: self.mask.site,
            header: &self.header,
        }
    }
}
