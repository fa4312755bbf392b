//! The public samples of CloudFront's logs against their expected rows.
//!
//! The fixtures stand outside the repository; without them the test says that it was skipped.

use std::path::PathBuf;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value, json};

use super::standard::{Layout, decode, field_list};
use crate::event::CdnRequest;
use crate::event::decode::DecodeContext;

const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_700_000_000_000 };

// The fixtures stand outside the repository, and no settings file is read in a unit test.
#[allow(clippy::disallowed_methods)]
fn fixtures() -> PathBuf {
    match std::env::var_os("PLAYHEAD_FIXTURES") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")),
    }
}

/// Milliseconds as the seconds that the log had.
fn seconds(length_ms: Option<i64>) -> Value {
    length_ms.map_or(Value::Null, |length_ms| json!(length_ms as f64 / 1000.0))
}

/// What was decoded under the log's own name for it; `None` for a name that only `ext` knows.
fn by_column(request: &CdnRequest, name: &str) -> Option<Value> {
    let is_real_time = request.fields.as_ref().unwrap().contains("cs-host");
    let (host, host_header) = (json!(request.host), json!(request.host_header));
    let moment = DateTime::from_timestamp_millis(request.event_ts_ms).unwrap();
    Some(match name {
        "date" => json!(moment.format("%Y-%m-%d").to_string()),
        "time" => json!(moment.format("%H:%M:%S").to_string()),
        "timestamp" => json!(moment.format("%s%.3f").to_string()),
        "_ts" if is_real_time => json!(moment.to_rfc3339_opts(SecondsFormat::Millis, true)),
        "_ts" => json!(moment.to_rfc3339_opts(SecondsFormat::Secs, true)),
        "_columns" => json!(request.payload.split('\t').count()),
        "x-edge-location" => json!(request.edge_location),
        "sc-bytes" => json!(request.sc_bytes),
        "cs-bytes" => json!(request.cs_bytes),
        "c-ip" => json!(request.client_address),
        "cs-method" => json!(request.method),
        "cs(Host)" => host,
        "cs-host" => host_header,
        "x-host-header" if is_real_time => host,
        "x-host-header" => host_header,
        "cs-uri-stem" => json!(request.uri_stem),
        "cs-uri-query" => json!(request.uri_query),
        "sc-status" => json!(request.status),
        "cs(Referer)" | "cs-referer" => json!(request.referer),
        "cs(User-Agent)" | "cs-user-agent" => json!(request.user_agent),
        "cs(Cookie)" | "cs-cookie" => json!(request.cookie),
        "x-edge-result-type" => json!(request.result_type),
        "x-edge-response-result-type" => json!(request.response_result_type),
        "x-edge-detailed-result-type" => json!(request.detailed_result_type),
        "x-edge-request-id" => json!(request.request_id),
        "cs-protocol" => json!(request.protocol),
        "cs-protocol-version" => json!(request.protocol_version),
        "time-taken" => seconds(request.time_taken_ms),
        "time-to-first-byte" => seconds(request.ttfb_ms),
        "x-forwarded-for" if request.forwarded_for.is_empty() => Value::Null,
        "x-forwarded-for" => json!(request.forwarded_for),
        "ssl-protocol" => json!(request.ssl_protocol),
        "ssl-cipher" => json!(request.ssl_cipher),
        "fle-status" => json!(request.fle_status),
        "fle-encrypted-fields" => json!(request.fle_encrypted_fields),
        "c-port" => json!(request.client_port),
        "sc-content-type" => json!(request.content_type),
        "sc-content-len" => json!(request.content_length),
        "sc-range-start" => json!(request.range_start),
        "sc-range-end" => json!(request.range_end),
        "c-country" => json!(request.network.country),
        // Kept in the payload alone: it holds cookies, referrers and addresses.
        "cs-headers" => json!(cell_of_payload(request, name)),
        _ => return None,
    })
}

/// What the log had in a column.
fn cell_of_payload<'a>(request: &'a CdnRequest, name: &str) -> Option<&'a str> {
    let place = request.fields.as_ref()?.split(' ').position(|field| field == name)?;
    request.payload.split('\t').nth(place)
}

/// The request as a row of `expected.json`, whose names it takes from the expected row.
fn normalised(request: &CdnRequest, expected: &Map<String, Value>) -> Map<String, Value> {
    let mut row = Map::new();
    for (name, wanted) in expected {
        let value = by_column(request, name).unwrap_or_else(|| {
            let stored = request.ext.iter().find(|(key, _)| key == name);
            match stored {
                Some((_, text)) if wanted.is_number() => json!(text.parse::<i64>().unwrap()),
                Some((_, text)) => json!(text),
                None => Value::Null,
            }
        });
        row.insert(name.clone(), value);
    }
    row
}

#[test]
fn the_public_samples_come_out_as_expected() {
    let folder = fixtures().join("cloudfront-logs");
    let Ok(expected) = std::fs::read_to_string(folder.join("expected.json")) else {
        println!("skipped: no {}; set PLAYHEAD_FIXTURES", folder.display());
        return;
    };
    let expected: Map<String, Value> = serde_json::from_str(&expected).unwrap();
    assert_eq!(expected.len(), 4);
    for (file, expected) in &expected {
        let log = std::fs::read_to_string(folder.join(file)).unwrap();
        check_sample(file, &log, expected);
    }
}

fn check_sample(file: &str, log: &str, expected: &Value) {
    let mut bound = None;
    let mut requests = Vec::new();
    for line in log.lines() {
        if let Some(list) = field_list(line) {
            bound = Layout::new(list).unwrap();
        } else if !line.starts_with('#') {
            requests.push(*decode(line, bound.as_ref(), &CONTEXT).unwrap());
        }
    }
    let columns = bound.unwrap().fields().split(' ').count();
    assert_eq!(json!(columns), expected["columns_in_header"], "{file}");
    assert_eq!(json!(requests.len()), expected["data_rows"], "{file}");
    let sc_bytes: i64 = requests.iter().filter_map(|request| request.sc_bytes).sum();
    assert_eq!(json!(sc_bytes), expected["sum_sc_bytes"], "{file}");
    let time_taken_ms: i64 = requests.iter().filter_map(|request| request.time_taken_ms).sum();
    assert_eq!(seconds(Some(time_taken_ms)), expected["sum_time_taken"], "{file}");

    let rows = expected["rows"].as_array().unwrap();
    assert_eq!(requests.len(), rows.len(), "{file}");
    for (request, row) in requests.iter().zip(rows) {
        let row = row.as_object().unwrap();
        assert_eq!(&normalised(request, row), row, "{file}");
        assert!(request.dq_flags.is_empty(), "{file}");
        let extra = request.ext.iter().find(|(key, _)| !row.contains_key(key));
        assert_eq!(extra, None, "{file}");
    }
}
