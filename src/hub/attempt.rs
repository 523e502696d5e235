//! Tries: what is tried again and when, and the error of what is not.

use std::sync::atomic::Ordering;

use ureq::Error;

use super::exchange::{Head, Message, Trouble};
use super::retry::sleep;
use super::{Hub, HubError, Repository, Watch};

/// The most bytes of an answer that is not a file.
const LARGEST_ANSWER: usize = 64 << 20;

impl Hub {
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
