//! Where tests find what they use: where they were built, or where the environment says. On a machine that has only
//! what scripts/gpu_check packed, the paths of the build are not there.
#![allow(dead_code, reason = "no test asks for all of them")]

use std::env;
use std::path::{Path, PathBuf};

/// The program, `TAPER`.
pub fn taper() -> PathBuf {
    env::var_os("TAPER").map_or_else(|| env!("CARGO_BIN_EXE_taper").into(), PathBuf::from)
}

/// tests/fixtures, `TAPER_FIXTURES`.
pub fn fixtures() -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    env::var_os("TAPER_FIXTURES").map_or_else(here, PathBuf::from)
}
