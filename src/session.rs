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
mod causes;
mod checkpoint;
mod events;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod fold_tests;
#[cfg(test)]
mod laws;
mod order;
mod outlook;
mod packed;
mod parts;
mod pieces;
#[cfg(test)]
mod rig;
mod row;
pub mod score;
mod screen;
mod segments;
mod shard;
mod shelves;
mod slots;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
mod timeline;
mod units;
#[cfg(test)]
mod vectors;
mod walk;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::event::facts::{PlaybackInterval, PlaybackSession, Segments};
use crate::event::names::Name;
use crate::event::{ErrorClass, EventKind, PlayerEvent, ReportedState};
use shard::{Folding, Shard};
pub use snapshot::{Restored, SnapshotError};

/// Batches up to this size are applied on the calling thread: starting threads costs more.
const SINGLE_THREAD_EVENTS_MAX: usize = 4_096;

/// Settings of the session rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSettings {
    /// A longer silence always starts a new session.
    pub idle_gap_ms: i64,
    /// Heartbeat interval of a session with fewer than two heartbeats. Of others it is the median of
    /// their first nine gaps between heartbeats.
    pub heartbeat_interval_ms: i64,
    /// A session without news is never closed earlier than this.
    pub timeout_floor_ms: i64,
    /// A stall that begins this soon after a seek was caused by it.
    pub post_seek_grace_ms: i64,
    /// Time in the background counts as any other, as it does for audio.
    pub count_background: bool,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            idle_gap_ms: 30 * 60_000,
            heartbeat_interval_ms: 30_000,
            timeout_floor_ms: 90_000,
            post_seek_grace_ms: 1_000,
            count_background: false,
        }
    }
}

/// What the engine keeps of an event: no payload.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionEvent {
    /// The first 64 bits of the event's id: enough to tell the events of one key apart.
    pub event_id: u64,
    pub kind: EventKind,
    pub event_ts_ms: i64,
    pub seq: Option<i64>,
    pub playhead_ms: Option<i64>,
    pub readings: Option<Box<Readings>>,
    pub detail: EventDetail,
}

/// The part of an event that differs from one report to the next. `None` where an event has none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readings {
    pub buffer_ms: Option<i64>,
    pub buffer_video_ms: Option<i64>,
    pub buffer_audio_ms: Option<i64>,
    pub played_ms: Option<i64>,
    /// How many stalls `EventDetail::stall_ms` adds up.
    pub stall_count: Option<i64>,
    pub stall_count_total: Option<i64>,
    pub stall_total_ms: Option<i64>,
    pub dropped_frames_total: Option<i64>,
}

impl Readings {
    /// All of them, in a fixed order.
    fn to_array(self) -> [Option<i64>; 8] {
        [
            self.buffer_ms,
            self.buffer_video_ms,
            self.buffer_audio_ms,
            self.played_ms,
            self.stall_count,
            self.stall_count_total,
            self.stall_total_ms,
            self.dropped_frames_total,
        ]
    }

    fn from_array(all: [Option<i64>; 8]) -> Self {
        let [
            buffer_ms,
            buffer_video_ms,
            buffer_audio_ms,
            played_ms,
            stall_count,
            stall_count_total,
            stall_total_ms,
            dropped_frames_total,
        ] = all;
        Self {
            buffer_ms,
            buffer_video_ms,
            buffer_audio_ms,
            played_ms,
            stall_count,
            stall_count_total,
            stall_total_ms,
            dropped_frames_total,
        }
    }
}

/// The part of an event that is mostly equal from one to the next; a key keeps equal ones once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EventDetail {
    #[serde(skip)]
    pub native_session_id: Option<String>,
    /// The dialect.
    #[serde(with = "crate::event::names::one")]
    pub source: Name,
    pub state: Option<ReportedState>,
    pub duration_ms: Option<i64>,
    pub bitrate_bps: Option<i64>,
    pub req_bitrate_bps: Option<i64>,
    pub height: Option<i64>,
    pub fps: Option<f64>,
    pub stall_ms: Option<i64>,
    pub startup_ms: Option<i64>,
    pub seek_ms: Option<i64>,
    pub playback_rate: Option<f64>,
    /// `None`: the sender does not say.
    pub error_fatal: Option<bool>,
    pub error_code: Option<String>,
    pub error_class: Option<ErrorClass>,
    #[serde(with = "crate::event::names::option")]
    pub end_reason: Option<Name>,
    pub background: Option<bool>,
    /// The content of this event is that of an advertisement.
    pub is_ad: bool,
    /// Boxed, since the reference player sends none.
    pub media: Option<Box<MediaDetail>>,
    #[serde(skip)]
    pub segments: Arc<Segments>,
}

/// What players that follow CTA-5004 say of their media besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MediaDetail {
    pub bitrate_video_bps: Option<i64>,
    pub bitrate_audio_bps: Option<i64>,
    pub top_bitrate_bps: Option<i64>,
    pub top_playable_bitrate_bps: Option<i64>,
    pub low_bitrate_bps: Option<i64>,
    pub viewport_height: Option<i64>,
    pub object_duration_ms: Option<i64>,
}

impl From<&PlayerEvent> for SessionEvent {
    fn from(event: &PlayerEvent) -> Self {
        Self {
            event_id: event_id_of(&event.event_id),
            kind: event.kind.unwrap_or(EventKind::Custom),
            event_ts_ms: event.event_ts_ms,
            seq: event.seq,
            playhead_ms: event.playhead_ms,
            readings: readings_of(event),
            detail: EventDetail::from(event),
        }
    }
}

impl From<&PlayerEvent> for EventDetail {
    fn from(event: &PlayerEvent) -> Self {
        Self {
            native_session_id: native_session_id_of(event),
            source: event.source,
            state: event.state,
            duration_ms: event.duration_ms,
            bitrate_bps: event.bitrate_bps,
            req_bitrate_bps: event.req_bitrate_bps,
            height: event.height,
            fps: event.fps,
            stall_ms: event.stall_ms,
            startup_ms: event.startup_ms,
            seek_ms: event.seek_ms,
            playback_rate: event.playback_rate,
            error_fatal: event.error_fatal,
            error_code: event.error_codes.first().cloned(),
            error_class: event.error_class,
            end_reason: event.end_reason,
            background: event.background,
            is_ad: event.ad_id.is_some(),
            media: media_of(event),
            segments: Arc::new(segments_of(event)),
        }
    }
}

fn readings_of(event: &PlayerEvent) -> Option<Box<Readings>> {
    let readings = Readings {
        buffer_ms: event.buffer_ms,
        buffer_video_ms: event.buffer_video_ms,
        buffer_audio_ms: event.buffer_audio_ms,
        played_ms: event.played_ms,
        stall_count: event.stall_count,
        stall_count_total: event.stall_count_total,
        stall_total_ms: event.stall_total_ms,
        dropped_frames_total: event.dropped_frames_total,
    };
    (readings != Readings::default()).then(|| Box::new(readings))
}

fn media_of(event: &PlayerEvent) -> Option<Box<MediaDetail>> {
    let media = MediaDetail {
        bitrate_video_bps: event.bitrate_video_bps,
        bitrate_audio_bps: event.bitrate_audio_bps,
        top_bitrate_bps: event.top_bitrate_bps,
        top_playable_bitrate_bps: event.top_playable_bitrate_bps,
        low_bitrate_bps: event.low_bitrate_bps,
        viewport_height: event.viewport_height,
        object_duration_ms: event.object_duration_ms,
    };
    (media != MediaDetail::default()).then(|| Box::new(media))
}

fn native_session_id_of(event: &PlayerEvent) -> Option<String> {
    let id = event.native_session_id.as_ref();
    id.filter(|id| !id.is_empty()).cloned()
}

fn event_id_of(text: &str) -> u64 {
    let id = u128::from_str_radix(text, 16).unwrap_or_else(|_| xxh3_128(text.as_bytes()));
    (id >> 64) as u64
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
        let folding = Folding::of_shards(shards.max(1));
        Self {
            shards: (0..shards.max(1)).map(|_| Shard::new(settings, folding)).collect(),
            watermark_ms: None,
            restored_ms: None,
        }
    }

    /// Keys of these events whose earlier events may lie in the lake and are not in memory: the key is
    /// not, or the event is older than what was loaded of it. The caller loads them before it applies
    /// the events. Sorted, each once.
    pub fn missing(&self, events: &[KeyedEvent]) -> Vec<String> {
        let evicted_through_ms = self.evicted_through();
        let is_missing = |keyed: &&KeyedEvent| {
            let shard = &self.shards[self.shard_of(&keyed.session_key)];
            shard.lacks_history(&keyed.session_key, &keyed.event, evicted_through_ms)
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

    /// The event time that the rows stand at.
    pub fn watermark_ms(&self) -> Option<i64> {
        self.watermark_ms
    }

    pub fn open_sessions(&self) -> usize {
        self.shards.iter().map(Shard::open_sessions).sum()
    }

    /// Events that are kept one by one; the others are settled.
    pub fn events_in_memory(&self) -> usize {
        self.shards.iter().map(Shard::events).sum()
    }

    /// Events that `apply` left out: they came late, needed a history that `missing` named, and nobody
    /// had loaded it, or the lake no longer had it.
    pub fn events_left_out(&self) -> u64 {
        self.shards.iter().map(Shard::events_left_out).sum()
    }

    fn step(&mut self, events: Vec<KeyedEvent>, rewrite: &[String], watermark_ms: Option<i64>) -> FactChanges {
        let before_ms = self.watermark_ms;
        self.watermark_ms = self.watermark_ms.max(watermark_ms);
        let (watermarks_ms, evicted_ms) = ((before_ms, self.watermark_ms), self.evicted_through());
        let parallel = self.shards.len() > 1 && events.len() > SINGLE_THREAD_EVENTS_MAX;
        let work = self.split_work(events, rewrite);
        let shards = self.shards.iter_mut().zip(work);
        let mut changes = FactChanges::default();
        if !parallel {
            for (shard, (events, rewrite)) in shards {
                changes.append(shard.step(events, rewrite, watermarks_ms, evicted_ms));
            }
            changes.sort();
            return changes;
        }
        std::thread::scope(|scope| {
            let running: Vec<_> = shards
                .map(|(shard, (events, rewrite))| scope.spawn(move || shard.step(events, rewrite, watermarks_ms, evicted_ms)))
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
    use super::events::KEY_EVENTS_MAX;
    use super::fixtures::{BIG_BUCK_BUNNY, NEWS_LIVE, OCEANS, T0, TEARS_OF_STEEL, script};
    use super::rig::{Rig, Tables, keyed};
    use super::*;

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
            event_id: "00000000000000ff0000000000000001".to_owned(),
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
}
