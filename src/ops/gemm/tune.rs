//! The fastest candidate for a problem that is also right.
//!
//! Every candidate but the spare ones is verified (`verify.rs`), then timed in rounds: each round times every candidate once,
//! so that what else the machine does meets all of them alike. The fastest must beat the fallback by
//! more than 2 %: a difference that the next run would not find again is not worth other code.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::candidate::{Device, Offer, Operand, Unavailable};
use super::check::Fill;
use super::problem::Problem;
use super::verify::Verifier;
use crate::terms::Effort;
use crate::units;

/// Timings of one candidate; of these the median counts.
const ROUNDS: usize = 7;

/// A candidate this many times slower than the best is timed once.
const HOPELESS: f64 = 3.0;

/// What a challenger may take at most, relative to the fallback.
const HYSTERESIS: f64 = 0.98;

/// Seconds of timing that one problem may take; on a slow card fewer rounds fit in.
fn seconds_allowed(effort: Effort) -> f64 {
    match effort {
        Effort::Off => 0.0,
        Effort::Limited => 0.5,
        Effort::Full => 5.0,
    }
}

/// What tuning found out about one candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TuneOutcome {
    Timed {
        /// Median.
        seconds: f64,
    },
    Unavailable(Unavailable),
    /// It computes something else.
    Wrong(String),
    /// It can run, but time was up, or it is a spare one.
    Untimed,
}

/// What tuning found out about one problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuned<C> {
    /// In order of trust, the fallback first.
    pub outcomes: Vec<(C, TuneOutcome)>,
    /// An index of `outcomes`.
    pub chosen: usize,
    pub because: String,
    /// Candidates were verified and timed; without a search the choice is worth nothing to another run.
    pub searched: bool,
    /// What was timed in the place of the problem, for want of room.
    pub stand_in: Option<Problem>,
}

impl<C> Tuned<C> {
    /// What a challenger had to beat: the first that was timed, or else the first that can be used.
    pub fn fallback(&self) -> usize {
        fallback(&self.outcomes)
    }

    /// Why it is not the first, which everything relies on elsewhere.
    pub fn passed_over(&self) -> Option<String>
    where
        C: std::fmt::Display,
    {
        let (first, outcome) = self.outcomes.first()?;
        match outcome {
            _ if !self.is_sound() => None,
            TuneOutcome::Unavailable(because) => {
                Some(format!("`{first}` cannot be used: {because}"))
            }
            TuneOutcome::Wrong(because) => Some(format!("`{first}` is wrong: {because}")),
            TuneOutcome::Timed { .. } | TuneOutcome::Untimed => None,
        }
    }

    /// Whether the chosen candidate can compute the problem, and right.
    pub fn is_sound(&self) -> bool {
        is_usable(&self.outcomes[self.chosen])
    }

    /// Whether a search found the choice, so that it counts for another run, too.
    pub fn is_found(&self) -> bool {
        let chosen = self.outcomes.get(self.chosen);
        self.searched && chosen.is_some_and(is_timed)
    }

    /// How often the product that was timed goes into `problem`, by their operations.
    pub fn scale(&self, problem: &Problem) -> f64 {
        let timed = self.stand_in.as_ref().unwrap_or(problem);
        problem.flops() as f64 / timed.flops() as f64
    }
}

impl<C: Clone> Tuned<C> {
    /// Candidates that can take over, one after the other: the chosen one, then the fastest of the
    /// rest, then what was not timed. Spare ones among these were not verified, no more than without a search.
    pub fn order(&self) -> Vec<C> {
        let rank = |index: usize| match &self.outcomes[index].1 {
            _ if index == self.chosen => Some(-1.0),
            TuneOutcome::Timed { seconds } => Some(*seconds),
            TuneOutcome::Untimed => Some(f64::INFINITY),
            TuneOutcome::Unavailable(_) | TuneOutcome::Wrong(_) => None,
        };
        let ranked = (0..self.outcomes.len()).filter_map(|index| Some((rank(index)?, index)));
        let mut ranked: Vec<(f64, usize)> = ranked.collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        let candidate = |(_, index): (f64, usize)| self.outcomes[index].0.clone();
        ranked.into_iter().map(candidate).collect()
    }
}

impl<C: ToString> Tuned<C> {
    /// With the names of the candidates, as caches keep it.
    pub fn by_name(&self) -> Tuned<String> {
        let named =
            |(candidate, outcome): &(C, TuneOutcome)| (candidate.to_string(), outcome.clone());
        Tuned {
            outcomes: self.outcomes.iter().map(named).collect(),
            chosen: self.chosen,
            because: self.because.clone(),
            searched: self.searched,
            stand_in: self.stand_in,
        }
    }
}

/// The search over several problems, with one set of buffers.
pub struct Tuner<'a, D: Device> {
    device: &'a D,
    effort: Effort,
    room: u64,
    trial: Result<D::Trial, Unavailable>,
    is_warm: bool,
}

impl<'a, D: Device> Tuner<'a, D> {
    /// For `problems`, in at most `room` bytes where that is known.
    pub fn new(device: &'a D, problems: &[Problem], effort: Effort, room: Option<u64>) -> Self {
        let room = room.unwrap_or(u64::MAX);
        let problems: Vec<Problem> = problems
            .iter()
            .filter(|_| effort != Effort::Off)
            .filter_map(|problem| device.stand_in(problem, room))
            .collect();
        Self {
            device,
            effort,
            room,
            trial: match problems.is_empty() {
                true => Err(Unavailable("there is nothing to tune".into())),
                false => device.trial(&problems),
            },
            is_warm: false,
        }
    }

    /// Verifies and times every candidate that the device offers for one of the problems. A lack of
    /// memory leaves the fallback.
    pub fn tune(&mut self, problem: &Problem) -> Tuned<D::Candidate> {
        let (device, effort) = (self.device, self.effort);
        let offers = device.offers(problem, effort);
        if effort == Effort::Off {
            return without_search(offers, "no search was asked for");
        }
        let asked = problem;
        let Some(problem) = &device.stand_in(asked, self.room) else {
            let [bytes, room] = [device.trial_bytes(asked), self.room].map(units::bytes);
            let because = format!("tuning it takes {bytes}, {room} are left");
            return without_search(offers, &because);
        };
        let trial = match &mut self.trial {
            Ok(trial) => trial,
            Err(Unavailable(because)) => return without_search(offers, because),
        };
        let (outcomes, mut right) = Verifier::new(device, problem).outcomes(trial, &offers);
        if right.iter().any(|&index| !offers[index].is_spare) {
            right.retain(|&index| !offers[index].is_spare);
        }
        let candidates = offers.into_iter().map(|offer| offer.candidate);
        let mut outcomes: Vec<_> = candidates.zip(outcomes).collect();
        if let (false, Some(&first)) = (self.is_warm, right.first()) {
            warm_up(device, problem, outcomes[first].0, trial);
            self.is_warm = true;
        }
        let seconds = seconds_allowed(effort);
        time(device, problem, trial, (&mut outcomes, right), seconds);
        Tuned {
            stand_in: (problem != asked).then_some(*problem),
            ..choose(outcomes)
        }
    }
}

/// Computes a product until the device is warm. What fails shows when it is timed.
fn warm_up<D: Device>(
    device: &D,
    problem: &Problem,
    candidate: D::Candidate,
    trial: &mut D::Trial,
) {
    let started = Instant::now();
    while started.elapsed() < D::WARM_UP {
        if device.time(problem, candidate, trial).is_err() {
            return;
        }
    }
}

/// Operations per second of one candidate, by its name, or of the fallback where no name is given; by the median of
/// several timings. It is not verified. `None` where it cannot be computed here in `room` bytes.
pub fn rate_of<D: Device>(
    device: &D,
    problem: &Problem,
    name: Option<&str>,
    room: Option<u64>,
) -> Option<f64> {
    let problem = &device.stand_in(problem, room.unwrap_or(u64::MAX))?;
    let offers = device.offers(problem, Effort::Full);
    let is_asked_for =
        |candidate: D::Candidate| name.is_none_or(|name| candidate.to_string() == name);
    let mut usable = offers.iter().filter(|offer| offer.available.is_ok());
    let candidate = usable
        .find(|offer| is_asked_for(offer.candidate))?
        .candidate;
    let mut trial = device.trial(&[*problem]).ok()?;
    for operand in [Operand::A, Operand::B] {
        device
            .fill(&mut trial, problem, operand, Fill::Random)
            .ok()?;
    }
    // The first may load code.
    device.time(problem, candidate, &mut trial).ok()?;
    warm_up(device, problem, candidate, &mut trial);
    let timings = (0..ROUNDS).map(|_| device.time(problem, candidate, &mut trial).ok());
    let seconds = timings.map(|timing| Some(timing?.as_secs_f64()));
    let seconds = median(seconds.collect::<Option<_>>()?)?;
    Some(problem.flops() as f64 / seconds)
}

/// As [`Tuner::tune`], of a single problem.
pub fn tune<D: Device>(
    device: &D,
    problem: &Problem,
    effort: Effort,
    room: Option<u64>,
) -> Tuned<D::Candidate> {
    Tuner::new(device, &[*problem], effort, room).tune(problem)
}

/// The first candidate that is available. The others could take over, but were not verified.
fn without_search<C>(offers: Vec<Offer<C>>, because: &str) -> Tuned<C> {
    let outcome = |offer: Offer<C>| match offer.available {
        Ok(()) => (offer.candidate, TuneOutcome::Untimed),
        Err(unavailable) => (offer.candidate, TuneOutcome::Unavailable(unavailable)),
    };
    let outcomes: Vec<_> = offers.into_iter().map(outcome).collect();
    let chosen = first_usable(&outcomes);
    Tuned {
        outcomes,
        chosen,
        because: because.to_owned(),
        searched: false,
        stand_in: None,
    }
}

fn is_usable<C>((_, outcome): &(C, TuneOutcome)) -> bool {
    matches!(outcome, TuneOutcome::Untimed | TuneOutcome::Timed { .. })
}

fn first_usable<C>(outcomes: &[(C, TuneOutcome)]) -> usize {
    // With none, the fallback fails in its own words.
    outcomes.iter().position(is_usable).unwrap_or(0)
}

fn is_timed<C>((_, outcome): &(C, TuneOutcome)) -> bool {
    matches!(outcome, TuneOutcome::Timed { .. })
}

fn fallback<C>(outcomes: &[(C, TuneOutcome)]) -> usize {
    let timed = outcomes.iter().position(is_timed);
    timed.unwrap_or_else(|| first_usable(outcomes))
}

/// Replaces the `Untimed` of those in the race as far as time allows.
fn time<D: Device>(
    device: &D,
    problem: &Problem,
    trial: &mut D::Trial,
    (outcomes, mut racing): (&mut [(D::Candidate, TuneOutcome)], Vec<usize>),
    seconds_allowed: f64,
) {
    let mut samples = vec![Vec::new(); outcomes.len()];
    let (mut spent, mut best) = (0.0, f64::INFINITY);
    'rounds: for _ in 0..ROUNDS {
        for index in racing.clone() {
            // The first of them is timed in any case: there has to be something to compare with.
            if spent > seconds_allowed {
                break 'rounds;
            }
            let seconds = match device.time(problem, outcomes[index].0, trial) {
                Ok(duration) => duration.as_secs_f64(),
                Err(failure) => {
                    outcomes[index].1 = TuneOutcome::Unavailable(Unavailable(failure.to_string()));
                    racing.retain(|&other| other != index);
                    continue;
                }
            };
            spent += seconds;
            best = f64::min(best, seconds);
            samples[index].push(seconds);
            if seconds > HOPELESS * best {
                racing.retain(|&other| other != index);
            }
        }
    }
    for ((_, outcome), samples) in outcomes.iter_mut().zip(samples) {
        if let (TuneOutcome::Untimed, Some(seconds)) = (&outcome, median(samples)) {
            *outcome = TuneOutcome::Timed { seconds };
        }
    }
}

/// The upper one of the two in the middle.
fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

fn choose<C: std::fmt::Display>(outcomes: Vec<(C, TuneOutcome)>) -> Tuned<C> {
    let seconds = |index: usize| match outcomes[index].1 {
        TuneOutcome::Timed { seconds } => Some(seconds),
        _ => None,
    };
    let fallback = fallback(&outcomes);
    let timed = (0..outcomes.len()).filter_map(|index| Some((seconds(index)?, index)));
    let fastest = timed.clone().min_by(|a, b| a.0.total_cmp(&b.0));
    let (chosen, because) = match (seconds(fallback), fastest) {
        (Some(to_beat), Some((fastest, index))) if fastest < HYSTERESIS * to_beat => (
            index,
            format!(
                "{:.0} % faster than `{}`",
                100.0 * (to_beat / fastest - 1.0),
                outcomes[fallback].0
            ),
        ),
        (Some(_), _) if timed.count() > 1 => {
            (fallback, "no other is more than 2 % faster".to_owned())
        }
        _ => match &outcomes[fallback].1 {
            TuneOutcome::Wrong(because) => {
                (fallback, format!("no other is right either: {because}"))
            }
            TuneOutcome::Unavailable(because) => {
                (fallback, format!("nothing is available: {because}"))
            }
            _ => (fallback, "the only one that can be used here".to_owned()),
        },
    };
    Tuned {
        outcomes,
        chosen,
        because,
        searched: true,
        stand_in: None,
    }
}
