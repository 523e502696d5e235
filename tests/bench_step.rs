//! What is timed of a training step, and `taper bench step` as a user runs it.

#[allow(dead_code)]
mod process;

use std::collections::BTreeMap;

use serde_json::Value;
use taper::memory::{AllocationError, Memory};
use taper::model::{Lap, ParamLayout, init_values};
use taper::ops::backend::{OpKind, OptimizerSettings, Work};
use taper::ops::cpu::OnCpu;
use taper::outliers::SkipSettings;
use taper::rng::Seed;
use taper::schedule::{LrSchedule, Schedule};
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
            lr_schedule: LrSchedule::Cosine,
            learning_rate: 1e-3,
            min_lr: 1e-4,
            warmup_iters: 1,
            lr_decay_iters: 10,
            warmdown_iters: 0,
        },
        skip: SkipSettings::default(),
    }
}

fn read(sample: u32, inputs: &mut [u32], targets: &mut [u32]) -> Result<(), AllocationError> {
    for (i, (input, target)) in inputs.iter_mut().zip(targets).enumerate() {
        *input = (7 * sample + i as u32) % 48;
        *target = (7 * sample + i as u32 + 1) % 48;
    }
    Ok(())
}

fn trainer(rung: Rung) -> Trainer {
    let (backend, memory) = (Box::new(OnCpu::<f32>::untuned(2)), Memory::default());
    let mut trainer = Trainer::new(&DIMS, backend, vec![rung], settings(), memory).unwrap();
    let layout = trainer.layout.clone();
    let init = |[weights, _, _]: [&mut dyn taper::ops::backend::ValuesMut; 3], _: &Memory| {
        init_values(&layout, Seed(3), weights).unwrap();
        Ok::<_, AllocationError>(())
    };
    trainer.load(init).unwrap();
    trainer
}

/// Of one step, in order.
fn laps(rung: Rung) -> Vec<Lap> {
    let mut trainer = trainer(rung);
    trainer.executor().start_clock();
    trainer.step(0, read).unwrap();
    trainer.executor().stop_clock().unwrap()
}

/// Calls and work of all operations of one kind.
type Parts = BTreeMap<OpKind, (u64, Work)>;

fn parts(rung: Rung) -> Parts {
    let mut parts = Parts::new();
    for Lap { kind, work, .. } in laps(rung) {
        let (calls, sum) = parts.entry(kind).or_default();
        *calls += 1;
        sum.bytes += work.bytes;
        sum.flops += work.flops;
    }
    parts
}

fn calls(parts: &Parts) -> BTreeMap<String, u64> {
    let calls = parts
        .iter()
        .map(|(name, (calls, _))| (name.to_string(), *calls));
    calls.collect()
}

fn expected(counts: &[(OpKind, u64)]) -> BTreeMap<String, u64> {
    let counts = counts
        .iter()
        .map(|(name, count)| (name.to_string(), *count));
    counts.collect()
}

/// Of the weights and both moments.
fn bits(trainer: &mut Trainer) -> [Vec<u32>; 3] {
    trainer.values().map(|values| {
        let values = values.in_host_memory().unwrap();
        values.iter().map(|x| x.to_bits()).collect()
    })
}

#[test]
fn timing_changes_no_bit() {
    let (mut plain, mut timed) = (trainer(RUNG), trainer(RUNG));
    for step in 0..6 {
        // Off, on, and off again.
        if (2..4).contains(&step) {
            timed.executor().start_clock();
        }
        let outcomes = (plain.step(step, read), timed.step(step, read));
        assert_eq!(outcomes.0.unwrap(), outcomes.1.unwrap());
        let was_timed = !timed.executor().stop_clock().unwrap().is_empty();
        assert_eq!(was_timed, (2..4).contains(&step));
        assert_eq!(bits(&mut plain), bits(&mut timed));
    }
}

#[test]
fn every_operation_of_a_step_is_counted() {
    use OpKind::*;
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
    // The loss once, the gradient of the residual stream in every micro-step. The first replaces the gradients.
    step.extend([(Zeroing, 1 + MICRO_STEPS), (Update, 1)]);
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
    step.extend([
        (Zeroing, 1 + MICRO_STEPS),
        (Update, 1),
        (OpKind::Gelu, again),
    ]);
    assert_eq!(calls(&parts(cheap_again)), expected(&step));
}

/// The kinds of the operations of one block, or of those outside the blocks, in order.
fn kinds(laps: &[Lap], layer: Option<usize>) -> Vec<OpKind> {
    let laps = laps.iter().filter(|lap| lap.layer == layer);
    laps.map(|lap| lap.kind).collect()
}

#[test]
fn every_operation_tells_its_block_and_those_outside_the_blocks_tell_none() {
    use OpKind::*;
    let laps = laps(RUNG);
    let blocks = [0, 1].map(|layer| kinds(&laps, Some(layer)));
    assert_eq!(DIMS.n_layer, blocks.len());
    // Four linear layers and attention, two norms of which the second is the next block's; in reverse each layer has
    // two products, and both branches have dropout.
    let per_micro_step = (4 + 1 + 2) + (2 * 4 + 1 + 2 + 2);
    assert_eq!(blocks[0].len() as u64, MICRO_STEPS * per_micro_step);
    assert_eq!(blocks[0], blocks[1]);

    let mut outside = kinds(&laps, None);
    assert_eq!(outside.len() + 2 * blocks[0].len(), laps.len());
    outside.sort_unstable();
    outside.dedup();
    let expected = [
        MicroBatch,
        Zeroing,
        Embedding,
        Norm,
        Logits,
        CrossEntropy,
        LogitsInputGradients,
        LogitsWeightGradients,
        NormGradients,
        EmbeddingGradients,
        Losses,
        Update,
    ];
    assert_eq!(outside, expected);
}

#[test]
fn what_is_recomputed_belongs_to_its_block() {
    let again = laps(Rung {
        recompute: Recompute::Block,
        ..RUNG
    });
    let mut blocks = [0, 1].map(|layer| kinds(&again, Some(layer)));
    // The last block still holds its values.
    assert_eq!(blocks[1], kinds(&laps(RUNG), Some(1)));
    // A norm, and the block up to its activation: three linear layers, attention, and the second norm.
    let more = blocks[0].len() - blocks[1].len();
    assert_eq!(more as u64, MICRO_STEPS * (1 + 3 + 1 + 1));
    for kinds in &mut blocks {
        kinds.retain(|kind| *kind == OpKind::Attention);
    }
    assert_eq!(
        blocks.map(|kinds| kinds.len() as u64),
        [2, 1].map(|n| n * MICRO_STEPS)
    );
}

#[test]
fn products_do_six_flops_per_weight_and_row() {
    use OpKind::*;
    let parts = parts(RUNG);
    let of_matrices = [
        Products,
        InputGradients,
        WeightGradients,
        Logits,
        LogitsInputGradients,
        LogitsWeightGradients,
    ];
    let flops = of_matrices.map(|kind| parts[&kind].1.flops);
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
    assert_eq!(parts[&Attention].1.flops, 2 * 2 * pairs * c);
    assert_eq!(parts[&AttentionGradients].1.flops, 5 * 2 * pairs * c);
    for (name, (_, work)) in &parts {
        let both = work.bytes > 0 && work.flops > 0;
        assert!(!both, "{name}: either memory or arithmetic decides");
    }
}

#[test]
fn what_memory_decides_moves_every_array_once() {
    use OpKind::*;
    let parts = parts(RUNG);
    let bytes = |kind| parts[&kind].1.bytes;
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
    let blocks = object["blocks"].as_array().unwrap();
    let [first, second] = &blocks[..] else {
        panic!("{blocks:?}");
    };
    assert_eq!([&first["name"], &second["name"]], ["h.0", "h.1"]);
    for block in blocks {
        let [seconds, percent] =
            ["seconds", "of_step_percent"].map(|key| block[key].as_f64().unwrap());
        assert!(seconds > 0.0, "{block}");
        near(
            percent * figure("taken_apart_step_seconds"),
            100.0 * seconds,
        );
    }
    // What is in no block is a part, too.
    let in_blocks: f64 = blocks
        .iter()
        .map(|block| block["seconds"].as_f64().unwrap())
        .sum();
    assert!(in_blocks < sum("seconds"), "{in_blocks}");

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
        "\nthe step, taken apart ",
        " 100.0 %\n\nblock ",
        "\nh.0 ",
    ] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("h.1 ") && last.ends_with(" %"), "{text}");
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
