//! Findings about the GPUs, the holders of their memory, CUDA's libraries and its toolkit.

use super::{Finding, Machine};
use crate::device::{
    FoundLibrary, GpuProcess, Gpus, Hardware, InstalledGpu, Libraries, NEWEST_COMPUTE_CAPABILITY,
    OLDEST_COMPUTE_CAPABILITY, OLDEST_CUDA, REQUIREMENTS, Requirement,
};
use crate::doctor::probe::Nvcc;
use crate::units::{bytes, count};

pub(super) fn gpus(machine: &Machine) -> Vec<Finding> {
    match &machine.gpus {
        Gpus::NoLibrary if machine.driver_cuda.is_some() => vec![Finding::note(
            "gpu",
            "CUDA finds one; NVIDIA's management library, which would list it, is missing".into(),
            "install `libnvidia-ml.so.1`, which comes with the driver (in a container: the capability `utility`)",
        )],
        Gpus::NoLibrary => vec![Finding::ok("gpu", "none: there is no NVIDIA driver")],
        Gpus::Failed { reason } => vec![Finding::note(
            "gpu",
            format!("the NVIDIA driver does not answer: {reason}"),
            "get `nvidia-smi` to work; after an update of the driver, restart the machine",
        )],
        Gpus::Found {
            driver_version,
            cuda_version,
            gpus,
            unreadable,
        } => {
            let mut driver = driver_version.clone().unwrap_or("unknown version".into());
            if let Some((major, minor)) = cuda_version {
                driver += &format!(", for CUDA up to {major}.{minor}");
            }
            let mut findings = vec![Finding::ok("driver", driver)];
            if gpus.is_empty() && unreadable.is_empty() {
                findings.push(Finding::ok("gpu", "none"));
            }
            let built = machine.build_cuda.is_some();
            let newer = gpus.iter().position(|gpu| !gpu.is_too_old());
            findings.extend(gpus.iter().map(|gpu| {
                if built && gpu.is_too_old() {
                    too_old(gpu, newer)
                } else {
                    available(gpu, built)
                }
            }));
            findings.extend(unreadable.iter().map(|reason| {
                let text = format!("does not answer: {reason}");
                Finding::note(
                    "gpu",
                    text,
                    "look for its errors with `sudo dmesg | grep NVRM`",
                )
            }));
            findings
        }
    }
}

/// `NVIDIA GeForce RTX 3060, 28 SMs, compute capability 8.6`
fn description(gpu: &InstalledGpu) -> String {
    let mut text = gpu.profile.name.clone();
    if let Hardware::Cuda(cuda) = &gpu.profile.hardware {
        let (major, minor) = cuda.compute_capability;
        text += &format!(
            ", {} SMs, compute capability {major}.{minor}",
            cuda.sm_count
        );
    }
    text
}

/// A GPU without kernels, which a run refuses. `newer` is the index, by bus, of a GPU that has some.
fn too_old(gpu: &InstalledGpu, newer: Option<usize>) -> Finding {
    let (major, minor) = OLDEST_COMPUTE_CAPABILITY;
    let text = format!(
        "{}: kernels are there for {major}.{minor} and newer",
        description(gpu)
    );
    match newer {
        Some(index) => Finding::note(
            "gpu",
            text,
            format!(
                "choose the newer GPU with `CUDA_DEVICE_ORDER=PCI_BUS_ID` in the environment and \
                 `--set system.device=cuda:{index}`"
            ),
        ),
        None => Finding::problem(
            "gpu",
            text,
            "train on the CPU with `--set system.device=cpu`",
        ),
    }
}

fn available(gpu: &InstalledGpu, built: bool) -> Finding {
    let profile = &gpu.profile;
    let mut text = description(gpu);
    if built && gpu.compute_capability() > Some(NEWEST_COMPUTE_CAPABILITY) {
        text += ", newer than the kernels, of which it runs those for 8.0";
    }
    let (Some(free), Some(total)) = (profile.available_bytes, profile.total_bytes) else {
        return Finding::ok("gpu", text + ", free memory unknown");
    };
    text += &format!(", {} of {} free", bytes(free), bytes(total));
    if !gpu.processes.is_empty() {
        let holders: Vec<String> = gpu.processes.iter().map(gpu_process).collect();
        text += &format!("; held by {}", holders.join(", "));
    }
    if free >= total / 10 * 9 {
        return Finding::ok("gpu", text);
    }
    let suggestion = match gpu.processes.first() {
        Some(GpuProcess { pid, name, .. }) => match name {
            Some(name) => format!("for more, stop `{name}` (pid {pid}), if it can be spared"),
            None => format!("for more, stop the process {pid}, if it can be spared"),
        },
        None => "see who holds the rest with `sudo fuser -v /dev/nvidia*`".into(),
    };
    Finding::note("gpu", text, suggestion)
}

fn gpu_process(process: &GpuProcess) -> String {
    let name = match &process.name {
        Some(name) => format!("`{name}`"),
        None => "a process".into(),
    };
    match process.bytes {
        Some(held) => format!("{name} (pid {}) {} MiB", process.pid, count(held >> 20)),
        None => format!("{name} (pid {})", process.pid),
    }
}

pub(super) fn toolkit(machine: &Machine) -> Finding {
    const BUILD: &str = "this build has no CUDA and needs none";
    if let Some((major, minor)) = machine.build_cuda {
        // The build brings its kernels.
        let text = format!("this build has CUDA {major}.{minor} and needs none");
        return Finding::ok("toolkit", text);
    }
    match &machine.nvcc {
        Nvcc::Missing => Finding::ok("toolkit", format!("{BUILD}; `nvcc` is not on the PATH")),
        Nvcc::Failed { reason } => Finding::note(
            "toolkit",
            format!("{BUILD}; `nvcc` is on the PATH but fails: {reason}"),
            "reinstall the CUDA toolkit, or take it off the PATH",
        ),
        Nvcc::Found { version: None } => Finding::ok(
            "toolkit",
            format!("{BUILD}; `nvcc` does not tell its version"),
        ),
        Nvcc::Found {
            version: Some((major, minor)),
        } => Finding::ok(
            "toolkit",
            format!("{BUILD}; `nvcc` is of CUDA {major}.{minor}"),
        ),
    }
}

/// Requirements of the driver, in a build that can use one.
pub(super) fn requirements(machine: &Machine) -> Option<Finding> {
    machine.build_cuda?;
    let needs = REQUIREMENTS.map(|Requirement { cuda, driver, what }| {
        let (major, minor) = cuda;
        format!("{major}.{minor} ({driver}) for {what}")
    });
    let text = format!("a driver for CUDA {}", needs.join("; "));
    Some(match machine.driver_cuda {
        Some(has) if has < OLDEST_CUDA => Finding::problem(
            "needs",
            format!("{text}; this one is for CUDA {}.{}", has.0, has.1),
            format!(
                "update the NVIDIA driver to {} or newer",
                REQUIREMENTS[0].driver
            ),
        ),
        _ => Finding::ok("needs", text),
    })
}

/// CUDA's libraries with the files that serve, and those that are missing.
pub(super) fn libraries(machine: &Machine) -> Vec<Finding> {
    let Some(libraries) = &machine.libraries else {
        return Vec::new();
    };
    let found = |library: &FoundLibrary| {
        let text = format!("{}, `{}`", library.version, library.file.display());
        Finding::ok(library.name, text)
    };
    let mut findings: Vec<Finding> = libraries.found.iter().map(found).collect();
    if let Some(text) = libraries.explain() {
        let hint = Libraries::hint(machine.driver_cuda.unwrap_or(OLDEST_CUDA));
        findings.push(Finding::problem("cuda", text, hint));
    }
    findings
}
