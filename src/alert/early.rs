//! What an open window may say: that a group breaches by the rows so far.
//!
//! Stands between `evaluate` and `route`, for rules that say `early: true`. The same evaluation, of a window that is
//! not complete; of what it gives only new firings go on, marked as early. Until the window has closed nothing else is
//! said of such an alert (`life`); then it is judged as every other: if the whole of it breaches nothing is left to say,
//! and if it does not the alert ends, and the target is told.
//!
//! Invariant: absence says nothing while a window is open: nothing ends early, and nothing fires for want of rows.

use super::state::States;
use super::transition::{Reason, Status, Transition};

/// Of the transitions of an open window, those that are told early. `known`: what has been told so far.
pub fn early(events: Vec<Transition>, known: &States) -> Vec<Transition> {
    let is_firing = |event: &Transition| {
        let state = known.get(&event.rule_uid, &event.fingerprint);
        state.is_some_and(|state| state.last().status.is_firing())
    };
    let is_told = |event: &Transition| {
        let is_breach = event.reason == Reason::Threshold && event.rule_state().is_none();
        event.status == Status::Firing && is_breach && !is_firing(event)
    };
    let marked = |event| Transition { is_early: true, ..event };
    events.into_iter().filter(is_told).map(marked).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{HASH, T0, plain_rule, row, told};
    use super::super::rule::Rule;
    use super::super::{MINUTE_MS, States, evaluate};
    use super::*;

    const AT_ONCE: (&str, &str) = ("        for: 2m\n", "");

    /// One judgement at this minute, of an open window or a closed one.
    fn step(rule: &Rule, minute: i64, rows: &[(&str, f64)], is_open: bool, states: &mut States) -> Vec<String> {
        let end_ms = T0 + minute * MINUTE_MS;
        let rows: Vec<_> = rows.iter().map(|(device, bad)| row(end_ms, &[device], *bad, 1_000.0)).collect();
        let events = evaluate(rule, end_ms, &rows, &[], states, HASH);
        let events = if is_open { early(events, states) } else { events };
        states.apply_all(&events);
        let text = |event: &Transition| format!("{}{}", if event.is_early { "early " } else { "" }, told(event));
        events.iter().map(text).collect()
    }

    #[test]
    fn a_breach_is_told_while_its_window_is_open_and_not_again_when_it_closes() {
        let (rule, mut states) = (plain_rule(&[AT_ONCE]), States::default());
        assert_eq!(step(&rule, 0, &[("tv", 100.0)], true, &mut states), ["early firing threshold 1"]);
        assert!(step(&rule, 0, &[("tv", 120.0)], true, &mut states).is_empty(), "once");
        assert!(step(&rule, 0, &[("tv", 90.0)], false, &mut states).is_empty(), "it is known");
        assert_eq!(step(&rule, 1, &[("tv", 1.0)], false, &mut states), ["resolved threshold 2"]);
    }

    #[test]
    fn what_the_whole_window_does_not_bear_out_ends_when_it_closes() {
        let (rule, mut states) = (plain_rule(&[AT_ONCE]), States::default());
        step(&rule, 0, &[("tv", 100.0)], true, &mut states);
        assert_eq!(step(&rule, 0, &[("tv", 1.0)], false, &mut states), ["resolved threshold 2"]);
    }

    #[test]
    fn windows_that_close_before_it_say_nothing_of_what_was_told_early() {
        let (rule, mut states) = (plain_rule(&[AT_ONCE]), States::default());
        assert_eq!(step(&rule, 2, &[("tv", 100.0)], true, &mut states), ["early firing threshold 1"]);
        assert!(step(&rule, 0, &[("tv", 1.0)], false, &mut states).is_empty());
        assert!(step(&rule, 1, &[("tv", 90.0)], false, &mut states).is_empty());
        assert_eq!(step(&rule, 2, &[("tv", 1.0)], false, &mut states), ["resolved threshold 2"]);
    }

    #[test]
    fn nothing_ends_early_and_nothing_is_pending_early() {
        let (rule, mut states) = (plain_rule(&[AT_ONCE]), States::default());
        step(&rule, 0, &[("tv", 100.0)], false, &mut states);
        assert!(step(&rule, 1, &[("tv", 1.0)], true, &mut states).is_empty());
        assert!(step(&rule, 1, &[], true, &mut states).is_empty(), "its rows may come yet");
        let patient = plain_rule(&[]);
        let mut states = States::default();
        assert!(step(&patient, 0, &[("tv", 100.0)], true, &mut states).is_empty());
        step(&patient, 0, &[("tv", 100.0)], false, &mut states);
        step(&patient, 1, &[("tv", 100.0)], false, &mut states);
        let third = step(&patient, 2, &[("tv", 100.0)], true, &mut states);
        assert_eq!(third, ["early firing threshold 1"], "`for` is over at this end");
    }

    #[test]
    fn that_no_row_has_come_yet_is_no_news() {
        let rule = plain_rule(&[("for: 2m", "no_data: {state: alert, after: 0s}")]);
        assert!(step(&rule, 0, &[], true, &mut States::default()).is_empty());
        assert_eq!(step(&rule, 0, &[], false, &mut States::default()).len(), 1);
    }
}
