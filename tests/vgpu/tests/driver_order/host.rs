//! The host's side of copies: results, and functions that streams call.

use std::ffi::c_void;

use vgpu::driver::copy::*;
use vgpu::driver::event::*;
use vgpu::driver::graph::*;

use crate::on_card::{check, event, stream};
use crate::pinned::Pinned;
use crate::{BYTES, ORDERS, alloc, assert_found, fill, in_order, record, synchronize};

#[test]
fn results_that_are_used_before_anything_made_them_visible_are_named() {
    for order in [
        "late", "random:1", "random:2", "random:3", "random:4", "random:5",
    ] {
        let card = in_order(order);
        let stream = stream();
        let address = alloc(stream);
        check(fill(address, 9, stream));
        let mut result = vec![1u8; BYTES];
        let to = result.as_mut_ptr() as usize;
        check(unsafe { cuMemcpyDtoHAsync_v2(to, address, BYTES, stream) });
        // A driver may have waited for pageable memory, as random orders do now and then.
        let early = result[0];
        result.fill(0);
        let synchronised = synchronize(stream);
        match early {
            9 => check(synchronised),
            early => {
                assert_eq!(early, 0xff);
                assert_found(&card, &["a copy to the host in stream", "still to write"]);
            }
        }
        drop(result);
    }
}

#[test]
fn what_a_function_of_the_host_prepares_is_no_change_behind_a_copys_back() {
    extern "C" fn prepare(memory: *mut c_void) {
        unsafe { std::ptr::write_bytes(memory.cast::<u8>(), 6, BYTES) };
    }
    for order in ORDERS {
        let card = in_order(order);
        let stream = stream();
        let (address, pinned) = (alloc(stream), Pinned::new(0));
        check(unsafe { cuLaunchHostFunc(stream, Some(prepare), pinned.0 as usize) });
        check(pinned.copy_in(address, stream));
        check(fill(address, 0, stream));
        check(pinned.copy_out(address, stream));
        check(pinned.copy_in(address, stream));
        check(synchronize(stream));
        assert_eq!(
            (card.get(address, 1), pinned.get()),
            (vec![0], 0),
            "{order}"
        );
    }
}

#[test]
fn a_function_of_the_host_reads_what_the_copy_before_it_brought() {
    extern "C" fn keep(memory: *mut c_void) {
        // The byte behind the copy's.
        unsafe { *memory.cast::<u8>().add(1) = *memory.cast::<u8>() };
    }
    for order in ORDERS {
        let card = in_order(order);
        let stream = stream();
        let (address, pinned) = (alloc(stream), Pinned::new(0));
        let one = |value| {
            check(fill(address, value, stream));
            let to = pinned.0 as usize;
            check(unsafe { cuMemcpyDtoHAsync_v2(to, address, 1, stream) });
        };
        one(1);
        let copied = event();
        record(copied, stream);
        check(unsafe { cuLaunchHostFunc(stream, Some(keep), pinned.0 as usize) });
        check(unsafe { cuEventSynchronize(copied) });
        // The first copy is done and the function is not: what it is to read must stay.
        one(2);
        check(synchronize(stream));
        let seen = unsafe { [*pinned.0, *pinned.0.add(1)] };
        assert_eq!(seen, [2, 1], "{order}");
        drop(card);
    }
}
