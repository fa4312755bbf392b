//! Labels, annotations, links and remediation: templates of a rule, tried when they are read.
//!
//! Stands in the reading of rules, over `alert::template`, which renders.
//!
//! Invariant: a template that fails with the fields of its own rule is a complaint.

use std::collections::BTreeMap;

use super::super::complaint::{did_you_mean, listed};
use super::super::schema::REMEDIATION;
use super::super::yaml::Node;
use super::super::{Playbook, Rule};
use super::FileReader;
use super::field::{Entry, Fields, Place};
use crate::alert::{MINUTE_MS, template};

/// Annotations, and labels, of one rule: what fits a message of 64 KiB.
const MAX_TEMPLATES: usize = 16;
/// A machine must not act on news of yesterday.
const MAX_VALID_MS: i64 = 24 * 60 * MINUTE_MS;

const DEFAULT_VALID_MS: i64 = 5 * MINUTE_MS;

impl FileReader<'_, '_> {
    pub(super) fn templates(&mut self, fields: &Fields, key: &str) -> BTreeMap<String, String> {
        let Some(entry) = fields.get(key) else {
            return BTreeMap::new();
        };
        let named = self.named(&entry, "write `name: text`");
        if named.len() > MAX_TEMPLATES {
            let message = format!("{} entries are too many", named.len());
            self.complain(&entry.place, message, format!("keep to {MAX_TEMPLATES}"));
        }
        let mut templates = BTreeMap::new();
        for (_, name, value) in named {
            if let Some(text) = self.text_of(&value, "write a text in quotes") {
                templates.insert(name.to_owned(), text);
            }
        }
        templates
    }

    /// Dry runs until the author says otherwise.
    pub(super) fn remediation(&mut self, fields: &Fields) -> Option<Playbook> {
        let fields = self.fields(fields.get("remediation")?, &REMEDIATION)?;
        let playbook = self.required_text(&fields, "playbook", "name what to run");
        let params = self.templates(&fields, "params");
        let limits = self.limits(&fields);
        let valid_for_ms = self.duration_ms(&fields, "valid_for", 1_000, 1_000..=MAX_VALID_MS);
        Some(Playbook {
            playbook: playbook?,
            params,
            limits,
            valid_for_ms: valid_for_ms.unwrap_or(DEFAULT_VALID_MS),
            dry_run: self.flag(&fields, "dry_run", true),
        })
    }

    /// Plain values, passed on as they are written.
    fn limits(&mut self, fields: &Fields) -> BTreeMap<String, serde_json::Value> {
        let Some(entry) = fields.get("static") else {
            return BTreeMap::new();
        };
        let fix = "write `name: value`, each a text, a number, true or false";
        let mut limits = BTreeMap::new();
        for (_, name, value) in self.named(&entry, fix) {
            let plain = match value.value {
                Node::Text(text) => serde_json::Value::from(text.as_str()),
                Node::Int(number) => (*number).into(),
                Node::Float(number) => (*number).into(),
                Node::Bool(flag) => (*flag).into(),
                Node::Null | Node::List(_) | Node::Map(_) => {
                    self.complain(&value.place, "a plain value is needed", fix);
                    continue;
                }
            };
            limits.insert(name.to_owned(), plain);
        }
        limits
    }

    /// Renders each template with sample values, and once more as for a group that has vanished.
    pub(super) fn check_templates(&mut self, fields: &Fields, rule: &Rule) {
        let parts = [("labels", &rule.labels), ("annotations", &rule.annotations), ("links", &rule.links)];
        for (key, templates) in parts {
            self.try_all(fields.get(key), templates, rule);
        }
        let Some(remediation) = &rule.remediation else {
            return;
        };
        if let Some(entry) = fields.get("remediation")
            && let Some(inner) = self.fields(entry, &REMEDIATION)
        {
            self.try_all(inner.get("params"), &remediation.params, rule);
        }
    }

    fn try_all(&mut self, written: Option<Entry>, templates: &BTreeMap<String, String>, rule: &Rule) {
        let Some(Entry {
            value: Node::Map(entries),
            place,
        }) = written
        else {
            return;
        };
        for (name, node) in entries {
            let Some(text) = templates.get(&name.value) else { continue };
            let Err(reason) = template::try_template(text, rule) else {
                continue;
            };
            let place = Place {
                at: node.referenced,
                path: format!("{}.{}", place.path, name.value),
            };
            let fix = format!(
                "{}the fields are {}; the filters are {}",
                slip(text, rule),
                listed(&template::field_names(rule)),
                listed(&template::FILTERS)
            );
            self.complain(&place, format!("the template does not work: {reason}"), fix);
        }
    }
}

/// The name nearest to the first that a template uses and its rule has not, if that is a slip.
fn slip(text: &str, rule: &Rule) -> String {
    let known = [&template::field_names(rule)[..], &template::FILTERS, &["dims"]].concat();
    let expressions = text.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap_or(rest));
    let words = expressions.flat_map(|expression| expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let mut unknown = words.filter(|word| !word.is_empty() && !known.contains(word));
    let hint = unknown.find_map(|word| did_you_mean(word, known.iter().copied()));
    hint.map_or(String::new(), |hint| format!("{hint} "))
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{check, parsed};
    use super::*;

    #[test]
    fn templates_are_tried_when_they_are_loaded() {
        check(
            "min_samples: 500",
            r#"min_samples: 500
        annotations: {summary: "{{ device }}"}"#,
            r#"
alerts/a.yaml:13:32: the template does not work: undefined value, at groups[0].rules[0].annotations.summary
   13 |         annotations: {summary: "{{ device }}"}
      |                                ^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at, impacted; the filters are pct, ms, url, ms_epoch
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        annotations: {summary: "{{ baseline | pct }}"}"#,
            r#"
alerts/a.yaml:13:32: the template does not work: undefined value, at groups[0].rules[0].annotations.summary
   13 |         annotations: {summary: "{{ baseline | pct }}"}
      |                                ^^^^^^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at, impacted; the filters are pct, ms, url, ms_epoch
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        annotations: {summary: "{{ value * 2 }}"}"#,
            r#"
alerts/a.yaml:13:32: the template does not work: invalid operation: tried to use * operator on unsupported types none and number (for a group that has no value any more), at groups[0].rules[0].annotations.summary
   13 |         annotations: {summary: "{{ value * 2 }}"}
      |                                ^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at, impacted; the filters are pct, ms, url, ms_epoch
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        labels: {kind: "{% for i in dims %}"}"#,
            r#"
alerts/a.yaml:13:24: the template does not work: syntax error: unexpected end of input, expected end of block, at groups[0].rules[0].labels.kind
   13 |         labels: {kind: "{% for i in dims %}"}
      |                        ^^^^^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at, impacted; the filters are pct, ms, url, ms_epoch
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        labels: {kind: "{{ value | urn }}"}"#,
            r#"
alerts/a.yaml:13:24: the template does not work: unknown filter: filter urn is unknown, at groups[0].rules[0].labels.kind
   13 |         labels: {kind: "{{ value | urn }}"}
      |                        ^^^^^^^^^^^^^^^^^^^ did you mean `url`? the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at, impacted; the filters are pct, ms, url, ms_epoch
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        labels: {kind: "{% for a in [1,2,3,4,5,6,7,8,9] %}{% for b in [1,2,3,4,5,6,7,8,9] %}{% for c in [1,2,3,4,5,6,7,8,9] %}{{ c }}{% endfor %}{% endfor %}{% endfor %}"}"#,
            r#"
alerts/a.yaml:13:24: the template does not work: engine ran out of fuel, at groups[0].rules[0].labels.kind
   13 |         labels: {kind: "{% for a in [1,2,3,4,5,6,7,8,9] %}{% for b in [1,2,3,4,5,6,7,8,9] %}{% for c in [1,2,3,4,5,6,7,8,9] %}{{ c }}{% endfor %}{% endfor %}{% 
      |                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at, impacted; the filters are pct, ms, url, ms_epoch
"#,
        );
    }

    #[test]
    fn templates_have_names() {
        check(
            "min_samples: 500",
            "min_samples: 500\n        labels: [kind]",
            r"
alerts/a.yaml:13:17: a mapping is needed, at groups[0].rules[0].labels
   13 |         labels: [kind]
      |                 ^ write `name: text`
",
        );
    }

    #[test]
    fn a_machine_gets_rendered_parameters_and_plain_limits() {
        let text =
            "remediation: {playbook: shift, params: {from: \"{{ device_type }}\"}, static: {max_shift: 20%, cooldown: 15m, steps: 3}}";
        let rule = parsed("min_samples: 500", &format!("min_samples: 500\n        {text}"));
        let playbook = rule.remediation.unwrap();
        assert!(playbook.dry_run, "until the author says otherwise");
        assert_eq!(playbook.valid_for_ms, 5 * MINUTE_MS);
        assert_eq!(playbook.limits["steps"], 3);
        check(
            "min_samples: 500",
            "min_samples: 500\n        remediation: {playbook: shift, params: {from: \"{{ cdn }}\"}}",
            r#"
alerts/a.yaml:13:55: the template does not work: undefined value, at groups[0].rules[0].remediation.params.from
   13 |         remediation: {playbook: shift, params: {from: "{{ cdn }}"}}
      |                                                       ^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at, impacted; the filters are pct, ms, url, ms_epoch
"#,
        );
    }
}
