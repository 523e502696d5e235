//! Operands are read and results written where the ISA says, in every layout and width.

use crate::layout::Layout;
use crate::{B_START, COMMIT, FENCE, KINDS, Kind, WAIT, a, b, image, registers, run_kernel};

/// Row and column of element `i` of a thread's D, "WGMMA .m64nNk16 register fragment layout for accumulator matrix D".
fn d_place(thread: usize, i: usize) -> (usize, usize) {
    let (warp, lane) = (thread / 32, thread % 32);
    (
        16 * warp + lane / 4 + 8 * (i / 2 % 2),
        8 * (i / 4) + 2 * (lane % 4) + i % 2,
    )
}

fn check(
    kind: Kind,
    n: usize,
    bits: [usize; 2],
    major: [bool; 2],
    a_in_registers: bool,
    add: bool,
) {
    let layout_a = Layout::new(major[0], bits[0], kind.bytes, 64);
    let layout_b = Layout::new(major[1], bits[1], kind.bytes, n);
    let words = image(kind, &layout_a, &layout_b, n);
    // "... register fragment layout for matrix A": rows lane / 4 and + 8; columns by element.
    let per = 4 / kind.bytes;
    let fragment: Vec<u32> = (0..128 * 4)
        .map(|i| {
            let (thread, register) = (i / 4, i % 4);
            let row = 16 * (thread / 32) + thread % 32 / 4 + 8 * (register % 2);
            let column = thread % 4 * per + 4 * per * (register / 2);
            (0..per).fold(0, |word, j| {
                word | (kind.bits)(a(row, column + j)) << (8 * kind.bytes * j)
            })
        })
        .collect();
    let first = if a_in_registers {
        registers("a", 4)
    } else {
        "%rd5".into()
    };
    let trans = match (kind.bytes, a_in_registers) {
        (4, _) => String::new(),
        (_, true) => format!(", {}", u32::from(major[1])),
        (_, false) => format!(", {}, {}", u32::from(major[0]), u32::from(major[1])),
    };
    let work = format!(
        "mov.b64 %rd5, {};\nmov.b64 %rd6, {};\nsetp.eq.u32 %p4, 1, {};\n{FENCE}\
         wgmma.mma_async.sync.aligned.m64n{n}k{}.f32.{t}.{t} {}, {first}, %rd6, %p4, -1, 1{trans};\n{COMMIT}{WAIT}",
        layout_a.descriptor(0),
        layout_b.descriptor(B_START),
        u32::from(add),
        kind.k,
        registers("d", n / 2),
        t = kind.name,
    );
    let out = run_kernel(&words, &fragment, n / 2, &work)
        .unwrap_or_else(|fault| panic!("{fault}\n{work}"));
    for (at, &found) in out.iter().enumerate() {
        let (row, column) = d_place(at / (n / 2), at % (n / 2));
        let sum: f32 = (0..kind.k).map(|k| a(row, k) * b(k, column)).sum();
        let wanted = if add { 2.0 - sum } else { -sum };
        assert_eq!(
            found, wanted,
            "{} n {n} swizzles {bits:?} major {major:?} registers {a_in_registers} row {row} column {column}",
            kind.name
        );
    }
}

#[test]
fn operands_and_results_lie_where_the_isa_says() {
    for kind in KINDS {
        for bits in 0..4 {
            check(kind, 64, [bits, 3 - bits], [false; 2], false, true);
            check(kind, 64, [bits, bits], [false; 2], true, false);
        }
    }
    for kind in &KINDS[..2] {
        for bits in 0..4 {
            check(*kind, 128, [bits, 3 - bits], [true, false], false, false);
            check(*kind, 128, [bits, 3 - bits], [false, true], false, true);
            check(*kind, 64, [3 - bits, bits], [true, true], false, true);
            check(*kind, 64, [0, bits], [false, true], true, true);
        }
    }
}

#[test]
fn every_width_is_executed() {
    for n in (8..=256).step_by(8) {
        check(
            KINDS[n / 8 % 3],
            n,
            [3, 3],
            [false; 2],
            n % 16 == 0,
            n % 3 == 0,
        );
    }
}
