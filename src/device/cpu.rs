//! The CPU of this machine: its name, cores and vector extensions, and the memory that the kernel and
//! the control groups leave to this process.

use std::fs;
use std::path::Path;

use super::{Amx, Avx512Bf16, Cpu, DeviceProfile, Hardware, mappable_bytes, return_freed_memory};
use crate::terms::VectorExtension;

const KIB: u64 = 1024;

impl DeviceProfile {
    /// Probes the CPU of this machine, and what this process holds without what was freed. Takes well under a millisecond.
    pub fn cpu() -> Self {
        return_freed_memory();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = HostMemory::probe(Path::new("/"));
        Self {
            name: model_name(&cpuinfo).unwrap_or_else(|| "CPU".into()),
            total_bytes: memory.total_bytes,
            available_bytes: memory.available_bytes,
            hardware: Hardware::Cpu(Cpu {
                cores: std::thread::available_parallelism().ok().map(usize::from),
                vector_extensions: vector_extensions(),
                process_bytes: resident_bytes(),
                mappable_bytes: mappable_bytes(),
            }),
        }
    }
}

/// Memory that this process holds in RAM now (VmRSS), in bytes; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    kib_field(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS")
}

/// The most memory this process has held in RAM so far (VmHWM), in bytes.
pub fn peak_resident_bytes() -> Option<u64> {
    kib_field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

/// Lets [`peak_resident_bytes`] begin anew from what is held now (proc(5), `clear_refs`). Where the system does not, the
/// peak stays that of the process.
pub fn forget_peak_resident_bytes() {
    const PEAK: &str = "5";
    let _ = fs::write("/proc/self/clear_refs", PEAK);
}

/// The first `model name` of a `/proc/cpuinfo`; ARM kernels give none.
fn model_name(cpuinfo: &str) -> Option<String> {
    let value = field(cpuinfo, "model name")?;
    let words: Vec<&str> = value.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Extensions that this process may use. Those for bf16 need the proof that GEMMs take, so that a plan never counts on
/// an extension that GEMMs cannot use.
fn vector_extensions() -> Vec<VectorExtension> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            found.push(VectorExtension::Avx2);
        }
        if is_x86_feature_detected!("avx512f") {
            found.push(VectorExtension::Avx512);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        found.push(VectorExtension::Neon);
    }
    if Avx512Bf16::probe().is_some() {
        found.push(VectorExtension::Avx512Bf16);
    }
    if Amx::probe().is_some() {
        found.push(VectorExtension::AmxBf16);
    }
    found
}

/// Memory of the host, as far as this process may use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct HostMemory {
    total_bytes: Option<u64>,
    available_bytes: Option<u64>,
}

impl HostMemory {
    /// Reads the files of Linux below `root` ("/" outside of tests).
    fn probe(root: &Path) -> Self {
        let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
        let cgroups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mut memory = Self {
            total_bytes: kib_field(&meminfo, "MemTotal"),
            available_bytes: kib_field(&meminfo, "MemAvailable"),
        };
        for (version, group) in memory_cgroups(&cgroups) {
            memory.apply_limits(root, version, group);
        }
        memory
    }

    /// Lowers both figures to what `group` and each group above it allow: a limit anywhere on the
    /// way up binds. Inside a container the group's path may not be visible, only the mount's root.
    fn apply_limits(&mut self, root: &Path, version: CgroupVersion, group: &str) {
        let mount = root.join(version.mount());
        for ancestor in Path::new(group.trim_start_matches('/')).ancestors() {
            let folder = mount.join(ancestor);
            let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
            let Some(limit) = read(version.limit_file()).and_then(|text| bytes(&text)) else {
                continue;
            };
            let used = read(version.usage_file()).and_then(|text| bytes(&text));
            let cache = read("memory.stat").and_then(|text| word_field(&text, version.cache_key()));
            // Inactive file cache counts as used, but the kernel gives it back before it kills.
            let held = used.unwrap_or(0).saturating_sub(cache.unwrap_or(0));
            // "No limit" is a huge number in version 1: `min` with the machine's own ignores it.
            self.total_bytes = self.total_bytes.map(|total| total.min(limit));
            self.available_bytes = self
                .available_bytes
                .map(|available| available.min(limit.saturating_sub(held)));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CgroupVersion {
    V1,
    V2,
}

impl CgroupVersion {
    fn mount(self) -> &'static str {
        match self {
            Self::V1 => "sys/fs/cgroup/memory",
            Self::V2 => "sys/fs/cgroup",
        }
    }

    fn limit_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.limit_in_bytes",
            Self::V2 => "memory.max",
        }
    }

    fn usage_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.usage_in_bytes",
            Self::V2 => "memory.current",
        }
    }

    fn cache_key(self) -> &'static str {
        match self {
            Self::V1 => "total_inactive_file",
            Self::V2 => "inactive_file",
        }
    }
}

/// The groups of a `/proc/self/cgroup` that can limit memory: version 2's only group (`0::PATH`)
/// and version 1's memory group (`N:memory:PATH`). Hybrid systems list both.
fn memory_cgroups(text: &str) -> Vec<(CgroupVersion, &str)> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            if controllers.is_empty() {
                return Some((CgroupVersion::V2, path));
            }
            let memory = controllers.split(',').any(|name| name == "memory");
            memory.then_some((CgroupVersion::V1, path))
        })
        .collect()
}

/// The number of bytes in a file that holds one; `None` for `max`, version 2's word for no limit.
fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of the first `name : value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// A `name: 123 kB` line, in bytes. The kernel's kB are KiB.
pub(crate) fn kib_field(text: &str, name: &str) -> Option<u64> {
    let number = field(text, name)?.strip_suffix("kB")?.trim();
    number.parse::<u64>().ok()?.checked_mul(KIB)
}

/// A `name 123` line.
fn word_field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       24684096 kB\nMemFree:        1732680 kB\n\
                           MemAvailable:   16384000 kB\nBuffers:             512 kB\n";

    /// Writes files below a fresh root: a made-up Linux.
    fn linux(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn memory_of(files: &[(&str, &str)]) -> (Option<u64>, Option<u64>) {
        let memory = HostMemory::probe(linux(files).path());
        (memory.total_bytes, memory.available_bytes)
    }

    #[test]
    fn the_processor_is_named_as_its_vendor_writes_it() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 17\n\
                       model name\t: AMD EPYC 9R14  96-Core Processor \nflags\t\t: fpu\n";
        let name = model_name(cpuinfo);
        assert_eq!(name.as_deref(), Some("AMD EPYC 9R14 96-Core Processor"));
        assert_eq!(model_name("processor\t: 0\nBogoMIPS\t: 50.00\n"), None);
        assert_eq!(model_name("model name\t: \n"), None);
    }

    #[test]
    fn extensions_are_listed_narrowest_first() {
        let found = vector_extensions();
        assert!(found.is_sorted(), "{found:?}");
    }

    #[test]
    fn without_a_cgroup_limit_the_machine_s_own_memory_counts() {
        let expected = (Some(24_684_096 * KIB), Some(16_384_000 * KIB));
        assert_eq!(memory_of(&[("proc/meminfo", MEMINFO)]), expected);
        let unlimited = memory_of(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/user.slice\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
            ("sys/fs/cgroup/user.slice/memory.current", "1000\n"),
        ]);
        assert_eq!(unlimited, expected);
    }

    #[test]
    fn a_version_2_limit_on_a_parent_group_binds() {
        let (total, available) = memory_of(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/job/step\n"),
            ("sys/fs/cgroup/job/step/memory.max", "max\n"),
            ("sys/fs/cgroup/job/memory.max", "1000000\n"),
            ("sys/fs/cgroup/job/memory.current", "700000\n"),
            (
                "sys/fs/cgroup/job/memory.stat",
                "active_file 9\ninactive_file 100000\n",
            ),
        ]);
        assert_eq!((total, available), (Some(1_000_000), Some(400_000)));
    }

    #[test]
    fn a_version_1_limit_is_found_at_the_root_of_a_container_s_mount() {
        let (total, available) = memory_of(&[
            ("proc/meminfo", MEMINFO),
            (
                "proc/self/cgroup",
                "4:cpu,memory:/docker/abc\n1:cpuset:/docker/abc\n0::/\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "500000\n"),
            (
                "sys/fs/cgroup/memory/memory.stat",
                "inactive_file 1\ntotal_inactive_file 50000\n",
            ),
        ]);
        assert_eq!((total, available), (Some(2_000_000), Some(1_550_000)));
    }

    #[test]
    fn odd_files_mean_less_knowledge_never_a_panic() {
        assert_eq!(memory_of(&[]), (None, None));
        let nonsense = memory_of(&[
            ("proc/meminfo", "MemTotal: many kB\nMemAvailable 12\n:::\n"),
            ("proc/self/cgroup", "::\n0\n\n7:memory\n0::/../..\n"),
            ("sys/fs/cgroup/memory.max", "-3\n"),
        ]);
        assert_eq!(nonsense, (None, None));
    }

    #[test]
    fn this_machine_can_be_probed() {
        let profile = DeviceProfile::cpu();
        assert!(!profile.name.is_empty());
        assert!(profile.total_bytes >= profile.available_bytes);
        let now = resident_bytes();
        assert!(peak_resident_bytes() >= now);
    }
}
