//! The backend of a plan: the device, and the GEMMs that it computes.

#[cfg(feature = "cuda")]
use candle_core::CudaDevice;

use indicatif::ProgressBar;

use crate::device::DeviceProfile;
use crate::ops::cpu::OnCpu;
use crate::ops::gemm::{Cache, Cpu, Products, Table, cache_folder, cpu};
use crate::plan::Plan;

/// Start of the search for the fastest GEMMs, and its progress bar.
pub(super) struct Search {
    /// The winners that a checkpoint has stored.
    pub stored: Table,
    pub progress: ProgressBar,
}

/// The CPU as a backend.
pub(super) fn cpu(plan: &Plan, device: &DeviceProfile, search: Search) -> OnCpu<f32> {
    let cache = cpu_cache(plan, device);
    let products = Products::new(Cpu::new(plan.inputs), plan.gemm, cache, search.stored);
    OnCpu::new(plan.threads, products.with_progress(search.progress))
}

/// The cache of searches on this CPU with the plan's threads and effort.
pub(super) fn cpu_cache(plan: &Plan, device: &DeviceProfile) -> Option<Cache> {
    let name = format!("cpu-{}-threads-{}", plan.threads, plan.gemm);
    let header = cpu::header(device, plan.threads);
    cache_folder().map(|folder| Cache::new(&folder, &name, header))
}

#[cfg(feature = "cuda")]
pub(super) use gpu::{Opened, cache as gpu_cache};

#[cfg(feature = "cuda")]
mod gpu {
    use super::*;
    use crate::device::{DeviceError, explain, open};
    use crate::ops::cuda::OnGpu;
    use crate::ops::gemm::Dispatch;
    use crate::ops::gemm::gpu::GpuGemm;
    use crate::ops::launch::GpuElement;

    /// The cache of searches on a GPU with the plan's effort.
    pub(in crate::commands) fn cache(
        gpu: &GpuGemm,
        plan: &Plan,
        ordinal: usize,
        profile: &DeviceProfile,
    ) -> Option<Cache> {
        let name = format!("cuda-{ordinal}-{}-{}", plan.gemm, gpu.backend());
        let header = gpu.header(profile);
        cache_folder().map(|folder| Cache::new(&folder, &name, header))
    }

    /// A GPU that was opened for a plan.
    pub(in crate::commands) struct Opened<'a> {
        ordinal: usize,
        device: CudaDevice,
        plan: &'a Plan,
        profile: &'a DeviceProfile,
    }

    impl<'a> Opened<'a> {
        /// Opens the GPU that CUDA counts as `ordinal`.
        ///
        /// # Errors
        /// When the GPU cannot be had.
        pub fn new(
            ordinal: usize,
            plan: &'a Plan,
            profile: &'a DeviceProfile,
        ) -> Result<Self, DeviceError> {
            Ok(Self {
                device: open(ordinal)?,
                ordinal,
                plan,
                profile,
            })
        }

        pub fn device(&self) -> CudaDevice {
            self.device.clone()
        }

        /// The GPU as a backend, with the workspace of its GEMMs.
        ///
        /// # Errors
        /// When the GPU has no memory for the workspace, or does not tell its properties.
        pub fn backend<T: GpuElement>(&self, search: Search) -> Result<OnGpu<T>, DeviceError> {
            let explained = |error| explain(error, self.ordinal);
            let gpu = GpuGemm::on(&self.device, self.profile, self.plan.gemm_backend)
                .map_err(explained)?;
            let cache = cache(&gpu, self.plan, self.ordinal, self.profile);
            let products = Dispatch::new(gpu, self.plan.gemm, cache, search.stored);
            let products = products.with_progress(search.progress);
            OnGpu::new(
                &self.device,
                products,
                self.plan.inputs,
                self.plan.cuda_graph,
            )
            .map_err(explained)
        }
    }
}
