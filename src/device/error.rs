//! Why a device cannot be had.

use super::named;

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("no card called `{name}` is known")]
    UnknownCard { name: String },
}

impl DeviceError {
    /// The nearest name, or all of them.
    pub fn hint(&self) -> String {
        let DeviceError::UnknownCard { name } = self;
        match named::nearest(name) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => {
                let names = named::all().iter().map(|card| card.aliases[0]);
                format!("known are {}", Vec::from_iter(names).join(", "))
            }
        }
    }
}
