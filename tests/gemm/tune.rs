//! Which candidate wins. No clock but the fake's is asked.

use proptest::prelude::*;
use taper::ops::gemm::tune::{TuneOutcome, Tuned, rate_of, tune};
use taper::ops::gemm::{Epilogue, Problem};
use taper::terms::{Effort, Inputs};

use super::fake::{Fake, Scripted, takes};
use super::problem;

fn tuned(fake: &Fake) -> Tuned<&'static str> {
    tune(fake, &problem(), Effort::Limited, None)
}

fn chosen(candidates: impl Into<Vec<Scripted>>) -> &'static str {
    let tuned = tuned(&Fake::new(candidates));
    tuned.outcomes[tuned.chosen].0
}

fn outcome(tuned: &Tuned<&'static str>, name: &str) -> TuneOutcome {
    let mut outcomes = tuned.outcomes.iter();
    outcomes
        .find(|(other, _)| *other == name)
        .unwrap()
        .1
        .clone()
}

#[test]
fn a_challenger_must_be_more_than_two_percent_faster() {
    let against = |seconds| chosen([takes("fallback", 1e-3), takes("challenger", seconds)]);
    assert_eq!(against(0.981e-3), "fallback");
    assert_eq!(against(0.979e-3), "challenger");
    assert_eq!(against(2e-3), "fallback");
}

#[test]
fn the_fastest_challenger_is_taken_and_the_reason_has_its_lead() {
    let [fallback, good, best] = [("fallback", 1.2e-3), ("good", 0.9e-3), ("best", 0.8e-3)];
    let fake = Fake::new([fallback, good, best].map(|(name, seconds)| takes(name, seconds)));
    let tuned = tuned(&fake);
    assert_eq!(tuned.because, "50 % faster than `fallback`");
    assert_eq!(tuned.order(), ["best", "good", "fallback"]);
}

#[test]
fn the_median_counts_not_a_lucky_or_an_unlucky_run() {
    let mut lucky = takes("lucky", 0.0);
    lucky.seconds = vec![1.1e-3, 0.4e-3, 1.1e-3, 1.1e-3, 1.1e-3, 0.4e-3, 1.1e-3];
    let mut unlucky = takes("unlucky", 0.0);
    unlucky.seconds = vec![0.9e-3, 1.1e-3, 0.9e-3, 1.1e-3, 0.9e-3, 1.1e-3, 0.9e-3];
    assert_eq!(chosen([takes("fallback", 1e-3), lucky, unlucky]), "unlucky");
}

#[test]
fn what_is_three_times_slower_than_the_best_is_timed_once() {
    let fake = Fake::new([
        takes("fallback", 1e-3),
        takes("slow", 3.1e-3),
        takes("even", 2.9e-3),
    ]);
    let tuned = tuned(&fake);
    assert_eq!(fake.times_timed("slow"), 1);
    assert_eq!(fake.times_timed("even"), fake.times_timed("fallback"));
    assert!(fake.times_timed("even") >= 3);
    assert_eq!(
        outcome(&tuned, "slow"),
        TuneOutcome::Timed { seconds: 3.1e-3 }
    );
}

#[test]
fn a_slow_card_spends_no_longer_than_the_effort_allows() {
    for (effort, most) in [(Effort::Limited, 0.5), (Effort::Full, 5.0)] {
        for seconds in [1e-3, 0.1, 0.4, 3.0, 100.0] {
            let names = ["fallback", "a", "b", "c"];
            let fake = Fake::new(names.map(|name| takes(name, seconds)));
            let tuned = tune(&fake, &problem(), effort, None);
            let spent = seconds * fake.timed.borrow().len() as f64;
            assert!(spent <= most + 1.001 * seconds, "{spent} s");
            assert!(matches!(
                outcome(&tuned, "fallback"),
                TuneOutcome::Timed { .. }
            ));
            assert_eq!(tuned.chosen, 0);
            // What was right but not timed may still take over.
            assert_eq!(tuned.order().len(), 4);
        }
    }
}

#[test]
fn without_a_search_nothing_is_computed() {
    let fake = Fake::new([takes("fallback", 1.0), takes("challenger", 1e-3)]);
    let tuned = tune(&fake, &problem(), Effort::Off, None);
    assert_eq!(tuned.order(), ["fallback", "challenger"]);
    assert!(fake.launched.borrow().is_empty() && fake.timed.borrow().is_empty());
}

#[test]
fn what_is_unavailable_is_named_with_its_reason() {
    let refused = Scripted {
        unavailable: Some("it needs 96 KiB of shared memory, 64 KiB are there"),
        ..takes("large tile", 1e-6)
    };
    let tuned = tuned(&Fake::new([takes("fallback", 1e-3), refused]));
    let text = match outcome(&tuned, "large tile") {
        TuneOutcome::Unavailable(because) => because.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(text, "it needs 96 KiB of shared memory, 64 KiB are there");
    assert_eq!(tuned.order(), ["fallback"]);
    assert_eq!(tuned.because, "the only one that can be used here");
}

#[test]
fn a_lack_of_memory_while_tuning_leaves_the_fallback() {
    let fake = Fake {
        refuses_trials: Some("no memory"),
        ..Fake::new([takes("fallback", 1.0), takes("challenger", 1e-3)])
    };
    let tuned = tuned(&fake);
    assert_eq!((tuned.chosen, &*tuned.because), (0, "no memory"));

    let greedy = Scripted {
        launches: 0,
        out_of_memory: true,
        ..takes("greedy", 1e-6)
    };
    let fake = Fake::new([takes("fallback", 1e-3), greedy, takes("modest", 5e-4)]);
    let tuned = self::tuned(&fake);
    assert_eq!(tuned.order(), ["modest", "fallback"]);
    assert!(matches!(
        outcome(&tuned, "greedy"),
        TuneOutcome::Unavailable(_)
    ));
}

#[test]
fn a_spare_candidate_is_computed_only_where_no_other_is_right() {
    let spare = Scripted {
        is_spare: true,
        ..takes("spare", 1e-6)
    };
    let fake = Fake::new([takes("fallback", 1e-3), spare.clone()]);
    let tuned = self::tuned(&fake);
    assert!(!fake.launched.borrow().contains(&"spare"));
    assert_eq!(outcome(&tuned, "spare"), TuneOutcome::Untimed);
    // It can still take over.
    assert_eq!(tuned.order(), ["fallback", "spare"]);

    let wrong = Scripted {
        spoil: Some(|c, _| c[0] += 1.0),
        ..takes("wrong", 1e-3)
    };
    let tuned = self::tuned(&Fake::new([wrong.clone(), spare.clone()]));
    assert_eq!(tuned.order(), ["spare"]);
    assert!(matches!(
        outcome(&tuned, "spare"),
        TuneOutcome::Timed { .. }
    ));

    let wrong_too = Scripted {
        spoil: wrong.spoil,
        ..spare.clone()
    };
    let tuned = self::tuned(&Fake::new([wrong, wrong_too]));
    assert!(matches!(outcome(&tuned, "spare"), TuneOutcome::Wrong(_)));

    // The most trusted is what the others are compared with, and does not race.
    let elsewhere = Scripted {
        spoil: Some(|c, n| c[7 * n + 3] += 1.0),
        ..takes("wrong where nobody looks", 1e-5)
    };
    let fake = Fake::new([spare, elsewhere, takes("right", 1e-3)]);
    let tuned = tune(&fake, &large(), Effort::Limited, None);
    assert_eq!(fake.times_timed("spare"), 0);
    assert_eq!(tuned.order(), ["right", "spare"]);
    assert_eq!(tuned.outcomes[tuned.fallback()].0, "right");
}

/// Most of it is not compared with f64.
fn large() -> Problem {
    Problem::forward(211, 307, 16, Inputs::Float32, Epilogue::None)
}

#[test]
fn a_choice_that_could_not_be_timed_is_none_of_a_search() {
    let fake = Fake::new([takes("fallback", 1e-3)]);
    assert!(tuned(&fake).is_found());
    assert!(!tune(&fake, &problem(), Effort::Off, None).is_found());
    assert!(!tune(&fake, &problem(), Effort::Limited, Some(100)).is_found());
}

#[test]
fn one_candidate_can_be_timed_alone() {
    let missing = Scripted {
        unavailable: Some("not here"),
        ..takes("missing", 1.0)
    };
    let fake = Fake::new([missing, takes("fallback", 3e-3), takes("fast", 1e-3)]);
    let flops = problem().flops() as f64;
    let rate = |name| rate_of(&fake, &problem(), name, None);
    assert_eq!(rate(None), Some(flops / 3e-3));
    assert_eq!(rate(Some("fast")), Some(flops / 1e-3));
    assert_eq!(rate(Some("missing")), None);
    assert_eq!(rate(Some("never heard of")), None);
    assert_eq!(rate_of(&fake, &problem(), None, Some(100)), None);
    assert!(fake.launched.borrow().is_empty());
}

#[test]
fn the_room_for_tuning_is_kept_to() {
    let fake = Fake::new([takes("fallback", 1.0), takes("challenger", 0.5)]);
    let tuned = tune(&fake, &problem(), Effort::Limited, Some(100));
    assert_eq!(tuned.chosen, 0);
    assert!(
        tuned.because.ends_with("100 B are left"),
        "{}",
        tuned.because
    );
    assert!(fake.launched.borrow().is_empty());
}

fn candidate(name: &'static str) -> impl Strategy<Value = Scripted> {
    let seconds = proptest::collection::vec(1e-5..1e-3, 1..8);
    let fault = (0..8usize, 0..4usize);
    (seconds, fault).prop_map(move |(seconds, (kind, launches))| Scripted {
        seconds,
        unavailable: (kind == 0).then_some("not here"),
        launches: if kind == 1 { launches } else { usize::MAX },
        out_of_memory: launches % 2 == 0,
        spoil: (kind == 2).then_some(|c: &mut [f32], _| c[0] += 1.0),
        ..takes(name, 0.0)
    })
}

proptest! {
    #[test]
    fn the_winner_is_right_available_and_within_two_percent_of_the_fastest(
        candidates in ["a", "b", "c", "d", "e"].map(candidate)
    ) {
        let fake = Fake::new(candidates.to_vec());
        let tuned = tuned(&fake);
        let order = tuned.order();
        let usable = |outcome: &TuneOutcome| matches!(outcome, TuneOutcome::Timed { .. } | TuneOutcome::Untimed);
        for (name, outcome) in &tuned.outcomes {
            prop_assert!(order.contains(name) == usable(outcome) || *name == order[0]);
            let scripted = candidates.iter().find(|other| other.name == *name).unwrap();
            prop_assert!(!usable(outcome) || scripted.unavailable.is_none());
            prop_assert!(!usable(outcome) || scripted.spoil.is_none());
        }
        prop_assert_eq!(order[0], tuned.outcomes[tuned.chosen].0);
        let seconds: Vec<f64> = tuned.outcomes.iter().filter_map(|(_, outcome)| match outcome {
            TuneOutcome::Timed { seconds } => Some(*seconds),
            _ => None,
        }).collect();
        let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        if let TuneOutcome::Timed { seconds } = tuned.outcomes[tuned.chosen].1 {
            prop_assert!(seconds * 0.98 <= best);
        } else {
            prop_assert!(seconds.is_empty());
        }
    }
}
