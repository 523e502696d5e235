//! AdamW on a GPU. Its f32 results have the bits of [`crate::ops::cpu::adamw`].

use std::ops::Range;

use cudarc::driver::{CudaView, CudaViewMut, DeviceRepr, PushKernelArg, ValidAsZeroBits};

use super::outcome::Outcome;
use crate::ops::backend::AdamW;
use crate::ops::launch::{Gpu, GpuElement, LaunchError, THREADS, grid, push_optional_mut, small};

/// Numbers of one update, for the memory of the GPU. `Rule` of kernels/adamw.cu is the same struct.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AdamWRule {
    keep: f32,
    step_size: f32,
    inverse_root: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    eps: f32,
}

// SAFETY: plain numbers in C's layout, which zeros are.
unsafe impl DeviceRepr for AdamWRule {}
// SAFETY: as above.
unsafe impl ValidAsZeroBits for AdamWRule {}

impl From<&AdamW> for AdamWRule {
    /// Takes all but `gradient_scale`, which the GPU computes itself: see [`Outcome`].
    fn from(rule: &AdamW) -> Self {
        let updates = rule.update as f64;
        Self {
            keep: (1.0 - rule.learning_rate * rule.weight_decay) as f32,
            step_size: (rule.learning_rate / (1.0 - rule.beta1.powf(updates))) as f32,
            inverse_root: (1.0 / (1.0 - rule.beta2.powf(updates)).sqrt()) as f32,
            beta1: rule.beta1 as f32,
            rest1: (1.0 - rule.beta1) as f32,
            beta2: rule.beta2 as f32,
            rest2: (1.0 - rule.beta2) as f32,
            eps: rule.eps as f32,
        }
    }
}

/// Offsets at which decay ends or begins along the flat parameters, for the memory of the GPU. An element decays if
/// an even number of edges is not beyond it. `params` are neighbours in order, and whether each decays.
pub fn decay_edges(params: impl IntoIterator<Item = (Range<usize>, bool)>) -> Vec<u64> {
    let (mut edges, mut decayed, mut end) = (Vec::new(), true, 0);
    for (range, decays) in params {
        if decays != decayed {
            edges.push(range.start as u64);
        }
        (decayed, end) = (decays, range.end);
    }
    // An array on a GPU must not be empty.
    edges.push(end as u64);
    edges
}

/// Arrays that an update changes, flat in the parameters' order.
pub struct AdamWStateViews<'a, 'b, T> {
    pub weights: &'a mut CudaViewMut<'b, f32>,
    pub m: &'a mut CudaViewMut<'b, f32>,
    pub v: &'a mut CudaViewMut<'b, f32>,
    /// The weights in the type that the model computes in, if that is not f32.
    pub copy: Option<&'a mut CudaViewMut<'b, T>>,
}

/// Arrays that an update reads.
pub struct AdamWInputViews<'a> {
    pub gradients: &'a CudaView<'a, f32>,
    /// See [`decay_edges`].
    pub decay_edges: &'a CudaView<'a, u64>,
    pub rule: &'a CudaView<'a, AdamWRule>,  // (1)
    pub outcome: &'a CudaView<'a, Outcome>, // (1)
}

/// Updates the weights and their moments. If the outcome is not finite, nothing changes.
///
/// # Errors
/// The failure to start the kernel.
pub fn update<T: GpuElement>(
    gpu: &Gpu,
    state: AdamWStateViews<T>,
    inputs: AdamWInputViews,
) -> Result<(), LaunchError> {
    let AdamWStateViews {
        weights,
        m,
        v,
        copy,
    } = state;
    let len = weights.len();
    assert!([m.len(), v.len(), inputs.gradients.len()] == [len; 3]);
    assert!(copy.as_ref().is_none_or(|copy| copy.len() == len));
    assert!(inputs.rule.len() == 1 && inputs.outcome.len() == 1);
    let (count, edges) = (len as i64, small(inputs.decay_edges.len()));
    let kernel = gpu.kernel::<T>("adamw")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(weights).arg(m).arg(v).arg(inputs.gradients);
    push_optional_mut(&mut launch, copy);
    launch.arg(&count).arg(inputs.decay_edges).arg(&edges);
    launch.arg(inputs.rule).arg(inputs.outcome);
    // SAFETY: the kernel's arguments in its order; the lengths were compared.
    unsafe { launch.launch(grid(len.div_ceil(4 * THREADS), THREADS)) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_where_decay_changes() {
        let params = [(0..5, true), (5..8, true), (8..9, false), (9..20, true)];
        assert_eq!(decay_edges(params), [8, 9, 20]);
        assert_eq!(decay_edges([(0..3, false), (3..4, true)]), [0, 3, 4]);
    }
}
