//! A part of a CDN's record as text, and a text as such a part.
//!
//! Stands beside the decoders, which mark the parts, for `privacy`, which puts others in their place.
//!
//! Invariant: `read` of what `write` made of a text gives the text; of an empty one, what the format reads as
//! nothing.

use std::borrow::Cow;

use super::cdn::combined;
use super::text;
use crate::event::private::Written;

/// What logs in lines write for nothing.
const NOTHING: &str = "-";

/// The text that a decoder reads in a part.
pub fn read(part: &str, written: Written) -> Cow<'_, str> {
    match written {
        Written::Plain => Cow::Borrowed(part),
        Written::Json if part.starts_with('"') => text::unescaped(part),
        Written::Json => Cow::Borrowed(part),
        Written::Quoted => combined::unescaped(part),
        Written::Csv(_) => {
            let Some(inner) = part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
                return Cow::Borrowed(part.trim());
            };
            if inner.contains('"') {
                return Cow::Owned(inner.replace("\"\"", "\"").trim().to_owned());
            }
            Cow::Borrowed(inner.trim())
        }
    }
}

/// A part that holds this text.
pub fn write(text: &str, written: Written) -> String {
    match written {
        // An empty text says nothing in every JSON format; a hyphen is a text in one.
        Written::Json => serde_json::to_string(text).expect("a text is JSON"),
        _ if text.is_empty() => NOTHING.to_owned(),
        Written::Plain => text.to_owned(),
        Written::Quoted => text.replace('\\', "\\\\").replace('"', "\\\""),
        Written::Csv(separator) => {
            let is_bare = !text.contains([separator, '"', '\r']);
            if is_bare {
                text.to_owned()
            } else {
                format!("\"{}\"", text.replace('"', "\"\""))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_read_as_their_formats_do() {
        let check = |part: &str, written: Written, expected: &str| assert_eq!(read(part, written), expected, "{part}");
        check("a\\\"b", Written::Plain, "a\\\"b");
        check(r#""a\u0026\"b""#, Written::Json, "a&\"b");
        check("5", Written::Json, "5");
        check(r"\x22a\\", Written::Quoted, "\"a\\");
        check(" a ", Written::Csv(','), "a");
        check("\"a\"\"b,\"", Written::Csv(','), "a\"b,");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_written_is_read_again(text in r#"([a-z?&=]|["\\,; x]|\\x41|[ä\n]){1,20}"#) {
            let text = text.trim();
            prop_assume!(!text.is_empty());
            for written in [Written::Plain, Written::Json, Written::Quoted, Written::Csv(','), Written::Csv(' ')] {
                let part = write(text, written);
                prop_assert_eq!(read(&part, written), text, "{:?}", written);
            }
        }
    }
}
