//! Signs of life from work that takes long: lines where there is no progress bar, or a message beside the bar.
//!
//! A thread looks twice a second at what is under way. So a line comes however long a single operation takes.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::ReportOptions;
use super::terminal::search_bar;
use crate::data::Split;
use crate::units::{bytes, count, span};

/// The longest time without a line.
const MINUTE: Duration = Duration::from_secs(60);

/// The time without a line after which a step that ends gets one, so that lines of the step under way stay rare.
pub(super) const QUIET: Duration = Duration::from_secs(50);

/// The first line of a search or an evaluation comes after this time, the next ones at doubling distances.
const FIRST: Duration = Duration::from_secs(5);

/// Work that is done sooner is not shown beside a bar.
const UNSHOWN: Duration = Duration::from_secs(2);

const LOOK: Duration = Duration::from_millis(500);

/// Interval of the bar of a search.
const TICK: Duration = Duration::from_millis(100);

/// The progress of a process; a handle.
#[derive(Clone)]
pub struct Progress(Arc<Shared>);

struct Shared {
    quiet: bool,
    /// Hidden where there is no terminal, and after the first search.
    search: ProgressBar,
    state: Mutex<State>,
}

struct State {
    under_way: Option<UnderWay>,
    /// The bar of a run, where there is one.
    bar: Option<ProgressBar>,
    /// Whether its message is of work under way.
    is_beside_bar: bool,
    last_line: Instant,
    is_looked_at: bool,
}

/// Work that was begun and has not ended.
struct UnderWay {
    what: String,
    amount: Amount,
    total: u64,
    done: Arc<AtomicU64>,
    /// Time from the beginning to the first line.
    patience: Duration,
    began: Instant,
}

/// Unit of work.
#[derive(Clone, Copy)]
enum Amount {
    /// In things of this name.
    Of(&'static str),
    Bytes,
    /// Its end is not known.
    Unknown,
}

/// Work under way; ends when dropped.
pub(crate) struct Work {
    progress: Progress,
    done: Arc<AtomicU64>,
}

impl Work {
    /// Says that so much of the work is done.
    pub fn reach(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// The part that is done, for whoever does it to keep up.
    pub fn done(&self) -> &AtomicU64 {
        &self.done
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.progress.state().under_way = None;
    }
}

impl Progress {
    pub fn new(options: ReportOptions) -> Self {
        Self(Arc::new(Shared {
            quiet: options.quiet,
            search: search_bar(options),
            state: Mutex::new(State {
                under_way: None,
                bar: None,
                is_beside_bar: false,
                last_line: Instant::now(),
                is_looked_at: false,
            }),
        }))
    }

    /// A step begins: number `step`, from 1.
    pub(crate) fn step(&self, step: u64, sequences: usize) -> Work {
        self.begin(
            format!("iter {step}"),
            Amount::Of("sequences"),
            sequences as u64,
            MINUTE,
        )
    }

    /// An evaluation of a split begins.
    pub(crate) fn evaluation(&self, split: Split, sequences: usize) -> Work {
        let what = match split {
            Split::Train => "evaluating the train split",
            Split::Val => "evaluating the val split",
        };
        let unit = Amount::Of("sequences");
        self.begin(what.to_owned(), unit, sequences as u64, FIRST)
    }

    /// A checkpoint is written.
    pub(crate) fn saving(&self, step: u64, bytes: u64) -> Work {
        self.begin(format!("saving step {step}"), Amount::Bytes, bytes, FIRST)
    }

    /// Checkpoints are looked for and held against their checksums.
    pub(crate) fn verifying(&self) -> Work {
        let what = "looking for checkpoints, and verifying them".to_owned();
        self.begin(what, Amount::Unknown, 0, FIRST)
    }

    /// Weights and moments are read or drawn.
    pub(crate) fn loading(&self) -> Work {
        let what = "setting weights and moments".to_owned();
        self.begin(what, Amount::Unknown, 0, FIRST)
    }

    /// The scoring of a task begins.
    pub(crate) fn scoring(&self, task: &str, sequences: usize) -> Work {
        self.begin(
            format!("scoring {task}"),
            Amount::Of("sequences"),
            sequences as u64,
            FIRST,
        )
    }

    /// A search for the fastest candidates begins.
    pub fn begin_search(&self, problems: usize) {
        let search = &self.0.search;
        search.reset();
        search.set_length(problems as u64);
        if !search.is_hidden() {
            search.enable_steady_tick(TICK);
            return;
        }
        let what = "finding the fastest matrix products".to_owned();
        self.put_under_way(what, Amount::Of("done"), problems as u64, FIRST);
    }

    /// The search comes to its problem number `index`, which has this name.
    pub fn reach_in_search(&self, index: usize, name: &str) {
        self.0.search.set_position(index as u64);
        self.0.search.set_message(name.to_owned());
        if let Some(under_way) = &self.state().under_way {
            under_way.done.store(index as u64, Ordering::Relaxed);
        }
    }

    pub fn end_search(&self) {
        let search = &self.0.search;
        search.disable_steady_tick();
        search.finish_and_clear();
        // Another rung's search comes in the middle of a run, which has a bar of its own.
        search.set_draw_target(ProgressDrawTarget::hidden());
        self.state().under_way = None;
    }

    /// Shows progress beside `bar` from now on.
    pub(super) fn show_beside(&self, bar: &ProgressBar) {
        self.state().bar = Some(bar.clone());
    }

    /// Whether the bar's message was overwritten since the last call.
    pub(super) fn took_the_message(&self) -> bool {
        std::mem::take(&mut self.state().is_beside_bar)
    }

    /// A line was written.
    pub(super) fn spoke(&self) {
        self.state().last_line = Instant::now();
    }

    /// The time since the last line.
    pub(super) fn silence(&self) -> Duration {
        self.state().last_line.elapsed()
    }

    fn begin(&self, what: String, amount: Amount, total: u64, patience: Duration) -> Work {
        Work {
            done: self.put_under_way(what, amount, total, patience),
            progress: self.clone(),
        }
    }

    /// Returns the amount that is done, to be kept up.
    fn put_under_way(
        &self,
        what: String,
        amount: Amount,
        total: u64,
        patience: Duration,
    ) -> Arc<AtomicU64> {
        let done = Arc::new(AtomicU64::new(0));
        let mut state = self.state();
        state.under_way = Some(UnderWay {
            what,
            amount,
            total,
            done: done.clone(),
            patience,
            began: Instant::now(),
        });
        if !self.0.quiet && !std::mem::replace(&mut state.is_looked_at, true) {
            let shared = Arc::downgrade(&self.0);
            // Without a thread there are no signs of life, and the work goes on.
            let _ = thread::Builder::new()
                .name("progress".into())
                .spawn(move || look(&shared));
        }
        done
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }
}

/// Shows what is under way, until the process needs no progress any more.
fn look(shared: &Weak<Shared>) {
    loop {
        thread::sleep(LOOK);
        match shared.upgrade() {
            Some(shared) => shared.state().show(),
            None => return,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn show(&mut self) {
        let Some(under_way) = &self.under_way else {
            return;
        };
        let elapsed = under_way.began.elapsed();
        if let Some(bar) = &self.bar {
            if elapsed > UNSHOWN {
                bar.set_message(under_way.text(elapsed));
                self.is_beside_bar = true;
            }
            return;
        }
        if under_way.is_due(elapsed, self.last_line.elapsed()) {
            // A stderr that went away must not stop a run.
            let _ = writeln!(io::stderr(), "{}", under_way.text(elapsed));
            self.last_line = Instant::now();
        }
    }
}

impl UnderWay {
    /// Whether a line is due after `elapsed` of work, with the last line `silence` ago.
    fn is_due(&self, elapsed: Duration, silence: Duration) -> bool {
        let (silence, most) = match self.patience {
            // Lines of other steps count.
            MINUTE => (silence, MINUTE),
            patience => {
                let last = elapsed.saturating_sub(silence);
                (silence.min(elapsed), last.clamp(patience, MINUTE))
            }
        };
        silence >= most
    }

    /// `iter 3: 12 of 480 sequences, 1m 02s so far`.
    fn text(&self, elapsed: Duration) -> String {
        let (what, done) = (&self.what, self.done.load(Ordering::Relaxed));
        let done = match self.amount {
            Amount::Of(unit) => format!(" {} of {} {unit},", count(done), count(self.total)),
            Amount::Bytes => format!(" {} of {},", bytes(done), bytes(self.total)),
            Amount::Unknown => String::new(),
        };
        format!("{what}:{done} {} so far", span(elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under_way(patience: Duration) -> UnderWay {
        UnderWay {
            what: "iter 3".into(),
            amount: Amount::Of("sequences"),
            total: 1_480,
            done: Arc::new(AtomicU64::new(12)),
            patience,
            began: Instant::now(),
        }
    }

    /// The seconds of work at which lines come in the first five minutes, with one a long time before.
    fn lines(patience: Duration) -> Vec<u64> {
        let work = under_way(patience);
        let mut last = -1000i64;
        let due = |second: &u64| {
            let silence = Duration::from_secs((*second as i64 - last) as u64);
            let is_due = work.is_due(Duration::from_secs(*second), silence);
            if is_due {
                last = *second as i64;
            }
            is_due
        };
        (0..300).filter(due).collect()
    }

    #[test]
    fn lines_of_a_search_come_at_doubling_distances_and_then_every_minute() {
        assert_eq!(lines(FIRST), [5, 10, 20, 40, 80, 140, 200, 260]);
    }

    #[test]
    fn a_step_gets_a_line_when_a_minute_was_silent() {
        let step = under_way(MINUTE);
        let [short, minute] = [Duration::from_secs(59), MINUTE];
        assert!(!step.is_due(minute, short));
        assert!(step.is_due(Duration::from_secs(20), minute));
    }

    #[test]
    fn a_line_tells_how_much_is_done_and_how_long_it_took() {
        let text = under_way(MINUTE).text(Duration::from_secs(62));
        assert_eq!(text, "iter 3: 12 of 1,480 sequences, 1m 02s so far");
        let mut save = under_way(FIRST);
        (save.what, save.amount, save.total) = ("saving step 3".into(), Amount::Bytes, 3 << 20);
        assert_eq!(
            save.text(FIRST),
            "saving step 3: 12 B of 3.0 MiB, 5s so far"
        );
        save.amount = Amount::Unknown;
        assert_eq!(save.text(FIRST), "saving step 3: 5s so far");
    }

    #[test]
    fn work_is_under_way_until_it_is_dropped() {
        let options = ReportOptions {
            quiet: true,
            ..Default::default()
        };
        let progress = Progress::new(options);
        let work = progress.evaluation(Split::Val, 20);
        work.reach(7);
        let text = |state: &State| state.under_way.as_ref().map(|it| it.text(FIRST));
        let shown = text(&progress.state());
        let expected = "evaluating the val split: 7 of 20 sequences, 5s so far";
        assert_eq!(shown.as_deref(), Some(expected));
        drop(work);
        assert_eq!(text(&progress.state()), None);
    }
}
