//! `taper config show` and `keys`: what they print is what is read.

use proptest::prelude::*;
use taper::config::{Config, LoadedConfig, PRESETS, explain_keys, sections};

use super::file;
use super::round_trip::configs;

fn shown(source: &str, sets: &[&str]) -> (LoadedConfig, String) {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let loaded = LoadedConfig::load(source, &sets).unwrap_or_else(|error| panic!("{error}"));
    let text = loaded.explained_toml("A heading.");
    (loaded, text)
}

/// The text is read back as the same request, and leaves the same sizes to weights.
#[track_caller]
fn assert_reads_back(loaded: &LoadedConfig, text: &str) {
    let (_folder, path) = file(text);
    let again = LoadedConfig::load(path.to_str().unwrap(), &[]);
    let again = again.unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(again.config, loaded.config);
    // The order in which sizes are given means nothing.
    let dims = taper::terms::ModelDims {
        n_layer: 3,
        n_head: 5,
        n_embd: 35,
        block_size: 77,
        vocab_size: 7777,
        bias: !loaded.config.model.bias,
        dropout: 0.0,
        gelu: taper::terms::Gelu::Tanh,
    };
    assert_eq!(
        again
            .given
            .of_weights(&again.config, &dims)
            .map_err(|it| it.len()),
        loaded
            .given
            .of_weights(&loaded.config, &dims)
            .map_err(|it| it.len()),
    );
}

#[test]
fn every_preset_is_shown_with_every_key_and_reads_back_as_the_same_request() {
    for preset in PRESETS {
        let (loaded, text) = shown(preset.name, &[]);
        assert_reads_back(&loaded, &text);
        for key in explain_keys(None).unwrap() {
            let line = format!("{} = ", key.name);
            let is_there = text
                .lines()
                .any(|it| it.trim_start_matches("# ").starts_with(&line));
            let is_absent = loaded.config.value_of(key.name).is_none();
            assert_eq!(is_there, !is_absent, "{} of {}", key.name, preset.name);
            let start = key.meaning.split(' ').next().unwrap();
            assert!(text.contains(&format!("\n# {start}")), "{}", key.name);
        }
    }
}

#[test]
fn what_is_not_the_default_is_marked_and_what_nobody_gave_is_left_to_weights() {
    let sets = [
        "optimizer.learning_rate=1e-3",
        "seed=1337",
        "memory_limit=2GiB",
    ];
    let (_, text) = shown("quickstart", &sets);
    for line in [
        "n_layer = 4 # * default: 12",
        "learning_rate = 1e-3 # * default: 6e-4",
        "seed = 1337 # the default",
        "memory_limit = 2147483648 # * absent by default",
        "dataset = \"quickstart\" # * default: \"openwebtext\"",
        "# bias = false # the default; weights that a run starts from decide it",
        "# Absent: `eval.eval_interval`.",
        "# Transformer blocks.",
        "[optimizer]",
    ] {
        assert!(
            text.lines().any(|it| it == line),
            "`{line}` is not in:\n{text}"
        );
    }
    let marked = text.lines().filter(|line| line.contains("# * "));
    let unlike = explain_keys(None).unwrap();
    let config = Config::load("quickstart", &sets.map(String::from)).unwrap();
    let unlike = unlike
        .iter()
        .filter(|key| config.value_of(key.name) != key.default_toml);
    assert_eq!(marked.count(), unlike.count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_valid_config_is_shown_so_that_it_reads_back_the_same(config in configs()) {
        let (_folder, path) = file(&config.to_toml());
        let (loaded, text) = shown(path.to_str().unwrap(), &[]);
        prop_assert_eq!(&loaded.config, &config);
        assert_reads_back(&loaded, &text);
    }
}

#[test]
fn a_default_that_is_printed_is_the_default() {
    for key in explain_keys(None).unwrap() {
        let (section, name) = (key.section, key.name);
        match &key.default_toml {
            Some(value) => {
                let (_folder, path) = file(&format!("[{section}]\n{name} = {value}\n"));
                let config = Config::load(path.to_str().unwrap(), &[]).unwrap();
                assert_eq!(config, Config::default(), "{name}");
                assert!(!key.default.is_null(), "{name}");
            }
            None => assert!(key.default.is_null() && key.absent.is_some(), "{name}"),
        }
    }
}

#[test]
fn keys_are_found_by_section_by_name_and_by_both() {
    let names = |name: &str| -> Vec<&str> {
        let keys = explain_keys(Some(name)).unwrap();
        keys.iter().map(|key| key.name).collect()
    };
    assert_eq!(names("learning_rate"), ["learning_rate"]);
    assert_eq!(names("gemm.backend"), ["backend"]);
    assert_eq!(names("[gemm]"), ["autotune", "backend"]);
    assert_eq!(names("checkpoint").len(), 3);
    let all: usize = sections().map(|(section, _)| names(section).len()).sum();
    assert_eq!(all, explain_keys(None).unwrap().len());
    let rate = &explain_keys(Some("learning_rate")).unwrap()[0];
    assert_eq!(
        (rate.section, rate.nanogpt, &*rate.valid),
        ("optimizer", Some("learning_rate"), "a number above 0")
    );
    let seed = &explain_keys(Some("seed")).unwrap()[0];
    assert_eq!(
        (seed.nanogpt, seed.nanogpt_instead),
        (None, Some("nanoGPT fixes 1337"))
    );
}

#[test]
fn a_name_that_is_unknown_is_answered_with_the_nearest() {
    for (name, what, hint) in [
        (
            "lerning_rate",
            "no section and no key is called `lerning_rate`",
            "did you mean `optimizer.learning_rate`?",
        ),
        (
            "train.learning_rate",
            "no section and no key is called `train.learning_rate`",
            "did you mean `optimizer.learning_rate`?",
        ),
        (
            "optim",
            "no section and no key is called `optim`",
            "did you mean `optimizer`?",
        ),
        (
            "compile",
            "taper does not have nanoGPT's `compile`",
            "remove it: nothing is compiled at run time",
        ),
        (
            "xyzzy",
            "no section and no key is called `xyzzy`",
            "`taper config keys` lists all of them",
        ),
    ] {
        let unknown = explain_keys(Some(name)).unwrap_err();
        assert_eq!((&*unknown.what, &*unknown.hint), (what, hint));
    }
}
