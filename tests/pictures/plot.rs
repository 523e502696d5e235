//! Pictures of runs.

use std::fs;
use std::path::Path;

use resvg::tiny_skia::Pixmap;
use tempfile::tempdir;

use crate::fixture::{eventful, plain, write};
use crate::process::taper;

fn svg(folder: &Path, arguments: &[&str]) -> String {
    let mut all = vec!["plot", "--out", "x.svg"];
    all.extend(arguments);
    taper(folder, &all).succeeded();
    fs::read_to_string(folder.join("x.svg")).unwrap()
}

#[test]
fn a_picture_of_one_run_marks_what_happened() {
    let folder = tempdir().unwrap();
    eventful(folder.path(), "run", 1e-3);
    let plotted = taper(folder.path(), &["plot", "run"]).succeeded();
    assert_eq!(plotted.stdout, "run/curves.svg\n");
    let svg = fs::read_to_string(folder.path().join("run/curves.svg")).unwrap();
    for text in [
        ">run<",
        ">0.8M parameters, quickstart, 2,048 tokens a step<",
        ">Loss<",
        ">training<",
        ">mean of 5 steps<",
        ">validation<",
        ">best 3.2000<",
        ">Learning rate<",
        ">Gradient norm<",
        ">↑ up to 80.0<",
        ">Tokens per second<",
        ">Memory<",
        ">GPU<",
        ">process<",
        ">planned<",
        ">micro-batch 16 to 8<",
        ">choice changed<",
        ">resumed<",
        ">update skipped<",
        ">warning<",
    ] {
        assert!(svg.contains(text), "`{text}` is not in the picture");
    }
    assert!(!svg.contains("NaN"));
}

#[test]
fn runs_over_each_other_are_named_by_what_differs() {
    let folder = tempdir().unwrap();
    eventful(folder.path(), "a", 6e-4);
    eventful(folder.path(), "b", 1e-3);
    let svg = svg(folder.path(), &["a", "b/metrics.jsonl", "--theme", "dark"]);
    for text in [
        ">2 runs<",
        ">learning_rate=6e-4<",
        ">learning_rate=1e-3<",
        ">best val loss 3.2000<",
    ] {
        assert!(svg.contains(text), "`{text}` is not in the picture");
    }
}

#[test]
fn runs_that_differ_in_nothing_are_named_by_their_folders() {
    let folder = tempdir().unwrap();
    plain(folder.path(), "one & only", 30);
    plain(folder.path(), "other", 30);
    let svg = svg(folder.path(), &["one & only", "other"]);
    assert!(svg.contains(">one &amp; only<") && svg.contains(">other<"));
}

#[test]
fn only_the_curves_asked_for_are_drawn_over_the_axis_asked_for() {
    let folder = tempdir().unwrap();
    eventful(folder.path(), "run", 1e-3);
    let drawn = svg(
        folder.path(),
        &[
            "run",
            "--metrics",
            "val_loss,lr",
            "--x",
            "tokens",
            "--smooth",
            "1",
            "--log=xy",
        ],
    );
    for text in [">Validation loss<", ">Learning rate<", ">tokens<"] {
        assert!(drawn.contains(text), "{text}");
    }
    for text in [">Gradient norm<", ">training<", ">Memory<"] {
        assert!(!drawn.contains(text), "{text}");
    }
    // A day passed between two processes, and it was not spent in training.
    let drawn = svg(folder.path(), &["run", "--x", "time"]);
    assert!(drawn.contains(">time in training, seconds<"), "{drawn}");
}

#[test]
fn a_png_has_the_size_asked_for_and_shows_the_curves() {
    let folder = tempdir().unwrap();
    eventful(folder.path(), "run", 1e-3);
    for (width, height, theme) in [("400", "600", "light"), ("640", "480", "dark")] {
        let arguments = [
            "plot", "run", "--out", "x.png", "--width", width, "--height", height, "--theme", theme,
        ];
        taper(folder.path(), &arguments).succeeded();
        let bytes = fs::read(folder.path().join("x.png")).unwrap();
        let picture = Pixmap::decode_png(&bytes).unwrap();
        assert_eq!(
            (picture.width().to_string(), picture.height().to_string()),
            (width.into(), height.into())
        );
        let corner = picture.pixel(0, 0).unwrap();
        assert_eq!(corner.red() > 128, theme == "light");
        let others = picture
            .pixels()
            .iter()
            .filter(|&&pixel| pixel != corner)
            .count();
        let share = others as f64 / picture.pixels().len() as f64;
        assert!(
            (0.02..0.5).contains(&share),
            "{share} of the picture are drawn on"
        );
    }
}

#[test]
fn a_name_that_the_font_does_not_have_is_told() {
    let folder = tempdir().unwrap();
    plain(folder.path(), "学習", 30);
    let plotted = taper(
        folder.path(),
        &["plot", "学習", "--out", "x.png", "--width", "300"],
    )
    .succeeded();
    assert!(
        plotted
            .stderr
            .contains("note: the font of PNG pictures has no 学習"),
        "{}",
        plotted.stderr
    );
}

#[test]
fn a_short_run_or_one_with_a_torn_line_is_drawn_as_far_as_it_goes() {
    let folder = tempdir().unwrap();
    let run = plain(folder.path(), "run", 1);
    assert!(svg(folder.path(), &["run"]).contains(">Loss<"));
    let metrics = run.join("metrics.jsonl");
    let text = fs::read_to_string(&metrics).unwrap();
    fs::write(&metrics, format!("{text}{}", &text[..40])).unwrap();
    assert!(svg(folder.path(), &["run"]).contains(">Loss<"));
    let only_evals = [crate::fixture::eval(10, 3.0), crate::fixture::eval(20, 2.5)];
    write(folder.path(), "evals", &only_evals);
    assert!(svg(folder.path(), &["evals"]).contains(">best 2.5000<"));
}

#[test]
fn what_is_no_run_or_has_nothing_to_draw_is_refused() {
    let folder = tempdir().unwrap();
    plain(folder.path(), "run", 3);
    write(folder.path(), "empty", &[]);
    fs::create_dir(folder.path().join("folder")).unwrap();
    let refused = |arguments: &[&str], words: &[&str]| {
        let all: Vec<&str> = ["plot"].iter().chain(arguments).copied().collect();
        taper(folder.path(), &all).refused(words);
    };
    refused(&["nowhere"], &["nowhere"]);
    refused(&["folder"], &["`folder` is no run", "metrics.jsonl"]);
    refused(&["empty"], &["no step and no evaluation yet"]);
    refused(
        &["run", "--metrics", "val_loss"],
        &["`run` has recorded none of the values asked for"],
    );
    refused(
        &["run", "--out", "x.jpg"],
        &["does not say which format", "end its name with `.svg`"],
    );
}

#[test]
fn a_picture_of_its_own_is_replaced_and_a_file_of_another_is_not() {
    let folder = tempdir().unwrap();
    plain(folder.path(), "run", 3);
    for name in ["x.svg", "x.png"] {
        let arguments = ["plot", "run", "--out", name, "--width", "300"];
        taper(folder.path(), &arguments).succeeded();
        taper(folder.path(), &arguments).succeeded();
        let path = folder.path().join(name);
        fs::write(&path, "mine").unwrap();
        taper(folder.path(), &arguments).refused(&[name, "taper did not make it"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
    let arguments = ["plot", "run", "--out", "nowhere/x.svg"];
    taper(folder.path(), &arguments).refused(&["nowhere"]);
}
