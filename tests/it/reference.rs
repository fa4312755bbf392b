//! The fixture of the reference solution: what its 25 player events and 8 CDN lines must come to.
//!
//! The values are those that `reference-solution.md` 4.1 calls correct, or are worked out by hand
//! here from the definitions and the time stamps of the fixture.

use serde_json::{Value, json};

use crate::support::{Bench, lines_with_offsets, reference};

const FIELDS_33: &str = "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) \
    cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes \
    time-taken x-forwarded-for ssl-protocol ssl-cipher x-edge-response-result-type cs-protocol-version fle-status \
    fle-encrypted-fields c-port time-to-first-byte x-edge-detailed-result-type sc-content-type sc-content-len \
    sc-range-start sc-range-end";

/// Playing time of the three plays, ms; see `the_average_bitrate_is_weighted_by_time` for the first.
const PLAYING_MS: i64 = 320_008 + 10_030 + 11_500;
/// The two real stalls, ms.
const STALL_MS: i64 = 1_840 + 5_120;

fn fixture() -> Bench {
    let bench = Bench::new();
    let summary = bench.ingest(&[&reference("ref_player.ndjson"), &reference("ref_cdn.ndjson")]);
    assert_eq!(summary["received"], 33);
    assert_eq!(summary["stored"], 33, "{summary}");
    bench
}

#[track_caller]
fn check(bench: &Bench, query: &str, expected: Value) {
    let rows = Value::Array(bench.sql(query));
    assert_eq!(rows, expected, "{query}");
}

#[test]
fn the_fixture_is_four_attempts_three_plays_and_one_start_failure() {
    let bench = fixture();
    check(
        &bench,
        "SELECT count(*) AS events, count(DISTINCT event_id) AS ids FROM silver.player_events",
        json!([{"events": 25, "ids": 25}]),
    );
    check(
        &bench,
        "SELECT count(*) AS sessions, sum(attempts) AS attempts, sum(plays) AS plays, sum(start_failures) AS start_failures,
                sum(exits_before_start) AS exits_before_start, sum(playback_failures) AS playback_failures, sum(events) AS events
         FROM silver.playback_sessions",
        json!([{"sessions": 4, "attempts": 4, "plays": 3, "start_failures": 1, "exits_before_start": 0,
                "playback_failures": 0, "events": 25}]),
    );
    check(
        &bench,
        "SELECT content_id, outcome, end_reason FROM silver.playback_sessions ORDER BY content_id",
        json!([
            {"content_id": "BigBuckBunny", "outcome": "played", "end_reason": "finished"},
            {"content_id": "TearsOfSteel", "outcome": "played", "end_reason": "timeout"},
            {"content_id": "news-live", "outcome": "played", "end_reason": "timeout"},
            {"content_id": "oceans", "outcome": "start_failure", "end_reason": "error"},
        ]),
    );
}

#[test]
fn two_stalls_are_real_and_the_epoch_sized_one_is_an_anomaly_in_no_sum() {
    let bench = fixture();
    check(
        &bench,
        "SELECT content_id, stall_count, stall_ms, anomalies FROM silver.playback_sessions ORDER BY content_id",
        json!([
            {"content_id": "BigBuckBunny", "stall_count": 1, "stall_ms": 1840, "anomalies": 0},
            {"content_id": "TearsOfSteel", "stall_count": 1, "stall_ms": 5120, "anomalies": 0},
            {"content_id": "news-live", "stall_count": 0, "stall_ms": 0, "anomalies": 1},
            {"content_id": "oceans", "stall_count": 0, "stall_ms": 0, "anomalies": 0},
        ]),
    );
    check(
        &bench,
        "SELECT sum(starts) AS stalls, sum(duration_ms) AS ms FROM silver.playback_intervals WHERE state = 'rebuffering'",
        json!([{"stalls": 2, "ms": STALL_MS}]),
    );
    check(
        &bench,
        "SELECT sum(stall_count) AS stalls, sum(stall_ms) AS ms, sum(stall_seek_ms) AS seek_ms FROM gold.playback_1m",
        json!([{"stalls": 2, "ms": STALL_MS, "seek_ms": 0}]),
    );
}

#[test]
fn startup_has_median_900_ms_and_mean_1496_67_ms_over_three_first_frames() {
    let bench = fixture();
    check(
        &bench,
        "SELECT median(startup_ms) AS p50, round(avg(startup_ms), 2) AS mean, count(startup_ms) AS n FROM silver.playback_sessions",
        json!([{"p50": 900.0, "mean": 1496.67, "n": 3}]),
    );
    check(
        &bench,
        "SELECT sum(startup_ms_sum) AS ms, sum(startup_count) AS n FROM gold.playback_1m",
        json!([{"ms": 640 + 2_950 + 900, "n": 3}]),
    );
}

#[test]
fn the_average_bitrate_is_weighted_by_time() {
    let bench = fixture();
    // TearsOfSteel shows 612 480 bit/s throughout: its switch down was requested and never seen.
    let kbps = |content: &str| {
        let query = format!(
            "SELECT CAST(shown_bits AS DOUBLE) / bitrate_known_ms AS kbps FROM silver.playback_sessions WHERE content_id = '{content}'"
        );
        bench.value(&query).as_f64().expect("a number")
    };
    assert!((kbps("TearsOfSteel") - 612.48).abs() < 0.001, "{}", kbps("TearsOfSteel"));

    // BigBuckBunny, in ms from its PLAY. It plays from the first frame (640) to the stall that the
    // report at 16 300 says began 1 840 earlier; on to the seek that ended at 20 000 after 412; on to
    // the PAUSE at 31 000; and from the PLAY at 95 000 to the PAUSE at 386 900 before its STOP.
    let playing = [(640, 16_300 - 1_840), (16_300, 20_000 - 412), (20_000, 31_000), (95_000, 386_900)];
    // 2 149.28 kbit/s are on the screen until the heartbeat at 11 200 reports 4 799.824.
    let (first_bps, then_bps, reported_at) = (2_149_280_i64, 4_799_824_i64, 11_200);
    let mut playing_ms = 0;
    let mut millibits = 0;
    for (from, to) in playing {
        let before = (to.min(reported_at) - from).max(0);
        playing_ms += to - from;
        millibits += before * first_bps + (to - from - before) * then_bps;
    }
    assert_eq!(playing_ms, 320_008);
    let row = &bench.sql("SELECT playing_ms, bitrate_known_ms FROM silver.playback_sessions WHERE content_id = 'BigBuckBunny'")[0];
    assert_eq!(row, &json!({"playing_ms": playing_ms, "bitrate_known_ms": playing_ms}));
    // Bits are whole numbers in each piece of a minute, which moves the mean by less than 0.001 kbit/s.
    let expected = millibits as f64 / 1000.0 / playing_ms as f64;
    assert!(
        (kbps("BigBuckBunny") - expected).abs() < 0.001,
        "{} instead of {expected}",
        kbps("BigBuckBunny")
    );
}

#[test]
fn a_live_session_without_a_bitrate_has_no_average_bitrate_rather_than_zero() {
    let bench = fixture();
    check(
        &bench,
        "SELECT playing_ms, shown_bits, bitrate_known_ms, start_bitrate_bps, duration_ms, quartile
         FROM silver.playback_sessions WHERE content_id = 'news-live'",
        json!([{"playing_ms": 11_500, "shown_bits": 0, "bitrate_known_ms": 0, "start_bitrate_bps": null,
                "duration_ms": null, "quartile": null}]),
    );
}

#[test]
fn one_client_of_four_had_an_error() {
    let bench = fixture();
    check(
        &bench,
        "SELECT count(DISTINCT client) AS clients, count(DISTINCT client) FILTER (WHERE fatal_errors > 0) AS with_errors
         FROM silver.playback_sessions",
        json!([{"clients": 4, "with_errors": 1}]),
    );
    // The error came in the minute 08:01, in which BigBuckBunny's viewer was there as well.
    check(
        &bench,
        "SELECT clients, clients_with_errors, fatal_errors FROM gold.errors_1m WHERE fatal_errors > 0",
        json!([{"clients": 2, "clients_with_errors": 1, "fatal_errors": 1}]),
    );
}

#[test]
fn big_buck_bunny_was_watched_to_its_end_and_tears_of_steel_was_not() {
    let bench = fixture();
    check(
        &bench,
        "SELECT content_id, finished, quartile, max_playhead_ms, duration_ms FROM silver.playback_sessions
         WHERE stream_type = 'vod' ORDER BY content_id",
        json!([
            {"content_id": "BigBuckBunny", "finished": 1, "quartile": 100, "max_playhead_ms": 596_480, "duration_ms": 596_480},
            {"content_id": "TearsOfSteel", "finished": 0, "quartile": 0, "max_playhead_ms": 5_300, "duration_ms": 734_170},
        ]),
    );
}

#[test]
fn the_join_with_the_cdn_keeps_all_25_events_and_matches_11() {
    let bench = fixture();
    check(
        &bench,
        "SELECT count(*) AS rows, count(requests.request_id) AS matched
         FROM silver.player_events AS events LEFT JOIN silver.cdn_requests AS requests ON requests.request_id = events.request_id",
        json!([{"rows": 25, "matched": 11}]),
    );
    check(
        &bench,
        "SELECT sum(reports) AS reports, sum(matched_by_id) AS matched FROM gold.delivery_1m",
        json!([{"reports": 13, "matched": 11}]),
    );
    check(
        &bench,
        "SELECT pop, cdn, startup_ms_sum FROM gold.delivery_1m WHERE startup_count > 0 ORDER BY startup_ms_sum",
        json!([
            {"pop": "LHR", "cdn": "cloudfront", "startup_ms_sum": 640},
            {"pop": null, "cdn": null, "startup_ms_sum": 900},
            {"pop": "BOM", "cdn": "cloudfront", "startup_ms_sum": 2950},
        ]),
    );
}

#[test]
fn gold_adds_up_to_silver() {
    let bench = fixture();
    check(
        &bench,
        "SELECT sum(attempts) AS attempts, sum(plays) AS plays, sum(start_failures) AS start_failures,
                sum(exits_before_start) AS exits_before_start, sum(stall_ms) AS stall_ms, sum(playing_ms) AS playing_ms,
                sum(seek_wait_ms) AS seek_wait_ms, sum(startup_wait_ms) AS startup_wait_ms
         FROM gold.playback_1m",
        json!([{"attempts": 4, "plays": 3, "start_failures": 1, "exits_before_start": 0, "stall_ms": STALL_MS,
                "playing_ms": PLAYING_MS, "seek_wait_ms": 412, "startup_wait_ms": 640 + 2_950 + 900 + 1_250}]),
    );
    let sums = "sum(shown_bits) AS shown_bits, sum(bitrate_known_ms) AS bitrate_known_ms, sum(paused_ms) AS paused_ms";
    let gold = bench.sql(&format!("SELECT {sums} FROM gold.playback_1m"));
    for table in ["silver.playback_sessions", "silver.playback_intervals"] {
        let states = if table.ends_with("intervals") {
            "sum(shown_bits) AS shown_bits, sum(bitrate_known_ms) AS bitrate_known_ms, sum(duration_ms) FILTER (WHERE state = 'paused') AS paused_ms"
        } else {
            sums
        };
        assert_eq!(bench.sql(&format!("SELECT {states} FROM {table}")), gold, "{table}");
    }
    // Active is playing, rebuffering or seeking, and one and a half heartbeats (of 30 s) of the two sessions
    // that went silent while they were.
    check(
        &bench,
        "SELECT sum(active_ms) AS ms FROM gold.audience_1m",
        json!([{"ms": PLAYING_MS + STALL_MS + 412 + 2 * 45_000}]),
    );
    check(
        &bench,
        "SELECT sum(requests) AS requests, sum(cache_hits) AS hits, sum(cache_lookups) AS lookups, sum(bytes) AS bytes FROM gold.cdn_1m",
        json!([{"requests": 8, "hits": 4, "lookups": 7,
                "bytes": 1_370_422 + 1_402_911 + 3_120_045 + 3_098_120 + 402_117 + 398_204 + 243 + 5_213}]),
    );
}

#[test]
fn the_native_log_row_is_understood_with_and_without_its_header() {
    let row = std::fs::read_to_string(reference("ref_cdn_v1_row.tsv")).expect("the fixture is there");
    let header = format!("#Version: 1.0\n#Fields: {FIELDS_33}\n");
    for (name, content) in [("bare.tsv", row.clone()), ("whole.tsv", format!("{header}{row}"))] {
        let bench = Bench::new();
        let file = bench.write(name, content);
        let summary = bench.ingest(&[&file]);
        assert_eq!(
            (&summary["received"], &summary["stored"]),
            (&json!(1), &json!(1)),
            "{name}: {summary}"
        );
        check(
            &bench,
            "SELECT browser, os, status, time_taken_ms, ttfb_ms, decode_depth, request_id, edge_location, pop, sc_bytes, result_type,
                    client_prefix, event_ts FROM silver.cdn_requests",
            json!([{"browser": "Chrome", "os": "Mac OS X", "status": 200, "time_taken_ms": 184, "ttfb_ms": 21, "decode_depth": 2,
                    "request_id": "kQ3v9ZtHcJfW0sYb7uXoLrE2mNpDgA5iTq8wKeRxV1hUyBzC4jM6Fw==", "edge_location": "LHR50-C1",
                    "pop": "LHR", "sc_bytes": 1_370_422, "result_type": "Hit", "client_prefix": "203.0.113.0",
                    "event_ts": "2020-05-06T08:00:00Z"}]),
        );
        let payload = row.trim_end().replace("203.0.113.77", "203.0.113.0");
        // Of a referrer its origin is kept.
        let payload = payload.replace("https://player.example.com/ui/index.html", "https://player.example.com/");
        assert_eq!(bench.value("SELECT payload FROM bronze.cdn_logs"), json!(payload), "{name}");
    }
}

#[test]
fn a_second_cdn_keeps_its_name_and_results_are_spelled_alike() {
    let bench = fixture();
    check(
        &bench,
        "SELECT cdn, result_type, count(*) AS n FROM silver.cdn_requests GROUP BY cdn, result_type ORDER BY cdn, result_type",
        json!([
            {"cdn": "cloudfront", "result_type": "Error", "n": 1},
            {"cdn": "cloudfront", "result_type": "Hit", "n": 3},
            {"cdn": "cloudfront", "result_type": "Miss", "n": 2},
            {"cdn": "cloudfront", "result_type": "RefreshHit", "n": 1},
            {"cdn": "fastly", "result_type": "Miss", "n": 1},
        ]),
    );
}

#[test]
fn bronze_holds_each_line_byte_for_byte_where_ids_are_kept() {
    let bench = Bench::new();
    bench.ingest_with("privacy:\n  identity: keep\n", &[&reference("ref_player.ndjson")]);
    assert_payloads(&bench, "bronze.player_events", "ref_player.ndjson", |line| line.to_string());
}

#[test]
fn a_pseudonym_is_all_that_changes_in_a_player_line() {
    let bench = fixture();
    let users = bench.sql("SELECT content_id, user_id FROM silver.playback_sessions");
    assert_payloads(&bench, "bronze.player_events", "ref_player.ndjson", |line| {
        let event: Value = serde_json::from_str(line).expect("a line of JSON");
        let user = users
            .iter()
            .find(|user| user["content_id"] == event["video_id"])
            .expect("every title has its viewer");
        line.replace(
            event["user_id"].as_str().expect("an id"),
            user["user_id"].as_str().expect("a pseudonym"),
        )
    });
}

#[test]
fn a_cut_address_is_all_that_changes_in_a_cdn_line() {
    let bench = fixture();
    let masked = [
        ("203.0.113.77", "203.0.113.0"),
        ("2001:db8:85a3:8d3:1319:8a2e:370:7348", "2001:db8:85a3::"),
        ("198.51.100.9\"", "198.51.100.0\""),
        ("198.51.100.24", "198.51.100.0"),
    ];
    assert_payloads(&bench, "bronze.cdn_logs", "ref_cdn.ndjson", |line| {
        masked
            .iter()
            .fold(line.to_string(), |line, (address, prefix)| line.replace(address, prefix))
    });
}

/// Every line of the file stands in bronze, at its byte, as `stored` says.
#[track_caller]
fn assert_payloads(bench: &Bench, table: &str, file: &str, stored: impl Fn(&str) -> String) {
    let text = std::fs::read_to_string(reference(file)).expect("the fixture is there");
    let expected: Vec<Value> = lines_with_offsets(&text)
        .into_iter()
        .map(|(offset, line)| json!({"source_offset": offset, "payload": stored(line)}))
        .collect();
    let rows = bench.sql(&format!("SELECT source_offset, payload FROM {table} ORDER BY source_offset"));
    assert_eq!(rows.len(), expected.len(), "{table}");
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row, expected, "{table}");
    }
}
