//! The scenario that taper was founded on, on a tiny card: other processes hold most of it, and the logits of a
//! step would not even fit into what they leave.

use serde_json::Value;

use crate::process::Outcome;
use crate::runs::{Place, assert_close, json_lines};

const SEQUENCES: u64 = 8;
const BLOCK_SIZE: u64 = 32;
const VOCABULARY: u64 = 18_432;

const MIB: u64 = 1 << 20;

/// 512 MiB, of which the context takes 150 MiB and others so much that 49.5 MiB are left.
const FREE_BYTES: u64 = 99 * MIB / 2;
const CARD: &str = "total_bytes = \"512MiB\"\nused_bytes = \"312.5MiB\"";

/// What of it a plan keeps for code that is loaded later: a sixteenth of the card.
const CODE_BYTES: u64 = 32 * MIB;

fn settings(dtype: &str, steps: u64) -> String {
    format!(
        "model.n_head=1 model.n_embd=16 model.block_size={BLOCK_SIZE} model.vocab_size={VOCABULARY} \
         model.dropout=0.0 train.sequences_per_step={SEQUENCES} train.max_iters={steps} system.dtype={dtype}"
    )
}

fn startup(outcome: &Outcome) -> Value {
    let lines = json_lines(&outcome.stdout);
    assert_eq!(lines[0]["kind"], "startup");
    lines[0].clone()
}

/// On the crowded card and on one that is large and empty: their losses, and the micro-batch of the former.
fn trained(dtype: &str, steps: u64) -> Option<([Vec<f64>; 2], u64)> {
    let (crowded, empty) = (Place::new()?.with_card(CARD), Place::new()?);
    let settings = settings(dtype, steps);
    let plan = crowded.plan(&settings);
    assert_eq!(plan["budget_bytes"], FREE_BYTES);
    let chosen = &plan["ladder"][plan["chosen"].as_u64().unwrap() as usize];
    let micro_batch = chosen["micro_batch"].as_u64().unwrap();
    assert!(chosen["bytes"].as_u64().unwrap() <= FREE_BYTES);
    assert!(plan["ladder"][0]["bytes"].as_u64().unwrap() > FREE_BYTES);
    assert!(micro_batch < SEQUENCES);
    assert_eq!(empty.plan(&settings)["launch"]["micro_batch"], SEQUENCES);

    let [small, whole] = std::thread::scope(|scope| {
        let runs = [&crowded, &empty];
        let runs = runs.map(|place| scope.spawn(|| place.train(&settings, "--json").succeeded()));
        runs.map(|run| run.join().unwrap())
    });
    assert_eq!(startup(&small)["micro_batch"], micro_batch);
    assert_eq!(startup(&whole)["micro_batch"], SEQUENCES);
    // It fitted as planned: nothing was refused.
    assert_eq!(crowded.recoveries(), []);
    let losses = [crowded.losses(), empty.losses()];
    assert_eq!(losses[0].len() as u64, steps + 2);
    Some((losses, micro_batch))
}

#[test]
fn logits_larger_than_what_others_leave_train_in_smaller_micro_batches_with_the_same_losses() {
    let logits_bytes = SEQUENCES * BLOCK_SIZE * VOCABULARY * size_of::<f32>() as u64;
    assert!(logits_bytes > FREE_BYTES - CODE_BYTES);
    let Some(([small, whole], _)) = trained("float32", 20) else {
        return;
    };
    assert_close(&small, &whole, 1e-6);
    assert!(whole[19] < whole[0] - 0.3, "nothing was learnt: {whole:?}");
}

#[test]
fn a_crowded_card_trains_in_bf16_with_the_losses_of_an_empty_one() {
    let Some(([small, whole], _)) = trained("bfloat16", 5) else {
        return;
    };
    // What rounds differently is the sum over micro-batches, in fp32.
    assert_close(&small, &whole, 1e-5);
}

#[test]
fn code_that_is_loaded_when_it_is_first_used_has_room_in_the_plan() {
    // Half a MiB for every kernel, and for every function of a library: some fifty of them.
    let lazy = format!("{CARD}\nlazy_bytes = \"512KiB\"");
    let Some(place) = Place::new() else { return };
    let (place, settings) = (place.with_card(&lazy), settings("bfloat16", 3));
    let run = place.train(&settings, "--json").succeeded();
    assert!(startup(&run)["micro_batch"].as_u64().unwrap() < SEQUENCES);
    assert_eq!(place.recoveries(), []);
}

#[test]
fn what_does_not_fit_at_all_is_refused_before_anything_is_written() {
    let Some(place) = Place::new() else { return };
    let place = place.with_card("total_bytes = \"512MiB\"\nused_bytes = \"315MiB\"");
    let settings = settings("float32", 20);
    let refused = place.train(&settings, "");
    refused.refused(&["the smallest launch needs", "47.0 MiB may be used", "fits"]);
    assert_eq!(place.contents(), []);
}
