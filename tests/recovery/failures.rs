//! A failure that is no lack of memory ends the run at once, and costs nothing that was saved.

use tempfile::tempdir;

use crate::files::{assert_same_numbers, checkpoints, contents, recoveries, train, trained};
use crate::process::{Outcome, taper};

#[track_caller]
fn assert_failed(outcome: Outcome, site: &str) {
    let stderr = outcome.stderr;
    assert_eq!(outcome.code, Some(2), "{stderr}");
    let message = format!("error: the device failed at {site}: ");
    assert!(
        stderr.lines().any(|line| line.starts_with(&message)),
        "{stderr}"
    );
    assert!(
        stderr.contains("hint: look at the device with `taper doctor`"),
        "{stderr}"
    );
    for recovery in [
        "warning: step",
        "trying once more",
        "going on with",
        "out of memory",
    ] {
        assert!(!stderr.contains(recovery), "{stderr}");
    }
}

#[test]
fn a_failure_at_any_site_ends_the_run_and_it_resumes_exactly() {
    let whole = trained("", "");
    for (site, pass, newest) in [
        ("forward", 12, 5),
        ("backward", 12, 5),
        ("eval", 5, 5),
        ("checkpoint", 2, 4),
    ] {
        let folder = tempdir().unwrap();
        let run = train(folder.path(), "", &format!("--inject {site}:{pass}!"));
        assert_failed(run, site);
        assert!(recoveries(folder.path()).is_empty());
        let saved = checkpoints(folder.path());
        let saved_in = |step: u64| {
            saved
                .keys()
                .any(|path| path.to_string_lossy().contains(&format!("ckpt-{step:08}")))
        };
        assert!(saved_in(newest) && (newest + 1..=10).all(|step| !saved_in(step)));

        // Failing once more, where the resumed run passes first.
        let first = if site == "checkpoint" {
            "checkpoint:1!"
        } else {
            "launch:1!"
        };
        let again = train(folder.path(), "", &format!("--resume --inject {first}"));
        assert_failed(again, first.split(':').next().unwrap());
        assert!(saved == checkpoints(folder.path()));

        train(folder.path(), "", "--resume").succeeded();
        assert_same_numbers(whole.path(), folder.path(), 10);
    }
}

#[test]
fn a_failure_at_launch_leaves_no_files() {
    for pass in [1, 4, 5, 30] {
        let folder = tempdir().unwrap();
        assert_failed(
            train(folder.path(), "", &format!("--inject launch:{pass}!")),
            "launch",
        );
        assert!(contents(folder.path()).is_empty());
    }
}

#[test]
fn a_failure_after_a_refusal_is_not_taken_for_another() {
    let folder = tempdir().unwrap();
    let run = train(folder.path(), "", "--inject forward:1 --inject forward:2!");
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(
        run.stderr.contains("error: the device failed at forward"),
        "{}",
        run.stderr
    );
    assert_eq!(recoveries(folder.path()).len(), 1);
}

#[test]
fn a_failure_of_an_evaluation_or_of_sampling_changes_nothing() {
    let folder = trained("train.max_iters=5", "");
    let before = contents(folder.path());
    for pass in [1, 2] {
        let flags = format!("--resume --eval-only --inject eval-only:{pass}!");
        let run = train(folder.path(), "", &flags);
        assert_eq!(run.stdout, "");
        assert_failed(run, "eval-only");
    }
    for pass in [1, 4] {
        let injection = format!("sampling:{pass}!");
        let flags = ["sample", "--checkpoint", "out", "--inject", &injection];
        assert_failed(taper(folder.path(), &flags), "sampling");
    }
    assert!(before == contents(folder.path()));
}
