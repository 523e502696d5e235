//! Ranges of axes.

use super::figure::{Figure, Panel};

/// Share of a curve's values that a picture must show. A spike beyond them may be cut off.
const SHOWN: f64 = 0.98;

/// The values between an axis's ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub low: f64,
    pub high: f64,
    /// The largest value, where it is beyond `high`.
    pub beyond: Option<f64>,
}

/// Range of the x axis: from 0 where the first point is near it, else from the first point.
pub(super) fn x_range(figure: &Figure) -> Range {
    let is_log = figure.x.is_log;
    let curves = figure.panels.iter().flat_map(|panel| &panel.curves);
    let all = curves.flat_map(|curve| &curve.points).map(|point| point.0);
    let (low, high) = ends(all.filter(|&x| x.is_finite() && (!is_log || x > 0.0)));
    let low = if !is_log && low > 0.0 && low <= 0.05 * high {
        0.0
    } else {
        low
    };
    widened(low, high, is_log)
}

/// Range of a panel's y axis. Where a few values would press all others into less than half of the panel, the axis ends
/// above the others, and `beyond` has the largest.
pub(super) fn y_range(panel: &Panel) -> Range {
    let is_drawn = |value: &f64| value.is_finite() && (!panel.is_log || *value > 0.0);
    let mut shown = f64::NEG_INFINITY;
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for curve in &panel.curves {
        let mut values: Vec<f64> = curve
            .points
            .iter()
            .map(|point| point.1)
            .filter(is_drawn)
            .collect();
        if values.is_empty() {
            continue;
        }
        values.sort_unstable_by(f64::total_cmp);
        let rank = ((values.len() as f64 * SHOWN).ceil() as usize).clamp(1, values.len());
        shown = shown.max(values[rank - 1]);
        low = low.min(values[0]);
        high = high.max(values[values.len() - 1]);
    }
    if low > high {
        (low, high) = (0.0, 1.0);
        shown = high;
    }
    if panel.is_log {
        let Range { low, high, .. } = widened(low, high, true);
        let pad = (high / low).powf(0.05);
        return Range {
            low: low / pad,
            high: high * pad,
            beyond: None,
        };
    }
    if panel.is_from_zero {
        low = low.min(0.0);
    }
    let is_cut = high - low > 2.0 * (shown - low) && shown > low;
    let beyond = is_cut.then_some(high);
    let top = if is_cut {
        shown + 0.2 * (shown - low)
    } else {
        high
    };
    let Range { low, high, .. } = widened(low, top, false);
    let pad = 0.06 * (high - low);
    let low = if panel.is_from_zero && low == 0.0 {
        0.0
    } else {
        low - pad
    };
    Range {
        low,
        high: high + pad,
        beyond,
    }
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

/// A range that is not empty.
fn widened(low: f64, high: f64, is_log: bool) -> Range {
    let beyond = None;
    match (is_log, low < high) {
        (true, _) if low <= 0.0 => Range {
            low: 1.0,
            high: 10.0,
            beyond,
        },
        (_, true) => Range { low, high, beyond },
        (true, false) => Range {
            low: low / 1.5,
            high: low * 1.5,
            beyond,
        },
        (false, false) => {
            let half = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
            Range {
                low: if low == 0.0 { 0.0 } else { low - half },
                high: low + half,
                beyond,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Curve, Stroke};
    use super::super::number::Quantity;
    use super::*;

    fn panel(values: &[f64], is_log: bool, is_from_zero: bool) -> Panel {
        let points = values
            .iter()
            .enumerate()
            .map(|(x, &y)| (x as f64, y))
            .collect();
        Panel {
            title: "loss".into(),
            quantity: Quantity::Plain,
            is_log,
            is_from_zero,
            curves: vec![Curve {
                points,
                colour: 0,
                stroke: Stroke::Plain,
                note: None,
            }],
            keys: vec![],
        }
    }

    #[test]
    fn every_value_is_shown_where_they_are_of_one_size() {
        let range = y_range(&panel(&[4.6, 3.0, 2.0, 1.1], false, false));
        assert!(range.low < 1.1 && range.high > 4.6 && range.beyond.is_none());
        assert_eq!(y_range(&panel(&[4.0, 8.0], false, true)).low, 0.0);
    }

    #[test]
    fn a_spike_is_cut_off_and_told() {
        let mut values = vec![1.0; 1_000];
        values[10] = 1_000.0;
        values[11] = 1.5;
        values[12..60].fill(1.2);
        let range = y_range(&panel(&values, false, true));
        assert_eq!(range.beyond, Some(1_000.0));
        assert!(range.high > 1.2 && range.high < 3.0, "{range:?}");
        assert_eq!(y_range(&panel(&values, true, false)).beyond, None);
    }

    #[test]
    fn a_range_is_never_empty_nor_infinite() {
        for values in [
            &[][..],
            &[f64::NAN],
            &[f64::INFINITY, f64::NEG_INFINITY],
            &[0.0],
            &[-3.0],
            &[1e-4, 1e-4],
        ] {
            for is_log in [false, true] {
                let range = y_range(&panel(values, is_log, false));
                assert!(
                    range.low < range.high && range.low.is_finite() && range.high.is_finite(),
                    "{values:?} {range:?}"
                );
                assert!(!is_log || range.low > 0.0);
            }
        }
    }
}
