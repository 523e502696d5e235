//! Files exchanged with the programs that others use, each read or written by that program itself.
//!
//! They need Python: `TAPER_PYTHON="$(scripts/python_peers)" cargo test --release --test exchange -- --ignored`.

mod parquet;
#[path = "../process/mod.rs"]
mod process;
mod python;
