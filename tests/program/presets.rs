//! Programs of every preset, in every kind of launch.

use taper::config::{Config, PRESETS, Preset};
use taper::model::{Program, gpt2};
use taper::terms::{Engine, ModelDims, Precision, Purpose, Recompute, Rung};

use super::edit::{lists, operands};
use crate::validate::validate;

/// The model of a preset, of `n_layer` blocks.
fn dims(name: &str, n_layer: Option<usize>, dropout: f64) -> ModelDims {
    let model = Config::load(name, &[]).unwrap().model;
    let of_characters = name.starts_with("shakespeare_char");
    ModelDims {
        n_layer: n_layer.unwrap_or(model.n_layer),
        n_head: model.n_head,
        n_embd: model.n_embd,
        block_size: model.block_size,
        vocab_size: if of_characters { 65 } else { 50_304 },
        bias: model.bias,
        dropout,
        gelu: model.gelu,
    }
}

/// Rungs of every kind, with chunks of logits that divide the rows and that do not, and with one for all rows.
fn rungs(dims: &ModelDims) -> impl Iterator<Item = Rung> {
    let rows = 4 * dims.block_size;
    Recompute::ALL.into_iter().flat_map(move |recompute| {
        [rows / 2, rows / 2 + 1, rows].map(|logits_rows| Rung {
            micro_batch: 4,
            recompute,
            logits_rows,
        })
    })
}

/// Every program of a model, and what it is.
fn programs(dims: &ModelDims) -> impl Iterator<Item = (String, Program)> {
    let engines = [Engine::Cuda, Engine::Cpu { threads: 3 }];
    let purposes = [Purpose::Training, Purpose::Inference];
    let precisions = [Precision::Float32, Precision::Bfloat16];
    rungs(dims).flat_map(move |rung| {
        let kinds = engines.into_iter().flat_map(move |engine| {
            let pairs = purposes.into_iter();
            pairs.flat_map(move |purpose| precisions.map(|precision| (engine, purpose, precision)))
        });
        kinds.map(move |(engine, purpose, precision)| {
            let what = format!("{rung}, {engine:?}, {purpose:?}, {precision}, {dims:?}");
            (what, gpt2(dims, rung, purpose, engine, precision))
        })
    })
}

fn of_every_preset(check: impl Fn(&str, &Program)) {
    for Preset { name, .. } in PRESETS {
        for n_layer in [Some(0), Some(1), Some(2), None] {
            for dropout in [0.0, 0.1] {
                for (what, program) in programs(&dims(name, n_layer, dropout)) {
                    check(&what, &program);
                }
            }
        }
    }
}

#[test]
fn the_programs_of_every_preset_are_without_fault() {
    of_every_preset(|what, program| {
        let faults = validate(program);
        assert!(faults.is_empty(), "{what}: {}", faults[0]);
    });
}

/// All of it, but for buffers that are used with shorter rows, too.
#[test]
fn every_matrix_has_the_length_of_its_buffer() {
    of_every_preset(|what, program| {
        let (rows, chunk) = (program.rows(), program.rung.logits_rows);
        let mut program = program.clone();
        let mut filled = vec![0; program.buffers.len()];
        let mut nodes = lists(&mut program).map(std::mem::take);
        for node in nodes.iter_mut().flatten() {
            for matrix in operands(&mut node.op).0 {
                let rows = if matrix.is_chunk { chunk } else { rows };
                let filled = &mut filled[matrix.buffer.0];
                *filled = rows.saturating_mul(matrix.columns).max(*filled);
            }
        }
        for (spec, filled) in program.buffers.iter().zip(filled) {
            assert!(filled == 0 || filled == spec.len, "{}: {what}", spec.name);
        }
    });
}
