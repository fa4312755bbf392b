//! Rules edited under a running daemon: a broken edit changes nothing and says what to write, a good one holds.

use serde_json::{Value, json};

use crate::alerts;
use crate::daemon::Daemon;
use crate::http_client;
use crate::support::Bench;

const RULE: &str = "rules/errors.yaml";

fn rule() -> String {
    alerts::shipped("playback_errors.yaml", &[("min_samples: 500", "min_samples: 100")])
}

fn told(bench: &Bench) -> Vec<Value> {
    bench.sql("SELECT rule_uid, status FROM ops.alert_events WHERE kind = 'transition' AND status IN ('firing', 'resolved') ORDER BY window_end, rule_uid")
}

/// An edit, the text at whose line the log points, and what it says: what is wrong and what to write instead.
struct Broken {
    what: &'static str,
    text: String,
    at: &'static str,
    says: [&'static str; 2],
}

impl Broken {
    /// `errors.yaml:32:`, by what stands in that line.
    fn place(&self) -> String {
        let line = self.text.lines().position(|line| line.contains(self.at));
        format!("errors.yaml:{}:", line.expect("the edit holds it") + 1)
    }
}

fn broken() -> Vec<Broken> {
    let edit = |old: &str, new: &str| {
        assert!(rule().contains(old), "the shipped rule has no `{old}`");
        rule().replace(old, new)
    };
    let twice =
        "      - alert: PlaybackErrorShare # again\n        uid: other\n        metric: rebuffer_ratio\n        condition: \"> 2%\"\n";
    vec![
        Broken {
            what: "bad YAML",
            text: edit("group_by: [device_type, app_name]", "group_by: [device_type, app_name"),
            at: "min_samples: 100",
            says: ["not readable as YAML", "correct the YAML here or just above"],
        },
        Broken {
            what: "an unknown metric",
            text: edit(
                "value:\n          ratio: {num: clients_with_errors, den: clients}",
                "metric: rebufer_ratio",
            ),
            at: "metric: rebufer_ratio",
            says: ["unknown metric `rebufer_ratio`", "did you mean `rebuffer_ratio`?"],
        },
        Broken {
            what: "a wrong type",
            text: edit("min_samples: 100", "min_samples: many"),
            at: "min_samples: many",
            says: [
                "a whole number is needed, at groups[0].rules[0].min_samples",
                "write a whole number, 1 or more",
            ],
        },
        Broken {
            what: "a name that is taken",
            text: format!("{}{twice}", rule()),
            at: "alert: PlaybackErrorShare # again",
            says: ["`alert: PlaybackErrorShare` is used at", "give each rule its own"],
        },
        Broken {
            what: "a template that cannot be rendered",
            text: edit("on {{ device_type }} report", "on {{ devise_type }} report"),
            at: "devise_type",
            says: [
                "the template does not work: undefined value",
                "did you mean `device_type`? the fields are device_type, app_name",
            ],
        },
    ]
}

#[test]
fn a_broken_edit_keeps_the_old_rules_and_a_good_one_takes_effect() {
    let bench = Bench::new();
    bench.write(RULE, rule());
    std::fs::create_dir_all(bench.path("incoming")).expect("a folder can be made");
    let settings = format!(
        "http: {{listen: '127.0.0.1:0'}}\nsources: [{{path: {}}}]\ningest: {{poll_every: 100ms, commit_every: 200ms}}\nalerts: {{folder: {}, deliver: false}}\n",
        bench.path("incoming").display(),
        bench.path("rules").display()
    );
    let mut daemon = Daemon::start(&bench, &settings);
    let log = daemon.own_log();
    daemon.wait_until("it runs", || log.text().contains("playhead is running"));
    let address = daemon.address();
    let refused = || {
        let page = http_client::request(address, "GET", "/metrics", &[], b"").body;
        let line = page
            .lines()
            .find(|line| line.starts_with("playhead_alert_rules_refused "))
            .unwrap_or_default();
        line.ends_with(" 1")
    };
    // What the NOC page shows above the incidents.
    let shown = || {
        let state = http_client::request(address, "GET", "/api/incidents", &[], b"").body;
        serde_json::from_str::<Value>(&state).expect("JSON")["refused_alerts"].clone()
    };
    assert!(!refused() && shown().is_null(), "the rules of the beginning are right");
    for broken in broken() {
        let before = log.text().len();
        bench.write(RULE, &broken.text);
        daemon.wait_until(broken.what, || log.text()[before..].contains("the rules before stay in force"));
        let told = log.text()[before..].to_owned();
        for part in [broken.place().as_str(), broken.says[0], broken.says[1]] {
            assert!(told.contains(part), "{}: no `{part}` in\n{told}", broken.what);
        }
        assert!(!told.contains("alert rules taken up"), "{}:\n{told}", broken.what);
        daemon.wait_until("the metrics say so", &refused);
        let on_page = || shown().as_str().is_some_and(|text| text.contains(broken.place().as_str()));
        daemon.wait_until("the page says so", on_page);
    }

    // The rule that was there before is in force still.
    bench.write("incoming/a.ndjson", alerts::outage());
    daemon.wait_until("the rule of the beginning fires and ends", || told(&bench).len() == 2);
    let uid = "playback-error-share";
    assert_eq!(
        told(&bench),
        [
            json!({"rule_uid": uid, "status": "firing"}),
            json!({"rule_uid": uid, "status": "resolved"})
        ]
    );

    let before = log.text().len();
    bench.write(RULE, rule().replace("uid: playback-error-share", "uid: another-name"));
    daemon.wait_until("a good edit is taken up", || log.text()[before..].contains("alert rules taken up"));
    daemon.wait_until("metrics and page say that all is well", || !refused() && shown().is_null());
    bench.write("incoming/b.ndjson", alerts::outage_after(30));
    daemon.wait_until("the new rule fires and ends", || told(&bench).len() == 4);
    let uids: Vec<Value> = told(&bench)[2..].iter().map(|row| row["rule_uid"].clone()).collect();
    assert_eq!(uids, [json!("another-name"), json!("another-name")]);
    assert!(daemon.stop().success());
}
