//! The source against librdkafka's own mock cluster: it keeps a group, coordinators and faults, in process.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::clock::ManualClock;
use crate::event::decode::RECORD_BYTES_MAX;

const LIMITS: BatchLimits = BatchLimits {
    bytes: 4 << 20,
    records: 10_000,
};
/// Longest wait for anything to happen.
const BOUND: Duration = Duration::from_secs(20);

struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Cluster {
    fn with_topic(topic: &str, partitions: i32) -> Cluster {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(topic, partitions, 1).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.bootstrap_servers()).set("linger.ms", "0");
        config.set("message.max.bytes", "10000000").set("compression.type", "zstd");
        let producer = config.create().unwrap();
        Cluster { mock, producer }
    }

    fn send(&self, record: BaseRecord<'_, str, [u8]>) {
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    fn produce(&self, topic: &str, partition: i32, values: impl IntoIterator<Item = String>) {
        for value in values {
            self.send(BaseRecord::to(topic).partition(partition).payload(value.as_bytes()));
        }
        self.producer.flush(BOUND).unwrap();
    }

    fn settings(&self, topics: &[&str], lake_id: &str) -> KafkaSettings {
        let quick = [
            ("topic.metadata.refresh.interval.ms", "300"),
            ("reconnect.backoff.max.ms", "300"),
            ("fetch.wait.max.ms", "50"),
            // The mock waits a second less than this for members to join again.
            ("session.timeout.ms", "2500"),
            ("heartbeat.interval.ms", "200"),
            ("coordinator.query.interval.ms", "300"),
        ];
        KafkaSettings {
            name: "events".to_string(),
            brokers: self.mock.bootstrap_servers(),
            group: "g".to_string(),
            topics: topics.iter().map(ToString::to_string).collect(),
            start: Start::Earliest,
            format: Some(Format::Reference),
            properties: quick.map(|(name, value)| (name.to_string(), value.to_string())).into(),
            lake_id: lake_id.to_string(),
            queue_bytes: 16 << 20,
        }
    }

    /// A consumer outside the group's members, to look at its offsets and to set them.
    fn tool(&self) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.mock.bootstrap_servers()).set("group.id", "g");
        config.create().unwrap()
    }

    fn committed(&self, topic: &str, partition: i32) -> Option<(i64, String)> {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let list = self.tool().committed_offsets(list, BOUND).unwrap();
        let element = list.find_partition(topic, partition).unwrap();
        match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_string())),
            _ => None,
        }
    }
}

/// A daemon in small: keeps marks, commits every part, throws away what is lost.
struct Daemon {
    source: KafkaSource,
    marks: BTreeMap<Arc<str>, i64>,
    seen: Vec<(String, i64, String)>,
    errors: Vec<String>,
    lost: Vec<Arc<str>>,
}

impl Daemon {
    fn over(settings: KafkaSettings, marks: &[(&str, i64)]) -> Daemon {
        let source = KafkaSource::new(settings, Arc::new(ManualClock::at(1_000_000))).unwrap();
        Daemon {
            source,
            marks: marks.iter().map(|(name, offset)| (Arc::from(*name), *offset)).collect(),
            seen: Vec::new(),
            errors: Vec::new(),
            lost: Vec::new(),
        }
    }

    fn turn(&mut self) {
        self.lost.extend(self.source.take_lost());
        match self.source.discover() {
            Ok(found) => {
                for found in found {
                    let from = self.marks.get(&found.partition).map(|offset| Mark {
                        offset: *offset,
                        token: None,
                    });
                    self.source.start(&found.partition, from);
                }
            }
            Err(error) => self.errors.push(error.to_string()),
        }
        match self.source.next_part(LIMITS) {
            Ok(Some(part)) => self.keep(&part),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    fn keep(&mut self, part: &Part) {
        let lost = self.source.take_lost();
        let is_lost = lost.contains(&part.partition);
        self.lost.extend(lost);
        if is_lost {
            return;
        }
        for line in &part.lines {
            let text = String::from_utf8_lossy(&part.buffer[line.start..line.end]).into_owned();
            self.seen.push((part.partition.to_string(), line.offset, text));
        }
        self.marks.insert(Arc::clone(&part.partition), part.to);
        let to = Mark {
            offset: part.to,
            token: None,
        };
        self.source.committed(&part.partition, &to);
    }

    fn run_until(&mut self, what: &str, is_so: impl Fn(&Daemon) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(
                began.elapsed() < BOUND,
                "{what}; seen {}, errors {:?}",
                self.seen.len(),
                self.errors
            );
            self.turn();
        }
    }

    fn texts(&self) -> Vec<&str> {
        self.seen.iter().map(|(_, _, text)| text.as_str()).collect()
    }
}

/// Text that does not compress well.
fn scrambled(state: &mut u64) -> String {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    format!("{:08x}", *state >> 32)
}

fn numbered(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|number| format!("m{number}"))
}

#[test]
fn messages_come_with_what_stood_beside_them_and_go_on_from_the_lakes_mark() {
    let cluster = Cluster::with_topic("t", 1);
    let long = vec![b'x'; RECORD_BYTES_MAX + 1];
    let headers = OwnedHeaders::new().insert(Header {
        key: "h",
        value: Some("v"),
    });
    let plain = BaseRecord::to("t").partition(0).timestamp(1234);
    cluster.send(plain.key("k").payload(&b"{\"a\":1}\n{\"a\":2}"[..]).headers(headers));
    cluster.send(BaseRecord::to("t").partition(0).timestamp(1235).key("dead"));
    cluster.send(BaseRecord::to("t").partition(0).timestamp(1236).payload(&long));
    cluster.producer.flush(BOUND).unwrap();
    let mut daemon = Daemon::over(cluster.settings(&["t"], "ours"), &[]);
    let mut parts = Vec::new();
    let began = Instant::now();
    while parts.iter().map(|part: &Part| part.lines.len()).sum::<usize>() < 3 {
        assert!(began.elapsed() < BOUND, "{parts:?}");
        for found in daemon.source.discover().unwrap() {
            assert_eq!((&*found.partition, found.format), ("kafka:t/0", Some(Format::Reference)));
            daemon.source.start(&found.partition, None);
        }
        parts.extend(daemon.source.next_part(LIMITS).unwrap());
    }
    let lines: Vec<_> = parts
        .iter()
        .flat_map(|part| part.lines.iter().map(move |line| (part, line)))
        .collect();
    let expected = [
        (
            "{\"a\":1}\n{\"a\":2}",
            None,
            "{\"key\":\"k\",\"timestamp_ms\":1234,\"timestamp_type\":\"create\",\"headers\":{\"h\":\"v\"}}",
        ),
        (
            "",
            None,
            "{\"tombstone\":true,\"key\":\"dead\",\"timestamp_ms\":1235,\"timestamp_type\":\"create\"}",
        ),
        (
            "",
            Some(RECORD_BYTES_MAX as i64 + 1),
            "{\"timestamp_ms\":1236,\"timestamp_type\":\"create\"}",
        ),
    ];
    for ((part, line), (text, oversized, attributes)) in lines.iter().zip(expected) {
        assert_eq!(&part.buffer[line.start..line.end], text.as_bytes());
        assert_eq!(&part.buffer[line.attributes.0..line.attributes.1], attributes.as_bytes());
        assert_eq!(line.oversized_bytes, oversized);
    }
    drop(daemon);
    cluster.produce("t", 0, numbered(3..5));
    let mut daemon = Daemon::over(cluster.settings(&["t"], "ours"), &[("kafka:t/0", 3)]);
    daemon.run_until("the mark is gone on from", |daemon| daemon.seen.len() == 2);
    assert_eq!(daemon.texts(), ["m3", "m4"]);
    daemon.run_until("the lag is gone", |daemon| daemon.source.lag().records == Some(0));
    assert_eq!((daemon.source.lag().partitions, daemon.source.lag().seconds), (1, Some(0.0)));
    daemon.source.stop();
    assert_eq!(cluster.committed("t", 0), Some((5, metadata_of("ours"))));
    assert_eq!(daemon.errors, [""; 0]);
}

#[test]
fn the_start_rule_holds_against_a_broker() {
    let cluster = Cluster::with_topic("t", 5);
    for partition in 0..5 {
        cluster.produce("t", partition, numbered(0..10));
    }
    let tool = cluster.tool();
    let committed = [(0, 6, metadata_of("other")), (1, 6, metadata_of("ours")), (2, 6, String::new())];
    let mut list = TopicPartitionList::new();
    for (partition, offset, metadata) in &committed {
        let mut element = list.add_partition("t", *partition);
        element.set_offset(Offset::Offset(*offset)).unwrap();
        element.set_metadata(metadata);
    }
    tool.commit(&list, CommitMode::Sync).unwrap();
    let marks = [("kafka:t/0", 3), ("kafka:t/1", 3), ("kafka:t/4", 70)];
    let mut daemon = Daemon::over(cluster.settings(&["t"], "ours"), &marks);
    daemon.run_until("every partition is read to its end", |daemon| daemon.seen.len() == 4 + 7 + 10 + 10);
    let first = |name: &str| {
        daemon
            .seen
            .iter()
            .find(|(partition, _, _)| partition == name)
            .map(|(_, offset, _)| *offset)
    };
    let got: Vec<_> = (0..4).map(|number| first(&format!("kafka:t/{number}"))).collect();
    assert_eq!(got, [Some(6), Some(3), Some(0), Some(0)], "another lake's, ours, the setting twice");
    daemon.run_until("the log that is too short is told", |daemon| !daemon.errors.is_empty());
    let expected = "kafka:t/4 is not read: the lake has it up to offset 70, and the broker's log ends at 10";
    assert!(
        daemon.errors.len() == 1 && daemon.errors[0].contains(expected),
        "{:?}",
        daemon.errors
    );
}

#[test]
fn a_latest_start_is_kept_over_a_restart_in_which_nothing_was_committed() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.produce("t", 0, numbered(0..3));
    let settings = KafkaSettings {
        start: Start::Latest,
        ..cluster.settings(&["t"], "ours")
    };
    let mut daemon = Daemon::over(settings.clone(), &[]);
    daemon.run_until("the place is taken", |daemon| {
        daemon.source.lag().records == Some(0) && daemon.source.lag().partitions == 1
    });
    drop(daemon);
    cluster.produce("t", 0, numbered(3..5));
    let mut daemon = Daemon::over(settings, &[]);
    daemon.run_until("what came in between is read", |daemon| daemon.seen.len() == 2);
    assert_eq!(daemon.texts(), ["m3", "m4"]);
}

#[test]
fn two_members_share_the_partitions_and_every_message_comes_once() {
    // The mock misses a member that a busy machine holds up for a second and a half, and has the other read
    // its messages again: how that ends is another test's.
    assert!((0..3).any(|_| is_shared_and_read_once()));
}

fn is_shared_and_read_once() -> bool {
    let cluster = Cluster::with_topic("t", 4);
    let produce = |from: usize| (0..4).for_each(|partition| cluster.produce("t", partition, numbered(from..from + 50)));
    produce(0);
    let mut first = Daemon::over(cluster.settings(&["t"], "a"), &[]);
    first.run_until("the first has read what is there", |daemon| daemon.seen.len() == 200);
    let mut second = Daemon::over(cluster.settings(&["t"], "b"), &[]);
    let began = Instant::now();
    let mut round = 1;
    while first.source.lag().partitions != 2 || second.source.lag().partitions != 2 || round < 8 {
        assert!(began.elapsed() < BOUND, "{:?} {:?}", first.source.lag(), second.source.lag());
        if round < 8 {
            produce(round * 50);
            round += 1;
        }
        first.turn();
        second.turn();
    }
    let all = round * 200;
    while first.seen.len() + second.seen.len() < all {
        assert!(began.elapsed() < BOUND, "{} {}", first.seen.len(), second.seen.len());
        first.turn();
        second.turn();
    }
    assert!(!first.lost.is_empty() && !second.seen.is_empty());
    second.source.stop();
    produce(round * 50);
    let (seen, wanted) = (second.seen.len(), all + 200);
    first.run_until("the first reads on alone", |daemon| daemon.seen.len() + seen >= wanted);
    let mut offsets: Vec<_> = first
        .seen
        .iter()
        .chain(&second.seen)
        .map(|(partition, offset, _)| (partition.clone(), *offset))
        .collect();
    offsets.sort();
    let expected: Vec<_> = (0..4)
        .flat_map(|number| (0..wanted as i64 / 4).map(move |offset| (format!("kafka:t/{number}"), offset)))
        .collect();
    offsets == expected
}

#[test]
fn brokers_that_go_away_are_told_once_and_neither_reading_nor_stopping_hangs() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.produce("t", 0, numbered(0..5));
    let mut daemon = Daemon::over(cluster.settings(&["t"], "ours"), &[]);
    daemon.run_until("it reads", |daemon| daemon.seen.len() == 5);
    cluster.mock.broker_down(1).unwrap();
    daemon.run_until("the outage is told", |daemon| !daemon.errors.is_empty());
    let until = Instant::now() + Duration::from_millis(1500);
    daemon.run_until("time goes by", |_| Instant::now() > until);
    assert_eq!(daemon.errors.len(), 1, "{:?}", daemon.errors);
    cluster.mock.broker_up(1).unwrap();
    cluster.produce("t", 0, numbered(5..8));
    daemon.run_until("it reads on", |daemon| daemon.seen.len() == 8);
    assert_eq!(daemon.texts(), numbered(0..8).collect::<Vec<_>>());
    cluster.mock.broker_down(1).unwrap();
    let began = Instant::now();
    daemon.source.stop();
    assert!(began.elapsed() < STOP_WAIT, "stopping without a broker took {:?}", began.elapsed());
    let told = std::iter::from_fn(|| daemon.source.next_part(LIMITS).err()).count();
    assert!(told <= 1 && daemon.source.next_part(LIMITS).unwrap().is_none());
}

#[test]
fn errors_of_single_requests_lose_nothing() {
    let cluster = Cluster::with_topic("t", 1);
    cluster.produce("t", 0, numbered(0..5));
    let mut daemon = Daemon::over(cluster.settings(&["t"], "ours"), &[]);
    daemon.run_until("it reads", |daemon| daemon.seen.len() == 5);
    let gone = RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT;
    let busy = RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
    let moved = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    cluster.mock.request_errors(RDKafkaApiKey::Fetch, &[moved, gone, moved]);
    cluster.mock.request_errors(RDKafkaApiKey::OffsetCommit, &[busy, gone, busy]);
    cluster.produce("t", 0, numbered(5..9));
    daemon.run_until("it reads on", |daemon| daemon.seen.len() == 9);
    assert_eq!(daemon.texts(), numbered(0..9).collect::<Vec<_>>());
    let began = Instant::now();
    while cluster.committed("t", 0) != Some((9, metadata_of("ours"))) {
        assert!(began.elapsed() < BOUND, "{:?}", cluster.committed("t", 0));
        daemon.turn();
    }
}

#[test]
fn offsets_that_the_broker_has_deleted_are_counted_and_reading_goes_on() {
    let cluster = Cluster::with_topic("t", 1);
    // The mock keeps about five megabytes of a partition.
    let mut state = 7_u64;
    for _ in 0..80 {
        let value: String = std::iter::repeat_with(|| scrambled(&mut state)).take(20_000).collect();
        cluster.send(BaseRecord::to("t").partition(0).payload(value.as_bytes()));
    }
    cluster.producer.flush(BOUND).unwrap();
    let mut config = ClientConfig::new();
    let tool: BaseConsumer = config
        .set("bootstrap.servers", cluster.mock.bootstrap_servers())
        .set("group.id", "x")
        .create()
        .unwrap();
    let (first, end) = tool.fetch_watermarks("t", 0, BOUND).unwrap();
    assert!(first > 10 && end == 80, "the mock keeps {first} to {end}");
    let mut daemon = Daemon::over(cluster.settings(&["t"], "ours"), &[("kafka:t/0", 4)]);
    daemon.run_until("the rest is read", |daemon| {
        daemon.seen.last().is_some_and(|(_, offset, _)| *offset == 79)
    });
    assert_eq!(daemon.seen.first().map(|(_, offset, _)| *offset), Some(first));
    let told: Vec<_> = daemon.errors.iter().filter(|error| error.contains("lost")).collect();
    let expected = format!(
        "{} offsets of kafka:t/0 are lost: the broker deleted 4 to {} before",
        first - 4,
        first - 1
    );
    assert!(told.len() == 1 && told[0].contains(&expected), "{told:?}");
}

#[test]
fn topics_that_appear_later_and_match_a_pattern_are_taken_up() {
    let cluster = Cluster::with_topic("player-a", 1);
    cluster.produce("player-a", 0, numbered(0..1));
    cluster.mock.create_topic("cdn-logs", 1, 1).unwrap();
    cluster.produce("cdn-logs", 0, numbered(7..8));
    let mut daemon = Daemon::over(cluster.settings(&["^player-.*"], "ours"), &[]);
    daemon.run_until("the first is read", |daemon| daemon.seen.len() == 1);
    cluster.mock.create_topic("player-b", 2, 1).unwrap();
    cluster.produce("player-b", 1, numbered(1..2));
    daemon.run_until("the second is read", |daemon| daemon.seen.len() == 2);
    assert_eq!(daemon.source.lag().partitions, 3);
    assert_eq!(daemon.texts(), ["m0", "m1"]);
}

#[test]
fn a_full_queue_is_bounded_and_the_member_stays_in_its_group() {
    let cluster = Cluster::with_topic("t", 2);
    let big = "0123456789".repeat(1000);
    let mut settings = cluster.settings(&["t"], "ours");
    settings.queue_bytes = QUEUE_BYTES_MIN;
    settings.properties.insert("max.poll.interval.ms".to_string(), "2500".to_string());
    let mut daemon = Daemon::over(settings, &[]);
    daemon.run_until("partitions are read", |daemon| {
        daemon.source.lag().partitions == 2 && daemon.source.lag().records == Some(0)
    });
    for partition in 0..2 {
        cluster.produce("t", partition, (0..400).map(|number| format!("{number} {big}")));
    }
    let began = Instant::now();
    let mut is_more = false;
    while began.elapsed() < Duration::from_millis(3500) {
        let queued = daemon.source.shared.lock().queued_bytes();
        if queued >= QUEUE_BYTES_MIN / 2 && !is_more {
            is_more = true;
            cluster.produce("t", 1, numbered(0..5));
        }
        assert!(queued < QUEUE_BYTES_MIN / 2 + (64 << 10), "{queued} bytes are queued");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(
        daemon.source.shared.lock().queued_bytes() >= QUEUE_BYTES_MIN / 2,
        "the queue was full all the time"
    );
    assert_eq!(daemon.source.lag().records, Some(805), "what waits is known though nothing is read");
    daemon.run_until("everything is read", |daemon| daemon.seen.len() == 805);
    assert!(daemon.lost.is_empty(), "the member was never put out of its group");
    let mut offsets: Vec<_> = daemon
        .seen
        .iter()
        .map(|(partition, offset, _)| (partition.as_str(), *offset))
        .collect();
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets.len(), 805);
}

#[test]
fn settings_that_librdkafka_refuses_are_refused_without_their_values() {
    let cluster = Cluster::with_topic("t", 1);
    let check = |name: &str, value: &str, expected: &str| {
        let mut settings = cluster.settings(&["t"], "ours");
        settings.properties.insert(name.to_string(), value.to_string());
        let error = KafkaSource::new(settings, Arc::new(ManualClock::at(0)))
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.contains(expected) && !error.contains(value), "{error}");
    };
    check("no.such.property", "s3cret", "`no.such.property`");
    check("fetch.wait.max.ms", "s3cret", "`fetch.wait.max.ms`");
    check("enable.auto.commit", "s3cret", "cannot be set");
}
