//! One allocation: its pages, and who made and used it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::operations::{Doing, Stamp};
use super::page::{PAGE_BYTES, Page};
use crate::fault::What;

/// Bytes of the card that somebody has.
pub(super) struct Allocation {
    pub bytes: u64,
    pages: Box<[OnceLock<Page>]>,
    born: Stamp,
    /// The operation that used it last, so that most uses need not look further.
    last_user: AtomicU32,
    /// The last operation of each track that used it.
    users: Mutex<Vec<(usize, u32)>>,
}

impl Allocation {
    /// `bytes` bytes that nobody has written, made by `born`.
    pub fn new(bytes: u64, born: Stamp) -> Self {
        let pages = (0..bytes.div_ceil(PAGE_BYTES)).map(|_| OnceLock::new());
        Self {
            bytes,
            pages: pages.collect(),
            born,
            last_user: AtomicU32::default(),
            users: Mutex::default(),
        }
    }

    /// The page that holds `offset`, made if nothing was written there yet.
    pub fn page(&self, offset: u64) -> &Page {
        let index = (offset / PAGE_BYTES) as usize;
        self.pages[index].get_or_init(|| {
            let bytes = PAGE_BYTES.min(self.bytes - index as u64 * PAGE_BYTES);
            Page::new(bytes, self.born)
        })
    }

    pub fn written_page(&self, offset: u64) -> Option<&Page> {
        self.pages[(offset / PAGE_BYTES) as usize].get()
    }

    /// Notes who uses it, so that it is not freed too early.
    #[inline]
    pub fn used_by(&self, doing: &Doing) {
        if self.last_user.load(Ordering::Relaxed) != doing.stamp {
            self.used_first_by(doing);
        }
    }

    #[cold]
    fn used_first_by(&self, doing: &Doing) {
        let Some(track) = doing.entry().map(|entry| entry.track) else {
            return;
        };
        self.last_user.store(doing.stamp, Ordering::Relaxed);
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        match users.iter_mut().find(|(other, _)| *other == track) {
            Some((_, last)) => *last = (*last).max(doing.stamp),
            None => users.push((track, doing.stamp)),
        }
    }

    /// Forgets who used it.
    pub fn forget(&mut self) {
        self.born = Stamp::default();
        *self.last_user.get_mut() = 0;
        self.users = Mutex::default();
        let pages = self.pages.iter_mut().filter_map(OnceLock::get_mut);
        pages.for_each(Page::forget);
    }

    /// Checks that everything that used it, and what made it, happens before this operation.
    pub fn check_free(&self, doing: &Doing) -> Result<(), Box<What>> {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = users.iter().map(|(_, stamp)| (*stamp, "uses"));
        let mut stamps = stamps.chain([(self.born.0, "makes")]);
        match stamps.find(|(stamp, _)| !doing.follows(*stamp)) {
            Some((user, how)) => Err(doing.unordered("frees", user, how)),
            None => Ok(()),
        }
    }
}
