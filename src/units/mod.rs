//! Numbers as text: thousands separated, units always there.

mod memory_size;

use std::time::Duration;

pub use memory_size::parse_bytes;

/// 1234567 -> `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 12936806 -> `12.3 MiB`, 2877628088 -> `2.68 GiB`: two decimals from GiB on, where a budget of 2.68 GiB must
/// not read as one of 2.7; below 1 KiB exact.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be written as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if unit < 2 { 1 } else { 2 };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// The time of one step or one save: `33.1 ms`, `2.50 s`, and from a minute on as [`span`].
pub(crate) fn short_time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.99995 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 59.995 {
        format!("{seconds:.2} s")
    } else {
        span(duration)
    }
}

/// The time of a run, in its two largest units: `42s`, `3m 07s`, `5h 02m`, `4d 11h`, `42y 118d`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 365 {
        format!("{}y {}d", count(days / 365), days % 365)
    } else if days > 0 {
        format!("{days}d {:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// `64,512`, and from a million on `1.23M`, `4.92B`.
pub(crate) fn short_count(number: u64) -> String {
    match number {
        0..1_000_000 => count(number),
        1_000_000..1_000_000_000 => format!("{:.2}M", number as f64 / 1e6),
        _ => format!("{:.2}B", number as f64 / 1e9),
    }
}

/// `23,200 tok/s`.
pub(crate) fn rate(tokens_per_second: f64) -> String {
    format!("{} tok/s", count(tokens_per_second.round() as u64))
}

/// `61.2 GFLOP/s`, from 10,000 of them on in TFLOP/s.
pub(crate) fn flops(per_second: f64) -> String {
    if per_second < 1e13 {
        format!("{:.1} GFLOP/s", per_second / 1e9)
    } else {
        format!("{:.1} TFLOP/s", per_second / 1e12)
    }
}

/// `9.901e-5`, `1.980e-4`: the same digits in every line of a log.
pub(crate) fn learning_rate_in_a_column(value: f64) -> String {
    format!("{value:.3e}")
}

/// `44.70`, from a million on `4.59e223`; a double ends at 1.8e308.
pub(crate) fn perplexity(value: f64) -> String {
    if value == f64::INFINITY {
        "above 1e308".into()
    } else if value < 1e6 {
        format!("{value:.2}")
    } else {
        format!("{value:.2e}")
    }
}

/// `9.9e-4`; as many digits as it has, up to four.
pub(crate) fn learning_rate(value: f64) -> String {
    let text = format!("{value:.3e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let digits = digits.trim_end_matches('0');
            let digits = digits.strip_suffix('.').unwrap_or(digits);
            format!("{digits}e{exponent}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_a_comma_every_three_digits() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (491_520, "491,520"),
        ];
        for (n, text) in cases {
            assert_eq!(count(n), text);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn bytes_take_the_unit_that_keeps_them_short() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (12_936_806, "12.3 MiB"),
            ((1 << 30) - 1, "1.00 GiB"),
            (2_888_365_506, "2.69 GiB"),
            (24 << 30, "24.00 GiB"),
            (u64::MAX, "16777216.00 TiB"),
        ];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn times_have_the_precision_a_reader_can_use() {
        let short = [
            (0.0331, "33.1 ms"),
            (0.99996, "1.00 s"),
            (2.5, "2.50 s"),
            (59.999, "1m 00s"),
        ];
        for (seconds, text) in short {
            assert_eq!(short_time(Duration::from_secs_f64(seconds)), text);
        }
        let spans = [
            (0.4, "0s"),
            (59.6, "1m 00s"),
            (187.0, "3m 07s"),
            (3_599.7, "1h 00m"),
            (18_120.0, "5h 02m"),
            (385_200.0, "4d 11h"),
            (1.3e9, "41y 81d"),
        ];
        for (seconds, text) in spans {
            assert_eq!(span(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn rates_carry_their_units() {
        assert_eq!(rate(23_199.6), "23,200 tok/s");
        assert_eq!(flops(61.24e9), "61.2 GFLOP/s");
        assert_eq!(flops(412.3e12), "412.3 TFLOP/s");
    }

    #[test]
    fn perplexities_stay_short() {
        let cases = [
            (1.0, "1.00"),
            (999_999.0, "999999.00"),
            (515f64.exp(), "4.59e223"),
            (5149f64.exp(), "above 1e308"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(perplexity(value), text);
        }
    }

    #[test]
    fn learning_rates_in_a_column_have_the_same_digits() {
        let rates = [9.901e-5, 1.98e-4, 1e-3, 0.0];
        let texts = rates.map(learning_rate_in_a_column);
        assert_eq!(texts, ["9.901e-5", "1.980e-4", "1.000e-3", "0.000e0"]);
    }

    #[test]
    fn learning_rates_are_written_without_idle_zeros() {
        let cases = [
            (9.9e-4, "9.9e-4"),
            (6e-4, "6e-4"),
            (0.00012345, "1.234e-4"),
            (0.0, "0e0"),
            (1.0, "1e0"),
        ];
        for (value, text) in cases {
            assert_eq!(learning_rate(value), text);
        }
    }
}
