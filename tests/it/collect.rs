//! The collector: results in Kafka topics to gold, each once, whatever comes and whatever is killed.
//!
//! The results are written by this test as Arroyo writes them: JSON rows in transactions, keyed by window, each
//! with the text that made it. Skipped where no broker can be started (`tests/services/service kafka available` says how).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::killing::Kills;
use crate::metrics::{door, sample, scrape, sum};
use crate::services::{self, Service};
use crate::support::Bench;

const PARTITIONS: u32 = 3;
const FLUSH: Duration = Duration::from_secs(60);
/// 2026-01-14T12:00:00Z, in minutes.
const NOON: i64 = 29_473_200;
const STATUS: &str = "health and metrics on http://";
/// What the log says once results are taken in.
const COLLECTS: &str = "playhead collects";
/// Unless `PLAYHEAD_KILLS` says otherwise.
const KILLS: usize = 12;

const PIPELINE: &str = "-- Requests by CDN.\n-- Rolls up: 5 minutes\n-- Columns:\n--   requests: requests (count)\n\
    SELECT window.start AS window_start, window.end AS window_end, cdn, requests\nFROM (\n  \
    SELECT tumble(interval '1 minute') AS window, cdn, count(*) AS requests\n  \
    FROM silver.cdn_requests\n  GROUP BY window, cdn\n) AS minutes\n";

const RULE: &str = "version: 1\ntargets:\n  console:\n    stdout: {}\ngroups:\n  - name: load\n    interval: watermark\n    rules:\n      \
    - alert: ManyRequests\n        uid: many-requests\n        owner: team\n        from: gold.requests_1m\n        \
    value: {expr: \"sum(requests)\"}\n        window: 1m\n        group_by: [cdn]\n        samples: requests\n        min_samples: 1\n        \
    condition: {test: value, op: \">\", threshold: 1000}\n        severity: critical\n        annotations:\n          \
    summary: \"{{ value }} requests\"\n        notify: {targets: [console]}\n";

/// A broker that Arroyo writes to, and a lake.
struct Cluster {
    broker: Service,
    bench: Bench,
}

/// One result: minute after noon, CDN, requests, the text that made it.
type Row<'a> = (i64, &'a str, i64, &'a str);

fn minute_text(minute: i64) -> String {
    let at = chrono::DateTime::from_timestamp((NOON + minute) * 60, 0).expect("a time");
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn json((minute, cdn, requests, text): Row<'_>) -> (String, String) {
    let (start, end) = (minute_text(minute), minute_text(minute + 1));
    let row = serde_json::json!({
        "window_start": start, "window_end": end, "cdn": cdn, "requests": requests,
        "playhead_window": start, "playhead_text": text,
    });
    (start, row.to_string())
}

/// Someone who writes results, as a subtask of Arroyo does.
pub struct Writer {
    producer: BaseProducer,
}

impl Writer {
    pub fn new(broker: &Service, name: &str) -> Writer {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", broker.address())
            .set("transactional.id", name)
            .create()
            .expect("a producer needs no broker to be made");
        producer.init_transactions(FLUSH).expect("the broker answers");
        Writer { producer }
    }

    /// Writes records with their keys in one transaction.
    pub fn write(&self, topic: &str, records: &[(String, String)], is_committed: bool) {
        self.producer.begin_transaction().expect("none is open");
        for (key, row) in records {
            let mut record = BaseRecord::to(topic).key(key).payload(row);
            while let Err((_, returned)) = self.producer.send(record) {
                self.producer.poll(Duration::from_millis(50));
                record = returned;
            }
        }
        match is_committed {
            true => self.producer.commit_transaction(FLUSH),
            false => self.producer.flush(FLUSH).and_then(|()| self.producer.abort_transaction(FLUSH)),
        }
        .expect("the broker answers");
    }
}

impl Cluster {
    fn start() -> Option<Cluster> {
        let broker = services::start("kafka")?;
        broker.create_topic("playhead.gold.requests_1m", PARTITIONS, &[]);
        let bench = Bench::new();
        bench.write("pipelines/requests_1m.sql", PIPELINE);
        bench.write("alerts/rule.yaml", RULE);
        Some(Cluster { broker, bench })
    }

    fn settings(&self) -> String {
        settings(&self.bench, self.broker.address())
    }

    fn write(&self, name: &str, rows: &[Row<'_>]) {
        let records: Vec<(String, String)> = rows.iter().copied().map(json).collect();
        Writer::new(&self.broker, name).write("playhead.gold.requests_1m", &records, true);
    }

    /// Minute, CDN and requests of a table.
    fn rows(&self, table: &str) -> Vec<(i64, String, i64)> {
        let query = format!("SELECT date_part('epoch', window_start) AS at, cdn, requests FROM {table} WHERE is_final ORDER BY 1, 2");
        let rows = self.bench.sql(&query);
        let row = |row: &Value| {
            let minute = row["at"].as_f64().expect("a time") as i64 / 60 - NOON;
            (
                minute,
                row["cdn"].as_str().expect("a name").to_string(),
                row["requests"].as_i64().expect("a number"),
            )
        };
        rows.iter().map(row).collect()
    }

    #[track_caller]
    fn wait_for(&self, daemon: &mut Daemon, table: &str, expected: &[(i64, &str, i64)]) {
        let expected: Vec<(i64, String, i64)> = expected.iter().map(|(at, cdn, n)| (*at, (*cdn).to_string(), *n)).collect();
        let is_made = || self.bench.lake().join(table.replace('.', "/")).is_dir();
        daemon.wait_until(&format!("{table} holds {expected:?}"), || is_made() && self.rows(table) == expected);
    }
}

fn settings(bench: &Bench, brokers: &str) -> String {
    format!(
        "role: collect\npipelines: {{folder: {}}}\nalerts: {{folder: {}}}\ncollect: {{brokers: \"{brokers}\", settle: 0s, idle: 2s}}\n\
         ingest: {{commit_every: 200ms}}\nhttp: {{status: \"127.0.0.1:0\"}}\n",
        bench.path("pipelines").display(),
        bench.path("alerts").display()
    )
}

fn status(daemon: &mut Daemon, bench: &Bench) -> SocketAddr {
    door(daemon, bench, STATUS)
}

#[test]
fn results_become_gold_with_its_roll_ups_alerts_metrics_and_a_place_for_what_is_no_row() {
    let Some(cluster) = Cluster::start() else { return };
    let rows: Vec<Row<'_>> = (0..6)
        .flat_map(|at| [(at, "a", 10 + at, "t"), (at, "b", 5000 * i64::from(at == 2), "t")])
        .collect();
    cluster.write("one", &rows);
    let other = Writer::new(&cluster.broker, "other");
    other.write("playhead.gold.requests_1m", &[json((3, "never", 1, "t"))], false);
    let bad = ["no json", r#"{"cdn":"198.51.100.77"}"#].map(|text| ("k".to_string(), text.to_string()));
    other.write("playhead.gold.requests_1m", &bad, true);
    let mut daemon = Daemon::start(&cluster.bench, &cluster.settings());
    let expected: Vec<(i64, &str, i64)> = rows.iter().map(|(at, cdn, n, _)| (*at, *cdn, *n)).collect();
    cluster.wait_for(&mut daemon, "gold.requests_1m", &expected);
    cluster.wait_for(&mut daemon, "gold.requests_5m", &[(0, "a", 60), (0, "b", 5000)]);
    let bench = &cluster.bench;
    let rejects = "SELECT reason, source_partition, source_offset FROM silver.rejects ORDER BY 1";
    daemon.wait_until("both bad records are rejected", || bench.sql(rejects).len() == 2);
    let found = bench.sql(rejects);
    assert_eq!(
        (&found[0]["reason"], &found[1]["reason"]),
        (&Value::from("malformed_json"), &Value::from("missing_event_time"))
    );
    assert!(
        found[0]["source_partition"]
            .as_str()
            .expect("a place")
            .starts_with("kafka:playhead.gold.requests_1m/"),
        "{found:?}"
    );
    let fired = "SELECT count(*) AS n FROM ops.alert_events WHERE kind = 'transition' AND status = 'firing'";
    daemon.wait_until("the alert over the collected table has fired", || bench.int(fired) == 1);
    let address = status(&mut daemon, bench);
    let table = ("table", "gold.requests_1m");
    daemon.wait_until("nothing waits", || {
        sample(&scrape(address), "playhead_collect_lag_records", &[table]) == Some(0.0)
    });
    let samples = scrape(address);
    let of = |outcome: &str| sample(&samples, "playhead_collect_rows_total", &[table, ("outcome", outcome)]);
    assert_eq!((of("stored"), of("superseded"), of("rejected")), (Some(12.0), Some(0.0), Some(2.0)));
    let fate = |name: &str| sum(&samples, name, &[("source", "arroyo results")]);
    assert_eq!(fate("playhead_records_received_total"), 14.0);
    assert_eq!(
        fate("playhead_records_stored_total") + fate("playhead_records_rejected_total"),
        14.0
    );
    // Statistics and days: what is asked for one window reads one file.
    let lineage = bench.sql("SELECT DISTINCT pipeline_hash, split_part(silver_versions, '/', 1) AS from_topic FROM gold.requests_1m");
    assert_eq!(lineage.len(), 1, "{lineage:?}");
    assert_eq!(
        (&lineage[0]["pipeline_hash"], &lineage[0]["from_topic"]),
        (&Value::from("t"), &Value::from("kafka:playhead.gold.requests_1m"))
    );
    assert!(daemon.stop().success());
    assert_eq!(bench.int(fired), 1, "judged once");
}

#[test]
fn a_later_result_replaces_the_earlier_one_and_another_text_the_whole_window() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.write("one", &[(0, "a", 1, "t"), (0, "b", 2, "t"), (1, "a", 3, "t")]);
    let mut daemon = Daemon::start(&cluster.bench, &cluster.settings());
    cluster.wait_for(&mut daemon, "gold.requests_1m", &[(0, "a", 1), (0, "b", 2), (1, "a", 3)]);
    cluster.write("one", &[(0, "a", 7, "t"), (4, "a", 1, "t")]);
    cluster.wait_for(
        &mut daemon,
        "gold.requests_1m",
        &[(0, "a", 7), (0, "b", 2), (1, "a", 3), (4, "a", 1)],
    );
    cluster.wait_for(&mut daemon, "gold.requests_5m", &[(0, "a", 11), (0, "b", 2)]);
    cluster.write("one", &[(0, "a", 4, "u")]);
    cluster.wait_for(&mut daemon, "gold.requests_1m", &[(0, "a", 4), (1, "a", 3), (4, "a", 1)]);
    cluster.wait_for(&mut daemon, "gold.requests_5m", &[(0, "a", 8)]);
    assert!(daemon.stop().success());
}

#[test]
fn killed_again_and_again_every_result_is_there_once() {
    let Some(cluster) = Cluster::start() else { return };
    let mut expected: BTreeMap<(i64, String), i64> = BTreeMap::new();
    let mut bad = 0i64;
    let writer = Writer::new(&cluster.broker, "one");
    for kill in 0..i64::try_from(Kills::from_environment(KILLS).count).expect("a few hundred") {
        let mut records = Vec::new();
        for at in 0..40i64 {
            let minute = kill * 20 + at;
            for cdn in ["a", "b", "c"] {
                let requests = minute * 10 + kill;
                expected.insert((minute, cdn.to_string()), requests);
                records.push(json((minute, cdn, requests, "t")));
            }
        }
        records.push(("k".to_string(), format!("bad {kill}")));
        bad += 1;
        writer.write("playhead.gold.requests_1m", &records, true);
        let mut daemon = Daemon::start(&cluster.bench, &cluster.settings());
        let log = daemon.own_log();
        daemon.wait_until("it collects", || log.text().contains(COLLECTS));
        // Not a wait for anything: where in its work the process is hit differs from kill to kill.
        std::thread::sleep(Duration::from_millis(61 * (kill.unsigned_abs() % 16)));
        daemon.kill();
    }
    let expected: Vec<(i64, &str, i64)> = expected.iter().map(|((at, cdn), n)| (*at, cdn.as_str(), *n)).collect();
    let mut daemon = Daemon::start(&cluster.bench, &cluster.settings());
    cluster.wait_for(&mut daemon, "gold.requests_1m", &expected);
    let rejected =
        "SELECT count(*) AS n, count(DISTINCT concat(source_partition, CAST(source_offset AS TEXT))) AS places FROM silver.rejects";
    daemon.wait_until("every bad record is rejected", || cluster.bench.sql(rejected)[0]["places"] == bad);
    assert_eq!(cluster.bench.sql(rejected)[0]["n"], bad, "and once");
    let of_hour = |table: &str| {
        format!(
            "SELECT sum(requests) AS n FROM {table} WHERE window_start < to_timestamp({})",
            (NOON + 60) * 60
        )
    };
    let fine = cluster.bench.int(&of_hour("gold.requests_1m"));
    daemon.wait_until("the roll-up holds what its table does", || {
        cluster.bench.int(&of_hour("gold.requests_5m")) == fine
    });
    assert!(daemon.stop().success());
}

#[test]
fn a_table_that_the_runner_has_written_is_refused_and_nothing_is_changed() {
    let bench = Bench::new();
    bench.write("pipelines/requests_1m.sql", PIPELINE);
    bench.write("alerts/rule.yaml", RULE);
    let ours = settings(&bench, "127.0.0.1:9").replace("role: collect\n", "");
    bench.ingest_with(&ours, &[&crate::support::reference("ref_cdn.ndjson")]);
    let before = bench.sql("SELECT * FROM gold.requests_1m ORDER BY 1, 4");
    let settings = bench.write("collect.yaml", settings(&bench, "127.0.0.1:9"));
    for role in ["collect", "ingest"] {
        let settings = settings.to_str().expect("a plain path");
        let output = bench.run(&["run", "--role", role, "--settings", settings]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("this lake's own runner writes gold.requests_1m") && said.contains("--hand-over"),
            "{said}"
        );
    }
    assert_eq!(bench.sql("SELECT * FROM gold.requests_1m ORDER BY 1, 4"), before);
}

#[test]
fn without_brokers_nothing_is_collected_and_the_setting_is_named() {
    let bench = Bench::new();
    let output = bench.run(&["run", "--role", "collect"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("collect.brokers is not set"));
}
