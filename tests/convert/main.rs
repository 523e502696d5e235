//! `taper convert`: weights in the form of another program, whole or not at all.

mod places;
mod round_trip;

#[path = "../gpt2_folder/mod.rs"]
mod gpt2_folder;
#[path = "../process/mod.rs"]
mod process;

use std::fs;
use std::path::Path;

use process::{Outcome, taper};

/// A vocabulary that llm.c pads.
const VOCAB_SIZE: usize = 100;

/// A Hugging Face model with biases and scattered values, of 2 layers.
fn write_model(folder: &Path) {
    let mut config = gpt2_folder::config();
    config["vocab_size"] = VOCAB_SIZE.into();
    config["n_layer"] = 2.into();
    config["resid_pdrop"] = 0.1.into();
    config["eos_token_id"] = 7.into();
    gpt2_folder::write(folder, &config, &tensors());
}

/// Name, shape and values.
type Tensor = (String, Vec<usize>, Vec<f32>);

fn tensors() -> Vec<Tensor> {
    let first = gpt2_folder::tensors(0);
    let second = first.iter().filter(|(name, ..)| name.contains("h.0."));
    let second = second
        .map(|(name, shape, values)| (name.replace("h.0.", "h.1."), shape.clone(), values.clone()));
    let mut all: Vec<_> = first.iter().cloned().chain(second).collect();
    let mut number = 0u32;
    for (name, shape, values) in &mut all {
        if name.ends_with("wte.weight") {
            shape[0] = VOCAB_SIZE;
            values.truncate(VOCAB_SIZE * shape[1]);
        }
        for value in values {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value = number as f32 / u32::MAX as f32 - 0.5;
        }
    }
    all
}

fn convert(folder: &Path, arguments: &[&str]) -> Outcome {
    taper(folder, &[&["convert"], arguments].concat())
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
