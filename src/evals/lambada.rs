//! LAMBADA (Paperno et al. 2016, arXiv:1606.06031) as lm-evaluation-harness has it, task `lambada_openai`: the last word
//! of a text, with the space before it, after all that comes before.

use std::path::Path;

use serde::Deserialize;

use super::EvalsError;
use super::jsonl::{self, Line, wrong};
use super::loader::Encoding;
use super::sequences::Examples;
use crate::step::scoring::SequenceScore;

#[derive(Deserialize)]
struct Item {
    text: String,
}

/// Reads the examples.
///
/// # Errors
/// Those of [`jsonl::read`], `Line`, and those of `encoding`.
pub(super) fn load(
    path: &Path,
    encoding: &mut Encoding,
    limit: Option<usize>,
) -> Result<(Examples, usize), EvalsError> {
    let (lines, all) = jsonl::read::<Item>(path, limit)?;
    let mut examples = Examples::new(encoding.block_size);
    let (mut context_tokens, mut tokens) = (Vec::new(), Vec::new());
    for Line { number, value } in lines {
        let context = context(&value.text).ok_or_else(|| {
            let why = "`text` has no last word behind a space, or nothing before it";
            wrong(path, number, why.into())
        })?;
        context_tokens.clear();
        encoding.encode(context, number, &mut context_tokens)?;
        tokens.clear();
        encoding.encode(&value.text, number, &mut tokens)?;
        let last = tokens.len().saturating_sub(context_tokens.len());
        if last == 0 {
            let why = "the last word has no token of its own in the model's vocabulary";
            return Err(wrong(path, number, why.into()));
        }
        examples.push(&tokens, last);
    }
    examples.finish();
    Ok((examples, all))
}

/// The text before the last space; white space at its end belongs to the last word.
fn context(text: &str) -> Option<&str> {
    let (context, last) = text.rsplit_once(' ')?;
    let context = context.trim_end_matches(is_space);
    (!context.is_empty() && !last.is_empty()).then_some(context)
}

/// Python's white space, which has four separators of ASCII beside Unicode's.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// The share of last words whose every token is the likeliest, and exp of the mean loss of a last word.
pub(super) fn accuracy_and_perplexity(scores: &[SequenceScore]) -> (f64, f64) {
    let count = scores.len() as f64;
    let right = scores.iter().filter(|score| score.is_greedy).count();
    let loss: f64 = scores.iter().map(|score| score.loss).sum();
    (right as f64 / count, (loss / count).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_takes_the_white_space_before_it() {
        assert_eq!(context("a b c"), Some("a b"));
        assert_eq!(context("a b  c"), Some("a b"));
        assert_eq!(context("a b\n\u{1f} c"), Some("a b"));
        assert_eq!(context("word"), None);
        assert_eq!(context(" word"), None);
        assert_eq!(context("a word "), None);
    }

    #[test]
    fn the_perplexity_is_that_of_words_and_not_of_tokens() {
        let score = |loss, tokens, is_greedy| SequenceScore {
            loss,
            tokens,
            is_greedy,
        };
        let scores = [score(3.0, 1, true), score(5.0, 4, false)];
        assert_eq!(accuracy_and_perplexity(&scores), (0.5, 4f64.exp()));
    }
}
