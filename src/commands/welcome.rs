//! `taper` alone: commands to try.

use crate::commands::{print_now, until_reader_leaves};
use crate::error::Result;

/// Commands in the order to try them in, each with what it does.
pub const FIRST_COMMANDS: [(&str, &str); 3] = [
    (
        "taper train --config quickstart.toml",
        "trains a small model on taper's own source code: no download, some minutes on a CPU",
    ),
    (
        "taper sample --checkpoint out-quickstart --prompt \"pub fn \"",
        "lets that model write",
    ),
    (
        "taper plan --config openwebtext.toml",
        "shows how GPT-2 124M would be trained on this machine: its launch, memory and time",
    ),
];

/// Prints them.
pub fn run() -> Result<()> {
    let commands = FIRST_COMMANDS.map(|(command, does)| format!("\n  {command}\n      {does}\n"));
    until_reader_leaves(print_now(&format!(
        "taper trains GPT-2 on the machine you have. Three commands to try:\n{}\n\
         `taper --help` lists every command and preset, `taper doctor` looks at this machine.\n",
        commands.concat()
    )))
}
