//! The 12-key JSON that the reference system's log function emits (reference solution, 2.2), and
//! the columns it dropped, if a sender kept them.
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`.
//!
//! Invariant: the requesting address goes into `client_address`, never into `ext`.

use crate::event::decode::DecodeContext;
use crate::event::decode::text::{
    BadValue, INTEGER_MAX, Object, Scalar, Vocabulary, event_time_in_range, flag, percent_decoded, pop, reject, utc_ms,
};
use crate::event::private::{Holds, PrivateParts, Written, tells};
use crate::event::{CdnRequest, Reject, RejectReason};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    LogDate,
    LogTime,
    Location,
    BrowserFamily,
    OsFamily,
    IsBot,
    ResultType,
    RequestId,
    CdnSource,
    Bytes,
    RequestIp,
    Uri,
    Status,
    TimeTaken,
    TimeToFirstByte,
    UserAgent,
    Host,
    QueryString,
}

impl Vocabulary for Key {
    fn find(lower_case: &str) -> Option<Key> {
        Some(match lower_case {
            "logdate" => Key::LogDate,
            "logtime" => Key::LogTime,
            "location" => Key::Location,
            "browserfamily" => Key::BrowserFamily,
            "osfamily" => Key::OsFamily,
            "isbot" => Key::IsBot,
            "resulttype" => Key::ResultType,
            "requestid" => Key::RequestId,
            "cdn_source" => Key::CdnSource,
            "bytes" => Key::Bytes,
            "requestip" => Key::RequestIp,
            "uri" => Key::Uri,
            "status" => Key::Status,
            "time_taken" => Key::TimeTaken,
            "time_to_first_byte" => Key::TimeToFirstByte,
            "useragent" => Key::UserAgent,
            "host" => Key::Host,
            "querystring" => Key::QueryString,
            _ => return None,
        })
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// True if the object is one of these records: it has a log date and a request id. `is_whole`: it must also be sound.
pub(in crate::event::decode) fn recognises(json: &str, is_whole: bool) -> bool {
    let (object, outcome) = Object::<Key>::parse_prefix(json);
    let is_readable = outcome.is_ok() || !is_whole;
    is_readable && object.has(Key::LogDate) && object.has(Key::RequestId)
}

/// One line, without its line end. Sets neither `event_id` nor `client_prefix`.
pub(in crate::event::decode) fn decode(payload: &str, context: &DecodeContext) -> Result<CdnRequest, Reject> {
    let mut reading = Reading {
        object: Object::parse(payload)?,
        flags: Vec::new(),
    };
    let mut request = CdnRequest {
        event_ts_ms: reading.event_time(context)?,
        cdn: reading.text(Key::CdnSource),
        request_id: reading.text(Key::RequestId),
        edge_location: reading.text(Key::Location),
        client_address: reading.text(Key::RequestIp),
        host: reading.text(Key::Host),
        uri_query: reading.text(Key::QueryString),
        result_type: reading.text(Key::ResultType).map(cloudfront_spelling),
        sc_bytes: reading.number(Key::Bytes, 0),
        status: reading.number(Key::Status, 0),
        // Seconds with decimals.
        time_taken_ms: reading.number(Key::TimeTaken, 3),
        ttfb_ms: reading.number(Key::TimeToFirstByte, 3),
        is_bot: reading.boolean(Key::IsBot),
        payload: payload.to_owned(),
        ..CdnRequest::default()
    };
    request.pop = request.edge_location.as_deref().and_then(pop);
    request.device.browser = reading.family(Key::BrowserFamily);
    request.device.os = reading.family(Key::OsFamily);
    if let Some(sent) = reading.text(Key::UserAgent) {
        let (user_agent, depth) = percent_decoded(&sent);
        request.user_agent = Some(user_agent.into_owned());
        request.decode_depth = Some(depth);
    }
    if let Some(sent) = reading.text(Key::Uri) {
        resource(sent, &mut request);
    }
    mark_private(payload, &mut reading.object, &mut request.private);
    request.ext = reading.object.left_over(None, &mut reading.flags);
    request.dq_flags = reading.flags;
    Ok(request)
}

/// The path, or all three parts of a request line: Fastly's format string logs that.
fn resource(sent: String, request: &mut CdnRequest) {
    let Some([method, uri_stem, version]) = request_line(&sent) else {
        request.uri_stem = Some(sent);
        return;
    };
    request.method = Some(method.to_owned());
    request.protocol_version = Some(version.to_owned());
    request.uri_stem = Some(uri_stem.to_owned());
}

fn request_line(sent: &str) -> Option<[&str; 3]> {
    let parts: Vec<&str> = sent.split_ascii_whitespace().take(4).collect();
    let [method, uri_stem, version] = parts[..] else {
        return None;
    };
    let is_method = method.bytes().all(|byte| byte.is_ascii_uppercase());
    (is_method && version.starts_with("HTTP/")).then_some([method, uri_stem, version])
}

/// Marks what may tell of the viewer; members whose name tells are not left over.
fn mark_private(payload: &str, object: &mut Object<'_, Key>, private: &mut PrivateParts) {
    let queries = object.raw_of_all(Key::QueryString).map(|raw| (raw, Holds::Query));
    let targets = object.raw_of_all(Key::Uri).map(|raw| {
        let sent = Scalar::read(raw).map(Scalar::into_text);
        let is_line = sent.is_some_and(|sent| request_line(&sent).is_some());
        (raw, if is_line { Holds::RequestLine } else { Holds::Target })
    });
    let mut found: Vec<(&str, Holds)> = queries.chain(targets).collect();
    found.extend(object.withhold(tells).into_iter().map(|raw| (raw, Holds::Withheld)));
    for (raw, holds) in found {
        private.mark(payload, raw, holds, Written::Json);
    }
}

/// The log function upper-cases result types; CloudFront's own logs do not.
fn cloudfront_spelling(sent: String) -> String {
    const RESULT_TYPES: [&str; 8] = [
        "Hit",
        "Miss",
        "RefreshHit",
        "Error",
        "Redirect",
        "LimitExceeded",
        "CapacityExceeded",
        "OriginShieldHit",
    ];
    let spelled = RESULT_TYPES.iter().find(|name| name.eq_ignore_ascii_case(&sent));
    spelled.map_or(sent, |name| (*name).to_owned())
}

/// One record on its way into a `CdnRequest`.
struct Reading<'a> {
    object: Object<'a, Key>,
    flags: Vec<&'static str>,
}

impl Reading<'_> {
    fn event_time(&mut self, context: &DecodeContext) -> Result<i64, Reject> {
        let date = self.object.take(Key::LogDate).map(Scalar::into_text);
        let time = self.object.take(Key::LogTime).map(Scalar::into_text);
        let (Some(date), Some(time)) = (date, time) else {
            let detail = "logdate or logtime is missing or empty";
            return Err(reject(RejectReason::MissingEventTime, detail));
        };
        let Some(event_ts_ms) = utc_ms(&date, &time) else {
            let detail = "logdate and logtime are not YYYY-MM-DD and HH:MM:SS";
            return Err(reject(RejectReason::MissingEventTime, detail));
        };
        event_time_in_range(event_ts_ms, context)
    }

    fn text(&mut self, key: Key) -> Option<String> {
        Some(self.object.take(key)?.into_text().into_owned())
    }

    /// `Other` is the parser's word for not knowing.
    fn family(&mut self, key: Key) -> Option<String> {
        self.text(key).filter(|family| family != "Other")
    }

    /// A count or length from 0 upwards, times 10^`scale`.
    fn number(&mut self, key: Key, scale: usize) -> Option<i64> {
        match self.object.take(key)?.decimal(scale) {
            Ok(None) => None,
            Ok(Some(value)) if (0..=INTEGER_MAX).contains(&value) => Some(value),
            Ok(Some(_)) | Err(BadValue) => {
                flag(&mut self.flags, "bad_value");
                None
            }
        }
    }

    fn boolean(&mut self, key: Key) -> Option<bool> {
        let value = self.object.take(key)?.boolean();
        if value == Err(BadValue) {
            flag(&mut self.flags, "bad_value");
        }
        value.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_cdn.ndjson"));
    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_600_000_000_000 };

    fn decoded(line: &str) -> CdnRequest {
        decode(line, &CONTEXT).unwrap()
    }

    #[test]
    fn every_line_of_the_reference_log_is_understood() {
        struct Expected {
            second: i64,
            edge: [&'static str; 2],
            system: Option<&'static str>,
            browser: &'static str,
            is_bot: bool,
            result: &'static str,
            bytes: i64,
            address: &'static str,
        }
        let row = |second, edge, system, browser, is_bot, result, bytes, address| Expected {
            second,
            edge,
            system,
            browser,
            is_bot,
            result,
            bytes,
            address,
        };
        let london = ["LHR50-C1", "LHR"];
        let mumbai = ["BOM51-C1", "BOM"];
        let v6 = "2001:db8:85a3:8d3:1319:8a2e:370:7348";
        let expected = [
            row(0, london, None, "Chrome", false, "Hit", 1_370_422, "203.0.113.77"),
            row(5, london, None, "Chrome", false, "Hit", 1_402_911, "203.0.113.77"),
            row(10, london, None, "Chrome", false, "Miss", 3_120_045, "203.0.113.77"),
            row(
                20,
                ["LHR61-P3", "LHR"],
                None,
                "Chrome",
                false,
                "RefreshHit",
                3_098_120,
                "203.0.113.77",
            ),
            row(14, mumbai, Some("Android"), "Chrome", false, "Miss", 402_117, v6),
            row(19, mumbai, Some("Android"), "Chrome", false, "Hit", 398_204, v6),
            row(33, ["SEA19-C2", "SEA"], None, "Googlebot", true, "Error", 243, "198.51.100.9"),
            row(
                39,
                ["cache-bom18223", "BOM"],
                Some("Mac OS X"),
                "Chrome",
                false,
                "Miss",
                5_213,
                "198.51.100.24",
            ),
        ];
        assert_eq!(LINES.lines().count(), expected.len());
        for (line, expected) in LINES.lines().zip(expected) {
            let request = decoded(line);
            assert_eq!(request.event_ts_ms, 1_588_752_000_000 + expected.second * 1000, "{line}");
            assert_eq!(request.edge_location.as_deref(), Some(expected.edge[0]), "{line}");
            assert_eq!(request.pop.as_deref(), Some(expected.edge[1]), "{line}");
            assert_eq!(request.device.os.as_deref(), expected.system, "{line}");
            assert_eq!(request.device.browser.as_deref(), Some(expected.browser), "{line}");
            assert_eq!(request.is_bot, Some(expected.is_bot), "{line}");
            assert_eq!(request.result_type.as_deref(), Some(expected.result), "{line}");
            assert_eq!(request.sc_bytes, Some(expected.bytes), "{line}");
            assert_eq!(request.client_address.as_deref(), Some(expected.address), "{line}");
            assert_eq!(request.payload, line);
            assert_eq!((request.status, request.time_taken_ms, &request.fields), (None, None, &None));
            assert!(request.ext.is_empty() && request.dq_flags.is_empty(), "{line}");
            assert!(request.event_id.is_empty() && request.client_prefix.is_none());
        }
    }

    #[test]
    fn ids_sources_and_paths_are_kept_as_sent() {
        let requests: Vec<CdnRequest> = LINES.lines().map(decoded).collect();
        let first = &requests[0];
        assert_eq!(
            first.request_id.as_deref(),
            Some("kQ3v9ZtHcJfW0sYb7uXoLrE2mNpDgA5iTq8wKeRxV1hUyBzC4jM6Fw==")
        );
        assert_eq!(first.cdn.as_deref(), Some("cloudfront"));
        assert_eq!(first.uri_stem.as_deref(), Some("/sample-videos/hls/BigBuckBunny/720p_00001.ts"));
        assert_eq!((&first.method, &first.protocol_version), (&None, &None));

        let fastly = &requests[7];
        assert_eq!(fastly.cdn.as_deref(), Some("fastly"));
        assert_eq!(fastly.request_id.as_deref(), Some("33c478dd-0491-4bfb-b303-64f546b819e7"));
        assert_eq!(fastly.method.as_deref(), Some("GET"));
        assert_eq!(fastly.uri_stem.as_deref(), Some("/sample-videos/hls/news-live.m3u8"));
        assert_eq!(fastly.protocol_version.as_deref(), Some("HTTP/1.1"));
    }

    #[test]
    fn columns_that_a_sender_kept_are_understood() {
        let request = decoded(
            r#"{"LOGDATE":"2020-05-06","LogTime":"08:00:00","Status":"200","time_taken":0.184,
                "time_to_first_byte":"0.021","userAgent":"a%2520b","host":"h","queryString":"q=1","shield":"x"}"#,
        );
        assert_eq!(request.status, Some(200));
        assert_eq!((request.time_taken_ms, request.ttfb_ms), (Some(184), Some(21)));
        assert_eq!((request.user_agent.as_deref(), request.decode_depth), (Some("a b"), Some(2)));
        assert_eq!((request.host.as_deref(), request.uri_query.as_deref()), (Some("h"), Some("q=1")));
        assert_eq!(request.ext, [("shield".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn a_bad_value_costs_the_value_and_a_bad_time_the_record() {
        let request = decoded(r#"{"logdate":"2020-05-06","logtime":"08:00:00","bytes":"many","isbot":"perhaps","resulttype":"NEW"}"#);
        assert_eq!((request.sc_bytes, request.is_bot), (None, None));
        assert_eq!(request.result_type.as_deref(), Some("NEW"));
        assert_eq!(request.dq_flags, ["bad_value"]);

        let check = |line: &str, expected: RejectReason| {
            assert_eq!(decode(line, &CONTEXT).unwrap_err().reason, expected, "{line}");
        };
        check(r#"{"logdate":"2020-05-06","requestid":"x"}"#, RejectReason::MissingEventTime);
        check(r#"{"logdate":"2020-05-06","logtime":""}"#, RejectReason::MissingEventTime);
        check(r#"{"logdate":"2020-05-06","logtime":"8:00"}"#, RejectReason::MissingEventTime);
        check(
            r#"{"logdate":"1999-05-06","logtime":"08:00:00"}"#,
            RejectReason::EventTimeOutOfRange,
        );
        check(
            r#"{"logdate":"2030-05-06","logtime":"08:00:00"}"#,
            RejectReason::EventTimeOutOfRange,
        );
    }
}
