//! What cuBLASLt does to a product on its way out: a bias, GELU, its slope.

use super::gemm::{Kind, Matrix, Real};
use crate::fault::Fault;
use crate::memory::ForOperation;

/// In column-major terms, as the library's: a bias is added to every column.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue {
    /// One element for each row of D, of D's type.
    pub bias: Option<(u64, Kind)>,
    pub gelu: Option<Gelu>,
}

/// GELU in its form with tanh, the only one that the library has.
#[derive(Clone, Copy, Debug)]
pub enum Gelu {
    /// What it is applied to is written there, if anywhere.
    Forward(Option<Matrix>),
    /// The product is multiplied by the slope at what lies there.
    Backward(Matrix),
}

impl Epilogue {
    /// `values` is the product of one matrix of the batch, column after column.
    pub fn apply<R: Real>(
        &self,
        memory: &ForOperation,
        index: usize,
        shape: [usize; 2],
        values: &mut [R],
    ) -> Result<(), Fault> {
        if let Some((address, kind)) = self.bias {
            let mut bytes = vec![0; shape[0] * kind.bytes() as usize];
            memory.copy_out(address, &mut bytes)?;
            let bias = kind.read::<R>(&bytes);
            for column in values.chunks_mut(shape[0]) {
                for (value, bias) in column.iter_mut().zip(&bias) {
                    *value = value.add(*bias);
                }
            }
        }
        match self.gelu {
            None => {}
            Some(Gelu::Forward(aux)) => {
                if let Some(aux) = aux {
                    aux.write(memory, index, shape, values.to_vec())?;
                }
                for value in values {
                    *value = R::from_f64(gelu(value.to_f64()).0);
                }
            }
            Some(Gelu::Backward(aux)) => {
                let aux: Vec<R> = aux.read(memory, index, shape, false, false)?;
                for (value, x) in values.iter_mut().zip(aux) {
                    *value = value.mul(R::from_f64(gelu(x.to_f64()).1));
                }
            }
        }
        Ok(())
    }
}

/// Value and slope of `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2` (Hendrycks and Gimpel 2016,
/// arXiv:1606.08415).
fn gelu(x: f64) -> (f64, f64) {
    let factor = (2.0 / std::f64::consts::PI).sqrt();
    let tanh = (factor * (x + 0.044715 * x.powi(3))).tanh();
    let inner = factor * (1.0 + 3.0 * 0.044715 * x * x);
    let slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner;
    (0.5 * x * (1.0 + tanh), slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_gelu_is_that_of_its_values() {
        for x in [-5.0, -1.0, -0.1, 0.0, 0.7, 2.0, 6.0] {
            let (before, after) = (gelu(x - 1e-6).0, gelu(x + 1e-6).0);
            assert!(((after - before) / 2e-6 - gelu(x).1).abs() < 1e-8, "{x}");
        }
        // 0.5 (1 + tanh(sqrt(2 / pi) 1.044715))
        assert!((gelu(1.0).0 - 0.841_191_990_608_276).abs() < 1e-12);
    }
}
