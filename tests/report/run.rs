//! Text and JSON of a run on stdout and stderr.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use taper::device::{Cpu, DeviceProfile, Hardware};
use taper::report::{
    BestEval, DataSummary, GpuUse, ReportOptions, Reporter, Startup, Summary, Warning,
};
use taper::schedule::{LrSchedule, Schedule};
use taper::terms::{Choice, Gelu, ModelDims, NamedChoice, VectorExtension};

use crate::streams::{ClosedPipe, Stream};
use crate::{eval, parsed, step};

fn startup() -> Startup {
    Startup {
        version: "0.1.0",
        device: DeviceProfile {
            name: "Imaginary 9000".into(),
            total_bytes: Some(24 << 30),
            available_bytes: Some(23 << 30),
            hardware: Hardware::Cpu(Cpu {
                cores: Some(2),
                vector_extensions: vec![VectorExtension::Avx2, VectorExtension::Avx512],
                process_bytes: None,
                mappable_bytes: None,
            }),
        },
        model: ModelDims {
            n_layer: 4,
            n_head: 4,
            n_embd: 128,
            block_size: 64,
            vocab_size: 65,
            bias: false,
            dropout: 0.0,
            gelu: Gelu::Tanh,
        },
        data: DataSummary {
            name: "shakespeare_char".into(),
            train_tokens: 1_003_854,
            val_tokens: 111_540,
            vocab_size: 65,
        },
        micro_batch: 12,
        gradient_accumulation_steps: 2,
        max_iters: 4,
        schedule: Schedule {
            lr_schedule: LrSchedule::Cosine,
            learning_rate: 1e-3,
            min_lr: 1e-4,
            warmup_iters: 100,
            lr_decay_iters: 2_000,
            warmdown_iters: 400,
        },
        start_step: 0,
        log_interval: 2,
        eval_interval: 4,
        planned_bytes: 40 << 20,
        budget_bytes: Some(23 << 30),
        checkpoint_dir: "out/tiny".into(),
        choices: vec![
            NamedChoice::new(
                "dtype",
                &Choice {
                    value: "float32",
                    because: "the CPU trains in float32".into(),
                },
            ),
            NamedChoice::new(
                "threads",
                &Choice {
                    value: 2,
                    because: "every core the process may use".into(),
                },
            ),
        ],
    }
}

/// Four steps, two evaluations, a checkpoint and a warning.
fn run(reporter: &mut Reporter) {
    run_on(reporter, None);
}

fn run_on(reporter: &mut Reporter, gpu: Option<GpuUse>) {
    reporter.warning(Warning::CheckpointDamaged {
        damaged: "out/tiny/step-8".into(),
        reason: "the checksum of `model.safetensors` differs".into(),
        used: "out/tiny/step-4".into(),
    });
    reporter.startup(&startup());
    reporter.eval(&eval(0, 4.1744, 4.1758), true);
    reporter.step(&step(1, 4.1712, 250));
    reporter.step(&step(2, 4.0231, 64));
    reporter.step(&step(3, 3.9, 64));
    reporter.step(&step(4, 3.8125, 128));
    reporter.eval(&eval(4, 3.75, 3.8), true);
    let checkpoint = PathBuf::from("out/tiny/step-4");
    reporter.checkpoint_saved(&checkpoint, Duration::from_millis(210), 9_646_899);
    reporter.note("a word for people");
    reporter.finish(&Summary {
        step: 4,
        wall: Duration::from_secs(67),
        best: Some(BestEval {
            step: 4,
            val_loss: 3.8,
        }),
        stopped: None,
        checkpoint: Some(checkpoint),
        peak_bytes: Some(60 << 20),
        gpu,
    });
}

/// (stdout, stderr) of the run.
fn said(options: ReportOptions) -> (String, String) {
    let (stdout, stderr) = (Stream::default(), Stream::default());
    let outputs = (Box::new(stdout.clone()), Box::new(stderr.clone()));
    run(&mut Reporter::with_outputs(options, outputs.0, outputs.1));
    (stdout.text(), stderr.text())
}

const PLAIN: &str = "\
warning: checkpoint `out/tiny/step-8` is damaged (the checksum of `model.safetensors` differs); continuing from `out/tiny/step-4` instead
taper 0.1.0
  device       Imaginary 9000, 2 cores, AVX2 AVX-512
  memory       40.0 MiB planned; 23.00 GiB may be used
  model        n_layer 4 x n_head 4 x n_embd 128, block size 64, vocabulary 65
  parameters   804,096: 802,944 with weight decay, 1,152 without
  data         shakespeare_char: 1,003,854 train tokens, 111,540 val tokens, vocabulary 65
  step         12 sequences x 2 accumulated x 64 tokens = 1,536 tokens per step
  schedule     4 steps; lr 1e-3 after 100 warm-up steps, cosine to 1e-4 at step 2,000
  checkpoints  out/tiny
  choices      dtype = float32  (the CPU trains in float32)
               threads = 2  (every core the process may use)
step 0: train loss 4.1744, val loss 4.1758, val perplexity 65.09 (best so far)
iter 2: loss 4.0231, lr 2.000e-5, 64.0 ms, 24,000 tok/s
iter 4: loss 3.8125, lr 4.000e-5, 128.0 ms, 24,000 tok/s
step 4: train loss 3.7500, val loss 3.8000, val perplexity 44.70 (best so far)
saved out/tiny/step-4 (9.2 MiB in 210.0 ms)
a word for people
done: 4 steps
  this run     4 steps, 6,144 tokens in 1m 07s (1s of it in steps)
  speed        12,142 tok/s, 62.8 GFLOP/s at nanoGPT's 6 N + 12 L H Q T per token
  memory       60.0 MiB at its peak
  best         val loss 3.8000 (perplexity 44.70) at step 4
  choices      dtype = float32, threads = 2
  warnings     checkpoint `out/tiny/step-8` is damaged (the checksum of `model.safetensors` differs); continuing from `out/tiny/step-4` instead
  checkpoint   out/tiny/step-4
  sample       taper sample --checkpoint out/tiny/step-4
";

#[test]
fn plain_lines_tell_the_whole_run_on_stderr() {
    let (stdout, stderr) = said(ReportOptions::default());
    assert_eq!(stderr, PLAIN);
    assert_eq!(stdout, "");
}

#[test]
fn a_run_on_a_gpu_is_held_against_its_datasheet() {
    let (stdout, stderr) = (Stream::default(), Stream::default());
    let outputs = (Box::new(stdout.clone()), Box::new(stderr.clone()));
    let gpu = GpuUse {
        held_bytes: 2 << 30,
        peak_flops_per_second: 1e12,
    };
    let mut reporter = Reporter::with_outputs(ReportOptions::default(), outputs.0, outputs.1);
    run_on(&mut reporter, Some(gpu));
    let text = stderr.text();
    assert!(
        text.contains(" per token, 6.3 % of the datasheet's 1000.0 GFLOP/s\n"),
        "{text}"
    );
    assert!(text.contains("2.00 GiB of the GPU, 60.0 MiB of the host at its peak\n"));
}

#[test]
fn quiet_leaves_the_warnings_and_the_last_evaluation() {
    let (stdout, stderr) = said(ReportOptions {
        quiet: true,
        ..Default::default()
    });
    assert_eq!(
        stderr,
        "warning: checkpoint `out/tiny/step-8` is damaged (the checksum of `model.safetensors` \
         differs); continuing from `out/tiny/step-4` instead\n"
    );
    assert_eq!(
        stdout,
        "step 4: train loss 3.7500, val loss 3.8000, val perplexity 44.70\n"
    );
}

#[test]
fn json_puts_one_object_per_event_on_stdout_and_nothing_else() {
    let (stdout, stderr) = said(ReportOptions {
        json: true,
        ..Default::default()
    });
    assert_eq!(stderr, PLAIN, "people still read the same on stderr");
    assert!(stdout.ends_with('\n'));
    let events = parsed(&stdout);
    let kinds: Vec<_> = events.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    let expected = "warning startup eval step step eval checkpoint done";
    assert_eq!(kinds.join(" "), expected);
    assert_eq!(events[1]["model"]["n_embd"], 128);
    assert_eq!(events[1]["device"]["name"], "Imaginary 9000");
    assert_eq!(events[1]["choices"][1]["value"], "2");
    assert_eq!(
        stdout.lines().nth(3).unwrap(),
        r#"{"kind":"step","step":2,"loss":4.0231,"lr":0.00002,"grad_norm":0.5,"tokens":1536,"ms":64.0}"#
    );
    assert_eq!(events[5]["val_perplexity"], 3.8f64.exp());
    assert_eq!(events[6]["bytes"], 9_646_899);
    let done = &events[7];
    assert_eq!((&done["steps"], &done["tokens"]), (&4.into(), &6144.into()));
    assert_eq!(done["seconds"], 67.0);
    assert_eq!(done["best_val_loss"], 3.8);
    assert_eq!(done["checkpoint"], "out/tiny/step-4");
    assert_eq!(done["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn json_and_quiet_together_leave_stdout_to_the_objects() {
    let (stdout, stderr) = said(ReportOptions {
        json: true,
        quiet: true,
        ..Default::default()
    });
    assert_eq!(parsed(&stdout).len(), 8);
    assert_eq!(stderr.lines().count(), 1);
}

#[test]
fn an_interactive_run_prints_evaluations_and_checkpoints_but_no_steps() {
    let (_, stderr) = said(ReportOptions {
        interactive: true,
        ..Default::default()
    });
    let expected: String = PLAIN
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("iter "))
        .collect();
    assert_eq!(stderr, expected);
}

#[test]
fn colour_marks_warnings_and_the_word_stays() {
    let (_, stderr) = said(ReportOptions {
        color: true,
        ..Default::default()
    });
    assert!(stderr.starts_with("\x1b[1;33mwarning: checkpoint"));
    let plain = stderr.replace("\x1b[1;33m", "").replace("\x1b[0m", "");
    assert_eq!(plain, PLAIN);
}

#[test]
fn a_lone_evaluation_is_the_result_on_stdout() {
    for (json, expected) in [
        (
            false,
            "step 0: train loss 3.1000, val loss 3.1200, val perplexity 22.65\n",
        ),
        (true, "{\"kind\":\"eval\",\"step\":0,"),
    ] {
        let (stdout, stderr) = (Stream::default(), Stream::default());
        let options = ReportOptions {
            json,
            ..Default::default()
        };
        let mut reporter =
            Reporter::with_outputs(options, Box::new(stdout.clone()), Box::new(stderr.clone()));
        reporter.eval_only(&eval(0, 3.1, 3.12));
        assert!(stdout.text().starts_with(expected), "{}", stdout.text());
        assert_eq!(stdout.text().lines().count(), 1);
        assert_eq!(stderr.text(), "");
    }
}

#[test]
fn a_run_stopped_early_and_resumed_says_so() {
    let stderr = Stream::default();
    let options = ReportOptions::default();
    let mut reporter =
        Reporter::with_outputs(options, Box::new(io::sink()), Box::new(stderr.clone()));
    let mut startup = startup();
    startup.start_step = 1_500;
    startup.max_iters = 2_000;
    startup.schedule.lr_schedule = LrSchedule::Constant;
    startup.schedule.warmup_iters = 0;
    reporter.startup(&startup);
    reporter.finish(&Summary {
        step: 1_512,
        ..Default::default()
    });
    let text = stderr.text();
    assert!(
        text.contains("\n  schedule     steps 1,501 to 2,000; lr 1e-3 throughout\n"),
        "{text}"
    );
    assert!(
        text.contains("\nstopped at step 1,512 of 2,000\n"),
        "{text}"
    );
}

#[test]
fn readers_that_went_away_do_not_stop_the_run() {
    let options = ReportOptions {
        json: true,
        ..Default::default()
    };
    run(&mut Reporter::with_outputs(
        options,
        Box::new(ClosedPipe),
        Box::new(ClosedPipe),
    ));
}
