//! A run that goes back to an earlier checkpoint.

use std::fs;

use crate::process::{checkpoint, command, tiny};
use crate::{ENDLESS, EVEN, held, steps, train, trained, wait_until};

#[test]
fn a_run_that_goes_back_keeps_what_it_saves_and_is_the_one_that_goes_on() {
    let folder = trained(&format!("{EVEN} train.max_iters=20 checkpoint.keep=10"));
    let folder = folder.path();
    let settings = format!("{EVEN} checkpoint.keep=2 train.max_iters=10");
    let back = train(folder, &settings, &["--resume", "out/ckpt-00000006"]).succeeded();
    assert!(
        back.stderr
            .contains("step 6 is not the checkpoint saved last"),
        "{}",
        back.stderr
    );
    assert!(
        back.stderr.contains("  checkpoint   out/ckpt-00000010\n"),
        "{}",
        back.stderr
    );
    assert!(
        back.stderr
            .contains("`out/ckpt-00000008` was a checkpoint of another branch")
    );
    assert_eq!(held(folder).0, [8, 10, 12, 14, 16, 18, 20]);
    assert_eq!(
        steps(&folder.join("out/metrics.jsonl")),
        (1..=10).collect::<Vec<_>>()
    );

    let settings = format!("{EVEN} checkpoint.keep=2 train.max_iters=11");
    let on = train(folder, &settings, &["--resume", "--quiet"]).succeeded();
    let expected =
        "warning: going on from step 10 of the branch saved last; `--resume PATH` goes on";
    assert!(
        on.stderr.contains(expected) && on.stderr.contains("`out/ckpt-00000020`"),
        "{}",
        on.stderr
    );
    assert_eq!(held(folder).0, [10, 11, 12, 14, 16, 18, 20]);

    // The branch that was left goes on, with its own curve.
    let settings = format!("{EVEN} checkpoint.keep=2 train.max_iters=22");
    train(
        folder,
        &settings,
        &["--resume", "out/ckpt-00000020", "--quiet"],
    )
    .succeeded();
    assert_eq!(held(folder).0, [10, 11, 20, 22]);
    assert_eq!(
        steps(&folder.join("out/metrics.jsonl")),
        (1..=22).collect::<Vec<_>>()
    );
    assert_eq!(
        steps(&folder.join("out/metrics.branch-1.jsonl")),
        (1..=11).collect::<Vec<_>>()
    );

    let whole = trained(&format!("{EVEN} train.max_iters=22"));
    let read = |folder| fs::read(checkpoint(folder, 22).join("model.safetensors")).unwrap();
    assert!(read(folder) == read(whole.path()));
}

#[test]
fn a_branch_killed_before_it_saved_leaves_the_other_its_curve() {
    let folder = trained(&format!("{EVEN} train.max_iters=8 checkpoint.keep=10"));
    let folder = folder.path();
    let resume = ["--resume", "out/ckpt-00000004"];
    let mut run = command(folder, &tiny(ENDLESS, &resume)).spawn().unwrap();
    wait_until(&mut run, || {
        let file = folder.join("out/metrics.jsonl");
        folder.join("out/metrics.branch-0.jsonl").exists()
            && fs::read_to_string(file).is_ok_and(|text| text.contains("\"step\":5,"))
    });
    run.kill().unwrap();
    run.wait().unwrap();
    train(
        folder,
        &format!("{EVEN} train.max_iters=10"),
        &["--resume", "--quiet"],
    )
    .succeeded();
    assert_eq!(
        steps(&folder.join("out/metrics.jsonl")),
        (1..=10).collect::<Vec<_>>()
    );
    assert_eq!(held(folder).1, ["metrics.jsonl"]);
}
