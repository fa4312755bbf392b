//! The format of a file or of a record by its look, where that is safe.
//!
//! Stands before the decoders: a source without a format in its settings asks here. Formats without a mark
//! of their own (a field list of settings, a field map) are never detected.
//!
//! Invariant: any bytes give a format or none; never a panic.

use super::cdn::cloudfront::{json, standard};
use super::cdn::{akamai, cdn_json, cloudflare, combined, fastly, media_cdn};
use super::text::{self, without_bom};
use super::{BOM, Format, Kind, cmcd, epas, ivs, readable_start, reference};

/// Lines that `detect` looks at: a file whose first hundred lines decide nothing is not ours.
const DETECT_LINES_MAX: usize = 100;

/// The format of a file by its first bytes, which may end anywhere.
///
/// The first line that decides counts. `None`: nothing decides yet, so look again with more bytes,
/// or give up if there are none.
pub fn detect(head: &[u8]) -> Option<Format> {
    let head = head.strip_prefix(BOM).unwrap_or(head);
    let mut first_is_object = None;
    for line in head.split_inclusive(|byte| *byte == b'\n').take(DETECT_LINES_MAX) {
        let readable = readable_start(line).trim();
        if readable.is_empty() {
            continue;
        }
        let is_whole = line.ends_with(b"\n");
        if let Some(format) = format_of(readable, is_whole) {
            return Some(format);
        }
        first_is_object.get_or_insert(is_whole && readable.starts_with('{'));
    }
    (first_is_object == Some(true)).then_some(Format::Reference)
}

/// A whole line must be sound JSON to decide; one that is cut here decides by the keys it still has.
fn format_of(line: &str, is_whole: bool) -> Option<Format> {
    if line.starts_with('{') {
        return object_format(line, is_whole);
    }
    if combined::recognises(line) {
        return Some(Format::Combined);
    }
    if cmcd::recognises(line) {
        return Some(Format::Cmcd);
    }
    if line.starts_with("#Version:") || standard::field_list(line).is_some() {
        return Some(Format::CloudFrontV1);
    }
    let (first_cell, _) = line.split_once('\t')?;
    text::is_date(first_cell).then_some(Format::CloudFrontV1)
}

type Recognises = fn(&str, bool) -> bool;

/// The logs of CDNs, and what any of their objects holds: most objects are told apart without parsing.
const CDN_LOGS: [(Format, &str, Recognises); 5] = [
    (Format::CloudFrontV2, "edge", json::recognises),
    (Format::Akamai, "reqTimeSec", akamai::recognises),
    (Format::Fastly, "playhead_fastly", fastly::recognises),
    (Format::Cloudflare, "Edge", cloudflare::recognises),
    (Format::GoogleMediaCdn, "EdgeCache", media_cdn::recognises),
];
const OBJECTS: [(Format, Recognises); 4] = [
    (Format::CdnJson, cdn_json::recognises),
    (Format::Ivs, ivs::recognises),
    (Format::Epas, epas::recognises),
    (Format::Reference, reference::recognises),
];

fn object_format(json: &str, is_whole: bool) -> Option<Format> {
    let logged = CDN_LOGS
        .into_iter()
        .find(|(_, mark, recognises)| json.contains(mark) && recognises(json, is_whole));
    if let Some((format, ..)) = logged {
        return Some(format);
    }
    let known = OBJECTS.into_iter().find(|(_, recognises)| recognises(json, is_whole));
    known.map(|(format, _)| format)
}

/// The player dialect of one whole record; `None` if no dialect knows it.
pub fn detect_record(record: &[u8]) -> Option<Format> {
    let record = without_bom(std::str::from_utf8(record).ok()?).trim();
    let format = match record.starts_with('{') {
        true => object_format(record, true),
        false => cmcd::recognises(record).then_some(Format::Cmcd),
    };
    format.filter(|format| format.table() == Kind::Player)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAYER_LINES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_player.ndjson"));
    const CDN_LINES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_cdn.ndjson"));
    const CDN_ROW: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_cdn_v1_row.tsv"));
    const HOSTILE_LINES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/hostile.ndjson"));

    #[test]
    fn the_first_line_that_decides_names_the_format() {
        let check = |head: &[u8], expected: Option<Format>| {
            assert_eq!(detect(head), expected, "{}", head.escape_ascii());
        };
        check(PLAYER_LINES.as_bytes(), Some(Format::Reference));
        check(CDN_LINES.as_bytes(), Some(Format::CdnJson));
        check(CDN_ROW.as_bytes(), Some(Format::CloudFrontV1));
        check(HOSTILE_LINES.as_bytes(), Some(Format::Reference));
        check(b"#Version: 1.0\n#Fields: date time\n", Some(Format::CloudFrontV1));
        check(b"#fields:\tdate\ttime\n", Some(Format::CloudFrontV1));
        check(b"\n \r\n{\"METRICTYPE\":\"PLAY\"}\n", Some(Format::Reference));
        check(b"{\"LogDate\":\"x\",\"RequestId\":\"y\"}", Some(Format::CdnJson));
        check(b"\xef\xbb\xbf{\"MetricType\":\"PLAY\"}", Some(Format::Reference));
        check(b"{\"a\":1}\n{\"logdate\":1,\"requestid\":2}\n", Some(Format::CdnJson));
        check(b"{\"a\":\n{\"MetricType\":1}\n", Some(Format::Reference));
        check(b"{\"MetricType\":\n{\"logdate\":1,\"requestid\":2}\n", Some(Format::CdnJson));
        check(
            b"{\"MetricType\":1,\"at\":\n{\"logdate\":1,\"requestid\":2}\n",
            Some(Format::CdnJson),
        );
        check(b"[1,\n{\"logdate\":1,\"requestid\":2}\n", Some(Format::CdnJson));
        check(b"# a comment\n{\"MetricType\":\"PLAY\"}\n", Some(Format::Reference));
        check(b"{\"logdate\":1,\"requestid\":\n{\"MetricType\":1}\n", Some(Format::Reference));
        check(b"{\"logdate\":1,\"requestid\":2,\n{\"MetricType\":1}\n", Some(Format::Reference));
        check(b"{\"requestid\":1,\"MetricType\":1}\n", Some(Format::Reference));
        check(b"{\"logdate\":1,\"MetricType\":1}\n", Some(Format::Reference));
        check(b"{\"a\":1}\n{\"b\":1}\n", Some(Format::Reference));
    }

    #[test]
    fn what_does_not_decide_waits_for_more() {
        for head in [
            &b""[..],
            b"\n\n",
            b"[]\n",
            b"{\"a\":1",
            b"{\"logdate\":\"2020-05-06\",",
            b"hello\n",
            b"2020-05-06",
            b"\xff\xfe\n",
        ] {
            assert_eq!(detect(head), None, "{}", head.escape_ascii());
        }
        let late = format!("{}{{\"MetricType\":1}}", "x\n".repeat(DETECT_LINES_MAX));
        assert_eq!(detect(late.as_bytes()), None);
    }

    #[test]
    fn a_cut_first_line_is_recognised_by_the_keys_it_still_has() {
        assert_eq!(detect(b"{\"MetricType\":\"STREAM\",\"at\":5.0"), Some(Format::Reference));
        let inside_a_character = &"{\"MetricType\":\"PLAY\",\"video_id\":\"ä".as_bytes()[..34];
        assert!(std::str::from_utf8(inside_a_character).is_err());
        assert_eq!(detect(inside_a_character), Some(Format::Reference));
    }

    #[test]
    fn logs_of_cdns_are_known_by_names_that_only_they_have() {
        let check = |head: &str, expected: Option<Format>| assert_eq!(detect(head.as_bytes()), expected, "{head}");
        check(
            "{\"date\":\"2020-05-06\",\"x-edge-location\":\"LHR50-C1\",\"sc-status\":\"200\"}\n",
            Some(Format::CloudFrontV2),
        );
        check(
            "{\"date\":\"2020-05-06\",\"x-edge-location\":\"LHR50-C1\",\"sc-status\":\"200\",\"c-ip\":\"2",
            Some(Format::CloudFrontV2),
        );
        check("{\"reqTimeSec\":\"1588752000.068\",\"statusCode\":\"200\"}\n", Some(Format::Akamai));
        check("{\"playhead_fastly\":1,\"start_ms\":1588752000068}\n", Some(Format::Fastly));
        check("{\"EdgeStartTimestamp\":1588752000,\"RayID\":\"1\"}\n", Some(Format::Cloudflare));
        check(
            "{\"jsonPayload\":{\"@type\":\"type.googleapis.com/google.cloud.edgecache.v1.EdgeCacheLogEntry\"}}\n",
            Some(Format::GoogleMediaCdn),
        );
        check(
            "203.0.113.7 - - [06/May/2020:08:00:00 +0000] \"GET /a?CMCD=bl%3D1 HTTP/1.1\" 200 5 \"-\" \"-\"\n",
            Some(Format::Combined),
        );
        check(
            "{\"MetricType\":\"PLAY\",\"note\":\"edge reqTimeSec Edge EdgeCache playhead_fastly\"}\n",
            Some(Format::Reference),
        );
        check("1588752000.541\t203.0.113.7\t0.042\t200\n", None);
        check("time,status\n", None);
        assert_eq!(detect_record(b"{\"playhead_fastly\":1}"), None, "no player sends that");
    }
}
