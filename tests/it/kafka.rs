//! Events from a real Kafka broker, through the daemon, to the tables that files would give.
//!
//! Skipped where no broker can be started (`tests/services/service kafka available` says how).
//! Kills: `PLAYHEAD_KILLS=200 cargo test --locked kafka_survives -- --nocapture`; the seed is printed
//! and can be given as `PLAYHEAD_SEED`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::daemon::Daemon;
use crate::killing::{self, Kills};
use crate::restart::assert_same;
use crate::services::{self, Service};
use crate::support::{Bench, contents, simulate};

const PARTITIONS: u32 = 3;
const TOPIC: &str = "beacons";
/// How long the producer may take to hand everything over.
const FLUSH: Duration = Duration::from_secs(60);

/// Partitions that have nothing more are released after half a minute; until then sessions stay open.
const SETTLING: Duration = Duration::from_secs(70);

/// An audience as a file and what files make of it.
struct Audience {
    bench: Bench,
    file: PathBuf,
    lines: Vec<String>,
}

impl Audience {
    fn simulated(sessions: &str) -> Audience {
        let bench = Bench::new();
        let folder = simulate(&bench, &["--sessions", sessions, "--seed", "5", "--minutes", "30"]);
        let file = folder.join("player.ndjson");
        let text = std::fs::read_to_string(&file).expect("the simulation wrote it");
        let lines = text.lines().map(str::to_string).collect();
        Audience { bench, file, lines }
    }

    /// The lake that `playhead ingest` makes of the file.
    fn ingest(&self) {
        self.bench.ingest(&[&self.file]);
    }
}

/// Sends lines to the partitions by their session, in order.
fn send(broker: &Service, topic: &str, lines: &[String], partitions: u32) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("enable.idempotence", "true")
        .create()
        .expect("a producer needs no broker to be made");
    for line in lines {
        let session = session_of(line);
        let partition = i32::try_from(number_of(&session) % u64::from(partitions)).expect("a few");
        let mut record = BaseRecord::to(topic).partition(partition).key(&session).payload(line);
        while let Err((_, returned)) = producer.send(record) {
            producer.poll(Duration::from_millis(50));
            record = returned;
        }
    }
    producer.flush(FLUSH).expect("the broker takes everything");
}

fn session_of(line: &str) -> String {
    let record: serde_json::Value = serde_json::from_str(line).expect("the simulation writes JSON");
    let session = ["session_id", "user_id"].iter().find_map(|name| record[name].as_str());
    session.unwrap_or(line).to_string()
}

fn number_of(text: &str) -> u64 {
    text.bytes()
        .fold(7, |number, byte| number.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

fn settings(broker: &Service, topics: &str, group: &str) -> String {
    format!(
        "sources:\n  - name: beacons\n    kafka:\n      brokers: \"{}\"\n      topics: {topics}\n      group: {group}\n\
         ingest: {{commit_every: 200ms, poll_every: 50ms, batch_records: 500}}\n",
        broker.address()
    )
}

fn received(bench: &Bench) -> i64 {
    match bench.lake().join("bronze/player_events/_delta_log").is_dir() {
        true => bench.int("SELECT count(*) AS n FROM bronze.player_events"),
        false => 0,
    }
}

/// Waits until the lake that the daemon writes holds what the one made of the file does.
fn wait_until_equal(daemon: &mut Daemon, bench: &Bench, audience: &Audience) {
    let all = i64::try_from(audience.lines.len()).expect("a few");
    daemon.wait_until("every event is in bronze", || received(bench) >= all);
    let filled = |bench: &Bench| -> BTreeMap<String, Vec<String>> {
        // These audiences have no CDN log.
        contents(bench).into_iter().filter(|(_, rows)| !rows.is_empty()).collect()
    };
    let expected = filled(&audience.bench);
    let until = Instant::now() + SETTLING;
    daemon.wait_until("the tables are those of the file", || {
        filled(bench) == expected || Instant::now() > until
    });
    assert_same(&expected, &filled(bench));
}

fn wait_for(daemon: &mut Daemon, bench: &Bench, rows: i64) {
    daemon.wait_until("some events are in bronze", || received(bench) >= rows);
}

#[test]
fn a_topic_gives_the_tables_that_a_file_gives_and_the_tools_see_where_the_group_is() {
    let Some(broker) = services::start("kafka") else { return };
    let audience = Audience::simulated("60");
    audience.ingest();
    broker.create_topic(TOPIC, PARTITIONS, &[]);
    let half = audience.lines.len() / 2;
    send(&broker, TOPIC, &audience.lines[..half], PARTITIONS);
    let bench = Bench::new();
    let mut daemon = Daemon::start(&bench, &settings(&broker, "[beacons]", "g"));
    wait_for(&mut daemon, &bench, 1);
    send(&broker, TOPIC, &audience.lines[half..], PARTITIONS);
    wait_until_equal(&mut daemon, &bench, &audience);
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
    let audience = Audience::simulated("5");
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
    daemon.wait_until("all four are accounted for", || {
        bench.lake().join("silver/rejects").is_dir() && received(&bench) + bench.int("SELECT count(*) AS n FROM silver.rejects") >= 4
    });
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
    let audience = Audience::simulated("60");
    audience.ingest();
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
    wait_for(&mut daemon, &bench, i64::try_from(2 * third).expect("a few"));
    broker.add_partitions(TOPIC, PARTITIONS);
    send(&broker, TOPIC, &audience.lines[2 * third..], PARTITIONS);
    wait_until_equal(&mut daemon, &bench, &audience);
    assert!(daemon.stop().success());
}

#[test]
fn two_daemons_of_a_group_share_a_topic_and_hold_every_event_once_between_them() {
    let Some(broker) = services::start("kafka") else { return };
    let audience = Audience::simulated("60");
    broker.create_topic(TOPIC, PARTITIONS, &[]);
    let (first, second) = (Bench::new(), Bench::new());
    let third = audience.lines.len() / 3;
    send(&broker, TOPIC, &audience.lines[..third], PARTITIONS);
    let mut one = Daemon::start(&first, &settings(&broker, "[beacons]", "g"));
    wait_for(&mut one, &first, i64::try_from(third).expect("a few"));
    let mut other = Daemon::start(&second, &settings(&broker, "[beacons]", "g"));
    send(&broker, TOPIC, &audience.lines[third..2 * third], PARTITIONS);
    let both = |rows: usize| received(&first) + received(&second) >= i64::try_from(rows).expect("a few");
    other.wait_until("both have read two thirds", || both(2 * third));
    assert!(one.stop().success());
    send(&broker, TOPIC, &audience.lines[2 * third..], PARTITIONS);
    other.wait_until("the one that is left has read the rest", || both(audience.lines.len()));
    assert!(other.stop().success());
    let ids = |bench: &Bench| -> Vec<String> {
        let rows = bench.sql("SELECT event_id FROM bronze.player_events");
        rows.iter().map(|row| row["event_id"].to_string()).collect()
    };
    let mut found = [ids(&first), ids(&second)].concat();
    found.sort();
    audience.ingest();
    let mut expected = ids(&audience.bench);
    expected.sort();
    assert_eq!(found, expected, "every event is in one of the two lakes, once");
}

#[test]
fn kafka_survives_kill_minus_nine_with_nothing_lost_and_nothing_twice() {
    let Some(broker) = services::start("kafka") else { return };
    let kills = Kills::from_environment(6);
    let audience = Audience::simulated(if kills.count > 20 { "600" } else { "60" });
    audience.ingest();
    broker.create_topic(TOPIC, PARTITIONS, &[]);
    send(&broker, TOPIC, &audience.lines, PARTITIONS);
    let bench = Bench::new();
    let start = |bench: &Bench, _: &Path| Daemon::start(bench, &settings(&broker, "[beacons]", "g"));
    let mut daemon = killing::kill_again_and_again(&bench, kills, &start);
    wait_until_equal(&mut daemon, &bench, &audience);
    assert!(daemon.stop().success());
}
