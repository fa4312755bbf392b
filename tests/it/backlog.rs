//! How fast a backlog in Kafka becomes gold, in how much memory, and how soon what is sent can be asked for.
//!
//! The figures are printed and not judged, for they belong to a machine; that nothing is missing is judged.
//! `PLAYHEAD_BACKLOG=10000000 cargo test --release --locked backlog -- --nocapture` takes ten million
//! events, and a minute of sending.

use std::time::{Duration, Instant, SystemTime};

use chrono::DateTime;

use crate::audience::received;
use crate::daemon::{Daemon, OwnLog};
use crate::kafka::{self, PARTITIONS, Sender, TOPIC};
use crate::services;
use crate::support::{Bench, simulate};

/// Where nobody asks for more: enough for some epochs.
const USUAL_EVENTS: usize = 5_000;
/// Player events that `simulate` makes of a session, on average.
const EVENTS_PER_SESSION: usize = 25;
/// A busy service: so many events come in a minute of event time.
const EVENTS_A_MINUTE: usize = 100_000;
/// Sent together when it is measured how soon they can be asked for.
const EVENTS_A_TURN: usize = 50;
const TURN: Duration = Duration::from_millis(50);
/// What was simulated is older than any retention.
const KEPT: &str = "upkeep: {bronze_days: 0, silver_days: 0, gold_days: 0, rejects_days: 0}\n";

#[allow(clippy::disallowed_methods)] // Tests have no settings; the variable is documented above.
fn wanted() -> Option<usize> {
    let wanted = std::env::var("PLAYHEAD_BACKLOG").ok()?;
    Some(wanted.parse().expect("a whole number"))
}

#[allow(clippy::disallowed_methods)] // What is measured is the time of this machine.
fn now() -> SystemTime {
    SystemTime::now()
}

/// So many simulated events, a line each.
pub fn events(count: usize) -> Vec<String> {
    let bench = Bench::new();
    let minutes = (count / EVENTS_A_MINUTE).max(20).to_string();
    let sessions = (count / EVENTS_PER_SESSION * 11 / 10).max(10).to_string();
    let folder = simulate(&bench, &["--sessions", &sessions, "--seed", "8", "--minutes", &minutes]);
    let text = std::fs::read_to_string(folder.join("player.ndjson")).expect("the simulation wrote it");
    text.lines().take(count).map(str::to_owned).collect()
}

/// Records that each epoch brought, and when it was through silver and gold.
fn epochs(log: &OwnLog) -> Vec<(SystemTime, usize)> {
    let text = log.text();
    let epoch = |line: &str| -> Option<(SystemTime, usize)> {
        let (_, rest) = line.split_once("epoch committed received=")?;
        let at = DateTime::parse_from_rfc3339(line.split_whitespace().next()?).ok()?;
        Some((at.into(), rest.split_whitespace().next()?.parse().ok()?))
    };
    text.lines().filter_map(epoch).collect()
}

pub fn carried(log: &OwnLog) -> usize {
    epochs(log).iter().map(|(_, records)| records).sum()
}

/// Largest memory that the process had so far, MiB.
pub fn peak_mib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    line.split_whitespace().next().expect("a number").parse::<u64>().expect("a number") / 1024
}

/// Waits as long as more comes from time to time.
pub fn wait_until_carried(daemon: &mut Daemon, log: &OwnLog, records: usize) {
    let mut before = 0;
    while before < records {
        daemon.wait_until("more is carried", || carried(log) > before);
        before = carried(log);
    }
}

#[test]
fn backlog_of_a_topic_becomes_gold_and_nothing_of_it_is_missing() {
    let Some(broker) = services::start("kafka") else { return };
    let count = wanted().unwrap_or(USUAL_EVENTS);
    broker.create_topic(TOPIC, PARTITIONS, &[]);
    let lines = events(count);
    let count = lines.len();
    kafka::send(&broker, TOPIC, &lines, PARTITIONS);
    drop(lines);
    let bench = Bench::new();
    let began = now();
    let mut daemon = Daemon::start(&bench, &format!("{}{KEPT}", kafka::source(&broker, "[beacons]", "g")));
    let log = daemon.own_log();
    wait_until_carried(&mut daemon, &log, count);
    let peak = peak_mib(&daemon);
    let epochs = epochs(&log);
    let (last, _) = epochs.last().expect("an epoch");
    let seconds = last.duration_since(began).expect("later").as_secs_f64();
    println!(
        "{count} events from Kafka to gold in {seconds:.1} s and {} epochs: {:.0} a second, {peak} MiB at the most",
        epochs.len(),
        count as f64 / seconds
    );
    assert_eq!(received(&bench), count);
    assert!(daemon.stop().success());
}

#[test]
fn backlog_or_not_what_is_sent_can_be_asked_for_soon() {
    let Some(broker) = services::start("kafka") else { return };
    let count = if wanted().is_some() { 60_000 } else { 2_000 };
    broker.create_topic(TOPIC, PARTITIONS, &[]);
    let lines = events(count);
    let bench = Bench::new();
    let cadence = Duration::from_secs(1);
    let settings = format!(
        "{}ingest: {{commit_every: 1s, poll_every: 50ms}}\n{KEPT}",
        kafka::source(&broker, "[beacons]", "g")
    );
    let mut daemon = Daemon::start(&bench, &settings);
    let log = daemon.own_log();
    let sender = Sender::to(&broker);
    // The group has come together, and what a first epoch costs is paid.
    sender.send(TOPIC, &lines[..EVENTS_A_TURN], PARTITIONS);
    wait_until_carried(&mut daemon, &log, EVENTS_A_TURN);
    let mut sent = Vec::new();
    for turn in lines[EVENTS_A_TURN..].chunks(EVENTS_A_TURN) {
        let began = Instant::now();
        sender.send(TOPIC, turn, PARTITIONS);
        sent.push((now(), turn.len()));
        std::thread::sleep(TURN.saturating_sub(began.elapsed()));
    }
    wait_until_carried(&mut daemon, &log, lines.len());
    let mut ages = ages_ms(&sent, &epochs(&log), EVENTS_A_TURN);
    ages.sort_unstable();
    let at = |share: f64| ages[((ages.len() - 1) as f64 * share) as usize];
    println!(
        "{} events, a commit every {cadence:?}: in silver and gold after {} ms at the median, {} ms at p99, {} ms at the most",
        ages.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert_eq!(received(&bench), lines.len());
    assert!(daemon.stop().success());
}

/// How long each event took from being sent to the end of the epoch that held it. All partitions are read
/// evenly, so the first events to come are in the first epochs.
fn ages_ms(sent: &[(SystemTime, usize)], epochs: &[(SystemTime, usize)], already: usize) -> Vec<u128> {
    let mut ages = Vec::new();
    let mut sent = sent.iter().flat_map(|(at, events)| std::iter::repeat_n(*at, *events));
    let mut passed = 0;
    for (at, events) in epochs {
        passed += events;
        while ages.len() + already < passed {
            let Some(sent) = sent.next() else { return ages };
            ages.push(at.duration_since(sent).unwrap_or_default().as_millis());
        }
    }
    ages
}
