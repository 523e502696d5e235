//! The CPU's instructions for bf16, and proof that this process may execute them.
//!
//! A proof can be made by its probe alone. Code that executes such instructions takes one, so that safe code cannot
//! reach an instruction that the CPU or the operating system lacks.

/// Proof that this process may execute AVX512_BF16, AVX-512 (F, BW, CD, DQ and VL), AVX2 and FMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512Bf16(());

impl Avx512Bf16 {
    /// Asks the CPU and the operating system. The standard library keeps their answers.
    pub fn probe() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        let found = false;
        found.then_some(Self(()))
    }
}

/// Proof that this process may use the tiles of AMX and multiply bf16 in them, and that it may execute what
/// [`Avx512Bf16`] proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amx {
    avx512_bf16: Avx512Bf16,
}

impl Amx {
    /// Asks the CPU for the instructions and Linux for permission to use the tiles. The answers are kept.
    pub fn probe() -> Option<Self> {
        let avx512_bf16 = Avx512Bf16::probe()?;
        may_use_tiles().then_some(Self { avx512_bf16 })
    }

    pub fn avx512_bf16(self) -> Avx512Bf16 {
        self.avx512_bf16
    }
}

/// Must run on a CPU with AVX512_BF16: those have CPUID leaf 7.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn may_use_tiles() -> bool {
    use std::arch::x86_64::__cpuid_count;
    use std::sync::LazyLock;

    /// CPUID leaf 7, EDX: AMX_BF16 and AMX_TILE.
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    /// arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): Linux saves the tiles of processes that asked.
    const REQUEST: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;

    static MAY: LazyLock<bool> = LazyLock::new(|| {
        let found = __cpuid_count(7, 0).edx;
        if found & BF16 == 0 || found & TILE == 0 {
            return false;
        }
        // SAFETY: asks for a permission of this process, and touches no memory.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
    });
    *MAY
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn may_use_tiles() -> bool {
    false
}
