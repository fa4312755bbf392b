//! CloudFront standard logs, version 2, as JSON objects or rows of Parquet (events and metrics, 4.2).
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`.
//!
//! The keys are the names of version 1, parentheses included, and some of the real-time log's; Parquet has
//! underscores in them (`cs_user_agent`). Values are texts, or, from CloudWatch and Parquet, numbers.
//!
//! Invariant: a key is bound by its name; any of them may be missing but those of the time.

use super::{Column, Reading, is_real_time_name, is_said};
use crate::event::decode::DecodeContext;
use crate::event::decode::text::{Object, Scalar, Vocabulary};
use crate::event::private::{Written, tells};
use crate::event::{CdnRequest, Reject};

/// Keys of CloudFront's own that an object must have to be known for one of these.
const OWN_KEYS_MIN: usize = 2;
/// How CloudFront's own keys begin: with who speaks to whom.
const OWN_BEGINNINGS: [&str; 10] = ["x-edge-", "x_edge_", "cs(", "cs-", "cs_", "sc-", "sc_", "x-host-", "x_host_", "c-"];

/// The keys are looked up as columns.
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

/// True if the object has keys that only CloudFront's logs have. `is_whole`: it must also be sound.
pub(in crate::event::decode) fn recognises(json: &str, is_whole: bool) -> bool {
    let (object, outcome) = Object::<NoKey>::parse_prefix(json);
    let is_own = |name: &str| {
        let begins = OWN_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
        begins && !matches!(Column::named(name, false), Column::Unknown | Column::Withheld)
    };
    let own_keys = object.members().filter(|(name, _)| is_own(name)).take(OWN_KEYS_MIN);
    (outcome.is_ok() || !is_whole) && own_keys.count() == OWN_KEYS_MIN
}

/// One line, without its line end. Sets neither `event_id` nor `client_prefix`.
pub(in crate::event::decode) fn decode(payload: &str, context: &DecodeContext) -> Result<Box<CdnRequest>, Reject> {
    let object = Object::<NoKey>::parse(payload)?;
    let is_real_time = object.members().any(|(name, _)| is_real_time_name(name));
    let mut reading = Reading::default();
    for (name, raw) in object.members() {
        let Some(value) = Scalar::read(raw) else {
            continue;
        };
        let cell = value.into_text();
        if is_said(&cell) {
            let column = match Column::named(name, is_real_time) {
                Column::Unknown if tells(name, raw) => Column::Withheld,
                column => column,
            };
            reading.cell(column, || name, raw, cell);
        }
    }
    reading.finish(payload, Written::Json, context)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::RejectReason;
    use crate::event::decode::cdn::cmcd_in_log::settle;
    use crate::event::private::PrivateParts;

    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_700_000_000_000 };
    /// All keys as texts, as S3, Firehose and CloudWatch deliver them.
    const LINE: &str = r#"{"date":"2020-05-06","time":"08:00:00","x-edge-location":"LHR50-C1","sc-bytes":"1370422","c-ip":"203.0.113.77","cs-method":"GET","cs(Host)":"d1.cloudfront.net","cs-uri-stem":"/a/1.ts","sc-status":"200","cs(Referer)":"https://player.example.com/","cs(User-Agent)":"Mozilla/5.0%20(X)","cs-uri-query":"t=1&CMCD=bl%253D1%252Csid%253D%2522s%2522","cs(Cookie)":"a=b","x-edge-result-type":"Hit","x-edge-request-id":"id1==","x-host-header":"video.example.com","cs-protocol":"https","cs-bytes":"112","time-taken":"0.184","x-forwarded-for":"192.0.2.1, 192.0.2.2","ssl-protocol":"TLSv1.3","ssl-cipher":"TLS_AES_128_GCM_SHA256","x-edge-response-result-type":"Hit","cs-protocol-version":"HTTP/3.0","fle-status":"-","fle-encrypted-fields":"-","c-port":"51734","time-to-first-byte":"0.021","x-edge-detailed-result-type":"Hit","sc-content-type":"video/mp2t","sc-content-len":"1369880","sc-range-start":"-","sc-range-end":"-","timestamp":"1588752000","timestamp(ms)":"1588752000123","origin-fbl":"0.018","origin-lbl":"0.2","asn":"64500","c-country":"GB","cache-behavior-path-pattern":"/a/*","DistributionId":"E1","distribution-tenant-id":"-"}"#;

    fn decoded(line: &str) -> CdnRequest {
        let mut request = *decode(line, &CONTEXT).unwrap_or_else(|reject| panic!("{line}: {reject:?}"));
        settle(&mut request);
        request
    }

    fn owned(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn expected(payload: &str) -> CdnRequest {
        let mut request = CdnRequest {
            cdn: owned("cloudfront"),
            event_ts_ms: 1_588_752_000_123,
            request_id: owned("id1=="),
            edge_location: owned("LHR50-C1"),
            pop: owned("LHR"),
            sc_bytes: Some(1_370_422),
            cs_bytes: Some(112),
            method: owned("GET"),
            host: owned("d1.cloudfront.net"),
            host_header: owned("video.example.com"),
            uri_stem: owned("/a/1.ts"),
            uri_query: owned("t=1"),
            status: Some(200),
            referer: owned("https://player.example.com/"),
            user_agent: owned("Mozilla/5.0 (X)"),
            decode_depth: Some(1),
            cookie: owned("a=b"),
            result_type: owned("Hit"),
            response_result_type: owned("Hit"),
            detailed_result_type: owned("Hit"),
            protocol: owned("https"),
            protocol_version: owned("HTTP/3.0"),
            ssl_protocol: owned("TLSv1.3"),
            ssl_cipher: owned("TLS_AES_128_GCM_SHA256"),
            time_taken_ms: Some(184),
            ttfb_ms: Some(21),
            origin_ttfb_ms: Some(18),
            origin_time_ms: Some(200),
            is_aborted: Some(false),
            cmcd_carrier: Some("query"),
            cmcd_decode_depth: Some(2),
            forwarded_for: vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned()],
            client_port: Some(51_734),
            content_type: owned("video/mp2t"),
            content_length: Some(1_369_880),
            client_address: owned("203.0.113.77"),
            payload: payload.to_owned(),
            ..CdnRequest::default()
        };
        request.network.country = owned("GB");
        request.network.asn = Some(64_500);
        let ext = [("DistributionId", "E1"), ("cache-behavior-path-pattern", "/a/*")];
        request.ext = ext.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        request
    }

    /// Decodes to the row of `LINE`, its player's event apart.
    fn check(line: &str) {
        let mut request = decoded(line);
        let event = request.player_event.take().unwrap();
        assert_eq!(
            (event.native_session_id.as_deref(), event.event_ts_ms),
            (Some("s"), 1_588_751_999_939)
        );
        // What is marked in the payload is tested with what becomes of it (`privacy`).
        request.private = PrivateParts::default();
        assert_eq!(request, expected(line));
    }

    #[test]
    fn every_key_has_its_field() {
        check(LINE);
    }

    #[test]
    fn the_order_of_keys_and_the_types_of_values_do_not_matter() {
        let members: Vec<&str> = LINE[1..LINE.len() - 1].split(",\"").collect();
        let turned: Vec<String> = members
            .iter()
            .rev()
            .map(|member| member.trim_start_matches('"').to_owned())
            .collect();
        check(&format!("{{\"{}}}", turned.join(",\"")));
        let mut typed = LINE.to_owned();
        for (text, number) in [
            ("\"1370422\"", "1370422"),
            ("\"0.184\"", "1.84e-1"),
            ("\"1588752000123\"", "1588752000123"),
            ("\"200\"", "200"),
            ("\"64500\"", "64500"),
        ] {
            assert!(typed.contains(text));
            typed = typed.replace(text, number);
        }
        check(&typed.replace("\"-\"", "null"));
    }

    #[test]
    fn rows_of_parquet_have_underscores_and_may_have_times_of_their_own_kind() {
        let mut row = LINE
            .replace("cs(Host)", "cs_host")
            .replace("cs(Referer)", "cs_referer")
            .replace("timestamp(ms)", "timestamp_ms");
        row = row.replace("cs(User-Agent)", "cs_user_agent").replace("cs(Cookie)", "cs_cookie");
        for name in [
            "x-edge-location",
            "sc-bytes",
            "x-host-header",
            "cs-uri-stem",
            "origin-fbl",
            "c-country",
            "x-edge-request-id",
        ] {
            row = row.replace(name, &name.replace('-', "_"));
        }
        check(&row);
        check(&row.replace("\"1588752000123\"", "\"2020-05-06T08:00:00.123Z\""));
        let time = |members: &str| decoded(&format!("{{{members}}}")).event_ts_ms;
        assert_eq!(time(r#""date":"2020-05-06T00:00:00","time":"08:00:01.000""#), 1_588_752_001_000);
        assert_eq!(time(r#""timestamp":"2020-05-06T08:00:01","date":"1999-01-01""#), 1_588_752_001_000);
        assert_eq!(time(r#""timestamp":1588752001.541"#), 1_588_752_001_541);
    }

    #[test]
    fn what_lacks_a_time_or_is_cut_or_is_garbage_is_refused() {
        let check = |line: &str, expected: RejectReason| {
            assert_eq!(decode(line, &CONTEXT).unwrap_err().reason, expected, "{line}");
        };
        check(r#"{"date":"2020-05-06","sc-bytes":"1"}"#, RejectReason::MissingEventTime);
        check(r#"{"timestamp":"soon"}"#, RejectReason::MissingEventTime);
        check(r#"{"timestamp":"1"}"#, RejectReason::EventTimeOutOfRange);
        check(&LINE[..LINE.len() / 2], RejectReason::MalformedJson);
        check("[1]", RejectReason::NotAnObject);
        check("2020-05-06\t08:00:00", RejectReason::MalformedJson);
        let flagged = decoded(r#"{"timestamp":1588752000,"sc-bytes":"many","asn":-1}"#);
        assert_eq!(
            (flagged.sc_bytes, flagged.network.asn, flagged.dq_flags),
            (None, None, vec!["bad_value"])
        );
    }

    #[test]
    fn its_objects_are_recognised_and_others_are_not() {
        assert!(recognises(LINE, true) && recognises(&LINE[..200], false) && !recognises(&LINE[..200], true));
        assert!(recognises(r#"{"x_edge_location":"a","sc_status":"200"}"#, true));
        for other in [
            r#"{"MetricType":"PLAY","cs-x":1}"#,
            r#"{"sc-status":200}"#,
            r#"{"date":"x","time":"y","timestamp":1}"#,
            "{}",
        ] {
            assert!(!recognises(other, true), "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_damaged_line_is_survived(place in 0..LINE.len(), garbage in r#"[ -~]{0,4}|ä|\PC"#, length in 0..8usize) {
            let end = (place + length).min(LINE.len());
            let line = format!("{}{garbage}{}", &LINE[..place], &LINE[end..]);
            recognises(&line, false);
            if let Ok(mut request) = decode(&line, &CONTEXT) {
                settle(&mut request);
                prop_assert_eq!(request.payload, line);
            }
        }
    }
}
