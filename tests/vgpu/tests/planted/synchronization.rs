//! Barriers and masks that not all threads come to.

use vgpu::fault::What;

use crate::common::{Program, kernel};
use crate::{INDEX, fault_of, line_of};

#[test]
fn a_barrier_that_not_all_threads_reach_is_divergence() {
    // Within a warp.
    let (fault, _, text) = fault_of("setp.lt.u32 %p1, %r4, 16;\n@!%p1 bra L;\nbar.sync 0;\nL:");
    assert!(
        matches!(&fault.what, What::BarrierDivergence(what) if what.contains("thread 16 does not")),
        "{fault}"
    );
    assert_eq!(fault.place.unwrap().line, line_of(&text, "bar.sync", 0));
    // Between warps: one ends, the other waits.
    let body = format!("{INDEX}setp.lt.u32 %p1, %r4, 32;\n@%p1 bra L;\nbar.sync 0;\nL:");
    let fault = Program::new(&kernel(&[".u64 a"], &body))
        .launch("k", [1, 1, 1], [64, 1, 1], 0, &[0])
        .unwrap_err();
    assert!(
        matches!(&fault.what, What::BarrierDivergence(what) if what.contains("thread 0 has ended")),
        "{fault}"
    );
}

#[test]
fn masks_must_name_the_lanes_that_come() {
    let (fault, ..) = fault_of(
        "setp.lt.u32 %p1, %r4, 16;\n@!%p1 bra L;\nshfl.sync.down.b32 %r5, %r4, 1, 31, -1;\nL:",
    );
    assert!(matches!(fault.what, What::WarpDivergence(_)), "{fault}");
    let (fault, ..) = fault_of(
        "setp.lt.u32 %p1, %r4, 16;\n@!%p1 bra L;\nshfl.sync.down.b32 %r5, %r4, 1, 31, 65535;\nL:",
    );
    assert_eq!(fault.what, What::InactiveLane(16));
}
