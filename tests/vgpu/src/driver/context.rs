//! The primary context, and which context a thread works in.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_uint};
use std::sync::Arc;

use super::age;
use super::counts::{Asked, Wait};
use super::device::check_device;
use super::guard::{Outcome, with_context, with_driver, write};
use super::result::CuResult;
use super::state::{Driver, lock, new_handle};

thread_local! {
    /// The contexts that this thread pushed; it works in the last one.
    static STACK: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// The primary context: alive while somebody retains it.
#[derive(Default)]
pub struct Context {
    handle: usize,
    retained: u32,
    flags: u32,
    /// Where the context's own memory lies.
    own: Option<u64>,
    /// Where code lies that was loaded when it was first used, by what it is.
    lazy: HashMap<String, u64>,
    /// The fault that ended it: every call returns this from then on.
    pub error: Option<CuResult>,
}

/// The context this thread works in, or zero.
fn current() -> usize {
    STACK.with_borrow(|stack| stack.last().copied().unwrap_or(0))
}

/// This thread works in the living context, and nothing went wrong in it.
pub fn check(driver: &Driver) -> Outcome {
    let context = lock(&driver.context);
    if current() == 0 {
        return Err(CuResult::ERROR_INVALID_CONTEXT);
    }
    if current() != context.handle || context.retained == 0 {
        return Err(CuResult::ERROR_CONTEXT_IS_DESTROYED);
    }
    context.error.map_or(Ok(()), Err)
}

/// Whether a fault ended the context.
pub fn lost(driver: &Driver) -> Outcome {
    lock(&driver.context).error.map_or(Ok(()), Err)
}

impl Driver {
    fn retain(&self) -> Outcome<usize> {
        let mut context = lock(&self.context);
        if context.retained == 0 {
            let eager = age::loads_eagerly(self.card.driver).then_some(self.card.eager_bytes);
            context.own = match self.card.context_bytes + eager.unwrap_or(0) {
                0 => None,
                bytes => {
                    let own = self.memory.alloc(bytes);
                    Some(own.map_err(|_| CuResult::ERROR_OUT_OF_MEMORY)?)
                }
            };
            context.handle = new_handle();
            self.counts.add(Asked::Context);
        }
        context.retained += 1;
        Ok(context.handle)
    }

    fn release(&self) -> Outcome {
        let mut context = lock(&self.context);
        match context.retained {
            0 => return Err(CuResult::ERROR_INVALID_CONTEXT),
            1 => {}
            _ => {
                context.retained -= 1;
                return Ok(());
            }
        }
        // The end of the context is the last to wait for what was given to it.
        drop(context);
        let _ = self.wait_for_all(Wait::Release);
        let mut context = lock(&self.context);
        let lazy = std::mem::take(&mut context.lazy);
        let own = context
            .own
            .take()
            .into_iter()
            .chain(lazy.into_values())
            .collect();
        *context = Context {
            flags: context.flags,
            ..Context::default()
        };
        drop(context);
        self.forget_everything(own);
        Ok(())
    }

    /// Takes memory for code that is used for the first time, if the card is one that does.
    pub fn load_lazily(&self, code: &str) -> Outcome {
        let bytes = self.card.lazy_bytes;
        let loaded = self.card.eager_bytes > 0 && age::loads_eagerly(self.card.driver);
        if bytes == 0 || loaded || lock(&self.context).lazy.contains_key(code) {
            return Ok(());
        }
        let address = loop {
            match self.memory.alloc(bytes) {
                Ok(address) => break address,
                Err(_) => self.make_room()?,
            }
        };
        lock(&self.context).lazy.insert(code.to_owned(), address);
        Ok(())
    }

    /// Gives back what was taken for code.
    pub fn unload_lazily(&self, code: &str) {
        let address = lock(&self.context).lazy.remove(code);
        // It was taken above, and is given back once.
        let _ = address.map(|address| self.memory.free(address));
    }

    /// A context takes with it whatever was made in it.
    fn forget_everything(&self, own: Vec<u64>) {
        let modules = std::mem::take(&mut *self.objects()).modules;
        for module in modules.into_values() {
            module.unload(&self.memory);
        }
        let left = lock(&self.holdings).forget();
        for address in left.into_iter().chain(own) {
            // What is no allocation any more is not missed.
            let _ = self.memory.free(address);
        }
        self.set_aside();
        lock(&self.queue).restart();
        self.memory.forget_operations();
    }
}

/// # Safety
/// `context` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        // SAFETY: as the caller promises.
        unsafe { write(context, 0) }?;
        let handle = driver.retain()?;
        // SAFETY: as the caller promises.
        unsafe { write(context, handle) }
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        driver.release()
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxReset_v2(device: c_int) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        let mut context = lock(&driver.context);
        context.retained = context.retained.min(1);
        drop(context);
        match driver.release() {
            Err(CuResult::ERROR_INVALID_CONTEXT) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: c_uint) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        lock(&driver.context).flags = flags;
        Ok(())
    })
}

/// # Safety
/// The pointers are null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxGetState(
    device: c_int,
    flags: *mut c_uint,
    active: *mut c_int,
) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        let context = lock(&driver.context);
        // SAFETY: as the caller promises.
        unsafe {
            write(flags, context.flags)?;
            write(active, c_int::from(context.retained > 0))
        }
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCurrent(context: usize) -> CuResult {
    with_driver(|driver| {
        check_handle(driver, context, true)?;
        STACK.with_borrow_mut(|stack| {
            stack.pop();
            stack.extend((context != 0).then_some(context));
        });
        Ok(())
    })
}

/// # Safety
/// `context` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> CuResult {
    // SAFETY: as the caller promises.
    with_driver(|_| unsafe { write(context, current()) })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPushCurrent_v2(context: usize) -> CuResult {
    with_driver(|driver| {
        check_handle(driver, context, false)?;
        STACK.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    })
}

/// # Safety
/// `context` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(context: *mut usize) -> CuResult {
    with_driver(|_| {
        let popped = STACK.with_borrow_mut(Vec::pop);
        let popped = popped.ok_or(CuResult::ERROR_INVALID_CONTEXT)?;
        if context.is_null() {
            Ok(())
        } else {
            unsafe { write(context, popped) }
        }
    })
}

fn check_handle(driver: &Arc<Driver>, context: usize, none_too: bool) -> Outcome {
    let known = context != 0 && context == lock(&driver.context).handle;
    if known || (none_too && context == 0) {
        Ok(())
    } else {
        Err(CuResult::ERROR_INVALID_CONTEXT)
    }
}

/// # Safety
/// `device` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetDevice(device: *mut c_int) -> CuResult {
    // SAFETY: as the caller promises.
    with_context(|_| unsafe { write(device, 0) })
}

/// Waits for everything, and lets pools give memory back.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSynchronize() -> CuResult {
    with_context(|driver| {
        driver.objects().captures.refuse_outside_work()?;
        driver.wait_for_all(Wait::Context)?;
        driver.settle();
        Ok(())
    })
}

/// Scheduling flags say how a thread waits, which it never does here.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetFlags(flags: c_uint) -> CuResult {
    with_context(|driver| {
        lock(&driver.context).flags = flags;
        Ok(())
    })
}

/// # Safety
/// `flags` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetFlags(flags: *mut c_uint) -> CuResult {
    // SAFETY: as the caller promises.
    with_context(|driver| unsafe { write(flags, lock(&driver.context).flags) })
}

/// # Safety
/// The pointers are null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetStreamPriorityRange(
    least: *mut c_int,
    greatest: *mut c_int,
) -> CuResult {
    with_context(|_| {
        for (out, value) in [(least, 0), (greatest, -5)] {
            if !out.is_null() {
                // SAFETY: as the caller promises.
                unsafe { write(out, value) }?;
            }
        }
        Ok(())
    })
}
