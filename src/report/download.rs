//! Progress of a download: a bar on a terminal, elsewhere lines, the first after five seconds and one every minute.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{ReportOptions, say};
use crate::hub::Watch;
use crate::units::{bytes, span};

const BAR: &str = "downloading {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

/// The first line comes after this time, the next ones at doubling distances up to a minute.
const FIRST: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);

/// Shows downloads on stderr; `interrupted` stops them.
pub struct DownloadProgress<'a> {
    options: ReportOptions,
    interrupted: &'a AtomicBool,
    state: Mutex<Option<State>>,
}

/// A download under way.
struct State {
    bar: Option<ProgressBar>,
    began: Instant,
    /// Bytes that were there at the beginning.
    before: u64,
    done: u64,
    total: u64,
    /// Time from the beginning to the next line.
    next_line: Duration,
}

impl<'a> DownloadProgress<'a> {
    pub fn new(options: ReportOptions, interrupted: &'a AtomicBool) -> Self {
        Self {
            options,
            interrupted,
            state: Mutex::new(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The line that is due after `elapsed`.
    fn line(&mut self, elapsed: Duration) -> Option<String> {
        if elapsed < self.next_line {
            return None;
        }
        self.next_line = elapsed + elapsed.clamp(FIRST, MINUTE);
        let rate = self.done.saturating_sub(self.before) as f64 / elapsed.as_secs_f64();
        let mut text = format!(
            "downloading: {} of {}, {}/s",
            bytes(self.done),
            bytes(self.total),
            bytes(rate as u64)
        );
        if rate >= 1.0 {
            let left = Duration::from_secs_f64(self.total.saturating_sub(self.done) as f64 / rate);
            text += &format!(", {} left", span(left));
        }
        Some(text)
    }
}

impl Watch for DownloadProgress<'_> {
    fn begin(&self, done: u64, total: u64) {
        if self.options.quiet {
            return;
        }
        let bar = self.options.interactive.then(|| {
            let style = ProgressStyle::with_template(BAR);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(total).with_style(style);
            bar.with_position(done)
        });
        // The bar takes note of what was there, which does not count in the rate.
        if let Some(bar) = &bar {
            bar.tick();
            bar.reset_eta();
        }
        *self.state() = Some(State {
            bar,
            began: Instant::now(),
            before: done,
            done,
            total,
            next_line: FIRST,
        });
    }

    fn reach(&self, done: u64) {
        if let Some(state) = self.state().as_mut() {
            state.done = done;
            if let Some(bar) = &state.bar {
                bar.set_position(done);
            }
        }
    }

    fn end(&self) {
        if let Some(bar) = self.state().take().and_then(|state| state.bar) {
            bar.finish_and_clear();
        }
    }

    fn note(&self, text: &str) {
        let note = || say(format_args!("note: {text}"));
        match self.state().as_ref().and_then(|state| state.bar.as_ref()) {
            Some(bar) => bar.suspend(note),
            None if !self.options.quiet => note(),
            None => {}
        }
    }

    fn is_interrupted(&self) -> bool {
        if let Some(state) = self.state().as_mut().filter(|state| state.bar.is_none())
            && let Some(line) = state.line(state.began.elapsed())
        {
            say(line);
        }
        self.interrupted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_bytes_rate_and_time_left_and_come_every_minute() {
        let mut state = State {
            bar: None,
            began: Instant::now(),
            before: 1 << 30,
            done: 2 << 30,
            total: 4 << 30,
            next_line: FIRST,
        };
        let seconds: Vec<u64> = (0..300)
            .filter(|second| state.line(Duration::from_secs(*second)).is_some())
            .collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 140, 200, 260]);
        let line = state.line(Duration::from_secs(1024)).unwrap();
        assert_eq!(
            line,
            "downloading: 2.00 GiB of 4.00 GiB, 1.0 MiB/s, 34m 08s left"
        );
        state.done = state.before;
        let line = state.line(Duration::from_secs(2048)).unwrap();
        assert_eq!(line, "downloading: 1.00 GiB of 4.00 GiB, 0 B/s");
    }
}
