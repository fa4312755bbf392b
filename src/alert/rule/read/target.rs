//! Where messages go: the targets of all files, and the targets that a rule names.
//!
//! Stands in the reading of rules; targets are read before the rules that name them.
//!
//! Invariant: a value taken from the environment is in no complaint.
//! Invariant: a rule that tells nobody is a complaint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use url::Url;

use super::super::Notify;
use super::super::complaint::{did_you_mean, listed};
use super::super::schema::{FILE, NOTIFY, SNS, STDOUT, TARGET, WEBHOOK};
use super::super::yaml::Node;
use super::FileReader;
use super::field::{Entry, Fields, Place};
use super::timing::MAX_HOLD_MS;
use crate::alert::target::{FileTarget, Secret, SnsForm, SnsTarget, Target, WebhookForm, WebhookTarget};
use crate::alert::{MINUTE_MS, form, message};

/// Headers that a webhook's author may add: a token or two.
const MAX_HEADERS: usize = 8;
/// Headers that are ours, or the connection's.
const TAKEN_HEADERS: [&str; 8] = [
    "host",
    "content-length",
    "content-type",
    "connection",
    "transfer-encoding",
    "user-agent",
    "idempotency-key",
    "te",
];
/// Between two messages to a topic with mail behind it, unless it says otherwise: SNS switches off a mail
/// subscription that gets more than ten a second (alerts spec 2.1), and nobody reads two.
const PEOPLE_PACE_MS: i64 = 500;
/// One message in ten seconds: slower, an incident is over before it is told.
const MIN_PER_SECOND: f64 = 0.1;
const MAX_PER_SECOND: f64 = 100.0;
/// A shorter secret is guessed.
const MIN_SECRET_BYTES: usize = 16;

/// Words of `format` of a webhook.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Json,
    Slack,
    PagerDuty,
    Template,
}

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
        let kinds = ["stdout", "file", "sns", "webhook"].map(|kind| fields.get(kind));
        match kinds {
            [Some(stdout), None, None, None] => {
                self.fields(stdout, &STDOUT)?;
                Some(Target::Stdout)
            }
            [None, Some(file), None, None] => self.file(file),
            [None, None, Some(sns), None] => self.sns(sns),
            [None, None, None, Some(webhook)] => self.webhook(webhook),
            _ => {
                let fix = "write `stdout: {}`, `file: {path: ...}`, `sns: {topic_arn: ...}` or `webhook: {url: ...}`";
                self.complain_of_choice(&fields, before, "a target is one of stdout, file, sns and webhook", fix);
                None
            }
        }
    }

    fn file(&mut self, entry: Entry) -> Option<Target> {
        let fields = self.fields(entry, &FILE)?;
        let fix = "write the path of a file, such as `path: /var/log/playhead/alerts.ndjson`";
        self.required(&fields, "path", fix);
        let path = PathBuf::from(self.resolved_text(&fields, "path", fix)?);
        if path.file_name().is_none() {
            self.complain(&fields.place_of("path"), "`path` is no path of a file", fix);
            return None;
        }
        Some(Target::File(FileTarget { path }))
    }

    fn sns(&mut self, entry: Entry) -> Option<Target> {
        let fields = self.fields(entry, &SNS)?;
        let arn_fix = "write `arn:aws:sns:<region>:<account>:<topic>` or `${NAME}`";
        let url_fix = "write an http or https URL";
        self.required(&fields, "topic_arn", arn_fix);
        let topic_arn = self.resolved_text(&fields, "topic_arn", arn_fix);
        let endpoint_url = self.resolved_text(&fields, "endpoint_url", url_fix);
        let region = self.resolved_text(&fields, "region", "write a region such as eu-west-1");
        let forms = [("json", SnsForm::Json), ("per_protocol", SnsForm::PerProtocol)];
        let form = fields.get("format").map(|entry| self.word(&entry, &forms, &[]));
        let form = form.flatten().unwrap_or_default();
        let pace_ms = self.pace_ms(&fields, if form == SnsForm::PerProtocol { PEOPLE_PACE_MS } else { 0 });
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
        Some(Target::Sns(SnsTarget {
            topic_arn,
            endpoint_url,
            region,
            form,
            pace_ms,
        }))
    }

    /// The pause between two messages that `max_per_second` makes; `usual` where it is not given.
    fn pace_ms(&mut self, fields: &Fields, usual: i64) -> i64 {
        let Some(entry) = fields.get("max_per_second") else { return usual };
        let number = match entry.value {
            Node::Int(number) => Some(*number as f64),
            Node::Float(number) => Some(*number),
            _ => None,
        };
        match number.filter(|number| (MIN_PER_SECOND..=MAX_PER_SECOND).contains(number)) {
            Some(number) => (1_000.0 / number).ceil() as i64,
            None => {
                let message = "`max_per_second` is no number of 0.1 to 100";
                self.complain(
                    &entry.place,
                    message,
                    "write how many messages a second it takes, such as `max_per_second: 2`",
                );
                usual
            }
        }
    }

    fn webhook(&mut self, entry: Entry) -> Option<Target> {
        let fields = self.fields(entry, &WEBHOOK)?;
        let allow_private = self.allow_private(&fields);
        let url = self.url(&fields, allow_private);
        let form = self.form(&fields);
        let secret = self.secret(&fields);
        let key_id = self.optional_text(&fields, "key_id", "write a short name, such as `2026-1`");
        if key_id.is_some() && fields.get("secret").is_none() {
            let message = "`key_id` names a secret, and there is none";
            self.complain(&fields.place_of("key_id"), message, "add `secret: ${NAME}`, or take it out");
        }
        let headers = self.headers(&fields);
        let pace_ms = self.pace_ms(&fields, 0);
        Some(Target::Webhook(WebhookTarget {
            url: Secret::new(url?),
            form: form?,
            secret,
            key_id: key_id.map(|id| message::clean(&id)),
            allow_private,
            headers,
            pace_ms,
        }))
    }

    fn allow_private(&mut self, fields: &Fields) -> bool {
        let Some(entry) = fields.get("allow_private") else { return false };
        let Node::Bool(allow) = entry.value else {
            self.complain(&entry.place, "a yes or no is needed", "write `true` or `false`");
            return false;
        };
        *allow
    }

    fn url(&mut self, fields: &Fields, allow_private: bool) -> Option<String> {
        let fix = "write an https URL, or take it from the environment with `${NAME}`";
        self.required(fields, "url", fix);
        let text = self.resolved_text(fields, "url", fix)?;
        let place = fields.place_of("url");
        let Some(url) = Url::parse(&text).ok().filter(Url::has_host) else {
            self.complain(&place, "`url` is not a URL", fix);
            return None;
        };
        let has_login = !url.username().is_empty() || url.password().is_some();
        match url.scheme() {
            _ if has_login => self.complain(&place, "`url` holds a login", "send it with `headers: {authorization: ...}`"),
            "https" => return Some(text),
            "http" if allow_private => return Some(text),
            "http" => self.complain(&place, "`url` is not encrypted", "write https, or add `allow_private: true`"),
            _ => self.complain(&place, "`url` is neither https nor http", fix),
        }
        None
    }

    fn form(&mut self, fields: &Fields) -> Option<WebhookForm> {
        let words = [
            ("json", Format::Json),
            ("slack", Format::Slack),
            ("pagerduty", Format::PagerDuty),
            ("template", Format::Template),
        ];
        let format = match fields.get("format") {
            Some(entry) => self.word(&entry, &words, &[])?,
            None if fields.get("template").is_some() => Format::Template,
            None => Format::Json,
        };
        for (key, owner, name) in [
            ("template", Format::Template, "template"),
            ("routing_key", Format::PagerDuty, "pagerduty"),
        ] {
            if fields.get(key).is_some() && format != owner {
                let message = format!("`{key}` goes with `format: {name}`");
                self.complain(&fields.place_of(key), message, format!("write `format: {name}`, or take it out"));
            }
        }
        match format {
            Format::Json => Some(WebhookForm::Json),
            Format::Slack => Some(WebhookForm::Slack),
            Format::PagerDuty => {
                let fix = "add `routing_key: ${NAME}`, the integration key of the PagerDuty service";
                self.required(fields, "routing_key", fix);
                let routing_key = Secret::new(self.resolved_text(fields, "routing_key", fix)?);
                Some(WebhookForm::PagerDuty { routing_key })
            }
            Format::Template => self.webhook_template(fields),
        }
    }

    fn webhook_template(&mut self, fields: &Fields) -> Option<WebhookForm> {
        let fix = r#"add `template: '{"text": {{ text | json }}}'`"#;
        let entry = self.required(fields, "template", fix)?;
        let template = self.text_of(&entry, fix)?;
        if let Err(reason) = form::try_template(&template) {
            let fix = "the names are those of the message's JSON, `text`, `subject` and `is_stale`; end each with `| json`";
            self.complain(&entry.place, format!("the template does not work: {reason}"), fix);
            return None;
        }
        Some(WebhookForm::Template(template))
    }

    fn secret(&mut self, fields: &Fields) -> Option<Secret> {
        let secret = self.resolved_text(fields, "secret", "write `${NAME}`")?;
        if secret.len() < MIN_SECRET_BYTES {
            let message = format!("`secret` has fewer than {MIN_SECRET_BYTES} bytes");
            self.complain(&fields.place_of("secret"), message, "take one from `openssl rand -hex 32`");
            return None;
        }
        Some(Secret::new(secret))
    }

    fn headers(&mut self, fields: &Fields) -> BTreeMap<String, Secret> {
        let mut headers = BTreeMap::new();
        let Some(entry) = fields.get("headers") else { return headers };
        let fix = "write for instance `headers: {authorization: \"Bearer ${TOKEN}\"}`";
        for (at, name, value) in self.named(&entry, fix) {
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let is_taken = TAKEN_HEADERS.contains(&name) || name.starts_with("playhead-");
            if name.is_empty() || !name.chars().all(is_name) || is_taken || headers.len() == MAX_HEADERS {
                let path = value.place.path.clone();
                let message = format!("`{}` cannot be a header here", message::clean(name));
                let fix = format!("at most {MAX_HEADERS}, in lower case, and none that the sender sets itself");
                self.complain(&Place { at, path }, message, fix);
                continue;
            }
            let Some(text) = self.resolved(&value, fix) else { continue };
            if !text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
                self.complain(&value.place, "a header is one line of ASCII", fix);
                continue;
            }
            headers.insert(name.to_owned(), Secret::new(text));
        }
        headers
    }

    /// A text in which each `${NAME}` has been replaced from the environment.
    fn resolved_text(&mut self, fields: &Fields, key: &str, fix: &str) -> Option<String> {
        self.resolved(&fields.get(key)?, fix)
    }

    fn resolved(&mut self, entry: &Entry, fix: &str) -> Option<String> {
        let text = self.text_of(entry, fix)?;
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

    /// Who is told. What the rule does not say comes from the defaults, key by key; where neither
    /// names a target, it is the only one there is.
    pub(super) fn notify(&mut self, fields: &Fields, group_by: &[String]) -> Notify {
        let usual = Notify {
            send_resolved: true,
            ..Notify::default()
        };
        let default = fields.default("notify").and_then(|entry| self.fields(entry, &NOTIFY));
        let own = fields.own("notify").map(|entry| self.fields(entry, &NOTIFY));
        let notify = match (own, default) {
            (Some(None), _) => return usual,
            (Some(Some(own)), default) => own.with_defaults(default.as_ref()),
            (None, Some(default)) => default,
            (None, None) => {
                return Notify {
                    targets: self.only_target(&fields.place),
                    ..usual
                };
            }
        };
        let targets = match notify.get("targets") {
            Some(list) => self.named_targets(&list),
            None => self.only_target(&notify.place),
        };
        let mut wait_ms = |key| self.duration_ms(&notify, key, 1_000, 0..=MAX_HOLD_MS);
        let (group_wait_ms, group_interval_ms) = (wait_ms("group_wait"), wait_ms("group_interval"));
        let repeat_interval_ms = self.duration_ms(&notify, "repeat_interval", MINUTE_MS, MINUTE_MS..=MAX_HOLD_MS);
        let active = self.optional_text(&notify, "active", "name a calendar");
        Notify {
            targets,
            group_by: self.grouping(&notify, group_by),
            group_wait_ms: group_wait_ms.unwrap_or(0),
            group_interval_ms: group_interval_ms.unwrap_or(0),
            repeat_interval_ms,
            send_resolved: self.flag(&notify, "send_resolved", true),
            active: active.and_then(|name| self.known_calendar(&notify.place_of("active"), &name)),
        }
    }

    fn named_targets(&mut self, list: &Entry) -> Vec<String> {
        let fix = "add `notify: {targets: [console]}`";
        let named = self.texts(list, fix);
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

    fn only_target(&mut self, place: &Place) -> Vec<String> {
        let names: Vec<String> = self.set.targets.keys().cloned().collect();
        if names.len() != 1 {
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            let fix = format!("add `notify: {{targets: [...]}}`; the targets are {}", listed(&known));
            self.complain(place, "nobody is told: `notify` names no target", fix);
        }
        names
    }

    /// What alerts must agree in to be told together: some of the rule's dimensions, `severity` and
    /// `alert`. A default names dimensions that other rules have.
    fn grouping(&mut self, notify: &Fields, group_by: &[String]) -> Vec<String> {
        let Some(entry) = notify.get("group_by") else {
            return Vec::new();
        };
        let mut names = Vec::new();
        let fix = "name dimensions of `group_by`, severity or alert";
        for (place, name) in self.texts(&entry, fix) {
            if name == "alert" || name == "severity" || group_by.contains(&name) {
                names.push(name);
            } else if notify.own("group_by").is_some() {
                self.complain(&place, format!("`{}` is not in `group_by`", message::clean(&name)), fix);
            }
        }
        names
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
    use super::super::super::tests::{RULES, TOPIC, check, edited, parse, parsed, texts};
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
        let expected = Target::Sns(SnsTarget {
            topic_arn: TOPIC.to_owned(),
            endpoint_url: Some("http://localhost:1".to_owned()),
            region: "eu-west-1".to_owned(),
            form: SnsForm::Json,
            pace_ms: 0,
        });
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
        let two = edited("console: {stdout: {}}", "console: {stdout: {}}\n  other: {stdout: {}}");
        let text = two.replace("        notify: {targets: [console]}\n", "");
        assert_eq!(
            texts(&parse(&[("a", text)]).unwrap_err()),
            "a:8:9: nobody is told: `notify` names no target, at groups[0].rules[0]\n    \
             8 |       - alert: Errors\n      \
             |         ^ add `notify: {targets: [...]}`; the targets are console, other\n"
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
  noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, max_per_second: 0, endpoint_url: localhost}}"#,
            r#"
alerts/a.yaml:4:46: `region` is not the topic's region, at targets.noc.sns.region
    4 |   noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, max_per_second: 0, endpoint_url: localhost}}
      |                                              ^^^^^^^^^ take `region` out; SNS wants the topic's own
alerts/a.yaml:4:73: `max_per_second` is no number of 0.1 to 100, at targets.noc.sns.max_per_second
    4 |   noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, max_per_second: 0, endpoint_url: localhost}}
      |                                                                         ^ write how many messages a second it takes, such as `max_per_second: 2`
alerts/a.yaml:4:90: `endpoint_url` is not a URL, at targets.noc.sns.endpoint_url
    4 |   noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, max_per_second: 0, endpoint_url: localhost}}
      |                                                                                          ^^^^^^^^^ write an http or https URL
"#,
        );
        check(
            "console: {stdout: {}}",
            "console: {}",
            r"
alerts/a.yaml:3:12: a target is one of stdout, file, sns and webhook, at targets.console
    3 |   console: {}
      |            ^ write `stdout: {}`, `file: {path: ...}`, `sns: {topic_arn: ...}` or `webhook: {url: ...}`
alerts/a.yaml:14:28: unknown target `console`, at groups[0].rules[0].notify.targets
   14 |         notify: {targets: [console]}
      |                            ^^^^^^^ define it under `targets`
",
        );
    }

    #[track_caller]
    fn target(text: &str) -> Target {
        let text = edited("console: {stdout: {}}", &format!("console: {text}"));
        let set = parse(&[("a", text)]);
        set.unwrap_or_else(|complaints| panic!("{}", texts(&complaints))).targets["console"].clone()
    }

    #[track_caller]
    fn refused(text: &str, expected: &[&str]) {
        let text = edited("console: {stdout: {}}", &format!("console: {text}"));
        let complaints = parse(&[("a", text)]).unwrap_err();
        let told = complaints.iter().map(|complaint| complaint.message.as_str());
        // A target that cannot be read is unknown to the rule as well.
        let told: Vec<&str> = told.filter(|message| !message.starts_with("unknown target")).collect();
        assert_eq!(told, *expected);
    }

    #[test]
    fn a_webhook_says_where_and_in_what_form() {
        let Target::Webhook(bare) = target("{webhook: {url: \"https://example.org/hook\"}}") else {
            panic!("a webhook")
        };
        assert_eq!((bare.form, bare.allow_private, bare.secret), (WebhookForm::Json, false, None));
        let full = target(
            "{webhook: {url: \"http://noc.local/\", allow_private: true, secret: \"${TOPIC}\", key_id: k1, \
             headers: {authorization: \"Bearer ${TOPIC}\"}, template: '{\"t\": {{ text | json }}}'}}",
        );
        let Target::Webhook(full) = full else { panic!("a webhook") };
        assert_eq!(full.form, WebhookForm::Template("{\"t\": {{ text | json }}}".to_owned()));
        assert_eq!(full.secret.unwrap().reveal(), TOPIC);
        assert_eq!(full.headers["authorization"].reveal(), format!("Bearer {TOPIC}"));
        let pager = target("{webhook: {url: \"https://example.org\", format: pagerduty, routing_key: \"${TOPIC}\"}}");
        assert!(matches!(
            pager,
            Target::Webhook(WebhookTarget {
                form: WebhookForm::PagerDuty { .. },
                ..
            })
        ));
    }

    #[test]
    fn what_a_webhook_may_not_be_is_said() {
        refused("{webhook: {url: \"http://example.org\"}}", &["`url` is not encrypted"]);
        refused("{webhook: {url: \"https://a:b@example.org\"}}", &["`url` holds a login"]);
        refused("{webhook: {url: \"file:///etc/passwd\"}}", &["`url` is not a URL"]);
        refused("{webhook: {url: \"ftp://example.org\"}}", &["`url` is neither https nor http"]);
        refused("{webhook: {format: pagerduty}}", &["`url` is missing", "`routing_key` is missing"]);
        refused(
            "{webhook: {url: \"https://example.org\", format: slack, template: x, routing_key: y}}",
            &[
                "`template` goes with `format: template`",
                "`routing_key` goes with `format: pagerduty`",
            ],
        );
        refused(
            "{webhook: {url: \"https://example.org\", secret: short, key_id: k, headers: {Host: x, playhead-x: y}}}",
            &[
                "`secret` has fewer than 16 bytes",
                "`Host` cannot be a header here",
                "`playhead-x` cannot be a header here",
            ],
        );
        refused(
            "{webhook: {url: \"https://example.org\", template: '{{ nothing | json }}'}}",
            &["the template does not work: undefined value"],
        );
    }

    #[test]
    fn a_file_has_a_path() {
        let expected = Target::File(FileTarget {
            path: "/var/log/alerts.ndjson".into(),
        });
        assert_eq!(target("{file: {path: /var/log/alerts.ndjson}}"), expected);
        refused("{file: {}}", &["`path` is missing"]);
        refused("{file: {path: /}}", &["`path` is no path of a file"]);
    }

    #[test]
    fn a_topic_for_people_gets_its_form() {
        let sns = "{sns: {topic_arn: \"${TOPIC}\", format: per_protocol}}";
        assert!(matches!(
            target(sns),
            Target::Sns(SnsTarget {
                form: SnsForm::PerProtocol,
                ..
            })
        ));
    }

    #[test]
    fn a_target_takes_as_many_messages_a_second_as_it_says() {
        let pace_ms = |text: &str| target(text).pace_ms();
        assert_eq!(pace_ms("{sns: {topic_arn: \"${TOPIC}\"}}"), 0);
        assert_eq!(pace_ms("{sns: {topic_arn: \"${TOPIC}\", format: per_protocol}}"), 500);
        assert_eq!(
            pace_ms("{sns: {topic_arn: \"${TOPIC}\", format: per_protocol, max_per_second: 5}}"),
            200
        );
        assert_eq!(pace_ms("{webhook: {url: \"https://example.org/x\", max_per_second: 0.5}}"), 2_000);
    }

    #[test]
    fn the_only_target_is_told_where_nobody_is_named() {
        let rule = parsed("        notify: {targets: [console]}\n", "");
        assert_eq!(rule.targets(), ["console"]);
        assert!(rule.notify.send_resolved);
    }

    #[test]
    fn defaults_of_notify_hold_key_by_key() {
        let text = edited(
            "version: 1",
            "version: 1\ndefaults: {notify: {send_resolved: false, repeat_interval: 4h, group_by: [alert, isp]}}",
        );
        let rule = parse(&[("a", text)]).unwrap().rules[0].clone();
        assert_eq!((rule.targets(), rule.notify.send_resolved), (&["console".to_owned()][..], false));
        assert_eq!(rule.notify.repeat_interval_ms, Some(240 * MINUTE_MS));
        assert_eq!(rule.notify.group_by, ["alert"], "another rule may have an isp");
        check(
            "{targets: [console]}",
            "{targets: [console], group_by: [isp]}",
            r"
alerts/a.yaml:14:49: `isp` is not in `group_by`, at groups[0].rules[0].notify.group_by
   14 |         notify: {targets: [console], group_by: [isp]}
      |                                                 ^^^ name dimensions of `group_by`, severity or alert
",
        );
    }
}
