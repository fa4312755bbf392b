//! Alerts from end to end: files in, a line on the terminal and a message at SNS out.
//!
//! The rules are the shipped ones with numbers that fit a small audience. SNS is a listener of this
//! test that speaks as much of its protocol as a publisher needs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::support::{Bench, simulate};

/// 2026-01-14T12:00:00Z.
const NOON_MS: i64 = 1_768_392_000_000;
const MINUTE_MS: i64 = 60_000;
const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:playhead-test";
const FIFO_TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:playhead-test.fifo";

// ---- rules and audiences ----

/// A shipped rule file with some of its words replaced; a word that is not there fails the test.
#[track_caller]
pub fn shipped(name: &str, replaced: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts").join(name);
    let mut text = std::fs::read_to_string(path).expect("the rule is shipped");
    for (old, new) in replaced {
        assert!(text.contains(old), "{name} has no `{old}`");
        text = text.replace(old, new);
    }
    text
}

pub fn error_rule(replaced: &[(&str, &str)]) -> String {
    shipped(
        "playback_errors.yaml",
        &[&[("min_samples: 500", "min_samples: 100")], replaced].concat(),
    )
}

/// Tells both an SNS topic and a FIFO topic.
fn error_rule_to_sns() -> String {
    let targets = format!("noc:\n    sns: {{topic_arn: \"{TOPIC}\"}}\n  ordered:\n    sns: {{topic_arn: \"{FIFO_TOPIC}\"}}");
    error_rule(&[
        ("console:\n    stdout: {}", &targets),
        ("targets: [console]", "targets: [noc, ordered]"),
    ])
}

/// Twenty minutes of attempts on a TV and on the web, forty viewers a minute each. From minute 8 to
/// minute 12, three in ten of those on a TV end with a fatal error.
pub fn outage() -> String {
    outage_after(0)
}

/// The same, so many minutes later.
pub fn outage_after(minutes: i64) -> String {
    attempts(minutes, 8..13)
}

/// The same with other minutes of failures.
pub fn outage_in(failing: std::ops::Range<i64>) -> String {
    attempts(0, failing)
}

fn attempts(later_minutes: i64, failing: std::ops::Range<i64>) -> String {
    let mut text = String::new();
    for minute in 0..20 {
        for (app, device) in [("Example TV", "tv"), ("Example Web", "desktop")] {
            for viewer in 0..40 {
                let fails = device == "tv" && failing.contains(&minute) && viewer % 10 < 3;
                attempt(&mut text, app, device, later_minutes + minute, viewer, fails);
            }
        }
    }
    text
}

pub fn attempt(text: &mut String, app: &str, device: &str, minute: i64, viewer: i64, fails: bool) {
    let start_ms = NOON_MS + minute * MINUTE_MS + viewer * 500;
    let user = format!("{device}-{minute}-{viewer}");
    let mut event = |kind: &str, after_ms: i64| {
        let event = json!({
            "MetricType": kind, "at": 0, "user_id": user, "video_id": "film", "playlist_type": "VOD", "app_name": app, "app_version": "5.2.0",
            "device_type": device, "message": "Error", "time_millisecond": 800, "TimeStamp": start_ms + after_ms,
        });
        text.push_str(&format!("{event}\n"));
    };
    event("PLAY", 0);
    if fails {
        event("ERROR", 2_000);
    } else {
        event("FIRSTFRAME", 800);
        event("STOP", 20_000);
    }
}

// ---- runs ----

/// A bench with rules of its own.
struct Watched {
    bench: Bench,
}

impl Watched {
    fn new(rules: &[(&str, String)]) -> Watched {
        let bench = Bench::new();
        for (name, text) in rules {
            bench.write(&format!("rules/{name}"), text);
        }
        Watched { bench }
    }

    /// Ingests with these further settings; SNS credentials are those of nobody.
    #[track_caller]
    fn ingest(&self, files: &[&Path], settings: &str) -> Output {
        let text = format!("alerts: {{folder: {}{}\n", self.bench.path("rules").display(), settings);
        let settings = self.bench.write("playhead.yaml", text);
        let mut command = self.bench.command(&["ingest"]);
        command.arg("--settings").arg(settings).args(files);
        command
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "example")
            .env("AWS_REGION", "eu-west-1");
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        let output = command.output().expect("the binary starts");
        assert!(
            output.status.success(),
            "ingest failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// What was recorded: rule, status and dimensions in the order of window ends.
    fn transitions(&self) -> Vec<Value> {
        let rows = self
            .bench
            .sql("SELECT message FROM ops.alert_events WHERE kind = 'transition' ORDER BY window_end, event_id");
        let text = |row: &Value| row["message"].as_str().expect("a transition has its message").to_string();
        rows.iter()
            .map(|row| serde_json::from_str(&text(row)).expect("a message is JSON"))
            .collect()
    }

    fn told(&self) -> Vec<Value> {
        self.transitions()
            .into_iter()
            .filter(|event| event["status"] == "firing" || event["status"] == "resolved")
            .collect()
    }
}

/// The lines that alerts wrote.
fn alert_lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter(|line| line.starts_with("FIRING ") || line.starts_with("RESOLVED "))
        .map(str::to_string)
        .collect()
}

// ---- what fires ----

#[test]
fn an_outage_on_one_kind_of_device_fires_and_resolves() {
    let watched = Watched::new(&[("errors.yaml", error_rule(&[]))]);
    let file = watched.bench.write("outage.ndjson", outage());
    let output = watched.ingest(&[&file], "}");

    let told = watched.told();
    let dims = json!({"app_name": "Example TV", "device_type": "tv"});
    let seen: Vec<(&Value, &Value)> = told.iter().map(|event| (&event["status"], &event["dims"])).collect();
    assert_eq!(seen, [(&json!("firing"), &dims), (&json!("resolved"), &dims)]);
    let [firing, resolved] = &told[..] else {
        unreachable!("two were seen")
    };
    assert_eq!(firing["episode_id"], resolved["episode_id"]);
    // Windows of five minutes: the share clears 5 % with its margin two minutes into the outage, and
    // the alert says so after `for: 2m`.
    assert_eq!(firing["window"]["end"], "2026-01-14T12:12:00Z");
    assert_eq!(firing["samples"], 200);
    assert_eq!(firing["value"].as_f64(), Some(0.24), "{firing}");
    assert!(firing["starts_at"].as_str() < firing["window"]["end"].as_str());

    let lines = alert_lines(&output);
    assert_eq!(lines.len(), 2, "one line for each that is told: {lines:?}");
    assert!(
        lines[0].starts_with("FIRING critical PlaybackErrorShare device_type=tv app_name=Example TV: 24 % of 200 clients"),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].starts_with("RESOLVED critical PlaybackErrorShare device_type=tv app_name=Example TV: "),
        "{}",
        lines[1]
    );

    // The same input again is no news.
    let again = watched.ingest(&[&file], "}");
    assert_eq!(alert_lines(&again), Vec::<String>::new());
    assert_eq!(watched.told().len(), 2);
}

#[test]
fn an_alert_that_is_to_be_explained_names_the_dimension_that_its_rule_does_not_group_by() {
    let explained = [
        ("group_by: [device_type, app_name]", "group_by: [app_name]"),
        ("explain: {dims: [app_version]}", "explain: {dims: [app_name, device_type]}"),
    ];
    // One app on both devices, so that the device is what explains it.
    let watched = Watched::new(&[("errors.yaml", error_rule(&explained).replace("on {{ device_type }} ", ""))]);
    let file = watched.bench.write("outage.ndjson", outage().replace("Example Web", "Example TV"));
    let output = watched.ingest(&[&file], "}");
    let told = watched.told();
    let firing = told.iter().find(|event| event["status"] == "firing").expect("it fires");
    assert_eq!(firing["cause_answer"], "found", "{firing}");
    assert_eq!(firing["cause"][0]["dims"], json!({"device_type": "tv"}), "{firing}");
    assert!(firing["cause"][0]["share"].as_f64().is_some_and(|share| share > 0.9), "{firing}");
    let lines = alert_lines(&output);
    assert!(lines[0].contains("; device_type=tv explains "), "{}", lines[0]);

    let causes = || {
        let rows = watched.bench.sql(
            "SELECT event_id, answer, rank, cause, dims, explains > 0.9 AS explains_it, value > baseline AS is_worse, samples > 0 AS rests \
             FROM ops.alert_causes",
        );
        serde_json::to_value(rows).expect("rows are JSON")
    };
    let expected = json!([{
        "event_id": firing["event_id"], "answer": "found", "rank": 1, "cause": "device_type=tv", "dims": "{\"device_type\":\"tv\"}",
        "explains_it": true, "is_worse": true, "rests": true,
    }]);
    assert_eq!(causes(), expected);
    // As after a kill between the two tables: the next start makes it good, once.
    std::fs::remove_dir_all(watched.bench.lake().join("ops/alert_causes")).expect("the table is a folder");
    for _ in 0..2 {
        watched.ingest(&[&file], "}");
        assert_eq!(causes(), expected);
    }
}

#[test]
fn a_simulated_isp_incident_names_that_isp_and_no_other() {
    // Numbers for a small audience; a country of the simulation has two ISPs at the most.
    let replaced = [
        ("min_samples: 1000", "min_samples: 25"),
        ("min_peers: 3", "min_peers: 1"),
        ("window: 15m", "window: 5m"),
        ("for: 15m", "for: 2m"),
    ];
    let watched = Watched::new(&[("isp.yaml", shipped("isp_rebuffering.yaml", &replaced))]);
    let folder = simulate(
        &watched.bench,
        &["--sessions", "1000", "--seed", "7", "--minutes", "40", "--incident"],
    );
    watched.ingest(&[&folder.join("player.ndjson")], "}");

    let truth = std::fs::read_to_string(folder.join("truth.json")).expect("the truth is written");
    let truth: Value = serde_json::from_str(&truth).expect("the truth is JSON");
    assert_eq!(
        truth["incidents"][0]["segment"],
        json!([["isp", "Musterkabel"]]),
        "the plan of the simulation"
    );
    let told = watched.told();
    let isps: BTreeSet<&str> = told.iter().filter_map(|event| event["dims"]["isp"].as_str()).collect();
    assert_eq!(isps, BTreeSet::from(["Musterkabel"]));
    let firing = told.iter().find(|event| event["status"] == "firing").expect("it fires");
    let end = firing["window"]["end"].as_str().expect("a window has an end");
    // The incident lasts from minute 13 1/3 to minute 26 2/3.
    assert!(("2026-01-01T00:14:00Z".."2026-01-01T00:27:00Z").contains(&end), "{end}");
    let (value, peers) = (
        firing["value"].as_f64().unwrap_or(0.0),
        firing["baseline"]["value"].as_f64().unwrap_or(1.0),
    );
    assert!(value > 0.01 && value > peers * 1.5, "{firing}");
    assert_eq!(told.last().map(|event| &event["status"]), Some(&json!("resolved")));
}

#[test]
fn a_first_byte_fifteen_percent_over_the_usual_fires_and_five_percent_does_not() {
    let replaced = [
        ("group_by: [cdn, country]", "group_by: [cdn, pop, country]"),
        ("min_samples: 5000", "min_samples: 50"),
    ];
    let watched = Watched::new(&[("cdn.yaml", shipped("cdn_latency.yaml", &replaced))]);
    let mut text = "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status \
                    x-edge-result-type x-edge-request-id time-taken time-to-first-byte\n"
        .to_string();
    for day in 10..=14 {
        for minute in 0..16 {
            let slow = day == 14 && minute < 8;
            // Both differences pass the floor of 20 ms; only the first passes 10 %.
            for (pop, usual_ms, slow_ms) in [("FRA", 200, 230), ("GRU", 600, 630)] {
                let ttfb_ms = if slow { slow_ms } else { usual_ms };
                for number in 0..12 {
                    text.push_str(&format!(
                        "2026-01-{day}\t12:{minute:02}:{:02}\t{pop}50-P1\t1000\t198.51.100.7\tGET\tcdn.example.com\t/hls/film/720p.ts\t200\t\
                         Hit\t{pop}-{day}-{minute}-{number}\t1.0\t{:.3}\n",
                        number * 5,
                        f64::from(ttfb_ms) / 1000.0,
                    ));
                }
            }
        }
    }
    let file = watched.bench.write("cdn.tsv", text);
    watched.ingest(&[&file], "}");

    let told = watched.told();
    let seen: Vec<(&str, &str)> = told
        .iter()
        .map(|event| (event["status"].as_str().unwrap_or(""), event["dims"]["pop"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(seen, [("firing", "FRA"), ("resolved", "FRA")]);
    let firing = &told[0];
    assert_eq!(firing["window"]["start"].as_str().map(|start| &start[..10]), Some("2026-01-14"));
    assert_eq!(firing["value"].as_f64(), Some(230.0), "{firing}");
    assert_eq!(firing["baseline"]["value"].as_f64(), Some(200.0), "{firing}");
    assert!(
        (firing["ratio_to_baseline"].as_f64().unwrap_or(0.0) - 0.15).abs() < 1e-9,
        "{firing}"
    );
}

#[test]
fn shipped_rules_are_in_order_and_healthy_traffic_fires_nothing() {
    let shipped_rules = ["cdn_latency.yaml", "isp_rebuffering.yaml", "playback_errors.yaml"];
    let watched = Watched::new(&shipped_rules.map(|name| (name, shipped(name, &[]))));
    let text = format!("alerts: {{folder: {}}}\n", watched.bench.path("rules").display());
    let settings = watched.bench.write("check.yaml", text);
    let mut command = watched.bench.command(&["check"]);
    let output = command.arg("--settings").arg(settings).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    // A fourth that a small audience can trip as well, with the shipped margin for chance.
    let renamed = [
        ("alert: PlaybackErrorShare", "alert: SmallErrorShare"),
        ("uid: playback-error-share", "uid: small-error-share"),
        ("min_samples: 100", "min_samples: 20"),
    ];
    watched.bench.write("rules/small.yaml", error_rule(&renamed));
    let folder = simulate(&watched.bench, &["--sessions", "600", "--seed", "11", "--minutes", "30"]);
    let output = watched.ingest(&[&folder], "}");
    assert_eq!(alert_lines(&output), Vec::<String>::new());
    assert_eq!(watched.told(), Vec::<Value>::new());
    assert!(
        watched.bench.int("SELECT max(clients) FROM gold.errors_1m") > 0,
        "there was traffic to judge"
    );
}

#[test]
fn a_broken_rule_is_refused_with_its_place_and_nothing_is_ingested() {
    let watched = Watched::new(&[("errors.yaml", error_rule(&[("den: clients}", "den: cliants}")]))]);
    let line = error_rule(&[])
        .lines()
        .position(|line| line.contains("den: clients"))
        .expect("the rule has a denominator")
        + 1;
    let text = format!("alerts: {{folder: {}}}\n", watched.bench.path("rules").display());
    let settings = watched.bench.write("playhead.yaml", text);
    let file = watched.bench.write("outage.ndjson", outage());
    for arguments in [vec!["check"], vec!["ingest", file.to_str().expect("a plain path")]] {
        let mut command = watched.bench.command(&arguments);
        let output = command.arg("--settings").arg(&settings).output().expect("the binary starts");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{complaint}");
        assert!(complaint.contains(&format!("errors.yaml:{line}:")), "{complaint}");
        assert!(
            complaint.contains("cliants") && complaint.contains("did you mean `clients`"),
            "{complaint}"
        );
    }
    assert!(!watched.bench.lake().join("bronze").exists());
}

#[test]
fn alerts_that_are_not_to_be_delivered_are_recorded_only() {
    let watched = Watched::new(&[("errors.yaml", error_rule(&[]))]);
    let file = watched.bench.write("outage.ndjson", outage());
    let output = watched.ingest(&[&file], ", deliver: false}");
    assert_eq!(alert_lines(&output), Vec::<String>::new());
    assert_eq!(watched.told().len(), 2);
    assert_eq!(
        watched.bench.int("SELECT count(*) FROM ops.alert_events WHERE kind = 'delivery'"),
        0
    );
}

// ---- SNS ----

#[test]
fn sns_is_told_each_transition_once_in_the_bytes_that_are_recorded() {
    let sns = FakeSns::start("127.0.0.1:0", 200);
    let watched = Watched::new(&[("errors.yaml", error_rule_to_sns())]);
    let file = watched.bench.write("outage.ndjson", outage());
    let output = watched.ingest(&[&file], &sns.settings());
    assert!(
        !String::from_utf8_lossy(&output.stdout).contains("wait in ops.alert_events"),
        "nothing waits"
    );

    let recorded = watched.bench.sql(
        "SELECT event_id, fingerprint, rule_uid, status, message FROM ops.alert_events \
         WHERE kind = 'transition' AND status IN ('firing', 'resolved') ORDER BY window_end",
    );
    assert_eq!(recorded.len(), 2);
    for topic in [TOPIC, FIFO_TOPIC] {
        let published = sns.published_to(topic);
        let bodies: Vec<&str> = published.iter().map(|request| request["Message"].as_str()).collect();
        let expected: Vec<&str> = recorded.iter().filter_map(|row| row["message"].as_str()).collect();
        assert_eq!(bodies, expected, "{topic}");
        for (request, row) in published.iter().zip(&recorded) {
            check_publish(request, row, topic);
        }
    }

    // Another run sends nothing again.
    watched.ingest(&[&file], &sns.settings());
    assert_eq!(sns.requests().len(), 4);
    let deliveries = watched
        .bench
        .sql("SELECT target, count(*) AS times FROM ops.alert_events WHERE kind = 'delivery' GROUP BY 1 ORDER BY 1");
    assert_eq!(
        deliveries,
        [json!({"target": "noc", "times": 2}), json!({"target": "ordered", "times": 2})]
    );
}

#[track_caller]
fn check_publish(request: &Request, row: &Value, topic: &str) {
    let is_fifo = topic.ends_with(".fifo");
    assert_eq!(request["Action"], "Publish");
    let body: Value = serde_json::from_str(&request["Message"]).expect("the message is JSON");
    assert_eq!(body["schema"], "playhead.alert/1");
    assert_eq!(body["event_id"], row["event_id"]);
    assert_eq!(body["status"], row["status"]);
    assert_eq!(body["rule"]["uid"], "playback-error-share");
    assert_eq!(body["dims"], json!({"app_name": "Example TV", "device_type": "tv"}));
    assert_eq!(body["threshold"], json!({"test": "value", "op": ">", "value": 0.05}));
    assert_eq!(body["samples"], 200);
    assert!(body["value"].as_f64().is_some_and(|value| (0.0..0.3).contains(&value)), "{body}");
    assert!(body["expires_at"].as_str() > body["evaluated_at"].as_str(), "{body}");
    assert_eq!(body["lineage"][0]["table"], "gold.errors_1m");

    let text = |name: &str| row[name].as_str().unwrap_or_default().to_string();
    let attributes = BTreeMap::from([
        ("env".to_string(), "default".to_string()),
        ("event_id".to_string(), text("event_id")),
        ("fingerprint".to_string(), text("fingerprint")),
        ("rule_uid".to_string(), text("rule_uid")),
        ("schema".to_string(), "playhead.alert/1".to_string()),
        ("severity".to_string(), "critical".to_string()),
        ("stale".to_string(), "true".to_string()),
        ("status".to_string(), text("status")),
    ]);
    assert_eq!(attributes_of(request), attributes);
    let subject = format!("{} critical PlaybackErrorShare", text("status").to_uppercase());
    assert_eq!(
        request.get("Subject"),
        (!is_fifo).then_some(&subject),
        "a FIFO topic refuses a subject beside JSON"
    );
    assert_eq!(request.get("MessageGroupId"), is_fifo.then_some(&text("fingerprint")));
    assert_eq!(request.get("MessageDeduplicationId"), is_fifo.then_some(&text("event_id")));
}

#[test]
fn a_target_that_is_away_is_told_later_once_and_the_same() {
    let watched = Watched::new(&[("errors.yaml", error_rule_to_sns())]);
    let file = watched.bench.write("outage.ndjson", outage());
    // Nobody listens at a port that was just given back.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port can be had");
    let output = watched.ingest(&[&file], &settings_for(&nobody.to_string()));
    let summary = String::from_utf8_lossy(&output.stdout);
    assert!(summary.contains("4 alert messages wait in ops.alert_events"), "{summary}");
    let recorded = recorded_messages(&watched.bench);
    assert_eq!(recorded.len(), 2);

    let broken = FakeSns::start("127.0.0.1:0", 500);
    let output = watched.ingest(&[&file], &broken.settings());
    assert!(!broken.requests().is_empty(), "it was tried");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("4 alert messages wait in ops.alert_events"),
        "a refusal is no delivery"
    );

    let sns = FakeSns::start("127.0.0.1:0", 200);
    watched.ingest(&[&file], &sns.settings());
    assert_eq!(recorded_messages(&watched.bench), recorded, "what waits is not written anew");
    for topic in [TOPIC, FIFO_TOPIC] {
        let bodies: Vec<String> = sns.published_to(topic).iter().map(|request| request["Message"].clone()).collect();
        assert_eq!(bodies, recorded, "{topic}");
    }
    watched.ingest(&[&file], &sns.settings());
    assert_eq!(sns.requests().len(), 4, "once delivered, it is not sent again");
}

fn recorded_messages(bench: &Bench) -> Vec<String> {
    let rows = bench
        .sql("SELECT message FROM ops.alert_events WHERE kind = 'transition' AND status IN ('firing', 'resolved') ORDER BY window_end");
    rows.iter().filter_map(|row| row["message"].as_str().map(str::to_string)).collect()
}

fn settings_for(address: &str) -> String {
    format!("}}\nsns: {{endpoint_url: \"http://{address}\"}}")
}

/// The fields of a form-encoded request.
pub type Request = BTreeMap<String, String>;

/// Takes publish requests and answers as SNS does.
pub struct FakeSns {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeSns {
    pub fn start(address: &str, status: u16) -> FakeSns {
        let listener = TcpListener::bind(address).expect("a port can be had");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (taken, stop) = (Arc::clone(&requests), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                // A connection that breaks is the sender's affair.
                if let Ok(Some(request)) = stream.and_then(|stream| answer(stream, status)) {
                    taken.lock().expect("no test thread panics with it").push(request);
                }
            }
        });
        FakeSns {
            address,
            requests,
            stopped,
            thread: Some(thread),
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn settings(&self) -> String {
        settings_for(&self.address)
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no test thread panics with it").clone()
    }

    pub fn published_to(&self, topic: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request["TopicArn"] == topic).collect()
    }
}

impl Drop for FakeSns {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread, which waits for a connection.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads one request and answers it; `None` if the connection was closed without one.
fn answer(stream: TcpStream, status: u16) -> std::io::Result<Option<Request>> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = form(&String::from_utf8_lossy(&body));
    let text = match status {
        200 if request.get("Action").is_some_and(|action| action == "PublishBatch") => &batch_answer(&request),
        200 => {
            "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult>\
                <MessageId>94f20ce6-13c5-43a0-9a9e-ca52d816e90b</MessageId></PublishResult>\
                <ResponseMetadata><RequestId>f187a3c1</RequestId></ResponseMetadata></PublishResponse>"
        }
        _ => "<ErrorResponse><Error><Type>Receiver</Type><Code>InternalFailure</Code><Message>away</Message></Error></ErrorResponse>",
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: text/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    let mut stream = stream;
    stream.write_all(head.as_bytes())?;
    stream.write_all(text.as_bytes())?;
    Ok(Some(request))
}

/// Every entry was taken.
fn batch_answer(request: &Request) -> String {
    let taken = batch_ids(request).map(|(_, id)| format!("<member><Id>{id}</Id><MessageId>m-{id}</MessageId></member>"));
    let taken: String = taken.collect();
    format!(
        "<PublishBatchResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishBatchResult><Failed/>\
         <Successful>{taken}</Successful></PublishBatchResult></PublishBatchResponse>"
    )
}

/// The entries of a batch: prefix of their fields, and id.
fn batch_ids(request: &Request) -> impl Iterator<Item = (String, &String)> {
    let prefixes = (1..=10).map(|number| format!("PublishBatchRequestEntries.member.{number}"));
    prefixes.filter_map(|prefix| request.get(&format!("{prefix}.Id")).map(|id| (prefix, id)))
}

/// The first attribute and the message of each entry of a batch.
pub fn batch_entries(request: &Request) -> Vec<(String, String)> {
    let entry = |(prefix, _): (String, &String)| {
        let attribute = request[&format!("{prefix}.MessageAttributes.entry.1.Value.StringValue")].clone();
        (attribute, request[&format!("{prefix}.Message")].clone())
    };
    batch_ids(request).map(entry).collect()
}

fn form(body: &str) -> Request {
    body.split('&')
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).expect("a form is UTF-8")
}

/// `MessageAttributes.entry.N.Name` and `.Value.StringValue`, by name.
fn attributes_of(request: &Request) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    for number in 1.. {
        let entry = format!("MessageAttributes.entry.{number}");
        let Some(name) = request.get(&format!("{entry}.Name")) else { break };
        assert_eq!(request[&format!("{entry}.Value.DataType")], "String");
        attributes.insert(name.clone(), request[&format!("{entry}.Value.StringValue")].clone());
    }
    attributes
}
