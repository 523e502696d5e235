//! GPT-2's vocabulary and merges, without a download.
//!
//! tiktoken-rs embeds `r50k_base`: the bytes of the 50,256 ordinary tokens in GPT-2's order. Ids
//! 0..256 are single bytes and every later token was made by one merge, in the order of its id, so
//! the merges can be recovered: a token's bytes, reduced by all earlier merges, leave exactly the
//! two parts that its own merge joins.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as Inner};

use super::bpe::Merges;
use super::{END_OF_TEXT, Tokenizer, TokenizerError, Vocabulary};

const END_OF_TEXT_ID: u32 = 50_256;

impl Tokenizer {
    /// GPT-2's byte-level BPE: 50,257 tokens, the last of them `<|endoftext|>`.
    pub fn gpt2() -> Result<Tokenizer, TokenizerError> {
        let mut pieces = embedded_pieces()?;
        let byte_chars = byte_to_char();
        let spell = |bytes: &[u8]| bytes.iter().map(|&b| byte_chars[b as usize]).collect();
        let pairs = merges(&pieces);
        let fast = Merges::new(&pieces, &pairs).map(Arc::new);
        let merges = pairs
            .into_iter()
            .map(|(left, right)| (spell(left), spell(right)))
            .collect();
        let mut vocab: Vocab = (0..).zip(&pieces).map(|(id, p)| (spell(p), id)).collect();
        vocab.insert(END_OF_TEXT.into(), END_OF_TEXT_ID);
        pieces.push(END_OF_TEXT.into());

        let bpe = BPE::builder().vocab_and_merges(vocab, merges).build();
        let mut inner = Inner::new(bpe.map_err(TokenizerError::Library)?);
        inner
            .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
            .with_post_processor(Some(ByteLevel::new(true, false, true)))
            .with_decoder(Some(ByteLevel::new(true, true, true)));
        inner
            .add_special_tokens([AddedToken::from(END_OF_TEXT, true)])
            .map_err(TokenizerError::Library)?;
        // Training text is data: `<|endoftext|>` written in it is not a separator.
        inner.set_encode_special_tokens(true);
        Ok(Tokenizer {
            vocabulary: Vocabulary::Gpt2 {
                end_of_text: Some(END_OF_TEXT_ID),
                merges: fast,
            },
            inner,
            pieces,
        })
    }
}

/// The bytes of ids `0..50256`.
fn embedded_pieces() -> Result<Vec<Vec<u8>>, TokenizerError> {
    let embedded = tiktoken_rs::r50k_base().map_err(|e| TokenizerError::Library(e.into()))?;
    (0..END_OF_TEXT_ID)
        .map(|id| embedded.decode_bytes(&[id]))
        .collect::<Result<_, _>>()
        .map_err(|e| TokenizerError::Library(e.into()))
}

/// The two parts of each token from id 256 on.
fn merges(pieces: &[Vec<u8>]) -> Vec<(&[u8], &[u8])> {
    let ids: HashMap<&[u8], usize> = (0..).zip(pieces).map(|(id, p)| (&p[..], id)).collect();
    (256..pieces.len())
        .into_par_iter()
        .map(|id| pieces[id].split_at(last_cut(&pieces[id], id, &ids)))
        .collect()
}

/// The cut that is left in `piece` once every merge earlier than its own (`id`) has been applied.
fn last_cut(piece: &[u8], id: usize, ids: &HashMap<&[u8], usize>) -> usize {
    let mut cuts: Vec<usize> = (0..=piece.len()).collect();
    while cuts.len() > 3 {
        let earliest = (1..cuts.len() - 1)
            .filter_map(|i| Some((*ids.get(&piece[cuts[i - 1]..cuts[i + 1]])?, i)))
            .filter(|&(merged, _)| merged < id)
            .min();
        match earliest {
            Some((_, i)) => cuts.remove(i),
            None => break,
        };
    }
    cuts[1]
}

/// GPT-2's printable spelling of each byte: itself where Latin-1 shows it, else U+0100 and on
/// (`bytes_to_unicode` in openai/gpt-2, `src/encoder.py`).
pub(super) fn byte_to_char() -> [char; 256] {
    let mut shifted = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        shown @ (b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) => shown as char,
        _ => shifted.next().unwrap_or(char::REPLACEMENT_CHARACTER),
    })
}
