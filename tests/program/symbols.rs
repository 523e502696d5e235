//! What a program computes, whatever the buffers that it does it in.

use std::collections::BTreeMap;

use taper::model::Program;
use taper::ops::backend::DropoutSite;
use taper::terms::{Gelu, ModelDims, Recompute};

use super::{dims, training};
use crate::flow::Dataflow;
use crate::validate::gradient_symbols;

fn symbols(dims: &ModelDims) -> BTreeMap<String, u64> {
    gradient_symbols(&training(dims, Recompute::None))
}

/// The parameters that both have, and whose gradients differ.
fn different(a: &BTreeMap<String, u64>, b: &BTreeMap<String, u64>) -> Vec<String> {
    let common = a.iter().filter(|(name, _)| b.contains_key(*name));
    let different = common.filter(|(name, symbol)| b[*name] != **symbol);
    different.map(|(name, _)| name.clone()).collect()
}

#[test]
fn every_kind_of_recomputation_has_the_gradients_of_what_is_kept() {
    for dropout in [0.0, 0.1] {
        for n_layer in [1, 2, 5] {
            for bias in [true, false] {
                let dims = ModelDims {
                    n_layer,
                    bias,
                    ..dims(dropout)
                };
                let kept = symbols(&dims);
                assert_eq!(
                    kept.len(),
                    training(&dims, Recompute::None).params.params.len()
                );
                for recompute in [Recompute::GeluLn, Recompute::Block] {
                    let again = gradient_symbols(&training(&dims, recompute));
                    assert_eq!(again, kept, "{recompute}, {dims:?}");
                }
            }
        }
    }
}

/// Dropout is behind the blocks' branches, and the final norm is behind the last block.
#[test]
fn dropout_changes_every_gradient_but_the_final_norm_s() {
    let (without, with) = (symbols(&dims(0.0)), symbols(&dims(0.1)));
    let mut expected: Vec<&String> = with.keys().collect();
    expected.retain(|name| !name.contains("ln_f"));
    assert_eq!(
        different(&without, &with).iter().collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn another_block_changes_every_gradient() {
    let deeper = ModelDims {
        n_layer: 4,
        ..dims(0.0)
    };
    let (three, four) = (symbols(&dims(0.0)), symbols(&deeper));
    assert_eq!(different(&three, &four).len(), three.len());
}

#[test]
fn the_activation_the_heads_and_a_bias_change_every_gradient() {
    let plain = symbols(&dims(0.0));
    let erf = ModelDims {
        gelu: Gelu::Erf,
        ..dims(0.0)
    };
    let heads = ModelDims {
        n_head: 4,
        ..dims(0.0)
    };
    let bias = ModelDims {
        bias: false,
        ..dims(0.0)
    };
    for dims in [erf, heads, bias] {
        let other = symbols(&dims);
        assert_eq!(different(&plain, &other).len(), other.len(), "{dims:?}");
    }
}

/// The sites at which elements are dropped in `nodes`, each as often as that happens.
fn sites(program: &Program, in_backward: bool) -> BTreeMap<String, usize> {
    let nodes = if in_backward {
        &program.backward
    } else {
        &program.forward
    };
    let nodes = nodes.iter().filter(|node| !node.is_recomputed);
    let mut sites = BTreeMap::new();
    for site in nodes.filter_map(|node| node.op.site()) {
        *sites.entry(format!("{site:?}")).or_default() += 1;
    }
    sites
}

#[test]
fn what_the_forward_drops_the_backward_drops_once() {
    for recompute in Recompute::ALL {
        let program = training(&dims(0.1), recompute);
        let forward = sites(&program, false);
        let of_embedding = format!("{:?}", DropoutSite::Embedding);
        assert_eq!(forward.len(), 1 + 3 * 3);
        assert!(forward.contains_key(&of_embedding));
        assert!(forward.values().all(|times| *times == 1));
        assert_eq!(sites(&program, true), forward, "{recompute}");
        // What is computed again drops the same elements at the same place.
        let again = program.backward.iter().filter(|node| node.is_recomputed);
        for node in again {
            let mut first = program.forward.iter();
            let same = first.any(|known| (&known.op, known.layer) == (&node.op, node.layer));
            assert!(same || node.op.site().is_none(), "{recompute}: {node:?}");
        }
    }
}
