//! What is known of one session: the questions to silver, and what of a session a person asks for first.
//!
//! `playhead session ID` prints it, the page draws it.
//!
//! Invariant: every figure shown is a column of a silver table; nothing is worked out anew.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use serde_json::{Map, Value};

pub type Row = Map<String, Value>;

/// A session is at most a day long.
const SPAN: &str = "interval '1 day'";
/// Facts by heading, in the order in which a person asks.
pub const FACTS: [(&str, &[&str]); 6] = [
    (
        "who",
        &[
            "content_id",
            "stream_type",
            "app_name",
            "app_version",
            "player_name",
            "player_version",
            "device_type",
            "device_model",
            "os",
            "browser",
            "country",
            "city",
            "isp",
            "asn",
            "cdn",
            "connection_type",
            "client",
            "source",
        ],
    ),
    (
        "start",
        &[
            "startup_ms",
            "startup_derived_ms",
            "content_startup_ms",
            "exit_wait_ms",
            "preloaded",
            "start_bitrate_bps",
        ],
    ),
    (
        "time",
        &[
            "playing_ms",
            "media_ms",
            "watched_ms",
            "startup_wait_ms",
            "paused_ms",
            "seek_wait_ms",
            "background_ms",
            "waiting_ms",
            "ad_ms",
            "gap_ms",
        ],
    ),
    (
        "stalls",
        &[
            "stall_count",
            "stall_ms",
            "stall_max_ms",
            "stall_conn_count",
            "stall_conn_ms",
            "stall_ad_ms",
            "stall_decoder_ms",
            "stall_switch_ms",
            "stall_end_ms",
            "stall_seek_ms",
            "abandoned_in_stall",
        ],
    ),
    (
        "picture",
        &[
            "shown_bits",
            "bitrate_known_ms",
            "bitrate_basis",
            "top_bitrate_bps",
            "switches_up",
            "switches_down",
            "audio_switches",
            "dropped_frames",
            "expected_frames",
            "picture_quality",
        ],
    ),
    (
        "end",
        &[
            "end_reason",
            "error_code",
            "error_class",
            "errors",
            "warnings",
            "recovered_errors",
            "duration_ms",
            "covered_ms",
            "quartile",
            "finished",
            "deliberate_pauses",
            "events",
            "lost_reports",
            "order_conflicts",
            "anomalies",
        ],
    ),
];
/// Losses of the score, with the columns that say why.
pub const LOSSES: [(&str, &str, &[&str]); 5] = [
    ("loss_availability", "availability", &["outcome", "end_reason", "error_code"]),
    ("loss_startup", "startup", &["startup_ms", "exit_wait_ms"]),
    ("loss_stall_time", "stall time", &["stall_conn_ms", "playing_ms"]),
    ("loss_interruptions", "interruptions", &["stall_conn_count"]),
    ("loss_picture", "picture", &["picture_quality", "switches_down"]),
];

/// Three questions: the sessions of an id (usually one, more if the sender used the id again), their intervals,
/// their events.
pub fn questions(session_id: &str) -> [String; 3] {
    let id = session_id.replace('\'', "''");
    let of_session = format!("WHERE session_id = '{id}'");
    [
        format!("SELECT * FROM silver.playback_sessions {of_session} ORDER BY started_at"),
        format!(
            "SELECT interval_start, interval_end, state, stall_cause, starts, duration_ms, shown_bits, bitrate_known_ms, is_provisional \
             FROM silver.playback_intervals {of_session} ORDER BY interval_start, interval_end"
        ),
        format!(
            "SELECT e.* FROM silver.player_events AS e JOIN silver.playback_sessions AS s \
             ON e.session_key = s.session_key AND e.event_ts >= s.started_at - {SPAN} AND e.event_ts <= s.ended_at + {SPAN} \
             WHERE s.session_id = '{id}' ORDER BY e.event_ts, e.seq, e.event_id"
        ),
    ]
}

/// Rows of an answer as JSON.
///
/// # Errors
/// A column that JSON has no form for.
pub fn rows(batches: &[RecordBatch]) -> Result<Vec<Row>, ArrowError> {
    let mut json = Vec::new();
    let mut writer = arrow::json::ArrayWriter::new(&mut json);
    writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    drop(writer);
    if json.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&json).map_err(|error| ArrowError::JsonError(error.to_string()))
}
