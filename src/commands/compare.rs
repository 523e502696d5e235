//! `taper compare` and `taper runs`: runs beside each other in a table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::commands::{path_argument, print_now, until_reader_leaves};
use crate::error::{Error, Result};
use crate::report::{Align, aligned, say};
use crate::runs::{Run, Summary, Varied, find, varied};
use crate::units::{bytes, count, short_count, span};

/// Compare runs: a table with best losses, tokens, time, and what differs in their configs
#[derive(Clone, Debug, clap::Args)]
pub struct CompareArgs {
    /// Folders of runs
    #[arg(required = true, value_name = "RUN", value_parser = path_argument())]
    pub runs: Vec<PathBuf>,
    /// Print one JSON object per run
    #[arg(long)]
    pub json: bool,
}

/// List the runs below a folder with their best losses
#[derive(Clone, Debug, clap::Args)]
pub struct RunsArgs {
    /// The folder that is searched, four levels deep
    #[arg(default_value = ".", value_name = "FOLDER", value_parser = path_argument())]
    pub folder: PathBuf,
    /// Print one JSON object per run
    #[arg(long)]
    pub json: bool,
}

pub fn compare(args: CompareArgs) -> Result<()> {
    let runs = args.runs.iter().map(|path| Run::open(path));
    let runs = runs.collect::<Result<Vec<_>, _>>()?;
    show(&runs, args.json)
}

pub fn runs(args: RunsArgs) -> Result<()> {
    let folder = &args.folder;
    if !folder.is_dir() {
        return Err(Error::Usage {
            what: format!("there is no folder `{}`", folder.display()),
            hint: "give a folder that runs are in or below, or leave it out for the current one"
                .into(),
        });
    }
    let found = find(folder);
    for (path, error) in &found.unread {
        say(format_args!(
            "note: passed over `{}`: {error}",
            path.display()
        ));
    }
    if found.runs.is_empty() {
        let folder = folder.display();
        say(format_args!(
            "no runs in or below `{folder}`; `taper train --config quickstart.toml` makes one"
        ));
        return Ok(());
    }
    show(&found.runs, args.json)
}

fn show(runs: &[Run], json: bool) -> Result<()> {
    for note in runs.iter().flat_map(|run| &run.notes) {
        say(format_args!("note: {note}"));
    }
    let varied = varied(runs);
    let text = if json {
        objects(runs, &varied)
    } else {
        table(runs, &varied)
    };
    until_reader_leaves(print_now(&text))
}

/// One line of JSON for each run.
fn objects(runs: &[Run], varied: &[Varied]) -> String {
    let lines = runs.iter().enumerate().map(|(at, run)| {
        let of_run = varied
            .iter()
            .map(|key| (key.key.clone(), key.values[at].clone().into()));
        let differs: serde_json::Map<_, _> = of_run.collect();
        let summary = serde_json::to_value(Summary::of(run)).unwrap_or_default();
        let mut line = serde_json::json!({ "kind": "run", "differs": differs });
        if let (Some(line), serde_json::Value::Object(summary)) = (line.as_object_mut(), summary) {
            line.extend(summary);
        }
        format!("{line}\n")
    });
    lines.collect()
}

/// A row for each run, in the order given; the lowest validation loss is marked.
fn table(runs: &[Run], varied: &[Varied]) -> String {
    let summaries: Vec<Summary> = runs.iter().map(Summary::of).collect();
    let losses = summaries.iter().filter_map(|summary| summary.best_val_loss);
    let best = losses.min_by(f64::total_cmp).filter(|_| runs.len() > 1);
    let mut headings = vec![("run", Align::Left)];
    headings.extend(varied.iter().map(|key| (key.key.as_str(), Align::Right)));
    headings.extend(
        [
            "steps",
            "tokens",
            "train loss",
            "best val loss",
            "at step",
            "tok/s",
            "time",
            "memory",
        ]
        .map(|name| (name, Align::Right)),
    );
    headings.push(("", Align::Left));
    let rows = summaries.iter().enumerate().map(|(at, summary)| {
        let mut row = vec![place(&runs[at].folder)];
        row.extend(varied.iter().map(|key| key.values[at].clone()));
        row.extend(numbers(summary));
        let is_best = best.is_some() && summary.best_val_loss == best;
        row.push(if is_best { "<- best" } else { "" }.into());
        row
    });
    aligned(&headings, &rows.collect::<Vec<_>>()) + "\n"
}

/// The folder as it was given; the name of the current one.
fn place(folder: &Path) -> String {
    let text = folder
        .strip_prefix(".")
        .unwrap_or(folder)
        .display()
        .to_string();
    if text.is_empty() { ".".into() } else { text }
}

fn numbers(summary: &Summary) -> [String; 8] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let loss = |loss: Option<f64>| or_dash(loss.map(|loss| format!("{loss:.4}")));
    let steps = match summary.max_iters {
        Some(most) if most != summary.step => format!("{} of {}", count(summary.step), count(most)),
        _ => count(summary.step),
    };
    [
        steps,
        or_dash(summary.tokens_seen.map(short_count)),
        loss(summary.train_loss),
        loss(summary.best_val_loss),
        or_dash(summary.best_step.map(count)),
        or_dash(
            summary
                .tokens_per_second
                .map(|rate| count(rate.round() as u64)),
        ),
        span(Duration::try_from_secs_f64(summary.training_seconds).unwrap_or_default()),
        or_dash(summary.device_bytes.or(summary.host_bytes).map(bytes)),
    ]
}
