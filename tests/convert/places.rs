//! The place that is written to: nothing is overwritten, and nothing is left half-written.

use std::fs::{self, File};
use std::process::Command;

use tempfile::tempdir;

use super::process::{taper, tiny};
use super::{Tensor, convert, gpt2_folder, names_in, tensors, write_model};

#[test]
fn a_place_that_is_taken_stays_as_it_is() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write_model(&path.join("model"));
    fs::write(path.join("notes.bin"), "mine").unwrap();
    fs::create_dir(path.join("empty")).unwrap();
    for (to, out, words) in [
        (
            "llmc",
            "notes.bin",
            "`notes.bin` exists, and nothing is overwritten",
        ),
        ("hf", "notes.bin", "`notes.bin` exists"),
        ("hf", "empty", "`empty` exists"),
        ("hf", "model", "`model` exists"),
        ("llmc", "empty", "name the file, such as `empty/gpt2.bin`"),
        ("llmc", "new/", "name the file, such as `new/gpt2.bin`"),
    ] {
        convert(path, &["model", "--to", to, out]).refused(&[words]);
    }
    assert_eq!(names_in(path), ["empty", "model", "notes.bin"]);
    assert_eq!(fs::read_to_string(path.join("notes.bin")).unwrap(), "mine");
    assert_eq!(
        names_in(&path.join("model")),
        ["config.json", "model.safetensors"]
    );
}

#[test]
fn weights_that_must_not_be_used_leave_nothing_behind() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let config = gpt2_folder::config;
    let broken = |change: &dyn Fn(&mut Vec<Tensor>)| {
        let mut tensors = gpt2_folder::tensors(0);
        change(&mut tensors);
        tensors
    };
    let last = broken(&|tensors| tensors.last_mut().unwrap().2[1] = f32::NAN);
    gpt2_folder::write(&path.join("nan"), &config(), &last);
    let untied = broken(&|tensors| {
        tensors.push(("lm_head.weight".into(), vec![128, 4], vec![0.5; 512]));
    });
    gpt2_folder::write(&path.join("untied"), &config(), &untied);
    let mut exact = config();
    exact["activation_function"] = "gelu".into();
    gpt2_folder::write(&path.join("exact"), &exact, &gpt2_folder::tensors(0));
    let mut other = config();
    other["model_type"] = "llama".into();
    gpt2_folder::write(&path.join("other"), &other, &tensors());
    let mut unbiased = config();
    unbiased["taper"] = serde_json::json!({"bias": false});
    let biased = broken(&|tensors| tensors[3].2[0] = 0.25);
    gpt2_folder::write(&path.join("biased"), &unbiased, &biased);
    let cases: [(&str, &[&str]); 5] = [
        ("nan", &["`transformer.ln_f.bias`", "NaN at [1]"]),
        ("untied", &["`lm_head.weight`", "another matrix"]),
        ("exact", &["llm.c has no such model: `gelu` is erf"]),
        ("other", &["`model_type` is \"llama\""]),
        ("biased", &["`transformer.h.0.ln_1.bias`", "not zero"]),
    ];
    let before = names_in(path);
    for (name, words) in cases {
        convert(path, &[name, "--to", "llmc", "out.bin"]).refused(words);
    }
    convert(path, &["nan", "--to", "hf", "out"]).refused(&["NaN at [1]"]);
    assert_eq!(names_in(path), before);
    convert(path, &["exact", "--to", "hf", "out"]).succeeded();
}

#[test]
fn a_dataset_a_missing_folder_and_another_program_are_answered() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write_model(&path.join("model"));
    fs::create_dir(path.join("data")).unwrap();
    fs::write(path.join("data/train.bin"), [0; 64]).unwrap();
    let words = ["`data` holds a dataset", "the weights of a model"];
    convert(path, &["data", "--to", "llmc", "out.bin"]).refused(&words);
    let words = ["no weights for `absent`"];
    convert(path, &["absent", "--to", "hf", "out"]).refused(&words);
    let words = ["`nowhere` does not exist", "mkdir -p nowhere"];
    convert(path, &["model", "--to", "hf", "nowhere/out"]).refused(&words);
    let outcome = convert(path, &["model", "--to", "onnx", "out"]);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("[possible values: hf"),
        "{}",
        outcome.stderr
    );
    assert_eq!(names_in(path), ["data", "model"]);
}

#[test]
fn a_file_that_may_not_be_so_large_is_an_error_and_no_file() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    taper(
        path,
        &tiny("train.max_iters=1 model.gelu=tanh", &["--quiet"]),
    )
    .succeeded();
    let before = names_in(path);
    for (to, out) in [("llmc", "out.bin"), ("hf", "out.hf")] {
        let program = env!("CARGO_BIN_EXE_taper");
        // 8 units of 512 or 1,024 bytes: the header fits, the numbers do not.
        let line = format!("ulimit -f 8; exec {program} convert out --to {to} {out}");
        let output = Command::new("sh")
            .args(["-c", &line])
            .current_dir(path)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("error: cannot write"), "{stderr}");
        assert_eq!(names_in(path), before, "{stderr}");
    }
}

#[test]
fn remains_of_a_killed_conversion_are_cleared_and_a_running_one_is_left_alone() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write_model(&path.join("model"));
    let staged = path.join(".out.convert");
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("model.safetensors"), "half").unwrap();
    let arguments = ["model", "--to", "hf", "out"];
    let lock = File::open(&staged).unwrap();
    lock.try_lock().unwrap();
    convert(path, &arguments).refused(&["`out` is being written by another `taper convert`"]);
    assert_eq!(names_in(&staged), ["model.safetensors"]);
    drop(lock);
    convert(path, &arguments).succeeded();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("model", path.join(".other.convert")).unwrap();
        let arguments = ["model", "--to", "hf", "other"];
        convert(path, &arguments).refused(&["`.other.convert` exists"]);
        fs::remove_file(path.join(".other.convert")).unwrap();
        assert_eq!(names_in(&path.join("model")).len(), 2);
    }
    assert_eq!(names_in(path), ["model", "out"]);
    assert_eq!(
        names_in(&path.join("out")),
        ["config.json", "model.safetensors"]
    );
}
