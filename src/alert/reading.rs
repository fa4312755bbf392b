//! What a rule sees of one group in one window: value, baseline, verdict and severity.
//!
//! Stands under `evaluate`, over `baseline`; `life` turns the verdict into a step.
//!
//! Invariant: nothing breaches on fewer samples, or fewer hit, than its rule demands.
//! Invariant: every condition is judged at the near end of the confidence interval; whether an alert
//! may end by `clear` is judged by the value itself, which is the more patient of the two.

use super::baseline::{self, Found};
use super::rule::{Condition, Rule, Severity, Test};
use super::transition::Reason;
use super::window::Totals;

/// What a rule sees of one group in one window.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) totals: Totals,
    pub(super) value: Option<f64>,
    pub(super) baseline: Option<Found>,
    pub(super) verdict: Verdict,
    pub(super) severity: Severity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Breach(Reason),
    /// Not bad enough to begin, and not good enough to end what has begun.
    Unsettled,
    Calm(Reason),
}

impl Reading {
    /// Of a group without rows, or of the rule itself.
    pub(super) fn without_rows(rule: &Rule, verdict: Verdict) -> Reading {
        Reading {
            totals: Totals::default(),
            value: None,
            baseline: None,
            verdict,
            severity: rule.severity,
        }
    }

    /// Of a group with rows, beyond the bound of groups.
    pub(super) fn left_out(rule: &Rule, totals: Totals) -> Reading {
        Reading {
            totals,
            value: totals.value(),
            ..Reading::without_rows(rule, Verdict::Calm(Reason::TooFewSamples))
        }
    }

    pub(super) fn of(rule: &Rule, totals: Totals, baseline: Option<Found>) -> Reading {
        let value = totals.value();
        let (verdict, severity) = match value {
            _ if !has_enough(rule, totals.samples) => (Verdict::Calm(Reason::TooFewSamples), rule.severity),
            None => (Verdict::Calm(Reason::NoValue), rule.severity),
            Some(_) if rule.baseline.is_some() && baseline.is_none() => (Verdict::Calm(Reason::NoBaseline), rule.severity),
            Some(value) => judged(rule, value, totals, baseline),
        };
        Reading {
            totals,
            value,
            baseline,
            verdict,
            severity,
        }
    }
}

fn judged(rule: &Rule, value: f64, totals: Totals, baseline: Option<Found>) -> (Verdict, Severity) {
    let bound = |condition: &Condition| baseline::bound(rule.confidence, value, totals.samples, !condition.op.is_below());
    let is_breach = rule.conditions().all(|condition| {
        let tested = tested(condition.test, bound(condition), baseline);
        tested.is_some_and(|tested| condition.op.holds(tested, condition.value))
    });
    let severity = severity_at(rule, tested(rule.condition.test, bound(&rule.condition), baseline));
    let is_clear = !rule.clear.as_ref().and_then(|clear| clear.threshold).is_some_and(|threshold| {
        let tested = tested(rule.condition.test, value, baseline);
        tested.is_some_and(|tested| rule.condition.op.holds(tested, threshold))
    });
    let verdict = match (is_breach, has_impact(rule, totals), is_clear) {
        (true, true, _) => Verdict::Breach(Reason::Threshold),
        (_, _, false) => Verdict::Unsettled,
        (true, false, true) => Verdict::Calm(Reason::TooFewImpacted),
        (false, _, true) => Verdict::Calm(Reason::Threshold),
    };
    (verdict, severity)
}

/// The worst severity of the ladder whose threshold is met; the rule's own, which is its mildest,
/// where none is.
fn severity_at(rule: &Rule, tested: Option<f64>) -> Severity {
    let Some(tested) = tested else {
        return rule.severity;
    };
    let met = |(threshold, _): &&(f64, Severity)| rule.condition.op.holds(tested, *threshold);
    rule.ladder
        .iter()
        .filter(met)
        .map(|(_, severity)| *severity)
        .max()
        .unwrap_or(rule.severity)
}

/// False also for a sum that is no number.
fn has_enough(rule: &Rule, samples: f64) -> bool {
    samples.is_finite() && samples >= rule.min_samples
}

/// True for a rule that does not count the hit.
fn has_impact(rule: &Rule, totals: Totals) -> bool {
    let Some(least) = &rule.min_impacted else {
        return true;
    };
    totals.impacted.is_finite() && totals.impacted >= least.count && totals.impacted >= least.share * totals.samples
}

/// The number that a condition looks at; none without a baseline to look at.
fn tested(test: Test, value: f64, baseline: Option<Found>) -> Option<f64> {
    match (test, baseline) {
        (Test::Value, _) => Some(value),
        (Test::RatioToBaseline, Some(baseline)) => Some(ratio_to(value, baseline.value)),
        (Test::DiffToBaseline, Some(baseline)) => Some(value - baseline.value),
        (Test::Zscore, Some(baseline)) => baseline::zscore(value, baseline),
        (_, None) => None,
    }
}

/// value / baseline - 1. Above a baseline of 0 it is without limit, so that a fault that nobody else
/// has is seen; 0 against 0 is no number, and no breach. An `and` with an absolute floor keeps
/// trifles out.
pub(super) fn ratio_to(value: f64, baseline: f64) -> f64 {
    if baseline < 0.0 {
        return f64::NAN;
    }
    value / baseline - 1.0
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{BAD, FIRING, GOOD, NOTHING, RESOLVED, check, plain_rule, row, step, walk};
    use super::super::fixture::{EMPTY, PENDING, T0};
    use super::super::state::States;
    use super::super::window::MinuteRow;

    #[test]
    fn the_threshold_itself_is_no_breach_of_above() {
        let at = Some((50.0, 1_000.0));
        let rule = plain_rule(&[("        for: 2m\n", "")]);
        check(&rule, &[at], &[NOTHING]);
        let rule = plain_rule(&[("        for: 2m\n", ""), ("\">\"", "\">=\"")]);
        check(&rule, &[at], &[FIRING]);
    }

    #[test]
    fn small_values_may_be_the_bad_ones() {
        let rule = plain_rule(&[("        for: 2m\n", ""), ("\">\"", "\"<\"")]);
        check(&rule, &[BAD, GOOD, BAD], &[NOTHING, FIRING, RESOLVED]);
    }

    #[test]
    fn the_bound_must_clear_the_threshold() {
        let wilson = [("        for: 2m\n", ""), ("{method: none}", "{method: wilson, z: 3}")];
        let rule = plain_rule(&wilson);
        let six_percent = |n: f64| Some((0.06 * n, n));
        check(
            &rule,
            &[six_percent(100.0), six_percent(1_000.0), six_percent(10_000.0)],
            &[NOTHING, NOTHING, FIRING],
        );
    }

    #[test]
    fn nothing_to_divide_by_is_no_opinion() {
        let rule = plain_rule(&[
            ("den: clients}", "den: clients}}\n        samples: {x"),
            ("samples: {x}", "samples: clients"),
        ]);
        let mut empty = row(T0, &["tv"], 1.0, 0.0);
        empty.samples = 500.0;
        let (events, _) = step(&rule, T0, &[empty], &[], &States::default());
        assert_eq!(events, []);
        check(&rule, &[BAD, EMPTY], &[PENDING, "inactive too_few_samples 1"]);
    }

    #[test]
    fn too_few_hit_are_not_worth_a_page() {
        let rule = plain_rule(&[(
            "        for: 2m\n",
            "        min_impacted: {devices: 50, share: 2%, of: clients_with_errors}\n",
        )]);
        let hit = |impacted: f64| MinuteRow {
            impacted,
            ..row(T0, &["tv"], 60.0, 1_000.0)
        };
        let fires = |impacted: f64| step(&rule, T0, &[hit(impacted)], &[], &States::default()).0.len();
        assert_eq!([fires(49.0), fires(50.0)], [0, 1]);
        let many = MinuteRow {
            impacted: 50.0,
            ..row(T0, &["tv"], 600.0, 10_000.0)
        };
        assert_eq!(step(&rule, T0, &[many], &[], &States::default()).0, [], "50 of 10,000 are 0.5 %");
    }

    #[test]
    fn a_value_between_clear_and_threshold_begins_nothing_and_ends_nothing() {
        let rule = plain_rule(&[("for: 2m", "clear: {threshold: 3%}")]);
        let between = Some((40.0, 1_000.0));
        check(
            &rule,
            &[between, BAD, between, between, GOOD, between],
            &[NOTHING, FIRING, NOTHING, NOTHING, RESOLVED, NOTHING],
        );
    }

    #[test]
    fn a_ladder_raises_the_severity_and_says_so_once() {
        let ladder = "severity: [{threshold: 5%, severity: warning}, {threshold: 30%, severity: critical}]\n        owner: us";
        let rule = plain_rule(&[("for: 2m", ladder)]);
        let worse = Some((400.0, 1_000.0));
        let steps = walk(&rule, &[BAD, worse, BAD, worse, GOOD]);
        assert_eq!(
            steps,
            [FIRING, "firing severity_raised 2", NOTHING, NOTHING, "resolved threshold 3"],
            "it is told once that it got worse, and never that it got better while it lasts"
        );
    }
}
