//! `to_toml` and back, and texts of any kind.

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::sample::select;
use taper::checkpoint::check_resumable;
use taper::config::*;
use taper::schedule::LrSchedule;
use taper::terms::{Gelu, GemmBackend};

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
    assert_eq!(names.len(), 56);
}

/// Every optional key present.
fn full_config() -> Config {
    let mut config = Config::default();
    config.model.vocab_size = Some(65);
    config.data.train_bin = Some("train*.bin".into());
    config.data.val_bin = Some("val.bin".into());
    config.train.gradient_accumulation_steps = Some(1);
    config.train.sequences_per_step = Some(12);
    config.optimizer.warmdown_iters = Some(10);
    config.train.tokens_per_step = Some(12 * 1024);
    config.eval.eval_batch_size = Some(4);
    config.eval.eval_tasks = Some("hellaswag".into());
    config.eval.eval_tasks_interval = Some(500);
    config.eval.eval_tasks_limit = Some(1000);
    config.checkpoint.checkpoint_interval = Some(100);
    config.system.threads = Some(2);
    config.system.memory_limit = Some(MemoryLimit(1));
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
    let schedules = select(vec![
        LrSchedule::Cosine,
        LrSchedule::Linear,
        LrSchedule::Constant,
        LrSchedule::Wsd,
    ]);
    let guards = (
        schedules,
        proptest::option::of(0.0..0.9),
        0.0..11.25,
        0.0..11.25,
    );
    (rates, moments, steps, guards).prop_map(
        |(
            (learning_rate, share, eps, decay_lr),
            (weight_decay, beta1, beta2, grad_clip),
            (warmup_iters, more),
            (lr_schedule, warmdown, skip_loss_zscore, skip_grad_zscore),
        )| OptimizerConfig {
            learning_rate,
            weight_decay,
            beta1,
            beta2,
            eps,
            grad_clip,
            decay_lr: decay_lr || lr_schedule != LrSchedule::Cosine,
            lr_schedule,
            warmup_iters,
            lr_decay_iters: warmup_iters + more,
            warmdown_iters: warmdown.map(|share: f64| (more as f64 * share) as u64),
            min_lr: learning_rate * share,
            skip_loss_zscore,
            skip_grad_zscore,
        },
    )
}

fn trainings() -> impl Strategy<Value = TrainConfig> {
    // `\PC`: any character that can be shown, quotes and backslashes among them.
    let run = (paths("\\PC{1,20}"), any::<u64>(), any::<u64>(), 1..u64::MAX);
    let size = (batch_sizes(), 0..4_usize, 1..1000_usize);
    (run, size, 0.0..1e300).prop_map(
        |(
            (init_from, seed, max_iters, log_interval),
            (batch_size, spelling, size),
            max_minutes,
        )| TrainConfig {
            init_from,
            seed,
            max_iters,
            batch_size,
            gradient_accumulation_steps: (spelling == 1 && batch_size != BatchSize::Auto)
                .then_some(size),
            sequences_per_step: (spelling == 2).then_some(size),
            tokens_per_step: (spelling == 3).then_some(size),
            max_minutes,
            log_interval,
        },
    )
}

/// Texts of this pattern that are paths as they are written: without what a shell would expand.
fn paths(pattern: &'static str) -> impl Strategy<Value = String> {
    let plain = |text: &String| !text.starts_with('~') && !text.contains(['$', '\0']);
    pattern.prop_filter("a plain path", plain)
}

fn batch_sizes() -> impl Strategy<Value = BatchSize> {
    prop_oneof![
        Just(BatchSize::Auto),
        (1..1000_usize).prop_map(BatchSize::Sequences)
    ]
}

fn files() -> impl Strategy<Value = (DataConfig, CheckpointConfig)> {
    let bins = (
        proptest::option::of(paths("\\PC{1,20}")),
        proptest::option::of(paths("\\PC{1,20}")),
    );
    let data = (paths("\\PC{1,20}"), paths("\\PC{1,20}"), bins);
    let checkpoint = (
        paths("(?s).{1,20}"),
        proptest::option::of(1..u64::MAX),
        1..usize::MAX,
        any::<bool>(),
    );
    (data, checkpoint).prop_map(
        |(
            (dataset, data_dir, (train_bin, val_bin)),
            (out_dir, checkpoint_interval, keep, tensorboard),
        )| {
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
                tensorboard,
            };
            (data, checkpoint)
        },
    )
}

fn evals() -> impl Strategy<Value = EvalConfig> {
    let optional = proptest::option::of(1..65_536_usize);
    let steps = || proptest::option::of(1..u64::MAX);
    let tasks = proptest::option::of(Just("hellaswag,lambada".to_owned()));
    let tasks = (tasks, steps(), steps());
    let size = (1..u64::MAX, 1..65_536_usize, optional);
    (size, any::<bool>(), any::<bool>(), tasks).prop_map(
        |(
            (eval_interval, eval_iters, eval_batch_size),
            eval_on_start,
            eval_only,
            (eval_tasks, eval_tasks_interval, eval_tasks_limit),
        )| EvalConfig {
            eval_interval,
            eval_iters,
            eval_batch_size,
            eval_on_start,
            eval_only,
            eval_tasks,
            eval_tasks_interval,
            eval_tasks_limit,
        },
    )
}

fn machines() -> impl Strategy<Value = (SystemConfig, GemmConfig)> {
    use DtypeRequest::{Bfloat16, Float16, Float32};
    use RecomputeRequest::{Block, GeluLn, None};
    let requests = (
        select(vec![
            DeviceRequest::Auto,
            DeviceRequest::Cpu,
            DeviceRequest::Cuda(0),
            DeviceRequest::Cuda(2),
        ]),
        select(vec![DtypeRequest::Auto, Float32, Bfloat16, Float16]),
        select(vec![RecomputeRequest::Auto, None, GeluLn, Block]),
        select(vec![
            AutotuneRequest::Auto,
            AutotuneRequest::Full,
            AutotuneRequest::Limited,
            AutotuneRequest::Off,
        ]),
        select(vec![
            GemmBackend::Auto,
            GemmBackend::Cublaslt,
            GemmBackend::Ptx,
            GemmBackend::Fma,
        ]),
        proptest::bool::ANY,
        select(vec![
            GraphRequest::Auto,
            GraphRequest::On,
            GraphRequest::Off,
        ]),
    );
    let sizes = (
        proptest::option::of(1..=4096_usize),
        proptest::option::of((1..=u64::MAX).prop_map(MemoryLimit)),
    );
    (requests, sizes).prop_map(
        |(
            (device, dtype, recompute, autotune, backend, tf32, cuda_graph),
            (threads, memory_limit),
        )| {
            let system = SystemConfig {
                device,
                dtype,
                threads,
                memory_limit,
                recompute,
                tf32,
                cuda_graph,
            };
            (system, GemmConfig { autotune, backend })
        },
    )
}

/// Any valid request.
pub fn configs() -> impl Strategy<Value = Config> {
    let parts = (
        models(),
        files(),
        trainings(),
        optimizers(),
        evals(),
        machines(),
    );
    parts.prop_map(
        |(model, (data, checkpoint), mut train, optimizer, eval, (system, gemm))| {
            train.tokens_per_step = train
                .tokens_per_step
                .map(|sequences| sequences * model.block_size);
            Config {
                model,
                data,
                train,
                optimizer,
                eval,
                checkpoint,
                system,
                gemm,
            }
        },
    )
}

proptest! {
    // The strategies name every field, so a key that the table of keys lacks fails here.
    #[test]
    fn every_valid_config_survives_a_round_trip(config in configs()) {
        prop_assert_eq!(try_load(&config.to_toml(), &[]), Ok(config));
    }

    /// A step is what was asked for, whatever micro-batch it is computed in, and a run may go on from
    /// one that was computed in another.
    #[test]
    fn no_micro_batch_changes_the_size_of_a_step(
        config in configs(),
        micro_batch in batch_sizes(),
    ) {
        let sequences = config.sequences_per_step();
        let size = format!("sequences_per_step={sequences}");
        let micro_batch = match micro_batch.pinned() {
            Some(micro_batch) => format!("batch_size={micro_batch}"),
            None => "batch_size=auto".into(),
        };
        let train = &config.train;
        let has_size = train.sequences_per_step.or(train.tokens_per_step).is_some();
        let sets = if has_size { vec![&*micro_batch] } else { vec![&*size, &micro_batch] };
        let changed = try_load(&config.to_toml(), &sets).unwrap();
        prop_assert_eq!(changed.sequences_per_step(), sequences);
        prop_assert!(check_resumable(&changed, &config.to_toml(), 7).is_ok());
    }

    #[test]
    fn no_text_makes_loading_panic(text in "(?s).{0,60}", set in "(?s).{0,30}", key in "[a-z_]{1,8}") {
        let _ = try_load(&text, &[]);
        let _ = try_load("", &[&set]);
        let _ = try_load(&format!("[model]\n{key} = {text}"), &[&format!("{key}={set}"), &format!("out_dir={set}")]);
        let _ = try_load(&format!("[model]\nn_layer = {text}"), &[&format!("seed={set}"), &format!("{set}.seed=1")]);
    }
}
