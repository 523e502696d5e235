//! Sampling of tokens and texts, many at once.
//!
//! [`Candidates`] are the tokens that may come next, by nanoGPT's and transformers' settings. A [`Generator`] continues
//! many prompts as one batch, with the keys and values of earlier positions cached. [`write_texts`] turns its tokens into
//! texts that end where they should.
//!
//! A text is a function of the weights, the prompt, the settings and the number of the sample. On a CPU neither the batch
//! that it is computed in nor memory that was refused changes a bit of it.

mod batch;
mod candidates;
mod generator;
mod settings;
mod text;

pub use candidates::Candidates;
pub use generator::{Generator, Request};
pub use settings::SamplingSettings;
pub use text::{Ended, Finish, TextStream, Writing, write_texts};

use crate::checkpoint::CheckpointError;
use crate::memory::{AllocationError, OutOfMemory, Recoverable};

/// Text that cannot be generated.
#[derive(Debug, thiserror::Error)]
pub enum SamplingError {
    #[error(transparent)]
    Allocation(#[from] AllocationError),
    /// The weights cannot be read.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    #[error("the prompt is empty")]
    EmptyPrompt,
    #[error("the prompt has token {id}, but the model has {vocab_size} token ids")]
    UnknownToken { id: u32, vocab_size: usize },
    #[error("`{flag} {value}` {fault}")]
    Setting {
        flag: &'static str,
        value: f64,
        fault: &'static str,
        hint: &'static str,
    },
    #[error("`--stop ''` is found before any text")]
    EmptyStop,
}

impl SamplingError {
    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Allocation(error) => Some(error.hint()),
            Self::Weights(error) => error.hint(),
            Self::EmptyPrompt => {
                Some("give some text to continue, such as `--prompt \"ROMEO:\"`".into())
            }
            Self::UnknownToken { .. } => Some(
                "the tokenizer beside the weights is not the one they were trained with".into(),
            ),
            Self::Setting { hint, .. } => Some((*hint).into()),
            Self::EmptyStop => {
                Some("give some text, such as `--stop \"END\"`, or leave it out".into())
            }
        }
    }
}

impl Recoverable for SamplingError {
    fn into_out_of_memory(self) -> Result<OutOfMemory, Self> {
        match self {
            Self::Allocation(error) => error.into_out_of_memory().map_err(Self::Allocation),
            Self::Weights(error) => error.into_out_of_memory().map_err(Self::Weights),
            other => Err(other),
        }
    }
}
