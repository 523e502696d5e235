//! Properties of a GPU that follow from its compute capability, (major, minor).

/// Oldest compute capability that kernels are compiled for: the oldest that nvcc 13 knows (Turing, 2018).
pub const OLDEST_COMPUTE_CAPABILITY: (u32, u32) = (7, 5);

/// Newest compute capability that some kernels are written for (Hopper). Newer GPUs run those for 8.0.
pub const NEWEST_COMPUTE_CAPABILITY: (u32, u32) = (9, 0);

/// True from [`OLDEST_COMPUTE_CAPABILITY`] on.
pub fn has_kernels(compute_capability: (u32, u32)) -> bool {
    compute_capability >= OLDEST_COMPUTE_CAPABILITY
}

/// True if the tensor cores take bf16: from Ampere on.
pub(super) fn has_bf16(compute_capability: (u32, u32)) -> bool {
    compute_capability >= (8, 0)
}

/// Most shared memory that one block may have, in bytes; every GPU has 48 KiB. Source: "Maximum amount of shared memory
/// per thread block" of the CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability".
pub(super) fn shared_memory_per_block_bytes(compute_capability: (u32, u32)) -> u64 {
    let kib = match compute_capability {
        (7, 0) | (7, 2) => 96,
        (7, 5) => 64,
        (8, 0) | (8, 7) => 163,
        (8, 6) | (8, 9) => 99,
        (9, 0) | (10, _) | (11, _) => 227,
        (12, _) => 99,
        _ => 48,
    };
    kib * 1024
}

/// Cores for fp32 arithmetic per SM. Source: "Number of FP32 cores" in the architecture sections of the CUDA
/// C++ Programming Guide.
pub(super) fn cores_per_sm(compute_capability: (u32, u32)) -> u32 {
    match compute_capability {
        (6, 0) | (7, _) | (8, 0) => 64,
        _ => 128,
    }
}

/// True from Volta on, the first GPUs with tensor cores.
pub(super) fn has_tensor_cores(compute_capability: (u32, u32)) -> bool {
    compute_capability >= (7, 0)
}
