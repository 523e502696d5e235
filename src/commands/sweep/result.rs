//! The results of a sweep: a table for people, an object for programs.

use serde_json::{Map, Value, json};

use super::members::{Fate, Member, plain};
use crate::config::Sweep;
use crate::report::{Align, aligned};
use crate::runs::{Run, Summary};
use crate::units::{count, span};

/// The figures of a run. One that was not begun has none, whatever is in its folder.
fn figures(member: &Member) -> Option<Summary> {
    match member.fate {
        Fate::NotBegun => None,
        // A run that failed before its first step has no metrics.
        _ => Some(Summary::of(&Run::open(member.folder()).ok()?)),
    }
}

/// The run with the lowest validation loss.
fn best(figures: &[Option<Summary>]) -> Option<usize> {
    let losses = figures.iter().enumerate();
    let losses = losses.filter_map(|(at, it)| Some((at, it.as_ref()?.best_val_loss?)));
    let best = losses.min_by(|a, b| a.1.total_cmp(&b.1));
    best.map(|(at, _)| at)
}

/// A row for each run.
pub(super) fn table(sweep: &Sweep, members: &[Member]) -> String {
    let figures: Vec<Option<Summary>> = members.iter().map(figures).collect();
    let best = best(&figures);
    let mut headings: Vec<(&str, Align)> = sweep
        .keys
        .iter()
        .map(|key| (key.name, Align::Right))
        .collect();
    headings.extend([
        ("best val loss", Align::Right),
        ("at step", Align::Right),
        ("train loss", Align::Right),
        ("tokens/s", Align::Right),
        ("time", Align::Right),
        ("folder", Align::Left),
        ("", Align::Left),
    ]);
    let rows: Vec<Vec<String>> = members
        .iter()
        .zip(&figures)
        .enumerate()
        .map(|(at, (member, figures))| row(member, figures.as_ref(), best == Some(at)))
        .collect();
    aligned(&headings, &rows)
}

fn row(member: &Member, figures: Option<&Summary>, is_best: bool) -> Vec<String> {
    let loss = |loss: Option<f64>| loss.map_or("-".into(), |loss| format!("{loss:.4}"));
    let whole = |number: Option<u64>| number.map_or("-".into(), count);
    let rate = figures.and_then(|it| it.tokens_per_second);
    let settings = member.settings.iter();
    let mut row: Vec<String> = settings.map(|(_, value)| plain(value).to_owned()).collect();
    row.extend([
        loss(figures.and_then(|it| it.best_val_loss)),
        whole(figures.and_then(|it| it.best_step)),
        loss(figures.and_then(|it| it.train_loss)),
        whole(rate.map(|rate| rate.round() as u64)),
        member.wall.map_or("-".into(), span),
        member.folder().display().to_string(),
        note(member, figures, is_best),
    ]);
    row
}

/// The end of a row.
fn note(member: &Member, figures: Option<&Summary>, is_best: bool) -> String {
    let step = figures.map_or(0, |it| it.step);
    let is_short = figures.is_some() && step < member.asked.config.train.max_iters;
    let fate = match &member.fate {
        // `train.max_minutes` were over.
        Fate::Done if is_short => format!("ended at step {}", count(step)),
        Fate::Done => String::new(),
        Fate::DoneBefore => "done before".into(),
        Fate::Stopped => format!("stopped at step {}", count(step)),
        Fate::NotBegun => "not begun".into(),
        Fate::Failed(error) => {
            let first = error.lines().next().unwrap_or_default();
            format!("failed: {first}")
        }
    };
    match (is_best, fate.as_str()) {
        (false, _) => fate,
        (true, "") => "<- best".into(),
        (true, fate) => format!("<- best; {fate}"),
    }
}

/// The settings with values for programs.
fn settings(member: &Member) -> Value {
    let values = member.settings.iter().map(|(key, value)| {
        let value = toml::from_str::<Map<String, Value>>(&format!("value = {value}"));
        let value = value.ok().and_then(|mut table| table.remove("value"));
        (key.clone(), value.unwrap_or_default())
    });
    Value::Object(values.collect())
}

/// The line before the events of a run.
pub(super) fn announcement(member: &Member) -> String {
    json!({
        "kind": "sweep_run",
        "settings": settings(member),
        "out_dir": member.folder().display().to_string(),
    })
    .to_string()
}

/// The last line of a sweep.
pub(super) fn json(members: &[Member]) -> String {
    let figures: Vec<Option<Summary>> = members.iter().map(figures).collect();
    let runs = members.iter().zip(&figures).map(|(member, figures)| {
        let (end, error) = match &member.fate {
            Fate::Done => ("done", None),
            Fate::DoneBefore => ("done before", None),
            Fate::Stopped => ("stopped", None),
            Fate::NotBegun => ("not begun", None),
            Fate::Failed(error) => ("failed", Some(error)),
        };
        json!({
            "settings": settings(member),
            "out_dir": member.folder().display().to_string(),
            "end": end,
            "error": error,
            "step": figures.as_ref().map(|it| it.step),
            "best_val_loss": figures.as_ref().map(|it| it.best_val_loss),
            "best_step": figures.as_ref().map(|it| it.best_step),
            "train_loss": figures.as_ref().map(|it| it.train_loss),
            "tokens_per_second": figures.as_ref().map(|it| it.tokens_per_second),
            "seconds": member.wall.map(|wall| wall.as_secs_f64()),
        })
    });
    let best = best(&figures).map(|at| members[at].folder().display().to_string());
    json!({ "kind": "sweep", "runs": runs.collect::<Vec<_>>(), "best": best }).to_string()
}
