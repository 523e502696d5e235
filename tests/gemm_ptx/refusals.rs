//! DeviceOperands that a launch refuses before anything runs.

use candle_core::cuda_backend::CudaDevice;
use cudarc::driver::CudaSlice;
use half::bf16;
use taper::ops::gemm::ptx::{DeviceMatrix, DeviceOperands, Tile, launch};
use taper::ops::gemm::{Epilogue, Problem};
use taper::ops::launch::Gpu;
use taper::terms::Inputs;

use crate::case::{EPILOGUES, gpu, plain, tiles};

/// Answer of `launch` to a bf16 product of 64 x 64 x 64 whose A, B and C have these lengths and row strides.
fn refusal(device: &CudaDevice, sizes: [(usize, usize); 3], skip: usize, split_k: usize) -> String {
    let stream = device.cuda_stream();
    let [a, b, c] = sizes;
    let allocate = |(elements, _)| device.alloc_zeros::<bf16>(elements).expect("memory");
    let [a_memory, b_memory, mut c_memory]: [CudaSlice<bf16>; 3] = [a, b, c].map(allocate);
    let a_view = a_memory.slice(skip..);
    let mut operands = DeviceOperands {
        a: DeviceMatrix::read(&a_view, a.1, &stream),
        b: DeviceMatrix::read(&b_memory, b.1, &stream),
        c: DeviceMatrix::write(&mut c_memory, c.1, &stream),
        bias: None,
        aux: None,
    };
    let problem = plain([64; 3], Inputs::Bfloat16);
    let tile = tiles(device, Inputs::Bfloat16).pop().expect("a tile");
    match launch(
        &Gpu::new(device).unwrap(),
        &problem,
        tile,
        split_k,
        &mut operands,
        None,
    ) {
        Ok(()) => "launched".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn operands_that_do_not_fit_the_problem_are_refused_before_anything_runs() {
    let Some(device) = gpu() else { return };
    if tiles(&device, Inputs::Bfloat16).len() == 1 {
        return; // no tensor cores for bf16
    }
    let whole = (64 * 64, 64);
    let refusal = |sizes, skip, split_k| refusal(&device, sizes, skip, split_k);
    assert_eq!(refusal([whole; 3], 0, 1), "launched");
    assert_eq!(
        refusal([whole, (64 * 64 - 1, 64), whole], 0, 1),
        "B is 64 x 64, which does not fit in 4095 elements with 64 per row"
    );
    assert_eq!(
        refusal([whole, whole, (64 * 64, 56)], 0, 1),
        "C is 64 x 64, which does not fit in 4096 elements with 56 per row"
    );
    assert_eq!(
        refusal([(64 * 70, 68), whole, whole], 0, 1),
        "rows of A must be whole multiples of 8 elements, not 68"
    );
    assert_eq!(
        refusal([(64 * 65, 64), whole, whole], 4, 1),
        "A must begin at a multiple of 16 bytes"
    );
    assert_eq!(
        refusal([whole; 3], 0, 2),
        "2 slices need a workspace of 8192 elements, there are 0"
    );
    assert_eq!(refusal([whole; 3], 0, 0), "K cannot be cut into 0 slices");
}

#[test]
fn operands_of_another_type_or_missing_ones_are_refused() {
    let Some(device) = gpu() else { return };
    let stream = device.cuda_stream();
    let memory = device.alloc_zeros::<f32>(16 * 16).expect("memory");
    let mut output = device.alloc_zeros::<f32>(16 * 16).expect("memory");
    let mut refusal = |epilogue, inputs, written: bool| {
        let mut operands = DeviceOperands {
            a: DeviceMatrix::read(&memory, 16, &stream),
            b: DeviceMatrix::read(&memory, 16, &stream),
            c: if written {
                DeviceMatrix::write(&mut output, 16, &stream)
            } else {
                DeviceMatrix::read(&memory, 16, &stream)
            },
            bias: None,
            aux: None,
        };
        let problem = Problem {
            epilogue,
            ..plain([16; 3], inputs)
        };
        let launched = launch(
            &Gpu::new(&device).unwrap(),
            &problem,
            Tile::Simple,
            1,
            &mut operands,
            None,
        );
        launched.map_or_else(|error| error.to_string(), |()| "launched".into())
    };
    let plain = Epilogue::None;
    assert_eq!(refusal(plain, Inputs::Float32, true), "launched");
    assert_eq!(
        refusal(plain, Inputs::Float16, true),
        "A is of F32, not of F16"
    );
    assert_eq!(
        refusal(plain, Inputs::Float32, false),
        "C is written, and was given for reading"
    );
    assert_eq!(
        refusal(Epilogue::Bias, Inputs::Float32, true),
        "the bias is missing"
    );
    assert_eq!(
        refusal(EPILOGUES[5], Inputs::Float32, true),
        "the auxiliary matrix is missing"
    );
}
