//! What an alert says: the JSON for machines, the attributes and subject of SNS, a line for people.
//!
//! Stands behind `alert::evaluate`: a transition in, bytes out. Rendered when the transition is
//! made, so that a template edit never changes an event that has been recorded.
//!
//! Invariant: the same transition and producer give the same bytes, always valid JSON.
//! Invariant: dimension values come from the outside: wherever they appear, control and bidi
//! characters are gone and 128 characters is the most.

mod fit;

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

pub use fit::fit;

use super::MINUTE_MS;
use super::rule::{Condition, Severity, Test};
use super::transition::{BaselineReading, Member, Reason, Remediation, Status, TableVersion, Transition};

/// Fields may be added within major 1, never changed or removed.
pub const SCHEMA: &str = "playhead.alert/1";

/// The JSON Schema (2020-12) of the message, for whoever reads it.
pub const JSON_SCHEMA: &str = include_str!("message/schema.json");
/// A message with everything in it, as the manual shows it.
pub const EXAMPLE: &str = include_str!("message/example.json");

/// Most bytes of a message: a quarter of what SNS takes, so that it fits twice, escaped, into a message
/// for every protocol (alerts spec 2.1).
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// Longest text taken over from a dimension (alerts spec 6.7).
const MAX_VALUE_CHARS: usize = 128;
/// Longest rendered label or annotation: a sentence around a few dimension values.
pub(super) const MAX_RENDERED_CHARS: usize = 512;
/// Nobody may act on a message later than this after its evaluation (alerts spec 2.6).
const VALID_FOR_MS: i64 = 5 * MINUTE_MS;
/// An evaluation this long after its window's end is a replay or a backlog, no news.
const STALE_AFTER_MS: i64 = 10 * MINUTE_MS;
/// SNS wants fewer than 100.
const MAX_SUBJECT_CHARS: usize = 99;
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
    impacted: Option<i64>,
    window: Window,
    starts_at: String,
    ends_at: Option<String>,
    evaluated_at: Option<String>,
    expires_at: Option<String>,
    stale: bool,
    early: bool,
    cause_answer: Option<&'t str>,
    cause: Vec<Cause>,
    members: Vec<MemberBody<'t>>,
    member_count: Option<u64>,
    remediation: Option<RemediationBody<'t>>,
    links: BTreeMap<String, String>,
    lineage: &'t [TableVersion],
    producer: ProducerBody<'t>,
    dropped: usize,
}

#[derive(Serialize)]
struct MemberBody<'t> {
    fingerprint: &'t str,
    dims: BTreeMap<String, Option<String>>,
    severity: Severity,
    value: Option<f64>,
    samples: i64,
}

#[derive(Serialize)]
struct RemediationBody<'t> {
    playbook: &'t str,
    idempotency_key: &'t str,
    params: BTreeMap<String, String>,
    #[serde(rename = "static")]
    limits: &'t BTreeMap<String, serde_json::Value>,
    dry_run: bool,
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
    watermark: Option<String>,
}

#[derive(Serialize)]
struct ProducerBody<'t> {
    name: &'static str,
    version: &'t str,
}

/// The message body (alerts spec 2.5), one line of JSON.
pub fn json(event: &Transition, producer: Producer) -> String {
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
        dims: clean_dims(&event.dims),
        labels: &event.labels,
        annotations: &event.annotations,
        value: event.value,
        unit: event.unit.as_deref(),
        baseline: event.baseline.as_ref(),
        ratio_to_baseline: event.ratio_to_baseline,
        threshold: event.threshold,
        samples: event.samples.round() as i64,
        impacted: event.impacted.map(|impacted| impacted.round() as i64),
        window: Window {
            start: time(event.window_start_ms),
            end: time(event.window_end_ms),
            watermark: event.watermark_ms.map(time),
        },
        starts_at: time(event.starts_at_ms),
        ends_at: event.ends_at_ms.map(time),
        evaluated_at: event.evaluated_at_ms.map(time),
        expires_at: expires_at_ms(event).map(time),
        stale: is_stale(event),
        early: event.is_early,
        cause_answer: event.causes.as_ref().map(|causes| causes.answer.as_str()),
        cause: event.causes.iter().flat_map(|causes| &causes.found).map(Cause::cleaned).collect(),
        members: event.members.iter().map(member_body).collect(),
        member_count: event.member_count,
        remediation: event.remediation.as_ref().map(|remediation| remediation_body(event, remediation)),
        links: links(event),
        lineage: &event.lineage,
        producer: ProducerBody {
            name: "playhead",
            version: producer.version,
        },
        dropped: 0,
    };
    let whole = serde_json::to_string(&body).expect("every key is a text, so this type is always JSON");
    fit(whole, MAX_MESSAGE_BYTES)
}

fn clean_dims(dims: &[(String, Option<String>)]) -> BTreeMap<String, Option<String>> {
    let clean_dim = |(name, value): &(String, Option<String>)| (clean(name), value.as_deref().map(clean));
    dims.iter().map(clean_dim).collect()
}

fn member_body(member: &Member) -> MemberBody<'_> {
    MemberBody {
        fingerprint: member.fingerprint.as_str(),
        dims: clean_dims(&member.dims),
        severity: member.severity,
        value: member.value,
        samples: member.samples.round() as i64,
    }
}

fn remediation_body<'t>(event: &'t Transition, remediation: &'t Remediation) -> RemediationBody<'t> {
    let clean_param = |(name, value): (&String, &String)| (clean(name), clean(value));
    RemediationBody {
        playbook: &remediation.playbook,
        idempotency_key: &event.event_id,
        params: remediation.params.iter().map(clean_param).collect(),
        limits: &remediation.limits,
        dry_run: remediation.dry_run,
    }
}

/// The rule's links, and its runbook among them.
fn links(event: &Transition) -> BTreeMap<String, String> {
    let runbook = event.runbook.as_ref().map(|url| ("runbook".to_owned(), url));
    let named = event.links.iter().map(|(name, url)| (clean(name), url));
    let cut = |(name, url): (String, &String)| (name, clean_to(url, MAX_RENDERED_CHARS));
    runbook.into_iter().chain(named).map(cut).collect()
}

/// Nobody may act on the message later than this.
pub fn expires_at_ms(event: &Transition) -> Option<i64> {
    let valid_for_ms = event
        .remediation
        .as_ref()
        .map_or(VALID_FOR_MS, |remediation| remediation.valid_for_ms);
    event.evaluated_at_ms.map(|at| at.saturating_add(valid_for_ms))
}

// ------------------------------------------------------------------ what explains it

/// What the search for causes said. `answer` is `found`, or says why nothing was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Causes {
    pub answer: String,
    /// The best first.
    pub found: Vec<Cause>,
}

/// A set of dimension values that explains a part of the change against the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// An unknown value is null.
    pub dims: BTreeMap<String, Option<String>>,
    /// Share of the excess that it explains, 0 to 1.
    pub share: f64,
    /// The value in the window, in the unit of the alert's value.
    pub now: Option<f64>,
    /// The value in the baseline.
    pub before: Option<f64>,
    pub samples: f64,
}

impl Cause {
    fn cleaned(&self) -> Cause {
        let clean_dim = |(name, value): (&String, &Option<String>)| (clean(name), value.as_deref().map(clean));
        Cause {
            dims: self.dims.iter().map(clean_dim).collect(),
            ..self.clone()
        }
    }

    /// `cdn=cdn-b, pop=MAD51`.
    pub fn in_words(&self) -> String {
        let dims = self.dims.iter().map(|(name, value)| dim_in_words(name, value.as_deref()));
        dims.collect::<Vec<_>>().join(", ")
    }

    /// `{"cdn": "cdn-b", "pop": "MAD51"}`; an unknown value is null.
    pub fn dims_json(&self) -> String {
        serde_json::to_string(&self.cleaned().dims).expect("every key is a text, so this is always JSON")
    }
}

/// For people: `cdn=cdn-b, pop=MAD51 explains 91 % (now 611, before 158.1, 22,107 samples)`.
impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let [now, before] = [self.now, self.before].map(|value| value.map_or("unknown".to_owned(), figure));
        let samples = grouped(self.samples, 0);
        let share = (self.share * 100.0).min(100.0);
        write!(
            f,
            "{} explains {share:.0} % (now {now}, before {before}, {samples} samples)",
            self.in_words()
        )
    }
}

// ------------------------------------------------------------------ an example

/// A firing and an end without a value: what templates of webhooks are tried on.
pub(super) fn examples() -> [String; 2] {
    let firing: serde_json::Value = serde_json::from_str(EXAMPLE).expect("a test reads the example");
    let mut resolved = firing.clone();
    for (name, value) in [
        ("status", "resolved".into()),
        ("reason", "missing_series".into()),
        ("ends_at", "2026-11-01T20:31:00Z".into()),
        ("value", serde_json::Value::Null),
        ("baseline", serde_json::Value::Null),
        ("ratio_to_baseline", serde_json::Value::Null),
        ("impacted", serde_json::Value::Null),
        ("cause_answer", serde_json::Value::Null),
        ("cause", serde_json::Value::Array(Vec::new())),
        ("remediation", serde_json::Value::Null),
    ] {
        resolved[name] = value;
    }
    [firing.to_string(), resolved.to_string()]
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

/// Fixed parts only, never a dimension's value: printable ASCII, one line, at most
/// `MAX_SUBJECT_CHARS`. An alert's name is ASCII when it comes from a rule file of this release.
pub fn subject(event: &Transition) -> String {
    let text = format!(
        "{} {} {}",
        event.status.as_str().to_uppercase(),
        event.severity.as_str(),
        event.alert,
    );
    text.chars()
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .take(MAX_SUBJECT_CHARS)
        .collect()
}

fn is_stale(event: &Transition) -> bool {
    event
        .evaluated_at_ms
        .is_some_and(|at| at.saturating_sub(event.window_end_ms) > STALE_AFTER_MS)
}

// ------------------------------------------------------------------ for people

/// One line for the terminal: what, where, how bad, since when.
pub fn human(event: &Transition) -> String {
    let dims = dims_in_words(event);
    let space = if dims.is_empty() { "" } else { " " };
    // An alert about the rule itself has no value: what it says is its summary.
    let finding = match (event.rule_state(), event.annotations.get("summary")) {
        (Some(_), Some(summary)) if event.status.is_firing() => clean_to(summary, MAX_RENDERED_CHARS),
        _ => finding(event),
    };
    let cause = match event.causes.as_ref().and_then(|causes| causes.found.first()) {
        Some(cause) if event.status.is_firing() => format!("; {cause}"),
        _ => String::new(),
    };
    format!("{}{space}{dims}: {finding}, {}{cause}", subject(event), since(event))
}

/// `cdn=b country=ES`.
pub(super) fn dims_in_words(event: &Transition) -> String {
    let words = event.dims.iter().map(|(name, value)| dim_in_words(name, value.as_deref()));
    words.collect::<Vec<_>>().join(" ")
}

fn dim_in_words(name: &str, value: Option<&str>) -> String {
    format!("{}={}", clean(name), value.map_or("unknown".to_owned(), clean))
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
        Reason::TooFewImpacted => "too few are hit",
        Reason::NoData => "no rows at all",
        Reason::DataReturned => "rows arrive again",
        Reason::EvalError => "the rule's query fails",
        Reason::SeverityRaised => "it got worse",
        Reason::HoldEnded => "it was held back until now",
        Reason::Repeat => "it fires still",
        Reason::ManyAlerts | Reason::ManyMoreAlerts => "many alerts told as one",
        Reason::AllEnded => "all have ended",
    }
}

fn since(event: &Transition) -> String {
    if let Some(ends_at_ms) = event.ends_at_ms {
        let lasted_ms = ends_at_ms.saturating_sub(event.starts_at_ms);
        return format!("lasted {}", duration(lasted_ms));
    }
    if event.is_early {
        return format!(
            "so far in the window that ends at {}",
            instant(event.window_end_ms).format("%H:%MZ")
        );
    }
    let start = instant(event.starts_at_ms);
    let is_same_day = start.date_naive() == instant(event.window_end_ms).date_naive();
    let form = if is_same_day { "%H:%MZ" } else { "%Y-%m-%dT%H:%MZ" };
    format!("since {}", start.format(form))
}

pub(super) fn quantity(value: f64, unit: Option<&str>) -> String {
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
pub(super) fn grouped(value: f64, decimals: usize) -> String {
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

// ------------------------------------------------------------------ small texts

/// A text from the outside made harmless: one line, no control or bidi characters, 128 characters.
pub fn clean(text: &str) -> String {
    clean_to(text, MAX_VALUE_CHARS)
}

pub(super) fn clean_to(text: &str, max_chars: usize) -> String {
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
pub fn time(at_ms: i64) -> String {
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
mod tests;
