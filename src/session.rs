//! The session engine: player events in, changes of the session facts out.
//!
//! Stands between `privacy` (which gives an event its session key) and the silver tables of sessions
//! and intervals. Each key's events are kept in canonical order, and `timeline` derives the facts from
//! the whole set anew; what leaves here is the difference to what was derived before. Refused: a
//! machine that advances event by event, since it gives other rows when events come late.
//!
//! Invariant: folding all changes gives the rows of the event set at the last watermark, whatever the
//! order, the batching or the repetition of delivery.
//! Invariant: events leave memory only when no later event can reach their session without `missing`
//! naming the key.

mod boundary;
#[cfg(test)]
mod fixtures;
mod outlook;
mod pieces;
mod row;
mod segments;
mod shard;
mod timeline;
mod walk;

use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::event::facts::{PlaybackInterval, PlaybackSession, Segments};
use crate::event::{EventKind, PlayerEvent};
use shard::Shard;

/// Batches up to this size are applied on the calling thread: starting threads costs more.
const SINGLE_THREAD_EVENTS_MAX: usize = 4_096;

/// Settings of the session rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// A longer silence always starts a new session.
    pub idle_gap_ms: i64,
    /// Heartbeat interval of a session with fewer than two heartbeats.
    pub heartbeat_interval_ms: i64,
    /// A session without news is never closed earlier than this.
    pub timeout_floor_ms: i64,
    /// A stall that begins this soon after a seek was caused by it.
    pub post_seek_grace_ms: i64,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            idle_gap_ms: 30 * 60_000,
            heartbeat_interval_ms: 30_000,
            timeout_floor_ms: 90_000,
            post_seek_grace_ms: 1_000,
        }
    }
}

/// What the engine keeps of an event: no payload.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionEvent {
    pub event_id: u128,
    pub kind: EventKind,
    pub event_ts_ms: i64,
    pub seq: Option<i64>,
    pub playhead_ms: Option<i64>,
    pub detail: EventDetail,
}

/// The part of an event that is mostly equal from one to the next; a key keeps equal ones once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventDetail {
    pub native_session_id: Option<String>,
    pub duration_ms: Option<i64>,
    pub bitrate_bps: Option<i64>,
    pub stall_ms: Option<i64>,
    pub startup_ms: Option<i64>,
    pub seek_ms: Option<i64>,
    pub playback_rate: Option<f64>,
    /// `None`: the sender does not say.
    pub error_fatal: Option<bool>,
    pub error_code: Option<String>,
    pub end_reason: Option<&'static str>,
    pub background: Option<bool>,
    pub segments: Arc<Segments>,
}

impl From<&PlayerEvent> for SessionEvent {
    fn from(event: &PlayerEvent) -> Self {
        Self {
            event_id: event_id_of(&event.event_id),
            kind: event.kind.unwrap_or(EventKind::Custom),
            event_ts_ms: event.event_ts_ms,
            seq: event.seq,
            playhead_ms: event.playhead_ms,
            detail: EventDetail {
                native_session_id: native_session_id_of(event),
                duration_ms: event.duration_ms,
                bitrate_bps: event.bitrate_bps,
                stall_ms: event.stall_ms,
                startup_ms: event.startup_ms,
                seek_ms: event.seek_ms,
                playback_rate: event.playback_rate,
                error_fatal: event.error_fatal,
                error_code: event.error_codes.first().cloned(),
                end_reason: event.end_reason,
                background: event.background,
                segments: Arc::new(segments_of(event)),
            },
        }
    }
}

fn native_session_id_of(event: &PlayerEvent) -> Option<String> {
    let id = event.native_session_id.as_ref();
    id.filter(|id| !id.is_empty()).cloned()
}

fn event_id_of(text: &str) -> u128 {
    u128::from_str_radix(text, 16).unwrap_or_else(|_| xxh3_128(text.as_bytes()))
}

fn segments_of(event: &PlayerEvent) -> Segments {
    Segments {
        user_id: event.user_id.clone(),
        device_id: event.device_id.clone(),
        content_id: event.content_id.clone(),
        stream_type: event.stream_type.map(str::to_owned),
        app_name: event.app_name.clone(),
        app_version: event.app_version.clone(),
        player_name: event.player_name.clone(),
        player_version: event.player_version.clone(),
        device: event.device.clone(),
        network: event.network.clone(),
        cdn: event.cdn.clone(),
        connection_type: event.connection_type.clone(),
    }
}

/// An event and the key whose sessions it belongs to. Unattributed events are left out by the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyedEvent {
    pub session_key: String,
    pub event: SessionEvent,
}

impl From<&PlayerEvent> for KeyedEvent {
    fn from(event: &PlayerEvent) -> Self {
        Self {
            session_key: event.session_key.clone(),
            event: SessionEvent::from(event),
        }
    }
}

/// What changed in the silver tables of facts. Removals come before additions; every list is sorted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FactChanges {
    /// Session id and start of rows that are gone or replaced.
    pub intervals_removed: Vec<(String, i64)>,
    pub intervals_added: Vec<PlaybackInterval>,
    /// Session id and start of rows that are gone or replaced.
    pub sessions_removed: Vec<(String, i64)>,
    pub sessions_added: Vec<PlaybackSession>,
    /// Session keys whose every row goes, whatever it is, before the additions.
    pub rewritten_keys: Vec<String>,
}

impl FactChanges {
    fn append(&mut self, mut other: FactChanges) {
        self.intervals_removed.append(&mut other.intervals_removed);
        self.intervals_added.append(&mut other.intervals_added);
        self.sessions_removed.append(&mut other.sessions_removed);
        self.sessions_added.append(&mut other.sessions_added);
        self.rewritten_keys.append(&mut other.rewritten_keys);
    }

    fn sort(&mut self) {
        self.intervals_removed.sort_unstable();
        self.sessions_removed.sort_unstable();
        self.rewritten_keys.sort_unstable();
        self.intervals_added
            .sort_unstable_by(|a, b| (&a.session_id, a.start_ms, &a.session_key).cmp(&(&b.session_id, b.start_ms, &b.session_key)));
        self.sessions_added.sort_unstable_by(|a, b| {
            (&a.session_id, a.started_at_ms, &a.session_key).cmp(&(&b.session_id, b.started_at_ms, &b.session_key))
        });
    }
}

/// Every session that is open or closed so lately that an event may still reach it.
pub struct Sessions {
    shards: Vec<Shard>,
    watermark_ms: Option<i64>,
    /// What `restore_watermark` declared; evictions are counted by the shards.
    restored_ms: Option<i64>,
}

impl Sessions {
    /// `shards` is how many threads a large batch may use; 0 is taken as 1.
    pub fn new(settings: SessionSettings, shards: usize) -> Self {
        Self {
            shards: (0..shards.max(1)).map(|_| Shard::new(settings)).collect(),
            watermark_ms: None,
            restored_ms: None,
        }
    }

    /// Keys of these events whose earlier events may lie in the lake and are not in memory: the key is
    /// not, or the event is older than what was loaded of it. The caller loads them before it applies
    /// the events. Sorted, each once.
    pub fn missing(&self, events: &[KeyedEvent]) -> Vec<String> {
        let Some(evicted_through_ms) = self.evicted_through() else {
            return Vec::new();
        };
        let is_missing = |keyed: &&KeyedEvent| {
            let (key, event_ts_ms) = (&keyed.session_key, keyed.event.event_ts_ms);
            event_ts_ms < evicted_through_ms && !self.shards[self.shard_of(key)].holds_history(key, event_ts_ms)
        };
        let named = events.iter().filter(is_missing);
        let mut keys: Vec<&str> = named.map(|keyed| keyed.session_key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter().map(str::to_owned).collect()
    }

    /// Events of one key, from the lake, whose rows the lake already holds: every one at or after
    /// `loaded_from_ms`, however late, or with `None` every one. Loading them again changes nothing.
    ///
    /// What `missing` names is answered by a span from a day before the oldest event on: sessions are
    /// no longer than that. An event less than one idle gap after `loaded_from_ms`, or before it, has
    /// its key named again.
    pub fn load(&mut self, session_key: &str, events: Vec<SessionEvent>, loaded_from_ms: Option<i64>) {
        let shard = self.shard_of(session_key);
        self.shards[shard].load(session_key, events, loaded_from_ms, self.watermark_ms);
    }

    /// Takes new events and says which rows they change. An event id that its key already holds is
    /// ignored. `watermark_ms` is the event time up to which input is complete; a lower one than
    /// before is ignored.
    pub fn apply(&mut self, events: Vec<KeyedEvent>, watermark_ms: Option<i64>) -> FactChanges {
        self.step(events, &[], watermark_ms)
    }

    /// Like `apply` without events, but every row of these keys is written anew: after a crash between
    /// the two tables. A key must be in memory with its whole history (`load` with `None`), or rows that
    /// are not made from what is there are only removed.
    pub fn rewrite(&mut self, keys: &[String], watermark_ms: Option<i64>) -> FactChanges {
        self.step(Vec::new(), keys, watermark_ms)
    }

    /// Event time before which a key that is not in memory may have a history in the lake. It never
    /// goes back.
    pub fn evicted_through(&self) -> Option<i64> {
        let evicted_ms = self.shards.iter().filter_map(Shard::evicted_through).max();
        evicted_ms.max(self.restored_ms)
    }

    /// At start, before anything is loaded: everything older than `watermark_ms` counts as evicted.
    ///
    /// The caller then loads every key that has an event at or after `watermark_ms` less
    /// `SessionSettings::idle_gap_ms`, and the keys of sessions that the lake holds as open; older keys
    /// come when `missing` names them.
    pub fn restore_watermark(&mut self, watermark_ms: i64) {
        self.watermark_ms = self.watermark_ms.max(Some(watermark_ms));
        self.restored_ms = self.restored_ms.max(Some(watermark_ms));
    }

    pub fn open_sessions(&self) -> usize {
        self.shards.iter().map(Shard::open_sessions).sum()
    }

    pub fn events_in_memory(&self) -> usize {
        self.shards.iter().map(Shard::events).sum()
    }

    fn step(&mut self, events: Vec<KeyedEvent>, rewrite: &[String], watermark_ms: Option<i64>) -> FactChanges {
        self.watermark_ms = self.watermark_ms.max(watermark_ms);
        let (watermark_ms, evicted_ms) = (self.watermark_ms, self.evicted_through());
        let parallel = self.shards.len() > 1 && events.len() > SINGLE_THREAD_EVENTS_MAX;
        let work = self.split_work(events, rewrite);
        let shards = self.shards.iter_mut().zip(work);
        let mut changes = FactChanges::default();
        if !parallel {
            for (shard, (events, rewrite)) in shards {
                changes.append(shard.step(events, rewrite, watermark_ms, evicted_ms));
            }
            changes.sort();
            return changes;
        }
        std::thread::scope(|scope| {
            let running: Vec<_> = shards
                .map(|(shard, (events, rewrite))| scope.spawn(move || shard.step(events, rewrite, watermark_ms, evicted_ms)))
                .collect();
            for handle in running {
                match handle.join() {
                    Ok(done) => changes.append(done),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        changes.sort();
        changes
    }

    fn split_work(&self, events: Vec<KeyedEvent>, rewrite: &[String]) -> Vec<(Vec<KeyedEvent>, Vec<String>)> {
        let mut work = vec![(Vec::new(), Vec::new()); self.shards.len()];
        for key in rewrite {
            work[self.shard_of(key)].1.push(key.clone());
        }
        if self.shards.len() == 1 {
            work[0].0 = events;
            return work;
        }
        for keyed in events {
            work[self.shard_of(&keyed.session_key)].0.push(keyed);
        }
        work
    }

    fn shard_of(&self, session_key: &str) -> usize {
        (xxh3_64(session_key.as_bytes()) % self.shards.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::fixtures::{BIG_BUCK_BUNNY, NEWS_LIVE, OCEANS, T0, TEARS_OF_STEEL, script, stored};
    use super::shard::KEY_EVENTS_MAX;
    use super::*;
    use crate::event::facts::Outcome;

    /// The two silver tables as folding the changes leaves them, by session id and start.
    #[derive(Default, Debug, PartialEq)]
    struct Tables {
        intervals: BTreeMap<(String, i64), PlaybackInterval>,
        sessions: BTreeMap<(String, i64), PlaybackSession>,
    }

    impl Tables {
        fn fold(&mut self, changes: FactChanges) {
            let kept = |key: &String| !changes.rewritten_keys.contains(key);
            self.intervals.retain(|_, row| kept(&row.session_key));
            self.sessions.retain(|_, row| kept(&row.session_key));
            for id in changes.intervals_removed {
                assert!(self.intervals.remove(&id).is_some(), "no interval {id:?}");
            }
            for id in changes.sessions_removed {
                assert!(self.sessions.remove(&id).is_some(), "no session {id:?}");
            }
            for row in changes.intervals_added {
                let id = (row.session_id.clone(), row.start_ms);
                let before = self.intervals.insert(id, row);
                assert_eq!(before, None, "the interval was there");
            }
            for row in changes.sessions_added {
                let id = (row.session_id.clone(), row.started_at_ms);
                let before = self.sessions.insert(id, row);
                assert_eq!(before, None, "the session was there");
            }
        }

        /// What the rules say of all events at once.
        fn of(events: &[KeyedEvent], watermark_ms: Option<i64>) -> Tables {
            let mut by_key: BTreeMap<&str, Vec<SessionEvent>> = BTreeMap::new();
            for keyed in events {
                let of_key = by_key.entry(&keyed.session_key).or_default();
                of_key.push(keyed.event.clone());
            }
            let mut tables = Tables::default();
            let settings = SessionSettings::default();
            for (key, events) in by_key {
                let events = stored(events);
                for facts in timeline::derive(key, &events, &[], watermark_ms, &settings) {
                    tables.fold(FactChanges {
                        intervals_added: facts.pieces.iter().map(|p| facts.interval(p)).collect(),
                        sessions_added: vec![facts.session],
                        ..FactChanges::default()
                    });
                }
            }
            tables
        }
    }

    /// An engine with the lake that its caller keeps: missing keys are loaded as ingest does.
    struct Rig {
        sessions: Sessions,
        lake: BTreeMap<String, Vec<SessionEvent>>,
        tables: Tables,
    }

    impl Rig {
        fn new(shards: usize) -> Self {
            Self {
                sessions: Sessions::new(SessionSettings::default(), shards),
                lake: BTreeMap::new(),
                tables: Tables::default(),
            }
        }

        fn deliver(&mut self, batch: Vec<KeyedEvent>, watermark_ms: Option<i64>) {
            for key in self.sessions.missing(&batch) {
                let of_key = batch.iter().filter(|keyed| keyed.session_key == key);
                let oldest_ms = of_key.map(|keyed| keyed.event.event_ts_ms).min();
                self.load(&key, oldest_ms.expect("a missing key has an event"));
            }
            for keyed in &batch {
                let known = self.lake.entry(keyed.session_key.clone()).or_default();
                known.push(keyed.event.clone());
            }
            let changes = self.sessions.apply(batch, watermark_ms);
            self.tables.fold(changes);
        }

        /// Loads no more of a key than an event at `reached_ms` can continue, and all that is later.
        fn load(&mut self, key: &str, reached_ms: i64) {
            let idle_gap_ms = SessionSettings::default().idle_gap_ms;
            let mut known = self.lake.get(key).cloned().unwrap_or_default();
            known.sort_by_key(|event| std::cmp::Reverse(event.event_ts_ms));
            let mut from_ms = reached_ms - idle_gap_ms;
            for event in &known {
                if event.event_ts_ms >= from_ms {
                    from_ms = from_ms.min(event.event_ts_ms - idle_gap_ms);
                }
            }
            known.retain(|event| event.event_ts_ms >= from_ms);
            self.sessions.load(key, known, Some(from_ms));
        }

        /// Stops, and starts again as ingest does: with what the lake holds of the last idle gap.
        fn restart(&mut self, watermark_ms: i64) {
            let settings = SessionSettings::default();
            self.sessions = Sessions::new(settings, 2);
            self.sessions.restore_watermark(watermark_ms);
            let recent_ms = watermark_ms - settings.idle_gap_ms;
            for (key, events) in self.lake.clone() {
                let rows = &mut self.tables.sessions.values();
                let is_open = rows.any(|row| row.session_key == key && row.is_open);
                if is_open || events.iter().any(|event| event.event_ts_ms >= recent_ms) {
                    self.load(&key, recent_ms);
                }
            }
        }
    }

    fn keyed(session_key: &str, text: &str) -> Vec<KeyedEvent> {
        let events = script(text).into_iter();
        events
            .map(|event| KeyedEvent {
                session_key: session_key.to_owned(),
                event,
            })
            .collect()
    }

    fn reference() -> Vec<KeyedEvent> {
        let viewers = [("a", BIG_BUCK_BUNNY), ("b", TEARS_OF_STEEL), ("c", NEWS_LIVE), ("d", OCEANS)];
        viewers.into_iter().flat_map(|(key, text)| keyed(key, text)).collect()
    }

    #[test]
    fn the_reference_fixture_is_four_attempts_of_which_three_play() {
        let mut rig = Rig::new(2);
        rig.deliver(reference(), Some(T0 + 1_000_000));
        let rows: Vec<_> = rig.tables.sessions.values().collect();
        let mut startups: Vec<_> = rows.iter().filter_map(|row| row.startup_ms).collect();
        startups.sort_unstable();
        assert_eq!(rows.iter().map(|row| row.attempts).sum::<i64>(), 4);
        assert_eq!(rows.iter().map(|row| row.plays).sum::<i64>(), 3);
        assert_eq!(rows.iter().map(|row| row.stall_count).sum::<i64>(), 2);
        assert_eq!(rows.iter().map(|row| row.anomalies).sum::<i64>(), 1);
        assert_eq!(startups, [640, 900, 2_950]);
        assert_eq!(rig.sessions.open_sessions(), 0);
        assert_eq!(rig.sessions.events_in_memory(), 25);
    }

    #[test]
    fn only_rows_that_changed_leave_the_engine() {
        let mut sessions = Sessions::new(SessionSettings::default(), 1);
        let first = sessions.apply(keyed("k", "0 playback_request\n1 playback_start\n130 heartbeat"), None);
        assert_eq!((first.intervals_added.len(), first.sessions_added.len()), (4, 1));
        let next = sessions.apply(keyed("k", "140 heartbeat"), None);
        let id = &next.sessions_added[0].session_id;
        assert_eq!(next.intervals_removed, [(id.clone(), T0 + 120_000)]);
        assert_eq!(next.sessions_removed, [(id.clone(), T0)]);
        assert_eq!((next.intervals_added.len(), next.sessions_added.len()), (1, 1));
        let twice = keyed("k", "150 heartbeat");
        sessions.apply(twice.clone(), None);
        assert_eq!(sessions.apply(twice, None), FactChanges::default());
    }

    #[test]
    fn an_earlier_event_that_comes_late_renames_the_session() {
        let mut rig = Rig::new(1);
        rig.deliver(keyed("k", "5 playback_start\n70 heartbeat"), None);
        rig.deliver(keyed("k", "0 playback_request\n70 metadata"), None);
        let rows: Vec<_> = rig.tables.sessions.values().collect();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].started_at_ms, rows[0].startup_ms), (T0, Some(5_000)));
    }

    #[test]
    fn the_watermark_alone_closes_and_evicts() {
        let mut rig = Rig::new(3);
        rig.deliver(keyed("k", "0 playback_request\n1 playback_start"), None);
        let open = |rig: &Rig| (rig.sessions.open_sessions(), rig.sessions.events_in_memory());
        rig.deliver(Vec::new(), Some(T0 + 91_000));
        assert_eq!(open(&rig), (1, 2));
        rig.deliver(Vec::new(), Some(T0 + 91_001));
        assert_eq!(open(&rig), (0, 2));
        rig.deliver(Vec::new(), Some(T0 + 1_000 + 35 * 60_000));
        assert_eq!((open(&rig), rig.sessions.evicted_through()), ((0, 2), None));
        rig.deliver(Vec::new(), Some(T0 + 1_001 + 35 * 60_000));
        let reachable_ms = T0 + 1_001 + 30 * 60_000;
        assert_eq!((open(&rig), rig.sessions.evicted_through()), ((0, 0), Some(reachable_ms)));
        rig.deliver(Vec::new(), Some(T0));
        assert_eq!(rig.sessions.evicted_through(), Some(reachable_ms));

        let late = keyed("k", "30 heartbeat");
        assert_eq!(rig.sessions.missing(&late), ["k"]);
        rig.deliver(late, None);
        let rows: Vec<_> = rig.tables.sessions.values().collect();
        assert_eq!((rows.len(), rows[0].playing_ms), (1, 29_000));
        assert_eq!(open(&rig), (0, 3));
    }

    #[test]
    fn a_key_that_came_back_still_asks_for_its_older_history() {
        let mut rig = Rig::new(1);
        rig.deliver(keyed("k", "0 playback_request\n1 playback_start"), Some(T0 + 3_000_000));
        assert_eq!(rig.sessions.events_in_memory(), 0);
        let back = keyed("k", "2900 playback_request at=0");
        assert!(rig.sessions.missing(&back).is_empty());
        rig.deliver(back, None);
        let late = keyed("k", "600 heartbeat");
        assert_eq!(rig.sessions.missing(&late), ["k"]);
        rig.deliver(late, None);
        let playing_ms: Vec<_> = rig.tables.sessions.values().map(|row| row.playing_ms).collect();
        assert_eq!(playing_ms.iter().sum::<i64>(), 599_000);
        assert_eq!(playing_ms.len(), 2);
    }

    #[test]
    fn a_key_asks_again_for_what_is_older_than_what_was_loaded() {
        let mut sessions = Sessions::new(SessionSettings::default(), 1);
        sessions.restore_watermark(T0 + 36_000_000);
        let check = |sessions: &Sessions, at: &str, expected: bool| {
            let late = keyed("k", &format!("{at} heartbeat"));
            assert_eq!(!sessions.missing(&late).is_empty(), expected, "{at}");
        };
        check(&sessions, "18000", true);
        // From the fourth hour on: what lies before may reach half an hour further.
        sessions.load("k", script("18000 playback_start"), Some(T0 + 14_400_000));
        for (at, expected) in [("18000", false), ("16200", false), ("16199.999", true), ("0", true)] {
            check(&sessions, at, expected);
        }
        sessions.load("k", script("7200 playback_start"), Some(T0));
        for (at, expected) in [("16199.999", false), ("1800", false), ("1799.999", true)] {
            check(&sessions, at, expected);
        }
        sessions.load("k", Vec::new(), Some(T0 + 14_400_000));
        check(&sessions, "1800", false);
        check(&sessions, "1799.999", true);
        sessions.load("k", Vec::new(), None);
        check(&sessions, "-1000000", false);
        sessions.load("k", Vec::new(), Some(T0));
        check(&sessions, "-1000000", false);
        assert_eq!(sessions.events_in_memory(), 2);
    }

    #[test]
    fn a_late_event_before_what_was_loaded_meets_its_session() {
        let mut rig = Rig::new(1);
        rig.deliver(keyed("k", "0 playback_request\n1 playback_start\n5400 playback_start"), None);
        rig.deliver(Vec::new(), Some(T0 + 9_000_000));
        assert_eq!(rig.sessions.events_in_memory(), 0);
        rig.deliver(keyed("k", "7000 heartbeat"), None);
        assert_eq!(rig.sessions.events_in_memory(), 2, "the earlier session stays in the lake");
        let late = keyed("k", "30 heartbeat");
        assert_eq!(rig.sessions.missing(&late), ["k"]);
        rig.deliver(late, None);
        let rows: Vec<_> = rig.tables.sessions.values().collect();
        let mut totals: Vec<_> = rows.iter().map(|row| (row.started_at_ms - T0, row.playing_ms)).collect();
        totals.sort_unstable();
        assert_eq!(totals, [(0, 29_000), (5_400_000, 1_600_000)]);
    }

    #[test]
    fn rewriting_gives_every_row_of_a_key_and_removes_all_others() {
        let mut rig = Rig::new(2);
        rig.deliver(reference(), Some(T0 + 400_000));
        let expected = Tables::of(&reference(), Some(T0 + 400_000));
        rig.tables.sessions.clear();
        let keys: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let changes = rig.sessions.rewrite(&keys, Some(T0 + 400_000));
        assert_eq!(changes.rewritten_keys, keys);
        assert!(changes.intervals_removed.is_empty() && changes.sessions_removed.is_empty());
        rig.tables.fold(changes);
        assert_eq!(rig.tables, expected);
    }

    #[test]
    fn a_key_past_its_bound_keeps_the_earliest_events() {
        let of = |seconds: std::ops::Range<usize>| -> Vec<KeyedEvent> {
            let text: String = seconds.map(|s| format!("{s} heartbeat\n")).collect();
            keyed("k", &text)
        };
        let mut rig = Rig::new(1);
        rig.deliver(of(5..KEY_EVENTS_MAX + 5), None);
        let capped = |rig: &Rig| -> Vec<(i64, bool)> {
            let rows = rig.tables.sessions.values();
            rows.map(|row| (row.events, row.dq_flags.contains(&"events_capped"))).collect()
        };
        assert_eq!(capped(&rig), [(KEY_EVENTS_MAX as i64, false)]);
        rig.deliver(of(0..5), None);
        assert_eq!(capped(&rig), [(KEY_EVENTS_MAX as i64, true)]);
        assert_eq!(rig.sessions.events_in_memory(), KEY_EVENTS_MAX);
        let row = rig.tables.sessions.values().next().expect("one session");
        assert_eq!((row.started_at_ms, row.ended_at_ms), (T0, T0 + (KEY_EVENTS_MAX as i64 - 1) * 1_000));
    }

    #[test]
    fn big_batches_on_threads_give_what_one_thread_gives() {
        let mut events = Vec::new();
        for viewer in 0..500 {
            let key = format!("viewer-{viewer}");
            events.extend(keyed(&key, BIG_BUCK_BUNNY));
        }
        assert!(events.len() > SINGLE_THREAD_EVENTS_MAX);
        let mut one = Sessions::new(SessionSettings::default(), 1);
        let mut four = Sessions::new(SessionSettings::default(), 4);
        let watermark_ms = Some(T0 + 60_000);
        assert_eq!(one.apply(events.clone(), watermark_ms), four.apply(events, watermark_ms));
    }

    #[test]
    fn a_player_event_becomes_a_session_event_of_its_key() {
        let event = PlayerEvent {
            kind: Some(EventKind::Heartbeat),
            event_ts_ms: T0,
            event_id: "000000000000000000000000000000ff".to_owned(),
            session_key: "key".to_owned(),
            native_session_id: Some(String::new()),
            content_id: Some("BigBuckBunny".to_owned()),
            error_codes: vec!["E1".to_owned(), "E2".to_owned()],
            ..PlayerEvent::default()
        };
        let keyed = KeyedEvent::from(&event);
        assert_eq!(keyed.session_key, "key");
        assert_eq!(keyed.event.event_id, 255);
        assert_eq!(keyed.event.detail.native_session_id, None);
        assert_eq!(keyed.event.detail.error_code.as_deref(), Some("E1"));
        let content_id = &keyed.event.detail.segments.content_id;
        assert_eq!(content_id.as_deref(), Some("BigBuckBunny"));
    }

    fn any_length_ms() -> impl Strategy<Value = Option<i64>> {
        prop_oneof![
            3 => Just(None),
            4 => (0..20_000i64).prop_map(Some),
            1 => prop_oneof![Just(Some(-5)), Just(Some(T0))],
        ]
    }

    /// Mostly crowded into minutes, sometimes hours away, so that every boundary is crossed.
    fn any_time_ms() -> impl Strategy<Value = i64> {
        prop_oneof![
            6 => 0..180_000i64,
            2 => 0..7_200_000i64,
            1 => (0..200i64).prop_map(|half_hours| half_hours * 1_800_000),
        ]
    }

    fn any_event() -> impl Strategy<Value = KeyedEvent> {
        let place = (0..4usize, any_time_ms(), 0..EventKind::ALL.len(), any::<u64>());
        let lengths = (any_length_ms(), any_length_ms(), any_length_ms());
        let rest = (
            proptest::option::of(0..600_000i64),
            proptest::option::of(1..8_000_000i64),
            proptest::option::of(0.0..3.0f64),
            proptest::option::weighted(0.3, any::<bool>()),
            proptest::option::weighted(0.1, any::<bool>()),
            proptest::option::weighted(0.5, 0..3i64),
        );
        (place, lengths, rest).prop_map(|((key, time_ms, kind, id), (stall_ms, seek_ms, startup_ms), rest)| {
            let (playhead_ms, bitrate_bps, playback_rate, error_fatal, background, seq) = rest;
            // The last two keys have native ids; one of them has two, as no sender should.
            let native = match key {
                2 => Some("native".to_owned()),
                3 => (id % 3 != 0).then(|| format!("native-{}", id % 2)),
                _ => None,
            };
            let segments = Segments {
                content_id: (id % 4 == 0).then(|| "content".to_owned()),
                connection_type: (id % 5 == 0).then(|| format!("net-{}", id % 3)),
                ..Segments::default()
            };
            KeyedEvent {
                session_key: format!("key-{key}"),
                event: SessionEvent {
                    event_id: u128::from(id),
                    kind: EventKind::ALL[kind],
                    event_ts_ms: T0 + time_ms,
                    seq,
                    playhead_ms: playhead_ms.map(|ms| if ms < 200_000 { 0 } else { ms }),
                    detail: EventDetail {
                        native_session_id: native,
                        duration_ms: Some(600_000),
                        bitrate_bps,
                        stall_ms,
                        startup_ms,
                        seek_ms,
                        playback_rate,
                        error_fatal,
                        background,
                        segments: Arc::new(segments),
                        ..EventDetail::default()
                    },
                },
            }
        })
    }

    fn check_rows(tables: &Tables) {
        let mut sums: BTreeMap<(&str, i64), i64> = BTreeMap::new();
        let mut last: Option<&PlaybackInterval> = None;
        for row in tables.intervals.values() {
            assert!(row.start_ms < row.end_ms, "empty {row:?}");
            assert_eq!(row.start_ms.div_euclid(60_000), (row.end_ms - 1).div_euclid(60_000));
            if let Some(last) = last.filter(|last| last.session_id == row.session_id) {
                assert!(last.end_ms <= row.start_ms, "overlap {last:?} {row:?}");
            }
            let mut starts = tables.sessions.keys().rev();
            let owner = starts.find(|(id, at_ms)| *id == row.session_id && *at_ms <= row.start_ms);
            let (id, at_ms) = owner.expect("an interval belongs to a session");
            *sums.entry((id, *at_ms)).or_default() += row.end_ms - row.start_ms;
            last = Some(row);
        }
        for ((id, at_ms), row) in &tables.sessions {
            let sum_ms = sums.get(&(id.as_str(), *at_ms)).copied().unwrap_or(0);
            let total_ms = row.playing_ms
                + row.startup_wait_ms
                + row.stall_ms
                + row.stall_seek_ms
                + row.seek_wait_ms
                + row.paused_ms
                + row.background_ms;
            assert_eq!(total_ms, sum_ms, "totals are the sums of intervals: {row:?}");
            assert!(total_ms <= row.ended_at_ms - row.started_at_ms, "{row:?}");
            assert!(row.bitrate_known_ms <= row.media_ms);
            let open = i64::from(row.attempts == 1 && row.outcome == Outcome::Open);
            assert_eq!(row.attempts, row.plays + row.exits_before_start + row.start_failures + open);
            assert!(open == 0 || row.is_open, "{row:?}");
            assert_eq!(row.attempts == 0, row.outcome == Outcome::NoAttempt, "{row:?}");
            assert_eq!(row.is_open, row.end_reason.is_none());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn order_batching_and_repetition_do_not_matter(
            events in proptest::collection::vec(any_event(), 1..60),
            shuffled_by in any::<u64>(),
            batch in 1..12usize,
            watermark_s in 0..8_000i64,
        ) {
            let watermark_ms = Some(T0 + watermark_s * 1_000);
            let expected = Tables::of(&events, watermark_ms);
            check_rows(&expected);

            let mut delivered = [events.clone(), events].concat();
            delivered.sort_by_key(|keyed| {
                xxhash_rust::xxh3::xxh3_64_with_seed(&keyed.event.event_id.to_le_bytes(), shuffled_by)
            });
            let mut rig = Rig::new(2);
            for part in delivered.chunks(batch) {
                rig.deliver(part.to_vec(), None);
            }
            rig.deliver(Vec::new(), watermark_ms);
            prop_assert_eq!(rig.tables, expected);
        }

        #[test]
        fn late_events_and_restarts_do_not_matter(
            events in proptest::collection::vec(any_event(), 1..60),
            watermarks_s in proptest::collection::vec(0..20_000i64, 60),
            restart_at in 0..60usize,
        ) {
            let mut rig = Rig::new(2);
            let mut newest = None;
            for (index, keyed) in events.iter().enumerate() {
                newest = newest.max(Some(T0 + watermarks_s[index] * 1_000));
                rig.deliver(vec![keyed.clone()], newest);
                if let (true, Some(watermark_ms)) = (index == restart_at, newest) {
                    rig.restart(watermark_ms);
                }
                prop_assert_eq!(&rig.tables, &Tables::of(&events[..=index], newest));
            }
            check_rows(&rig.tables);
        }
    }
}
