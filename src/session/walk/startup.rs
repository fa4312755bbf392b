//! Startup: how long the first frame took, and what became of the attempt (events and metrics, 3.2, 3.3).
//!
//! Stands beside `walk`, whose row it settles at the end.
//!
//! Invariant: attempts = plays + exits before start + start failures + open.

use serde::{Deserialize, Serialize};

use super::{Walk, is_insane};
use crate::event::EventKind;
use crate::event::facts::{Outcome, PlaybackState, Score};
use crate::session::EventDetail;
use crate::session::packed::shift;
use crate::session::score::{ScoreInput, ScoreParams, score};

/// A longer startup is a broken clock (3.1, rule 8).
const STARTUP_MAX_MS: i64 = 10 * 60_000;
/// A reported startup may be this much longer than the wall time in which it took place (2.6).
const REPORTED_SLACK_MS: i64 = 1_000;
/// A shorter wait is no verdict on the service (3.3).
const EARLY_EXIT_MS: i64 = 1_000;

/// What is known of a session's start.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Startup {
    pub first_request_ms: Option<i64>,
    /// The request itself was lost: nobody knows when it was.
    is_request_inferred: bool,
    /// When the first frame was reported, and not only implied.
    frame_ms: Option<i64>,
    starting_ms: i64,
    shows_content: bool,
    /// Wait between the first frame and the first of the content.
    content_wait_ms: i64,
    reported_ms: Option<i64>,
}

impl Startup {
    /// Moves all times.
    pub fn shift(&mut self, by_ms: i64) {
        shift(&mut self.first_request_ms, by_ms);
        shift(&mut self.frame_ms, by_ms);
    }

    /// Time passed in a state.
    pub fn wait(&mut self, length_ms: i64, visible: Option<PlaybackState>) {
        use PlaybackState::{Ad, Background, Gap, Paused, Starting};
        if visible == Some(Starting) {
            self.starting_ms += length_ms;
        }
        let waits_for_content = self.frame_ms.is_some() && !self.shows_content;
        if waits_for_content && !matches!(visible, None | Some(Ad | Background | Gap | Paused)) {
            self.content_wait_ms += length_ms;
        }
    }

    /// Time that an advertisement was thought to play was a wait.
    pub fn ad_was_stalled(&mut self, length_ms: i64) {
        if self.frame_ms.is_some() && !self.shows_content {
            self.content_wait_ms += length_ms;
        }
    }

    pub fn note_frame(&mut self, now_ms: i64, is_framed: bool) {
        if !is_framed {
            self.frame_ms = Some(now_ms);
        }
    }

    pub fn note_content(&mut self) {
        self.shows_content = true;
    }
}

impl Walk {
    pub(super) fn observe_startup(&mut self, kind: EventKind, detail: &EventDetail) {
        if matches!(kind, EventKind::Metadata | EventKind::Custom) {
            return;
        }
        if is_insane(detail.startup_ms, STARTUP_MAX_MS) {
            self.row.anomalies += 1;
        } else if self.startup.reported_ms.is_none() {
            self.startup.reported_ms = detail.startup_ms;
        }
    }

    pub(super) fn on_request(&mut self, now_ms: i64) {
        if !self.framed {
            // A resume after the first frame is no request for it, even where that was lost.
            self.startup.first_request_ms.get_or_insert(now_ms);
            self.change_state(now_ms, Some(PlaybackState::Starting));
        } else if self.state == Some(PlaybackState::Paused) {
            self.change_state(now_ms, Some(PlaybackState::Playing));
        } else {
            self.seek.was_paused = false;
        }
    }

    /// Loading before anybody wanted to play is no attempt.
    pub(super) fn on_preloading(&mut self) {
        if self.startup.first_request_ms.is_none() && !self.framed {
            self.row.preloaded = 1;
        }
    }

    /// The player is starting, and its request was lost.
    pub(super) fn on_starting(&mut self, now_ms: i64) {
        if self.framed || self.startup.first_request_ms.is_some() {
            return;
        }
        self.startup.is_request_inferred = true;
        self.on_request(now_ms);
    }

    pub(super) fn settle_row(&mut self, end_reason: Option<&'static str>) {
        let requested = self.startup.first_request_ms.is_some();
        if self.framed && !requested || self.startup.is_request_inferred {
            self.flag("inferred_request");
        }
        if self.shows_content() {
            self.startup.note_content();
        }
        let row = &mut self.row;
        row.ended_at_ms = self.last_evidence_ms;
        row.end_reason = end_reason;
        row.is_open = end_reason.is_none();
        row.attempts = i64::from(requested || self.framed);
        row.plays = i64::from(self.framed);
        row.content_plays = i64::from(self.framed && self.startup.shows_content);
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
            let wait_ms = self.startup.first_request_ms.map(|ms| row.ended_at_ms - ms);
            row.early_exits = i64::from(wait_ms.is_some_and(|ms| ms < EARLY_EXIT_MS));
            row.exit_wait_ms = wait_ms;
        }
        self.row.abandoned_in_stall = i64::from(self.is_abandoned_in_stall());
    }

    /// A start with a seek or out of sight is no measure of the service (3.3); flags count it.
    pub(super) fn settle_startup(&mut self) {
        let is_excluded = |flag: &&str| matches!(*flag, "startup_seek" | "startup_background");
        if !self.framed || self.row.dq_flags.iter().any(is_excluded) {
            return;
        }
        let derived = self.derived_startup();
        self.row.startup_derived_ms = derived.map(|(waited_ms, _)| waited_ms);
        self.row.startup_ms = self.startup.reported_ms.or(self.row.startup_derived_ms);
        if let (Some(reported_ms), Some((waited_ms, wall_ms))) = (self.startup.reported_ms, derived)
            && reported_ms > wall_ms + REPORTED_SLACK_MS
        {
            self.flag("msd_recomputed");
            self.row.startup_ms = Some(waited_ms);
        }
        if is_insane(self.row.startup_ms, STARTUP_MAX_MS) {
            self.row.startup_ms = None;
            self.row.anomalies += 1;
        }
        let content_wait_ms = self.startup.shows_content.then_some(self.startup.content_wait_ms);
        self.row.content_startup_ms = self.row.startup_ms.zip(content_wait_ms).map(|(to_frame, after)| to_frame + after);
    }

    /// Wait from the first request to the first frame, and the wall time between the two.
    fn derived_startup(&self) -> Option<(i64, i64)> {
        let request_ms = self.startup.first_request_ms.filter(|_| !self.startup.is_request_inferred)?;
        let wall_ms = self.startup.frame_ms? - request_ms;
        Some((self.startup.starting_ms, wall_ms))
    }

    /// The score of a session that is over, or that has shown a frame.
    pub(super) fn score(&self) -> Option<Score> {
        let row = &self.row;
        if row.attempts == 0 || row.is_open && !self.framed {
            return None;
        }
        let device_type = row.segments.device.device_type.as_deref();
        let known_bps = |ms: i64| (i128::from(row.shown_bits) * 1_000 / i128::from(ms)) as i64;
        score(
            &ScoreInput {
                played: self.framed,
                exit_before_start: row.exits_before_start == 1,
                failed: row.fatal_errors == 1,
                error_class: row.error_class,
                early_exit: row.early_exits == 1,
                is_bot: device_type == Some("bot"),
                known_ms: row.ended_at_ms - row.started_at_ms,
                startup_ms: row.startup_ms,
                exit_wait_ms: row.exit_wait_ms,
                playing_ms: row.playing_ms,
                stall_conn_ms: row.stall_conn_ms,
                stall_conn_count: row.stall_conn_count,
                picture_quality: row.picture_quality,
                switches_down: row.switches_down,
                avg_bitrate_bps: (row.bitrate_known_ms > 0).then(|| known_bps(row.bitrate_known_ms)),
                device_type,
            },
            &ScoreParams::default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::session::fixtures::{check_columns, facts};

    #[test]
    fn a_reported_startup_wins_unless_it_took_longer_than_there_was_time() {
        let start =
            |reported: &str| format!("0 playback_request\n4 playback_pause\n5 playback_request\n6 playback_start startup={reported}");
        let check = |reported: &str, expected: &str, flagged: bool| {
            check_columns(&start(reported), "-", expected);
            let flags = &facts(&start(reported), "-")[0].session.dq_flags;
            assert_eq!(flags.contains(&"msd_recomputed"), flagged, "{reported}");
        };
        check("0.5", "startup_ms=500 startup_derived_ms=5000 content_startup_ms=500", false);
        check("7", "startup_ms=7000 startup_derived_ms=5000", false);
        check("7.001", "startup_ms=5000 startup_derived_ms=5000", true);
    }

    #[test]
    fn a_resume_is_not_the_request_that_was_lost() {
        let script = "0 playback_start startup=2.5\n5 playback_pause\n9 playback_request";
        check_columns(script, "-", "attempts=1 plays=1 startup_ms=2500");
    }

    #[test]
    fn a_player_that_loads_ahead_makes_no_attempt() {
        check_columns("0 session_start state=preloading\n9 session_end", "-", "preloaded=1 attempts=0");
        check_columns(
            "0 heartbeat state=preloading\n9 playback_request\n9.2 playback_start",
            "-",
            "preloaded=1 attempts=1 plays=1 startup_ms=200",
        );
        check_columns(
            "0 playback_request\n1 heartbeat state=preloading",
            "-",
            "preloaded=0 attempts=1 plays=0",
        );
        check_columns("0 session_start\n9 session_end", "-", "preloaded=0 attempts=0");
    }

    #[test]
    fn a_start_whose_request_was_lost_has_no_length() {
        check_columns(
            "0 heartbeat state=starting\n1 playback_start\n5 session_end",
            "-",
            "attempts=1 plays=1 startup_ms=- startup_wait_ms=1000",
        );
        check_columns(
            "0 heartbeat state=starting\n4 session_end",
            "-",
            "attempts=1 exits_before_start=1 exit_wait_ms=4000",
        );
    }

    #[test]
    fn a_response_shows_no_frame() {
        check_columns(
            "0 playback_request\n5 response at=3 state=playing\n9 session_end",
            "-",
            "plays=0 exit_wait_ms=9000",
        );
        check_columns(
            "0 playback_request source=cmcd2_log\n5 response state=playing source=cmcd2_log\n9 response source=cmcd2_log",
            "-",
            "plays=1 playing_ms=4000 startup_ms=-",
        );
    }

    #[test]
    fn a_heartbeat_of_a_player_that_played_nothing_shows_no_frame() {
        check_columns("0 playback_request\n5 heartbeat at=3 played=0\n9 session_end", "-", "plays=0");
        check_columns(
            "0 playback_request\n5 heartbeat played=3\n9 session_end",
            "-",
            "plays=1 playing_ms=4000",
        );
        check_columns("0 playback_request\n5 heartbeat at=3 state=starting\n9 session_end", "-", "plays=0");
        check_columns(
            "0 playback_request\n5 heartbeat at=0 state=playing\n9 session_end",
            "-",
            "plays=1 startup_ms=-",
        );
    }

    #[test]
    fn a_session_has_a_score_once_there_is_something_to_judge() {
        let has_score = |text: &str, watermark: &str| facts(text, watermark)[0].session.score.is_some();
        assert!(!has_score("0 playback_request\n5 metadata", "-"));
        assert!(has_score("0 playback_request\n5 metadata", "1000"));
        assert!(has_score("0 playback_request\n1 playback_start\n5 heartbeat", "-"));
        assert!(!has_score("0 playback_request\n0.6 session_end", "-"));
        assert!(!has_score("0 playback_request device=bot\n1 playback_start\n5 heartbeat", "-"));
        assert!(!has_score("0 playback_request\n5 playback_error fatal=true class=business", "1000"));
        assert!(!has_score("0 session_start\n5 metadata", "1000"));
    }
}
