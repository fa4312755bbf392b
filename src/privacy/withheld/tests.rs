//! Every format of a CDN's log with secrets wherever it can hold them.

use proptest::prelude::*;

use super::super::lists::{Lists, Referrer};
use super::super::{AnonymousRequest, IdentityPolicy, Privacy};
use crate::event::CdnRequest;
use crate::event::decode::{DecodeContext, Decoded, Decoder, Format};

const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_700_000_000_000 };
const V1: &str = "date time c-ip cs-uri-stem sc-status cs(Referer) cs-uri-query cs(Cookie) x-edge-request-id x-auth-token";
const REAL_TIME: &str = "timestamp c-ip cs-uri-stem cs-referer cs-cookie cs-uri-query cs-headers cmcd-session-id";
const CSV: &str = "layout=csv columns=ts,uri,ref,ck,http_cookie,ip,q,sess time=ts client_address=ip url=uri referer=ref cookie=ck uri_query=q cmcd_session=sess ext.note=sess";
const NDJSON: &str = "time=ts client_address=req.ip url=req.uri referer=req.ref cookie=req.ck ext.auth_token=req.auth";

fn privacy() -> Privacy {
    Privacy::new(IdentityPolicy::Pseudonym, [7; 32])
}

fn decoded(format: Format, fields: Option<&str>, line: &str) -> Box<CdnRequest> {
    match Decoder::with_fields(format, fields).decode(line.as_bytes(), &CONTEXT) {
        Ok(Decoded::Cdn(request)) => request,
        other => panic!("{format:?}: {other:?}\n{line}"),
    }
}

/// What is stored of a line.
fn stored(privacy: &Privacy, format: Format, fields: Option<&str>, line: &str) -> AnonymousRequest {
    let mut request = decoded(format, fields, line);
    request.player_event = None;
    privacy.anonymise_request(request)
}

/// The stored payload gives the same fields before anything is treated, and the same row after it.
#[track_caller]
fn check_replay(privacy: &Privacy, format: Format, row: &AnonymousRequest) {
    let mut again = decoded(format, row.fields.as_deref(), &row.payload);
    again.player_event = None;
    again.client_address.clone_from(&row.client_prefix);
    let texts = |request: &CdnRequest| {
        let some = [
            &request.uri_stem,
            &request.uri_query,
            &request.referer,
            &request.cookie,
            &request.host,
        ];
        some.map(Clone::clone)
    };
    assert_eq!(texts(&again), texts(row), "{format:?}\n{}", row.payload);
    let again = privacy.anonymise_request(again);
    assert_eq!(again, *row, "{format:?}\n{}", row.payload);
}

/// A line with secrets: none is stored, its CMCD is read, and what is stored is read as it is stored.
#[track_caller]
fn check_as(carrier: &str, format: Format, fields: Option<&str>, line: &str) -> AnonymousRequest {
    let mut request = decoded(format, fields, line);
    assert_eq!(request.cmcd_carrier, Some(carrier), "{line}");
    let event = request.player_event.take().unwrap_or_else(|| panic!("{format:?} has no CMCD"));
    assert_eq!(event.native_session_id.as_deref(), Some("s"), "{format:?}");
    let event = privacy().anonymise(event);
    assert!(!format!("{event:?}").contains("SECRET"), "{format:?}: {event:?}");
    let row = stored(&privacy(), format, fields, line);
    assert!(!format!("{row:?}").contains("SECRET"), "{format:?}: {row:?}");
    check_replay(&privacy(), format, &row);
    let again = decoded(format, row.fields.as_deref(), &row.payload);
    let again = again
        .player_event
        .unwrap_or_else(|| panic!("{format:?} lost its CMCD: {}", row.payload));
    assert_eq!(again.native_session_id.as_deref(), Some("s"), "{format:?}: {}", row.payload);
    row
}

#[track_caller]
fn check(format: Format, fields: Option<&str>, line: &str) -> AnonymousRequest {
    check_as("query", format, fields, line)
}

#[track_caller]
fn check_texts(row: &CdnRequest, stem: &str, referer: Option<&str>) {
    let found = (
        row.uri_stem.as_deref(),
        row.uri_query.as_deref(),
        row.referer.as_deref(),
        row.cookie.as_deref(),
    );
    assert_eq!(found, (Some(stem), None, referer, None));
}

const ORIGIN: Option<&str> = Some("https://site.example/");

#[test]
fn cloudfront_standard_logs_lose_them() {
    let line = "2022-11-19\t00:24:13\t203.0.113.77\t/a.ts\t200\thttps://site.example/p?u=SECRET3\ttoken=SECRET2&CMCD=bs%252Csid%253D%2522s%2522\tsession=SECRET1;%20b=SECRET\tid\tSECRET4";
    let row = check(Format::CloudFrontV1, Some(V1), line);
    check_texts(&row, "/a.ts", ORIGIN);
    let kept = "2022-11-19\t00:24:13\t203.0.113.0\t/a.ts\t200\thttps://site.example/\tCMCD=bs%252Csid%253D%2522s%2522\t-\tid\t-";
    assert_eq!(row.payload, kept);
    let json = r#"{"timestamp(ms)":"1668817453000","c-ip":"203.0.113.77","cs-uri-stem":"/a.ts","x-edge-request-id":"id","cs(Referer)":"https://site.example/p?u=SECRET3","cs-uri-query":"token=SECRET2\u0026CMCD=bs%252Csid%253D%2522s%2522","cs(Cookie)":"session=SECRET1","cs(Authorization)":"SECRET4","req":{"Cookie":"SECRET5"}}"#;
    let row = check(Format::CloudFrontV2, None, json);
    check_texts(&row, "/a.ts", ORIGIN);
    let parquet = r#"{"timestamp_ms":1668817453000,"cs_uri_stem":"/a.ts","cs_referer":"https%3A%2F%2Fsite.example%2Fp%3Fu%3DSECRET3","cs_uri_query":"CMCD=bs%2Csid%3D%22s%22&x=SECRET","cs_cookie":"session=SECRET1"}"#;
    check_texts(&check(Format::CloudFrontV2, None, parquet), "/a.ts", ORIGIN);
}

#[test]
fn the_real_time_log_loses_them_in_the_path_and_in_its_headers_too() {
    let line = |stem: &str, query: &str, headers: &str, session: &str| {
        format!("1668817453.120\t203.0.113.77\t{stem}\thttps://site.example/p?u=SECRET3\tsession=SECRET1\t{query}\t{headers}\t{session}")
    };
    let cmcd = "CMCD=bs%2Csid%3D%22s%22";
    let headers = "Host:a%0ACookie:session=SECRET1%0ACMCD-Session:sid=%22s%22%0AReferer:https://b/SECRET";
    let in_path = check(
        Format::CloudFrontRealTime,
        Some(REAL_TIME),
        &line(&format!("/a.ts?t=SECRET2&{cmcd}"), "-", "-", "-"),
    );
    assert!(in_path.payload.contains(&format!("\t/a.ts?{cmcd}\t")), "{}", in_path.payload);
    let both = line(
        &format!("/a.ts?t=SECRET2&{cmcd}"),
        &format!("t=SECRET2&{cmcd}"),
        "Cookie:a=SECRET1%0A",
        "-",
    );
    let both = check(Format::CloudFrontRealTime, Some(REAL_TIME), &both);
    assert!(
        both.payload.ends_with(&format!("\t/a.ts\thttps://site.example/\t-\t{cmcd}\t-\t-")),
        "{}",
        both.payload
    );
    let in_headers = line(&format!("/a.ts?t=SECRET2&{cmcd}"), "-", headers, "s");
    let in_headers = check_as("headers", Format::CloudFrontRealTime, Some(REAL_TIME), &in_headers);
    assert!(
        in_headers
            .payload
            .ends_with("\t/a.ts\thttps://site.example/\t-\t-\tCMCD-Session:sid=%22s%22\ts"),
        "{}",
        in_headers.payload
    );
    let in_column = line("/a.ts?t=SECRET2&CMCD=SECRET", "-", "-", "s");
    check_as("columns", Format::CloudFrontRealTime, Some(REAL_TIME), &in_column);
    // The column of queries counts, so CMCD in the path was not read and must not be read later.
    let row = stored(
        &privacy(),
        Format::CloudFrontRealTime,
        Some(REAL_TIME),
        &line(&format!("/a.ts?{cmcd}"), "t=SECRET2", "-", "-"),
    );
    assert!(!format!("{row:?}").contains("SECRET") && row.cmcd_carrier.is_none());
    check_replay(&privacy(), Format::CloudFrontRealTime, &row);
}

#[test]
fn headers_that_the_logger_cut_are_read_as_before() {
    for filler in [600, 700, 790] {
        let fill = |before: &str, behind: &str| format!("{before}{}{behind}", "x".repeat(filler));
        let block = fill(
            "Cookie:SECRET",
            "%0ACMCD-Session:sid=%22s%22,cid=%22c%22%0ACMCD-Request:bl=100,mtp=2500,su%0ACMCD-Status:bs,rtp=12000,com.x-note=%22",
        );
        let long = fill(
            "CMCD-Session:sid=%22s%22,com.x-a=%22",
            "%22%0ACMCD-Request:com.x-b=%22%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20%20%22,bl=100,mtp",
        );
        for block in [
            &block[..block.len().min(800)],
            &long[..long.len().min(800)],
            &long.replace("%20", " "),
        ] {
            let line = format!("1668817453.120\t203.0.113.77\t/a.ts\t-\t-\t-\t{block}\t-");
            let row = stored(&privacy(), Format::CloudFrontRealTime, Some(REAL_TIME), &line);
            assert!(!row.payload.contains("SECRET"), "{}", row.payload);
            check_replay(&privacy(), Format::CloudFrontRealTime, &row);
            let first = decoded(Format::CloudFrontRealTime, Some(REAL_TIME), &line).player_event;
            let again = decoded(Format::CloudFrontRealTime, Some(REAL_TIME), &row.payload).player_event;
            let ids = |event: &Option<Box<crate::event::PlayerEvent>>| {
                event
                    .as_ref()
                    .map(|event| (event.native_session_id.clone(), event.content_id.clone(), event.buffer_ms))
            };
            assert_eq!(ids(&first), ids(&again), "{block}");
        }
    }
}

#[test]
fn akamai_loses_them() {
    let line = r#"{"reqTimeSec":"1668817453.120","statusCode":"200","cliIP":"203.0.113.77","reqPath":"a.ts","queryStr":"token=SECRET2&CMCD=bs%2Csid%3D%22s%22","referer":"https%3A%2F%2Fsite.example%2Fp%3Fu%3DSECRET3","cookie":"session=SECRET1","customField":"user=SECRET4|x","setCookie":"SECRET5"}"#;
    let row = check(Format::Akamai, None, line);
    check_texts(&row, "/a.ts", ORIGIN);
    assert!(row.payload.contains(r#""customField":"","setCookie":"""#), "{}", row.payload);
    let headers = r#"{"reqTimeSec":"1668817453.120","statusCode":"200","reqPath":"/a.ts?t=SECRET2&CMCD=sid%3D%22SECRET%22","customField":"user=SECRET4|cmcd-session=sid%3D%22s%22%2Ccom.x-user-id%3D%22SECRET6%22|cmcd-request=bl=100"}"#;
    let row = check_as("headers", Format::Akamai, None, headers);
    assert!(row.payload.contains(r#""reqPath":"/a.ts""#), "{}", row.payload);
}

#[test]
fn fastly_loses_them() {
    let line = r#"{"playhead_fastly":1,"start_ms":"1668817453000","client_ip":"203.0.113.77","url":"/a.ts?token=SECRET2&CMCD=bs%2Csid%3D%22s%22","referer":"https://site.example/p?u=SECRET3","cookie":"session=SECRET1","authorization":"SECRET4"}"#;
    let row = check(Format::Fastly, None, line);
    check_texts(&row, "/a.ts", ORIGIN);
    let headers = r#"{"playhead_fastly":1,"start_ms":"1668817453000","url":"/a.ts?token=SECRET2","cmcd_session":"sid=\"s\",com.x-user-id=\"SECRET6\"","cmcd_request":"bl=100"}"#;
    let row = check_as("headers", Format::Fastly, None, headers);
    let pseudonym = privacy().pseudonym("SECRET6");
    assert!(
        row.payload.contains(&format!(r#"com.x-user-id=\"{pseudonym}\""#)),
        "{}",
        row.payload
    );
    let shield = r#"{"playhead_fastly":1,"start_ms":"1668817453000","is_edge":"false","url":"/a.ts?token=SECRET2&CMCD=bs%2Csid%3D%22s%22","cmcd_session":"sid=\"s\""}"#;
    let row = stored(&privacy(), Format::Fastly, None, shield);
    assert!(row.sample_weight_milli == Some(0) && !row.payload.contains("SECRET"));
    check_replay(&privacy(), Format::Fastly, &row);
}

#[test]
fn cloudflare_loses_them() {
    let line = r#"{"EdgeEndTimestamp":"2022-11-19T00:24:13Z","EdgeResponseStatus":200,"ClientIP":"203.0.113.77","ClientRequestURI":"/a.ts?token=SECRET2&CMCD=bs%2Csid%3D%22s%22","ClientRequestPath":"/a.ts","ClientRequestReferer":"https://site.example/p?u=SECRET3","Cookies":{"session":"SECRET1"},"RequestHeaders":{"cookie":"session=SECRET1","range":"bytes=0-9"},"ResponseHeaders":{"set-cookie":"SECRET4"}}"#;
    let row = check(Format::Cloudflare, None, line);
    check_texts(&row, "/a.ts", ORIGIN);
    assert_eq!(row.range_end, Some(9));
    let headers = r#"{"EdgeEndTimestamp":"2022-11-19T00:24:13Z","EdgeResponseStatus":200,"ClientRequestURI":"/a.ts?token=SECRET2","RequestHeaders":{"cmcd-session":"sid=\"s\"","x":"SECRET1"}}"#;
    check_as("headers", Format::Cloudflare, None, headers);
}

#[test]
fn media_cdn_loses_them() {
    let line = r#"{"timestamp":"2022-11-19T00:24:13Z","httpRequest":{"requestUrl":"https://ann:SECRET@h.example/a.ts?token=SECRET2&CMCD=bs%2Csid%3D%22s%22","remoteIp":"203.0.113.77","referer":"https://site.example/p?u=SECRET3"},"jsonPayload":{"cookies":"session=SECRET1","requestHeaders":{"a":"SECRET4"}},"labels":{"originUrl":"SECRET5"}}"#;
    let row = check(Format::GoogleMediaCdn, None, line);
    check_texts(&row, "/a.ts", ORIGIN);
    let columns = r#"{"timestamp":"2022-11-19T00:24:13Z","httpRequest":{"requestUrl":"https://h.example/a.ts?token=SECRET2"},"jsonPayload":{"cmcd":{"sessionId":"s","com.x-user-id":"SECRET6","nextObjectRequest":"b?token=SECRET"}}}"#;
    check_as("columns", Format::GoogleMediaCdn, None, columns);
}

#[test]
fn the_combined_format_loses_them() {
    let line = r#"203.0.113.77 - SECRET0 [14/Nov/2022:22:13:20 +0000] "GET /a.ts?token=SECRET2&CMCD=bs%2Csid%3D%22s%22 HTTP/1.1" 200 5 "https://site.example/p?u=SECRET3" "player" "session=SECRET1" cookie="SECRET1" http_cookie="a=\"SECRET4\"" rt=0.189"#;
    let row = check(Format::Combined, None, line);
    check_texts(&row, "/a.ts", ORIGIN);
    let kept = r#"203.0.113.0 - - [14/Nov/2022:22:13:20 +0000] "GET /a.ts?CMCD=bs%2Csid%3D%22s%22 HTTP/1.1" 200 5 "https://site.example/" "player" "-" cookie="-" http_cookie="-" rt=0.189"#;
    assert_eq!(row.payload, kept);
    let escaped = r#"h.example:443 203.0.113.77 - SECRET 0 [14/Nov/2022:22:13:20 +0000] "GET /a.ts?token=SECRET2&CMCD=bs,sid=\"s\" HTTP/1.1" 200 5 - "player""#;
    let row = check(Format::Combined, None, &escaped.replace("SECRET 0", "SECRET0"));
    assert!(row.payload.contains(r#""GET /a.ts?CMCD=bs,sid=\"s\" HTTP/1.1""#), "{}", row.payload);
    let headers = r#"203.0.113.77 - - [14/Nov/2022:22:13:20 +0000] "GET /a.ts?token=SECRET2 HTTP/1.1" 200 5 "-" "player" cmcd_session="sid=\x22s\x22,com.x-user-id=\x22SECRET6\x22""#;
    check_as("headers", Format::Combined, None, headers);
    for request in ["GET /a?SECRET b HTTP/1.1", "SECRET", "get /SECRET HTTP/1.1", r"\x16\x03SECRET\x22"] {
        let line = format!(r#"203.0.113.77 - - [14/Nov/2022:22:13:20 +0000] "{request}" 400 5 "-" "-""#);
        let row = stored(&privacy(), Format::Combined, None, &line);
        assert!(
            !row.payload.contains("SECRET") && row.dq_flags.contains(&"bad_value"),
            "{}",
            row.payload
        );
        check_replay(&privacy(), Format::Combined, &row);
    }
}

#[test]
fn the_twelve_keys_lose_them() {
    let line = r#"{"logdate":"2022-11-19","logtime":"00:24:13","requestid":"id","cdn_source":"cloudfront","requestip":"203.0.113.77","uri":"/a.ts","querystring":"token=SECRET2&CMCD=bs%2Csid%3D%22s%22","referer":"https://site.example/p?u=SECRET3","cookie":"session=SECRET1","req":{"Cookie":"SECRET4"},"other":"x"}"#;
    let row = check(Format::CdnJson, None, line);
    check_texts(&row, "/a.ts", None);
    assert_eq!(row.ext, [("other".to_owned(), "x".to_owned())]);
    let request_line = r#"{"logdate":"2022-11-19","logtime":"00:24:13","requestid":"id","uri":"GET /a.ts?token=SECRET2&CMCD=bs%2Csid%3D%22s%22 HTTP/1.1"}"#;
    check_texts(&check(Format::CdnJson, None, request_line), "/a.ts", None);
    let no_line = r#"{"logdate":"2022-11-19","logtime":"00:24:13","requestid":"id","uri":"/a b.ts?token=SECRET2&CMCD=bs%2Csid%3D%22s%22"}"#;
    check_texts(&check(Format::CdnJson, None, no_line), "/a b.ts", None);
}

#[test]
fn logs_of_no_known_format_lose_them() {
    let csv = r#"1668817453,"https://h.example/a.ts?token=SECRET2&CMCD=bs%2Csid%3D%22s%22",https://site.example/p?u=SECRET3,"session=SECRET1, ""x""",SECRET5,203.0.113.77,-,-"#;
    let row = check(Format::GenericCsv, Some(CSV), csv);
    check_texts(&row, "/a.ts", ORIGIN);
    assert_eq!(
        row.payload,
        "1668817453,https://h.example/a.ts?CMCD=bs%2Csid%3D%22s%22,https://site.example/,-,-,203.0.113.0,-,-"
    );
    let quoted = r#"1668817453,/a.ts?x=SECRET,-,-,,203.0.113.77,"?t=SECRET&CMCD=bs,sid=""s""",-"#;
    let row = check(Format::GenericCsv, Some(CSV), quoted);
    assert!(
        row.payload.contains(r#"/a.ts,-,-,,203.0.113.0,"CMCD=bs,sid=""s""",-"#),
        "{}",
        row.payload
    );
    let ndjson = r#"{"ts":1668817453,"cookies":["SECRET"],"req":{"ip":"203.0.113.77","uri":"/a.ts?token=SECRET2&CMCD=bs%2Csid%3D%22s%22","ref":"https://site.example/p?u=SECRET3","ck":"session=SECRET1","auth":"SECRET4","http_cookie":"SECRET5"},"more":{"deep":{"referer":"SECRET6"}}}"#;
    let row = check(Format::GenericJson, Some(NDJSON), ndjson);
    check_texts(&row, "/a.ts", ORIGIN);
    assert!(row.ext.is_empty());
}

#[test]
fn a_path_has_no_query_however_it_is_encoded() {
    let line = r#"{"playhead_fastly":1,"start_ms":"1668817453000","url":"/a.ts%3Ftoken%3DSECRET2","cmcd_session":"sid=\"s\""}"#;
    let row = check_as("headers", Format::Fastly, None, line);
    check_texts(&row, "/a.ts", None);
}

#[test]
fn ids_in_cmcd_are_pseudonyms_or_kept_as_everywhere() {
    let query = "CMCD=bs%252Csid%253D%2522s%2522%252Ccom.x-user-id%253D%2522SECRET6%2522";
    let line = format!("2022-11-19\t00:24:13\t203.0.113.77\t/a.ts\t200\t-\t{query}\t-\tid\t-");
    let row = check(Format::CloudFrontV1, Some(V1), &line);
    let pseudonym = privacy().pseudonym("SECRET6");
    assert!(row.payload.contains(&query.replace("SECRET6", &pseudonym)), "{}", row.payload);
    let event = decoded(Format::CloudFrontV1, Some(V1), &row.payload).player_event;
    assert_eq!(event.unwrap().user_id, Some(pseudonym));
    let keeping = Privacy::new(IdentityPolicy::Keep, [7; 32]);
    assert!(stored(&keeping, Format::CloudFrontV1, Some(V1), &line).payload.contains(query));
    // Above version 2 nothing is read, and nobody is named either.
    let ignored = line.replace("bs%252C", "v%253D9%252C");
    let row = stored(&privacy(), Format::CloudFrontV1, Some(V1), &ignored);
    assert!(!row.payload.contains("SECRET") && row.dq_flags == ["unsupported_cmcd"], "{row:?}");
    check_replay(&privacy(), Format::CloudFrontV1, &row);
}

#[test]
fn what_is_listed_stays() {
    let owned = |name: &str| vec![name.to_owned()];
    let privacy = privacy().with_lists(Lists {
        keep_query: owned("lang"),
        keep_cookies: owned("ab"),
        referrer: Referrer::Keep,
    });
    let line =
        "2022-11-19\t00:24:13\t203.0.113.77\t/a.ts\t200\thttps://site.example/p?u=1\tt=SECRET&lang=de&CMCD=bs\ts=SECRET;%20ab=2\tid\t-";
    let row = stored(&privacy, Format::CloudFrontV1, Some(V1), line);
    let kept = "2022-11-19\t00:24:13\t203.0.113.0\t/a.ts\t200\thttps://site.example/p?u=1\tlang=de&CMCD=bs\tab=2\tid\t-";
    assert_eq!(row.payload, kept);
    assert_eq!((row.uri_query.as_deref(), row.cookie.as_deref()), (Some("lang=de"), Some("ab=2")));
    check_replay(&privacy, Format::CloudFrontV1, &row);
}

#[test]
fn a_member_that_stands_twice_is_treated_twice() {
    let cmcd = "CMCD=bs%2Csid%3D%22s%22";
    for (format, frame) in [
        (
            Format::Akamai,
            r#"{"reqTimeSec":"1668817453","statusCode":"200","reqPath":"/a.ts","queryStr":"ONE","queryStr":"TWO","cookie":"SECRET1","cookie":"-"}"#,
        ),
        (
            Format::Fastly,
            r#"{"playhead_fastly":1,"start_ms":"1668817453000","url":"/a?ONE","url":"/b?TWO","referer":"SECRET","referer":"https://a/SECRET"}"#,
        ),
        (
            Format::Cloudflare,
            r#"{"EdgeEndTimestamp":1668817453,"RayID":"id","ClientRequestURI":"/a?ONE","ClientRequestPath":"/a?TWO"}"#,
        ),
        (
            Format::CdnJson,
            r#"{"logdate":"2022-11-19","logtime":"00:24:13","requestid":"id","uri":"/a?ONE","uri":"/b","querystring":"TWO"}"#,
        ),
    ] {
        for (one, two) in [
            (cmcd, "t=SECRET2"),
            ("t=SECRET2", cmcd),
            (cmcd, "-"),
            ("-", cmcd),
            ("t=SECRET2", "-"),
        ] {
            let row = stored(&privacy(), format, None, &frame.replace("ONE", one).replace("TWO", two));
            assert!(!format!("{row:?}").contains("SECRET"), "{row:?}");
            check_replay(&privacy(), format, &row);
        }
    }
}

#[test]
fn a_line_without_any_stays_as_it_is() {
    let line = "2022-11-19\t00:24:13\t203.0.113.0\t/a.ts\t200\thttps://site.example/\tCMCD=bs\t-\tid\t-";
    assert_eq!(stored(&privacy(), Format::CloudFrontV1, Some(V1), line).payload, line);
}

#[test]
fn a_mark_that_does_not_fit_costs_the_payload() {
    let mut request = decoded(Format::CloudFrontV1, Some(V1), "2022-11-19\t00:24:13\t-\t/a\t200\t-\tt=1\t-\tid\t-");
    request.payload = "é".to_owned();
    let row = privacy().anonymise_request(request);
    assert_eq!(
        (row.payload.as_str(), row.dq_flags.as_slice()),
        ("", &["unusable_private_mark"][..])
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a query is: nothing but CMCD and listed names is stored, and the row can be made again.
    #[test]
    fn any_query_is_treated_alike_in_field_and_payload(
        query in r#"(CMCD=|bl%3D0|sid%3D%22s%22|com\.x-user-id%3D%22SECRET%22|%2C|bs|,|lang=|token=SECRET|SECRET|%43MCD=|[&?=;#]|["\\+%, ]|%26|%25|%FF|[a-z0-9ä]){0,16}"#,
        in_column in any::<bool>(),
        keeps_lang in any::<bool>(),
    ) {
        let keep_query = if keeps_lang { vec!["lang".to_owned()] } else { Vec::new() };
        let privacy = privacy().with_lists(Lists { keep_query, ..Lists::default() });
        let json = serde_json::to_string(&query).unwrap();
        let url = serde_json::to_string(&format!("/a?{query}")).unwrap();
        let csv = format!("\"{}\"", query.replace('"', "\"\""));
        let lines = if in_column {
            vec![
                (Format::CloudFrontV1, Some(V1), format!("2022-11-19\t00:24:13\t-\t/a\t200\t-\t{query}\t-\tid\t-")),
                (Format::CloudFrontV2, None, format!(r#"{{"timestamp":"1668817453","cs-uri-stem":"/a","cs-uri-query":{json}}}"#)),
                (Format::Akamai, None, format!(r#"{{"reqTimeSec":"1668817453","statusCode":200,"reqPath":"/a","queryStr":{json}}}"#)),
                (Format::CdnJson, None, format!(r#"{{"logdate":"2022-11-19","logtime":"00:24:13","requestid":"id","uri":"/a","querystring":{json}}}"#)),
                (Format::GenericCsv, Some(CSV), format!("1668817453,/a,-,-,-,-,{csv},-")),
            ]
        } else {
            vec![
                (Format::CloudFrontRealTime, Some(REAL_TIME), format!("1668817453.1\t-\t/a?{query}\t-\t-\t-\t-\t-")),
                (Format::Fastly, None, format!(r#"{{"playhead_fastly":1,"start_ms":1668817453000,"url":{url}}}"#)),
                (Format::Cloudflare, None, format!(r#"{{"EdgeEndTimestamp":1668817453,"RayID":"id","ClientRequestURI":{url}}}"#)),
                (Format::GoogleMediaCdn, None, format!(r#"{{"timestamp":"2022-11-19T00:24:13Z","httpRequest":{{"requestUrl":{url}}}}}"#)),
                (Format::Combined, None, format!(r#"192.0.2.0 - - [14/Nov/2022:22:13:20 +0000] "GET /a?{} HTTP/1.1" 200 5 "-" "-""#, query.replace('\\', "\\\\").replace('"', "\\\""))),
                (Format::GenericJson, Some(NDJSON), format!(r#"{{"ts":1668817453,"req":{{"uri":{url}}}}}"#)),
            ]
        };
        for (format, fields, line) in lines {
            let row = stored(&privacy, format, fields, &line);
            if row.cmcd_carrier.is_none() {
                let kept = row.payload.matches("SECRET").count();
                let listed = row.uri_query.as_deref().unwrap_or("").matches("SECRET").count();
                prop_assert_eq!(kept, listed, "{:?} {}", format, row.payload);
            }
            prop_assert!(!row.payload.contains("token=SECRET") || row.payload.contains("lang=") || row.cmcd_carrier.is_some());
            check_replay(&privacy, format, &row);
            // What a row takes from its CMCD.
            let told = |line: &str| {
                let event = decoded(format, row.fields.as_deref().or(fields), line).player_event;
                event.map(|event| (event.native_session_id, event.content_id, event.object_type))
            };
            prop_assert_eq!(told(&line), told(&row.payload), "{:?} {}", format, row.payload);
        }
    }
}
