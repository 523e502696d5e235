//! Ticks of an axis: multiples of 1, 2 or 5 times a power of ten, whole units of time, or decades.

use super::number::{Quantity, tick_label, unit};

/// A place on an axis and its number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub value: f64,
    pub label: String,
}

/// Ticks within `low..=high`, about `target` of them and never more than twice as many.
pub(super) fn ticks(
    low: f64,
    high: f64,
    target: usize,
    quantity: Quantity,
    is_log: bool,
) -> Vec<Tick> {
    if !(low.is_finite() && high.is_finite() && low < high) {
        return Vec::new();
    }
    if is_log && low > 0.0 && high / low >= 4.0 {
        return decades(low, high, target, quantity);
    }
    let step = distance(low, high, target, quantity);
    let unit = unit(quantity, low.abs().max(high.abs()));
    let slack = step * 1e-6;
    let first = ((low - slack) / step).ceil() as i64;
    let last = ((high + slack) / step).floor() as i64;
    (first..=last)
        .map(|multiple| multiple as f64 * step)
        .map(|value| Tick {
            value,
            label: tick_label(value, step, quantity, unit),
        })
        .collect()
}

/// Distance of linear ticks.
pub(super) fn distance(low: f64, high: f64, target: usize, quantity: Quantity) -> f64 {
    let unit = unit(quantity, low.abs().max(high.abs())).size;
    let rough = (high - low) / target.max(1) as f64 / unit;
    let nice = match (quantity, unit as u64) {
        (Quantity::Seconds, 1 | 60) => {
            of_list(rough, &[1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0])
        }
        (Quantity::Seconds, 3_600) => of_list(rough, &[0.25, 0.5, 1.0, 2.0, 3.0, 6.0, 12.0, 24.0]),
        _ => one_two_five(rough),
    };
    // There is no half of a step or of a token.
    let whole = matches!(quantity, Quantity::Steps | Quantity::Tokens);
    if whole {
        (nice * unit).max(1.0)
    } else {
        nice * unit
    }
}

/// Share of the wanted distance that a tick's distance may have. With 1, few ticks are left of few.
const NEARER: f64 = 0.65;

/// The smallest of 1, 2 and 5 times a power of ten that is not much below `rough`.
fn one_two_five(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let found = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= rough * NEARER);
    found.unwrap_or(10.0) * power
}

fn of_list(rough: f64, list: &[f64]) -> f64 {
    list.iter()
        .copied()
        .find(|&step| step >= rough * NEARER)
        .unwrap_or_else(|| one_two_five(rough))
}

/// Ticks of a logarithmic axis: powers of ten, with 2 and 5 between them where there is room.
fn decades(low: f64, high: f64, target: usize, quantity: Quantity) -> Vec<Tick> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let span = (high / low).log10();
    let factors: &[f64] = match span {
        span if span * 3.0 <= target as f64 * 1.5 => &[1.0, 2.0, 5.0],
        span if span * 2.0 <= target as f64 * 1.5 => &[1.0, 3.0],
        _ => &[1.0],
    };
    let every = ((span / target.max(1) as f64).ceil() as i32).max(1);
    let mut found = Vec::new();
    for exponent in (first..=last).filter(|exponent| exponent.rem_euclid(every) == 0) {
        for factor in factors {
            // 10^-4 by powi is not the double that a reader writes as 1e-4.
            let value: f64 = format!("{factor}e{exponent}").parse().unwrap_or(f64::NAN);
            if value >= low * (1.0 - 1e-9) && value <= high * (1.0 + 1e-9) {
                found.push(Tick {
                    value,
                    label: tick_label(value, value, quantity, unit(quantity, value)),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, target: usize, quantity: Quantity, is_log: bool) -> Vec<String> {
        ticks(low, high, target, quantity, is_log)
            .into_iter()
            .map(|tick| tick.label)
            .collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(labels(1.1, 4.6, 4, Quantity::Plain, false), ["2", "3", "4"]);
        assert_eq!(
            labels(0.0, 3_000.0, 6, Quantity::Steps, false),
            ["0", "500", "1,000", "1,500", "2,000", "2,500", "3,000"]
        );
        assert_eq!(
            labels(0.0, 600_000.0, 6, Quantity::Steps, false),
            ["0", "100k", "200k", "300k", "400k", "500k", "600k"]
        );
        assert_eq!(
            labels(0.0, 6e-4, 3, Quantity::LearningRate, false),
            ["0", "2e-4", "4e-4", "6e-4"]
        );
        assert_eq!(
            labels(0.0, 2.5e9, 5, Quantity::Bytes, false),
            ["0", "0.5", "1.0", "1.5", "2.0"]
        );
        assert_eq!(
            labels(0.0, 3.0, 10, Quantity::Steps, false),
            ["0", "1", "2", "3"]
        );
    }

    #[test]
    fn time_has_ticks_at_whole_units() {
        assert_eq!(
            labels(0.0, 170.0, 6, Quantity::Seconds, false),
            ["0", "1", "2"]
        );
        assert_eq!(
            labels(0.0, 100.0, 4, Quantity::Seconds, false),
            ["0", "30", "60", "90"]
        );
        assert_eq!(
            labels(0.0, 10.0 * 3600.0, 5, Quantity::Seconds, false),
            ["0", "2", "4", "6", "8", "10"]
        );
    }

    #[test]
    fn logarithmic_ticks_are_decades_with_what_fits_between() {
        assert_eq!(
            labels(1.0, 1e6, 6, Quantity::Plain, true),
            ["1", "10", "100", "1,000", "10,000", "100,000", "1e6"]
        );
        assert_eq!(
            labels(1.0, 11.0, 5, Quantity::Plain, true),
            ["1", "2", "5", "10"]
        );
        assert_eq!(
            labels(2.9, 4.2, 4, Quantity::Plain, true),
            ["3.0", "3.5", "4.0"]
        );
        assert_eq!(
            labels(1e-5, 1e-3, 4, Quantity::LearningRate, true),
            ["1e-5", "2e-5", "5e-5", "1e-4", "2e-4", "5e-4", "1e-3"]
        );
    }

    #[test]
    fn there_are_never_more_than_twice_the_ticks_asked_for() {
        for low in [0.0, 0.3, 17.0, -5.0] {
            for exponent in -8..12 {
                for target in 1..9 {
                    let high = low + 3.7 * 10f64.powi(exponent);
                    let found = ticks(low, high, target, Quantity::Plain, false).len();
                    assert!(found <= 2 * target + 1, "{low} {high} {target}: {found}");
                }
            }
        }
    }

    #[test]
    fn no_range_has_no_ticks() {
        assert!(ticks(1.0, 1.0, 5, Quantity::Plain, false).is_empty());
        assert!(ticks(f64::NAN, 1.0, 5, Quantity::Plain, false).is_empty());
    }
}
