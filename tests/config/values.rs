//! Values from `--set` and the file, and their order of precedence.

use taper::config::{
    AutotuneRequest, BatchSize, Config, DeviceRequest, DtypeRequest, MemoryLimit, RecomputeRequest,
};
use taper::terms::Gelu;

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
    for (text, device) in [
        ("cpu", DeviceRequest::Cpu),
        ("cuda", DeviceRequest::Cuda(0)),
        ("cuda:0", DeviceRequest::Cuda(0)),
        ("cuda:3", DeviceRequest::Cuda(3)),
    ] {
        let set = format!("device={text}");
        assert_eq!(load("", &[&set]).system.device, device);
    }
    assert_eq!(load("", &["dropout=0"]).model.dropout, 0.0);
    assert_eq!(
        load("", &["learning_rate=1e-3"]).optimizer.learning_rate,
        1e-3
    );
}

#[test]
fn a_batch_is_a_number_or_left_to_the_planner() {
    let batch_size = |text: &str, sets: &[&str]| load(text, sets).train.batch_size;
    assert_eq!(batch_size("", &[]), BatchSize::Auto);
    assert_eq!(batch_size("", &["batch_size=12"]), BatchSize::Sequences(12));
    assert_eq!(batch_size("", &["batch_size=auto"]), BatchSize::Auto);
    let (number, auto) = ("[train]\nbatch_size = 8", "[train]\nbatch_size = \"auto\"");
    assert_eq!(batch_size(number, &[]), BatchSize::Sequences(8));
    assert_eq!(batch_size(auto, &[]), BatchSize::Auto);
    assert_eq!(batch_size(number, &["batch_size=auto"]), BatchSize::Auto);
    assert_eq!(
        batch_size(auto, &["train.batch_size=4"]),
        BatchSize::Sequences(4)
    );
}

#[test]
fn the_size_of_a_step_has_several_spellings() {
    let step = |keys: &str| load(&format!("[train]\n{keys}"), &[]).sequences_per_step();
    assert_eq!(step(""), 480, "nanoGPT's 12 x 40");
    assert_eq!(step("batch_size = 12"), 12);
    assert_eq!(
        step("batch_size = 12\ngradient_accumulation_steps = 40"),
        480
    );
    for batch_size in ["\"auto\"", "1", "7", "64", "1000"] {
        let with = |size: &str| step(&format!("batch_size = {batch_size}\n{size}"));
        assert_eq!(with("sequences_per_step = 480"), 480);
        assert_eq!(with("tokens_per_step = 491520"), 480);
    }
}

/// There is no way to unset a key, so a `--set` of one spelling replaces the file's.
#[test]
fn a_set_of_the_size_of_a_step_replaces_that_of_the_file() {
    let step =
        |keys: &str, sets: &[&str]| load(&format!("[train]\n{keys}"), sets).sequences_per_step();
    let nanogpts = "batch_size = 12\ngradient_accumulation_steps = 40";
    assert_eq!(step(nanogpts, &["sequences_per_step=24"]), 24);
    assert_eq!(step(nanogpts, &["tokens_per_step=2048"]), 2);
    assert_eq!(step(nanogpts, &["batch_size=8"]), 320, "as in nanoGPT");
    assert_eq!(
        step(nanogpts, &["batch_size=auto", "sequences_per_step=480"]),
        480
    );
    let presets = "sequences_per_step = 480";
    assert_eq!(step(presets, &["batch_size=8"]), 480, "the same experiment");
    assert_eq!(step(presets, &["tokens_per_step=2048"]), 2);
    assert_eq!(
        step(presets, &["batch_size=8", "gradient_accumulation_steps=4"]),
        32
    );
}

#[test]
fn an_evaluation_has_the_size_that_was_asked_for() {
    let eval = |sets: &[&str]| load("[eval]\neval_iters = 10", sets).eval_sequences();
    assert_eq!(eval(&[]), 120, "nanoGPT's batch of 12");
    assert_eq!(eval(&["batch_size=8"]), 80);
    assert_eq!(eval(&["batch_size=8", "eval_batch_size=3"]), 30);
    assert_eq!(eval(&["sequences_per_step=1"]), 120);
}

#[test]
fn a_memory_limit_has_a_unit_or_is_in_bytes() {
    let limit = |set: &str| load("", &[set]).system.memory_limit;
    let bytes = |bytes| Some(MemoryLimit(bytes));
    assert_eq!(load("", &[]).system.memory_limit, None);
    assert_eq!(limit("memory_limit=2GiB"), bytes(2 << 30));
    assert_eq!(limit("memory_limit=2 gib"), bytes(2 << 30));
    assert_eq!(limit("memory_limit=11.69GiB"), bytes(12_552_041_922));
    assert_eq!(limit("memory_limit=500MB"), bytes(500_000_000));
    assert_eq!(limit("memory_limit=123456789"), bytes(123_456_789));
    let file = "[system]\nmemory_limit = \"1.5 MiB\"";
    assert_eq!(load(file, &[]).system.memory_limit, bytes(3 << 19));
}

#[test]
fn the_planners_choices_can_be_made_for_it() {
    let config = load(
        "",
        &["recompute=gelu+ln", "dtype=bfloat16", "autotune=limited"],
    );
    assert_eq!(config.system.recompute, RecomputeRequest::GeluLn);
    assert_eq!(config.system.dtype, DtypeRequest::Bfloat16);
    assert_eq!(config.gemm.autotune, AutotuneRequest::Limited);
}

#[test]
fn the_derived_numbers_hold_for_any_request() {
    let mut config = Config::default();
    config.train.batch_size = BatchSize::Sequences(0);
    config.model.block_size = 0;
    config.train.tokens_per_step = Some(usize::MAX);
    assert_eq!(config.sequences_per_step(), usize::MAX);
    config.train.batch_size = BatchSize::Sequences(usize::MAX);
    config.train.tokens_per_step = None;
    config.train.gradient_accumulation_steps = Some(usize::MAX);
    assert_eq!(config.sequences_per_step(), usize::MAX);
    assert_eq!(config.eval_sequences(), usize::MAX);
}

/// Keys, values that each of them refuses, and what is expected instead.
const IMPOSSIBLE: [(&str, &str, &str); 18] = [
    (
        "tokens_per_step log_interval eval_interval eval_iters eval_batch_size eval_tasks_interval \
         eval_tasks_limit checkpoint_interval keep",
        "0 -1 1.5 1e400 true 18446744073709551616",
        "a whole number, 1 or more",
    ),
    (
        "n_head n_embd block_size sequences_per_step gradient_accumulation_steps",
        "0 -1 1.5 1e400 true 1048577",
        "a whole number from 1 to 1048576",
    ),
    (
        "n_layer threads",
        "0 -1 1.5 true 4097",
        "a whole number from 1 to 4096",
    ),
    (
        "batch_size",
        "0 -1 1.5 1e400 true 1048577 fast",
        "`auto` or a whole number from 1 to 1048576",
    ),
    (
        "memory_limit",
        "0 0GiB 0.1B -1 -1GiB 1.5 nan true much 12GX GiB 11,69GiB",
        "a size such as `11.69GiB`",
    ),
    (
        "max_iters warmup_iters lr_decay_iters warmdown_iters seed",
        "-1 x 0.5",
        "a whole number, 0 or more",
    ),
    ("vocab_size", "0 65537", "a whole number from 1 to 65536"),
    (
        "dropout beta1 beta2",
        "1 1.0 -0.1 nan inf true",
        "a number from 0 up to, but not including, 1",
    ),
    (
        "learning_rate eps",
        "0 0.0 -1 nan inf 1e400",
        "a number above 0",
    ),
    (
        "weight_decay grad_clip min_lr max_minutes",
        "-1 -0.5 nan inf",
        "a number, 0 or more",
    ),
    (
        "skip_loss_zscore skip_grad_zscore",
        "-1 11.26 12 nan inf true",
        "0 for off, or a number below 11.26",
    ),
    (
        "lr_schedule",
        "cos step 1 true",
        "`cosine`, `linear`, `constant` or `wsd`",
    ),
    (
        "bias decay_lr eval_on_start eval_only",
        "0 1 yes",
        "`true` or `false`",
    ),
    ("gelu", "relu 1", "`tanh` or `erf`"),
    (
        "device",
        "gpu cuda: cuda:x cuda:-1 cuda:70000 CUDA",
        "`auto`, `cpu`, `cuda`, or a GPU by its number, such as `cuda:1`",
    ),
    (
        "dtype",
        "bf16 half float64",
        "`auto`, `float32`, `bfloat16` or `float16`",
    ),
    (
        "recompute",
        "true gelu all",
        "`auto`, `none`, `gelu+ln` or `block`",
    ),
    (
        "autotune",
        "true max 68",
        "`auto`, `full`, `limited` or `off`",
    ),
];

/// Values at the ends of what is possible.
const LAST_POSSIBLE: [&str; 21] = [
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
    "max_minutes=0",
    "max_minutes=1e300",
    "skip_loss_zscore=11.25",
    "skip_grad_zscore=0",
    "batch_size=1048576",
    "memory_limit=1B",
];

#[test]
fn impossible_values_are_refused_and_the_last_possible_ones_are_not() {
    for (keys, values, expected) in IMPOSSIBLE {
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
    for set in LAST_POSSIBLE {
        load("", &[set]);
    }
    assert!(try_load("[data]\ndataset = \"\"", &[]).is_err());
    assert!(
        try_load("[data]\ndataset = 5", &[])
            .unwrap_err()
            .ends_with("hint: write `dataset = \"5\"`")
    );
}
