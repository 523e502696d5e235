//! taper's own kernels: every `kernels/*.cu` becomes PTX, which is embedded in the binary.
//!
//! The first line of a source lists its targets: `// compute: 75 80` is compute capability 7.5 and, once
//! more, 8.0. A driver compiles a PTX module for its own card as a whole. A run uses few of the kernels,
//! so each of them becomes a module of its own.

use std::error::Error;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, thread};

const SOURCES: &str = "kernels";

/// One compilation of a source.
struct Unit {
    source: PathBuf,
    /// Target as in `compute_80`.
    compute: String,
    /// Hash of everything that the PTX depends on.
    inputs: u64,
}

/// Compiles the sources that changed, and writes `kernels.rs` below `out`: the table that
/// src/ops/launch/kernels.rs includes.
pub fn compile(out: &Path, toolkit: &Path) -> Result<(), Box<dyn Error>> {
    let nvcc = toolkit.join("bin/nvcc");
    let folder = out.join("kernels");
    fs::create_dir_all(&folder)?;
    let units = units(&nvcc)?;
    // One nvcc for each core: it runs on one core and takes some hundred MiB.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let compile = |unit: &Unit| {
        let entries = unit.entries(&nvcc, &folder);
        entries.map_err(|error| error.to_string())
    };
    let mut entries: Vec<Vec<String>> = Vec::new();
    for units in units.chunks(cores) {
        thread::scope(|scope| {
            let running: Vec<_> = (units.iter())
                .map(|unit| scope.spawn(|| compile(unit)))
                .collect();
            for unit in running {
                entries.push(unit.join().map_err(|_| "a compiling thread panicked")??);
            }
            Ok::<_, String>(())
        })?;
    }

    let mut table = String::from("[\n");
    for (unit, entries) in units.iter().zip(&entries) {
        for entry in entries {
            writeln!(
                table,
                "    (\"{entry}\", \"{}\", include_str!({:?})),",
                unit.compute,
                unit.folder(&folder).join(format!("{entry}.ptx"))
            )?;
        }
    }
    table.push_str("]\n");
    fs::write(out.join("kernels.rs"), table)?;
    Ok(())
}

/// The compilations of every source, one for each target of its first line.
fn units(nvcc: &Path) -> Result<Vec<Unit>, Box<dyn Error>> {
    let hint = "run `eval \"$(scripts/cuda_toolkit --env)\"`, then build again";
    let version = Command::new(nvcc)
        .arg("--version")
        .output()
        .map_err(|error| format!("cannot run `{}`: {error}; {hint}", nvcc.display()))?;
    let (mut sources, mut headers) = (Vec::new(), DefaultHasher::new());
    // The PTX depends on this file, too: it edits nvcc's text.
    (version.stdout, include_str!("kernels.rs")).hash(&mut headers);
    for path in sorted(Path::new(SOURCES))? {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("cu") => sources.push(path),
            // A header may be included anywhere.
            Some("cuh") => fs::read(&path)?.hash(&mut headers),
            _ => {}
        }
    }
    let mut units = Vec::new();
    for source in sources {
        let text = fs::read_to_string(&source)?;
        let computes = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("// compute: "))
            .ok_or_else(|| format!("`{}` lacks `// compute: ...`", source.display()))?;
        for compute in computes.split_whitespace() {
            let mut inputs = headers.clone();
            (&text, flags(compute)).hash(&mut inputs);
            units.push(Unit {
                source: source.clone(),
                compute: compute.to_string(),
                inputs: inputs.finish(),
            });
        }
    }
    Ok(units)
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn flags(compute: &str) -> [String; 6] {
    [
        "-ptx".to_string(),
        "-std=c++17".to_string(),
        "--expt-relaxed-constexpr".to_string(),
        format!("-arch=compute_{compute}"),
        "-Werror".to_string(),
        "all-warnings".to_string(),
    ]
}

impl Unit {
    fn folder(&self, below: &Path) -> PathBuf {
        let stem = self.source.file_stem().unwrap_or_default();
        below.join(format!("{}_{}", stem.to_string_lossy(), self.compute))
    }

    /// Writes the PTX of each kernel to a file of its name, unless the files are up to date. Returns the names.
    fn entries(&self, nvcc: &Path, below: &Path) -> Result<Vec<String>, Box<dyn Error>> {
        let folder = self.folder(below);
        let stamp = folder.join("inputs");
        let inputs = self.inputs.to_string();
        if let Ok(found) = fs::read_to_string(&stamp)
            && let Some((made_of, names)) = found.split_once('\n')
            && made_of == inputs
        {
            return Ok(names.lines().map(str::to_string).collect());
        }
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let whole = folder.join("whole");
        let output = Command::new(nvcc)
            .args(flags(&self.compute))
            .arg(&self.source)
            .arg("-o")
            .arg(&whole)
            .output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`{}`:\n{text}", self.source.display()).into());
        }
        let ptx = fs::read_to_string(&whole)?;
        let modules = split(&ptx, isa(&self.compute)?)
            .map_err(|error| format!("`{}`: {error}", self.source.display()))?;
        let mut names = Vec::new();
        for (name, text) in modules {
            fs::write(folder.join(format!("{name}.ptx")), text)?;
            names.push(name);
        }
        fs::remove_file(whole)?;
        fs::write(stamp, format!("{inputs}\n{}", names.join("\n")))?;
        Ok(names)
    }
}

/// The oldest PTX ISA with the instructions that our kernels for a compute capability use. nvcc writes its own
/// version, which older drivers refuse, whatever the instructions. tests/kernel_resources.rs has ptxas check
/// that these versions suffice.
fn isa(compute: &str) -> Result<&'static str, String> {
    match compute {
        "75" => Ok("6.5"),  // ldmatrix, mma.m16n8k8
        "80" => Ok("7.0"),  // cp.async, mma.m16n8k16
        "90a" => Ok("8.0"), // wgmma, cp.async.bulk.tensor
        _ => Err(format!("no PTX ISA is known for compute_{compute}")),
    }
}

/// Splits nvcc's text into a module for each kernel: the common head, then one `.entry`. Pairs of name and module.
fn split(ptx: &str, isa: &str) -> Result<Vec<(String, String)>, String> {
    let mut head = String::new();
    let mut modules: Vec<(String, String)> = Vec::new();
    // Depth of a kernel's braces: inline assembly has braces of its own.
    let (mut inside, mut depth) = (false, 0);
    // The pragma only says which loaded bytes are not used, and needs PTX 8.3.
    let needless = ["//", ".pragma \"used_bytes_mask"];
    let is_needless =
        |line: &str| line.is_empty() || needless.iter().any(|start| line.starts_with(start));
    for line in ptx.lines().filter(|line| !is_needless(line.trim())) {
        if let Some(entry) = line.strip_prefix(".visible .entry ") {
            let name = entry.trim_end_matches(['(', ')']).to_string();
            modules.push((name, head.clone()));
            inside = true;
        }
        match modules.last_mut() {
            Some((_, text)) if inside => {
                text.push_str(line);
                text.push('\n');
            }
            Some(_) => return Err(format!("`{line}` belongs to no kernel")),
            None if line.starts_with(".version") => head.push_str(&format!(".version {isa}\n")),
            None if line.starts_with(".func") => {
                return Err(format!("`{line}` is not inlined"));
            }
            None => {
                head.push_str(line);
                head.push('\n');
            }
        }
        let braces = |brace| line.matches(brace).count();
        depth += braces('{');
        depth -= braces('}');
        inside &= depth > 0 || !line.contains('}');
    }
    if modules.is_empty() {
        return Err("no kernel".to_string());
    }
    Ok(modules)
}
