//! Prompts from files and standard input, several at a time, and texts as JSON.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::process::command;
use super::{foreign, sample, text, trained};

/// Lines of JSON, in their order.
fn json_of(folder: &Path, flags: &[&str]) -> Vec<Value> {
    let text = text(folder, &[flags, &["--json"]].concat());
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn with_stdin(folder: &Path, flags: &[&str], stdin: &str) -> String {
    let arguments = ["sample", "--checkpoint", "out", "--max-new-tokens", "12"];
    let mut command = command(folder, &[&arguments[..], flags].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn texts_of_several_prompts_are_those_of_each_alone() {
    let folder = trained();
    // One that is longer than the block of 16, one that another begins with, and the same once more.
    let prompts = ["fn ", "fn main() { let x = 1; let y = 2; }", "let ", "fn "];
    fs::write(folder.path().join("prompts.txt"), prompts.join("\n") + "\n").unwrap();
    let mut want = Vec::new();
    for prompt in prompts {
        want.extend(json_of(
            folder.path(),
            &["--prompt", prompt, "--num-samples", "3"],
        ));
    }
    for size in ["1", "3", "16"] {
        let flags = [
            "--prompts",
            "prompts.txt",
            "--num-samples",
            "3",
            "--batch-size",
            size,
        ];
        assert_eq!(json_of(folder.path(), &flags), want, "{size} at a time");
    }
    let stdin = prompts.join("\n");
    let flags = ["--prompts", "-", "--num-samples", "3", "--json"];
    let lines = with_stdin(folder.path(), &flags, &stdin);
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    assert_eq!(lines.collect::<Vec<Value>>(), want);
}

#[test]
fn json_has_the_text_without_its_prompt_and_the_reason_of_its_end() {
    let folder = trained();
    let flags = ["--prompt", "fn ", "--num-samples", "2"];
    let samples = json_of(folder.path(), &flags);
    let texts = text(folder.path(), &flags);
    let texts: Vec<&str> = texts
        .trim_end_matches('\n')
        .split("\n---------------\n")
        .collect();
    assert_eq!(samples.len(), texts.len());
    for (number, (sample, text)) in samples.iter().zip(texts).enumerate() {
        let want = json!({
            "sample": number, "prompt": "fn ", "text": &text[3..], "tokens": 12, "finish": "length",
        });
        assert_eq!(*sample, want);
    }
    let ended = foreign(1, 1.into());
    let samples = json_of(ended.path(), &["--prompt", "ab", "--temperature", "0"]);
    let want = json!({
        "sample": 0, "prompt": "ab", "text": "", "tokens": 0, "finish": "end_of_text",
    });
    assert_eq!(samples, [want]);
}

#[test]
fn a_dash_is_standard_input_and_a_file_may_hold_one() {
    let folder = trained();
    let want = text(folder.path(), &["--prompt", "use std;\nfn "]);
    let from_stdin = with_stdin(folder.path(), &["--prompt", "-"], "use std;\r\nfn ");
    assert_eq!(from_stdin, want);
    fs::write(folder.path().join("dash"), "-").unwrap();
    let dash = text(folder.path(), &["--prompt", "FILE:dash"]);
    assert!(
        dash.starts_with('-') && dash.chars().count() == 1 + 12 + 1,
        "{dash}"
    );
}

#[test]
fn lines_that_are_empty_are_no_prompts() {
    let folder = trained();
    let write = |text: &str| fs::write(folder.path().join("prompts.txt"), text).unwrap();
    write("fn \n\nlet \n\n");
    let outcome = sample(folder.path(), &["--prompts", "prompts.txt", "--json"]).succeeded();
    assert_eq!(outcome.stdout.lines().count(), 2);
    assert!(
        outcome.stderr.contains("note: 2 empty lines"),
        "{}",
        outcome.stderr
    );
    write("\n\n");
    sample(folder.path(), &["--prompts", "prompts.txt"]).refused(&["no text", "prompts.txt"]);
    let both = sample(
        folder.path(),
        &["--prompts", "prompts.txt", "--prompt", "a"],
    );
    assert_ne!(both.code, Some(0));
}
