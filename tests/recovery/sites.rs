//! A refusal at every site of a training run, at the start and in its course, in the middle of a
//! step with accumulation and dropout: what follows is what a run at that rung would have done.

use taper::faults::Site;
use taper::memory::Memory;
use taper::terms::Rung;

use crate::toy::{
    History, SEQUENCES_PER_STEP, Seen, Work, hand_over, injected, ladder, perform, trainer,
};

const RUN: [Work; 11] = [
    Work::Evaluate,
    Work::Save,
    Work::Step(0),
    Work::Step(1),
    Work::Step(2),
    Work::Evaluate,
    Work::Save,
    Work::Step(3),
    Work::Step(4),
    Work::Evaluate,
    Work::Save,
];

const SITES: [Site; 4] = [Site::Forward, Site::Backward, Site::Eval, Site::Checkpoint];

/// The run with a ladder of its own and without faults, at the rungs of another: `work` before
/// `switch` at the first, from there on at the second.
fn switched(switch: usize, rungs: [Rung; 2]) -> History {
    let mut history = History::default();
    let [mut first, mut second] = rungs.map(|rung| trainer(vec![rung], Memory::default()).unwrap());
    perform(&mut first, &RUN[..switch], &mut history).unwrap();
    hand_over(&mut first, &mut second);
    perform(&mut second, &RUN[switch..], &mut history).unwrap();
    history
}

fn undisturbed() -> History {
    let [first, ..] = ladder()[..] else { panic!() };
    switched(0, [first, first])
}

fn disturbed(injections: &[String]) -> History {
    let mut history = History::default();
    let mut trainer = trainer(ladder(), injected(injections)).unwrap();
    perform(&mut trainer, &RUN, &mut history).unwrap();
    history
}

/// Every site and every piece of work that passes it: where, and the passes before and in it.
fn occasions() -> Vec<(Site, usize, u64, u64)> {
    let at = |site: Site, index: usize| {
        let before = RUN[..index].iter().map(|work| work.passes(site)).sum();
        (site, index, before, RUN[index].passes(site))
    };
    let all = SITES
        .into_iter()
        .flat_map(|site| (0..RUN.len()).map(move |index| at(site, index)));
    let occasions: Vec<_> = all.filter(|(_, _, _, passes)| *passes > 0).collect();
    assert_eq!(occasions.len(), 5 + 5 + 3 + 3);
    occasions
}

/// A pass that is neither the first nor the last, where there are three.
fn middle(passes: u64) -> u64 {
    passes.min(2)
}

#[test]
fn the_rungs_can_be_told_apart_by_their_bits() {
    let [first, second, ..] = ladder()[..] else {
        panic!()
    };
    let at = |rung| switched(0, [rung, rung]).seen;
    let (first, second) = (at(first), at(second));
    let steps = |seen: &[Seen]| -> Vec<Seen> {
        let steps = seen.iter().filter(|seen| matches!(seen, Seen::Step(_)));
        steps.cloned().collect()
    };
    assert_ne!(steps(&first), steps(&second));
}

#[test]
fn one_refusal_is_retried_and_changes_nothing() {
    let [first, ..] = ladder()[..] else { panic!() };
    let expected = undisturbed();
    for (site, index, before, passes) in occasions() {
        let got = disturbed(&[format!("{site}:{}", before + middle(passes))]);
        let what = format!("{site} in {:?}", RUN[index]);
        assert!(got.seen == expected.seen, "{what}");
        assert_eq!(got.all_recoveries(), [(site, first, first)], "{what}");
        assert_eq!(got.recoveries[index].len(), 1, "{what}");
    }
}

#[test]
fn two_refusals_in_a_row_descend_one_rung_and_nothing_else_changes() {
    let [first, second, ..] = ladder()[..] else {
        panic!()
    };
    for (site, index, before, passes) in occasions() {
        let middle = middle(passes);
        // The retry begins with the next pass.
        let refused = [before + middle, before + 2 * middle];
        let got = disturbed(&refused.map(|pass| format!("{site}:{pass}")));
        let what = format!("{site} in {:?}", RUN[index]);
        let descent = [(site, first, first), (site, first, second)];
        assert_eq!(got.all_recoveries(), descent, "{what}");
        assert_eq!(got.recoveries[index].len(), 2, "{what}");
        assert!(got.seen == switched(index, [first, second]).seen, "{what}");
    }
}

#[test]
fn four_refusals_in_a_row_descend_two_rungs() {
    let [first, second, third] = ladder()[..] else {
        panic!()
    };
    for (site, index, before, _) in occasions() {
        let got = disturbed(&[format!("{site}:{}-{}", before + 1, before + 4)]);
        let what = format!("{site} in {:?}", RUN[index]);
        let descent = [
            (site, first, first),
            (site, first, second),
            (site, second, second),
            (site, second, third),
        ];
        assert_eq!(got.all_recoveries(), descent, "{what}");
        assert!(got.seen == switched(index, [first, third]).seen, "{what}");
    }
}

#[test]
fn refusals_in_different_work_are_retries_each() {
    let [first, ..] = ladder()[..] else { panic!() };
    let single = [
        "forward:2",
        "forward:6",
        "backward:8",
        "eval:2",
        "checkpoint:1",
    ];
    let got = disturbed(&single.map(str::to_owned));
    assert!(got.seen == undisturbed().seen);
    assert_eq!(got.all_recoveries().len(), single.len());
    assert!(
        got.all_recoveries()
            .iter()
            .all(|(_, from, to)| from == to && *to == first)
    );
}

#[test]
fn an_attempt_that_was_refused_reads_no_other_samples_than_the_one_that_succeeds() {
    let all: Vec<u32> = (0..SEQUENCES_PER_STEP as u32).collect();
    // Step 0 passes the site at 1 to 3; the retry is refused at its second micro-step, too.
    for (site, injections) in [("forward", [2, 4]), ("backward", [2, 4])] {
        let got = disturbed(&injections.map(|pass| format!("{site}:{pass}")));
        // Two micro-steps of four samples each, twice; then the whole step at the next rung.
        let refused = &all[..8];
        assert_eq!(got.samples[2], [refused, refused, &all].concat());
        for (work, samples) in RUN.iter().zip(&got.samples).skip(3) {
            if let Work::Step(_) = work {
                assert_eq!(*samples, all);
            }
        }
    }
}
