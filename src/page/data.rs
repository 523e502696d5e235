//! The curves of a page as JSON, for its script.

use serde_json::{Value, json};

use super::html::inside_script;
use crate::chart::{Curve, Figure, Panel, Quantity, Stroke, Symbol, kept_indices};
use crate::curves::{Positions, XKind};
use crate::runs::Run;

/// Parts of a run, of each of which the extremes of every curve are kept. More points than that are not seen.
const PARTS: usize = 400;

/// An axis that a reader can choose.
pub(super) struct Axis {
    pub id: &'static str,
    pub label: &'static str,
    kind: XKind,
    title: &'static str,
    quantity: Quantity,
}

/// The axes that a run has recorded.
pub(super) fn axes(run: &Run) -> Vec<Axis> {
    let axis = |id, label, kind, title, quantity| Axis {
        id,
        label,
        kind,
        title,
        quantity,
    };
    let all = [
        axis("step", "Steps", XKind::Step, "step", Quantity::Steps),
        axis(
            "tokens",
            "Tokens",
            XKind::Tokens,
            "tokens",
            Quantity::Tokens,
        ),
        axis("time", "Time", XKind::Time, "time", Quantity::Seconds),
    ];
    let is_known = |axis: &Axis| {
        let last = run.steps.last().map_or(0, |point| point.step);
        axis.kind == XKind::Step || Positions::of(run, axis.kind).at(last).is_finite()
    };
    all.into_iter().filter(is_known).collect()
}

/// Whether any curve is smoothed.
pub(super) fn is_smoothed(figure: &Figure) -> bool {
    let mut curves = figure.panels.iter().flat_map(|panel| &panel.curves);
    curves.any(|curve| matches!(curve.stroke, Stroke::Smoothed(_)))
}

/// Everything that the script draws. `figure` is the picture of `run` over its steps.
pub(super) fn json(run: &Run, figure: &Figure) -> String {
    let kept = kept(figure);
    let axes = axes(run);
    let steps: Vec<u64> = run.steps.iter().map(|point| point.step).collect();
    let steps: Vec<u64> = kept
        .iter()
        .filter_map(|&index| steps.get(index).copied())
        .collect();
    let evals: Vec<u64> = run.evals.iter().map(|point| point.step).collect();
    let marks = figure.marks.iter().map(|mark| {
        let mut value = json!({
            "kind": mark.kind, "text": mark.text, "colour": mark.colour, "symbol": symbol(mark.symbol),
        });
        for axis in &axes {
            value[axis.id] = number(Positions::of(run, axis.kind).at(mark.x as u64));
        }
        value
    });
    let titles = axes
        .iter()
        .map(|axis| json!({"id": axis.id, "title": axis.title, "kind": kind(axis.quantity)}));
    let value = json!({
        "axes": titles.collect::<Vec<_>>(),
        "steps": places(run, &axes, &steps),
        "evals": places(run, &axes, &evals),
        "panels": figure.panels.iter().map(|one| panel(one, &kept)).collect::<Vec<_>>(),
        "marks": marks.collect::<Vec<_>>(),
    });
    inside_script(&value.to_string())
}

/// Places of steps on every axis.
fn places(run: &Run, axes: &[Axis], steps: &[u64]) -> Value {
    let columns = axes.iter().map(|axis| {
        let positions = Positions::of(run, axis.kind);
        let column = steps.iter().map(|&step| number(positions.at(step)));
        (axis.id.to_owned(), Value::Array(column.collect()))
    });
    Value::Object(columns.collect())
}

/// Indices of the recorded steps that the page has.
fn kept(figure: &Figure) -> Vec<usize> {
    let is_of_steps = |curve: &&Curve| !matches!(curve.stroke, Stroke::Circles | Stroke::Dashed);
    let curves = figure.panels.iter().flat_map(|panel| &panel.curves);
    let values: Vec<Vec<f64>> = curves
        .filter(is_of_steps)
        .map(|curve| curve.points.iter().map(|point| point.1).collect())
        .collect();
    let values: Vec<&[f64]> = values.iter().map(Vec::as_slice).collect();
    kept_indices(&values, PARTS)
}

fn panel(panel: &Panel, kept: &[usize]) -> Value {
    let cut = panel.cut();
    let series = panel.curves.iter().enumerate().map(|(index, curve)| {
        let name = panel.keys.get(index).map_or("", |key| &key.label);
        let of_steps = |points: &[(f64, f64)]| -> Vec<Value> {
            let values = kept.iter().filter_map(|&index| points.get(index));
            values.map(|point| number(point.1)).collect()
        };
        let all = || curve.points.iter().map(|point| number(point.1)).collect::<Vec<_>>();
        match &curve.stroke {
            Stroke::Circles => {
                json!({"name": name, "of": "evals", "colour": curve.colour, "raw": all()})
            }
            Stroke::Dashed => {
                let level = curve.points.first().map_or(f64::NAN, |point| point.1);
                json!({"name": name, "of": "steps", "colour": curve.colour, "level": number(level)})
            }
            Stroke::Smoothed(smooth) => json!({
                "name": name, "of": "steps", "colour": curve.colour,
                "raw": of_steps(&curve.points), "smooth": of_steps(smooth),
            }),
            Stroke::Plain => {
                json!({"name": name, "of": "steps", "colour": curve.colour, "raw": of_steps(&curve.points)})
            }
        }
    });
    let values = panel.curves.iter().flat_map(|curve| &curve.points);
    let largest = values
        .map(|point| point.1)
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max);
    json!({
        "title": panel.title,
        "kind": kind(panel.quantity),
        "zero": panel.is_from_zero,
        "log": panel.quantity == Quantity::Plain && !panel.is_from_zero,
        "largest": number(cut.map_or(largest, |(high, _)| high)),
        "cut": cut.map(|(high, beyond)| json!({"high": number(high), "beyond": number(beyond)})),
        "series": series.collect::<Vec<_>>(),
    })
}

/// Seven significant digits, which no screen can tell from more, and `null` for what is no number.
fn number(value: f64) -> Value {
    let rounded: Option<f64> = format!("{value:.6e}").parse().ok();
    match rounded.filter(|value| value.is_finite()) {
        // Whole numbers take fewer bytes without their `.0`.
        Some(value) if value.fract() == 0.0 && value.abs() < 1e15 => json!(value as i64),
        Some(value) => json!(value),
        None => Value::Null,
    }
}

fn kind(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Steps => "steps",
        Quantity::Tokens => "tokens",
        Quantity::Seconds => "seconds",
        Quantity::Plain => "plain",
        Quantity::LearningRate => "lr",
        Quantity::Rate => "rate",
        Quantity::Bytes => "bytes",
    }
}

fn symbol(symbol: Symbol) -> &'static str {
    match symbol {
        Symbol::Down => "down",
        Symbol::Up => "up",
        Symbol::Diamond => "diamond",
        Symbol::Cross => "cross",
        Symbol::Square => "square",
        Symbol::Right => "right",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_always_json() {
        for (value, text) in [
            (3.0, "3"),
            (1.0 / 3.0, "0.3333333"),
            (6e-4, "0.0006"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
            (-1e300, "-1e+300"),
        ] {
            assert_eq!(number(value).to_string(), text);
        }
    }
}
