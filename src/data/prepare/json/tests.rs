//! Against serde_json where both agree, and Python's answers beyond it.

use proptest::prelude::*;

use super::*;

/// The last value of `key`, its text, and whether that was repaired.
fn field(json: &str, key: &str) -> Result<Option<(String, bool)>, JsonError> {
    let mut found = None;
    read(json, |name, value| {
        if name == key {
            found = value
                .text()
                .map(|text| (text.text.into_owned(), text.repaired));
        }
    })?;
    Ok(found)
}

/// Python 3's `json.loads(line)["text"]`; U+FFFD for what is no character.
#[test]
fn lines_are_read_as_python_reads_them() {
    let cases: [(&str, &str, bool); 14] = [
        (r#"{"text": "a", "score": NaN}"#, "a", false),
        (
            r#"{"score": -Infinity, "text": "a", "s": Infinity}"#,
            "a",
            false,
        ),
        (
            r#"{"n": 1e999, "m": -123456789012345678901234567890, "text": "a"}"#,
            "a",
            false,
        ),
        (r#"{"text": "\ud83d\ude00"}"#, "😀", false),
        (r#"{"text": "x\ud83dy"}"#, "x\u{FFFD}y", true),
        (r#"{"text": "\ude00\ud83d"}"#, "\u{FFFD}\u{FFFD}", true),
        (r#"{"text": "\ud83d\ud83d\ude00"}"#, "\u{FFFD}😀", true),
        (r#"{"text": "\ud83d\\ude00"}"#, "\u{FFFD}\\ude00", true),
        (r#"{"text": "old", "text": "new"}"#, "new", false),
        (r#"{"\u0074ext": "a"}"#, "a", false),
        (
            r#"  {"text" :"\"\\\/\b\f\n\r\t\u0000é" }  "#,
            "\"\\/\u{8}\u{c}\n\r\t\0é",
            false,
        ),
        (
            r#"{"a": {"text": "inner"}, "text": "outer"}"#,
            "outer",
            false,
        ),
        (
            r#"{"a": [], "b": {}, "c": [[1], {"d": [null]}], "text": ""}"#,
            "",
            false,
        ),
        (r#"{"": true, "text": "a", "z": false}"#, "a", false),
    ];
    for (json, expected, repaired) in cases {
        let found = field(json, "text");
        assert_eq!(found, Ok(Some((expected.into(), repaired))), "{json}");
    }
}

#[test]
fn what_python_refuses_is_refused_with_its_column() {
    let cases = [
        ("", 1, "a value"),
        ("{", 2, "a key in double quotes"),
        (r#"{"a": 1,}"#, 9, "a key in double quotes"),
        (r#"{"a" 1}"#, 6, "`:`"),
        (r#"{"a": 01}"#, 8, "`,` or `}`"),
        (r#"{"a": 1.}"#, 8, "`,` or `}`"),
        (r#"{"a": [1,]}"#, 10, "a value"),
        (r#"{"a": nan}"#, 7, "a value"),
        (r#"{"é": "a"} x"#, 12, "the end of the line"),
        (
            "{\"a\": \"\t\"}",
            8,
            "control characters as escapes, such as `\\t`",
        ),
        (r#"{"a": "\x"}"#, 9, "an escape, such as `\\n`"),
        (r#"{"a": "\u12"}"#, 12, "four hexadecimal digits"),
        (r#"{"a": "b"#, 9, "`\"` at the end of the string"),
        (r#"{'a': 1}"#, 2, "a key in double quotes"),
        (r#"{"a": -}"#, 8, "a number"),
    ];
    for (json, column, expected) in cases {
        let error = field(json, "a").unwrap_err();
        let expected = expected.replace("\\\\", "\\");
        assert_eq!(
            (error.column, error.expected),
            (column, &*expected),
            "{json}"
        );
    }
}

#[test]
fn no_depth_overflows_the_stack() {
    let deep = "[".repeat(1 << 20) + &"]".repeat(1 << 20);
    let json = format!(r#"{{"a": {deep}, "text": "b"}}"#);
    assert_eq!(field(&json, "text"), Ok(Some(("b".into(), false))));
    assert!(field(&json[..json.len() / 2], "text").is_err());
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-c\"\\\\é]{0,2}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_is_what_serde_takes_for_it(value in value(), pretty: bool) {
        let json = if pretty { format!("{value:#}") } else { value.to_string() };
        let mut members = Vec::new();
        let kind = read(&json, |key, value| {
            members.push((key.into_owned(), value.text().map(|text| text.text.into_owned())));
        });
        prop_assert!(kind.is_ok(), "{:?}", kind);
        let expected = value.as_object().into_iter().flatten();
        let expected = expected.map(|(key, value)| (key.clone(), value.as_str().map(str::to_owned)));
        prop_assert_eq!(members, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_fault_is_one_for_serde_too(value in value(), at: prop::sample::Index, put in "[\"{}\\[\\],:0a\\\\]") {
        let mut characters: Vec<char> = value.to_string().chars().collect();
        let at = at.index(characters.len());
        characters.splice(at..=at, put.chars());
        let json = String::from_iter(characters);
        let ours = read(&json, |_, _| {}).is_ok();
        match serde_json::from_str::<serde::de::IgnoredAny>(&json) {
            Ok(_) => prop_assert!(ours, "{}", json),
            // Only numbers beyond f64 and halves of pairs may be taken.
            Err(error) => prop_assert!(!ours || json.contains("\\u") || error.to_string().contains("out of range"), "{}: {}", json, error),
        }
    }
}
