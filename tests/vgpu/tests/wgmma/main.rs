//! `wgmma.mma_async`: operands lie where the PTX ISA's canonical layouts put them, results where its fragments are.

mod layout;
mod placement;
mod rules;

#[path = "../common/mod.rs"]
mod common;

use common::{Program, kernel_for};
use half::{bf16, f16};
use layout::Layout;
use vgpu::fault::Fault;

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

/// Offset of the second operand in shared memory.
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
