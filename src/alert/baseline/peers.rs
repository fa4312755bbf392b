//! The `peers` baseline: the siblings of a group in the same window.
//!
//! Siblings agree on the `within` dimensions and differ in `over`. By default the group itself, and
//! all else of its own `over` value, is left out. An unknown (null) value of `over` is a sibling like
//! any other. Fewer distinct siblings than `min_peers`: no baseline.
//!
//! Invariant: leaving one out costs one addition, not a pass over all others.

use std::collections::BTreeMap;

use super::super::rule::{PeerWeight, Peers};
use super::super::window::{Dims, Totals};
use super::Found;

pub(super) fn of(groups: &BTreeMap<Dims, Totals>, peers: &Peers) -> BTreeMap<Dims, Found> {
    let key = |dims: &Dims| -> Dims { peers.within.iter().map(|index| dims.get(*index).cloned().flatten()).collect() };
    let name = |dims: &Dims| dims.get(peers.over).cloned().flatten();
    let mut pools: BTreeMap<Dims, BTreeMap<Option<String>, Vec<Totals>>> = BTreeMap::new();
    for (dims, totals) in groups.iter().filter(|(_, totals)| totals.value().is_some()) {
        let pool = pools.entry(key(dims)).or_default();
        pool.entry(name(dims)).or_default().push(*totals);
    }
    let pools: BTreeMap<Dims, Pool> = pools.into_iter().map(|(key, pool)| (key, Pool::new(pool, peers.weight))).collect();
    let mut found = BTreeMap::new();
    for dims in groups.keys() {
        let left_out = peers.leave_one_out.then(|| name(dims));
        let baseline = pools
            .get(&key(dims))
            .and_then(|pool| pool.without(left_out.as_ref()))
            .filter(|baseline| baseline.points >= peers.min_peers);
        if let Some(baseline) = baseline {
            found.insert(dims.clone(), baseline);
        }
    }
    found
}

/// What siblings add up to, weighted, and the moments of their values for the spread.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    weighted: Totals,
    /// Values and their squares, less `centre` of the pool, so that nearly equal values do not cancel.
    values: f64,
    squares: f64,
}

impl Sum {
    fn of(totals: Totals, weight: PeerWeight, centre: f64) -> Sum {
        let value = totals.value().unwrap_or(centre);
        let weighted = |by: f64| Totals {
            num: value * by,
            den: by,
            ..totals
        };
        let off = value - centre;
        Sum {
            weighted: match weight {
                PeerWeight::Denominator => totals,
                PeerWeight::Samples => weighted(totals.samples),
                PeerWeight::Equal => weighted(1.0),
            },
            values: off,
            squares: off * off,
        }
    }

    fn plus(self, other: Sum) -> Sum {
        Sum {
            weighted: self.weighted.plus(other.weighted),
            values: self.values + other.values,
            squares: self.squares + other.squares,
        }
    }

    fn found(self, points: usize) -> Option<Found> {
        let value = self.weighted.value()?;
        let n = points as f64;
        let variance = (self.squares - self.values * self.values / n) / (n - 1.0);
        let spread = (points > 1).then(|| variance.max(0.0).sqrt());
        Some(Found { value, points, spread })
    }
}

/// Siblings in order, with the sums before and after each: leaving one out is one addition, without
/// the rounding of a subtraction and without a pass over all others.
struct Pool {
    names: Vec<Option<String>>,
    /// Sum of the siblings before each index, and of all at the end.
    before: Vec<Sum>,
    /// Sum of the siblings from each index on, and nothing at the end.
    from: Vec<Sum>,
}

impl Pool {
    fn new(siblings: BTreeMap<Option<String>, Vec<Totals>>, weight: PeerWeight) -> Pool {
        let mut names = Vec::new();
        let mut totals = Vec::new();
        for (name, parts) in siblings {
            names.push(name);
            totals.push(Totals::sum(parts));
        }
        let centre = totals.first().and_then(|totals| totals.value()).unwrap_or(0.0);
        let sums: Vec<Sum> = totals.into_iter().map(|totals| Sum::of(totals, weight, centre)).collect();
        let mut before = vec![Sum::default()];
        let mut running = Sum::default();
        for sum in &sums {
            running = running.plus(*sum);
            before.push(running);
        }
        let mut from = vec![Sum::default()];
        let mut running = Sum::default();
        for sum in sums.iter().rev() {
            running = sum.plus(running);
            from.push(running);
        }
        from.reverse();
        Pool { names, before, from }
    }

    /// What the siblings other than `name` make together; all of them without a name.
    fn without(&self, name: Option<&Option<String>>) -> Option<Found> {
        let index = name.and_then(|name| self.names.binary_search(name).ok());
        match index {
            Some(index) => self.before[index].plus(self.from[index + 1]).found(self.names.len() - 1),
            None => self.from[0].found(self.names.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(isp: &str, country: &str) -> Dims {
        vec![Some(isp.to_owned()), Some(country.to_owned())]
    }

    fn totals(num: f64, den: f64) -> Totals {
        Totals {
            num,
            den,
            samples: den,
            impacted: 0.0,
        }
    }

    fn of_isps(min_peers: usize) -> Peers {
        Peers {
            over: 0,
            within: vec![1],
            min_peers,
            leave_one_out: true,
            weight: PeerWeight::Denominator,
        }
    }

    fn four() -> BTreeMap<Dims, Totals> {
        BTreeMap::from([
            (dims("a", "ES"), totals(90.0, 100.0)),
            (dims("b", "ES"), totals(1.0, 100.0)),
            (dims("c", "ES"), totals(2.0, 300.0)),
            (dims("d", "ES"), totals(0.0, 100.0)),
            (dims("a", "FR"), totals(50.0, 100.0)),
        ])
    }

    fn value_of(found: &BTreeMap<Dims, Found>, isp: &str, country: &str) -> Option<(f64, usize)> {
        found.get(&dims(isp, country)).map(|found| (found.value, found.points))
    }

    #[test]
    fn peers_pool_all_siblings_but_the_group_itself() {
        let found = of(&four(), &of_isps(3));
        assert_eq!(value_of(&found, "a", "ES"), Some((3.0 / 500.0, 3)));
        assert_eq!(value_of(&found, "b", "ES"), Some((92.0 / 500.0, 3)));
        assert_eq!(value_of(&found, "a", "FR"), None, "it has no peers");
        assert_eq!(of(&four(), &of_isps(4)), BTreeMap::new());
    }

    #[test]
    fn peers_may_count_alike_and_may_include_the_group() {
        let alike = Peers {
            weight: PeerWeight::Equal,
            ..of_isps(3)
        };
        let (value, _) = value_of(&of(&four(), &alike), "a", "ES").unwrap();
        assert!((value - (0.01 + 2.0 / 300.0) / 3.0).abs() < 1e-15, "{value}");
        let all = Peers {
            leave_one_out: false,
            ..of_isps(4)
        };
        assert_eq!(value_of(&of(&four(), &all), "a", "ES"), Some((93.0 / 600.0, 4)));
    }

    #[test]
    fn the_spread_of_peers_is_that_of_their_values() {
        let groups: BTreeMap<Dims, Totals> = [("a", 9.0), ("b", 2.0), ("c", 4.0), ("d", 6.0)]
            .iter()
            .map(|(isp, num)| (dims(isp, "ES"), totals(*num, 1.0)))
            .collect();
        let spread = of(&groups, &of_isps(3))[&dims("a", "ES")].spread.unwrap();
        assert!((spread - 2.0).abs() < 1e-12, "{spread}");
    }

    #[test]
    fn a_sibling_without_a_value_is_no_peer() {
        let groups = BTreeMap::from([(dims("a", "ES"), totals(1.0, 100.0)), (dims("b", "ES"), totals(0.0, 0.0))]);
        let found = of(&groups, &of_isps(1));
        assert_eq!(value_of(&found, "a", "ES"), None);
        assert_eq!(value_of(&found, "b", "ES"), Some((0.01, 1)));
    }
}
