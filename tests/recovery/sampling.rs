//! Text does not depend on what memory was refused, or on which activations are kept.

use std::path::Path;

use std::rc::Rc;

use taper::memory::Memory;
use taper::model::{Executor, ParamLayout, State, Workspace, gpt2, init_values};
use taper::ops::backend::Backend;
use taper::ops::cpu::OnCpu;
use taper::rng::Seed;
use taper::terms::{Purpose, Recompute, Rung};

use crate::files::trained;
use crate::process::{Outcome, taper};
use crate::toy::{VOCAB_SIZE, dims};

fn sample(folder: &Path, flags: &[&str]) -> Outcome {
    // Longer than the block of 16, in two texts.
    let mut arguments = vec!["sample", "--checkpoint", "out", "--max-new-tokens", "24"];
    arguments.extend(["--num-samples", "2", "--prompt", "let x = "]);
    arguments.extend(flags);
    taper(folder, &arguments)
}

#[test]
fn refusals_do_not_change_the_text_and_are_told() {
    let folder = trained("train.max_iters=5", "--quiet");
    let whole = sample(folder.path(), &[]).succeeded();
    assert_eq!(whole.stderr, "");
    for (injections, refusals) in [
        (vec!["sampling:1"], 1),
        (vec!["sampling:7"], 1),
        // Down to the rung without keys and values, at once or late.
        (vec!["sampling:1-2"], 2),
        (vec!["sampling:9-10"], 2),
        (vec!["sampling:30-31"], 2),
        // The second text, and a workspace that cannot be made again.
        (vec!["sampling:5", "sampling:40"], 2),
        (vec!["launch:1"], 1),
        (vec!["launch:6-7"], 2),
    ] {
        let flags: Vec<&str> = injections.iter().flat_map(|&i| ["--inject", i]).collect();
        let refused = sample(folder.path(), &flags).succeeded();
        assert_eq!(refused.stdout, whole.stdout, "{injections:?}");
        let warnings = refused
            .stderr
            .lines()
            .filter(|line| line.starts_with("warning: out of memory at "));
        assert_eq!(
            warnings.count(),
            refusals,
            "{injections:?}: {}",
            refused.stderr
        );
    }
}

#[test]
fn sampling_that_is_refused_altogether_says_what_to_do() {
    let folder = trained("train.max_iters=5", "--quiet");
    for flags in [
        ["--inject", "sampling:1-"],
        ["--inject", "launch:1-"],
        ["--memory-limit", "1MiB"],
    ] {
        let refused = sample(folder.path(), &flags);
        let stderr = refused.stderr;
        assert_eq!(refused.code, Some(1), "{stderr}");
        assert!(stderr.contains("error: out of memory at "), "{stderr}");
        assert!(stderr.contains("hint: "), "{stderr}");
        assert!(
            !stderr.contains("--resume"),
            "`taper sample` has no `--resume`: {stderr}"
        );
    }
}

#[test]
fn logits_are_the_same_bits_with_and_without_kept_keys_and_values() {
    let dims = dims();
    let layout = ParamLayout::new(&dims);
    let gpt = |recompute| {
        let rung = Rung {
            micro_batch: 1,
            recompute,
            logits_rows: 1,
        };
        let backend = OnCpu::<f32>::untuned(2);
        let (engine, precision) = (backend.engine(), backend.precision());
        let program = gpt2(&dims, rung, Purpose::Inference, engine, precision);
        let (executor, mut memory) = (Rc::new(Executor::new(Box::new(backend))), Memory::default());
        let mut state = State::allocate(&program, &executor, &mut memory).unwrap();
        init_values(&layout, Seed(3), &mut *state.weights(executor.backend())).unwrap();
        (
            Workspace::new(program, &executor, &mut memory).unwrap(),
            state,
        )
    };
    let ((mut kept, kept_state), (mut again, again_state)) =
        (gpt(Recompute::GeluLn), gpt(Recompute::Block));
    let tokens: Vec<u32> = (0..dims.block_size as u32)
        .map(|i| i * 5 % VOCAB_SIZE as u32)
        .collect();
    for len in 1..=tokens.len() {
        let with = kept.next_logits(&kept_state, &tokens[..len], len - 1);
        let without = again.next_logits(&again_state, &tokens[..len], len - 1);
        assert_eq!(with.unwrap(), without.unwrap(), "{len} tokens");
    }
}
