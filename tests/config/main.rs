//! The configuration: presets, values, what a wrong one is told, and the round trip.

use std::path::PathBuf;

use taper::config::Config;
use taper::config::ConfigError;

mod explain;
mod import;
mod messages;
mod presets;
mod python;
mod round_trip;
mod schedules;
mod slips;
mod values;

/// A folder with `my.toml`, and the path of that file.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn try_load(text: &str, sets: &[&str]) -> Result<Config, String> {
    let (_folder, path) = file(text);
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let path = path.to_str().unwrap();
    Config::load(path, &sets).map_err(|error| shown(&error).replace(path, "my.toml"))
}

fn load(text: &str, sets: &[&str]) -> Config {
    try_load(text, sets).unwrap_or_else(|error| panic!("{error}"))
}

fn preset(name: &str) -> Config {
    Config::load(name, &[]).unwrap_or_else(|error| panic!("{}", shown(&error)))
}

/// An error as `main` prints it.
fn shown(error: &ConfigError) -> String {
    match error.hint() {
        Some(hint) => format!("error: {error}\nhint: {hint}"),
        None => format!("error: {error}"),
    }
}
