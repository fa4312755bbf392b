//! Logs whose header stands once, at their top or where it changes: read on from the middle, with the columns
//! that hold there.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

use crate::daemon::Daemon;
use crate::support::Bench;

/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;
/// Rows of each log that a process is killed over, and of a batch: both logs are open for forty batches.
const MANY: i64 = 4_000;
const BATCH: i64 = 200;

const CSV_HEADER: &str = "id,code,ts,bytes\n";
const W3C_HEADER: &str = "#Version: 1.0\n#Fields: date time sc-bytes sc-status x-edge-request-id\n";
/// As many columns in another order: what is read by the wrong list is not refused.
const OTHER_W3C_HEADER: &str = "#Fields: date time sc-status sc-bytes x-edge-request-id\n";

/// Every row has status 206 and its own number of bytes.
fn csv(numbers: Range<i64>) -> String {
    let mut text = String::new();
    for number in numbers {
        writeln!(text, "csv-{number},206,{},{}", START_MS + number * 1_000, 1_000 + number).expect("memory takes text");
    }
    text
}

fn w3c(numbers: Range<i64>, status_first: bool) -> String {
    let mut text = String::new();
    for number in numbers {
        let (minute, second) = (number / 60 % 60, number % 60);
        let bytes = 1_000 + number;
        let cells = match status_first {
            true => format!("206\t{bytes}"),
            false => format!("{bytes}\t206"),
        };
        writeln!(text, "2026-01-01\t00:{minute:02}:{second:02}\t{cells}\tw3c-{number}").expect("memory takes text");
    }
    text
}

fn settings(bench: &Bench) -> String {
    format!(
        "sources:\n\
         - {{name: csv, path: {csv}, format: generic_csv, fields: [layout=csv, columns=header, request_id=id, status=code, 'time=ts:epoch_ms', sc_bytes=bytes]}}\n\
         - {{name: w3c, path: {w3c}, format: cloudfront_v1}}\n\
         ingest: {{poll_every: 20ms, commit_every: 100ms, batch_records: {BATCH}}}\n",
        csv = bench.path("csv").display(),
        w3c = bench.path("w3c").display(),
    )
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(path).expect("the file can be opened");
    file.write_all(text.as_bytes()).expect("the file can be written");
}

/// Rows that were read as they were meant, once the tables are there.
fn sound(bench: &Bench) -> Option<i64> {
    const QUERY: &str = "SELECT count(*) AS sound FROM silver.cdn_requests \
        WHERE status = 206 AND sc_bytes = 1000 + CAST(split_part(request_id, '-', 2) AS BIGINT)";
    let output = bench.run(&["sql", "--json", QUERY]);
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    rows[0]["sound"].as_i64()
}

#[track_caller]
fn assert_all_sound(bench: &Bench, rows: i64) {
    assert_eq!(sound(bench), Some(rows));
    assert_eq!(bench.int("SELECT count(*) FROM silver.cdn_requests"), rows);
    assert_eq!(
        bench.int("SELECT count(DISTINCT request_id) FROM bronze.cdn_logs JOIN silver.cdn_requests USING (event_id)"),
        rows
    );
    assert_eq!(bench.int("SELECT count(*) FROM silver.rejects"), 0);
}

#[test]
fn logs_that_grow_keep_their_columns_beyond_a_stop_and_a_kill() {
    let bench = Bench::new();
    let csv_log = bench.write("csv/a.csv", format!("{CSV_HEADER}{}", csv(0..3)));
    let w3c_log = bench.write("w3c/a.log", format!("{W3C_HEADER}{}", w3c(0..3, false)));
    let settings = settings(&bench);
    let mut daemon = Daemon::start(&bench, &settings);
    daemon.wait_until("both logs are stored", || sound(&bench) == Some(6));
    append(&csv_log, &csv(3..5));
    append(&w3c_log, &format!("{OTHER_W3C_HEADER}{}", w3c(3..5, true)));
    daemon.wait_until("what grew is stored", || sound(&bench) == Some(10));
    append(&csv_log, &csv(5..7));
    append(&w3c_log, &w3c(5..7, true));
    daemon.wait_until("what grew on is stored", || sound(&bench) == Some(14));
    daemon.kill();

    append(&csv_log, &csv(7..9));
    append(&w3c_log, &w3c(7..9, true));
    let mut daemon = Daemon::start(&bench, &settings);
    daemon.wait_until("what came meanwhile is stored", || sound(&bench) == Some(18));
    assert!(daemon.stop().success());
    assert_all_sound(&bench, 18);
}

#[test]
fn a_rotated_csv_is_told_from_the_old_one_by_its_records() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("w3c")).expect("a folder can be made");
    let log = bench.write("csv/a.csv", format!("{CSV_HEADER}{}", csv(0..3)));
    let mut daemon = Daemon::start(&bench, &settings(&bench));
    daemon.wait_until("the first log is stored", || sound(&bench) == Some(3));
    std::fs::rename(&log, bench.path("csv/a.csv.1")).expect("a file can be renamed");
    bench.write("csv/a.csv", CSV_HEADER);
    append(&log, &csv(3..20));
    daemon.wait_until("the new log is stored", || sound(&bench) == Some(20));
    assert!(daemon.stop().success());
    assert_all_sound(&bench, 20);
}

#[test]
fn a_daemon_that_was_killed_in_the_middle_of_long_logs_goes_on_with_their_columns() {
    let bench = Bench::new();
    bench.write("csv/a.csv", format!("{CSV_HEADER}{}", csv(0..MANY)));
    let (first, second) = (w3c(0..MANY / 4, false), w3c(MANY / 4..MANY, true));
    bench.write("w3c/a.log", format!("{W3C_HEADER}{first}{OTHER_W3C_HEADER}{second}"));
    let settings = settings(&bench);
    let mut daemon = Daemon::start(&bench, &settings);
    // Past the place where the list of columns changes, and before the end.
    daemon.wait_until("half of the rows are stored", || commits(&bench) > MANY / BATCH);
    daemon.kill();
    let stored = sound(&bench).expect("there are commits");
    assert!(MANY / 2 < stored && stored < 2 * MANY, "{stored} rows before the kill");

    let mut daemon = Daemon::start(&bench, &settings);
    daemon.wait_until("all is stored", || sound(&bench) == Some(2 * MANY));
    assert!(daemon.stop().success());
    assert_all_sound(&bench, 2 * MANY);
}

fn commits(bench: &Bench) -> i64 {
    let log = std::fs::read_dir(bench.lake().join("silver/cdn_requests/_delta_log"));
    log.map_or(0, |files| files.count() as i64)
}
