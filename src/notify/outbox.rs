//! The outbox of one target: what to send next, and when.
//!
//! Stands between `watch`, which stores transitions and acknowledgements in the lake, and `notify`,
//! which sends. A lane is told what is undelivered and what became of each attempt; it sends
//! nothing, stores nothing and reads no clock.
//!
//! Invariant: of one alert, a message goes out only after every earlier one was delivered.
//! Invariant: an alert whose message is refused waits alone; a target that is away, or that takes
//! nothing from us, waits as a whole. Lanes do not know of each other, so no target holds up another.
//! Invariant: at most `UNACKNOWLEDGED_MAX` deliveries are not yet in the lake: a crash repeats no
//! more than these and the one in flight, with the same ids.
//! Invariant: what does not fit the bounds stays in the lake, is not forgotten, and is asked for once
//! the lane is empty.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ops::Bound;

use crate::alert::Fingerprint;

/// Messages of one target in memory; the rest wait in the lake. Ten thousand are an hour of the worst
/// night, and few enough to read back at a start.
pub const MESSAGES_MAX: usize = 10_000;
/// Bytes of messages of one target in memory: `MESSAGES_MAX` of the usual 2 KB, or 512 of the largest.
pub const BYTES_MAX: usize = 32 << 20;
/// Deliveries between two commits of acknowledgements, as many as one batch of SNS holds.
pub const UNACKNOWLEDGED_MAX: usize = 10;
/// First pause after a target was away; it doubles (alerts spec 2.4).
const PAUSE_FIRST_MS: i64 = 100;
/// Longest pause: a target that is back hears from us within a minute.
const PAUSE_LONGEST_MS: i64 = 60_000;
/// No refusal is asked about again sooner: somebody has to change something first.
const REFUSAL_PAUSE_MS: i64 = 60_000;
/// A target may ask for more patience than we would have, but not for more than this.
const RETRY_AFTER_MAX_MS: i64 = 3_600_000;
/// Nobody acts on what is older, and the lake still has it (alerts spec 2.3).
const AGE_MAX_MS: i64 = 7 * 86_400_000;

/// A message that a target has not taken yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<P> {
    pub event_id: String,
    pub fingerprint: Fingerprint,
    /// When it was stored.
    pub stored_at_ms: i64,
    /// Nobody may act on it later.
    pub expires_at_ms: Option<i64>,
    /// What the payload weighs in memory.
    pub bytes: usize,
    pub payload: P,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Delivered,
    /// The target is away or throttles: nothing more goes to it for a while, at least as long as it asks.
    Later {
        retry_after_ms: Option<i64>,
    },
    /// The target takes nothing from us: no such topic, no right, an address that is not allowed.
    TargetRefused,
    /// The target does not take this message. Other alerts go on.
    MessageRefused,
}

/// How an entry left the lane; a row of `ops.alert_events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// Undelivered for longer than anybody can use it.
    GivenUp,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Delivered => "delivered",
            Outcome::GivenUp => "given_up",
        }
    }
}

/// An entry that has left the lane and is to be acknowledged in the lake.
#[derive(Debug, Clone, PartialEq)]
pub struct Done<P> {
    pub entry: Entry<P>,
    pub outcome: Outcome,
    pub at_ms: i64,
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub enum Next<'l, P> {
    /// Send this, then say `answer`. `is_stale`: past its `expires_at`, to be marked as such.
    Send {
        entry: &'l Entry<P>,
        is_stale: bool,
    },
    /// Store `unacknowledged`, then say `acknowledged`.
    Acknowledge,
    /// Nothing can be sent before this instant.
    WaitUntil(i64),
    /// The lane is empty, and the lake holds more: hand it in with `refill`.
    Refill,
    Idle,
}

/// Messages of one alert, the oldest first.
#[derive(Debug)]
struct Queue<P> {
    entries: VecDeque<Entry<P>>,
    /// Place of the first entry among all of the lane; growing.
    places: VecDeque<u64>,
}

/// The outbox of one target.
#[derive(Debug)]
pub struct Lane<P> {
    queues: BTreeMap<Fingerprint, Queue<P>>,
    /// Alerts whose first message may go, the oldest message first.
    ready: BTreeSet<(u64, Fingerprint)>,
    /// Alerts whose first message was refused, with the time from which it may be tried again.
    refused: BTreeSet<(i64, Fingerprint)>,
    /// Ids in the lane or unacknowledged: nothing is taken in twice.
    ids: HashSet<String>,
    in_flight: Option<Fingerprint>,
    done: Vec<Done<P>>,
    next_place: u64,
    len: usize,
    bytes: usize,
    /// Pause after each delivery.
    pace_ms: i64,
    /// The target as a whole waits until then.
    paused_until_ms: i64,
    /// Attempts in a row that found the target away.
    misses: u32,
    /// Whose message was tried when the target was last found away: the next attempt is another's, so
    /// that a message that the target fails over holds up its own alert only.
    missed: Option<(u64, Fingerprint)>,
    has_more_in_lake: bool,
}

impl<P> Default for Lane<P> {
    fn default() -> Lane<P> {
        Lane {
            queues: BTreeMap::new(),
            ready: BTreeSet::new(),
            refused: BTreeSet::new(),
            ids: HashSet::new(),
            in_flight: None,
            done: Vec::new(),
            next_place: 0,
            len: 0,
            bytes: 0,
            pace_ms: 0,
            paused_until_ms: i64::MIN,
            misses: 0,
            missed: None,
            has_more_in_lake: false,
        }
    }
}

impl<P> Lane<P> {
    /// Takes in what is undelivered, in the order of the lake: by window end, start and seq.
    pub fn of(undelivered: impl IntoIterator<Item = Entry<P>>) -> Lane<P> {
        let mut lane = Lane::default();
        lane.extend(undelivered);
        lane
    }

    /// From now on there is this long between two deliveries: `Target::pace_ms`.
    pub fn set_pace_ms(&mut self, pace_ms: i64) {
        self.pace_ms = pace_ms;
    }

    /// Takes in newly stored messages, in order. What does not fit stays in the lake.
    pub fn extend(&mut self, entries: impl IntoIterator<Item = Entry<P>>) {
        for entry in entries {
            self.push(entry);
        }
    }

    /// What the lake holds undelivered, after `Next::Refill`.
    pub fn refill(&mut self, undelivered: impl IntoIterator<Item = Entry<P>>) {
        self.has_more_in_lake = false;
        self.extend(undelivered);
    }

    fn push(&mut self, entry: Entry<P>) {
        if self.ids.contains(&entry.event_id) {
            return;
        }
        // Once one has stayed out, all later ones do: order is kept by reading them back together.
        let is_full = self.len >= MESSAGES_MAX || (self.len > 0 && self.bytes + entry.bytes > BYTES_MAX);
        if is_full || self.has_more_in_lake {
            self.has_more_in_lake = true;
            return;
        }
        let place = self.next_place;
        self.next_place += 1;
        self.len += 1;
        self.bytes += entry.bytes;
        self.ids.insert(entry.event_id.clone());
        let fingerprint = entry.fingerprint.clone();
        match self.queues.get_mut(&fingerprint) {
            Some(queue) => {
                queue.entries.push_back(entry);
                queue.places.push_back(place);
            }
            None => {
                let queue = Queue {
                    entries: VecDeque::from([entry]),
                    places: VecDeque::from([place]),
                };
                self.queues.insert(fingerprint.clone(), queue);
                self.ready.insert((place, fingerprint));
            }
        }
    }

    /// Messages that the target has not taken, as far as they are in memory.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when the lake holds messages that did not fit.
    pub fn has_more_in_lake(&self) -> bool {
        self.has_more_in_lake
    }

    /// Alerts whose first message is refused.
    pub fn refused_alerts(&self) -> usize {
        self.refused.len()
    }

    /// When the oldest message in memory was stored: the age of the outbox is a metric.
    pub fn oldest_stored_at_ms(&self) -> Option<i64> {
        let first = self.queues.values().filter_map(|queue| queue.entries.front());
        first.map(|entry| entry.stored_at_ms).min()
    }

    /// What to do now. An entry that was handed out and not answered is handed out again.
    pub fn next(&mut self, now_ms: i64) -> Next<'_, P> {
        if self.done.len() >= UNACKNOWLEDGED_MAX {
            return Next::Acknowledge;
        }
        self.release(now_ms);
        if now_ms >= self.paused_until_ms {
            self.give_up_old(now_ms);
            if self.done.len() >= UNACKNOWLEDGED_MAX {
                return Next::Acknowledge;
            }
            if let Some(fingerprint) = self.turn() {
                self.in_flight = Some(fingerprint.clone());
                let queue = self.queues.get(&fingerprint).expect("what is ready has a queue");
                let entry = queue.entries.front().expect("a queue is never empty");
                let is_stale = entry.expires_at_ms.is_some_and(|at_ms| now_ms > at_ms);
                return Next::Send { entry, is_stale };
            }
        }
        self.nothing_to_send()
    }

    /// Whose message is to be tried: the oldest, after a miss the oldest of those that come after.
    fn turn(&self) -> Option<Fingerprint> {
        let after = |missed: &(u64, Fingerprint)| {
            let later = (Bound::Excluded(missed.clone()), Bound::Unbounded);
            self.ready.range(later).next()
        };
        let turn = self.missed.as_ref().and_then(after).or(self.ready.first());
        turn.map(|(_, fingerprint)| fingerprint.clone())
    }

    fn nothing_to_send(&self) -> Next<'_, P> {
        if !self.done.is_empty() {
            return Next::Acknowledge;
        }
        if self.len == 0 {
            return if self.has_more_in_lake { Next::Refill } else { Next::Idle };
        }
        let first_refused = self.refused.first().map_or(i64::MAX, |(until_ms, _)| *until_ms);
        let alert_ms = if self.ready.is_empty() { first_refused } else { i64::MIN };
        Next::WaitUntil(alert_ms.max(self.paused_until_ms))
    }

    /// Alerts whose refusal is long enough ago.
    fn release(&mut self, now_ms: i64) {
        while let Some((until_ms, _)) = self.refused.first()
            && *until_ms <= now_ms
        {
            let (_, fingerprint) = self.refused.pop_first().expect("there is a first");
            self.make_ready(fingerprint);
        }
    }

    fn make_ready(&mut self, fingerprint: Fingerprint) {
        self.ready.extend(self.key_of(fingerprint));
    }

    /// An alert with the place of its first message.
    fn key_of(&self, fingerprint: Fingerprint) -> Option<(u64, Fingerprint)> {
        let place = *self.queues.get(&fingerprint)?.places.front()?;
        Some((place, fingerprint))
    }

    /// Leaves out what is too old for anybody, up to the bound of what may be unacknowledged.
    fn give_up_old(&mut self, now_ms: i64) {
        while self.done.len() < UNACKNOWLEDGED_MAX {
            let Some((_, fingerprint)) = self.ready.first().cloned() else {
                return;
            };
            let queue = &self.queues[&fingerprint];
            let is_old = |entry: &Entry<P>| now_ms.saturating_sub(entry.stored_at_ms) > AGE_MAX_MS;
            if !queue.entries.front().is_some_and(is_old) {
                return;
            }
            self.leave(&fingerprint, Outcome::GivenUp, now_ms);
        }
    }

    /// What became of the entry that `next` handed out. `jitter`: anything from 0 up to 1; it spreads
    /// the attempts of many daemons.
    pub fn answer(&mut self, answer: Answer, now_ms: i64, jitter: f64) {
        let Some(fingerprint) = self.in_flight.take() else { return };
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 1.0 };
        match answer {
            Answer::Delivered => {
                self.misses = 0;
                self.paused_until_ms = now_ms.saturating_add(self.pace_ms);
                self.leave(&fingerprint, Outcome::Delivered, now_ms);
            }
            Answer::Later { retry_after_ms } => {
                let pause_ms = pause_ms(self.misses, jitter).max(retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MAX_MS));
                self.misses = self.misses.saturating_add(1);
                self.paused_until_ms = now_ms.saturating_add(pause_ms);
                self.missed = self.key_of(fingerprint);
            }
            Answer::TargetRefused => self.paused_until_ms = now_ms.saturating_add(refusal_pause_ms(jitter)),
            Answer::MessageRefused => {
                self.misses = 0;
                if let Some(key) = self.key_of(fingerprint) {
                    self.ready.remove(&key);
                    self.refused.insert((now_ms.saturating_add(refusal_pause_ms(jitter)), key.1));
                }
            }
        }
    }

    /// Takes the first message of an alert out; the next one of the alert is ready.
    fn leave(&mut self, fingerprint: &Fingerprint, outcome: Outcome, at_ms: i64) {
        let Some(queue) = self.queues.get_mut(fingerprint) else { return };
        let (Some(entry), Some(place)) = (queue.entries.pop_front(), queue.places.pop_front()) else {
            return;
        };
        self.ready.remove(&(place, fingerprint.clone()));
        if queue.entries.is_empty() {
            self.queues.remove(fingerprint);
        } else {
            self.make_ready(fingerprint.clone());
        }
        self.len -= 1;
        self.bytes -= entry.bytes;
        self.done.push(Done { entry, outcome, at_ms });
    }

    /// What has left the lane and is not in the lake yet.
    pub fn unacknowledged(&self) -> &[Done<P>] {
        &self.done
    }

    /// The acknowledgements are in the lake.
    pub fn acknowledged(&mut self) {
        for done in self.done.drain(..) {
            self.ids.remove(&done.entry.event_id);
        }
    }
}

/// Full jitter under a ceiling that doubles.
fn pause_ms(misses: u32, jitter: f64) -> i64 {
    let doublings = misses.min(16);
    let ceiling_ms = (PAUSE_FIRST_MS << doublings).min(PAUSE_LONGEST_MS);
    // Never at once: an attempt that fails in no time would be made again without end.
    ((ceiling_ms as f64 * jitter) as i64).max(PAUSE_FIRST_MS / 10)
}

/// A minute and up to a tenth more.
fn refusal_pause_ms(jitter: f64) -> i64 {
    REFUSAL_PAUSE_MS + (REFUSAL_PAUSE_MS as f64 * jitter / 10.0) as i64
}

#[cfg(test)]
mod tests;
