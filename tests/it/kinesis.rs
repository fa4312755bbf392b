//! Events from a stream of Kinesis, through the daemon, to the tables that a file would give.
//!
//! kinesalite for flow, restarts and iterators that expire; kinesis-local for shards that are split and
//! merged. Skipped where they cannot be started (`tests/services/service kinesalite available` says how).
//! How it stands up to kills is in `kill_loops`.

use crate::audience::{Audience, wait_for};
use crate::aws::{self, Stream};
use crate::daemon::Daemon;
use crate::services::{self, Service};

pub const STREAM: &str = "beacons";
pub const SHARDS: u32 = 2;

/// Settings that read the stream and set nothing else.
pub fn source(service: &Service) -> String {
    let address = service.address();
    format!("sources:\n  - name: beacons\n    kinesis: {{stream: {STREAM}, endpoint_url: \"{address}\"}}\n")
}

fn settings(service: &Service) -> String {
    format!(
        "{}ingest: {{commit_every: 200ms, poll_every: 50ms, batch_records: 200}}\n",
        source(service)
    )
}

#[test]
fn a_stream_gives_the_tables_that_a_file_gives_through_a_stop_and_a_kill() {
    let Some(service) = services::start("kinesalite") else { return };
    let audience = Audience::simulated(60, 5);
    let stream = Stream::create(&service, STREAM, SHARDS);
    let bench = aws::bench();
    let start = || Daemon::start(&bench, &settings(&service));
    stream.send(audience.share(0, 4));
    let mut daemon = start();
    wait_for(&mut daemon, &bench, 1);
    // In the middle of what is there, and with more coming while nobody reads.
    assert!(daemon.stop().success());
    stream.send(audience.share(1, 4));
    let mut daemon = start();
    wait_for(&mut daemon, &bench, audience.first(1, 4) + 1);
    daemon.kill();
    stream.send(audience.share(2, 4));
    let mut daemon = start();
    wait_for(&mut daemon, &bench, audience.first(3, 4));
    stream.send(audience.share(3, 4));
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
    let partitions = bench.sql("SELECT DISTINCT source_partition AS p FROM bronze.player_events ORDER BY p");
    let partitions: Vec<&str> = partitions.iter().filter_map(|row| row["p"].as_str()).collect();
    assert_eq!(
        partitions,
        ["kinesis:beacons/shardId-000000000000", "kinesis:beacons/shardId-000000000001"],
        "both shards were read"
    );
}

#[test]
fn shards_that_are_split_and_merged_in_the_middle_cost_nothing() {
    let Some(service) = services::start("kinesis-local") else { return };
    let audience = Audience::simulated(60, 6);
    let stream = Stream::create(&service, STREAM, SHARDS);
    let bench = aws::bench();
    stream.send(audience.share(0, 4));
    let mut daemon = Daemon::start(&bench, &settings(&service));
    wait_for(&mut daemon, &bench, 1);
    stream.split(&stream.open_shards()[0]);
    stream.send(audience.share(1, 4));
    wait_for(&mut daemon, &bench, audience.first(2, 4));
    let open = stream.open_shards();
    assert_eq!(open.len(), 3, "{open:?}");
    // One that came of the split, and one that is as old as the stream.
    stream.merge(&open[1], &open[2]);
    stream.send(audience.share(2, 4));
    // A daemon that meets the family of shards with half of it read.
    assert!(daemon.stop().success());
    let mut daemon = Daemon::start(&bench, &settings(&service));
    stream.send(audience.share(3, 4));
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
    let partitions = bench.int("SELECT count(DISTINCT source_partition) AS n FROM bronze.player_events");
    assert_eq!(partitions, 5, "two to begin with, two of the split, one of the merge");
}

#[test]
fn an_iterator_that_expires_is_drawn_anew_where_reading_stood() {
    let Some(service) = services::start_with_movable_clock() else {
        return;
    };
    let audience = Audience::simulated(40, 7);
    let stream = Stream::create(&service, STREAM, SHARDS);
    let bench = aws::bench();
    stream.send(audience.share(0, 2));
    let talkative = format!("{}log: {{level: debug}}\n", settings(&service));
    let mut daemon = Daemon::start(&bench, &talkative);
    wait_for(&mut daemon, &bench, audience.first(1, 2));
    service.shift_clock(301);
    let log = bench.path("run.log");
    let expired = || std::fs::read_to_string(&log).is_ok_and(|log| log.matches("the iterator expired").count() >= SHARDS as usize);
    daemon.wait_until("the iterators of both shards have expired", expired);
    stream.send(audience.share(1, 2));
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(
        !daemon.log().contains("WARN beacons"),
        "an iterator that expires is nobody's trouble\n{}",
        daemon.log()
    );
    assert!(daemon.stop().success());
}

#[test]
fn a_kinesis_that_dies_and_comes_back_costs_nothing_and_is_told_once_a_shard() {
    let Some(service) = services::start("kinesalite") else { return };
    let audience = Audience::simulated(40, 8);
    let stream = Stream::create(&service, STREAM, SHARDS);
    let bench = aws::bench();
    stream.send(audience.share(0, 2));
    let mut daemon = Daemon::start(&bench, &settings(&service));
    wait_for(&mut daemon, &bench, 1);
    service.kill();
    let told = |shard: u32| format!("shard shardId-{shard:012} cannot be read");
    let log = bench.path("run.log");
    let is_told = |what: &str| std::fs::read_to_string(&log).is_ok_and(|log| log.contains(what));
    daemon.wait_until("both shards are known to fail", || (0..SHARDS).all(|shard| is_told(&told(shard))));
    service.restart();
    stream.send(audience.share(1, 2));
    audience.wait_until_equal(&mut daemon, &bench);
    for shard in 0..SHARDS {
        assert_eq!(daemon.log().matches(&told(shard)).count(), 1, "{}", daemon.log());
    }
    let listing = daemon.log().matches("stream beacons cannot be reached").count();
    assert!(listing <= 1, "told {listing} times\n{}", daemon.log());
    assert!(daemon.stop().success());
}

#[test]
fn what_was_newest_is_known_after_a_kill_and_closes_what_is_due_though_nothing_more_comes() {
    let Some(service) = services::start("kinesalite") else { return };
    // One shard of it stands minutes before the other at the end: only its silence brings the watermark on.
    let audience = Audience::simulated(60, 5);
    Stream::create(&service, STREAM, SHARDS).send(&audience.lines);
    let bench = aws::bench();
    let mut daemon = Daemon::start(&bench, &settings(&service));
    wait_for(&mut daemon, &bench, audience.lines.len());
    daemon.kill();
    let mut daemon = Daemon::start(&bench, &settings(&service));
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
}
