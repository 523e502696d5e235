//! Dispatch of GEMMs to candidates: the one decided on, and the next one after its failure.

use std::cell::RefCell;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::cache::{Cache, Entry, Record, Records, Table};
use super::candidate::{Device, GemmFailure};
use super::problem::{Problem, TrainingGemm};
use super::tune::{Tuned, Tuner, tune};
use super::watch::{Unwatched, Watch};
use crate::terms::{Effort, NamedChoice};
use crate::units;

/// Computes GEMMs on one device, each by the candidate that the table names for it.
///
/// Results depend on the table and the operands alone. A problem that is in no table goes to the fallback.
pub struct Dispatch<D: Device> {
    device: D,
    effort: Effort,
    cache: Option<Cache>,
    /// Spectator of searches, and of the GEMMs that follow.
    watch: Box<dyn Watch + Send>,
    decisions: RefCell<Decisions<D::Candidate>>,
}

/// Candidates that were decided on, and the choices to tell.
struct Decisions<C> {
    table: Table,
    /// Problems of the checkpoint's table.
    stored: Vec<Problem>,
    /// Candidates that are left for each problem, in the order of use. Never empty.
    routes: FxHashMap<Problem, Vec<C>>,
    choices: Vec<NamedChoice>,
    /// Reasons for passing over a first candidate that were told already.
    passed_over: Vec<String>,
}

impl<D: Device> Dispatch<D> {
    /// Dispatches every problem to the fallback.
    pub fn untuned(device: D) -> Self {
        Self::new(device, Effort::Off, None, Table::default())
    }

    /// `stored` is a checkpoint's table. Its problems are not tuned again: a resumed run computes what it would have
    /// computed without the interruption.
    pub fn new(device: D, effort: Effort, cache: Option<Cache>, stored: Table) -> Self {
        Self {
            device,
            effort,
            cache,
            watch: Box::new(Unwatched),
            decisions: RefCell::new(Decisions {
                stored: stored.0.iter().map(|entry| entry.problem).collect(),
                table: stored,
                routes: FxHashMap::default(),
                choices: Vec::new(),
                passed_over: Vec::new(),
            }),
        }
    }

    /// Shows the progress of a search to `watch`, and ends the search when that is interrupted.
    pub fn watched_by(self, watch: Box<dyn Watch + Send>) -> Self {
        Self { watch, ..self }
    }

    /// Whether the work under way is to end soon, with nothing to show for it.
    pub fn is_interrupted(&self) -> bool {
        self.watch.is_interrupted()
    }

    /// Decides on a candidate for each of `gemms` that has none yet: the checkpoint's, else the cache's, else the
    /// winner of tuning in at most `room` bytes, where that is known. A search that is interrupted decides on no more.
    pub fn prepare(&self, gemms: &[TrainingGemm], room: Option<u64>) {
        if self.effort == Effort::Off {
            return;
        }
        let started = Instant::now();
        let mut decisions = self.decisions.borrow_mut();
        let mut sources = Sources::default();
        let unknown = self.reuse(&mut decisions, gemms, &mut sources);
        if !unknown.is_empty() {
            sources.tuned = self.search(&mut decisions, &unknown, room);
        }
        if sources.total() > 0 && !self.is_interrupted() {
            let value = decisions.summary(gemms);
            let time = units::short_time(started.elapsed());
            decisions.tell("gemm", &value, sources.text(&time));
        }
    }

    /// Decides on the candidates that the checkpoint or the cache has. Returns the GEMMs that are left, one for each
    /// problem.
    fn reuse(
        &self,
        decisions: &mut Decisions<D::Candidate>,
        gemms: &[TrainingGemm],
        sources: &mut Sources,
    ) -> Vec<TrainingGemm> {
        let cached = self.cached(decisions);
        let mut unknown: Vec<TrainingGemm> = Vec::new();
        for gemm in gemms {
            let problem = &gemm.problem;
            let is_unknown = unknown.iter().any(|other| other.problem == *problem);
            if is_unknown || decisions.routes.contains_key(problem) {
                continue;
            }
            let route = self.known(decisions, &cached, gemm);
            if route.is_empty() {
                unknown.push(gemm.clone());
                continue;
            }
            if decisions.stored.contains(problem) {
                sources.stored += 1;
            } else {
                sources.cached += 1;
            }
            let first = tune(&self.device, problem, Effort::Off, None);
            decisions.tell_passed_over(first.passed_over(), &route[0]);
            decisions.decide(*problem, route);
        }
        unknown
    }

    /// Records of the cache. Tells why they are not used, if they are not.
    fn cached(&self, decisions: &mut Decisions<D::Candidate>) -> Records {
        let Some(cache) = &self.cache else {
            return Records::default();
        };
        let (records, unused) = cache.load();
        if let Some(because) = unused {
            decisions.tell("gemm cache", "not used", because);
        }
        records
    }

    /// Available candidates that the checkpoint, or else the cache, has for a problem.
    fn known(
        &self,
        decisions: &mut Decisions<D::Candidate>,
        cached: &Records,
        gemm: &TrainingGemm,
    ) -> Vec<D::Candidate> {
        let TrainingGemm { name, problem, .. } = gemm;
        let Some(entry) = decisions.table.get(problem).cloned() else {
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
            decisions.tell(&format!("gemm {name}"), &value, because);
        }
        route
    }

    /// Tunes problems. Stores each result at once, so that a run that is stopped has not searched in vain. Returns the
    /// number of problems that were searched.
    fn search(
        &self,
        decisions: &mut Decisions<D::Candidate>,
        gemms: &[TrainingGemm],
        room: Option<u64>,
    ) -> usize {
        let problems: Vec<Problem> = gemms.iter().map(|gemm| gemm.problem).collect();
        let tuner = Tuner::new(&self.device, &problems, self.effort, room);
        let mut tuner = tuner.watched_by(&*self.watch);
        let (mut searched, mut unwritten) = (0, None);
        self.watch.begin(problems.len());
        for (index, TrainingGemm { name, problem, .. }) in gemms.iter().enumerate() {
            self.watch.reach(index, name);
            let tuned = tuner.tune(problem);
            if self.is_interrupted() {
                break;
            }
            let route = tuned.order();
            decisions.tell_passed_over(tuned.passed_over(), &route[0]);
            searched += usize::from(tuned.searched);
            if tuned.is_found() {
                unwritten = self.remember(problem, &tuned).or(unwritten);
            } else {
                let (name, value) = (format!("gemm {name}"), route[0].to_string());
                decisions.tell(&name, &value, tuned.because);
            }
            decisions.decide(*problem, route);
        }
        self.watch.end();
        if let Some(because) = unwritten {
            decisions.tell("gemm cache", "not written", because);
        }
        searched
    }

    /// Available candidates among those with these names, in their order.
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

    /// Stores a result. Returns why the cache could not be written, if it could not.
    fn remember(&self, problem: &Problem, tuned: &Tuned<D::Candidate>) -> Option<String> {
        let cache = self.cache.as_ref()?;
        let record = Record {
            problem: *problem,
            tuned: tuned.by_name(),
        };
        let error = cache.store(record).err()?;
        Some(format!("`{}`: {error}", cache.path().display()))
    }

    /// Computes a GEMM. When a candidate fails, the next one takes over, for this call and all that follow.
    ///
    /// # Errors
    /// Out of memory, which another candidate would not avoid, and the failure of the last candidate.
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
        let mut decisions = self.decisions.borrow_mut();
        if let Some(route) = decisions.routes.get(problem) {
            return route[0];
        }
        let tuned = tune(&self.device, problem, Effort::Off, None);
        let route = tuned.order();
        let first = route[0];
        decisions.tell_passed_over(tuned.passed_over(), &first);
        decisions.routes.insert(*problem, route);
        first
    }

    /// Drops the candidate that failed and tells so. Returns the one that takes over, if there is one.
    fn next(&self, problem: &Problem, failure: &D::Failure) -> Option<D::Candidate> {
        let mut decisions = self.decisions.borrow_mut();
        let route = decisions
            .routes
            .get_mut(problem)
            .filter(|route| route.len() > 1)?;
        let failed = route.remove(0);
        let route = route.clone();
        if decisions.table.get(problem).is_some() {
            decisions.table.insert(entry(*problem, &route));
        }
        let because = format!("`{failed}` failed: {failure}");
        decisions.tell(&format!("gemm {problem}"), &route[0].to_string(), because);
        Some(route[0])
    }

    pub fn device(&self) -> &D {
        &self.device
    }

    /// Decisions so far, for a checkpoint.
    pub fn table(&self) -> Table {
        self.decisions.borrow().table.clone()
    }

    /// Choices since the last call.
    pub fn take_choices(&self) -> Vec<NamedChoice> {
        std::mem::take(&mut self.decisions.borrow_mut().choices)
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

    /// Tells each reason once: a missing library is missing for every problem.
    fn tell_passed_over(&mut self, because: Option<String>, instead: &C) {
        if let Some(because) = because.filter(|because| !self.passed_over.contains(because)) {
            self.tell("gemm fallback", &instead.to_string(), because.clone());
            self.passed_over.push(because);
        }
    }

    /// Candidates of `gemms` with their counts: `12 x gemm crate, 3 x tiles 192`.
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

/// Numbers of problems by the source of their candidates.
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

    fn text(&self, time: &str) -> String {
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
