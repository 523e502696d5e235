//! Order of the card's work: a program that waits for everything gets the same results in every order. Planted faults,
//! operations that nothing orders, are found and named.

mod graphs;
mod host;
mod lifetimes;
mod packets;
mod pinned;
mod streams;
mod waiting;

#[path = "../on_card/mod.rs"]
mod on_card;

use on_card::{OnCard, check, on};
use vgpu::driver::allocation::cuMemAllocAsync;
use vgpu::driver::context::cuCtxSynchronize;
use vgpu::driver::copy::*;
use vgpu::driver::event::*;
use vgpu::driver::result::CuResult;
use vgpu::driver::stream::*;

const ORDERS: [&str; 6] = [
    "eager", "late", "random:1", "random:2", "random:3", "random:4",
];
/// Orders that defer work.
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

#[track_caller]
fn check_lost(result: CuResult) {
    let lost = [
        CuResult::ERROR_LAUNCH_FAILED,
        CuResult::ERROR_ILLEGAL_ADDRESS,
    ];
    assert!(lost.contains(&result), "{result:?}");
}

/// The call succeeded, or found the fault itself, as it does in the eager order.
fn check_or_lost(result: CuResult) {
    assert!([CuResult::SUCCESS, CuResult::ERROR_LAUNCH_FAILED].contains(&result));
}

/// The context is lost, and the fault contains every one of `words`.
#[track_caller]
fn assert_found(card: &OnCard, words: &[&str]) {
    check_lost(unsafe { cuCtxSynchronize() });
    let fault = card.last_fault();
    for word in words {
        assert!(fault.contains(word), "no `{word}` in: {fault}");
    }
}
