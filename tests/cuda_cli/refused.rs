//! Memory that the driver itself refuses: at the start, and to a run that has to make its buffers again.

use crate::process::checkpoint;
use crate::runs::{Place, assert_close, assert_same_numbers};

/// Three rungs: micro-batches of 4, 2 and 1 sequences, two micro-steps on the first.
const LADDER: &str = "train.sequences_per_step=8 train.batch_size=4 system.recompute=none \
    system.dtype=float32";

/// The ladder of a model so wide that its rungs are further apart than a block of the driver's memory pool.
fn wide() -> String {
    format!("{LADDER} model.n_embd=128 model.block_size=64")
}

/// A card on which the wide ladder's first rung just fits, with room for the rounding of every allocation. `TAKEN`
/// in `text` is what the rung takes more than the one below it, and what a plan keeps for code, of which there is none.
fn crowded(text: &str) -> Option<Place> {
    let plan = Place::new()?.plan(&wide());
    let bytes = |rung: usize| plan["ladder"][rung]["bytes"].as_u64().unwrap();
    let (total, context, rounding) = (11_971 << 20, 150 << 20, 64 << 10);
    let used = (total - context - bytes(0) - rounding) / 512 * 512;
    let rows = plan["memory"].as_array().unwrap();
    let code = rows
        .iter()
        .find(|row| row["name"] == "code loaded when used");
    let taken = bytes(0) - bytes(1);
    assert!(taken > (2 << 20) + rounding, "{taken}");
    let taken = taken + code.unwrap()["bytes"].as_u64().unwrap();
    let text = text.replace("TAKEN", &taken.to_string());
    Some(Place::new()?.with_card(&format!("used_bytes = {used}\n{text}")))
}

/// Every allocation of a launch is among the first so many.
const LAUNCH: u64 = 60;

#[test]
fn memory_that_somebody_takes_between_plan_and_launch_costs_a_rung() {
    let Some(place) = crowded("growth = [{ after_allocations = 30, bytes = TAKEN }]") else {
        return;
    };
    let run = place.train(&wide(), "--json");
    let run = run.succeeded();
    let launch = "launch".to_owned();
    let descent = [(0, launch.clone(), 4, 4), (0, launch, 4, 2)];
    assert_eq!(place.recoveries(), descent);
    for follows in ["trying once more with", "going on with micro-batch 2"] {
        assert!(run.stderr.contains(follows), "{}", run.stderr);
        assert!(run.stdout.contains(follows), "{}", run.stdout);
    }
    let smaller = Place::new().unwrap();
    let asked = format!("{} train.batch_size=2", wide());
    smaller.train(&asked, "").succeeded();
    assert_same_numbers(&place, &smaller, 4);
}

#[test]
fn memory_that_somebody_takes_during_the_run_costs_a_rung_and_no_sample() {
    let text = format!("growth = [{{ after_allocations = {LAUNCH}, bytes = TAKEN }}]");
    let Some(place) = crowded(&text) else { return };
    // The third step is refused memory; when its buffers are made again, some of it is gone.
    let run = place.train(&wide(), "--inject forward:5").succeeded();
    let descended = (2, "launch".to_owned(), 4, 2);
    assert_eq!(
        place.recoveries(),
        [(2, "forward".to_owned(), 4, 4), descended]
    );
    for told in [
        "going on with micro-batch 2, recompute none",
        "the same samples",
    ] {
        assert!(run.stderr.contains(told), "{}", run.stderr);
    }
    assert_eq!(place.state(4)["rung"]["micro_batch"], 2);
    assert_eq!(place.state(4)["recoveries"].as_array().unwrap().len(), 2);

    let undisturbed = Place::new().unwrap();
    undisturbed.train(&wide(), "").succeeded();
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

/// Copies with the host, in the order of a run: one of the launch, weights, a packet of each micro-step, three of each
/// update, packets and the loss of each evaluation, and what is saved.
#[test]
fn a_copy_may_find_no_memory_wherever_a_run_makes_one() {
    let Some(clean) = Place::new() else { return };
    clean.train(LADDER, "").succeeded();
    let copies = [
        (1, (0, "launch")),
        (2, (0, "launch")),
        (16, (0, "launch")),
        (17, (0, "forward")),
        (23, (1, "forward")),
        (37, (4, "eval")),
        (40, (4, "eval")),
        (41, (4, "checkpoint")),
        (85, (4, "checkpoint")),
    ];
    for (copy, (step, site)) in copies {
        let place = Place::new().unwrap().failing(&format!("copy={copy}"));
        let run = place.train(LADDER, "").succeeded();
        let retried = [(step, site.to_owned(), 4, 4)];
        assert_eq!(place.recoveries(), retried, "{copy}: {}", run.stderr);
        assert_same_numbers(&place, &clean, 4);
    }
}

#[test]
fn a_copy_of_stored_weights_may_find_no_memory() {
    let saving = format!("{LADDER} checkpoint.checkpoint_interval=2");
    let Some(clean) = Place::new() else { return };
    clean.train(&saving, "").succeeded();
    // The first copy is the launch's, the next ones are of weights and moments.
    for copy in [2, 20, 40] {
        let failing = Place::new().unwrap().failing(&format!("copy={copy}"));
        let place = clean.copied_to(failing);
        let run = place
            .train(&saving, "--resume out/ckpt-00000002")
            .succeeded();
        let told = "trying once more with";
        assert!(run.stderr.contains(told), "{copy}: {}", run.stderr);
        assert_same_numbers(&place, &clean, 4);
    }
    let evaluate = |place: &Place| place.train(&saving, "--resume --eval-only").succeeded();
    let expected = evaluate(&clean).stdout;
    let failing = clean.copied_to(Place::new().unwrap().failing("copy=2"));
    let run = evaluate(&failing);
    assert_eq!(run.stdout, expected);
    assert!(
        run.stderr.contains("trying once more with"),
        "{}",
        run.stderr
    );
}

#[test]
fn an_update_that_finds_no_memory_is_not_done_twice_nor_saved_as_another_step() {
    let Some(clean) = Place::new() else { return };
    clean.train(LADDER, "").succeeded();
    // The second step's numbers do not get to the card: what the first one gave is saved.
    let before = Place::new().unwrap().failing("copy=24");
    before
        .train(LADDER, "")
        .refused(&["out of memory at update"]);
    let before = before.failing("");
    before.train(LADDER, "--resume").succeeded();
    assert_same_numbers(&before, &clean, 4);
    // What it came to is not read: nobody knows then whose step the weights are.
    let after = Place::new().unwrap().failing("copy=26");
    let failed = after.train(LADDER, "");
    assert_eq!(failed.code, Some(2), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("the device failed at update"),
        "{}",
        failed.stderr
    );
    assert!(!checkpoint(after.path(), 1).exists());
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
