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
use std::process::Command;
use std::{env, fs};

const SOURCES: &str = "build/cuda_imports";

/// A library that is found at run time.
struct Library {
    /// cudarc's module of it.
    module: &'static str,
    /// As in `-lNAME`.
    name: &'static str,
    version: Version,
    /// What its functions return while it is missing; a status that its header documents.
    missing: i32,
}

/// What follows `.so.` in the file's name.
enum Version {
    Fixed(u32),
    /// That of the toolkit.
    Cuda,
}

const LIBRARIES: [Library; 5] = [
    Library {
        module: "driver",
        name: "cuda",
        version: Version::Fixed(1),
        missing: 34, // CUDA_ERROR_STUB_LIBRARY
    },
    Library {
        module: "cublas",
        name: "cublas",
        version: Version::Cuda,
        missing: 1, // CUBLAS_STATUS_NOT_INITIALIZED
    },
    Library {
        module: "cublaslt",
        name: "cublasLt",
        version: Version::Cuda,
        missing: 1, // CUBLAS_STATUS_NOT_INITIALIZED
    },
    Library {
        module: "curand",
        name: "curand",
        version: Version::Fixed(10),
        missing: 203, // CURAND_STATUS_INITIALIZATION_FAILED
    },
    Library {
        module: "nvrtc",
        name: "nvrtc",
        version: Version::Cuda,
        missing: 11, // NVRTC_ERROR_INTERNAL_ERROR
    },
];

/// Writes the archives below `out` and tells cargo where they are.
pub fn make(out: &Path, toolkit: &Path, cudarc_version: &str) -> Result<(), Box<dyn Error>> {
    let folder = out.join("cuda_imports");
    fs::create_dir_all(&folder)?;
    // Ours comes before any folder of shared libraries.
    println!("cargo::rustc-link-search=native={}", folder.display());

    fs::copy(cudart(toolkit)?, folder.join("libcudart.a"))?;
    let (major, minor) = cuda_version(toolkit)?;
    println!("cargo::rustc-env=TAPER_CUDA_VERSION={major}.{minor}");
    let bindings = cudarc_sources(cudarc_version)?;
    for library in &LIBRARIES {
        let module = bindings.join(library.module).join("sys/mod.rs");
        let text = fs::read_to_string(&module)
            .map_err(|error| format!("cannot read `{}`: {error}", module.display()))?;
        archive(library, major, &functions(&text)?, &folder)
            .map_err(|error| format!("lib{}.a: {error}", library.name))?;
    }
    Ok(())
}

/// Compiles the trampolines of one library into `lib{name}.a`.
fn archive(
    library: &Library,
    cuda: u32,
    functions: &[Function],
    folder: &Path,
) -> Result<(), Box<dyn Error>> {
    let name = library.name;
    let version = match library.version {
        Version::Fixed(version) => version,
        Version::Cuda => cuda,
    };
    let c = format!(
        "#include <stddef.h>\n\
         #include \"imports.h\"\n\
         static const char *const file_names[] = {{\"lib{name}.so.{version}\", \"lib{name}.so\", NULL}};\n\
         struct taper_cuda_library taper_cuda_library_{name} = {{file_names, NULL, TAPER_CUDA_UNTRIED}};\n\
         int taper_cuda_status_{name}(void) {{ return {}; }}\n\
         const char *taper_cuda_text_{name}(void) {{ return \"lib{name}.so.{version} is missing\"; }}\n\
         size_t taper_cuda_zero_{name}(void) {{ return 0; }}\n",
        library.missing
    );
    let mut assembly = format!(
        "#define LIBRARY taper_cuda_library_{name}\n\
         #include \"trampoline.inc\"\n"
    );
    for function in functions {
        let missing = match function.returns {
            Returns::Status => "status",
            Returns::Text => "text",
            Returns::SizeOrNothing => "zero",
        };
        let symbol = function.symbol;
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
        // In every archive: the linker takes the first one's.
        .file(Path::new(SOURCES).join("bind.c"))
        .file(Path::new(SOURCES).join("unbound.S"))
        .try_compile(name)?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Function<'a> {
    symbol: &'a str,
    returns: Returns,
}

/// What a function answers while its library is missing.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Returns {
    Status,
    Text,
    SizeOrNothing,
}

/// Every function that a file of bindgen's declares, whichever version of CUDA it is for: the linker
/// drops what is not called.
fn functions(bindings: &str) -> Result<Vec<Function<'_>>, Box<dyn Error>> {
    let mut functions = Vec::new();
    for block in bindings.split("extern \"C\" {").skip(1) {
        let declaration = block.split('}').next().unwrap_or_default().trim();
        let Some((symbol, rest)) = declaration
            .strip_prefix("fn ")
            .and_then(|rest| rest.split_once('('))
        else {
            return Err(format!("not one function: `{declaration}`").into());
        };
        let returns = rest.rsplit_once(") -> ").map(|(_, returns)| returns);
        let returns = match returns.map(|returns| returns.trim_end_matches(';')) {
            None | Some("usize") => Returns::SizeOrNothing,
            Some("*const ::core::ffi::c_char") => Returns::Text,
            Some(status) if status.contains("tatus") || status.contains("esult") => Returns::Status,
            Some(other) => return Err(format!("`{symbol}` returns `{other}`").into()),
        };
        functions.push(Function { symbol, returns });
    }
    functions.sort();
    functions.dedup();
    if functions.is_empty() {
        return Err("cudarc declares no function".into());
    }
    Ok(functions)
}

/// The `src` folder of cudarc, wherever cargo took it from.
fn cudarc_sources(version: &str) -> Result<PathBuf, Box<dyn Error>> {
    let output = Command::new(env::var("CARGO")?)
        .args(["metadata", "--format-version=1", "--features=cuda"])
        .args(["--locked", "--offline"])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata = String::from_utf8(output.stdout)?;
    let identity = format!("\"name\":\"cudarc\",\"version\":\"{version}\"");
    let manifest = metadata
        .split_once(&identity)
        .and_then(|(_, package)| package.split_once("\"manifest_path\":\""))
        .and_then(|(_, rest)| rest.split('"').next())
        .ok_or("`cargo metadata` does not tell where cudarc is")?;
    Ok(Path::new(manifest).with_file_name("src"))
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
