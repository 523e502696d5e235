//! What lanes, warps and blocks do together: shuffles, votes, barriers, branches, calls, atomics.

mod common;

use common::{Program, kernel};

/// What each of `threads` threads leaves in `%d` (32 bits); `%r1` is its number.
fn run(threads: u32, body: &str) -> Vec<u32> {
    let text = format!(
        ".reg .b32 %d;\n.reg .pred %q;\n.shared .align 8 .b8 s[64];\nmov.u32 %r1, %tid.x;\n{body}\n\
         ld.param.u64 %rd1, [out];\nmad.wide.u32 %rd1, %r1, 4, %rd1;\nst.global.u32 [%rd1], %d;"
    );
    let program = Program::new(&kernel(&[".u64 out"], &text));
    let out = program.room::<u32>(threads as usize);
    program.run("k", 1, threads, &[out]);
    program.get(out, threads as usize)
}

fn each(threads: u32, f: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..threads).map(f).collect()
}

#[test]
fn shuffles_follow_the_isas_pseudocode() {
    // Value, lane or delta, c (clamp in bits 0..5, segment mask in bits 8..13).
    let shuffle = |mode: &str, b: u32, c: u32| {
        run(
            32,
            &format!(
                "mul.lo.u32 %r2, %r1, 10;\nshfl.sync.{mode}.b32 %d|%q, %r2, {b}, {c}, -1;\n@!%q add.u32 %d, %d, 1000;"
            ),
        )
    };
    let reference = |mode: &str, b: i32, c: i32| {
        each(32, |lane| {
            let (lane, mask, clamp) = (lane as i32, c >> 8 & 31, c & 31);
            let (max, min) = ((lane & mask) | (clamp & !mask), lane & mask);
            let (j, ok) = match mode {
                "up" => (lane - b, lane - b >= max),
                "down" => (lane + b, lane + b <= max),
                "bfly" => (lane ^ b, lane ^ b <= max),
                _ => (min | (b & !mask), (min | (b & !mask)) <= max),
            };
            if ok {
                j as u32 * 10
            } else {
                lane as u32 * 10 + 1000
            }
        })
    };
    for (mode, b, c) in [
        ("up", 1, 0),
        ("up", 5, 0x1800),
        ("down", 3, 31),
        ("down", 2, 0x181f),
        ("bfly", 16, 31),
        ("bfly", 3, 0x1c1f),
        ("idx", 7, 31),
        ("idx", 2, 0x181f),
    ] {
        assert_eq!(
            shuffle(mode, b, c),
            reference(mode, b as i32, c as i32),
            "{mode} {b} {c:#x}"
        );
    }
}

#[test]
fn votes_matches_and_reductions() {
    let odd = "and.b32 %r2, %r1, 1;\nsetp.ne.u32 %p1, %r2, 0;\n";
    assert_eq!(
        run(32, &format!("{odd}vote.sync.ballot.b32 %d, %p1, -1;")),
        [0xaaaa_aaaa; 32]
    );
    let vote = |mode: &str| {
        run(
            32,
            &format!("{odd}vote.sync.{mode}.pred %q, %p1, -1;\nselp.u32 %d, 1, 0, %q;"),
        )[0]
    };
    assert_eq!((vote("all"), vote("any"), vote("uni")), (0, 1, 0));
    // Only the odd lanes ask.
    let odds = format!(
        "{odd}mov.u32 %d, 7;\n@!%p1 bra L;\nvote.sync.all.pred %q, %p1, 0xaaaaaaaa;\nselp.u32 %d, 1, 0, %q;\nL:"
    );
    assert_eq!(run(32, &odds), each(32, |i| if i % 2 == 1 { 1 } else { 7 }));
    let by_three = "rem.u32 %r2, %r1, 3;\nmatch.any.sync.b32 %d, %r2, -1;";
    assert_eq!(
        run(32, by_three),
        each(32, |i| (0..32)
            .filter(|j| j % 3 == i % 3)
            .map(|j| 1 << j)
            .sum())
    );
    let all = "match.all.sync.b32 %d|%q, 5, -1;\n@!%q mov.u32 %d, 0;";
    assert_eq!(run(32, all), [u32::MAX; 32]);
    let differ = "match.all.sync.b32 %d|%q, %r1, -1;\n@%q mov.u32 %d, 1;";
    assert_eq!(run(32, differ), [0; 32]);
    assert_eq!(run(32, "redux.sync.add.s32 %d, %r1, -1;"), [496; 32]);
    assert_eq!(
        run(32, "sub.u32 %r2, %r1, 16;\nredux.sync.min.s32 %d, %r2, -1;"),
        [-16i32 as u32; 32]
    );
    assert_eq!(run(32, "redux.sync.max.u32 %d, %r1, -1;"), [31; 32]);
    assert_eq!(run(32, "redux.sync.xor.b32 %d, %r1, -1;"), [0; 32]);
    assert_eq!(run(20, "activemask.b32 %d;"), [0xf_ffff; 20]);
}

#[test]
fn special_registers() {
    assert_eq!(run(64, "mov.u32 %d, %laneid;"), each(64, |i| i % 32));
    assert_eq!(run(64, "mov.u32 %d, %warpid;"), each(64, |i| i / 32));
    assert_eq!(
        run(32, "mov.u32 %d, %lanemask_lt;"),
        each(32, |i| ((1u64 << i) - 1) as u32)
    );
    assert_eq!(
        run(32, "mov.u32 %d, %lanemask_ge;"),
        each(32, |i| u32::MAX << i)
    );
    assert_eq!(
        run(
            32,
            "mov.u32 %r2, %clock;\nmov.u32 %r3, %clock;\nsetp.lt.u32 %q, %r2, %r3;\nselp.u32 %d, 1, 0, %q;"
        ),
        [1; 32]
    );
}

#[test]
fn grids_and_blocks_have_three_dimensions() {
    let body = "mov.u32 %r1, %tid.x;\nmov.u32 %r2, %tid.y;\nmov.u32 %r3, %tid.z;\nmov.u32 %r4, %ctaid.x;\n\
        mov.u32 %r5, %ctaid.y;\nmov.u32 %r6, %ctaid.z;\nmov.u32 %r7, %nctaid.x;\nmov.u32 %r8, %nctaid.y;\n\
        mad.lo.u32 %r9, %r6, %r8, %r5;\nmad.lo.u32 %r9, %r9, %r7, %r4;\nmov.u32 %r10, %ntid.z;\nmad.lo.u32 %r9, %r9, %r10, %r3;\n\
        mov.u32 %r10, %ntid.y;\nmad.lo.u32 %r9, %r9, %r10, %r2;\nmov.u32 %r10, %ntid.x;\nmad.lo.u32 %r9, %r9, %r10, %r1;\n\
        ld.param.u64 %rd1, [out];\nmad.wide.u32 %rd1, %r9, 4, %rd1;\nst.global.u32 [%rd1], %r9;";
    let program = Program::new(&kernel(&[".u64 out"], body));
    let count = 2 * 3 * 4 * 5 * 3 * 2;
    let out = program.room::<u32>(count);
    program
        .launch("k", [2, 3, 4], [5, 3, 2], 0, &[out])
        .unwrap();
    assert_eq!(program.get::<u32>(out, count), each(count as u32, |i| i));
}

#[test]
fn nested_branches_and_loops_reconverge() {
    // Each lane loops a number of times of its own; inside, even counts take another way; all lanes vote after.
    let body = "mov.u32 %d, 0;\nmov.u32 %r2, 0;\nLOOP:\nsetp.ge.u32 %p1, %r2, %r1;\n@%p1 bra DONE;\nand.b32 %r3, %r2, 1;\n\
        setp.eq.u32 %p2, %r3, 0;\n@%p2 bra EVEN;\nadd.u32 %d, %d, 100;\nbra.uni NEXT;\nEVEN:\nadd.u32 %d, %d, 1;\nNEXT:\n\
        add.u32 %r2, %r2, 1;\nbra.uni LOOP;\nDONE:\nactivemask.b32 %r4;\nsetp.ne.u32 %p3, %r4, -1;\n@%p3 mov.u32 %d, 9999;";
    assert_eq!(run(32, body), each(32, |i| i.div_ceil(2) + i / 2 * 100));
}

#[test]
fn branch_tables_take_each_lane_its_way() {
    let body = "rem.u32 %r2, %r1, 3;\nT: .branchtargets A, B, C;\nbrx.idx %r2, T;\nA:\nmov.u32 %d, 10;\nbra.uni E;\n\
        B:\nmov.u32 %d, 20;\nbra.uni E;\nC:\nmov.u32 %d, 30;\nE:\nadd.u32 %d, %d, %r1;";
    assert_eq!(run(32, body), each(32, |i| (i % 3 + 1) * 10 + i));
}

#[test]
fn lanes_that_end_early_do_not_hold_up_the_others() {
    let body = "ld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nmad.wide.u32 %rd1, %r1, 4, %rd1;\nst.global.u32 [%rd1], 1;\n\
        and.b32 %r2, %r1, 1;\nsetp.eq.u32 %p1, %r2, 0;\n@%p1 exit;\nst.global.u32 [%rd1], 2;\nsetp.gt.u32 %p1, %r1, 8;\n@%p1 ret;\n\
        st.global.u32 [%rd1], 3;";
    let program = Program::new(&kernel(&[".u64 out"], body));
    let out = program.room::<u32>(32);
    program.run("k", 1, 32, &[out]);
    let expected = each(32, |i| {
        if i % 2 == 0 {
            1
        } else if i > 8 {
            2
        } else {
            3
        }
    });
    assert_eq!(program.get::<u32>(out, 32), expected);
}

#[test]
fn recursion_keeps_registers_and_local_memory_apart() {
    let text = ".version 9.0\n.target sm_80\n.address_size 64\n\
        .func (.param .b32 r) sum(.param .b32 n) {\n.reg .b32 %r<5>; .reg .pred %p;\nld.param.b32 %r1, [n];\nmov.u32 %r2, 0;\n\
        setp.eq.u32 %p, %r1, 0;\n@%p bra L;\nsub.u32 %r3, %r1, 1;\n{ .param .b32 x; .param .b32 y; st.param.b32 [x], %r3;\n\
        call.uni (y), sum, (x);\nld.param.b32 %r2, [y]; }\nadd.u32 %r2, %r2, %r1;\nL:\nst.param.b32 [r], %r2;\nret;\n}\n\
        .visible .entry k(.param .u64 out) {\n.reg .b32 %r<4>; .reg .b64 %rd<4>;\nmov.u32 %r1, %tid.x;\n\
        { .param .b32 x; .param .b32 y; st.param.b32 [x], %r1;\ncall.uni (y), sum, (x);\nld.param.b32 %r2, [y]; }\n\
        ld.param.u64 %rd1, [out];\nmad.wide.u32 %rd1, %r1, 4, %rd1;\nst.global.u32 [%rd1], %r2;\nret;\n}\n";
    let program = Program::new(text);
    let out = program.room::<u32>(32);
    program.run("k", 1, 32, &[out]);
    assert_eq!(program.get::<u32>(out, 32), each(32, |i| i * (i + 1) / 2));
}

#[test]
fn barriers_with_votes_and_with_some_warps() {
    let count = "setp.lt.u32 %p1, %r1, 37;\nbar.red.popc.u32 %d, 0, %p1;";
    assert_eq!(run(96, count), [37; 96]);
    let any = "setp.eq.u32 %p1, %r1, 70;\nbar.red.or.pred %q, 0, %p1;\nselp.u32 %d, 1, 0, %q;";
    assert_eq!(run(96, any), [1; 96]);
    let all = "setp.ne.u32 %p1, %r1, 70;\nbar.red.and.pred %q, 0, %p1;\nselp.u32 %d, 1, 0, %q;";
    assert_eq!(run(96, all), [0; 96]);
    // Warp 0 hands a value to warp 1 over barrier 3 of 64 threads; warp 2 is not asked.
    let hand = "mov.u32 %r2, s;\nmov.u32 %d, 0;\nsetp.ge.u32 %p1, %r1, 64;\n@%p1 bra E;\nsetp.ge.u32 %p2, %r1, 32;\n@%p2 bra W;\n\
        setp.eq.u32 %p3, %r1, 0;\n@%p3 st.shared.u32 [%r2], 55;\nbar.arrive 3, 64;\nbra.uni E;\nW:\nbar.sync 3, 64;\n\
        ld.shared.u32 %d, [%r2];\nE:";
    assert_eq!(
        run(96, hand),
        each(96, |i| if (32..64).contains(&i) { 55 } else { 0 })
    );
}

#[test]
fn atomics_give_what_was_there() {
    let shared = "mov.u32 %r2, s;\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 st.shared.u32 [%r2], 0;\nbar.sync 0;\n\
        atom.shared.add.u32 %r3, [%r2], 1;\nbar.sync 0;\nld.shared.u32 %d, [%r2];";
    assert_eq!(run(64, shared), [64; 64]);
    let program = |operation: &str, ty: &str, start: u64, operands: &str| {
        let body = format!(
            "ld.param.u64 %rd1, [out];\n.reg .b64 %old;\n.reg .b32 %old32;\n.reg .b16 %old16;\natom.global.{operation}.{ty} {}, [%rd1], {operands};",
            match ty {
                "u64" | "b64" | "s64" | "f64" => "%old",
                "f16" | "bf16" | "b16" => "%old16",
                _ => "%old32",
            }
        );
        let program = Program::new(&kernel(&[".u64 out"], &body));
        let out = program.put(&[start]);
        program.run("k", 1, 1, &[out]);
        program.get::<u64>(out, 1)[0]
    };
    assert_eq!(program("add", "u64", u64::MAX, "2"), 1);
    assert_eq!(program("min", "s32", 5, "-3"), 0xffff_fffd);
    assert_eq!(program("max", "u32", 5, "-3"), 0xffff_fffd);
    assert_eq!(program("exch", "b32", 5, "9"), 9);
    assert_eq!(program("cas", "b64", 5, "5, 11"), 11);
    assert_eq!(program("cas", "b32", 5, "6, 11"), 5);
    assert_eq!(program("inc", "u32", 5, "5"), 0);
    assert_eq!(program("inc", "u32", 4, "5"), 5);
    assert_eq!(program("dec", "u32", 0, "5"), 5);
    assert_eq!(program("dec", "u32", 9, "5"), 5);
    assert_eq!(program("dec", "u32", 3, "5"), 2);
    assert_eq!(program("and", "b32", 12, "10"), 8);
    assert_eq!(program("xor", "b64", 12, "10"), 6);
    assert_eq!(
        program("add", "f32", 1.5f32.to_bits().into(), "0f40000000"),
        3.5f32.to_bits().into()
    );
    assert_eq!(
        program("add", "f64", 1.5f64.to_bits(), "0d4000000000000000"),
        3.5f64.to_bits()
    );
    assert_eq!(
        program("add.noftz", "f16x2", 0x3c00_4000, "0x3c003c00"),
        0x4000_4200
    );
}

#[test]
fn what_is_not_executed_or_not_of_the_target_is_refused_by_name_and_line() {
    for name in [
        "wgmma.fence.sync.aligned",
        "mbarrier.arrive_drop.shared.b64 %rd1, [%r1]",
        "mbarrier.try_wait.shared.b64 %p1, [%r1], %rd1",
        "elect.sync _|%p1, -1",
        "barrier.cluster.arrive",
        "cp.async.bulk.commit_group",
        "fence.proxy.async",
        "tcgen05.fence",
        "add.rn.f32.unheard",
        "setmaxnreg.inc.sync.aligned.u32 232",
    ] {
        let text = kernel(&[], &format!("{name};"));
        let Err(error) = vgpu::ptx::parse(&text) else {
            panic!("`{name}` was taken")
        };
        let mnemonic = name.split(' ').next().unwrap();
        assert!(error.what.contains(mnemonic), "{error}");
        assert_eq!(
            error.line as usize,
            text.lines()
                .position(|line| line.contains(mnemonic))
                .unwrap()
                + 1
        );
    }
}
