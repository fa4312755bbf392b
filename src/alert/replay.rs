//! Replay over history: what would have fired, how right it was, and what an edit changes.
//!
//! Stands behind `evaluate` and `route`, run over a range of windows: transitions in, tables out.
//!
//! Invariant: pure; the same transitions and the same truth give the same figures.

mod truth;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use truth::{Incident, Score, parse_truth, score};

use super::message::{self, Causes};
use super::rule::Severity;
use super::transition::{Fingerprint, Status, Transition};

/// One episode that fired.
#[derive(Debug, Clone, PartialEq)]
pub struct Firing {
    pub rule_uid: String,
    pub alert: String,
    pub fingerprint: Fingerprint,
    pub dims: Vec<(String, Option<String>)>,
    /// The worst that it had.
    pub severity: Severity,
    /// When the breach began.
    pub starts_at_ms: i64,
    /// When it first fired: the end of that window.
    pub fired_at_ms: i64,
    /// None for what fires still.
    pub ended_at_ms: Option<i64>,
    /// The value with which it fired.
    pub value: Option<f64>,
    pub unit: Option<String>,
    /// Messages that were sent of it, its end included.
    pub messages: usize,
    /// Why, where it was looked for.
    pub causes: Option<Causes>,
}

impl Firing {
    /// True for an alert about the rule itself, which no truth can name.
    pub fn is_about_the_rule(&self) -> bool {
        self.dims.first().is_some_and(|(name, _)| name == super::transition::RULE_STATE)
    }

    fn overlaps(&self, from_ms: i64, to_ms: i64) -> bool {
        self.starts_at_ms < to_ms && from_ms < self.ended_at_ms.unwrap_or(i64::MAX)
    }

    /// `cdn=cdn-b country=ES`
    pub fn place(&self) -> String {
        let word = |(name, value): &(String, Option<String>)| {
            let value = value.as_deref().map_or("unknown".to_owned(), message::clean);
            format!("{name}={value}")
        };
        self.dims.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

/// The episodes that fired, in order of their firing, rule and dimensions.
pub fn firings<'e>(events: impl IntoIterator<Item = &'e Transition>) -> Vec<Firing> {
    let mut events: Vec<&Transition> = events.into_iter().collect();
    events.sort_by_key(|event| (event.window_end_ms, event.starts_at_ms, event.seq));
    let mut episodes: BTreeMap<(&Fingerprint, i64), Firing> = BTreeMap::new();
    for event in events {
        let key = (&event.fingerprint, event.starts_at_ms);
        match (event.status, episodes.get_mut(&key)) {
            (Status::Firing, None) => {
                episodes.insert(key, firing(event));
            }
            (status, Some(firing)) => {
                firing.messages += usize::from(event.is_sent());
                firing.severity = firing.severity.max(event.severity);
                if status == Status::Resolved {
                    firing.ended_at_ms = event.ends_at_ms;
                }
            }
            _ => {}
        }
    }
    let mut firings: Vec<Firing> = episodes.into_values().collect();
    firings.sort_by(|a, b| (a.fired_at_ms, &a.rule_uid, &a.dims).cmp(&(b.fired_at_ms, &b.rule_uid, &b.dims)));
    firings
}

fn firing(event: &Transition) -> Firing {
    Firing {
        rule_uid: event.rule_uid.clone(),
        alert: event.alert.clone(),
        fingerprint: event.fingerprint.clone(),
        dims: event.dims.clone(),
        severity: event.severity,
        starts_at_ms: event.starts_at_ms,
        fired_at_ms: event.window_end_ms,
        ended_at_ms: None,
        value: event.value,
        unit: event.unit.clone(),
        messages: usize::from(event.is_sent()),
        causes: event.causes.clone(),
    }
}

/// The firings as lines of a table, with its head.
pub fn table(firings: &[Firing]) -> String {
    let mut rows = vec![["fired", "lasted", "severity", "alert", "where", "value", "messages"].map(str::to_owned)];
    for firing in firings {
        let lasted = match firing.ended_at_ms {
            Some(ended_at_ms) => message::duration(ended_at_ms.saturating_sub(firing.fired_at_ms)),
            None => "still".to_owned(),
        };
        let value = firing
            .value
            .map_or("-".to_owned(), |value| message::quantity(value, firing.unit.as_deref()));
        rows.push([
            message::time(firing.fired_at_ms),
            lasted,
            firing.severity.as_str().to_owned(),
            firing.alert.clone(),
            firing.place(),
            value,
            firing.messages.to_string(),
        ]);
    }
    aligned(&rows)
}

fn aligned(rows: &[[String; 7]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// What another set of rules does differently over the same history.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Diff {
    pub only_before: Vec<Firing>,
    pub only_after: Vec<Firing>,
    /// The same alert at the same time, fired or ended at another, or with another severity.
    pub changed: Vec<(Firing, Firing)>,
    pub same: usize,
}

/// Firings of one rule and group are the same where they overlap in time.
pub fn diff(before: &[Firing], after: &[Firing]) -> Diff {
    let mut diff = Diff::default();
    let mut taken = BTreeSet::new();
    for old in before {
        let is_same =
            |new: &Firing| new.fingerprint == old.fingerprint && new.overlaps(old.starts_at_ms, old.ended_at_ms.unwrap_or(i64::MAX));
        let found = (0..after.len()).find(|index| !taken.contains(index) && is_same(&after[*index]));
        let Some(index) = found else {
            diff.only_before.push(old.clone());
            continue;
        };
        taken.insert(index);
        let new = &after[index];
        let key = |firing: &Firing| (firing.fired_at_ms, firing.ended_at_ms, firing.severity);
        if key(old) == key(new) {
            diff.same += 1;
        } else {
            diff.changed.push((old.clone(), new.clone()));
        }
    }
    let left = after.iter().enumerate().filter(|(index, _)| !taken.contains(index));
    diff.only_after = left.map(|(_, firing)| firing.clone()).collect();
    diff
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.only_before.is_empty() && self.only_after.is_empty() && self.changed.is_empty()
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let line = |firing: &Firing| {
            let ended = firing.ended_at_ms.map_or("still".to_owned(), message::time);
            let (alert, place) = (&firing.alert, firing.place());
            let severity = firing.severity.as_str();
            format!("{severity} {alert} {place} {} to {ended}", message::time(firing.fired_at_ms))
        };
        for firing in &self.only_before {
            writeln!(f, "- {}", line(firing))?;
        }
        for firing in &self.only_after {
            writeln!(f, "+ {}", line(firing))?;
        }
        for (old, new) in &self.changed {
            writeln!(f, "< {}\n> {}", line(old), line(new))?;
        }
        let (gone, new, changed) = (self.only_before.len(), self.only_after.len(), self.changed.len());
        write!(f, "{} the same, {gone} gone, {new} new, {changed} changed", self.same)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{T0, plain_rule, row, step};
    use super::super::rule::Rule;
    use super::super::{MINUTE_MS, States};
    use super::*;

    /// The firings of a walk; each text is the bad devices of a minute.
    pub(super) fn walked(rule: &Rule, minutes: &[&str]) -> Vec<Firing> {
        let (mut states, mut all) = (States::default(), Vec::new());
        for (minute, bad) in (1i64..).zip(minutes) {
            let end_ms = T0 + minute * MINUTE_MS;
            let share = |device: &str| if bad.split(' ').any(|name| name == device) { 60.0 } else { 10.0 };
            let rows = ["tv", "web"].map(|device| row(end_ms, &[device], share(device), 1_000.0));
            let (events, after) = step(rule, end_ms, &rows, &[], &states);
            states = after;
            all.extend(events);
        }
        firings(all.iter().rev())
    }

    pub(super) fn rule(hold: &str) -> Rule {
        plain_rule(&[("for: 2m", &format!("for: {hold}"))])
    }

    #[test]
    fn firings_are_a_table() {
        let firings = walked(&rule("1m"), &["tv", "tv", "tv web", "web", "", "tv", ""]);
        assert_eq!(
            table(&firings),
            "fired                 lasted  severity  alert   where            value  messages\n\
             2026-11-01T20:12:00Z  2m      warning   Errors  device_type=tv   6 %    2\n\
             2026-11-01T20:14:00Z  1m      warning   Errors  device_type=web  6 %    2\n"
        );
        let still = walked(&rule("0m"), &["tv"]);
        assert!(table(&still).contains("  still   "), "{}", table(&still));
    }

    #[test]
    fn an_edit_shows_what_it_changes() {
        let minutes = ["tv", "tv web", "tv", "", "web", "web", ""];
        let (before, after) = (walked(&rule("0m"), &minutes), walked(&rule("1m"), &minutes));
        let found = diff(&before, &after);
        assert_eq!(
            found.to_string(),
            "- warning Errors device_type=web 2026-11-01T20:12:00Z to 2026-11-01T20:13:00Z\n\
             < warning Errors device_type=tv 2026-11-01T20:11:00Z to 2026-11-01T20:14:00Z\n\
             > warning Errors device_type=tv 2026-11-01T20:12:00Z to 2026-11-01T20:14:00Z\n\
             < warning Errors device_type=web 2026-11-01T20:15:00Z to 2026-11-01T20:17:00Z\n\
             > warning Errors device_type=web 2026-11-01T20:16:00Z to 2026-11-01T20:17:00Z\n\
             0 the same, 1 gone, 0 new, 2 changed"
        );
        let same = diff(&before, &before);
        assert!(same.is_empty());
        assert_eq!(same.same, 3);
        assert_eq!(diff(&[], &before).only_after.len(), 3);
    }
}
