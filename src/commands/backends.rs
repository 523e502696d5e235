//! The device of a command as a backend, with the GEMMs that it computes.

#[cfg(feature = "cuda")]
use candle_core::CudaDevice;

use crate::device::{DeviceError, DeviceProfile};
use crate::interrupt::Interrupt;
use crate::memory::Memory;
use crate::ops::backend::Backend;
use crate::ops::cpu::OnCpu;
use crate::ops::gemm::{Cache, Cpu, Products, Table, Watch, cache_folder, cpu};
use crate::plan::Plan;
use crate::report::Progress;
use crate::terms::{Effort, GemmBackend, Inputs, Precision};

/// Start of the search for the fastest GEMMs, and its spectator.
pub(super) struct Search {
    /// The winners that a checkpoint has stored.
    pub stored: Table,
    pub watch: Box<dyn Watch + Send>,
}

/// A person who looks at the progress of a search, and may interrupt it where the command listens.
pub(super) struct Spectator {
    pub progress: Progress,
    pub interrupt: Option<Interrupt>,
}

impl Watch for Spectator {
    fn begin(&self, problems: usize) {
        self.progress.begin_search(problems);
    }

    fn reach(&self, index: usize, name: &str) {
        self.progress.reach_in_search(index, name);
    }

    fn end(&self) {
        self.progress.end_search();
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(Interrupt::requested)
    }
}

/// The way in which a device computes.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a GPU's"))]
pub(super) struct Computing {
    pub threads: usize,
    pub precision: Precision,
    pub inputs: Inputs,
    pub gemm: Effort,
    pub gemm_backend: GemmBackend,
    pub cuda_graph: bool,
}

impl From<&Plan> for Computing {
    fn from(plan: &Plan) -> Self {
        Self {
            threads: plan.threads,
            precision: plan.precision,
            inputs: plan.inputs,
            gemm: plan.gemm,
            gemm_backend: plan.gemm_backend,
            cuda_graph: plan.cuda_graph,
        }
    }
}

/// Opens the CPU, or the GPU that CUDA counts as `ordinal`. The account goes on in the device's memory.
///
/// # Errors
/// When the GPU cannot be had.
pub(super) fn open(
    ordinal: Option<usize>,
    device: &DeviceProfile,
    computing: Computing,
    search: Search,
    memory: Memory,
) -> Result<(Box<dyn Backend>, Memory), DeviceError> {
    match ordinal {
        None => Ok((cpu(device, computing, search), memory)),
        #[cfg(feature = "cuda")]
        Some(ordinal) => {
            let gpu = Opened::new(ordinal, device, computing)?;
            Ok((gpu.backend(search)?, memory.in_pool(gpu.device())))
        }
        #[cfg(not(feature = "cuda"))]
        Some(_) => Err(DeviceError::NoCuda),
    }
}

/// The CPU as a backend.
pub(super) fn cpu(
    device: &DeviceProfile,
    computing: Computing,
    search: Search,
) -> Box<dyn Backend> {
    let Computing {
        threads,
        inputs,
        gemm,
        ..
    } = computing;
    let cache = cpu_cache(device, threads, gemm);
    let products = Products::new(Cpu::new(inputs), gemm, cache, search.stored);
    let products = products.watched_by(search.watch);
    Box::new(OnCpu::<f32>::new(threads, products))
}

/// The cache of searches on this CPU with these threads and this effort.
pub(super) fn cpu_cache(device: &DeviceProfile, threads: usize, gemm: Effort) -> Option<Cache> {
    let name = format!("cpu-{threads}-threads-{gemm}");
    let header = cpu::header(device, threads);
    cache_folder().map(|folder| Cache::new(&folder, &name, header))
}

#[cfg(feature = "cuda")]
pub(super) use gpu::{Opened, cache as gpu_cache};

#[cfg(feature = "cuda")]
mod gpu {
    use half::{bf16, f16};

    use super::*;
    use crate::device::{explain, open};
    use crate::ops::cuda::OnGpu;
    use crate::ops::gemm::Dispatch;
    use crate::ops::gemm::gpu::GpuGemm;
    use crate::ops::launch::GpuElement;

    /// The cache of searches on a GPU with this effort.
    pub(in crate::commands) fn cache(
        gpu: &GpuGemm,
        gemm: Effort,
        ordinal: usize,
        device: &DeviceProfile,
    ) -> Option<Cache> {
        let name = format!("cuda-{ordinal}-{gemm}-{}", gpu.backend());
        let header = gpu.header(device);
        cache_folder().map(|folder| Cache::new(&folder, &name, header))
    }

    /// A GPU that was opened.
    pub(in crate::commands) struct Opened<'a> {
        ordinal: usize,
        device: CudaDevice,
        profile: &'a DeviceProfile,
        computing: Computing,
    }

    impl<'a> Opened<'a> {
        /// Opens the GPU that CUDA counts as `ordinal`.
        ///
        /// # Errors
        /// When the GPU cannot be had.
        pub fn new(
            ordinal: usize,
            profile: &'a DeviceProfile,
            computing: Computing,
        ) -> Result<Self, DeviceError> {
            Ok(Self {
                device: open(ordinal)?,
                ordinal,
                profile,
                computing,
            })
        }

        pub fn device(&self) -> CudaDevice {
            self.device.clone()
        }

        /// The GPU as a backend, with the workspace of its GEMMs.
        ///
        /// # Errors
        /// When the GPU has no memory for the workspace, or does not tell its properties.
        pub fn backend(&self, search: Search) -> Result<Box<dyn Backend>, DeviceError> {
            match self.computing.precision {
                Precision::Float32 => self.computing_in::<f32>(search),
                Precision::Bfloat16 => self.computing_in::<bf16>(search),
                Precision::Float16 => self.computing_in::<f16>(search),
            }
        }

        fn computing_in<T: GpuElement>(
            &self,
            search: Search,
        ) -> Result<Box<dyn Backend>, DeviceError> {
            let explained = |error| explain(error, self.ordinal);
            let Computing {
                inputs,
                gemm,
                gemm_backend,
                cuda_graph,
                ..
            } = self.computing;
            let gpu = GpuGemm::on(&self.device, self.profile, gemm_backend).map_err(explained)?;
            let cache = cache(&gpu, gemm, self.ordinal, self.profile);
            let products = Dispatch::new(gpu, gemm, cache, search.stored);
            let products = products.watched_by(search.watch);
            let backend = OnGpu::<T>::new(&self.device, products, inputs, cuda_graph);
            Ok(Box::new(backend.map_err(explained)?))
        }
    }
}
