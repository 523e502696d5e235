//! What the card was given and has not done: streams as queues, and what must be done before what.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::host_side::HostSide;
use super::operation::Operation;
use super::stream::StreamKey;
use crate::memory::{Clock, Entry, Memory, Stamp};
use crate::order::{Dice, Order};

/// Something to do, once.
pub enum Task {
    Do(Operation, When),
    /// Gives stream-ordered memory back.
    Free(u64),
    /// An event looks at the clock.
    Record(Arc<OnceLock<Instant>>),
    /// What only others wait for: allocations, waits, the ends of a graph.
    Nothing,
}

/// When an operation is done.
pub enum When {
    /// During the call, which then says what is wrong with a copy.
    AtOnce,
    /// Later; with the host's side of a copy.
    Queued(Option<HostSide>),
}

/// A place in the order of things, which others can wait for.
#[derive(Clone, Default)]
pub struct Point {
    /// Done if it is not queued any more.
    pub item: u64,
    /// What is done then.
    pub clock: Arc<Clock>,
}

pub struct Item {
    pub task: Task,
    pub stamp: Stamp,
    /// What happens before it.
    clock: Arc<Clock>,
    /// For reports.
    pub name: String,
    /// What must be done before; the stream's own comes first.
    follows: Vec<u64>,
    /// How many of them are not done yet.
    waits: usize,
    /// Who waits for this one.
    leads: Vec<u64>,
}

/// A stream, or a branch of a graph: one thing after the other.
struct Lane {
    track: usize,
    /// Operations so far.
    number: u32,
    end: Point,
    /// Whether it is in order with the legacy stream.
    blocking: bool,
}

/// A stream as the queue knows it.
#[derive(Clone)]
pub struct StreamRef {
    pub key: StreamKey,
    pub blocking: bool,
    pub name: Cow<'static, str>,
}

pub struct Queue {
    items: BTreeMap<u64, Item>,
    /// Those that could be done now.
    ready: Vec<u64>,
    given: u64,
    lanes: HashMap<StreamKey, Lane>,
    /// The last operation of every track.
    latest: Clock,
    tracks: usize,
    /// What the host has seen done.
    pub host: Clock,
    /// Events and streams whose last question was answered with no.
    denied: HashSet<usize>,
    /// Items that are being done.
    running: usize,
    order: Order,
    pub dice: Dice,
    /// Calls until the next change of `pace`.
    mood: usize,
    /// Up to how many things are done at a call.
    pace: usize,
}

/// Paces that a random order changes between: from a card that falls far behind to one that keeps up.
const PACES: [usize; 4] = [1, 2, 5, 17];
/// Calls that one of them lasts, at most.
const LONGEST_MOOD: usize = 96;

impl Queue {
    pub fn new(order: Order) -> Self {
        Self {
            items: BTreeMap::new(),
            ready: Vec::new(),
            given: 0,
            lanes: HashMap::new(),
            latest: Clock::default(),
            tracks: 0,
            host: Clock::default(),
            denied: HashSet::new(),
            running: 0,
            order,
            dice: Dice::new(order),
            mood: 0,
            pace: 1,
        }
    }

    /// Forgets all streams and everything that they were given; items and the dice go on.
    pub fn restart(&mut self) {
        let (dice, given) = (self.dice.clone(), self.given);
        *self = Self {
            dice,
            given,
            ..Self::new(self.order)
        };
    }

    /// What is left will never be done.
    pub fn give_up(&mut self) {
        self.items.clear();
        self.ready.clear();
    }

    /// Whether nothing is left to do, or being done.
    pub fn is_idle(&self) -> bool {
        self.items.is_empty() && self.running == 0
    }

    /// What everything knows that is still to be done, or to be given; nothing while something is being done.
    pub fn known(&self) -> Option<Clock> {
        let mut known = self.host.clone();
        self.items.values().for_each(|item| known.meet(&item.clock));
        (self.running == 0).then_some(known)
    }

    /// Adds something to the end of a stream; all of `after` must be done before, too. Operations (`what`) are noted.
    pub fn add(
        &mut self,
        memory: &Memory,
        into: &StreamRef,
        after: &[Point],
        what: Option<Cow<'static, str>>,
        task: Task,
    ) -> Point {
        let mut follows = vec![self.end_of(into.key)];
        follows.extend(self.in_order_with_legacy(into));
        follows.extend_from_slice(after);
        let mut clock = self.host.clone();
        follows.iter().for_each(|point| clock.join(&point.clock));
        let operation = what.map(|what| (what, self.count(into, &mut clock)));
        let clock = Arc::new(clock);
        let (stamp, name) = match operation {
            None => (Stamp::default(), into.name.to_string()),
            Some((what, (track, number))) => {
                let name = format!("{what} in {}", into.name);
                let entry = Entry {
                    what,
                    place: into.name.clone(),
                    track,
                    number,
                    clock: clock.clone(),
                };
                (memory.begin(entry), name)
            }
        };
        let item = self.push(task, (stamp, name), &clock, &follows);
        let end = Point { item, clock };
        self.lane(into).end = end.clone();
        end
    }

    /// One more operation of a stream: its track, and its number there, which its clock gets.
    fn count(&mut self, into: &StreamRef, clock: &mut Clock) -> (usize, u32) {
        let lane = self.lane(into);
        lane.number += 1;
        let (track, number) = (lane.track, lane.number);
        clock.set(track, number);
        self.latest.set(track, number);
        (track, number)
    }

    fn lane(&mut self, of: &StreamRef) -> &mut Lane {
        let fresh = self.tracks;
        self.tracks += usize::from(!self.lanes.contains_key(&of.key));
        self.lanes.entry(of.key).or_insert_with(|| Lane {
            track: fresh,
            number: 0,
            end: Point::default(),
            blocking: of.blocking,
        })
    }

    /// Work in the legacy stream waits for all blocking streams, and theirs for it.
    fn in_order_with_legacy(&self, into: &StreamRef) -> Vec<Point> {
        let others = self.lanes.iter().filter(|(key, lane)| match into.key {
            StreamKey::Legacy => lane.blocking && **key != StreamKey::Legacy,
            _ => into.blocking && **key == StreamKey::Legacy,
        });
        others.map(|(_, lane)| lane.end.clone()).collect()
    }

    fn push(
        &mut self,
        task: Task,
        (stamp, name): (Stamp, String),
        clock: &Arc<Clock>,
        follows: &[Point],
    ) -> u64 {
        self.given += 1;
        let id = self.given;
        let mut queued: Vec<u64> = Vec::new();
        for point in follows {
            if let Some(before) = self.items.get_mut(&point.item)
                && !queued.contains(&point.item)
            {
                before.leads.push(id);
                queued.push(point.item);
            }
        }
        if queued.is_empty() {
            self.ready.push(id);
        }
        let item = Item {
            task,
            stamp,
            clock: clock.clone(),
            name,
            waits: queued.len(),
            follows: queued,
            leads: Vec::new(),
        };
        self.items.insert(id, item);
        id
    }

    /// The end of a lane: everything that was given to it.
    pub fn end_of(&self, key: StreamKey) -> Point {
        self.lanes
            .get(&key)
            .map(|lane| lane.end.clone())
            .unwrap_or_default()
    }

    pub fn is_done(&self, point: &Point) -> bool {
        !self.items.contains_key(&point.item)
    }

    /// Whether the host is told that a point is not reached, which it can be as often as the card likes; but who
    /// asks again about the same event or stream is told the truth.
    pub fn denies(&mut self, asked: usize, point: &Point) -> bool {
        let no = match self.order {
            _ if self.is_done(point) => false,
            Order::Random(_) => self.dice.coin(),
            _ => !self.denied.contains(&asked),
        };
        if no {
            self.denied.insert(asked)
        } else {
            self.denied.remove(&asked)
        };
        no
    }

    /// The host has seen this done.
    pub fn seen(&mut self, clock: &Clock) {
        self.host.join(clock);
    }

    /// The host has seen everything done.
    pub fn seen_all(&mut self) {
        self.host.join(&self.latest);
    }

    /// Everything that is queued.
    pub fn all(&self) -> Vec<u64> {
        self.items.keys().copied().collect()
    }

    /// Queued frees, oldest first.
    pub fn frees(&self) -> Vec<u64> {
        let frees = self
            .items
            .iter()
            .filter(|(_, item)| matches!(item.task, Task::Free(_)));
        frees.map(|(id, _)| *id).collect()
    }

    /// What to do next so that an item gets done; nothing if it is.
    pub fn next_for(&mut self, wanted: u64) -> Option<u64> {
        match self.order {
            _ if !self.items.contains_key(&wanted) => None,
            Order::Random(_) => self.any_ready(),
            _ => Some(self.first_before(wanted)),
        }
    }

    /// Something that could be done now.
    pub fn any_ready(&mut self) -> Option<u64> {
        match self.ready.len() {
            0 => None,
            count => Some(self.ready[self.dice.below(count)]),
        }
    }

    /// What must be done first on the way to `target`: its own stream's work before that of others, so that
    /// they are as late as they can be.
    fn first_before(&self, target: u64) -> u64 {
        let mut at = target;
        let queued = |id: &&u64| self.items.contains_key(*id);
        while let Some(item) = self.items.get(&at)
            && let Some(before) = item.follows.iter().find(queued)
        {
            at = *before;
        }
        at
    }

    /// How many things the card does of its own while the host makes a call.
    pub fn draw(&mut self) -> usize {
        if !matches!(self.order, Order::Random(_)) || self.ready.is_empty() {
            return 0;
        }
        if self.mood == 0 {
            self.mood = 1 + self.dice.below(LONGEST_MOOD);
            self.pace = PACES[self.dice.below(PACES.len())];
        }
        self.mood -= 1;
        self.dice.below(self.pace)
    }

    /// Takes something to do it; `done` must follow.
    pub fn take(&mut self, id: u64) -> Option<Item> {
        self.ready.retain(|ready| *ready != id);
        let item = self.items.remove(&id);
        self.running += usize::from(item.is_some());
        item
    }

    /// Who waited for this item can go on.
    pub fn done(&mut self, item: &Item) {
        self.running -= 1;
        for id in &item.leads {
            if let Some(waiting) = self.items.get_mut(id) {
                waiting.waits -= 1;
                if waiting.waits == 0 {
                    self.ready.push(*id);
                }
            }
        }
    }

    /// Host memory that queued copies use, with the name of the copy.
    pub fn host_sides(&mut self) -> impl Iterator<Item = (&str, &mut HostSide)> {
        self.items
            .values_mut()
            .filter_map(|item| match &mut item.task {
                Task::Do(_, When::Queued(Some(side))) => Some((item.name.as_str(), side)),
                _ => None,
            })
    }

    /// Whether a function of the host's is queued, which may look at any of its memory.
    pub fn calls_host(&self) -> bool {
        let mut tasks = self.items.values().map(|item| &item.task);
        tasks.any(|task| matches!(task, Task::Do(Operation::Call { .. }, _)))
    }

    /// The operation of something that is queued.
    pub fn stamp_of(&self, point: &Point) -> Stamp {
        let item = self.items.get(&point.item);
        item.map(|item| item.stamp).unwrap_or_default()
    }

    /// Something that the host does itself, at once.
    pub fn begin_by_host(&mut self, memory: &Memory, what: &'static str) -> Stamp {
        let into = StreamRef {
            key: StreamKey::Host,
            blocking: false,
            name: "the host".into(),
        };
        let point = self.add(memory, &into, &[], Some(what.into()), Task::Nothing);
        let stamp = self.stamp_of(&point);
        if let Some(item) = self.take(point.item) {
            self.done(&item);
        }
        self.seen(&point.clock);
        stamp
    }

    pub fn order(&self) -> Order {
        self.order
    }
}
