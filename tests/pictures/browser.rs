//! The page of a run, opened in Chromium.

use std::path::Path;
use std::process::Command;

use tempfile::tempdir;

use crate::fixture::{eventful, plain};
use crate::process::taper;

/// Light and dark, on a desktop and on a phone: no message on the console, no request, nothing sticks out at the side, and
/// hovering, zooming and every control do what they say. Screenshots for people are left in `target/tmp/pages`.
#[test]
#[ignore = "needs Chromium, chromedriver and a Python with selenium"]
fn a_page_works_in_chromium() {
    let python = std::env::var_os("TAPER_PYTHON").expect(
        "set TAPER_PYTHON=\"$(scripts/python_peers)\", a Python with selenium, and install chromium and chromedriver",
    );
    let folder = tempdir().unwrap();
    eventful(folder.path(), "<b>eventful", 6e-4);
    plain(folder.path(), "plain", 40);
    for (run, page) in [("<b>eventful", "eventful.html"), ("plain", "plain.html")] {
        taper(folder.path(), &["report", run, "--out", page]).succeeded();
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/browser.py");
    let output = Command::new(python)
        .arg(program)
        .arg(concat!(env!("CARGO_TARGET_TMPDIR"), "/pages"))
        .args(["eventful.html", "plain.html"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{stdout}{stderr}");
}
