//! What is timed of a training step, and `taper bench step` as a user runs it.

#[allow(dead_code)]
mod process;

use std::collections::BTreeMap;

use serde_json::Value;
use taper::memory::{AllocationError, Memory};
use taper::model::{ParamLayout, init_values};
use taper::ops::backend::OptimizerSettings;
use taper::ops::cpu::OnCpu;
use taper::ops::timed::{HostClock, Operation, Parts, Timed};
use taper::rng::Seed;
use taper::schedule::Schedule;
use taper::step::{StepSettings, Trainer};
use taper::terms::{Gelu, ModelDims, Recompute, Rung};

use process::{Outcome, taper};

const DIMS: ModelDims = ModelDims {
    n_layer: 2,
    n_head: 2,
    n_embd: 16,
    block_size: 8,
    // Not told from 3 C or 4 C by its size.
    vocab_size: 48,
    bias: true,
    dropout: 0.1,
    gelu: Gelu::Tanh,
};

/// Two micro-steps of two sequences, whose 16 rows of logits come in three chunks.
const RUNG: Rung = Rung {
    micro_batch: 2,
    recompute: Recompute::None,
    logits_rows: 6,
};
const MICRO_STEPS: u64 = 2;
const ROWS: u64 = 16;
const CHUNKS: u64 = 3;

fn settings() -> StepSettings {
    StepSettings {
        seed: Seed(3),
        sequences_per_step: 4,
        optimizer: OptimizerSettings {
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            grad_clip: 1.0,
        },
        schedule: Schedule {
            learning_rate: 1e-3,
            min_lr: 1e-4,
            warmup_iters: 1,
            lr_decay_iters: 10,
            decay_lr: true,
        },
    }
}

fn read(sample: u32, inputs: &mut [u32], targets: &mut [u32]) -> Result<(), AllocationError> {
    for (i, (input, target)) in inputs.iter_mut().zip(targets).enumerate() {
        *input = (7 * sample + i as u32) % 48;
        *target = (7 * sample + i as u32 + 1) % 48;
    }
    Ok(())
}

fn timed(rung: Rung) -> Trainer<Timed<OnCpu<f32>, HostClock>> {
    let backend = Timed::new(
        OnCpu::untuned(2),
        HostClock,
        &DIMS,
        ParamLayout::new(&DIMS).len,
    );
    let memory = Memory::default();
    let mut trainer = Trainer::new(&DIMS, backend, vec![rung], settings(), memory).unwrap();
    fill(&mut trainer);
    trainer
}

fn fill<B: taper::ops::backend::StoredBackend>(trainer: &mut Trainer<B>) {
    let layout = trainer.layout.clone();
    let init = |[weights, _, _]: [&mut dyn taper::ops::backend::ValuesMut; 3], _: &Memory| {
        init_values(&DIMS, &layout, Seed(3), weights).unwrap();
        Ok::<_, AllocationError>(())
    };
    trainer.load(init).unwrap();
}

/// Of one step.
fn parts(rung: Rung) -> Parts {
    let mut trainer = timed(rung);
    trainer.backend().start();
    trainer.step(0, read).unwrap();
    trainer.backend().stop().unwrap()
}

fn calls(parts: &Parts) -> BTreeMap<String, u64> {
    let calls = parts
        .iter()
        .map(|(name, spent)| (name.to_string(), spent.calls));
    calls.collect()
}

fn expected(counts: &[(Operation, u64)]) -> BTreeMap<String, u64> {
    let counts = counts
        .iter()
        .map(|(name, count)| (name.to_string(), *count));
    counts.collect()
}

#[test]
fn timing_changes_no_bit() {
    let memory = Memory::default();
    let backend = OnCpu::<f32>::untuned(2);
    let mut plain = Trainer::new(&DIMS, backend, vec![RUNG], settings(), memory).unwrap();
    fill(&mut plain);
    let mut timed = timed(RUNG);
    for step in 0..6 {
        // Off, on, and off again.
        if (2..4).contains(&step) {
            timed.backend().start();
        }
        let outcomes = (plain.step(step, read), timed.step(step, read));
        assert_eq!(outcomes.0.unwrap(), outcomes.1.unwrap());
        let was_timed = !timed.backend().stop().unwrap().is_empty();
        assert_eq!(was_timed, (2..4).contains(&step));
        let bits = |weights: &[f32]| weights.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&plain.state.weights), bits(&timed.state.weights));
        assert_eq!(bits(&plain.state.v), bits(&timed.state.v));
    }
}

#[test]
fn every_operation_of_a_step_is_counted() {
    use Operation::*;
    let layers = DIMS.n_layer as u64;
    let per_micro_step = [
        (MicroBatch, 1),
        (Embedding, 1),
        (Norm, 1),
        (ResidualNorm, 2 * layers),
        (Products, 4 * layers),
        (Attention, layers),
        (Logits, CHUNKS),
        (CrossEntropy, CHUNKS),
        (LogitsInputGradients, CHUNKS),
        (LogitsWeightGradients, CHUNKS),
        (InputGradients, 4 * layers),
        (WeightGradients, 4 * layers),
        (AttentionGradients, layers),
        (NormGradients, 2 * layers + 1),
        (Dropout, 2 * layers),
        (EmbeddingGradients, 1),
        (Losses, 1),
    ];
    let mut counts = per_micro_step.map(|(name, count)| (name, MICRO_STEPS * count));
    let mut step = counts.to_vec();
    // Gradients and the loss once, the gradient of the residual stream in every micro-step.
    step.extend([(Zeroing, 2 + MICRO_STEPS), (Update, 1)]);
    assert_eq!(calls(&parts(RUNG)), expected(&step));

    let cheap_again = Rung {
        recompute: Recompute::GeluLn,
        ..RUNG
    };
    // All blocks but the last: two norms and GELU.
    let again = MICRO_STEPS * (layers - 1);
    for (name, count) in &mut counts {
        if *name == Norm {
            *count += 2 * again;
        }
    }
    let mut step = counts.to_vec();
    step.extend([(Zeroing, 2 + MICRO_STEPS), (Update, 1), (Gelu, again)]);
    assert_eq!(calls(&parts(cheap_again)), expected(&step));
}

#[test]
fn products_do_six_flops_per_weight_and_row() {
    use Operation::*;
    let parts = parts(RUNG);
    let of_matrices = [
        Products,
        InputGradients,
        WeightGradients,
        Logits,
        LogitsInputGradients,
        LogitsWeightGradients,
    ];
    let flops = of_matrices.map(|name| parts[&name].work.flops);
    let rows = MICRO_STEPS * ROWS;
    let (c, v, layers) = (16, 48, DIMS.n_layer as u64);
    let blocks = 2 * 12 * c * c * layers * rows;
    let classifier = 2 * v * c * rows;
    assert_eq!(flops[..3], [blocks; 3]);
    assert_eq!(flops[3..], [classifier; 3]);
    assert_eq!(
        flops.iter().sum::<u64>(),
        6 * (12 * c * c * layers + v * c) * rows
    );
    // Two and five products of T (T + 1) / 2 pairs and C channels.
    let pairs = 4 * layers * (8 * 9 / 2);
    assert_eq!(parts[&Attention].work.flops, 2 * 2 * pairs * c);
    assert_eq!(parts[&AttentionGradients].work.flops, 5 * 2 * pairs * c);
    for (name, spent) in &parts {
        let both = spent.work.bytes > 0 && spent.work.flops > 0;
        assert!(!both, "{name}: either memory or arithmetic decides");
    }
}

#[test]
fn what_memory_decides_moves_every_array_once() {
    use Operation::*;
    let parts = parts(RUNG);
    let bytes = |name| parts[&name].work.bytes;
    let (rows, c, v) = (MICRO_STEPS * ROWS, 16, 48);
    let parameters = ParamLayout::new(&DIMS).len as u64;
    // x and out; weight and bias; mean and deviation.
    let norm = 2 * rows * c + MICRO_STEPS * 2 * c + 2 * rows;
    assert_eq!(bytes(Norm), 4 * norm);
    // The logits become their gradients; a loss and a target per row.
    assert_eq!(bytes(CrossEntropy), 4 * (2 * rows * v + 2 * rows));
    assert_eq!(bytes(Dropout), 4 * 2 * rows * c * 2 * DIMS.n_layer as u64);
    assert_eq!(bytes(Update), 32 * parameters);
    // Gradients are not zeroed: the first micro-step replaces them.
    assert_eq!(bytes(Zeroing), 4 * rows * c);
}

const SMALL: &str = "model.n_layer=2 model.n_head=2 model.n_embd=16 model.block_size=16 \
    model.dropout=0.1 model.bias=true train.sequences_per_step=4 train.batch_size=2";

/// In a folder without data.
fn bench(words: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = vec!["bench", "step", "--square", "64"];
    for setting in SMALL.split_whitespace() {
        arguments.extend(["--set", setting]);
    }
    arguments.extend(words.split_whitespace());
    let outcome = taper(folder.path(), &arguments);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    outcome
}

#[test]
fn json_has_every_figure_and_its_parts_are_the_whole() {
    let outcome = bench("--device cpu --steps 5 --json").succeeded();
    assert_eq!((outcome.stdout.lines().count(), &*outcome.stderr), (1, ""));
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let figure = |key: &str| {
        let figure = object[key].as_f64();
        figure.unwrap_or_else(|| panic!("{key} in {object}"))
    };
    assert_eq!(object["device"]["hardware"]["kind"], "cpu");
    assert_eq!(object["rung"]["micro_batch"], 2);
    assert_eq!(figure("gradient_accumulation_steps"), 2.0);
    assert_eq!(figure("tokens_per_step"), 64.0);
    assert_eq!(object["step_seconds"].as_array().unwrap().len(), 5);
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
    near(
        figure("tokens_per_second") * figure("median_step_seconds"),
        64.0,
    );
    let achieved = figure("model_flops_per_token") * figure("tokens_per_second");
    near(figure("model_flops_per_second"), achieved);
    let ceiling = figure("ceiling_flops_per_second");
    let share = figure("model_flops_of_ceiling_percent");
    near(share * ceiling, 100.0 * achieved);
    assert_eq!(object["model_flops_formula"], "6 N + 12 L H Q T");
    // A CPU has no datasheet.
    assert!(object["peak_flops_per_second"].is_null());
    let used = figure("used_of_planned_percent") * figure("planned_bytes");
    near(used, 100.0 * figure("used_bytes"));

    let parts = object["parts"].as_array().unwrap();
    let sum = |key: &str| -> f64 { parts.iter().map(|part| part[key].as_f64().unwrap()).sum() };
    near(
        sum("seconds") + figure("other_seconds"),
        figure("taken_apart_step_seconds"),
    );
    near(sum("of_step_percent") + figure("other_percent"), 100.0);
    for part in parts {
        assert!(part["calls"].as_u64().unwrap() > 0, "{part}");
        assert!(part["of_memory_bandwidth_percent"].is_null(), "{part}");
        assert!(part["flops"].is_null() || part["bytes"].is_null());
    }
    let names = |part: &Value| part["name"].as_str().unwrap().to_owned();
    let names: Vec<String> = parts.iter().map(names).collect();
    for name in ["attention", "logits_weight_gradients", "update"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
}

#[test]
fn text_names_the_formula_the_ceiling_and_every_part() {
    let outcome = bench("--steps 2").succeeded();
    assert_eq!(outcome.stderr, "");
    let text = outcome.stdout;
    let heading = "a training step of quickstart.toml on ";
    assert!(text.starts_with(heading), "{text}");
    for words in [
        "\n  step         4 sequences x 16 tokens = 64 tokens\n",
        "\n  rung         micro-batch 2, recompute none",
        "; 2 x per step\n",
        "\n  speed        ",
        "the median of 2, ",
        "nanoGPT's 6 N + 12 L H Q T = ",
        ", the ceiling: a large square product in this run\n",
        " planned; ",
        " resident at its peak, ",
        " GB/s\n",
        " % of the ceiling\n",
        "\nresidual + norm ",
        "\nattention backward ",
        "\ngradient norm, AdamW ",
        "\nother ",
    ] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
    assert!(text.ends_with("100.0 %\n"), "{text}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    bench("--config nosuch.toml").refused(&["`nosuch.toml`"]);
    bench("--set model.n_embd=17").refused(&["n_head"]);
    bench("--set system.memory_limit=1MiB").refused(&["1.0 MiB"]);
    bench("--set optimizer.learning_rate=1e30 --set optimizer.warmup_iters=0 --json")
        .refused(&["diverged at step 2"]);
    let wrong = [
        ("--steps 0", "--steps"),
        ("--steps many", "--steps"),
        ("--device tpu", "tpu"),
        ("--square 0", "--square"),
    ];
    for (words, word) in wrong {
        let outcome = bench(words);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(word), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    }
}
