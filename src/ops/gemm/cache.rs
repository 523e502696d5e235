//! Results of tuning, kept between runs.
//!
//! Each device has one file below the user's cache folder. A rename replaces it as a whole, so that a reader never sees
//! half of one. Its header says what the timings depend on. Records under another header are not used. Nothing that
//! happens to the file stops a run.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use super::tune::Tuned;

/// Names of the candidates for a problem in the order of use: each takes over after the failure of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub problem: Problem,
    pub candidates: Vec<String>,
}

/// Decisions for all problems, as checkpoints store them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Table(pub Vec<Entry>);

impl Table {
    pub fn get(&self, problem: &Problem) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.problem == *problem)
    }

    /// Adds an entry, or overwrites the one for the same problem.
    pub fn insert(&mut self, entry: Entry) {
        let same = |old: &&mut Entry| old.problem == entry.problem;
        match self.0.iter_mut().find(same) {
            Some(old) => *old = entry,
            None => self.0.push(entry),
        }
    }
}

/// Result of a search for one problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub problem: Problem,
    #[serde(flatten)]
    pub tuned: Tuned<String>,
}

/// Results of searches, one record per problem.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Records(pub Vec<Record>);

impl Records {
    pub fn get(&self, problem: &Problem) -> Option<&Tuned<String>> {
        let mut records = self.0.iter();
        let record = records.find(|record| record.problem == *problem)?;
        Some(&record.tuned)
    }

    /// Whether a search can find every choice: a file can hold anything.
    fn are_whole(&self) -> bool {
        self.0.iter().all(|record| record.tuned.is_found())
    }

    /// Adds a record, or overwrites the one for the same problem.
    pub fn insert(&mut self, record: Record) {
        let same = |old: &&mut Record| old.problem == record.problem;
        match self.0.iter_mut().find(same) {
            Some(old) => *old = record,
            None => self.0.push(record),
        }
    }
}

/// Everything that timings depend on besides the problem, by name: the device, its driver, versions.
pub type Header = BTreeMap<String, String>;

/// Hash of texts, in hexadecimal.
pub fn fingerprint(texts: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        let text = text.as_ref();
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Serialize, Deserialize)]
struct Content {
    header: Header,
    /// Absent in the files of taper 0.1.0.
    #[serde(default)]
    records: Records,
}

/// Cache file of one device.
#[derive(Clone, Debug)]
pub struct Cache {
    path: PathBuf,
    header: Header,
}

/// Folder of taper's caches: `$XDG_CACHE_HOME/taper`, or `~/.cache/taper`.
pub fn cache_folder() -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let given = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .and_then(absolute);
    let home = || {
        env::home_dir()
            .and_then(absolute)
            .map(|home| home.join(".cache"))
    };
    Some(given.or_else(home)?.join("taper"))
}

impl Cache {
    /// Cache file for `device` in `folder`. Its records are used under `header` only.
    pub fn new(folder: &Path, device: &str, header: Header) -> Self {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        };
        let name: String = device.chars().map(plain).collect();
        Self {
            path: folder.join(format!("gemm-{name}.json")),
            header,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Loads the records. Also returns the reason that an existing file is not used.
    pub fn load(&self) -> (Records, Option<String>) {
        let unused = |because: String| (Records::default(), Some(because));
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return (Records::default(), None);
            }
            Err(error) => {
                return unused(format!("`{}` cannot be read: {error}", self.path.display()));
            }
        };
        let content: Content = match serde_json::from_str(&text) {
            Ok(content) => content,
            Err(error) => return unused(format!("`{}` is damaged: {error}", self.path.display())),
        };
        match self.difference(&content.header) {
            None if !content.records.are_whole() => unused(format!(
                "`{}` is damaged: a choice is none that was timed",
                self.path.display()
            )),
            None => (content.records, None),
            Some(what) => unused(format!(
                "`{}` is of other timings: {what}",
                self.path.display()
            )),
        }
    }

    /// First field of a stored header that differs from this run's.
    fn difference(&self, stored: &Header) -> Option<String> {
        let names = self.header.keys().chain(stored.keys());
        let shown = |value: Option<&String>| match value {
            Some(value) => format!("`{value}`"),
            None => "absent".to_owned(),
        };
        names
            .map(|name| (name, stored.get(name), self.header.get(name)))
            .find(|(_, stored, now)| stored != now)
            .map(|(name, stored, now)| {
                format!("{name} was {} and is {} now", shown(stored), shown(now))
            })
    }

    /// Adds a record to those in the file, which another process may have written meanwhile.
    ///
    /// # Errors
    /// When the folder or the file cannot be written; the old file is then still there.
    pub fn store(&self, record: Record) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let (mut records, _) = self.load();
        records.insert(record);
        let content = Content {
            header: self.header.clone(),
            records,
        };
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, &content)?;
        file.write_all(b"\n")?;
        file.persist(&self.path)?;
        Ok(())
    }
}
