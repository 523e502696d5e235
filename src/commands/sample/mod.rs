//! `taper sample`: texts from a checkpoint.

mod model;
mod output;
mod prompt;

use std::path::Path;

use crate::checkpoint::Pretrained;
use crate::commands::{in_thread_pool, until_reader_leaves};
use crate::config::DeviceRequest;
use crate::error::{Error, Result};
use crate::faults::Injection;
use crate::report::say;
use crate::sampling::{Generator, Request, SamplingError, SamplingSettings, Writing, write_texts};
use crate::step::recovery::Recovery;
use crate::terms::{NamedChoice, Recompute};
use crate::tokenizer::Tokenizer;
use crate::units::parse_bytes;

use model::BatchSizes;
pub(super) use model::{threads, tokenizer, weights};
use output::Output;

/// Most texts at a time where `--batch-size` says nothing: beyond, a CPU has no more texts per second.
const MOST_AT_A_TIME: usize = 32;

/// Generate text from a checkpoint
#[derive(Clone, Debug, clap::Args)]
pub struct SampleArgs {
    /// A checkpoint, a run's folder (its newest checkpoint), nanoGPT's `ckpt.pt`, a Hugging Face GPT-2, a .bin of llm.c, or
    /// a model of the hub (`gpt2`, `owner/model`), which is downloaded if it is not in its cache
    #[arg(long, value_name = "FOLDER")]
    pub checkpoint: String,
    /// The text to continue, special tokens in it included; `FILE:PATH` reads it from a file, which may hold a text that
    /// looks otherwise here; `-` reads standard input [default: a line feed]
    #[arg(long, allow_hyphen_values = true, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Several texts to continue, a line of this file each; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompts: Option<String>,
    /// How many texts to generate, of every prompt
    #[arg(long, default_value_t = 1)]
    pub num_samples: u32,
    /// Tokens per text, the prompt's not counted
    #[arg(long, default_value_t = SamplingSettings::default().max_new_tokens)]
    pub max_new_tokens: usize,
    /// Below 1: likelier tokens more often; 0: always the likeliest
    #[arg(long, default_value_t = SamplingSettings::default().temperature)]
    pub temperature: f64,
    /// Choose only among this many likeliest tokens
    #[arg(long, default_value_t = SamplingSettings::default().top_k)]
    pub top_k: usize,
    /// Choose only among the likeliest tokens that together have this probability; 1: all
    #[arg(long, default_value_t = SamplingSettings::default().top_p)]
    pub top_p: f64,
    /// Choose only among tokens with this share of the likeliest one's probability; 0: all
    #[arg(long, default_value_t = SamplingSettings::default().min_p)]
    pub min_p: f64,
    /// Above 1: tokens that are in the text already come less often
    #[arg(long, value_name = "FACTOR", default_value_t = SamplingSettings::default().repetition_penalty)]
    pub repetition_penalty: f64,
    /// End a text before this one; may be given several times
    #[arg(long, allow_hyphen_values = true, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// The same seed gives the same texts
    #[arg(long, default_value_t = SamplingSettings::default().seed)]
    pub seed: u64,
    /// Texts computed at a time, if memory allows; it changes none of them [default: all, at most 32]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Print one JSON object per text instead: sample, prompt, text, tokens, finish
    #[arg(long)]
    pub json: bool,
    /// `auto` (the first GPU, else the CPU), `cpu`, `cuda`, or a GPU by its number, such as `cuda:1`
    #[arg(long, default_value = "auto")]
    pub device: DeviceRequest,
    /// CPU threads [default: every core]
    #[arg(long)]
    pub threads: Option<usize>,
    /// The most memory to hold, such as `2GiB` [default: what is available]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub memory_limit: Option<u64>,
    /// For tests: fail where a device may, `SITE:FIRST[-[LAST]][!]`
    #[arg(long, value_name = "FAULT", hide = true)]
    pub inject: Vec<Injection>,
}

/// The place where texts are computed.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    pub device: DeviceRequest,
    /// CPU threads; `None` for every core.
    pub threads: Option<usize>,
    /// The most memory to hold, in bytes; `None` for what is available.
    pub memory_limit: Option<u64>,
    /// Faults that are played, for tests.
    pub inject: Vec<Injection>,
}

pub fn run(args: SampleArgs) -> Result<()> {
    let settings = settings(&args)?;
    let weights = weights(&args.checkpoint)?;
    let tokenizer = tokenizer(&weights)?;
    let texts = prompt::texts(args.prompt.as_deref(), args.prompts.as_deref(), &tokenizer)?;
    let encoded = texts.iter().map(|text| tokenizer.encode_prompt(text));
    let prompts = encoded.collect::<std::result::Result<Vec<_>, _>>()?;
    let asked = Asked {
        prompts: &prompts,
        count: args.num_samples,
        most_at_a_time: args.batch_size.unwrap_or(MOST_AT_A_TIME),
        settings: &settings,
        stop: &args.stop,
    };
    let launch = Launch {
        device: args.device,
        threads: args.threads,
        memory_limit: args.memory_limit,
        inject: args.inject.clone(),
    };
    let mut output = Output::new(&texts, args.num_samples, args.json);
    let done = write(
        &asked,
        &weights,
        &tokenizer,
        &launch,
        |number, text, ended| output.add(number, text, ended),
    );
    until_reader_leaves(done)
}

/// Generates `count` texts that follow `prompt`; it is not part of them. Notes and warnings go to stderr.
///
/// # Errors
/// Settings out of their ranges, a prompt that is no text of the vocabulary, and those of the device and its memory.
pub fn texts(
    weights: &Pretrained,
    tokenizer: &Tokenizer,
    prompt: &str,
    count: u32,
    settings: &SamplingSettings,
    launch: &Launch,
) -> Result<Vec<String>> {
    let asked = Asked {
        prompts: &[tokenizer.encode_prompt(prompt)?],
        count,
        most_at_a_time: MOST_AT_A_TIME,
        settings,
        stop: &[],
    };
    let mut texts = Vec::new();
    write(&asked, weights, tokenizer, launch, |number, text, _| {
        if texts.len() <= number {
            texts.resize(number + 1, String::new());
        }
        texts[number].push_str(text);
        Ok(())
    })?;
    Ok(texts)
}

/// Texts that a checkpoint generates by itself, each with its beginning, in the way of `taper sample` without flags.
///
/// # Errors
/// As for [`texts`], and those of the checkpoint.
pub(super) fn texts_of(
    checkpoint: &Path,
    count: u32,
    max_new_tokens: usize,
) -> Result<Vec<String>> {
    let weights = weights(&checkpoint.to_string_lossy())?;
    let tokenizer = tokenizer(&weights)?;
    let prompts = prompt::texts(None, None, &tokenizer)?;
    let prompt = prompts.first().map_or("", String::as_str);
    let settings = SamplingSettings {
        max_new_tokens,
        ..SamplingSettings::default()
    };
    let texts = texts(
        &weights,
        &tokenizer,
        prompt,
        count,
        &settings,
        &Launch::default(),
    )?;
    let whole = texts.into_iter().map(|text| format!("{prompt}{text}"));
    Ok(whole.collect())
}

/// Texts to generate: `count` of every prompt, prompt after prompt.
struct Asked<'a> {
    prompts: &'a [Vec<u32>],
    count: u32,
    most_at_a_time: usize,
    settings: &'a SamplingSettings,
    stop: &'a [String],
}

impl<'a> Asked<'a> {
    fn requests(&self) -> impl Iterator<Item = Request<'a>> + use<'a> {
        let count = self.count;
        let prompts = self.prompts.iter();
        prompts.flat_map(move |prompt| (0..count).map(move |sample| Request { prompt, sample }))
    }

    fn sizes(&self, tokenizer: &Tokenizer) -> BatchSizes {
        let texts = self.prompts.len().saturating_mul(self.count as usize);
        let prompt = self.prompts.iter().map(Vec::len).max().unwrap_or(0);
        BatchSizes {
            sequences: texts.min(self.most_at_a_time),
            longest: prompt.saturating_add(self.settings.max_new_tokens),
            vocab_size: tokenizer.vocab_size(),
        }
    }
}

/// Writes the texts into `emit`: see [`write_texts`].
fn write(
    asked: &Asked,
    weights: &Pretrained,
    tokenizer: &Tokenizer,
    launch: &Launch,
    emit: impl FnMut(usize, &str, Option<crate::sampling::Ended>) -> Result<()> + Send,
) -> Result<()> {
    asked.settings.check()?;
    let threads = threads(launch.threads);
    in_thread_pool(threads, || {
        let sizes = asked.sizes(tokenizer);
        let mut generator = model::generator(launch, weights, sizes, threads)?;
        for prompt in asked.prompts {
            generator.check(prompt)?;
        }
        let writing = Writing {
            tokenizer,
            settings: asked.settings,
            stop: asked.stop,
            is_end: &|token| model::is_end(weights, tokenizer, token),
        };
        let written = write_texts(&mut generator, asked.requests(), writing, emit);
        tell(&mut generator);
        written
    })
}

fn settings(args: &SampleArgs) -> Result<SamplingSettings> {
    let usage = |what: &str, hint: &str| {
        Err(Error::Usage {
            what: what.into(),
            hint: hint.into(),
        })
    };
    if args.num_samples == 0 {
        let hint = "give 1 or more, or leave it out";
        return usage("`--num-samples 0` asks for no text", hint);
    }
    if args.batch_size == Some(0) {
        let hint = "give 1 or more, or leave it out";
        return usage("`--batch-size 0` computes no text", hint);
    }
    if args.threads == Some(0) {
        let hint = "give 1 or more, or leave it out to use every core";
        return usage("`--threads 0` leaves nobody to do the work", hint);
    }
    let settings = SamplingSettings {
        max_new_tokens: args.max_new_tokens,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        seed: args.seed,
    };
    settings.check()?;
    if args.stop.iter().any(String::is_empty) {
        return Err(SamplingError::EmptyStop.into());
    }
    Ok(settings)
}

/// Prints refusals of memory and choices, after the texts and not in the middle of one.
fn tell(generator: &mut Generator) {
    for recovery in generator.take_recoveries() {
        let follows = follow_up(&recovery);
        say(format_args!("warning: {}; {follows}", recovery.refusal));
    }
    for choice in generator.take_choices() {
        let NamedChoice {
            name,
            value,
            because,
        } = choice;
        say(format_args!("note: {name} = {value} ({because})"));
    }
}

fn follow_up(recovery: &Recovery) -> String {
    if !recovery.is_descent() {
        "released what can be made again, trying once more".into()
    } else if recovery.to.recompute == Recompute::Block {
        "going on without keeping keys and values: slower, the same text".into()
    } else {
        let sequences = recovery.to.micro_batch;
        format!("going on with {sequences} texts at a time: slower, the same texts")
    }
}
