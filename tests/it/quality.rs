//! `gold.quality_1h`: how well players report, counted exactly as it was planted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::Bench;

/// 2026-04-14, 07:00 UTC.
const HOUR: i64 = 1_776_150_000_000;
const NEXT_HOUR: i64 = HOUR + 3_600_000;

#[test]
fn what_players_report_wrong_is_counted_by_hour_release_key_and_rule() {
    let bench = Bench::new();
    let files = [bench.write("events.cmcd", cmcd()), bench.write("player.ndjson", reference())];
    let summary = bench.ingest(&[&files[0], &files[1]]);
    assert_eq!(
        (&summary["stored"], &summary["duplicates"], &summary["rejected"]),
        (&json!(25), &json!(6), &json!(3)),
        "{summary}"
    );

    assert_eq!(
        findings(&bench, "finding NOT IN ('rejected', 'duplicates')", "source"),
        counts(&[
            // Nine events of session a; those of the reference player: four of each of its sessions.
            ("07 events aws_demo tvplayer 1.0", 4),
            ("07 events aws_demo tvplayer 2.0", 8),
            ("07 events cmcd2_event", 9),
            ("08 events cmcd2_event", 4),
            ("07 key_fault cmcd2_event bl list_expected", 3),
            ("07 key_fault cmcd2_event d wrong_type", 1),
            ("07 key_fault cmcd2_event custom unknown_key", 1),
            ("08 key_fault cmcd2_event bl list_expected", 1),
            ("07 event_flag aws_demo tvplayer 1.0 startup_buffer", 1),
            ("07 event_flag aws_demo tvplayer 2.0 startup_buffer", 2),
            ("07 event_flag cmcd2_event undefined_state", 1),
            ("07 session_flag cmcd2_event ts_order_conflict", 1),
            ("07 session_flag cmcd2_event undefined_state", 1),
            // Numbers 2, 3 and 5 of session a never came.
            ("07 lost_reports cmcd2_event", 3),
            ("07 order_conflicts cmcd2_event", 1),
        ])
    );
    assert_eq!(
        findings(&bench, "finding = 'duplicates'", ""),
        counts(&[
            ("07 duplicates tvplayer 1.0", 1),
            ("07 duplicates tvplayer 2.0", 3),
            ("08 duplicates", 2),
        ])
    );
    // Refused records have no time that could be believed: they count in the hour of their receipt.
    let refused =
        bench.sql("SELECT rule, sum(occurrences) AS n FROM gold.quality_1h WHERE finding = 'rejected' GROUP BY rule ORDER BY rule");
    assert_eq!(
        refused,
        [json!({"rule": "bad_value", "n": 2}), json!({"rule": "malformed_json", "n": 1})]
    );
    let in_their_hour = "SELECT count(*) FROM gold.quality_1h AS q WHERE finding = 'rejected' AND NOT EXISTS \
                         (SELECT 1 FROM silver.rejects AS r WHERE r.received_at >= q.window_start AND r.received_at < q.window_end)";
    assert_eq!(bench.int(in_their_hour), 0);

    let again = bench.write("again/events.cmcd", cmcd());
    bench.ingest(&[&again]);
    assert_eq!(
        findings(&bench, "finding = 'duplicates'", "")["08 duplicates"],
        json!(2 + 6),
        "the same file under another name: its four events of the hour, one of them three times"
    );
    assert_eq!(findings(&bench, "finding = 'events'", "source")["08 events cmcd2_event"], json!(4));
}

/// Two sessions an hour apart; the second ends with a record sent three times.
fn cmcd() -> String {
    let a = |seq: i64, at: i64, pairs: &str| format!("{pairs},sid=\"a\",sn={seq},ts={},v=2\n", HOUR + at);
    let b = |seq: i64, at: i64, pairs: &str| format!("{pairs},sid=\"b\",sn={seq},ts={},v=2\n", NEXT_HOUR + at);
    [
        a(0, 0, "e=ps,sta=s"),
        a(1, 1_000, "e=ps,sta=p"),
        a(4, 10_000, "e=t,sta=p,bl=5000"),
        a(6, 20_000, "e=t,sta=p,bl=5000,d=12px"),
        a(7, 30_000, "e=t,sta=p,bl=6000,foo=1"),
        a(8, 40_000, "e=ps,sta=r"),
        a(9, 39_223, "e=ps,sta=p,bsd=(1500)"),
        a(10, 50_000, "e=t,sta=w"),
        a(11, 60_000, "e=ps,sta=e"),
        b(0, 0, "e=ps,sta=s"),
        b(1, 1_000, "e=ps,sta=p"),
        b(2, 10_000, "e=t,sta=p,bl=5000"),
        b(3, 20_000, "e=ps,sta=q").repeat(3),
        "v=3,bl=(1),sid=\"c\"\nv=3,bl=(2),sid=\"c\"\n".to_string(),
    ]
    .concat()
}

/// Three sessions of the reference player, one of them of an older release; some records twice.
fn reference() -> String {
    let record = |user: &str, release: &str, at: i64, kind: &str, more: &[(&str, Value)]| {
        let mut record = json!({"MetricType": kind, "user_id": user, "video_id": "film", "playlist_type": "VOD",
                                "TimeStamp": HOUR + at, "player_name": "tvplayer", "player_version": release});
        for (key, value) in more {
            record[*key] = value.clone();
        }
        format!("{record}\n")
    };
    let mut lines = Vec::new();
    for (user, release) in [("u1", "1.0"), ("u2", "2.0"), ("u3", "2.0")] {
        lines.push(record(user, release, 0, "PLAY", &[("at", json!(0))]));
        lines.push(record(user, release, 1_000, "FIRSTFRAME", &[("time_millisecond", json!(1_000))]));
        let first = [("time_millisecond", json!(1_200)), ("buffer_type", json!("FirstBuffer"))];
        lines.push(record(user, release, 1_200, "BUFFER", &first));
        lines.push(record(user, release, 30_000, "STOP", &[]));
    }
    for again in [1, 5, 9, 9] {
        lines.push(lines[again].clone());
    }
    lines.push("{\"MetricType\":\n".to_string());
    lines.concat()
}

/// Occurrences by hour of the day, finding, `more`, player, release, key and rule.
fn findings(bench: &Bench, which: &str, more: &str) -> BTreeMap<String, Value> {
    let more = if more.is_empty() { "NULL" } else { more };
    let rows = bench.sql(&format!(
        "SELECT concat_ws(' ', to_char(window_start, '%H'), finding, {more}, player_name, player_version, key, rule) AS what, \
         sum(occurrences) AS n FROM gold.quality_1h WHERE {which} GROUP BY 1"
    ));
    let what = |row: &Value| row["what"].as_str().expect("a text").to_string();
    rows.iter().map(|row| (what(row), row["n"].clone())).collect()
}

fn counts(expected: &[(&str, i64)]) -> BTreeMap<String, Value> {
    expected.iter().map(|(what, n)| ((*what).to_string(), json!(n))).collect()
}
