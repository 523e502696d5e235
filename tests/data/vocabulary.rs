//! Vocabularies: of a file beside the tokens, of GPT-2, and of the quickstart corpus.

use taper::config::DataConfig;
use taper::data::{DataError, Dataset, QUICKSTART_CORPUS};
use taper::tokenizer::TokenizerKind;
use tempfile::TempDir;

use crate::{config, open, open_train, raw, window, write};

#[test]
fn nanogpts_meta_pickle_gives_the_characters() {
    let folder = TempDir::new().unwrap();
    write(&folder, "train.bin", raw(0..65));
    write(&folder, "val.bin", raw(0..65));
    write(
        &folder,
        "meta.pkl",
        include_bytes!("../fixtures/meta.pkl").to_vec(),
    );
    let data = Dataset::open(&config(folder.path())).unwrap();
    assert_eq!(data.info.vocab_size.value, 65);
    assert!(data.info.vocab_size.because.contains("meta.pkl"));
    let tokenizer = data.tokenizer.unwrap();
    assert_eq!(tokenizer.encode("\n !z").unwrap(), [0, 1, 2, 64]);
}

#[test]
fn a_vocabulary_that_cannot_be_read_is_named() {
    for (name, bytes) in [
        ("meta.pkl", b"\x80\x04not a pickle".to_vec()),
        ("meta.json", b"{".to_vec()),
        ("meta.json", b"{\"vocab_size\": 3}".to_vec()),
    ] {
        let error = open(&[("train.bin", raw(0..65)), (name, bytes)]).unwrap_err();
        assert!(matches!(error, DataError::Vocabulary { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn without_a_vocabulary_the_tokens_are_gpt2s_and_it_says_so() {
    let data = open_train(raw(0..100)).unwrap();
    assert_eq!(data.info.vocab_size.value, 50_257);
    assert!(data.info.vocab_size.because.contains("no meta.json"));
    assert_eq!(data.tokenizer.unwrap().kind(), TokenizerKind::Gpt2);
}

#[test]
fn quickstart_needs_no_file() {
    let config = DataConfig {
        dataset: "quickstart".into(),
        data_dir: "/nonexistent".into(),
        train_bin: None,
        val_bin: None,
    };
    let mut data = Dataset::open(&config).unwrap();
    let vocab_size = data.info.vocab_size.value;
    assert!((60..=96).contains(&vocab_size), "{vocab_size}");
    assert!(data.info.train_tokens > 8 * data.info.val_tokens);
    assert_eq!(
        data.train.len() + data.val.len(),
        QUICKSTART_CORPUS.len() as u64
    );
    data.require(256, vocab_size).unwrap();
    let (inputs, _) = window(&data.train, 0, 40);
    let text = data.tokenizer.unwrap().decode(&inputs);
    assert_eq!(text, QUICKSTART_CORPUS[..40]);
    assert!(QUICKSTART_CORPUS.contains("pub const QUICKSTART_CORPUS"));
}
