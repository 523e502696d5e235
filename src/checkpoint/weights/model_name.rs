//! Names of models: which of them the hub may have, and the way on where one stands for nothing.

use std::path::Path;

use super::foreign::{ForeignFormat, format_of};
use crate::hub::Repository;

/// Whether `name` may be that of a model on the hub: `owner/model`, or one of the first models, which have no owner. A
/// file's name is none.
pub(in crate::checkpoint) fn may_be_on_the_hub(name: &str) -> bool {
    let is_file = format_of(Path::new(name)) != ForeignFormat::Unknown
        || [".json", ".toml", ".txt", ".py"]
            .iter()
            .any(|end| name.ends_with(end));
    !is_file && (Repository::is_name(name) || OPENAI_MODELS.contains(&name))
}

/// Whether a folder is there that `name` would be in.
pub(in crate::checkpoint) fn is_in_a_folder(name: &str) -> bool {
    let parent = Path::new(name).parent();
    parent.is_some_and(|parent| parent != Path::new("") && parent.is_dir())
}

/// OpenAI's models. The hub keeps them under `openai-community`.
const OPENAI_MODELS: [&str; 4] = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"];

/// The name on the hub: `openai-community/gpt2`, with OpenAI's own weights, for `gpt2`.
pub(in crate::checkpoint) fn hub_name(name: &str) -> String {
    if name.contains('/') {
        name.to_owned()
    } else {
        format!("openai-community/{name}")
    }
}

/// The way to weights under a name that stands for none.
pub(in crate::checkpoint) fn where_weights_are(name: &str) -> String {
    if is_file_of_weights(Path::new(name)) {
        return "check the path; taper reads nanoGPT's `ckpt.pt`, models of llm.c, and folders with `config.json` and \
                `model.safetensors` or `pytorch_model.bin`"
            .into();
    }
    if is_in_a_folder(name) {
        return "check the path: its first part is a folder here, so that it is taken for no name of the hub".into();
    }
    if may_be_on_the_hub(name) {
        return format!(
            "`taper train`, `sample` and `convert` download it, as does `hf download {} config.json model.safetensors`; or \
             name a folder that holds both files",
            hub_name(name)
        );
    }
    "name a run's folder, a checkpoint, a folder with `config.json` and `model.safetensors`, or a model of the hub as \
     `owner/model`"
        .into()
}

fn is_file_of_weights(path: &Path) -> bool {
    format_of(path) != ForeignFormat::Unknown
}
