//! `taper plot`: curves of runs as a picture.

use std::path::{Path, PathBuf};

use crate::chart::{Figure, Size, Theme, png, undrawable};
use crate::commands::{path_argument, print_now, produced, until_reader_leaves};
use crate::curves::{Drawing, Log, Metric, XKind, figure};
use crate::error::{Error, Result};
use crate::report::say;
use crate::runs::{Run, write_csv};

/// Draw the curves of runs, laid over each other, as SVG or PNG, or write them as CSV
///
/// Faint lines are the recorded values, strong ones their means. Circles are evaluations. Refusals of memory, choices
/// that changed, warnings and resumed runs are marked above the loss. CSV has a row for every recorded step and evaluation,
/// with every value.
#[derive(Clone, Debug, clap::Args)]
pub struct PlotArgs {
    /// Folders of runs, or their `metrics.jsonl`
    #[arg(required = true, value_name = "RUN", value_parser = path_argument())]
    pub runs: Vec<PathBuf>,
    /// The picture, `.svg` or `.png`, or the numbers, `.csv` [default: `curves.svg`, in the run's folder if there is one run, else here]
    #[arg(long, value_name = "FILE", value_parser = path_argument())]
    pub out: Option<PathBuf>,
    /// Curves to draw, with commas between them [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "METRICS")]
    pub metrics: Vec<Metric>,
    /// The horizontal axis
    #[arg(long, value_enum, default_value = "step")]
    pub x: XKind,
    /// Logarithmic scales: `--log` for the loss, `--log=x`, `--log=xy`
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "y", value_name = "AXES")]
    pub log: Option<Log>,
    /// Steps that a smoothed value is the mean of, half of them before it and half after; 1: none [default: a fiftieth of
    /// the run]
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub smooth: Option<u64>,
    /// Width in pixels; a PNG that is wider than 1,200 has larger text [default: 1200, PNG 2400]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(240..=8192))]
    pub width: Option<u32>,
    /// Height in pixels [default: what suits the curves]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(200..=16384))]
    pub height: Option<u32>,
    /// Colours for a light or a dark background
    #[arg(long, value_enum, default_value = "light")]
    pub theme: Theme,
}

/// Width that the text's size is made for.
const WIDTH: u32 = 1_200;

/// File formats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
    Csv,
}

pub fn run(args: PlotArgs) -> Result<()> {
    let out = out(&args);
    let format = format(&out)?;
    produced::check(&out)?;
    let runs = open(&args.runs)?;
    if format == Format::Csv {
        produced::write(&out, &csv(&runs)?)?;
        return until_reader_leaves(print_now(&format!("{}\n", out.display())));
    }
    let drawing = Drawing {
        metrics: args.metrics.clone(),
        x: args.x,
        log: args.log,
        smooth: args.smooth,
    };
    let figure = figure(&runs, &drawing);
    check(&figure, &runs)?;
    produced::write(&out, &picture(&figure, &args, format)?)?;
    until_reader_leaves(print_now(&format!("{}\n", out.display())))
}

/// Reads every run, and says what was left out of it.
pub(super) fn open(paths: &[PathBuf]) -> Result<Vec<Run>> {
    let runs: Result<Vec<Run>> = paths.iter().map(|path| Ok(Run::open(path)?)).collect();
    let runs = runs?;
    for note in runs.iter().flat_map(|run| &run.notes) {
        say(format_args!("note: {note}"));
    }
    Ok(runs)
}

fn out(args: &PlotArgs) -> PathBuf {
    const NAME: &str = "curves.svg";
    match (&args.out, &args.runs[..]) {
        (Some(out), _) => out.clone(),
        (None, [run]) => folder(run).join(NAME),
        (None, _) => NAME.into(),
    }
}

/// The folder of a run that is named by its folder or by its metrics.
pub(super) fn folder(run: &Path) -> &Path {
    match run.parent() {
        Some(parent) if run.is_file() => parent,
        _ => run,
    }
}

fn format(out: &Path) -> Result<Format> {
    let extension = out
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("svg") => Ok(Format::Svg),
        Some("png") => Ok(Format::Png),
        Some("csv") => Ok(Format::Csv),
        _ => Err(Error::Usage {
            what: format!(
                "`{}` does not say which format it is to have",
                out.display()
            ),
            hint: "end its name with `.svg`, `.png` or `.csv`".into(),
        }),
    }
}

/// Refuses a picture without curves.
fn check(figure: &Figure, runs: &[Run]) -> Result<()> {
    if !figure.panels.is_empty() {
        return Ok(());
    }
    let which = match runs {
        [run] => format!("`{}` has", run.folder.display()),
        _ => "the runs have".into(),
    };
    Err(Error::Usage {
        what: format!("{which} recorded none of the values asked for"),
        hint: "leave out `--metrics` and `--x` to see what there is".into(),
    })
}

fn csv(runs: &[Run]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    write_csv(runs, &mut text).map_err(|error| Error::Usage {
        what: format!("the curves cannot be written as CSV: {error}"),
        hint: "draw them, with `--out curves.svg`".into(),
    })?;
    Ok(text)
}

fn picture(figure: &Figure, args: &PlotArgs, format: Format) -> Result<Vec<u8>> {
    let width = args.width.unwrap_or(match format {
        Format::Png => 2 * WIDTH,
        Format::Svg | Format::Csv => WIDTH,
    });
    let scale = match format {
        Format::Svg | Format::Csv => 1.0,
        Format::Png => (f64::from(width) / f64::from(WIDTH)).max(1.0),
    };
    let size = Size {
        width: f64::from(width) / scale,
        height: args.height.map(|height| f64::from(height) / scale),
    };
    let svg = figure.svg(size, args.theme);
    if format != Format::Png {
        return Ok(svg.into_bytes());
    }
    let missing: String = undrawable(&svg).into_iter().collect();
    if !missing.is_empty() {
        say(format_args!(
            "note: the font of PNG pictures has no {missing}; a browser draws them in the SVG"
        ));
    }
    Ok(png(&svg, scale as f32)?)
}
