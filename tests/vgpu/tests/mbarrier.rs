//! `mbarrier`: phases, what they order, and what is reported when they are used wrongly.

mod common;

use common::{Program, kernel_for};
use vgpu::fault::{Fault, What};

/// `%r1` is the thread, `%r2` its word of shared memory, `%r3` the barrier, `%rd1` its word of the output.
const START: &str = "
.shared .align 8 .b8 bar[8];
.shared .align 4 .b8 s[256];
mov.u32 %r1, %tid.x;
mov.u32 %r4, s;
mad.lo.u32 %r2, %r1, 4, %r4;
mov.u32 %r3, bar;
ld.param.u64 %rd1, [out];
mad.wide.u32 %rd1, %r1, 4, %rd1;
setp.eq.u32 %p1, %r1, 0;
";
const SYNC: &str = "bar.sync 0;\n";

fn init(count: u32) -> String {
    format!("@%p1 mbarrier.init.shared::cta.b64 [%r3], {count};\n")
}

/// Until the phase of this parity is complete; each use needs a name of its own.
fn wait(name: &str, parity: u32) -> String {
    format!(
        "{name}:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], {parity};\n@!%p2 bra {name};\n"
    )
}

const ARRIVE: &str = "mbarrier.arrive.shared::cta.b64 %rd9, [%r3];\n";

/// What two warps put into the output, or the fault.
fn run(body: &str) -> Result<Vec<u32>, Fault> {
    let text = kernel_for("sm_90", &[".u64 out"], &format!("{START}{body}"));
    let program = Program::new(&text);
    let out = program.put(&[0u32; 64]);
    program.launch("k", [1, 1, 1], [64, 1, 1], 0, &[out])?;
    Ok(program.get(out, 64))
}

fn what(body: &str) -> What {
    run(body).expect_err("a fault").what
}

/// Each thread writes its number, and reads what the thread opposite wrote.
fn exchange(between: &str) -> String {
    format!(
        "st.shared.u32 [%r2], %r1;\n{between}\nmov.u32 %r5, 63;\nsub.u32 %r5, %r5, %r1;\nmad.lo.u32 %r5, %r5, 4, %r4;\n\
         ld.shared.u32 %r6, [%r5];\nst.global.u32 [%rd1], %r6;\n"
    )
}

#[test]
fn a_phase_orders_what_came_before_it() {
    let body = init(64) + SYNC + &exchange(&format!("{ARRIVE}{}", wait("W", 0)));
    let expected: Vec<u32> = (0..64).rev().collect();
    assert_eq!(run(&body).unwrap(), expected);
}

#[test]
fn without_waiting_nothing_is_ordered() {
    let body = init(64) + SYNC + "st.shared.u32 [%r2], 0;\n" + SYNC + &exchange(ARRIVE);
    assert!(matches!(what(&body), What::SharedRace { .. }));
    // A relaxed arrival counts, but releases nothing.
    let relaxed = "mbarrier.arrive.relaxed.cta.shared::cta.b64 %rd9, [%r3];\n";
    let body = init(64) + SYNC + &exchange(&format!("{relaxed}{}", wait("W", 0)));
    assert!(matches!(what(&body), What::SharedRace { .. }));
}

#[test]
fn the_phase_before_the_first_counts_as_complete() {
    // A wait for parity 1 is over at once: how producers find all stages empty.
    let body = init(64) + SYNC + &wait("W", 1) + "st.global.u32 [%rd1], 7;\n";
    assert_eq!(run(&body).unwrap(), vec![7; 64]);
}

#[test]
fn parities_alternate_and_arrivals_return_their_phase() {
    let body = init(64)
        + SYNC
        + ARRIVE
        + &wait("W0", 0)
        + ARRIVE
        + "WS:\nmbarrier.test_wait.shared::cta.b64 %p3, [%r3], %rd9;\n@!%p3 bra WS;\n"
        + "mbarrier.test_wait.parity.shared::cta.b64 %p3, [%r3], 0;\n@%p3 st.global.u32 [%rd1], 9;\n"
        + "mbarrier.test_wait.parity.shared::cta.b64 %p3, [%r3], 1;\n@%p3 st.global.u32 [%rd1], 5;\n";
    assert_eq!(run(&body).unwrap(), vec![5; 64]);
}

#[test]
fn one_thread_can_arrive_for_many() {
    let body = init(64)
        + SYNC
        + "@%p1 mbarrier.arrive.shared::cta.b64 _, [%r3], 64;\n"
        + &wait("W", 0)
        + "st.global.u32 [%rd1], 3;\n";
    assert_eq!(run(&body).unwrap(), vec![3; 64]);
}

#[test]
fn bytes_expected_hold_a_phase_open() {
    let expect = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 48;\n";
    let complete = "@%p1 mbarrier.complete_tx.shared::cta.relaxed.cluster.b64 [%r3], 48;\n";
    let end = wait("W", 0) + "st.global.u32 [%rd1], 3;\n";
    let body = init(1) + SYNC + expect + complete + &end;
    assert_eq!(run(&body).unwrap(), vec![3; 64]);
    let What::Deadlock(text) = what(&(init(1) + SYNC + expect + &end)) else {
        panic!("a deadlock was expected")
    };
    assert!(text.contains("1 of 1 arrivals and 48 bytes"), "{text}");
}

#[test]
fn a_wait_that_never_ends_names_its_barrier() {
    let body = init(65) + SYNC + ARRIVE + &wait("W", 0);
    let fault = run(&body).unwrap_err();
    let place = fault.place.clone().unwrap();
    assert_eq!((place.block, place.thread), ([0; 3], [0; 3]));
    assert_eq!(fault.address, Some(0));
    let shown = fault.to_string();
    assert!(
        shown.contains("phase 0 of the mbarrier at 0x0 has 64 of 65 arrivals"),
        "{shown}"
    );
}

#[test]
fn a_wait_can_give_up_before_its_phase_completes() {
    // Thread 32 arrives only after its own wait was in vain.
    let body = init(1)
        + SYNC
        + "setp.ge.u32 %p4, %r1, 32;\n@%p4 bra SECOND;\n"
        + &wait("W", 0)
        + "bra END;\nSECOND:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], 0;\nsetp.eq.u32 %p4, %r1, 32;\n"
        + "@%p4 mbarrier.arrive.shared::cta.b64 _, [%r3];\nEND:\nst.global.u32 [%rd1], 1;\n";
    assert_eq!(run(&body).unwrap(), vec![1; 64]);
}

#[test]
fn more_arrivals_than_expected_are_named() {
    let body = init(1) + SYNC + "@%p1 mbarrier.arrive.shared::cta.b64 %rd9, [%r3], 2;\n";
    assert!(
        matches!(what(&body), What::Undefined(text) if text.contains("arrivals at an mbarrier"))
    );
}

#[test]
fn an_initialisation_must_be_ordered_before_use() {
    let body = init(64) + ARRIVE + &wait("W", 0);
    assert!(matches!(what(&body), What::SharedRace { .. }));
}

#[test]
fn a_barrier_is_no_data_until_it_is_invalidated() {
    let read = "ld.shared.u32 %r6, [%r3];\n";
    let body = init(64) + SYNC + read;
    assert_eq!(what(&body), What::OfBarrier { how: "read" });
    let body = init(64) + SYNC + "@%p1 st.shared.u32 [%r3+4], 1;\n";
    assert_eq!(what(&body), What::OfBarrier { how: "written" });
    let body = init(64) + &init(64);
    assert!(matches!(what(&body), What::OfBarrier { .. }));
    let inval = "@%p1 mbarrier.inval.shared::cta.b64 [%r3];\n@%p1 st.shared.u32 [%r3], 4;\n";
    let body = init(64) + SYNC + inval + SYNC + read + "st.global.u32 [%rd1], %r6;\n";
    assert_eq!(run(&body).unwrap(), vec![4; 64]);
}

#[test]
fn what_is_no_barrier_is_not_waited_for() {
    let body = wait("W", 0);
    assert!(matches!(what(&body), What::Undefined(text) if text.contains("no mbarrier")));
}
