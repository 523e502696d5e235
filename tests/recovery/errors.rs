//! A lack of memory is known by its type, never by its text.

use std::io;

use taper::checkpoint::CheckpointError;
use taper::error::Error;
use taper::faults::Site;
use taper::memory::{AllocationError, OutOfMemory, Recoverable};
use taper::sampling::SamplingError;
use taper::session::SessionError;
use taper::trial::TrialError;

use crate::toy::{injected, ladder, trainer};

fn refusal() -> OutOfMemory {
    OutOfMemory {
        site: Site::Checkpoint,
        name: "staging".into(),
        bytes: 1,
        held: 2,
        limit: None,
    }
}

fn not_saved(kind: io::ErrorKind) -> CheckpointError {
    CheckpointError::Save {
        checkpoint: "out/ckpt-00000001".into(),
        action: "write",
        path: "model.safetensors".into(),
        source: kind.into(),
    }
}

/// An allocation error in every room that one comes up in.
fn in_every_room(error: fn() -> AllocationError) -> [Error; 4] {
    [
        error().into(),
        SessionError::from(error()).into(),
        SamplingError::from(error()).into(),
        TrialError::from(error()).into(),
    ]
}

/// A checkpoint error in every room that one comes up in.
fn checkpoints_in_every_room(kind: io::ErrorKind) -> [Error; 3] {
    [
        not_saved(kind).into(),
        SessionError::from(not_saved(kind)).into(),
        SamplingError::from(not_saved(kind)).into(),
    ]
}

fn device() -> AllocationError {
    AllocationError::Device {
        site: Site::Forward,
        reason: "out of memory".into(),
    }
}

#[test]
fn only_a_lack_of_memory_is_taken_for_one() {
    let io = Error::io("read", "out of memory".as_ref())(io::ErrorKind::Other.into());
    let usage = Error::Usage {
        what: "out of memory".into(),
        hint: "out of memory".into(),
    };
    let full = checkpoints_in_every_room(io::ErrorKind::StorageFull);
    let others = in_every_room(device).into_iter().chain(full);
    for error in others.chain([io, usage]) {
        let text = error.to_string();
        assert_eq!(error.into_out_of_memory().unwrap_err().to_string(), text);
    }
    let lacks = in_every_room(|| refusal().into());
    let unsaved = checkpoints_in_every_room(io::ErrorKind::OutOfMemory);
    for error in lacks.into_iter().chain(unsaved) {
        let text = error.to_string();
        let lack = error.into_out_of_memory();
        assert_eq!(lack.expect(&text).site, Site::Checkpoint);
    }
}

#[test]
fn the_exit_code_tells_the_user_s_faults_from_ours_in_every_room() {
    for error in in_every_room(device) {
        assert_eq!(error.exit_code(), 2, "{error:?}");
    }
    let lacks = in_every_room(|| refusal().into());
    let full = checkpoints_in_every_room(io::ErrorKind::StorageFull);
    for error in lacks.into_iter().chain(full) {
        assert_eq!(error.exit_code(), 1, "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
    }
    let interrupted = SessionError::Interrupted {
        signal: "SIGTERM",
        step: 1,
        checkpoint: "out/ckpt-00000001".into(),
    };
    for error in [
        interrupted,
        SessionError::InterruptedBeforeTraining { signal: "SIGTERM" },
        SessionError::EvaluationInterrupted,
    ] {
        assert_eq!(Error::from(error).exit_code(), 130);
    }
}

#[test]
fn every_attempt_to_write_is_told_what_was_refused_before_it_and_only_once() {
    let mut trainer = trainer(ladder(), injected(&["checkpoint:2".into()])).unwrap();
    let mut attempts = Vec::new();
    trainer
        .save(|saved| -> Result<(), SessionError> {
            let micro_batches = saved.recoveries.iter();
            let micro_batches = micro_batches.map(|r| (r.from.micro_batch, r.to.micro_batch));
            attempts.push((saved.rung.micro_batch, micro_batches.collect::<Vec<_>>()));
            match attempts.len() {
                1 => Err(not_saved(io::ErrorKind::OutOfMemory).into()),
                2 => Err(AllocationError::from(refusal()).into()),
                _ => Ok(()),
            }
        })
        .unwrap();
    // The retry of the first refusal is refused before it writes.
    let expected = [(4, vec![]), (2, vec![(4, 4), (4, 2)]), (2, vec![(2, 2)])];
    assert_eq!(attempts, expected);
    assert!(trainer.take_recoveries().is_empty());
}

#[test]
fn a_write_that_fails_otherwise_is_not_repeated() {
    let mut trainer = trainer(ladder(), injected(&[])).unwrap();
    let mut attempts = 0;
    let failed = trainer.save(|_| -> Result<(), Error> {
        attempts += 1;
        Err(not_saved(io::ErrorKind::StorageFull).into())
    });
    assert!(matches!(failed, Err(Error::Checkpoint(_))));
    assert_eq!(attempts, 1);
    assert!(trainer.take_recoveries().is_empty());
}
