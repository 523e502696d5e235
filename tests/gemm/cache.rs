//! The file that keeps the winners: whole, of this machine, or not used.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use taper::config::Gelu;
use taper::ops::gemm::cache::{Cache, Entry, Header, Table};
use taper::ops::gemm::{Epilogue, Inputs, Problem};
use tempfile::{TempDir, tempdir};

use super::problems;

fn header(driver: &str) -> Header {
    let fields = [
        ("device", "NVIDIA H200"),
        ("driver", driver),
        ("taper", "0.1.0"),
    ];
    fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn cache(folder: &TempDir) -> Cache {
    Cache::new(folder.path(), "NVIDIA H200", header("580"))
}

fn entry(problem: Problem, names: &[&str]) -> Entry {
    Entry {
        problem,
        candidates: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn table() -> Table {
    let entries = problems().into_iter();
    Table(
        entries
            .map(|problem| entry(problem, &["ptx mma 128x128x32", "heuristic 0"]))
            .collect(),
    )
}

#[test]
fn what_is_stored_is_loaded_and_what_is_not_there_is_no_news() {
    let folder = tempdir().unwrap();
    let cache = cache(&folder);
    assert_eq!(cache.load(), (Table::default(), None));
    cache.store(&table()).unwrap();
    assert_eq!(cache.load(), (table(), None));
    assert_eq!(cache.path(), folder.path().join("gemm-nvidia-h200.json"));
}

#[test]
fn every_part_of_a_problem_tells_it_from_others() {
    let base = Problem::forward(64, 32, 16, Inputs::Bfloat16, Epilogue::BiasGelu(Gelu::Tanh));
    let others = [
        Problem { m: 65, ..base },
        Problem { n: 33, ..base },
        Problem { k: 17, ..base },
        Problem { a: base.b, ..base },
        Problem { b: base.a, ..base },
        Problem {
            inputs: Inputs::Float16,
            ..base
        },
        Problem {
            accumulate: true,
            ..base
        },
        Problem {
            epilogue: Epilogue::BiasGelu(Gelu::Erf),
            ..base
        },
        Problem {
            output: taper::ops::gemm::OutputType::Float32,
            ..base
        },
    ];
    let folder = tempdir().unwrap();
    let stored: Vec<Entry> = others
        .iter()
        .map(|other| entry(*other, &["other"]))
        .collect();
    cache(&folder).store(&Table(stored)).unwrap();
    let (loaded, _) = cache(&folder).load();
    assert_eq!(loaded.get(&base), None);
    for other in others {
        assert!(loaded.get(&other).is_some());
    }
}

#[test]
fn a_file_that_was_cut_off_anywhere_is_ignored_with_a_reason() {
    let folder = tempdir().unwrap();
    let cache = cache(&folder);
    cache.store(&table()).unwrap();
    let whole = fs::read(cache.path()).unwrap();
    // Without its last newline it is still whole.
    for length in (0..whole.len() - 1).step_by(7) {
        fs::write(cache.path(), &whole[..length]).unwrap();
        let (table, unused) = cache.load();
        assert_eq!(table, Table::default());
        let because = unused.unwrap();
        assert!(
            because.contains("gemm-nvidia-h200.json` is damaged: "),
            "{because}"
        );
    }
    cache.store(&table()).unwrap();
    assert_eq!(cache.load(), (table(), None));
}

#[test]
fn a_file_that_is_something_else_is_ignored_with_a_reason() {
    let folder = tempdir().unwrap();
    let cache = cache(&folder);
    for content in [
        &b"{}"[..],
        b"null",
        b"\xff\xfe",
        b"{\"header\": 1, \"entries\": []}",
    ] {
        fs::write(cache.path(), content).unwrap();
        let (table, unused) = cache.load();
        assert!(table == Table::default() && unused.is_some());
    }
}

#[test]
fn entries_of_another_driver_are_rejected_and_the_field_is_named() {
    let folder = tempdir().unwrap();
    cache(&folder).store(&table()).unwrap();
    let rejected = |header| {
        let (table, unused) = Cache::new(folder.path(), "NVIDIA H200", header).load();
        assert_eq!(table, Table::default());
        unused.unwrap()
    };
    let because = rejected(header("590"));
    assert!(
        because.ends_with("driver was `580` and is `590` now"),
        "{because}"
    );
    let mut more = header("580");
    more.insert("PTX".into(), "abc".into());
    assert!(rejected(more).ends_with("PTX was absent and is `abc` now"));
    let mut less = header("580");
    less.remove("taper");
    assert!(rejected(less).ends_with("taper was `0.1.0` and is absent now"));
}

#[test]
fn what_is_stored_under_a_new_header_replaces_the_old_entries() {
    let folder = tempdir().unwrap();
    cache(&folder).store(&table()).unwrap();
    let newer = Cache::new(folder.path(), "NVIDIA H200", header("590"));
    let one = Table(vec![entry(problems()[1], &["heuristic 3"])]);
    newer.store(&one).unwrap();
    assert_eq!(newer.load(), (one, None));
}

#[test]
fn entries_of_an_earlier_run_stay_and_a_new_one_wins() {
    let folder = tempdir().unwrap();
    cache(&folder).store(&table()).unwrap();
    let new = entry(problems()[0], &["new"]);
    cache(&folder).store(&Table(vec![new.clone()])).unwrap();
    let (loaded, _) = cache(&folder).load();
    assert_eq!(loaded.get(&problems()[0]), Some(&new));
    assert_eq!(loaded.0.len(), table().0.len());
}

#[test]
fn readers_beside_concurrent_writers_always_find_a_whole_file() {
    let folder = tempdir().unwrap();
    let cache = cache(&folder);
    cache.store(&Table::default()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) || reads == 0 {
                assert_eq!(cache.load().1, None);
                reads += 1;
            }
        });
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let cache = &cache;
                scope.spawn(move || {
                    for k in 1..=40 {
                        let m = 1 + writer;
                        let none = Epilogue::None;
                        let problem = Problem::forward(m, 1, k, Inputs::Float32, none);
                        cache.store(&Table(vec![entry(problem, &["x"])])).unwrap();
                    }
                })
            })
            .collect();
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    let (table, unused) = cache.load();
    assert!(unused.is_none() && !table.0.is_empty());
    // Nothing else is left behind.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_with_the_old_file_untouched() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let cache = Cache::new(&file, "x", header("1"));
    assert!(cache.store(&table()).is_err());
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}
