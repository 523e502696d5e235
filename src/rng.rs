//! Counter-based random numbers: every draw is a pure function of its use.
//!
//! Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) maps a
//! 64-bit key and a 128-bit counter to 128 random bits. The key is the run's seed; the counter
//! names the use: (element, sample, step, stream and site). Sample order, dropout masks and initial
//! weights therefore never depend on earlier calls of the generator, on the micro-batch, or on the
//! number of threads, and a resumed run has no generator state to restore.

/// The purpose of a draw. Two streams never share a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    Init = 1,
    TrainOrder = 2,
    EvalOrder = 3,
    Dropout = 4,
    Sampling = 5,
}

/// The seed of a run, as a Philox key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// 128 random bits for `(stream, site, step, sample, element)`. `site` has 24 bits.
    #[inline(always)]
    pub fn draw(self, stream: Stream, site: u32, step: u32, sample: u32, element: u32) -> [u32; 4] {
        philox4x32([element, sample, step, self.tag(stream, site)], self.key())
    }

    /// A uniform integer in `0..bound`, by multiply-shift (bias below `bound / 2^64`).
    pub fn below(self, stream: Stream, site: u32, step: u32, sample: u32, bound: u64) -> u64 {
        let [a, b, _, _] = self.draw(stream, site, step, sample, 0);
        let bits = u64::from(a) << 32 | u64::from(b);
        ((u128::from(bits) * u128::from(bound)) >> 64) as u64
    }

    /// A uniform number in `[0, 1)` with 53 random bits.
    pub fn uniform(self, stream: Stream, site: u32, step: u32, sample: u32) -> f64 {
        let [a, b, _, _] = self.draw(stream, site, step, sample, 0);
        to_unit(a, b)
    }

    /// Two independent standard normals for `(stream, site, pair)`, by Box-Muller.
    pub fn normal_pair(self, stream: Stream, site: u32, pair: u64) -> [f64; 2] {
        let [a, b, c, d] = self.draw(stream, site, 0, (pair >> 32) as u32, pair as u32);
        // 1 - u lies in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * libm::log(1.0 - to_unit(a, b))).sqrt();
        let angle = std::f64::consts::TAU * to_unit(c, d);
        [radius * libm::cos(angle), radius * libm::sin(angle)]
    }

    #[inline(always)]
    pub(crate) fn key(self) -> [u32; 2] {
        [self.0 as u32, (self.0 >> 32) as u32]
    }

    #[inline(always)]
    pub(crate) fn tag(self, stream: Stream, site: u32) -> u32 {
        debug_assert!(site < 1 << 24);
        (stream as u32) << 24 | site
    }
}

fn to_unit(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// Philox4x32 with ten rounds.
#[inline(always)]
pub(crate) fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9E37_79B9);
            key[1] = key[1].wrapping_add(0xBB67_AE85);
        }
        let p0 = u64::from(counter[0]) * 0xD251_1F53;
        let p1 = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_reproduces_the_published_known_answers() {
        let cases = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32(counter, key), expected);
        }
    }

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let draws: Vec<f64> = (0..50_000)
            .flat_map(|pair| Seed(7).normal_pair(Stream::Init, 3, pair))
            .collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.03, "variance {variance}");
    }

    #[test]
    fn below_covers_its_range_and_never_leaves_it() {
        let mut seen = [0u32; 7];
        for sample in 0..7_000 {
            seen[Seed(1).below(Stream::TrainOrder, 0, 5, sample, 7) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
    }
}
