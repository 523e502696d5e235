//! The texts of `taper sample` on standard output, in their order.
//!
//! The first text that is not complete is printed as it comes. Those behind it are held back until it is their turn.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::commands::print_now;
use crate::error::Result;
use crate::sampling::{Ended, Finish};

/// Separator of two texts, nanoGPT's.
const SEPARATOR: &str = "\n---------------\n";

/// A printer of texts that grow at the same time.
pub(super) struct Output<'a> {
    prompts: &'a [String],
    /// Texts of one prompt.
    count: usize,
    json: bool,
    /// The first text that is not complete, and whether its prompt was printed.
    at: usize,
    is_begun: bool,
    texts: BTreeMap<usize, Text>,
}

/// A text, as far as it was not printed.
#[derive(Default)]
struct Text {
    text: String,
    ended: Option<Ended>,
}

/// A complete text as JSON.
#[derive(Serialize)]
struct Sample<'a> {
    /// Number among the samples of its prompt.
    sample: usize,
    prompt: &'a str,
    text: &'a str,
    tokens: usize,
    finish: Finish,
}

impl<'a> Output<'a> {
    /// `count` texts follow each of `prompts`.
    pub fn new(prompts: &'a [String], count: u32, json: bool) -> Self {
        Self {
            prompts,
            count: count as usize,
            json,
            at: 0,
            is_begun: false,
            texts: BTreeMap::new(),
        }
    }

    /// Adds to text `number`, and prints what may be printed now.
    ///
    /// # Errors
    /// The failure of standard output.
    pub fn add(&mut self, number: usize, text: &str, ended: Option<Ended>) -> Result<()> {
        let held = self.texts.entry(number).or_default();
        held.text.push_str(text);
        held.ended = ended;
        while let Some(text) = self.texts.get_mut(&self.at) {
            let (prompt, sample) = (&self.prompts[self.at / self.count], self.at % self.count);
            if self.json {
                let Some(Ended { tokens, finish }) = text.ended else {
                    break;
                };
                print_json(&Sample {
                    sample,
                    prompt,
                    text: &text.text,
                    tokens,
                    finish,
                })?;
            } else {
                if !std::mem::replace(&mut self.is_begun, true) {
                    print_now(prompt)?;
                }
                print_now(&std::mem::take(&mut text.text))?;
                if text.ended.is_none() {
                    break;
                }
                let is_last = self.at + 1 == self.prompts.len() * self.count;
                print_now(if is_last { "\n" } else { SEPARATOR })?;
            }
            self.texts.remove(&self.at);
            (self.at, self.is_begun) = (self.at + 1, false);
        }
        Ok(())
    }
}

fn print_json(sample: &Sample) -> Result<()> {
    print_now(&(serde_json::to_string(sample).unwrap_or_default() + "\n"))
}
