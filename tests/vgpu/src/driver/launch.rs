//! Launching kernels, with the checks that a driver makes before.

use std::ffi::{c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::device::{MAX_BLOCK, MAX_GRID, MAX_THREADS_PER_BLOCK};
use super::function::Function;
use super::guard::{Outcome, read, with_context};
use super::operation::Operation;
use super::refused::refuse;
use super::result::CuResult;
use super::state::Driver;
use crate::exec::{self, Limits};
use crate::fault::Fault;
use crate::memory::ForOperation;

/// A kernel with everything that it is launched with.
#[derive(Clone)]
pub struct Launch {
    function: Arc<Function>,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    parameters: Vec<u8>,
}

impl Launch {
    pub fn name(&self) -> &str {
        &self.function.name
    }

    /// Runs the kernel to its end.
    pub fn run(&self, memory: ForOperation, limits: &Limits) -> Result<(), Fault> {
        let fixed = self.function.text().map_or(0, |text| text.static_shared);
        let allowed = self.function.dynamic_shared.load(Ordering::Relaxed);
        let limits = Limits {
            shared_per_block: fixed + allowed,
            ..limits.clone()
        };
        exec::launch(
            &self.function.loaded,
            &self.function.name,
            self.grid,
            self.block,
            self.dynamic_shared,
            &self.parameters,
            memory,
            &limits,
        )
    }

    /// What a driver refuses before anything runs.
    fn check(&self) -> Outcome {
        let within = |size: [u32; 3], most: [u32; 3]| {
            let mut sides = size.into_iter().zip(most);
            sides.all(|(side, most)| (1..=most).contains(&side))
        };
        if !within(self.grid, MAX_GRID) || !within(self.block, MAX_BLOCK) {
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        let threads: u32 = self.block.iter().product();
        if threads > MAX_THREADS_PER_BLOCK || threads > self.function.max_threads()? {
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        let allowed = self.function.dynamic_shared.load(Ordering::Relaxed);
        if self.dynamic_shared > allowed {
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        Ok(())
    }
}

/// # Safety
/// `parameters` is null if the kernel has none, and else points to as many pointers, each to a value
/// of its parameter's size.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_shared: c_uint,
    stream: usize,
    parameters: *const *const c_void,
    extra: *const *const c_void,
) -> CuResult {
    let shape = Shape {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        dynamic_shared,
        stream,
    };
    // SAFETY: as the caller promises.
    unsafe { launch(&shape, function, parameters, extra) }
}

/// The beginning of a launch, however it was asked for.
struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    stream: usize,
}

/// # Safety
/// As `cuLaunchKernel`.
unsafe fn launch(
    shape: &Shape,
    function: usize,
    parameters: *const *const c_void,
    extra: *const *const c_void,
) -> CuResult {
    with_context(|driver| {
        if !extra.is_null() {
            return Err(refuse("cuLaunchKernel", "parameters in a buffer (`extra`)"));
        }
        let function = driver.function(function)?;
        let launch = Launch {
            // SAFETY: as the caller promises.
            parameters: unsafe { gather(&function, parameters) }?,
            function,
            grid: shape.grid,
            block: shape.block,
            dynamic_shared: shape.dynamic_shared,
        };
        launch.check()?;
        fail_as_planned(driver, &launch)?;
        driver.load_lazily(&lazy_name(launch.function.module))?;
        driver.submit(shape.stream, Operation::Launch(launch))
    })
}

/// What the code of a module is called.
pub(super) fn lazy_name(module: usize) -> String {
    format!("module {module:#x}")
}

/// A planned failure ends the context, like a kernel that dies.
fn fail_as_planned(driver: &Driver, launch: &Launch) -> Outcome {
    if !driver.planned_to_fail("launch") {
        return Ok(());
    }
    let message = format!("kernel `{}` fails, as planned", launch.function.name);
    driver.fail_context(CuResult::ERROR_LAUNCH_FAILED, &message);
    Err(CuResult::ERROR_LAUNCH_FAILED)
}

/// Puts the values of the parameters where the kernel looks for them.
///
/// # Safety
/// As `cuLaunchKernel`.
unsafe fn gather(function: &Function, parameters: *const *const c_void) -> Outcome<Vec<u8>> {
    let text = function.text()?;
    let mut buffer = vec![0; text.param_bytes as usize];
    for (index, parameter) in text.params.iter().enumerate() {
        if parameters.is_null() {
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        // SAFETY: the caller promises one pointer for each parameter.
        let value = unsafe { read(parameters.add(index)) }?.cast::<u8>();
        if value.is_null() {
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        let (start, size) = (parameter.offset as usize, parameter.size as usize);
        let place = buffer.get_mut(start..start + size);
        let place = place.ok_or(CuResult::ERROR_INVALID_VALUE)?;
        // SAFETY: the caller promises that the value has the size of its parameter.
        unsafe { value.copy_to_nonoverlapping(place.as_mut_ptr(), size) };
    }
    Ok(buffer)
}

/// A `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    dynamic_shared: c_uint,
    stream: usize,
    attributes: *const LaunchAttribute,
    attribute_count: c_uint,
}

/// A `CUlaunchAttribute`: what it is, and a union of 64 bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LaunchAttribute {
    id: c_uint,
    padding: c_uint,
    value: [u64; 8],
}

/// Attributes that make no difference to what a kernel computes: none, how its accesses are cached,
/// whether it may start before the one before it has ended, and its priority.
const HINTS: [c_uint; 4] = [0, 1, 6, 8];
/// `CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION`.
const CLUSTER: c_uint = 4;

impl LaunchAttribute {
    /// A cluster of one block in each direction.
    fn is_one_block(&self) -> bool {
        let [xy, z, ..] = self.value;
        [xy as u32, (xy >> 32) as u32, z as u32] == [1; 3]
    }
}

/// # Safety
/// `config` is null or a `CUlaunchConfig` whose attributes may be read; else as `cuLaunchKernel`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx(
    config: *const LaunchConfig,
    function: usize,
    parameters: *const *const c_void,
    extra: *const *const c_void,
) -> CuResult {
    // SAFETY: as the caller promises.
    let config = match unsafe { read(config) } {
        Ok(config) => config,
        Err(error) => return error,
    };
    for index in 0..config.attribute_count as usize {
        // SAFETY: the caller promises so many attributes.
        let attribute = unsafe { read(config.attributes.wrapping_add(index)) };
        match attribute {
            Ok(attribute) if HINTS.contains(&attribute.id) => {}
            Ok(attribute) if attribute.id == CLUSTER && attribute.is_one_block() => {}
            Ok(attribute) => {
                let which = format!("launch attribute {}", attribute.id);
                return refuse("cuLaunchKernelEx", &which);
            }
            Err(error) => return error,
        }
    }
    let shape = Shape {
        grid: config.grid,
        block: config.block,
        dynamic_shared: config.dynamic_shared,
        stream: config.stream,
    };
    // SAFETY: as the caller promises.
    unsafe { launch(&shape, function, parameters, extra) }
}
