//! Rounding: exact results as an unevaluated sum of two doubles, rounded once to any format and direction.

/// IEEE 754 directions, and ties away from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    NearestEven,
    Zero,
    Down,
    Up,
    NearestAway,
}

impl Rounding {
    /// The modifiers `.rn`, `.rz`, `.rm`, `.rp`.
    pub const MODIFIERS: [(&str, Rounding); 4] = [
        ("rn", Rounding::NearestEven),
        ("rz", Rounding::Zero),
        ("rm", Rounding::Down),
        ("rp", Rounding::Up),
    ];
}

/// A binary floating-point format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of the stored significand.
    pub fraction: u32,
    pub exponent: u32,
}

pub const HALF: Format = Format {
    fraction: 10,
    exponent: 5,
};
pub const BRAIN: Format = Format {
    fraction: 7,
    exponent: 8,
};
pub const TENSOR: Format = Format {
    fraction: 10,
    exponent: 8,
};
pub const SINGLE: Format = Format {
    fraction: 23,
    exponent: 8,
};

/// `a + b` exactly: the rounded sum and what it lost (Knuth's two-sum).
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    if !sum.is_finite() {
        return (sum, 0.0);
    }
    let b_part = sum - a;
    let a_part = sum - b_part;
    (sum, (a - a_part) + (b - b_part))
}

/// The sum with its last bit set when it is not exact ("round to odd"): rounding it again to a format at least two bits
/// shorter is as good as rounding the exact value (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums").
pub fn to_odd(high: f64, low: f64) -> f64 {
    if low == 0.0 || high.to_bits() & 1 == 1 || !high.is_finite() {
        return high;
    }
    let grows = (low > 0.0) == (high > 0.0);
    f64::from_bits(if grows {
        high.to_bits() + 1
    } else {
        high.to_bits() - 1
    })
}

/// `a * b + c` of values whose product is exact in a double, to odd.
pub fn fma_to_odd(a: f64, b: f64, c: f64) -> f64 {
    let (high, low) = two_sum(a * b, c);
    to_odd(high, low)
}

/// The bits of `x` in `format`, rounded once. Overflow goes to infinity or to the largest finite value, as the direction says.
/// NaN gives the format's quiet NaN without sign.
pub fn round_to(x: f64, format: Format, rounding: Rounding) -> u64 {
    let Format { fraction, exponent } = format;
    let sign = u64::from(x.is_sign_negative()) << (fraction + exponent);
    let infinity = ((1u64 << exponent) - 1) << fraction;
    if x.is_nan() {
        return infinity | ((1 << fraction) - 1);
    }
    if x.is_infinite() {
        return sign | infinity;
    }
    let bits = x.to_bits() & (u64::MAX >> 1);
    if bits == 0 {
        return sign;
    }
    // The significand with its leading one, and the exponent of its last bit.
    let (significand, last) = match bits >> 52 {
        0 => (bits, -1074),
        e => (bits & ((1 << 52) - 1) | 1 << 52, e as i32 - 1075),
    };
    let bias = (1i32 << (exponent - 1)) - 1;
    let top = last + 63 - significand.leading_zeros() as i32;
    // Exponent of the last bit that the format keeps here; fixed where it is subnormal.
    let kept = top.max(1 - bias) - fraction as i32;
    let drop = kept - last;
    let rounded = if drop <= 0 {
        significand << -drop
    } else {
        shorten(significand, drop as u32, x < 0.0, rounding)
    };
    // A carry out of the significand moves into the exponent by itself.
    let magnitude = if top >= 1 - bias {
        (((top + bias) as u64) << fraction) + rounded - (1 << fraction)
    } else {
        rounded
    };
    if magnitude < infinity {
        return sign | magnitude;
    }
    let stays = match rounding {
        Rounding::Zero => true,
        Rounding::Down => x > 0.0,
        Rounding::Up => x < 0.0,
        _ => false,
    };
    sign | if stays { infinity - 1 } else { infinity }
}

/// Drops `drop` low bits.
fn shorten(significand: u64, drop: u32, negative: bool, rounding: Rounding) -> u64 {
    let (kept, lost, half) = match drop {
        0..64 => (
            significand >> drop,
            significand & ((1 << drop) - 1),
            1u64 << (drop - 1),
        ),
        // Far below half of the last bit, but not zero.
        _ => (0, 1, 2),
    };
    let up = match rounding {
        Rounding::NearestEven => lost > half || (lost == half && kept & 1 == 1),
        Rounding::NearestAway => lost >= half,
        Rounding::Zero => false,
        Rounding::Down => lost != 0 && negative,
        Rounding::Up => lost != 0 && !negative,
    };
    kept + u64::from(up)
}

/// The double of bits in `format`.
pub fn widen(bits: u64, format: Format) -> f64 {
    let Format { fraction, exponent } = format;
    let sign = if bits >> (fraction + exponent) & 1 == 1 {
        -1.0
    } else {
        1.0
    };
    let e = bits >> fraction & ((1 << exponent) - 1);
    let f = bits & ((1 << fraction) - 1);
    let bias = (1i32 << (exponent - 1)) - 1;
    let scale = |e: i32| f64::from_bits(((e + 1023) as u64) << 52);
    match e {
        0 => sign * f as f64 * scale(1 - bias - fraction as i32),
        e if e == (1 << exponent) - 1 && f == 0 => sign * f64::INFINITY,
        e if e == (1 << exponent) - 1 => f64::NAN,
        e => sign * (f + (1 << fraction)) as f64 * scale(e as i32 - bias - fraction as i32),
    }
}

/// The single nearest to the exact `high + low` in the given direction.
pub fn single(high: f64, low: f64, rounding: Rounding) -> f32 {
    if rounding == Rounding::NearestEven && low == 0.0 {
        return high as f32;
    }
    f32::from_bits(round_to(to_odd(high, low), SINGLE, rounding) as u32)
}

/// The double next to `high` in the given direction when the exact value is `high + low`, `high` being the nearest.
pub fn double(high: f64, low: f64, rounding: Rounding) -> f64 {
    if low == 0.0 || !high.is_finite() {
        return high;
    }
    match rounding {
        Rounding::Down if low < 0.0 => high.next_down(),
        Rounding::Up if low > 0.0 => high.next_up(),
        Rounding::Zero if (low < 0.0) != (high < 0.0) => {
            if high > 0.0 {
                high.next_down()
            } else {
                high.next_up()
            }
        }
        _ => high,
    }
}
