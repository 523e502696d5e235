//! GPUs of this machine, interpreted from a reading of the driver. A pure function of that reading.

use serde::Serialize;

use super::capability::{cores_per_sm, has_bf16, has_tensor_cores, shared_memory_per_block_bytes};
use super::{Cuda, DeviceProfile, Hardware, has_kernels, named};

/// The GPUs that NVIDIA's management library (NVML) lists.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Gpus {
    /// The library is not installed: there is no NVIDIA driver.
    NoLibrary,
    /// The library is there but does not work.
    Failed { reason: String },
    /// The library works; there may still be no GPU.
    Found {
        driver_version: Option<String>,
        /// The newest CUDA version the driver supports.
        cuda_version: Option<(u32, u32)>,
        gpus: Vec<InstalledGpu>,
        /// Reasons, one for each GPU that could not be read.
        unreadable: Vec<String>,
    },
}

/// A GPU that is in this machine, as NVML or the CUDA driver describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstalledGpu {
    pub profile: DeviceProfile,
    /// Processes that hold its memory, the largest first.
    pub processes: Vec<GpuProcess>,
    /// Named card whose cache and rates, scaled by the number of SMs, stand in for a card that is not in the table.
    pub estimated_from: Option<&'static str>,
}

impl InstalledGpu {
    /// (major, minor)
    pub fn compute_capability(&self) -> Option<(u32, u32)> {
        match &self.profile.hardware {
            Hardware::Cuda(cuda) => Some(cuda.compute_capability),
            Hardware::Cpu(_) => None,
        }
    }

    /// True below the oldest compute capability that has kernels.
    pub fn is_too_old(&self) -> bool {
        self.compute_capability()
            .is_some_and(|has| !has_kernels(has))
    }
}

/// A process that holds memory of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuProcess {
    pub pid: u32,
    /// Absent for processes outside of this container, or of other users.
    pub name: Option<String>,
    pub bytes: Option<u64>,
}

/// The driver's answers about one GPU.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub name: String,
    pub compute_capability: (u32, u32),
    /// Memory of the card, less what the driver keeps for itself.
    pub total_bytes: Option<u64>,
    pub free_bytes: Option<u64>,
    /// Cores for fp32 arithmetic.
    pub cores: Option<u32>,
    pub bus_bits: Option<u32>,
    pub memory_mhz: Option<u32>,
    pub processes: Vec<GpuProcess>,
}

impl Reading {
    pub fn interpret(
        self,
        driver_version: Option<String>,
        cuda_version: Option<(u32, u32)>,
    ) -> InstalledGpu {
        let sms = self
            .cores
            .map(|cores| cores / cores_per_sm(self.compute_capability))
            .filter(|sms| *sms > 0);
        let known = named::find(&self.name).filter(|card| self.is(card));
        let (cuda, estimated_from) = match known {
            Some(card) => (card.cuda(), None),
            None => {
                let relative = self.relative(sms);
                (self.estimate(relative, sms), Some(relative.name))
            }
        };
        InstalledGpu {
            profile: DeviceProfile {
                name: self.name,
                total_bytes: self.total_bytes,
                available_bytes: self.free_bytes,
                hardware: Hardware::Cuda(Cuda {
                    sm_count: sms.unwrap_or(cuda.sm_count),
                    driver_version,
                    cuda_version,
                    ..cuda
                }),
            },
            processes: merge(self.processes),
            estimated_from,
        }
    }

    /// True if the reading is of `card`. The name alone does not tell: there are RTX 3080s of 10 GB and of 12 GB.
    fn is(&self, card: &named::Card) -> bool {
        let expected = card.memory.bytes();
        let near = |bytes: u64| bytes.abs_diff(expected) < expected / 10;
        card.compute_capability == self.compute_capability && self.total_bytes.is_none_or(near)
    }

    fn relative(&self, sms: Option<u32>) -> &'static named::Card {
        let geforce = self.name.contains("GeForce");
        named::relative(self.compute_capability, geforce, sms)
    }

    fn estimate(&self, relative: &named::Card, sms: Option<u32>) -> Cuda {
        let cuda = relative.cuda();
        let scale = sms.map_or(1.0, |sms| f64::from(sms) / f64::from(cuda.sm_count));
        let peak_fp32 = cuda.peak_fp32 * scale;
        let peak_fp16 = if has_tensor_cores(self.compute_capability) {
            cuda.peak_fp16 * scale
        } else {
            peak_fp32
        };
        Cuda {
            holders: Vec::new(),
            compute_capability: self.compute_capability,
            shared_memory_per_block_bytes: shared_memory_per_block_bytes(self.compute_capability),
            memory_bytes_per_second: self
                .bandwidth()
                .unwrap_or(cuda.memory_bytes_per_second * scale),
            peak_bf16: has_bf16(self.compute_capability).then_some(peak_fp16),
            peak_fp16,
            peak_fp32,
            ..cuda
        }
    }

    /// Bytes per second: two transfers per clock over the whole bus.
    fn bandwidth(&self) -> Option<f64> {
        let bytes_per_clock = 2.0 * f64::from(self.bus_bits?) / 8.0;
        let bandwidth = bytes_per_clock * f64::from(self.memory_mhz?) * 1e6;
        (bandwidth > 0.0).then_some(bandwidth)
    }
}

/// Merges the entries of each process, the largest first. NVML lists a process that both computes and draws twice,
/// with the same memory.
pub(super) fn merge(processes: Vec<GpuProcess>) -> Vec<GpuProcess> {
    let mut merged: Vec<GpuProcess> = Vec::with_capacity(processes.len());
    for process in processes {
        match merged.iter_mut().find(|other| other.pid == process.pid) {
            Some(other) => {
                other.bytes = other.bytes.max(process.bytes);
                other.name = other.name.take().or(process.name);
            }
            None => merged.push(process),
        }
    }
    merged.sort_by_key(|process| std::cmp::Reverse(process.bytes));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn rtx3060() -> Reading {
        Reading {
            name: "NVIDIA GeForce RTX 3060".into(),
            compute_capability: (8, 6),
            total_bytes: Some(11_971 * MIB),
            free_bytes: Some(2_744 * MIB),
            cores: Some(3584),
            bus_bits: Some(192),
            memory_mhz: Some(7501),
            processes: Vec::new(),
        }
    }

    fn cuda(gpu: &InstalledGpu) -> &Cuda {
        match &gpu.profile.hardware {
            Hardware::Cuda(cuda) => cuda,
            Hardware::Cpu(_) => panic!("a GPU is no CPU"),
        }
    }

    fn holds(pid: u32, name: Option<&str>, mib: Option<u64>) -> GpuProcess {
        GpuProcess {
            pid,
            name: name.map(str::to_owned),
            bytes: mib.map(|mib| mib * MIB),
        }
    }

    #[test]
    fn a_known_card_has_its_own_figures_and_this_machine_s_memory_and_driver() {
        let gpu = rtx3060().interpret(Some("580.95.05".into()), Some((13, 0)));
        let named = DeviceProfile::named("rtx3060").unwrap();
        let Hardware::Cuda(expected) = named.hardware else {
            panic!("a card is a GPU");
        };
        assert_eq!(gpu.estimated_from, None);
        assert_eq!(gpu.profile.total_bytes, Some(11_971 * MIB));
        assert_eq!(gpu.profile.available_bytes, Some(2_744 * MIB));
        let expected = Cuda {
            driver_version: Some("580.95.05".into()),
            cuda_version: Some((13, 0)),
            ..expected
        };
        assert_eq!(cuda(&gpu), &expected);
    }

    #[test]
    fn another_card_of_the_same_name_is_not_taken_for_it() {
        let reading = Reading {
            name: "NVIDIA GeForce RTX 3080".into(),
            total_bytes: Some(11_900 * MIB),
            cores: Some(8960),
            bus_bits: Some(384),
            memory_mhz: Some(9501),
            ..rtx3060()
        };
        let gpu = reading.interpret(None, None);
        assert_eq!(gpu.estimated_from, Some("NVIDIA GeForce RTX 3080"));
        assert_eq!(cuda(&gpu).sm_count, 70);
        assert_eq!(cuda(&gpu).memory_bytes_per_second, 912.096e9);
        let peak = cuda(&gpu).peak_fp32;
        assert!((peak - 29.8e12 * 70.0 / 68.0).abs() < 1.0, "{peak}");
    }

    #[test]
    fn an_unknown_card_is_estimated_from_its_nearest_relative() {
        let laptop = Reading {
            name: "NVIDIA GeForce RTX 3060 Laptop GPU".into(),
            cores: Some(3840),
            bus_bits: None,
            ..rtx3060()
        };
        let gpu = laptop.interpret(None, None);
        assert_eq!(gpu.estimated_from, Some("NVIDIA GeForce RTX 3060"));
        assert_eq!(cuda(&gpu).sm_count, 30);
        assert_eq!(cuda(&gpu).memory_bytes_per_second, 360e9 * 30.0 / 28.0);

        let workstation = Reading {
            name: "NVIDIA RTX A6000".into(),
            cores: Some(10_752),
            ..rtx3060()
        };
        // Not a GeForce, so with tensor cores at their full rate.
        let gpu = workstation.interpret(None, None);
        assert_eq!(gpu.estimated_from, Some("NVIDIA A10"));
        assert_eq!(cuda(&gpu).peak_bf16, Some(125e12 * 84.0 / 72.0));
    }

    #[test]
    fn a_card_from_before_tensor_cores_has_none() {
        let pascal = Reading {
            name: "NVIDIA GeForce GTX 1080 Ti".into(),
            compute_capability: (6, 1),
            cores: Some(3584),
            ..rtx3060()
        };
        let gpu = pascal.interpret(None, None);
        let cuda = cuda(&gpu);
        assert_eq!((cuda.sm_count, cuda.peak_bf16), (28, None));
        assert_eq!(cuda.peak_fp16, cuda.peak_fp32);
        assert_eq!(cuda.shared_memory_per_block_bytes, 48 << 10);
    }

    #[test]
    fn a_driver_that_tells_little_leaves_gaps() {
        let reading = Reading {
            name: "NVIDIA GB10".into(),
            compute_capability: (12, 1),
            ..Reading::default()
        };
        let gpu = reading.interpret(None, None);
        assert_eq!((gpu.profile.total_bytes, gpu.estimated_from), (None, None));
        assert_eq!(cuda(&gpu).sm_count, 48);
        let future = Reading {
            name: String::new(),
            compute_capability: (99, 9),
            cores: Some(0),
            ..Reading::default()
        };
        assert!(cuda(&future.interpret(None, None)).sm_count > 0);
    }

    #[test]
    fn a_process_is_listed_once_and_the_largest_first() {
        let processes = vec![
            holds(7, None, Some(312)),
            holds(9, Some("python3"), Some(9000)),
            holds(7, Some("Xorg"), Some(300)),
            holds(3, None, None),
        ];
        let reading = Reading {
            processes,
            ..rtx3060()
        };
        let expected = [
            holds(9, Some("python3"), Some(9000)),
            holds(7, Some("Xorg"), Some(312)),
            holds(3, None, None),
        ];
        assert_eq!(reading.interpret(None, None).processes, expected);
    }
}
