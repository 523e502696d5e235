//! A loss that does not depend on which windows are drawn: a split that is one window long.

use std::fs;
use std::path::Path;

use taper::tokenizer::Tokenizer;

use crate::process::taper;

/// Positions of every model here.
pub const BLOCK_SIZE: usize = 16;

/// Writes `window.bin`, a split of one window, and returns its tokens, which are below `vocab_size`. A vocabulary smaller
/// than GPT-2's is one of characters, beside it.
pub fn window(folder: &Path, vocab_size: usize) -> Vec<u32> {
    let tokens: Vec<u32> = (0..=BLOCK_SIZE as u32)
        .map(|at| (at * 7919 + 13) % vocab_size.min(50_257) as u32)
        .collect();
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|&id| (id as u16).to_le_bytes())
        .collect();
    fs::write(folder.join("window.bin"), bytes).unwrap();
    if vocab_size < 50_257 {
        let characters: Vec<char> = ('!'..).take(vocab_size).collect();
        let tokenizer = Tokenizer::char(&characters).unwrap();
        tokenizer.save(folder).unwrap();
    }
    tokens
}

/// The loss of the window by the weights that `init_from` names, with no word in `[model]` but `settings`.
pub fn evaluate(folder: &Path, init_from: &str, settings: &str) -> f64 {
    fs::write(
        folder.join("evaluate.toml"),
        "[data]\ntrain_bin = \"window.bin\"\nval_bin = \"window.bin\"\n[eval]\neval_iters = 1\neval_batch_size = 1\n",
    )
    .unwrap();
    let init_from = format!("train.init_from={init_from}");
    let mut arguments = vec![
        "train",
        "--config",
        "evaluate.toml",
        "--eval-only",
        "--json",
        "--set",
        &init_from,
    ];
    for setting in settings.split_whitespace() {
        arguments.extend(["--set", setting]);
    }
    let stdout = taper(folder, &arguments).succeeded().stdout;
    let line = stdout.lines().last().unwrap();
    let evaluation: serde_json::Value = serde_json::from_str(line).unwrap();
    evaluation["val_loss"].as_f64().unwrap()
}
