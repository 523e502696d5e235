//! Tasks that cannot be scored are refused before anything is computed.

use std::fs;

use serde_json::json;
use taper::tokenizer::Tokenizer;

use crate::gpt2_folder;
use crate::verb::{LAMBADA, eval, folder, write};

#[test]
fn a_task_that_is_none_is_answered_with_the_nearest() {
    let folder = folder();
    let of = |tasks| eval(folder.path(), tasks, &[]);
    of("hellswag").refused(&["no file `hellswag`", "did you mean `hellaswag`?"]);
    of("lambada,piqa").refused(&["no file `piqa`", "`hellaswag`, `lambada`"]);
    of("lambada,,hellaswag").refused(&["empty place"]);
    write(folder.path(), "mine.jsonl", LAMBADA);
    of("mine.jsonl").refused(&[
        "JSON lines",
        "`hellaswag:mine.jsonl` or `lambada:mine.jsonl`",
    ]);
    eval(folder.path(), "lambada", &["--limit", "0"])
        .code
        .filter(|code| *code == 1)
        .unwrap();
}

#[test]
fn a_file_that_is_missing_or_empty_is_named() {
    let folder = folder();
    let of = |tasks, further: &[&str]| eval(folder.path(), tasks, further);
    let missing = ["`gone.jsonl` does not exist", "downloads its examples"];
    of("hellaswag:gone.jsonl", &[]).refused(&missing);
    of("gone.txt", &[]).refused(&["`gone.txt` does not exist", "check the path"]);
    fs::create_dir(folder.path().join("none")).unwrap();
    of("hellaswag", &["--data", "none"]).refused(&["`none/hellaswag_val.jsonl` does not exist"]);
    write(folder.path(), "empty.jsonl", "\n\n");
    of("lambada:empty.jsonl", &[]).refused(&["`empty.jsonl` has nothing to score"]);
    write(folder.path(), "empty.txt", "");
    of("empty.txt", &[]).refused(&["`empty.txt` has nothing to score"]);
    write(folder.path(), "empty.bin", "");
    of("empty.bin", &[]).refused(&["`empty.bin` is empty"]);
    write(folder.path(), "latin1.txt", b"a\ncaf\xe9");
    of("latin1.txt", &[]).refused(&["cannot read `latin1.txt`", "line 2 is not UTF-8", "iconv"]);
}

#[test]
fn without_a_network_the_published_examples_are_refused() {
    let folder = folder();
    let offline = ["HF_HUB_OFFLINE", "--data"];
    eval(folder.path(), "hellaswag", &[]).refused(&offline);
    eval(folder.path(), "lambada", &[]).refused(&["HF_HUB_OFFLINE", "EleutherAI/lambada_openai"]);
}

#[test]
fn a_line_that_is_no_example_is_named_by_its_number() {
    let folder = folder();
    let good = r#"{"ctx": "b", "endings": ["a", "b", "c", "d"], "label": 0}"#;
    let bad = [
        ("{\"ctx\": \"b\"", "EOF while parsing"),
        (
            r#"{"endings": ["a", "b", "c", "d"], "label": 0}"#,
            "missing field `ctx`",
        ),
        (
            r#"{"ctx": "b", "endings": ["a", "b", "c"], "label": 0}"#,
            "3 endings, expected 4",
        ),
        (
            r#"{"ctx": "b", "endings": ["a", "b", "c", "d"], "label": 4}"#,
            "`label` is no number from 0 to 3",
        ),
        (
            r#"{"ctx": "", "endings": ["a", "b", "c", "d"], "label": 0}"#,
            "`ctx` is empty",
        ),
    ];
    for (line, why) in bad {
        write(folder.path(), "h.jsonl", format!("{good}\n\n{line}\n"));
        eval(folder.path(), "hellaswag:h.jsonl", &[]).refused(&[
            "`h.jsonl`, line 3: ",
            why,
            "four `endings`",
        ]);
    }
    for (line, why) in [
        (r#"{"text": "word"}"#, "no last word"),
        (r#"{"text": "b c "}"#, "no last word"),
        (r#"{"text": 7}"#, "invalid type"),
        (r#"["b c a"]"#, "no JSON object"),
        (
            &format!("{{\"x\": {}1{}}}", "[".repeat(99_999), "]".repeat(99_999)),
            "missing field `text`",
        ),
    ] {
        write(folder.path(), "l.jsonl", format!("{line}\n{LAMBADA}"));
        eval(folder.path(), "lambada:l.jsonl", &[]).refused(&["`l.jsonl`, line 1: ", why]);
    }
}

#[test]
fn text_that_the_vocabulary_cannot_write_is_refused_with_its_task() {
    let folder = folder();
    let path = folder.path();
    write(
        path,
        "x.jsonl",
        "{\"text\": \"b c a\"}\n{\"text\": \"b x a\"}\n",
    );
    let words = [
        "cannot write `lambada`",
        "`x.jsonl`, line 2",
        "GPT-2's vocabulary",
    ];
    eval(path, "lambada:x.jsonl", &[]).refused(&words);
    // By character, the character is known, too.
    fs::remove_file(path.join("model/tokenizer.json")).unwrap();
    Tokenizer::char(&['a', 'b', 'c', ' ', '\n'])
        .unwrap()
        .save(&path.join("model"))
        .unwrap();
    eval(path, "lambada:x.jsonl", &[]).refused(&[&words[..], &["'x' (U+0078)"]].concat());
    write(path, "x.txt", "a b\nc\na x\n");
    eval(path, "x.txt", &[]).refused(&["`x.txt`, line 3", "'x' (U+0078)"]);
}

#[test]
fn tokens_of_another_vocabulary_are_refused() {
    let folder = folder();
    let path = folder.path();
    let bytes = |ids: &[u16]| -> Vec<u8> { ids.iter().flat_map(|id| id.to_le_bytes()).collect() };
    write(path, "far.bin", bytes(&[3, 4, 200]));
    eval(path, "far.bin", &[]).refused(&["`far.bin`", "200", "128"]);
    let other = path.join("other");
    fs::create_dir(&other).unwrap();
    write(&other, "val.bin", bytes(&[0, 1, 2]));
    Tokenizer::char(&['a', 'b', 'c'])
        .unwrap()
        .save(&other)
        .unwrap();
    eval(path, "other/val.bin", &[]).refused(&[
        "another vocabulary",
        "its id 0 is \"a\"",
        "\"<s>\"",
    ]);
}

#[test]
fn a_tokenizer_with_more_ids_than_the_model_is_refused() {
    let folder = folder();
    let path = folder.path();
    let mut tokenizer = gpt2_folder::tokenizer();
    tokenizer["model"]["vocab"] = json!({});
    for id in 0..128 {
        tokenizer["model"]["vocab"][format!("filler{id}")] = id.into();
    }
    tokenizer["added_tokens"] = json!([]);
    tokenizer["model"]["vocab"]["a"] = 128.into();
    write(&path.join("model"), "tokenizer.json", tokenizer.to_string());
    write(path, "a.txt", "aa");
    eval(path, "a.txt", &[]).refused(&["token 128", "128 token ids"]);
}
