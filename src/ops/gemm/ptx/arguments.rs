//! What a kernel is launched with: the struct of kernels/gemm_arguments.cuh.

use cudarc::driver::DeviceRepr;

use crate::ops::gemm::{Epilogue, Layout, OutputType, Problem};
use crate::terms::Gelu;

/// Pointers are addresses on the device, null where there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arguments {
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub bias: u64,
    pub aux: u64,
    pub partial: u64,
    /// From one row to the next, in elements.
    pub row_a: i64,
    pub row_b: i64,
    pub row_c: i64,
    pub row_aux: i64,
    pub m: i32,
    pub n: i32,
    pub k: i32,
    pub slices: i32,
    pub epilogue: i32,
    pub output_float32: i32,
    pub accumulate: i32,
    pub transposed: i32,
}

const _: () = assert!(size_of::<Arguments>() == 112, "as in gemm_arguments.cuh");

// SAFETY: the same C struct on the device, and every pattern of bits is one of its values.
unsafe impl DeviceRepr for Arguments {}

impl Arguments {
    /// All that the problem alone decides. Its sizes fit: `Tile::fits` has seen them.
    pub fn of(problem: &Problem, split_k: usize) -> Self {
        let transposed = |layout: Layout| i32::from(layout == Layout::Transposed);
        Self {
            m: problem.m as i32,
            n: problem.n as i32,
            k: problem.k as i32,
            slices: split_k as i32,
            epilogue: match problem.epilogue {
                Epilogue::None => 0,
                Epilogue::Bias => 1,
                Epilogue::BiasGelu(Gelu::Tanh) => 2,
                Epilogue::BiasGelu(Gelu::Erf) => 3,
                Epilogue::GeluBackward(Gelu::Tanh) => 4,
                Epilogue::GeluBackward(Gelu::Erf) => 5,
            },
            output_float32: i32::from(problem.output == OutputType::Float32),
            accumulate: i32::from(problem.accumulate),
            transposed: transposed(problem.a) | transposed(problem.b) << 1,
            ..Self::default()
        }
    }
}
