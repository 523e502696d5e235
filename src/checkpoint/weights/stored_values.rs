//! The weights or moments of a model as a row of values that are read from its files, one tensor at a time.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::pretrained::Pretrained;
use super::tensor_file::{Limit, TensorFile};
use crate::checkpoint::CheckpointError;
use crate::model::ParamLayout;
use crate::ops::backend::{Values, room};
use crate::terms::ModelDims;

/// The values of a model's files in taper's layout. The tensor that was read last stays in memory, no other.
pub(in crate::checkpoint) struct StoredValues<'a> {
    source: Source<'a>,
    layout: ParamLayout,
    limit: Limit,
    current: Mutex<Current>,
}

/// The files of the values.
enum Source<'a> {
    Weights(&'a Pretrained),
    /// A checkpoint's moments: `m` or `v`.
    Moment(&'a TensorFile, &'static str),
}

/// The tensor in memory.
#[derive(Default)]
struct Current {
    /// Its place in the layout.
    index: Option<usize>,
    /// At least its elements.
    values: Vec<f32>,
    copy: Vec<f32>,
}

impl<'a> StoredValues<'a> {
    /// Values none of which is beyond `largest`; reading one that is fails.
    pub(in crate::checkpoint) fn new(pretrained: &'a Pretrained, largest: f32) -> Self {
        Self {
            source: Source::Weights(pretrained),
            layout: ParamLayout::new(&pretrained.dims),
            limit: Limit::of(largest),
            current: Mutex::default(),
        }
    }

    /// One moment of a checkpoint, `m` or `v`.
    pub(in crate::checkpoint) fn of_moment(
        moments: &'a TensorFile,
        moment: &'static str,
        dims: &ModelDims,
    ) -> Self {
        Self {
            source: Source::Moment(moments, moment),
            layout: ParamLayout::new(dims),
            limit: Limit::NONE,
            current: Mutex::default(),
        }
    }

    fn load(&self, index: usize, current: &mut Current) -> io::Result<()> {
        if current.index == Some(index) {
            return Ok(());
        }
        current.index = None;
        let param = &self.layout.params[index];
        let mut values = room(&mut current.values, param.len)?;
        let (range, copy) = (0..param.len, &mut current.copy);
        let loaded = match self.source {
            Source::Weights(model) => {
                model.load_tensor(param, &mut values, range, copy, self.limit)
            }
            Source::Moment(moments, moment) => {
                let name = format!("{moment}.{}", param.name);
                moments
                    .expect_shape(&name, &param.shape)
                    .and_then(|()| moments.read(&name, &mut values, range, self.limit))
            }
        };
        loaded.map_err(into_io)?;
        current.index = Some(index);
        Ok(())
    }
}

impl Values for StoredValues<'_> {
    fn len(&self) -> usize {
        self.layout.len
    }

    fn read(&self, start: usize, to: &mut [f32]) -> io::Result<()> {
        // Whoever panicked left no half-read tensor: its place is noted last.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut to) = (start, to);
        while !to.is_empty() {
            let params = &self.layout.params;
            let index = params.partition_point(|param| param.range().end <= at);
            self.load(index, &mut current)?;
            let range = params[index].range();
            let (now, later) = to.split_at_mut(to.len().min(range.end - at));
            now.copy_from_slice(&current.values[at - range.start..][..now.len()]);
            (at, to) = (at + now.len(), later);
        }
        Ok(())
    }
}

/// The error of the files as one of reading; [`from_io`] gives it back.
fn into_io(error: CheckpointError) -> io::Error {
    let kind = match &error {
        CheckpointError::Io { source, .. } => source.kind(),
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// The error behind a failure to read [`StoredValues`].
///
/// # Errors
/// `error` itself, where it is of another source.
pub(in crate::checkpoint) fn from_io(error: io::Error) -> Result<CheckpointError, io::Error> {
    error.downcast::<CheckpointError>()
}
