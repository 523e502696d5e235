//! Memory refused at every site of a run on a GPU: the run goes on as one that was never refused anything, and
//! nothing of what was released stays on the card.

use std::rc::Rc;

use half::{bf16, f16};
use taper::faults::Site;
use taper::memory::Memory;
use taper::model::init_values;
use taper::ops::launch::GpuElement;
use taper::rng::Seed;
use taper::step::Trainer;
use taper::step::evaluation::Evaluator;
use taper::terms::{Recompute, Rung};

use crate::toy::{
    History, SEQUENCES_PER_STEP, Work, faults, hand_over, injected, perform, read_sample,
    trainer_of,
};
use crate::{Card, backend, dims, open, rung};

const RUN: [Work; 5] = [
    Work::Step(0),
    Work::Evaluate,
    Work::Step(1),
    Work::Save,
    Work::Step(2),
];

/// Three micro-steps, then six.
fn ladder() -> Vec<Rung> {
    vec![rung(4, Recompute::None, 32), rung(2, Recompute::Block, 9)]
}

fn trainer<T: GpuElement>(card: &Card, ladder: Vec<Rung>, memory: Memory) -> Trainer {
    let (backend, memory) = (
        backend::<T>(card, true),
        memory.in_pool(card.device.clone()),
    );
    trainer_of(&dims(0.2), backend, ladder, memory).unwrap()
}

/// The run with `work` before `switch` at the first rung and the rest at the second, without faults.
fn switched<T: GpuElement>(card: &Card, switch: usize, rungs: [Rung; 2]) -> History {
    let mut history = History::default();
    let mut first = trainer::<T>(card, vec![rungs[0]], Memory::default());
    perform(&mut first, &RUN[..switch], &mut history).unwrap();
    let mut second = trainer::<T>(card, vec![rungs[1]], Memory::default());
    hand_over(&mut first, &mut second);
    perform(&mut second, &RUN[switch..], &mut history).unwrap();
    history
}

/// The run with refusals; afterwards the card holds what it would without them, and then nothing.
fn disturbed<T: GpuElement>(card: &Card, injections: &[String]) -> History {
    let before = card.used_bytes();
    let (mut history, mut run) = (
        History::default(),
        trainer::<T>(card, ladder(), injected(injections)),
    );
    perform(&mut run, &RUN, &mut history).unwrap();
    let (held, at) = (card.used_bytes() - before, run.rung());
    drop(run);
    assert_eq!(card.used_bytes(), before, "{injections:?}");

    let mut fresh = trainer::<T>(card, vec![at], Memory::default());
    perform(&mut fresh, &RUN[..1], &mut History::default()).unwrap();
    assert_eq!(card.used_bytes() - before, held, "{injections:?}");
    history
}

/// A site, the work that passes it in the middle of the run, and the passes before that pass of it.
const OCCASIONS: [(Site, usize, u64); 4] = [
    (Site::Forward, 2, 4),
    (Site::Backward, 2, 4),
    (Site::Eval, 1, 1),
    (Site::Checkpoint, 3, 0),
];

fn retries_and_descends<T: GpuElement>(card: &Card) {
    let [first, second] = ladder()[..] else {
        panic!()
    };
    let undisturbed = switched::<T>(card, 0, [first, first]);
    for (site, index, before) in OCCASIONS {
        let once = disturbed::<T>(card, &[format!("{site}:{}", before + 1)]);
        assert_eq!(once.all_recoveries(), [(site, first, first)]);
        assert!(once.seen == undisturbed.seen, "{site} once");
        assert_eq!(once.recoveries[index].len(), 1);

        // The retry begins with the next pass.
        let twice = [1, 2].map(|pass| format!("{site}:{}", before + pass));
        let twice = disturbed::<T>(card, &twice);
        let descent = [(site, first, first), (site, first, second)];
        assert_eq!(twice.all_recoveries(), descent);
        let expected = switched::<T>(card, index, [first, second]);
        assert!(twice.seen == expected.seen, "{site} twice");
    }
}

#[test]
fn a_refusal_at_any_site_costs_a_retry_or_a_rung_and_no_byte_in_bf16() {
    let Some(card) = open() else { return };
    retries_and_descends::<bf16>(&card);
}

#[test]
fn a_refusal_in_a_step_costs_nothing_in_f32_and_f16_either() {
    let Some(card) = open() else { return };
    fn check<T: GpuElement>(card: &Card) {
        let [first, second] = ladder()[..] else {
            panic!()
        };
        let got = disturbed::<T>(card, &["backward:5".into(), "forward:8".into()]);
        assert_eq!(got.all_recoveries().len(), 2);
        let expected = switched::<T>(card, 2, [first, second]);
        assert!(got.seen == expected.seen, "{}", T::PRECISION);
    }
    check::<f32>(&card);
    check::<f16>(&card);
}

#[test]
fn any_buffer_of_a_launch_may_be_refused() {
    let Some(card) = open() else { return };
    let [first, second] = ladder()[..] else {
        panic!()
    };
    let before = card.used_bytes();
    let buffers = trainer::<bf16>(&card, vec![first], Memory::default())
        .memory()
        .rows()
        .len() as u64;
    for buffer in 1..=buffers {
        let injections = injected(&[format!("launch:{buffer}")]);
        let mut run = trainer::<bf16>(&card, ladder(), injections);
        assert_eq!((run.rung(), run.take_recoveries().len()), (first, 1));
        drop(run);
        assert_eq!(card.used_bytes(), before, "buffer {buffer}");
    }
    // Halfway through the workspace, and halfway through the one that is made after that.
    let lasting = 5;
    let refused = [lasting + 9, lasting + 18].map(|buffer| format!("launch:{buffer}"));
    let mut run = trainer::<bf16>(&card, ladder(), injected(&refused));
    assert_eq!((run.rung(), run.take_recoveries().len()), (second, 2));
    let mut new = trainer::<bf16>(&card, vec![second], Memory::default());
    let (mut got, mut expected) = (History::default(), History::default());
    perform(&mut run, &RUN, &mut got).unwrap();
    perform(&mut new, &RUN, &mut expected).unwrap();
    assert!(got.seen == expected.seen);
}

/// The loss of untrained weights, evaluated without a trainer.
fn evaluated(card: &Card, injections: &[String]) -> (f64, Vec<(Rung, Rung)>) {
    let before = card.used_bytes();
    let memory = Memory::limited(None, 0, faults(injections)).in_pool(card.device.clone());
    let (dims, backend) = (dims(0.0), backend::<bf16>(card, true));
    let mut evaluator = Evaluator::new(&dims, backend, &ladder(), memory).unwrap();
    let layout = taper::model::ParamLayout::new(&dims);
    let filled = evaluator.load(|weights, _| {
        init_values(&layout, Seed(5), weights).unwrap();
        Ok::<_, taper::memory::AllocationError>(())
    });
    filled.unwrap();
    let samples = Rc::new(std::cell::Cell::new(0));
    let loss = evaluator.evaluate(SEQUENCES_PER_STEP, |sample, inputs, targets| {
        samples.set(samples.get() + 1);
        read_sample(7, sample, inputs, targets);
        Ok::<_, taper::memory::AllocationError>(())
    });
    let recoveries = evaluator.take_recoveries();
    let recoveries = recoveries.iter().map(|r| (r.from, r.to)).collect();
    drop(evaluator);
    assert_eq!(card.used_bytes(), before, "{injections:?}");
    (loss.unwrap(), recoveries)
}

#[test]
fn a_refusal_in_an_evaluation_of_its_own_changes_its_micro_batch_only() {
    let Some(card) = open() else { return };
    let (whole, recoveries) = evaluated(&card, &[]);
    assert_eq!(recoveries, []);
    for refused in ["eval-only:1", "eval-only:3", "launch:1", "launch:12"] {
        let (loss, recoveries) = evaluated(&card, &[refused.to_owned()]);
        assert!(recoveries.len() == 1 && loss == whole, "{refused}");
    }
    let refused = ["eval-only:2", "eval-only:4"].map(str::to_owned);
    let (loss, recoveries) = evaluated(&card, &refused);
    assert_eq!(recoveries.len(), 2);
    assert_eq!(recoveries[1].1.micro_batch, 2);
    // In bf16 another chunk of logits is another product, rounded alike.
    assert!((loss / whole - 1.0).abs() < 1e-4, "{loss} {whole}");
}
