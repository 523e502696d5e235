//! `taper config import`: nanoGPT's configs as taper's, Python and flat TOML alike.

use taper::config::{Config, LoadedConfig};

use super::{file, shown};

/// The file `my.py` or `my.toml` with this text.
fn written(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

fn imported(name: &str, text: &str) -> LoadedConfig {
    let (_folder, path) = written(name, text);
    LoadedConfig::import(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> String {
    let (_folder, path) = written("my.toml", text);
    match LoadedConfig::import(&path) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => shown(&error).replace(&path, "my.toml"),
    }
}

const PYTHON: &str = "n_layer = 2\nbatch_size = 4\ngradient_accumulation_steps = 5 * 8\nlearning_rate = 6e-4\n\
    out_dir = 'out-x'\ndecay_lr = False\nmax_iters = 1e3\ncompile = True\n";
const FLAT: &str = "n_layer = 2\nbatch_size = 4\ngradient_accumulation_steps = 40\nlearning_rate = 6e-4\n\
    out_dir = \"out-x\"\ndecay_lr = false\nmax_iters = 1e3\ncompile = true\n";

#[test]
fn python_and_flat_toml_are_the_same_request_and_read_back_as_it() {
    let python = imported("my.py", PYTHON);
    let flat = imported("my.toml", FLAT);
    assert_eq!(python.config, flat.config);
    assert_eq!(python.config.train.max_iters, 1000);
    assert_eq!(python.config.sequences_per_step(), 160);
    for loaded in [python, flat] {
        let toml = loaded.python.unwrap().toml;
        assert!(toml.starts_with("# From "), "{toml}");
        let (_folder, path) = file(&toml);
        let again = LoadedConfig::load(path.to_str().unwrap(), &[]).unwrap();
        assert_eq!(again.config, loaded.config);
        assert_eq!(again.given, loaded.given);
    }
}

#[test]
fn what_is_added_and_left_out_of_flat_toml_is_told() {
    let loaded = imported("my.toml", "n_layer = 2\nwandb_log = false\nmine = 3\n");
    let notes = loaded.python.unwrap().notes.join("\n");
    for words in [
        "read: [model] n_layer",
        "`batch_size = 12` is added: nanoGPT's default",
        "`gelu = \"erf\"` is added",
        "left out: `wandb_log`",
        "left out: `mine` (no keys of nanoGPT or taper)",
    ] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
}

#[test]
fn a_config_of_taper_s_own_is_not_imported() {
    let expected = "
error: `[train]` is a section: this is a config of taper's already
 --> my.toml:2:2
  |
2 | [train]
  |  ^^^^^
hint: use it as it is, with `--config`; `taper config show` explains its keys";
    assert_eq!(
        refused("seed = 1\n[train]\nmax_iters = 5\n[eval]\neval_iters = 1\n"),
        expected.trim_start()
    );
}

#[test]
fn flat_toml_with_faults_is_refused_at_their_places() {
    for (text, words) in [
        (
            "[mine]\nn_layer = 2\n",
            "`[mine]` is a section, and nanoGPT's keys have none",
        ),
        (
            "n_layer = [2]\n",
            "`n_layer` is neither a number, a switch nor text",
        ),
        (
            "n_layer = 2000-01-01\n",
            "`n_layer` is neither a number, a switch nor text",
        ),
        (
            "n_layer = 99999999999999999999999999999999999999999\n",
            "`n_layer`",
        ),
        ("n_layer = True\n", "not valid TOML"),
        ("n_layer = 0\n", "`n_layer` cannot be `0`"),
        ("n_layers = 2\n", "unknown key `n_layers`"),
        ("dropout = 1.5\n", "`dropout` cannot be `1.5`"),
    ] {
        let error = refused(text);
        assert!(error.contains(words), "{words}: {error}");
        assert!(error.contains("my.toml:"), "{error}");
    }
}

#[test]
fn a_flat_file_that_is_trained_with_is_told_of_the_import() {
    let (_folder, path) = file("n_layer = 2\n");
    let error = Config::load(path.to_str().unwrap(), &[]).unwrap_err();
    let hint = error.hint().unwrap();
    assert_eq!(
        hint,
        "move it below `[model]`; `taper config import FILE` does so with every key of nanoGPT's"
    );
}
