//! Cloudflare Logpush, dataset `http_requests`, NDJSON (developers.cloudflare.com/logs: "HTTP requests").
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`.
//!
//! Event time: `EdgeEndTimestamp`, the end of the response; without it `EdgeStartTimestamp`. Either may be
//! RFC 3339 or a unix time in seconds or nanoseconds, as the job's output options say. In whole seconds
//! (RFC 3339, unix) their difference is no duration, so the whole time is known from finer stamps only.
//!
//! Invariant: what a Worker fetched is Cloudflare's own traffic and weighs nothing.
//! Invariant: of the request's headers CMCD and `Range` are read; cookies and other headers go nowhere.

use std::borrow::Cow;

use super::json_row::{Members, Outcome, Row, boolean, has_names, is_cmcd_header, moment_ms, nested, value};
use crate::event::decode::DecodeContext;
use crate::event::private::{Holds, may_tell};
use crate::event::{CdnRequest, Reject};

const CDN: &str = "cloudflare";
/// `ClientRequestSource` of a request that a viewer made, be it through another Cloudflare zone.
const VIEWERS: [&str; 3] = ["eyeball", "orangeToOrange", "unknown"];

/// True if the object is one of these records. `is_whole`: it must also be sound.
pub(in crate::event::decode) fn recognises(json: &str, is_whole: bool) -> bool {
    let has = |name: &str| has_names(json, is_whole, &[name]);
    (has("EdgeStartTimestamp") || has("EdgeEndTimestamp")) && (has("RayID") || has("EdgeResponseStatus"))
}

/// One line, without its line end. Sets neither `event_id` nor `client_prefix`.
///
/// Errors: those of JSON, `MissingEventTime`, `EventTimeOutOfRange`.
pub(in crate::event::decode) fn decode(payload: &str, context: &DecodeContext) -> Result<CdnRequest, Reject> {
    let object = Members::parse(payload)?;
    let mut reading = Reading {
        row: Row::new(CDN),
        start: None,
        end: None,
        path: None,
        origin_ms: None,
        origin_first_ms: None,
    };
    for (key, raw) in object.members() {
        if key == "RequestHeaders" {
            reading.headers(raw);
        } else if let Some(value) = value(raw) {
            reading.member(key, raw, value);
        }
    }
    reading.finish(payload, context)
}

struct Reading<'a> {
    row: Row<'a>,
    start: Option<Cow<'a, str>>,
    end: Option<Cow<'a, str>>,
    /// As it stands in the record, and as text.
    path: Option<(&'a str, Cow<'a, str>)>,
    origin_ms: Option<i64>,
    origin_first_ms: Option<i64>,
}

impl<'a> Reading<'a> {
    fn member(&mut self, key: &str, raw: &'a str, value: Cow<'a, str>) {
        let row = &mut self.row;
        match key {
            "EdgeStartTimestamp" => self.start = Some(value),
            "EdgeEndTimestamp" => self.end = Some(value),
            "EdgeTimeToFirstByteMs" => row.request.ttfb_ms = row.number(&value, 0),
            "EdgeResponseStatus" => row.request.status = row.number(&value, 0),
            "EdgeResponseBytes" => row.request.sc_bytes = row.number(&value, 0),
            "EdgeResponseContentType" => row.request.content_type = Some(value.into_owned()),
            "EdgeColoCode" => row.edge_location(&value),
            "RayID" => row.request.request_id = Some(value.into_owned()),
            "SampleInterval" => row.sample_interval(&value),
            "CacheCacheStatus" => {
                row.outcome = Outcome::of_word(&value);
                row.keep("cache_status", value);
            }
            "CacheTieredFill" => row.keep("cache_tiered_fill", value),
            "OriginResponseDurationMs" => self.origin_ms = row.number(&value, 0),
            "OriginResponseHeaderReceiveDurationMs" => self.origin_first_ms = row.number(&value, 0),
            // The older field, in nanoseconds.
            "OriginResponseTime" => {
                let milliseconds = row.number(&value, 0).map(|ns| ns / 1_000_000);
                self.origin_ms = self.origin_ms.or(milliseconds);
            }
            "ClientRequestSource" => {
                if !VIEWERS.contains(&value.as_ref()) {
                    row.is_no_viewer();
                }
                row.keep("request_source", value);
            }
            "WorkerSubrequest" => {
                if boolean(&value) == Some(true) {
                    row.is_no_viewer();
                }
            }
            "ZoneName" => row.keep("zone", value),
            _ => self.client_member(key, raw, value),
        }
    }

    /// What the viewer sent, and who the viewer is.
    fn client_member(&mut self, key: &str, raw: &'a str, value: Cow<'a, str>) {
        let row = &mut self.row;
        match key {
            "ClientIP" => row.request.client_address = Some(value.into_owned()),
            "ClientSrcPort" => row.request.client_port = row.number(&value, 0).filter(|port| *port > 0),
            "ClientRequestBytes" => row.request.cs_bytes = row.number(&value, 0),
            "ClientRequestHost" => row.host(&value),
            "ClientRequestURI" => {
                row.private_json(raw, Holds::Target);
                row.target(&value);
            }
            "ClientRequestPath" => self.path = Some((raw, value)),
            "ClientRequestMethod" => row.request.method = Some(value.into_owned()),
            "ClientRequestScheme" => row.request.protocol = Some(value.into_owned()),
            "ClientRequestProtocol" => row.protocol_version(&value),
            "ClientRequestReferer" => {
                row.private_json(raw, Holds::Referer);
                row.request.referer = Some(value.into_owned());
            }
            "ClientRequestUserAgent" => row.user_agent(&value),
            "ClientSSLProtocol" => row.ssl_protocol(&value),
            "ClientSSLCipher" => row.ssl_cipher(&value),
            "ClientCountry" => row.country(&value),
            "ClientRegionCode" => row.request.network.region = Some(value.into_owned()),
            "ClientCity" => row.request.network.city = Some(value.into_owned()),
            "ClientASN" => row.asn(&value),
            "ClientTCPRTTMs" => row.keep("client_rtt_ms", value),
            _ => row.unknown(key, raw),
        }
    }

    /// Headers that the job logs as custom fields, their names in lower case.
    fn headers(&mut self, raw: &'a str) {
        let Some(headers) = nested(raw) else {
            return;
        };
        for (name, raw) in headers.members() {
            let Some(value) = value(raw) else {
                continue;
            };
            if name.eq_ignore_ascii_case("range") {
                self.row.range(&value);
            } else {
                let holds = if is_cmcd_header(name) { Holds::Cmcd } else { Holds::Withheld };
                self.row.private_json(raw, holds);
                self.row.cmcd_header(name, value);
            }
        }
    }

    fn finish(mut self, payload: &str, context: &DecodeContext) -> Result<CdnRequest, Reject> {
        let row = &mut self.row;
        let request = &mut row.request;
        let start_ms = self.start.as_deref().and_then(moment_ms);
        let end_ms = self.end.as_deref().and_then(moment_ms);
        let is_fine = [&self.start, &self.end]
            .into_iter()
            .flatten()
            .all(|stamp| is_finer_than_seconds(stamp));
        if let (Some(start_ms), Some(end_ms), true) = (start_ms, end_ms, is_fine) {
            request.time_taken_ms = end_ms.checked_sub(start_ms).filter(|ms| *ms >= 0);
        }
        // A 0 is the word for an origin that was not asked.
        request.origin_time_ms = self.origin_ms.filter(|ms| *ms > 0);
        request.origin_ttfb_ms = self.origin_first_ms.filter(|ms| *ms > 0);
        match &self.path {
            Some((raw, path)) if request.uri_stem.is_none() => {
                row.private_json(raw, Holds::Target);
                row.target(path);
            }
            // Not read; should it have a query after all, it goes.
            Some((raw, _)) if may_tell(Holds::Target, raw) => row.private_json(raw, Holds::Withheld),
            _ => {}
        }
        let missing = "neither EdgeEndTimestamp nor EdgeStartTimestamp is a time; select them in the Logpush job";
        self.row.finish(end_ms.or(start_ms), missing, payload, context)
    }
}

/// True for nanoseconds, milliseconds and RFC 3339 with a fraction.
fn is_finer_than_seconds(stamp: &str) -> bool {
    stamp.contains('.') || (stamp.len() >= 13 && stamp.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::private::PrivateParts;
    use crate::event::{Network, RejectReason};

    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_800_000_000_000 };
    const BUFFER_MS: Option<i64> = None;
    const LINE: &str = r#"{"CacheCacheStatus":"revalidated","CacheTieredFill":false,"ClientASN":64500,"ClientCity":"London","ClientCountry":"gb","ClientDeviceType":"desktop","ClientIP":"203.0.113.77","ClientRegionCode":"ENG","ClientRequestBytes":512,"ClientRequestHost":"media.example.net","ClientRequestMethod":"GET","ClientRequestPath":"/vod/9/seg_00001.m4s","ClientRequestProtocol":"HTTP/2","ClientRequestReferer":"https://player.example.com/","ClientRequestScheme":"https","ClientRequestSource":"eyeball","ClientRequestURI":"/vod/9/seg_00001.m4s?CMCD=bl%3D21600","ClientRequestUserAgent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_3)","ClientSSLCipher":"AEAD-AES128-GCM-SHA256","ClientSSLProtocol":"TLSv1.3","ClientSrcPort":51734,"Cookies":{"session":"secret"},"EdgeColoCode":"LHR","EdgeEndTimestamp":1700000000257000000,"EdgeResponseBytes":5227,"EdgeResponseContentType":"video/mp4","EdgeResponseStatus":206,"EdgeServerIP":"198.51.100.20","EdgeStartTimestamp":1700000000068000000,"EdgeTimeToFirstByteMs":64,"OriginIP":"192.0.2.4","OriginResponseDurationMs":50,"OriginResponseHeaderReceiveDurationMs":41,"OriginResponseStatus":304,"ParentRayID":"00","RayID":"884544a9f9a80416","RequestHeaders":{"cmcd-session":"sid=\"6e2fb550\"","range":"bytes=0-4994","authorization":"Bearer secret"},"SampleInterval":10}"#;

    fn owned(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn expected(payload: &str) -> CdnRequest {
        let ext = [
            ("cache_status", "revalidated"),
            ("cache_tiered_fill", "false"),
            ("request_source", "eyeball"),
        ];
        CdnRequest {
            cdn: owned("cloudflare"),
            event_ts_ms: 1_700_000_000_257,
            request_id: owned("884544a9f9a80416"),
            edge_location: owned("LHR"),
            pop: owned("LHR"),
            sc_bytes: Some(5_227),
            cs_bytes: Some(512),
            method: owned("GET"),
            host: owned("media.example.net"),
            host_header: owned("media.example.net"),
            uri_stem: owned("/vod/9/seg_00001.m4s"),
            uri_query: owned("CMCD=bl%3D21600"),
            status: Some(206),
            referer: owned("https://player.example.com/"),
            user_agent: owned("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_3)"),
            decode_depth: Some(0),
            result_type: owned("RefreshHit"),
            response_result_type: owned("RefreshHit"),
            detailed_result_type: owned("RefreshHit"),
            protocol: owned("https"),
            protocol_version: owned("HTTP/2.0"),
            ssl_protocol: owned("TLSv1.3"),
            ssl_cipher: owned("AEAD-AES128-GCM-SHA256"),
            time_taken_ms: Some(189),
            ttfb_ms: Some(64),
            origin_ttfb_ms: Some(41),
            origin_time_ms: Some(50),
            sample_weight_milli: Some(10_000),
            client_port: Some(51_734),
            content_type: owned("video/mp4"),
            range_start: Some(0),
            range_end: Some(4_994),
            client_address: owned("203.0.113.77"),
            network: Network {
                country: owned("GB"),
                region: owned("ENG"),
                city: owned("London"),
                asn: Some(64_500),
                isp: None,
            },
            ext: ext.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
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
    fn the_order_of_the_keys_is_nothing() {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(LINE).unwrap();
        let members = object.iter().rev().map(|(key, value)| format!("\"{key}\":{value}"));
        let shuffled = format!("{{{}}}", members.collect::<Vec<_>>().join(", "));
        check(&shuffled);
    }

    #[test]
    fn stamps_of_every_option_give_the_end() {
        let check = |start: &str, end: &str, expected: (i64, Option<i64>)| {
            let line = format!(r#"{{"EdgeStartTimestamp":{start},"EdgeEndTimestamp":{end}}}"#);
            let request = decode(&line, &CONTEXT).unwrap();
            assert_eq!((request.event_ts_ms, request.time_taken_ms), expected, "{line}");
        };
        check(r#""2023-11-14T22:13:20Z""#, r#""2023-11-14T22:13:21Z""#, (1_700_000_001_000, None));
        check(
            r#""2023-11-14T22:13:20.068Z""#,
            r#""2023-11-14T22:13:20.257Z""#,
            (1_700_000_000_257, Some(189)),
        );
        check("1700000000", "1700000001", (1_700_000_001_000, None));
        check("1700000000068000000", "1700000000257000000", (1_700_000_000_257, Some(189)));
        check("1700000000257000000", "1700000000068000000", (1_700_000_000_068, None));
        check("1700000000", "null", (1_700_000_000_000, None));
        check(r#""2023-11-14T22:13:20Z""#, r#""soon""#, (1_700_000_000_000, None));
    }

    #[test]
    fn words_of_the_cache_become_cloudfronts() {
        let check = |word: &str, status: i64, expected: Option<&str>| {
            let line = format!(r#"{{"EdgeEndTimestamp":1700000000,"CacheCacheStatus":"{word}","EdgeResponseStatus":{status}}}"#);
            let request = decode(&line, &CONTEXT).unwrap();
            assert_eq!(request.response_result_type.as_deref(), expected, "{line}");
            assert_eq!(request.ext[0].1, word);
        };
        for word in ["hit", "stale", "updating", "stream_hit", "ignored", "HIT"] {
            check(word, 200, Some("Hit"));
        }
        for word in ["miss", "expired", "bypass", "dynamic"] {
            check(word, 200, Some("Miss"));
        }
        check("revalidated", 200, Some("RefreshHit"));
        check("unknown", 200, None);
        check("none", 301, Some("Redirect"));
        check("hit", 404, Some("Error"));
    }

    #[test]
    fn a_workers_own_requests_weigh_nothing_and_an_unasked_origin_took_no_time() {
        let check = |members: &str, expected: Option<i64>| {
            let line = format!(r#"{{"EdgeEndTimestamp":1700000000,"OriginResponseDurationMs":0,{members}}}"#);
            let request = decode(&line, &CONTEXT).unwrap();
            assert_eq!(request.sample_weight_milli, expected, "{line}");
            assert_eq!(request.origin_time_ms, None);
        };
        check(r#""ClientRequestSource":"edgeWorkerFetch","SampleInterval":10"#, Some(0));
        check(r#""SampleInterval":10,"WorkerSubrequest":true"#, Some(0));
        check(r#""ClientRequestSource":"eyeball","WorkerSubrequest":false"#, None);
        check(r#""SampleInterval":1,"ClientRequestSource":"orangeToOrange""#, None);

        let older = decode(
            r#"{"EdgeEndTimestamp":1700000000,"OriginResponseTime":22000000,"EdgeResponseStatus":499}"#,
            &CONTEXT,
        )
        .unwrap();
        assert_eq!(
            (older.origin_time_ms, older.status, older.is_aborted),
            (Some(22), Some(0), Some(true))
        );
    }

    #[test]
    fn cut_and_foreign_lines_are_refused() {
        let check = |line: &str, expected: RejectReason| {
            assert_eq!(decode(line, &CONTEXT).unwrap_err().reason, expected, "{line}");
        };
        check(&LINE[..LINE.len() / 2], RejectReason::MalformedJson);
        check("null", RejectReason::NotAnObject);
        check("EdgeStartTimestamp,RayID", RejectReason::MalformedJson);
        check(r#"{"RayID":"884544a9f9a80416"}"#, RejectReason::MissingEventTime);
        check(r#"{"EdgeEndTimestamp":4000000000}"#, RejectReason::EventTimeOutOfRange);
        assert!(recognises(r#"{"RayID":"8","EdgeStartTimestamp":17"#, false));
        assert!(!recognises(r#"{"RayID":"8","EdgeStartTimestamp":17"#, true));
        assert!(!recognises(r#"{"RayID":"8","Datetime":17}"#, true));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_survived(text in any::<String>(), stamp in "[0-9TZ:.+ -]{0,30}", junk in r#"("[ -~é]{0,12}"|-?[0-9.]{1,22}|null|\{"range":"é-1"\}|true)"#) {
            let _ = decode(&text, &CONTEXT);
            let _ = decode(&format!(r#"{{"EdgeEndTimestamp":"{stamp}","EdgeStartTimestamp":{junk}}}"#), &CONTEXT);
            let _ = decode(&format!(r#"{{"EdgeEndTimestamp":1700000000,"RequestHeaders":{junk},"ClientRequestURI":{junk},"OriginResponseTime":{junk}}}"#), &CONTEXT);
        }
    }
}
