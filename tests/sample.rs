//! `taper sample` as a user runs it.

use std::path::Path;

use tempfile::{TempDir, tempdir};

mod process;

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

#[test]
fn wrong_requests_are_answered_with_what_to_do() {
    let folder = trained();
    let cases: [(&[&str], &[&str]); 8] = [
        (&["--prompt", "\u{1F980}"], &["U+1F980", "vocabulary"]),
        (&["--prompt", ""], &["the prompt is empty", "--prompt"]),
        (&["--prompt", "FILE:absent.txt"], &["absent.txt"]),
        (&["--temperature=-1"], &["--temperature"]),
        (&["--temperature", "nan"], &["--temperature"]),
        (&["--top-k", "0"], &["--top-k"]),
        (&["--threads", "0"], &["--threads"]),
        (&["--num-samples", "0"], &["--num-samples"]),
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
