//! A lack of memory is known by its type, never by its text.

use std::io;

use taper::checkpoint::CheckpointError;
use taper::error::Error;
use taper::faults::Site;
use taper::memory::{AllocationError, OutOfMemory, Recoverable};

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

fn not_saved(kind: io::ErrorKind) -> Error {
    let error = CheckpointError::Save {
        checkpoint: "out/ckpt-00000001".into(),
        action: "write",
        path: "model.safetensors".into(),
        source: kind.into(),
    };
    error.into()
}

#[test]
fn only_a_lack_of_memory_is_taken_for_one() {
    let device = AllocationError::Device {
        site: Site::Forward,
        reason: "out of memory".into(),
    };
    let io = Error::io("read", "out of memory".as_ref())(io::ErrorKind::Other.into());
    let usage = Error::Usage {
        what: "out of memory".into(),
        hint: "out of memory".into(),
    };
    let full = not_saved(io::ErrorKind::StorageFull);
    for error in [device.into(), io, usage, full] {
        let text = error.to_string();
        assert_eq!(error.into_out_of_memory().unwrap_err().to_string(), text);
    }
    for error in [
        AllocationError::from(refusal()).into(),
        not_saved(io::ErrorKind::OutOfMemory),
    ] {
        assert_eq!(error.into_out_of_memory().unwrap().site, Site::Checkpoint);
    }
}

#[test]
fn every_attempt_to_write_is_told_what_was_refused_before_it_and_only_once() {
    let mut trainer = trainer(ladder(), injected(&["checkpoint:2".into()])).unwrap();
    let mut attempts = Vec::new();
    trainer
        .save(|_, saved| {
            let micro_batches = saved.recoveries.iter();
            let micro_batches = micro_batches.map(|r| (r.from.micro_batch, r.to.micro_batch));
            attempts.push((saved.rung.micro_batch, micro_batches.collect::<Vec<_>>()));
            match attempts.len() {
                1 => Err(not_saved(io::ErrorKind::OutOfMemory)),
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
    let failed = trainer.save(|_, _| -> Result<(), Error> {
        attempts += 1;
        Err(not_saved(io::ErrorKind::StorageFull))
    });
    assert!(matches!(failed, Err(Error::Checkpoint(_))));
    assert_eq!(attempts, 1);
    assert!(trainer.take_recoveries().is_empty());
}
