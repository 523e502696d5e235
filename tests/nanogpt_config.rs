//! nanoGPT's configs and command line as a user types them.

use std::fs;
use std::path::Path;

use tempfile::{TempDir, tempdir};

mod process;

use process::{Outcome, checkpoint, command, taper, tiny};

/// A run of two steps on the embedded corpus.
const TOY: &str = "import time
out_dir = 'out'
dataset = 'quickstart'
wandb_run_name = 'toy' + str(time.time())
n_layer = 2
n_head = 2
n_embd = 8 * n_head
block_size = 16
batch_size = 2
gradient_accumulation_steps = 1
max_iters = 2
lr_decay_iters = max_iters
warmup_iters = 0
eval_interval = 2
eval_iters = 1
compile = True
";

fn folder() -> TempDir {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("config")).unwrap();
    fs::write(folder.path().join("config/toy.py"), TOY).unwrap();
    folder
}

fn train(folder: &Path, flags: &[&str]) -> Outcome {
    taper(
        folder,
        &[&["train", "--config", "config/toy.py"], flags].concat(),
    )
}

#[test]
fn a_config_of_nanogpt_trains_and_leaves_a_toml_that_trains_the_same() {
    let folder = folder();
    let path = folder.path();
    let first = train(path, &[]).succeeded().stderr;
    for words in [
        "`config/toy.py`: read: [model] n_layer, n_head, n_embd, block_size; [data] dataset",
        "left out: `compile` (nothing is compiled at run time)",
        "line 1, `import time`",
        "wrote `config/toy.toml`; next time: `--config config/toy.toml`",
    ] {
        assert!(first.contains(words), "{words}: {first}");
    }
    assert!(checkpoint(path, 2).is_dir());
    let eval = |config: &str| {
        let arguments = ["train", "--config", config, "--resume", "--eval-only"];
        taper(path, &arguments).succeeded()
    };
    let again = eval("config/toy.py");
    let words = "`config/toy.toml` says the same";
    assert!(again.stderr.contains(words), "{}", again.stderr);
    assert_eq!(eval("config/toy.toml").stdout, again.stdout);
}

#[test]
fn a_toml_that_is_there_or_cannot_be_written_stops_no_run() {
    let folder = folder();
    let path = folder.path();
    let toml = path.join("config/toy.toml");
    fs::write(&toml, "# mine\n").unwrap();
    let told = train(path, &["--eval-only"]).succeeded().stderr;
    assert!(
        told.contains("is there and says something else: it stays as it is"),
        "{told}"
    );
    assert_eq!(fs::read_to_string(&toml).unwrap(), "# mine\n");
    // A link that leads nowhere is something, too.
    #[cfg(unix)]
    {
        fs::remove_file(&toml).unwrap();
        std::os::unix::fs::symlink("nowhere", &toml).unwrap();
        let told = train(path, &["--eval-only"]).succeeded().stderr;
        assert!(told.contains("stays as it is"), "{told}");
        assert!(!path.join("config/nowhere").exists());
    }
}

#[test]
fn a_plan_and_a_bench_write_nothing() {
    let folder = folder();
    let path = folder.path();
    let plan = taper(
        path,
        &["plan", "--config", "config/toy.py", "--device", "cpu"],
    )
    .succeeded();
    assert!(
        plan.stdout.contains("n_layer 2 x n_head 2 x n_embd 16"),
        "{}",
        plan.stdout
    );
    assert!(
        plan.stderr.contains("note: `config/toy.py`: read: [model]"),
        "{}",
        plan.stderr
    );
    let names: Vec<_> = fs::read_dir(path.join("config")).unwrap().collect();
    assert_eq!(names.len(), 1);
}

#[test]
fn the_command_line_of_nanogpt_trains() {
    let folder = folder();
    let path = folder.path();
    let words = [
        "train",
        "config/toy.py",
        "--max_iters=1",
        "--compile=False",
        "--bias=True",
    ];
    let told = taper(path, &words).succeeded().stderr;
    for words in [
        "note: nanoGPT's words are read as taper's: `config/toy.py` as `--config=config/toy.py`, `--max_iters=1` as \
         `--set=train.max_iters=1`, `--bias=True` as `--set=model.bias=true`",
        "note: left out of nanoGPT's words: `--compile=False` (nothing is compiled at run time)",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(checkpoint(path, 1).is_dir());
    let unknown = taper(path, &["train", "config/toy.py", "--max_iterz=1"]);
    assert_eq!(unknown.code, Some(1));
    assert!(
        unknown.stderr.contains("unexpected argument '--max_iterz'"),
        "{}",
        unknown.stderr
    );
    // A config that is not there is answered with the preset of its name.
    let words = ["train", "--config", "config/train_shakespeare_char.py"];
    taper(path, &words).refused(&["no file and no preset", "shakespeare_char"]);
    // What is wrong in a value is said of the setting.
    taper(path, &["train", "config/toy.py", "--max_iters=many"])
        .refused(&["--set train.max_iters=many"]);
}

#[test]
fn taper_s_own_configs_take_nanogpts_keys_too() {
    let folder = tempdir().unwrap();
    let flags = ["--max_iters=1", "--wandb_log=True", "--quiet"];
    let arguments = tiny("", &flags);
    let output = command(folder.path(), &arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(checkpoint(folder.path(), 1).is_dir());
}
