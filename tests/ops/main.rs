//! Every operation against its candle twin: forward, and every gradient against candle's autograd,
//! in f32 and f64, at odd shapes. And properties that have no oracle, such as those of masks.

mod adamw;
mod attention;
mod cross_entropy;
mod dropout;
mod embedding;
mod gelu;
mod layer_norm;
mod linear;

#[path = "../common/mod.rs"]
mod common;

use candle_core::Tensor;
use common::{tensor, values};
use taper::ops::cpu::dropout::Dropout;
use taper::ops::loops::Element;
use taper::rng::Seed;

const DROPOUT: Dropout = Dropout {
    p: 0.3,
    seed: Seed(11),
    step: 4,
    first_sample: 2,
};

/// The gradients of `sum(out * dout)` with respect to `inputs`.
fn gradients<T: Element>(out: &Tensor, dout: &[T], inputs: &[&candle_core::Var]) -> Vec<Vec<T>> {
    let dout = tensor(dout, out.dims());
    let store = (out * dout).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |var: &&candle_core::Var| values(store.get(var).expect("a gradient"));
    inputs.iter().map(of).collect()
}
