//! What can go wrong with a launch.

use cudarc::driver::DriverError;

use crate::ops::kernels::KernelError;

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A driver's code, by which [`crate::error`] knows that memory is gone.
    #[error(transparent)]
    Driver(#[from] DriverError),
}
