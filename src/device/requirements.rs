//! Requirements of the driver. docs/drivers.md says where each of them comes from.

/// A version of CUDA that a driver supports, and what needs it.
#[derive(Clone, Copy, Debug)]
pub struct Requirement {
    /// (major, minor)
    pub cuda: (u32, u32),
    /// The first driver for it: "CUDA Toolkit and Corresponding Driver Versions" of NVIDIA's release notes.
    pub driver: u32,
    pub what: &'static str,
}

/// The oldest first; without the first one nothing runs on a GPU.
pub const REQUIREMENTS: [Requirement; 3] = [
    Requirement {
        cuda: (12, 1),
        driver: 530,
        what: "compute capability 7.5 to 9.0, with cuBLAS 12",
    },
    Requirement {
        cuda: (12, 8),
        driver: 570,
        what: "compute capability 10.0 and 12.0",
    },
    Requirement {
        cuda: (13, 0),
        driver: 580,
        what: "cuBLAS 13",
    },
];

/// The oldest CUDA that a driver must support for a run on a GPU.
pub const OLDEST_CUDA: (u32, u32) = REQUIREMENTS[0].cuda;
