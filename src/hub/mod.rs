//! The Hugging Face hub: files of a repository, downloaded into the cache that Hugging Face's own tools use.
//!
//! A download is verified, resumable and safe beside other processes:
//!
//! - [`Hub::revision`] names the commit and its files, [`Hub::select`] their sizes and checksums, and [`Hub::download`]
//!   brings what the cache does not hold. The caller sees the sizes in between.
//! - `blobs/<etag>.incomplete` grows as the bytes come. A later call goes on behind its end, verifies the SHA-256 of the
//!   whole file, and renames it. A file is in the cache completely or not at all.
//! - Connections that break, timeouts, 429 and 5xx are tried again, with growing pauses ([`Retries`]).
//! - The token goes to the host of `HF_ENDPOINT` only, never to the storage that it redirects to.
//!
//! The environment is read in one place, [`Hub::from_environment`]; the formats are those of huggingface_hub
//! (`docs/source/en/guides/manage-cache.md`, `package_reference/environment_variables.md` there).

mod attempt;
mod cache;
mod dataset;
mod download;
mod environment;
mod error;
mod exchange;
mod listing;
mod repository;
mod retry;
mod watch;

pub use cache::CachedFile;
pub use dataset::{CONVERSION, SplitFiles};
pub use download::Selection;
pub use environment::{Hub, cache_folder};
pub use error::HubError;
pub use listing::{Listing, RemoteFile};
pub use repository::{Repository, RepositoryKind};
pub use retry::Retries;
pub use watch::Watch;
