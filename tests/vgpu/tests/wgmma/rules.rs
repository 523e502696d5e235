//! Fences, waits and descriptors that the ISA asks for, and what breaks its rules.

use vgpu::fault::{Fault, What};

use crate::common::kernel_for;
use crate::layout::Layout;
use crate::{B_START, COMMIT, FENCE, KINDS, SHARED, WAIT, image, registers, run_kernel};

/// A product of two 128-byte swizzled operands, `%d` of 32 columns, with what stands around it.
fn product(before: &str, after: &str) -> Result<Vec<f32>, Fault> {
    let layout = Layout::new(false, 3, 2, 64);
    let work = format!(
        "mov.b64 %rd5, {};\nmov.b64 %rd6, {};\n{before}{}{after}",
        layout.descriptor(0),
        layout.descriptor(B_START),
        mma("%rd5", "%rd6"),
    );
    run_kernel(&image(KINDS[0], &layout, &layout, 32), &[0; 512], 16, &work)
}

fn mma(a: &str, b: &str) -> String {
    let d = registers("d", 16);
    format!(
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {d}, {a}, {b}, %p7, 1, 1, 0, 0;\n"
    )
}

fn what(before: &str, after: &str) -> What {
    product(before, after).expect_err("a fault").what
}

fn text(what: What) -> String {
    match what {
        What::Wgmma(text) => text,
        other => panic!("{other}"),
    }
}

#[test]
fn products_in_one_group_follow_each_other_without_waiting() {
    let once = product(FENCE, &format!("{COMMIT}{WAIT}")).unwrap();
    let twice = product(FENCE, &format!("{}{COMMIT}{WAIT}", mma("%rd5", "%rd6"))).unwrap();
    for (once, twice) in once.iter().zip(twice) {
        assert_eq!(2.0 * (once - 2.0), twice - 2.0);
    }
}

#[test]
fn results_may_not_be_read_before_they_were_waited_for() {
    let shown = text(what(FENCE, COMMIT));
    assert!(
        shown.contains("result") && shown.contains("before it was waited for"),
        "{shown}"
    );
    // A wait that leaves the last group under way is none; nor is one without a commit.
    text(what(
        FENCE,
        &format!("{COMMIT}wgmma.wait_group.sync.aligned 1;\n"),
    ));
    text(what(FENCE, WAIT));
    text(what(FENCE, "mov.f32 %d3, 0f00000000;\n"));
}

#[test]
fn registers_are_fenced_before_a_product_uses_them() {
    assert!(text(what("", &format!("{COMMIT}{WAIT}"))).contains("no `wgmma.fence`"));
    let touched = format!("{FENCE}mov.f32 %d3, 0f00000000;\n");
    assert!(
        text(what(&touched, &format!("{COMMIT}{WAIT}"))).contains("since the last `wgmma.fence`")
    );
}

#[test]
fn products_of_another_shape_wait_for_their_registers() {
    let other = format!(
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {}, %rd5, %rd6, %p7, 1, 1, 0, 0;\n",
        registers("d", 8)
    );
    assert!(text(what(FENCE, &format!("{other}{COMMIT}{WAIT}"))).contains("another shape"));
    product(
        FENCE,
        &format!("{COMMIT}{WAIT}{FENCE}{other}{COMMIT}{WAIT}"),
    )
    .unwrap();
}

#[test]
fn operands_are_not_written_while_they_are_read() {
    let write = "setp.eq.u32 %p5, %r1, 0;\n@%p5 st.shared.u32 [%r2+16], 0;\n";
    let early = what(FENCE, &format!("{COMMIT}{write}{WAIT}"));
    assert!(matches!(
        early,
        What::StillRead {
            reader: "`wgmma.mma_async`",
            ..
        }
    ));
    // Even after the wait the other warps may not be done.
    let alone = what(
        FENCE,
        &format!("{COMMIT}{WAIT}setp.eq.u32 %p5, %r1, 0;\n@%p5 st.shared.u32 [%r2+32768], 0;\n"),
    );
    assert!(
        matches!(alone, What::StillRead { .. } | What::SharedRace { .. }),
        "{alone}"
    );
    let after = format!("{COMMIT}{WAIT}bar.sync 0;\n{write}");
    product(FENCE, &after).unwrap();
}

#[test]
fn the_async_proxy_must_see_the_operands() {
    let late = format!("st.shared.u32 [%r2+49152], 0;\nbar.sync 0;\n{FENCE}");
    product(&late, &format!("{COMMIT}{WAIT}")).expect("no operand lies there");
    let late =
        format!("setp.eq.u32 %p5, %r1, 5;\n@%p5 st.shared.u32 [%r2], 0;\nbar.sync 0;\n{FENCE}");
    let hidden = what(&late, &format!("{COMMIT}{WAIT}"));
    assert!(
        matches!(hidden, What::NoProxyFence { thread: 5, .. }),
        "{hidden}"
    );
}

#[test]
fn descriptors_must_lie_in_shared_memory_and_start_their_swizzle() {
    let far = format!(
        "add.u64 %rd6, %rd6, {};\n{FENCE}",
        (SHARED - 2048 - B_START) / 16
    );
    assert!(matches!(
        what(&far, &format!("{COMMIT}{WAIT}")),
        What::SharedBounds { .. }
    ));
    let between = format!("add.u64 %rd6, %rd6, {};\n{FENCE}", 128 / 16);
    assert!(matches!(what(&between, ""), What::Undefined(text) if text.contains("base offset")));
}

#[test]
fn a_warpgroup_executes_the_same_products() {
    let skip = format!("{FENCE}setp.ge.u32 %p5, %r1, 96;\n@%p5 bra SKIP;\n");
    let after = format!("SKIP:\n{COMMIT}{WAIT}");
    assert!(text(what(&skip, &after)).contains("same `wgmma`"));
    let lanes = format!("setp.eq.u32 %p5, %r1, 3;\n@%p5 add.u64 %rd6, %rd6, 2;\n{FENCE}");
    let shown = text(what(&lanes, &format!("{COMMIT}{WAIT}")));
    assert!(shown.contains("different descriptors"), "{shown}");
}

#[test]
fn a_product_is_waited_for_before_its_warp_ends() {
    let work = format!("{COMMIT}ret;\n");
    assert!(text(what(FENCE, &work)).contains("ends before"));
}

#[test]
fn wgmma_needs_its_target() {
    let body = "wgmma.fence.sync.aligned;\n";
    for target in ["sm_80", "sm_90"] {
        let error = vgpu::ptx::parse(&kernel_for(target, &[], body))
            .err()
            .unwrap();
        assert!(error.to_string().contains("sm_90a"), "{error}");
    }
    assert!(vgpu::ptx::parse(&kernel_for("sm_90a", &[], body)).is_ok());
    for refused in [
        "wgmma.mma_async.sync.aligned.m64n8k32.s32.s8.s8 {%r1, %r2, %r3, %r4}, %rd1, %rd2, %p1;",
        "wgmma.mma_async.sync.aligned.m64n8k16.f16.f16.f16 {%r1, %r2}, %rd1, %rd2, %p1, 1, 1, 0, 0;",
        "wgmma.mma_async.sp.sync.aligned.m64n8k32.f32.bf16.bf16 {%r1, %r2, %r3, %r4}, %rd1, %rd2, %r5, 0, %p1, 1, 1, 0, 0;",
        "barrier.cluster.arrive.aligned;",
        "mapa.shared::cluster.u32 %r1, %r2, 1;",
        "mbarrier.arrive_drop.shared::cta.b64 %rd1, [%r1];",
    ] {
        let error = vgpu::ptx::parse(&kernel_for("sm_90a", &[], refused)).err();
        assert!(error.is_some(), "{refused}");
    }
}
