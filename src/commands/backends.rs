//! The backend of a plan: what its products are computed by, and where.

#[cfg(feature = "cuda")]
use candle_core::CudaDevice;

use crate::device::DeviceProfile;
use crate::ops::cpu::OnCpu;
use crate::ops::gemm::{Cache, Cpu, Products, Table, cache_folder, cpu};
use crate::plan::Plan;

/// The CPU; `stored` is what a checkpoint says of products.
pub(super) fn cpu(plan: &Plan, device: &DeviceProfile, stored: Table) -> OnCpu<f32> {
    let name = format!("cpu-{}-threads-{}", plan.threads, plan.gemm);
    let header = cpu::header(device, plan.threads);
    let cache = cache_folder().map(|folder| Cache::new(&folder, &name, header));
    let products = Products::new(Cpu::new(plan.inputs), plan.gemm, cache, stored);
    OnCpu::new(plan.threads, products)
}

#[cfg(feature = "cuda")]
pub(super) use gpu::Opened;

#[cfg(feature = "cuda")]
mod gpu {
    use super::*;
    use crate::config::BackendRequest;
    use crate::device::{DeviceError, explain, open};
    use crate::ops::cuda::{GpuElement, OnGpu};
    use crate::ops::gemm::{Dispatch, gpu::Gpu};

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
        pub fn backend<T: GpuElement>(
            &self,
            request: BackendRequest,
            stored: Table,
        ) -> Result<OnGpu<T>, DeviceError> {
            let explained = |error| explain(error, self.ordinal);
            let gpu = Gpu::on(&self.device, self.profile, request).map_err(explained)?;
            let name = format!("cuda-{}-{}", self.ordinal, self.plan.gemm);
            let header = gpu.header(self.profile);
            let cache = cache_folder().map(|folder| Cache::new(&folder, &name, header));
            let products = Dispatch::new(gpu, self.plan.gemm, cache, stored);
            let how = (self.plan.inputs, self.plan.cuda_graph);
            OnGpu::new(&self.device, products, how).map_err(explained)
        }
    }
}
