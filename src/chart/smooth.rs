//! Smoothing: a centred mean.

/// Weighted mean of each value and its neighbours, about `window` values in all. The weights fall off to both sides in a
/// straight line, so that a single spike becomes a small peak and no plateau.
///
/// The window is centred: the smoothed curve is neither late nor early, as an exponential average is late. At the ends it
/// narrows on both sides alike. A value that is not finite stays a gap and counts in no mean.
pub fn smoothed(values: &[f64], window: usize) -> Vec<f64> {
    // The mean of means has triangular weights.
    let half = window.div_ceil(2);
    means(&means(values, half), half)
}

/// Mean of each value and its neighbours, `window` values in all; an even window counts as the next odd one.
fn means(values: &[f64], window: usize) -> Vec<f64> {
    let half = window / 2;
    let mut sums = Vec::with_capacity(values.len() + 1);
    let mut total = (0.0f64, 0u64);
    sums.push(total);
    for value in values {
        if value.is_finite() {
            total = (total.0 + value, total.1 + 1);
        }
        sums.push(total);
    }
    let mean = |(index, value): (usize, &f64)| {
        if !value.is_finite() {
            return f64::NAN;
        }
        let half = half.min(index).min(values.len() - 1 - index);
        if half == 0 {
            return *value;
        }
        let (before, after) = (sums[index - half], sums[index + half + 1]);
        (after.0 - before.0) / (after.1 - before.1) as f64
    };
    values.iter().enumerate().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_line_stays_where_it_is() {
        let line: Vec<f64> = (0..50).map(f64::from).collect();
        assert_eq!(smoothed(&line, 9), line);
    }

    #[test]
    fn noise_is_averaged_and_the_ends_are_kept() {
        assert_eq!(
            means(&[0.0, 3.0, 0.0, 3.0, 9.0], 3),
            [0.0, 1.0, 2.0, 4.0, 9.0]
        );
        assert_eq!(smoothed(&[1.0, 5.0], 1), [1.0, 5.0]);
        assert!(smoothed(&[], 5).is_empty());
    }

    #[test]
    fn a_spike_becomes_a_peak() {
        let mut values = [0.0; 21];
        values[10] = 9.0;
        let found = smoothed(&values, 5);
        assert_eq!(found[7..14], [0.0, 1.0, 2.0, 3.0, 2.0, 1.0, 0.0]);
    }

    #[test]
    fn a_gap_stays_a_gap_and_spoils_nothing_else() {
        let found = means(&[2.0, 4.0, f64::NAN, 8.0, f64::INFINITY, 10.0, 12.0], 3);
        assert_eq!(found[1], 3.0);
        assert!(found[2].is_nan() && found[4].is_nan());
        assert_eq!((found[3], found[5]), (8.0, 11.0));
    }
}
