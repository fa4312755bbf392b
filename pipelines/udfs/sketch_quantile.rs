/*
[dependencies]
sketches-ddsketch = "0.4.2"
*/
//! sketch_quantile(bytea, double) -> double: a percentile of a sketch, at most 1 % off.
//!
//! ```sql
//! SELECT sketch_quantile(startup_sketch, 0.95) FROM gold.playback_1m  -- 2004.03...
//! ```
//!
//! The value of rank floor(q x (count - 1)), q from 0 to 1. NULL: q is outside that, or the bytes are
//! no sketch of this version.

use arroyo_udf_plugin::udf;
use sketches_ddsketch::Config;

const VERSION: u8 = 1;
const RELATIVE_ERROR: f64 = 0.01;
const BUCKETS_MAX: u64 = 2048;
const VALUE_MAX: u64 = 1 << 59;

#[udf]
fn sketch_quantile(sketch: &[u8], q: f64) -> Option<f64> {
    let sketch = read(sketch)?;
    let count = sketch
        .buckets
        .iter()
        .fold(sketch.zeros, |sum, (_, count)| sum.saturating_add(*count));
    if count == 0 || !(0.0..=1.0).contains(&q) {
        return None;
    }
    let rank = (q * (count - 1) as f64) as u64;
    let mut below = sketch.zeros;
    if rank < below {
        return Some(0.0);
    }
    let mapping = Config::new(RELATIVE_ERROR, BUCKETS_MAX as u32, 1.0);
    for (bucket, count) in &sketch.buckets {
        below = below.saturating_add(*count);
        if rank < below {
            let value = mapping.value(i32::try_from(*bucket).ok()?);
            return Some(value.max(sketch.least as f64).min(sketch.greatest as f64));
        }
    }
    Some(sketch.greatest as f64)
}

/// What a sketch holds: zeros, least, greatest, and each bucket with its count.
struct Sketch {
    zeros: u64,
    least: u64,
    greatest: u64,
    buckets: Vec<(u64, u64)>,
}

fn read(bytes: &[u8]) -> Option<Sketch> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let (zeros, least, greatest) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
    let count = take(&mut rest)?;
    let mut buckets = Vec::new();
    let mut bucket = 0u64;
    for index in 0..count {
        let (gap, count) = (take(&mut rest)?, take(&mut rest)?);
        bucket = bucket.checked_add(gap)?;
        if (gap == 0 && index > 0) || count == 0 || bucket >= BUCKETS_MAX {
            return None;
        }
        buckets.push((bucket, count));
    }
    let is_sound = rest.is_empty() && least <= greatest && greatest <= VALUE_MAX;
    is_sound.then_some(Sketch {
        zeros,
        least,
        greatest,
        buckets,
    })
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

    /// Of 0, 2000, 2000, 2010 and 4000.
    const SKETCH: [u8; 11] = [1, 1, 0, 160, 31, 2, 252, 2, 3, 34, 1];

    #[test]
    fn a_percentile_is_at_most_one_per_cent_off() {
        assert_eq!(sketch_quantile(&SKETCH, 0.0), Some(0.0));
        for (q, exact) in [(0.5, 2000.0), (1.0, 4000.0)] {
            let told = sketch_quantile(&SKETCH, q).unwrap();
            assert!((told / exact - 1.0).abs() < 0.01, "{told} for {exact}");
        }
    }

    #[test]
    fn foreign_bytes_and_foreign_ranks_give_nothing() {
        assert_eq!(sketch_quantile(&SKETCH, 1.5), None);
        assert_eq!(sketch_quantile(&SKETCH, f64::NAN), None);
        for length in 0..SKETCH.len() {
            assert_eq!(sketch_quantile(&SKETCH[..length], 0.5), None, "{length}");
        }
        assert_eq!(sketch_quantile(&[255; 40], 0.5), None);
        assert_eq!(sketch_quantile(&[1, 0, 0, 0, 0], 0.5), None, "an empty sketch");
    }
}
