//! The functions of `pipelines/udfs/*.rs`, compiled from the very files that Arroyo gets.
//!
//! `pipelines/build.rs` checks each file and makes a module of it; `sql` registers them under their SQL
//! names, `arroyo` hands the texts to a cluster. They are self-contained, for the host that compiles them
//! there has no crate of ours, so a rule that stands elsewhere in `src` stands there once more in small:
//! tests hold the two against each other, here, in `privacy::address` and in `event::decode::cmcd`.
//!
//! Invariant: total: whatever comes in, a function answers and does not panic.

// The environment names their files and keys, on Arroyo's workers as here: they are handed no settings.
#![allow(clippy::disallowed_methods)]

include!(concat!(env!("OUT_DIR"), "/udfs.rs"));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sketch::{DistinctSketch, QuantileSketch};

    fn numbers() -> impl Strategy<Value = Vec<Option<i64>>> {
        let number = prop_oneof![Just(0), 1..60_000_i64, any::<i64>()];
        prop::collection::vec(prop::option::of(number), 0..100)
    }

    proptest! {
        #[test]
        fn a_percentile_sketch_has_the_same_bytes_on_both_engines(values in numbers(), q in -0.1..1.1_f64) {
            let mut ours = QuantileSketch::new();
            values.iter().flatten().for_each(|value| ours.insert(*value));
            let Some(bytes) = sketch_build::sketch_build(values) else {
                prop_assert_eq!(ours.count(), 0);
                return Ok(());
            };
            prop_assert_eq!(&bytes, &ours.to_bytes());
            prop_assert_eq!(sketch_quantile::sketch_quantile(&bytes, q), ours.quantile(q));
            prop_assert_eq!(sketch_count::sketch_count(&bytes), i64::try_from(ours.count()).ok());
        }

        #[test]
        fn a_distinct_sketch_has_the_same_bytes_on_both_engines(texts in prop::collection::vec("[a-z]{0,3}", 0..300)) {
            let mut ours = DistinctSketch::new();
            texts.iter().for_each(|text| ours.insert(text));
            let hashes = texts.iter().map(|text| Some(text_hash::text_hash(text))).collect();
            let Some(bytes) = distinct_build::distinct_build(hashes) else {
                prop_assert!(texts.is_empty());
                return Ok(());
            };
            prop_assert_eq!(&bytes, &ours.to_bytes());
            prop_assert_eq!(distinct_count::distinct_count(&bytes), i64::try_from(ours.count()).ok());
        }

        #[test]
        fn readers_survive_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..60), q: f64) {
            let ours = QuantileSketch::from_bytes(&bytes).ok();
            if let Some(ours) = ours {
                prop_assert_eq!(sketch_quantile::sketch_quantile(&bytes, q), ours.quantile(q));
            }
            sketch_count::sketch_count(&bytes);
            distinct_count::distinct_count(&bytes);
        }

        #[test]
        fn readers_survive_any_text(text in "\\PC{0,60}|[0-9a-fA-F:.%\\[\\]\"]{0,60}|[a-z=,;\"\\\\() ?é]{0,60}", key in "[a-z]{0,2}") {
            anonymise_address::anonymise_address(&text);
            cmcd_value::cmcd_value(&text, &key);
            network_asn::network_asn(&text);
            network_country::network_country(&text);
            network_isp::network_isp(&text);
            pseudonym::pseudonym(&text);
        }

        #[test]
        fn numbers_of_any_size_are_survived(a: i64, b: i64, c: i64, d: i64) {
            session_outcome::session_outcome(a, b, c, d);
            startup_band::startup_band(a);
            rebuffer_ratio::rebuffer_ratio(a, b);
            concurrent_peak::concurrent_peak(vec![Some(a), Some(b), None], vec![Some(c), Some(d), Some(a)]);
            weighted_mean::weighted_mean(vec![Some(f64::from_bits(a as u64))], vec![Some(f64::from_bits(b as u64))]);
        }
    }
}
