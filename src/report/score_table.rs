//! The table of `taper eval`: a row for every metric, printed as tasks end.

use crate::evals::Score;

/// Columns of a table whose rows come one task after the other.
pub struct ScoreTable {
    task_width: usize,
    has_heading: bool,
}

/// Width of the longest name of a metric, `bits per byte`.
const METRIC_WIDTH: usize = 13;
/// Width of a value: a perplexity such as `12345.67`.
const VALUE_WIDTH: usize = 11;

impl ScoreTable {
    /// A table of tasks with these names.
    pub fn new<'a>(tasks: impl Iterator<Item = &'a str>) -> Self {
        let widths = tasks.chain(["task"]).map(|name| name.chars().count());
        Self {
            task_width: widths.max().unwrap_or(0),
            has_heading: false,
        }
    }

    /// The rows of a score, below the heading if they are the first.
    pub fn rows(&mut self, score: &Score) -> String {
        let mut text = String::new();
        let width = self.task_width;
        let mut row = |task: &str, metric: &str, value: &str, amount: &str| {
            let row =
                format!("{task:width$}  {metric:METRIC_WIDTH$}{value:>VALUE_WIDTH$}  {amount}");
            text += row.trim_end();
            text.push('\n');
        };
        if !std::mem::replace(&mut self.has_heading, true) {
            row("task", "metric", "value", "of");
        }
        let (mut task, mut amount) = (score.task.as_str(), score.metrics.amount());
        for (metric, value) in score.metrics.values() {
            row(task, metric, &value, &amount);
            (task, amount) = ("", String::new());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::evals::Metrics;

    #[test]
    fn every_metric_has_a_row_and_columns_are_aligned() {
        let score = |task: &str, metrics| Score {
            task: task.into(),
            metrics,
            truncated: 0,
            duration: Duration::ZERO,
        };
        let mut table = ScoreTable::new(["hellaswag", "a/long name.txt"].into_iter());
        let hellaswag = Metrics::HellaSwag {
            acc: 0.2512,
            acc_norm: 0.2691,
            examples: 1000,
        };
        let text = Metrics::Perplexity {
            loss: 3.25,
            perplexity: 25.79,
            bits_per_byte: Some(1.0625),
            tokens: 12_345,
        };
        let rows = table.rows(&score("hellaswag", hellaswag))
            + &table.rows(&score("a/long name.txt", text));
        let expected = "\
task             metric             value  of
hellaswag        acc               0.2512  1,000 examples
                 acc_norm          0.2691
a/long name.txt  loss              3.2500  12,345 tokens
                 perplexity         25.79
                 bits per byte     1.0625
";
        assert_eq!(rows, expected);
    }
}
