//! How many blocks an SM holds, from the card's limits per SM.

use std::ffi::{c_int, c_uint};

use super::device::{MAX_THREADS_PER_BLOCK, REGISTERS};
use super::function::Function;
use super::guard::{Outcome, with_context, write};
use super::refused::refuse;
use super::result::CuResult;
use super::state::Driver;

/// Blocks of so many threads that an SM holds at once.
fn blocks_per_sm(driver: &Driver, function: &Function, threads: u32, dynamic: u64) -> Outcome<u32> {
    let card = &driver.card;
    if threads == 0 || threads > function.max_threads()? {
        return Ok(0);
    }
    let threads = threads.next_multiple_of(32);
    let shared = u64::from(function.text()?.static_shared) + dynamic;
    if shared > card.shared_per_block_optin {
        return Ok(0);
    }
    // From compute capability 8.0 on the system keeps 1 KiB of every block's share.
    let kept = if card.compute_capability.0 >= 8 {
        1024
    } else {
        0
    };
    let by_shared = match shared + kept {
        0 => u64::MAX,
        shared => card.shared_per_sm / shared,
    };
    let by_registers = REGISTERS / (function.registers()?.max(1) * threads);
    let by_threads = card.threads_per_sm / threads;
    let most = by_threads.min(by_registers).min(card.blocks_per_sm);
    Ok(u64::from(most).min(by_shared) as u32)
}

/// # Safety
/// `blocks` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    function: usize,
    threads: c_int,
    dynamic_shared: usize,
) -> CuResult {
    // SAFETY: as the caller promises.
    unsafe {
        cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
            blocks,
            function,
            threads,
            dynamic_shared,
            0,
        )
    }
}

/// # Safety
/// `blocks` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    blocks: *mut c_int,
    function: usize,
    threads: c_int,
    dynamic_shared: usize,
    _flags: c_uint,
) -> CuResult {
    with_context(|driver| {
        let function = driver.function(function)?;
        let threads = u32::try_from(threads).map_err(|_| CuResult::ERROR_INVALID_VALUE)?;
        let found = blocks_per_sm(driver, &function, threads, dynamic_shared as u64)?;
        // SAFETY: as the caller promises.
        unsafe { write(blocks, found as c_int) }
    })
}

/// # Safety
/// The pointers are null or may be written; `shared_of` may be called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxPotentialBlockSize(
    grid: *mut c_int,
    block: *mut c_int,
    function: usize,
    shared_of: Option<extern "C" fn(c_int) -> usize>,
    dynamic_shared: usize,
    limit: c_int,
) -> CuResult {
    // SAFETY: as the caller promises.
    unsafe {
        cuOccupancyMaxPotentialBlockSizeWithFlags(
            grid,
            block,
            function,
            shared_of,
            dynamic_shared,
            limit,
            0,
        )
    }
}

/// The block that fills an SM best, the largest of those, and the smallest grid that fills the card.
///
/// # Safety
/// The pointers are null or may be written; `shared_of` may be called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    grid: *mut c_int,
    block: *mut c_int,
    function: usize,
    shared_of: Option<extern "C" fn(c_int) -> usize>,
    dynamic_shared: usize,
    limit: c_int,
    flags: c_uint,
) -> CuResult {
    with_context(|driver| {
        if flags != 0 {
            return Err(refuse(
                "cuOccupancyMaxPotentialBlockSizeWithFlags",
                "a flag",
            ));
        }
        let function = driver.function(function)?;
        let limit = match u32::try_from(limit) {
            Ok(0) | Err(_) => MAX_THREADS_PER_BLOCK,
            Ok(limit) => limit.min(MAX_THREADS_PER_BLOCK),
        };
        let mut best = (0, 0, 0);
        for threads in (1..=limit / 32).map(|warps| warps * 32) {
            let dynamic = shared_of.map_or(dynamic_shared, |of| of(threads as c_int));
            let blocks = blocks_per_sm(driver, &function, threads, dynamic as u64)?;
            best = best.max((blocks * threads, threads, blocks));
        }
        let (_, threads, blocks) = best;
        // SAFETY: as the caller promises.
        unsafe {
            write(grid, (blocks * driver.card.sm_count) as c_int)?;
            write(block, threads as c_int)
        }
    })
}
