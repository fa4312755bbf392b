//! Stalls: seen from start to end, reported after the fact, or known from a counter only (3.1).
//!
//! Stands beside `walk`; `pieces` lays the time, `causes` says what it is put down to.
//!
//! Invariant: a stall that is told in more than one way counts once.

use serde::{Deserialize, Serialize};

use super::seeks::OpenSeek;
use super::{Walk, is_insane};
use crate::event::facts::PlaybackState;
use crate::event::{EventKind, ReportedState};
use crate::session::events::Kept;
use crate::session::outlook::{is_snapshot, reported_state, shows_frame};
use crate::session::pieces::{LOOK_BACK_MS, Placed, ReportedStall};
use crate::session::{EventDetail, Readings};

/// A session is no longer than a day, and so is no sum of its stalls.
const STALL_TOTAL_MAX_MS: i64 = 86_400_000;
/// Counters and events may differ by this share, in percent, before the counters are believed (3.1).
const COUNTER_TOLERANCE_PERCENT: i64 = 10;

/// A counter of the player since its session began.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Counter {
    /// What the players before this one had counted.
    before: i64,
    last: i64,
}

impl Counter {
    fn is_behind(self, value: Option<i64>) -> bool {
        value.is_some_and(|value| value < self.last)
    }

    fn take(&mut self, value: i64) -> i64 {
        self.last = value;
        self.before + value
    }

    /// A new player counts from zero: it adds.
    fn restart(&mut self) {
        self.before += std::mem::take(&mut self.last);
    }
}

/// What is known of a session's stalls, for telling whether a report tells more.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Stalls {
    /// Length so far of the stall that was last seen to begin.
    waited_ms: i64,
    /// All stall time that the player may have counted: placed, clipped, or in a seek.
    known_ms: i64,
    known_count: i64,
    /// Stalls seen to end without a length: the next report may bring it.
    unreported_ms: i64,
    unreported_count: i64,
    total_ms: Counter,
    total_count: Counter,
    /// What the counters held before this session: some senders go on with the same id.
    has_base: bool,
}

impl Stalls {
    fn begin(&mut self) {
        self.waited_ms = 0;
        self.known_count += 1;
    }

    pub fn wait(&mut self, length_ms: i64) {
        self.waited_ms += length_ms;
        self.known_ms += length_ms;
    }

    /// Takes the counters; returns them over all players of the session.
    fn count_up(&mut self, total_ms: i64, count: Option<i64>) -> (i64, Option<i64>) {
        if self.total_ms.is_behind(Some(total_ms)) || self.total_count.is_behind(count) {
            self.total_ms.restart();
            self.total_count.restart();
        }
        (self.total_ms.take(total_ms), count.map(|count| self.total_count.take(count)))
    }

    /// Of a stall reported after the fact, what was not seen already.
    fn unseen(&mut self, stall: ReportedStall) -> Option<ReportedStall> {
        let (seen_ms, seen_count) = (self.unreported_ms, self.unreported_count);
        (self.unreported_ms, self.unreported_count) = (0, 0);
        let unseen = ReportedStall {
            length_ms: stall.length_ms - seen_ms,
            count: stall.count - seen_count,
        };
        (unseen.length_ms > 0 && unseen.count > 0).then_some(unseen)
    }
}

impl Walk {
    pub(super) fn on_stall_start(&mut self, now_ms: i64) {
        match self.state {
            Some(PlaybackState::Seeking) if self.seek.stalled => {}
            Some(PlaybackState::Seeking) => {
                self.stalls.begin();
                self.seek.stalled = true;
            }
            // Buffering that begins where the seek ended is still the seek (3.1, rule 3).
            Some(PlaybackState::Playing) if self.causes.seek_ended_ms == Some(now_ms) => {
                self.stalls.begin();
                self.change_state(now_ms, Some(PlaybackState::Seeking));
                self.seek = OpenSeek {
                    was_paused: false,
                    sought: true,
                    stalled: true,
                };
            }
            Some(PlaybackState::Playing) => {
                self.stalls.begin();
                self.change_state(now_ms, Some(PlaybackState::Rebuffering));
            }
            _ => {}
        }
    }

    pub(super) fn on_stall_end(&mut self, now_ms: i64, detail: &EventDetail, readings: Option<&Readings>) {
        match self.state {
            Some(PlaybackState::Rebuffering) => self.leave_stall(now_ms, detail.stall_ms),
            Some(PlaybackState::Seeking) => {
                self.seek.stalled = false;
                if self.seek.sought {
                    self.leave_seek(now_ms);
                } else if detail.stall_ms.is_some_and(|ms| ms > 0) {
                    self.flag("stall_clipped");
                }
            }
            _ => self.place_reported_stall(now_ms, detail.stall_ms, readings),
        }
    }

    /// Any report may bring the length of a stall: of the one that it ends, or of earlier ones.
    pub(super) fn observe_stall_report(&mut self, event: &Kept, detail: &EventDetail) {
        let (now_ms, kind) = (event.event_ts_ms, event.kind);
        if kind != EventKind::PlaybackStart && shows_frame(event, detail) {
            self.on_implied_frame(now_ms);
        }
        let tells_nothing = matches!(kind, EventKind::StallEnd | EventKind::Metadata) || !is_snapshot(kind, detail);
        if !self.framed || tells_nothing {
            return;
        }
        if self.state != Some(PlaybackState::Rebuffering) {
            let readings = event.readings.as_deref();
            self.place_reported_stall(now_ms, detail.stall_ms, readings);
            if kind == EventKind::Heartbeat && detail.stall_ms.is_none() {
                (self.stalls.unreported_ms, self.stalls.unreported_count) = (0, 0);
            }
            return;
        }
        // While a stall is open its length is not known yet, whatever the report says.
        let state = reported_state(kind, detail);
        let ends = matches!(kind, EventKind::PlaybackFinish | EventKind::SessionEnd)
            || matches!(state, Some(ReportedState::Ended | ReportedState::Quit));
        let leaves = matches!(kind, EventKind::PlaybackPause | EventKind::SeekStart)
            || matches!(
                state,
                Some(ReportedState::Playing | ReportedState::Paused | ReportedState::Seeking | ReportedState::Waiting)
            );
        if leaves {
            self.leave_stall(now_ms, detail.stall_ms);
        } else if ends && detail.stall_ms.is_some() {
            self.settle_open_stall(now_ms, detail.stall_ms);
        }
    }

    /// A stall whose start was seen ends.
    pub(super) fn leave_stall(&mut self, now_ms: i64, reported_ms: Option<i64>) {
        self.change_state(now_ms, Some(PlaybackState::Playing));
        self.settle_open_stall(now_ms, reported_ms);
    }

    /// The player's own length of the stall that ends wins if it is sane.
    fn settle_open_stall(&mut self, now_ms: i64, reported_ms: Option<i64>) {
        let is_visible = self.stretches.state() == Some(PlaybackState::Rebuffering);
        let sane_ms = reported_ms.filter(|ms| (1..=LOOK_BACK_MS).contains(ms));
        self.row.anomalies += i64::from(is_insane(reported_ms, LOOK_BACK_MS));
        let Some(length_ms) = sane_ms else {
            self.stalls.unreported_ms += self.stalls.waited_ms;
            self.stalls.unreported_count += 1;
            return;
        };
        self.stalls.known_ms += length_ms - self.stalls.waited_ms;
        if is_visible {
            let playing = if self.ads.is_on() {
                PlaybackState::Ad
            } else {
                PlaybackState::Playing
            };
            self.stretches.unstall_present(Some(playing));
            self.place_stall(now_ms, ReportedStall { length_ms, count: 1 });
        }
    }

    fn place_reported_stall(&mut self, now_ms: i64, reported_ms: Option<i64>, readings: Option<&Readings>) {
        if is_insane(reported_ms, LOOK_BACK_MS) {
            self.row.anomalies += 1;
            return;
        }
        let Some(length_ms) = reported_ms.filter(|ms| *ms > 0) else {
            return;
        };
        let count = readings.and_then(|readings| readings.stall_count).unwrap_or(1);
        // No stall is shorter than a millisecond.
        let count = count.clamp(1, length_ms);
        if let Some(stall) = self.stalls.unseen(ReportedStall { length_ms, count }) {
            self.stalls.known_ms += stall.length_ms;
            self.stalls.known_count += stall.count;
            self.place_stall(now_ms, stall);
        }
    }

    fn place_stall(&mut self, now_ms: i64, stall: ReportedStall) {
        let state = self.visible_state();
        let placed = self.stretches.place_stall(now_ms, stall, state, &self.causes);
        self.was_stalled(placed);
        if placed.total_ms() < stall.length_ms {
            self.flag("stall_clipped");
        }
    }

    /// Time that had been taken for playing was a stall.
    fn was_stalled(&mut self, placed: Placed) {
        let placed_ms = placed.total_ms();
        self.played_since_seek_ms = (self.played_since_seek_ms - placed_ms).max(0);
        self.coverage.unplay(placed.content_ms, self.picture.rate_ppm());
        self.startup.ad_was_stalled(placed.ad_ms);
    }

    /// Cumulative counters survive lost reports: what they hold beyond what is known was a stall that
    /// nobody reported, somewhere before now (3.1, rule 7). `begins_stall`: the count, and not yet the
    /// time, holds a stall that begins with this event.
    pub(super) fn observe_counters(&mut self, event: &Kept, detail: &EventDetail, begins_stall: bool) {
        let readings = event.readings.as_deref().filter(|_| is_snapshot(event.kind, detail));
        let Some((total_ms, count)) = readings.and_then(|readings| readings.stall_total_ms.map(|ms| (ms, readings.stall_count_total)))
        else {
            return;
        };
        if !(0..=STALL_TOTAL_MAX_MS).contains(&total_ms) {
            self.row.anomalies += 1;
            return;
        }
        let (total_ms, count) = self
            .stalls
            .count_up(total_ms, count.map(|count| count.clamp(0, STALL_TOTAL_MAX_MS)));
        let has_base = std::mem::replace(&mut self.stalls.has_base, true) || self.counts_from_zero;
        let missing_ms = total_ms - self.stalls.known_ms;
        if missing_ms * 100 <= total_ms * COUNTER_TOLERANCE_PERCENT {
            return;
        }
        let known_count = self.stalls.known_count + i64::from(begins_stall);
        let missing_count = count.map_or(1, |count| (count - known_count).max(0));
        self.stalls.known_ms = total_ms;
        self.stalls.known_count += missing_count;
        if has_base && self.framed {
            self.place_unreported(event.event_ts_ms, missing_ms, missing_count);
        }
    }

    fn place_unreported(&mut self, now_ms: i64, length_ms: i64, count: i64) {
        if length_ms > LOOK_BACK_MS {
            self.row.anomalies += 1;
            return;
        }
        let (state, stall) = (self.visible_state(), ReportedStall { length_ms, count });
        let placed = self.stretches.place_unreported(now_ms, stall, state, &self.causes);
        self.was_stalled(placed);
        self.flag("counter_reconciled");
        if placed.total_ms() < length_ms {
            self.flag("stall_clipped");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::session::fixtures::{check_columns, check_pieces, facts};

    const PLAY: &str = "0 playback_request\n2 playback_start";

    fn pieces(rest: &str, expected: &str) {
        check_pieces(&format!("{PLAY}\n{rest}"), "-", &format!("starting 0-2, {expected}"));
    }

    fn columns(rest: &str, expected: &str) {
        check_columns(&format!("{PLAY}\n{rest}"), "-", expected);
    }

    #[test]
    fn the_players_own_state_makes_up_for_lost_transitions() {
        let stall = "playing 2-10, rebuffering 10-15, playing 15-20";
        pieces("10 heartbeat state=rebuffering\n15 heartbeat state=playing\n20 heartbeat", stall);
        pieces("10 stall_start\n15 rendition_update state=playing\n20 heartbeat", stall);
        pieces("10 heartbeat state=rebuffering\n15 stall_end\n20 heartbeat", stall);
        pieces(
            "10 heartbeat state=paused\n15 heartbeat state=playing\n20 heartbeat",
            "playing 2-10, paused 10-15, playing 15-20",
        );
        pieces(
            "10 heartbeat state=waiting\n15 heartbeat state=playing\n20 heartbeat",
            "playing 2-10, waiting 10-15, playing 15-20",
        );
        pieces(
            "10 heartbeat state=seeking\n12 heartbeat state=rebuffering\n15 heartbeat state=playing\n20 heartbeat",
            "playing 2-10, seeking 10-15, playing 15-20",
        );
        pieces("10 response state=rebuffering\n20 heartbeat", "playing 2-20");
        columns(
            "10 heartbeat state=waiting\n20 heartbeat",
            "waiting_ms=10000 stall_ms=0 playing_ms=8000",
        );
        let flags = &facts(&format!("{PLAY}\n10 heartbeat state=waiting"), "-")[0].session.dq_flags;
        assert_eq!(flags, &["undefined_state"]);
    }

    #[test]
    fn a_report_that_leaves_a_stall_may_bring_its_length() {
        let stall = "playing 2-11, rebuffering 11-15, playing 15-20";
        pieces("10 stall_start\n15 heartbeat state=playing stall=4\n20 heartbeat", stall);
        pieces("10 stall_start\n15 playback_start stall=4\n20 heartbeat", stall);
        pieces(
            "10 stall_start\n15 playback_pause stall=4\n20 heartbeat",
            "playing 2-11, rebuffering 11-15, paused 15-20",
        );
        pieces("10 stall_start\n15 playback_finish stall=4", "playing 2-11, rebuffering 11-15");
        pieces(
            "15 playback_pause stall=4\n20 heartbeat",
            "playing 2-11, rebuffering 11-15, paused 15-20",
        );
        pieces(
            "10 stall_start\n12 heartbeat stall=4\n15 stall_end",
            "playing 2-10, rebuffering 10-15",
        );
    }

    #[test]
    fn a_stall_that_was_seen_and_is_reported_later_counts_once() {
        columns(
            "10 stall_start\n12 stall_end\n30 heartbeat stall=2.1",
            "stall_ms=2000 stall_count=1",
        );
        columns(
            "10 stall_start\n12 stall_end\n30 heartbeat stall=5 stalls=2",
            "stall_ms=5000 stall_count=2",
        );
        columns(
            "10 stall_start\n12 stall_end\n20 heartbeat\n30 heartbeat stall=2",
            "stall_ms=4000 stall_count=2",
        );
    }

    #[test]
    fn a_report_of_several_stalls_is_placed_as_one_length() {
        pieces("20 heartbeat stall=6 stalls=3", "playing 2-14, rebuffering 14-20");
        columns(
            "20 heartbeat stall=6 stalls=3",
            "stall_ms=6000 stall_count=3 stall_conn_count=3 stall_max_ms=2000",
        );
        columns("20 heartbeat stall=0.002 stalls=3", "stall_ms=2 stall_count=2");
    }

    #[test]
    fn counters_tell_of_stalls_that_no_report_told_of() {
        let total = "stall_ms=4150 stall_count=3";
        columns("20 stall_end stall=1.2\n60 playback_finish bsa=3 bsda=4.15", total);
        columns("60 playback_finish stall=1.2 bsa=3 bsda=4.15", total);
        columns("20 heartbeat bsa=1 bsda=1.2\n60 heartbeat bsa=3 bsda=4.15", total);
        columns("20 heartbeat bsa=3 bsda=4.15\n60 heartbeat bsa=3 bsda=4.15", total);
        columns("20 stall_end stall=4\n60 heartbeat bsa=1 bsda=4.4", "stall_ms=4000 stall_count=1");
        columns("20 stall_end stall=4\n60 heartbeat bsa=1 bsda=4.5", "stall_ms=4500 stall_count=1");
        columns(
            "20 heartbeat bsa=1 bsda=2\n60 heartbeat bsa=1 bsda=1",
            "stall_ms=3000 stall_count=2",
        );
        columns(
            "20 stall_start\n22 heartbeat bsa=1 bsda=0\n24 stall_end\n30 heartbeat bsa=1 bsda=4",
            "stall_ms=4000 stall_count=1",
        );
        columns(
            "20 stall_start bsa=2 bsda=3\n25 stall_end\n30 heartbeat",
            "stall_ms=8000 stall_count=2",
        );
        columns(
            "20 heartbeat state=rebuffering stall=3\n25 stall_end\n30 heartbeat",
            "stall_ms=8000 stall_count=2",
        );
        columns("20 heartbeat bsa=1 bsda=2000", "stall_ms=0 anomalies=1");
    }

    #[test]
    fn buffering_inside_a_seek_is_no_unreported_stall() {
        columns(
            "10 seek_start\n11 stall_start\n14 stall_end\n14 playback_start seq=1\n20 heartbeat bsa=1 bsda=3",
            "stall_ms=0 seek_wait_ms=4000",
        );
    }

    #[test]
    fn counters_of_a_session_that_goes_on_begin_where_they_stand() {
        check_columns(
            "0 heartbeat bsa=3 bsda=4 dropped=100\n30 heartbeat bsa=4 bsda=6 dropped=130",
            "-",
            "stall_ms=2000 stall_count=1 dropped_frames=30",
        );
        check_columns(
            "0 playback_start seq=40\n30 heartbeat seq=41 bsa=3 bsda=4 dropped=100\n60 heartbeat seq=42 bsa=3 bsda=4 dropped=7",
            "-",
            "stall_ms=0 stall_count=0 dropped_frames=7",
        );
    }

    #[test]
    fn an_open_stall_is_provisional_until_it_ends() {
        let provisional = |text: &str, watermark: &str| -> Vec<bool> {
            let facts = facts(&format!("{PLAY}\n{text}"), watermark);
            facts[0].pieces.iter().map(|piece| piece.is_provisional).collect()
        };
        assert_eq!(provisional("50 stall_start\n70 heartbeat", "-"), [false, false, true, true]);
        assert_eq!(provisional("50 stall_start\n70 stall_end", "-"), [false; 4]);
        assert_eq!(provisional("50 stall_start\n55 heartbeat", "1000"), [false; 5]);
    }
}
