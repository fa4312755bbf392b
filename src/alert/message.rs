//! What an alert says: the JSON for machines, the attributes and subject of SNS, a line for people.
//!
//! Stands behind `alert::evaluate`: a transition in, bytes out. Rendered when the transition is
//! made, so that a template edit never changes an event that has been recorded.
//!
//! Invariant: the same transition and producer give the same bytes, always valid JSON.
//! Invariant: dimension values come from the outside: wherever they appear, control and bidi
//! characters are gone and 128 characters is the most.
//! Invariant: a template sees the fields of its alert and nothing else; it cannot run for ever.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Serialize;

use super::rule::{Condition, Rule, Severity, Test};
use super::{BaselineReading, MINUTE_MS, Reason, Status, TableVersion, Transition};

/// Fields may be added within major 1, never changed or removed.
pub const SCHEMA: &str = "playhead.alert/1";

/// Longest text taken over from a dimension (alerts spec 6.7).
const MAX_VALUE_CHARS: usize = 128;
/// Longest rendered label or annotation: a sentence around a few dimension values.
const MAX_RENDERED_CHARS: usize = 512;
/// Steps of one template; a plain sentence takes some thirty.
const MAX_TEMPLATE_FUEL: u64 = 2_000;
/// Nobody may act on a message later than this after its evaluation (alerts spec 2.6).
const VALID_FOR_MS: i64 = 5 * MINUTE_MS;
/// An evaluation this long after its window's end is a replay or a backlog, no news.
const STALE_AFTER_MS: i64 = 10 * MINUTE_MS;
/// The most attributes that raw delivery to SQS carries; a message with more is thrown away.
const MAX_SNS_ATTRIBUTES: usize = 10;

/// Who sends.
#[derive(Debug, Clone, Copy)]
pub struct Producer<'p> {
    /// `prod`, `test`, ...
    pub env: &'p str,
    pub version: &'p str,
}

// ------------------------------------------------------------------ for machines

#[derive(Serialize)]
struct Body<'t> {
    schema: &'static str,
    event_id: &'t str,
    fingerprint: &'t str,
    episode_id: String,
    seq: u32,
    status: Status,
    reason: Reason,
    rule: RuleBody<'t>,
    severity: Severity,
    env: String,
    dims: BTreeMap<String, Option<String>>,
    labels: &'t BTreeMap<String, String>,
    annotations: &'t BTreeMap<String, String>,
    value: Option<f64>,
    unit: Option<&'t str>,
    baseline: Option<&'t BaselineReading>,
    ratio_to_baseline: Option<f64>,
    threshold: Condition,
    samples: i64,
    window: Window,
    starts_at: String,
    ends_at: Option<String>,
    evaluated_at: Option<String>,
    expires_at: Option<String>,
    stale: bool,
    links: BTreeMap<&'static str, String>,
    lineage: &'t [TableVersion],
    producer: ProducerBody<'t>,
}

#[derive(Serialize)]
struct RuleBody<'t> {
    uid: &'t str,
    alert: &'t str,
    rules_hash: &'t str,
    owner: Option<String>,
}

#[derive(Serialize)]
struct Window {
    start: String,
    end: String,
}

#[derive(Serialize)]
struct ProducerBody<'t> {
    name: &'static str,
    version: &'t str,
}

/// The message body (alerts spec 2.5), one line of JSON.
pub fn json(event: &Transition, producer: Producer) -> String {
    let clean_dim = |(name, value): &(String, Option<String>)| (clean(name), value.as_deref().map(clean));
    let expires_at_ms = event.evaluated_at_ms.map(|at| at.saturating_add(VALID_FOR_MS));
    let runbook = event.runbook.as_deref().map(|url| ("runbook", clean_to(url, MAX_RENDERED_CHARS)));
    let body = Body {
        schema: SCHEMA,
        event_id: &event.event_id,
        fingerprint: event.fingerprint.as_str(),
        episode_id: event.episode_id(),
        seq: event.seq,
        status: event.status,
        reason: event.reason,
        rule: RuleBody {
            uid: &event.rule_uid,
            alert: &event.alert,
            rules_hash: &event.rules_hash,
            owner: event.owner.as_deref().map(clean),
        },
        severity: event.severity,
        env: clean(producer.env),
        dims: event.dims.iter().map(clean_dim).collect(),
        labels: &event.labels,
        annotations: &event.annotations,
        value: event.value,
        unit: event.unit.as_deref(),
        baseline: event.baseline.as_ref(),
        ratio_to_baseline: event.ratio_to_baseline,
        threshold: event.threshold,
        samples: event.samples.round() as i64,
        window: Window {
            start: time(event.window_start_ms),
            end: time(event.window_end_ms),
        },
        starts_at: time(event.starts_at_ms),
        ends_at: event.ends_at_ms.map(time),
        evaluated_at: event.evaluated_at_ms.map(time),
        expires_at: expires_at_ms.map(time),
        stale: is_stale(event),
        links: runbook.into_iter().collect(),
        lineage: &event.lineage,
        producer: ProducerBody {
            name: "playhead",
            version: producer.version,
        },
    };
    serde_json::to_string(&body).expect("every key is a text, so this type is always JSON")
}

/// The attributes that SNS filters on; all of type String.
pub fn attributes(event: &Transition, producer: Producer) -> [(&'static str, String); 8] {
    let attributes = [
        ("event_id", event.event_id.clone()),
        ("fingerprint", event.fingerprint.to_string()),
        ("rule_uid", event.rule_uid.clone()),
        ("status", event.status.as_str().to_owned()),
        ("severity", event.severity.as_str().to_owned()),
        ("env", clean(producer.env)),
        ("schema", SCHEMA.to_owned()),
        ("stale", is_stale(event).to_string()),
    ];
    const { assert!(8 <= MAX_SNS_ATTRIBUTES) };
    attributes
}

/// Fixed parts only, never a dimension's value: ASCII, one line, under 100 characters.
pub fn subject(event: &Transition) -> String {
    format!(
        "{} {} {}",
        event.status.as_str().to_uppercase(),
        event.severity.as_str(),
        event.alert,
    )
}

fn is_stale(event: &Transition) -> bool {
    event
        .evaluated_at_ms
        .is_some_and(|at| at.saturating_sub(event.window_end_ms) > STALE_AFTER_MS)
}

// ------------------------------------------------------------------ for people

/// One line for the terminal: what, where, how bad, since when.
pub fn human(event: &Transition) -> String {
    let dims: String = event
        .dims
        .iter()
        .map(|(name, value)| {
            let value = value.as_deref().map_or("unknown".to_owned(), clean);
            format!(" {}={value}", clean(name))
        })
        .collect();
    format!("{}{dims}: {}, {}", subject(event), finding(event), since(event))
}

fn finding(event: &Transition) -> String {
    let threshold = &event.threshold;
    let unit = event.unit.as_deref();
    let is_relative = threshold.test == Test::RatioToBaseline;
    let limit_unit = if is_relative { Some("ratio") } else { unit };
    let limit = format!("(threshold {})", quantity(threshold.value, limit_unit));
    let Some(value) = event.value else {
        return format!("{} {limit}", without_value(event.reason));
    };
    let of = if event.is_share_of_samples { "of" } else { "over" };
    let samples = format!("{} {}", grouped(event.samples, 0), event.samples_of);
    let reading = format!("{} {of} {samples}", quantity(value, unit));
    let compared = match &event.baseline {
        Some(baseline) => format!(", {}", against(event, value, baseline)),
        None => String::new(),
    };
    let why = match event.reason {
        Reason::Threshold => String::new(),
        reason => format!(", {}", without_value(reason)),
    };
    format!("{reading}{compared}{why} {limit}")
}

fn against(event: &Transition, value: f64, baseline: &BaselineReading) -> String {
    let unit = event.unit.as_deref();
    let distance = match (event.threshold.test, event.ratio_to_baseline) {
        (Test::RatioToBaseline, Some(ratio)) => quantity(ratio.abs(), Some("ratio")),
        _ => quantity((value - baseline.value).abs(), unit),
    };
    let side = if value < baseline.value { "below" } else { "above" };
    format!("{distance} {side} baseline {}", quantity(baseline.value, unit))
}

fn without_value(reason: Reason) -> &'static str {
    match reason {
        Reason::Threshold => "back within the threshold",
        Reason::MissingSeries => "no more rows of this group",
        Reason::TooFewSamples => "too few samples to tell",
        Reason::NoValue => "nothing to divide by",
        Reason::NoBaseline => "no baseline to compare with",
        Reason::RuleChanged => "the rule was changed or removed",
    }
}

fn since(event: &Transition) -> String {
    if let Some(ends_at_ms) = event.ends_at_ms {
        let lasted_ms = ends_at_ms.saturating_sub(event.starts_at_ms);
        return format!("lasted {}", duration(lasted_ms));
    }
    let start = instant(event.starts_at_ms);
    let is_same_day = start.date_naive() == instant(event.window_end_ms).date_naive();
    let form = if is_same_day { "%H:%MZ" } else { "%Y-%m-%dT%H:%MZ" };
    format!("since {}", start.format(form))
}

fn quantity(value: f64, unit: Option<&str>) -> String {
    match unit {
        Some("ratio") => format!("{} %", figure(value * 100.0)),
        Some(unit) => format!("{} {unit}", figure(value)),
        None => figure(value),
    }
}

/// One decimal, none from 1,000 on, more for the small, and no trailing zeros.
fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 1_000.0 => 0,
        size if size >= 1.0 || size == 0.0 => 1,
        size if size >= 0.01 => 2,
        _ => 5,
    };
    grouped(value, decimals)
}

/// Thousands apart: `1,234.5`.
fn grouped(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "no data".to_owned();
    }
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut digits = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            digits.push(',');
        }
        digits.push(digit);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    if fraction.is_empty() {
        return format!("{sign}{digits}");
    }
    format!("{sign}{digits}.{fraction}")
}

// ------------------------------------------------------------------ templates

/// Fields that every template sees; `baseline`, `ratio` and `diff` come with a baseline, and each
/// dimension comes by its own name and as `dims.<name>`. A field hides a dimension of its name.
const FIELDS: [&str; 10] = [
    "alert",
    "uid",
    "severity",
    "status",
    "value",
    "samples",
    "threshold",
    "window_start",
    "window_end",
    "starts_at",
];
const BASELINE_FIELDS: [&str; 3] = ["baseline", "ratio", "diff"];

/// The names that a template of this rule may use.
pub(super) fn field_names(rule: &Rule) -> Vec<&str> {
    let mut names: Vec<&str> = rule.group_by().iter().map(String::as_str).collect();
    names.extend(FIELDS);
    if rule.baseline.is_some() {
        names.extend(BASELINE_FIELDS);
    }
    names
}

/// The transition with its labels and annotations rendered.
pub(super) fn rendered(mut event: Transition, rule: &Rule) -> Transition {
    let context = context(&event, rule.baseline.is_some());
    let all = |templates: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        templates
            .iter()
            .map(|(name, template)| (clean(name), render_or_say(template, &context)))
            .collect()
    };
    event.labels = all(&rule.labels);
    event.annotations = all(&rule.annotations);
    event
}

/// Renders a template with a value and without one; the error is for the author of the rule.
pub(super) fn try_template(template: &str, rule: &Rule) -> Result<(), String> {
    for event in super::examples(rule) {
        let context = context(&event, rule.baseline.is_some());
        render(template, &context).map_err(|error| {
            let reason = error.detail().unwrap_or_default();
            let when = match event.value {
                Some(_) => "",
                None => " (for a group that has no value any more)",
            };
            let kind = error.kind();
            let separator = if reason.is_empty() { "" } else { ": " };
            clean(&format!("{kind}{separator}{reason}{when}"))
        })?;
    }
    Ok(())
}

/// Alerting goes on when a template fails on values nobody thought of.
fn render_or_say(template: &str, context: &Value) -> String {
    match render(template, context) {
        Ok(text) => clean_to(&text, MAX_RENDERED_CHARS),
        Err(error) => clean(&format!("template failed: {}", error.kind())),
    }
}

fn render(template: &str, context: &Value) -> Result<String, minijinja::Error> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(MAX_TEMPLATE_FUEL));
    environment.add_filter("pct", |value: &Value| filtered(value, "ratio"));
    environment.add_filter("ms", |value: &Value| filtered(value, "ms"));
    environment.render_str(template, context)
}

/// A number in words, and `no data` for none; an unknown field is an error here too.
fn filtered(value: &Value, unit: &str) -> Result<String, minijinja::Error> {
    if value.is_undefined() {
        return Err(minijinja::ErrorKind::UndefinedError.into());
    }
    if value.is_none() {
        return Ok("no data".to_owned());
    }
    Ok(quantity(f64::try_from(value.clone())?, Some(unit)))
}

fn context(event: &Transition, has_baseline: bool) -> Value {
    let shown = |value: &Option<String>| value.as_deref().map_or("unknown".to_owned(), clean);
    let dims: BTreeMap<String, Value> = event
        .dims
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(shown(value))))
        .collect();
    let mut fields = dims.clone();
    let baseline = event.baseline.as_ref().map(|baseline| baseline.value);
    let diff = event.value.zip(baseline).map(|(value, of)| value - of);
    let known = [
        ("alert", Value::from(event.alert.as_str())),
        ("uid", Value::from(event.rule_uid.as_str())),
        ("severity", Value::from(event.severity.as_str())),
        ("status", Value::from(event.status.as_str())),
        ("value", Value::from(event.value)),
        ("samples", Value::from(event.samples.round() as i64)),
        ("threshold", Value::from(event.threshold.value)),
        ("window_start", Value::from(time(event.window_start_ms))),
        ("window_end", Value::from(time(event.window_end_ms))),
        ("starts_at", Value::from(time(event.starts_at_ms))),
        ("dims", Value::from_pairs(dims)),
    ];
    fields.extend(known.map(|(name, value)| (name.to_owned(), value)));
    if has_baseline {
        let known = [
            ("baseline", Value::from(baseline)),
            ("ratio", Value::from(event.ratio_to_baseline)),
            ("diff", Value::from(diff)),
        ];
        fields.extend(known.map(|(name, value)| (name.to_owned(), value)));
    }
    Value::from_pairs(fields)
}

// ------------------------------------------------------------------ small texts

/// A text from the outside made harmless: one line, no control or bidi characters, 128 characters.
pub fn clean(text: &str) -> String {
    clean_to(text, MAX_VALUE_CHARS)
}

fn clean_to(text: &str, max_chars: usize) -> String {
    text.chars().filter(|c| !is_treacherous(*c)).take(max_chars).collect()
}

/// Controls, line and paragraph separators, zero-width and bidi characters.
fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061C}'
            | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{2069}'
            | '\u{FEFF}')
}

fn instant(at_ms: i64) -> DateTime<Utc> {
    let nearest = if at_ms < 0 {
        DateTime::<Utc>::MIN_UTC
    } else {
        DateTime::<Utc>::MAX_UTC
    };
    DateTime::from_timestamp_millis(at_ms).unwrap_or(nearest)
}

/// RFC 3339 in UTC, with milliseconds only where there are some.
pub(super) fn time(at_ms: i64) -> String {
    let form = if at_ms % 1_000 == 0 {
        SecondsFormat::Secs
    } else {
        SecondsFormat::Millis
    };
    instant(at_ms).to_rfc3339_opts(form, true)
}

pub(super) fn sql_time(at_ms: i64) -> String {
    instant(at_ms).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// `90s`, `5m`, `2h`, `7d`: the largest unit that divides it.
pub(super) fn duration(length_ms: i64) -> String {
    let seconds = length_ms / 1_000;
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(unit, _)| seconds != 0 && seconds % unit == 0);
    match unit {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{HASH, States, T0, row, seed_rule};
    use super::super::{MinuteRow, close_removed, evaluate};
    use super::*;

    const PRODUCER: Producer = Producer {
        env: "test",
        version: "0.1.0",
    };

    /// The playback error alert of one group, walked to firing and, with no more rows, to resolved.
    fn life(device: &str, app: &str) -> Vec<Transition> {
        let rule = seed_rule("playback-error-share");
        let mut states = States::new();
        let mut all = Vec::new();
        for minute in 0..9 {
            let end_ms = T0 + minute * MINUTE_MS;
            let rows = [row(T0, &[device, app], 101.0, 1_234.0)];
            let (events, after) = evaluate(&rule, end_ms, &rows, &[], &states, HASH);
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
            r#""threshold":{"test":"value","op":">","value":0.05},"samples":1234,"#,
            r#""window":{"start":"2026-11-01T20:07:00Z","end":"2026-11-01T20:12:00Z"},"#,
            r#""starts_at":"2026-11-01T20:10:00Z","ends_at":null,"#,
            r#""evaluated_at":"2026-11-01T20:13:00.120Z","expires_at":"2026-11-01T20:18:00.120Z","#,
            r#""stale":false,"links":{},"lineage":[{"table":"gold.errors_1m","version":48}],"#,
            r#""producer":{"name":"playhead","version":"0.1.0"}}"#,
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
        let (events, _) = evaluate(&rule, T0, &rows, &[], &States::new(), HASH);
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
        let state = super::super::fold(&[firing()]);
        let (events, _) = close_removed(&[], T0 + 24 * 60 * MINUTE_MS, &state, HASH);
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
        let (events, _) = evaluate(&rule, T0, &[nameless], &[], &States::new(), HASH);
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
}
