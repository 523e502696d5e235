//! A launch on a GPU: probed, planned, allocated, shrunk when memory is gone, and reported.
//!
//! The cards are virtual ones: `scripts/vgpu rtx3060 -- cargo test --release --features cuda --test cuda_launch`.
#![cfg(feature = "cuda")]

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

/// A model whose launch fills most of 64 MiB.
const MODEL: &str = "quickstart.toml";

/// `taper plan --device cuda --allocate` on a card like this one, with these lines in its file; nothing
/// where there is no virtual GPU.
fn on_card(like: &str, lines: &str, more: &[&str]) -> Option<Output> {
    if std::env::var_os("VGPU_CARD").is_none() {
        eprintln!("skipped: this test chooses its card, use scripts/vgpu");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let card = folder.path().join("card.toml");
    fs::write(&card, format!("like = \"{like}\"\n{lines}\n")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_taper"))
        .args(["plan", "--config", MODEL, "--device", "cuda", "--allocate"])
        .args(more)
        .env("VGPU_CARD", card)
        .output()
        .unwrap();
    Some(output)
}

/// The report of a launch that was granted something.
fn granted(like: &str, lines: &str) -> Option<Value> {
    let output = on_card(like, lines, &["--json"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Whether a launch of the ladder, which has more keys, is of this rung.
fn is_of(launch: &Value, rung: &Value) -> bool {
    let mut keys = rung.as_object().unwrap().iter();
    keys.all(|(key, value)| launch[key] == *value)
}

fn bytes(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// What the plan counts and does not allocate.
fn reserve_bytes(report: &Value) -> u64 {
    let rows = report["memory"].as_array().unwrap();
    let reserve = rows.iter().filter(|row| row["group"] == "reserve");
    reserve.map(|row| bytes(&row["bytes"])).sum()
}

#[test]
fn the_launch_takes_from_the_card_what_was_planned() {
    for card in ["rtx3060", "t4", "tiny-64MiB"] {
        let Some(report) = granted(card, "") else {
            return;
        };
        let allocated = &report["allocated"];
        assert_eq!(allocated["recoveries"].as_array().unwrap().len(), 0);
        assert!(is_of(&report["launch"], &allocated["rung"]));
        assert_eq!(allocated["held_bytes"], report["launch"]["bytes"]);
        // To the byte, but for units of 512 that every buffer is rounded up to, and the pool's last block.
        let taken = bytes(&report["device"]["available_bytes"]) - bytes(&allocated["left_bytes"]);
        let planned = bytes(&report["launch"]["bytes"]) - reserve_bytes(&report);
        let buffers = report["memory"].as_array().unwrap().len() as u64;
        assert!(
            (planned..=planned + 512 * buffers + (2 << 20)).contains(&taken),
            "{taken} for {planned}"
        );
    }
}

#[test]
fn when_others_take_memory_after_the_plan_the_launch_shrinks_until_it_fits() {
    let growth = "growth = [{ after_allocations = 40, bytes = \"34MiB\" }]";
    let Some(report) = granted("tiny-64MiB", growth) else {
        return;
    };
    let allocated = &report["allocated"];
    let ladder = report["ladder"].as_array().unwrap();
    let place = |rung: &Value| {
        ladder
            .iter()
            .position(|launch| is_of(launch, rung))
            .unwrap()
    };
    let recoveries = allocated["recoveries"].as_array().unwrap();
    // At every rung once more, then the next one, and nothing is left out.
    let mut at = bytes(&report["chosen"]) as usize;
    for (index, recovery) in recoveries.iter().enumerate() {
        assert_eq!(recovery["site"], "launch");
        assert_eq!(place(&recovery["from"]), at);
        at += index % 2;
        assert_eq!(place(&recovery["to"]), at);
    }
    assert!(recoveries.len() >= 2, "{recoveries:?}");
    assert!(is_of(&ladder[at], &allocated["rung"]));
    let held = bytes(&allocated["held_bytes"]) - reserve_bytes(&report);
    assert!(held + bytes(&allocated["left_bytes"]) <= (64 - 28) << 20);
}

#[test]
fn one_refusal_is_only_tried_again() {
    let Some(report) = granted("rtx3060", "fail = [\"alloc=9\"]") else {
        return;
    };
    let recoveries = report["allocated"]["recoveries"].as_array().unwrap();
    assert_eq!(recoveries.len(), 1, "{recoveries:?}");
    assert_eq!(recoveries[0]["from"], recoveries[0]["to"]);
    assert!(is_of(&report["launch"], &report["allocated"]["rung"]));
}

#[test]
fn a_card_that_grants_nothing_ends_in_an_error_that_says_so() {
    let Some(output) = on_card("rtx3060", "fail = [\"alloc=2+\"]", &[]) else {
        return;
    };
    assert_refused(&output, &["out of memory at launch", "hint:"]);
}

#[test]
fn a_library_that_does_not_start_is_named() {
    let Some(output) = on_card("rtx3060", "fail = [\"cublasCreate_v2\"]", &[]) else {
        return;
    };
    assert_refused(
        &output,
        &["a library of CUDA does not start on GPU 0", "hint:"],
    );
}

/// Exit code 1, and each of these words on stderr.
fn assert_refused(output: &Output, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    assert_eq!(output.status.code(), Some(1), "{stderr}");
}
