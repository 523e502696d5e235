//! `to_toml` and back, and texts of any kind.

use std::collections::HashSet;

use proptest::prelude::*;
use taper::config::*;

use super::try_load;

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
