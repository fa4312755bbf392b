//! Templates of labels, annotations, links and parameters.
//!
//! Stands between `evaluate` and `message`. Rendered when the transition is made, so that a template
//! edit never changes an event that has been recorded.
//!
//! Invariant: a template sees the fields of its alert and nothing else; it cannot run for ever.
//! Invariant: what a template makes of values from outside is as harmless as those values.

use std::collections::BTreeMap;

use chrono::DateTime;
use minijinja::{Environment, UndefinedBehavior, Value};

use super::evaluate::{EVAL_ERROR, NO_DATA, examples};
use super::message::{MAX_RENDERED_CHARS, clean, clean_to, quantity, time};
use super::rule::Rule;
use super::transition::{Remediation, Transition};

/// Steps of one template; a plain sentence takes some thirty.
const MAX_TEMPLATE_FUEL: u64 = 2_000;

/// Fields that every template sees; `baseline`, `ratio` and `diff` come with a baseline, and each
/// dimension comes by its own name and as `dims.<name>`. A field hides a dimension of its name.
const FIELDS: [&str; 11] = [
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
    "impacted",
];
const BASELINE_FIELDS: [&str; 3] = ["baseline", "ratio", "diff"];

pub(super) const FILTERS: [&str; 4] = ["pct", "ms", "url", "ms_epoch"];

/// The names that a template of this rule may use.
pub(super) fn field_names(rule: &Rule) -> Vec<&str> {
    let mut names: Vec<&str> = rule.group_by().iter().map(String::as_str).collect();
    names.extend(FIELDS);
    if rule.baseline.is_some() {
        names.extend(BASELINE_FIELDS);
    }
    names
}

/// The transition with its labels, annotations, links and remediation rendered. An alert about the rule
/// itself has no value to write about: its dimensions are `all`, and its summary is our own.
pub(super) fn rendered(mut event: Transition, rule: &Rule) -> Transition {
    let context = context(&event, rule);
    let all = |templates: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        templates
            .iter()
            .map(|(name, template)| (clean(name), render_or_say(template, &context)))
            .collect()
    };
    event.labels = all(&rule.labels);
    if let Some(about) = event.rule_state() {
        let summary = about_the_rule(about, &event);
        event.annotations.insert("summary".to_owned(), summary);
        return event;
    }
    event.annotations = all(&rule.annotations);
    event.links = all(&rule.links);
    event.remediation = rule.remediation.as_ref().map(|playbook| Remediation {
        playbook: playbook.playbook.clone(),
        params: all(&playbook.params),
        limits: playbook.limits.clone(),
        valid_for_ms: playbook.valid_for_ms,
        dry_run: playbook.dry_run,
    });
    event
}

fn about_the_rule(about: &str, event: &Transition) -> String {
    let alert = &event.alert;
    match about {
        NO_DATA => format!("{alert}: no rows at all for this rule; is the source silent, or the player gone?"),
        EVAL_ERROR => format!("{alert}: the rule's query fails, so nobody is warned; the log says why"),
        _ => format!("{alert}: many alerts told as one"),
    }
}

/// Renders a template with a value and without one; the error is for the author of the rule.
pub(super) fn try_template(template: &str, rule: &Rule) -> Result<(), String> {
    for event in examples(rule) {
        let context = context(&event, rule);
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
    environment.add_filter("url", |value: &Value| url_part(value));
    environment.add_filter("ms_epoch", |value: &Value| ms_epoch(value));
    environment.render_str(template, context)
}

/// A text as a part of a URL: all but letters, digits and `-._~` as %XX (RFC 3986, 2.3).
fn url_part(value: &Value) -> Result<String, minijinja::Error> {
    if value.is_undefined() {
        return Err(minijinja::ErrorKind::UndefinedError.into());
    }
    let text = value.to_string();
    let part = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    Ok(text.bytes().map(part).collect())
}

/// A time of the alert as milliseconds since 1970, as dashboards want it.
fn ms_epoch(value: &Value) -> Result<i64, minijinja::Error> {
    let text = value.as_str().unwrap_or_default();
    let time = DateTime::parse_from_rfc3339(text);
    let wrong = || minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, "ms_epoch wants a time such as window_start");
    Ok(time.map_err(|_| wrong())?.timestamp_millis())
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

fn context(event: &Transition, rule: &Rule) -> Value {
    let has_baseline = rule.baseline.is_some();
    let shown = |value: &Option<String>| value.as_deref().map_or("unknown".to_owned(), clean);
    let mut dims: BTreeMap<String, Value> = event
        .dims
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(shown(value))))
        .collect();
    for name in &rule.group_by {
        dims.entry(name.clone()).or_insert_with(|| Value::from("all"));
    }
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
        ("impacted", Value::from(event.impacted)),
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

#[cfg(test)]
mod tests {
    use super::super::fixture::{T0, plain_rule, row, step};
    use super::super::state::States;

    #[test]
    fn links_carry_dimensions_and_times_as_a_url_wants_them() {
        let link = "links: {board: \"https://g.example/d?device={{ device_type | url }}&from={{ window_start | ms_epoch }}\"}";
        let rule = plain_rule(&[("for: 2m", link)]);
        let (events, _) = step(&rule, T0, &[row(T0, &["smart tv&x"], 60.0, 1_000.0)], &[], &States::default());
        assert_eq!(
            events[0].links["board"],
            "https://g.example/d?device=smart%20tv%26x&from=1793563740000"
        );
    }

    #[test]
    fn a_rule_without_rows_speaks_for_itself() {
        let text = "no_data: {state: alert, after: 0m}\n        labels: {device: \"{{ device_type }}\"}\n        \
                    annotations: {summary: \"{{ value | pct }} on {{ device_type }}\"}";
        let rule = plain_rule(&[("for: 2m", text)]);
        let (events, _) = step(&rule, T0, &[], &[], &States::default());
        assert_eq!(events[0].labels["device"], "all");
        assert!(events[0].annotations["summary"].starts_with("Errors: no rows at all"));
    }
}
