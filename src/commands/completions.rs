//! `taper completions`: what a shell needs to complete taper's words.

use clap::Command;
use clap_complete::{Shell, generate};

use crate::commands::{print_now, until_reader_leaves};
use crate::error::Result;

/// Print a script that completes taper's words in a shell
///
/// bash: `taper completions bash > ~/.local/share/bash-completion/completions/taper`; zsh: to `_taper` in a folder of
/// `$fpath`; fish: to `~/.config/fish/completions/taper.fish`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// `cli`: every verb and flag.
pub fn run(args: CompletionsArgs, mut cli: Command) -> Result<()> {
    let name = cli.get_name().to_owned();
    let mut script = Vec::new();
    generate(args.shell, &mut cli, name, &mut script);
    until_reader_leaves(print_now(&String::from_utf8_lossy(&script)))
}
