//! What holds for every model, device and request.

use proptest::prelude::*;
use taper::config::{BatchSize, Config, MemoryLimit, RecomputeRequest};
use taper::device::Hardware;
use taper::memory::Group;
use taper::model::Program;
use taper::plan::{Origin, Plan, Request};
use taper::terms::{Engine, Recompute, Rung, VectorExtension};

use super::{Asked, cards, cpu};

/// Requests of every kind; where there is a limit, later.
fn requests() -> impl Strategy<Value = Asked> {
    let model = (1..6usize, 1..5usize, 1..9usize, 1..200usize, 1..3000usize);
    let sequences = prop_oneof![1..70usize, Just(480), Just(97), Just(720)];
    let pinned = prop_oneof![Just(None), (1..90usize).prop_map(Some)];
    let recompute = prop::sample::select(vec![
        RecomputeRequest::Auto,
        RecomputeRequest::Auto,
        RecomputeRequest::None,
        RecomputeRequest::GeluLn,
        RecomputeRequest::Block,
    ]);
    let device = prop_oneof![
        prop::sample::select(cards()),
        (1..65usize).prop_map(|cores| cpu(cores, &[VectorExtension::Avx2])),
        (1..65usize)
            .prop_map(|cores| cpu(cores, &[VectorExtension::Avx2, VectorExtension::Avx512])),
    ];
    (model, sequences, pinned, recompute, device, any::<bool>()).prop_map(
        |(model, sequences, pinned, recompute, device, evaluate)| {
            let (n_layer, n_head, head, block_size, vocab_size) = model;
            let mut config = Config::default();
            config.model.n_layer = n_layer;
            config.model.n_head = n_head;
            config.model.n_embd = n_head * head * 8;
            config.model.block_size = block_size * 4;
            config.train.sequences_per_step = Some(sequences);
            config.train.batch_size = pinned.map_or(BatchSize::Auto, BatchSize::Sequences);
            config.system.recompute = recompute;
            config.eval.eval_only = evaluate;
            // Up to GPT-2's size.
            Asked::new(config, device, vocab_size * 17)
        },
    )
}

/// The same request where `bytes` may be held.
fn within(asked: &Asked, bytes: u64) -> Asked {
    let mut asked = asked.clone();
    match asked.device.hardware {
        Hardware::Cuda(_) => asked.device.available_bytes = Some(bytes),
        Hardware::Cpu(_) => asked.config.system.memory_limit = Some(MemoryLimit(bytes)),
    }
    asked
}

/// The plan with memory for every rung.
fn unlimited(asked: &Asked) -> Plan {
    within(asked, u64::MAX).plan()
}

fn recomputes(asked: &Asked) -> &'static [Recompute] {
    match (asked.config.eval.eval_only, asked.config.system.recompute) {
        (true, _) => &[Recompute::Block],
        (_, RecomputeRequest::Auto) => &Recompute::ALL,
        (_, RecomputeRequest::None) => &[Recompute::None],
        (_, RecomputeRequest::GeluLn) => &[Recompute::GeluLn],
        (_, RecomputeRequest::Block) => &[Recompute::Block],
    }
}

/// The program at one rung, whose buffers a run allocates. Not asked of the plan.
fn program(asked: &Asked, plan: &Plan, rung: Rung) -> Program {
    let engine = match asked.device.hardware {
        Hardware::Cpu(_) => Engine::Cpu {
            threads: plan.threads,
        },
        Hardware::Cuda(_) => Engine::Cuda,
    };
    Program::of(plan.job, &plan.model, rung, engine, plan.precision)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn down_the_ladder_memory_falls_and_nothing_rises(asked in requests()) {
        let plan = unlimited(&asked);
        prop_assert_eq!(plan.chosen, 0);
        for pair in plan.ladder.windows(2) {
            prop_assert!(pair[1].bytes < pair[0].bytes);
            prop_assert!(pair[1].rung.micro_batch <= pair[0].rung.micro_batch);
            prop_assert!(pair[1].tokens_per_second <= pair[0].tokens_per_second);
            prop_assert!(pair[1].tokens_per_second > 0.0);
        }
    }

    #[test]
    fn every_rung_divides_the_step_and_bounds_its_logits(asked in requests()) {
        let plan = unlimited(&asked);
        for launch in &plan.ladder {
            let Rung { micro_batch, logits_rows, recompute } = launch.rung;
            prop_assert_eq!(plan.step.sequences_per_step % micro_batch, 0);
            prop_assert!((1..=micro_batch * plan.model.block_size).contains(&logits_rows));
            prop_assert!(logits_rows * plan.model.vocab_size < 1 << 31);
            prop_assert!(recomputes(&asked).contains(&recompute));
        }
    }

    #[test]
    fn each_rung_is_taken_from_its_own_bytes_up_to_those_of_the_next(asked in requests()) {
        let ladder = unlimited(&asked).ladder;
        let mut least = None;
        for (index, launch) in ladder.iter().enumerate() {
            let plan = within(&asked, launch.bytes).plan();
            prop_assert_eq!(plan.chosen, index);
            prop_assert_eq!(&plan.ladder, &ladder);
            least = Some(launch.bytes);
        }
        let refusal = within(&asked, least.unwrap() - 1).refusal();
        prop_assert_eq!(Some(refusal.needed), least);
    }

    #[test]
    fn more_memory_is_never_worse(asked in requests(), shares in prop::collection::vec(0.0..1.2, 6)) {
        let most = unlimited(&asked).launch().bytes;
        let mut budgets: Vec<u64> = shares.iter().map(|share| (share * most as f64) as u64 + 1).collect();
        budgets.sort_unstable();
        let mut before: Option<Plan> = None;
        for budget in budgets {
            let Ok(plan) = within(&asked, budget).try_plan() else {
                prop_assert!(before.is_none(), "refused with {}, not with less", budget);
                continue;
            };
            prop_assert!(plan.launch().bytes <= budget);
            if let Some(before) = before {
                prop_assert!(plan.launch().rung.micro_batch >= before.launch().rung.micro_batch);
                prop_assert!(plan.launch().tokens_per_second >= before.launch().tokens_per_second);
            }
            before = Some(plan);
        }
    }

    /// The ladder must not end early: a run would be refused that could be made.
    #[test]
    fn nothing_is_smaller_than_the_last_rung(asked in requests()) {
        let plan = unlimited(&asked);
        let last = plan.ladder.last().unwrap();
        let sequences = plan.step.sequences_per_step;
        for micro_batch in (1..=sequences).filter(|size| sequences.is_multiple_of(*size)) {
            for &recompute in recomputes(&asked) {
                let rung = Rung { micro_batch, recompute, ..last.rung };
                let buffers = program(&asked, &plan, rung).bytes(plan.precision);
                let bytes = plan.reserve_bytes() + buffers;
                prop_assert!(bytes >= last.bytes, "{rung} takes {bytes}, the last {}", last.bytes);
            }
        }
    }

    #[test]
    fn the_memory_table_is_what_will_be_allocated_and_adds_up(asked in requests(), share in 0.0..1.0) {
        let ladder = unlimited(&asked).ladder;
        let index = (share * ladder.len() as f64) as usize;
        let plan = within(&asked, ladder[index].bytes).plan();
        let total: u64 = plan.memory.iter().map(|row| row.bytes).sum();
        prop_assert_eq!(total, plan.launch().bytes);
        prop_assert_eq!(plan.launch(), &ladder[index]);
        let (reserve, buffers): (Vec<_>, Vec<_>) =
            plan.memory.iter().cloned().partition(|row| row.group == Group::Reserve);
        let program = program(&asked, &plan, plan.launch().rung);
        prop_assert_eq!(buffers, program.table(plan.precision));
        prop_assert_eq!(reserve.iter().map(|row| row.bytes).sum::<u64>(), plan.reserve_bytes());
    }

    #[test]
    fn a_pinned_batch_size_is_the_top_rung(asked in requests()) {
        let plan = unlimited(&asked);
        let top = plan.launch().rung;
        let sequences = plan.step.sequences_per_step;
        if let Some(pinned) = asked.config.train.batch_size.pinned() {
            let divisors = (1..=pinned).rev().find(|size| sequences.is_multiple_of(*size));
            prop_assert_eq!(Some(top.micro_batch), divisors);
            prop_assert_eq!(top.recompute, recomputes(&asked)[0]);
        }
    }

    #[test]
    fn what_is_trained_does_not_depend_on_memory(asked in requests(), share in 0.0..1.0) {
        let rich = unlimited(&asked);
        let index = (share * rich.ladder.len() as f64) as usize;
        let poor = within(&asked, rich.ladder[index].bytes).plan();
        prop_assert_eq!(&poor.step, &rich.step);
        prop_assert_eq!(poor.step.sequences_per_step, asked.config.sequences_per_step());
        prop_assert_eq!(poor.tokens_per_step(), rich.tokens_per_step());
        prop_assert_eq!(poor.eval_sequences, asked.config.eval_sequences());
        prop_assert_eq!(poor.max_iters, rich.max_iters);
        prop_assert_eq!(&poor.model, &rich.model);
        prop_assert_eq!(poor.precision, rich.precision);
        prop_assert_eq!(
            poor.gradient_accumulation_steps() * poor.launch().rung.micro_batch,
            poor.step.sequences_per_step
        );
    }

    #[test]
    fn the_same_request_gives_the_same_plan(asked in requests(), share in 0.0..1.2) {
        let bytes = (share * unlimited(&asked).launch().bytes as f64) as u64 + 1;
        let asked = within(&asked, bytes);
        match (asked.try_plan(), asked.clone().try_plan()) {
            (Ok(a), Ok(b)) => prop_assert_eq!(a, b),
            (a, b) => prop_assert_eq!(a.unwrap_err().to_string(), b.unwrap_err().to_string()),
        }
    }

    #[test]
    fn a_resumed_run_stands_on_its_rung_as_long_as_that_fits(asked in requests(), share in 0.0..1.0) {
        let rich = unlimited(&asked);
        let index = (share * rich.ladder.len() as f64) as usize;
        let saved = rich.ladder[index];
        let resume = |asked: &Asked| {
            let origin = Origin { rung: Some(saved.rung), weights: None, resumed: true };
            Request { origin, ..asked.request() }.plan()
        };
        let plan = resume(&within(&asked, u64::MAX)).unwrap();
        prop_assert_eq!(plan.launch(), &saved);
        for pair in plan.ladder.windows(2) {
            prop_assert!(pair[1].bytes < pair[0].bytes);
            prop_assert!(pair[1].rung.micro_batch <= pair[0].rung.micro_batch);
        }
        prop_assert_eq!(plan.ladder.last(), rich.ladder.last());
        let poorer = resume(&within(&asked, saved.bytes - 1));
        match rich.ladder.get(index + 1) {
            Some(next) => prop_assert_eq!(poorer.unwrap().launch().rung, next.rung),
            None => prop_assert!(poorer.is_err()),
        }
    }
}
