//! `taper plan` as a user runs it.

use std::io::{BufRead, BufReader, Read};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use super::process::{Outcome, command, taper, tiny};

/// In a folder without data.
fn plan(arguments: &str) -> Outcome {
    let folder = tempdir().unwrap();
    let words = arguments.split_whitespace();
    let arguments: Vec<&str> = ["plan", "--config"].into_iter().chain(words).collect();
    taper(folder.path(), &arguments)
}

fn json(arguments: &str) -> Value {
    let stdout = plan(&format!("{arguments} --json")).succeeded().stdout;
    assert_eq!(stdout.lines().count(), 1);
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn the_quickstart_is_planned_for_this_cpu() {
    let outcome = plan("quickstart.toml").succeeded();
    assert_eq!(outcome.stderr, "");
    for text in [
        "plan of quickstart.toml on ",
        // In micro-batches that the extensions of this CPU decide on.
        "16 sequences x 128 tokens = 2,048 tokens, as ",
        "<- chosen",
        "memory at the chosen rung\n",
        "\n  reserve  ",
        "\nchoices\n",
        "dtype = float32  (the CPU trains in float32)",
        "threads = ",
    ] {
        assert!(outcome.stdout.contains(text), "{text}\n{}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains("does not fit"));
}

#[test]
fn a_card_may_be_written_in_many_ways() {
    let expected = plan("openwebtext.toml --device rtx3060").succeeded().stdout;
    assert!(expected.starts_with("plan of openwebtext.toml on NVIDIA GeForce RTX 3060, 28 SMs"));
    for alias in ["3060", "RTX-3060", "GeForce-RTX-3060", "rtx3060-12gb"] {
        let found = plan(&format!("openwebtext.toml --device {alias}"));
        assert_eq!(found.succeeded().stdout, expected, "{alias}");
    }
    let a100 = plan("openwebtext.toml --device a100-80").succeeded().stdout;
    assert!(a100.contains("NVIDIA A100-SXM4-80GB"));
    plan("openwebtext.toml --device rtx3061").refused(&["`rtx3061`", "did you mean `rtx3060`?"]);
    plan("openwebtext.toml --device a100").refused(&["there are `a100-40`, `a100-80`"]);
    let old = plan("openwebtext.toml --device v100");
    old.refused(&["compute capability 7.0", "7.5", "`--device cpu`"]);
    plan("openwebtext.toml --device abacus").refused(&["`abacus`", "rtx4090", "h100"]);
}

#[test]
fn what_is_free_on_the_card_bounds_the_plan() {
    let object = json("openwebtext.toml --device rtx3060 --free 2.68GiB");
    let budget = (2.68 * f64::from(1 << 30)) as u64;
    assert_eq!(object["budget_bytes"], budget);
    assert!(object["launch"]["bytes"].as_u64().unwrap() <= budget);
    plan("openwebtext.toml --device rtx3060 --free 13GiB")
        .refused(&["`--free` is above", "NVIDIA GeForce RTX 3060"]);
    let alone = plan("openwebtext.toml --free 2GiB");
    assert_eq!(alone.code, Some(1));
    assert!(alone.stderr.contains("--device <NAME>"), "{}", alone.stderr);
    let bare = plan("openwebtext.toml --device t4 --free=12");
    assert_eq!(bare.code, Some(1));
    assert!(bare.stderr.contains("say `12GiB`"), "{}", bare.stderr);
    for rubbish in ["lots", "0", "-1GiB"] {
        let outcome = plan(&format!("openwebtext.toml --device t4 --free={rubbish}"));
        assert_eq!(outcome.code, Some(1), "{rubbish}");
        assert!(outcome.stderr.contains("--free"), "{}", outcome.stderr);
    }
}

#[test]
fn a_memory_limit_bounds_the_plan() {
    let object = json("openwebtext.toml --device rtx3060 --memory-limit 4GiB");
    assert_eq!(object["budget_bytes"], 4u64 << 30);
    // The flag is the last word.
    let object = json(
        "openwebtext.toml --device rtx3060 --memory-limit 4GiB --set system.memory_limit=5GiB",
    );
    assert_eq!(object["budget_bytes"], 4u64 << 30);
    for rubbish in ["lots", "0", "-1GiB", "1.2.3GiB", ""] {
        plan(&format!("openwebtext.toml --memory-limit={rubbish}")).refused(&["memory_limit"]);
    }
    plan("openwebtext.toml --device rtx3060 --memory-limit 1GiB").refused(&[
        "the smallest launch needs 2.59 GiB, 1.00 GiB may be used (the memory limit that was set)",
        "each of these fits",
        "--memory-limit ",
    ]);
}

#[test]
fn the_json_adds_up() {
    for arguments in [
        "quickstart.toml",
        "openwebtext.toml --device h100",
        "eval_gpt2.toml --device t4",
        "gpt2-xl.toml --device h200 --set system.recompute=block",
    ] {
        let object = json(arguments);
        let rows = object["memory"].as_array().unwrap();
        let total: u64 = rows.iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
        assert_eq!(object["launch"]["bytes"], total, "{arguments}");
        let chosen = object["chosen"].as_u64().unwrap() as usize;
        assert_eq!(object["ladder"][chosen], object["launch"]);
        assert!(
            rows.iter()
                .all(|row| row["group"].is_string() && row["name"].is_string())
        );
        let choices = object["choices"].as_array().unwrap();
        assert!(choices.iter().all(|choice| choice["because"] != ""));
        let launch = &object["launch"];
        for key in ["micro_batch", "logits_rows"] {
            assert!(launch[key].as_u64() > Some(0), "{key}");
        }
        assert!(launch["recompute"].is_string());
        let steps = object["gradient_accumulation_steps"].as_u64().unwrap();
        let micro_batch = launch["micro_batch"].as_u64().unwrap();
        assert_eq!(object["sequences_per_step"], steps * micro_batch);
        let job = if arguments.starts_with("eval") {
            "evaluate"
        } else {
            "train"
        };
        assert_eq!(object["job"], job);
    }
}

#[test]
fn buffers_are_listed_one_by_one() {
    let object = json("openwebtext.toml --device rtx3060");
    let rows = object["memory"].as_array().unwrap();
    let text = plan("openwebtext.toml --device rtx3060 --buffers");
    let text = text.succeeded().stdout;
    let mut listed: Vec<(&str, u64)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" B"))
        .map(|line| {
            // Name, then size and unit, then bytes.
            let (name, rest) = line.split_at(22);
            let bytes = rest.split_whitespace().last().unwrap();
            (name.trim(), bytes.replace(',', "").parse().unwrap())
        })
        .collect();
    let mut expected: Vec<(&str, u64)> = rows
        .iter()
        .map(|row| {
            (
                row["name"].as_str().unwrap(),
                row["bytes"].as_u64().unwrap(),
            )
        })
        .collect();
    // Listed by group.
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    assert!(listed.len() > 12 * 10);
    let both = plan("openwebtext.toml --device rtx3060 --buffers --json");
    assert_eq!(both.code, Some(1));
}

#[test]
fn a_preset_that_only_evaluates_is_planned_as_an_evaluation() {
    let text = plan("eval_gpt2.toml --device rtx3060").succeeded().stdout;
    assert!(
        text.contains("4,000 sequences x 1,024 tokens = 4,096,000 tokens per split, "),
        "{text}"
    );
    for training in [
        "moments",
        "gradients",
        "master weights",
        "recompute =",
        "\n  step ",
    ] {
        assert!(!text.contains(training), "{training}\n{text}");
    }
}

#[test]
fn a_dataset_that_is_not_here_is_assumed_loudly() {
    for (source, words) in [
        (
            "openwebtext.toml",
            "vocab_size = 50304  (assumed: the dataset `openwebtext` is not here",
        ),
        (
            "shakespeare_char.toml",
            "vocab_size = 65  (assumed: the dataset `shakespeare_char` is not here)",
        ),
    ] {
        let text = plan(&format!("{source} --device t4")).succeeded().stdout;
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn the_time_of_a_run_is_predicted_and_more_than_a_week_is_pointed_out() {
    let time = |object: &Value| object["time"]["run_seconds"].as_f64().unwrap();
    let object = json("openwebtext.toml --device rtx3060");
    let step = object["time"]["step_seconds"].as_f64().unwrap();
    assert!(time(&object) > 600_000.0 * step);
    let long = plan("openwebtext.toml --device rtx3060").succeeded();
    let line = long.stdout.lines().find(|line| line.contains(" a step, "));
    assert!(
        line.unwrap().contains("in all (predicted"),
        "{}",
        long.stdout
    );
    let warning = "warning: the run is predicted to take ";
    assert!(long.stderr.starts_with(warning), "{}", long.stderr);

    let short = "openwebtext.toml --device rtx3060 --set train.max_iters=100 \
        --set optimizer.warmup_iters=5";
    assert_eq!(plan(short).succeeded().stderr, "");
    // Evaluations count.
    let with = |interval: u64| {
        time(&json(&format!(
            "{short} --set eval.eval_interval={interval}"
        )))
    };
    assert!(with(10) > with(100));
    let only = plan("eval_gpt2.toml --device h100").succeeded().stdout;
    assert!(only.contains(" for both splits (predicted)"), "{only}");
}

#[test]
fn several_configs_and_cards_are_compared_in_one_table() {
    let arguments = "gpt2-xl.toml --config openwebtext.toml --device t4,rtx3060";
    let text = plan(arguments).succeeded().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    for (line, [config, card]) in lines[1..].iter().zip([
        ["gpt2-xl.toml", "Tesla T4"],
        ["gpt2-xl.toml", "NVIDIA GeForce RTX 3060"],
        ["openwebtext.toml", "Tesla T4"],
        ["openwebtext.toml", "NVIDIA GeForce RTX 3060"],
    ]) {
        assert!(line.starts_with(config) && line.contains(card), "{line}");
        let refused = line.contains("does not fit: 26.77 GiB needed");
        assert_eq!(refused, config == "gpt2-xl.toml", "{line}");
    }
    let objects = json(arguments);
    let objects = objects.as_array().unwrap();
    assert_eq!(objects.len(), 4);
    assert!(objects[1]["error"].is_string() && objects[1]["hint"].is_string());
    // As one call says it.
    assert_eq!(objects[3], json("openwebtext.toml --device rtx3060"));
    plan("openwebtext.toml --device t4,rtx3061").refused(&["`rtx3061`"]);
    plan("openwebtext.toml --device t4,rtx3060 --free 2GiB").refused(&["`--free`", "one plan"]);
}

#[test]
fn hints_of_a_benchmark_name_flags_that_it_has() {
    let folder = tempdir().unwrap();
    for verb in ["gemm", "step"] {
        let limited = ["bench", verb, "--memory-limit", "1MiB"];
        taper(folder.path(), &limited)
            .refused(&["the memory limit that was set", "--memory-limit "]);
    }
}

#[test]
fn mistakes_are_answered() {
    plan("openwebtxt.toml").refused(&["openwebtxt", "openwebtext"]);
    plan("quickstart.toml --set model.n_heads=3").refused(&["n_heads", "n_head"]);
    plan("quickstart.toml --device t4 --set system.dtype=bfloat16")
        .refused(&["compute capability 7.5", "system.dtype=auto"]);
}

/// Exit code and standard error of a command whose reader leaves after one line.
fn with_a_reader_that_leaves(folder: &TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = command(folder.path(), arguments).spawn().unwrap();
    let mut line = String::new();
    let mut out = BufReader::with_capacity(1, child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    drop(out);
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    (child.wait().unwrap().code(), stderr)
}

#[test]
fn a_reader_may_leave_early() {
    let folder = tempdir().unwrap();
    let mut closed = command(folder.path(), &["plan", "--config", "quickstart"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = closed.stdout(writer).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));

    taper(folder.path(), &tiny("train.max_iters=1", &["--quiet"])).succeeded();
    // So many that they fill a pipe.
    let arguments = "sample --checkpoint out --max-new-tokens 64 --num-samples 4000000";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let outcome = with_a_reader_that_leaves(&folder, &arguments);
    assert_eq!(outcome, (Some(0), String::new()));
}
