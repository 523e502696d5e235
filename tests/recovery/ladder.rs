//! The sequence of recoveries, and that no more is handed out than is allowed.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;
use taper::faults::{Faults, Injection, Site};
use taper::memory::{AllocationError, Group, Memory, Recoverable};
use taper::ops::backend::{Buffer, BufferName, BufferSpec, ElementType, Owner};
use taper::ops::cpu;
use taper::step::recovery::Workspaces;
use taper::terms::{Recompute, Rung};

use crate::toy::{injected, ladder};

/// A rung that is told by its number alone.
fn rung(number: usize) -> Rung {
    Rung {
        micro_batch: number,
        recompute: Recompute::None,
        logits_rows: 1,
    }
}

fn allocate(
    memory: &mut Memory,
    element: ElementType,
    len: usize,
) -> Result<Buffer, AllocationError> {
    let name = BufferName {
        owner: Owner::Model,
        part: "x",
    };
    let spec = BufferSpec {
        name,
        group: Group::Workspaces,
        element,
        len,
    };
    cpu::allocate::<f32>(&spec, memory)
}

/// A workspace without buffers, that counts how often it was made.
fn counted(memory: Memory) -> (Workspaces<Rung>, Rc<RefCell<Vec<Rung>>>) {
    let built = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&built);
    let build = move |rung, _: &mut Memory| {
        noted.borrow_mut().push(rung);
        Ok(rung)
    };
    let (workspaces, ()) = Workspaces::allocate(memory, ladder(), |_| Ok(()), build).unwrap();
    (workspaces, built)
}

#[test]
fn refusals_without_end_retry_and_descend_in_turn_down_to_the_floor() {
    let [first, second, third] = ladder()[..] else {
        panic!()
    };
    let (mut workspaces, built) = counted(injected(&["forward:1-".into()]));
    let mut attempts = Vec::new();
    let refused: Result<(), AllocationError> = workspaces.run(|rung, memory| {
        attempts.push(*rung);
        memory.enter(Site::Forward)
    });
    assert!(refused.unwrap_err().into_out_of_memory().is_ok());
    assert_eq!(attempts, [first, first, second, second, third, third]);
    // The workspace of the launch served the first attempt; each later one has a new one.
    assert_eq!(*built.borrow(), attempts);
    let recoveries = workspaces.take_recoveries();
    let steps: Vec<_> = recoveries.iter().map(|r| (r.from, r.to)).collect();
    let expected = [
        (first, first),
        (first, second),
        (second, second),
        (second, third),
        (third, third),
    ];
    assert_eq!(steps, expected);
    let descents: Vec<_> = recoveries.iter().map(|r| r.is_descent()).collect();
    assert_eq!(descents, [false, true, false, true, false]);
}

#[test]
fn work_goes_on_at_the_rung_that_it_came_to() {
    let [_, second, ..] = ladder()[..] else {
        panic!()
    };
    let (mut workspaces, built) = counted(injected(&["forward:2-3".into()]));
    for _ in 0..4 {
        let work = |_: &mut Rung, memory: &mut Memory| memory.enter(Site::Forward);
        workspaces.run(work).unwrap();
    }
    assert_eq!(workspaces.rung(), second);
    assert_eq!(built.borrow().len(), 3);
}

#[test]
fn the_old_workspace_is_gone_before_the_next_is_made() {
    thread_local!(static ALIVE: RefCell<usize> = const { RefCell::new(0) });
    struct Alive;
    impl Drop for Alive {
        fn drop(&mut self) {
            ALIVE.with(|alive| *alive.borrow_mut() -= 1);
        }
    }
    let build = |_, _: &mut Memory| {
        ALIVE.with(|alive| {
            assert_eq!(*alive.borrow(), 0);
            *alive.borrow_mut() += 1;
        });
        Ok(Alive)
    };
    let memory = injected(&["forward:1-4".into()]);
    let (mut workspaces, ()) = Workspaces::allocate(memory, ladder(), |_| Ok(()), build).unwrap();
    let work = |_: &mut Alive, memory: &mut Memory| memory.enter(Site::Forward);
    workspaces.run(work).unwrap();
}

#[test]
fn another_failure_is_neither_retried_nor_recorded() {
    for failure in ["forward:1!", "backward:1!"] {
        let (mut workspaces, built) = counted(injected(&[failure.into()]));
        let mut attempts = 0;
        let failed: Result<(), AllocationError> = workspaces.run(|_, memory| {
            attempts += 1;
            memory.enter(Site::Forward)?;
            memory.enter(Site::Backward)
        });
        let error = failed.unwrap_err().into_out_of_memory().unwrap_err();
        let site = failure.split(':').next().unwrap();
        assert!(
            error.to_string().contains(&format!("failed at {site}")),
            "{error}"
        );
        assert_eq!(taper::error::Error::from(error).exit_code(), 2);
        assert_eq!((attempts, built.borrow().len()), (1, 1));
        assert!(workspaces.take_recoveries().is_empty());
    }
}

proptest! {
    #[test]
    fn no_more_is_handed_out_than_is_allowed(
        limit in 0u64..4000, reserve in 0u64..1000, lens in prop::collection::vec(0usize..300, 0..40),
    ) {
        let mut memory = Memory::limited(Some(limit), reserve, Faults::default());
        let mut held = reserve;
        let mut buffers = Vec::new();
        for len in lens {
            let element = match len % 3 {
                0 => ElementType::Compute,
                1 => ElementType::Full,
                _ => ElementType::Id,
            };
            let bytes = 4 * len as u64;
            let granted = allocate(&mut memory, element, len).map(|buffer| match element {
                ElementType::Id => buffer.read::<Vec<u32>>().len(),
                ElementType::Compute | ElementType::Full => buffer.read::<Vec<f32>>().len(),
            });
            match granted {
                Ok(granted) => {
                    prop_assert_eq!(granted, len);
                    held += bytes;
                    buffers.push(bytes);
                    prop_assert!(bytes == 0 || held <= limit);
                }
                Err(AllocationError::OutOfMemory(refusal)) => {
                    prop_assert!(bytes > 0 && held + bytes > limit);
                    prop_assert_eq!((refusal.bytes, refusal.held), (bytes, held));
                    prop_assert_eq!(refusal.limit, Some(limit));
                }
                Err(other) => panic!("{other}"),
            }
            // A refused request holds nothing, so a smaller one may still be granted.
            prop_assert_eq!(memory.held_bytes(), held);
            prop_assert_eq!(memory.rows().len(), buffers.len());
        }
    }

    /// Whatever the rungs take: the first that fits is taken, and never more is held than allowed.
    #[test]
    fn the_first_rung_that_fits_is_taken_and_the_limit_holds(
        limit in 0u64..4000,
        lasting in 0usize..500,
        rungs in prop::collection::vec(prop::collection::vec(0usize..400, 1..6), 1..6),
    ) {
        let sizes = rungs.clone();
        let build = move |rung: Rung, memory: &mut Memory| {
            let buffers = sizes[rung.micro_batch].iter();
            let buffers = buffers.map(|&len| allocate(memory, ElementType::Id, len));
            buffers.collect::<Result<Vec<_>, _>>()
        };
        let ladder = (0..rungs.len()).map(rung).collect();
        let memory = Memory::limited(Some(limit), 0, Faults::default());
        let made = Workspaces::allocate(
            memory,
            ladder,
            |memory| allocate(memory, ElementType::Id, lasting),
            build,
        );
        let takes = |rung: &Vec<usize>| 4 * (lasting + rung.iter().sum::<usize>()) as u64;
        match (made, rungs.iter().position(|rung| takes(rung) <= limit)) {
            (Ok((mut workspaces, _)), Some(fits)) => {
                prop_assert_eq!(workspaces.rung(), rung(fits));
                prop_assert_eq!(workspaces.memory().held_bytes(), takes(&rungs[fits]));
                prop_assert_eq!(workspaces.take_recoveries().len(), 2 * fits);
            }
            (Err(error), None) => prop_assert!(error.into_out_of_memory().is_ok()),
            (made, fits) => panic!("{:?} but rung {fits:?} fits", made.map(|_| ()).err()),
        }
    }

    /// Refusals at random passes: every recovery is a retry or one rung down, from where the last one
    /// led to, and no two retries follow each other within one piece of work.
    #[test]
    fn recoveries_are_a_walk_down_the_ladder(mut passes in prop::collection::btree_set(1u64..12, 0..6)) {
        let injections = passes.iter().map(|&pass| {
            format!("forward:{pass}").parse::<Injection>().unwrap()
        });
        let memory = Memory::limited(None, 0, Faults::new(injections.collect()));
        let (mut workspaces, _) = counted(memory);
        let (mut pass, mut at) = (0, 0);
        for _ in 0..4 {
            let work = |_: &mut Rung, memory: &mut Memory| {
                pass += 1;
                memory.enter(Site::Forward)
            };
            let done: Result<(), AllocationError> = workspaces.run(work);
            let recoveries = workspaces.take_recoveries();
            for (index, recovery) in recoveries.iter().enumerate() {
                prop_assert_eq!(recovery.is_descent(), index % 2 == 1);
                prop_assert_eq!(recovery.from, ladder()[at]);
                at += usize::from(recovery.is_descent());
                prop_assert_eq!(recovery.to, ladder()[at]);
            }
            prop_assert_eq!(workspaces.rung(), ladder()[at]);
            let refused = recoveries.len() as u64 + u64::from(done.is_err());
            for _ in 0..refused {
                prop_assert!(passes.pop_first().is_some_and(|refused| refused <= pass));
            }
            if done.is_err() {
                prop_assert_eq!(at, ladder().len() - 1);
                break;
            }
        }
    }
}
