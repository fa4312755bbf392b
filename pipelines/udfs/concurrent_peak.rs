//! concurrent_peak(bigint, bigint) -> bigint: most of the spans [start, end) at one instant.
//!
//! ```sql
//! SELECT concurrent_peak(CAST(interval_start AS BIGINT), CAST(interval_end AS BIGINT)) FROM silver.playback_intervals
//! ```
//!
//! An aggregate. Starts and ends are in one unit, whatever it is. A span without a start or an end, or
//! that ends before it starts, is none; of no spans the peak is 0.

use arroyo_udf_plugin::udf;

#[udf]
fn concurrent_peak(starts: Vec<Option<i64>>, ends: Vec<Option<i64>>) -> i64 {
    let spans = starts.into_iter().zip(ends).filter_map(|(start, end)| Some((start?, end?)));
    // An end sorts before a start at its instant: where one span ends the next begins.
    let mut steps: Vec<(i64, i64)> = spans
        .filter(|(start, end)| start < end)
        .flat_map(|(start, end)| [(start, 1), (end, -1)])
        .collect();
    steps.sort_unstable();
    let running = steps.iter().scan(0, |active: &mut i64, (_, step)| {
        *active += step;
        Some(*active)
    });
    running.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peak(spans: &[(i64, i64)]) -> i64 {
        let (starts, ends) = spans.iter().map(|(start, end)| (Some(*start), Some(*end))).unzip();
        concurrent_peak(starts, ends)
    }

    #[test]
    fn the_peak_counts_what_is_there_at_one_instant() {
        assert_eq!(peak(&[(0, 100), (50, 150), (90, 95)]), 3);
        assert_eq!(peak(&[(0, 60), (60, 100), (100, 100)]), 1);
        assert_eq!(peak(&[]), 0);
        assert_eq!(concurrent_peak(vec![None, Some(1)], vec![Some(5), None]), 0);
    }
}
