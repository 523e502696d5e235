//! The presets of `config/`.

use std::collections::HashSet;
use std::path::Path;

use taper::config::{BatchSize, Config, ConfigError, PRESETS, Preset};
use taper::model::ParamLayout;
use taper::terms::{Gelu, ModelDims};

use super::{preset, shown};

/// Number with commas, as the presets' comments have it.
fn commas(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap())
        .collect();
    groups.join(",")
}

#[test]
fn every_preset_loads_and_says_what_it_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(files, PRESETS.len(), "a file of config/ is not compiled in");
    let mut folders = HashSet::new();
    for Preset { name, .. } in PRESETS {
        let config = preset(name);
        assert!(
            folders.insert(config.checkpoint.out_dir),
            "{name} shares its out_dir"
        );
    }
    for preset in PRESETS {
        let description = preset.description();
        assert!(
            description.ends_with(['.', '5']) && description.len() < 90,
            "{description}"
        );
    }
}

#[test]
fn the_arithmetic_of_every_preset_is_what_its_comments_say() {
    // Name, sequences per step, tokens per step, tokens in all (0: no training).
    let expected = [
        ("quickstart", 16, 2_048, 6_144_000),
        ("shakespeare_char_cpu", 12, 768, 1_536_000),
        ("small_bpe", 12, 1_536, 3_072_000),
        ("shakespeare_char", 64, 16_384, 81_920_000),
        ("finetune_shakespeare", 32, 32_768, 0),
        ("openwebtext", 480, 491_520, 294_912_000_000),
        ("gpt2-medium", 480, 491_520, 294_912_000_000),
        ("gpt2-large", 480, 491_520, 294_912_000_000),
        ("gpt2-xl", 480, 491_520, 294_912_000_000),
    ];
    for (name, sequences, tokens_per_step, tokens) in expected {
        let config = preset(name);
        let text = PRESETS
            .iter()
            .find(|preset| preset.name == name)
            .unwrap()
            .text;
        assert_eq!(config.sequences_per_step(), sequences, "{name}");
        let per_step = sequences * config.model.block_size;
        assert_eq!(per_step, tokens_per_step, "{name}");
        assert!(
            text.contains(&commas(per_step)),
            "{name}: {}",
            commas(per_step)
        );
        if tokens > 0 {
            let in_all = per_step * usize::try_from(config.train.max_iters).unwrap();
            assert_eq!(in_all, tokens, "{name}");
            assert!(text.contains(&commas(in_all)), "{name}: {}", commas(in_all));
            assert_eq!(
                config.optimizer.lr_decay_iters, config.train.max_iters,
                "{name}"
            );
            assert_eq!(
                config.optimizer.min_lr,
                format!("{:.1e}", config.optimizer.learning_rate / 10.0)
                    .parse::<f64>()
                    .unwrap(),
                "{name}"
            );
        }
    }
}

/// What taper 0.1.0 and nanoGPT have: a preset is the same experiment in every version.
#[test]
fn no_preset_changes_the_size_of_a_step_or_an_evaluation() {
    let expected = [
        ("quickstart", 16, 320),
        ("shakespeare_char_cpu", 12, 240),
        ("small_bpe", 12, 240),
        ("shakespeare_char", 64, 12_800),
        ("finetune_shakespeare", 32, 40),
        ("eval_gpt2", 8, 4_000),
        ("openwebtext", 480, 2_400),
        ("gpt2-medium", 480, 1_600),
        ("gpt2-large", 480, 800),
        ("gpt2-xl", 480, 400),
    ];
    let found = PRESETS.iter().map(|Preset { name, text }| {
        let config = preset(name);
        assert_eq!(config.train.batch_size, BatchSize::Auto, "{name}");
        let eval_sequences = config.eval_sequences();
        if config.eval.eval_batch_size.is_some() {
            let tokens = commas(eval_sequences * config.model.block_size);
            assert!(text.contains(&format!("= {tokens} ")), "{name}: {tokens}");
        }
        (*name, config.sequences_per_step(), eval_sequences)
    });
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

#[test]
fn presets_in_gpt2s_vocabulary_have_the_parameters_their_comments_say() {
    for name in [
        "small_bpe",
        "openwebtext",
        "gpt2-medium",
        "gpt2-large",
        "gpt2-xl",
    ] {
        let config = preset(name);
        let model = config.model;
        let layout = ParamLayout::new(&ModelDims {
            n_layer: model.n_layer,
            n_head: model.n_head,
            n_embd: model.n_embd,
            block_size: model.block_size,
            vocab_size: 50_304,
            bias: model.bias,
            dropout: model.dropout,
            gelu: model.gelu,
        });
        let text = PRESETS
            .iter()
            .find(|preset| preset.name == name)
            .unwrap()
            .text;
        let count = format!("# {} parameters", commas(layout.len));
        assert!(text.contains(&count), "{name}: {count}");
    }
}

#[test]
fn presets_have_nanogpts_numbers() {
    let large = preset("shakespeare_char");
    assert_eq!(
        (large.model.n_layer, large.model.n_head, large.model.n_embd),
        (6, 6, 384)
    );
    assert_eq!((large.model.dropout, large.optimizer.beta2), (0.2, 0.99));
    // The CPU command of nanoGPT's README, whose `batch_size=12` is the size of a step and of a batch
    // of evaluation.
    let small = "eval_iters=20 block_size=64 sequences_per_step=12 eval_batch_size=12 n_layer=4 \
                 n_head=4 n_embd=128 max_iters=2000 lr_decay_iters=2000 dropout=0.0 \
                 out_dir=out-shakespeare-char-cpu";
    let small: Vec<String> = small.split(' ').map(String::from).collect();
    let mut small = Config::load("shakespeare_char", &small).unwrap();
    small.eval.eval_batch_size = None;
    assert_eq!(small, preset("shakespeare_char_cpu"));
    let finetune = preset("finetune_shakespeare");
    assert_eq!(finetune.train.init_from, "gpt2");
    assert!(finetune.model.bias && !finetune.optimizer.decay_lr);
    // OpenWebText is the default of nanoGPT's train.py, except for how often it speaks; taper's
    // default activation is that of OpenAI's weights.
    assert_eq!(preset("openwebtext").model.gelu, Gelu::Erf);
    let mut owt = preset("openwebtext");
    owt.train.sequences_per_step = None;
    owt.model.gelu = Gelu::Tanh;
    owt.train.log_interval = 1;
    owt.eval.eval_interval = 2000;
    owt.checkpoint.out_dir = "out".into();
    assert_eq!(owt, Config::default());
}

#[test]
fn a_preset_is_found_by_bare_name_with_or_without_the_ending() {
    for Preset { name, .. } in PRESETS {
        assert_eq!(preset(name), preset(&format!("{name}.toml")));
    }
}

#[test]
fn an_unknown_name_lists_the_presets_and_the_nearest() {
    let error = shown(&Config::load("config/train_shakespear_char.py", &[]).unwrap_err());
    assert!(error.starts_with("error: no file and no preset is called `config/train_shakespear_char.py`\n  = presets:\n    quickstart            A small model"), "{error}");
    assert!(
        error.ends_with("\nhint: did you mean `--config shakespeare_char`?"),
        "{error}"
    );
    for preset in PRESETS {
        assert!(error.contains(preset.description()));
    }
}

#[test]
fn a_folder_instead_of_a_file_is_a_read_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = Config::load(folder.path().to_str().unwrap(), &[]).unwrap_err();
    assert!(matches!(error, ConfigError::File(_)));
}
