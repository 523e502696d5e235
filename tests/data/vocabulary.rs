//! Vocabularies: of a file beside the tokens, of GPT-2, and of the quickstart corpus.

use taper::config::DataConfig;
use taper::data::{DataError, DataWarning, Dataset, QUICKSTART_CORPUS};
use taper::tokenizer::{Tokenizer, TokenizerKind};
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

/// A folder of both splits and `files`, one vocabulary among them.
fn beside(files: &[(&str, &[u8])]) -> Result<Dataset, DataError> {
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(n, b)| (*n, b.to_vec())).collect();
    open(&[&[("train.bin", raw(0..3))], &files[..]].concat())
}

/// `{'vocab_size': 3, 'itos': ...}`.
const ABC: &[u8] = b"(dVvocab_size\nI3\nsVitos\n(dI0\nVa\nsI1\nVb\nsI2\nVc\nss.";

#[test]
fn a_pickle_that_is_no_vocabulary_is_refused() {
    let deep = [
        &b"}X\x01\x00\x00\x00x"[..],
        &b"]".repeat(200_000),
        &b"a".repeat(199_999),
        b"s.",
    ];
    let cases: [(&[u8], &str); 7] = [
        (&deep.concat(), "nested more than 100 deep"),
        (&ABC[..20], "ends early"),
        (b"cos\nsystem\n(S'true'\ntR.", "no number `vocab_size`"),
        (b"(dVvocab_size\nI70000\ns.", "expected 1 to 65536"),
        (
            b"(dVvocab_size\nI2\nsVitos\n(dI0\nVa\nss.",
            "a character of its own",
        ),
        (
            b"(dVvocab_size\nI2\nsVitos\n(dI0\nVa\nsI1\nVa\nss.",
            "a character of its own",
        ),
        (&vec![b'N'; (16 << 20) + 1], "longer than 16 MiB"),
    ];
    for (bytes, expected) in cases {
        let error = beside(&[("meta.pkl", bytes)]).unwrap_err();
        assert!(matches!(error, DataError::Vocabulary { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn json_nested_deep_is_refused() {
    let json = [b"{\"x\": ".to_vec(), b"[".repeat(200_000)].concat();
    for name in ["meta.json", "tokenizer.json"] {
        let error = beside(&[(name, &json)]).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_size_without_characters_is_said() {
    let data = beside(&[("meta.pkl", b"(dVvocab_size\nI3\ns.")]).unwrap();
    assert_eq!(data.info.vocab_size.value, 3);
    assert!(data.tokenizer.is_none());
    assert!(matches!(
        &data.warnings[..],
        [DataWarning::NoTokenizer { .. }]
    ));
    assert_eq!(data.identity.tokenizer, None);
}

#[test]
fn a_second_vocabulary_that_differs_is_said() {
    let folder = TempDir::new().unwrap();
    let tokenizer = |characters: &[char]| {
        Tokenizer::char(characters)
            .unwrap()
            .save(folder.path())
            .unwrap();
        std::fs::read(folder.path().join("tokenizer.json")).unwrap()
    };
    let data = beside(&[
        ("tokenizer.json", &tokenizer(&['a', 'b', 'c'])),
        ("meta.pkl", ABC),
    ])
    .unwrap();
    assert_eq!(data.warnings, []);
    let data = beside(&[
        ("tokenizer.json", &tokenizer(&['x', 'y', 'z'])),
        ("meta.pkl", ABC),
    ])
    .unwrap();
    let [DataWarning::TwoVocabularies { used, ignored }] = &data.warnings[..] else {
        panic!("{:?}", data.warnings);
    };
    assert!(used.ends_with("tokenizer.json") && ignored.ends_with("meta.pkl"));
}

#[test]
fn splits_of_two_folders_must_have_one_vocabulary() {
    let of = |train: &[u8], val: &[u8]| {
        let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let paths = [(&folders[0], train), (&folders[1], val)].map(|(folder, pickle)| {
            if !pickle.is_empty() {
                write(folder, "meta.pkl", pickle.to_vec());
            }
            let path = write(folder, "tokens.bin", raw(0..3));
            Some(path.display().to_string())
        });
        let [train_bin, val_bin] = paths;
        Dataset::open(&DataConfig {
            train_bin,
            val_bin,
            ..DataConfig::default()
        })
    };
    assert_eq!(of(ABC, ABC).unwrap().info.vocab_size.value, 3);
    assert_eq!(of(ABC, b"").unwrap().info.vocab_size.value, 3);
    let other = b"(dVvocab_size\nI3\nsVitos\n(dI0\nVx\nsI1\nVy\nsI2\nVz\nss.";
    for (train, val) in [
        (ABC, &other[..]),
        (ABC, b"(dVvocab_size\nI4\ns."),
        (b"", ABC),
    ] {
        let error = of(train, val).unwrap_err();
        assert!(
            matches!(error, DataError::TwoVocabularies { .. }),
            "{error}"
        );
    }
}
