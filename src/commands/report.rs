//! `taper report`: a run as a page for a browser.

use std::fs;
use std::path::{Path, PathBuf};

use crate::commands::plot::{folder, open};
use crate::commands::sample::texts_of;
use crate::commands::{path_argument, print_now, produced, until_reader_leaves};
use crate::error::Result;
use crate::page::{CheckpointRow, Page, Samples};
use crate::report::say;
use crate::runs::Run;

/// Write a page about a run: curves to hover and zoom, config, memory, choices, events, checkpoints and samples
///
/// The page is one file that needs no network.
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    /// The folder of a run, or its `metrics.jsonl`
    #[arg(value_name = "RUN", value_parser = path_argument())]
    pub run: PathBuf,
    /// The page [default: `report.html` in the run's folder]
    #[arg(long, value_name = "FILE", value_parser = path_argument())]
    pub out: Option<PathBuf>,
    /// Texts to generate with the best checkpoint there is, else the newest; 0: none
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=32))]
    pub samples: u32,
}

/// Tokens of a sample.
const SAMPLE_TOKENS: usize = 200;

pub fn run(args: ReportArgs) -> Result<()> {
    let out = args.out.clone();
    let out = out.unwrap_or_else(|| folder(&args.run).join("report.html"));
    produced::check(&out)?;
    let runs = open(std::slice::from_ref(&args.run))?;
    for run in &runs {
        let page = Page {
            run,
            checkpoints: checkpoints(run),
            samples: samples(run, args.samples),
        };
        produced::write(&out, page.html().as_bytes())?;
    }
    until_reader_leaves(print_now(&format!("{}\n", out.display())))
}

fn checkpoints(run: &Run) -> Vec<CheckpointRow> {
    let rows = run.checkpoints.iter().map(|(step, path)| CheckpointRow {
        step: *step,
        name: name(path),
        bytes: bytes(path),
    });
    rows.collect()
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into()
}

/// Size of a checkpoint's files.
fn bytes(folder: &Path) -> Option<u64> {
    let entries = fs::read_dir(folder).ok()?;
    entries
        .map(|entry| entry?.metadata().map(|file| file.len()))
        .sum::<std::io::Result<u64>>()
        .ok()
}

/// Texts of the checkpoint with the lowest validation loss, if it is still there, else of the newest. A failure is told
/// and does not keep the page from being written.
fn samples(run: &Run, count: u32) -> Samples {
    if count == 0 {
        return Samples::Unasked;
    }
    let best = run.best_eval().map(|best| best.step);
    let found = run.checkpoints.iter().find(|(step, _)| Some(*step) == best);
    let Some((_, path)) = found.or(run.checkpoints.first()) else {
        return Samples::Failed("the run has no checkpoint".into());
    };
    match texts_of(path, count, SAMPLE_TOKENS) {
        Ok(texts) => Samples::Texts {
            checkpoint: name(path),
            texts,
        },
        Err(error) => {
            say(format_args!("note: no samples: {error}"));
            Samples::Failed(error.to_string())
        }
    }
}
