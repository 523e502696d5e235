//! `taper train` as a user runs it: the real binary, its files, its exit code and what it says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;
use taper::device::Avx512Bf16;
use tempfile::{TempDir, tempdir};

mod process;

use process::{Outcome, checkpoint, command, taper, tiny};

fn trained(settings: &str) -> TempDir {
    let folder = tempdir().unwrap();
    taper(folder.path(), &tiny(settings, &[])).succeeded();
    folder
}

/// Every file below `folder`, byte for byte.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path))
        } else {
            drop(files.insert(path.clone(), fs::read(&path).unwrap()))
        }
    }
    files
}

fn json_lines(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(parse).collect()
}

/// Steps, evaluations and recoveries in metrics.jsonl, without what was measured. The rest is of a process: its start, its
/// choices, its saves.
fn metrics(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    let mut lines = json_lines(&text);
    lines.retain(|line| ["step", "eval", "recovery"].contains(&line["kind"].as_str().unwrap()));
    for line in &mut lines {
        for measured in ["ms", "data_ms", "host_bytes", "device_bytes", "time"] {
            line.as_object_mut().unwrap().remove(measured);
        }
    }
    lines
}

fn of_kind<'a>(lines: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["kind"] == kind)
}

/// Weights, moments, training state and metrics are those of the same run.
#[track_caller]
fn assert_same_run(a: &Path, b: &Path, step: u64) {
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |folder| fs::read(checkpoint(folder, step).join(file)).unwrap();
        assert!(read(a) == read(b), "{file} differs at step {step}");
    }
    let state = |folder| -> Value {
        let text = fs::read_to_string(checkpoint(folder, step).join("state.json")).unwrap();
        let mut state: Value = serde_json::from_str(&text).unwrap();
        // The file's length depends on how many digits its times have, the reasons for the choices
        // on where the launch started from. Which of the candidates with the same bits computed a
        // product depends on a clock.
        for launch in ["metrics_bytes", "choices", "gemm"] {
            state.as_object_mut().unwrap().remove(launch).unwrap();
        }
        state
    };
    assert_eq!(state(a), state(b));
    assert_eq!(metrics(a), metrics(b));
}

/// Waits until `happened`, while the run goes on.
fn wait_until(run: &mut Child, happened: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if happened() {
            return;
        }
        assert_eq!(run.try_wait().unwrap(), None, "the run ended by itself");
        std::thread::sleep(Duration::from_millis(1));
    }
    run.kill().unwrap();
    panic!("nothing happened");
}

/// Whether metrics.jsonl has a whole line about that step.
fn stepped(folder: &Path, step: u64) -> bool {
    let text = fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap_or_default();
    text.contains(&format!("\"step\":{step},"))
}

fn terminate(run: Child) -> Outcome {
    let kill = format!("kill -TERM {}", run.id());
    let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(sent.success());
    let output = run.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn newest(folder: &Path) -> u64 {
    let names = fs::read_dir(folder.join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let steps = names.filter_map(|name| name.strip_prefix("ckpt-")?.parse().ok());
    steps.max().unwrap()
}

/// An evaluation that takes longer than any test: it holds a run at a known step, which is not the start.
const ENDLESS_EVAL: &str = "eval.eval_iters=100000000 eval.eval_on_start=false";

#[test]
fn five_steps_a_kill_and_five_more_are_ten_steps() {
    let whole = trained("eval.eval_interval=5 eval.eval_on_start=false");

    let killed = tempdir().unwrap();
    let settings = format!("eval.eval_interval=7 {ENDLESS_EVAL}");
    let mut run = command(killed.path(), &tiny(&settings, &[]))
        .spawn()
        .unwrap();
    wait_until(&mut run, || stepped(killed.path(), 7));
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(newest(killed.path()), 5);

    taper(
        killed.path(),
        &tiny("eval.eval_interval=5", &["--resume", "--quiet"]),
    )
    .succeeded();
    assert_same_run(whole.path(), killed.path(), 10);
}

#[test]
fn a_run_killed_at_any_moment_resumes_exactly() {
    let settings = "eval.eval_interval=3 checkpoint.checkpoint_interval=2";
    let killed = tempdir().unwrap();
    let endless = format!("{settings} train.max_iters=1000000");
    let mut run = command(killed.path(), &tiny(&endless, &["--quiet"]))
        .spawn()
        .unwrap();
    wait_until(&mut run, || checkpoint(killed.path(), 6).exists());
    run.kill().unwrap();
    run.wait().unwrap();

    let to = newest(killed.path()) + 5;
    let settings = format!("{settings} train.max_iters={to}");
    taper(killed.path(), &tiny(&settings, &["--resume"])).succeeded();
    assert_same_run(trained(&settings).path(), killed.path(), to);
}

#[test]
fn a_torn_newest_checkpoint_falls_back_to_the_previous_one() {
    let whole = trained("");
    let torn = trained("train.max_iters=9 checkpoint.checkpoint_interval=3");
    let weights = checkpoint(torn.path(), 9).join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();

    let resumed = taper(torn.path(), &tiny("", &["--resume"])).succeeded();
    let warning = resumed
        .stderr
        .lines()
        .find(|line| line.starts_with("warning: "))
        .unwrap();
    assert!(warning.contains("out/ckpt-00000009"), "{warning}");
    assert!(warning.contains("model.safetensors"), "{warning}");
    assert_same_run(whole.path(), torn.path(), 10);
}

#[test]
fn a_run_that_is_terminated_saves_and_resumes_exactly() {
    let settings = "checkpoint.checkpoint_interval=1000000";
    let stopped = tempdir().unwrap();
    let endless = format!("{settings} train.max_iters=1000000");
    let mut run = command(stopped.path(), &tiny(&endless, &["--quiet"]))
        .spawn()
        .unwrap();
    wait_until(&mut run, || stepped(stopped.path(), 6));
    let outcome = terminate(run);
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    let step = newest(stopped.path());
    let message =
        format!("stopped: interrupted at step {step}; checkpoint saved in `out/ckpt-{step:08}`");
    assert!(outcome.stderr.contains(&message), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("--resume"), "{}", outcome.stderr);

    let to = step + 5;
    let settings = format!("{settings} train.max_iters={to}");
    taper(stopped.path(), &tiny(&settings, &["--resume"])).succeeded();
    assert_same_run(trained(&settings).path(), stopped.path(), to);
}

#[test]
fn a_run_terminated_in_an_evaluation_makes_it_when_resumed() {
    let stopped = tempdir().unwrap();
    let mut run = command(stopped.path(), &tiny(ENDLESS_EVAL, &["--quiet"]))
        .spawn()
        .unwrap();
    wait_until(&mut run, || stepped(stopped.path(), 4));
    let outcome = terminate(run);
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("out/ckpt-00000004"));

    taper(stopped.path(), &tiny("", &["--resume"])).succeeded();
    let whole = trained("eval.eval_on_start=false");
    assert_same_run(whole.path(), stopped.path(), 10);
}

#[test]
fn a_config_that_contradicts_the_checkpoint_is_refused() {
    let folder = trained("train.max_iters=5");
    let before = contents(folder.path());
    let other =
        "optimizer.learning_rate=0.5 model.n_layer=1 train.sequences_per_step=3 train.seed=7";
    let refused = taper(folder.path(), &tiny(other, &["--resume"])).refused(&[
        "`optimizer.learning_rate`",
        "`model.n_layer`",
        "`train.sequences_per_step`",
        "`train.seed`",
    ]);
    assert!(
        !refused.stderr.contains("`train.max_iters`"),
        "{}",
        refused.stderr
    );
    assert!(before == contents(folder.path()));
}

#[test]
fn a_precision_that_the_cpu_lacks_is_refused() {
    let lacking = match Avx512Bf16::probe() {
        None => vec!["bfloat16", "float16"],
        Some(_) => vec!["float16"],
    };
    for dtype in lacking {
        let folder = tempdir().unwrap();
        let setting = format!("system.dtype={dtype}");
        let asked = format!("`{dtype}`");
        taper(folder.path(), &tiny(&setting, &[])).refused(&[&asked, "--set system.dtype=auto"]);
        assert!(contents(folder.path()).is_empty());
    }
}

#[test]
fn a_cpu_that_multiplies_in_bfloat16_trains_so_and_resumes_exactly() {
    if Avx512Bf16::probe().is_none() {
        eprintln!("skipped: this CPU does not multiply in bf16");
        return;
    }
    let folder = tempdir().unwrap();
    let settings = |max_iters, out| {
        format!("system.dtype=bfloat16 train.max_iters={max_iters} checkpoint.out_dir={out}")
    };
    taper(folder.path(), &tiny(&settings(10, "whole"), &[])).succeeded();
    taper(folder.path(), &tiny(&settings(5, "parts"), &[])).succeeded();
    taper(folder.path(), &tiny(&settings(10, "parts"), &["--resume"])).succeeded();
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |out: &str| {
            let path = folder.path().join(out).join("ckpt-00000010").join(file);
            std::fs::read(path).unwrap()
        };
        assert!(read("whole") == read("parts"), "{file}");
    }
    let float32 = "train.max_iters=10 checkpoint.out_dir=float32";
    taper(folder.path(), &tiny(float32, &[])).succeeded();
    let weights = |out: &str| {
        let path = folder
            .path()
            .join(out)
            .join("ckpt-00000010/model.safetensors");
        std::fs::read(path).unwrap()
    };
    assert!(
        weights("whole") != weights("float32"),
        "nothing was rounded"
    );
}

#[test]
fn a_new_run_does_not_bury_another() {
    let folder = trained("train.max_iters=5");
    let before = contents(folder.path());
    taper(folder.path(), &tiny("", &[])).refused(&["`out`", "step 5", "--resume"]);
    assert!(before == contents(folder.path()));
}

#[test]
fn eval_only_prints_loss_and_perplexity_and_changes_nothing() {
    let folder = trained("");
    let logged = metrics(folder.path());
    let logged = of_kind(&logged, "eval")
        .find(|eval| eval["step"] == 10)
        .unwrap();
    let before = contents(folder.path());

    let text = taper(folder.path(), &tiny("", &["--resume", "--eval-only"])).succeeded();
    for key in ["train_loss", "val_loss"] {
        let loss = format!("{:.4}", logged[key].as_f64().unwrap());
        assert!(text.stdout.contains(&loss), "{loss}: {}", text.stdout);
    }
    assert!(text.stdout.contains("perplexity"), "{}", text.stdout);

    // Asked for more steps, it still takes none.
    let flags = ["--resume", "--eval-only", "--json"];
    for _ in 0..2 {
        let json = taper(folder.path(), &tiny("train.max_iters=50", &flags)).succeeded();
        let mut lines = json_lines(&json.stdout);
        assert_eq!(lines.len(), 1);
        lines[0].as_object_mut().unwrap().remove("ms");
        lines[0]["tokens_seen"] = logged["tokens_seen"].clone();
        assert_eq!(&lines[0], logged);
    }
    assert!(before == contents(folder.path()));
}

#[test]
fn eval_only_of_untrained_weights_leaves_no_files() {
    let folder = tempdir().unwrap();
    let json = taper(folder.path(), &tiny("", &["--eval-only", "--json"])).succeeded();
    let lines = json_lines(&json.stdout);
    assert_eq!((lines.len(), &lines[0]["step"]), (1, &Value::from(0)));
    assert!(contents(folder.path()).is_empty());
}

#[test]
fn json_is_one_object_per_line() {
    let folder = tempdir().unwrap();
    let run = taper(folder.path(), &tiny("", &["--json"])).succeeded();
    let lines = json_lines(&run.stdout);
    assert_eq!(lines.first().unwrap()["kind"], "startup");
    assert_eq!(lines.last().unwrap()["kind"], "done");
    assert_eq!(of_kind(&lines, "step").count(), 10);
    let steps: Vec<_> = of_kind(&lines, "eval").map(|line| &line["step"]).collect();
    assert_eq!(steps, [0, 4, 8, 10]);
}

#[test]
fn the_saved_config_makes_the_same_run() {
    let folder = trained("train.sequences_per_step=4");
    let saved = checkpoint(folder.path(), 10).join("config.toml");
    let again = tempdir().unwrap();
    let saved = saved.to_str().unwrap();
    taper(again.path(), &["train", "--config", saved]).succeeded();
    assert_same_run(folder.path(), again.path(), 10);
    let read = |folder| fs::read(checkpoint(folder, 10).join("config.toml")).unwrap();
    assert!(read(folder.path()) == read(again.path()));
}

#[test]
fn accumulation_changes_no_loss() {
    let losses = |settings: &str| -> Vec<f64> {
        let settings = format!("train.sequences_per_step=4 {settings}");
        let lines = metrics(trained(&settings).path());
        let step = of_kind(&lines, "step").map(|line| &line["loss"]);
        let eval = of_kind(&lines, "eval").map(|line| &line["val_loss"]);
        step.chain(eval).map(|x| x.as_f64().unwrap()).collect()
    };
    let whole = losses("train.batch_size=4");
    let parts = losses("train.batch_size=2");
    assert_eq!((whole.len(), parts.len()), (14, 14));
    for (whole, parts) in whole.iter().zip(&parts) {
        assert!((whole / parts - 1.0).abs() < 1e-5, "{whole} {parts}");
    }
}

#[test]
fn wrong_requests_are_answered_with_what_to_do() {
    let folder = tempdir().unwrap();
    let train = |config| vec!["train", "--config", config];
    let cases: Vec<(Vec<&str>, &[&str])> = vec![
        (
            train("quickstrat.toml"),
            &["quickstrat", "--config quickstart`"],
        ),
        (train("no/such/file.toml"), &["no/such/file.toml"]),
        (
            train("shakespeare_char.toml"),
            &["taper prepare shakespeare_char"],
        ),
        (tiny("train.max_itres=3", &[]), &["max_itres", "max_iters"]),
        (tiny("train.max_iters=many", &[]), &["max_iters", "many"]),
        (tiny("train.max_iters", &[]), &["train.max_iters"]),
        (tiny("model.n_head=3", &[]), &["n_head", "n_embd"]),
        (tiny("", &["--resume"]), &["out", "--resume"]),
        (tiny("", &["--resume", "nowhere"]), &["nowhere"]),
        (tiny("train.init_from=nowhere", &[]), &["nowhere"]),
        (tiny("model.block_size=10000000", &[]), &["block_size"]),
    ];
    for (arguments, words) in cases {
        eprintln!("{arguments:?}");
        taper(folder.path(), &arguments).refused(words);
        assert!(contents(folder.path()).is_empty(), "files were left");
    }
}

#[test]
fn wrong_command_lines_exit_with_1_and_say_why() {
    let folder = tempdir().unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["trian"], "train"),
        (&["train"], "--config"),
        (&tiny("", &["--josn"]), "--json"),
        (&["sample"], "--checkpoint"),
    ];
    for (arguments, word) in cases {
        let outcome = taper(folder.path(), arguments);
        assert_eq!(outcome.code, Some(1), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(word), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    }
    for asked in ["--help", "--version"] {
        let outcome = taper(folder.path(), &[asked]).succeeded();
        assert!(outcome.stdout.contains("taper"));
    }
}
