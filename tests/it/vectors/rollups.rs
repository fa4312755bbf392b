//! What the minutes of M1 to M15 add up to: five minutes, hours, days.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::ingest;
use super::script::in_order;
use crate::support::Bench;

/// Numeric columns that a table of minutes and its roll-up share and that add up.
fn additive_columns(bench: &Bench, minutes: &str, rolled_up: &str) -> Vec<String> {
    let columns = |table: &str| -> BTreeSet<String> {
        let rows = bench.sql(&format!("SELECT * FROM {table} LIMIT 1"));
        let row = rows[0].as_object().expect("a row is an object");
        let numbers = row.iter().filter(|(_, value)| value.is_number());
        numbers.map(|(name, _)| name.clone()).collect()
    };
    let shared = columns(minutes).intersection(&columns(rolled_up)).cloned().collect::<Vec<_>>();
    shared.into_iter().filter(|name| !name.starts_with("concurrent_")).collect()
}

/// Sums by window of `length` and content, in one order.
fn sums(bench: &Bench, table: &str, length: &str, columns: &[String]) -> Vec<Value> {
    let sums: Vec<String> = columns.iter().map(|column| format!("sum({column}) AS {column}")).collect();
    let content = match table.starts_with("gold.concurrency") {
        true => "'all'",
        false => "content_id",
    };
    bench.sql(&format!(
        "SELECT date_bin(interval '{length}', window_start) AS start, {content} AS content, {} FROM {table}
         GROUP BY 1, 2 ORDER BY 1, 2",
        sums.join(", ")
    ))
}

fn in_order_lake() -> Bench {
    let bench = Bench::new();
    ingest(&bench, "in order", "only", "{}", &in_order());
    bench
}

#[test]
fn every_coarser_table_holds_the_sums_of_the_minutes() {
    let bench = in_order_lake();
    let mut compared = 0;
    for name in ["playback", "ended", "audience", "concurrency"] {
        let minutes = format!("gold.{name}_1m");
        for (suffix, length) in [("5m", "5 minutes"), ("1h", "1 hour"), ("1d", "1 day")] {
            let rolled_up = format!("gold.{name}_{suffix}");
            let columns = additive_columns(&bench, &minutes, &rolled_up);
            compared += columns.len();
            let found = sums(&bench, &rolled_up, length, &columns);
            assert!(!found.is_empty(), "{rolled_up} is empty");
            assert_eq!(found, sums(&bench, &minutes, length, &columns), "{rolled_up}");
        }
    }
    assert!(compared > 3 * 90, "only {compared} columns add up");
}

#[test]
fn a_peak_of_an_hour_is_the_highest_of_its_minutes() {
    let bench = in_order_lake();
    for (suffix, length) in [("5m", "5 minutes"), ("1h", "1 hour"), ("1d", "1 day")] {
        let peaks = |table: &str| {
            bench.sql(&format!(
                "SELECT date_bin(interval '{length}', window_start) AS start, max(concurrent_peak) AS peak FROM {table}
                 GROUP BY 1 ORDER BY 1"
            ))
        };
        assert_eq!(
            peaks(&format!("gold.concurrency_{suffix}")),
            peaks("gold.concurrency_1m"),
            "{suffix}"
        );
    }
}

/// 21 attempts: the sessions of M1 to M15, of which M3, M4 and M5 have two and M11 three, and the beacon.
/// Two left before the start (M4), one failed (M5), one is still starting (the beacon).
#[test]
fn every_attempt_is_a_play_an_exit_a_failure_or_open() {
    let bench = in_order_lake();
    for table in ["gold.playback_1m", "gold.playback_5m", "gold.playback_1h", "gold.playback_1d"] {
        let found = bench.sql(&format!(
            "SELECT sum(attempts) AS attempts, sum(plays) AS plays, sum(exits_before_start) AS exits,
                    sum(early_exits) AS early, sum(start_failures) AS failures, sum(open_attempts) AS open FROM {table}"
        ));
        let expected = json!({"attempts": 21, "plays": 17, "exits": 2, "early": 1, "failures": 1, "open": 1});
        assert_eq!(found, [expected], "{table}");
        let broken = bench.sql(&format!(
            "SELECT window_start, content_id FROM {table}
             WHERE attempts <> plays + exits_before_start + start_failures + open_attempts"
        ));
        assert!(broken.is_empty(), "{table}: {broken:?}");
    }
}

/// Sketches, and the table that has them.
const SKETCHES: [(&str, &str); 4] = [
    ("playback", "startup_sketch"),
    ("playback", "stall_length_sketch"),
    ("playback", "exit_wait_sketch"),
    ("ended", "score_sketch"),
];

/// Quantiles of all rows of a table together.
fn quantiles(bench: &Bench, table: &str, sketch: &str) -> Value {
    let columns = [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0].map(|q| format!("sketch_quantile(sketch, {q}) AS \"{q}\""));
    let query = format!(
        "SELECT {} FROM (SELECT sketch_merge({sketch}) AS sketch FROM {table})",
        columns.join(", ")
    );
    let rows = bench.sql(&query);
    let values = rows[0].as_object().expect("a row is an object");
    assert!(values.len() == 7 && values.values().all(Value::is_number), "{query}: {rows:?}");
    rows[0].clone()
}

#[test]
fn a_merged_sketch_of_a_day_gives_the_quantiles_of_its_minutes() {
    let bench = in_order_lake();
    for (name, sketch) in SKETCHES {
        let of_minutes = quantiles(&bench, &format!("gold.{name}_1m"), sketch);
        for suffix in ["5m", "1h", "1d"] {
            let table = format!("gold.{name}_{suffix}");
            assert_eq!(quantiles(&bench, &table, sketch), of_minutes, "{table}.{sketch}");
        }
    }
    // The longest startup is the 6 s of M5, the longest stall the 30 s of M7, to 1 %.
    for (sketch, longest_ms) in [("startup_sketch", 6_000.0), ("stall_length_sketch", 30_000.0)] {
        let found = quantiles(&bench, "gold.playback_1d", sketch)["1"].as_f64().expect("a number");
        assert!(
            (found - longest_ms).abs() <= longest_ms * 0.01,
            "{sketch}: {found} is not {longest_ms}"
        );
    }
    let viewers = |table: &str| bench.int(&format!("SELECT distinct_count(distinct_merge(viewers_sketch)) FROM {table}"));
    let seen = bench.int("SELECT count(DISTINCT coalesce(user_id, device_id, session_id)) FROM silver.playback_intervals");
    for table in ["gold.audience_1m", "gold.audience_1d", "gold.concurrency_1m", "gold.concurrency_1d"] {
        assert_eq!(viewers(table), seen, "{table}");
    }
}
