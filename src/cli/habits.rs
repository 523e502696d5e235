//! Habits from nanoGPT's command line, answered with what taper calls them.
//!
//! clap refuses such a line by itself; this adds a hint to its message.

use std::path::Path;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Cli;
use crate::config::{nearest_preset, setting};
use crate::terms::shell_word;

/// The likely meaning of `typed`, the words of a command line that clap refused with `error`.
pub fn hint(error: &clap::Error, typed: &[String]) -> Option<String> {
    let context = match error.kind() {
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        _ => return None,
    };
    let Some(ContextValue::String(word)) = error.get(context) else {
        return None;
    };
    let verb = typed.get(1).map(String::as_str).unwrap_or_default();
    match (context, word.strip_prefix("--")) {
        (ContextKind::InvalidSubcommand, _) => of_verb(word),
        (_, Some(flag)) => of_flag(verb, flag, value_of(word, typed)),
        (_, None) => of_word(verb, word),
    }
}

/// `train.py` for a verb, or a config.
fn of_verb(word: &str) -> Option<String> {
    let name = word.strip_suffix(".py").unwrap_or(word);
    match name {
        "eval" | "evaluate" => Some(
            "run `taper eval CHECKPOINT --tasks hellaswag,lambada,FILE`; the losses of a dataset: `taper train \
             --config FILE --eval-only`"
                .into(),
        ),
        "generate" => Some("run `taper sample --checkpoint FOLDER`".into()),
        "bench" | "train" | "sample" | "prepare" => Some(format!("run `taper {name}`")),
        _ => Some(format!("run `taper train --config {}`", config(word)?)),
    }
}

/// `--batch_size=32`: a flag of the verb in another spelling, or a key of the config.
fn of_flag(verb: &str, flag: &str, value: Option<&str>) -> Option<String> {
    let with = |flag: &str| match value {
        Some(value) => format!("write `--{flag} {}`", shell_word(Path::new(value))),
        None => format!("write `--{flag}`"),
    };
    let flag = flag.split('=').next().unwrap_or_default();
    let dashed = flag.replace('_', "-");
    let cli = Cli::command();
    let own = cli.find_subcommand(verb)?.get_arguments();
    let own = own
        .into_iter()
        .find(|argument| argument.get_long() == Some(&dashed));
    if let Some(own) = own {
        let takes_one = own.get_action().takes_values();
        return Some(if takes_one {
            with(&dashed)
        } else {
            format!("write `--{dashed}`")
        });
    }
    match (verb, flag) {
        ("sample", "start") => Some(with("prompt")),
        ("sample", "out_dir" | "out-dir" | "init_from" | "init-from") => Some(with("checkpoint")),
        ("eval", "checkpoint" | "model") => {
            let checkpoint = shell_word(Path::new(value.unwrap_or("CHECKPOINT")));
            Some(format!("write `taper eval {checkpoint}`, without a flag"))
        }
        ("sample" | "prepare" | "eval", _) => None,
        _ => Some(setting(flag, value)?.advice()),
    }
}

/// A word without a flag: a config, a checkpoint or a setting.
fn of_word(verb: &str, word: &str) -> Option<String> {
    match (verb, word.split_once('=')) {
        ("prepare", _) => None,
        ("eval", _) => Some(format!("write `--tasks {}`", shell_word(Path::new(word)))),
        ("sample", _) => Some(format!(
            "write `--checkpoint {}`",
            shell_word(Path::new(word))
        )),
        (_, Some((name, value))) => {
            let name = name.rsplit('.').next().unwrap_or(name);
            Some(setting(name, Some(value))?.advice())
        }
        _ => {
            let config = config(word)?;
            Some(format!("write `--config {config}`"))
        }
    }
}

/// The preset that a config of nanoGPT, or a name much like a preset's, stands for.
fn preset(path: &Path) -> Option<&'static str> {
    match path.file_name()?.to_str()? {
        "train_gpt2.py" => Some("openwebtext"),
        _ => nearest_preset(path.to_str()?),
    }
}

/// The value of `--config` that a config's path stands for: a preset, or a file of one's own.
fn config(word: &str) -> Option<String> {
    let path = Path::new(word);
    let is = |ending| path.extension().is_some_and(|found| found == ending);
    let is_file = is("toml") || is("py");
    if is_file && path.exists() {
        return Some(shell_word(path));
    }
    match preset(path) {
        Some(preset) => Some(format!("{preset}.toml")),
        None => is_file.then(|| shell_word(path)),
    }
}

/// The value that was given to a flag: behind `=`, or the next word.
fn value_of<'a>(flag: &str, typed: &'a [String]) -> Option<&'a str> {
    let flag = flag.split('=').next().unwrap_or_default();
    let at = typed
        .iter()
        .position(|word| word.split('=').next() == Some(flag))?;
    match typed[at].split_once('=') {
        Some((_, value)) => Some(value),
        None => typed
            .get(at + 1)
            .filter(|next| !next.starts_with("--"))
            .map(String::as_str),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::super::understood;
    use super::*;

    #[track_caller]
    fn answered(line: &str, expected: Option<&str>) {
        let typed: Vec<String> = line.split(' ').map(String::from).collect();
        let words = understood(typed.iter().map(OsString::from)).words;
        let error = Cli::try_parse_from(words).unwrap_err();
        assert_eq!(hint(&error, &typed).as_deref(), expected, "{line}");
    }

    #[test]
    fn nanogpts_command_lines_are_answered_with_taper_s_words() {
        for (line, expected) in [
            (
                "taper train --batch_size 32 --config a.toml",
                "write `--set train.batch_size=32`",
            ),
            (
                "taper train --learning-rate=.001",
                "write `--set optimizer.learning_rate=0.001`",
            ),
            (
                "taper train --max_iters",
                "write `--set train.max_iters=VALUE`",
            ),
            (
                "taper train config/train_shakespeare_char.py",
                "write `--config shakespeare_char.toml`",
            ),
            ("taper train quickstart", "write `--config quickstart.toml`"),
            (
                "taper train --config a.toml batch_size=8",
                "write `--set train.batch_size=8`",
            ),
            (
                "taper sample --start=Once --checkpoint a",
                "write `--prompt Once`",
            ),
            ("taper sample --out_dir=out-x", "write `--checkpoint out-x`"),
            ("taper sample --num_samples=3", "write `--num-samples 3`"),
            ("taper sample out-x", "write `--checkpoint out-x`"),
            ("taper train.py --batch_size=32", "run `taper train`"),
            (
                "taper config/train_gpt2.py",
                "run `taper train --config openwebtext.toml`",
            ),
            ("taper train --eval_only", "write `--eval-only`"),
            (
                "taper train --compile False",
                "remove it: nothing is compiled at run time",
            ),
            (
                "taper train --start=Once",
                "give it to `taper sample`, as `--prompt TEXT` or `--prompt FILE:PATH`",
            ),
            (
                "taper train my/own_run.py",
                "write `--config my/own_run.py`",
            ),
            ("taper plan own_run.toml", "write `--config own_run.toml`"),
            (
                "taper evaluate",
                "run `taper eval CHECKPOINT --tasks hellaswag,lambada,FILE`; the losses of a dataset: `taper train \
                 --config FILE --eval-only`",
            ),
            (
                "taper eval --checkpoint=out --tasks lambada",
                "write `taper eval out`, without a flag",
            ),
            ("taper eval out lambada", "write `--tasks lambada`"),
        ] {
            answered(line, Some(expected));
        }
        for line in [
            "taper train --nonsense",
            "taper prepare --batch_size=2 x",
            "taper train",
            "taper xyzzy",
        ] {
            answered(line, None);
        }
    }
}
