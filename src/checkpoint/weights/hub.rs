//! The weights that `init_from = "gpt2"` names: a folder, or a download of Hugging Face's tools.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::foreign::{ForeignError, weights_of_others};
use super::model_name::hub_name;
use super::pretrained::{INDEX, PYTORCH, PYTORCH_INDEX};
use crate::checkpoint::{CheckpointError, MODEL, MODEL_CONFIG};
use crate::terms::read_text;

/// The most bytes of an index of shards.
const LARGEST_INDEX: u64 = 64 << 20;

/// The folder with the weights that `name` stands for: a path, or the name of a model (`gpt2`,
/// `gpt2-medium`, `owner/model`) that lies in `hub_cache`.
///
/// # Errors
/// `PretrainedNotFound` lists the folders that were looked at.
pub fn resolve_pretrained(name: &str, hub_cache: &Path) -> Result<PathBuf, CheckpointError> {
    let as_path = PathBuf::from(name);
    let mut looked_at = vec![as_path.clone()];
    if as_path.join(MODEL_CONFIG).is_file() {
        return Ok(as_path);
    }
    for model in [name, &hub_name(name)] {
        let folder = hub_cache.join(format!("models--{}", model.replace('/', "--")));
        if looked_at.contains(&folder) {
            continue;
        }
        if let Some(snapshot) = newest_snapshot(&folder) {
            return Ok(snapshot);
        }
        looked_at.push(folder);
    }
    Err(CheckpointError::PretrainedNotFound {
        name: name.to_owned(),
        looked_at,
    })
}

/// The snapshot of a model's folder in the cache to read: one with weights, else one whose weights are in another
/// format, so that its error can say so.
pub(in crate::checkpoint) fn newest_snapshot(folder: &Path) -> Option<PathBuf> {
    let snapshots = snapshots(folder);
    let readable = snapshots.iter().find(|snapshot| holds_weights(snapshot));
    let any = || {
        let model = |snapshot: &&PathBuf| snapshot.join(MODEL_CONFIG).is_file();
        let mut models = snapshots.iter().filter(model);
        models.find(|snapshot| holds_weights_of_others(snapshot))
    };
    readable.or_else(any).cloned()
}

fn holds_weights_of_others(snapshot: &Path) -> bool {
    matches!(
        weights_of_others(snapshot),
        Some(ForeignError::Format { .. })
    )
}

/// The snapshot that `main` points to, then any others in the order of their hashes.
fn snapshots(folder: &Path) -> Vec<PathBuf> {
    let snapshots = folder.join("snapshots");
    let main = fs::read_to_string(folder.join("refs/main")).unwrap_or_default();
    let all = fs::read_dir(&snapshots).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = all.map(|entry| entry.path()).collect();
    found.sort_by_key(|path| (*path != snapshots.join(main.trim()), path.clone()));
    found
}

/// A download of the tokenizer alone leaves a snapshot without weights.
fn holds_weights(snapshot: &Path) -> bool {
    let has = |name| snapshot.join(name).is_file();
    let has_shards = |index| holds_shards(snapshot, index);
    has(MODEL_CONFIG)
        && (has(MODEL) || has(PYTORCH) || has_shards(INDEX) || has_shards(PYTORCH_INDEX))
}

/// Whether every file that an index lists is there: a download that was stopped leaves some of them.
fn holds_shards(snapshot: &Path, index: &str) -> bool {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = read_text("read", &snapshot.join(index), LARGEST_INDEX);
    let index = text.ok().and_then(|text| serde_json::from_str(&text).ok());
    index.is_some_and(|index: Index| {
        let mut shards = index.weight_map.values();
        shards.all(|shard| snapshot.join(shard).is_file())
    })
}
