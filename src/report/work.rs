//! Progress of a verb's long work in bytes: a bar on a terminal, elsewhere lines, the first after five seconds and one every
//! minute.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{ReportOptions, say};
use crate::units::{bytes, span};

const BAR: &str = "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

/// The first line comes after this time, the next ones at doubling distances up to a minute.
const FIRST: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);

const LOOK: Duration = Duration::from_millis(500);

/// Shows work in bytes until it is dropped.
pub struct WorkBar {
    bar: ProgressBar,
    /// As long as it lives, lines come.
    _lines: Option<Arc<()>>,
}

impl WorkBar {
    /// Whoever does the work sets the bar's message and length, and moves it.
    pub fn new(options: ReportOptions) -> Self {
        let is_drawn = options.interactive && !options.quiet;
        let bar = if is_drawn {
            let style = ProgressStyle::with_template(BAR);
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        } else {
            ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden())
        };
        let lines = (!is_drawn && !options.quiet).then(|| Arc::new(()));
        if let Some(lines) = &lines {
            let (alive, bar) = (Arc::downgrade(lines), bar.clone());
            // Without a thread there are no lines, and the work goes on.
            let _ = thread::Builder::new()
                .name("progress".into())
                .spawn(move || tell(&alive, &bar));
        }
        Self { bar, _lines: lines }
    }

    pub fn bar(&self) -> &ProgressBar {
        &self.bar
    }
}

impl Drop for WorkBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Prints the lines that are due.
fn tell(alive: &Weak<()>, bar: &ProgressBar) {
    let (began, mut lines) = (Instant::now(), Lines { next: FIRST });
    while alive.strong_count() > 0 {
        thread::sleep(LOOK);
        let elapsed = began.elapsed();
        // What has no length yet has not begun, and what was dropped meanwhile has ended.
        let is_under_way = bar.length().is_some_and(|length| length > 0) && !bar.is_finished();
        if is_under_way && lines.is_due(elapsed) && alive.strong_count() > 0 {
            say(line(bar, elapsed));
        }
    }
}

/// Times of the lines.
struct Lines {
    /// Time from the beginning to the next line.
    next: Duration,
}

impl Lines {
    fn is_due(&mut self, elapsed: Duration) -> bool {
        let is_due = elapsed >= self.next;
        if is_due {
            self.next = elapsed + elapsed.clamp(FIRST, MINUTE);
        }
        is_due
    }
}

/// `encoding: 1.20 GiB of 18.00 GiB, 12s so far`
fn line(bar: &ProgressBar, elapsed: Duration) -> String {
    format!(
        "{}: {} of {}, {} so far",
        bar.message(),
        bytes(bar.position()),
        bytes(bar.length().unwrap_or(0)),
        span(elapsed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_at_doubling_distances_and_then_every_minute() {
        let mut lines = Lines { next: FIRST };
        let seconds: Vec<u64> = (0..300)
            .filter(|second| lines.is_due(Duration::from_secs(*second)))
            .collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 140, 200, 260]);
    }

    #[test]
    fn a_line_tells_what_is_done_of_how_much_and_the_bar_counts_where_it_is_not_drawn() {
        let work = WorkBar::new(ReportOptions::default());
        let bar = work.bar();
        bar.set_message("encoding");
        bar.set_length(3 << 30);
        bar.inc(3 << 29);
        assert_eq!(
            line(bar, Duration::from_secs(62)),
            "encoding: 1.50 GiB of 3.00 GiB, 1m 02s so far"
        );
    }

    #[test]
    fn quiet_work_has_no_lines_and_a_terminal_has_a_bar_instead() {
        let lines = |quiet, interactive| {
            let options = ReportOptions {
                quiet,
                interactive,
                ..ReportOptions::default()
            };
            WorkBar::new(options)._lines.is_some()
        };
        assert_eq!(
            [lines(false, false), lines(true, false), lines(false, true)],
            [true, false, false]
        );
    }

    #[test]
    fn the_bar_s_template_is_valid() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
