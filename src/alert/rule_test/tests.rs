//! The runner of rule tests, over a row source that can only sum columns.

use super::super::fixture::{Gold, seed_files};
use super::super::rule::{Sum, parse_rules};
use super::*;

/// Sums columns by name; knows no predicate and no expression.
pub(in crate::alert) struct Summing;

impl RowSource for Summing {
    fn rows(&mut self, rule: &Rule, _: &[i64], input: &[InputRow]) -> Result<Vec<MinuteRow>, String> {
        let (num, den) = rule.measure.parts().ok_or("sums only")?;
        let mut rows = Vec::new();
        for row in input.iter().filter(|row| row.table == rule.from()) {
            rows.push(MinuteRow {
                minute_ms: row.minute_ms,
                dims: rule.group_by().iter().map(|dim| row.dims.get(dim).cloned().flatten()).collect(),
                num: column(row, num)?,
                den: column(row, den)?,
                samples: column(row, &rule.samples)?,
                impacted: match &rule.impacted {
                    Some(sum) => column(row, sum)?,
                    None => 0.0,
                },
            });
        }
        Ok(rows)
    }

    fn history(&mut self, rule: &Rule, _: i64, input: &[InputRow]) -> Result<Vec<SlotRow>, String> {
        let hour_ms = 60 * MINUTE_MS;
        let slot = |row: MinuteRow| SlotRow {
            day: i32::try_from(row.minute_ms.div_euclid(24 * hour_ms)).unwrap_or(0),
            slot: i32::try_from(row.minute_ms.rem_euclid(24 * hour_ms) / hour_ms).unwrap_or(0),
            dims: row.dims,
            num: row.num,
            den: row.den,
            samples: row.samples,
        };
        Ok(self.rows(rule, &[], input)?.into_iter().map(slot).collect())
    }
}

/// A column, or columns with `+` between them.
fn column(row: &InputRow, sum: &Sum) -> Result<f64, String> {
    let Sum::Of(text) = sum else {
        return Err(format!("`{}` is no column", sum.sql()));
    };
    let is_name = |name: &str| name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
    let names: Vec<&str> = text.split('+').map(str::trim).collect();
    if !names.iter().all(|name| is_name(name)) {
        return Err(format!("`{}` is no column", sum.sql()));
    }
    Ok(names.iter().map(|name| row.columns.get(*name).copied().unwrap_or(0.0)).sum())
}

const RULES: &str = r#"version: 1
rules:
  - alert: PlaybackErrorShare
    from: gold.errors_1m
    value: {ratio: {num: clients_with_errors, den: clients}}
    group_by: [device_type, app_name]
    min_samples: 500
    min_impacted: {devices: 50}
    condition: "> 5%"
    for: 2m
    clear: {threshold: 3%, for: 5m}
    severity: critical
    owner: team-player
    annotations: {summary: "{{ value | pct }} of {{ samples }} fail on {{ device_type }}"}
  - alert: FirstByte
    from: gold.cdn_1m
    value: {mean: {sum: ttfb_ms_sum, count: ttfb_count}}
    group_by: [cdn]
    min_samples: 100
    baseline: {kind: same_slot}
    condition: {test: ratio_to_baseline, op: ">", threshold: 10%}
"#;

fn set() -> RuleSet {
    match parse_rules(&[("a".to_owned(), RULES.to_owned())], &Gold, &|_| None) {
        Ok(set) => set,
        Err(complaints) => panic!("{}", complaints.iter().map(|c| format!("{c}\n")).collect::<String>()),
    }
}

/// The example of alerts spec 1.4, with the tables as they are.
const TESTS: &str = r#"rules: [a]
tests:
  - name: error share fires after two bad minutes, resolves with hysteresis
    start: 2026-11-01T20:00:00Z
    input:
      - table: gold.errors_1m
        dims: {device_type: tv-x, app_name: main}
        columns:
          clients: "1000x29"
          clients_with_errors: "10x9 90x9 10x9"
    expect:
      - {at: 12m, alerts: []}
      - at: 16m
        alerts:
          - uid: playback-error-share
            status: firing
            dims: {device_type: tv-x, app_name: main}
            severity: critical
            annotations: {summary: 9 % of 5000 fail on tv-x}
      - at: 29m
        alerts: [{uid: playback-error-share, status: resolved}]
    states:
      - {uid: playback-error-share, states: "-x13 px2 fx8 cx5 -x2"}
    only: true
    messages: 2

  - name: 25 sessions never page
    start: 2026-11-01T04:00:00Z
    input:
      - table: gold.errors_1m
        dims: {device_type: rare, app_name: main}
        columns: {clients: "25x30", clients_with_errors: "3x30"}
    expect: [{at: 30m, alerts: []}]
    only: true

  - name: a first byte far over that of the week fires
    start: 2026-11-08T20:00:00Z
    input:
      - table: gold.cdn_1m
        dims: {cdn: b}
        from: -7d
        step: 1d
        columns: {ttfb_ms_sum: "100000x6", ttfb_count: "1000x6"}
      - table: gold.cdn_1m
        dims: {cdn: b}
        columns: {ttfb_ms_sum: "105000x2 130000x9", ttfb_count: "1000x11"}
    expect:
      - {at: 2m, alerts: []}
      - {at: 10m, alerts: [{uid: first-byte, status: firing, value: 111.25}]}
"#;

fn report(old: &str, new: &str) -> Report {
    assert!(TESTS.contains(old), "{old}");
    let file = parse_tests("t.yaml", &TESTS.replacen(old, new, 1)).unwrap_or_else(|error| panic!("{error}"));
    run(&set(), &file, &mut Summing)
}

#[test]
fn the_examples_of_the_specification_hold() {
    let report = report("only", "only");
    assert!(report.is_good(), "{report}");
    assert!(report.to_string().ends_with("3 passed, 0 failed"), "{report}");
}

#[track_caller]
fn check(old: &str, new: &str, expected: &[&str]) {
    let report = report(old, new);
    let failures: Vec<&String> = report.tests.iter().flat_map(|test| &test.failures).collect();
    assert_eq!(failures, expected);
    assert!(report.to_string().contains("FAILED"), "{report}");
}

#[test]
fn what_is_not_so_is_named_with_its_minute() {
    let tv = "(device_type=tv-x app_name=main)";
    check(
        "at: 16m\n        alerts:\n          - uid: playback-error-share\n            status: firing",
        "at: 14m\n        alerts:\n          - uid: playback-error-share\n            status: firing",
        &["at 14m: `playback-error-share` should be firing and is pending"],
    );
    check(
        "{at: 12m, alerts: []}",
        "{at: 20m, alerts: []}",
        &[&format!("at 20m: `playback-error-share` firing {tv} was not expected")],
    );
    check(
        "severity: critical\n            ann",
        "severity: warning\n            ann",
        &["at 16m: `playback-error-share` should be firing and has severity critical, not warning"],
    );
    check(
        "summary: 9 %",
        "summary: 8 %",
        &[
            "at 16m: `playback-error-share` should be firing and has `summary` \"9 % of 5000 fail on tv-x\", not \"8 % of 5000 fail on tv-x\"",
        ],
    );
    check(
        "-x13 px2 fx8",
        "-x12 px3 fx8",
        &["at 12m: `playback-error-share` is inactive, and should be pending"],
    );
    check("messages: 2", "messages: 3", &["2 messages were sent, and should be 3"]);
    check(
        "3x30\"}\n    expect: [{at: 30m, alerts: []}]",
        "3x30\"}\n    expect: [{at: 30m, alerts: [{uid: playback-error-share, status: firing}]}]",
        &["at 30m: `playback-error-share` should be firing and nothing has happened"],
    );
    check(
        "columns: {clients: \"25x30\", clients_with_errors: \"3x30\"}\n    expect: [{at: 30m, alerts: []}]",
        "columns: {clients: \"2500x30\", clients_with_errors: \"300x30\"}\n    expect: []",
        &["at 2m: `playback-error-share` firing (device_type=rare app_name=main) was not expected"],
    );
    check(
        "uid: first-byte",
        "uid: first-bite",
        &["there is no rule `first-bite`; did you mean `first-byte`?"],
    );
    check(
        "value: 111.25}",
        "value: 112}",
        &["at 10m: `first-byte` should be firing and has value 111.25, not 112"],
    );
}

#[test]
fn a_rule_that_cannot_be_asked_fails_its_tests() {
    let text = RULES
        .replace("num: clients_with_errors", "num: \"2 * clients_with_errors\"")
        .replace("min_impacted: {devices: 50}\n", "enabled: true\n");
    let set = parse_rules(&[("a".to_owned(), text)], &Gold, &|_| None).unwrap();
    let file = parse_tests("t", TESTS).unwrap();
    let report = run(&set, &file, &mut Summing);
    assert_eq!(report.tests[0].failures, ["`sum(2 * clients_with_errors)` is no column"]);
}

#[test]
fn every_shipped_rule_has_tests_that_hold() {
    let tests = [
        ("cdn_latency", include_str!("../../../alerts/tests/cdn_latency.yaml")),
        ("isp_rebuffering", include_str!("../../../alerts/tests/isp_rebuffering.yaml")),
        ("playback_errors", include_str!("../../../alerts/tests/playback_errors.yaml")),
    ];
    for ((name, text), (rules, _)) in tests.iter().zip(seed_files()) {
        let file = parse_tests(name, text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(file.rules, std::slice::from_ref(&rules));
        let named: Vec<_> = seed_files().into_iter().filter(|(file, _)| *file == rules).collect();
        let set = parse_rules(&named, &Gold, &|_| None).unwrap();
        let report = run(&set, &file, &mut Summing);
        assert!(report.is_good(), "{report}");
    }
}
