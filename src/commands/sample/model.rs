//! The model of `taper sample`: its weights, its tokenizer, and the device that it is computed on.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::Launch;
use crate::checkpoint::{Pretrained, find_or_download};
use crate::commands::backends::{self, Computing};
use crate::config::DeviceRequest;
use crate::data::tokenizer_of_meta_pickle;
use crate::device::{DeviceProfile, FoundDevice, find};
use crate::error::{Error, Result};
use crate::faults::Faults;
use crate::ops::gemm::{Table, Unwatched};
use crate::plan::{check_kernels, memory_of};
use crate::report::{DownloadProgress, ReportOptions, say};
use crate::sampling::{Generator, SamplingError};
use crate::terms::{Effort, GemmBackend, Inputs, Precision, expand_home};
use crate::tokenizer::Tokenizer;

/// Finds the weights that `--checkpoint` names, and says what there is to know about them.
pub(in crate::commands) fn weights(asked: &str) -> Result<Pretrained> {
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

/// The tokenizer of a model. One that lies elsewhere, or that is taken for GPT-2's, is said to be.
pub(in crate::commands) fn tokenizer(weights: &Pretrained) -> Result<Tokenizer> {
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
pub(in crate::commands) fn threads(asked: Option<usize>) -> usize {
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

/// Whether a token ends a text of this model.
pub(super) fn is_end(weights: &Pretrained, tokenizer: &Tokenizer, token: u32) -> bool {
    let ends = tokenizer.is_special(token) && weights.end_of_text.contains(&token);
    ends || Some(token) == tokenizer.end_of_text()
}

/// Sizes of the batches of a generator.
#[derive(Clone, Copy)]
pub(super) struct BatchSizes {
    pub sequences: usize,
    /// Tokens of the longest sequence.
    pub longest: usize,
    pub vocab_size: usize,
}

/// The model on the device that was asked for. `auto` passes over a GPU that cannot do it now, and says so.
///
/// # Errors
/// Those of the device, and of the weights.
pub(super) fn generator(
    launch: &Launch,
    weights: &Pretrained,
    sizes: BatchSizes,
    threads: usize,
) -> Result<Generator> {
    let on = |found: &FoundDevice| generator_on(found, launch, weights, sizes, threads);
    let found = find(launch.device);
    let is_cpu = found.as_ref().is_ok_and(|found| found.ordinal.is_none());
    let made = found.map_err(Error::from).and_then(|found| on(&found));
    match made {
        Err(error) if launch.device == DeviceRequest::Auto && !is_cpu && is_of_device(&error) => {
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
    launch: &Launch,
    weights: &Pretrained,
    sizes: BatchSizes,
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
    let faults = Faults::new(launch.inject.clone());
    // GEMMs of generation pack nothing.
    let memory = memory_of(profile, launch.memory_limit, threads, 0, faults);
    let (backend, memory) = backends::open(*ordinal, profile, computing, search, memory)?;
    let BatchSizes {
        sequences,
        longest,
        vocab_size,
    } = sizes;
    let sizes = (sequences, longest);
    Ok(Generator::new(weights, vocab_size, sizes, backend, memory)?)
}
