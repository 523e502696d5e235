//! The micro-batch on a GPU, copied there ahead of its time.
//!
//! The host writes a packet in pinned memory while the GPU is at work; a stream of its own copies it to
//! one of two places ahead; and the step's stream moves it, when it gets there, to the one place
//! that operations read. So nobody waits, and every micro-step reads the same addresses.

use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaSlice, CudaStream, CudaView, DriverError, PinnedHostSlice};

use crate::error::Result as RunResult;
use crate::faults::Site;
use crate::memory::{AllocationError, Refused};
use crate::model::{PACKET_HEAD, Packets};
use crate::ops::backend::{Moment, ReadTokens};
use crate::ops::embedding::rows_by_token;

/// A packet is step, first sample and scale; then inputs, targets, and the rows in the order of their
/// tokens, each with room for as many rows as a micro-batch has at most.
pub struct Batch {
    packets: Packets<CudaSlice<u32>>,
    slots: [Slot; 2],
    next: usize,
    most_rows: usize,
    /// Scratch of sorting rows, an element for every token.
    starts: Vec<u32>,
}

/// One of the places ahead.
struct Slot {
    host: PinnedHostSlice<u32>,
    /// When the packet is on the GPU, and when it was moved on from here.
    arrived: CudaEvent,
    left: CudaEvent,
}

impl Batch {
    /// # Errors
    /// When the host has no memory that can be pinned.
    pub(super) fn new(
        packets: Packets<CudaSlice<u32>>,
        most_rows: usize,
        stream: &CudaStream,
    ) -> Result<Self, DriverError> {
        let context = stream.context();
        let slot = || {
            // SAFETY: written before it is read; only plain numbers lie in it.
            let host = unsafe { context.alloc_pinned_with_flags(packets.current.len(), 0) }?;
            Ok::<_, DriverError>(Slot {
                host,
                arrived: context.new_event(None)?,
                left: context.new_event(None)?,
            })
        };
        Ok(Self {
            slots: [slot()?, slot()?],
            packets,
            next: 0,
            most_rows,
            starts: Vec::new(),
        })
    }

    /// See [`Backend::load`](crate::ops::backend::Backend::load).
    pub(super) fn load(
        &mut self,
        (stream, copies): (&Arc<CudaStream>, &Arc<CudaStream>),
        rows: usize,
        moment: Moment,
        read: &mut ReadTokens,
    ) -> RunResult<()> {
        let slot = &mut self.slots[self.next];
        // Waits until the packet before the last was copied away.
        let packet = slot.host.as_mut_slice().map_err(failed)?;
        let (head, tokens) = packet.split_at_mut(PACKET_HEAD);
        let scale = (moment.scale as f32).to_bits();
        head.copy_from_slice(&[moment.step, moment.first_sample, scale, 0]);
        let (inputs, rest) = tokens.split_at_mut(self.most_rows);
        let (targets, order) = rest.split_at_mut(self.most_rows);
        read(inputs, targets)?;
        let inputs = &inputs[..rows];
        let vocab = inputs.iter().max().map_or(0, |&most| most as usize + 1);
        self.starts.resize(vocab.max(self.starts.len()), 0);
        rows_by_token(inputs, &mut self.starts, &mut order[..rows]);
        self.send(stream, copies).map_err(failed)
    }

    fn send(
        &mut self,
        stream: &Arc<CudaStream>,
        copies: &Arc<CudaStream>,
    ) -> Result<(), DriverError> {
        let slot = &mut self.slots[self.next];
        let ahead = &mut self.packets.ahead[self.next];
        copies.wait(&slot.left)?;
        copies.memcpy_htod(&slot.host, ahead)?;
        slot.arrived.record(copies)?;
        stream.wait(&slot.arrived)?;
        stream.memcpy_dtod(ahead, &mut self.packets.current)?;
        slot.left.record(stream)?;
        self.next = 1 - self.next;
        Ok(())
    }

    /// All of the packet, whose head is the moment.
    pub(super) fn packet(&self) -> &CudaSlice<u32> {
        &self.packets.current
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

    /// What the gradients of a row's loss are multiplied by, (1).
    pub(super) fn scale(&self) -> CudaView<'_, f32> {
        let word = self.packets.current.slice(2..3);
        // SAFETY: the word has the bits of a f32.
        let scale = unsafe { word.transmute(1) };
        scale.unwrap_or_else(|| unreachable!("a word is as long as a f32"))
    }

    fn part(&self, part: usize, rows: std::ops::Range<usize>) -> CudaView<'_, u32> {
        let start = PACKET_HEAD + part * self.most_rows;
        self.packets
            .current
            .slice(start + rows.start..start + rows.end)
    }
}

fn failed(error: DriverError) -> crate::error::Error {
    let reason = match Refused::from(error) {
        Refused::OutOfMemory => "no memory for a copy".into(),
        Refused::Device(reason) => reason,
    };
    let site = Site::Forward;
    AllocationError::Device { site, reason }.into()
}
