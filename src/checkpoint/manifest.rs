//! `MANIFEST.json`: the marker that a checkpoint is complete, with the size and checksum of each file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Damage, Flaw, MANIFEST, REQUIRED};

/// Version of the format; raised when an older taper could no longer read the files of a newer one.
const FORMAT: u32 = 1;

/// Buffer for hashing: large enough that a system call per chunk costs nothing, small enough to stay in L2.
const CHUNK_BYTES: usize = 256 * 1024;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    taper_checkpoint: u32,
    files: BTreeMap<String, FileDigest>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FileDigest {
    size: u64,
    sha256: String,
}

impl Manifest {
    pub(super) fn new(files: BTreeMap<String, FileDigest>) -> Self {
        Self {
            taper_checkpoint: FORMAT,
            files,
        }
    }

    /// The one spelling of this manifest; any other is damage.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads the manifest of `folder` and compares the sizes of its files, without reading them.
    pub(super) fn read(folder: &Path) -> Result<Self, Damage> {
        let text = std::fs::read_to_string(folder.join(MANIFEST)).map_err(unreadable(MANIFEST))?;
        let manifest = Self::parse(&text).map_err(|flaw| Damage::new(MANIFEST, flaw))?;
        for (name, expected) in &manifest.files {
            let found = folder.join(name).metadata().map_err(unreadable(name))?;
            if !found.is_file() {
                let reason = "it is not a file".to_owned();
                return Err(Damage::new(name, Flaw::Unreadable(reason)));
            }
            let (expected, found) = (expected.size, found.len());
            if found != expected {
                return Err(Damage::new(name, Flaw::Size { expected, found }));
            }
        }
        Ok(manifest)
    }

    pub(super) fn lists(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// Does [`Manifest::read`], then compares the checksum of every file. Tells a manifest that is wrong about a whole
    /// file from a file that is damaged.
    pub(super) fn verify(folder: &Path) -> Result<(), Damage> {
        let manifest = Self::read(folder).map_err(|damage| Self::blame(folder, damage))?;
        let names = manifest.files.par_iter().map(|(name, _)| name);
        names.try_for_each(|name| manifest.verify_file(folder, name))
    }

    /// Compares the checksum of one file.
    pub(super) fn verify_file(&self, folder: &Path, name: &str) -> Result<(), Damage> {
        let found = digest(&folder.join(name)).map_err(unreadable(name))?;
        let expected = self.files.get(name).map(|file| &file.sha256[..]);
        match expected {
            Some(expected) if found == expected => Ok(()),
            Some(expected) if is_nearly(&found, expected) => Err(wrong_about(name)),
            _ => Err(Damage::new(name, Flaw::Checksum)),
        }
    }

    /// Finds out whose fault a missing file or another size is: the manifest's if the folder has a file with the recorded
    /// checksum.
    fn blame(folder: &Path, damage: Damage) -> Damage {
        let of = |path: &Path| digest(path).ok();
        let text = std::fs::read_to_string(folder.join(MANIFEST)).unwrap_or_default();
        let Ok(manifest) = Self::parse(&text) else {
            return damage;
        };
        let recorded = manifest.files.get(&damage.file);
        let recorded = recorded.map(|file| file.sha256.clone());
        let is_whole = match damage.flaw {
            Flaw::Size { .. } => of(&folder.join(&damage.file)) == recorded,
            Flaw::Missing => {
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                let unlisted =
                    entries.filter(|entry| !manifest.lists(&entry.file_name().to_string_lossy()));
                unlisted
                    .map(|entry| of(&entry.path()))
                    .any(|found| found.is_some() && found == recorded)
            }
            _ => false,
        };
        if is_whole {
            wrong_about(&damage.file)
        } else {
            damage
        }
    }

    fn parse(text: &str) -> Result<Self, Flaw> {
        /// The part that every format has.
        #[derive(Deserialize)]
        struct Marker {
            taper_checkpoint: u32,
        }
        let marker: Marker = serde_json::from_str(text).map_err(json_flaw)?;
        if marker.taper_checkpoint != FORMAT {
            return Err(Flaw::Format {
                supported: FORMAT,
                found: marker.taper_checkpoint,
            });
        }
        let manifest: Self = serde_json::from_str(text).map_err(json_flaw)?;
        if let Some(name) = manifest.files.keys().find(|name| !is_plain(name)) {
            return Err(Flaw::Unreadable(format!("it lists `{name}`")));
        }
        if let Some(name) = REQUIRED.iter().find(|&&r| !manifest.files.contains_key(r)) {
            return Err(Flaw::Unreadable(format!("it does not list `{name}`")));
        }
        if manifest.to_json().map_err(json_flaw)? == text {
            Ok(manifest)
        } else {
            Err(Flaw::Unreadable("it is not as taper writes it".into()))
        }
    }
}

/// Whether two checksums are the same but for a flaw in writing: those of different contents agree in every sixteenth
/// digit, and in half of all only once in 10^22.
fn is_nearly(a: &str, b: &str) -> bool {
    let same = a.bytes().zip(b.bytes()).filter(|(a, b)| a == b).count();
    2 * same > a.len().max(b.len())
}

/// The manifest's record of a file that is whole.
fn wrong_about(file: &str) -> Damage {
    let reason = format!("its record of `{file}` changed, the file did not");
    Damage::new(MANIFEST, Flaw::Unreadable(reason))
}

impl Damage {
    pub(super) fn new(file: &str, flaw: Flaw) -> Self {
        Self {
            file: file.to_owned(),
            flaw,
        }
    }
}

/// Turns an I/O error on a file of a checkpoint into damage, for `map_err`.
pub(super) fn unreadable(file: &str) -> impl FnOnce(io::Error) -> Damage {
    move |error| {
        Damage::new(
            file,
            match error.kind() {
                io::ErrorKind::NotFound => Flaw::Missing,
                _ => Flaw::Unreadable(error.to_string()),
            },
        )
    }
}

pub(super) fn json_flaw(error: serde_json::Error) -> Flaw {
    Flaw::Unreadable(error.to_string())
}

/// A name that cannot lead out of the folder.
pub(super) fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0'])
}

/// A new file that is hashed as it is written.
pub(super) struct HashedFile<'a> {
    file: File,
    hash: Sha256,
    size: u64,
    /// Bytes written of all files together.
    written: &'a AtomicU64,
}

impl<'a> HashedFile<'a> {
    pub(super) fn create(path: &Path, written: &'a AtomicU64) -> io::Result<Self> {
        Ok(Self {
            file: File::create_new(path)?,
            hash: Sha256::new(),
            size: 0,
            written,
        })
    }

    /// Waits until the bytes are on the disk.
    pub(super) fn finish(self) -> io::Result<FileDigest> {
        self.file.sync_all()?;
        Ok(FileDigest {
            size: self.size,
            sha256: hex(&self.hash.finalize()),
        })
    }
}

impl Write for HashedFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(n) => hash.update(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
