//! Runs kernels.

use std::sync::Arc;

use crate::fault::{Fault, What};
use crate::memory::{Memory, OutOfMemory};
use crate::ptx::Module;

/// A module whose `.global` and `.const` variables lie in memory.
pub struct LoadedModule {
    pub module: Arc<Module>,
}

impl LoadedModule {
    /// Allocates and initialises the module's variables.
    ///
    /// # Errors
    /// No room for them.
    pub fn new(module: Arc<Module>, _memory: &Memory) -> Result<Self, OutOfMemory> {
        Ok(Self { module })
    }

    /// Address and bytes of a variable.
    pub fn variable(&self, _name: &str) -> Option<(u64, u64)> {
        None
    }

    /// Frees the variables.
    ///
    /// # Errors
    /// They were freed already.
    pub fn unload(&self, _memory: &Memory) -> Result<(), Fault> {
        Ok(())
    }
}

/// What a launch may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Static and dynamic shared memory of a block together.
    pub shared_per_block: u32,
    /// What `%nsmid` says.
    pub sm_count: u32,
    /// Worker threads; `None`: all cores. One makes even racing atomics repeatable.
    pub workers: Option<usize>,
    /// Instructions that one warp may execute before it is taken to hang.
    pub instructions_per_warp: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shared_per_block: 48 << 10,
            sm_count: 28,
            workers: None,
            instructions_per_warp: 1 << 34,
        }
    }
}

/// Runs a kernel to its end.
///
/// `params` is the parameter buffer, laid out as `Function::params` says.
///
/// # Errors
/// The first fault of the lowest block that faulted.
#[allow(clippy::too_many_arguments)]
pub fn launch(
    module: &LoadedModule,
    function: &str,
    _grid: [u32; 3],
    _block: [u32; 3],
    _dynamic_shared: u32,
    _params: &[u8],
    _memory: &Memory,
    _limits: &Limits,
) -> Result<(), Fault> {
    match module.module.function(function) {
        None => Err(Fault {
            place: None,
            address: None,
            what: What::NoSuchKernel(function.into()),
        }),
        Some(_) => Err(Fault {
            place: None,
            address: None,
            what: What::NotImplemented("launch".into()),
        }),
    }
}
