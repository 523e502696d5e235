//! Waiting for the card, by event or by asking, and what is done by then.

use vgpu::driver::event::*;
use vgpu::driver::result::CuResult;
use vgpu::driver::stream::*;

use crate::on_card::{self, check, event, stream};
use crate::pinned::Pinned;
use crate::{ORDERS, alloc, assert_found, fill, in_order, record, synchronize, wait};

#[test]
fn late_work_is_done_when_somebody_waits_for_it_and_not_before() {
    let card = in_order("late");
    let (stream, other) = (stream(), stream());
    let (address, elsewhere, done) = (alloc(stream), alloc(other), event());
    let (pinned, beside) = (Pinned::new(0), Pinned::new(0));
    check(fill(address, 7, stream));
    check(pinned.copy_out(address, stream));
    record(done, stream);
    check(fill(elsewhere, 8, other));
    check(beside.copy_out(elsewhere, other));
    assert_eq!(
        pinned.get(),
        0xff,
        "what is read too early is no plausible number"
    );
    // Who asks once is told no, who goes on asking makes it happen.
    assert_eq!(unsafe { cuEventQuery(done) }, CuResult::ERROR_NOT_READY);
    assert_eq!(pinned.get(), 0xff);
    check(unsafe { cuEventQuery(done) });
    assert_eq!((pinned.get(), beside.get()), (7, 0xff));
    check(synchronize(other));
    assert_eq!(beside.get(), 8);
    assert_eq!(card.get(address, 1), [7]);
}

#[test]
fn an_event_has_no_time_before_it_is_reached() {
    let _card = in_order("late");
    let (stream, mut start, mut end, mut elapsed) = (stream(), 0, 0, 0.0);
    check(unsafe { cuEventCreate(&mut start, 0) });
    check(unsafe { cuEventCreate(&mut end, 0) });
    record(start, stream);
    record(end, stream);
    let not_yet = unsafe { cuEventElapsedTime_v2(&mut elapsed, start, end) };
    assert_eq!(not_yet, CuResult::ERROR_NOT_READY);
    check(unsafe { cuEventSynchronize(end) });
    check(unsafe { cuEventElapsedTime_v2(&mut elapsed, start, end) });
}

#[test]
fn a_wait_for_an_event_that_was_never_recorded_is_named() {
    for order in ORDERS {
        let card = in_order(order);
        let (stream, event) = (stream(), event());
        assert_eq!(wait(stream, event), CuResult::ERROR_LAUNCH_FAILED);
        assert_found(&card, &["stream", "never recorded"]);
        drop(card);
        let card = in_order(order);
        let event = on_card::event();
        let waited = unsafe { cuEventSynchronize(event) };
        assert_eq!(waited, CuResult::ERROR_LAUNCH_FAILED);
        assert_found(&card, &["the host waits", "never recorded"]);
    }
}

/// Asks until the answer is not that it is not ready.
fn ask(mut question: impl FnMut() -> CuResult) -> CuResult {
    let mut answers = (0..1000).map(|_| question());
    answers
        .find(|answer| *answer != CuResult::ERROR_NOT_READY)
        .unwrap()
}

#[test]
fn who_asks_again_and_again_is_answered() {
    for order in ORDERS {
        let _card = in_order(order);
        let (mut start, mut end, mut elapsed) = (0, 0, 0.0);
        check(unsafe { cuEventCreate(&mut start, 0) });
        check(unsafe { cuEventCreate(&mut end, 0) });
        let stream = stream();
        record(start, stream);
        record(end, stream);
        check(ask(|| unsafe {
            cuEventElapsedTime_v2(&mut elapsed, start, end)
        }));
        check(ask(|| {
            record(start, stream);
            unsafe { cuEventQuery(start) }
        }));
        let address = alloc(stream);
        check(fill(address, 1, stream));
        check(ask(|| unsafe { cuStreamQuery(stream) }));
        // The host has seen all of it done, and tells the other stream.
        check(fill(address, 2, on_card::stream()));
        check(ask(|| unsafe { cuStreamQuery(0) }));
    }
}
