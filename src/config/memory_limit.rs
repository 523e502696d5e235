//! A limit of memory, as people write it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units::parse_bytes;

/// The most memory to hold, in bytes, above 0. Written as text such as `11.69GiB` or `500MB`, or as a
/// whole number of bytes; saved as the latter, which is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct MemoryLimit(pub u64);

/// A text or a number that is no size above 0.
#[derive(Debug, thiserror::Error)]
#[error("expected {}", MemoryLimit::EXPECTED)]
pub struct NotASize;

impl MemoryLimit {
    pub(super) const EXPECTED: &str = "a size such as `11.69GiB`";
}

impl FromStr for MemoryLimit {
    type Err = NotASize;

    /// KiB, MiB and GiB are powers of 1,024; K, KB, MB and GB are powers of 1,000.
    fn from_str(text: &str) -> Result<Self, NotASize> {
        parse_bytes(text).map(Self).map_err(|_| NotASize)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Bytes(u64),
    Text(String),
}

impl TryFrom<Written> for MemoryLimit {
    type Error = NotASize;

    fn try_from(written: Written) -> Result<Self, NotASize> {
        match written {
            Written::Bytes(0) => Err(NotASize),
            Written::Bytes(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse(),
        }
    }
}
