//! The folder of a run, as a user works with it: going back, two runs at once, signals, what is moved, limits.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use tempfile::{TempDir, tempdir};

mod branches;
#[path = "../process/mod.rs"]
mod process;
mod stops;

use process::{Outcome, checkpoint, command, taper, tiny};

/// Saves every second step and evaluates at the end alone.
const EVEN: &str = "checkpoint.checkpoint_interval=2 eval.eval_interval=100000";

/// A run that goes on until it is stopped, and saves nothing before.
const ENDLESS: &str = "train.max_iters=100000000 checkpoint.checkpoint_interval=100000000 \
    eval.eval_interval=100000000";

fn train(folder: &Path, settings: &str, flags: &[&str]) -> Outcome {
    taper(folder, &tiny(settings, flags))
}

fn trained(settings: &str) -> TempDir {
    let folder = tempdir().unwrap();
    train(folder.path(), settings, &["--quiet"]).succeeded();
    folder
}

/// Steps of the checkpoints, and the names of all other files in the run's folder but TensorBoard's.
fn held(folder: &Path) -> (Vec<u64>, Vec<String>) {
    let names = fs::read_dir(folder.join("out")).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let step = |name: &String| name.strip_prefix("ckpt-")?.parse().ok();
    let steps = names.iter().filter_map(step).collect();
    names.retain(|name| step(name).is_none() && !name.starts_with("events.out.tfevents."));
    (steps, names)
}

/// Steps of the step lines of a metrics file.
fn steps(file: &Path) -> Vec<u64> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text
        .lines()
        .map(|line| -> serde_json::Value { serde_json::from_str(line).unwrap() });
    let steps = lines.filter(|line| line["kind"] == "step");
    steps.map(|line| line["step"].as_u64().unwrap()).collect()
}

fn wait_until(run: &mut Child, happened: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if happened() {
            return;
        }
        assert_eq!(run.try_wait().unwrap(), None, "the run ended by itself");
        std::thread::sleep(Duration::from_millis(1));
    }
    run.kill().unwrap();
    panic!("nothing happened");
}

/// A run that has done a step.
fn started(folder: &Path, mut command: Command) -> Child {
    let mut run = command.spawn().unwrap();
    wait_until(&mut run, || has_steps(&folder.join("out")));
    run
}

fn has_steps(out: &Path) -> bool {
    let metrics = fs::read_to_string(out.join("metrics.jsonl"));
    metrics.is_ok_and(|text| text.contains("\"kind\":\"step\""))
}

fn send(run: &Child, signal: &str) {
    let kill = format!("kill -{signal} {}", run.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
}

fn ended(run: Child) -> Outcome {
    let output = run.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_second_run_in_the_same_folder_is_refused_by_name() {
    let folder = tempdir().unwrap();
    let run = started(folder.path(), command(folder.path(), &tiny(ENDLESS, &[])));
    let process = format!("process {} on host", run.id());
    for flags in [&[][..], &["--resume"], &["--resume=auto"]] {
        train(folder.path(), "", flags).refused(&["`out` is in use", &process]);
    }
    send(&run, "TERM");
    assert_eq!(ended(run).code, Some(130));
    assert_eq!(held(folder.path()).1, ["metrics.jsonl"]);
}

#[test]
fn metrics_may_go_to_the_null_device_and_to_no_other() {
    let folder = tempdir().unwrap();
    let metrics = folder.path().join("out/metrics.jsonl");
    fs::create_dir(folder.path().join("out")).unwrap();
    symlink("/dev/null", &metrics).unwrap();
    train(folder.path(), "train.max_iters=5", &["--quiet"]).succeeded();
    let resumed = train(folder.path(), "", &["--resume", "--quiet"]).succeeded();
    assert_eq!(resumed.stderr, "");
    for device in ["/dev/zero", "fifo"] {
        let folder = tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        fs::create_dir(folder.path().join("out")).unwrap();
        let target = if device == "fifo" {
            &fifo
        } else {
            Path::new(device)
        };
        symlink(target, folder.path().join("out/metrics.jsonl")).unwrap();
        train(folder.path(), "", &[]).refused(&[
            "`out/metrics.jsonl`",
            "regular file",
            "/dev/null",
        ]);
    }
}

#[test]
fn a_folder_that_cannot_be_one_is_named_with_what_it_is() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out");
    symlink("nowhere", &out).unwrap();
    train(folder.path(), "", &[]).refused(&["`out`", "a link to `nowhere`", "checkpoint.out_dir"]);
    fs::remove_file(&out).unwrap();
    fs::write(&out, "mine").unwrap();
    train(folder.path(), "", &[]).refused(&["`out`", "it is a file", "checkpoint.out_dir"]);
    assert_eq!(fs::read(&out).unwrap(), b"mine");
}

#[test]
fn a_folder_moved_away_during_the_run_is_noticed_and_the_curve_stays_whole() {
    let folder = tempdir().unwrap();
    let (out, moved) = (folder.path().join("out"), folder.path().join("moved"));
    let mut run = started(
        folder.path(),
        command(folder.path(), &tiny(ENDLESS, &["--quiet"])),
    );
    fs::rename(&out, &moved).unwrap();
    wait_until(&mut run, || has_steps(&out));
    send(&run, "TERM");
    let stopped = ended(run);
    assert_eq!(stopped.code, Some(130));
    assert_eq!(
        stopped.stderr.matches("`out` was moved or removed").count(),
        1,
        "{}",
        stopped.stderr
    );
    let (saved, names) = held(folder.path());
    assert_eq!(names, ["metrics.jsonl"]);
    assert_eq!(
        steps(&out.join("metrics.jsonl")),
        (1..=saved[0]).collect::<Vec<_>>()
    );
}

#[test]
fn metrics_removed_during_the_run_are_made_anew() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out");
    let mut run = started(
        folder.path(),
        command(folder.path(), &tiny(ENDLESS, &["--quiet"])),
    );
    fs::remove_file(out.join("metrics.jsonl")).unwrap();
    wait_until(&mut run, || has_steps(&out));
    send(&run, "TERM");
    let stopped = ended(run);
    assert_eq!(
        stopped
            .stderr
            .matches("is not the file that this run began to write")
            .count(),
        1
    );
    let saved = held(folder.path()).0;
    assert_eq!(
        steps(&out.join("metrics.jsonl")),
        (1..=saved[0]).collect::<Vec<_>>()
    );
}

#[test]
fn resume_auto_goes_on_if_there_is_something_and_begins_otherwise() {
    let folder = tempdir().unwrap();
    for max_iters in [5, 10] {
        let settings = format!("train.max_iters={max_iters}");
        train(folder.path(), &settings, &["--resume=auto"]).succeeded();
    }
    let out = folder.path().join("out");
    assert_eq!(
        steps(&out.join("metrics.jsonl")),
        (1..=10).collect::<Vec<_>>()
    );
    for step in held(folder.path()).0 {
        fs::write(checkpoint(folder.path(), step).join("state.json"), "{}").unwrap();
    }
    train(folder.path(), "", &["--resume=auto"])
        .refused(&["every one is damaged", "move them away"]);
}

#[test]
fn untrained_weights_are_not_evaluated_in_the_folder_of_a_run() {
    let folder = trained("train.max_iters=5");
    train(folder.path(), "", &["--eval-only"]).refused(&[
        "`out` holds a run",
        "`--resume`",
        "out_dir",
    ]);
}

#[test]
fn init_from_resume_without_a_checkpoint_names_the_key() {
    let folder = tempdir().unwrap();
    let refused = train(folder.path(), "train.init_from=resume", &[]);
    refused.refused(&[
        "no usable checkpoint in `out`",
        "`--set train.init_from=scratch`",
    ]);
    assert!(!folder.path().join("out").exists());
}

#[test]
fn rubble_goes_and_the_checkpoint_has_its_name_with_nothing_to_train() {
    let folder = trained("");
    let aside = folder.path().join("out/.old-ckpt-00000010");
    fs::rename(checkpoint(folder.path(), 10), aside).unwrap();
    fs::create_dir(folder.path().join("out/.tmp-ckpt-00000010")).unwrap();
    let resumed = train(folder.path(), "", &["--resume"]).succeeded();
    assert!(
        resumed
            .stderr
            .contains("  checkpoint   out/ckpt-00000010\n"),
        "{}",
        resumed.stderr
    );
    assert_eq!(held(folder.path()).1, ["metrics.jsonl"]);
}
