//! The whole model against candle's autograd, and its invariances.

mod common;

use common::gpt::Gpt;
use common::reference::Reference;
use common::{Kind, assert_close, noise, tokens, values};
use taper::model::{ParamLayout, init_weights};
use taper::ops::backend::{BatchHeader, DropoutSettings};
use taper::ops::cpu::OnCpu;
use taper::ops::cpu::dropout::Dropout;
use taper::ops::loops::Element;
use taper::rng::Seed;
use taper::terms::{Gelu, ModelDims, Purpose, Recompute, Rung};

fn dims(bias: bool, gelu: Gelu) -> ModelDims {
    ModelDims {
        n_layer: 2,
        n_head: 3,
        n_embd: 15,
        block_size: 9,
        vocab_size: 37,
        bias,
        dropout: 0.2,
        gelu,
    }
}

fn rung(micro_batch: usize) -> Rung {
    Rung {
        micro_batch,
        recompute: Recompute::None,
        logits_rows: 5,
    }
}

fn gpt<T: Element>(dims: &ModelDims, rung: Rung, threads: usize, purpose: Purpose) -> Gpt {
    let backend = Box::new(OnCpu::<T>::untuned(threads));
    Gpt::new(dims, rung, backend, purpose, &weights(dims))
}

/// Random weights, so that no parameter sits at a point where its gradient vanishes. The same in f32 and in f64.
fn weights<T: Element>(dims: &ModelDims) -> Vec<T> {
    noise(ParamLayout::new(dims).len, 3)
}

fn step<T: Element>(
    dims: &ModelDims,
    (rung, threads): (Rung, usize),
    dropout: Option<Dropout>,
) -> (Vec<T>, Vec<T>, Vec<u32>, Vec<u32>) {
    let rows = rung.micro_batch * dims.block_size;
    let inputs = tokens(rows, dims.vocab_size, 1);
    let targets = tokens(rows, dims.vocab_size, 2);
    let dims = &ModelDims {
        dropout: dropout.map_or(0.0, |dropout| dropout.p),
        ..dims.clone()
    };
    let header = BatchHeader {
        step: dropout.map_or(0, |dropout| dropout.step),
        first_sample: dropout.map_or(0, |dropout| dropout.first_sample),
        scale: 1.0 / rows as f64,
    };
    let dropout = dropout.map(|Dropout { p, seed, .. }| DropoutSettings { p, seed });
    let mut gpt = gpt::<T>(dims, rung, threads, Purpose::Training);
    let (losses, gradients) = gpt.train(&inputs, &targets, header, dropout, f32::NAN);
    (losses, gradients, inputs, targets)
}

fn check<T: Element>(dims: &ModelDims, dropout: Option<Dropout>) {
    let (losses, gradients, inputs, targets) = step::<T>(dims, (rung(4), 2), dropout);
    let reference = Reference::new(dims, &weights::<T>(dims));
    let want = reference.losses::<T>(&inputs, &targets, 4, dropout);
    assert_close("losses", &losses, &values::<T>(&want), Kind::Gradient);
    let want = reference.gradients::<T>(&want, 1.0 / inputs.len() as f64);
    for param in &ParamLayout::new(dims).params {
        let (got, want) = (&gradients[param.range()], &want[param.range()]);
        assert!(
            want.iter().any(|&x| x != T::ZERO),
            "no gradient reaches {}",
            param.name
        );
        // A sum of many rounded terms: allow f32 ten times the error of a single operation.
        let used = common::worst(got, want, 10.0 * common::tolerance::<T>(Kind::Gradient));
        assert!(
            used <= 1.0,
            "{}: {:.0} % of allowed",
            param.name,
            used * 100.0
        );
    }
}

#[test]
fn losses_and_every_gradient_match_candles_autograd() {
    let dropout = Dropout {
        p: 0.2,
        seed: Seed(5),
        step: 7,
        first_sample: 0,
    };
    for bias in [true, false] {
        for gelu in [Gelu::Tanh, Gelu::Erf] {
            for dropout in [None, Some(dropout)] {
                check::<f64>(&dims(bias, gelu), dropout);
                check::<f32>(&dims(bias, gelu), dropout);
            }
        }
    }
}

#[test]
fn results_are_the_same_bits_at_any_number_of_threads() {
    let dims = ModelDims {
        n_embd: 48,
        block_size: 70,
        ..dims(true, Gelu::Tanh)
    };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| step::<f32>(&dims, (rung(3), threads), None))
    };
    let one = run(1);
    for threads in [2, 3, 5] {
        let many = run(threads);
        assert!(one.0 == many.0, "losses at {threads} threads");
        assert!(one.1 == many.1, "gradients at {threads} threads");
    }
}

#[test]
fn evaluation_and_training_report_the_same_losses() {
    let dims = dims(true, Gelu::Erf);
    let (trained, _, inputs, targets) = step::<f32>(&dims, (rung(4), 2), None);
    let mut gpt = gpt::<f32>(&dims, rung(4), 2, Purpose::Inference);
    assert_eq!(gpt.evaluate::<f32>(&inputs, &targets), trained);
}

#[test]
fn a_loss_does_not_depend_on_the_micro_batch_it_was_computed_in() {
    let dims = dims(true, Gelu::Erf);
    let rows = 4 * dims.block_size;
    let (inputs, targets) = (tokens(rows, 37, 1), tokens(rows, 37, 2));
    let mut gpt = gpt::<f32>(&dims, rung(4), 2, Purpose::Inference);
    let mut losses = |sequences: usize| {
        let size = sequences * dims.block_size;
        let mut all: Vec<f32> = Vec::new();
        for (inputs, targets) in inputs.chunks(size).zip(targets.chunks(size)) {
            all.extend(gpt.evaluate::<f32>(inputs, targets));
        }
        all
    };
    let whole = losses(4);
    for sequences in [1, 2, 3] {
        assert_close("losses", &losses(sequences), &whole, Kind::Forward);
    }
}

/// A program for the generation of three sequences with 9 positions.
fn generation(dims: &ModelDims, micro_batch: usize, recompute: Recompute) -> (Rung, Purpose) {
    let purpose = Purpose::Generation {
        positions: dims.block_size,
    };
    let rung = Rung {
        micro_batch,
        recompute,
        logits_rows: micro_batch,
    };
    (rung, purpose)
}

/// The whole context is computed by other code: the forward of training.
#[test]
fn sequences_generated_as_a_batch_have_the_logits_of_their_whole_contexts() {
    let dims = dims(true, Gelu::Tanh);
    let vocab = dims.vocab_size;
    let ids: Vec<Vec<u32>> = (0..3)
        .map(|seed| tokens(dims.block_size, vocab, seed))
        .collect();
    let backend = Box::new(OnCpu::<f64>::untuned(2));
    let whole =
        Gpt::of_logits(&dims, rung(3), backend, &weights(&dims)).logits::<f64>(&ids.concat());
    let want = |sequence: usize, seen: usize| {
        let row = sequence * dims.block_size + seen - 1;
        &whole[row * vocab..(row + 1) * vocab]
    };
    let (rung, purpose) = generation(&dims, 3, Recompute::None);
    let mut gpt = gpt::<f64>(&dims, rung, 2, purpose);
    // Prompts of 1, 3 and 5 tokens, in any order and together, then token after token; slot 2 has sequence 0.
    let slots = [2, 0, 1];
    let row = |sequence: usize, at: usize| (slots[sequence], at, ids[sequence][at]);
    let prompts: Vec<_> = (0..5)
        .map(|at| row(2, at))
        .chain((0..3).map(|at| row(1, at)))
        .collect();
    gpt.generate::<f64>(&prompts, 0);
    for step in 0..4 {
        let rows: Vec<_> = (0..3)
            .map(|sequence| row(sequence, 2 * sequence + step))
            .collect();
        // The last tokens of two prompts are computed once more.
        let logits = gpt.generate::<f64>(&rows, 3);
        for (sequence, logits) in logits.iter().enumerate() {
            let want = want(sequence, 2 * sequence + step + 1);
            assert_close("logits", logits, want, Kind::Forward);
        }
    }
}

#[test]
fn a_row_of_a_generation_has_the_same_bits_whatever_is_computed_with_it() {
    let dims = dims(true, Gelu::Erf);
    let (vocab, block_size) = (dims.vocab_size, dims.block_size);
    let ids = tokens(block_size, vocab, 9);
    let row = |slot, at: usize| (slot, at, ids[at]);
    // All at once and nothing kept, as without memory for keys and values.
    let (rung, purpose) = generation(&dims, 1, Recompute::Block);
    let mut again = gpt::<f32>(&dims, rung, 1, purpose);
    let want: Vec<_> = (0..block_size)
        .map(|last| again.generate::<f32>(&(0..=last).map(|at| row(0, at)).collect::<Vec<_>>(), 1))
        .collect();
    let (rung, purpose) = generation(&dims, 5, Recompute::None);
    for threads in [1, 3] {
        let mut gpt = gpt::<f32>(&dims, rung, threads, purpose);
        for (at, want) in want.iter().enumerate() {
            // The same sequence in every slot.
            let rows: Vec<_> = (0..5).map(|slot| row(slot, at)).collect();
            for logits in gpt.generate::<f32>(&rows, 5) {
                assert!(logits == want[0], "position {at}");
            }
        }
    }
    // Copied keys and values are those that were computed.
    let mut gpt = gpt::<f32>(&dims, rung, 2, purpose);
    gpt.generate::<f32>(&(0..8).map(|at| row(1, at)).collect::<Vec<_>>(), 0);
    let copies: Vec<_> = (0..8)
        .map(|at| (block_size as u32 + at, 3 * block_size as u32 + at))
        .collect();
    gpt.workspace.copy_cached(&gpt.state, &copies).unwrap();
    assert!(gpt.generate::<f32>(&[row(3, 8)], 1) == want[8]);
}

#[test]
fn recompute_changes_no_bit() {
    let dropout = Dropout {
        p: 0.2,
        seed: Seed(5),
        step: 7,
        first_sample: 3,
    };
    for n_layer in [1, 2, 5] {
        for (gelu, dropout) in [(Gelu::Tanh, Some(dropout)), (Gelu::Erf, None)] {
            let dims = ModelDims {
                n_layer,
                ..dims(true, gelu)
            };
            let run = |recompute| {
                let rung = Rung {
                    recompute,
                    ..rung(4)
                };
                step::<f32>(&dims, (rung, 2), dropout)
            };
            let kept = run(Recompute::None);
            for recompute in [Recompute::GeluLn, Recompute::Block] {
                let again = run(recompute);
                assert!(kept.0 == again.0, "losses, {recompute} of {n_layer} blocks");
                assert!(
                    kept.1 == again.1,
                    "gradients, {recompute} of {n_layer} blocks"
                );
            }
        }
    }
}

#[test]
fn initial_weights_have_nanogpts_distributions() {
    let dims = ModelDims {
        n_embd: 48,
        ..dims(true, Gelu::Tanh)
    };
    let layout = ParamLayout::new(&dims);
    let mut weights = vec![0f32; layout.len];
    init_weights(&layout, Seed(1), &mut weights);
    let std = |name: &str| {
        let values = &weights[layout.get(name).unwrap().range()];
        let squares: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
        (squares / values.len() as f64).sqrt()
    };
    assert!((std("transformer.h.0.mlp.c_fc.weight") / 0.02 - 1.0).abs() < 0.03);
    assert!((std("transformer.h.1.mlp.c_proj.weight") / 0.01 - 1.0).abs() < 0.03);
    assert_eq!(std("transformer.h.1.ln_2.weight"), 1.0);
    assert_eq!(std("transformer.h.1.ln_2.bias"), 0.0);
}
