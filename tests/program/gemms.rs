//! The products of a training step, which are tuned and packed for.

use taper::model::{Program, gpt2};
use taper::ops::gemm::{Epilogue, TrainingGemm};
use taper::terms::{Engine, Gelu, Inputs, Job, ModelDims, Precision, Purpose, Recompute, Rung};

const DIMS: ModelDims = ModelDims {
    n_layer: 2,
    n_head: 2,
    n_embd: 16,
    block_size: 32,
    vocab_size: 50,
    bias: true,
    dropout: 0.0,
    gelu: Gelu::Tanh,
};

fn rung(logits_rows: usize) -> Rung {
    Rung {
        micro_batch: 4,
        recompute: Recompute::None,
        logits_rows,
    }
}

fn gemms(dims: &ModelDims, rung: Rung, inputs: Inputs) -> Vec<TrainingGemm> {
    let (engine, precision) = (Engine::Cuda, Precision::Bfloat16);
    Program::of(Job::Train, dims, rung, engine, precision).gemms(inputs)
}

#[test]
fn a_step_does_three_products_per_weight_and_six_flops_per_weight_and_row() {
    let gemms = gemms(&DIMS, rung(64), Inputs::Bfloat16);
    assert_eq!(gemms.len(), 5 * 3);
    let (c, rows, chunk) = (16, 4 * 32, 64);
    let flops: u64 = gemms.iter().map(|gemm| gemm.problem.flops()).sum();
    assert_eq!(
        flops,
        6 * (12 * c * c * rows + DIMS.vocab_size as u64 * c * chunk)
    );
}

#[test]
fn a_micro_step_does_six_flops_per_weight_and_row() {
    let flops = |gemm: &TrainingGemm| gemm.problem.flops() * gemm.per_micro_step as u64;
    let gemms = gemms(&DIMS, rung(100), Inputs::Bfloat16);
    let (c, rows) = (16, 4 * 32);
    let weights = 2 * 12 * c * c + DIMS.vocab_size as u64 * c;
    assert_eq!(gemms.iter().map(flops).sum::<u64>(), 6 * weights * rows);
}

#[test]
fn what_is_left_of_the_rows_after_whole_chunks_is_a_problem_of_its_own() {
    let gemms = gemms(&DIMS, rung(100), Inputs::Float32);
    let find = |wanted| {
        let found = gemms.iter().find(|gemm| gemm.name == wanted);
        found.map(|gemm| gemm.problem)
    };
    assert_eq!(find("logits").map(|problem| problem.m), Some(100));
    assert_eq!(find("last logits").map(|problem| problem.m), Some(28));
    assert_eq!(find("last logits dW").map(|problem| problem.k), Some(28));
    let mut names: Vec<_> = gemms.iter().map(|gemm| &gemm.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), gemms.len());
}

#[test]
fn a_model_without_biases_has_none_in_its_products() {
    let dims = ModelDims {
        bias: false,
        ..DIMS
    };
    for TrainingGemm { name, problem, .. } in gemms(&dims, rung(64), Inputs::Bfloat16) {
        let slope = name == "mlp.c_proj dX";
        assert_eq!(problem.epilogue != Epilogue::None, slope, "{name}");
    }
}

#[test]
fn the_products_come_in_the_order_of_a_step() {
    let gemms = gemms(&DIMS, rung(100), Inputs::Float32);
    let names: Vec<&str> = gemms.iter().map(|gemm| &*gemm.name).collect();
    let expected = [
        "c_attn",
        "attn.c_proj",
        "c_fc",
        "mlp.c_proj",
        "logits",
        "logits dX",
        "logits dW",
        "last logits",
        "last logits dX",
        "last logits dW",
        "mlp.c_proj dW",
        "mlp.c_proj dX",
        "c_fc dW",
        "c_fc dX",
        "attn.c_proj dW",
        "attn.c_proj dX",
        "c_attn dW",
        "c_attn dX",
    ];
    assert_eq!(names, expected);
}

/// A block that is computed again has no other products, and they are not counted twice.
#[test]
fn recomputation_adds_no_product() {
    let with = |recompute| {
        let rung = Rung {
            recompute,
            ..rung(100)
        };
        gemms(&DIMS, rung, Inputs::Bfloat16)
    };
    let kept = with(Recompute::None);
    assert_eq!(with(Recompute::GeluLn), kept);
    assert_eq!(with(Recompute::Block), kept);
    let recomputed = Rung {
        recompute: Recompute::Block,
        ..rung(100)
    };
    let (purpose, precision) = (Purpose::Training, Precision::Float32);
    let program = gpt2(&DIMS, recomputed, purpose, Engine::Cuda, precision);
    let again = program.backward.iter().filter(|node| node.is_recomputed);
    assert!(again.filter(|node| node.op.gemm_name().is_some()).count() > 0);
}
