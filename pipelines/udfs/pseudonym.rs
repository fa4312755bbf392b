/*
[dependencies]
hmac = "0.12"
sha2 = "0.10"
*/
//! pseudonym(text) -> text: a viewer's or device's id as the keyed pseudonym that the tables hold.
//!
//! ```sql
//! SELECT pseudonym('user-17')  -- p-d0a4... : `p-` and 32 hex digits
//! ```
//!
//! HMAC-SHA-256 under the key in PLAYHEAD_PSEUDONYM_KEY (64 hex digits, those of the daemon's
//! `playhead.key`), cut to 128 bits. What is a pseudonym already stays as it is. Without the key, or
//! with one that is none, NULL: an id is never let through.

use std::sync::OnceLock;

use arroyo_udf_plugin::udf;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const PREFIX: &str = "p-";
/// 128 bits: no two of a billion viewers collide.
const BYTES: usize = 16;

#[udf]
fn pseudonym(id: &str) -> Option<String> {
    static KEYED: OnceLock<Option<Hmac<Sha256>>> = OnceLock::new();
    let keyed = KEYED.get_or_init(|| keyed(&std::env::var("PLAYHEAD_PSEUDONYM_KEY").ok()?));
    keyed.as_ref().map(|keyed| of(keyed, id))
}

fn keyed(hex: &str) -> Option<Hmac<Sha256>> {
    let hex = hex.trim();
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let key: Option<Vec<u8>> = (0..64).step_by(2).map(byte).collect();
    Hmac::new_from_slice(&key?).ok()
}

fn of(keyed: &Hmac<Sha256>, id: &str) -> String {
    if is_pseudonym(id) {
        return id.to_owned();
    }
    let mut mac = keyed.clone();
    mac.update(id.as_bytes());
    let digest = mac.finalize().into_bytes();
    let hex = digest.iter().take(BYTES).map(|byte| format!("{byte:02x}"));
    format!("{PREFIX}{}", hex.collect::<String>())
}

fn is_pseudonym(text: &str) -> bool {
    let is_hex = |hex: &str| hex.len() == 2 * BYTES && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.strip_prefix(PREFIX).is_some_and(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_pseudonym_is_keyed_and_stays() {
        let keyed = keyed(KEY).unwrap();
        let once = of(&keyed, "user-17");
        assert_eq!(once.len(), 34);
        assert_eq!(of(&keyed, &once), once);
        assert_ne!(of(&keyed, "user-18"), once);
    }

    #[test]
    fn what_is_no_key_keys_nothing() {
        for key in ["", "0011", &"zz".repeat(32), &"é".repeat(32)] {
            assert!(keyed(key).is_none(), "{key}");
        }
    }
}
