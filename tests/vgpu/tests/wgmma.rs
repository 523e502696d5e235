//! `wgmma.mma_async`: operands lie where the PTX ISA's canonical layouts put them, results where its fragments are.

mod common;

use common::{Program, kernel_for};
use half::{bf16, f16};
use vgpu::fault::{Fault, What};

/// A mode of a canonical layout: extents and strides in bytes, the innermost first.
type Mode = [(usize, usize); 3];

/// An operand in shared memory: rows (of M or N) and K of "Canonical Layouts", strides in bytes, then Swizzle<b,4,3>.
struct Layout {
    rows: Mode,
    k: Mode,
    swizzle_bits: usize,
    leading: usize,
    stride: usize,
}

fn place(mode: &Mode, mut index: usize) -> usize {
    mode.iter()
        .map(|&(extent, stride)| {
            let here = index % extent;
            index /= extent;
            here * stride
        })
        .sum()
}

impl Layout {
    /// By the table of the ISA; `bits` is 0 to 3 for none, 32, 64 and 128 bytes. Strides leave gaps.
    fn new(mn_major: bool, bits: usize, element: usize, rows: usize) -> Self {
        const MANY: usize = usize::MAX;
        let (per, span) = (16 / element, 16 << bits);
        match (mn_major, bits) {
            // ((8,m),(T,2k)):((1T,SBO),(1,LBO))
            (false, 0) => {
                let (leading, stride) = (rows * 16 + 128, 128);
                Self {
                    rows: [(8, 16), (MANY, stride), (1, 0)],
                    k: [(per, element), (MANY, leading), (1, 0)],
                    swizzle_bits: 0,
                    leading,
                    stride,
                }
            }
            // ((8,m),(T,2k)):((S,SBO),(1,T))
            (false, _) => Self {
                rows: [(8, span), (MANY, 8 * span), (1, 0)],
                k: [(per, element), (MANY, 16), (1, 0)],
                swizzle_bits: bits,
                leading: 0,
                stride: 8 * span,
            },
            // ((T,1,m),(8,k)):((1,T,SBO),(1T,LBO))
            (true, 0) => {
                let (leading, stride) = (128, 256 + 16);
                Self {
                    rows: [(per, element), (MANY, stride), (1, 0)],
                    k: [(8, 16), (MANY, leading), (1, 0)],
                    swizzle_bits: 0,
                    leading,
                    stride,
                }
            }
            // ((T,S/16,m),(8,k)):((1,T,LBO),(S,SBO))
            (true, _) => {
                let (leading, stride) = (16 * span, 8 * span);
                Self {
                    rows: [(per, element), (span / 16, 16), (MANY, leading)],
                    k: [(8, span), (MANY, stride), (1, 0)],
                    swizzle_bits: bits,
                    leading,
                    stride,
                }
            }
        }
    }

    fn offset(&self, row: usize, k: usize) -> usize {
        let plain = place(&self.rows, row) + place(&self.k, k);
        plain ^ (plain >> 7 & ((1 << self.swizzle_bits) - 1)) << 4
    }

    fn descriptor(&self, start: usize) -> u64 {
        let mode = [0u64, 3, 2, 1][self.swizzle_bits];
        let field = |bytes: usize| (bytes >> 4 & 0x3fff) as u64;
        field(start) | field(self.leading) << 16 | field(self.stride) << 32 | mode << 62
    }
}

#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    bytes: usize,
    k: usize,
    bits: fn(f32) -> u32,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "bf16",
        bytes: 2,
        k: 16,
        bits: |x| bf16::from_f32(x).to_bits().into(),
    },
    Kind {
        name: "f16",
        bytes: 2,
        k: 16,
        bits: |x| f16::from_f32(x).to_bits().into(),
    },
    Kind {
        name: "tf32",
        bytes: 4,
        k: 8,
        bits: f32::to_bits,
    },
];

fn a(row: usize, k: usize) -> f32 {
    (row * 3 + k * 5) as f32 % 7.0 - 3.0
}
fn b(k: usize, column: usize) -> f32 {
    (k * 2 + column * 11) as f32 % 9.0 - 4.0
}

/// Where the second operand starts.
const B_START: usize = 32 << 10;
const SHARED: usize = 64 << 10;

/// Shared memory with A, by rows of M, and B, by rows of N.
fn image(kind: Kind, layout_a: &Layout, layout_b: &Layout, n: usize) -> Vec<u32> {
    let mut bytes = vec![0xffu8; SHARED];
    let mut put = |at: usize, value: f32| {
        let bits = (kind.bits)(value).to_le_bytes();
        bytes[at..at + kind.bytes].copy_from_slice(&bits[..kind.bytes]);
    };
    for k in 0..kind.k {
        (0..64).for_each(|row| put(layout_a.offset(row, k), a(row, k)));
        (0..n).for_each(|column| put(B_START + layout_b.offset(column, k), b(k, column)));
    }
    let words = bytes.chunks_exact(4);
    words
        .map(|w| u32::from_le_bytes(w.try_into().unwrap()))
        .collect()
}

fn registers(prefix: &str, count: usize) -> String {
    let list: Vec<String> = (0..count).map(|i| format!("%{prefix}{i}")).collect();
    format!("{{{}}}", list.join(", "))
}

/// Fills shared memory from `image`, runs `work`, and stores `count` registers `%d` of each thread.
fn run_kernel(words: &[u32], a_words: &[u32], count: usize, work: &str) -> Result<Vec<f32>, Fault> {
    let mut body = format!(
        ".shared .align 1024 .b8 s[{SHARED}];\n.reg .f32 %d<128>;\n.reg .b32 %a<4>;\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, s;\n\
         ld.param.u64 %rd1, [image];\nmov.u32 %r5, %r1;\nL:\nsetp.ge.u32 %p3, %r5, {};\n@%p3 bra E;\n\
         mad.wide.u32 %rd2, %r5, 4, %rd1;\nld.global.u32 %r6, [%rd2];\nmad.lo.u32 %r7, %r5, 4, %r2;\nst.shared.u32 [%r7], %r6;\n\
         add.u32 %r5, %r5, 128;\nbra L;\nE:\nld.param.u64 %rd3, [a];\nmad.wide.u32 %rd3, %r1, 16, %rd3;\n",
        words.len()
    );
    (0..4).for_each(|i| body += &format!("ld.global.b32 %a{i}, [%rd3+{}];\n", 4 * i));
    (0..count).for_each(|i| body += &format!("mov.f32 %d{i}, 0f40000000;\n"));
    body += "fence.proxy.async.shared::cta;\nbar.sync 0;\nmov.pred %p7, 1;\n";
    body += work;
    body += &format!(
        "ld.param.u64 %rd4, [out];\nmad.wide.u32 %rd4, %r1, {}, %rd4;\n",
        4 * count
    );
    (0..count).for_each(|i| body += &format!("st.global.f32 [%rd4+{}], %d{i};\n", 4 * i));
    let text = kernel_for("sm_90a", &[".u64 image", ".u64 a", ".u64 out"], &body);
    let mut program = Program::new(&text);
    program.limits.shared_per_block = 227 << 10;
    let (image, a) = (program.put(words), program.put(a_words));
    let out = program.room::<f32>(128 * count);
    program.launch("k", [1, 1, 1], [128, 1, 1], 0, &[image, a, out])?;
    Ok(program.get(out, 128 * count))
}

const FENCE: &str = "wgmma.fence.sync.aligned;\n";
const COMMIT: &str = "wgmma.commit_group.sync.aligned;\n";
const WAIT: &str = "wgmma.wait_group.sync.aligned 0;\n";

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
