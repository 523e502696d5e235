//! Downloads that go well: the layout of the cache, tokens, pages, and what is not asked twice.

use std::fs;
use std::path::Path;

use taper::hub::HubError;
use tempfile::tempdir;

use crate::server::{COMMIT, Contents, Server, large, noise, sha256, small};
use crate::{Watched, dataset, download, hub};

#[test]
fn files_lie_where_hugging_faces_tools_look_for_them() {
    let bytes = noise(300_000);
    let files = [small("README.md", "hello"), large("a/b/c.bin", &*bytes)];
    let server = Server::start(Contents::default().with("datasets/o/n", &files));
    let cache = tempdir().unwrap();
    let watch = Watched::default();
    let found = download(
        &hub(&server, cache.path()),
        &["a/b/c.bin", "README.md"],
        &watch,
    )
    .unwrap();
    let folder = cache.path().join("datasets--o--n");
    let snapshot = folder.join("snapshots").join(COMMIT);
    assert_eq!(found[0].path, snapshot.join("a/b/c.bin"));
    assert_eq!(found[0].sha256.as_deref(), Some(&*sha256(&bytes)));
    assert_eq!(found[0].bytes, 300_000);
    assert_eq!(found[1].path, snapshot.join("README.md"));
    assert_eq!(found[1].sha256, None);
    assert_eq!(fs::read(&found[0].path).unwrap(), bytes);
    assert_eq!(fs::read(&found[1].path).unwrap(), b"hello");
    assert_eq!(
        fs::read_to_string(folder.join("refs/main")).unwrap(),
        COMMIT
    );
    let link = fs::read_link(&found[0].path).unwrap();
    assert_eq!(link, Path::new("../../../../blobs").join(sha256(&bytes)));
    assert_eq!(*watch.progress.lock().unwrap(), (0, 300_005, 300_005));
    assert!(watch.notes.lock().unwrap().is_empty());
}

#[test]
fn a_token_goes_to_the_hub_and_never_to_its_storage() {
    let files = [small("small.txt", "s"), large("large.bin", noise(10))];
    let server = Server::start(Contents::default().with("datasets/o/n", &files));
    let cache = tempdir().unwrap();
    let hub = hub(&server, cache.path()).with_token("hf_secret");
    download(&hub, &["small.txt", "large.bin"], &Watched::default()).unwrap();
    let seen = server.seen();
    let (storage, hub): (Vec<_>, Vec<_>) = seen.iter().partition(|request| request.is_storage);
    assert_eq!(storage.len(), 1);
    assert!(storage.iter().all(|request| request.token.is_none()));
    assert!(hub.len() >= 4);
    assert!(
        hub.iter()
            .all(|request| request.token.as_deref() == Some("Bearer hf_secret"))
    );
}

#[test]
fn a_full_cache_needs_one_request_and_offline_none() {
    let files = [large("a.bin", noise(10)), large("b.bin", noise(20))];
    let server = Server::start(Contents::default().with("datasets/o/n", &files));
    let cache = tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let first = download(&hub, &["a.bin", "b.bin"], &Watched::default()).unwrap();
    let before = server.seen().len();
    let again = download(&hub, &["a.bin", "b.bin"], &Watched::default()).unwrap();
    assert_eq!(again, first);
    assert_eq!(server.seen().len(), before + 1);
    let offline = hub.offline();
    assert_eq!(
        download(&offline, &["a.bin", "b.bin"], &Watched::default()).unwrap(),
        first
    );
    assert_eq!(server.seen().len(), before + 1);
}

#[test]
fn offline_says_what_the_cache_lacks() {
    let files = [large("a.bin", noise(10)), large("b.bin", noise(20))];
    let server = Server::start(Contents::default().with("datasets/o/n", &files));
    let cache = tempdir().unwrap();
    let offline = hub(&server, cache.path()).offline();
    let error = download(&offline, &["a.bin"], &Watched::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a list of the files of the dataset `o/n`"),
        "{error}"
    );
    assert!(server.seen().is_empty());
    download(&hub(&server, cache.path()), &["a.bin"], &Watched::default()).unwrap();
    let error = download(&offline, &["a.bin", "b.bin"], &Watched::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not hold `b.bin` of the dataset `o/n`"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("HF_HUB_OFFLINE"));
}

#[test]
fn a_listing_goes_over_as_many_pages_as_it_has() {
    let files: Vec<_> = (0..7)
        .map(|n| large(&format!("d/{n}.bin"), noise(n + 1)))
        .collect();
    let mut contents = Contents::default().with("datasets/o/n", &files);
    contents.page = Some(3);
    let server = Server::start(contents);
    let cache = tempdir().unwrap();
    let paths: Vec<String> = files.iter().rev().map(|file| file.path.clone()).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let found = download(&hub(&server, cache.path()), &paths, &Watched::default()).unwrap();
    let lengths: Vec<u64> = found.iter().map(|file| file.bytes).collect();
    assert_eq!(lengths, [7, 6, 5, 4, 3, 2, 1]);
    let pages = server
        .seen()
        .into_iter()
        .filter(|request| request.path.contains("/tree/"));
    assert_eq!(pages.count(), 3);
}

#[test]
fn a_blob_of_an_earlier_commit_is_not_downloaded_again() {
    let file = large("new/name.bin", noise(1000));
    let server =
        Server::start(Contents::default().with("datasets/o/n", std::slice::from_ref(&file)));
    let cache = tempdir().unwrap();
    let blobs = cache.path().join("datasets--o--n/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(sha256(&file.bytes)), &file.bytes).unwrap();
    let found = download(
        &hub(&server, cache.path()),
        &["new/name.bin"],
        &Watched::default(),
    )
    .unwrap();
    assert_eq!(fs::read(&found[0].path).unwrap(), file.bytes);
    assert_eq!(server.sent(), 0);
}

#[test]
fn a_download_that_the_disk_has_no_room_for_is_refused_before_it_begins() {
    let server = Server::with_rule(
        Contents::default().with("datasets/o/n", &[large("a.bin", noise(10))]),
        |request, mut answer| {
            if request.path.contains("/tree/") {
                let text = String::from_utf8(answer.body).unwrap();
                answer.body = text
                    .replace("\"size\":10", "\"size\":1152921504606846976")
                    .into();
            }
            answer
        },
    );
    let cache = tempdir().unwrap();
    let error = download(&hub(&server, cache.path()), &["a.bin"], &Watched::default()).unwrap_err();
    assert!(
        matches!(
            error,
            HubError::NoRoom {
                needed: 1_152_921_504_606_846_976,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("1048576.00 TiB"), "{error}");
    assert_eq!(server.sent(), 0);
}

#[test]
fn names_and_hashes_that_lead_out_of_the_cache_are_refused() {
    let files = [
        large("../../evil.bin", noise(10)),
        large("a.bin", noise(10)),
    ];
    let server = Server::with_rule(
        Contents::default().with("datasets/o/n", &files),
        |request, mut answer| {
            if request.path.contains("/tree/") {
                let text = String::from_utf8(answer.body).unwrap();
                answer.body = text.replace(&sha256(&noise(10)), "../../../evil").into();
            }
            answer
        },
    );
    let cache = tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let listing = hub
        .revision(&dataset("o/n"), "main", &Watched::default())
        .unwrap();
    assert_eq!(listing.files, ["a.bin"]);
    let error = download(&hub, &["a.bin"], &Watched::default()).unwrap_err();
    assert!(matches!(error, HubError::Answer { .. }), "{error}");
}
