//! Planted bugs: each is caught, and named with kernel, line, block, thread and address.

mod common;

use common::{Program, kernel};
use vgpu::fault::{Fault, What};

const PROGRAMS: &str = include_str!("fixtures/programs.ptx");
const TENSOR_CORE: &str = include_str!("fixtures/tensor_core.ptx");

/// Index of this thread in `%r1`, its address in the first buffer in `%rd1`.
const INDEX: &str = "mov.u32 %r2, %ctaid.x;\nmov.u32 %r3, %ntid.x;\nmov.u32 %r4, %tid.x;\n\
    mad.lo.u32 %r1, %r2, %r3, %r4;\nld.param.u64 %rd9, [a];\nmad.wide.u32 %rd1, %r1, 4, %rd9;\n";

/// The line, from 1, of the `nth` time (from 0) that `part` stands in `text`.
fn line_of(text: &str, part: &str, nth: usize) -> u32 {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.contains(part))
        .nth(nth)
        .unwrap()
        .0 as u32
        + 1
}

/// The text without what stands on a line.
fn without(text: &str, line: u32) -> String {
    let keep = |(i, text): (usize, &str)| {
        if i as u32 + 1 == line {
            String::new()
        } else {
            text.to_string()
        }
    };
    text.lines()
        .enumerate()
        .map(keep)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What `body` does wrong with a buffer of 64 words, in two blocks of 32 threads.
fn fault_of(body: &str) -> (Fault, u64, String) {
    let text = kernel(
        &[".u64 a"],
        &format!(".shared .align 16 .b8 s[256];\n{INDEX}{body}"),
    );
    let program = Program::new(&text);
    let a = program.put(&[7u32; 64]);
    let fault = program
        .launch("k", [2, 1, 1], [32, 1, 1], 0, &[a])
        .expect_err("a fault");
    (fault, a, text)
}

#[test]
fn an_index_one_too_far_is_out_of_bounds() {
    let (fault, a, text) = fault_of("st.global.u32 [%rd1+4], %r1;");
    let place = fault.place.clone().unwrap();
    assert_eq!(
        fault.what,
        What::OutOfBounds {
            bytes: 4,
            offset: 256,
            size: 256
        }
    );
    assert_eq!(fault.address, Some(a + 256));
    assert_eq!(
        (place.kernel.as_str(), place.block, place.thread),
        ("k", [1, 0, 0], [31, 0, 0])
    );
    assert_eq!(place.line, line_of(&text, "st.global", 0));
    let shown = fault.to_string();
    assert!(
        shown.contains("256 of an allocation of 256 bytes") && shown.contains("thread (31,0,0)"),
        "{shown}"
    );
}

#[test]
fn an_index_below_zero_is_out_of_bounds() {
    let (fault, a, _) = fault_of("ld.global.u32 %r5, [%rd1-4];");
    assert_eq!(
        fault.what,
        What::OutOfBounds {
            bytes: 4,
            offset: -4,
            size: 256
        }
    );
    assert_eq!(fault.address, Some(a - 4));
}

#[test]
fn a_null_pointer_is_unmapped() {
    let (fault, ..) = fault_of("mov.u64 %rd2, 0;\nld.global.u32 %r5, [%rd2+16];");
    assert_eq!(
        (fault.what, fault.address),
        (What::Unmapped { bytes: 4 }, Some(16))
    );
}

#[test]
fn memory_that_was_freed_is_named_so() {
    let program = Program::new(&kernel(
        &[".u64 a"],
        &format!("{INDEX}ld.global.u32 %r5, [%rd1];"),
    ));
    let a = program.put(&[7u32; 64]);
    program.memory.free(a).unwrap();
    let later = program.put(&[1u32; 64]);
    assert_ne!(a, later, "addresses are not used twice");
    let fault = program
        .launch("k", [2, 1, 1], [32, 1, 1], 0, &[a])
        .unwrap_err();
    assert_eq!(
        (fault.what, fault.address),
        (
            What::Freed {
                bytes: 4,
                by: "the host".into()
            },
            Some(a)
        )
    );
}

#[test]
fn a_vector_access_must_be_aligned_as_a_whole() {
    let (fault, a, _) = fault_of("ld.global.v4.u32 {%r5, %r6, %r7, %r8}, [%rd9+8];");
    assert_eq!(
        (fault.what, fault.address),
        (What::Misaligned { bytes: 16 }, Some(a + 8))
    );
}

#[test]
fn an_unwritten_output_is_found_when_it_is_read() {
    // Thread 40 leaves its element out.
    let body = format!("{INDEX}setp.eq.u32 %p1, %r1, 40;\n@!%p1 st.global.u32 [%rd1], %r1;");
    let program = Program::new(&kernel(&[".u64 a"], &body));
    let a = program.room::<u32>(64);
    program.run("k", 2, 32, &[a]);
    let fault = program.memory.copy_out(a, &mut [0; 256]).unwrap_err();
    assert_eq!(
        (fault.what, fault.address),
        (What::NeverWritten { space: "global" }, Some(a + 160))
    );
    let reader = Program::new(&kernel(
        &[".u64 a"],
        &format!("{INDEX}ld.global.u32 %r5, [%rd1];"),
    ));
    let fault = reader
        .launch("k", [1, 1, 1], [32, 1, 1], 0, &[reader.room::<u32>(32)])
        .unwrap_err();
    assert_eq!(fault.what, What::NeverWritten { space: "global" });
}

#[test]
fn shared_and_local_memory_are_checked_too() {
    let (fault, ..) = fault_of("mov.u32 %r5, s;\nld.shared.u32 %r6, [%r5];");
    assert_eq!(fault.what, What::NeverWritten { space: "shared" });
    let (fault, ..) = fault_of("mov.u32 %r5, s;\nst.shared.u32 [%r5+256], %r6;");
    assert_eq!(
        fault.what,
        What::SharedBounds {
            bytes: 4,
            size: 256
        }
    );
    let (fault, ..) =
        fault_of(".local .align 4 .b8 l[16];\nmov.u64 %rd3, l;\nld.local.u32 %r6, [%rd3];");
    assert_eq!(fault.what, What::NeverWritten { space: "local" });
    let (fault, ..) =
        fault_of(".local .align 4 .b8 l[16];\nmov.u64 %rd3, l;\nst.local.u32 [%rd3+16], %r6;");
    assert_eq!(
        fault.what,
        What::OwnBounds {
            bytes: 4,
            size: 16,
            space: "local"
        }
    );
}

#[test]
fn each_missing_barrier_of_the_matmul_is_a_race() {
    let n = 32;
    let kernel_at = line_of(PROGRAMS, ".entry matmul_tiled", 0);
    let barriers: Vec<u32> = (0..9)
        .map(|nth| line_of(PROGRAMS, "bar.sync", nth))
        .filter(|&line| line > kernel_at)
        .take(2)
        .collect();
    for (barrier, this) in barriers.into_iter().zip(["read", "write"]) {
        let program = Program::new(&without(PROGRAMS, barrier));
        let a = program.put(&vec![1.5f32; n * n]);
        let c = program.room::<f32>(n * n);
        let fault = program
            .launch(
                "matmul_tiled",
                [2, 2, 1],
                [16, 16, 1],
                0,
                &[a, a, c, n as u64],
            )
            .unwrap_err();
        let place = fault.place.clone().unwrap();
        match &fault.what {
            What::SharedRace { line, .. } => assert!(*line > kernel_at, "{fault}"),
            // Without the first barrier, a warp reads what the others have not even written.
            What::NeverWritten { space: "shared" } => assert_eq!(this, "read"),
            other => panic!("{other:?}"),
        }
        assert!(place.kernel == "matmul_tiled" && place.line > kernel_at);
    }
}

#[test]
fn lanes_of_a_warp_race_without_a_warp_barrier() {
    let exchange = |between: &str| {
        format!(
            "mov.u32 %r5, s;\nmad.lo.u32 %r6, %r4, 4, %r5;\nst.shared.u32 [%r6], %r4;\n{between}\n\
             xor.b32 %r7, %r4, 1;\nmad.lo.u32 %r7, %r7, 4, %r5;\nld.shared.u32 %r8, [%r7];"
        )
    };
    let (fault, _, text) = fault_of(&exchange(""));
    let line = line_of(&text, "st.shared", 0);
    assert_eq!(
        fault.what,
        What::SharedRace {
            this: "read",
            other: "written",
            thread: 1,
            line
        }
    );
    let text = kernel(
        &[".u64 a"],
        &format!(
            ".shared .b8 s[128];\n{INDEX}{}",
            exchange("bar.warp.sync -1;")
        ),
    );
    Program::new(&text).run("k", 2, 32, &[0]);
}

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
fn blocks_that_write_one_word_race_unless_atomically() {
    let (fault, a, _) = fault_of("st.global.u32 [%rd9], %r2;");
    assert!(
        matches!(
            fault.what,
            What::GlobalRace {
                this: "write",
                other: "written",
                ..
            }
        ),
        "{fault}"
    );
    assert_eq!(fault.address, Some(a));
    let (fault, ..) = fault_of(
        "setp.eq.u32 %p1, %r1, 0;\n@%p1 st.global.u32 [%rd9], 9;\nsetp.eq.u32 %p2, %r1, 32;\n@%p2 ld.global.u32 %r5, [%rd9];",
    );
    assert!(matches!(fault.what, What::GlobalRace { .. }), "{fault}");
    let program = Program::new(&kernel(
        &[".u64 a"],
        &format!("{INDEX}red.global.add.u32 [%rd9], 1;"),
    ));
    let a = program.put(&[0u32]);
    program.run("k", 2, 32, &[a]);
    assert_eq!(program.get::<u32>(a, 1), [64]);
}

#[test]
fn a_missing_fence_is_a_race_between_blocks() {
    let program = Program::new(&without(PROGRAMS, line_of(PROGRAMS, "membar.gl", 0)));
    let x = program.put(&vec![1f32; 1000]);
    let (partial, done, sum) = (
        program.room::<f32>(8),
        program.put(&[0u32]),
        program.room::<f32>(1),
    );
    let fault = program.launch(
        "reduce_last_block",
        [8, 1, 1],
        [128, 1, 1],
        0,
        &[x, partial, done, sum, 1000],
    );
    assert!(matches!(
        fault.unwrap_err().what,
        What::GlobalRace {
            this: "read",
            other: "written",
            ..
        }
    ));
}

#[test]
fn tiles_that_cp_async_still_fills_may_not_be_read() {
    let waits = |text: &str| {
        (0..2).fold(text.to_string(), |t, i| {
            t.replace(&format!("cp.async.wait_group {i};"), "")
        })
    };
    let program = Program::new(&waits(TENSOR_CORE));
    let (a, c) = (program.put(&vec![0u16; 16 * 32]), program.room::<f32>(128));
    let fault = program
        .launch("gemm_bf16", [1, 1, 1], [32, 1, 1], 0, &[a, a, c, 8, 32])
        .unwrap_err();
    assert!(
        matches!(fault.what, What::StillCopying { how: "read", .. }),
        "{fault}"
    );
    let line = fault.place.unwrap().line as usize;
    assert!(
        TENSOR_CORE
            .lines()
            .nth(line - 1)
            .unwrap()
            .contains("ldmatrix")
    );
}

#[test]
fn waiting_for_too_few_groups_is_caught() {
    let program =
        Program::new(&TENSOR_CORE.replace("cp.async.wait_group 1;", "cp.async.wait_group 2;"));
    let (a, c) = (program.put(&vec![0u16; 16 * 32]), program.room::<f32>(128));
    let fault = program
        .launch("gemm_bf16", [1, 1, 1], [32, 1, 1], 0, &[a, a, c, 8, 32])
        .unwrap_err();
    assert!(matches!(fault.what, What::StillCopying { .. }), "{fault}");
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

#[test]
fn endless_loops_traps_and_assertions_end_the_launch() {
    let text = kernel(
        &[".u64 a"],
        &format!("{INDEX}L:\nadd.u32 %r1, %r1, 1;\nbra.uni L;"),
    );
    let mut program = Program::new(&text);
    program.limits.instructions_per_warp = 1_000_000;
    let fault = program
        .launch("k", [1, 1, 1], [32, 1, 1], 0, &[0])
        .unwrap_err();
    assert_eq!(fault.what, What::Endless(1_000_000));
    let (fault, ..) = fault_of("setp.eq.u32 %p1, %r1, 33;\n@%p1 trap;");
    assert_eq!(
        (fault.what, fault.place.unwrap().thread),
        (What::Trap, [1, 0, 0])
    );
}

#[test]
fn a_fault_of_the_lowest_block_is_reported() {
    let body = format!("{INDEX}setp.ge.u32 %p1, %r2, 3;\n@%p1 trap;");
    let program = Program::new(&kernel(&[".u64 a"], &body));
    for _ in 0..20 {
        let fault = program
            .launch("k", [64, 1, 1], [32, 1, 1], 0, &[0])
            .unwrap_err();
        assert_eq!(fault.place.unwrap().block, [3, 0, 0]);
    }
}

#[test]
fn launches_that_no_card_would_start_are_refused() {
    let program = Program::new(PROGRAMS);
    let refusal = |kernel: &str, grid, block, shared| {
        program
            .launch(kernel, grid, block, shared, &[0, 0])
            .unwrap_err()
            .to_string()
    };
    assert!(
        refusal("scan", [1, 1, 1], [1025, 1, 1], 0)
            .contains("1025 threads in a block, 1024 at most")
    );
    assert!(refusal("scan", [0, 1, 1], [32, 1, 1], 0).contains("empty"));
    assert!(refusal("scan", [1, 70_000, 1], [32, 1, 1], 0).contains("no card has these"));
    assert!(
        refusal("scan", [1, 1, 1], [32, 1, 1], 50_000)
            .contains("50000 bytes of shared memory, 49152 at most")
    );
}

#[test]
fn a_write_after_others_read_is_a_race() {
    let body = |writer: u32| {
        format!(
            "{INDEX}.shared .b8 s[128];\nmov.u32 %r5, s;\nsetp.eq.u32 %p1, %r4, 0;\n@%p1 st.shared.u32 [%r5], 1;\n\
             bar.sync 0;\nld.shared.u32 %r6, [%r5];\nsetp.eq.u32 %p2, %r4, {writer};\n@%p2 st.shared.u32 [%r5], 2;"
        )
    };
    // By a lane of the readers' warp, and by the warp that goes on last (the first to have waited).
    for (threads, writer, reader) in [(32, 5, 31), (64, 5, 32)] {
        let text = kernel(&[".u64 a"], &body(writer));
        let fault = Program::new(&text)
            .launch("k", [1, 1, 1], [threads, 1, 1], 0, &[0])
            .unwrap_err();
        let line = line_of(&text, "ld.shared", 0);
        match fault.what {
            What::SharedRace {
                this: "write",
                other: "read",
                thread,
                line: at,
            } => {
                assert_eq!((thread / 32, at), (reader / 32, line));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fault.place.unwrap().thread, [writer, 0, 0]);
    }
}

#[test]
fn halves_of_a_word_have_their_own_readers_and_writers() {
    let body = |load: u32, store: u32| {
        format!(
            "{INDEX}.shared .b8 s[64];\nmov.u32 %r5, s;\nshl.b32 %r6, %r4, 1;\nadd.u32 %r5, %r5, %r6;\n\
             st.shared.u16 [%r5], %rs1;\nbar.sync 0;\nxor.b32 %r7, %r5, {load};\nld.shared.u16 %rs2, [%r7];\n\
             xor.b32 %r7, %r5, {store};\nadd.u16 %rs2, %rs2, 1;\nst.shared.u16 [%r7], %rs2;"
        )
    };
    let run = |load, store| {
        let body = format!(".reg .u16 %rs<3>;\nmov.u16 %rs1, 7;\n{}", body(load, store));
        Program::new(&kernel(&[".u64 a"], &body)).launch("k", [1, 1, 1], [32, 1, 1], 0, &[0])
    };
    // Each thread reads and writes its own half, or the other half of its word, which nobody else touches.
    run(0, 0).unwrap();
    run(2, 2).unwrap();
    // Reads its neighbour's half, then writes its own, which the neighbour has read.
    assert!(matches!(
        run(2, 0).unwrap_err().what,
        What::SharedRace { .. }
    ));
}
