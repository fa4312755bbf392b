//! What the tests of `alert` share: the gold tables, rules and walks through minutes.

use super::rule::{Catalogue, Rule, parse_rules};
use super::state::{States, fold};
use super::transition::Transition;
use super::window::{MinuteRow, SlotRow};
use super::{MINUTE_MS, evaluate};

/// The gold tables that the seed alerts read.
pub(super) struct Gold;

impl Catalogue for Gold {
    fn columns(&self, table: &str) -> Option<Vec<String>> {
        let columns = match table {
            "gold.cdn_1m" => {
                "window_start window_end cdn pop edge_location isp country requests ok_requests ttfb_ms_sum ttfb_count ttfb_hit_sketch ttfb_hit_count"
            }
            "gold.errors_1m" => "window_start window_end app_name app_version device_type clients clients_with_errors",
            "gold.playback_1m" => {
                "window_start window_end isp country cdn app_name app_version device_type content_id stall_ms playing_ms active_sessions attempts start_failures"
            }
            "gold.concurrency_1m" => "window_start window_end concurrent_peak viewers_sketch",
            _ => return None,
        };
        Some(columns.split_whitespace().map(str::to_owned).collect())
    }

    fn tables(&self) -> Vec<String> {
        ["gold.cdn_1m", "gold.errors_1m", "gold.playback_1m"].map(str::to_owned).to_vec()
    }
}

pub(super) fn seed_files() -> Vec<(String, String)> {
    [
        ("cdn_latency", include_str!("../../alerts/cdn_latency.yaml")),
        ("isp_rebuffering", include_str!("../../alerts/isp_rebuffering.yaml")),
        ("playback_errors", include_str!("../../alerts/playback_errors.yaml")),
    ]
    .map(|(name, text)| (format!("alerts/{name}.yaml"), text.to_owned()))
    .to_vec()
}

pub(super) fn the_rule(files: &[(String, String)], uid: &str) -> Rule {
    let set = match parse_rules(files, &Gold, &|_| None) {
        Ok(set) => set,
        Err(complaints) => panic!("{}", complaints.iter().map(|c| format!("{c}\n")).collect::<String>()),
    };
    set.rules.into_iter().find(|rule| rule.uid == uid).unwrap()
}

pub(super) fn seed_rule(uid: &str) -> Rule {
    the_rule(&seed_files(), uid)
}

pub(super) const PLAIN: &str = r#"
version: 1
targets: {console: {stdout: {}}}
groups:
  - name: core
    rules:
      - alert: Errors
        uid: errors
        from: gold.errors_1m
        value: {ratio: {num: clients_with_errors, den: clients}}
        group_by: [device_type]
        window: 1m
        min_samples: 100
        confidence: {method: none}
        condition: {test: value, op: ">", threshold: 5%}
        for: 2m
        notify: {targets: [console]}
"#;

/// Error share by device over one minute, 100 clients at least, no bound; `edits` change the text.
pub(super) fn plain_rule(edits: &[(&str, &str)]) -> Rule {
    let mut text = PLAIN.to_owned();
    for (old, new) in edits {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    the_rule(&[("a".to_owned(), text)], "errors")
}

pub(super) const HASH: &str = "sha256:00";
/// 2026-11-01T20:10:00Z.
pub(super) const T0: i64 = 1_793_563_800_000;

pub(super) fn row(end_ms: i64, dims: &[&str], num: f64, den: f64) -> MinuteRow {
    MinuteRow {
        minute_ms: end_ms - MINUTE_MS,
        dims: dims.iter().map(|dim| Some((*dim).to_owned())).collect(),
        num,
        den,
        samples: den,
        impacted: 0.0,
    }
}

/// One evaluation, and the states after it.
pub(super) fn step(rule: &Rule, end_ms: i64, rows: &[MinuteRow], history: &[SlotRow], previous: &States) -> (Vec<Transition>, States) {
    let events = evaluate(rule, end_ms, rows, history, previous, HASH);
    let mut states = previous.clone();
    states.apply_all(&events);
    (events, states)
}

/// `status reason seq`, and why it is held back, if it is.
pub(super) fn told(event: &Transition) -> String {
    let held = event.held.as_ref().map_or(String::new(), |held| format!(" {}", held.as_str()));
    format!("{} {} {}{held}", event.status.as_str(), event.reason.as_str(), event.seq)
}

pub(super) type Minute = Option<(f64, f64)>;

/// Evaluates minute after minute; each step is the (num, den) of device `tv`, or no row.
/// The walk names each minute's transition: status, reason, seq; `-` for none.
pub(super) fn walk(rule: &Rule, minutes: &[Minute]) -> Vec<String> {
    let mut states = States::default();
    let mut all = Vec::new();
    let mut steps = Vec::new();
    for (index, minute) in minutes.iter().enumerate() {
        let end_ms = T0 + (index as i64 + 1) * MINUTE_MS;
        let rows: Vec<MinuteRow> = minute.map(|(num, den)| row(end_ms, &["tv"], num, den)).into_iter().collect();
        let (events, after) = step(rule, end_ms, &rows, &[], &states);
        states = after;
        all.extend(events.iter().cloned());
        assert_eq!(fold(all.iter().rev()), states, "state is the fold of events");
        steps.push(match events.as_slice() {
            [] => NOTHING.to_owned(),
            [event] => told(event),
            many => panic!("{many:?}"),
        });
    }
    steps
}

pub(super) const BAD: Minute = Some((60.0, 1_000.0));
pub(super) const GOOD: Minute = Some((10.0, 1_000.0));
pub(super) const THIN: Minute = Some((60.0, 99.0));
pub(super) const EMPTY: Minute = Some((0.0, 0.0));
pub(super) const GONE: Minute = None;

pub(super) const PENDING: &str = "pending threshold 0";
pub(super) const FIRING: &str = "firing threshold 1";
pub(super) const RESOLVED: &str = "resolved threshold 2";
pub(super) const NOTHING: &str = "-";

#[track_caller]
pub(super) fn check(rule: &Rule, minutes: &[Minute], expected: &[&str]) {
    assert_eq!(walk(rule, minutes), expected);
}
