//! The row of a session: blank at its start, and its totals, which are the sums of its pieces.
//!
//! Stands below `walk`, which fills in the rest.
//!
//! Invariant: a piece counts in exactly one of the totals of time.

use std::sync::Arc;

use super::pieces::Piece;
use crate::event::facts::{Outcome, PlaybackSession, PlaybackState, StallCause};

/// The row of a session of which nothing is known but its start.
pub fn blank_row(started_at_ms: i64) -> PlaybackSession {
    PlaybackSession {
        session_id: String::new(),
        session_key: String::new(),
        started_at_ms,
        ended_at_ms: started_at_ms,
        is_open: true,
        attempts: 0,
        outcome: Outcome::NoAttempt,
        plays: 0,
        startup_ms: None,
        exit_wait_ms: None,
        exits_before_start: 0,
        start_failures: 0,
        playback_failures: 0,
        fatal_errors: 0,
        errors: 0,
        recovered_errors: 0,
        fatal_error_at_ms: None,
        error_code: None,
        playing_ms: 0,
        media_ms: 0,
        startup_wait_ms: 0,
        stall_ms: 0,
        stall_count: 0,
        stall_seek_ms: 0,
        seek_wait_ms: 0,
        seek_count: 0,
        paused_ms: 0,
        background_ms: 0,
        shown_bits: 0,
        bitrate_known_ms: 0,
        start_bitrate_bps: None,
        switches_up: 0,
        switches_down: 0,
        duration_ms: None,
        max_playhead_ms: None,
        quartile: None,
        finished: 0,
        end_reason: None,
        events: 0,
        anomalies: 0,
        dq_flags: Vec::new(),
        segments: Arc::default(),
    }
}

/// Adds a piece to the totals of its session.
pub fn add_piece(row: &mut PlaybackSession, piece: &Piece) {
    let length_ms = piece.end_ms - piece.start_ms;
    row.media_ms += piece.media_ms;
    row.shown_bits += piece.shown_bits;
    row.bitrate_known_ms += piece.bitrate_known_ms;
    match (piece.state, piece.cause) {
        (PlaybackState::Starting, _) => row.startup_wait_ms += length_ms,
        (PlaybackState::Playing, _) => row.playing_ms += length_ms,
        (PlaybackState::Rebuffering, Some(StallCause::SeekInduced)) => {
            row.stall_seek_ms += length_ms;
        }
        (PlaybackState::Rebuffering, _) => {
            row.stall_ms += length_ms;
            row.stall_count += piece.starts;
        }
        (PlaybackState::Seeking, _) => {
            row.seek_wait_ms += length_ms;
            row.seek_count += piece.starts;
        }
        (PlaybackState::Paused, _) => row.paused_ms += length_ms,
        (PlaybackState::Background, _) => row.background_ms += length_ms,
    }
}
