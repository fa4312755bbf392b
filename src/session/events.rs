//! The events of a key that are kept one by one: in canonical order, each id once.
//!
//! Stands below `shard`, which keeps one of these for every key, and above the rules, which read it.
//!
//! Invariant: what is kept does not depend on the order of arrival.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::timeline::Course;
use super::{EventDetail, Readings, SessionEvent};
use crate::event::EventKind;

/// Events kept of one key: a day of heartbeats every 5 s, with room. The earliest are kept, so that
/// the choice does not depend on the order of arrival.
pub const KEY_EVENTS_MAX: usize = 20_000;

/// How many of the newest details are searched for an equal one. A player alternates between few.
const DETAILS_SEARCHED: usize = 8;

/// Details that no event uses any more are cleared away past this many: events that others pushed out
/// leave theirs behind.
const UNUSED_DETAILS_MAX: usize = 64;

/// An event as a key keeps it; `detail` is its place in the key's details.
#[derive(Debug, Clone)]
pub struct Kept {
    pub event_id: u64,
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
    /// Without a place in the details.
    pub fn of(event: &SessionEvent) -> Self {
        Self {
            event_id: event.event_id,
            event_ts_ms: event.event_ts_ms,
            seq: event.seq,
            playhead_ms: event.playhead_ms,
            readings: event.readings.clone(),
            kind: event.kind,
            detail: 0,
            is_mended: false,
        }
    }

    /// The canonical order. Without a sequence number, an instant's events are taken in the order of
    /// their kinds: a request before the frame, a pause before the end.
    pub fn order(&self, other: &Kept) -> Ordering {
        (self.event_ts_ms, self.seq, self.kind, self.event_id).cmp(&(other.event_ts_ms, other.seq, other.kind, other.event_id))
    }
}

/// The events of one key that are not settled, in canonical order, each id once.
#[derive(Debug, Default)]
pub struct KeyEvents {
    pub events: Vec<Kept>,
    pub details: Vec<EventDetail>,
    /// How many events are settled.
    pub settled: usize,
    /// True once an event was left out for `KEY_EVENTS_MAX`.
    pub capped: bool,
}

impl KeyEvents {
    /// Says whether the facts may change by it.
    pub fn insert(&mut self, event: SessionEvent) -> bool {
        let mut kept = Kept::of(&event);
        if let Some(at) = self.events.iter().position(|old| old.event_id == kept.event_id) {
            // The same id at another time: the earlier one stands, whichever came first.
            if kept.order(&self.events[at]) != Ordering::Less {
                return false;
            }
            self.events.remove(at);
        }
        if self.settled + self.events.len() >= KEY_EVENTS_MAX && !self.make_room(&kept) {
            return !std::mem::replace(&mut self.capped, true);
        }
        if self.details.len() > 2 * self.events.len() + UNUSED_DETAILS_MAX {
            self.compact_details();
        }
        kept.detail = self.intern(event.detail);
        self.place(kept);
        true
    }

    /// Whether an event has its place behind all that are here.
    pub fn ends_before(&self, event: &SessionEvent) -> bool {
        let Some(last) = self.events.last() else {
            return true;
        };
        (last.event_ts_ms, last.seq, last.kind, last.event_id) < (event.event_ts_ms, event.seq, event.kind, event.event_id)
    }

    /// Drops the last event if `kept` comes before it.
    fn make_room(&mut self, kept: &Kept) -> bool {
        let comes_last = self.events.last().is_none_or(|last| last.order(kept) == Ordering::Less);
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

    /// Whether all events, the settled ones among them, have the same native session id or none has one.
    pub fn has_one_native_id(&self, settled: Option<&Course>) -> bool {
        let of_events = self.details.iter().map(|detail| &detail.native_session_id);
        let mut ids = settled.map(|course| &course.native_session_id).into_iter().chain(of_events);
        let first = ids.next();
        ids.all(|id| Some(id) == first)
    }

    /// Forgets the first events, which a checkpoint now stands for.
    pub fn settle(&mut self, events: usize) {
        self.events.drain(..events);
        self.events.shrink_to_fit();
        self.settled += events;
        self.compact_details();
    }

    /// Every event, to be inserted elsewhere.
    pub fn to_events(&self) -> Vec<SessionEvent> {
        let whole = |kept: &Kept| SessionEvent {
            event_id: kept.event_id,
            kind: kept.kind,
            event_ts_ms: kept.event_ts_ms,
            seq: kept.seq,
            playhead_ms: kept.playhead_ms,
            readings: kept.readings.clone(),
            detail: self.details[kept.detail as usize].clone(),
        };
        self.events.iter().map(whole).collect()
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
        self.details.shrink_to_fit();
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
