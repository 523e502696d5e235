//! Commits, files and cards of a repository, from the hub's API or as an earlier call left them in the cache.
//!
//! Answers: `/api/{models,datasets}/{id}/revision/{revision}` and `.../tree/{commit}/{folder}` of
//! <https://huggingface.co/docs/hub/api>.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use ureq::http::header::LINK;

use super::cache::Folder;
use super::exchange::Head;
use super::{Hub, HubError, Repository, Watch};

/// Names from which on the API may not list all of them (huggingface_hub, `VERY_LARGE_REPO_THRESHOLD`).
const MAY_BE_CUT: usize = 50_000;

/// More pages than any folder has.
const MOST_PAGES: usize = 10_000;

/// A commit of a repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// 40 hexadecimal digits.
    pub commit: String,
    /// Paths of the files in the repository.
    pub files: Vec<String>,
    /// The YAML at the head of its README, as JSON; null where there is none.
    pub card: Value,
}

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path in the repository.
    pub path: String,
    pub bytes: u64,
    /// Its name in the cache: the SHA-256 of a large file, git's id of another.
    pub etag: String,
    /// The SHA-256 of a large file (Git LFS); none of others.
    pub sha256: Option<String>,
}

#[derive(Deserialize)]
struct RevisionAnswer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Value,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

#[derive(Deserialize)]
struct TreeEntry {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Hub {
    /// The commit that `revision` (a branch such as `main`) stands for. Where there is no network, the one that the
    /// cache knows.
    ///
    /// # Errors
    /// `NoRepository`, `NoRevision`, `Gated`, `Offline` and those of every request.
    pub fn revision(
        &self,
        repository: &Repository,
        revision: &str,
        watch: &dyn Watch,
    ) -> Result<Listing, HubError> {
        let folder = Folder::new(&self.cache, repository);
        let cached = || folder.listing(revision);
        if self.offline {
            return cached().ok_or_else(|| HubError::Offline {
                what: format!("a list of the files of the {repository}"),
                cache: self.cache.clone(),
            });
        }
        let url = format!(
            "{}/revision/{}",
            self.api(repository),
            encoded(revision, false)
        );
        let (_, body) = match self.get(&url, repository, watch) {
            Err(HubError::Unreachable { url, tries, source }) => {
                let Some(listing) = cached() else {
                    return Err(HubError::Unreachable { url, tries, source });
                };
                watch.note(&format!(
                    "cannot reach {} ({source}); using the {repository} as the cache knows it, commit {}",
                    self.endpoint, listing.commit
                ));
                return Ok(listing);
            }
            answer => answer?,
        };
        let answer: RevisionAnswer = parsed(&url, &body)?;
        if !is_hex(&answer.sha, 40) {
            return Err(unexpected(&url, "its commit is no git hash"));
        }
        let mut files: Vec<String> = answer.siblings.into_iter().map(|it| it.rfilename).collect();
        if files.len() >= MAY_BE_CUT {
            files = self.every_path(repository, &answer.sha, watch)?;
        }
        files.retain(|path| is_plain(path));
        let listing = Listing {
            commit: answer.sha,
            files,
            card: answer.card,
        };
        // A cache that cannot be written may still hold every file; a download says so itself.
        let _ = folder.keep_listing(revision, &listing);
        Ok(listing)
    }

    /// Sizes and checksums of files of a commit, in the order of `names`.
    ///
    /// # Errors
    /// `NoFile`, and those of every request.
    pub(super) fn files(
        &self,
        repository: &Repository,
        commit: &str,
        names: &[&str],
        watch: &dyn Watch,
    ) -> Result<Vec<RemoteFile>, HubError> {
        let wanted: BTreeSet<&str> = names.iter().copied().collect();
        let folders: BTreeSet<&str> = names
            .iter()
            .map(|name| name.rsplit_once('/').map_or("", |(folder, _)| folder))
            .collect();
        let mut found = BTreeMap::new();
        for folder in folders {
            self.tree(repository, commit, folder, false, watch, |url, entry| {
                if entry.r#type == "file" && wanted.contains(entry.path.as_str()) {
                    let file = remote_file(url, entry)?;
                    found.insert(file.path.clone(), file);
                }
                Ok(())
            })?;
        }
        let file = |name: &&str| {
            found.remove(*name).ok_or_else(|| HubError::NoFile {
                repository: repository.clone(),
                file: (*name).to_owned(),
            })
        };
        names.iter().map(file).collect()
    }

    fn every_path(
        &self,
        repository: &Repository,
        commit: &str,
        watch: &dyn Watch,
    ) -> Result<Vec<String>, HubError> {
        let mut paths = Vec::new();
        self.tree(repository, commit, "", true, watch, |_, entry| {
            if entry.r#type == "file" {
                paths.push(entry.path);
            }
            Ok(())
        })?;
        Ok(paths)
    }

    /// Goes through the entries of a folder, page by page.
    fn tree(
        &self,
        repository: &Repository,
        commit: &str,
        folder: &str,
        recursive: bool,
        watch: &dyn Watch,
        mut each: impl FnMut(&str, TreeEntry) -> Result<(), HubError>,
    ) -> Result<(), HubError> {
        let folder = match folder {
            "" => String::new(),
            folder => format!("/{}", encoded(folder, true)),
        };
        let mut url = format!(
            "{}/tree/{commit}{folder}?recursive={recursive}",
            self.api(repository)
        );
        for _ in 0..MOST_PAGES {
            let (head, body) = self.get(&url, repository, watch)?;
            for entry in parsed::<Vec<TreeEntry>>(&url, &body)? {
                each(&url, entry)?;
            }
            match next_page(&head) {
                Some(next) => url = next,
                None => return Ok(()),
            }
        }
        Err(unexpected(&url, "its pages have no end"))
    }

    fn api(&self, repository: &Repository) -> String {
        let (kind, id) = (repository.kind.plural(), repository.id());
        format!("{}/api/{kind}/{id}", self.endpoint)
    }

    /// The address of a file.
    pub(super) fn file_url(&self, repository: &Repository, commit: &str, path: &str) -> String {
        let place = repository.place();
        format!(
            "{}/{place}/resolve/{commit}/{}",
            self.endpoint,
            encoded(path, true)
        )
    }
}

fn remote_file(url: &str, entry: TreeEntry) -> Result<RemoteFile, HubError> {
    let (etag, digits, bytes) = match &entry.lfs {
        Some(lfs) => (&lfs.oid, 64, lfs.size),
        None => (&entry.oid, 40, entry.size),
    };
    // It becomes the name of a file.
    if !is_hex(etag, digits) {
        let reason = format!("the checksum of `{}` is no hash", entry.path);
        return Err(unexpected(url, &reason));
    }
    Ok(RemoteFile {
        bytes,
        etag: etag.clone(),
        sha256: entry.lfs.map(|lfs| lfs.oid),
        path: entry.path,
    })
}

/// The address in `Link: <...>; rel="next"`.
fn next_page(head: &Head) -> Option<String> {
    let mut links = head.text(&LINK)?.split(',');
    let next = links.find(|link| link.contains("rel=\"next\""))?;
    let (_, address) = next.split_once('<')?;
    Some(address.split_once('>')?.0.to_owned())
}

fn parsed<'a, T: Deserialize<'a>>(url: &str, body: &'a [u8]) -> Result<T, HubError> {
    serde_json::from_slice(body).map_err(|error| unexpected(url, &error.to_string()))
}

fn unexpected(url: &str, reason: &str) -> HubError {
    HubError::Answer {
        url: url.to_owned(),
        reason: reason.to_owned(),
    }
}

pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a path of a repository stays inside the folder that it is put in.
pub(super) fn is_plain(path: &str) -> bool {
    let is_name = |name: &str| !["", ".", ".."].contains(&name);
    path.split('/').all(is_name) && !path.contains(['\\', '\0', ':'])
}

/// `text` as a part of an address; with `keep_slashes` as several.
fn encoded(text: &str, keep_slashes: bool) -> String {
    let mut address = String::new();
    for byte in text.bytes() {
        match byte {
            b'/' if keep_slashes => address.push('/'),
            b'-' | b'_' | b'.' | b'~' => address.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => address.push(byte.into()),
            byte => address += &format!("%{byte:02X}"),
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_and_those_that_leave_the_folder_are_not_plain() {
        assert_eq!(
            encoded("refs/convert/parquet", false),
            "refs%2Fconvert%2Fparquet"
        );
        assert_eq!(encoded("a b/ü.txt", true), "a%20b/%C3%BC.txt");
        assert!(is_plain("a/b-c/d.parquet"));
        for other in [
            "", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\\b", "C:/a", "a\0",
        ] {
            assert!(!is_plain(other), "{other:?}");
        }
    }
}
