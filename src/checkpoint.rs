//! Checkpoints: atomic, checksummed folders.

/// Why a checkpoint cannot be written, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {}

impl CheckpointError {
    pub fn hint(&self) -> Option<String> {
        None
    }
}
