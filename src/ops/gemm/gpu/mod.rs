//! Products on a GPU: cuBLASLt's algorithms and our own kernels, each a fallback for the other.
//!
//! The fallback of all is the algorithm that cuBLASLt's heuristic names first; where the library does not
//! start, refuses a problem, or is not wanted (`gemm.backend = "ptx"`), it is our simple kernel.

mod candidate;
mod cublaslt;
mod trial;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use candle_core::CudaDevice;
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, DriverError};
use half::{bf16, f16};

use super::cache::{self, Header};
use super::candidate::{Device, Offer, Operand, Unavailable};
use super::check::{Comparison, Fill, Tolerance};
use super::problem::{Epilogue, Problem};
use super::ptx::{self, DeviceOperands, Tile};
use super::workspace_bytes;
use crate::device::{DeviceError, DeviceProfile, Hardware};
use crate::ops::cuda::gelu;
use crate::ops::cuda::gelu::AfterProduct;
use crate::ops::{cuda, kernels};
use crate::terms::{Effort, GemmBackend, Precision};

pub use candidate::{GpuCandidate, GpuError};
use cublaslt::{Addresses, Algorithm, CublasLt, Description, LtError};
pub use trial::GpuTrial;

/// Algorithms that are asked of cuBLASLt in a limited and in a full search.
const LIMITED_ALGORITHMS: usize = 8;
const FULL_ALGORITHMS: usize = 12;

/// Kernels of ours, with a number of slices each, that are tried in a limited and in a full search.
const LIMITED_KERNELS: usize = 6;
const FULL_KERNELS: usize = 8;
/// Of these, numbers of slices of one kernel at most: an estimate that is off hides no other kernel.
const MOST_CUTS: usize = 2;

/// Level-2 caches that a timing writes beforehand.
const FLUSHED_CACHES: usize = 2;

/// What cuBLASLt offers for a problem.
type Offered = Result<Rc<(Description, Vec<Algorithm>)>, LtError>;

/// A GPU that computes products on one stream.
pub struct GpuGemm {
    backend: GemmBackend,
    kernels: cuda::Gpu,
    library: Result<CublasLt, LtError>,
    offered: RefCell<HashMap<Problem, Offered>>,
    /// For cuBLASLt and for the partial sums of our own kernels.
    workspace: RefCell<CudaSlice<f32>>,
}

impl GpuGemm {
    /// Products on the GPU that CUDA counts as `ordinal`, with a workspace of their own.
    ///
    /// # Errors
    /// When the GPU cannot be had, or has not even memory for the workspace.
    pub fn open(
        ordinal: usize,
        profile: &DeviceProfile,
        backend: GemmBackend,
    ) -> Result<Self, DeviceError> {
        let device = crate::device::open(ordinal)?;
        Self::on(&device, profile, backend).map_err(|error| crate::device::explain(error, ordinal))
    }

    /// As [`GpuGemm::open`], on a GPU that is open.
    ///
    /// # Errors
    /// The driver's.
    pub fn on(
        device: &CudaDevice,
        profile: &DeviceProfile,
        backend: GemmBackend,
    ) -> Result<Self, DriverError> {
        let bytes = match &profile.hardware {
            Hardware::Cuda(cuda) => workspace_bytes(cuda),
            Hardware::Cpu(_) => 0,
        };
        let workspace = device
            .cuda_stream()
            .alloc_zeros(bytes as usize / size_of::<f32>());
        Self::new(device, backend, workspace?)
    }

    /// `workspace` is what every product may use beside its operands.
    ///
    /// # Errors
    /// When the GPU does not tell its limits. A library that does not start is no error.
    pub fn new(
        device: &CudaDevice,
        backend: GemmBackend,
        workspace: CudaSlice<f32>,
    ) -> Result<Self, DriverError> {
        Ok(Self {
            kernels: cuda::Gpu::new(device)?,
            backend,
            library: CublasLt::start(),
            offered: RefCell::default(),
            workspace: RefCell::new(workspace),
        })
    }

    pub fn backend(&self) -> GemmBackend {
        self.backend
    }

    /// What timings depend on, and which of cuBLASLt's algorithms and of our kernels there are.
    pub fn header(&self, device: &DeviceProfile) -> Header {
        let driver = match &device.hardware {
            Hardware::Cuda(cuda) => cuda.driver_version.clone(),
            Hardware::Cpu(_) => None,
        };
        let library = match &self.library {
            Ok(_) => CublasLt::version().to_string(),
            Err(error) => error.to_string(),
        };
        // What computes products, or comes right after them, and how it is launched.
        let ours = kernels::all().filter(|kernel| {
            let prefixes = ["gemm_", "gelu_"];
            prefixes
                .iter()
                .any(|prefix| kernel.name.starts_with(prefix))
        });
        let launched = [
            include_str!("../ptx/launch.rs"),
            include_str!("../ptx/tile.rs"),
        ];
        let ours = ours.map(|kernel| kernel.ptx).chain(launched);
        let rows = [
            ("device", device.name.clone()),
            ("SMs", self.kernels.sm_count().to_string()),
            ("driver", driver.unwrap_or_else(|| "unknown".into())),
            ("cuBLASLt", library),
            ("kernels", cache::fingerprint(ours)),
            ("workspace bytes", self.workspace_bytes().to_string()),
            ("backend", self.backend.to_string()),
        ];
        rows.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.kernels.stream()
    }

    fn workspace_bytes(&self) -> usize {
        self.workspace.borrow().num_bytes()
    }

    /// Written before every timing, so that the level-2 cache holds nothing of the operands.
    fn flush_bytes(&self) -> usize {
        FLUSHED_CACHES * self.kernels.l2_bytes()
    }

    /// What cuBLASLt has for a problem, always the same for the same problem.
    fn offered(&self, problem: &Problem) -> Offered {
        let library = self.library.as_ref().map_err(|error| *error)?;
        if let Some(known) = self.offered.borrow().get(problem) {
            return known.clone();
        }
        let describe = || {
            let description = Description::new(problem)?;
            let bytes = self.workspace_bytes();
            let found = description.heuristic(library, bytes, FULL_ALGORITHMS)?;
            Ok(Rc::new((description, found)))
        };
        let offered: Offered = describe();
        self.offered.borrow_mut().insert(*problem, offered.clone());
        offered
    }

    /// With the epilogue that the library has, and with ours after it.
    fn cublaslt_offers(&self, problem: &Problem, effort: Effort) -> Vec<Offer<GpuCandidate>> {
        let mut offers = self.cublaslt_offers_of(problem, effort, false);
        if let Some((first, _)) = in_two_steps(problem) {
            let both = self.cublaslt_offers_of(&first, effort, true);
            // The one refusal would be said twice.
            offers.extend(both.into_iter().filter(|offer| offer.available.is_ok()));
            offers.sort_by_key(|offer| offer.available.is_err());
        }
        offers
    }

    fn cublaslt_offers_of(
        &self,
        problem: &Problem,
        effort: Effort,
        then_gelu: bool,
    ) -> Vec<Offer<GpuCandidate>> {
        let wanted = match effort {
            Effort::Off => 1,
            Effort::Limited => LIMITED_ALGORITHMS,
            Effort::Full => FULL_ALGORITHMS,
        };
        match self.offered(problem) {
            Ok(offered) => (offered.1.iter().take(wanted).enumerate())
                .map(|(rank, algorithm)| Offer {
                    candidate: GpuCandidate::CublasLt {
                        rank,
                        fingerprint: algorithm.fingerprint,
                        then_gelu,
                    },
                    same_bits: false,
                    is_spare: false,
                    available: Ok(()),
                })
                .collect(),
            Err(error) => vec![Offer {
                candidate: GpuCandidate::NoCublasLt,
                same_bits: false,
                is_spare: false,
                available: Err(Unavailable(error.to_string())),
            }],
        }
    }

    /// The kernel that takes every shape comes first; it is spare, for on CUDA cores a large product takes seconds. Then
    /// come those that are worth a trial, the most promising first, and the rest is spare, too.
    fn ptx_offers(&self, problem: &Problem, effort: Effort) -> Vec<Offer<GpuCandidate>> {
        let (limits, sm_count) = (self.kernels.limits(), self.kernels.sm_count());
        let offer = |tile: Tile, split_k, is_spare| Offer {
            candidate: GpuCandidate::Ptx { tile, split_k },
            same_bits: false,
            is_spare,
            available: tile
                .fits(problem, limits)
                .map_err(|reason| Unavailable(reason.to_string())),
        };
        let wanted = match effort {
            Effort::Off => 0,
            _ if self.backend == GemmBackend::Cublaslt => 0,
            Effort::Limited => LIMITED_KERNELS,
            Effort::Full => FULL_KERNELS,
        };
        if wanted == 0 {
            return vec![offer(Tile::Simple, 1, effort != Effort::Off)];
        }
        let workspace = self.workspace.borrow().len();
        let mut offers = vec![offer(Tile::Simple, 1, true)];
        let mut tried: Vec<Tile> = Vec::new();
        for (tile, split_k) in ptx::ranked(problem, limits, sm_count, workspace) {
            let cuts = tried.iter().filter(|other| **other == tile).count();
            let is_tried = tried.len() < wanted && cuts < MOST_CUTS;
            if is_tried {
                tried.push(tile);
            }
            offers.push(offer(tile, split_k, !is_tried));
        }
        let unavailable = Tile::all(problem.inputs)
            .filter(|tile| *tile != Tile::Simple && tile.fits(problem, limits).is_err());
        offers.extend(unavailable.map(|tile| offer(tile, 1, false)));
        offers
    }

    fn launch_cublaslt(
        &self,
        problem: &Problem,
        (rank, then_gelu): (usize, bool),
        operands: &DeviceOperands,
    ) -> Result<(), GpuError> {
        operands.check_dense(problem)?;
        operands.check_addresses()?;
        let mut addresses = operands.addresses();
        let steps = in_two_steps(problem).filter(|_| then_gelu);
        let product = steps.map_or(*problem, |(product, _)| product);
        if let Some((_, AfterProduct::Forward(_))) = steps {
            addresses.c = addresses.aux;
        }
        let offered = self.offered(&product)?;
        let (description, algorithms) = &*offered;
        let (Ok(library), Some(algorithm)) = (&self.library, algorithms.get(rank)) else {
            return Err(Unavailable(format!("cuBLASLt has no algorithm {rank} for this")).into());
        };
        let bytes = self.workspace_bytes();
        let mut workspace = self.workspace.borrow_mut();
        let (address, _in_use) = workspace.device_ptr_mut(self.stream());
        let stream = self.stream().cu_stream().cast();
        description.launch(library, algorithm, &addresses, (address, bytes), stream)?;
        match steps {
            Some((_, after)) => self.apply_gelu(problem, after, operands),
            None => Ok(()),
        }
    }

    /// From aux to C, or of aux on C.
    fn apply_gelu(
        &self,
        problem: &Problem,
        after: AfterProduct,
        operands: &DeviceOperands,
    ) -> Result<(), GpuError> {
        let (kernels, count) = (&self.kernels, problem.m * problem.n);
        let Addresses { aux, c, .. } = operands.addresses();
        // SAFETY: both are dense matrices of the problem's size and type, and C may be written: checked.
        unsafe {
            match problem.inputs.storage() {
                Precision::Float32 => gelu::at_addresses::<f32>(kernels, after, (aux, c), count),
                Precision::Bfloat16 => gelu::at_addresses::<bf16>(kernels, after, (aux, c), count),
                Precision::Float16 => gelu::at_addresses::<f16>(kernels, after, (aux, c), count),
            }
        }?;
        Ok(())
    }
}

/// A product without GELU, and what is left to do, where there is GELU.
fn in_two_steps(problem: &Problem) -> Option<(Problem, AfterProduct)> {
    if problem.accumulate || !problem.has_output_like_inputs() {
        return None;
    }
    let (epilogue, after) = match problem.epilogue {
        Epilogue::None | Epilogue::Bias => return None,
        Epilogue::BiasGelu(form) => (Epilogue::Bias, AfterProduct::Forward(form)),
        Epilogue::GeluBackward(form) => (Epilogue::None, AfterProduct::Backward(form)),
    };
    let product = Problem {
        epilogue,
        ..*problem
    };
    Some((product, after))
}

impl Device for GpuGemm {
    type Candidate = GpuCandidate;
    type Operands<'a> = DeviceOperands<'a>;
    type Failure = GpuError;
    type Trial = GpuTrial;

    fn offers(&self, problem: &Problem, effort: Effort) -> Vec<Offer<GpuCandidate>> {
        let mut offers = match self.backend {
            GemmBackend::Ptx => Vec::new(),
            // `fma` is refused before a GPU is opened.
            GemmBackend::Auto | GemmBackend::Cublaslt | GemmBackend::Fma => {
                self.cublaslt_offers(problem, effort)
            }
        };
        offers.extend(self.ptx_offers(problem, effort));
        offers
    }

    fn launch(
        &self,
        problem: &Problem,
        candidate: GpuCandidate,
        operands: &mut DeviceOperands,
    ) -> Result<(), GpuError> {
        match candidate {
            GpuCandidate::CublasLt {
                rank, then_gelu, ..
            } => self.launch_cublaslt(problem, (rank, then_gelu), operands),
            GpuCandidate::NoCublasLt => Err(self.offered(problem).map(|_| ()).err().map_or_else(
                || Unavailable("cuBLASLt was not there when this was chosen".into()).into(),
                GpuError::from,
            )),
            GpuCandidate::Ptx { tile, split_k } => {
                let mut workspace = self.workspace.borrow_mut();
                let mut workspace = workspace.as_view_mut();
                let workspace = Some(&mut workspace);
                ptx::launch(&self.kernels, problem, tile, split_k, operands, workspace)?;
                Ok(())
            }
        }
    }

    fn trial_bytes(&self, problem: &Problem) -> u64 {
        trial::bytes(problem, self.flush_bytes())
    }

    fn trial(&self, problems: &[Problem]) -> Result<GpuTrial, Unavailable> {
        GpuTrial::new(self.stream().clone(), problems, self.flush_bytes())
    }

    fn operands<'a>(&self, trial: &'a mut GpuTrial, problem: &Problem) -> DeviceOperands<'a> {
        trial.operands(problem)
    }

    fn fill(
        &self,
        trial: &mut GpuTrial,
        problem: &Problem,
        operand: Operand,
        fill: Fill,
    ) -> Result<(), Unavailable> {
        trial.fill(&self.kernels, problem, operand, fill)
    }

    fn read(
        &self,
        trial: &mut GpuTrial,
        problem: &Problem,
        operand: Operand,
        indices: &[usize],
    ) -> Result<Vec<f32>, Unavailable> {
        trial.read(&self.kernels, problem, operand, indices)
    }

    fn keep(&self, trial: &mut GpuTrial, problem: &Problem) -> Result<(), Unavailable> {
        trial.keep(problem)
    }

    fn compare(
        &self,
        trial: &mut GpuTrial,
        problem: &Problem,
        operand: Operand,
        tolerance: &Tolerance,
    ) -> Result<Comparison, Unavailable> {
        trial.compare(&self.kernels, problem, operand, tolerance)
    }

    /// An idle card's clock is a fifth of what it is under load, and rises within some hundred milliseconds.
    const WARM_UP: Duration = Duration::from_millis(300);

    /// By the GPU's own clock, with cold caches.
    fn time(
        &self,
        problem: &Problem,
        candidate: GpuCandidate,
        trial: &mut GpuTrial,
    ) -> Result<Duration, GpuError> {
        let (stream, flags) = (self.stream(), Some(CUevent_flags::CU_EVENT_DEFAULT));
        stream.memset_zeros(&mut trial.flush)?;
        let start = stream.record_event(flags)?;
        self.launch(problem, candidate, &mut trial.operands(problem))?;
        let end = stream.record_event(flags)?;
        let milliseconds = start.elapsed_ms(&end)?;
        Ok(Duration::from_secs_f64(
            f64::from(milliseconds.max(0.0)) / 1e3,
        ))
    }
}
