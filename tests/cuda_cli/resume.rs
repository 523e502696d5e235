//! A run on a GPU that stops and goes on, there or on the CPU.

use std::process::Child;
use std::time::Duration;

use crate::process::checkpoint;
use crate::runs::{Place, assert_close, assert_same_numbers, json_lines};

/// A checkpoint after every second step.
const SAVING: &str = "checkpoint.checkpoint_interval=2";

fn trained(settings: &str) -> Option<Place> {
    let place = Place::new()?;
    place.train(settings, "").succeeded();
    Some(place)
}

#[test]
fn four_steps_and_four_more_are_eight_in_bf16_and_in_f16() {
    for dtype in ["bfloat16", "float16"] {
        let settings = format!("system.dtype={dtype} eval.eval_interval=4 {SAVING}");
        let Some(whole) = trained(&format!("{settings} train.max_iters=8")) else {
            return;
        };
        let parts = trained(&settings).unwrap();
        let to = format!("{settings} train.max_iters=8");
        parts.train(&to, "--resume").succeeded();
        assert_same_numbers(&whole, &parts, 8);
        let scale = &parts.state(8)["loss_scale"];
        assert_eq!(scale["moves"], dtype == "float16");
        if dtype == "float16" {
            assert_eq!(scale["good_steps"], 8);
        }
    }
}

#[test]
fn a_scale_that_overflows_is_resumed_where_it_was_found() {
    // A learning rate that makes weights large, and gradients too large for the first scale.
    let settings =
        format!("system.dtype=float16 optimizer.learning_rate=1 optimizer.warmup_iters=0 {SAVING}");
    let Some(whole) = trained(&settings) else {
        return;
    };
    let scale = |step| whole.state(step)["loss_scale"]["value"].as_f64().unwrap();
    assert!(scale(4) < 65_536.0, "nothing overflowed: {}", scale(4));
    let losses = whole.losses();
    assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    let again = whole.copied_to(Place::new().unwrap());
    let from = "--resume out/ckpt-00000002";
    again.train(&settings, from).succeeded();
    assert_same_numbers(&whole, &again, 4);
}

fn wait_until(run: &mut Child, happened: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if happened() {
            return;
        }
        assert_eq!(run.try_wait().unwrap(), None, "the run ended by itself");
        std::thread::sleep(Duration::from_millis(1));
    }
    run.kill().unwrap();
    panic!("nothing happened");
}

#[test]
fn a_run_that_is_killed_resumes_exactly() {
    let Some(killed) = Place::new() else { return };
    let endless = format!("{SAVING} train.max_iters=1000000");
    let mut run = killed.train_command(&endless).spawn().unwrap();
    wait_until(&mut run, || checkpoint(killed.path(), 4).exists());
    run.kill().unwrap();
    run.wait().unwrap();

    let newest = (4..).step_by(2);
    let newest = newest
        .take_while(|&step| checkpoint(killed.path(), step).exists())
        .last()
        .unwrap();
    let to = format!("{SAVING} train.max_iters={}", newest + 2);
    killed.train(&to, "--resume").succeeded();
    assert_same_numbers(&trained(&to).unwrap(), &killed, newest + 2);
}

#[test]
fn products_that_were_timed_are_resumed_with_the_candidates_of_the_checkpoint() {
    let settings = format!("gemm.autotune=limited {SAVING}");
    let Some(whole) = trained(&settings) else {
        return;
    };
    assert!(!whole.state(2)["gemm"].as_array().unwrap().is_empty());
    let again = whole.copied_to(Place::new().unwrap());
    let from = "--resume out/ckpt-00000002";
    let run = again.train(&settings, from).succeeded();
    assert!(run.stderr.contains("from the checkpoint"), "{}", run.stderr);
    assert_same_numbers(&whole, &again, 4);
    assert_eq!(whole.state(4)["gemm"], again.state(4)["gemm"]);
}

/// The losses that `--eval-only` prints for the newest checkpoint; nothing is changed by it.
fn evaluated(place: &Place, settings: &str) -> Vec<f64> {
    let before = place.contents();
    let run = place.train(settings, "--resume --eval-only --json");
    let lines = json_lines(&run.succeeded().stdout);
    assert_eq!((lines.len(), &lines[0]["kind"]), (1, &"eval".into()));
    assert!(before == place.contents());
    let keys = ["train_loss", "val_loss"];
    keys.map(|key| lines[0][key].as_f64().unwrap()).into()
}

#[test]
fn a_checkpoint_goes_from_the_gpu_to_the_cpu_and_back() {
    for (dtype, tolerance) in [("float32", 1e-6), ("auto", 2e-3)] {
        let gpu = format!("system.dtype={dtype} {SAVING}");
        let cpu = format!("{gpu} system.device=cpu");
        for (from, to) in [(&gpu, &cpu), (&cpu, &gpu)] {
            let Some(place) = trained(from) else { return };
            let logged = place.losses()[4..].to_vec();
            // What is alone in an evaluation computes as in the run.
            assert_close(&evaluated(&place, from), &logged, 1e-7);
            assert_close(&evaluated(&place, to), &logged, tolerance);

            let stayed = place.copied_to(Place::new().unwrap());
            let further = "train.max_iters=6";
            stayed
                .train(&format!("{from} {further}"), "--resume")
                .succeeded();
            place
                .train(&format!("{to} {further}"), "--resume")
                .succeeded();
            assert_eq!(place.state(6)["step"], 6);
            assert_close(&place.losses(), &stayed.losses(), tolerance);
        }
    }
}
