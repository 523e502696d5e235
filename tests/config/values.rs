//! What `--set` and the file give, and in which order of precedence.

use taper::config::{Config, DeviceRequest, Gelu};

use super::load;

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(load("", &[]), Config::default());
}

#[test]
fn set_beats_the_file_and_the_last_set_wins() {
    let text = "[train]\nmax_iters = 1\n[data]\ndataset = \"a\"";
    assert_eq!(load(text, &[]).train.max_iters, 1);
    assert_eq!(load(text, &["train.max_iters=2"]).train.max_iters, 2);
    assert_eq!(
        load(text, &["train.max_iters=2", "max_iters = 3"])
            .train
            .max_iters,
        3
    );
    assert_eq!(load(text, &["max_iters=1_000"]).train.max_iters, 1000);
}

#[test]
fn a_set_value_is_toml_or_else_text() {
    for (set, dataset) in [
        ("data.dataset=shakespeare", "shakespeare"),
        ("dataset=\"a b\"", "a b"),
        ("dataset=a b", "a b"),
        ("dataset=a=b", "a=b"),
        ("dataset=2024", "2024"),
        ("dataset=true", "true"),
    ] {
        assert_eq!(load("", &[set]).data.dataset, dataset, "{set}");
    }
    assert_eq!(load("", &["gelu=erf"]).model.gelu, Gelu::Erf);
    assert_eq!(load("", &["device=cpu"]).system.device, DeviceRequest::Cpu);
    assert_eq!(load("", &["dropout=0"]).model.dropout, 0.0);
    assert_eq!(
        load("", &["learning_rate=1e-3"]).optimizer.learning_rate,
        1e-3
    );
}

#[test]
fn the_size_of_a_step_has_three_spellings() {
    let step = |text: &str, sets: &[&str]| {
        let config = load(text, sets);
        (
            config.gradient_accumulation_steps(),
            config.sequences_per_step(),
        )
    };
    assert_eq!(step("", &[]), (1, 12));
    assert_eq!(
        step("[train]\ngradient_accumulation_steps = 40", &[]),
        (40, 480)
    );
    assert_eq!(step("[train]\nsequences_per_step = 480", &[]), (40, 480));
    assert_eq!(step("[train]\ntokens_per_step = 491520", &[]), (40, 480));
    // There is no way to unset a key, so a `--set` of one spelling replaces the file's.
    let file = "[train]\ngradient_accumulation_steps = 40";
    assert_eq!(step(file, &["sequences_per_step=24"]), (2, 24));
}

#[test]
fn the_derived_numbers_hold_for_any_request() {
    let mut config = Config::default();
    config.train.batch_size = 0;
    config.train.tokens_per_step = Some(usize::MAX);
    assert_eq!(config.sequences_per_step(), 0);
    config.train.batch_size = usize::MAX;
    config.train.tokens_per_step = None;
    config.train.gradient_accumulation_steps = Some(usize::MAX);
    assert_eq!(config.sequences_per_step(), usize::MAX);
}
