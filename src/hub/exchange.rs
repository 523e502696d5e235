//! One request and its answer, in a thread of its own, so that whoever waits can stop at once.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, LOCATION, RANGE, RETRY_AFTER,
};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, Error};

use super::{Hub, HubError, Watch};

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

    pub fn named(&self, name: &'static str) -> Option<&str> {
        self.text(&HeaderName::from_static(name))
    }

    /// The pause that the server asks for: `Retry-After` in seconds, or the time to the next window in `RateLimit`
    /// (`"api";r=0;t=55`, <https://huggingface.co/docs/hub/rate-limits>).
    pub fn asked_pause(&self) -> Option<Duration> {
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
