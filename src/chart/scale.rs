//! Linear and logarithmic scales: from values to pixels.

/// A range of values and the pixels that it is drawn over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    pub low: f64,
    pub high: f64,
    /// Pixel of `low`.
    pub from: f64,
    /// Pixel of `high`.
    pub to: f64,
    pub is_log: bool,
}

impl Scale {
    /// The pixel of a value, or `None` where there is none: NaN, infinities, and on a logarithmic scale 0 and below.
    pub fn pixel(&self, value: f64) -> Option<f64> {
        let at = |value: f64| if self.is_log { value.ln() } else { value };
        let share = (at(value) - at(self.low)) / (at(self.high) - at(self.low));
        let pixel = self.from + share * (self.to - self.from);
        (value.is_finite() && pixel.is_finite()).then_some(pixel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_pixels() {
        let linear = Scale {
            low: 0.0,
            high: 10.0,
            from: 100.0,
            to: 0.0,
            is_log: false,
        };
        assert_eq!(linear.pixel(2.5), Some(75.0));
        assert_eq!(linear.pixel(f64::NAN), None);
        assert_eq!(linear.pixel(f64::INFINITY), None);
        let log = Scale {
            low: 1.0,
            high: 100.0,
            is_log: true,
            ..linear
        };
        assert_eq!(log.pixel(10.0), Some(50.0));
        assert_eq!(log.pixel(0.0), None);
        assert_eq!(log.pixel(-1.0), None);
    }
}
