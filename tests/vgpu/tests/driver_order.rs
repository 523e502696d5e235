//! When the card does what it was given, and what nothing orders: planted faults are found and named, and a program
//! that waits for everything gets the same in every order.

mod on_card;

use std::ffi::c_void;

use on_card::{OnCard, check, event, on, stream};
use vgpu::driver::allocation::{cuMemAllocAsync, cuMemFree_v2, cuMemFreeAsync};
use vgpu::driver::capture::cuStreamBeginCapture_v2;
use vgpu::driver::context::cuCtxSynchronize;
use vgpu::driver::copy::*;
use vgpu::driver::event::*;
use vgpu::driver::graph::*;
use vgpu::driver::host::{cuMemFreeHost, cuMemHostAlloc};
use vgpu::driver::result::CuResult;
use vgpu::driver::stream::*;

const ORDERS: [&str; 6] = [
    "eager", "late", "random:1", "random:2", "random:3", "random:4",
];
/// Those in which the card does something later than it was asked to.
const DEFERRED: [&str; 5] = ["late", "random:1", "random:2", "random:3", "random:4"];
const BYTES: usize = 256;

fn in_order(order: &str) -> OnCard {
    on(&format!("like = \"tiny-64MiB\"\norder = \"{order}\""))
}

fn record(event: usize, stream: usize) {
    check(unsafe { cuEventRecord(event, stream) });
}

fn wait(stream: usize, event: usize) -> CuResult {
    unsafe { cuStreamWaitEvent(stream, event, 0) }
}

fn alloc(stream: usize) -> u64 {
    let mut address = 0;
    check(unsafe { cuMemAllocAsync(&mut address, BYTES, stream) });
    address
}

fn fill(address: u64, value: u8, stream: usize) -> CuResult {
    unsafe { cuMemsetD8Async(address, value, BYTES, stream) }
}

fn copy(to: u64, from: u64, stream: usize) -> CuResult {
    unsafe { cuMemcpyDtoDAsync_v2(to, from, BYTES, stream) }
}

fn synchronize(stream: usize) -> CuResult {
    unsafe { cuStreamSynchronize(stream) }
}

/// Page-locked memory of the host.
struct Pinned(*mut u8);

impl Pinned {
    fn new(value: u8) -> Self {
        let mut memory: *mut c_void = std::ptr::null_mut();
        check(unsafe { cuMemHostAlloc(&mut memory, BYTES, 0) });
        let pinned = Self(memory.cast());
        pinned.set(value);
        pinned
    }

    fn set(&self, value: u8) {
        unsafe { std::ptr::write_bytes(self.0, value, BYTES) };
    }

    fn get(&self) -> u8 {
        unsafe { self.0.read_volatile() }
    }

    fn copy_in(&self, to: u64, stream: usize) -> CuResult {
        unsafe { cuMemcpyHtoDAsync_v2(to, self.0 as usize, BYTES, stream) }
    }

    fn copy_out(&self, from: u64, stream: usize) -> CuResult {
        unsafe { cuMemcpyDtoHAsync_v2(self.0 as usize, from, BYTES, stream) }
    }

    fn free(&self) -> CuResult {
        unsafe { cuMemFreeHost(self.0.cast()) }
    }
}

#[track_caller]
fn check_lost(result: CuResult) {
    let lost = [
        CuResult::ERROR_LAUNCH_FAILED,
        CuResult::ERROR_ILLEGAL_ADDRESS,
    ];
    assert!(lost.contains(&result), "{result:?}");
}

/// The context was lost, in the end, and all of these words say why.
#[track_caller]
fn assert_found(card: &OnCard, words: &[&str]) {
    check_lost(unsafe { cuCtxSynchronize() });
    let fault = card.last_fault();
    for word in words {
        assert!(fault.contains(word), "no `{word}` in: {fault}");
    }
}

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

/// In the eager order the call itself finds it.
fn check_or_lost(result: CuResult) {
    assert!([CuResult::SUCCESS, CuResult::ERROR_LAUNCH_FAILED].contains(&result));
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

/// Two streams in one graph: one fills what the other copies, then both are joined.
fn forked(in_the_middle: bool) -> (usize, usize, u64) {
    let (main, branch) = (stream(), stream());
    let [begun, filled, joined] = [(); 3].map(|()| event());
    let (address, to) = (alloc(main), alloc(main));
    check(fill(address, 0, main));
    check(synchronize(main));
    check(unsafe { cuStreamBeginCapture_v2(main, 1) });
    record(begun, main);
    check(wait(branch, begun));
    check(fill(address, 5, branch));
    record(filled, branch);
    if in_the_middle {
        check(wait(main, filled));
    }
    check(copy(to, address, main));
    record(joined, branch);
    check(wait(main, joined));
    let (mut graph, mut executable) = (0, 0);
    check(unsafe { cuStreamEndCapture(main, &mut graph) });
    check(unsafe { cuGraphInstantiateWithFlags(&mut executable, graph, 0) });
    (executable, main, to)
}

#[test]
fn a_graph_keeps_the_order_that_was_captured() {
    for order in ORDERS {
        let card = in_order(order);
        let (executable, main, to) = forked(true);
        for _ in 0..3 {
            check(unsafe { cuGraphLaunch(executable, main) });
        }
        check(synchronize(main));
        assert_eq!(card.get(to, 1), [5], "{order}");
    }
}

#[test]
fn a_graph_that_drops_a_dependency_is_named() {
    for order in ORDERS {
        let card = in_order(order);
        let (executable, main, _) = forked(false);
        check_or_lost(unsafe { cuGraphLaunch(executable, main) });
        let words = [
            "a copy on the card in stream",
            "a fill in branch 1 of a graph",
            "no order",
        ];
        assert_found(&card, &words);
    }
}

#[test]
fn launches_of_one_graph_wait_for_each_other_in_whatever_streams() {
    for order in ORDERS {
        let card = in_order(order);
        let (executable, main, to) = forked(true);
        let other = stream();
        check(unsafe { cuGraphLaunch(executable, main) });
        check(unsafe { cuGraphLaunch(executable, other) });
        check(synchronize(other));
        assert_eq!(card.get(to, 1), [5], "{order}");
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
