//! The data of a start: a checkpoint's own, or any whose ids the weights know.

use std::path::Path;

use super::Start;
use crate::checkpoint::CheckpointError;
use crate::data::{Dataset, DatasetIdentity};
use crate::report::Reporter;
use crate::tokenizer::{ModelTokenizer, Tokenizer};

impl Start {
    /// Refuses data that the weights do not know. A checkpoint goes on with its own dataset alone, for training and for
    /// evaluation. Other weights take any dataset whose ids stand for the same text.
    ///
    /// # Errors
    /// [`CheckpointError::OtherDataset`], [`CheckpointError::OtherVocabulary`].
    pub fn check_dataset(
        &self,
        dataset: &Dataset,
        reporter: &mut Reporter,
    ) -> Result<(), CheckpointError> {
        let (folder, vocab_size) = match self {
            Self::Scratch => return Ok(()),
            Self::Pretrained(pretrained) => (pretrained.folder(), pretrained.dims.vocab_size),
            Self::Resume(resumed) => match &resumed.checkpoint.state.dataset {
                Some(before) => return check_identity(&resumed.checkpoint.path, dataset, before),
                None => (
                    resumed.checkpoint.path.as_path(),
                    resumed.checkpoint.dims.vocab_size,
                ),
            },
        };
        let Some(here) = &dataset.tokenizer else {
            return Ok(());
        };
        match Tokenizer::of_model(folder, vocab_size) {
            Ok(ModelTokenizer { tokenizer, .. }) => {
                check_vocabulary(folder, &tokenizer, dataset, here)
            }
            Err(error) => {
                reporter.note(&format!(
                    "nothing tells whether the weights have the vocabulary of `{}`: {error}",
                    dataset.info.name
                ));
                Ok(())
            }
        }
    }
}

fn check_identity(
    checkpoint: &Path,
    dataset: &Dataset,
    before: &DatasetIdentity,
) -> Result<(), CheckpointError> {
    let differences = dataset.identity.differences_from(before);
    if differences.is_empty() {
        return Ok(());
    }
    Err(CheckpointError::OtherDataset {
        checkpoint: checkpoint.to_owned(),
        dataset: dataset.info.name.clone(),
        differences,
        same_vocabulary: dataset.identity.tokenizer == before.tokenizer,
    })
}

fn check_vocabulary(
    weights: &Path,
    there: &Tokenizer,
    dataset: &Dataset,
    here: &Tokenizer,
) -> Result<(), CheckpointError> {
    let Some(id) = there.first_other_id(here) else {
        return Ok(());
    };
    let shown = |tokenizer: &Tokenizer| {
        if (id as usize) < tokenizer.vocab_size() {
            format!("{:?}", tokenizer.decode(&[id]))
        } else {
            "nothing".into()
        }
    };
    Err(CheckpointError::OtherVocabulary {
        weights: weights.to_owned(),
        dataset: dataset.info.name.clone(),
        id,
        there: shown(there),
        here: shown(here),
    })
}
