//! A descent is remembered, and a resumed run repeats and skips nothing.

use serde_json::Value;
use tempfile::tempdir;

use crate::files::{
    assert_same_numbers, metrics, of_kind, recoveries, resumed_elsewhere, state, train, trained,
};

fn micro_batch_choice(state: &Value) -> &Value {
    let choices = state["choices"].as_array().unwrap();
    let found = choices
        .iter()
        .find(|choice| choice["name"] == "micro-batch");
    found.unwrap()
}

#[test]
fn a_resumed_run_starts_at_the_rung_that_was_descended_to() {
    // Steps 3 and 4 in the middle, long before the checkpoint of step 5.
    let descended = trained("", "--inject forward:6 --inject forward:8");
    assert_eq!(state(descended.path(), 5)["rung"]["micro_batch"], 2);

    let resumed = resumed_elsewhere(descended.path(), 5, "");
    assert_same_numbers(descended.path(), resumed.path(), 10);
    let (went_on, resumed_state) = (state(descended.path(), 10), state(resumed.path(), 10));
    assert_eq!(went_on["rung"], resumed_state["rung"]);
    assert_eq!(went_on["recoveries"], resumed_state["recoveries"]);
    let choice = micro_batch_choice(&resumed_state);
    assert_eq!(choice["value"], "2 x 4");
    let because = choice["because"].as_str().unwrap();
    assert!(because.contains("as in the checkpoint"), "{because}");
}

#[test]
fn a_resumed_run_says_where_its_rung_comes_from() {
    let folder = trained("train.max_iters=5", "--inject forward:1-2");
    let run = train(folder.path(), "train.max_iters=6", "--resume").succeeded();
    assert!(
        run.stderr
            .contains("micro-batch = 2 x 4  (as in the checkpoint"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_resumed_run_may_ask_for_another_rung() {
    let descended = trained("", "--inject forward:1-4");
    assert_eq!(state(descended.path(), 5)["rung"]["micro_batch"], 1);
    for (asked, micro_batch) in [("2", 2), ("8", 8)] {
        let settings = format!("train.batch_size={asked}");
        let resumed = resumed_elsewhere(descended.path(), 5, &settings);
        assert_eq!(
            state(resumed.path(), 10)["rung"]["micro_batch"],
            micro_batch
        );
        let lines = metrics(resumed.path());
        assert_eq!(of_kind(&lines, "step", true).len(), 10);
    }
}

#[test]
fn a_resumed_run_has_the_rungs_below_its_own() {
    let folder = trained("train.max_iters=5", "--inject forward:1-2");
    let flags = "--resume --inject backward:2-3";
    train(folder.path(), "train.max_iters=6", flags).succeeded();
    let expected = [
        (0, "forward", 4, 4),
        (0, "forward", 4, 2),
        (5, "backward", 2, 2),
        (5, "backward", 2, 1),
    ];
    let expected = expected.map(|(step, site, from, to)| (step, site.to_owned(), from, to));
    assert_eq!(recoveries(folder.path()), expected);
    let state = state(folder.path(), 6);
    assert_eq!(state["recoveries"].as_array().unwrap().len(), 4);
    assert_eq!(state["rung"]["micro_batch"], 1);
}

#[test]
fn a_refusal_while_a_resumed_run_is_launched_is_recorded_with_the_others() {
    let whole = trained("", "--inject forward:1");
    let folder = tempdir().unwrap();
    train(folder.path(), "", "--inject forward:1 --inject forward:13!");
    train(folder.path(), "", "--resume --inject launch:2").succeeded();
    assert_same_numbers(whole.path(), folder.path(), 10);
    let expected = [(0, "forward", 4, 4), (5, "launch", 4, 4)];
    let expected = expected.map(|(step, site, from, to)| (step, site.to_owned(), from, to));
    assert_eq!(recoveries(folder.path()), expected);
    let state = state(folder.path(), 10);
    assert_eq!(state["recoveries"].as_array().unwrap().len(), 2);
}

#[test]
fn refused_at_its_thousandth_step_a_resumed_run_repeats_and_skips_nothing() {
    const SMALL: &str = "model.n_layer=1 model.n_embd=8 model.block_size=8 train.max_iters=1006 \
        eval.eval_interval=1003 checkpoint.checkpoint_interval=1000";
    let whole = trained(SMALL, "--quiet");
    let resumed = |flags: &str| {
        let folder = tempdir().unwrap();
        // Steps 997 to 1,000 again: the checkpoint is that of step 996.
        let first = format!("{SMALL} checkpoint.checkpoint_interval=249 train.max_iters=999");
        train(folder.path(), &first, "--quiet --inject forward:1997!");
        assert_eq!(state(folder.path(), 996)["step"], 996);
        train(folder.path(), SMALL, &format!("--quiet --resume {flags}")).succeeded();
        folder
    };
    // Step number 1,000 counted from 0: four steps of two micro-steps each after the resume.
    let retried = resumed("--inject forward:10");
    assert_same_numbers(whole.path(), retried.path(), 1006);

    let descended = resumed("--inject forward:10 --inject backward:11");
    let switched = resumed_elsewhere(whole.path(), 1000, &format!("{SMALL} train.batch_size=2"));
    assert_same_numbers(switched.path(), descended.path(), 1006);

    for folder in [retried, descended] {
        let lines = metrics(folder.path());
        let steps = of_kind(&lines, "step", true);
        let numbers: Vec<u64> = steps
            .iter()
            .map(|line| line["step"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, Vec::from_iter(1..=1006));
        let state = state(folder.path(), 1006);
        assert_eq!(
            (&state["step"], &state["tokens_seen"]),
            (&1006.into(), &(1006 * 8 * 8).into())
        );
        assert!(
            recoveries(folder.path())
                .iter()
                .all(|(step, ..)| *step == 1000)
        );
    }
}
