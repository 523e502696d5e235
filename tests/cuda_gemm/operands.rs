//! Operands and results of a trial, which stay on the GPU.

use taper::ops::gemm::candidate::{Device, Operand};
use taper::ops::gemm::check::{Comparison, Fill, Tolerance};
use taper::ops::gemm::gpu::GpuGemm;
use taper::ops::gemm::{Epilogue, Problem};
use taper::terms::{GemmBackend, Inputs};

use crate::gpu;

/// Two matrices of these sizes, the second one kept, and where they differ by more than the tolerance allows.
fn compared(
    gpu: &GpuGemm,
    problem: &Problem,
    fills: [Fill; 2],
    tolerance: &Tolerance,
) -> Comparison {
    let mut trial = gpu.trial(&[*problem]).unwrap();
    let [got, want] = fills;
    gpu.fill(&mut trial, problem, Operand::C, want).unwrap();
    gpu.keep(&mut trial, problem).unwrap();
    gpu.fill(&mut trial, problem, Operand::C, got).unwrap();
    gpu.compare(&mut trial, problem, Operand::C, tolerance)
        .unwrap()
}

#[test]
fn operands_are_filled_and_results_compared_on_the_gpu_as_on_the_host() {
    let Some(gpu) = gpu(GemmBackend::Auto) else {
        return;
    };
    for inputs in [Inputs::Bfloat16, Inputs::Float16, Inputs::Tf32] {
        // One element, a few beside whole vectors, and in fp32 more than the blocks of a launch take at once.
        let large = match inputs {
            Inputs::Tf32 => (1100, 1024),
            _ => (1100, 64),
        };
        for (m, n) in [(1, 1), (37, 19), large] {
            let problem = Problem::forward(m, n, 24, inputs, Epilogue::Bias);
            let mut trial = gpu.trial(&[problem]).unwrap();
            let of_host = |fill: Fill, operand, index| fill.value(operand, index, inputs);
            for fill in [Fill::Integers, Fill::Random] {
                for (operand, elements) in [
                    (Operand::A, m * 24),
                    (Operand::Bias, n),
                    (Operand::C, m * n),
                ] {
                    gpu.fill(&mut trial, &problem, operand, fill).unwrap();
                    let indices: Vec<usize> = (0..64).map(|i| i * (elements - 1) / 63).collect();
                    let read = gpu.read(&mut trial, &problem, operand, &indices).unwrap();
                    let wanted = indices.iter().map(|index| of_host(fill, operand, *index));
                    assert_eq!(
                        read,
                        wanted.collect::<Vec<_>>(),
                        "{inputs} {operand:?} {fill:?}"
                    );
                }
            }
            for (fills, absolute) in [
                ([Fill::Random, Fill::Integers], 0.75),
                ([Fill::Random, Fill::Integers], 10.0),
                ([Fill::Integers, Fill::Integers], 0.0),
            ] {
                let tolerance = Tolerance {
                    absolute,
                    ..Tolerance::default()
                };
                let elements = (0..m * n).map(|index| {
                    let [got, want] = fills.map(|fill| of_host(fill, Operand::C, index));
                    Comparison::of(index, got, want, &tolerance)
                });
                let wanted = elements.fold(Comparison::default(), Comparison::and);
                let found = compared(&gpu, &problem, fills, &tolerance);
                assert_eq!(found, wanted, "{inputs} {m} x {n} {absolute}");
                if m > 1 {
                    assert_eq!(wanted.first.is_some(), absolute == 0.75);
                }
            }
        }
    }
}
