//! The same run whenever the card does its work: in the order of the calls, as late as CUDA allows, and in any other
//! order that it allows. See tests/vgpu/README.md.

use crate::process::Outcome;
use crate::runs::{Place, assert_same_numbers, json_lines};

/// Orders that are compared with the order of the calls.
const ORDERS: [&str; 3] = ["late", "random:11", "random:12"];

/// Seven micro-steps, and evaluations of eight micro-batches, the last of them smaller.
const MANY: &str = "train.sequences_per_step=14 train.batch_size=2 eval.eval_iters=5 \
    eval.eval_batch_size=3 eval.eval_interval=2 checkpoint.checkpoint_interval=2 system.recompute=none";

fn in_order(order: &str) -> Option<Place> {
    Some(Place::new()?.in_order(order))
}

/// What no order may say: the card's own reports, whatever became of the run.
fn assert_nothing_reported(run: &Outcome) {
    let mut reports = run.stderr.lines().filter(|line| line.starts_with("vgpu: "));
    assert_eq!(reports.next(), None);
}

/// Runs with these settings and flags, in every order, give what the first one gives.
#[track_caller]
fn assert_same_in_every_order(settings: &str, flags: &str, recoveries: usize) {
    let settings = format!("{MANY} {settings}");
    let Some(eager) = in_order("eager") else {
        return;
    };
    eager.train(&settings, flags).succeeded();
    assert_eq!(eager.recoveries().len(), recoveries);
    for order in ORDERS {
        let place = in_order(order).unwrap();
        assert_nothing_reported(&place.train(&settings, flags).succeeded());
        assert_eq!(place.recoveries(), eager.recoveries(), "{order}");
        for step in [2, 4] {
            assert_same_numbers(&place, &eager, step);
        }
    }
}

#[test]
fn steps_and_evaluations_of_many_micro_batches_are_the_same_in_every_order() {
    for graph in ["on", "off"] {
        let settings = format!("system.dtype=bfloat16 system.cuda_graph={graph}");
        assert_same_in_every_order(&settings, "", 0);
    }
}

#[test]
fn recoveries_at_every_site_are_the_same_in_every_order() {
    // Each once, which is a retry, and the backward twice, which is a descent.
    let flags = "--inject forward:9 --inject backward:12-13 --inject eval:11 --inject checkpoint:2";
    assert_same_in_every_order("system.dtype=float16", flags, 5);
}

#[test]
fn a_run_that_is_resumed_and_evaluated_is_the_same_in_every_order() {
    let Some(eager) = in_order("eager") else {
        return;
    };
    eager.train(MANY, "").succeeded();
    let evaluate = |place: &Place| {
        let run = place.train(MANY, "--resume --eval-only --json").succeeded();
        let losses = json_lines(&run.stdout);
        ["train_loss", "val_loss"].map(|key| losses[0][key].as_f64().unwrap())
    };
    let expected = evaluate(&eager);
    for order in ORDERS {
        let place = eager.copied_to(in_order(order).unwrap());
        let from = "--resume out/ckpt-00000002";
        assert_nothing_reported(&place.train(MANY, from).succeeded());
        assert_same_numbers(&place, &eager, 4);
        assert_eq!(evaluate(&place), expected, "{order}");
    }
}
