//! `taper convert`: a model's weights in the form of another program.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::checkpoint::{
    Export, ExportTarget, FoundWeights, Pretrained, WeightsDtype, export, find_or_download,
};
use crate::commands::{path_argument, print_now, until_reader_leaves};
use crate::error::{Error, Result};
use crate::model::ParamLayout;
use crate::report::{DownloadProgress, Progress, ReportOptions, WorkBar, say};
use crate::terms::{Gelu, expand_home, shell_word};
use crate::tokenizer::Tokenizer;
use crate::units::count;

/// Write a model's weights for another program
///
/// Says what the model is, and what stays behind. The path that was written goes to stdout.
#[derive(Clone, Debug, clap::Args)]
pub struct ConvertArgs {
    /// A run's folder, a checkpoint, a Hugging Face folder, a model of the hub, nanoGPT's ckpt.pt, or a .bin of
    /// llm.c
    #[arg(value_name = "FROM")]
    pub from: String,
    /// The program to write for
    #[arg(long, value_enum, value_name = "PROGRAM")]
    pub to: ExportTarget,
    /// The folder (hf) or file (nanogpt, llmc) to write; it must not exist
    #[arg(value_name = "OUT", value_parser = path_argument())]
    pub out: PathBuf,
    /// The type of the numbers
    #[arg(long, value_enum, default_value_t, value_name = "TYPE")]
    pub dtype: WeightsDtype,
    /// Write the model with this form of GELU, which nanoGPT (`erf`) and llm.c (`tanh`) have one of; its logits become a
    /// little different
    #[arg(long, value_enum, value_name = "FORM")]
    pub gelu: Option<Gelu>,
}

pub fn run(args: ConvertArgs) -> Result<()> {
    let found = find(&args.from)?;
    for skipped in &found.skipped {
        say(format_args!(
            "warning: skipped the damaged checkpoint {skipped}"
        ));
    }
    let pretrained = &found.pretrained;
    say(described(&found));
    let extra_files = match args.to {
        ExportTarget::Hf => companions(pretrained)?,
        ExportTarget::Nanogpt | ExportTarget::Llmc => Vec::new(),
    };
    for note in notes(&args, &found) {
        say(format_args!("note: {note}"));
    }
    let work = WorkBar::new(ReportOptions::detect(false, false));
    let request = Export {
        pretrained,
        target: args.to,
        dtype: args.dtype,
        gelu: args.gelu,
        run: found.run.as_ref(),
        extra_files: &extra_files,
        progress: work.bar(),
    };
    export(&request, &args.out)?;
    drop(work);
    until_reader_leaves(print_now(&format!("{}\n", args.out.display())))
}

/// The weights that `from` names. A dataset is no model.
fn find(from: &str) -> Result<FoundWeights> {
    let path = expand_home(from);
    if path.join("train.bin").is_file() {
        return Err(Error::Usage {
            what: format!("`{from}` holds a dataset, and `taper convert` takes the weights of a model"),
            hint: "name a run's folder, a checkpoint, a Hugging Face folder or a model file; nanoGPT reads the \
                 `train.bin` and `val.bin` of `taper prepare` as they are"
                .into(),
        });
    }
    // Ctrl-C ends this verb at once.
    let uninterrupted = AtomicBool::new(false);
    let options = ReportOptions::detect(false, false);
    let progress = DownloadProgress::new(options, &uninterrupted);
    // What is here is held against its checksums; a download tells its own progress.
    let _verifying = path.exists().then(|| Progress::new(options).verifying());
    Ok(find_or_download(&path.to_string_lossy(), &progress)?)
}

/// The model in one line.
fn described(found: &FoundWeights) -> String {
    let FoundWeights {
        pretrained, run, ..
    } = found;
    let dims = &pretrained.dims;
    let trained = run.as_ref().map_or(String::new(), |run| {
        format!(" after {} steps", count(run.state.step))
    });
    format!(
        "{}: GPT-2{trained}, n_layer {} x n_head {} x n_embd {}, {} positions, {} tokens, {}, {}, {} parameters",
        pretrained.path.display(),
        dims.n_layer,
        dims.n_head,
        dims.n_embd,
        count(dims.block_size as u64),
        count(dims.vocab_size as u64),
        if dims.bias { "biases" } else { "no biases" },
        gelu(dims.gelu),
        count(ParamLayout::new(dims).len as u64),
    )
}

fn gelu(form: Gelu) -> &'static str {
    match form {
        Gelu::Tanh => "GELU by tanh",
        Gelu::Erf => "GELU by erf",
    }
}

/// Sentences about what is read or written in another way than it stands there, and what stays behind.
fn notes(args: &ConvertArgs, found: &FoundWeights) -> Vec<String> {
    let mut notes = found.notes.clone();
    match (args.to, &found.run) {
        (ExportTarget::Nanogpt, Some(_)) => notes.push(
            "the run goes on in nanoGPT with its moments, step and best loss; the order of samples and the dropout masks \
             are those of PyTorch's generators there"
                .into(),
        ),
        (ExportTarget::Nanogpt, None) => notes.push(
            "there is no state of training: the file is one of step 0, with empty moments and nanoGPT's default settings"
                .into(),
        ),
        (_, Some(_)) => notes.push(
            "the state of training stays behind: moments, the position in the data, the run's config".into(),
        ),
        (_, None) => {}
    }
    if let Some(run) = found
        .run
        .as_ref()
        .filter(|_| args.to == ExportTarget::Nanogpt)
    {
        notes.extend(run.notes_for_nanogpt());
    }
    if let Some(form) = args.gelu.filter(|form| *form != found.pretrained.dims.gelu) {
        let own = gelu(found.pretrained.dims.gelu);
        notes.push(format!(
            "the model computes {own} and is written with {}: its logits are a little different there",
            gelu(form)
        ));
    }
    let path = &found.pretrained.path;
    if args.to != ExportTarget::Hf && holds_tokenizer(path) {
        notes.push(format!(
            "the tokenizer stays in `{}`: a file of this program has none",
            path.display()
        ));
    }
    notes.extend(args.to.notes(&found.pretrained.dims));
    notes
}

/// Files that transformers reads beside the weights.
const COMPANIONS: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
];

fn holds_tokenizer(folder: &Path) -> bool {
    COMPANIONS[..1]
        .iter()
        .chain(&COMPANIONS[4..5])
        .any(|name| folder.join(name).is_file())
}

/// The files that belong to a model: those in its folder, or GPT-2's tokenizer where its size says that it is that.
fn companions(pretrained: &Pretrained) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = &pretrained.path;
    let mut files = Vec::new();
    for name in COMPANIONS {
        let path = folder.join(name);
        if path.is_file() {
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            files.push((name.to_owned(), bytes));
        }
    }
    if holds_tokenizer(folder) {
        return Ok(files);
    }
    match Tokenizer::of_model(pretrained.folder(), pretrained.dims.vocab_size) {
        Ok(found) => {
            let source = if found.is_assumed {
                "no tokenizer beside the weights: GPT-2's is written, whose size the vocabulary has"
                    .into()
            } else {
                let folder = shell_word(pretrained.folder());
                format!("the tokenizer in `{folder}` is taken for that of the weights")
            };
            say(format_args!("note: {source}"));
            let own = found.tokenizer.files()?;
            files.retain(|(name, _)| own.iter().all(|(other, _)| name != other));
            files.extend(own);
        }
        Err(error) => say(format_args!("note: no tokenizer is written: {error}")),
    }
    Ok(files)
}
