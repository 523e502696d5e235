//! From a problem to the candidate that computes it, and to the next one when that fails.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::cache::{Cache, Entry, Record, Records, Table};
use super::candidate::{Device, GemmFailure};
use super::problem::{Problem, TrainingGemm};
use super::tune::{Tuned, Tuner, tune};
use crate::terms::{Effort, NamedChoice};
use crate::units;

/// How often a search shows that it is alive: one problem may take seconds.
const TICK: Duration = Duration::from_millis(100);

/// Computes products on one device, each by the candidate that the table names for it.
///
/// What is computed depends on the table and the operands alone. A problem that is in no table goes to
/// the fallback.
pub struct Dispatch<D: Device> {
    device: D,
    effort: Effort,
    cache: Option<Cache>,
    /// Of a search.
    progress: ProgressBar,
    state: RefCell<Decisions<D::Candidate>>,
}

struct Decisions<C> {
    table: Table,
    /// The problems of the table that came from a checkpoint.
    stored: Vec<Problem>,
    /// Candidates that are left for each problem; the first one computes it.
    routes: HashMap<Problem, Vec<C>>,
    choices: Vec<NamedChoice>,
    /// Why first candidates were passed over, as far as that was told.
    passed_over: Vec<String>,
}

impl<D: Device> Dispatch<D> {
    /// Computes everything by the fallback.
    pub fn untuned(device: D) -> Self {
        Self::new(device, Effort::Off, None, Table::default())
    }

    /// Problems of `stored`, a checkpoint's table, are not tuned again: what follows is what would have
    /// followed without the interruption.
    pub fn new(device: D, effort: Effort, cache: Option<Cache>, stored: Table) -> Self {
        Self {
            device,
            effort,
            cache,
            progress: ProgressBar::hidden(),
            state: RefCell::new(Decisions {
                stored: stored.0.iter().map(|entry| entry.problem).collect(),
                table: stored,
                routes: HashMap::new(),
                choices: Vec::new(),
                passed_over: Vec::new(),
            }),
        }
    }

    /// Shows on `progress` how far a search is.
    pub fn with_progress(self, progress: ProgressBar) -> Self {
        Self { progress, ..self }
    }

    /// Decides on a candidate for each of `gemms` that has none yet: the checkpoint's, else the
    /// cache's, else the winner of tuning in at most `room` bytes, where that is known.
    pub fn prepare(&self, gemms: &[TrainingGemm], room: Option<u64>) {
        if self.effort == Effort::Off {
            return;
        }
        let started = Instant::now();
        let mut state = self.state.borrow_mut();
        let (cached, unused) = match &self.cache {
            Some(cache) => cache.load(),
            None => Default::default(),
        };
        if let Some(because) = unused {
            state.tell("gemm cache", "not used", because);
        }
        let mut sources = Sources::default();
        let mut unknown: Vec<TrainingGemm> = Vec::new();
        for gemm in gemms {
            let problem = &gemm.problem;
            let is_unknown = unknown.iter().any(|other| other.problem == *problem);
            if is_unknown || state.routes.contains_key(problem) {
                continue;
            }
            let route = self.known(&mut state, &cached, gemm);
            if route.is_empty() {
                unknown.push(*gemm);
                continue;
            }
            match state.stored.contains(problem) {
                true => sources.stored += 1,
                false => sources.cached += 1,
            }
            let first = tune(&self.device, problem, Effort::Off, None);
            state.tell_passed_over(first.passed_over(), &route[0]);
            state.decide(*problem, route);
        }
        if !unknown.is_empty() {
            sources.tuned = self.search(&mut state, &unknown, room);
        }
        if sources.total() > 0 {
            let value = state.summary(gemms);
            let seconds = started.elapsed();
            state.tell("gemm", &value, sources.text(units::short_time(seconds)));
        }
    }

    /// Candidates that the checkpoint or else the cache has for a problem, as far as they are available here.
    fn known(
        &self,
        state: &mut Decisions<D::Candidate>,
        cached: &Records,
        gemm: &TrainingGemm,
    ) -> Vec<D::Candidate> {
        let TrainingGemm { name, problem, .. } = gemm;
        let Some(entry) = state.table.get(problem).cloned() else {
            let order = cached.get(problem).map(Tuned::order).unwrap_or_default();
            let mut route = self.available(problem, &order);
            // Without the winner the others are no result of a search.
            if route.first().map(ToString::to_string).as_ref() != order.first() {
                route.clear();
            }
            return route;
        };
        let route = self.available(problem, &entry.candidates);
        let first = entry.candidates.first().cloned().unwrap_or_default();
        let now_first = route.first().map(ToString::to_string);
        if now_first.as_ref() != Some(&first) {
            let because = format!("`{first}`, which the checkpoint names, is not available here");
            let value = now_first.unwrap_or("tuned again".into());
            state.tell(&format!("gemm {name}"), &value, because);
        }
        route
    }

    /// Tunes problems, and keeps what is found at once: a run that is stopped meanwhile has not searched in vain.
    /// Returns for how many there was a search.
    fn search(
        &self,
        state: &mut Decisions<D::Candidate>,
        gemms: &[TrainingGemm],
        room: Option<u64>,
    ) -> usize {
        let problems: Vec<Problem> = gemms.iter().map(|gemm| gemm.problem).collect();
        let mut tuner = Tuner::new(&self.device, &problems, self.effort, room);
        let (mut searched, mut unwritten) = (0, None);
        self.progress.reset();
        self.progress.set_length(problems.len() as u64);
        if !self.progress.is_hidden() {
            self.progress.enable_steady_tick(TICK);
        }
        for TrainingGemm { name, problem, .. } in gemms {
            self.progress.set_message((*name).to_owned());
            let tuned = tuner.tune(problem);
            let route = tuned.order();
            state.tell_passed_over(tuned.passed_over(), &route[0]);
            searched += usize::from(tuned.searched);
            match tuned.is_found() {
                true => unwritten = self.remember(problem, &tuned).or(unwritten),
                false => {
                    let (name, value) = (format!("gemm {name}"), route[0].to_string());
                    state.tell(&name, &value, tuned.because);
                }
            }
            state.decide(*problem, route);
            self.progress.inc(1);
        }
        self.progress.disable_steady_tick();
        self.progress.finish_and_clear();
        // Another rung's search comes in the middle of a run, which has a bar of its own.
        self.progress.set_draw_target(ProgressDrawTarget::hidden());
        if let Some(because) = unwritten {
            state.tell("gemm cache", "not written", because);
        }
        searched
    }

    /// Those of the candidates with these names that the device has and can use.
    fn available(&self, problem: &Problem, names: &[String]) -> Vec<D::Candidate> {
        let offers = self.device.offers(problem, Effort::Full);
        let find = |name: &String| {
            offers
                .iter()
                .find(|offer| offer.available.is_ok() && offer.candidate.to_string() == *name)
                .map(|offer| offer.candidate)
        };
        names.iter().filter_map(find).collect()
    }

    /// Why the cache could not be written.
    fn remember(&self, problem: &Problem, tuned: &Tuned<D::Candidate>) -> Option<String> {
        let cache = self.cache.as_ref()?;
        let record = Record {
            problem: *problem,
            tuned: tuned.by_name(),
        };
        let error = cache.store(record).err()?;
        Some(format!("`{}`: {error}", cache.path().display()))
    }

    /// Computes a product. When a candidate fails, the next one takes over, for this product and for
    /// all that follow.
    ///
    /// # Errors
    /// A lack of memory, which is not for another candidate to answer, and the failure of the last one.
    pub fn run(&self, problem: &Problem, operands: &mut D::Operands<'_>) -> Result<(), D::Failure> {
        let mut candidate = self.candidate(problem);
        loop {
            let failure = match self.device.launch(problem, candidate, operands) {
                Err(failure) if !failure.is_out_of_memory() => failure,
                done => return done,
            };
            match self.next(problem, &failure) {
                Some(next) => candidate = next,
                None => return Err(failure),
            }
        }
    }

    fn candidate(&self, problem: &Problem) -> D::Candidate {
        let mut state = self.state.borrow_mut();
        if let Some(route) = state.routes.get(problem) {
            return route[0];
        }
        let tuned = tune(&self.device, problem, Effort::Off, None);
        let route = tuned.order();
        let first = route[0];
        state.tell_passed_over(tuned.passed_over(), &first);
        state.routes.insert(*problem, route);
        first
    }

    /// Drops the candidate that failed and says so; the one that takes over, if there is one.
    fn next(&self, problem: &Problem, failure: &D::Failure) -> Option<D::Candidate> {
        let mut state = self.state.borrow_mut();
        let route = state
            .routes
            .get_mut(problem)
            .filter(|route| route.len() > 1)?;
        let failed = route.remove(0);
        let route = route.clone();
        if state.table.get(problem).is_some() {
            state.table.insert(entry(*problem, &route));
        }
        let because = format!("`{failed}` failed: {failure}");
        state.tell(&format!("gemm {problem}"), &route[0].to_string(), because);
        Some(route[0])
    }

    pub fn device(&self) -> &D {
        &self.device
    }

    /// The problems decided on so far, for a checkpoint.
    pub fn table(&self) -> Table {
        self.state.borrow().table.clone()
    }

    /// What was decided since the last call.
    pub fn take_choices(&self) -> Vec<NamedChoice> {
        std::mem::take(&mut self.state.borrow_mut().choices)
    }
}

impl<C: std::fmt::Display> Decisions<C> {
    fn decide(&mut self, problem: Problem, route: Vec<C>) {
        self.table.insert(entry(problem, &route));
        self.routes.insert(problem, route);
    }

    fn tell(&mut self, name: &str, value: &str, because: String) {
        self.choices.push(NamedChoice {
            name: name.to_owned(),
            value: value.to_owned(),
            because,
        });
    }

    /// Once for every reason: a library that is not there is not there for every problem.
    fn tell_passed_over(&mut self, because: Option<String>, instead: &C) {
        if let Some(because) = because.filter(|because| !self.passed_over.contains(because)) {
            self.tell("gemm fallback", &instead.to_string(), because.clone());
            self.passed_over.push(because);
        }
    }

    /// `12 x gemm crate, 3 x tiles 192`, of `gemms`.
    fn summary(&self, gemms: &[TrainingGemm]) -> String {
        let mut counts: Vec<(String, usize)> = Vec::new();
        for gemm in gemms {
            let name = self.routes[&gemm.problem][0].to_string();
            match counts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => counts.push((name, 1)),
            }
        }
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let parts = counts
            .iter()
            .map(|(name, count)| format!("{count} x {name}"));
        parts.collect::<Vec<_>>().join(", ")
    }
}

fn entry<C: ToString>(problem: Problem, route: &[C]) -> Entry {
    Entry {
        problem,
        candidates: route.iter().map(ToString::to_string).collect(),
    }
}

/// Where the candidates of a launch came from.
#[derive(Default)]
struct Sources {
    stored: usize,
    cached: usize,
    tuned: usize,
}

impl Sources {
    fn total(&self) -> usize {
        self.stored + self.cached + self.tuned
    }

    fn text(&self, time: String) -> String {
        let parts = [
            (self.stored, "from the checkpoint".to_owned()),
            (self.cached, "timed in an earlier run".to_owned()),
            (self.tuned, format!("verified and timed in {time}")),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts = parts.map(|(count, how)| format!("{count} {how}"));
        parts.collect::<Vec<_>>().join(", ")
    }
}
