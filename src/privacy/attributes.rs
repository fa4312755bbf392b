//! What came beside a record (a message's key, its headers) made anonymous.
//!
//! Invariant: no address stands in what comes out, no secret header does, and a key names nobody where
//! ids are replaced by pseudonyms: people key their topics by viewer.

use serde_json::{Map, Value};

use super::scrub::scrub;
use super::{IdentityPolicy, Privacy};

/// Members that sources write for a key.
const KEYS: [&str; 2] = ["key", "partition_key"];
const HEADERS: &str = "headers";
/// Headers that authenticate somebody.
const SECRET_HEADERS: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];

impl Privacy {
    /// The JSON object of a line's attributes as it may be stored; `None`: it is no JSON object.
    pub fn anonymise_attributes(&self, text: &[u8]) -> Option<String> {
        let mut attributes: Map<String, Value> = serde_json::from_slice(text).ok()?;
        if self.policy == IdentityPolicy::Pseudonym {
            for key in KEYS {
                if let Some(Value::String(key)) = attributes.get_mut(key) {
                    *key = self.pseudonym(key);
                }
            }
        }
        if let Some(Value::Object(headers)) = attributes.get_mut(HEADERS) {
            headers.retain(|name, _| !SECRET_HEADERS.contains(&name.to_ascii_lowercase().as_str()));
        }
        let text = Value::Object(attributes).to_string();
        Some(scrub(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(policy: IdentityPolicy, given: &str, expected: &str) {
        let stored = Privacy::new(policy, [7; 32]).anonymise_attributes(given.as_bytes());
        let key = Privacy::new(policy, [7; 32]).pseudonym("viewer-1");
        assert_eq!(stored.as_deref(), Some(expected.replace("KEY", &key).as_str()));
    }

    #[test]
    fn a_key_becomes_a_pseudonym_unless_ids_are_kept() {
        let given = r#"{"key":"viewer-1","timestamp_ms":5}"#;
        check(IdentityPolicy::Pseudonym, given, r#"{"key":"KEY","timestamp_ms":5}"#);
        check(IdentityPolicy::Keep, given, given);
    }

    #[test]
    fn addresses_are_cut_and_secrets_go() {
        check(
            IdentityPolicy::Keep,
            r#"{"headers":{"Authorization":"Bearer x","trace":"1-2","x-forwarded-for":"203.0.113.77"}}"#,
            r#"{"headers":{"trace":"1-2","x-forwarded-for":"203.0.113.0"}}"#,
        );
    }

    #[test]
    fn what_is_no_object_is_not_kept() {
        assert_eq!(
            Privacy::new(IdentityPolicy::Keep, [7; 32]).anonymise_attributes(b"203.0.113.77"),
            None
        );
    }
}
