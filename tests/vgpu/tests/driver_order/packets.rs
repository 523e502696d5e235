//! Packets that the host copies ahead of their use, as the trainer does.

use vgpu::driver::event::*;
use vgpu::driver::result::CuResult;

use crate::on_card::{check, event, stream};
use crate::pinned::Pinned;
use crate::{
    DEFERRED, ORDERS, alloc, assert_found, copy, fill, in_order, record, synchronize, wait,
};

/// Packets that go through two pinned buffers and two places ahead of the one that is read: what the trainer does.
fn packets(count: u8, wait_on_host: bool, order_places: bool) -> (Vec<u8>, CuResult) {
    let (main, copies) = (stream(), stream());
    let (current, ahead) = (alloc(main), [alloc(main), alloc(main)]);
    let hosts = [Pinned::new(0), Pinned::new(0)];
    let (arrived, left) = ([event(), event()], [event(), event()]);
    let out: Vec<u64> = (0..count).map(|_| alloc(main)).collect();
    for place in 0..2 {
        check(fill(ahead[place], 0, main));
        record(left[place], main);
    }
    let mut worst = CuResult::SUCCESS;
    let mut keep = |result| {
        if worst == CuResult::SUCCESS {
            worst = result
        }
    };
    for packet in 0..count {
        let place = usize::from(packet) % 2;
        if wait_on_host && packet >= 2 {
            keep(unsafe { cuEventSynchronize(arrived[place]) });
        }
        hosts[place].set(packet + 1);
        if order_places {
            keep(wait(copies, left[place]));
        }
        keep(hosts[place].copy_in(ahead[place], copies));
        keep(unsafe { cuEventRecord(arrived[place], copies) });
        keep(wait(main, arrived[place]));
        keep(copy(current, ahead[place], main));
        keep(unsafe { cuEventRecord(left[place], main) });
        keep(copy(out[usize::from(packet)], current, main));
    }
    keep(synchronize(main));
    if worst != CuResult::SUCCESS {
        return (Vec::new(), worst);
    }
    let seen = out.iter().map(|&address| {
        let result = Pinned::new(0);
        check(result.copy_out(address, main));
        check(synchronize(main));
        result.get()
    });
    (seen.collect(), worst)
}

#[test]
fn packets_that_wait_for_each_other_arrive_whole_in_every_order() {
    for order in ORDERS {
        let _card = in_order(order);
        let (seen, worst) = packets(12, true, true);
        check(worst);
        assert_eq!(seen, Vec::from_iter(1..=12), "{order}");
    }
}

#[test]
fn a_pinned_buffer_that_is_written_while_a_copy_still_reads_it_is_named() {
    let mut found = 0;
    for order in DEFERRED {
        let card = in_order(order);
        let (_, worst) = packets(12, false, true);
        if worst == CuResult::SUCCESS {
            assert_ne!(order, "late");
            continue;
        }
        found += 1;
        let words = [
            "a copy from the host in stream",
            "still reads",
            "the host has changed",
        ];
        assert_found(&card, &words);
    }
    assert!(found >= 2, "{found}");
}

#[test]
fn a_place_that_is_filled_again_before_it_was_left_is_named_with_both_operations() {
    for order in ORDERS {
        let card = in_order(order);
        packets(4, true, false);
        let words = [
            "no order",
            "a copy from the host in stream",
            "in stream",
            "writes",
        ];
        assert_found(&card, &words);
    }
}
