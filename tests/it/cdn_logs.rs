//! Logs of CDNs through the front door: players' reports in them, layouts from the command line, and the
//! same log however it is delivered.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::support::{Bench, contents, simulate};

/// Every so manieth request was made in a stall.
const STARVED: usize = 7;
const SESSIONS: usize = 20;

/// A simulated CloudFront log whose requests carry CMCD of version 1 in their query, encoded as the logger
/// does. The header is its first two lines.
fn log_with_cmcd() -> (Vec<String>, Vec<String>) {
    let bench = Bench::new();
    let folder = simulate(&bench, &["--sessions", "60", "--seed", "4", "--minutes", "30"]);
    let text = std::fs::read_to_string(folder.join("cdn.tsv")).expect("the simulation wrote it");
    let (header, rows): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
    let names = header.iter().find_map(|line| line.strip_prefix("#Fields:")).expect("a field list");
    let query = names.split_whitespace().position(|name| name == "cs-uri-query").expect("a query");
    let with_cmcd = |(number, row): (usize, &&str)| {
        let mut cells: Vec<String> = row.split('\t').map(str::to_owned).collect();
        let starved = if number % STARVED == 0 { "bs%252C" } else { "" };
        let session = number % SESSIONS;
        cells[query] = format!(
            "t=1&CMCD={starved}bl%253D{}%252Csid%253D%2522s-{session}%2522",
            number * 100 % 30_000
        );
        cells.join("\t")
    };
    (
        header.into_iter().map(str::to_owned).collect(),
        rows.iter().enumerate().map(with_cmcd).collect(),
    )
}

fn write(bench: &Bench, name: &str, header: &[String], rows: &[String]) -> std::path::PathBuf {
    let lines: Vec<&str> = header.iter().chain(rows).map(String::as_str).collect();
    bench.write(name, lines.join("\n") + "\n")
}

#[test]
fn a_service_with_cdn_logs_alone_has_sessions_of_its_players_reports() {
    let (header, rows) = log_with_cmcd();
    let bench = Bench::new();
    let log = write(&bench, "cdn.tsv", &header, &rows);
    let counts = bench.ingest_with("cdn: {keep_query: [t]}\n", &[&log]);
    assert_eq!(
        (counts["received"].as_u64(), counts["stored"].as_u64()),
        (Some(rows.len() as u64), Some(rows.len() as u64)),
        "a report is no record of its own: {counts}"
    );
    let rows = rows.len() as i64;
    assert_eq!(
        bench.int("SELECT count(*) FROM silver.cdn_requests WHERE session_id LIKE 's-%'"),
        rows
    );
    assert_eq!(
        bench.int("SELECT count(*) FROM silver.cdn_requests WHERE uri_query = 't=1' AND cmcd_carrier = 'query' AND cmcd_decode_depth = 2"),
        rows
    );
    assert_eq!(
        bench.int("SELECT count(*) FROM silver.player_events WHERE source = 'cmcd1_log' AND basis = 'estimated'"),
        rows
    );
    let sessions = bench.int("SELECT count(DISTINCT session_key) FROM silver.playback_sessions");
    assert_eq!(sessions, SESSIONS as i64);
    let starved = bench.int("SELECT count(*) FROM silver.player_events WHERE stall_flag");
    assert_eq!(starved, (rows + STARVED as i64 - 1) / STARVED as i64);
}

/// Silver facts and all gold but the table that counts repetition.
fn facts(bench: &Bench) -> BTreeMap<String, Vec<String>> {
    let mut tables = contents(bench);
    tables.retain(|name, _| name.starts_with("gold.") || name.starts_with("silver.playback"));
    assert!(tables.len() > 5);
    tables
}

#[test]
fn the_same_log_twice_in_halves_and_in_any_order_gives_the_same_gold() {
    let (header, mut rows) = log_with_cmcd();
    let whole = Bench::new();
    whole.ingest(&[&write(&whole, "cdn.tsv", &header, &rows)]);
    let expected = facts(&whole);

    let parts = Bench::new();
    let half = rows.len() / 2;
    let last = write(&parts, "b.tsv", &header, &rows[half..]);
    parts.ingest(&[&last]);
    // A day late for a stream that is long past it: its windows are computed again.
    rows[..half].reverse();
    let first = write(&parts, "a.tsv", &header, &rows[..half]);
    parts.ingest(&[&first]);
    rows.reverse();
    let again = write(&parts, "again.tsv", &header, &rows);
    let counts = parts.ingest(&[&again]);
    assert_eq!(counts["duplicates"].as_u64(), Some(rows.len() as u64), "{counts}");
    let found = facts(&parts);
    for (table, expected) in &expected {
        assert_eq!(&found[table], expected, "{table}");
    }
}

fn ingest_with_fields(bench: &Bench, file: &Path, format: &str, fields: &str) -> serde_json::Value {
    let path = file.to_str().expect("a test's path is text");
    let output = bench.run(&["ingest", path, "--format", format, "--fields", fields, "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the summary is JSON")
}

#[test]
fn records_that_do_not_name_their_fields_are_read_by_the_layout_that_is_given() {
    let bench = Bench::new();
    let real_time = bench.write(
        "real-time.log",
        "1588752000.541\t192.0.2.7\t0.021\t206\t1370422\tGET\tLHR50-C1\tHit\tid1\t/vod/film/1.m4s?CMCD=bl%3D0%2Cbs%2Csid%3D%22s%22\n",
    );
    let list = "timestamp c-ip time-to-first-byte sc-status sc-bytes cs-method x-edge-location x-edge-result-type x-edge-request-id cs-uri-stem @sample=10%";
    let counts = ingest_with_fields(&bench, &real_time, "cloudfront_realtime", list);
    assert_eq!(counts["stored"], json!(1), "{counts}");
    let own = bench.write(
        "own.ndjson",
        "{\"ts\":1588752000541,\"code\":503,\"req\":{\"path\":\"/a/b.m3u8\"}}\n",
    );
    let counts = ingest_with_fields(
        &bench,
        &own,
        "generic_json",
        "cdn_name=own time=ts:epoch_ms status=code uri_stem=req.path",
    );
    assert_eq!(counts["stored"], json!(1), "{counts}");
    let rows = bench.sql(
        "SELECT cdn, status, pop_city, object_class, sample_weight_milli, session_id, client_prefix FROM silver.cdn_requests ORDER BY status",
    );
    assert_eq!(
        rows,
        [
            json!({"cdn": "cloudfront", "status": 206, "pop_city": "London", "object_class": "segment", "sample_weight_milli": 10_000, "session_id": "s", "client_prefix": "192.0.2.0"}),
            json!({"cdn": "own", "status": 503, "pop_city": null, "object_class": "manifest", "sample_weight_milli": 1_000, "session_id": null, "client_prefix": null}),
        ]
    );
}

#[test]
fn a_layout_that_cannot_be_used_is_refused_before_anything_is_read() {
    let bench = Bench::new();
    let file = bench.write("x.log", "{}\n");
    let path = file.to_str().expect("a test's path is text");
    let check = |arguments: &[&str], expected: &str| {
        let output = bench.run(&[&["ingest", path], arguments].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(expected), "{arguments:?}: {told}");
    };
    check(&["--format", "cloudfront_realtime"], "do not name their fields");
    check(&["--format", "akamai_ds2", "--fields", "time=x"], "name their fields themselves");
    check(&["--format", "generic_json", "--fields", "time=x nonsense=y"], "sources[0].fields");
}
