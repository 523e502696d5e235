//! Events of a run as marks.

use super::Positions;
use crate::chart::{Mark, Symbol};
use crate::runs::{Point, Run, RunEvent};
use crate::step::recovery::Recovery;

/// Colours of the theme for the marks of a single run.
const REFUSED: usize = 1;
const CLIMBED: usize = 2;
const CHOSEN: usize = 4;
const SKIPPED: usize = 3;
const DIVERGED: usize = 7;
const WARNED: usize = 5;
const RESUMED: usize = 6;

/// The marks of a run, in the order of its events. In a picture of several runs they have the run's `colour`.
pub fn marks(run: &Run, x: &Positions, colour: Option<usize>) -> Vec<Mark> {
    let of = |step: u64, event: &RunEvent| match event {
        RunEvent::Resumed { .. } => Some((Symbol::Right, "resumed", "resumed".into(), RESUMED)),
        RunEvent::Recovered(recovery) => Some(recovered(recovery)),
        RunEvent::Chosen(_) if is_start(run, step) => None,
        RunEvent::Chosen(choice) => {
            let text = format!("{} = {}", choice.name, choice.value);
            Some((Symbol::Diamond, "choice changed", text, CHOSEN))
        }
        RunEvent::Warned { message } => {
            let text = shortened(message);
            Some((Symbol::Square, "warning", text, WARNED))
        }
        RunEvent::Skipped(skipped) => {
            let text = format!("z-score {:.1}", skipped.zscore);
            Some((Symbol::Cross, "update skipped", text, SKIPPED))
        }
        RunEvent::Diverged { .. } => Some((Symbol::Cross, "diverged", "diverged".into(), DIVERGED)),
        RunEvent::Saved { .. } => None,
    };
    let events = run.events.iter();
    let marks = events.filter_map(|event| {
        let (symbol, kind, text, of_kind) = of(event.step, &event.record)?;
        Some(Mark {
            x: x.at(event.step),
            symbol,
            kind: kind.into(),
            text,
            colour: colour.unwrap_or(of_kind),
        })
    });
    marks.collect()
}

/// Whether a process began at a step: a choice there is part of the launch and no change.
pub fn is_start(run: &Run, step: u64) -> bool {
    let resumed = |event: &Point<RunEvent>| matches!(event.record, RunEvent::Resumed { .. });
    let mut starts = run.events.iter().filter(|event| resumed(event));
    step == 0 || starts.any(|start| start.step == step)
}

fn recovered(recovery: &Recovery) -> (Symbol, &'static str, String, usize) {
    let (from, to) = (recovery.from, recovery.to);
    if !recovery.is_descent() {
        return (
            Symbol::Down,
            "memory refused",
            "tried once more".into(),
            REFUSED,
        );
    }
    let text = match from.micro_batch == to.micro_batch {
        true => format!("recompute {}", to.recompute),
        false => format!("micro-batch {} to {}", from.micro_batch, to.micro_batch),
    };
    if to.micro_batch > from.micro_batch {
        return (Symbol::Up, "larger launch", text, CLIMBED);
    }
    (Symbol::Down, "memory refused", text, REFUSED)
}

/// The beginning of a message.
fn shortened(message: &str) -> String {
    const MOST: usize = 40;
    if message.chars().count() <= MOST {
        return message.to_owned();
    }
    let start: String = message.chars().take(MOST - 1).collect();
    format!("{}…", start.trim_end())
}
