//! Foreign CloudFront logs: every row of every file, column by column, as an independent reading of
//! them says (`fixtures/cloudfront-logs/expected.json`).
//!
//! Addresses are compared after the cut to /24 that the test does by itself.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::support::{Bench, fixtures};

/// W3C names of the standard and real-time logs with the silver column that holds them.
const TEXT_AND_COUNTS: &[(&str, &str)] = &[
    ("x-edge-location", "edge_location"),
    ("sc-bytes", "sc_bytes"),
    ("cs-method", "method"),
    ("cs(Host)", "host"),
    ("cs-host", "host"),
    ("sc-status", "status"),
    ("cs(Referer)", "referer"),
    ("cs-referer", "referer"),
    ("cs(User-Agent)", "user_agent"),
    ("cs-user-agent", "user_agent"),
    ("x-edge-result-type", "result_type"),
    ("x-edge-request-id", "request_id"),
    ("x-host-header", "host_header"),
    ("cs-protocol", "protocol"),
    ("cs-bytes", "cs_bytes"),
    ("ssl-protocol", "ssl_protocol"),
    ("ssl-cipher", "ssl_cipher"),
    ("x-edge-response-result-type", "response_result_type"),
    ("cs-protocol-version", "protocol_version"),
    ("fle-status", "fle_status"),
    ("fle-encrypted-fields", "fle_encrypted_fields"),
    ("c-port", "client_port"),
    ("x-edge-detailed-result-type", "detailed_result_type"),
    ("sc-content-type", "content_type"),
    ("sc-content-len", "content_length"),
    ("sc-range-start", "range_start"),
    ("sc-range-end", "range_end"),
    ("c-country", "country"),
];

/// Seconds in the log, milliseconds in silver.
const SECONDS: &[(&str, &str)] = &[("time-taken", "time_taken_ms"), ("time-to-first-byte", "ttfb_ms")];

#[test]
fn every_row_of_the_foreign_logs_is_read_as_expected() {
    let Some(folder) = fixtures("cloudfront-logs") else { return };
    let text = std::fs::read(folder.join("expected.json")).expect("expected.json is there");
    let expected: BTreeMap<String, Value> = serde_json::from_slice(&text).expect("expected.json is JSON");
    assert_eq!(expected.len(), 4, "files in expected.json");
    for (file, expected) in &expected {
        compare_file(&folder.join(file), expected);
    }
}

#[track_caller]
fn compare_file(path: &Path, expected: &Value) {
    let file = path.display();
    let bench = Bench::new();
    let summary = bench.ingest_with("cdn: {referrer: keep}\n", &[path]);
    let count = &expected["data_rows"];
    assert_eq!(
        (&summary["received"], &summary["stored"], &summary["rejected"]),
        (count, count, &json!(0)),
        "{file}: {summary}"
    );

    let sums = &bench.sql("SELECT count(*) AS n, sum(sc_bytes) AS bytes, sum(time_taken_ms) AS ms FROM silver.cdn_requests")[0];
    let sum_ms = milliseconds(&expected["sum_time_taken"]);
    assert_eq!(
        sums,
        &json!({"n": count, "bytes": expected["sum_sc_bytes"], "ms": sum_ms}),
        "{file}"
    );
    assert_eq!(classes(&bench, "status"), expected["by_status"], "{file}");
    assert_eq!(classes(&bench, "result_type"), expected["by_result_type"], "{file}");

    // In the order of the file.
    let rows = bench.sql("SELECT * FROM silver.cdn_requests ORDER BY source_offset");
    let expected_rows = expected["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), expected_rows.len(), "{file}");
    for (row, expected) in rows.iter().zip(expected_rows) {
        for (name, value) in expected.as_object().expect("a row") {
            if let Some((found, value)) = pair(name, row, value) {
                assert_eq!(found, value, "{file}: {name} of the request {}", row["request_id"]);
            }
        }
    }
}

/// What silver holds under a W3C name, and what it should be.
fn pair(name: &str, row: &Value, expected: &Value) -> Option<(Value, Value)> {
    let column = |list: &[(&str, &str)]| list.iter().find(|(w3c, _)| *w3c == name).map(|(_, column)| row[*column].clone());
    if let Some(found) = column(TEXT_AND_COUNTS) {
        return Some((found, expected.clone()));
    }
    if let Some(found) = column(SECONDS) {
        return Some((found, milliseconds(expected)));
    }
    let event_ts = row["event_ts"].as_str().expect("every request has a time");
    Some(match name {
        "c-ip" => (row["client_prefix"].clone(), cut(expected)),
        "x-forwarded-for" => {
            let addresses = expected.as_array().cloned().unwrap_or_default();
            (row["forwarded_for"].clone(), addresses.iter().map(cut).collect())
        }
        // Nobody has asked for them: they are dropped before storage.
        "cs(Cookie)" | "cs-cookie" => (row["cookie"].clone(), Value::Null),
        "cs-uri-query" => (row["uri_query"].clone(), Value::Null),
        "cs-uri-stem" => (row["uri_stem"].clone(), path_of(expected)),
        // It holds cookies and addresses: no column has it, only the payload, where addresses are cut.
        "cs-headers" => (row["ext"][name].clone(), Value::Null),
        "_ts" => (json!(event_ts), expected.clone()),
        "date" => (json!(event_ts[..10]), expected.clone()),
        "time" => (json!(event_ts[11..19]), expected.clone()),
        // Told in `_ts`, and about the file rather than the request.
        "timestamp" | "_columns" => return None,
        // Columns of the real-time log that no column of silver stands for are kept as logged.
        name => (row["ext"][name].clone(), as_logged(expected)),
    })
}

/// The path without the query that the real-time log has behind it as well as in a column of its own.
fn path_of(stem: &Value) -> Value {
    let path = stem.as_str().and_then(|text| text.split('?').next());
    path.map_or(Value::Null, |path| json!(path))
}

/// The /24 of an IPv4 address, by cutting the text: the fixtures hold no other.
fn cut(address: &Value) -> Value {
    let text = address.as_str().expect("an address");
    let (network, _) = text.rsplit_once('.').expect("an IPv4 address");
    json!(format!("{network}.0"))
}

fn milliseconds(seconds: &Value) -> Value {
    seconds
        .as_f64()
        .map_or(Value::Null, |seconds| json!((seconds * 1000.0).round() as i64))
}

fn as_logged(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.to_string()),
        other => other.clone(),
    }
}

/// Rows by the values of a column, as an object.
fn classes(bench: &Bench, column: &str) -> Value {
    let query = format!("SELECT CAST({column} AS VARCHAR) AS class, count(*) AS n FROM silver.cdn_requests GROUP BY 1");
    let rows = bench.sql(&query).into_iter();
    let classes: Map<String, Value> = rows
        .map(|row| (row["class"].as_str().unwrap_or("null").to_string(), row["n"].clone()))
        .collect();
    Value::Object(classes)
}
