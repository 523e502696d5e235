//! `taper prepare`: text and tables to token files.

mod datasets;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use indicatif::{HumanBytes, HumanCount};

use crate::commands::path_argument;
use crate::config::Config;
use crate::data::prepare::{
    ExpectedText, Note, PrepareRequest, Prepared, RequestedFile, fetch, find_inputs, prepare,
};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::report::{DownloadProgress, ReportOptions, WorkBar, say};
use crate::terms::shell_word;
use crate::tokenizer::TokenizerKind;
use datasets::Wanted;

/// Part of the documents for val, unless the input is a dataset of the hub.
const VAL_FRACTION: f64 = 0.1;

/// Make token files (train.bin, val.bin) from text, JSON lines or Parquet
///
/// Killed or interrupted, the same command goes on where it stopped. Compressed files are unpacked again up to that place,
/// text and tables are not read again.
#[derive(Clone, Debug, clap::Args)]
pub struct PrepareArgs {
    /// `openwebtext`, `fineweb`, `fineweb-edu`, `tinystories`, `shakespeare_char`, `shakespeare` or any dataset of the
    /// Hugging Face hub, `owner/name` (downloaded); or files, patterns and folders: UTF-8 text (a document per file),
    /// .jsonl or .json (a document per line), each also as .gz or .zst; .parquet (a document per row)
    #[arg(required = true, value_name = "DATASET|FILE", value_parser = path_argument())]
    pub inputs: Vec<PathBuf>,
    /// How to encode files [default: gpt2]
    #[arg(long, value_enum)]
    pub tokenizer: Option<TokenizerKind>,
    /// The folder to write to; a dataset in it is replaced [default for a dataset: data/DATASET]
    #[arg(long, value_name = "DIR", value_parser = path_argument())]
    pub out: Option<PathBuf>,
    /// Local copies of the dataset's files, instead of the download: files, patterns or a folder
    #[arg(long, value_name = "FILE", num_args = 1.., value_parser = path_argument())]
    pub from: Vec<PathBuf>,
    /// The part that becomes val.bin: of the characters of a single text, else of the documents,
    /// however long each is
    /// [default: 0.1, for a dataset of the hub 0.0005]
    #[arg(long, value_name = "FRACTION")]
    pub val_fraction: Option<f64>,
    /// The subset of a dataset of the hub, which the hub calls config
    #[arg(long, value_name = "NAME")]
    pub subset: Option<String>,
    /// The split of a dataset of the hub to make both splits from [default: train]
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// The field of a .jsonl line, or the column of a .parquet table, that holds the text
    #[arg(long, default_value = "text", value_name = "NAME")]
    pub field: String,
    /// Show no progress and no summary, only notes on what was guessed, changed or replaced
    #[arg(long, short)]
    pub quiet: bool,
}

pub fn run(args: PrepareArgs) -> Result<()> {
    let ((request, found), interrupt) = match hub_dataset(&args)? {
        Some(wanted) => {
            let interrupt = Interrupt::install()?;
            (resolve_hub_dataset(&args, &wanted, &interrupt)?, interrupt)
        }
        // Until then Ctrl-C ends the process, and with it the download of a text.
        None => (resolve(&args)?, Interrupt::install()?),
    };
    let work = WorkBar::new(ReportOptions::detect(args.quiet, false));
    let prepared = prepare(&request, work.bar(), interrupt.flag())?;
    drop(work);
    for note in found.iter().chain(&prepared.notes) {
        say(format_args!("note: {note}"));
    }
    if !args.quiet {
        say(summary(&request, &prepared)?);
    }
    Ok(())
}

/// The dataset of the hub that is asked for, if any, after a check of the flags.
fn hub_dataset(args: &PrepareArgs) -> Result<Option<Wanted>> {
    if let Some(fraction) = args.val_fraction
        && !(fraction > 0.0 && fraction < 1.0)
    {
        return Err(usage(
            format!("`--val-fraction {fraction}` leaves a split empty"),
            "give a number between 0 and 1, such as `--val-fraction 0.1`",
        ));
    }
    let mut wanted = args
        .inputs
        .iter()
        .filter_map(|input| Wanted::of(input, args));
    let wanted = wanted.next();
    if wanted.is_none() || !args.from.is_empty() {
        datasets::refuse_hub_flags(args)?;
    }
    Ok(wanted)
}

/// Turns the arguments into a request, and notes on how. The text of a dataset is downloaded if needed.
fn resolve(args: &PrepareArgs) -> Result<(PrepareRequest, Vec<Note>)> {
    match args.inputs.iter().find_map(|input| dataset(input)) {
        Some((dataset, kind)) => Ok((resolve_dataset(args, dataset, kind)?, vec![])),
        None => resolve_files(args),
    }
}

fn dataset(input: &Path) -> Option<(&'static str, TokenizerKind)> {
    match input.to_str()? {
        "shakespeare_char" => Some(("shakespeare_char", TokenizerKind::Char)),
        "shakespeare" => Some(("shakespeare", TokenizerKind::Gpt2)),
        _ => None,
    }
}

fn resolve_dataset(
    args: &PrepareArgs,
    dataset: &'static str,
    kind: TokenizerKind,
) -> Result<PrepareRequest> {
    if args.inputs.len() > 1 {
        return Err(usage(
            format!(
                "`{dataset}` is a dataset of its own, given among {} inputs",
                args.inputs.len()
            ),
            format!(
                "run `taper prepare {dataset}`, or write `./{dataset}` for a file of that name"
            ),
        ));
    }
    if args.tokenizer.is_some_and(|asked| asked != kind) {
        return Err(usage(
            format!("the tokenizer of `{dataset}` is fixed"),
            "leave out `--tokenizer`: `shakespeare_char` is by character, `shakespeare` is GPT-2's BPE",
        ));
    }
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| Path::new("data").join(dataset));
    let text = match &find_inputs(&args.from)?.files[..] {
        [] => fetch(dataset, &out)?,
        [text] => text.clone(),
        more => {
            return Err(usage(
                format!(
                    "`{dataset}` is one text, and `--from` gives {} files",
                    more.len()
                ),
                format!("run `taper prepare {dataset} --from FILE`"),
            ));
        }
    };
    Ok(PrepareRequest {
        files: vec![RequestedFile::from(text)],
        field: args.field.clone(),
        tokenizer: kind,
        out,
        val_fraction: args.val_fraction.unwrap_or(VAL_FRACTION),
        expected: Some(ExpectedText::shakespeare(dataset)),
        origin: None,
    })
}

/// A dataset of the hub, downloaded; or its files, where `--from` gives them.
fn resolve_hub_dataset(
    args: &PrepareArgs,
    wanted: &Wanted,
    interrupt: &Interrupt,
) -> Result<(PrepareRequest, Vec<Note>)> {
    datasets::refuse_company(args, wanted)?;
    let out = args.out.clone().unwrap_or_else(|| wanted.default_folder());
    let given = find_inputs(&args.from)?;
    let (files, origin) = if args.from.is_empty() {
        let options = ReportOptions::detect(args.quiet, false);
        let progress = DownloadProgress::new(options, interrupt.flag());
        let downloaded = wanted.download(&out, args.quiet, &progress)?;
        (downloaded.files, Some(downloaded.origin))
    } else {
        let files = given.files.into_iter().map(RequestedFile::from);
        (files.collect(), None)
    };
    let request = PrepareRequest {
        files,
        field: args.field.clone(),
        tokenizer: args.tokenizer.unwrap_or(TokenizerKind::Gpt2),
        out,
        val_fraction: args.val_fraction.unwrap_or(datasets::VAL_FRACTION),
        expected: None,
        origin,
    };
    Ok((request, given.notes))
}

fn resolve_files(args: &PrepareArgs) -> Result<(PrepareRequest, Vec<Note>)> {
    if !args.from.is_empty() {
        return Err(usage(
            "`--from` gives the text of a dataset, but files were named".into(),
            "leave out `--from`, or run `taper prepare shakespeare_char --from FILE`",
        ));
    }
    datasets::refuse_unknown_names(&args.inputs)?;
    let Some(out) = args.out.clone() else {
        return Err(usage(
            "no folder to write to".into(),
            "name one, such as `--out data/mytext`",
        ));
    };
    let found = find_inputs(&args.inputs)?;
    let request = PrepareRequest {
        files: found.files.into_iter().map(RequestedFile::from).collect(),
        field: args.field.clone(),
        tokenizer: args.tokenizer.unwrap_or(TokenizerKind::Gpt2),
        out,
        val_fraction: args.val_fraction.unwrap_or(VAL_FRACTION),
        expected: None,
        origin: None,
    };
    Ok((request, found.notes))
}

fn usage(what: String, hint: impl Into<String>) -> Error {
    Error::Usage {
        what,
        hint: hint.into(),
    }
}

fn summary(request: &PrepareRequest, prepared: &Prepared) -> Result<String> {
    let unit = match request.tokenizer {
        TokenizerKind::Gpt2 => "GPT-2 tokens",
        TokenizerKind::Char => "characters",
    };
    Ok(format!(
        "{}: {} train and {} val tokens, vocabulary of {} {unit}; from {} in {} ({}), {}\n\
         train on it with: {}",
        request.out.display(),
        HumanCount(prepared.train_tokens),
        HumanCount(prepared.val_tokens),
        HumanCount(prepared.vocab_size as u64),
        counted(prepared.documents, "document"),
        counted(request.files.len() as u64, "file"),
        HumanBytes(prepared.bytes),
        division(request, prepared),
        train_command(request, prepared)?
    ))
}

/// The division of the documents, and their separator.
fn division(request: &PrepareRequest, prepared: &Prepared) -> String {
    if prepared.documents == 1 {
        return "val is its end".into();
    }
    let tokens = prepared.train_tokens + prepared.val_tokens;
    let separator = match request.tokenizer {
        TokenizerKind::Gpt2 => "`<|endoftext|>` follows each",
        TokenizerKind::Char => "a line feed ends each",
    };
    format!(
        "{separator}; val is drawn by document, which is what --val-fraction counts, and has {:.1} % of the tokens",
        100.0 * prepared.val_tokens as f64 / tokens as f64
    )
}

fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", HumanCount(n), if n == 1 { "" } else { "s" })
}

/// Tokens from which a preset's model is worth its time: one of 10 million parameters by character, and GPT-2.
const CHARACTERS_FOR_10M: u64 = 500_000;
const TOKENS_FOR_124M: u64 = 100_000_000;

/// The preset whose model suits the tokenizer and the number of tokens.
fn preset(request: &PrepareRequest, prepared: &Prepared) -> &'static str {
    let tokens = prepared.train_tokens;
    match (request.expected, request.tokenizer) {
        (Some(_), TokenizerKind::Gpt2) => "finetune_shakespeare",
        (None, TokenizerKind::Gpt2) if tokens < TOKENS_FOR_124M => "small_bpe",
        (None, TokenizerKind::Gpt2) => "openwebtext",
        (_, TokenizerKind::Char) if tokens < CHARACTERS_FOR_10M => "shakespeare_char_cpu",
        (_, TokenizerKind::Char) => "shakespeare_char",
    }
}

/// Training with that preset, pointed at the folder unless that is where it looks anyway, and with windows that fit.
fn train_command(request: &PrepareRequest, prepared: &Prepared) -> Result<String> {
    let preset = preset(request, prepared);
    let config = Config::load(preset, &[])?;
    let mut command = format!("taper train --config {preset}.toml");
    let mut set = |key: &str, value: &dyn Display| {
        let setting = format!("{key}={value}");
        command += &format!(" --set {}", shell_word(setting.as_ref()));
    };
    let out = &request.out;
    if *out != config.data.data_dir.join(&config.data.dataset) {
        let (folder, name) = match (out.parent(), out.file_name()) {
            (Some(parent), Some(name)) if parent == Path::new("") => (Path::new("."), name),
            (Some(parent), Some(name)) => (parent, name),
            _ => (out.as_path(), ".".as_ref()),
        };
        set("data.data_dir", &folder.display());
        set("data.dataset", &Path::new(name).display());
    }
    let shortest = prepared.train_tokens.min(prepared.val_tokens);
    if (2..=config.model.block_size as u64).contains(&shortest) {
        set("model.block_size", &(shortest - 1));
    }
    Ok(command)
}
