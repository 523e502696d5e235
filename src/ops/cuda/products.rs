//! The operations on a GPU that GEMMs compute.

use cudarc::driver::{CudaView, CudaViewMut};

use super::views::{Reading, Views, Writing};
use super::{OnGpu, column_sums};
use crate::ops::backend::{Affine, BufferId, Done, Matrix, Op};
use crate::ops::gemm::Problem;
use crate::ops::gemm::ptx::{DeviceMatrix, DeviceOperands};
use crate::ops::launch::{GpuElement, gelu};

impl<T: GpuElement> OnGpu<T> {
    pub(super) fn linear(&self, op: &Op, on: &Views<T>) -> Done {
        let Some(problem) = op.gemm(on.frame.rows.len(), self.inputs) else {
            unreachable!("not a linear layer: {op:?}");
        };
        let problem = &problem;
        match op {
            Op::Linear { layer, x, y } => self.forward(problem, on, layer, x, y, None),
            Op::LinearGelu {
                form,
                layer,
                x,
                y,
                activated,
            } => {
                if layer.bias.is_some() {
                    return self.forward(problem, on, layer, x, activated, Some(y));
                }
                self.forward(problem, on, layer, x, y, None)?;
                let (y, mut activated) = (on.read(y), on.write(activated));
                let (y, activated) = (&y.view(), &mut activated.view());
                Ok(gelu::forward(&self.gpu, *form, y, activated)?)
            }
            Op::InputGradients { layer, dy, dx } => {
                self.input_gradients(problem, on, layer, dy, dx, None)
            }
            Op::GeluInputGradients {
                layer, dy, x, dx, ..
            } => self.input_gradients(problem, on, layer, dy, dx, Some(x)),
            Op::WeightGradients {
                layer,
                dy,
                x,
                partials,
            } => self.weight_gradients(problem, on, layer, dy, x, *partials),
            _ => unreachable!("not a linear layer: {op:?}"),
        }
    }

    /// `out` is the result; `y` that before the activation, if the GEMM computes both.
    fn forward(
        &self,
        problem: &Problem,
        on: &Views<T>,
        layer: &Affine,
        x: &Matrix,
        out: &Matrix,
        y: Option<&Matrix>,
    ) -> Done {
        let (columns, outputs) = (x.columns, out.columns);
        let (weight, bias) = (on.weight(&layer.weight), on.bias(layer));
        let (x, mut out, mut y) = (on.read(x), on.write(out), y.map(|y| on.write(y)));
        let (weight, bias) = (weight.view(), bias.as_ref().map(Reading::view));
        let (x, mut out, mut y) = (x.view(), out.view(), y.as_mut().map(Writing::view));
        let operands = DeviceOperands {
            a: self.read(&x, columns),
            b: self.read(&weight, columns),
            c: self.write(&mut out, outputs),
            bias: bias.as_ref().map(|bias| self.read(bias, outputs)),
            aux: y.as_mut().map(|y| self.write(y, outputs)),
        };
        self.multiply(problem, operands)
    }

    /// `x` is the argument of the activation whose slope the GEMM multiplies by.
    fn input_gradients(
        &self,
        problem: &Problem,
        on: &Views<T>,
        layer: &Affine,
        dy: &Matrix,
        dx: &Matrix,
        x: Option<&Matrix>,
    ) -> Done {
        let (columns, outputs) = (dx.columns, dy.columns);
        let (weight, dy) = (on.weight(&layer.weight), on.read(dy));
        let (x, mut dx) = (x.map(|x| on.read(x)), on.write(dx));
        let (weight, dy) = (weight.view(), dy.view());
        let (x, mut dx) = (x.as_ref().map(Reading::view), dx.view());
        let operands = DeviceOperands {
            a: self.read(&dy, outputs),
            b: self.read(&weight, columns),
            c: self.write(&mut dx, columns),
            bias: None,
            aux: x.as_ref().map(|x| self.read(x, columns)),
        };
        self.multiply(problem, operands)
    }

    fn weight_gradients(
        &self,
        problem: &Problem,
        on: &Views<T>,
        layer: &Affine,
        dy: &Matrix,
        x: &Matrix,
        partials: BufferId,
    ) -> Done {
        let (columns, outputs) = (x.columns, dy.columns);
        let (dy, x, mut gradients) = (on.read(dy), on.read(x), on.gradients());
        let (dy, x) = (dy.view(), x.view());
        let mut dweight = gradients.slice_mut(layer.weight.clone());
        let operands = DeviceOperands {
            a: self.read(&dy, outputs),
            b: self.read(&x, columns),
            c: self.write(&mut dweight, columns),
            bias: None,
            aux: None,
        };
        self.multiply(problem, operands)?;
        let Some(bias) = &layer.bias else {
            return Ok(());
        };
        let mut partials = on.scratch(partials);
        let partials = &mut partials.as_view_mut();
        let dbias = &mut gradients.slice_mut(bias.clone());
        Ok(column_sums::add_column_sums(
            &self.gpu, &dy, dbias, partials,
        )?)
    }

    fn multiply(&self, problem: &Problem, mut operands: DeviceOperands) -> Done {
        Ok(self.products.run(problem, &mut operands)?)
    }

    fn read<'a, E: GpuElement>(
        &'a self,
        view: &'a CudaView<E>,
        columns: usize,
    ) -> DeviceMatrix<'a> {
        DeviceMatrix::read(view, columns, &self.stream)
    }

    fn write<'a, E: GpuElement>(
        &'a self,
        view: &'a mut CudaViewMut<E>,
        columns: usize,
    ) -> DeviceMatrix<'a> {
        DeviceMatrix::write(view, columns, &self.stream)
    }
}
