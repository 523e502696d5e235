//! Sources that break each rule: the message names the file, the line, and what to do.

use std::collections::BTreeMap;

use crate::rings::rings;
use crate::rules::{
    Allowed, Floors, Violation, file_lengths, floors, function_lengths, module_documentation,
    only_in, print_macros,
};
use crate::source::{self, Kind, Source};

const TWO: Floors = Floors {
    list: "TWO",
    root: &[],
    order: &[("lower", "imports nothing"), ("upper", "imports lower")],
};

const TWO_IN_LOWER: Floors = Floors {
    list: "TWO_IN_LOWER",
    root: &["lower"],
    order: &[("left", "imports nothing"), ("right", "imports left")],
};

fn tree(files: &[(&str, &str)]) -> Vec<Source> {
    let texts: BTreeMap<_, _> = files
        .iter()
        .map(|(file, text)| (file.into(), (*text).to_string()))
        .collect();
    source::read(&texts)
}

/// A tree of `lower` with the text, and an empty `upper`.
fn lower(text: &str) -> Vec<Source> {
    tree(&[
        ("src/lib.rs", "mod lower; mod upper;"),
        ("src/lower/deep.rs", text),
        ("src/lower/mod.rs", "mod deep;"),
        ("src/upper.rs", "use crate::lower::deep; fn f() {}"),
    ])
}

/// Asserts that there is one violation, at a place, whose message has every one of the parts.
#[track_caller]
fn assert_one(violations: &[Violation], place: &str, parts: &[&str]) {
    let [violation] = violations else {
        panic!("one violation at {place} expected: {violations:#?}");
    };
    let text = violation.to_string();
    assert!(text.starts_with(&format!("{place}: ")), "{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[track_caller]
fn assert_upward(text: &str, line: usize) {
    let place = format!("src/lower/deep.rs:{line}");
    let parts = [
        "`lower` imports `upper`, which is above",
        "move what both need",
        "TWO in",
    ];
    assert_one(&floors(&lower(text), &TWO), &place, &parts);
}

#[test]
fn imports_downwards_are_allowed() {
    let sources =
        lower("use super::deep; pub(in crate::lower) struct A; mod tests { use super::*; }");
    assert_eq!(floors(&sources, &TWO), []);
    assert_eq!(rings(&sources, &[]), []);
}

#[test]
fn an_upward_import_is_found_wherever_it_stands() {
    assert_upward("//! Doc.\nuse crate::upper::f;", 2);
    assert_upward(
        "use crate::{\n    lower::deep,\n    upper::{self, f},\n};",
        3,
    );
    assert_upward("use {std::fmt,\ncrate::upper};", 2);
    assert_upward("\nfn g() { crate::upper::f() }", 2);
    assert_upward("fn g(\n_: &crate::upper::A<u8>) {}", 2);
    assert_upward(
        "#[derive(A)]\n#[serde(with = \"crate::upper::f\")]\nstruct A;",
        2,
    );
    assert_upward("#[given(\ncrate::upper::f)]\nfn g() {}", 2);
    assert_upward("fn g() { assert!(true,\n\"{}\", crate::upper::f()); }", 2);
    assert_upward("macro_rules! g { () => {\nuse $crate::{upper::f};\n} }", 2);
    assert_upward("#[cfg(feature = \"cuda\")]\nuse crate::upper::f;", 2);
    assert_upward("#[cfg(test)]\nmod tests { use crate::upper::f; }", 2);
}

#[test]
fn an_upward_import_by_super_is_found() {
    assert_upward("\nuse super::super::upper::f;", 2);
    assert_upward("\nuse self::super::{super::upper::f};", 2);
    assert_upward("mod tests {\nuse super::super::super::upper::f; }", 2);
    // The same words a module deeper stay in `lower`.
    let sources = lower("mod tests { use super::super::upper::f; }");
    assert_eq!(floors(&sources, &TWO), []);
}

#[test]
fn documentation_and_visibility_import_nothing() {
    let sources = lower("/// See [`crate::upper::f`].\npub(in crate::upper) struct A;");
    assert_eq!(floors(&sources, &TWO), []);
}

#[test]
fn an_import_of_everything_is_found() {
    for text in [
        "\nuse crate::*;",
        "\nuse super::super::*;",
        "\nuse crate as all;",
        "\nuse crate::{self as all};",
    ] {
        let parts = ["all of `crate` is imported", "name the module"];
        assert_one(&floors(&lower(text), &TWO), "src/lower/deep.rs:2", &parts);
    }
}

#[test]
fn an_import_of_a_name_in_the_root_is_found() {
    let parts = [
        "`Result`, which is no module",
        "from the module that defines it",
    ];
    let sources = lower("\nuse crate::Result;");
    assert_one(&floors(&sources, &TWO), "src/lower/deep.rs:2", &parts);
}

#[test]
fn the_list_has_every_module_and_no_other() {
    let three = [
        ("src/lower.rs", ""),
        ("src/other/mod.rs", ""),
        ("src/upper.rs", ""),
    ];
    let found = floors(&tree(&three), &TWO);
    assert_one(
        &found,
        "src/other/mod.rs:1",
        &["`other` has no floor", "add it to TWO"],
    );
    let found = floors(&tree(&three[..1]), &TWO);
    assert_one(
        &found,
        "src/lib.rs:1",
        &["`upper`, which is no module", "take it off"],
    );
    let twice = Floors {
        order: &[("lower", ""), ("lower", "")],
        ..TWO
    };
    assert_one(
        &floors(&tree(&three[..1]), &twice),
        "src/lib.rs:1",
        &["`lower` twice", "keep one"],
    );
}

#[test]
fn floors_inside_a_module_are_held_alike() {
    let mut files = [
        ("src/lower/left.rs", "\nuse super::right::f;"),
        ("src/lower/mod.rs", "pub use left::A; pub use right::f;"),
        (
            "src/lower/right/deep.rs",
            "use crate::lower::left::A; use crate::upper::f;",
        ),
    ];
    let parts = ["`left` imports `right`, which is above", "TWO_IN_LOWER in"];
    assert_one(
        &floors(&tree(&files), &TWO_IN_LOWER),
        "src/lower/left.rs:2",
        &parts,
    );
    files[0].1 = "\nuse super::*;";
    let parts = ["all of `crate::lower` is imported"];
    assert_one(
        &floors(&tree(&files), &TWO_IN_LOWER),
        "src/lower/left.rs:2",
        &parts,
    );
    // A name that the module takes from a child is that child's.
    files[0].1 = "\nuse crate::lower::f;";
    let parts = ["`left` imports `right`, which is above"];
    assert_one(
        &floors(&tree(&files), &TWO_IN_LOWER),
        "src/lower/left.rs:2",
        &parts,
    );
    files[0].1 = "\nuse crate::lower::g;";
    let parts = ["`g`, which is no module"];
    assert_one(
        &floors(&tree(&files), &TWO_IN_LOWER),
        "src/lower/left.rs:2",
        &parts,
    );
}

#[test]
fn a_ring_is_found_with_an_import_for_each_hop() {
    let sources = tree(&[
        ("src/a.rs", "\nuse crate::b;"),
        ("src/b/mod.rs", "\n\nfn f() { super::c::f() }"),
        ("src/c.rs", "use crate::{d,\na};"),
        ("src/d.rs", ""),
        ("src/e.rs", "use crate::a;"),
        ("src/lib.rs", "use crate::a; pub mod a;"),
    ]);
    let parts = [
        "`a`, `b`, `c` import one another: turn one import around",
        "`a` imports `b` at src/a.rs:2",
        "`b` imports `c` at src/b/mod.rs:3",
        "`c` imports `a` at src/c.rs:2",
    ];
    assert_one(&rings(&sources, &[]), "src/a.rs:2", &parts);
}

#[test]
fn two_rings_are_told_apart() {
    let sources = tree(&[
        ("src/a.rs", "use crate::{b, c};"),
        ("src/b.rs", "use crate::a;"),
        ("src/c.rs", "use crate::d;"),
        ("src/d.rs", "use crate::c;"),
    ]);
    let found = rings(&sources, &[]);
    assert_one(&found[..1], "src/a.rs:1", &["`a`, `b` import"]);
    assert_one(&found[1..], "src/c.rs:1", &["`c`, `d` import"]);
}

const UPPER: &[Allowed] = &[Allowed {
    place: "src/upper",
    reason: "it must",
}];

/// A tree where `upper` does what it may, and `lower` has the text.
fn beside(upper: &str, lower: &str) -> Vec<Source> {
    tree(&[("src/lower.rs", lower), ("src/upper/mod.rs", upper)])
}

#[test]
fn unsafe_is_found_in_every_form() {
    let allowed = "fn f() { unsafe {} }";
    let forms = [
        "\nfn f() { unsafe {} }",
        "\nunsafe fn f() {}",
        "\nunsafe impl Send for A {}",
        "\nunsafe extern \"C\" {}",
        "\n#[unsafe(no_mangle)] fn f() {}",
        "macro_rules! f { () => {\nunsafe {} } }",
        "#[cfg(test)] mod tests {\nfn f() { unsafe {} } }",
    ];
    for form in forms {
        let found = only_in(&beside(allowed, form), Kind::Unsafe, UPPER);
        let parts = ["`unsafe` is not allowed here", "src/ops", "with a reason"];
        assert_one(&found, "src/lower.rs:2", &parts);
    }
    let words =
        "/// unsafe\nconst A: &str = \"unsafe\"; // unsafe\n#[allow(unsafe_code)] fn f() {}";
    assert_eq!(only_in(&beside(allowed, words), Kind::Unsafe, UPPER), []);
}

#[test]
fn printing_is_found_in_every_form() {
    let allowed = "fn f() { println!() }";
    let forms = [
        "fn f() {\nprint!(\"\") }",
        "fn f() {\nprintln!() }",
        "fn f() {\neprint!(\"\") }",
        "fn f() {\nstd::eprintln!() }",
        "fn f() {\ndbg!(1); }",
        "fn f() {\nstd::io::stdout().lock(); }",
        "fn f() {\nlet open = io::stderr; }",
        "use std::io::{Write, stdout}; fn f() {\nwriteln!(stdout(), \"\") }",
        "macro_rules! f { () => {\neprintln!() } }",
    ];
    for form in forms {
        let found = only_in(&beside(allowed, form), Kind::Print, UPPER);
        assert_one(
            &found,
            "src/lower.rs:2",
            &["is not allowed here", "src/report"],
        );
    }
    let others = "fn f() { child.stdout(a).stdout; child.stdout(); write!(a, \"\"); }
        #[cfg(test)] mod tests { fn f() { println!() } }";
    assert_eq!(only_in(&beside(allowed, others), Kind::Print, UPPER), []);
}

#[test]
fn a_macro_that_prints_is_found_in_code_and_not_in_tests() {
    let text = "fn f() {\neprintln!() }\n#[cfg(test)] mod tests { fn f() { println!() } }
        fn g() { io::stdout().lock(); }";
    let found = print_macros(&tree(&[("src/a.rs", text)]));
    assert_one(&found, "src/a.rs:2", &["`eprintln!` panics", "report::say"]);
}

#[test]
fn printing_after_tests_is_found() {
    let text = "#[cfg(test)]\nuse a;\n#[cfg(test)]\nfn f() {}\nfn g() { println!() }";
    let found = only_in(&beside("fn f() { println!() }", text), Kind::Print, UPPER);
    assert_one(&found, "src/lower.rs:5", &["`println` is not allowed"]);
}

#[test]
fn a_place_that_no_longer_needs_it_is_found() {
    let found = only_in(&beside("", ""), Kind::Unsafe, UPPER);
    assert_one(
        &found,
        "src/upper:1",
        &["nothing here needs", "it must", "take it off"],
    );
}

#[test]
fn a_long_file_is_found() {
    let sources = tree(&[("build.rs", "\n\n\n"), ("tests/a/main.rs", "\n\n\n\n")]);
    let parts = ["has 4 lines, 3 at most", "split it"];
    assert_one(&file_lengths(&sources, 3), "tests/a/main.rs:4", &parts);
}

#[test]
fn a_long_function_is_found_wherever_it_stands() {
    let forms = [
        "\nfn long() {\n\n}",
        "struct A; impl A {\npub const fn long(\n&self) {\n} }",
        "trait A { fn none();\nfn long() {\n\n} }",
        "fn outer() {\nfn long() {\n\n} }",
        "proptest! {\n#![x] fn long(a in 0..3) {\n\n} }",
        "#[doc = \"\"]\nunsafe fn long<A>() -> [u8; 3]\nwhere A: Fn(u8) -> u8 {\n}",
    ];
    for form in forms {
        let found = function_lengths(&tree(&[("src/a.rs", form)]), 2);
        let found: Vec<_> = found
            .into_iter()
            .filter(|found| !found.message.contains("outer"))
            .collect();
        assert_one(
            &found,
            "src/a.rs:2",
            &["`long` has 3 lines, 2 at most", "give its parts names"],
        );
    }
    let short =
        "type A = fn(u8)\n\n\n;\nfn f() {\n}\nmacro_rules! g { ($n:ident) => { fn $n() {\n\n} } }";
    let found = function_lengths(&tree(&[("src/a.rs", short)]), 2);
    assert_one(&found, "src/a.rs:7", &["`$n` has 3 lines"]);
}

#[test]
fn a_module_without_documentation_is_found() {
    let sources = tree(&[
        ("src/a.rs", "// A.\n//! A."),
        ("src/b.rs", "//! B."),
        ("tests/c.rs", ""),
    ]);
    assert_one(
        &module_documentation(&sources),
        "src/a.rs:1",
        &["begin the file with `//!`"],
    );
}
