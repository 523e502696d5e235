//! A GPU as a [`Backend`]: the kernels of this folder, and the products of `gemm`.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::CudaDevice;
use cudarc::driver::{CudaSlice, CudaStream, CudaView, CudaViewMut, DriverError};

use super::batch::Batch;
use super::optimizer::Optimizer;
use super::outcome;
use super::recording::Recording;
use super::tally::Tally;
use crate::memory::{AllocationError, Memory, Refused};
use crate::ops::backend::{
    Backend, BatchHeader, Buffers, DecayRun, Done, Ended, LoadError, Packets, Part, PartMut,
    ReadTokens, TrainingState, Update,
};
use crate::ops::cuda::GpuMemory;
use crate::ops::gemm::gpu::GpuError;
use crate::ops::gemm::ptx::{DeviceMatrix, DeviceOperands};
use crate::ops::gemm::{Dispatch, Problem, Table, TrainingGemm, gpu};
use crate::ops::launch::{Gpu, GpuElement, LaunchError};
use crate::terms::{Engine, Inputs, NamedChoice, Precision};

/// The GEMMs of the training path on a GPU.
pub type Products = Dispatch<gpu::GpuGemm>;

/// Computes in `T`, in one stream of a GPU.
pub struct OnGpu<T: GpuElement> {
    device: CudaDevice,
    pub(super) gpu: Gpu,
    pub(super) stream: Arc<CudaStream>,
    /// Copies micro-batches ahead.
    copies: Arc<CudaStream>,
    pub(super) products: Products,
    pub(super) inputs: Inputs,
    cuda_graph: bool,
    choices: RefCell<Vec<NamedChoice>>,
    element: std::marker::PhantomData<T>,
}

impl<T: GpuElement> OnGpu<T> {
    /// `products` are those of the same device, and multiply `inputs`, which lie in memory as `T`.
    ///
    /// # Errors
    /// The driver's, when it makes no second stream or does not tell what the GPU can do.
    pub fn new(
        device: &CudaDevice,
        products: Products,
        inputs: Inputs,
        cuda_graph: bool,
    ) -> Result<Self, DriverError> {
        let gpu = Gpu::new(device)?;
        let stream = gpu.stream().clone();
        Ok(Self {
            device: device.clone(),
            copies: stream.context().new_stream()?,
            gpu,
            stream,
            products,
            inputs,
            cuda_graph,
            choices: RefCell::default(),
            element: std::marker::PhantomData,
        })
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub(super) fn read<'a, E: GpuElement>(
        &'a self,
        view: &'a CudaView<E>,
        columns: usize,
    ) -> DeviceMatrix<'a> {
        DeviceMatrix::read(view, columns, &self.stream)
    }

    pub(super) fn write<'a, E: GpuElement>(
        &'a self,
        view: &'a mut CudaViewMut<E>,
        columns: usize,
    ) -> DeviceMatrix<'a> {
        DeviceMatrix::write(view, columns, &self.stream)
    }

    pub(super) fn run(&self, problem: &Problem, mut operands: DeviceOperands) -> Done {
        Ok(self.products.run(problem, &mut operands)?)
    }
}

impl From<GpuError> for Refused {
    fn from(error: GpuError) -> Self {
        use crate::ops::gemm::candidate::GemmFailure;
        if error.is_out_of_memory() {
            Refused::OutOfMemory
        } else {
            Refused::Device(error.to_string())
        }
    }
}

impl From<LaunchError> for Refused {
    fn from(error: LaunchError) -> Self {
        if error.is_out_of_memory() {
            Refused::OutOfMemory
        } else {
            Refused::Device(error.to_string())
        }
    }
}

impl<T: GpuElement> Buffers for OnGpu<T> {
    type Compute = CudaSlice<T>;
    type Full = CudaSlice<f32>;
    type Batch = Batch;
    type Header = CudaSlice<u32>;
    type Allocator<'a> = GpuMemory<'a, T>;

    fn engine(&self) -> Engine {
        Engine::Cuda
    }

    fn precision(&self) -> Precision {
        T::PRECISION
    }

    fn allocator<'a>(&'a self, memory: &'a mut Memory) -> GpuMemory<'a, T> {
        GpuMemory::new(&self.device, memory)
    }

    fn batch(&self, rows: usize, memory: &mut Memory) -> Result<Batch, AllocationError> {
        let packets = Packets::new(rows, &mut self.allocator(memory))?;
        let batch = Batch::new(packets, rows, &self.stream);
        batch.map_err(|error| memory.refusal(crate::faults::Site::Launch, error.into()))
    }

    fn load<E>(
        &self,
        batch: &mut Batch,
        rows: usize,
        header: BatchHeader,
        read: &mut ReadTokens<E>,
    ) -> Result<(), LoadError<E>> {
        batch.load(&self.stream, &self.copies, rows, header, read)
    }

    fn header(batch: &Batch) -> &CudaSlice<u32> {
        batch.packet()
    }

    fn clear(&self, part: PartMut<CudaSlice<T>>) -> Done {
        Ok(self.stream.memset_zeros(&mut part.view())?)
    }
}

impl<T: GpuElement> Backend for OnGpu<T> {
    type Tally = Tally;
    type Optimizer = Optimizer;
    type Recording = Recording;

    fn inputs(&self) -> Inputs {
        self.inputs
    }

    fn prepare(&self, gemms: &[TrainingGemm], room: Option<u64>) {
        self.products.prepare(gemms, room);
    }

    fn products(&self) -> Table {
        self.products.table()
    }

    fn take_choices(&self) -> Vec<NamedChoice> {
        let mut choices = self.products.take_choices();
        choices.append(&mut self.choices.borrow_mut());
        choices
    }

    fn record(&self, recording: &mut Recording, mut work: impl FnMut() -> Done) -> Done {
        if !self.cuda_graph {
            return work();
        }
        if let Some(because) = recording.run(&self.stream, work)? {
            self.choices.borrow_mut().push(NamedChoice {
                name: "cuda graph".into(),
                value: "off".into(),
                because: format!("the driver did not record kernels: {because}"),
            });
        }
        Ok(())
    }

    fn tally(&self) -> Result<Tally, Refused> {
        Ok(Tally::new(&self.stream)?)
    }

    fn reset(&self, tally: &mut Tally) -> Done {
        Ok(self.stream.memset_zeros(tally.outcome())?)
    }

    fn add_losses(
        &self,
        losses: Part<CudaSlice<f32>>,
        positions: usize,
        tally: &mut Tally,
    ) -> Done {
        let outcome = &mut tally.outcome().as_view_mut();
        Ok(outcome::add_losses(
            &self.gpu,
            &losses.view(),
            positions,
            outcome,
        )?)
    }

    fn loss(&self, tally: &Tally) -> Result<f64, Refused> {
        Ok(tally.read(&self.stream)?.loss)
    }

    fn optimizer(&self, decays: &[DecayRun]) -> Result<Optimizer, Refused> {
        Ok(Optimizer::new(&self.stream, decays)?)
    }

    fn update(
        &self,
        optimizer: &mut Optimizer,
        state: TrainingState<Self>,
        update: &Update,
        tally: &mut Tally,
    ) -> Result<Ended, Refused> {
        optimizer.update(self, state, update, tally)
    }
}
