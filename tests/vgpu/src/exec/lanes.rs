//! A register of a warp: 32 lanes, and functions over them.

use half::{bf16, f16};

pub const WARP: usize = 32;

/// One value per lane, in the low bits; the bits above the register's width are zero.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Lanes(pub [u64; WARP]);

impl Lanes {
    pub const ZERO: Lanes = Lanes([0; WARP]);

    pub fn all(bits: u64) -> Self {
        Self([bits; WARP])
    }
}

/// What an instruction does to all lanes: from up to four sources to one result.
pub type LaneFn = Box<dyn Fn(&[&Lanes; 4], &mut Lanes) + Send + Sync>;
/// What a comparison does: a bit per lane.
pub type TestFn = Box<dyn Fn(&Lanes, &Lanes) -> u32 + Send + Sync>;

/// A type that a lane can hold.
pub trait Scalar: Copy + 'static {
    fn read(bits: u64) -> Self;
    fn bits(self) -> u64;
}

macro_rules! scalar_integers {
    ($($t:ty: $unsigned:ty),*) => {$(
        impl Scalar for $t {
            #[inline(always)]
            fn read(bits: u64) -> Self { bits as $t }
            #[inline(always)]
            fn bits(self) -> u64 { self as $unsigned as u64 }
        }
    )*};
}
scalar_integers!(u8: u8, u16: u16, u32: u32, u64: u64, i8: u8, i16: u16, i32: u32, i64: u64);

macro_rules! scalar_floats {
    ($($t:ty: $unsigned:ty),*) => {$(
        impl Scalar for $t {
            #[inline(always)]
            fn read(bits: u64) -> Self { <$t>::from_bits(bits as $unsigned) }
            #[inline(always)]
            fn bits(self) -> u64 { u64::from(self.to_bits()) }
        }
    )*};
}
scalar_floats!(f32: u32, f64: u64, f16: u16, bf16: u16);

pub fn unary<T: Scalar, R: Scalar>(f: impl Fn(T) -> R + Send + Sync + 'static) -> LaneFn {
    Box::new(move |from, to| {
        for (r, &a) in to.0.iter_mut().zip(&from[0].0) {
            *r = f(T::read(a)).bits();
        }
    })
}

pub fn binary<T: Scalar, U: Scalar, R: Scalar>(
    f: impl Fn(T, U) -> R + Send + Sync + 'static,
) -> LaneFn {
    Box::new(move |from, to| {
        let [a, b, ..] = from;
        for ((r, &a), &b) in to.0.iter_mut().zip(&a.0).zip(&b.0) {
            *r = f(T::read(a), U::read(b)).bits();
        }
    })
}

pub fn ternary<T: Scalar, U: Scalar, V: Scalar, R: Scalar>(
    f: impl Fn(T, U, V) -> R + Send + Sync + 'static,
) -> LaneFn {
    Box::new(move |from, to| {
        let [a, b, c, _] = from;
        for (((r, &a), &b), &c) in to.0.iter_mut().zip(&a.0).zip(&b.0).zip(&c.0) {
            *r = f(T::read(a), U::read(b), V::read(c)).bits();
        }
    })
}

/// Four sources of the same type.
pub fn quaternary<T: Scalar, R: Scalar>(
    f: impl Fn(T, T, T, T) -> R + Send + Sync + 'static,
) -> LaneFn {
    Box::new(move |from, to| {
        let [a, b, c, d] = from.map(|lanes| &lanes.0);
        for (i, r) in to.0.iter_mut().enumerate() {
            *r = f(T::read(a[i]), T::read(b[i]), T::read(c[i]), T::read(d[i])).bits();
        }
    })
}

pub fn test<T: Scalar>(f: impl Fn(T, T) -> bool + Send + Sync + 'static) -> TestFn {
    Box::new(move |a, b| {
        let mut mask = 0;
        for (i, (&a, &b)) in a.0.iter().zip(&b.0).enumerate() {
            mask |= u32::from(f(T::read(a), T::read(b))) << i;
        }
        mask
    })
}

/// Runs `$body` with `$t` standing for the Rust type of an integer type of 16, 32 or 64 bits.
macro_rules! for_integer {
    ($ty:expr, $t:ident => $body:expr) => {
        match $ty {
            Type::U16 | Type::B16 => {
                type $t = u16;
                Some($body)
            }
            Type::U32 | Type::B32 => {
                type $t = u32;
                Some($body)
            }
            Type::U64 | Type::B64 => {
                type $t = u64;
                Some($body)
            }
            Type::S16 => {
                type $t = i16;
                Some($body)
            }
            Type::S32 => {
                type $t = i32;
                Some($body)
            }
            Type::S64 => {
                type $t = i64;
                Some($body)
            }
            _ => None,
        }
    };
}
pub(crate) use for_integer;
