//! The top of the page: name, one line about the run, and its most important numbers.

use std::time::Duration;

use super::html::escaped;
use crate::curves::{Positions, XKind, parameters};
use crate::metrics::{median, perplexity};
use crate::runs::{Run, Summary};
use crate::units;

pub(super) fn header(run: &Run) -> String {
    let mut parts = Vec::new();
    if let Some(description) = &run.description {
        let model = &description.model;
        parts.push(format!(
            "GPT-2 with {} parameters",
            parameters(description.parameters)
        ));
        parts.push(format!(
            "{} layers, {} heads, {} channels",
            model.n_layer, model.n_head, model.n_embd
        ));
        parts.push(description.data.name.clone());
        parts.push(description.device.clone());
        parts.push(format!("taper {}", description.version));
    }
    format!(
        "<header>\n<h1>{}</h1>\n<p class=\"sub\">{}</p>\n</header>\n",
        escaped(&run.name),
        escaped(&parts.join(" · "))
    )
}

pub(super) fn footer() -> String {
    format!(
        "<footer>Made by <code>taper report</code> {}. The curves are drawn with uPlot (MIT).</footer>\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// A number with its name and a remark.
struct Tile {
    name: &'static str,
    value: String,
    remark: String,
}

pub(super) fn tiles(run: &Run) -> String {
    let summary = Summary::of(run);
    let tiles = [
        best(&summary),
        trained(&summary),
        steps(&summary),
        tokens(run, &summary),
        speed(run, &summary),
        time(run),
        memory(run, &summary),
    ];
    let tiles = tiles.into_iter().flatten().map(|tile| {
        let remark = match &tile.remark[..] {
            "" => String::new(),
            remark => format!("<dd>{}</dd>", escaped(remark)),
        };
        format!(
            "<div><dt>{}</dt><dd>{}</dd>{remark}</div>\n",
            tile.name,
            escaped(&tile.value)
        )
    });
    format!("<dl class=\"tiles\">\n{}</dl>\n", tiles.collect::<String>())
}

fn best(summary: &Summary) -> Option<Tile> {
    let (loss, step) = summary.best_val_loss.zip(summary.best_step)?;
    Some(Tile {
        name: "Best validation loss",
        value: format!("{loss:.4}"),
        remark: format!(
            "perplexity {}, at step {}",
            units::perplexity(perplexity(loss)),
            units::count(step)
        ),
    })
}

fn trained(summary: &Summary) -> Option<Tile> {
    let loss = summary.train_loss.filter(|loss| loss.is_finite())?;
    Some(Tile {
        name: "Training loss",
        value: format!("{loss:.4}"),
        remark: "running mean at the end".into(),
    })
}

fn steps(summary: &Summary) -> Option<Tile> {
    let remark = match summary.max_iters {
        Some(all) if all > summary.step => format!("of {}", units::count(all)),
        Some(_) => "the run is complete".into(),
        None => String::new(),
    };
    Some(Tile {
        name: "Steps",
        value: units::count(summary.step),
        remark,
    })
}

fn tokens(run: &Run, summary: &Summary) -> Option<Tile> {
    let seen = summary.tokens_seen?;
    let all = run
        .description
        .as_ref()
        .map(|description| description.data.train_tokens);
    let passes = all
        .filter(|&all| all > 0)
        .map(|all| seen as f64 / all as f64);
    let remark = match passes {
        Some(passes) if passes < 0.01 => "less than 1 % of the data".into(),
        Some(passes) if passes < 1.0 => format!("{:.0} % of the data", 100.0 * passes),
        Some(passes) => format!("the data {passes:.1} times"),
        None => String::new(),
    };
    Some(Tile {
        name: "Tokens trained on",
        value: short(seen),
        remark,
    })
}

fn speed(run: &Run, summary: &Summary) -> Option<Tile> {
    let rate = summary.tokens_per_second?;
    let flops = run
        .description
        .as_ref()
        .map(|description| description.flops_per_token * rate);
    Some(Tile {
        name: "Tokens per second",
        value: short(rate.round() as u64),
        remark: flops.map_or("median".into(), |flops| {
            format!("median; {}", units::flops(flops))
        }),
    })
}

fn time(run: &Run) -> Option<Tile> {
    let last = run.steps.last()?.step;
    let seconds = Positions::of(run, XKind::Time).at(last);
    let time = Duration::try_from_secs_f64(seconds).ok()?;
    let step = median(run.steps.iter().map(|point| point.record.ms));
    let step = step.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok());
    Some(Tile {
        name: "Time in training",
        value: units::span(time),
        remark: step.map_or(String::new(), |step| {
            format!("{} a step", units::short_time(step))
        }),
    })
}

fn memory(run: &Run, summary: &Summary) -> Option<Tile> {
    let (bytes, of) = match (summary.device_bytes, summary.host_bytes) {
        (Some(bytes), _) => (bytes, "peak on the GPU"),
        (None, Some(bytes)) => (bytes, "peak of the process"),
        (None, None) => return None,
    };
    let planned = run
        .description
        .as_ref()
        .map(|description| format!("; {} planned", units::bytes(description.planned_bytes)));
    Some(Tile {
        name: "Memory",
        value: units::bytes(bytes),
        remark: format!("{of}{}", planned.unwrap_or_default()),
    })
}

/// `6.14M`, `982k`, `9,300`.
fn short(count: u64) -> String {
    let scaled = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")];
    let found = scaled.iter().find(|(size, _)| count as f64 >= *size);
    match found {
        Some((size, suffix)) if count >= 10_000 => {
            let value = count as f64 / size;
            let decimals = if value < 10.0 {
                2
            } else if value < 100.0 {
                1
            } else {
                0
            };
            format!("{value:.decimals$}{suffix}")
        }
        _ => units::count(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_tiles_are_short() {
        for (count, text) in [
            (9_300, "9,300"),
            (23_400, "23.4k"),
            (982_000, "982k"),
            (6_144_000, "6.14M"),
            (295_000_000_000, "295B"),
        ] {
            assert_eq!(short(count), text);
        }
    }
}
