//! Rules that are asked together are judged as each would be alone, and one at fault stops no other.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};

use super::incidents::{LIMITS, OneTable, T0, TABLE, spec};
use super::*;
use crate::alert::rule::parse_rules;
use crate::alert::{MINUTE_MS, Status};

/// Ten minutes of three CDNs, of which one is bad from minute 4 on and one has no row in minute 6.
fn rows() -> RecordBatch {
    let of_minute = |minute: i64| ["a", "b", "c"].map(|cdn| (minute, cdn)).into_iter();
    let rows: Vec<(i64, &str)> = (0..10).flat_map(of_minute).filter(|row| *row != (6, "c")).collect();
    let spec = spec();
    let column = |name: &str, data_type: &arrow::datatypes::DataType| -> ArrayRef {
        let time = |offset: i64| -> ArrayRef {
            let times = rows.iter().map(|(minute, _)| (T0 + (minute + offset) * MINUTE_MS) * 1_000);
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
        };
        match name {
            "window_start" => time(0),
            "window_end" => time(1),
            "cdn" => Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, cdn)| cdn))),
            "starts" => Arc::new(Int64Array::from_iter_values(rows.iter().map(|_| 1_000))),
            "failures" => {
                let failures = rows.iter().map(|(minute, cdn)| if *cdn == "b" && *minute >= 4 { 300 } else { 5 });
                Arc::new(Int64Array::from_iter_values(failures))
            }
            _ => new_null_array(data_type, rows.len()),
        }
    };
    let columns = spec.schema.fields().iter().map(|field| column(field.name(), field.data_type()));
    RecordBatch::try_new(Arc::clone(&spec.schema), columns.collect()).unwrap()
}

/// A rule by name and `where`.
fn rules(wanted: &[(&str, &str)]) -> RuleSet {
    let mut text = "version: 1\nrules:\n".to_owned();
    for (name, filter) in wanted {
        text.push_str(&format!(
            "  - {{alert: {name}, from: {TABLE}, value: {{ratio: {{num: failures, den: starts}}}}, where: \"{filter}\", group_by: [cdn], \
             window: 2m, min_samples: 100, condition: \"> 5%\"}}\n"
        ));
    }
    parse_rules(&[("rules.yaml".to_owned(), text)], &OneTable, &|_| None).unwrap()
}

/// Rule, CDN, status and minute of every transition.
async fn judged(wanted: &[(&str, &str)]) -> Vec<(String, Option<String>, Status, i64, Option<f64>)> {
    let tables = BTreeMap::from([(TABLE.to_owned(), rows())]);
    let context = sql::gold_of(&[spec()], &tables).await.unwrap();
    let ends = (1..=10).map(|minute| End {
        at_ms: T0 + minute * MINUTE_MS,
        has_rows: true,
    });
    let ends: Vec<End> = ends.collect();
    let (events, _) = Judge::new(rules(wanted), &[]).judge(&context, LIMITS, &ends).await.unwrap();
    let told = |event: Transition| {
        let minute = (event.window_end_ms - T0) / MINUTE_MS;
        (event.alert, event.dims[0].1.clone(), event.status, minute, event.value)
    };
    let mut told: Vec<_> = events.into_iter().map(told).collect();
    told.sort_by(|a, b| (&a.0, a.3, &a.1).cmp(&(&b.0, b.3, &b.1)));
    told
}

const GOOD: [(&str, &str); 3] = [
    ("All", "starts > 0"),
    ("Bad", "cdn = 'b'"),
    ("Others", "cdn IN ('a', 'c') AND failures < 1000"),
];

#[tokio::test]
async fn together_and_alone_they_say_the_same() {
    let together = judged(&GOOD).await;
    let mut alone = Vec::new();
    for rule in GOOD {
        alone.extend(judged(&[rule]).await);
    }
    assert_eq!(together, alone);
    let firing: Vec<_> = together
        .iter()
        .filter(|told| told.2 == Status::Firing)
        .map(|told| (told.0.as_str(), told.1.as_deref(), told.3))
        .collect();
    assert_eq!(firing, [("All", Some("b"), 5), ("Bad", Some("b"), 5)]);
}

#[tokio::test]
async fn a_rule_that_fails_when_it_is_asked_stops_none_of_those_beside_it() {
    let broken = ("Zero", "starts / (failures - 5) > 0");
    let with_broken = judged(&[&GOOD[..], &[broken]].concat()).await;
    let good: Vec<_> = with_broken.iter().filter(|told| told.0 != "Zero").cloned().collect();
    assert_eq!(good, judged(&GOOD).await);
    let of_broken: Vec<_> = with_broken
        .iter()
        .filter(|told| told.0 == "Zero")
        .map(|told| (told.1.as_deref(), told.2))
        .collect();
    assert_eq!(of_broken, [(Some("eval_error"), Status::Firing)]);
}
