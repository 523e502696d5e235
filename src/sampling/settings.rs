//! Settings of sampling.

use super::SamplingError;

/// Settings of sampling, with nanoGPT's and transformers' names, meanings and order: the penalty, the temperature, top-k,
/// top-p, min-p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingSettings {
    pub max_new_tokens: usize,
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f64,
    /// Only this many likeliest tokens are candidates, and those as likely as the last of them.
    pub top_k: usize,
    /// Only the likeliest tokens that together have at least this probability are candidates; 1 for all.
    pub top_p: f64,
    /// Only tokens with at least this share of the likeliest one's probability are candidates; 0 for all.
    pub min_p: f64,
    /// Divides the logits of the tokens in the context that are positive, and multiplies those that are negative; 1 leaves
    /// them (Keskar et al. 2019, arXiv:1909.05858, as transformers has it).
    pub repetition_penalty: f64,
    pub seed: u64,
}

impl Default for SamplingSettings {
    /// nanoGPT's settings, and none that it does not have.
    fn default() -> Self {
        Self {
            max_new_tokens: 500,
            temperature: 0.8,
            top_k: 200,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 1337,
        }
    }
}

impl SamplingSettings {
    /// # Errors
    /// The first setting that is out of its range.
    pub fn check(&self) -> Result<(), SamplingError> {
        let refuse = |flag, value, fault, hint| {
            Err(SamplingError::Setting {
                flag,
                value,
                fault,
                hint,
            })
        };
        // Comparisons with NaN are false.
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            let hint = "0 always takes the likeliest token, 1 leaves the probabilities as they are; \
                        try `--temperature 0.8`";
            return refuse("--temperature", self.temperature, "is not 0 or more", hint);
        }
        if self.top_k == 0 {
            let hint = "give 1 or more, such as `--top-k 200`; the size of the vocabulary leaves all tokens";
            return refuse("--top-k", 0.0, "leaves no token to choose", hint);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            let hint = "give a probability such as `--top-p 0.95`; 1 leaves all tokens";
            return refuse("--top-p", self.top_p, "is not above 0 and at most 1", hint);
        }
        if !(self.min_p >= 0.0 && self.min_p <= 1.0) {
            let hint = "give a share of the likeliest token's probability such as `--min-p 0.05`; \
                        0 leaves all tokens";
            return refuse("--min-p", self.min_p, "is not from 0 to 1", hint);
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            let (value, fault) = (self.repetition_penalty, "is not above 0");
            let hint = "above 1 makes repetitions rarer, such as `--repetition-penalty 1.2`; 1 changes nothing";
            return refuse("--repetition-penalty", value, fault, hint);
        }
        Ok(())
    }
}
