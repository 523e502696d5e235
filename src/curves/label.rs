//! Names of runs in a legend, and the line below a title.

use crate::runs::{Run, varied};
use crate::units;

/// More keys than these make a label that nobody reads.
const MOST_KEYS: usize = 3;

/// A label for each run: the keys in which the configs differ, with their values. Runs that have the same label, and
/// runs without a config, are called by their folder.
pub fn labels(runs: &[Run]) -> Vec<String> {
    let varied = varied(runs);
    let of_config = |index: usize, run: &Run| {
        run.config.as_ref()?;
        let pairs = varied.iter().take(MOST_KEYS);
        let pairs: Vec<String> = pairs
            .map(|varied| format!("{}={}", varied.key, varied.values[index]))
            .collect();
        let more = if varied.len() > MOST_KEYS {
            ", …"
        } else {
            ""
        };
        (!pairs.is_empty()).then(|| pairs.join(", ") + more)
    };
    let found: Vec<Option<String>> = runs
        .iter()
        .enumerate()
        .map(|(index, run)| of_config(index, run))
        .collect();
    let is_unique = |label: &String| {
        let same = found.iter().flatten().filter(|other| *other == label);
        same.count() == 1
    };
    let label = |(run, label): (&Run, &Option<String>)| match label {
        Some(label) if is_unique(label) => label.clone(),
        Some(label) => format!("{} ({label})", run.name),
        None => run.name.clone(),
    };
    let mut labels: Vec<String> = runs.iter().zip(&found).map(label).collect();
    for index in 0..labels.len() {
        if labels
            .iter()
            .filter(|other| **other == labels[index])
            .count()
            > 1
        {
            // Two folders of one name: their paths tell them apart.
            labels[index] = runs[index].folder.display().to_string();
        }
    }
    labels
}

/// The model and the data of a run in one line; empty where neither is recorded.
pub fn subtitle(run: &Run) -> String {
    let Some(description) = &run.description else {
        return String::new();
    };
    format!(
        "{} parameters, {}, {} tokens a step",
        parameters(description.parameters),
        description.data.name,
        units::count(description.tokens_per_step)
    )
}

/// `0.8M`, `124M`, `1.6B`.
pub(crate) fn parameters(count: u64) -> String {
    let (value, unit) = match count {
        1_000_000_000.. => (count as f64 / 1e9, "B"),
        100_000.. => (count as f64 / 1e6, "M"),
        _ => return units::count(count),
    };
    let decimals = if value < 10.0 { 1 } else { 0 };
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_short() {
        for (count, text) in [
            (9_999, "9,999"),
            (804_352, "0.8M"),
            (124_373_760, "124M"),
            (1_557_611_200, "1.6B"),
        ] {
            assert_eq!(parameters(count), text);
        }
    }
}
