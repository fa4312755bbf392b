//! Errors: which ones broke playback, told from what follows them (events and metrics, 3.1, rule 1).
//!
//! Stands below `timeline`, which asks for a verdict on each error before the walk goes past it.
//!
//! Invariant: a verdict depends on the events of the session and on the watermark, and on nothing else.

use serde::{Deserialize, Serialize};

use super::EventDetail;
use super::events::Kept;
use super::packed::shift;
use crate::event::{EventKind, ReportedState};

/// A frame this soon after a fatal error means that the player recovered (3.1, rule 1).
pub const RECOVERY_MS: i64 = 10_000;

/// Whether the events of a dialect are requests that a CDN logged: their time is that of the request,
/// and so is the state of the player that they carry.
pub fn is_request_log(source: &str) -> bool {
    matches!(source, "cmcd1_log" | "cmcd2_log")
}

/// Whether an event tells how the player is at its time. A response as the player saw it is dated at its
/// request and written at its end, so what it says of the player holds at neither.
pub fn is_snapshot(kind: EventKind, detail: &EventDetail) -> bool {
    kind != EventKind::Response || is_request_log(detail.source)
}

/// State of the player as a report gives it. Of a transition the kind has said it already, and attributes
/// tell no state.
pub fn reported_state(kind: EventKind, detail: &EventDetail) -> Option<ReportedState> {
    let tells_none = matches!(
        kind,
        EventKind::PlaybackRequest
            | EventKind::PlaybackStart
            | EventKind::PlaybackPause
            | EventKind::StallStart
            | EventKind::SeekStart
            | EventKind::PlaybackFinish
            | EventKind::SessionEnd
            | EventKind::Metadata
    );
    detail.state.filter(|_| !tells_none && is_snapshot(kind, detail))
}

/// Whether an event shows that the player is past its first frame.
pub fn shows_frame(event: &Kept, detail: &EventDetail) -> bool {
    if matches!(event.kind, EventKind::PlaybackStart | EventKind::PlaybackFinish) {
        return true;
    }
    match reported_state(event.kind, detail) {
        Some(ReportedState::Playing | ReportedState::Rebuffering | ReportedState::Ended) => true,
        Some(_) => false,
        None => event.kind == EventKind::Heartbeat && moves(event),
    }
}

/// Some players send heartbeats while they still load, at position 0 or with nothing played.
fn moves(event: &Kept) -> bool {
    let played_ms = event.readings.as_ref().and_then(|readings| readings.played_ms);
    played_ms.map_or(event.playhead_ms != Some(0), |ms| ms > 0)
}

/// Whether the player says by this event that it stopped for an error: `None` if it is no error,
/// `Some(None)` if it does not say.
pub fn error_fatality(kind: EventKind, detail: &EventDetail) -> Option<Option<bool>> {
    let has_failed = reported_state(kind, detail) == Some(ReportedState::Failed);
    match (kind, has_failed) {
        (EventKind::PlaybackError, false) => Some(detail.error_fatal),
        (_, true) => Some(Some(true)),
        _ => None,
    }
}

/// Whether an event is an error of which what follows says what it did. Any other is a warning.
pub fn is_serious(kind: EventKind, detail: &EventDetail) -> bool {
    error_fatality(kind, detail).is_some_and(|fatal| fatal != Some(false))
}

/// Whether an event ends its session otherwise than by an error that may be recovered from.
pub fn is_end(kind: EventKind, detail: &EventDetail) -> bool {
    let state = reported_state(kind, detail);
    matches!(kind, EventKind::PlaybackFinish | EventKind::SessionEnd) || matches!(state, Some(ReportedState::Ended | ReportedState::Quit))
}

/// Whether an event takes up a session again that ended at `ended_ms` (3.1, rule 1). Where the sender
/// does not name its sessions, what follows an end is the next one.
pub fn takes_up_again(event: &Kept, detail: &EventDetail, ended_ms: i64) -> bool {
    event.kind == EventKind::PlaybackStart && detail.native_session_id.is_some() && event.event_ts_ms - ended_ms <= RECOVERY_MS
}

/// Whether a session has ended so far otherwise than by an error.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Ends {
    /// It may have been taken up again.
    ever: bool,
    /// When it ended, if it was not.
    now_ms: Option<i64>,
}

impl Ends {
    /// Whether the next event counts: after the end only one that takes it up again does.
    pub fn take(&mut self, event: &Kept, detail: &EventDetail) -> bool {
        if self.now_ms.is_some_and(|ms| !takes_up_again(event, detail, ms)) {
            return false;
        }
        self.now_ms = is_end(event.kind, detail).then_some(event.event_ts_ms);
        self.ever |= self.now_ms.is_some();
        true
    }

    pub fn shift(&mut self, by_ms: i64) {
        shift(&mut self.now_ms, by_ms);
    }
}

/// What the rest of a session says about an error in it.
#[derive(Default)]
pub struct Outlook {
    /// Place and time of each `PlaybackStart`; only filled when the session holds an error.
    starts: Vec<(usize, i64)>,
    last_frame: Option<usize>,
    ends: Ends,
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
    /// `ends`: of the session before these events.
    pub fn of(ends: Ends, events: &[Kept], details: &[EventDetail]) -> Self {
        let detail_of = |event: &Kept| &details[event.detail as usize];
        let mut outlook = Outlook {
            ends,
            ..Outlook::default()
        };
        if !events.iter().any(|event| is_serious(event.kind, detail_of(event))) {
            return outlook;
        }
        for (index, event) in events.iter().enumerate() {
            let detail = detail_of(event);
            if !outlook.ends.take(event, detail) {
                continue;
            }
            if event.kind == EventKind::PlaybackStart {
                outlook.starts.push((index, event.event_ts_ms));
            }
            if shows_frame(event, detail) {
                outlook.last_frame = Some(index);
            }
        }
        outlook
    }

    /// `decided_before_ms`: an earlier error can no longer be followed by an unknown event in time.
    pub fn verdict(&self, index: usize, event: &Kept, detail: &EventDetail, decided_before_ms: i64) -> Verdict {
        let error_ms = event.event_ts_ms;
        match error_fatality(event.kind, detail).flatten() {
            Some(false) => return Verdict::Warning,
            Some(true) if self.restarts(index, error_ms) => return Verdict::Restarted,
            None if self.last_frame > Some(index) => return Verdict::PlayedOn,
            _ => {}
        }
        if error_ms < decided_before_ms || self.ends.ever {
            return Verdict::Fatal;
        }
        Verdict::Undecided
    }

    /// Whether no event of this session after the last one here can change the verdict. Without a word
    /// of the sender, any later frame shows that an error broke nothing.
    pub fn is_final(&self, index: usize, event: &Kept, detail: &EventDetail, decided_before_ms: i64) -> bool {
        match self.verdict(index, event, detail, decided_before_ms) {
            Verdict::Undecided => false,
            Verdict::Fatal if error_fatality(event.kind, detail).flatten() == Some(true) => event.event_ts_ms < decided_before_ms,
            Verdict::Fatal => self.ends.now_ms.is_some_and(|ms| ms < decided_before_ms),
            _ => true,
        }
    }

    fn restarts(&self, index: usize, error_ms: i64) -> bool {
        let next = self.starts.partition_point(|(start, _)| *start < index);
        let start = self.starts.get(next);
        start.is_some_and(|(_, start_ms)| start_ms - error_ms <= RECOVERY_MS)
    }
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
