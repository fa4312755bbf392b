//! Events in objects of S3, through the daemon, to the tables that a file would give.
//!
//! Skipped where moto cannot be started (`tests/services/service moto available` says how).

use std::io::Write;
use std::time::{Duration, Instant};

use crate::audience::{Audience, received, wait_for};
use crate::aws::{self, Bucket, Queue};
use crate::daemon::Daemon;
use crate::fault_proxy::{Fault, FaultProxy};
use crate::services;
use crate::support::Bench;

/// How long a black hole stays open: longer than any answer of moto takes, shorter than anybody's
/// patience with one request.
const BLACK_HOLE: Duration = Duration::from_secs(3);
/// Listings that fail before the log is looked at: what is said each time would be there as often.
const LISTINGS_THAT_FAIL: usize = 2;

fn settings(endpoint: &str, more: &str) -> String {
    format!(
        "sources:\n  - name: logs\n    s3: {{url: \"s3://logs/in/\", endpoint_url: \"{endpoint}\"{more}}}\n\
         ingest: {{commit_every: 200ms, poll_every: 50ms, batch_records: 200}}\n"
    )
}

fn plain(lines: &[String]) -> Vec<u8> {
    let mut text = lines.join("\n").into_bytes();
    text.push(b'\n');
    text
}

fn gzip(lines: &[String]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&plain(lines)).expect("memory takes it");
    packer.finish().expect("memory takes it")
}

fn zstd(lines: &[String]) -> Vec<u8> {
    zstd::encode_all(&*plain(lines), 1).expect("memory takes it")
}

fn partitions(bench: &Bench) -> Vec<String> {
    let rows = bench.sql("SELECT DISTINCT source_partition AS p FROM bronze.player_events ORDER BY p");
    let name = |row: &serde_json::Value| row["p"].as_str().expect("every event has a partition").to_string();
    rows.iter().map(name).collect()
}

#[test]
fn objects_of_every_packing_are_read_once_whatever_their_names_and_whoever_is_killed() {
    let Some(service) = services::start("moto") else { return };
    let audience = Audience::simulated(60, 15);
    let bucket = Bucket::create(&service, "logs");
    let bench = aws::bench();
    let start = || Daemon::start(&bench, &settings(service.address(), ", list_every: 1s"));
    bucket.put("in/2026-01-01/m.ndjson", &plain(audience.share(0, 6)));
    bucket.put("in/2026-01-01/n.ndjson.gz", &gzip(audience.share(1, 6)));
    // Neither of ours nor finished.
    bucket.put("elsewhere/m.ndjson", b"no event\n");
    bucket.put("in/2026-01-01/_unfinished.ndjson", b"no event\n");
    let mut daemon = start();
    wait_for(&mut daemon, &bench, 1);
    bucket.put("in/2026-01-01/o.ndjson.zst", &zstd(audience.share(2, 6)));
    assert!(daemon.stop().success());
    bucket.put("in/2026-01-01/m.ndjson", &plain(audience.share(0, 6)));
    let mut daemon = start();
    wait_for(&mut daemon, &bench, audience.first(3, 6));
    // Before everything else by its name.
    bucket.put("in/2025-12-31/a.ndjson.gz", &gzip(audience.share(3, 6)));
    wait_for(&mut daemon, &bench, audience.first(3, 6) + 1);
    daemon.kill();
    bucket.put("in/2026-01-01/n.ndjson.gz", &gzip(audience.share(1, 6)));
    bucket.put("in/2026-01-01/p.ndjson", &plain(audience.share(4, 6)));
    let mut daemon = start();
    bucket.put("in/2026-01-01/b.ndjson.zst", &zstd(audience.share(5, 6)));
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
    let names: Vec<String> = partitions(&bench)
        .iter()
        .map(|partition| partition.split('#').next().unwrap_or_default().replace("s3://logs/in/", ""))
        .collect();
    assert_eq!(
        names,
        [
            "2025-12-31/a.ndjson.gz",
            "2026-01-01/b.ndjson.zst",
            "2026-01-01/m.ndjson",
            "2026-01-01/n.ndjson.gz",
            "2026-01-01/o.ndjson.zst",
            "2026-01-01/p.ndjson"
        ],
        "six objects, one version of each"
    );
    assert_eq!(bench.int("SELECT count(*) AS n FROM silver.rejects"), 0);
}

#[test]
fn an_object_that_a_queue_announces_twice_is_read_once_and_no_message_is_left() {
    let Some(service) = services::start("moto") else { return };
    let audience = Audience::simulated(40, 16);
    let bucket = Bucket::create(&service, "logs");
    let queue = Queue::create(&service, "new-objects");
    bucket.announce_in(&queue);
    let bench = aws::bench();
    // Listed once, at the start: what comes later is known from the queue alone.
    let more = format!(", list_every: 24h, queue_url: \"{}\"", queue.url());
    let start = || Daemon::start(&bench, &settings(service.address(), &more));
    bucket.put("in/a b+c.ndjson", &plain(audience.share(0, 4)));
    let mut daemon = start();
    wait_for(&mut daemon, &bench, audience.first(1, 4));
    bucket.put("in/second.ndjson.gz", &gzip(audience.share(1, 4)));
    queue.announce(&bucket, "in/second.ndjson.gz");
    wait_for(&mut daemon, &bench, audience.first(1, 4) + 1);
    daemon.kill();
    // Both the listing at the start and the queue find this one.
    bucket.put("in/third.ndjson", &plain(audience.share(2, 4)));
    let mut daemon = start();
    wait_for(&mut daemon, &bench, audience.first(3, 4));
    queue.announce(&bucket, "in/second.ndjson.gz");
    bucket.put("elsewhere/fourth.ndjson", b"no event\n");
    bucket.put("in/fourth.ndjson.zst", &zstd(audience.share(3, 4)));
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
    // Deliveries to the daemon that was killed come again once they are held back no longer.
    assert_eq!(partitions(&bench).len(), 4);
    assert_eq!(bench.int("SELECT count(*) AS n FROM silver.rejects"), 0);
}

#[test]
fn messages_of_objects_that_are_in_the_lake_are_deleted() {
    let Some(service) = services::start("moto") else { return };
    let audience = Audience::simulated(5, 17);
    let bucket = Bucket::create(&service, "logs");
    let queue = Queue::create(&service, "new-objects");
    bucket.announce_in(&queue);
    let bench = aws::bench();
    let more = format!(", list_every: 24h, queue_url: \"{}\"", queue.url());
    let mut daemon = Daemon::start(&bench, &settings(service.address(), &more));
    bucket.put("in/first.ndjson", &plain(&audience.lines));
    queue.announce(&bucket, "in/first.ndjson");
    wait_for(&mut daemon, &bench, audience.lines.len());
    daemon.wait_until("no message is left", || queue.messages() == 0);
    assert!(daemon.stop().success());
}

#[test]
fn a_store_that_resets_cuts_dawdles_or_is_silent_costs_nothing_and_is_told_once() {
    let Some(service) = services::start("moto") else { return };
    let audience = Audience::simulated(40, 18);
    let bucket = Bucket::create(&service, "logs");
    let proxy = FaultProxy::start(aws::socket_address(&service));
    let bench = aws::bench();
    bucket.put("in/0.ndjson", &plain(audience.share(0, 6)));
    let endpoint = format!("http://{}", proxy.address());
    let mut daemon = Daemon::start(&bench, &settings(&endpoint, ", list_every: 1s"));
    wait_for(&mut daemon, &bench, audience.first(1, 6));

    for (number, fault) in [(1, Fault::Reset), (2, Fault::CutAfter { bytes: 150 })] {
        let before = told(&daemon);
        proxy.set(fault);
        bucket.put(&format!("in/{number}.ndjson.gz"), &gzip(audience.share(number, 6)));
        let log = bench.path("run.log");
        let has_told = || std::fs::read_to_string(&log).is_ok_and(|log| log.matches("cannot list").count() > before);
        daemon.wait_until("the log says that the listing fails", has_told);
        let connections = proxy.connections();
        // Each listing tries three times.
        daemon.wait_until("the listing has failed some times more", || {
            proxy.connections() >= connections + 3 * LISTINGS_THAT_FAIL
        });
        assert_eq!(told(&daemon), before + 1, "{fault:?}: what is wrong is told once\n{}", daemon.log());
        proxy.set(Fault::Pass);
        wait_for(&mut daemon, &bench, audience.first(number + 1, 6));
    }

    let before = told(&daemon);
    proxy.set(Fault::Delay(Duration::from_millis(300)));
    bucket.put("in/3.ndjson.zst", &zstd(audience.share(3, 6)));
    wait_for(&mut daemon, &bench, audience.first(4, 6));

    proxy.set(Fault::BlackHole);
    bucket.put("in/4.ndjson", &plain(audience.share(4, 6)));
    let opened = Instant::now();
    daemon.wait_until("the black hole has been there for a while", || opened.elapsed() >= BLACK_HOLE);
    assert_eq!(received(&bench), audience.first(4, 6), "nothing comes out of a black hole");
    proxy.set(Fault::Pass);
    bucket.put("in/5.ndjson", &plain(audience.share(5, 6)));
    audience.wait_until_equal(&mut daemon, &bench);
    assert_eq!(told(&daemon), before, "slow is not wrong\n{}", daemon.log());
    assert!(daemon.stop().success());
}

/// How often the log says that the bucket cannot be listed.
fn told(daemon: &Daemon) -> usize {
    daemon.log().matches("cannot list").count()
}
