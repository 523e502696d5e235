//! Transfers into the cache: continued where an earlier one stopped, verified, and renamed when right.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};
use ureq::http::header::CONTENT_RANGE;

use super::cache::Folder;
use super::exchange::{Head, Message, Trouble};
use super::{CachedFile, Hub, HubError, RemoteFile, Repository, Watch};
use crate::terms::{FileError, free_bytes};

/// Bytes of a partial file that are read and hashed at once.
const PIECE: usize = 1 << 20;

/// Files of a commit: those that the cache holds, and those that a download would bring.
#[derive(Debug)]
pub struct Selection {
    repository: Repository,
    commit: String,
    files: Vec<Selected>,
}

#[derive(Debug)]
enum Selected {
    Cached(CachedFile),
    Remote(RemoteFile),
}

impl Selection {
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Number of files.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let bytes = |file: &Selected| match file {
            Selected::Cached(file) => file.bytes,
            Selected::Remote(file) => file.bytes,
        };
        self.files.iter().map(bytes).sum()
    }

    /// The files that are not in the cache.
    pub fn missing(&self) -> impl Iterator<Item = &RemoteFile> {
        self.files.iter().filter_map(|file| match file {
            Selected::Cached(_) => None,
            Selected::Remote(file) => Some(file),
        })
    }
}

impl Hub {
    /// Looks up files of a commit in the cache, and asks the hub for the sizes of the others.
    ///
    /// # Errors
    /// `NoFile`, `Offline` where the cache lacks one, and those of every request.
    pub fn select(
        &self,
        repository: &Repository,
        commit: &str,
        paths: &[String],
        watch: &dyn Watch,
    ) -> Result<Selection, HubError> {
        let folder = Folder::new(&self.cache, repository);
        let cached: Vec<Option<CachedFile>> =
            paths.iter().map(|path| folder.file(commit, path)).collect();
        let missing = paths
            .iter()
            .zip(&cached)
            .filter(|(_, cached)| cached.is_none());
        let missing: Vec<&str> = missing.map(|(path, _)| path.as_str()).collect();
        if self.offline
            && let Some(first) = missing.first()
        {
            let what = match missing.len() {
                1 => format!("`{first}` of the {repository}"),
                n => format!("`{first}` and {} more files of the {repository}", n - 1),
            };
            let cache = self.cache.clone();
            return Err(HubError::Offline { what, cache });
        }
        let mut remote = self.files(repository, commit, &missing, watch)?.into_iter();
        let files = cached.into_iter().filter_map(|cached| match cached {
            Some(file) => Some(Selected::Cached(file)),
            None => remote.next().map(Selected::Remote),
        });
        Ok(Selection {
            repository: repository.clone(),
            commit: commit.to_owned(),
            files: files.collect(),
        })
    }

    /// Bytes of the selected files that the next download has to bring.
    pub fn missing_bytes(&self, selection: &Selection) -> u64 {
        let folder = Folder::new(&self.cache, &selection.repository);
        let missing = |file: &RemoteFile| file.bytes - present(&folder, file);
        selection.missing().map(missing).sum()
    }

    /// Brings the selected files into the cache and returns them in their order.
    ///
    /// # Errors
    /// `NoRoom` before anything is transferred, `Damaged`, `Interrupted`, and those of every request. What has come is
    /// kept, and the next call goes on behind it.
    pub fn download(
        &self,
        selection: &Selection,
        watch: &dyn Watch,
    ) -> Result<Vec<CachedFile>, HubError> {
        let needed = self.missing_bytes(selection);
        if let Some(free) = free_bytes(&self.cache).filter(|free| *free < needed) {
            let folder = self.cache.clone();
            return Err(HubError::NoRoom {
                folder,
                free,
                needed,
            });
        }
        let total: u64 = selection.missing().map(|file| file.bytes).sum();
        if total > 0 {
            watch.begin(total - needed, total);
        }
        let files = self.transfer_all(selection, total - needed, watch);
        watch.end();
        files
    }

    /// `done`: bytes that are there, partial files included.
    fn transfer_all(
        &self,
        selection: &Selection,
        mut done: u64,
        watch: &dyn Watch,
    ) -> Result<Vec<CachedFile>, HubError> {
        let Selection {
            repository,
            commit,
            files,
        } = selection;
        let folder = Folder::new(&self.cache, repository);
        let mut all = Vec::with_capacity(files.len());
        for file in files {
            let file = match file {
                Selected::Cached(file) => {
                    all.push(file.clone());
                    continue;
                }
                Selected::Remote(file) => file,
            };
            let others = done - present(&folder, file).min(done);
            let transfer = Transfer {
                hub: self,
                folder: &folder,
                repository,
                url: self.file_url(repository, commit, &file.path),
                file,
                watch,
                others,
            };
            transfer.run()?;
            folder.link(commit, &file.path, &file.etag)?;
            let cached = folder.file(commit, &file.path);
            all.push(cached.ok_or_else(|| HubError::NoFile {
                repository: repository.clone(),
                file: file.path.clone(),
            })?);
            done = others + file.bytes;
        }
        Ok(all)
    }
}

/// Bytes of a file that are there and need not come again: of one with a checksum, which will show whether they are right.
fn present(folder: &Folder, file: &RemoteFile) -> u64 {
    if folder.blob(&file.etag).is_file() {
        return file.bytes;
    }
    let partial = fs::metadata(folder.incomplete(&file.etag));
    let length = partial.map_or(0, |metadata| metadata.len());
    if file.sha256.is_some() && length <= file.bytes {
        length
    } else {
        0
    }
}

/// The transfer of one file.
struct Transfer<'a> {
    hub: &'a Hub,
    folder: &'a Folder,
    repository: &'a Repository,
    url: String,
    file: &'a RemoteFile,
    watch: &'a dyn Watch,
    /// Bytes of other files that are there, for the progress.
    others: u64,
}

impl Transfer<'_> {
    /// Brings the blob. A damaged one is removed and brought once more.
    fn run(&self) -> Result<(), HubError> {
        let Self { folder, file, .. } = self;
        folder.make()?;
        let blob = folder.blob(&file.etag);
        let _lock = folder.lock(&file.etag, self.watch)?;
        let mut is_second = false;
        while !blob.is_file() {
            let mut partial = Partial::open(folder.incomplete(&file.etag), file, self.watch)?;
            self.fill(&mut partial)?;
            match partial.flaw(file) {
                None => partial.keep_as(&blob)?,
                Some(flaw) => {
                    partial.remove()?;
                    if std::mem::replace(&mut is_second, true) {
                        return Err(flaw);
                    }
                    let path = &file.path;
                    self.watch.note(&format!(
                        "`{path}` arrived damaged; downloading it once more"
                    ));
                }
            }
        }
        self.watch.reach(self.others + file.bytes);
        Ok(())
    }

    /// Appends to the partial file until it has all bytes.
    fn fill(&self, partial: &mut Partial) -> Result<(), HubError> {
        let mut tries = 0;
        while partial.length < self.file.bytes {
            let before = partial.length;
            let trouble = match self.stream(partial)? {
                None if partial.length >= self.file.bytes => return Ok(()),
                None => Trouble::Short,
                Some(trouble) => trouble,
            };
            tries = if partial.length > before {
                1
            } else {
                tries + 1
            };
            self.hub
                .pause(trouble, tries, &self.url, self.repository, self.watch)?;
        }
        Ok(())
    }

    /// One request: appends what it brings. A server that sends the whole file makes it start over.
    fn stream(&self, partial: &mut Partial) -> Result<Option<Trouble>, HubError> {
        let exchange = self.hub.request(&self.url, partial.length);
        let head = match exchange.next(self.watch)? {
            Message::Head(head) => head,
            Message::Bytes(_) => return Ok(Some(Trouble::Short)),
            Message::End(error) => {
                return Ok(Some(error.map_or(Trouble::Short, Trouble::Transport)));
            }
        };
        self.hub.reached.store(true, Ordering::Relaxed);
        match head.status {
            200 => partial.restart()?,
            206 if continues(&head, partial.length, self.file.bytes) => {}
            206 | 416 => {
                partial.restart()?;
                return Ok(Some(Trouble::Short));
            }
            _ => return Ok(Some(Trouble::Status(head))),
        }
        loop {
            self.watch
                .reach(self.others + partial.length.min(self.file.bytes));
            match exchange.next(self.watch)? {
                Message::Bytes(bytes) => partial.append(&bytes)?,
                Message::End(error) => return Ok(error.map(Trouble::Transport)),
                Message::Head(_) => return Ok(Some(Trouble::Short)),
            }
            if partial.length > self.file.bytes {
                return Ok(None);
            }
        }
    }
}

/// Whether a part (`Content-Range: bytes 5-9/10`) begins at `offset` in a file of `bytes`.
fn continues(head: &Head, offset: u64, bytes: u64) -> bool {
    let parse = || {
        let range = head.text(&CONTENT_RANGE)?.trim().strip_prefix("bytes ")?;
        let (range, total) = range.split_once('/')?;
        let (first, _) = range.split_once('-')?;
        let is_whole = total == "*" || total.parse() == Ok(bytes);
        Some(first.parse() == Ok(offset) && is_whole)
    };
    parse().unwrap_or(false)
}

/// A file that is not complete, and the checksum of what it holds.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    sum: Sha256,
}

impl Partial {
    /// Opens it with what an earlier transfer left, if a checksum will show whether that is right.
    fn open(path: PathBuf, remote: &RemoteFile, watch: &dyn Watch) -> Result<Self, HubError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(FileError::at("create", &path))?;
        let mut partial = Self {
            path,
            file,
            length: 0,
            sum: Sha256::new(),
        };
        let mut piece = vec![0; PIECE];
        while remote.sha256.is_some() && partial.length <= remote.bytes {
            if watch.is_interrupted() {
                return Err(HubError::Interrupted);
            }
            let read = partial.file.read(&mut piece);
            let read = read.map_err(FileError::at("read", &partial.path))?;
            if read == 0 {
                return Ok(partial);
            }
            partial.sum.update(&piece[..read]);
            partial.length += read as u64;
        }
        partial.restart()?;
        Ok(partial)
    }

    fn restart(&mut self) -> Result<(), HubError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(FileError::at("write", &self.path))?;
        self.length = 0;
        self.sum = Sha256::new();
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file
            .write_all(bytes)
            .map_err(FileError::at("write", &self.path))?;
        self.sum.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// The reason why these are not the contents of `remote`.
    fn flaw(&self, remote: &RemoteFile) -> Option<HubError> {
        let damaged = |quantity, found: String, expected: &str| HubError::Damaged {
            file: remote.path.clone(),
            quantity,
            found,
            expected: expected.to_owned(),
        };
        if self.length != remote.bytes {
            let (found, expected) = (self.length.to_string(), remote.bytes.to_string());
            return Some(damaged("length", found, &expected));
        }
        let expected = remote.sha256.as_ref()?;
        let found = self.sum.clone().finalize();
        let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        (*expected != found).then(|| damaged("sha256", found, expected))
    }

    fn keep_as(self, blob: &PathBuf) -> Result<(), HubError> {
        let Self { path, file, .. } = self;
        let kept = file.sync_all().and_then(|()| fs::rename(&path, blob));
        Ok(kept.map_err(FileError::at("rename", &path))?)
    }

    fn remove(self) -> Result<(), HubError> {
        Ok(fs::remove_file(&self.path).map_err(FileError::at("remove", &self.path))?)
    }
}
