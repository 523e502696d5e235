//! Functions of modules, what can be asked of them and what they can be given.

use std::ffi::{c_char, c_int, c_uint};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::device::{MAX_THREADS_PER_BLOCK, REGISTERS};
use super::guard::{Outcome, read_text, with_context, write};
use super::refused::refuse;
use super::result::CuResult;
use super::state::{Driver, new_handle};
use crate::exec::LoadedModule;
use crate::ptx;

/// A kernel that the program asked for.
pub struct Function {
    /// The handle of its module.
    pub module: usize,
    pub loaded: Arc<LoadedModule>,
    pub name: String,
    /// Dynamic shared memory that a launch may ask for.
    pub dynamic_shared: AtomicU32,
}

impl Function {
    /// What the module says about it.
    pub fn text(&self) -> Outcome<&ptx::Function> {
        let found = self.loaded.module.function(&self.name);
        found.ok_or(CuResult::ERROR_NOT_FOUND)
    }

    /// Threads that a block of it may have.
    pub fn max_threads(&self) -> Outcome<u32> {
        let declared = self.text()?.max_threads;
        Ok(declared.unwrap_or(MAX_THREADS_PER_BLOCK))
    }

    /// Registers of a thread: no more than are declared, than a thread can have, and than the largest
    /// block of it can have. A compiler would need fewer.
    pub fn registers(&self) -> Outcome<u32> {
        let threads = self.max_threads()?.clamp(1, MAX_THREADS_PER_BLOCK);
        let fitting = REGISTERS / threads.next_multiple_of(32);
        Ok(self.text()?.registers.min(255).min(fitting))
    }
}

impl Driver {
    pub(super) fn function(&self, handle: usize) -> Outcome<Arc<Function>> {
        let function = self.objects().functions.get(&handle).cloned();
        function.ok_or(CuResult::ERROR_INVALID_HANDLE)
    }
}

/// # Safety
/// `function` is null or may be written; `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut usize,
    module: usize,
    name: *const c_char,
) -> CuResult {
    with_context(|driver| {
        // SAFETY: as the caller promises.
        let name = unsafe { read_text(name) }?;
        let mut objects = driver.objects();
        let image = objects.modules.get(&module);
        let image = image.ok_or(CuResult::ERROR_INVALID_HANDLE)?;
        let found = image.loaded.module.function(name);
        let found = found.ok_or(CuResult::ERROR_NOT_FOUND)?;
        // Without asking, a block may have so much, static and dynamic together.
        let dynamic = driver
            .card
            .shared_per_block
            .saturating_sub(found.static_shared.into());
        let found = Function {
            module,
            loaded: image.loaded.clone(),
            name: name.into(),
            dynamic_shared: AtomicU32::new(dynamic as u32),
        };
        let handle = new_handle();
        // SAFETY: as the caller promises.
        unsafe { write(function, handle) }?;
        objects.functions.insert(handle, Arc::new(found));
        Ok(())
    })
}

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const DYNAMIC_SHARED: c_uint = 8;
/// `CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT`: a hint.
const CARVEOUT: c_uint = 9;

/// # Safety
/// `value` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(
    value: *mut c_int,
    attribute: c_uint,
    function: usize,
) -> CuResult {
    with_context(|driver| {
        let function = driver.function(function)?;
        let text = function.text()?;
        let version = function.loaded.module.version;
        let (major, minor) = driver.card.compute_capability;
        let found = match attribute {
            0 => function.max_threads()?,
            1 => text.static_shared,
            2 => text.param_bytes,
            3 => text.local_bytes,
            4 => function.registers()?,
            5 => version.0 * 10 + version.1,
            6 => major * 10 + minor,
            7 => 0, // global loads are not cached in a way that differs
            DYNAMIC_SHARED => function.dynamic_shared.load(Ordering::Relaxed),
            _ => return Err(refuse("cuFuncGetAttribute", "this attribute")),
        };
        // SAFETY: as the caller promises.
        unsafe { write(value, found as c_int) }
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetAttribute(
    function: usize,
    attribute: c_uint,
    value: c_int,
) -> CuResult {
    with_context(|driver| {
        let function = driver.function(function)?;
        match attribute {
            DYNAMIC_SHARED => {
                let wanted = u32::try_from(value).map_err(|_| CuResult::ERROR_INVALID_VALUE)?;
                let together = u64::from(function.text()?.static_shared) + u64::from(wanted);
                if together > driver.card.shared_per_block_optin {
                    return Err(CuResult::ERROR_INVALID_VALUE);
                }
                function.dynamic_shared.store(wanted, Ordering::Relaxed);
                Ok(())
            }
            CARVEOUT if (-1..=100).contains(&value) => Ok(()),
            CARVEOUT => Err(CuResult::ERROR_INVALID_VALUE),
            _ => Err(refuse("cuFuncSetAttribute", "this attribute")),
        }
    })
}

/// A hint that makes no difference here.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetCacheConfig(function: usize, _preference: c_uint) -> CuResult {
    with_context(|driver| driver.function(function).map(|_| ()))
}

/// # Safety
/// `module` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetModule(module: *mut usize, function: usize) -> CuResult {
    with_context(|driver| {
        let function = driver.function(function)?;
        // SAFETY: as the caller promises.
        unsafe { write(module, function.module) }
    })
}
