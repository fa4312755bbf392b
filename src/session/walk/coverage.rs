//! Coverage: which parts of the asset were played (events and metrics, 3.6).
//!
//! Stands beside `walk`, which tells it of playing time, of positions and of jumps.
//!
//! Invariant: the ranges never overlap, ascend and are at most `RANGES_MAX`; media counts once.

use serde::{Deserialize, Serialize};

use super::Walk;
use crate::event::EventKind;
use crate::event::facts::PlaybackState;
use crate::session::EventDetail;
use crate::session::events::Kept;
use crate::session::outlook::is_snapshot;
use crate::session::screen::ONE_PPM;

/// A viewer who jumps about more than this: the two ranges nearest to each other become one. Keeps a
/// session's state at about a kilobyte.
const RANGES_MAX: usize = 64;
/// Players cache their position for up to 5 s (the reference player does): as much as this it may be
/// off what was played since the last one; more is a jump.
const STALE_MAX_MS: i64 = 5_000;
/// A position counts as reached after this much playing since the last seek (3.6).
const PLAYED_THERE_MIN_MS: i64 = 1_000;
/// The end counts as reached within 2 s or 1 % of it (3.6).
const END_TOLERANCE_MS: i64 = 2_000;

/// Media played, as ranges of the asset.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Coverage {
    /// Start and end (exclusive).
    ranges: Vec<(i64, i64)>,
    /// Last position known, if nothing jumped since.
    from_ms: Option<i64>,
    /// Media played since then, or since the last jump: ms x millionths of the rate.
    since_ppm_ms: i64,
    reached_ms: i64,
    pub is_approximate: bool,
}

impl Coverage {
    pub fn play(&mut self, length_ms: i64, rate_ppm: i64) {
        self.since_ppm_ms += length_ms * rate_ppm;
    }

    /// Time taken for playing turned out to be a stall.
    pub fn unplay(&mut self, length_ms: i64, rate_ppm: i64) {
        self.since_ppm_ms = (self.since_ppm_ms - length_ms * rate_ppm).max(0);
    }

    fn since_ms(&self) -> i64 {
        self.since_ppm_ms / ONE_PPM
    }

    /// The player is at `position_ms` now, and was playing until now.
    pub fn arrive(&mut self, position_ms: i64) {
        let Some(from_ms) = self.from_ms else {
            self.cover(position_ms.saturating_sub(self.since_ms()).max(0), position_ms);
            return self.restart(position_ms);
        };
        let moved_ms = position_ms.saturating_sub(from_ms);
        if (0..=self.since_ms() + STALE_MAX_MS).contains(&moved_ms) {
            self.cover(from_ms, position_ms);
            self.restart(position_ms);
        } else if !(-STALE_MAX_MS..=0).contains(&moved_ms) {
            self.jump();
            self.restart(position_ms);
        }
    }

    /// The player is at `position_ms` now, and was not playing.
    pub fn stand_at(&mut self, position_ms: i64) {
        self.jump();
        self.restart(position_ms);
    }

    fn restart(&mut self, position_ms: i64) {
        (self.from_ms, self.since_ppm_ms) = (Some(position_ms), 0);
    }

    /// The position is about to become another; which, the next report tells.
    pub fn jump(&mut self) {
        if let Some(from_ms) = self.from_ms.take() {
            self.cover(from_ms, from_ms.saturating_add(self.since_ms()));
        }
        self.since_ppm_ms = 0;
    }

    fn cover(&mut self, start_ms: i64, end_ms: i64) {
        if start_ms >= end_ms {
            return;
        }
        if let Some(last) = self.ranges.last_mut().filter(|last| (last.0..=last.1).contains(&start_ms)) {
            last.1 = last.1.max(end_ms);
            let covered = *last;
            return self.note_reached(covered);
        }
        let first = self.ranges.partition_point(|range| range.1 < start_ms);
        let after = self.ranges.partition_point(|range| range.0 <= end_ms);
        let mut joined = (start_ms, end_ms);
        for range in &self.ranges[first..after] {
            joined = (joined.0.min(range.0), joined.1.max(range.1));
        }
        self.ranges.splice(first..after, [joined]);
        self.note_reached(joined);
        if self.ranges.len() > RANGES_MAX {
            self.join_nearest();
        }
    }

    fn note_reached(&mut self, (start_ms, end_ms): (i64, i64)) {
        if end_ms - start_ms >= PLAYED_THERE_MIN_MS {
            self.reached_ms = self.reached_ms.max(end_ms);
        }
    }

    fn join_nearest(&mut self) {
        let gaps = self.ranges.windows(2).enumerate();
        let nearest = gaps.min_by_key(|(_, pair)| pair[1].0 - pair[0].1).map(|(at, _)| at);
        if let Some(at) = nearest {
            let next = self.ranges.remove(at + 1);
            self.ranges[at].1 = next.1;
            self.is_approximate = true;
        }
    }

    /// The furthest position that playing led to.
    pub fn reached_ms(&self) -> i64 {
        self.reached_ms
    }

    /// Unique media covered; with a duration, that of the asset only.
    pub fn covered_ms(&self, duration_ms: Option<i64>) -> i64 {
        let end_ms = duration_ms.unwrap_or(i64::MAX);
        let within = self.ranges.iter().map(|range| (range.1.min(end_ms) - range.0.max(0)).max(0));
        within.sum()
    }
}

impl Walk {
    pub(super) fn observe_position(&mut self, event: &Kept, detail: &EventDetail) {
        // Of the content that the row names, which is the first.
        if self.row.content_changes > 0 || self.ads.is_on() || !is_snapshot(event.kind, detail) {
            return;
        }
        if let Some(duration_ms) = detail.duration_ms.filter(|ms| *ms > 0) {
            self.row.duration_ms = Some(duration_ms);
        }
        self.row.max_playhead_ms = self.row.max_playhead_ms.max(event.playhead_ms);
        let Some(playhead_ms) = event.playhead_ms else {
            return;
        };
        let tells_position = matches!(
            event.kind,
            EventKind::Heartbeat | EventKind::PlaybackPause | EventKind::PlaybackFinish
        );
        let was_playing = self.stretches.state() == Some(PlaybackState::Playing);
        if tells_position && was_playing {
            if self.played_since_seek_ms >= PLAYED_THERE_MIN_MS {
                self.reached_ms = self.reached_ms.max(Some(playhead_ms));
            }
            self.coverage.arrive(playhead_ms);
        } else if matches!(event.kind, EventKind::PlaybackRequest | EventKind::PlaybackStart) && !was_playing {
            self.coverage.stand_at(playhead_ms);
        }
    }

    pub(super) fn settle_coverage(&mut self) {
        self.coverage.jump();
        let duration_ms = self.row.duration_ms.filter(|_| !self.is_live());
        self.row.covered_ms = self.coverage.covered_ms(duration_ms);
        if self.coverage.is_approximate {
            self.flag("coverage_approximate");
        }
        self.row.quartile = self.quartile();
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.row.segments.stream_type.as_deref(), Some("live" | "ll_live"))
    }

    pub(super) fn quartile(&self) -> Option<i64> {
        if !self.framed || self.is_live() {
            return None;
        }
        let duration_ms = self.row.duration_ms?;
        let tolerance_ms = END_TOLERANCE_MS.max(duration_ms / 100);
        let reached_ms = self.reached_ms.unwrap_or(0).max(0);
        let reached_end = duration_ms > tolerance_ms && reached_ms >= duration_ms - tolerance_ms;
        if self.row.finished == 1 && self.row.content_changes == 0 || reached_end {
            return Some(100);
        }
        // Wide, since a length is whatever the sender says.
        let percent = i128::from(reached_ms.max(self.coverage.reached_ms())) * 100 / i128::from(duration_ms);
        Some((percent.min(99) / 25 * 25) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fixtures::facts;

    fn check(text: &str, expected: (i64, Option<i64>)) {
        let row = &facts(&format!("0 playback_start duration=100 at=0\n{text}"), "-")[0].session;
        assert_eq!((row.covered_ms, row.quartile), expected, "\n{text}");
    }

    #[test]
    fn media_counts_once_however_often_it_is_played() {
        check("30 heartbeat at=30\n40 session_end", (40_000, Some(25)));
        check("30 heartbeat at=30\n30 seek_end\n60 heartbeat at=40", (40_000, Some(25)));
        check("30 heartbeat at=30\n30 seek_end\n40 heartbeat at=90", (40_000, Some(75)));
        check("20 heartbeat at=20 rate=2\n40 heartbeat at=60", (60_000, Some(50)));
        check("20 stall_end stall=10\n40 session_end", (30_000, Some(25)));
        check("200 session_end", (100_000, Some(75)));
    }

    #[test]
    fn a_jump_that_no_seek_told_of_covers_what_was_played() {
        check("10 heartbeat at=60\n20 heartbeat at=70", (20_000, Some(50)));
        check("50 heartbeat at=50\n60 heartbeat at=5\n70 heartbeat at=15", (60_000, Some(50)));
        check("10 heartbeat at=10\n12 heartbeat at=10\n20 heartbeat at=20", (20_000, Some(0)));
    }

    #[test]
    fn many_jumps_keep_the_state_small() {
        let mut coverage = Coverage::default();
        for n in 0..200 {
            coverage.stand_at(n * 10_000);
            coverage.play(2_000, ONE_PPM);
            coverage.jump();
        }
        assert_eq!((coverage.ranges.len(), coverage.is_approximate), (RANGES_MAX, true));
        assert!(coverage.covered_ms(None) >= 400_000);
        assert_eq!(coverage.covered_ms(Some(1_000)), 1_000);
        assert_eq!(coverage.reached_ms(), 1_992_000);
    }
}
