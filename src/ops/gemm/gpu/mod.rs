//! GEMMs on a GPU: cuBLASLt's algorithms and our own kernels, each a fallback for the other.
//!
//! The fallback of all is the algorithm that cuBLASLt's heuristic ranks first. Where the library does not
//! start, refuses a problem, or is not wanted (`gemm.backend = "ptx"`), the fallback is our simple kernel.

mod candidate;
mod check;
mod cublaslt;
mod offers;
mod trial;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use candle_core::CudaDevice;
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut, DriverError};
use half::{bf16, f16};
use rustc_hash::FxHashMap;

use super::cache::{self, Header};
use super::candidate::{Device, Offer, Operand, Unavailable};
use super::check::{Comparison, Fill, Tolerance};
use super::problem::Problem;
use super::ptx::{self, DeviceOperands};
use super::workspace_bytes;
use crate::device::{DeviceError, DeviceProfile, Hardware};
use crate::ops::launch::gelu::{self, AfterProduct};
use crate::ops::launch::{Gpu, kernels};
use crate::terms::{Effort, GemmBackend, Precision};

pub use candidate::{GpuCandidate, GpuError};
pub use trial::GpuTrial;

use cublaslt::{Addresses, CublasLt, LtError, Workspace};
use offers::{HeuristicResult, TwoSteps};

/// L2 cache sizes that are overwritten before every timing.
const FLUSHED_CACHES: usize = 2;

/// A GPU that computes GEMMs on one stream.
pub struct GpuGemm {
    backend: GemmBackend,
    kernels: Gpu,
    library: Result<CublasLt, LtError>,
    heuristics: RefCell<FxHashMap<Problem, HeuristicResult>>,
    /// Scratch of cuBLASLt, and the partial sums of our own kernels.
    workspace: RefCell<CudaSlice<f32>>,
}

impl GpuGemm {
    /// Opens the GPU that CUDA counts as `ordinal` and allocates the workspace.
    ///
    /// # Errors
    /// When the GPU cannot be opened, or is out of memory.
    pub fn open(
        ordinal: usize,
        profile: &DeviceProfile,
        backend: GemmBackend,
    ) -> Result<Self, DeviceError> {
        let device = crate::device::open(ordinal)?;
        Self::on(&device, profile, backend).map_err(|error| crate::device::explain(error, ordinal))
    }

    /// Allocates the workspace on a GPU that is open.
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

    /// Uses `workspace` for every GEMM on a GPU that is open.
    ///
    /// # Errors
    /// When the GPU does not tell its limits. A library that does not start is no error.
    pub fn new(
        device: &CudaDevice,
        backend: GemmBackend,
        workspace: CudaSlice<f32>,
    ) -> Result<Self, DriverError> {
        Ok(Self {
            kernels: Gpu::new(device)?,
            backend,
            library: CublasLt::start(),
            heuristics: RefCell::default(),
            workspace: RefCell::new(workspace),
        })
    }

    pub fn backend(&self) -> GemmBackend {
        self.backend
    }

    /// Cache header: everything that timings and the choice of candidates depend on.
    pub fn header(&self, device: &DeviceProfile) -> Header {
        let driver = match &device.hardware {
            Hardware::Cuda(cuda) => cuda.driver_version.clone(),
            Hardware::Cpu(_) => None,
        };
        let library = match &self.library {
            Ok(_) => CublasLt::version().to_string(),
            Err(error) => error.to_string(),
        };
        // Kernels that compute GEMMs or come right after them, and the code that launches them.
        let ours = kernels::all().filter(|kernel| {
            let prefixes = ["gemm_", "gelu_"];
            prefixes
                .iter()
                .any(|prefix| kernel.name.starts_with(prefix))
        });
        let launched = [
            include_str!("../ptx/arguments.rs"),
            include_str!("../ptx/launch.rs"),
            include_str!("../ptx/tensor_map.rs"),
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

    /// Bytes that are written before every timing, to evict the operands from the L2 cache.
    fn flush_bytes(&self) -> usize {
        FLUSHED_CACHES * self.kernels.l2_bytes()
    }

    fn launch_cublaslt(
        &self,
        problem: &Problem,
        rank: usize,
        then_gelu: bool,
        operands: &DeviceOperands,
    ) -> Result<(), GpuError> {
        operands.check_dense(problem)?;
        operands.check_addresses()?;
        let mut addresses = operands.addresses();
        let steps = TwoSteps::of(problem).filter(|_| then_gelu);
        let gemm = steps.as_ref().map_or(*problem, |steps| steps.gemm);
        if let Some(TwoSteps {
            gelu: AfterProduct::Forward(_),
            ..
        }) = steps
        {
            addresses.c = addresses.aux;
        }
        let heuristic = self.heuristic(&gemm)?;
        let (Ok(library), Some(algorithm)) = (&self.library, heuristic.algorithms.get(rank)) else {
            return Err(Unavailable(format!("cuBLASLt has no algorithm {rank} for this")).into());
        };
        let bytes = self.workspace_bytes();
        let mut workspace = self.workspace.borrow_mut();
        let (address, _in_use) = workspace.device_ptr_mut(self.stream());
        let workspace = Workspace { address, bytes };
        let stream = self.stream().cu_stream().cast();
        let description = &heuristic.description;
        description.launch(library, algorithm, &addresses, workspace, stream)?;
        match steps {
            Some(steps) => self.apply_gelu(problem, steps.gelu, operands),
            None => Ok(()),
        }
    }

    /// Applies GELU to aux, into C, or multiplies C by its slope at aux.
    fn apply_gelu(
        &self,
        problem: &Problem,
        gelu: AfterProduct,
        operands: &DeviceOperands,
    ) -> Result<(), GpuError> {
        let (kernels, count) = (&self.kernels, problem.m * problem.n);
        let Addresses { aux, c, .. } = operands.addresses();
        // SAFETY: both are dense matrices of the problem's size and type, and C may be written: checked.
        unsafe {
            match problem.inputs.storage() {
                Precision::Float32 => gelu::at_addresses::<f32>(kernels, gelu, aux, c, count),
                Precision::Bfloat16 => gelu::at_addresses::<bf16>(kernels, gelu, aux, c, count),
                Precision::Float16 => gelu::at_addresses::<f16>(kernels, gelu, aux, c, count),
            }
        }?;
        Ok(())
    }
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
            } => self.launch_cublaslt(problem, rank, then_gelu, operands),
            GpuCandidate::NoCublasLt => Err(match self.heuristic(problem) {
                Ok(_) => Unavailable("cuBLASLt was not there when this was chosen".into()).into(),
                Err(error) => error.into(),
            }),
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

    /// The clock of an idle card is a fifth of its clock under load. It rises within some hundred milliseconds.
    const WARM_UP: Duration = Duration::from_millis(300);

    /// Measured by the GPU's own clock, with cold caches.
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
