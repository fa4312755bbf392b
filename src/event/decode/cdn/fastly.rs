//! Fastly, by the format string that docs/cdn-logs.md publishes: one JSON object a line, version 1
//! (www.fastly.com/documentation/reference/vcl/variables: `fastly_info.state`, `time.*`, `resp.*`).
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`.
//!
//! Event time: `start_ms` + `elapsed_us`, the end of the response.
//!
//! Invariant: a line of a shield POP is the CDN's own traffic and weighs nothing; what the shield had in
//! its cache is told by the line of the edge (`x_cache`). Its request id is the edge's, so it goes to `ext`:
//! two lines with one id and one time would be one request.
//! Invariant: every value may be a text or a number; empty and `(null)` are `None`.

use std::borrow::Cow;

use super::json_row::{Members, Outcome, Row, has_names, rounded, value};
use crate::event::decode::DecodeContext;
use crate::event::decode::text::decimal;
use crate::event::private::Holds;
use crate::event::{CdnRequest, Reject};

const CDN: &str = "fastly";

/// True if the object is one of these records. `is_whole`: it must also be sound.
pub(in crate::event::decode) fn recognises(json: &str, is_whole: bool) -> bool {
    has_names(json, is_whole, &["playhead_fastly"])
}

/// One line, without its line end. Sets neither `event_id` nor `client_prefix`.
///
/// Errors: those of JSON, `MissingEventTime`, `EventTimeOutOfRange`.
pub(in crate::event::decode) fn decode(payload: &str, context: &DecodeContext) -> Result<CdnRequest, Reject> {
    let object = Members::parse(payload)?;
    let mut reading = Reading {
        row: Row::new(CDN),
        is_shield: false,
        start_ms: None,
        origin_us: None,
        state: None,
        x_cache: None,
        body_bytes: None,
    };
    for (key, raw) in object.members() {
        if let Some(value) = value(raw) {
            reading.member(key, raw, value);
        }
    }
    reading.finish(payload, context)
}

struct Reading<'a> {
    row: Row<'a>,
    is_shield: bool,
    start_ms: Option<i64>,
    origin_us: Option<i64>,
    state: Option<Cow<'a, str>>,
    x_cache: Option<Cow<'a, str>>,
    body_bytes: Option<i64>,
}

impl<'a> Reading<'a> {
    fn member(&mut self, key: &str, raw: &'a str, value: Cow<'a, str>) {
        let row = &mut self.row;
        match key {
            "start_ms" => self.start_ms = decimal(&value, 0),
            "elapsed_us" => row.request.time_taken_ms = row.microseconds(&value),
            "ttfb_s" => row.request.ttfb_ms = row.number(&value, 3),
            "origin_us" => self.origin_us = row.number(&value, 0),
            "request_id" => row.request.request_id = Some(value.into_owned()),
            "is_edge" => self.is_shield = row.boolean(&value) == Some(false),
            "is_completed" => row.request.is_aborted = row.boolean(&value).map(|is_completed| !is_completed),
            "state" => self.state = Some(value),
            "x_cache" => self.x_cache = Some(value),
            "status" => row.request.status = row.number(&value, 0),
            "bytes" => row.request.sc_bytes = row.number(&value, 0),
            "body_bytes" => self.body_bytes = row.number(&value, 0),
            "request_bytes" => row.request.cs_bytes = row.number(&value, 0),
            "sample_interval" => row.sample_interval(&value),
            "datacenter" => row.request.pop = Some(value.to_ascii_uppercase()),
            "server" => row.request.edge_location = Some(value.into_owned()),
            "error" => row.request.error_code = Some(value.into_owned()),
            _ => self.request_member(key, raw, value),
        }
    }

    /// What the viewer sent, and who the viewer is.
    fn request_member(&mut self, key: &str, raw: &'a str, value: Cow<'a, str>) {
        let row = &mut self.row;
        match key {
            "url" => row.private_json(raw, Holds::Target),
            "referer" => row.private_json(raw, Holds::Referer),
            "cmcd_request" | "cmcd_object" | "cmcd_status" | "cmcd_session" => row.private_json(raw, Holds::Cmcd),
            _ => {}
        }
        match key {
            "method" => row.request.method = Some(value.into_owned()),
            "scheme" => row.request.protocol = Some(value.into_owned()),
            "host" => row.host(&value),
            "url" => row.target(&value),
            "protocol" => row.protocol_version(&value),
            "tls" => row.ssl_protocol(&value),
            "tls_cipher" => row.ssl_cipher(&value),
            "client_ip" => row.request.client_address = Some(value.into_owned()),
            "client_port" => row.request.client_port = row.number(&value, 0),
            "x_forwarded_for" => row.forwarded_for(&value),
            "user_agent" => row.user_agent(&value),
            "referer" => row.request.referer = Some(value.into_owned()),
            "range" => row.range(&value),
            "content_type" => row.request.content_type = Some(value.into_owned()),
            "content_length" => row.request.content_length = row.number(&value, 0),
            "country" => row.country(&value),
            "region" => row.request.network.region = Some(value.to_ascii_uppercase()),
            "asn" => row.asn(&value),
            // Names in lower case, unlike the look-up's: no fit for `network`.
            "city" => row.keep("city", value),
            "as_name" => row.keep("as_name", value),
            "cmcd_request" | "cmcd_object" | "cmcd_status" | "cmcd_session" => {
                row.cmcd_header(&key.replace('_', "-"), value);
            }
            _ => row.unknown(key, raw),
        }
    }

    fn finish(mut self, payload: &str, context: &DecodeContext) -> Result<CdnRequest, Reject> {
        let row = &mut self.row;
        let end_ms = self.start_ms.map(|ms| ms.saturating_add(row.request.time_taken_ms.unwrap_or(0)));
        if self.is_shield {
            row.is_no_viewer();
            if let Some(id) = row.request.request_id.take() {
                row.keep("edge_request_id", id);
            }
        }
        row.outcome = outcome(self.state.as_deref().unwrap_or(""), self.x_cache.as_deref().unwrap_or(""));
        // A header of the origin's time is stored with the object, and a hit sends it again.
        if matches!(row.outcome, Some(Outcome::Miss | Outcome::RefreshHit)) {
            row.request.origin_ttfb_ms = self.origin_us.map(|us| rounded(us, 1_000));
        }
        row.request.sc_bytes = row.request.sc_bytes.or(self.body_bytes);
        if row.request.edge_location.is_none() {
            row.request.edge_location = row.request.pop.clone();
        }
        if row.request.pop.is_none()
            && let Some(server) = row.request.edge_location.clone()
        {
            row.edge_location(&server);
        }
        if let Some(state) = self.state {
            row.keep("cache_status", state);
        }
        if let Some(x_cache) = self.x_cache {
            row.keep("x_cache", x_cache);
        }
        let missing = "start_ms is missing or no number; paste the format string of docs/cdn-logs.md anew";
        self.row.finish(end_ms, missing, payload, context)
    }
}

/// `fastly_info.state` is a word with suffixes: `HIT-CLUSTER`, `HIT-STALE-CLUSTER`, `MISS-REFRESH`, `PASS-WAIT`.
/// `X-Cache` names the outcome of every POP on the way, the edge last; a hit repeats what the others once said.
fn outcome(state: &str, x_cache: &str) -> Option<Outcome> {
    let mut parts = state.split('-');
    let word = parts.next()?;
    let has_suffix = |name: &str| state.split('-').skip(1).any(|suffix| suffix == name);
    match word {
        // Made at the edge: it came from no cache.
        "HIT" if has_suffix("SYNTH") => None,
        "HIT" | "MISS" if has_suffix("REFRESH") => Some(Outcome::RefreshHit),
        "HIT" => Some(Outcome::Hit),
        "MISS" | "PASS" | "HITPASS" => {
            let mut behind = x_cache.rsplit(',').skip(1).map(str::trim);
            let is_shield_hit = behind.any(|word| word == "HIT");
            Some(if is_shield_hit { Outcome::ShieldHit } else { Outcome::Miss })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::private::PrivateParts;
    use crate::event::{Network, RejectReason};

    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_800_000_000_000 };
    const DOCS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cdn-logs.md"));
    const BUFFER_MS: Option<i64> = Some(21_600);
    const LINE: &str = r#"{"playhead_fastly":1,"start_ms":1700000000068,"elapsed_us":"189400","ttfb_s":"0.064","request_id":"33c478dd-0491-4bfb-b303-64f546b819e7","is_edge":true,"is_completed":true,"state":"MISS-CLUSTER","x_cache":"HIT, MISS","status":206,"bytes":5227,"body_bytes":4995,"request_bytes":"512","method":"GET","scheme":"https","host":"media.example.net","url":"/vod/9/seg_00001.m4s?CMCD=bl%3D21600","protocol":"HTTP/2","tls":"TLSv1.3","tls_cipher":"TLS_AES_128_GCM_SHA256","client_ip":"2001:db8:85a3::7348","client_port":"51734","x_forwarded_for":"203.0.113.77, 198.51.100.7","user_agent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_3)","referer":"https://player.example.com/","range":"bytes=0-4994","content_type":"video/mp4","content_length":"4995","datacenter":"LHR","server":"cache-lhr7324-LHR","country":"GB","region":"ENG","city":"london","asn":"64500","as_name":"example cable","origin_us":"","error":"","cmcd_request":"bl=21600","cmcd_object":"","cmcd_status":"(null)","cmcd_session":"sid=\"6e2fb550\""}"#;

    fn owned(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn expected(payload: &str) -> CdnRequest {
        let ext = [
            ("as_name", "example cable"),
            ("cache_status", "MISS-CLUSTER"),
            ("city", "london"),
            ("x_cache", "HIT, MISS"),
        ];
        CdnRequest {
            cdn: owned("fastly"),
            event_ts_ms: 1_700_000_000_257,
            request_id: owned("33c478dd-0491-4bfb-b303-64f546b819e7"),
            edge_location: owned("cache-lhr7324-LHR"),
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
            result_type: owned("Miss"),
            response_result_type: owned("Miss"),
            detailed_result_type: owned("OriginShieldHit"),
            protocol: owned("https"),
            protocol_version: owned("HTTP/2.0"),
            ssl_protocol: owned("TLSv1.3"),
            ssl_cipher: owned("TLS_AES_128_GCM_SHA256"),
            time_taken_ms: Some(189),
            ttfb_ms: Some(64),
            is_aborted: Some(false),
            forwarded_for: vec!["203.0.113.77".to_owned(), "198.51.100.7".to_owned()],
            client_port: Some(51_734),
            content_type: owned("video/mp4"),
            content_length: Some(4_995),
            range_start: Some(0),
            range_end: Some(4_994),
            client_address: owned("2001:db8:85a3::7348"),
            network: Network {
                country: owned("GB"),
                region: owned("ENG"),
                asn: Some(64_500),
                ..Network::default()
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
    fn a_line_of_the_published_format_is_understood() {
        assert!(recognises(LINE, true));
        check(LINE);
    }

    #[test]
    fn the_published_format_string_names_the_keys_of_the_fixture_in_their_order() {
        let format = DOCS.lines().find(|line| line.starts_with(r#"{"playhead_fastly":1,"#)).unwrap();
        let keys = |line: &str| -> Vec<String> {
            let parts = line.split(",\"").map(|part| part.trim_start_matches(['{', '"']));
            parts.filter_map(|part| Some(part.split_once("\":")?.0.to_owned())).collect()
        };
        assert_eq!(keys(format), keys(LINE));

        let mut record = String::new();
        let mut rest = format;
        while let Some((before, directive)) = rest.split_once("%{") {
            record.push_str(before);
            record.push('1');
            rest = directive.split_once("}V").unwrap().1;
        }
        record.push_str(rest);
        assert!(recognises(&record, true), "{record}");
    }

    #[test]
    fn the_order_of_the_keys_is_nothing() {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(LINE).unwrap();
        let members = object.iter().rev().map(|(key, value)| format!("\"{key}\":{value}"));
        let shuffled = format!("{{{}}}", members.collect::<Vec<_>>().join(", "));
        assert_ne!(shuffled, LINE);
        check(&shuffled);
    }

    #[test]
    fn states_with_their_suffixes_are_told_apart() {
        let check = |state: &str, x_cache: &str, expected: Option<Outcome>| {
            assert_eq!(outcome(state, x_cache), expected, "{state} {x_cache}");
        };
        check("HIT", "MISS, HIT", Some(Outcome::Hit));
        check("HIT-CLUSTER", "HIT", Some(Outcome::Hit));
        check("HIT-STALE-CLUSTER", "", Some(Outcome::Hit));
        check("HIT-REFRESH", "", Some(Outcome::RefreshHit));
        check("MISS-REFRESH-CLUSTER", "", Some(Outcome::RefreshHit));
        check("HIT-SYNTH", "", None);
        check("MISS", "MISS", Some(Outcome::Miss));
        check("MISS-CLUSTER", "MISS, MISS", Some(Outcome::Miss));
        check("MISS-WAIT", "HIT, MISS", Some(Outcome::ShieldHit));
        check("PASS", "PASS", Some(Outcome::Miss));
        check("HITPASS", "", Some(Outcome::Miss));
        check("ERROR", "MISS", None);
        check("BG-ERROR-RECV", "", None);
        check("NONE", "", None);
        check("", "", None);
    }

    #[test]
    fn shields_weigh_nothing_and_a_broken_answer_is_an_abort() {
        let shield = LINE.replace(r#""is_edge":true"#, r#""is_edge":"false""#);
        let request = decode(&shield, &CONTEXT).unwrap();
        assert_eq!(
            (request.sample_weight_milli, request.request_id, request.player_event),
            (Some(0), None, None)
        );
        assert_eq!((request.uri_query, request.cmcd_carrier), (None, None));
        let kept = ("edge_request_id".to_owned(), "33c478dd-0491-4bfb-b303-64f546b819e7".to_owned());
        assert!(request.ext.contains(&kept));

        let broken = LINE.replace(r#""is_completed":true"#, r#""is_completed":false"#);
        let request = decode(&broken, &CONTEXT).unwrap();
        assert_eq!(request.is_aborted, Some(true));
        assert_eq!(request.result_type.as_deref(), Some("Error"));
        assert_eq!(request.response_result_type.as_deref(), Some("Miss"));

        let sampled = LINE.replace(r#""is_edge":true"#, r#""sample_interval":"20""#);
        assert_eq!(decode(&sampled, &CONTEXT).unwrap().sample_weight_milli, Some(20_000));
    }

    #[test]
    fn the_origins_time_counts_only_where_the_origin_was_asked() {
        let check = |state: &str, expected: Option<i64>| {
            let line = format!(r#"{{"start_ms":1700000000068,"origin_us":"40500","state":"{state}","datacenter":"lhr"}}"#);
            let request = decode(&line, &CONTEXT).unwrap();
            assert_eq!(request.origin_ttfb_ms, expected, "{state}");
            assert_eq!(
                (request.pop.as_deref(), request.edge_location.as_deref()),
                (Some("LHR"), Some("LHR"))
            );
        };
        check("MISS", Some(41));
        check("PASS", Some(41));
        check("HIT", None);
        check("ERROR", None);
    }

    #[test]
    fn cut_and_foreign_lines_are_refused() {
        let check = |line: &str, expected: RejectReason| {
            assert_eq!(decode(line, &CONTEXT).unwrap_err().reason, expected, "{line}");
        };
        check(&LINE[..LINE.len() / 2], RejectReason::MalformedJson);
        check("7", RejectReason::NotAnObject);
        check("<134>cache-lhr", RejectReason::MalformedJson);
        check(r#"{"playhead_fastly":1}"#, RejectReason::MissingEventTime);
        check(r#"{"start_ms":"x"}"#, RejectReason::MissingEventTime);
        check(r#"{"start_ms":1700000000}"#, RejectReason::EventTimeOutOfRange);
        assert!(recognises(&LINE[..40], false));
        assert!(!recognises(r#"{"start_ms":1}"#, true));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_survived(text in any::<String>(), state in "[A-Z,-]{0,20}", junk in r#"("[ -~é]{0,12}"|-?[0-9.]{1,22}|null|\{\}|true)"#) {
            let _ = decode(&text, &CONTEXT);
            let _ = decode(&format!(r#"{{"start_ms":{junk},"state":"{state}"}}"#), &CONTEXT);
            let _ = decode(&format!(r#"{{"start_ms":1700000000068,"url":{junk},"elapsed_us":{junk},"x_cache":"{state}","range":{junk}}}"#), &CONTEXT);
        }
    }
}
