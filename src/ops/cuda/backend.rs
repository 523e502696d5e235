//! A GPU as a [`Backend`]: the kernels of this folder, and the products of `gemm`.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::CudaDevice;
use cudarc::driver::{CudaSlice, CudaStream, DriverError};

use super::batch::Batch;
use super::clock::EventClock;
use super::graph::Graph;
use super::numbers::Numbers;
use super::{cast, memory, values};
use crate::faults::Site;
use crate::memory::{AllocationError, Memory, Refused};
use crate::ops::backend::{
    Accept, Backend, BatchHeader, Buffer, BufferSpec, DecayRun, Done, Ended, Frame, Op, ReadTokens,
    Recording, TrainingState, Update, ValuesMut, packet_specs,
};
use crate::ops::clock::Clock;
use crate::ops::gemm::gpu::GpuError;
use crate::ops::gemm::{Dispatch, Table, TrainingGemm, gpu};
use crate::ops::launch::{Gpu, GpuElement, LaunchError};
use crate::terms::{Engine, Inputs, NamedChoice, Precision};

/// The GEMMs of the training path on a GPU.
type Products = Dispatch<gpu::GpuGemm>;

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

    /// Does `work`; from the second time on as a graph, where graphs are on and the driver records it.
    pub(super) fn replay(&self, graph: &mut Graph, mut work: impl FnMut() -> Done) -> Done {
        if !self.cuda_graph {
            return work();
        }
        if let Some(because) = graph.run(&self.stream, work)? {
            self.choices.borrow_mut().push(NamedChoice {
                name: "cuda graph".into(),
                value: "off".into(),
                because: format!("the driver did not record kernels: {because}"),
            });
        }
        Ok(())
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

impl<T: GpuElement> Backend for OnGpu<T> {
    fn engine(&self) -> Engine {
        Engine::Cuda
    }

    fn precision(&self) -> Precision {
        T::PRECISION
    }

    fn inputs(&self) -> Inputs {
        self.inputs
    }

    fn prepare(&self, gemms: &[TrainingGemm], room: Option<u64>) {
        self.products.prepare(gemms, room);
    }

    fn gemm_table(&self) -> Table {
        self.products.table()
    }

    fn take_choices(&self) -> Vec<NamedChoice> {
        let mut choices = self.products.take_choices();
        choices.append(&mut self.choices.borrow_mut());
        choices
    }

    fn clock(&self) -> Box<dyn Clock> {
        Box::new(EventClock::new(&self.stream))
    }

    fn allocate(&self, spec: &BufferSpec, memory: &mut Memory) -> Result<Buffer, AllocationError> {
        memory::allocate::<T>(&self.device, spec, memory)
    }

    fn batch(&self, rows: usize, memory: &mut Memory) -> Result<Buffer, AllocationError> {
        let [current, first, second] = packet_specs(rows);
        let mut packet = |spec| memory::slice(&self.device, &spec, memory);
        let (current, ahead) = (packet(current)?, [packet(first)?, packet(second)?]);
        let batch = Batch::new(current, ahead, rows, &self.stream);
        let batch = batch.map_err(|error| memory.refusal(Site::Launch, error.into()))?;
        Ok(Buffer::new(batch))
    }

    fn numbers(&self, decays: &[DecayRun]) -> Result<Buffer, Refused> {
        Ok(Buffer::new(Numbers::new(&self.stream, decays)?))
    }

    fn load(
        &self,
        batch: &Buffer,
        rows: usize,
        header: BatchHeader,
        read: &mut ReadTokens,
    ) -> Done {
        let mut batch = batch.write::<Batch>();
        batch.load(&self.stream, &self.copies, rows, header, read)
    }

    fn run(&self, op: &Op, frame: &Frame) -> Done {
        self.compute(op, frame)
    }

    fn record(&self, recording: &mut Recording, work: &mut dyn FnMut() -> Done) -> Done {
        let graph = recording
            .0
            .get_or_insert_with(|| Box::new(Graph::default()));
        let Some(graph) = graph.downcast_mut() else {
            unreachable!("another backend's recording");
        };
        self.replay(graph, work)
    }

    fn update(
        &self,
        numbers: &Buffer,
        state: TrainingState,
        update: &Update,
        accept: Option<Accept>,
    ) -> Result<Ended, Refused> {
        numbers
            .write::<Numbers>()
            .update(self, state, update, accept)
    }

    fn loss(&self, numbers: &Buffer) -> Result<f64, Refused> {
        Ok(numbers.read::<Numbers>().read(&self.stream)?.loss)
    }

    fn values<'a>(&'a self, buffer: &'a mut Buffer) -> Box<dyn ValuesMut + 'a> {
        values::values::<T>(&self.stream, buffer)
    }

    fn round(&self, master: &Buffer, weights: &Buffer) -> Done {
        let (master, mut weights) = (
            master.read::<CudaSlice<f32>>(),
            weights.write::<CudaSlice<T>>(),
        );
        let (master, weights) = (&master.as_view(), &mut weights.as_view_mut());
        Ok(cast::cast(&self.gpu, master, weights)?)
    }
}
