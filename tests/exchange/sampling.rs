//! The probabilities of the next token beside those of transformers' `generate`.

use serde_json::Value;
use taper::sampling::{Candidates, SamplingSettings};
use tempfile::tempdir;

use crate::python::python;

const VOCAB_SIZE: usize = 400;

fn settings(of: &Value) -> SamplingSettings {
    let number = |name: &str| of[name].as_f64().unwrap();
    SamplingSettings {
        temperature: number("temperature"),
        // To transformers, 0 is no limit.
        top_k: match of["top_k"].as_u64().unwrap() {
            0 => VOCAB_SIZE,
            top_k => top_k as usize,
        },
        top_p: number("top_p"),
        min_p: number("min_p"),
        repetition_penalty: number("repetition_penalty"),
        ..SamplingSettings::default()
    }
}

#[test]
#[ignore = "needs Python with transformers: TAPER_PYTHON=\"$(scripts/python_peers)\""]
fn the_filters_leave_what_transformers_leaves_with_its_probabilities() {
    let folder = tempdir().unwrap();
    let cases = python(folder.path(), "sampling.py", &[VOCAB_SIZE.to_string()]);
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 3usize.pow(5));
    for case in cases {
        let of = |name: &str| case[name].as_array().unwrap().iter();
        let logits: Vec<f32> = of("logits").map(|x| x.as_f64().unwrap() as f32).collect();
        let ids = |name| {
            of(name)
                .map(|id| id.as_u64().unwrap() as u32)
                .collect::<Vec<_>>()
        };
        let settings = settings(&case["settings"]);
        let got = Candidates::new(&logits, &ids("context"), &settings).probabilities();
        let what = format!("{} by {}", case["settings"], case["processors"]);
        assert_eq!(
            got.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            ids("ids"),
            "{what}"
        );
        for ((_, got), want) in got.iter().zip(of("probabilities")) {
            let want = want.as_f64().unwrap();
            assert!((got - want).abs() <= 1e-6, "{what}: {got}, {want}");
        }
    }
}
