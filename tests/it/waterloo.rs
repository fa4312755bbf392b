//! Thirty recorded sessions of the Waterloo Streaming QoE Database IV, against figures worked out apart.
//!
//! The fixture has one CSV row per chunk of 4 s: how long the player waited before it, and its bitrate.
//! They are told here as EPAS, whose kbit/s may have decimals, so that every bit is kept; CMCD's would be
//! rounded. Waits are written as whole milliseconds between `buffering` and `buffered`; the CSV's own are
//! whole milliseconds but for the last digit of a float (5.1979999999999995).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Bench, fixtures};
use crate::vectors::{differences, rows, shuffled};

/// 2026-04-14T07:00:00Z. Sessions are a minute apart, so that none is cut at the end of one: sums of a
/// piece are whole bits.
const T0_MS: i64 = 1_776_150_000_000;
const MINUTE_MS: i64 = 60_000;
const SESSIONS: usize = 30;
/// Seconds, shares and kbit/s are right to this.
const TOLERANCE: f64 = 1e-6;

/// One row of the CSV.
struct Chunk {
    representation: i64,
    wait_ms: i64,
    /// As written, kbit/s.
    kbps: f64,
    length_ms: i64,
}

/// Milliseconds of a CSV's seconds, which are whole ones.
#[track_caller]
fn whole_ms(seconds: &str) -> i64 {
    let ms = seconds.parse::<f64>().expect("a number of seconds") * 1_000.0;
    assert!((ms - ms.round()).abs() < TOLERANCE, "{seconds} s is no whole number of ms");
    ms.round() as i64
}

fn chunks_of(path: &Path) -> Vec<Chunk> {
    let text = std::fs::read_to_string(path).expect("the log is there");
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let place = |name: &str| names.iter().position(|other| *other == name).expect("a column of the fixture");
    let [representation, wait, kbps, length] =
        ["representation_index", "rebuffering_duration", "video_bitrate", "chunk_duration"].map(place);
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            Chunk {
                representation: cells[representation].parse().expect("a whole number"),
                wait_ms: whole_ms(cells[wait]),
                kbps: cells[kbps].parse().expect("a bitrate"),
                length_ms: whole_ms(cells[length]),
            }
        })
        .collect()
}

/// The session as its player would have reported it.
///
/// A wait before the first chunk is startup; without one the session begins with its first frame. The
/// bitrate of a chunk goes into `bitrate`. It varies from chunk to chunk within one rendition, so the
/// rendition, by which switches are told, goes into `videoBitrate`.
fn events(session: &str, start_ms: i64, chunks: &[Chunk]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut send = |at_ms: i64, playhead_ms: i64, event: &str, payload: Value| {
        let line = json!({"event": event, "sessionId": session, "timestamp": at_ms, "playhead": playhead_ms,
                          "duration": -1, "payload": payload});
        lines.push(line.to_string());
    };
    let content = || json!({"contentId": session});
    let (mut now_ms, mut playhead_ms) = (start_ms, 0);
    for (number, chunk) in chunks.iter().enumerate() {
        let (waits, goes_on) = match number {
            0 => ("loading", "playing"),
            _ => ("buffering", "buffered"),
        };
        if chunk.wait_ms > 0 {
            send(now_ms, playhead_ms, waits, content());
        }
        now_ms += chunk.wait_ms;
        if chunk.wait_ms > 0 || number == 0 {
            send(now_ms, playhead_ms, goes_on, content());
        }
        let rendition = json!({"contentId": session, "bitrate": chunk.kbps, "videoBitrate": chunk.representation});
        send(now_ms, playhead_ms, "bitrate_changed", rendition);
        now_ms += chunk.length_ms;
        playhead_ms += chunk.length_ms;
    }
    send(now_ms, playhead_ms, "stopped", json!({"contentId": session, "reason": "ended"}));
    assert!(now_ms - start_ms < MINUTE_MS, "{session} is longer than a minute");
    lines
}

struct Fixture {
    lines: Vec<String>,
    /// The fixture's own figures, by session.
    expected: BTreeMap<String, Value>,
}

fn fixture() -> Option<Fixture> {
    let folder = fixtures("qoe-sessions")?.join("waterloo-iv");
    let text = std::fs::read_to_string(folder.join("expected-sessions.jsonl")).expect("the expectations are there");
    let mut fixture = Fixture {
        lines: Vec::new(),
        expected: BTreeMap::new(),
    };
    for (number, line) in text.lines().enumerate() {
        let expected: Value = serde_json::from_str(line).expect("a line of JSON");
        let name = expected["session"].as_str().expect("a session").to_owned();
        let log = folder.join("streaming_logs").join(format!("{name}.csv"));
        let start_ms = T0_MS + i64::try_from(number).expect("thirty") * MINUTE_MS;
        fixture.lines.extend(events(&name, start_ms, &chunks_of(&log)));
        fixture.expected.insert(name, expected);
    }
    assert_eq!(fixture.expected.len(), SESSIONS);
    Some(fixture)
}

fn lake(lines: &[String]) -> Bench {
    let bench = Bench::new();
    let file = bench.write("waterloo.ndjson", lines.join("\n") + "\n");
    let summary = bench.ingest(&[Path::new("--format"), Path::new("epas"), &file]);
    assert_eq!(
        (&summary["stored"], &summary["rejected"]),
        (&json!(lines.len()), &json!(0)),
        "{summary}"
    );
    bench
}

/// What the lake says of each session, under the fixture's names. Two ratios: the fixture's counts the
/// wait before the first chunk in, which is our share of waiting; the rebuffer ratio leaves it out.
const FIGURES: &str = "
    SELECT session_id AS session, stall_count AS stall_count_after_first_chunk,
           stall_ms / 1000.0 AS stall_seconds_after_first_chunk,
           startup_wait_ms / 1000.0 AS first_chunk_rebuffer_seconds,
           (startup_wait_ms + stall_ms) / 1000.0 AS stall_seconds_all,
           playing_ms / 1000.0 AS play_seconds,
           CAST(startup_wait_ms + stall_ms + seek_wait_ms AS DOUBLE)
             / (startup_wait_ms + stall_ms + seek_wait_ms + playing_ms) AS rebuffer_ratio_all,
           CAST(stall_ms AS DOUBLE) / (playing_ms + stall_ms) AS rebuffer_ratio,
           CAST(shown_bits AS DOUBLE) / bitrate_known_ms AS time_weighted_bitrate_kbps,
           switches_up + switches_down AS bitrate_switches
    FROM silver.playback_sessions ORDER BY session_id";

/// Figures of the fixture that a row must have; the rebuffer ratio is made of two of them.
fn expected_figures(expected: &Value) -> BTreeMap<String, f64> {
    let names = [
        "stall_count_after_first_chunk",
        "stall_seconds_after_first_chunk",
        "first_chunk_rebuffer_seconds",
        "stall_seconds_all",
        "play_seconds",
        "rebuffer_ratio_all",
        "time_weighted_bitrate_kbps",
        "bitrate_switches",
    ];
    let figure = |name: &str| expected[name].as_f64().expect("a number of the fixture");
    let mut figures: BTreeMap<String, f64> = names.iter().map(|name| ((*name).to_owned(), figure(name))).collect();
    let (stall, play) = (figure("stall_seconds_after_first_chunk"), figure("play_seconds"));
    figures.insert("rebuffer_ratio".to_owned(), stall / (stall + play));
    figures
}

fn complaints(delivery: &str, found: &[Value], expected: &BTreeMap<String, Value>) -> Vec<String> {
    let mut complaints = Vec::new();
    for row in found {
        let session = row["session"].as_str().expect("a session id");
        for (figure, expected) in expected_figures(&expected[session]) {
            let found = row[&figure].as_f64();
            if found.is_none_or(|found| (found - expected).abs() > TOLERANCE) {
                complaints.push(format!(
                    "{session}, {delivery}, {figure}: expected {expected}, got {}",
                    row[&figure]
                ));
            }
        }
    }
    complaints
}

#[test]
fn thirty_recorded_sessions_have_the_stalls_and_bitrates_that_were_measured() {
    let Some(Fixture { lines, expected }) = fixture() else {
        return;
    };
    let mixed = shuffled(lines.clone(), 4);
    assert_ne!(mixed, lines, "the seed shuffles nothing");
    let mut complaints_of_all = Vec::new();
    let [in_order, in_disorder] = [lake(&lines), lake(&mixed)];
    for (delivery, bench) in [("in order", &in_order), ("shuffled", &in_disorder)] {
        let found = bench.sql(FIGURES);
        assert_eq!(found.len(), SESSIONS, "{delivery}");
        complaints_of_all.extend(complaints(delivery, &found, &expected));
    }
    for table in [
        "silver.playback_sessions",
        "silver.playback_intervals",
        "gold.playback_1m",
        "gold.ended_1h",
    ] {
        complaints_of_all.extend(differences(table, "shuffled", &rows(&in_disorder, table), &rows(&in_order, table)));
    }
    assert!(complaints_of_all.is_empty(), "\n{}\n", complaints_of_all.join("\n"));
}

#[test]
fn the_ratio_of_all_thirty_is_a_ratio_of_sums() {
    let Some(Fixture { lines, expected }) = fixture() else {
        return;
    };
    let bench = lake(&lines);
    let sum = |name: &str| expected.values().map(|row| row[name].as_f64().expect("a number")).sum::<f64>();
    let (stall, play) = (sum("stall_seconds_after_first_chunk"), sum("play_seconds"));
    for table in ["gold.playback_1m", "gold.playback_1h", "gold.playback_1d"] {
        let query = format!("SELECT sum(stall_ms) / CAST(sum(playing_ms) + sum(stall_ms) AS DOUBLE) FROM {table}");
        let found = bench.value(&query).as_f64().expect("a ratio");
        assert!((found - stall / (stall + play)).abs() <= TOLERANCE, "{table}: {found}");
        let stalls = bench.int(&format!("SELECT sum(stall_count) FROM {table}"));
        assert_eq!(stalls as f64, sum("stall_count_after_first_chunk"), "{table}");
    }
}
