//! Text does not depend on what memory was refused, or on which activations are kept.

use std::path::Path;

use crate::files::trained;
use crate::process::{Outcome, taper};

fn sample(folder: &Path, flags: &[&str]) -> Outcome {
    // Longer than the block of 16, in two texts.
    let mut arguments = vec!["sample", "--checkpoint", "out", "--max-new-tokens", "24"];
    if !flags.contains(&"--num-samples") {
        arguments.extend(["--num-samples", "2"]);
    }
    arguments.extend(["--prompt", "let x = "]);
    arguments.extend(flags);
    taper(folder, &arguments)
}

#[test]
fn refusals_do_not_change_the_text_and_are_told() {
    let folder = trained("train.max_iters=5", "--quiet");
    let whole = sample(folder.path(), &[]).succeeded();
    assert_eq!(whole.stderr, "");
    for (injections, refusals) in [
        (vec!["sampling:1"], 1),
        (vec!["sampling:7"], 1),
        // Down to one text at a time, at once, in the middle and at the end.
        (vec!["sampling:1-2"], 2),
        (vec!["sampling:9-10"], 2),
        (vec!["sampling:24-25"], 2),
        // Down to the rung without keys and values, at once or for the second text.
        (vec!["sampling:1-4"], 4),
        (vec!["sampling:9-12"], 4),
        (vec!["sampling:9-10", "sampling:30-31"], 4),
        (vec!["sampling:5", "sampling:20"], 2),
        (vec!["launch:1"], 1),
        (vec!["launch:6-7"], 2),
    ] {
        let flags: Vec<&str> = injections.iter().flat_map(|&i| ["--inject", i]).collect();
        let refused = sample(folder.path(), &flags).succeeded();
        assert_eq!(refused.stdout, whole.stdout, "{injections:?}");
        let warnings = refused
            .stderr
            .lines()
            .filter(|line| line.starts_with("warning: out of memory at "));
        assert_eq!(
            warnings.count(),
            refusals,
            "{injections:?}: {}",
            refused.stderr
        );
    }
}

#[test]
fn a_batch_that_shrinks_again_and_again_writes_the_same_texts_in_the_same_order() {
    let folder = trained("train.max_iters=5", "--quiet");
    let seven = ["--num-samples", "7"];
    let whole = sample(folder.path(), &seven).succeeded();
    for (injection, told) in [
        ("sampling:3-4", "going on with 3 texts at a time"),
        ("sampling:3-6", "going on with 1 texts at a time"),
        ("sampling:3-8", "without keeping keys and values"),
    ] {
        let refused = sample(
            folder.path(),
            &[&seven[..], &["--inject", injection]].concat(),
        );
        let refused = refused.succeeded();
        assert_eq!(refused.stdout, whole.stdout, "{injection}");
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
    }
}

#[test]
fn sampling_that_is_refused_altogether_says_what_to_do() {
    let folder = trained("train.max_iters=5", "--quiet");
    for flags in [
        ["--inject", "sampling:1-"],
        ["--inject", "launch:1-"],
        ["--memory-limit", "1MiB"],
    ] {
        let refused = sample(folder.path(), &flags);
        let stderr = refused.stderr;
        assert_eq!(refused.code, Some(1), "{stderr}");
        assert!(stderr.contains("error: out of memory at "), "{stderr}");
        assert!(stderr.contains("hint: "), "{stderr}");
        assert!(
            !stderr.contains("--resume"),
            "`taper sample` has no `--resume`: {stderr}"
        );
    }
}
