//! Refusals while the buffers are made.

use taper::faults::{Faults, Site};
use taper::memory::{AllocationError, Memory, Recoverable, Row};
use taper::step::Trainer;
use taper::terms::Rung;

use crate::toy::{History, Work, injected, ladder, perform, trainer, weights};

/// Weights, gradients and two moments come before the workspace.
const LASTING: u64 = 4;

fn rows(rung: Rung) -> Vec<Row> {
    let trainer = trainer(vec![rung], Memory::default()).unwrap();
    trainer.memory().rows().to_vec()
}

fn bytes(rung: Rung) -> u64 {
    rows(rung).iter().map(|row| row.bytes).sum()
}

/// What the trainer does afterwards is what one at `rung` does that was never refused anything.
fn assert_as_new(trainer: &mut Trainer, rung: Rung, what: &str) {
    assert_eq!(trainer.rung(), rung, "{what}");
    assert_eq!(trainer.memory().rows(), rows(rung), "{what}");
    assert_eq!(trainer.memory().held_bytes(), bytes(rung), "{what}");
    let work = [Work::Step(0), Work::Evaluate, Work::Step(1), Work::Save];
    let (mut got, mut expected) = (History::default(), History::default());
    perform(trainer, &work, &mut got).unwrap();
    let mut new = crate::toy::trainer(vec![rung], Memory::default()).unwrap();
    perform(&mut new, &work, &mut expected).unwrap();
    assert!(got.seen == expected.seen, "{what}");
}

fn recoveries(trainer: &mut Trainer) -> Vec<(Site, Rung, Rung)> {
    let all = trainer.take_recoveries();
    all.iter().map(|r| (r.site, r.from, r.to)).collect()
}

#[test]
fn any_buffer_may_be_refused_once() {
    let [first, ..] = ladder()[..] else { panic!() };
    for pass in 1..=rows(first).len() as u64 {
        let what = format!("buffer {pass}");
        let mut trainer = trainer(ladder(), injected(&[format!("launch:{pass}")])).unwrap();
        let retry = [(Site::Launch, first, first)];
        assert_eq!(recoveries(&mut trainer), retry, "{what}");
        assert_as_new(&mut trainer, first, &what);
    }
}

#[test]
fn a_workspace_refused_twice_halfway_is_released_and_made_for_the_next_rung() {
    let [first, second, ..] = ladder()[..] else {
        panic!()
    };
    let workspace = rows(first).len() as u64 - LASTING;
    for buffer in 1..=workspace {
        let what = format!("buffer {buffer} of {workspace}");
        let refused = [LASTING + buffer, LASTING + 2 * buffer];
        let injections = refused.map(|pass| format!("launch:{pass}"));
        let mut trainer = trainer(ladder(), injected(&injections)).unwrap();
        let descent = [(Site::Launch, first, first), (Site::Launch, first, second)];
        assert_eq!(recoveries(&mut trainer), descent, "{what}");
        assert_as_new(&mut trainer, second, &what);
    }
}

#[test]
fn what_lasts_is_retried_once_and_has_no_smaller_rung() {
    for buffer in 1..=LASTING {
        let refused = [buffer, 2 * buffer].map(|pass| format!("launch:{pass}"));
        let error = trainer(ladder(), injected(&refused)).err().unwrap();
        let AllocationError::OutOfMemory(refusal) = error else {
            panic!("{error}");
        };
        assert_eq!(refusal.site, Site::Launch);
    }
}

#[test]
fn refusals_at_every_rung_are_a_refusal() {
    let injections = [format!("launch:{}-", LASTING + 1)];
    let error = trainer(ladder(), injected(&injections)).err().unwrap();
    assert!(error.into_out_of_memory().is_ok());
}

#[test]
fn a_workspace_is_made_again_after_a_refusal_in_a_step_and_may_be_refused_then() {
    let [first, second, ..] = ladder()[..] else {
        panic!()
    };
    // The step's forward is refused, and halfway through the new workspace a buffer is.
    let pass = rows(first).len() + 7;
    let injections = ["forward:2".into(), format!("launch:{pass}")];
    let mut trainer = trainer(ladder(), injected(&injections)).unwrap();
    let mut history = History::default();
    perform(&mut trainer, &[Work::Step(0)], &mut history).unwrap();
    let descent = [(Site::Forward, first, first), (Site::Launch, first, second)];
    assert_eq!(history.all_recoveries(), descent);
    assert_eq!(trainer.memory().rows(), rows(second));
    let mut expected = History::default();
    let mut new = crate::toy::trainer(vec![second], Memory::default()).unwrap();
    perform(&mut new, &[Work::Step(0)], &mut expected).unwrap();
    assert!(history.seen == expected.seen && weights(&mut trainer) == weights(&mut new));
}

#[test]
fn a_limit_between_two_rungs_launches_the_lower_one() {
    let [first, second, ..] = ladder()[..] else {
        panic!()
    };
    let reserve = 1 << 20;
    for (limit, rung) in [
        (bytes(first), first),
        (bytes(first) - 1, second),
        (bytes(second), second),
    ] {
        let memory = Memory::limited(Some(reserve + limit), reserve, Faults::default());
        let mut trainer = trainer(ladder(), memory).unwrap();
        assert_eq!(trainer.rung(), rung);
        assert_eq!(trainer.memory().rows(), rows(rung));
        let recoveries = trainer.take_recoveries();
        assert_eq!(recoveries.len(), if rung == first { 0 } else { 2 });
        for recovery in recoveries {
            assert!(
                recovery.refusal.contains(", of 1.1 MiB allowed"),
                "{}",
                recovery.refusal
            );
        }
    }
}
