//! The picture of one run or of several.

use super::axis::axis;
use super::label::{labels, subtitle};
use super::{Drawing, Metric, Positions, Window, automatic_window, marks, series};
use crate::chart::{Curve, Figure, Key, Mark, Panel, Point, Quantity, Stroke, smoothed};
use crate::runs::Run;

/// Colour of the validation loss, of the second memory and of plans, where there is one run.
const SECOND: usize = 1;
const QUIET: usize = 6;

/// A run with all that its curves need.
struct Drawn<'a> {
    run: &'a Run,
    x: Positions,
    window: Window,
    /// `None` where it is the only one.
    colour: Option<usize>,
}

/// The picture of `runs`, laid over each other. A metric that no run has recorded has no panel.
pub fn figure(runs: &[Run], drawing: &Drawing) -> Figure {
    let steps = drawing.smooth.unwrap_or_else(|| automatic_window(runs));
    let is_one = runs.len() == 1;
    let drawn: Vec<Drawn> = runs
        .iter()
        .enumerate()
        .map(|(index, run)| Drawn {
            run,
            x: Positions::of(run, drawing.x),
            window: Window::of(run, steps),
            colour: (!is_one).then_some(index),
        })
        .collect();
    let title = match runs {
        [run] => run.name.clone(),
        runs => format!("{} runs", runs.len()),
    };
    let subtitles: Vec<String> = runs.iter().map(subtitle).collect();
    let is_common = subtitles.windows(2).all(|pair| pair[0] == pair[1]);
    Figure {
        title,
        subtitle: subtitles
            .into_iter()
            .next()
            .filter(|_| is_common)
            .unwrap_or_default(),
        x: axis(drawing.x, drawing.is_log_x()),
        panels: panels(&drawn, drawing),
        legend: if is_one { Vec::new() } else { legend(runs) },
        marks: all_marks(&drawn),
    }
}

fn legend(runs: &[Run]) -> Vec<Key> {
    let labels = labels(runs);
    let keys = runs
        .iter()
        .zip(labels)
        .enumerate()
        .map(|(colour, (run, label))| Key {
            label,
            note: run.best_eval().map_or(String::new(), |best| {
                format!("best val loss {:.4}", best.record.val_loss)
            }),
            colour: Some(colour),
            stroke: Stroke::Plain,
        });
    keys.collect()
}

fn all_marks(drawn: &[Drawn]) -> Vec<Mark> {
    let all = drawn
        .iter()
        .flat_map(|one| marks(one.run, &one.x, one.colour));
    all.collect()
}

fn panels(drawn: &[Drawn], drawing: &Drawing) -> Vec<Panel> {
    let panel = |title: &str, quantity, curves, keys| Panel {
        title: title.into(),
        quantity,
        is_log: false,
        is_from_zero: true,
        curves,
        keys,
    };
    let noisy =
        |title, quantity, metric| panel(title, quantity, curves(drawn, metric, true), Vec::new());
    let all = [
        loss_panel(drawn, drawing),
        drawing.wants(Metric::LearningRate).then(|| {
            let curves = curves(drawn, Metric::LearningRate, false);
            panel("Learning rate", Quantity::LearningRate, curves, Vec::new())
        }),
        drawing
            .wants(Metric::GradNorm)
            .then(|| noisy("Gradient norm", Quantity::Plain, Metric::GradNorm)),
        drawing
            .wants(Metric::TokensPerSecond)
            .then(|| noisy("Tokens per second", Quantity::Rate, Metric::TokensPerSecond)),
        drawing.wants(Metric::Memory).then(|| memory_panel(drawn)),
    ];
    let is_filled = |panel: &Panel| !panel.curves.is_empty();
    all.into_iter().flatten().filter(is_filled).collect()
}

/// The curves of a metric, one or more for each run.
fn curves(drawn: &[Drawn], metric: Metric, is_noisy: bool) -> Vec<Curve> {
    let of_run = |one: &Drawn| {
        let (colour, window) = (one.colour.unwrap_or(0), one.window);
        let found = series(one.run, metric, &one.x).into_iter();
        found
            .map(|series| Curve {
                stroke: stroke(&series.points, is_noisy, window),
                points: series.points,
                colour,
                note: None,
            })
            .collect::<Vec<_>>()
    };
    drawn.iter().flat_map(of_run).collect()
}

/// Smooth curve over a faint one, where the window smooths anything.
fn stroke(points: &[Point], is_noisy: bool, window: Window) -> Stroke {
    if !is_noisy || !window.smooths() {
        return Stroke::Plain;
    }
    let values: Vec<f64> = points.iter().map(|point| point.1).collect();
    let places = points.iter().map(|point| point.0);
    Stroke::Smoothed(places.zip(smoothed(&values, window.values)).collect())
}

fn loss_panel(drawn: &[Drawn], drawing: &Drawing) -> Option<Panel> {
    let (trained, validated) = (drawing.wants(Metric::Loss), drawing.wants(Metric::ValLoss));
    let is_one = drawn.len() == 1;
    let mut panel = Panel {
        title: if trained { "Loss" } else { "Validation loss" }.into(),
        quantity: Quantity::Plain,
        is_log: drawing.is_log_y(),
        is_from_zero: false,
        curves: if trained {
            curves(drawn, Metric::Loss, true)
        } else {
            Vec::new()
        },
        keys: Vec::new(),
    };
    let key = |label: &str, note: String, colour: usize, stroke| Key {
        label: label.into(),
        note,
        colour: is_one.then_some(colour),
        stroke,
    };
    if let Some(first) = panel.curves.first() {
        let smooths = matches!(first.stroke, Stroke::Smoothed(_));
        let steps = drawn.iter().map(|one| one.window.steps).max().unwrap_or(1);
        let note = if smooths {
            format!("mean of {steps} steps")
        } else {
            String::new()
        };
        let stroke = if smooths {
            Stroke::Smoothed(Vec::new())
        } else {
            Stroke::Plain
        };
        panel.keys.push(key("training", note, 0, stroke));
    }
    let mut has_evals = false;
    for one in drawn.iter().filter(|_| validated) {
        for mut curve in curves(std::slice::from_ref(one), Metric::ValLoss, false) {
            has_evals = true;
            curve.stroke = Stroke::Circles;
            curve.colour = one.colour.unwrap_or(SECOND);
            let best = one.run.best_eval().filter(|_| is_one);
            curve.note = best.map(|best| {
                let loss = best.record.val_loss;
                ((one.x.at(best.step), loss), format!("best {loss:.4}"))
            });
            panel.curves.push(curve);
        }
    }
    if has_evals {
        panel
            .keys
            .push(key("validation", String::new(), SECOND, Stroke::Circles));
    }
    (trained || validated).then_some(panel)
}

/// Memory of the process and of the GPU, and what was planned. Several runs have one curve each: the GPU's, if there is one.
fn memory_panel(drawn: &[Drawn]) -> Panel {
    let mut curves = Vec::new();
    let mut keys = Vec::new();
    for one in drawn {
        let found = series(one.run, Metric::Memory, &one.x);
        let most = if one.colour.is_some() { 1 } else { 2 };
        for (index, series) in found.into_iter().take(most).enumerate() {
            let colour = one.colour.unwrap_or(index);
            keys.push(Key {
                label: series.name.into(),
                note: String::new(),
                colour: Some(colour),
                stroke: Stroke::Plain,
            });
            curves.push(Curve {
                points: series.points,
                colour,
                stroke: Stroke::Plain,
                note: None,
            });
        }
    }
    let planned = drawn
        .iter()
        .filter(|_| drawn.len() == 1)
        .find_map(|one| one.run.description.as_ref());
    if let (Some(description), Some(curve)) = (planned, curves.first()) {
        let places: Vec<f64> = curve.points.iter().map(|point| point.0).collect();
        let ends = [places.first(), places.last()].into_iter().flatten();
        let points = ends
            .map(|&at| (at, description.planned_bytes as f64))
            .collect();
        curves.push(Curve {
            points,
            colour: QUIET,
            stroke: Stroke::Dashed,
            note: None,
        });
        keys.push(Key {
            label: "planned".into(),
            note: String::new(),
            colour: Some(QUIET),
            stroke: Stroke::Dashed,
        });
    }
    Panel {
        title: "Memory".into(),
        quantity: Quantity::Bytes,
        is_log: false,
        is_from_zero: true,
        curves,
        keys: if drawn.len() == 1 { keys } else { Vec::new() },
    }
}
