//! `taper sample`: text from a checkpoint.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::checkpoint::{Pretrained, find_or_download};
use crate::commands::backends::{self, Computing};
use crate::commands::{in_thread_pool, print_now, prompt, until_reader_leaves};
use crate::config::DeviceRequest;
use crate::data::tokenizer_of_meta_pickle;
use crate::device::{DeviceProfile, FoundDevice, Hardware, find};
use crate::error::{Error, Result};
use crate::faults::{Faults, Injection};
use crate::memory::Memory;
use crate::model::Program;
use crate::ops::gemm::{Table, Unwatched, cpu};
use crate::plan::{check_kernels, memory_of};
use crate::report::{DownloadProgress, ReportOptions, say};
use crate::sampling::{Generator, SamplingError, SamplingSettings};
use crate::step::recovery::Recovery;
use crate::terms::{
    Effort, Engine, GemmBackend, Inputs, Job, ModelDims, NamedChoice, Precision, expand_home,
};
use crate::tokenizer::Tokenizer;
use crate::units::parse_bytes;

/// Generate text from a checkpoint
#[derive(Clone, Debug, clap::Args)]
pub struct SampleArgs {
    /// A checkpoint, a run's folder (its newest checkpoint), nanoGPT's `ckpt.pt`, a Hugging Face GPT-2, a .bin of llm.c, or
    /// a model of the hub (`gpt2`, `owner/model`), which is downloaded if it is not in its cache
    #[arg(long, value_name = "FOLDER")]
    pub checkpoint: String,
    /// The text to continue, special tokens in it included; `FILE:PATH` reads it from a file [default: a line feed]
    #[arg(long, allow_hyphen_values = true, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// How many texts to generate
    #[arg(long, default_value_t = 1)]
    pub num_samples: u32,
    /// Tokens per text, the prompt's not counted
    #[arg(long, default_value_t = 500)]
    pub max_new_tokens: usize,
    /// Below 1: likelier tokens more often; 0: always the likeliest
    #[arg(long, default_value_t = 0.8)]
    pub temperature: f64,
    /// Choose only among this many likeliest tokens
    #[arg(long, default_value_t = 200)]
    pub top_k: usize,
    /// The same seed gives the same texts
    #[arg(long, default_value_t = 1337)]
    pub seed: u64,
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

pub fn run(args: SampleArgs) -> Result<()> {
    let settings = settings(&args)?;
    let weights = weights(&args.checkpoint)?;
    let tokenizer = tokenizer(&weights)?;
    let prompt = prompt::text(args.prompt.as_deref(), &tokenizer)?;
    let tokens = tokenizer.encode_prompt(&prompt)?;
    let threads = threads(args.threads);
    let is_end = |token| {
        let ends = tokenizer.is_special(token) && weights.end_of_text.contains(&token);
        ends || Some(token) == tokenizer.end_of_text()
    };
    let done = in_thread_pool(threads, || {
        let mut generator = generator(&args, &weights, tokenizer.vocab_size(), threads)?;
        for sample in 0..args.num_samples {
            if sample > 0 {
                print_now("\n---------------\n")?;
            }
            print_now(&prompt)?;
            let mut text = tokenizer.decode_stream();
            let generated: Result<()> = generator.generate(&tokens, &settings, sample, |token| {
                if is_end(token) {
                    return Ok(false);
                }
                // As transformers prints a text: without special tokens.
                if !tokenizer.is_special(token) {
                    print_now(&text.push(token))?;
                }
                Ok(true)
            });
            warn(generator.take_recoveries());
            for choice in generator.take_choices() {
                let NamedChoice {
                    name,
                    value,
                    because,
                } = choice;
                say(format_args!("note: {name} = {value} ({because})"));
            }
            generated?;
            print_now(&text.finish())?;
        }
        print_now("\n")
    });
    until_reader_leaves(done)
}

/// The tokenizer of a model. One that lies elsewhere, or that is taken for GPT-2's, is said to be.
pub(super) fn tokenizer(weights: &Pretrained) -> Result<Tokenizer> {
    let (folder, vocab_size) = (weights.folder(), weights.dims.vocab_size);
    if let Some(characters) = characters(weights)? {
        return Ok(characters);
    }
    let found = Tokenizer::of_model(folder, vocab_size)?;
    if found.is_assumed {
        let folder = folder.display();
        say(format_args!(
            "note: `{folder}` has no tokenizer.json; its tokens are taken for GPT-2's"
        ));
    }
    Ok(found.tokenizer)
}

/// The characters of the dataset that nanoGPT trained a model on, from where its `sample.py` looks for them.
fn characters(weights: &Pretrained) -> Result<Option<Tokenizer>> {
    let Some(dataset) = &weights.dataset else {
        return Ok(None);
    };
    let path = Path::new("data").join(dataset).join("meta.pkl");
    if !path.is_file() {
        return Ok(None);
    }
    let found = tokenizer_of_meta_pickle(&path)?;
    let (path, vocab_size) = (path.display(), weights.dims.vocab_size);
    let found = found.filter(|tokenizer| tokenizer.vocab_size() <= vocab_size);
    if found.is_some() {
        say(format_args!(
            "note: its tokens are the characters of `{path}`, as nanoGPT has it"
        ));
    } else {
        say(format_args!(
            "note: `{path}` has no characters for its {vocab_size} tokens"
        ));
    }
    Ok(found)
}

/// Threads to compute in: as many as asked for, but not more than there are cores, where they would wait for one another.
pub(super) fn threads(asked: Option<usize>) -> usize {
    match (asked, DeviceProfile::cpu().cores()) {
        (Some(asked), Some(cores)) if asked > cores => {
            say(format_args!(
                "note: threads = {cores} (`--threads` says {asked}, and this process may use {cores} cores)"
            ));
            cores
        }
        (asked, cores) => asked.or(cores).unwrap_or(1),
    }
}

/// The model on the device that was asked for. `auto` passes over a GPU that cannot do it now, and says so.
fn generator(
    args: &SampleArgs,
    weights: &Pretrained,
    vocab_size: usize,
    threads: usize,
) -> Result<Generator> {
    let on = |found: &FoundDevice| generator_on(found, args, weights, vocab_size, threads);
    let found = find(args.device);
    let is_cpu = found.as_ref().is_ok_and(|found| found.ordinal.is_none());
    let made = found.map_err(Error::from).and_then(|found| on(&found));
    match made {
        Err(error) if args.device == DeviceRequest::Auto && !is_cpu && is_of_device(&error) => {
            say(format_args!(
                "note: on the CPU, for the GPU is of no use now: {error}"
            ));
            on(&find(DeviceRequest::Cpu)?)
        }
        made => made,
    }
}

/// Whether another device may help.
fn is_of_device(error: &Error) -> bool {
    use SamplingError::Allocation;
    matches!(
        error,
        Error::Device(_) | Error::Usage { .. } | Error::Sampling(Allocation(_))
    )
}

fn generator_on(
    found: &FoundDevice,
    args: &SampleArgs,
    weights: &Pretrained,
    vocab_size: usize,
    threads: usize,
) -> Result<Generator> {
    let FoundDevice {
        profile, ordinal, ..
    } = found;
    check_kernels(&weights.dims, profile).map_err(|error| Error::Usage {
        what: error.to_string(),
        hint: "add `--device cpu`".into(),
    })?;
    let computing = Computing {
        threads,
        precision: Precision::Float32,
        inputs: Inputs::Float32,
        gemm: Effort::Off,
        gemm_backend: GemmBackend::Auto,
        cuda_graph: false,
    };
    let search = backends::Search {
        stored: Table::default(),
        watch: Box::new(Unwatched),
    };
    let memory = memory(profile, threads, &weights.dims, args);
    let (backend, memory) = backends::open(*ordinal, profile, computing, search, memory)?;
    Ok(Generator::new(weights, vocab_size, backend, memory)?)
}

/// The device's memory, with what is not for buffers held already.
fn memory(device: &DeviceProfile, threads: usize, dims: &ModelDims, args: &SampleArgs) -> Memory {
    let packed = match device.hardware {
        Hardware::Cpu(_) => {
            let (engine, precision) = (Engine::Cpu { threads }, Precision::Float32);
            let rung = Generator::LADDER[0];
            let program = Program::of(Job::Evaluate, dims, rung, engine, precision);
            let problems = program.problems(Inputs::Float32);
            let extensions = device.vector_extensions();
            cpu::packed_bytes(&problems, threads, Effort::Off, extensions)
        }
        Hardware::Cuda(_) => 0,
    };
    let faults = Faults::new(args.inject.clone());
    memory_of(device, args.memory_limit, threads, packed, faults)
}

fn settings(args: &SampleArgs) -> Result<SamplingSettings> {
    let usage = |what: String, hint: &str| Error::Usage {
        what,
        hint: hint.into(),
    };
    if !(args.temperature >= 0.0 && args.temperature.is_finite()) {
        return Err(usage(
            format!("`--temperature {}` is not 0 or more", args.temperature),
            "0 always takes the likeliest token, 1 leaves the probabilities as they are; \
             try `--temperature 0.8`",
        ));
    }
    if args.top_k == 0 {
        return Err(usage(
            "`--top-k 0` leaves no token to choose".into(),
            "give 1 or more, such as `--top-k 200`",
        ));
    }
    if args.num_samples == 0 {
        return Err(usage(
            "`--num-samples 0` asks for no text".into(),
            "give 1 or more, or leave it out",
        ));
    }
    if args.threads == Some(0) {
        return Err(usage(
            "`--threads 0` leaves nobody to do the work".into(),
            "give 1 or more, or leave it out to use every core",
        ));
    }
    Ok(SamplingSettings {
        max_new_tokens: args.max_new_tokens,
        temperature: args.temperature,
        top_k: args.top_k,
        seed: args.seed,
    })
}

/// Finds the weights that `--checkpoint` names, and says what there is to know about them.
pub(super) fn weights(asked: &str) -> Result<Pretrained> {
    let asked = expand_home(asked);
    // Ctrl-C ends this verb at once.
    let uninterrupted = AtomicBool::new(false);
    let progress = DownloadProgress::new(ReportOptions::detect(false, false), &uninterrupted);
    let found = find_or_download(&asked.to_string_lossy(), &progress)?;
    for skipped in &found.skipped {
        say(format_args!(
            "warning: skipped the damaged checkpoint {skipped}"
        ));
    }
    for note in &found.notes {
        say(format_args!("note: {note}"));
    }
    Ok(found.pretrained)
}

/// Prints refusals of memory, after a text and not in the middle of it.
fn warn(recoveries: Vec<Recovery>) {
    for recovery in recoveries {
        let follows = if recovery.is_descent() {
            "going on without keeping keys and values: slower, the same text"
        } else {
            "released what can be made again, trying once more"
        };
        say(format_args!("warning: {}; {follows}", recovery.refusal));
    }
}

/// Texts that a checkpoint generates from a line feed, with the settings that `taper sample` has by itself. Refusals of
/// memory are told as they are there.
///
/// # Errors
/// As for `taper sample`.
pub(super) fn texts(checkpoint: &Path, count: u32, max_new_tokens: usize) -> Result<Vec<String>> {
    let args = SampleArgs {
        checkpoint: checkpoint.to_string_lossy().into(),
        prompt: None,
        num_samples: count,
        max_new_tokens,
        temperature: 0.8,
        top_k: 200,
        seed: 1337,
        device: DeviceRequest::Auto,
        threads: None,
        memory_limit: None,
        inject: Vec::new(),
    };
    let settings = settings(&args)?;
    let weights = weights(&args.checkpoint)?;
    let tokenizer = tokenizer(&weights)?;
    let prompt = prompt::text(None, &tokenizer)?;
    let tokens = tokenizer.encode_prompt(&prompt)?;
    let threads = threads(None);
    in_thread_pool(threads, || {
        let mut generator = generator(&args, &weights, tokenizer.vocab_size(), threads)?;
        let sample = |sample| {
            let mut decoded = tokenizer.decode_stream();
            let mut text = prompt.clone();
            let generated: Result<()> = generator.generate(&tokens, &settings, sample, |token| {
                let is_end = weights.end_of_text.contains(&token);
                if is_end || Some(token) == tokenizer.end_of_text() {
                    return Ok(false);
                }
                if !tokenizer.is_special(token) {
                    text += &decoded.push(token);
                }
                Ok(true)
            });
            warn(generator.take_recoveries());
            generated?;
            Ok(text + &decoded.finish())
        };
        (0..count).map(sample).collect()
    })
}
