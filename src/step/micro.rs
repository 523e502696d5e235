//! The micro-batches of a step or an evaluation.

use std::ops::Range;

use super::ReadSample;
use crate::faults::Site;
use crate::memory::{Memory, Recoverable};
use crate::model::Workspace;
use crate::ops::backend::BatchHeader;

/// The samples of the micro-batches of `sequences` samples, `most` at a time, in order.
pub(super) fn micro_batches(sequences: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let firsts = (0..sequences).step_by(most);
    firsts.map(move |first| first..sequences.min(first + most))
}

/// Makes `samples`, by their indices within the step or evaluation, the micro-batch.
///
/// # Errors
/// The errors of `read`, and those of the device, as of `site`.
pub(super) fn load<E: Recoverable>(
    workspace: &mut Workspace,
    samples: Range<usize>,
    header: BatchHeader,
    read: &impl ReadSample<E>,
    memory: &Memory,
    site: Site,
) -> Result<(), E> {
    let block_size = workspace.program().block_size;
    let rows = samples.len() * block_size;
    let mut read_all = |inputs: &mut [u32], targets: &mut [u32]| {
        let inputs = inputs.chunks_exact_mut(block_size);
        let targets = targets.chunks_exact_mut(block_size);
        let mut rows = samples.clone().zip(inputs.zip(targets));
        rows.try_for_each(|(sample, (inputs, targets))| read(sample as u32, inputs, targets))
    };
    load_rows(workspace, rows, header, &mut read_all, memory, site)
}

/// Makes `rows` rows the micro-batch, whose inputs and targets `read` writes.
///
/// # Errors
/// Those of [`load`].
pub(super) fn load_rows<E: Recoverable>(
    workspace: &mut Workspace,
    rows: usize,
    header: BatchHeader,
    read: &mut dyn FnMut(&mut [u32], &mut [u32]) -> Result<(), E>,
    memory: &Memory,
    site: Site,
) -> Result<(), E> {
    let mut unread = None;
    let loaded = workspace.load(rows, header, &mut |inputs, targets| {
        unread = read(&mut inputs[..rows], &mut targets[..rows]).err();
        unread.is_none()
    });
    match unread {
        Some(error) => Err(error),
        None => Ok(loaded.map_err(|refused| memory.refusal(site, refused))?),
    }
}
