//! Generation of tokens for many prompts at once.

use rayon::prelude::*;

use super::batch::{Sequence, Slots};
use super::{Candidates, SamplingError, SamplingSettings};
use crate::checkpoint::Pretrained;
use crate::faults::Site;
use crate::memory::Memory;
use crate::ops::backend::Backend;
use crate::rng::{Seed, Stream};
use crate::step::inference::Inference;
use crate::step::recovery::Recovery;
use crate::terms::{NamedChoice, Precision, Recompute, Rung};

/// A prompt to continue. Its draws are those of the number of the sample.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub prompt: &'a [u32],
    pub sample: u32,
}

/// A model and its weights, for a batch of sequences.
pub struct Generator {
    model: Inference,
    slots: Slots,
    /// Tokens of the longest sequence.
    longest: usize,
    /// Ids the tokenizer knows; rows of padding beyond them are never chosen.
    vocab_size: usize,
    sequences: usize,
}

impl Generator {
    /// Rungs for `sequences` at a time: half as many, and so on to one, whose keys and values are cached. Without memory for
    /// those, one whose keys and values are computed again for every token.
    pub fn ladder(sequences: usize) -> Vec<Rung> {
        let rung = |sequences, recompute| Rung {
            micro_batch: sequences,
            recompute,
            logits_rows: sequences,
        };
        let halves = std::iter::successors(Some(sequences.max(1)), |&more| {
            (more > 1).then_some(more / 2)
        });
        let cached = halves.map(|sequences| rung(sequences, Recompute::None));
        cached.chain([rung(1, Recompute::Block)]).collect()
    }

    /// Positions of the contexts of a model whose longest sequence has so many tokens.
    pub fn positions(block_size: usize, longest: usize) -> usize {
        longest.clamp(1, block_size)
    }

    /// Allocates the model for up to `sequences` sequences at a time of up to `longest` tokens, and reads its weights.
    ///
    /// # Errors
    /// When the memory for the model is refused, or its weights cannot be read.
    pub fn new(
        pretrained: &Pretrained,
        vocab_size: usize,
        (sequences, longest): (usize, usize),
        backend: Box<dyn Backend>,
        memory: Memory,
    ) -> Result<Self, SamplingError> {
        let dims = &pretrained.dims;
        let positions = Self::positions(dims.block_size, longest);
        let ladder = Self::ladder(sequences);
        let mut model = Inference::for_generation(positions, dims, backend, ladder, memory)?;
        model.load(|weights, _| {
            pretrained
                .load_usable_weights(dims, Precision::Float32, weights)
                .map_err(SamplingError::from)
        })?;
        Ok(Self {
            model,
            slots: Slots::default(),
            longest: if positions < dims.block_size {
                positions
            } else {
                usize::MAX
            },
            vocab_size: vocab_size.min(dims.vocab_size),
            sequences: sequences.max(1),
        })
    }

    /// Continues the prompts of `requests`, which begin in their order, as many at a time as there is memory for. `emit`
    /// gets the number of a request and its next token, or none when the text has as many as the settings say; it returns
    /// whether the text goes on. The context is the last `block_size` tokens.
    ///
    /// # Errors
    /// An empty prompt, a prompt token that the model has no row for, or what `emit` returns.
    ///
    /// # Panics
    /// If a sequence gets longer than [`Generator::new`] was told.
    pub fn generate<'a, E: From<SamplingError>>(
        &mut self,
        requests: impl IntoIterator<Item = Request<'a>>,
        settings: &SamplingSettings,
        mut emit: impl FnMut(usize, Option<u32>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut waiting = requests.into_iter().enumerate();
        let mut running: Vec<Sequence> = Vec::new();
        let mut logits = Vec::new();
        loop {
            while running.len() < self.sequences {
                let Some((number, Request { prompt, sample })) = waiting.next() else {
                    break;
                };
                self.check(prompt)?;
                let tokens = prompt.len().saturating_add(settings.max_new_tokens);
                assert!(tokens <= self.longest, "a sequence of {tokens} tokens");
                if settings.max_new_tokens == 0 {
                    emit(number, None)?;
                } else {
                    running.push(Sequence::new(number, sample, prompt));
                }
            }
            if running.is_empty() {
                return Ok(());
            }
            let tokens = self.next_tokens(&mut running, settings, &mut logits)?;
            let mut tokens = tokens.into_iter();
            for mut sequence in std::mem::take(&mut running) {
                // There may have been no slot for it.
                let goes_on = match tokens.next() {
                    None => true,
                    Some(token) => {
                        sequence.tokens.push(token);
                        let is_full = sequence.new_tokens() == settings.max_new_tokens;
                        let goes_on = emit(sequence.number, Some(token))?;
                        if goes_on && is_full {
                            emit(sequence.number, None)?;
                        }
                        goes_on && !is_full
                    }
                };
                if goes_on {
                    running.push(sequence);
                }
            }
        }
    }

    /// The next tokens of the first sequences, as many as there is memory for.
    fn next_tokens(
        &mut self,
        running: &mut [Sequence],
        settings: &SamplingSettings,
        logits: &mut Vec<f32>,
    ) -> Result<Vec<u32>, SamplingError> {
        let slots = &mut self.slots;
        let count = self.model.run(|state, workspace, memory| {
            // After a refusal the keys and values are gone.
            memory
                .enter(Site::Sampling)
                .inspect_err(|_| slots.forget())?;
            slots
                .next_logits(workspace, state, running, logits)
                .map_err(|refused| memory.refusal(Site::Sampling, refused))
                .map_err(SamplingError::from)
                .inspect_err(|_| slots.forget())
        })?;
        let (columns, vocab_size) = (logits.len() / count, self.vocab_size);
        let of_sequences = running[..count].par_iter().zip(logits.par_chunks(columns));
        let tokens = of_sequences.map(|(sequence, logits)| {
            let (index, sample) = (sequence.new_tokens() as u32, sequence.sample);
            let draw = Seed(settings.seed).uniform(Stream::Sampling, 0, index, sample);
            Candidates::new(&logits[..vocab_size], &sequence.tokens, settings).choose(draw)
        });
        Ok(tokens.collect())
    }

    /// Recoveries since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        self.model.take_recoveries()
    }

    /// Choices about GEMMs since the last call.
    pub fn take_choices(&self) -> Vec<NamedChoice> {
        self.model.take_choices()
    }

    /// # Errors
    /// An empty prompt, or a prompt token that the model has no row for.
    pub fn check(&self, prompt: &[u32]) -> Result<(), SamplingError> {
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
