//! `mma.sync` and `ldmatrix`: every element is where the PTX ISA's formulas put it.

mod common;

use common::{Program, kernel};
use half::{bf16, f16};

/// Row and column of element `i` of a lane's fragment, as the ISA writes them, "Matrix Fragments for mma...".
type Place = fn(lane: usize, i: usize) -> (usize, usize);

struct Shape {
    name: &'static str,
    k: usize,
    /// Elements of A, B and C of a lane.
    counts: [usize; 3],
    a: Place,
    b: Place,
    c: Place,
}

/// `mma.m16n8k16` with `.f16` or `.bf16`.
const K16: Shape = Shape {
    name: "m16n8k16",
    k: 16,
    counts: [8, 4, 4],
    // row = groupID for ai where 0 <= i < 2 || 4 <= i < 6, else groupID + 8;
    // col = (threadID_in_group * 2) + (i & 0x1) for ai where i < 4, else + 8.
    a: |lane, i| {
        let row = if i < 2 || (4..6).contains(&i) {
            lane >> 2
        } else {
            (lane >> 2) + 8
        };
        let column = if i < 4 {
            (lane % 4) * 2 + (i & 1)
        } else {
            (lane % 4) * 2 + (i & 1) + 8
        };
        (row, column)
    },
    // row = (threadID_in_group * 2) + (i & 0x1) for bi where i < 2, else + 8; col = groupID.
    b: |lane, i| {
        let row = if i < 2 {
            (lane % 4) * 2 + (i & 1)
        } else {
            (lane % 4) * 2 + (i & 1) + 8
        };
        (row, lane >> 2)
    },
    c: C_PLACE,
};

/// row = groupID for ci where i < 2, else groupID + 8; col = (threadID_in_group * 2) + (i & 0x1).
const C_PLACE: Place = |lane, i| {
    (
        if i < 2 { lane >> 2 } else { (lane >> 2) + 8 },
        (lane % 4) * 2 + (i & 1),
    )
};

/// `mma.m16n8k8` with `.f16` or `.bf16`.
const K8: Shape = Shape {
    name: "m16n8k8",
    k: 8,
    counts: [4, 2, 4],
    a: |lane, i| {
        (
            if i < 2 { lane >> 2 } else { (lane >> 2) + 8 },
            (lane % 4) * 2 + (i & 1),
        )
    },
    b: |lane, i| ((lane % 4) * 2 + i, lane >> 2),
    c: C_PLACE,
};

/// `mma.m16n8k8` with `.tf32`.
const K8_TF32: Shape = Shape {
    name: "m16n8k8",
    k: 8,
    counts: [4, 2, 4],
    // row = groupID for a0 and a2, groupID + 8 for a1 and a3; col = threadID_in_group for a0 and a1, + 4 for a2 and a3.
    a: |lane, i| {
        (
            if i % 2 == 0 {
                lane >> 2
            } else {
                (lane >> 2) + 8
            },
            if i < 2 { lane % 4 } else { lane % 4 + 4 },
        )
    },
    b: |lane, i| (if i == 0 { lane % 4 } else { lane % 4 + 4 }, lane >> 2),
    c: C_PLACE,
};

/// `mma.m16n8k4` with `.tf32`.
const K4_TF32: Shape = Shape {
    name: "m16n8k4",
    k: 4,
    counts: [2, 1, 4],
    a: |lane, i| (if i == 0 { lane >> 2 } else { (lane >> 2) + 8 }, lane % 4),
    b: |lane, _| (lane % 4, lane >> 2),
    c: C_PLACE,
};

/// Elements by lane, packed into words.
fn fragment(
    place: Place,
    count: usize,
    element: &dyn Fn(usize, usize) -> u32,
    bits: usize,
) -> Vec<u32> {
    let per = 32 / bits;
    (0..32)
        .flat_map(|lane| {
            (0..count / per).map(move |word| {
                (0..per).fold(0, |value, j| {
                    let (row, column) = place(lane, word * per + j);
                    value | element(row, column) << (bits * j)
                })
            })
        })
        .collect()
}

fn registers(prefix: &str, count: usize) -> String {
    let list: Vec<String> = (0..count).map(|i| format!("%{prefix}{i}")).collect();
    list.join(", ")
}

fn check(shape: &Shape, ty: &str, single: bool, bits: usize, to_bits: fn(f32) -> u32) {
    let (k, [na, nb, nc]) = (shape.k, shape.counts);
    let per = 32 / bits;
    let (wa, wb, wc) = (na / per, nb / per, if single { nc } else { nc / 2 });
    let d = if single { "f32" } else { "f16" };
    let mut body = String::from(".reg .b32 %a<8>, %b<8>, %c<8>;\nmov.u32 %r1, %tid.x;\n");
    for (name, words) in [("a", wa), ("b", wb), ("c", wc)] {
        body += &format!(
            "ld.param.u64 %rd1, [{name}];\nmad.wide.u32 %rd1, %r1, {}, %rd1;\n",
            4 * words
        );
        (0..words).for_each(|i| body += &format!("ld.global.b32 %{name}{i}, [%rd1+{}];\n", 4 * i));
    }
    body += &format!(
        "mma.sync.aligned.{}.row.col.{d}.{ty}.{ty}.{d} {{{c}}}, {{{}}}, {{{}}}, {{{c}}};\n",
        shape.name,
        registers("a", wa),
        registers("b", wb),
        c = registers("c", wc)
    );
    (0..wc).for_each(|i| body += &format!("st.global.b32 [%rd1+{}], %c{i};\n", 4 * i));
    let program = Program::new(&kernel(&[".u64 a", ".u64 b", ".u64 c"], &body));

    let a = |row: usize, column: usize| (row * 3 + column * 5) as f32 % 7.0 - 3.0;
    let b = |row: usize, column: usize| (row * 2 + column * 11) as f32 % 9.0 - 4.0;
    let c = |row: usize, column: usize| (row * 8 + column) as f32;
    let result_bits = if single {
        |x: f32| x.to_bits()
    } else {
        |x: f32| u32::from(f16::from_f32(x).to_bits())
    };
    let pa = program.put(&fragment(shape.a, na, &|r, l| to_bits(a(r, l)), bits));
    let pb = program.put(&fragment(shape.b, nb, &|r, l| to_bits(b(r, l)), bits));
    let c_bits = if single { 32 } else { 16 };
    let pc = program.put(&fragment(shape.c, nc, &|r, l| result_bits(c(r, l)), c_bits));
    program.run("k", 1, 32, &[pa, pb, pc]);
    let product = |row: usize, column: usize| {
        (0..k).map(|i| a(row, i) * b(i, column)).sum::<f32>() + c(row, column)
    };
    let expected = fragment(shape.c, nc, &|r, l| result_bits(product(r, l)), c_bits);
    assert_eq!(
        program.get::<u32>(pc, 32 * wc),
        expected,
        "{} {ty}",
        shape.name
    );
}

#[test]
fn mma_fragments_are_those_of_the_isa() {
    let half = |x: f32| u32::from(f16::from_f32(x).to_bits());
    let brain = |x: f32| u32::from(bf16::from_f32(x).to_bits());
    check(&K16, "f16", true, 16, half);
    check(&K16, "f16", false, 16, half);
    check(&K16, "bf16", true, 16, brain);
    check(&K8, "f16", true, 16, half);
    check(&K8, "f16", false, 16, half);
    check(&K8, "bf16", true, 16, brain);
    check(&K8_TF32, "tf32", true, 32, f32::to_bits);
    check(&K4_TF32, "tf32", true, 32, f32::to_bits);
}

/// Element of matrix `m` at a row and a column.
fn element(m: usize, row: usize, column: usize) -> u16 {
    (m * 64 + row * 8 + column) as u16
}

#[test]
fn ldmatrix_spreads_rows_over_lanes() {
    for (count, transposed) in [
        (1, false),
        (2, false),
        (4, false),
        (1, true),
        (2, true),
        (4, true),
    ] {
        let trans = if transposed { ".trans" } else { "" };
        let mut body = String::from(
            ".shared .align 16 .b8 s[512];\n.reg .b32 %d<4>;\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, s;\n\
             ld.param.u64 %rd1, [in];\nmad.wide.u32 %rd2, %r1, 16, %rd1;\nmad.lo.u32 %r3, %r1, 16, %r2;\n\
             ld.global.v4.b32 {%r4, %r5, %r6, %r7}, [%rd2];\nst.shared.v4.b32 [%r3], {%r4, %r5, %r6, %r7};\nbar.sync 0;\n",
        );
        body += &format!(
            "ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{}}}, [%r3];\nld.param.u64 %rd3, [out];\n\
             mad.wide.u32 %rd3, %r1, {}, %rd3;\n",
            registers("d", count),
            4 * count
        );
        (0..count).for_each(|i| body += &format!("st.global.b32 [%rd3+{}], %d{i};\n", 4 * i));
        let program = Program::new(&kernel(&[".u64 in", ".u64 out"], &body));
        let rows: Vec<u16> = (0..256)
            .map(|i| element(i / 64, i / 8 % 8, i % 8))
            .collect();
        let (from, to) = (program.put(&rows), program.room::<u32>(32 * count));
        program.run("k", 1, 32, &[from, to]);
        // Thread i has elements 2 * (i % 4) and the next of row i / 4 of each matrix.
        let expected: Vec<u32> = (0..32)
            .flat_map(|lane| {
                (0..count).map(move |m| {
                    let at = |row: usize, column: usize| {
                        u32::from(if transposed {
                            element(m, column, row)
                        } else {
                            element(m, row, column)
                        })
                    };
                    at(lane / 4, 2 * (lane % 4)) | at(lane / 4, 2 * (lane % 4) + 1) << 16
                })
            })
            .collect();
        assert_eq!(
            program.get::<u32>(to, 32 * count),
            expected,
            "x{count}{trans}"
        );
    }
}
