//! The micro-batch says who chose it, or what limits it.

use taper::device::DeviceProfile;
use taper::plan::{Origin, Request};
use taper::terms::{Recompute, Rung};

use super::{Asked, GIB, card, choice, config, cpu, on_card, with_free};

#[test]
fn a_micro_batch_is_no_larger_than_kernels_count() {
    let asked = |settings: &str, device: DeviceProfile| {
        let settings = format!("model.block_size=8 model.n_embd=16 model.n_head=1 {settings}");
        let plan = Asked::new(config("quickstart", &settings), device, 96).plan();
        let because = choice(&plan, "micro-batch").1.to_owned();
        (plan.launch().rung.micro_batch, because)
    };
    let card = card("h100");
    // A block for every sequence in the third dimension of attention's grid.
    let all = "train.sequences_per_step=262144 train.batch_size=262144";
    let (micro_batch, because) = asked(all, card.clone());
    assert_eq!(micro_batch, 32_768);
    let words = "the largest divisor of 262,144 that is not above 65,535, the most sequences that kernels take at once";
    assert_eq!(because, words);
    // A CPU has no grid.
    assert_eq!(asked(all, cpu(4, &[])).0, 262_144);
    // A checkpoint of a CPU may have stood on more: no rung of this GPU's, and none that is said to be kept.
    let more = |micro_batch| Rung {
        micro_batch,
        recompute: Recompute::None,
        logits_rows: 64,
    };
    let settings = format!("model.block_size=8 model.n_embd=16 model.n_head=1 {all}");
    let stored = Asked::new(config("quickstart", &settings), card.clone(), 96);
    for (rung, micro_batch, kept) in [(131_072, 32_768, false), (4096, 4096, true)] {
        let request = Request {
            origin: Origin {
                rung: Some(more(rung)),
                ..stored.request().origin
            },
            ..stored.request()
        };
        let plan = request.plan().unwrap();
        assert_eq!(plan.launch().rung.micro_batch, micro_batch);
        let because = choice(&plan, "micro-batch").1;
        assert_eq!(because.contains("as in the checkpoint"), kept, "{because}");
    }
    // As many as kernels take, and fewer, are asked for and given.
    let (micro_batch, because) = asked(
        "train.sequences_per_step=65535 train.batch_size=65535",
        card.clone(),
    );
    assert_eq!(
        (micro_batch, because.as_str()),
        (65_535, "`train.batch_size` says so")
    );
    let (micro_batch, because) = asked(
        "train.sequences_per_step=262144 train.batch_size=1024",
        card,
    );
    assert_eq!(
        (micro_batch, because.as_str()),
        (1024, "`train.batch_size` says so")
    );
}

/// The founding scenario, as nanoGPT's users type it.
#[test]
fn what_was_asked_for_shrinks_in_one_line() {
    let sets = "batch_size=64 gradient_accumulation_steps=1";
    for (gib, value, because) in [
        (
            6.0,
            "8 x 8",
            "64 x 1 needs 22.32 GiB, 6.00 GiB may be used; the step keeps its 64 sequences",
        ),
        (
            11.69,
            "16 x 4",
            "64 x 1 needs 22.32 GiB, 11.69 GiB may be used; the step keeps its 64 sequences",
        ),
        (24.0, "64 x 1", "`train.batch_size` says so"),
    ] {
        let mut asked = on_card(config("openwebtext", sets), "rtx3060");
        asked.device.available_bytes = Some((gib * GIB as f64) as u64);
        let plan = asked.plan();
        assert_eq!(choice(&plan, "micro-batch"), (value, because));
        assert_eq!(plan.step.sequences_per_step, 64);
    }
}

#[test]
fn a_batch_size_that_does_not_divide_the_step_gives_way_to_one_that_does() {
    let plan = |sets| on_card(config("openwebtext", sets), "h100").plan();
    let plan_100 = plan("batch_size=100 sequences_per_step=128");
    assert_eq!(
        choice(&plan_100, "micro-batch"),
        (
            "64 x 2",
            "the largest divisor of 128 that is not above `train.batch_size` = 100"
        )
    );
    let plan_7 = plan("batch_size=7 sequences_per_step=480");
    assert_eq!(choice(&plan_7, "micro-batch").0, "6 x 80");
    // More than a step has.
    let plan_64 = plan("batch_size=64 sequences_per_step=16");
    assert_eq!(choice(&plan_64, "micro-batch").0, "16 x 1");
}

#[test]
fn without_a_batch_size_the_reason_is_speed_or_the_size_of_the_step() {
    let plan = on_card(config("openwebtext", ""), "h100").plan();
    let (value, because) = choice(&plan, "micro-batch");
    assert_ne!(value, "480 x 1");
    assert_eq!(
        because,
        "larger ones are predicted to be less than 1 % faster"
    );
    let plan = on_card(config("quickstart", ""), "h100").plan();
    assert_eq!(
        choice(&plan, "micro-batch"),
        ("16 x 1", "the whole step at once")
    );
}

#[test]
fn a_resumed_rung_says_where_it_is_from_and_how_to_leave_it() {
    let asked = on_card(config("openwebtext", ""), "rtx3060");
    let rung = Rung {
        micro_batch: 4,
        recompute: Recompute::GeluLn,
        logits_rows: 2048,
    };
    let resume = |asked: &Asked| {
        let origin = Origin {
            rung: Some(rung),
            weights: None,
            resumed: true,
        };
        let request = Request {
            origin,
            ..asked.request()
        };
        request.plan().unwrap()
    };
    let plan = resume(&asked);
    assert_eq!(plan.launch().rung, rung);
    assert_eq!(
        choice(&plan, "micro-batch"),
        (
            "4 x 120",
            "as in the checkpoint, so that the resumed run is the same bit for bit; \
             another `train.batch_size` plans anew"
        )
    );
    assert_eq!(
        choice(&plan, "recompute"),
        ("gelu+ln", "as in the checkpoint")
    );
    // It no longer fits.
    let device = with_free(card("rtx3060"), 27 * GIB / 10);
    let plan = resume(&Asked { device, ..asked });
    let (value, because) = choice(&plan, "micro-batch");
    assert!(plan.launch().rung.micro_batch < 4, "{value}");
    assert!(
        because.starts_with("4 x 120 needs 3.52 GiB, 2.70 GiB may be used"),
        "{because}"
    );
}
