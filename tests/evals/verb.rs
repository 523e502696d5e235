//! Scores by a model whose losses are known: whatever comes before, it says ` a`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::gpt2_folder;
use crate::process::{Outcome, taper};

/// Ids of ` a`, ` ` and `b`.
const SAYS: usize = 9;
const SPACE: u16 = 8;
const B: u16 = 4;

/// Two contexts with the same endings: the first has the smallest sum of losses, the second the smallest mean.
pub const HELLASWAG: &str = r#"{"ctx": "b c", "endings": ["ab", "a a a b", "b", "c"], "label": 0}
{"ctx": "d e", "endings": ["ab", "a a a b", "b", "c"], "label": "0", "ind": 24}

{"ctx": "d", "endings": ["ab", "a a a b", "b", "c"], "label": 1}
"#;

pub const LAMBADA: &str = "{\"text\": \"b c a\"}\n{\"text\": \"b c b\"}\n";

/// Losses in nats of ` a` and of every other token: one logit of 128 is 4, and all others are 0.
fn losses() -> (f64, f64) {
    let all = (4f64.exp() + 127.0).ln();
    (all - 4.0, all)
}

/// The model in `model`, with a vocabulary of `a` to `e`, the space and ` a`; and examples.
pub fn folder() -> TempDir {
    let folder = tempdir().unwrap();
    let model = folder.path().join("model");
    gpt2_folder::write(&model, &gpt2_folder::config(), &gpt2_folder::tensors(SAYS));
    let mut tokenizer = gpt2_folder::tokenizer();
    tokenizer["model"]["vocab"]["\u{120}"] = SPACE.into();
    tokenizer["model"]["vocab"]["\u{120}a"] = SAYS.into();
    tokenizer["model"]["merges"] = json!(["\u{120} a"]);
    write(&model, "tokenizer.json", tokenizer.to_string());
    write(folder.path(), "hellaswag_val.jsonl", HELLASWAG);
    write(folder.path(), "lambada_test_en.jsonl", LAMBADA);
    folder
}

pub fn write(folder: &Path, name: &str, contents: impl AsRef<[u8]>) {
    fs::write(folder.join(name), contents).unwrap();
}

pub fn eval(folder: &Path, tasks: &str, further: &[&str]) -> Outcome {
    let mut arguments = vec!["eval", "model", "--tasks", tasks];
    arguments.extend(further);
    taper(folder, &arguments)
}

/// The objects of `--json`, without their times.
fn scores(folder: &Path, tasks: &str, further: &[&str]) -> Vec<Value> {
    let outcome = eval(folder, tasks, &[&["--json"], further].concat()).succeeded();
    let lines = outcome.stdout.lines();
    let mut scores: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for score in &mut scores {
        assert!(
            score
                .as_object_mut()
                .unwrap()
                .remove("ms")
                .unwrap()
                .is_f64()
        );
    }
    scores
}

#[track_caller]
fn assert_near(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap();
    assert!(
        (value - expected).abs() <= 1e-6 * expected.abs(),
        "{value} and {expected}"
    );
}

#[test]
fn hellaswag_counts_the_smallest_sum_and_the_smallest_mean() {
    let folder = folder();
    let scores = scores(folder.path(), "hellaswag", &["--data", "."]);
    let expected = json!({
        "task": "hellaswag", "acc": 2.0 / 3.0, "acc_norm": 1.0 / 3.0, "examples": 3, "truncated": 0,
    });
    assert_eq!(scores, [expected]);
}

#[test]
fn lambada_takes_every_token_of_the_last_word() {
    let folder = folder();
    let score = &scores(folder.path(), "lambada:lambada_test_en.jsonl", &[])[0];
    let (hit, miss) = losses();
    assert_eq!(score["acc"], 0.5);
    // ` a` is one token, ` b` two.
    assert_near(&score["perplexity"], ((hit + 2.0 * miss) / 2.0).exp());
    assert_eq!(
        (&score["examples"], &score["truncated"]),
        (&2.into(), &0.into())
    );
}

#[test]
fn the_perplexity_of_a_text_is_that_of_its_tokens_in_either_kind_of_file() {
    let folder = folder();
    // 40 tokens in windows of 16: the first is not scored, and the others are, whichever window they are in.
    let text = format!("b{} b", " a".repeat(37));
    let ids = [&[B][..], &[SAYS as u16; 37], &[SPACE, B]].concat();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let mut header = [0i32; 256];
    header[..3].copy_from_slice(&[20_240_520, 1, ids.len() as i32]);
    let shard: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    write(folder.path(), "text.txt", format!("\u{feff}{text}"));
    write(folder.path(), "plain.bin", &bytes);
    write(folder.path(), "shard.bin", [shard, bytes].concat());
    let scores = scores(folder.path(), "text.txt,plain.bin,shard.bin", &[]);
    let (hit, miss) = losses();
    let loss = (37.0 * hit + 2.0 * miss) / 39.0;
    for score in &scores {
        assert_eq!(score["tokens"], 39);
        assert_near(&score["loss"], loss);
        assert_near(&score["perplexity"], loss.exp());
        assert_eq!(score["loss"], scores[0]["loss"]);
    }
    let bits = 39.0 * loss / std::f64::consts::LN_2 / (text.len() - 1) as f64;
    assert_near(&scores[0]["bits_per_byte"], bits);
    assert_eq!(scores[1].get("bits_per_byte"), None);
}

#[test]
fn a_limit_takes_the_first_and_says_so() {
    let folder = folder();
    write(folder.path(), "text.txt", format!("b{}", " a".repeat(40)));
    let further = ["--limit", "2", "--data", ".", "--json"];
    let outcome = eval(folder.path(), "hellaswag,lambada,text.txt", &further).succeeded();
    let scores: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&scores[0]["acc"], &scores[0]["acc_norm"]),
        (&1.0.into(), &0.0.into())
    );
    assert_eq!(scores[0]["examples"], 2);
    // Two windows of 16.
    assert_eq!(scores[2]["tokens"], 32);
    assert_near(&scores[2]["loss"], losses().0);
    let stderr = &outcome.stderr;
    assert!(
        stderr.contains("note: hellaswag: the first 2 of 3 examples\n"),
        "{stderr}"
    );
    assert!(
        stderr.contains("note: text.txt: the first 2 of 3 windows\n"),
        "{stderr}"
    );
    assert!(!stderr.contains("lambada: the first"), "{stderr}");
}

#[test]
fn an_example_longer_than_the_context_loses_its_beginning_and_is_told() {
    let folder = folder();
    let long = format!("b{} c a", " b".repeat(40));
    let text = format!("{{\"text\": \"{long}\"}}\n{{\"text\": \"b c a\"}}\n");
    write(folder.path(), "long.jsonl", text);
    let outcome = eval(folder.path(), "lambada:long.jsonl", &["--json"]).succeeded();
    let score: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        (&score["acc"], &score["truncated"]),
        (&1.0.into(), &1.into())
    );
    assert_near(&score["perplexity"], losses().0.exp());
    let told = "note: lambada: 1 of 2 sequences are longer than the model's context of 16 tokens";
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
}

#[test]
fn scores_are_a_table_on_stdout() {
    let folder = folder();
    write(folder.path(), "text.txt", "b a");
    let outcome = eval(folder.path(), "hellaswag,text.txt", &["--data", "."]).succeeded();
    let (loss, _) = losses();
    let expected = format!(
        "task       metric             value  of
hellaswag  acc               0.6667  3 examples
           acc_norm          0.3333
text.txt   loss              {loss:.4}  1 token
           perplexity          {:.2}
           bits per byte     {:.4}
",
        loss.exp(),
        loss / std::f64::consts::LN_2 / 2.0
    );
    assert_eq!(outcome.stdout, expected);
}

#[test]
fn a_refusal_of_memory_makes_the_batch_smaller_and_changes_no_score() {
    let folder = folder();
    let tasks = "hellaswag,lambada";
    let whole = scores(folder.path(), tasks, &["--data", "."]);
    let further = ["--data", ".", "--json", "--inject", "eval-only:2-9"];
    let outcome = eval(folder.path(), tasks, &further).succeeded();
    for (line, whole) in outcome.stdout.lines().zip(&whole) {
        let mut score: Value = serde_json::from_str(line).unwrap();
        score.as_object_mut().unwrap().remove("ms");
        assert_eq!(score, *whole);
    }
    assert_eq!(outcome.stdout.lines().count(), 2);
    let told = "going on with micro-batch 64";
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    let lost = eval(
        folder.path(),
        tasks,
        &["--data", ".", "--inject", "eval-only:1-"],
    );
    lost.refused(&["out of memory at eval-only"]);
}

#[test]
fn help_lists_the_tasks() {
    let folder = tempdir().unwrap();
    let help = taper(folder.path(), &["eval", "--help"]).succeeded().stdout;
    for word in ["hellaswag ", "lambada ", "NAME:PATH", "FILE "] {
        assert!(help.contains(&format!("\n  {word}")), "{help}");
    }
}
