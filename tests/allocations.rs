//! What a trainer allocates, against its plan. Alone in its process: it replaces the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use taper::memory::{AllocationError, Memory};
use taper::model::Program;
use taper::ops::backend::OptimizerSettings;
use taper::ops::cpu::OnCpu;
use taper::ops::gemm::cpu::packed_bytes;
use taper::ops::gemm::{Cpu, Products, Table};
use taper::outliers::SkipSettings;
use taper::rng::Seed;
use taper::schedule::{LrSchedule, Schedule};
use taper::step::scoring::{Scoring, SequenceScore};
use taper::step::{StepSettings, Trainer};
use taper::terms::{Effort, Engine, Gelu, Inputs, Job, ModelDims, Precision, Recompute, Rung};

const THREADS: usize = 2;

/// Every buffer of the model below is larger, and nothing that only keeps the books is.
const BUFFER: usize = 16 << 10;

/// Allocations of at least [`BUFFER`] bytes. Those aligned to a cache line are the operands that a
/// matrix product packs, all others are buffers.
struct Counters {
    buffers: AtomicUsize,
    live: AtomicUsize,
    packed: AtomicUsize,
    most_packed: AtomicUsize,
}

static COUNTERS: Counters = Counters {
    buffers: AtomicUsize::new(0),
    live: AtomicUsize::new(0),
    packed: AtomicUsize::new(0),
    most_packed: AtomicUsize::new(0),
};

impl Counters {
    fn add(&self, layout: Layout) {
        if layout.size() < BUFFER {
            return;
        }
        if layout.align() >= 64 {
            let packed = self.packed.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
            self.most_packed.fetch_max(packed, Ordering::Relaxed);
        } else {
            self.buffers.fetch_add(1, Ordering::Relaxed);
            self.live.fetch_add(layout.size(), Ordering::Relaxed);
        }
    }

    fn remove(&self, layout: Layout) {
        if layout.size() < BUFFER {
            return;
        }
        let counter = if layout.align() >= 64 {
            &self.packed
        } else {
            &self.live
        };
        counter.fetch_sub(layout.size(), Ordering::Relaxed);
    }

    fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    fn buffers(&self) -> usize {
        self.buffers.load(Ordering::Relaxed)
    }
}

struct Counting;

// SAFETY: `System` does the work; `realloc` and `alloc_zeroed` come to `alloc` by default.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTERS.add(layout);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        COUNTERS.remove(layout);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The counters are the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn dims() -> ModelDims {
    ModelDims {
        n_layer: 3,
        n_head: 4,
        n_embd: 64,
        block_size: 256,
        vocab_size: 300,
        bias: true,
        dropout: 0.1,
        gelu: Gelu::Tanh,
    }
}

fn rung(recompute: Recompute) -> Rung {
    Rung {
        micro_batch: 16,
        recompute,
        logits_rows: 1024,
    }
}

fn program(recompute: Recompute) -> Program {
    let engine = Engine::Cpu { threads: THREADS };
    Program::of(
        Job::Train,
        &dims(),
        rung(recompute),
        engine,
        Precision::Float32,
    )
}

fn trainer(recompute: Recompute, effort: Effort) -> Trainer {
    let settings = StepSettings {
        seed: Seed(1),
        sequences_per_step: 32,
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
    };
    let ladder = vec![rung(recompute)];
    let products = Products::new(Cpu::default(), effort, None, Table::default());
    let backend = Box::new(OnCpu::<f32>::new(THREADS, products));
    Trainer::new(&dims(), backend, ladder, settings, Memory::default()).unwrap()
}

fn read(sample: u32, inputs: &mut [u32], targets: &mut [u32]) -> Result<(), AllocationError> {
    for (i, (input, target)) in inputs.iter_mut().zip(targets).enumerate() {
        *input = (sample + i as u32) % 300;
        *target = (sample + i as u32 + 1) % 300;
    }
    Ok(())
}

/// Sequences of all lengths, of which the second half is scored.
struct Sequences {
    scored: usize,
}

impl Scoring<AllocationError> for Sequences {
    fn count(&self) -> usize {
        25
    }

    fn positions(&self, index: usize) -> usize {
        256 - 8 * index
    }

    fn scored(&self, index: usize) -> Range<usize> {
        self.positions(index) / 2..self.positions(index)
    }

    fn wants_greedy(&self) -> bool {
        true
    }

    fn read(
        &self,
        index: usize,
        inputs: &mut [u32],
        targets: &mut [u32],
    ) -> Result<(), AllocationError> {
        read(index as u32, inputs, targets)
    }

    fn record(&mut self, _: usize, score: SequenceScore) {
        self.scored += score.tokens;
    }
}

fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS);
    pool.build().unwrap().install(work)
}

#[test]
fn allocated_bytes_equal_planned_bytes() {
    let _alone = alone();
    for recompute in Recompute::ALL {
        let planned = program(recompute);
        let total = planned.bytes(Precision::Float32) as usize;
        let rows = planned.table(Precision::Float32);
        assert!(rows.iter().all(|row| row.bytes >= BUFFER as u64));

        let (live, buffers) = (COUNTERS.live(), COUNTERS.buffers());
        let trainer = trainer(recompute, Effort::Off);
        assert_eq!(
            COUNTERS.live() - live,
            total,
            "bytes, recompute {recompute}"
        );
        assert_eq!(
            COUNTERS.buffers() - buffers,
            rows.len(),
            "buffers, recompute {recompute}"
        );
        assert_eq!(trainer.memory().rows(), rows);
        drop(trainer);
        assert_eq!(COUNTERS.live(), live, "released, recompute {recompute}");
    }
}

#[test]
fn after_the_first_steps_no_buffer_is_allocated_evaluations_and_scores_included() {
    let _alone = alone();
    let cases = Recompute::ALL.map(|recompute| (recompute, Effort::Off));
    for (recompute, effort) in cases
        .into_iter()
        .chain([(Recompute::None, Effort::Limited)])
    {
        in_pool(|| {
            let mut trainer = trainer(recompute, effort);
            let mut work = |steps: std::ops::Range<u64>| {
                for step in steps {
                    trainer.step(step, read).unwrap();
                    trainer.evaluate(20, read).unwrap();
                    let mut sequences = Sequences { scored: 0 };
                    trainer.score(&mut sequences).unwrap();
                    assert_eq!(sequences.scored, (32..=128).step_by(4).sum::<usize>());
                }
            };
            work(0..2);
            let (live, buffers) = (COUNTERS.live(), COUNTERS.buffers());
            work(2..8);
            assert_eq!(COUNTERS.buffers() - buffers, 0, "recompute {recompute}");
            assert_eq!(COUNTERS.live(), live);
            // Products pack their operands anew, within what the plan reserves for it.
            let problems = program(recompute).problems(Inputs::Float32);
            let reserved = packed_bytes(&problems, THREADS, Effort::Off, &[]) + THREADS * (2 << 20);
            let most = COUNTERS.most_packed.load(Ordering::Relaxed);
            assert!(most <= reserved, "{most} bytes packed, {reserved} reserved");
        });
    }
}
