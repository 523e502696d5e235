//! Fewer points that look the same.

use super::scale::Scale;

/// A point of a curve. A value that is not finite is a gap.
pub type Point = (f64, f64);

/// Pixels of a curve in pieces without gaps, at most four points for each column of pixels: the first, the lowest, the
/// highest and the last. A line through them covers the same pixels as one through every point (Jugel et al., "M4: a
/// visualization-oriented time series data aggregation", VLDB 2014).
pub(super) fn pixels(points: &[Point], x: &Scale, y: &Scale) -> Vec<Vec<(f64, f64)>> {
    let mut pieces: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
    let mut column: Vec<(f64, f64)> = Vec::new();
    for &(at, value) in points {
        let Some((left, top)) = x.pixel(at).zip(y.pixel(value)) else {
            flush(&mut column, &mut pieces);
            pieces.push(Vec::new());
            continue;
        };
        if column
            .first()
            .is_some_and(|(first, _)| first.floor() != left.floor())
        {
            flush(&mut column, &mut pieces);
        }
        column.push((left, top));
    }
    flush(&mut column, &mut pieces);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Moves a column's points to the last piece, the four that matter of many.
fn flush(column: &mut Vec<(f64, f64)>, pieces: &mut [Vec<(f64, f64)>]) {
    let Some(piece) = pieces.last_mut() else {
        return;
    };
    let tops: Vec<f64> = column.iter().map(|point| point.1).collect();
    piece.extend(extremes(&tops).into_iter().map(|index| column[index]));
    column.clear();
}

/// Indices of the first, lowest, highest and last value, ascending and each once. Gaps are passed over.
fn extremes(values: &[f64]) -> Vec<usize> {
    let finite = || (0..values.len()).filter(|&index| values[index].is_finite());
    let by = |a: &usize, b: &usize| values[*a].total_cmp(&values[*b]);
    let found = [
        finite().next(),
        finite().min_by(by),
        finite().max_by(by),
        finite().last(),
    ];
    let mut kept: Vec<usize> = found.into_iter().flatten().collect();
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// Indices of the points that several curves over the same x keep, in about `buckets` parts: the first, lowest, highest
/// and last of every curve in every part, and the gaps' first. All of them where there are few.
pub fn kept_indices(curves: &[&[f64]], buckets: usize) -> Vec<usize> {
    let len = curves.iter().map(|curve| curve.len()).max().unwrap_or(0);
    let buckets = buckets.max(1);
    if len <= buckets * 4 {
        return (0..len).collect();
    }
    let mut kept = vec![0, len - 1];
    for bucket in 0..buckets {
        let (from, to) = (bucket * len / buckets, (bucket + 1) * len / buckets);
        for curve in curves {
            let part = &curve[from.min(curve.len())..to.min(curve.len())];
            kept.extend(extremes(part).into_iter().map(|index| from + index));
            kept.extend(
                part.iter()
                    .position(|value| !value.is_finite())
                    .map(|index| from + index),
            );
        }
    }
    kept.sort_unstable();
    kept.dedup();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scales(points: usize) -> (Scale, Scale) {
        let x = Scale {
            low: 0.0,
            high: points as f64,
            from: 0.0,
            to: 100.0,
            is_log: false,
        };
        let y = Scale {
            low: -10.0,
            high: 10.0,
            from: 200.0,
            to: 0.0,
            is_log: false,
        };
        (x, y)
    }

    #[test]
    fn many_points_become_few_and_the_extremes_stay() {
        let (x, y) = scales(600_000);
        let mut points: Vec<Point> = (0..600_000)
            .map(|i| (f64::from(i), f64::from(i % 7)))
            .collect();
        points[123_456].1 = 9.5;
        points[345_678].1 = -8.0;
        let pieces = pixels(&points, &x, &y);
        assert_eq!(pieces.len(), 1);
        assert!(pieces[0].len() <= 4 * 101, "{}", pieces[0].len());
        let has = |value: f64| {
            pieces[0]
                .iter()
                .any(|point| point.1 == y.pixel(value).unwrap())
        };
        assert!(has(9.5) && has(-8.0));
        assert!(pieces[0].windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }

    #[test]
    fn a_value_that_is_not_finite_is_a_gap() {
        let (x, y) = scales(10);
        let points = [
            (0.0, 1.0),
            (1.0, 2.0),
            (2.0, f64::NAN),
            (3.0, f64::INFINITY),
            (4.0, 3.0),
        ];
        let pieces = pixels(&points, &x, &y);
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert!(
            pieces
                .concat()
                .iter()
                .all(|(x, y)| x.is_finite() && y.is_finite())
        );
    }

    #[test]
    fn kept_indices_hold_the_extremes_of_every_curve() {
        let mut one: Vec<f64> = (0..10_000).map(|i| f64::from(i % 3)).collect();
        let mut other = one.clone();
        (one[5_001], other[7_003], other[9_001]) = (99.0, -99.0, f64::NAN);
        let kept = kept_indices(&[&one, &other], 100);
        assert!(kept.len() <= 2 + 100 * 10, "{}", kept.len());
        for index in [0, 5_001, 7_003, 9_001, 9_999] {
            assert!(kept.contains(&index), "{index}");
        }
        assert_eq!(
            kept_indices(&[&one[..40]], 100),
            (0..40).collect::<Vec<_>>()
        );
        assert!(kept_indices(&[], 100).is_empty());
    }
}
