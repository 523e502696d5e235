//! A problem of cuBLASLt's: its descriptors, its heuristic and its product.

use vgpu::libraries::blas_lt::*;
use vgpu::libraries::blas_status::Status;
use vgpu::libraries::lt_matmul::{cublasLtMatmul, cublasLtMatmulAlgoGetHeuristic};

use super::{BATCH, Batch, done};
use crate::on_card::PER_THREAD;

/// cuBLASLt's descriptors of one problem.
pub struct Problem {
    pub handle: usize,
    pub operation: usize,
    pub layouts: [usize; 4],
    pub preference: usize,
}

pub fn set<T>(
    call: unsafe extern "C" fn(usize, u32, *const u8, usize) -> Status,
    object: usize,
    which: u32,
    value: T,
) -> Status {
    let value: *const T = &value;
    unsafe { call(object, which, value.cast(), size_of::<T>()) }
}

pub fn problem(
    matrices: [&Batch; 4],
    transpose: [bool; 2],
    compute: u32,
    scale: u32,
    workspace: u64,
) -> Problem {
    let (mut handle, mut operation, mut preference) = (0, 0, 0);
    done(unsafe { cublasLtCreate(&mut handle) });
    done(unsafe { cublasLtMatmulDescCreate(&mut operation, compute, scale) });
    done(set(
        cublasLtMatmulDescSetAttribute,
        operation,
        3,
        u32::from(transpose[0]),
    ));
    done(set(
        cublasLtMatmulDescSetAttribute,
        operation,
        4,
        u32::from(transpose[1]),
    ));
    let layouts = matrices.map(|matrix| {
        let mut layout = 0;
        let (rows, columns) = (matrix.rows as u64, matrix.columns as u64);
        done(unsafe {
            cublasLtMatrixLayoutCreate(
                &mut layout,
                matrix.kind,
                rows,
                columns,
                matrix.leading as i64,
            )
        });
        done(set(
            cublasLtMatrixLayoutSetAttribute,
            layout,
            1,
            u32::from(matrix.by_rows),
        ));
        done(set(
            cublasLtMatrixLayoutSetAttribute,
            layout,
            5,
            BATCH as i32,
        ));
        done(set(
            cublasLtMatrixLayoutSetAttribute,
            layout,
            6,
            matrix.stride as i64,
        ));
        layout
    });
    done(unsafe { cublasLtMatmulPreferenceCreate(&mut preference) });
    done(set(
        cublasLtMatmulPreferenceSetAttribute,
        preference,
        1,
        workspace,
    ));
    Problem {
        handle,
        operation,
        layouts,
        preference,
    }
}

/// A `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Found {
    pub algorithm: [u64; 8],
    pub workspace: usize,
    pub state: u32,
    pub waves: f32,
    pub reserved: [i32; 4],
}

impl Problem {
    pub fn heuristic(&self, wanted: usize) -> Result<Vec<Found>, Status> {
        let empty = Found {
            algorithm: [0; 8],
            workspace: 0,
            state: 9,
            waves: 0.0,
            reserved: [0; 4],
        };
        let mut found = vec![empty; wanted];
        let mut count = -1;
        let [a, b, c, d] = self.layouts;
        let status = unsafe {
            let out = found.as_mut_ptr().cast();
            cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                self.operation,
                a,
                b,
                c,
                d,
                self.preference,
                wanted as i32,
                out,
                &mut count,
            )
        };
        found.truncate(count.max(0) as usize);
        (status == Status::SUCCESS).then_some(found).ok_or(status)
    }

    pub fn multiply(
        &self,
        matrices: [&Batch; 4],
        scales: [f32; 2],
        algorithm: Option<&Found>,
        workspace: (u64, usize),
    ) -> Status {
        let [alpha, beta] = scales.map(f32::to_le_bytes);
        let algorithm = algorithm.map_or(std::ptr::null(), |found| found.algorithm.as_ptr());
        let [a, b, c, d] = matrices.map(|matrix| matrix.address);
        let [la, lb, lc, ld] = self.layouts;
        unsafe {
            cublasLtMatmul(
                self.handle,
                self.operation,
                alpha.as_ptr(),
                a,
                la,
                b,
                lb,
                beta.as_ptr(),
                c,
                lc,
                d,
                ld,
                algorithm.cast(),
                workspace.0,
                workspace.1,
                PER_THREAD,
            )
        }
    }
}
