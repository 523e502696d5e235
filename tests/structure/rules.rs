//! Rules of the crate's architecture: each takes the sources, and gives what breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::source::{Kind, Source};

/// A line that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    pub file: PathBuf,
    pub line: usize,
    /// The fact, then what to do about it.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

impl Violation {
    pub fn new(file: &Path, line: usize, message: String) -> Self {
        let file = file.into();
        Self {
            file,
            line,
            message,
        }
    }
}

/// Order of the modules of one folder.
pub struct Floors {
    /// Name of the list, for messages.
    pub list: &'static str,
    /// Module whose children are ordered; empty for the crate.
    pub root: &'static [&'static str],
    /// Each child from the bottom up, with one line that says what it is.
    pub order: &'static [(&'static str, &'static str)],
}

impl Floors {
    fn position(&self, module: &str) -> Option<usize> {
        self.order.iter().position(|(name, _)| *name == module)
    }
}

/// A folder or file where something is allowed, and why.
pub struct Allowed {
    pub place: &'static str,
    pub reason: &'static str,
}

/// An import of one child of a module by another.
pub struct Edge<'a> {
    pub from: &'a str,
    pub to: &'a str,
    pub file: &'a Path,
    pub line: usize,
}

/// Every import between different children of `root`. The root itself may import any of them.
pub fn edges<'a>(sources: &'a [Source], root: &[&str]) -> Vec<Edge<'a>> {
    let exports = exports(sources, root);
    let mut edges = Vec::new();
    for source in sources.iter().filter(|source| is_code(source)) {
        for import in &source.imports {
            let Some(from) = child(&import.from, root) else {
                continue;
            };
            let Some(to) = child(&import.to, root) else {
                continue;
            };
            let to = exports.get(to).copied().unwrap_or(to);
            if from != to {
                edges.push(Edge {
                    from,
                    to,
                    file: &source.file,
                    line: import.line,
                });
            }
        }
    }
    edges
}

/// Names that `root` itself takes from its children, each with the child.
fn exports<'a>(sources: &'a [Source], root: &[&str]) -> BTreeMap<&'a str, &'a str> {
    let modules = children(sources, root);
    let code = sources.iter().filter(|source| is_code(source));
    let imports = code.flat_map(|source| &source.imports);
    let taken = imports
        .filter(|import| import.from == root)
        .filter_map(|import| {
            let name = import.to.last()?.as_str();
            let module = child(&import.to, root)?;
            (modules.contains(module) && !modules.contains(name)).then_some((name, module))
        });
    taken.collect()
}

/// A module imports itself and modules listed before it, no others.
pub fn floors(sources: &[Source], floors: &Floors) -> Vec<Violation> {
    let Floors { list, root, .. } = floors;
    let mut found = lists_every_module(sources, floors);
    found.extend(imports_of_the_root(sources, root));
    let modules = children(sources, root);
    for edge in edges(sources, root) {
        let Edge { from, to, .. } = edge;
        // A module that is not listed was reported above; modules inside the root's own file belong to the root.
        let Some(from_floor) = floors.position(from) else {
            continue;
        };
        let message = match floors.position(to) {
            Some(to_floor) if to_floor > from_floor => format!(
                "`{from}` imports `{to}`, which is above it: move what both need to `{from}` or below it, or take it \
                 as an argument (the order is {list} in tests/structure/main.rs)"
            ),
            None if !modules.contains(to) => format!(
                "`{from}` imports `{to}`, which is no module: import it from the module that defines it"
            ),
            _ => continue,
        };
        found.push(Violation::new(edge.file, edge.line, message));
    }
    found.sort();
    found.dedup();
    found
}

/// The list of floors and the modules on disk are the same.
fn lists_every_module(sources: &[Source], floors: &Floors) -> Vec<Violation> {
    let Floors { list, root, order } = floors;
    let modules = children(sources, root);
    let mut found = Vec::new();
    for module in &modules {
        if floors.position(module).is_none() {
            let message = format!(
                "`{module}` has no floor: add it to {list} in tests/structure/main.rs, above all that it imports"
            );
            let place = sources
                .iter()
                .find(|source| is_code(source) && child(&source.module, root) == Some(module));
            found.extend(place.map(|source| Violation::new(&source.file, 1, message)));
        }
    }
    let root_file = if root.is_empty() {
        "src/lib.rs".into()
    } else {
        format!("src/{}/mod.rs", root.join("/"))
    };
    for (at, (module, _)) in order.iter().enumerate() {
        if !modules.contains(module) {
            let message = format!(
                "{list} lists `{module}`, which is no module here: take it off the list in tests/structure/main.rs"
            );
            found.push(Violation::new(Path::new(&root_file), 1, message));
        } else if floors.position(module) != Some(at) {
            let message =
                format!("{list} lists `{module}` twice: keep one in tests/structure/main.rs");
            found.push(Violation::new(Path::new(&root_file), 1, message));
        }
    }
    found
}

/// A child names what it imports, rather than its root, through which everything is in reach.
fn imports_of_the_root(sources: &[Source], root: &[&str]) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| is_code(source)) {
        for import in &source.imports {
            if import.to == root
                && child(&import.from, root)
                    .is_some_and(|from| children(sources, root).contains(from))
            {
                let module = ["crate"]
                    .iter()
                    .chain(root)
                    .copied()
                    .collect::<Vec<_>>()
                    .join("::");
                let message =
                    format!("all of `{module}` is imported: name the module that is needed");
                found.push(Violation::new(&source.file, import.line, message));
            }
        }
    }
    found
}

/// Something is done in the allowed places only, and each place needs to be allowed. Tests may print.
pub fn only_in(sources: &[Source], kind: Kind, allowed: &[Allowed]) -> Vec<Violation> {
    let todo = match kind {
        Kind::Unsafe => {
            "keep it behind a safe function of src/ops, or add the file to UNSAFE in tests/structure/main.rs with a reason"
        }
        Kind::Print => "return what is to be said, and let src/report or src/commands print it",
    };
    let mut found = Vec::new();
    let mut needed = BTreeSet::new();
    for source in sources.iter().filter(|source| is_code(source)) {
        let place = allowed
            .iter()
            .position(|allowed| source.file.starts_with(allowed.place));
        for word in source.words.iter().filter(|word| word.kind == kind) {
            if let Some(place) = place {
                needed.insert(place);
            } else if kind == Kind::Unsafe || !word.in_test {
                let message = format!("`{}` is not allowed here: {todo}", word.text);
                found.push(Violation::new(&source.file, word.line, message));
            }
        }
    }
    for (at, Allowed { place, reason }) in allowed.iter().enumerate() {
        if !needed.contains(&at) {
            let message = format!(
                "nothing here needs what is allowed ({reason}): take it off the list in tests/structure/main.rs"
            );
            found.push(Violation::new(Path::new(place), 1, message));
        }
    }
    found
}

/// No macro prints: those of the standard library panic where a stream is closed or full. Tests may print.
pub fn print_macros(sources: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| is_code(source)) {
        let macros = source.words.iter().filter(|word| {
            word.kind == Kind::Print
                && !word.in_test
                && !matches!(&word.text[..], "stdout" | "stderr")
        });
        found.extend(macros.map(|word| {
            let message = format!(
                "`{}!` panics where its stream is closed or full: use `report::say` or `report::print_now`",
                word.text
            );
            Violation::new(&source.file, word.line, message)
        }));
    }
    found
}

/// Every file has at most `most` lines.
pub fn file_lengths(sources: &[Source], most: usize) -> Vec<Violation> {
    let long = sources.iter().filter(|source| source.lines > most);
    long.map(|source| {
        let message = format!(
            "the file has {} lines, {most} at most: split it by subject",
            source.lines
        );
        Violation::new(&source.file, most + 1, message)
    })
    .collect()
}

/// Every function has at most `most` lines, from `fn` to the closing brace.
pub fn function_lengths(sources: &[Source], most: usize) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in sources {
        for function in &source.functions {
            let lines = function.last - function.first + 1;
            if lines > most {
                let message = format!(
                    "`{}` has {lines} lines, {most} at most: give its parts names",
                    function.name
                );
                found.push(Violation::new(&source.file, function.first, message));
            }
        }
    }
    found
}

/// Every file of `src` begins with documentation of the module.
pub fn module_documentation(sources: &[Source]) -> Vec<Violation> {
    let bare = sources
        .iter()
        .filter(|source| is_code(source) && !source.documented);
    bare.map(|source| {
        let message = "no documentation of the module: begin the file with `//!`".into();
        Violation::new(&source.file, 1, message)
    })
    .collect()
}

/// Child of `root` that a path is in or names.
fn child<'a>(path: &'a [String], root: &[&str]) -> Option<&'a str> {
    let (start, rest) = path.split_at_checked(root.len())?;
    let name = rest.first()?;
    (start == root).then_some(name)
}

/// Modules of `root` that are files or folders.
fn children<'a>(sources: &'a [Source], root: &[&str]) -> BTreeSet<&'a str> {
    let code = sources.iter().filter(|source| is_code(source));
    code.filter_map(|source| child(&source.module, root))
        .collect()
}

fn is_code(source: &Source) -> bool {
    source.file.starts_with("src")
}
