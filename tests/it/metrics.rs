//! What a running daemon tells of itself: `/metrics`, `/healthz`, `/readyz` and its log, read as Prometheus, an
//! orchestrator and a log collector do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::daemon::Daemon;
use crate::http_client::{Answer, post, request, try_request};
use crate::support::{Bench, reference};

const SETTINGS: &str = "
http: {listen: '127.0.0.1:0'}
sources: [{name: folder, path: incoming}]
ingest: {commit_every: 200ms, poll_every: 50ms}
";
/// What the log says once the door for events is open.
const EVENTS: &str = "taking player events on http://";
/// What it says once the door for status is open, where that is another.
const STATUS: &str = "health and metrics on http://";
const JSON: (&str, &str) = ("content-type", "application/json");
/// What of an address, a user and a session is in the events that are sent.
const SECRETS: [&str; 4] = ["198.51.100.77", "viewer-4711", "title-4711", "secret-token"];

#[test]
fn every_record_is_counted_once_by_source_and_fate() {
    let (bench, mut daemon, address) = start(SETTINGS);
    bench.write(
        "incoming/.player.ndjson",
        std::fs::read(reference("ref_player.ndjson")).expect("a reference file"),
    );
    std::fs::rename(bench.path("incoming/.player.ndjson"), bench.path("incoming/player.ndjson")).expect("renamed");
    let event = event();
    for _ in 0..2 {
        assert!(post(address, "/v1/events?token=secret-token", &[JSON], &event).status < 300);
    }
    // One that is right beside two that are not: both answers are 200 with a summary.
    let mixed = format!("{event}\n{{broken\n[1, 2]\n").replace("PLAY", "STREAM");
    assert_eq!(
        post(address, "/v1/events", &[("content-type", "application/x-ndjson")], mixed).status,
        200
    );

    let posted = 2.0 + 4.0;
    daemon.wait_until("all that was posted is committed", || {
        sample(&scrape(address), "playhead_records_received_total", &[("source", "http")]) >= Some(posted)
    });
    daemon.wait_until("the folder is committed", || {
        sample(&scrape(address), "playhead_records_received_total", &[("source", "folder")]) > Some(0.0)
    });
    let samples = scrape(address);
    for source in ["http", "folder"] {
        let of = |name: &str| sum(&samples, name, &[("source", source)]);
        let fates = of("playhead_records_stored_total") + of("playhead_records_duplicate_total") + of("playhead_records_rejected_total");
        assert_eq!(of("playhead_records_received_total"), fates, "{source}");
    }
    let http = |name: &str| sum(&samples, name, &[("source", "http")]);
    assert_eq!(http("playhead_records_received_total"), posted);
    assert_eq!(http("playhead_records_duplicate_total"), 1.0);
    assert_eq!(http("playhead_records_rejected_total"), 3.0);
    let answered = sum(&samples, "playhead_http_requests_total", &[("path", "/v1/events")]);
    assert_eq!(answered, 3.0);
    let stored: f64 = sum(&samples, "playhead_records_stored_total", &[]);
    let in_bronze = bench.int("SELECT count(*) FROM bronze.player_events");
    assert_eq!(stored, in_bronze as f64, "stored is what bronze holds");
    let rejected = sum(&samples, "playhead_records_rejected_total", &[]);
    let in_rejects = bench.int("SELECT count(*) FROM silver.rejects");
    assert_eq!(rejected, in_rejects as f64, "rejected is what silver.rejects holds");
    assert!(daemon.stop().success());
}

#[test]
fn the_text_follows_the_rules_and_tells_nothing_of_anybody() {
    let (bench, mut daemon, address) = start(SETTINGS);
    let event = event();
    let forwarded = ("x-forwarded-for", "198.51.100.77");
    assert!(post(address, "/v1/events?token=secret-token", &[JSON, forwarded], event).status < 300);
    request(address, "GET", "/title-4711/198.51.100.77", &[], b"");
    daemon.wait_until("the event is committed, and its bytes have been reported", || {
        let samples = scrape(address);
        let is_stored = sample(&samples, "playhead_records_stored_total", &[("source", "http")]) == Some(1.0);
        is_stored && sample(&samples, "playhead_spool_bytes", &[]).is_some()
    });

    let answer = request(address, "GET", "/metrics", &[], b"");
    let content_type = answer.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("text/plain; version=0.0.4"), "{content_type}");
    let families = families(&answer.body);
    for (name, kind) in &families {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        assert!(name.starts_with("playhead_"), "{name}");
    }
    for secret in SECRETS {
        assert!(!answer.body.contains(secret), "{secret} in\n{}", answer.body);
        assert!(!daemon.log().contains(secret), "{secret} is in the log");
    }
    // What is there says so on the page, and what every daemon has is there.
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/README.md")).expect("the page is there");
    for (name, kind) in &families {
        assert!(page.contains(&format!("| `{name}` | {kind} |")), "deploy/README.md lacks {name}");
    }
    let samples = parse(&answer.body);
    for name in [
        "playhead_build_info",
        "playhead_memory_bytes",
        "playhead_epoch_duration_seconds_count",
        "playhead_commit_duration_seconds_count",
        "playhead_last_epoch_timestamp_seconds",
        "playhead_watermark_timestamp_seconds",
        "playhead_dirty_windows",
        "playhead_open_sessions",
        "playhead_session_events_in_memory",
        "playhead_queue_fill_ratio",
        "playhead_spool_bytes",
        "playhead_source_lag_records",
        "playhead_alert_rules_loaded",
        "playhead_alerts_firing",
        "playhead_alerts_oldest_undelivered_seconds",
        "playhead_alert_rules_refused",
        "playhead_late_records_total",
        "playhead_lookups_total",
        "playhead_events_left_out_total",
    ] {
        assert!(samples.iter().any(|sample| sample.name == name), "no {name} in\n{}", answer.body);
    }
    let one = |name: &str| sample(&samples, name, &[]).unwrap_or(f64::NAN);
    let now_s = now_ms() as f64 / 1000.0;
    assert!((now_s - one("playhead_last_epoch_timestamp_seconds")).abs() < 120.0);
    assert!(one("playhead_memory_bytes") > 1e7 && one("playhead_memory_bytes") < 4e9);
    assert_eq!(one("playhead_open_sessions"), 1.0);
    let commits = sum(
        &samples,
        "playhead_commit_duration_seconds_count",
        &[("table", "bronze.player_events")],
    );
    assert!(commits >= 1.0);
    promtool(&answer.body);
    drop(bench);
}

#[test]
fn a_daemon_says_when_it_is_ready() {
    let (_bench, mut daemon, address) = start(SETTINGS);
    assert_eq!(
        get(address, "/healthz").map(|answer| (answer.status, answer.body)),
        Some((200, "ok\n".to_owned()))
    );
    daemon.wait_until("it is ready", || get(address, "/readyz").is_some_and(|answer| answer.status == 200));
    let answer = get(address, "/readyz").expect("an answer");
    assert_eq!(answer.json(), serde_json::json!({"ready": true}));
    assert!(daemon.stop().success());
}

#[test]
fn status_on_an_address_of_its_own_is_not_where_players_post() {
    let settings = SETTINGS.replace("listen: '127.0.0.1:0'", "listen: '127.0.0.1:0', status: '127.0.0.1:0'");
    let (bench, mut daemon, events) = start(&settings);
    let status = door(&mut daemon, &bench, STATUS);
    assert_ne!(events, status);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(
            get(events, path).map(|answer| answer.status),
            Some(404),
            "{path} where players post"
        );
        daemon.wait_until("status answers", || get(status, path).is_some_and(|answer| answer.status == 200));
    }
    assert_eq!(post(status, "/v1/events", &[JSON], "{}").status, 404);
    assert!(daemon.stop().success());
}

#[test]
fn a_json_log_is_json_to_its_last_line_and_tells_an_error_once() {
    let bench = Bench::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    let settings = format!("http: {{listen: '{address}'}}\nsources: []\nlog: {{format: json}}\n");
    let settings = bench.write("json.yaml", settings);
    let output = bench
        .command(&["run"])
        .arg("--settings")
        .arg(settings)
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).expect("the log is text");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let last = lines.last().expect("it says why it ends");
    assert_eq!(last["level"], "ERROR", "{text}");
    assert_eq!(text.matches("cannot listen on").count(), 1, "{text}");
    assert!(last.to_string().contains("cannot listen on"), "{text}");
}

// ---- the daemon ----

fn start(settings: &str) -> (Bench, Daemon, SocketAddr) {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.path("incoming")).expect("a folder can be made");
    let mut daemon = Daemon::start(&bench, settings);
    let address = door(&mut daemon, &bench, EVENTS);
    (bench, daemon, address)
}

/// The address after a mark in the log.
#[track_caller]
pub fn door(daemon: &mut Daemon, bench: &Bench, mark: &str) -> SocketAddr {
    let log = bench.path("run.log");
    let find = || {
        let text = std::fs::read_to_string(&log).ok()?;
        let line = text.lines().find_map(|line| line.split_once(mark))?.1;
        line.split('/').next()?.parse().ok()
    };
    daemon.wait_until(mark, || find().is_some());
    find().expect("it was there a moment ago")
}

fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    try_request(address, "GET", path, &[], b"")
}

fn event() -> String {
    let rest = r#""user_id":"viewer-4711","video_id":"title-4711","client_ip":"198.51.100.77""#;
    format!(r#"{{"MetricType":"PLAY","TimeStamp":{},{rest}}}"#, now_ms())
}

/// Event times are checked against the machine's clock.
#[allow(clippy::disallowed_methods)] // The daemon's clock is the machine's.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_millis()).expect("before the year 292 million")
}

// ---- the text format ----

/// One line of the text format that is no comment.
#[derive(Debug)]
pub struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

#[track_caller]
pub fn scrape(address: SocketAddr) -> Vec<Sample> {
    let answer = get(address, "/metrics").expect("/metrics answers");
    assert_eq!(answer.status, 200, "{answer:?}");
    parse(&answer.body)
}

/// Every line must be a comment that is understood, a sample, or empty.
#[track_caller]
fn parse(text: &str) -> Vec<Sample> {
    assert!(text.ends_with('\n'), "the last line is not ended");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let samples: Vec<Sample> = lines
        .map(|line| parse_line(line).unwrap_or_else(|| panic!("no sample: {line}")))
        .collect();
    let mut series = BTreeSet::new();
    for sample in &samples {
        assert!(series.insert((&sample.name, &sample.labels)), "twice: {sample:?}");
    }
    samples
}

fn parse_line(line: &str) -> Option<Sample> {
    let name_end = line.find(|c: char| !c.is_ascii_lowercase() && c != '_')?;
    let (name, rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    if let Some(list) = rest.strip_prefix('{') {
        rest = list;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !label.chars().all(|c| c.is_ascii_lowercase() || c == '_') || label.is_empty() {
                return None;
            }
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: rest.strip_prefix(' ')?.parse().ok()?,
    })
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}

/// Kind by name. Each family has one help and one type, before its samples, and its samples together.
#[track_caller]
fn families(text: &str) -> BTreeMap<String, String> {
    let mut kinds = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(helped.contains(name), "{name} has no help before its type");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} stands twice");
            current = name.to_owned();
        } else {
            let sample = parse_line(line).unwrap_or_else(|| panic!("no sample: {line}"));
            let mut expected = vec![current.clone()];
            if kinds.get(&current).is_some_and(|kind| kind == "histogram") {
                expected = ["_bucket", "_sum", "_count"].map(|end| format!("{current}{end}")).to_vec();
            }
            assert!(expected.contains(&sample.name), "{line} stands below {current}");
        }
    }
    kinds
}

fn has_labels(sample: &Sample, labels: &[(&str, &str)]) -> bool {
    labels
        .iter()
        .all(|(name, value)| sample.labels.get(*name).is_some_and(|found| found == value))
}

/// The value of the one series with this name and exactly these labels.
pub fn sample(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut found = samples
        .iter()
        .filter(|sample| sample.name == name && sample.labels.len() == labels.len() && has_labels(sample, labels));
    found.next().map(|sample| sample.value)
}

/// The sum of all series with this name and at least these labels.
pub fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let found = samples.iter().filter(|sample| sample.name == name && has_labels(sample, labels));
    found.map(|sample| sample.value).sum()
}

/// Prometheus' own judgement.
#[track_caller]
fn promtool(text: &str) {
    let mut command = Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return println!("skipped: promtool check metrics: {error}; it comes with Prometheus"),
    };
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(text.as_bytes()).expect("promtool reads its input");
    drop(input);
    let output = child.wait_with_output().expect("promtool ends");
    let complaints = [output.stdout, output.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat();
    assert!(output.status.success() && complaints.is_empty(), "{complaints}");
}

#[test]
fn the_reader_of_this_test_refuses_what_is_no_sample() {
    let check = |line: &str, expected: Option<(&str, f64)>| {
        let found = parse_line(line);
        let found = found.as_ref().map(|sample| (sample.name.as_str(), sample.value));
        assert_eq!(found, expected, "{line}");
    };
    check("up 1", Some(("up", 1.0)));
    check(r#"up{a="x",b="y \" } \\"} 2.5"#, Some(("up", 2.5)));
    check(r#"up{le="+Inf"} 3"#, Some(("up", 3.0)));
    for wrong in [
        "up",
        "up one",
        "Up 1",
        r#"up{a=x} 1"#,
        r#"up{a="x} 1"#,
        r#"up{a="x"}1"#,
        r#"up{a="\x"} 1"#,
        r#"up{A="x"} 1"#,
    ] {
        check(wrong, None);
    }
}
