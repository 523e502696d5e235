//! Registers and shared memory of every kernel on every GPU that it may meet, as ptxas counts them.
//!
//! ptxas also proves that the PTX is right for the version that it names, and that nothing spills but where the table
//! says so. The table is tests/fixtures/kernel_resources.txt; `TAPER_UPDATE_RESOURCES=1` writes it anew.
#![cfg(feature = "cuda")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use rayon::prelude::*;
use taper::ops::launch::kernels::{self, Kernel};

/// GPUs that are compiled for: what ptxas calls them, and compute capability.
const GPUS: [(&str, (u32, u32)); 7] = [
    ("sm_75", (7, 5)),
    ("sm_80", (8, 0)),
    ("sm_86", (8, 6)),
    ("sm_89", (8, 9)),
    ("sm_90a", (9, 0)),
    ("sm_100", (10, 0)),
    ("sm_120", (12, 0)),
];

/// GPUs newer than the kernels, on which a few registers may spill: what spills is in the table.
const MAY_SPILL: [&str; 1] = ["sm_120"];

const TABLE: &str = "tests/fixtures/kernel_resources.txt";

/// 32-bit registers of an SM, on every GPU above: "Technical Specifications per Compute Capability" of the CUDA C++
/// Programming Guide.
const REGISTERS_PER_SM: usize = 65_536;
/// Registers are given to warps in units of so many.
const REGISTERS_UNIT: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Resources {
    registers: usize,
    /// Static; what a launch asks for comes on top.
    shared_bytes: usize,
    /// Of a thread's registers, in local memory.
    spilled_bytes: usize,
}

/// The number in `text` right before `unit`.
fn number_before(text: &str, unit: &str) -> Option<usize> {
    let (before, _) = text.split_once(unit)?;
    before.split_whitespace().next_back()?.parse().ok()
}

/// What a kernel takes on a GPU. A result is kept in `folder` until the PTX or ptxas changes.
fn resources(
    kernel: &Kernel,
    gpu: &str,
    ptxas_version: &[u8],
    folder: &Path,
) -> Result<Resources, String> {
    let name = format!("{}_{}_{gpu}", kernel.name, kernel.compute);
    let mut key = DefaultHasher::new();
    (kernel.ptx, ptxas_version).hash(&mut key);
    let kept = folder.join(format!("{name}_{:016x}", key.finish()));
    if let Ok(text) = fs::read_to_string(&kept) {
        let numbers: Vec<usize> = text.split(' ').flat_map(str::parse).collect();
        if let [registers, shared_bytes, spilled_bytes] = numbers[..] {
            return Ok(Resources {
                registers,
                shared_bytes,
                spilled_bytes,
            });
        }
    }
    let found = compile(kernel, &name, gpu, folder)?;
    let text = format!(
        "{} {} {}",
        found.registers, found.shared_bytes, found.spilled_bytes
    );
    fs::write(kept, text).map_err(|error| error.to_string())?;
    Ok(found)
}

fn compile(kernel: &Kernel, name: &str, gpu: &str, folder: &Path) -> Result<Resources, String> {
    let source = folder.join(format!("{name}.ptx"));
    fs::write(&source, kernel.ptx).map_err(|error| error.to_string())?;
    let strictness: &[&str] = if MAY_SPILL.contains(&gpu) {
        &[]
    } else {
        &["--warn-on-spills"]
    };
    let output = Command::new("ptxas")
        .args(["-v", "--warning-as-error", "-arch", gpu])
        .args(strictness)
        .arg(&source)
        .args(["-o", "/dev/null"])
        .output()
        .map_err(|error| format!("ptxas: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name}: {text}"));
    }
    Ok(Resources {
        registers: number_before(&text, " registers").ok_or_else(|| text.to_string())?,
        shared_bytes: number_before(&text, " bytes smem").unwrap_or(0),
        spilled_bytes: number_before(&text, " bytes spill stores").unwrap_or(0),
    })
}

/// A line for each kernel, with what it takes by GPU.
fn table(found: &BTreeMap<(&str, &str), Vec<(&str, Resources)>>) -> String {
    let mut text = String::from(
        "# Written by TAPER_UPDATE_RESOURCES=1 cargo test --release --features cuda --test kernel_resources\n\
         # kernel, compute capability of its PTX: registers per thread by GPU; bytes of static shared memory\n",
    );
    for ((name, compute), by_gpu) in found {
        let registers = by_gpu.iter().fold(String::new(), |mut text, (gpu, found)| {
            let _ = write!(text, " {gpu} {}", found.registers);
            if found.spilled_bytes > 0 {
                let _ = write!(text, " ({} B spilled)", found.spilled_bytes);
            }
            text
        });
        let shared = by_gpu.iter().map(|(_, found)| found.shared_bytes).max();
        let shared = shared.unwrap_or(0);
        let _ = writeln!(text, "{name} {compute}:{registers}; {shared}");
    }
    text
}

/// `.maxntid 256`: what `__launch_bounds__` promises.
fn threads(kernel: &Kernel) -> usize {
    number_after(kernel.ptx, ".maxntid ").expect("every kernel has launch bounds")
}

fn number_after(text: &str, what: &str) -> Option<usize> {
    let (_, after) = text.split_once(what)?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[test]
fn no_kernel_spills_and_every_one_takes_what_the_table_says() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel_resources");
    fs::create_dir_all(&folder).unwrap();
    let version = Command::new("ptxas").arg("--version").output();
    let version = version.expect("ptxas, of scripts/cuda_toolkit").stdout;
    let jobs: Vec<(Kernel, &str)> = kernels::all()
        .flat_map(|kernel| {
            // An older variant is not loaded where there is a newer one.
            let loaded =
                move |has| Kernel::find(kernel.name, has).is_ok_and(|found| found == kernel);
            let meets = GPUS.iter().filter(move |(_, has)| loaded(*has));
            meets.map(move |(gpu, _)| (kernel, *gpu))
        })
        .collect();
    let results: Vec<_> = jobs
        .par_iter()
        .map(|(kernel, gpu)| resources(kernel, gpu, &version, &folder))
        .collect();
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for ((kernel, gpu), result) in jobs.iter().zip(results) {
        match result {
            Ok(resources) => {
                let per_warp = (32 * resources.registers).next_multiple_of(REGISTERS_UNIT);
                let needs = threads(kernel) / 32 * per_warp;
                if needs > REGISTERS_PER_SM {
                    wrong.push(format!("{} needs {needs} registers on {gpu}", kernel.name));
                }
                let key = (kernel.name, kernel.compute);
                found.entry(key).or_default().push((*gpu, resources));
            }
            Err(error) => wrong.push(error),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let (now, path) = (table(&found), Path::new(TABLE));
    if env::var_os("TAPER_UPDATE_RESOURCES").is_some() {
        fs::write(path, &now).unwrap();
    }
    let before = fs::read_to_string(path).unwrap_or_default();
    let differ: Vec<&str> = now.lines().filter(|line| !before.contains(line)).collect();
    assert!(
        now == before,
        "{TABLE} says otherwise, or more; run this with TAPER_UPDATE_RESOURCES=1 if the change is meant:\n{}",
        differ.join("\n")
    );
}
