//! Presence: heartbeats, the background, and what silence means (events and metrics, 2.4 and 3.1).
//!
//! Stands beside `walk`.
//!
//! Invariant: nothing is extended past the last evidence, save an open stall by one heartbeat and the
//! presence of a viewer who fell silent by one and a half.

use serde::{Deserialize, Serialize};

use super::Walk;
use crate::event::EventKind;
use crate::event::facts::PlaybackState;
use crate::session::EventDetail;
use crate::session::packed::shift;
use crate::session::pieces::is_played;

/// Longest extension of a stall that ends in silence (2.4).
const OPEN_STALL_MAX_MS: i64 = 120_000;
/// A session is timed out after this many heartbeats failed to come (2.4).
const HEARTBEATS_MISSED: i64 = 3;
/// A background in which this many heartbeats failed to come hides what happened (3.1, rule 2).
const GAP_HEARTBEATS: i64 = 2;
/// The heartbeat interval is the median of this many first gaps; more would only be remembered.
const HEARTBEAT_GAPS: usize = 9;
/// Without heartbeats, a session that is known by its requests alone lives this long at least (2.4).
const REQUEST_TIMEOUT_MIN_MS: i64 = 60_000;

/// The gaps between the first heartbeats.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Beats {
    last_ms: Option<i64>,
    #[serde(with = "crate::session::packed::differences")]
    gaps_ms: [i64; HEARTBEAT_GAPS],
    count: usize,
}

impl Beats {
    pub fn take(&mut self, now_ms: i64) {
        let last_ms = self.last_ms.replace(now_ms);
        if let (Some(last_ms), true) = (last_ms, self.count < HEARTBEAT_GAPS) {
            self.gaps_ms[self.count] = now_ms - last_ms;
            self.count += 1;
        }
    }

    pub fn shift(&mut self, by_ms: i64) {
        shift(&mut self.last_ms, by_ms);
    }

    /// The lower median.
    fn interval_ms(&self) -> Option<i64> {
        let mut gaps_ms = self.gaps_ms;
        let gaps_ms = &mut gaps_ms[..self.count];
        gaps_ms.sort_unstable();
        gaps_ms.get(self.count.saturating_sub(1) / 2).copied()
    }
}

impl Walk {
    pub(super) fn observe_background(&mut self, kind: EventKind, detail: &EventDetail) {
        // The standard leaves out what is false: a change without the flag is one to the foreground.
        let implied = (kind == EventKind::BackgroundChange).then_some(false);
        let Some(in_background) = detail.background.or(implied) else {
            return;
        };
        self.in_background = in_background && !self.settings.count_background;
        if self.in_background && !self.framed {
            self.flag("startup_background");
        }
    }

    /// After a long silence in the background the player is in front again, and nobody said when it came
    /// back: what went before is unknown (3.1, rule 2). A `background_change` tells it, and a report that
    /// is in the background still shows that it was there all the while.
    pub(super) fn enter_gap(&mut self, now_ms: i64, kind: EventKind, detail: &EventDetail) {
        let returns_untold = self.in_background && detail.background == Some(false) && kind != EventKind::BackgroundChange;
        let silence_ms = now_ms - self.last_evidence_ms;
        if returns_untold && self.state.is_some() && silence_ms > self.heartbeat_ms().saturating_mul(GAP_HEARTBEATS) {
            self.stretches.enter(self.last_evidence_ms, Some(PlaybackState::Gap), &self.causes);
        }
    }

    pub(super) fn heartbeat_ms(&self) -> i64 {
        self.beats.interval_ms().unwrap_or(self.settings.heartbeat_interval_ms)
    }

    /// How long after the last evidence a silent session is closed (2.4).
    pub fn timeout(&self) -> i64 {
        let idle_gap_ms = self.settings.idle_gap_ms;
        if self.in_background || self.state == Some(PlaybackState::Paused) {
            return idle_gap_ms;
        }
        if self.is_request_mode {
            let next_request_ms = self.object_duration_ms.unwrap_or(0).saturating_mul(2);
            let patience_ms = self.buffer_ms.unwrap_or(0).max(0).saturating_add(next_request_ms);
            return patience_ms.max(REQUEST_TIMEOUT_MIN_MS).min(idle_gap_ms);
        }
        let patience_ms = self.heartbeat_ms().saturating_mul(HEARTBEATS_MISSED);
        patience_ms.max(self.settings.timeout_floor_ms).min(idle_gap_ms)
    }

    /// Silence closed the session. A stall lasted at least until the next heartbeat would have come; an
    /// active viewer is presumed present for half a heartbeat more; a pause went on.
    pub fn fall_silent(&mut self) {
        let (heard_ms, heartbeat_ms) = (self.last_evidence_ms, self.heartbeat_ms());
        let present = self.stretches.state();
        if present == Some(PlaybackState::Rebuffering) {
            self.advance(heard_ms + heartbeat_ms.min(OPEN_STALL_MAX_MS));
            self.flag("stall_open_end");
        }
        if self.state == Some(PlaybackState::Paused) {
            self.end_pause(heard_ms.saturating_add(self.timeout()));
        }
        let is_active = is_played(present) || matches!(present, Some(PlaybackState::Rebuffering | PlaybackState::Seeking));
        if is_active {
            let absent_ms = heard_ms + (heartbeat_ms / 2).saturating_add(heartbeat_ms).min(self.settings.idle_gap_ms);
            self.stretches
                .enter(self.last_evidence_ms, Some(PlaybackState::Silent), &self.causes);
            self.stretches.advance(absent_ms.max(self.last_evidence_ms));
        }
    }
}
