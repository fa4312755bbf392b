//! Sets that a CDN's log holds, with the text that each was read from.
//!
//! Stands after `transport`, below `cdn::cmcd_in_log`, which knows where a log may hold them. The text
//! is plain pairs whatever carried them, so that equal sets become equal events.
//!
//! Invariant: spans of user and device ids point into `text`.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::grammar::Pairs;
use super::keys::Shard;
use super::query::parameters;
use super::request_mode;
use super::rule;
use super::set::CmcdSet;
use super::transport::{discovered, offset_in, parameter};
use crate::event::{KeyFault, PlayerEvent};

/// CloudFront keeps so many bytes of `cs-headers`: a longer block lost its end.
const LOGGED_HEADERS_BYTES: usize = 800;

/// What a column of all headers cannot hold as it is.
const IN_BLOCK: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'"').add(b'\\');

/// One set and its text.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedSet {
    pub set: CmcdSet,
    /// Pairs separated by commas, free of percent-encoding.
    pub text: String,
}

impl LoggedSet {
    /// Plain pairs.
    pub fn from_text(text: String) -> LoggedSet {
        let set = CmcdSet::from_text(&text);
        LoggedSet { set, text }
    }

    /// The first `CMCD` of a query. `None`: the query has none.
    pub fn from_query(query: &str) -> Option<LoggedSet> {
        let (text, depth) = discovered(parameter(query)?);
        let mut logged = LoggedSet::from_text(text.into_owned());
        logged.set.decode_depth = Some(depth);
        Some(logged)
    }

    /// The `CMCD-*` among these headers, by name and plain value. `None`: there are none.
    pub fn from_headers(headers: &[(&str, &str)]) -> Option<LoggedSet> {
        let mut set = CmcdSet::from_headers(headers.iter().copied())?;
        let values = headers.iter().filter(|(name, _)| Shard::of_header(name).is_some());
        let values: Vec<&str> = values.map(|(_, value)| value.trim()).filter(|value| !value.is_empty()).collect();
        let text = values.join(",");
        set.identity_spans = CmcdSet::from_text(&text).identity_spans;
        Some(LoggedSet { set, text })
    }

    /// The same of a column of all headers: percent-encoded once, one header a line, cut by the logger
    /// at 800 bytes, which spoils the last pair (4.5 rule 1).
    pub fn from_headers_block(block: &str) -> Option<LoggedSet> {
        let lines = percent_decode_str(block).decode_utf8_lossy();
        let mut headers: Vec<(&str, &str)> = lines.lines().filter_map(|line| line.split_once(':')).collect();
        let was_cut = block.len() >= LOGGED_HEADERS_BYTES && drop_last_pair(headers.last_mut());
        let mut logged = LoggedSet::from_headers(&headers)?;
        if was_cut {
            logged.note_cut();
        }
        Some(logged)
    }

    /// The logger cut the set short, and its last pair is gone.
    pub fn note_cut(&mut self) {
        self.set.faults.push(KeyFault {
            key: rule::CUSTOM,
            rule: rule::CUT_BY_LOGGER,
        });
    }

    pub fn was_cut(&self) -> bool {
        self.set.faults.iter().any(|fault| fault.rule == rule::CUT_BY_LOGGER)
    }

    /// True if it holds an id of a viewer or a device or a URL with more than a path, or was not looked at.
    pub fn may_tell(&self) -> bool {
        self.set.is_ignored() || !self.set.identity_spans.is_empty()
    }

    /// True if nothing of it may be used (`v` above 2), or no reserved key stands in it.
    pub fn says_nothing(&self) -> bool {
        self.set.is_ignored() || !self.set.has_reserved_key()
    }

    /// The player at `at_ms`, the time of the request; the text is the event's payload.
    pub fn into_event(self, at_ms: i64) -> Box<PlayerEvent> {
        let mut event = request_mode::logged(&self.set, at_ms);
        event.identity_spans = self.set.identity_spans;
        event.payload = self.text;
        event
    }
}

impl CmcdSet {
    /// The set of a column of all headers, see `LoggedSet::from_headers_block`.
    pub fn from_logged_headers(block: &str) -> Option<CmcdSet> {
        let mut set = LoggedSet::from_headers_block(block)?.set;
        set.identity_spans.clear();
        Some(set)
    }
}

/// What a column of all headers may keep: its CMCD, as `LoggedSet::from_headers_block` reads it, each value by
/// `value`. Empty: it has none.
pub fn headers_block_of_cmcd(block: &str, value: impl Fn(&str) -> String) -> String {
    let lines = percent_decode_str(block).decode_utf8_lossy();
    let mut headers: Vec<(&str, &str)> = lines.lines().filter_map(|line| line.split_once(':')).collect();
    if block.len() >= LOGGED_HEADERS_BYTES {
        drop_last_pair(headers.last_mut());
    }
    headers.retain(|(name, _)| Shard::of_header(name).is_some());
    let lines: Vec<String> = headers.iter().map(|(name, text)| format!("{name}:{}", value(text))).collect();
    let mut kept = utf8_percent_encode(&lines.join("\n"), IN_BLOCK).to_string();
    if kept.len() >= LOGGED_HEADERS_BYTES {
        // Long as it is, it was not cut here: its last line is no CMCD.
        kept.push_str("%0Aend:");
    }
    kept
}

/// The items `name=value` of a field that a service fills itself, between `|`: names without blanks, values free of
/// percent-encoding.
pub fn custom_items(sent: &str) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    sent.split('|').filter_map(|item| {
        let (name, value) = item.split_once('=')?;
        let plain = if value.contains('=') {
            Cow::Borrowed(value)
        } else {
            percent_decode_str(value).decode_utf8_lossy()
        };
        (!plain.is_empty() && plain != "-").then_some((name.trim(), plain))
    })
}

/// What such a field may keep: its CMCD, each value by `value`. Empty: it has none.
pub fn custom_items_of_cmcd(sent: &str, value: impl Fn(&str) -> String) -> String {
    let items = custom_items(sent).filter(|(name, _)| Shard::of_header(name).is_some());
    let kept = items.map(|(name, text)| {
        let text = value(&text);
        // A value without `=` would be decoded, and one with `|` be cut.
        let is_plain = text.contains('=') && !text.contains('|');
        let written = if is_plain {
            text
        } else {
            utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string()
        };
        format!("{name}={written}")
    });
    kept.collect::<Vec<String>>().join("|")
}

/// Takes the last pair off a CMCD header. False for a header of another kind.
fn drop_last_pair(header: Option<&mut (&str, &str)>) -> bool {
    let Some((name, value)) = header else {
        return false;
    };
    if Shard::of_header(name).is_none() {
        return false;
    }
    let start = Pairs::of(value).last().map_or(0, |pair| offset_in(value, pair.key));
    *value = &value[..start];
    true
}

/// The query without any parameter named `CMCD`. `None`: it has none, and stays as it is.
pub fn without_parameter(query: &str) -> Option<String> {
    if !parameters(query).any(|parameter| parameter.is_cmcd()) {
        return None;
    }
    let others: Vec<&str> = parameters(query)
        .filter(|parameter| !parameter.is_cmcd())
        .map(|parameter| parameter.whole)
        .collect();
    Some(others.join("&"))
}

#[cfg(test)]
mod tests {
    use super::super::vectors::rendered;
    use super::*;

    #[test]
    fn a_query_loses_its_cmcd_and_nothing_else() {
        let check = |query: &str, expected: Option<&str>| {
            assert_eq!(without_parameter(query).as_deref(), expected, "{query}");
        };
        check("CMCD=bl%3D1", Some(""));
        check("a=1&CMCD=bl%3D1&b=2", Some("a=1&b=2"));
        check("a=1&b&%43MCD=bl%3D1", Some("a=1&b"));
        check("CMCD=bl%3D1&a=1&CMCD=bl%3D2&c", Some("a=1&c"));
        check("x=CMCD&CMCD=cid=\"a&b\",bl=1&y=\"", Some("x=CMCD&y=\""));
        check("a==1&CMCD=su", Some("a==1"));
        for query in ["", "a=1&b=2", "cmcd=bl%3D1", "CMCD", "xCMCD=1"] {
            check(query, None);
        }
    }

    #[test]
    fn every_carrier_gives_the_same_pairs_and_spans_in_their_text() {
        let expected = r#"{"bl":1,"br":3200,"sid":"s"}"#;
        let headers = [
            ("CMCD-Object", "br=3200"),
            ("accept", "*/*"),
            ("cmcd-request", "bl=1"),
            ("CMCD-Session", " sid=\"s\",com.a-uid=\"ann\" "),
        ];
        let block = "Host:a%0D%0ACMCD-Object:br=3200%0acmcd-request:bl=1%0ACMCD-Session:sid=%22s%22,com.a-uid=%22ann%22%0A";
        let found = [
            LoggedSet::from_text("br=3200,bl=1,sid=\"s\",com.a-uid=\"ann\"".to_owned()),
            LoggedSet::from_query("x=1&CMCD=br%253D3200%252Cbl%253D1%252Csid%253D%2522s%2522%252Ccom.a-uid%253D%2522ann%2522").unwrap(),
            LoggedSet::from_headers(&headers).unwrap(),
            LoggedSet::from_headers_block(block).unwrap(),
        ];
        for logged in found {
            assert_eq!(rendered(&logged.set).to_string(), expected);
            assert_eq!(logged.text, "br=3200,bl=1,sid=\"s\",com.a-uid=\"ann\"");
            let event = logged.into_event(1_600_000_000_000);
            let spans: Vec<&str> = event.identity_spans.iter().map(|(span, _)| &event.payload[span.clone()]).collect();
            assert_eq!(spans, ["ann"]);
        }
        assert_eq!(LoggedSet::from_headers(&[("accept", "*/*")]), None);
        assert_eq!(LoggedSet::from_query("a=1"), None);
    }

    #[test]
    fn the_pair_at_the_cut_is_dropped_and_named() {
        let cut = |bytes: usize| {
            let begin = "CMCD-Object:br=3200%0ACMCD-Request:bl=1,mtp=254";
            let block = format!("X:{}%0A{begin}", "x".repeat(bytes - begin.len() - 5));
            assert_eq!(block.len(), bytes);
            LoggedSet::from_headers_block(&block).unwrap()
        };
        let whole = cut(LOGGED_HEADERS_BYTES - 1);
        assert_eq!((whole.text.as_str(), whole.set.faults().len()), ("br=3200,bl=1,mtp=254", 0));
        let spoiled = cut(LOGGED_HEADERS_BYTES);
        assert_eq!(rendered(&spoiled.set).to_string(), r#"{"bl":1,"br":3200}"#);
        assert_eq!(
            spoiled.set.faults(),
            [KeyFault {
                key: rule::CUSTOM,
                rule: rule::CUT_BY_LOGGER
            }]
        );
    }

    #[test]
    fn a_set_that_says_nothing_is_known_as_such() {
        let check = |text: &str, expected: bool| assert_eq!(LoggedSet::from_text(text.to_owned()).says_nothing(), expected, "{text}");
        check("bl=1,v=3", true);
        check("", true);
        check("foo=1", true);
        check("com.a-x=\"y\"", true);
        check("bl=x", false);
    }
}
