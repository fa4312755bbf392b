//! sketch_count(bytea) -> bigint: how many values a percentile sketch holds.
//!
//! ```sql
//! SELECT sketch_count(startup_sketch) FROM gold.playback_1m  -- 1421
//! ```
//!
//! NULL: the bytes are no sketch of this version.

use arroyo_udf_plugin::udf;

const VERSION: u8 = 1;
const BUCKETS_MAX: u64 = 2048;
const VALUE_MAX: u64 = 1 << 59;

#[udf]
fn sketch_count(sketch: &[u8]) -> Option<i64> {
    count(sketch).map(|count| i64::try_from(count).unwrap_or(i64::MAX))
}

/// The sum of all counts, of bytes that are a sketch to the last one.
fn count(bytes: &[u8]) -> Option<u64> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let (zeros, least, greatest) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
    let buckets = take(&mut rest)?;
    let (mut sum, mut bucket) = (zeros, 0u64);
    for index in 0..buckets {
        let (gap, count) = (take(&mut rest)?, take(&mut rest)?);
        bucket = bucket.checked_add(gap)?;
        if (gap == 0 && index > 0) || count == 0 || bucket >= BUCKETS_MAX {
            return None;
        }
        sum = sum.saturating_add(count);
    }
    (rest.is_empty() && least <= greatest && greatest <= VALUE_MAX).then_some(sum)
}

/// A number in groups of seven bits, the lowest first.
fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for group in 0..10 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f).checked_shl(7 * group)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sketch_counts_all_its_values() {
        assert_eq!(sketch_count(&[1, 1, 0, 160, 31, 2, 252, 2, 3, 34, 1]), Some(5));
        assert_eq!(sketch_count(&[1, 0, 0, 0, 0]), Some(0));
        assert_eq!(sketch_count(&[9, 0, 0, 0, 0]), None);
        assert_eq!(sketch_count(&[255; 40]), None);
        assert_eq!(sketch_count(&[]), None);
    }
}
