//! Wrong results, planted in a candidate that would win: each is caught, named, and never used.

use taper::ops::gemm::tune::{TuneOutcome, tune};
use taper::ops::gemm::{Epilogue, Problem};
use taper::terms::{Effort, Inputs};

use super::fake::{Fake, Scripted, Spoil, takes};
use super::problems;

const SPOILS: [(&str, Spoil); 7] = [
    ("the first element", |c, _| c[0] += 1.0),
    ("the last element", |c, _| *c.last_mut().unwrap() += 1.0),
    ("one in the middle", |c, n| c[3 * n + 5] -= 1.0),
    ("a NaN", |c, n| c[2 * n + 1] = f32::NAN),
    ("two columns exchanged", |c, n| {
        c.chunks_exact_mut(n).for_each(|row| row.swap(2, 7));
    }),
    ("nothing was written", |c, _| c.fill(0.0)),
    ("a row too low", |c, n| c.rotate_right(n)),
];

fn outcome_of(problem: &Problem, wrong: Scripted) -> TuneOutcome {
    let fake = Fake::new([takes("fallback", 1e-3), wrong]);
    let mut tuned = tune(&fake, problem, Effort::Limited, None);
    let outcome = tuned.outcomes.remove(1).1;
    assert_eq!(
        tuned.chosen == 1,
        matches!(outcome, TuneOutcome::Timed { .. })
    );
    outcome
}

#[test]
fn a_wrong_result_is_caught_and_the_place_named() {
    for problem in problems() {
        for (what, spoil) in SPOILS {
            let wrong = Scripted {
                spoil: Some(spoil),
                ..takes("wrong", 1e-6)
            };
            let TuneOutcome::Wrong(because) = outcome_of(&problem, wrong) else {
                panic!("{what} is not seen in {problem}");
            };
            let named = because.starts_with("C[") || because.starts_with("aux[");
            assert!(
                named && because.contains("with integer operands"),
                "{because}"
            );
        }
    }
}

#[test]
fn a_place_that_no_sample_hits_is_compared_with_the_fallback() {
    let problem = Problem::forward(211, 307, 16, Inputs::Float32, Epilogue::None);
    let wrong = Scripted {
        spoil: Some(|c, n| c[100 * n + 111] += 1.0),
        ..takes("wrong", 1e-6)
    };
    let TuneOutcome::Wrong(because) = outcome_of(&problem, wrong) else {
        panic!("not seen");
    };
    assert!(because.starts_with("C[100, 111] is "), "{because}");
    assert!(
        because.ends_with(" of `fallback` (the largest difference is 1e0)"),
        "{because}"
    );
}

#[test]
fn rounding_is_allowed_unless_the_same_bits_were_promised() {
    // Sums of integers are exact in any order.
    let rounds: Spoil = |c, _| {
        let fractions = c.iter_mut().filter(|c| c.fract() != 0.0);
        fractions.for_each(|c| *c = f32::from_bits(c.to_bits() ^ 1));
    };
    for problem in problems() {
        let candidate = |same_bits| Scripted {
            spoil: Some(rounds),
            same_bits,
            ..takes("rounds", 1e-6)
        };
        let outcome = outcome_of(&problem, candidate(false));
        assert!(
            matches!(outcome, TuneOutcome::Timed { .. }),
            "{problem}: {outcome:?}"
        );
        let outcome = outcome_of(&problem, candidate(true));
        let TuneOutcome::Wrong(because) = outcome else {
            panic!("{problem}: {outcome:?}");
        };
        assert!(
            because.contains(" of `fallback`, whose bits it promised (the largest "),
            "{because}"
        );
    }
}

#[test]
fn less_than_float32_is_not_taken_for_rounding() {
    let halves: Spoil = |c, _| {
        c.iter_mut()
            .for_each(|c| *c = f32::from_bits(c.to_bits() & !0xFFFF));
    };
    for problem in problems() {
        let coarse = Scripted {
            spoil: Some(halves),
            ..takes("coarse", 1e-6)
        };
        let outcome = outcome_of(&problem, coarse);
        assert!(
            matches!(outcome, TuneOutcome::Wrong(_)),
            "{problem}: {outcome:?}"
        );
    }
}

#[test]
fn a_wrong_fallback_loses_to_a_challenger_that_is_right() {
    let wrong = Scripted {
        spoil: Some(|c, _| c[0] += 1.0),
        ..takes("fallback", 1e-3)
    };
    for problem in problems() {
        let fake = Fake::new([wrong.clone(), takes("slower", 2e-3)]);
        let tuned = tune(&fake, &problem, Effort::Limited, None);
        assert!(matches!(tuned.outcomes[0].1, TuneOutcome::Wrong(_)));
        assert_eq!(tuned.order(), ["slower"]);
    }
}
