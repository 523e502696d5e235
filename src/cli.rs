//! The command line: its verbs, and the list of presets.

mod habits;
mod nanogpt;

use clap::{Parser, Subcommand};

use crate::commands::bench::BenchArgs;
use crate::commands::compare::{CompareArgs, RunsArgs};
use crate::commands::completions::CompletionsArgs;
use crate::commands::config::ConfigArgs;
use crate::commands::convert::ConvertArgs;
use crate::commands::doctor::DoctorArgs;
use crate::commands::eval::EvalArgs;
use crate::commands::man::ManArgs;
use crate::commands::plan::PlanArgs;
use crate::commands::plot::PlotArgs;
use crate::commands::prepare::PrepareArgs;
use crate::commands::report::ReportArgs;
use crate::commands::sample::SampleArgs;
use crate::commands::train::TrainArgs;

pub use habits::hint;
pub use nanogpt::{Understood, understood};

/// Trains GPT-2 on whatever machine you have
#[derive(Debug, Parser)]
#[command(name = "taper", version, propagate_version = true, after_help = presets())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Train(TrainArgs),
    Sample(SampleArgs),
    Eval(EvalArgs),
    Prepare(PrepareArgs),
    Runs(RunsArgs),
    Compare(CompareArgs),
    Convert(ConvertArgs),
    Doctor(DoctorArgs),
    Plan(PlanArgs),
    Plot(PlotArgs),
    Report(ReportArgs),
    Bench(BenchArgs),
    Config(ConfigArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

fn presets() -> String {
    let mut text = String::from("Presets for `taper train --config`:\n");
    for preset in crate::config::PRESETS {
        text += &format!(
            "  {:<26}{}\n",
            format!("{}.toml", preset.name),
            preset.description()
        );
    }
    text
}
