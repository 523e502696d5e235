//! A sweep: several values of a key are several runs in sibling folders, and end with a table.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use taper::checkpoint::OutDir;
use taper::config::{Sweep, SweptKey};
use tempfile::{TempDir, tempdir};

#[allow(dead_code, reason = "other tests use the rest")]
mod process;

use process::{Outcome, command, taper, tiny};

fn sweep(overrides: &[&str]) -> Result<Option<Sweep>, String> {
    let overrides: Vec<String> = overrides.iter().map(|set| set.to_string()).collect();
    Sweep::of(&overrides).map_err(|error| error.to_string())
}

#[test]
fn lists_ask_for_their_product_and_the_last_changes_fastest() {
    let asked = [
        "seed=7",
        "optimizer.learning_rate=1e-3, 6e-4",
        "model.n_layer=2,4",
    ];
    let found = sweep(&asked).unwrap().unwrap();
    let key = |section, name| SweptKey { section, name };
    assert_eq!(
        found.keys,
        [key("optimizer", "learning_rate"), key("model", "n_layer")]
    );
    let runs: Vec<String> = found.runs.iter().map(|run| run.join(" ")).collect();
    assert_eq!(
        runs,
        [
            "seed=7 optimizer.learning_rate=1e-3 model.n_layer=2",
            "seed=7 optimizer.learning_rate=1e-3 model.n_layer=4",
            "seed=7 optimizer.learning_rate=6e-4 model.n_layer=2",
            "seed=7 optimizer.learning_rate=6e-4 model.n_layer=4",
        ]
    );
}

#[test]
fn a_comma_in_a_text_and_in_toml_is_no_list() {
    for overrides in [
        &["seed=7"][..],
        &["checkpoint.out_dir=a,b", "dataset=x,y", "train_bin=a,b"],
        &["eval.eval_tasks=hellaswag,lambada"],
        &["dtype=\"auto,float32\""],
        &["seed=[1, 2]", "train.x=1,2", "a,b"],
        &["seed=1,2", "train.seed=3"],
        &[],
    ] {
        assert_eq!(sweep(overrides), Ok(None), "{overrides:?}");
    }
    for one in [
        "decay_lr=true,false",
        "dtype=auto,float32",
        "batch_size=auto,4",
        "device=cpu,cuda:1",
    ] {
        assert_eq!(sweep(&[one]).unwrap().unwrap().runs.len(), 2, "{one}");
    }
}

#[test]
fn a_list_with_a_gap_and_too_many_runs_are_refused() {
    for gap in ["seed=1,", "seed=,1", "seed=1,,2", "seed= , "] {
        let error = sweep(&[gap]).unwrap_err();
        assert!(
            error.starts_with("a value is missing in the list"),
            "{error}"
        );
    }
    let many: Vec<String> = (0..60).map(|seed| seed.to_string()).collect();
    let [seeds, layers] = ["seed", "warmup_iters"].map(|key| format!("{key}={}", many.join(",")));
    assert_eq!(sweep(&[&seeds]).unwrap().unwrap().runs.len(), 60);
    let error = sweep(&[&seeds, &layers]).unwrap_err();
    assert!(error.contains("more than 1000 runs"), "{error}");
}

/// [`process::TINY`] with `settings`, swept.
fn train(folder: &Path, settings: &str, flags: &[&str]) -> Outcome {
    taper(folder, &tiny(settings, flags))
}

/// The file of a checkpoint in a run's folder.
fn weights(folder: &Path, run: &str, step: u64) -> Vec<u8> {
    let checkpoint = folder.join(run).join(format!("ckpt-{step:08}"));
    fs::read(checkpoint.join("model.safetensors")).unwrap()
}

fn evals(folder: &Path, run: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(run).join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| line["kind"] == "eval")
        .collect()
}

fn best(folder: &Path, run: &str) -> f64 {
    let losses = evals(folder, run);
    let losses = losses.iter().map(|eval| eval["val_loss"].as_f64().unwrap());
    losses.fold(f64::INFINITY, f64::min)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn runs_are_those_that_were_started_alone_and_the_table_names_the_best() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let swept = train(
        path,
        "optimizer.min_lr=0 optimizer.learning_rate=1e-3,0.0006",
        &["-q"],
    );
    let swept = swept.succeeded();
    let runs = ["out-learning_rate=1e-3", "out-learning_rate=6e-4"];
    assert_eq!(names(path), runs);
    let lines: Vec<&str> = swept.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", swept.stdout);
    assert!(
        lines[0].starts_with("learning_rate  best val loss  at step"),
        "{}",
        lines[0]
    );
    let losses = runs.map(|run| best(path, run));
    for ((line, run), loss) in lines[1..].iter().zip(runs).zip(losses) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(format!("out-learning_rate={}", cells[0]), run);
        assert_eq!(cells[1..3], [&format!("{loss:.4}"), "10"], "{line}");
        assert_eq!(
            cells.contains(&"best"),
            loss == f64::min(losses[0], losses[1]),
            "{line}"
        );
    }
    for (run, rate) in runs.iter().zip(["1e-3", "6e-4"]) {
        let alone = format!("optimizer.min_lr=0 learning_rate={rate} out_dir=alone-{rate}");
        train(path, &alone, &[]).succeeded();
        assert!(
            weights(path, run, 10) == weights(path, &format!("alone-{rate}"), 10),
            "{run}"
        );
    }
}

/// Runs with seeds 1 to 3, of which the first is done, the second in the middle, and the third not begun.
fn stopped_midway() -> TempDir {
    let folder = tempdir().unwrap();
    for (seed, steps) in [(1, 10), (2, 5)] {
        let settings = format!("train.seed={seed} train.max_iters={steps} out_dir=out-seed={seed}");
        train(folder.path(), &settings, &[]).succeeded();
    }
    folder
}

#[test]
fn a_sweep_that_was_stopped_goes_on_where_it_was() {
    let whole = tempdir().unwrap();
    train(whole.path(), "train.seed=1,2,3", &[]).succeeded();
    let folder = stopped_midway();
    let path = folder.path();
    let changed = || {
        fs::metadata(path.join("out-seed=1/metrics.jsonl"))
            .unwrap()
            .modified()
    };
    let before = changed().unwrap();
    let outcome = train(path, "train.seed=1,2,3", &["--resume"]).succeeded();
    let skipped = "run 1 of 3, train.seed=1, in `out-seed=1` is done: skipped";
    assert!(outcome.stderr.contains(skipped), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("steps 6 to 10"),
        "{}",
        outcome.stderr
    );
    let rows: Vec<&str> = outcome.stdout.lines().skip(1).collect();
    assert!(rows[0].contains("done before"), "{}", outcome.stdout);
    for (run, row) in ["out-seed=1", "out-seed=2", "out-seed=3"].iter().zip(rows) {
        assert!(
            weights(path, run, 10) == weights(whole.path(), run, 10),
            "{run}"
        );
        assert!(row.contains(&format!("{:.4}", best(path, run))), "{row}");
    }
    assert_eq!(changed().unwrap(), before);
    let again = train(path, "train.seed=1,2,3", &["--resume=auto", "-q"]).succeeded();
    assert_eq!(
        again.stdout.matches("done before").count(),
        3,
        "{}",
        again.stdout
    );
}

#[test]
fn a_run_that_diverges_stops_no_other_and_the_table_says_so() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let outcome = train(path, "optimizer.min_lr=0 learning_rate=1e30,1e-3", &[]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let failed = "run 1 of 2, optimizer.learning_rate=1e30, in `out-learning_rate=1e30` failed\n\
        error: training diverged at step 2";
    assert!(outcome.stderr.contains(failed), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("error: 1 of 2 runs failed\nhint: "),
        "{}",
        outcome.stderr
    );
    let rows: Vec<&str> = outcome.stdout.lines().collect();
    assert!(
        rows[1].contains("failed: training diverged at step 2"),
        "{}",
        outcome.stdout
    );
    assert!(
        rows[2].ends_with("out-learning_rate=1e-3  <- best"),
        "{}",
        outcome.stdout
    );
    assert!(path.join("out-learning_rate=1e-3/ckpt-00000010").is_dir());
}

#[test]
fn a_run_whose_time_is_over_says_so_and_goes_on_with_the_sweep() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let short = "train.seed=1,2 train.max_minutes=1e-9";
    let outcome = train(path, short, &["-q"]).succeeded();
    assert_eq!(
        outcome.stdout.matches("ended at step ").count(),
        2,
        "{}",
        outcome.stdout
    );
    let whole = train(path, "train.seed=1,2", &["-q", "--resume"]).succeeded();
    assert!(!whole.stdout.contains("ended at") && !whole.stdout.contains("done before"));
    for run in ["out-seed=1", "out-seed=2"] {
        assert!(path.join(run).join("ckpt-00000010").is_dir());
    }
}

/// Waits for words in a run's metrics. Then the program gets a signal, and in any case it ends.
fn terminated_after(mut child: Child, path: &Path, words: &str) -> Output {
    let has_words = || fs::read_to_string(path).is_ok_and(|text| text.contains(words));
    for _ in 0..60_000 {
        if has_words() {
            let kill = format!("kill -TERM {}", child.id());
            let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
            assert!(sent.success());
            return child.wait_with_output().unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    panic!("`{words}` did not come");
}

#[test]
fn a_signal_stops_the_whole_sweep_and_what_was_trained_is_saved() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    // The second run never ends by itself: its first evaluation does not.
    let settings = "eval.eval_iters=2,100000000,3 eval.eval_on_start=false";
    let child = command(path, &tiny(settings, &[])).spawn().unwrap();
    let metrics = path.join("out-eval_iters=100000000/metrics.jsonl");
    let output = terminated_after(child, &metrics, "\"step\":4,");
    assert_eq!(output.status.code(), Some(130));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<&str> = stdout.lines().skip(1).collect();
    assert!(rows[0].ends_with("<- best"), "{stdout}");
    assert!(rows[1].ends_with("stopped at step 4"), "{stdout}");
    assert!(rows[2].ends_with("not begun"), "{stdout}");
    assert_eq!(
        names(path),
        ["out-eval_iters=100000000", "out-eval_iters=2"]
    );
    assert!(path.join("out-eval_iters=100000000/ckpt-00000004").is_dir());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("stopped: interrupted at step 4"),
        "{stderr}"
    );
}

#[test]
fn nothing_begins_where_one_of_the_runs_cannot() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    for (settings, words) in [
        ("train.seed=1,2,x", "`seed` cannot be `x`"),
        (
            "optimizer.learning_rate=1e-3,1e-9",
            "is above `learning_rate`",
        ),
        ("train.seed=1,2 data.dataset=nope", "data/nope/train.bin"),
        ("model.block_size=16,500000", "the val split"),
        (
            "optimizer.min_lr=0 learning_rate=1e-3,0.001",
            "`optimizer.learning_rate=1e-3` is asked for twice",
        ),
        (
            "train.seed=1,2 eval.eval_only=true",
            "`eval.eval_only` trains nothing",
        ),
    ] {
        train(path, settings, &[]).refused(&[words]);
        assert!(names(path).is_empty(), "{settings}: {:?}", names(path));
    }
    for (flags, words) in [
        (
            &["--eval-only"][..],
            "`--eval-only` trains nothing, and `--set` asks for 2 runs",
        ),
        (
            &["--resume", "elsewhere"],
            "`--resume elsewhere` goes on with one run",
        ),
        (
            &["--resume"],
            "nothing to resume: no run of the sweep has a checkpoint",
        ),
    ] {
        train(path, "train.seed=1,2", flags).refused(&[words]);
        assert!(names(path).is_empty());
    }
}

#[test]
fn a_folder_that_has_a_run_or_is_in_use_is_found_before_the_first_run() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let held = OutDir::hold(&path.join("out-seed=2")).unwrap();
    let in_use = train(path, "train.seed=1,2", &[]);
    in_use.refused(&["run 2 of 2, train.seed=2, in `out-seed=2`", "process "]);
    drop(held);
    assert!(names(path).is_empty());
    train(path, "train.seed=2 out_dir=out-seed=2", &[]).succeeded();
    let taken = train(path, "train.seed=1,2", &[]);
    taken.refused(&[
        "`out-seed=2` already holds a run, saved at step 10",
        "hint: add `--resume`",
    ]);
    assert_eq!(names(path), ["out-seed=2"]);
}

#[test]
fn json_names_each_run_before_its_events_and_ends_with_all_of_them() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let outcome = train(
        path,
        "model.dropout=0,0.5 optimizer.decay_lr=true,false",
        &["--json", "-q"],
    );
    let outcome = outcome.succeeded();
    let lines: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of_kind = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!(
        [of_kind("sweep_run"), of_kind("done"), of_kind("sweep")],
        [4, 4, 1]
    );
    assert_eq!(
        lines[0],
        json!({
            "kind": "sweep_run",
            "settings": {"model.dropout": 0.0, "optimizer.decay_lr": true},
            "out_dir": "out-dropout=0.0-decay_lr=true",
        })
    );
    let sweep = lines.last().unwrap();
    let runs = sweep["runs"].as_array().unwrap();
    let done: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "done").collect();
    for (run, done) in runs.iter().zip(done) {
        assert_eq!(run["end"], "done");
        for figure in ["step", "best_val_loss", "best_step"] {
            assert_eq!(run[figure], done[figure], "{run} {done}");
        }
        assert!(run["tokens_per_second"].as_f64().unwrap() > 0.0);
        assert!(run["seconds"].as_f64().unwrap() > 0.0);
    }
    let losses = runs
        .iter()
        .map(|run| run["best_val_loss"].as_f64().unwrap());
    let best = losses.fold(f64::INFINITY, f64::min);
    let named = runs
        .iter()
        .find(|run| run["out_dir"] == sweep["best"])
        .unwrap();
    assert_eq!(named["best_val_loss"], best);
}

#[test]
fn a_sweep_is_planned_as_one_row_for_each_run() {
    let folder = tempdir().unwrap();
    let plan = |flags: &[&str]| {
        let plan = [
            "plan",
            "--config",
            "quickstart.toml",
            "--set",
            "n_layer=2,4",
        ];
        taper(folder.path(), &[&plan[..], flags].concat())
    };
    let table = plan(&[]).succeeded().stdout;
    let rows: Vec<&str> = table.lines().skip(1).collect();
    assert_eq!(rows.len(), 3, "{table}");
    for (row, layers) in rows.iter().zip([2, 4]) {
        let label = format!("quickstart.toml --set n_layer={layers}  ");
        assert!(row.starts_with(&label), "{table}");
    }
    let several = plan(&[
        "--config",
        "small_bpe.toml",
        "--device",
        "rtx3060,t4",
        "--json",
    ]);
    let several: Value = serde_json::from_str(&several.succeeded().stdout).unwrap();
    assert_eq!(several.as_array().unwrap().len(), 8);
    plan(&["--buffers"]).refused(&["are for one plan, and several are asked for"]);
    plan(&["--set", "dropout=0,2"]).refused(&["`dropout` cannot be `2`"]);
    assert!(names(folder.path()).is_empty());
}
