//! The keys of one shard: their events, the facts last derived from them, and when to look again.
//!
//! Stands behind `Sessions`, which sends each key to one shard; a shard knows no other.
//!
//! Invariant: after `step`, every key's facts are those of its events at the watermark of that step.
//! Invariant: a key in memory has exactly one entry in `due`, at or before the watermark at which its
//! facts change by themselves or it may leave.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::pieces::Piece;
use super::timeline::{self, SessionFacts};
use super::{EventDetail, FactChanges, KeyedEvent, Readings, SessionEvent, SessionSettings};
use crate::event::EventKind;

/// Events kept of one key: a day of heartbeats every 5 s, with room. The earliest are kept, so that
/// the choice does not depend on the order of arrival.
pub const KEY_EVENTS_MAX: usize = 20_000;

/// How much longer than the idle gap a closed key stays, so that a little lateness costs no read from
/// the lake.
const EVICTION_SLACK_MS: i64 = 5 * 60_000;

/// How many of the newest details are searched for an equal one. A player alternates between few.
const DETAILS_SEARCHED: usize = 8;

/// Details that no event uses any more are cleared away past this many: events that others pushed out
/// leave theirs behind.
const UNUSED_DETAILS_MAX: usize = 64;

/// An event as a key keeps it; `detail` is its place in the key's details.
#[derive(Debug, Clone)]
pub struct Kept {
    pub event_id: u128,
    pub event_ts_ms: i64,
    pub seq: Option<i64>,
    pub playhead_ms: Option<i64>,
    /// Boxed, since the reference player sends none.
    pub readings: Option<Box<Readings>>,
    pub kind: EventKind,
    /// Its number put it before an event of an earlier time (`order`); false as stored.
    pub is_mended: bool,
    pub detail: u32,
}

impl Kept {
    /// The canonical order. Without a sequence number, an instant's events are taken in the order of
    /// their kinds: a request before the frame, a pause before the end.
    fn order(&self, other: &Kept) -> Ordering {
        (self.event_ts_ms, self.seq, self.kind, self.event_id).cmp(&(other.event_ts_ms, other.seq, other.kind, other.event_id))
    }
}

/// The events of one key in canonical order, each id once.
#[derive(Debug, Default)]
pub struct KeyEvents {
    pub events: Vec<Kept>,
    pub details: Vec<EventDetail>,
    /// True once an event was left out for `KEY_EVENTS_MAX`.
    pub capped: bool,
    /// Newest event time seen, kept or not.
    newest_ms: Option<i64>,
}

impl KeyEvents {
    /// Says whether the facts may change by it.
    pub fn insert(&mut self, event: SessionEvent) -> bool {
        self.newest_ms = self.newest_ms.max(Some(event.event_ts_ms));
        let mut kept = Kept {
            event_id: event.event_id,
            event_ts_ms: event.event_ts_ms,
            seq: event.seq,
            playhead_ms: event.playhead_ms,
            readings: event.readings,
            kind: event.kind,
            is_mended: false,
            detail: 0,
        };
        if let Some(at) = self.events.iter().position(|old| old.event_id == kept.event_id) {
            // The same id at another time: the earlier one stands, whichever came first.
            if kept.order(&self.events[at]) != Ordering::Less {
                return false;
            }
            self.events.remove(at);
        }
        if self.events.len() >= KEY_EVENTS_MAX && !self.make_room(&kept) {
            return !std::mem::replace(&mut self.capped, true);
        }
        if self.details.len() > 2 * self.events.len() + UNUSED_DETAILS_MAX {
            self.compact_details();
        }
        kept.detail = self.intern(event.detail);
        self.place(kept);
        true
    }

    /// Drops the last event if `kept` comes before it.
    fn make_room(&mut self, kept: &Kept) -> bool {
        let comes_last = self.events.last().is_some_and(|last| last.order(kept) == Ordering::Less);
        if comes_last {
            return false;
        }
        self.events.pop();
        self.capped = true;
        true
    }

    fn place(&mut self, kept: Kept) {
        let appends = self.events.last().is_none_or(|last| last.order(&kept) == Ordering::Less);
        if appends {
            self.events.push(kept);
            return;
        }
        let at = self.events.partition_point(|old| old.order(&kept) == Ordering::Less);
        self.events.insert(at, kept);
    }

    fn intern(&mut self, mut detail: EventDetail) -> u32 {
        let searched = self.details.len().saturating_sub(DETAILS_SEARCHED);
        for (at, known) in self.details.iter().enumerate().skip(searched).rev() {
            if detail.segments == known.segments {
                detail.segments = Arc::clone(&known.segments);
                if detail == *known {
                    return at as u32;
                }
            }
        }
        self.details.push(detail);
        (self.details.len() - 1) as u32
    }

    /// Forgets details that no event uses any more.
    fn compact_details(&mut self) {
        let old = std::mem::take(&mut self.details);
        let mut places: HashMap<u32, u32> = HashMap::new();
        for event in &mut self.events {
            event.detail = *places.entry(event.detail).or_insert_with(|| {
                self.details.push(old[event.detail as usize].clone());
                (self.details.len() - 1) as u32
            });
        }
    }
}

struct KeyState {
    key: Arc<str>,
    events: KeyEvents,
    facts: Vec<SessionFacts>,
    /// When this key stands in `Shard::due`.
    due_ms: Option<i64>,
    /// An earlier event may continue a session that is in the lake and not in memory. `None`: none can.
    complete_from_ms: Option<i64>,
    touched: bool,
}

impl KeyState {
    fn new(session_key: &str, complete_from_ms: Option<i64>) -> Self {
        Self {
            key: Arc::from(session_key),
            events: KeyEvents::default(),
            facts: Vec::new(),
            due_ms: None,
            complete_from_ms,
            touched: false,
        }
    }
}

/// A part of the keys.
pub struct Shard {
    settings: SessionSettings,
    keys: HashMap<Arc<str>, KeyState>,
    /// The first watermark that may change a key's facts or send it out, and the key.
    due: BTreeSet<(i64, Arc<str>)>,
    evicted_through_ms: Option<i64>,
    open_sessions: usize,
    events: usize,
}

impl Shard {
    pub fn new(settings: SessionSettings) -> Self {
        Self {
            settings,
            keys: HashMap::new(),
            due: BTreeSet::new(),
            evicted_through_ms: None,
            open_sessions: 0,
            events: 0,
        }
    }

    /// Whether everything that an event of this key and time could continue is in memory, for an
    /// event that is older than the last eviction.
    pub fn holds_history(&self, session_key: &str, event_ts_ms: i64) -> bool {
        let Some(state) = self.keys.get(session_key) else {
            return false;
        };
        state.complete_from_ms.is_none_or(|ms| event_ts_ms >= ms)
    }

    pub fn evicted_through(&self) -> Option<i64> {
        self.evicted_through_ms
    }

    pub fn open_sessions(&self) -> usize {
        self.open_sessions
    }

    pub fn events(&self) -> usize {
        self.events
    }

    /// Takes events whose rows are already written: all of the key from `loaded_from_ms` on.
    pub fn load(&mut self, session_key: &str, events: Vec<SessionEvent>, loaded_from_ms: Option<i64>, watermark_ms: Option<i64>) {
        // Of a key that comes to memory by this, nothing is held before.
        let state = state_of(&mut self.keys, session_key, Some(i64::MAX));
        // What was not loaded reaches one idle gap into what was.
        let reached_ms = loaded_from_ms.map(|ms| ms.saturating_add(self.settings.idle_gap_ms));
        // `None` is the least of all: it stands for the whole history, and stays.
        state.complete_from_ms = state.complete_from_ms.min(reached_ms);
        for event in events {
            let before = state.events.events.len();
            state.events.insert(event);
            self.events += state.events.events.len() - before;
        }
        let key = Arc::clone(&state.key);
        self.derive(&key, watermark_ms);
    }

    /// Takes new events, writes the keys of `rewrite` anew, and moves on to the watermark.
    pub fn step(
        &mut self,
        events: Vec<KeyedEvent>,
        rewrite: Vec<String>,
        watermark_ms: Option<i64>,
        evicted_through_ms: Option<i64>,
    ) -> FactChanges {
        let mut touched = self.take(events, evicted_through_ms);
        self.take_due(watermark_ms, &mut touched);
        let rewritten: HashSet<String> = rewrite.into_iter().collect();
        for session_key in &rewritten {
            if let Some(state) = self.keys.get_mut(session_key.as_str()) {
                touch(state, &mut touched);
            }
        }
        let mut changes = FactChanges::default();
        for key in touched {
            let mut before = self.derive(&key, watermark_ms);
            if rewritten.contains(&*key) {
                before.clear();
            }
            if let Some(state) = self.keys.get_mut(&key) {
                state.touched = false;
                compare(&before, &state.facts, &mut changes);
            }
            self.evict_if_over(&key, watermark_ms);
        }
        changes.rewritten_keys.extend(rewritten);
        changes
    }

    /// Stores the events; returns the keys that they change.
    fn take(&mut self, events: Vec<KeyedEvent>, evicted_through_ms: Option<i64>) -> Vec<Arc<str>> {
        let mut touched = Vec::new();
        for keyed in events {
            let state = state_of(&mut self.keys, &keyed.session_key, evicted_through_ms);
            let before = state.events.events.len();
            if state.events.insert(keyed.event) {
                touch(state, &mut touched);
            }
            self.events += state.events.events.len() - before;
        }
        touched
    }

    /// Touches the keys whose time has come.
    fn take_due(&mut self, watermark_ms: Option<i64>, touched: &mut Vec<Arc<str>>) {
        let Some(watermark_ms) = watermark_ms else {
            return;
        };
        let is_due = |first: Option<&(i64, Arc<str>)>| first.is_some_and(|f| f.0 <= watermark_ms);
        while is_due(self.due.first()) {
            let Some((_, key)) = self.due.pop_first() else {
                return;
            };
            if let Some(state) = self.keys.get_mut(&key) {
                state.due_ms = None;
                touch(state, touched);
            }
        }
    }

    /// Derives a key's facts and returns those that stood before.
    fn derive(&mut self, key: &Arc<str>, watermark_ms: Option<i64>) -> Vec<SessionFacts> {
        let Some(state) = self.keys.get_mut(key) else {
            return Vec::new();
        };
        let facts = timeline::derive(key, &state.events, &state.facts, watermark_ms, &self.settings);
        let before = std::mem::replace(&mut state.facts, facts);
        self.open_sessions += count_open(&state.facts);
        self.open_sessions -= count_open(&before);
        self.schedule(key);
        before
    }

    /// Makes sure that the key is looked at in time. An entry that has become too early stays: looking
    /// once in vain is cheaper than moving it with every event.
    fn schedule(&mut self, key: &Arc<str>) {
        let Some(state) = self.keys.get_mut(key) else {
            return;
        };
        let change_ms = state.facts.iter().filter_map(|facts| facts.changes_after_ms).min();
        let stay_ms = stay_ms(&self.settings);
        let newest_ms = state.events.newest_ms;
        let leave_ms = newest_ms.map(|newest_ms| newest_ms.saturating_add(stay_ms));
        // A key that was loaded in vain leaves with the next step.
        let after_ms = change_ms.or(leave_ms).unwrap_or(i64::MIN);
        let due_ms = after_ms.saturating_add(1);
        match state.due_ms {
            Some(standing_ms) if standing_ms <= due_ms => return,
            Some(standing_ms) => {
                self.due.remove(&(standing_ms, Arc::clone(key)));
            }
            None => {}
        }
        state.due_ms = Some(due_ms);
        self.due.insert((due_ms, Arc::clone(key)));
    }

    fn evict_if_over(&mut self, key: &Arc<str>, watermark_ms: Option<i64>) {
        let Some(state) = self.keys.get(key) else {
            return;
        };
        if let Some(newest_ms) = state.events.newest_ms {
            let leaves_after_ms = newest_ms.saturating_add(stay_ms(&self.settings));
            if watermark_ms <= Some(leaves_after_ms) || count_open(&state.facts) > 0 {
                return;
            }
            // An event up to one idle gap after the last one would continue its session.
            let reachable_ms = newest_ms.saturating_add(self.settings.idle_gap_ms + 1);
            self.evicted_through_ms = self.evicted_through_ms.max(Some(reachable_ms));
        }
        self.events -= state.events.events.len();
        if let Some(due_ms) = state.due_ms {
            self.due.remove(&(due_ms, Arc::clone(key)));
        }
        self.keys.remove(key);
    }
}

fn state_of<'a>(keys: &'a mut HashMap<Arc<str>, KeyState>, session_key: &str, complete_from_ms: Option<i64>) -> &'a mut KeyState {
    if !keys.contains_key(session_key) {
        let state = KeyState::new(session_key, complete_from_ms);
        keys.insert(Arc::clone(&state.key), state);
    }
    keys.get_mut(session_key).expect("the key was there or has just been put there")
}

fn touch(state: &mut KeyState, touched: &mut Vec<Arc<str>>) {
    if !std::mem::replace(&mut state.touched, true) {
        touched.push(Arc::clone(&state.key));
    }
}

/// How long a closed key stays in memory after its newest event.
fn stay_ms(settings: &SessionSettings) -> i64 {
    settings.idle_gap_ms + EVICTION_SLACK_MS
}

fn count_open(facts: &[SessionFacts]) -> usize {
    facts.iter().filter(|facts| facts.session.is_open).count()
}

/// Adds the row differences of one key.
fn compare(before: &[SessionFacts], after: &[SessionFacts], changes: &mut FactChanges) {
    pair(before, after, SessionFacts::row_key, |old, new| {
        compare_session(old, new, changes);
    });
}

fn compare_session(before: Option<&SessionFacts>, after: Option<&SessionFacts>, changes: &mut FactChanges) {
    let (old, new) = (before.map(|f| &f.session), after.map(|f| &f.session));
    if old != new {
        let removed = old.map(|row| (row.session_id.clone(), row.started_at_ms));
        changes.sessions_removed.extend(removed);
        changes.sessions_added.extend(new.cloned());
    }
    let same_segments = old.map(|row| &row.segments) == new.map(|row| &row.segments);
    let old_pieces = before.map_or(&[][..], |facts| &facts.pieces);
    let new_pieces = after.map_or(&[][..], |facts| &facts.pieces);
    let start_of = |piece: &Piece| piece.start_ms;
    pair(old_pieces, new_pieces, start_of, |old_piece, new_piece| {
        if same_segments && old_piece == new_piece {
            return;
        }
        if let (Some(row), Some(piece)) = (old, old_piece) {
            let removed = (row.session_id.clone(), piece.start_ms);
            changes.intervals_removed.push(removed);
        }
        if let (Some(facts), Some(piece)) = (after, new_piece) {
            changes.intervals_added.push(facts.interval(piece));
        }
    });
}

/// Walks two lists that are sorted by the same key, and hands out what has the same key together.
fn pair<'a, T, K: Ord>(before: &'a [T], after: &'a [T], key_of: impl Fn(&'a T) -> K, mut visit: impl FnMut(Option<&'a T>, Option<&'a T>)) {
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => key_of(old).cmp(&key_of(new)),
        };
        let gone = if order.is_le() { old.next() } else { None };
        let come = if order.is_ge() { new.next() } else { None };
        visit(gone, come);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fixtures::{T0, script, stored};

    /// Kinds of the stored events, in order.
    fn check(text: &str, expected: &[EventKind]) {
        let mut events = script(text);
        for _ in 0..2 {
            let kinds: Vec<EventKind> = stored(events.clone()).events.iter().map(|e| e.kind).collect();
            assert_eq!(kinds, expected, "\n{text}");
            events.reverse();
        }
    }

    #[test]
    fn the_canonical_order_is_time_then_sequence_then_kind() {
        use EventKind::*;
        check("2 heartbeat\n1 playback_start", &[PlaybackStart, Heartbeat]);
        check("1 playback_start\n1 playback_request", &[PlaybackRequest, PlaybackStart]);
        check(
            "1 playback_start seq=1\n1 playback_request seq=2\n1 custom",
            &[Custom, PlaybackStart, PlaybackRequest],
        );
    }

    #[test]
    fn an_id_sent_again_with_another_time_counts_once_at_the_earlier() {
        let mut events = script("5 heartbeat\n3 heartbeat\n9 heartbeat");
        for event in &mut events {
            event.event_id = 7;
        }
        for _ in 0..events.len() {
            let store = stored(events.clone());
            assert_eq!(store.events.len(), 1);
            assert_eq!(store.events[0].event_ts_ms, T0 + 3_000);
            events.rotate_left(1);
        }
    }

    #[test]
    fn equal_details_are_kept_once_and_unused_ones_are_cleared() {
        let lines = (0..100).map(|n| format!("{n} heartbeat bps={} net=4g\n", 1 + n % 2));
        let text: String = lines.collect();
        let store = stored(script(&text));
        assert_eq!((store.events.len(), store.details.len()), (100, 2));
        let [first, second] = &store.details[..] else {
            panic!("two details");
        };
        assert!(Arc::ptr_eq(&first.segments, &second.segments));

        let mut store = KeyEvents::default();
        let lines = (0..1_000).map(|n| format!("{} heartbeat bps={n}\n", 1_000 - n));
        for mut event in script(&lines.collect::<String>()) {
            event.event_id = 7;
            store.insert(event);
        }
        assert_eq!(store.events.len(), 1);
        assert!(store.details.len() <= UNUSED_DETAILS_MAX + 2);
        assert_eq!(store.details[store.events[0].detail as usize].bitrate_bps, Some(999));
    }
}
