//! Where CUDA's libraries may be: ld.so's own path, a toolkit, and Python's packages, which PyTorch fills.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// A place to look in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// LD_LIBRARY_PATH, the cache of ldconfig, the system's folders.
    Loader,
    Toolkit,
    Python,
}

/// What a place turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Searched {
    /// For people.
    pub name: String,
    /// `None` for the loader, which knows its folders itself.
    pub folders: Option<Vec<PathBuf>>,
}

impl Place {
    pub const ALL: [Place; 3] = [Place::Loader, Place::Toolkit, Place::Python];

    pub fn search(self) -> Searched {
        match self {
            Place::Loader => Searched {
                name: match env::var("LD_LIBRARY_PATH") {
                    Ok(path) if !path.is_empty() => {
                        format!("LD_LIBRARY_PATH (`{path}`) and ld.so's own path")
                    }
                    _ => "ld.so's path (LD_LIBRARY_PATH is not set)".into(),
                },
                folders: None,
            },
            Place::Toolkit => {
                toolkit(env::var_os("CUDA_HOME").or_else(|| env::var_os("CUDA_PATH")))
            }
            Place::Python => python(),
        }
    }
}

/// Where toolkits are installed unless somebody says otherwise.
const USUAL: &str = "/usr/local/cuda";

/// The folders of a toolkit: `lib64` in NVIDIA's installers, `lib` in wheels and Conda's packages.
fn toolkit(home: Option<OsString>) -> Searched {
    let (home, name) = match home.filter(|home| !home.is_empty()) {
        Some(home) => {
            let name = format!("CUDA_HOME (`{}`)", Path::new(&home).display());
            (PathBuf::from(home), name)
        }
        None => (USUAL.into(), format!("`{USUAL}` (CUDA_HOME is not set)")),
    };
    let folders = [
        "lib64",
        "lib",
        "targets/x86_64-linux/lib",
        "targets/sbsa-linux/lib",
    ];
    Searched {
        name,
        folders: Some(folders.map(|folder| home.join(folder)).to_vec()),
    }
}

/// What Python imports from says where its packages are: in a virtual environment, for the user, for everybody.
const PRINT_PATHS: &str = "import sys; print('\\n'.join(sys.path))";

/// The folders of NVIDIA's packages: `nvidia/cublas/lib` for CUDA 12, `nvidia/cu13/lib` for CUDA 13.
fn python() -> Searched {
    let python = interpreter(env::var_os("VIRTUAL_ENV").or_else(|| env::var_os("CONDA_PREFIX")));
    let shown = python.display();
    let printed = Command::new(&python)
        .args(["-c", PRINT_PATHS])
        .stdin(Stdio::null())
        .output();
    let paths = match printed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        Ok(output) => {
            return nowhere(format!(
                "Python's packages (`{shown}` fails: {})",
                output.status
            ));
        }
        Err(error) => {
            return nowhere(format!(
                "Python's packages (`{shown}` does not run: {error})"
            ));
        }
    };
    let packages = paths.lines().filter(|line| !line.is_empty());
    let nvidia: Vec<PathBuf> = packages
        .map(|folder| Path::new(folder).join("nvidia"))
        .filter(|nvidia| nvidia.is_dir())
        .collect();
    if nvidia.is_empty() {
        return nowhere(format!("the packages of `{shown}` (none is NVIDIA's)"));
    }
    let names: Vec<String> = nvidia
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect();
    Searched {
        name: format!("Python's packages {}", names.join(", ")),
        folders: Some(
            nvidia
                .iter()
                .flat_map(|folder| libraries_below(folder))
                .collect(),
        ),
    }
}

fn nowhere(name: String) -> Searched {
    Searched {
        name,
        folders: Some(Vec::new()),
    }
}

/// The interpreter of an environment that is active, else the one on the PATH.
fn interpreter(environment: Option<OsString>) -> PathBuf {
    let own = environment.map(|folder| Path::new(&folder).join("bin/python3"));
    own.filter(|python| python.exists())
        .unwrap_or_else(|| "python3".into())
}

/// `lib` of every package, by name.
fn libraries_below(nvidia: &Path) -> Vec<PathBuf> {
    let packages = fs::read_dir(nvidia).into_iter().flatten().flatten();
    let libraries = packages.map(|package| package.path().join("lib"));
    let mut libraries: Vec<PathBuf> = libraries.filter(|folder| folder.is_dir()).collect();
    libraries.sort();
    libraries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolkit_that_is_named_takes_the_place_of_the_usual_one() {
        let named = toolkit(Some("/opt/cuda".into()));
        assert_eq!(named.name, "CUDA_HOME (`/opt/cuda`)");
        assert_eq!(named.folders.unwrap()[0], Path::new("/opt/cuda/lib64"));
        for unset in [None, Some("".into())] {
            let usual = toolkit(unset);
            assert_eq!(usual.name, "`/usr/local/cuda` (CUDA_HOME is not set)");
        }
    }

    #[test]
    fn packages_are_those_that_have_libraries() {
        let site = tempfile::tempdir().unwrap();
        for folder in ["cu13/lib", "cublas/lib", "cublas/include", "nccl"] {
            fs::create_dir_all(site.path().join(folder)).unwrap();
        }
        let found = libraries_below(site.path());
        let expected = ["cu13/lib", "cublas/lib"].map(|folder| site.path().join(folder));
        assert_eq!(found, expected);
        assert!(libraries_below(&site.path().join("nowhere")).is_empty());
    }

    #[test]
    fn an_environment_without_an_interpreter_is_passed_over() {
        assert_eq!(interpreter(None), Path::new("python3"));
        assert_eq!(interpreter(Some("/nowhere".into())), Path::new("python3"));
    }
}
