//! The manual of metrics and the page of one session: what is printed is what the tables hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{Bench, PLAYHEAD};

/// What the losses of a score may miss of it by adding floats.
const EPSILON: f64 = 1e-9;
const LOSSES: [(&str, &str); 5] = [
    ("loss_availability", "availability"),
    ("loss_startup", "startup"),
    ("loss_stall_time", "stall time"),
    ("loss_interruptions", "interruptions"),
    ("loss_picture", "picture"),
];

#[test]
fn the_manual_is_the_same_on_the_screen_in_json_and_in_the_repository() {
    let metrics = metrics();
    let names: BTreeSet<&str> = metrics.iter().map(|metric| word(metric, "name")).collect();
    assert_eq!(names.len(), metrics.len(), "two metrics have one name");
    for name in [
        "attempts",
        "startup_p95_ms",
        "rebuffer_ratio",
        "rebuffer_ratio_conn",
        "ebvs_ratio",
        "vsf_ratio",
        "vpf_ratio",
        "concurrent_peak",
        "score_mean",
        "cache_hit_ratio",
    ] {
        assert!(names.contains(name), "{name} is missing");
    }
    let screen = printed(&["metrics"]);
    let listed: BTreeSet<&str> = screen
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|word| names.contains(word))
        .collect();
    assert_eq!(listed, names, "on the screen and in JSON");

    let markdown = printed(&["metrics", "--markdown"]);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let committed = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        markdown == committed,
        "docs/metrics.md is not what the binary says; make it again: playhead metrics --markdown > docs/metrics.md"
    );
    for metric in &metrics {
        let name = word(metric, "name");
        assert!(markdown.contains(&format!("`{name}`")), "{name} is not in the markdown");
        for column in ["title", "help", "formula", "unit", "sql", "source", "attribution", "better"] {
            assert!(!word(metric, column).is_empty(), "{name} says nothing of its {column}");
        }
        assert!(
            metric["def_version"].as_i64().is_some_and(|version| version >= 1),
            "{name} has no version"
        );
    }
}

#[test]
fn one_metric_is_explained_by_its_name_and_an_unknown_one_is_a_usage_error_with_help() {
    let shown = printed(&["metrics", "rebuffer_ratio"]);
    for part in [
        "Rebuffering ratio",
        "sum(stall_ms) / (sum(playing_ms) + sum(stall_ms))",
        "gold.playback_1m",
        "better       lower",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    assert!(!shown.contains("startup_p95_ms:"), "one metric was asked for");

    let json: Value = serde_json::from_str(&printed(&["metrics", "rebuffer_ratio", "--json"])).expect("JSON was asked for");
    let whole = metrics();
    let same: Vec<&Value> = whole.iter().filter(|metric| metric["name"] == json!("rebuffer_ratio")).collect();
    assert_eq!(json, json!(same), "a list of the one");

    let output = playhead(&["metrics", "rebufer_ratio"]);
    assert_eq!(output.status.code(), Some(64), "a usage error");
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("rebufer_ratio") && said.contains("playhead metrics"), "{said}");
}

#[test]
fn every_metrics_sql_runs_on_every_table_it_names_and_grains_agree() {
    const MEANS_OVER_THE_SPAN: [&str; 3] = ["concurrent_avg", "request_rate", "egress_mbps"];
    let bench = sample();
    let metrics = metrics();
    let mut by_table: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for metric in &metrics {
        for table in metric["tables"].as_array().expect("a list") {
            by_table.entry(table.as_str().expect("a text")).or_default().push(metric);
        }
    }
    assert!(by_table.len() >= 12, "{:?}", by_table.keys());
    let mut values: BTreeMap<(&str, &str), Value> = BTreeMap::new();
    for (table, metrics) in &by_table {
        let expressions: Vec<String> = metrics
            .iter()
            .map(|metric| format!("{} AS \"{}\"", word(metric, "sql"), word(metric, "name")))
            .collect();
        let rows = bench.sql(&format!("SELECT {} FROM {table}", expressions.join(", ")));
        assert_eq!(rows.len(), 1, "{table}: a metric is one number");
        for metric in metrics {
            let (name, unit) = (word(metric, "name"), word(metric, "unit"));
            let value = rows[0][name].clone();
            assert!(value.is_null() || value.is_number(), "{name} of {table} is {value}");
            if let Some(number) = value.as_f64() {
                assert!(number.is_finite() && number >= 0.0, "{name} of {table} is {number}");
                assert!(unit != "ratio" || number <= 1.0, "{name} of {table} is {number}, which is no ratio");
            }
            values.insert((name, table), value);
        }
    }

    // A figure does not depend on the grain that it is added up from, save for a mean over the span of
    // the windows.
    for ((name, table), fine) in values.iter().filter(|((_, table), _)| table.ends_with("_1m")) {
        for grain in ["_5m", "_1h", "_1d"] {
            let coarser = table.replace("_1m", grain);
            let Some(coarse) = values.get(&(*name, coarser.as_str())) else {
                continue;
            };
            if !MEANS_OVER_THE_SPAN.contains(name) {
                assert!(is_near(fine, coarse), "{name}: {fine} in {table}, {coarse} in {coarser}");
            }
        }
    }

    // And it is what the sessions below it add up to.
    let facts = bench.sql(
        "SELECT sum(attempts) AS attempts, sum(plays) AS plays, sum(exits_before_start) AS ebvs, sum(start_failures) AS vsf, \
         sum(playing_ms) / 3600000.0 AS play_time_h, CAST(sum(stall_ms) AS DOUBLE) / (sum(playing_ms) + sum(stall_ms)) AS rebuffer_ratio, \
         sum(CASE WHEN attempts = 1 AND outcome = 'open' THEN 1 ELSE 0 END) AS open_attempts FROM silver.playback_sessions",
    );
    for (name, expected) in facts[0].as_object().expect("a row") {
        let found = &values[&(name.as_str(), "gold.playback_1m")];
        assert!(is_near(found, expected), "{name} is {found} in gold and {expected} in the sessions");
    }
    let count = |name: &str| values[&(name, "gold.playback_1m")].as_i64().expect("a count");
    assert!(count("attempts") > 100, "the sample has {} attempts", count("attempts"));
    assert_eq!(
        count("attempts"),
        count("plays") + count("ebvs") + count("vsf") + count("open_attempts")
    );
}

#[test]
fn the_page_of_a_session_shows_its_timeline_its_facts_and_every_loss_of_its_score() {
    let bench = sample();
    let sums = LOSSES.map(|(column, _)| column).join(" + ");
    let off = bench.int(&format!(
        "SELECT count(*) FROM silver.playback_sessions WHERE score IS NOT NULL AND abs(score + {sums} - 100) > {EPSILON}"
    ));
    assert_eq!(off, 0, "the losses of a score are what it misses of 100");
    assert!(bench.int("SELECT count(*) FROM silver.playback_sessions WHERE score < 100") > 10);

    // The session that stalled most, and one that failed.
    for order in ["stall_ms DESC", "start_failures DESC"] {
        let row = &bench.sql(&format!(
            "SELECT session_id, score, stall_count, startup_ms, outcome, {} FROM silver.playback_sessions WHERE score IS NOT NULL \
             ORDER BY {order}, session_id LIMIT 1",
            LOSSES.map(|(column, _)| column).join(", ")
        ))[0];
        let id = word(row, "session_id");
        let page = text_of(&bench.run(&["session", id]));
        let score = row["score"].as_f64().expect("a score");
        assert!(
            page.contains(id) && page.contains(&format!("outcome   {}", word(row, "outcome"))),
            "{page}"
        );
        assert!(page.contains(&format!("score     {score:.2} of 100")), "{page}");
        let mut losses = 0;
        for (column, name) in LOSSES {
            let loss = row[column].as_f64().expect("a loss");
            let line = format!("-{loss:.2} {name} (");
            assert_eq!(page.contains(&line), loss > 0.0, "{line}\n{page}");
            losses += usize::from(loss > 0.0);
        }
        assert!(losses > 0, "a session without a loss explains nothing: {id}");

        let whole: Value = serde_json::from_str(&text_of(&bench.run(&["session", id, "--json"]))).expect("JSON");
        let [sessions, intervals, events] = ["sessions", "intervals", "events"].map(|part| whole[part].as_array().expect("a list"));
        assert_eq!(sessions.len(), 1);
        assert_eq!(sessions[0]["session_id"], json!(id));
        let told = |table: &str| bench.int(&format!("SELECT count(*) FROM {table} WHERE session_id = '{id}'"));
        assert_eq!(intervals.len() as i64, told("silver.playback_intervals"));
        assert_eq!(events.len() as i64, sessions[0]["events"].as_i64().expect("a count"));
        let (_, below) = page.split_once("\ntimeline\n").expect("a timeline");
        let (timeline, events_shown) = below.split_once("\nevents\n").expect("events");
        assert_eq!(timeline.lines().count(), intervals.len(), "{page}");
        assert_eq!(events_shown.lines().count(), events.len(), "{page}");
        let stalls = timeline
            .lines()
            .filter(|line| line.contains("rebuffering") && !line.contains("(goes on)"));
        assert_eq!(stalls.count() as i64, row["stall_count"].as_i64().expect("a count"), "{timeline}");
        if let Some(startup_ms) = row["startup_ms"].as_i64() {
            assert!(page.contains(&format!("startup_ms {startup_ms}")), "{page}");
        }
    }

    let output = bench.run(&["session", "nobody's"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("no session `nobody's`") && said.contains("silver.playback_sessions"),
        "{said}"
    );
    assert_eq!(bench.run(&["session"]).status.code(), Some(64), "an id is needed");
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    for arguments in [&["metrics", "--markdown"][..], &["metrics", "--json"], &["tables"], &["settings"]] {
        // A pipe that nobody reads, as behind `| head`.
        let mut child = Command::new(PLAYHEAD)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{arguments:?}: {:?} {said}",
            output.status
        );
    }
}

// ---- what the tests share ----

/// A lake with the hour of a simulated audience that stands in the repository.
#[track_caller]
fn sample() -> Bench {
    let bench = Bench::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sample");
    let files: [PathBuf; 2] = ["player.ndjson.gz", "cdn.tsv.gz"].map(|name| folder.join(name));
    bench.ingest(&[&files[0], &files[1]]);
    bench
}

fn playhead(arguments: &[&str]) -> Output {
    Command::new(PLAYHEAD).args(arguments).output().expect("the binary starts")
}

#[track_caller]
fn printed(arguments: &[&str]) -> String {
    text_of(&playhead(arguments))
}

#[track_caller]
fn text_of(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("it prints UTF-8")
}

#[track_caller]
fn metrics() -> Vec<Value> {
    match serde_json::from_str(&printed(&["metrics", "--json"])).expect("the manual is JSON") {
        Value::Array(metrics) if metrics.len() > 50 => metrics,
        other => panic!("not a list of metrics: {other}"),
    }
}

#[track_caller]
fn word<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_else(|| panic!("{column} of {row} is no text"))
}

/// Equal, save for the order in which floats were added.
fn is_near(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => (left - right).abs() <= EPSILON * right.abs().max(1.0),
        _ => left == right,
    }
}
