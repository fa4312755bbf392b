//! Labels and annotations: templates of a rule, tried when they are read.
//!
//! Stands in the reading of rules, over `alert::message`, which renders.
//!
//! Invariant: a template that fails with the fields of its own rule is a complaint.

use std::collections::BTreeMap;

use super::super::Rule;
use super::super::complaint::listed;
use super::super::yaml::Node;
use super::FileReader;
use super::field::{Entry, Fields, Place};
use crate::alert::message;

/// Annotations, and labels, of one rule: what fits a message of 64 KiB.
const MAX_TEMPLATES: usize = 16;

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

    /// Renders each template with sample values, and once more as for a group that has vanished.
    pub(super) fn check_templates(&mut self, fields: &Fields, rule: &Rule) {
        for (key, templates) in [("labels", &rule.labels), ("annotations", &rule.annotations)] {
            let Some(Entry {
                value: Node::Map(entries),
                place,
            }) = fields.get(key)
            else {
                continue;
            };
            for (name, node) in entries {
                let Some(Err(reason)) = templates.get(&name.value).map(|template| message::try_template(template, rule)) else {
                    continue;
                };
                let place = Place {
                    at: node.referenced,
                    path: format!("{}.{}", place.path, name.value),
                };
                let fix = format!("the fields are {}; the filters are pct and ms", listed(&message::field_names(rule)));
                self.complain(&place, format!("the template does not work: {reason}"), fix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::check;

    #[test]
    fn templates_are_tried_when_they_are_loaded() {
        check(
            "min_samples: 500",
            r#"min_samples: 500
        annotations: {summary: "{{ device }}"}"#,
            r#"
alerts/a.yaml:13:32: the template does not work: undefined value, at groups[0].rules[0].annotations.summary
   13 |         annotations: {summary: "{{ device }}"}
      |                                ^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        annotations: {summary: "{{ baseline | pct }}"}"#,
            r#"
alerts/a.yaml:13:32: the template does not work: undefined value, at groups[0].rules[0].annotations.summary
   13 |         annotations: {summary: "{{ baseline | pct }}"}
      |                                ^^^^^^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        annotations: {summary: "{{ value * 2 }}"}"#,
            r#"
alerts/a.yaml:13:32: the template does not work: invalid operation: tried to use * operator on unsupported types none and number (for a group that has no value any more), at groups[0].rules[0].annotations.summary
   13 |         annotations: {summary: "{{ value * 2 }}"}
      |                                ^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        labels: {kind: "{% for i in dims %}"}"#,
            r#"
alerts/a.yaml:13:24: the template does not work: syntax error: unexpected end of input, expected end of block, at groups[0].rules[0].labels.kind
   13 |         labels: {kind: "{% for i in dims %}"}
      |                        ^^^^^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        labels: {kind: "{{ value | url }}"}"#,
            r#"
alerts/a.yaml:13:24: the template does not work: unknown filter: filter url is unknown, at groups[0].rules[0].labels.kind
   13 |         labels: {kind: "{{ value | url }}"}
      |                        ^^^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        labels: {kind: "{% for a in [1,2,3,4,5,6,7,8,9] %}{% for b in [1,2,3,4,5,6,7,8,9] %}{% for c in [1,2,3,4,5,6,7,8,9] %}{{ c }}{% endfor %}{% endfor %}{% endfor %}"}"#,
            r#"
alerts/a.yaml:13:24: the template does not work: engine ran out of fuel, at groups[0].rules[0].labels.kind
   13 |         labels: {kind: "{% for a in [1,2,3,4,5,6,7,8,9] %}{% for b in [1,2,3,4,5,6,7,8,9] %}{% for c in [1,2,3,4,5,6,7,8,9] %}{{ c }}{% endfor %}{% endfor %}{% 
      |                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
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
}
