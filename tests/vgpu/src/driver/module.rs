//! Modules: PTX text, parsed and with its variables in the card's memory.

use std::ffi::{c_char, c_uint};
use std::fs;
use std::sync::Arc;

use super::age;
use super::counts::{Asked, Wait};
use super::guard::{Outcome, read_text, with_context, write};
use super::launch::lazy_name;
use super::refused::refuse;
use super::result::CuResult;
use super::state::{Driver, new_handle};
use crate::exec::{LoadError, LoadedModule};
use crate::memory::Memory;
use crate::ptx;

/// A module of the program's.
pub struct LoadedImage {
    pub loaded: Arc<LoadedModule>,
}

impl LoadedImage {
    /// Frees the variables.
    pub fn unload(&self, memory: &Memory) {
        // They were never freed before: a module is unloaded once.
        let _ = self.loaded.unload(memory);
    }
}

/// The first bytes of what is not text: a fat binary, its wrapper, and an ELF file for one architecture.
const BINARIES: [(&[u8], &str); 3] = [
    (&[0x50, 0xed, 0x55, 0xba], "a fat binary"),
    (&[0xb1, 0x43, 0x62, 0x46], "a fat binary"),
    (b"\x7fELF", "a cubin"),
];

/// # Safety
/// `module` is null or may be written; `image` is null or PTX text that ends in a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_char) -> CuResult {
    with_context(|driver| {
        // SAFETY: as the caller promises; binaries are longer than what is compared.
        let text = unsafe { read_image("cuModuleLoadData", image) }?;
        let handle = driver.load(text)?;
        // SAFETY: as the caller promises.
        unsafe { write(module, handle) }
    })
}

/// # Safety
/// `image` is null, a binary, or text that ends in a zero.
unsafe fn read_image<'a>(function: &str, image: *const c_char) -> Outcome<&'a str> {
    if image.is_null() {
        return Err(CuResult::ERROR_INVALID_VALUE);
    }
    for (magic, name) in BINARIES {
        let mut bytes = magic.iter().enumerate();
        // SAFETY: every byte before this one was one of `magic`, so that the image goes on.
        if bytes.all(|(index, byte)| unsafe { *image.cast::<u8>().add(index) } == *byte) {
            refuse(function, &format!("{name}: only PTX text is executed"));
            return Err(CuResult::ERROR_NO_BINARY_FOR_GPU);
        }
    }
    // SAFETY: as the caller promises.
    unsafe { read_text(image) }
}

/// Options ask for another compilation, of which there is none.
///
/// # Safety
/// As `cuModuleLoadData`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut usize,
    image: *const c_char,
    options: c_uint,
    _names: *mut c_uint,
    _values: *mut usize,
) -> CuResult {
    if options > 0 {
        return refuse("cuModuleLoadDataEx", "options");
    }
    // SAFETY: as the caller promises.
    unsafe { cuModuleLoadData(module, image) }
}

/// # Safety
/// `module` is null or may be written; `path` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoad(module: *mut usize, path: *const c_char) -> CuResult {
    with_context(|driver| {
        // SAFETY: as the caller promises.
        let path = unsafe { read_text(path) }?;
        let text = fs::read(path).map_err(|_| CuResult::ERROR_FILE_NOT_FOUND)?;
        if let Some((_, name)) = BINARIES.iter().find(|(magic, _)| text.starts_with(magic)) {
            refuse(
                "cuModuleLoad",
                &format!("{name}: only PTX text is executed"),
            );
            return Err(CuResult::ERROR_NO_BINARY_FOR_GPU);
        }
        let text = String::from_utf8_lossy(&text);
        let handle = driver.load(&text)?;
        // SAFETY: as the caller promises.
        unsafe { write(module, handle) }
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(module: usize) -> CuResult {
    with_context(|driver| {
        let mut objects = driver.objects();
        let removed = objects.modules.remove(&module);
        let removed = removed.ok_or(CuResult::ERROR_INVALID_HANDLE)?;
        objects
            .functions
            .retain(|_, function| function.module != module);
        drop(objects);
        // As drivers do: kernels that were launched still read its variables.
        driver.wait_for_all(Wait::Unload)?;
        removed.unload(&driver.memory);
        driver.unload_lazily(&lazy_name(module));
        Ok(())
    })
}

/// # Safety
/// `address` and `bytes` are null or may be written; `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetGlobal_v2(
    address: *mut u64,
    bytes: *mut usize,
    module: usize,
    name: *const c_char,
) -> CuResult {
    with_context(|driver| {
        // SAFETY: as the caller promises.
        let name = unsafe { read_text(name) }?;
        let objects = driver.objects();
        let image = objects.modules.get(&module);
        let image = image.ok_or(CuResult::ERROR_INVALID_HANDLE)?;
        let found = image.loaded.variable(name);
        let found = found.ok_or(CuResult::ERROR_NOT_FOUND)?;
        if !address.is_null() {
            // SAFETY: as the caller promises.
            unsafe { write(address, found.0) }?;
        }
        if !bytes.is_null() {
            // SAFETY: as the caller promises.
            unsafe { write(bytes, found.1 as usize) }?;
        }
        Ok(())
    })
}

impl Driver {
    /// Loads PTX, if this card and its driver could.
    fn load(&self, text: &str) -> Outcome<usize> {
        if self.planned_to_fail("module") {
            return Err(CuResult::ERROR_INVALID_PTX);
        }
        let module = ptx::parse(text).map_err(|error| {
            self.remember(&error.to_string());
            CuResult::ERROR_INVALID_PTX
        })?;
        let (major, minor) = self.card.compute_capability;
        let understood = age::ptx_isa(self.card.driver);
        if module.version > understood {
            let ((is, is_minor), (has, has_minor)) = (module.version, understood);
            self.remember(&format!(
                "the module is PTX {is}.{is_minor}, the driver understands no more than {has}.{has_minor}"
            ));
            return Err(CuResult::ERROR_UNSUPPORTED_PTX_VERSION);
        }
        let card = major * 10 + minor;
        if module.target_only && module.target != card {
            let target = module.target;
            self.remember(&format!(
                "the module is for sm_{target}a alone, the card is sm_{card}"
            ));
            return Err(CuResult::ERROR_INVALID_PTX);
        }
        if module.target > card {
            let target = module.target;
            self.remember(&format!(
                "the module is for sm_{target} or newer, the card is sm_{major}{minor}"
            ));
            return Err(CuResult::ERROR_INVALID_PTX);
        }
        let loaded = LoadedModule::new(Arc::new(module), &self.memory);
        let loaded = loaded.map_err(|error| {
            self.remember(&error.to_string());
            match error {
                LoadError::OutOfMemory(_) => CuResult::ERROR_OUT_OF_MEMORY,
                LoadError::Undefined(_) => CuResult::ERROR_INVALID_PTX,
                LoadError::Fault(_) => CuResult::ERROR_LAUNCH_FAILED,
            }
        })?;
        let handle = new_handle();
        let image = LoadedImage {
            loaded: Arc::new(loaded),
        };
        self.objects().modules.insert(handle, image);
        self.counts.add(Asked::Module);
        Ok(handle)
    }
}
