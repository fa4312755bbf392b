//! Records that hurt: each one is stored, known already, or refused with a reason and a place, and
//! none takes its neighbours with it.
//!
//! Invariant: received = stored + duplicates + rejected, and every refused byte can be found again.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Bench, reference};

/// The most that a record may have (DESIGN D12: 1 MiB).
const RECORD_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// Stored under this event type.
    Stored(&'static str),
    Duplicate,
    Rejected(&'static str),
    /// A blank line is no record.
    Nothing,
}
use Fate::{Duplicate, Nothing, Rejected, Stored};

struct Case {
    line: Vec<u8>,
    fate: Fate,
    offset: usize,
}

/// Hostile lines with a good one after each, and what must become of every line.
fn cases() -> Vec<Case> {
    let fixture = std::fs::read(reference("hostile.ndjson")).expect("the fixture is there");
    let fixture: Vec<Vec<u8>> = fixture.split(|byte| *byte == b'\n').take(7).map(<[u8]>::to_vec).collect();
    let fates = [
        Rejected("malformed_json"),
        Stored("custom"),
        Stored("playback_request"),
        Stored("heartbeat"),
        Rejected("event_time_out_of_range"),
        Rejected("not_an_object"),
        Nothing,
    ];
    let again = fixture[3].clone();
    let mut hostile: Vec<(Vec<u8>, Fate)> = fixture.into_iter().zip(fates).collect();
    hostile.extend([
        (again, Duplicate),
        (event_of_bytes(2 << 20), Rejected("too_large")),
        (event_of_bytes(RECORD_BYTES_MAX + 1), Rejected("too_large")),
        (event_of_bytes(RECORD_BYTES_MAX), Stored("playback_request")),
        (
            b"{\"MetricType\":\"PLAY\",\"user_id\":\"\xff\xfe\",\"video_id\":\"v\",\"TimeStamp\":1588752000000}".to_vec(),
            Rejected("not_utf8"),
        ),
        (nested(200), Rejected("too_deep")),
        (vec![0; 9], Rejected("malformed_json")),
        (b"{\"MetricType\":\"PLAY\"}".to_vec(), Rejected("missing_event_time")),
        (b"{\"TimeStamp\":1588752000000}".to_vec(), Rejected("missing_event_type")),
        (
            b"{\"MetricType\":\"PLAY\",\"TimeStamp\":1}".to_vec(),
            Rejected("event_time_out_of_range"),
        ),
        (b"\"PLAY\"".to_vec(), Rejected("not_an_object")),
        (b"   ".to_vec(), Nothing),
    ]);
    let mut offset = 0;
    let mut cases = Vec::new();
    for (number, (line, fate)) in hostile.into_iter().enumerate() {
        for (line, fate) in [(line, fate), (good(number), Stored("playback_start"))] {
            let length = line.len() + 1;
            cases.push(Case { line, fate, offset });
            offset += length;
        }
    }
    cases
}

fn good(number: usize) -> Vec<u8> {
    let time = 1_588_752_100_000_i64 + i64::try_from(number).expect("few") * 1000;
    format!(r#"{{"MetricType":"FIRSTFRAME","time_millisecond":500,"user_id":"good{number}","video_id":"v","TimeStamp":{time}}}"#)
        .into_bytes()
}

/// A sound event that is this long.
fn event_of_bytes(length: usize) -> Vec<u8> {
    let (head, tail) = (
        r#"{"MetricType":"PLAY","user_id":"long","video_id":"v","TimeStamp":1588752000000,"pad":""#,
        r#""}"#,
    );
    let padding = "x".repeat(length - head.len() - tail.len());
    format!("{head}{padding}{tail}").into_bytes()
}

fn nested(depth: usize) -> Vec<u8> {
    let deep = "[".repeat(depth) + &"]".repeat(depth);
    format!(r#"{{"MetricType":"PLAY","user_id":"deep","video_id":"v","TimeStamp":1588752000000,"deep":{deep}}}"#).into_bytes()
}

fn text_of(cases: &[Case]) -> Vec<u8> {
    cases.iter().flat_map(|case| case.line.iter().copied().chain([b'\n'])).collect()
}

fn count(cases: &[Case], is: impl Fn(Fate) -> bool) -> usize {
    cases.iter().filter(|case| is(case.fate)).count()
}

#[track_caller]
fn assert_fates(bench: &Bench, summary: &Value, file: &Path, cases: &[Case]) {
    let (stored, rejected) = (
        count(cases, |fate| matches!(fate, Stored(_))),
        count(cases, |fate| matches!(fate, Rejected(_))),
    );
    let duplicates = count(cases, |fate| fate == Duplicate);
    let expected = json!({"received": stored + duplicates + rejected, "stored": stored, "duplicates": duplicates, "rejected": rejected});
    for (name, number) in expected.as_object().expect("an object") {
        assert_eq!(&summary[name], number, "{name} in {summary}");
    }

    let events: Vec<Value> = cases
        .iter()
        .filter_map(|case| match case.fate {
            Stored(event_type) => Some(json!({"source_offset": case.offset, "event_type": event_type})),
            _ => None,
        })
        .collect();
    for table in ["bronze.player_events", "silver.player_events"] {
        assert_eq!(
            bench.sql(&format!("SELECT source_offset, event_type FROM {table} ORDER BY source_offset")),
            events,
            "{table}"
        );
    }

    let rejects =
        bench.sql("SELECT source_offset, reason, detail, size_bytes, source_partition FROM silver.rejects ORDER BY source_offset");
    let refused: Vec<&Case> = cases.iter().filter(|case| matches!(case.fate, Rejected(_))).collect();
    assert_eq!(rejects.len(), refused.len());
    let place = format!("{}#", file.display());
    for (row, case) in rejects.iter().zip(refused) {
        let Rejected(reason) = case.fate else { unreachable!("filtered") };
        let found = (&row["source_offset"], &row["reason"], &row["size_bytes"]);
        assert_eq!(found, (&json!(case.offset), &json!(reason), &json!(case.line.len())), "{row}");
        assert!(
            row["source_partition"]
                .as_str()
                .is_some_and(|partition| partition.starts_with(&place)),
            "{row} is not from {place}"
        );
        assert!(
            row["detail"].as_str().is_some_and(|detail| detail.len() > 10),
            "{row} does not say what was wrong"
        );
    }
}

#[test]
fn every_hostile_record_has_its_fate_and_its_neighbours_are_stored() {
    let (bench, cases) = (Bench::new(), cases());
    let file = bench.write("in.ndjson", text_of(&cases));
    let summary = bench.ingest(&[&file]);
    assert_fates(&bench, &summary, &file, &cases);
}

#[test]
fn fates_do_not_depend_on_the_batches() {
    let (bench, cases) = (Bench::new(), cases());
    let file = bench.write("in.ndjson", text_of(&cases));
    let summary = bench.ingest_with("ingest: {batch_records: 3}\n", &[&file]);
    assert!(summary["epochs"].as_u64() >= Some(10), "the batches were not small: {summary}");
    assert_fates(&bench, &summary, &file, &cases);
}

#[test]
fn in_a_packed_file_the_place_counts_unpacked_bytes() {
    let (bench, cases) = (Bench::new(), cases());
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&text_of(&cases)).expect("memory takes it");
    let file = bench.write("in.ndjson.gz", packed.finish().expect("memory takes it"));
    let summary = bench.ingest(&[&file]);
    assert_fates(&bench, &summary, &file, &cases);
}

#[test]
fn a_reject_is_written_once_however_often_the_file_comes() {
    let (bench, cases) = (Bench::new(), cases());
    let file = bench.write("in.ndjson", text_of(&cases));
    let first = bench.ingest(&[&file]);
    let again = bench.ingest(&[&file]);
    assert_eq!((&again["stored"], &again["rejected"]), (&json!(0), &json!(0)), "{again}");
    assert_fates(&bench, &first, &file, &cases);
}

#[test]
fn what_a_bent_record_says_is_understood_and_what_is_unknown_is_kept() {
    let bench = Bench::new();
    bench.ingest(&[&reference("hostile.ndjson")]);
    let rows = bench.sql(
        "SELECT event_type, event_ts, event_ts_raw, playhead_ms, bitrate_bps, content_id, unattributed, dq_flags, ext['ad_id'] AS ad_id
         FROM silver.player_events ORDER BY source_offset",
    );
    let base = |event_type: &str, event_ts: &str, raw: i64| {
        json!({"event_type": event_type, "event_ts": event_ts, "event_ts_raw": raw, "playhead_ms": null, "bitrate_bps": null,
               "content_id": "v", "unattributed": true, "dq_flags": [], "ad_id": null})
    };
    let mut unknown = base("custom", "2020-05-06T08:00:00Z", 1_588_752_000_000);
    unknown["ad_id"] = json!("a-1");
    unknown["unattributed"] = json!(false);
    let lower_case = base("playback_request", "2020-05-06T08:00:00Z", 1_588_752_000_000);
    let mut in_seconds = base("heartbeat", "2020-05-06T08:00:06Z", 1_588_752_006);
    in_seconds["playhead_ms"] = json!(5_020);
    in_seconds["bitrate_bps"] = json!(2_149_280);
    in_seconds["content_id"] = json!(null);
    in_seconds["dq_flags"] = json!(["seconds_timestamp"]);
    assert_eq!(rows, [unknown, lower_case, in_seconds]);
}

#[test]
fn a_hostile_log_loses_only_its_hostile_rows() {
    let row = std::fs::read_to_string(reference("ref_cdn_v1_row.tsv")).expect("the fixture is there");
    let row = row.trim_end();
    // The columns that matter, changed one at a time; the request ids keep the good rows apart.
    let with = |from: &str, to: &str| {
        let changed = row.replacen(from, to, 1);
        assert_ne!(changed, row, "{from} is not in the row");
        changed
    };
    let other = |id: &str| with("kQ3v9ZtHcJfW0sYb7uXoLrE2mNpDgA5iTq8wKeRxV1hUyBzC4jM6Fw==", id);
    let lines = [
        (row.to_string(), true),
        (row[..60].to_string(), false),
        (other("second"), true),
        (with("2020-05-06", "2020-13-45"), false),
        (with("2020-05-06", "3020-05-06"), false),
        (format!("{row}\t-\t-\t-"), false),
        (other("third"), true),
    ];
    let text: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
    let bench = Bench::new();
    let file = bench.write("in.tsv", text);
    let summary = bench.ingest(&[&file]);
    assert_eq!(
        (&summary["received"], &summary["stored"], &summary["rejected"]),
        (&json!(7), &json!(3), &json!(4)),
        "{summary}"
    );
    let mut offset = 0;
    let mut refused = Vec::new();
    for (line, is_good) in &lines {
        refused.extend((!is_good).then(|| json!({"source_offset": offset})));
        offset += line.len() + 1;
    }
    assert_eq!(
        bench.sql("SELECT source_offset FROM silver.rejects ORDER BY source_offset"),
        refused
    );
}
