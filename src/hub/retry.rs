//! The pauses between tries.

use std::time::{Duration, Instant};

use super::{HubError, Watch};

/// The longest pause that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// Distance of two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Number and pauses of the tries of a request. A try that brought bytes starts the count again.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Pause before the first retry; it doubles with each further one.
    pub first: Duration,
    pub longest: Duration,
    /// Retries in a row without progress.
    pub most: u32,
    /// The same before the server was reached for the first time: there may be no network at all.
    pub most_unreached: u32,
}

impl Default for Retries {
    /// A minute and a half in all.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            most: 8,
            most_unreached: 2,
        }
    }
}

impl Retries {
    /// The pause before retry number `retry`, from 0: what the server asks for, else the schedule. `None` when it asks
    /// for longer than anybody would wait.
    pub(super) fn pause(&self, retry: u32, asked: Option<Duration>) -> Option<Duration> {
        match asked {
            Some(asked) => (asked <= LONGEST_ASKED).then_some(asked),
            None => Some(
                self.first
                    .saturating_mul(2u32.saturating_pow(retry))
                    .min(self.longest),
            ),
        }
    }
}

/// Sleeps until the pause is over.
///
/// # Errors
/// `Interrupted`.
pub(super) fn sleep(pause: Duration, watch: &dyn Watch) -> Result<(), HubError> {
    let until = Instant::now() + pause;
    loop {
        if watch.is_interrupted() {
            return Err(HubError::Interrupted);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_unless_the_server_asks_for_one() {
        let retries = Retries::default();
        let pauses: Vec<u64> = (0..9)
            .map(|retry| retries.pause(retry, None).unwrap().as_millis() as u64)
            .collect();
        assert_eq!(
            pauses,
            [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]
        );
        let asked = |seconds| retries.pause(3, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(7), Some(Duration::from_secs(7)));
        assert_eq!(asked(3600), None);
        assert_eq!(retries.pause(u32::MAX, None), Some(retries.longest));
    }
}
