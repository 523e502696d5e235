//! Memory that is used before it is allocated or after it is freed.

use vgpu::driver::allocation::{cuMemAllocAsync, cuMemFree_v2, cuMemFreeAsync};
use vgpu::driver::context::cuCtxSynchronize;
use vgpu::driver::result::CuResult;

use crate::on_card::{check, stream};
use crate::pinned::Pinned;
use crate::{ORDERS, alloc, assert_found, check_or_lost, copy, fill, in_order, synchronize};

#[test]
fn memory_that_is_freed_before_its_last_use_is_named() {
    for order in ORDERS {
        let card = in_order(order);
        let (maker, user) = (stream(), stream());
        let (address, to) = (alloc(maker), alloc(user));
        check(fill(address, 1, maker));
        check(synchronize(maker));
        check(copy(to, address, user));
        check_or_lost(unsafe { cuMemFreeAsync(address, maker) });
        let _ = unsafe { cuCtxSynchronize() };
        let fault = card.last_fault();
        // The free first, or the copy.
        assert!(fault.contains("a free in stream"), "{order}: {fault}");
        let (too_early, too_late) = (
            "a copy on the card in stream",
            "allocation that was freed by",
        );
        assert!(
            fault.contains(too_early) || fault.contains(too_late),
            "{order}: {fault}"
        );
    }
}

#[test]
fn stream_ordered_memory_that_is_freed_by_the_host_is_not_waited_for() {
    let card = in_order("late");
    let stream = stream();
    let address = alloc(stream);
    check(fill(address, 1, stream));
    check(synchronize(stream));
    check(fill(address, 2, stream));
    check_or_lost(unsafe { cuMemFree_v2(address) });
    assert_found(&card, &["freed by cuMemFree in the host"]);
}

#[test]
fn memory_that_another_stream_uses_before_it_is_allocated_is_named() {
    for order in ORDERS {
        let card = in_order(order);
        let (maker, user) = (stream(), stream());
        let address = alloc(maker);
        check_or_lost(fill(address, 1, user));
        assert_found(&card, &["a fill in stream", "an allocation in stream"]);
    }
}

#[test]
fn pinned_memory_that_is_freed_under_a_copy_is_named() {
    for how in [Pinned::copy_in, Pinned::copy_out] {
        let card = in_order("late");
        let stream = stream();
        let (address, pinned) = (alloc(stream), Pinned::new(1));
        check(fill(address, 9, stream));
        check(how(&pinned, address, stream));
        assert_eq!(pinned.free(), CuResult::ERROR_LAUNCH_FAILED);
        assert_found(&card, &["in stream", "host memory that the host has freed"]);
    }
}

#[test]
fn queued_frees_are_done_for_an_allocation_that_needs_them() {
    for order in ORDERS {
        let card = in_order(order);
        let stream = stream();
        for _ in 0..5 {
            let mut address = 0;
            check(unsafe { cuMemAllocAsync(&mut address, 40 << 20, stream) });
            check(unsafe { cuMemFreeAsync(address, stream) });
            let again = unsafe { cuMemFreeAsync(address, stream) };
            assert_eq!(again, CuResult::ERROR_INVALID_VALUE);
        }
        check(unsafe { cuCtxSynchronize() });
        assert_eq!(card.free_bytes(), 64 << 20);
    }
}
