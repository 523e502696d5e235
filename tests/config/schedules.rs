//! Schedules and guards: what contradicts itself is refused, what is hardly meant is doubted.

use taper::config::Doubt;

use super::messages::refused;
use super::{load, try_load};

#[test]
fn a_run_has_one_schedule() {
    refused(
        "[optimizer]\ndecay_lr = false\n",
        &["lr_schedule=wsd"],
        "
error: `decay_lr` = false keeps `learning_rate` from the first step on, `lr_schedule` = \"wsd\" decays
  |
  | --set lr_schedule=wsd
  |                   ^^^
  = expected `decay_lr` = true, or no `lr_schedule`
hint: write `--set optimizer.decay_lr=true`
",
    );
    let both = "[optimizer]\ndecay_lr = false\nlr_schedule = \"constant\"";
    let error = try_load(both, &[]).unwrap_err();
    assert!(
        error.contains("`lr_schedule` = \"constant\" has a warm-up"),
        "{error}"
    );
    load(
        "[optimizer]\ndecay_lr = false\nlr_schedule = \"cosine\"",
        &[],
    );
    // A constant rate reads neither the end of a decay nor the smallest rate.
    let constant = "lr_schedule = \"constant\"\nlearning_rate = 1e-5\nlr_decay_iters = 0";
    load(&format!("[optimizer]\n{constant}"), &[]);
}

#[test]
fn the_decay_of_wsd_begins_after_its_warm_up() {
    let wsd = "[optimizer]\nlr_schedule = \"wsd\"\nwarmup_iters = 20\nlr_decay_iters = 100\n";
    refused(
        &format!("{wsd}warmdown_iters = 90\n"),
        &[],
        "
error: `warmdown_iters` = 90 does not fit between `warmup_iters` = 20 and `lr_decay_iters` = 100
 --> my.toml:5:18
  |
5 | warmdown_iters = 90
  |                  ^^
  = expected `warmdown_iters` from 0 to 80
hint: write `warmdown_iters = 80`
",
    );
    load(wsd, &["warmdown_iters=80"]);
    let start = |sets: &[&str]| load(wsd, sets).optimizer.schedule().decay_start();
    assert_eq!(start(&[]), Some(80), "a fifth");
    assert_eq!(start(&["lr_decay_iters=12", "warmup_iters=1"]), Some(9));
    assert_eq!(
        start(&["warmup_iters=95"]),
        Some(95),
        "what the warm-up leaves"
    );
    assert_eq!(start(&["warmdown_iters=0"]), Some(100));
}

#[test]
fn a_decay_that_the_run_does_not_use_is_doubted() {
    let doubts = |sets: &[&str]| {
        let short = "[train]\nmax_iters = 1000\n[optimizer]\nwarmup_iters = 10\n";
        load(short, sets).doubts()
    };
    assert_eq!(
        doubts(&["lr_schedule=wsd", "lr_decay_iters=2000"]),
        [Doubt::EndsBeforeDecay {
            decay_start: 1600,
            lr_decay_iters: 2000,
            max_iters: 1000
        }]
    );
    let rests = Doubt::RestsAtZero {
        lr_decay_iters: 900,
        max_iters: 1000,
    };
    for shape in ["cosine", "linear", "wsd"] {
        let schedule = format!("lr_schedule={shape}");
        let sets = ["lr_decay_iters=900", "min_lr=0", &schedule];
        assert_eq!(doubts(&sets), std::slice::from_ref(&rests), "{shape}");
        assert_eq!(doubts(&["lr_decay_iters=1000", "min_lr=0", &schedule]), []);
    }
    assert_eq!(doubts(&["lr_schedule=constant", "min_lr=0"]), []);
    for (sets, schedule) in [
        (["warmdown_iters=5", "seed=1"], "cosine"),
        (["warmdown_iters=5", "lr_schedule=linear"], "linear"),
        (["warmdown_iters=5", "decay_lr=false"], "constant"),
    ] {
        assert_eq!(doubts(&sets), [Doubt::UnusedWarmdown { schedule }]);
    }
}

#[test]
fn a_guard_that_never_acts_is_doubted() {
    let doubts = |max_iters: u64, guard: &str| {
        let text = format!("[train]\nmax_iters = {max_iters}\n[optimizer]\nwarmup_iters = 1\n");
        load(&text, &[guard]).doubts()
    };
    for guard in ["skip_loss_zscore=3", "skip_grad_zscore=3"] {
        let (window, max_iters) = (128, 128);
        assert_eq!(
            doubts(128, guard),
            [Doubt::GuardSleeps { window, max_iters }]
        );
        assert_eq!(doubts(129, guard), []);
    }
    assert_eq!(doubts(128, "skip_grad_zscore=0"), []);
}
