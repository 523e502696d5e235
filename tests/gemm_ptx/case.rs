//! One product: operands on the device with gaps between their rows, and what comes back.

use candle_core::cuda_backend::CudaDevice;
use candle_core::{Device, WithDType};
use cudarc::driver::{CudaSlice, DeviceRepr};
use half::{bf16, f16};
use taper::ops::gemm::ptx::{DeviceMatrix, DeviceOperands, PtxError, Tile, launch};
use taper::ops::gemm::{Epilogue, Layout, OutputType, Problem};
use taper::ops::launch::Gpu;
use taper::ops::launch::host::{download, upload_new};
use taper::terms::{Gelu, Inputs, Precision};

/// The GPU, or nothing where there is none. On the virtual card there is one.
pub fn gpu() -> Option<CudaDevice> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device.as_cuda_device().unwrap().clone()),
        Err(error) if std::env::var_os("VGPU_CARD").is_none() => {
            eprintln!("skipped, for there is no GPU ({error}): use scripts/vgpu");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub const INPUTS: [Inputs; 4] = [
    Inputs::Float32,
    Inputs::Tf32,
    Inputs::Bfloat16,
    Inputs::Float16,
];

/// nn, nt, tn, tt
pub const LAYOUTS: [(Layout, Layout); 4] = [
    (Layout::AsIs, Layout::AsIs),
    (Layout::AsIs, Layout::Transposed),
    (Layout::Transposed, Layout::AsIs),
    (Layout::Transposed, Layout::Transposed),
];

pub const EPILOGUES: [Epilogue; 6] = [
    Epilogue::None,
    Epilogue::Bias,
    Epilogue::BiasGelu(Gelu::Tanh),
    Epilogue::BiasGelu(Gelu::Erf),
    Epilogue::GeluBackward(Gelu::Tanh),
    Epilogue::GeluBackward(Gelu::Erf),
];

/// C = A B, both as they are, in and out of the inputs' type.
pub fn plain([m, n, k]: [usize; 3], inputs: Inputs) -> Problem {
    Problem {
        m,
        n,
        k,
        a: Layout::AsIs,
        b: Layout::AsIs,
        inputs,
        output: OutputType::LikeInputs,
        accumulate: false,
        epilogue: Epilogue::None,
    }
}

/// The tiles that this card can run, and more than one per type of input if it can.
pub fn tiles(device: &CudaDevice, inputs: Inputs) -> Vec<Tile> {
    let gpu = Gpu::new(device).unwrap();
    let problem = plain([64; 3], inputs);
    Tile::all(inputs)
        .filter(|tile| tile.fits(&problem, gpu.limits()).is_ok())
        .collect()
}

/// DeviceOperands of a problem on the host, dense: A (M, K) and B (K, N) whatever way they are stored.
#[derive(Clone)]
pub struct Case {
    pub problem: Problem,
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    /// What C holds before.
    pub c: Vec<f32>,
    pub bias: Vec<f32>,
    /// What GELU's slope is taken at.
    pub aux: Vec<f32>,
    /// Elements between the end of a row and the next; a multiple of 8 keeps rows aligned.
    pub gap: usize,
}

/// What a product wrote, dense.
#[derive(Clone, PartialEq, Debug)]
pub struct Written {
    pub c: Vec<f32>,
    /// Only where the epilogue writes it.
    pub aux: Option<Vec<f32>>,
}

/// Never used by a product that is right: it would spread.
const GAP: f32 = f32::NAN;

/// A type that matrices have in memory.
pub trait Element: WithDType + DeviceRepr + Unpin {
    fn of(x: f32) -> Self;
    fn back(self) -> f32;
}

impl Element for f32 {
    fn of(x: f32) -> Self {
        x
    }
    fn back(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    fn of(x: f32) -> Self {
        bf16::from_f32(x)
    }
    fn back(self) -> f32 {
        self.to_f32()
    }
}

impl Element for f16 {
    fn of(x: f32) -> Self {
        f16::from_f32(x)
    }
    fn back(self) -> f32 {
        self.to_f32()
    }
}

/// Rounds to what the inputs' type holds.
pub fn round(x: f32, inputs: Inputs) -> f32 {
    match inputs.storage() {
        Precision::Float32 => x,
        Precision::Bfloat16 => bf16::of(x).back(),
        Precision::Float16 => f16::of(x).back(),
    }
}

/// Rounds to what the output's type holds.
pub fn round_output(x: f32, problem: &Problem) -> f32 {
    match problem.output {
        OutputType::Float32 => x,
        OutputType::LikeInputs => round(x, problem.inputs),
    }
}

/// A matrix on the device, with NaN in its gaps and nothing behind its last row.
struct Placed<T> {
    slice: CudaSlice<T>,
    columns: usize,
    stride: usize,
}

impl<T: Element> Placed<T> {
    /// A (rows, columns) matrix whose element (i, j) is `value(i, j)`. Its rows are aligned to 16 bytes unless
    /// `gap` is odd.
    fn new(
        device: &CudaDevice,
        (rows, columns): (usize, usize),
        gap: usize,
        value: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let stride = match gap % 8 {
            0 => columns.next_multiple_of(8) + gap,
            _ => columns + gap,
        };
        let mut host = vec![T::of(GAP); (rows.saturating_sub(1) * stride + columns).max(1)];
        for i in 0..rows {
            for j in 0..columns {
                host[i * stride + j] = T::of(value(i, j));
            }
        }
        Self {
            slice: upload_new(&device.cuda_stream(), &host).unwrap(),
            columns,
            stride,
        }
    }

    /// The matrix, dense; its gaps must be as they were.
    fn back(&self, device: &CudaDevice) -> Vec<f32> {
        let host = download(&device.cuda_stream(), &self.slice).unwrap();
        let mut dense = Vec::new();
        for (at, value) in host.into_iter().enumerate() {
            if at % self.stride < self.columns {
                dense.push(value.back())
            } else {
                assert!(value.back().is_nan(), "element {at} is in a gap")
            }
        }
        dense
    }
}

impl Case {
    pub fn run(
        &self,
        device: &CudaDevice,
        tile: Tile,
        split_k: usize,
    ) -> Result<Written, PtxError> {
        use {OutputType as O, Precision::*};
        match (self.problem.inputs.storage(), self.problem.output) {
            (Float32, _) => self.run_as::<f32, f32>(device, tile, split_k),
            (Bfloat16, O::LikeInputs) => self.run_as::<bf16, bf16>(device, tile, split_k),
            (Bfloat16, O::Float32) => self.run_as::<bf16, f32>(device, tile, split_k),
            (Float16, O::LikeInputs) => self.run_as::<f16, f16>(device, tile, split_k),
            (Float16, O::Float32) => self.run_as::<f16, f32>(device, tile, split_k),
        }
    }

    fn run_as<In: Element, Out: Element>(
        &self,
        device: &CudaDevice,
        tile: Tile,
        split_k: usize,
    ) -> Result<Written, PtxError> {
        let Problem { n, k, .. } = self.problem;
        let problem = &self.problem;
        let a = Placed::<In>::new(device, problem.a_shape(), self.gap, |i, j| {
            match problem.a {
                Layout::AsIs => self.a[i * k + j],
                Layout::Transposed => self.a[j * k + i],
            }
        });
        let b = Placed::<In>::new(device, problem.b_shape(), self.gap, |i, j| {
            match problem.b {
                Layout::AsIs => self.b[i * n + j],
                Layout::Transposed => self.b[j * n + i],
            }
        });
        let c_shape = (problem.m, n);
        let mut c = Placed::<Out>::new(device, c_shape, self.gap, |i, j| self.c[i * n + j]);
        let bias = Placed::<In>::new(device, (1, n), 0, |_, j| self.bias[j]);
        let forward = matches!(problem.epilogue, Epilogue::BiasGelu(_));
        let backward = matches!(problem.epilogue, Epilogue::GeluBackward(_));
        let mut aux = Placed::<In>::new(device, c_shape, self.gap, |i, j| {
            if backward { self.aux[i * n + j] } else { GAP }
        });
        let elements = tile.workspace_elements(problem, split_k);
        let mut workspace = device.alloc_zeros::<f32>(elements.max(1)).unwrap();

        let stream = device.cuda_stream();
        let aux_stride = aux.stride;
        let aux_operand = match (forward, backward) {
            (true, _) => Some(DeviceMatrix::write(&mut aux.slice, aux_stride, &stream)),
            (_, true) => Some(DeviceMatrix::read(&aux.slice, aux_stride, &stream)),
            _ => None,
        };
        let with_bias = forward || problem.epilogue == Epilogue::Bias;
        let mut operands = DeviceOperands {
            a: DeviceMatrix::read(&a.slice, a.stride, &stream),
            b: DeviceMatrix::read(&b.slice, b.stride, &stream),
            c: DeviceMatrix::write(&mut c.slice, c.stride, &stream),
            bias: with_bias.then(|| DeviceMatrix::read(&bias.slice, bias.stride, &stream)),
            aux: aux_operand,
        };
        let mut workspace = workspace.as_view_mut();
        launch(
            &Gpu::new(device).unwrap(),
            problem,
            tile,
            split_k,
            &mut operands,
            Some(&mut workspace),
        )?;
        drop(operands);
        Ok(Written {
            c: c.back(device),
            aux: forward.then(|| aux.back(device)),
        })
    }
}
