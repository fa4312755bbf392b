//! Alerts through the SNS of moto into the queues behind its topics, and kills in between.
//!
//! Skipped where moto cannot be started (`tests/services/service moto available` says how).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::alerts;
use crate::aws::{self, Received, Topic, socket_address};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::services;
use crate::support::Bench;

/// A lake with one rule that tells a standard topic and a FIFO topic.
fn bench(topics: [&Topic; 2]) -> Bench {
    let bench = aws::bench();
    let [noc, ordered] = topics.map(|topic| format!("sns: {{topic_arn: \"{}\"}}", topic.arn()));
    let targets = format!("noc:\n    {noc}\n  ordered:\n    {ordered}");
    let rule = alerts::shipped(
        "playback_errors.yaml",
        &[
            ("min_samples: 500", "min_samples: 100"),
            ("console:\n    stdout: {}", &targets),
            ("targets: [console]", "targets: [noc, ordered]"),
        ],
    );
    bench.write("rules/errors.yaml", rule);
    bench
}

fn settings(bench: &Bench, endpoint: &str) -> String {
    format!(
        "alerts: {{folder: {}}}\nsns: {{endpoint_url: \"{endpoint}\"}}\n",
        bench.path("rules").display()
    )
}

#[track_caller]
fn ingest(bench: &Bench, endpoint: &str, file: &Path) {
    bench.ingest_with(&settings(bench, endpoint), &[file]);
}

/// What is recorded to be sent, by id.
fn recorded(bench: &Bench) -> BTreeMap<String, Value> {
    let rows = bench.sql(
        "SELECT event_id, status, message FROM ops.alert_events \
         WHERE kind = 'transition' AND status IN ('firing', 'resolved') ORDER BY window_end",
    );
    let id = |row: &Value| row["event_id"].as_str().expect("a transition has an id").to_string();
    rows.iter().map(|row| (id(row), row.clone())).collect()
}

#[track_caller]
fn check(taken: &[Received], expected: &BTreeMap<String, Value>) {
    let ids: Vec<&String> = taken.iter().map(|received| &received.attributes["event_id"]).collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "none twice");
    assert_eq!(BTreeSet::from_iter(ids), expected.keys().collect(), "none lost");
    for received in taken {
        let row = &expected[&received.attributes["event_id"]];
        assert_eq!(row["message"], received.body.as_str(), "the bytes are those that are recorded");
        assert_eq!(received.attributes["status"], row["status"].as_str().unwrap_or_default());
    }
}

#[test]
fn a_queue_gets_what_its_filter_asks_for_and_an_outage_of_sns_loses_nothing() {
    let Some(service) = services::start("moto") else { return };
    let topics = ["noc", "noc.fifo"].map(|name| Topic::create(&service, name));
    let [all, firing] = [None, Some(json!({"status": ["firing"]}))].map(|filter| {
        let name = if filter.is_some() { "firing" } else { "all" };
        topics[0].queue(name, filter)
    });
    let ordered = topics[1].queue("ordered.fifo", None);
    let proxy = FaultProxy::start(socket_address(&service));
    let endpoint = format!("http://{}", proxy.address());
    let bench = bench([&topics[0], &topics[1]]);
    let file = bench.write("outage.ndjson", alerts::outage());
    proxy.set(Fault::Reset);
    ingest(&bench, &endpoint, &file);
    assert!(all.take_all().is_empty() && ordered.take_all().is_empty());
    proxy.set(Fault::Pass);
    ingest(&bench, &endpoint, &file);
    let expected = recorded(&bench);
    assert_eq!(expected.len(), 2);
    check(&all.take_all(), &expected);
    let in_order = ordered.take_all();
    check(&in_order, &expected);
    let statuses: Vec<&str> = in_order.iter().map(|received| received.attributes["status"].as_str()).collect();
    assert_eq!(statuses, ["firing", "resolved"]);
    let statuses: Vec<String> = firing
        .take_all()
        .iter()
        .map(|received| received.attributes["status"].clone())
        .collect();
    assert_eq!(statuses, ["firing"]);
    // Another run sends nothing again.
    ingest(&bench, &endpoint, &file);
    assert!(all.take_all().is_empty() && ordered.take_all().is_empty());
}
