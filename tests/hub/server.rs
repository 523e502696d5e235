//! A hub on a local port, with its storage on another: what the real one answers, and whatever a rule makes of it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The commit of a dataset's conversion, and the place of its files: `datasets/owner/name@converted`.
const CONVERTED: &str = "fedcba9876543210fedcba9876543210fedcba98";
const CONVERSION: &str = "refs%2Fconvert%2Fparquet";

pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that look random.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| byte()).collect()
}

/// A file of a repository. Large ones are in Git LFS: they come from the storage and have a SHA-256.
#[derive(Clone)]
pub struct Stored {
    pub path: String,
    pub bytes: Vec<u8>,
    pub is_large: bool,
}

pub fn large(path: &str, bytes: impl Into<Vec<u8>>) -> Stored {
    let bytes = bytes.into();
    Stored {
        path: path.into(),
        bytes,
        is_large: true,
    }
}

pub fn small(path: &str, bytes: impl Into<Vec<u8>>) -> Stored {
    Stored {
        is_large: false,
        ..large(path, bytes)
    }
}

impl Stored {
    /// Git's id stands in as the first digits of a SHA-256.
    fn oid(&self) -> String {
        sha256(&self.bytes)[..40].into()
    }

    fn entry(&self) -> Value {
        let size = self.bytes.len();
        let mut entry = json!({"type": "file", "path": self.path, "size": size, "oid": self.oid()});
        if self.is_large {
            entry["lfs"] = json!({"oid": sha256(&self.bytes), "size": size, "pointerSize": 134});
        }
        entry
    }
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whether it came to the storage.
    pub is_storage: bool,
    /// Whether it asks for no body, as huggingface_hub does before a download.
    is_head: bool,
    pub path: String,
    pub query: String,
    pub token: Option<String>,
    /// First byte that is asked for.
    pub from: Option<usize>,
    /// Requests for the same path before this one.
    pub earlier: usize,
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub end: End,
}

/// The end of an answer.
pub enum End {
    Whole,
    /// The connection closes after so many bytes of the body.
    CloseAfter(usize),
    /// Nothing comes after so many bytes, and the connection stays.
    StallAfter(usize),
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self::ok(status, Vec::new())
    }

    fn ok(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
            end: End::Whole,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Rule = dyn Fn(&Request, Answer) -> Answer + Send + Sync;

/// Repositories, `owner/name` or `datasets/owner/name`, with their cards.
#[derive(Default)]
pub struct Contents {
    repositories: HashMap<String, (Vec<Stored>, Value)>,
    /// Entries of a page of a listing.
    pub page: Option<usize>,
}

impl Contents {
    pub fn with(mut self, place: &str, files: &[Stored]) -> Self {
        self.repositories
            .insert(place.into(), (files.to_vec(), Value::Null));
        self
    }

    pub fn with_card(mut self, place: &str, files: &[Stored], card: Value) -> Self {
        self.repositories
            .insert(place.into(), (files.to_vec(), card));
        self
    }
}

pub struct Server {
    /// The value of `HF_ENDPOINT`.
    pub endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    contents: Contents,
    rule: Box<Rule>,
    endpoint: String,
    storage: String,
    seen: Mutex<Vec<Request>>,
    /// Bytes of files that were sent.
    sent: Mutex<usize>,
}

impl Server {
    pub fn start(contents: Contents) -> Self {
        Self::with_rule(contents, |_, answer| answer)
    }

    /// A server whose answers `rule` changes.
    pub fn with_rule(
        contents: Contents,
        rule: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let [hub, storage] = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            contents,
            rule: Box::new(rule),
            endpoint: address(&hub),
            storage: address(&storage),
            seen: Mutex::default(),
            sent: Mutex::default(),
        });
        for (listener, is_storage) in [(hub, false), (storage, true)] {
            let shared = shared.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let shared = shared.clone();
                    thread::spawn(move || shared.serve(stream, is_storage));
                }
            });
        }
        Self {
            endpoint: shared.endpoint.clone(),
            shared,
        }
    }

    pub fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Bytes of files that were sent so far.
    pub fn sent(&self) -> usize {
        *self.shared.sent.lock().unwrap()
    }
}

impl Shared {
    /// Answers one request. A client that goes away ends it.
    fn serve(&self, stream: TcpStream, is_storage: bool) -> Option<()> {
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let target = line.split(' ').nth(1)?.to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let range = headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes="));
        let mut seen = self.seen.lock().unwrap();
        let request = Request {
            is_storage,
            is_head: line.starts_with("HEAD "),
            path: path.into(),
            query: query.into(),
            token: headers.get("authorization").cloned(),
            from: range.and_then(|range| range.trim_end_matches('-').parse().ok()),
            earlier: seen.iter().filter(|seen| seen.path == path).count(),
        };
        seen.push(request.clone());
        drop(seen);
        let answer = (self.rule)(&request, self.answer(&request));
        self.send(stream, answer, &request)
    }

    fn send(&self, mut stream: TcpStream, answer: Answer, request: &Request) -> Option<()> {
        let length = answer.body.len();
        let mut head = format!(
            "HTTP/1.1 {} Status\r\nContent-Length: {length}\r\nConnection: close\r\n",
            answer.status
        );
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all((head + "\r\n").as_bytes()).ok()?;
        if request.is_head {
            return Some(());
        }
        let until = match answer.end {
            End::Whole => length,
            End::CloseAfter(bytes) | End::StallAfter(bytes) => bytes.min(length),
        };
        if request.is_storage {
            *self.sent.lock().unwrap() += until;
        }
        stream.write_all(&answer.body[..until]).ok()?;
        stream.flush().ok()?;
        if let End::StallAfter(_) = answer.end {
            stream
                .set_read_timeout(Some(Duration::from_secs(60)))
                .ok()?;
            // Until the client goes away.
            let _ = stream.read(&mut [0]);
        }
        Some(())
    }

    /// The hub's own answer.
    fn answer(&self, request: &Request) -> Answer {
        self.route(request)
            .unwrap_or_else(|| Answer::status(404).header("X-Error-Code", "RepoNotFound"))
    }

    fn route(&self, request: &Request) -> Option<Answer> {
        if request.is_storage {
            return self.stored(request);
        }
        if let Some(path) = request.path.strip_prefix("/api/") {
            let (kind, path) = path.split_once('/')?;
            let parts: Vec<&str> = path.splitn(4, '/').collect();
            let prefix = if kind == "datasets" { "datasets/" } else { "" };
            let place = format!("{prefix}{}/{}", parts[0], parts[1]);
            self.contents.repositories.get(&place)?;
            let (action, of) = (*parts.get(2)?, *parts.get(3)?);
            let (revision, folder) = of.split_once('/').unwrap_or((of, ""));
            let Some((files, card)) = self.commit(&place, revision) else {
                return Some(Answer::status(404).header("X-Error-Code", "RevisionNotFound"));
            };
            return match action {
                "revision" => Some(answer_revision(revision, files, card)),
                "tree" => Some(self.tree(request, folder, files)),
                _ => None,
            };
        }
        let (place, file) = request.path.split_once("/resolve/")?;
        let (commit, path) = file.split_once('/')?;
        let place = place.trim_start_matches('/');
        let (files, _) = self.commit(place, commit)?;
        let Some(stored) = files.iter().find(|file| file.path == path) else {
            return Some(Answer::status(404).header("X-Error-Code", "EntryNotFound"));
        };
        let answer = if stored.is_large {
            let to = format!("{}/{place}/{path}", self.storage);
            Answer::status(302)
                .header("Location", &to)
                .header("X-Linked-Size", &stored.bytes.len().to_string())
                .header("X-Linked-Etag", &format!("\"{}\"", sha256(&stored.bytes)))
        } else {
            let etag = format!("\"{}\"", stored.oid());
            Answer::ok(200, stored.bytes.clone()).header("ETag", &etag)
        };
        Some(answer.header("X-Repo-Commit", COMMIT))
    }

    /// Files and card of a branch or a commit.
    fn commit(&self, place: &str, revision: &str) -> Option<&(Vec<Stored>, Value)> {
        let repositories = &self.contents.repositories;
        match revision {
            "main" | COMMIT => repositories.get(place),
            CONVERSION | CONVERTED => repositories.get(&format!("{place}@converted")),
            _ => None,
        }
    }

    fn tree(&self, request: &Request, folder: &str, files: &[Stored]) -> Answer {
        let inside = |file: &&Stored| {
            let parent = file.path.rsplit_once('/').map_or("", |(parent, _)| parent);
            parent == folder || request.query.contains("recursive=true")
        };
        let entries: Vec<Value> = files.iter().filter(inside).map(Stored::entry).collect();
        let page = self.contents.page.unwrap_or(1000);
        let cursor = request
            .query
            .split_once("cursor=")
            .map(|(_, cursor)| cursor);
        let first: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let last = entries.len().min(first + page);
        let answer = Answer::ok(200, json!(entries[first..last]).to_string().into());
        if last == entries.len() {
            return answer;
        }
        let next = format!("{}{}?cursor={last}", self.endpoint, request.path);
        answer.header("Link", &format!("<{next}>; rel=\"next\""))
    }

    /// A file, from the byte that is asked for.
    fn stored(&self, request: &Request) -> Option<Answer> {
        let path = request.path.trim_start_matches('/');
        let mut repositories = self.contents.repositories.iter();
        let file = repositories.find_map(|(place, (files, _))| {
            let place = place.trim_end_matches("@converted");
            let path = path.strip_prefix(place)?.strip_prefix('/')?;
            files.iter().find(|file| file.path == path)
        })?;
        let bytes = &file.bytes;
        Some(match request.from {
            None => Answer::ok(200, bytes.clone()),
            Some(from) if from >= bytes.len() => Answer::status(416),
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::ok(206, bytes[from..].to_vec()).header("Content-Range", &range)
            }
        })
    }
}

fn answer_revision(revision: &str, files: &[Stored], card: &Value) -> Answer {
    let siblings: Vec<Value> = files
        .iter()
        .map(|file| json!({"rfilename": file.path}))
        .collect();
    let commit = if revision == CONVERSION {
        CONVERTED
    } else {
        COMMIT
    };
    let mut answer = json!({"sha": commit, "siblings": siblings, "gated": false});
    if !card.is_null() {
        answer["cardData"] = card.clone();
    }
    Answer::ok(200, answer.to_string().into())
}
