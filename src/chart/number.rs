//! Quantities of axes: their units, and their numbers as text.

/// Quantity of an axis, which decides its ticks and their form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// A count of steps: `20,000`, then `200k`.
    Steps,
    /// A count of tokens: `500k`, `20M`, `1.5B`.
    Tokens,
    /// Seconds, as minutes, hours or days where they are many.
    Seconds,
    /// A loss or a norm: a plain decimal.
    Plain,
    /// A learning rate: `6e-4`.
    LearningRate,
    /// Tokens per second: `20k`.
    Rate,
    /// Bytes, in the largest unit that keeps them above 1.
    Bytes,
}

/// A unit of an axis: ticks are multiples of `size`, and `suffix` follows each number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unit {
    pub size: f64,
    pub suffix: &'static str,
    /// The unit's name for an axis title, where numbers have no suffix.
    pub name: &'static str,
}

const ONE: Unit = Unit {
    size: 1.0,
    suffix: "",
    name: "",
};

/// Unit of a quantity whose largest value on the axis is `largest`.
pub(super) fn unit(quantity: Quantity, largest: f64) -> Unit {
    let suffixed = |plain_up_to: f64| {
        let units = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")];
        let found = units
            .iter()
            .find(|(size, _)| largest >= *size && largest > plain_up_to);
        found.map_or(ONE, |&(size, suffix)| Unit {
            size,
            suffix,
            name: "",
        })
    };
    let named = |units: &[(f64, &'static str)]| {
        let found = units.iter().find(|(size, _)| largest >= *size);
        let (size, name) = *found.unwrap_or(&units[units.len() - 1]);
        Unit {
            size,
            suffix: "",
            name,
        }
    };
    const KI: f64 = 1024.0;
    match quantity {
        Quantity::Steps => suffixed(99_999.0),
        Quantity::Tokens => suffixed(9_999.0),
        Quantity::Rate => suffixed(9_999.0),
        Quantity::Bytes => named(&[
            (KI * KI * KI * KI, "TiB"),
            (KI * KI * KI, "GiB"),
            (KI * KI, "MiB"),
            (KI, "KiB"),
            (1.0, "B"),
        ]),
        Quantity::Seconds => named(&[
            (2.0 * 86_400.0, "days"),
            (2.0 * 3_600.0, "hours"),
            (120.0, "minutes"),
            (1.0, "seconds"),
        ])
        .of_time(),
        Quantity::Plain | Quantity::LearningRate => ONE,
    }
}

impl Unit {
    /// Days from two of them on, and so on: the unit's size is one of it.
    fn of_time(self) -> Self {
        let size = match self.name {
            "days" => 86_400.0,
            "hours" => 3_600.0,
            "minutes" => 60.0,
            _ => 1.0,
        };
        Self { size, ..self }
    }
}

/// A tick's number. `step` is the distance of ticks, which decides the decimals.
pub(super) fn tick_label(value: f64, step: f64, quantity: Quantity, unit: Unit) -> String {
    if quantity == Quantity::LearningRate {
        return learning_rate(value);
    }
    let (value, step) = (value / unit.size, step / unit.size);
    if value == 0.0 {
        return "0".into();
    }
    let decimals = decimals(step);
    if value.abs() < 1e-4 || (quantity == Quantity::Plain && value.abs() >= 1e6) {
        return learning_rate(value);
    }
    with_separators(&format!("{value:.decimals$}")) + unit.suffix
}

/// Decimals that tell multiples of `step` apart.
fn decimals(step: f64) -> usize {
    (0..6)
        .find(|&decimals| {
            let scaled = step * 10f64.powi(decimals);
            (scaled - scaled.round()).abs() < 1e-6 * scaled.max(1.0) && scaled.round() >= 1.0
        })
        .unwrap_or(6) as usize
}

/// `6e-4`, `1.5e-4`.
fn learning_rate(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let text = format!("{value:.2e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}e{exponent}")
}

/// `12345.5` -> `12,345.5`.
fn with_separators(number: &str) -> String {
    let (sign, rest) = number
        .strip_prefix('-')
        .map_or(("", number), |rest| ("-", rest));
    let (whole, decimals) = rest
        .split_once('.')
        .map_or((rest, None), |(a, b)| (a, Some(b)));
    let mut text = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if let Some(decimals) = decimals {
        text.push('.');
        text += decimals;
    }
    text
}

/// A single value with its unit, for a note in the picture: `23.1`, `1.2 GiB`.
pub(super) fn value_label(value: f64, quantity: Quantity) -> String {
    let unit = unit(quantity, value.abs());
    let scaled = value / unit.size;
    let precision = match scaled.abs() {
        s if s >= 100.0 => 1.0,
        s if s >= 10.0 => 0.1,
        s if s >= 1.0 => 0.01,
        _ => 0.0001,
    };
    let number = tick_label(value, precision * unit.size, quantity, unit);
    if unit.name.is_empty() {
        number
    } else {
        format!("{number} {}", unit.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_the_largest_value() {
        for (quantity, largest, size, suffix, name) in [
            (Quantity::Steps, 60_000.0, 1.0, "", ""),
            (Quantity::Steps, 600_000.0, 1e3, "k", ""),
            (Quantity::Tokens, 2_500.0, 1.0, "", ""),
            (Quantity::Tokens, 3e11, 1e9, "B", ""),
            (Quantity::Rate, 9_800.0, 1.0, "", ""),
            (Quantity::Rate, 23_000.0, 1e3, "k", ""),
            (Quantity::Bytes, 3e9, 1_073_741_824.0, "", "GiB"),
            (Quantity::Seconds, 100.0, 1.0, "", "seconds"),
            (Quantity::Seconds, 600.0, 60.0, "", "minutes"),
            (Quantity::Seconds, 9_000.0, 3_600.0, "", "hours"),
            (Quantity::Seconds, 400_000.0, 86_400.0, "", "days"),
        ] {
            let found = unit(quantity, largest);
            assert_eq!((found.size, found.suffix, found.name), (size, suffix, name));
        }
    }

    #[test]
    fn ticks_have_the_decimals_of_their_distance() {
        for (value, step, quantity, text) in [
            (20_000.0, 10_000.0, Quantity::Steps, "20,000"),
            (2.5, 0.5, Quantity::Plain, "2.5"),
            (2.0, 0.5, Quantity::Plain, "2.0"),
            (1.25, 0.05, Quantity::Plain, "1.25"),
            (0.0, 0.05, Quantity::Plain, "0"),
            (6e-4, 2e-4, Quantity::LearningRate, "6e-4"),
            (1.5e-4, 5e-5, Quantity::LearningRate, "1.5e-4"),
            (1e-5, 1e-5, Quantity::Plain, "1e-5"),
            (2e7, 1e7, Quantity::Plain, "2e7"),
        ] {
            assert_eq!(tick_label(value, step, quantity, ONE), text);
        }
        let millions = unit(Quantity::Tokens, 2.5e6);
        assert_eq!(tick_label(1.5e6, 5e5, Quantity::Tokens, millions), "1.5M");
    }

    #[test]
    fn single_values_carry_their_unit() {
        assert_eq!(value_label(23.14, Quantity::Plain), "23.1");
        assert_eq!(
            value_label(1.5 * 1_073_741_824.0, Quantity::Bytes),
            "1.50 GiB"
        );
        assert_eq!(value_label(25_310.0, Quantity::Rate), "25.3k");
    }
}
