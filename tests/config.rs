//! The configuration: presets, `--set`, and what a wrong one is told.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use taper::config::*;
use taper::error::Error;
use taper::model::ParamLayout;
use taper::plan::ModelDims;

/// A folder with `my.toml`, and the path of that file.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn try_load(text: &str, sets: &[&str]) -> Result<Config, String> {
    let (_folder, path) = file(text);
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let path = path.to_str().unwrap();
    Config::load(path, &sets).map_err(|error| shown(&error).replace(path, "my.toml"))
}

fn load(text: &str, sets: &[&str]) -> Config {
    try_load(text, sets).unwrap_or_else(|error| panic!("{error}"))
}

fn preset(name: &str) -> Config {
    Config::load(name, &[]).unwrap_or_else(|error| panic!("{}", shown(&error)))
}

/// An error as `main` prints it.
fn shown(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("error: {error}\nhint: {hint}"),
        None => format!("error: {error}"),
    }
}

#[track_caller]
fn refused(text: &str, sets: &[&str], expected: &str) {
    let error = try_load(text, sets).expect_err("accepted");
    assert_eq!(error, expected.trim_start_matches('\n').trim_end());
}

/// Number with commas, as the presets' comments have it.
fn commas(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap())
        .collect();
    groups.join(",")
}

// Presets

#[test]
fn every_preset_loads_and_says_what_it_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(files, PRESETS.len(), "a file of config/ is not compiled in");
    let mut folders = HashSet::new();
    for Preset { name, .. } in PRESETS {
        let config = preset(name);
        assert!(
            folders.insert(config.checkpoint.out_dir),
            "{name} shares its out_dir"
        );
    }
    for preset in PRESETS {
        let description = preset.description();
        assert!(
            description.ends_with(['.', '5']) && description.len() < 90,
            "{description}"
        );
    }
}

#[test]
fn the_arithmetic_of_every_preset_is_what_its_comments_say() {
    // Name, sequences per step, tokens per step, tokens in all (0: no training).
    let expected = [
        ("quickstart", 16, 2_048, 2_048_000),
        ("shakespeare_char_cpu", 12, 768, 1_536_000),
        ("shakespeare_char", 64, 16_384, 81_920_000),
        ("finetune_shakespeare", 32, 32_768, 0),
        ("openwebtext", 480, 491_520, 294_912_000_000),
        ("gpt2-medium", 480, 491_520, 294_912_000_000),
        ("gpt2-large", 480, 491_520, 294_912_000_000),
        ("gpt2-xl", 480, 491_520, 294_912_000_000),
    ];
    for (name, sequences, tokens_per_step, tokens) in expected {
        let config = preset(name);
        let text = PRESETS
            .iter()
            .find(|preset| preset.name == name)
            .unwrap()
            .text;
        assert_eq!(config.sequences_per_step(), sequences, "{name}");
        let per_step = sequences * config.model.block_size;
        assert_eq!(per_step, tokens_per_step, "{name}");
        assert!(
            text.contains(&commas(per_step)),
            "{name}: {}",
            commas(per_step)
        );
        if tokens > 0 {
            let in_all = per_step * usize::try_from(config.train.max_iters).unwrap();
            assert_eq!(in_all, tokens, "{name}");
            assert!(text.contains(&commas(in_all)), "{name}: {}", commas(in_all));
            assert_eq!(
                config.optimizer.lr_decay_iters, config.train.max_iters,
                "{name}"
            );
            assert_eq!(
                config.optimizer.min_lr,
                format!("{:.1e}", config.optimizer.learning_rate / 10.0)
                    .parse::<f64>()
                    .unwrap(),
                "{name}"
            );
        }
    }
    let eval = preset("eval_gpt2");
    assert_eq!(
        eval.train.batch_size * eval.eval.eval_iters * eval.model.block_size,
        4_096_000
    );
}

#[test]
fn the_large_presets_have_the_parameters_their_comments_say() {
    for name in ["openwebtext", "gpt2-medium", "gpt2-large", "gpt2-xl"] {
        let config = preset(name);
        let model = config.model;
        let layout = ParamLayout::new(&ModelDims {
            n_layer: model.n_layer,
            n_head: model.n_head,
            n_embd: model.n_embd,
            block_size: model.block_size,
            vocab_size: 50_304,
            bias: model.bias,
            dropout: model.dropout,
            gelu: model.gelu,
        });
        let text = PRESETS
            .iter()
            .find(|preset| preset.name == name)
            .unwrap()
            .text;
        let count = format!("# {} parameters", commas(layout.len));
        assert!(text.contains(&count), "{name}: {count}");
    }
}

#[test]
fn presets_have_nanogpts_numbers() {
    let large = preset("shakespeare_char");
    assert_eq!(
        (large.model.n_layer, large.model.n_head, large.model.n_embd),
        (6, 6, 384)
    );
    assert_eq!((large.model.dropout, large.optimizer.beta2), (0.2, 0.99));
    // The README's CPU command is the same run with these settings.
    let small = "eval_iters=20 block_size=64 batch_size=12 n_layer=4 n_head=4 n_embd=128 \
                 max_iters=2000 lr_decay_iters=2000 dropout=0.0 out_dir=out-shakespeare-char-cpu";
    let small: Vec<String> = small.split(' ').map(String::from).collect();
    assert_eq!(
        Config::load("shakespeare_char", &small).unwrap(),
        preset("shakespeare_char_cpu")
    );
    let finetune = preset("finetune_shakespeare");
    assert_eq!(finetune.train.init_from, "gpt2");
    assert!(finetune.model.bias && !finetune.optimizer.decay_lr);
    // OpenWebText is the default of nanoGPT's train.py, except for how often it speaks.
    let mut owt = preset("openwebtext");
    owt.train.gradient_accumulation_steps = None;
    owt.train.log_interval = 1;
    owt.eval.eval_interval = 2000;
    owt.checkpoint.out_dir = "out".into();
    assert_eq!(owt, Config::default());
}

#[test]
fn a_preset_is_found_by_bare_name_with_or_without_the_ending() {
    for Preset { name, .. } in PRESETS {
        assert_eq!(preset(name), preset(&format!("{name}.toml")));
    }
}

#[test]
fn an_unknown_name_lists_the_presets_and_the_nearest() {
    let error = shown(&Config::load("config/train_shakespear_char.py", &[]).unwrap_err());
    assert!(error.starts_with("error: no file and no preset is called `config/train_shakespear_char.py`\n  = presets:\n    quickstart            A small model"), "{error}");
    assert!(
        error.ends_with("\nhint: did you mean `--config shakespeare_char`?"),
        "{error}"
    );
    for preset in PRESETS {
        assert!(error.contains(preset.description()));
    }
}

#[test]
fn a_folder_instead_of_a_file_is_a_read_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = Config::load(folder.path().to_str().unwrap(), &[]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }));
}

// Values and their order of precedence

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

// What a wrong configuration is told

#[test]
fn an_unknown_key_is_answered_with_the_nearest() {
    refused(
        "[model]\nn_layers = 12\n",
        &[],
        "
error: unknown key `n_layers` in `[model]`
 --> my.toml:2:1
  |
2 | n_layers = 12
  | ^^^^^^^^
  = expected `n_layer`, `n_head`, `n_embd`, `block_size`, `vocab_size`, `bias`, `dropout` or `gelu`
hint: did you mean `n_layer`?
",
    );
}

#[test]
fn an_unknown_section_is_answered_with_the_nearest() {
    refused(
        "\n\n\n\n\n\n\n\n\n[optim]\nbeta1 = 0.9\n",
        &[],
        "
error: unknown section `[optim]`
  --> my.toml:10:2
   |
10 | [optim]
   |  ^^^^^
  = expected `model`, `data`, `train`, `optimizer`, `eval`, `checkpoint` or `system`
hint: did you mean `[optimizer]`?
",
    );
}

#[test]
fn every_problem_is_reported_at_once() {
    refused(
        "batch_size = 12\n[train]\nlearning_rate = 6e-4 # high\nwandb_log = true\n[model]\nbias = 0\n\tdropout = 1.0",
        &["max_itres=10"],
        "
error: `batch_size` stands outside any section
 --> my.toml:1:1
  |
1 | batch_size = 12
  | ^^^^^^^^^^
hint: move it below `[train]`

error: `learning_rate` does not belong to `[train]`
 --> my.toml:3:1
  |
3 | learning_rate = 6e-4 # high
  | ^^^^^^^^^^^^^
hint: move it below `[optimizer]`

error: taper does not have nanoGPT's `wandb_log`
 --> my.toml:4:1
  |
4 | wandb_log = true
  | ^^^^^^^^^
hint: remove it: every number goes to `metrics.jsonl` in `checkpoint.out_dir`

error: `bias` cannot be `0`
 --> my.toml:6:8
  |
6 | bias = 0
  |        ^
  = expected `true` or `false`
hint: write `bias = false`

error: `dropout` cannot be `1.0`
 --> my.toml:7:12
  |
7 |  dropout = 1.0
  |            ^^^
  = expected a number from 0 up to, but not including, 1

error: unknown key `max_itres`
  |
  | --set max_itres=10
  |       ^^^^^^^^^
  = expected a key of `model`, `data`, `train`, `optimizer`, `eval`, `checkpoint` or `system`
hint: did you mean `max_iters` of `[train]`?
",
    );
}

#[test]
fn a_wrong_type_is_answered_with_a_literal_edit() {
    refused(
        "[train]\nbatch_size = \"12\" # quoted",
        &[],
        "
error: `batch_size` cannot be `\"12\"`
 --> my.toml:2:14
  |
2 | batch_size = \"12\" # quoted
  |              ^^^^
  = expected a whole number, 1 or more
hint: write `batch_size = 12`
",
    );
    refused(
        "",
        &["optimizer.decay_lr=False"],
        "
error: `decay_lr` cannot be `False`
  |
  | --set optimizer.decay_lr=False
  |                          ^^^^^
  = expected `true` or `false`
hint: write `--set optimizer.decay_lr=false`
",
    );
}

#[test]
fn a_set_in_the_wrong_section_is_answered_with_the_right_one() {
    refused(
        "",
        &["model.batch_size=4"],
        "
error: `batch_size` does not belong to `[model]`
  |
  | --set model.batch_size=4
  |             ^^^^^^^^^^
hint: write `--set train.batch_size=4`
",
    );
}

#[test]
fn a_set_without_key_or_value_shows_an_example() {
    refused(
        "",
        &["train.max_iters"],
        "
error: a `--set` needs a key and a value
  |
  | --set train.max_iters
  |       ^^^^^^^^^^^^^^^
  = expected `section.key=value`
hint: for example `--set train.max_iters=10`
",
    );
    for set in ["", "=", "=3", "train.=3", " = "] {
        let error = try_load("", &[set]).unwrap_err();
        assert!(
            error.starts_with("error: a `--set` needs a key and a value"),
            "{set}: {error}"
        );
    }
    assert!(
        try_load("", &["seed="])
            .unwrap_err()
            .starts_with("error: `seed` has no value")
    );
}

#[test]
fn python_in_a_file_is_answered_with_toml() {
    refused(
        "[model]\nbias = False\n",
        &[],
        "
error: not valid TOML: invalid boolean, expected `false`
 --> my.toml:2:8
  |
2 | bias = False
  |        ^^^^^
hint: write `false`
",
    );
    let hint = |text: &str| {
        try_load(text, &[])
            .unwrap_err()
            .lines()
            .last()
            .map(String::from)
    };
    let product = hint("[train]\ngradient_accumulation_steps = 5 * 8\n");
    assert_eq!(
        product.unwrap(),
        "hint: write the result: TOML does not calculate"
    );
    let bare = hint("[data]\ndataset = shakespeare\n");
    assert_eq!(bare.unwrap(), "hint: text needs quotes: `\"shakespeare\"`");
}

#[test]
fn a_duplicate_names_both_lines() {
    refused(
        "[model]\nn_layer = 12\n\nn_layer = 6\n",
        &[],
        "
error: `n_layer` is given twice
 --> my.toml:4:1
  |
4 | n_layer = 6
  | ^^^^^^^
hint: remove this one or the one in line 2
",
    );
    let error = try_load("[train]\nseed = 1\n[train]\n", &[]).unwrap_err();
    assert!(
        error.ends_with("hint: remove this one or the one in line 1"),
        "{error}"
    );
}

#[test]
fn heads_must_divide_the_channels() {
    refused(
        "[model]\nn_embd = 384\nn_head = 7\n",
        &[],
        "
error: `n_embd` = 384 does not divide into `n_head` = 7 heads
 --> my.toml:3:10
  |
3 | n_head = 7
  |          ^
  = expected `n_head` to divide 384: the nearest are 6 and 8
hint: write `n_head = 8`
",
    );
}

#[test]
fn a_step_must_be_whole_micro_steps() {
    refused(
        "",
        &["tokens_per_step=500000"],
        "
error: `tokens_per_step` = 500000 is not a whole number of micro-steps
  |
  | --set tokens_per_step=500000
  |                       ^^^^^^
  = expected a multiple of `batch_size` x `block_size` = 12 x 1024 = 12288: the nearest are 491520 and 503808
hint: write `--set train.tokens_per_step=503808`
",
    );
    refused(
        "[train]\nbatch_size = 8\nsequences_per_step = 4",
        &[],
        "
error: `sequences_per_step` = 4 is not a whole number of micro-steps
 --> my.toml:3:22
  |
3 | sequences_per_step = 4
  |                      ^
  = expected a multiple of `batch_size` = 8: the nearest is 8
hint: write `sequences_per_step = 8`
",
    );
}

#[test]
fn a_step_has_one_size() {
    refused(
        "[train]\ngradient_accumulation_steps = 40\ntokens_per_step = 491520\n",
        &[],
        "
error: `gradient_accumulation_steps` and `tokens_per_step` both give the size of a step
 --> my.toml:3:19
  |
3 | tokens_per_step = 491520
  |                   ^^^^^^
  = expected at most one of `gradient_accumulation_steps`, `sequences_per_step` and `tokens_per_step`
",
    );
    let sets = ["tokens_per_step=491520", "sequences_per_step=480"];
    assert!(
        try_load("", &sets).is_err(),
        "two of them in `--set` contradict each other"
    );
}

#[test]
fn the_learning_rates_must_be_in_order() {
    refused(
        "[optimizer]\nlearning_rate = 3e-5\n",
        &[],
        "
error: `min_lr` = 6e-5 is above `learning_rate` = 3e-5
 --> my.toml:2:17
  |
2 | learning_rate = 3e-5
  |                 ^^^^
  = expected `min_lr` from 0 to 3e-5, or `decay_lr` = false
hint: write `min_lr = 3e-6`
",
    );
    // Without decay neither is used.
    load(
        "[optimizer]\nlearning_rate = 3e-5\ndecay_lr = false\nlr_decay_iters = 0",
        &[],
    );
}

#[test]
fn the_warm_up_must_end_before_the_decay() {
    refused(
        "[optimizer]\nlr_decay_iters = 100\n",
        &["warmup_iters=200"],
        "
error: `warmup_iters` = 200 is above `lr_decay_iters` = 100
  |
  | --set warmup_iters=200
  |                    ^^^
  = expected `warmup_iters` from 0 to 100, or `decay_lr` = false
hint: write `--set optimizer.warmup_iters=100`
",
    );
    load("[optimizer]\nlr_decay_iters = 100\nwarmup_iters = 100", &[]);
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

#[test]
fn nanogpts_own_settings_are_answered() {
    for (set, hint) in [
        (
            "always_save_checkpoint=False",
            "remove it: the newest `checkpoint.keep` checkpoints and the best one always stay",
        ),
        (
            "compile=False",
            "remove it: nothing is compiled at run time",
        ),
        ("backend=nccl", "remove it: taper trains in one process"),
        (
            "wandb_project=owt",
            "remove it: every number goes to `metrics.jsonl` in `checkpoint.out_dir`",
        ),
        (
            "device=cuda:1",
            "write `auto`: it takes the best device that taper can use here",
        ),
        (
            "dtype=bfloat16",
            "write `auto`: it takes the fastest precision that taper can use here",
        ),
    ] {
        let error = try_load("", &[set]).unwrap_err();
        assert!(error.ends_with(&format!("hint: {hint}")), "{error}");
    }
}

#[test]
fn a_structure_where_a_value_belongs_is_refused() {
    assert!(
        try_load("model = 4", &[])
            .unwrap_err()
            .starts_with("error: `model` is a section, not a key")
    );
    assert!(
        try_load("[[model]]", &[])
            .unwrap_err()
            .starts_with("error: `model` is a section, not a key")
    );
    assert!(
        try_load("[model.n_layer]", &[])
            .unwrap_err()
            .starts_with("error: `n_layer` cannot be")
    );
    assert_eq!(
        load("model = { n_layer = 3 }\ntrain.seed = 5", &[])
            .train
            .seed,
        5
    );
}

// Round trip

#[test]
fn the_resolved_config_has_every_key_once_and_no_name_twice() {
    let table: toml::Table = full_config().to_toml().parse().unwrap();
    let mut names = HashSet::new();
    for (section, keys) in &table {
        for key in keys.as_table().unwrap().keys() {
            assert!(
                names.insert(key.clone()),
                "`{key}` of `[{section}]` is in two sections"
            );
        }
    }
    assert_eq!(names.len(), 40);
}

/// Every optional key present.
fn full_config() -> Config {
    let mut config = Config::default();
    config.model.vocab_size = Some(65);
    config.data.train_bin = Some("train*.bin".into());
    config.data.val_bin = Some("val.bin".into());
    config.train.gradient_accumulation_steps = Some(1);
    config.train.sequences_per_step = Some(12);
    config.train.tokens_per_step = Some(12 * 1024);
    config.eval.eval_batch_size = Some(4);
    config.checkpoint.checkpoint_interval = Some(100);
    config.system.threads = Some(2);
    config
}

fn models() -> impl Strategy<Value = ModelConfig> {
    let sizes = (1..100_usize, 1..50_usize, 1..100_usize, 1..5000_usize);
    let rest = (
        proptest::option::of(1..=65_536_usize),
        any::<bool>(),
        0.0..1.0,
        any::<bool>(),
    );
    (sizes, rest).prop_map(
        |((n_layer, n_head, head_size, block_size), (vocab_size, bias, dropout, tanh))| {
            ModelConfig {
                n_layer,
                n_head,
                n_embd: n_head * head_size,
                block_size,
                vocab_size,
                bias,
                dropout,
                gelu: if tanh { Gelu::Tanh } else { Gelu::Erf },
            }
        },
    )
}

fn optimizers() -> impl Strategy<Value = OptimizerConfig> {
    let rates = (1e-300..1e300, 0.0..=1.0, 1e-300..1.0, any::<bool>());
    let moments = (0.0..1e6, 0.0..1.0, 0.0..1.0, 0.0..1e6);
    let steps = (0..u64::MAX / 2, 0..u64::MAX / 2);
    (rates, moments, steps).prop_map(
        |(
            (learning_rate, share, eps, decay_lr),
            (weight_decay, beta1, beta2, grad_clip),
            (warmup_iters, more),
        )| OptimizerConfig {
            learning_rate,
            weight_decay,
            beta1,
            beta2,
            eps,
            grad_clip,
            decay_lr,
            warmup_iters,
            lr_decay_iters: warmup_iters + more,
            min_lr: learning_rate * share,
        },
    )
}

fn trainings() -> impl Strategy<Value = TrainConfig> {
    // `\PC`: any character that can be shown, quotes and backslashes among them.
    let run = ("\\PC{1,20}", any::<u64>(), any::<u64>(), 1..u64::MAX);
    (run, 1..1000_usize, 0..4_usize, 1..1000_usize).prop_map(
        |((init_from, seed, max_iters, log_interval), batch_size, spelling, micro_steps)| {
            TrainConfig {
                init_from,
                seed,
                max_iters,
                batch_size,
                gradient_accumulation_steps: (spelling == 1).then_some(micro_steps),
                sequences_per_step: (spelling == 2).then_some(micro_steps * batch_size),
                tokens_per_step: (spelling == 3).then_some(micro_steps * batch_size),
                log_interval,
            }
        },
    )
}

fn files() -> impl Strategy<Value = (DataConfig, CheckpointConfig)> {
    let bins = (
        proptest::option::of("\\PC{1,20}"),
        proptest::option::of("\\PC{1,20}"),
    );
    let data = ("\\PC{1,20}", "\\PC{1,20}", bins);
    let checkpoint = (
        "(?s).{1,20}",
        proptest::option::of(1..u64::MAX),
        1..usize::MAX,
    );
    (data, checkpoint).prop_map(
        |((dataset, data_dir, (train_bin, val_bin)), (out_dir, checkpoint_interval, keep))| {
            let data = DataConfig {
                dataset,
                data_dir: data_dir.into(),
                train_bin,
                val_bin,
            };
            let checkpoint = CheckpointConfig {
                out_dir: out_dir.into(),
                checkpoint_interval,
                keep,
            };
            (data, checkpoint)
        },
    )
}

fn evals_and_systems() -> impl Strategy<Value = (EvalConfig, SystemConfig)> {
    let eval = (
        1..u64::MAX,
        1..usize::MAX,
        proptest::option::of(1..usize::MAX),
        any::<bool>(),
    );
    let system = (
        any::<bool>(),
        any::<bool>(),
        proptest::option::of(1..usize::MAX),
    );
    (eval, system).prop_map(
        |((eval_interval, eval_iters, eval_batch_size, eval_only), (cpu, float32, threads))| {
            let eval = EvalConfig {
                eval_interval,
                eval_iters,
                eval_batch_size,
                eval_only,
            };
            let system = SystemConfig {
                device: if cpu {
                    DeviceRequest::Cpu
                } else {
                    DeviceRequest::Auto
                },
                dtype: if float32 {
                    DtypeRequest::Float32
                } else {
                    DtypeRequest::Auto
                },
                threads,
            };
            (eval, system)
        },
    )
}

proptest! {
    // The strategies name every field, so a key that the table of keys lacks fails here.
    #[test]
    fn every_valid_config_survives_a_round_trip(
        model in models(),
        optimizer in optimizers(),
        mut train in trainings(),
        (data, checkpoint) in files(),
        (eval, system) in evals_and_systems(),
    ) {
        train.tokens_per_step = train.tokens_per_step.map(|sequences| sequences * model.block_size);
        let config = Config { model, data, train, optimizer, eval, checkpoint, system };
        prop_assert_eq!(try_load(&config.to_toml(), &[]), Ok(config));
    }

    #[test]
    fn no_text_makes_loading_panic(text in "(?s).{0,60}", set in "(?s).{0,30}", key in "[a-z_]{1,8}") {
        let _ = try_load(&text, &[]);
        let _ = try_load("", &[&set]);
        let _ = try_load(&format!("[model]\n{key} = {text}"), &[&format!("{key}={set}"), &format!("out_dir={set}")]);
        let _ = try_load(&format!("[model]\nn_layer = {text}"), &[&format!("seed={set}"), &format!("{set}.seed=1")]);
    }
}
