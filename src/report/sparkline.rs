//! A curve in a few characters.

/// Heights of a character, lowest first.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Characters of a full line.
const WIDTH: usize = 32;

/// A curve of bounded size over everything that was pushed: where it gets too long, neighbours become their mean.
#[derive(Debug)]
pub(super) struct Sparkline {
    points: Vec<f64>,
    /// Values in a point.
    per_point: u64,
    sum: f64,
    count: u64,
}

impl Sparkline {
    pub fn new() -> Self {
        Self {
            points: Vec::with_capacity(2 * WIDTH),
            per_point: 1,
            sum: 0.0,
            count: 0,
        }
    }

    /// Adds a value. One that is not finite is passed over.
    pub fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.sum += value;
        self.count += 1;
        if self.count < self.per_point {
            return;
        }
        self.points.push(self.sum / self.count as f64);
        (self.sum, self.count) = (0.0, 0);
        if self.points.len() == 2 * WIDTH {
            let pairs = self.points.chunks_exact(2);
            self.points = pairs.map(|pair| (pair[0] + pair[1]) / 2.0).collect();
            self.per_point *= 2;
        }
    }

    /// `█▆▅▃▂▁ 4.61 to 1.02`: the curve between its extremes, its first and its last value. Empty before the second
    /// point.
    pub fn text(&self) -> String {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return String::new();
        };
        if self.points.len() < 2 {
            return String::new();
        }
        let low = self.points.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self
            .points
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let top = (LEVELS.len() - 1) as f64;
        let level = |value: f64| match high - low {
            0.0 => LEVELS[0],
            range => LEVELS[((value - low) / range * top).round() as usize],
        };
        let columns = self.points.len().min(WIDTH);
        let shown =
            (0..columns).map(|column| level(self.points[column * self.points.len() / columns]));
        format!("{} {first:.2} to {last:.2}", shown.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Sparkline {
        let mut line = Sparkline::new();
        values.into_iter().for_each(|value| line.push(value));
        line
    }

    #[test]
    fn a_falling_curve_falls() {
        let line = of((0..8).map(|i| 8.0 - f64::from(i)));
        assert_eq!(line.text(), "█▇▆▅▄▃▂▁ 8.00 to 1.00");
        assert_eq!(of([2.0, f64::NAN, 2.0]).text(), "▁▁ 2.00 to 2.00");
        assert_eq!(of([2.0]).text(), "");
    }

    #[test]
    fn a_long_curve_keeps_its_shape_and_its_width() {
        let line = of((0..1_000_000).map(|i| 1e6 - f64::from(i)));
        let text = line.text();
        let curve = text.split(' ').next().unwrap_or_default();
        let heights: Vec<usize> = curve
            .chars()
            .map(|c| LEVELS.iter().position(|level| *level == c).unwrap())
            .collect();
        assert_eq!(heights.len(), WIDTH);
        assert!(heights.is_sorted_by(|a, b| a >= b), "{text}");
        assert_eq!((heights[0], heights[WIDTH - 1]), (7, 0));
    }
}
