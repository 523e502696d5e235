//! The state behind the API: one card for a process.

use std::collections::HashMap;
use std::env;
use std::ffi::CString;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::capture::Captures;
use super::context::Context;
use super::counts::Counts;
use super::event::Event;
use super::function::Function;
use super::graph::{Executable, Graph};
use super::holdings::Holdings;
use super::module::LoadedImage;
use super::queue::Queue;
use super::result::CuResult;
use super::stream::Stream;
use crate::card::{Card, Failures};
use crate::exec::Limits;
use crate::fault::{Fault, What};
use crate::memory::Memory;

static DRIVER: RwLock<Option<Arc<Driver>>> = RwLock::new(None);
static NEXT_HANDLE: AtomicUsize = AtomicUsize::new(1);

/// A card and everything that a program made on it.
pub struct Driver {
    pub card: Card,
    pub memory: Memory,
    pub limits: Limits,
    failures: Failures,
    pub(super) counts: Counts,
    /// Held while the card works: one thing after the other.
    pub(super) execution: Mutex<()>,
    /// Whether every call waits for its work, and reports its fault (`CUDA_LAUNCH_BLOCKING`).
    pub(super) blocking: bool,
    pub(super) queue: Mutex<Queue>,
    pub(super) context: Mutex<Context>,
    pub(super) holdings: Mutex<Holdings>,
    pub(super) objects: Mutex<Objects>,
    last_fault: Mutex<Option<CString>>,
}

/// What handles stand for. Handles are never used twice.
#[derive(Default)]
pub struct Objects {
    pub streams: HashMap<usize, Stream>,
    pub events: HashMap<usize, Event>,
    pub modules: HashMap<usize, LoadedImage>,
    pub functions: HashMap<usize, Arc<Function>>,
    pub graphs: HashMap<usize, Arc<Graph>>,
    pub executables: HashMap<usize, Executable>,
    pub captures: Captures,
}

/// The card of this process, once `cuInit` was called.
pub fn current() -> Option<Arc<Driver>> {
    let driver = DRIVER.read().unwrap_or_else(PoisonError::into_inner);
    driver.clone()
}

/// Puts a card into this process, in place of the one that it had: as if the process were a new one. Nothing is
/// counted on it.
pub fn start(card: Card) -> Arc<Driver> {
    let driver = Arc::new(Driver::new(card, Counts::default()));
    let mut slot = DRIVER.write().unwrap_or_else(PoisonError::into_inner);
    *slot = Some(driver.clone());
    driver
}

/// The card that the environment asks for, unless there is one already.
pub fn start_from_environment() -> Result<(), CuResult> {
    let mut slot = DRIVER.write().unwrap_or_else(PoisonError::into_inner);
    if slot.is_none() {
        let refuse = |error: String| {
            say(&error);
            CuResult::ERROR_OPERATING_SYSTEM
        };
        let card = Card::from_environment().map_err(|error| refuse(error.to_string()))?;
        let counts = Counts::from_environment().map_err(refuse)?;
        *slot = Some(Arc::new(Driver::new(card, counts)));
    }
    Ok(())
}

/// The CUDA version of the card's driver; libraries are asked for theirs before there is a card, too.
pub fn cuda() -> (u32, u32) {
    let started = current().map(|driver| driver.card.driver);
    started
        .or_else(|| Some(Card::from_environment().ok()?.driver))
        .unwrap_or_default()
}

/// A handle that nothing had before. Multiples of 16, far from the addresses of the card.
pub fn new_handle() -> usize {
    NEXT_HANDLE.fetch_add(1, Ordering::Relaxed) << 4 | 0x7600_0000_0000
}

/// What the virtual card has to say goes to stderr under its name.
pub fn say(message: &str) {
    eprintln!("vgpu: {message}");
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    fn new(card: Card, counts: Counts) -> Driver {
        let limits = Limits {
            sm_count: card.sm_count,
            ..Limits::default()
        };
        Driver {
            memory: Memory::new(card.total_bytes, card.used_bytes),
            limits,
            failures: Failures::new(card.fail.clone()),
            counts,
            execution: Mutex::default(),
            queue: Mutex::new(Queue::new(card.order)),
            blocking: env::var("CUDA_LAUNCH_BLOCKING").is_ok_and(|value| value == "1"),
            context: Mutex::default(),
            holdings: Mutex::new(Holdings::new(card.used_bytes)),
            objects: Mutex::default(),
            last_fault: Mutex::default(),
            card,
        }
    }

    pub(super) fn objects(&self) -> MutexGuard<'_, Objects> {
        lock(&self.objects)
    }

    /// Whether this `what` was planned to fail; says so if it was.
    pub fn planned_to_fail(&self, what: &str) -> bool {
        let number = self.failures.strikes(what);
        if let Some(number) = number {
            say(&format!("`{what}` number {number} fails, as planned"));
        }
        number.is_some()
    }

    /// Leaves an error on the context, with what a person should know about it. What is queued is lost.
    pub(super) fn fail_context(&self, error: CuResult, message: &str) {
        self.remember(message);
        lock(&self.context).error = Some(error);
        lock(&self.queue).give_up();
    }

    /// Says what went wrong and keeps it for `vgpu_last_fault`.
    pub(super) fn remember(&self, message: &str) {
        say(message);
        *lock(&self.last_fault) = CString::new(message.replace('\0', " ")).ok();
    }

    /// What went wrong last, in full.
    pub fn last_fault(&self) -> Option<CString> {
        lock(&self.last_fault).clone()
    }
}

/// The result that a real driver has for a fault; what only this card notices is a failed launch.
pub(super) fn code_of(fault: &Fault) -> CuResult {
    match fault.what {
        What::Unmapped { .. }
        | What::OutOfBounds { .. }
        | What::Freed { .. }
        | What::SharedBounds { .. }
        | What::OwnBounds { .. }
        | What::ReadOnly(_) => CuResult::ERROR_ILLEGAL_ADDRESS,
        What::Misaligned { .. } => CuResult::ERROR_MISALIGNED_ADDRESS,
        What::Assert(_) => CuResult::ERROR_ASSERT,
        _ => CuResult::ERROR_LAUNCH_FAILED,
    }
}
