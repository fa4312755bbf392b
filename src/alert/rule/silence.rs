//! Silences, inhibitions and what they match.
//!
//! Read from rule files and `alerts/silences.yaml`; `alert::route` asks them.
//!
//! Invariant: a matcher that names what an alert does not have does not match it.
//! Invariant: nothing matches everything: a silence or an inhibition without a matcher is refused.

use std::collections::BTreeMap;

use crate::alert::message;
use crate::alert::transition::{Held, Transition};

/// A text in which `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        Pattern(text.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or("");
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else {
            return rest.is_empty();
        };
        for part in parts {
            let Some(at) = rest.find(part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

/// Names and the patterns of which one must match: `alert`, `uid`, `severity`, else a dimension, else
/// a label. All names must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matchers(pub(super) BTreeMap<String, Vec<Pattern>>);

impl Matchers {
    /// None for no matcher at all.
    pub fn new(matchers: BTreeMap<String, Vec<Pattern>>) -> Option<Matchers> {
        let is_empty = matchers.is_empty() || matchers.values().any(Vec::is_empty);
        (!is_empty).then_some(Matchers(matchers))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Pattern])> {
        self.0.iter().map(|(name, patterns)| (name.as_str(), patterns.as_slice()))
    }

    pub fn matches(&self, event: &Transition) -> bool {
        self.0.iter().all(|(name, patterns)| {
            let value = attribute(event, name);
            value.is_some_and(|value| patterns.iter().any(|pattern| pattern.matches(value)))
        })
    }
}

/// What an alert has under a name; none also for a dimension whose value is unknown.
pub(in crate::alert) fn attribute<'t>(event: &'t Transition, name: &str) -> Option<&'t str> {
    match name {
        "alert" => return Some(&event.alert),
        "uid" => return Some(&event.rule_uid),
        "severity" => return Some(event.severity.as_str()),
        _ => {}
    }
    let dim = event.dims.iter().find(|(dim, _)| dim == name);
    match dim {
        Some((_, value)) => value.as_deref(),
        None => event.labels.get(name).map(String::as_str),
    }
}

/// Alerts that nobody is to be told of for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    pub id: String,
    pub matchers: Matchers,
    /// Inclusive, epoch ms.
    pub starts_ms: i64,
    /// Exclusive, epoch ms.
    pub ends_ms: i64,
    pub author: String,
    pub comment: String,
}

impl Silence {
    pub fn is_active(&self, at_ms: i64) -> bool {
        (self.starts_ms..self.ends_ms).contains(&at_ms)
    }

    pub(in crate::alert) fn held(&self) -> Held {
        Held::Silenced {
            id: self.id.clone(),
            author: self.author.clone(),
        }
    }
}

/// While an alert that matches `when` fires, those that match `mute` and agree with it in `equal` are
/// not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inhibition {
    pub when: Matchers,
    pub mute: Matchers,
    pub equal: Vec<String>,
}

impl Inhibition {
    /// True when `source`, which fires, explains `event`. An alert does not explain itself, nor one
    /// that could explain it as well. Unknown values are not equal to each other.
    pub(in crate::alert) fn explains(&self, source: &Transition, event: &Transition) -> bool {
        let is_mutual = self.when.matches(event) && self.mute.matches(source);
        let agrees = |name: &String| attribute(source, name).is_some_and(|value| attribute(event, name) == Some(value));
        source.fingerprint != event.fingerprint
            && self.mute.matches(event)
            && self.when.matches(source)
            && !is_mutual
            && self.equal.iter().all(agrees)
    }
}

/// The text of `alerts/silences.yaml` that holds these silences.
pub fn silence_yaml(silences: &[Silence]) -> String {
    let mut text = "version: 1\nsilences:\n".to_owned();
    for silence in silences {
        text.push_str(&format!("  - id: {}\n    matchers:\n", quoted(&silence.id)));
        for (name, patterns) in silence.matchers.iter() {
            let patterns: Vec<String> = patterns.iter().map(|pattern| quoted(pattern.as_str())).collect();
            text.push_str(&format!("      {}: [{}]\n", quoted(name), patterns.join(", ")));
        }
        text.push_str(&format!(
            "    starts: {}\n    ends: {}\n    author: {}\n    comment: {}\n",
            quoted(&message::time(silence.starts_ms)),
            quoted(&message::time(silence.ends_ms)),
            quoted(&silence.author),
            quoted(&silence.comment),
        ));
    }
    if silences.is_empty() {
        text.truncate("version: 1\n".len());
    }
    text
}

/// A JSON text, which is a YAML text too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::fixture::{T0, plain_rule, row, step};
    use crate::alert::rule::tests::parse;
    use crate::alert::state::States;

    pub(super) fn firing(device: &str) -> Transition {
        let rule = plain_rule(&[("for: 2m", "labels: {team: apps}")]);
        step(&rule, T0, &[row(T0, &[device], 60.0, 1_000.0)], &[], &States::default())
            .0
            .remove(0)
    }

    fn matchers(pairs: &[(&str, &[&str])]) -> Matchers {
        let patterns = |(name, texts): &(&str, &[&str])| ((*name).to_owned(), texts.iter().map(|text| Pattern::new(text)).collect());
        Matchers::new(pairs.iter().map(patterns).collect()).unwrap()
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        let cases = [
            ("tv", "tv", true),
            ("tv", "tv-x", false),
            ("tv*", "tv-x", true),
            ("*x", "tv-x", true),
            ("t*-*x", "tv-box", true),
            ("t*-*x", "tv-boy", false),
            ("*", "", true),
            ("", "", true),
            ("a*a", "a", false),
            ("*é*", "café!", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn all_names_must_match_and_one_pattern_of_each() {
        let event = firing("tv");
        assert!(matchers(&[("alert", &["Errors"]), ("device_type", &["phone", "t*"])]).matches(&event));
        assert!(matchers(&[("team", &["apps"]), ("severity", &["warning"]), ("uid", &["errors"])]).matches(&event));
        assert!(!matchers(&[("alert", &["Errors"]), ("device_type", &["phone"])]).matches(&event));
        assert!(!matchers(&[("country", &["*"])]).matches(&event), "it has no country");
        let mut unknown = event;
        unknown.dims[0].1 = None;
        assert!(!matchers(&[("device_type", &["*"])]).matches(&unknown));
        assert_eq!(Matchers::new(BTreeMap::new()), None);
    }

    #[test]
    fn an_alert_explains_those_that_agree_and_never_itself() {
        let (tv, mut other) = (firing("tv"), firing("tv"));
        other.alert = "Stalls".to_owned();
        other.fingerprint = firing("phone").fingerprint;
        let inhibition = Inhibition {
            when: matchers(&[("alert", &["Errors"])]),
            mute: matchers(&[("alert", &["*"])]),
            equal: vec!["device_type".to_owned()],
        };
        assert!(inhibition.explains(&tv, &other));
        assert!(!inhibition.explains(&tv, &tv));
        assert!(!inhibition.explains(&tv, &firing("phone")), "each could explain the other");
        let elsewhere = Transition {
            dims: vec![("device_type".to_owned(), Some("phone".to_owned()))],
            ..other.clone()
        };
        assert!(!inhibition.explains(&tv, &elsewhere));
        let unknown = vec![("device_type".to_owned(), None)];
        let nowhere = |event: &Transition| Transition {
            dims: unknown.clone(),
            ..event.clone()
        };
        assert!(!inhibition.explains(&nowhere(&tv), &nowhere(&other)));
    }

    #[test]
    fn a_silence_file_that_is_written_reads_back() {
        let silence = Silence {
            id: "works: \"b\"".to_owned(),
            matchers: matchers(&[("cdn", &["b*", "c"]), ("alert", &["Errors"])]),
            starts_ms: T0,
            ends_ms: T0 + 3_600_000,
            author: "night shift # 2".to_owned(),
            comment: "provider's maintenance: 1234".to_owned(),
        };
        let read = parse(&[("alerts/silences.yaml", silence_yaml(std::slice::from_ref(&silence)))]).unwrap();
        assert_eq!(read.silences, [silence]);
        assert_eq!(parse(&[("alerts/silences.yaml", silence_yaml(&[]))]).unwrap().silences, []);
    }
}
