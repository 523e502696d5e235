//! Texts of the model.

use super::html::{escaped, section as section_of};

/// Texts that a checkpoint generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// Nobody asked for any.
    Unasked,
    /// Texts with their prompt at the start, and the checkpoint that they are from.
    Texts {
        checkpoint: String,
        texts: Vec<String>,
    },
    /// The reason why there is none.
    Failed(String),
}

pub(super) fn section(samples: &Samples) -> String {
    let body = match samples {
        Samples::Unasked => return String::new(),
        Samples::Failed(reason) => {
            format!(
                "<p class=\"note\">There are none: {}.</p>\n",
                escaped(reason)
            )
        }
        Samples::Texts { checkpoint, texts } => {
            let from = format!(
                "<p class=\"note\">Text that <code>{}</code> generates, starting from a line feed.</p>\n",
                escaped(checkpoint)
            );
            let figures = texts.iter().enumerate().map(|(index, text)| {
                format!(
                    "<figure><figcaption>Sample {}</figcaption><pre>{}</pre></figure>\n",
                    index + 1,
                    escaped(text.trim_matches('\n'))
                )
            });
            from + &figures.collect::<String>()
        }
    };
    section_of("samples", "Samples", &body)
}
