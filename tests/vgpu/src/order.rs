//! When the card does what it was given: anything that CUDA allows.

use std::str::FromStr;

/// The environment variable that says so.
pub const ORDER_VARIABLE: &str = "VGPU_ORDER";

/// When work that was given to the card is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Before the call returns.
    #[default]
    Eager,
    /// Only when somebody waits for it.
    Late,
    /// Any order of streams and of the host that CUDA allows, the same for the same seed and calls.
    Random(u64),
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seed = |text: &str| text.strip_prefix("random:")?.parse().ok();
        match text {
            "eager" => Ok(Self::Eager),
            "late" => Ok(Self::Late),
            other => seed(other).map(Self::Random).ok_or_else(|| {
                format!("expected `eager`, `late` or `random:SEED`, found `{other}`")
            }),
        }
    }
}

/// Random choices: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(order: Order) -> Self {
        Self(match order {
            Order::Random(seed) => seed,
            _ => 0,
        })
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of the numbers below `count`, which is not zero.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_and_nothing_else_is_one() {
        let read = |text: &str| text.parse::<Order>();
        assert_eq!(read("eager"), Ok(Order::Eager));
        assert_eq!(read("late"), Ok(Order::Late));
        assert_eq!(read("random:7"), Ok(Order::Random(7)));
        for text in ["", "random", "random:", "random:x", "lazy"] {
            assert!(
                text.parse::<Order>()
                    .unwrap_err()
                    .contains(&format!("`{text}`"))
            );
        }
    }

    #[test]
    fn the_same_seed_throws_the_same() {
        let throws = |seed| {
            let mut dice = Dice::new(Order::Random(seed));
            [(); 32].map(|()| dice.below(6))
        };
        assert_eq!(throws(1), throws(1));
        assert_ne!(throws(1), throws(2));
        assert!((0..6).all(|side| throws(3).contains(&side)));
    }
}
