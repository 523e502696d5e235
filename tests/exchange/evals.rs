//! `taper eval` has the scores of the same protocols in PyTorch with transformers' GPT-2.

use std::fs;
use std::path::Path;

use serde_json::Value;
use taper::checkpoint::open_pretrained;
use taper::evals::{EvalsError, Loader, Task, TaskRequest};
use taper::faults::Faults;
use taper::memory::Memory;
use taper::ops::cpu::OnCpu;
use taper::step::evaluation::{Evaluator, scoring_ladder};
use taper::terms::{Engine, Precision};
use taper::tokenizer::Tokenizer;
use tempfile::tempdir;

use crate::process::taper;
use crate::python::python;

/// Largest difference of a loss, in nats.
const ALLOWED: f64 = 1e-4;

const TASKS: &str = "hellaswag:h.jsonl,lambada:l.jsonl,text.txt,text.bin";

#[track_caller]
fn assert_near(what: &str, ours: f64, theirs: &Value) {
    let theirs = theirs.as_f64().unwrap();
    let allowed = ALLOWED * theirs.abs().max(1.0);
    assert!(
        (ours - theirs).abs() <= allowed,
        "{what}: {ours} and {theirs}"
    );
}

/// Sums and numbers of scored tokens of every sequence of a benchmark, by the library.
fn sequences(folder: &Path, tasks: &str) -> Vec<Vec<(f64, usize)>> {
    let pretrained = open_pretrained(&folder.join("model")).unwrap();
    let dims = &pretrained.dims;
    let engine = Engine::Cpu { threads: 1 };
    let backend = Box::new(OnCpu::<f32>::untuned(1));
    let memory = Memory::limited(None, 0, Faults::default());
    let ladder = scoring_ladder(dims, engine);
    let mut evaluator = Evaluator::new(dims, backend, &ladder, memory).unwrap();
    let load = evaluator.load(|weights, _| {
        let loaded = pretrained.load_usable_weights(dims, Precision::Float32, weights);
        loaded.unwrap();
        Ok::<_, EvalsError>(())
    });
    load.unwrap();
    let tokenizer = Tokenizer::gpt2().unwrap();
    let loader = Loader {
        tokenizer: &tokenizer,
        vocab_size: dims.vocab_size,
        block_size: dims.block_size,
        limit: None,
    };
    let requests = TaskRequest::list(tasks).unwrap();
    let mut scored = |request: &TaskRequest| {
        let path = folder.join(request.path.as_ref().unwrap());
        let mut task: Task = loader.load(request, &path).unwrap();
        task.score(&|_| true, |running| evaluator.score(running))
            .unwrap();
        let scores = task.sequence_scores().iter();
        scores.map(|score| (score.loss, score.tokens)).collect()
    };
    requests.iter().map(&mut scored).collect()
}

#[test]
#[ignore = "needs Python with transformers: TAPER_PYTHON=\"$(scripts/python_peers)\""]
fn scores_are_those_of_the_protocols_in_pytorch() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let model = path.join("model");
    fs::create_dir(&model).unwrap();
    Tokenizer::gpt2().unwrap().save(&model).unwrap();
    python(path, "evals.py", &["write".as_ref(), path.as_os_str()]);
    let theirs = python(path, "evals.py", &["score".as_ref(), path.as_os_str()]);
    let (hellaswag, lambada, file) = (&theirs["hellaswag"], &theirs["lambada"], &theirs["file"]);
    let ids = file["ids"].as_array().unwrap().iter();
    let ids = ids.flat_map(|id| (id.as_u64().unwrap() as u16).to_le_bytes());
    fs::write(path.join("text.bin"), ids.collect::<Vec<u8>>()).unwrap();

    let stdout = taper(path, &["eval", "model", "--tasks", TASKS, "--json"])
        .succeeded()
        .stdout;
    let ours: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // No two endings are so near that rounding decides.
    assert!(
        hellaswag["gap"].as_f64().unwrap() > 10.0 * ALLOWED,
        "{}",
        hellaswag["gap"]
    );
    for name in ["acc", "acc_norm"] {
        assert_eq!(ours[0][name], hellaswag[name]);
        assert!(
            (0.05..0.95).contains(&hellaswag[name].as_f64().unwrap()),
            "{hellaswag}"
        );
    }
    assert_eq!(ours[1]["acc"], lambada["acc"]);
    assert!(
        (0.1..0.9).contains(&lambada["acc"].as_f64().unwrap()),
        "{lambada}"
    );
    let ln = |value: &Value| Value::from(value.as_f64().unwrap().ln());
    let perplexity = ln(&ours[1]["perplexity"]).as_f64().unwrap();
    assert_near("perplexity", perplexity, &ln(&lambada["perplexity"]));
    assert!(
        ours[0]["truncated"].as_u64().unwrap() > 0 && ours[1]["truncated"].as_u64().unwrap() > 0
    );
    for ours in &ours[2..] {
        assert_eq!(ours["tokens"], file["tokens"]);
        assert_near("loss", ours["loss"].as_f64().unwrap(), &file["loss"]);
    }
    for name in ["perplexity", "bits_per_byte"] {
        assert_near(name, ours[2][name].as_f64().unwrap(), &file[name]);
    }

    let [hellaswag_ours, lambada_ours] = &sequences(path, "hellaswag:h.jsonl,lambada:l.jsonl")[..]
    else {
        panic!("two tasks");
    };
    let near = |what, ours: Vec<f64>, theirs: &Value| {
        let theirs = theirs.as_array().unwrap();
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            assert_near(what, ours, theirs);
        }
    };
    let sums = |scores: &[(f64, usize)]| scores.iter().map(|score| score.0).collect();
    let means = hellaswag_ours
        .iter()
        .map(|(loss, tokens)| loss / *tokens as f64);
    near("sums", sums(hellaswag_ours), &hellaswag["sums"]);
    near("means", means.collect(), &hellaswag["means"]);
    near("last words", sums(lambada_ours), &lambada["sums"]);
}
