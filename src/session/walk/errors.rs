//! Errors: what they are counted as, and which one the session failed of (events and metrics, 3.3, 3.4).
//!
//! Stands beside `walk`; the verdict on an error is `outlook`'s.
//!
//! Invariant: an error that is told again and again counts once.

use serde::{Deserialize, Serialize};

use super::{Ending, Walk};
use crate::event::facts::PlaybackState;
use crate::event::{ErrorClass, EventKind};
use crate::session::EventDetail;
use crate::session::events::Kept;
use crate::session::outlook::{RECOVERY_MS, Verdict, error_fatality, is_snapshot};

/// The same code again within this is the same warning (3.4).
const SAME_WARNING_MS: i64 = 10_000;

/// An error that was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Told {
    at_ms: i64,
    code: Option<String>,
    class: Option<ErrorClass>,
}

/// What is remembered of a session's errors.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Errors {
    /// The code that every report repeats at the moment.
    repeated: Option<String>,
    last: Option<Told>,
    warned: Option<Told>,
    /// A fatal error is past, and the start that heals it is to come.
    is_broken: bool,
}

impl Errors {
    /// Moves all times.
    pub fn shift(&mut self, by_ms: i64) {
        for told in self.last.iter_mut().chain(&mut self.warned) {
            told.at_ms += by_ms;
        }
    }

    pub fn heal(&mut self) {
        self.is_broken = false;
    }
}

impl Walk {
    pub(super) fn observe_error(&mut self, event: &Kept, detail: &EventDetail, verdict: impl FnOnce() -> Verdict) {
        let is_error = event.kind == EventKind::PlaybackError;
        let repeats = self.observe_code(event, detail);
        // A player that has failed says so in every report until it starts again.
        let says_again = !is_error && self.errors.is_broken;
        if error_fatality(event.kind, detail).is_some() && !says_again {
            self.row.errors += i64::from(!is_error);
            self.on_error(event.event_ts_ms, verdict(), detail);
        } else if !is_error && !repeats && detail.error_code.is_some() {
            self.row.errors += 1;
            self.warn(event.event_ts_ms, detail);
        }
    }

    /// Says whether the code was there already. Some players repeat it in every report.
    fn observe_code(&mut self, event: &Kept, detail: &EventDetail) -> bool {
        if event.kind == EventKind::Metadata || !is_snapshot(event.kind, detail) {
            return true;
        }
        let repeats = self.errors.repeated == detail.error_code;
        if !repeats {
            self.errors.repeated.clone_from(&detail.error_code);
        }
        repeats
    }

    fn on_error(&mut self, now_ms: i64, verdict: Verdict, detail: &EventDetail) {
        match verdict {
            Verdict::Warning => self.warn(now_ms, detail),
            Verdict::PlayedOn => {
                self.row.recovered_errors += 1;
                self.warn(now_ms, detail);
            }
            Verdict::Restarted => {
                self.row.recovered_errors += 1;
                self.errors.is_broken = true;
                if self.framed {
                    self.change_state(now_ms, None);
                    self.enter(now_ms);
                }
            }
            Verdict::Undecided => self.ending = Ending::Undecided,
            Verdict::Fatal => self.fail(now_ms, detail),
        }
    }

    fn warn(&mut self, now_ms: i64, detail: &EventDetail) {
        let is_same = |told: &Told| told.code == detail.error_code && now_ms - told.at_ms <= SAME_WARNING_MS;
        if !self.errors.warned.as_ref().is_some_and(is_same) {
            self.row.warnings += 1;
            self.errors.warned = Some(told(now_ms, detail));
        }
        if detail.error_code.is_some() {
            self.errors.last = Some(told(now_ms, detail));
        }
    }

    /// The session failed. A player that only says so has named the error just before.
    pub(super) fn fail(&mut self, now_ms: i64, detail: &EventDetail) {
        let last = self.errors.last.take();
        let named = last.filter(|told| detail.error_code.is_none() && now_ms - told.at_ms <= RECOVERY_MS);
        let error = named.unwrap_or_else(|| told(now_ms, detail));
        self.row.fatal_errors = 1;
        self.row.fatal_error_at_ms = Some(now_ms);
        self.row.error_code = error.code;
        self.row.error_class = Some(detail.error_class.or(error.class).unwrap_or(ErrorClass::Unknown));
        self.ending = Ending::Failed;
    }

    /// The failure was recovered from after all.
    pub(super) fn unfail(&mut self) {
        self.row.fatal_errors = 0;
        self.row.fatal_error_at_ms = None;
        self.row.error_code = None;
        self.row.error_class = None;
        self.row.recovered_errors += 1;
    }

    /// Whether the session was left while the picture stood still.
    pub(super) fn is_abandoned_in_stall(&self) -> bool {
        let is_left = matches!(self.row.end_reason, Some(reason) if reason != "finished" && reason != "error");
        is_left && self.visible_state() == Some(PlaybackState::Rebuffering)
    }
}

fn told(at_ms: i64, detail: &EventDetail) -> Told {
    Told {
        at_ms,
        code: detail.error_code.clone(),
        class: detail.error_class,
    }
}

#[cfg(test)]
mod tests {
    use crate::session::fixtures::{check_columns, facts};

    fn check(text: &str, expected: &str) {
        let text = format!("0 playback_request\n1 playback_start\n{text}");
        let named: Vec<String> = text.lines().map(|line| format!("{line} sid=a")).collect();
        check_columns(&named.join("\n"), "1000", expected);
    }

    #[test]
    fn a_warning_that_comes_again_within_ten_seconds_counts_once() {
        check(
            "5 playback_error fatal=false code=A\n9 playback_error fatal=false code=A\n16 playback_error fatal=false code=A",
            "errors=3 warnings=2",
        );
        check(
            "5 playback_error fatal=false code=A\n6 playback_error fatal=false code=B\n7 playback_error fatal=false code=A",
            "errors=3 warnings=3",
        );
        check("5 playback_error code=A\n9 heartbeat", "errors=1 warnings=1 recovered_errors=1");
    }

    #[test]
    fn a_code_in_every_report_counts_on_change() {
        check(
            "5 heartbeat code=27\n35 heartbeat code=27\n65 heartbeat code=28\n95 heartbeat\n125 heartbeat code=28",
            "errors=3 warnings=3",
        );
        check("5 playback_error fatal=false code=27\n35 heartbeat code=27", "errors=1 warnings=1");
    }

    #[test]
    fn a_player_that_says_it_failed_has_failed() {
        check(
            "5 playback_error fatal=false code=27 class=business\n5.1 heartbeat state=failed\n35 heartbeat state=failed",
            "playback_failures=1 fatal_errors=1 errors=2 warnings=1",
        );
        let text = "0 playback_request\n5 playback_error fatal=false code=27 class=business\n5.1 heartbeat state=failed";
        let row = &facts(text, "1000")[0].session;
        assert_eq!(row.error_code.as_deref(), Some("27"));
        assert_eq!(row.error_class.map(|class| class.as_str()), Some("business"));
        let unnamed = &facts("0 playback_request\n5 playback_error fatal=true", "1000")[0].session;
        assert_eq!(unnamed.error_class.map(|class| class.as_str()), Some("unknown"));
    }

    #[test]
    fn a_start_within_ten_seconds_of_the_end_goes_on() {
        check(
            "5 heartbeat state=failed\n7 heartbeat state=failed\n9 playback_start\n20 session_end",
            "playback_failures=0 recovered_errors=1 errors=1 playing_ms=15000",
        );
        check(
            "5 session_end reason=error\n15 playback_start\n20 session_end",
            "playback_failures=0 recovered_errors=1 playing_ms=9000 watched_ms=10000",
        );
        check(
            "5 session_end reason=error\n15.001 playback_start\n20 session_end",
            "playback_failures=1 recovered_errors=0 playing_ms=4000",
        );
        check(
            "5 playback_finish\n6 heartbeat\n8 playback_start\n20 session_end",
            "finished=1 playing_ms=16000 recovered_errors=0",
        );
    }

    #[test]
    fn leaving_a_stall_is_told_from_an_end_and_an_error() {
        check("5 stall_start\n9 session_end", "abandoned_in_stall=1 stall_ms=4000");
        check("5 stall_start\n9 playback_finish", "abandoned_in_stall=0");
        check("5 stall_start\n9 playback_error fatal=true", "abandoned_in_stall=0");
        check("5 stall_start\n8 stall_end\n9 session_end", "abandoned_in_stall=0");
    }
}
