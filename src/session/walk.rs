//! The walk through one session, event by event: what the player does, and what the row will say.
//!
//! Stands below `timeline`, which hands it the events of one session in canonical order and a verdict
//! on each error. The walk keeps the state of the player; where its time went is kept in `pieces`.
//!
//! Invariant: a report of an impossible length is counted and is in no sum.

use std::sync::Arc;

use super::outlook::{Verdict, shows_frame};
use super::pieces::{Piece, PostSeek, RATE_ONE_PPM, Shown, Stretches};
use super::row::{add_piece, blank_row};
use super::shard::Kept;
use super::{EventDetail, SessionSettings};
use crate::event::EventKind;
use crate::event::facts::{Outcome, PlaybackSession, PlaybackState, Segments};

/// Longer reported lengths are broken clocks (3.1, rule 8); seeks are held to the bound of stalls.
const STALL_MAX_MS: i64 = 30 * 60_000;
const STARTUP_MAX_MS: i64 = 10 * 60_000;
const BITRATE_MAX_BPS: i64 = 200_000_000;
/// Players offer up to 16 times the speed; more is not a rate.
const PLAYBACK_RATE_MAX: f64 = 16.0;
/// Longest extension of a stall that ends in silence (2.4).
const OPEN_STALL_MAX_MS: i64 = 120_000;
/// A session is timed out after this many heartbeats failed to come (2.4).
const HEARTBEATS_MISSED: i64 = 3;
/// A position counts as reached after this much playing since the last seek (3.6).
const PLAYED_THERE_MIN_MS: i64 = 1_000;
/// The end counts as reached within 2 s or 1 % of it (3.6).
const END_TOLERANCE_MS: i64 = 2_000;

/// A seek whose start has been seen and whose end has not.
#[derive(Debug, Clone, Copy, Default)]
struct OpenSeek {
    was_paused: bool,
    /// The seek itself is over and only its buffering is awaited.
    sought: bool,
    stalled: bool,
}

/// What ended the session, as far as its events tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    None,
    /// The player said so, and why.
    Ended(&'static str),
    Failed,
    /// An error that may still turn out to have been recovered from.
    Undecided,
}

/// Whose session it is, which the walk does not ask.
pub struct Identity {
    pub session_id: String,
    pub session_key: String,
    pub segments: Arc<Segments>,
}

/// The walk through one session.
pub struct Walk<'a> {
    settings: &'a SessionSettings,
    stretches: Stretches,
    shown: Vec<Shown>,
    /// What the player does, whether or not anybody sees it.
    state: Option<PlaybackState>,
    in_background: bool,
    seek: OpenSeek,
    post_seek: PostSeek,
    played_since_seek_ms: i64,
    reached_ms: Option<i64>,
    first_request_ms: Option<i64>,
    framed: bool,
    /// True if the first frame was reported and not only implied.
    start_seen: bool,
    startup_ms: Option<i64>,
    last_evidence_ms: i64,
    ending: Ending,
    row: PlaybackSession,
}

impl<'a> Walk<'a> {
    pub fn new(settings: &'a SessionSettings, started_at_ms: i64) -> Self {
        Self {
            settings,
            stretches: Stretches::new(started_at_ms),
            shown: Vec::new(),
            state: None,
            in_background: false,
            seek: OpenSeek::default(),
            post_seek: PostSeek {
                ended_ms: None,
                grace_ms: settings.post_seek_grace_ms,
            },
            played_since_seek_ms: 0,
            reached_ms: None,
            first_request_ms: None,
            framed: false,
            start_seen: false,
            startup_ms: None,
            last_evidence_ms: started_at_ms,
            ending: Ending::None,
            row: blank_row(started_at_ms),
        }
    }

    /// Takes the next event. `verdict` is asked for if the event is an error before the end.
    pub fn take(&mut self, event: &Kept, detail: &EventDetail, verdict: impl FnOnce() -> Verdict) {
        let is_error = event.kind == EventKind::PlaybackError;
        self.row.events += 1;
        self.row.errors += i64::from(is_error);
        if self.ending != Ending::None {
            return;
        }
        if self.is_bogus_report(event.kind, detail) {
            self.row.anomalies += 1;
            return;
        }
        self.observe(event, detail);
        if is_error {
            self.on_error(event.event_ts_ms, verdict(), detail);
        }
    }

    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// Time of the last event that counts; nothing is known of the time after it.
    pub fn last_evidence_ms(&self) -> i64 {
        self.last_evidence_ms
    }

    /// A report of an impossible length says nothing, not even that the player lives.
    fn is_bogus_report(&self, kind: EventKind, detail: &EventDetail) -> bool {
        match kind {
            EventKind::StallEnd => {
                let ends_wait =
                    self.state == Some(PlaybackState::Rebuffering) || self.state == Some(PlaybackState::Seeking) && self.seek.stalled;
                is_insane(detail.stall_ms, STALL_MAX_MS) && !ends_wait
            }
            EventKind::SeekEnd => is_insane(detail.seek_ms, STALL_MAX_MS) && self.state != Some(PlaybackState::Seeking),
            _ => false,
        }
    }

    fn observe(&mut self, event: &Kept, detail: &EventDetail) {
        let now_ms = event.event_ts_ms;
        self.advance(now_ms);
        self.observe_position(event, detail);
        self.observe_background(detail);
        self.observe_shown(now_ms, detail);
        self.observe_startup(event.kind, detail);
        match event.kind {
            EventKind::PlaybackRequest => self.on_request(now_ms),
            EventKind::PlaybackStart => self.on_start(now_ms, detail),
            EventKind::Heartbeat => self.on_heartbeat(event, detail),
            EventKind::PlaybackPause => self.on_pause(),
            EventKind::StallStart => self.on_stall_start(now_ms),
            EventKind::StallEnd => self.on_stall_end(now_ms, detail),
            EventKind::SeekStart => self.on_seek_start(),
            EventKind::SeekEnd => self.on_seek_end(now_ms, detail),
            EventKind::PlaybackFinish => self.on_finish(),
            EventKind::SessionEnd => self.on_session_end(now_ms, detail),
            _ => {}
        }
        self.enter(now_ms);
        if self.framed && self.row.start_bitrate_bps.is_none() {
            self.row.start_bitrate_bps = self.shown.last().and_then(|shown| shown.bitrate_bps);
        }
    }

    fn advance(&mut self, now_ms: i64) {
        let length_ms = self.stretches.advance(now_ms);
        if self.stretches.state() == Some(PlaybackState::Playing) {
            self.played_since_seek_ms += length_ms;
        }
        self.last_evidence_ms = now_ms;
    }

    fn observe_position(&mut self, event: &Kept, detail: &EventDetail) {
        if let Some(duration_ms) = detail.duration_ms.filter(|ms| *ms > 0) {
            self.row.duration_ms = Some(duration_ms);
        }
        self.row.max_playhead_ms = self.row.max_playhead_ms.max(event.playhead_ms);
        let tells_position = matches!(
            event.kind,
            EventKind::Heartbeat | EventKind::PlaybackPause | EventKind::PlaybackFinish
        );
        let was_playing = self.stretches.state() == Some(PlaybackState::Playing);
        if tells_position && was_playing && self.played_since_seek_ms >= PLAYED_THERE_MIN_MS {
            self.reached_ms = self.reached_ms.max(event.playhead_ms);
        }
    }

    fn observe_background(&mut self, detail: &EventDetail) {
        let Some(in_background) = detail.background else {
            return;
        };
        self.in_background = in_background;
        if in_background && !self.framed {
            self.flag("startup_background");
        }
    }

    fn observe_shown(&mut self, now_ms: i64, detail: &EventDetail) {
        let before = self.shown.last().copied().unwrap_or(Shown {
            from_ms: now_ms,
            bitrate_bps: None,
            rate_ppm: RATE_ONE_PPM,
        });
        let mut shown = before;
        match detail.bitrate_bps {
            Some(bitrate_bps) if bitrate_bps > BITRATE_MAX_BPS => self.row.anomalies += 1,
            Some(bitrate_bps) if bitrate_bps > 0 => shown.bitrate_bps = Some(bitrate_bps),
            _ => {}
        }
        if let Some(rate) = detail.playback_rate
            && (0.0..=PLAYBACK_RATE_MAX).contains(&rate)
        {
            shown.rate_ppm = (rate * RATE_ONE_PPM as f64).round() as i64;
        }
        if (shown.bitrate_bps, shown.rate_ppm) == (before.bitrate_bps, before.rate_ppm) {
            return;
        }
        if let (true, Some(old), Some(new)) = (self.framed, before.bitrate_bps, shown.bitrate_bps) {
            self.row.switches_up += i64::from(new > old);
            self.row.switches_down += i64::from(new < old);
        }
        shown.from_ms = now_ms;
        self.shown.push(shown);
    }

    fn observe_startup(&mut self, kind: EventKind, detail: &EventDetail) {
        if matches!(kind, EventKind::Metadata | EventKind::Custom) {
            return;
        }
        if is_insane(detail.startup_ms, STARTUP_MAX_MS) {
            self.row.anomalies += 1;
        } else if self.startup_ms.is_none() {
            self.startup_ms = detail.startup_ms;
        }
    }

    fn on_request(&mut self, now_ms: i64) {
        self.first_request_ms.get_or_insert(now_ms);
        if !self.framed {
            self.state = Some(PlaybackState::Starting);
        } else if self.state == Some(PlaybackState::Paused) {
            self.state = Some(PlaybackState::Playing);
        } else {
            self.seek.was_paused = false;
        }
    }

    fn on_start(&mut self, now_ms: i64, detail: &EventDetail) {
        match self.state {
            Some(PlaybackState::Rebuffering) => self.settle_open_stall(now_ms, detail.stall_ms),
            Some(PlaybackState::Seeking) => self.leave_seek(now_ms),
            Some(PlaybackState::Playing) => self.place_reported_stall(now_ms, detail.stall_ms),
            _ => {}
        }
        self.start_seen |= !self.framed;
        self.framed = true;
        self.state = Some(PlaybackState::Playing);
    }

    fn on_heartbeat(&mut self, event: &Kept, detail: &EventDetail) {
        if shows_frame(event) {
            self.on_implied_frame();
        }
        // While a stall is open its length is not known yet, whatever the counter says.
        if self.framed && self.state != Some(PlaybackState::Rebuffering) {
            self.place_reported_stall(event.event_ts_ms, detail.stall_ms);
        }
    }

    /// A heartbeat or an end shows that a first frame was seen and its event lost. How long the start
    /// took is then unknown, so no startup is counted.
    fn on_implied_frame(&mut self) {
        if self.framed {
            return;
        }
        self.framed = true;
        self.flag("inferred_frame");
        self.stretches.forget_starting();
        self.state = Some(PlaybackState::Playing);
    }

    fn on_pause(&mut self) {
        if self.state == Some(PlaybackState::Seeking) {
            self.post_seek.ended_ms = Some(self.last_evidence_ms);
        }
        if self.state.is_some() {
            self.state = Some(PlaybackState::Paused);
        }
    }

    fn on_stall_start(&mut self, now_ms: i64) {
        match self.state {
            Some(PlaybackState::Seeking) => self.seek.stalled = true,
            // Buffering that begins where the seek ended is still the seek (3.1, rule 3).
            Some(PlaybackState::Playing) if self.post_seek.ended_ms == Some(now_ms) => {
                self.state = Some(PlaybackState::Seeking);
                self.seek = OpenSeek {
                    was_paused: false,
                    sought: true,
                    stalled: true,
                };
            }
            Some(PlaybackState::Playing) => self.state = Some(PlaybackState::Rebuffering),
            _ => {}
        }
    }

    fn on_stall_end(&mut self, now_ms: i64, detail: &EventDetail) {
        match self.state {
            Some(PlaybackState::Rebuffering) => self.settle_open_stall(now_ms, detail.stall_ms),
            Some(PlaybackState::Seeking) => {
                self.seek.stalled = false;
                if self.seek.sought {
                    self.leave_seek(now_ms);
                } else if detail.stall_ms.is_some_and(|ms| ms > 0) {
                    self.flag("stall_clipped");
                }
            }
            _ => self.place_reported_stall(now_ms, detail.stall_ms),
        }
    }

    fn place_reported_stall(&mut self, now_ms: i64, reported_ms: Option<i64>) {
        if is_insane(reported_ms, STALL_MAX_MS) {
            self.row.anomalies += 1;
        } else if let Some(length_ms) = reported_ms.filter(|ms| *ms > 0) {
            self.place_stall(now_ms, length_ms);
        }
    }

    /// A stall whose start was seen ends. The player's own length wins if it is sane.
    fn settle_open_stall(&mut self, now_ms: i64, reported_ms: Option<i64>) {
        self.state = Some(PlaybackState::Playing);
        let is_visible = self.stretches.state() == Some(PlaybackState::Rebuffering);
        if is_insane(reported_ms, STALL_MAX_MS) {
            self.row.anomalies += 1;
        } else if let (true, Some(length_ms)) = (is_visible, reported_ms.filter(|ms| *ms > 0)) {
            self.stretches.unstall_present();
            self.place_stall(now_ms, length_ms);
        }
    }

    fn place_stall(&mut self, now_ms: i64, length_ms: i64) {
        let state = self.visible_state();
        let placed_ms = self.stretches.place_stall(now_ms, length_ms, state, self.post_seek);
        self.played_since_seek_ms = (self.played_since_seek_ms - placed_ms).max(0);
        if placed_ms < length_ms {
            self.flag("stall_clipped");
        }
    }

    fn on_seek_start(&mut self) {
        if !self.framed {
            self.flag("startup_seek");
            return;
        }
        self.played_since_seek_ms = 0;
        match self.state {
            Some(PlaybackState::Seeking) => self.seek.sought = false,
            Some(state) => {
                self.seek = OpenSeek {
                    was_paused: state == PlaybackState::Paused,
                    ..OpenSeek::default()
                };
                self.state = Some(PlaybackState::Seeking);
            }
            None => {}
        }
    }

    fn on_seek_end(&mut self, now_ms: i64, detail: &EventDetail) {
        if !self.framed {
            self.flag("startup_seek");
            return;
        }
        if self.state == Some(PlaybackState::Seeking) {
            self.row.anomalies += i64::from(is_insane(detail.seek_ms, STALL_MAX_MS));
            self.seek.sought = true;
            if !self.seek.stalled {
                self.leave_seek(now_ms);
            }
            return;
        }
        if let Some(length_ms) = detail.seek_ms.filter(|ms| *ms > 0) {
            let state = self.visible_state();
            self.stretches.place_seek(now_ms, length_ms, state, self.post_seek);
        }
        self.post_seek.ended_ms = Some(now_ms);
        self.played_since_seek_ms = 0;
    }

    fn leave_seek(&mut self, now_ms: i64) {
        let resumed = if self.seek.was_paused {
            PlaybackState::Paused
        } else {
            PlaybackState::Playing
        };
        self.state = Some(resumed);
        self.post_seek.ended_ms = Some(now_ms);
        self.played_since_seek_ms = 0;
    }

    fn on_finish(&mut self) {
        self.on_implied_frame();
        self.row.finished = 1;
        self.ending = Ending::Ended("finished");
    }

    fn on_session_end(&mut self, now_ms: i64, detail: &EventDetail) {
        match detail.end_reason {
            Some("error") => self.fail(now_ms, detail),
            Some(reason) => {
                self.row.finished = i64::from(reason == "finished" && self.framed);
                self.ending = Ending::Ended(reason);
            }
            None => self.ending = Ending::Ended("user_quit"),
        }
    }

    fn on_error(&mut self, now_ms: i64, verdict: Verdict, detail: &EventDetail) {
        match verdict {
            Verdict::Warning => {}
            Verdict::PlayedOn => self.row.recovered_errors += 1,
            Verdict::Restarted => {
                self.row.recovered_errors += 1;
                if self.framed {
                    self.state = None;
                    self.enter(now_ms);
                }
            }
            Verdict::Undecided => self.ending = Ending::Undecided,
            Verdict::Fatal => self.fail(now_ms, detail),
        }
    }

    fn fail(&mut self, now_ms: i64, detail: &EventDetail) {
        self.row.fatal_errors = 1;
        self.row.fatal_error_at_ms = Some(now_ms);
        self.row.error_code.clone_from(&detail.error_code);
        self.ending = Ending::Failed;
    }

    fn enter(&mut self, now_ms: i64) {
        let state = self.visible_state();
        self.stretches.enter(now_ms, state, self.post_seek);
    }

    fn visible_state(&self) -> Option<PlaybackState> {
        if self.in_background && self.state.is_some() {
            return Some(PlaybackState::Background);
        }
        self.state
    }

    fn flag(&mut self, name: &'static str) {
        if !self.row.dq_flags.contains(&name) {
            self.row.dq_flags.push(name);
        }
    }

    /// How long after the last evidence a silent session is closed (2.4).
    pub fn timeout(&self, heartbeat_ms: i64) -> i64 {
        if self.in_background || self.state == Some(PlaybackState::Paused) {
            return self.settings.idle_gap_ms;
        }
        let patience_ms = heartbeat_ms.saturating_mul(HEARTBEATS_MISSED);
        let floor_ms = self.settings.timeout_floor_ms;
        patience_ms.max(floor_ms).min(self.settings.idle_gap_ms)
    }

    /// A stall that ends in silence lasted at least until the next heartbeat would have come.
    pub fn extend_open_stall(&mut self, heartbeat_ms: i64) {
        if self.stretches.state() != Some(PlaybackState::Rebuffering) {
            return;
        }
        let end_ms = self.last_evidence_ms + heartbeat_ms.min(OPEN_STALL_MAX_MS);
        self.advance(end_ms);
        self.flag("stall_open_end");
    }

    /// Ends the walk: the row, and the pieces whose sums are its totals.
    pub fn finish(mut self, identity: Identity, end_reason: Option<&'static str>) -> (PlaybackSession, Vec<Piece>) {
        self.row.session_id = identity.session_id;
        self.row.session_key = identity.session_key;
        self.row.segments = identity.segments;
        self.settle_row(end_reason);
        self.settle_startup();
        self.row.quartile = self.quartile();
        self.row.dq_flags.sort_unstable();
        let pieces = self.stretches.pieces(&self.shown);
        for piece in &pieces {
            add_piece(&mut self.row, piece);
        }
        (self.row, pieces)
    }

    fn settle_row(&mut self, end_reason: Option<&'static str>) {
        let requested = self.first_request_ms.is_some();
        if self.framed && !requested {
            self.flag("inferred_request");
        }
        let row = &mut self.row;
        row.ended_at_ms = self.last_evidence_ms;
        row.end_reason = end_reason;
        row.is_open = end_reason.is_none();
        row.attempts = i64::from(requested || self.framed);
        row.plays = i64::from(self.framed);
        row.playback_failures = row.plays * row.fatal_errors;
        row.outcome = match (self.framed, requested, row.fatal_errors) {
            (true, _, _) => Outcome::Played,
            (false, false, _) => Outcome::NoAttempt,
            (false, true, 1) => Outcome::StartFailure,
            (false, true, _) if row.is_open => Outcome::Open,
            (false, true, _) => Outcome::ExitBeforeStart,
        };
        row.start_failures = i64::from(row.outcome == Outcome::StartFailure);
        row.exits_before_start = i64::from(row.outcome == Outcome::ExitBeforeStart);
        if row.outcome == Outcome::ExitBeforeStart {
            let wait_ms = self.first_request_ms.map(|ms| row.ended_at_ms - ms);
            row.exit_wait_ms = wait_ms;
        }
    }

    /// A start with a seek or out of sight is no measure of the service (3.3); flags count it.
    fn settle_startup(&mut self) {
        let is_excluded = |flag: &&str| matches!(*flag, "startup_seek" | "startup_background");
        if !self.framed || self.row.dq_flags.iter().any(is_excluded) {
            return;
        }
        let may_derive = self.start_seen && self.first_request_ms.is_some();
        let derived_ms = may_derive.then(|| self.stretches.starting_ms());
        self.row.startup_ms = self.startup_ms.or(derived_ms);
        if is_insane(self.row.startup_ms, STARTUP_MAX_MS) {
            self.row.startup_ms = None;
            self.row.anomalies += 1;
        }
    }

    fn quartile(&self) -> Option<i64> {
        let stream_type = self.row.segments.stream_type.as_deref();
        if !self.framed || matches!(stream_type, Some("live" | "ll_live")) {
            return None;
        }
        let duration_ms = self.row.duration_ms?;
        let tolerance_ms = END_TOLERANCE_MS.max(duration_ms / 100);
        let reached_ms = self.reached_ms.unwrap_or(0).max(0);
        let reached_end = duration_ms > tolerance_ms && reached_ms >= duration_ms - tolerance_ms;
        if self.row.finished == 1 || reached_end {
            return Some(100);
        }
        // Wide, since a length is whatever the sender says.
        let percent = i128::from(reached_ms) * 100 / i128::from(duration_ms);
        Some((percent.min(99) / 25 * 25) as i64)
    }
}

fn is_insane(length_ms: Option<i64>, max_ms: i64) -> bool {
    length_ms.is_some_and(|ms| !(0..=max_ms).contains(&ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fixtures::{check, check_pieces, facts};

    #[test]
    fn m1_a_clip_with_a_stall_and_a_pause() {
        check(
            "0 playback_request
             2 playback_start
             20 stall_start
             30 stall_end
             40 playback_pause at=28 duration=60
             70 playback_start
             102 playback_finish at=60 duration=60",
            "102",
            &["attempts=1 plays=1 startup_ms=2000 playing_ms=60000 startup_wait_ms=2000 \
               stall_ms=10000 stall_count=1 paused_ms=30000 quartile=100 finished=1 finished"],
        );
    }

    #[test]
    fn m3_buffering_inside_a_seek_is_seek_wait() {
        let seek = "0 playback_request
             1 playback_start
             30 seek_start
             31.2 seek_end
             31.2 stall_start seq=9
             33 playback_start";
        let row = "attempts=1 plays=1 open=1 startup_ms=1000 playing_ms=56000 \
                   startup_wait_ms=1000 seek_wait_ms=3000 seek_count=1";
        check(&format!("{seek}\n60 heartbeat"), "60", &[row]);
        let left_by_stall_end = seek.replace("33 playback_start", "33 stall_end");
        check(&format!("{left_by_stall_end}\n60 heartbeat"), "60", &[row]);
        let never_said_sought = seek.replace("31.2 seek_end", "31.1 metadata");
        check(&format!("{never_said_sought}\n60 heartbeat"), "60", &[row]);

        let after = "attempts=1 plays=1 open=1 startup_ms=1000 playing_ms=55500 \
                     startup_wait_ms=1000 stall_seek_ms=500 seek_wait_ms=3000 seek_count=1";
        check(&format!("{seek}\n33.5 stall_start\n34 stall_end\n60 heartbeat"), "60", &[after]);
        check(&format!("{seek}\n34 stall_end stall=0.5\n60 heartbeat"), "60", &[after]);
    }

    #[test]
    fn m4_exits_before_start_keep_their_wait() {
        for (at, wait) in [("3.2", "3200"), ("0.6", "600")] {
            check(
                &format!("0 playback_request\n{at} session_end reason=user_quit"),
                "-",
                &[&format!(
                    "attempts=1 exit_wait_ms={wait} exits_before_start=1 startup_wait_ms={wait} user_quit"
                )],
            );
        }
    }

    #[test]
    fn m13_the_pause_of_a_natural_end_is_its_five_milliseconds() {
        check(
            "590.2 heartbeat at=590.2 duration=596.48\n595.2 playback_pause at=595.2\n595.205 playback_finish",
            "-",
            &["attempts=1 plays=1 playing_ms=5000 paused_ms=5 quartile=100 finished=1 \
               finished inferred_frame inferred_request"],
        );
    }

    #[test]
    fn m14_the_background_takes_the_time_and_the_gap() {
        check(
            "0 playback_start\n100 heartbeat background=true\n130 heartbeat\n380 heartbeat\n\
             400 heartbeat background=false\n410 session_end",
            "-",
            &["attempts=1 plays=1 playing_ms=110000 background_ms=300000 user_quit inferred_request"],
        );
    }

    #[test]
    fn a_seen_stall_takes_the_length_that_the_player_reports() {
        check_pieces(
            "0 playback_start\n10 stall_start\n13 stall_end stall=2\n20 heartbeat",
            "-",
            "playing 0-11, rebuffering 11-13, playing 13-20",
        );
        check_pieces(
            "0 playback_start\n10 stall_start\n13 playback_start stall=4\n20 heartbeat",
            "-",
            "playing 0-9, rebuffering 9-13, playing 13-20",
        );
        check(
            "0 playback_start\n10 stall_start\n13 stall_end stall=-1\n20 session_end",
            "-",
            &["attempts=1 plays=1 playing_ms=17000 stall_ms=3000 stall_count=1 anomalies=1 user_quit inferred_request"],
        );
    }

    #[test]
    fn a_start_with_a_pause_a_seek_or_out_of_sight() {
        check(
            "0 playback_request\n2 playback_pause\n5 playback_request\n6 playback_start\n7 session_end",
            "-",
            &["attempts=1 plays=1 startup_ms=3000 playing_ms=1000 startup_wait_ms=3000 paused_ms=3000 user_quit"],
        );
        check(
            "0 playback_request\n2 seek_end seek=1\n6 playback_start\n7 session_end",
            "-",
            &["attempts=1 plays=1 playing_ms=1000 startup_wait_ms=6000 user_quit startup_seek"],
        );
        check(
            "0 playback_request\n2 metadata background=true\n5 metadata background=false\n6 playback_start\n7 session_end",
            "-",
            &["attempts=1 plays=1 playing_ms=1000 startup_wait_ms=3000 background_ms=3000 user_quit startup_background"],
        );
        check(
            "0 playback_request\n6 playback_start startup=601\n7 session_end",
            "-",
            &["attempts=1 plays=1 startup_ms=6000 playing_ms=1000 startup_wait_ms=6000 anomalies=1 user_quit"],
        );
    }

    #[test]
    fn a_heartbeat_shows_the_frame_whose_event_was_lost() {
        check(
            "0 playback_request\n8 heartbeat at=5\n13 heartbeat at=10\n14 session_end",
            "-",
            &["attempts=1 plays=1 playing_ms=6000 user_quit inferred_frame"],
        );
        check(
            "0 playback_request\n8 heartbeat at=0\n9 session_end",
            "-",
            &["attempts=1 exit_wait_ms=9000 exits_before_start=1 startup_wait_ms=9000 user_quit"],
        );
    }

    #[test]
    fn nothing_counts_after_the_end() {
        check(
            "0 playback_request\n1 playback_start\n9 playback_finish\n10 heartbeat at=3\n11 playback_pause",
            "-",
            &["attempts=1 plays=1 startup_ms=1000 playing_ms=8000 startup_wait_ms=1000 finished=1 finished"],
        );
    }

    #[test]
    fn a_quartile_is_reached_by_playing_there() {
        let quartile = |text: &str| {
            facts(&format!("0 playback_start duration=100 stream=vod\n{text}"), "-")[0]
                .session
                .quartile
        };
        assert_eq!(quartile("30 heartbeat at=30"), Some(25));
        assert_eq!(quartile("10 seek_end seek=0.1\n10.9 heartbeat at=80"), Some(0));
        assert_eq!(quartile("10 seek_end seek=0.1\n11 heartbeat at=80"), Some(75));
        assert_eq!(quartile("30 heartbeat at=98"), Some(100));
        assert_eq!(quartile("30 heartbeat at=97.9"), Some(75));
        assert_eq!(quartile("30 playback_finish"), Some(100));
        assert_eq!(quartile("30 heartbeat at=30 stream=live"), None);
    }

    #[test]
    fn an_event_that_implies_no_play_is_no_attempt() {
        check("0 session_start\n1 metadata", "1000", &["timeout"]);
    }

    /// Outcome of the only session of a script.
    fn check_outcome(text: &str, watermark: &str, expected: Outcome) {
        let facts = facts(text, watermark);
        let outcomes: Vec<Outcome> = facts.iter().map(|f| f.session.outcome).collect();
        assert_eq!(outcomes, [expected], "\n{text}");
        let is_attempt = facts[0].session.attempts == 1;
        assert_eq!(is_attempt, expected != Outcome::NoAttempt, "\n{text}");
    }

    #[test]
    fn an_outcome_is_that_of_an_attempt_or_none() {
        check_outcome("0 session_start\n1 metadata", "1000", Outcome::NoAttempt);
        check_outcome("0 session_start\n1 metadata", "-", Outcome::NoAttempt);
        check_outcome("0 session_start\n1 session_end", "-", Outcome::NoAttempt);
        check_outcome("0 session_start\n1 playback_error fatal=true", "1000", Outcome::NoAttempt);
        check_outcome("0 playback_request", "-", Outcome::Open);
        check_outcome("0 playback_request", "1000", Outcome::ExitBeforeStart);
        check_outcome("0 playback_request\n1 playback_error fatal=true", "-", Outcome::Open);
        check_outcome("0 playback_request\n1 playback_error fatal=true", "1000", Outcome::StartFailure);
        check_outcome("0 playback_request\n1 playback_start", "-", Outcome::Played);
        check_outcome("0 playback_start\n1 playback_error fatal=true", "1000", Outcome::Played);
    }
}
