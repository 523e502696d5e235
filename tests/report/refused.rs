//! The process's own streams, closed and full: what was done stays done, and what could not be told is an error.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::{TempDir, tempdir};

use crate::process::command;

/// `taper ARGUMENTS` in a shell, with its streams redirected.
fn redirected(folder: &Path, arguments: &str, redirections: &str) -> Output {
    let taper = env!("CARGO_BIN_EXE_taper");
    Command::new("sh")
        .args(["-c", &format!("exec {taper} {arguments} {redirections}")])
        .current_dir(folder)
        .env(
            "XDG_CACHE_HOME",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"),
        )
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn with_text() -> TempDir {
    let folder = tempdir().unwrap();
    fs::write(
        folder.path().join("a.txt"),
        "to be or not to be ".repeat(40),
    )
    .unwrap();
    folder
}

#[test]
fn a_stderr_that_takes_nothing_does_not_undo_the_work() {
    for stderr in ["2>/dev/full", "2>&-", ">&- 2>&- <&-"] {
        let folder = with_text();
        let prepared = redirected(
            folder.path(),
            "prepare a.txt --tokenizer char --out data/a",
            stderr,
        );
        assert_eq!(prepared.status.code(), Some(0), "{stderr}");
        assert!(folder.path().join("data/a/train.bin").exists(), "{stderr}");
        let wrong = redirected(folder.path(), "train --config nothing.toml", stderr);
        assert_eq!(wrong.status.code(), Some(1), "{stderr}");
        let wrong = redirected(folder.path(), "train --nonsense", stderr);
        assert_eq!(wrong.status.code(), Some(1), "{stderr}");
    }
}

#[test]
fn a_result_that_stdout_does_not_take_is_an_error() {
    let folder = tempdir().unwrap();
    let small = "--config quickstart.toml --set n_layer=1 --set n_embd=16 --set n_head=2 --set block_size=8 \
                 --set eval_iters=1";
    let verbs = [
        "--help".to_owned(),
        "--version".to_owned(),
        "plan --config quickstart.toml".to_owned(),
        "plan --config quickstart.toml --json".to_owned(),
        "doctor --json".to_owned(),
        format!("train {small} --eval-only --json"),
        format!("train {small} --eval-only --quiet"),
    ];
    for verb in &verbs {
        let full = redirected(folder.path(), verb, ">/dev/full");
        let stderr = String::from_utf8(full.stderr).unwrap();
        assert_eq!(full.status.code(), Some(1), "{verb}: {stderr}");
        assert!(
            stderr.contains("error: cannot write to standard output\n"),
            "{verb}: {stderr}"
        );
        let hint = stderr
            .lines()
            .find(|line| line.starts_with("hint: "))
            .unwrap();
        assert!(hint.contains("send it elsewhere"), "{verb}: {hint}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = tempdir().unwrap();
    for arguments in [&["--help"][..], &["plan", "--config", "quickstart.toml"]] {
        let mut child = command(folder.path(), arguments).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn a_redirected_stdout_is_told_where_the_text_is() {
    let folder = tempdir().unwrap();
    let verb = "train --config quickstart.toml --set max_iters=0 --set n_embd=16 --set n_head=2";
    let noted = redirected(folder.path(), &format!("{verb} --set out_dir=a"), "> log");
    let stderr = String::from_utf8(noted.stderr).unwrap();
    assert!(
        stderr.starts_with("this text goes to standard error, which `2> FILE` keeps"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(folder.path().join("log")).unwrap(), "");
    redirected(
        folder.path(),
        &format!("{verb} --set out_dir=b"),
        "> log 2>&1",
    );
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.starts_with("taper "), "{log}");
}
