//! Slips of people who come from Python and from shells: numbers, paths, nanoGPT's keys, encodings.

use taper::config::{Config, Doubt};

use super::{load, try_load};

/// The hint of a refused file and of a refused `--set`.
#[track_caller]
fn hinted(text: &str, sets: &[&str], hint: Option<&str>) {
    let error = try_load(text, sets).expect_err("accepted");
    let given = error.rsplit_once("\nhint: ").map(|(_, hint)| hint);
    assert_eq!(given, hint, "{error}");
}

#[test]
fn numbers_that_only_python_takes_are_answered_with_toml_s() {
    for (given, section, key, meant) in [
        (".001", "optimizer", "learning_rate", "0.001"),
        ("1.", "optimizer", "learning_rate", "1.0"),
        ("1.e-3", "optimizer", "learning_rate", "1.0e-3"),
        (".5", "model", "dropout", "0.5"),
        ("100.", "train", "max_iters", "100"),
        ("6e5", "train", "max_iters", "600000"),
        ("007", "model", "n_layer", "7"),
    ] {
        let file = format!("[{section}]\n{key} = {given}  # of a notebook\n");
        hinted(&file, &[], Some(&format!("write `{key} = {meant}`")));
        let set = format!("{key}={given}");
        let hint = format!("write `--set {section}.{key}={meant}`");
        hinted("", &[&set], Some(&hint));
    }
    assert_eq!(
        load("[train]\nmax_iters = 1_000", &["seed=1_0"])
            .train
            .max_iters,
        1000
    );
    hinted("", &["beta1=1."], None); // Not below 1 in any spelling.
    let hint = "leave it out: a key that is absent has its default";
    hinted("", &["vocab_size=None"], Some(hint));
}

#[test]
fn a_path_begins_with_the_home_folder_where_a_tilde_does() {
    let home = std::env::home_dir().unwrap();
    let file = "[checkpoint]\nout_dir = \"~/out\"\n[data]\ndata_dir = \"~\"\n";
    let config = load(
        file,
        &["train_bin=~/a*.bin", "init_from=~/m", "dataset=~/d"],
    );
    assert_eq!(config.checkpoint.out_dir, home.join("out"));
    assert_eq!(config.data.data_dir, home);
    assert_eq!(
        config.data.train_bin.unwrap(),
        home.join("a*.bin").to_str().unwrap()
    );
    assert_eq!(config.train.init_from, home.join("m").to_str().unwrap());
    assert_eq!(config.data.dataset, home.join("d").to_str().unwrap());
    for plain in ["a~b", "./~x", "a/~", "5$", "a$1"] {
        let set = format!("out_dir={plain}");
        assert_eq!(
            load("", &[&set]).checkpoint.out_dir,
            std::path::Path::new(plain)
        );
    }
}

#[test]
fn what_a_shell_would_expand_in_a_path_is_refused() {
    hinted(
        "[checkpoint]\nout_dir = \"$HOME/out\"",
        &[],
        Some("write `out_dir = \"~/out\"`"),
    );
    hinted(
        "",
        &["out_dir=${HOME}/a"],
        Some("write `--set checkpoint.out_dir=~/a`"),
    );
    for path in ["~alice/out", "/scratch/$USER/out", "a/${JOB}", "a\\u0000b"] {
        let error = try_load(&format!("[checkpoint]\nout_dir = \"{path}\""), &[]).unwrap_err();
        assert!(
            error.contains("`~/` at its start is your home folder"),
            "{error}"
        );
    }
}

#[test]
fn nanogpts_keys_are_answered_wherever_they_stand() {
    let one_process = Some("remove it: taper trains in one process");
    for text in [
        "backend = \"nccl\"",
        "[train]\nbackend = 'nccl'",
        "[system]\nbackend = \"gloo\"",
        "[gemm]\nbackend = \"nccl\"",
    ] {
        hinted(text, &[], one_process);
    }
    for set in [
        "backend=nccl",
        "train.backend=nccl",
        "train.backend=\"gloo\"",
    ] {
        hinted("", &[set], one_process);
    }
    hinted(
        "[train]\nbackend = \"ptx\"",
        &[],
        Some("move it below `[gemm]`"),
    );
    let hint = "give it to `taper sample`, as `--prompt TEXT` or `--prompt FILE:PATH`";
    hinted("start = \"x\"", &[], Some(hint));
    for key in [
        "num_samples",
        "max_new_tokens",
        "temperature",
        "top_k",
        "profile",
        "compile",
    ] {
        let error = try_load("", &[&format!("{key}=1")]).unwrap_err();
        assert!(
            error.starts_with(&format!("error: taper does not have nanoGPT's `{key}`")),
            "{error}"
        );
    }
}

#[test]
fn a_file_in_another_encoding_is_named_with_its_encoding_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my config.toml");
    let load = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Config::load(path.to_str().unwrap(), &[])
    };
    let utf16: Vec<u8> = "\u{feff}[model]\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let cases = [
        (
            &b"[model]\n# caf\xe9\n"[..],
            "line 2 is not UTF-8",
            "-f WINDOWS-1252 -t UTF-8 '",
        ),
        (&utf16, "it is UTF-16", "-f UTF-16 -t UTF-8 '"),
    ];
    for (bytes, reason, command) in cases {
        let error = load(bytes).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(reason), "{cause}");
        let hint = error.hint().unwrap();
        assert!(hint.contains(command), "{hint}");
    }
    let marked = load(b"\xef\xbb\xbf[model]\r\nn_layer = 2\r\n").unwrap();
    assert_eq!(marked.model.n_layer, 2);
    assert_eq!(load(b"").unwrap(), Config::default());
}

#[test]
fn a_file_without_an_end_is_refused() {
    let error = Config::load("/dev/zero", &[]).unwrap_err();
    assert_eq!(error.to_string(), "cannot read `/dev/zero`");
}

#[test]
fn a_schedule_that_does_not_suit_the_run_is_doubted() {
    let doubts = |text: &str| load(text, &[]).doubts();
    let warm = doubts("[train]\nmax_iters = 100\n");
    assert_eq!(
        warm,
        [Doubt::EndsInWarmup {
            warmup_iters: 2000,
            max_iters: 100,
            fitting: 5
        }]
    );
    let text = warm[0].to_string();
    assert!(
        text.contains("rises to 5.00 % of `learning_rate`"),
        "{text}"
    );
    let steep = "[train]\nmax_iters = 9000\n[optimizer]\nlr_decay_iters = 2000\n";
    let no_decay = Doubt::NoDecay {
        lr_decay_iters: 2000,
        max_iters: 9000,
    };
    assert_eq!(doubts(steep), [no_decay]);
    for sound in [
        "",
        "[train]\nmax_iters = 2001",
        "[train]\nmax_iters = 0",
        "[train]\nmax_iters = 100\n[optimizer]\ndecay_lr = false",
        "[train]\nmax_iters = 100\n[eval]\neval_only = true",
    ] {
        assert_eq!(doubts(sound), [], "{sound}");
    }
}

#[test]
fn no_preset_is_doubted() {
    for preset in taper::config::PRESETS {
        assert_eq!(super::preset(preset.name).doubts(), [], "{}", preset.name);
    }
}
