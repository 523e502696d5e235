//! The public text of nanoGPT's two Shakespeare datasets.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::PrepareError;
use super::packed::hex;

/// nanoGPT's source of tinyshakespeare, 1,115,394 bytes, public domain.
const URL: &str =
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt";
const SHA256: &str = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed";

/// The text of a dataset, known by its checksum.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedText {
    pub dataset: &'static str,
    sha256: &'static str,
}

impl ExpectedText {
    /// The text of `shakespeare` and `shakespeare_char`.
    pub fn shakespeare(dataset: &'static str) -> ExpectedText {
        ExpectedText {
            dataset,
            sha256: SHA256,
        }
    }

    pub(super) fn check(self, place: &str, found: &str) -> Result<(), PrepareError> {
        if found == self.sha256 {
            return Ok(());
        }
        Err(PrepareError::WrongChecksum {
            place: place.to_owned(),
            dataset: self.dataset,
            found: found.to_owned(),
            expected: self.sha256,
        })
    }
}

/// `input.txt` in `folder`, downloaded if it is not there yet.
pub fn fetch(dataset: &'static str, folder: &Path) -> Result<PathBuf, PrepareError> {
    let path = folder.join("input.txt");
    if path.exists() {
        return Ok(path);
    }
    let text = download().map_err(|source| PrepareError::Download {
        dataset,
        url: URL,
        source: Box::new(source),
    })?;
    ExpectedText::shakespeare(dataset).check(URL, &hex(&Sha256::digest(&text)))?;
    std::fs::create_dir_all(folder).map_err(PrepareError::io("create", folder))?;
    let mut file =
        tempfile::NamedTempFile::new_in(folder).map_err(PrepareError::io("create", &path))?;
    let written = file
        .write_all(&text)
        .and_then(|()| file.as_file().sync_all());
    written.map_err(PrepareError::io("write", &path))?;
    file.persist(&path)
        .map_err(|e| PrepareError::io("create", &path)(e.error))?;
    Ok(path)
}

fn download() -> Result<Vec<u8>, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into();
    agent.get(URL).call()?.body_mut().read_to_vec()
}
