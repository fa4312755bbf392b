//! Live figures from end to end: events in a folder, messages at SNS, down to zero when nobody watches any more.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::alerts::FakeSns;
use crate::aws::{self, Queue, Topic};
use crate::daemon::Daemon;
use crate::services;
use crate::support::Bench;

/// 2026-01-14T12:00:00Z.
const NOON_MS: i64 = 1_768_392_000_000;
const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:figures";

/// Five viewers start a film and three a show, all at one moment: no turn falls between them.
fn audience() -> String {
    let mut text = String::new();
    for (title, viewers) in [("film", 5), ("show", 3)] {
        for viewer in 0..viewers {
            for (kind, after_ms) in [("PLAY", 0), ("FIRSTFRAME", 500)] {
                let event = json!({
                    "MetricType": kind, "at": 0, "user_id": format!("{title}-{viewer}"), "video_id": title, "playlist_type": "VOD",
                    "app_name": "Example TV", "app_version": "5.2.0", "device_type": "tv", "message": "", "time_millisecond": 500,
                    "TimeStamp": NOON_MS + after_ms,
                });
                text.push_str(&format!("{event}\n"));
            }
        }
    }
    text
}

fn settings(bench: &Bench, endpoint: &str, entries: &str) -> String {
    format!(
        "sources: [{{path: {}}}]\ningest: {{poll_every: 100ms, commit_every: 200ms}}\nsns: {{endpoint_url: \"{endpoint}\"}}\npublish:\n{entries}",
        bench.path("incoming").display()
    )
}

/// What was told of each figure, in order, each value once in a row: `update_type` and title to values.
fn told(messages: &[(String, Value)]) -> BTreeMap<(String, String), Vec<u64>> {
    let mut told: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
    for (update_type, body) in messages {
        let title = body["VIDEOID"].as_str().unwrap_or_default().to_owned();
        let value = if title.is_empty() { &body["USER_COUNT"] } else { &body["VIEWS"] };
        let values = told.entry((update_type.clone(), title)).or_default();
        values.push(value.as_u64().expect("a figure is a whole number"));
        values.dedup();
    }
    told
}

fn expected() -> BTreeMap<(String, String), Vec<u64>> {
    let figure = |update_type: &str, title: &str, values: &[u64]| ((update_type.to_owned(), title.to_owned()), values.to_vec());
    BTreeMap::from([
        figure("active_users", "", &[8, 0]),
        figure("recent_views", "film", &[5, 0]),
        figure("recent_views", "show", &[3, 0]),
        figure("total_views", "film", &[5]),
        figure("total_views", "show", &[3]),
    ])
}

#[test]
fn figures_are_told_once_as_totals_and_decay_to_zero() {
    let sns = FakeSns::start("127.0.0.1:0", 200);
    let bench = aws::bench();
    bench.write("incoming/a.ndjson", audience());
    let entry = format!("  - {{topic_arn: \"{TOPIC}\", every: 1s, window: 10s}}\n");
    let mut daemon = Daemon::start(&bench, &settings(&bench, &sns.endpoint(), &entry));
    let messages = || {
        let requests = sns.published_to(TOPIC);
        let figures = requests.iter().flat_map(crate::alerts::batch_entries);
        figures
            .map(|entry| (entry.0, serde_json::from_str(&entry.1).expect("a figure is JSON")))
            .collect::<Vec<(String, Value)>>()
    };
    daemon.wait_until("the viewers are told and are gone", || told(&messages()) == expected());
    for (_, body) in messages() {
        for time in ["EVENT_TIME", "WINDOW_START", "WINDOW_END"] {
            let text = body[time].as_str().unwrap_or_default();
            assert!(text.starts_with("2026-01-1"), "{time}: {body}");
        }
    }
    assert!(daemon.stop().success());
}

#[test]
fn a_topic_that_is_away_stops_nothing_and_is_told_what_holds_when_it_is_back() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port can be had");
    let bench = aws::bench();
    bench.write("incoming/a.ndjson", audience());
    let entry = format!("  - {{topic_arn: \"{TOPIC}\", every: 1s, figures: [total_views]}}\n");
    let mut daemon = Daemon::start(&bench, &settings(&bench, &format!("http://{nobody}"), &entry));
    let log = daemon.own_log();
    daemon.wait_until("the trouble is in the log", || {
        log.text().contains("the next turn tells what holds then")
    });
    daemon.wait_until("events are stored all the same", || {
        bench.int("SELECT count(*) FROM silver.player_events") == 16
    });
    let sns = FakeSns::start(&nobody.to_string(), 200);
    let views = || {
        let requests = sns.published_to(TOPIC);
        let figures: Vec<_> = requests.iter().flat_map(crate::alerts::batch_entries).collect();
        figures
            .iter()
            .filter(|(_, body)| body.contains("\"VIDEOID\":\"film\"") && body.contains("\"VIEWS\":5"))
            .count()
    };
    daemon.wait_until("the film's plays are told", || views() > 0);
    assert!(daemon.stop().success());
}

#[test]
fn an_entry_that_is_wrong_is_refused_with_its_place() {
    let bench = Bench::new();
    let file = bench.write("p.yaml", "publish:\n  - {topic_arn: figures, every: 10ms}\n");
    let output = bench.run(&["check", "--settings", file.to_str().expect("a plain path")]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{text}");
    for part in [
        "p.yaml:2:17: publish[0].topic_arn",
        "p.yaml:2:33: publish[0].every",
        "write one from 1s to 10m",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

/// Messages that a queue has had so far, each with its `update_type`.
struct Taken<'q> {
    queue: &'q Queue,
    all: Vec<(String, Value)>,
}

impl Taken<'_> {
    fn told(&mut self) -> BTreeMap<(String, String), Vec<u64>> {
        for received in self.queue.take_all() {
            let body = serde_json::from_str(&received.body).expect("a figure is JSON");
            self.all.push((received.attributes["update_type"].clone(), body));
        }
        told(&self.all)
    }
}

#[test]
fn queues_behind_a_topic_get_the_figures_that_their_filter_asks_for() {
    let Some(service) = services::start("moto") else { return };
    let topics = ["figures", "figures.fifo"].map(|name| Topic::create(&service, name));
    let recent = topics[0].queue("recent", Some(json!({"update_type": ["recent_views"]})));
    let all = topics[1].queue("all.fifo", None);
    let bench = aws::bench();
    bench.write("incoming/a.ndjson", audience());
    let entry = |topic: &Topic| {
        format!(
            "  - {{name: e{}, topic_arn: \"{}\", every: 1s, window: 10s}}\n",
            topic.arn().len(),
            topic.arn()
        )
    };
    let endpoint = format!("http://{}", aws::socket_address(&service));
    let mut daemon = Daemon::start(&bench, &settings(&bench, &endpoint, &topics.each_ref().map(entry).concat()));
    let mut in_order = Taken {
        queue: &all,
        all: Vec::new(),
    };
    daemon.wait_until("the FIFO queue has every figure in order", || in_order.told() == expected());
    let mut filtered = Taken {
        queue: &recent,
        all: Vec::new(),
    };
    let mut only_recent = expected();
    only_recent.retain(|(update_type, _), _| update_type == "recent_views");
    daemon.wait_until("the other queue has the viewers of titles alone", || {
        let told = filtered.told();
        // A standard queue may swap neighbours: what was told counts, not when.
        told.keys().eq(only_recent.keys()) && told.values().all(|values| values.contains(&0) && values.len() >= 2)
    });
    assert!(daemon.stop().success());
}
