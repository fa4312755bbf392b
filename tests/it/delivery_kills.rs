//! `kill -9` of the daemon while it tells SNS of alerts, with SNS away in the middle: nothing lost, nothing twice by
//! its id, the order of each alert kept.
//!
//! `PLAYHEAD_KILLS=100 cargo test --locked --test it delivery_kills -- --nocapture`; the seed is printed and can be
//! given as `PLAYHEAD_SEED`. The daemon, its lake and moto are real; what stands between them cuts every answer
//! while SNS is away, so that messages arrive and nobody learns of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::alerts::attempt;
use crate::aws::{self, Queue, Received, Topic, socket_address};
use crate::daemon::Daemon;
use crate::fault_proxy::{Fault, FaultProxy};
use crate::kill_loops::SMALL_EPOCHS;
use crate::restart::Dice;
use crate::services;
use crate::support::Bench;

/// Kills where nobody asks for more.
const USUAL_KILLS: usize = 6;
/// Event minutes of the file that comes before each kill: every group changes its state in each.
const MINUTES_A_FILE: i64 = 3;
const GROUPS: [(&str, &str); 4] = [
    ("Example TV", "tv"),
    ("Example Web", "desktop"),
    ("Example Mobile", "mobile"),
    ("Example Mobile", "tablet"),
];
/// What the log says once the lake has been taken up.
pub const RUNNING: &str = "playhead is running";
/// A kill that waits for something to be told comes after this time anyway.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest between the record of a transition and the kill, and between a start and the kill.
const SOON: Duration = Duration::from_millis(150);
const ANY_TIME: Duration = Duration::from_millis(2_000);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// `PLAYHEAD_KILLS` and `PLAYHEAD_SEED`, or the usual ones.
#[allow(clippy::disallowed_methods)] // Tests have no settings; the variables are documented above.
fn kills_and_seed() -> (usize, u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let kills = number("PLAYHEAD_KILLS").map_or(USUAL_KILLS, |kills| usize::try_from(kills).expect("a few hundred"));
    (kills, number("PLAYHEAD_SEED").unwrap_or(20_260_101))
}

/// Two viewers of four fail in every second minute: each minute begins or ends an alert of each group.
pub fn minutes(number: usize) -> String {
    let mut text = String::new();
    let first = i64::try_from(number).expect("a few hundred") * MINUTES_A_FILE;
    for minute in first..first + MINUTES_A_FILE {
        for (group, (app, device)) in (0..).zip(GROUPS) {
            for viewer in 0..4 {
                let fails = (minute + group) % 2 == 0 && viewer < 2;
                attempt(&mut text, app, device, minute, viewer, fails);
            }
        }
    }
    text
}

/// One viewer much later, who closes every minute before him.
fn much_later(files: usize) -> String {
    let mut text = String::new();
    let minute = i64::try_from(files).expect("a few hundred") * MINUTES_A_FILE + 60;
    attempt(&mut text, "Example Web", "desktop", minute, 0, false);
    text
}

fn rules(standard: &Topic, fifo: &Topic) -> String {
    format!(
        "version: 1\ntargets:\n  noc:\n    sns: {{topic_arn: \"{}\"}}\n  ordered:\n    sns: {{topic_arn: \"{}\"}}\nrules:\n  - alert: Errors\n    \
         from: gold.errors_1m\n    value: {{ratio: {{num: clients_with_errors, den: clients}}}}\n    window: 1m\n    group_by: [app_name, device_type]\n    \
         min_samples: 2\n    confidence: {{method: none}}\n    condition: \"> 5%\"\n    notify: {{targets: [noc, ordered]}}\n",
        standard.arn(),
        fifo.arn()
    )
}

pub fn move_in(bench: &Bench, name: &str, text: &str) {
    let elsewhere = bench.write(&format!("elsewhere/{name}"), text);
    std::fs::rename(elsewhere, bench.path("incoming").join(name)).expect("a file can be moved");
}

/// Every transition that is told, of windows that end by this minute: id, fingerprint, number and bytes.
fn told(bench: &Bench, files: usize) -> BTreeMap<String, (String, i64, String)> {
    let minutes = i64::try_from(files).expect("a few hundred") * MINUTES_A_FILE;
    let rows = bench.sql(&format!(
        "SELECT event_id, fingerprint, transition, message FROM ops.alert_events WHERE kind = 'transition' AND status IN ('firing', 'resolved') \
         AND window_end <= TIMESTAMP '2026-01-14 12:00:00' + INTERVAL '{minutes} minutes'"
    ));
    let text = |row: &Value, name: &str| row[name].as_str().expect("a text").to_owned();
    let told = rows.iter().map(|row| {
        let transition: Value = serde_json::from_str(&text(row, "transition")).expect("it is JSON");
        let number = transition["starts_at_ms"].as_i64().expect("a time") * 10 + transition["seq"].as_i64().expect("a number");
        (text(row, "event_id"), (text(row, "fingerprint"), number, text(row, "message")))
    });
    told.collect()
}

/// Commits of the table of alerts so far.
fn commits(lake: &Path) -> usize {
    let entries = std::fs::read_dir(lake.join("ops/alert_events/_delta_log"));
    entries.map_or(0, Iterator::count)
}

/// Waits for a moment and kills: soon after something new was recorded to be told, or at any time.
fn kill_somewhere(mut daemon: Daemon, bench: &Bench, dice: &mut Dice) {
    let log = daemon.own_log();
    if dice.share() < 0.3 {
        std::thread::sleep(ANY_TIME.mul_f64(dice.share()));
    } else {
        daemon.wait_until("the daemon is running", || log.text().contains(RUNNING));
        let (before, began) = (commits(&bench.lake()), Instant::now());
        while commits(&bench.lake()) == before && began.elapsed() < PATIENCE {
            std::thread::sleep(LOOK_EVERY);
        }
        std::thread::sleep(SOON.mul_f64(dice.share()));
    }
    let status = daemon.kill();
    assert!(!status.success(), "the daemon ended by itself: {}", log.text());
}

#[test]
fn delivery_kills_lose_no_message_and_double_none_by_its_id() {
    let Some(service) = services::start("moto") else { return };
    let (kills, seed) = kills_and_seed();
    println!("{kills} kills, seed {seed}; PLAYHEAD_SEED={seed} draws them again");
    let proxy = FaultProxy::start(socket_address(&service));
    let (standard, fifo) = (Topic::create(&service, "noc"), Topic::create(&service, "noc.fifo"));
    let (all, ordered) = (standard.queue("all", None), fifo.queue("ordered.fifo", None));
    let bench = aws::bench();
    bench.write("rules/rules.yaml", rules(&standard, &fifo));
    std::fs::create_dir(bench.path("incoming")).expect("a folder can be made");
    let settings = format!(
        "sources: [{{path: {}}}]\nalerts: {{folder: {}}}\nsns: {{endpoint_url: \"http://{}\"}}\n{SMALL_EPOCHS}",
        bench.path("incoming").display(),
        bench.path("rules").display(),
        proxy.address()
    );
    let mut dice = Dice(seed);
    let files = kills + 1;
    let away = kills / 3..2 * kills / 3;
    for number in 0..kills {
        proxy.set(if away.contains(&number) { Fault::Reset } else { Fault::Pass });
        move_in(&bench, &format!("part-{number:05}.ndjson"), &minutes(number));
        kill_somewhere(Daemon::start(&bench, &settings), &bench, &mut dice);
    }
    proxy.set(Fault::Pass);
    let mut daemon = Daemon::start(&bench, &settings);
    move_in(&bench, &format!("part-{kills:05}.ndjson"), &minutes(kills));
    move_in(&bench, "part-99999.ndjson", &much_later(files));

    let expected = undisturbed(&bench, files);
    assert_eq!(
        expected.len(),
        GROUPS.len() * files * MINUTES_A_FILE as usize - GROUPS.len() / 2,
        "one a group and minute"
    );
    let all_delivered = 2 * i64::try_from(expected.len()).expect("a few thousand");
    daemon.wait_while_it_moves(
        "everything is recorded and told",
        || {
            let delivered = bench.int("SELECT count(*) FROM ops.alert_events WHERE kind = 'delivery'");
            (told(&bench, files).len(), delivered)
        },
        |(told, delivered)| *told >= expected.len() && *delivered >= all_delivered,
    );
    assert!(daemon.stop().success());

    let recorded = told(&bench, files);
    assert_eq!(
        recorded.keys().collect::<BTreeSet<_>>(),
        expected.keys().collect::<BTreeSet<_>>(),
        "the same alerts as in a lake that nobody disturbed"
    );
    let repeated = check(&all, &recorded, false);
    check(&ordered, &recorded, true);
    println!(
        "{kills} kills, {} messages to each of two topics: none lost, none twice in the FIFO queue, {repeated} repeated under their id in the other",
        recorded.len()
    );
}

/// What a lake says that takes the same files at once and is never killed.
fn undisturbed(bench: &Bench, files: usize) -> BTreeMap<String, (String, i64, String)> {
    let mut other = Bench::new();
    other.set_settings(&format!(
        "alerts: {{folder: {}, deliver: false}}\nupkeep: {{bronze_days: 0, silver_days: 0, gold_days: 0, rejects_days: 0}}\n",
        bench.path("rules").display()
    ));
    other.ingest(&[&bench.path("incoming")]);
    told(&other, files)
}

/// Compares a queue with what was recorded; gives how many messages came again.
#[track_caller]
fn check(queue: &Queue, recorded: &BTreeMap<String, (String, i64, String)>, is_fifo: bool) -> usize {
    let got: Vec<Received> = queue.take_all();
    let mut seen = BTreeSet::new();
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut repeated = 0;
    for received in &got {
        let id = received.attributes["event_id"].as_str();
        // What the viewer much later begins and ends is told, too.
        let Some((fingerprint, number, body)) = recorded.get(id) else {
            continue;
        };
        assert_eq!(received.body, *body, "the bytes are those that were recorded");
        if !seen.insert(id) {
            repeated += 1;
            continue;
        }
        let before = newest.insert(fingerprint, *number);
        assert!(before.is_none_or(|before| before < *number), "the order of an alert is kept");
    }
    assert_eq!(seen.len(), recorded.len(), "none is lost");
    assert!(!is_fifo || repeated == 0, "{repeated} came twice in the FIFO queue");
    repeated
}
