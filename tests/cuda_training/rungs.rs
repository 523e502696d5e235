//! The same experiment at any rung.

use half::{bf16, f16};
use taper::memory::Memory;
use taper::ops::launch::GpuElement;
use taper::step::StepOutcome;
use taper::terms::{Gelu, GemmBackend, ModelDims, Recompute, Rung};

use crate::toy::{History, Seen, Work, perform, trainer_of};
use crate::{Card, backend, backend_of, dims, open, rung};

const RUN: [Work; 5] = [
    Work::Step(0),
    Work::Step(1),
    Work::Step(2),
    Work::Evaluate,
    Work::Save,
];

/// A run with dropout at one rung, every product by its fallback.
fn run<T: GpuElement>(card: &Card, rung: Rung, cuda_graph: bool) -> History {
    run_of::<T>(card, &dims(0.2), rung, cuda_graph)
}

fn run_of<T: GpuElement>(card: &Card, dims: &ModelDims, rung: Rung, cuda_graph: bool) -> History {
    let backend = backend::<T>(card, cuda_graph);
    let mut trainer = trainer_of(dims, backend, vec![rung], Memory::default()).unwrap();
    let mut history = History::default();
    perform(&mut trainer, &RUN, &mut history).unwrap();
    assert_eq!(history.all_recoveries(), []);
    history
}

fn steps(history: &History) -> impl Iterator<Item = StepOutcome> {
    history.seen.iter().filter_map(|seen| match seen {
        Seen::Step(outcome) => Some(*outcome),
        _ => None,
    })
}

/// Training losses, gradient norms, and the loss of the evaluation.
fn numbers(history: &History) -> Vec<f64> {
    let steps = steps(history).flat_map(|step| [step.loss, step.gradient_norm]);
    let evaluated = history.seen.iter().filter_map(|seen| match seen {
        Seen::Loss(loss) => Some(*loss),
        _ => None,
    });
    steps.chain(evaluated).collect()
}

/// Everything that was seen but the rung's own name.
fn bits(history: &History) -> (Vec<u64>, [Vec<u32>; 3]) {
    let numbers = numbers(history).iter().map(|x| x.to_bits()).collect();
    let Some(Seen::Saved { weights, m, v, .. }) = history.seen.last() else {
        panic!("nothing was saved");
    };
    let of = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect();
    (numbers, [of(weights), of(m), of(v)])
}

#[test]
fn every_micro_batch_and_logits_chunk_gives_the_losses_of_the_whole_step() {
    let Some(card) = open() else { return };
    let whole = run::<f32>(&card, rung(12, Recompute::None, 96), true);
    assert_eq!(numbers(&whole).len(), 7);
    // 5 does not divide the step: its last micro-step is smaller, and is in no graph.
    let rungs = [
        rung(4, Recompute::None, 32),
        rung(5, Recompute::GeluLn, 7),
        rung(2, Recompute::Block, 16),
        rung(1, Recompute::None, 8),
    ];
    for rung in rungs {
        let parts = run::<f32>(&card, rung, true);
        assert_eq!(parts.samples[0], whole.samples[0], "{rung}");
        for (part, whole) in numbers(&parts).iter().zip(numbers(&whole)) {
            assert!((part / whole - 1.0).abs() < 1e-6, "{rung}: {part} {whole}");
        }
    }
}

/// Two steps of a small model, without dropout.
fn recomputed<T: GpuElement>(
    card: &Card,
    recompute: Recompute,
    (gelu, products): (Gelu, GemmBackend),
) -> (Vec<u64>, [Vec<u32>; 3]) {
    let dims = ModelDims { gelu, ..dims(0.0) };
    let rungs = vec![rung(4, recompute, 32)];
    let backend = backend_of::<T>(card, products, true);
    let mut trainer = trainer_of(&dims, backend, rungs, Memory::default()).unwrap();
    let (mut history, work) = (History::default(), [RUN[0], RUN[1], Work::Save]);
    perform(&mut trainer, &work, &mut history).unwrap();
    bits(&history)
}

fn assert_recompute_changes_no_bit<T: GpuElement>(
    card: &Card,
    recomputes: &[Recompute],
    how: (Gelu, GemmBackend),
) {
    let kept = recomputed::<T>(card, Recompute::None, how);
    for &recompute in recomputes {
        let again = recomputed::<T>(card, recompute, how);
        assert!(again == kept, "{recompute} in {}, {how:?}", T::PRECISION);
    }
}

#[test]
fn a_block_that_is_recomputed_has_the_bits_of_one_that_is_kept() {
    let Some(card) = open() else { return };
    let (block, tanh) = ([Recompute::Block], (Gelu::Tanh, GemmBackend::Auto));
    assert_recompute_changes_no_bit::<f32>(&card, &block, tanh);
    assert_recompute_changes_no_bit::<bf16>(&card, &block, tanh);
    assert_recompute_changes_no_bit::<f16>(&card, &block, tanh);
}

/// GELU is always applied to what is kept: after cuBLASLt's product by the kernel that recomputes it, and by
/// our own products to what they stored.
#[test]
fn gelu_that_is_recomputed_has_the_bits_of_one_that_is_kept() {
    let Some(card) = open() else { return };
    let again = &[Recompute::GeluLn];
    for gelu in [Gelu::Erf, Gelu::Tanh] {
        assert_recompute_changes_no_bit::<f32>(&card, again, (gelu, GemmBackend::Auto));
        assert_recompute_changes_no_bit::<bf16>(&card, again, (gelu, GemmBackend::Auto));
    }
    let ours = (Gelu::Tanh, GemmBackend::Ptx);
    assert_recompute_changes_no_bit::<f32>(&card, again, ours);
}

#[test]
fn a_cuda_graph_and_a_second_run_change_no_bit() {
    let Some(card) = open() else { return };
    let at = rung(4, Recompute::None, 32);
    // With heads that tensor cores take.
    let dims = ModelDims {
        n_head: 1,
        n_embd: 64,
        ..dims(0.2)
    };
    let run = |graph| bits(&run_of::<bf16>(&card, &dims, at, graph));
    let [graph, plain, again] = [true, false, true].map(run);
    assert!(graph == plain, "the graph does something else");
    assert!(graph == again, "two runs differ");
}

#[test]
fn dropout_and_another_chunk_can_be_seen_in_the_bits() {
    let Some(card) = open() else { return };
    let at = rung(4, Recompute::None, 32);
    let dropped = run::<bf16>(&card, at, false);
    let whole = run_of::<bf16>(&card, &dims(0.0), at, false);
    assert!(bits(&whole) != bits(&dropped));
    let chunked = run::<bf16>(&card, rung(4, Recompute::None, 9), false);
    assert!(bits(&chunked) != bits(&dropped));
}
