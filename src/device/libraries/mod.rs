//! CUDA's libraries, beside the driver: which of them a run on a GPU needs, and which files serve it.
//!
//! The search runs when a GPU is probed, in the order of `places.rs`. Files that the driver is too old for are passed
//! over. [`Libraries`] holds the result, for `taper doctor` and for the error of a run.

#[cfg(feature = "cuda")]
mod load;
#[cfg(feature = "cuda")]
mod places;

use std::path::PathBuf;

use serde::Serialize;

#[cfg(feature = "cuda")]
pub use load::load;

/// Result of the search for CUDA's libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Libraries {
    pub found: Vec<FoundLibrary>,
    pub missing: Vec<MissingLibrary>,
    /// Places in the order of the search, which ends where it finds something.
    pub looked_in: Vec<String>,
    /// Files that are there and do not serve, with the reason.
    pub passed_over: Vec<String>,
}

/// A library that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundLibrary {
    /// NVIDIA's spelling: `cuBLASLt`.
    pub name: &'static str,
    /// The library's own: `12.1.3`.
    pub version: String,
    pub file: PathBuf,
}

/// A library that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingLibrary {
    pub name: &'static str,
    /// The names that its file could have had: `libcublasLt.so.12`.
    pub files: Vec<String>,
}

impl Libraries {
    /// Message about the missing libraries and the places of the search; `None` if none is missing.
    pub fn explain(&self) -> Option<String> {
        let names: Vec<&str> = self.missing.iter().map(|library| library.name).collect();
        let files = self.missing.iter().flat_map(|library| &library.files);
        let files: Vec<String> = files.map(|file| format!("`{file}`")).collect();
        if names.is_empty() {
            return None;
        }
        let mut text = format!(
            "{} not found; looked for {} in {}",
            names.join(" and "),
            files.join(", "),
            self.looked_in.join(", in ")
        );
        for reason in &self.passed_over {
            text += &format!("; {reason}");
        }
        Some(text)
    }

    /// Commands that bring the missing libraries, for a driver that supports `cuda`.
    pub fn hint(cuda: (u32, u32)) -> &'static str {
        match cuda {
            (..=12, _) => {
                "install them with `pip install nvidia-cublas-cu12 nvidia-curand-cu12` (PyTorch for CUDA 12 brings them), \
                 or set CUDA_HOME or LD_LIBRARY_PATH to where they are"
            }
            _ => {
                "install them with `pip install nvidia-cublas nvidia-curand nvidia-cuda-runtime` (PyTorch for CUDA 13 brings them), or \
                 set CUDA_HOME or LD_LIBRARY_PATH to where they are"
            }
        }
    }
}
