//! Who is told of what: silences, inhibition, hours, and many alerts as one.
//!
//! Stands between `evaluate` and the outbox: the transitions of all rules at one window end go in, and
//! come out with a reason on each that is recorded and not sent (`Transition::held`), together with
//! those that routing adds: what was held back and fires still, what is told again, and one message in
//! place of many.
//!
//! - A firing is held back by an active silence, by an alert that explains it, and outside the rule's
//!   hours. It is told as soon as nothing holds it back, if it fires still.
//! - An end is sent if the firing was: a silence must not leave an alert open at the target.
//! - More than `ONE_BY_ONE` firings of a rule in one window, or more than `max_alerts` at once, become
//!   one alert (`rule_state=many`) that names the worst. It ends with the last of them.
//!
//! Invariant: pure; time is the window end, so a replay holds back what the daemon held back.
//! Invariant: nothing is dropped: what goes in comes out, and no status changes.

mod quiet;
mod together;

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{Rule, RuleSet};
use super::state::{AlertState, States};
use super::transition::{Fingerprint, Held, Reason, Status, Transition};
use quiet::Quiet;

pub use together::{NAMED, ONE_BY_ONE};

/// Routes the transitions that `evaluate`, `evaluate_failed` and `close_removed` gave for all rules at
/// one window end. `previous` are the states before them. What comes out goes into the states.
pub fn route(set: &RuleSet, window_end_ms: i64, events: Vec<Transition>, previous: &States) -> Vec<Transition> {
    routed(set, window_end_ms, events, previous, true)
}

/// Routes what `early` gave for a window end that is judged later: what is not new waits until then.
pub fn route_early(set: &RuleSet, window_end_ms: i64, events: Vec<Transition>, previous: &States) -> Vec<Transition> {
    routed(set, window_end_ms, events, previous, false)
}

fn routed(set: &RuleSet, window_end_ms: i64, events: Vec<Transition>, previous: &States, tells_again: bool) -> Vec<Transition> {
    let rules: BTreeMap<&str, &Rule> = set.rules.iter().map(|rule| (rule.uid(), rule)).collect();
    let touched: BTreeSet<Fingerprint> = events.iter().map(|event| event.fingerprint.clone()).collect();
    let untouched: Vec<&AlertState> = previous
        .iter()
        .filter(|state| !touched.contains(&state.last().fingerprint))
        .collect();
    let firing = untouched.iter().map(|state| state.last()).chain(&events);
    let quiet = Quiet::new(set, window_end_ms, firing.filter(|event| event.status.is_firing()));
    let holds = |event: &Transition| quiet.holds(event, rules.get(event.rule_uid.as_str()).copied());

    let mut holds_of = Vec::new();
    for event in &events {
        let before = previous.get(&event.rule_uid, &event.fingerprint);
        let rule = rules.get(event.rule_uid.as_str()).copied();
        holds_of.push(held(event, before, rule, &holds));
    }
    let mut added = Vec::new();
    for state in untouched.iter().filter(|_| tells_again) {
        let rule = rules.get(state.last().rule_uid.as_str()).copied();
        added.extend(again(state, rule, window_end_ms, &holds));
    }
    let mut routed: Vec<Transition> = events
        .into_iter()
        .zip(holds_of)
        .map(|(event, held)| Transition { held, ..event })
        .collect();
    routed.extend(added);
    together::told_together(&rules, window_end_ms, routed, previous, &holds)
}

/// Why an event is not sent; what it says already for one that never would be.
fn held(event: &Transition, before: Option<&AlertState>, rule: Option<&Rule>, holds: &dyn Fn(&Transition) -> Option<Held>) -> Option<Held> {
    let is_told = before.is_some_and(AlertState::is_told);
    match event.status {
        Status::Firing if is_told && event.held.is_some() => event.held.clone(),
        Status::Firing => holds(event),
        // Carried along, so that a member of many stays one while it recovers.
        Status::Recovering if !is_told => before.and_then(|state| state.last().held.clone()),
        Status::Resolved if !is_told => Some(Held::NeverTold),
        Status::Resolved if rule.is_some_and(|rule| !rule.notify().send_resolved) => Some(Held::ResolvedNotWanted),
        _ => None,
    }
}

/// A firing alert that nothing happened to: told now if it was held back and is no more, and told again
/// after `repeat_interval`.
fn again(state: &AlertState, rule: Option<&Rule>, window_end_ms: i64, holds: &dyn Fn(&Transition) -> Option<Held>) -> Option<Transition> {
    let last = state.last();
    // What was told early is ahead of this end.
    let is_ahead = last.window_end_ms > window_end_ms;
    if last.status != Status::Firing || is_ahead || matches!(last.held, Some(Held::ToldTogether { .. })) {
        return None;
    }
    let reason = match state.told_at_ms() {
        None => Reason::HoldEnded,
        Some(told_at_ms) => {
            let interval_ms = rule?.notify().repeat_interval_ms?;
            let is_time = window_end_ms.saturating_sub(told_at_ms) >= interval_ms;
            is_time.then_some(Reason::Repeat)?
        }
    };
    let event = repeated(last, reason, window_end_ms);
    holds(&event).is_none().then_some(event)
}

/// The last transition once more, for this reason, at this window end; its value is the one it had.
fn repeated(last: &Transition, reason: Reason, window_end_ms: i64) -> Transition {
    let window_ms = last.window_end_ms.saturating_sub(last.window_start_ms);
    Transition {
        seq: last.seq + 1,
        reason,
        window_start_ms: window_end_ms.saturating_sub(window_ms),
        window_end_ms,
        held: None,
        evaluated_at_ms: None,
        lineage: Vec::new(),
        watermark_ms: None,
        is_early: false,
        ..last.clone()
    }
    .identified()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Gold, T0, row, told};
    use super::super::rule::parse_rules;
    use super::super::{MINUTE_MS, close_removed, evaluate, fold};
    use super::*;

    pub(super) const RULES: &str = r#"version: 1
targets: {console: {stdout: {}}}
calendars: {office: {hours: "20:13-20:20"}}
groups:
  - name: core
    rules:
      - alert: Errors
        from: gold.errors_1m
        value: {ratio: {num: clients_with_errors, den: clients}}
        group_by: [device_type]
        window: 1m
        min_samples: 100
        confidence: {method: none}
        condition: "> 5%"
      - alert: Everywhere
        from: gold.errors_1m
        value: {ratio: {num: clients_with_errors, den: clients}}
        window: 1m
        min_samples: 100
        confidence: {method: none}
        condition: "> 50%"
"#;

    pub(super) fn set(extra: &str, edits: &[(&str, &str)]) -> RuleSet {
        let mut text = format!("{RULES}{extra}");
        for (old, new) in edits {
            assert!(text.contains(old), "{old}");
            text = text.replacen(old, new, 1);
        }
        match parse_rules(&[("a".to_owned(), text)], &Gold, &|_| None) {
            Ok(set) => set,
            Err(complaints) => panic!("{}", complaints.iter().map(|c| format!("{c}\n")).collect::<String>()),
        }
    }

    /// Minutes of the walk: error shares by device; a whole share for everybody under no name.
    pub(super) fn walk(set: &RuleSet, minutes: &[&[(&str, f64)]]) -> (Vec<Vec<Transition>>, States) {
        let (mut states, mut all, mut steps) = (States::default(), Vec::new(), Vec::new());
        for (index, devices) in minutes.iter().enumerate() {
            let end_ms = T0 + (index as i64 + 1) * MINUTE_MS;
            let mut events = Vec::new();
            for rule in &set.rules {
                let is_ours = |name: &str| name.is_empty() == rule.group_by().is_empty();
                let row_of = |(name, share): &(&str, f64)| {
                    let dims: &[&str] = if name.is_empty() { &[] } else { &[name] };
                    row(end_ms, dims, share * 1_000.0, 1_000.0)
                };
                let rows: Vec<_> = devices.iter().filter(|(name, _)| is_ours(name)).map(row_of).collect();
                events.extend(evaluate(rule, end_ms, &rows, &[], &states, "h"));
            }
            let events = route(set, end_ms, events, &states);
            states.apply_all(&events);
            all.extend(events.iter().cloned());
            assert_eq!(fold(all.iter().rev()), states, "state is the fold of events");
            steps.push(events);
        }
        (steps, states)
    }

    pub(super) fn names(steps: &[Vec<Transition>]) -> Vec<Vec<String>> {
        let name = |event: &Transition| {
            let of = event.dims.last().and_then(|(_, value)| value.as_deref()).unwrap_or("all");
            format!("{of} {}", told(event))
        };
        steps.iter().map(|events| events.iter().map(name).collect()).collect()
    }

    const SILENCE: &str = "silences: [{id: s, matchers: {device_type: tv}, starts: 2026-11-01T20:12:00Z, ends: 2026-11-01T20:14:00Z, \
                           author: a, comment: c}]\n";
    const TV: &[(&str, f64)] = &[("tv", 0.1)];
    const WELL: &[(&str, f64)] = &[("tv", 0.01)];

    #[test]
    fn what_a_silence_held_back_is_told_when_it_ends() {
        let (steps, states) = walk(&set(SILENCE, &[]), &[WELL, TV, TV, TV, TV, WELL]);
        let expected: [&[&str]; 6] = [
            &[],
            &["tv firing threshold 1 silenced"],
            &[],
            &["tv firing hold_ended 2"],
            &[],
            &["tv resolved threshold 3"],
        ];
        assert_eq!(names(&steps), expected);
        assert!(states.is_empty());
        let held = steps[1][0].held.clone();
        let silenced = Held::Silenced {
            id: "s".to_owned(),
            author: "a".to_owned(),
        };
        assert_eq!(held, Some(silenced));
        assert!(!steps[1][0].is_sent() && steps[3][0].is_sent());
    }

    #[test]
    fn what_ends_within_its_silence_is_recorded_only() {
        let (steps, _) = walk(&set(SILENCE, &[]), &[WELL, TV, WELL]);
        assert_eq!(
            names(&steps)[1..],
            [["tv firing threshold 1 silenced"], ["tv resolved threshold 2 never_told"]]
        );
    }

    #[test]
    fn an_alert_that_was_told_ends_at_the_target_whatever_is_silent() {
        let (steps, _) = walk(&set(SILENCE, &[]), &[TV, TV, WELL]);
        let expected: [&[&str]; 3] = [&["tv firing threshold 1"], &[], &["tv resolved threshold 2"]];
        assert_eq!(names(&steps), expected);
    }

    #[test]
    fn the_alert_that_explains_others_keeps_them_quiet_while_it_fires() {
        let inhibit = "inhibit: [{when: {alert: Everywhere}, mute: {alert: Errors}}]\n";
        let all: &[(&str, f64)] = &[("", 0.6), ("tv", 0.7)];
        let some: &[(&str, f64)] = &[("", 0.1), ("tv", 0.7)];
        let (steps, _) = walk(&set(inhibit, &[]), &[all, all, some, WELL]);
        let expected: [&[&str]; 4] = [
            &["tv firing threshold 1 inhibited", "all firing threshold 1"],
            &[],
            &["all resolved threshold 2", "tv firing hold_ended 2"],
            &["tv resolved threshold 3"],
        ];
        assert_eq!(names(&steps), expected);
        let by = steps[0][1].fingerprint.clone();
        let alert = "Everywhere".to_owned();
        assert_eq!(steps[0][0].held, Some(Held::Inhibited { by, alert }));
    }

    #[test]
    fn outside_the_hours_nobody_is_told_until_they_begin() {
        let set = set(
            "",
            &[("condition: \"> 5%\"", "condition: \"> 5%\"\n        notify: {active: office}")],
        );
        let (steps, _) = walk(&set, &[WELL, TV, TV, TV]);
        let expected: [&[&str]; 4] = [&[], &["tv firing threshold 1 outside_hours"], &["tv firing hold_ended 2"], &[]];
        assert_eq!(names(&steps), expected);
    }

    #[test]
    fn a_firing_alert_is_told_again_only_after_its_interval() {
        let set = set(
            "",
            &[(
                "condition: \"> 5%\"",
                "condition: \"> 5%\"\n        notify: {repeat_interval: 2m, send_resolved: false}",
            )],
        );
        let (steps, _) = walk(&set, &[TV, TV, TV, TV, TV, WELL]);
        let expected: [&[&str]; 6] = [
            &["tv firing threshold 1"],
            &[],
            &["tv firing repeat 2"],
            &[],
            &["tv firing repeat 3"],
            &["tv resolved threshold 4 resolved_not_wanted"],
        ];
        assert_eq!(names(&steps), expected);
    }

    #[test]
    fn an_alert_of_a_removed_rule_ends_at_the_target() {
        let set = set("", &[]);
        let (_, states) = walk(&set, &[TV]);
        let events = close_removed(&set.rules[1..], T0 + 2 * MINUTE_MS, &states, "h");
        let routed = route(&set, T0 + 2 * MINUTE_MS, events, &states);
        assert_eq!(names(&[routed]), [["tv resolved rule_changed 2"]]);
    }

    #[test]
    fn back_from_recovering_an_alert_that_was_silenced_is_told_when_it_may_be() {
        let set = set(
            SILENCE,
            &[("condition: \"> 5%\"", "condition: \"> 5%\"\n        keep_firing_for: 5m")],
        );
        let (steps, _) = walk(&set, &[WELL, TV, WELL, TV]);
        let expected: [&[&str]; 4] = [
            &[],
            &["tv firing threshold 1 silenced"],
            &["tv recovering threshold 2 silenced"],
            &["tv firing threshold 3"],
        ];
        assert_eq!(names(&steps), expected);
    }
}
