//! What M1 to M15 must give (events and metrics, 3.11): a table of queries and values, with the sums.

use serde_json::Value;

use crate::support::Bench;

/// What a column must hold.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// Exactly this whole number.
    N(i64),
    /// This number, give or take.
    Near(f64, f64),
    /// This text, truth value or list, as JSON.
    Is(&'static str),
}

use Want::{Is, N, Near};

impl Want {
    fn is_met_by(self, found: &Value) -> bool {
        match self {
            N(expected) => found.as_i64() == Some(expected),
            Near(expected, tolerance) => found.as_f64().is_some_and(|found| (found - expected).abs() <= tolerance),
            Is(expected) => serde_json::from_str::<Value>(expected).is_ok_and(|expected| *found == expected),
        }
    }
}

/// Rows of one vector: where to look, and columns with what they must hold.
struct Check {
    vector: &'static str,
    from: &'static str,
    columns: &'static [(&'static str, Want)],
}

const RATIO: f64 = 1e-6;
const CENT: f64 = 0.005;

const STALL_RATIO: &str = "CAST(stall_ms AS DOUBLE) / (playing_ms + stall_ms)";
const STALLED_SHARE: &str = "CAST(stall_ms AS DOUBLE) / watched_ms";
const STALLS_AN_HOUR: &str = "stall_count * 3600000.0 / (playing_ms + stall_ms)";

/// M1, in seconds from the request: starting 0-2, playing 2-20, stall 20-30, playing 30-40, paused
/// 40-70, playing 70-102. Playing 18 + 10 + 32 = 60; ratio 10 / (60 + 10) = 0.142857; watched 0-40 and
/// 70-102 = 72, of which 10 / 72 = 0.138889 stalled; 1 stall in 70 s = 3600 / 70 = 51.43 an hour.
const M1_SESSION: &[(&str, Want)] = &[
    ("startup_ms", N(2_000)),
    ("playing_ms", N(60_000)),
    ("stall_ms", N(10_000)),
    ("stall_count", N(1)),
    (STALL_RATIO, Near(0.142857, RATIO)),
    ("watched_ms", N(72_000)),
    (STALLED_SHARE, Near(0.138889, RATIO)),
    (STALLS_AN_HOUR, Near(51.43, CENT)),
    ("paused_ms", N(30_000)),
    ("quartile", N(100)),
    ("deliberate_pauses", N(1)),
    ("end_reason", Is("\"finished\"")),
];
const M1_ENDED: &[(&str, Want)] = &[
    ("quartile_25", N(1)),
    ("quartile_50", N(1)),
    ("quartile_75", N(1)),
    ("quartile_100", N(1)),
    ("deliberate_pause_plays", N(1)),
    ("paused_then_finished", N(1)),
    ("finished_without_pause", N(0)),
];

const fn check(vector: &'static str, from: &'static str, columns: &'static [(&'static str, Want)]) -> Check {
    Check { vector, from, columns }
}

/// The figures of 3.11.
const CHECKS: &[Check] = &[
    check("M1", "silver.playback_sessions WHERE content_id = 'm1'", M1_SESSION),
    check("M1", "gold.ended_1m WHERE content_id = 'm1'", M1_ENDED),
    // Window 0-60: playing 2-55 = 53, stall 55-60 = 5, ratio 5 / 58. Window 60-120: stall 60-65 = 5,
    // playing 65-120 = 55, ratio 5 / 60. The stall counts where it began.
    check(
        "M2",
        "gold.playback_1m WHERE content_id = 'm2' AND window_start = '2026-04-14T07:00:00Z'",
        &[
            ("playing_ms", N(53_000)),
            ("stall_ms", N(5_000)),
            (STALL_RATIO, Near(0.086207, RATIO)),
            ("stall_count", N(1)),
            ("stall_length_count", N(0)),
        ],
    ),
    check(
        "M2",
        "gold.playback_1m WHERE content_id = 'm2' AND window_start = '2026-04-14T07:01:00Z'",
        &[
            ("playing_ms", N(55_000)),
            ("stall_ms", N(5_000)),
            (STALL_RATIO, Near(0.083333, RATIO)),
            ("stall_count", N(0)),
            ("stall_length_ms_sum", N(10_000)),
        ],
    ),
    // From the seek at 30 to playing at 33 is seek wait: 3 s, 1.8 of them buffering.
    check(
        "M3",
        "silver.playback_sessions WHERE content_id = 'm3'",
        &[
            ("stall_ms", N(0)),
            ("stall_count", N(0)),
            ("stall_seek_ms", N(0)),
            ("seek_wait_ms", N(3_000)),
            ("playing_ms", N(56_000)),
        ],
    ),
    // 33.5 is within 1 s of 33: the half second is the seek's.
    check(
        "M3",
        "silver.playback_sessions WHERE content_id = 'm3-after'",
        &[
            ("stall_seek_ms", N(500)),
            ("stall_ms", N(0)),
            ("stall_conn_ms", N(0)),
            (STALL_RATIO, Near(0.0, 0.0)),
            ("seek_wait_ms", N(3_000)),
            ("playing_ms", N(55_500)),
        ],
    ),
    check(
        "M3",
        "silver.playback_intervals WHERE content_id = 'm3-after' AND state = 'rebuffering'",
        &[("stall_cause", Is("\"seek_induced\"")), ("duration_ms", N(500))],
    ),
    check(
        "M4",
        "silver.playback_sessions WHERE content_id = 'm4'",
        &[
            ("outcome", Is("\"exit_before_start\"")),
            ("exit_wait_ms", N(3_200)),
            ("early_exits", N(0)),
            ("startup_ms", Is("null")),
        ],
    ),
    check(
        "M4",
        "silver.playback_sessions WHERE content_id = 'm4-early'",
        &[
            ("outcome", Is("\"exit_before_start\"")),
            ("exit_wait_ms", N(600)),
            ("early_exits", N(1)),
            ("score", Is("null")),
        ],
    ),
    // Business errors are those that the service decides; code 27 is none of them.
    check(
        "M5",
        "gold.playback_1m WHERE content_id = 'm5'",
        &[
            ("attempts", N(1)),
            ("plays", N(0)),
            ("start_failures", N(1)),
            ("start_failures_business", N(0)),
            ("fatal_errors", N(1)),
            ("playback_failures", N(0)),
        ],
    ),
    check(
        "M5",
        "silver.playback_sessions WHERE content_id = 'm5-recovered'",
        &[
            ("plays", N(1)),
            ("startup_ms", N(6_000)),
            ("recovered_errors", N(1)),
            ("start_failures", N(0)),
            ("fatal_errors", N(0)),
        ],
    ),
    // Playing 1-60; silent, but there, for one and a half heartbeats more: 60 + 1.5 x 30 = 105.
    check(
        "M6",
        "silver.playback_sessions WHERE content_id = 'm6'",
        &[
            ("is_open", Is("false")),
            ("end_reason", Is("\"timeout\"")),
            ("playing_ms", N(59_000)),
        ],
    ),
    check(
        "M6",
        "(SELECT max(interval_end) AS counted_until FROM silver.playback_intervals WHERE content_id = 'm6')",
        &[("counted_until", Is("\"2026-04-14T07:01:45Z\""))],
    ),
    // Minute 1 has nothing but the silence of 60-105: 45 s.
    check(
        "M6",
        "gold.audience_1m WHERE content_id = 'm6' AND window_start = '2026-04-14T07:01:00Z'",
        &[
            ("active_ms", N(45_000)),
            ("concurrent_avg", Near(0.75, RATIO)),
            ("concurrent_peak", N(1)),
        ],
    ),
    // Last heard at 60 in a stall; it is taken to last one heartbeat more.
    check(
        "M7",
        "silver.playback_sessions WHERE content_id = 'm7'",
        &[
            ("stall_ms", N(30_000)),
            ("stall_count", N(1)),
            ("abandoned_in_stall", N(1)),
            ("playing_ms", N(60_000)),
            ("array_has(dq_flags, 'stall_open_end')", Is("true")),
        ],
    ),
    // 80 s from the first frame to the last report, less the 1.5 s that were reported.
    check(
        "M8",
        "silver.playback_sessions WHERE content_id = 'm8'",
        &[
            ("stall_ms", N(1_500)),
            ("stall_count", N(1)),
            ("playing_ms", N(78_500)),
            ("order_conflicts", N(1)),
            ("lost_reports", N(0)),
            ("array_has(dq_flags, 'ts_order_conflict')", Is("true")),
        ],
    ),
    // Media: (1000 x 10 + 3000 x 30 + 3000 x 20 x 2) / (10 + 30 + 40) = 220000 / 80 = 2750.
    // Wall: (1000 x 10 + 3000 x 30 + 3000 x 20) / (10 + 30 + 20) = 160000 / 60 = 2666.67.
    check(
        "M9",
        "silver.playback_sessions WHERE content_id = 'm9'",
        &[
            ("shown_bits / CAST(bitrate_known_ms AS DOUBLE)", Near(2_750.0, RATIO)),
            (
                "shown_wall_bits / CAST(bitrate_known_wall_ms AS DOUBLE)",
                Near(8_000.0 / 3.0, RATIO),
            ),
            ("media_ms", N(80_000)),
            ("switches_up", N(1)),
            ("switches_down", N(0)),
        ],
    ),
    check(
        "M10",
        "silver.playback_sessions WHERE content_id = 'm10'",
        &[
            ("stall_ms", N(4_150)),
            ("stall_count", N(3)),
            ("playing_ms", N(83_850)),
            ("array_has(dq_flags, 'counter_reconciled')", Is("true")),
        ],
    ),
    check(
        "M10",
        "(SELECT sum(stall_ms) AS ms, sum(stall_count) AS stalls FROM gold.playback_1m WHERE content_id = 'm10')",
        &[("ms", N(4_150)), ("stalls", N(3))],
    ),
    // (100 + 100 + 5) / 150 = 1.366667; all three at 90-95.
    check(
        "M11",
        "(SELECT concurrent_peak(interval_start, interval_end) AS peak, sum(duration_ms) / 150000.0 AS mean,
                 count(DISTINCT session_id) AS sessions
          FROM silver.playback_intervals
          WHERE content_id = 'm11' AND state IN ('playing', 'rebuffering', 'seeking', 'silent'))",
        &[("peak", N(3)), ("mean", Near(1.366667, RATIO)), ("sessions", N(3))],
    ),
    check(
        "M11",
        "(SELECT max(concurrent_peak) AS peak, sum(active_ms) / 150000.0 AS mean,
                 max(sessions_in_window) AS sessions
          FROM gold.audience_1m WHERE content_id = 'm11')",
        &[("peak", N(3)), ("mean", Near(1.366667, RATIO)), ("sessions", N(3))],
    ),
    // 4 s of startup: 0.942^2 = 0.887364. 1 s in 50 stalled: e^(-5.13 x 0.02) = 0.902488. 0.98^2 = 0.9604.
    // Product 0.769122. Each takes of the 23.09 lost its share of the logarithm.
    check(
        "M12",
        "silver.playback_sessions WHERE content_id = 'm12'",
        &[
            ("startup_ms", N(4_000)),
            ("CAST(stall_conn_ms AS DOUBLE) / (playing_ms + stall_conn_ms)", Near(0.02, RATIO)),
            ("stall_conn_count", N(2)),
            ("score", Near(76.91, CENT)),
            ("loss_startup", Near(10.51, CENT)),
            ("loss_stall_time", Near(9.02, CENT)),
            ("loss_interruptions", Near(3.55, CENT)),
            ("loss_picture", Near(0.0, 0.0)),
            ("loss_availability", Near(0.0, 0.0)),
            (
                "score + loss_startup + loss_stall_time + loss_interruptions + loss_picture + loss_availability",
                Near(100.0, 0.0),
            ),
            ("top_reason", Is("\"startup\"")),
        ],
    ),
    check(
        "M13",
        "silver.playback_sessions WHERE content_id = 'm13'",
        &[
            ("deliberate_pauses", N(0)),
            ("finished", N(1)),
            ("end_reason", Is("\"finished\"")),
            ("paused_ms", N(5)),
        ],
    ),
    check(
        "M13",
        "gold.ended_1m WHERE content_id = 'm13'",
        &[
            ("deliberate_pause_plays", N(0)),
            ("paused_then_finished", N(0)),
            ("finished_without_pause", N(1)),
        ],
    ),
    // Playing 0-100 and 400-410; hidden between, for 250 s of it without a report.
    check(
        "M14",
        "silver.playback_sessions WHERE content_id = 'm14'",
        &[
            ("background_ms", N(300_000)),
            ("stall_ms", N(0)),
            ("stall_count", N(0)),
            ("playing_ms", N(110_000)),
        ],
    ),
    check("M15", "silver.playback_sessions WHERE content_id = 'm15'", M1_SESSION),
    check("M15", "gold.ended_1m WHERE content_id = 'm15'", M1_ENDED),
];

/// Every column of a vector that is not what 3.11 says.
pub fn complaints(bench: &Bench, delivery: &str, vector: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for check in CHECKS.iter().filter(|check| check.vector == vector) {
        let columns: Vec<String> = check
            .columns
            .iter()
            .enumerate()
            .map(|(at, (column, _))| format!("{column} AS c{at}"))
            .collect();
        let rows = bench.sql(&format!("SELECT {} FROM {}", columns.join(", "), check.from));
        if rows.len() != 1 {
            complaints.push(format!("{vector}, {delivery}: {} rows in {}", rows.len(), check.from));
            continue;
        }
        for (at, (column, want)) in check.columns.iter().enumerate() {
            let found = &rows[0][format!("c{at}")];
            if !want.is_met_by(found) {
                complaints.push(format!(
                    "{vector}, {delivery}, {column}: expected {want:?}, got {found}; {}",
                    check.from
                ));
            }
        }
    }
    complaints
}
