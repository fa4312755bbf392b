//! Our evaluation against Prometheus: its compliance specification and promtool's own test.
//!
//! The specification's rules for `pending`, `firing` and `inactive` are written out as a model of their
//! own (`Model`), after the text and with `keep_firing_for` as Prometheus 2.42 has it; ours must agree
//! with it at every instant, on cases by hand and on any series. The unit test of promtool is read from
//! the fixtures (`PLAYHEAD_FIXTURES`, else `../shared/fixtures`), and said to be skipped without them.
//!
//! Where our meaning differs on purpose, and so the comparison leaves it out:
//!
//! - `startsAt` in a message is when the breach began (`ActiveAt`), not `FiredAt`; `endsAt` is given for
//!   what has ended, and an `expires_at` instead of a guess for what fires.
//! - A firing alert is sent once and again only after `repeat_interval`, not every `ResendDelay`; a
//!   resolved one is sent once, since the outbox keeps it until it is delivered.
//! - New annotations of a firing alert are told with its next transition, not with each evaluation.
//! - A sample below `min_samples` is no sample: Prometheus has no such floor.
//! - Prometheus looks back five minutes for a sample of a series that is missing; a gold row that is
//!   missing is missing (`no_data` is where patience is asked for).

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;

use super::fixture::{HASH, T0, plain_rule, row, the_rule};
use super::rule::{Rule, RuleSet, parse_rules};
use super::rule_test::{Sample, parse_series};
use super::state::States;
use super::transition::{Status, Transition};
use super::{MINUTE_MS, evaluate, route};

/// An alert as Prometheus keeps it; times in minutes.
#[derive(Debug, Clone, PartialEq)]
struct Active {
    is_firing: bool,
    active_at: i64,
    keep_firing_since: Option<i64>,
}

/// "Executing an Alerting Rule" of the specification, for one series.
struct Model {
    hold: i64,
    keep: i64,
    active: Option<Active>,
}

impl Model {
    /// One evaluation; `is_returned`: the query returns the element. Gives the time it resolved at.
    fn evaluate(&mut self, at: i64, is_returned: bool) -> Option<i64> {
        if is_returned {
            let active = self.active.get_or_insert(Active {
                is_firing: false,
                active_at: at,
                keep_firing_since: None,
            });
            active.keep_firing_since = None;
            active.is_firing |= at - active.active_at >= self.hold;
            return None;
        }
        let active = self.active.as_mut()?;
        if active.is_firing && self.keep > 0 {
            let since = *active.keep_firing_since.get_or_insert(at);
            if at - since < self.keep {
                return None;
            }
        }
        let was_firing = active.is_firing;
        self.active = None;
        was_firing.then_some(at)
    }

    fn state(&self) -> &'static str {
        match &self.active {
            None => "inactive",
            Some(active) if active.is_firing => "firing",
            Some(_) => "pending",
        }
    }
}

/// `for` and `keep_firing_for` in minutes.
fn rule(hold: i64, keep: i64) -> Rule {
    plain_rule(&[("for: 2m", &format!("for: {hold}m\n        keep_firing_for: {keep}m"))])
}

/// Our states of one series at each instant: Prometheus' word, when it began, and whether this instant
/// resolved it.
fn ours(rule: &Rule, series: &[Option<bool>]) -> Vec<(&'static str, Option<i64>, bool)> {
    let mut states = States::default();
    let mut instants = Vec::new();
    for (at, sample) in (0i64..).zip(series) {
        let end_ms = T0 + at * MINUTE_MS;
        let rows: Vec<_> = sample
            .map(|is_bad| row(end_ms, &["tv"], if is_bad { 60.0 } else { 10.0 }, 1_000.0))
            .into_iter()
            .collect();
        let events = evaluate(rule, end_ms, &rows, &[], &states, HASH);
        states.apply_all(&events);
        let resolved = events.iter().find(|event| event.status == Status::Resolved);
        assert!(
            resolved.is_none_or(|event| event.ends_at_ms == Some(end_ms)),
            "endsAt is ResolvedAt"
        );
        let state = states.iter().next();
        let word = state.map_or("inactive", |state| match state.status() {
            status if status.is_firing() => "firing",
            status => status.as_str(),
        });
        let began = state.map(|state| (state.last().starts_at_ms - T0) / MINUTE_MS);
        instants.push((word, began, resolved.is_some()));
    }
    instants
}

fn theirs(hold: i64, keep: i64, series: &[Option<bool>]) -> Vec<(&'static str, Option<i64>, bool)> {
    let mut model = Model { hold, keep, active: None };
    let mut instants = Vec::new();
    for (at, sample) in (0i64..).zip(series) {
        let resolved = model.evaluate(at, *sample == Some(true));
        let began = model.active.as_ref().map(|active| active.active_at);
        instants.push((model.state(), began, resolved.is_some()));
    }
    instants
}

/// A series in their notation, 1 for an element that the query returns; the states by their first letters.
#[track_caller]
fn check(hold: i64, keep: i64, series: &str, states: &str) {
    let series: Vec<Option<bool>> = parse_series(series)
        .unwrap_or_else(|error| panic!("{error}"))
        .iter()
        .map(|sample| sample.value().map(|value| value > 0.5))
        .collect();
    let theirs = theirs(hold, keep, &series);
    let letters: String = theirs.iter().map(|(word, _, _)| &word[..1]).collect();
    assert_eq!(letters, states, "the model says what the specification says");
    assert_eq!(ours(&rule(hold, keep), &series), theirs);
}

#[test]
fn pending_then_firing_then_inactive() {
    check(3, 0, "0x2 1x5 0x2", "iiipppfffiii");
}

#[test]
fn pending_that_never_fires() {
    check(3, 0, "0 1x2 0 1x1 _ 1x2 stale", "ipppippipppi");
}

#[test]
fn without_for_it_skips_pending() {
    check(0, 0, "0 1x1 0 1 0", "iffifi");
}

#[test]
fn a_for_shorter_than_the_interval_fires_at_the_next_evaluation() {
    let rule = plain_rule(&[("for: 2m", "for: 30s")]);
    let bad = [Some(true); 3];
    let words: Vec<&str> = ours(&rule, &bad).iter().map(|(word, _, _)| *word).collect();
    assert_eq!(words, ["pending", "firing", "firing"]);
}

#[test]
fn after_inactive_it_is_a_new_alert() {
    check(1, 0, "1x2 0 1x2", "pffipff");
}

#[test]
fn a_series_that_vanishes_or_goes_stale_resolves_at_once() {
    check(1, 0, "1x2 _ _ 1x1 stale", "pffiipfi");
}

#[test]
fn it_keeps_firing_and_forgets_that_when_it_is_returned_again() {
    check(0, 3, "1 0x1 1 0x4", "fffffffii");
    check(1, 2, "1x1 _ 1 stale 0 0 0", "pfffffii");
}

#[test]
fn a_pending_alert_is_not_kept() {
    check(3, 5, "1x1 0 1x3 0x5", "ppipppffffffi");
}

proptest! {
    #[test]
    fn any_series_has_their_states_at_each_instant(
        hold in 0i64..5,
        keep in 0i64..5,
        series in prop::collection::vec(prop_oneof![3 => Just(Some(true)), 2 => Just(Some(false)), 1 => Just(None)], 0..60),
    ) {
        prop_assert_eq!(ours(&rule(hold, keep), &series), theirs(hold, keep, &series));
    }
}

// ------------------------------------------------------------------ what is sent

fn set_of(rule: Rule) -> RuleSet {
    let mut set = parse_rules(&[("a".to_owned(), "version: 1\n".to_owned())], &super::fixture::Gold, &|_| None).expect("it is empty");
    set.rules = vec![rule];
    set
}

/// Every transition of a walk; each place says whether the series is bad.
fn events(rule: Rule, bad: &[bool]) -> Vec<Transition> {
    let set = set_of(rule);
    let mut states = States::default();
    let mut all = Vec::new();
    for (at, is_bad) in (0i64..).zip(bad) {
        let end_ms = T0 + at * MINUTE_MS;
        let rows = [row(end_ms, &["tv"], if *is_bad { 60.0 } else { 10.0 }, 1_000.0)];
        let events = evaluate(&set.rules[0], end_ms, &rows, &[], &states, HASH);
        let events = route(&set, end_ms, events, &states);
        states.apply_all(&events);
        all.extend(events);
    }
    all
}

#[test]
fn only_firing_and_resolved_are_sent_and_each_once() {
    let walk = [false, true, true, true, true, false, true, false];
    let sent: Vec<(Status, i64)> = events(rule(1, 0), &walk)
        .iter()
        .filter(|event| event.is_sent())
        .map(|event| (event.status, (event.window_end_ms - T0) / MINUTE_MS))
        .collect();
    assert_eq!(
        sent,
        [(Status::Firing, 2), (Status::Resolved, 5)],
        "what was only pending is not sent"
    );
}

#[test]
fn a_message_sent_again_changes_no_state() {
    let walk = [&[true; 7][..], &[false; 2]].concat();
    let plain = events(rule(1, 0), &walk);
    let again = plain_rule(&[("for: 2m", "for: 1m"), ("[console]}", "[console], repeat_interval: 2m}")]);
    let again = events(again, &walk);
    let of = |events: &[Transition], reason_is_repeat: bool| -> Vec<(Status, i64)> {
        let wanted = events
            .iter()
            .filter(|event| (event.reason.as_str() == "repeat") == reason_is_repeat);
        wanted.map(|event| (event.status, (event.window_end_ms - T0) / MINUTE_MS)).collect()
    };
    assert_eq!(of(&again, true), [(Status::Firing, 3), (Status::Firing, 5)]);
    assert_eq!(of(&again, false), of(&plain, false));
}

// ------------------------------------------------------------------ promtool's own test

#[allow(clippy::disallowed_methods)] // Tests have no settings; the variable is documented in the README.
fn fixtures() -> Option<PathBuf> {
    let root = std::env::var_os("PLAYHEAD_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"), PathBuf::from);
    let folder = root.join("alerts");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there; set PLAYHEAD_FIXTURES", folder.display());
    None
}

fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("the fixture is readable");
    serde_saphyr::from_str(&text).expect("the fixture is YAML")
}

fn minutes(eval_time: &Value) -> i64 {
    match eval_time.as_str() {
        Some("1d") => 1_440,
        Some(text) => text.strip_suffix('m').and_then(|text| text.parse().ok()).expect("whole minutes"),
        None => eval_time.as_i64().expect("zero has no unit"),
    }
}

/// `up == 0` as the mean of a column, with the `for` of the fixture's rule; `expr: 1` as a value that is
/// always there.
fn translated(rules: &Value) -> (Rule, Rule) {
    let of = |name: &str| {
        let all = rules["groups"][0]["rules"].as_array().expect("the rules");
        all.iter().find(|rule| rule["alert"] == name).expect("the rule is there").clone()
    };
    let (down, always) = (of("InstanceDown"), of("AlwaysFiring"));
    assert_eq!((&down["expr"], always["expr"].as_i64()), (&Value::from("up == 0"), Some(1)));
    let hold = down["for"].as_str().expect("a duration");
    let text = format!(
        "version: 1\nrules:\n  - alert: InstanceDown\n    from: gold.errors_1m\n    value: {{mean: {{sum: clients_with_errors, count: clients}}}}\n    \
         group_by: [app_name, device_type]\n    window: 1m\n    min_samples: 1\n    condition: \"<= 0\"\n    for: {hold}\n    \
         annotations: {{summary: \"Instance {{{{ device_type }}}} down\", description: \"{{{{ device_type }}}} of job {{{{ app_name }}}} has been down \
         for more than 5 minutes.\"}}\n  - alert: AlwaysFiring\n    from: gold.errors_1m\n    value: {{mean: {{sum: clients, count: clients}}}}\n    \
         window: 1m\n    min_samples: 1\n    condition: \">= 1\"\n"
    );
    let files = [("a".to_owned(), text)];
    (the_rule(&files, "instance-down"), the_rule(&files, "always-firing"))
}

/// The states after each minute of a series of `up`, by the fixture's evaluation interval.
fn states_of(rule: &Rule, series: &[Sample]) -> Vec<States> {
    let dims: &[&str] = if rule.group_by().is_empty() {
        &[]
    } else {
        &["prometheus", "localhost:9090"]
    };
    let mut states = States::default();
    let mut all = Vec::new();
    for (at, sample) in (0i64..).zip(series) {
        let end_ms = T0 + at * MINUTE_MS;
        let num = |value: f64| if dims.is_empty() { 1.0 } else { value };
        let rows: Vec<_> = sample.value().map(|value| row(end_ms, dims, num(value), 1.0)).into_iter().collect();
        states.apply_all(&evaluate(rule, end_ms, &rows, &[], &states, HASH));
        all.push(states.clone());
    }
    all
}

#[test]
fn the_unit_test_of_promtool_holds() {
    let Some(folder) = fixtures() else { return };
    let (rules, tests) = (
        yaml(&folder.join("prometheus/rules.yml")),
        yaml(&folder.join("prometheus/unittest.yml")),
    );
    assert_eq!(tests["evaluation_interval"], "1m");
    let (down, always) = translated(&rules);
    let mut checked = 0;
    for test in tests["tests"].as_array().expect("a list") {
        let Some(cases) = test["alert_rule_test"].as_array() else {
            continue;
        };
        let values = test["input_series"][0]["values"].as_str().expect("a series");
        let series = parse_series(values).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(series.len(), 1_441);
        let (down, always) = (states_of(&down, &series), states_of(&always, &series));
        for case in cases {
            let at = usize::try_from(minutes(&case["eval_time"])).expect("after the start");
            let states = if case["alertname"] == "AlwaysFiring" {
                &always[at]
            } else {
                &down[at]
            };
            let firing: Vec<&Transition> = states
                .iter()
                .map(|state| state.last())
                .filter(|last| last.status.is_firing())
                .collect();
            let expected = case["exp_alerts"].as_array().expect("a list");
            assert_eq!(firing.len(), expected.len(), "{case}");
            for (alert, expected) in firing.iter().zip(expected) {
                check_alert(alert, expected);
            }
            checked += 1;
        }
        // `count(ALERTS) by (alertname, alertstate)` at 4m.
        assert_eq!(minutes(&test["promql_expr_test"][0]["eval_time"]), 4);
        let word = |states: &States| states.iter().map(|state| state.status().as_str()).collect::<Vec<_>>();
        assert_eq!(
            (word(&always[4]), word(&down[4]), word(&down[5])),
            (vec!["firing"], vec!["pending"], vec!["firing"])
        );
    }
    assert_eq!(checked, 4, "the fixture has four alert cases");
}

fn check_alert(alert: &Transition, expected: &Value) {
    for (name, text) in expected["exp_annotations"].as_object().into_iter().flatten() {
        assert_eq!(alert.annotations.get(name).map(String::as_str), text.as_str());
    }
    let labels = &expected["exp_labels"];
    for (name, ours) in [("job", "app_name"), ("instance", "device_type")] {
        if let Some(text) = labels[name].as_str() {
            let dim = alert.dims.iter().find(|(dim, _)| dim == ours);
            assert_eq!(dim.and_then(|(_, value)| value.as_deref()), Some(text));
        }
    }
}

/// The series of the fixture in their notation, with the figures that promtool expects of them.
#[test]
fn the_series_of_promtool_are_read() {
    let Some(folder) = fixtures() else { return };
    let tests = yaml(&folder.join("prometheus/unittest.yml"));
    let series = |name: &str| {
        let all = tests["tests"][0]["input_series"].as_array().expect("a list");
        let found = all.iter().find(|series| series["series"] == name).expect("the series");
        parse_series(found["values"].as_str().expect("a text"))
    };
    let values = |name: &str| -> Vec<Option<f64>> {
        let samples = series(name).unwrap_or_else(|error| panic!("{error}"));
        samples.iter().map(|sample| sample.value()).collect()
    };
    assert_eq!(values("test_full"), [Some(0.0), Some(0.0)]);
    assert_eq!(values("test_repeat"), [Some(1.0); 3]);
    assert_eq!(values("test_increase"), [Some(1.0), Some(2.0), Some(3.0)]);
    assert_eq!(values("test_stale"), [Some(0.0), None]);
    assert_eq!(values("test_missing").iter().flatten().count(), 2);
    assert!(series("test_histogram").is_err(), "a histogram is no series of ours");
}
