//! The seam itself: what `--inject` takes.

use tempfile::tempdir;

use taper::faults::{Fault, Injection, Site};

use crate::files::contents;
use crate::process::{taper, tiny};

#[test]
fn an_injection_is_a_site_its_passes_and_a_fault() {
    let cases = [
        ("launch:1", Site::Launch, (1, 1), Fault::OutOfMemory),
        ("eval-only:2-5", Site::EvalOnly, (2, 5), Fault::OutOfMemory),
        (
            "forward:3-",
            Site::Forward,
            (3, u64::MAX),
            Fault::OutOfMemory,
        ),
        ("backward:7!", Site::Backward, (7, 7), Fault::Device),
        (
            "checkpoint:1-!",
            Site::Checkpoint,
            (1, u64::MAX),
            Fault::Device,
        ),
    ];
    for (text, site, passes, fault) in cases {
        let expected = Injection {
            site,
            passes,
            fault,
        };
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    for site in Site::ALL {
        let parsed: Injection = format!("{site}:1").parse().unwrap();
        assert_eq!(parsed.site, site);
    }
}

#[test]
fn anything_else_is_refused_with_what_was_expected() {
    let rubbish = [
        "",
        "rubbish",
        "forward",
        "forward:",
        "forward:x",
        "forward:1-x",
        "forward:-1",
        "forward:1!!",
        "forward:!",
        ":1",
        "forwards:1",
        "Forward:1",
        "forward:1.5",
        "forward:1-2-3",
        "forward: 1",
        "forward:99999999999999999999",
        "eval_only:1",
        // Passes are counted from 1, and these would never fail.
        "forward:0",
        "forward:0-4",
        "forward:4-3",
    ];
    for text in rubbish {
        let message = text.parse::<Injection>().unwrap_err();
        assert_eq!(message, format!("`{text}` is not SITE:FIRST[-[LAST]][!]"));
    }
    let folder = tempdir().unwrap();
    for text in ["rubbish", "forward:0", "forward:4-3!"] {
        let train = tiny("", &["--inject", text]);
        let sample = vec!["sample", "--checkpoint", "out", "--inject", text];
        for arguments in [train, sample] {
            let refused = taper(folder.path(), &arguments);
            assert_eq!(refused.code, Some(1), "{}", refused.stderr);
            assert!(
                refused.stderr.contains("SITE:FIRST[-[LAST]][!]"),
                "{}",
                refused.stderr
            );
        }
    }
    assert!(contents(folder.path()).is_empty());
}

#[test]
fn the_seam_is_not_in_the_help() {
    let folder = tempdir().unwrap();
    for verb in ["train", "sample"] {
        let help = taper(folder.path(), &[verb, "--help"]).succeeded();
        assert!(!help.stdout.contains("inject"), "{}", help.stdout);
    }
}
