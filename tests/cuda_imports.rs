//! The functions that build/cuda_imports.rs makes trampolines for are those of CUDA 12.1, as cudarc declares them.
//!
//! The list is build/cuda_imports/functions.txt; `TAPER_UPDATE_IMPORTS=1` writes it anew.
#![cfg(feature = "cuda")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const LIST: &str = "build/cuda_imports/functions.txt";

/// cudarc's feature for the oldest CUDA that taper runs with. Cargo.toml asks for it, too.
const OLDEST: &str = "\"cuda-12010\"";

/// A library as the linker calls it, and cudarc's module of it.
const LIBRARIES: [(&str, &str); 5] = [
    ("cuda", "driver"),
    ("cublas", "cublas"),
    ("cublasLt", "cublaslt"),
    ("curand", "curand"),
    ("nvrtc", "nvrtc"),
];

/// The `src` folder of cudarc, wherever cargo took it from.
fn cudarc_sources() -> PathBuf {
    // Packages of other systems may not be here.
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--features=cuda",
            "--locked",
        ])
        .args(["--filter-platform", "host-tuple"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let packages = metadata["packages"].as_array().expect("packages");
    let cudarc = packages.iter().find(|package| package["name"] == "cudarc");
    let manifest = cudarc.expect("cudarc is used")["manifest_path"].as_str();
    Path::new(manifest.expect("a path")).with_file_name("src")
}

/// A line for each function of the oldest CUDA that a file of bindgen's declares.
fn functions(bindings: &str) -> Vec<String> {
    let mut functions = Vec::new();
    let (mut before, mut exists) = ("", false);
    for line in bindings.lines() {
        if line.starts_with("pub unsafe fn ") {
            exists = !before.starts_with("#[cfg(any(feature") || before.contains(OLDEST);
        }
        // Inside of `extern "C"`.
        if let Some(declared) = line.strip_prefix("            fn ")
            && exists
        {
            let (name, rest) = declared.split_once('(').expect("arguments");
            let returns = rest.rsplit_once(") -> ").map(|(_, returns)| returns);
            functions.push(match returns.map(|returns| returns.trim_end_matches(';')) {
                None | Some("usize") => format!("{name} zero"),
                Some("*const ::core::ffi::c_char") => format!("{name} text"),
                Some(status) if status.contains("tatus") || status.contains("esult") => name.into(),
                Some(other) => panic!("`{name}` returns `{other}`"),
            });
        }
        before = line;
    }
    functions.sort();
    functions.dedup();
    assert!(!functions.is_empty(), "cudarc declares no function");
    functions
}

#[test]
fn trampolines_are_made_for_every_function_of_the_oldest_cuda_and_for_no_newer_one() {
    let sources = cudarc_sources();
    let mut now = String::from(
        "# The functions of CUDA 12.1, by library: a driver for 12.1 and the libraries of 12.1 have all of them.\n\
         # Behind a name: what it returns, if that is no status.\n\
         # Written by TAPER_UPDATE_IMPORTS=1 cargo test --release --features cuda --test cuda_imports\n",
    );
    for (library, module) in LIBRARIES {
        let path = sources.join(module).join("sys/mod.rs");
        let bindings = fs::read_to_string(&path).unwrap();
        now += &format!("\n[{library}]\n{}\n", functions(&bindings).join("\n"));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(LIST);
    if env::var_os("TAPER_UPDATE_IMPORTS").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let listed = fs::read_to_string(path).unwrap_or_default();
    let only_in = |text: &str, other: &str| -> Vec<String> {
        let missing = text
            .lines()
            .filter(|line| !other.lines().any(|found| found == *line));
        missing.map(str::to_owned).collect()
    };
    assert!(
        now == listed,
        "{LIST} differs from what cudarc declares; run this with TAPER_UPDATE_IMPORTS=1 if that is meant:\n\
         missing {:?}\nneedless {:?}",
        only_in(&now, &listed),
        only_in(&listed, &now)
    );
}
