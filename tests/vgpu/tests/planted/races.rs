//! Races between lanes, warps and blocks.

use vgpu::fault::What;

use crate::common::{Program, kernel};
use crate::{INDEX, PROGRAMS, fault_of, line_of, without};

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
