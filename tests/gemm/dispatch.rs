//! Planted failures: the next candidate takes over for that problem, one line says so, the run goes on.

use std::fs;

use taper::memory::AllocationError;
use taper::ops::gemm::cache::{Cache, Entry, Header, Record, Table};
use taper::ops::gemm::candidate::{Device, Operand};
use taper::ops::gemm::check::Fill;
use taper::ops::gemm::tune::{TuneOutcome, Tuned};
use taper::ops::gemm::{Dispatch, Problem, TrainingGemm};
use taper::terms::{Effort, NamedChoice};
use tempfile::tempdir;

use super::fake::{Fake, Scripted, takes};
use super::problems;

pub const LIMITED: Effort = Effort::Limited;

fn named(name: &str, problem: Problem) -> TrainingGemm {
    TrainingGemm {
        name: name.to_owned(),
        problem,
        per_micro_step: 1,
    }
}

pub fn gemms() -> Vec<TrainingGemm> {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let gemms = names.into_iter().zip(problems());
    gemms.map(|(name, problem)| named(name, problem)).collect()
}

fn prepared(fake: Fake) -> Dispatch<Fake> {
    let dispatch = Dispatch::new(fake, LIMITED, None, Table::default());
    dispatch.prepare(&gemms(), None);
    dispatch
}

/// C of a product.
pub fn product(dispatch: &Dispatch<Fake>, problem: &Problem) -> Result<Vec<f32>, AllocationError> {
    let fake = Fake::default();
    let mut trial = fake.trial(&[*problem]).unwrap();
    for operand in [Operand::A, Operand::B, Operand::Bias, Operand::Aux] {
        fake.fill(&mut trial, problem, operand, Fill::Random)
            .unwrap();
    }
    dispatch.run(problem, &mut fake.operands(&mut trial, problem))?;
    let all: Vec<usize> = (0..problem.m * problem.n).collect();
    Ok(fake.read(&mut trial, problem, Operand::C, &all).unwrap())
}

pub fn right(problem: &Problem) -> Vec<f32> {
    product(
        &Dispatch::untuned(Fake::new([takes("right", 1.0)])),
        problem,
    )
    .unwrap()
}

pub fn lines(dispatch: &Dispatch<Fake>) -> Vec<String> {
    let line = |choice: NamedChoice| {
        let NamedChoice {
            name,
            value,
            because,
        } = choice;
        format!("{name} = {value} ({because})")
    };
    dispatch.take_choices().into_iter().map(line).collect()
}

/// The names of the candidates that `table` has for a problem.
fn names<'a>(table: &'a Table, problem: &Problem) -> Vec<&'a str> {
    let names = &table.get(problem).unwrap().candidates;
    names.iter().map(String::as_str).collect()
}

#[test]
fn every_product_goes_to_the_winner() {
    let dispatch = prepared(Fake::new([takes("fallback", 1e-3), takes("winner", 5e-4)]));
    for TrainingGemm { problem, .. } in gemms() {
        assert_eq!(product(&dispatch, &problem).unwrap(), right(&problem));
        assert_eq!(names(&dispatch.table(), &problem), ["winner", "fallback"]);
    }
    let [line] = &lines(&dispatch)[..] else {
        panic!()
    };
    assert!(
        line.starts_with("gemm = 8 x winner (8 verified and timed in "),
        "{line}"
    );
}

#[test]
fn a_backend_that_cannot_be_created_leaves_the_other() {
    let refused = Scripted {
        unavailable: Some("cublasLtCreate: the library is not there"),
        ..takes("cublasLt", 1e-6)
    };
    for candidates in [
        [refused.clone(), takes("ptx", 1.0)],
        [takes("ptx", 1.0), refused],
    ] {
        let relied_on = candidates[0].name == "cublasLt";
        let dispatch = prepared(Fake::new(candidates.clone()));
        for TrainingGemm { problem, .. } in gemms() {
            assert_eq!(product(&dispatch, &problem).unwrap(), right(&problem));
            assert_eq!(names(&dispatch.table(), &problem), ["ptx"]);
        }
        // Also where nothing is searched, and where another run knew already.
        let untuned = Dispatch::untuned(Fake::new(candidates.clone()));
        let stored = stored(&["ptx"]);
        let resumed = Dispatch::new(Fake::new(candidates), LIMITED, None, stored);
        resumed.prepare(&gemms(), None);
        for TrainingGemm { problem, .. } in gemms() {
            assert_eq!(product(&untuned, &problem).unwrap(), right(&problem));
        }
        for dispatch in [dispatch, untuned, resumed] {
            let mut told = lines(&dispatch);
            told.retain(|line| line.starts_with("gemm fallback"));
            let line = "gemm fallback = ptx (`cublasLt` cannot be used: cublasLtCreate: the library is not there)";
            assert_eq!(told, if relied_on { vec![line] } else { vec![] });
        }
    }
}

#[test]
fn a_launch_that_fails_is_taken_over_with_one_line() {
    // Verified twice for every problem, then once more in the run.
    let launches = 2 * gemms().len() + 1;
    let failing = Scripted {
        launches,
        ..takes("failing", 5e-4)
    };
    let dispatch = prepared(Fake::new([
        takes("fallback", 1e-3),
        failing,
        takes("slow", 2e-3),
    ]));
    lines(&dispatch);
    let problem = problems()[0];
    for _ in 0..4 {
        assert_eq!(product(&dispatch, &problem).unwrap(), right(&problem));
    }
    assert_eq!(
        lines(&dispatch),
        [
            "gemm 37 x 19 x 23 NT float32 = fallback (`failing` failed: the device failed at forward: the launch was refused)"
        ]
    );
    assert_eq!(names(&dispatch.table(), &problem), ["fallback", "slow"]);
    // For other problems it is still the first, until it fails there, too.
    assert_eq!(names(&dispatch.table(), &problems()[1])[0], "failing");
}

#[test]
fn one_after_the_other_takes_over_and_the_last_failure_is_the_run_s() {
    let failing = |name, seconds, launches| Scripted {
        launches,
        ..takes(name, seconds)
    };
    let verified = 2 * gemms().len();
    let dispatch = prepared(Fake::new([
        failing("a", 3e-3, verified + 1),
        failing("b", 1e-3, verified),
        failing("c", 2e-3, verified),
    ]));
    lines(&dispatch);
    let problem = problems()[4];
    assert_eq!(product(&dispatch, &problem).unwrap(), right(&problem));
    assert_eq!(lines(&dispatch).len(), 2);
    let failure = product(&dispatch, &problem).unwrap_err();
    assert!(matches!(failure, AllocationError::Device { .. }));
    assert!(lines(&dispatch).is_empty());
}

#[test]
fn a_lack_of_memory_is_for_the_ladder_to_answer_not_for_another_candidate() {
    let greedy = Scripted {
        launches: 2 * gemms().len(),
        out_of_memory: true,
        ..takes("greedy", 5e-4)
    };
    let dispatch = prepared(Fake::new([takes("fallback", 1e-3), greedy]));
    lines(&dispatch);
    let failure = product(&dispatch, &problems()[0]).unwrap_err();
    assert!(matches!(failure, AllocationError::OutOfMemory(_)));
    assert!(lines(&dispatch).is_empty());
    assert_eq!(names(&dispatch.table(), &problems()[0])[0], "greedy");
}

#[test]
fn a_wrong_candidate_never_computes_a_product_not_even_after_a_failure() {
    let wrong = Scripted {
        spoil: Some(|c, _| c[0] += 1.0),
        ..takes("wrong", 1e-6)
    };
    let failing = Scripted {
        launches: 2 * gemms().len(),
        ..takes("failing", 1e-4)
    };
    let dispatch = prepared(Fake::new([takes("fallback", 1e-3), wrong, failing]));
    for TrainingGemm { problem, .. } in gemms() {
        assert_eq!(product(&dispatch, &problem).unwrap(), right(&problem));
        assert_eq!(names(&dispatch.table(), &problem), ["fallback"]);
    }
}

#[test]
fn a_device_without_a_right_candidate_says_so_for_every_problem_and_is_not_remembered() {
    let folder = tempdir().unwrap();
    let cache = Cache::new(folder.path(), "fake", Header::new());
    let wrong = Scripted {
        spoil: Some(|c, _| c[0] += 1.0),
        ..takes("wrong", 1e-6)
    };
    let dispatch = Dispatch::new(
        Fake::new([wrong]),
        LIMITED,
        Some(cache.clone()),
        Table::default(),
    );
    dispatch.prepare(&gemms(), None);
    let lines = lines(&dispatch);
    assert_eq!(lines.len(), gemms().len() + 1);
    assert!(lines[0].starts_with("gemm a = wrong (no other is right either: C[0, 0] is "));
    assert!(!cache.path().exists());
}

#[test]
fn a_problem_that_nobody_tuned_goes_to_the_fallback_and_into_no_table() {
    let dispatch = Dispatch::new(
        Fake::new([takes("fallback", 1.0), takes("fast", 1e-3)]),
        LIMITED,
        None,
        Table::default(),
    );
    assert_eq!(
        product(&dispatch, &problems()[0]).unwrap(),
        right(&problems()[0])
    );
    assert_eq!(dispatch.table(), Table::default());
    assert!(lines(&dispatch).is_empty());
}

fn stored(names: &[&str]) -> Table {
    let candidates: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let entry = |problem| Entry {
        problem,
        candidates: candidates.clone(),
    };
    Table(problems().into_iter().map(entry).collect())
}

#[test]
fn a_checkpoint_s_table_is_used_as_it_is_and_nothing_is_timed() {
    let folder = tempdir().unwrap();
    let cache = Cache::new(folder.path(), "fake", Header::new());
    for problem in problems() {
        let tuned = Tuned {
            outcomes: vec![("fallback".to_owned(), TuneOutcome::Timed { seconds: 1.0 })],
            chosen: 0,
            because: "the only one".into(),
            searched: true,
            stand_in: None,
        };
        cache.store(Record { problem, tuned }).unwrap();
    }
    let fake = Fake::new([takes("fallback", 1.0), takes("x", 1e-3), takes("y", 2e-3)]);
    let table = stored(&["y", "fallback", "x"]);
    let dispatch = Dispatch::new(fake, LIMITED, Some(cache), table.clone());
    dispatch.prepare(&gemms(), None);
    assert_eq!(dispatch.table(), table);
    assert_eq!(lines(&dispatch), ["gemm = 8 x y (8 from the checkpoint)"]);
}

#[test]
fn what_the_checkpoint_names_and_the_device_lacks_is_replaced_with_a_line() {
    let gone = Scripted {
        unavailable: Some("gone"),
        ..takes("gone", 1.0)
    };
    let fake = Fake::new([takes("fallback", 1.0), gone]);
    let table = stored(&["gone", "never heard of", "fallback"]);
    let dispatch = Dispatch::new(fake, LIMITED, None, table);
    dispatch.prepare(&gemms()[..2], None);
    let missing = "(`gone`, which the checkpoint names, is not available here)";
    let expected = [
        format!("gemm a = fallback {missing}"),
        format!("gemm b = fallback {missing}"),
        "gemm = 2 x fallback (2 from the checkpoint)".to_owned(),
    ];
    assert_eq!(lines(&dispatch), expected);

    let dispatch = Dispatch::new(
        Fake::new([takes("new", 1.0)]),
        LIMITED,
        None,
        stored(&["old"]),
    );
    dispatch.prepare(&gemms()[..1], None);
    let lines = lines(&dispatch);
    assert_eq!(
        lines[0],
        "gemm a = tuned again (`old`, which the checkpoint names, is not available here)"
    );
    assert!(lines[1].starts_with("gemm = 1 x new (1 verified and timed in "));
}

#[test]
fn the_cache_spares_the_next_run_its_search() {
    let folder = tempdir().unwrap();
    let cache = Cache::new(folder.path(), "fake", Header::new());
    let run = |fast: f64| {
        let fake = Fake::new([takes("fallback", 1e-3), takes("fast", fast)]);
        let dispatch = Dispatch::new(fake, LIMITED, Some(cache.clone()), Table::default());
        dispatch.prepare(&gemms(), None);
        (dispatch.table(), lines(&dispatch))
    };
    let (first, _) = run(5e-4);
    // It would lose now, but is not asked.
    let (second, lines) = run(2e-3);
    assert_eq!(first, second);
    assert_eq!(lines, ["gemm = 8 x fast (8 timed in an earlier run)"]);
}

#[test]
fn without_the_winner_a_cached_search_is_done_again() {
    let folder = tempdir().unwrap();
    let cache = Cache::new(folder.path(), "fake", Header::new());
    let run = |names: &[&'static str]| {
        let candidates: Vec<Scripted> = (1..)
            .zip(names)
            .map(|(n, name)| takes(name, 1e-3 / f64::from(n)))
            .collect();
        let dispatch = Dispatch::new(
            Fake::new(candidates),
            LIMITED,
            Some(cache.clone()),
            Table::default(),
        );
        dispatch.prepare(&gemms(), None);
        lines(&dispatch)
    };
    run(&["fallback", "good", "best"]);
    let [line] = &run(&["fallback", "good"])[..] else {
        panic!()
    };
    assert!(
        line.starts_with("gemm = 8 x good (8 verified and timed in "),
        "{line}"
    );
}

#[test]
fn a_cache_of_no_use_and_one_that_cannot_be_written_are_a_line_each() {
    let folder = tempdir().unwrap();
    let cache = Cache::new(folder.path(), "fake", Header::new());
    fs::write(cache.path(), "{").unwrap();
    let run = |cache| {
        let dispatch = Dispatch::new(
            Fake::new([takes("fallback", 1e-3)]),
            LIMITED,
            Some(cache),
            Table::default(),
        );
        dispatch.prepare(&gemms(), None);
        lines(&dispatch)
    };
    let damaged = run(cache.clone());
    assert_eq!(damaged.len(), 2);
    assert!(
        damaged[0].starts_with("gemm cache = not used ("),
        "{}",
        damaged[0]
    );
    assert_eq!(run(cache).len(), 1);

    let file = folder.path().join("a file");
    fs::write(&file, "").unwrap();
    let unwritable = run(Cache::new(&file, "fake", Header::new()));
    assert!(
        unwritable
            .iter()
            .any(|line| line.starts_with("gemm cache = not written ("))
    );
    assert!(
        unwritable
            .iter()
            .any(|line| line.starts_with("gemm = 8 x fallback"))
    );
}

#[test]
fn another_rung_adds_its_problems_and_keeps_the_decided_ones() {
    let dispatch = prepared(Fake::new([takes("fallback", 1e-3), takes("fast", 5e-4)]));
    lines(&dispatch);
    dispatch.prepare(&gemms(), None);
    assert!(lines(&dispatch).is_empty());
    let other = Problem {
        m: 5,
        ..problems()[0]
    };
    dispatch.prepare(&[named("other", other)], None);
    let [line] = &lines(&dispatch)[..] else {
        panic!()
    };
    assert!(line.starts_with("gemm = 1 x fast (1 verified"), "{line}");
    assert_eq!(dispatch.table().0.len(), gemms().len() + 1);
}

#[test]
fn a_choice_without_a_search_is_told_and_not_kept_for_another_run() {
    let folder = tempdir().unwrap();
    let cache = Cache::new(folder.path(), "fake", Header::new());
    let fake = Fake::new([takes("a", 2.0), takes("b", 1.0)]);
    let dispatch = Dispatch::new(fake, LIMITED, Some(cache), Table::default());
    dispatch.prepare(&gemms()[..1], Some(100));
    let choices = dispatch.take_choices();
    assert_eq!(choices.len(), 1, "{choices:?}");
    assert_eq!(
        (choices[0].name.as_str(), choices[0].value.as_str()),
        ("gemm a", "a")
    );
    assert!(
        choices[0].because.contains("tuning it takes"),
        "{choices:?}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // A resumed run goes on with it all the same.
    assert_eq!(dispatch.table().0.len(), 1);
}
