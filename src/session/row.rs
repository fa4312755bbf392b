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
        source: "",
        attempts: 0,
        outcome: Outcome::NoAttempt,
        plays: 0,
        content_plays: 0,
        preloaded: 0,
        startup_ms: None,
        startup_derived_ms: None,
        content_startup_ms: None,
        exit_wait_ms: None,
        exits_before_start: 0,
        early_exits: 0,
        start_failures: 0,
        playback_failures: 0,
        fatal_errors: 0,
        errors: 0,
        warnings: 0,
        recovered_errors: 0,
        fatal_error_at_ms: None,
        error_code: None,
        error_class: None,
        playing_ms: 0,
        media_ms: 0,
        startup_wait_ms: 0,
        stall_ms: 0,
        stall_count: 0,
        stall_conn_ms: 0,
        stall_conn_count: 0,
        stall_ad_ms: 0,
        stall_decoder_ms: 0,
        stall_switch_ms: 0,
        stall_end_ms: 0,
        stall_max_ms: 0,
        stall_seek_ms: 0,
        abandoned_in_stall: 0,
        seek_wait_ms: 0,
        seek_count: 0,
        paused_ms: 0,
        deliberate_pauses: 0,
        background_ms: 0,
        waiting_ms: 0,
        ad_ms: 0,
        gap_ms: 0,
        watched_ms: 0,
        shown_bits: 0,
        bitrate_known_ms: 0,
        shown_wall_bits: 0,
        bitrate_known_wall_ms: 0,
        bitrate_basis: None,
        start_bitrate_bps: None,
        top_bitrate_bps: None,
        switches_up: 0,
        switches_down: 0,
        audio_switches: 0,
        height_px_ms: 0,
        height_known_ms: 0,
        upscale_ppm_ms: 0,
        upscale_known_ms: 0,
        dropped_frames: 0,
        expected_frames: 0,
        picture_quality: None,
        content_changes: 0,
        covered_ms: 0,
        duration_ms: None,
        max_playhead_ms: None,
        quartile: None,
        finished: 0,
        end_reason: None,
        events: 0,
        lost_reports: 0,
        order_conflicts: 0,
        score: None,
        anomalies: 0,
        dq_flags: Vec::new(),
        segments: Arc::default(),
    }
}

/// Adds a piece to the totals of its session.
pub fn add_piece(row: &mut PlaybackSession, piece: &Piece) {
    let length_ms = piece.end_ms - piece.start_ms;
    let played = &piece.played;
    row.media_ms += played.media_ms;
    row.shown_bits += played.shown_bits;
    row.bitrate_known_ms += played.bitrate_known_ms;
    row.shown_wall_bits += played.shown_wall_bits;
    row.bitrate_known_wall_ms += played.bitrate_known_wall_ms;
    row.height_px_ms += played.height_px_ms;
    row.height_known_ms += played.height_known_ms;
    row.switches_up += played.switches_up;
    row.switches_down += played.switches_down;
    match piece.state {
        PlaybackState::Starting => row.startup_wait_ms += length_ms,
        PlaybackState::Playing => row.playing_ms += length_ms,
        PlaybackState::Rebuffering => add_stall(row, piece, length_ms),
        PlaybackState::Seeking => {
            row.seek_wait_ms += length_ms;
            row.seek_count += piece.starts;
        }
        PlaybackState::Paused => row.paused_ms += length_ms,
        PlaybackState::Background => row.background_ms += length_ms,
        PlaybackState::Waiting => row.waiting_ms += length_ms,
        PlaybackState::Ad => row.ad_ms += length_ms,
        PlaybackState::Gap => row.gap_ms += length_ms,
        PlaybackState::Silent => {}
    }
}

fn add_stall(row: &mut PlaybackSession, piece: &Piece, length_ms: i64) {
    let of_class = match piece.cause.unwrap_or(StallCause::Connection) {
        StallCause::SeekInduced => {
            row.stall_seek_ms += length_ms;
            return;
        }
        StallCause::AdBoundary => &mut row.stall_ad_ms,
        StallCause::Decoder => &mut row.stall_decoder_ms,
        StallCause::RenditionSwitch => &mut row.stall_switch_ms,
        StallCause::NaturalEnd => &mut row.stall_end_ms,
        StallCause::Connection => {
            row.stall_conn_count += piece.starts;
            &mut row.stall_conn_ms
        }
    };
    *of_class += length_ms;
    row.stall_ms += length_ms;
    row.stall_count += piece.starts;
}
