//! What a wrong configuration is told, word for word.

use super::{load, try_load};

#[track_caller]
pub fn refused(text: &str, sets: &[&str], expected: &str) {
    let error = try_load(text, sets).expect_err("accepted");
    assert_eq!(error, expected.trim_start_matches('\n').trim_end());
}

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
  = expected `model`, `data`, `train`, `optimizer`, `eval`, `checkpoint`, `system` or `gemm`
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
hint: remove it: every number goes to `metrics.jsonl` in `checkpoint.out_dir`, and to TensorBoard's event files there

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
  = expected a key of `model`, `data`, `train`, `optimizer`, `eval`, `checkpoint`, `system` or `gemm`
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
  = expected `auto` or a whole number from 1 to 1048576
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
    for (text, hint) in [
        (
            "[train]\ngradient_accumulation_steps = 5 * 8\n",
            "write the result: TOML does not calculate",
        ),
        (
            "[data]\ndataset = shakespeare\n",
            "text needs quotes: `\"shakespeare\"`",
        ),
        (
            "[checkpoint]\nout_dir = out/2\n",
            "text needs quotes: `\"out/2\"`",
        ),
        (
            "[system]\nmemory_limit = 11.69GiB # all of it\n",
            "text needs quotes: `\"11.69GiB\"`",
        ),
    ] {
        let error = try_load(text, &[]).unwrap_err();
        assert!(error.ends_with(&format!("\nhint: {hint}")), "{error}");
    }
    let error = try_load("[model]\nn_layer = twelve\n", &[]).unwrap_err();
    assert!(!error.contains("hint"), "quotes would not help: {error}");
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
fn other_values_of_a_batch_and_a_limit_are_answered_with_a_literal_edit() {
    refused(
        "",
        &["batch_size=Auto"],
        "
error: `batch_size` cannot be `Auto`
  |
  | --set batch_size=Auto
  |                  ^^^^
  = expected `auto` or a whole number from 1 to 1048576
hint: write `--set train.batch_size=auto`
",
    );
    refused(
        "[system]\nmemory_limit = 11.69\n",
        &[],
        "
error: `memory_limit` cannot be `11.69`
 --> my.toml:2:16
  |
2 | memory_limit = 11.69
  |                ^^^^^
  = expected a size such as `11.69GiB`
hint: write `memory_limit = \"11.69GiB\"`
",
    );
}

#[test]
fn a_step_must_be_whole_sequences() {
    refused(
        "",
        &["tokens_per_step=500000"],
        "
error: `tokens_per_step` = 500000 is not a whole number of sequences
  |
  | --set tokens_per_step=500000
  |                       ^^^^^^
  = expected a multiple of `block_size` = 1024: the nearest are 499712 and 500736
hint: write `--set train.tokens_per_step=499712`
",
    );
    refused(
        "[train]\ntokens_per_step = 128",
        &["block_size=256"],
        "
error: `tokens_per_step` = 128 is not a whole number of sequences
 --> my.toml:2:19
  |
2 | tokens_per_step = 128
  |                   ^^^
  = expected a multiple of `block_size` = 256: the nearest is 256
hint: write `tokens_per_step = 256`
",
    );
}

#[test]
fn micro_steps_need_the_size_of_one() {
    refused(
        "[train]\nsequences_per_step = 480\n",
        &["gradient_accumulation_steps=4"],
        "
error: `gradient_accumulation_steps` = 4 does not give the size of a step while `batch_size` is `auto`
  |
  | --set gradient_accumulation_steps=4
  |                                   ^
  = expected `sequences_per_step` instead, such as 48 for 4 micro-steps of 12, or a number for `batch_size`
hint: write `--set train.sequences_per_step=48`
",
    );
    // The edit makes the step that the file had.
    refused(
        "[train]\nbatch_size = 8\ngradient_accumulation_steps = 40\n",
        &["batch_size=auto"],
        "
error: `gradient_accumulation_steps` = 40 does not give the size of a step while `batch_size` is `auto`
 --> my.toml:3:31
  |
3 | gradient_accumulation_steps = 40
  |                               ^^
  = expected `sequences_per_step` instead, such as 320 for 40 micro-steps of 8, or a number for `batch_size`
hint: write `sequences_per_step = 320`
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
            "remove it: every number goes to `metrics.jsonl` in `checkpoint.out_dir`, and to TensorBoard's event files there",
        ),
        (
            "device=mps",
            "write `auto`: it takes the best device that taper can use here",
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
