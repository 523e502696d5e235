//! Programs that nvcc compiled, with known answers. The sources lie beside their PTX.

mod common;

use common::Program;
use half::bf16;

const PROGRAMS: &str = include_str!("fixtures/programs.ptx");
const TENSOR_CORE: &str = include_str!("fixtures/tensor_core.ptx");

#[test]
fn reduction_sums_small_integers_exactly() {
    let program = Program::new(PROGRAMS);
    let x: Vec<f32> = (0..10_000).map(|i| (i % 17) as f32).collect();
    let (from, to) = (program.put(&x), program.put(&[0f32]));
    program.run("reduce_sum", 5, 256, &[from, to, 10_000]);
    assert_eq!(program.get::<f32>(to, 1), [x.iter().sum::<f32>()]);
}

#[test]
fn the_last_block_may_read_what_fenced_blocks_wrote() {
    let program = Program::new(PROGRAMS);
    let x: Vec<f32> = (0..1000).map(|i| (i % 13) as f32).collect();
    let from = program.put(&x);
    let (partial, done, sum) = (
        program.room::<f32>(8),
        program.put(&[0u32]),
        program.room::<f32>(1),
    );
    program.run(
        "reduce_last_block",
        8,
        128,
        &[from, partial, done, sum, 1000],
    );
    assert_eq!(program.get::<f32>(sum, 1), [x.iter().sum::<f32>()]);
}

#[test]
fn tiled_matmul_is_exact_on_small_integers() {
    let n = 64;
    let program = Program::new(PROGRAMS);
    let a: Vec<f32> = (0..n * n).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
    let b: Vec<f32> = (0..n * n).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
    let (pa, pb, pc) = (program.put(&a), program.put(&b), program.room::<f32>(n * n));
    program
        .launch(
            "matmul_tiled",
            [4, 4, 1],
            [16, 16, 1],
            0,
            &[pa, pb, pc, n as u64],
        )
        .unwrap();
    let expected: Vec<f32> = (0..n * n)
        .map(|i| (0..n).map(|k| a[i / n * n + k] * b[k * n + i % n]).sum())
        .collect();
    assert_eq!(program.get::<f32>(pc, n * n), expected);
}

#[test]
fn scan_gives_prefix_sums_in_dynamic_shared_memory() {
    let program = Program::new(PROGRAMS);
    let x: Vec<i32> = (0..256).map(|i| i * 37 % 101 - 50).collect();
    let (from, to) = (program.put(&x), program.room::<i32>(256));
    program
        .launch("scan", [2, 1, 1], [128, 1, 1], 2 * 128 * 4, &[from, to])
        .unwrap();
    let expected: Vec<i32> = x
        .chunks(128)
        .flat_map(|block| {
            block.iter().scan(0, |sum, v| {
                *sum += v;
                Some(*sum)
            })
        })
        .collect();
    assert_eq!(program.get::<i32>(to, 256), expected);
}

#[test]
fn lanes_leave_a_loop_one_by_one() {
    let program = Program::new(PROGRAMS);
    let x: Vec<u32> = (1..=200).collect();
    let (from, to) = (program.put(&x), program.room::<u32>(200));
    program.run("collatz", 2, 128, &[from, to, 200]);
    let steps = |mut v: u32| {
        let mut count = 0;
        while v != 1 {
            v = if v.is_multiple_of(2) {
                v / 2
            } else {
                3 * v + 1
            };
            count += 1;
        }
        count
    };
    assert_eq!(
        program.get::<u32>(to, 200),
        x.iter().map(|&v| steps(v)).collect::<Vec<u32>>()
    );
}

fn choose(kind: i32, v: i32) -> i32 {
    match kind {
        0 => v.wrapping_add(1),
        1 => v.wrapping_mul(v),
        2 => v << 3,
        3 => -v,
        4 => v / 3,
        5 => v % 7,
        6 => v ^ 0x55,
        kind => 1000 + kind,
    }
}

#[test]
fn branch_tables_calls_and_local_arrays_work_in_divergent_lanes() {
    let program = Program::new(PROGRAMS);
    let kind: Vec<i32> = (0..256).map(|i| i * 5 % 9).collect();
    let v: Vec<i32> = (0..256).map(|i| i * 31 - 3000).collect();
    let (pk, pv, to) = (
        program.put(&kind),
        program.put(&v),
        program.room::<i32>(256),
    );
    program.run("branches", 2, 128, &[pk, pv, to]);
    let expected: Vec<i32> = (0..256)
        .map(|i| {
            let history: Vec<i32> = (0..8).map(|j| choose((kind[i] + j) % 9, v[i])).collect();
            let pick = (v[i] & 7) as usize;
            history[pick].wrapping_add(choose(kind[i], history[(pick + 1) & 7]))
        })
        .collect();
    assert_eq!(program.get::<i32>(to, 256), expected);
}

#[test]
fn variables_of_the_module_start_as_declared_and_keep_their_values() {
    let program = Program::new(PROGRAMS);
    let to = program.room::<f32>(8);
    program.run("variables", 1, 8, &[to]);
    assert_eq!(
        program.get::<f32>(to, 8),
        [0.5, 1.5, 2.5, 3.5, 0.5, 1.5, 2.5, 3.5]
    );
    let (counter, bytes) = program.module.variable("counter").unwrap();
    assert_eq!((program.get::<i32>(counter, 1), bytes), (vec![13], 4));
}

#[test]
fn the_maths_library_comes_out_right() {
    let program = Program::new(PROGRAMS);
    let x: Vec<f64> = (0..64).map(|i| f64::from(i - 32) * 1.37e3 + 0.25).collect();
    let f: Vec<f32> = (0..64)
        .map(|i| (i - 32) as f32 * 0.17 + if i % 8 == 0 { 1e6 } else { 0.0 })
        .collect();
    let (px, pf) = (program.put(&x), program.put(&f));
    let (to, to_f) = (program.room::<f64>(256), program.room::<f32>(256));
    program.run("mathematics", 2, 32, &[px, to, pf, to_f]);
    let (doubles, singles) = (program.get::<f64>(to, 256), program.get::<f32>(to_f, 256));
    for (i, (&x, &f)) in x.iter().zip(&f).enumerate() {
        let wanted = [1.0 / (x + 3.0), x.sin(), (-x * x).exp(), x / 7.0];
        for (got, wanted) in doubles[4 * i..][..4].iter().zip(wanted) {
            assert!(
                (got - wanted).abs() <= 4e-16 * wanted.abs().max(1e-300),
                "{x}: {got} {wanted}"
            );
        }
        let f = f64::from(f);
        let got = &singles[4 * i..][..4];
        assert!(
            (f64::from(got[0]) - f.sin()).abs() < 3e-7,
            "sin {f}: {}",
            got[0]
        );
        assert!(
            (-1.0..=1.0).contains(&got[1]) && (got[1] > 0.0) == (f > 0.0),
            "erf {f}: {}",
            got[1]
        );
        assert!(
            (f64::from(got[2]) - f.tanh()).abs() < 3e-7,
            "tanh {f}: {}",
            got[2]
        );
        assert_eq!(got[3], f as f32 / 3.0);
    }
}

#[test]
fn tensor_core_matmul_is_exact_on_small_integers() {
    let (m, n, k) = (32, 16, 64);
    let program = Program::new(TENSOR_CORE);
    let small = |i: usize| ((i * 7 + i / 5) % 9) as f32 - 4.0;
    let a: Vec<f32> = (0..m * k).map(small).collect();
    let b: Vec<f32> = (0..n * k).map(|i| small(i + 3)).collect();
    let bits = |v: &[f32]| {
        v.iter()
            .map(|&x| bf16::from_f32(x).to_bits())
            .collect::<Vec<u16>>()
    };
    let (pa, pb, pc) = (
        program.put(&bits(&a)),
        program.put(&bits(&b)),
        program.room::<f32>(m * n),
    );
    let grid = [n as u32 / 8, m as u32 / 16, 1];
    program
        .launch(
            "gemm_bf16",
            grid,
            [32, 1, 1],
            0,
            &[pa, pb, pc, n as u64, k as u64],
        )
        .unwrap();
    let expected: Vec<f32> = (0..m * n)
        .map(|i| (0..k).map(|j| a[i / n * k + j] * b[i % n * k + j]).sum())
        .collect();
    assert_eq!(program.get::<f32>(pc, m * n), expected);
}
