//! The prompts of `taper sample`: from the command line, from a file, from standard input, or the default.

use std::io::Read;
use std::path::Path;

use clap::Args;

use super::SampleArgs;
use crate::error::{Error, Result};
use crate::report::say;
use crate::terms::expand_home;
use crate::tokenizer::Tokenizer;

/// nanoGPT's prompt when there is none.
const DEFAULT: &str = "\n";

/// Standard input, where a path or a text is asked for.
const STANDARD_INPUT: &str = "-";

/// The texts to continue: that of `prompt`, or the lines of the file `prompts` that are not empty.
///
/// # Errors
/// When a file cannot be read, is not UTF-8 or has no line, or the text is a flag.
pub(super) fn texts(
    prompt: Option<&str>,
    prompts: Option<&str>,
    tokenizer: &Tokenizer,
) -> Result<Vec<String>> {
    let Some(path) = prompts else {
        return Ok(vec![text(prompt, tokenizer)?]);
    };
    let text = if path == STANDARD_INPUT {
        from_standard_input()?
    } else {
        from_file(path)?
    };
    let lines = text.lines();
    let prompts: Vec<String> = (lines.clone().filter(|line| !line.is_empty()))
        .map(String::from)
        .collect();
    if prompts.is_empty() {
        return Err(Error::Usage {
            what: format!("`--prompts {path}` has no text to continue"),
            hint: "give a file with a prompt in every line".into(),
        });
    }
    let empty = lines.count() - prompts.len();
    if empty > 0 {
        say(format_args!(
            "note: {empty} empty lines of `{path}` are no prompts"
        ));
    }
    Ok(prompts)
}

/// The text to continue. `FILE:PATH` is the text of a file, as Python reads one: without a byte order mark, and with
/// `\n` at the end of every line. `-` is standard input, read in the same way.
fn text(asked: Option<&str>, tokenizer: &Tokenizer) -> Result<String> {
    let Some(asked) = asked else {
        return Ok(default(tokenizer));
    };
    if let Some(path) = asked.strip_prefix("FILE:") {
        return from_file(path);
    }
    if asked == STANDARD_INPUT {
        return from_standard_input();
    }
    let flag = asked.split('=').next().unwrap_or_default();
    if is_flag(flag) {
        return Err(Error::Usage {
            what: format!("`--prompt` is followed by the flag `{flag}` and not by a text"),
            hint: "give some text to continue, such as `--prompt \"ROMEO:\"`; to continue just this text, write it \
                   to a file and use `--prompt FILE:PATH`"
                .into(),
        });
    }
    Ok(asked.into())
}

fn from_file(path: &str) -> Result<String> {
    let path = &expand_home(path);
    let bytes = std::fs::read(path).map_err(Error::io("read the prompt from", path))?;
    decoded(path, bytes)
}

fn from_standard_input() -> Result<String> {
    let (path, mut bytes) = (Path::new("/dev/stdin"), Vec::new());
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(Error::io("read the prompt from", path))?;
    decoded(path, bytes)
}

/// Whether `text` is a long flag of `taper sample`. A prompt may begin with a dash, so that one that was forgotten takes
/// the next flag for its text.
fn is_flag(text: &str) -> bool {
    let sample = SampleArgs::augment_args(clap::Command::new("sample"));
    let mut flags = sample
        .get_arguments()
        .filter_map(|argument| argument.get_long());
    flags.any(|flag| text.strip_prefix("--") == Some(flag))
}

/// A line feed, or the first token of a vocabulary that has none.
fn default(tokenizer: &Tokenizer) -> String {
    let has_it = tokenizer
        .encode_prompt(DEFAULT)
        .is_ok_and(|ids| !ids.is_empty());
    if has_it {
        return DEFAULT.into();
    }
    let ids = 0..tokenizer.vocab_size() as u32;
    let mut texts = ids
        .filter(|&id| !tokenizer.is_special(id))
        .map(|id| tokenizer.decode(&[id]));
    let first = texts.find(|text| !text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER));
    let first = first.unwrap_or_default();
    say(format_args!(
        "note: prompt = {first:?} (the vocabulary's first token; it has no line feed, which is the default; \
         `--prompt` gives another)"
    ));
    first
}

fn decoded(path: &Path, bytes: Vec<u8>) -> Result<String> {
    if let Some(encoding) = other_encoding(&bytes) {
        return Err(not_utf8(path, &format!("it is {encoding}"), encoding));
    }
    match String::from_utf8(bytes) {
        Ok(text) => {
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
        }
        Err(error) => {
            let (valid, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
            let line = 1 + bytes[..valid].iter().filter(|&&byte| byte == b'\n').count();
            let found = format!(
                "line {line} has the byte {:#04x}, as in Latin-1",
                bytes[valid]
            );
            Err(not_utf8(path, &found, "LATIN1"))
        }
    }
}

/// The encoding of a text that is surely not UTF-8: by its byte order mark, or by the zeros of ASCII in UTF-16.
fn other_encoding(bytes: &[u8]) -> Option<&'static str> {
    let zeros = |first: usize| {
        let bytes = bytes.iter().skip(first).step_by(2);
        bytes.clone().filter(|&&byte| byte == 0).count() > bytes.count() / 2
    };
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        [_, _, ..] if zeros(1) => Some("UTF-16LE"),
        [_, _, ..] if zeros(0) => Some("UTF-16BE"),
        _ => None,
    }
}

fn not_utf8(path: &Path, found: &str, encoding: &str) -> Error {
    let path = path.display();
    Error::Usage {
        what: format!("the prompt in `{path}` is not UTF-8: {found}"),
        hint: format!(
            "convert it: `iconv -f {encoding} -t UTF-8 {path} > prompt.txt`, then `--prompt FILE:prompt.txt`"
        ),
    }
}
