//! A window that was told and that late data have changed: judged once more.
//!
//! Stands beside `evaluate`. Where the window of a firing that was told would no longer breach, a rule that says
//! `on_late: amend` tells it: an amendment, with the value as it is now. It changes no state, and it never begins
//! anything: an alert that late data would have fired is not told hours later.
//!
//! Invariant: a firing is amended once. The amendment's id follows from that of the firing, so that who judges it
//! again after a crash says the same, under the same id.
//! Invariant: an amendment asks for nothing: it carries no remediation.

use super::baseline;
use super::evaluate::transition;
use super::life::Step;
use super::reading::{Reading, Verdict};
use super::rule::Rule;
use super::transition::{Reason, Status, Transition};
use super::window::{Dims, MinuteRow, SlotRow, largest, pooled};

/// What becomes of a firing whose window holds these rows now; none where it would fire still, where its rule does
/// not ask, and where another rule than this has judged it.
pub fn amended(rule: &Rule, told: &Transition, rows: &[MinuteRow], history: &[SlotRow], rules_hash: &str) -> Option<Transition> {
    if !(is_amendable(rule, told) && told.rules_hash == rules_hash) {
        return None;
    }
    let (groups, _) = largest(pooled(rule, told.window_end_ms, rows));
    let baselines = baseline::of(rule, told.window_end_ms, &groups, history);
    let values: Dims = told.dims.iter().map(|(_, value)| value.clone()).collect();
    let reading = match groups.get(&values) {
        Some(totals) => Reading::of(rule, *totals, baselines.get(&values).copied()),
        None => Reading::without_rows(rule, Verdict::Calm(Reason::MissingSeries)),
    };
    let reason = match reading.verdict {
        Verdict::Breach(_) => return None,
        Verdict::Unsettled => Reason::Threshold,
        Verdict::Calm(reason) => reason,
    };
    let step = Step {
        status: Status::Amended,
        reason,
        seq: told.seq,
        starts_at_ms: told.starts_at_ms,
        severity: told.severity,
        held: None,
    };
    let amendment = transition(rule, told.window_end_ms, told.dims.clone(), &reading, step, rules_hash);
    Some(Transition {
        remediation: None,
        ..amendment
    })
}

/// True for a firing that was told of a group, because it breached, under a rule that amends.
pub fn is_amendable(rule: &Rule, told: &Transition) -> bool {
    let is_of_group = told.rule_state().is_none() && told.dims.iter().map(|(name, _)| name).eq(rule.group_by());
    let is_breach = matches!(told.reason, Reason::Threshold | Reason::SeverityRaised);
    // What was told early ends when its window closes and does not breach: that is told anyway.
    let is_told = told.status == Status::Firing && told.is_sent() && !told.is_early;
    rule.amends() && told.rule_uid == rule.uid() && is_told && is_breach && is_of_group
}

#[cfg(test)]
mod tests {
    use super::super::States;
    use super::super::fixture::{HASH, T0, plain_rule, row, step};
    use super::*;

    fn rule(on_late: &str) -> Rule {
        plain_rule(&[("        for: 2m\n", &format!("        on_late: {on_late}\n"))])
    }

    fn told(rule: &Rule) -> Transition {
        let (mut events, _) = step(rule, T0, &[row(T0, &["tv"], 60.0, 1_000.0)], &[], &States::default());
        let event = events.remove(0);
        assert_eq!(event.status, Status::Firing);
        event
    }

    fn amended_by(rule: &Rule, num: f64, den: f64) -> Option<Transition> {
        amended(rule, &told(rule), &[row(T0, &["tv"], num, den)], &[], HASH)
    }

    #[test]
    fn a_window_that_no_longer_breaches_is_amended_with_its_value_of_now() {
        let rule = rule("amend");
        let event = amended_by(&rule, 60.0, 4_000.0).unwrap();
        let before = told(&rule);
        assert_eq!(
            (event.status, event.reason, event.value),
            (Status::Amended, Reason::Threshold, Some(0.015))
        );
        assert_eq!(
            (event.seq, event.starts_at_ms, event.window_end_ms, &event.fingerprint),
            (before.seq, before.starts_at_ms, before.window_end_ms, &before.fingerprint)
        );
        assert!(event.event_id != before.event_id && event.is_sent());
        assert_eq!(
            amended_by(&rule, 60.0, 5_000.0).unwrap().event_id,
            event.event_id,
            "one id, whatever else comes"
        );
    }

    #[test]
    fn nothing_is_said_where_nothing_has_changed_or_nobody_asks() {
        assert_eq!(amended_by(&rule("amend"), 90.0, 1_000.0), None, "it breaches still");
        assert_eq!(amended_by(&rule("ignore"), 60.0, 4_000.0), None);
        let rule = rule("amend");
        let of_other_rules = Transition {
            rules_hash: "sha256:other".to_owned(),
            ..told(&rule)
        };
        assert_eq!(
            amended(&rule, &of_other_rules, &[row(T0, &["tv"], 1.0, 4_000.0)], &[], HASH),
            None,
            "an edit is no late data"
        );
        let gone = amended(&rule, &told(&rule), &[], &[], HASH).unwrap();
        assert_eq!((gone.reason, gone.value), (Reason::MissingSeries, None));
    }
}
