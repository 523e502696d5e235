//! Candidates that a GPU offers for a problem.

use std::rc::Rc;

use super::GpuGemm;
use super::candidate::GpuCandidate;
use super::cublaslt::{Algorithm, Description, LtError};
use crate::ops::gemm::candidate::{Offer, Unavailable};
use crate::ops::gemm::ptx::Tile;
use crate::ops::gemm::{Epilogue, Problem, ptx};
use crate::ops::launch::gelu::AfterProduct;
use crate::terms::{Effort, GemmBackend};

/// Algorithms of cuBLASLt in a limited search.
const LIMITED_ALGORITHMS: usize = 8;
/// Algorithms of cuBLASLt in a full search.
const FULL_ALGORITHMS: usize = 12;

/// Kernels of ours, with a number of slices each, in a limited search.
const LIMITED_KERNELS: usize = 6;
/// Kernels of ours, with a number of slices each, in a full search.
const FULL_KERNELS: usize = 8;
/// Numbers of slices of one kernel among these at most, so that a wrong estimate hides no other kernel.
const MOST_CUTS: usize = 2;

/// Answer of cuBLASLt's heuristic for one problem.
pub(super) struct Heuristic {
    pub description: Description,
    /// Expected to be the fastest first.
    pub algorithms: Vec<Algorithm>,
}

pub(super) type HeuristicResult = Result<Rc<Heuristic>, LtError>;

/// A GEMM whose GELU is applied by a kernel of ours afterwards.
pub(super) struct TwoSteps {
    /// The problem without GELU.
    pub gemm: Problem,
    pub gelu: AfterProduct,
}

impl TwoSteps {
    /// `None` without GELU, and where C cannot hold the sum in between.
    pub fn of(problem: &Problem) -> Option<Self> {
        if problem.accumulate || !problem.has_output_like_inputs() {
            return None;
        }
        let (epilogue, gelu) = match problem.epilogue {
            Epilogue::None | Epilogue::Bias => return None,
            Epilogue::BiasGelu(form) => (Epilogue::Bias, AfterProduct::Forward(form)),
            Epilogue::GeluBackward(form) => (Epilogue::None, AfterProduct::Backward(form)),
        };
        Some(Self {
            gemm: Problem {
                epilogue,
                ..*problem
            },
            gelu,
        })
    }
}

impl GpuGemm {
    /// Asks cuBLASLt's heuristic once per problem, so that the answer stays the same.
    pub(super) fn heuristic(&self, problem: &Problem) -> HeuristicResult {
        let library = self.library.as_ref().map_err(|error| *error)?;
        if let Some(known) = self.heuristics.borrow().get(problem) {
            return known.clone();
        }
        let ask = || {
            let description = Description::new(problem)?;
            let bytes = self.workspace_bytes();
            let algorithms = description.heuristic(library, bytes, FULL_ALGORITHMS)?;
            Ok(Rc::new(Heuristic {
                description,
                algorithms,
            }))
        };
        let answer: HeuristicResult = ask();
        self.heuristics
            .borrow_mut()
            .insert(*problem, answer.clone());
        answer
    }

    /// Offers the library's algorithms, both with its own epilogue and with our GELU afterwards.
    pub(super) fn cublaslt_offers(
        &self,
        problem: &Problem,
        effort: Effort,
    ) -> Vec<Offer<GpuCandidate>> {
        let mut offers = self.algorithm_offers(problem, effort, false);
        if let Some(steps) = TwoSteps::of(problem) {
            let in_two_steps = self.algorithm_offers(&steps.gemm, effort, true);
            // The one refusal would be said twice.
            let available = in_two_steps
                .into_iter()
                .filter(|offer| offer.available.is_ok());
            offers.extend(available);
            offers.sort_by_key(|offer| offer.available.is_err());
        }
        offers
    }

    fn algorithm_offers(
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
        let offer = |candidate, available| Offer {
            candidate,
            same_bits: false,
            is_spare: false,
            available,
        };
        let heuristic = match self.heuristic(problem) {
            Ok(heuristic) => heuristic,
            Err(error) => {
                let unavailable = Unavailable(error.to_string());
                return vec![offer(GpuCandidate::NoCublasLt, Err(unavailable))];
            }
        };
        let algorithms = heuristic.algorithms.iter().take(wanted).enumerate();
        let candidates = algorithms.map(|(rank, algorithm)| GpuCandidate::CublasLt {
            rank,
            fingerprint: algorithm.fingerprint,
            then_gelu,
        });
        candidates
            .map(|candidate| offer(candidate, Ok(())))
            .collect()
    }

    /// Offers our kernels. The simple one, which takes every shape, comes first. It is spare: on CUDA cores a large
    /// GEMM takes seconds. Then come those that are worth a trial, the most promising first. The rest is spare, too.
    pub(super) fn ptx_offers(&self, problem: &Problem, effort: Effort) -> Vec<Offer<GpuCandidate>> {
        let (limits, sm_count) = (self.kernels.limits(), self.kernels.sm_count());
        let offer = |tile: Tile, split_k, is_spare| Offer {
            candidate: GpuCandidate::Ptx { tile, split_k },
            same_bits: false,
            is_spare,
            available: tile
                .fits(problem, limits)
                .map_err(|misfit| Unavailable(misfit.to_string())),
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
}
