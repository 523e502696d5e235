//! Cards older than the kernels, and newer.

use crate::process::tiny;
use crate::runs::{Place, assert_close, json_lines};

#[test]
fn a_card_from_before_turing_is_refused_by_name() {
    let Some(place) = Place::new() else { return };
    let v100 = "name = \"Tesla V100-SXM2-16GB\"\ncompute_capability = [7, 0]";
    let place = place.with_card(v100);
    for verb in ["train", "plan"] {
        let mut arguments = tiny("", &[]);
        arguments[0] = verb;
        place.taper(&arguments).refused(&[
            "Tesla V100-SXM2-16GB has compute capability 7.0",
            "7.5 and newer",
            "--set system.device=cpu",
        ]);
    }
    assert_eq!(place.contents(), []);
}

#[test]
fn a_card_newer_than_the_kernels_is_told_which_it_runs() {
    for (card, kernels) in [
        ("rtx3060", None),
        ("b200", Some("10.0")),
        ("rtx5090", Some("12.0")),
    ] {
        let Some(place) = Place::new() else { return };
        let mut command = place.command(&tiny("train.max_iters=1 gemm.autotune=off", &["--json"]));
        let run = crate::runs::outcome(command.env("VGPU_CARD", card)).succeeded();
        let startup = &json_lines(&run.stdout)[0];
        let choices = startup["choices"].as_array().unwrap();
        let told = choices.iter().find(|choice| choice["name"] == "kernels");
        assert_eq!(told.is_some(), kernels.is_some(), "{card}: {told:?}");
        if let (Some(told), Some(capability)) = (told, kernels) {
            assert_eq!(told["value"], "PTX for 8.0");
            let because = told["because"].as_str().unwrap();
            assert!(
                because.starts_with(&format!("compute capability {capability} is newer")),
                "{because}"
            );
        }
    }
}

/// Attention of heads of 64 channels takes more than 48 KiB on tensor cores.
#[test]
fn a_card_without_room_for_a_tile_trains_by_the_simple_kernels() {
    let settings = "model.n_embd=64 model.n_head=1 gemm.backend=ptx system.dtype=bfloat16";
    let losses = |place: Place| {
        place.train(settings, "").succeeded();
        place.losses()
    };
    let Some(place) = Place::new() else { return };
    let roomy = losses(place);
    let small = Place::new()
        .unwrap()
        .with_card("shared_per_block_optin = \"48KiB\"");
    let small = losses(small);
    assert_close(&small, &roomy, 1e-3);
    // Other kernels round otherwise.
    assert_ne!(small, roomy);
}
