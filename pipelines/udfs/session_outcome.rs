//! session_outcome(bigint, bigint, bigint, bigint) -> text: how a playback session ended.
//!
//! ```sql
//! SELECT session_outcome(attempts, plays, fatal_errors, is_over)  -- exit_before_start
//! ```
//!
//! Each argument is 0 or 1: whether the viewer wanted to play, a frame was shown, a fatal error came,
//! the session is over; a fatal error counts only once it has ended the session. The answer is one of
//! played, no_attempt, start_failure, open, exit_before_start, decided in this order, as in
//! silver.playback_sessions.

use arroyo_udf_plugin::udf;

#[udf]
fn session_outcome(attempts: i64, plays: i64, fatal_errors: i64, is_over: i64) -> String {
    let outcome = match (plays > 0, attempts > 0, fatal_errors > 0, is_over > 0) {
        (true, _, _, _) => "played",
        (false, false, _, _) => "no_attempt",
        (false, true, true, _) => "start_failure",
        (false, true, false, false) => "open",
        (false, true, false, true) => "exit_before_start",
    };
    outcome.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_decides_first() {
        assert_eq!(session_outcome(1, 1, 1, 1), "played");
        assert_eq!(session_outcome(0, 0, 1, 1), "no_attempt");
        assert_eq!(session_outcome(1, 0, 0, 0), "open");
        assert_eq!(session_outcome(1, 0, 1, 1), "start_failure");
        assert_eq!(session_outcome(1, 0, 0, 1), "exit_before_start");
    }
}
