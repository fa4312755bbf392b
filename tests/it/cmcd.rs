//! CMCD of both versions through `playhead ingest`: what a record comes to in the tables, and what it
//! is blamed for.
//!
//! Lines follow CTA-5004-B; where players and other decoders differ from it, the standard holds.

use serde_json::{Map, Value, json};

use crate::support::{Bench, fixtures};

/// Of a `silver.player_events` row: what CMCD says that these tests look at.
const COLUMNS: &str = "event_type, source, state, stream_type, stream_format, stall_flag, startup_flag, startup_ms, stall_ms, \
     bitrate_bps, req_bitrate_bps, top_bitrate_bps, throughput_bps, buffer_ms, buffer_video_ms, buffer_audio_ms, deadline_ms, \
     object_duration_ms, live_latency_ms, playback_rate, content_id, host, url, http_status, error_codes, seq, event_ts_raw, ext";
/// Of the CMCD-B examples.
const TS: i64 = 1_776_150_889_000;

#[test]
fn every_recorded_query_is_stored_with_its_session_and_its_buffer() {
    let Some(folder) = fixtures("cmcd/recorded") else {
        return;
    };
    let file = folder.join("cmcd-data-samples-queries.txt");
    let text = std::fs::read_to_string(&file).expect("the fixture can be read");
    let bench = Bench::new();
    let summary = bench.ingest(&[&file]);
    assert_eq!((&summary["received"], &summary["stored"]), (&json!(20), &json!(20)), "{summary}");
    let row = bench.sql(
        "SELECT count(*) AS n, count(session_id) AS sessions, count(content_id) AS contents, count(buffer_ms) AS buffers, \
         count(url) AS urls, sum(CASE WHEN strpos(url, 'CMCD') > 0 OR strpos(url, '?') > 0 THEN 1 ELSE 0 END) AS unclean, \
         sum(CASE WHEN cardinality(key_faults) > 0 THEN 1 ELSE 0 END) AS faulty FROM silver.player_events",
    );
    assert_eq!(
        row,
        [json!({"n": 20, "sessions": 20, "contents": 20, "buffers": 17, "urls": 20, "unclean": 0, "faulty": 0})]
    );
    // Three requests for an initialisation segment say nothing of the buffer: nothing is made up.
    let without = bench.sql("SELECT DISTINCT object_type FROM silver.player_events WHERE buffer_ms IS NULL");
    assert_eq!(without, [json!({"object_type": "init"})]);
    let mut sent: Vec<i64> = text
        .split("CMCD=")
        .filter_map(|line| line.strip_prefix("bl%3D")?.split('%').next()?.parse().ok())
        .collect();
    sent.sort_unstable();
    let rows = bench.sql("SELECT buffer_ms FROM silver.player_events WHERE buffer_ms IS NOT NULL ORDER BY buffer_ms");
    let stored: Vec<i64> = rows.iter().filter_map(|row| row["buffer_ms"].as_i64()).collect();
    assert_eq!(stored, sent, "as the players wrote them");
}

#[test]
fn a_bad_value_costs_its_key_and_never_its_record() {
    check_all(&[
        // Where other decoders err (events and metrics, 6.2).
        Row(
            "e=h,h=\"b.example\",TS,v=2",
            json!({"event_type": "host_change", "host": "b.example", "event_ts_raw": TS}),
            &[],
        ),
        Row("sf=e,v=2", json!({"stream_format": "hesp"}), &[]),
        Row("e=t,sta=w,TS,v=2", json!({"state": "waiting", "event_ts_raw": TS}), &[]),
        Row("bs=?0,v=2", json!({"stall_flag": false}), &[]),
        Row("br=(3000;v 164;a),v=2", json!({"req_bitrate_bps": 3_164_000}), &[]),
        Row(
            "com.example-x=1,v=2",
            json!({"ext": {"com.example-x": "1"}}),
            &["custom:custom_key_type"],
        ),
        Row("com.example-myKey=1", json!({"ext": {"com.example-myKey": "1"}}), &[]),
        Row("e=t,ts=1640995200000.5,v=2", json!({}), &["ts:not_an_integer", "ts:missing"]),
        Row(
            r#"com.example-q="say \"Q\", a\\b",bl=1"#,
            json!({"ext": {"com.example-q": "say \"Q\", a\\b"}, "buffer_ms": 1}),
            &[],
        ),
        Row("d=12px,bl=1", json!({"buffer_ms": 1}), &["d:wrong_type"]),
        // Bad in itself.
        Row(
            "bl=-5,br=99999999999999999999,d=325",
            json!({"object_duration_ms": 325}),
            &["bl:negative", "br:too_large"],
        ),
        Row("bl=(5000;v 3x;a),ot=v,v=2", json!({}), &["bl:wrong_type"]),
        Row("st=x,sf=h", json!({"stream_format": "hls"}), &["st:unknown_token"]),
        Row("cid=\"open,bl=7", json!({"buffer_ms": 7}), &["cid:malformed"]),
        Row("foo=1,bl=1", json!({"buffer_ms": 1}), &["custom:unknown_key"]),
        Row("bl=1,bl=2", json!({"buffer_ms": 2}), &["bl:duplicate_key"]),
        // A record that lacks what its event needs says the rest.
        Row("e=ce,TS,v=2", json!({"event_type": "custom", "event_ts_raw": TS}), &["cen:missing"]),
        Row(
            "e=rr,rc=404,TS,v=2",
            json!({"event_type": "response", "http_status": 404, "event_ts_raw": TS}),
            &["url:missing"],
        ),
        Row("e=t,rc=200,TS,v=2", json!({"event_ts_raw": TS}), &["rc:not_allowed_here"]),
        Row("e=t,TS", json!({"event_ts_raw": TS}), &["v:missing"]),
    ]);
}

#[test]
fn what_players_are_known_to_send_wrong_is_mended_and_named() {
    check_all(&[
        // Bitmovin 8.100: rounded half up.
        Row(
            "bl=25767.613999998,d=4000",
            json!({"buffer_ms": 25_768, "object_duration_ms": 4_000}),
            &["bl:not_an_integer", "bl:nonint"],
        ),
        Row(
            "bl=3993.8321995464853",
            json!({"buffer_ms": 3_994}),
            &["bl:not_an_integer", "bl:nonint"],
        ),
        Row(
            "bl=100.5,ot=v",
            json!({"buffer_ms": 101, "buffer_video_ms": 101}),
            &["bl:not_an_integer", "bl:nonint"],
        ),
        Row(
            "e=e,ec=27,TS,v=2",
            json!({"event_type": "playback_error", "error_codes": ["27"], "event_ts_raw": TS}),
            &["ec:list_expected"],
        ),
        Row(
            "br=3000,tb=5000000",
            json!({"req_bitrate_bps": 3_000_000, "top_bitrate_bps": 5_000_000}),
            &["tb:bit_per_second"],
        ),
        Row(
            "e=t,sta=a,ltc=1500,TS,v=2",
            json!({"state": "paused", "event_ts_raw": TS}),
            &["ltc:not_playing"],
        ),
        Row(
            "e=t,sta=p,ltc=1500.4,TS,v=2",
            json!({"state": "playing", "live_latency_ms": 1_500, "event_ts_raw": TS}),
            &["ltc:not_an_integer"],
        ),
        Row(
            "bs=true,su=false",
            json!({"stall_flag": true, "startup_flag": false}),
            &["bs:boolean_literal", "su:boolean_literal"],
        ),
        Row("cid=film-1", json!({"content_id": "film-1"}), &["cid:unquoted_string"]),
    ]);
    // An empty buffer is a fact, no throughput is none.
    let (row, _) = stored(&["mtp=0,bl=0"]).remove(0);
    assert_eq!((row.get("throughput_bps"), row.get("buffer_ms")), (None, Some(&json!(0))));
}

#[test]
fn both_versions_stand_in_one_file_and_each_is_read_by_its_own_rules() {
    check_all(&[
        Row(
            "bl=5000,ot=v",
            json!({"source": "cmcd1_log", "buffer_ms": 5_000, "buffer_video_ms": 5_000}),
            &[],
        ),
        Row(
            "bl=(5000;v 320;a),v=2",
            json!({"source": "cmcd2_log", "buffer_ms": 320, "buffer_video_ms": 5_000, "buffer_audio_ms": 320}),
            &[],
        ),
        Row(
            "bl=5000,v=2",
            json!({"source": "cmcd2_log", "buffer_ms": 5_000}),
            &["bl:list_expected"],
        ),
        Row(
            "bl=(5000;v 320;a),v=1",
            json!({"source": "cmcd1_log", "buffer_ms": 320, "buffer_video_ms": 5_000, "buffer_audio_ms": 320}),
            &["bl:scalar_expected"],
        ),
        Row(
            "st=ll",
            json!({"source": "cmcd1_log", "stream_type": "ll_live"}),
            &["st:not_in_version"],
        ),
        Row("st=ll,v=2", json!({"source": "cmcd2_log", "stream_type": "ll_live"}), &[]),
        Row(
            "e=t, sta=p, pb=(2900;v 128;a), pr=1.5, TS, v=2",
            json!({"source": "cmcd2_event", "state": "playing", "bitrate_bps": 3_028_000, "playback_rate": 1.5, "event_ts_raw": TS}),
            &[],
        ),
    ]);
}

#[test]
fn a_version_that_nobody_knows_is_refused_and_counted() {
    let bench = Bench::new();
    let lines = format!("v=3,bl=(1),sid=\"a\"\ne=t,sid=\"b\",ts={TS},v=2\ne=t,sid=\"c\",ts={TS},v=3\nv=20,e=t,sid=\"d\",ts={TS}\n");
    let summary = bench.ingest(&[&bench.write("versions.cmcd", lines)]);
    assert_eq!(
        (&summary["received"], &summary["stored"], &summary["rejected"]),
        (&json!(4), &json!(1), &json!(3)),
        "{summary}"
    );
    assert_eq!(bench.value("SELECT max(session_id) FROM silver.player_events"), json!("b"));
    let rejects = bench.sql("SELECT reason, format, count(*) AS n, min(detail) AS detail FROM silver.rejects GROUP BY reason, format");
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert_eq!((&rejects[0]["reason"], &rejects[0]["n"]), (&json!("bad_value"), &json!(3)));
    let detail = rejects[0]["detail"].as_str().expect("a text");
    assert!(detail.contains("v is above 2"), "it says what to do about it: {detail}");
}

/// CTA-5004-B, 8.2.2 and 8.2.5; the second in two deliveries, each record twice, the newest first.
#[test]
fn the_standards_own_sequences_come_out_as_the_standard_tells_them() {
    let bench = Bench::new();
    let line = |sid: &str, (seq, at, pairs): (i64, i64, &str)| format!("{pairs}, sid=\"{sid}\", sn={seq}, ts={}, v=2\n", TS + at);
    let plain = [
        (0, 0, "e=ps, sta=s"),
        (1, 812, "e=ps, sta=p, msd=812"),
        (2, 20_000, "e=ps, sta=r"),
        (3, 20_720, "e=ps, sta=p, bsd=(720)"),
        (4, 25_000, "e=ps, sta=e"),
        // The player lives on and says so; the session is over all the same.
        (5, 30_000, "e=t, sta=e"),
        (6, 60_000, "e=t, sta=e"),
    ];
    // Into rebuffering at ...150889, out of it at ...150112.
    let reversed = [
        (0, -8_889, "e=ps, sta=s"),
        (1, -7_889, "e=ps, sta=p"),
        (2, 889, "e=ps, sta=r"),
        (3, 112, "e=ps, sta=p, bsd=(1500)"),
        (4, 11_000, "e=ps, sta=e"),
    ];
    let in_order = |sid: &str| {
        [
            plain.map(|record| line(&format!("{sid}-plain"), record)).concat(),
            reversed.map(|record| line(&format!("{sid}-reversed"), record)).concat(),
        ]
        .concat()
    };
    let backwards: String = in_order("late").lines().rev().flat_map(|line| [line, "\n", line, "\n"]).collect();
    let summary = bench.ingest(&[
        &bench.write("in_order.cmcd", in_order("once")),
        &bench.write("backwards.cmcd", backwards),
    ]);
    assert_eq!((&summary["stored"], &summary["duplicates"]), (&json!(24), &json!(12)), "{summary}");

    for sid in ["once", "late"] {
        let session = |name: &str| {
            let rows = bench.sql(&format!(
                "SELECT startup_ms, startup_derived_ms, stall_ms, stall_count, playing_ms, watched_ms, finished, end_reason, events, \
                 lost_reports, order_conflicts, is_open, dq_flags FROM silver.playback_sessions WHERE session_id = '{sid}-{name}'"
            ));
            assert_eq!(rows.len(), 1, "{sid} {name}: {rows:?}");
            rows[0].clone()
        };
        assert_eq!(
            session("plain"),
            json!({"startup_ms": 812, "startup_derived_ms": 812, "stall_ms": 720, "stall_count": 1, "playing_ms": 23_468,
                   "watched_ms": 25_000, "finished": 1, "end_reason": "finished", "events": 7, "lost_reports": 0,
                   "order_conflicts": 0, "is_open": false, "dq_flags": []}),
            "{sid}"
        );
        let found = session("reversed");
        for (column, expected) in [
            ("stall_ms", json!(1_500)),
            ("stall_count", json!(1)),
            ("order_conflicts", json!(1)),
            ("dq_flags", json!(["ts_order_conflict"])),
            ("finished", json!(1)),
            ("watched_ms", json!(19_889)),
            ("playing_ms", json!(19_889 - 1_000 - 1_500)),
        ] {
            assert_eq!(found[column], expected, "{sid} {column}: {found}");
        }
    }
    let stalls = bench
        .sql("SELECT session_id, sum(duration_ms) AS ms FROM silver.playback_intervals WHERE state = 'rebuffering' GROUP BY 1 ORDER BY 1");
    let stall = |sid: &str, ms: i64| json!({"session_id": sid, "ms": ms});
    assert_eq!(
        stalls,
        [
            stall("late-plain", 720),
            stall("late-reversed", 1_500),
            stall("once-plain", 720),
            stall("once-reversed", 1_500)
        ]
    );
}

// ---- a table of records ----

/// A record without its session id (`TS` stands for a time), what survives of it, and its faults.
struct Row(&'static str, Value, &'static [&'static str]);

/// One lake a record would be dear: all records of a table go into one, told apart by their sessions.
#[track_caller]
fn check_all(rows: &[Row]) {
    let found = stored(&rows.iter().map(|Row(pairs, ..)| *pairs).collect::<Vec<_>>());
    for (Row(pairs, survives, faults), (mut found, blamed)) in rows.iter().zip(found) {
        let expected = survives.as_object().expect("columns");
        // What nearly every record has is said only where it is another.
        for (column, usual) in [("event_type", Some("heartbeat")), ("source", None)] {
            if !expected.contains_key(column) {
                let value = found.remove(column);
                assert!(usual.is_none() || value == usual.map(Value::from), "{pairs}: {column} is {value:?}");
            }
        }
        assert_eq!(&found, expected, "{pairs}");
        assert_eq!(blamed, json!(faults), "{pairs}");
    }
}

/// What the lake holds of each record, without what is null or empty, and the faults.
#[track_caller]
fn stored(records: &[&str]) -> Vec<(Map<String, Value>, Value)> {
    let bench = Bench::new();
    let line = |(number, pairs): (usize, &&str)| format!("sid=\"r{number:03}\",{}\n", pairs.replace("TS", &format!("ts={TS}")));
    let lines: String = records.iter().enumerate().map(line).collect();
    let summary = bench.ingest(&[&bench.write("records.cmcd", lines)]);
    assert_eq!(summary["stored"], json!(records.len()), "{summary}");
    let rows = bench.sql(&format!(
        "SELECT {COLUMNS}, key_faults FROM silver.player_events ORDER BY session_id"
    ));
    assert_eq!(rows.len(), records.len());
    let told = |row: Value| {
        let mut row = row.as_object().expect("a row").clone();
        let faults = row.remove("key_faults").unwrap_or_default();
        row.retain(|_, value| !value.is_null() && *value != json!([]) && *value != json!({}));
        (row, faults)
    };
    rows.into_iter().map(told).collect()
}
