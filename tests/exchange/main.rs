//! Files exchanged with the programs that others use, each read or written by that program itself.
//!
//! They need Python: `TAPER_PYTHON="$(scripts/python_peers)" cargo test --release --test exchange -- --ignored`.

#[path = "../common/mod.rs"]
mod common;
mod evals;
#[path = "../gpt2_folder/mod.rs"]
mod gpt2_folder;
mod hub;
#[path = "../hub/server.rs"]
#[allow(dead_code)]
mod hub_server;
mod llmc;
mod losses;
mod nanogpt;
mod parquet;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../process/mod.rs"]
mod process;
mod python;
mod tensorboard;
mod tokens;
mod transformers;
