//! A JSON body, as HTTP senders post it, into the raw text of its records.
//!
//! Stands before the decoders: the receiver hands a body in, and each record that comes out is one
//! line for `Decoder::decode`. A record is borrowed from the body unless it has to be unwrapped (a
//! text or base64 inside `Data`) or brought onto one line.
//!
//! Accepted: one object, on one line or several; a list of objects; one object a line (NDJSON); and
//! each of them with records wrapped as `{"Records":[{"Data":…}]}`, where `Data` is an object, a JSON
//! text, or base64 of one (Amazon Kinesis).
//!
//! Invariant: a record holds no line end, is a JSON object and keeps its bytes, blanks between them apart.
//! Invariant: a bad record costs itself, not its neighbours.
//! Invariant: no message quotes the body; it names places and counts.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::RECORD_BYTES_MAX;
use super::text::{check_nesting, reject, without_bom};
use crate::event::{Reject, RejectReason};

/// Records of one body: at ordinary sizes some 5 MiB, and a batch of Kinesis or Firehose has 500.
pub const RECORDS_PER_BODY_MAX: usize = 10_000;

/// One record, or why it is none.
pub type Record<'a> = Result<Cow<'a, str>, Reject>;

/// The records of a body in their order; none of a blank body.
///
/// Errors: `TooLarge` where the body has more than `RECORDS_PER_BODY_MAX` records. Nothing of it is
/// taken then, so that the sender can send it again in parts.
pub fn records(body: &str) -> Result<Vec<Record<'_>>, Reject> {
    let body = without_bom(body).trim_ascii();
    let mut records = Records { found: Vec::new() };
    if body.is_empty() {
        return Ok(records.found);
    }
    if is_one_value(body) {
        records.add_value(body)?;
        return Ok(records.found);
    }
    for line in body.lines() {
        if !line.trim_ascii().is_empty() {
            records.add_value(line.trim_ascii())?;
        }
    }
    if records.found.iter().all(Result::is_err) && is_one_broken_object(body) {
        // One bad record, not one a line.
        records.found.truncate(1);
    }
    Ok(records.found)
}

/// The whole body is one JSON value, or a list whose elements are judged one by one.
fn is_one_value(body: &str) -> bool {
    if body.starts_with('[') {
        return elements(body).is_some_and(|elements| elements.rest.trim_ascii().is_empty());
    }
    !body.contains('\n') || serde_json::from_str::<IgnoredAny>(body).is_ok()
}

/// The first line opens something that it does not close, and no later line begins a record.
fn is_one_broken_object(body: &str) -> bool {
    let mut lines = body.lines();
    let first = lines.next().unwrap_or_default();
    let is_open = matches!(serde_json::from_str::<IgnoredAny>(first), Err(error) if error.is_eof());
    is_open && !lines.any(|line| line.starts_with(['{', '[']))
}

struct Records<'a> {
    found: Vec<Record<'a>>,
}

/// `{"Records":[…]}` of the IVS client and of Kinesis; Firehose writes it in lower case.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "Records", alias = "records")]
    records: Option<&'a RawValue>,
}

/// One element of `Records`.
#[derive(Deserialize)]
struct Carrier<'a> {
    #[serde(borrow, rename = "Data", alias = "data")]
    data: Option<&'a RawValue>,
}

impl<'a> Records<'a> {
    fn push(&mut self, record: Record<'a>) -> Result<(), Reject> {
        if self.found.len() == RECORDS_PER_BODY_MAX {
            let detail = format!("the body has more than {RECORDS_PER_BODY_MAX} records; send it in parts");
            return Err(reject(RejectReason::TooLarge, detail));
        }
        self.found.push(record);
        Ok(())
    }

    /// A record, a list of records, or an envelope of them.
    fn add_value(&mut self, value: &'a str) -> Result<(), Reject> {
        if value.starts_with('[') {
            return self.add_list(value, false);
        }
        match enveloped(value) {
            Some(list) => self.add_list(list, true),
            None => self.push(self.record(value)),
        }
    }

    fn add_list(&mut self, list: &'a str, is_wrapped: bool) -> Result<(), Reject> {
        let found = elements(list).unwrap_or(Elements {
            texts: vec![list],
            rest: "",
        });
        for element in found.texts {
            let record = if is_wrapped {
                self.unwrapped(element)
            } else {
                self.record(element)
            };
            self.push(record)?;
        }
        if !found.rest.trim_ascii().is_empty() {
            self.push(Err(malformed(self.number(), 1)))?;
        }
        Ok(())
    }

    /// Place of the next record, counted from 1.
    fn number(&self) -> usize {
        self.found.len() + 1
    }

    fn record(&self, text: &'a str) -> Record<'a> {
        check(text, self.number())?;
        Ok(on_one_line(Cow::Borrowed(text)))
    }

    /// The record inside `Data`; an element without `Data` is a record itself.
    fn unwrapped(&self, element: &'a str) -> Record<'a> {
        check(element, self.number())?;
        let data = serde_json::from_str::<Carrier<'a>>(element).ok().and_then(|carrier| carrier.data);
        let Some(data) = data.map(RawValue::get) else {
            return Ok(on_one_line(Cow::Borrowed(element)));
        };
        if !data.starts_with('"') {
            return self.record(data);
        }
        let Some(record) = text_inside(data) else {
            let detail = format!(
                "Data of record {} is neither an object, nor the JSON text of one, nor base64 of that",
                self.number()
            );
            return Err(reject(RejectReason::BadValue, detail));
        };
        check(&record, self.number())?;
        Ok(on_one_line(Cow::Owned(record)))
    }
}

/// The list under `Records`, if the object has one.
fn enveloped(object: &str) -> Option<&str> {
    // Nearly all records have no such word, and are not parsed for it.
    memmem::find(object.as_bytes(), b"ecords\"")?;
    let envelope = serde_json::from_str::<Envelope>(object).ok()?;
    envelope.records.map(RawValue::get).filter(|list| list.starts_with('['))
}

/// The JSON object that a quoted text holds, plain or in base64.
fn text_inside(quoted: &str) -> Option<String> {
    let text: String = serde_json::from_str(quoted).ok()?;
    if text.trim_ascii_start().starts_with('{') {
        return Some(text.trim_ascii().to_owned());
    }
    let decoded = String::from_utf8(from_base64(text.trim_ascii())?).ok()?;
    let decoded = decoded.trim_ascii();
    decoded.starts_with('{').then(|| decoded.to_owned())
}

/// A record within the bounds that is a sound JSON object.
fn check(text: &str, number: usize) -> Result<(), Reject> {
    if text.len() > RECORD_BYTES_MAX {
        let detail = format!(
            "record {number} is {} bytes long, at most {RECORD_BYTES_MAX} are accepted",
            text.len()
        );
        return Err(reject(RejectReason::TooLarge, detail));
    }
    check_nesting(text)?;
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Err(malformed(number, error.column()));
    }
    if !text.starts_with('{') {
        let detail = format!("record {number} of the body is JSON but not an object");
        return Err(reject(RejectReason::NotAnObject, detail));
    }
    Ok(())
}

fn malformed(number: usize, column: usize) -> Reject {
    let detail = format!("record {number} of the body is not JSON at its column {column}");
    reject(RejectReason::MalformedJson, detail)
}

/// A record on one line. Line ends stand between the tokens of JSON only, never in a text.
fn on_one_line(record: Cow<'_, str>) -> Cow<'_, str> {
    if memchr::memchr2(b'\n', b'\r', record.as_bytes()).is_none() {
        return record;
    }
    let mut compact = String::with_capacity(record.len());
    let mut texts = Texts::default();
    for letter in record.chars() {
        let in_text = texts.is_inside(letter);
        if in_text || !letter.is_ascii_whitespace() {
            compact.push(letter);
        }
    }
    Cow::Owned(compact)
}

/// Follows the quotes of JSON.
#[derive(Default)]
struct Texts {
    in_text: bool,
    escaped: bool,
}

impl Texts {
    /// True if the letter belongs to a text, its quotes included.
    fn is_inside(&mut self, letter: char) -> bool {
        let was_inside = self.in_text;
        if self.escaped {
            self.escaped = false;
        } else if letter == '\\' && self.in_text {
            self.escaped = true;
        } else if letter == '"' {
            self.in_text = !self.in_text;
        }
        was_inside || self.in_text
    }
}

/// The elements of a list, each as it stands, and what follows the list.
struct Elements<'a> {
    texts: Vec<&'a str>,
    rest: &'a str,
}

/// Splits a list at its commas by quotes and brackets alone, so that an element that is no JSON does
/// not hide the others. `None`: the list is not closed.
fn elements(list: &str) -> Option<Elements<'_>> {
    let inside = list.strip_prefix('[')?;
    let mut texts = Vec::new();
    let (mut quotes, mut depth, mut start) = (Texts::default(), 0usize, 0);
    for (offset, letter) in inside.char_indices() {
        if quotes.is_inside(letter) {
            continue;
        }
        match letter {
            '{' | '[' => depth += 1,
            ',' if depth == 0 => {
                texts.push(inside[start..offset].trim_ascii());
                if texts.len() > RECORDS_PER_BODY_MAX {
                    // Too many already; the rest need not be looked at to say so.
                    return Some(Elements { texts, rest: "" });
                }
                start = offset + 1;
            }
            ']' if depth == 0 => {
                let last = inside[start..offset].trim_ascii();
                if !last.is_empty() || !texts.is_empty() {
                    texts.push(last);
                }
                let rest = &inside[offset + 1..];
                return Some(Elements { texts, rest });
            }
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// Base64 of RFC 4648, standard or URL-safe letters, padded or not; `None` if it is none.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 || digits.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::NESTING_MAX;
    use super::*;

    /// Records as they are, rejects by the name of their reason.
    fn check(body: &str, expected: &[&str]) {
        let found: Vec<String> = records(body)
            .unwrap()
            .into_iter()
            .map(|record| record.map_or_else(|reject| reject.reason.as_str().to_owned(), Cow::into_owned))
            .collect();
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn one_object_is_one_record() {
        check("", &[]);
        check(" \r\n\n ", &[]);
        check(r#"{"a":1}"#, &[r#"{"a":1}"#]);
        check("\u{feff} {\"a\":1} \r\n", &[r#"{"a":1}"#]);
        check(r#"{"a": 1,  "a": 1.50}"#, &[r#"{"a": 1,  "a": 1.50}"#]);
    }

    #[test]
    fn an_object_over_several_lines_comes_out_on_one() {
        check(
            "{\n  \"a b\": \"c \\\" d\",\r\n  \"e\": [1, 2]\n}",
            &[r#"{"a b":"c \" d","e":[1,2]}"#],
        );
        check("{\"a\":\n{\"b\":1}}", &[r#"{"a":{"b":1}}"#]);
    }

    #[test]
    fn a_list_is_its_elements() {
        check("[]", &[]);
        check(" [ ]\n", &[]);
        check(r#"[{"a":1}, {"b":"],["}]"#, &[r#"{"a":1}"#, r#"{"b":"],["}"#]);
        check("[\n {\"a\":\n 1},\n {\"b\":2}\n]\n", &[r#"{"a":1}"#, r#"{"b":2}"#]);
    }

    #[test]
    fn a_line_is_a_record() {
        check("{\"a\":1}\n{\"b\":2}\r\n\n{\"c\":3}", &[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]);
        check("[{\"a\":1}]\n[{\"b\":2},{\"c\":3}]", &[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]);
    }

    #[test]
    fn a_bad_record_does_not_take_the_others_along() {
        let (bad, other) = ("malformed_json", "not_an_object");
        check("{\"a\":1}\n{\"b\":\n{\"c\":3}\n", &[r#"{"a":1}"#, bad, r#"{"c":3}"#]);
        check("{\"b\":\n{\"c\":3}\nword\n7\n", &[bad, r#"{"c":3}"#, bad, other]);
        check(
            r#"[{"a":1},{"b":},{"c":3},7,,"x"]"#,
            &[r#"{"a":1}"#, bad, r#"{"c":3}"#, other, bad, other],
        );
        check(r#"[{"a":1},]"#, &[r#"{"a":1}"#, bad]);
        check(r#"[{"a":1}"#, &[bad]);
        check(r#"[{"a":1}] x"#, &[r#"{"a":1}"#, bad]);
        check("[{\"a\":1},\n{\"b\":2}", &[bad, r#"{"b":2}"#]);
        check("[[{\"a\":1}]]", &[other]);
        check("hello", &[bad]);
        check("hello\nworld", &[bad, bad]);
    }

    #[test]
    fn one_broken_object_over_many_lines_is_one_bad_record() {
        check("{\n  \"a\": 1,\n  \"b\": oops\n}", &["malformed_json"]);
        check("{\"a\":\n{\"b\":\n", &["malformed_json", "malformed_json"]);
    }

    #[test]
    fn wrapped_records_come_out_of_their_data() {
        check(
            r#"{"Records":[{"Data":{"a":1}},{"Data":{"b":2},"PartitionKey":"p"}]}"#,
            &[r#"{"a":1}"#, r#"{"b":2}"#],
        );
        check("{\n \"Records\": [\n  {\"Data\": {\n \"a\": 1}}\n ]\n}", &[r#"{"a":1}"#]);
        check(r#"{"Records":[{"Data":"{\"a\":\"\\n\"}\n"}]}"#, &[r#"{"a":"\n"}"#]);
        check(r#"{"Records":[{"Data":"{\n\"a\":1}"}]}"#, &[r#"{"a":1}"#]);
        check(
            r#"{"Records":[{"Data":"eyJhIjoxfQ=="},{"Data":"eyJhIjoxfQo"}]}"#,
            &[r#"{"a":1}"#, r#"{"a":1}"#],
        );
        check(r#"{"requestId":"r","records":[{"data":"eyJhIjoiw7w_In0="}]}"#, &[r#"{"a":"ü?"}"#]);
        check(r#"{"Records":[]}"#, &[]);
        check(r#"{"Records":[{"a":1}]}"#, &[r#"{"a":1}"#]);
        check("{\"Records\":[{\"Data\":{\"a\":1}}]}\n{\"b\":2}", &[r#"{"a":1}"#, r#"{"b":2}"#]);
        check(r#"[{"Records":[{"Data":{"a":1}}]}]"#, &[r#"{"Records":[{"Data":{"a":1}}]}"#]);
    }

    #[test]
    fn what_is_in_data_but_no_record_is_said_so() {
        let wrapped = |data: &str| format!(r#"{{"Records":[{{"Data":{data}}},{{"Data":{{"b":2}}}}]}}"#);
        for (data, reason) in [
            (r#""hello world""#, "bad_value"),
            (r#""aGVsbG8=""#, "bad_value"),
            (r#""_w==""#, "bad_value"),
            (r#""""#, "bad_value"),
            (r#""{\"a\":""#, "malformed_json"),
            ("[1]", "not_an_object"),
            ("7", "not_an_object"),
        ] {
            check(&wrapped(data), &[reason, r#"{"b":2}"#]);
        }
        check(&wrapped("null"), &[r#"{"Data":null}"#, r#"{"b":2}"#]);
        check(r#"{"Records":7}"#, &[r#"{"Records":7}"#]);
    }

    #[test]
    fn a_body_at_the_bound_is_read_and_one_record_more_is_not() {
        let body = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
        assert_eq!(records(&body(RECORDS_PER_BODY_MAX)).unwrap().len(), RECORDS_PER_BODY_MAX);
        let reject = records(&body(RECORDS_PER_BODY_MAX + 1)).unwrap_err();
        assert_eq!(reject.reason, RejectReason::TooLarge);
        let lines = "{}\n".repeat(RECORDS_PER_BODY_MAX + 1);
        assert_eq!(records(&lines).unwrap_err().reason, RejectReason::TooLarge);
    }

    #[test]
    fn a_record_too_long_or_too_deep_is_refused_alone() {
        let long = format!(r#"[{{"a":"{}"}},{{"b":2}}]"#, "x".repeat(RECORD_BYTES_MAX));
        check(&long, &["too_large", r#"{"b":2}"#]);
        let nested = |levels: usize| format!(r#"{}{}"#, r#"{"a":"#.repeat(levels) + "1", "}".repeat(levels));
        let (fits, deep) = (nested(NESTING_MAX), nested(NESTING_MAX + 1));
        check(&format!("[{fits},{deep}]"), &[&fits, "too_deep"]);
    }

    #[test]
    fn a_hostile_body_takes_linear_time() {
        for body in [
            "[".repeat(1 << 21),
            "[\n".repeat(RECORDS_PER_BODY_MAX),
            "{\"a\":\n".repeat(RECORDS_PER_BODY_MAX),
            format!("[{}", "{},\n".repeat(RECORDS_PER_BODY_MAX)),
            format!("[{}]", ",".repeat(1 << 24)),
            "\"".repeat(1 << 21),
        ] {
            let started = std::time::Instant::now();
            let _ = records(&body);
            assert!(started.elapsed().as_secs() < 5, "{} bytes took {:?}", body.len(), started.elapsed());
        }
    }

    #[test]
    fn base64_is_read_in_both_alphabets() {
        let check = |text: &str, expected: Option<&[u8]>| assert_eq!(from_base64(text).as_deref(), expected, "{text}");
        check("", Some(b""));
        check("Zg==", Some(b"f"));
        check("Zm8=", Some(b"fo"));
        check("Zm9v", Some(b"foo"));
        check("Zm8", Some(b"fo"));
        check("-_-_", Some(&[0xfb, 0xff, 0xbf]));
        check("+/+/", Some(&[0xfb, 0xff, 0xbf]));
        check("Z", None);
        check("Z===", None);
        check("Zm9v!", None);
        check("Zm=v", None);
    }

    proptest! {
        #[test]
        fn any_body_gives_objects_on_one_line_or_rejects(body in "[\\[\\]{}\",:\\\\ \na1]{0,40}|\\PC{0,60}") {
            for record in records(&body).unwrap() {
                let Ok(record) = record else { continue };
                prop_assert!(!record.contains(['\n', '\r']));
                prop_assert!(serde_json::from_str::<serde_json::Value>(&record).is_ok_and(|value| value.is_object()));
            }
        }

        #[test]
        fn every_way_of_sending_says_the_same(values in prop::collection::vec("\\PC{0,12}", 0..6)) {
            let sent: Vec<String> = values.iter().map(|value| serde_json::json!({ "a": value }).to_string()).collect();
            let wrap = |data: &dyn Fn(&String) -> String| {
                let list: Vec<String> = sent.iter().map(|record| format!(r#"{{"Data":{}}}"#, data(record))).collect();
                format!(r#"{{"Records":[{}]}}"#, list.join(","))
            };
            let bodies = [
                sent.join("\n"),
                format!("[{}]", sent.join(",")),
                format!("[\n{}\n]", sent.join(",\n")),
                wrap(&String::clone),
                wrap(&|record| serde_json::to_string(record).unwrap()),
            ];
            for body in bodies {
                let found: Vec<String> = records(&body).unwrap().into_iter().map(|record| record.unwrap().into_owned()).collect();
                prop_assert_eq!(&found, &sent);
            }
        }
    }
}
