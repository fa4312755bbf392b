//! What holds a firing back: silences, alerts that explain it, and the hours of its rule.
//!
//! Stands under `route`. Alerts that explain others do so whether or not they are told themselves.
//!
//! Invariant: the reason does not depend on the order of the alerts.

use std::collections::BTreeMap;

use super::super::rule::{Inhibition, Rule, RuleSet, Silence, attribute};
use super::super::transition::{Held, Transition};

/// What is to be quiet at one window end.
pub(super) struct Quiet<'s> {
    window_end_ms: i64,
    silences: Vec<&'s Silence>,
    inhibitions: Vec<Sources<'s>>,
}

/// An inhibition, and the firing alerts that it lets explain others, by the values that must agree.
struct Sources<'s> {
    inhibition: &'s Inhibition,
    by_values: BTreeMap<Vec<String>, Vec<Transition>>,
}

impl<'s> Quiet<'s> {
    pub(super) fn new<'e>(set: &'s RuleSet, window_end_ms: i64, firing: impl Iterator<Item = &'e Transition>) -> Quiet<'s> {
        let mut inhibitions: Vec<Sources> = set.inhibitions.iter().map(Sources::none).collect();
        if !inhibitions.is_empty() {
            let mut firing: Vec<&Transition> = firing.collect();
            firing.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
            for source in firing {
                for inhibition in &mut inhibitions {
                    inhibition.add(source);
                }
            }
        }
        Quiet {
            window_end_ms,
            silences: set.silences.iter().filter(|silence| silence.is_active(window_end_ms)).collect(),
            inhibitions,
        }
    }

    /// Why this firing is not to be sent now; none if it is.
    pub(super) fn holds(&self, event: &Transition, rule: Option<&Rule>) -> Option<Held> {
        let silence = self.silences.iter().find(|silence| silence.matchers.matches(event));
        if let Some(silence) = silence {
            return Some(silence.held());
        }
        if let Some(source) = self.inhibitions.iter().find_map(|sources| sources.explains(event)) {
            return Some(Held::Inhibited {
                by: source.fingerprint.clone(),
                alert: source.alert.clone(),
            });
        }
        let active = rule?.notify().active.as_ref()?;
        (!active.contains(self.window_end_ms)).then(|| Held::OutsideHours {
            calendar: active.name().to_owned(),
        })
    }
}

impl<'s> Sources<'s> {
    fn none(inhibition: &'s Inhibition) -> Sources<'s> {
        Sources {
            inhibition,
            by_values: BTreeMap::new(),
        }
    }

    fn add(&mut self, source: &Transition) {
        if !self.inhibition.when.matches(source) {
            return;
        }
        if let Some(values) = self.values(source) {
            self.by_values.entry(values).or_default().push(source.clone());
        }
    }

    fn values(&self, event: &Transition) -> Option<Vec<String>> {
        let value = |name: &String| attribute(event, name).map(str::to_owned);
        self.inhibition.equal.iter().map(value).collect()
    }

    fn explains(&self, event: &Transition) -> Option<&Transition> {
        if !self.inhibition.mute.matches(event) {
            return None;
        }
        let sources = self.by_values.get(&self.values(event)?)?;
        sources.iter().find(|source| self.inhibition.explains(source, event))
    }
}
