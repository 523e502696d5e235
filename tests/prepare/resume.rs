//! A preparation that is killed or interrupted, and the same command again.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{command, taper};
use crate::{file_names, sha256, write};

/// Documents that take a second or so to encode, so that a signal finds the work in its middle.
const DOCUMENTS: usize = if cfg!(debug_assertions) {
    8_000
} else {
    120_000
};

/// JSON lines with few different words.
fn lines() -> String {
    let line = |n: usize| {
        format!(
            "{{\"text\": \"{}\"}}\n",
            format!("w{} ", n % 50).repeat(300)
        )
    };
    (0..DOCUMENTS).map(line).collect()
}

fn checksums(out: &Path) -> Vec<String> {
    let names = file_names(out);
    names.iter().map(|name| sha256(&out.join(name))).collect()
}

/// Starts a preparation, and waits until it has written some tokens.
fn begun(folder: &Path) -> Child {
    let train = folder.join("out/.prepare/train.bin");
    // What a kill before the first record has left says nothing of this one.
    let _ = fs::remove_file(&train);
    let child = command(folder, &["prepare", "a.jsonl", "--out", "out"])
        .spawn()
        .unwrap();
    while fs::metadata(&train).map_or(0, |file| file.len()) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn what_was_done_before_a_kill_or_an_interrupt_is_not_done_again() {
    let folder = TempDir::new().unwrap();
    let place = folder.path();
    write(&folder, "a.jsonl", lines());
    let mut child = begun(place);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(file_names(&place.join("out")), [".prepare"]);
    // Goes on with the first pass that was done, until it is interrupted.
    let child = begun(place);
    let pid = child.id().to_string();
    let signal = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(signal.success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(
        said.contains("hint: run the same command again: it goes on where it stopped"),
        "{said}"
    );
    let arguments = ["prepare", "a.jsonl", "--out", "out"];
    let said = taper(place, &arguments).succeeded().stderr;
    assert!(
        said.contains("note: went on with what an earlier `prepare` had done: "),
        "{said}"
    );
    assert!(!said.contains("first pass"), "{said}");
    let undisturbed = ["prepare", "a.jsonl", "--out", "undisturbed"];
    taper(place, &undisturbed).succeeded();
    assert_eq!(
        checksums(&place.join("out")),
        checksums(&place.join("undisturbed"))
    );
}

/// A limit on the length of files stands for a disk that is full.
#[test]
#[cfg(unix)]
fn a_disk_that_is_full_keeps_what_was_done() {
    let folder = TempDir::new().unwrap();
    let place = folder.path();
    write(&folder, "a.jsonl", lines());
    let limited = format!(
        "ulimit -f 2048; exec {} prepare a.jsonl --out out",
        env!("CARGO_BIN_EXE_taper")
    );
    let full = Command::new("bash")
        .args(["-c", &limited])
        .current_dir(place)
        .output()
        .unwrap();
    let said = String::from_utf8(full.stderr).unwrap();
    assert_eq!(full.status.code(), Some(1), "{said}");
    assert!(
        said.contains("ulimit -f") && said.contains("goes on where it stopped"),
        "{said}"
    );
    let arguments = ["prepare", "a.jsonl", "--out", "out"];
    let said = taper(place, &arguments).succeeded().stderr;
    assert!(
        said.contains("note: went on with what an earlier `prepare` had done: "),
        "{said}"
    );
    assert!(!said.contains(" 0 tokens"), "{said}");
    taper(place, &["prepare", "a.jsonl", "--out", "undisturbed"]).succeeded();
    assert_eq!(
        checksums(&place.join("out")),
        checksums(&place.join("undisturbed"))
    );
}
