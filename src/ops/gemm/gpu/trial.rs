//! Operands on a GPU to tune with.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DeviceRepr, DriverError, ValidAsZeroBits};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::ops::gemm::candidate::{Operand, Unavailable};
use crate::ops::gemm::ptx::{DeviceMatrix, Operands};
use crate::ops::gemm::{Epilogue, Inputs, OutputType, Problem};
use crate::units;

/// A buffer of whatever type a problem has.
enum Values {
    Float32(CudaSlice<f32>),
    Bfloat16(CudaSlice<bf16>),
    Float16(CudaSlice<f16>),
}

impl Values {
    fn zeros(stream: &Arc<CudaStream>, inputs: Inputs, len: usize) -> Result<Self, DriverError> {
        Ok(match inputs {
            Inputs::Float32 | Inputs::Tf32 => Values::Float32(stream.alloc_zeros(len)?),
            Inputs::Bfloat16 => Values::Bfloat16(stream.alloc_zeros(len)?),
            Inputs::Float16 => Values::Float16(stream.alloc_zeros(len)?),
        })
    }

    fn read<'a>(&'a self, columns: usize, stream: &'a CudaStream) -> DeviceMatrix<'a> {
        match self {
            Values::Float32(values) => DeviceMatrix::read(values, columns, stream),
            Values::Bfloat16(values) => DeviceMatrix::read(values, columns, stream),
            Values::Float16(values) => DeviceMatrix::read(values, columns, stream),
        }
    }

    fn write<'a>(&'a mut self, columns: usize, stream: &'a CudaStream) -> DeviceMatrix<'a> {
        match self {
            Values::Float32(values) => DeviceMatrix::write(values, columns, stream),
            Values::Bfloat16(values) => DeviceMatrix::write(values, columns, stream),
            Values::Float16(values) => DeviceMatrix::write(values, columns, stream),
        }
    }

    fn set(
        &mut self,
        stream: &Arc<CudaStream>,
        value: &(dyn Fn(usize) -> f32 + Sync),
    ) -> Result<(), DriverError> {
        match self {
            Values::Float32(values) => set(values, stream, value),
            Values::Bfloat16(values) => set(values, stream, |i| bf16::from_f32(value(i))),
            Values::Float16(values) => set(values, stream, |i| f16::from_f32(value(i))),
        }
    }

    fn get(&self, stream: &Arc<CudaStream>) -> Result<Vec<f32>, DriverError> {
        match self {
            Values::Float32(values) => stream.clone_dtoh(values),
            Values::Bfloat16(values) => Ok(get(values, stream, bf16::to_f32)?),
            Values::Float16(values) => Ok(get(values, stream, f16::to_f32)?),
        }
    }
}

fn set<T: DeviceRepr + Send>(
    values: &mut CudaSlice<T>,
    stream: &Arc<CudaStream>,
    value: impl Fn(usize) -> T + Sync,
) -> Result<(), DriverError> {
    let host: Vec<T> = (0..values.len()).into_par_iter().map(&value).collect();
    stream.memcpy_htod(&host, values)
}

fn get<T: DeviceRepr + Copy + Default + Sync + ValidAsZeroBits>(
    values: &CudaSlice<T>,
    stream: &Arc<CudaStream>,
    widen: impl Fn(T) -> f32 + Sync,
) -> Result<Vec<f32>, DriverError> {
    let host = stream.clone_dtoh(values)?;
    Ok(host.par_iter().map(|value| widen(*value)).collect())
}

/// Owned, dense operands of one problem, and what a timing needs beside them.
pub struct Trial {
    pub(super) stream: Arc<CudaStream>,
    problem: Problem,
    a: Values,
    b: Values,
    c: Values,
    bias: Option<Values>,
    aux: Option<Values>,
    /// Written before every timing, so that the level-2 cache holds nothing of the operands.
    pub(super) flush: CudaSlice<u8>,
}

impl Trial {
    /// In at most `room` bytes, where that is known.
    pub fn new(
        stream: Arc<CudaStream>,
        problem: &Problem,
        room: Option<u64>,
        flush_bytes: usize,
    ) -> Result<Self, Unavailable> {
        let needs = bytes(problem) + flush_bytes as u64;
        let no_room = || {
            Unavailable(format!(
                "no memory for tuning: {} are needed",
                units::bytes(needs)
            ))
        };
        if room.is_some_and(|room| needs > room) {
            return Err(no_room());
        }
        let allocate = || {
            let zeros = |len| Values::zeros(&stream, problem.inputs, len);
            Ok::<_, DriverError>(Self {
                problem: *problem,
                a: zeros(problem.m * problem.k)?,
                b: zeros(problem.k * problem.n)?,
                c: match problem.output {
                    OutputType::LikeInputs => zeros(problem.m * problem.n)?,
                    OutputType::Float32 => {
                        Values::Float32(stream.alloc_zeros(problem.m * problem.n)?)
                    }
                },
                bias: has_bias(problem).then(|| zeros(problem.n)).transpose()?,
                aux: has_aux(problem)
                    .then(|| zeros(problem.m * problem.n))
                    .transpose()?,
                flush: stream.alloc_zeros(flush_bytes)?,
                stream: stream.clone(),
            })
        };
        allocate().map_err(|error| match crate::ops::cuda::is_out_of_memory(&error) {
            true => no_room(),
            false => Unavailable(error.to_string()),
        })
    }

    pub fn operands(&mut self) -> Operands<'_> {
        let (problem, stream) = (&self.problem, &*self.stream);
        let aux = self.aux.as_mut();
        Operands {
            a: self.a.read(problem.a_shape().1, stream),
            b: self.b.read(problem.b_shape().1, stream),
            c: self.c.write(problem.n, stream),
            bias: self.bias.as_ref().map(|bias| bias.read(problem.n, stream)),
            aux: aux.map(|aux| aux.write(problem.n, stream)),
        }
    }

    pub fn write(
        &mut self,
        operand: Operand,
        value: &(dyn Fn(usize) -> f32 + Sync),
    ) -> Result<(), Unavailable> {
        let values = match operand {
            Operand::A => Some(&mut self.a),
            Operand::B => Some(&mut self.b),
            Operand::C => Some(&mut self.c),
            Operand::Bias => self.bias.as_mut(),
            Operand::Aux => self.aux.as_mut(),
        };
        let Some(values) = values else { return Ok(()) };
        let set = values.set(&self.stream, value);
        set.map_err(|error| Unavailable(error.to_string()))
    }

    pub fn read(&self, operand: Operand) -> Result<Vec<f32>, Unavailable> {
        let values = match operand {
            Operand::A => Some(&self.a),
            Operand::B => Some(&self.b),
            Operand::C => Some(&self.c),
            Operand::Bias => self.bias.as_ref(),
            Operand::Aux => self.aux.as_ref(),
        };
        let values = values.map_or(Ok(Vec::new()), |values| values.get(&self.stream));
        values.map_err(|error| Unavailable(error.to_string()))
    }
}

fn has_bias(problem: &Problem) -> bool {
    matches!(problem.epilogue, Epilogue::Bias | Epilogue::BiasGelu(_))
}

fn has_aux(problem: &Problem) -> bool {
    matches!(
        problem.epilogue,
        Epilogue::BiasGelu(_) | Epilogue::GeluBackward(_)
    )
}

/// Of all operands, once each.
fn bytes(problem: &Problem) -> u64 {
    Problem {
        accumulate: false,
        ..*problem
    }
    .bytes()
}
