//! Values of another block, and the loss as what an evaluation computes.

use taper::model::{Program, gpt2};
use taper::ops::backend::OpKind;
use taper::terms::{Engine, Precision, Purpose, Recompute};

use super::edit::{buffer, lists, replace, written};
use super::validate::{Fault, loss_symbol, validate};
use super::{dims, rung, training};

fn is_stale(program: &Program, reader: OpKind, layer: usize, name: &str) -> bool {
    validate(program).iter().any(|fault| {
        let Fault::Stale(place) = fault else {
            return false;
        };
        (place.op, place.layer, &*place.buffer) == (reader, Some(layer), name)
    })
}

#[test]
fn a_block_that_reads_what_another_wrote_into_a_shared_buffer_is_found() {
    for [from, to] in [[0, 1], [1, 0], [0, 2], [2, 0]] {
        let mut program = training(&dims(0.1), Recompute::None);
        let names = [from, to].map(|layer| format!("h.{layer}.attn.qkv"));
        let [from, _] = names.each_ref().map(|name| buffer(&program, name));
        let to = buffer(&program, &names[1]);
        replace(&mut program, from, to);
        let reader = OpKind::AttentionGradients;
        assert!(is_stale(&program, reader, 0, &names[1]), "{names:?}");
    }
}

#[test]
fn what_is_not_computed_again_is_another_block_s() {
    let cases = [
        (Recompute::GeluLn, "h.*.ln_1", OpKind::WeightGradients),
        (Recompute::GeluLn, "h.*.mlp.gelu", OpKind::WeightGradients),
        (Recompute::Block, "h.*.ln_1", OpKind::WeightGradients),
        (Recompute::Block, "h.*.attn.qkv", OpKind::AttentionGradients),
        (Recompute::Block, "h.*.attn.lse", OpKind::AttentionGradients),
        (Recompute::Block, "h.*.ln_2.mean", OpKind::NormGradients),
    ];
    for (recompute, name, reader) in cases {
        for layer in [0, 1] {
            // The input of the last block is what the block before it wrote last, as if it were its own.
            if (layer, name) == (1, "h.*.ln_1") {
                continue;
            }
            let mut program = training(&dims(0.1), recompute);
            let again = program.backward.iter().position(|node| {
                let writes = written(&program, node).iter().any(|known| known == name);
                node.is_recomputed && node.layer == Some(layer) && writes
            });
            program.backward.remove(again.unwrap());
            assert!(
                is_stale(&program, reader, layer, name),
                "{recompute} {name}"
            );
        }
    }
}

fn inference(dropout: f64, recompute: Recompute) -> Program {
    let (purpose, engine) = (Purpose::Inference, Engine::Cuda);
    gpt2(
        &dims(dropout),
        rung(recompute),
        purpose,
        engine,
        Precision::Float32,
    )
}

#[test]
fn training_and_evaluation_have_one_loss_whatever_is_kept() {
    let loss = loss_symbol(&training(&dims(0.0), Recompute::None));
    assert!(loss.is_some());
    for recompute in Recompute::ALL {
        assert_eq!(loss_symbol(&training(&dims(0.0), recompute)), loss);
        assert_eq!(loss_symbol(&inference(0.0, recompute)), loss);
    }
}

#[test]
fn without_any_operation_of_an_evaluation_its_loss_is_another() {
    for recompute in Recompute::ALL {
        let good = inference(0.0, recompute);
        assert_eq!(validate(&good), []);
        for list in [0, 1, 2] {
            for index in 0..lists(&mut good.clone())[list].len() {
                let mut program = good.clone();
                let node = lists(&mut program)[list].remove(index);
                let is_found =
                    !validate(&program).is_empty() || loss_symbol(&program) != loss_symbol(&good);
                assert!(is_found, "{recompute}: {node:?}");
            }
        }
    }
}
