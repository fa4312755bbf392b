//! CloudFront real-time logs: tab separated, no header, one record a line (events and metrics, 4.3).
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`.
//!
//! Nothing in a record names its columns. The field list is a setting: the names in the order in which the
//! log configuration returns them, separated by blanks, tabs or commas. A last item says how many of the
//! requests the log has:
//!
//! ```text
//! timestamp c-ip sc-status sc-bytes cs-uri-stem x-edge-result-type @sample=10%
//! ```
//! Without `@sample` all requests are taken to be there (100 %).
//!
//! Invariant: a list is checked against every record before it is used. A record that does not look like
//! the list is refused with the column that looks wrong; it never becomes a wrong row.
//! Invariant: a value that is refused is not quoted.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{Column, Reading, bound, cells, check_column_count, count, has_time, is_said, name_at, names_of};
use crate::event::decode::DecodeContext;
use crate::event::decode::cdn::cmcd_in_log::split_query;
use crate::event::decode::text::{decimal, is_date, reject, utc_ms, without_bom};
use crate::event::private::Written;
use crate::event::{CdnRequest, Reject, RejectReason};

/// 2010 and 2100, epoch ms: a number outside is no time of a log.
const TIMESTAMPS_MS: std::ops::Range<i64> = 1_262_304_000_000..4_102_444_800_000;
/// All requests, in thousandths of a per cent.
const ALL_MILLI_PERCENT: i64 = 100_000;
const SAMPLE: &str = "@sample=";
const RESULT_TYPES: [&str; 8] = [
    "Hit",
    "RefreshHit",
    "OriginShieldHit",
    "Miss",
    "LimitExceeded",
    "CapacityExceeded",
    "Error",
    "Redirect",
];
/// Answers of edge functions have result types of their own, such as `FunctionGeneratedResponse`.
const FUNCTIONS: [&str; 2] = ["Function", "Lambda"];

/// The field list of the settings, bound to columns.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::event::decode) struct FieldList {
    /// The names and the sampling rate, separated by one blank.
    text: String,
    columns: Vec<Column>,
    sample_weight_milli: Option<i64>,
}

impl FieldList {
    /// Rejects `MissingFields`: the list cannot be used, and why.
    pub(in crate::event::decode) fn new(list: &str) -> Result<FieldList, Reject> {
        let list = list.replace(',', " ");
        let (options, names): (Vec<&str>, Vec<&str>) = names_of(&list, "the field list")?
            .into_iter()
            .partition(|item| item.starts_with('@'));
        let sample_weight_milli = match options[..] {
            [] => None,
            [option] => sample_weight(option)?,
            _ => return Err(unusable("the field list has more than one item that begins with @")),
        };
        let columns = bound(&names);
        if !has_time(&columns) {
            return Err(unusable(
                "the field list names no timestamp; add it to the log configuration and here",
            ));
        }
        let items: Vec<&str> = names.into_iter().chain(options).collect();
        Ok(FieldList {
            text: items.join(" "),
            columns,
            sample_weight_milli,
        })
    }

    pub(in crate::event::decode) fn text(&self) -> &str {
        &self.text
    }
}

fn unusable(detail: &str) -> Reject {
    reject(RejectReason::MissingFields, detail)
}

/// How many requests one record stands for, in thousandths. `None`: just itself.
fn sample_weight(option: &str) -> Result<Option<i64>, Reject> {
    let percent = option.strip_prefix(SAMPLE).map(|rate| rate.strip_suffix('%').unwrap_or(rate));
    let milli_percent = percent.and_then(|percent| decimal(percent, 3));
    match milli_percent.filter(|rate| (1..=ALL_MILLI_PERCENT).contains(rate)) {
        Some(ALL_MILLI_PERCENT) => Ok(None),
        Some(rate) => Ok(Some((ALL_MILLI_PERCENT * 1000 + rate / 2) / rate)),
        None => Err(unusable("the sampling rate is not above 0 and at most 100; write e.g. @sample=10%")),
    }
}

/// One record line, without its line end. Sets neither `event_id` nor `client_prefix`.
pub(in crate::event::decode) fn decode(
    payload: &str,
    list: Option<&FieldList>,
    context: &DecodeContext,
) -> Result<Box<CdnRequest>, Reject> {
    let Some(list) = list else {
        return Err(unusable(
            "real-time records name no columns; give the source the fields of the log configuration, in its order",
        ));
    };
    let record = without_bom(payload);
    check_column_count(record, list.columns.len(), "the field list")?;
    let mut reading = Reading::default();
    for (place, (column, cell)) in list.columns.iter().zip(cells(record)).enumerate() {
        if !is_said(cell) {
            continue;
        }
        let name = || name_at(&list.text, place);
        if !is_plausible(*column, cell) {
            return Err(mismatch(place + 1, name()));
        }
        reading.cell(*column, name, cell, Cow::Borrowed(cell));
    }
    let mut request = reading.finish(payload, Written::Plain, context)?;
    split_query(&mut request);
    request.sample_weight_milli = list.sample_weight_milli;
    request.fields = Some(list.text.clone());
    Ok(request)
}

fn mismatch(place: usize, name: &str) -> Reject {
    let detail = format!(
        "column {place} does not look like {name}; compare the field list with the fields of the real-time log configuration, in its order"
    );
    reject(RejectReason::BadValue, detail)
}

/// True if the cell can be what the list says that it is.
fn is_plausible(column: Column, cell: &str) -> bool {
    match column {
        Column::Date => is_date(cell),
        Column::Time => utc_ms("2020-01-01", cell).is_some(),
        Column::Timestamp => decimal(cell, 3).is_some_and(|at_ms| TIMESTAMPS_MS.contains(&at_ms)),
        Column::TimestampMs => decimal(cell, 0).is_some_and(|at_ms| TIMESTAMPS_MS.contains(&at_ms)),
        Column::ClientAddress => cell.parse::<IpAddr>().is_ok(),
        Column::Status => is_status(cell),
        Column::ResultType | Column::ResponseResultType => is_result_type(cell),
        Column::Method => cell.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-'),
        Column::Protocol => matches!(cell, "http" | "https" | "ws" | "wss" | "grpc" | "grpcs"),
        Column::ProtocolVersion => cell.starts_with("HTTP/"),
        Column::UriStem => cell.starts_with('/') || cell == "*",
        Column::EdgeLocation => is_edge_location(cell),
        Column::Country => cell.len() == 2 && cell.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        Column::TimeTaken | Column::TimeToFirstByte | Column::OriginFirstByte | Column::OriginLastByte => count(cell, 3).is_some(),
        Column::ScBytes | Column::CsBytes | Column::ContentLength | Column::RangeStart | Column::RangeEnd | Column::Asn => {
            cell.bytes().all(|byte| byte.is_ascii_digit())
        }
        Column::ClientPort => cell.parse::<u16>().is_ok(),
        _ => true,
    }
}

/// 000, or a status in the part of its class that is in use: three digits could be a count.
fn is_status(cell: &str) -> bool {
    let in_use = |status: u16| matches!(status, 0 | 100..=103 | 200..=226 | 300..=308 | 400..=499 | 500..=599);
    cell.len() == 3 && cell.parse().is_ok_and(in_use)
}

fn is_result_type(cell: &str) -> bool {
    RESULT_TYPES.contains(&cell) || FUNCTIONS.iter().any(|function| cell.starts_with(function))
}

/// Letters, a number, perhaps more: `LHR50-C1`.
fn is_edge_location(cell: &str) -> bool {
    let bytes = cell.as_bytes();
    bytes[0].is_ascii_alphabetic() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::decode::cdn::cmcd_in_log::settle;
    use crate::event::private::PrivateParts;

    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_700_000_000_000 };
    /// Some of the default list, with the host of both kinds, the headers, the origin and CMCD.
    const LIST: &str = "timestamp c-ip time-to-first-byte sc-status sc-bytes cs-method cs-protocol cs-host cs-uri-stem cs-bytes \
        x-edge-location x-edge-request-id x-host-header time-taken cs-protocol-version c-ip-version cs-user-agent cs-referer cs-cookie \
        cs-uri-query x-edge-response-result-type x-edge-result-type x-edge-detailed-result-type c-country cs-headers cs-header-names \
        cs-headers-count origin-fbl origin-lbl asn cmcd-encoded-bitrate cmcd-buffer-starvation cmcd-session-id";
    const RECORD: [&str; 33] = [
        "1588752000.541",
        "2001:db8::1",
        "0.021",
        "206",
        "1370422",
        "GET",
        "https",
        "video.example.com",
        "/a/1.ts?t=1",
        "112",
        "LHR50-C1",
        "id1==",
        "d1.cloudfront.net",
        "0.184",
        "HTTP/2.0",
        "IPv6",
        "Mozilla/5.0%20(X)",
        "https://p.example.com/",
        "a=b",
        "t=1",
        "Miss",
        "Miss",
        "OriginShieldHit",
        "GB",
        "Host:video.example.com%0ACookie:a=b%0A",
        "Host%0ACookie%0A",
        "2",
        "0.018",
        "0.2",
        "64500",
        "3200",
        "true",
        "6e2fb550",
    ];

    fn decoded(list: &str, record: &str) -> Result<CdnRequest, Reject> {
        let mut request = decode(record, Some(&FieldList::new(list)?), &CONTEXT)?;
        settle(&mut request);
        Ok(*request)
    }

    fn owned(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    /// The row of `RECORD`, its player's event apart.
    fn expected(list: &str, payload: &str) -> CdnRequest {
        let mut request = CdnRequest {
            cdn: owned("cloudfront"),
            event_ts_ms: 1_588_752_000_541,
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
            status: Some(206),
            referer: owned("https://p.example.com/"),
            user_agent: owned("Mozilla/5.0 (X)"),
            decode_depth: Some(1),
            cookie: owned("a=b"),
            result_type: owned("Miss"),
            response_result_type: owned("Miss"),
            detailed_result_type: owned("OriginShieldHit"),
            protocol: owned("https"),
            protocol_version: owned("HTTP/2.0"),
            time_taken_ms: Some(184),
            ttfb_ms: Some(21),
            origin_ttfb_ms: Some(18),
            origin_time_ms: Some(200),
            is_aborted: Some(false),
            cmcd_carrier: Some("columns"),
            client_address: owned("2001:db8::1"),
            payload: payload.to_owned(),
            fields: Some(list.split_ascii_whitespace().collect::<Vec<_>>().join(" ")),
            ..CdnRequest::default()
        };
        request.network.country = owned("GB");
        request.network.asn = Some(64_500);
        let ext = [
            ("c-ip-version", "IPv6"),
            ("cs-header-names", "Host%0ACookie%0A"),
            ("cs-headers-count", "2"),
        ];
        request.ext = ext.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        request
    }

    #[test]
    fn every_column_of_the_list_has_its_field() {
        let record = RECORD.join("\t");
        let mut request = decoded(LIST, &record).unwrap();
        let event = request.player_event.take().unwrap();
        assert_eq!(
            (event.payload.split_once('\t').unwrap().1, event.event_ts_ms),
            ("br=3200,bs,sid=\"6e2fb550\"", 1_588_752_000_357)
        );
        assert_eq!(event.network.country.as_deref(), Some("GB"));
        // What is marked in the payload is tested with what becomes of it (`privacy`).
        request.private = PrivateParts::default();
        assert_eq!(request, expected(LIST, &record));
    }

    #[test]
    fn another_order_of_list_and_record_gives_the_same_row() {
        let turn = |items: Vec<&str>, separator: &str| items.into_iter().rev().collect::<Vec<_>>().join(separator);
        let list = turn(LIST.split_ascii_whitespace().collect(), " ");
        let record = turn(RECORD.to_vec(), "\t");
        let mut request = decoded(&list.replace(' ', ", "), &record).unwrap();
        assert!(request.player_event.take().is_some());
        // What is marked in the payload is tested with what becomes of it (`privacy`).
        request.private = PrivateParts::default();
        assert_eq!(request, expected(&list, &record));
    }

    #[test]
    fn a_list_that_does_not_fit_is_never_used() {
        let names: Vec<&str> = LIST.split_ascii_whitespace().collect();
        let check = |left: &str, right: &str, place: usize, name: &str| {
            let mut swapped = names.clone();
            let at = |wanted: &str| names.iter().position(|name| *name == wanted).unwrap();
            swapped.swap(at(left), at(right));
            let reject = decoded(&swapped.join(" "), &RECORD.join("\t")).unwrap_err();
            let begin = format!("column {place} does not look like {name}; compare the field list");
            assert!(
                reject.reason == RejectReason::BadValue && reject.detail.starts_with(&begin),
                "{reject:?}"
            );
        };
        check("c-ip", "sc-status", 2, "sc-status");
        check("timestamp", "sc-bytes", 1, "sc-bytes");
        check("c-ip", "cs-host", 8, "c-ip");
        check("sc-bytes", "x-edge-result-type", 5, "x-edge-result-type");
        check("cs-method", "cs-protocol", 6, "cs-protocol");
        check("sc-status", "cs-bytes", 10, "sc-status");
    }

    #[test]
    fn a_record_of_another_number_of_columns_is_refused() {
        let check = |record: &str, detail: &str| {
            let reject = decoded(LIST, record).unwrap_err();
            assert_eq!((reject.reason, reject.detail.as_str()), (RejectReason::WrongColumnCount, detail));
        };
        check(&RECORD[..32].join("\t"), "the field list names 33 columns, the record has 32");
        check(
            &format!("{}\tx", RECORD.join("\t")),
            "the field list names 33 columns, the record has 34",
        );
        check("garbage", "the field list names 33 columns, the record has 1");
        assert!(decoded(LIST, &format!("{}\t", RECORD.join("\t"))).is_ok());
    }

    #[test]
    fn a_sampling_rate_says_how_many_requests_a_record_stands_for() {
        let check = |option: &str, expected: Result<Option<i64>, ()>| {
            let list = FieldList::new(&format!("{option} timestamp"));
            let weight = list.as_ref().map(|list| list.sample_weight_milli).map_err(|_| ());
            assert_eq!(weight, expected, "{option}");
            if let Ok(list) = list {
                assert_eq!(FieldList::new(list.text()), Ok(list.clone()));
                let request = decode("1588752000", Some(&list), &CONTEXT).unwrap();
                assert_eq!(request.sample_weight_milli, list.sample_weight_milli);
            }
        };
        check("", Ok(None));
        check("@sample=100%", Ok(None));
        check("@sample=10%", Ok(Some(10_000)));
        check("@sample=10", Ok(Some(10_000)));
        check("@sample=3%", Ok(Some(33_333)));
        check("@sample=0.5%", Ok(Some(200_000)));
        for bad in [
            "@sample=0%",
            "@sample=101%",
            "@sample=",
            "@sample=x",
            "@rate=5",
            "@sample=5 @sample=6",
        ] {
            check(bad, Err(()));
        }
    }

    #[test]
    fn a_list_without_a_time_and_no_list_at_all_are_refused() {
        assert_eq!(FieldList::new("c-ip sc-status").unwrap_err().reason, RejectReason::MissingFields);
        assert_eq!(FieldList::new("").unwrap_err().reason, RejectReason::MissingFields);
        assert_eq!(
            decode("1588752000", None, &CONTEXT).unwrap_err().reason,
            RejectReason::MissingFields
        );
    }

    #[test]
    fn cut_addresses_of_a_stored_record_are_read_again() {
        for address in ["203.0.113.0", "2001:db8:85a3::"] {
            let request = decoded("timestamp c-ip", &format!("1588752000\t{address}")).unwrap();
            assert_eq!(request.client_address.as_deref(), Some(address));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_cell_is_survived(place in 0..RECORD.len(), cell in r#"[ -~]{0,12}|ä|\PC{0,3}|[0-9.]{1,20}"#) {
            let mut record = RECORD;
            record[place] = &cell;
            let _ = decoded(LIST, &record.join("\t"));
        }

        #[test]
        fn any_list_is_survived(list in r#"(timestamp|c-ip|@sample=|[0-9%, @-]|\PC){0,12}"#, record in r#"[0-9.\t-]{0,20}"#) {
            let _ = decoded(&list, &record);
        }
    }
}
