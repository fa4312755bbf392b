//! Files as a source: packed and plain, in folders, growing, rotated, left unfinished.
//!
//! `playhead ingest` reads what lies there once; `playhead run` follows it. Either way every record
//! is stored once, and what somebody is still writing is left alone.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::support::Bench;

/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;

/// One heartbeat of the reference player. Each number is another record.
fn event(number: i64) -> String {
    json!({
        "MetricType": "STREAM", "at": number * 5, "avg_bitrate": "3000000", "user_id": "viewer", "video_id": "film",
        "playlist_type": "VOD", "app_name": "Example Web", "device_type": "desktop", "TimeStamp": START_MS + number * 5_000,
    })
    .to_string()
}

/// Lines of these records, each with its line end.
fn lines(numbers: std::ops::Range<i64>) -> String {
    numbers.map(|number| event(number) + "\n").collect()
}

/// One request in the 12-key JSON form.
fn request(number: i64) -> String {
    json!({
        "logdate": "2026-01-01", "logtime": format!("00:00:{number:02}"), "location": "FRA56-P4", "browserfamily": "Chrome",
        "osfamily": "Linux", "isbot": "False", "resulttype": "Hit", "requestid": format!("request-{number}"),
        "cdn_source": "cloudfront", "bytes": "1000", "requestip": "198.51.100.7", "uri": "/hls/film/720p_00001.ts",
    })
    .to_string()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).expect("memory takes bytes");
    encoder.finish().expect("memory takes bytes")
}

fn zstd(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).expect("memory takes bytes")
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(path).expect("the file can be opened");
    file.write_all(text.as_bytes()).expect("the file can be written");
}

fn stored(bench: &Bench) -> i64 {
    bench.int("SELECT count(*) FROM bronze.player_events")
}

/// Stored and rejected while a daemon may not have made the tables yet.
fn stored_so_far(bench: &Bench) -> Option<i64> {
    let output = bench.run(&["sql", "--json", "SELECT count(*) AS stored FROM bronze.player_events"]);
    let rows: Value = serde_json::from_slice(&output.stdout).ok()?;
    rows[0]["stored"].as_i64()
}

#[track_caller]
fn check_counts(summary: &Value, received: u64, stored: u64, duplicates: u64, rejected: u64) {
    let counts = json!({"received": received, "stored": stored, "duplicates": duplicates, "rejected": rejected});
    for name in ["received", "stored", "duplicates", "rejected"] {
        assert_eq!(summary[name], counts[name], "{name} of {summary}");
    }
}

// ---- read once ----

#[test]
fn packed_files_are_told_by_their_first_bytes_and_not_by_their_names() {
    let bench = Bench::new();
    let two_members = [gzip(&lines(0..3)), gzip(&lines(3..6))].concat();
    bench.write("in/two_members.gz", two_members);
    bench.write("in/gzip_inside.zst", gzip(&lines(6..9)));
    bench.write("in/zstd_inside.json", zstd(&lines(9..12)));
    bench.write("in/two_frames.zst", [zstd(&lines(12..14)), zstd(&lines(14..16))].concat());
    bench.write("in/plain_inside.gz", lines(16..20));
    let summary = bench.ingest(&[&bench.path("in")]);
    check_counts(&summary, 20, 20, 0, 0);
    assert_eq!(summary["files"], 5);
    assert_eq!(bench.int("SELECT count(DISTINCT event_id) FROM silver.player_events"), 20);
}

#[test]
fn a_folder_is_walked_to_its_leaves_and_unfinished_files_are_left_alone() {
    let bench = Bench::new();
    bench.write("in/a.ndjson", lines(0..1));
    bench.write("in/one/two/three/b.ndjson", lines(1..2));
    for (index, name) in [
        "in/.hidden.ndjson",
        "in/c.ndjson.tmp",
        "in/.git/d.ndjson",
        "in/one/e.part",
        "in/_f.ndjson",
    ]
    .into_iter()
    .enumerate()
    {
        let number = 100 + i64::try_from(index).expect("few names");
        bench.write(name, lines(number..number + 1));
    }
    let summary = bench.ingest(&[&bench.path("in")]);
    check_counts(&summary, 2, 2, 0, 0);
    assert_eq!(summary["files"], 2);
}

#[test]
fn blank_lines_carriage_returns_and_empty_files_are_no_records() {
    let bench = Bench::new();
    bench.write("in/empty.ndjson", "");
    bench.write("in/blank.ndjson", "\n\n\r\n   \n");
    bench.write("in/windows.ndjson", format!("\r\n{}\r\n\r\n{}\r\n", event(0), event(1)));
    let summary = bench.ingest(&[&bench.path("in")]);
    check_counts(&summary, 2, 2, 0, 0);
    let payloads = bench.sql("SELECT payload FROM bronze.player_events ORDER BY event_ts");
    let texts: Vec<&str> = payloads.iter().filter_map(|row| row["payload"].as_str()).collect();
    assert!(
        texts.iter().all(|text| text.ends_with('}')),
        "the line end is no part of the record: {texts:?}"
    );
}

#[test]
fn a_last_line_without_its_end_counts_if_it_is_whole_and_waits_if_it_is_not() {
    let bench = Bench::new();
    let whole = bench.write("whole.ndjson", format!("{}{}", lines(0..2), event(2)));
    check_counts(&bench.ingest(&[&whole]), 3, 3, 0, 0);

    let text = lines(10..13);
    let (written, rest) = text.split_at(text.len() - 40);
    let torn = bench.write("torn.ndjson", written);
    check_counts(&bench.ingest(&[&torn]), 2, 2, 0, 0);
    append(&torn, rest);
    check_counts(&bench.ingest(&[&torn]), 1, 1, 0, 0);
    assert_eq!(stored(&bench), 6);
}

#[test]
fn what_was_read_is_not_read_again() {
    let bench = Bench::new();
    let plain = bench.write("in/player.ndjson", lines(0..10));
    bench.write("in/packed.gz", gzip(&lines(20..25)));
    check_counts(&bench.ingest(&[&bench.path("in")]), 15, 15, 0, 0);
    append(&plain, &lines(10..14));
    check_counts(&bench.ingest(&[&bench.path("in")]), 4, 4, 0, 0);
    check_counts(&bench.ingest(&[&bench.path("in")]), 0, 0, 0, 0);

    // Told twice by another file, each is received again and stored no more.
    bench.write("in/copy.ndjson", lines(8..16));
    check_counts(&bench.ingest(&[&bench.path("in")]), 8, 2, 6, 0);
    assert_eq!(stored(&bench), 21);
}

#[test]
fn logs_that_open_with_the_same_header_are_told_by_their_first_record() {
    let bench = Bench::new();
    let log = |requests: std::ops::Range<i64>| {
        let head = "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-uri-stem sc-status x-edge-request-id\n";
        let line = |number: i64| format!("2026-01-01\t00:00:{number:02}\tFRA56-P4\t1000\t198.51.100.7\t/film.ts\t200\trequest-{number}\n");
        head.to_string() + &requests.map(line).collect::<String>()
    };
    let path = bench.write("cdn.log", log(0..3));
    check_counts(&bench.ingest(&[&path]), 3, 3, 0, 0);
    // The next log under the same name is longer: read on from the old place, it would lose its first three.
    bench.write("cdn.log", log(10..20));
    check_counts(&bench.ingest(&[&path]), 10, 10, 0, 0);
    append(&path, &log(20..22)["#Version: 1.0\n".len()..]);
    check_counts(&bench.ingest(&[&path]), 2, 2, 0, 0);
}

#[test]
fn a_damaged_file_is_named_and_does_not_stop_the_others() {
    let bench = Bench::new();
    let mut damaged = gzip(&lines(0..500));
    damaged.truncate(damaged.len() / 2);
    bench.write("in/damaged.gz", damaged);
    bench.write("in/sound.ndjson", lines(1_000..1_010));
    let mut command = bench.command(&["ingest", "--json"]);
    let output = command.arg(bench.path("in")).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
    let unreadable = summary["unreadable"].to_string();
    assert!(unreadable.contains("damaged.gz"), "{unreadable}");
    assert_eq!(
        bench.int("SELECT count(*) FROM bronze.player_events WHERE source_partition LIKE '%sound%'"),
        10
    );
}

#[test]
fn a_path_that_does_not_exist_is_refused_before_anything_is_read() {
    let bench = Bench::new();
    let there = bench.write("there.ndjson", lines(0..2));
    let mut command = bench.command(&["ingest"]);
    let output = command
        .arg(&there)
        .arg(bench.path("not_there.ndjson"))
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(64));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("not_there.ndjson"), "{complaint}");
    check_counts(&bench.ingest(&[&there]), 2, 2, 0, 0);
}

#[test]
fn a_format_on_the_command_line_decides_what_the_first_lines_do_not() {
    // Past a hundred foreign lines nobody looks for the format any more.
    let foreign = "=== rotated ===\n".repeat(150);
    let text = format!("{foreign}{}\n{}\n", request(1), request(2));
    let (looked, told) = (Bench::new(), Bench::new());
    let file = looked.write("requests.log", &text);
    check_counts(&looked.ingest(&[&file]), 152, 0, 0, 152);
    let reasons = looked.sql("SELECT DISTINCT reason FROM silver.rejects");
    assert_eq!(reasons, [json!({"reason": "unknown_format"})]);

    let file = told.write("requests.log", &text);
    check_counts(&told.ingest(&[&file, Path::new("--format"), Path::new("cdn_json")]), 152, 2, 0, 150);
    assert_eq!(told.int("SELECT count(*) FROM silver.cdn_requests"), 2);
}

// ---- followed ----

fn follow(path: &Path) -> String {
    format!(
        "sources: [{{path: {}}}]\ningest: {{poll_every: 20ms, commit_every: 100ms}}\n",
        path.display()
    )
}

#[test]
fn half_a_line_waits_for_its_rest() {
    let bench = Bench::new();
    let folder = bench.path("in");
    let text = lines(0..2);
    let (written, rest) = text.split_at(text.len() - 30);
    let growing = bench.write("in/growing.ndjson", written);
    let mut daemon = Daemon::start(&bench, &follow(&folder));
    daemon.wait_until("the whole line is stored", || stored_so_far(&bench) == Some(1));
    // A file that came later was read: the folder was looked at again, and the half line with it.
    bench.write("in/later.ndjson", lines(100..101));
    daemon.wait_until("a new file is stored", || stored_so_far(&bench) == Some(2));
    assert_eq!(bench.int("SELECT count(*) FROM silver.rejects"), 0);
    append(&growing, rest);
    daemon.wait_until("the rest is stored", || stored_so_far(&bench) == Some(3));
    append(&growing, &lines(2..5));
    daemon.wait_until("what grew on is stored", || stored_so_far(&bench) == Some(6));
    assert!(daemon.stop().success());
    assert_eq!(bench.int("SELECT count(DISTINCT event_id) FROM bronze.player_events"), 6);
    assert_eq!(bench.int("SELECT count(*) FROM silver.rejects"), 0);
}

#[test]
fn a_first_record_longer_than_what_is_looked_at_is_read() {
    let bench = Bench::new();
    let long = format!("{{\"message\":\"{}\",{}", "x".repeat(100_000), &event(0)[1..]);
    bench.write("in/long.ndjson", format!("{long}\n{}", lines(1..3)));
    let mut daemon = Daemon::start(&bench, &follow(&bench.path("in")));
    daemon.wait_until("all records are stored", || stored_so_far(&bench) == Some(3));
    assert!(daemon.stop().success());
}

#[test]
fn files_that_appear_are_found_once_they_have_their_name() {
    let bench = Bench::new();
    let folder = bench.path("in");
    // The folder itself may come later too.
    let mut daemon = Daemon::start(&bench, &follow(&folder));
    daemon.wait_until("the daemon runs", || {
        bench.path("run.log").metadata().is_ok_and(|log| log.len() > 0)
    });
    bench.write("in/deep/er/first.ndjson", lines(0..2));
    daemon.wait_until("a file in a new folder is stored", || stored_so_far(&bench) == Some(2));
    let unfinished = bench.write("in/second.ndjson.tmp", lines(10..13));
    bench.write("in/third.gz", gzip(&lines(20..24)));
    daemon.wait_until("a packed file is stored", || stored_so_far(&bench) == Some(6));
    std::fs::rename(&unfinished, folder.join("second.ndjson")).expect("a file can be renamed");
    daemon.wait_until("the renamed file is stored", || stored_so_far(&bench) == Some(9));
    assert!(daemon.stop().success());
}

#[test]
fn a_rotated_file_goes_on_under_the_old_name() {
    let bench = Bench::new();
    let folder = bench.path("in");
    let log = bench.write("in/player.log", lines(0..10));
    let mut daemon = Daemon::start(&bench, &follow(&folder));
    daemon.wait_until("the first file is stored", || stored_so_far(&bench) == Some(10));
    // A shorter one under the old name.
    std::fs::rename(&log, folder.join("player.log.1")).expect("a file can be renamed");
    bench.write("in/player.log", lines(10..14));
    daemon.wait_until("the new, shorter file is stored", || stored_so_far(&bench) == Some(14));
    // A longer one, which could be taken for the old one grown.
    std::fs::rename(&log, folder.join("player.log.2")).expect("a file can be renamed");
    bench.write("in/player.log", lines(14..34));
    daemon.wait_until("the new, longer file is stored", || stored_so_far(&bench) == Some(34));
    assert!(daemon.stop().success());
    assert_eq!(bench.int("SELECT count(*) FROM silver.rejects"), 0);
}

#[test]
fn a_stopped_daemon_goes_on_where_it_was() {
    let bench = Bench::new();
    let folder = bench.path("in");
    let file = bench.write("in/player.ndjson", lines(0..10));
    let mut daemon = Daemon::start(&bench, &follow(&folder));
    daemon.wait_until("the file is stored", || stored_so_far(&bench) == Some(10));
    let status = daemon.stop();
    assert_eq!(status.code(), Some(0), "a stop that was asked for is no failure");

    append(&file, &lines(10..17));
    let mut daemon = Daemon::start(&bench, &follow(&folder));
    daemon.wait_until("what came meanwhile is stored", || stored_so_far(&bench) == Some(17));
    let log = bench.path("run.log");
    assert!(daemon.stop().success());
    // Nothing was received twice: the daemon's own account at its end.
    let log = std::fs::read_to_string(log).expect("the log can be read");
    let account = log
        .lines()
        .rfind(|line| line.contains("stopped in order"))
        .expect("a daemon says that it stopped");
    assert!(account.contains("received=17 stored=17 duplicates=0 rejected=0"), "{account}");
}

#[test]
fn the_lake_is_read_by_others_and_written_by_one() {
    let bench = Bench::new();
    let file = bench.write("in/player.ndjson", lines(0..3));
    let mut daemon = Daemon::start(&bench, &follow(&bench.path("in")));
    // `stored_so_far` is another process: it reads while the daemon holds the lake.
    daemon.wait_until("the file is stored", || stored_so_far(&bench) == Some(3));
    let mut command = bench.command(&["ingest"]);
    let output = command.arg(&file).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("in use by another playhead process (pid "), "{complaint}");
    assert!(daemon.stop().success());
    check_counts(&bench.ingest(&[&file]), 0, 0, 0, 0);
}

#[test]
fn a_format_in_the_settings_decides_for_its_source() {
    let bench = Bench::new();
    let foreign = "=== rotated ===\n".repeat(150);
    bench.write("players/a.log", format!("{foreign}{}", lines(0..3)));
    bench.write("requests/a.log", format!("{foreign}{}\n", request(1)));
    let settings = format!(
        "sources:\n  - {{path: {}, format: reference}}\n  - {{path: {}, format: cdn_json}}\ningest: {{poll_every: 20ms, commit_every: 100ms}}\n",
        bench.path("players").display(),
        bench.path("requests").display()
    );
    let mut daemon = Daemon::start(&bench, &settings);
    daemon.wait_until("the player events are stored", || stored_so_far(&bench) == Some(3));
    daemon.wait_until("the request is stored", || {
        bench.int("SELECT count(*) FROM silver.cdn_requests") == 1
    });
    assert!(daemon.stop().success());
}
