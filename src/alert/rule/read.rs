//! Rule files read into the rules in force, or into every complaint about them.
//!
//! Stands between the nodes of `yaml` and `Rule`. Here are the files, their groups and the order of a
//! rule's parts; the parts are read by the files below.
//!
//! Invariant: one complaint makes the whole set invalid; the caller keeps the set that it has.
//! Invariant: the same files in any order give the same set and the same hash.
//! Invariant: each part of a rule is read, and complained about, whatever the others are.

mod condition;
mod field;
mod measure;
mod target;
mod template;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::schema::{DEFAULTS, GROUP, RULE, TOP};
use super::yaml::{self, Node};
use super::{Catalogue, Complaint, Confidence, Rule, RuleSet, Severity, Target};
use crate::alert::{DAY_MS, MINUTE_MS};
use field::{Entry, Fields, Place};

/// Each rule is one query a minute.
const MAX_RULES: usize = 1_000;
/// More complaints than this help nobody; the first ones are kept.
const MAX_COMPLAINTS: usize = 200;
/// Names become part of subjects, which must stay under 100 characters.
const MAX_NAME_CHARS: usize = 64;
/// A window is read again every minute; a day is 1,440 rows a group.
const MAX_WINDOW_MS: i64 = DAY_MS;
/// Longer than this an alert is a report.
const MAX_HOLD_MS: i64 = 7 * DAY_MS;

const DEFAULT_WINDOW_MS: i64 = 5 * MINUTE_MS;

/// Reads every rule file. `files` are (name, text); `lookup_env` answers `${NAME}` in targets.
///
/// Targets are shared by all files; `defaults` hold for their own file. A rule with
/// `enabled: false` is checked and left out.
pub fn parse_rules(
    files: &[(String, String)],
    catalogue: &dyn Catalogue,
    lookup_env: &dyn Fn(&str) -> Option<String>,
) -> Result<RuleSet, Vec<Complaint>> {
    let mut files: Vec<&(String, String)> = files.iter().collect();
    files.sort();
    let mut set = SetReader {
        catalogue,
        lookup_env,
        targets: BTreeMap::new(),
        names: BTreeMap::new(),
        rules: Vec::new(),
        complaints: Vec::new(),
    };
    let mut documents = Vec::new();
    for (name, text) in &files {
        match yaml::read(name, text) {
            Ok(document) => documents.push((name, text, document)),
            Err(complaint) => set.complaints.push(*complaint),
        }
    }
    let mut opened = Vec::new();
    for (name, text, document) in &documents {
        let mut file = FileReader { name, text, set: &mut set };
        if let Some(top) = file.top(Entry::new(document, String::new())) {
            file.targets(&top);
            opened.push((name, text, top));
        }
    }
    for (name, text, top) in &opened {
        FileReader { name, text, set: &mut set }.groups(top);
    }
    if !set.complaints.is_empty() {
        set.complaints
            .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        set.complaints.truncate(MAX_COMPLAINTS);
        return Err(set.complaints);
    }
    Ok(RuleSet {
        rules: set.rules,
        targets: set.targets,
        hash: hash_of(&files),
    })
}

fn hash_of(files: &[&(String, String)]) -> String {
    let mut hasher = Sha256::new();
    for (_, text) in files {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    format!("sha256:{}", crate::alert::hex(&hasher.finalize()))
}

/// What all files share.
struct SetReader<'s> {
    catalogue: &'s dyn Catalogue,
    lookup_env: &'s dyn Fn(&str) -> Option<String>,
    targets: BTreeMap<String, Target>,
    /// `uid x` or `alert X` to where it was first used.
    names: BTreeMap<String, String>,
    rules: Vec<Rule>,
    complaints: Vec<Complaint>,
}

/// `defaults` of one file.
#[derive(Default)]
struct Defaults<'n> {
    window_ms: Option<i64>,
    hold_ms: Option<i64>,
    confidence: Option<Confidence>,
    severity: Option<Severity>,
    owner: Option<String>,
    notify: Option<Entry<'n>>,
}

/// Reads one file; what is at fault in it becomes a complaint of the set.
struct FileReader<'f, 's> {
    name: &'f str,
    text: &'f str,
    set: &'f mut SetReader<'s>,
}

impl FileReader<'_, '_> {
    fn complain(&mut self, place: &Place, message: impl Into<String>, fix: impl Into<String>) {
        let (line, column) = yaml::place(place.at);
        let at = (line, column, yaml::width(place.at));
        self.complain_at(at, &place.path, message.into(), fix.into());
    }

    fn complain_at(&mut self, (line, column, width): (usize, usize, usize), path: &str, message: String, fix: String) {
        self.set.complaints.push(Complaint {
            file: self.name.to_owned(),
            line,
            column,
            path: path.to_owned(),
            message,
            fix,
            source_line: yaml::source_line(self.text, line),
            width,
        });
    }

    fn top<'n>(&mut self, document: Entry<'n>) -> Option<Fields<'n>> {
        let top = self.fields(document, &TOP)?;
        if let Some(version) = self.required(&top, "version", "add `version: 1`")
            && !matches!(version.value, Node::Int(1))
        {
            self.complain(&version.place, "this release reads version 1", "write `version: 1`");
        }
        Some(top)
    }

    fn groups(&mut self, top: &Fields) {
        let defaults = self.defaults(top);
        let Some(groups) = top.get("groups") else {
            return;
        };
        for group in self.list(&groups, "write `- name: ...` with `rules`") {
            self.group(group, &defaults);
        }
    }

    fn defaults<'n>(&mut self, top: &Fields<'n>) -> Defaults<'n> {
        let fields = top.get("defaults").and_then(|entry| self.fields(entry, &DEFAULTS));
        let Some(fields) = fields else {
            return Defaults::default();
        };
        Defaults {
            window_ms: self.window_ms(&fields),
            hold_ms: self.hold_ms(&fields),
            confidence: self.confidence(&fields),
            severity: self.severity(&fields),
            owner: self.optional_text(&fields, "owner", "write the name of a team"),
            notify: fields.get("notify"),
        }
    }

    fn group(&mut self, entry: Entry, defaults: &Defaults) {
        let Some(fields) = self.fields(entry, &GROUP) else {
            return;
        };
        self.required_text(&fields, "name", "add `name: <text>`");
        self.only_word(&fields, "interval", "watermark", &[]);
        let Some(rules) = self.required(&fields, "rules", "add `rules:` and a list") else {
            return;
        };
        for rule in self.list(&rules, "write `- alert: ...`") {
            self.rule(rule, defaults);
        }
    }

    fn rule(&mut self, entry: Entry, defaults: &Defaults) {
        let before = self.set.complaints.len();
        let Some(fields) = self.fields(entry, &RULE) else {
            return;
        };
        let enabled = self.enabled(&fields);
        let Some(rule) = self.checked_rule(&fields, defaults) else {
            return;
        };
        if self.set.complaints.len() > before {
            return;
        }
        if self.set.rules.len() >= MAX_RULES {
            let message = format!("there are more than {MAX_RULES} rules");
            self.complain(&fields.place, message, "merge or remove rules");
            return;
        }
        if enabled {
            self.set.rules.push(rule);
        }
    }

    fn enabled(&mut self, fields: &Fields) -> bool {
        let Some(entry) = fields.get("enabled") else {
            return true;
        };
        let Node::Bool(enabled) = entry.value else {
            self.complain(&entry.place, "a yes or no is needed", "write `true` or `false`");
            return true;
        };
        *enabled
    }

    /// Reads every part before giving up, so that each is complained about.
    fn checked_rule(&mut self, fields: &Fields, defaults: &Defaults) -> Option<Rule> {
        let alert = self.name(fields, "alert", "letters, digits and `_`", is_alert_name);
        let uid = self.name(fields, "uid", "a-z, 0-9, `-` and `_`", is_uid);
        let table = self.table(fields);
        let columns = table.as_ref().map(|(_, columns)| columns.as_slice());
        let measure = self.measure(fields, columns);
        let own_samples = fields.get("samples").map(|entry| self.expression(&entry, columns));
        let filter = fields.get("where").and_then(|entry| self.expression(&entry, columns));
        let group_by = self.group_by(fields, columns);
        let min_samples = self.min_samples(fields, uid.as_deref());
        let window_ms = self.window_ms(fields).or(defaults.window_ms);
        let hold_ms = self.hold_ms(fields).or(defaults.hold_ms);
        let asked = self.confidence(fields);
        let confidence = measure
            .as_ref()
            .map(|measure| self.fitting_confidence(fields, measure, own_samples.is_some(), asked, defaults));
        let baseline = self.baseline(fields, &group_by);
        let (condition, and) = self.conditions(fields, measure.as_ref());
        let severity = self.severity(fields).or(defaults.severity).unwrap_or(Severity::Warning);
        let owner = self.owner(fields, severity, defaults);
        let runbook = self.optional_text(fields, "runbook", "write a URL");
        let targets = self.notify(fields, defaults);
        let labels = self.templates(fields, "labels");
        let annotations = self.templates(fields, "annotations");
        let measure = measure?;
        let samples = match own_samples {
            Some(samples) => samples?,
            None => measure.parts().1.to_owned(),
        };
        let rule = Rule {
            uid: uid?,
            alert: alert?,
            owner,
            runbook,
            from: table?.0,
            measure,
            samples,
            window_ms: window_ms.unwrap_or(DEFAULT_WINDOW_MS),
            group_by,
            filter,
            min_samples: min_samples? as f64,
            confidence: confidence?,
            baseline,
            condition: condition?,
            and,
            hold_ms: hold_ms.unwrap_or(0),
            severity,
            labels,
            annotations,
            targets,
        };
        self.check_templates(fields, &rule);
        Some(rule)
    }

    /// `alert` or `uid`: well-formed, and used once in all files.
    fn name(&mut self, fields: &Fields, key: &str, alphabet: &str, is_well_formed: fn(&str) -> bool) -> Option<String> {
        let fix = format!("write up to {MAX_NAME_CHARS} of {alphabet}");
        let name = self.required_text(fields, key, &fix)?;
        let place = fields.place_of(key);
        if !is_well_formed(&name) || name.len() > MAX_NAME_CHARS {
            self.complain(&place, format!("`{key}` is not a plain name"), fix);
            return None;
        }
        let here = format!("{}:{}", self.name, yaml::place(place.at).0);
        let earlier = self.set.names.insert(format!("{key} {name}"), here);
        if let Some(earlier) = earlier {
            let message = format!("`{key}: {name}` is used at {earlier} already");
            let fix = "give each rule its own; state is kept by uid";
            self.complain(&place, message, fix);
        }
        Some(name)
    }

    fn window_ms(&mut self, fields: &Fields) -> Option<i64> {
        self.duration_ms(fields, "window", MINUTE_MS, MINUTE_MS..=MAX_WINDOW_MS)
    }

    fn hold_ms(&mut self, fields: &Fields) -> Option<i64> {
        self.duration_ms(fields, "for", 1_000, 0..=MAX_HOLD_MS)
    }

    fn severity(&mut self, fields: &Fields) -> Option<Severity> {
        let entry = fields.get("severity")?;
        if matches!(entry.value, Node::List(_)) {
            let message = "a ladder of severities is not supported yet";
            self.complain(&entry.place, message, "write one severity");
            return None;
        }
        let words = Severity::ALL.map(|severity| (severity.as_str(), severity));
        self.word(&entry, &words, &[])
    }

    fn owner(&mut self, fields: &Fields, severity: Severity, defaults: &Defaults) -> Option<String> {
        let fix = "add `owner: <team>`";
        let is_missing = fields.get("owner").is_none() && defaults.owner.is_none();
        if is_missing && severity == Severity::Critical {
            self.complain(&fields.place, "a critical rule needs an `owner`", fix);
        }
        self.optional_text(fields, "owner", fix).or_else(|| defaults.owner.clone())
    }
}

fn is_alert_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_uid(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    name.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{RULES, check, edited, parse};
    use super::*;
    use crate::alert::tests::{Gold, seed_files};

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
        assert_eq!(rule.targets, ["console"]);
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
            "        uid: errors\n",
            "",
            r"
alerts/a.yaml:7:9: `uid` is missing, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ write up to 64 of a-z, 0-9, `-` and `_`
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
            "min_samples: 500\n        severity: [{threshold: 5%, severity: warning}]",
            r"
alerts/a.yaml:13:19: a ladder of severities is not supported yet, at groups[0].rules[0].severity
   13 |         severity: [{threshold: 5%, severity: warning}]
      |                   ^ write one severity
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
}
