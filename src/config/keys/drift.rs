//! Tests that the tables, the types of the config, their documentation and their defaults say the same.

use toml::de::{DeTable, DeValue};

use super::{Key, Origin, SECTIONS, all, find, sections};
use crate::config::Config;

/// The sources of the types.
const SOURCES: [&str; 3] = [
    include_str!("../mod.rs"),
    include_str!("../running.rs"),
    include_str!("../machine.rs"),
];

/// A field of a struct, with its documentation in one line.
#[derive(Debug, PartialEq)]
struct Field {
    name: String,
    kind: String,
    documentation: String,
}

/// The documentation of a struct, and its fields.
fn read(name: &str) -> (String, Vec<Field>) {
    let start = format!("pub struct {name} {{");
    let source = SOURCES.iter().find(|source| source.contains(&start));
    let (before, after) = source.unwrap().split_once(&start).unwrap();
    let above = before.lines().rev().take_while(|line| !line.is_empty());
    let mut above: Vec<&str> = above.collect();
    above.reverse();
    let mut fields = Vec::new();
    let mut lines = Vec::new();
    for line in after.lines().take_while(|line| *line != "}") {
        lines.push(line);
        let Some(field) = line.trim_start().strip_prefix("pub ") else {
            continue;
        };
        let (name, kind) = field.trim_end_matches(',').split_once(": ").unwrap();
        fields.push(Field {
            name: name.into(),
            kind: kind.into(),
            documentation: documentation(&lines),
        });
        lines.clear();
    }
    (documentation(&above), fields)
}

fn documentation(lines: &[&str]) -> String {
    let lines = lines
        .iter()
        .filter_map(|line| line.trim_start().strip_prefix("/// "));
    lines.collect::<Vec<_>>().join(" ")
}

/// The documentation that a key's field has to have.
fn expected(key: &Key) -> String {
    let absent = key.absent.map(|absent| format!(" When absent, {absent}."));
    let origin = match key.origin {
        Origin::NanoGpt => String::new(),
        Origin::Taper(None) => " taper's own key.".into(),
        Origin::Taper(Some(instead)) => format!(" taper's own key: {instead}."),
    };
    format!("{}{}{origin}", key.meaning, absent.unwrap_or_default())
}

fn keys_of(section: &str) -> Vec<&'static Key> {
    all().filter(|key| key.section == section).collect()
}

#[test]
fn every_field_is_a_key_and_every_key_a_field_with_its_meaning() {
    let (_, of_config) = read("Config");
    let names: Vec<&str> = of_config.iter().map(|field| &field.name[..]).collect();
    assert_eq!(names, sections().collect::<Vec<_>>());
    for (section, (_, meaning)) in of_config.iter().zip(SECTIONS) {
        let (documentation, fields) = read(&section.kind);
        assert_eq!(documentation, *meaning);
        let keys = keys_of(&section.name);
        let of_fields: Vec<&str> = fields.iter().map(|field| &field.name[..]).collect();
        let of_keys: Vec<&str> = keys.iter().map(|key| key.name).collect();
        assert_eq!(of_fields, of_keys);
        for (field, key) in fields.iter().zip(keys) {
            assert_eq!(field.documentation, expected(key), "{}", key.name);
            let is_optional = field.kind.starts_with("Option<");
            assert_eq!(is_optional, key.absent.is_some(), "{}", key.name);
        }
    }
}

#[test]
fn every_key_stands_in_its_section_once() {
    let mut seen = std::collections::HashSet::new();
    assert!(all().all(|key| seen.insert(key.name)));
    let in_order: Vec<&str> = sections()
        .flat_map(|section| keys_of(section).into_iter().map(|key| key.name))
        .collect();
    assert_eq!(in_order, all().map(|key| key.name).collect::<Vec<_>>());
}

#[test]
fn every_default_is_valid_and_absent_where_the_table_says_so() {
    let defaults = Config::default().to_toml();
    let table = DeTable::parse(&defaults).unwrap().into_inner();
    for key in all() {
        let section = table.get(key.section).unwrap().get_ref();
        let value = match section {
            DeValue::Table(keys) => keys.get(key.name),
            _ => panic!("`{}` is no section", key.section),
        };
        match value {
            Some(value) => assert!(key.domain.admits(value.get_ref()), "{}", key.name),
            None => assert!(key.absent.is_some(), "{}", key.name),
        }
    }
    for (section, keys) in &table {
        let DeValue::Table(keys) = keys.get_ref() else {
            panic!("`{}` is no section", section.get_ref());
        };
        for name in keys.keys() {
            let key = find(name.get_ref()).unwrap();
            assert_eq!(key.section, section.get_ref().as_ref());
            assert!(key.absent.is_none(), "{}", key.name);
        }
    }
}
