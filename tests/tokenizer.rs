//! Text to ids and back: GPT-2's ids, character vocabularies, files, and streaming.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use taper::tokenizer::{Tokenizer, TokenizerError, TokenizerKind, is_boundary, last_boundary};

static GPT2: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::gpt2().unwrap());

const SHAKESPEARE: &str = include_str!("fixtures/tinyshakespeare.txt");

fn shakespeare_characters() -> Vec<char> {
    let distinct: BTreeSet<char> = SHAKESPEARE.chars().collect();
    distinct.into_iter().collect()
}

#[test]
fn gpt2_ids_equal_the_reference_on_every_line() {
    let mut lines = 0;
    for line in include_str!("fixtures/gpt2_bpe.jsonl").lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = case["text"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(GPT2.encode(text).unwrap(), expected, "{text:?}");
        assert_eq!(GPT2.decode(&expected), text);
        lines += 1;
    }
    assert!(lines > 20, "only {lines} lines in the fixture");
}

#[test]
fn shakespeare_in_gpt2_tokens_equals_nanogpts_files() {
    let expected: serde_json::Value =
        serde_json::from_str(include_str!("fixtures/shakespeare_bpe.json")).unwrap();
    let (train, val) = SHAKESPEARE.split_at(SHAKESPEARE.len() * 9 / 10);
    for (split, text) in [("train", train), ("val", val)] {
        let ids = GPT2.encode(text).unwrap();
        assert_eq!(ids.len(), expected[format!("{split}_tokens")]);
        let bytes: Vec<u8> = ids.iter().flat_map(|&i| (i as u16).to_le_bytes()).collect();
        let hash: String = Sha256::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hash, expected[format!("{split}_u16_sha256")], "{split}");
    }
}

#[test]
fn end_of_text_separates_in_a_prompt_and_is_plain_text_in_data() {
    assert_eq!(GPT2.vocab_size(), 50_257);
    assert_eq!(GPT2.end_of_text(), Some(50_256));
    let prompt = GPT2.encode_prompt("<|endoftext|>Hello world").unwrap();
    assert_eq!(prompt, [50_256, 15_496, 995]);
    let data = GPT2.encode("<|endoftext|>").unwrap();
    assert!(data.len() > 1 && !data.contains(&50_256), "{data:?}");
    assert_eq!(GPT2.decode(&data), GPT2.decode(&[50_256]));
}

#[test]
fn characters_get_ids_in_the_order_given() {
    let characters = shakespeare_characters();
    let tokenizer = Tokenizer::char(&characters).unwrap();
    assert_eq!(tokenizer.vocab_size(), 65);
    // nanoGPT's shakespeare_char: newline is 0, space 1, `z` 64.
    assert_eq!(tokenizer.encode("\n z").unwrap(), [0, 1, 64]);
    let ids = tokenizer.encode(SHAKESPEARE).unwrap();
    assert_eq!(tokenizer.decode(&ids), SHAKESPEARE);
}

#[test]
fn a_character_outside_the_vocabulary_is_named() {
    let tokenizer = Tokenizer::char(&['a', 'b']).unwrap();
    let error = tokenizer.encode("abé").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the character 'é' (U+00E9) is not in the vocabulary of 2 characters"
    );
    assert!(error.hint().unwrap().contains("--tokenizer gpt2"));
}

#[test]
fn a_vocabulary_beyond_u16_is_refused() {
    let too_many: Vec<char> = ('\u{10000}'..).take(65_537).collect();
    let found = Tokenizer::char(&too_many).unwrap_err();
    assert!(matches!(
        found,
        TokenizerError::TooManyCharacters { found: 65_537 }
    ));
    assert_eq!(
        Tokenizer::char(&too_many[1..]).unwrap().vocab_size(),
        65_536
    );
}

#[test]
fn a_saved_tokenizer_loads_as_the_same_one() {
    let text = "O Romeo, Romeo!\nwherefore art thou Romeo?\n\n";
    let tokenizers = [
        Tokenizer::gpt2().unwrap(),
        Tokenizer::char(&shakespeare_characters()).unwrap(),
    ];
    for tokenizer in tokenizers {
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(folder.path()).unwrap();
        let loaded = Tokenizer::load(folder.path()).unwrap();
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(loaded.kind(), tokenizer.kind());
        assert_eq!(loaded.vocab_size(), tokenizer.vocab_size());
        assert_eq!(loaded.end_of_text(), tokenizer.end_of_text());
        assert_eq!(loaded.encode(text).unwrap(), ids);
        assert_eq!(loaded.decode(&ids), text);
    }
}

/// The file alone, read by the tokenizers library as Hugging Face does, without taper's help.
#[test]
fn a_saved_character_vocabulary_stands_on_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Tokenizer::char(&shakespeare_characters()).unwrap();
    ours.save(folder.path()).unwrap();
    let theirs = tokenizers::Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
    let text = "First Citizen:\nBefore we proceed  any further\n";
    let encoding = theirs.encode(text, true).unwrap();
    assert_eq!(encoding.get_ids(), ours.encode(text).unwrap());
    assert_eq!(theirs.decode(encoding.get_ids(), true).unwrap(), text);
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Tokenizer::load(folder.path()).unwrap_err();
    assert!(missing.to_string().contains("tokenizer.json"), "{missing}");
    std::fs::write(folder.path().join("tokenizer.json"), "{ not json").unwrap();
    let broken = Tokenizer::load(folder.path()).unwrap_err();
    assert!(matches!(broken, TokenizerError::Unsupported { .. }));
}

#[test]
fn ids_outside_the_vocabulary_decode_to_the_replacement_character() {
    assert_eq!(GPT2.decode(&[15_496, 50_300]), "Hello\u{FFFD}");
    assert_eq!(GPT2.kind(), TokenizerKind::Gpt2);
}

/// Text rich in what the pre-tokenizer treats specially.
fn awkward_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[ \t\n\r\u{85}\u{a0}\u{2003}\u{3000}]{1,4}",
        "[a-zA-Zé日ß]{1,5}",
        "[0-9٣Ⅷ½]{1,3}",
        "'{1,2}(s|t|re|ve|m|ll|d|S|1|,)",
        "[a-z0-9.'\\x1c_ ]{1,6}",
        "[.,!?<|>👩\u{200d}\u{301}]{1,3}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

/// The ids of the text in one piece by the tokenizers library alone, without taper's words.
fn library_ids(text: &str) -> Vec<u32> {
    static LIBRARY: LazyLock<tokenizers::Tokenizer> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        GPT2.save(folder.path()).unwrap();
        let path = folder.path().join("tokenizer.json");
        let mut library = tokenizers::Tokenizer::from_file(path).unwrap();
        library.set_encode_special_tokens(true);
        library
    });
    LIBRARY.encode(text, false).unwrap().get_ids().to_vec()
}

#[test]
fn long_pieces_have_the_ids_of_the_library() {
    let alphabet: Vec<char> = "theandéß日本語сло".chars().collect();
    for length in [1, 2, 100, 169, 170, 171, 300, 510, 511, 512, 513, 514, 2000] {
        for stride in 1..4 {
            let letters =
                (0..length).map(|at| alphabet[(at * stride * stride + at / 7) % alphabet.len()]);
            let word: String = letters.collect();
            for text in [
                word.clone(),
                format!(" {word}"),
                format!("{word}  {word}'ll\n\n "),
            ] {
                assert_eq!(GPT2.encode(&text).unwrap(), library_ids(&text), "{text:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn gpt2_gives_back_any_text(text in awkward_text()) {
        let ids = GPT2.encode(&text).unwrap();
        prop_assert_eq!(GPT2.decode(&ids), text);
    }

    #[test]
    fn remembered_words_give_the_ids_of_the_whole_text(text in awkward_text()) {
        let whole = library_ids(&text);
        prop_assert_eq!(&GPT2.encode(&text).unwrap(), &whole);
        let mut encoder = GPT2.encoder();
        for _ in 0..2 {
            let mut ids = Vec::new();
            encoder.encode(&text, &mut ids).unwrap();
            prop_assert_eq!(&ids, &whole);
        }
    }

    #[test]
    fn text_cut_at_any_boundary_has_the_ids_of_the_whole(text in awkward_text()) {
        let whole = library_ids(&text);
        let characters: Vec<(usize, char)> = text.char_indices().collect();
        let mut last = None;
        for pair in characters.windows(2) {
            if is_boundary(pair[0].1, pair[1].1) {
                let (before, after) = text.split_at(pair[1].0);
                let parts = [library_ids(before), library_ids(after)];
                prop_assert_eq!(&parts.concat(), &whole);
                last = Some(pair[1].0);
            }
        }
        prop_assert_eq!(last_boundary(&text), last);
    }

    #[test]
    fn a_stream_yields_what_decode_does(ids in prop::collection::vec(0u32..50_400, 0..40)) {
        let mut stream = GPT2.decode_stream();
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text += &stream.finish();
        prop_assert_eq!(text, GPT2.decode(&ids));
    }

    #[test]
    fn a_stream_never_prints_half_a_character(text in "[👩é日a ]{1,12}") {
        let mut stream = GPT2.decode_stream();
        for id in GPT2.encode(&text).unwrap() {
            let printed = stream.push(id);
            prop_assert!(!printed.contains(char::REPLACEMENT_CHARACTER));
        }
        prop_assert_eq!(stream.finish(), "");
    }
}
