//! `taper bench gemm` as a user runs it.

use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use super::process::{Outcome, command};

const SMALL: &str = "model.n_layer=2 model.n_head=2 model.n_embd=16 model.block_size=16 \
    model.bias=true train.sequences_per_step=2";

/// In a folder without data, and with a cache of its own.
fn bench(words: &str) -> Outcome {
    bench_with_cache(tempdir().unwrap().path(), words)
}

fn bench_with_cache(cache: &Path, words: &str) -> Outcome {
    let folder = tempdir().unwrap();
    let mut arguments = vec!["bench", "gemm"];
    for setting in SMALL.split_whitespace() {
        arguments.extend(["--set", setting]);
    }
    arguments.extend(words.split_whitespace());
    let mut command = command(folder.path(), &arguments);
    let output = command.env("XDG_CACHE_HOME", cache).output().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

const NAMES: [&str; 15] = [
    "c_attn",
    "attn.c_proj",
    "c_fc",
    "mlp.c_proj",
    "logits",
    "logits dX",
    "logits dW",
    "mlp.c_proj dW",
    "mlp.c_proj dX",
    "c_fc dW",
    "c_fc dX",
    "attn.c_proj dW",
    "attn.c_proj dX",
    "c_attn dW",
    "c_attn dX",
];

#[test]
fn every_problem_is_listed_with_every_candidate_and_one_is_chosen() {
    let outcome = bench("").succeeded();
    assert_eq!(outcome.stderr, "");
    let text = outcome.stdout;
    assert!(
        text.starts_with("matrix products of quickstart.toml on "),
        "{text}"
    );
    assert!(text.contains("\n  ceiling      "), "{text}");
    let blocks: Vec<&str> = text.split("\n\n").collect();
    let (heading, blocks) = blocks.split_first().unwrap();
    assert!(heading.contains("2 threads") || heading.contains("threads"));
    let (total, problems) = blocks.split_last().unwrap();
    assert_eq!(problems.len(), NAMES.len());
    for (block, name) in problems.iter().zip(NAMES) {
        assert!(block.starts_with(&format!("{name}: ")), "{block}");
        assert_eq!(block.matches("<- chosen: ").count(), 1, "{block}");
        for candidate in [
            "gemm crate",
            "tiles of 96 rows",
            "tiles 384x64",
            "split-k 2",
        ] {
            assert!(block.contains(&format!("\n  {candidate} ")), "{block}");
        }
        assert!(block.contains("GFLOP/s") && block.contains(" % of the best"));
        // This model is smaller than a tile.
        assert!(block.contains("unavailable: C is a single tile"), "{block}");
    }
    assert!(
        total.starts_with("all products of a micro-step: "),
        "{total}"
    );
}

#[test]
fn json_has_the_machine_and_every_figure() {
    let outcome = bench("--json").succeeded();
    assert_eq!(outcome.stdout.lines().count(), 1);
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(object["device"]["hardware"]["kind"], "cpu");
    assert!(object["ceiling_flops_per_second"].as_f64().unwrap() > 0.0);
    let problems = object["problems"].as_array().unwrap();
    let names: Vec<&str> = problems
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, NAMES);
    for problem in problems {
        let figure = |key: &str| problem[key].as_u64().unwrap();
        assert_eq!(figure("flops"), 2 * figure("m") * figure("n") * figure("k"));
        let candidates = problem["candidates"].as_array().unwrap();
        let chosen: Vec<_> = candidates.iter().filter(|c| c["chosen"] == true).collect();
        let [chosen] = chosen[..] else {
            panic!("{problem}")
        };
        for candidate in candidates {
            let Some(seconds) = candidate["seconds"].as_f64() else {
                assert!(candidate["because"].is_string());
                continue;
            };
            let rate = candidate["flops_per_second"].as_f64().unwrap();
            assert!((rate * seconds / figure("flops") as f64 - 1.0).abs() < 1e-9);
            assert!(candidate["of_best"].as_f64().unwrap() < 100.0 + 1e-9);
        }
        assert!(chosen["because"].is_string());
    }
}

#[test]
fn what_an_earlier_run_timed_is_taken_from_it_and_said_to_be() {
    let cache = tempdir().unwrap();
    let blocks = |text: &str, what: &str| text.matches(what).count();
    let first = bench_with_cache(cache.path(), "").succeeded().stdout;
    let earlier = "; timed in an earlier run\n";
    assert_eq!(blocks(&first, earlier), 0, "{first}");
    let second = bench_with_cache(cache.path(), "").succeeded().stdout;
    assert_eq!(blocks(&second, earlier), NAMES.len(), "{second}");
    let file = std::fs::read_dir(cache.path().join("taper"))
        .unwrap()
        .next();
    let file = file.unwrap().unwrap().path();
    let again = format!(
        "what was timed in an earlier run is timed again without `{}`\n",
        file.display()
    );
    assert!(second.ends_with(&again), "{second}");
    // Row for row, shares of that run's ceiling included.
    let rates = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| line.contains(" % of the best"));
        rows.map(str::to_owned).collect()
    };
    assert_eq!(rates(&first), rates(&second));

    std::fs::remove_file(file).unwrap();
    let third = bench_with_cache(cache.path(), "").succeeded().stdout;
    assert_eq!(blocks(&third, earlier), 0, "{third}");
}

#[test]
fn the_search_can_be_narrowed() {
    let text = bench("--set gemm.autotune=limited").succeeded().stdout;
    assert!(
        !text.contains("split-k") && text.contains("tiles 384x64"),
        "{text}"
    );
    let text = bench("--set gemm.autotune=off").succeeded().stdout;
    assert!(
        !text.contains("tiles") && text.contains("gemm crate"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_measured_is_refused() {
    bench("--config nosuch.toml").refused(&["`nosuch.toml`"]);
    bench("--set gemm.backend=ptx")
        .refused(&["`gemm.backend` is `ptx`", "--set gemm.backend=auto"]);
    bench("--set gemm.backend=cublas").refused(&["`auto`, `cublaslt`, `ptx` or `fma`"]);
    bench("--set gemm.autotune=some").refused(&["`auto`, `full`, `limited` or `off`"]);
    bench("--set model.n_embd=17").refused(&["n_head"]);
}
