//! Rings of imports: modules that each need the other to be understood.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::rules::{Edge, Violation, edges};
use crate::source::Source;

/// Imports between modules, one for each pair.
type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Edge<'a>>>;

/// Reports each strongly connected group of children of `root`, with one import for each hop of a shortest ring.
pub fn rings(sources: &[Source], root: &[&str]) -> Vec<Violation> {
    let mut graph = Graph::new();
    for edge in edges(sources, root) {
        let imports = graph.entry(edge.from).or_default();
        imports.entry(edge.to).or_insert(edge);
    }
    let mut reported = BTreeSet::new();
    let mut found = Vec::new();
    for &module in graph.keys() {
        let ring = shortest_ring(&graph, module);
        if let Some(first) = ring.first()
            && !reported.contains(module)
        {
            let group = group_of(&graph, module);
            let message = format!(
                "{} import one another: turn one import around.{}",
                names(&group),
                hops(&ring)
            );
            found.push(Violation::new(first.file, first.line, message));
            reported.extend(group);
        }
    }
    found
}

/// Modules that `module` reaches and that reach it.
fn group_of<'a>(graph: &Graph<'a>, module: &'a str) -> BTreeSet<&'a str> {
    let reached = last_hops(graph, module);
    let mutual = reached
        .into_keys()
        .filter(|other| last_hops(graph, other).contains_key(module));
    mutual.collect()
}

/// Imports of a shortest ring through `module`, in order; empty if there is none.
fn shortest_ring<'g, 'a>(graph: &'g Graph<'a>, module: &str) -> Vec<&'g Edge<'a>> {
    let last_hops = last_hops(graph, module);
    let mut ring = VecDeque::new();
    let mut hop = last_hops.get(module);
    while let Some(&edge) = hop {
        ring.push_front(edge);
        hop = last_hops.get(edge.from).filter(|_| edge.from != module);
    }
    ring.into()
}

/// Every module that `start` reaches, with the last import of a shortest way to it.
fn last_hops<'g, 'a>(graph: &'g Graph<'a>, start: &str) -> BTreeMap<&'a str, &'g Edge<'a>> {
    let mut last_hops = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(module) = queue.pop_front() {
        for edge in graph.get(module).into_iter().flat_map(BTreeMap::values) {
            if let std::collections::btree_map::Entry::Vacant(entry) = last_hops.entry(edge.to) {
                entry.insert(edge);
                queue.push_back(edge.to);
            }
        }
    }
    last_hops
}

fn names(modules: &BTreeSet<&str>) -> String {
    let quoted: Vec<String> = modules.iter().map(|module| format!("`{module}`")).collect();
    quoted.join(", ")
}

fn hops(ring: &[&Edge]) -> String {
    let hops = ring.iter().map(|edge| {
        let file = edge.file.display();
        format!(
            "\n    `{}` imports `{}` at {file}:{}",
            edge.from, edge.to, edge.line
        )
    });
    hops.collect()
}
