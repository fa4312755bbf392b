/*
[dependencies]
xxhash-rust = { version = "0.8", features = ["xxh3"] }
*/
//! text_hash(text) -> bigint: 64 bits of a text, the same on every machine and in every release.
//!
//! ```sql
//! SELECT distinct_build(text_hash(coalesce(user_id, device_id))) FROM silver.playback_intervals
//! ```
//!
//! XXH3 of the UTF-8 bytes, as a signed number: what an aggregate over numbers knows a text by. No
//! secret is in it, so it is no pseudonym.

use arroyo_udf_plugin::udf;

#[udf]
fn text_hash(text: &str) -> i64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_known_text_stays_as_it_is() {
        assert_eq!(text_hash(""), 0x2d06_8005_38d3_94c2);
        assert_ne!(text_hash("a"), text_hash("b"));
    }
}
