//! Downloads that go wrong: broken connections, damaged files, refusals, and what is tried again.

use std::fs;
use std::time::Duration;

use taper::hub::{HubError, Retries};
use tempfile::tempdir;

use crate::server::{Answer, Contents, End, Request, Server, large, noise, sha256, small};
use crate::{Watched, download, hub};

const LENGTH: usize = 500_000;

/// A dataset of one large file, with answers that `rule` changes.
fn serve(rule: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) -> Server {
    let files = [large("a.bin", noise(LENGTH)), small("b.txt", "small")];
    Server::with_rule(Contents::default().with("datasets/o/n", &files), rule)
}

/// The bytes from which on the storage was asked.
fn ranges(server: &Server) -> Vec<Option<usize>> {
    let seen = server.seen().into_iter();
    seen.filter(|request| request.is_storage)
        .map(|request| request.from)
        .collect()
}

#[test]
fn a_connection_that_breaks_is_continued_where_it_broke() {
    // Four times in a row, which is more than the tries without progress.
    let server = serve(|request, mut answer| {
        if request.is_storage && request.earlier < 4 {
            answer.end = End::CloseAfter(100_000);
        }
        answer
    });
    let cache = tempdir().unwrap();
    let watch = Watched::default();
    let found = download(&hub(&server, cache.path()), &["a.bin"], &watch).unwrap();
    assert_eq!(fs::read(&found[0].path).unwrap(), noise(LENGTH));
    assert_eq!(server.sent(), LENGTH);
    let expected = [
        None,
        Some(100_000),
        Some(200_000),
        Some(300_000),
        Some(400_000),
    ];
    assert_eq!(ranges(&server), expected);
    assert_eq!(watch.notes.lock().unwrap().len(), 4);
}

#[test]
fn an_earlier_download_is_continued_and_a_server_without_ranges_makes_it_start_over() {
    for has_ranges in [true, false] {
        let server = serve(move |request, answer| {
            if has_ranges || !request.is_storage {
                return answer;
            }
            Answer {
                status: 200,
                body: noise(LENGTH),
                ..answer
            }
        });
        let cache = tempdir().unwrap();
        let blobs = cache.path().join("datasets--o--n/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let partial = blobs.join(format!("{}.incomplete", sha256(&noise(LENGTH))));
        fs::write(&partial, &noise(LENGTH)[..400_000]).unwrap();
        let watch = Watched::default();
        let found = download(&hub(&server, cache.path()), &["a.bin"], &watch).unwrap();
        assert_eq!(fs::read(&found[0].path).unwrap(), noise(LENGTH));
        assert_eq!(ranges(&server), [Some(400_000)]);
        assert_eq!(server.sent(), if has_ranges { 100_000 } else { LENGTH });
        let length = LENGTH as u64;
        assert_eq!(*watch.progress.lock().unwrap(), (400_000, length, length));
        assert!(!partial.exists());
    }
}

#[test]
fn a_part_of_another_file_makes_it_start_over() {
    let server = serve(|request, mut answer| {
        if request.is_storage && request.earlier == 0 {
            answer.end = End::CloseAfter(100_000);
        }
        if request.is_storage && request.earlier == 1 {
            answer.headers.clear();
            return answer.header("Content-Range", "bytes 7-499999/500000");
        }
        answer
    });
    let cache = tempdir().unwrap();
    let found = download(&hub(&server, cache.path()), &["a.bin"], &Watched::default()).unwrap();
    assert_eq!(fs::read(&found[0].path).unwrap(), noise(LENGTH));
    assert_eq!(ranges(&server), [None, Some(100_000), None]);
}

#[test]
fn a_damaged_file_is_brought_once_more_and_then_both_checksums_are_named() {
    for damaged in [1, usize::MAX] {
        let server = serve(move |request, mut answer| {
            if request.is_storage && request.earlier < damaged {
                answer.body[17] ^= 1;
            }
            answer
        });
        let cache = tempdir().unwrap();
        let watch = Watched::default();
        let result = download(&hub(&server, cache.path()), &["a.bin"], &watch);
        assert_eq!(ranges(&server), [None, None]);
        assert!(watch.notes.lock().unwrap()[0].contains("arrived damaged"));
        let blobs = cache.path().join("datasets--o--n/blobs");
        if damaged == 1 {
            assert_eq!(fs::read(&result.unwrap()[0].path).unwrap(), noise(LENGTH));
            continue;
        }
        let error = result.unwrap_err().to_string();
        let mut wrong = noise(LENGTH);
        wrong[17] ^= 1;
        for sum in [sha256(&wrong), sha256(&noise(LENGTH))] {
            assert!(error.contains(&sum), "{error}");
        }
        assert_eq!(fs::read_dir(blobs).unwrap().count(), 0);
        assert!(!cache.path().join("datasets--o--n/snapshots").exists());
    }
}

#[test]
fn a_small_file_of_another_length_is_refused() {
    let server = serve(|request, answer| match &request.path {
        path if path.ends_with("/b.txt") => Answer {
            body: b"small and more".into(),
            ..answer
        },
        _ => answer,
    });
    let cache = tempdir().unwrap();
    let error = download(&hub(&server, cache.path()), &["b.txt"], &Watched::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("its length is 14, expected 5"), "{error}");
}

#[test]
fn errors_of_the_server_pass_or_end_the_download_after_every_try() {
    for failures in [2, usize::MAX] {
        let server = serve(move |request, answer| {
            let fails = request.path.contains("/resolve/") && request.earlier < failures;
            if fails { Answer::status(500) } else { answer }
        });
        let cache = tempdir().unwrap();
        let result = download(&hub(&server, cache.path()), &["a.bin"], &Watched::default());
        if failures == 2 {
            result.unwrap();
            continue;
        }
        let error = result.unwrap_err();
        assert!(
            matches!(
                error,
                HubError::Status {
                    status: 500,
                    tries: 4,
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("the same command again"));
    }
}

#[test]
fn the_pause_that_the_server_asks_for_takes_the_place_of_the_schedule() {
    let limited = |seconds: &'static str| {
        serve(move |request, answer| {
            if request.path.contains("/revision/") && request.earlier == 0 {
                Answer::status(429).header("Retry-After", seconds)
            } else {
                answer
            }
        })
    };
    let cache = tempdir().unwrap();
    let server = limited("0");
    // By the schedule it would take until tomorrow.
    let tomorrow = Retries {
        first: Duration::from_secs(86_400),
        longest: Duration::from_secs(86_400),
        ..Retries::default()
    };
    let patient = hub(&server, cache.path()).with_retries(tomorrow);
    download(&patient, &["a.bin"], &Watched::default()).unwrap();
    let server = limited("3600");
    let error = download(&hub(&server, cache.path()), &["a.bin"], &Watched::default()).unwrap_err();
    assert!(
        matches!(error, HubError::RateLimited { seconds: 3600, .. }),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("HF_TOKEN"));
}

#[test]
fn refusals_say_what_is_missing() {
    let answer = |status, code: &'static str, token: Option<&str>| {
        let server = serve(move |_, _| {
            Answer::status(status)
                .header("X-Error-Code", code)
                .header("X-Error-Message", "the reason")
        });
        let cache = tempdir().unwrap();
        let mut hub = hub(&server, cache.path());
        if let Some(token) = token {
            hub = hub.with_token(token);
        }
        let error = download(&hub, &["a.bin"], &Watched::default()).unwrap_err();
        assert_eq!(server.seen().len(), 1, "nothing is tried again");
        (
            format!("{error}\n{}", error.hint().unwrap()),
            server.endpoint,
        )
    };
    let (shown, endpoint) = answer(401, "GatedRepo", None);
    let page = format!("accept the licence at {endpoint}/datasets/o/n and set `HF_TOKEN`");
    assert!(shown.contains(&page), "{shown}");
    let cases = [
        (
            403,
            "GatedRepo",
            Some("t"),
            "with the account of your token",
        ),
        (
            401,
            "RepoNotFound",
            None,
            "no dataset `o/n`\ncheck the name",
        ),
        (401, "", Some("t"), "refuses the token: the reason"),
        (
            403,
            "",
            Some("t"),
            "refuses access to the dataset `o/n`: the reason",
        ),
        (
            404,
            "RepoNotFound",
            None,
            "without one it looks as if it were not there",
        ),
        (404, "RepoNotFound", Some("t"), "that this token may see"),
        (404, "RevisionNotFound", None, "no revision `main`"),
        (418, "", None, "status 418"),
    ];
    for (status, code, token, words) in cases {
        let (shown, _) = answer(status, code, token);
        assert!(shown.contains(words), "{words}\n{shown}");
    }
}

#[test]
fn a_hub_that_nobody_answers_for_is_named_unless_the_cache_knows_the_files() {
    let cache = tempdir().unwrap();
    let mut server = serve(|_, answer| answer);
    let first = download(&hub(&server, cache.path()), &["a.bin"], &Watched::default()).unwrap();
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    server.endpoint = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let watch = Watched::default();
    let again = download(&hub(&server, cache.path()), &["a.bin"], &watch).unwrap();
    assert_eq!(again, first);
    let notes = watch.notes.lock().unwrap().join("\n");
    assert!(
        notes.contains("using the dataset `o/n` as the cache knows it"),
        "{notes}"
    );
    let other = tempdir().unwrap();
    let error = download(&hub(&server, other.path()), &["a.bin"], &Watched::default()).unwrap_err();
    assert!(
        matches!(error, HubError::Unreachable { tries: 2, .. }),
        "{error}"
    );
}

#[test]
fn an_interrupt_ends_a_stalled_download_and_keeps_what_has_come() {
    let server = serve(|request, mut answer| {
        if request.is_storage && request.earlier == 0 {
            answer.end = End::StallAfter(300_000);
        }
        answer
    });
    let cache = tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let watch = Watched {
        stop_at: Some(300_000),
        ..Watched::default()
    };
    let error = download(&hub, &["a.bin"], &watch).unwrap_err();
    assert!(matches!(error, HubError::Interrupted), "{error}");
    download(&hub, &["a.bin"], &Watched::default()).unwrap();
    assert_eq!(ranges(&server), [None, Some(300_000)]);
    assert_eq!(server.sent(), LENGTH);
}

#[test]
fn an_answer_that_is_no_hubs_is_named() {
    let server = serve(|_, answer| Answer {
        body: b"<html>please log in</html>".into(),
        ..answer
    });
    let cache = tempdir().unwrap();
    let error = download(&hub(&server, cache.path()), &["a.bin"], &Watched::default()).unwrap_err();
    assert!(matches!(error, HubError::Answer { .. }), "{error}");
    assert!(error.hint().unwrap().contains("HF_ENDPOINT"));
}
