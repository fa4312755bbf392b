//! CMCD that a CDN logged with a request: found by the rules of events and metrics, 4.5, and made an
//! event of the player's session.
//!
//! Stands after the formats of `cdn`, which say where their log may hold it, and above `cmcd`, which
//! reads it. A service with CDN logs alone has its sessions from here.
//!
//! The event is a `response` at the time of the request (the log's time less what the request took),
//! for that is when the player wrote of itself; its `source` is `cmcd1_log` or `cmcd2_log`, its basis
//! `Estimated`, its own id the CDN's id of the request. What the log knows better than the player (status,
//! first and last byte, host, CDN, address, user agent) comes from the log.
//!
//! Invariant: headers win over parsed columns, columns over the query; what was there and could not be
//! read is not looked for elsewhere (rule 1).
//! Invariant: a request that leaves this file has no CMCD in its path or query (rule 10).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::report;
use crate::event::decode::cmcd::{LoggedSet, without_parameter};
use crate::event::decode::text::{flag, percent_decoded};
use crate::event::private::path_of;
use crate::event::{CdnRequest, PlayerEvent};

/// The longest time that a request may have taken and still date its player: a day, ms.
const TIME_TAKEN_MAX_MS: i64 = 24 * 60 * 60 * 1000;
/// How often a logger and a proxy may have encoded a quoted text of a column.
const DECODES_MAX: usize = 3;

/// Where a log may hold the CMCD of one request, in the order in which it is believed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Candidates<'a> {
    /// A column of all request headers, percent-encoded once, one a line (CloudFront's `cs-headers`).
    pub headers_block: Option<&'a str>,
    /// Headers that were logged one by one, plain: name and value.
    pub headers: Vec<(&'a str, &'a str)>,
    /// Keys that the CDN parsed itself: CMCD's own key and the cell.
    pub columns: Vec<(&'static str, &'a str)>,
    pub query: Option<&'a str>,
    /// A URL or path whose query counts where `query` is not there.
    pub url: Option<&'a str>,
}

/// What carried a set, as `CdnRequest::cmcd_carrier` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Headers,
    Columns,
    Query,
}

impl Carrier {
    pub fn as_str(self) -> &'static str {
        match self {
            Carrier::Headers => "headers",
            Carrier::Columns => "columns",
            Carrier::Query => "query",
        }
    }
}

/// A set, what carried it, and how many decodes a query needed.
#[derive(Debug, Clone, PartialEq)]
pub struct Extracted {
    pub logged: LoggedSet,
    pub carrier: Carrier,
    pub decode_depth: Option<i64>,
}

/// The CMCD of one request. `None`: no candidate holds any.
pub fn extract(candidates: &Candidates<'_>) -> Option<Extracted> {
    let found = |logged: LoggedSet, carrier: Carrier| Extracted {
        decode_depth: logged.set.decode_depth(),
        logged,
        carrier,
    };
    let block = candidates.headers_block.and_then(LoggedSet::from_headers_block);
    if let Some(logged) = block.or_else(|| LoggedSet::from_headers(&candidates.headers)) {
        return Some(found(logged, Carrier::Headers));
    }
    if !candidates.columns.is_empty() {
        let text = text_of_columns(&candidates.columns);
        return Some(found(LoggedSet::from_text(text), Carrier::Columns));
    }
    let query = candidates.query.or_else(|| query_of(candidates.url?))?;
    let logged = LoggedSet::from_query(query)?;
    Some(found(logged, Carrier::Query))
}

fn query_of(url: &str) -> Option<&str> {
    let (_, query) = url.split_once('?')?;
    Some(query.split('#').next().unwrap_or(query))
}

/// Columns that a CDN parsed, as pairs again: the reader of pairs then judges them like any others.
fn text_of_columns(columns: &[(&'static str, &str)]) -> String {
    let mut text = String::new();
    for (key, cell) in columns {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(key);
        match *key {
            "sid" | "cid" | "nor" | "nrr" => {
                text.push('=');
                text.push_str(&quoted(key, cell));
            }
            "bs" | "su" => text.push_str(boolean(cell)),
            _ => {
                text.push('=');
                text.push_str(&percent_decoded(cell).0);
            }
        }
    }
    text
}

/// A text with its quotes, whether the CDN kept them or not. `nor` keeps its own encoding inside (rule 3).
fn quoted(key: &str, cell: &str) -> String {
    let mut cell = cell.to_owned();
    for _ in 0..DECODES_MAX {
        if !(cell.starts_with("%22") || cell.starts_with("%25")) {
            break;
        }
        cell = percent_decode_str(&cell).decode_utf8_lossy().into_owned();
    }
    if cell.starts_with('"') {
        return cell;
    }
    if key != "nor" {
        cell = percent_decode_str(&cell).decode_utf8_lossy().into_owned();
    }
    format!("\"{}\"", cell.replace('\\', "\\\\").replace('"', "\\\""))
}

fn boolean(cell: &str) -> &'static str {
    match cell {
        "false" | "0" | "?0" => "=?0",
        _ => "",
    }
}

/// Makes the event of a request that is otherwise finished. For formats that log headers or columns of
/// CMCD; the query is `settle`'s.
///
/// What was there and said nothing is flagged: `unreadable_cmcd`, or `unsupported_cmcd` where `v` is above 2.
pub fn take(request: &mut CdnRequest, candidates: &Candidates<'_>) {
    let Some(extracted) = extract(candidates) else {
        return;
    };
    request.cmcd_carrier = Some(extracted.carrier.as_str());
    request.cmcd_decode_depth = extracted.decode_depth;
    request.private.cmcd_tells = extracted.logged.may_tell();
    if extracted.logged.set.is_ignored() {
        return flag(&mut request.dq_flags, "unsupported_cmcd");
    }
    if extracted.logged.says_nothing() {
        return flag(&mut request.dq_flags, "unreadable_cmcd");
    }
    request.player_event = Some(event_of(request, extracted));
}

/// The last step of every format: splits a query off the path, makes the event of its CMCD unless another
/// carrier had some, and takes CMCD out of it.
pub fn settle(request: &mut CdnRequest) {
    split_query(request);
    let Some(query) = request.uri_query.take_if(|query| may_hold_cmcd(query)) else {
        return;
    };
    if request.cmcd_carrier.is_none() {
        let candidates = Candidates {
            query: Some(&query),
            ..Candidates::default()
        };
        take(request, &candidates);
    }
    let rest = without_parameter(&query).unwrap_or(query);
    request.uri_query = Some(rest).filter(|rest| !rest.is_empty());
}

/// Some logs have the query in the path, and some have it there and in its own column. A query whose question
/// mark is encoded is none, and goes.
pub fn split_query(request: &mut CdnRequest) {
    let Some(stem) = &mut request.uri_stem else {
        return;
    };
    let path_end = path_of(stem).len();
    if path_end == stem.len() {
        return;
    }
    let behind = stem.split_off(path_end);
    let before_fragment = behind.split('#').next().unwrap_or(&behind);
    let Some((_, query)) = before_fragment.split_once('?') else {
        return;
    };
    if request.uri_query.is_none() && !query.is_empty() {
        request.uri_query = Some(query.to_owned());
    }
}

/// Most queries have none, and are not looked at name by name. A name may be percent-encoded.
fn may_hold_cmcd(query: &str) -> bool {
    query.contains("CMCD") || query.contains("%4") || query.contains("%25")
}

/// What the player said, with what the log knows of the same request.
fn event_of(request: &CdnRequest, extracted: Extracted) -> Box<PlayerEvent> {
    let taken_ms = request.time_taken_ms.filter(|taken_ms| (0..=TIME_TAKEN_MAX_MS).contains(taken_ms));
    let host = request.host_header.as_deref().or(request.host.as_deref());
    let known = report::Request {
        at: request.event_ts_ms - taken_ms.unwrap_or(0),
        id: request.request_id.as_deref().map(Cow::Borrowed),
        cdn: request.cdn.as_deref().map(Cow::Borrowed),
        host: host.map(Cow::Borrowed),
        url: request.uri_stem.as_deref().map(|stem| Cow::Owned(url(request, host, stem))),
        status: request.status,
        ttfb_ms: request.ttfb_ms,
        ttlb_ms: request.time_taken_ms,
        cut: extracted.logged.was_cut(),
    };
    // As bronze will give it back: from the text alone.
    let logged = match extracted.carrier {
        Carrier::Headers => LoggedSet::from_text(extracted.logged.text),
        Carrier::Columns | Carrier::Query => extracted.logged,
    };
    let mut event = report::event(&known, logged);
    event.user_agent.clone_from(&request.user_agent);
    event.client_address.clone_from(&request.client_address);
    event.network.clone_from(&request.network);
    event
}

fn url(request: &CdnRequest, host: Option<&str>, stem: &str) -> String {
    let path = path_of(stem);
    match (request.protocol.as_deref(), host) {
        (Some(protocol), Some(host)) => format!("{protocol}://{host}{path}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::event::{Basis, EventKind};

    const AT_MS: i64 = 1_588_752_000_000;

    fn request(query: Option<&str>) -> CdnRequest {
        CdnRequest {
            cdn: Some("cloudfront".to_owned()),
            event_ts_ms: AT_MS,
            request_id: Some("id1".to_owned()),
            protocol: Some("https".to_owned()),
            host: Some("d1.cloudfront.net".to_owned()),
            host_header: Some("video.example.com".to_owned()),
            uri_stem: Some("/film/1.m4v".to_owned()),
            uri_query: query.map(str::to_owned),
            status: Some(206),
            time_taken_ms: Some(184),
            ttfb_ms: Some(21),
            user_agent: Some("player".to_owned()),
            client_address: Some("192.0.2.1".to_owned()),
            ..CdnRequest::default()
        }
    }

    fn settled(query: &str) -> CdnRequest {
        let mut request = request(Some(query));
        settle(&mut request);
        request
    }

    fn event(query: &str) -> PlayerEvent {
        *settled(query).player_event.unwrap_or_else(|| panic!("no event of {query}"))
    }

    fn encoded(text: &str, times: usize) -> String {
        let mut text = text.to_owned();
        for _ in 0..times {
            text = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
        }
        text
    }

    /// Events and metrics, 4.5 rule 11, and the same pairs encoded less and more often.
    #[test]
    fn the_worked_example_gives_one_event_at_every_depth() {
        let example = "CMCD=br%253D3200%252Cbs%252Csid%253D%25226e2fb550%2522";
        let expected = event(example);
        assert_eq!(expected.native_session_id.as_deref(), Some("6e2fb550"));
        assert_eq!((expected.req_bitrate_bps, expected.stall_flag), (Some(3_200_000), Some(true)));
        let pairs = "br=3200,bs,sid=\"6e2fb550\"";
        assert_eq!(expected.payload.split_once('\t').unwrap().1, pairs);
        assert_eq!(settled(example).cmcd_decode_depth, Some(2));
        for depth in 0..=3 {
            let request = settled(&format!("CMCD={}", encoded(pairs, depth)));
            assert_eq!(request.cmcd_decode_depth, Some(depth as i64));
            assert_eq!((request.player_event.as_deref(), request.uri_query), (Some(&expected), None));
        }
    }

    #[test]
    fn the_event_is_dated_at_the_request_and_knows_what_the_log_knows() {
        let event = event("CMCD=bl%3D0%2Cbs%2Cot%3Dv%2Csid%3D%22s%22");
        assert_eq!((event.source, event.basis), ("cmcd1_log", Basis::Estimated));
        assert_eq!((event.kind, event.event_ts_ms), (Some(EventKind::Response), AT_MS - 184));
        assert_eq!(
            (event.native_event_id.as_deref(), event.request_id.as_deref()),
            (Some("id1"), Some("id1"))
        );
        assert_eq!(event.url.as_deref(), Some("https://video.example.com/film/1.m4v"));
        assert_eq!(
            (event.host.as_deref(), event.cdn.as_deref()),
            (Some("video.example.com"), Some("cloudfront"))
        );
        assert_eq!((event.http_status, event.ttfb_ms, event.ttlb_ms), (Some(206), Some(21), Some(184)));
        assert_eq!(
            (event.user_agent.as_deref(), event.client_address.as_deref()),
            (Some("player"), Some("192.0.2.1"))
        );
        assert_eq!((event.stall_flag, event.buffer_video_ms), (Some(true), Some(0)));
        let mut absurd = request(Some("CMCD=su"));
        absurd.time_taken_ms = Some(1 << 53);
        settle(&mut absurd);
        assert_eq!(absurd.player_event.unwrap().event_ts_ms, AT_MS);
    }

    #[test]
    fn headers_win_over_columns_and_columns_over_the_query() {
        let all = Candidates {
            headers_block: Some("Host:a%0ACMCD-Request:bl=1%0A"),
            headers: vec![("CMCD-Request", "bl=2")],
            columns: vec![("bl", "3")],
            query: Some("CMCD=bl%3D4"),
            url: Some("/x?CMCD=bl%3D5#CMCD"),
        };
        let check = |candidates: &Candidates<'_>, text: &str, carrier: Carrier, depth: Option<i64>| {
            let extracted = extract(candidates).unwrap();
            assert_eq!(
                (extracted.logged.text.as_str(), extracted.carrier, extracted.decode_depth),
                (text, carrier, depth)
            );
        };
        check(&all, "bl=1", Carrier::Headers, None);
        let mut less = Candidates {
            headers_block: Some("Host:a%0A"),
            ..all
        };
        check(&less, "bl=2", Carrier::Headers, None);
        less.headers = vec![("accept", "*/*")];
        check(&less, "bl=3", Carrier::Columns, None);
        less.columns.clear();
        check(&less, "bl=4", Carrier::Query, Some(1));
        less.query = None;
        check(&less, "bl=5", Carrier::Query, Some(1));
        less.url = Some("/x?a=1");
        assert_eq!(extract(&less), None);
    }

    #[test]
    fn columns_are_pairs_again_however_the_cdn_wrote_them() {
        let check = |key: &'static str, cell: &str, expected: &str| {
            assert_eq!(text_of_columns(&[(key, cell)]), expected, "{cell}");
        };
        check("sid", "6e2fb550", "sid=\"6e2fb550\"");
        check("sid", "\"6e2fb550\"", "sid=\"6e2fb550\"");
        check("sid", "%226e2fb550%22", "sid=\"6e2fb550\"");
        check("sid", "%25226e2fb550%2522", "sid=\"6e2fb550\"");
        check("cid", "a%20b\\", "cid=\"a b\\\\\"");
        check("nor", "..%2Fseg2.mp4", "nor=\"..%2Fseg2.mp4\"");
        check("nor", "%22..%252Fseg2.mp4%22", "nor=\"..%2Fseg2.mp4\"");
        check("bs", "true", "bs");
        check("su", "false", "su=?0");
        check("bl", "21300", "bl=21300");
        check("br", "%283200%3Bv%29", "br=(3200;v)");
        assert_eq!(text_of_columns(&[("bl", "1"), ("v", "1")]), "bl=1,v=1");
    }

    #[test]
    fn the_rest_of_the_query_stays_and_the_path_loses_its_query() {
        let check = |stem: &str, query: Option<&str>, expected: (&str, Option<&str>), has_event: bool| {
            let mut request = request(query);
            request.uri_stem = Some(stem.to_owned());
            settle(&mut request);
            assert_eq!(
                (request.uri_stem.as_deref().unwrap(), request.uri_query.as_deref()),
                expected,
                "{stem} {query:?}"
            );
            assert_eq!(request.player_event.is_some(), has_event, "{stem} {query:?}");
        };
        check("/a", Some("t=1&CMCD=bl%3D1&u=%2520"), ("/a", Some("t=1&u=%2520")), true);
        check("/a?t=1&%43MCD=bl%3D1", None, ("/a", Some("t=1")), true);
        check("/a?CMCD=bl%3D1", Some("CMCD=bl%3D1"), ("/a", None), true);
        check("/a?", None, ("/a", None), false);
        check("/a?t=1", Some("u=2"), ("/a", Some("u=2")), false);
        check("/a", Some("t=%2540"), ("/a", Some("t=%2540")), false);
        check("/a", None, ("/a", None), false);
    }

    #[test]
    fn what_says_nothing_is_flagged_and_gone_from_the_query() {
        let check = |query: &str, expected: &str| {
            let request = settled(query);
            assert_eq!(
                (request.dq_flags.as_slice(), request.player_event, request.uri_query),
                (&[expected][..], None, None),
                "{query}"
            );
            assert_eq!(request.cmcd_carrier, Some("query"));
        };
        check("CMCD=", "unreadable_cmcd");
        check("CMCD=%2525253D", "unreadable_cmcd");
        check("CMCD=bl%3D1%2Cv%3D3", "unsupported_cmcd");
        let mut request = request(Some("CMCD=bl%3D1"));
        take(
            &mut request,
            &Candidates {
                headers: vec![("CMCD-Session", "")],
                ..Candidates::default()
            },
        );
        settle(&mut request);
        assert_eq!(
            (request.cmcd_carrier, request.player_event, request.uri_query),
            (Some("headers"), None, None)
        );
    }

    /// A file of the foreign fixtures, which are outside the repository.
    #[allow(clippy::disallowed_methods, reason = "where the fixtures are is the tests' own setting")]
    fn recorded() -> Option<String> {
        let folder = match std::env::var_os("PLAYHEAD_FIXTURES") {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")),
        };
        let path = folder.join("cmcd/recorded/cmcd-data-samples-queries.txt");
        if !path.exists() {
            println!("skipped: no {}; set PLAYHEAD_FIXTURES", path.display());
            return None;
        }
        Some(std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn the_recorded_queries_give_equal_events_at_every_depth() {
        let Some(text) = recorded() else {
            return;
        };
        let mut lines = 0;
        for line in text.lines() {
            let (url, query) = line.split_once('?').unwrap();
            let plain = encoded_once(query).1;
            let mut expected = None;
            for depth in 0..=3 {
                let mut request = request(Some(&format!("CMCD={}", encoded(&plain, depth))));
                request.uri_stem = Some(url.to_owned());
                settle(&mut request);
                assert_eq!(
                    (request.cmcd_decode_depth, &request.uri_query),
                    (Some(depth as i64), &None),
                    "{plain}"
                );
                let event = request.player_event.unwrap();
                assert_eq!(event.native_session_id.as_deref(), Some("b248658d-1d1a-4039-91d0-8c08ba597da5"));
                let pairs = event.payload.split_once('\t').unwrap().1;
                assert_eq!((pairs, event.key_faults.len()), (plain.as_str(), 0));
                assert_eq!(*expected.get_or_insert_with(|| event.clone()), event, "{plain} at {depth}");
            }
            lines += 1;
        }
        assert_eq!(lines, 20);
    }

    /// The value of a recorded query, which is encoded once, as it is and decoded.
    fn encoded_once(query: &str) -> (&str, String) {
        let value = query.strip_prefix("CMCD=").unwrap();
        (value, percent_decode_str(value).decode_utf8().unwrap().into_owned())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_request_is_survived_and_loses_its_cmcd(
            stem in r#"/[a-z?&=]{0,12}"#,
            query in proptest::option::of(r#"([a-z]{1,4}|CMCD=|%43MCD=|[=,;&?%+()"\\ .0-9-]|%22|%2522|ä|\PC){0,40}"#),
            block in r#"(CMCD-Request:|Host:|%0A|[a-z=,"%0-9]){0,20}"#,
        ) {
            let mut request = request(query.as_deref());
            request.uri_stem = Some(stem);
            take(&mut request, &Candidates { headers_block: Some(&block), ..Candidates::default() });
            settle(&mut request);
            let query = request.uri_query.clone().unwrap_or_default();
            prop_assert_eq!(without_parameter(&query), None);
            prop_assert!(!request.uri_stem.as_ref().unwrap().contains('?'));
            if let Some(event) = &request.player_event {
                for (span, _) in &event.identity_spans {
                    prop_assert!(event.payload.get(span.clone()).is_some());
                }
            }
            let again = request.clone();
            settle(&mut request);
            prop_assert_eq!(request, again);
        }
    }
}
