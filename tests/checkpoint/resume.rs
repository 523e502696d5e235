//! A config may go on from a checkpoint only if it is the same experiment.

use taper::checkpoint::{CheckpointError, Difference, check_resumable};
use taper::config::{BatchSize, Config};
use taper::schedule::LrSchedule;

fn differences(current: &Config, stored: &str) -> Vec<Difference> {
    differences_after(7, current, stored)
}

/// After so many steps.
fn differences_after(done: u64, current: &Config, stored: &str) -> Vec<Difference> {
    match check_resumable(current, stored, done) {
        Ok(()) => Vec::new(),
        Err(CheckpointError::Contradiction { differences }) => differences,
        Err(other) => panic!("expected differences, got {other:?}"),
    }
}

fn stored(config: &Config) -> String {
    toml::to_string(config).unwrap()
}

#[test]
fn a_contradiction_lists_every_key_with_both_values_and_the_edit() {
    let mut before = Config::default();
    before.model.n_embd = 384;
    before.data.dataset = "shakespeare_char".into();
    before.optimizer.learning_rate = 1e-3;
    let mut now = before.clone();
    now.model.n_embd = 128;
    now.data.dataset = "openwebtext".into();
    now.data.train_bin = Some("x.bin".into());
    now.optimizer.learning_rate = 6e-4;
    now.optimizer.lr_decay_iters += 1;
    let error = check_resumable(&now, &stored(&before), 7).unwrap_err();
    let (text, hint) = (error.to_string(), error.hint().unwrap());
    for line in [
        "`model.n_embd`: the checkpoint has 384, the config has 128",
        "`data.dataset`: the checkpoint has \"shakespeare_char\", the config has \"openwebtext\"",
        "`data.train_bin`: the checkpoint has nothing, the config has \"x.bin\"",
        "`optimizer.learning_rate`: the checkpoint has 0.001, the config has 0.0006",
        "`optimizer.lr_decay_iters`: the checkpoint has 600000, the config has 600001",
    ] {
        assert!(text.contains(line), "`{line}` is not in\n{text}");
    }
    for edit in [
        "`--set model.n_embd=384`",
        "`--set data.dataset=shakespeare_char`",
        "remove `data.train_bin`",
    ] {
        assert!(hint.contains(edit), "`{edit}` is not in\n{hint}");
    }
}

/// Walks the keys of the config as it is today, so that a new key is defining unless listed here.
#[test]
fn every_key_defines_the_experiment_unless_it_is_known_not_to() {
    let free = [
        "data.data_dir",
        "train.init_from",
        "train.max_iters",
        "train.max_minutes",
        "train.log_interval",
        "optimizer.skip_loss_zscore",
        "optimizer.skip_grad_zscore",
        "eval.eval_interval",
        "eval.eval_iters",
        "eval.eval_on_start",
        "eval.eval_only",
        "checkpoint.out_dir",
        "checkpoint.keep",
        "checkpoint.tensorboard",
        "system.device",
        "system.dtype",
        "system.recompute",
        "system.tf32",
        "system.cuda_graph",
        "gemm.autotune",
        "gemm.backend",
    ];
    let config = Config::default();
    let sections: toml::Table = toml::from_str(&stored(&config)).unwrap();
    let mut refused = 0;
    for (section, keys) in &sections {
        for (key, value) in keys.as_table().unwrap() {
            let name = format!("{section}.{key}");
            let mut edited = sections.clone();
            edited[section.as_str()][key.as_str()] = match value {
                toml::Value::Integer(n) => (n + 1).into(),
                toml::Value::Float(x) => (x + 0.25).into(),
                toml::Value::Boolean(b) => (!b).into(),
                _ => match key.as_str() {
                    "batch_size" => 12.into(),
                    "recompute" => "block".into(),
                    "autotune" => "full".into(),
                    "backend" => "ptx".into(),
                    "cuda_graph" => "on".into(),
                    "gelu" => "erf".into(),
                    "device" => "cpu".into(),
                    "dtype" => "float32".into(),
                    "lr_schedule" => "linear".into(),
                    _ => "another".into(),
                },
            };
            let edited: Config = edited.try_into().unwrap();
            let found = differences(&edited, &stored(&config));
            if free.contains(&name.as_str()) {
                assert_eq!(found, [], "{name} may change");
            } else {
                let expected = match name.as_str() {
                    "train.batch_size" => "train.sequences_per_step",
                    name => name,
                };
                assert_eq!(found.iter().map(|d| &d.key).collect::<Vec<_>>(), [expected]);
                refused += 1;
            }
        }
    }
    assert!(refused > 15, "only {refused} keys were held fast");
}

#[test]
fn the_decay_of_a_stable_rate_may_change_until_it_begins() {
    let mut before = Config::default();
    before.optimizer.lr_schedule = LrSchedule::Wsd;
    (
        before.optimizer.warmup_iters,
        before.optimizer.lr_decay_iters,
    ) = (100, 1000);
    let mut now = before.clone();
    (now.optimizer.lr_decay_iters, now.optimizer.min_lr) = (2000, 0.0);
    now.optimizer.warmdown_iters = Some(500);
    let keys = |done: u64, now: &Config, before: &Config| -> Vec<String> {
        let found = differences_after(done, now, &stored(before));
        found.into_iter().map(|difference| difference.key).collect()
    };
    let of_decay = ["lr_decay_iters", "min_lr", "warmdown_iters"];
    let of_decay = of_decay.map(|key| format!("optimizer.{key}"));
    // A fifth of 1,000 steps is the decay of the one, the last 500 of 2,000 that of the other.
    assert_eq!(keys(800, &now, &before), [""; 0]);
    assert_eq!(keys(801, &now, &before), of_decay);
    assert_eq!(keys(801, &before, &now), of_decay);

    before.optimizer.lr_schedule = LrSchedule::Constant;
    assert_eq!(keys(1500, &now, &before), [""; 0]);
    assert_eq!(keys(1501, &now, &before).len(), 4);
    now.optimizer.learning_rate = 1e-2;
    assert_eq!(keys(800, &now, &before), ["optimizer.learning_rate"]);

    let cosine = Config::default();
    let mut other = cosine.clone();
    other.optimizer.lr_schedule = LrSchedule::Wsd;
    assert_eq!(keys(1, &other, &cosine), ["optimizer.lr_schedule"]);
}

#[test]
fn the_batch_may_change_while_the_step_stays_the_same() {
    let mut before = Config::default();
    (
        before.train.batch_size,
        before.train.gradient_accumulation_steps,
    ) = (BatchSize::Sequences(12), Some(40));
    let mut now = before.clone();
    for batch_size in [1, 6, 8, 60, 480] {
        now.train.batch_size = BatchSize::Sequences(batch_size);
        now.train.gradient_accumulation_steps = Some(480 / batch_size);
        assert_eq!(differences(&now, &stored(&before)), []);
    }
    now.train.gradient_accumulation_steps = None;
    now.train.tokens_per_step = Some(480 * 1024);
    assert_eq!(differences(&now, &stored(&before)), []);
    (now.train.tokens_per_step, now.train.sequences_per_step) = (None, Some(480));
    assert_eq!(differences(&now, &stored(&before)), []);
    now.train.batch_size = BatchSize::Auto;
    assert_eq!(differences(&now, &stored(&before)), []);
    now.train.sequences_per_step = None;
    assert_eq!(differences(&now, &stored(&before)), [], "the default");
}

/// As taper 0.1.0 saved them: the batch always a number, the later sections absent.
#[test]
fn an_older_checkpoint_keeps_its_step() {
    let older = "[train]\nbatch_size = 12\n";
    let mut now = Config::default();
    now.train.sequences_per_step = Some(12);
    assert_eq!(differences(&now, older), []);
}

#[test]
fn the_edit_for_another_step_size_keeps_the_spelling_and_works() {
    let mut before = Config::default();
    before.train.sequences_per_step = Some(480);
    for (spelling, expected) in [
        (
            "batch_size=64 gradient_accumulation_steps=2",
            "`--set train.batch_size=60 --set train.gradient_accumulation_steps=8`",
        ),
        (
            "batch_size=7 gradient_accumulation_steps=2",
            "`--set train.batch_size=6 --set train.gradient_accumulation_steps=80`",
        ),
        (
            "batch_size=8 sequences_per_step=64",
            "`--set train.sequences_per_step=480`",
        ),
        (
            "batch_size=8 tokens_per_step=8192",
            "`--set train.tokens_per_step=491520`",
        ),
        ("batch_size=8", "`--set train.sequences_per_step=480`"),
        (
            "sequences_per_step=64",
            "`--set train.sequences_per_step=480`",
        ),
        (
            "tokens_per_step=8192",
            "`--set train.tokens_per_step=491520`",
        ),
    ] {
        let mut sets: Vec<String> = spelling.split(' ').map(String::from).collect();
        let now = load(&sets);
        let [difference] = &differences(&now, &stored(&before))[..] else {
            panic!("expected one difference");
        };
        assert_eq!(difference.edit, expected, "{spelling}");
        // The last `--set` of a key counts, and two spellings would be refused.
        let edit = difference.edit.trim_matches('`').replace("--set ", "");
        sets.extend(edit.split(' ').map(String::from));
        assert_eq!(differences(&load(&sets), &stored(&before)), []);
    }
    before.train.sequences_per_step = Some(16);
    let [difference] = &differences(&Config::default(), &stored(&before))[..] else {
        panic!("expected one difference");
    };
    assert_eq!(difference.edit, "`--set train.sequences_per_step=16`");
}

/// `sets` on top of the defaults.
fn load(sets: &[String]) -> Config {
    let empty = tempfile::NamedTempFile::new().unwrap();
    Config::load(empty.path().to_str().unwrap(), sets).unwrap()
}

#[test]
fn a_vocabulary_that_the_dataset_decides_does_not_contradict() {
    let mut before = Config::default();
    before.model.vocab_size = Some(65);
    assert_eq!(differences(&Config::default(), &stored(&before)), []);
    let mut now = Config::default();
    now.model.vocab_size = Some(66);
    assert_eq!(differences(&now, &stored(&before)).len(), 1);
}

#[test]
fn the_largest_seed_can_go_on() {
    let mut config = Config::default();
    config.train.seed = u64::MAX;
    assert_eq!(differences(&config, &stored(&config)), []);
}

#[test]
fn keys_that_the_stored_config_does_not_have_yet_have_their_defaults() {
    assert_eq!(differences(&Config::default(), ""), []);
    let error =
        check_resumable(&Config::default(), "[model]\nfrom_the_future = 1\n", 7).unwrap_err();
    assert!(
        matches!(error, CheckpointError::StoredConfig { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("from_the_future"), "{error}");
}
