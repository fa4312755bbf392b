//! rebuffer_ratio(bigint, bigint) -> double: stall time over stall and playing time.
//!
//! ```sql
//! SELECT rebuffer_ratio(sum(stall_ms), sum(playing_ms))  -- 0.0125
//! ```
//!
//! NULL where nothing was played and nothing stalled, or where a sum is negative: a ratio of nothing
//! is no 0. Give it sums, never averages.

use arroyo_udf_plugin::udf;

#[udf]
fn rebuffer_ratio(stall_ms: i64, playing_ms: i64) -> Option<f64> {
    if stall_ms < 0 || playing_ms < 0 {
        return None;
    }
    // In floating point: the sum of two sums may pass 2^63.
    let whole = stall_ms as f64 + playing_ms as f64;
    (whole > 0.0).then(|| stall_ms as f64 / whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_nothing_is_nothing() {
        assert_eq!(rebuffer_ratio(1, 79), Some(0.0125));
        assert_eq!(rebuffer_ratio(5, 0), Some(1.0));
        assert_eq!(rebuffer_ratio(0, 0), None);
        assert_eq!(rebuffer_ratio(-1, 5), None);
        assert_eq!(rebuffer_ratio(i64::MAX, i64::MAX), Some(0.5));
    }
}
