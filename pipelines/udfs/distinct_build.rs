//! distinct_build(bigint) -> bytea: a sketch of how many different hashes a column holds.
//!
//! ```sql
//! SELECT distinct_build(text_hash(user_id)) AS viewers_sketch FROM silver.playback_intervals
//! ```
//!
//! An aggregate: HyperLogLog over 2^14 registers, standard error 0.81 %, in the bytes that the gold
//! columns of distinct sketches hold. Give it text_hash, not counters: the bits must be evenly spread.
//! NULLs are left out; of nothing the sketch is NULL. distinct_count reads it.

use std::collections::BTreeMap;

use arroyo_udf_plugin::udf;

const VERSION: u8 = 1;
const INDEX_BITS: u32 = 14;

#[udf]
fn distinct_build(hashes: Vec<Option<i64>>) -> Option<Vec<u8>> {
    let mut ranks: BTreeMap<u64, u8> = BTreeMap::new();
    for hash in hashes.into_iter().flatten().map(|hash| hash as u64) {
        // The set bit ends the run of zeros after the hash's own bits.
        let rest = (hash << INDEX_BITS) | (1 << (INDEX_BITS - 1));
        let rank = rest.leading_zeros() as u8 + 1;
        let highest = ranks.entry(hash >> (64 - INDEX_BITS)).or_default();
        *highest = rank.max(*highest);
    }
    (!ranks.is_empty()).then(|| bytes(&ranks))
}

/// Version, how many registers, and each as the distance to the one before and its rank.
fn bytes(ranks: &BTreeMap<u64, u8>) -> Vec<u8> {
    let mut out = vec![VERSION];
    put(&mut out, ranks.len() as u64);
    let mut before = 0;
    for (register, rank) in ranks {
        put(&mut out, register - before);
        out.push(*rank);
        before = *register;
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
    fn repetition_and_order_change_nothing() {
        let once = distinct_build(vec![Some(5 << 50), Some(-1)]);
        assert_eq!(once, Some(vec![1, 2, 5, 51, 250, 127, 1]));
        assert_eq!(distinct_build(vec![Some(-1), None, Some(5 << 50), Some(-1)]), once);
        assert_eq!(distinct_build(vec![None]), None);
    }
}
