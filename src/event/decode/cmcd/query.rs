//! A query in its parameters, and the ids of viewers in the CMCD of one.
//!
//! Stands beside `transport`: what finds CMCD in a query and what takes it or others out of one cut a query
//! at the same places.
//!
//! Invariant: the parameters and the `&` between them are the query again; any of them taken out, the others
//! are cut as before.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::grammar::Pairs;
use super::set::identity_in;
use super::transport::{discovered, span_before_decoding};
use crate::event::Identity;

/// Name of CMCD's parameter; it is case-sensitive.
const CMCD: &str = "CMCD";
/// How often a name may be percent-encoded: by the player, the logger, and one proxy.
const DECODES_MAX: i64 = 3;
/// What a value of CMCD is written with where it has to be encoded anew.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `name=value`, or a name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// As it stands in the query.
    pub whole: &'a str,
    pub name: &'a str,
    /// `None`: no `=`.
    pub value: Option<&'a str>,
}

impl Parameter<'_> {
    /// True for `CMCD=`, however its name is encoded.
    pub fn is_cmcd(&self) -> bool {
        self.value.is_some() && plain_name(self.name) == CMCD
    }
}

/// A name freed of percent-encoding.
pub fn plain_name(name: &str) -> Cow<'_, str> {
    let mut name = Cow::Borrowed(name);
    for _ in 0..DECODES_MAX {
        if !name.contains('%') {
            break;
        }
        name = Cow::Owned(percent_decode_str(&name).decode_utf8_lossy().into_owned());
    }
    name
}

/// The parameters of a query (without its `?`), in order. A `&` inside the quotes of a CMCD that some pipeline
/// decoded already ends nothing.
pub fn parameters(query: &str) -> impl Iterator<Item = Parameter<'_>> {
    let mut rest = Some(query);
    std::iter::from_fn(move || {
        let query = rest?;
        let bytes = query.as_bytes();
        let name_end = memchr::memchr2(b'=', b'&', bytes).unwrap_or(query.len());
        let (name, behind) = query.split_at(name_end);
        let mut parameter = Parameter {
            whole: name,
            name,
            value: behind.strip_prefix('='),
        };
        if let Some(value) = parameter.value {
            let end = if parameter.is_cmcd() { cmcd_end(value) } else { plain_end(value) };
            parameter.value = Some(&value[..end]);
            parameter.whole = &query[..name_end + 1 + end];
        }
        rest = query[parameter.whole.len()..].strip_prefix('&');
        Some(parameter)
    })
}

fn plain_end(value: &str) -> usize {
    memchr::memchr(b'&', value.as_bytes()).unwrap_or(value.len())
}

/// The end of CMCD's value: at the next `&` that no quote holds; at the very next one if a quote stays open.
fn cmcd_end(value: &str) -> usize {
    let first = plain_end(value);
    if memchr::memchr(b'"', &value.as_bytes()[..first]).is_none() {
        return first;
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (place, byte) in value.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b'&' if !is_quoted => return place,
            _ => {}
        }
    }
    if is_quoted { first } else { value.len() }
}

/// The places of ids and telling URLs in plain pairs, ascending, whatever their version.
pub fn identities_in_text(text: &str) -> Vec<(Range<usize>, Identity)> {
    let pairs = Pairs::of(text).filter(|pair| !pair.span.is_empty());
    pairs.filter_map(|pair| Some((pair.span.clone(), identity_in(&pair)?))).collect()
}

/// The text with what `replacement` gives in place of each id and telling URL. `None`: all may stay.
pub fn replace_in_text(text: &str, replacement: impl Fn(&str, Identity) -> Option<String>) -> Option<String> {
    let mut out = String::new();
    let mut done = 0;
    for (span, identity) in identities_in_text(text) {
        let Some(replacement) = replacement(&text[span.clone()], identity) else {
            continue;
        };
        out.push_str(&text[done..span.start]);
        out.push_str(&replacement);
        done = span.end;
    }
    if done == 0 {
        return None;
    }
    out.push_str(&text[done..]);
    Some(out)
}

/// The same in what stands behind `CMCD=`, encoded as often as it was.
pub fn replace_in_value(value: &str, replacement: impl Fn(&str, Identity) -> Option<String>) -> Option<String> {
    let (text, depth) = discovered(value);
    let mut out = String::with_capacity(value.len());
    let mut done = 0;
    for (span, identity) in identities_in_text(&text) {
        let sent = span_before_decoding(value, depth, span.clone());
        if sent == (0..value.len()) {
            return replace_in_text(&text, replacement).map(|text| encoded(text, depth));
        }
        let Some(replacement) = replacement(&text[span], identity) else {
            continue;
        };
        out.push_str(&value[done..sent.start]);
        out.push_str(&encoded(replacement, depth));
        done = sent.end;
    }
    if done == 0 {
        return None;
    }
    out.push_str(&value[done..]);
    Some(out)
}

/// The text percent-encoded so many times.
pub fn encoded(mut text: String, depth: i64) -> String {
    for _ in 0..depth {
        text = utf8_percent_encode(&text, ENCODED).to_string();
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_is_cut_at_its_ampersands() {
        let check = |query: &str, expected: &[&str]| {
            let found: Vec<&str> = parameters(query).map(|parameter| parameter.whole).collect();
            assert_eq!(found, expected, "{query}");
        };
        check("", &[""]);
        check("a&b=1&&c=", &["a", "b=1", "", "c="]);
        check("t=\"x&CMCD=bl=0,cid=\"a&b\"&z=\"1", &["t=\"x", "CMCD=bl=0,cid=\"a&b\"", "z=\"1"]);
        check("CMCD=cid=\"a&b=1", &["CMCD=cid=\"a", "b=1"]);
        check("%43MCD=\"&\"&b", &["%43MCD=\"&\"", "b"]);
        check("CMCD&\"&\"", &["CMCD", "\"", "\""]);
    }

    #[test]
    fn ids_are_replaced_at_every_depth() {
        let replace = |id: &str, identity: Identity| Some(format!("{identity:?}-{}", id.len()));
        let check = |value: &str, expected: Option<&str>| {
            assert_eq!(replace_in_value(value, replace).as_deref(), expected, "{value}");
        };
        check("bl=0,sid=\"s\"", None);
        check("com.x-user-id=\"ann\",sid=\"s\"", Some("com.x-user-id=\"User-3\",sid=\"s\""));
        check("bs%2Ccom.x-user-id%3D%22ann%22", Some("bs%2Ccom.x-user-id%3D%22User-3%22"));
        check(
            "bs%252Cx-device-id%253D%2522a%252Fb%2522",
            Some("bs%252Cx-device-id%253D%2522Device-3%2522"),
        );
        check("v=9,com.x-uid=\"ann\"", Some("v=9,com.x-uid=\"User-3\""));
        check("bs%2Cx-uid%3D%22%FF%22", Some("bs%2Cx-uid%3D%22User-3%22"));
        check("bs%2Cnor%3D%22a%253Fb%22", Some("bs%2Cnor%3D%22Url-5%22"));
        check("bs%2Cnor%3D%22..%252Fa%22", None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parameters_are_the_query_again_and_stand_without_their_neighbours(
            query in r#"(CMCD=|%43MCD=|[a-c]=?|&|"|\\|%22|[,=;ä]){0,24}"#,
            kept in any::<u32>(),
        ) {
            let all: Vec<&str> = parameters(&query).map(|parameter| parameter.whole).collect();
            prop_assert_eq!(all.join("&"), query.as_str());
            let some: Vec<&str> = all.iter().enumerate().filter(|(place, _)| kept >> (place % 32) & 1 == 1).map(|(_, whole)| *whole).collect();
            let rest = some.join("&");
            let again: Vec<&str> = parameters(&rest).map(|parameter| parameter.whole).collect();
            prop_assert_eq!(again, if some.is_empty() { vec![""] } else { some });
        }
    }
}
