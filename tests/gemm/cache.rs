//! The file that keeps the winners: whole, of this machine, or not used.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use taper::ops::gemm::cache::{Cache, Header, Record, Records};
use taper::ops::gemm::tune::{TuneOutcome, Tuned};
use taper::ops::gemm::{Epilogue, Problem};
use taper::terms::{Gelu, Inputs};
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

fn record(problem: Problem, names: &[&str]) -> Record {
    let outcome = |index| match index {
        0 => TuneOutcome::Timed { seconds: 1.5e-3 },
        _ => TuneOutcome::Untimed,
    };
    let named = names.iter().enumerate();
    let outcomes = named.map(|(index, name)| ((*name).to_owned(), outcome(index)));
    Record {
        problem,
        tuned: Tuned {
            outcomes: outcomes.collect(),
            chosen: 0,
            because: "12 % faster".into(),
            searched: true,
            stand_in: None,
        },
    }
}

fn records() -> Records {
    let names = ["ptx mma 128x128x32", "cublaslt #0badcafe"];
    let records = problems().into_iter();
    Records(records.map(|problem| record(problem, &names)).collect())
}

fn store(cache: &Cache, records: Records) {
    for record in records.0 {
        cache.store(record).unwrap();
    }
}

#[test]
fn what_is_stored_is_loaded_and_what_is_not_there_is_no_news() {
    let folder = tempdir().unwrap();
    let cache = cache(&folder);
    assert_eq!(cache.load(), (Records::default(), None));
    store(&cache, records());
    assert_eq!(cache.load(), (records(), None));
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
    for other in others {
        cache(&folder).store(record(other, &["other"])).unwrap();
    }
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
    store(&cache, records());
    let whole = fs::read(cache.path()).unwrap();
    // Without its last newline it is still whole.
    for length in (0..whole.len() - 1).step_by(7) {
        fs::write(cache.path(), &whole[..length]).unwrap();
        let (records, unused) = cache.load();
        assert_eq!(records, Records::default());
        let because = unused.unwrap();
        assert!(
            because.contains("gemm-nvidia-h200.json` is damaged: "),
            "{because}"
        );
    }
    store(&cache, records());
    assert_eq!(cache.load(), (records(), None));
}

#[test]
fn a_file_that_is_something_else_is_ignored_with_a_reason() {
    let folder = tempdir().unwrap();
    let cache = cache(&folder);
    for content in [
        &b"{}"[..],
        b"null",
        b"\xff\xfe",
        b"{\"header\": 1, \"records\": []}",
    ] {
        fs::write(cache.path(), content).unwrap();
        let (records, unused) = cache.load();
        assert!(records == Records::default() && unused.is_some());
    }
}

#[test]
fn entries_of_another_driver_are_rejected_and_the_field_is_named() {
    let folder = tempdir().unwrap();
    store(&cache(&folder), records());
    let rejected = |header| {
        let (records, unused) = Cache::new(folder.path(), "NVIDIA H200", header).load();
        assert_eq!(records, Records::default());
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
fn a_choice_that_is_none_of_the_candidates_is_damage() {
    let folder = tempdir().unwrap();
    // One that is not there, and one that was not timed.
    for names in [&["x"][..], &["x", "y"]] {
        let mut wrong = record(problems()[0], names);
        wrong.tuned.chosen = 1;
        cache(&folder).store(wrong).unwrap();
        let (records, unused) = cache(&folder).load();
        assert_eq!(records, Records::default());
        assert!(unused.unwrap().contains("is damaged: "));
    }
}

#[test]
fn a_file_of_an_earlier_taper_is_of_other_timings_and_not_damaged() {
    let folder = tempdir().unwrap();
    let old = r#"{"header": {"device": "NVIDIA H200", "taper": "0.1.0"}, "entries": []}"#;
    fs::write(cache(&folder).path(), old).unwrap();
    let because = cache(&folder).load().1.unwrap();
    assert!(because.contains("` is of other timings: "), "{because}");
}

#[test]
fn what_is_stored_under_a_new_header_replaces_the_old_entries() {
    let folder = tempdir().unwrap();
    store(&cache(&folder), records());
    let newer = Cache::new(folder.path(), "NVIDIA H200", header("590"));
    let one = record(problems()[1], &["cublaslt #3"]);
    newer.store(one.clone()).unwrap();
    assert_eq!(newer.load(), (Records(vec![one]), None));
}

#[test]
fn entries_of_an_earlier_run_stay_and_a_new_one_wins() {
    let folder = tempdir().unwrap();
    store(&cache(&folder), records());
    let new = record(problems()[0], &["new"]);
    cache(&folder).store(new.clone()).unwrap();
    let (loaded, _) = cache(&folder).load();
    assert_eq!(loaded.get(&problems()[0]), Some(&new.tuned));
    assert_eq!(loaded.0.len(), records().0.len());
}

#[test]
fn readers_beside_concurrent_writers_always_find_a_whole_file() {
    let folder = tempdir().unwrap();
    let cache = cache(&folder);
    store(&cache, records());
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
                        cache.store(record(problem, &["x"])).unwrap();
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
    let (records, unused) = cache.load();
    assert!(unused.is_none() && !records.0.is_empty());
    // Nothing else is left behind.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_with_the_old_file_untouched() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let cache = Cache::new(&file, "x", header("1"));
    assert!(cache.store(record(problems()[0], &["x"])).is_err());
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}
