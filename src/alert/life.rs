//! Where an alert goes from here: one verdict and one state give one step, or none.
//!
//! Stands under `evaluate`. The meaning is that of Prometheus: a group that breaches is pending,
//! fires once it has breached in each evaluation for `for` of event time, and ends at the first
//! evaluation at which it does not breach, or `keep_firing_for` after it if it breaches no more.
//! `clear` and `no_data: {state: keep}` add their patience to that of `keep_firing_for`.
//!
//! Where the meaning differs from Prometheus on purpose:
//!
//! - a group with too few samples, too few hit, no value or no baseline has no say, which counts as
//!   not breaching, with that reason;
//! - a firing alert that waits to end is recorded as `recovering`; targets see it as firing;
//! - `starts_at` is when the breach began (Prometheus: `activeAt`), not when `for` was over;
//! - a message is sent once; it is sent again only after `repeat_interval`, when the severity rises
//!   or when what held it back is over.
//!
//! Invariant: a pending alert never outlives the first evaluation at which it does not breach.

use super::reading::{Reading, Verdict};
use super::rule::{NoDataState, Rule, Severity};
use super::state::AlertState;
use super::transition::{Held, Reason, Status, Transition};

/// Where an alert goes from here.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) status: Status,
    pub(super) reason: Reason,
    pub(super) seq: u32,
    pub(super) starts_at_ms: i64,
    pub(super) severity: Severity,
    pub(super) held: Option<Held>,
}

pub(super) fn next_step(rule: &Rule, window_end_ms: i64, reading: &Reading, state: Option<&AlertState>) -> Option<Step> {
    let last = state.map(AlertState::last);
    // Told early, it is ahead of this end; its own will come.
    if last.is_some_and(|last| last.window_end_ms > window_end_ms) {
        return None;
    }
    match (reading.verdict, last) {
        (Verdict::Breach(reason), None) => Some(begin(rule, window_end_ms, reason, reading.severity)),
        (Verdict::Breach(reason), Some(last)) => go_on(rule, window_end_ms, reason, reading.severity, last),
        (Verdict::Unsettled, Some(last)) => unsettled(last),
        (Verdict::Calm(reason), Some(last)) => calm(rule, window_end_ms, reason, last),
        (Verdict::Unsettled | Verdict::Calm(_), None) => None,
    }
}

fn begin(rule: &Rule, window_end_ms: i64, reason: Reason, severity: Severity) -> Step {
    let is_firing = hold_ms(rule, reason) == 0;
    Step {
        status: if is_firing { Status::Firing } else { Status::Pending },
        reason,
        seq: u32::from(is_firing),
        starts_at_ms: window_end_ms,
        severity,
        held: None,
    }
}

fn go_on(rule: &Rule, window_end_ms: i64, reason: Reason, severity: Severity, last: &Transition) -> Option<Step> {
    let held_ms = window_end_ms.saturating_sub(last.starts_at_ms);
    let is_raised = severity > last.severity;
    match last.status {
        Status::Pending if held_ms >= hold_ms(rule, reason) => Some(Step {
            severity,
            ..step(last, Status::Firing, reason)
        }),
        Status::Firing | Status::Recovering if is_raised => Some(Step {
            severity,
            ..step(last, Status::Firing, Reason::SeverityRaised)
        }),
        Status::Recovering => Some(Step {
            held: Some(Held::AlreadyTold),
            ..step(last, Status::Firing, reason)
        }),
        _ => None,
    }
}

/// Neither bad nor good: what is pending has not lasted, what recovers has not recovered.
fn unsettled(last: &Transition) -> Option<Step> {
    match last.status {
        Status::Pending => Some(step(last, Status::Inactive, Reason::Threshold)),
        Status::Recovering => Some(Step {
            held: Some(Held::AlreadyTold),
            ..step(last, Status::Firing, Reason::Threshold)
        }),
        _ => None,
    }
}

fn calm(rule: &Rule, window_end_ms: i64, reason: Reason, last: &Transition) -> Option<Step> {
    let patience_ms = patience_ms(rule, reason);
    match last.status {
        Status::Firing if patience_ms > 0 => Some(step(last, Status::Recovering, reason)),
        // The transition to recovering is the last one, so its window is when it began to recover.
        Status::Recovering if window_end_ms.saturating_sub(last.window_end_ms) < patience_ms => None,
        _ => Some(end_step(last, reason)),
    }
}

/// The end of an alert, for this reason, now.
pub(super) fn end_step(last: &Transition, reason: Reason) -> Step {
    let status = if last.status.is_firing() {
        Status::Resolved
    } else {
        Status::Inactive
    };
    step(last, status, reason)
}

pub(super) fn step(last: &Transition, status: Status, reason: Reason) -> Step {
    Step {
        status,
        reason,
        seq: last.seq + 1,
        starts_at_ms: last.starts_at_ms,
        severity: last.severity,
        held: None,
    }
}

/// How long a breach must last before it fires.
fn hold_ms(rule: &Rule, reason: Reason) -> i64 {
    match reason {
        Reason::NoData => rule.no_data.after_ms,
        _ => rule.hold_ms,
    }
}

/// How long an alert fires on after its last breach.
fn patience_ms(rule: &Rule, reason: Reason) -> i64 {
    let own_ms = match reason {
        Reason::Threshold => rule.clear.as_ref().map_or(0, |clear| clear.hold_ms),
        Reason::MissingSeries if rule.no_data.state != NoDataState::Ok => rule.no_data.after_ms,
        _ => 0,
    };
    own_ms.max(rule.keep_firing_ms)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{BAD, FIRING, GONE, GOOD, NOTHING, PENDING, RESOLVED, THIN, check, plain_rule};

    const RECOVERING: &str = "recovering threshold 2";
    const BACK: &str = "firing threshold 3 already_told";

    #[test]
    fn it_fires_after_for_and_resolves_once() {
        check(
            &plain_rule(&[]),
            &[GOOD, BAD, BAD, BAD, BAD, GOOD, GOOD],
            &[NOTHING, PENDING, NOTHING, FIRING, NOTHING, RESOLVED, NOTHING],
        );
    }

    #[test]
    fn one_good_minute_starts_the_wait_again() {
        check(
            &plain_rule(&[]),
            &[BAD, BAD, GOOD, BAD, BAD, BAD],
            &[PENDING, NOTHING, "inactive threshold 1", PENDING, NOTHING, FIRING],
        );
    }

    #[test]
    fn without_for_it_fires_at_once() {
        check(
            &plain_rule(&[("        for: 2m\n", "")]),
            &[BAD, BAD, GOOD, BAD],
            &[FIRING, NOTHING, RESOLVED, FIRING],
        );
    }

    #[test]
    fn a_vanished_group_ends_its_alert_with_the_reason() {
        check(
            &plain_rule(&[]),
            &[BAD, GONE, BAD, BAD, BAD, GONE, GONE],
            &[
                PENDING,
                "inactive missing_series 1",
                PENDING,
                NOTHING,
                FIRING,
                "resolved missing_series 2",
                NOTHING,
            ],
        );
    }

    #[test]
    fn too_few_samples_are_no_opinion() {
        check(
            &plain_rule(&[]),
            &[THIN, BAD, THIN, BAD, BAD, BAD, THIN],
            &[
                NOTHING,
                PENDING,
                "inactive too_few_samples 1",
                PENDING,
                NOTHING,
                FIRING,
                "resolved too_few_samples 2",
            ],
        );
    }

    #[test]
    fn it_keeps_firing_for_a_while_after_the_last_breach() {
        let rule = plain_rule(&[("for: 2m", "keep_firing_for: 2m")]);
        check(
            &rule,
            &[BAD, GOOD, BAD, GOOD, GOOD, GOOD, GOOD],
            &[
                FIRING,
                RECOVERING,
                BACK,
                "recovering threshold 4",
                NOTHING,
                "resolved threshold 5",
                NOTHING,
            ],
        );
        check(
            &rule,
            &[BAD, GONE, THIN, GONE],
            &[FIRING, "recovering missing_series 2", NOTHING, "resolved missing_series 3"],
        );
    }

    #[test]
    fn it_ends_only_after_it_has_been_clear_for_long_enough() {
        let rule = plain_rule(&[("for: 2m", "clear: {threshold: 3%, for: 2m}")]);
        let between = Some((40.0, 1_000.0));
        check(
            &rule,
            &[BAD, GOOD, between, GOOD, GOOD, GOOD],
            &[FIRING, RECOVERING, BACK, "recovering threshold 4", NOTHING, "resolved threshold 5"],
        );
        check(&rule, &[BAD, GONE], &[FIRING, "resolved missing_series 2"]);
    }

    #[test]
    fn what_is_pending_never_waits_to_end() {
        let rule = plain_rule(&[(
            "for: 2m",
            "for: 2m\n        keep_firing_for: 5m\n        clear: {threshold: 3%, for: 5m}",
        )]);
        let between = Some((40.0, 1_000.0));
        check(&rule, &[BAD, between], &[PENDING, "inactive threshold 1"]);
        check(&rule, &[BAD, GONE], &[PENDING, "inactive missing_series 1"]);
    }

    #[test]
    fn no_data_may_keep_an_alert_for_a_while() {
        let rule = plain_rule(&[("for: 2m", "no_data: {state: keep, after: 2m}")]);
        check(
            &rule,
            &[BAD, GONE, GONE, GONE, GONE],
            &[FIRING, "recovering missing_series 2", NOTHING, "resolved missing_series 3", NOTHING],
        );
        check(&rule, &[BAD, GONE, BAD], &[FIRING, "recovering missing_series 2", BACK]);
        check(
            &rule,
            &[BAD, GONE, GOOD],
            &[FIRING, "recovering missing_series 2", "resolved threshold 3"],
        );
    }
}
