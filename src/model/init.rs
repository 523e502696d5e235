//! nanoGPT's initialisation.

use rayon::prelude::*;

use super::ParamLayout;
use crate::ops::Element;
use crate::plan::ModelDims;
use crate::rng::{Seed, Stream};

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
    let residual_std = STD / (2.0 * dims.n_layer as f64).sqrt();
    for (index, param) in layout.params.iter().enumerate() {
        let values = &mut weights[param.range()];
        if param.name.ends_with("c_proj.weight") {
            fill_normal(values, seed, index as u32, residual_std);
        } else if param.shape.len() == 2 {
            fill_normal(values, seed, index as u32, STD);
        } else if param.name.ends_with(".weight") {
            values.fill(T::ONE);
        } else {
            values.fill(T::ZERO);
        }
    }
}

fn fill_normal<T: Element>(values: &mut [T], seed: Seed, site: u32, std: f64) {
    values
        .par_chunks_mut(2)
        .with_min_len(1 << 12)
        .enumerate()
        .for_each(|(pair, values)| {
            let normals = seed.normal_pair(Stream::Init, site, pair as u64);
            for (value, normal) in values.iter_mut().zip(normals) {
                *value = T::of(normal * std);
            }
        });
}
