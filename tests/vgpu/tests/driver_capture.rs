//! Captures and graphs: what is captured is done at a launch, and not before.

mod on_card;

use on_card::{OnCard, PER_THREAD, check, event, stream, tiny};
use vgpu::driver::allocation::{cuMemFreeAsync, cuMemGetInfo_v2};
use vgpu::driver::capture::{cuStreamBeginCapture_v2, cuStreamIsCapturing};
use vgpu::driver::context::cuCtxSynchronize;
use vgpu::driver::copy::*;
use vgpu::driver::event::*;
use vgpu::driver::graph::*;
use vgpu::driver::result::CuResult;
use vgpu::driver::stream::*;

const GLOBAL: u32 = 0;
const THREAD_LOCAL: u32 = 1;
const RELAXED: u32 = 2;

fn begin(stream: usize) {
    check(unsafe { cuStreamBeginCapture_v2(stream, THREAD_LOCAL) });
}

fn end(stream: usize) -> Result<usize, CuResult> {
    let mut graph = 7;
    let result = unsafe { cuStreamEndCapture(stream, &mut graph) };
    match result {
        CuResult::SUCCESS => Ok(graph),
        _ => {
            assert_eq!(graph, 0);
            Err(result)
        }
    }
}

fn instantiate(graph: usize) -> usize {
    let mut executable = 0;
    check(unsafe { cuGraphInstantiateWithFlags(&mut executable, graph, 0) });
    executable
}

fn fill(address: u64, value: u8, stream: usize) -> CuResult {
    unsafe { cuMemsetD8Async(address, value, 4, stream) }
}

fn first(card: &OnCard, address: u64) -> u8 {
    check(unsafe { cuCtxSynchronize() });
    card.get(address, 4)[0]
}

#[test]
fn what_is_captured_is_done_at_every_launch_in_its_order() {
    let card = tiny();
    let stream = stream();
    let (from, to) = (card.put(&[1; 4]), card.put(&[2; 4]));
    begin(stream);
    let mut status = 9;
    check(unsafe { cuStreamIsCapturing(stream, &mut status) });
    assert_eq!(status, 1);
    check(unsafe { cuMemcpyDtoDAsync_v2(to, from, 4, stream) });
    check(fill(from, 5, stream));
    let graph = end(stream).unwrap();
    assert_eq!((first(&card, from), first(&card, to)), (1, 2));
    let executable = instantiate(graph);
    check(unsafe { cuGraphDestroy(graph) });
    check(unsafe { cuGraphLaunch(executable, stream) });
    assert_eq!((first(&card, from), first(&card, to)), (5, 1));
    check(unsafe { cuGraphLaunch(executable, stream) });
    assert_eq!((first(&card, from), first(&card, to)), (5, 5));
    check(unsafe { cuGraphExecDestroy(executable) });
    let gone = unsafe { cuGraphLaunch(executable, stream) };
    assert_eq!(gone, CuResult::ERROR_INVALID_HANDLE);
}

#[test]
fn a_copy_from_the_host_reads_what_is_there_at_the_launch() {
    let card = tiny();
    let address = card.put(&[0; 4]);
    let mut host = [3u8; 4];
    begin(PER_THREAD);
    check(unsafe { cuMemcpyHtoDAsync_v2(address, host.as_ptr() as usize, 4, PER_THREAD) });
    let executable = instantiate(end(PER_THREAD).unwrap());
    host[0] = 8;
    check(unsafe { cuGraphLaunch(executable, PER_THREAD) });
    assert_eq!(first(&card, address), host[0]);
}

#[test]
fn the_stream_of_a_thread_is_captured_for_that_thread_only() {
    let card = tiny();
    let address = card.put(&[0; 4]);
    begin(PER_THREAD);
    let context = card.context;
    std::thread::spawn(move || {
        check(unsafe { vgpu::driver::context::cuCtxSetCurrent(context) });
        check(fill(address, 6, PER_THREAD));
    })
    .join()
    .unwrap();
    let graph = end(PER_THREAD).unwrap();
    assert_eq!(first(&card, address), 6);
    let mut count = 9;
    check(unsafe { cuGraphGetNodes(graph, std::ptr::null_mut(), &mut count) });
    assert_eq!(count, 0);
}

#[test]
fn a_second_stream_joins_by_an_event_and_must_be_joined() {
    let card = tiny();
    let address = card.put(&[0; 4]);
    let (origin, branch) = (stream(), stream());
    let (fork, join) = (event(), event());
    for joined in [true, false] {
        begin(origin);
        check(unsafe { cuEventRecord(fork, origin) });
        check(unsafe { cuStreamWaitEvent(branch, fork, 0) });
        check(fill(address, 9, branch));
        if joined {
            check(unsafe { cuEventRecord(join, branch) });
            check(unsafe { cuStreamWaitEvent(origin, join, 0) });
            check(fill(address, 10, origin));
            assert_eq!(
                unsafe { cuEventSynchronize(join) },
                CuResult::ERROR_CAPTURED_EVENT
            );
        }
        let graph = end(origin);
        if joined {
            check(unsafe { cuGraphLaunch(instantiate(graph.unwrap()), branch) });
            assert_eq!(first(&card, address), 10);
        } else {
            assert_eq!(graph, Err(CuResult::ERROR_STREAM_CAPTURE_UNJOINED))
        }
    }
}

#[test]
fn what_cannot_be_captured_breaks_the_capture() {
    let card = tiny();
    let outside = event();
    check(unsafe { cuEventRecord(outside, PER_THREAD) });
    type Act<'a> = &'a dyn Fn(usize) -> CuResult;
    let breaks: [(&str, CuResult, Act); 4] = [
        (
            "waiting for the stream",
            CuResult::ERROR_STREAM_CAPTURE_UNSUPPORTED,
            &|stream| unsafe { cuStreamSynchronize(stream) },
        ),
        (
            "waiting for the card",
            CuResult::ERROR_STREAM_CAPTURE_UNSUPPORTED,
            &|_| unsafe { cuCtxSynchronize() },
        ),
        (
            "allocating at once",
            CuResult::ERROR_STREAM_CAPTURE_UNSUPPORTED,
            &|_| card.alloc(4).err().unwrap_or(CuResult::SUCCESS),
        ),
        (
            "an event from outside",
            CuResult::ERROR_STREAM_CAPTURE_ISOLATION,
            &|stream| unsafe { cuStreamWaitEvent(stream, outside, 0) },
        ),
    ];
    for (what, expected, act) in breaks {
        let stream = stream();
        let address = card.put(&[0; 4]);
        begin(stream);
        assert_eq!(act(stream), expected, "{what}");
        let after = fill(address, 1, stream);
        assert_eq!(after, CuResult::ERROR_STREAM_CAPTURE_INVALIDATED, "{what}");
        assert_eq!(
            end(stream),
            Err(CuResult::ERROR_STREAM_CAPTURE_INVALIDATED),
            "{what}"
        );
        // The stream is an ordinary one again.
        check(fill(address, 1, stream));
    }
}

#[test]
fn modes_say_whom_a_capture_hinders() {
    let card = tiny();
    let stream = stream();
    check(unsafe { cuStreamBeginCapture_v2(stream, RELAXED) });
    card.alloc(4).unwrap();
    end(stream).unwrap();
    check(unsafe { cuStreamBeginCapture_v2(stream, GLOBAL) });
    let context = card.context;
    let other = std::thread::spawn(move || {
        check(unsafe { vgpu::driver::context::cuCtxSetCurrent(context) });
        unsafe { cuMemsetD8_v2(0x1000, 0, 1) }
    });
    assert_eq!(
        other.join().unwrap(),
        CuResult::ERROR_STREAM_CAPTURE_UNSUPPORTED
    );
    assert_eq!(end(stream), Err(CuResult::ERROR_STREAM_CAPTURE_INVALIDATED));
}

#[test]
fn the_legacy_stream_cannot_be_captured_nor_wait_for_a_capture() {
    let card = tiny();
    let address = card.put(&[0; 4]);
    let legacy = unsafe { cuStreamBeginCapture_v2(0, THREAD_LOCAL) };
    assert_eq!(legacy, CuResult::ERROR_STREAM_CAPTURE_UNSUPPORTED);
    // A stream of a thread is blocking; one made non-blocking is not.
    begin(PER_THREAD);
    assert_eq!(fill(address, 1, 0), CuResult::ERROR_STREAM_CAPTURE_IMPLICIT);
    end(PER_THREAD).unwrap_err();
    let stream = stream();
    begin(stream);
    check(fill(address, 1, 0));
    end(stream).unwrap();
}

#[test]
fn memory_of_a_capture_is_the_graphs() {
    let card = tiny();
    let free = |card: &OnCard| {
        let (mut free, mut total) = (0, 0);
        check(unsafe { cuMemGetInfo_v2(&mut free, &mut total) });
        assert_eq!(total, 64 << 20);
        let _ = card;
        free
    };
    let before = card.put(&[0; 4]);
    begin(PER_THREAD);
    let own = card.alloc_async(1 << 20).unwrap();
    check(fill(own, 1, PER_THREAD));
    check(unsafe { cuMemcpyDtoDAsync_v2(before, own, 4, PER_THREAD) });
    check(unsafe { cuMemFreeAsync(own, PER_THREAD) });
    let graph = end(PER_THREAD).unwrap();
    let executable = instantiate(graph);
    check(unsafe { cuGraphLaunch(executable, PER_THREAD) });
    check(unsafe { cuGraphLaunch(executable, PER_THREAD) });
    assert_eq!(first(&card, before), 1);
    let with = free(&card);
    check(unsafe { cuGraphDestroy(graph) });
    check(unsafe { cuGraphExecDestroy(executable) });
    check(unsafe { cuCtxSynchronize() });
    assert_eq!(free(&card), with + (2 << 20));
    // Other memory cannot be freed in a capture.
    begin(PER_THREAD);
    let freed = unsafe { cuMemFreeAsync(before, PER_THREAD) };
    assert_eq!(freed, CuResult::ERROR_INVALID_VALUE);
    end(PER_THREAD).unwrap_err();
    assert_eq!(first(&card, before), 1);
}
