//! The GPUs, who holds their memory, and CUDA's toolkit.

use super::{Finding, Machine};
use crate::device::{Gpu, GpuProcess, Gpus, Hardware};
use crate::doctor::probe::Nvcc;
use crate::units::{bytes, count};

pub(super) fn gpus(gpus: &Gpus) -> Vec<Finding> {
    match gpus {
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
            findings.extend(gpus.iter().map(gpu));
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

fn gpu(gpu: &Gpu) -> Finding {
    let profile = &gpu.profile;
    let mut text = profile.name.clone();
    if let Hardware::Cuda(cuda) = &profile.hardware {
        let (major, minor) = cuda.compute_capability;
        text += &format!(
            ", {} SMs, compute capability {major}.{minor}",
            cuda.sm_count
        );
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

/// Kernels are PTX of the version of CUDA that compiled them, which only drivers of that version or
/// newer take.
pub(super) fn toolkit(machine: &Machine) -> Finding {
    const BUILD: &str = "this build has no CUDA and needs none";
    let supported = match &machine.gpus {
        Gpus::Found { cuda_version, .. } => *cuda_version,
        _ => None,
    };
    if let Some(built) = machine.build_cuda {
        return built_in(built, supported);
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
        } => match supported {
            Some(driver) if driver < (*major, *minor) => Finding::note(
                "toolkit",
                format!(
                    "{BUILD}; `nvcc` is of CUDA {major}.{minor}, newer than the driver's {}.{}",
                    driver.0, driver.1
                ),
                format!("update the NVIDIA driver to one for CUDA {major}.{minor}"),
            ),
            _ => Finding::ok(
                "toolkit",
                format!("{BUILD}; `nvcc` is of CUDA {major}.{minor}"),
            ),
        },
    }
}

/// A build with CUDA brings its kernels: it needs a driver, and no toolkit.
fn built_in((major, minor): (u32, u32), supported: Option<(u32, u32)>) -> Finding {
    let text = format!("this build has CUDA {major}.{minor} and needs none");
    match supported {
        Some(driver) if driver < (major, minor) => Finding::note(
            "toolkit",
            format!(
                "{text}; the driver is only for CUDA {}.{}",
                driver.0, driver.1
            ),
            format!("update the NVIDIA driver to one for CUDA {major}.{minor}"),
        ),
        _ => Finding::ok("toolkit", text),
    }
}
