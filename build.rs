//! Makes the quickstart corpus, taper's own source in one text, and records the versions of candle and of the `gemm`
//! crate; all are embedded in the binary. With the feature `cuda`, also makes the archives that stand in for CUDA's
//! libraries, and taper's own kernels.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[cfg(feature = "cuda")]
#[path = "build/cuda_imports.rs"]
mod cuda_imports;
#[cfg(feature = "cuda")]
#[path = "build/kernels.rs"]
mod kernels;

fn main() -> Result<(), Box<dyn Error>> {
    // Tests are part of the corpus but are not watched: editing one would build the library again.
    for watched in ["build.rs", "build", "Cargo.lock", "src", "kernels"] {
        if Path::new(watched).exists() {
            println!("cargo::rerun-if-changed={watched}");
        }
    }
    let mut paths = vec![PathBuf::from("build.rs")];
    collect(Path::new("src"), "rs", &mut paths)?;
    collect(Path::new("kernels"), "cu", &mut paths)?;
    collect(Path::new("tests"), "rs", &mut paths)?;
    paths.sort();

    let mut corpus = String::new();
    for path in paths {
        let source = fs::read_to_string(&path)?;
        // A small vocabulary: printable ASCII and the newline.
        corpus.extend(
            source
                .chars()
                .filter(|&c| c == '\n' || (' '..='~').contains(&c)),
        );
        corpus.push('\n');
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("quickstart.txt"), corpus)?;

    let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
    for (name, package) in [("CANDLE_CORE", "candle-core"), ("GEMM", "gemm")] {
        let version = locked_version(&lock, package).unwrap_or("unknown");
        println!("cargo::rustc-env=TAPER_{name}={version}");
    }
    #[cfg(feature = "cuda")]
    {
        let toolkit = cuda_imports::toolkit()?;
        cuda_imports::make(&out, &toolkit)?;
        kernels::compile(&out, &toolkit)?;
    }
    Ok(())
}

/// The version of a package in a `Cargo.lock`.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let (_, entry) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    entry.split('"').next()
}

/// Adds every file below `folder` with this extension, except test fixtures and the virtual GPU, which is
/// a package of its own.
fn collect(folder: &Path, extension: &str, paths: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let left_out = path.ends_with("fixtures") || path.ends_with("vgpu");
        if path.is_dir() && !left_out {
            collect(&path, extension, paths)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    Ok(())
}
