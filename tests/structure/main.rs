//! The architecture of the crate, read from its sources: floors of modules, `unsafe`, printing, documentation; and the
//! lengths of files and functions, also of the tests' and the virtual GPU's.
//!
//! `planted` proves each rule on sources that break it.

mod planted;
mod rings;
mod rules;
mod source;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rings::rings;
use rules::{
    Allowed, Floors, Violation, file_lengths, floors, function_lengths, module_documentation,
    only_in, print_macros,
};
use source::{Kind, Source};

/// Modules of the crate from the bottom up: each may import those before it. `lib.rs` and `main.rs` are above all.
const FLOORS: Floors = Floors {
    list: "FLOORS",
    root: &[],
    order: &[
        ("terms", "the words that every room speaks"),
        ("units", "bytes and counts as people write them"),
        ("chart", "pictures of curves, from numbers alone"),
        ("hub", "downloads from the Hugging Face hub, and its cache"),
        ("rng", "random numbers by counter"),
        ("faults", "injected failures, for tests"),
        ("outliers", "updates that are left out"),
        ("schedule", "the learning rate of a step"),
        ("memory", "the ledger of what a run holds"),
        ("tokenizer", "text to tokens and back"),
        ("config", "what was asked"),
        ("device", "what is there"),
        ("data", "token files, and batches from them"),
        ("ops", "the operations of a training step, on CPU and GPU"),
        ("model", "a step as a program, and GPT-2 as one"),
        ("step", "one optimizer step, evaluated and recovered"),
        ("plan", "what will be done, and why"),
        ("trial", "a plan's memory, taken for a moment"),
        ("checkpoint", "what a run leaves on disk"),
        ("sampling", "text from a model"),
        ("evals", "benchmarks, and the perplexity of files"),
        ("metrics", "rates and the time left"),
        ("record", "the lines of metrics.jsonl"),
        ("runs", "runs on disk, read for their curves"),
        ("interrupt", "signals that ask a run to stop"),
        ("report", "what is shown and logged"),
        ("curves", "curves of runs, as pictures show them"),
        ("page", "a run as a page for a browser"),
        ("session", "a run, from its start to its summary"),
        ("doctor", "what could keep a run from starting"),
        ("error", "every room's error, with its hint and exit code"),
        ("commands", "one file per verb"),
        ("cli", "the command line"),
    ],
};

/// Modules of `ops` from the bottom up. `ops/mod.rs` is above all.
const OPS_FLOORS: Floors = Floors {
    list: "OPS_FLOORS",
    root: &["ops"],
    order: &[
        ("loops", "loops over slices on the CPU"),
        ("launch", "launches of kernels on a GPU"),
        ("gemm", "matrix products: verified, measured, remembered"),
        ("clock", "clocks of devices"),
        (
            "backend",
            "the seam: operations as data, and a device that runs them",
        ),
        ("cpu", "one side: the CPU"),
        ("partition", "scratch, by shapes alone"),
        ("cuda", "the other side: a GPU"),
    ],
};

/// Places that may contain `unsafe`.
const UNSAFE: &[Allowed] = &[
    Allowed {
        place: "src/ops",
        reason: "vector instructions and GPU kernels",
    },
    Allowed {
        place: "src/device/driver.rs",
        reason: "the driver is asked for its version and why a library is missing, and candle's event tracking is turned off",
    },
    Allowed {
        place: "src/device/instructions.rs",
        reason: "Linux is asked for AMX's tiles",
    },
    Allowed {
        place: "src/device/heap.rs",
        reason: "glibc is told to share one heap where address space is limited, and to return what was freed",
    },
    Allowed {
        place: "src/device/cuda.rs",
        reason: "attributes of a GPU come from the driver, and lazy loading is set in the environment",
    },
    Allowed {
        place: "src/device/libraries/load.rs",
        reason: "NVIDIA's libraries are loaded by name, and asked for their versions",
    },
    Allowed {
        place: "src/main.rs",
        reason: "load_code_lazily changes the environment before there are threads",
    },
];

/// Places that may print.
const PRINTING: &[Allowed] = &[Allowed {
    place: "src/report",
    reason: "progress, plans, results and logs",
}];

const LINES_OF_A_FILE: usize = 450;
const LINES_OF_A_FUNCTION: usize = 80;

/// Every Rust file that the rules judge.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = BTreeMap::new();
    for place in ["src", "tests", "build", "build.rs"] {
        collect(root, Path::new(place), &mut texts);
    }
    source::read(&texts)
});

/// Adds the Rust files in `place`, a file or a folder.
fn collect(root: &Path, place: &Path, texts: &mut BTreeMap<PathBuf, String>) {
    let path = root.join(place);
    if path.is_dir() {
        for entry in fs::read_dir(&path).expect("the folder can be listed") {
            let name = entry.expect("the folder can be listed").file_name();
            if name != "target" {
                collect(root, &place.join(name), texts);
            }
        }
    } else if place.extension() == Some(OsStr::new("rs")) {
        let text = fs::read_to_string(&path).expect("a source file is UTF-8");
        texts.insert(place.into(), text);
    }
}

#[track_caller]
fn assert_none(violations: &[Violation]) {
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} found:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn modules_import_downwards() {
    assert_none(&floors(&SOURCES, &FLOORS));
}

#[test]
fn modules_of_ops_import_downwards() {
    assert_none(&floors(&SOURCES, &OPS_FLOORS));
}

#[test]
fn no_modules_import_in_a_ring() {
    assert_none(&rings(&SOURCES, FLOORS.root));
}

#[test]
fn no_modules_of_ops_import_in_a_ring() {
    assert_none(&rings(&SOURCES, OPS_FLOORS.root));
}

#[test]
fn unsafe_is_in_its_places() {
    assert_none(&only_in(&SOURCES, Kind::Unsafe, UNSAFE));
}

#[test]
fn printing_is_in_its_places() {
    assert_none(&only_in(&SOURCES, Kind::Print, PRINTING));
}

#[test]
fn no_macro_prints() {
    assert_none(&print_macros(&SOURCES));
}

#[test]
fn files_are_short() {
    assert_none(&file_lengths(&SOURCES, LINES_OF_A_FILE));
}

#[test]
fn functions_fit_on_a_screen() {
    assert_none(&function_lengths(&SOURCES, LINES_OF_A_FUNCTION));
}

#[test]
fn modules_are_documented() {
    assert_none(&module_documentation(&SOURCES));
}
