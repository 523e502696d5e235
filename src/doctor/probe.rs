//! The probe: reads the machine's figures and judges none. Figures that cannot be read are absent.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use super::folders::{CheckpointFolder, DataFolder};
use crate::config::Config;
use crate::device::{self, DeviceProfile, Gpus, Libraries, kib_field};

/// Number of the processes that are listed, of those that hold most memory.
const HOLDERS: usize = 3;

/// Figures of this machine, as probed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    pub cpu: DeviceProfile,
    /// Rust's name of it: `x86_64`, `aarch64`.
    pub architecture: &'static str,
    /// Cores of the machine, whether or not this process may use them.
    pub cores: Option<usize>,
    /// Memory of the machine, whatever limits this process has.
    pub physical_bytes: Option<u64>,
    pub swap: Option<Swap>,
    /// The other processes that hold most memory, the largest first.
    pub holders: Vec<Holder>,
    pub gpus: Gpus,
    /// The newest CUDA that the driver of a GPU here supports, (major, minor); in a build with CUDA also where NVML is
    /// missing.
    pub driver_cuda: Option<(u32, u32)>,
    /// The CUDA version that this build's kernels are for, (major, minor).
    pub build_cuda: Option<(u32, u32)>,
    /// CUDA's libraries; `None` in a build without CUDA, and where no driver can serve any.
    pub libraries: Option<Libraries>,
    pub nvcc: Nvcc,
    pub data: DataFolder,
    pub checkpoints: CheckpointFolder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Swap {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

/// A process and the memory it holds in RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    pub pid: u32,
    pub name: String,
    pub bytes: u64,
}

/// CUDA's compiler on the PATH.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Nvcc {
    Missing,
    Found { version: Option<(u32, u32)> },
    Failed { reason: String },
}

impl Machine {
    /// Reads the figures. `config` selects the dataset and the folder for checkpoints.
    pub fn probe(config: Option<&Config>) -> Self {
        let root = Path::new("/");
        let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
        let gpus = device::gpus();
        let driver_cuda = driver_cuda(&gpus);
        let (meminfo, cpuinfo) = (read("proc/meminfo"), read("proc/cpuinfo"));
        Self {
            cpu: DeviceProfile::cpu(),
            architecture: std::env::consts::ARCH,
            cores: cores(&cpuinfo),
            physical_bytes: kib_field(&meminfo, "MemTotal"),
            swap: swap(&meminfo),
            holders: holders(root),
            libraries: libraries(&gpus, driver_cuda),
            gpus,
            driver_cuda,
            build_cuda: option_env!("TAPER_CUDA_VERSION").and_then(version),
            nvcc: nvcc(),
            data: DataFolder::probe(config),
            checkpoints: CheckpointFolder::probe(config),
        }
    }
}

/// The CUDA of the driver of a GPU that is here: NVML's word, else the driver's own.
fn driver_cuda(gpus: &Gpus) -> Option<(u32, u32)> {
    match gpus {
        Gpus::Found {
            gpus, unreadable, ..
        } if gpus.is_empty() && unreadable.is_empty() => None,
        Gpus::Found {
            cuda_version: Some(cuda),
            ..
        } => Some(*cuda),
        #[cfg(feature = "cuda")]
        _ if crate::device::device_count() > 0 => crate::device::supported_version(),
        _ => None,
    }
}

/// CUDA's libraries, where the driver can serve some and a GPU can be trained on, as far as is known.
#[cfg(feature = "cuda")]
fn libraries(gpus: &Gpus, driver: Option<(u32, u32)>) -> Option<Libraries> {
    let served = driver.filter(|cuda| *cuda >= device::OLDEST_CUDA)?;
    if let Gpus::Found { gpus, .. } = gpus
        && gpus.iter().all(device::InstalledGpu::is_too_old)
        && !gpus.is_empty()
    {
        return None;
    }
    Some(device::load_libraries(served).clone())
}

#[cfg(not(feature = "cuda"))]
fn libraries(_: &Gpus, _: Option<(u32, u32)>) -> Option<Libraries> {
    None
}

fn cores(cpuinfo: &str) -> Option<usize> {
    let is_core = |line: &&str| {
        line.split(':')
            .next()
            .is_some_and(|k| k.trim() == "processor")
    };
    Some(cpuinfo.lines().filter(is_core).count()).filter(|cores| *cores > 0)
}

fn swap(meminfo: &str) -> Option<Swap> {
    Some(Swap {
        total_bytes: kib_field(meminfo, "SwapTotal")?,
        free_bytes: kib_field(meminfo, "SwapFree")?,
    })
}

/// The other processes that hold most memory. Processes that end meanwhile or hide are passed over.
fn holders(root: &Path) -> Vec<Holder> {
    let entries = fs::read_dir(root.join("proc")).into_iter().flatten();
    let mut holders: Vec<Holder> = entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            Some(Holder {
                pid,
                name: name(&status)?,
                // A thread of the kernel has none.
                bytes: kib_field(&status, "VmRSS")?,
            })
        })
        .filter(|holder| holder.pid != std::process::id())
        .collect();
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.bytes));
    holders.truncate(HOLDERS);
    holders
}

fn name(status: &str) -> Option<String> {
    let name = status.lines().next()?.strip_prefix("Name:")?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn nvcc() -> Nvcc {
    let mut command = Command::new("nvcc");
    command.arg("--version").stdin(Stdio::null());
    match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Nvcc::Missing,
        Err(error) => Nvcc::Failed {
            reason: error.to_string(),
        },
        Ok(output) if !output.status.success() => Nvcc::Failed {
            reason: output.status.to_string(),
        },
        Ok(output) => Nvcc::Found {
            version: release(&String::from_utf8_lossy(&output.stdout)),
        },
    }
}

/// `Cuda compilation tools, release 13.0, V13.0.48` -> (13, 0)
fn release(text: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once("release ")?;
    version(rest)
}

/// `13.0, and so on` -> (13, 0)
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_s_release_is_read_from_its_greeting() {
        let text = "nvcc: NVIDIA (R) Cuda compiler driver\n\
                    Cuda compilation tools, release 12.4, V12.4.131\n";
        assert_eq!(release(text), Some((12, 4)));
        for odd in ["", "release ", "release x.y", "release 12"] {
            assert_eq!(release(odd), None, "{odd}");
        }
    }

    #[test]
    fn cores_are_counted_on_every_architecture() {
        assert_eq!(
            cores("processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n"),
            Some(2)
        );
        assert_eq!(cores("Processor\t: ARMv7\n"), None);
        assert_eq!(cores(""), None);
    }

    #[test]
    fn the_largest_holders_come_first_and_odd_entries_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let process = |pid: &str, status: &str| {
            let folder = root.path().join("proc").join(pid);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("status"), status).unwrap();
        };
        process("3", "Name:\tsmall\nVmRSS:\t  10 kB\n");
        process("40", "Name:\tlarge one\nState:\tS\nVmRSS:\t 2000 kB\n");
        process("5", "Name:\tmiddle\nVmRSS:\t 300 kB\n");
        process("6", "Name:\tsecond\nVmRSS:\t 400 kB\n");
        process("2", "Name:\tkthreadd\n");
        process("7", "");
        process("self", "Name:\tmyself\nVmRSS:\t 9000 kB\n");
        let found: Vec<_> = holders(root.path())
            .into_iter()
            .map(|holder| (holder.pid, holder.name, holder.bytes))
            .collect();
        let expected = [
            (40, "large one".into(), 2000 << 10),
            (6, "second".into(), 400 << 10),
            (5, "middle".into(), 300 << 10),
        ];
        assert_eq!(found, expected);
        assert!(holders(&root.path().join("gone")).is_empty());
    }
}
