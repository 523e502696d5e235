//! Token after token on a GPU, with the keys and values of those before.

use half::bf16;
use taper::ops::cpu::OnCpu;
use taper::ops::launch::GpuElement;
use taper::terms::{ModelDims, Purpose, Recompute};

use crate::common::gpt::Gpt;
use crate::common::{noise, tokens};
use crate::{Card, backend, dims, open, rung};

/// Some tiles of attention's queries.
const BLOCK_SIZE: usize = 70;

fn model(n_embd: usize) -> ModelDims {
    ModelDims {
        n_embd,
        block_size: BLOCK_SIZE,
        ..dims(0.0)
    }
}

fn weights(dims: &ModelDims) -> Vec<f32> {
    noise(taper::model::ParamLayout::new(dims).len, 3)
}

fn on_gpu<T: GpuElement>(card: &Card, dims: &ModelDims, recompute: Recompute) -> Gpt {
    let backend = backend::<T>(card, false);
    let rung = rung(1, recompute, 1);
    Gpt::new(dims, rung, backend, Purpose::Inference, &weights(dims))
}

fn next(gpt: &mut Gpt, tokens: &[u32], known: usize) -> Vec<f32> {
    gpt.workspace
        .next_logits(&gpt.state, tokens, known)
        .unwrap()
}

/// Rows of 18 channels do not start where kernels may: everything is computed again there.
#[test]
fn logits_are_those_of_the_cpu_token_by_token() {
    let Some(card) = open() else { return };
    for dims in [model(32), model(18)] {
        let cpu = Box::new(OnCpu::<f32>::untuned(2));
        let rung = rung(1, Recompute::None, 1);
        let mut cpu = Gpt::new(&dims, rung, cpu, Purpose::Inference, &weights(&dims));
        let mut gpu = on_gpu::<f32>(&card, &dims, Recompute::None);
        let (ids, mut known) = (tokens(BLOCK_SIZE, dims.vocab_size, 9), 0);
        for seen in [3, 4, 5, 33, 34, 69, 70] {
            let (want, got) = (
                next(&mut cpu, &ids[..seen], known),
                next(&mut gpu, &ids[..seen], known),
            );
            let most = want.iter().fold(0f32, |most, x| most.max(x.abs()));
            let off = want.iter().zip(&got).map(|(a, b)| (a - b).abs());
            let off = off.fold(0.0, f32::max);
            assert!(off <= 1e-5 * most, "{seen} tokens: {off} of {most}");
            known = seen;
        }
    }
}

/// Those of tokens that were seen before are not computed again: other tokens in their place change nothing.
#[test]
fn keys_and_values_are_kept_where_every_block_has_its_own() {
    fn kept<T: GpuElement>(card: &Card) {
        let dims = model(32);
        let ids = tokens(BLOCK_SIZE, dims.vocab_size, 9);
        let others: Vec<u32> = (0..40)
            .map(|i| 100 - ids[i])
            .chain(ids[40..].to_vec())
            .collect();
        for (recompute, are_kept) in [(Recompute::None, true), (Recompute::Block, false)] {
            let mut gpt = on_gpu::<T>(card, &dims, recompute);
            next(&mut gpt, &ids[..40], 0);
            let want = next(&mut gpt, &ids[..41], 40);
            next(&mut gpt, &ids[..40], 0);
            let got = next(&mut gpt, &others[..41], 40);
            assert_eq!(want == got, are_kept, "{recompute}");
        }
    }
    let Some(card) = open() else { return };
    kept::<f32>(&card);
    if crate::common::gpu::trains_in_bf16(&taper::ops::launch::Gpu::new(&card).unwrap()) {
        kept::<bf16>(&card);
    }
}
