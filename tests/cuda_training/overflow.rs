//! float16's loss scaler: what overflows is done again with a smaller scale, and nothing else becomes of it.

use half::f16;
use taper::memory::Memory;
use taper::step::Trainer;
use taper::step::loss_scale::LossScale;
use taper::terms::Recompute;

use crate::toy::{History, SEQUENCES_PER_STEP, Seen, Work, perform, trainer_of};
use crate::{Card, backend, dims, open, rung};

/// As a checkpoint has it.
fn scale(value: f64, good_steps: u32) -> LossScale {
    let stored = serde_json::json!({ "value": value, "good_steps": good_steps, "moves": true });
    serde_json::from_value(stored).unwrap()
}

fn trainer(card: &Card, scale: LossScale) -> Trainer {
    let (rungs, backend) = (
        vec![rung(4, Recompute::None, 32)],
        backend::<f16>(card, true),
    );
    let mut trainer = trainer_of(&dims(0.1), backend, rungs, Memory::default()).unwrap();
    trainer.loss_scale.resume(Some(scale));
    trainer
}

fn run(trainer: &mut Trainer) -> History {
    let mut history = History::default();
    let work = [Work::Step(0), Work::Save, Work::Step(1), Work::Save];
    perform(trainer, &work, &mut history).unwrap();
    history
}

const MOST: f64 = (1 << 24) as f64;

#[test]
fn gradients_that_overflow_halve_the_scale_and_the_same_samples_make_the_step() {
    let Some(card) = open() else { return };
    // dlogits of a wrong token are close to scale / tokens, and f16 ends at 65,504: 2^24 / 96 = 174,763.
    let mut overflowing = trainer(&card, scale(MOST, 7));
    let got = run(&mut overflowing);
    let attempts = got.samples[0].len() / SEQUENCES_PER_STEP;
    assert!(attempts > 1, "nothing overflowed");
    let all: Vec<u32> = (0..SEQUENCES_PER_STEP as u32).collect();
    assert_eq!(got.samples[0], all.repeat(attempts));
    assert_eq!(got.samples[2], all, "the scale was found once");
    assert_eq!(got.all_recoveries(), []);

    let found = MOST / (1u64 << (attempts - 1)) as f64;
    assert_eq!(overflowing.loss_scale, scale(found, 2));
    let mut from_the_start = trainer(&card, scale(found, 0));
    let expected = run(&mut from_the_start);
    assert_eq!(expected.samples[0], all);
    assert!(got.seen == expected.seen);
    assert_eq!(overflowing.loss_scale, from_the_start.loss_scale);
    let Seen::Step(outcome) = &got.seen[0] else {
        panic!("not a step");
    };
    assert!(outcome.is_finite());
}

#[test]
fn the_scale_grows_after_two_thousand_good_steps() {
    let Some(card) = open() else { return };
    let mut trainer = trainer(&card, scale(1024.0, 1998));
    run(&mut trainer);
    assert_eq!(trainer.loss_scale, scale(2048.0, 0));
}

#[test]
fn a_loss_that_is_no_number_changes_neither_weights_nor_scale() {
    let Some(card) = open() else { return };
    let mut broken = trainer(&card, scale(1024.0, 3));
    broken
        .load(|[weights, _, _], _| {
            weights.write(0, &[f32::NAN; 64]).unwrap();
            Ok::<_, taper::memory::AllocationError>(())
        })
        .unwrap();
    let mut history = History::default();
    let work = [Work::Save, Work::Step(0), Work::Save];
    perform(&mut broken, &work, &mut history).unwrap();
    let bits = |seen: &Seen| match seen {
        Seen::Saved { weights, m, v, .. } => {
            let all = [weights, m, v].map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
            Some(all)
        }
        _ => None,
    };
    let Seen::Step(outcome) = &history.seen[1] else {
        panic!("not a step");
    };
    assert!(outcome.loss.is_nan() && !outcome.is_finite());
    assert_eq!(history.samples[1].len(), SEQUENCES_PER_STEP);
    assert!(bits(&history.seen[0]) == bits(&history.seen[2]));
    assert_eq!(broken.loss_scale.value(), 1024.0);
}
