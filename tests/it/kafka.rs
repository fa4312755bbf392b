//! Events from a real Kafka broker, through the daemon, to the tables that files would give.
//!
//! Skipped where no broker can be started (`tests/services/service kafka available` says how). How it
//! stands up to kills is in `kill_loops`.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::audience::{Audience, received, wait_for};
use crate::daemon::Daemon;
use crate::services::{self, Service};
use crate::support::Bench;

pub const PARTITIONS: u32 = 3;
pub const TOPIC: &str = "beacons";
/// How long the producer may take to hand everything over.
const FLUSH: Duration = Duration::from_secs(60);

/// Sends lines to the partitions by their session, in order.
pub fn send(broker: &Service, topic: &str, lines: &[String], partitions: u32) {
    Sender::to(broker).send(topic, lines, partitions);
}

/// A producer that stays: a new one takes half a second until its first record is there.
pub struct Sender(BaseProducer);

impl Sender {
    pub fn to(broker: &Service) -> Sender {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", broker.address())
            .set("enable.idempotence", "true")
            .create()
            .expect("a producer needs no broker to be made");
        Sender(producer)
    }

    /// Returns when the broker has them.
    pub fn send(&self, topic: &str, lines: &[String], partitions: u32) {
        for line in lines {
            let session = session_of(line);
            let partition = i32::try_from(number_of(&session) % u64::from(partitions)).expect("a few");
            let mut record = BaseRecord::to(topic).partition(partition).key(&session).payload(line);
            while let Err((_, returned)) = self.0.send(record) {
                self.0.poll(Duration::from_millis(50));
                record = returned;
            }
        }
        self.0.flush(FLUSH).expect("the broker takes everything");
    }
}

fn session_of(line: &str) -> String {
    let record: Value = serde_json::from_str(line).expect("the simulation writes JSON");
    let session = ["session_id", "user_id"].iter().find_map(|name| record[name].as_str());
    session.unwrap_or(line).to_string()
}

fn number_of(text: &str) -> u64 {
    text.bytes()
        .fold(7, |number, byte| number.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

/// Settings that read topics and set nothing else.
pub fn source(broker: &Service, topics: &str, group: &str) -> String {
    format!(
        "sources:\n  - name: beacons\n    kafka:\n      brokers: \"{}\"\n      topics: {topics}\n      group: {group}\n",
        broker.address()
    )
}

fn settings(broker: &Service, topics: &str, group: &str) -> String {
    let source = source(broker, topics, group);
    format!("{source}ingest: {{commit_every: 200ms, poll_every: 50ms, batch_records: 500}}\n")
}

fn event_id(row: &Value) -> String {
    row["event_id"].to_string()
}

/// An audience of so many sessions.
fn audience(sessions: u32) -> Audience {
    Audience::simulated(sessions, 5)
}

#[test]
fn a_topic_gives_the_tables_that_a_file_gives_and_the_tools_see_where_the_group_is() {
    let Some(broker) = services::start("kafka") else { return };
    let audience = audience(60);
    broker.create_topic(TOPIC, PARTITIONS, &[]);
    let half = audience.lines.len() / 2;
    send(&broker, TOPIC, &audience.lines[..half], PARTITIONS);
    let bench = Bench::new();
    let mut daemon = Daemon::start(&bench, &settings(&broker, "[beacons]", "g"));
    wait_for(&mut daemon, &bench, 1);
    send(&broker, TOPIC, &audience.lines[half..], PARTITIONS);
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
    let group = broker.kafka_tool("consumer.group.ConsumerGroupCommand", &["--describe", "--group", "g", "--offsets"]);
    let lags: Vec<&str> = group
        .lines()
        .filter(|line| line.contains(TOPIC))
        .filter_map(|line| line.split_whitespace().nth(5))
        .collect();
    assert_eq!(lags, ["0"; PARTITIONS as usize], "{group}");
}

#[test]
fn what_comes_beside_a_message_and_messages_that_hold_nothing_are_accounted_for() {
    let Some(broker) = services::start("kafka") else { return };
    broker.create_topic(TOPIC, 1, &[]);
    let audience = audience(5);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .create()
        .expect("a producer needs no broker to be made");
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(990_000));
    for (key, payload) in [
        ("a", Some(audience.lines[0].as_str())),
        ("b", None),
        ("c", Some("no json")),
        ("d", Some(long.as_str())),
    ] {
        let record = BaseRecord::to(TOPIC).key(key);
        let record = match payload {
            Some(payload) => record.payload(payload),
            None => record,
        };
        producer.send(record).map_err(|(error, _)| error).expect("four messages fit");
    }
    producer.flush(FLUSH).expect("the broker takes everything");
    let bench = Bench::new();
    let mut daemon = Daemon::start(&bench, &settings(&broker, "[\"^beac.*\"]", "g"));
    // Bronze is the last of the tables of an epoch that this needs.
    let rejected = |bench: &Bench| match bench.lake().join("silver/rejects").is_dir() && received(bench) > 0 {
        true => usize::try_from(bench.int("SELECT count(*) AS n FROM silver.rejects")).expect("a count"),
        false => 0,
    };
    daemon.wait_until("all four are accounted for", || received(&bench) + rejected(&bench) >= 4);
    assert!(daemon.stop().success());
    assert_eq!(received(&bench), 1);
    assert_eq!(
        bench.int("SELECT count(*) AS n FROM silver.rejects WHERE reason = 'tombstone'"),
        1,
        "a message without a value is no event, and is counted"
    );
}

#[test]
fn a_broker_that_dies_and_comes_back_and_a_topic_that_grows_cost_nothing() {
    let Some(broker) = services::start("kafka") else { return };
    let audience = audience(60);
    broker.create_topic(TOPIC, 1, &[]);
    let third = audience.lines.len() / 3;
    let bench = Bench::new();
    let mut quick = settings(&broker, "[beacons]", "g");
    quick = quick.replace(
        "      group: g\n",
        "      group: g\n      properties: {topic.metadata.refresh.interval.ms: \"1000\"}\n",
    );
    send(&broker, TOPIC, &audience.lines[..third], 1);
    let mut daemon = Daemon::start(&bench, &quick);
    wait_for(&mut daemon, &bench, 1);
    broker.kill_and_restart();
    send(&broker, TOPIC, &audience.lines[third..2 * third], 1);
    wait_for(&mut daemon, &bench, 2 * third);
    broker.add_partitions(TOPIC, PARTITIONS);
    send(&broker, TOPIC, &audience.lines[2 * third..], PARTITIONS);
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
}

#[test]
fn two_daemons_of_a_group_share_a_topic_and_hold_every_event_once_between_them() {
    let Some(broker) = services::start("kafka") else { return };
    let audience = audience(60);
    broker.create_topic(TOPIC, PARTITIONS, &[]);
    let (first, second) = (Bench::new(), Bench::new());
    let third = audience.lines.len() / 3;
    send(&broker, TOPIC, &audience.lines[..third], PARTITIONS);
    let mut one = Daemon::start(&first, &settings(&broker, "[beacons]", "g"));
    wait_for(&mut one, &first, third);
    let mut other = Daemon::start(&second, &settings(&broker, "[beacons]", "g"));
    send(&broker, TOPIC, &audience.lines[third..2 * third], PARTITIONS);
    let both = |rows: usize| received(&first) + received(&second) >= rows;
    other.wait_until("both have read two thirds", || both(2 * third));
    assert!(one.stop().success());
    send(&broker, TOPIC, &audience.lines[2 * third..], PARTITIONS);
    other.wait_until("the one that is left has read the rest", || both(audience.lines.len()));
    assert!(other.stop().success());
    let ids = |bench: &Bench| -> Vec<String> {
        let rows = bench.sql("SELECT event_id FROM bronze.player_events");
        rows.iter().map(event_id).collect()
    };
    let mut found = [ids(&first), ids(&second)].concat();
    found.sort();
    let events = audience.tables["bronze.player_events"].iter();
    let mut expected: Vec<String> = events
        .map(|row| event_id(&serde_json::from_str(row).expect("a row is JSON")))
        .collect();
    expected.sort();
    assert_eq!(found, expected, "every event is in one of the two lakes, once");
}
