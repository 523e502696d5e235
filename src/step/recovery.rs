//! Recovery from a refusal of memory: release everything that can be made again, retry once, then go on with a smaller
//! rung and the same samples.
//!
//! Work that runs here changes nothing that it reads before it has succeeded, so it can be repeated.
//! The optimizer's update is not such work and never runs here.

use serde::{Deserialize, Serialize};

use crate::faults::Site;
use crate::memory::{AllocationError, Memory, OutOfMemory, Recoverable};
use crate::terms::Rung;

/// A refusal that a run survived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    pub site: Site,
    /// The refusal, in words.
    pub refusal: String,
    pub from: Rung,
    /// The same as `from` for the retry.
    pub to: Rung,
}

impl Recovery {
    fn new(refusal: &OutOfMemory, from: Rung, to: Rung) -> Self {
        Self {
            site: refusal.site,
            refusal: refusal.to_string(),
            from,
            to,
        }
    }

    /// Whether the rung is another one now.
    pub fn is_descent(&self) -> bool {
        self.from != self.to
    }
}

/// Makes the buffers of a rung.
type Build<W> = Box<dyn Fn(Rung, &mut Memory) -> Result<W, AllocationError>>;

/// The buffers that depend on the rung, and the ladder of rungs that they may be made for.
pub struct Workspaces<W> {
    memory: Memory,
    /// Rows of `memory` that do not depend on the rung.
    lasting_rows: usize,
    ladder: Vec<Rung>,
    at: usize,
    build: Build<W>,
    current: Option<W>,
    recoveries: Vec<Recovery>,
}

impl<W> Workspaces<W> {
    /// Allocates what lasts, with one retry, and the workspace of the first rung of `ladder` that
    /// memory is granted for.
    ///
    /// # Errors
    /// The last refusal, if even the last rung is refused; every other failure at once.
    ///
    /// # Panics
    /// If the ladder is empty.
    pub fn allocate<L>(
        mut memory: Memory,
        ladder: Vec<Rung>,
        lasting: impl Fn(&mut Memory) -> Result<L, AllocationError>,
        build: impl Fn(Rung, &mut Memory) -> Result<W, AllocationError> + 'static,
    ) -> Result<(Self, L), AllocationError> {
        assert!(!ladder.is_empty(), "a ladder has a rung");
        let mut recoveries = Vec::new();
        let made = match lasting(&mut memory) {
            Err(AllocationError::OutOfMemory(refusal)) => {
                memory.release_to(0);
                recoveries.push(Recovery::new(&refusal, ladder[0], ladder[0]));
                lasting(&mut memory)?
            }
            made => made?,
        };
        let mut workspaces = Self {
            lasting_rows: memory.rows().len(),
            memory,
            ladder,
            at: 0,
            build: Box::new(build),
            current: None,
            recoveries,
        };
        workspaces.run(|_, _| Ok::<_, AllocationError>(()))?;
        Ok((workspaces, made))
    }

    /// Does `work` with the workspace of the present rung; when memory is refused, again, and then
    /// at one rung after the other. Partial results of a refused attempt are the caller's to discard.
    ///
    /// # Errors
    /// The last refusal, if even the last rung is refused; every other failure at once.
    pub fn run<R, E: Recoverable>(
        &mut self,
        mut work: impl FnMut(&mut W, &mut Memory) -> Result<R, E>,
    ) -> Result<R, E> {
        self.persist(|workspaces| {
            let memory = &mut workspaces.memory;
            let workspace = match &mut workspaces.current {
                Some(workspace) => workspace,
                empty => empty.insert((workspaces.build)(
                    workspaces.ladder[workspaces.at],
                    memory,
                )?),
            };
            work(workspace, memory)
        })
    }

    /// Does work that needs no workspace, with the retries of [`Workspaces::run`]. The work gets the recoveries so
    /// far, to write them down.
    ///
    /// # Errors
    /// Those of [`Workspaces::run`].
    pub fn run_beside<R, E: Recoverable>(
        &mut self,
        mut work: impl FnMut(Rung, &mut Memory, &mut Vec<Recovery>) -> Result<R, E>,
    ) -> Result<R, E> {
        self.persist(|workspaces| {
            let rung = workspaces.rung();
            work(rung, &mut workspaces.memory, &mut workspaces.recoveries)
        })
    }

    fn persist<R, E: Recoverable>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut retried = false;
        loop {
            let refusal = match attempt(self) {
                Err(error) => error.into_out_of_memory()?,
                done => return done,
            };
            // The error was dropped with all it held; now everything that can be made again.
            self.release();
            let from = self.rung();
            if retried {
                if self.at + 1 == self.ladder.len() {
                    return Err(AllocationError::from(refusal).into());
                }
                self.at += 1;
            }
            retried = !retried;
            self.recoveries
                .push(Recovery::new(&refusal, from, self.rung()));
        }
    }

    fn release(&mut self) {
        self.current = None;
        self.memory.release_to(self.lasting_rows);
    }

    pub fn rung(&self) -> Rung {
        self.ladder[self.at]
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Recoveries since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        std::mem::take(&mut self.recoveries)
    }
}
