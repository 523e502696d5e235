//! Folders and patterns as input.

use std::fs;

use tempfile::TempDir;

use crate::process::taper;
use crate::write;

#[test]
fn a_folder_is_its_readable_files_in_order_of_name() {
    let folder = TempDir::new().unwrap();
    let inside = folder.path().join("texts");
    fs::create_dir_all(inside.join("more")).unwrap();
    for (name, contents) in [
        (
            "b.jsonl",
            "{\"text\": \"b, the second\"}\n{\"text\": \"c, the third\"}\n",
        ),
        ("a.txt", "a, the first"),
        ("info.json", "{\n \"rows\": 3\n}"),
        ("README.md", "# about"),
        (".hidden.txt", "no"),
    ] {
        fs::write(inside.join(name), contents).unwrap();
    }
    let arguments = ["prepare", "texts", "--tokenizer", "char", "--out", "out"];
    let said = taper(folder.path(), &arguments).succeeded().stderr;
    let left_out = "note: left out of the folder `texts`: `texts/README.md`, `texts/info.json`, `texts/more`\n";
    assert!(said.contains(left_out), "{said}");
    assert!(said.contains("from 3 documents in 2 files"), "{said}");
    let meta = fs::read_to_string(folder.path().join("out/meta.json")).unwrap();
    let place = |name| meta.find(name).unwrap();
    assert!(place("texts/a.txt") < place("texts/b.jsonl"), "{meta}");
}

#[test]
fn a_pattern_that_the_shell_left_is_expanded() {
    let folder = TempDir::new().unwrap();
    for n in 0..3 {
        write(
            &folder,
            &format!("part-{n}.txt"),
            format!("text of part {n}"),
        );
    }
    let prepare = |pattern: &str| {
        let arguments = ["prepare", pattern, "--tokenizer", "char", "--out", "out"];
        taper(folder.path(), &arguments)
    };
    let said = prepare("part-*.txt").succeeded().stderr;
    assert!(said.contains("from 3 documents in 3 files"), "{said}");
    prepare("part-*.md").refused(&["`part-*.md`: no file matches", "check the pattern"]);
    prepare("part-9.txt").refused(&["part-9.txt", "check the path"]);
    // A file of that very name is meant by it.
    write(&folder, "part-[0].txt", "another text of its own");
    let said = prepare("part-[0].txt").succeeded().stderr;
    assert!(said.contains("from 1 document in 1 file"), "{said}");
}

#[test]
fn the_text_of_shakespeare_is_one_file() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.txt", "one");
    write(&folder, "b.txt", "two");
    let from = |files: &[&str]| {
        let arguments = [&["prepare", "shakespeare", "--from"], files].concat();
        taper(folder.path(), &arguments)
    };
    from(&["a.txt", "b.txt"]).refused(&["`--from` gives 2 files", "--from FILE"]);
    from(&["*.txt"]).refused(&["`--from` gives 2 files"]);
    from(&["a.txt"]).refused(&["is not the text of the dataset `shakespeare`"]);
}

#[test]
fn a_misspelt_dataset_is_answered_with_the_known_ones() {
    let folder = TempDir::new().unwrap();
    let misspelt = taper(folder.path(), &["prepare", "openwebtxt"]);
    misspelt.refused(&[
        "`openwebtxt` is no file here",
        "did you mean `openwebtext`?",
        "`tinystories`",
        "`OWNER/NAME`",
    ]);
    let unknown = taper(folder.path(), &["prepare", "wikipedia", "--out", "out"]);
    let said = unknown.refused(&["`wikipedia` is no file here", "known are `openwebtext`"]);
    assert!(!said.stderr.contains("did you mean"), "{}", said.stderr);
    fs::write(folder.path().join("wikipedia"), "a text without an ending").unwrap();
    taper(folder.path(), &["prepare", "wikipedia", "--out", "out"]).succeeded();
}
