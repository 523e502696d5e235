//! nanoGPT's initialisation.

use std::io;

use rayon::prelude::*;

use super::ParamLayout;
use crate::ops::backend::{CHUNK, ValuesMut};
use crate::ops::loops::Element;
use crate::rng::{Seed, Stream};
use crate::terms::ModelDims;

/// GPT-2's standard deviation.
const STD: f64 = 0.02;

/// Fills `weights`: matrices and embeddings from N(0, 0.02), projections back into the residual
/// stream from N(0, 0.02 / sqrt(2 L)) (GPT-2 paper, section 2.3), norms 1, biases 0.
pub fn init_weights<T: Element>(
    dims: &ModelDims,
    layout: &ParamLayout,
    seed: Seed,
    weights: &mut [T],
) {
    for (index, param) in layout.params.iter().enumerate() {
        let initial = Initial::of(dims, layout, index);
        initial.fill(seed, 0, &mut weights[param.range()]);
    }
}

/// Fills weights on any device, as [`init_weights`] does in host memory.
///
/// # Errors
/// The device's failure to write.
pub fn init_values(
    dims: &ModelDims,
    layout: &ParamLayout,
    seed: Seed,
    weights: &mut dyn ValuesMut,
) -> io::Result<()> {
    if let Some(weights) = weights.in_host_memory() {
        init_weights(dims, layout, seed, weights);
        return Ok(());
    }
    let mut chunk = vec![0f32; CHUNK];
    for (index, param) in layout.params.iter().enumerate() {
        let initial = Initial::of(dims, layout, index);
        for start in (0..param.len).step_by(CHUNK) {
            let values = &mut chunk[..CHUNK.min(param.len - start)];
            initial.fill(seed, start, values);
            weights.write(param.offset + start, values)?;
        }
    }
    Ok(())
}

/// Distribution of the initial elements of one parameter.
enum Initial {
    Constant(f64),
    Normal { site: u32, std: f64 },
}

impl Initial {
    fn of(dims: &ModelDims, layout: &ParamLayout, index: usize) -> Self {
        let (param, site) = (&layout.params[index], index as u32);
        if param.name.ends_with("c_proj.weight") {
            let std = STD / (2.0 * dims.n_layer as f64).sqrt();
            Self::Normal { site, std }
        } else if param.shape.len() == 2 {
            Self::Normal { site, std: STD }
        } else if param.name.ends_with(".weight") {
            Self::Constant(1.0)
        } else {
            Self::Constant(0.0)
        }
    }

    /// Fills `values`, the elements from number `start` on; `start` is even.
    fn fill<T: Element>(&self, seed: Seed, start: usize, values: &mut [T]) {
        match *self {
            Self::Constant(value) => values.fill(T::of(value)),
            Self::Normal { site, std } => values
                .par_chunks_mut(2)
                .with_min_len(1 << 12)
                .enumerate()
                .for_each(|(pair, values)| {
                    let pair = (start / 2 + pair) as u64;
                    let normals = seed.normal_pair(Stream::Init, site, pair);
                    for (value, normal) in values.iter_mut().zip(normals) {
                        *value = T::of(normal * std);
                    }
                }),
        }
    }
}

const _: () = assert!(CHUNK.is_multiple_of(2));
