//! nanoGPT's initialisation.

use std::io;

use rayon::prelude::*;

use super::{Init, ParamLayout};
use crate::ops::backend::{CHUNK, ValuesMut};
use crate::ops::loops::Element;
use crate::rng::{Seed, Stream};

/// Fills `weights` from the distributions of `layout`.
pub fn init_weights<T: Element>(layout: &ParamLayout, seed: Seed, weights: &mut [T]) {
    for (param, site) in layout.params.iter().zip(0..) {
        param.init.fill(seed, site, 0, &mut weights[param.range()]);
    }
}

/// Fills weights on any device, as [`init_weights`] does in host memory.
///
/// # Errors
/// The device's failure to write.
pub fn init_values(
    layout: &ParamLayout,
    seed: Seed,
    weights: &mut dyn ValuesMut,
) -> io::Result<()> {
    if let Some(weights) = weights.in_host_memory_mut() {
        init_weights(layout, seed, weights);
        return Ok(());
    }
    let mut chunk = vec![0f32; CHUNK];
    for (param, site) in layout.params.iter().zip(0..) {
        for start in (0..param.len).step_by(CHUNK) {
            let values = &mut chunk[..CHUNK.min(param.len - start)];
            param.init.fill(seed, site, start, values);
            weights.write(param.offset + start, values)?;
        }
    }
    Ok(())
}

impl Init {
    /// Fills `values`, the elements of parameter number `site` from number `start` on; `start` is even.
    fn fill<T: Element>(self, seed: Seed, site: u32, start: usize, values: &mut [T]) {
        match self {
            Self::Constant(value) => values.fill(T::of(value)),
            Self::Normal { std } => values
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
