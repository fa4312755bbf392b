//! What a person gets for a mistake, and for a lake or a file that is broken: an exit code, one
//! message that names the place and the way out, and a lake that is as it was.
//!
//! Exit codes: 64 for usage and settings, 1 for a failure (DESIGN 3).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Bench, PLAYHEAD, files_below, reference};

const FAILURE: i32 = 1;
const USAGE: i32 = 64;

/// Past this a daemon that has not said that it runs never will.
const START_LIMIT: Duration = Duration::from_secs(30);

/// One window, one count: the smallest pipeline that is in order.
const GOOD_SQL: &str = "-- Requests a minute.
SELECT window.start AS window_start, window.end AS window_end, requests
FROM (SELECT tumble(interval '1 minute') AS window, count(*) AS requests FROM silver.cdn_requests GROUP BY window) AS minutes
";

/// A lake with the reference fixture in it.
fn filled() -> Bench {
    let bench = Bench::new();
    bench.ingest(&[&reference("ref_player.ndjson")]);
    bench
}

/// Every file of the lake but the lock, which tells the last process that asked for it.
fn lake_files(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files_below(&bench.lake());
    files.remove(Path::new("playhead.lock"));
    files
}

/// What went to people: no log lines below an error.
fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = text.lines().filter(|line| !line.contains(" WARN ") && !line.contains(" INFO "));
    lines.collect::<Vec<_>>().join("\n")
}

/// Refused with this code, in one message that holds all of these, and the lake is as it was.
#[track_caller]
fn assert_refused(bench: &Bench, arguments: &[&str], code: i32, holds: &[&str]) {
    let before = lake_files(bench);
    let output = bench.run(arguments);
    assert_told(&output, arguments, code, holds);
    let after = lake_files(bench);
    let changed: Vec<&PathBuf> = after
        .iter()
        .filter(|(name, bytes)| before.get(*name) != Some(bytes))
        .map(|(name, _)| name)
        .collect();
    assert!(
        changed.is_empty() && before.len() == after.len(),
        "{arguments:?} changed the lake: {changed:?}"
    );
}

#[track_caller]
fn assert_told(output: &Output, arguments: &[&str], code: i32, holds: &[&str]) {
    let message = told(output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    for part in holds {
        assert!(message.contains(part), "{arguments:?}: the message lacks {part:?}:\n{message}");
    }
    assert_eq!(
        message.matches("playhead: ").count(),
        usize::from(arguments[0] != "check"),
        "not one message:\n{message}"
    );
    for noise in ["panicked", "RUST_BACKTRACE", "Error: ", "DataFusionError", "ParserError(", "Some("] {
        assert!(
            !message.contains(noise),
            "{arguments:?}: a programmer's words ({noise:?}):\n{message}"
        );
    }
    assert!(
        output.stdout.is_empty(),
        "{arguments:?} printed a result: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of plain text")
}

// ---- input ----

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(bytes).expect("memory takes it");
    packed.finish().expect("memory takes it")
}

/// Whole lines that can be had from a cut gzip stream.
fn whole_lines(cut: &[u8]) -> usize {
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(cut)
        .read_to_end(&mut unpacked)
        .expect_err("the stream is cut");
    unpacked.iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn a_cut_gzip_file_gives_its_whole_lines_and_says_what_to_do() {
    let whole = packed(&std::fs::read(reference("ref_player.ndjson")).expect("the fixture is there"));
    let cut = &whole[..whole.len() * 3 / 4];
    let lines = whole_lines(cut);
    assert!((1..25).contains(&lines), "the cut leaves {lines} lines");

    // Alone, and with a sound file that must not suffer from it or hide it.
    for beside in [None, Some(reference("ref_cdn.ndjson"))] {
        let bench = Bench::new();
        let file = bench.write("in.ndjson.gz", cut);
        let mut arguments = vec!["ingest", "--json", text(&file)];
        arguments.extend(beside.as_deref().map(text));
        let output = bench.run(&arguments);
        let message = told(&output);
        assert_eq!(output.status.code(), Some(FAILURE), "{message}");
        let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
        assert_eq!(summary["stored"], lines + if beside.is_some() { 8 } else { 0 }, "{summary}");
        let unreadable = summary["unreadable"].as_array().expect("a list");
        assert_eq!(unreadable.len(), 1, "{summary}");
        for part in ["in.ndjson.gz", "gzip", "replace the file"] {
            assert!(
                unreadable[0].as_str().is_some_and(|entry| entry.contains(part)),
                "{part:?} is not in {summary}"
            );
            assert!(message.contains(part), "the message lacks {part:?}:\n{message}");
        }

        // What it says to do helps: only what was missing is read.
        bench.write("in.ndjson.gz", &whole);
        let summary = bench.ingest(&[&file]);
        assert_eq!(summary["stored"], 25 - lines, "{summary}");
        assert_eq!(bench.int("SELECT count(*) FROM silver.player_events"), 25);
    }
}

#[test]
fn a_folder_that_does_not_exist_is_named_and_nothing_is_made() {
    let bench = filled();
    assert_refused(&bench, &["ingest", "no/such/folder"], USAGE, &["no/such/folder", "check the name"]);
    // The good file beside it is not read either: the command line is wrong.
    let player = reference("ref_cdn.ndjson");
    assert_refused(
        &bench,
        &["ingest", text(&player), "no/such/folder"],
        USAGE,
        &["no/such/folder", "check the name"],
    );

    let output = Command::new(PLAYHEAD)
        .args(["ingest", "no/such/folder", "--data", "fresh"])
        .current_dir(bench.path(""))
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(!bench.path("fresh").exists(), "a refused command made a lake folder");
}

// ---- settings, pipelines, alerts ----

#[test]
fn a_wrong_setting_is_named_by_file_line_and_column() {
    let cases: [(&str, &[&str]); 6] = [
        (
            "ingest:\n  batch_record: 1\n",
            &["wrong.yaml:2:3", "unknown key \"batch_record\"", "did you mean \"batch_records\"?"],
        ),
        ("data: ./lake\ningst: {}\n", &["wrong.yaml:2:1", "did you mean \"ingest\"?"]),
        ("ingest:\n  commit_every: 5\n", &["wrong.yaml:2:", "commit_every"]),
        ("privacy:\n  identity: hash\n", &["wrong.yaml:2:", "identity", "pseudonym", "keep"]),
        ("privacy:\n  key: 0011\n", &["wrong.yaml:2:", "privacy.key"]),
        ("ingest: [\n", &["wrong.yaml:"]),
    ];
    let (bench, player) = (filled(), reference("ref_cdn.ndjson"));
    for (settings, holds) in cases {
        bench.write("wrong.yaml", settings);
        assert_refused(&bench, &["check", "--settings", "wrong.yaml"], USAGE, holds);
        assert_refused(&bench, &["ingest", "--settings", "wrong.yaml", text(&player)], USAGE, holds);
    }
}

#[test]
fn a_secret_in_a_settings_file_is_refused_and_not_repeated() {
    let bench = filled();
    let secret = "5eb63bbbe01eeed093cb22bb8f5acdc35eb63bbbe01eeed093cb22bb8f5acdc3";
    bench.write("wrong.yaml", format!("privacy:\n  key: {secret}\n"));
    let output = bench.run(&["check", "--settings", "wrong.yaml"]);
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(told(&output).contains("${"), "it does not say how to give a key: {}", told(&output));
    assert!(!told(&output).contains(secret), "the key is printed");
}

#[test]
fn a_wrong_pipeline_is_named_by_file_and_line_and_touches_no_lake() {
    let windows = "SELECT window.start AS window_start, window.end AS window_end, n\nFROM (SELECT tumble(interval '1 minute') AS window,";
    let unknown_column = format!("-- Wrong.\n{windows}\n sum(nothing) AS n FROM silver.cdn_requests GROUP BY window) AS m\n");
    let unknown_table = format!("-- Wrong.\n{windows}\n count(*) AS n FROM silver.nope GROUP BY window) AS m\n");
    let unfinished = format!("-- Wrong.\n{windows}\n count(*) AS n FROM\n");
    let cases: [(&str, &[&str]); 5] = [
        (&unknown_column, &["folder/wrong.sql:4:", "nothing"]),
        (&unknown_table, &["folder/wrong.sql:4:", "silver.nope", "silver.cdn_requests"]),
        (&unfinished, &["folder/wrong.sql:", "Expected"]),
        ("-- Wrong.\nDROP TABLE silver.cdn_requests\n", &["folder/wrong.sql:", "SELECT"]),
        ("-- Wrong.\nSELECT 1 AS one\n", &["folder/wrong.sql", "tumble"]),
    ];
    let (bench, player) = (filled(), reference("ref_cdn.ndjson"));
    bench.write("folder/good.sql", GOOD_SQL);
    bench.write("none/readme.txt", "no rules");
    bench.write("s.yaml", "pipelines: {folder: ./folder}\nalerts: {folder: ./none}\n");
    for (sql, holds) in cases {
        bench.write("folder/wrong.sql", sql);
        assert_refused(&bench, &["check", "--settings", "s.yaml"], USAGE, holds);
        assert_refused(&bench, &["ingest", "--settings", "s.yaml", text(&player)], USAGE, holds);
    }
    // Without the wrong file the folder is in order.
    std::fs::remove_file(bench.path("folder/wrong.sql")).expect("it was there");
    let output = bench.run(&["check", "--settings", "s.yaml"]);
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn a_wrong_alert_is_named_by_file_and_line_and_touches_no_lake() {
    let good = include_str!("../../alerts/playback_errors.yaml");
    let line_of = |text: &str, part: &str| text.lines().position(|line| line.contains(part)).expect("the line is there") + 1;
    let misspelt = good.replacen("min_samples:", "min_sample:", 1);
    let other_table = good.replacen("from: gold.errors_1m", "from: gold.error_1m", 1);
    assert!(
        misspelt != good && other_table != good,
        "the shipped alert has changed: adapt this test"
    );
    let cases = [
        (
            &misspelt,
            format!("folder/wrong.yaml:{}:", line_of(&misspelt, "min_sample:")),
            "min_samples",
        ),
        (
            &other_table,
            format!("folder/wrong.yaml:{}:", line_of(&other_table, "gold.error_1m")),
            "gold.errors_1m",
        ),
    ];
    let (bench, player) = (filled(), reference("ref_cdn.ndjson"));
    bench.write("s.yaml", "alerts: {folder: ./folder}\n");
    for (yaml, place, fix) in cases {
        bench.write("folder/wrong.yaml", yaml);
        assert_refused(&bench, &["check", "--settings", "s.yaml"], USAGE, &[&place, fix]);
        assert_refused(&bench, &["ingest", "--settings", "s.yaml", text(&player)], USAGE, &[&place, fix]);
    }
}

#[test]
fn a_command_line_that_is_wrong_is_usage() {
    let bench = filled();
    for arguments in [&["ingest"][..], &["ingest", "--nope", "x"], &["nope"], &["sql"]] {
        let before = lake_files(&bench);
        let output = bench.run(arguments);
        assert_eq!(output.status.code(), Some(USAGE), "{arguments:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("Usage"),
            "{arguments:?} does not show the usage"
        );
        assert!(lake_files(&bench) == before, "{arguments:?} changed the lake");
    }
}

// ---- the lake ----

fn commits(bench: &Bench, table: &str) -> Vec<PathBuf> {
    let folder = bench.lake().join(table.replace('.', "/")).join("_delta_log");
    let names = std::fs::read_dir(folder)
        .expect("the table has a log")
        .flatten()
        .map(|entry| entry.path());
    let mut commits: Vec<PathBuf> = names.filter(|path| path.extension().is_some_and(|found| found == "json")).collect();
    commits.sort();
    commits
}

#[test]
fn a_lake_of_a_newer_release_is_refused_and_left_alone() {
    let cdn = reference("ref_cdn.ndjson");
    for table in ["silver.player_events", "bronze.cdn_logs", "gold.playback_1m"] {
        let bench = filled();
        let first = commits(&bench, table).remove(0);
        let log = std::fs::read_to_string(&first).expect("a commit is text");
        let newer = log.replace(r#""playhead.format":"1""#, r#""playhead.format":"99""#);
        assert_ne!(log, newer, "{table} does not say its format");
        std::fs::write(&first, newer).expect("the commit can be written");
        let holds = [table, "newer Playhead", "99", "install that release"];
        assert_refused(&bench, &["ingest", text(&cdn)], FAILURE, &holds);
        let query = format!("SELECT count(*) FROM {table}");
        assert_refused(&bench, &["sql", &query], FAILURE, &holds);
    }
}

#[test]
fn a_torn_last_commit_is_named_with_its_file() {
    let cdn = reference("ref_cdn.ndjson");
    for table in ["bronze.player_events", "silver.playback_sessions", "gold.playback_1m"] {
        let bench = filled();
        let last = commits(&bench, table).pop().expect("the table has commits");
        std::fs::write(&last, "").expect("the commit can be written");
        let name = last.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let holds = [table, "damaged", name, "restore"];
        assert_refused(&bench, &["ingest", text(&cdn)], FAILURE, &holds);
        let query = format!("SELECT count(*) FROM {table}");
        assert_refused(&bench, &["sql", &query], FAILURE, &holds);
    }
}

/// A daemon on the lake of a bench, ended with the test.
struct Daemon(Child);

impl Daemon {
    /// Starts it and waits until it says that it runs.
    fn start(bench: &Bench) -> Daemon {
        let quiet = bench.write("quiet.yaml", "http: {listen: off}\npostgres: {listen: off}\n");
        let mut command = bench.command(&["run"]);
        command.arg("--settings").arg(quiet);
        let mut daemon = Daemon(
            command
                .stderr(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("the binary starts"),
        );
        let errors = BufReader::new(daemon.0.stderr.take().expect("it is piped"));
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || errors.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = told.recv_timeout(left).expect("the daemon does not say that it runs");
            if line.contains("playhead is running") {
                return daemon;
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_second_writer_is_refused_with_the_pid_of_the_first_and_readers_are_not() {
    let bench = filled();
    let daemon = Daemon::start(&bench);
    let pid = format!("pid {}", daemon.0.id());
    let cdn = reference("ref_cdn.ndjson");
    assert_refused(&bench, &["ingest", text(&cdn)], FAILURE, &["in use", &pid, "stop it"]);
    assert_refused(&bench, &["run"], FAILURE, &["in use", &pid, "stop it"]);
    assert_eq!(bench.int("SELECT count(*) FROM silver.player_events"), 25);
    // Once it has gone, even by the hardest way, its lock holds nobody up.
    drop(daemon);
    assert_eq!(bench.ingest(&[&cdn])["stored"], 8);
}

// ---- queries ----

#[test]
fn a_query_on_no_lake_says_how_to_make_one_and_makes_none() {
    let bench = Bench::new();
    let lake = bench.path("nowhere");
    let arguments = ["sql", "SELECT 1", "--data", text(&lake)];
    let output = Command::new(PLAYHEAD)
        .args(arguments)
        .current_dir(bench.path(""))
        .output()
        .expect("the binary starts");
    assert_told(&output, &arguments, FAILURE, &["nowhere", "playhead ingest", "--data"]);
    assert!(!lake.exists(), "a query made a lake folder");
}

#[test]
fn a_wrong_query_is_answered_with_what_is_wrong_in_it() {
    let bench = filled();
    let cases: [(&str, &[&str]); 4] = [
        ("SELEC 1", &["SELEC"]),
        ("SELECT nope FROM silver.player_events", &["nope"]),
        ("SELECT * FROM gold.nope", &["gold.nope", "not found"]),
        ("SELECT sum(payload) FROM bronze.player_events", &["sum"]),
    ];
    for (query, holds) in cases {
        assert_refused(&bench, &["sql", query], FAILURE, holds);
    }
}

#[test]
fn a_query_can_change_nothing_and_reach_nothing_outside_the_lake() {
    let bench = filled();
    let outside = bench.write("outside.csv", "a\n1\n");
    let copy = bench.path("copy.csv");
    let queries = [
        "INSERT INTO bronze.player_events SELECT * FROM bronze.player_events".to_string(),
        "DELETE FROM bronze.player_events".to_string(),
        "UPDATE bronze.player_events SET payload = ''".to_string(),
        "DROP TABLE bronze.player_events".to_string(),
        "CREATE TABLE t AS SELECT 1".to_string(),
        "CREATE VIEW v AS SELECT 1".to_string(),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{}'", outside.display()),
        format!("COPY (SELECT 1) TO '{}'", copy.display()),
        "SET datafusion.execution.batch_size = 1".to_string(),
        format!("SELECT * FROM '{}'", outside.display()),
        "SELECT 1; DROP TABLE bronze.player_events".to_string(),
    ];
    for query in &queries {
        assert_refused(&bench, &["sql", query], FAILURE, &[]);
    }
    // A plan may be shown; what stands in it is not done.
    let explain = format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{}'", copy.display());
    bench.run(&["sql", &explain]);
    assert!(!copy.exists(), "a query wrote a file");
    assert_eq!(bench.sql("SELECT count(*) AS n FROM bronze.player_events"), [json!({"n": 25})]);
}
