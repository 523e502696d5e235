//! Token files, the sample order, and `prepare`.

/// Why a dataset cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum DataError {}

impl DataError {
    pub fn hint(&self) -> Option<String> {
        None
    }
}
