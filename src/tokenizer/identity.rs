//! Equality of vocabularies: by what an id means, whatever file it came from.

use sha2::{Digest, Sha256};

use super::Tokenizer;

impl Tokenizer {
    /// The first id of `other` that has other bytes here, or none. This vocabulary may have more ids, such as special
    /// tokens that were added to it.
    pub fn first_other_id(&self, other: &Tokenizer) -> Option<u32> {
        let mut ids = (0..).zip(&other.pieces);
        let differs = |&(id, piece): &(u32, _)| self.pieces.get(id as usize) != Some(piece);
        ids.find(differs).map(|(id, _)| id)
    }

    /// Whether both have the same ids with the same bytes.
    pub fn is_same_as(&self, other: &Tokenizer) -> bool {
        self.pieces == other.pieces
    }

    /// SHA-256 of the bytes of every id in order, each after its length as 4 little-endian bytes.
    pub fn sha256(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for piece in &self.pieces {
            digest.update((piece.len() as u32).to_le_bytes());
            digest.update(piece);
        }
        digest.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tempfile::tempdir;

    use super::super::TokenizerError;
    use super::*;

    /// GPT-2's as Hugging Face stores it: merges as text with a space, and its own set of options.
    #[test]
    fn a_vocabulary_is_the_same_from_another_file() {
        let ours = Tokenizer::gpt2().unwrap();
        let folder = tempdir().unwrap();
        ours.save(folder.path()).unwrap();
        let path = folder.path().join("tokenizer.json");
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for merge in file["model"]["merges"].as_array_mut().unwrap() {
            *merge = format!(
                "{} {}",
                merge[0].as_str().unwrap(),
                merge[1].as_str().unwrap()
            )
            .into();
        }
        file["added_tokens"][0]["normalized"] = true.into();
        file["post_processor"] = Value::Null;
        std::fs::write(&path, file.to_string()).unwrap();
        let theirs = Tokenizer::load(folder.path()).unwrap();
        assert!(ours.is_same_as(&theirs));
        assert_eq!(ours.sha256(), theirs.sha256());
    }

    /// As Hugging Face stored it first: `vocab.json` and `merges.txt`.
    #[test]
    fn a_model_has_the_vocabulary_of_its_files_and_gpt2s_only_by_size() {
        let folder = tempdir().unwrap();
        let of = |size| Tokenizer::of_model(folder.path(), size);
        for size in [50_257, 50_304] {
            assert!(of(size).unwrap().is_assumed);
        }
        for size in [65, 256, 50_256, 50_305] {
            assert!(
                matches!(of(size), Err(TokenizerError::NoneOfModel { .. })),
                "{size}"
            );
        }
        let vocab = r#"{"a": 0, "b": 1, "\u0120": 2, "ab": 3, "<|endoftext|>": 4}"#;
        std::fs::write(folder.path().join("vocab.json"), vocab).unwrap();
        std::fs::write(folder.path().join("merges.txt"), "#version: 0.2\na b\n").unwrap();
        let found = of(50_257).unwrap();
        assert!(!found.is_assumed);
        assert_eq!(found.tokenizer.encode("ab ba").unwrap(), [3, 2, 1, 0]);
        assert_eq!(found.tokenizer.decode(&[3, 2, 1]), "ab b");
        assert_eq!(found.tokenizer.end_of_text(), Some(4));
    }

    #[test]
    fn a_vocabulary_with_more_ids_covers_one_with_fewer() {
        let of = |characters: &str| Tokenizer::char(&Vec::from_iter(characters.chars())).unwrap();
        assert_eq!(of("abcd").first_other_id(&of("abc")), None);
        assert_eq!(of("abc").first_other_id(&of("abcd")), Some(3));
        assert_eq!(of("abc").first_other_id(&of("axc")), Some(1));
        assert!(!of("abc").is_same_as(&of("abcd")));
        assert_ne!(of("abc").sha256(), of("abd").sha256());
    }
}
