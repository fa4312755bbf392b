//! The golden metric vectors M1 to M15 (events and metrics, 3.11), from the wire to the tables.
//!
//! Each vector is one or more sessions with a content id of their own, so that all of them stand in one
//! lake; M11, which is about concurrency, shares one content id among its three. A lake is filled in five
//! ways: in order, shuffled, every record twice, one record a batch, and with the last record of each
//! session 23 h late. In each of them every figure is the same, and so is every row.
//!
//! Most vectors are CMCD version 2. M1 and M15 are EPAS, which alone of the two tells how long the asset
//! is; M13 is the AWS player's.

mod expected;
mod rollups;
mod script;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::Bench;
use expected::complaints;
use script::{Dialect, Record, beacon, cmcd, in_order, sessions};

/// A way to bring the records: what a first and a second run of `ingest` read.
struct Delivery {
    name: &'static str,
    settings: &'static str,
    first: Vec<Record>,
    second: Vec<Record>,
}

/// A shuffle of its own, the same on every machine: Fisher-Yates over a linear congruential generator
/// (Knuth's MMIX constants).
pub fn shuffled<T>(mut items: Vec<T>, seed: u64) -> Vec<T> {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (state >> 33) as usize % (last + 1));
    }
    items
}

fn doubled(records: Vec<Record>) -> Vec<Record> {
    records.into_iter().flat_map(|record| [record.clone(), record]).collect()
}

fn deliveries() -> Vec<Delivery> {
    let mut last = Vec::new();
    let mut but_last = vec![beacon()];
    for mut session in sessions() {
        last.extend(session.pop());
        but_last.extend(session);
    }
    let at_once = |name, settings, first| Delivery {
        name,
        settings,
        first,
        second: Vec::new(),
    };
    vec![
        at_once("in order", "{}", in_order()),
        at_once("shuffled", "{}", shuffled(in_order(), 15)),
        at_once("doubled", "{}", doubled(in_order())),
        at_once("batches of 1", "ingest: {batch_records: 1}", in_order()),
        Delivery {
            name: "last record 23 h late",
            settings: "{}",
            first: but_last,
            second: doubled(last),
        },
    ]
}

/// Writes the records to a file for each dialect, ingests them, and accounts for each.
#[track_caller]
fn ingest(bench: &Bench, name: &str, run: &str, settings: &str, records: &[Record]) {
    let mut texts: BTreeMap<Dialect, String> = BTreeMap::new();
    for record in records {
        let text = texts.entry(record.dialect).or_default();
        text.push_str(&record.line);
        text.push('\n');
    }
    let files: Vec<_> = texts
        .iter()
        .map(|(dialect, text)| bench.write(&format!("{run}/{dialect:?}.ndjson"), text))
        .collect();
    let paths: Vec<_> = files.iter().map(AsRef::as_ref).collect();
    let summary = bench.ingest_with(settings, &paths);
    let different: BTreeSet<&str> = records.iter().map(|record| record.line.as_str()).collect();
    let expected = json!({"received": records.len(), "stored": different.len(),
                          "duplicates": records.len() - different.len(), "rejected": 0});
    for (figure, expected) in expected.as_object().expect("an object") {
        assert_eq!(&summary[figure], expected, "{name}, {run} run, {figure}: {summary}");
    }
}

impl Delivery {
    fn lake(&self) -> Bench {
        let bench = Bench::new();
        ingest(&bench, self.name, "first", self.settings, &self.first);
        if !self.second.is_empty() {
            let closed = "SELECT count(*) FROM silver.playback_sessions WHERE is_open AND content_id <> 'beacon'";
            assert_eq!(
                bench.int(closed),
                0,
                "{}: a session is open before the late records come",
                self.name
            );
            ingest(&bench, self.name, "second", self.settings, &self.second);
        }
        bench
    }
}

/// Tables that must not depend on the delivery. `quality_1h` counts duplicates and is none of them.
const TABLES: [&str; 9] = [
    "silver.playback_sessions",
    "silver.playback_intervals",
    "gold.playback_1m",
    "gold.ended_1m",
    "gold.audience_1m",
    "gold.concurrency_1m",
    "gold.playback_1h",
    "gold.ended_1d",
    "gold.audience_5m",
];

/// A message of more differing rows than this is read by nobody.
const DIFFERENCES_TOLD: usize = 4;

/// The columns that tell of the delivery: when and where a record came, and which version it made.
const OF_DELIVERY: [&str; 4] = ["received_at", "source_partition", "source_offset", "silver_versions"];

/// The rows of a table, without what tells of the delivery, and how often each stands there.
pub fn rows(bench: &Bench, table: &str) -> BTreeMap<String, usize> {
    let mut rows = BTreeMap::new();
    for mut row in bench.sql(&format!("SELECT * FROM {table}")) {
        let columns = row.as_object_mut().expect("a row is an object");
        OF_DELIVERY.iter().for_each(|column| {
            columns.remove(*column);
        });
        *rows.entry(row.to_string()).or_default() += 1;
    }
    rows
}

/// Rows that two lakes do not hold equally often: the first few of them.
pub fn differences(table: &str, delivery: &str, found: &BTreeMap<String, usize>, expected: &BTreeMap<String, usize>) -> Vec<String> {
    let all: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let times = |rows: &BTreeMap<String, usize>, row: &String| rows.get(row).copied().unwrap_or(0);
    let unequal = all.into_iter().filter(|row| times(found, row) != times(expected, row));
    unequal
        .take(DIFFERENCES_TOLD)
        .map(|row| {
            let (found, expected) = (times(found, row), times(expected, row));
            format!("{table}, {delivery}: {found} times instead of {expected}: {row}")
        })
        .collect()
}

/// What a delivery left behind: vectors that are wrong, and the tables.
struct Delivered {
    name: &'static str,
    complaints: Vec<String>,
    vectors: usize,
    tables: BTreeMap<&'static str, BTreeMap<String, usize>>,
}

fn deliver(delivery: &Delivery) -> Delivered {
    let bench = delivery.lake();
    let vectors: Vec<String> = (1..=15).map(|number| format!("M{number}")).collect();
    Delivered {
        name: delivery.name,
        complaints: vectors
            .iter()
            .flat_map(|vector| complaints(&bench, delivery.name, vector))
            .collect(),
        vectors: vectors.len(),
        tables: TABLES.map(|table| (table, rows(&bench, table))).into(),
    }
}

#[test]
fn fifteen_vectors_are_exact_however_they_are_delivered() {
    let deliveries = deliveries();
    let delivered: Vec<Delivered> = std::thread::scope(|scope| {
        let running: Vec<_> = deliveries.iter().map(|delivery| scope.spawn(|| deliver(delivery))).collect();
        let finished = running.into_iter().map(|thread| thread.join());
        finished
            .map(|thread| thread.expect("a delivery panicked; its message stands above"))
            .collect()
    });
    assert_eq!(delivered.iter().map(|delivered| delivered.vectors).sum::<usize>(), 75);
    let mut complaints: Vec<String> = Vec::new();
    let (in_order, others) = delivered.split_first().expect("five deliveries");
    complaints.extend(in_order.complaints.iter().cloned());
    for other in others {
        complaints.extend(other.complaints.iter().cloned());
        for (table, expected) in &in_order.tables {
            assert!(!expected.is_empty(), "{table} is empty");
            complaints.extend(differences(table, other.name, &other.tables[table], expected));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Minutes 0 and 4 change together, and those between are closed and stay as they are.
#[test]
fn a_window_between_two_that_change_is_not_written_again() {
    let bench = Bench::new();
    let long = cmcd("long", "long", "0 sta=s\n1 sta=p\n600 sta=q");
    ingest(&bench, "long", "first", "{}", &long);
    let late = [
        cmcd("a", "a", "2 sta=s\n3 sta=q"),
        cmcd("b", "b", "242 sta=s\n243 sta=q"),
        cmcd("clock", "clock", "600 e=t,sta=a"),
    ];
    ingest(&bench, "late", "second", "{}", &late.concat());
    for table in ["gold.playback_1m", "gold.audience_1m", "gold.playback_5m", "gold.playback_1h"] {
        let twice = bench.sql(&format!(
            "SELECT window_start, content_id, count(*) AS times FROM {table} GROUP BY 1, 2 HAVING count(*) > 1"
        ));
        assert!(twice.is_empty(), "{table}: {twice:?}");
    }
    for table in ["gold.playback_1m", "gold.playback_5m", "gold.playback_1h", "gold.playback_1d"] {
        assert_eq!(bench.int(&format!("SELECT sum(playing_ms) FROM {table}")), 599_000, "{table}");
    }
}

#[test]
fn m6_is_closed_once_event_time_is_past_150_and_no_earlier() {
    let clock = |at: &str| cmcd("clock", "clock", &format!("{at} e=t,sta=p"));
    for (at, is_open, end_reason) in [("150", true, Value::Null), ("150.001", false, json!("timeout"))] {
        let bench = Bench::new();
        let records = [cmcd("m6", "m6", "0 sta=s\n1 sta=p\n30 e=t,sta=p\n60 e=t,sta=p"), clock(at)].concat();
        ingest(&bench, at, "only", "{}", &records);
        let found = bench.sql("SELECT is_open, end_reason, playing_ms FROM silver.playback_sessions WHERE content_id = 'm6'");
        let expected = json!({"is_open": is_open, "end_reason": end_reason, "playing_ms": 59_000});
        assert_eq!(found, [expected], "event time {at}");
    }
}
