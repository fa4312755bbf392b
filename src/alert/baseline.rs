//! Baselines: what a value is compared with, and how sure the value itself is.
//!
//! Stands under `alert::evaluate`, which hands in pooled groups and history.
//!
//! Unless a rule asks for the median, a baseline is a pooled share or mean: numerators and
//! denominators are added up and divided once, never an average of averages (alerts spec 4.2).
//!
//! - `same_slot`, `same_slot_weekly`: the same slot of the day on earlier days, or on the same
//!   weekday of earlier weeks. `trailing`, `ewma`: the slots just before the window.
//! - `peers`: the siblings in the same window. `fixed`: a number.
//!
//! Too little history, or too few peers: no baseline, and the rule says so (`no_baseline`).
//!
//! Invariant: the order of rows changes nothing, not even the last bit of a sum.
//! Invariant: nothing is divided by a spread of 0.

mod confidence;
mod history;
mod peers;

use std::collections::BTreeMap;

pub use history::{FiringSpans, firing_spans, usable};

pub(super) use confidence::bound;

use super::rule::{Baseline, Rule};
use super::window::{Dims, SlotRow, Totals};

/// Least spread as a share of the baseline: a history without any variation is luck, and a
/// thousandth above it no sensation.
const LEAST_SPREAD: f64 = 0.01;

/// The median absolute deviation of normal noise, times this, is its standard deviation.
const MAD_TO_SIGMA: f64 = 1.4826;

/// A baseline of one group: the number, how many days, slots or peers it rests on, and how far those
/// lie apart (none for fewer than two).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    pub(super) value: f64,
    pub(super) points: usize,
    pub(super) spread: Option<f64>,
}

/// The baseline of each group that has one.
pub(super) fn of(rule: &Rule, window_end_ms: i64, groups: &BTreeMap<Dims, Totals>, history: &[SlotRow]) -> BTreeMap<Dims, Found> {
    match &rule.baseline {
        None => BTreeMap::new(),
        Some(Baseline::Fixed { value }) => {
            let found = Found {
                value: *value,
                points: 1,
                spread: None,
            };
            groups.keys().map(|dims| (dims.clone(), found)).collect()
        }
        Some(Baseline::Peers(peers)) => peers::of(groups, peers),
        Some(Baseline::History(wanted)) => history::of(wanted, window_end_ms, rule.window_ms, history),
    }
}

/// Spreads from the baseline. None where the spread is not known; a spread next to nothing counts as
/// a hundredth of the baseline.
pub(super) fn zscore(value: f64, found: Found) -> Option<f64> {
    let spread = found.spread?.max(LEAST_SPREAD * found.value.abs());
    let score = (value - found.value) / spread;
    (spread > 0.0 && score.is_finite()).then_some(score)
}

/// Standard deviation of a sample (n - 1), by Welford's updating, which does not cancel.
fn deviation(values: &[f64]) -> Option<f64> {
    let (mut mean, mut squares) = (0.0, 0.0);
    for (index, value) in values.iter().enumerate() {
        let off = value - mean;
        mean += off / (index as f64 + 1.0);
        squares += off * (value - mean);
    }
    (values.len() > 1).then(|| (squares / (values.len() as f64 - 1.0)).sqrt())
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        even if even % 2 == 0 => Some(sorted[middle - 1] / 2.0 + sorted[middle] / 2.0),
        _ => Some(sorted[middle]),
    }
}

/// 1.4826 times the median distance from the median.
fn median_spread(values: &[f64]) -> Option<f64> {
    let centre = median(values)?;
    let distances: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    let spread = median(&distances)? * MAD_TO_SIGMA;
    (values.len() > 1).then_some(spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_never_divided_by_nothing() {
        let found = |value: f64, spread: Option<f64>| Found { value, points: 5, spread };
        assert_eq!(zscore(130.0, found(100.0, Some(10.0))), Some(3.0));
        assert_eq!(zscore(103.0, found(100.0, Some(0.0))), Some(3.0), "a hundredth at least");
        assert_eq!(zscore(1.0, found(0.0, Some(0.0))), None);
        assert_eq!(zscore(1.0, found(0.5, None)), None);
        assert_eq!(zscore(f64::MAX, found(-f64::MAX, Some(1.0))), None);
    }

    #[test]
    fn the_middle_and_the_spread_do_not_mind_one_bad_day() {
        let days = [10.0, 11.0, 9.0, 10.0, 500.0];
        assert_eq!(median(&days), Some(10.0));
        assert_eq!(median_spread(&days), Some(MAD_TO_SIGMA));
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[]), None);
        assert_eq!(median_spread(&[1.0]), None);
        assert_eq!(deviation(&[1.0]), None);
        assert_eq!(deviation(&[2.0, 4.0, 6.0]), Some(2.0));
    }
}
