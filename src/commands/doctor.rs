//! `taper doctor`: a check that this machine is fit to train on.

use crate::commands::{print_now, until_reader_leaves};
use crate::config::Config;
use crate::doctor::{Machine, Report};
use crate::error::{Error, Result};

/// Look for what could keep a run from starting, or slow it down
///
/// Looks at the CPU, GPUs and their driver, the memory and who holds it, the CUDA toolkit, and the
/// folders for data and checkpoints. Every note and problem comes with a hint. Exits with 0 when
/// there is no problem, with 1 when there is one.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// Check the folders and the disk space for this run: a TOML file, or a preset's name
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Change one key of the config; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", requires = "config")]
    pub overrides: Vec<String>,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: DoctorArgs) -> Result<()> {
    let config = match &args.config {
        Some(source) => Some(Config::load(source, &args.overrides)?),
        None => None,
    };
    let report = Report::new(Machine::probe(config.as_ref()));
    let text = if args.json {
        let json = report.json();
        json.map_err(|error| Error::io("write", "the report".as_ref())(error.into()))? + "\n"
    } else {
        report.text()
    };
    until_reader_leaves(print_now(&text))?;
    match report.problems {
        0 => Ok(()),
        problems => Err(Error::Unfit { problems }),
    }
}
