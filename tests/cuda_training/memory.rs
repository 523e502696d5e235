//! What a trainer holds of a GPU's memory: what was planned, from its first step on, and nothing afterwards.

use half::{bf16, f16};
use taper::memory::{Memory, total_bytes};
use taper::model::{ParamLayout, Program};
use taper::ops::launch::GpuElement;
use taper::terms::{Engine, Job, Recompute};

use crate::toy::{History, Work, perform, trainer_of};
use crate::{Card, backend, dims, open, rung};

/// What a pool rounds allocations up to.
const GRANULE: u64 = 512;

/// A few numbers that a step reads and gives, beside the plan's rows and part of its reserve.
const NUMBERS_BYTES: u64 = 64 << 10;

fn holds_what_was_planned<T: GpuElement>(card: &Card, recompute: Recompute, cuda_graph: bool) {
    let (dims, rung) = (dims(0.1), rung(4, recompute, 9));
    let program = Program::of(Job::Train, &dims, rung, Engine::Cuda, T::PRECISION);
    let rows = program.table(T::PRECISION);

    let before = card.used_bytes();
    let backend = backend::<T>(card, cuda_graph);
    let with_backend = card.used_bytes();
    let mut trainer = trainer_of(&dims, backend, vec![rung], Memory::default()).unwrap();
    assert_eq!(trainer.memory().rows(), rows);
    assert_eq!(trainer.memory().held_bytes(), total_bytes(&rows));

    let (mut used, mut free) = (vec![card.used_bytes()], Vec::new());
    for step in 0..6 {
        perform(
            &mut trainer,
            &[Work::Step(step), Work::Evaluate, Work::Save],
            &mut History::default(),
        )
        .unwrap();
        used.push(card.used_bytes());
        free.push(card.free_bytes());
    }
    assert!(used.iter().all(|now| *now == used[0]), "{used:?}");
    // Kernels are loaded by the first step, graphs made by the second; then the card gives nothing more.
    assert!(free[2..].iter().all(|now| *now == free[2]), "{free:?}");

    let (used, planned) = (used[0] - with_backend, total_bytes(&rows));
    let most = planned + rows.len() as u64 * GRANULE + NUMBERS_BYTES;
    assert!((planned..=most).contains(&used), "{planned} {used} {most}");
    assert!(planned > 4 * ParamLayout::new(&dims).len as u64 * size_of::<f32>() as u64);

    drop(trainer);
    assert_eq!(card.used_bytes(), before);
}

#[test]
fn a_trainer_holds_what_was_planned_from_its_first_step_on_and_nothing_when_it_is_gone() {
    let Some(card) = open() else { return };
    // The first launch of a process may take something for good.
    drop(backend::<f32>(&card, false));
    holds_what_was_planned::<f32>(&card, Recompute::None, false);
    holds_what_was_planned::<bf16>(&card, Recompute::GeluLn, true);
    holds_what_was_planned::<f16>(&card, Recompute::Block, true);
}
