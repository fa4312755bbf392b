//! The events of the Eyevinn Player Analytics Specification, valid and invalid, through the front door.
//!
//! The fixture is the event sink's own: 15 valid events and 16 invalid ones. Valid ones are stored, each
//! invalid one is refused with the reason that is true of it, and none is lost. On top of it stand the
//! traps of the dialect: units, -1, and events that come in a bad order.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::support::{Bench, fixtures, lines_with_offsets};

/// 2026-04-14T07:00:00Z.
const T0_MS: i64 = 1_776_150_000_000;

/// The fixture's events under `valid` or `invalid`.
fn events(validity: &str) -> Option<Vec<Value>> {
    let folder = fixtures("player-events")?.join("eyevinn");
    let text = std::fs::read_to_string(folder.join("events.json")).expect("the events are there");
    let all: Value = serde_json::from_str(&text).expect("the events are JSON");
    all[validity].as_array().cloned()
}

fn name_of(event: &Value) -> &str {
    event["event"].as_str().expect("every event of the fixture has a name")
}

fn text_of(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

/// A lake with these records, and the summary of their ingest: `received` must be accounted for.
#[track_caller]
fn ingested(records: &[Value]) -> (Bench, Value) {
    let bench = Bench::new();
    let file = bench.write("epas.ndjson", text_of(records));
    let summary = bench.ingest(&[Path::new("--format"), Path::new("epas"), &file]);
    let figure = |name: &str| summary[name].as_u64().expect("a count");
    assert_eq!(figure("received"), records.len() as u64, "{summary}");
    assert_eq!(
        figure("received"),
        figure("stored") + figure("duplicates") + figure("rejected"),
        "{summary}"
    );
    (bench, summary)
}

/// Reason and detail of every refused record, by its place in the file.
fn rejects(bench: &Bench) -> BTreeMap<i64, (String, String)> {
    let rows = bench.sql("SELECT source_offset, reason, detail, format FROM silver.rejects");
    let reject = |row: &Value| {
        assert_eq!(row["format"], "epas");
        let text = |column: &str| row[column].as_str().expect("a text").to_owned();
        (row["source_offset"].as_i64().expect("an offset"), (text("reason"), text("detail")))
    };
    rows.iter().map(reject).collect()
}

/// Every record with the reason it was refused for, or none.
fn outcomes(bench: &Bench, records: &[Value]) -> Vec<Option<(String, String)>> {
    let rejects = rejects(bench);
    let text = text_of(records);
    let lines = lines_with_offsets(&text);
    let outcomes: Vec<_> = lines.iter().map(|(offset, _)| rejects.get(offset).cloned()).collect();
    let refused = outcomes.iter().flatten().count();
    assert_eq!(refused, rejects.len(), "a reject is of no record: {rejects:?}");
    outcomes
}

#[test]
fn every_valid_event_is_stored_as_what_it_is() {
    let Some(valid) = events("valid") else { return };
    assert_eq!(valid.len(), 15);
    let (bench, summary) = ingested(&valid);
    assert_eq!(
        (&summary["stored"], &summary["duplicates"], &summary["rejected"]),
        (&json!(15), &json!(0), &json!(0)),
        "{summary}"
    );
    let rows = bench.sql("SELECT event_type, count(*) AS n FROM silver.player_events GROUP BY event_type ORDER BY event_type");
    // `loaded` says only that there is enough in the buffer; `error` and `warning` differ in `error_fatal`.
    let expected = [
        ("heartbeat", 1),
        ("metadata", 2),
        ("playback_error", 2),
        ("playback_finish", 1),
        ("playback_pause", 1),
        ("playback_request", 1),
        ("playback_start", 1),
        ("rendition_update", 1),
        ("seek_end", 1),
        ("seek_start", 1),
        ("session_start", 1),
        ("stall_end", 1),
        ("stall_start", 1),
    ]
    .map(|(kind, count)| json!({"event_type": kind, "n": count}));
    assert_eq!(rows, expected);
    let fatal = bench.sql(
        "SELECT error_fatal, error_category, error_codes, error_message FROM silver.player_events
         WHERE event_type = 'playback_error' ORDER BY error_fatal",
    );
    assert_eq!(fatal.len(), 2);
    assert_eq!((&fatal[0]["error_fatal"], &fatal[1]["error_fatal"]), (&json!(false), &json!(true)));
    assert_eq!(fatal[0]["error_codes"], json!(["404"]));
    assert_eq!(fatal[1]["error_codes"], json!([]), "an empty code is no code");
    let rendition = bench.sql("SELECT bitrate_bps, width, height FROM silver.player_events WHERE event_type = 'rendition_update'");
    assert_eq!(rendition, [json!({"bitrate_bps": 300_000, "width": 1920, "height": 1080})]);
    // Times of -1 and 0 are a player without a clock: all fifteen take the time of receipt.
    let by_receipt = "SELECT count(*) FROM silver.player_events WHERE array_has(dq_flags, 'receive_time') AND event_ts <= received_at";
    assert_eq!(bench.int(by_receipt), 15);
    // Positions and lengths of -1 are unknown; a length of 0 is, too.
    let unknown = "SELECT count(*) FROM silver.player_events WHERE playhead_ms < 0 OR duration_ms <= 0";
    assert_eq!(bench.int(unknown), 0);
}

/// The 16 invalid events in the fixture's order, and what is wrong with each: the first thing that is.
const INVALID: [(&str, &str, &str); 16] = [
    ("init", "missing_event_time", "timestamp"),
    ("metadata", "missing_fields", "playhead"),
    ("heartbeat", "missing_fields", "playhead"),
    ("loading", "missing_fields", "playhead"),
    ("loaded", "missing_event_time", "timestamp"),
    ("playing", "missing_fields", "playhead"),
    ("pause", "missing_event_time", "timestamp"),
    ("resume", "missing_fields", "playhead"),
    ("buffering", "missing_event_time", "timestamp"),
    ("buffered", "missing_fields", "duration"),
    ("seeking", "missing_event_time", "timestamp"),
    ("seeked", "missing_event_time", "timestamp"),
    ("bitrate_changed", "missing_fields", "playhead"),
    ("stopped", "missing_event_time", "timestamp"),
    ("error", "missing_event_time", "timestamp"),
    ("warning", "missing_event_time", "timestamp is not a number"),
];

#[test]
fn every_invalid_event_is_refused_for_what_is_wrong_with_it() {
    let Some(invalid) = events("invalid") else { return };
    let (bench, summary) = ingested(&invalid);
    assert_eq!((&summary["rejected"], &summary["stored"]), (&json!(16), &json!(0)), "{summary}");
    for ((event, outcome), expected) in invalid.iter().zip(outcomes(&bench, &invalid)).zip(INVALID) {
        let (name, reason, about) = expected;
        assert_eq!(name_of(event), name, "the fixture is another");
        let (found, detail) = outcome.unwrap_or_else(|| panic!("{event} was not refused"));
        assert_eq!(found, reason, "{event}: {detail}");
        assert!(detail.contains(about), "{event}: \"{detail}\" does not say {about}");
        assert!(!detail.contains("123-214-234"), "a detail tells what the record says: {detail}");
    }
}

/// An event without one of its members, and the reason it must be refused for.
fn maimed(valid: &[Value]) -> Vec<(Value, &'static str, String)> {
    let envelope = [
        ("event", "missing_event_type"),
        ("sessionId", "missing_fields"),
        ("timestamp", "missing_event_time"),
        ("playhead", "missing_fields"),
        ("duration", "missing_fields"),
    ];
    let in_payload = [
        ("bitrate_changed", "bitrate"),
        ("stopped", "reason"),
        ("error", "code"),
        ("warning", "code"),
    ];
    let without = |event: &Value, member: &str| -> Value {
        let members = event.as_object().expect("an event is an object");
        let kept: Map<String, Value> = members.clone().into_iter().filter(|(name, _)| name != member).collect();
        Value::Object(kept)
    };
    let mut maimed = Vec::new();
    for event in valid {
        for (member, reason) in envelope {
            maimed.push((without(event, member), reason, member.to_owned()));
        }
        for (_, member) in in_payload.iter().filter(|(name, _)| *name == name_of(event)) {
            let mut event = event.clone();
            event["payload"] = without(&event["payload"], member);
            maimed.push((event, "missing_fields", format!("payload.{member}")));
        }
        if name_of(event) == "metadata" {
            maimed.push((without(event, "payload"), "missing_fields", "payload".to_owned()));
        }
    }
    maimed
}

#[test]
fn a_valid_event_that_loses_any_member_the_schema_requires_is_refused_and_the_rest_survives() {
    let Some(valid) = events("valid") else { return };
    let maimed = maimed(&valid);
    assert_eq!(maimed.len(), 15 * 5 + 4 + 1);
    let mut records: Vec<Value> = maimed.iter().map(|(event, ..)| event.clone()).collect();
    records.extend(valid);
    let (bench, summary) = ingested(&records);
    assert_eq!((&summary["rejected"], &summary["stored"]), (&json!(80), &json!(15)), "{summary}");
    let outcomes = outcomes(&bench, &records);
    for ((event, reason, member), outcome) in maimed.iter().zip(&outcomes) {
        let (found, detail) = outcome.as_ref().unwrap_or_else(|| panic!("{event} was not refused"));
        assert_eq!(found, reason, "{event}: {detail}");
        assert!(detail.contains(member.as_str()), "{event}: \"{detail}\" does not say {member}");
    }
}

/// The fixture's 15 events, a second apart in this order, as a session.
fn session(id: &str, events: &[Value]) -> Vec<Value> {
    let at = |(second, event): (usize, &Value)| {
        let mut event = event.clone();
        event["sessionId"] = json!(id);
        event["timestamp"] = json!(T0_MS + 1_000 * i64::try_from(second).expect("few events"));
        event
    };
    events.iter().enumerate().map(at).collect()
}

/// Columns of the sessions that are lengths or counts.
fn lengths(row: &Value) -> impl Iterator<Item = (&String, i64)> {
    let columns = row.as_object().expect("a row is an object").iter();
    columns.filter_map(|(name, value)| Some((name, value.as_i64()?)))
}

#[test]
fn a_session_in_a_bad_order_is_flagged_and_no_length_of_it_is_negative() {
    let Some(valid) = events("valid") else { return };
    let backwards: Vec<Value> = valid.iter().rev().cloned().collect();
    let started = [valid[3].clone(), valid[5].clone(), valid[6].clone(), valid[12].clone()];
    let mut records = session("sound", &started);
    records.extend(session("backwards", &backwards));
    // Every event first in its session, followed by all others in the fixture's order.
    for (number, event) in valid.iter().enumerate() {
        let rest = valid.iter().filter(|other| *other != event);
        let events: Vec<Value> = [event].into_iter().chain(rest).cloned().collect();
        records.extend(session(&format!("first-{number}"), &events));
    }
    let (bench, summary) = ingested(&records);
    assert_eq!(
        (&summary["stored"], &summary["rejected"]),
        (&json!(records.len()), &json!(0)),
        "{summary}"
    );

    let flags = |session: &str| {
        bench.value(&format!(
            "SELECT dq_flags FROM silver.playback_sessions WHERE session_id = '{session}'"
        ))
    };
    assert_eq!(flags("sound"), json!([]), "loading, playing, paused, stopped is in order");
    let flags_of_bad = flags("backwards");
    assert_ne!(flags_of_bad, json!([]), "nothing says that the session came backwards");

    let rows = bench.sql("SELECT * FROM silver.playback_sessions");
    assert_eq!(rows.len(), 2 + valid.len());
    for row in &rows {
        for (column, value) in lengths(row) {
            assert!(value >= 0, "{}, {column}: {value}", row["session_id"]);
        }
        assert!(row["ended_at"].as_str() >= row["started_at"].as_str(), "{row}");
        let wall_ms = 14_000;
        let told = ["playing_ms", "stall_ms", "seek_wait_ms", "paused_ms", "startup_wait_ms"];
        let sum: i64 = told.iter().map(|column| row[*column].as_i64().expect("a length")).sum();
        assert!(sum <= wall_ms, "{}: {sum} ms in a session of {wall_ms}", row["session_id"]);
    }
    let impossible = "SELECT count(*) FROM silver.playback_intervals WHERE duration_ms <= 0 OR interval_end <= interval_start";
    assert_eq!(bench.int(impossible), 0);
    let overlapping = "SELECT count(*) FROM silver.playback_intervals a JOIN silver.playback_intervals b
                       ON a.session_id = b.session_id AND a.interval_start < b.interval_start AND b.interval_start < a.interval_end";
    assert_eq!(bench.int(overlapping), 0);
}

/// `seconds event playhead` of an asset, with playhead and length as a player would write them.
fn clip(id: &str, length: &Value, position: impl Fn(i64) -> Value) -> Vec<Value> {
    let steps = [
        (0, "loading", 0),
        (2, "playing", 0),
        (20, "buffering", 18),
        (30, "buffered", 18),
        (72, "stopped", 60),
    ];
    let event = |(at, event, playhead): (i64, &str, i64)| {
        let mut payload = json!({"contentId": "clip"});
        if event == "stopped" {
            payload["reason"] = json!("ended");
        }
        json!({"event": event, "sessionId": id, "timestamp": T0_MS + at * 1_000, "playhead": position(playhead),
               "duration": length, "payload": payload})
    };
    steps.into_iter().map(event).collect()
}

#[test]
fn a_clip_told_in_seconds_is_the_clip_told_in_milliseconds() {
    let mut records = clip("ms", &json!(60_000), |seconds| json!(seconds * 1_000));
    records.extend(clip("s", &json!(60), |seconds| json!(seconds)));
    records.extend(clip("s-decimal", &json!(60.0), |seconds| json!(seconds as f64 + 0.0)));
    // -1 is unknown, which is no position before the start and no length.
    records.extend(clip("unknown", &json!(-1), |_| json!(-1)));
    let (bench, _) = ingested(&records);
    let rows = bench.sql(
        "SELECT session_id, duration_ms, max_playhead_ms, quartile, playing_ms, stall_ms, startup_ms, covered_ms
         FROM silver.playback_sessions ORDER BY session_id",
    );
    let known = |id: &str| {
        json!({"session_id": id, "duration_ms": 60_000, "max_playhead_ms": 60_000, "quartile": 100, "playing_ms": 60_000,
               "stall_ms": 10_000, "startup_ms": 2_000, "covered_ms": 60_000})
    };
    assert_eq!(rows[..3], [known("ms"), known("s"), known("s-decimal")]);
    let unknown = &rows[3];
    assert_eq!(
        (&unknown["duration_ms"], &unknown["max_playhead_ms"], &unknown["quartile"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!((&unknown["playing_ms"], &unknown["stall_ms"]), (&json!(60_000), &json!(10_000)));
}

/// `seconds event playhead` a line, of one session.
fn told(id: &str, length: &Value, text: &str) -> Vec<Value> {
    let event = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [at, event, playhead] = words[..] else {
            panic!("{line} is no event");
        };
        let at: f64 = at.parse().expect("seconds");
        let playhead: Value = serde_json::from_str(playhead).expect("a number");
        let mut payload = json!({"contentId": "clip"});
        if event == "stopped" {
            payload["reason"] = json!("ended");
        }
        json!({"event": event, "sessionId": id, "timestamp": T0_MS + (at * 1_000.0) as i64, "playhead": playhead,
               "duration": length, "payload": payload})
    };
    text.lines().map(event).collect()
}

#[test]
fn the_unit_is_that_of_the_session_and_told_by_how_the_playhead_moves() {
    let mut records = told(
        "clip",
        &json!(40_000),
        "0 loading 0\n1 playing 0\n21 heartbeat 20000\n41 stopped 40000",
    );
    records.extend(told(
        "film",
        &json!(46_800),
        "0 loading 0\n1 playing 0\n31 heartbeat 30\n65 heartbeat 64",
    ));
    let whole = "0 loading 0\n1 playing 0\n31 heartbeat 30\n61 heartbeat 60\n101 stopped 100";
    records.extend(told("whole", &json!(-1), whole));
    let mixed = "0 loading -1\n0.5 playing -1\n30.75 heartbeat 30.25\n60.5 heartbeat 60\n91 heartbeat 90.5";
    records.extend(told("mixed", &json!(-1), mixed));
    // The last record comes first: what it tells of the unit holds for all.
    records.reverse();
    let (bench, _) = ingested(&records);
    let rows = bench.sql(
        "SELECT session_id, duration_ms, max_playhead_ms, covered_ms, array_has(dq_flags, 'unit_settled') AS settled
         FROM silver.playback_sessions ORDER BY session_id",
    );
    let row = |id: &str, duration_ms: Option<i64>, max_playhead_ms: i64, covered_ms: i64, settled: bool| {
        json!({"session_id": id, "duration_ms": duration_ms, "max_playhead_ms": max_playhead_ms, "covered_ms": covered_ms,
               "settled": settled})
    };
    let expected = [
        row("clip", Some(40_000), 40_000, 40_000, true),
        row("film", Some(46_800_000), 64_000, 64_000, false),
        row("mixed", None, 90_500, 90_500, false),
        row("whole", None, 100_000, 100_000, false),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn every_event_is_taken_for_seconds_and_flagged_and_a_time_of_day_is_live() {
    let heartbeat = |number: i64, playhead: &str, duration: &str| -> Value {
        let timestamp = T0_MS + number;
        let line = format!(
            r#"{{"event":"heartbeat","sessionId":"u-{number}","timestamp":{timestamp},"playhead":{playhead},"duration":{duration}}}"#
        );
        serde_json::from_str(&line).expect("JSON")
    };
    let null = Value::Null;
    // Playhead and length as sent; both as stored, in ms if sent in seconds; stream type; whether a unit was guessed.
    let cases = [
        ("-1", "-1", null.clone(), null.clone(), null.clone(), false),
        ("0", "0", json!(0), null.clone(), null.clone(), false),
        ("12.25", "600.5", json!(12_250), json!(600_500), null.clone(), true),
        ("12", "600", json!(12_000), json!(600_000), null.clone(), true),
        ("12000", "600000", json!(12_000_000), json!(600_000_000), null.clone(), true),
        ("-1", "600000", null.clone(), json!(600_000_000), null.clone(), true),
        ("12.25", "-1", json!(12_250), null.clone(), null.clone(), true),
        ("1776150000000", "1776150004000", null.clone(), null.clone(), json!("live"), true),
    ];
    let records: Vec<Value> = (0..).zip(&cases).map(|(number, case)| heartbeat(number, case.0, case.1)).collect();
    let (bench, _) = ingested(&records);
    let rows = bench.sql(
        "SELECT playhead_ms, duration_ms, stream_type, array_has(dq_flags, 'unit_assumed') AS guessed
         FROM silver.player_events ORDER BY event_ts",
    );
    assert_eq!(rows.len(), cases.len());
    for (row, (sent, length, playhead_ms, duration_ms, stream_type, guessed)) in rows.iter().zip(cases) {
        let expected = json!({"playhead_ms": playhead_ms, "duration_ms": duration_ms, "stream_type": stream_type, "guessed": guessed});
        assert_eq!(row, &expected, "playhead {sent}, duration {length}");
    }
}

#[test]
fn the_same_events_again_are_duplicates_and_none_is_lost() {
    let Some(valid) = events("valid") else { return };
    let once = session("again", &valid);
    let twice: Vec<Value> = once.iter().flat_map(|event| [event.clone(), event.clone()]).collect();
    let (bench, summary) = ingested(&twice);
    assert_eq!((&summary["stored"], &summary["duplicates"]), (&json!(15), &json!(15)), "{summary}");
    assert_eq!(bench.int("SELECT count(DISTINCT event_id) FROM silver.player_events"), 15);
    assert_eq!(bench.int("SELECT sum(duplicates) FROM silver.duplicates"), 15);
}
