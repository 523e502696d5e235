//! One request and its answer, in a thread of its own, so that whoever waits can stop at once.

use std::io::Read;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, LOCATION, RANGE, RETRY_AFTER,
};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, Error};

use super::retry::sleep;
use super::{Hub, HubError, Repository, Watch};

const CONNECT: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(60);
/// The longest time without a byte.
const SILENCE: Duration = Duration::from_secs(30);

const MOST_REDIRECTS: usize = 10;

/// Bytes of a body that are handed over at once, and how many of those may wait.
const CHUNK: usize = 64 << 10;
const WAITING: usize = 16;

/// Distance of two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// The most bytes of an answer that is not a file.
const LARGEST_ANSWER: usize = 64 << 20;

pub(super) fn agent() -> Agent {
    Agent::config_builder()
        .user_agent(concat!("taper/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .timeout_per_read(Some(SILENCE))
        .build()
        .into()
}

/// Status and headers of the last answer of a chain of redirects.
#[derive(Debug)]
pub(super) struct Head {
    pub status: u16,
    pub headers: HeaderMap,
}

impl Head {
    /// A header as text.
    pub fn text(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn named(&self, name: &'static str) -> Option<&str> {
        self.text(&HeaderName::from_static(name))
    }

    /// The pause that the server asks for: `Retry-After` in seconds, or the time to the next window in `RateLimit`
    /// (`"api";r=0;t=55`, <https://huggingface.co/docs/hub/rate-limits>).
    fn asked_pause(&self) -> Option<Duration> {
        let seconds = self.text(&RETRY_AFTER).map(str::trim).or_else(|| {
            let parameters = self.named("ratelimit")?.split(';');
            let mut windows =
                parameters.filter_map(|parameter| parameter.trim().strip_prefix("t="));
            windows.next()
        });
        seconds?.parse().ok().map(Duration::from_secs)
    }
}

pub(super) enum Message {
    Head(Head),
    Bytes(Vec<u8>),
    End(Option<Error>),
}

/// A reason to try again, or to give up.
#[derive(Debug)]
pub(super) enum Trouble {
    Status(Head),
    Transport(Error),
    /// The body ended too early, or another part of the file came than was asked for.
    Short,
}

/// An answer that is on its way.
pub(super) struct Exchange(Receiver<Message>);

impl Exchange {
    /// The next message.
    ///
    /// # Errors
    /// `Interrupted`.
    pub fn next(&self, watch: &dyn Watch) -> Result<Message, HubError> {
        loop {
            if watch.is_interrupted() {
                return Err(HubError::Interrupted);
            }
            match self.0.recv_timeout(LOOK) {
                Ok(message) => return Ok(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Ok(Message::End(Some(Error::ConnectionFailed)));
                }
            }
        }
    }
}

/// A GET, with all that its thread needs.
struct Request {
    agent: Agent,
    url: String,
    /// Bytes to leave out at the start.
    offset: u64,
    /// A token and the address of the hub, to whose host alone it goes.
    token: Option<(String, String)>,
}

impl Hub {
    /// Asks for the bytes of `url` from `offset` on.
    pub(super) fn request(&self, url: &str, offset: u64) -> Exchange {
        let request = Request {
            agent: self.agent.clone(),
            url: url.to_owned(),
            offset,
            token: self
                .token
                .clone()
                .map(|token| (token, self.endpoint.clone())),
        };
        let (sender, receiver) = sync_channel(WAITING);
        let refused = sender.clone();
        let thread = thread::Builder::new().name("hub".into());
        if let Err(error) = thread.spawn(move || request.run(&sender)) {
            // The channel is empty, so that there is room.
            let _ = refused.try_send(Message::End(Some(error.into())));
        }
        Exchange(receiver)
    }

    /// The whole answer to a GET, after as many tries as it takes.
    ///
    /// # Errors
    /// Those of [`Hub::pause`], and `Interrupted`.
    pub(super) fn get(
        &self,
        url: &str,
        about: &Repository,
        watch: &dyn Watch,
    ) -> Result<(Head, Vec<u8>), HubError> {
        let mut tries = 0;
        loop {
            let trouble = match self.try_to_get(url, watch)? {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            tries += 1;
            self.pause(trouble, tries, url, about, watch)?;
        }
    }

    fn try_to_get(
        &self,
        url: &str,
        watch: &dyn Watch,
    ) -> Result<Result<(Head, Vec<u8>), Trouble>, HubError> {
        let exchange = self.request(url, 0);
        let head = match exchange.next(watch)? {
            Message::Head(head) => head,
            Message::Bytes(_) => return Ok(Err(Trouble::Short)),
            Message::End(error) => {
                return Ok(Err(error.map_or(Trouble::Short, Trouble::Transport)));
            }
        };
        self.reached.store(true, Ordering::Relaxed);
        if head.status != 200 {
            return Ok(Err(Trouble::Status(head)));
        }
        let mut body = Vec::new();
        loop {
            match exchange.next(watch)? {
                Message::Bytes(bytes) if body.len() + bytes.len() > LARGEST_ANSWER => {
                    return Err(HubError::Answer {
                        url: url.to_owned(),
                        reason: format!("it has more than {} MiB", LARGEST_ANSWER >> 20),
                    });
                }
                Message::Bytes(bytes) => body.extend(bytes),
                Message::End(None) => return Ok(Ok((head, body))),
                Message::End(Some(error)) => return Ok(Err(Trouble::Transport(error))),
                Message::Head(_) => return Ok(Err(Trouble::Short)),
            }
        }
    }

    /// Waits before try number `tries` + 1, and says so.
    ///
    /// # Errors
    /// The final error of what cannot get better, or did not in so many tries; `Interrupted`.
    pub(super) fn pause(
        &self,
        trouble: Trouble,
        tries: u32,
        url: &str,
        about: &Repository,
        watch: &dyn Watch,
    ) -> Result<(), HubError> {
        let most = if self.reached.load(Ordering::Relaxed) {
            self.retries.most
        } else {
            self.retries.most_unreached
        };
        let (what, asked) = match &trouble {
            Trouble::Status(head) if may_pass(head.status) => {
                let what = format!("the hub answers with status {}", head.status);
                (what, head.asked_pause())
            }
            Trouble::Transport(error) if !is_final(error) => {
                (format!("the connection failed ({error})"), None)
            }
            Trouble::Short => ("the connection ended in the middle of a file".into(), None),
            _ => return Err(self.final_error(trouble, tries, url, about)),
        };
        let pause = self.retries.pause(tries - 1, asked);
        let Some(pause) = pause.filter(|_| tries <= most) else {
            return Err(self.final_error(trouble, tries, url, about));
        };
        let seconds = pause.as_secs_f64();
        watch.note(&format!("{what}; trying again in {seconds:.1} s"));
        sleep(pause, watch)
    }

    fn final_error(&self, trouble: Trouble, tries: u32, url: &str, about: &Repository) -> HubError {
        let url = url.to_owned();
        match trouble {
            Trouble::Status(head) => self.refusal(&head, tries, url, about),
            Trouble::Transport(error) => {
                let source = Box::new(error);
                HubError::Unreachable { url, tries, source }
            }
            Trouble::Short => HubError::Unreachable {
                url,
                tries,
                source: Box::new(Error::ConnectionFailed),
            },
        }
    }

    /// The meaning of a status, with what the hub says in `X-Error-Code` and `X-Error-Message`. A repository that is
    /// private or not there gives 401 where there is no token.
    fn refusal(&self, head: &Head, tries: u32, url: String, about: &Repository) -> HubError {
        let repository = about.clone();
        let has_token = self.token.is_some();
        let message = head
            .named("x-error-message")
            .unwrap_or("it gives no reason");
        let message = message.to_owned();
        match (head.status, head.named("x-error-code")) {
            (_, Some("GatedRepo")) => HubError::Gated {
                page: format!("{}/{}", self.endpoint, about.place()),
                repository,
                has_token,
            },
            (_, Some("RevisionNotFound")) => HubError::NoRevision {
                repository,
                revision: last_part(&url),
            },
            (_, Some("EntryNotFound")) => HubError::NoFile {
                repository,
                file: last_part(&url),
            },
            (401, _) if has_token => HubError::TokenRefused { message },
            (401 | 404, _) => HubError::NoRepository {
                repository,
                has_token,
            },
            (403, _) => HubError::Forbidden {
                repository,
                message,
            },
            (429, _) => HubError::RateLimited {
                seconds: head.asked_pause().unwrap_or_default().as_secs(),
                has_token,
            },
            (status, _) => HubError::Status { url, status, tries },
        }
    }
}

/// The part of an address behind the last `/`.
fn last_part(url: &str) -> String {
    url.rsplit('/').next().unwrap_or_default().to_owned()
}

fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..)
}

/// Whether no other try can help.
fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::BadUri(_)
            | Error::Http(_)
            | Error::InvalidProxyUrl
            | Error::RequireHttpsOnly(_)
            | Error::TooManyRedirects
            | Error::Tls(_)
            | Error::Rustls(_)
            | Error::Pem(_)
    )
}

impl Request {
    fn run(self, sender: &SyncSender<Message>) {
        let end = match self.answer() {
            Ok(response) => hand_over(response, sender),
            Err(error) => Some(error),
        };
        // Nobody may be waiting any more.
        let _ = sender.send(Message::End(end));
    }

    /// Follows redirects. A token goes to its own host alone, and nothing goes from https to http.
    fn answer(&self) -> Result<Response<Body>, Error> {
        let mut url: Uri = self.url.parse().map_err(ureq::http::Error::from)?;
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent.get(&url).header(ACCEPT_ENCODING, "identity");
            if let Some((token, hub)) = &self.token
                && hub.parse().is_ok_and(|hub| is_same_host(&hub, &url))
            {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            if self.offset > 0 {
                request = request.header(RANGE, format!("bytes={}-", self.offset));
            }
            let response = request.call()?;
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            let Some(location) = location.filter(|_| response.status().is_redirection()) else {
                return Ok(response);
            };
            let next: Uri = target(&url, location)
                .parse()
                .map_err(ureq::http::Error::from)?;
            if url.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(Error::RequireHttpsOnly(next.to_string()));
            }
            url = next;
        }
        Err(Error::TooManyRedirects)
    }
}

/// The address that a `Location` names, absolute or relative.
fn target(from: &Uri, location: &str) -> String {
    let scheme = from.scheme_str().unwrap_or("https");
    let host = from.authority().map_or("", |authority| authority.as_str());
    if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else {
        let folder = from
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{host}{folder}/{location}")
    }
}

fn is_same_host(one: &Uri, other: &Uri) -> bool {
    let place = |uri: &Uri| {
        let standard = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let host = uri.host().map(str::to_ascii_lowercase);
        (
            uri.scheme_str().map(str::to_owned),
            host,
            uri.port_u16().unwrap_or(standard),
        )
    };
    place(one) == place(other)
}

/// Sends status, headers and body; returns what broke it off.
fn hand_over(response: Response<Body>, sender: &SyncSender<Message>) -> Option<Error> {
    let (parts, body) = response.into_parts();
    let head = Head {
        status: parts.status.as_u16(),
        headers: parts.headers,
    };
    if sender.send(Message::Head(head)).is_err() {
        return None;
    }
    let mut reader = body.into_reader();
    loop {
        let mut bytes = vec![0; CHUNK];
        match reader.read(&mut bytes) {
            Ok(0) => return None,
            Ok(read) => {
                bytes.truncate(read);
                if sender.send(Message::Bytes(bytes)).is_err() {
                    return None;
                }
            }
            Err(error) => return Some(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_host_and_port() {
        let same =
            |one: &str, other: &str| is_same_host(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(same("https://hub.co", "https://HUB.co:443/a/b"));
        for other in [
            "http://hub.co",
            "https://cdn.hub.co",
            "https://hub.co:8443",
            "https://hub.com",
        ] {
            assert!(!same("https://hub.co", other), "{other}");
        }
    }

    #[test]
    fn redirects_may_be_relative() {
        let from = "https://hub.co/a/b?c=d".parse().unwrap();
        let cases = [
            ("http://x/y", "http://x/y"),
            ("//cdn/y?z", "https://cdn/y?z"),
            ("/api/y", "https://hub.co/api/y"),
            ("y", "https://hub.co/a/y"),
        ];
        for (location, expected) in cases {
            assert_eq!(target(&from, location), expected);
        }
    }

    #[test]
    fn the_pause_that_a_server_asks_for_is_in_either_header() {
        let head = |name: &'static str, value: &str| Head {
            status: 429,
            headers: HeaderMap::from_iter([(
                HeaderName::from_static(name),
                value.parse().unwrap(),
            )]),
        };
        let seconds = |head: Head| head.asked_pause().map(|pause| pause.as_secs());
        assert_eq!(seconds(head("retry-after", "7")), Some(7));
        assert_eq!(seconds(head("ratelimit", "\"api\";r=0;t=55")), Some(55));
        assert_eq!(
            seconds(head("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")),
            None
        );
        assert_eq!(seconds(head("other", "7")), None);
    }
}
