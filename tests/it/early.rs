//! `early: true`: a window that breaches while it is open is told at once, and judged for good when it closes.

use serde_json::Value;

use crate::alerts::attempt;
use crate::daemon::Daemon;
use crate::delivery_kills::{RUNNING, move_in};
use crate::kill_loops::SMALL_EPOCHS;
use crate::support::Bench;

/// The same rule twice; only one looks at open windows.
fn rules() -> String {
    let rule = |alert: &str, early: bool| {
        format!(
            "  - alert: {alert}\n    from: gold.errors_1m\n    value: {{ratio: {{num: clients_with_errors, den: clients}}}}\n    window: 1m\n    \
             group_by: [app_name]\n    min_samples: 4\n    confidence: {{method: none}}\n    condition: \"> 5%\"\n    early: {early}\n"
        )
    };
    format!("version: 1\nrules:\n{}{}", rule("Early", true), rule("Closed", false))
}

struct Night {
    bench: Bench,
    settings: String,
}

impl Night {
    fn begin() -> (Night, Daemon) {
        let bench = Bench::new();
        bench.write("rules/rules.yaml", rules());
        std::fs::create_dir(bench.path("incoming")).expect("a folder can be made");
        let settings = format!(
            "sources: [{{path: {}}}]\nalerts: {{folder: {}}}\n{SMALL_EPOCHS}",
            bench.path("incoming").display(),
            bench.path("rules").display()
        );
        let mut daemon = Daemon::start(&bench, &settings);
        let log = daemon.own_log();
        daemon.wait_until("the lake is there", || log.text().contains(RUNNING));
        (Night { bench, settings }, daemon)
    }

    /// Viewers of one minute come, some of whom fail.
    fn come(&self, file: &str, minute: i64, viewers: std::ops::Range<i64>, failing: i64) {
        let mut text = String::new();
        for viewer in viewers {
            attempt(&mut text, "Example TV", "tv", minute, viewer, viewer < failing);
        }
        move_in(&self.bench, file, &text);
    }

    /// What was told of a rule, in order.
    fn told(&self, alert: &str) -> Vec<Value> {
        let rows = self
            .bench
            .sql("SELECT message FROM ops.alert_events WHERE kind = 'transition' ORDER BY window_end, status");
        let texts = rows.iter().filter_map(|row| row["message"].as_str());
        let messages = texts.map(|text| serde_json::from_str::<Value>(text).expect("a message is JSON"));
        messages.filter(|message| message["rule"]["alert"] == alert).collect()
    }

    fn steps(&self, alert: &str) -> Vec<String> {
        let told = self.told(alert);
        let step =
            |message: &Value| format!("{} {} early={}", message["status"], message["window"]["end"], message["early"]).replace('"', "");
        told.iter().map(step).collect()
    }
}

#[test]
fn an_open_window_that_breaches_is_told_and_ends_if_the_whole_of_it_does_not() {
    let (night, mut daemon) = Night::begin();
    night.come("a.ndjson", 0, 0..10, 2);
    daemon.wait_until("it is told early", || !night.told("Early").is_empty());
    let early = &night.told("Early")[0];
    assert_eq!((&early["early"], &early["status"]), (&Value::from(true), &Value::from("firing")));
    assert_eq!(
        (early["value"].as_f64(), early["samples"].as_i64()),
        (Some(0.2), Some(10)),
        "{early}"
    );
    assert_eq!(early["window"]["end"], "2026-01-14T12:01:00Z");
    let read = early["lineage"].to_string();
    assert!(read.contains("silver.player_events") && read.contains("gold.errors_1m"), "{read}");
    assert!(night.told("Closed").is_empty(), "nobody else is told of an open window");

    night.come("b.ndjson", 0, 10..100, 0);
    night.come("c.ndjson", 30, 0..1, 0);
    daemon.wait_until("its window is closed", || night.steps("Early").len() > 1);
    assert!(daemon.stop().success());
    assert_eq!(
        night.steps("Early"),
        [
            "firing 2026-01-14T12:01:00Z early=true",
            "resolved 2026-01-14T12:01:00Z early=false"
        ]
    );
    assert!(night.told("Closed").is_empty(), "two of a hundred are no breach");
}

#[test]
fn what_the_closed_window_bears_out_is_told_once_whoever_kills_the_daemon() {
    let (night, mut daemon) = Night::begin();
    night.come("a.ndjson", 0, 0..10, 2);
    daemon.wait_until("it is told early", || !night.told("Early").is_empty());
    daemon.kill();
    let mut daemon = Daemon::start(&night.bench, &night.settings);
    night.come("b.ndjson", 0, 10..20, 0);
    night.come("c.ndjson", 30, 0..1, 0);
    daemon.wait_until("both have ended", || {
        night.steps("Early").len() > 1 && night.steps("Closed").len() > 1
    });
    assert!(daemon.stop().success());
    let ends = "resolved 2026-01-14T12:02:00Z early=false";
    assert_eq!(night.steps("Early"), ["firing 2026-01-14T12:01:00Z early=true", ends]);
    assert_eq!(night.steps("Closed"), ["firing 2026-01-14T12:01:00Z early=false", ends]);
}
