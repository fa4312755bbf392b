//! The combined format of nginx and Apache (nginx.org: `ngx_http_log_module`; httpd.apache.org:
//! `mod_log_config`), alone or with the labelled cells that docs/cdn-logs.md adds behind it.
//!
//! ```text
//! 203.0.113.7 - - [14/Nov/2023:22:13:20 +0000] "GET /a HTTP/1.1" 200 5 "-" "curl/8" rt=0.189 host="h"
//! ```
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`.
//!
//! Event time: `ts` (nginx's `$msec`) or the time in brackets, which nginx and our Apache format write when
//! the response has ended. Apache's plain `%t` is when the request came.
//!
//! Invariant: cells behind the user agent are bound by their label; their order is nothing, an unknown one
//! is passed over.
//! Invariant: the name of a logged-in user and cells that nothing names go nowhere, and do not stay in the line.

use std::borrow::Cow;
use std::net::IpAddr;

use super::json_row::{Outcome, Row, is_said, offset_ms, rfc3339_ms};
use crate::event::decode::DecodeContext;
use crate::event::decode::text::{decimal, reject, utc_ms, without_bom};
use crate::event::private::{Holds, Written, is_telling};
use crate::event::{CdnRequest, Reject, RejectReason};

/// The format says nothing of the CDN; the label `cdn` does.
const CDN: &str = "combined";
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// True for a line with an address, a time in brackets and a quoted request.
pub(in crate::event::decode) fn recognises(line: &str) -> bool {
    let Some((before, rest)) = without_bom(line).split_once(" [") else {
        return false;
    };
    let Some((time, rest)) = rest.split_once(']') else {
        return false;
    };
    let words = before.split(' ').count();
    (3..=4).contains(&words) && time_ms(time).is_some() && rest.trim_start().starts_with('"')
}

/// One line, without its line end. Sets neither `event_id` nor `client_prefix`.
///
/// Errors: `MissingEventTime` if no time stands in brackets, `WrongColumnCount` if the line ends before its
/// bytes, `BadValue` if a quote is not closed, `EventTimeOutOfRange`.
pub(in crate::event::decode) fn decode(payload: &str, context: &DecodeContext) -> Result<CdnRequest, Reject> {
    let line = without_bom(payload);
    let missing = "no time stands in brackets behind the address; the line is not in the combined format";
    let no_time = || reject(RejectReason::MissingEventTime, missing);
    let (before, rest) = line.split_once(" [").ok_or_else(no_time)?;
    let (time, rest) = rest.split_once(']').ok_or_else(no_time)?;

    let mut reading = Reading {
        row: Row::new(CDN),
        end_ms: time_ms(time),
    };
    reading.client(before);
    let mut cells = Cells {
        line,
        at: line.len() - rest.len(),
    };
    reading.request_line(cells.needed("request")?);
    reading.labelled("status", cells.needed("status")?);
    reading.labelled("bytes", cells.needed("bytes")?);

    let mut unlabelled = ["referer", "user_agent"].into_iter();
    while let Some(cell) = cells.next()? {
        match cell.label.or_else(|| unlabelled.next()) {
            Some(label) => reading.labelled(label, cell),
            // Nobody knows which header of the request this is.
            None => reading.private(&cell, Holds::Withheld),
        }
    }
    reading.row.finish(reading.end_ms, missing, payload, context)
}

struct Reading<'a> {
    row: Row<'a>,
    end_ms: Option<i64>,
}

impl<'a> Reading<'a> {
    fn private(&mut self, cell: &Cell<'a>, holds: Holds) {
        if is_said(&cell.text) {
            self.row.private(cell.raw, holds, cell.written);
        }
    }

    /// Address, identity and user; Apache's `vhost_combined` has the host before them.
    fn client(&mut self, before: &'a str) {
        let mut words = before.split(' ');
        let first = words.next().unwrap_or("");
        let second = words.next().unwrap_or("");
        let is_address = |word: &str| word.parse::<IpAddr>().is_ok();
        let address = if !is_address(first) && is_address(second) {
            let host = first.split(':').next().unwrap_or(first);
            self.row.host(host);
            second
        } else {
            first
        };
        let address_end = before.len() - before[before.find(address).unwrap_or(0)..].len() + address.len();
        for name in before[address_end..].split(' ').filter(|word| is_said(word)) {
            self.row.private(name, Holds::Withheld, Written::Plain);
        }
        self.row.request.client_address = is_said(address).then(|| address.to_owned());
    }

    /// `GET /path?query HTTP/1.1`. What a scanner sent instead is no path.
    fn request_line(&mut self, cell: Cell<'a>) {
        let sent = cell.text.as_ref();
        if !is_said(sent) {
            return;
        }
        let mut words = sent.split(' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        let (Some(method), Some(target), None) = (method, target, words.next()) else {
            return self.garbled(&cell);
        };
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        if !is_method || target.is_empty() {
            return self.garbled(&cell);
        }
        self.private(&cell, Holds::RequestLine);
        self.row.request.method = Some(method.to_owned());
        self.row.url(target);
        if let Some(version) = version {
            self.row.protocol_version(version);
        }
    }

    fn garbled(&mut self, cell: &Cell<'a>) {
        self.row.flag("bad_value");
        self.private(cell, Holds::Garbled);
    }

    fn labelled(&mut self, label: &str, cell: Cell<'a>) {
        if !is_said(&cell.text) {
            return;
        }
        match label {
            "referer" => self.private(&cell, Holds::Referer),
            "cmcd_request" | "cmcd_object" | "cmcd_status" | "cmcd_session" => self.private(&cell, Holds::Cmcd),
            // A custom log may name any header so.
            _ if is_telling(label) => self.private(&cell, Holds::Withheld),
            _ => {}
        }
        let cell = cell.text;
        let row = &mut self.row;
        match label {
            "status" => row.request.status = row.number(&cell, 0),
            "bytes" | "bytes_sent" => row.request.sc_bytes = row.number(&cell, 0),
            "referer" => row.request.referer = Some(cell.into_owned()),
            "user_agent" => row.user_agent(&cell),
            "ts" => self.end_ms = decimal(&cell, 3).or(self.end_ms),
            "rt" => row.request.time_taken_ms = row.number(&cell, 3),
            "rt_us" => row.request.time_taken_ms = row.microseconds(&cell),
            "ttfb" => row.request.ttfb_ms = row.number(&cell, 3),
            "ttfb_us" => row.request.ttfb_ms = row.microseconds(&cell),
            "uht" => row.request.origin_ttfb_ms = last_of_tries(&cell).and_then(|last| row.number(last, 3)),
            "urt" => row.request.origin_time_ms = last_of_tries(&cell).and_then(|last| row.number(last, 3)),
            "cs" => {
                row.outcome = Outcome::of_word(&cell);
                row.keep("cache_status", cell);
            }
            // Apache's %X, where X is a connection that broke before the answer was whole.
            "conn" => row.request.is_aborted = Some(cell == "X"),
            "rid" => row.request.request_id = Some(cell.into_owned()),
            _ => self.labelled_request(label, cell),
        }
    }

    /// What the viewer sent, and where it arrived.
    fn labelled_request(&mut self, label: &str, cell: Cow<'a, str>) {
        let row = &mut self.row;
        match label {
            "host" => row.host(&cell),
            "scheme" => row.request.protocol = Some(cell.into_owned()),
            "ssl" => row.ssl_protocol(&cell),
            "cipher" => row.ssl_cipher(&cell),
            "xff" => row.forwarded_for(&cell),
            "port" => row.request.client_port = row.number(&cell, 0),
            "req" => row.request.cs_bytes = row.number(&cell, 0),
            "ct" => row.request.content_type = Some(cell.into_owned()),
            "range" => row.range(&cell),
            "pop" => row.edge_location(&cell),
            "cdn" => row.request.cdn = Some(cell.into_owned()),
            "cmcd_request" | "cmcd_object" | "cmcd_status" | "cmcd_session" => {
                row.cmcd_header(&label.replace('_', "-"), cell);
            }
            _ => {}
        }
    }
}

/// nginx lists a time for each server it tried: `0.001, 0.040` and `-, 0.040 : 0.002`. The last one answered.
fn last_of_tries(cell: &str) -> Option<&str> {
    let last = cell.rsplit([',', ':']).next().map(str::trim)?;
    is_said(last).then_some(last)
}

/// Epoch ms of `14/Nov/2023:22:13:20 +0000`, or of RFC 3339 (nginx's `$time_iso8601`).
fn time_ms(text: &str) -> Option<i64> {
    if let Some(time_ms) = rfc3339_ms(text) {
        return Some(time_ms);
    }
    let (date, rest) = text.split_once(':')?;
    let mut parts = date.split('/');
    let (day, name, year) = (parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|month| *month == name)? + 1;
    let date = format!("{year}-{month:02}-{day}");
    utc_ms(&date, rest.get(..8)?)?.checked_sub(offset_ms(rest.get(8..)?)?)
}

struct Cell<'a> {
    label: Option<&'a str>,
    text: Cow<'a, str>,
    /// As it stands in the line, without its quotes.
    raw: &'a str,
    written: Written,
}

impl<'a> Cell<'a> {
    fn bare(label: Option<&'a str>, raw: &'a str) -> Cell<'a> {
        Cell {
            label,
            text: Cow::Borrowed(raw),
            raw,
            written: Written::Plain,
        }
    }
}

/// The cells of a line, from a place on: bare, quoted, or either behind a label.
struct Cells<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Cells<'a> {
    fn needed(&mut self, name: &str) -> Result<Cell<'a>, Reject> {
        match self.next()? {
            Some(cell) if cell.label.is_none() => Ok(cell),
            _ => {
                let detail = format!(
                    "the line has no {name} at byte {}; it was cut, or is not in the combined format",
                    self.at
                );
                Err(reject(RejectReason::WrongColumnCount, detail))
            }
        }
    }

    fn next(&mut self) -> Result<Option<Cell<'a>>, Reject> {
        let rest = &self.line[self.at..];
        let cell = rest.trim_start_matches(' ');
        self.at += rest.len() - cell.len();
        if cell.is_empty() {
            return Ok(None);
        }
        if cell.starts_with('"') {
            return self.quoted(None).map(Some);
        }
        let end = cell.find(' ').unwrap_or(cell.len());
        let label_end = cell.find('=').filter(|place| *place < end && is_label(&cell[..*place]));
        let Some(label_end) = label_end else {
            self.at += end;
            return Ok(Some(Cell::bare(None, &cell[..end])));
        };
        let label = Some(&cell[..label_end]);
        if cell[label_end + 1..].starts_with('"') {
            self.at += label_end + 1;
            return self.quoted(label).map(Some);
        }
        self.at += end;
        Ok(Some(Cell::bare(label, &cell[label_end + 1..end])))
    }

    /// The text between the quote here and the next one that no backslash hides.
    fn quoted(&mut self, label: Option<&'a str>) -> Result<Cell<'a>, Reject> {
        let inner = &self.line[self.at + 1..];
        let mut is_hidden = false;
        for (place, byte) in inner.bytes().enumerate() {
            if byte == b'"' && !is_hidden {
                self.at += place + 2;
                let raw = &inner[..place];
                return Ok(Cell {
                    label,
                    text: unescaped(raw),
                    raw,
                    written: Written::Quoted,
                });
            }
            is_hidden = byte == b'\\' && !is_hidden;
        }
        let detail = format!("the quote at byte {} is not closed; the line was cut", self.at);
        Err(reject(RejectReason::BadValue, detail))
    }
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Both servers write `\xHH` for bytes they mistrust; Apache also `\"`, `\\`, `\n`, `\r` and `\t`.
pub(in crate::event::decode) fn unescaped(text: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let (escaped, length) = match (*byte, bytes.get(at + 1)) {
            (b'\\', Some(b'x')) => (hex_byte(bytes.get(at + 2..at + 4)), 4),
            (b'\\', Some(b'n')) => (Some(b'\n'), 2),
            (b'\\', Some(b'r')) => (Some(b'\r'), 2),
            (b'\\', Some(b't')) => (Some(b'\t'), 2),
            (b'\\', Some(mark @ (b'"' | b'\\'))) => (Some(*mark), 2),
            _ => (None, 1),
        };
        plain.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { length } else { 1 };
    }
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}

fn hex_byte(digits: Option<&[u8]>) -> Option<u8> {
    let digits = std::str::from_utf8(digits?)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::private::PrivateParts;

    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_800_000_000_000 };
    const DOCS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cdn-logs.md"));
    const PLAIN: &str = r#"203.0.113.77 - frank [14/Nov/2023:23:13:20 +0100] "GET /vod/9/seg_00001.m4s?CMCD=bl%3D21600 HTTP/1.1" 206 4995 "https://player.example.com/" "Mozilla/5.0 (Macintosh; \"Intel\" \xC3\xA9)""#;
    const LABELS: &str = r#"ts=1700000000.257 rt=0.189 uht="0.041" urt="-, 0.050" cs=EXPIRED bytes_sent=5227 req=512 host="media.example.net" scheme=https ssl="TLSv1.3" cipher="TLS_AES_128_GCM_SHA256" xff="198.51.100.7" port=51734 rid=4bde6381cd1747e18c2a1aaa424a1156 ct="video/mp4" range="bytes=0-4994" cmcd_request="bl=21600" cmcd_object="-" cmcd_status="-" cmcd_session="sid=\x226e2fb550\x22""#;

    fn owned(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn plain(payload: &str) -> CdnRequest {
        CdnRequest {
            cdn: owned("combined"),
            event_ts_ms: 1_700_000_000_000,
            sc_bytes: Some(4_995),
            method: owned("GET"),
            uri_stem: owned("/vod/9/seg_00001.m4s"),
            uri_query: owned("CMCD=bl%3D21600"),
            status: Some(206),
            referer: owned("https://player.example.com/"),
            user_agent: owned("Mozilla/5.0 (Macintosh; \"Intel\" é)"),
            decode_depth: Some(0),
            protocol_version: owned("HTTP/1.1"),
            client_address: owned("203.0.113.77"),
            payload: payload.to_owned(),
            ..CdnRequest::default()
        }
    }

    fn labelled(payload: &str) -> CdnRequest {
        CdnRequest {
            event_ts_ms: 1_700_000_000_257,
            request_id: owned("4bde6381cd1747e18c2a1aaa424a1156"),
            sc_bytes: Some(5_227),
            cs_bytes: Some(512),
            host: owned("media.example.net"),
            host_header: owned("media.example.net"),
            result_type: owned("Miss"),
            response_result_type: owned("Miss"),
            detailed_result_type: owned("Miss"),
            protocol: owned("https"),
            ssl_protocol: owned("TLSv1.3"),
            ssl_cipher: owned("TLS_AES_128_GCM_SHA256"),
            time_taken_ms: Some(189),
            origin_ttfb_ms: Some(41),
            origin_time_ms: Some(50),
            cmcd_carrier: Some("headers"),
            forwarded_for: vec!["198.51.100.7".to_owned()],
            client_port: Some(51_734),
            content_type: owned("video/mp4"),
            range_start: Some(0),
            range_end: Some(4_994),
            ext: vec![("cache_status".to_owned(), "EXPIRED".to_owned())],
            ..plain(payload)
        }
    }

    #[test]
    fn a_plain_line_is_understood() {
        assert!(recognises(PLAIN));
        let mut request = decode(PLAIN, &CONTEXT).unwrap();
        request.private = PrivateParts::default();
        assert_eq!(request, plain(PLAIN));
    }

    #[test]
    fn labelled_cells_are_understood_in_any_order() {
        let check = |line: &str| {
            let mut request = decode(line, &CONTEXT).unwrap();
            let event = request.player_event.take().unwrap();
            assert_eq!(
                (event.native_session_id.as_deref(), event.buffer_ms),
                (Some("6e2fb550"), Some(21_600))
            );
            // What is marked in the payload is tested with what becomes of it (`privacy`).
            request.private = PrivateParts::default();
            assert_eq!(request, labelled(line));
        };
        check(&format!("{PLAIN} {LABELS}"));
        let mut cells: Vec<&str> = LABELS.split(' ').collect();
        let quoted_blank = cells.iter().position(|cell| *cell == "urt=\"-,").unwrap();
        cells.remove(quoted_blank + 1);
        cells[quoted_blank] = "urt=\"-, 0.050\"";
        cells.reverse();
        check(&format!("{PLAIN}  {} unknown=1 x", cells.join(" ")));
    }

    #[test]
    fn the_published_log_formats_have_the_labels_of_the_fixture() {
        let labels = |text: &str| -> Vec<String> {
            let words = text
                .split_whitespace()
                .filter_map(|word| word.trim_start_matches('\'').split_once('='));
            words.map(|(label, _)| label.to_owned()).filter(|label| is_label(label)).collect()
        };
        let (_, nginx) = DOCS.split_once("log_format playhead").unwrap();
        let (nginx, _) = nginx.split_once(';').unwrap();
        assert_eq!(labels(nginx), labels(LABELS));
    }

    #[test]
    fn relatives_of_the_format_are_understood() {
        let decoded = |line: &str| decode(line, &CONTEXT).unwrap();
        let common = decoded(r#"2001:db8::7 - - [2023-11-14T22:13:20+00:00] "HEAD /a HTTP/2.0" 200 -"#);
        assert_eq!(
            (common.client_address.as_deref(), common.event_ts_ms),
            (Some("2001:db8::7"), 1_700_000_000_000)
        );
        assert_eq!((common.sc_bytes, common.user_agent), (None, None));

        let vhost = decoded(
            r#"media.example.net:443 203.0.113.7 - - [14/Nov/2023:22:13:20 +0000] "GET /a HTTP/1.1" 499 0 "-" "-" rt_us=189400 conn=X cdn=own pop=lhr1"#,
        );
        assert_eq!(
            (vhost.host.as_deref(), vhost.client_address.as_deref()),
            (Some("media.example.net"), Some("203.0.113.7"))
        );
        assert_eq!(
            (vhost.status, vhost.is_aborted, vhost.time_taken_ms),
            (Some(0), Some(true), Some(189))
        );
        assert_eq!((vhost.cdn.as_deref(), vhost.pop.as_deref()), (Some("own"), Some("LHR")));

        let broken = decoded(r#"203.0.113.7 - - [14/Nov/2023:22:13:20 +0000] "\x16\x03\x01" 400 157 "-" "-""#);
        assert_eq!((broken.uri_stem, broken.method, broken.dq_flags), (None, None, vec!["bad_value"]));
        let silent = decoded(r#"203.0.113.7 - - [14/Nov/2023:22:13:20 +0000] "-" 408 0 "-" "-""#);
        assert!(silent.dq_flags.is_empty());
    }

    #[test]
    fn cut_and_foreign_lines_are_refused_with_the_place() {
        let check = |line: &str, expected: RejectReason, detail: &str| {
            let refused = decode(line, &CONTEXT).unwrap_err();
            assert_eq!(refused.reason, expected, "{line}");
            assert!(refused.detail.contains(detail), "{}", refused.detail);
        };
        check("", RejectReason::MissingEventTime, "brackets");
        check("garbage \u{7}", RejectReason::MissingEventTime, "brackets");
        check(&PLAIN[..30], RejectReason::MissingEventTime, "brackets");
        check(&PLAIN[..60], RejectReason::BadValue, "byte 50");
        let status = PLAIN.find(" 206").unwrap();
        check(
            &PLAIN[..status],
            RejectReason::WrongColumnCount,
            &format!("no status at byte {status}"),
        );
        check(
            &PLAIN[..status + 4],
            RejectReason::WrongColumnCount,
            &format!("no bytes at byte {}", status + 4),
        );
        check(&PLAIN[..PLAIN.len() - 1], RejectReason::BadValue, "is not closed");
        check(&PLAIN.replace("Nov", "Nov."), RejectReason::MissingEventTime, "brackets");
        check(&PLAIN.replace("2023", "2009"), RejectReason::EventTimeOutOfRange, "2010");
        assert!(!recognises("2020-05-06\t08:00:00 [x] \"y\""));
        assert!(!recognises("{\"a\": [1]}"));
    }

    #[test]
    fn times_are_read_with_their_offset() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(time_ms(text), expected, "{text}");
        check("14/Nov/2023:22:13:20 +0000", Some(1_700_000_000_000));
        check("14/Nov/2023:15:13:20 -0700", Some(1_700_000_000_000));
        check("14/nov/2023:22:13:20 +0000", None);
        check("31/Feb/2023:22:13:20 +0000", None);
        check("14/Nov/2023", None);
        check("14/Nov/2023:22:13:2é", None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_survived(text in any::<String>(), tail in r#"[a-z="\\ x0-9é,:-]{0,60}"#, cut in 0..600usize) {
            let _ = (decode(&text, &CONTEXT), recognises(&text));
            let line = format!("{PLAIN} {LABELS}");
            let _ = decode(line.get(..cut).unwrap_or(&line), &CONTEXT);
            let _ = decode(&format!("a - - [14/Nov/2023:22:13:20 +0000] {tail}"), &CONTEXT);
            let _ = decode(&format!("{PLAIN} {tail}"), &CONTEXT);
        }
    }
}
