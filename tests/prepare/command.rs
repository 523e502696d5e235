//! What `taper prepare` says, as a user reads it.

use tempfile::TempDir;

use crate::process::taper;
use crate::write;

#[test]
fn the_share_of_val_the_separator_and_every_note_are_said() {
    let folder = TempDir::new().unwrap();
    let lines: String = (0..40)
        .map(|n| format!("{{\"text\": \"{}\"}}\r\n", "word ".repeat(1 + n % 7)))
        .collect();
    write(&folder, "a.json", lines + "{\"text\": null}\n");
    let arguments = [
        "prepare",
        "a.json",
        "--tokenizer",
        "char",
        "--out",
        "data/my text",
    ];
    let said = taper(folder.path(), &arguments).succeeded().stderr;
    for expected in [
        "note: read as JSON lines, one document per line: `a.json`\n",
        "note: line ends of CR or CRLF are read as LF, as Python reads text: `a.json`\n",
        "note: passed over 1 line (a.json:41) where `text` is null\n",
        "from 40 documents in 1 file",
        "a line feed ends each; val is drawn by document, which is what --val-fraction counts, and has ",
        " % of the tokens\n",
        "train on it with: taper train --config shakespeare_char_cpu.toml --set data.data_dir=data \
         --set 'data.dataset=my text' --set model.block_size=",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    let again = taper(folder.path(), &[&arguments[..], &["--quiet"]].concat()).succeeded();
    assert!(
        again
            .stderr
            .contains("note: replaced the dataset in `data/my text`: its train.bin, "),
        "{}",
        again.stderr
    );
    assert!(
        !again.stderr.contains("train on it with"),
        "{}",
        again.stderr
    );
}

#[test]
fn a_preset_is_recommended_by_the_tokens_and_the_vocabulary() {
    let folder = TempDir::new().unwrap();
    write(
        &folder,
        "novel.txt",
        "It was a dark and stormy night; ".repeat(2000),
    );
    write(
        &folder,
        "book.txt",
        "It was a dark and stormy night; ".repeat(20_000),
    );
    let cases = [
        (
            "novel.txt",
            "gpt2",
            "data/mytext",
            "taper train --config small_bpe.toml\n",
        ),
        (
            "novel.txt",
            "gpt2",
            "other",
            "--config small_bpe.toml --set data.data_dir=. --set data.dataset=other\n",
        ),
        (
            "novel.txt",
            "char",
            "data/shakespeare_char",
            "--config shakespeare_char_cpu.toml\n",
        ),
        (
            "book.txt",
            "char",
            "data/shakespeare_char",
            "--config shakespeare_char.toml\n",
        ),
    ];
    for (file, tokenizer, out, expected) in cases {
        let arguments = ["prepare", file, "--tokenizer", tokenizer, "--out", out];
        let said = taper(folder.path(), &arguments).succeeded().stderr;
        assert!(said.ends_with(expected), "{expected}\n{said}");
    }
}

#[test]
fn what_is_no_file_and_no_folder_is_named() {
    let folder = TempDir::new().unwrap();
    let prepare = |input: &str| taper(folder.path(), &["prepare", input, "--out", "out"]);
    prepare(".").refused(&["no file in the folder `.`", "./*.md"]);
    prepare("-").refused(&["standard input", "save it first"]);
    prepare("/dev/null").refused(&["a pipe or a device", "save it first"]);
    assert!(!folder.path().join("out").exists());
    write(&folder, "a.txt", "some text of twenty characters");
    let into = |out: &str| {
        taper(
            folder.path(),
            &["prepare", "a.txt", "--tokenizer", "char", "--out", out],
        )
    };
    into("a.txt").refused(&["cannot create", "is a file", "--out"]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        into("link").refused(&["cannot create", "a link to a folder that is gone", "--out"]);
    }
}
