//! Memory as a program sees it: counted to the last byte, refused exactly at the end.

mod on_card;

use std::ffi::c_void;

use on_card::{PER_THREAD, check, on, tiny};
use proptest::prelude::*;
use vgpu::driver::allocation::{
    cuMemAlloc_v2, cuMemAllocFromPoolAsync, cuMemFree_v2, cuMemFreeAsync, cuMemGetAddressRange_v2,
};
use vgpu::driver::context::{
    cuCtxSynchronize, cuDevicePrimaryCtxRelease_v2, cuDevicePrimaryCtxRetain,
};
use vgpu::driver::copy::*;
use vgpu::driver::host::*;
use vgpu::driver::pool::*;
use vgpu::driver::result::CuResult;

const MIB: usize = 1 << 20;

#[test]
fn memory_is_counted_to_the_last_byte() {
    let card = tiny();
    assert_eq!(card.free_bytes(), 64 * MIB);
    let all = card.alloc(64 * MIB).unwrap();
    assert_eq!(card.free_bytes(), 0);
    assert_eq!(card.alloc(1), Err(CuResult::ERROR_OUT_OF_MEMORY));
    card.free(all);
    let most = card.alloc(64 * MIB - 512).unwrap();
    assert_eq!(card.free_bytes(), 512);
    assert_eq!(card.alloc(513), Err(CuResult::ERROR_OUT_OF_MEMORY));
    // One byte takes a whole unit.
    let last = card.alloc(1).unwrap();
    assert_eq!(card.free_bytes(), 0);
    card.free(most);
    card.free(last);
    assert_eq!(card.free_bytes(), 64 * MIB);
}

proptest! {
    #[test]
    fn whatever_is_allocated_and_freed_adds_up(
        steps in prop::collection::vec((1usize..4 * MIB, any::<prop::sample::Index>()), 1..60)
    ) {
        let card = tiny();
        let mut live: Vec<(u64, usize)> = Vec::new();
        for (bytes, which) in steps {
            let rounded = bytes.next_multiple_of(512);
            let held: usize = live.iter().map(|(_, bytes)| bytes).sum();
            match card.alloc(bytes) {
                Ok(address) => live.push((address, rounded)),
                Err(error) => {
                    prop_assert_eq!(error, CuResult::ERROR_OUT_OF_MEMORY);
                    prop_assert!(held + rounded > 64 * MIB);
                    let (address, _) = live.swap_remove(which.index(live.len()));
                    card.free(address);
                }
            }
            let held: usize = live.iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(card.free_bytes(), 64 * MIB - held);
        }
    }
}

#[test]
fn other_processes_hold_memory_and_take_more() {
    let card = on("like = \"tiny-64MiB\"\nused_bytes = \"10MiB\"\n\
         growth = [{ after_allocations = 2, bytes = \"50MiB\" }, { after_allocations = 3, bytes = \"1MiB\" }]");
    assert_eq!(card.free_bytes(), 54 * MIB);
    card.alloc(2 * MIB).unwrap();
    let second = card.alloc(2 * MIB).unwrap();
    assert_eq!(card.free_bytes(), 50 * MIB);
    // They took what was left, and nothing is free for the third.
    assert_eq!(card.alloc(1), Err(CuResult::ERROR_OUT_OF_MEMORY));
    assert_eq!(card.free_bytes(), 0);
    card.free(second);
    assert_eq!(card.free_bytes(), 2 * MIB);
    card.alloc(MIB).unwrap();
    assert_eq!(card.free_bytes(), 0);
}

#[test]
fn the_planned_allocation_fails() {
    let card = on("like = \"tiny-64MiB\"\nfail = [\"alloc=2\"]");
    card.alloc(512).unwrap();
    assert_eq!(card.alloc_async(512), Err(CuResult::ERROR_OUT_OF_MEMORY));
    card.alloc(512).unwrap();
    assert_eq!(card.free_bytes(), 64 * MIB - 1024);
}

#[test]
fn what_a_pool_keeps_is_not_free_until_a_synchronisation_or_until_nothing_else_is() {
    let card = tiny();
    let address = card.alloc_async(40 * MIB).unwrap();
    check(unsafe { cuMemFreeAsync(address, PER_THREAD) });
    assert_eq!(card.free_bytes(), 24 * MIB);
    // The pool itself can use it.
    let again = card.alloc_async(39 * MIB).unwrap();
    assert_eq!(card.free_bytes(), 24 * MIB);
    assert_eq!(card.alloc(30 * MIB), Err(CuResult::ERROR_OUT_OF_MEMORY));
    check(unsafe { cuMemFreeAsync(again, PER_THREAD) });
    let other = card.alloc(30 * MIB).unwrap();
    assert_eq!(card.free_bytes(), 34 * MIB);
    card.free(other);
    let address = card.alloc_async(1).unwrap();
    check(unsafe { cuMemFreeAsync(address, PER_THREAD) });
    assert_eq!(card.free_bytes(), 62 * MIB);
    check(unsafe { cuCtxSynchronize() });
    assert_eq!(card.free_bytes(), 64 * MIB);
}

#[test]
fn a_pool_takes_and_keeps_blocks_of_two_mib() {
    let card = tiny();
    let addresses: Vec<u64> = (0..3).map(|_| card.alloc_async(MIB).unwrap()).collect();
    assert_eq!(card.free_bytes(), 60 * MIB);
    for address in &addresses[1..] {
        check(unsafe { cuMemFreeAsync(*address, PER_THREAD) });
    }
    check(unsafe { cuCtxSynchronize() });
    // Half of the first block is in use.
    assert_eq!(card.free_bytes(), 62 * MIB);
    check(unsafe { cuMemFreeAsync(addresses[0], PER_THREAD) });
    check(unsafe { cuCtxSynchronize() });
    assert_eq!(card.free_bytes(), 64 * MIB);
}

#[test]
fn a_pool_keeps_what_its_threshold_allows_until_it_is_trimmed() {
    let card = tiny();
    let mut pool = 0;
    check(unsafe { cuDeviceGetDefaultMemPool(&mut pool, 0) });
    let mut threshold = u64::MAX;
    let value: *mut u64 = &mut threshold;
    check(unsafe { cuMemPoolSetAttribute(pool, 4, value.cast()) });
    let address = card.alloc_async(40 * MIB).unwrap();
    let kept = card.alloc_async(MIB).unwrap();
    check(unsafe { cuMemFreeAsync(address, PER_THREAD) });
    check(unsafe { cuCtxSynchronize() });
    assert_eq!(card.free_bytes(), 22 * MIB);
    let (mut reserved, mut used, mut most) = (0u64, 0u64, 0u64);
    for (attribute, value) in [(5, &mut reserved), (7, &mut used), (8, &mut most)] {
        let value: *mut u64 = value;
        check(unsafe { cuMemPoolGetAttribute(pool, attribute, value.cast::<c_void>()) });
    }
    assert_eq!(
        [reserved, used, most].map(|bytes| bytes as usize / MIB),
        [42, 1, 41]
    );
    check(unsafe { cuMemPoolTrimTo(pool, 10 * MIB) });
    assert_eq!(card.free_bytes(), 54 * MIB);
    check(unsafe { cuMemPoolTrimTo(pool, 0) });
    assert_eq!(card.free_bytes(), 62 * MIB);
    card.free(kept);
}

#[test]
fn a_pool_of_the_programs_own_goes_away_with_what_it_keeps() {
    let card = tiny();
    #[repr(C)]
    struct Properties([i32; 4], [u64; 10]);
    let properties = Properties([1, 0, 1, 0], [0; 10]);
    let properties: *const Properties = &properties;
    let mut pool = 0;
    check(unsafe { cuMemPoolCreate(&mut pool, properties.cast()) });
    let mut address = 0;
    check(unsafe { cuMemAllocFromPoolAsync(&mut address, MIB, pool, 0) });
    check(unsafe { cuMemFreeAsync(address, 0) });
    assert_eq!(card.free_bytes(), 62 * MIB);
    check(unsafe { cuMemPoolDestroy(pool) });
    assert_eq!(card.free_bytes(), 64 * MIB);
    let gone = unsafe { cuMemAllocFromPoolAsync(&mut address, MIB, pool, 0) };
    assert_eq!(gone, CuResult::ERROR_INVALID_HANDLE);
}

#[test]
fn empty_allocations_are_null_in_a_stream_and_an_error_without() {
    let card = tiny();
    assert_eq!(card.alloc(0), Err(CuResult::ERROR_INVALID_VALUE));
    assert_eq!(card.alloc_async(0), Ok(0));
    check(unsafe { cuMemFreeAsync(0, PER_THREAD) });
    check(unsafe { cuMemFree_v2(0) });
    check(unsafe { cuMemsetD8Async(0, 1, 0, PER_THREAD) });
    check(unsafe { cuMemcpyHtoDAsync_v2(0, 0, 0, PER_THREAD) });
}

#[test]
fn what_is_not_allocated_is_neither_freed_nor_copied() {
    let card = tiny();
    let address = card.put(&[1; 16]);
    let invalid = CuResult::ERROR_INVALID_VALUE;
    assert_eq!(unsafe { cuMemFree_v2(address + 4) }, invalid);
    let bytes = [0u8; 17];
    assert_eq!(
        unsafe { cuMemcpyHtoD_v2(address, bytes.as_ptr() as usize, 17) },
        invalid
    );
    assert!(!card.last_fault().is_empty());
    card.free(address);
    assert_eq!(unsafe { cuMemFree_v2(address) }, invalid);
    assert_eq!(
        unsafe { cuMemcpyHtoD_v2(address, bytes.as_ptr() as usize, 1) },
        invalid
    );
    assert_eq!(unsafe { cuMemAlloc_v2(std::ptr::null_mut(), 16) }, invalid);
    // The context lives on.
    card.alloc(16).unwrap();
}

#[test]
fn fills_and_copies_do_what_they_say() {
    let card = tiny();
    let address = card.put(&[0xaa; 24]);
    check(unsafe { cuMemsetD8_v2(address, 1, 4) });
    check(unsafe { cuMemsetD16_v2(address + 4, 0x0302, 3) });
    check(unsafe { cuMemsetD32Async(address + 12, 0x0706_0504, 2, PER_THREAD) });
    let expected = [
        1, 1, 1, 1, 2, 3, 2, 3, 2, 3, 0xaa, 0xaa, 4, 5, 6, 7, 4, 5, 6, 7, 0xaa, 0xaa, 0xaa, 0xaa,
    ];
    assert_eq!(card.get(address, 24), expected);
    let copy = card.alloc(24).unwrap();
    check(unsafe { cuMemcpyDtoDAsync_v2(copy, address, 24, PER_THREAD) });
    assert_eq!(card.get(copy, 24), expected);
    let odd = unsafe { cuMemsetD32_v2(address + 2, 0, 1) };
    assert_eq!(odd, CuResult::ERROR_INVALID_VALUE);
    let (mut start, mut bytes) = (0, 0);
    check(unsafe { cuMemGetAddressRange_v2(&mut start, &mut bytes, copy + 7) });
    assert_eq!((start, bytes), (copy, 24));
}

#[test]
fn a_context_takes_its_memory_with_it() {
    let card = on("like = \"tiny-64MiB\"\ncontext_bytes = \"4MiB\"");
    assert_eq!(card.free_bytes(), 60 * MIB);
    card.alloc(MIB).unwrap();
    card.alloc_async(MIB).unwrap();
    let mut again = 0;
    check(unsafe { cuDevicePrimaryCtxRetain(&mut again, 0) });
    assert_eq!(again, card.context);
    check(unsafe { cuDevicePrimaryCtxRelease_v2(0) });
    assert_eq!(card.free_bytes(), 57 * MIB);
    check(unsafe { cuDevicePrimaryCtxRelease_v2(0) });
    assert_eq!(card.driver.memory.free_bytes(), 64 << 20);
    assert_eq!(card.alloc(1), Err(CuResult::ERROR_CONTEXT_IS_DESTROYED));
    let released = unsafe { cuDevicePrimaryCtxRelease_v2(0) };
    assert_eq!(released, CuResult::ERROR_INVALID_CONTEXT);
}

#[test]
fn a_card_too_full_for_a_context_has_none() {
    let card = on("like = \"tiny-64MiB\"\nused_bytes = \"63MiB\"\ncontext_bytes = \"1MiB\"");
    assert_eq!(card.free_bytes(), 0);
    check(unsafe { cuDevicePrimaryCtxRelease_v2(0) });
    let mut hog = card.driver.memory.alloc(512).unwrap();
    let refused = unsafe { cuDevicePrimaryCtxRetain(&mut hog as *mut u64 as *mut usize, 0) };
    assert_eq!(refused, CuResult::ERROR_OUT_OF_MEMORY);
}

#[test]
fn locked_host_memory_is_freed_once() {
    let _card = tiny();
    let mut memory = std::ptr::null_mut();
    check(unsafe { cuMemHostAlloc(&mut memory, 100, 0) });
    assert!((memory as usize).is_multiple_of(4096));
    check(unsafe { cuMemFreeHost(memory) });
    assert_eq!(
        unsafe { cuMemFreeHost(memory) },
        CuResult::ERROR_INVALID_VALUE
    );
    let bytes = [0u8; 64];
    let start = bytes.as_ptr() as usize;
    check(unsafe { cuMemHostRegister_v2(start, 64, 0) });
    let twice = unsafe { cuMemHostRegister_v2(start + 32, 64, 0) };
    assert_eq!(twice, CuResult::ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    check(unsafe { cuMemHostUnregister(start) });
}
