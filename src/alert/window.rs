//! Rows of gold, and the groups that a window makes of them.
//!
//! Stands before `evaluate`: minute rows in, sums by group out.
//!
//! Invariant: the order of rows changes nothing, not even the last bit of a sum.
//! Invariant: a window is evaluated for the `GROUPS_MAX` groups with the most samples, and no more.

use std::collections::BTreeMap;

use super::rule::Rule;

/// Groups of one rule in one window. Each can become a transition, and so a row and a message: a
/// dimension that somebody floods with names must not make a million of them. Ten thousand are more
/// than anyone can be told of, and seldom are as many large enough to be believed.
pub(super) const GROUPS_MAX: usize = 10_000;

/// Values of the dimensions in the order of the rule's `group_by`; `None` is unknown.
pub type Dims = Vec<Option<String>>;

/// One minute of one group, as the texts of `Rule::queries` return it. Of a rule whose value cannot
/// be added up over minutes (`Rule::is_per_window`) it is one whole window under its last minute.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MinuteRow {
    /// Start of the minute (`window_start`), epoch ms.
    pub minute_ms: i64,
    pub dims: Dims,
    pub num: f64,
    pub den: f64,
    pub samples: f64,
    /// How many are hit; 0 where the rule does not count them.
    pub impacted: f64,
}

/// One slot of one day of one group, as `Rule::history_sql` returns it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SlotRow {
    /// Days since 1970-01-01, UTC.
    pub day: i32,
    /// Number of the slot in its day, from 0.
    pub slot: i32,
    pub dims: Dims,
    pub num: f64,
    pub den: f64,
    pub samples: f64,
}

/// Sums of a group over a window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Totals {
    pub num: f64,
    pub den: f64,
    pub samples: f64,
    pub impacted: f64,
}

impl Totals {
    /// Adds up in an order that does not depend on the order given.
    pub(super) fn sum(mut parts: Vec<Totals>) -> Totals {
        parts.sort_by(|a, b| {
            a.num
                .total_cmp(&b.num)
                .then(a.den.total_cmp(&b.den))
                .then(a.samples.total_cmp(&b.samples))
                .then(a.impacted.total_cmp(&b.impacted))
        });
        parts.into_iter().fold(Totals::default(), Totals::plus)
    }

    pub(super) fn plus(self, other: Totals) -> Totals {
        Totals {
            num: self.num + other.num,
            den: self.den + other.den,
            samples: self.samples + other.samples,
            impacted: self.impacted + other.impacted,
        }
    }

    /// num / den, unless there is nothing to divide by.
    pub(super) fn value(self) -> Option<f64> {
        let is_defined = self.num.is_finite() && self.den.is_finite() && self.den > 0.0;
        is_defined.then(|| self.num / self.den).filter(|value| value.is_finite())
    }
}

impl From<&SlotRow> for Totals {
    fn from(row: &SlotRow) -> Totals {
        Totals {
            num: row.num,
            den: row.den,
            samples: row.samples,
            impacted: 0.0,
        }
    }
}

/// The groups that have rows in the window that ends at `window_end_ms`.
pub(super) fn pooled(rule: &Rule, window_end_ms: i64, rows: &[MinuteRow]) -> BTreeMap<Dims, Totals> {
    let window = window_end_ms.saturating_sub(rule.pooled_ms())..window_end_ms;
    let mut parts: BTreeMap<&Dims, Vec<Totals>> = BTreeMap::new();
    for row in rows {
        if window.contains(&row.minute_ms) && row.dims.len() == rule.group_by.len() {
            parts.entry(&row.dims).or_default().push(Totals {
                num: row.num,
                den: row.den,
                samples: row.samples,
                impacted: row.impacted,
            });
        }
    }
    parts.into_iter().map(|(dims, parts)| (dims.clone(), Totals::sum(parts))).collect()
}

/// The groups to evaluate, and those left out: the largest first, equal ones in order of their
/// dimensions. Samples that are no number count as none.
pub(super) fn largest(groups: BTreeMap<Dims, Totals>) -> (BTreeMap<Dims, Totals>, BTreeMap<Dims, Totals>) {
    if groups.len() <= GROUPS_MAX {
        return (groups, BTreeMap::new());
    }
    let size = |totals: &Totals| if totals.samples.is_finite() { totals.samples } else { 0.0 };
    let mut ranked: Vec<(Dims, Totals)> = groups.into_iter().collect();
    // The sort is stable, so equal groups stay in the order of the map.
    ranked.sort_by(|(_, a), (_, b)| size(b).total_cmp(&size(a)));
    let left_out = ranked.split_off(GROUPS_MAX);
    (ranked.into_iter().collect(), left_out.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::super::MINUTE_MS;
    use super::super::fixture::{T0, plain_rule, row, step};
    use super::super::state::States;
    use super::super::transition::{Reason, Status};
    use super::*;

    #[test]
    fn a_window_pools_its_minutes_and_no_others() {
        let rule = plain_rule(&[("        for: 2m\n", ""), ("window: 1m", "window: 5m")]);
        let end_ms = T0 + 5 * MINUTE_MS;
        let minute = |back: i64, num: f64| row(end_ms - back * MINUTE_MS, &["tv"], num, 1_000.0);
        let fires = |rows: &[MinuteRow]| {
            let (events, _) = step(&rule, end_ms, rows, &[], &States::default());
            events.first().map(|event| (event.value, event.samples))
        };
        let inside = [minute(0, 0.0), minute(4, 110.0)];
        assert_eq!(fires(&inside), Some((Some(0.055), 2_000.0)));
        let outside = [minute(0, 0.0), minute(5, 999.0), minute(-1, 999.0)];
        assert_eq!(fires(&outside), None);
    }

    /// One group more than the bound: all of 200 samples but these. Exactly one is left out.
    #[track_caller]
    fn check_left_out(others: &[(&str, f64)], expected: &str) {
        let group = |name: &str, samples: f64| {
            let totals = Totals {
                den: samples,
                samples,
                ..Totals::default()
            };
            (vec![Some(name.to_owned())], totals)
        };
        let crowd = (others.len()..=GROUPS_MAX).map(|n| group(&format!("crowd-{n:05}"), 200.0));
        let groups = crowd.chain(others.iter().map(|(name, samples)| group(name, *samples))).collect();
        let (kept, left_out) = largest(groups);
        assert_eq!(kept.len(), GROUPS_MAX);
        let names: Vec<_> = left_out.into_keys().flatten().flatten().collect();
        assert_eq!(names, [expected]);
    }

    #[test]
    fn of_too_many_groups_the_largest_are_evaluated() {
        check_left_out(&[("a", 199.0)], "a");
        check_left_out(&[("a", 201.0)], "crowd-10000");
        check_left_out(&[("a", 200.0), ("z", 200.0)], "z");
        check_left_out(&[("a", 1.0), ("z", 2.0)], "a");
        check_left_out(&[("a", f64::NAN), ("z", 1.0)], "a");
        check_left_out(&[("a", f64::INFINITY), ("z", 1.0)], "a");
    }

    #[test]
    fn an_alert_of_a_group_beyond_the_bound_ends_with_its_value() {
        let rule = plain_rule(&[("        for: 2m\n", "")]);
        let tv = |end_ms: i64| row(end_ms, &["tv"], 60.0, 150.0);
        let (_, states) = step(&rule, T0, &[tv(T0)], &[], &States::default());
        let later = T0 + MINUTE_MS;
        let crowd = (0..GROUPS_MAX).map(|n| row(later, &[&format!("crowd-{n}")], 0.0, 200.0));
        let rows: Vec<MinuteRow> = crowd.chain([tv(later)]).collect();
        let (events, _) = step(&rule, later, &rows, &[], &states);
        let told: Vec<_> = events.iter().map(|e| (e.status, e.reason, e.value)).collect();
        assert_eq!(told, [(Status::Resolved, Reason::TooFewSamples, Some(0.4))]);
        let (events, _) = step(&rule, later, &rows[1..], &[], &states);
        assert_eq!(events, [], "at the bound all groups are evaluated");
    }
}
