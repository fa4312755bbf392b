//! Mappings and plain values: texts, words, lengths of time, numbers and lists.
//!
//! Stands between the nodes of a document and what a rule makes of them.
//!
//! Invariant: a value that cannot be read gives a complaint, once, and then nothing.
//! Invariant: a key that is not in the schema is never passed over.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_saphyr::{Location, Spanned};

use super::super::complaint::{did_you_mean, listed};
use super::super::schema::{DEFAULTS, RULE, Schema};
use super::super::yaml::Node;
use super::FileReader;
use crate::alert::{DAY_MS, MINUTE_MS, message};

/// Expressions and templates are one line of thought.
const MAX_TEXT_BYTES: usize = 4_096;

/// Where something stands: in the text, and in the document.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) at: Location,
    /// For instance `groups[0].rules[2].from`; empty for the document itself.
    pub(super) path: String,
}

/// A value and its place.
#[derive(Clone)]
pub(super) struct Entry<'n> {
    pub(super) value: &'n Node,
    pub(super) place: Place,
}

impl<'n> Entry<'n> {
    pub(super) fn new(node: &'n Spanned<Node>, path: String) -> Entry<'n> {
        let place = Place { at: node.referenced, path };
        Entry { value: &node.value, place }
    }
}

/// A mapping whose keys have been checked.
pub(super) struct Fields<'n> {
    pub(super) place: Place,
    entries: BTreeMap<&'n str, &'n Spanned<Node>>,
    /// What holds where the mapping says nothing.
    defaults: BTreeMap<&'n str, Entry<'n>>,
}

impl<'n> Fields<'n> {
    pub(super) fn with_defaults(mut self, defaults: Option<&Fields<'n>>) -> Fields<'n> {
        if let Some(defaults) = defaults {
            let entries = defaults.entries.keys().filter_map(|key| Some((*key, defaults.get(key)?)));
            self.defaults = entries.collect();
        }
        self
    }

    /// The mapping's own value, else the default.
    pub(super) fn get(&self, key: &str) -> Option<Entry<'n>> {
        self.own(key).or_else(|| self.default(key))
    }

    pub(super) fn own(&self, key: &str) -> Option<Entry<'n>> {
        let node = self.entries.get(key).copied()?;
        Some(Entry::new(node, self.path_of(key)))
    }

    pub(super) fn default(&self, key: &str) -> Option<Entry<'n>> {
        self.defaults.get(key).cloned()
    }

    /// Where a value stands, or would stand: then it is the place of the mapping.
    pub(super) fn place_of(&self, key: &str) -> Place {
        let here = Place {
            at: self.place.at,
            path: self.path_of(key),
        };
        self.get(key).map_or(here, |entry| entry.place)
    }

    fn path_of(&self, key: &str) -> String {
        if self.place.path.is_empty() {
            return key.to_owned();
        }
        format!("{}.{key}", self.place.path)
    }
}

impl FileReader<'_, '_> {
    /// The entries of a mapping; every key that is not in the schema is a complaint.
    pub(super) fn fields<'n>(&mut self, entry: Entry<'n>, schema: &Schema) -> Option<Fields<'n>> {
        let Node::Map(entries) = entry.value else {
            let fix = format!("the keys are {}", listed(&schema.names()));
            let message = format!("{} must be a mapping", schema.name);
            self.complain(&entry.place, message, fix);
            return None;
        };
        let mut fields = Fields {
            place: entry.place,
            entries: BTreeMap::new(),
            defaults: BTreeMap::new(),
        };
        for (key, value) in entries {
            if schema.has(&key.value) {
                fields.entries.insert(&key.value, value);
                continue;
            }
            let place = Place {
                at: key.referenced,
                path: fields.path_of(&key.value),
            };
            self.refuse_key(&key.value, &place, schema);
        }
        Some(fields)
    }

    fn refuse_key(&mut self, name: &str, place: &Place, schema: &Schema) {
        if schema.later.contains(&name) {
            let message = format!("`{name}` in {} is not supported yet", schema.name);
            self.complain(place, message, "take it out");
            return;
        }
        if schema.name == DEFAULTS.name && RULE.has(name) {
            let message = format!("`{name}` cannot have a default");
            self.complain(place, message, "write it in each rule");
            return;
        }
        let names = schema.names();
        let all = names.iter().chain(schema.later).copied();
        let fix = did_you_mean(name, all).unwrap_or_else(|| format!("take it out; the keys are {}", listed(&names)));
        self.complain(place, format!("unknown key `{name}` in {}", schema.name), fix);
    }

    /// For a mapping with not exactly one key of a choice, unless a refused key has said it already.
    pub(super) fn complain_of_choice(&mut self, fields: &Fields, before: usize, message: &str, fix: &str) {
        if self.set.complaints.len() == before {
            self.complain(&fields.place, message, fix);
        }
    }

    pub(super) fn required<'n>(&mut self, fields: &Fields<'n>, key: &str, fix: &str) -> Option<Entry<'n>> {
        let entry = fields.get(key);
        if entry.is_none() {
            self.complain(&fields.place, format!("`{key}` is missing"), fix);
        }
        entry
    }

    pub(super) fn text_of(&mut self, entry: &Entry, fix: &str) -> Option<String> {
        let Node::Text(text) = entry.value else {
            self.complain(&entry.place, "a text is needed", fix);
            return None;
        };
        if text.trim().is_empty() {
            self.complain(&entry.place, "the text is empty", fix);
            return None;
        }
        if text.len() > MAX_TEXT_BYTES {
            let message = format!("the text has {} bytes", text.len());
            self.complain(&entry.place, message, format!("at most {MAX_TEXT_BYTES} bytes fit"));
            return None;
        }
        Some(text.trim().to_owned())
    }

    pub(super) fn optional_text(&mut self, fields: &Fields, key: &str, fix: &str) -> Option<String> {
        self.text_of(&fields.get(key)?, fix)
    }

    pub(super) fn required_text(&mut self, fields: &Fields, key: &str, fix: &str) -> Option<String> {
        let entry = self.required(fields, key, fix)?;
        self.text_of(&entry, fix)
    }

    /// One of a list of words; `None` after a complaint.
    pub(super) fn word<T: Copy>(&mut self, entry: &Entry, words: &[(&str, T)], later: &[&str]) -> Option<T> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let fix = format!("write one of {}", listed(&known));
        let text = self.text_of(entry, &fix)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        if later.contains(&text.as_str()) {
            self.complain(&entry.place, format!("`{text}` is not supported yet"), fix);
            return None;
        }
        let hint = did_you_mean(&text, known.iter().copied()).unwrap_or(fix);
        let message = format!("`{}` is not known here", message::clean(&text));
        self.complain(&entry.place, message, hint);
        None
    }

    /// For a key that has one meaning in this release, and says so.
    pub(super) fn only_word(&mut self, fields: &Fields, key: &str, word: &str, later: &[&str]) {
        if let Some(entry) = fields.get(key) {
            self.word(&entry, &[(word, ())], later);
        }
    }

    pub(super) fn duration_ms(&mut self, fields: &Fields, key: &str, step_ms: i64, range_ms: RangeInclusive<i64>) -> Option<i64> {
        let entry = fields.get(key)?;
        let [step, low, high] = [step_ms, *range_ms.start(), *range_ms.end()].map(message::duration);
        let fix = format!("write a multiple of {step} from {low} to {high}");
        let parsed = match entry.value {
            Node::Text(text) => parse_duration_ms(text.trim()),
            _ => None,
        };
        let Some(duration_ms) = parsed else {
            let message = "a duration is a whole number and s, m, h or d, such as `5m`";
            self.complain(&entry.place, message, fix);
            return None;
        };
        if !range_ms.contains(&duration_ms) || duration_ms % step_ms != 0 {
            let message = format!("{} does not fit", message::duration(duration_ms));
            self.complain(&entry.place, message, fix);
            return None;
        }
        Some(duration_ms)
    }

    pub(super) fn whole_number(&mut self, entry: &Entry, at_least: i64) -> Option<i64> {
        match entry.value {
            Node::Int(number) if *number >= at_least => Some(*number),
            _ => {
                let fix = format!("write a whole number, {at_least} or more");
                self.complain(&entry.place, "a whole number is needed", fix);
                None
            }
        }
    }

    /// A whole number within bounds; none without the key, and after a complaint.
    pub(super) fn bounded(&mut self, fields: &Fields, key: &str, at_least: i64, at_most: i64) -> Option<usize> {
        let entry = fields.get(key)?;
        match entry.value {
            Node::Int(number) if (at_least..=at_most).contains(number) => usize::try_from(*number).ok(),
            _ => {
                let fix = format!("write a whole number from {at_least} to {at_most}");
                self.complain(&entry.place, format!("`{key}` does not fit"), fix);
                None
            }
        }
    }

    pub(super) fn flag(&mut self, fields: &Fields, key: &str, default: bool) -> bool {
        match fields.get(key) {
            None => default,
            Some(Entry {
                value: Node::Bool(flag), ..
            }) => *flag,
            Some(entry) => {
                self.complain(&entry.place, "a yes or no is needed", "write `true` or `false`");
                default
            }
        }
    }

    /// The entries of the list under a key; none without it.
    pub(super) fn entries<'n>(&mut self, fields: &Fields<'n>, key: &str, fix: &str) -> Vec<Entry<'n>> {
        match fields.get(key) {
            Some(entry) => self.list(&entry, fix),
            None => Vec::new(),
        }
    }

    pub(super) fn list<'n>(&mut self, entry: &Entry<'n>, fix: &str) -> Vec<Entry<'n>> {
        let Node::List(items) = entry.value else {
            self.complain(&entry.place, "a list is needed", fix);
            return Vec::new();
        };
        let item = |(index, node)| Entry::new(node, format!("{}[{index}]", entry.place.path));
        items.iter().enumerate().map(item).collect()
    }

    /// A list of texts; the path of each is that of the list.
    pub(super) fn texts(&mut self, entry: &Entry, fix: &str) -> Vec<(Place, String)> {
        let mut texts = Vec::new();
        for item in self.list(entry, fix) {
            if let Some(text) = self.text_of(&item, fix) {
                let path = entry.place.path.clone();
                texts.push((Place { at: item.place.at, path }, text));
            }
        }
        texts
    }

    /// A mapping of names of the author's own: each name with its place, and its value.
    pub(super) fn named<'n>(&mut self, entry: &Entry<'n>, fix: &str) -> Vec<(Location, &'n str, Entry<'n>)> {
        let Node::Map(entries) = entry.value else {
            self.complain(&entry.place, "a mapping is needed", fix);
            return Vec::new();
        };
        let named = |(name, value): &'n (Spanned<String>, Spanned<Node>)| {
            let path = format!("{}.{}", entry.place.path, name.value);
            (name.referenced, name.value.as_str(), Entry::new(value, path))
        };
        entries.iter().map(named).collect()
    }
}

/// Milliseconds of `90s`, `5m`, `2h`, `7d`; none for what is no such length.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_ms = match unit {
        "s" => 1_000,
        "m" => MINUTE_MS,
        "h" => 60 * MINUTE_MS,
        "d" => DAY_MS,
        _ => return None,
    };
    if !number.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    number.parse::<i64>().ok()?.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::check;

    #[test]
    fn durations_have_a_unit_and_fit_the_minutes_of_gold() {
        check(
            "min_samples: 500",
            "min_samples: 500\n        window: 90s",
            r"
alerts/a.yaml:13:17: 90s does not fit, at groups[0].rules[0].window
   13 |         window: 90s
      |                 ^^^ write a multiple of 1m from 1m to 1d
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        window: 5",
            r"
alerts/a.yaml:13:17: a duration is a whole number and s, m, h or d, such as `5m`, at groups[0].rules[0].window
   13 |         window: 5
      |                 ^ write a multiple of 1m from 1m to 1d
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        for: 2 min",
            r"
alerts/a.yaml:13:14: a duration is a whole number and s, m, h or d, such as `5m`, at groups[0].rules[0].for
   13 |         for: 2 min
      |              ^^^^^ write a multiple of 1s from 0s to 7d
",
        );
    }
}
