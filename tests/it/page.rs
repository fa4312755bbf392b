//! The page's routes on a real daemon over a simulated lake: what they answer equals `playhead sql`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::http_client::{Answer, request};
use crate::support::{Bench, simulate};

const LOOPBACK: &str = "http: {listen: \"127.0.0.1:0\"}\nalerts: {deliver: false}\n";
/// An answer of a stream comes at once; this only ends a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A lake of an audience of half an hour, and a daemon over it.
fn simulated(settings: &str) -> (Bench, Daemon, SocketAddr) {
    let bench = Bench::new();
    let folder = simulate(&bench, &["--sessions", "300", "--minutes", "30", "--seed", "4"]);
    bench.ingest(&[&folder.join("player.ndjson"), &folder.join("cdn.tsv")]);
    let (daemon, address) = started(&bench, settings);
    (bench, daemon, address)
}

fn started(bench: &Bench, settings: &str) -> (Daemon, SocketAddr) {
    let mut daemon = Daemon::start(bench, settings);
    let address = daemon.address();
    (daemon, SocketAddr::from(([127, 0, 0, 1], address.port())))
}

fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, &[], b"")
}

#[track_caller]
fn json_of(address: SocketAddr, target: &str) -> Value {
    let answer = get(address, target);
    assert_eq!(answer.status, 200, "{target}: {}", answer.body);
    answer.json()
}

/// Start and end of the data, as parameters of a question.
fn whole_range(address: SocketAddr) -> String {
    let state = json_of(address, "/api/incidents");
    let [from, to] = ["oldest_ms", "newest_ms"].map(|name| state[name].as_i64().expect("there is data"));
    format!("from={from}&to={}", to + 60_000)
}

/// A frame's columns as `playhead sql --json` gives rows, as far as panels have types for them.
#[track_caller]
fn check_frame(bench: &Bench, frame: &Value, about: &str) {
    let rows = bench.sql(frame["sql"].as_str().expect("a frame has its SQL"));
    assert_eq!(frame["rows"], rows.len(), "{about}");
    for column in frame["columns"].as_array().expect("a frame has columns") {
        let name = column["name"].as_str().expect("a column has a name");
        for (row, found) in column["values"].as_array().expect("a column has values").iter().enumerate() {
            let expected = rows[row].get(name).cloned().unwrap_or(Value::Null);
            let is_same = match (&column["type"], found, &expected) {
                (_, Value::Number(found), Value::Number(expected)) if column["type"] == "number" => found.as_f64() == expected.as_f64(),
                (kind, Value::Number(found), _) if kind == "time" => found.as_i64() == time_ms(&expected),
                _ => *found == expected,
            };
            assert!(is_same, "{about}: {name} of row {row} is {found}, SQL says {expected}");
        }
    }
}

fn time_ms(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => chrono::DateTime::parse_from_rfc3339(&format!("{}Z", text.trim_end_matches('Z')))
            .ok()
            .map(|at| at.timestamp_millis()),
        // Grafana's macros make seconds of it.
        number => number.as_f64().map(|seconds| (seconds * 1000.0) as i64),
    }
}

#[test]
fn every_panel_answers_what_its_sql_gives() {
    let (bench, _daemon, address) = simulated(LOOPBACK);
    let range = whole_range(address);
    let known = json_of(address, "/api/dashboards");
    assert_eq!(known["complaints"], json!([]));
    let dashboards = known["dashboards"].as_array().unwrap();
    assert_eq!(dashboards[0]["uid"], "playhead-noc", "the overview comes first");
    let mut with_values = 0;
    for dashboard in dashboards {
        let uid = dashboard["uid"].as_str().unwrap();
        let panels = json_of(address, &format!("/api/dashboards/{uid}"))["panels"]
            .as_array()
            .unwrap()
            .clone();
        for panel in panels.iter().filter(|panel| panel["kind"] != "row" && panel["kind"] != "text") {
            let about = format!("{uid}, panel {} ({})", panel["id"], panel["title"]);
            let answer = json_of(address, &format!("/api/panel?dashboard={uid}&panel={}&{range}", panel["id"]));
            assert_eq!(
                answer["frames"].as_array().unwrap().len(),
                panel["targets"].as_array().unwrap().len(),
                "{about}"
            );
            // One dashboard to the last digit; each question to `playhead sql` starts a process.
            if uid == "playhead-noc" {
                answer["frames"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .for_each(|frame| check_frame(&bench, frame, &about));
            }
            with_values += usize::from(answer["rows"].as_i64() > Some(0));
        }
    }
    assert!(with_values > 10, "only {with_values} panels have rows");
}

#[test]
fn a_choice_filters_and_a_hostile_one_stays_a_value() {
    let (bench, _daemon, address) = simulated(LOOPBACK);
    let range = whole_range(address);
    let panel = |choice: &str| {
        json_of(
            address,
            &format!("/api/panel?dashboard=playhead-noc&panel=5&{range}&var-country={choice}"),
        )
    };
    let country = bench.value("SELECT min(country) FROM gold.playback_1m WHERE country <> ''");
    let country = country.as_str().expect("the audience has countries");
    let choices = json_of(address, &format!("/api/variables?dashboard=playhead-noc&{range}"));
    let variable = choices["variables"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "country")
        .unwrap();
    assert!(
        variable["options"].as_array().unwrap().iter().any(|one| one["value"] == country),
        "{variable}"
    );
    let [all, some, none] = ["$__all", country, "x%27%20OR%20%271%27%3D%271"].map(panel);
    check_frame(&bench, &some["frames"][0], country);
    assert_ne!(all["frames"][0]["columns"], some["frames"][0]["columns"]);
    let sql = none["frames"][0]["sql"].as_str().unwrap();
    assert!(sql.contains("'x'' OR ''1''=''1'"), "{sql}");
    let shown = none["frames"][0]["columns"].as_array().unwrap().iter();
    let mut shown = shown.flat_map(|column| column["values"].as_array().unwrap());
    assert!(shown.all(|value| value.is_null() || value == 0), "{none}");
}

#[test]
fn what_cannot_be_answered_says_why() {
    let (_bench, _daemon, address) = simulated(LOOPBACK);
    for (target, status, word) in [
        ("/api/dashboards/nowhere", 404, "there is no dashboard"),
        ("/api/panel?dashboard=playhead-noc", 400, "say which panel"),
        ("/api/panel?dashboard=playhead-noc&panel=99999", 404, "has no panel 99999"),
        ("/api/panel?dashboard=playhead-noc&panel=x", 400, "whole number"),
        ("/api/panel?dashboard=playhead-noc&panel=1&from=yesterday", 400, "write now, now-6h"),
        (
            "/api/panel?dashboard=playhead-noc&panel=1&from=now&to=now-1h",
            400,
            "its end must lie behind",
        ),
    ] {
        let answer = get(address, target);
        assert_eq!(answer.status, status, "{target}: {}", answer.body);
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains(word), "{target}: {error}");
    }
}

#[test]
fn the_page_loads_from_here_alone_and_its_files_are_kept() {
    let bench = Bench::new();
    let (_daemon, address) = started(&bench, LOOPBACK);
    for target in ["/", "/d/playhead-noc", "/d/playhead-noc/some-slug", "/session/abc"] {
        let index = get(address, target);
        assert_eq!(
            (index.status, index.header("content-type")),
            (200, Some("text/html; charset=utf-8")),
            "{target}"
        );
        assert!(index.header("content-security-policy").unwrap().starts_with("default-src 'self'"));
        assert_eq!(index.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(index.header("access-control-allow-origin"), None);
    }
    let index = get(address, "/").body;
    let named: Vec<&str> = index.split('"').filter(|text| text.starts_with("/assets/")).collect();
    assert!(named.len() >= 5, "{index}");
    for target in named {
        let asset = request(address, "GET", target, &[("accept-encoding", "gzip")], b"");
        assert_eq!((asset.status, asset.header("content-encoding")), (200, Some("gzip")), "{target}");
        assert!(asset.header("cache-control").unwrap().contains("immutable"), "{target}");
    }
    assert_eq!(get(address, "/assets/x/../../etc/passwd").status, 404);
}

#[test]
fn an_empty_lake_is_no_error() {
    let bench = Bench::new();
    let (_daemon, address) = started(&bench, LOOPBACK);
    let state = json_of(address, "/api/incidents");
    assert_eq!((&state["newest_ms"], &state["incidents"]), (&Value::Null, &json!([])));
    let panel = json_of(address, "/api/panel?dashboard=playhead-noc&panel=1");
    assert_eq!(panel["is_cut"], false);
    let live = json_of(address, "/v1/live");
    assert_eq!((&live["concurrent_viewers"], &live["minute"]), (&json!(0), &Value::Null));
    assert_eq!(json_of(address, "/api/session/nobody")["sessions"], json!([]));
}

#[test]
fn a_session_is_what_the_command_prints() {
    let (bench, _daemon, address) = simulated(LOOPBACK);
    let id = bench.value("SELECT min(session_id) FROM silver.playback_sessions");
    let id = id.as_str().unwrap();
    let printed = bench.run(&["session", id, "--json"]);
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let shown = json_of(address, &format!("/api/session/{id}"));
    for part in ["sessions", "intervals", "events"] {
        assert_eq!(shown[part], printed[part], "{part}");
    }
    let hostile = json_of(address, "/api/session/x%27%20OR%20%271%27%3D%271");
    assert_eq!(hostile["sessions"], json!([]));
}

/// One request with exactly these head lines.
fn raw(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{head}\r\n\r\n").unwrap();
    stream
}

fn read_until(stream: &mut TcpStream, word: &str) -> String {
    let (mut text, mut part) = (String::new(), [0; 4096]);
    while !text.contains(word) {
        let count = stream.read(&mut part).expect("something comes");
        assert!(count > 0, "it ended before {word:?}: {text}");
        text.push_str(&String::from_utf8_lossy(&part[..count]));
    }
    text
}

#[test]
fn a_page_of_another_name_gets_nothing() {
    let bench = Bench::new();
    let (_daemon, address) = started(&bench, LOOPBACK);
    for (host, status) in [("evil.example", "403"), ("localhost:1", "200")] {
        let mut stream = raw(
            address,
            &format!("GET /api/dashboards HTTP/1.1\r\nhost: {host}\r\nconnection: close"),
        );
        let answer = read_until(&mut stream, "\r\n\r\n");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
}

#[test]
fn another_address_than_loopback_asks_for_a_secret_and_health_does_not() {
    let mut bench = Bench::new();
    bench.set_variable("PAGE_PASSWORD", "open sesame");
    let everywhere = "http: {listen: \"0.0.0.0:0\"}\n";
    let (daemon, address) = started(&bench, everywhere);
    let answer = get(address, "/");
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("set page.password"), "{}", answer.body);
    assert_eq!((get(address, "/healthz").status, get(address, "/v1/live").status), (200, 403));
    daemon.stop();
    let (_daemon, address) = started(&bench, &format!("{everywhere}page: {{password: \"${{PAGE_PASSWORD}}\"}}\n"));
    let answer = get(address, "/api/dashboards");
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").unwrap().starts_with("Basic"));
    // anybody:open sesame
    let secret = ("authorization", "Basic YW55Ym9keTpvcGVuIHNlc2FtZQ==");
    assert_eq!(request(address, "GET", "/api/dashboards", &[secret], b"").status, 200);
    assert_eq!(
        request(address, "GET", "/", &[("authorization", "Basic YW55Ym9keTp4")], b"").status,
        401
    );
}

#[test]
fn a_stream_says_how_things_stand_and_does_not_hold_the_daemon_up() {
    let (_bench, daemon, address) = simulated(LOOPBACK);
    let host = format!("host: {address}");
    let mut stream = raw(address, &format!("GET /api/stream HTTP/1.1\r\n{host}"));
    let text = read_until(&mut stream, "\"revision\"");
    assert!(
        text.contains("content-type: text/event-stream") && text.contains("event: state\ndata: {"),
        "{text}"
    );
    let mut live = raw(address, &format!("GET /v1/live/stream HTTP/1.1\r\n{host}"));
    assert!(read_until(&mut live, "concurrent_viewers").contains("event: live\n"));
    assert!(daemon.stop().success());
}

#[test]
fn live_figures_are_those_of_the_newest_complete_minute() {
    let settings = format!("{LOOPBACK}page: {{live: {{origins: [\"https://app.example\"], min_viewers: 2, top: 3}}}}\n");
    let (bench, _daemon, address) = simulated(&settings);
    let newest = "(SELECT max(window_start) - interval '1 minute' FROM gold.concurrency_1m)";
    let rows = bench.sql(&format!(
        "SELECT content_id, round(sum(active_ms) / 60000.0) AS viewers FROM gold.audience_1m WHERE window_start = {newest} \
         GROUP BY content_id HAVING round(sum(active_ms) / 60000.0) >= 2 ORDER BY sum(active_ms) DESC, content_id LIMIT 3"
    ));
    let all = bench.value(&format!(
        "SELECT round(sum(active_ms) / 60000.0) FROM gold.audience_1m WHERE window_start = {newest}"
    ));
    let answer = get(address, "/v1/live");
    let live = answer.json();
    assert_eq!(live["concurrent_viewers"].as_f64(), all.as_f64());
    let named: Vec<(String, Option<f64>)> = live["most_watched"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["content_id"].to_string(), one["viewers"].as_f64()))
        .collect();
    let expected: Vec<(String, Option<f64>)> = rows
        .iter()
        .map(|row| (row["content_id"].to_string(), row["viewers"].as_f64()))
        .collect();
    assert_eq!(named, expected);
    let etag = answer.header("etag").unwrap();
    assert_eq!(request(address, "GET", "/v1/live", &[("if-none-match", etag)], b"").status, 304);
    let from = |origin| request(address, "GET", "/v1/live", &[("origin", origin)], b"");
    assert_eq!(
        from("https://app.example").header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(from("https://evil.example").header("access-control-allow-origin"), None);
    let one = json_of(address, "/v1/live?content=nobody-watches-this");
    assert_eq!(one["viewers"], Value::Null);
}
