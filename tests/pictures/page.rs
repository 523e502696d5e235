//! The page of a run, as text.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use crate::fixture::{eventful, plain};
use crate::process::{taper, tiny};

/// The JSON that the page's script reads.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    let (json, _) = rest.split_once("</script>").unwrap();
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_page_says_everything_that_is_known_of_the_run() {
    let folder = tempdir().unwrap();
    eventful(folder.path(), "run", 6e-4);
    let reported = taper(folder.path(), &["report", "run"]).succeeded();
    assert_eq!(reported.stdout, "run/report.html\n");
    let page = fs::read_to_string(folder.path().join("run/report.html")).unwrap();
    for text in [
        "<title>run</title>",
        "GPT-2 with 0.8M parameters",
        "a &lt;CPU&gt; &amp; its cores",
        "<dd>3.2000</dd><dd>perplexity 24.53, at step 60</dd>",
        "<dd>123k</dd><dd>4 % of the data</dd>",
        "<dd>4,096</dd>",
        "<dd>30s</dd>",
        "<code>optimizer.learning_rate</code>",
        "<code>6e-4</code>",
        "95.4 MiB planned: 16 x 1 sequences of 128 tokens a step",
        "<th scope=\"row\">activations</th>",
        "60.0 %",
        "the CPU trains in float32",
        "went on with micro-batch 8",
        "cuBLASLt &lt;refused&gt; it",
        "a disk is nearly full",
        "the z-score of loss is 9.5, 5 is allowed",
        "from ckpt-00000040, by taper 0.1.0",
        "There is none in the run's folder.",
        "There are none: the run has no checkpoint.",
        "3 evaluations as a table",
    ] {
        assert!(page.contains(text), "`{text}` is not in the page");
    }
}

#[test]
fn names_and_values_cannot_become_markup() {
    let folder = tempdir().unwrap();
    let name = "<img src=x onerror=alert(1)>";
    eventful(folder.path(), name, 1e-3);
    taper(folder.path(), &["report", name, "--out", "x.html"]).succeeded();
    let page = fs::read_to_string(folder.path().join("x.html")).unwrap();
    assert!(!page.contains("<img"));
    assert!(!page.contains("<script>alert"));
    assert_eq!(page.matches("<script").count(), 3);
    assert_eq!(page.matches("</script").count(), 3);
}

#[test]
fn a_page_forbids_requests_and_names_its_scripts() {
    let folder = tempdir().unwrap();
    plain(folder.path(), "run", 3);
    taper(folder.path(), &["report", "run"]).succeeded();
    let page = fs::read_to_string(folder.path().join("run/report.html")).unwrap();
    let (_, policy) = page
        .split_once("Content-Security-Policy\" content=\"")
        .unwrap();
    let (policy, _) = policy.split_once('"').unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(
        !policy.contains("'unsafe-eval'") && !policy.contains("http"),
        "{policy}"
    );
    assert!(page.len() < 200_000, "{} bytes", page.len());
}

#[test]
fn curves_of_a_page_have_gaps_and_every_axis() {
    let folder = tempdir().unwrap();
    eventful(folder.path(), "run", 1e-3);
    taper(folder.path(), &["report", "run"]).succeeded();
    let data = data(&fs::read_to_string(folder.path().join("run/report.html")).unwrap());
    let axes: Vec<&str> = data["axes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|axis| axis["id"].as_str().unwrap())
        .collect();
    assert_eq!(axes, ["step", "tokens", "time"]);
    assert_eq!(data["steps"]["step"].as_array().unwrap().len(), 60);
    assert_eq!(data["steps"]["tokens"][59], 122_880);
    // The day between the two processes is left out.
    assert_eq!(data["steps"]["time"][59], 30);
    let loss = &data["panels"][0]["series"];
    assert_eq!(
        (&loss[0]["name"], &loss[1]["name"]),
        (&"training".into(), &"validation".into())
    );
    assert_eq!(loss[0]["raw"][44], Value::Null);
    assert_eq!(loss[0]["smooth"][44], Value::Null);
    assert!(loss[0]["raw"][43].is_number());
    assert_eq!(data["evals"]["step"], serde_json::json!([20, 40, 60]));
    let kinds: Vec<&str> = data["marks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mark| mark["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "memory refused",
            "choice changed",
            "warning",
            "resumed",
            "update skipped"
        ]
    );
}

#[test]
fn a_long_run_makes_a_page_of_bounded_size() {
    let folder = tempdir().unwrap();
    plain(folder.path(), "run", 40_000);
    taper(folder.path(), &["report", "run"]).succeeded();
    let page = fs::read_to_string(folder.path().join("run/report.html")).unwrap();
    let points = data(&page)["steps"]["step"].as_array().unwrap().len();
    assert!((400..5_000).contains(&points), "{points} points");
    assert!(page.len() < 400_000, "{} bytes", page.len());
}

#[test]
fn a_trained_run_has_its_checkpoints_and_samples_on_the_page() {
    let folder = tempdir().unwrap();
    taper(folder.path(), &tiny("", &[])).succeeded();
    taper(folder.path(), &["report", "out", "--samples", "2"]).succeeded();
    let page = fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    for text in [
        "<code>ckpt-00000010</code>",
        "newest</span>",
        "Text that <code>ckpt-",
        "<figcaption>Sample 2</figcaption><pre>",
    ] {
        assert!(page.contains(text), "`{text}` is not in the page");
    }
}

#[test]
fn samples_that_cannot_be_made_are_told_and_the_page_is_written() {
    let folder = tempdir().unwrap();
    let run = plain(folder.path(), "run", 3);
    fs::create_dir(run.join("ckpt-00000003")).unwrap();
    let reported = taper(folder.path(), &["report", "run"]).succeeded();
    assert!(
        reported.stderr.contains("note: no samples: "),
        "{}",
        reported.stderr
    );
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("There are none: "));
}

#[test]
fn a_page_of_its_own_is_replaced_and_a_file_of_another_is_not() {
    let folder = tempdir().unwrap();
    let run = plain(folder.path(), "run", 3);
    taper(folder.path(), &["report", "run"]).succeeded();
    taper(folder.path(), &["report", "run"]).succeeded();
    fs::write(run.join("report.html"), "<html>mine</html>").unwrap();
    taper(folder.path(), &["report", "run"]).refused(&["report.html", "taper did not make it"]);
}
