//! A cluster by roles: ingest daemons over a topic, what computes, one collector; against one daemon that does it all.
//!
//! Arroyo is stood in for (`stand_in` says what that proves and what not). Skipped where no broker can be started
//! (`tests/services/service kafka available` says how).

mod stand_in;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;

use crate::audience::{received, wait_for};
use crate::daemon::Daemon;
use crate::kafka::{PARTITIONS, TOPIC, send, source};
use crate::metrics::{door, sample, scrape};
use crate::relay::{create_topics, relay_settings};
use crate::services::{self, Service};
use crate::support::{Bench, simulate};

const STATUS: &str = "health and metrics on http://";
/// What Arroyo computes of the shipped pipelines (tests/it/arroyo.rs holds the same list against the plan).
const TABLES: [&str; 6] = [
    "audience_1m",
    "concurrency_1m",
    "ended_1m",
    "errors_1m",
    "latency_1m",
    "playback_1m",
];
/// Three hours after the audience the topic goes on, so that every session of it has ended.
const LATER_MS: i64 = 3 * 3_600_000;

/// Lines of an audience, a line later for each partition, and the second at which that begins.
fn lines() -> (Vec<String>, i64) {
    let bench = Bench::new();
    let folder = simulate(&bench, &["--sessions", "60", "--seed", "5", "--minutes", "30", "--incident"]);
    let text = std::fs::read_to_string(folder.join("player.ndjson")).expect("the simulation wrote it");
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    let time = |line: &String| {
        serde_json::from_str::<Value>(line).expect("JSON")["TimeStamp"]
            .as_i64()
            .expect("a time")
    };
    let last_ms = lines.iter().map(time).max().expect("some lines");
    let first: Value = serde_json::from_str(&lines[0]).expect("JSON");
    // Names that fall into every partition, several times over.
    for number in 0..30 {
        let mut line = first.clone();
        line["user_id"] = Value::from(format!("later-user-{number}"));
        line["TimeStamp"] = Value::from(last_ms + LATER_MS + number);
        lines.push(line.to_string());
    }
    (lines, (last_ms + LATER_MS) / 1000 - 3600)
}

fn ingest_settings(broker: &Service, relay: &str) -> String {
    let source = source(broker, "[beacons]", "g");
    format!(
        "{source}role: ingest\n{relay}ingest: {{commit_every: 200ms, poll_every: 50ms, batch_records: 500}}\n\
         http: {{status: \"127.0.0.1:0\"}}\n"
    )
}

/// Partitions that a daemon reads.
fn partitions(address: SocketAddr) -> f64 {
    sample(&scrape(address), "playhead_source_partitions", &[("source", "beacons")]).unwrap_or(0.0)
}

/// Rows of a gold table up to a second, without what tells who computed them; numbers to nine digits.
pub fn gold(bench: &Bench, table: &str, until_s: i64) -> Vec<String> {
    let rows = bench.sql(&format!("SELECT * FROM gold.{table} WHERE window_end <= to_timestamp({until_s})"));
    let plain = |mut row: Value| {
        let columns = row.as_object_mut().expect("a row is an object");
        for by_writer in ["pipeline_hash", "silver_versions", "is_final"] {
            columns.remove(by_writer);
        }
        for value in columns.values_mut() {
            if let Some(number) = value.as_f64().filter(|_| value.is_f64()) {
                *value = Value::from(format!("{number:.8e}"));
            }
        }
        row.to_string()
    };
    let mut rows: Vec<String> = rows.into_iter().map(plain).collect();
    rows.sort();
    rows
}

#[test]
fn two_ingest_daemons_and_one_collector_give_the_gold_of_one_daemon() {
    let Some(broker) = services::start("kafka") else { return };
    let (lines, until_s) = lines();
    let alone = Bench::new();
    alone.ingest(&[&alone.write("player.ndjson", lines.join("\n") + "\n")]);

    let benches = [Bench::new(), Bench::new()];
    broker.create_topic(TOPIC, PARTITIONS, &[]);
    let mut daemons: Vec<Daemon> = benches
        .iter()
        .map(|bench| Daemon::start(bench, &ingest_settings(&broker, "")))
        .collect();
    let addresses = [
        door(&mut daemons[0], &benches[0], STATUS),
        door(&mut daemons[1], &benches[1], STATUS),
    ];
    // A partition that moves while it is read would part its sessions.
    daemons[0].wait_until("the partitions are shared out", || {
        let shared = addresses.map(partitions);
        shared.iter().sum::<f64>() == f64::from(PARTITIONS) && shared.iter().all(|count| *count >= 1.0)
    });
    send(&broker, TOPIC, &lines, PARTITIONS);
    daemons[0].wait_until("every line is in one of the two lakes", || {
        benches.iter().map(received).sum::<usize>() == lines.len()
    });
    for daemon in daemons {
        assert!(daemon.stop().success());
    }
    for bench in &benches {
        assert!(received(bench) > 0, "both had a share");
        let own = bench.int("SELECT count(*) AS n FROM gold.playback_1m");
        assert_eq!(own, 0, "gold that Arroyo computes is left to it");
    }

    relay_all(&broker, &benches);
    let tables = TABLES.map(str::to_string);
    for table in &tables {
        broker.create_topic(&format!("playhead.gold.{table}"), PARTITIONS, &[]);
    }
    let counts = stand_in::compute(&broker, &tables, until_s);
    assert!(
        counts["playback_1m"] > 0 && counts["ended_1m"] > 0 && counts["concurrency_1m"] > 0,
        "{counts:?}"
    );

    let together = Bench::new();
    let settings = format!(
        "role: collect\ncollect: {{brokers: \"{}\", settle: 0s, idle: 2s}}\ningest: {{commit_every: 200ms}}\n",
        broker.address()
    );
    let mut collector = Daemon::start(&together, &settings);
    for table in ["playback_1m", "playback_5m", "ended_1m", "ended_5m"].into_iter().chain(TABLES) {
        let expected = gold(&alone, table, until_s);
        collector.wait_until(&format!("gold.{table} has {} rows", expected.len()), || {
            together.lake().join("gold").join(table).is_dir() && gold(&together, table, until_s).len() == expected.len()
        });
        let found = gold(&together, table, until_s);
        let first = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert!(first.is_none(), "{table}: {first:?}");
    }
    assert_eq!(together.int("SELECT count(*) AS n FROM silver.rejects"), 0);
    assert!(collector.stop().success());
}

/// Publishes what both lakes hold, one after the other, into the same topics.
fn relay_all(broker: &Service, benches: &[Bench]) {
    create_topics(broker, "playhead", PARTITIONS);
    for bench in benches {
        let settings = bench.write("relay.yaml", relay_settings(broker, PARTITIONS));
        // Twice: the second time there is nothing to publish, and rows of another lake in the topics are no reason to stop.
        for _ in 0..2 {
            let output = bench.run(&["relay", "--once", "--settings", settings.to_str().expect("a plain path")]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn a_daemon_in_the_role_ingest_publishes_what_closes_and_judges_no_alert() {
    let Some(broker) = services::start("kafka") else { return };
    let (lines, _) = lines();
    create_topics(&broker, "playhead", PARTITIONS);
    broker.create_topic(TOPIC, PARTITIONS, &[]);
    send(&broker, TOPIC, &lines, PARTITIONS);
    let bench = Bench::new();
    let relay = relay_settings(&broker, PARTITIONS);
    let mut daemon = Daemon::start(&bench, &ingest_settings(&broker, &relay));
    wait_for(&mut daemon, &bench, lines.len());
    // The audience's own minutes close as soon as what comes later is read.
    let audience =
        "SELECT event_id FROM silver.player_events WHERE event_ts < (SELECT max(event_ts) - INTERVAL '1 hour' FROM silver.player_events)";
    let published = || -> Vec<String> {
        let rows = crate::relay::published(&broker, "playhead.silver.player_events");
        rows.iter().map(|row| row.3["event_id"].to_string()).collect()
    };
    let expected: BTreeSet<String> = bench.sql(audience).iter().map(|row| row["event_id"].to_string()).collect();
    daemon.wait_until("the events of the audience are published", || published().len() >= expected.len());
    assert!(daemon.stop().success());
    let found = published();
    let once: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(once.len(), found.len(), "each once");
    assert!(
        !expected.is_empty() && expected.is_subset(&once),
        "{} of {}",
        once.len(),
        expected.len()
    );
    assert_eq!(bench.int("SELECT count(*) AS n FROM gold.playback_1m"), 0);
    assert_eq!(bench.int("SELECT count(*) AS n FROM ops.alert_events"), 0);
}
