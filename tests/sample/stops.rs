//! Stop strings: a text ends before the first, and no part of one is printed.

use taper::sampling::TextStream;
use taper::tokenizer::Tokenizer;

use super::{text, trained};

/// The text of `ids`, and whether it was stopped. What is printed on the way is never taken back.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], stop: &[&str], want: &str) -> (String, bool) {
    let stop: Vec<String> = stop.iter().map(|&stop| stop.into()).collect();
    let mut stream = TextStream::new(tokenizer, &stop);
    let mut printed = String::new();
    for &id in ids {
        printed.push_str(&stream.push(id));
        assert!(want.starts_with(&printed), "{printed:?} of {want:?}");
        if stream.is_stopped() {
            return (printed, true);
        }
    }
    printed.push_str(&stream.finish());
    (printed, false)
}

/// GPT-2's token of one byte: printable ones first, then the others.
fn of_byte(byte: u8) -> u32 {
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..=255).filter(|byte| !printable(byte));
    let order = (0..=255).filter(printable).chain(others);
    order.zip(0..).find(|(known, _)| *known == byte).unwrap().1
}

#[test]
fn a_stop_string_is_found_across_the_borders_of_tokens_and_of_characters() {
    let tokenizer = Tokenizer::gpt2().unwrap();
    let whole = "Once upon a time, 日本語 in \u{1F980}\u{1F980} land\n\nthere was a stop.";
    let words = tokenizer.encode(whole).unwrap();
    let bytes: Vec<u32> = whole.bytes().map(of_byte).collect();
    assert_eq!(tokenizer.decode(&bytes), whole);
    for ids in [words, bytes] {
        for (stop, kept) in [
            (&["time"][..], Some("Once upon a ")),
            (&[", 日"], Some("Once upon a time")),
            (&["本"], Some("Once upon a time, 日")),
            (&["語 in \u{1F980}"], Some("Once upon a time, 日本")),
            (
                &["\u{1F980}\u{1F980} l"],
                Some("Once upon a time, 日本語 in "),
            ),
            (
                &["\n\nt"],
                Some("Once upon a time, 日本語 in \u{1F980}\u{1F980} land"),
            ),
            (
                &["stop."],
                Some("Once upon a time, 日本語 in \u{1F980}\u{1F980} land\n\nthere was a "),
            ),
            (&["O"], Some("")),
            // The first that is complete, whatever the order.
            (&["was", "upon", "time"], Some("Once ")),
            // It begins, and does not go on.
            (
                &["a timer", "landed", "stop.\n", "\u{1F980}\u{1F981}"],
                None,
            ),
            (&[], None),
        ] {
            let want = kept.unwrap_or(whole);
            let (got, is_stopped) = streamed(&tokenizer, &ids, stop, want);
            assert_eq!(got, want, "{stop:?}");
            assert_eq!(is_stopped, kept.is_some(), "{stop:?}");
        }
    }
}

#[test]
fn an_overlapping_beginning_is_no_miss() {
    let tokenizer = Tokenizer::char(&['a', 'b', 'c']).unwrap();
    let ids = tokenizer.encode("aaabaabac").unwrap();
    assert_eq!(streamed(&tokenizer, &ids, &["aabac"], "aaab").0, "aaab");
    assert_eq!(streamed(&tokenizer, &ids, &["bb", "aab"], "a").0, "a");
}

#[test]
fn a_text_ends_before_a_stop_string_and_the_others_go_on() {
    let folder = trained();
    let flags = ["--prompt", "let ", "--num-samples", "3", "--json"];
    let json = |further: &[&str]| -> Vec<serde_json::Value> {
        let text = text(folder.path(), &[&flags[..], further].concat());
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let whole = json(&[]);
    let of = |sample: &serde_json::Value| sample["text"].as_str().unwrap().to_owned();
    let second: Vec<char> = of(&whole[1]).chars().collect();
    let stop: String = second[4..7].iter().collect();
    let stopped = json(&["--stop", "no such text", "--stop", &stop]);
    for (whole, stopped) in whole.iter().zip(&stopped) {
        let text = of(whole);
        let Some(end) = text.find(&stop) else {
            assert_eq!(stopped, whole);
            continue;
        };
        assert_eq!(of(stopped), text[..end]);
        assert_eq!(stopped["finish"], "stop");
        let tokens = text[..end].chars().count() + stop.chars().count();
        assert_eq!(stopped["tokens"], tokens);
    }
    assert_eq!(stopped[1]["finish"], "stop");
}
