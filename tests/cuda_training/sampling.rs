//! Token after token on a GPU, of several sequences, with the keys and values of those before.

use half::bf16;
use taper::ops::cpu::OnCpu;
use taper::ops::launch::GpuElement;
use taper::terms::{ModelDims, Purpose, Recompute};

use crate::common::gpt::Gpt;
use crate::common::{noise, tokens};
use crate::{Card, backend, dims, open, rung};

const BLOCK_SIZE: usize = 70;
const PURPOSE: Purpose = Purpose::Generation {
    positions: BLOCK_SIZE,
};

/// A slot, a position and a token.
type Row = (usize, usize, u32);

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

fn on_gpu<T: GpuElement>(card: &Card, dims: &ModelDims, slots: usize) -> Gpt {
    let backend = backend::<T>(card, false);
    let rung = rung(slots, Recompute::None, slots);
    Gpt::new(dims, rung, backend, PURPOSE, &weights(dims))
}

#[track_caller]
fn assert_close(got: &[Vec<f32>], want: &[Vec<f32>]) {
    let (got, want) = (got.concat(), want.concat());
    assert_eq!(got.len(), want.len());
    let most = want.iter().fold(0f32, |most, x| most.max(x.abs()));
    let off = want.iter().zip(&got).map(|(a, b)| (a - b).abs());
    let off = off.fold(0.0, f32::max);
    assert!(off <= 1e-5 * most, "{off} of {most}");
}

/// Rows of 18 channels do not start where most kernels may.
#[test]
fn logits_of_a_batch_are_those_of_the_cpu() {
    let Some(card) = open() else { return };
    for dims in [model(32), model(18)] {
        let cpu = Box::new(OnCpu::<f32>::untuned(2));
        let three = rung(3, Recompute::None, 3);
        let mut cpu = Gpt::new(&dims, three, cpu, PURPOSE, &weights(&dims));
        let mut gpu = on_gpu::<f32>(&card, &dims, 3);
        let ids = tokens(3 * BLOCK_SIZE, dims.vocab_size, 9);
        let row = |slot: usize, at: usize| -> Row { (slot, at, ids[slot * BLOCK_SIZE + at]) };
        // Prompts of 1, 34 and 69 tokens, all but the last computed ahead; then two rows of each at once.
        let prompts: Vec<Row> = (0..33).map(|at| row(1, at)).collect();
        let long: Vec<Row> = (0..68).map(|at| row(2, at)).collect();
        for gpt in [&mut cpu, &mut gpu] {
            gpt.generate_f32(&prompts, 0);
            gpt.generate_f32(&long, 0);
        }
        for at in 0..2 {
            let rows = [row(0, at), row(1, 33 + at), row(2, 68 + at)];
            assert_close(&gpu.generate_f32(&rows, 3), &cpu.generate_f32(&rows, 3));
        }
        // Slot 0 goes on where slot 1 is.
        let place = |slot: usize, at: usize| (slot * BLOCK_SIZE + at) as u32;
        let copies: Vec<_> = (0..35).map(|at| (place(1, at), place(0, at))).collect();
        let rows = [(0, 35, 7)];
        for gpt in [&mut cpu, &mut gpu] {
            gpt.workspace.copy_cached(&gpt.state, &copies).unwrap();
        }
        assert_close(&gpu.generate_f32(&rows, 1), &cpu.generate_f32(&rows, 1));
        // The last rows of a whole context, as without memory for keys and values.
        let whole = &long[..50];
        assert_close(&gpu.generate_f32(whole, 1), &cpu.generate_f32(whole, 1));
    }
}

/// Those of tokens that were seen before are not computed again: other tokens in their place change something.
#[test]
fn keys_and_values_are_kept_of_every_slot() {
    fn kept<T: GpuElement>(card: &Card) {
        let dims = model(32);
        let ids = tokens(BLOCK_SIZE, dims.vocab_size, 9);
        let mut gpu = on_gpu::<T>(card, &dims, 2);
        let rows = |slot, other: u32| -> Vec<Row> {
            (0..40)
                .map(|at| (slot, at, (ids[at] + other) % dims.vocab_size as u32))
                .collect()
        };
        let next = [(0, 40, ids[40]), (1, 40, ids[40])];
        gpu.generate_f32(&rows(0, 0), 0);
        gpu.generate_f32(&rows(1, 0), 0);
        let same = gpu.generate_f32(&next, 2);
        assert_eq!(same[0], same[1]);
        gpu.generate_f32(&rows(1, 1), 0);
        let other = gpu.generate_f32(&next, 2);
        assert_eq!(other[0], same[0]);
        assert_ne!(other[1], same[1]);
    }
    let Some(card) = open() else { return };
    kept::<f32>(&card);
    if crate::common::gpu::trains_in_bf16(&taper::ops::launch::Gpu::new(&card).unwrap()) {
        kept::<bf16>(&card);
    }
}
