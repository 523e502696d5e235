//! Configs of nanoGPT: literal assignments are read, nothing is executed, and everything else is said or refused.

use taper::config::{BatchSize, Config, DeviceRequest, DtypeRequest, LoadedConfig};
use taper::terms::Gelu;

use super::shown;

/// What is read from a file of that name and text, or the error as `main` prints it.
fn try_read(text: &str, sets: &[&str]) -> Result<LoadedConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.py");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let loaded = LoadedConfig::load(path, &sets);
    let mut loaded = loaded.map_err(|error| shown(&error).replace(path, "my.py"))?;
    let python = loaded.python.as_mut().unwrap();
    for told in &mut python.notes {
        *told = told.replace(path, "my.py");
    }
    python.toml = python.toml.replace(path, "my.py");
    Ok(loaded)
}

#[track_caller]
fn read(text: &str) -> Config {
    try_read(text, &[])
        .unwrap_or_else(|error| panic!("{error}"))
        .config
}

#[track_caller]
fn told(text: &str) -> String {
    let loaded = try_read(text, &[]).unwrap_or_else(|error| panic!("{error}"));
    loaded.python.unwrap().notes.join("\n")
}

#[track_caller]
fn refused(text: &str) -> String {
    match try_read(text, &[]) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error,
    }
}

/// Written in the manner of nanoGPT's configs.
const CHARACTERS: &str = r#"
"""a small model, by character"""
import time

out_dir = 'out-characters'
eval_interval = 250 # often
eval_iters = 20
always_save_checkpoint = False
wandb_log = True
wandb_project = "characters"
wandb_run_name = 'mini-' + str(time.time())

dataset = 'shakespeare_char'
gradient_accumulation_steps = 1
batch_size = 64
block_size = 2 ** 8

n_layer = n_head = 6
n_embd = n_head * 64
dropout = 0.2

learning_rate = 1e-3
max_iters = 5_000
lr_decay_iters = max_iters # as usual
min_lr = learning_rate / 10
beta2 = .99
warmup_iters: int = 100
steps_of_warmup = 1
compile = False
"#;

#[test]
fn a_config_is_read_as_nanogpt_means_it() {
    let config = read(CHARACTERS);
    let model = &config.model;
    assert_eq!((model.n_layer, model.n_head, model.n_embd), (6, 6, 384));
    assert_eq!((model.block_size, model.dropout), (256, 0.2));
    assert_eq!((model.bias, model.gelu), (false, Gelu::Erf));
    let optimizer = &config.optimizer;
    assert_eq!((optimizer.learning_rate, optimizer.beta2), (1e-3, 0.99));
    assert_eq!(optimizer.min_lr, 1e-3 / 10.0);
    assert_eq!(
        (config.train.max_iters, optimizer.lr_decay_iters),
        (5000, 5000)
    );
    assert_eq!((optimizer.warmup_iters, config.eval.eval_iters), (100, 20));
    assert_eq!(config.train.batch_size, BatchSize::Sequences(64));
    assert_eq!(config.sequences_per_step(), 64);
    assert_eq!(config.checkpoint.out_dir.to_str(), Some("out-characters"));
    assert_eq!(config.data.dataset, "shakespeare_char");
    // What the file does not say is nanoGPT's default, which is taper's.
    assert_eq!((optimizer.beta1, optimizer.weight_decay), (0.9, 0.1));
}

#[test]
fn everything_that_is_added_or_left_out_is_said_with_its_reason() {
    let told = told(CHARACTERS);
    for words in [
        "`my.py`: read: [model] block_size, n_layer, n_head, n_embd, dropout; [data] dataset; [train]",
        "`gelu = \"erf\"` is added: PyTorch's `nn.GELU()`",
        "left out: `wandb_log`, `wandb_project`, `wandb_run_name` (every number goes to `metrics.jsonl`",
        "left out: `always_save_checkpoint` (the newest",
        "left out: `compile` (nothing is compiled at run time)",
        "nothing of the file is executed: line 3, `import time`",
        "left out: `steps_of_warmup` (no keys of nanoGPT or taper)",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn the_toml_is_the_same_request() {
    for text in [
        CHARACTERS,
        "",
        "init_from = 'gpt2'\nout_dir = 'it\\'s \"new\"'",
    ] {
        let loaded = try_read(text, &[]).unwrap();
        let toml = loaded.python.unwrap().toml;
        assert!(toml.starts_with("# From my.py"), "{toml}");
        assert_eq!(super::load(&toml, &[]), loaded.config, "{toml}");
    }
    let loaded = try_read(CHARACTERS, &["max_iters=7"]).unwrap();
    assert_eq!(loaded.config.train.max_iters, 7);
    let toml = loaded.python.unwrap().toml;
    assert!(toml.contains("max_iters = 5000"), "{toml}");
}

#[test]
fn a_step_is_nanogpts_product_whichever_factor_the_file_gives() {
    for (text, sequences) in [
        ("", 12 * 40),
        ("batch_size = 8", 8 * 40),
        ("gradient_accumulation_steps = 5 * 8", 12 * 40),
        ("gradient_accumulation_steps = 2", 12 * 2),
        ("batch_size = 8\ngradient_accumulation_steps = 3", 8 * 3),
        ("sequences_per_step = 10", 10),
    ] {
        assert_eq!(read(text).sequences_per_step(), sequences, "{text}");
    }
    let words = "`gradient_accumulation_steps = 40` is added: nanoGPT's default";
    let told = told("batch_size = 8");
    assert!(told.contains(words), "{told}");
}

#[test]
fn devices_precisions_and_weights_get_their_meaning() {
    let config = read("device = 'mps'\ndtype = 'float16'\nbackend = 'nccl'\neval_only = True");
    assert_eq!(config.system.device, DeviceRequest::Auto);
    assert_eq!(config.system.dtype, DtypeRequest::Float16);
    assert!(config.eval.eval_only);
    let words = told("device = 'mps'\nbackend = 'gloo'");
    assert!(
        words.contains("`device` is \"auto\" in the place of \"mps\""),
        "{words}"
    );
    assert!(
        words.contains("`backend` (taper trains in one process)"),
        "{words}"
    );
    // nanoGPT's autocast is for GPUs.
    let text = "device = 'cpu'\ndtype = 'bfloat16'";
    assert_eq!(read(text).system.dtype, DtypeRequest::Auto);
    assert!(told(text).contains("`dtype` (on the CPU nanoGPT computes in float32"));
    // The weights decide the sizes and the activation.
    let text = "init_from = 'gpt2-xl'\nn_layer = 6\nbias = False\nblock_size = 512";
    let loaded = try_read(text, &[]).unwrap();
    let toml = loaded.python.unwrap().toml;
    assert!(
        !toml.contains("n_layer") && !toml.contains("gelu"),
        "{toml}"
    );
    assert_eq!(loaded.config.model.block_size, 512);
    let words = "`n_layer`, `bias` (the weights of `init_from` decide it";
    assert!(told(text).contains(words));
    assert!(told(text).contains("`gelu` is that of the weights, tanh"));
}

#[test]
fn arithmetic_is_pythons() {
    for (expression, expected) in [
        ("5 * 8", 40),
        ("12 * 1024 // 7", 1755),
        ("2 ** 3 ** 2", 512),
        ("-(-7) // 2 + 1", 4),
        ("-7 // 2 + 10", 6),
        ("-7 % 5 * 2", 6),
        ("(1 +\n   2) * \\\n 3", 9),
        ("0x10 + 0b11 + 0o7 + 1_0", 36),
        ("1/0.1", 10),
        ("1e3", 1000),
        ("10 - 4 - 3", 3),
    ] {
        let config = read(&format!("max_iters = {expression}\nlr_decay_iters = 99999"));
        assert_eq!(config.train.max_iters, expected, "{expression}");
    }
    for (expression, expected) in [
        ("1 / 4", 0.25),
        ("1 - 0.75", 0.25),
        ("2 ** -2", 0.25),
        ("+.5 ** 2", 0.25),
    ] {
        assert_eq!(
            read(&format!("dropout = {expression}")).model.dropout,
            expected,
            "{expression}"
        );
    }
    let text = "base = 'out'\nout_dir = base + '-' \"joined\" # and not 'this'\n";
    assert_eq!(read(text).checkpoint.out_dir.to_str(), Some("out-joined"));
    assert_eq!(read("a = 1; n_layer = 3 + a").model.n_layer, 4);
}

#[test]
fn a_value_that_has_to_be_computed_by_python_is_shown_at_its_place() {
    let error = refused("import os\nn_layer = int(os.environ['LAYERS'])\n");
    assert_eq!(
        error,
        "error: this has no value without running the file\n \
         --> my.py:2:11\n  |\n2 | n_layer = int(os.environ['LAYERS'])\n  |           ^^^^\n\
         hint: write its value as a literal, or leave it out and add `--set model.n_layer=VALUE`"
    );
    for (text, marked) in [
        ("out_dir = f'out-{1}'", "f'out-{1}'"),
        ("out_dir = 'a' 'b'.upper()", "'a' 'b'."),
        ("bias = not True", "not"),
        ("bias = 1 if x else 0", "1"),
        ("n_layer = [6][0]", "["),
        ("n_layer = layers", "layers"),
        ("import a\nlayers = a.b\nn_layer = layers * 2", "layers"),
        ("n_layer = 1 / 0", "1 / 0"),
        ("n_layer =", "a value is missing"),
        ("n_layer, n_head = 6, 6", "n_layer"),
        ("n_layer += 6", "n_layer"),
        ("if True:\n    n_layer = 6", "n_layer"),
        ("if True: n_layer = 6", "n_layer"),
        ("for n_layer in (6, 7):\n    pass", "n_layer"),
        (
            "try:\n    import x\nexcept ImportError:\n    device = 'cpu'",
            "device",
        ),
        ("from settings import n_layer", "n_layer"),
        ("if (n_layer := 6): pass", "n_layer"),
        ("exec(open('configurator.py').read())", "exec"),
        ("globals()['n_layer'] = 6", "globals"),
        ("out_dir = 'never closed", "'"),
        ("batch_size = (8", "("),
        ("batch_size = 8)", ")"),
        ("batch_size = 008", "008"),
        ("learning_rate = 1e5000 * 0 $", "$"),
    ] {
        let error = refused(text);
        let carets = error
            .lines()
            .find(|line| line.trim_start().starts_with("| ") && line.contains('^'));
        let width = carets.map_or(0, |line| line.matches('^').count());
        assert!(
            error.starts_with("error: ") && error.contains("hint: "),
            "{text}: {error}"
        );
        if marked != "a value is missing" {
            let width_ok = width >= marked.chars().count().min(2) || marked.len() == 1;
            assert!(error.contains(marked) && width_ok, "{text}: {error}");
        }
    }
}

#[test]
fn values_that_no_key_takes_are_shown_in_the_python_file() {
    let error = refused("# mine\nn_layer = 'six'\n");
    assert!(
        error.starts_with("error: `n_layer` cannot be `'six'`\n --> my.py:2:11\n"),
        "{error}"
    );
    assert!(refused("max_iters = 5.5").contains("my.py:1:13"));
    assert!(refused("n_layer = 10 ** 30").contains("cannot be `10 ** 30`"));
    let error = refused("n_head = 5\nn_embd = 384");
    assert!(
        error.contains("does not divide") && error.contains("my.py:2:10"),
        "{error}"
    );
}

#[test]
fn a_name_that_is_nearly_a_key_is_a_slip_unless_the_file_uses_it() {
    let error = refused("learning_rat = 1e-3");
    assert!(
        error.contains("unknown key `learning_rat`")
            && error.contains("did you mean `learning_rate`?"),
        "{error}"
    );
    let config = read("max_iter = 300\nmax_iters = max_iter * 2\nlr_decay_iters = 9999");
    assert_eq!(config.train.max_iters, 600);
    // A block that sets only names of its own, and calls, are left out.
    let words = told("def note(text):\n    seen = text\nprint('hello'); note('a')\n_private = 1\n");
    assert!(
        words.contains("line 1, `def note(text):`; line 3, `print('hello')`"),
        "{words}"
    );
}

#[test]
fn a_hostile_file_ends_soon_and_with_words() {
    let deep = format!("n_layer = {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(refused(&deep).contains("too many brackets and signs"));
    assert!(refused(&format!("n_layer = {}1", "-".repeat(100_000))).contains("too many brackets"));
    assert!(refused(&format!("n_layer = 2{}", " ** 2".repeat(1000))).contains("too many brackets"));
    let doubling = format!("a = 'x'\n{}out_dir = a", "a = a + a\n".repeat(64));
    assert!(refused(&doubling).contains("`a` has no value"));
    let many = refused(&"n_layer = f()\n".repeat(60_000));
    assert_eq!(many.matches("error: ").count(), 20);
    let many = told(&"print('x')\n".repeat(60_000));
    assert!(many.contains("and 59995 more"), "{many}");
}
