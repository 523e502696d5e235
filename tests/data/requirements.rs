//! Requirements of a model on its data: splits as long as a window, and ids of its vocabulary.

use taper::data::DataError;

use crate::{open_train, raw};

#[test]
fn a_split_shorter_than_a_window_is_named_before_training() {
    let mut data = open_train(raw(0..64)).unwrap();
    assert!(data.require(63, 50_257).is_ok());
    let error = data.require(64, 50_257).unwrap_err();
    let expected = "has 64 tokens, a window takes 65 (block_size 64 + 1)";
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.hint().unwrap().contains("model.block_size=63"));
    // The val split is checked as well.
    let mut data = open_train(raw(0..1000)).unwrap();
    let error = data.require(100, 50_257).unwrap_err();
    assert!(
        error.to_string().contains("the val split is too short"),
        "{error}"
    );
}

#[test]
fn a_token_outside_the_vocabulary_is_found_before_training() {
    let mut ids: Vec<u16> = (0..200_000u32).map(|i| (i % 1000) as u16).collect();
    ids[123_457] = 1000;
    let mut data = open_train(raw(ids)).unwrap();
    let error = data.require(8, 1000).unwrap_err();
    let expected = "is 1000; the vocabulary has 1000 tokens (0 to 999)";
    assert!(error.to_string().contains("token 123457 of"), "{error}");
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.hint().unwrap().contains("`model.vocab_size` to 1001"));
    assert!(data.require(8, 1001).is_ok());
}

#[test]
fn a_window_with_a_token_outside_the_vocabulary_is_refused() {
    let mut ids: Vec<u16> = (0..100).collect();
    ids[50] = 300;
    let mut data = open_train(raw(ids)).unwrap();
    data.train.check_vocab(200).unwrap_err();
    let mut buffers = ([0; 4], [0; 4]);
    let mut copy = |index| {
        data.train
            .copy_window(index, &mut buffers.0, &mut buffers.1)
    };
    assert!(copy(45).is_ok() && copy(51).is_ok());
    // From the window whose last target it is to the one it starts.
    for index in 46..=50 {
        let error = copy(index).unwrap_err();
        assert!(
            matches!(
                error,
                DataError::TokenOutOfRange {
                    position: 50,
                    id: 300,
                    ..
                }
            ),
            "{error}"
        );
    }
}
