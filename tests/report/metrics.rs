//! The metrics file across restarts.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;
use taper::report::{MetricsLog, ReportOptions, Reporter, Warning};

use crate::{eval, parsed, step};

/// A reporter that only writes metrics.
fn recording(log: MetricsLog) -> Reporter {
    let options = ReportOptions::default();
    let mut reporter = Reporter::with_outputs(options, Box::new(io::sink()), Box::new(io::sink()));
    reporter.record_in(log);
    reporter
}

fn open(path: &Path, bytes: u64) -> (MetricsLog, Option<Warning>) {
    MetricsLog::open_at(path, bytes).unwrap()
}

#[test]
fn a_resumed_run_continues_the_metrics_without_a_gap_or_a_duplicate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/metrics.jsonl");

    let mut first = recording(open(&path, 0).0);
    first.step(&step(1, 4.0, 10));
    first.step(&step(2, 3.5, 10));
    first.eval(&eval(2, 3.4, 3.6), true);
    let recorded = first.metrics_bytes().unwrap();
    let at_checkpoint = fs::read_to_string(&path).unwrap();
    assert_eq!(recorded, at_checkpoint.len() as u64);
    first.step(&step(3, 3.2, 10)); // after the checkpoint, before the kill
    drop(first);

    let (log, warning) = open(&path, recorded);
    assert_eq!(warning, None);
    let mut second = recording(log);
    second.step(&step(3, 3.2, 11));
    second.step(&step(4, f64::NAN, 11));
    assert_eq!(
        second.metrics_bytes().unwrap(),
        fs::metadata(&path).unwrap().len()
    );
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(&at_checkpoint));
    let lines = parsed(&text);
    let steps: Vec<_> = lines
        .iter()
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2, 2, 3, 4]);
    assert_eq!(lines[3]["ms"], 11.0);
    assert_eq!(lines[4]["loss"], Value::Null);
}

#[test]
fn a_new_run_starts_an_empty_metrics_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    fs::write(&path, "{\"kind\":\"step\"}\n").unwrap();
    let (_, warning) = open(&path, 0);
    assert_eq!(warning, None);
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn a_missing_short_or_torn_metrics_file_is_used_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let cut = |found_bytes| {
        Some(Warning::MetricsCut {
            path: path.clone(),
            expected_bytes: 100,
            found_bytes,
        })
    };
    assert_eq!(open(&path, 100).1, cut(0));
    for (written, kept) in [
        ("{\"a\":1}\n{\"b\":2}\n", 16),
        ("{\"a\":1}\n{\"b\":", 8),
        ("{\"a\":", 0),
    ] {
        fs::write(&path, written).unwrap();
        let (log, warning) = open(&path, 100);
        assert_eq!(warning, cut(kept), "{written:?}");
        recording(log).step(&step(5, 3.0, 10));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text[..kept as usize], written[..kept as usize]);
        assert_eq!(parsed(&text[kept as usize..]).len(), 1);
    }
    assert_eq!(
        cut(16).unwrap().to_string(),
        format!(
            "`{}` holds 16 B of the 100 B written before the checkpoint: the curve has a gap, \
             the training has none",
            path.display()
        )
    );
}
