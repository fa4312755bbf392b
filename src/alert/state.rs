//! What is remembered: the open alerts, folded from transitions.
//!
//! Stands between two evaluations; the daemon folds `ops.alert_events` once at its start.
//!
//! Invariant: the fold does not depend on the order in which the events are read back.
//! Invariant: an amended window, and a message sent again, change no state but what was told when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::transition::{Fingerprint, Status, Transition};

/// An open alert: the transition that led here, and what its targets know. A group without a state
/// is inactive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertState {
    last: Transition,
    /// Window end of the last firing that was sent in this episode.
    told_at_ms: Option<i64>,
    /// Members named in the last message, of many alerts told as one.
    told_count: u64,
}

impl AlertState {
    /// The transition that led to this state.
    pub fn last(&self) -> &Transition {
        &self.last
    }

    pub fn status(&self) -> Status {
        self.last.status
    }

    /// True when a firing of this episode was sent.
    pub fn is_told(&self) -> bool {
        self.told_at_ms.is_some()
    }

    pub fn told_at_ms(&self) -> Option<i64> {
        self.told_at_ms
    }

    pub(super) fn told_count(&self) -> u64 {
        self.told_count
    }
}

type OfRule = BTreeMap<Fingerprint, AlertState>;

/// The open alerts of all rules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct States {
    by_rule: BTreeMap<String, OfRule>,
}

impl States {
    pub fn get(&self, rule_uid: &str, fingerprint: &Fingerprint) -> Option<&AlertState> {
        self.by_rule.get(rule_uid)?.get(fingerprint)
    }

    /// The open alerts of one rule, in order of fingerprint.
    pub fn of_rule(&self, rule_uid: &str) -> impl Iterator<Item = &AlertState> {
        self.by_rule.get(rule_uid).into_iter().flat_map(OfRule::values)
    }

    /// All open alerts, in order of rule and fingerprint.
    pub fn iter(&self) -> impl Iterator<Item = &AlertState> {
        self.by_rule.values().flat_map(OfRule::values)
    }

    pub fn len(&self) -> usize {
        self.by_rule.values().map(OfRule::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.by_rule.is_empty()
    }

    pub fn apply_all<'e>(&mut self, events: impl IntoIterator<Item = &'e Transition>) {
        for event in events {
            self.apply(event);
        }
    }

    pub fn apply(&mut self, event: &Transition) {
        if event.status == Status::Amended {
            return;
        }
        if !event.status.is_open() {
            self.remove(event);
            return;
        }
        let of_rule = self.by_rule.entry(event.rule_uid.clone()).or_default();
        let before = of_rule
            .get(&event.fingerprint)
            .filter(|state| state.last.starts_at_ms == event.starts_at_ms);
        let is_told_now = event.status == Status::Firing && event.is_sent();
        let state = AlertState {
            told_at_ms: if is_told_now {
                Some(event.window_end_ms)
            } else {
                before.and_then(|state| state.told_at_ms)
            },
            told_count: match event.member_count.filter(|_| is_told_now) {
                Some(count) => count,
                None => before.map_or(0, |state| state.told_count),
            },
            last: event.clone(),
        };
        of_rule.insert(event.fingerprint.clone(), state);
    }

    fn remove(&mut self, event: &Transition) {
        let Some(of_rule) = self.by_rule.get_mut(&event.rule_uid) else {
            return;
        };
        of_rule.remove(&event.fingerprint);
        if of_rule.is_empty() {
            self.by_rule.remove(&event.rule_uid);
        }
    }
}

/// The states after some events, in whatever order they are read back.
pub fn fold<'e>(events: impl IntoIterator<Item = &'e Transition>) -> States {
    let mut events: Vec<&Transition> = events.into_iter().collect();
    events.sort_by_key(|event| (event.window_end_ms, event.starts_at_ms, event.seq));
    let mut states = States::default();
    states.apply_all(events);
    states
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{T0, plain_rule, row, step};
    use super::super::transition::Held;
    use super::*;

    fn firing() -> Transition {
        let rule = plain_rule(&[("        for: 2m\n", "")]);
        let (mut events, _) = step(&rule, T0, &[row(T0, &["tv"], 61.0, 997.0)], &[], &States::default());
        events.remove(0)
    }

    fn next(event: &Transition, status: Status) -> Transition {
        Transition {
            status,
            seq: event.seq + 1,
            window_end_ms: event.window_end_ms + 60_000,
            ..event.clone()
        }
    }

    #[test]
    fn states_survive_json_bit_for_bit() {
        let states = fold(&[firing()]);
        let text = serde_json::to_string(&states).unwrap();
        assert_eq!(serde_json::from_str::<States>(&text).unwrap(), states);
    }

    #[test]
    fn what_the_target_knows_lasts_as_long_as_the_episode() {
        let told = firing();
        let recovering = next(&told, Status::Recovering);
        let states = fold([&recovering, &told]);
        assert_eq!(states.iter().map(AlertState::told_at_ms).collect::<Vec<_>>(), [Some(T0)]);
        let held = Transition {
            held: Some(Held::AlreadyTold),
            ..next(&recovering, Status::Firing)
        };
        let states = fold([&told, &recovering, &held]);
        assert_eq!(states.iter().map(AlertState::told_at_ms).collect::<Vec<_>>(), [Some(T0)]);
        let fresh = Transition {
            starts_at_ms: held.window_end_ms,
            seq: 0,
            ..next(&held, Status::Pending)
        };
        let states = fold([&told, &recovering, &held, &fresh]);
        assert_eq!(states.iter().map(AlertState::is_told).collect::<Vec<_>>(), [false]);
    }

    #[test]
    fn an_amended_window_changes_no_state() {
        let told = firing();
        let before = fold([&told]);
        let mut after = before.clone();
        after.apply(&next(&told, Status::Amended));
        assert_eq!(after, before);
        after.apply(&next(&told, Status::Resolved));
        assert!(after.is_empty());
    }
}
