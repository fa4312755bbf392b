//! `on_late: amend`: a firing whose window late data change so that it breaches no more is told so, once.

use std::process::Output;

use serde_json::Value;

use crate::alerts::{attempt, error_rule, outage};
use crate::support::Bench;

/// The shipped rule for a small audience; it fires at 12:12 over the five minutes before.
fn bench(on_late: &str) -> Bench {
    let bench = Bench::new();
    let asks = format!("for: 2m\n        on_late: {on_late}");
    bench.write("rules/errors.yaml", error_rule(&[("for: 2m", &asks)]));
    std::fs::create_dir(bench.path("nobody")).expect("a folder can be made");
    bench.write("outage.ndjson", outage());
    // Two thousand who watch on, and then one.
    let watching = |name: &str, minutes: std::ops::Range<i64>, viewers: std::ops::Range<i64>| {
        let mut text = String::new();
        for minute in minutes {
            viewers
                .clone()
                .for_each(|viewer| attempt(&mut text, "Example TV", "tv", minute, viewer, false));
        }
        text.replace("\"tv-", &format!("\"{name}-"))
    };
    let late: String = (0..5).map(|crowd| watching(&format!("late{crowd}"), 7..12, 20..100)).collect();
    let later = watching("later", 8..9, 1..2);
    bench.write("late.ndjson", late);
    bench.write("later.ndjson", later);
    bench
}

#[track_caller]
fn ingest(bench: &Bench, file: &str, rules: &str) -> String {
    let settings = bench.write(
        &format!("{rules}.yaml"),
        format!("alerts: {{folder: {}}}\n", bench.path(rules).display()),
    );
    let mut command = bench.command(&["ingest"]);
    command.arg("--settings").arg(settings).arg(bench.path(file));
    let output: Output = command.output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn amended(bench: &Bench) -> Vec<Value> {
    let rows = bench.sql("SELECT message FROM ops.alert_events WHERE kind = 'transition' AND status = 'amended'");
    let texts = rows.iter().filter_map(|row| row["message"].as_str());
    texts.map(|text| serde_json::from_str(text).expect("a message is JSON")).collect()
}

#[test]
fn what_late_data_take_back_is_told_once() {
    let bench = bench("amend");
    let told = ingest(&bench, "outage.ndjson", "rules");
    assert!(
        told.contains("FIRING critical PlaybackErrorShare") && amended(&bench).is_empty(),
        "{told}"
    );
    let told = ingest(&bench, "late.ndjson", "rules");
    assert_eq!(told.matches("AMENDED critical PlaybackErrorShare").count(), 1, "{told}");
    assert!(
        !told.contains("FIRING") && !told.contains("RESOLVED"),
        "nothing else is told: {told}"
    );
    let events = amended(&bench);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["window"]["end"], "2026-01-14T12:12:00Z");
    assert!(events[0]["value"].as_f64() < Some(0.05) && events[0]["seq"] == 1, "{}", events[0]);
    assert!(events[0]["remediation"].is_null(), "nobody is asked to act");
    for _ in 0..2 {
        assert!(!ingest(&bench, "later.ndjson", "rules").contains("AMENDED"));
    }
    assert_eq!(amended(&bench).len(), 1);
    assert_eq!(
        bench.int("SELECT count(*) FROM ops.alert_events WHERE kind = 'delivery' AND status = 'delivered'"),
        3
    );
}

#[test]
fn what_was_missed_between_gold_and_the_judgement_is_made_good_at_the_next_start() {
    let bench = bench("amend");
    ingest(&bench, "outage.ndjson", "rules");
    // Gold is computed anew and no rule is in force: as after a kill between the two.
    ingest(&bench, "late.ndjson", "nobody");
    assert!(amended(&bench).is_empty());
    ingest(&bench, "later.ndjson", "rules");
    assert_eq!(amended(&bench).len(), 1);
}

#[test]
fn a_rule_that_does_not_ask_is_not_told() {
    let bench = bench("ignore");
    ingest(&bench, "outage.ndjson", "rules");
    ingest(&bench, "late.ndjson", "rules");
    assert!(amended(&bench).is_empty());
}
