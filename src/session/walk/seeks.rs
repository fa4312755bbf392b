//! Seeks and pauses: what the viewer does to the position (events and metrics, 3.1 and 3.6).
//!
//! Stands beside `walk`.
//!
//! Invariant: waiting between the start of a seek and the next playing or pause is seek wait, never a
//! stall.

use serde::{Deserialize, Serialize};

use super::{Walk, is_insane};
use crate::event::facts::PlaybackState;
use crate::session::EventDetail;
use crate::session::pieces::LOOK_BACK_MS;

/// A shorter pause is no decision of the viewer (3.6).
const DELIBERATE_PAUSE_MIN_MS: i64 = 1_000;

/// A seek whose start has been seen and whose end has not.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct OpenSeek {
    pub was_paused: bool,
    /// The seek itself is over and only its buffering is awaited.
    pub sought: bool,
    pub stalled: bool,
}

impl Walk {
    pub(super) fn on_seek_start(&mut self, now_ms: i64) {
        if !self.framed {
            self.flag("startup_seek");
            return;
        }
        self.jump();
        match self.state {
            Some(PlaybackState::Seeking) => self.seek.sought = false,
            Some(state) => {
                self.seek = OpenSeek {
                    was_paused: state == PlaybackState::Paused,
                    ..OpenSeek::default()
                };
                self.change_state(now_ms, Some(PlaybackState::Seeking));
            }
            None => {}
        }
    }

    pub(super) fn on_seek_end(&mut self, now_ms: i64, detail: &EventDetail) {
        if !self.framed {
            self.flag("startup_seek");
            return;
        }
        if self.state == Some(PlaybackState::Seeking) {
            self.row.anomalies += i64::from(is_insane(detail.seek_ms, LOOK_BACK_MS));
            self.seek.sought = true;
            if !self.seek.stalled {
                self.leave_seek(now_ms);
            }
            return;
        }
        if let Some(length_ms) = detail.seek_ms.filter(|ms| *ms > 0) {
            let from_ms = now_ms - length_ms;
            self.coverage
                .unplay(length_ms.min(self.played_since_seek_ms), self.picture.rate_ppm());
            self.stretches.place_seek(now_ms, length_ms, self.visible_state(), &self.causes);
            self.pause_was_sought(from_ms, now_ms);
        }
        self.causes.seek_ended_ms = Some(now_ms);
        self.jump();
    }

    pub(super) fn leave_seek(&mut self, now_ms: i64) {
        let resumed = if self.seek.was_paused {
            PlaybackState::Paused
        } else {
            PlaybackState::Playing
        };
        self.change_state(now_ms, Some(resumed));
        self.causes.seek_ended_ms = Some(now_ms);
        self.jump();
    }

    pub(super) fn jump(&mut self) {
        self.played_since_seek_ms = 0;
        if self.row.content_changes == 0 {
            self.coverage.jump();
        }
    }

    pub(super) fn on_pause(&mut self, now_ms: i64) {
        if self.state == Some(PlaybackState::Seeking) {
            self.causes.seek_ended_ms = Some(self.last_evidence_ms);
        }
        if self.state.is_some() {
            self.change_state(now_ms, Some(PlaybackState::Paused));
        }
    }

    pub(super) fn end_pause(&mut self, now_ms: i64) {
        let since_ms = self.paused_at_ms.take().map(|ms| now_ms - ms);
        if self.framed && since_ms.is_some_and(|ms| ms >= DELIBERATE_PAUSE_MIN_MS) {
            self.row.deliberate_pauses += 1;
        }
    }

    /// A seek that was reported at its end took place in the pause, and is no part of it.
    pub(super) fn pause_was_sought(&mut self, from_ms: i64, now_ms: i64) {
        if self.paused_at_ms.is_some() {
            self.end_pause(from_ms);
            self.paused_at_ms = Some(now_ms);
        }
    }
}
