//! A product with specialised warps, `cp.async.bulk.tensor` and `wgmma`, compiled by nvcc; and what is said when a line is missing.

mod common;

use common::{Program, bytes_of};
use half::bf16;
use vgpu::fault::{Fault, What};
use vgpu::tensor_map::{Swizzle, TensorMap};

const PROGRAM: &str = include_str!("fixtures/hopper.ptx");

fn a(row: usize, k: usize) -> f32 {
    (row * 3 + k * 5) as f32 % 7.0 - 3.0
}
fn b(column: usize, k: usize) -> f32 {
    (column * 11 + k * 2) as f32 % 9.0 - 4.0
}

/// Rows of `width` elements that lie `pitch` apart, boxes of `rows` x 64.
fn matrix(
    program: &Program,
    shape: [usize; 2],
    rows: u32,
    value: fn(usize, usize) -> f32,
) -> TensorMap {
    let [height, width] = shape;
    let pitch = width.next_multiple_of(8);
    let mut bytes = Vec::new();
    for row in 0..height {
        (0..pitch).for_each(|k| bytes.extend(bf16::from_f32(value(row, k)).to_le_bytes()));
    }
    TensorMap {
        element: 2,
        address: program.put(&bytes),
        dims: vec![width as u64, height as u64],
        strides: vec![2 * pitch as u64],
        boxes: vec![64, rows],
        swizzle: Swizzle::Bytes128,
    }
}

/// C (m, n) by `text`, a variant of the program.
fn run(text: &str, m: usize, n: usize, k: usize) -> Result<Vec<f32>, Fault> {
    let mut program = Program::new(text);
    program.limits.shared_per_block = 227 << 10;
    let (map_a, map_b) = (
        matrix(&program, [m, k], 128, a),
        matrix(&program, [n, k], 64, b),
    );
    let c = program.room::<f32>(m * n);
    let params = [
        map_a.encode().to_vec(),
        map_b.encode().to_vec(),
        bytes_of(&[c]),
        bytes_of(&[m as u32]),
        bytes_of(&[n as u32]),
        bytes_of(&[k as u32]),
    ];
    let grid = [n.div_ceil(64) as u32, m.div_ceil(128) as u32, 1];
    program.launch_with("gemm", grid, [384, 1, 1], 75 << 10, &params)?;
    Ok(program.get(c, m * n))
}

#[test]
fn specialised_warps_multiply_ragged_matrices() {
    for (m, n, k) in [
        (128, 64, 64),
        (128, 64, 320),
        (200, 100, 328),
        (1, 1, 1),
        (130, 72, 700),
    ] {
        let c = run(PROGRAM, m, n, k).unwrap_or_else(|fault| panic!("{fault}"));
        for (i, &found) in c.iter().enumerate() {
            let wanted: f32 = (0..k).map(|k| a(i / n, k) * b(i % n, k)).sum();
            assert_eq!(found, wanted, "{m} x {n} x {k}, element {i}");
        }
    }
}

/// What is said when the `nth` line with `part` is another one.
fn planted(part: &str, nth: usize, instead: &str) -> What {
    let mut seen = 0;
    let change = |line: &str| {
        if line.contains(part) {
            seen += 1;
            if seen == nth + 1 {
                line.replace(part, instead)
            } else {
                line.to_string()
            }
        } else {
            line.to_string()
        }
    };
    let text: Vec<String> = PROGRAM.lines().map(change).collect();
    assert!(seen > nth, "`{part}` is not there");
    let fault = run(&text.join("\n"), 128, 64, 512).expect_err("a fault");
    let place = fault.place.clone().expect("a place");
    assert_eq!(place.kernel, "gemm");
    println!("{part}: {fault}");
    fault.what
}

#[test]
fn a_missing_fence_is_named() {
    assert!(matches!(
        planted("fence.mbarrier_init.release.cluster;", 0, ""),
        What::NoProxyFence { thread: 0, .. }
    ));
    assert!(matches!(
        planted("wgmma.fence.sync.aligned;", 0, ""),
        What::Wgmma(_)
    ));
}

#[test]
fn a_missing_wait_is_named() {
    // For the products, before their results are read and their operands are given back.
    let what = planted("wgmma.wait_group.sync.aligned 0;", 0, "");
    assert!(
        matches!(what, What::StillRead { .. } | What::Wgmma(_)),
        "{what}"
    );
    // For full stages: what is there has not been copied, nobody may know that it has been, or the phases fall apart.
    let what = planted("@done bra END;", 1, "bra END;");
    assert!(
        matches!(
            what,
            What::NeverWritten { .. }
                | What::StillCopying { .. }
                | What::NotAwaited { .. }
                | What::Deadlock(_)
        ),
        "{what}"
    );
    // For empty stages.
    let what = planted("@done bra END;", 0, "bra END;");
    assert!(
        matches!(
            what,
            What::StillCopying { how: "written", .. }
                | What::SharedRace { .. }
                | What::StillRead { .. }
                | What::NotAwaited { this: "write", .. }
        ),
        "{what}"
    );
}

#[test]
fn results_given_back_too_early_are_named() {
    // Stages are handed to the producer before the products that read them are waited for.
    let text = PROGRAM.replace("wgmma.wait_group.sync.aligned 0;", "");
    let release = text
        .lines()
        .find(|l| l.contains("mbarrier.arrive.release"))
        .unwrap();
    let text = text.replace(
        release,
        &format!("{release}\nwgmma.wait_group.sync.aligned 0;"),
    );
    let wait = |text: &str| run(text, 128, 64, 512);
    // The release is in a branch of one lane: there the others have not waited either.
    let what = wait(&text).expect_err("a fault").what;
    assert!(
        matches!(what, What::StillRead { .. } | What::SharedRace { .. }),
        "{what}"
    );
}

#[test]
fn a_wrong_phase_is_named() {
    // Stages are taken for empty from the second round on.
    let what = planted("xor.b32", 0, "or.b32");
    assert!(
        matches!(
            what,
            What::NotAwaited { this: "write", .. } | What::StillRead { .. }
        ),
        "{what}"
    );
}

#[test]
fn a_missing_expectation_is_named() {
    let part = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r124], %r125;";
    let what = planted(part, 0, "mbarrier.arrive.shared::cta.b64 _, [%r124];");
    assert!(
        matches!(
            what,
            What::StillCopying { .. } | What::NeverWritten { .. } | What::Deadlock(_)
        ),
        "{what}"
    );
}

#[test]
fn registers_that_nobody_gives_are_waited_for_in_vain() {
    let what = planted("setmaxnreg.dec.sync.aligned.u32 24;", 0, "");
    assert!(
        matches!(what, What::Deadlock(ref text) if text.contains("setmaxnreg")),
        "{what}"
    );
    let what = planted(
        "setmaxnreg.inc.sync.aligned.u32 240;",
        0,
        "setmaxnreg.inc.sync.aligned.u32 160;",
    );
    assert!(
        matches!(what, What::Undefined(ref text) if text.contains("has 168")),
        "{what}"
    );
}
