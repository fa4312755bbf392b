//! weighted_mean(double, double) -> double: the mean of values by their weights.
//!
//! ```sql
//! SELECT weighted_mean(CAST(shown_bits AS DOUBLE) / duration_ms, CAST(duration_ms AS DOUBLE)) FROM silver.playback_intervals
//! ```
//!
//! An aggregate: an average bitrate by playing time, which a plain avg would get wrong. Rows without a
//! value, or whose weight is missing, zero or negative, are left out; of no rows the mean is NULL. The
//! order of rows changes no digit.

use arroyo_udf_plugin::udf;

#[udf]
fn weighted_mean(values: Vec<Option<f64>>, weights: Vec<Option<f64>>) -> Option<f64> {
    let pairs = values
        .into_iter()
        .zip(weights)
        .filter_map(|(value, weight)| Some((value?, weight?)));
    let mut pairs: Vec<(f64, f64)> = pairs.filter(|(value, weight)| value.is_finite() && *weight > 0.0).collect();
    pairs.sort_unstable_by(|one, next| one.0.total_cmp(&next.0).then(one.1.total_cmp(&next.1)));
    let whole: f64 = pairs.iter().map(|(_, weight)| weight).sum();
    let sum: f64 = pairs.iter().map(|(value, weight)| value * weight).sum();
    let mean = sum / whole;
    mean.is_finite().then_some(mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_rows_weigh_more_and_rows_without_a_weight_nothing() {
        let weights = vec![Some(3.0), Some(1.0), None, Some(-5.0)];
        assert_eq!(weighted_mean([1000.0, 3000.0, 9.0, 9.0].map(Some).to_vec(), weights), Some(1500.0));
        assert_eq!(weighted_mean(vec![Some(1.0)], vec![Some(0.0)]), None);
        assert_eq!(weighted_mean(vec![], vec![]), None);
    }
}
