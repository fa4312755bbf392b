//! What a message says, byte for byte; and that the published schema is the message's.

use super::*;
use crate::alert::fixture::{HASH, T0, row, seed_rule, step};
use crate::alert::{MinuteRow, States, close_removed};

const PRODUCER: Producer = Producer {
    env: "test",
    version: "0.1.0",
};

/// The playback error alert of one group, walked to firing and, with no more rows, to resolved.
fn life(device: &str, app: &str) -> Vec<Transition> {
    let rule = seed_rule("playback-error-share");
    let mut states = States::default();
    let mut all = Vec::new();
    for minute in 0..9 {
        let end_ms = T0 + minute * MINUTE_MS;
        let rows = [row(T0, &[device, app], 101.0, 1_234.0)];
        let (events, after) = step(&rule, end_ms, &rows, &[], &states);
        states = after;
        all.extend(events);
    }
    all
}

fn firing() -> Transition {
    let mut event = life("tv", "main").remove(1);
    let version = TableVersion {
        table: "gold.errors_1m".to_owned(),
        version: 48,
    };
    event.stamp(T0 + 3 * MINUTE_MS + 120, vec![version]);
    event
}

#[test]
fn the_json_is_this_and_nothing_else() {
    let expected = concat!(
        r#"{"schema":"playhead.alert/1","event_id":"9501a8b83c30af850d905517dabc3329","fingerprint":"7bd8081cf25321ed","#,
        r#""episode_id":"7bd8081cf25321ed@2026-11-01T20:10:00Z","seq":1,"status":"firing","#,
        r#""reason":"threshold","rule":{"uid":"playback-error-share","#,
        r#""alert":"PlaybackErrorShare","rules_hash":"sha256:00","owner":"team-player"},"#,
        r#""severity":"critical","env":"test","#,
        r#""dims":{"app_name":"main","device_type":"tv"},"labels":{"kind":"playback"},"#,
        r#""annotations":{"summary":"8.2 % of 1234 clients of main on tv report playback errors"},"#,
        r#""value":0.0818476499,"unit":"ratio","baseline":null,"ratio_to_baseline":null,"#,
        r#""threshold":{"test":"value","op":">","value":0.05},"samples":1234,"impacted":null,"#,
        r#""window":{"start":"2026-11-01T20:07:00Z","end":"2026-11-01T20:12:00Z","watermark":null},"#,
        r#""starts_at":"2026-11-01T20:10:00Z","ends_at":null,"#,
        r#""evaluated_at":"2026-11-01T20:13:00.120Z","expires_at":"2026-11-01T20:18:00.120Z","#,
        r#""stale":false,"early":false,"cause_answer":null,"cause":[],"members":[],"member_count":null,"remediation":null,"#,
        r#""links":{},"lineage":[{"table":"gold.errors_1m","version":48}],"#,
        r#""producer":{"name":"playhead","version":"0.1.0"},"dropped":0}"#,
    );
    assert_eq!(json(&firing(), PRODUCER), expected);
    assert_eq!(json(&firing(), PRODUCER), json(&firing(), PRODUCER));
}

#[test]
fn the_bytes_are_the_same_after_the_transition_was_stored() {
    let stored = serde_json::to_string(&firing()).unwrap();
    let read: Transition = serde_json::from_str(&stored).unwrap();
    assert_eq!(json(&read, PRODUCER), json(&firing(), PRODUCER));
}

#[test]
fn the_attributes_are_eight() {
    let event = firing();
    let names = attributes(&event, PRODUCER).map(|(name, _)| name);
    assert_eq!(
        names,
        [
            "event_id",
            "fingerprint",
            "rule_uid",
            "status",
            "severity",
            "env",
            "schema",
            "stale"
        ]
    );
    assert!(attributes(&event, PRODUCER).iter().all(|(_, value)| !value.is_empty()));
}

#[test]
fn a_late_evaluation_is_stale() {
    let mut event = firing();
    event.stamp(event.window_end_ms + STALE_AFTER_MS, Vec::new());
    assert!(!is_stale(&event));
    event.stamp(event.window_end_ms + STALE_AFTER_MS + 1, Vec::new());
    assert!(json(&event, PRODUCER).contains(r#""stale":true"#));
    assert_eq!(attributes(&event, PRODUCER)[7].1, "true");
}

#[test]
fn people_get_one_line() {
    let lines: Vec<String> = life("tv", "main").iter().map(human).collect();
    assert_eq!(
        lines,
        [
            "PENDING critical PlaybackErrorShare device_type=tv app_name=main: 8.2 % of 1,234 \
             clients (threshold 5 %), since 20:10Z",
            "FIRING critical PlaybackErrorShare device_type=tv app_name=main: 8.2 % of 1,234 \
             clients (threshold 5 %), since 20:10Z",
            "RESOLVED critical PlaybackErrorShare device_type=tv app_name=main: no more rows \
             of this group (threshold 5 %), lasted 5m",
        ]
    );
}

#[test]
fn a_line_names_the_baseline() {
    let rule = seed_rule("isp-rebuffering-peers");
    let rows: Vec<MinuteRow> = [("a", 4_200.0), ("b", 1_500.0), ("c", 1_500.0), ("d", 1_500.0)]
        .iter()
        .map(|(isp, stall_ms)| MinuteRow {
            samples: 2_345.0,
            ..row(T0, &[isp, "ES"], *stall_ms, 100_000.0)
        })
        .collect();
    let (events, _) = step(&rule, T0, &rows, &[], &States::default());
    assert_eq!(
        human(&events[0]),
        "PENDING warning IspRebufferingAbovePeers isp=a country=ES: 4.2 % over 2,345 active \
         sessions, 180 % above baseline 1.5 % (threshold 50 %), since 20:10Z"
    );
    assert_eq!(
        events[0].annotations["summary"],
        "a (ES) rebuffers 4.2 % of the time, its peers 1.5 %"
    );
}

#[test]
fn the_end_of_a_removed_rule_is_told() {
    let state = crate::alert::fold(&[firing()]);
    let events = close_removed(&[], T0 + 24 * 60 * MINUTE_MS, &state, HASH);
    assert!(human(&events[0]).ends_with(": the rule was changed or removed (threshold 5 %), lasted 1d"));
}

#[test]
fn a_start_on_another_day_has_its_date() {
    let mut event = firing();
    event.starts_at_ms -= 24 * 60 * MINUTE_MS;
    assert!(human(&event).ends_with("since 2026-10-31T20:10Z"));
}

#[test]
fn values_from_outside_are_made_harmless() {
    let evil = format!("\u{1b}[31m{{{{ value }}}}\r\n\u{202e}\"{}", "é".repeat(300));
    let events = life(&evil, "main");
    let body: serde_json::Value = serde_json::from_str(&json(&events[1], PRODUCER)).unwrap();
    let dim = body["dims"]["device_type"].as_str().unwrap();
    assert!(dim.starts_with("[31m{{ value }}\"éé"), "{dim}");
    assert_eq!(dim.chars().count(), MAX_VALUE_CHARS);
    let summary = body["annotations"]["summary"].as_str().unwrap();
    assert!(summary.contains("[31m{{ value }}\"éé"), "{summary}");
    assert!(!human(&events[1]).contains(char::is_control));
    assert_eq!(subject(&events[1]), "FIRING critical PlaybackErrorShare");
    assert_ne!(events[1].fingerprint, life("tv", "main")[1].fingerprint);
}

#[test]
fn an_unknown_value_is_null_for_machines_and_unknown_for_people() {
    let rule = seed_rule("playback-error-share");
    let mut nameless = row(T0, &["tv", "main"], 500.0, 1_000.0);
    nameless.dims[1] = None;
    let (events, _) = step(&rule, T0, &[nameless], &[], &States::default());
    assert!(json(&events[0], PRODUCER).contains(r#""app_name":null"#));
    assert!(human(&events[0]).contains(" app_name=unknown:"));
}

#[test]
fn numbers_are_short() {
    let cases = [
        (0.0, "0"),
        (0.000_04, "0.00004"),
        (0.034, "0.03"),
        (5.0, "5"),
        (8.18, "8.2"),
        (212.4, "212.4"),
        (-12.0, "-12"),
        (999.96, "1,000"),
        (1_234.0, "1,234"),
        (1_234_567.8, "1,234,568"),
        (f64::INFINITY, "no data"),
    ];
    for (value, expected) in cases {
        assert_eq!(figure(value), expected);
    }
}

#[test]
fn lengths_of_time_have_one_unit() {
    let cases = [(0, "0s"), (90_000, "90s"), (300_000, "5m"), (7_200_000, "2h")];
    for (length_ms, expected) in cases {
        assert_eq!(duration(length_ms), expected);
    }
}
// ---- the schema that we publish ----

/// Checks a value against as much of JSON Schema as ours uses; returns what is wrong with it.
fn violations(schema: &serde_json::Value, value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    let kind = match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "boolean",
        serde_json::Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        serde_json::Value::Number(_) => "number",
        serde_json::Value::String(_) => "string",
        serde_json::Value::Array(_) => "array",
        serde_json::Value::Object(_) => "object",
    };
    let allowed: Vec<&str> = match &schema["type"] {
        serde_json::Value::String(one) => vec![one],
        serde_json::Value::Array(many) => many.iter().filter_map(|one| one.as_str()).collect(),
        _ => Vec::new(),
    };
    let fits = |name: &&str| *name == kind || (*name == "number" && kind == "integer");
    if !allowed.is_empty() && !allowed.iter().any(fits) {
        found.push(format!("{path} is {kind}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{path} is {value}"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        found.push(format!("{path} is {value}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        violations(&schema["items"], item, &format!("{path}[{index}]"), found);
    }
    let Some(fields) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        if !fields.contains_key(name) {
            found.push(format!("{path}.{name} is missing"));
        }
    }
    for (name, field) in fields {
        let path = format!("{path}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema)) if schema.is_object() => violations(schema, field, &path, found),
            _ if schema["properties"].is_object() => found.push(format!("{path} is not described")),
            _ => {}
        }
    }
}

fn check_schema(body: &str) {
    let schema: serde_json::Value = serde_json::from_str(JSON_SCHEMA).unwrap();
    let mut found = Vec::new();
    violations(&schema, &serde_json::from_str(body).unwrap(), "", &mut found);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_message_and_every_field_of_it_is_in_the_schema() {
    for event in life("tv", "main") {
        check_schema(&json(&event, PRODUCER));
    }
    for example in examples() {
        check_schema(&example);
    }
    check_schema(&fit(EXAMPLE.to_owned(), 1));
    let required = |text: &str| -> std::collections::BTreeSet<String> {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(
        required(EXAMPLE),
        required(&json(&firing(), PRODUCER)),
        "the example shows each field"
    );
}

#[test]
fn the_manual_shows_the_example_and_every_field() {
    let manual = include_str!("../../../docs/alerts-message.md");
    assert!(manual.contains(EXAMPLE.trim()), "the example");
    let schema: serde_json::Value = serde_json::from_str(JSON_SCHEMA).unwrap();
    for (name, field) in schema["properties"].as_object().unwrap() {
        let meaning = field["description"].as_str().unwrap();
        assert!(
            manual.contains(&format!("| `{name}` |")) && manual.contains(meaning),
            "{name}: {meaning}"
        );
    }
}

#[test]
fn the_schema_finds_what_is_wrong() {
    let schema: serde_json::Value = serde_json::from_str(JSON_SCHEMA).unwrap();
    let mut body: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
    body["status"] = "broken".into();
    body["samples"] = "many".into();
    body["new"] = 1.into();
    body.as_object_mut().unwrap().remove("value");
    let mut found = Vec::new();
    violations(&schema, &body, "", &mut found);
    found.sort();
    assert_eq!(
        found,
        [
            ".new is not described",
            ".samples is string",
            ".status is \"broken\"",
            ".value is missing"
        ]
    );
}

#[test]
fn causes_links_and_what_to_do_are_told() {
    let mut event = firing();
    event.causes = Some(Causes {
        answer: "found".to_owned(),
        found: vec![Cause {
            dims: BTreeMap::from([("pop".to_owned(), Some("MAD\u{202e}51".to_owned())), ("isp".to_owned(), None)]),
            share: 0.912,
            now: Some(0.121),
            before: None,
            samples: 4_310.0,
        }],
    });
    event.links = BTreeMap::from([("dashboard".to_owned(), "https://grafana.example/d/1".to_owned())]);
    event.remediation = Some(Remediation {
        playbook: "cdn-traffic-shift".to_owned(),
        params: BTreeMap::from([("from".to_owned(), "cdn-b".to_owned())]),
        limits: BTreeMap::from([("max_shift".to_owned(), 0.2.into())]),
        valid_for_ms: 60_000,
        dry_run: true,
    });
    event.watermark_ms = Some(T0 + 3 * MINUTE_MS);
    let body: serde_json::Value = serde_json::from_str(&json(&event, PRODUCER)).unwrap();
    check_schema(&body.to_string());
    assert_eq!(body["cause"][0]["dims"], serde_json::json!({"isp": null, "pop": "MAD51"}));
    assert_eq!(body["remediation"]["idempotency_key"], event.event_id);
    assert_eq!(body["expires_at"], "2026-11-01T20:14:00.120Z", "a minute after its evaluation");
    assert_eq!(body["window"]["watermark"], "2026-11-01T20:13:00Z");
    let cause = &event.causes.unwrap().found[0];
    assert_eq!(
        cause.to_string(),
        "isp=unknown, pop=MAD51 explains 91 % (now 0.12, before unknown, 4,310 samples)"
    );
}

#[test]
fn a_transition_of_an_earlier_release_reads_back() {
    let mut stored: serde_json::Value = serde_json::to_value(firing()).unwrap();
    for name in [
        "causes",
        "watermark_ms",
        "links",
        "remediation",
        "members",
        "member_count",
        "impacted",
    ] {
        stored.as_object_mut().unwrap().remove(name);
    }
    let read: Transition = serde_json::from_value(stored).unwrap();
    assert_eq!(json(&read, PRODUCER), json(&firing(), PRODUCER));
}

#[test]
fn a_subject_is_short_printable_ascii() {
    let mut event = firing();
    event.alert = format!("Störung\n{}", "x".repeat(200));
    let subject = subject(&event);
    assert!(subject.starts_with("FIRING critical St?rung?xxx"), "{subject}");
    assert_eq!(subject.len(), MAX_SUBJECT_CHARS);
}
