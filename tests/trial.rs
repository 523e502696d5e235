//! `taper plan --allocate`: the launch is taken as a run would take it, and released.

use std::process::Command;

use serde_json::Value;

fn plan(more: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_taper"))
        .args(["plan", "--config", "quickstart.toml", "--allocate"])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn what_is_held_is_what_was_planned() {
    for job in ["eval.eval_only=false", "eval.eval_only=true"] {
        let output = plan(&["--json", "--memory-limit", "64MiB", "--set", job]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let allocated = &report["allocated"];
        assert_eq!(allocated["held_bytes"], report["launch"]["bytes"]);
        assert_eq!(
            allocated["rung"]["micro_batch"],
            report["launch"]["micro_batch"]
        );
        assert_eq!(allocated["recoveries"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn a_card_that_is_not_here_cannot_be_tried() {
    let output = plan(&["--device", "rtx3060"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains("needs a device of this machine, and `NVIDIA GeForce RTX 3060` is none"),
        "{stderr}"
    );
    assert!(stderr.contains("hint: use `--device cpu`"), "{stderr}");
}
