//! What a start asks of the card, up to the end of its first step, as the virtual GPU counts it.

use std::fs;

use serde_json::Value;

use crate::process::tiny;
use crate::runs::{Place, outcome};

/// What a run with a search asked for; with the cache that `place` holds, if it holds one.
fn counts(place: &Place, settings: &str) -> Value {
    let settings = format!(
        "gemm.autotune=limited train.max_iters=1 eval.eval_interval=1000000 eval.eval_on_start=false {settings}"
    );
    let file = place.path().join("counts.json");
    let mut command = place.command(&tiny(&settings, &[]));
    command
        .env("XDG_CACHE_HOME", place.path().join("cache"))
        .env("VGPU_COUNTS", &file)
        .env("VGPU_COUNTS_UNTIL", "1");
    outcome(&mut command).succeeded();
    fs::remove_dir_all(place.path().join("out")).unwrap();
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn number(counts: &Value, path: &str) -> u64 {
    counts.pointer(path).and_then(Value::as_u64).unwrap()
}

#[test]
fn a_search_copies_no_matrices_to_the_host_and_a_second_start_does_without_it() {
    let Some(place) = Place::new() else { return };
    let first = counts(&place, "");
    assert_eq!(number(&first, "/contexts"), 1);
    assert!(number(&first, "/kernel_launches_by_name/gemm_fill_bf16") > 0);

    let second = counts(&place, "");
    assert_eq!(number(&second, "/contexts"), 1);
    assert_eq!(
        second.pointer("/kernel_launches_by_name/gemm_fill_bf16"),
        None
    );
    assert_eq!(number(&second, "/copies/device_to_host/bytes"), 0);
    for fewer in ["/modules", "/products", "/kernel_launches"] {
        assert!(
            2 * number(&second, fewer) < number(&first, fewer),
            "{fewer}"
        );
    }

    // Four times the elements of every matrix but the weights and their gradients.
    let larger = counts(&place, "model.block_size=64 train.batch_size=2");
    let copied = "/copies/device_to_host/bytes";
    assert!(number(&larger, "/kernel_launches_by_name/gemm_fill_bf16") > 0);
    assert!(4 * number(&larger, copied) < 5 * number(&first, copied));
}
