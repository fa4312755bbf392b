//! The source against a stub of Kinesis, driven as the daemon drives it.

mod sharing;

use std::time::Instant;

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use tokio::runtime::Runtime;

use super::stub::{Fault, Stub};
use super::*;
use crate::clock::SystemClock;
use crate::source::contract;

const LIMITS: BatchLimits = BatchLimits {
    bytes: 8 << 20,
    records: 80_000,
};
/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(20);

/// A runtime and a stream.
struct World {
    runtime: Runtime,
    stub: Stub,
}

/// What bronze holds: lines and marks; several daemons may share it.
#[derive(Default)]
struct Bronze {
    lines: BTreeMap<String, Vec<String>>,
    marks: BTreeMap<Arc<str>, Mark>,
}

/// A daemon: it reads, commits and remembers.
struct Daemon {
    source: KinesisSource,
    is_committing: bool,
    uncommitted: Vec<(Arc<str>, Mark)>,
    started: Vec<String>,
    errors: Vec<SourceError>,
    lost: Vec<String>,
    parts: Vec<(usize, bool)>,
}

impl World {
    fn new() -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let stub = Stub::start(runtime.handle());
        World { runtime, stub }
    }

    fn settings(&self) -> KinesisSettings {
        KinesisSettings {
            endpoint_url: Some(self.stub.url.clone()),
            idle_wait: Duration::from_millis(200),
            list_every: Duration::from_millis(100),
            answer_timeout: Duration::from_secs(5),
            ..KinesisSettings::new("plays", "s", "one")
        }
    }

    fn daemon(&self, settings: KinesisSettings, leases: Option<LeaseSettings>) -> Daemon {
        let timeouts = aws_config::timeout::TimeoutConfig::builder().operation_timeout(settings.answer_timeout);
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("a", "b", None, None, "test"))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .timeout_config(timeouts.build())
            .endpoint_url(settings.endpoint_url.clone().unwrap());
        let client = Client::from_conf(config.build());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Daemon {
            source: KinesisSource::new(settings, client, leases, self.runtime.handle().clone(), &clock),
            is_committing: true,
            uncommitted: Vec::new(),
            started: Vec::new(),
            errors: Vec::new(),
            lost: Vec::new(),
            parts: Vec::new(),
        }
    }

    fn plain(&self) -> Daemon {
        self.daemon(self.settings(), None)
    }
}

impl Daemon {
    /// One turn of the daemon's loop.
    fn turn(&mut self, bronze: &mut Bronze, limits: BatchLimits) {
        for lost in self.source.take_lost() {
            self.uncommitted.retain(|(partition, _)| *partition != lost);
            self.lost.push(lost.to_string());
        }
        match self.source.discover() {
            Ok(found) => {
                for found in found {
                    self.started.push(found.partition.to_string());
                    self.source.start(&found.partition, bronze.marks.get(&found.partition).cloned());
                }
            }
            Err(error) => self.errors.push(error),
        }
        match self.source.next_part(limits) {
            Ok(Some(part)) => self.take(&part, bronze),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => self.errors.push(error),
        }
        if self.is_committing {
            self.commit();
        }
    }

    fn take(&mut self, part: &Part, bronze: &mut Bronze) {
        let expected = bronze.marks.get(&part.partition).map_or(0, |mark| mark.offset);
        if self.is_committing {
            assert_eq!(part.from, expected, "a part starts where bronze ends");
        }
        assert_eq!(part.to - part.from, part.lines.len() as i64);
        let lines = bronze.lines.entry(part.partition.to_string()).or_default();
        for (line, offset) in part.lines.iter().zip(part.from..) {
            assert_eq!(line.offset, offset);
            let attributes: serde_json::Value = serde_json::from_slice(&part.buffer[line.attributes.0..line.attributes.1]).unwrap();
            assert!(attributes["sequence_number"].is_string());
            lines.push(String::from_utf8_lossy(&part.buffer[line.start..line.end]).into_owned());
        }
        self.parts.push((part.lines.len(), part.finished));
        let mark = Mark {
            offset: part.to,
            token: part.token.clone(),
        };
        bronze.marks.insert(Arc::clone(&part.partition), mark.clone());
        self.uncommitted.push((Arc::clone(&part.partition), mark));
    }

    fn commit(&mut self) {
        for (partition, mark) in std::mem::take(&mut self.uncommitted) {
            self.source.committed(&partition, &mark);
        }
    }

    fn run_until(&mut self, bronze: &mut Bronze, what: &str, is_done: impl Fn(&Bronze, &Daemon) -> bool) {
        let began = Instant::now();
        while !is_done(bronze, self) {
            assert!(began.elapsed() < PATIENCE, "never came: {what}; errors {:?}", self.errors);
            self.turn(bronze, LIMITS);
        }
    }

    fn run_for(&mut self, bronze: &mut Bronze, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            self.turn(bronze, LIMITS);
        }
    }
}

impl Bronze {
    fn of(&self, shard: &str) -> Vec<String> {
        self.lines.get(&format!("kinesis:s/{shard}")).cloned().unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.lines.values().map(Vec::len).sum()
    }

    fn is_ended(&self, shard: &str) -> bool {
        let mark = self.marks.get(format!("kinesis:s/{shard}").as_str());
        mark.is_some_and(|mark| mark.token.as_deref() == Some(END))
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

#[test]
fn it_passes_the_test_of_every_source() {
    let world = World::new();
    world.stub.set_records_per_read(2);
    let mut expected = contract::Records::new();
    for (shard, parents) in [("a", &[][..]), ("b", &[]), ("c", &["a"]), ("d", &["b", "c"])] {
        world.stub.shard(shard, parents);
        let lines = names(shard, 5);
        world.stub.put(shard, lines[..3].join("\n"));
        lines[3..].iter().for_each(|line| world.stub.put(shard, line));
        expected.insert(format!("kinesis:s/{shard}"), lines);
    }
    contract::passes(&mut || Box::new(world.plain().source), &expected);
}

#[test]
fn all_shards_are_read_in_order_and_a_restart_goes_on_behind_the_mark() {
    let world = World::new();
    world.stub.set_records_per_read(3);
    for shard in ["a", "b"] {
        world.stub.shard(shard, &[]);
        (0..10).for_each(|number| world.stub.put(shard, format!("{shard}{number}\n")));
    }
    let mut bronze = Bronze::default();
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "all lines", |bronze, _| bronze.count() == 20);
    assert_eq!((bronze.of("a"), bronze.of("b")), (names("a", 10), names("b", 10)));
    daemon.source.stop();
    assert!(matches!((daemon.source.discover(), daemon.source.next_part(LIMITS)), (Ok(found), Ok(None)) if found.is_empty()));
    drop(daemon);

    world.stub.put("a", "a10");
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "the new line", |bronze, _| bronze.count() == 21);
    daemon.run_for(&mut bronze, Duration::from_millis(500));
    assert_eq!((bronze.of("a"), bronze.of("b")), (names("a", 11), names("b", 10)));
    assert_eq!(daemon.errors, []);
    let lag = daemon.source.lag();
    assert_eq!((lag.partitions, lag.seconds), (2, Some(0.0)));
}

#[test]
fn children_wait_until_the_end_of_their_parent_is_committed() {
    let world = World::new();
    world.stub.shard("a", &[]);
    (0..5).for_each(|number| world.stub.put("a", format!("a{number}")));
    let mut bronze = Bronze::default();
    let mut daemon = world.plain();
    daemon.is_committing = false;
    daemon.run_until(&mut bronze, "the parent's lines", |bronze, _| bronze.count() == 5);
    for child in ["b", "c"] {
        world.stub.shard(child, &["a"]);
        world.stub.put(child, format!("{child}0"));
    }
    daemon.run_until(&mut bronze, "the parent's end", |bronze, _| bronze.is_ended("a"));
    daemon.run_for(&mut bronze, Duration::from_millis(600));
    assert_eq!(daemon.started, ["kinesis:s/a"], "handed over is not committed");
    daemon.commit();
    daemon.run_until(&mut bronze, "the children", |bronze, _| bronze.count() == 7);
    assert_eq!(daemon.started, ["kinesis:s/a", "kinesis:s/b", "kinesis:s/c"]);

    // The next life asks the lake for the parent, and leaves it alone.
    let reads_before = world.stub.calls("GetRecords").iter().filter(|call| call.shard == "a").count();
    drop(daemon);
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "children again", |_, daemon| daemon.started.len() == 3);
    daemon.run_for(&mut bronze, Duration::from_millis(400));
    let reads_after = world.stub.calls("GetRecords").iter().filter(|call| call.shard == "a").count();
    assert_eq!((bronze.count(), reads_after), (7, reads_before));
}

#[test]
fn a_merged_shard_waits_for_both_parents() {
    let world = World::new();
    for shard in ["a", "b"] {
        world.stub.shard(shard, &[]);
        world.stub.put(shard, format!("{shard}0"));
    }
    world.stub.shard("c", &["a", "b"]);
    world.stub.put("c", "c0");
    let mut bronze = Bronze::default();
    let mut daemon = world.plain();
    daemon.is_committing = false;
    daemon.run_until(&mut bronze, "both ends", |bronze, _| bronze.is_ended("a") && bronze.is_ended("b"));
    let is_of_a = |(partition, _): &(Arc<str>, Mark)| &**partition == "kinesis:s/a";
    let of_b: Vec<(Arc<str>, Mark)> = daemon.uncommitted.extract_if(.., |commit| !is_of_a(commit)).collect();
    daemon.commit();
    daemon.run_for(&mut bronze, Duration::from_millis(400));
    assert_eq!(daemon.started.len(), 2);
    daemon.uncommitted = of_b;
    daemon.commit();
    daemon.run_until(&mut bronze, "the child", |bronze, _| bronze.of("c") == ["c0"]);
}

#[test]
fn throttling_failures_and_slow_answers_cost_time_only() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.set_records_per_read(2);
    (0..8).for_each(|number| world.stub.put("a", format!("a{number}")));
    let throttled = Fault::Refuse("ProvisionedThroughputExceededException");
    world.stub.fail("GetRecords", &throttled, 2);
    world.stub.fail("GetRecords", &Fault::Fail500, 1);
    world.stub.fail("GetRecords", &Fault::Slow(Duration::from_secs(2)), 1);
    world.stub.fail("GetShardIterator", &throttled, 1);
    world.stub.fail("ListShards", &Fault::Refuse("LimitExceededException"), 1);
    let mut settings = world.settings();
    settings.answer_timeout = Duration::from_millis(500);
    let mut bronze = Bronze::default();
    let mut daemon = world.daemon(settings, None);
    daemon.run_until(&mut bronze, "all lines", |bronze, _| bronze.count() == 8);
    assert_eq!(bronze.of("a"), names("a", 8));
    let calls = world.stub.calls("GetRecords");
    let waits: Vec<Duration> = calls.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    for (wait, least_ms) in waits.iter().zip([400, 800]) {
        assert!(*wait >= Duration::from_millis(least_ms), "{waits:?}");
    }
}

#[test]
fn reads_of_a_shard_keep_their_distance() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.set_records_per_read(1);
    (0..6).for_each(|number| world.stub.put("a", format!("a{number}")));
    let mut bronze = Bronze::default();
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "all lines", |bronze, _| bronze.count() == 6);
    let calls = world.stub.calls("GetRecords");
    assert!(
        calls[5].at - calls[0].at >= Duration::from_millis(990),
        "five reads a second at most"
    );
}

#[test]
fn long_throttling_is_told_once_and_reading_goes_on() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.put("a", "a0");
    world
        .stub
        .fail("GetRecords", &Fault::Refuse("ProvisionedThroughputExceededException"), 4);
    let mut bronze = Bronze::default();
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "the line", |bronze, _| bronze.count() == 1);
    assert_eq!(daemon.errors.len(), 1);
    assert_eq!(daemon.errors[0].what, "reads of shard a are throttled");
}

#[test]
fn an_expired_iterator_is_replaced_behind_the_last_record() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.put("a", "a0");
    let mut bronze = Bronze::default();
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "the first line", |bronze, _| bronze.count() == 1);
    world.stub.expire_iterators();
    world.stub.put("a", "a1");
    daemon.run_until(&mut bronze, "the second line", |bronze, _| bronze.count() == 2);
    assert_eq!((bronze.of("a"), daemon.errors.len()), (names("a", 2), 0));
    let kinds: Vec<String> = world.stub.calls("GetShardIterator").into_iter().map(|call| call.detail).collect();
    assert_eq!(kinds, ["TRIM_HORIZON", "AFTER_SEQUENCE_NUMBER"]);
}

#[test]
fn latest_misses_nothing_that_came_after_the_start_though_its_first_iterator_expires() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.put("a", "long ago");
    let mut settings = world.settings();
    settings.start = Start::Latest;
    let mut bronze = Bronze::default();
    let mut daemon = world.daemon(settings, None);
    daemon.run_for(&mut bronze, Duration::from_millis(400));
    world.stub.expire_iterators();
    world.stub.put_at("a", "now", SystemClock.now_ms());
    daemon.run_until(&mut bronze, "the line", |bronze, _| bronze.count() > 0);
    assert_eq!(bronze.of("a"), ["now"]);
}

#[test]
fn aggregated_records_are_never_split_over_two_parts() {
    let world = World::new();
    world.stub.shard("a", &[]);
    for group in 0..3 {
        let lines: Vec<String> = (0..4).map(|number| format!("{group}-{number}")).collect();
        let records: Vec<(&str, &[u8])> = lines.iter().map(|line| ("key", line.as_bytes())).collect();
        world.stub.put("a", records::aggregate(&records));
    }
    let mut bronze = Bronze::default();
    let mut daemon = world.plain();
    let narrow = BatchLimits {
        bytes: 8 << 20,
        // An eighth of a batch is a part.
        records: 6 * 8,
    };
    let began = Instant::now();
    while bronze.count() < 12 && began.elapsed() < PATIENCE {
        daemon.turn(&mut bronze, narrow);
    }
    assert_eq!(daemon.parts, [(4, false), (4, false), (4, false)]);
    assert_eq!(bronze.of("a").concat(), "0-00-10-20-31-01-11-21-32-02-12-22-3");
    assert_eq!(bronze.marks["kinesis:s/a"].token.as_deref(), Some("10002"));
}

#[test]
fn a_full_queue_stops_reading_until_it_is_emptied() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.set_records_per_read(1);
    (0..12).for_each(|number| world.stub.put("a", format!("a{number}")));
    let reads_when = |queue_bytes| {
        let reads_before = world.stub.calls("GetRecords").len();
        let mut settings = world.settings();
        settings.queue_bytes = queue_bytes;
        let mut daemon = world.daemon(settings, None);
        while daemon.started.is_empty() {
            let found = daemon.source.discover().unwrap_or_default();
            for found in found {
                daemon.started.push(found.partition.to_string());
                daemon.source.start(&found.partition, None);
            }
        }
        std::thread::sleep(Duration::from_millis(2_000));
        let reads = world.stub.calls("GetRecords").len() - reads_before;
        let lag = daemon.source.lag().seconds.unwrap();
        let mut bronze = Bronze::default();
        daemon.run_until(&mut bronze, "all lines", |bronze, _| bronze.count() == 12);
        assert_eq!(bronze.of("a"), names("a", 12));
        (reads, lag)
    };
    let (reads, lag) = reads_when(1 << 20);
    assert_eq!(reads, QUEUE_ANSWERS, "answers in the queue");
    assert!((8.5..30.0).contains(&lag), "eight records wait, and time passes: {lag}");
    let (reads, _) = reads_when(1);
    assert_eq!(reads, 1, "one byte is enough to fill the budget");
}

#[test]
fn a_large_answer_is_handed_over_in_pieces_and_in_order() {
    let world = World::new();
    world.stub.shard("a", &[]);
    let long = "x".repeat(900 << 10);
    (0..6).for_each(|number| world.stub.put("a", format!("{number}{long}")));
    let mut settings = world.settings();
    settings.queue_bytes = 1 << 20;
    settings.answer_timeout = PATIENCE;
    let mut bronze = Bronze::default();
    let mut daemon = world.daemon(settings, None);
    // A part could hold it all, if it were there at once.
    let wide = BatchLimits {
        bytes: 128 << 20,
        records: 80_000,
    };
    let began = Instant::now();
    while bronze.count() < 6 && began.elapsed() < PATIENCE {
        daemon.turn(&mut bronze, wide);
    }
    let first_letters: String = bronze.of("a").iter().map(|line| &line[..1]).collect();
    assert_eq!(first_letters, "012345", "{:?}", daemon.errors);
    assert!(daemon.parts.len() > 1, "{:?}", daemon.parts);
}

#[test]
fn a_missing_stream_is_an_error_with_advice_and_asked_for_again() {
    let world = World::new();
    world.stub.set_missing(true);
    let mut bronze = Bronze::default();
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "the error", |_, daemon| !daemon.errors.is_empty());
    let text = daemon.errors[0].to_string();
    assert_eq!(
        text,
        "source `plays`: stream s is not there; make it, or correct `stream`, `region` and the account; it is asked again"
    );
    world.stub.set_missing(false);
    world.stub.shard("a", &[]);
    world.stub.put("a", "a0");
    daemon.run_until(&mut bronze, "the line", |bronze, _| bronze.count() == 1);
}

#[test]
fn of_a_shard_that_retention_took_the_loss_is_told_and_its_child_is_read() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.put("a", "a0");
    let mut bronze = Bronze::default();
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "the first line", |bronze, _| bronze.count() == 1);

    // While the daemon is away the shard is split, and all of its records grow old.
    drop(daemon);
    world.stub.shard("b", &["a"]);
    world.stub.put("b", "b0");
    world.stub.remove("a");
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "the child's line", |bronze, _| bronze.count() == 2);
    assert_eq!(daemon.errors.len(), 1);
    assert!(
        daemon.errors[0].what.contains("shard a was removed by retention"),
        "{}",
        daemon.errors[0]
    );
    assert!(bronze.is_ended("a"));

    // The next life knows that it is over, and tells nothing.
    drop(daemon);
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "the child", |_, daemon| daemon.started.len() == 2);
    daemon.run_for(&mut bronze, Duration::from_millis(300));
    assert_eq!((bronze.count(), daemon.errors.len()), (2, 0));
}

#[test]
fn a_shard_that_goes_while_it_is_read_ends_with_an_error() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.put("a", "a0");
    let mut bronze = Bronze::default();
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "the first line", |bronze, _| bronze.count() == 1);
    world.stub.shard("b", &["a"]);
    world.stub.put("b", "b0");
    world.stub.remove("a");
    daemon.run_until(&mut bronze, "the child's line", |bronze, _| bronze.count() == 2);
    assert_eq!((daemon.errors.len(), bronze.is_ended("a")), (1, true));
}

#[test]
fn a_child_of_parents_that_nobody_knows_is_read_without_ado() {
    let world = World::new();
    world.stub.shard("b", &["gone"]);
    world.stub.put("b", "b0");
    let mut bronze = Bronze::default();
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "the line", |bronze, _| bronze.count() == 1);
    assert_eq!(daemon.errors, []);
}

#[test]
fn a_mark_of_another_stream_is_told_and_reading_begins_at_the_oldest() {
    let world = World::new();
    world.stub.shard("a", &[]);
    world.stub.put("a", "a0");
    let mut bronze = Bronze::default();
    let foreign = Mark {
        offset: 41,
        token: Some("77".into()),
    };
    bronze.marks.insert("kinesis:s/a".into(), foreign);
    let mut daemon = world.plain();
    daemon.run_until(&mut bronze, "the line", |bronze, _| bronze.count() == 1);
    assert_eq!(bronze.marks["kinesis:s/a"].offset, 42);
    assert!(
        daemon.errors[0].what.starts_with("shard a does not know sequence number 77"),
        "{}",
        daemon.errors[0]
    );
}
