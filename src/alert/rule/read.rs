//! Rule files read into the rules in force, or into every complaint about them.
//!
//! Stands between the nodes of `yaml` and `Rule`. Here are the files, their groups and the order of a
//! rule's parts; the parts are read by the files below.
//!
//! Invariant: one complaint makes the whole set invalid; the caller keeps the set that it has.
//! Invariant: the same files in any order give the same set and the same hash.
//! Invariant: each part of a rule is read, and complained about, whatever the others are.

mod baseline;
mod columns;
mod condition;
mod field;
mod measure;
mod samples;
mod silence;
mod target;
mod template;
mod timing;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::schema::{DEFAULTS, EXPLAIN, GROUP, RULE, TOP};
use super::yaml::{self, Node};
use super::{Calendar, Catalogue, Complaint, Explain, Inhibition, Rule, RuleSet, Severity, Silence, Target};
use field::{Entry, Fields, Place};

pub use field::parse_duration_ms;

/// Each rule is one query a minute.
const MAX_RULES: usize = 1_000;
/// More complaints than this help nobody; the first ones are kept.
const MAX_COMPLAINTS: usize = 200;
/// Names become part of subjects, which must stay under 100 characters.
const MAX_NAME_CHARS: usize = 64;
/// Dimensions that a cause may combine; the search grows with their combinations.
const MAX_DEPTH: i64 = 4;
/// Causes that a message names.
const MAX_CAUSES: i64 = 10;

const DEFAULT_DEPTH: usize = 3;
const DEFAULT_CAUSES: usize = 3;

/// The target of rules where no file names any.
const CONSOLE: &str = "console";

/// Reads every rule file. `files` are (name, text); `lookup_env` answers `${NAME}` in targets.
///
/// Targets, calendars, inhibitions and silences are shared by all files; `defaults` hold for their
/// own file. A rule with `enabled: false` is checked and left out. Where no file has `targets`, the
/// terminal is one, under the name `console`.
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
        calendars: BTreeMap::new(),
        names: BTreeMap::new(),
        rules: Vec::new(),
        inhibitions: Vec::new(),
        silences: Vec::new(),
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
            file.calendars(&top);
            opened.push((name, text, top));
        }
    }
    if opened.iter().all(|(_, _, top)| top.get("targets").is_none()) {
        set.targets.insert(CONSOLE.to_owned(), Target::Stdout);
    }
    for (name, text, top) in &opened {
        let mut file = FileReader { name, text, set: &mut set };
        file.rules_of(top);
        file.inhibitions(top);
        file.silences(top);
    }
    if !set.complaints.is_empty() {
        return Err(in_order(set.complaints));
    }
    let judged = opened.iter().filter(|(_, _, top)| !is_of_silences(top));
    Ok(RuleSet {
        rules: set.rules,
        targets: set.targets,
        inhibitions: set.inhibitions,
        silences: set.silences,
        hash: hash_of(judged.map(|(_, text, _)| text.as_str())),
    })
}

/// Each once: a fault in `defaults` is found again by each rule that has it from there.
fn in_order(mut complaints: Vec<Complaint>) -> Vec<Complaint> {
    complaints.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    complaints.dedup();
    complaints.truncate(MAX_COMPLAINTS);
    complaints
}

/// True for a file that says who is not to be told, and nothing about what is judged.
fn is_of_silences(top: &Fields) -> bool {
    let names = TOP.names();
    let has_others = names
        .iter()
        .any(|name| !matches!(*name, "version" | "silences") && top.get(name).is_some());
    top.get("silences").is_some() && !has_others
}

fn hash_of<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
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
    calendars: BTreeMap<String, Calendar>,
    /// `uid x` or `alert X` to where it was first used.
    names: BTreeMap<String, String>,
    rules: Vec<Rule>,
    inhibitions: Vec<Inhibition>,
    silences: Vec<Silence>,
    complaints: Vec<Complaint>,
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

    fn rules_of(&mut self, top: &Fields) {
        let defaults = top.get("defaults").and_then(|entry| self.fields(entry, &DEFAULTS));
        if let Some(defaults) = &defaults {
            self.timing(defaults, false);
            self.severity_word(defaults);
        }
        for group in self.entries(top, "groups", "write `- name: ...` with `rules`") {
            self.group(group, defaults.as_ref());
        }
        for rule in self.entries(top, "rules", "write `- alert: ...`") {
            self.rule(rule, defaults.as_ref());
        }
    }

    fn group(&mut self, entry: Entry, defaults: Option<&Fields>) {
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

    fn rule(&mut self, entry: Entry, defaults: Option<&Fields>) {
        let before = self.set.complaints.len();
        let Some(fields) = self.fields(entry, &RULE) else {
            return;
        };
        let fields = fields.with_defaults(defaults);
        let enabled = self.flag(&fields, "enabled", true);
        let Some(rule) = self.checked_rule(&fields) else {
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

    /// Reads every part before giving up, so that each is complained about.
    fn checked_rule(&mut self, fields: &Fields) -> Option<Rule> {
        let alert = self.name(fields, "alert", "letters, digits and `_`", is_alert_name);
        let uid = self.uid(fields, alert.as_deref());
        let measured = self.measured(fields, uid.as_deref());
        let timing = self.timing(fields, measured.is_one_minute);
        let baseline = self.baseline(fields, &measured);
        let conditions = self.conditions(fields, &measured);
        let severity = self.severity(fields, &measured, conditions.as_ref().map(|found| found.condition));
        let owner = self.owner(fields, &severity);
        let runbook = self.optional_text(fields, "runbook", "write a URL");
        let explain = self.explain(fields, measured.columns.as_deref());
        let notify = self.notify(fields, &measured.group_by);
        let [labels, annotations, links] = ["labels", "annotations", "links"].map(|key| self.templates(fields, key));
        let remediation = self.remediation(fields);
        let conditions = conditions?;
        let rule = Rule {
            uid: uid?,
            alert: alert?,
            owner,
            runbook,
            from: measured.from?,
            measure: measured.measure?,
            unit: measured.unit,
            samples: measured.samples?,
            impacted: measured.impacted,
            window_ms: timing.window_ms,
            slide_ms: timing.slide_ms,
            lateness_ms: timing.lateness_ms,
            group_by: measured.group_by,
            filter: measured.filter,
            min_samples: measured.min_samples? as f64,
            min_impacted: measured.min_impacted,
            confidence: measured.confidence?,
            baseline,
            condition: conditions.condition,
            and: conditions.and,
            hold_ms: timing.hold_ms,
            clear: conditions.clear,
            keep_firing_ms: timing.keep_firing_ms,
            no_data: timing.no_data,
            eval_error: timing.eval_error,
            severity: severity.mildest,
            ladder: severity.ladder,
            labels,
            annotations,
            links,
            explain,
            notify,
            remediation,
            max_alerts: timing.max_alerts,
            amends: timing.amends,
            is_early: timing.is_early,
        };
        self.check_early(fields, &rule);
        self.check_templates(fields, &rule);
        Some(rule)
    }

    fn uid(&mut self, fields: &Fields, alert: Option<&str>) -> Option<String> {
        if fields.get("uid").is_some() {
            return self.name(fields, "uid", "a-z, 0-9, `-` and `_`", is_uid);
        }
        let uid = kebab(alert?);
        self.used_once(fields.place_of("alert"), "uid", &uid);
        Some(uid)
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
        self.used_once(place, key, &name);
        Some(name)
    }

    fn used_once(&mut self, place: Place, key: &str, name: &str) {
        let here = format!("{}:{}", self.name, yaml::place(place.at).0);
        let earlier = self.set.names.insert(format!("{key} {name}"), here);
        if let Some(earlier) = earlier {
            let message = format!("`{key}: {name}` is used at {earlier} already");
            let fix = "give each rule its own; state is kept by uid";
            self.complain(&place, message, fix);
        }
    }

    fn owner(&mut self, fields: &Fields, severity: &condition::Severities) -> Option<String> {
        let fix = "add `owner: <team>`";
        if fields.get("owner").is_none() && severity.worst() == Severity::Critical {
            self.complain(&fields.place, "a critical rule needs an `owner`", fix);
        }
        self.optional_text(fields, "owner", fix)
    }

    fn explain(&mut self, fields: &Fields, columns: Option<&[String]>) -> Option<Explain> {
        let fields = self.fields(fields.get("explain")?, &EXPLAIN)?;
        let dims = self.required(&fields, "dims", "list columns of the table")?;
        let dims = self.columns_of(&dims, columns);
        let max_depth = self.bounded(&fields, "max_depth", 1, MAX_DEPTH);
        let top = self.bounded(&fields, "top", 1, MAX_CAUSES);
        Some(Explain {
            dims,
            max_depth: max_depth.unwrap_or(DEFAULT_DEPTH),
            top: top.unwrap_or(DEFAULT_CAUSES),
        })
    }
}

fn is_alert_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_uid(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    name.chars().all(is_part)
}

/// `IspBufferingHigh` as `isp-buffering-high`.
fn kebab(name: &str) -> String {
    let mut text = String::new();
    let mut was_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && was_lower {
            text.push('-');
        }
        was_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests;
