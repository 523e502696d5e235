//! Character-level vocabularies, as nanoGPT's shakespeare_char: one id per distinct character.

use tokenizers::decoders::fuse::Fuse;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer as Inner};

use super::{MAX_VOCAB_SIZE, Tokenizer, TokenizerError, Vocabulary};

/// Ids by code point: a flat table, as long as the highest character needs (4 MiB at worst).
#[derive(Clone, Debug)]
pub(super) struct Ids {
    by_code_point: Vec<u32>,
    vocab_size: usize,
}

const ABSENT: u32 = u32::MAX;

impl Ids {
    fn new(characters: &[char]) -> Ids {
        let highest = characters.iter().max().map_or(0, |&c| c as usize);
        let mut by_code_point = vec![ABSENT; highest + 1];
        for (id, &character) in (0..).zip(characters) {
            by_code_point[character as usize] = id;
        }
        Ids {
            by_code_point,
            vocab_size: characters.len(),
        }
    }

    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        ids.reserve(text.len());
        for character in text.chars() {
            match self.by_code_point.get(character as usize) {
                Some(&id) if id != ABSENT => ids.push(id),
                _ => {
                    return Err(TokenizerError::UnknownCharacter {
                        character,
                        vocab_size: self.vocab_size,
                    });
                }
            }
        }
        Ok(())
    }
}

impl Tokenizer {
    /// One id per character, in the order given; nanoGPT's order is sorted. No character twice.
    pub fn char(characters: &[char]) -> Result<Tokenizer, TokenizerError> {
        let found = characters.len();
        if found > MAX_VOCAB_SIZE {
            return Err(TokenizerError::TooManyCharacters { found });
        }
        let spelled = characters.iter().map(char::to_string);
        let model = WordLevel::builder()
            .vocab(spelled.zip(0..).collect())
            .build()
            .map_err(TokenizerError::Library)?;
        // Any character, in the syntax of both regex engines that the tokenizers library may be
        // built with; Fuse joins decoded characters without spaces.
        let each_character = Split::new(
            SplitPattern::Regex(r"[\s\S]".into()),
            SplitDelimiterBehavior::Isolated,
            false,
        )
        .map_err(TokenizerError::Library)?;
        let mut inner = Inner::new(model);
        inner
            .with_pre_tokenizer(Some(each_character))
            .with_decoder(Some(Fuse::new()));
        Ok(Tokenizer {
            vocabulary: Vocabulary::Char(Ids::new(characters)),
            inner,
            pieces: characters.iter().map(|c| c.to_string().into()).collect(),
        })
    }
}
