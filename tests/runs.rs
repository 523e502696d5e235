//! Runs read back from their folders.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "process/mod.rs"]
mod process;

use std::fs;
use std::path::Path;

use process::taper;
use serde_json::{Value, json};
use taper::runs::{CSV_START, Run, RunError, RunEvent, Summary, find, varied, write_csv};
use tempfile::tempdir;

/// A run's folder with these lines of metrics.
fn run(folder: &Path, lines: &[Value]) {
    fs::create_dir_all(folder).unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(folder.join("metrics.jsonl"), text).unwrap();
}

fn step(step: u64, loss: f64) -> Value {
    json!({"kind": "step", "step": step, "loss": loss, "lr": 1e-3, "grad_norm": 0.5, "tokens": 100, "ms": 50.0})
}

fn eval(step: u64, val_loss: f64) -> Value {
    json!({"kind": "eval", "step": step, "train_loss": 2.0, "val_loss": val_loss, "train_perplexity": 7.4,
        "val_perplexity": 9.0, "ms": 10.0})
}

/// The first line of a run with this learning rate.
fn description(resumed_from: Option<&str>, step: u64, learning_rate: f64) -> Value {
    let mut line = json!({"kind": "run", "name": "a", "version": "0.1.0", "step": step, "source": "x.toml",
        "differs": {}, "config": {"optimizer": {"learning_rate": learning_rate}, "train": {"max_iters": 9},
        "checkpoint": {"out_dir": learning_rate.to_string()}}, "device": "a CPU",
        "model": {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 4, "vocab_size": 9, "bias": false,
        "dropout": 0.0, "gelu": "tanh"}, "parameters": 100, "flops_per_token": 600.0,
        "data": {"name": "d", "train_tokens": 9, "val_tokens": 9, "vocab_size": 9}, "tokens_per_step": 100,
        "max_iters": 9, "rung": {"micro_batch": 1, "recompute": "none", "logits_rows": 4},
        "gradient_accumulation_steps": 1, "planned_bytes": 9, "memory": [], "choices": [],
        "time": 1000.5, "tokens_seen": step * 100});
    if let Some(from) = resumed_from {
        line["resumed_from"] = from.into();
    }
    line
}

fn steps(run: &Run) -> Vec<u64> {
    run.steps.iter().map(|point| point.step).collect()
}

#[test]
fn a_file_of_an_earlier_version_has_curves_and_the_config_of_its_checkpoint() {
    let folder = tempdir().unwrap();
    run(folder.path(), &[step(1, 4.0), step(2, 3.0), eval(2, 3.5)]);
    let checkpoint = folder.path().join("ckpt-00000002");
    fs::create_dir(&checkpoint).unwrap();
    fs::write(checkpoint.join("config.toml"), "[train]\nmax_iters = 7\n").unwrap();
    let run = Run::open(folder.path()).unwrap();
    assert_eq!((steps(&run), run.description.is_none()), (vec![1, 2], true));
    assert_eq!(run.config, Some(json!({"train": {"max_iters": 7}})));
    assert_eq!(run.steps[1].moment.tokens_seen, Some(200));
    assert_eq!(run.evals[0].moment.tokens_seen, Some(200));
    assert_eq!(run.checkpoints, [(2, checkpoint)]);
    // The file itself names the run, too.
    let file = Run::open(&folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!((file.name, file.steps), (run.name, run.steps));
}

#[test]
fn a_line_that_is_torn_or_foreign_costs_no_other() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let (first, second) = (step(1, 4.0), step(2, 3.0));
    fs::write(
        &path,
        format!("{first}\nnonsense\n\n{{}}\n{second}\n{{\"kind\":\"st"),
    )
    .unwrap();
    let run = Run::open(folder.path()).unwrap();
    assert_eq!(steps(&run), [1, 2]);
    assert_eq!(run.notes.len(), 1);
    assert!(
        run.notes[0].ends_with("2 lines left out that cannot be read, the first at line 2"),
        "{:?}",
        run.notes
    );
}

#[test]
fn steps_that_were_done_again_count_once() {
    let folder = tempdir().unwrap();
    let lines = [
        description(None, 0, 1e-3),
        step(1, 4.0),
        step(2, 9.0),
        eval(2, 9.0),
        step(3, 9.0),
        description(Some("out/ckpt-00000001"), 1, 1e-3),
        step(2, 3.0),
        eval(2, 3.5),
    ];
    run(folder.path(), &lines);
    let run = Run::open(folder.path()).unwrap();
    let losses: Vec<f64> = run.steps.iter().map(|point| point.record.loss).collect();
    assert_eq!(losses, [4.0, 3.0]);
    assert_eq!(run.best_eval().unwrap().record.val_loss, 3.5);
    let resumed = &run.events[0];
    assert_eq!(resumed.step, 1);
    assert!(
        matches!(&resumed.record, RunEvent::Resumed { from, .. } if from == "out/ckpt-00000001")
    );
}

#[test]
fn places_without_a_run_are_refused_by_what_is_there() {
    let folder = tempdir().unwrap();
    let open = |path: &Path| Run::open(path).unwrap_err();
    assert!(matches!(open(folder.path()), RunError::NoMetrics { .. }));
    assert!(matches!(
        open(&folder.path().join("no")),
        RunError::NotFound { .. }
    ));
    run(folder.path(), &[description(None, 0, 1e-3)]);
    assert!(matches!(open(folder.path()), RunError::Empty { .. }));
    let file = folder.path().join("metrics.jsonl");
    fs::write(&file, "a,b\n1,2\n").unwrap();
    assert!(matches!(open(folder.path()), RunError::Foreign { .. }));
    fs::write(&file, vec![b' '; 17 << 20]).unwrap();
    assert!(matches!(
        open(folder.path()),
        RunError::LongLine { line: 1, .. }
    ));
}

#[test]
fn what_varies_is_what_somebody_changed() {
    let folder = tempdir().unwrap();
    let rates = [1e-3, 6e-4];
    let runs = rates.map(|rate| {
        let folder = folder.path().join(rate.to_string());
        run(&folder, &[description(None, 0, rate), step(1, 4.0)]);
        Run::open(&folder).unwrap()
    });
    let varied = varied(&runs);
    assert_eq!(varied.len(), 1);
    assert_eq!(
        (varied[0].key.as_str(), &varied[0].values[..]),
        ("learning_rate", &["1e-3".to_owned(), "6e-4".into()][..])
    );
}

#[test]
fn a_summary_has_the_best_loss_the_rate_and_the_time_in_steps() {
    let folder = tempdir().unwrap();
    let lines = [
        description(None, 0, 1e-3),
        step(2, 4.0),
        step(4, 2.0),
        eval(2, 3.5),
        eval(4, 3.6),
    ];
    run(folder.path(), &lines);
    let summary = Summary::of(&Run::open(folder.path()).unwrap());
    assert_eq!(
        (
            summary.best_val_loss,
            summary.best_step,
            summary.last_val_loss
        ),
        (Some(3.5), Some(2), Some(3.6))
    );
    assert_eq!(
        (summary.step, summary.max_iters, summary.tokens_seen),
        (4, Some(9), Some(400))
    );
    // Two steps of 50 ms for each line; 100 tokens in 50 ms.
    assert_eq!(
        (summary.training_seconds, summary.tokens_per_second),
        (0.2, Some(2000.0))
    );
    // Weights of the running loss: 0.98^2 (1 - 0.98^2) and 1 - 0.98^2.
    let (old, new) = (0.98f64.powi(2), 1.0);
    let expected = (old * 4.0 + new * 2.0) / (old + new);
    assert!((summary.train_loss.unwrap() - expected).abs() < 1e-12);
}

#[test]
fn csv_has_a_row_for_each_step_and_evaluation() {
    let folder = tempdir().unwrap();
    let folder = folder.path().join("a,b");
    run(&folder, &[step(1, 4.0), step(2, 3.0), eval(2, 3.5)]);
    let mut text = Vec::new();
    write_csv(&[Run::open(&folder).unwrap()], &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with(CSV_START));
    assert_eq!(lines[1], r#""a,b",1,100,,4,0.001,0.5,2000,50,,,,,"#);
    assert_eq!(lines[2], r#""a,b",2,200,,3,0.001,0.5,2000,50,,,2,3.5,9"#);
}

#[test]
fn runs_are_found_below_a_folder_and_not_inside_each_other() {
    let folder = tempdir().unwrap();
    for name in ["b", "deep/er/a", "b/inside", ".hidden/run"] {
        run(&folder.path().join(name), &[step(1, 4.0)]);
    }
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("metrics.jsonl"), "not a run\n").unwrap();
    let found = find(folder.path());
    let names: Vec<&str> = found.runs.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(found.unread.len(), 1);
}

#[test]
fn compare_tells_what_differs_and_marks_the_best() {
    let folder = tempdir().unwrap();
    for (name, rate, loss) in [("a", 1e-3, 3.5), ("b", 6e-4, 3.25)] {
        let lines = [description(None, 0, rate), step(9, 4.0), eval(9, loss)];
        run(&folder.path().join(name), &lines);
    }
    let table = taper(folder.path(), &["compare", "a", "b"])
        .succeeded()
        .stdout;
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0][..2], ["run", "learning_rate"]);
    assert_eq!(
        lines[1],
        [
            "a", "1e-3", "9", "900", "4.0000", "3.5000", "9", "2,000", "0s", "-"
        ]
    );
    assert_eq!(lines[2][..6], ["b", "6e-4", "9", "900", "4.0000", "3.2500"]);
    assert_eq!(lines[2][10..], ["<-", "best"]);

    let objects = taper(folder.path(), &["runs", "--json"]).succeeded().stdout;
    let objects: Vec<Value> = objects
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[1]["differs"]["learning_rate"], "6e-4");
    assert_eq!(objects[1]["best_val_loss"], 3.25);
}

#[test]
fn a_folder_without_runs_says_how_to_make_one() {
    let folder = tempdir().unwrap();
    let text = taper(folder.path(), &["runs"]).succeeded();
    assert!(text.stderr.contains("taper train --config quickstart.toml"));
    taper(folder.path(), &["compare", "nothing"]).refused(&["`nothing`", "taper runs"]);
    taper(folder.path(), &["compare", "."]).refused(&["`.`", "metrics.jsonl"]);
}

#[test]
fn plot_writes_csv_and_replaces_its_own_alone() {
    let folder = tempdir().unwrap();
    run(&folder.path().join("a"), &[step(1, 4.0), step(2, 3.0)]);
    let plot = ["plot", "a", "--out", "curves.csv"];
    for _ in 0..2 {
        taper(folder.path(), &plot).succeeded();
    }
    let path = folder.path().join("curves.csv");
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
    fs::write(&path, "mine\n").unwrap();
    taper(folder.path(), &plot).refused(&["`curves.csv`", "did not make it"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine\n");
}
