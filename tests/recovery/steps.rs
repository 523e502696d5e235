//! A resumed run at its thousandth step, sample by sample, and steps that are left out.

use taper::memory::Memory;

use taper::ops::cpu::OnCpu;

use crate::toy::{
    History, SEQUENCES_PER_STEP, Work, assert_outliers_are_left_out, dims, guarded_trainer_of,
    hand_over, injected, ladder, perform, trainer,
};

#[test]
fn refusals_at_step_1000_of_a_resumed_run_train_every_sample_once() {
    let [first, ..] = ladder()[..] else { panic!() };
    let all: Vec<u32> = (0..SEQUENCES_PER_STEP as u32).collect();
    let mut run = trainer(vec![first], Memory::default()).unwrap();
    let until: Vec<Work> = (0..998).map(Work::Step).collect();
    perform(&mut run, &until, &mut History::default()).unwrap();

    // Three passes of a step, so those of step 1,000 begin with the seventh; the retry is refused
    // at the third micro-step, and the whole step is made again by micro-batches of two.
    let injections = ["forward:8".to_owned(), "backward:10".to_owned()];
    let mut resumed = trainer(ladder(), injected(&injections)).unwrap();
    hand_over(&mut run, &mut resumed);
    let steps: Vec<Work> = (998..1003).map(Work::Step).collect();
    let mut history = History::default();
    perform(&mut resumed, &steps, &mut history).unwrap();

    let refused = [&all[..8], &all[..], &all[..]].concat();
    let expected = [&all, &all, &refused, &all, &all];
    assert_eq!(history.samples.iter().collect::<Vec<_>>(), expected);
    assert_eq!(history.recoveries[2].len(), 2);
    assert_eq!(history.all_recoveries().len(), 2);
}

#[test]
fn the_update_of_an_outlier_is_left_out() {
    assert_outliers_are_left_out(|skip| {
        let backend = Box::new(OnCpu::<f32>::untuned(2));
        guarded_trainer_of(&dims(), backend, ladder(), Memory::default(), skip).unwrap()
    });
}
