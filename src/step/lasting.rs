//! The state that training changes from step to step.

use crate::memory::{Allocator, Group};
use crate::ops::backend::{StoredBackend, Values};

/// The buffers that do not depend on the rung, flat in the order of [`ParamLayout`](crate::model::ParamLayout).
pub struct Lasting<C, F> {
    pub weights: C,
    /// The fp32 weights behind weights of lower precision.
    pub master: Option<F>,
    pub gradients: F,
    pub m: F,
    pub v: F,
}

impl<C, F> Lasting<C, F> {
    pub(crate) fn new<A>(parameters: usize, memory: &mut A) -> Result<Self, A::Error>
    where
        A: Allocator<Compute = C, Full = F>,
    {
        Ok(Self {
            weights: memory.compute(Group::Weights, format_args!("weights"), parameters)?,
            master: if memory.precision().is_mixed() {
                Some(memory.full(Group::Master, format_args!("master weights"), parameters)?)
            } else {
                None
            },
            gradients: memory.full(Group::Gradients, format_args!("gradients"), parameters)?,
            m: memory.full(Group::Moments, format_args!("first moment"), parameters)?,
            v: memory.full(Group::Moments, format_args!("second moment"), parameters)?,
        })
    }
}

impl<C, F> Lasting<C, F> {
    /// The weights in fp32.
    pub fn full_weights<'a, B>(&'a self, backend: &'a B) -> Box<dyn Values + 'a>
    where
        B: StoredBackend<Compute = C, Full = F>,
    {
        match &self.master {
            Some(master) => backend.values(master),
            None => backend.weights(&self.weights),
        }
    }
}
