//! Google Media CDN, Cloud Logging entries as JSON, one a line, as a sink to Pub/Sub or Cloud Storage
//! writes them (docs.cloud.google.com/media-cdn/docs/logging; Cloud Logging's `LogEntry.HttpRequest`).
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`.
//!
//! Event time: `timestamp` is when the proxy began to receive the request; the end of the response is that
//! plus `jsonPayload.latency`. Without a latency it is `timestamp`.
//!
//! Invariant: `serverIp`, `originIp` and the trace go nowhere.
//! Invariant: an entry of an origin resource (a cache fill) is the CDN's own traffic and weighs nothing.

use std::borrow::Cow;

use super::json_row::{Members, Outcome, Row, moment_ms, nested, value};
use crate::event::decode::DecodeContext;
use crate::event::private::Holds;
use crate::event::{CdnRequest, Reject};

const CDN: &str = "media_cdn";
/// What Media CDN's entries have in `@type`, and in `logName` and the resource.
const ENTRY_TYPE: &str = "EdgeCacheLogEntry";
const SERVICE: &str = "edgecache.googleapis.com";
/// The resource of a cache fill; a viewer's is `EdgeCacheRouteRule`.
const FILL_RESOURCE: &str = "EdgeCacheOrigin";

/// The keys of CMCD, spelled out as logs do, without case, hyphens and underscores.
const CMCD_KEYS: [(&str, &str); 16] = [
    ("encodedbitrate", "br"),
    ("bufferlength", "bl"),
    ("bufferstarvation", "bs"),
    ("contentid", "cid"),
    ("objectduration", "d"),
    ("deadline", "dl"),
    ("measuredthroughput", "mtp"),
    ("objecttype", "ot"),
    ("playbackrate", "pr"),
    ("requestedmaximumthroughput", "rtp"),
    ("streamingformat", "sf"),
    ("sessionid", "sid"),
    ("streamtype", "st"),
    ("startup", "su"),
    ("topbitrate", "tb"),
    ("version", "v"),
];

/// True if the object is one of these entries. `is_whole`: it must also be sound.
pub(in crate::event::decode) fn recognises(json: &str, is_whole: bool) -> bool {
    let (object, outcome) = Members::parse_prefix(json);
    let names_itself = object.members().any(|(key, raw)| match key {
        "jsonPayload" => raw.contains(ENTRY_TYPE),
        "logName" | "resource" => raw.contains(SERVICE),
        _ => false,
    });
    (outcome.is_ok() || !is_whole) && names_itself
}

/// One line, without its line end. Sets neither `event_id` nor `client_prefix`.
///
/// Errors: those of JSON, `MissingEventTime`, `EventTimeOutOfRange`.
pub(in crate::event::decode) fn decode(payload: &str, context: &DecodeContext) -> Result<CdnRequest, Reject> {
    let object = Members::parse(payload)?;
    let mut reading = Reading {
        row: Row::new(CDN),
        start_ms: None,
        latency_ms: None,
        metro: None,
        is_hit: false,
    };
    for (key, raw) in object.members() {
        match key {
            "timestamp" => reading.start_ms = value(raw).and_then(|stamp| moment_ms(&stamp)),
            "httpRequest" => reading.each(raw, Reading::http_member),
            "jsonPayload" => reading.each(raw, Reading::payload_member),
            "resource" => reading.each(raw, Reading::resource_member),
            _ => reading.row.unknown(key, raw),
        }
    }
    reading.finish(payload, context)
}

struct Reading<'a> {
    row: Row<'a>,
    start_ms: Option<i64>,
    /// `httpRequest.latency`, which `jsonPayload.latency` outranks.
    latency_ms: Option<i64>,
    metro: Option<Cow<'a, str>>,
    /// `httpRequest.cacheHit`, which `jsonPayload.cacheStatus` outranks.
    is_hit: bool,
}

impl<'a> Reading<'a> {
    fn each(&mut self, raw: &'a str, member: fn(&mut Reading<'a>, &str, &'a str, Cow<'a, str>)) {
        let Some(object) = nested(raw) else {
            return;
        };
        for (key, raw) in object.members() {
            if let Some(value) = value(raw) {
                member(self, key, raw, value);
            }
        }
    }

    fn http_member(&mut self, key: &str, raw: &'a str, value: Cow<'a, str>) {
        let row = &mut self.row;
        match key {
            "requestUrl" => row.private_json(raw, Holds::Target),
            "referer" => row.private_json(raw, Holds::Referer),
            _ => {}
        }
        match key {
            "requestMethod" => row.request.method = Some(value.into_owned()),
            "requestUrl" => row.url(&value),
            "requestSize" => row.request.cs_bytes = row.number(&value, 0),
            "status" => row.request.status = row.number(&value, 0),
            "responseSize" => row.request.sc_bytes = row.number(&value, 0),
            "userAgent" => row.user_agent(&value),
            "remoteIp" => row.request.client_address = Some(value.into_owned()),
            "referer" => row.request.referer = Some(value.into_owned()),
            "protocol" => row.protocol_version(&value),
            "latency" => self.latency_ms = row.seconds(&value),
            "cacheHit" => self.is_hit = row.boolean(&value) == Some(true),
            _ => row.unknown(key, raw),
        }
    }

    fn payload_member(&mut self, key: &str, raw: &'a str, value: Cow<'a, str>) {
        let row = &mut self.row;
        match key {
            "requestId" => row.request.request_id = Some(value.into_owned()),
            "latency" => row.request.time_taken_ms = row.seconds(&value),
            "ttlb" => row.request.time_taken_ms = milliseconds(row, &value),
            "httpTtfb" => row.request.ttfb_ms = row.seconds(&value),
            "ttfb" => row.request.ttfb_ms = milliseconds(row, &value),
            "backendInitialLatency" => row.request.origin_ttfb_ms = row.seconds(&value),
            "backendLatency" => row.request.origin_time_ms = row.seconds(&value),
            "cacheId" => {
                // The rightmost cache is the nearest to the viewer.
                let nearest = value.rsplit(',').next().unwrap_or(&value).trim();
                row.edge_location(nearest);
            }
            "metroIataCode" => self.metro = Some(value),
            "cacheStatus" => {
                row.outcome = outcome(&value);
                row.keep("cache_status", value);
            }
            "clientAsn" => row.asn(&value),
            "clientRegionCode" => row.country(&value),
            "clientCity" => row.request.network.city = Some(value.into_owned()),
            "tlsVersion" => row.ssl_protocol(&value),
            "tlsCipherSuite" => row.ssl_cipher(&value),
            "rangeHeader" => row.range(&value),
            "proxyStatus" => row.request.error_code = proxy_error(&value).map(str::to_owned),
            "statusDetails" if value.starts_with("client_disconnected") => row.request.is_aborted = Some(true),
            "origin" => row.keep("origin", value),
            "cmcd" => self.each(raw, Reading::cmcd_member),
            _ => row.unknown(key, raw),
        }
    }

    fn resource_member(&mut self, key: &str, raw: &'a str, value: Cow<'a, str>) {
        if key != "type" {
            return self.row.unknown(key, raw);
        }
        if value.rsplit('/').next() == Some(FILL_RESOURCE) {
            self.row.is_no_viewer();
        }
    }

    /// Keys of the sender's own may name the viewer, and `nor` may hold a token; none of them is read.
    fn cmcd_member(&mut self, key: &str, raw: &'a str, value: Cow<'a, str>) {
        let plain: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
        let named = |(name, own): &(&str, &str)| name.eq_ignore_ascii_case(&plain) || *own == key;
        let Some((_, own)) = CMCD_KEYS.iter().find(|entry| named(entry)) else {
            self.row.private_json(raw, Holds::Withheld);
            return;
        };
        // A length may be a protobuf `Duration`; CMCD's is in milliseconds.
        let is_length = matches!(*own, "bl" | "d" | "dl");
        let length_ms = value.strip_suffix('s').filter(|_| is_length).and_then(|_| self.row.seconds(&value));
        let value = length_ms.map_or(value, |ms| Cow::Owned(ms.to_string()));
        self.row.cmcd_column(own, value);
    }

    fn finish(mut self, payload: &str, context: &DecodeContext) -> Result<CdnRequest, Reject> {
        if self.is_hit {
            self.row.outcome.get_or_insert(Outcome::Hit);
        }
        let request = &mut self.row.request;
        request.time_taken_ms = request.time_taken_ms.or(self.latency_ms);
        if request.pop.is_none() {
            request.pop = self.metro.as_deref().map(str::to_ascii_uppercase);
        }
        let end_ms = self.start_ms.map(|ms| ms.saturating_add(request.time_taken_ms.unwrap_or(0)));
        let missing = "timestamp is missing or no RFC 3339 time; the sink must write whole log entries";
        self.row.finish(end_ms, missing, payload, context)
    }
}

/// `0.005056080s`, or milliseconds without a unit.
fn milliseconds(row: &mut Row<'_>, sent: &str) -> Option<i64> {
    if sent.ends_with('s') {
        return row.seconds(sent);
    }
    row.number(sent, 0)
}

/// The statuses of every cache between the origin shield and the viewer, the viewer's last: `fetch,miss,miss`.
fn outcome(statuses: &str) -> Option<Outcome> {
    let mut nearest_first = statuses.rsplit(',').map(str::trim);
    match nearest_first.next()? {
        "hit" | "stale" | "partial_hit" | "partial-hit" => Some(Outcome::Hit),
        "revalidated" => Some(Outcome::RefreshHit),
        "miss" | "fetch" | "uncacheable" | "bypass" | "coalesced" => {
            let is_shield_hit = nearest_first.any(|status| status == "hit");
            Some(if is_shield_hit { Outcome::ShieldHit } else { Outcome::Miss })
        }
        _ => None,
    }
}

/// The error of RFC 9209's `Google-Edge-Cache; error=http_request_error`.
fn proxy_error(sent: &str) -> Option<&str> {
    let mut parameters = sent.split([';', ',']).map(str::trim);
    parameters
        .find_map(|parameter| parameter.strip_prefix("error="))
        .filter(|error| !error.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::private::PrivateParts;
    use crate::event::{Network, RejectReason};

    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_800_000_000_000 };
    const LINE: &str = r#"{"insertId":"617fa16e-0000-2ac9-9993-d4f547fe67d4@a1","jsonPayload":{"@type":"type.googleapis.com/google.cloud.edgecache.v1.EdgeCacheLogEntry","tlsVersion":"TLS 1.3","tlsCipherSuite":"1301","cacheId":"del-234567, bom-345678","clientAsn":"64500","origin":"example_origin","clientRegionCode":"IN","metroIataCode":"bom","clientCity":"Mumbai","latency":"0.189105200s","proxyStatus":"Google-Edge-Cache","httpTtfb":"0.064056080s","backendInitialLatency":"0.041s","backendLatency":"0.050s","cacheMode":"FORCE_CACHE_ALL","cacheStatus":"hit,miss","requestId":"4bde6381-cd17-47e1-8c2a-1aaa424a1156","originIp":"192.0.2.4","rangeHeader":"bytes=0-4994","cmcd":{"session_id":"6e2fb550","bufferLength":"21.6s","encoded_bitrate":3200,"buffer_starvation":true}},"httpRequest":{"requestMethod":"GET","requestUrl":"https://media.example.net/vod/9/seg_00001.m4s?t=1","requestSize":"512","status":206,"responseSize":"5227","userAgent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_3)","remoteIp":"203.0.113.77","serverIp":"198.51.100.20","protocol":"HTTP/2"},"resource":{"type":"edgecache.googleapis.com/EdgeCacheRouteRule","labels":{"service_name":"example_service"}},"timestamp":"2023-11-14T22:13:20.068328200Z","logName":"projects/my-project/logs/edgecache.googleapis.com%2Fedge_cache_request"}"#;

    fn owned(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn expected(payload: &str) -> CdnRequest {
        let ext = [("cache_status", "hit,miss"), ("origin", "example_origin")];
        CdnRequest {
            cdn: owned("media_cdn"),
            event_ts_ms: 1_700_000_000_257,
            request_id: owned("4bde6381-cd17-47e1-8c2a-1aaa424a1156"),
            edge_location: owned("bom-345678"),
            pop: owned("BOM"),
            sc_bytes: Some(5_227),
            cs_bytes: Some(512),
            method: owned("GET"),
            host: owned("media.example.net"),
            host_header: owned("media.example.net"),
            uri_stem: owned("/vod/9/seg_00001.m4s"),
            uri_query: owned("t=1"),
            status: Some(206),
            user_agent: owned("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_3)"),
            decode_depth: Some(0),
            result_type: owned("Miss"),
            response_result_type: owned("Miss"),
            detailed_result_type: owned("OriginShieldHit"),
            protocol: owned("https"),
            protocol_version: owned("HTTP/2.0"),
            ssl_protocol: owned("TLSv1.3"),
            ssl_cipher: owned("1301"),
            time_taken_ms: Some(189),
            ttfb_ms: Some(64),
            origin_ttfb_ms: Some(41),
            origin_time_ms: Some(50),
            range_start: Some(0),
            range_end: Some(4_994),
            client_address: owned("203.0.113.77"),
            network: Network {
                country: owned("IN"),
                city: owned("Mumbai"),
                asn: Some(64_500),
                ..Network::default()
            },
            ext: ext.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            cmcd_carrier: Some("columns"),
            payload: payload.to_owned(),
            ..CdnRequest::default()
        }
    }

    /// The request, and what its player's event knows.
    fn check(line: &str) {
        let mut request = decode(line, &CONTEXT).unwrap();
        let event = request.player_event.take().unwrap();
        assert_eq!(
            (event.native_session_id.as_deref(), event.buffer_ms),
            (Some("6e2fb550"), Some(21_600))
        );
        assert_eq!(
            (event.bitrate_bps.or(event.req_bitrate_bps), event.stall_flag),
            (Some(3_200_000), Some(true))
        );
        // What is marked in the payload is tested with what becomes of it (`privacy`).
        request.private = PrivateParts::default();
        assert_eq!(request, expected(line));
    }

    #[test]
    fn an_entry_of_the_public_field_list_is_understood() {
        assert!(recognises(LINE, true));
        check(LINE);
    }

    #[test]
    fn the_order_of_the_keys_is_nothing() {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(LINE).unwrap();
        let members = object.iter().rev().map(|(key, value)| format!("\"{key}\":{value}"));
        check(&format!("{{{}}}", members.collect::<Vec<_>>().join(", ")));
    }

    #[test]
    fn statuses_of_a_chain_of_caches_are_read_from_the_right() {
        let check = |statuses: &str, expected: Option<Outcome>| assert_eq!(outcome(statuses), expected, "{statuses}");
        check("hit", Some(Outcome::Hit));
        check("hit,stale", Some(Outcome::Hit));
        check("fetch, miss, miss", Some(Outcome::Miss));
        check("hit, miss", Some(Outcome::ShieldHit));
        check("miss, revalidated", Some(Outcome::RefreshHit));
        check("uncacheable", Some(Outcome::Miss));
        check("", None);
        check("new word", None);
    }

    #[test]
    fn older_names_errors_and_fills_are_understood() {
        let decoded = |members: &str| decode(&format!(r#"{{"timestamp":"2023-11-14T22:13:20Z",{members}}}"#), &CONTEXT).unwrap();
        let request = decoded(r#""jsonPayload":{"ttfb":"64","ttlb":189,"metroIataCode":"maa"}"#);
        assert_eq!(
            (request.ttfb_ms, request.time_taken_ms, request.event_ts_ms),
            (Some(64), Some(189), 1_700_000_000_189)
        );
        assert_eq!((request.pop.as_deref(), request.edge_location), (Some("MAA"), None));

        let request = decoded(
            r#""httpRequest":{"latency":"0.1s","cacheHit":true},"jsonPayload":{"proxyStatus":"Google-Edge-Cache; error=http_request_error; details=x"}"#,
        );
        assert_eq!(
            (request.time_taken_ms, request.error_code.as_deref()),
            (Some(100), Some("http_request_error"))
        );
        assert_eq!(request.result_type.as_deref(), Some("Hit"));

        let request = decoded(r#""httpRequest":{"status":0},"jsonPayload":{"statusDetails":"client_disconnected_before_any_response"}"#);
        assert_eq!((request.status, request.is_aborted), (Some(0), Some(true)));

        let request = decoded(r#""resource":{"type":"edgecache.googleapis.com/EdgeCacheOrigin"}"#);
        assert_eq!(request.sample_weight_milli, Some(0));
    }

    #[test]
    fn cut_and_foreign_lines_are_refused() {
        let check = |line: &str, expected: RejectReason| {
            assert_eq!(decode(line, &CONTEXT).unwrap_err().reason, expected, "{line}");
        };
        check(&LINE[..LINE.len() / 2], RejectReason::MalformedJson);
        check("\"entry\"", RejectReason::NotAnObject);
        check("insertId: 617fa16e", RejectReason::MalformedJson);
        check(r#"{"httpRequest":{"status":200}}"#, RejectReason::MissingEventTime);
        check(r#"{"timestamp":"2009-11-14T22:13:20Z"}"#, RejectReason::EventTimeOutOfRange);
        assert!(!recognises(&LINE[..LINE.len() - 2], true));
        assert!(recognises(&LINE[..LINE.len() - 2], false));
        assert!(!recognises(
            r#"{"timestamp":"2023-11-14T22:13:20Z","httpRequest":{},"jsonPayload":{}}"#,
            true
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_survived(text in any::<String>(), word in "[a-zé, ;=]{0,20}", junk in r#"("[ -~é]{0,12}"|-?[0-9.]{1,22}s?|null|\{\}|true)"#) {
            let _ = decode(&text, &CONTEXT);
            let _ = decode(&format!(r#"{{"timestamp":{junk},"jsonPayload":{{"cacheStatus":"{word}"}}}}"#), &CONTEXT);
            let _ = decode(&format!(r#"{{"timestamp":1700000000,"httpRequest":{{"requestUrl":"{word}","latency":"{word}"}},"jsonPayload":{{"cmcd":{{"bl":{junk},"sid":{junk}}},"proxyStatus":"{word}","cacheId":"{word}"}}}}"#), &CONTEXT);
        }
    }
}
