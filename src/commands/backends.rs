//! The backend of a plan: what its products are computed by, and where.

#[cfg(feature = "cuda")]
use candle_core::CudaDevice;

use indicatif::ProgressBar;

use crate::device::DeviceProfile;
use crate::ops::cpu::OnCpu;
use crate::ops::gemm::{Cache, Cpu, Products, Table, cache_folder, cpu};
use crate::plan::Plan;

/// What the search for the fastest products begins with, and where it shows how far it is.
pub(super) struct Search {
    /// A checkpoint's.
    pub stored: Table,
    pub progress: ProgressBar,
}

/// The CPU.
pub(super) fn cpu(plan: &Plan, device: &DeviceProfile, search: Search) -> OnCpu<f32> {
    let cache = cpu_cache(plan, device);
    let products = Products::new(Cpu::new(plan.inputs), plan.gemm, cache, search.stored);
    OnCpu::new(plan.threads, products.with_progress(search.progress))
}

/// What searches on this CPU found, with as many threads and as far as the plan's.
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

    /// What searches on a GPU found, as far as the plan's.
    pub(in crate::commands) fn cache(
        gpu: &GpuGemm,
        plan: &Plan,
        (ordinal, profile): (usize, &DeviceProfile),
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

        /// The GPU as a backend, with the workspace of its products.
        ///
        /// # Errors
        /// When it has not even memory for that, or does not tell what it can do.
        pub fn backend<T: GpuElement>(&self, search: Search) -> Result<OnGpu<T>, DeviceError> {
            let explained = |error| explain(error, self.ordinal);
            let gpu = GpuGemm::on(&self.device, self.profile, self.plan.gemm_backend)
                .map_err(explained)?;
            let cache = cache(&gpu, self.plan, (self.ordinal, self.profile));
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
