//! Silver in Kafka: every row of the closed minutes once, whatever was killed when.
//!
//! Skipped where no broker can be started (`tests/services/service kafka available` says how). The speed is printed and not
//! judged: `PLAYHEAD_RELAY=40000 cargo test --release --locked every_closed_row -- --nocapture` takes so many sessions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::killing::Kills;
use crate::services::{self, Service};
use crate::support::{Bench, simulate};

const PARTITIONS: u32 = 3;
/// Views with the time that they are published by and what tells their rows apart.
pub const VIEWS: [(&str, &str, &str, &str); 6] = [
    ("player_events", "silver.player_events", "event_ts", "event_id"),
    ("playback_intervals", "silver.playback_intervals", "interval_start", "session_id"),
    ("playback_sessions", "silver.playback_sessions", "started_at", "session_id"),
    ("ended_sessions", "silver.playback_sessions", "ended_at", "session_id"),
    ("failed_sessions", "silver.playback_sessions", "fatal_error_at", "session_id"),
    ("cdn_requests", "silver.cdn_requests", "event_ts", "event_id"),
];
/// The broker answers at once; nothing more is there after this.
const QUIET: Duration = Duration::from_secs(3);
/// Unless `PLAYHEAD_KILLS` says otherwise.
const KILLS: usize = 20;
/// Unless `PLAYHEAD_RELAY` says otherwise.
const SESSIONS: usize = 400;

#[allow(clippy::disallowed_methods)] // Tests have no settings; the variable is documented above.
fn sessions() -> usize {
    let wanted = std::env::var("PLAYHEAD_RELAY").ok();
    wanted.map_or(SESSIONS, |wanted| wanted.parse().expect("a whole number"))
}

fn bench(broker: &Service, sessions: usize) -> (Bench, String) {
    let bench = Bench::new();
    let sessions = sessions.to_string();
    let day = simulate(&bench, &["--seed", "3", "--sessions", &sessions, "--minutes", "30", "--incident"]);
    bench.ingest(&[&day.join("player.ndjson"), &day.join("cdn.tsv")]);
    let settings = settings(broker, &bench);
    (bench, settings)
}

/// Topics of silver under a name.
pub fn create_topics(broker: &Service, topics: &str, partitions: u32) {
    for (view, ..) in VIEWS {
        broker.create_topic(&format!("{topics}.silver.{view}"), partitions, &[]);
    }
}

/// Settings that publish for a cluster of so many subtasks.
pub fn relay_settings(broker: &Service, subtasks: u32) -> String {
    format!(
        "relay: {{brokers: \"{}\"}}\narroyo: {{parallelism: {subtasks}}}\n",
        broker.address()
    )
}

/// Makes the topics too.
fn settings(broker: &Service, bench: &Bench) -> String {
    create_topics(broker, "playhead", PARTITIONS);
    let settings = bench.write("relay.yaml", relay_settings(broker, PARTITIONS));
    settings.display().to_string()
}

/// Records of a topic that were committed: partition, key, minute, content.
pub fn published(broker: &Service, topic: &str) -> Vec<(i32, String, i64, Value)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("group.id", "check")
        .set("isolation.level", "read_committed")
        // Nothing is to be committed, and a poll that meets a commit's answer (each five seconds) gives no record.
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer needs no broker to be made");
    let mut all = TopicPartitionList::new();
    let metadata = consumer
        .fetch_metadata(Some(topic), Duration::from_secs(30))
        .expect("the broker answers");
    for partition in metadata.topics()[0].partitions() {
        let added = all.add_partition_offset(topic, partition.id(), Offset::Beginning);
        added.expect("the beginning is an offset");
    }
    consumer.assign(&all).expect("partitions that are there");
    let mut records = Vec::new();
    while let Some(record) = consumer.poll(QUIET) {
        let record = record.expect("the broker answers");
        let header = |name: &str| {
            let found = record
                .headers()
                .and_then(|headers| headers.iter().find(|header| header.key == name));
            String::from_utf8_lossy(found.and_then(|header| header.value).unwrap_or_default()).into_owned()
        };
        assert_eq!(header("schema"), "1");
        let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
        let content = serde_json::from_slice(record.payload().unwrap_or_default()).expect("JSON");
        records.push((record.partition(), key, header("minute").parse().expect("a number"), content));
    }
    records
}

/// Every row of the minutes that were published is there once, and a session keeps to its partition.
#[track_caller]
pub fn check(bench: &Bench, broker: &Service) {
    let mut partitions: BTreeMap<String, i32> = BTreeMap::new();
    for (view, table, time, id) in VIEWS {
        let records = published(broker, &format!("playhead.silver.{view}"));
        let Some(last) = records.iter().map(|record| record.2).max() else {
            assert_eq!(bench.int(&format!("SELECT count({time}) FROM {table}")), 0, "{view}");
            continue;
        };
        let before = (last + 1) * 60;
        let rows = bench.sql(&format!(
            "SELECT {id} AS id FROM {table} WHERE {time} < to_timestamp({before}) ORDER BY 1"
        ));
        let mut expected: Vec<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
        let mut found: Vec<&str> = records.iter().filter_map(|record| record.3[id].as_str()).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert!(
            !expected.is_empty() && expected == found,
            "{view}: {} rows, {} published",
            expected.len(),
            found.len()
        );
        for (partition, key, minute, content) in &records {
            assert!(!key.is_empty(), "{content}");
            let at = chrono::DateTime::parse_from_rfc3339(content[time].as_str().expect("a time")).expect("a time");
            assert_eq!(at.timestamp().div_euclid(60), *minute, "{content}");
            let kept = *partitions.entry(format!("{view} {key}")).or_insert(*partition);
            assert_eq!(kept, *partition, "{key} stays in one partition");
        }
    }
}

/// Rows that one transaction brought, where a line of the log tells them.
fn rows_told(line: &str) -> Option<usize> {
    let (_, rest) = line.split_once("published ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[test]
fn topics_with_more_partitions_than_arroyo_has_subtasks_are_refused() {
    let Some(broker) = services::start("kafka") else { return };
    let (bench, _) = bench(&broker, 20);
    let narrow = bench.write("narrow.yaml", relay_settings(&broker, 2));
    let output = bench.run(&["relay", "--once", "--settings", narrow.to_str().expect("a plain path")]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(
        told.contains("has 3 partitions and arroyo.parallelism is 2") && told.contains("set arroyo.parallelism to 3"),
        "{told}"
    );
    assert!(published(&broker, "playhead.silver.player_events").is_empty());
}

#[test]
fn every_closed_row_is_published_once() {
    let Some(broker) = services::start("kafka") else { return };
    let (bench, settings) = bench(&broker, sessions());
    for _ in 0..2 {
        let began = Instant::now();
        let output = bench.run(&["relay", "--once", "--settings", &settings]);
        let (log, seconds) = (String::from_utf8_lossy(&output.stderr), began.elapsed().as_secs_f64());
        assert!(output.status.success(), "{log}");
        let published: usize = log.lines().filter_map(rows_told).sum();
        println!("{published} rows in {seconds:.1} s: {:.0} a second", published as f64 / seconds);
        check(&bench, &broker);
    }
    // Who falls silent is known to have ended only later.
    let last = |view: &str| {
        let records = published(&broker, &format!("playhead.silver.{view}"));
        records.iter().map(|record| record.2).max().expect("rows were published")
    };
    assert!(last("ended_sessions") + 5 <= last("player_events"));
}

#[test]
fn a_month_without_rows_is_passed_over_at_once() {
    let Some(broker) = services::start("kafka") else { return };
    let bench = Bench::new();
    for (seed, start) in [("4", "1767225600"), ("5", "1769817600")] {
        let day = simulate(&bench, &["--seed", seed, "--sessions", "40", "--minutes", "5", "--start", start]);
        bench.ingest(&[&day.join("player.ndjson"), &day.join("cdn.tsv")]);
    }
    let output = bench.run(&["relay", "--once", "--settings", &settings(&broker, &bench)]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    check(&bench, &broker);
    // Ten minutes of rows at each end of the month, and the beginning, of each view: not a step for each ten minutes of it.
    let transactions = log.lines().filter_map(rows_told).count();
    assert!((2..10 * VIEWS.len()).contains(&transactions), "{transactions} transactions");
}

#[test]
fn killed_at_any_moment_no_row_is_lost_or_doubled() {
    let Some(broker) = services::start("kafka") else { return };
    let (bench, settings) = bench(&broker, SESSIONS);
    for kill in 0..Kills::from_environment(KILLS).count {
        let mut relay = bench
            .command(&["relay", "--settings", &settings])
            .spawn()
            .expect("the binary starts");
        // Not a wait for anything: where in its work the process is hit differs from kill to kill.
        std::thread::sleep(Duration::from_millis(150 + 97 * (kill as u64 % 20)));
        relay.kill().expect("it runs");
        relay.wait().expect("it has ended");
    }
    let output = bench.run(&["relay", "--once", "--settings", &settings]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check(&bench, &broker);
}

#[test]
fn without_brokers_nothing_is_published_and_the_setting_is_named() {
    let bench = Bench::new();
    bench.ingest(&[&crate::support::reference("")]);
    let output = bench.run(&["relay", "--once"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("relay.brokers is not set"));
    let settings = bench.write("keep.yaml", "relay: {brokers: \"127.0.0.1:9\"}\nprivacy: {identity: keep}\n");
    let output = bench.run(&["relay", "--once", "--settings", settings.to_str().expect("a plain path")]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no identity is published"));
}
