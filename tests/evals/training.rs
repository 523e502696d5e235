//! Tasks that are scored during a run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::process::{checkpoint, command, taper, tiny};
use crate::verb::write;

const TASKS: &str = "eval.eval_tasks=hellaswag:h.jsonl,lambada:l.jsonl,text.txt";

fn folder() -> TempDir {
    let folder = tempdir().unwrap();
    let endings = r#""endings": ["is a test", "let x", "fn main()", "none of these"]"#;
    let line = format!("{{\"ctx\": \"pub fn run\", {endings}, \"label\": 2}}\n");
    write(folder.path(), "h.jsonl", line.repeat(3));
    write(
        folder.path(),
        "l.jsonl",
        "{\"text\": \"let the word be the last\"}\n",
    );
    write(
        folder.path(),
        "text.txt",
        "use std::path::Path;\n".repeat(3),
    );
    folder
}

/// Scores in metrics.jsonl, or steps, evaluations and recoveries, without what was measured.
fn metrics(folder: &Path, is_score: bool) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut lines: Vec<Value> = lines
        .filter(|line: &Value| {
            let kinds: &[&str] = if is_score {
                &["score"]
            } else {
                &["step", "eval", "recovery"]
            };
            kinds.contains(&line["kind"].as_str().unwrap())
        })
        .collect();
    for line in &mut lines {
        for measured in ["ms", "data_ms", "host_bytes", "device_bytes", "time"] {
            line.as_object_mut().unwrap().remove(measured);
        }
    }
    lines
}

fn steps_of(lines: &[Value]) -> Vec<(u64, &str)> {
    let step = |line: &Value| line["step"].as_u64().unwrap();
    let lines = lines.iter();
    lines
        .map(|line| (step(line), line["task"].as_str().unwrap()))
        .collect()
}

#[test]
fn tasks_are_scored_at_their_steps_and_change_no_bit_of_the_training() {
    let folder = folder();
    let path = folder.path();
    let settings = format!("{TASKS} eval.eval_tasks_interval=4 eval.eval_tasks_limit=2");
    let outcome = taper(path, &tiny(&settings, &["--json"])).succeeded();
    let lines: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["kind"] == "score")
        .collect();
    let of = |step| [(step, "hellaswag"), (step, "lambada"), (step, "text.txt")];
    let expected = [of(4), of(8), of(10)].concat();
    assert_eq!(steps_of(&lines), expected);
    assert_eq!(lines[0]["examples"], 2);
    for name in ["acc", "acc_norm"] {
        assert!(
            (0.0..=1.0).contains(&lines[0][name].as_f64().unwrap()),
            "{}",
            lines[0]
        );
    }
    // The model learns.
    let loss = |line: &Value| line["loss"].as_f64().unwrap();
    assert!(
        loss(&lines[8]) < loss(&lines[2]),
        "{} {}",
        lines[8],
        lines[2]
    );
    assert_eq!(steps_of(&metrics(path, true)), expected);
    let stderr = &outcome.stderr;
    assert!(stderr.contains("\nstep 8: hellaswag acc "), "{stderr}");
    assert!(
        stderr.contains("scoring hellaswag, lambada, text.txt every 4 steps"),
        "{stderr}"
    );

    let plain = tempdir().unwrap();
    taper(plain.path(), &tiny("", &[])).succeeded();
    assert_eq!(metrics(path, false), metrics(plain.path(), false));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |folder| fs::read(checkpoint(folder, 10).join(file)).unwrap();
        assert!(read(path) == read(plain.path()), "{file} differs");
    }
    // The verb has the same scores for the same weights.
    let tasks = TASKS.split_once('=').unwrap().1;
    let verb = ["eval", "out", "--tasks", tasks, "--limit", "2", "--json"];
    let verb = taper(path, &verb).succeeded().stdout;
    for (line, in_run) in verb.lines().zip(&lines[6..]) {
        let verb: Value = serde_json::from_str(line).unwrap();
        for name in [
            "task",
            "acc",
            "acc_norm",
            "perplexity",
            "loss",
            "bits_per_byte",
        ] {
            assert_eq!(verb.get(name), in_run.get(name), "{line}");
        }
    }
}

#[test]
fn a_resumed_run_neither_repeats_nor_skips_a_scoring() {
    let settings = format!("{TASKS} eval.eval_tasks_interval=5");
    let whole = folder();
    taper(whole.path(), &tiny(&settings, &[])).succeeded();
    let parts = folder();
    let half = format!("{settings} train.max_iters=5");
    taper(parts.path(), &tiny(&half, &[])).succeeded();
    taper(parts.path(), &tiny(&settings, &["--resume"])).succeeded();
    let scores = metrics(whole.path(), true);
    assert_eq!(scores.len(), 6);
    assert_eq!(scores, metrics(parts.path(), true));
}

#[test]
fn a_signal_ends_a_scoring_and_the_resumed_run_makes_it() {
    let folder = folder();
    let path = folder.path();
    // More than any test waits for.
    write(path, "text.txt", "let x = 1;\n".repeat(2_000_000));
    let settings = format!("{TASKS} eval.eval_tasks_interval=4 eval.eval_interval=1000");
    let mut run = command(path, &tiny(&settings, &[])).spawn().unwrap();
    let is_scoring = || {
        let metrics = fs::read_to_string(path.join("out/metrics.jsonl")).unwrap_or_default();
        metrics.contains("\"step\":4,")
    };
    for _ in 0..60_000 {
        if is_scoring() {
            break;
        }
        assert_eq!(run.try_wait().unwrap(), None, "the run ended by itself");
        std::thread::sleep(Duration::from_millis(1));
    }
    let kill = format!("kill -TERM {}", run.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
    let output = run.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(
        stderr.contains("interrupted at step 4; checkpoint saved"),
        "{stderr}"
    );
    assert!(metrics(path, true).is_empty());
    let settings = format!("{settings} eval.eval_tasks_limit=1");
    taper(path, &tiny(&settings, &["--resume"])).succeeded();
    let steps: Vec<u64> = steps_of(&metrics(path, true))
        .iter()
        .map(|(step, _)| *step)
        .collect();
    assert_eq!(steps, [4, 4, 4, 8, 8, 8, 10, 10, 10]);
}

#[test]
fn tasks_that_cannot_be_scored_are_refused_before_the_first_step() {
    let folder = folder();
    let path = folder.path();
    let of = |tasks: &str| taper(path, &tiny(&format!("eval.eval_tasks={tasks}"), &[]));
    of("lambada:gone.jsonl").refused(&["`gone.jsonl` does not exist"]);
    of("hellaswag").refused(&["HF_HUB_OFFLINE"]);
    of("hellaswga").refused(&["did you mean `hellaswag`?"]);
    write(path, "l.jsonl", "{\"text\": \"no \u{1F600} here\"}\n");
    of("lambada:l.jsonl").refused(&["cannot write `lambada`", "U+1F600"]);
    assert!(!path.join("out/metrics.jsonl").exists());
}

#[test]
fn a_refusal_of_memory_during_a_scoring_changes_neither_scores_nor_training() {
    let settings =
        format!("{TASKS} train.max_iters=4 eval.eval_interval=1000 eval.eval_tasks_interval=4");
    let [whole, refused] = [folder(), folder()];
    taper(whole.path(), &tiny(&settings, &[])).succeeded();
    // The end has an evaluation of two splits before the scoring.
    let injected = ["--inject", "eval:3-4"];
    let outcome = taper(refused.path(), &tiny(&settings, &injected)).succeeded();
    assert!(
        outcome.stderr.contains("out of memory at eval"),
        "{}",
        outcome.stderr
    );
    assert_eq!(metrics(whole.path(), true), metrics(refused.path(), true));
    let read = |folder: &TempDir| fs::read(checkpoint(folder.path(), 4).join("model.safetensors"));
    assert!(read(&whole).unwrap() == read(&refused).unwrap());
}

#[test]
fn keys_without_tasks_are_told_to_have_no_effect() {
    let folder = folder();
    let settings = "eval.eval_tasks_interval=4 train.max_iters=1";
    let outcome = taper(folder.path(), &tiny(settings, &[])).succeeded();
    let told = "no tasks are scored: `eval.eval_tasks` names none";
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    let settings = format!("{TASKS} train.max_iters=1");
    let outcome = taper(
        folder.path(),
        &tiny(&settings, &["--eval-only", "--resume"]),
    )
    .succeeded();
    assert!(
        outcome.stderr.contains("`taper eval CHECKPOINT` scores"),
        "{}",
        outcome.stderr
    );
}
