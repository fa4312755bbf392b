//! Akamai DataStream 2, JSON lines (techdocs.akamai.com/datastream2: "Data set parameters", "Log format").
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`.
//!
//! Event time: `reqTimeSec` is when the edge accepted the request. The end of the response is that plus
//! `reqEndTimeMSec` + `turnAroundTimeMSec` + `transferTimeMSec`, else plus `downloadTime`; where the
//! stream selects none of them, it is the time of acceptance. `turnAroundTimeMSec` spans the edge and
//! everything behind it, so it is never the origin's time; that is in `breadcrumbs`, if logged.
//!
//! Invariant: values may be texts or numbers; `-`, `null` and a field that is not selected are `None`.
//! Invariant: `edgeIP` and the addresses of `breadcrumbs` go nowhere; of `customField` only CMCD is read.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::json_row::{Members, Outcome, Row, decoded_url, has_names, value};
use crate::event::decode::DecodeContext;
use crate::event::decode::cmcd::custom_items;
use crate::event::decode::text::decimal;
use crate::event::private::Holds;
use crate::event::{CdnRequest, Reject};

const CDN: &str = "akamai";
/// What the error of a viewer that went begins with.
const CLIENT_ABORT: &str = "ERR_CLIENT_ABORT";

/// True if the object is one of these records. `is_whole`: it must also be sound.
pub(in crate::event::decode) fn recognises(json: &str, is_whole: bool) -> bool {
    has_names(json, is_whole, &["reqTimeSec", "statusCode"])
}

/// One line, without its line end. Sets neither `event_id` nor `client_prefix`.
///
/// Errors: those of JSON, `MissingEventTime`, `EventTimeOutOfRange`.
pub(in crate::event::decode) fn decode(payload: &str, context: &DecodeContext) -> Result<CdnRequest, Reject> {
    let object = Members::parse(payload)?;
    let mut reading = Reading::new();
    for (key, raw) in object.members() {
        if let Some(value) = value(raw) {
            reading.member(key, raw, value);
        }
    }
    reading.finish(payload, context)
}

struct Reading<'a> {
    row: Row<'a>,
    accepted_ms: Option<i64>,
    request_end_ms: Option<i64>,
    turn_around_ms: Option<i64>,
    transfer_ms: Option<i64>,
    download_ms: Option<i64>,
    body_bytes: Option<i64>,
    is_hit: Option<bool>,
    is_cacheable: Option<bool>,
    port: Option<i64>,
    query: Option<String>,
}

impl<'a> Reading<'a> {
    fn new() -> Reading<'a> {
        Reading {
            row: Row::new(CDN),
            accepted_ms: None,
            request_end_ms: None,
            turn_around_ms: None,
            transfer_ms: None,
            download_ms: None,
            body_bytes: None,
            is_hit: None,
            is_cacheable: None,
            port: None,
            query: None,
        }
    }

    fn member(&mut self, key: &str, raw: &'a str, value: Cow<'a, str>) {
        let row = &mut self.row;
        if let Some(holds) = holds(key) {
            row.private_json(raw, holds);
        }
        match key {
            "reqTimeSec" => self.accepted_ms = decimal(&value, 3),
            "reqEndTimeMSec" => self.request_end_ms = row.number(&value, 0),
            "turnAroundTimeMSec" => self.turn_around_ms = row.number(&value, 0),
            "transferTimeMSec" => self.transfer_ms = row.number(&value, 0),
            "downloadTime" => self.download_ms = row.number(&value, 0),
            "timeToFirstByte" => row.request.ttfb_ms = row.number(&value, 0),
            "reqId" => row.request.request_id = Some(value.into_owned()),
            "statusCode" => row.request.status = row.number(&value, 0),
            "totalBytes" => row.request.sc_bytes = row.number(&value, 0),
            "bytes" => self.body_bytes = row.number(&value, 0),
            "cliIP" => row.request.client_address = Some(value.into_owned()),
            "xForwardedFor" => row.forwarded_for(&value),
            "reqHost" => row.host(&value),
            "reqPath" => row.target(&value),
            "queryStr" => self.query = Some(value.into_owned()),
            "reqMethod" => row.request.method = Some(value.into_owned()),
            "reqPort" => self.port = row.number(&value, 0),
            "proto" => protocol(row, &value),
            "tlsVersion" => row.ssl_protocol(&value),
            "UA" => row.user_agent(&without_form_encoding(&value)),
            "referer" => row.request.referer = Some(decoded_url(&value).into_owned()),
            "cookie" => row.request.cookie = Some(value.into_owned()),
            "range" => row.range(&value),
            "rspContentType" => row.request.content_type = Some(value.into_owned()),
            "rspContentLen" => row.request.content_length = row.number(&value, 0),
            "errorCode" => row.request.error_code = Some(value.into_owned()),
            "breadcrumbs" => row.request.origin_ttfb_ms = origin_ms(&value),
            "country" => row.country(&value),
            "asn" => row.asn(&value),
            "customField" => cmcd_of_custom_field(row, &value),
            _ => self.cache_or_kept(key, raw, value),
        }
    }

    /// The cache's own words, and what says more than any field here.
    fn cache_or_kept(&mut self, key: &str, raw: &'a str, value: Cow<'a, str>) {
        let row = &mut self.row;
        match key {
            "cacheStatus" => {
                self.is_hit = row.boolean(&value);
                row.keep("cache_status", value);
            }
            "cacheable" => {
                self.is_cacheable = row.boolean(&value);
                row.keep("cacheable", value);
            }
            "cacheRefreshSrc" => row.keep("cache_refresh_src", value),
            "cp" => row.keep("cp", value),
            "streamId" => row.keep("stream_id", value),
            // Full names in capitals, unlike the look-up's: no fit for `network`.
            "state" => row.keep("state", value),
            "city" => row.keep("city", value),
            "serverCountry" => row.keep("server_country", value),
            "edgeAttempts" => row.keep("edge_attempts", value),
            "lastByte" => row.keep("last_byte", value),
            "dnsLookupTimeMSec" => row.keep("dns_lookup_ms", value),
            "tlsOverheadTimeMSec" => row.keep("tls_overhead_ms", value),
            _ => row.unknown(key, raw),
        }
    }

    fn finish(mut self, payload: &str, context: &DecodeContext) -> Result<CdnRequest, Reject> {
        let total_ms = self.total_ms();
        let row = &mut self.row;
        let request = &mut row.request;
        request.time_taken_ms = total_ms;
        let edge_ms = self.turn_around_ms.map(|ms| ms.saturating_add(self.request_end_ms.unwrap_or(0)));
        request.ttfb_ms = request.ttfb_ms.or(edge_ms);
        // Streams without wire bytes log a 0.
        request.sc_bytes = request.sc_bytes.filter(|bytes| *bytes > 0).or(self.body_bytes).or(request.sc_bytes);
        request.uri_query = self.query.take().or(request.uri_query.take());
        if request.protocol.is_none() {
            let is_secure = request.ssl_protocol.is_some() || self.port == Some(443);
            let is_plain = self.port == Some(80);
            request.protocol = (is_secure || is_plain).then(|| if is_secure { "https" } else { "http" }.to_owned());
        }
        if request.error_code.as_deref().is_some_and(|code| code.starts_with(CLIENT_ABORT)) {
            request.is_aborted = Some(true);
        }
        row.outcome = match (self.is_cacheable, self.is_hit) {
            (Some(false), _) | (_, Some(false)) => Some(Outcome::Miss),
            (_, Some(true)) => Some(Outcome::Hit),
            _ => None,
        };
        let end_ms = self.accepted_ms.map(|ms| ms.saturating_add(total_ms.unwrap_or(0)));
        let missing = "reqTimeSec is missing or no number; select \"Request time\" in the stream";
        self.row.finish(end_ms, missing, payload, context)
    }

    fn total_ms(&self) -> Option<i64> {
        match (self.turn_around_ms, self.transfer_ms) {
            (Some(turn_around), Some(transfer)) => {
                let request_end = self.request_end_ms.unwrap_or(0);
                Some(request_end.saturating_add(turn_around).saturating_add(transfer))
            }
            _ => self.download_ms,
        }
    }
}

/// The fields that may tell of the viewer.
fn holds(key: &str) -> Option<Holds> {
    Some(match key {
        "reqPath" => Holds::Target,
        "queryStr" => Holds::Query,
        "referer" => Holds::Referer,
        "cookie" => Holds::Cookie,
        "customField" => Holds::CustomField,
        _ => return None,
    })
}

/// `HTTPS`, `HTTP`: the scheme; `HTTP/2`: the version.
fn protocol(row: &mut Row<'_>, sent: &str) {
    if sent.starts_with("HTTP/") {
        row.protocol_version(sent);
        return;
    }
    if sent == "HTTP" || sent == "HTTPS" {
        row.request.protocol = Some(sent.to_ascii_lowercase());
    }
}

/// Some streams write a blank as `+`. Where the blank is `%20`, or stands there itself, a plus is a plus.
fn without_form_encoding(sent: &str) -> Cow<'_, str> {
    if sent.contains('+') && sent.contains('%') && !sent.contains(' ') && !sent.contains("%20") {
        return Cow::Owned(sent.replace('+', " "));
    }
    Cow::Borrowed(sent)
}

/// Of `//BC/[a=...,c=g,k=0,l=11],[a=...,c=o,k=1,l=40]`: the component `o` is the origin, `k` the time
/// to send it the request and `l` the time to its first byte, ms.
fn origin_ms(sent: &str) -> Option<i64> {
    let decoded = percent_decode_str(sent).decode_utf8_lossy();
    let crumbs = decoded.split('[').map(|crumb| crumb.split(']').next().unwrap_or(crumb));
    let mut origins = crumbs.filter(|crumb| crumb.split(',').any(|item| item == "c=o"));
    let origin = origins.next()?;
    let length = |name: &str| {
        let mut items = origin.split(',');
        let text = items.find_map(|item| item.strip_prefix(name))?;
        decimal(text, 0).filter(|ms| *ms >= 0)
    };
    Some(length("l=")?.saturating_add(length("k=").unwrap_or(0)))
}

/// `cmcd-request=...|cmcd-session=...`, as docs/cdn-logs.md sets it up; anything else is not ours.
fn cmcd_of_custom_field(row: &mut Row<'_>, sent: &str) {
    for (name, value) in custom_items(sent) {
        row.cmcd_header(name, Cow::Owned(value.into_owned()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::private::PrivateParts;
    use crate::event::{Network, RejectReason};

    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_800_000_000_000 };
    const BUFFER_MS: Option<i64> = Some(21_600);
    const LINE: &str = r#"{"version":"2","streamId":"9999","cp":"123456","reqId":"1239f220","reqTimeSec":"1700000000.068","bytes":"4995","cliIP":"203.0.113.77","statusCode":"206","proto":"HTTP/2","reqHost":"media.example.net","reqMethod":"GET","reqPath":"vod/9/720p/seg_00001.m4s","reqPort":"443","rspContentLen":"5000","rspContentType":"video/mp4","UA":"Mozilla%2F5.0%20%28Macintosh%3B%20Intel%20Mac%20OS%20X%2010_14_3%29","tlsOverheadTimeMSec":"0","tlsVersion":"TLSv1.3","objSize":"484","totalBytes":"5227","queryStr":"CMCD=bl%3D21600%2Csid%3D%226e2fb550%22","breadcrumbs":"//BC/%5Ba=198.51.100.20,c=g,k=0,l=11%5D,%5Ba=192.0.2.4,c=o,k=1,l=40%5D","accLang":"-","cookie":"session=abc","range":"37334-42356","referer":"https%3A%2F%2Fplayer.example.com%2Fwatch","xForwardedFor":"198.51.100.7","reqEndTimeMSec":"3","errorCode":"-","turnAroundTimeMSec":"61","transferTimeMSec":"125","cacheStatus":"0","cacheable":"1","edgeIP":"198.51.100.20","country":"IN","asn":"64500","city":"HERNDON","customField":"cmcd-request=bl=21600|cmcd-session=sid%3D%226e2fb550%22|grn=0.1"}"#;

    fn owned(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn entries(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn expected(payload: &str) -> CdnRequest {
        CdnRequest {
            cdn: owned("akamai"),
            event_ts_ms: 1_700_000_000_257,
            request_id: owned("1239f220"),
            sc_bytes: Some(5_227),
            method: owned("GET"),
            host: owned("media.example.net"),
            host_header: owned("media.example.net"),
            uri_stem: owned("/vod/9/720p/seg_00001.m4s"),
            uri_query: owned("CMCD=bl%3D21600%2Csid%3D%226e2fb550%22"),
            status: Some(206),
            referer: owned("https://player.example.com/watch"),
            user_agent: owned("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_3)"),
            decode_depth: Some(1),
            cookie: owned("session=abc"),
            result_type: owned("Miss"),
            response_result_type: owned("Miss"),
            detailed_result_type: owned("Miss"),
            protocol: owned("https"),
            protocol_version: owned("HTTP/2.0"),
            ssl_protocol: owned("TLSv1.3"),
            time_taken_ms: Some(189),
            ttfb_ms: Some(64),
            origin_ttfb_ms: Some(41),
            forwarded_for: vec!["198.51.100.7".to_owned()],
            content_type: owned("video/mp4"),
            content_length: Some(5_000),
            range_start: Some(37_334),
            range_end: Some(42_356),
            client_address: owned("203.0.113.77"),
            network: Network {
                country: owned("IN"),
                asn: Some(64_500),
                ..Network::default()
            },
            ext: entries(&[
                ("cache_status", "0"),
                ("cacheable", "1"),
                ("city", "HERNDON"),
                ("cp", "123456"),
                ("stream_id", "9999"),
                ("tls_overhead_ms", "0"),
            ]),
            cmcd_carrier: Some("headers"),
            payload: payload.to_owned(),
            ..CdnRequest::default()
        }
    }

    /// The request, and what its player's event knows: session and buffer.
    fn check(line: &str) {
        let mut request = decode(line, &CONTEXT).unwrap();
        let event = request.player_event.take().unwrap();
        assert_eq!((event.native_session_id.as_deref(), event.buffer_ms), (Some("6e2fb550"), BUFFER_MS));
        // What is marked in the payload is tested with what becomes of it (`privacy`).
        request.private = PrivateParts::default();
        assert_eq!(request, expected(line));
    }

    #[test]
    fn a_record_of_the_public_field_list_is_understood() {
        assert!(recognises(LINE, true));
        check(LINE);
    }

    #[test]
    fn the_order_of_the_keys_is_nothing_and_numbers_may_be_numbers() {
        let body = LINE.trim_matches(['{', '}']);
        let mut members: Vec<&str> = body.split(",\"").collect();
        members.reverse();
        let last = members.pop().unwrap();
        members.push(last.trim_start_matches('"'));
        let shuffled = format!("{{\"{}}}", members.join(",\""));
        check(&shuffled);

        let numbers = LINE.replace(r#""1700000000.068""#, "1700000000.068").replace(r#""206""#, "206");
        check(&numbers);
    }

    #[test]
    fn what_was_not_selected_is_unknown() {
        let check = |members: &str, expected: (i64, Option<i64>, Option<i64>, Option<i64>, Option<&str>)| {
            let line = format!(r#"{{"reqTimeSec":"1700000000.068",{members}}}"#);
            let request = decode(&line, &CONTEXT).unwrap();
            let found = (
                request.event_ts_ms,
                request.time_taken_ms,
                request.ttfb_ms,
                request.sc_bytes,
                request.response_result_type.as_deref(),
            );
            assert_eq!(found, expected, "{members}");
        };
        let start = 1_700_000_000_068;
        check(r#""statusCode":200"#, (start, None, None, None, None));
        check(
            r#""downloadTime":"10","timeToFirstByte":"4""#,
            (start + 10, Some(10), Some(4), None, None),
        );
        check(r#""turnAroundTimeMSec":"7","queryStr":null"#, (start, None, Some(7), None, None));
        check(r#""totalBytes":"0","bytes":"12""#, (start, None, None, Some(12), None));
        check(r#""totalBytes":"0","bytes":"0""#, (start, None, None, Some(0), None));
        check(r#""cacheStatus":1,"statusCode":"200""#, (start, None, None, None, Some("Hit")));
        check(
            r#""cacheStatus":1,"cacheable":0,"statusCode":"200""#,
            (start, None, None, None, Some("Miss")),
        );
        check(r#""cacheStatus":"1","statusCode":"404""#, (start, None, None, None, Some("Error")));
    }

    #[test]
    fn errors_and_aborts_are_told() {
        let check = |status: &str, error: &str, expected: (Option<&str>, Option<bool>)| {
            let line = format!(r#"{{"reqTimeSec":1700000000,"statusCode":"{status}","errorCode":"{error}","reqPath":"-"}}"#);
            let request = decode(&line, &CONTEXT).unwrap();
            assert_eq!((request.error_code.as_deref(), request.is_aborted), expected, "{line}");
            assert_eq!(request.uri_stem, None);
        };
        check("403", "ERR_ACCESS_DENIED|fwd_acl", (Some("ERR_ACCESS_DENIED|fwd_acl"), None));
        check("200", "ERR_CLIENT_ABORT|x", (Some("ERR_CLIENT_ABORT|x"), Some(true)));
        check("000", "-", (None, Some(true)));
        check("200", "-", (None, None));
    }

    #[test]
    fn a_plus_is_a_blank_only_where_blanks_are_pluses() {
        let check = |sent: &str, expected: &str| assert_eq!(without_form_encoding(sent), expected);
        check("Mozilla%2F5.0+%28Macintosh%3B+Intel%29", "Mozilla%2F5.0 %28Macintosh%3B Intel%29");
        check("app%20a+b", "app%20a+b");
        check("a+b", "a+b");
    }

    #[test]
    fn cut_and_foreign_lines_are_refused() {
        let check = |line: &str, expected: RejectReason| {
            assert_eq!(decode(line, &CONTEXT).unwrap_err().reason, expected, "{line}");
        };
        check(&LINE[..LINE.len() / 2], RejectReason::MalformedJson);
        check("[1]", RejectReason::NotAnObject);
        check("\u{1}garbage", RejectReason::MalformedJson);
        check("{}", RejectReason::MissingEventTime);
        check(r#"{"reqTimeSec":"soon"}"#, RejectReason::MissingEventTime);
        check(r#"{"reqTimeSec":"1"}"#, RejectReason::EventTimeOutOfRange);
        assert!(recognises(&LINE[..LINE.len() / 2], false));
        assert!(!recognises(&LINE[..LINE.len() / 2], true));
        assert!(!recognises(r#"{"reqTimeSec":1}"#, true));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_survived(text in any::<String>(), key in 0..40usize, junk in r#"("[ -~é]{0,12}"|-?[0-9.]{1,22}|null|\{\}|true)"#) {
            let _ = decode(&text, &CONTEXT);
            let name = LINE.split('"').filter(|part| part.starts_with(char::is_alphabetic)).nth(key * 2).unwrap_or("UA");
            let _ = decode(&format!(r#"{{"reqTimeSec":"1700000000","{name}":{junk}}}"#), &CONTEXT);
        }
    }
}
