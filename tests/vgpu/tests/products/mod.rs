//! Batches of matrices with small whole numbers, whose products every type holds exactly.
#![allow(dead_code)]

pub mod lt;

use half::{bf16, f16};
use vgpu::libraries::blas_status::Status;

use crate::on_card::{OnCard, on};

/// `cudaDataType`s.
pub const F32: u32 = 0;
pub const F64: u32 = 1;
pub const F16: u32 = 2;
pub const BF16: u32 = 14;
/// `cublasComputeType_t`s.
pub const IN_F16: u32 = 64;
pub const IN_F32: u32 = 68;
pub const IN_F64: u32 = 70;
pub const IN_TF32: u32 = 77;

pub fn card() -> OnCard {
    on("like = \"a100\"")
}

#[track_caller]
pub fn done(status: Status) {
    assert_eq!(status, Status::SUCCESS);
}

pub fn encode(kind: u32, values: &[f64]) -> Vec<u8> {
    let values = values.iter().copied();
    match kind {
        F32 => values.flat_map(|v| (v as f32).to_le_bytes()).collect(),
        F64 => values.flat_map(f64::to_le_bytes).collect(),
        F16 => values
            .flat_map(|v| f16::from_f64(v).to_le_bytes())
            .collect(),
        _ => values
            .flat_map(|v| bf16::from_f64(v).to_le_bytes())
            .collect(),
    }
}

pub fn decode(kind: u32, bytes: &[u8]) -> Vec<f64> {
    let value = |b: &[u8]| match kind {
        F32 => f32::from_le_bytes(b.try_into().unwrap()).into(),
        F64 => f64::from_le_bytes(b.try_into().unwrap()),
        F16 => f16::from_le_bytes(b.try_into().unwrap()).to_f64(),
        _ => bf16::from_le_bytes(b.try_into().unwrap()).to_f64(),
    };
    bytes.chunks(size(kind)).map(value).collect()
}

pub fn size(kind: u32) -> usize {
    match kind {
        F32 => 4,
        F64 => 8,
        _ => 2,
    }
}

/// A batch of matrices by columns (or rows), with room between columns and between matrices.
pub struct Batch {
    pub kind: u32,
    pub rows: usize,
    pub columns: usize,
    pub by_rows: bool,
    pub leading: usize,
    pub stride: usize,
    pub values: Vec<f64>,
    pub address: u64,
}

pub const BATCH: usize = 3;

impl Batch {
    pub fn new(
        card: &OnCard,
        kind: u32,
        rows: usize,
        columns: usize,
        by_rows: bool,
        room: usize,
    ) -> Batch {
        let (run, runs) = if by_rows {
            (columns, rows)
        } else {
            (rows, columns)
        };
        let leading = run + room;
        let stride = leading * runs + room;
        let mut seed = (rows * 31 + columns * 7 + room) as u64;
        let values = (0..stride * BATCH).map(|_| {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((seed >> 33) % 7) as f64 - 3.0
        });
        let values: Vec<f64> = values.collect();
        let address = card.put(&encode(kind, &values));
        Batch {
            kind,
            rows,
            columns,
            by_rows,
            leading,
            stride,
            values,
            address,
        }
    }

    /// Matrices that all hold these values, one after the other.
    pub fn holding(card: &OnCard, kind: u32, rows: usize, columns: usize, each: &[f64]) -> Batch {
        let values = each.repeat(BATCH);
        Batch {
            address: card.put(&encode(kind, &values)),
            values,
            ..Batch::new(card, kind, rows, columns, false, 0)
        }
    }

    pub fn index(&self, batch: usize, row: usize, column: usize) -> usize {
        let within = if self.by_rows {
            row * self.leading + column
        } else {
            column * self.leading + row
        };
        batch * self.stride + within
    }

    /// An element of the matrix, transposed or not.
    pub fn at(&self, batch: usize, row: usize, column: usize, transposed: bool) -> f64 {
        let (row, column) = if transposed {
            (column, row)
        } else {
            (row, column)
        };
        self.values[self.index(batch, row, column)]
    }

    pub fn read(&self, card: &OnCard) -> Vec<f64> {
        decode(
            self.kind,
            &card.get(self.address, self.values.len() * size(self.kind)),
        )
    }
}

/// What must stand in D, with what lies between its columns untouched.
pub fn expected(
    a: &Batch,
    ta: bool,
    b: &Batch,
    tb: bool,
    c: &Batch,
    d: &Batch,
    scales: [f64; 2],
) -> Vec<f64> {
    let mut out = d.values.clone();
    let inner = if ta { a.rows } else { a.columns };
    for batch in 0..BATCH {
        for row in 0..d.rows {
            for column in 0..d.columns {
                let terms =
                    (0..inner).map(|k| a.at(batch, row, k, ta) * b.at(batch, k, column, tb));
                let old = c.at(batch, row, column, false);
                out[d.index(batch, row, column)] = scales[0] * terms.sum::<f64>() + scales[1] * old;
            }
        }
    }
    out
}
