//! Which bytes of a CDN's record may tell of a viewer: cookies, queries, referrers and the like.
//!
//! Stands beside `CdnRequest`: a decoder, which alone knows how its format writes, marks the places, and
//! `privacy` puts there what the lists of the settings leave of them.
//!
//! Invariant: a place is marked whatever is in it; what may stay is not a decoder's business.

use std::ops::Range;

/// What a marked part holds, and so what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    Cookie,
    Referer,
    /// The query of the request, without its `?`.
    Query,
    /// A path or URL, perhaps with a query.
    Target,
    /// `GET /path?query HTTP/1.1`.
    RequestLine,
    /// All headers, percent-encoded, one a line (CloudFront's `cs-headers`).
    HeadersBlock,
    /// Pairs of CMCD, plain.
    Cmcd,
    /// CMCD's `nor` in a column of its own.
    CmcdUrl,
    /// `cmcd-request=...|cmcd-session=...` (Akamai's `customField`).
    CustomField,
    /// What should have been a request line.
    Garbled,
    /// Whatever a member has whose name tells that it may be any of these, and that no format knows.
    Withheld,
}

/// How a part is written in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// As it is.
    Plain,
    /// A JSON value, the quotes of a text included.
    Json,
    /// A cell of CSV with this separator, its quotes included.
    Csv(char),
    /// Inside quotes, with backslashes as nginx and Apache write them.
    Quoted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivatePart {
    /// Bytes of the payload.
    pub range: Range<usize>,
    pub holds: Holds,
    pub written: Written,
}

/// The marked parts of one record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrivateParts {
    /// In no order.
    pub parts: Vec<PrivatePart>,
    /// The request's CMCD holds an id of a viewer or a device, or a URL with more than a path.
    pub cmcd_tells: bool,
}

impl PrivateParts {
    /// Marks `part`, a piece of `payload`.
    pub fn mark(&mut self, payload: &str, part: &str, holds: Holds, written: Written) {
        if !may_tell(holds, part) {
            return;
        }
        let start = (part.as_ptr() as usize).wrapping_sub(payload.as_ptr() as usize);
        let range = start..start.wrapping_add(part.len());
        self.parts.push(PrivatePart { range, holds, written });
    }
}

/// False for a path that has nothing behind it: nearly all have not.
pub fn may_tell(holds: Holds, part: &str) -> bool {
    let bytes = part.as_bytes();
    let is_path = matches!(holds, Holds::Target | Holds::RequestLine);
    !is_path || memchr::memchr3(b'?', b'#', b'%', bytes).is_some() || memchr::memchr2(b'@', b'\\', bytes).is_some()
}

/// The path of a target: what stands before its query, its fragment and a question mark that was percent-encoded.
pub fn path_of(target: &str) -> &str {
    let bytes = target.as_bytes();
    let mut places = memchr::memchr3_iter(b'?', b'#', b'%', bytes);
    let end = places.find(|place| bytes[*place] != b'%' || is_question_mark(&bytes[place + 1..]));
    &target[..end.unwrap_or(target.len())]
}

/// `3F` behind a percent sign, or the same encoded again.
fn is_question_mark(escape: &[u8]) -> bool {
    matches!(once_encoded(escape), [b'3', b'f' | b'F', ..])
}

/// What stands behind a percent sign that was itself encoded, however often.
fn once_encoded(mut escape: &[u8]) -> &[u8] {
    while let Some(again) = escape.strip_prefix(b"25") {
        escape = again;
    }
    escape
}

/// True for a URL that may have a query, a fragment or a name and password, however it is written.
pub fn names_more_than_a_path(url: &str) -> bool {
    let bytes = url.as_bytes();
    let is_mark = |escape: &[u8]| is_question_mark(escape) || matches!(once_encoded(escape), [b'2', b'3', ..] | [b'4', b'0', ..]);
    let has_mark = memchr::memchr3(b'?', b'#', b'@', bytes).is_some() || memchr::memchr(b'\\', bytes).is_some();
    has_mark || memchr::memchr_iter(b'%', bytes).any(|place| is_mark(&bytes[place + 1..]))
}

/// True for a member that no format knows and that may tell of the viewer, by its name or, if it is an object or
/// a list, by what it has inside.
pub fn tells(name: &str, raw: &str) -> bool {
    is_telling(name) || raw.starts_with(['{', '[']) && tells_inside(raw.as_bytes())
}

fn tells_inside(json: &[u8]) -> bool {
    (0..json.len()).any(|place| has_word(json, place)) || {
        let mut quotes = memchr::memchr_iter(b'"', json);
        quotes.any(|quote| ends_telling(&json[..quote]))
    }
}

/// True for the name of a member, column or label that no format knows and that tells of cookies, headers,
/// credentials, referrers, queries or URLs.
pub fn is_telling(name: &str) -> bool {
    let bytes = name.as_bytes();
    ends_telling(bytes) || (0..bytes.len()).any(|place| has_word(bytes, place))
}

/// True if a word begins here that tells wherever it stands.
fn has_word(bytes: &[u8], place: usize) -> bool {
    const WORDS: [&[u8]; 6] = [b"cookie", b"authorization", b"referer", b"referrer", b"query", b"token"];
    let is_first = matches!(bytes[place] | 0x20, b'c' | b'a' | b'r' | b'q' | b't');
    let is_here = |word: &&[u8]| {
        bytes[place..]
            .get(..word.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(word))
    };
    is_first && WORDS.iter().any(is_here)
}

fn ends_telling(bytes: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 4] = [b"headers", b"url", b"uri", b"credentials"];
    let ends = |ending: &&[u8]| {
        let start = bytes.len().checked_sub(ending.len());
        start.is_some_and(|start| bytes[start..].eq_ignore_ascii_case(ending))
    };
    matches!(bytes.last().map(|byte| byte | 0x20), Some(b's' | b'l' | b'i')) && ENDINGS.iter().any(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_tell_are_known_in_any_spelling() {
        let check = |name: &str, expected: bool| assert_eq!(is_telling(name), expected, "{name}");
        for name in [
            "Cookies",
            "set_cookie",
            "cs(Authorization)",
            "http_referer",
            "Referrer",
            "queryStr",
            "x-query",
            "authToken",
        ] {
            check(name, true);
        }
        for name in ["ResponseHeaders", "requestUrl", "REQUEST_URI", "awsCredentials"] {
            check(name, true);
        }
        for name in ["cs-headers-count", "cs-header-names", "cs-accept", "curious", "cache", "", "coo"] {
            check(name, false);
        }
        assert!(tells("req", r#"[{"x":{"Cookie":"a"}}]"#));
        assert!(tells("req", r#"{"requestUrl":"/a"}"#));
        assert!(!tells("labels", r#"{"zone":"eu","urls":2}"#));
        assert!(!tells("note", "\"my cookie\""));
    }

    #[test]
    fn a_path_ends_before_its_query_however_that_is_encoded() {
        let check = |target: &str, expected: &str| assert_eq!(path_of(target), expected, "{target}");
        check("/a/b.ts", "/a/b.ts");
        check("/a%20b%3a", "/a%20b%3a");
        check("/a?b", "/a");
        check("/a#b?c", "/a");
        check("/a%3Ftoken=1", "/a");
        check("/a%25%252525253fx", "/a%25");
        check("/a%", "/a%");
    }
}
