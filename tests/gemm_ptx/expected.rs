//! What a product must be: a plain loop on the host, in f64.

use taper::ops::gemm::{Epilogue, OutputType, Problem};
use taper::terms::{Gelu, Inputs, Precision};

use crate::case::{Case, Written, round, round_output};

/// Sums of A B and of |A| |B|, in f64.
pub fn sums(case: &Case) -> (Vec<f64>, Vec<f64>) {
    let Problem { m, n, k, .. } = case.problem;
    let (mut exact, mut absolute) = (vec![0.0; m * n], vec![0.0; m * n]);
    for i in 0..m {
        for l in 0..k {
            let a = f64::from(case.a[i * k + l]);
            for j in 0..n {
                let product = a * f64::from(case.b[l * n + j]);
                exact[i * n + j] += product;
                absolute[i * n + j] += product.abs();
            }
        }
    }
    (exact, absolute)
}

/// x cdf(x) and cdf(x) + x pdf(x), or GPT-2's approximation of them; see src/ops/loops/gelu.rs.
fn gelu(form: Gelu, x: f64) -> (f64, f64) {
    match form {
        Gelu::Erf => {
            let cdf = 0.5 * (1.0 + libm::erf(x / 2f64.sqrt()));
            let pdf = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            (x * cdf, cdf + x * pdf)
        }
        Gelu::Tanh => {
            let scale = (2.0 / std::f64::consts::PI).sqrt();
            let t = (scale * (x + 0.044715 * x.powi(3))).tanh();
            let dt = (1.0 - t * t) * scale * (1.0 + 3.0 * 0.044715 * x * x);
            (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * dt)
        }
    }
}

/// Half the distance between neighbours at one, of a type: 2^-8 for bf16, 2^-11 for f16, 2^-24 for f32.
fn unit_roundoff(inputs: Inputs) -> f64 {
    match inputs.storage() {
        Precision::Float32 => 2f64.powi(-24),
        Precision::Bfloat16 => 2f64.powi(-8),
        Precision::Float16 => 2f64.powi(-11),
    }
}

/// What fp32 may differ from f64 by in GELU, relative to the larger of one and the argument: a few roundings, and
/// two units in the last place of `expf` and `erff` (CUDA C++ Programming Guide, "Mathematical Functions").
const GELU_ERROR: f64 = 1e-6;

/// Checks what was written against `allowed` errors of the sums; zero where they are exact.
#[track_caller]
pub fn check(name: &str, case: &Case, written: &Written, sums: &[f64], allowed: &[f64]) {
    let Problem { m, n, .. } = case.problem;
    let problem = &case.problem;
    assert_eq!(written.c.len(), m * n, "{name}");
    for (at, (sum, allowed)) in sums.iter().zip(allowed).enumerate() {
        let (mut expected, mut allowed) = (*sum, *allowed);
        let bias = f64::from(case.bias[at % n]);
        match problem.epilogue {
            Epilogue::None => {}
            Epilogue::Bias => expected += bias,
            Epilogue::BiasGelu(form) => {
                let aux = f64::from(written.aux.as_ref().expect("written")[at]);
                let wanted = f64::from(round((expected + bias) as f32, problem.inputs));
                let near = allowed + unit_roundoff(problem.inputs) * wanted.abs();
                let same = allowed == 0.0 && aux == wanted;
                assert!(
                    same || (allowed > 0.0 && (aux - wanted).abs() <= near),
                    "{name}: aux {at} is {aux}, not {wanted}"
                );
                // The activation of what was stored.
                expected = gelu(form, aux).0;
                allowed = GELU_ERROR * aux.abs().max(1.0);
            }
            Epilogue::GeluBackward(form) => {
                let x = f64::from(case.aux[at]);
                let slope = gelu(form, x).1;
                allowed = allowed * slope.abs() + GELU_ERROR * (expected.abs() * x.abs().max(1.0));
                expected *= slope;
            }
        }
        if problem.accumulate {
            expected += f64::from(case.c[at]);
        }
        let found = written.c[at];
        if allowed == 0.0 {
            let expected = round_output(expected as f32, problem);
            assert_eq!(found, expected, "{name}: element {at}");
        } else {
            let roundoff = match problem.output {
                OutputType::Float32 => unit_roundoff(Inputs::Float32),
                OutputType::LikeInputs => unit_roundoff(problem.inputs),
            };
            // Sums in fp32 of the epilogue, and the conversion.
            allowed += (roundoff + 2f64.powi(-23)) * (expected.abs() + allowed);
            let error = (f64::from(found) - expected).abs();
            assert!(
                error <= allowed,
                "{name}: element {at} is {found}, not {expected}: {error} is more than {allowed}"
            );
        }
    }
}
