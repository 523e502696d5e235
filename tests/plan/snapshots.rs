//! What is planned, as text: every preset on every named card, and the founding scenario.

use taper::config::PRESETS;
use taper::device::named;
use taper::report::{PlanReport, plan_summary, plan_text};
use taper::terms::ModelDims;

use super::{Asked, card, config, on_card, shown, with_free};

fn vocab_size(dataset: &str) -> usize {
    match dataset {
        // Printable ASCII and the newline.
        "quickstart" => 96,
        "shakespeare_char" => 65,
        _ => 50_257,
    }
}

/// OpenAI's GPT-2 has the sizes of the presets that start from it.
fn weights(asked: &Asked) -> Option<ModelDims> {
    let from_gpt2 = asked.config.train.init_from == "gpt2";
    let planned = asked.try_plan().ok().filter(|_| from_gpt2)?;
    Some(ModelDims {
        vocab_size: 50_257,
        ..planned.model
    })
}

fn assert_snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn every_preset_on_every_card() {
    for preset in PRESETS {
        let mut text = String::new();
        for card in named::all() {
            let config = config(preset.name, "");
            let vocab_size = vocab_size(&config.data.dataset);
            let mut asked = Asked::new(config, card.profile(), vocab_size);
            asked.weights = weights(&asked);
            let planned = match asked.try_plan() {
                Ok(plan) => plan_summary(&PlanReport {
                    source: &format!("{}.toml", preset.name),
                    device: &asked.device,
                    plan: &plan,
                    trial: &None,
                }),
                Err(error) => format!("no plan on {}\n{}", card.name, shown(&error)),
            };
            text += &planned;
            text += "\n\n";
        }
        assert_snapshot(preset.name, &text);
    }
}

/// GPT-2 124M, batch 64 x block 1024, on 12 GB: empty, and with all but 2.68 GiB taken by others.
#[test]
fn the_founding_scenario() {
    let sets = "batch_size=64 gradient_accumulation_steps=1";
    let free = |hundredths: u64| with_free(card("rtx3060"), (hundredths << 30) / 100);
    for (name, device) in [
        ("founding-empty-card", card("rtx3060")),
        ("founding-2.68GiB-free", free(268)),
    ] {
        let mut asked = Asked {
            device,
            ..on_card(config("openwebtext", sets), "rtx3060")
        };
        asked.dataset.vocab_size.because = "`data/openwebtext/meta.json`".into();
        let report = PlanReport {
            source: "openwebtext.toml",
            device: &asked.device,
            plan: &asked.plan(),
            trial: &None,
        };
        assert_snapshot(name, &plan_text(&report, false));
    }
}
