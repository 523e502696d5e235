//! When nothing fits: what is needed, what there is, and edits that really help.

use proptest::prelude::*;
use taper::config::Config;
use taper::memory::Group;
use taper::plan::Refusal;
use taper::terms::ModelDims;

use super::{Asked, GIB, card, cards, config, cpu, on_card, shown, with_free};

/// Takes an edit as the user would: more `--set`s and flags on the same command.
fn edited(source: &str, sets: &str, asked: &Asked, edit: &str) -> Asked {
    let mut sets: Vec<String> = sets.split_whitespace().map(Into::into).collect();
    let mut words = edit.split_whitespace();
    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
        sets.push(match flag {
            "--set" => value.to_owned(),
            "--memory-limit" => format!("system.memory_limit={value}"),
            other => panic!("{other} in {edit}"),
        });
    }
    let config =
        Config::load(source, &sets).unwrap_or_else(|error| panic!("{}", shown(&error.into())));
    Asked {
        config,
        ..asked.clone()
    }
}

/// Every edit fits when it is made, and takes what it says.
#[track_caller]
fn assert_edits_fit(source: &str, sets: &str, asked: &Asked) -> Refusal {
    let refusal = asked.refusal();
    assert!(refusal.needed > refusal.available);
    assert!(refusal.edits.len() <= 3);
    for edit in &refusal.edits {
        let plan = edited(source, sets, asked, &edit.edit).plan();
        let smallest = plan.ladder.last().unwrap();
        assert_eq!(smallest.bytes, edit.bytes, "{}", edit.edit);
        assert!(plan.launch().bytes <= plan.budget.value.unwrap());
    }
    refusal
}

fn edits(refusal: &Refusal) -> Vec<&str> {
    refusal
        .edits
        .iter()
        .map(|edit| edit.edit.as_str())
        .collect()
}

#[test]
fn a_model_too_large_for_the_card_is_refused_with_models_that_fit() {
    let asked = on_card(config("gpt2-xl", ""), "rtx3060");
    assert_edits_fit("gpt2-xl", "", &asked);
    insta::assert_snapshot!(shown(&asked.try_plan().unwrap_err()), @r"
    error: the smallest launch needs 26.77 GiB, 11.69 GiB may be used (free on the card); largest: moments 11.60 GiB, master weights 5.80 GiB, gradients 5.80 GiB
    hint: 16 bytes x 1.56 B parameters = 23.20 GiB (fp32 weights, gradients, two moments), and 2.90 GiB of weights in 16 bits stand before any batch
    presets that fit here: `gpt2-medium`, `openwebtext`
    cards that this fits on: `a100-40`, `a100-80`, `l40s`, `h100`, `h200`, `b200`, `rtx5090`, `gb10`
    each of these fits:
      `--set model.n_layer=18` needs 11.23 GiB
      `--set model.n_embd=1000` needs 11.11 GiB
      `--set model.n_layer=30 --set model.n_embd=1000` needs 7.45 GiB
    ");
}

#[test]
fn a_limit_that_is_too_low_is_refused_with_the_one_that_is_needed() {
    let sets = "system.memory_limit=1GiB";
    let asked = on_card(config("openwebtext", sets), "rtx3060");
    assert_edits_fit("openwebtext", sets, &asked);
    insta::assert_snapshot!(shown(&asked.try_plan().unwrap_err()), @r"
    error: the smallest launch needs 2.59 GiB, 1.00 GiB may be used (the memory limit that was set); largest: moments 948.9 MiB, master weights 474.4 MiB, gradients 474.4 MiB
    hint: each of these fits:
      `--memory-limit 2653MiB` needs 2.59 GiB
      `--set model.n_embd=288` needs 941.5 MiB
      `--set model.n_layer=6 --set model.n_embd=384` needs 1005.6 MiB
    ");
}

#[test]
fn the_three_largest_consumers_are_those_of_the_smallest_launch() {
    let asked = on_card(config("gpt2-xl", ""), "rtx4090");
    let refusal = asked.refusal();
    let groups: Vec<Group> = refusal.largest.iter().map(|(group, _)| *group).collect();
    assert_eq!(groups[0], Group::Moments);
    assert_eq!(groups.len(), 3);
    assert!(refusal.largest.is_sorted_by(|a, b| a.1 >= b.1));
    // Two fp32 moments of every parameter.
    assert_eq!(refusal.largest[0].1, 8 * 1_556_840_000);
    assert_eq!(refusal.available, card("rtx4090").available_bytes.unwrap());
}

#[test]
fn a_higher_limit_is_proposed_only_where_the_device_has_as_much() {
    let sets = "system.memory_limit=1GiB";
    let mut asked = on_card(config("openwebtext", sets), "rtx3060");
    asked.device = with_free(asked.device, 2 * GIB);
    let refusal = assert_edits_fit("openwebtext", sets, &asked);
    assert!(!edits(&refusal)[0].starts_with("--memory-limit"));
    assert_eq!(refusal.available, GIB);
    // A limit above what is there changes nothing.
    let sets = "system.memory_limit=8GiB";
    let mut asked = on_card(config("openwebtext", sets), "rtx3060");
    asked.device = with_free(asked.device, 2 * GIB);
    let refusal = assert_edits_fit("openwebtext", sets, &asked);
    assert_eq!(refusal.available, 2 * GIB);
    assert!(
        refusal
            .because
            .contains("the limit of 8.00 GiB is above that"),
        "{}",
        refusal.because
    );
}

/// Presets and cards of a refusal are no promise that breaks.
#[test]
fn what_is_said_to_fit_where_the_state_of_training_does_not_fits() {
    let short = "batch_size=1 gradient_accumulation_steps=1";
    let asked = on_card(config("gpt2-xl", short), "rtx4090");
    let standing = asked.refusal().standing.unwrap();
    assert_eq!(standing.state_bytes, 16 * standing.parameters);
    assert_eq!(standing.rounded_bytes, 2 * standing.parameters);
    for card in cards() {
        let fits = Asked {
            device: card.clone(),
            ..asked.clone()
        };
        let named = standing.cards.iter().any(|name| self::card(name) == card);
        assert_eq!(fits.try_plan().is_ok(), named, "{}", card.name);
    }
    assert_eq!(
        standing.presets,
        ["gpt2-large", "gpt2-medium", "openwebtext"]
    );
    for preset in standing.presets {
        on_card(config(preset, short), "rtx4090").plan();
    }
    // Here the activations are in the way.
    let mut small = on_card(config("openwebtext", "system.recompute=none"), "rtx3060");
    small.device = with_free(small.device, 5 * GIB / 2);
    assert_eq!(small.refusal().standing, None);
}

#[test]
fn recompute_is_proposed_where_the_config_forbids_it() {
    for pinned in ["none", "gelu+ln"] {
        let sets = format!("system.recompute={pinned}");
        let mut asked = on_card(config("openwebtext", &sets), "rtx3060");
        asked.device = with_free(asked.device, 27 * GIB / 10);
        let refusal = assert_edits_fit("openwebtext", &sets, &asked);
        assert_eq!(edits(&refusal)[0], "--set system.recompute=auto");
    }
    let mut asked = on_card(config("openwebtext", ""), "rtx3060");
    asked.device = with_free(asked.device, 2 * GIB);
    let refusal = assert_edits_fit("openwebtext", "", &asked);
    assert!(
        edits(&refusal)
            .iter()
            .all(|edit| !edit.contains("recompute"))
    );
}

#[test]
fn pretrained_weights_keep_their_depth_and_width() {
    // Much of what is needed grows with the context.
    let sets = "system.recompute=none";
    let mut asked = on_card(config("finetune_shakespeare", sets), "rtx3060");
    asked.weights = Some(ModelDims {
        vocab_size: 50_257,
        ..asked.plan().model
    });
    asked.device = with_free(asked.device, 27 * GIB / 10);
    let refusal = assert_edits_fit("finetune_shakespeare", sets, &asked);
    assert_eq!(
        edits(&refusal),
        ["--set system.recompute=auto", "--set model.block_size=512"]
    );
    // Not even the weights fit: there is nothing to propose, and no empty hint.
    asked.device = with_free(asked.device, GIB);
    let refusal = asked.refusal();
    assert_eq!(refusal.edits, []);
    let hint = refusal.hint();
    assert!(
        hint.starts_with("free at least ") && hint.contains("taper doctor"),
        "{hint}"
    );
}

#[test]
fn a_shorter_context_still_divides_the_tokens_of_a_step() {
    let sets = "model.n_layer=2 model.n_embd=96";
    let smallest = |block_size: usize| {
        let sets = format!("{sets} model.block_size={block_size}");
        let plan = on_card(config("openwebtext", &sets), "rtx3060").plan();
        plan.ladder.last().unwrap().bytes
    };
    let sets = format!("{sets} model.block_size=1000 train.tokens_per_step=12000");
    let mut asked = on_card(config("openwebtext", &sets), "rtx3060");
    let mut shorter = |bytes: u64| {
        asked.device = with_free(asked.device.clone(), bytes);
        let refusal = assert_edits_fit("openwebtext", &sets, &asked);
        let edits = edits(&refusal).into_iter();
        let lengths = edits.filter_map(|edit| edit.strip_prefix("--set model.block_size="));
        lengths.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(shorter(smallest(125)), ["125"]);
    // Half of that would fit, but 12,000 tokens are no whole number of such sequences.
    assert!(shorter(smallest(62)).is_empty());
}

#[test]
fn less_than_the_process_holds_is_refused_too() {
    let sets = "system.memory_limit=1MiB";
    let asked = Asked::new(config("quickstart", sets), cpu(2, &[]), 96);
    let refusal = assert_edits_fit("quickstart", sets, &asked);
    assert_eq!(refusal.largest[0].0, Group::Reserve);
    // No model is small enough: only the limit helps.
    assert_eq!(refusal.edits.len(), 1);
    assert!(edits(&refusal)[0].starts_with("--memory-limit "));
    let shown = shown(&asked.try_plan().unwrap_err());
    assert!(shown.contains("largest: reserve"), "{shown}");
    assert!(shown.contains(" and fits"), "{shown}");
}

#[test]
fn an_evaluation_that_does_not_fit_is_refused_as_well() {
    let mut asked = on_card(config("eval_gpt2", ""), "rtx3060");
    asked.device = with_free(asked.device, 700 << 20);
    let refusal = assert_edits_fit("eval_gpt2", "", &asked);
    assert!(
        refusal
            .largest
            .iter()
            .all(|(group, _)| *group != Group::Moments)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_proposed_fits(
        device in prop::sample::select(cards()),
        preset in prop::sample::select(vec!["openwebtext", "gpt2-medium", "shakespeare_char", "quickstart"]),
        recompute in prop::sample::select(vec!["auto", "none", "gelu+ln", "block"]),
        batch_size in prop::sample::select(vec!["auto", "1", "12"]),
        limited in any::<bool>(),
        share in 0.05..0.999,
    ) {
        let mut sets = format!("system.recompute={recompute} train.batch_size={batch_size}");
        let mut asked = Asked::new(config(preset, &sets), device, 50_257);
        asked.device.available_bytes = None;
        let smallest = asked.plan().ladder.last().unwrap().bytes;
        let available = (share * smallest as f64) as u64;
        if limited {
            sets += &format!(" system.memory_limit={available}B");
            asked.config = config(preset, &sets);
            asked.device.available_bytes = Some(2 * smallest);
        } else { asked.device.available_bytes = Some(available) }
        let refusal = assert_edits_fit(preset, &sets, &asked);
        prop_assert_eq!(refusal.needed, smallest);
        prop_assert_eq!(refusal.available, available);
        prop_assert!(!limited || edits(&refusal)[0].starts_with("--memory-limit "));
    }
}
