//! Memory that the driver itself refuses: at the start, and to a run that has to make its buffers again.

use crate::runs::{Place, assert_close, assert_same_numbers};

/// Three rungs: micro-batches of 4, 2 and 1 sequences, two micro-steps on the first.
const LADDER: &str = "train.sequences_per_step=8 train.batch_size=4 system.recompute=none \
    system.dtype=float32";

/// A card on which the ladder's first rung just fits, with room for the rounding of every allocation. `TAKEN` in
/// `text` is what the rung takes more than the one below it.
fn crowded(text: &str) -> Option<Place> {
    let plan = Place::new()?.plan(LADDER);
    let bytes = |rung: usize| plan["ladder"][rung]["bytes"].as_u64().unwrap();
    let (context, rounding) = (150 << 20, 64 << 10);
    let total = (context + bytes(0) + rounding).next_multiple_of(512);
    let taken = bytes(0) - bytes(1);
    let text = text.replace("TAKEN", &taken.to_string());
    Some(Place::new()?.with_card(&format!("total_bytes = {total}\n{text}")))
}

/// Every allocation of a launch is among the first so many.
const LAUNCH: u64 = 60;

#[test]
fn memory_that_somebody_takes_between_plan_and_launch_costs_a_rung() {
    let Some(place) = crowded("growth = [{ after_allocations = 30, bytes = TAKEN }]") else {
        return;
    };
    let run = place.train(LADDER, "--json");
    let run = run.succeeded();
    let launch = "launch".to_owned();
    let descent = [(0, launch.clone(), 4, 4), (0, launch, 4, 2)];
    assert_eq!(place.recoveries(), descent);
    for follows in ["trying once more with", "going on with micro-batch 2"] {
        assert!(run.stderr.contains(follows), "{}", run.stderr);
        assert!(run.stdout.contains(follows), "{}", run.stdout);
    }
    let smaller = Place::new().unwrap();
    let asked = format!("{LADDER} train.batch_size=2");
    smaller.train(&asked, "").succeeded();
    assert_same_numbers(&place, &smaller, 4);
}

#[test]
fn memory_that_somebody_takes_during_the_run_costs_a_rung_and_no_sample() {
    let text = format!("growth = [{{ after_allocations = {LAUNCH}, bytes = TAKEN }}]");
    let Some(place) = crowded(&text) else { return };
    // The third step is refused memory; when its buffers are made again, some of it is gone.
    let run = place.train(LADDER, "--inject forward:5").succeeded();
    let descended = (2, "launch".to_owned(), 4, 2);
    assert_eq!(
        place.recoveries(),
        [(2, "forward".to_owned(), 4, 4), descended]
    );
    let told = "going on with micro-batch 2, recompute none, 32 rows of logits at a time, the same samples";
    assert!(run.stderr.contains(told), "{}", run.stderr);
    assert_eq!(place.state(4)["rung"]["micro_batch"], 2);
    assert_eq!(place.state(4)["recoveries"].as_array().unwrap().len(), 2);

    let undisturbed = Place::new().unwrap();
    undisturbed.train(LADDER, "").succeeded();
    assert_close(&place.losses(), &undisturbed.losses(), 1e-6);
    // Before that the two are one run.
    assert_eq!(place.losses()[..2], undisturbed.losses()[..2]);
}

#[test]
fn any_allocation_of_a_run_may_fail_once() {
    let Some(clean) = Place::new() else { return };
    let settings = format!("{LADDER} train.max_iters=1");
    clean.train(&settings, "").succeeded();
    // The first is the workspace of the products, before there is a run to go on with.
    let first = Place::new().unwrap().failing("alloc=1");
    let refused = first.train(&settings, "");
    refused.refused(&["GPU 0 has no memory left", "taper doctor"]);
    assert_eq!(first.contents(), []);
    for allocation in [2, 6, 8, 12, 30, 49] {
        let place = Place::new()
            .unwrap()
            .failing(&format!("alloc={allocation}"));
        let run = place.train(&settings, "").succeeded();
        let retried = [(0, "launch".to_owned(), 4, 4)];
        assert_eq!(place.recoveries(), retried, "{allocation}: {}", run.stderr);
        assert_same_numbers(&place, &clean, 1);
    }
}

#[test]
fn a_card_that_grants_nothing_more_is_a_refusal_that_says_what_would_fit() {
    let Some(place) = Place::new() else { return };
    for fail in ["alloc=2+", "alloc=12+"] {
        let place = Place::new().unwrap().failing(fail);
        let refused = place.train(LADDER, "");
        refused.refused(&["the smallest launch needs", "out of memory at launch"]);
        assert_eq!(place.contents(), []);
    }
    // An evaluation on its own, too.
    place.train(LADDER, "").succeeded();
    let before = place.contents();
    let failing = place.failing("alloc=12+");
    let refused = failing.train(LADDER, "--resume --eval-only");
    refused.refused(&["the smallest launch needs", "out of memory at launch"]);
    assert_eq!(failing.contents(), before);
}

#[test]
fn a_kernel_that_fails_is_no_lack_of_memory_and_the_run_resumes_exactly() {
    let Some(clean) = Place::new() else { return };
    // Every kernel is a launch then.
    let settings = format!("{LADDER} system.cuda_graph=off checkpoint.checkpoint_interval=1");
    clean.train(&settings, "").succeeded();
    let place = Place::new().unwrap().failing("launch=200");
    let failed = place.train(&settings, "");
    assert_eq!(failed.code, Some(2), "{}", failed.stderr);
    for words in ["error: the device failed at ", "hint: "] {
        assert!(failed.stderr.contains(words), "{}", failed.stderr);
    }
    assert_eq!(place.recoveries(), []);
    assert!(place.losses().len() < 4, "it did not fail in the run");
    let place = place.failing("");
    place.train(&settings, "--resume").succeeded();
    assert_same_numbers(&place, &clean, 4);
}
