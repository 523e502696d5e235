//! A trainer in memory, small enough to train hundreds of times, and all that can be seen of it. On any backend.

use std::cell::RefCell;

use taper::faults::{Faults, Site};
use taper::memory::{AllocationError, Memory};
use taper::model::init_values;
use taper::ops::backend::{Backend, CHUNK, OptimizerSettings, Values};
use taper::ops::cpu::OnCpu;
use taper::outliers::{Outliers, SkipSettings, Watched};
use taper::rng::{Seed, Stream};
use taper::schedule::{LrSchedule, Schedule};
use taper::step::recovery::Recovery;
use taper::step::{StepOutcome, StepSettings, Trainer};
use taper::terms::{Gelu, ModelDims, Recompute, Rung};

/// Three micro-steps on the first rung.
pub const SEQUENCES_PER_STEP: usize = 12;
/// Two micro-batches on the first rung, the second of them smaller.
pub const EVAL_SEQUENCES: usize = 6;
pub const VOCAB_SIZE: usize = 19;
const THREADS: usize = 2;

pub fn dims() -> ModelDims {
    ModelDims {
        n_layer: 2,
        n_head: 2,
        n_embd: 8,
        block_size: 8,
        vocab_size: VOCAB_SIZE,
        bias: true,
        dropout: 0.2,
        gelu: Gelu::Tanh,
    }
}

/// From rung to rung everything changes that a rung can change.
pub fn ladder() -> Vec<Rung> {
    let rung = |micro_batch, recompute, logits_rows| Rung {
        micro_batch,
        recompute,
        logits_rows,
    };
    vec![
        rung(4, Recompute::None, 32),
        rung(2, Recompute::GeluLn, 6),
        rung(1, Recompute::Block, 8),
    ]
}

pub fn injected(injections: &[String]) -> Memory {
    Memory::limited(None, 0, faults(injections))
}

pub fn faults(injections: &[String]) -> Faults {
    Faults::new(
        injections
            .iter()
            .map(|text| text.parse().unwrap())
            .collect(),
    )
}

/// Untrained weights, at the first rung of `ladder` that is granted.
pub fn trainer(ladder: Vec<Rung>, memory: Memory) -> Result<Trainer, AllocationError> {
    let backend = Box::new(OnCpu::<f32>::untuned(THREADS));
    trainer_of(&dims(), backend, ladder, memory)
}

/// As [`trainer`], of any model anywhere.
pub fn trainer_of(
    dims: &ModelDims,
    backend: Box<dyn Backend>,
    ladder: Vec<Rung>,
    memory: Memory,
) -> Result<Trainer, AllocationError> {
    guarded_trainer_of(dims, backend, ladder, memory, SkipSettings::default())
}

/// As [`trainer_of`], without the updates of outliers.
pub fn guarded_trainer_of(
    dims: &ModelDims,
    backend: Box<dyn Backend>,
    ladder: Vec<Rung>,
    memory: Memory,
    skip: SkipSettings,
) -> Result<Trainer, AllocationError> {
    let settings = StepSettings {
        seed: Seed(5),
        sequences_per_step: SEQUENCES_PER_STEP,
        optimizer: OptimizerSettings {
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            grad_clip: 1.0,
        },
        schedule: Schedule {
            lr_schedule: LrSchedule::Cosine,
            learning_rate: 1e-2,
            min_lr: 1e-3,
            warmup_iters: 2,
            lr_decay_iters: 20,
            warmdown_iters: 0,
        },
        skip,
    };
    let mut trainer = Trainer::new(dims, backend, ladder, settings, memory)?;
    let layout = trainer.layout.clone();
    trainer.load(|[weights, _, _], _| {
        init_values(&layout, Seed(5), weights).unwrap();
        Ok::<_, AllocationError>(())
    })?;
    Ok(trainer)
}

fn all(values: &dyn Values) -> Vec<f32> {
    let mut all = vec![0.0; values.len()];
    for (index, chunk) in all.chunks_mut(CHUNK).enumerate() {
        values.read(index * CHUNK, chunk).unwrap();
    }
    all
}

/// A guard that has seen 128 losses of about 1,000 and norms of about `norm`.
fn seen(norm: f64) -> Outliers {
    let noisy = |middle: f64| (0..128).map(move |step| middle * (1.0 + 1e-3 * f64::from(step % 7)));
    let stored = serde_json::json!({
        "losses": noisy(1000.0).collect::<Vec<_>>(),
        "grad_norms": noisy(norm).collect::<Vec<_>>(),
        "skipped": 0,
    });
    serde_json::from_value(stored).unwrap()
}

/// Trains two steps whose loss and norm are no outliers, and two whose norm is one, with a trainer of `make`. The first two are
/// those of a trainer without a guard, bit for bit, and the others change nothing.
pub fn assert_outliers_are_left_out(make: impl Fn(SkipSettings) -> Trainer) {
    let guards = SkipSettings {
        loss_zscore: 5.0,
        grad_zscore: 5.0,
    };
    let work = [Work::Step(0), Work::Save, Work::Step(1), Work::Save];
    let run = |trainer: &mut Trainer, work: &[Work]| {
        let mut history = History::default();
        perform(trainer, work, &mut history).unwrap();
        history.seen
    };
    let mut guarded = make(guards);
    guarded.outliers = seen(1e6);
    let usual = run(&mut guarded, &work);
    assert!(usual == run(&mut make(SkipSettings::default()), &work));
    assert_eq!(guarded.outliers.skipped, 0);

    let mut twin = make(SkipSettings::default());
    run(&mut twin, &work);
    guarded.outliers = seen(1e-6);
    let left_out = run(
        &mut guarded,
        &[Work::Step(2), Work::Save, Work::Step(3), Work::Save],
    );
    assert!(
        left_out[1] == usual[3] && left_out[3] == usual[3],
        "something changed"
    );
    assert_eq!(guarded.outliers.skipped, 2);
    // Loss and norm are those of the step that was not taken.
    let [Seen::Step(taken)] = run(&mut twin, &[Work::Step(2)])[..] else {
        panic!("no step");
    };
    let Seen::Step(outcome) = &left_out[0] else {
        panic!("no step");
    };
    let skipped = outcome.skipped.unwrap();
    assert_eq!((skipped.watched, skipped.allowed), (Watched::GradNorm, 5.0));
    assert_eq!(
        StepOutcome {
            skipped: None,
            ..*outcome
        },
        taken
    );
    // It goes on where it stood.
    guarded.outliers = seen(1e6);
    run(&mut guarded, &[Work::Step(2)]);
    assert!(run(&mut guarded, &[Work::Save]) == run(&mut twin, &[Work::Save]));
}

/// Goes on with the weights and moments of `from`, as a resumed run does.
pub fn hand_over(from: &mut Trainer, to: &mut Trainer) {
    let saved = from.values().map(|values| all(&*values));
    to.loss_scale = from.loss_scale;
    to.load(|into, _| {
        for (into, saved) in into.into_iter().zip(&saved) {
            for (index, chunk) in saved.chunks(CHUNK).enumerate() {
                into.write(index * CHUNK, chunk).unwrap();
            }
        }
        Ok::<_, AllocationError>(())
    })
    .unwrap();
}

/// The weights, in fp32.
pub fn weights(trainer: &mut Trainer) -> Vec<f32> {
    let [weights, _, _] = trainer.values();
    all(&*weights)
}

/// Sample number `sample` of `step`; evaluations have a number of their own.
pub fn read_sample(step: u32, sample: u32, inputs: &mut [u32], targets: &mut [u32]) {
    let token = |position: usize| {
        let id = Seed(9).below(
            Stream::TrainOrder,
            0,
            step,
            sample << 8 | position as u32,
            97,
        );
        // Later tokens are a function of the first, so that there is something to learn.
        (id * id % VOCAB_SIZE as u64) as u32
    };
    for (position, input) in inputs.iter_mut().enumerate() {
        *input = token(position);
    }
    for (position, target) in targets.iter_mut().enumerate() {
        *target = token(position + 1);
    }
}

const EVALUATION: u32 = u32::MAX;

/// What a run does, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    Step(u64),
    Evaluate,
    Save,
}

impl Work {
    /// How often a trainer on the first rung passes `site` in this work.
    pub fn passes(self, site: Site) -> u64 {
        match (self, site) {
            (Work::Step(_), Site::Forward | Site::Backward) => 3,
            (Work::Evaluate, Site::Eval) => 2,
            (Work::Save, Site::Checkpoint) => 1,
            _ => 0,
        }
    }
}

/// Everything of a piece of work that a user could notice.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Step(StepOutcome),
    Loss(f64),
    Saved {
        weights: Vec<f32>,
        m: Vec<f32>,
        v: Vec<f32>,
        rung: Rung,
    },
}

/// What was seen of every piece of work, the samples that each read, and its recoveries.
#[derive(Default)]
pub struct History {
    pub seen: Vec<Seen>,
    pub samples: Vec<Vec<u32>>,
    pub recoveries: Vec<Vec<Recovery>>,
}

impl History {
    pub fn all_recoveries(&self) -> Vec<(Site, Rung, Rung)> {
        let all = self.recoveries.iter().flatten();
        all.map(|r| (r.site, r.from, r.to)).collect()
    }
}

pub fn perform(
    trainer: &mut Trainer,
    work: &[Work],
    history: &mut History,
) -> Result<(), AllocationError> {
    for &work in work {
        let samples = RefCell::new(Vec::new());
        let mut recoveries = Vec::new();
        let done = one(trainer, work, &samples, &mut recoveries);
        history.samples.push(samples.into_inner());
        recoveries.extend(trainer.take_recoveries());
        history.recoveries.push(recoveries);
        history.seen.push(done?);
    }
    Ok(())
}

fn one(
    trainer: &mut Trainer,
    work: Work,
    samples: &RefCell<Vec<u32>>,
    recoveries: &mut Vec<Recovery>,
) -> Result<Seen, AllocationError> {
    let reader = |step: u32| {
        move |sample: u32, inputs: &mut [u32], targets: &mut [u32]| {
            samples.borrow_mut().push(sample);
            read_sample(step, sample, inputs, targets);
            Ok(())
        }
    };
    match work {
        Work::Step(step) => trainer.step(step, reader(step as u32)).map(Seen::Step),
        Work::Evaluate => {
            let loss = trainer.evaluate(EVAL_SEQUENCES, reader(EVALUATION));
            loss.map(Seen::Loss)
        }
        Work::Save => trainer.save(|saved| {
            recoveries.extend(saved.recoveries);
            Ok(Seen::Saved {
                weights: all(saved.weights),
                m: all(saved.m),
                v: all(saved.v),
                rung: saved.rung,
            })
        }),
    }
}
