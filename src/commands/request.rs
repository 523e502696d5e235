//! The request of a verb: its config. One of nanoGPT's is translated, and the translation told and kept.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::config::{Config, ConfigError, GivenSizes, LoadedConfig, PythonConfig};
use crate::terms::{expand_home, shell_word};

/// The config that `source` names, with every `--set` on top of it; `note` tells what was translated.
///
/// # Errors
/// Those of [`Config::load`].
pub(super) fn load(
    source: &str,
    overrides: &[String],
    mut note: impl FnMut(&str),
) -> Result<(Config, GivenSizes), ConfigError> {
    let loaded = LoadedConfig::load(source, overrides)?;
    for told in loaded.python.iter().flat_map(|python| &python.notes) {
        note(told);
    }
    Ok((loaded.config, loaded.given))
}

/// Does [`load`], and writes what was translated beside the file, for the next time.
///
/// # Errors
/// Those of [`load`]; a file that cannot be written is told.
pub(super) fn load_and_keep(
    source: &str,
    overrides: &[String],
    mut note: impl FnMut(&str),
) -> Result<(Config, GivenSizes), ConfigError> {
    let loaded = LoadedConfig::load(source, overrides)?;
    if let Some(PythonConfig { notes, toml }) = &loaded.python {
        notes.iter().for_each(|told| note(told));
        note(&keep(&expand_home(source).with_extension("toml"), toml));
    }
    Ok((loaded.config, loaded.given))
}

/// Writes `toml` to `path`, where no other file is, and says what became of it.
fn keep(path: &Path, toml: &str) -> String {
    let word = shell_word(path);
    let elsewhere = "the config in every checkpoint, `config.toml`, is the same for `--config`";
    match write_new(path, toml) {
        Ok(()) => format!("wrote `{word}`; next time: `--config {word}`"),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match fs::read_to_string(path) {
            Ok(there) if there == toml => format!("`{word}` says the same: `--config {word}`"),
            _ => {
                format!("`{word}` is there and says something else: it stays as it is; {elsewhere}")
            }
        },
        Err(error) => format!("`{word}` cannot be written ({error}); {elsewhere}"),
    }
}

/// Writes a file whole, or not at all, and overwrites none.
pub(super) fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.persist_noclobber(path)?;
    Ok(())
}
