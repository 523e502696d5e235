//! Runs a Python program of this folder with the libraries that taper exchanges files with.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs `tests/exchange/<program>` and returns what it prints last, a line of JSON.
///
/// # Panics
/// When TAPER_PYTHON is not set, the program fails, or it prints something else.
pub fn python<A: AsRef<OsStr>>(folder: &Path, program: &str, arguments: &[A]) -> Value {
    let python = std::env::var_os("TAPER_PYTHON").expect(
        "set TAPER_PYTHON=\"$(scripts/python_peers)\", a Python with PyTorch and transformers",
    );
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exchange");
    let output = Command::new(python)
        .arg(place.join(program))
        .args(arguments)
        .current_dir(folder)
        // One thread sums in one order; nothing is looked up on the network.
        .env("OMP_NUM_THREADS", "1")
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{program}: {stderr}");
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{program}: {error}: {stdout}"))
}
