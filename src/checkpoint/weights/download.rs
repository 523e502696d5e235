//! The download of a model's weights: the one place where this room reaches the network.

use std::path::{Path, PathBuf};

use super::gpt2_config;
use super::model_name::{hub_name, is_in_a_folder, may_be_on_the_hub};
use super::pretrained::{INDEX, PYTORCH, PYTORCH_INDEX};
use crate::checkpoint::{CheckpointError, FoundWeights, MODEL, MODEL_CONFIG, find_weights};
use crate::hub::{Hub, HubError, Listing, Repository, RepositoryKind, Watch, cache_folder};
use crate::terms::{FileError, read_text};
use crate::units::{bytes, count};

/// Files beside the weights, brought where they are.
const COMPANIONS: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "generation_config.json",
];

/// The most bytes of a `config.json`.
const LARGEST_CONFIG: u64 = 16 << 20;

/// Finds weights as [`find_weights`] does in the user's cache; a model of the hub that is not there is downloaded.
///
/// # Errors
/// `Download`, and those of [`find_weights`].
pub fn find_or_download(name: &str, watch: &dyn Watch) -> Result<FoundWeights, CheckpointError> {
    let not_found = match find_weights(name, &cache_folder()) {
        Err(error @ CheckpointError::PretrainedNotFound { .. }) => error,
        found => return found,
    };
    if !is_downloadable(name) {
        return Err(not_found);
    }
    let download = || {
        let hub = Hub::from_environment()?;
        let model = Repository::new(RepositoryKind::Model, &hub_name(name))?;
        download(&hub, &model, watch)
    };
    let folder = download().map_err(|failure| match failure {
        Failure::Hub(source) => CheckpointError::Download {
            name: name.to_owned(),
            source: Box::new(source),
        },
        Failure::Model(error) => error,
    })?;
    find_weights(&folder.to_string_lossy(), &cache_folder())
}

/// Whether a name is that of a model on the hub and cannot be a misspelt path: `out/ckpt` is one where `out` is a folder.
fn is_downloadable(name: &str) -> bool {
    may_be_on_the_hub(name) && !is_in_a_folder(name) && !Path::new(name).exists()
}

enum Failure {
    Hub(HubError),
    Model(CheckpointError),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Hub(error)
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        Self::Model(error)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::Hub(error.into())
    }
}

/// Downloads a GPT-2 and returns its folder. Its config comes first: another model is refused before its weights come.
fn download(hub: &Hub, model: &Repository, watch: &dyn Watch) -> Result<PathBuf, Failure> {
    let listing = hub.revision(model, "main", watch)?;
    let weights = weight_files(model, &listing)?;
    let is_companion = |path: &&String| COMPANIONS.contains(&path.as_str());
    let companions = listing.files.iter().filter(is_companion).cloned();
    let config = vec![MODEL_CONFIG.to_owned()];
    let all: Vec<String> = config
        .iter()
        .cloned()
        .chain(companions)
        .chain(weights)
        .collect();
    let all = hub.select(model, &listing.commit, &all, watch)?;
    watch.note(&format!(
        "downloading the {model}: {} in {}, to `{}`",
        bytes(hub.missing_bytes(&all)),
        match all.missing().count() {
            1 => "1 file".into(),
            files => format!("{} files", count(files as u64)),
        },
        hub.cache().display()
    ));
    let config = hub.select(model, &listing.commit, &config, watch)?;
    let config = hub.download(&config, watch)?;
    let config = config.into_iter().next().ok_or_else(|| HubError::NoFile {
        repository: model.clone(),
        file: MODEL_CONFIG.into(),
    })?;
    let text = read_text("read", &config.path, LARGEST_CONFIG)?;
    gpt2_config::parse_config(&config.path, &text)?;
    hub.download(&all, watch)?;
    Ok(config.path.parent().unwrap_or(Path::new("")).to_owned())
}

/// Names of the files with the weights: safetensors, else PyTorch's; one file or several with their index.
fn weight_files(model: &Repository, listing: &Listing) -> Result<Vec<String>, CheckpointError> {
    let files = &listing.files;
    let has = |name: &str| files.iter().any(|file| file == name);
    let shards = |index: &str, start: &str, end: &str| {
        let is_shard = |file: &&String| {
            *file == index
                || file.starts_with(start) && file.contains("-of-") && file.ends_with(end)
        };
        files.iter().filter(is_shard).cloned().collect()
    };
    let weights = if has(MODEL) {
        vec![MODEL.to_owned()]
    } else if has(INDEX) {
        shards(INDEX, "model-", ".safetensors")
    } else if has(PYTORCH) {
        vec![PYTORCH.to_owned()]
    } else if has(PYTORCH_INDEX) {
        shards(PYTORCH_INDEX, "pytorch_model-", ".bin")
    } else {
        Vec::new()
    };
    if weights.is_empty() || !has(MODEL_CONFIG) {
        return Err(CheckpointError::NoModel {
            id: model.id().to_owned(),
            lacks: if has(MODEL_CONFIG) {
                MODEL
            } else {
                MODEL_CONFIG
            },
        });
    }
    Ok(weights)
}
