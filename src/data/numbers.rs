//! Numbers of other widths and byte orders that are taken for little-endian u16 tokens.
//!
//! Read with the right width and order they are ids of a vocabulary; read as u16 tokens they show a pattern that tokens do
//! not have, such as a zero in every second place. Both together decide.

use std::collections::HashSet;
use std::path::Path;

/// A way of storing ids that is not taper's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    U8,
    U16Big,
    U32,
    U32Big,
    U64,
    U64Big,
}

/// The largest vocabularies in use have as many tokens.
const LARGEST_VOCABULARY: u64 = 1 << 18;

/// Fewest bytes, and fewest different ids among them, for any claim about them.
const FEWEST_BYTES: usize = 256;
const FEWEST_IDS: usize = 3;

/// Ids that one byte can hold: character-level vocabularies are hardly larger.
const SMALL: u16 = 256;

impl Numbers {
    /// NumPy's name of the type.
    fn dtype(self) -> &'static str {
        match self {
            Numbers::U8 => "u1",
            Numbers::U16Big => ">u2",
            Numbers::U32 => "<u4",
            Numbers::U32Big => ">u4",
            Numbers::U64 => "<u8",
            Numbers::U64Big => ">u8",
        }
    }

    /// The type in words.
    pub fn words(self) -> &'static str {
        match self {
            Numbers::U8 => "ids of one byte each (uint8)",
            Numbers::U16Big => "big-endian ids of 2 bytes each (uint16)",
            Numbers::U32 => "ids of 4 bytes each (uint32 or int32)",
            Numbers::U32Big => "big-endian ids of 4 bytes each (uint32 or int32)",
            Numbers::U64 => "ids of 8 bytes each (int64)",
            Numbers::U64Big => "big-endian ids of 8 bytes each (int64)",
        }
    }

    /// The Python that writes the file at `path` again as taper reads it.
    pub fn conversion(self, path: &Path) -> String {
        let (path, dtype) = (path.display(), self.dtype());
        format!("numpy.fromfile('{path}', '{dtype}').astype('<u2').tofile('{path}.u16')")
    }

    fn width(self) -> usize {
        match self {
            Numbers::U8 => 1,
            Numbers::U16Big => 2,
            Numbers::U32 | Numbers::U32Big => 4,
            Numbers::U64 | Numbers::U64Big => 8,
        }
    }

    fn values(self, bytes: &[u8]) -> impl Iterator<Item = u64> {
        let big = matches!(self, Numbers::U16Big | Numbers::U32Big | Numbers::U64Big);
        bytes.chunks_exact(self.width()).map(move |number| {
            let join = |value, &byte: &u8| value << 8 | u64::from(byte);
            if big {
                number.iter().fold(0, join)
            } else {
                number.iter().rev().fold(0, join)
            }
        })
    }

    /// The largest id.
    pub fn highest(self, bytes: &[u8]) -> u64 {
        self.values(bytes).max().unwrap_or(0)
    }

    /// Whether all numbers are ids below `vocab_size`, of at least `fewest` kinds.
    fn fits(self, bytes: &[u8], vocab_size: u64, fewest: usize) -> bool {
        self.values(bytes).all(|value| value < vocab_size) && is_varied(self.values(bytes), fewest)
    }
}

fn is_varied<T: Eq + std::hash::Hash>(values: impl Iterator<Item = T>, fewest: usize) -> bool {
    let mut seen = HashSet::new();
    values
        .into_iter()
        .any(|value| seen.insert(value) && seen.len() >= fewest)
}

/// The claim about some bytes of a token file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seems {
    Surely(Numbers),
    /// Tokens may look so too, as those of a text with one character per line.
    Perhaps(Numbers),
}

/// The numbers that `bytes`, some from every part of a token file, surely or perhaps are; `None` if they are taken for
/// little-endian u16 tokens.
pub fn seem(bytes: &[u8]) -> Option<Seems> {
    if bytes.len() < FEWEST_BYTES {
        return None;
    }
    let tokens = || bytes.as_chunks().0.iter().map(|&t| u16::from_le_bytes(t));
    if tokens().all(|token| token < SMALL) {
        let mut wide = [Numbers::U64, Numbers::U32].into_iter();
        let found = wide.find(|wide| wide.fits(bytes, SMALL.into(), FEWEST_IDS));
        return found.map(Seems::Perhaps);
    }
    for wide in [Numbers::U64, Numbers::U64Big, Numbers::U32, Numbers::U32Big] {
        if wide.fits(bytes, LARGEST_VOCABULARY, FEWEST_IDS) {
            return Some(Seems::Surely(wide));
        }
    }
    if tokens().all(|token| token % SMALL == 0) && is_varied(tokens(), FEWEST_IDS) {
        return Some(Seems::Surely(Numbers::U16Big));
    }
    // Of two-byte ids in the thousands, the low bytes are not all below 128.
    let high_bytes = tokens().map(|token| token / SMALL);
    if bytes.is_ascii() && is_varied(high_bytes, 8) && is_varied(tokens(), 64) {
        return Some(Seems::Surely(Numbers::U8));
    }
    None
}

/// The numbers that `bytes` may be, given that some of their u16 tokens are outside of a vocabulary of `vocab_size`.
pub fn within(bytes: &[u8], vocab_size: usize) -> Option<Numbers> {
    let fits = |numbers: &Numbers| {
        // Every number of one byte is below 256.
        let tells = *numbers != Numbers::U8 || vocab_size <= 128;
        tells && numbers.fits(bytes, vocab_size as u64, FEWEST_IDS)
    };
    [Numbers::U16Big, Numbers::U8].into_iter().find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OTHERS: [Numbers; 6] = [
        Numbers::U8,
        Numbers::U16Big,
        Numbers::U32,
        Numbers::U32Big,
        Numbers::U64,
        Numbers::U64Big,
    ];

    fn stored(ids: &[u64], numbers: Numbers) -> Vec<u8> {
        let width = numbers.width();
        let store = |&id: &u64| match numbers {
            Numbers::U8 | Numbers::U32 | Numbers::U64 => id.to_le_bytes()[..width].to_vec(),
            _ => id.to_be_bytes()[8 - width..].to_vec(),
        };
        ids.iter().flat_map(store).collect()
    }

    fn tokens(ids: impl IntoIterator<Item = u64>) -> Vec<u8> {
        let low = |id: u64| (id as u16).to_le_bytes();
        ids.into_iter().flat_map(low).collect()
    }

    proptest! {
        /// Ids as text has them: a few are frequent, of vocabularies of all sizes.
        #[test]
        fn tokens_are_not_taken_for_anything_else(
            vocab_size in 1u64..60_000, skew in 1i32..6, draws in prop::collection::vec(0.0f64..1.0, 0..2000),
        ) {
            let ids = draws.iter().map(|x| (x.powi(skew) * vocab_size as f64) as u64);
            prop_assert_eq!(seem(&tokens(ids)), None);
        }

        #[test]
        fn few_different_tokens_are_tokens(
            ids in prop::collection::vec(0u64..50_257, 1..20), picks in prop::collection::vec(any::<prop::sample::Index>(), 1..2000),
        ) {
            prop_assert_eq!(seem(&tokens(picks.iter().map(|pick| ids[pick.index(ids.len())]))), None);
        }

        #[test]
        fn other_widths_and_orders_are_named(
            ids in prop::collection::vec(0u64..50_257, 300..2000), numbers in prop::sample::select(&OTHERS[2..]),
        ) {
            prop_assert_eq!(seem(&stored(&ids, numbers)), Some(Seems::Surely(numbers)));
        }

        #[test]
        fn characters_in_other_orders_are_named(ids in prop::collection::vec(0u64..65, 600..2000)) {
            for numbers in [Numbers::U8, Numbers::U16Big, Numbers::U32Big, Numbers::U64Big] {
                prop_assert_eq!(seem(&stored(&ids, numbers)), Some(Seems::Surely(numbers)));
            }
            for numbers in [Numbers::U32, Numbers::U64] {
                prop_assert_eq!(seem(&stored(&ids, numbers)), Some(Seems::Perhaps(numbers)));
            }
        }

        #[test]
        fn outside_of_the_vocabulary_the_byte_order_is_named(ids in prop::collection::vec(0u64..50_257, 100..2000)) {
            prop_assert_eq!(within(&stored(&ids, Numbers::U16Big), 50_257), Some(Numbers::U16Big));
            prop_assert_eq!(within(&tokens(ids.iter().map(|id| id + 9000)), 50_257), None);
        }
    }

    #[test]
    fn tokens_in_patterns_are_tokens() {
        let long = |pattern: &[u64]| tokens(pattern.iter().copied().cycle().take(4000));
        for pattern in [
            &[0][..],
            &[7],
            &[256],
            &[8224],
            &[1, 0],
            &[0, 1],
            &[300, 0],
            &[0, 300, 0, 301],
        ] {
            assert_eq!(seem(&long(pattern)), None, "{pattern:?}");
        }
        assert_eq!(seem(&tokens(0..4000)), None);
        // One character per line.
        assert_eq!(
            seem(&long(&[1, 0, 2, 0, 3, 0])),
            Some(Seems::Perhaps(Numbers::U32))
        );
        assert_eq!(seem(&long(&[0, 1, 0, 2, 0, 3])), None);
        assert_eq!(seem(&[]), None);
    }
}
