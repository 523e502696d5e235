//! Sampling of tokens: temperature, top-k, one sample after another.

use crate::checkpoint::{CheckpointError, Pretrained};
use crate::faults::Site;
use crate::memory::{AllocationError, Memory, OutOfMemory, Recoverable};
use crate::ops::backend::Backend;
use crate::rng::{Seed, Stream};
use crate::step::inference::Inference;
use crate::step::recovery::Recovery;
use crate::terms::{NamedChoice, Precision, Recompute, Rung};

/// Settings of sampling, with nanoGPT's names and meanings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingSettings {
    pub max_new_tokens: usize,
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f64,
    /// Only this many likeliest tokens are candidates.
    pub top_k: usize,
    pub seed: u64,
}

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

/// A model and its weights, for one sequence at a time.
pub struct Generator {
    model: Inference,
    block_size: usize,
    /// Ids the tokenizer knows; rows of padding beyond them are never chosen.
    vocab_size: usize,
}

impl Generator {
    /// One sequence, with keys and values kept. Without memory for them, all are computed again for every token.
    pub const LADDER: [Rung; 2] = [
        Rung {
            micro_batch: 1,
            recompute: Recompute::None,
            logits_rows: 1,
        },
        Rung {
            micro_batch: 1,
            recompute: Recompute::Block,
            logits_rows: 1,
        },
    ];

    /// Allocates the model and reads its weights.
    ///
    /// # Errors
    /// When the memory for the model is refused, or its weights cannot be read.
    pub fn new(
        pretrained: &Pretrained,
        vocab_size: usize,
        backend: Box<dyn Backend>,
        memory: Memory,
    ) -> Result<Self, SamplingError> {
        let dims = &pretrained.dims;
        let mut model = Inference::new(dims, backend, Self::LADDER.into(), memory)?;
        model.load(|weights, _| {
            pretrained
                .load_usable_weights(dims, Precision::Float32, weights)
                .map_err(SamplingError::from)
        })?;
        Ok(Self {
            model,
            block_size: dims.block_size,
            vocab_size: vocab_size.min(dims.vocab_size),
        })
    }

    /// Continues `prompt`. Sample number `sample` of a seed is always the same. Every token goes to
    /// `emit`, which returns whether to go on. The context is the last `block_size` tokens.
    ///
    /// # Errors
    /// An empty prompt, a prompt token that the model has no row for, or what `emit` returns.
    pub fn generate<E: From<SamplingError>>(
        &mut self,
        prompt: &[u32],
        settings: &SamplingSettings,
        sample: u32,
        mut emit: impl FnMut(u32) -> Result<bool, E>,
    ) -> Result<(), E> {
        self.check(prompt)?;
        let block_size = self.block_size;
        let mut tokens = prompt.to_vec();
        // Tokens of the context that the model has seen at their present positions.
        let mut known = 0;
        for index in 0..settings.max_new_tokens {
            let start = tokens.len().saturating_sub(block_size);
            if start > 0 {
                // The window moved, so every token has a new position.
                known = 0;
            }
            let context = &tokens[start..];
            let draw = Seed(settings.seed).uniform(Stream::Sampling, 0, index as u32, sample);
            let vocab_size = self.vocab_size;
            let token: Result<u32, SamplingError> = self.model.run(|state, workspace, memory| {
                // After a refusal the keys and values are gone.
                memory.enter(Site::Sampling).inspect_err(|_| known = 0)?;
                let logits = workspace
                    .next_logits(state, context, known)
                    .map_err(|refused| memory.refusal(Site::Sampling, refused))
                    .inspect_err(|_| known = 0)?;
                Ok(choose(&logits[..vocab_size], settings, draw))
            });
            let token = token?;
            known = context.len();
            tokens.push(token);
            if !emit(token)? {
                break;
            }
        }
        Ok(())
    }

    /// Recoveries since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        self.model.take_recoveries()
    }

    /// Choices about GEMMs since the last call.
    pub fn take_choices(&self) -> Vec<NamedChoice> {
        self.model.take_choices()
    }

    fn check(&self, prompt: &[u32]) -> Result<(), SamplingError> {
        if prompt.is_empty() {
            return Err(SamplingError::EmptyPrompt);
        }
        let vocab_size = self.vocab_size;
        match prompt.iter().find(|&&id| id as usize >= vocab_size) {
            None => Ok(()),
            Some(&id) => Err(SamplingError::UnknownToken { id, vocab_size }),
        }
    }
}

/// The token that `draw`, uniform in [0, 1), selects from the softmax of the `top_k` largest
/// `logits` divided by the temperature.
fn choose(logits: &[f32], settings: &SamplingSettings, draw: f64) -> u32 {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    // Larger first; equal ones, and NaN, by id.
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    if settings.temperature == 0.0 {
        return order[0];
    }
    order.truncate(settings.top_k);
    let top = f64::from(logits[order[0] as usize]);
    let weight = |id: u32| ((f64::from(logits[id as usize]) - top) / settings.temperature).exp();
    let total: f64 = order.iter().map(|&id| weight(id)).sum();
    let mut left = draw * total;
    for &id in &order {
        left -= weight(id);
        if left < 0.0 {
            return id;
        }
    }
    order[order.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: SamplingSettings = SamplingSettings {
        max_new_tokens: 1,
        temperature: 1.0,
        top_k: 3,
        seed: 0,
    };

    #[test]
    fn tokens_are_chosen_in_proportion_to_their_probability() {
        let logits = [0.0f32, 2f32.ln(), f32::NEG_INFINITY, 5f32.ln()];
        let mut counts = [0; 4];
        for i in 0..8000 {
            counts[choose(&logits, &SETTINGS, f64::from(i) / 8000.0) as usize] += 1;
        }
        for (count, want) in counts.iter().zip([1000, 2000, 0, 5000i32]) {
            assert!((count - want).abs() <= 1, "{counts:?}");
        }
    }

    #[test]
    fn top_k_leaves_only_the_likeliest_and_temperature_zero_only_the_first() {
        let logits = [1.0f32, 3.0, 2.0];
        let two = SamplingSettings {
            top_k: 2,
            ..SETTINGS
        };
        let greedy = SamplingSettings {
            temperature: 0.0,
            ..SETTINGS
        };
        for i in 0..100 {
            let draw = f64::from(i) / 100.0;
            assert_ne!(choose(&logits, &two, draw), 0);
            assert_eq!(choose(&logits, &greedy, draw), 1);
        }
    }
}
