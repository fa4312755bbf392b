//! A lake in S3: a daemon that reads a folder and keeps every table in a bucket.
//!
//! Skipped where moto cannot be started (`tests/services/service moto available` says how).

use std::time::{Duration, Instant};

use crate::audience::{Audience, wait_for};
use crate::aws::{self, Bucket};
use crate::daemon::Daemon;
use crate::fault_proxy::{Fault, FaultProxy};
use crate::services;
use crate::support::Bench;

/// How long a lake waits for a daemon that was killed.
const LEASE_TIME: Duration = Duration::from_secs(30);
/// How long a fault lasts: longer than ten quick tries take, and far from the lease time.
const FAULT: Duration = Duration::from_secs(4);
/// A version of it comes first in each epoch.
const BRONZE_LOG: &str = "playhead/bronze/player_events/_delta_log/";
const QUICK: &str = "ingest: {commit_every: 200ms, poll_every: 50ms, batch_records: 150}\n";
const FOLDER: &str = "sources: [{name: incoming, path: ./incoming}]\n";

/// A bench whose tables lie in the bucket `lake`, behind this endpoint.
fn bench(endpoint: &str) -> Bench {
    let mut bench = aws::bench();
    bench.set_settings(&format!("lake: {{url: \"s3://lake/playhead\", endpoint_url: \"{endpoint}\"}}\n"));
    std::fs::create_dir_all(bench.path("incoming")).expect("a folder can be made");
    bench
}

fn start(bench: &Bench) -> Daemon {
    Daemon::start(bench, &format!("{FOLDER}{QUICK}"))
}

/// A file as it appears in a folder: at once.
fn deliver(bench: &Bench, name: &str, lines: &[String]) {
    let mut text = lines.join("\n");
    text.push('\n');
    let written = bench.write(&format!("incoming/{name}.tmp"), text);
    std::fs::rename(written, bench.path(&format!("incoming/{name}"))).expect("a file can be renamed");
}

#[test]
fn a_lake_in_s3_holds_what_a_local_one_does_and_goes_on_where_it_stopped() {
    let Some(service) = services::start("moto") else { return };
    let audience = Audience::simulated(30, 25);
    let bucket = Bucket::create(&service, "lake");
    let bench = bench(service.address());
    deliver(&bench, "1.ndjson", audience.share(0, 3));
    let mut daemon = start(&bench);
    wait_for(&mut daemon, &bench, audience.first(1, 3));
    deliver(&bench, "2.ndjson", audience.share(1, 3));
    wait_for(&mut daemon, &bench, audience.first(1, 3) + 1);
    assert!(daemon.stop().success());
    deliver(&bench, "3.ndjson", audience.share(2, 3));
    let mut daemon = start(&bench);
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
    for layer in ["bronze", "silver", "gold", "ops"] {
        assert!(!bench.lake().join(layer).exists(), "{layer} lies on this machine");
        assert!(
            !bucket.keys(&format!("playhead/{layer}/")).is_empty(),
            "{layer} is not in the bucket"
        );
    }
    let keys = bucket.keys("");
    assert!(keys.iter().all(|key| key.starts_with("playhead/")), "{keys:?}");
    assert!(
        !keys.iter().any(|key| key.ends_with("playhead.key")),
        "the key leaves this machine: {keys:?}"
    );
}

#[test]
fn a_second_daemon_is_refused_by_name_and_takes_over_when_the_first_is_killed() {
    let Some(service) = services::start("moto") else { return };
    let audience = Audience::simulated(30, 26);
    Bucket::create(&service, "lake");
    let (first, second) = (bench(service.address()), bench(service.address()));
    deliver(&first, "1.ndjson", audience.share(0, 3));
    deliver(&first, "2.ndjson", audience.share(1, 3));
    let mut daemon = start(&first);
    wait_for(&mut daemon, &first, 1);

    let mut refused = start(&second);
    assert_eq!(refused.wait_for_end().code(), Some(1), "{}", refused.log());
    let holder = format!("pid {} on ", daemon.pid());
    let told = refused.log();
    assert!(told.contains("s3://lake/playhead/") && told.contains(&holder), "{told}");

    daemon.kill();
    let killed = Instant::now();
    deliver(&first, "3.ndjson", audience.share(2, 3));
    let mut daemon = start(&first);
    audience.wait_until_equal(&mut daemon, &first);
    assert!(killed.elapsed() >= LEASE_TIME, "it took a lake over whose holder might have lived");
    assert!(daemon.stop().success());
}

#[test]
fn a_lake_that_is_slow_cut_or_silent_for_some_seconds_loses_nothing_and_doubles_nothing() {
    let Some(service) = services::start("moto") else { return };
    let audience = Audience::simulated(30, 27);
    let bucket = Bucket::create(&service, "lake");
    let proxy = FaultProxy::start(aws::socket_address(&service));
    let writer = bench(&format!("http://{}", proxy.address()));
    // The one who looks goes past every fault.
    let reader = bench(service.address());
    let mut daemon = start(&writer);
    let faults = [
        Fault::Delay(Duration::from_millis(100)),
        Fault::CutAfter { bytes: 400 },
        Fault::Reset,
        Fault::BlackHole,
    ];
    daemon.wait_until("the lake is made", || !bucket.keys("playhead/gold/").is_empty());
    for (number, fault) in faults.into_iter().enumerate() {
        let versions = bucket.keys(BRONZE_LOG).len();
        deliver(&writer, &format!("{number}.ndjson"), audience.share(number, faults.len()));
        // So that it falls into the middle of an epoch's commits.
        daemon.wait_until("the epoch has begun to commit", || bucket.keys(BRONZE_LOG).len() > versions);
        proxy.set(fault);
        let began = Instant::now();
        daemon.wait_until("the fault lasted for a while", || began.elapsed() >= FAULT);
        proxy.set(Fault::Pass);
        let log = writer.path("run.log");
        let epochs = || std::fs::read_to_string(&log).map_or(0, |log| log.matches("epoch committed").count());
        daemon.wait_until("the epoch is committed after all", || epochs() > number);
    }
    audience.wait_until_equal(&mut daemon, &reader);
    assert!(daemon.stop().success());
}
