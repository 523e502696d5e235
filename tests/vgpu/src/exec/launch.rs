//! Modules in memory, and launches: a grid of blocks on all cores.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::block::Block;
use super::lanes::Lanes;
use super::running::Running;
use crate::fault::{Fault, What};
use crate::memory::{ForOperation, Memory, OutOfMemory};
use crate::ptx::ir::{Constant, Space};
use crate::ptx::layout::{reached, shared};
use crate::ptx::{Function, Module};

/// Why a module is not loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    #[error("variable `{0}` is `.extern`, and nothing is linked here")]
    Undefined(String),
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A module whose `.global` and `.const` variables lie in memory.
pub struct LoadedModule {
    pub module: Arc<Module>,
    /// Of each variable of the module; none for shared ones.
    addresses: Vec<Option<u64>>,
    /// What a kernel needs to run, made at its first launch.
    prepared: Vec<OnceLock<Arc<Vec<Vec<Lanes>>>>>,
}

impl LoadedModule {
    /// Allocates and initialises the module's variables.
    ///
    /// # Errors
    /// No room for them, or one of them is only declared.
    pub fn new(module: Arc<Module>, memory: &Memory) -> Result<Self, LoadError> {
        let prepared = module.functions.iter().map(|_| OnceLock::new()).collect();
        let mut loaded = Self {
            module,
            addresses: Vec::new(),
            prepared,
        };
        if let Err(error) = loaded.allocate(memory) {
            loaded.unload(memory)?;
            return Err(error);
        }
        loaded.initialise(memory)?;
        Ok(loaded)
    }

    fn allocate(&mut self, memory: &Memory) -> Result<(), LoadError> {
        for variable in &self.module.variables {
            let address = match variable.space {
                Space::Shared => None,
                _ if variable.external => return Err(LoadError::Undefined(variable.name.clone())),
                _ => Some(memory.alloc(variable.size.into())?),
            };
            self.addresses.push(address);
        }
        Ok(())
    }

    fn initialise(&self, memory: &Memory) -> Result<(), Fault> {
        for (variable, address) in self.module.variables.iter().zip(&self.addresses) {
            let Some(address) = *address else { continue };
            let mut bytes = variable.initial.clone();
            for (offset, name, plus) in &variable.addresses {
                let target = self.variable(name).map_or(0, |(address, _)| address) + plus;
                bytes[*offset as usize..*offset as usize + 8]
                    .copy_from_slice(&target.to_le_bytes());
            }
            // Variables start as zeros.
            bytes.resize(variable.size as usize, 0);
            memory.copy_in(address, &bytes)?;
        }
        Ok(())
    }

    /// Address and bytes of a variable.
    pub fn variable(&self, name: &str) -> Option<(u64, u64)> {
        let number = self.module.variables.iter().position(|v| v.name == name)?;
        Some((
            (*self.addresses.get(number)?)?,
            self.module.variables[number].size.into(),
        ))
    }

    /// Frees the variables.
    ///
    /// # Errors
    /// They were freed already.
    pub fn unload(&self, memory: &Memory) -> Result<(), Fault> {
        self.addresses
            .iter()
            .flatten()
            .try_for_each(|&address| memory.free(address))
    }

    /// The constants of every function that `kernel` reaches.
    fn constants(&self, kernel: usize) -> Arc<Vec<Vec<Lanes>>> {
        let make = || {
            let (offsets, _) = shared(&self.module, kernel);
            let value = |constant: &Constant| match *constant {
                Constant::Bits(bits) => bits,
                Constant::Variable(number, plus) => {
                    let offset = || {
                        offsets
                            .iter()
                            .find(|(n, _)| *n == number)
                            .map_or(0, |o| o.1.into())
                    };
                    self.addresses[number]
                        .unwrap_or_else(offset)
                        .wrapping_add(plus)
                }
            };
            let mut all: Vec<Vec<Lanes>> =
                self.module.functions.iter().map(|_| Vec::new()).collect();
            for function in reached(&self.module, kernel) {
                let constants = &self.module.functions[function].constants;
                all[function] = constants
                    .iter()
                    .map(|constant| Lanes::all(value(constant)))
                    .collect();
            }
            Arc::new(all)
        };
        Arc::clone(self.prepared[kernel].get_or_init(make))
    }
}

/// What a launch may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Static and dynamic shared memory of a block together.
    pub shared_per_block: u32,
    /// What `%nsmid` says.
    pub sm_count: u32,
    /// Worker threads; `None`: all cores. One makes even the order of atomics repeatable.
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
/// A launch that no card would start, or the fault of the lowest block that faulted.
#[allow(clippy::too_many_arguments)]
pub fn launch(
    module: &LoadedModule,
    function: &str,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    params: &[u8],
    memory: ForOperation,
    limits: &Limits,
) -> Result<(), Fault> {
    let refuse = |what| Fault {
        place: None,
        address: None,
        what,
    };
    let functions = &module.module.functions;
    let kernel = functions
        .iter()
        .position(|f| f.name == function && f.entry && f.defined)
        .ok_or_else(|| refuse(What::NoSuchKernel(function.into())))?;
    let shared_bytes = functions[kernel]
        .static_shared
        .saturating_add(dynamic_shared);
    if let Some(wrong) = impossible(
        &functions[kernel],
        grid,
        block,
        shared_bytes,
        params,
        limits,
    ) {
        return Err(refuse(What::Launch(format!("`{function}`: {wrong}"))));
    }
    let threads: u32 = block.iter().product();
    let blocks = grid.iter().map(|&n| u64::from(n)).product::<u64>();
    let running = Running {
        functions,
        constants: module.constants(kernel),
        kernel,
        params,
        memory: memory.launch(blocks),
        grid,
        block,
        threads,
        shared_bytes,
        dynamic_shared,
        sm_count: limits.sm_count,
        instructions_per_warp: limits.instructions_per_warp,
    };
    run_blocks(&running, blocks, limits.workers)
}

/// Why no card would start this.
fn impossible(
    function: &Function,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    params: &[u8],
    limits: &Limits,
) -> Option<String> {
    let threads = block.iter().map(|&n| u64::from(n)).product::<u64>();
    let most = function.max_threads.unwrap_or(1024).min(1024);
    if threads == 0 || grid.contains(&0) {
        Some("an empty grid or block".into())
    } else if threads > most.into() {
        Some(format!("{threads} threads in a block, {most} at most"))
    } else if block[2] > 64 || grid[0] > i32::MAX as u32 || grid[1] > 65535 || grid[2] > 65535 {
        Some(format!(
            "grid {grid:?} of blocks {block:?}: no card has these"
        ))
    } else if shared_bytes > limits.shared_per_block {
        Some(format!(
            "{shared_bytes} bytes of shared memory, {} at most",
            limits.shared_per_block
        ))
    } else if params.len() < function.param_bytes as usize {
        Some(format!(
            "{} bytes of parameters, {} needed",
            params.len(),
            function.param_bytes
        ))
    } else {
        None
    }
}

thread_local! {
    /// A block's registers and shared memory, kept from launch to launch.
    static BLOCK: RefCell<Block> = RefCell::default();
}

/// Blocks start in order. After a fault those before it still end, so that the lowest one is reported.
fn run_blocks(running: &Running, blocks: u64, workers: Option<usize>) -> Result<(), Fault> {
    let next = AtomicU64::new(0);
    let first_fault: Mutex<Option<(u64, Box<Fault>)>> = Mutex::new(None);
    let stop_at = AtomicU64::new(blocks);
    let work = || {
        BLOCK.with_borrow_mut(|block| {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= stop_at.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(fault) = block.run(running, number) {
                    stop_at.fetch_min(number, Ordering::Relaxed);
                    let mut first = first_fault.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(other, _)| number < *other) {
                        *first = Some((number, fault));
                    }
                }
            }
        })
    };
    let workers = workers.unwrap_or_else(rayon::current_num_threads) as u64;
    match workers.min(blocks) {
        0 | 1 => work(),
        many => rayon::scope(|scope| (0..many).for_each(|_| scope.spawn(|_| work()))),
    }
    match first_fault
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        None => Ok(()),
        Some((_, fault)) => Err(*fault),
    }
}
