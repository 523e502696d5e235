//! cuBLASLt's algorithms: which there are, which are recommended, and what a program can ask about them.
//!
//! All but one compute the same; they differ in the workspace that they ask for, so that choosing one, and being short
//! of workspace, can be tested. The other one adds parts of a sum in the result's own type, and is recommended before
//! all others to whoever does not rule it out.

use std::ffi::c_uint;
use std::process;

use super::blas_lt::{Preference, write};
use super::blas_status::{Outcome, Status};

/// A `cublasLtMatmulAlgo_t`: which one, under a mark that says that it is one of ours, and a word that nobody reads.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Algorithm([u64; 8]);

const MARK: u64 = u64::from_le_bytes(*b"vgpualgo");

/// An algorithm as the library tells about it.
pub(super) struct Configuration {
    id: u32,
    /// A `cublasLtMatmulTile_t`.
    tile: u32,
    /// A `cublasLtMatmulStages_t`.
    stages: u32,
    /// Parts that K is cut into.
    parts: u32,
    /// The `cublasLtReductionScheme_t` by which they are added.
    reduction: u32,
    pub workspace_bytes: u64,
}

/// `CUBLASLT_REDUCTION_SCHEME_NONE` and `..._OUTPUT_TYPE`.
const NO_REDUCTION: u32 = 0;
const IN_OUTPUT_TYPE: u32 = 4;

/// In the order in which they are recommended.
static ALGORITHMS: [Configuration; 5] = [
    Configuration {
        parts: 2,
        reduction: IN_OUTPUT_TYPE,
        ..whole(6, 15, 11, 64 << 10)
    },
    whole(21, 20, 15, 4 << 20),
    whole(24, 18, 9, 0),
    whole(31, 17, 10, 1 << 20),
    whole(66, 24, 16, 32 << 20),
];

/// An algorithm that does not cut K.
const fn whole(id: u32, tile: u32, stages: u32, workspace_bytes: u64) -> Configuration {
    Configuration {
        id,
        tile,
        stages,
        parts: 1,
        reduction: NO_REDUCTION,
        workspace_bytes,
    }
}

impl Configuration {
    /// Whether parts of sums over K are rounded to the result's type, and added in it.
    pub fn halves(&self) -> bool {
        self.reduction == IN_OUTPUT_TYPE
    }

    /// Whether it may multiply over `k`, for a program with this preference.
    fn fits(&self, preference: &Preference, k: usize) -> bool {
        self.workspace_bytes <= preference.workspace_bytes
            && self.reduction & !preference.reductions == 0
            && (self.parts == 1 || self.parts as usize <= k)
    }

    /// The value of a `cublasLtMatmulAlgoConfigAttributes_t`, and how many bytes it has.
    fn attribute(&self, which: c_uint) -> Option<(u32, usize)> {
        let long = match which {
            0 => self.id,
            1 => self.tile,
            2 => self.parts,
            3 => self.reduction,
            // The swizzling of blocks, and an option without a name.
            4 | 5 => 0,
            6 => self.stages,
            // The shapes of instructions and of clusters, which the library chooses.
            7 | 8 => return Some((0, 2)),
            _ => return None,
        };
        Some((long, 4))
    }
}

impl Algorithm {
    /// What it stands for, if it is one of ours.
    pub(super) fn configuration(&self) -> Outcome<&'static Configuration> {
        let [mark, which, ..] = self.0;
        let known = ALGORITHMS.get(which as usize).filter(|_| mark == MARK);
        known.ok_or(Status::INVALID_VALUE)
    }
}

/// The algorithms for products over `k`, the best first.
pub(super) fn recommended(
    preference: Preference,
    k: usize,
) -> impl Iterator<Item = (Algorithm, &'static Configuration)> {
    let all = ALGORITHMS.iter().enumerate();
    let fitting = all.filter(move |(_, configuration)| configuration.fits(&preference, k));
    fitting.map(|(which, configuration)| {
        let words = [MARK, which as u64, 0, 0, 0, 0, 0, of_this_process()];
        (Algorithm(words), configuration)
    })
}

/// A number that another process does not have. No library promises that an algorithm has the same bytes there.
fn of_this_process() -> u64 {
    let address = (&raw const ALGORITHMS).addr() as u64;
    u64::from(process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ address
}

/// A size of zero asks how large the attribute is.
///
/// # Safety
/// `algorithm` is null or may be read; `out` is null or `bytes` of it may be written; `written` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulAlgoConfigGetAttribute(
    algorithm: *const Algorithm,
    which: c_uint,
    out: *mut u8,
    bytes: usize,
    written: *mut usize,
) -> Status {
    // SAFETY: as the caller promises.
    let algorithm = unsafe { crate::driver::guard::read(algorithm) };
    let algorithm = algorithm.map_err(|_| Status::INVALID_VALUE);
    let answered = algorithm.and_then(|algorithm| {
        let found = algorithm.configuration()?.attribute(which);
        let (value, size) = found.ok_or(Status::INVALID_VALUE)?;
        if bytes != 0 {
            if bytes != size || out.is_null() {
                return Err(Status::INVALID_VALUE);
            }
            // SAFETY: not null, the caller promises `size` bytes, and no attribute has more than a word.
            unsafe { out.copy_from_nonoverlapping(value.to_le_bytes().as_ptr(), size) };
        }
        if written.is_null() && bytes != 0 {
            Ok(())
        } else {
            unsafe { write(written, size) }
        }
    });
    answered.into()
}
