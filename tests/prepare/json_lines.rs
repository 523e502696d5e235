//! JSON lines as Python reads them, and what is no line of JSON.

use taper::data::prepare::{Lines, Note, PrepareError};
use taper::tokenizer::{Tokenizer, TokenizerKind};
use tempfile::TempDir;

use crate::{make, request, splits, write};

/// The documents in both splits, sorted.
fn documents(name: &str, contents: &str) -> Result<(Vec<String>, Vec<Note>), PrepareError> {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, name, contents);
    let out = folder.path().join("out");
    let made = make(&request(&[path], TokenizerKind::Char, &out))?;
    let (train, val) = splits(&out);
    let text = Tokenizer::load(&out)
        .unwrap()
        .decode(&[train, val].concat());
    let mut documents: Vec<String> = text.lines().map(str::to_owned).collect();
    documents.sort();
    assert_eq!(made.documents, documents.len() as u64);
    Ok((documents, made.notes))
}

#[test]
fn what_python_reads_is_read() {
    let contents = "\u{FEFF}{\"text\": \"a\", \"score\": NaN}\r\n\r\n\u{FEFF}{\"text\": \"b\", \"n\": [-Infinity, 1e999]}\n\
        {\"text\": \"old\", \"text\": \"\\ud83d\\ude00\"}\r{\"text\": \"x\\ud83d\"}";
    let (found, notes) = documents("a.jsonl", contents).unwrap();
    assert_eq!(found, ["a", "b", "x\u{FFFD}", "😀"]);
    let kinds: Vec<String> = notes.iter().map(Note::to_string).collect();
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    assert!(kinds[0].contains("byte order mark"), "{kinds:?}");
    assert!(kinds[1].contains("CR or CRLF"), "{kinds:?}");
    assert!(
        kinds[2].contains("U+FFFD in 1 line (") && kinds[2].ends_with("a.jsonl:5)"),
        "{kinds:?}"
    );
}

#[test]
fn a_null_is_no_document_and_counted() {
    let contents = "{\"text\": null}\n{\"text\": \"a\"}\n\n{\"text\": null}\n{\"text\": \"b\"}\n";
    let (found, notes) = documents("a.jsonl", contents).unwrap();
    assert_eq!(found, ["a", "b"]);
    let [
        Note::Nulls {
            lines:
                Lines {
                    count: 2,
                    unit: "line",
                    first: (path, 1),
                },
            field,
        },
    ] = &notes[..]
    else {
        panic!("{notes:?}");
    };
    assert!(path.ends_with("a.jsonl") && field == "text");
    let error = documents("a.jsonl", "{\"text\": null}\n{\"text\": null}\n").unwrap_err();
    assert!(matches!(error, PrepareError::NoText { .. }), "{error}");
    let error = documents("a.jsonl", "{\"text\": null}\n{\"text\": \"a\"}\n").unwrap_err();
    assert!(matches!(error, PrepareError::OneDocument), "{error}");
}

#[test]
fn a_line_without_text_says_what_it_has() {
    let cases = [
        (
            "{\"text\": 42}",
            "no text in the field `text`: it is a number",
            "--field NAME",
        ),
        ("{\"text\": [\"a\"]}", "it is an array", "--field NAME"),
        ("{\"text\": {\"a\": 1}}", "it is an object", "--field NAME"),
        ("{\"text\": NaN}", "it is a number", "--field NAME"),
        ("{\"text\": true}", "it is a boolean", "--field NAME"),
        (
            "\"text\"",
            "the line is a string, not an object",
            "--field NAME",
        ),
        ("{}", "the line has nothing", "--field NAME"),
        (
            "{\"id\": 3, \"my body\": \"long\", \"t\": \"s\"}",
            "the line has `id`, `my body`, `t`",
            "--field 'my body'",
        ),
    ];
    for (line, expected, advice) in cases {
        let contents = format!("{{\"text\": \"a\"}}\n{line}\n{{\"text\": \"b\"}}\n");
        let error = documents("a.jsonl", &contents).unwrap_err();
        let shown = error.to_string();
        assert!(
            shown.contains("a.jsonl:2: ") && shown.ends_with(expected),
            "{shown}"
        );
        assert!(error.hint().unwrap().contains(advice), "{:?}", error.hint());
    }
}

#[test]
fn json_is_known_by_its_content_and_lines_by_any_spelling_of_their_name() {
    let lines = "{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
    for name in ["a.jsonl", "a.JSONL", "a.JsonL", "a.ndjson", "a.jsonlines"] {
        assert_eq!(
            documents(name, lines).unwrap(),
            (vec!["a".into(), "b".into()], vec![]),
            "{name}"
        );
    }
    for name in ["a.json", "a.JSON"] {
        let (found, notes) = documents(name, lines).unwrap();
        assert_eq!(found, ["a", "b"], "{name}");
        assert!(
            matches!(&notes[..], [Note::JsonLines(files)] if files[0].ends_with(name)),
            "{notes:?}"
        );
    }
    let refused = [
        (
            "[{\"text\": \"a\"}, {\"text\": \"b\"}]",
            "one JSON array, not JSON lines",
            "jq -c '.[]'",
        ),
        (
            "[\n  {\"text\": \"a\"}\n]\n",
            "one JSON array",
            "jq -c '.[]'",
        ),
        (
            "{\n  \"text\": \"a\"\n}\n",
            "one JSON value or none",
            "jq -c .",
        ),
        ("It is text.\n", "one JSON value or none", ".txt"),
    ];
    for (contents, expected, advice) in refused {
        let error = documents("a.json", contents).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().unwrap().contains(advice), "{:?}", error.hint());
    }
    // Another name is text, as asked; the content is pointed out.
    for name in ["a.txt", "a"] {
        let folder = TempDir::new().unwrap();
        let path = write(&folder, name, lines);
        let made = make(&request(
            std::slice::from_ref(&path),
            TokenizerKind::Char,
            &folder.path().join("out"),
        ));
        assert_eq!(made.unwrap().notes, [Note::LikeJsonLines(vec![path])]);
    }
}
