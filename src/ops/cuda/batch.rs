//! The micro-batch on a GPU, copied there ahead of its time.
//!
//! The host writes a packet in pinned memory while the GPU is at work. A stream of its own copies the packet to
//! one of two places ahead. The step's stream moves it, when it gets there, to the one place that operations read.
//! Neither the host nor the GPU waits, and every micro-step reads the same addresses.
//!
//! Cudarc's own events are off, and three waits keep the order. The host writes a packet when the copy before it
//! from the same memory has ended. A copy begins when the step's stream has cleared its place, or has moved on the
//! packet there. The step's stream moves a packet on when its copy has ended.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaSlice, CudaStream, CudaView, DriverError};

use crate::ops::backend::{BatchHeader, Done, PACKET_HEAD, ReadTokens, rows_by_token};
use crate::ops::launch::host::Pinned;

/// The current packet on a GPU, and two ahead.
///
/// A packet is step, first sample and scale; then inputs, targets, and the rows in the order of their tokens, each
/// with room for the rows of the largest micro-batch.
pub struct Batch {
    /// Dropped first: slots wait for copies to the packets.
    slots: [Slot; 2],
    current: CudaSlice<u32>,
    ahead: [CudaSlice<u32>; 2],
    next: usize,
    most_rows: usize,
    /// Scratch for sorting rows, an element for every token.
    starts: Vec<u32>,
}

/// One of the places ahead.
struct Slot {
    host: Pinned<u32>,
    /// Event that is reached when the step's stream is done with this place: it was cleared, or its packet was
    /// moved on.
    left: CudaEvent,
}

impl Batch {
    /// A batch of no packet yet. The packets, the current one and those ahead, were allocated and cleared in `stream`.
    ///
    /// # Errors
    /// The driver's, when the host has no memory that can be pinned.
    pub(super) fn new(
        current: CudaSlice<u32>,
        ahead: [CudaSlice<u32>; 2],
        most_rows: usize,
        stream: &CudaStream,
    ) -> Result<Self, DriverError> {
        let context = stream.context();
        let slot = || {
            Ok::<_, DriverError>(Slot {
                host: Pinned::new(context, current.len())?,
                left: stream.record_event(None)?,
            })
        };
        Ok(Self {
            slots: [slot()?, slot()?],
            current,
            ahead,
            next: 0,
            most_rows,
            starts: Vec::new(),
        })
    }

    /// See [`Backend::load`](crate::ops::backend::Backend::load).
    pub(super) fn load(
        &mut self,
        stream: &Arc<CudaStream>,
        copies: &Arc<CudaStream>,
        rows: usize,
        header: BatchHeader,
        read: &mut ReadTokens,
    ) -> Done {
        let packet = self.slots[self.next].host.write()?;
        let (head, tokens) = packet.split_at_mut(PACKET_HEAD);
        let scale = (header.scale as f32).to_bits();
        head.copy_from_slice(&[header.step, header.first_sample, scale, 0]);
        let (inputs, rest) = tokens.split_at_mut(self.most_rows);
        let (targets, order) = rest.split_at_mut(self.most_rows);
        if !read(inputs, targets) {
            return Ok(());
        }
        let inputs = &inputs[..rows];
        let vocab = inputs.iter().max().map_or(0, |&most| most as usize + 1);
        self.starts.resize(vocab.max(self.starts.len()), 0);
        rows_by_token(inputs, &mut self.starts, &mut order[..rows]);
        Ok(self.send(stream, copies)?)
    }

    /// Copies the packet that was written in `copies`, and moves it to its place in `stream`.
    fn send(
        &mut self,
        stream: &Arc<CudaStream>,
        copies: &Arc<CudaStream>,
    ) -> Result<(), DriverError> {
        let slot = &mut self.slots[self.next];
        let ahead = &mut self.ahead[self.next];
        copies.wait(&slot.left)?;
        slot.host.send(copies, ahead)?;
        stream.wait(slot.host.copied())?;
        stream.memcpy_dtod(ahead, &mut self.current)?;
        slot.left.record(stream)?;
        self.next = 1 - self.next;
        Ok(())
    }

    /// Step, and index within it of the first sequence, (2).
    pub(super) fn header(&self) -> CudaView<'_, u32> {
        self.current.slice(0..2)
    }

    pub(super) fn inputs(&self, rows: usize) -> CudaView<'_, u32> {
        self.part(0, 0..rows)
    }

    pub(super) fn targets(&self, rows: std::ops::Range<usize>) -> CudaView<'_, u32> {
        self.part(1, rows)
    }

    pub(super) fn order(&self, rows: usize) -> CudaView<'_, u32> {
        self.part(2, 0..rows)
    }

    /// Factor of the gradients of every row's loss, (1).
    pub(super) fn scale(&self) -> CudaView<'_, f32> {
        let word = self.current.slice(2..3);
        // SAFETY: the word has the bits of a f32.
        let scale = unsafe { word.transmute(1) };
        scale.unwrap_or_else(|| unreachable!("a word is as long as a f32"))
    }

    fn part(&self, part: usize, rows: std::ops::Range<usize>) -> CudaView<'_, u32> {
        let start = PACKET_HEAD + part * self.most_rows;
        self.current.slice(start + rows.start..start + rows.end)
    }
}
