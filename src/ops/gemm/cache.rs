//! What tuning found, kept between runs.
//!
//! One file per device below the user's cache folder, replaced as a whole by a rename, so that a reader
//! never sees half of one. Its header says what the timings depend on; entries under another header
//! are not used. Nothing that happens to the file stops a run.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// Which candidates compute a problem, by name: the first one, and after its failure the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub problem: Problem,
    pub candidates: Vec<String>,
}

/// The outcome of tuning, as caches and checkpoints store it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Table(pub Vec<Entry>);

impl Table {
    pub fn get(&self, problem: &Problem) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.problem == *problem)
    }

    /// Adds an entry, in the place of one for the same problem.
    pub fn insert(&mut self, entry: Entry) {
        let same = |old: &&mut Entry| old.problem == entry.problem;
        match self.0.iter_mut().find(same) {
            Some(old) => *old = entry,
            None => self.0.push(entry),
        }
    }
}

/// What timings depend on besides the problem, by name: the device, its driver, versions.
pub type Header = BTreeMap<String, String>;

#[derive(Serialize, Deserialize)]
struct Content {
    header: Header,
    entries: Table,
}

/// The file of one device.
#[derive(Clone, Debug)]
pub struct Cache {
    path: PathBuf,
    header: Header,
}

/// The user's folder for taper's caches: `$XDG_CACHE_HOME/taper`, or `~/.cache/taper`.
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
    /// The file for `device` in `folder`, whose entries count under `header` only.
    pub fn new(folder: &Path, device: &str, header: Header) -> Self {
        let plain = |c: char| match c.is_ascii_alphanumeric() {
            true => c.to_ascii_lowercase(),
            false => '-',
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

    /// The entries, and why there are none where the file is there and not used.
    pub fn load(&self) -> (Table, Option<String>) {
        let unused = |because: String| (Table::default(), Some(because));
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return (Table::default(), None);
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
            None => (content.entries, None),
            Some(what) => unused(format!(
                "`{}` is of other timings: {what}",
                self.path.display()
            )),
        }
    }

    /// The first field that is not as it is now.
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

    /// Adds `entries` to those that are there, which another process may have written meanwhile.
    ///
    /// # Errors
    /// When the folder or the file cannot be written; what was there still is.
    pub fn store(&self, entries: &Table) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let (mut all, _) = self.load();
        for entry in &entries.0 {
            all.insert(entry.clone());
        }
        let content = Content {
            header: self.header.clone(),
            entries: all,
        };
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, &content)?;
        file.write_all(b"\n")?;
        file.persist(&self.path)?;
        Ok(())
    }
}
