//! taper's own kernels: PTX that `build/kernels.rs` embeds, found by name and loaded through candle.

use candle_core::cuda_backend::{CudaDevice, CudaError};
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaFunction, DriverError};

/// One kernel, compiled for one compute capability into a module of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub name: &'static str,
    /// Compute capability as nvcc writes it: "80" runs on 8.0 and all newer ones, "90a" on 9.0 alone.
    pub compute: &'static str,
    pub ptx: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("there is no kernel `{name}`")]
    Unknown { name: String },
    #[error(
        "`{name}` needs compute capability {}, this GPU has {}.{}",
        .needs.join(" or "), .has.0, .has.1
    )]
    ComputeCapability {
        name: String,
        needs: Vec<&'static str>,
        has: (u32, u32),
    },
    #[error("`{name}` cannot be loaded: {source}")]
    Load {
        name: String,
        source: candle_core::Error,
    },
}

impl KernelError {
    /// The driver's status, if the driver failed.
    pub(super) fn status(&self) -> Option<CUresult> {
        let error = match self {
            Self::Load { source, .. } => driver_error(source)?.0,
            Self::Unknown { .. } | Self::ComputeCapability { .. } => return None,
        };
        Some(error)
    }

    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unknown { .. } | Self::ComputeCapability { .. } => None,
            Self::Load { .. } => {
                Some("`taper doctor` says which driver is needed for what; a newer one may help")
            }
        }
    }
}

/// The driver's error inside candle's, if there is one.
fn driver_error(error: &candle_core::Error) -> Option<&DriverError> {
    match error {
        candle_core::Error::Cuda(inner) => match inner.downcast_ref::<CudaError>()? {
            CudaError::Load { cuda, .. } => Some(cuda),
            CudaError::Cuda(cuda) => Some(cuda),
            _ => None,
        },
        candle_core::Error::WithBacktrace { inner, .. }
        | candle_core::Error::Context { inner, .. } => driver_error(inner),
        _ => None,
    }
}

/// Every kernel of this build.
pub fn all() -> impl Iterator<Item = Kernel> {
    const KERNELS: &[(&str, &str, &str)] = &include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
    KERNELS
        .iter()
        .map(|&(name, compute, ptx)| Kernel { name, compute, ptx })
}

impl Kernel {
    /// Compute capability that the kernel was compiled for, and whether it runs on that one alone.
    fn made_for(&self) -> ((u32, u32), bool) {
        let digits = self.compute.trim_end_matches('a');
        let number: u32 = digits.parse().unwrap_or(u32::MAX);
        ((number / 10, number % 10), digits != self.compute)
    }

    pub fn runs_on(&self, compute_capability: (u32, u32)) -> bool {
        match self.made_for() {
            (wanted, true) => wanted == compute_capability,
            (oldest, false) => oldest <= compute_capability,
        }
    }

    /// The variant of a kernel compiled for the newest compute capability that runs on this GPU.
    ///
    /// # Errors
    /// [`KernelError::Unknown`], [`KernelError::ComputeCapability`]
    pub fn find(name: &str, compute_capability: (u32, u32)) -> Result<Kernel, KernelError> {
        let variants: Vec<Kernel> = all().filter(|kernel| kernel.name == name).collect();
        let running = variants
            .iter()
            .filter(|kernel| kernel.runs_on(compute_capability));
        match running.max_by_key(|kernel| kernel.made_for()) {
            Some(kernel) => Ok(*kernel),
            None if variants.is_empty() => Err(KernelError::Unknown { name: name.into() }),
            None => Err(KernelError::ComputeCapability {
                name: name.into(),
                needs: variants.iter().map(|kernel| kernel.compute).collect(),
                has: compute_capability,
            }),
        }
    }

    /// Compiles the kernel for this GPU, or takes it from candle's cache.
    ///
    /// # Errors
    /// [`KernelError::Load`]: the driver refuses the kernel, or has no memory left.
    pub fn load(&self, device: &CudaDevice) -> Result<CudaFunction, KernelError> {
        device
            .get_or_load_custom_func(self.name, self.name, self.ptx)
            .map(|function| function.into_cuda_function())
            .map_err(|source| KernelError::Load {
                name: self.name.into(),
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_older_than_a_kernel_is_told_what_it_lacks() {
        let error = Kernel::find("gemm_f32_simple", (7, 0)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`gemm_f32_simple` needs compute capability 75, this GPU has 7.0"
        );
        let error = Kernel::find("gemm_f33_simple", (9, 0)).unwrap_err();
        assert!(matches!(error, KernelError::Unknown { .. }), "{error}");
    }

    #[test]
    fn a_newer_gpu_runs_a_kernel_unless_it_is_for_one_gpu_alone() {
        let kernel = |compute| Kernel {
            name: "",
            compute,
            ptx: "",
        };
        for (compute, runs) in [("80", [false, true, true]), ("90a", [false, true, false])] {
            let found = [(7, 5), (9, 0), (10, 0)].map(|has| kernel(compute).runs_on(has));
            assert_eq!(found, runs, "{compute}");
        }
    }

    #[test]
    fn no_two_kernels_have_the_same_name_and_compute_capability() {
        let mut names: Vec<_> = all().map(|kernel| (kernel.name, kernel.compute)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
