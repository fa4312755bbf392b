//! Where CMCD travels: a query, four headers, a JSON object, a line of a POST body.
//!
//! Stands before `set`: finds the text of a record, frees it of percent-encoding, and hands over the
//! pairs (events and metrics, 4.5). Headers win over the query.
//!
//! Invariant: a query is decoded as often as its pairs need and no more, for `nor` of version 1 keeps
//! its own encoding inside the quotes.
//! Invariant: spans of user and device ids point into the line as received, whatever its encoding.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode_str;

use super::grammar::{Pair, Pairs, Raw};
use super::keys::{Key, Shard};
use super::query::{Parameter, parameters};
use super::set::{CmcdSet, Found, is_readable};
use crate::event::Reject;
use crate::event::decode::text::{Object, Scalar, Vocabulary, content, without_bom};

/// How often a query may be percent-encoded: by the player, the logger, and one proxy.
const DECODES_MAX: i64 = 3;
/// Pairs of an ordinary record, so that collecting them allocates once.
const PAIRS_USUAL: usize = 40;

impl CmcdSet {
    /// A line of pairs as in a POST body or a header: not percent-encoded.
    pub fn from_text(line: &str) -> CmcdSet {
        CmcdSet::read(&found(line, None), false)
    }

    /// The first `CMCD` of a query (without its `?`). `None`: the query has none.
    pub fn from_query(query: &str) -> Option<CmcdSet> {
        parameter(query).map(CmcdSet::from_query_value)
    }

    /// What stands behind `CMCD=` in a query, encoded as often as it may be.
    pub fn from_query_value(value: &str) -> CmcdSet {
        let (text, depth) = discovered(value);
        let mut set = CmcdSet::read(&found(&text, None), false);
        set.decode_depth = Some(depth);
        for (span, _) in &mut set.identity_spans {
            *span = span_before_decoding(value, depth, span.clone());
        }
        set
    }

    /// The first `CMCD` in the query of a URL, or of a path with a query.
    pub fn from_url(url: &str) -> Option<CmcdSet> {
        let (before, query) = url.split_once('?')?;
        let query = query.split('#').next().unwrap_or(query);
        let mut set = CmcdSet::from_query(query)?;
        set.request_url = Some(before.to_owned()).filter(|before| !before.is_empty());
        Some(set)
    }

    /// The `CMCD-*` among these headers, by name and value. `None`: there are none.
    pub fn from_headers<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<CmcdSet> {
        let mut pairs = Vec::new();
        let mut has_header = false;
        for (name, value) in headers {
            if let Some(shard) = Shard::of_header(name) {
                has_header = true;
                pairs.extend(found(value, Some(shard)));
            }
        }
        let mut set = has_header.then(|| CmcdSet::read(&pairs, false))?;
        // Several texts were read, so no place in one line can be named.
        set.identity_spans.clear();
        Some(set)
    }

    /// What one request carried: its headers, and its query only if no header is CMCD's (2.5).
    pub fn from_request<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>, query: Option<&str>) -> Option<CmcdSet> {
        CmcdSet::from_headers(headers).or_else(|| CmcdSet::from_query(query?))
    }

    /// The JSON mode of version 1: one object with the same keys.
    ///
    /// Errors: `MalformedJson`, `NotAnObject`, `TooDeep`.
    pub fn from_json(json: &str) -> Result<CmcdSet, Reject> {
        let object: Object<'_, NoKey> = Object::parse(json)?;
        let json = without_bom(json);
        let mut pairs = Vec::with_capacity(PAIRS_USUAL);
        for (key, raw) in object.members() {
            if let Some(value) = json_value(raw) {
                let inside = content(raw);
                let start = offset_in(json, inside);
                let span = start..start + inside.len();
                let pair = Pair { key, value, span };
                pairs.push(Found::new(None, pair));
            }
        }
        Ok(CmcdSet::read(&pairs, true))
    }
}

/// The set of one line of a POST body, its spans pointing into the line.
pub(super) fn set_of_line(line: &str) -> Result<CmcdSet, Reject> {
    let text = without_bom(line).trim_ascii();
    if text.starts_with('{') {
        let mut set = CmcdSet::from_json(text)?;
        shift(&mut set, offset_in(line, text));
        return Ok(set);
    }
    let Some((before, query)) = query_of_line(text) else {
        let mut set = CmcdSet::from_text(text);
        shift(&mut set, offset_in(line, text));
        return Ok(set);
    };
    let query = query.split('#').next().unwrap_or(query);
    let Some(value) = parameter(query) else {
        return Ok(CmcdSet::from_text(text));
    };
    let mut set = CmcdSet::from_query_value(value);
    set.request_url = Some(before.to_owned()).filter(|before| !before.is_empty());
    shift(&mut set, offset_in(line, value));
    Ok(set)
}

/// A line that is a query or a URL with CMCD, as what stands before the query and the query.
///
/// A URL inside a record is none: a quote stands before it, or a pair with a reserved key.
pub(super) fn query_of_line(line: &str) -> Option<(&str, &str)> {
    let bytes = line.as_bytes();
    let place = memchr::memchr_iter(b'C', bytes).find(|place| bytes[*place..].starts_with(b"CMCD="))?;
    let before = &line[..place];
    if before.contains('"') || !(before.is_empty() || before.ends_with(['?', '&'])) {
        return None;
    }
    if let Some((first, _)) = before.split_once(',')
        && Key::find(first.split('=').next().unwrap_or(first)).is_some()
    {
        return None;
    }
    match before.split_once('?') {
        Some((url, _)) => Some((url, &line[url.len() + 1..])),
        None => Some(("", line)),
    }
}

fn shift(set: &mut CmcdSet, by: usize) {
    for (span, _) in &mut set.identity_spans {
        *span = span.start + by..span.end + by;
    }
}

/// Where `part`, a piece of `whole`, begins in it.
pub(super) fn offset_in(whole: &str, part: &str) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

fn found(text: &str, shard: Option<Shard>) -> Vec<Found<'_>> {
    let commas = text.bytes().filter(|byte| *byte == b',').count();
    let mut pairs = Vec::with_capacity((commas + 1).min(PAIRS_USUAL));
    for pair in Pairs::of(text) {
        pairs.push(Found::new(shard, pair));
    }
    pairs
}

/// The value of the first parameter named `CMCD`.
pub(super) fn parameter(query: &str) -> Option<&str> {
    parameters(query).find(Parameter::is_cmcd)?.value
}

/// The text at the first depth of decoding at which its pairs can be read, and the depth.
///
/// If there is none, the first depth with the most readable reserved keys.
pub(super) fn discovered(value: &str) -> (Cow<'_, str>, i64) {
    let mut best = (Cow::Borrowed(value), 0, 0);
    let mut current = without_plus(value);
    for depth in 0..=DECODES_MAX {
        let (readable, is_settled) = judged(&current);
        if is_settled {
            return (current, depth);
        }
        if readable > best.2 || depth == 0 {
            best = (current.clone(), depth, readable);
        }
        if !current.contains('%') {
            break;
        }
        // On the way into a form, a space became a plus and a plus became `%2B`.
        let source = match depth {
            0 if value.contains('+') => Cow::Owned(value.replace('+', " ")),
            0 => Cow::Borrowed(value),
            _ => current,
        };
        current = Cow::Owned(percent_decode_str(&source).decode_utf8_lossy().into_owned());
    }
    (best.0, best.1)
}

/// A query that nobody encoded: a plus between members is a space, one inside quotes may be meant.
fn without_plus(value: &str) -> Cow<'_, str> {
    if !value.contains('+') {
        return Cow::Borrowed(value);
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    let replaced = value.chars().map(|character| {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            '+' if !is_quoted => return ' ',
            _ => {}
        }
        character
    });
    Cow::Owned(replaced.collect())
}

/// How many reserved keys can be read at this depth, and whether no encoding is left outside quotes.
fn judged(text: &str) -> (usize, bool) {
    if memchr::memchr(b'=', text.as_bytes()).is_none() && text.contains('%') {
        // Encoded still, as nearly all values are at first: not worth a look at every byte.
        return (0, false);
    }
    let mut readable = 0;
    let mut is_settled = true;
    for pair in Pairs::of(text) {
        let is_text = matches!(pair.value, Raw::Text(..));
        let is_list = matches!(pair.value, Raw::List(_));
        if pair.key.contains('%') || !is_text && !is_list && text[pair.span.clone()].contains('%') {
            is_settled = false;
        }
        let reserved = Key::find(pair.key).is_some_and(|key| is_readable(key, &pair.value));
        readable += usize::from(reserved);
    }
    (readable, is_settled && readable > 0)
}

/// The bytes of a query value that became `span` by decoding it `depth` times.
///
/// All of the value where decoding met bytes that are no text, which moves places: too much is
/// covered then, never too little.
pub(super) fn span_before_decoding(value: &str, depth: i64, span: Range<usize>) -> Range<usize> {
    let mut bytes: Vec<u8> = value.bytes().collect();
    let mut places: Vec<usize> = (0..=bytes.len()).collect();
    for _ in 0..depth {
        let mut decoded = Vec::with_capacity(bytes.len());
        let mut decoded_places = Vec::with_capacity(bytes.len() + 1);
        let mut at = 0;
        while at < bytes.len() {
            decoded_places.push(places[at]);
            let escape = bytes.get(at..at + 3).and_then(escaped_byte);
            decoded.push(escape.unwrap_or(bytes[at]));
            at += if escape.is_some() { 3 } else { 1 };
        }
        decoded_places.push(places[bytes.len()]);
        if std::str::from_utf8(&decoded).is_err() {
            return 0..value.len();
        }
        (bytes, places) = (decoded, decoded_places);
    }
    match (places.get(span.start), places.get(span.end)) {
        (Some(start), Some(end)) => *start..*end,
        _ => 0..value.len(),
    }
}

/// The byte that `%2F` stands for.
fn escaped_byte(escape: &[u8]) -> Option<u8> {
    let [b'%', high, low] = escape else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    // Two hexadecimal digits make one byte.
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

/// The JSON reader's own vocabulary is empty: keys are looked up like those of the other transports.
#[derive(Clone, Copy)]
enum NoKey {}

impl Vocabulary for NoKey {
    fn find(_: &str) -> Option<NoKey> {
        None
    }

    fn index(self) -> usize {
        match self {}
    }
}

/// A JSON value in the words of the dictionary; an array becomes a list. `None`: it says nothing.
fn json_value(raw: &str) -> Option<Raw<'_>> {
    Some(match Scalar::read(raw)? {
        Scalar::Text(text) => Raw::Text(text, ""),
        Scalar::Bool(value) => Raw::Boolean(value),
        Scalar::Number(text) => number(text).unwrap_or(Raw::Word(text)),
        Scalar::Nested(json) => json_list(json).map_or(Raw::Malformed, |inside| Raw::List(Cow::Owned(inside))),
    })
}

/// A JSON number without an exponent.
fn number(text: &str) -> Option<Raw<'_>> {
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    text.bytes().all(plain).then_some(Raw::Number(text, ""))
}

/// A JSON array of numbers and texts as the inside of a list.
fn json_list(json: &str) -> Option<String> {
    let members: Vec<serde_json::Value> = serde_json::from_str(json).ok()?;
    let mut inside = String::with_capacity(json.len());
    for member in members {
        if !inside.is_empty() {
            inside.push(' ');
        }
        match member {
            serde_json::Value::Number(number) => inside.push_str(&number.to_string()),
            serde_json::Value::String(text) => {
                let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
                inside.push_str(&format!("\"{escaped}\""));
            }
            _ => return None,
        }
    }
    Some(inside)
}

#[cfg(test)]
mod tests {
    use super::super::vectors::{CONTEXT, encoded, rendered};
    use super::super::{decode_event, decode_request};
    use super::*;

    fn check(set: Option<CmcdSet>, expected: &str, depth: Option<i64>) {
        let set = set.unwrap();
        assert_eq!((rendered(&set).to_string().as_str(), set.decode_depth()), (expected, depth));
    }

    #[test]
    fn the_number_of_decodes_is_found_and_not_assumed() {
        let check_query = |query: &str, expected: &str, depth: i64| check(CmcdSet::from_query(query), expected, Some(depth));
        check_query(
            "CMCD=br%253D3200%252Cbs%252Csid%253D%25226e2fb550%2522",
            r#"{"br":3200,"bs":true,"sid":"6e2fb550"}"#,
            2,
        );
        check_query("CMCD=bl=0,cid=%22a%2Fb%22,sid=%22s%22", r#"{"bl":0,"cid":"a/b","sid":"s"}"#, 1);
        check_query("CMCD=bl=0,nor=\"..%2Fa\"", r#"{"bl":0,"nor":"..%2Fa"}"#, 0);
        check_query("CMCD=bl%3D0%2Cnor%3D%22..%252Fa%22", r#"{"bl":0,"nor":"..%2Fa"}"#, 1);
        check_query("CMCD=bl%25253D1", r#"{"bl":1}"#, 3);
        check_query("CMCD=bl%2525253D1", "{}", 0);
        check_query("CMCD=su", r#"{"su":true}"#, 0);
        check_query("CMCD=", "{}", 0);
        check_query("CMCD=bl%3D1%2Ccid%3D%22%FF%22", "{\"bl\":1,\"cid\":\"\u{fffd}\"}", 1);
    }

    #[test]
    fn a_plus_is_a_space_in_a_query_and_nowhere_else() {
        let codes = |query: &str| rendered(&CmcdSet::from_query(query).unwrap())["ec"].to_string();
        assert_eq!(codes("CMCD=ec%3D(%22a%22+%22b%2Bc%22)%2Cv%3D2"), r#"["a","b+c"]"#);
        assert_eq!(codes("CMCD=ec%253D(%2522a%2522+%2522b%252Bc%2522)%252Cv%253D2"), r#"["a","b+c"]"#);
        assert_eq!(codes(r#"CMCD=ec=("a"+"b+c"),v=2"#), r#"["a","b+c"]"#);
        let line = CmcdSet::from_text(r#"sid="a+b",v=2"#);
        assert_eq!(line.session_id(), Some("a+b"));
    }

    #[test]
    fn the_first_parameter_of_exactly_this_name_is_taken() {
        check(CmcdSet::from_query("a=CMCD&CMCD=bl%3D1&CMCD=bl%3D2"), r#"{"bl":1}"#, Some(1));
        check(CmcdSet::from_query("%43MCD=bl%3D1"), r#"{"bl":1}"#, Some(1));
        check(CmcdSet::from_query("CMCD=cid=\"a&b\",bl=1&x=2"), r#"{"bl":1,"cid":"a&b"}"#, Some(0));
        check(CmcdSet::from_query("CMCD=cid=\"a,bl=1&x=2"), r#"{"bl":1}"#, Some(0));
        for none in ["", "cmcd=bl%3D1", "xCMCD=bl%3D1", "a=1&b", "CMCD"] {
            assert_eq!(CmcdSet::from_query(none), None, "{none}");
        }
        assert_eq!(CmcdSet::from_url("https://a.example/CMCD=bl%3D1"), None);
        let set = CmcdSet::from_url("https://a.example/1.mp4?x=1&CMCD=bl%3D1,ot%3Dv#t=1").unwrap();
        assert_eq!(set.request_url.as_deref(), Some("https://a.example/1.mp4"));
        let event = decode_request(&set, 1_776_150_889_000);
        assert_eq!(
            (event.url.as_deref(), event.buffer_video_ms),
            (Some("https://a.example/1.mp4"), Some(1))
        );
        assert_eq!(event.kind.map(|kind| kind.as_str()), Some("response"));
    }

    #[test]
    fn a_url_inside_a_record_does_not_make_the_record_a_url() {
        let kind = |line: &str| decode_event(line, &CONTEXT).unwrap().source;
        assert_eq!(kind("e=rr,url=\"https://a/1?CMCD=bl%3D1\",v=2"), "cmcd2_event");
        assert_eq!(kind("e=rr,url=https://a/1?x=1&CMCD=bl%3D1,v=2"), "cmcd2_event");
        assert_eq!(kind("v=2&d=1&CMCD=bl%3D1"), "cmcd1_log");
        assert_eq!(kind("https://a/1,2?CMCD=bl%3D(1)%2Cv%3D2"), "cmcd2_log");
    }

    #[test]
    fn headers_win_over_the_query() {
        let query = Some("CMCD=bl%3D1");
        check(CmcdSet::from_request([("cmcd-request", "bl=2")], query), r#"{"bl":2}"#, None);
        check(CmcdSet::from_request([("accept", "*/*")], query), r#"{"bl":1}"#, Some(1));
        assert_eq!(CmcdSet::from_request([("accept", "*/*")], None), None);
    }

    #[test]
    fn a_logged_header_block_loses_only_the_pair_at_its_cut() {
        let block = |filler: usize| {
            let session = format!("CMCD-Session:sid%3D%22s%22%2Cv%3D2%2Ccid%3D%22{}", "x".repeat(filler));
            format!("Host:a.example%0ACMCD-Request:%20bl%3D(5000)%2Csu%0A{session}")
        };
        let whole = CmcdSet::from_logged_headers(&format!("{}%22", block(3))).unwrap();
        assert_eq!(
            rendered(&whole).to_string(),
            r#"{"bl":[5000],"cid":"xxx","sid":"s","su":true,"v":2}"#
        );
        let cut = CmcdSet::from_logged_headers(&block(800)).unwrap();
        assert_eq!(rendered(&cut).to_string(), r#"{"bl":[5000],"sid":"s","su":true,"v":2}"#);
        assert_eq!(cut.faults().iter().map(|fault| fault.rule).collect::<Vec<_>>(), ["cut_by_logger"]);
        assert_eq!(CmcdSet::from_logged_headers("Host:a.example"), None);
    }

    #[test]
    fn the_json_of_version_1_reads_like_its_query() {
        let json = r#"{"bl":21300,"bs":true,"sid":"6e2f","ot":"v","pr":1.08,"nor":"..%2Fa","com.example-x":"y"}"#;
        let set = CmcdSet::from_json(json).unwrap();
        let line = CmcdSet::from_text(r#"bl=21300,bs,sid="6e2f",ot=v,pr=1.08,nor="..%2Fa",com.example-x="y""#);
        assert_eq!(rendered(&set), rendered(&line));
        assert_eq!((set.faults(), set.version()), (&[][..], 1));
        let set = CmcdSet::from_json(r#"{"v":2,"bl":[5000,"x"],"ec":["E\"1","E2"],"br":[3000],"d":1e3,"su":null,"bs":{}}"#).unwrap();
        assert_eq!(rendered(&set).to_string(), r#"{"br":[3000],"ec":["E\"1","E2"],"v":2}"#);
        let lost: Vec<&str> = set.faults().iter().map(|fault| fault.key).collect();
        assert_eq!(lost, ["bl", "d", "bs"]);
        assert_eq!(CmcdSet::from_json("{\"bl\":").unwrap_err().reason.as_str(), "malformed_json");
        assert_eq!(CmcdSet::from_json("[1]").unwrap_err().reason.as_str(), "not_an_object");
    }

    #[test]
    fn spans_of_ids_point_into_the_line_however_it_is_encoded() {
        let record = "com.a-user-id=\"änn b\",bl=5000,com.a-device-id=tv1,sid=\"s\"";
        let once = encoded(record);
        let check = |line: &str, user: &str, device: &str| {
            let event = decode_event(line, &CONTEXT).unwrap();
            let spans: Vec<&str> = event.identity_spans.iter().map(|(span, _)| &event.payload[span.clone()]).collect();
            assert_eq!(spans, [user, device], "{line}");
            assert_eq!((event.user_id.as_deref(), event.device_id.as_deref()), (Some("änn b"), Some("tv1")));
            assert!(event.ext.is_empty());
        };
        check(record, "änn b", "tv1");
        check(&format!(" \u{feff}{record}")[1..], "änn b", "tv1");
        check(&format!("CMCD={once}"), "%C3%A4nn%20b", "tv1");
        check(&format!("https://a/1?x=1&CMCD={}", encoded(&once)), "%25C3%25A4nn%2520b", "tv1");
        check(r#" {"com.a-user-id":"änn b","bl":5000,"com.a-device-id":"tv1"}"#, "änn b", "tv1");
        let broken = decode_event("CMCD=bl%3D1%2Ccom.a-uid%3D%22a%FFb%22", &CONTEXT).unwrap();
        assert_eq!(
            &broken.payload[broken.identity_spans[0].0.clone()],
            "bl%3D1%2Ccom.a-uid%3D%22a%FFb%22"
        );
    }
}
