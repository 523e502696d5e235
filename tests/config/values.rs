//! What `--set` and the file give, and in which order of precedence.

use taper::config::{Config, DeviceRequest, Gelu};

use super::{load, try_load};

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

#[test]
fn impossible_values_are_refused_and_the_last_possible_ones_are_not() {
    let count = "a whole number, 1 or more";
    let fraction = "a number from 0 up to, but not including, 1";
    let expected = [
        (
            "n_layer n_head n_embd block_size batch_size sequences_per_step tokens_per_step log_interval eval_interval eval_iters eval_batch_size checkpoint_interval keep threads gradient_accumulation_steps",
            "0 -1 1.5 1e400 true 18446744073709551616",
            count,
        ),
        (
            "max_iters warmup_iters lr_decay_iters seed",
            "-1 x 0.5",
            "a whole number, 0 or more",
        ),
        ("vocab_size", "0 65537", "a whole number from 1 to 65536"),
        ("dropout beta1 beta2", "1 1.0 -0.1 nan inf true", fraction),
        (
            "learning_rate eps",
            "0 0.0 -1 nan inf 1e400",
            "a number above 0",
        ),
        (
            "weight_decay grad_clip min_lr",
            "-1 -0.5 nan inf",
            "a number, 0 or more",
        ),
        ("bias decay_lr eval_only", "0 1 yes", "`true` or `false`"),
        ("gelu", "relu 1", "`tanh` or `erf`"),
        ("device", "cuda cuda:0 gpu", "`auto` or `cpu`"),
        ("dtype", "bfloat16 float16", "`auto` or `float32`"),
    ];
    for (keys, values, expected) in expected {
        for key in keys.split(' ') {
            for value in values.split(' ') {
                let error = try_load("", &[&format!("{key}={value}")]).expect_err(key);
                assert!(
                    error.starts_with(&format!("error: `{key}` cannot be `{value}`")),
                    "{error}"
                );
                assert!(
                    error.contains(&format!("\n  = expected {expected}")),
                    "{error}"
                );
            }
        }
    }
    for set in [
        "vocab_size=1",
        "vocab_size=65536",
        "dropout=0",
        "dropout=0.999",
        "seed=0",
        "seed=18446744073709551615",
        "seed=0xff",
        "grad_clip=0",
        "weight_decay=0",
        "min_lr=0",
        "min_lr=6e-4",
        "warmup_iters=0",
        "n_head=1",
        "n_head=768",
        "eps=1e-12",
    ] {
        load("", &[set]);
    }
    assert!(try_load("[data]\ndataset = \"\"", &[]).is_err());
    assert!(
        try_load("[data]\ndataset = 5", &[])
            .unwrap_err()
            .ends_with("hint: write `dataset = \"5\"`")
    );
}
