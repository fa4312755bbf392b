//! Percentiles with a relative error of at most 1 %: DDSketch.
//!
//! The buckets are those of `sketches-ddsketch`; the store and the bytes are ours. That crate keeps
//! its bins private, adds up a floating-point sum that depends on the order, and its reader of bytes
//! may overflow on foreign ones.
//!
//! Invariant: only counts per bucket, the least and the greatest value are kept; none depends on
//! the order of insertion.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sketches_ddsketch::Config;

use super::{SketchError, decode, encode};

const VERSION: u8 = 1;

const RELATIVE_ERROR: f64 = 0.01;

/// 18 million years in ms and 576 Pbit/s: no honest value is larger. Larger ones count as this, so
/// that buckets never have to be merged, which would make them depend on the order.
const VALUE_MAX: i64 = 1 << 59;

/// What `VALUE_MAX` needs at 1 % (2045), as the next power of two: 16 KiB of counts at the worst.
const BUCKETS_MAX: u16 = 2_048;

/// A merged sketch of integers from 0: milliseconds, bit/s. Negative values count as 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuantileSketch {
    zeros: u64,
    /// Count by bucket; no count is 0.
    buckets: BTreeMap<u16, u64>,
    /// Least and greatest value; 0 while empty.
    min: i64,
    max: i64,
}

/// Zeros, least, greatest, and each bucket as the distance to the one before and its count.
type Parts = (u64, u64, u64, Vec<(u16, u64)>);

impl QuantileSketch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn insert(&mut self, value: i64) {
        let value = value.clamp(0, VALUE_MAX);
        self.widen(value, value);
        let count = match value {
            0 => &mut self.zeros,
            _ => self.buckets.entry(bucket(value)).or_default(),
        };
        *count = count.saturating_add(1);
    }

    pub fn merge(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.widen(other.min, other.max);
        self.zeros = self.zeros.saturating_add(other.zeros);
        for (bucket, more) in &other.buckets {
            let count = self.buckets.entry(*bucket).or_default();
            *count = count.saturating_add(*more);
        }
    }

    /// To be called before what lies between is counted.
    fn widen(&mut self, min: i64, max: i64) {
        let is_empty = self.is_empty();
        self.min = if is_empty { min } else { self.min.min(min) };
        self.max = self.max.max(max);
    }

    fn is_empty(&self) -> bool {
        self.zeros == 0 && self.buckets.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.buckets.values().fold(self.zeros, |sum, count| sum.saturating_add(*count))
    }

    /// The value of rank floor(`q` x (count - 1)), at most 1 % off; `q` from 0 to 1. `None` if empty.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.is_empty() || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let rank = (q * (self.count() - 1) as f64) as u64;
        let mut below = self.zeros;
        if rank < below {
            return Some(0.0);
        }
        for (bucket, count) in &self.buckets {
            below = below.saturating_add(*count);
            if rank < below {
                return Some(MAPPING.value(i32::from(*bucket)).clamp(self.min as f64, self.max as f64));
            }
        }
        Some(self.max as f64)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut before = 0;
        let gaps = self.buckets.iter().map(|(bucket, count)| {
            let gap = bucket - before;
            before = *bucket;
            (gap, *count)
        });
        let parts: Parts = (self.zeros, self.min as u64, self.max as u64, gaps.collect());
        encode(VERSION, &parts)
    }

    /// # Errors
    ///
    /// If the bytes are of another version or of no sketch.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        let (zeros, min, max, gaps): Parts = decode(bytes, VERSION)?;
        let mut sketch = Self { zeros, ..Self::default() };
        let mut bucket = 0_u16;
        for (index, (gap, count)) in gaps.into_iter().enumerate() {
            let repeats = gap == 0 && index > 0;
            bucket = bucket.saturating_add(gap);
            if repeats || count == 0 || bucket >= BUCKETS_MAX {
                return Err(SketchError::Damaged("impossible bucket"));
            }
            sketch.buckets.insert(bucket, count);
        }
        sketch.min = i64::try_from(min).unwrap_or(i64::MAX);
        sketch.max = i64::try_from(max).unwrap_or(i64::MAX);
        match sketch.holds_its_ends() {
            true => Ok(sketch),
            false => Err(SketchError::Damaged("least or greatest value outside its buckets")),
        }
    }

    /// The least and the greatest value lie in the first and the last bucket.
    fn holds_its_ends(&self) -> bool {
        let place = |value: i64| (value > 0).then(|| bucket(value.min(VALUE_MAX)));
        let first = match self.zeros {
            0 => self.buckets.keys().next().copied(),
            _ => None,
        };
        let last = self.buckets.keys().next_back().copied();
        self.min <= self.max && self.max <= VALUE_MAX && place(self.min) == first && place(self.max) == last
    }

    /// Roughly what it takes up in memory.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.buckets.len() * size_of::<(u16, u64)>()
    }
}

/// Values are integers: the least that has a bucket is 1.
static MAPPING: LazyLock<Config> = LazyLock::new(|| Config::new(RELATIVE_ERROR, u32::from(BUCKETS_MAX), 1.0));

/// The bucket of a value from 1 to `VALUE_MAX`: floor(ln value / ln gamma).
fn bucket(value: i64) -> u16 {
    u16::try_from(MAPPING.key(value as f64)).expect("1 is in bucket 0 and the largest value in bucket 2044")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(values: &[i64]) -> QuantileSketch {
        let mut sketch = QuantileSketch::new();
        for value in values {
            sketch.insert(*value);
        }
        sketch
    }

    /// The value of that rank in the sorted values.
    fn exact(values: &[i64], q: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        sorted[(q * (sorted.len() - 1) as f64) as usize] as f64
    }

    #[test]
    fn the_largest_value_has_a_bucket() {
        assert_eq!((bucket(1), bucket(VALUE_MAX)), (0, 2_044));
        assert_eq!(sketch(&[i64::MAX]), sketch(&[VALUE_MAX]));
        assert_eq!(sketch(&[-1]), sketch(&[0]));
    }

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!(QuantileSketch::new().quantile(0.5), None);
        assert_eq!(sketch(&[1]).quantile(1.5), None);
        assert_eq!(sketch(&[1]).quantile(f64::NAN), None);
    }

    #[test]
    fn one_value_is_itself() {
        for value in [0, 1, 2_000, 812] {
            assert_eq!(sketch(&[value]).quantile(0.99), Some(value as f64));
        }
    }

    #[test]
    fn the_bytes_of_a_known_sketch_stay_as_they_are() {
        assert_eq!(QuantileSketch::new().to_bytes(), [1, 0, 0, 0, 0]);
        let bytes = sketch(&[0, 2_000, 2_000, 2_010, 4_000]).to_bytes();
        assert_eq!(bytes, [1, 1, 0, 160, 31, 2, 252, 2, 3, 34, 1]);
    }

    #[test]
    fn foreign_bytes_are_refused_with_a_reason() {
        let check = |bytes: &[u8], expected: &str| {
            let error = QuantileSketch::from_bytes(bytes).expect_err("no sketch");
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(&[], "no bytes");
        check(&[9, 0, 0, 0, 0], "version 9");
        check(&[1, 0, 0, 0], "cut short");
        check(&[1, 0, 0, 0, 0, 0], "after its end");
        check(&[1, 0, 1, 1, 2, 0, 1, 0, 1], "impossible bucket");
        check(&[1, 0, 1, 1, 1, 0, 0], "impossible bucket");
        check(&[1, 0, 1, 1, 1, 255, 255, 3, 1], "impossible bucket");
        check(&[1, 0, 1, 9, 1, 0, 1], "outside its buckets");
        check(&[1, 0, 0, 1, 1, 0, 1], "outside its buckets");
    }

    fn values() -> impl Strategy<Value = Vec<i64>> {
        let value = prop_oneof![Just(0), 1..100_i64, 1..60_000_i64, 1..=i64::MAX];
        prop::collection::vec(value, 0..100)
    }

    proptest! {
        #[test]
        fn merged_bytes_are_those_of_the_union(parts in prop::collection::vec(values(), 1..6)) {
            let union = sketch(&parts.concat());
            let mut backwards = parts.concat();
            backwards.reverse();
            prop_assert_eq!(sketch(&backwards).to_bytes(), union.to_bytes());
            let mut merged = QuantileSketch::new();
            for part in parts.iter().rev() {
                let read = QuantileSketch::from_bytes(&sketch(part).to_bytes()).expect("its own bytes");
                merged.merge(&read);
            }
            prop_assert_eq!(merged.to_bytes(), union.to_bytes());
            prop_assert_eq!(merged.count(), parts.concat().len() as u64);
        }

        #[test]
        fn no_percentile_is_more_than_one_per_cent_off(values in values(), q in 0.0..=1.0_f64) {
            let values: Vec<i64> = values.into_iter().map(|value| value.min(VALUE_MAX)).collect();
            let Some(told) = sketch(&values).quantile(q) else { return Ok(()) };
            let exact = exact(&values, q);
            // 1e-9: what the logarithm itself rounds.
            prop_assert!((told - exact).abs() <= exact * (RELATIVE_ERROR + 1e-9), "{told} for {exact}");
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_are_a_sketch(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(sketch) = QuantileSketch::from_bytes(&bytes) {
                prop_assert_eq!(QuantileSketch::from_bytes(&sketch.to_bytes()), Ok(sketch.clone()));
                prop_assert!(sketch.quantile(0.5).is_some() || sketch.count() == 0);
            }
        }

        #[test]
        fn damaged_bytes_are_refused_or_are_a_sketch(values in values(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = sketch(&values).to_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(mut read) = QuantileSketch::from_bytes(&bytes) {
                read.merge(&sketch(&values));
                prop_assert!(read.count() >= values.len() as u64);
            }
        }
    }
}
