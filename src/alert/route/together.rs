//! Many alerts told as one.
//!
//! Stands at the end of `route`. The alert that stands for many is an alert about the rule: it has a
//! fingerprint, a life and a message of its own, so that it is delivered, repeated and resolved like any
//! other. Its members are recorded as ever and say by whom they are told.
//!
//! Alerts are told together that are of one rule and agree in what `notify.group_by` names.
//!
//! Invariant: a member is told by one message, its own or that of the many, never by both.
//! Invariant: the order in which members come changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::evaluate::{MANY, rule_state};
use super::super::message;
use super::super::rule::{Rule, Test, attribute};
use super::super::state::{AlertState, States};
use super::super::transition::{Fingerprint, Held, Member, Reason, Status, Transition};
use super::repeated;

/// Firings of one rule in one window that are told one by one; from here on they are one message.
pub const ONE_BY_ONE: usize = 10;
/// Members that the message names.
pub const NAMED: usize = 10;

/// Rule, and the values of what its alerts are grouped by.
type Key = (String, Vec<(String, Option<String>)>);

/// The alerts of one key.
#[derive(Default)]
struct Crowd {
    /// Indexes of firings that would be sent for the first time.
    fresh: Vec<usize>,
    /// Firing alerts that the many stand for already.
    members: Vec<Transition>,
    /// Firing alerts that were told one by one.
    told: usize,
}

pub(super) fn told_together(
    rules: &BTreeMap<&str, &Rule>,
    window_end_ms: i64,
    mut events: Vec<Transition>,
    previous: &States,
    holds: &dyn Fn(&Transition) -> Option<Held>,
) -> Vec<Transition> {
    let crowds = crowds(rules, &events, previous);
    let mut added = Vec::new();
    for ((uid, grouped), crowd) in crowds {
        let Some(rule) = rules.get(uid.as_str()) else {
            continue;
        };
        let dims = [rule_state(MANY), grouped].concat();
        let by = Fingerprint::of(&uid, &dims);
        let state = previous.get(&uid, &by);
        let firing = crowd.told + crowd.members.len() + crowd.fresh.len();
        let is_many = crowd.fresh.len() > ONE_BY_ONE || (firing > rule.max_alerts && !crowd.fresh.is_empty());
        if state.is_none() && !is_many {
            continue;
        }
        for index in &crowd.fresh {
            events[*index].held = Some(Held::ToldTogether { by: by.clone() });
        }
        let mut members = crowd.members;
        members.extend(crowd.fresh.iter().map(|index| events[*index].clone()));
        if let Some(event) = step(state, dims, members, window_end_ms, holds) {
            added.push(event);
        }
    }
    // The end of the many, or their growth, says more than that they are told again.
    let replaced: BTreeSet<Fingerprint> = added.iter().map(|event: &Transition| event.fingerprint.clone()).collect();
    events.retain(|event| !replaced.contains(&event.fingerprint));
    events.extend(added);
    events
}

fn crowds(rules: &BTreeMap<&str, &Rule>, events: &[Transition], previous: &States) -> BTreeMap<Key, Crowd> {
    let mut crowds: BTreeMap<Key, Crowd> = BTreeMap::new();
    let mut touched: BTreeMap<(&str, &Fingerprint), ()> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        touched.insert((&event.rule_uid, &event.fingerprint), ());
        let Some(key) = key_of(rules, event) else {
            continue;
        };
        let is_told = previous.get(&event.rule_uid, &event.fingerprint).is_some_and(AlertState::is_told);
        let crowd = crowds.entry(key).or_default();
        match (&event.held, event.status) {
            (_, status) if !status.is_firing() => {}
            _ if is_told => crowd.told += 1,
            (None, Status::Firing) => crowd.fresh.push(index),
            (Some(Held::ToldTogether { .. }), _) => crowd.members.push(event.clone()),
            _ => {}
        }
    }
    for state in previous.iter() {
        let last = state.last();
        if touched.contains_key(&(last.rule_uid.as_str(), &last.fingerprint)) {
            continue;
        }
        // An alert of many without a member any more must be looked at as well.
        let key = match last.rule_state() {
            Some(MANY) => (last.rule_uid.clone(), last.dims[1..].to_vec()),
            _ => match key_of(rules, last) {
                Some(key) => key,
                None => continue,
            },
        };
        let crowd = crowds.entry(key).or_default();
        match &last.held {
            _ if last.rule_state().is_some() || !last.status.is_firing() => {}
            _ if state.is_told() => crowd.told += 1,
            Some(Held::ToldTogether { .. }) => crowd.members.push(last.clone()),
            _ => {}
        }
    }
    crowds
}

/// None for alerts about the rule itself, and for rules that are gone.
fn key_of(rules: &BTreeMap<&str, &Rule>, event: &Transition) -> Option<Key> {
    if event.rule_state().is_some() {
        return None;
    }
    let rule = rules.get(event.rule_uid.as_str())?;
    let names = rule.notify().group_by.iter().filter(|name| *name != "alert");
    let grouped = names.map(|name| (name.clone(), attribute(event, name).map(str::to_owned)));
    Some((event.rule_uid.clone(), grouped.collect()))
}

/// What happens to the alert that stands for many.
fn step(
    state: Option<&AlertState>,
    dims: Vec<(String, Option<String>)>,
    mut members: Vec<Transition>,
    window_end_ms: i64,
    holds: &dyn Fn(&Transition) -> Option<Held>,
) -> Option<Transition> {
    members.sort_by(|a, b| by_badness(b, a));
    let count = members.len() as u64;
    let Some(state) = state else {
        let mut event = of_many(dims, &members, window_end_ms)?;
        event.held = holds(&event);
        return Some(event.identified());
    };
    let last = state.last();
    if members.is_empty() {
        let held = (!state.is_told()).then_some(Held::NeverTold);
        let event = Transition {
            status: Status::Resolved,
            ends_at_ms: Some(window_end_ms),
            held,
            members: Vec::new(),
            member_count: Some(0),
            ..repeated(last, Reason::AllEnded, window_end_ms)
        };
        return Some(event.identified());
    }
    if !state.is_told() || count < state.told_count().saturating_mul(2) {
        return None;
    }
    let fresh = of_many(dims, &members, window_end_ms)?;
    let event = Transition {
        seq: last.seq + 1,
        reason: Reason::ManyMoreAlerts,
        starts_at_ms: last.starts_at_ms,
        ..fresh
    };
    let held = holds(&event);
    Some(Transition { held, ..event }.identified())
}

fn of_many(dims: Vec<(String, Option<String>)>, members: &[Transition], window_end_ms: i64) -> Option<Transition> {
    let worst = members.first()?;
    let window_ms = worst.window_end_ms.saturating_sub(worst.window_start_ms);
    let named = members.iter().take(NAMED);
    let member = |event: &Transition| Member {
        fingerprint: event.fingerprint.clone(),
        dims: event.dims.clone(),
        severity: event.severity,
        value: event.value,
        samples: event.samples,
    };
    let mut labels = worst.labels.clone();
    labels.retain(|name, value| members.iter().all(|event| event.labels.get(name) == Some(value)));
    let summary = summary(members);
    Some(Transition {
        event_id: String::new(),
        fingerprint: Fingerprint::of(&worst.rule_uid, &dims),
        seq: 1,
        status: Status::Firing,
        reason: Reason::ManyAlerts,
        severity: members.iter().map(|event| event.severity).max()?,
        dims,
        labels,
        annotations: BTreeMap::from([("summary".to_owned(), summary)]),
        value: None,
        baseline: None,
        ratio_to_baseline: None,
        samples: 0.0,
        impacted: None,
        window_start_ms: window_end_ms.saturating_sub(window_ms),
        window_end_ms,
        starts_at_ms: window_end_ms,
        ends_at_ms: None,
        evaluated_at_ms: None,
        lineage: Vec::new(),
        held: None,
        links: BTreeMap::new(),
        remediation: None,
        members: named.map(member).collect(),
        member_count: Some(members.len() as u64),
        causes: None,
        watermark_ms: None,
        ..worst.clone()
    })
}

fn summary(members: &[Transition]) -> String {
    let worst: Vec<String> = members
        .iter()
        .take(NAMED)
        .map(|event| {
            let value = event
                .value
                .map_or("no data".to_owned(), |value| message::quantity(value, event.unit.as_deref()));
            format!("{} {value}", message::dims_in_words(event))
        })
        .collect();
    let alert = members.first().map_or("", |event| event.alert.as_str());
    let count = message::grouped(members.len() as f64, 0);
    let text = format!("{count} alerts of {alert} at once; the worst: {}", worst.join("; "));
    message::clean_to(&text, message::MAX_RENDERED_CHARS)
}

/// The worse is the greater: severity, then how much is hit, then the smaller dimensions.
fn by_badness(a: &Transition, b: &Transition) -> std::cmp::Ordering {
    a.severity
        .cmp(&b.severity)
        .then(impact(a).total_cmp(&impact(b)))
        .then(b.dims.cmp(&a.dims))
}

/// How many are hit; where the rule does not count them, samples times the distance from what the value
/// is compared with.
fn impact(event: &Transition) -> f64 {
    if let Some(impacted) = event.impacted {
        return impacted;
    }
    let usual = match (&event.baseline, event.threshold.test) {
        (Some(baseline), _) => baseline.value,
        (None, Test::Value) => event.threshold.value,
        (None, _) => 0.0,
    };
    let off = event.value.map_or(0.0, |value| (value - usual).abs());
    off * event.samples
}

#[cfg(test)]
mod tests {
    use super::super::super::transition::RULE_STATE;
    use super::super::tests::{names, set, walk};
    use super::*;

    fn devices(count: usize, share: f64) -> Vec<(String, f64)> {
        (0..count).map(|n| (format!("d{n:04}"), share + n as f64 / 1e5)).collect()
    }

    fn refs(devices: &[(String, f64)]) -> Vec<(&str, f64)> {
        devices.iter().map(|(name, share)| (name.as_str(), *share)).collect()
    }

    fn sent(events: &[Transition]) -> Vec<&Transition> {
        events.iter().filter(|event| event.is_sent()).collect()
    }

    #[test]
    fn a_thousand_alerts_are_one_message_that_names_the_worst_ten() {
        let all = devices(1_000, 0.2);
        let well = devices(1_000, 0.01);
        let half: Vec<_> = all[..500].iter().chain(&well[500..]).cloned().collect();
        let (steps, states) = walk(&set("", &[]), &[&refs(&all), &refs(&half), &refs(&well)]);
        let first = sent(&steps[0]);
        assert_eq!((steps[0].len(), first.len()), (1_001, 1));
        let many = first[0];
        assert_eq!(many.dims, [(RULE_STATE.to_owned(), Some("many".to_owned()))]);
        assert_eq!((many.member_count, many.members.len()), (Some(1_000), 10));
        assert_eq!(many.members[0].dims[0].1.as_deref(), Some("d0999"), "the worst comes first");
        let summary = &many.annotations["summary"];
        assert!(
            summary.starts_with("1,000 alerts of Errors at once; the worst: device_type=d0999 21 %; "),
            "{summary}"
        );
        assert!(summary.len() <= 512);
        assert_eq!(sent(&steps[1]).len(), 0, "half of them end, and the others are still many");
        let last: Vec<_> = sent(&steps[2]).iter().map(|event| (event.status, event.reason)).collect();
        assert_eq!(last, [(Status::Resolved, Reason::AllEnded)]);
        assert!(states.is_empty());
    }

    #[test]
    fn ten_at_once_are_told_one_by_one_and_eleven_are_not() {
        let (steps, _) = walk(&set("", &[]), &[&refs(&devices(10, 0.2))]);
        assert_eq!(sent(&steps[0]).len(), 10);
        let (steps, _) = walk(&set("", &[]), &[&refs(&devices(11, 0.2))]);
        assert_eq!(sent(&steps[0]).len(), 1);
    }

    #[test]
    fn more_than_max_alerts_are_told_as_one_however_slowly_they_come() {
        let few = set("", &[("condition: \"> 5%\"", "condition: \"> 5%\"\n        max_alerts: 2")]);
        let all = devices(5, 0.2);
        let (steps, _) = walk(
            &few,
            &[&refs(&all[..1]), &refs(&all[..2]), &refs(&all[..3]), &refs(&all[..4]), &refs(&all)],
        );
        let told: Vec<Vec<String>> = names(&steps);
        assert_eq!(told[1], ["d0001 firing threshold 1"]);
        assert_eq!(told[2], ["d0002 firing threshold 1 told_together", "many firing many_alerts 1"]);
        assert_eq!(
            told[3],
            ["d0003 firing threshold 1 told_together", "many firing many_more_alerts 2"]
        );
        assert_eq!(told[4], ["d0004 firing threshold 1 told_together"], "three are not twice two");
    }

    #[test]
    fn alerts_are_told_together_that_agree_in_what_they_are_grouped_by() {
        let by_device = set(
            "",
            &[(
                "condition: \"> 5%\"",
                "condition: \"> 5%\"\n        notify: {group_by: [device_type]}",
            )],
        );
        let (steps, _) = walk(&by_device, &[&refs(&devices(20, 0.2))]);
        assert_eq!(sent(&steps[0]).len(), 20, "each device is a group of its own");
    }

    #[test]
    fn silenced_alerts_are_no_part_of_the_many() {
        let silence = "silences: [{matchers: {device_type: d*}, starts: 2026-11-01T20:00:00Z, ends: 2026-11-01T20:12:00Z, author: a, \
                       comment: c}]\n";
        let all = devices(20, 0.2);
        let (steps, _) = walk(&set(silence, &[]), &[&refs(&all), &refs(&all)]);
        assert_eq!(sent(&steps[0]).len(), 0);
        assert_eq!(steps[0].len(), 20);
        let second = sent(&steps[1]);
        assert_eq!(
            (second.len(), second[0].member_count),
            (1, Some(20)),
            "when it ends they are told as one"
        );
    }

    #[test]
    fn the_many_are_told_again_or_end_but_never_both_at_once() {
        let silence = "silences: [{matchers: {alert: Errors, rule_state: many}, starts: 2026-11-01T20:00:00Z, ends: 2026-11-01T20:13:00Z, \
                       author: a, comment: c}]\n";
        let (all, well) = (devices(20, 0.2), devices(20, 0.01));
        let of_many = |minutes: &[&[(&str, f64)]]| {
            let (steps, _) = walk(&set(silence, &[]), minutes);
            let last = steps.last().map(Vec::as_slice).unwrap_or_default();
            let many = last.iter().filter(|event| event.rule_state().is_some());
            many.map(super::super::super::fixture::told).collect::<Vec<_>>()
        };
        let (all, well) = (refs(&all), refs(&well));
        assert_eq!(of_many(&[&all]), ["firing many_alerts 1 silenced"]);
        assert_eq!(of_many(&[&all, &all, &all]), ["firing hold_ended 2"]);
        assert_eq!(of_many(&[&all, &all, &well]), ["resolved all_ended 2 never_told"]);
    }
}
