//! Hugging Face's own GPT-2 opens taper's checkpoints, and taper evaluates its models to its own loss.

use std::fs;
use std::path::Path;

use taper::checkpoint::open_pretrained;
use taper::model::ParamLayout;
use taper::ops::cpu::OnCpu;
use taper::terms::{Recompute, Rung};
use taper::tokenizer::Tokenizer;
use tempfile::tempdir;

use crate::common::gpt::Gpt;
use crate::losses::{BLOCK_SIZE, evaluate, window};
use crate::process::{checkpoint, taper, tiny};
use crate::python::python;

/// All logits of the inputs, by taper.
fn logits(folder: &Path, inputs: &[u32]) -> Vec<f32> {
    let model = open_pretrained(folder).unwrap();
    let mut weights = vec![0.0; ParamLayout::new(&model.dims).len];
    model.load_weights(&model.dims, &mut weights).unwrap();
    let rung = Rung {
        micro_batch: 1,
        recompute: Recompute::None,
        logits_rows: 1,
    };
    let backend = Box::new(OnCpu::<f32>::untuned(1));
    Gpt::of_logits(&model.dims, rung, backend, &weights).logits::<f32>(inputs)
}

/// transformers reads the checkpoint as taper does: the tokens of the prompt, every logit, and greedy generation.
#[track_caller]
fn opens_alike(path: &Path, folder: &Path, prompt: &str) {
    let model = open_pretrained(folder).unwrap();
    let tokens = window(path, model.dims.vocab_size);
    let theirs = python(
        path,
        "gpt2_lm_head.py",
        &[
            "read".as_ref(),
            folder.as_os_str(),
            "window.bin".as_ref(),
            prompt.as_ref(),
            "8".as_ref(),
        ],
    );
    let values = theirs["logits"].as_array().unwrap();
    let theirs_logits: Vec<f64> = values.iter().map(|x| x.as_f64().unwrap()).collect();
    let ours = logits(folder, &tokens[..BLOCK_SIZE]);
    assert_eq!(ours.len(), theirs_logits.len());
    let worst = ours
        .iter()
        .zip(&theirs_logits)
        .map(|(x, y)| (f64::from(*x) - y).abs());
    let worst = worst.fold(0.0, f64::max);
    assert!(worst <= 1e-5, "logits differ by {worst:e}");

    let tokenizer = Tokenizer::load(folder).unwrap();
    let ids = serde_json::to_value(tokenizer.encode_prompt(prompt).unwrap()).unwrap();
    assert_eq!(theirs["prompt_ids"], ids);
    let name = folder.to_str().unwrap();
    let sampled = taper(
        path,
        &[
            "sample",
            "--checkpoint",
            name,
            "--prompt",
            prompt,
            "--max-new-tokens",
            "8",
            "--temperature",
            "0",
        ],
    );
    let generated = theirs["generated"].as_str().unwrap();
    assert_eq!(sampled.succeeded().stdout, format!("{prompt}{generated}\n"));
}

#[test]
#[ignore = "needs Python with transformers: TAPER_PYTHON=\"$(scripts/python_peers)\""]
fn a_checkpoint_by_character_opens_in_transformers() {
    for settings in ["", "model.bias=true model.gelu=tanh"] {
        let folder = tempdir().unwrap();
        let settings = format!("{settings} optimizer.learning_rate=0.01");
        taper(folder.path(), &tiny(&settings, &[])).succeeded();
        opens_alike(folder.path(), &checkpoint(folder.path(), 10), "pub fn");
    }
}

#[test]
#[ignore = "needs Python with transformers: TAPER_PYTHON=\"$(scripts/python_peers)\""]
fn a_checkpoint_in_gpt2s_vocabulary_opens_in_transformers() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let text = "To be, or not to be: that is the question. \u{201c}Whether\u{201d} 'tis nobler…\n"
        .repeat(40);
    fs::write(path.join("text.txt"), text).unwrap();
    taper(path, &["prepare", "text.txt", "--out", "data/text"]).succeeded();
    for vocab_size in ["50257", "50304"] {
        let settings = format!(
            "data.dataset=text data.data_dir=data model.vocab_size={vocab_size} optimizer.learning_rate=0.01 \
             checkpoint.out_dir=out-{vocab_size}"
        );
        taper(path, &tiny(&settings, &[])).succeeded();
        let folder = path.join(format!("out-{vocab_size}/ckpt-00000010"));
        opens_alike(path, &folder, "To be, or <|endoftext|>Whether it's");
    }
}

#[test]
#[ignore = "needs Python with transformers: TAPER_PYTHON=\"$(scripts/python_peers)\""]
fn a_model_of_transformers_evaluates_to_its_own_loss() {
    let kinds = [
        "float32",
        "float32-erf",
        "float16-sharded",
        "bfloat16",
        "float32-without-head",
        "float32-gpt2-vocabulary",
    ];
    for kind in kinds {
        let folder = tempdir().unwrap();
        let path = folder.path();
        let is_gpt2s = kind.contains("vocabulary");
        window(path, if is_gpt2s { 50_257 } else { 96 });
        let theirs = python(
            path,
            "gpt2_lm_head.py",
            &["write", "model", kind, "window.bin"],
        );
        let theirs = theirs["loss"].as_f64().unwrap();
        assert!((3.0..20.0).contains(&theirs), "{kind}: {theirs}");
        let mut settings = vec![""];
        if is_gpt2s {
            settings.push("model.vocab_size=50304");
        }
        for settings in settings {
            let ours = evaluate(path, "model", settings);
            assert!((ours - theirs).abs() <= 1e-5, "{kind}: {ours} and {theirs}");
        }
    }
}
