//! Whole rule files: versions, names, defaults, hashes and the shortest rule.

use super::super::Confidence;
use super::super::tests::{RULES, check, edited, parse, texts};
use super::*;
use crate::alert::MINUTE_MS;
use crate::alert::fixture::{Gold, seed_files};

#[test]
fn the_seed_files_are_good() {
    let set = parse_rules(&seed_files(), &Gold, &|_| None).unwrap();
    let uids: Vec<&str> = set.rules.iter().map(Rule::uid).collect();
    assert_eq!(uids, ["cdn-latency-baseline", "isp-rebuffering-peers", "playback-error-share"]);
    let console = BTreeMap::from([("console".to_owned(), Target::Stdout)]);
    assert_eq!(set.targets, console);
}

#[test]
fn the_hash_depends_on_the_texts_and_not_on_the_order_of_files() {
    let files = [("a", RULES.to_owned()), ("b", "version: 1\n".to_owned())];
    let hash = parse(&files).unwrap().hash;
    assert_eq!(hash.len(), "sha256:".len() + 64);
    let [a, b] = files.clone();
    assert_eq!(parse(&[b, a]).unwrap().hash, hash);
    let comment = ("b", "version: 1\n# note\n".to_owned());
    assert_ne!(parse(&[files[0].clone(), comment]).unwrap().hash, hash);
}

#[test]
fn defaults_hold_where_a_rule_says_nothing() {
    let defaults = "version: 1\ndefaults: {window: 10m, for: 1m, severity: critical, owner: us, confidence: {method: wilson, z: 2}, notify: {targets: [console]}}";
    let text = edited("version: 1", defaults);
    let text = text.replace("        notify: {targets: [console]}\n", "");
    let rule = parse(&[("a", text.clone())]).unwrap().rules[0].clone();
    assert_eq!(rule.window_ms, 10 * MINUTE_MS);
    assert_eq!(rule.hold_ms, MINUTE_MS);
    assert_eq!(rule.severity, Severity::Critical);
    assert_eq!(rule.owner.as_deref(), Some("us"));
    assert_eq!(rule.confidence, Confidence::Wilson { z: 2.0 });
    assert_eq!(rule.targets(), ["console"]);
    let own = text.replace("min_samples", "samples: clients\n        min_samples");
    let rule = parse(&[("a", own)]).unwrap().rules[0].clone();
    assert_eq!(rule.confidence, Confidence::None, "wilson has no meaning there");
}

#[test]
fn a_disabled_rule_is_checked_and_left_out() {
    let disabled = edited("uid: errors", "uid: errors\n        enabled: false");
    assert!(parse(&[("a", disabled.clone())]).unwrap().rules.is_empty());
    let broken = disabled.replace("min_samples: 500", "min_samples: 0");
    assert_eq!(parse(&[("a", broken)]).unwrap_err().len(), 1);
}

#[test]
fn a_uid_is_used_once_in_all_files() {
    let complaints = parse(&[("a", RULES.to_owned()), ("b", RULES.to_owned())]).unwrap_err();
    let messages: Vec<&str> = complaints.iter().map(|c| c.message.as_str()).collect();
    assert_eq!(
        messages,
        ["`alert: Errors` is used at a:7 already", "`uid: errors` is used at a:8 already"]
    );
}

#[test]
fn every_file_is_complained_about_in_order_of_place() {
    let broken = "version: 3\ngroups: [{nam: x}]\n".to_owned();
    let unreadable = "version: [\n".to_owned();
    let complaints = parse(&[("b", broken), ("a", unreadable)]).unwrap_err();
    let places: Vec<(&str, usize, usize)> = complaints.iter().map(|c| (c.file.as_str(), c.line, c.column)).collect();
    assert_eq!(places, [("a", 1, 10), ("b", 1, 10), ("b", 2, 10), ("b", 2, 10), ("b", 2, 11)]);
}

#[test]
fn the_number_of_complaints_is_bounded() {
    let unknown: String = (0..300).map(|n| format!("k{n}: 1\n")).collect();
    let complaints = parse(&[("a", unknown)]).unwrap_err();
    assert_eq!(complaints.len(), MAX_COMPLAINTS);
}

#[test]
fn the_version_is_asked_for() {
    check(
        "version: 1",
        "version: 2",
        r"
alerts/a.yaml:1:10: this release reads version 1, at version
    1 | version: 2
      |          ^ write `version: 1`
",
    );
    check(
        "version: 1\n",
        "\n",
        r"
alerts/a.yaml:2:1: `version` is missing
    2 | targets:
      | ^ add `version: 1`
",
    );
    check(
        "version: 1",
        "versoin: 1",
        r"
alerts/a.yaml:1:1: unknown key `versoin` in a rule file, at versoin
    1 | versoin: 1
      | ^^^^^^^ did you mean `version`?
alerts/a.yaml:1:1: `version` is missing
    1 | versoin: 1
      | ^ add `version: 1`
",
    );
}

#[test]
fn names_are_plain() {
    check(
        "uid: errors",
        "uid: Err Ors",
        r"
alerts/a.yaml:8:14: `uid` is not a plain name, at groups[0].rules[0].uid
    8 |         uid: Err Ors
      |              ^^^^^^^ write up to 64 of a-z, 0-9, `-` and `_`
",
    );
    check(
        "alert: Errors",
        "alert: 5xx!",
        r"
alerts/a.yaml:7:16: `alert` is not a plain name, at groups[0].rules[0].alert
    7 |       - alert: 5xx!
      |                ^^^^ write up to 64 of letters, digits and `_`
",
    );
    check(
        "name: core",
        "name: core\n    interval: 1m",
        r"
alerts/a.yaml:6:15: `1m` is not known here, at groups[0].interval
    6 |     interval: 1m
      |               ^^ write one of watermark
",
    );
}

#[test]
fn severity_and_owner_go_together() {
    check(
        "min_samples: 500",
        "min_samples: 500\n        severity: critical",
        r"
alerts/a.yaml:7:9: a critical rule needs an `owner`, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ add `owner: <team>`
",
    );
    check(
        "min_samples: 500",
        "min_samples: 500\n        severity: sever",
        r"
alerts/a.yaml:13:19: `sever` is not known here, at groups[0].rules[0].severity
   13 |         severity: sever
      |                   ^^^^^ write one of info, warning, critical
",
    );
    check(
        "min_samples: 500",
        "min_samples: 500\n        enabled: perhaps",
        r"
alerts/a.yaml:13:18: a yes or no is needed, at groups[0].rules[0].enabled
   13 |         enabled: perhaps
      |                  ^^^^^^^ write `true` or `false`
",
    );
}

#[test]
fn five_lines_are_a_rule() {
    let text = "version: 1\nrules:\n  - alert: RebufferingHigh\n    metric: rebuffer_ratio\n    condition: \"> 2%\"\n";
    let set = parse(&[("a", text.to_owned())]).unwrap_or_else(|complaints| panic!("{}", texts(&complaints)));
    let rule = &set.rules[0];
    assert_eq!(
        (rule.uid(), rule.from(), rule.targets()),
        ("rebuffering-high", "gold.playback_1m", &["console".to_owned()][..])
    );
    assert_eq!(rule.min_samples, 50.0, "as the metric table has it");
    assert_eq!(rule.condition.value, 0.02);
    assert_eq!(set.targets["console"], Target::Stdout);
    let sql = rule.sql(0, MINUTE_MS);
    assert!(sql.contains("CAST(sum(playing_ms) + sum(stall_ms) AS DOUBLE) AS den"), "{sql}");
}

#[test]
fn a_file_of_silences_is_no_part_of_the_hash() {
    let silences = "version: 1\nsilences:\n  - {matchers: {alert: Errors}, starts: 2026-12-01T01:00:00Z, ends: 2026-12-01T03:00:00Z, author: a, comment: b}\n";
    let rules = ("a", RULES.to_owned());
    let both = parse(&[rules.clone(), ("b", silences.to_owned())]).unwrap();
    assert_eq!(both.hash, parse(&[rules]).unwrap().hash);
    assert_eq!(both.silences.len(), 1);
}

#[test]
fn an_alert_is_named_after_itself() {
    assert_eq!(kebab("IspBufferingHigh"), "isp-buffering-high");
    assert_eq!(kebab("CDN5xx_Share"), "cdn5xx_share");
}

#[test]
fn a_fault_in_the_defaults_is_complained_about_once() {
    let text = edited("version: 1", "version: 1\ndefaults: {window: 90s}");
    let complaints = parse(&[("a", text)]).unwrap_err();
    assert_eq!(complaints.iter().map(|c| c.line).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_rule_that_says_where_to_look_for_the_cause() {
    check(
        "min_samples: 500",
        "min_samples: 500\n        explain: {dims: [app_versio], max_depth: 9}",
        r"
alerts/a.yaml:13:26: unknown column `app_versio`, at groups[0].rules[0].explain.dims
   13 |         explain: {dims: [app_versio], max_depth: 9}
      |                          ^^^^^^^^^^ did you mean `app_version`?
alerts/a.yaml:13:50: `max_depth` does not fit, at groups[0].rules[0].explain.max_depth
   13 |         explain: {dims: [app_versio], max_depth: 9}
      |                                                  ^ write a whole number from 1 to 4
",
    );
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,200}", at in 0usize..500) {
            let mut file = RULES.to_owned();
            file.insert_str(at.min(file.len()), &text);
            for complaint in parse(&[("a", file), ("b", text)]).err().unwrap_or_default() {
                prop_assert!(!complaint.to_string().is_empty());
            }
        }
    }
}

/// Every key that a rule file may have, in one file (alerts spec 1.4, with the columns of our tables).
const EVERYTHING: &str = r#"version: 1
defaults:
  window: 5m
  slide: 1m
  lateness: 60s
  min_samples: 100
  confidence: {method: wilson, z: 3}
  for: 1m
  clear: {for: 5m}
  keep_firing_for: 1m
  no_data: {state: keep, after: 10m}
  eval_error: {state: alert}
  severity: warning
  owner: team-noc
  runbook: https://runbooks.example/
  explain: {dims: [isp]}
  max_alerts: 50
  early: false
  on_late: ignore
  notify: {group_by: [alert, severity], group_wait: 10s, group_interval: 1m, repeat_interval: 4h, send_resolved: true}
targets:
  console: {stdout: {}}
  noc: {sns: {topic_arn: "${TOPIC}", endpoint_url: "http://localhost:1", region: eu-west-1, format: json, max_per_second: 5}}
  log: {file: {path: /var/log/alerts.ndjson}}
  hook: {webhook: {url: "https://example.org", secret: "${TOPIC}", key_id: k1, headers: {authorization: "x"}, allow_private: false}}
  own: {webhook: {url: "https://example.org", format: template, template: '{"t": {{ text | json }}}'}}
  pager: {webhook: {url: "https://example.org", format: pagerduty, routing_key: "${TOPIC}"}}
calendars:
  office: {tz: Europe/Madrid, days: [mon-fri], hours: "08:00-19:00"}
  holidays: {dates: [2026-12-24..2026-12-26]}
groups:
  - name: qos-core
    interval: watermark
    rules:
      - alert: CdnLatencyAboveBaseline
        uid: cdn-latency-baseline
        enabled: true
        from: gold.cdn_1m
        value: {mean: {sum: ttfb_ms_sum, count: ttfb_count}}
        samples: requests
        group_by: [cdn, country]
        where: "cdn <> 'test'"
        min_samples: 5000
        min_impacted: {devices: 50, share: 1%, of: requests}
        baseline: {kind: same_slot, slot: 1h, lookback: 7d, min_history: 3d, stat: mean, cold_start: suppress, exclude: [firing_windows, "calendar:holidays"]}
        condition: {test: ratio_to_baseline, op: ">", threshold: 10%}
        and: [{test: diff_to_baseline, op: ">", threshold: 20}, {test: zscore, op: ">", threshold: 4}]
        for: 3m
        clear: {threshold: 5%, for: 5m}
        severity: [{threshold: 10%, severity: warning}, {threshold: 30%, severity: critical}]
        explain: {dims: [pop, isp], max_depth: 3, top: 3}
        labels: {kind: delivery}
        annotations: {summary: "{{ cdn }} in {{ country }} is {{ ratio | pct }} over baseline ({{ value | ms }} vs {{ baseline | ms }})"}
        links: {dashboard: "https://grafana.example/d/cdn?var-cdn={{ cdn | url }}&from={{ window_start | ms_epoch }}"}
        notify: {targets: [console, noc], active: office}
        remediation: {playbook: cdn-traffic-shift, params: {from_cdn: "{{ cdn }}"}, static: {max_shift: 20%}, valid_for: 5m, dry_run: false}
      - alert: IspBufferingAboveAverage
        from: gold.playback_1m
        value: {ratio: {num: stall_ms, den: "stall_ms + playing_ms"}}
        samples: active_sessions
        group_by: [isp, country]
        confidence: {method: normal, z: 3}
        baseline: {kind: peers, over: isp, within: [country], weight: active_sessions, leave_one_out: true, min_peers: 3}
        condition: {test: ratio_to_baseline, op: ">", threshold: 50%}
        notify: {targets: [console]}
rules:
  - {alert: Weekly, metric: start_failures_pct, baseline: {kind: same_slot_weekly, weeks: 4, min_weeks: 2}, condition: {test: zscore, op: ">", threshold: 4}, notify: {targets: [console]}}
  - alert: Trailing
    from: gold.cdn_1m
    value: {quantile: {sketch: ttfb_hit_sketch, q: 0.95}}
    samples: ttfb_hit_count
    explain: {dims: [pop]}
    baseline: {kind: trailing, slot: 5m, lookback: 1h, min_history: 30m, stat: median, exclude: [firing_windows]}
    condition: {test: ratio_to_baseline, op: ">", threshold: 50%}
    notify: {targets: [console]}
  - {alert: Ewma, from: gold.playback_1m, value: {expr: "max(active_sessions)"}, samples: active_sessions, baseline: {kind: fixed, value: 100}, condition: {test: diff_to_baseline, op: "<", threshold: -50}, notify: {targets: [console]}}
  - {alert: Level, from: gold.playback_1m, value: {mean: {sum: stall_ms, count: attempts}}, baseline: {kind: ewma, slot: 5m, half_life: 30m, min_history: 15m}, condition: {test: zscore, op: ">", threshold: 5}, notify: {targets: [console]}}
  - {alert: Own, value: {sql: "SELECT window_end, 1 AS value, 1 AS samples FROM gold.cdn_1m"}, condition: "> 0", notify: {targets: [console]}}
inhibit:
  - {when: {alert: CdnLatencyAboveBaseline, severity: critical}, mute: {alert: IspBufferingAboveAverage}, equal: [country]}
silences:
  - {id: planned, matchers: {cdn: cdn-b}, starts: 2026-12-01T01:00:00Z, ends: 2026-12-01T03:00:00Z, author: ops@example, comment: provider maintenance}
"#;

#[test]
fn every_key_of_the_schema_is_read() {
    let text = EVERYTHING.replace("start_failures_pct", "start_failure_ratio_for_test");
    let metric = crate::metric::METRICS
        .iter()
        .find(|metric| metric.tables().first().is_some_and(|table| table == "gold.playback_1m") && metric.samples == "sum(attempts)");
    let text = text.replace("start_failure_ratio_for_test", metric.expect("plays are counted by attempts").name);
    let set = parse(&[("a", text.clone())]).unwrap_or_else(|complaints| panic!("{}", texts(&complaints)));
    assert_eq!(set.rules.len(), 7);
    assert_eq!((set.inhibitions.len(), set.silences.len()), (1, 1));
    let cdn = &set.rules[0];
    assert_eq!((cdn.lateness_ms(), cdn.keep_firing_ms), (MINUTE_MS, MINUTE_MS), "from the defaults");
    assert_eq!(cdn.notify().repeat_interval_ms, Some(240 * MINUTE_MS));
    for schema in crate::alert::rule::schema::ALL {
        for name in schema.names() {
            assert!(text.contains(&format!("{name}:")), "`{name}` of {} is not tried", schema.name);
        }
    }
}
