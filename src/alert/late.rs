//! Windows that changed after they were judged.
//!
//! Stands beside `evaluate`: when late data have changed a minute of gold, the windows that hold it are
//! judged once more, against the states that they had. Where the judgement differs, an `amended`
//! transition is recorded. Nobody is paged for the past: no state changes, and nothing is sent.
//!
//! Invariant: the same late data give the same event ids, so an amendment is recorded once.

use super::baseline;
use super::evaluate::amended;
use super::reading::{Reading, Verdict};
use super::rule::Rule;
use super::state::{AlertState, States};
use super::transition::{Reason, Status, Transition};
use super::window::{Dims, MinuteRow, SlotRow, largest, pooled};

/// Judges a window again that was judged before, and returns what would have been otherwise.
///
/// `states_then` are the states just after that window end (`fold` of the events up to it), `rows` are
/// the minutes of the window as they are now. None for a rule with `on_late: ignore`.
pub fn amend(
    rule: &Rule,
    window_end_ms: i64,
    rows: &[MinuteRow],
    history: &[SlotRow],
    states_then: &States,
    rules_hash: &str,
) -> Vec<Transition> {
    if !rule.is_amended() || !rule.is_due(window_end_ms) {
        return Vec::new();
    }
    let (groups, left_out) = largest(pooled(rule, window_end_ms, rows));
    let baselines = baseline::of(rule, window_end_ms, &groups, history);
    let mut events = Vec::new();
    for (values, totals) in &groups {
        let reading = Reading::of(rule, *totals, baselines.get(values).copied());
        let state = state_of(rule, values, states_then);
        if differs(reading.verdict, state) {
            events.push(amended(rule, window_end_ms, values, &reading, state, rules_hash));
        }
    }
    for state in states_then.of_rule(rule.uid()).filter(|state| breached(state)) {
        let last = state.last();
        let values: Dims = last.dims.iter().map(|(_, value)| value.clone()).collect();
        let is_ours = last.rule_state().is_none() && last.dims.iter().map(|(name, _)| name).eq(rule.group_by());
        if is_ours && !groups.contains_key(&values) && !left_out.contains_key(&values) {
            let reading = Reading::without_rows(rule, Verdict::Calm(Reason::MissingSeries));
            events.push(amended(rule, window_end_ms, &values, &reading, Some(state), rules_hash));
        }
    }
    events
}

fn state_of<'s>(rule: &Rule, values: &Dims, states: &'s States) -> Option<&'s AlertState> {
    states
        .of_rule(rule.uid())
        .find(|state| state.last().rule_state().is_none() && state.last().dims.iter().map(|(_, value)| value).eq(values))
}

/// True for a state in which the window breached: what recovers did not.
fn breached(state: &AlertState) -> bool {
    matches!(state.status(), Status::Pending | Status::Firing)
}

fn differs(verdict: Verdict, state: Option<&AlertState>) -> bool {
    let was_breach = state.is_some_and(breached);
    match verdict {
        Verdict::Breach(_) => !was_breach,
        Verdict::Calm(_) => was_breach,
        Verdict::Unsettled => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{HASH, T0, plain_rule, row, step, told};
    use super::*;

    #[track_caller]
    fn check(then: f64, now: f64, expected: &[&str]) {
        let rule = plain_rule(&[("        for: 2m\n", "")]);
        let (_, states) = step(&rule, T0, &[row(T0, &["tv"], then, 1_000.0)], &[], &States::default());
        let rows = [row(T0, &["tv"], now, 1_000.0)];
        let events = amend(&rule, T0, &rows, &[], &states, HASH);
        assert_eq!(events.iter().map(told).collect::<Vec<_>>(), expected);
        assert!(events.iter().all(|event| !event.is_sent()));
        let again = amend(&rule, T0, &rows, &[], &states, HASH);
        assert_eq!(events, again, "with the same ids");
    }

    #[test]
    fn a_window_that_turns_bad_or_good_is_amended_and_nobody_is_paged() {
        check(10.0, 60.0, &["amended threshold 0"]);
        check(60.0, 10.0, &["amended threshold 0"]);
        check(60.0, 70.0, &[]);
        check(10.0, 20.0, &[]);
    }

    #[test]
    fn a_group_whose_rows_are_gone_is_amended() {
        let rule = plain_rule(&[("        for: 2m\n", "")]);
        let (_, states) = step(&rule, T0, &[row(T0, &["tv"], 60.0, 1_000.0)], &[], &States::default());
        let events = amend(&rule, T0, &[], &[], &states, HASH);
        assert_eq!(events.iter().map(told).collect::<Vec<_>>(), ["amended missing_series 0"]);
    }

    #[test]
    fn a_rule_may_ignore_what_is_late() {
        let rule = plain_rule(&[("for: 2m", "on_late: ignore")]);
        let rows = [row(T0, &["tv"], 60.0, 1_000.0)];
        assert_eq!(amend(&rule, T0, &rows, &[], &States::default(), HASH), []);
    }
}
