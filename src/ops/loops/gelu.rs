//! The GELU activation (Hendrycks and Gimpel 2016), in both forms that GPT-2 weights come in.
//!
//! Erf: `x * cdf(x)` with the standard normal's distribution function. Tanh (GPT-2's own):
//! `x / 2 * (1 + tanh(u))` with `u = sqrt(2 / pi) * (x + 0.044715 x^3)`, computed as
//! `x * sigmoid(2 u)`, which is the same function.

use candle_core::{Result, Tensor};

use super::Element;
use super::parallel::for_element_blocks;
use super::vectorised::vectorised;
use crate::terms::Gelu;

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044715;

/// Computes `out = gelu(x)`; both of one length.
pub fn forward<T: Element>(form: Gelu, x: &[T], out: &mut [T]) {
    for_element_blocks(out, |start, out| {
        forward_block(form, &x[start..start + out.len()], out);
    });
}

vectorised! {
    fn forward_block<T: Element>(form: Gelu, x: &[T], out: &mut [T]) {
        match form {
            Gelu::Tanh => map(x, out, |x| tanh_parts(x).0 * x),
            Gelu::Erf => map(x, out, |x| x.normal_cdf_pdf().0 * x),
        }
    }
}

/// Computes `d *= gelu'(x)` in place; both of one length.
pub fn backward<T: Element>(form: Gelu, x: &[T], d: &mut [T]) {
    for_element_blocks(d, |start, d| {
        backward_block(form, &x[start..start + d.len()], d);
    });
}

vectorised! {
    fn backward_block<T: Element>(form: Gelu, x: &[T], d: &mut [T]) {
        match form {
            Gelu::Tanh => scale(x, d, |x| {
                let (sigmoid, du2) = tanh_parts(x);
                (x * sigmoid * (T::ONE - sigmoid)).mul_add(du2, sigmoid)
            }),
            Gelu::Erf => scale(x, d, |x| {
                let (cdf, pdf) = x.normal_cdf_pdf();
                x.mul_add(pdf, cdf)
            }),
        }
    }
}

/// Returns `sigmoid(2 u)` and the derivative of `2 u`.
#[inline(always)]
fn tanh_parts<T: Element>(x: T) -> (T, T) {
    let k = T::of(2.0 * SQRT_2_OVER_PI);
    let square = x * x;
    let u2 = k * x * square.mul_add(T::of(CUBIC), T::ONE);
    let sigmoid = T::ONE / (T::ONE + (-u2).exp());
    (sigmoid, k * square.mul_add(T::of(3.0 * CUBIC), T::ONE))
}

#[inline(always)]
fn map<T: Element>(x: &[T], out: &mut [T], f: impl Fn(T) -> T) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f(x);
    }
}

#[inline(always)]
fn scale<T: Element>(x: &[T], d: &mut [T], derivative: impl Fn(T) -> T) {
    for (d, &x) in d.iter_mut().zip(x) {
        *d *= derivative(x);
    }
}

/// Oracle of [`forward`].
pub fn gelu_ref(form: Gelu, x: &Tensor) -> Result<Tensor> {
    let factor = match form {
        Gelu::Tanh => {
            let u = ((x + (x.powf(3.0)? * CUBIC)?)? * SQRT_2_OVER_PI)?;
            u.tanh()?
        }
        Gelu::Erf => (x * std::f64::consts::FRAC_1_SQRT_2)?.erf()?,
    };
    ((x * 0.5)? * (factor + 1.0)?)?.contiguous()
}
