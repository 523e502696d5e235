//! The Hugging Face hub, served from a local port: the client against every way in which a download goes wrong, and the
//! verbs that download.

mod client;
mod datasets;
mod evals;
#[path = "../gpt2_folder/mod.rs"]
mod gpt2_folder;
#[path = "../process/mod.rs"]
#[allow(dead_code)]
mod process;
mod server;
mod trouble;
mod verbs;
mod weights;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use taper::hub::{CachedFile, Hub, HubError, Repository, RepositoryKind, Retries, Watch};

use server::Server;

/// Keeps what it is told.
#[derive(Default)]
struct Watched {
    notes: Mutex<Vec<String>>,
    /// Bytes done and bytes in all at the beginning, and the last bytes done.
    progress: Mutex<(u64, u64, u64)>,
    stop: AtomicBool,
    /// Stops as soon as so many bytes are done.
    stop_at: Option<u64>,
}

impl Watch for Watched {
    fn begin(&self, done: u64, total: u64) {
        *self.progress.lock().unwrap() = (done, total, done);
    }

    fn reach(&self, done: u64) {
        self.progress.lock().unwrap().2 = done;
        if self.stop_at.is_some_and(|at| done >= at) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn end(&self) {}

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.into());
    }

    fn is_interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Retries that cost no time.
const AT_ONCE: Retries = Retries {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(2),
    most: 3,
    most_unreached: 1,
};

fn hub(server: &Server, cache: &Path) -> Hub {
    let hub = Hub::at(&server.endpoint, cache.to_owned()).unwrap();
    hub.with_retries(AT_ONCE)
}

fn dataset(id: &str) -> Repository {
    Repository::new(RepositoryKind::Dataset, id).unwrap()
}

/// Downloads files of the dataset `o/n`.
fn download(hub: &Hub, paths: &[&str], watch: &Watched) -> Result<Vec<CachedFile>, HubError> {
    let repository = dataset("o/n");
    let listing = hub.revision(&repository, "main", watch)?;
    let paths: Vec<String> = paths.iter().map(|path| (*path).into()).collect();
    let selection = hub.select(&repository, &listing.commit, &paths, watch)?;
    hub.download(&selection, watch)
}
