//! The search for runs below a folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::{METRICS, Run, RunError};

/// Levels below the folder where runs are looked for.
const DEPTH: usize = 4;

/// Runs below a folder.
#[derive(Debug, Default)]
pub struct FoundRuns {
    /// In the order of their paths.
    pub runs: Vec<Run>,
    /// Folders with a `metrics.jsonl` that is no run's, or that cannot be read.
    pub unread: Vec<(PathBuf, RunError)>,
}

/// Reads every run in `folder` and in the folders below it, four levels deep. Hidden folders and links are passed over,
/// and a run's own folder is not looked into.
pub fn find(folder: &Path) -> FoundRuns {
    let mut folders = Vec::new();
    collect(folder, DEPTH, &mut folders);
    folders.sort();
    let mut found = FoundRuns::default();
    for folder in folders {
        match Run::open(&folder) {
            Ok(run) => found.runs.push(run),
            Err(RunError::Empty { .. }) => {}
            Err(error) => found.unread.push((folder, error)),
        }
    }
    found
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if folder.join(METRICS).is_file() {
        found.push(folder.to_owned());
        return;
    }
    if depth == 0 {
        return;
    }
    // A folder that may not be read holds nothing that can be shown.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && !is_hidden {
            collect(&entry.path(), depth - 1, found);
        }
    }
}
