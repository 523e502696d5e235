//! HellaSwag (Zellers et al. 2019, arXiv:1905.07830) as llm.c scores it, `dev/data/hellaswag.py`: the tokens of a context,
//! and those of a space and each of its four endings, which alone are scored.

use std::path::Path;

use serde::Deserialize;

use super::EvalsError;
use super::jsonl::{self, Line, wrong};
use super::loader::Encoding;
use super::sequences::Examples;
use crate::step::scoring::SequenceScore;

/// Endings of a context.
pub(super) const ENDINGS: usize = 4;

#[derive(Deserialize)]
struct Item {
    ctx: String,
    endings: Vec<String>,
    label: Label,
}

/// The index of the right ending, which some copies have as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Label {
    Number(usize),
    Text(String),
}

impl Item {
    fn label(&self) -> Option<usize> {
        let label = match &self.label {
            Label::Number(label) => Some(*label),
            Label::Text(text) => text.parse().ok(),
        };
        label.filter(|label| *label < ENDINGS)
    }

    fn check(&self) -> Result<usize, String> {
        if self.endings.len() != ENDINGS {
            return Err(format!(
                "{} endings, expected {ENDINGS}",
                self.endings.len()
            ));
        }
        if self.ctx.is_empty() {
            return Err("`ctx` is empty".into());
        }
        self.label()
            .ok_or_else(|| format!("`label` is no number from 0 to {}", ENDINGS - 1))
    }
}

/// Reads the examples, and the label of each.
///
/// # Errors
/// Those of [`jsonl::read`], `Line`, and those of `encoding`.
pub(super) fn load(
    path: &Path,
    encoding: &mut Encoding,
    limit: Option<usize>,
) -> Result<(Examples, Vec<usize>, usize), EvalsError> {
    let (lines, all) = jsonl::read::<Item>(path, limit)?;
    let (mut examples, mut labels) = (Examples::new(encoding.block_size), Vec::new());
    let (mut context, mut tokens) = (Vec::new(), Vec::new());
    for Line { number, value } in lines {
        labels.push(value.check().map_err(|why| wrong(path, number, why))?);
        context.clear();
        encoding.encode(&value.ctx, number, &mut context)?;
        for ending in &value.endings {
            tokens.clone_from(&context);
            encoding.encode(&format!(" {ending}"), number, &mut tokens)?;
            examples.push(&tokens, tokens.len() - context.len());
        }
    }
    examples.finish();
    Ok((examples, labels, all))
}

/// Shares of the contexts whose right ending has the smallest sum of losses, and the smallest mean. `scores` has
/// [`ENDINGS`] in a row for each label; of equal ones the first counts.
pub(super) fn accuracies(scores: &[SequenceScore], labels: &[usize]) -> (f64, f64) {
    let share = |loss: fn(&SequenceScore) -> f64| {
        let contexts = scores.chunks_exact(ENDINGS).zip(labels);
        let right = contexts.filter(|(endings, label)| smallest(endings, loss) == **label);
        right.count() as f64 / labels.len() as f64
    };
    (
        share(|score| score.loss),
        share(|score| score.loss / score.tokens as f64),
    )
}

/// Index of the first of the smallest losses.
fn smallest(endings: &[SequenceScore], loss: fn(&SequenceScore) -> f64) -> usize {
    let indices = 0..endings.len();
    let smallest = indices.min_by(|&a, &b| loss(&endings[a]).total_cmp(&loss(&endings[b])));
    smallest.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score((loss, tokens): (f64, usize)) -> SequenceScore {
        SequenceScore {
            loss,
            tokens,
            is_greedy: false,
        }
    }

    #[test]
    fn the_sum_prefers_short_endings_and_the_mean_does_not() {
        // Sums 6, 5, 8, 9; means 2, 5, 1, 3.
        let first = [(6.0, 3), (5.0, 1), (8.0, 8), (9.0, 3)];
        // Sums 4, 4, 4, 5; means 1, 2, 4, 1.
        let second = [(4.0, 4), (4.0, 2), (4.0, 1), (5.0, 5)];
        let scores: Vec<SequenceScore> = first.into_iter().chain(second).map(score).collect();
        assert_eq!(accuracies(&scores, &[1, 0]), (1.0, 0.5));
        assert_eq!(accuracies(&scores, &[2, 3]), (0.0, 0.5));
        assert_eq!(accuracies(&scores, &[1, 1]), (0.5, 0.0));
    }

    #[test]
    fn a_loss_that_is_no_number_is_never_the_smallest() {
        let scores = [(f64::NAN, 1), (9.0, 1), (f64::INFINITY, 1), (9.5, 1)].map(score);
        assert_eq!(accuracies(&scores, &[1]), (1.0, 1.0));
    }

    #[test]
    fn a_label_is_a_number_or_its_text() {
        let label = |label: &str| {
            let line = format!(r#"{{"ctx": "a", "endings": [], "label": {label}}}"#);
            serde_json::from_str::<Item>(&line).unwrap().label()
        };
        assert_eq!(label("3"), Some(3));
        assert_eq!(label("\"2\""), Some(2));
        assert_eq!(label("4"), None);
        assert_eq!(label("\"\""), None);
    }
}
