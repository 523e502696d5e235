//! What ends a run early, with the work saved: signals, limits, data.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::tempdir;

use crate::process::{Outcome, command, tiny};
use crate::{ENDLESS, ended, held, send, started, train, wait_until};

#[test]
fn every_signal_that_asks_for_an_end_saves_first() {
    for signal in ["INT", "TERM", "HUP", "USR1", "USR2", "XCPU"] {
        let folder = tempdir().unwrap();
        let taper = command(folder.path(), &tiny(ENDLESS, &["--quiet"]));
        let run = started(folder.path(), with_default_signals(&taper));
        send(&run, signal);
        let stopped = ended(run);
        assert_eq!(stopped.code, Some(130), "{signal}: {}", stopped.stderr);
        let (steps, _) = held(folder.path());
        let [step] = steps[..] else {
            panic!("{signal}: {steps:?}")
        };
        let line = format!(
            "stopped: interrupted at step {step}; checkpoint saved in `out/ckpt-{step:08}` (on SIG{signal})"
        );
        assert!(stopped.stderr.starts_with(&line), "{}", stopped.stderr);
        assert!(!stopped.stderr.contains("error: "), "{}", stopped.stderr);
    }
}

/// `taper` that ignores no signal, whatever this process was started to ignore, as a shell's background jobs are.
fn with_default_signals(taper: &Command) -> Command {
    let mut env = Command::new("env");
    env.arg("--default-signal")
        .arg(taper.get_program())
        .args(taper.get_args())
        .stderr(Stdio::piped());
    let set = taper
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    env.envs(set);
    if let Some(folder) = taper.get_current_dir() {
        env.current_dir(folder);
    }
    env
}

#[test]
fn a_signal_that_is_ignored_at_the_start_stays_ignored() {
    let folder = tempdir().unwrap();
    let taper = command(folder.path(), &tiny(ENDLESS, &["--quiet"]));
    let mut nohup = Command::new("sh");
    nohup
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(taper.get_program());
    nohup
        .args(taper.get_args())
        .current_dir(folder.path())
        .stderr(Stdio::piped());
    let mut run = started(folder.path(), nohup);
    send(&run, "HUP");
    let len = || {
        fs::metadata(folder.path().join("out/metrics.jsonl"))
            .unwrap()
            .len()
    };
    let before = len();
    wait_until(&mut run, || len() > before + 2000);
    send(&run, "TERM");
    let stopped = ended(run);
    assert!(
        stopped.stderr.contains("(on SIGTERM)"),
        "{}",
        stopped.stderr
    );
}

/// The run under a limit on file sizes, in blocks of `sh`: 512 or 1024 bytes.
fn limited(folder: &Path, blocks: u32, settings: &str) -> Outcome {
    let taper = command(folder, &tiny(settings, &["--quiet"]));
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -f {blocks}; exec \"$@\""), "sh"]);
    shell
        .arg(taper.get_program())
        .args(taper.get_args())
        .current_dir(folder);
    let output = shell.output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_first_save_that_fails_says_what_is_lost_and_how_to_begin_again() {
    let folder = tempdir().unwrap();
    let failed = limited(folder.path(), 20, "");
    let words = [
        "cannot write `out/.tmp-ckpt-",
        "File too large",
        "`ulimit -f unlimited`",
        "steps are not in any checkpoint",
    ];
    let failed = failed.refused(&words);
    for lie in ["--resume", "earlier checkpoints"] {
        assert!(!failed.stderr.contains(lie), "{}", failed.stderr);
    }
    assert_eq!(held(folder.path()), (vec![], vec!["metrics.jsonl".into()]));
}

#[test]
fn data_that_are_cut_during_the_run_end_it_with_the_steps_saved() {
    let folder = tempdir().unwrap();
    let data = folder.path().join("data/mine");
    fs::create_dir_all(&data).unwrap();
    let vocabulary = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/meta.pkl");
    fs::copy(vocabulary, data.join("meta.pkl")).unwrap();
    for name in ["train.bin", "val.bin"] {
        fs::write(data.join(name), [1, 0].repeat(5_000_000)).unwrap();
    }
    let settings = format!("{ENDLESS} data.dataset=mine data.data_dir=data");
    let run = started(folder.path(), command(folder.path(), &tiny(&settings, &[])));
    let file = fs::OpenOptions::new()
        .write(true)
        .open(data.join("train.bin"))
        .unwrap();
    file.set_len(10).unwrap();
    let failed = ended(run).refused(&[
        "the data cannot be read: saving step",
        "restore the file",
        "`--resume`",
    ]);
    let (saved, _) = held(folder.path());
    assert_eq!(saved.len(), 1, "{}", failed.stderr);
    fs::write(data.join("train.bin"), [1, 0].repeat(5_000_000)).unwrap();
    let settings = format!("{settings} train.max_iters={}", saved[0] + 1);
    train(folder.path(), &settings, &["--resume", "--quiet"]).succeeded();
}
