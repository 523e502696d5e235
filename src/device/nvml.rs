//! Queries to NVIDIA's management library (NVML), which comes with the driver and is looked for at run time.

use std::fs;

use nvml_wrapper::enum_wrappers::device::Clock;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};

#[cfg(feature = "cuda")]
use super::gpu::merge;
use super::gpu::{GpuProcess, Gpus, InstalledGpu, Reading};

/// Longest name of a process; longer ones are cut.
const LONGEST_NAME: usize = 256;

/// Reads every GPU of this machine. Takes a few milliseconds, on some machines a second; without
/// a driver next to nothing.
pub fn gpus() -> Gpus {
    let nvml = match load() {
        Ok(nvml) => nvml,
        Err(NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound) => return Gpus::NoLibrary,
        Err(error) => return failed(&error),
    };
    let count = match nvml.device_count() {
        Ok(count) => count,
        Err(error) => return failed(&error),
    };
    let driver_version = nvml.sys_driver_version().ok();
    let cuda_version = nvml.sys_cuda_driver_version().ok().and_then(|version| {
        let major = cuda_driver_version_major(version);
        let minor = cuda_driver_version_minor(version);
        pair(major, minor)
    });
    let mut gpus: Vec<InstalledGpu> = Vec::new();
    let mut unreadable = Vec::new();
    for index in 0..count {
        match read(&nvml, index) {
            Ok(reading) => gpus.push(reading.interpret(driver_version.clone(), cuda_version)),
            Err(error) => unreadable.push(format!("GPU {index}: {error}")),
        }
    }
    Gpus::Found {
        driver_version,
        cuda_version,
        gpus,
        unreadable,
    }
}

/// The processes on the GPU with this identity, as CUDA tells it, the largest first; none where the
/// library does not tell.
#[cfg(feature = "cuda")]
pub(super) fn processes_of(uuid: [u8; 16]) -> Vec<GpuProcess> {
    let Ok(nvml) = load() else {
        return Vec::new();
    };
    let device = nvml
        .device_by_uuid(uuid_text(uuid))
        .or_else(|error| match nvml.device_count() {
            // The only GPU cannot be mistaken for another.
            Ok(1) => nvml.device_by_index(0),
            _ => Err(error),
        });
    device.map_or(Vec::new(), |device| merge(processes(&nvml, &device)))
}

/// `GPU-` and 32 hexadecimal digits, in groups of 8, 4, 4, 4 and 12.
#[cfg(feature = "cuda")]
fn uuid_text(uuid: [u8; 16]) -> String {
    let mut text = String::from("GPU");
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 0 | 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The library under the name that a driver installs it; the one without a number, which the
/// wrapper looks for, comes with development packages.
fn load() -> Result<Nvml, NvmlError> {
    let versioned = "libnvidia-ml.so.1".as_ref();
    match Nvml::builder().lib_path(versioned).init() {
        Err(NvmlError::LibloadingError(_)) => Nvml::init(),
        other => other,
    }
}

fn failed(error: &NvmlError) -> Gpus {
    Gpus::Failed {
        reason: error.to_string(),
    }
}

/// Reads one GPU. Its name and compute capability must be known; the rest may be missing.
fn read(nvml: &Nvml, index: u32) -> Result<Reading, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let capability = device.cuda_compute_capability()?;
    let memory = device.memory_info().ok();
    Ok(Reading {
        name: device.name()?,
        compute_capability: pair(capability.major, capability.minor).ok_or(NvmlError::Unknown)?,
        total_bytes: memory
            .as_ref()
            .map(|memory| memory.total.saturating_sub(memory.reserved)),
        free_bytes: memory.as_ref().map(|memory| memory.free),
        cores: device.num_cores().ok(),
        bus_bits: device.memory_bus_width().ok(),
        memory_mhz: device.max_clock_info(Clock::Memory).ok(),
        processes: processes(nvml, &device),
    })
}

fn processes(nvml: &Nvml, device: &Device) -> Vec<GpuProcess> {
    let compute = device.running_compute_processes();
    let graphics = device.running_graphics_processes();
    let all = compute.into_iter().chain(graphics).flatten();
    all.map(|process| describe(nvml, &process)).collect()
}

fn describe(nvml: &Nvml, process: &ProcessInfo) -> GpuProcess {
    let pid = process.pid;
    let name = nvml
        .sys_process_name(pid, LONGEST_NAME)
        .ok()
        .or_else(|| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    GpuProcess {
        pid,
        name: name.as_deref().and_then(program),
        bytes: match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        },
    }
}

/// `/usr/lib/xorg/Xorg -core :0` -> `Xorg`.
fn program(command: &str) -> Option<String> {
    let program = command.split_whitespace().next()?;
    let name = program.rsplit('/').next().unwrap_or(program);
    (!name.is_empty()).then(|| name.to_owned())
}

fn pair(major: i32, minor: i32) -> Option<(u32, u32)> {
    Some((major.try_into().ok()?, minor.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_called_what_its_program_is_called() {
        let cases = [
            ("/usr/lib/xorg/Xorg -core :0", Some("Xorg")),
            ("python3\n", Some("python3")),
            ("  ", None),
            ("/", None),
        ];
        for (command, name) in cases {
            assert_eq!(program(command).as_deref(), name, "{command:?}");
        }
    }

    #[test]
    fn any_machine_can_be_asked() {
        match gpus() {
            Gpus::NoLibrary => {}
            Gpus::Failed { reason } => assert!(!reason.is_empty()),
            Gpus::Found { gpus, .. } => {
                assert!(gpus.iter().all(|gpu| !gpu.profile.name.is_empty()))
            }
        }
    }
}
