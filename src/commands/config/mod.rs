//! `taper config`: a request with every key explained, the keys, and configs of nanoGPT in TOML.

mod keys;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::commands::request::write_new;
use crate::commands::{path_argument, print_now, until_reader_leaves};
use crate::config::LoadedConfig;
use crate::error::{Error, Result};
use crate::report::say;
use crate::terms::shell_word;

pub use keys::KeysArgs;

/// Explain a config and its keys, or take over nanoGPT's
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum ConfigCommand {
    Show(ShowArgs),
    Keys(KeysArgs),
    Import(ImportArgs),
}

/// Print a config with every key, its meaning and its default
///
/// It is TOML, and `--config` reads it back as the same request.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// A preset's name such as `quickstart.toml`, a TOML file, or a config of nanoGPT's, such as `my_config.py`
    #[arg(value_name = "PRESET|FILE")]
    pub config: String,
    /// Change one key of the config; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// Write a config of nanoGPT's as one of taper's
///
/// It is read as `taper train` reads it: nothing of a Python file is executed, and notes say what is added or left out.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// A Python file, such as `my_nanogpt.py`, or a TOML file of nanoGPT's keys without sections
    #[arg(value_name = "FILE")]
    pub from: String,
    /// The file to write, which must not exist [default: print it]
    #[arg(long, value_name = "FILE", value_parser = path_argument())]
    pub out: Option<PathBuf>,
}

pub fn run(args: ConfigArgs) -> Result<()> {
    match args.command {
        ConfigCommand::Show(args) => show(&args),
        ConfigCommand::Keys(args) => keys::run(&args),
        ConfigCommand::Import(args) => import(&args),
    }
}

fn show(args: &ShowArgs) -> Result<()> {
    let loaded = LoadedConfig::load(&args.config, &args.overrides)?;
    tell(&loaded);
    let text = loaded.explained_toml(&heading(args));
    until_reader_leaves(print_now(&text))
}

/// The request in one line. Names are of the user's choice, and a comment takes no line feed.
fn heading(args: &ShowArgs) -> String {
    let sets = args.overrides.iter();
    let sets = sets.map(|set| format!(" --set {}", shell_word(Path::new(set))));
    let request = shell_word(Path::new(&args.config)) + &sets.collect::<String>();
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "`{}` as taper {version} reads it: every key, with its meaning and its default.",
        request.escape_debug()
    )
}

fn import(args: &ImportArgs) -> Result<()> {
    let loaded = LoadedConfig::import(&args.from)?;
    tell(&loaded);
    let Some(translated) = loaded.python else {
        return Ok(());
    };
    let Some(out) = &args.out else {
        return until_reader_leaves(print_now(&translated.toml));
    };
    write_new(out, &translated.toml).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Error::Usage {
            what: format!("`{}` exists, and nothing is overwritten", out.display()),
            hint: "name another file, or leave `--out` out to print it".into(),
        },
        _ => Error::io("write", out)(error),
    })?;
    say(format_args!(
        "note: train with it: `taper train --config {}`",
        shell_word(out)
    ));
    until_reader_leaves(print_now(&format!("{}\n", out.display())))
}

/// Tells what was translated.
fn tell(loaded: &LoadedConfig) {
    for note in loaded.python.iter().flat_map(|python| &python.notes) {
        say(format_args!("note: {note}"));
    }
}
