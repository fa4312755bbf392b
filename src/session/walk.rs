//! The walk through one session, event by event: what the player does, and what the row will say.
//!
//! Stands below `timeline`, which hands it the events of one session in canonical order and a verdict
//! on each error. The walk keeps the state of the player; where its time went is kept in `pieces`. Its
//! parts, by subject: `ads`, `coverage`, `errors`, `picture`, `presence`, `seeks`,
//! `stalls`, `startup`.
//!
//! Invariant: a report of an impossible length is counted and is in no sum.
//! Invariant: what the walk holds is its own and bounded, save the stretches and the changes of the
//! picture, of which nothing older than `pieces::LOOK_BACK_MS` changes any more.

mod ads;
mod coverage;
mod errors;
mod picture;
mod presence;
mod seeks;
mod settle;
mod stalls;
mod startup;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::causes::{Causes, NEAR_MS};
use super::events::Kept;
use super::order::Numbering;
use super::outlook::{Verdict, is_request_log, is_snapshot, reported_state, takes_up_again};
use super::pieces::{LOOK_BACK_MS, Piece, Stretches};
use super::row::{add_piece, blank_row};
use super::{EventDetail, SessionSettings};
use crate::event::facts::{PlaybackSession, PlaybackState, Segments, StallCause};
use crate::event::names::Name;
use crate::event::{EventKind, ReportedState};
use ads::Ads;
use coverage::Coverage;
use errors::Errors;
use picture::Picture;
use presence::Beats;
use seeks::OpenSeek;
use stalls::Stalls;
use startup::Startup;

/// A sender that numbers its reports from 0 may have lost some of its first.
const FIRST_NUMBERS: i64 = 10;
/// More frames than a day at 1000 frames a second are no count of frames.
const DROPPED_FRAMES_MAX: i64 = 86_400_000;

/// What ended the session, as far as its events tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    None,
    /// The player said so, and why.
    Ended(#[serde(with = "crate::event::names::one")] Name),
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Walk {
    #[serde(skip)]
    settings: SessionSettings,
    stretches: Stretches,
    picture: Picture,
    coverage: Coverage,
    causes: Causes,
    stalls: Stalls,
    ads: Ads,
    errors: Errors,
    startup: Startup,
    beats: Beats,
    numbering: Numbering,
    /// What the player does, whether or not anybody sees it.
    state: Option<PlaybackState>,
    in_background: bool,
    seek: OpenSeek,
    paused_at_ms: Option<i64>,
    played_since_seek_ms: i64,
    reached_ms: Option<i64>,
    framed: bool,
    /// Nothing but requests that a CDN logged.
    is_request_mode: bool,
    buffer_ms: Option<i64>,
    object_duration_ms: Option<i64>,
    dropped_frames_total: Option<i64>,
    /// The session began with its player: the player's counters stood at zero.
    counts_from_zero: bool,
    last_evidence_ms: i64,
    ending: Ending,
    /// Its totals are those of the frozen pieces until `finish` adds the rest.
    row: PlaybackSession,
    has_frozen: bool,
}

impl Walk {
    /// `source` is the dialect of the session's first event.
    pub fn new(settings: SessionSettings, started_at_ms: i64, source: &'static str) -> Self {
        let mut row = blank_row(started_at_ms);
        row.source = source;
        Self {
            settings,
            stretches: Stretches::new(started_at_ms),
            picture: Picture::new(started_at_ms),
            coverage: Coverage::default(),
            causes: Causes::new(settings.post_seek_grace_ms),
            stalls: Stalls::default(),
            ads: Ads::default(),
            errors: Errors::default(),
            startup: Startup::default(),
            beats: Beats::default(),
            numbering: Numbering::default(),
            state: None,
            in_background: false,
            seek: OpenSeek::default(),
            paused_at_ms: None,
            played_since_seek_ms: 0,
            reached_ms: None,
            framed: false,
            is_request_mode: true,
            buffer_ms: None,
            object_duration_ms: None,
            dropped_frames_total: None,
            counts_from_zero: false,
            last_evidence_ms: started_at_ms,
            ending: Ending::None,
            row,
            has_frozen: false,
        }
    }

    /// Takes the next event. `verdict` is asked for if the event is an error before the end.
    pub fn take(&mut self, event: &Kept, detail: &EventDetail, verdict: impl FnOnce() -> Verdict) {
        self.row.events += 1;
        self.row.errors += i64::from(event.kind == EventKind::PlaybackError);
        self.observe_number(event, detail);
        if self.ending != Ending::None && !self.take_up_again(event, detail) {
            return;
        }
        if self.is_bogus_report(event.kind, detail) {
            self.row.anomalies += 1;
            return;
        }
        self.observe(event, detail);
        self.observe_error(event, detail, verdict);
    }

    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// Time of the last event that counts; nothing is known of the time after it.
    pub fn last_evidence_ms(&self) -> i64 {
        self.last_evidence_ms
    }

    fn observe_number(&mut self, event: &Kept, detail: &EventDetail) {
        if self.row.events == 1 {
            self.counts_from_zero = begins_a_player(event, detail);
        }
        self.numbering.take(event.seq, detail.source);
        self.is_request_mode &= is_request_log(detail.source);
        if event.is_mended {
            self.row.order_conflicts += 1;
            self.flag("ts_order_conflict");
        }
    }

    /// A start soon after the end goes on with the session (3.1, rule 1). Between the two is nothing.
    fn take_up_again(&mut self, event: &Kept, detail: &EventDetail) -> bool {
        if self.ending == Ending::Undecided || !takes_up_again(event, detail, self.last_evidence_ms) {
            return false;
        }
        if self.ending == Ending::Failed {
            self.unfail();
        }
        self.ending = Ending::None;
        self.change_state(self.last_evidence_ms, None);
        self.enter(self.last_evidence_ms);
        true
    }

    /// A report of an impossible length says nothing, not even that the player lives.
    fn is_bogus_report(&self, kind: EventKind, detail: &EventDetail) -> bool {
        match kind {
            EventKind::StallEnd => {
                let ends_wait =
                    self.state == Some(PlaybackState::Rebuffering) || self.state == Some(PlaybackState::Seeking) && self.seek.stalled;
                is_insane(detail.stall_ms, LOOK_BACK_MS) && !ends_wait
            }
            EventKind::SeekEnd => is_insane(detail.seek_ms, LOOK_BACK_MS) && self.state != Some(PlaybackState::Seeking),
            _ => false,
        }
    }

    fn observe(&mut self, event: &Kept, detail: &EventDetail) {
        let now_ms = event.event_ts_ms;
        self.enter_gap(now_ms, event.kind, detail);
        self.advance(now_ms);
        if event.kind == EventKind::Heartbeat {
            self.beats.take(now_ms);
        }
        self.observe_position(event, detail);
        self.observe_background(event.kind, detail);
        self.observe_content(event.kind, detail);
        self.observe_picture(event, detail);
        self.observe_buffers(event, detail);
        self.observe_startup(event.kind, detail);
        self.observe_stall_report(event, detail);
        // The counters hold no part of a stall that begins now, and all of one that ends now.
        let begins_stall = event.kind == EventKind::StallStart || reported_state(event.kind, detail) == Some(ReportedState::Rebuffering);
        if begins_stall {
            self.observe_counters(event, detail, true);
        }
        self.observe_transition(event, detail);
        self.observe_state(event, detail);
        if !begins_stall {
            self.observe_counters(event, detail, false);
        }
        self.enter(now_ms);
        if self.framed {
            self.picture.note_frame();
        }
    }

    fn observe_transition(&mut self, event: &Kept, detail: &EventDetail) {
        let now_ms = event.event_ts_ms;
        match event.kind {
            EventKind::PlaybackRequest => self.on_request(now_ms),
            EventKind::PlaybackStart => self.on_start(now_ms, detail),
            EventKind::PlaybackPause => self.on_pause(now_ms),
            EventKind::StallStart => self.on_stall_start(now_ms),
            EventKind::StallEnd => self.on_stall_end(now_ms, detail, event.readings.as_deref()),
            EventKind::SeekStart => self.on_seek_start(now_ms),
            EventKind::SeekEnd => self.on_seek_end(now_ms, detail),
            EventKind::PlaybackFinish => self.on_finish(now_ms),
            EventKind::SessionEnd => self.on_session_end(now_ms, detail),
            EventKind::RenditionUpdate | EventKind::RateChange => self.causes.note_switch(now_ms),
            kind => self.on_ad_event(now_ms, kind),
        }
    }

    /// The player's own word on its state makes up for a transition that was lost.
    fn observe_state(&mut self, event: &Kept, detail: &EventDetail) {
        let now_ms = event.event_ts_ms;
        match reported_state(event.kind, detail) {
            None | Some(ReportedState::Failed) => {}
            Some(ReportedState::Preloading) => self.on_preloading(),
            Some(ReportedState::Starting) => self.on_starting(now_ms),
            Some(ReportedState::Playing) => self.on_playing(now_ms),
            Some(ReportedState::Seeking) if self.state == Some(PlaybackState::Seeking) => {}
            Some(ReportedState::Seeking) => self.on_seek_start(now_ms),
            Some(ReportedState::Rebuffering) => self.on_stall_start(now_ms),
            Some(ReportedState::Paused) => self.on_pause(now_ms),
            Some(ReportedState::Waiting) => self.on_waiting(now_ms),
            Some(ReportedState::Ended) => self.on_finish(now_ms),
            Some(ReportedState::Quit) => self.ending = Ending::Ended("user_quit"),
        }
    }

    fn advance(&mut self, now_ms: i64) {
        let length_ms = self.stretches.advance(now_ms);
        if length_ms > 0 && self.shows_content() {
            self.startup.note_content();
        }
        let visible = self.stretches.state();
        if visible == Some(PlaybackState::Playing) {
            self.played_since_seek_ms += length_ms;
            if self.row.content_changes == 0 {
                self.coverage.play(length_ms, self.picture.rate_ppm());
            }
        }
        let is_stalled = self.state == Some(PlaybackState::Rebuffering) || self.seek.stalled;
        if is_stalled {
            self.stalls.wait(length_ms);
        }
        let is_watched = !matches!(
            visible,
            None | Some(PlaybackState::Paused | PlaybackState::Background | PlaybackState::Gap)
        );
        if is_watched {
            self.row.watched_ms += length_ms;
        }
        self.startup.wait(length_ms, visible);
        self.last_evidence_ms = now_ms;
    }

    fn observe_picture(&mut self, event: &Kept, detail: &EventDetail) {
        let is_of_ad = self.ads.is_on() || detail.is_ad || ads::is_ad_event(event.kind);
        if is_of_ad {
            return;
        }
        let changed = self.picture.observe(event, detail);
        self.row.anomalies += changed.anomalies;
        if changed.switched {
            self.causes.note_switch(event.event_ts_ms);
        }
    }

    fn observe_buffers(&mut self, event: &Kept, detail: &EventDetail) {
        let object_duration_ms = detail.media.as_deref().and_then(|media| media.object_duration_ms);
        self.object_duration_ms = object_duration_ms.filter(|ms| *ms > 0).or(self.object_duration_ms);
        let Some(readings) = event.readings.as_deref().filter(|_| is_snapshot(event.kind, detail)) else {
            return;
        };
        let buffers = [readings.buffer_ms, readings.buffer_video_ms, readings.buffer_audio_ms];
        if let Some(least_ms) = buffers.into_iter().flatten().min() {
            self.causes.note_buffer(event.event_ts_ms, least_ms);
            self.buffer_ms = Some(least_ms);
        }
        if let Some(total) = readings.dropped_frames_total {
            self.observe_dropped(total);
        }
    }

    /// A total that falls is that of a new player: it adds.
    fn observe_dropped(&mut self, total: i64) {
        if !(0..=DROPPED_FRAMES_MAX).contains(&total) {
            self.row.anomalies += 1;
            return;
        }
        let before = match self.dropped_frames_total.replace(total) {
            Some(last) if last <= total => last,
            None if !self.counts_from_zero => total,
            _ => 0,
        };
        self.row.dropped_frames += total - before;
    }

    fn on_start(&mut self, now_ms: i64, detail: &EventDetail) {
        match self.state {
            Some(PlaybackState::Rebuffering) => self.leave_stall(now_ms, detail.stall_ms),
            Some(PlaybackState::Seeking) => self.leave_seek(now_ms),
            _ => {}
        }
        self.startup.note_frame(now_ms, self.framed);
        self.errors.heal();
        self.framed = true;
        self.change_state(now_ms, Some(PlaybackState::Playing));
        if self.shows_content() {
            self.startup.note_content();
        }
    }

    fn on_playing(&mut self, now_ms: i64) {
        match self.state {
            Some(PlaybackState::Seeking) => self.leave_seek(now_ms),
            Some(PlaybackState::Rebuffering | PlaybackState::Waiting) => {}
            Some(PlaybackState::Paused) if self.framed => {}
            _ => return,
        }
        self.change_state(now_ms, Some(PlaybackState::Playing));
    }

    /// The state of which the standard gives only the letter.
    fn on_waiting(&mut self, now_ms: i64) {
        self.flag("undefined_state");
        if self.state.is_some() {
            self.change_state(now_ms, Some(PlaybackState::Waiting));
        }
    }

    /// A report shows that a first frame was seen and its event lost. How long the start took is then
    /// unknown, so no startup is counted.
    fn on_implied_frame(&mut self, now_ms: i64) {
        if self.framed {
            return;
        }
        self.framed = true;
        self.flag("inferred_frame");
        self.stretches.forget_starting(now_ms);
        self.change_state(now_ms, Some(PlaybackState::Playing));
    }

    fn on_finish(&mut self, now_ms: i64) {
        self.on_implied_frame(now_ms);
        self.end_naturally(now_ms);
        self.ending = Ending::Ended("finished");
    }

    fn end_naturally(&mut self, now_ms: i64) {
        self.row.finished = 1;
        self.stretches.put_down_to(now_ms - NEAR_MS, StallCause::NaturalEnd);
    }

    fn on_session_end(&mut self, now_ms: i64, detail: &EventDetail) {
        match detail.end_reason {
            Some("error") => self.fail(now_ms, detail),
            None if detail.state == Some(ReportedState::Failed) => self.fail(now_ms, detail),
            Some(reason) => {
                if reason == "finished" && self.framed {
                    self.end_naturally(now_ms);
                }
                self.ending = Ending::Ended(reason);
            }
            None => self.ending = Ending::Ended("user_quit"),
        }
    }

    /// Every change of state goes through here.
    fn change_state(&mut self, now_ms: i64, state: Option<PlaybackState>) {
        let paused = Some(PlaybackState::Paused);
        if self.state == paused && state != paused {
            self.end_pause(now_ms);
        }
        if self.state != paused && state == paused {
            self.paused_at_ms = Some(now_ms);
        }
        if state != Some(PlaybackState::Seeking) {
            self.seek.stalled = false;
        }
        self.state = state;
    }

    fn enter(&mut self, now_ms: i64) {
        let state = self.visible_state();
        self.stretches.enter(now_ms, state, &self.causes);
    }

    fn shows_content(&self) -> bool {
        self.framed && self.state == Some(PlaybackState::Playing) && !self.ads.is_on()
    }

    fn visible_state(&self) -> Option<PlaybackState> {
        if self.in_background && self.state.is_some() {
            return Some(PlaybackState::Background);
        }
        if self.state == Some(PlaybackState::Playing) && self.ads.is_on() {
            return Some(PlaybackState::Ad);
        }
        self.state
    }

    fn flag(&mut self, name: &'static str) {
        if !self.row.dq_flags.contains(&name) {
            self.row.dq_flags.push(name);
        }
    }

    /// Ends the walk: the row, and the pieces whose sums are its totals.
    pub fn finish(mut self, identity: Identity, end_reason: Option<&'static str>) -> (PlaybackSession, Vec<Piece>) {
        self.row.session_id = identity.session_id;
        self.row.session_key = identity.session_key;
        self.row.segments = identity.segments;
        if self.state == Some(PlaybackState::Paused) {
            self.end_pause(self.last_evidence_ms);
        }
        self.settle_row(end_reason);
        self.settle_startup();
        self.settle_coverage();
        let pieces = self.settle_pieces();
        self.row.stall_max_ms = self.row.stall_max_ms.max(self.stretches.longest_stall_ms());
        self.row.lost_reports = self.numbering.lost;
        self.row.score = self.score();
        self.row.dq_flags.sort_unstable();
        (self.row, pieces)
    }

    fn settle_pieces(&mut self) -> Vec<Piece> {
        let mut screen = self.picture.screen();
        let pieces = self.stretches.pieces(&mut screen, self.row.is_open);
        for piece in &pieces {
            add_piece(&mut self.row, piece);
        }
        let totals = screen.totals();
        self.row.audio_switches = totals.audio_switches;
        self.row.upscale_ppm_ms = totals.upscale_ppm_ms;
        self.row.upscale_known_ms = totals.upscale_known_ms;
        self.row.expected_frames = totals.expected_frames();
        self.row.picture_quality = totals.picture_quality();
        self.row.bitrate_basis = self.picture.basis().map(|basis| basis.as_str());
        self.row.start_bitrate_bps = self.picture.start_bitrate_bps();
        self.row.top_bitrate_bps = self.picture.top_bitrate_bps();
        pieces
    }
}

/// Whether the first event of a session is also the player's first. Some senders keep their session id,
/// and their counters, over a silence that ends a session here.
fn begins_a_player(first: &Kept, detail: &EventDetail) -> bool {
    let starts = matches!(
        first.kind,
        EventKind::SessionStart | EventKind::PlaybackRequest | EventKind::PlaybackStart
    );
    let state = reported_state(first.kind, detail);
    let loads = matches!(state, Some(ReportedState::Preloading | ReportedState::Starting));
    (starts || loads) && first.seq.is_none_or(|seq| seq < FIRST_NUMBERS)
}

fn is_insane(length_ms: Option<i64>, max_ms: i64) -> bool {
    length_ms.is_some_and(|ms| !(0..=max_ms).contains(&ms))
}

#[cfg(test)]
mod tests {
    use crate::event::facts::Outcome;
    use crate::session::fixtures::{check, check_pieces, facts};

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
