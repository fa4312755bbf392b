//! Errors: which ones broke playback, told from what follows them (events and metrics, 3.1, rule 1).
//!
//! Stands below `timeline`, which asks for a verdict on each error before the walk goes past it.
//!
//! Invariant: a verdict depends on the events of the session and on the watermark, and on nothing else.

use super::EventDetail;
use super::shard::Kept;
use crate::event::EventKind;

/// A frame this soon after a fatal error means that the player recovered (3.1, rule 1).
pub const RECOVERY_MS: i64 = 10_000;

/// Whether an event shows that the player is past its first frame.
pub fn shows_frame(event: &Kept) -> bool {
    match event.kind {
        EventKind::PlaybackStart | EventKind::PlaybackFinish => true,
        // Some players send heartbeats while they still load, at position 0.
        EventKind::Heartbeat => event.playhead_ms != Some(0),
        _ => false,
    }
}

/// What the rest of a session says about an error in it.
#[derive(Default)]
pub struct Outlook {
    /// Place and time of each `PlaybackStart`; only filled when the session holds an error.
    starts: Vec<(usize, i64)>,
    last_frame: Option<usize>,
    ends: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Warning,
    /// The error broke playback, and a frame followed in time.
    Restarted,
    /// It did not even break playback.
    PlayedOn,
    Undecided,
    Fatal,
}

impl Outlook {
    pub fn of(events: &[Kept], details: &[EventDetail]) -> Self {
        let is_serious = |event: &Kept| {
            let fatal = details[event.detail as usize].error_fatal;
            event.kind == EventKind::PlaybackError && fatal != Some(false)
        };
        let mut outlook = Outlook::default();
        if !events.iter().any(is_serious) {
            return outlook;
        }
        for (index, event) in events.iter().enumerate() {
            if event.kind == EventKind::PlaybackStart {
                outlook.starts.push((index, event.event_ts_ms));
            }
            if shows_frame(event) {
                outlook.last_frame = Some(index);
            }
            if is_end(event.kind) {
                outlook.ends = true;
                break;
            }
        }
        outlook
    }

    /// `decided_before_ms`: an earlier error can no longer be followed by an unknown event in time.
    pub fn verdict(&self, index: usize, event: &Kept, detail: &EventDetail, decided_before_ms: i64) -> Verdict {
        let error_ms = event.event_ts_ms;
        match detail.error_fatal {
            Some(false) => return Verdict::Warning,
            Some(true) if self.restarts(index, error_ms) => return Verdict::Restarted,
            None if self.last_frame > Some(index) => return Verdict::PlayedOn,
            _ => {}
        }
        if error_ms < decided_before_ms || self.ends {
            return Verdict::Fatal;
        }
        Verdict::Undecided
    }

    fn restarts(&self, index: usize, error_ms: i64) -> bool {
        let next = self.starts.partition_point(|(start, _)| *start < index);
        let start = self.starts.get(next);
        start.is_some_and(|(_, start_ms)| start_ms - error_ms <= RECOVERY_MS)
    }
}

fn is_end(kind: EventKind) -> bool {
    matches!(kind, EventKind::PlaybackFinish | EventKind::SessionEnd)
}

#[cfg(test)]
mod tests {
    use crate::event::facts::Outcome;
    use crate::session::fixtures::{OCEANS, check, facts};

    #[test]
    fn the_reference_error_is_judged_ten_seconds_later() {
        let failed = "attempts=1 start_failures=1 fatal_errors=1 errors=1 fatal_error_at=61250 \
                      startup_wait_ms=1250 error";
        check(OCEANS, "71.25", &["attempts=1 open=1 errors=1 startup_wait_ms=1250"]);
        check(OCEANS, "71.251", &[failed]);
        let session = &facts(OCEANS, "72")[0].session;
        assert_eq!(session.outcome, Outcome::StartFailure);
        assert_eq!(session.error_code.as_deref(), Some("Error"));
    }

    #[test]
    fn m5_a_fatal_error_and_the_frame_that_heals_it() {
        let fatal = "0 playback_request\n4 playback_error fatal=true code=E7";
        check(
            fatal,
            "15",
            &["attempts=1 start_failures=1 fatal_errors=1 errors=1 \
                              fatal_error_at=4000 startup_wait_ms=4000 error"],
        );
        check(
            &format!("{fatal}\n6 playback_start"),
            "15",
            &["attempts=1 plays=1 open=1 startup_ms=6000 errors=1 recovered_errors=1 startup_wait_ms=6000"],
        );
    }

    #[test]
    fn errors_while_playing() {
        let play = "0 playback_request\n1 playback_start\n10 playback_error";
        let base = "startup_ms=1000";
        check(
            &format!("{play}\n15 heartbeat\n16 session_end"),
            "-",
            &[&format!(
                "attempts=1 plays=1 {base} errors=1 recovered_errors=1 playing_ms=15000 startup_wait_ms=1000 user_quit"
            )],
        );
        check(
            &format!("{play} fatal=true\n15 heartbeat\n16 session_end"),
            "-",
            &[&format!(
                "attempts=1 plays=1 {base} playback_failures=1 fatal_errors=1 errors=1 \
             fatal_error_at=10000 playing_ms=9000 startup_wait_ms=1000 error"
            )],
        );
        check(
            &format!("{play} fatal=true\n14 playback_start\n16 session_end"),
            "-",
            &[&format!(
                "attempts=1 plays=1 {base} errors=1 recovered_errors=1 playing_ms=11000 startup_wait_ms=1000 user_quit"
            )],
        );
        check(
            &format!("{play} fatal=false\n16 session_end"),
            "-",
            &[&format!(
                "attempts=1 plays=1 {base} errors=1 playing_ms=15000 startup_wait_ms=1000 user_quit"
            )],
        );
        check(
            &format!("{play} fatal=true\n12 heartbeat\n30 playback_start\n31 session_end"),
            "-",
            &[
                &format!(
                    "attempts=1 plays=1 {base} playback_failures=1 fatal_errors=1 errors=1 \
             fatal_error_at=10000 playing_ms=9000 startup_wait_ms=1000 error"
                ),
                "attempts=1 plays=1 playing_ms=1000 user_quit inferred_request",
            ],
        );
    }
}
