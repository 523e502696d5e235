//! A device whose candidates have the speed and the faults that a test wants. It has a clock of its own.

use std::cell::RefCell;
use std::time::Duration;

use taper::faults::Site;
use taper::memory::{AllocationError, OutOfMemory};
use taper::ops::gemm::candidate::{Device, Offer, Operand, Unavailable};
use taper::ops::gemm::check::{Comparison, Fill, Tolerance};
use taper::ops::gemm::cpu::{Aux, Candidate, Operands, TrialOperands};
use taper::ops::gemm::{Cpu, Problem};
use taper::terms::Effort;

/// Changes what a candidate computed: (C, its width).
pub type Spoil = fn(&mut [f32], usize);

#[derive(Clone, Debug)]
pub struct Scripted {
    pub name: &'static str,
    /// What its timings take, one after the other and again from the start.
    pub seconds: Vec<f64>,
    pub same_bits: bool,
    pub is_spare: bool,
    pub unavailable: Option<&'static str>,
    /// Launches that succeed before every further one fails.
    pub launches: usize,
    pub out_of_memory: bool,
    /// Done to C, and to the pre-activation where there is one.
    pub spoil: Option<Spoil>,
}

pub fn takes(name: &'static str, seconds: f64) -> Scripted {
    Scripted {
        name,
        seconds: vec![seconds],
        same_bits: false,
        is_spare: false,
        unavailable: None,
        launches: usize::MAX,
        out_of_memory: false,
        spoil: None,
    }
}

#[derive(Default)]
pub struct Fake {
    pub candidates: Vec<Scripted>,
    /// Why there is no memory to tune with.
    pub refuses_trials: Option<&'static str>,
    /// Names, in the order of their launches and of their timings.
    pub launched: RefCell<Vec<&'static str>>,
    pub timed: RefCell<Vec<&'static str>>,
}

impl Fake {
    pub fn new(candidates: impl Into<Vec<Scripted>>) -> Self {
        Self {
            candidates: candidates.into(),
            ..Self::default()
        }
    }

    fn find(&self, name: &str) -> &Scripted {
        let mut candidates = self.candidates.iter();
        candidates.find(|candidate| candidate.name == name).unwrap()
    }

    fn count(&self, log: &RefCell<Vec<&'static str>>, name: &'static str) -> usize {
        log.borrow_mut().push(name);
        log.borrow().iter().filter(|other| **other == name).count()
    }

    pub fn times_timed(&self, name: &str) -> usize {
        self.timed
            .borrow()
            .iter()
            .filter(|other| **other == name)
            .count()
    }
}

impl Device for Fake {
    type Candidate = &'static str;
    type Operands<'a> = Operands<'a, f32>;
    type Failure = AllocationError;
    type Trial = TrialOperands<f32>;

    fn offers(&self, _: &Problem, _: Effort) -> Vec<Offer<&'static str>> {
        let offer = |candidate: &Scripted| Offer {
            candidate: candidate.name,
            same_bits: candidate.same_bits,
            is_spare: candidate.is_spare,
            available: match candidate.unavailable {
                Some(because) => Err(Unavailable(because.into())),
                None => Ok(()),
            },
        };
        self.candidates.iter().map(offer).collect()
    }

    fn launch(
        &self,
        problem: &Problem,
        name: &'static str,
        operands: &mut Operands<f32>,
    ) -> Result<(), AllocationError> {
        let (candidate, count) = (self.find(name), self.count(&self.launched, name));
        if count > candidate.launches {
            let site = Site::Forward;
            return Err(if candidate.out_of_memory {
                AllocationError::OutOfMemory(OutOfMemory {
                    site,
                    name: "workspace".into(),
                    bytes: 1,
                    held: 0,
                    limit: None,
                })
            } else {
                AllocationError::Device {
                    site,
                    reason: "the launch was refused".into(),
                }
            });
        }
        let Ok(()) = Cpu::default().launch(problem, Candidate::Whole, operands);
        if let Some(spoil) = candidate.spoil {
            spoil(operands.c, problem.n);
            if let Aux::Written(sum) = &mut operands.aux {
                spoil(sum, problem.n);
            }
        }
        Ok(())
    }

    fn trial_bytes(&self, problem: &Problem) -> u64 {
        Cpu::<f32>::default().trial_bytes(problem)
    }

    fn trial(&self, problems: &[Problem]) -> Result<TrialOperands<f32>, Unavailable> {
        match self.refuses_trials {
            Some(because) => Err(Unavailable(because.into())),
            None => Cpu::default().trial(problems),
        }
    }

    fn operands<'a>(
        &self,
        trial: &'a mut TrialOperands<f32>,
        problem: &Problem,
    ) -> Operands<'a, f32> {
        Cpu::default().operands(trial, problem)
    }

    fn fill(
        &self,
        trial: &mut TrialOperands<f32>,
        problem: &Problem,
        operand: Operand,
        fill: Fill,
    ) -> Result<(), Unavailable> {
        Cpu::default().fill(trial, problem, operand, fill)
    }

    fn read(
        &self,
        trial: &mut TrialOperands<f32>,
        problem: &Problem,
        operand: Operand,
        indices: &[usize],
    ) -> Result<Vec<f32>, Unavailable> {
        Cpu::default().read(trial, problem, operand, indices)
    }

    fn keep(&self, trial: &mut TrialOperands<f32>, problem: &Problem) -> Result<(), Unavailable> {
        Cpu::default().keep(trial, problem)
    }

    fn compare(
        &self,
        trial: &mut TrialOperands<f32>,
        problem: &Problem,
        operand: Operand,
        tolerance: &Tolerance,
    ) -> Result<Comparison, Unavailable> {
        Cpu::default().compare(trial, problem, operand, tolerance)
    }

    fn time(
        &self,
        _: &Problem,
        name: &'static str,
        _: &mut TrialOperands<f32>,
    ) -> Result<Duration, AllocationError> {
        let (candidate, count) = (self.find(name), self.count(&self.timed, name));
        let seconds = candidate.seconds[(count - 1) % candidate.seconds.len()];
        Ok(Duration::from_secs_f64(seconds))
    }
}
