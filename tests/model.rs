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

#[test]
fn generating_token_by_token_equals_computing_the_whole_context() {
    let dims = dims(true, Gelu::Tanh);
    let ids = tokens(dims.block_size, dims.vocab_size, 9);
    for recompute in Recompute::ALL {
        let rung = Rung {
            recompute,
            ..rung(1)
        };
        let backend = Box::new(OnCpu::<f64>::untuned(2));
        let whole = Gpt::of_logits(&dims, rung, backend, &weights(&dims)).logits::<f64>(&ids);
        let mut gpt = gpt::<f64>(&dims, rung, 2, Purpose::Inference);
        let mut known = 0;
        for seen in [3, 4, 7, 8, 9] {
            let logits = gpt.next_logits::<f64>(&ids[..seen], known);
            let want = &whole[(seen - 1) * dims.vocab_size..seen * dims.vocab_size];
            assert_close("logits", &logits, want, Kind::Forward);
            known = seen;
        }
    }
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
