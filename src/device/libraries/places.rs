//! Places of CUDA's libraries: ld.so's own path, a toolkit, and Python's packages, which PyTorch fills.

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

/// A place with its folders.
#[derive(Debug, PartialEq, Eq)]
pub struct Searched {
    /// Name in messages.
    pub name: String,
    /// Folders in the order in which they are looked into; `None` for the loader, which knows its own.
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
                toolkit(["CUDA_HOME", "CUDA_PATH"].map(|name| (name, env::var_os(name))))
            }
            Place::Python => python(),
        }
    }
}

/// Root of a toolkit that was installed without asking for another.
const USUAL: &str = "/usr/local/cuda";

/// Folders of libraries below a toolkit's root: `lib64` in NVIDIA's installers, `lib` in wheels and Conda's packages.
const BELOW_A_ROOT: [&str; 4] = [
    "lib64",
    "lib",
    "targets/x86_64-linux/lib",
    "targets/sbsa-linux/lib",
];

/// The folders of the first toolkit that a variable names, which need not be one to run with, and of the usual one.
fn toolkit(variables: [(&str, Option<OsString>); 2]) -> Searched {
    let mut set = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let named = set.find(|(_, value)| !value.is_empty());
    let name = match &named {
        Some((name, root)) => format!("{name} (`{}`) and `{USUAL}`", Path::new(root).display()),
        None => format!("`{USUAL}` (CUDA_HOME is not set)"),
    };
    let roots = named
        .map(|(_, root)| root.into())
        .into_iter()
        .chain([USUAL.into()]);
    let folders = roots.flat_map(|root: PathBuf| BELOW_A_ROOT.map(|folder| root.join(folder)));
    Searched {
        name,
        folders: Some(without_links(folders)),
    }
}

/// Prints Python's root, then where it imports from: a virtual environment's packages, the user's, everybody's.
const PRINT_PATHS: &str = "import sys; print('\\n'.join([sys.prefix, *sys.path]))";

/// The folders of NVIDIA's packages, `nvidia/cublas/lib` for CUDA 12 and `nvidia/cu13/lib` for CUDA 13, and those of
/// Conda's, which lie below Python's root.
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
    packages(&paths)
}

/// The folders of libraries below what [`PRINT_PATHS`] printed.
fn packages(printed: &str) -> Searched {
    let mut lines = printed
        .lines()
        .filter(|line| !line.is_empty())
        .map(Path::new);
    let prefix = lines.next().unwrap_or(Path::new("/usr"));
    let nvidia: Vec<PathBuf> = lines
        .map(|folder| folder.join("nvidia"))
        .filter(|nvidia| nvidia.is_dir())
        .collect();
    let mut names: Vec<String> = nvidia
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect();
    names.push(format!("`{}`", prefix.join("lib").display()));
    let below = BELOW_A_ROOT.map(|folder| prefix.join(folder));
    let folders = nvidia
        .iter()
        .flat_map(|folder| libraries_below(folder))
        .chain(below);
    Searched {
        name: format!("Python's packages {}", names.join(", ")),
        folders: Some(without_links(folders)),
    }
}

/// Folders that are there, each once.
fn without_links(folders: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    let mut is_new = |folder: &PathBuf| match folder.canonicalize() {
        Ok(real) if !seen.contains(&real) => {
            seen.push(real);
            true
        }
        _ => false,
    };
    folders.filter(|folder| is_new(folder)).collect()
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

/// `lib` of every package, by name, which puts `cu13` before CUDA 12's `cublas`.
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
    fn a_toolkit_that_is_named_comes_before_the_usual_one() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("targets/x86_64-linux/lib")).unwrap();
        std::os::unix::fs::symlink("targets/x86_64-linux/lib", root.path().join("lib64")).unwrap();
        let home = || Some(root.path().as_os_str().to_owned());
        let shown = root.path().display();
        for (variables, name) in [
            (
                [("CUDA_HOME", home()), ("CUDA_PATH", Some("/x".into()))],
                "CUDA_HOME",
            ),
            (
                [("CUDA_HOME", Some("".into())), ("CUDA_PATH", home())],
                "CUDA_PATH",
            ),
        ] {
            let named = toolkit(variables);
            assert_eq!(
                named.name,
                format!("{name} (`{shown}`) and `/usr/local/cuda`")
            );
            // Not once more under the name that the link goes to.
            let folders = named.folders.unwrap();
            assert_eq!(folders[0], root.path().join("lib64"));
            assert!(!folders.contains(&root.path().join("targets/x86_64-linux/lib")));
        }
        let usual = toolkit([("CUDA_HOME", None), ("CUDA_PATH", None)]);
        assert_eq!(usual.name, "`/usr/local/cuda` (CUDA_HOME is not set)");
    }

    #[test]
    fn packages_of_conda_lie_below_pythons_root() {
        let root = tempfile::tempdir().unwrap();
        let site = root.path().join("lib/python3.12/site-packages");
        fs::create_dir_all(site.join("nvidia/cublas/lib")).unwrap();
        let printed = format!("{}\n\n{}\n", root.path().display(), site.display());
        let folders = packages(&printed).folders.unwrap();
        assert_eq!(
            folders,
            [site.join("nvidia/cublas/lib"), root.path().join("lib")]
        );
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
    fn python_tells_its_root_and_where_it_imports_from() {
        let printed = Command::new("python3").args(["-c", PRINT_PATHS]).output();
        let Ok(printed) = printed else {
            eprintln!("skipped, for there is no Python");
            return;
        };
        assert!(printed.status.success(), "{printed:?}");
        let printed = String::from_utf8_lossy(&printed.stdout);
        let root = Path::new(printed.lines().next().unwrap());
        assert!(root.is_absolute() && root.is_dir(), "{printed}");
        assert!(
            printed.lines().skip(1).any(|line| Path::new(line).is_dir()),
            "{printed}"
        );
    }

    #[test]
    fn an_environment_without_an_interpreter_is_passed_over() {
        assert_eq!(interpreter(None), Path::new("python3"));
        assert_eq!(interpreter(Some("/nowhere".into())), Path::new("python3"));
    }
}
