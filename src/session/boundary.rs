//! Boundaries: where one session of a key ends and the next begins (events and metrics, 2.4).
//!
//! Stands below `timeline`, which takes a key's events through `Progress` one by one.
//!
//! Invariant: whether an event begins a session depends on the events of the session before it only.

use serde::{Deserialize, Serialize};

use super::events::Kept;
use super::outlook::{RECOVERY_MS, is_end, shows_frame};
use super::packed::shift;
use super::{EventDetail, SessionSettings, order};
use crate::event::EventKind;

/// A session is cut after a day: a screen in a shop window would otherwise never end.
const SESSION_LENGTH_MAX_MS: i64 = 24 * 3_600_000;
/// Requests this close before any frame are one impatient viewer.
const DOUBLE_REQUEST_MS: i64 = 10_000;

/// Why a session ends where the next one of its key begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    Silence,
    Length,
    Replaced,
}

/// A session so far, as far as its boundaries go.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Progress {
    span_ms: Option<(i64, i64)>,
    last_request_ms: Option<i64>,
    framed: bool,
    /// Something other than requests has shown what the player does.
    acted: bool,
    ended: bool,
    /// Paused with a position of 0.
    paused_at_start: bool,
    /// The last error that nothing has healed yet, and whether it is known to be fatal.
    error: Option<(i64, bool)>,
}

impl Progress {
    /// Whether `event` begins a new session (2.4). Sessions with a native id are split by silence and
    /// length alone: the sender has said what belongs together.
    pub fn boundary_before(&self, event: &Kept, detail: &EventDetail, settings: &SessionSettings) -> Option<Boundary> {
        let (start_ms, _) = self.span_ms?;
        let now_ms = event.event_ts_ms;
        if let Some(boundary) = self.over_by(now_ms, settings) {
            return Some(boundary);
        }
        // Two sessions of one key never share a start: it makes their id.
        if detail.native_session_id.is_some() || now_ms == start_ms {
            return None;
        }
        let begins = match event.kind {
            EventKind::PlaybackStart => self.is_over_at(now_ms),
            EventKind::PlaybackRequest if event.playhead_ms == Some(0) && !self.paused_at_start => self.is_superseded_at(now_ms),
            _ => false,
        };
        begins.then_some(Boundary::Replaced)
    }

    /// Whether any event at this time, after those of the session, begins a new one.
    fn over_by(&self, now_ms: i64, settings: &SessionSettings) -> Option<Boundary> {
        let (start_ms, last_ms) = self.span_ms?;
        if now_ms - last_ms > settings.idle_gap_ms {
            return Some(Boundary::Silence);
        }
        (now_ms - start_ms >= SESSION_LENGTH_MAX_MS).then_some(Boundary::Length)
    }

    /// Whether an event at this time begins a new session, wherever its number puts it.
    pub fn is_over_by(&self, now_ms: i64, settings: &SessionSettings) -> bool {
        let last_ms = self.span_ms.map(|(_, last_ms)| last_ms);
        last_ms.is_some_and(|last_ms| now_ms - last_ms > order::LOOK_BACK_MS) && self.over_by(now_ms, settings).is_some()
    }

    /// Moves all times.
    pub fn shift(&mut self, by_ms: i64) {
        self.span_ms = self.span_ms.map(|(start_ms, last_ms)| (start_ms + by_ms, last_ms + by_ms));
        shift(&mut self.last_request_ms, by_ms);
        self.error = self.error.map(|(ms, fatal)| (ms + by_ms, fatal));
    }

    fn is_over_at(&self, now_ms: i64) -> bool {
        let failed = self.error.is_some_and(|(ms, _)| now_ms - ms > RECOVERY_MS);
        self.ended || failed
    }

    fn is_superseded_at(&self, now_ms: i64) -> bool {
        if self.ended || self.error.is_some() || self.framed {
            return true;
        }
        let Some(last_request_ms) = self.last_request_ms else {
            return false;
        };
        self.acted || now_ms - last_request_ms > DOUBLE_REQUEST_MS
    }

    pub fn take(&mut self, event: &Kept, detail: &EventDetail) {
        let now_ms = event.event_ts_ms;
        let start_ms = self.span_ms.map_or(now_ms, |(start_ms, _)| start_ms);
        self.span_ms = Some((start_ms, now_ms));
        // The reference player caches its position for 5 s: a pause within them and the resume after it
        // both say 0, and the resume is no new attempt (reference system, 1.3).
        self.paused_at_start = match event.kind {
            EventKind::PlaybackPause => event.playhead_ms == Some(0),
            EventKind::Metadata | EventKind::Custom | EventKind::RenditionUpdate => self.paused_at_start,
            _ => false,
        };
        if shows_frame(event, detail) {
            self.framed = true;
            let heals_fatal = event.kind == EventKind::PlaybackStart;
            self.error = self.error.filter(|(_, fatal)| *fatal && !heals_fatal);
        }
        self.ended |= is_end(event.kind, detail);
        match event.kind {
            EventKind::PlaybackRequest => self.last_request_ms = Some(now_ms),
            EventKind::PlaybackError if detail.error_fatal != Some(false) => {
                self.error = Some((now_ms, detail.error_fatal == Some(true)));
            }
            EventKind::PlaybackPause | EventKind::StallStart | EventKind::StallEnd | EventKind::SeekStart | EventKind::SeekEnd => {
                self.acted = true
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::session::fixtures::{T0, check, facts};

    #[test]
    fn a_key_is_split_where_a_new_attempt_begins() {
        let starts = |text: &str| -> Vec<i64> { facts(text, "-").iter().map(|f| (f.session.started_at_ms - T0) / 1_000).collect() };
        assert_eq!(starts("0 playback_request at=0\n9 playback_request at=0\n12 playback_start"), [0]);
        assert_eq!(starts("0 playback_request at=0\n11 playback_request at=0"), [0, 11]);
        assert_eq!(starts("0 playback_request at=0\n1 playback_start\n2 playback_request at=0"), [0, 2]);
        assert_eq!(starts("0 playback_request at=0\n1 playback_error\n2 playback_request at=0"), [0, 2]);
        assert_eq!(starts("0 playback_request at=0\n1 playback_start\n2 playback_request at=7"), [0]);
        let early = "0 playback_request at=0\n1 playback_start\n2 playback_pause at=0";
        assert_eq!(starts(&format!("{early}\n9 playback_request at=0")), [0]);
        assert_eq!(
            starts(&format!("{early}\n9 playback_request at=0\n20 playback_request at=0")),
            [0, 20]
        );
        let later = "0 playback_request at=0\n1 playback_start\n9 playback_pause at=5";
        assert_eq!(starts(&format!("{later}\n12 playback_request at=0")), [0, 12]);
        assert_eq!(starts("0 playback_start\n5 playback_finish\n6 playback_start"), [0, 6]);
        assert_eq!(starts("0 playback_start\n5 playback_error\n6 playback_start"), [0]);
        assert_eq!(starts("0 playback_start\n5 playback_error\n16 playback_start"), [0, 16]);
        assert_eq!(starts("0 playback_start\n1800 heartbeat\n3600.001 heartbeat"), [0, 3600]);
        assert_eq!(
            starts("0 playback_start sid=a\n5 playback_finish sid=a\n6 playback_start sid=a"),
            [0]
        );
        assert_eq!(starts("0 playback_start sid=a\n1 playback_start sid=b\n2 heartbeat sid=a"), [0, 1]);
        check(
            "0 playback_request at=0\n1 playback_start\n20 playback_request at=0",
            "-",
            &[
                "attempts=1 plays=1 startup_ms=1000 startup_wait_ms=1000 replaced",
                "attempts=1 open=1",
            ],
        );
    }

    #[test]
    fn a_session_is_cut_after_a_day() {
        let text: String = (0..=60).map(|n| format!("{} heartbeat\n", n * 1_500)).collect();
        let facts = facts(&text, "-");
        let starts: Vec<i64> = facts.iter().map(|f| (f.session.started_at_ms - T0) / 1_000).collect();
        assert_eq!(starts, [0, 87_000]);
        assert_eq!(facts[0].session.end_reason, Some("timeout"));
    }
}
