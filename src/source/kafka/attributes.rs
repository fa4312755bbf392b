//! What came beside a message as one JSON object: key, time, headers.
//!
//! Written when a message is taken in; the object stands behind the message in the part's buffer.
//! Shape: `{"tombstone":true,"key":"k","timestamp_ms":1,"timestamp_type":"create","headers":{"h":"v"},"cut":true}`,
//! each only where it is there. Bytes that are no text become `{"base64":"..."}`, a header without a
//! value becomes `null`, values of a repeated name become a list.
//!
//! Invariant: the text is at most `ATTRIBUTES_BYTES_MAX` bytes; what does not fit is left out and `cut` says so.
//! Invariant: nothing here is looked at; whoever stores it makes it anonymous first.

use std::io::Write;

use rdkafka::message::Timestamp;

/// Longest attributes of one message, bytes: tracing headers and a key need a tenth of it.
pub const ATTRIBUTES_BYTES_MAX: usize = 8 << 10;
/// Headers of one message that are looked at: beyond it somebody is playing.
const HEADERS_MAX: usize = 256;
/// Kept free for what closes the object.
const CLOSING_BYTES: usize = 16;

/// What came beside a message.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'a> {
    pub key: Option<&'a [u8]>,
    pub timestamp: Timestamp,
    pub is_tombstone: bool,
}

/// Writes the object into `text`, which is emptied first; nothing beside the message writes nothing.
pub fn write<'a>(text: &mut Vec<u8>, beside: Beside<'a>, headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) {
    text.clear();
    let mut is_cut = false;
    if beside.is_tombstone {
        text.extend_from_slice(b",\"tombstone\":true");
    }
    if let Some(key) = beside.key {
        is_cut |= !push(text, |text| {
            text.extend_from_slice(b",\"key\":");
            value(text, Some(key))
        });
    }
    let time = match beside.timestamp {
        Timestamp::NotAvailable => None,
        Timestamp::CreateTime(ms) => Some((ms, "create")),
        Timestamp::LogAppendTime(ms) => Some((ms, "append")),
    };
    if let Some((ms, kind)) = time {
        number(text, ms, kind);
    }
    is_cut |= !write_headers(text, headers);
    if is_cut {
        text.extend_from_slice(b",\"cut\":true");
    }
    if let Some(first) = text.first_mut() {
        // Every member brings its comma: the first one's place is the bracket's.
        *first = b'{';
        text.push(b'}');
    }
}

fn number(text: &mut Vec<u8>, ms: i64, kind: &str) {
    write!(text, ",\"timestamp_ms\":{ms},\"timestamp_type\":\"{kind}\"").expect("a vector takes every byte");
}

/// False: some were left out.
fn write_headers<'a>(text: &mut Vec<u8>, headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> bool {
    let mut named: Vec<(&str, Vec<Option<&[u8]>>)> = Vec::new();
    let mut is_whole = true;
    for (count, (name, bytes)) in headers.enumerate() {
        if count >= HEADERS_MAX {
            is_whole = false;
            break;
        }
        match named.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(bytes),
            None => named.push((name, vec![bytes])),
        }
    }
    let mut opening: &[u8] = b",\"headers\":{";
    for (name, values) in &named {
        let fits = push(text, |text| {
            text.extend_from_slice(opening);
            header(text, name, values)
        });
        is_whole &= fits;
        if fits {
            opening = b",";
        }
    }
    if opening == b"," {
        text.push(b'}');
    }
    is_whole
}

fn header(text: &mut Vec<u8>, name: &str, values: &[Option<&[u8]>]) -> bool {
    if !value(text, Some(name.as_bytes())) {
        return false;
    }
    text.push(b':');
    if let [only] = values {
        return value(text, *only);
    }
    text.push(b'[');
    for (index, bytes) in values.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        if !value(text, *bytes) {
            return false;
        }
    }
    text.push(b']');
    true
}

/// Writes a member, or takes it back if it does not fit.
fn push(text: &mut Vec<u8>, member: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    let before = text.len();
    let fits = member(text) && text.len() <= ATTRIBUTES_BYTES_MAX - 2 * CLOSING_BYTES;
    if !fits {
        text.truncate(before);
    }
    fits
}

/// Writes bytes as a JSON value; false if they alone are longer than all attributes may be.
fn value(text: &mut Vec<u8>, bytes: Option<&[u8]>) -> bool {
    let Some(bytes) = bytes else {
        text.extend_from_slice(b"null");
        return true;
    };
    if text.len() + bytes.len() > ATTRIBUTES_BYTES_MAX {
        return false;
    }
    match std::str::from_utf8(bytes) {
        Ok(plain) => serde_json::to_writer(&mut *text, plain).expect("a vector takes every byte"),
        Err(_) => {
            text.extend_from_slice(b"{\"base64\":\"");
            base64(text, bytes);
            text.extend_from_slice(b"\"}");
        }
    }
    true
}

/// Standard alphabet with padding (RFC 4648, section 4).
fn base64(text: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let sixth = (bits >> (18 - 6 * place)) & 0x3f;
            text.push(if place > group.len() { b'=' } else { ALPHABET[sixth as usize] });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    type Headers<'a> = [(&'a str, Option<&'a [u8]>)];

    fn written(key: Option<&[u8]>, timestamp: Timestamp, is_tombstone: bool, headers: &Headers<'_>) -> String {
        let mut text = b"left over".to_vec();
        let beside = Beside {
            key,
            timestamp,
            is_tombstone,
        };
        write(&mut text, beside, headers.iter().copied());
        assert!(text.len() <= ATTRIBUTES_BYTES_MAX, "{} bytes", text.len());
        String::from_utf8(text).expect("JSON is text")
    }

    fn check(key: Option<&[u8]>, timestamp: Timestamp, headers: &Headers<'_>, expected: &serde_json::Value) {
        let text = written(key, timestamp, false, headers);
        let got: serde_json::Value = serde_json::from_str(&text).expect(&text);
        assert_eq!(&got, expected);
    }

    #[test]
    fn key_time_and_headers_are_kept_as_they_came() {
        let none = Timestamp::NotAvailable;
        check(Some(b"viewer \"7\"\n"), none, &[], &json!({"key": "viewer \"7\"\n"}));
        check(Some(b""), none, &[], &json!({"key": ""}));
        for (bytes, expected) in [
            (&b"\xff"[..], "/w=="),
            (b"\xff\xfe", "//4="),
            (b"\xff\xfe\x00", "//4A"),
            (b"\xff\xfe\x00\x01", "//4AAQ=="),
        ] {
            check(Some(bytes), none, &[], &json!({"key": {"base64": expected}}));
        }
        let append = json!({"timestamp_ms": 5, "timestamp_type": "append"});
        check(None, Timestamp::LogAppendTime(5), &[], &append);
        let headers: &Headers<'_> = &[
            ("a", Some(b"1")),
            ("none", None),
            ("b\"", Some(b"\x80")),
            ("a", Some(b"2")),
            ("a", None),
        ];
        let expected = json!({
            "timestamp_ms": -1, "timestamp_type": "create",
            "headers": {"a": ["1", "2", null], "none": null, "b\"": {"base64": "gA=="}},
        });
        check(None, Timestamp::CreateTime(-1), headers, &expected);
    }

    #[test]
    fn nothing_beside_a_message_is_no_object_and_a_tombstone_says_so() {
        assert_eq!(written(None, Timestamp::NotAvailable, false, &[]), "");
        assert_eq!(written(None, Timestamp::NotAvailable, true, &[]), "{\"tombstone\":true}");
        let dead = written(Some(b"k"), Timestamp::CreateTime(1), true, &[]);
        assert_eq!(
            dead,
            "{\"tombstone\":true,\"key\":\"k\",\"timestamp_ms\":1,\"timestamp_type\":\"create\"}"
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_the_rest_stays() {
        let long = vec![b'x'; ATTRIBUTES_BYTES_MAX];
        let escaped = vec![1u8; ATTRIBUTES_BYTES_MAX / 3];
        let none = Timestamp::NotAvailable;
        check(
            Some(&long),
            none,
            &[("a", Some(b"1"))],
            &json!({"headers": {"a": "1"}, "cut": true}),
        );
        check(
            Some(b"k"),
            none,
            &[("a", Some(&long)), ("b", Some(b"2"))],
            &json!({"key": "k", "headers": {"b": "2"}, "cut": true}),
        );
        check(None, none, &[("a", Some(&escaped))], &json!({"cut": true}));
        check(None, none, &[("a", Some(b"1")), ("a", Some(&long))], &json!({"cut": true}));
        let many: Vec<(String, Vec<u8>)> = (0..1000).map(|n| (format!("header-{n}"), vec![b'v'; 30])).collect();
        let many: Vec<(&str, Option<&[u8]>)> = many.iter().map(|(name, bytes)| (name.as_str(), Some(bytes.as_slice()))).collect();
        let got: serde_json::Value = serde_json::from_str(&written(None, none, false, &many)).expect("whole");
        assert_eq!((&got["cut"], &got["headers"]["header-0"]), (&json!(true), &json!("v".repeat(30))));
    }
}
