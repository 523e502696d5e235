//! CUDA's libraries as archives of trampolines, so that one binary starts on every machine.
//!
//! candle links `cuda`, `cublas`, `cublasLt`, `curand`, `nvrtc` and `cudart` by name. Linked as shared
//! libraries they would have to be there before `main`, and at build time too. Here the linker finds
//! `libcuda.a` and so on instead, whose functions look for the real library when they are first called
//! (build/cuda_imports/). `libcudart.a` is NVIDIA's own static one: objects from nvcc register
//! themselves with it before `main`.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

const SOURCES: &str = "build/cuda_imports";

/// The functions of every library; tests/cuda_imports.rs compares them with what cudarc declares.
const FUNCTIONS: &str = include_str!("cuda_imports/functions.txt");

/// A library that is found at run time.
struct Library {
    /// Name as in `-lNAME`.
    name: &'static str,
    /// Numbers behind `.so.` in the names of its files, in the order in which they are looked for.
    versions: &'static [u32],
    /// Status that its functions return while it is missing; its header documents it.
    missing: i32,
}

const LIBRARIES: [Library; 5] = [
    Library {
        name: "cuda",
        versions: &[1],
        missing: 34, // CUDA_ERROR_STUB_LIBRARY
    },
    Library {
        name: "cublas",
        versions: &[13, 12],
        missing: 1, // CUBLAS_STATUS_NOT_INITIALIZED
    },
    Library {
        name: "cublasLt",
        versions: &[13, 12],
        missing: 1, // CUBLAS_STATUS_NOT_INITIALIZED
    },
    Library {
        name: "curand",
        // The number in CUDA 12 and in CUDA 13.
        versions: &[10],
        missing: 203, // CURAND_STATUS_INITIALIZATION_FAILED
    },
    Library {
        name: "nvrtc",
        versions: &[13, 12],
        missing: 11, // NVRTC_ERROR_INTERNAL_ERROR
    },
];

/// Writes the archives below `out` and tells cargo where they are.
pub fn make(out: &Path, toolkit: &Path) -> Result<(), Box<dyn Error>> {
    let folder = out.join("cuda_imports");
    fs::create_dir_all(&folder)?;
    // This folder comes before any folder of shared libraries.
    println!("cargo::rustc-link-search=native={}", folder.display());

    fs::copy(cudart(toolkit)?, folder.join("libcudart.a"))?;
    let (major, minor) = cuda_version(toolkit)?;
    println!("cargo::rustc-env=TAPER_CUDA_VERSION={major}.{minor}");
    for library in &LIBRARIES {
        archive(library, &folder).map_err(|error| format!("lib{}.a: {error}", library.name))?;
    }
    Ok(())
}

/// Compiles the trampolines of one library into `lib{name}.a`.
fn archive(library: &Library, folder: &Path) -> Result<(), Box<dyn Error>> {
    let name = library.name;
    let files = library
        .versions
        .iter()
        .fold(String::new(), |files, version| {
            files + &format!("\"lib{name}.so.{version}\", ")
        });
    let c = format!(
        "#include <stddef.h>\n\
         #include \"imports.h\"\n\
         static const char *const file_names[] = {{{files}NULL}};\n\
         struct taper_cuda_library taper_cuda_library_{name} = {{file_names, NULL, TAPER_CUDA_UNTRIED}};\n\
         int taper_cuda_status_{name}(void) {{ return {}; }}\n\
         const char *taper_cuda_text_{name}(void) {{ return \"lib{name}.so is missing\"; }}\n\
         size_t taper_cuda_zero_{name}(void) {{ return 0; }}\n",
        library.missing
    );
    let mut assembly = format!(
        "#define LIBRARY taper_cuda_library_{name}\n\
         #include \"trampoline.inc\"\n"
    );
    for line in functions(name)? {
        // Behind the name: the return value while the library is missing, if it is not a status.
        let (symbol, missing) = line.split_once(' ').unwrap_or((line, "status"));
        writeln!(assembly, "IMPORT {symbol}, taper_cuda_{missing}_{name}")?;
    }
    let (library_c, imports) = (
        folder.join(format!("{name}.c")),
        folder.join(format!("{name}_imports.S")),
    );
    fs::write(&library_c, c)?;
    fs::write(&imports, assembly)?;
    cc::Build::new()
        .cargo_metadata(false)
        .out_dir(folder)
        .include(SOURCES)
        .flag("-fvisibility=hidden")
        .file(library_c)
        .file(imports)
        // These are in every archive; the linker takes the first one's.
        .file(Path::new(SOURCES).join("bind.c"))
        .file(Path::new(SOURCES).join("unbound.S"))
        .try_compile(name)?;
    Ok(())
}

/// The lines of a library's section of [`FUNCTIONS`].
fn functions(library: &str) -> Result<impl Iterator<Item = &'static str>, String> {
    let (_, section) = FUNCTIONS
        .split_once(&format!("\n[{library}]\n"))
        .ok_or("there is no list of its functions")?;
    Ok(section.lines().take_while(|line| !line.is_empty()))
}

/// The root of the CUDA toolkit.
pub fn toolkit() -> Result<PathBuf, Box<dyn Error>> {
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
        if let Some(root) = env::var_os(variable) {
            return Ok(root.into());
        }
    }
    println!("cargo::rerun-if-env-changed=PATH");
    let path = env::var_os("PATH").unwrap_or_default();
    let nvcc = env::split_paths(&path)
        .map(|folder| folder.join("nvcc"))
        .find(|nvcc| nvcc.exists())
        .ok_or("no CUDA toolkit: run `eval \"$(scripts/cuda_toolkit --env)\"`, then build again")?;
    let root = nvcc.canonicalize()?;
    let root = root.parent().and_then(Path::parent);
    Ok(root.ok_or("`nvcc` is in no toolkit")?.into())
}

/// NVIDIA's static runtime: in wheels in `lib`, in full toolkits in `lib64`.
fn cudart(toolkit: &Path) -> Result<PathBuf, Box<dyn Error>> {
    [
        "lib",
        "lib64",
        "targets/x86_64-linux/lib",
        "targets/sbsa-linux/lib",
    ]
    .iter()
    .map(|folder| toolkit.join(folder).join("libcudart_static.a"))
    .find(|archive| archive.exists())
    .ok_or_else(|| format!("no `libcudart_static.a` in `{}`", toolkit.display()).into())
}

/// `#define CUDA_VERSION 13000` -> (13, 0)
fn cuda_version(toolkit: &Path) -> Result<(u32, u32), Box<dyn Error>> {
    let header = toolkit.join("include/cuda.h");
    let text = fs::read_to_string(&header)
        .map_err(|error| format!("cannot read `{}`: {error}", header.display()))?;
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("#define CUDA_VERSION "))
        .ok_or_else(|| format!("`{}` does not tell its version", header.display()))?;
    let version: u32 = version.trim().parse()?;
    Ok((version / 1000, version % 1000 / 10))
}
