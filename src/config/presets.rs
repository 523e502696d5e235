//! The presets of `config/`, compiled in, and the search for the text of `--config`.

use std::path::Path;

use super::Config;
use super::error::{ConfigError, SourceText};
use super::keys;
use super::reader::ConfigReader;
use crate::terms::{expand_home, read_text};

/// Far more than a configuration has.
const LARGEST_FILE_BYTES: u64 = 1 << 20;

/// A configuration that ships in the binary.
#[derive(Debug)]
pub struct Preset {
    /// The file's name without `.toml`.
    pub name: &'static str,
    pub text: &'static str,
}

impl Preset {
    /// The preset in one line: the first comment of its file.
    pub fn description(&self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.trim_start_matches(['#', ' '])
    }

    /// The preset that a value of `--config` means or has the name of.
    pub fn named(source: &str) -> Option<&'static Preset> {
        let stem = Path::new(source).file_stem()?.to_str()?;
        PRESETS.iter().find(|preset| preset.name == stem)
    }

    /// The request in the preset's file.
    ///
    /// # Errors
    /// [`ConfigError`] with every defect of it.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let source = self.source();
        let mut reader = ConfigReader::default();
        reader.read_file(&source);
        reader.resolve()
    }

    fn source(&self) -> SourceText {
        SourceText {
            file: Some(format!("{}.toml (preset)", self.name)),
            text: self.text.into(),
        }
    }
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        &[$(Preset { name: $name, text: include_str!(concat!("../../config/", $name, ".toml")) }),*]
    };
}

/// Every preset, from the quickest to the largest.
pub const PRESETS: &[Preset] = presets![
    "quickstart",
    "shakespeare_char_cpu",
    "small_bpe",
    "shakespeare_char",
    "finetune_shakespeare",
    "eval_gpt2",
    "openwebtext",
    "gpt2-medium",
    "gpt2-large",
    "gpt2-xl",
];

/// The text that `--config name` means: a file if there is one, else a preset.
///
/// # Errors
/// [`ConfigError`] when there is neither, or the file cannot be read.
pub(super) fn locate(name: &str) -> Result<SourceText, ConfigError> {
    let path = &expand_home(name);
    let bare = name.strip_suffix(".toml").unwrap_or(name);
    let preset = PRESETS.iter().find(|preset| preset.name == bare);
    match preset {
        // A folder never hides a preset: `data/` and `out/` names are often a preset's name.
        Some(preset) if !path.exists() || path.is_dir() => Ok(preset.source()),
        None if !path.exists() => Err(ConfigError::NotFound { name: name.into() }),
        _ => Ok(SourceText {
            file: Some(name.into()),
            text: read_text("read", path, LARGEST_FILE_BYTES)?,
        }),
    }
}

/// The preset that somebody who typed `name`, perhaps with folders, is likely to mean.
pub fn nearest(name: &str) -> Option<&'static str> {
    let stem = Path::new(name).file_stem()?.to_str()?;
    // nanoGPT's files are called config/train_shakespeare_char.py.
    let stem = stem.strip_prefix("train_").unwrap_or(stem);
    keys::nearest(stem, PRESETS.iter().map(|preset| preset.name))
}

/// One indented line per preset.
pub(super) fn listing() -> String {
    let width = PRESETS.iter().map(|preset| preset.name.len()).max();
    let width = width.unwrap_or_default();
    PRESETS
        .iter()
        .map(|preset| format!("\n    {:width$}  {}", preset.name, preset.description()))
        .collect()
}
