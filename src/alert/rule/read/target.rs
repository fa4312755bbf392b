//! Where messages go: the targets of all files, and the targets that a rule names.
//!
//! Stands in the reading of rules; targets are read before the rules that name them.
//!
//! Invariant: a value taken from the environment is in no complaint.
//! Invariant: a rule that tells nobody is a complaint.

use std::collections::BTreeSet;

use super::super::Target;
use super::super::complaint::did_you_mean;
use super::super::schema::{NOTIFY, SNS, STDOUT, TARGET};
use super::field::{Entry, Fields, Place};
use super::{Defaults, FileReader};
use crate::alert::message;

impl FileReader<'_, '_> {
    pub(super) fn targets(&mut self, top: &Fields) {
        let Some(entry) = top.get("targets") else {
            return;
        };
        for (at, name, value) in self.named(&entry, "write for instance `console: {stdout: {}}`") {
            let place = Place {
                at,
                path: value.place.path.clone(),
            };
            let Some(target) = self.target(value) else {
                continue;
            };
            let earlier = self.set.targets.insert(name.to_owned(), target.clone());
            if earlier.is_some_and(|earlier| earlier != target) {
                let message = format!("target `{name}` differs from that of another file");
                let fix = "targets are shared by all files: give this one another name";
                self.complain(&place, message, fix);
            }
        }
    }

    fn target(&mut self, entry: Entry) -> Option<Target> {
        let before = self.set.complaints.len();
        let fields = self.fields(entry, &TARGET)?;
        match (fields.get("stdout"), fields.get("sns")) {
            (Some(stdout), None) => {
                self.fields(stdout, &STDOUT)?;
                Some(Target::Stdout)
            }
            (None, Some(sns)) => self.sns(sns),
            _ => {
                let fix = "write `stdout: {}` or `sns: {topic_arn: ...}`";
                self.complain_of_choice(&fields, before, "a target is one of stdout and sns", fix);
                None
            }
        }
    }

    fn sns(&mut self, entry: Entry) -> Option<Target> {
        let fields = self.fields(entry, &SNS)?;
        let arn_fix = "write `arn:aws:sns:<region>:<account>:<topic>` or `${NAME}`";
        let url_fix = "write an http or https URL";
        self.required(&fields, "topic_arn", arn_fix);
        let topic_arn = self.resolved_text(&fields, "topic_arn", arn_fix);
        let endpoint_url = self.resolved_text(&fields, "endpoint_url", url_fix);
        let region = self.resolved_text(&fields, "region", "write a region such as eu-west-1");
        let topic_arn = topic_arn?;
        let parts: Vec<&str> = topic_arn.split(':').collect();
        let ["arn", _, "sns", arn_region, _, topic] = parts[..] else {
            let message = "`topic_arn` is not the ARN of an SNS topic";
            self.complain(&fields.place_of("topic_arn"), message, arn_fix);
            return None;
        };
        if arn_region.is_empty() || topic.is_empty() {
            let message = "`topic_arn` names no region or no topic";
            self.complain(&fields.place_of("topic_arn"), message, arn_fix);
            return None;
        }
        let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if endpoint_url.as_ref().is_some_and(|url| !is_url(url)) {
            self.complain(&fields.place_of("endpoint_url"), "`endpoint_url` is not a URL", url_fix);
        }
        if region.as_ref().is_some_and(|region| region != arn_region) {
            let fix = "take `region` out; SNS wants the topic's own";
            self.complain(&fields.place_of("region"), "`region` is not the topic's region", fix);
        }
        let region = region.unwrap_or_else(|| arn_region.to_owned());
        Some(Target::Sns {
            topic_arn,
            endpoint_url,
            region,
        })
    }

    /// A text in which each `${NAME}` has been replaced from the environment.
    fn resolved_text(&mut self, fields: &Fields, key: &str, fix: &str) -> Option<String> {
        let entry = fields.get(key)?;
        let text = self.text_of(&entry, fix)?;
        let mut resolved = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("${") {
            let name = after.split('}').next().unwrap_or_default();
            if name.len() == after.len() || !is_env_name(name) {
                let fix = "write `${NAME}` in capitals, digits and underscores";
                self.complain(&entry.place, "`${` opens no name", fix);
                return None;
            }
            let Some(value) = (self.set.lookup_env)(name) else {
                let message = format!("the environment variable `{name}` is not set");
                let fix = format!("set {name} before the start, or take the target out");
                self.complain(&entry.place, message, fix);
                return None;
            };
            resolved.push_str(before);
            resolved.push_str(&value);
            rest = &after[name.len() + 1..];
        }
        resolved.push_str(rest);
        Some(resolved)
    }

    /// The names of a rule's targets, in order, each once.
    pub(super) fn notify(&mut self, fields: &Fields, defaults: &Defaults) -> Vec<String> {
        let fix = "add `notify: {targets: [console]}`";
        let Some(entry) = fields.get("notify").or_else(|| defaults.notify.clone()) else {
            self.complain(&fields.place, "nobody is told: `notify` is missing", fix);
            return Vec::new();
        };
        let Some(notify) = self.fields(entry, &NOTIFY) else {
            return Vec::new();
        };
        let Some(list) = self.required(&notify, "targets", fix) else {
            return Vec::new();
        };
        let named = self.texts(&list, fix);
        if named.is_empty() {
            self.complain(&list.place, "the rule has no target", fix);
        }
        let mut targets = BTreeSet::new();
        for (place, name) in named {
            if !self.set.targets.contains_key(&name) {
                self.complain_of_target(&place, &name);
            }
            targets.insert(name);
        }
        targets.into_iter().collect()
    }

    fn complain_of_target(&mut self, place: &Place, name: &str) {
        let known = self.set.targets.keys().map(String::as_str);
        let fix = did_you_mean(name, known).unwrap_or_else(|| "define it under `targets`".to_owned());
        self.complain(place, format!("unknown target `{}`", message::clean(name)), fix);
    }
}

fn is_env_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_') && name.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{RULES, TOPIC, check, edited, parse, texts};
    use super::*;

    #[test]
    fn targets_are_shared_by_all_files() {
        let mut second = RULES.replace("uid: errors", "uid: other");
        second = second.replace("alert: Errors", "alert: Other");
        let both = |second: &str| parse(&[("a", RULES.to_owned()), ("b", second.to_owned())]);
        assert_eq!(both(&second).unwrap().rules.len(), 2);
        let without = second.replace("targets:\n  console: {stdout: {}}\n", "");
        assert_eq!(both(&without).unwrap().targets.len(), 1);
        let differing = second.replace("{stdout: {}}", "{sns: {topic_arn: \"${TOPIC}\"}}");
        assert_eq!(
            texts(&both(&differing).unwrap_err()),
            "b:3:3: target `console` differs from that of another file, at targets.console\n    \
             3 |   console: {sns: {topic_arn: \"${TOPIC}\"}}\n      \
             |   ^^^^^^^ targets are shared by all files: give this one another name\n"
        );
    }

    #[test]
    fn sns_targets_take_their_region_from_the_topic() {
        let sns = "console: {sns: {topic_arn: \"${TOPIC}\", endpoint_url: \"http://localhost:1\"}}";
        let text = edited("console: {stdout: {}}", sns);
        let expected = Target::Sns {
            topic_arn: TOPIC.to_owned(),
            endpoint_url: Some("http://localhost:1".to_owned()),
            region: "eu-west-1".to_owned(),
        };
        assert_eq!(parse(&[("a", text)]).unwrap().targets["console"], expected);
    }

    #[test]
    fn a_value_of_the_environment_is_in_no_complaint() {
        let sns = "console: {sns: {topic_arn: \"${TOPIC}:x\", region: r, endpoint_url: \"${TOPIC}\"}}";
        let complaints = parse(&[("a", edited("console: {stdout: {}}", sns))]).unwrap_err();
        assert!(!complaints.is_empty());
        assert!(!texts(&complaints).contains("123456789012"));
    }

    #[test]
    fn somebody_must_be_told() {
        check(
            "[console]",
            "[consol]",
            r"
alerts/a.yaml:14:28: unknown target `consol`, at groups[0].rules[0].notify.targets
   14 |         notify: {targets: [consol]}
      |                            ^^^^^^ did you mean `console`?
",
        );
        check(
            "[console]",
            "[]",
            r"
alerts/a.yaml:14:27: the rule has no target, at groups[0].rules[0].notify.targets
   14 |         notify: {targets: []}
      |                           ^ add `notify: {targets: [console]}`
",
        );
        check(
            "        notify: {targets: [console]}\n",
            "",
            r"
alerts/a.yaml:7:9: nobody is told: `notify` is missing, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ add `notify: {targets: [console]}`
",
        );
    }

    #[test]
    fn targets_are_resolved_from_the_environment() {
        check(
            "console: {stdout: {}}",
            r#"console: {stdout: {}}
  noc: {sns: {topic_arn: "${NOC}"}}"#,
            r#"
alerts/a.yaml:4:26: the environment variable `NOC` is not set, at targets.noc.sns.topic_arn
    4 |   noc: {sns: {topic_arn: "${NOC}"}}
      |                          ^^^^^^^^ set NOC before the start, or take the target out
"#,
        );
        check(
            "console: {stdout: {}}",
            r#"console: {stdout: {}}
  noc: {sns: {topic_arn: "${noc}"}}"#,
            r#"
alerts/a.yaml:4:26: `${` opens no name, at targets.noc.sns.topic_arn
    4 |   noc: {sns: {topic_arn: "${noc}"}}
      |                          ^^^^^^^^ write `${NAME}` in capitals, digits and underscores
"#,
        );
        check(
            "console: {stdout: {}}",
            r#"console: {stdout: {}}
  noc: {sns: {topic_arn: "topic"}}"#,
            r#"
alerts/a.yaml:4:26: `topic_arn` is not the ARN of an SNS topic, at targets.noc.sns.topic_arn
    4 |   noc: {sns: {topic_arn: "topic"}}
      |                          ^^^^^^^ write `arn:aws:sns:<region>:<account>:<topic>` or `${NAME}`
"#,
        );
        check(
            "console: {stdout: {}}",
            r#"console: {stdout: {}}
  noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, format: json, endpoint_url: localhost}}"#,
            r#"
alerts/a.yaml:4:46: `region` is not the topic's region, at targets.noc.sns.region
    4 |   noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, format: json, endpoint_url: localhost}}
      |                                              ^^^^^^^^^ take `region` out; SNS wants the topic's own
alerts/a.yaml:4:57: `format` in `sns` is not supported yet, at targets.noc.sns.format
    4 |   noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, format: json, endpoint_url: localhost}}
      |                                                         ^^^^^^ take it out
alerts/a.yaml:4:85: `endpoint_url` is not a URL, at targets.noc.sns.endpoint_url
    4 |   noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, format: json, endpoint_url: localhost}}
      |                                                                                     ^^^^^^^^^ write an http or https URL
"#,
        );
        check(
            "console: {stdout: {}}",
            "console: {}",
            r"
alerts/a.yaml:3:12: a target is one of stdout and sns, at targets.console
    3 |   console: {}
      |            ^ write `stdout: {}` or `sns: {topic_arn: ...}`
alerts/a.yaml:14:28: unknown target `console`, at groups[0].rules[0].notify.targets
   14 |         notify: {targets: [console]}
      |                            ^^^^^^^ define it under `targets`
",
        );
    }
}
