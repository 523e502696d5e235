//! What a run is started on, and how it computes there: with and without a driver, and with libraries that fail.

use crate::process::{Outcome, tiny};
use crate::runs::{Place, assert_close, assert_same_numbers, json_lines, outcome};

/// The value and the reasons of the choices called `name` that a run with `--json` made.
fn choices(run: &Outcome, name: &str) -> Vec<(String, String)> {
    let lines = json_lines(&run.stdout);
    let at_start = lines[0]["choices"].as_array().unwrap().iter();
    let later = lines.iter().filter(|line| line["kind"] == "choice");
    let named = at_start
        .chain(later)
        .filter(|choice| choice["name"].as_str().unwrap().starts_with(name));
    let text = |choice: &serde_json::Value, key: &str| choice[key].as_str().unwrap().to_owned();
    named
        .map(|choice| (text(choice, "value"), text(choice, "because")))
        .collect()
}

/// As on a machine that has no driver.
fn without_driver(place: &Place, arguments: &[&str]) -> Outcome {
    outcome(place.command(arguments).env_remove("LD_LIBRARY_PATH"))
}

#[test]
fn without_a_driver_a_run_says_in_one_line_that_it_is_on_the_cpu_and_why() {
    let Some(place) = Place::new() else { return };
    let run = without_driver(&place, &tiny("", &[])).succeeded();
    let mut told = run.stderr.lines().filter(|line| line.contains("device = "));
    let line = told.next().unwrap();
    assert!(
        line.contains("device = cpu  (no GPU can be used: "),
        "{line}"
    );
    assert!(line.contains("libcuda.so.1"), "{line}");
    assert_eq!(place.state(10)["step"], 10);
}

#[test]
fn a_gpu_that_is_asked_for_and_is_not_there_is_an_error() {
    let Some(place) = Place::new() else { return };
    let cuda = tiny("system.device=cuda", &[]);
    without_driver(&place, &cuda).refused(&[
        "no GPU can be used",
        "libcuda.so.1",
        "--set system.device=cpu",
    ]);
    let seventh = place.train("system.device=cuda:7", "");
    seventh.refused(&["there is no GPU 7; the driver counts 1", "nvidia-smi -L"]);
    assert_eq!(place.contents(), []);
}

#[test]
fn heads_that_have_no_kernels_are_refused_on_the_gpu_only() {
    let Some(place) = Place::new() else { return };
    let wide = "model.n_head=1 model.n_embd=256 model.n_layer=1 train.max_iters=1";
    place.train(wide, "").refused(&[
        "heads of 256 channels",
        "end at 128",
        "--set system.device=cpu",
    ]);
    assert_eq!(place.contents(), []);
    place
        .train(&format!("{wide} system.device=cpu"), "")
        .succeeded();
}

#[test]
fn eval_only_prints_what_the_run_logged_and_changes_nothing() {
    let Some(place) = Place::new() else { return };
    place.train("", "").succeeded();
    let before = place.contents();
    let logged = place.losses()[4..].to_vec();
    let run = place.train("", "--resume --eval-only --json").succeeded();
    let lines = json_lines(&run.stdout);
    let losses = ["train_loss", "val_loss"].map(|key| lines[0][key].as_f64().unwrap());
    assert_eq!(losses, logged[..]);
    assert!(before == place.contents());
}

#[test]
fn our_own_kernels_alone_train_the_same_model() {
    let Some(library) = Place::new() else { return };
    library.train("", "").succeeded();
    // Whoever asked the library would be refused, and would say so.
    let ptx = Place::new()
        .unwrap()
        .failing("cublasLtCreate,cublasLtMatmul");
    let run = ptx.train("gemm.backend=ptx", "--json").succeeded();
    assert_eq!(choices(&run, "gemm "), choices(&run, "gemm autotune"));
    assert_close(&ptx.losses(), &library.losses(), 1e-3);
    assert!(ptx.file(4, "model.safetensors") != library.file(4, "model.safetensors"));
}

#[test]
fn a_library_that_fails_is_taken_over_by_our_own_kernels_and_that_is_said() {
    let Some(ptx) = Place::new() else { return };
    ptx.train("gemm.backend=ptx", "").succeeded();
    for fail in [
        "cublasLtMatmul",
        "cublasLtCreate",
        "cublasLtMatmulAlgoGetHeuristic",
    ] {
        let place = Place::new().unwrap().failing(fail);
        let run = place.train("", "--json").succeeded();
        let told = choices(&run, "gemm ");
        let taken_over = told.iter().filter(|(value, because)| {
            value.starts_with("ptx") && because.to_lowercase().contains("cublas")
        });
        assert!(taken_over.count() > 0, "{fail}: {told:?}");
        assert_same_numbers(&place, &ptx, 4);
    }
}

#[test]
fn a_cuda_graph_is_used_as_asked_and_changes_nothing() {
    let runs = ["on", "off"].map(|asked| {
        let place = Place::new()?;
        let settings = format!("system.cuda_graph={asked}");
        let run = place.train(&settings, "--json").succeeded();
        let said = choices(&run, "cuda graph");
        let expected = (asked.to_owned(), "`system.cuda_graph` says so".to_owned());
        assert_eq!(said, [expected]);
        Some(place)
    });
    let [Some(on), Some(off)] = runs else { return };
    assert_same_numbers(&on, &off, 4);
}

#[test]
fn a_run_that_diverges_stops_and_leaves_its_checkpoints() {
    for dtype in ["bfloat16", "float16"] {
        let Some(place) = Place::new() else { return };
        let settings = format!(
            "system.dtype={dtype} optimizer.learning_rate=1e30 optimizer.min_lr=1e30 \
             optimizer.warmup_iters=0 checkpoint.checkpoint_interval=1"
        );
        let diverged = place.train(&settings, "--quiet");
        diverged.refused(&["diverged at step 2", "optimizer.learning_rate"]);
        assert_eq!(place.state(1)["step"], 1);
        let found = place.train(&settings, "--resume --eval-only --quiet");
        assert_eq!(found.succeeded().stderr, "");
    }
}
