//! Arguments of a kernel: the struct of kernels/gemm_arguments.cuh.

use cudarc::driver::DeviceRepr;

use super::operands::DeviceOperands;
use crate::ops::gemm::{Epilogue, Layout, OutputType, Problem};
use crate::terms::Gelu;

/// Pointers are addresses on the device, null where there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Arguments {
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub bias: u64,
    pub aux: u64,
    pub partial: u64,
    /// Row strides, in elements.
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
    /// `partial` is the address of the partial sums. Sizes and strides fit: `Tile::fits_strides` has seen them.
    pub fn new(problem: &Problem, split_k: usize, operands: &DeviceOperands, partial: u64) -> Self {
        let transposed = |layout: Layout| i32::from(layout == Layout::Transposed);
        let strides = operands.strides();
        Self {
            a: operands.a.address(),
            b: operands.b.address(),
            c: operands.c.address(),
            bias: operands.bias.as_ref().map_or(0, |bias| bias.address()),
            aux: operands.aux.as_ref().map_or(0, |aux| aux.address()),
            partial,
            row_a: strides.a as i64,
            row_b: strides.b as i64,
            row_c: strides.c as i64,
            row_aux: strides.aux.unwrap_or(0) as i64,
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
        }
    }
}
