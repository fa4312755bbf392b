//! Bodies that other systems read: Slack's, PagerDuty's, and templates of the user's own.
//!
//! Stands behind `message`: its JSON and its line for people in, the body of a webhook out.
//!
//! Invariant: the same message gives the same body, always valid JSON.
//! Invariant: a template sees the fields of its message and nothing else; it cannot run for ever.
//! Invariant: in Slack's form a value from outside is text: it mentions nobody and links nowhere.

use std::collections::BTreeMap;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};

use super::message::{self, clean};
use super::target::WebhookForm;
use super::transition::Status;

/// Steps of one template: ours take some hundreds, a loop over everything in a message some thousands.
const MAX_FUEL: u64 = 20_000;
/// As much as PagerDuty takes; others take more.
const MAX_BODY_BYTES: usize = 512 << 10;

/// An incoming webhook of Slack: what happened, the author's sentences, causes, links.
const SLACK: &str = r##"{"text": {{ text | slack | json }}, "blocks": [
{"type": "section", "text": {"type": "mrkdwn", "text": {{ ("*" ~ (subject | slack) ~ "*" ~ (" _late: do not act on it_" if is_stale else "")) | json }}}},
{"type": "section", "text": {"type": "mrkdwn", "text": {{ text | slack | json }}}}
{%- for name, sentence in annotations | items %},
{"type": "section", "text": {"type": "mrkdwn", "text": {{ sentence | slack | json }}}}
{%- endfor %}
{%- for one in cause %},
{"type": "section", "text": {"type": "mrkdwn", "text": {{ ("cause: " ~ (one | cause_line | slack)) | json }}}}
{%- endfor %}
{%- for name, url in links | items %},
{"type": "context", "elements": [{"type": "mrkdwn", "text": {{ ("<" ~ (url | slack | replace("|", "%7C")) ~ "|" ~ (name | slack | replace("|", " ")) ~ ">") | json }}}]}
{%- endfor %}]}"##;

/// Events API v2 of PagerDuty: one incident an episode, resolved by its end. It knows no amendment, which would open an
/// incident that has ended once more: see `tells`.
const PAGER_DUTY: &str = r##"{"routing_key": {{ routing_key | json }},
"event_action": {{ ("resolve" if status == "resolved" else "trigger") | json }},
"dedup_key": {{ episode_id | json }}, "client": "Playhead",
"payload": {"summary": {{ text[:1024] | json }}, "source": {{ ("playhead/" ~ env) | json }}, "severity": {{ severity | json }},
"timestamp": {{ window.end | json }}, "group": {{ rule.uid | json }}, "class": {{ rule.alert | json }}, "custom_details": {{ message | json }}},
"links": [{% for name, url in links | items %}{{ "," if not loop.first }}{"href": {{ url | json }}, "text": {{ name | json }}}{% endfor %}]}"##;

/// What a body is made of.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'f> {
    /// The message's JSON.
    pub body: &'f str,
    /// The line for people.
    pub text: &'f str,
    pub subject: &'f str,
    /// True when it goes out past its `expires_at`.
    pub is_stale: bool,
}

/// Why a body cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("the stored message is not JSON ({0}); look at its row in ops.alert_events")]
    Message(String),
    #[error("{0}")]
    Template(String),
    #[error("the template does not give JSON ({0}); put every value through `| json`")]
    NotJson(String),
    #[error("the body has {0} bytes, more than {MAX_BODY_BYTES}; take lists out of the template")]
    TooLong(usize),
}

/// False for a message that this form has no word for: whoever reads it is told nothing.
pub fn tells(form: &WebhookForm, status: Status) -> bool {
    !(matches!(form, WebhookForm::PagerDuty { .. }) && status == Status::Amended)
}

/// The body of a webhook's request, one JSON document.
pub fn render(form: &WebhookForm, facts: Facts) -> Result<String, FormError> {
    match form {
        WebhookForm::Json => Ok(facts.body.to_owned()),
        WebhookForm::Slack => rendered(SLACK, facts, None),
        WebhookForm::PagerDuty { routing_key } => rendered(PAGER_DUTY, facts, Some(routing_key.reveal())),
        WebhookForm::Template(template) => rendered(template, facts, None),
    }
}

/// Renders a template of the user's own with the example of a firing and of an end that has no value.
pub(super) fn try_template(template: &str) -> Result<(), FormError> {
    for body in message::examples() {
        let facts = Facts {
            body: &body,
            text: "FIRING critical Example: 8.2 % of 1,234 clients",
            subject: "FIRING critical Example",
            is_stale: false,
        };
        rendered(template, facts, None)?;
    }
    Ok(())
}

fn rendered(template: &str, facts: Facts, routing_key: Option<&str>) -> Result<String, FormError> {
    let template_error = |error: minijinja::Error| FormError::Template(in_words(&error));
    let context = context(facts, routing_key).map_err(|error| FormError::Message(error.to_string()))?;
    let body = environment().render_str(template, context).map_err(template_error)?;
    if body.len() > MAX_BODY_BYTES {
        return Err(FormError::TooLong(body.len()));
    }
    let parsed: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&body);
    match parsed {
        Ok(_) => Ok(body),
        Err(error) => Err(FormError::NotJson(error.to_string())),
    }
}

/// Never the template's own words around the fault: they may hold what the environment filled in.
fn in_words(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => clean(&format!("{}: {detail}", error.kind())),
        None => error.kind().to_string(),
    }
}

/// The fields of the message by their names, the whole of it as `message`, and what is not in it.
fn context(facts: Facts, routing_key: Option<&str>) -> serde_json::Result<Value> {
    let mut fields: BTreeMap<String, Value> = serde_json::from_str(facts.body)?;
    let message: Value = serde_json::from_str(facts.body)?;
    let known = [
        ("message", message),
        ("text", Value::from(facts.text)),
        ("subject", Value::from(facts.subject)),
        ("is_stale", Value::from(facts.is_stale)),
    ];
    fields.extend(known.map(|(name, value)| (name.to_owned(), value)));
    fields.extend(routing_key.map(|key| ("routing_key".to_owned(), Value::from(key))));
    Ok(Value::from_pairs(fields))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(MAX_FUEL));
    environment.add_filter("json", json);
    environment.add_filter("slack", slack);
    environment.add_filter("cause_line", cause_line);
    environment
}

fn json(value: &Value) -> Result<String, minijinja::Error> {
    if value.is_undefined() {
        return Err(minijinja::ErrorKind::UndefinedError.into());
    }
    serde_json::to_string(value).map_err(|error| minijinja::Error::new(minijinja::ErrorKind::BadSerialization, error.to_string()))
}

/// Slack reads three characters; escaped, they open no mention and no link.
fn slack(text: String) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A cause of the message as a line for people.
fn cause_line(cause: &Value) -> Result<String, minijinja::Error> {
    let bad = |error: serde_json::Error| minijinja::Error::new(minijinja::ErrorKind::CannotDeserialize, error.to_string());
    let value = serde_json::to_value(cause).map_err(bad)?;
    let cause: message::Cause = serde_json::from_value(value).map_err(bad)?;
    Ok(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::target::Secret;

    fn facts(body: &str) -> Facts<'_> {
        Facts {
            body,
            text: "FIRING critical Errors isp=<!channel>: 8.2 %",
            subject: "FIRING critical Errors",
            is_stale: false,
        }
    }

    #[track_caller]
    fn rendered_json(form: &WebhookForm, body: &str) -> serde_json::Value {
        serde_json::from_str(&render(form, facts(body)).unwrap()).unwrap()
    }

    #[test]
    fn slack_gets_text_that_mentions_nobody() {
        let [firing, _] = message::examples();
        let body = rendered_json(&WebhookForm::Slack, &firing);
        assert_eq!(body["text"], "FIRING critical Errors isp=&lt;!channel&gt;: 8.2 %");
        let texts: Vec<&str> = body["blocks"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|block| block["text"]["text"].as_str())
            .collect();
        assert_eq!(texts[0], "*FIRING critical Errors*");
        assert_eq!(
            texts[3],
            "cause: cdn=cdn-b, pop=MAD51 explains 91 % (now 611, before 158.1, 22,107 samples)"
        );
        let link = &body["blocks"].as_array().unwrap().last().unwrap()["elements"][0]["text"];
        assert!(link.as_str().unwrap().starts_with("<https://runbooks.example/"), "{link}");
    }

    #[test]
    fn what_goes_out_late_says_so() {
        let [firing, _] = message::examples();
        let late = Facts {
            is_stale: true,
            ..facts(&firing)
        };
        assert!(render(&WebhookForm::Slack, late).unwrap().contains("_late: do not act on it_"));
    }

    #[test]
    fn pagerduty_gets_one_incident_an_episode() {
        let form = WebhookForm::PagerDuty {
            routing_key: Secret::new("key"),
        };
        let [firing, resolved] = message::examples();
        let [trigger, resolve] = [&firing, &resolved].map(|body| rendered_json(&form, body));
        assert_eq!([&trigger["event_action"], &resolve["event_action"]], ["trigger", "resolve"]);
        assert_eq!(trigger["dedup_key"], resolve["dedup_key"]);
        assert_eq!(trigger["routing_key"], "key");
        assert_eq!(trigger["payload"]["severity"], "critical");
        assert_eq!(trigger["payload"]["custom_details"]["schema"], "playhead.alert/1");
        assert_eq!(trigger["links"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn our_own_form_is_the_message_byte_for_byte() {
        let [firing, _] = message::examples();
        assert_eq!(render(&WebhookForm::Json, facts(&firing)).unwrap(), firing);
    }

    #[track_caller]
    fn check_template(template: &str, expected: Result<(), &str>) {
        let told = try_template(template).map_err(|error| error.to_string());
        match (&told, expected) {
            (Ok(()), Ok(())) => {}
            (Err(told), Err(expected)) => assert!(told.contains(expected), "{told}"),
            _ => panic!("{told:?}"),
        }
    }

    #[test]
    fn a_template_of_ones_own_is_tried_when_it_is_read() {
        check_template(
            r#"{"t": {{ text | json }}, "v": {{ value | json }}, "c": {{ dims.country | json }}}"#,
            Ok(()),
        );
        check_template(r#"{"t": {{ txt | json }}}"#, Err("undefined value"));
        check_template(r#"{"t": "{{ text }}"#, Err("does not give JSON"));
        check_template("{{ text", Err("syntax error"));
        check_template(r#"{"v": {{ value * 100 }}}"#, Err("invalid operation"));
        check_template(
            "{% for a in range(9999) %}{% for b in range(9999) %} {% endfor %}{% endfor %}1",
            Err("fuel"),
        );
    }
}
