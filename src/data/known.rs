//! The datasets that `taper prepare` makes by name, with public figures of each. They are approximate, and only shown.
//!
//! Sources: nanoGPT's `data/openwebtext/readme.md`; the dataset cards of FineWeb, FineWeb-Edu and TinyStories on the hub.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::device::DeviceProfile;
use crate::terms::shell_word;
use crate::units::{bytes, span};

/// Tokens that `prepare` encodes with GPT-2's BPE per second and core: a round figure for planning. On a core of an AMD EPYC
/// it was 9 to 13 million for code and its documentation, and 8 to 9 million for a mix of all writings
/// (`scripts/bench_tokenizer`); a disk, and a core that is shared, take their part.
const TOKENS_PER_SECOND_AND_CORE: f64 = 4e6;

/// A dataset that `taper prepare NAME` makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnownDataset {
    pub name: &'static str,
    pub origin: KnownOrigin,
    /// Bytes that are downloaded.
    pub download_bytes: u64,
    /// Tokens of both splits.
    pub tokens: u64,
}

/// The source of a known dataset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KnownOrigin {
    /// One public text.
    Text,
    /// The split `train` of a dataset on the hub.
    Hub {
        repository: &'static str,
        subset: Option<&'static str>,
        documents: u64,
    },
}

/// Every known dataset.
pub const KNOWN: [KnownDataset; 6] = [
    KnownDataset {
        name: "openwebtext",
        origin: KnownOrigin::Hub {
            repository: "Skylion007/openwebtext",
            subset: None,
            documents: 8_013_769,
        },
        download_bytes: 24_200_000_000,
        tokens: 9_040_017_095,
    },
    KnownDataset {
        name: "fineweb",
        origin: KnownOrigin::Hub {
            repository: "HuggingFaceFW/fineweb",
            subset: Some("sample-10BT"),
            documents: 14_900_000,
        },
        download_bytes: 28_000_000_000,
        tokens: 10_300_000_000,
    },
    KnownDataset {
        name: "fineweb-edu",
        origin: KnownOrigin::Hub {
            repository: "HuggingFaceFW/fineweb-edu",
            subset: Some("sample-10BT"),
            documents: 9_700_000,
        },
        download_bytes: 28_000_000_000,
        tokens: 9_900_000_000,
    },
    KnownDataset {
        name: "tinystories",
        origin: KnownOrigin::Hub {
            repository: "roneneldan/TinyStories",
            subset: None,
            documents: 2_100_000,
        },
        download_bytes: 1_000_000_000,
        tokens: 470_000_000,
    },
    KnownDataset {
        name: "shakespeare",
        origin: KnownOrigin::Text,
        download_bytes: 1_115_394,
        tokens: 338_025,
    },
    KnownDataset {
        name: "shakespeare_char",
        origin: KnownOrigin::Text,
        download_bytes: 1_115_394,
        tokens: 1_115_394,
    },
];

impl KnownDataset {
    pub fn named(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.name == name)
    }

    /// Bytes of `train.bin` and `val.bin`, of u16 tokens.
    pub fn result_bytes(&self) -> u64 {
        2 * self.tokens
    }

    /// A guess at the time that encoding takes on so many cores.
    fn time(&self, cores: usize) -> Duration {
        Duration::from_secs_f64(
            self.tokens as f64 / TOKENS_PER_SECOND_AND_CORE / cores.max(1) as f64,
        )
    }

    /// The folder that `taper prepare` writes to by default.
    pub fn default_folder(&self) -> PathBuf {
        Path::new("data").join(self.name)
    }

    /// The command that makes the dataset in `folder`, and what it takes on so many cores.
    fn making(&self, folder: &Path, cores: usize) -> String {
        let mut text = format!("run `taper prepare {}", self.name);
        if folder != self.default_folder() {
            let _ = write!(text, " --out {}", shell_word(folder));
        }
        let (download, room) = (bytes(self.download_bytes), bytes(self.result_bytes()));
        let _ = match self.origin {
            KnownOrigin::Text => write!(text, "`, which downloads {download}"),
            KnownOrigin::Hub { documents, .. } => write!(
                text,
                "`, which downloads about {download} ({:.1} million documents) into the hub's cache and makes {room} of \
                 tokens; encoding them takes about {} on {cores} {} (an estimate; the download comes on top)",
                documents as f64 / 1e6,
                span(self.time(cores)),
                if cores == 1 { "core" } else { "cores" }
            ),
        };
        text
    }
}

/// The way to the data when `missing`, a token file of `dataset`, is not there: the command that makes it, and what else
/// is there.
pub(super) fn make_dataset(dataset: &str, missing: &Path) -> String {
    let folder = missing.parent().unwrap_or(Path::new("."));
    let is_default = folder.ends_with(dataset);
    let known = KnownDataset::named(dataset).filter(|_| is_default);
    let mut text = match known {
        Some(known) => known.making(folder, DeviceProfile::cpu().cores().unwrap_or(1)),
        None if is_default => format!(
            "run `taper prepare FILES... --out {}`, or set `data.dataset` to a folder below `data.data_dir`",
            shell_word(folder)
        ),
        None => "check the path, or leave it out to use `data.data_dir` and `data.dataset`".into(),
    };
    let there = match folder.parent() {
        Some(data_dir) if is_default => prepared_in(data_dir),
        _ => Vec::new(),
    };
    if !there.is_empty() {
        let _ = write!(
            text,
            "\n  prepared already: `--set data.dataset=NAME` with {}",
            there.join(", ")
        );
    }
    text + "\n  without any data: `taper train --config quickstart.toml`"
}

/// Datasets in a folder, in backticks; the first few of many.
fn prepared_in(data_dir: &Path) -> Vec<String> {
    const MOST: usize = 5;
    let entries = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    let is_prepared = |path: &PathBuf| {
        ["train.bin", "val.bin"]
            .iter()
            .all(|name| path.join(name).is_file())
    };
    let prepared = entries.map(|entry| entry.path()).filter(is_prepared);
    let mut names: Vec<String> = prepared
        .filter_map(|path| Some(format!("`{}`", path.file_name()?.display())))
        .collect();
    names.sort();
    if names.len() > MOST {
        let more = names.len() - MOST;
        names.truncate(MOST);
        names.push(format!("{more} more"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_for_a_known_dataset_has_its_command_and_what_it_takes() {
        let known = KnownDataset::named("openwebtext").unwrap();
        assert_eq!(
            known.making(Path::new("data/openwebtext"), 8),
            "run `taper prepare openwebtext`, which downloads about 22.54 GiB (8.0 million documents) into the hub's cache \
             and makes 16.84 GiB of tokens; encoding them takes about 4m 43s on 8 cores (an estimate; the download comes \
             on top)"
        );
        let known = KnownDataset::named("shakespeare").unwrap();
        assert_eq!(
            known.making(Path::new("my data/x"), 1),
            "run `taper prepare shakespeare --out 'my data/x'`, which downloads 1.1 MiB"
        );
    }

    #[test]
    fn a_missing_dataset_is_answered_with_those_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a", "half"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("train.bin"), "").unwrap();
        }
        for name in ["b", "a"] {
            std::fs::write(folder.path().join(name).join("val.bin"), "").unwrap();
        }
        let hint = make_dataset("mine", &folder.path().join("mine/train.bin"));
        assert!(
            hint.contains("data.dataset=NAME` with `a`, `b`\n"),
            "{hint}"
        );
        assert!(hint.contains("quickstart.toml"), "{hint}");
        // A file that is named by its path is no dataset of the folder.
        let hint = make_dataset("openwebtext", &folder.path().join("other.bin"));
        assert!(
            hint.contains("check the path") && !hint.contains("taper prepare"),
            "{hint}"
        );
    }
}
