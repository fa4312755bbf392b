//! What each leaf would have counted at its own usual ratio, and how far chance strays from that.
//!
//! Stands behind `rows`, before `search`. The usual ratio of a leaf is its own baseline's where that
//! is large enough to be believed, and else what its values let expect: the overall ratio times one
//! factor per value, fitted so that each value's baseline comes out right (iterative proportional
//! fitting, Deming and Stephan 1940). So a window that only has more viewers where the ratio was
//! always high has no excess, even where the single leaf is too thin to know its ratio.
//!
//! Invariant: expectations add up: that of a set is the sum over its leaves.
//! Invariant: never a division by zero, never less than no expectation.

use super::rows::Leaves;
use super::{Kind, Search};

/// Samples of the baseline that weigh as much as what a leaf's values let expect (alerts spec 3.4,
/// k0): below fifty samples a ratio of some percent is mostly chance.
const PRIOR_SAMPLES: f64 = 50.0;
/// Rounds of fitting. The first is exact where dimensions are independent or one implies the other
/// (a POP has one CDN); the second puts right what they share. A third moves less than chance does.
const FIT_ROUNDS: usize = 2;
/// What a baseline without a single failure is taken to have had: half of one (Jeffreys).
const UNSEEN: f64 = 0.5;
/// Spread of one sample of a mean, in units of the mean: first-byte times have 0.5 to 2 (alerts
/// spec 1.3). Where samples spread more, the search sees it in what its causes leave.
const SPREAD_OF_MEANS: f64 = 1.5;

/// Sums over a set of leaves.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Sums {
    pub num: f64,
    pub den: f64,
    pub samples: f64,
    pub base_num: f64,
    pub base_den: f64,
    pub expected: f64,
    /// Variance of `num` by chance, were the usual ratio known exactly.
    pub variance: f64,
}

impl Sums {
    pub fn add(&mut self, other: &Sums) {
        self.num += other.num;
        self.den += other.den;
        self.samples += other.samples;
        self.base_num += other.base_num;
        self.base_den += other.base_den;
        self.expected += other.expected;
        self.variance += other.variance;
    }

    pub fn without(&self, other: &Sums) -> Sums {
        Sums {
            num: self.num - other.num,
            den: self.den - other.den,
            samples: self.samples - other.samples,
            base_num: self.base_num - other.base_num,
            base_den: self.base_den - other.base_den,
            expected: self.expected - other.expected,
            variance: self.variance - other.variance,
        }
    }
}

/// Every leaf with its expectation.
#[derive(Debug)]
pub(super) struct Expected {
    pub sums: Vec<Sums>,
    /// The variance that one sample adds at least: nothing is certain for one failure.
    pub unit_variance: f64,
    /// Denominator of `PRIOR_SAMPLES`.
    pub prior_den: f64,
}

/// None where the baseline holds nothing: no usual ratio is known.
pub(super) fn expected(leaves: &Leaves, search: &Search) -> Option<Expected> {
    let mut total = Sums::default();
    for counts in &leaves.counts {
        total.num += counts.num;
        total.den += counts.den;
        total.samples += counts.samples;
        total.base_num += counts.base_num;
        total.base_den += counts.base_den;
    }
    if total.base_den <= 0.0 {
        return None;
    }
    let den_per_sample = if total.samples > 0.0 { total.den / total.samples } else { 1.0 };
    let prior_den = PRIOR_SAMPLES
        * if search.kind == Kind::Share || den_per_sample <= 0.0 {
            1.0
        } else {
            den_per_sample
        };
    let ratios = fitted(leaves, &total, prior_den);
    let mut sums = Vec::with_capacity(leaves.len());
    let mut expected = 0.0;
    for (counts, fitted) in leaves.counts.iter().zip(ratios) {
        let ratio = ((counts.base_num + prior_den * fitted) / (counts.base_den + prior_den)).max(0.0);
        let leaf = Sums {
            num: counts.num,
            den: counts.den,
            samples: if search.kind == Kind::Share { counts.den } else { counts.samples },
            base_num: counts.base_num,
            base_den: counts.base_den,
            expected: ratio * counts.den,
            variance: variance(search.kind, ratio, counts.den, counts.samples),
        };
        expected += leaf.expected;
        sums.push(leaf);
    }
    let per_sample = if total.samples > 0.0 { expected / total.samples } else { 0.0 };
    let unit_variance = match search.kind {
        Kind::Share => 1.0,
        Kind::Mean => (SPREAD_OF_MEANS * per_sample).powi(2),
    };
    Some(Expected {
        sums,
        unit_variance,
        prior_den,
    })
}

fn variance(kind: Kind, ratio: f64, den: f64, samples: f64) -> f64 {
    match kind {
        Kind::Share => den * ratio * (1.0 - ratio.min(1.0)),
        Kind::Mean if samples > 0.0 => (SPREAD_OF_MEANS * ratio * den).powi(2) / samples,
        Kind::Mean => 0.0,
    }
}

/// What each leaf's values let expect of its ratio. One pass over the leaves per dimension: it takes
/// over the factors of the dimension before and predicts this one.
fn fitted(leaves: &Leaves, total: &Sums, prior_den: f64) -> Vec<f64> {
    let overall = if total.base_num > 0.0 { total.base_num } else { UNSEEN } / total.base_den;
    let base_dens: Vec<f64> = leaves.counts.iter().map(|counts| counts.base_den).collect();
    let seen: Vec<Vec<(f64, f64)>> = leaves.by_value(|(num, den), leaf| {
        *num += leaves.counts[leaf].base_num;
        *den += leaves.counts[leaf].base_den;
    });
    let mut ratios = vec![overall; leaves.len()];
    let mut before = &leaves.columns[0];
    let mut factors = vec![1.0; leaves.texts[0].len()];
    for _ in 0..FIT_ROUNDS {
        for (column, seen) in leaves.columns.iter().zip(&seen) {
            let mut predicted = vec![0.0; seen.len()];
            for (((ratio, last), value), base_den) in ratios.iter_mut().zip(before).zip(column).zip(&base_dens) {
                *ratio *= factors[*last as usize];
                predicted[*value as usize] += base_den * *ratio;
            }
            factors = seen
                .iter()
                .zip(predicted)
                .map(|(seen, predicted)| factor(*seen, predicted, prior_den))
                .collect();
            before = column;
        }
    }
    for (ratio, last) in ratios.iter_mut().zip(before) {
        *ratio *= factors[*last as usize];
    }
    ratios
}

/// By how much a value's baseline differs from the prediction, drawn to 1 where it is thin.
fn factor((num, den): (f64, f64), predicted: f64, prior_den: f64) -> f64 {
    if predicted <= 0.0 || den <= 0.0 {
        return 1.0;
    }
    let prior = prior_den * predicted / den;
    ((num + prior) / (predicted + prior)).max(0.0)
}
