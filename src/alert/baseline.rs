//! Baselines: what a value is compared with, and how sure the value itself is.
//!
//! Stands under `alert::evaluate`, which hands in pooled groups and history.
//!
//! A baseline is a pooled share or mean: numerators and denominators are added up and divided once,
//! never an average of averages (alerts spec 4.2).
//!
//! - `same_slot`: the same slot of the day on earlier days. Too few days with data: no baseline.
//! - `peers`: all siblings in the same window that agree on the `within` dimensions and differ in
//!   `over`; the group itself, and all else of its own `over` value, is left out. Too few distinct
//!   siblings: no baseline. An unknown (null) value of `over` is a sibling like any other.
//!
//! Invariant: the order of rows changes nothing, not even the last bit of a sum.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{Baseline, Confidence, Rule, slot_of};
use super::{Dims, SlotRow, Totals};

/// A baseline of one group: the number, and how many days or peers it rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    pub value: f64,
    pub points: usize,
}

/// The baseline of each group that has one.
pub(super) fn of(rule: &Rule, window_end_ms: i64, groups: &BTreeMap<Dims, Totals>, history: &[SlotRow]) -> BTreeMap<Dims, Found> {
    match &rule.baseline {
        None => BTreeMap::new(),
        Some(Baseline::SameSlot {
            slot_ms,
            lookback_days,
            min_history_days,
        }) => {
            let (today, slot) = slot_of(window_end_ms, *slot_ms);
            let days = today.saturating_sub(*lookback_days)..today;
            let is_meant = |row: &&SlotRow| days.contains(&i64::from(row.day)) && i64::from(row.slot) == slot;
            let least = usize::try_from(*min_history_days).unwrap_or(usize::MAX);
            same_slot(history.iter().filter(is_meant), least)
        }
        Some(Baseline::Peers { over, within, min_peers }) => peers(groups, *over, within, *min_peers),
    }
}

fn same_slot<'h>(rows: impl Iterator<Item = &'h SlotRow>, min_history_days: usize) -> BTreeMap<Dims, Found> {
    let mut days: BTreeMap<Dims, BTreeSet<i32>> = BTreeMap::new();
    let mut parts: BTreeMap<Dims, Vec<Totals>> = BTreeMap::new();
    for row in rows {
        let totals = Totals {
            num: row.num,
            den: row.den,
            samples: row.samples,
        };
        if totals.value().is_none() {
            continue;
        }
        days.entry(row.dims.clone()).or_default().insert(row.day);
        parts.entry(row.dims.clone()).or_default().push(totals);
    }
    let mut found = BTreeMap::new();
    for (dims, parts) in parts {
        let points = days.get(&dims).map_or(0, BTreeSet::len);
        let value = Totals::sum(parts).value();
        if let Some(value) = value.filter(|_| points >= min_history_days) {
            found.insert(dims, Found { value, points });
        }
    }
    found
}

fn peers(groups: &BTreeMap<Dims, Totals>, over: usize, within: &[usize], min_peers: usize) -> BTreeMap<Dims, Found> {
    let key = |dims: &Dims| -> Dims { within.iter().map(|index| dims.get(*index).cloned().flatten()).collect() };
    let name = |dims: &Dims| dims.get(over).cloned().flatten();
    let mut pools: BTreeMap<Dims, BTreeMap<Option<String>, Vec<Totals>>> = BTreeMap::new();
    for (dims, totals) in groups.iter().filter(|(_, totals)| totals.value().is_some()) {
        let pool = pools.entry(key(dims)).or_default();
        pool.entry(name(dims)).or_default().push(*totals);
    }
    let pools: BTreeMap<Dims, Pool> = pools.into_iter().map(|(key, pool)| (key, Pool::new(pool))).collect();
    let mut found = BTreeMap::new();
    for dims in groups.keys() {
        let baseline = pools
            .get(&key(dims))
            .and_then(|pool| pool.without(&name(dims)))
            .filter(|baseline| baseline.points >= min_peers);
        if let Some(baseline) = baseline {
            found.insert(dims.clone(), baseline);
        }
    }
    found
}

/// Siblings in order, with the sums before and after each: leaving one out is one addition, without
/// the rounding of a subtraction and without a pass over all others.
struct Pool {
    names: Vec<Option<String>>,
    /// Sum of the siblings before each index, and of all at the end.
    before: Vec<Totals>,
    /// Sum of the siblings from each index on, and nothing at the end.
    from: Vec<Totals>,
}

impl Pool {
    fn new(siblings: BTreeMap<Option<String>, Vec<Totals>>) -> Pool {
        let mut names = Vec::new();
        let mut sums = Vec::new();
        for (name, parts) in siblings {
            names.push(name);
            sums.push(Totals::sum(parts));
        }
        let mut before = vec![Totals::default()];
        let mut running = Totals::default();
        for sum in &sums {
            running = running.plus(*sum);
            before.push(running);
        }
        let mut from = vec![Totals::default()];
        let mut running = Totals::default();
        for sum in sums.iter().rev() {
            running = sum.plus(running);
            from.push(running);
        }
        from.reverse();
        Pool { names, before, from }
    }

    /// What the siblings other than `name` make together.
    fn without(&self, name: &Option<String>) -> Option<Found> {
        let (others, points) = match self.names.binary_search(name) {
            Ok(index) => (self.before[index].plus(self.from[index + 1]), self.names.len() - 1),
            Err(_) => (self.from[0], self.names.len()),
        };
        let value = others.value()?;
        Some(Found { value, points })
    }
}

/// The end of the confidence interval that a breach must clear: the lower one where large values
/// are bad, the upper one where small values are. The baseline counts as exact.
///
/// A share outside 0 to 1 (a numerator that does not count a part) is bounded as 0 or 1.
pub(super) fn bound(confidence: Confidence, value: f64, samples: f64, is_lower: bool) -> f64 {
    let share = value.clamp(0.0, 1.0);
    let sign = if is_lower { -1.0 } else { 1.0 };
    match confidence {
        Confidence::None => value,
        Confidence::Wilson { z } => wilson(share, samples, sign * z),
        Confidence::Normal { z } => share + sign * z * (share * (1.0 - share) / samples).sqrt(),
    }
}

/// Wilson's score bound of a share among n; a negative z gives the lower one (Wilson 1927).
fn wilson(share: f64, n: f64, z: f64) -> f64 {
    let z2 = z * z;
    let centre = share + z2 / (2.0 * n);
    let spread = (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    (centre + z * spread) / (1.0 + z2 / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chance that a binomial(n, p) gives a k for which `breaches` holds.
    fn chance(n: u32, p: f64, breaches: impl Fn(f64) -> bool) -> f64 {
        let mut log_choose = 0.0f64;
        let mut sum = 0.0;
        for k in 0..=n {
            if k > 0 {
                log_choose += f64::from(n - k + 1).ln() - f64::from(k).ln();
            }
            if breaches(f64::from(k) / f64::from(n)) {
                let log = log_choose + f64::from(k) * p.ln() + f64::from(n - k) * (1.0 - p).ln();
                sum += log.exp();
            }
        }
        sum
    }

    fn breaches_at_5_percent(n: u32, confidence: Confidence) -> impl Fn(f64) -> bool {
        move |share| bound(confidence, share, f64::from(n), true) > 0.05
    }

    #[track_caller]
    fn check_close(found: f64, expected: f64) {
        let off = (found / expected - 1.0).abs();
        assert!(off < 0.05, "{found} is not {expected}");
    }

    /// Alerts spec 1.3: a healthy group of 3 % under the rule "> 5 %".
    #[test]
    fn false_alarms_are_as_rare_as_the_table_says() {
        let cases = [
            (25, 0.17, 0.0008),
            (100, 0.081, 0.00005),
            (500, 0.0055, 3e-8),
            (1_000, 0.00024, 6e-11),
        ];
        for (n, raw, wilson) in cases {
            let raw_found = chance(n, 0.03, breaches_at_5_percent(n, Confidence::None));
            check_close(raw_found, raw);
            let z3 = Confidence::Wilson { z: 3.0 };
            let found = chance(n, 0.03, breaches_at_5_percent(n, z3));
            assert!(
                found < wilson * 1.35 && found > wilson * 0.65,
                "n={n}: {found} is not near {wilson}"
            );
        }
    }

    /// Alerts spec 1.3: power of the bound at a true 10 %.
    #[test]
    fn a_true_breach_is_still_found() {
        for (n, power) in [(25, 0.10), (100, 0.30), (500, 0.94), (1_000, 1.0)] {
            let z3 = Confidence::Wilson { z: 3.0 };
            check_close(chance(n, 0.10, breaches_at_5_percent(n, z3)), power);
        }
    }

    #[test]
    fn a_share_above_one_is_bounded_as_one() {
        let z3 = Confidence::Wilson { z: 3.0 };
        assert_eq!(bound(z3, 1.7, 100.0, true), bound(z3, 1.0, 100.0, true));
        assert_eq!(bound(Confidence::None, 1.7, 100.0, true), 1.7);
    }

    #[test]
    fn the_upper_bound_mirrors_the_lower_one() {
        for confidence in [Confidence::Wilson { z: 3.0 }, Confidence::Normal { z: 3.0 }] {
            let lower = bound(confidence, 0.2, 400.0, true);
            let upper = bound(confidence, 0.8, 400.0, false);
            assert!((lower + upper - 1.0).abs() < 1e-12, "{lower} {upper}");
        }
    }

    fn dims(isp: &str, country: &str) -> Dims {
        vec![Some(isp.to_owned()), Some(country.to_owned())]
    }

    fn totals(num: f64, den: f64) -> Totals {
        Totals { num, den, samples: den }
    }

    #[test]
    fn peers_pool_all_siblings_but_the_group_itself() {
        let groups = BTreeMap::from([
            (dims("a", "ES"), totals(90.0, 100.0)),
            (dims("b", "ES"), totals(1.0, 100.0)),
            (dims("c", "ES"), totals(2.0, 300.0)),
            (dims("d", "ES"), totals(0.0, 100.0)),
            (dims("a", "FR"), totals(50.0, 100.0)),
        ]);
        let found = peers(&groups, 0, &[1], 3);
        assert_eq!(
            found.get(&dims("a", "ES")),
            Some(&Found {
                value: 3.0 / 500.0,
                points: 3
            })
        );
        assert_eq!(found.get(&dims("b", "ES")).map(|found| found.value), Some(92.0 / 500.0));
        assert_eq!(found.get(&dims("a", "FR")), None, "it has no peers");
        assert_eq!(peers(&groups, 0, &[1], 4), BTreeMap::new());
    }

    #[test]
    fn a_sibling_without_a_value_is_no_peer() {
        let groups = BTreeMap::from([(dims("a", "ES"), totals(1.0, 100.0)), (dims("b", "ES"), totals(0.0, 0.0))]);
        assert_eq!(peers(&groups, 0, &[1], 1).get(&dims("a", "ES")), None);
        let of_b = peers(&groups, 0, &[1], 1).get(&dims("b", "ES")).copied();
        assert_eq!(of_b.map(|found| found.points), Some(1));
    }

    fn slot_row(day: i32, num: f64, den: f64) -> SlotRow {
        SlotRow {
            day,
            slot: 20,
            dims: dims("a", "ES"),
            num,
            den,
            samples: den,
        }
    }

    #[test]
    fn same_slot_divides_once_and_wants_enough_days() {
        let rows = [slot_row(1, 100.0, 1.0), slot_row(2, 900.0, 9.0), slot_row(3, 2_000.0, 10.0)];
        let found = same_slot(rows.iter(), 3);
        let expected = Found { value: 150.0, points: 3 };
        assert_eq!(found.get(&dims("a", "ES")), Some(&expected));
        assert_eq!(same_slot(rows.iter(), 4), BTreeMap::new());
    }

    #[test]
    fn a_day_without_data_is_no_day_of_history() {
        let rows = [slot_row(1, 100.0, 1.0), slot_row(2, 0.0, 0.0), slot_row(2, f64::NAN, 4.0)];
        assert_eq!(same_slot(rows.iter(), 2), BTreeMap::new());
        assert_eq!(same_slot(rows.iter(), 1).len(), 1);
    }
}
