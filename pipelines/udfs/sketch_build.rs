/*
[dependencies]
sketches-ddsketch = "0.4.2"
*/
//! sketch_build(bigint) -> bytea: percentile sketch of a column of milliseconds or bit/s.
//!
//! ```sql
//! SELECT sketch_build(startup_ms) AS startup_sketch FROM silver.playback_sessions
//! ```
//!
//! An aggregate: a DDSketch of 1 % relative error in the bytes that the gold columns `..._sketch` hold.
//! NULLs are left out, negative values count as 0; of nothing the sketch is NULL. It does not depend on
//! the order of rows. sketch_quantile and sketch_count read it; the daemon merges it into coarser tables.

use std::collections::BTreeMap;

use arroyo_udf_plugin::udf;
use sketches_ddsketch::Config;

const VERSION: u8 = 1;
const RELATIVE_ERROR: f64 = 0.01;
const BUCKETS_MAX: u32 = 2048;
/// Larger values count as this: its bucket is the last one.
const VALUE_MAX: i64 = 1 << 59;

#[udf]
fn sketch_build(values: Vec<Option<i64>>) -> Option<Vec<u8>> {
    let mapping = Config::new(RELATIVE_ERROR, BUCKETS_MAX, 1.0);
    let mut zeros = 0u64;
    let mut buckets: BTreeMap<u64, u64> = BTreeMap::new();
    let mut ends: Option<(i64, i64)> = None;
    for value in values.into_iter().flatten().map(|value| value.clamp(0, VALUE_MAX)) {
        ends = Some(ends.map_or((value, value), |(least, greatest)| (least.min(value), greatest.max(value))));
        match value {
            0 => zeros += 1,
            _ => *buckets.entry(u64::try_from(mapping.key(value as f64)).unwrap_or(0)).or_default() += 1,
        }
    }
    let (least, greatest) = ends?;
    Some(bytes(zeros, least, greatest, &buckets))
}

/// Version, zeros, least, greatest, and each bucket as the distance to the one before and its count.
fn bytes(zeros: u64, least: i64, greatest: i64, buckets: &BTreeMap<u64, u64>) -> Vec<u8> {
    let mut out = vec![VERSION];
    for number in [zeros, least.unsigned_abs(), greatest.unsigned_abs(), buckets.len() as u64] {
        put(&mut out, number);
    }
    let mut before = 0;
    for (bucket, count) in buckets {
        put(&mut out, bucket - before);
        put(&mut out, *count);
        before = *bucket;
    }
    out
}

/// A number in groups of seven bits, the lowest first.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_known_sketch_stay_as_they_are() {
        let values = [0, 2_000, 2_000, 2_010, 4_000].map(Some).to_vec();
        assert_eq!(sketch_build(values), Some(vec![1, 1, 0, 160, 31, 2, 252, 2, 3, 34, 1]));
    }

    #[test]
    fn nothing_makes_no_sketch_and_no_value_is_too_large() {
        assert_eq!(sketch_build(vec![None]), None);
        assert_eq!(sketch_build(vec![Some(i64::MAX)]), sketch_build(vec![Some(VALUE_MAX)]));
        assert_eq!(sketch_build(vec![Some(i64::MIN)]), sketch_build(vec![Some(0)]));
    }
}
