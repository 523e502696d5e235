//! `taper prepare` with datasets of the hub: chosen, downloaded, killed, and without a network.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;
use tempfile::tempdir;

use crate::process;
use crate::server::{Answer, COMMIT, Contents, End, Server, Stored, large, noise, sha256, small};
use crate::verbs::{command, outcome, taper, wait_for};

/// 40 documents as JSON lines.
fn documents(name: &str) -> Vec<u8> {
    let line = |n| format!("{{\"id\": {n}, \"text\": \"{name} {n} says hello\"}}\n");
    (0..40).map(line).collect::<String>().into()
}

fn stories() -> [Stored; 3] {
    [
        large("data/train-00000.jsonl", documents("first")),
        large("data/train-00001.jsonl", documents("second")),
        large("data/validation-00000.jsonl", documents("third")),
    ]
}

const PREPARE: [&str; 4] = ["prepare", "o/n", "--val-fraction", "0.1"];

#[test]
fn a_dataset_of_the_hub_is_prepared_by_its_name_and_equals_its_files() {
    let server = Server::start(Contents::default().with("datasets/o/n", &stories()));
    let folder = tempdir().unwrap();
    let path = folder.path();
    let said = taper(path, &server, &PREPARE).succeeded().stderr;
    for words in [
        "`o/n`, split `train`, commit 0123456789abcdef0123456789abcdef01234567: 2 files of ",
        "to download to `",
        "the tokens take 2 bytes each in `data/n`",
        "leaves out `validation`",
        "from 80 documents in 2 files",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
    for (at, stored) in stories()[..2].iter().enumerate() {
        fs::write(path.join(format!("{at}.jsonl")), &stored.bytes).unwrap();
    }
    let local = [
        "prepare",
        "0.jsonl",
        "1.jsonl",
        "--out",
        "local",
        "--val-fraction",
        "0.1",
    ];
    process::taper(path, &local).succeeded();
    for split in ["train.bin", "val.bin"] {
        let read = |folder: &str| fs::read(path.join(folder).join(split)).unwrap();
        assert_eq!(read("data/n"), read("local"), "{split}");
    }
    // Once more, without a network.
    let sent = server.sent();
    let offline = command(path, &server, &PREPARE)
        .env("HF_HUB_OFFLINE", "1")
        .spawn();
    outcome(offline.unwrap()).succeeded();
    assert_eq!(server.sent(), sent);
}

/// A Parquet table of documents.
fn table(name: &str) -> Vec<u8> {
    let schema = "message m { required int64 id; required binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Default::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    let mut ids = rows.next_column().unwrap().unwrap();
    let numbers: Vec<i64> = (0..40).collect();
    ids.typed::<Int64Type>()
        .write_batch(&numbers, None, None)
        .unwrap();
    ids.close().unwrap();
    let mut texts = rows.next_column().unwrap().unwrap();
    let documents = (0..40).map(|n| ByteArray::from(&*format!("{name} {n} says hello")));
    let documents: Vec<ByteArray> = documents.collect();
    texts
        .typed::<ByteArrayType>()
        .write_batch(&documents, None, None)
        .unwrap();
    texts.close().unwrap();
    rows.close().unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn parquet_of_the_hub_equals_the_same_json_lines_and_its_place_is_recorded() {
    let tables = [
        large("data/train-00000-of-00002.parquet", table("first")),
        large("data/train-00001-of-00002.parquet", table("second")),
    ];
    let contents = Contents::default()
        .with("datasets/o/tables", &tables)
        .with("datasets/o/n", &stories());
    let server = Server::start(contents);
    let folder = tempdir().unwrap();
    taper(folder.path(), &server, &PREPARE).succeeded();
    let prepare = ["prepare", "o/tables", "--val-fraction", "0.1"];
    taper(folder.path(), &server, &prepare).succeeded();
    let read = |name: &str| fs::read(folder.path().join("data").join(name)).unwrap();
    for split in ["train.bin", "val.bin"] {
        assert_eq!(
            read(&format!("tables/{split}")),
            read(&format!("n/{split}")),
            "{split}"
        );
    }
    let meta: serde_json::Value = serde_json::from_slice(&read("tables/meta.json")).unwrap();
    let origin =
        json!({"repository": "o/tables", "revision": COMMIT, "subset": null, "split": "train"});
    assert_eq!(meta["origin"], origin);
    for (at, table) in tables.iter().enumerate() {
        assert_eq!(meta["sources"][at]["sha256"], sha256(&table.bytes));
    }
}

#[test]
fn subsets_and_splits_that_are_not_there_are_answered_with_those_that_are() {
    let card = json!({"configs": [
        {"config_name": "small", "data_files": [{"split": "train", "path": "s/*"}]},
        {"config_name": "tall", "data_files": [{"split": "train", "path": "t/*"}, {"split": "dev", "path": "d/*"}]},
    ], "dataset_info": [{"config_name": "tall", "splits": [{"name": "train", "num_bytes": 8_388_608}]}]});
    let files = [
        large("s/a.jsonl", documents("s")),
        large("t/b.jsonl", documents("t")),
    ];
    let server = Server::start(Contents::default().with_card("datasets/o/n", &files, card));
    let folder = tempdir().unwrap();
    let prepare = |further: &[&str]| taper(folder.path(), &server, &[&PREPARE, further].concat());
    prepare(&[]).refused(&["several subsets", "--subset", "`small`, `tall`"]);
    prepare(&["--subset", "big"]).refused(&["no subset `big`", "`small`, `tall`"]);
    prepare(&["--subset", "small", "--split", "dev"]).refused(&["no split `dev`", "`train`"]);
    let said = prepare(&["--subset", "tall"]).succeeded().stderr;
    assert!(
        said.contains("subset `tall`, split `train`, commit "),
        "{said}"
    );
    assert!(said.contains("about 4.0 MiB in `data/n-tall`"), "{said}");
    assert!(folder.path().join("data/n-tall/train.bin").exists());
    let local = ["prepare", "x.txt", "--out", "y", "--subset", "tall"];
    process::taper(folder.path(), &local).refused(&["--subset tall", "none are downloaded"]);
}

#[test]
fn a_dataset_of_another_format_is_taken_from_the_hubs_conversion() {
    let converted = [
        large("default/train/0000.jsonl", documents("c")),
        large("default/test/0000.jsonl", documents("t")),
    ];
    let contents = Contents::default()
        .with("datasets/o/n", &[small("load.py", "pass")])
        .with("datasets/o/n@converted", &converted);
    let server = Server::start(contents);
    let folder = tempdir().unwrap();
    let said = taper(folder.path(), &server, &PREPARE).succeeded().stderr;
    assert!(said.contains("the hub's conversion to Parquet"), "{said}");
    assert!(said.contains("from 40 documents in 1 file"), "{said}");
}

#[test]
fn a_path_that_exists_wins_over_the_hub() {
    let server = Server::start(Contents::default());
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("o")).unwrap();
    fs::write(
        folder.path().join("o/n"),
        "plain text of many words ".repeat(40),
    )
    .unwrap();
    let said = taper(folder.path(), &server, &["prepare", "o/n", "--out", "out"])
        .succeeded()
        .stderr;
    assert!(
        said.contains("note: reading the path `o/n`, which exists here"),
        "{said}"
    );
    assert!(server.seen().is_empty());
}

#[test]
fn a_killed_download_goes_on_where_it_was() {
    let bytes = [
        documents("a"),
        b"{\"text\": \"".to_vec(),
        vec![b'x'; 400_000],
        b"\"}\n".to_vec(),
    ]
    .concat();
    let file = large("train.jsonl", &*bytes);
    let server = Server::with_rule(
        Contents::default().with("datasets/o/n", &[file]),
        |request, mut answer: Answer| {
            if request.is_storage && request.earlier == 0 {
                answer.end = End::StallAfter(250_000);
            }
            answer
        },
    );
    let folder = tempdir().unwrap();
    let partial = format!("cache/datasets--o--n/blobs/{}.incomplete", sha256(&bytes));
    let mut killed = command(folder.path(), &server, &PREPARE)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&folder.path().join(&partial), 250_000);
    killed.kill().unwrap();
    killed.wait().unwrap();
    taper(folder.path(), &server, &PREPARE).succeeded();
    assert_eq!(server.sent(), bytes.len());
    let ranges: Vec<_> = server
        .seen()
        .iter()
        .filter(|seen| seen.is_storage)
        .map(|seen| seen.from)
        .collect();
    assert_eq!(ranges, [None, Some(250_000)]);
    assert!(folder.path().join("data/n/train.bin").exists());
}

#[test]
#[cfg(unix)]
fn a_signal_ends_a_download_at_once_and_keeps_it() {
    let server = Server::with_rule(
        Contents::default().with("datasets/o/n", &[large("train.jsonl", noise(400_000))]),
        |request, mut answer: Answer| {
            if request.is_storage {
                answer.end = End::StallAfter(250_000);
            }
            answer
        },
    );
    let folder = tempdir().unwrap();
    let partial = format!(
        "cache/datasets--o--n/blobs/{}.incomplete",
        sha256(&noise(400_000))
    );
    let partial = folder.path().join(partial);
    let child = command(folder.path(), &server, &PREPARE).spawn().unwrap();
    wait_for(&partial, 250_000);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let stopped = outcome(child);
    assert_eq!(stopped.code, Some(130), "{}", stopped.stderr);
    assert!(
        stopped
            .stderr
            .contains("stopped: interrupted; what was downloaded is kept"),
        "{}",
        stopped.stderr
    );
    assert!(
        stopped.stderr.contains("hint: run the same command again"),
        "{}",
        stopped.stderr
    );
    assert_eq!(fs::metadata(partial).unwrap().len(), 250_000);
}

#[test]
fn two_processes_download_a_file_once() {
    let file = large("train.jsonl", documents("a"));
    let server = Server::with_rule(
        Contents::default().with("datasets/o/n", std::slice::from_ref(&file)),
        |request, answer| {
            if request.is_storage {
                sleep(Duration::from_millis(500));
            }
            answer
        },
    );
    let folder = tempdir().unwrap();
    let run = |out| {
        let arguments = [&PREPARE, &["--out", out][..]].concat();
        command(folder.path(), &server, &arguments).spawn().unwrap()
    };
    let (one, other) = (run("one"), run("other"));
    outcome(one).succeeded();
    outcome(other).succeeded();
    assert_eq!(server.sent(), file.bytes.len());
    for split in ["train.bin", "val.bin"] {
        let read = |out: &str| fs::read(folder.path().join(out).join(split)).unwrap();
        assert_eq!(read("one"), read("other"));
    }
}

#[test]
fn training_without_data_names_the_command_that_makes_it() {
    let folder = tempdir().unwrap();
    let train = ["train", "--config", "openwebtext.toml"];
    process::taper(folder.path(), &train).refused(&[
        "`data/openwebtext/train.bin` does not exist",
        "hint: run `taper prepare openwebtext`, which downloads about 22.54 GiB",
        "an estimate",
        "`taper train --config quickstart.toml`",
    ]);
    let fineweb = [&train[..], &["--set", "data.dataset=fineweb-edu"]].concat();
    process::taper(folder.path(), &fineweb).refused(&["`taper prepare fineweb-edu`"]);
}
