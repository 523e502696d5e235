//! `taper sample` on a card.

use crate::process::Outcome;
use crate::runs::Place;

fn sample(place: &Place, flags: &[&str]) -> Outcome {
    // Longer than the block of 16: the window moves.
    let mut arguments = vec!["sample", "--checkpoint", "out", "--max-new-tokens", "40"];
    arguments.extend(["--num-samples", "2", "--prompt", "let x = "]);
    arguments.extend(flags);
    place.taper(&arguments)
}

#[test]
fn a_gpu_writes_the_text_of_the_cpu() {
    let Some(place) = Place::new() else { return };
    let learns =
        "system.device=cpu train.max_iters=60 optimizer.learning_rate=1e-2 model.dropout=0";
    place.train(learns, "--quiet").succeeded();
    for flags in [["--temperature", "0"], ["--seed", "3"]] {
        let cpu = sample(&place, &[&flags[..], &["--device", "cpu"]].concat()).succeeded();
        for device in ["auto", "cuda"] {
            let gpu = sample(&place, &[&flags[..], &["--device", device]].concat()).succeeded();
            assert_eq!(gpu.stdout, cpu.stdout, "{flags:?} on {device}");
            assert_eq!(gpu.stderr, "");
        }
    }
}

#[test]
fn memory_that_a_card_refuses_costs_keys_and_values_and_no_text() {
    let Some(place) = Place::new() else { return };
    place.train("system.device=cpu", "--quiet").succeeded();
    let whole = sample(&place, &[]).succeeded();
    // Down to one text at a time, and to none with keys and values.
    for (injection, refusals) in [("sampling:9-10", 2), ("sampling:9-12", 4)] {
        let refused = sample(&place, &["--inject", injection]).succeeded();
        assert_eq!(refused.stdout, whole.stdout);
        let warnings = refused
            .stderr
            .lines()
            .filter(|line| line.starts_with("warning: "));
        assert_eq!(warnings.count(), refusals, "{}", refused.stderr);
    }
    let small = ["--memory-limit", "64KiB", "--device", "cuda"];
    sample(&place, &small).refused(&["out of memory", "64.0 KiB"]);
    sample(&place, &["--device", "cuda:7"]).refused(&["7"]);
    let unknown = sample(&place, &["--device", "tpu"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("`cuda:1`"));
}

/// As `train` does not: a text can be written beside a training that fills the card.
#[test]
fn a_card_that_is_full_is_passed_over_with_a_note() {
    let Some(place) = Place::new() else { return };
    place.train("system.device=cpu", "--quiet").succeeded();
    let cpu = sample(&place, &["--device", "cpu"]).succeeded();
    let full = place.with_card("total_bytes = \"512MiB\"\nused_bytes = \"480MiB\"");
    let noted = sample(&full, &[]).succeeded();
    assert_eq!(noted.stdout, cpu.stdout);
    assert!(
        noted.stderr.starts_with("note: on the CPU, "),
        "{}",
        noted.stderr
    );
    sample(&full, &["--device", "cuda"]).refused(&["memory"]);
}
