//! `taper prepare`: nanoGPT's files from text, documents and splits, and what goes wrong.

mod command;
mod documents;
mod encodings;
mod failures;
mod inputs;
mod json_lines;
mod packed;
#[path = "../process/mod.rs"]
#[allow(dead_code)]
mod process;
mod replacing;
mod resume;
mod shakespeare;
mod tables;
mod text;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use clap::Parser;
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use taper::commands::prepare::{PrepareArgs, run};
use taper::data::prepare::{PrepareError, PrepareRequest, Prepared, RequestedFile, prepare};
use taper::error::Error;
use taper::tokenizer::TokenizerKind;
use tempfile::TempDir;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    prepare: PrepareArgs,
}

/// Runs the command as typed.
fn taper_prepare<S: AsRef<str>>(args: &[S]) -> Result<(), Error> {
    let args = args.iter().map(|arg| arg.as_ref().to_owned());
    let typed = ["prepare".to_owned()].into_iter().chain(args);
    run(Cli::parse_from(typed).prepare)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn read_ids(path: &Path) -> Vec<u32> {
    let bytes = fs::read(path).unwrap();
    let pairs = bytes.chunks_exact(2);
    pairs
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]).into())
        .collect()
}

fn splits(out: &Path) -> (Vec<u32>, Vec<u32>) {
    (
        read_ids(&out.join("train.bin")),
        read_ids(&out.join("val.bin")),
    )
}

fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn request(files: &[PathBuf], tokenizer: TokenizerKind, out: &Path) -> PrepareRequest {
    PrepareRequest {
        files: files.iter().cloned().map(RequestedFile::from).collect(),
        field: "text".into(),
        tokenizer,
        out: out.to_owned(),
        val_fraction: 0.1,
        expected: None,
        origin: None,
    }
}

fn make(request: &PrepareRequest) -> Result<Prepared, PrepareError> {
    prepare(request, &ProgressBar::hidden(), &AtomicBool::new(false))
}

fn write(folder: &TempDir, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, contents).unwrap();
    path
}
