//! The order between streams: by events, and by the legacy stream.

use vgpu::driver::copy::*;
use vgpu::driver::stream::*;

use crate::on_card::{check, event, stream};
use crate::{BYTES, ORDERS, alloc, assert_found, copy, fill, in_order, record, synchronize, wait};

#[test]
fn a_missing_event_between_two_streams_is_named_whatever_was_done_first() {
    for order in ORDERS {
        for waits in [true, false] {
            let card = in_order(order);
            let (writer, reader, written) = (stream(), stream(), event());
            let (address, to) = (alloc(writer), alloc(reader));
            // The allocation is seen by both.
            check(synchronize(writer));
            check(fill(address, 3, writer));
            record(written, writer);
            if waits {
                check(wait(reader, written));
            }
            let _ = copy(to, address, reader);
            if waits {
                check(synchronize(reader));
                assert_eq!(card.get(to, 1), [3]);
                continue;
            }
            // In the late order the copy comes first.
            let _ = synchronize(reader);
            let words = [
                "no order",
                "a copy on the card in stream",
                "a fill in stream",
            ];
            assert_found(&card, &words);
        }
    }
}

#[test]
fn an_event_counts_as_it_was_when_it_was_waited_for() {
    for order in ORDERS {
        let card = in_order(order);
        let (writer, reader, written) = (stream(), stream(), event());
        let (address, to) = (alloc(writer), alloc(reader));
        check(fill(address, 1, writer));
        record(written, writer);
        check(wait(reader, written));
        // Recorded again after the wait, which does not move with it.
        check(fill(address, 2, writer));
        record(written, writer);
        let _ = copy(to, address, reader);
        assert_found(
            &card,
            &[
                "no order",
                "a copy on the card in stream",
                "a fill in stream",
            ],
        );
    }
}

#[test]
fn the_legacy_stream_is_in_order_with_blocking_streams_alone() {
    for order in ORDERS {
        for flags in [0, 1] {
            let card = in_order(order);
            let mut stream = 0;
            check(unsafe { cuStreamCreate(&mut stream, flags) });
            let address = card.put(&[0; BYTES]);
            check(fill(address, 4, stream));
            let mut result = [0u8; BYTES];
            let to = result.as_mut_ptr() as usize;
            let copied = unsafe { cuMemcpyDtoH_v2(to, address, BYTES) };
            if flags == 0 {
                check(copied);
                assert_eq!(result[0], 4, "{order}");
            } else {
                assert_found(
                    &card,
                    &[
                        "a copy to the host in the legacy stream",
                        "a fill in stream",
                    ],
                );
            }
        }
    }
}

#[test]
fn work_of_a_stream_that_is_gone_is_still_in_order_with_the_legacy_stream() {
    for order in ORDERS {
        let card = in_order(order);
        let mut stream = 0;
        check(unsafe { cuStreamCreate(&mut stream, 0) });
        let address = card.put(&[0; BYTES]);
        check(fill(address, 4, stream));
        check(unsafe { cuStreamDestroy_v2(stream) });
        assert_eq!(card.get(address, 1), [4], "{order}");
    }
}
