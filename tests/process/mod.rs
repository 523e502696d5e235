//! Runs the real binary on a tiny model in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A training run of a few milliseconds per step, with dropout, into `out`.
pub const TINY: &str = "model.n_layer=2 model.n_head=2 model.n_embd=16 model.block_size=16 \
    model.dropout=0.1 train.sequences_per_step=2 train.max_iters=10 train.log_interval=1 \
    optimizer.warmup_iters=2 optimizer.lr_decay_iters=40 eval.eval_interval=4 eval.eval_iters=2 \
    eval.eval_batch_size=2 checkpoint.out_dir=out checkpoint.checkpoint_interval=5";

pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// An answer to a mistake: exit 1, an error and what would be right on stderr that hold all of `words`, and
    /// nothing on stdout.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        let stderr = &self.stderr;
        assert_eq!(self.code, Some(1), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(
            stderr.lines().any(|line| line.starts_with("error: ")),
            "{stderr}"
        );
        assert!(
            stderr.lines().any(|line| line.starts_with("hint: ")
                || line.starts_with("  = expected ")
                || line.starts_with("  = presets:")),
            "{stderr}"
        );
        for word in words {
            assert!(stderr.contains(word), "`{word}` is not in:\n{stderr}");
        }
        assert_eq!(self.stdout, "");
        self
    }
}

/// `taper` in `folder`, not started yet.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taper"));
    command
        .args(arguments)
        .current_dir(folder)
        // Not the user's own.
        .env(
            "XDG_CACHE_HOME",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"),
        )
        // No test reaches a network; those of the hub have one of their own.
        .env("HF_HUB_OFFLINE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub fn taper(folder: &Path, arguments: &[&str]) -> Outcome {
    let output = command(folder, arguments).output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `train` on the embedded corpus, with [`TINY`], further `settings` (separated by spaces) and
/// flags.
pub fn tiny<'a>(settings: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", "--config", "quickstart.toml"];
    for setting in TINY.split_whitespace().chain(settings.split_whitespace()) {
        arguments.extend(["--set", setting]);
    }
    arguments.extend(flags);
    arguments
}

pub fn checkpoint(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("out/ckpt-{step:08}"))
}
