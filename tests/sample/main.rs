//! `taper sample` as a user runs it.

use std::path::Path;

use tempfile::{TempDir, tempdir};

mod batches;
mod candidates;
#[path = "../common/mod.rs"]
mod common;
#[path = "../gpt2_folder/mod.rs"]
mod gpt2_folder;
#[path = "../process/mod.rs"]
mod process;
mod prompts;
mod stops;

use process::{Outcome, checkpoint, taper, tiny};

const BLOCK_SIZE: usize = 16;

fn trained() -> TempDir {
    let folder = tempdir().unwrap();
    taper(folder.path(), &tiny("train.max_iters=5", &["--quiet"])).succeeded();
    folder
}

fn sample(folder: &Path, further: &[&str]) -> Outcome {
    let mut arguments = vec!["sample", "--checkpoint", "out", "--max-new-tokens", "12"];
    arguments.extend(further);
    taper(folder, &arguments)
}

fn text(folder: &Path, further: &[&str]) -> String {
    sample(folder, further).succeeded().stdout
}

#[test]
fn the_seed_decides_the_text() {
    let folder = trained();
    let of = |seed| text(folder.path(), &["--prompt", "fn ", "--seed", seed]);
    assert_eq!(of("1"), of("1"));
    assert_ne!(of("1"), of("2"));
    // Prompt, 12 characters, newline.
    assert_eq!(of("1").chars().count(), 3 + 12 + 1);
    assert!(of("1").starts_with("fn "));
}

#[test]
fn the_number_of_threads_does_not_change_the_text() {
    let folder = trained();
    let of = |threads| text(folder.path(), &["--prompt", "fn ", "--threads", threads]);
    assert_eq!(of("1"), of("2"));
}

#[test]
fn every_sample_is_another_text() {
    let folder = trained();
    let both = text(
        folder.path(),
        &["--prompt", "let ", "--num-samples", "2", "--seed", "3"],
    );
    let texts: Vec<&str> = both.trim_end().split("\n---------------\n").collect();
    assert_eq!(texts.len(), 2, "{both}");
    assert_ne!(texts[0], texts[1]);
    assert!(texts.iter().all(|text| text.starts_with("let ")));
    let first = text(folder.path(), &["--prompt", "let ", "--seed", "3"]);
    assert!(both.starts_with(first.trim_end_matches('\n')));
}

#[test]
fn a_text_and_a_prompt_may_be_longer_than_the_block() {
    let folder = trained();
    let tokens = (3 * BLOCK_SIZE).to_string();
    let prompt = "let x = 1; ".repeat(4);
    let arguments = ["--max-new-tokens", &tokens, "--prompt", &prompt];
    let arguments = [&["sample", "--checkpoint", "out"], &arguments[..]].concat();
    let text = taper(folder.path(), &arguments).succeeded().stdout;
    assert_eq!(
        text.chars().count(),
        prompt.chars().count() + 3 * BLOCK_SIZE + 1
    );
}

#[test]
fn temperature_0_takes_the_likeliest_whatever_the_seed() {
    let folder = trained();
    let of = |seed| {
        let greedy = ["--prompt", "fn ", "--temperature", "0", "--seed", seed];
        text(folder.path(), &greedy)
    };
    assert_eq!(of("1"), of("2"));
    let top_1 = ["--prompt", "fn ", "--top-k", "1"];
    assert_eq!(of("1"), text(folder.path(), &top_1));
}

#[test]
fn a_checkpoint_and_its_run_give_the_same_text() {
    let folder = trained();
    let path = checkpoint(folder.path(), 5);
    let arguments = ["sample", "--max-new-tokens", "12", "--checkpoint"];
    let arguments = [&arguments[..], &[path.to_str().unwrap()]].concat();
    let named = taper(folder.path(), &arguments).succeeded().stdout;
    assert_eq!(named, text(folder.path(), &[]));
}

#[test]
fn the_prompt_may_come_from_a_file() {
    let folder = trained();
    std::fs::write(folder.path().join("prompt.txt"), "use std").unwrap();
    let from_file = text(folder.path(), &["--prompt", "FILE:prompt.txt"]);
    assert_eq!(from_file, text(folder.path(), &["--prompt", "use std"]));
}

/// A Hugging Face GPT-2 with a tokenizer of its own, which says one token only.
fn foreign(says: usize, end_of_text: serde_json::Value) -> TempDir {
    let folder = tempdir().unwrap();
    let mut config = gpt2_folder::config();
    config["eos_token_id"] = end_of_text;
    let out = folder.path().join("out");
    gpt2_folder::write(&out, &config, &gpt2_folder::tensors(says));
    let tokenizer = gpt2_folder::tokenizer().to_string();
    std::fs::write(out.join("tokenizer.json"), tokenizer).unwrap();
    folder
}

#[test]
fn special_tokens_of_any_tokenizer_end_a_text_or_are_left_out_of_it() {
    let of = |says, end_of_text| {
        let folder = foreign(says, end_of_text);
        text(folder.path(), &["--prompt", "<s>ab", "--temperature", "0"])
    };
    assert_eq!(
        of(4, serde_json::Value::Null),
        format!("<s>ab{}\n", "b".repeat(12))
    );
    assert_eq!(of(1, 1.into()), "<s>ab\n");
    assert_eq!(of(1, serde_json::json!([0, 1])), "<s>ab\n");
    // transformers goes on after it, too, and prints nothing for it.
    assert_eq!(of(2, 1.into()), "<s>ab\n");
    // An id that is text ends no text, whatever the config says.
    assert_eq!(of(4, 4.into()), format!("<s>ab{}\n", "b".repeat(12)));
}

#[test]
fn without_a_prompt_a_vocabulary_without_a_line_feed_begins_with_its_first_token() {
    let folder = foreign(4, serde_json::Value::Null);
    let outcome = sample(folder.path(), &["--temperature", "0"]).succeeded();
    assert_eq!(outcome.stdout, format!("a{}\n", "b".repeat(12)));
    assert!(
        outcome.stderr.contains("note: prompt = \"a\""),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("no line feed"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_prompt_may_begin_with_a_dash_and_takes_no_flag_for_its_text() {
    let folder = trained();
    for prompt in ["-abc", "--", "- one", "-1"] {
        let text = text(folder.path(), &["--prompt", prompt]);
        assert!(text.starts_with(prompt), "{text}");
    }
    for flag in ["--seed=3", "--top-k"] {
        sample(folder.path(), &["--prompt", flag]).refused(&["the flag", "--prompt"]);
    }
}

#[test]
fn a_prompts_file_is_read_as_python_reads_it_and_another_encoding_is_named() {
    let folder = trained();
    let write = |bytes: &[u8]| std::fs::write(folder.path().join("prompt.txt"), bytes).unwrap();
    let expected = text(folder.path(), &["--prompt", "use std;\nfn "]);
    for bytes in [
        &b"\xef\xbb\xbfuse std;\nfn "[..],
        b"use std;\r\nfn ",
        b"use std;\rfn ",
    ] {
        write(bytes);
        assert_eq!(
            text(folder.path(), &["--prompt", "FILE:prompt.txt"]),
            expected
        );
    }
    let cases: [(&[u8], &[&str]); 4] = [
        (
            b"use\ncaf\xe9\n",
            &["line 2", "0xe9", "iconv -f LATIN1 -t UTF-8 prompt.txt"],
        ),
        (
            b"\xff\xfeu\0s\0e\0",
            &["UTF-16", "iconv -f UTF-16 -t UTF-8 prompt.txt"],
        ),
        (b"u\0s\0e\0", &["iconv -f UTF-16LE -t UTF-8 prompt.txt"]),
        (b"\0u\0s\0e", &["iconv -f UTF-16BE -t UTF-8 prompt.txt"]),
    ];
    for (bytes, words) in cases {
        write(bytes);
        sample(folder.path(), &["--prompt", "FILE:prompt.txt"]).refused(words);
    }
}

#[test]
fn wrong_requests_are_answered_with_what_to_do() {
    let folder = trained();
    let cases: [(&[&str], &[&str]); 17] = [
        (&["--prompt", "\u{1F980}"], &["U+1F980", "vocabulary"]),
        (&["--prompt", ""], &["the prompt is empty", "--prompt"]),
        (&["--prompt", "FILE:absent.txt"], &["absent.txt"]),
        (&["--temperature=-1"], &["--temperature"]),
        (&["--temperature", "nan"], &["--temperature"]),
        (&["--top-k", "0"], &["--top-k"]),
        (&["--threads", "0"], &["--threads"]),
        (&["--num-samples", "0"], &["--num-samples"]),
        (&["--batch-size", "0"], &["--batch-size"]),
        (&["--top-p", "0"], &["--top-p", "above 0"]),
        (&["--top-p", "1.1"], &["--top-p", "at most 1"]),
        (&["--min-p=-0.1"], &["--min-p", "from 0 to 1"]),
        (&["--min-p", "nan"], &["--min-p"]),
        (
            &["--repetition-penalty", "0"],
            &["--repetition-penalty", "above 0"],
        ),
        (&["--repetition-penalty", "inf"], &["--repetition-penalty"]),
        (&["--stop", ""], &["--stop"]),
        (&["--prompts", "absent.txt"], &["absent.txt"]),
    ];
    for (arguments, words) in cases {
        eprintln!("{arguments:?}");
        sample(folder.path(), arguments).refused(words);
    }
    taper(folder.path(), &["sample", "--checkpoint", "nowhere"]).refused(&["nowhere"]);
    // As the user would type it: clap must not take the number for a flag.
    let negative = sample(folder.path(), &["--temperature", "-1"]);
    assert_eq!(negative.code, Some(1));
    assert!(
        negative.stderr.starts_with("error: "),
        "{}",
        negative.stderr
    );
}
