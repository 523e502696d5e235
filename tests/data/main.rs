//! Opening token files: what is accepted, how windows are cut, and how bad files are named.

mod damage;
mod files;
mod foreign;
mod identity;
#[path = "../process/mod.rs"]
mod process;
mod requirements;
mod runs;
mod vocabulary;
mod windows;

use std::path::{Path, PathBuf};

use taper::config::DataConfig;
use taper::data::{DataError, Dataset, SplitTokens};
use tempfile::TempDir;

/// nanoGPT's format.
fn raw(ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
    ids.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// llm.c's format, with the first three header words given.
fn shard(words: [i32; 3], ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut header = [0i32; 256];
    header[..3].copy_from_slice(&words);
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(raw(ids));
    bytes
}

fn write(folder: &TempDir, name: &str, bytes: Vec<u8>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn config(folder: &Path) -> DataConfig {
    DataConfig {
        dataset: "set".into(),
        data_dir: folder.to_owned(),
        train_bin: Some(folder.join("train*.bin").display().to_string()),
        val_bin: Some(folder.join("val.bin").display().to_string()),
    }
}

/// A dataset whose train split has these files, and some valid val split.
fn open(files: &[(&str, Vec<u8>)]) -> Result<Dataset, DataError> {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files {
        write(&folder, name, bytes.clone());
    }
    write(&folder, "val.bin", raw(0..100));
    Dataset::open(&config(folder.path()))
}

fn open_train(bytes: Vec<u8>) -> Result<Dataset, DataError> {
    open(&[("train.bin", bytes)])
}

fn window(tokens: &SplitTokens, index: u64, block_size: usize) -> (Vec<u32>, Vec<u32>) {
    let (mut inputs, mut targets) = (vec![0; block_size], vec![0; block_size]);
    tokens
        .copy_window(index, &mut inputs, &mut targets)
        .unwrap();
    (inputs, targets)
}
