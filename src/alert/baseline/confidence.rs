//! How sure a value is: the end of its confidence interval that a breach must clear.
//!
//! Stands under the reading of a group (alerts spec 1.3 has the figures).
//!
//! Invariant: a wider bound never makes a breach.

use super::super::rule::Confidence;

/// The end of the confidence interval that a breach must clear: the lower one where large values
/// are bad, the upper one where small values are. The baseline counts as exact.
///
/// A share outside 0 to 1 (a numerator that does not count a part) is bounded as 0 or 1.
pub(in crate::alert) fn bound(confidence: Confidence, value: f64, samples: f64, is_lower: bool) -> f64 {
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
}
