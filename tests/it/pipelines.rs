//! Pipelines: a SQL file in a folder is a gold table, whatever the order in which its rows came.
//!
//! The folder holds the shipped files and one of this test with windows of five minutes.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::support::{Bench, simulate};

/// The pipeline that a person adds. It stands in `starts_5m.sql`.
const STARTS_5M: &str = "\
-- How many sessions began, on what.
-- Columns:
--   attempts: attempts to play (count)
SELECT window.start AS window_start, window.end AS window_end, device_type, attempts
FROM (
  SELECT tumble(interval '5 minutes') AS window, device_type, sum(attempts) AS attempts
  FROM silver.playback_sessions
  GROUP BY window, device_type
) AS starts
";

/// A pipeline whose join holds 256 KiB an event.
const HEAVY_1M: &str = "\
-- What a join holds.
-- Runs on: here only, because it joins rows that no window has closed
-- Rolls up: 5 minutes
-- Columns:
--   held_bytes: of both sides (bytes)
SELECT window.start AS window_start, window.end AS window_end, held_bytes
FROM (
  SELECT tumble(interval '1 minute') AS window, sum(length(one.pad) + length(other.pad)) AS held_bytes
  FROM (SELECT event_id, repeat(event_id, 4096) AS pad FROM silver.player_events) AS one
  JOIN (SELECT event_id, repeat(event_id, 4096) AS pad FROM silver.player_events) AS other ON one.event_id = other.event_id
  GROUP BY window
) AS minutes
";
const HELD_BYTES: i64 = 2 * 32 * 4096;

/// What `starts_5m` must hold, asked of silver without any window.
const STARTS_5M_FROM_SILVER: &str = "\
SELECT date_bin(interval '5 minutes', started_at) AS window_start, device_type, sum(attempts) AS attempts \
FROM silver.playback_sessions GROUP BY 1, 2 ORDER BY 1, 2";

/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;

/// A lake and a pipelines folder that the settings name.
struct Rolled {
    bench: Bench,
    settings: PathBuf,
}

impl Rolled {
    fn new() -> Rolled {
        let bench = Bench::new();
        for path in shipped_files() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            bench.write(
                &format!("gold/{name}"),
                std::fs::read(&path).expect("a shipped pipeline can be read"),
            );
        }
        let settings = bench.write(
            "playhead.yaml",
            format!("pipelines: {{folder: {}}}\n", bench.path("gold").display()),
        );
        Rolled { bench, settings }
    }

    fn with_starts_5m() -> Rolled {
        let rolled = Rolled::new();
        rolled.add("starts_5m.sql", STARTS_5M);
        rolled
    }

    fn add(&self, name: &str, text: &str) {
        self.bench.write(&format!("gold/{name}"), text);
    }

    fn run(&self, arguments: &[&str], paths: &[&Path]) -> Output {
        let mut command = self.bench.command(arguments);
        command
            .arg("--settings")
            .arg(&self.settings)
            .args(paths)
            .output()
            .expect("the binary starts")
    }

    #[track_caller]
    fn ingest(&self, paths: &[&Path]) -> Value {
        let output = self.run(&["ingest", "--json"], paths);
        assert!(
            output.status.success(),
            "ingest failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("the summary is JSON")
    }

    #[track_caller]
    fn sql(&self, query: &str) -> Vec<Value> {
        let output = self.run(&["sql", "--json", query], &[]);
        assert!(output.status.success(), "{query}\n{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("the answer is a list of rows")
    }

    /// Rows of the gold tables, sorted, without the versions that they were computed from.
    fn gold(&self) -> Vec<(String, Vec<String>)> {
        let mut tables = Vec::new();
        for path in entries(&self.bench.path("gold")) {
            let table = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let mut rows = self.sql(&format!("SELECT * FROM gold.{table}"));
            rows.iter_mut().filter_map(Value::as_object_mut).for_each(|row| {
                row.remove("silver_versions");
            });
            let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
            rows.sort();
            tables.push((table, rows));
        }
        tables
    }
}

fn shipped_files() -> Vec<PathBuf> {
    let mut paths = entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines"));
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "sql"));
    assert!(!paths.is_empty(), "pipelines are shipped");
    paths
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Drops what says nothing of the numbers.
fn numbers(rows: Vec<Value>) -> Vec<Value> {
    let columns = ["window_start", "device_type", "attempts"];
    rows.iter()
        .map(|row| {
            columns
                .iter()
                .map(|name| (name.to_string(), row[*name].clone()))
                .collect::<serde_json::Map<_, _>>()
                .into()
        })
        .collect()
}

#[track_caller]
fn assert_same_gold(expected: &Rolled, found: &Rolled) {
    for ((table, expected), (_, found)) in expected.gold().iter().zip(&found.gold()) {
        // The simulated player measures neither latency nor buffer nor throughput.
        let may_be_empty = table.starts_with("latency_");
        assert!(
            may_be_empty || !expected.is_empty(),
            "{table} is empty; equal nothings prove nothing"
        );
        let missing: Vec<_> = expected.iter().filter(|row| !found.contains(row)).take(2).collect();
        let extra: Vec<_> = found.iter().filter(|row| !expected.contains(row)).take(2).collect();
        let sizes = (found.len(), expected.len());
        assert!(
            expected == found,
            "gold.{table}: {} rows, {} expected\nmissing: {missing:#?}\nextra: {extra:#?}",
            sizes.0,
            sizes.1
        );
    }
}

// ---- files ----

#[test]
fn a_new_file_is_a_table_with_all_history_at_the_next_start() {
    let rolled = Rolled::new();
    let input = simulate(&rolled.bench, &["--sessions", "120", "--seed", "3", "--minutes", "90"]);
    rolled.ingest(&[&input]);
    let output = rolled.run(&["sql", "--json", "SELECT * FROM gold.starts_5m"], &[]);
    assert!(!output.status.success(), "there is no such table yet");

    rolled.add("starts_5m.sql", STARTS_5M);
    let summary = rolled.ingest(&[&input]);
    assert_eq!(summary["stored"], 0, "nothing new came: {summary}");
    let rows = rolled.sql("SELECT * FROM gold.starts_5m ORDER BY window_start, device_type");
    assert!(rows.len() > 20, "{} rows", rows.len());
    assert!(rows.iter().all(|row| row["is_final"] == true));
    assert_eq!(numbers(rows), numbers(rolled.sql(STARTS_5M_FROM_SILVER)));
    let widths = rolled.sql("SELECT DISTINCT window_end - window_start = interval '5 minutes' AS whole FROM gold.starts_5m");
    assert_eq!(widths, [json!({"whole": true})]);
}

#[test]
fn an_edited_file_is_computed_again_over_all_history() {
    let rolled = Rolled::with_starts_5m();
    let input = simulate(&rolled.bench, &["--sessions", "120", "--seed", "3", "--minutes", "90"]);
    rolled.ingest(&[&input]);
    let before = rolled.sql("SELECT DISTINCT pipeline_hash FROM gold.starts_5m");
    assert_eq!(before.len(), 1);
    let others = rolled.sql("SELECT DISTINCT silver_versions FROM gold.audience_1m");

    let edited = STARTS_5M
        .replace("device_type, attempts\n", "device_type, attempts, plays\n")
        .replace(" AS attempts\n", " AS attempts, sum(plays) AS plays\n");
    rolled.add("starts_5m.sql", &edited);
    rolled.ingest(&[&input]);
    let after = rolled.sql("SELECT DISTINCT pipeline_hash FROM gold.starts_5m");
    assert_eq!(after.len(), 1, "every row is of the edited file: {after:?}");
    assert_ne!(before, after);
    let rows = rolled.sql("SELECT * FROM gold.starts_5m ORDER BY window_start, device_type");
    assert_eq!(numbers(rows), numbers(rolled.sql(STARTS_5M_FROM_SILVER)));
    let plays = rolled.sql("SELECT sum(plays) AS plays, count(*) = count(plays) AS everywhere FROM gold.starts_5m");
    let expected = rolled.sql("SELECT sum(plays) AS plays, true AS everywhere FROM silver.playback_sessions");
    assert_eq!(plays, expected);
    let others_after = rolled.sql("SELECT DISTINCT silver_versions FROM gold.audience_1m");
    assert_eq!(others, others_after, "a table whose file did not change is left as it is");
}

#[test]
fn a_wrong_file_is_refused_with_its_name_its_line_and_the_reason() {
    let line_of = |text: &str, words: &str| {
        text.lines()
            .position(|line| line.contains(words))
            .expect("the words are in the text")
            + 1
    };
    let edit = |old: &str, new: &str| {
        assert!(STARTS_5M.contains(old), "the pipeline has no `{old}`");
        STARTS_5M.replace(old, new)
    };
    let syntax = edit("FROM (\n", "FORM (\n");
    check_refused(&syntax, line_of(&syntax, "FORM"), "Expected");
    let column = edit("sum(attempts)", "sum(atempts)");
    check_refused(&column, line_of(&column, "atempts"), "No field named atempts");
    let table = edit("silver.playback_sessions", "silver.sesions");
    check_refused(&table, line_of(&table, "silver.sesions"), "no table `silver.sesions`");
    let gold = edit("silver.playback_sessions", "gold.playback_1m");
    check_refused(&gold, line_of(&gold, "gold.playback_1m"), "reads silver only");
    let ordered = format!("{STARTS_5M}ORDER BY window_start\n");
    check_refused(&ordered, line_of(&ordered, "ORDER BY"), "ORDER BY cannot stand in a pipeline");
    let two = format!("{STARTS_5M};\nSELECT 1\n");
    check_refused(&two, 0, "2 statements found");
    let startless = edit("window.start AS window_start, ", "");
    check_refused(&startless, 0, "no column `window_start`");
    let windowless =
        edit("tumble(interval '5 minutes') AS window, ", "").replace("window.start AS window_start, window.end AS window_end, ", "");
    let windowless = windowless.replace("GROUP BY window, ", "GROUP BY ");
    check_refused(&windowless, line_of(&windowless, "sum(attempts)"), "an aggregate without a window");
}

/// `line` is 0 where something is missing, which stands on no line.
#[track_caller]
fn check_refused(text: &str, line: usize, reason: &str) {
    let rolled = Rolled::new();
    rolled.add("starts_5m.sql", text);
    let output = rolled.run(&["check"], &[]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{complaint}");
    let place = if line == 0 {
        "/gold/starts_5m.sql: ".to_string()
    } else {
        format!("/gold/starts_5m.sql:{line}:")
    };
    assert!(complaint.contains(&place), "no `{place}` in: {complaint}");
    assert!(complaint.contains(reason), "no `{reason}` in: {complaint}");
    assert!(complaint.contains("1 to mend"), "only one thing is wrong: {complaint}");
}

// ---- windows ----

/// Minutes of attempts, six each minute; each plays for 20 s.
fn attempts(minutes: std::ops::Range<i64>) -> String {
    attempts_of(minutes, 6)
}

fn attempts_of(minutes: std::ops::Range<i64>, viewers: i64) -> String {
    let mut text = String::new();
    for minute in minutes {
        for viewer in 0..viewers {
            let start_ms = START_MS + minute * 60_000 + viewer * 30_000 / viewers;
            for (kind, after_ms) in [("PLAY", 0), ("FIRSTFRAME", 800), ("STREAM", 10_000), ("STOP", 20_000)] {
                let event = json!({
                    "MetricType": kind, "at": after_ms / 1_000, "user_id": format!("viewer-{minute}-{viewer}"), "video_id": "film",
                    "playlist_type": "VOD", "app_name": "Example Web", "device_type": "desktop", "time_millisecond": 800,
                    "TimeStamp": start_ms + after_ms,
                });
                text.push_str(&format!("{event}\n"));
            }
        }
    }
    text
}

#[test]
fn open_windows_are_answered_live_and_closed_ones_from_the_table() {
    let rolled = Rolled::with_starts_5m();
    let file = rolled.bench.write("in/player.ndjson", attempts(0..10));
    let settings = format!(
        "sources: [{{path: {}}}]\ningest: {{poll_every: 20ms, commit_every: 100ms}}\nwindows: {{lateness: 60s}}\npipelines: {{folder: {}}}\n",
        rolled.bench.path("in").display(),
        rolled.bench.path("gold").display()
    );
    let by_minute = "SELECT window_start, is_final, sum(attempts) AS attempts FROM gold.playback_1m GROUP BY 1, 2 ORDER BY 1";
    let mut daemon = Daemon::start(&rolled.bench, &settings);
    // The newest event is at 00:09:45; with a minute of lateness, windows up to 00:08 are closed.
    daemon.wait_until("windows are stored", || {
        let output = rolled.run(
            &[
                "sql",
                "--json",
                "SELECT count(*) AS n FROM gold.playback_1m WHERE is_final AND attempts > 0",
            ],
            &[],
        );
        serde_json::from_slice::<Value>(&output.stdout).is_ok_and(|rows| rows[0]["n"] == 8)
    });
    let minutes = rolled.sql(by_minute);
    let expected: Vec<Value> = (0..10)
        .map(|minute| json!({"window_start": format!("2026-01-01T00:0{minute}:00Z"), "is_final": minute < 8, "attempts": 6}))
        .collect();
    assert_eq!(minutes, expected);
    let wide = rolled.sql("SELECT window_start, is_final, attempts FROM gold.starts_5m ORDER BY 1");
    assert_eq!(
        wide,
        [
            json!({"window_start": "2026-01-01T00:00:00Z", "is_final": true, "attempts": 30}),
            json!({"window_start": "2026-01-01T00:05:00Z", "is_final": false, "attempts": 30}),
        ]
    );
    check_totals(&rolled);

    // More of the open minute, and later ones: what was open closes, nothing is counted twice.
    let mut more = std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .expect("the file can be opened");
    std::io::Write::write_all(&mut more, attempts(10..13).as_bytes()).expect("the file can be written");
    daemon.wait_until("the next windows are stored", || {
        rolled.sql("SELECT count(*) AS n FROM gold.playback_1m WHERE is_final AND attempts > 0")[0]["n"] == 11
    });
    let wide = rolled.sql("SELECT window_start, is_final, attempts FROM gold.starts_5m ORDER BY 1");
    assert_eq!(
        wide[1],
        json!({"window_start": "2026-01-01T00:05:00Z", "is_final": true, "attempts": 30})
    );
    assert_eq!(
        wide[2],
        json!({"window_start": "2026-01-01T00:10:00Z", "is_final": false, "attempts": 18})
    );
    check_totals(&rolled);
    assert!(daemon.stop().success());
    // Nobody holds the lake: the open windows are answered all the same.
    check_totals(&rolled);
}

/// Gold, stored and live together, says what silver says.
#[track_caller]
fn check_totals(rolled: &Rolled) {
    let gold = rolled.sql("SELECT sum(attempts) AS attempts, sum(plays) AS plays, sum(playing_ms) AS playing_ms FROM gold.playback_1m");
    let sessions = rolled.sql("SELECT sum(attempts) AS attempts, sum(plays) AS plays FROM silver.playback_sessions");
    let intervals = rolled.sql("SELECT sum(duration_ms) AS playing_ms FROM silver.playback_intervals WHERE state = 'playing'");
    assert_eq!(gold[0]["attempts"], sessions[0]["attempts"]);
    assert_eq!(gold[0]["plays"], sessions[0]["plays"]);
    assert_eq!(gold[0]["playing_ms"], intervals[0]["playing_ms"]);
    assert!(gold[0]["playing_ms"].as_i64() > Some(0), "{gold:?}");
}

#[test]
fn late_data_ends_in_the_gold_of_data_in_order() {
    let (ordered, late) = (Rolled::with_starts_5m(), Rolled::with_starts_5m());
    let input = simulate(
        &ordered.bench,
        &["--sessions", "150", "--seed", "5", "--minutes", "60", "--incident"],
    );
    let [player, cdn] = ["player.ndjson", "cdn.tsv"].map(|name| std::fs::read_to_string(input.join(name)).expect("it was simulated"));
    let (early_events, late_events) = halves(&player, 0);
    let (early_requests, late_requests) = halves(&cdn, 2);
    let parts = [
        ("early.ndjson", early_events),
        ("late.ndjson", late_events),
        ("early.tsv", early_requests),
        ("late.tsv", late_requests),
    ]
    .map(|(name, text)| ordered.bench.write(name, text));
    let [early_events, late_events, early_requests, late_requests] = &parts;

    ordered.ingest(&[early_events, early_requests]);
    ordered.ingest(&[late_events, late_requests]);
    // The second half comes first, then the first half of the requests, then that of the events.
    late.ingest(&[late_events, late_requests]);
    late.ingest(&[early_requests]);
    late.ingest(&[early_events]);
    assert_same_gold(&ordered, &late);
    let rows = late.sql("SELECT * FROM gold.starts_5m ORDER BY window_start, device_type");
    assert_eq!(numbers(rows), numbers(late.sql(STARTS_5M_FROM_SILVER)));
}

/// The lines of a file in two halves, each below its header lines.
fn halves(text: &str, header_lines: usize) -> (String, String) {
    let lines: Vec<&str> = text.lines().collect();
    let (header, records) = lines.split_at(header_lines);
    let (first, second) = records.split_at(records.len() / 2);
    let whole = |part: &[&str]| [header, part].concat().join("\n") + "\n";
    (whole(first), whole(second))
}

// ---- memory ----

#[test]
fn a_window_that_needs_too_much_memory_waits_and_holds_up_nothing_else() {
    let bench = Bench::new();
    bench.write("gold/heavy_1m.sql", HEAVY_1M);
    let [small, large] = ["16MiB", "512MiB"].map(|memory| {
        let folder = bench.path("gold").display().to_string();
        let none = bench.path("none").display().to_string();
        std::fs::create_dir_all(&none).expect("a folder can be made");
        bench.write(
            &format!("{memory}.yaml"),
            format!("sql: {{memory: {memory}}}\npipelines: {{folder: {folder}}}\nalerts: {{folder: {none}}}\n"),
        )
    });
    let run = |settings: &Path, arguments: &[&str]| {
        let output = bench
            .command(arguments)
            .arg("--settings")
            .arg(settings)
            .output()
            .expect("the binary starts");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {told}");
        (serde_json::from_slice::<Value>(&output.stdout).expect("the answer is JSON"), told)
    };
    // Ten minutes are too much at once; the seventh is too much alone.
    let text = attempts(0..7) + &attempts_of(7..8, 60) + &attempts(8..10);
    let file = bench.write("player.ndjson", text);
    let path = file.to_str().expect("a test's path is text");
    let (summary, told) = run(&small, &["ingest", "--json", path]);
    assert_eq!(summary["rejected"], 0, "{summary}");
    assert_eq!(
        told.matches("gold.heavy_1m: the window of 2026-01-01T00:07:00Z needs more than")
            .count(),
        1,
        "{told}"
    );
    assert!(told.contains("16 MiB of sql.memory") && told.contains("runs span"), "{told}");

    let finals = "SELECT date_part('minute', window_start) AS minute, held_bytes FROM gold.heavy_1m WHERE is_final ORDER BY 1";
    let minutes = |rows: &Value| -> Vec<i64> {
        let rows = rows.as_array().expect("a list");
        rows.iter().filter_map(|row| row["minute"].as_i64()).collect()
    };
    let (rows, _) = run(&large, &["sql", "--json", finals]);
    assert_eq!(minutes(&rows), [0, 1, 2, 3, 4, 5, 6, 8, 9], "the others are stored");
    assert_eq!(rows[0]["held_bytes"], 24 * HELD_BYTES, "{rows}");
    let (rows, _) = run(&large, &["sql", "--json", &finals.replace("_1m", "_5m")]);
    assert_eq!(minutes(&rows), [0], "a coarser window is made of all its minutes or waits");

    let (_, told) = run(&large, &["ingest", "--json", path]);
    assert!(!told.contains("sql.memory"), "{told}");
    let (rows, _) = run(&small, &["sql", "--json", finals]);
    assert_eq!(minutes(&rows), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(rows[7]["held_bytes"], 240 * HELD_BYTES, "{rows}");
    let (rows, _) = run(&small, &["sql", "--json", &finals.replace("_1m", "_5m")]);
    assert_eq!(minutes(&rows), [0, 5]);
}
