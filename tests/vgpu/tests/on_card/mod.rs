//! A test's own card, called through the C functions that a program calls.
#![allow(dead_code)]

use std::ffi::CStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vgpu::card::Card;
use vgpu::driver::allocation::{cuMemAlloc_v2, cuMemAllocAsync, cuMemFree_v2, cuMemGetInfo_v2};
use vgpu::driver::context::{cuCtxSetCurrent, cuCtxSynchronize, cuDevicePrimaryCtxRetain};
use vgpu::driver::copy::{cuMemcpyDtoH_v2, cuMemcpyHtoD_v2};
use vgpu::driver::device::cuInit;
use vgpu::driver::event::cuEventCreate;
use vgpu::driver::lookup::vgpu_last_fault;
use vgpu::driver::result::CuResult;
use vgpu::driver::state::{Driver, current, start};
use vgpu::driver::stream::cuStreamCreate;

/// A process has one card; tests of a file take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A fresh card with its context, until it is dropped.
pub struct OnCard {
    pub driver: Arc<Driver>,
    pub context: usize,
    _turn: MutexGuard<'static, ()>,
}

/// A stream that every thread has.
pub const PER_THREAD: usize = 2;

/// A small card without a context's own memory, so that bytes can be counted.
pub fn tiny() -> OnCard {
    on("like = \"tiny-64MiB\"")
}

/// The card that a file with this text describes.
pub fn on(file: &str) -> OnCard {
    with_context(|| start(Card::parse(file).unwrap()))
}

/// The card that the environment of this process asks for.
pub fn of_environment() -> OnCard {
    with_context(|| {
        // SAFETY: no pointers.
        check(unsafe { cuInit(0) });
        current().unwrap()
    })
}

fn with_context(driver: impl FnOnce() -> Arc<Driver>) -> OnCard {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let driver = driver();
    let mut context = 0;
    // SAFETY: the pointer is to a variable.
    check(unsafe { cuDevicePrimaryCtxRetain(&mut context, 0) });
    // SAFETY: no pointers.
    check(unsafe { cuCtxSetCurrent(context) });
    OnCard {
        driver,
        context,
        _turn: turn,
    }
}

/// A stream that is in order with no other.
pub fn stream() -> usize {
    let mut stream = 0;
    // SAFETY: the pointer is to a variable.
    check(unsafe { cuStreamCreate(&mut stream, 1) });
    stream
}

/// An event without a time.
pub fn event() -> usize {
    let mut event = 0;
    // SAFETY: the pointer is to a variable.
    check(unsafe { cuEventCreate(&mut event, 2) });
    event
}

/// The call succeeded.
#[track_caller]
pub fn check(result: CuResult) {
    assert_eq!(result, CuResult::SUCCESS);
}

impl OnCard {
    pub fn alloc(&self, bytes: usize) -> Result<u64, CuResult> {
        let mut address = 0;
        // SAFETY: the pointer is to a variable.
        let result = unsafe { cuMemAlloc_v2(&mut address, bytes) };
        (result == CuResult::SUCCESS)
            .then_some(address)
            .ok_or(result)
    }

    pub fn alloc_async(&self, bytes: usize) -> Result<u64, CuResult> {
        let mut address = 0;
        // SAFETY: the pointer is to a variable.
        let result = unsafe { cuMemAllocAsync(&mut address, bytes, PER_THREAD) };
        (result == CuResult::SUCCESS)
            .then_some(address)
            .ok_or(result)
    }

    #[track_caller]
    pub fn free(&self, address: u64) {
        // SAFETY: no pointers.
        check(unsafe { cuMemFree_v2(address) });
    }

    pub fn free_bytes(&self) -> usize {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the pointers are to variables.
        check(unsafe { cuMemGetInfo_v2(&mut free, &mut total) });
        free
    }

    /// New memory that holds these bytes.
    #[track_caller]
    pub fn put(&self, bytes: &[u8]) -> u64 {
        let address = self.alloc(bytes.len()).unwrap();
        // SAFETY: the slice is as long as it says.
        check(unsafe { cuMemcpyHtoD_v2(address, bytes.as_ptr() as usize, bytes.len()) });
        // The copy has taken the bytes, and need not have written them.
        // SAFETY: no pointers.
        check(unsafe { cuCtxSynchronize() });
        address
    }

    #[track_caller]
    pub fn get(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        // SAFETY: the vector is as long as it says.
        check(unsafe { cuMemcpyDtoH_v2(out.as_mut_ptr() as usize, address, bytes) });
        out
    }

    pub fn last_fault(&self) -> String {
        // SAFETY: tests take turns.
        let text = unsafe { vgpu_last_fault() };
        assert!(!text.is_null());
        // SAFETY: not null, and a C string until the next call.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap().into()
    }
}
