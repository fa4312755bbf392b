//! The evaluation of one rule over one window.
//!
//! Stands behind gold and before `route`: rows, history and states in, transitions out.
//!
//! A group has no say, and so does not breach, when it has fewer samples than `min_samples`, no
//! denominator, no baseline, or no row at all. Unless the rule asks for patience, pending then becomes
//! inactive and firing becomes resolved, with the reason named: an alert is never kept alive by the
//! absence of data, and never ends without a word.
//!
//! Invariant: no clock, no randomness; the same input gives the same transitions, bit for bit, in
//! whatever order the rows come.
//! Invariant: nothing fires on fewer samples than its rule demands, but the alerts about the rule
//! itself (`no_data`, `eval_error`), which have none.

use std::collections::{BTreeMap, BTreeSet};

use super::baseline::{self, Found};
use super::life::{Step, end_step, next_step};
use super::reading::{Reading, Verdict, ratio_to};
use super::rule::{ErrorState, NoDataState, Rule};
use super::state::{AlertState, States};
use super::template;
use super::transition::{BaselineReading, Fingerprint, RULE_STATE, Reason, Status, Transition, rounded};
use super::window::{Dims, MinuteRow, SlotRow, Totals, largest, pooled};

/// Names of alerts about the rule itself, under `rule_state`.
pub(super) const NO_DATA: &str = "no_data";
pub(super) const EVAL_ERROR: &str = "eval_error";
pub(super) const MANY: &str = "many";

/// Evaluates one rule for the window that ends at `window_end_ms`, and returns what changes.
///
/// `rows` are the minutes of the window (others are passed over), `history` is what
/// `Rule::history_sql` gives for this window end, less what `baseline::usable` leaves out. States of
/// other rules are not looked at. A window whose end is no multiple of the rule's `slide` changes
/// nothing. The transitions go through `route`, and then into the states.
///
/// Of more than `GROUPS_MAX` groups, those with the most samples are evaluated. The others are no
/// peers either, and their open alerts end for too few samples.
pub fn evaluate(
    rule: &Rule,
    window_end_ms: i64,
    rows: &[MinuteRow],
    history: &[SlotRow],
    previous: &States,
    rules_hash: &str,
) -> Vec<Transition> {
    if !rule.is_due(window_end_ms) {
        return Vec::new();
    }
    let (groups, left_out) = largest(pooled(rule, window_end_ms, rows));
    let baselines = baseline::of(rule, window_end_ms, &groups, history);
    let mut open = Open::of(rule, previous);
    let mut events = Vec::new();
    for (values, totals) in &groups {
        let reading = Reading::of(rule, *totals, baselines.get(values).copied());
        let step = next_step(rule, window_end_ms, &reading, open.groups.remove(values));
        if let Some(step) = step {
            events.push(transition(rule, window_end_ms, named(rule, values), &reading, step, rules_hash));
        }
    }
    for (values, state) in open.groups {
        let reading = match left_out.get(&values) {
            Some(totals) => Reading::left_out(rule, *totals),
            None => Reading::without_rows(rule, Verdict::Calm(Reason::MissingSeries)),
        };
        if let Some(step) = next_step(rule, window_end_ms, &reading, Some(state)) {
            events.push(transition(rule, window_end_ms, named(rule, &values), &reading, step, rules_hash));
        }
    }
    for state in open.regrouped {
        events.push(rule_changed(window_end_ms, state, rules_hash));
    }
    let is_silent = groups.is_empty() && rule.no_data.state == NoDataState::Alert;
    let of_data = if is_silent {
        Verdict::Breach(Reason::NoData)
    } else {
        Verdict::Calm(Reason::DataReturned)
    };
    events.extend(of_rule(rule, window_end_ms, NO_DATA, of_data, previous, rules_hash));
    let answered = Verdict::Calm(Reason::DataReturned);
    events.extend(of_rule(rule, window_end_ms, EVAL_ERROR, answered, previous, rules_hash));
    events
}

/// What changes when the rule's query failed, so that there is nothing to evaluate. By `eval_error`:
/// `alert` tells after `for` that the rule is blind and leaves its other alerts as they are, `keep`
/// leaves everything as it is, `ok` ends its alerts with the reason.
pub fn evaluate_failed(rule: &Rule, window_end_ms: i64, previous: &States, rules_hash: &str) -> Vec<Transition> {
    if !rule.is_due(window_end_ms) {
        return Vec::new();
    }
    match rule.eval_error {
        ErrorState::Keep => Vec::new(),
        ErrorState::Alert => {
            let verdict = Verdict::Breach(Reason::EvalError);
            let event = of_rule(rule, window_end_ms, EVAL_ERROR, verdict, previous, rules_hash);
            event.into_iter().collect()
        }
        ErrorState::Ok => {
            let open = Open::of(rule, previous);
            let reading = Reading::without_rows(rule, Verdict::Calm(Reason::EvalError));
            let ended = |(values, state): (Dims, &AlertState)| {
                let step = end_step(state.last(), Reason::EvalError);
                transition(rule, window_end_ms, named(rule, &values), &reading, step, rules_hash)
            };
            open.groups.into_iter().map(ended).collect()
        }
    }
}

/// Ends the alerts of rules that are no longer there, so that an edit never drops one silently.
pub fn close_removed(rules: &[Rule], window_end_ms: i64, previous: &States, rules_hash: &str) -> Vec<Transition> {
    let known: BTreeSet<&str> = rules.iter().map(|rule| rule.uid.as_str()).collect();
    previous
        .iter()
        .filter(|state| !known.contains(state.last().rule_uid.as_str()))
        .map(|state| rule_changed(window_end_ms, state, rules_hash))
        .collect()
}

/// The open alerts of a rule, less those about the rule itself.
struct Open<'s> {
    groups: BTreeMap<Dims, &'s AlertState>,
    /// Those of a time when the rule had other dimensions.
    regrouped: Vec<&'s AlertState>,
}

impl Open<'_> {
    fn of<'s>(rule: &Rule, previous: &'s States) -> Open<'s> {
        let mut open = Open {
            groups: BTreeMap::new(),
            regrouped: Vec::new(),
        };
        for state in previous.of_rule(&rule.uid) {
            let last = state.last();
            if last.rule_state().is_some() {
                continue;
            }
            if last.dims.iter().map(|(name, _)| name).eq(&rule.group_by) {
                let values = last.dims.iter().map(|(_, value)| value.clone()).collect();
                open.groups.insert(values, state);
            } else {
                open.regrouped.push(state);
            }
        }
        open
    }
}

/// The alert about the rule itself.
fn of_rule(rule: &Rule, window_end_ms: i64, about: &str, verdict: Verdict, previous: &States, rules_hash: &str) -> Option<Transition> {
    let mut open = previous.of_rule(&rule.uid);
    let state = open.find(|state| state.last().rule_state() == Some(about));
    let reading = Reading::without_rows(rule, verdict);
    let step = next_step(rule, window_end_ms, &reading, state)?;
    let dims = rule_state(about);
    Some(transition(rule, window_end_ms, dims, &reading, step, rules_hash))
}

pub(super) fn rule_state(about: &str) -> Vec<(String, Option<String>)> {
    vec![(RULE_STATE.to_owned(), Some(about.to_owned()))]
}

fn named(rule: &Rule, values: &Dims) -> Vec<(String, Option<String>)> {
    rule.group_by.iter().cloned().zip(values.iter().cloned()).collect()
}

/// The end of an alert whose rule can no longer be asked: its last words, with no value.
fn rule_changed(window_end_ms: i64, state: &AlertState, rules_hash: &str) -> Transition {
    let step = end_step(state.last(), Reason::RuleChanged);
    let last = state.last().clone();
    // What was told early is ahead; an alert does not end before it begins.
    let window_end_ms = window_end_ms.max(last.window_end_ms);
    let window_ms = last.window_end_ms.saturating_sub(last.window_start_ms);
    Transition {
        seq: step.seq,
        status: step.status,
        reason: step.reason,
        rules_hash: rules_hash.to_owned(),
        value: None,
        baseline: None,
        ratio_to_baseline: None,
        samples: 0.0,
        impacted: None,
        window_start_ms: window_end_ms.saturating_sub(window_ms),
        window_end_ms,
        ends_at_ms: Some(window_end_ms),
        evaluated_at_ms: None,
        lineage: Vec::new(),
        held: None,
        members: Vec::new(),
        member_count: None,
        causes: None,
        watermark_ms: None,
        is_early: false,
        ..last
    }
    .identified()
}

pub(super) fn transition(
    rule: &Rule,
    window_end_ms: i64,
    dims: Vec<(String, Option<String>)>,
    reading: &Reading,
    step: Step,
    rules_hash: &str,
) -> Transition {
    let bare = bare_transition(rule, window_end_ms, dims, reading, step, rules_hash);
    template::rendered(bare, rule).identified()
}

/// A firing with a value and a resolve without one: what templates are tried on.
pub(super) fn examples(rule: &Rule) -> [Transition; 2] {
    let dims: Vec<_> = rule
        .group_by
        .iter()
        .map(|name| (name.clone(), Some("example".to_owned())))
        .collect();
    let found = Found {
        value: 0.25,
        points: 3,
        spread: Some(0.1),
    };
    let breach = Reading {
        totals: Totals {
            num: 500.0,
            den: 1_000.0,
            samples: 1_000.0,
            impacted: 500.0,
        },
        value: Some(0.5),
        baseline: rule.baseline.as_ref().map(|_| found),
        verdict: Verdict::Breach(Reason::Threshold),
        severity: rule.severity,
    };
    let missing = Reading::without_rows(rule, Verdict::Calm(Reason::MissingSeries));
    let step = |status, reason| Step {
        status,
        reason,
        seq: 1,
        starts_at_ms: 0,
        severity: rule.severity,
        held: None,
    };
    let firing = step(Status::Firing, Reason::Threshold);
    let resolved = step(Status::Resolved, Reason::MissingSeries);
    [
        bare_transition(rule, 0, dims.clone(), &breach, firing, ""),
        bare_transition(rule, 0, dims, &missing, resolved, ""),
    ]
}

fn bare_transition(
    rule: &Rule,
    window_end_ms: i64,
    dims: Vec<(String, Option<String>)>,
    reading: &Reading,
    step: Step,
    rules_hash: &str,
) -> Transition {
    let kind = rule.baseline.as_ref().map_or("", |baseline| baseline.kind());
    let ratio = reading
        .value
        .zip(reading.baseline)
        .map(|(value, baseline)| ratio_to(value, baseline.value));
    Transition {
        event_id: String::new(),
        fingerprint: Fingerprint::of(&rule.uid, &dims),
        seq: step.seq,
        status: step.status,
        reason: step.reason,
        rule_uid: rule.uid.clone(),
        alert: rule.alert.clone(),
        owner: rule.owner.clone(),
        runbook: rule.runbook.clone(),
        severity: step.severity,
        rules_hash: rules_hash.to_owned(),
        dims,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        value: reading.value.map(rounded),
        unit: rule.unit.clone(),
        baseline: reading.baseline.map(|baseline| BaselineReading {
            kind: kind.to_owned(),
            value: rounded(baseline.value),
            samples: baseline.points,
            spread: baseline.spread.filter(|spread| spread.is_finite()).map(rounded),
        }),
        ratio_to_baseline: ratio.filter(|ratio| ratio.is_finite()).map(rounded),
        threshold: rule.condition,
        samples: rounded(reading.totals.samples),
        samples_of: rule.samples_of(),
        is_share_of_samples: rule.is_share_of_samples(),
        window_start_ms: window_end_ms.saturating_sub(rule.window_ms),
        window_end_ms,
        starts_at_ms: step.starts_at_ms,
        ends_at_ms: matches!(step.status, Status::Resolved | Status::Inactive).then_some(window_end_ms),
        targets: rule.notify.targets.clone(),
        evaluated_at_ms: None,
        lineage: Vec::new(),
        held: step.held,
        impacted: rule.impacted.as_ref().map(|_| rounded(reading.totals.impacted)),
        links: BTreeMap::new(),
        remediation: None,
        members: Vec::new(),
        member_count: None,
        causes: None,
        watermark_ms: None,
        is_early: false,
    }
}

#[cfg(test)]
mod tests;
