//! Which operation on the card happens before which.
//!
//! Every operation belongs to a track (a stream, or a branch of a graph), is numbered within it, and carries a
//! vector clock: how far every other track had come, for certain, when it may begin. An operation happens before
//! another when the other's clock has reached its number. What happens before what is decided when an operation is
//! given to the card, whenever the card does it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, RwLockReadGuard};

use crate::fault::What;

/// How far each track has come, as far as an operation, an event or the host knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock(Vec<u32>);

impl Clock {
    /// Operations of this track that are done.
    pub fn of(&self, track: usize) -> u32 {
        self.0.get(track).copied().unwrap_or(0)
    }

    pub fn set(&mut self, track: usize, number: u32) {
        if self.0.len() <= track {
            self.0.resize(track + 1, 0);
        }
        self.0[track] = number;
    }

    /// Knows only what the other knows, too.
    pub fn meet(&mut self, other: &Clock) {
        self.0.truncate(other.0.len());
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            *to = (*to).min(*from);
        }
    }

    /// Knows what the other knows, too.
    pub fn join(&mut self, other: &Clock) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            *to = (*to).max(*from);
        }
    }
}

/// An operation by its number among all; zero for what happens before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(pub(super) u32);

/// What an operation is called in a report, and when it is.
#[derive(Clone, Debug)]
pub struct Entry {
    /// A kernel, a copy, a fill, ...
    pub what: Cow<'static, str>,
    /// Where it was given to the card: `stream 2`.
    pub place: Cow<'static, str>,
    pub track: usize,
    /// Within the track, from one.
    pub number: u32,
    /// What happens before it, itself included.
    pub clock: Arc<Clock>,
}

/// Stamps are kept in 24 bits beside what they touched.
const LAST_STAMP: u32 = (1 << 24) - 2;

/// Operations that others may still be unordered with.
#[derive(Default)]
pub(super) struct Log {
    /// How many operations there were before those of the list.
    forgotten: u32,
    /// Nothing for what happens before everything that comes later.
    list: VecDeque<Option<Entry>>,
    /// Number and stamp of the listed operations, by track.
    tracks: Vec<VecDeque<(u32, u32)>>,
}

impl Log {
    fn push(&mut self, entry: Option<Entry>) -> Stamp {
        let stamp = self.forgotten + self.list.len() as u32 + 1;
        assert!(
            stamp <= LAST_STAMP,
            "more operations than can be told apart, and never nothing to do"
        );
        if let Some(entry) = &entry {
            if self.tracks.len() <= entry.track {
                self.tracks.resize_with(entry.track + 1, VecDeque::new);
            }
            self.tracks[entry.track].push_back((entry.number, stamp));
        }
        self.list.push_back(entry);
        Stamp(stamp)
    }

    pub fn begin(&mut self, entry: Entry) -> Stamp {
        self.push(Some(entry))
    }

    /// The host itself, which waits for what it does.
    pub fn begin_by_host(&mut self) -> Stamp {
        self.push(None)
    }

    /// Half of the stamps are used: time to begin again.
    pub fn is_full(&self) -> bool {
        self.forgotten + self.list.len() as u32 >= LAST_STAMP / 2
    }

    /// Forgets what everything that is still to be done knows: what the host has seen done, and all that is queued
    /// comes after.
    pub fn forget(&mut self, known: &Clock) {
        while let Some(front) = self.list.front() {
            if matches!(front, Some(entry) if known.of(entry.track) < entry.number) {
                return;
            }
            if let Some(Some(entry)) = self.list.pop_front() {
                self.tracks[entry.track].pop_front();
            }
            self.forgotten += 1;
        }
    }

    fn entry(&self, stamp: u32) -> Option<&Entry> {
        let index = stamp.checked_sub(self.forgotten + 1)?;
        self.list.get(index as usize)?.as_ref()
    }

    /// The first stamp that does not happen before an operation with this clock.
    fn first_after(&self, clock: &Clock) -> u32 {
        let first = |(track, listed): (usize, &VecDeque<(u32, u32)>)| {
            let done = clock.of(track);
            let at = listed.partition_point(|(number, _)| *number <= done);
            listed.get(at).map(|(_, stamp)| *stamp)
        };
        let firsts = self.tracks.iter().enumerate().filter_map(first);
        firsts.min().unwrap_or(u32::MAX)
    }
}

/// An operation while it is done, as memory sees it.
pub(super) struct Doing<'a> {
    log: RwLockReadGuard<'a, Log>,
    pub stamp: u32,
    clock: Arc<Clock>,
    /// All stamps before this one happen before the operation.
    ordered_below: u32,
}

impl<'a> Doing<'a> {
    pub fn new(log: RwLockReadGuard<'a, Log>, Stamp(stamp): Stamp) -> Self {
        let clock = log.entry(stamp).map(|entry| entry.clock.clone());
        let ordered_below = clock
            .as_ref()
            .map_or(u32::MAX, |clock| log.first_after(clock));
        Self {
            log,
            stamp,
            clock: clock.unwrap_or_default(),
            ordered_below,
        }
    }

    /// Whether an operation happens before this one, or is this one.
    #[inline]
    pub fn follows(&self, stamp: u32) -> bool {
        stamp < self.ordered_below || stamp == self.stamp || self.follows_one(stamp)
    }

    #[cold]
    fn follows_one(&self, stamp: u32) -> bool {
        let entry = self.log.entry(stamp);
        entry.is_none_or(|entry| self.clock.of(entry.track) >= entry.number)
    }

    /// Its place among others; nothing for the host, which no operation needs to be told from.
    pub fn entry(&self) -> Option<&Entry> {
        self.log.entry(self.stamp)
    }

    /// How an operation is called.
    pub fn name(&self, stamp: u32) -> String {
        match self.log.entry(stamp) {
            Some(entry) => format!("{} in {}", entry.what, entry.place),
            None => "the host".into(),
        }
    }

    /// This operation does `this` to what `other`, which nothing orders before or after it, did `that` to.
    #[cold]
    pub fn unordered(&self, this: &'static str, other: u32, that: &'static str) -> Box<What> {
        Box::new(What::Unordered {
            this: format!("{} {this}", self.name(self.stamp)),
            other: format!("{} {that}", self.name(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::RwLock;

    fn entry(track: usize, number: u32, knows: &[(usize, u32)]) -> Entry {
        let mut clock = Clock::default();
        for (track, number) in knows {
            clock.set(*track, *number);
        }
        clock.set(track, number);
        Entry {
            what: "a fill".into(),
            place: format!("stream {track}").into(),
            track,
            number,
            clock: Arc::new(clock),
        }
    }

    #[test]
    fn an_operation_follows_what_its_clock_has_reached_and_nothing_else() {
        let log = RwLock::new(Log::default());
        let begin = |track, number, knows: &[_]| {
            let mut log = log.write().unwrap();
            log.begin(entry(track, number, knows))
        };
        let first = begin(0, 1, &[]);
        let beside = begin(1, 1, &[]);
        let second = begin(0, 2, &[]);
        let joined = begin(0, 3, &[(1, 1)]);
        let follows = |later: Stamp, earlier: Stamp| {
            Doing::new(log.read().unwrap(), later).follows(earlier.0)
        };
        assert!(follows(second, first) && follows(second, second));
        assert!(!follows(second, beside) && !follows(beside, first) && !follows(first, beside));
        assert!(follows(joined, beside) && follows(joined, first));
        // Given to the card later, and no later for that.
        assert!(!follows(beside, second) && !follows(first, second));
        let by_host = log.write().unwrap().begin_by_host();
        assert!(follows(by_host, joined) && follows(joined, by_host));
    }

    #[test]
    fn what_the_host_has_seen_done_is_forgotten() {
        let mut log = Log::default();
        let first = log.begin(entry(0, 1, &[]));
        let beside = log.begin(entry(1, 1, &[]));
        log.begin(entry(0, 2, &[]));
        let mut host = Clock::default();
        host.set(0, 2);
        log.forget(&host);
        assert!(log.entry(first.0).is_none() && log.entry(beside.0).is_some());
        host.set(1, 1);
        log.forget(&host);
        assert!(log.list.is_empty() && log.tracks.iter().all(VecDeque::is_empty));
        assert_eq!(log.begin(entry(0, 3, &[])), Stamp(4));
    }
}
