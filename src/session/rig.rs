//! An engine with the lake that its caller keeps, for tests.
//!
//! Stands beside `Sessions`, in tests only: missing keys are loaded as ingest does, changes are folded as
//! the silver tables do, and what the rules say of all events at once is there to compare with.

use std::collections::BTreeMap;

use super::fixtures::{script, stored};
use super::{FactChanges, KeyedEvent, SessionEvent, SessionSettings, Sessions, timeline};
use crate::event::facts::{PlaybackInterval, PlaybackSession};

/// The two silver tables as folding the changes leaves them, by session id and start.
#[derive(Default, Debug, PartialEq)]
pub struct Tables {
    pub intervals: BTreeMap<(String, i64), PlaybackInterval>,
    pub sessions: BTreeMap<(String, i64), PlaybackSession>,
}

impl Tables {
    pub fn fold(&mut self, changes: FactChanges) {
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

    /// Like `assert_eq`, with the first row that differs alone.
    pub fn check_same(&self, expected: &Tables, name: &str) {
        let sessions: Vec<_> = self.sessions.values().zip(expected.sessions.values()).collect();
        for (row, expected) in sessions {
            assert_eq!(row, expected, "{name}");
        }
        let intervals: Vec<_> = self.intervals.values().zip(expected.intervals.values()).collect();
        for (row, expected) in intervals {
            assert_eq!(row, expected, "{name}");
        }
        assert!(self == expected, "{name}: rows are missing or too many");
    }

    /// What the rules say of all events at once.
    pub fn of(events: &[KeyedEvent], watermark_ms: Option<i64>) -> Tables {
        let mut by_key: BTreeMap<&str, Vec<SessionEvent>> = BTreeMap::new();
        for keyed in events {
            let of_key = by_key.entry(&keyed.session_key).or_default();
            of_key.push(keyed.event.clone());
        }
        let mut tables = Tables::default();
        let settings = SessionSettings::default();
        for (key, events) in by_key {
            let events = stored(events);
            for facts in timeline::derive(key, None, &events, watermark_ms, &settings) {
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
pub struct Rig {
    pub sessions: Sessions,
    pub lake: BTreeMap<String, Vec<SessionEvent>>,
    pub tables: Tables,
}

impl Rig {
    pub fn new(shards: usize) -> Self {
        Self {
            sessions: Sessions::new(SessionSettings::default(), shards),
            lake: BTreeMap::new(),
            tables: Tables::default(),
        }
    }

    pub fn load_missing(&mut self, batch: &[KeyedEvent]) {
        for key in self.sessions.missing(batch) {
            let of_key = batch.iter().filter(|keyed| keyed.session_key == key);
            let oldest_ms = of_key.map(|keyed| keyed.event.event_ts_ms).min();
            self.load(&key, oldest_ms.expect("a missing key has an event"));
        }
    }

    pub fn deliver(&mut self, batch: Vec<KeyedEvent>, watermark_ms: Option<i64>) -> FactChanges {
        self.load_missing(&batch);
        for keyed in &batch {
            let known = self.lake.entry(keyed.session_key.clone()).or_default();
            known.push(keyed.event.clone());
        }
        let changes = self.sessions.apply(batch, watermark_ms);
        self.tables.fold(changes.clone());
        changes
    }

    /// Loads no more of a key than an event at `reached_ms` can continue, and all that is later.
    pub fn load(&mut self, key: &str, reached_ms: i64) {
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
    pub fn restart(&mut self, watermark_ms: i64) {
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

pub fn keyed(session_key: &str, text: &str) -> Vec<KeyedEvent> {
    let events = script(text).into_iter();
    events
        .map(|event| KeyedEvent {
            session_key: session_key.to_owned(),
            event,
        })
        .collect()
}
