//! Tuning: the search for the fastest correct candidate of a problem.
//!
//! Every candidate but the spare ones is verified (`verify.rs`), then timed in rounds. Each round times every candidate
//! once, so that other load on the machine affects all of them alike. The fastest must beat the fallback by more than
//! 2 %: the next run might not find a smaller difference again.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::candidate::{Device, Offer, Operand, Unavailable};
use super::check::Fill;
use super::problem::Problem;
use super::verify::Verifier;
use super::watch::{Unwatched, Watch};
use crate::terms::Effort;
use crate::units;

/// Timings of one candidate; the median counts.
const ROUNDS: usize = 7;

/// Slowdown against the best from which a candidate is timed only once.
const HOPELESS: f64 = 3.0;

/// Largest time of a challenger, relative to the fallback.
const HYSTERESIS: f64 = 0.98;

/// Seconds of timing per problem. Fewer rounds fit in on a slow device.
fn seconds_allowed(effort: Effort) -> f64 {
    match effort {
        Effort::Off => 0.0,
        Effort::Limited => 0.5,
        Effort::Full => 5.0,
    }
}

/// Outcome of tuning for one candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TuneOutcome {
    Timed {
        /// Median.
        seconds: f64,
    },
    Unavailable(Unavailable),
    /// The candidate computes something else.
    Wrong(String),
    /// The candidate can run, but time was up, or it is a spare one.
    Untimed,
}

impl TuneOutcome {
    fn is_usable(&self) -> bool {
        matches!(self, TuneOutcome::Untimed | TuneOutcome::Timed { .. })
    }

    fn seconds(&self) -> Option<f64> {
        match self {
            TuneOutcome::Timed { seconds } => Some(*seconds),
            TuneOutcome::Unavailable(_) | TuneOutcome::Wrong(_) | TuneOutcome::Untimed => None,
        }
    }
}

/// Outcome of tuning for one problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuned<C> {
    /// In order of trust, the fallback first.
    pub outcomes: Vec<(C, TuneOutcome)>,
    /// An index of `outcomes`.
    pub chosen: usize,
    pub because: String,
    /// Whether candidates were verified and timed. Without a search the choice is worth nothing to another run.
    pub searched: bool,
    /// Smaller problem that was timed instead, where the problem itself did not fit into memory.
    pub stand_in: Option<Problem>,
}

impl<C> Tuned<C> {
    /// Index of the fallback, which a challenger had to beat: the first timed candidate, or else the first usable one.
    pub fn fallback(&self) -> usize {
        fallback(&self.outcomes)
    }

    /// Reason that the fallback is not the first candidate, where another one can compute the problem.
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

    /// Whether the chosen candidate can compute the problem, and is not known to be wrong.
    pub fn is_sound(&self) -> bool {
        let (_, chosen) = &self.outcomes[self.chosen];
        chosen.is_usable()
    }

    /// Whether a search timed the chosen candidate, so that another run can use the choice.
    pub fn is_found(&self) -> bool {
        let chosen = self.outcomes.get(self.chosen);
        self.searched && chosen.is_some_and(|(_, outcome)| outcome.seconds().is_some())
    }

    /// Ratio of the operations of `problem` to those of the problem that was timed.
    pub fn scale(&self, problem: &Problem) -> f64 {
        let timed = self.stand_in.as_ref().unwrap_or(problem);
        problem.flops() as f64 / timed.flops() as f64
    }
}

impl<C: Clone> Tuned<C> {
    /// Usable candidates in the order of their use: the chosen one, then the timed ones, the fastest first, then the
    /// untimed ones. Spare candidates among these were not verified. Without a search, none was.
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
    /// The same with the names of the candidates, as caches store it.
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

/// Search over several problems with one set of buffers.
pub struct Tuner<'a, D: Device> {
    device: &'a D,
    effort: Effort,
    room: u64,
    trial: Result<D::Trial, Unavailable>,
    is_warm: bool,
    watch: &'a dyn Watch,
}

impl<'a, D: Device> Tuner<'a, D> {
    /// Allocates buffers for `problems` in at most `room` bytes, where that is known.
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
            trial: if problems.is_empty() {
                Err(Unavailable("there is nothing to tune".into()))
            } else {
                device.trial(&problems)
            },
            is_warm: false,
            watch: &Unwatched,
        }
    }

    /// The same search, which ends as soon as `watch` is interrupted.
    pub fn watched_by(self, watch: &'a dyn Watch) -> Self {
        Self { watch, ..self }
    }

    /// Verifies and times every candidate that the device offers for one of the problems. Chooses the fallback when
    /// out of memory, and when interrupted.
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
        let verifier = Verifier::new(device, problem, self.watch);
        let (outcomes, mut right) = verifier.outcomes(trial, &offers);
        if self.watch.is_interrupted() {
            return without_search(offers, INTERRUPTED);
        }
        if right.iter().any(|&index| !offers[index].is_spare) {
            right.retain(|&index| !offers[index].is_spare);
        }
        let candidates = offers.into_iter().map(|offer| offer.candidate);
        let mut outcomes: Vec<_> = candidates.zip(outcomes).collect();
        if let (false, Some(&first)) = (self.is_warm, right.first()) {
            warm_up(device, problem, outcomes[first].0, trial);
            self.is_warm = true;
        }
        let race = Race {
            device,
            problem,
            seconds_allowed: seconds_allowed(effort),
            watch: self.watch,
        };
        race.run(trial, &mut outcomes, right);
        device.rest();
        if self.watch.is_interrupted() {
            return without_search(device.offers(problem, effort), INTERRUPTED);
        }
        Tuned {
            stand_in: (problem != asked).then_some(*problem),
            ..choose(outcomes)
        }
    }
}

/// Reason for a choice that a search did not get to.
const INTERRUPTED: &str = "the search was interrupted";

/// Computes the problem until the device is warm. Failures show when the candidate is timed.
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

/// Rate of one candidate in operations per second: the median of several timings. Without a name it is the fallback's.
/// The candidate is not verified. `None` where it is not available, or does not fit into `room` bytes.
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

/// Tunes a single problem; see [`Tuner::tune`].
pub fn tune<D: Device>(
    device: &D,
    problem: &Problem,
    effort: Effort,
    room: Option<u64>,
) -> Tuned<D::Candidate> {
    Tuner::new(device, &[*problem], effort, room).tune(problem)
}

/// Chooses the first available candidate. The others can take over, but were not verified.
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

fn first_usable<C>(outcomes: &[(C, TuneOutcome)]) -> usize {
    let usable = outcomes.iter().position(|(_, outcome)| outcome.is_usable());
    // With none, the fallback fails in its own words.
    usable.unwrap_or(0)
}

fn fallback<C>(outcomes: &[(C, TuneOutcome)]) -> usize {
    let is_timed = |(_, outcome): &(C, TuneOutcome)| outcome.seconds().is_some();
    let timed = outcomes.iter().position(is_timed);
    timed.unwrap_or_else(|| first_usable(outcomes))
}

/// The timing of the candidates of one problem.
struct Race<'a, D> {
    device: &'a D,
    problem: &'a Problem,
    seconds_allowed: f64,
    watch: &'a dyn Watch,
}

impl<D: Device> Race<'_, D> {
    /// Times the candidates whose indices are in `racing`, as far as time allows.
    fn run(
        &self,
        trial: &mut D::Trial,
        outcomes: &mut [(D::Candidate, TuneOutcome)],
        mut racing: Vec<usize>,
    ) {
        let mut samples = vec![Vec::new(); outcomes.len()];
        let (mut spent, mut best) = (0.0, f64::INFINITY);
        'rounds: for _ in 0..ROUNDS {
            for index in racing.clone() {
                // The first candidate is timed in any case: the others are compared with it.
                if spent > self.seconds_allowed || self.watch.is_interrupted() {
                    break 'rounds;
                }
                let seconds = match self.device.time(self.problem, outcomes[index].0, trial) {
                    Ok(duration) => duration.as_secs_f64(),
                    Err(failure) => {
                        let failure = Unavailable(failure.to_string());
                        outcomes[index].1 = TuneOutcome::Unavailable(failure);
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
}

/// Upper median.
fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

fn choose<C: std::fmt::Display>(outcomes: Vec<(C, TuneOutcome)>) -> Tuned<C> {
    let seconds = |index: usize| outcomes[index].1.seconds();
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
            TuneOutcome::Timed { .. } | TuneOutcome::Untimed => {
                (fallback, "the only one that can be used here".to_owned())
            }
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
