//! CloudFront standard logs, version 1, and the W3C form of version 2: tab separated, columns named by a
//! `#Fields` line (events and metrics, 4.1). The names of the real-time log are understood too (4.3).
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`.
//!
//! Invariant: a column is bound by its name. A file that lost its `#Fields` line is read only if its
//! rows have the very shape of the standard log (24, 26 or 33 columns, a date, a time and a status
//! where they belong), and each of its records says so with the flag `assumed_fields`.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::{Column, Reading, bound, cells, check_column_count, has_time, is_said, name_at, names_of};
use crate::event::decode::DecodeContext;
use crate::event::decode::text::{flag, reject, utc_ms, without_bom};
use crate::event::private::Written;
use crate::event::{CdnRequest, Reject, RejectReason};

/// The columns of the standard log in their constant order; older logs have the first 24 or 26.
const STANDARD_FIELDS: &str = "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent) \
     cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes time-taken x-forwarded-for ssl-protocol \
     ssl-cipher x-edge-response-result-type cs-protocol-version fle-status fle-encrypted-fields c-port time-to-first-byte \
     x-edge-detailed-result-type sc-content-type sc-content-len sc-range-start sc-range-end";
const STANDARD_COLUMNS: [usize; 3] = [24, 26, 33];
const ASSUMED_FIELDS: &str = "assumed_fields";
const FIELDS: &str = "#Fields";

/// The `#Fields` list in force, bound to columns once.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::event::decode) struct Layout {
    /// The names, separated by one blank.
    fields: String,
    columns: Vec<Column>,
    has_time: bool,
}

impl Layout {
    /// `list`: the names without `#Fields:`, separated by blanks or tabs. `None` if it names nothing.
    pub(in crate::event::decode) fn new(list: &str) -> Result<Option<Layout>, Reject> {
        let names = names_of(list, "the #Fields line")?;
        if names.is_empty() {
            return Ok(None);
        }
        let columns = bound(&names);
        Ok(Some(Layout {
            has_time: has_time(&columns),
            fields: names.join(" "),
            columns,
        }))
    }

    pub(in crate::event::decode) fn fields(&self) -> &str {
        &self.fields
    }
}

/// The list of a `#Fields:` line; `None` for any other line.
pub(in crate::event::decode) fn field_list(line: &str) -> Option<&str> {
    const PREFIX: &str = "#fields:";
    let start = line.get(..PREFIX.len())?;
    start.eq_ignore_ascii_case(PREFIX).then(|| &line[PREFIX.len()..])
}

/// One record line, without its line end. Sets neither `event_id` nor `client_prefix`.
pub(in crate::event::decode) fn decode(payload: &str, layout: Option<&Layout>, context: &DecodeContext) -> Result<Box<CdnRequest>, Reject> {
    let Some(layout) = layout else {
        let Some(layout) = standard_layout(payload) else {
            let detail =
                "no #Fields line came before this record, and it has not the columns of the standard log; add the line to the file";
            return Err(reject(RejectReason::MissingFields, detail));
        };
        let mut request = decode(payload, Some(layout), context)?;
        flag(&mut request.dq_flags, ASSUMED_FIELDS);
        return Ok(request);
    };
    if !layout.has_time {
        let detail = "#Fields names neither date and time nor timestamp";
        return Err(reject(RejectReason::MissingFields, detail));
    }
    let record = without_bom(payload);
    check_column_count(record, layout.columns.len(), FIELDS)?;

    let mut reading = Reading::default();
    for (place, (column, cell)) in layout.columns.iter().zip(cells(record)).enumerate() {
        if is_said(cell) {
            let name = || name_at(&layout.fields, place);
            reading.cell(*column, name, cell, Cow::Borrowed(cell));
        }
    }
    let mut request = reading.finish(payload, Written::Plain, context)?;
    request.fields = Some(layout.fields.clone());
    Ok(request)
}

/// The standard columns, if a row without names has their number and their look.
fn standard_layout(payload: &str) -> Option<&'static Layout> {
    /// The standard log of each age, bound once.
    static LAYOUTS: LazyLock<[Option<Layout>; 3]> = LazyLock::new(|| {
        STANDARD_COLUMNS.map(|columns| {
            let names: Vec<&str> = STANDARD_FIELDS.split_ascii_whitespace().take(columns).collect();
            Layout::new(&names.join(" ")).ok().flatten()
        })
    });
    let mut cells = without_bom(payload).split('\t');
    let (date, time) = (cells.next()?, cells.next()?);
    let status = cells.nth(6)?;
    let columns = 9 + cells.count();
    if utc_ms(date, time).is_none() || status.len() != 3 || status.parse::<u16>().is_err() {
        return None;
    }
    let age = STANDARD_COLUMNS.iter().position(|known| *known == columns)?;
    LAYOUTS[age].as_ref()
}

#[cfg(test)]
mod tests {
    use super::super::FORWARDED_MAX;
    use super::*;
    use crate::event::private::PrivateParts;

    const ROW: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_cdn_v1_row.tsv"));
    const FIELDS_33: &str = "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status \
        cs(Referer) cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header \
        cs-protocol cs-bytes time-taken x-forwarded-for ssl-protocol ssl-cipher x-edge-response-result-type \
        cs-protocol-version fle-status fle-encrypted-fields c-port time-to-first-byte \
        x-edge-detailed-result-type sc-content-type sc-content-len sc-range-start sc-range-end";
    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_700_000_000_000 };

    fn layout(fields: &str) -> Layout {
        Layout::new(fields).unwrap().unwrap()
    }

    fn decoded(fields: &str, record: &str) -> Result<CdnRequest, Reject> {
        decode(record, Some(&layout(fields)), &CONTEXT).map(|request| *request)
    }

    fn owned(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_row_of_the_reference_log_is_understood() {
        let row = ROW.trim_end();
        let expected = CdnRequest {
            cdn: owned("cloudfront"),
            event_ts_ms: 1_588_752_000_000,
            request_id: owned("kQ3v9ZtHcJfW0sYb7uXoLrE2mNpDgA5iTq8wKeRxV1hUyBzC4jM6Fw=="),
            edge_location: owned("LHR50-C1"),
            pop: owned("LHR"),
            sc_bytes: Some(1_370_422),
            cs_bytes: Some(112),
            method: owned("GET"),
            host: owned("d111111abcdef8.cloudfront.net"),
            host_header: owned("d111111abcdef8.cloudfront.net"),
            uri_stem: owned("/sample-videos/hls/BigBuckBunny/720p_00001.ts"),
            status: Some(200),
            referer: owned("https://player.example.com/ui/index.html"),
            user_agent: owned(
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_12_6) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/71.0.3578.98 Safari/537.36",
            ),
            decode_depth: Some(2),
            result_type: owned("Hit"),
            response_result_type: owned("Hit"),
            detailed_result_type: owned("Hit"),
            protocol: owned("https"),
            protocol_version: owned("HTTP/2.0"),
            ssl_protocol: owned("TLSv1.2"),
            ssl_cipher: owned("ECDHE-RSA-AES128-GCM-SHA256"),
            time_taken_ms: Some(184),
            ttfb_ms: Some(21),
            client_port: Some(51_734),
            content_type: owned("video/mp2t"),
            content_length: Some(1_369_880),
            client_address: owned("203.0.113.77"),
            payload: row.to_owned(),
            is_aborted: Some(false),
            fields: Some(layout(FIELDS_33).fields().into()),
            ..CdnRequest::default()
        };
        let mut request = decoded(FIELDS_33, row).unwrap();
        request.private = PrivateParts::default();
        assert_eq!(request, expected);
    }

    #[test]
    fn columns_are_bound_by_name() {
        let request = decoded("sc-bytes\tnew-column Time  date", "5\tx\t08:00:00\t2020-05-06").unwrap();
        assert_eq!((request.sc_bytes, request.event_ts_ms), (Some(5), 1_588_752_000_000));
        assert_eq!(request.ext, [("new-column".to_owned(), "x".to_owned())]);
        assert_eq!(request.fields.as_deref(), Some("sc-bytes new-column Time date"));
    }

    #[test]
    fn only_one_trailing_tab_is_tolerated() {
        let check = |record: &str, expected: Result<i64, &str>| {
            let outcome = decoded("date time sc-bytes", record);
            let outcome = outcome.map(|request| request.sc_bytes.unwrap()).map_err(|reject| reject.detail);
            assert_eq!(outcome, expected.map_err(str::to_owned), "{record}");
        };
        check("2020-05-06\t08:00:00\t5", Ok(5));
        check("2020-05-06\t08:00:00\t5\t", Ok(5));
        check("2020-05-06\t08:00:00\t5\t\t", Err("#Fields names 3 columns, the record has 5"));
        check("2020-05-06\t08:00:00\t5\tx", Err("#Fields names 3 columns, the record has 4"));
        check("2020-05-06\t08:00:00", Err("#Fields names 3 columns, the record has 2"));
    }

    #[test]
    fn dashes_and_empty_cells_are_unknown_and_bad_numbers_are_flagged() {
        let fields = "date time sc-status time-taken c-port cs-method cs-bytes";
        let request = decoded(fields, "2020-05-06\t08:00:00\t000\t-\t\t-\t17").unwrap();
        assert_eq!((request.status, request.time_taken_ms), (Some(0), None));
        assert_eq!((request.client_port, request.method, request.cs_bytes), (None, None, Some(17)));
        assert!(request.dq_flags.is_empty());

        let request = decoded(fields, "2020-05-06\t08:00:00\tok\t-0.5\t80\tGET\t1e99").unwrap();
        assert_eq!((request.status, request.time_taken_ms, request.cs_bytes), (None, None, None));
        assert_eq!((request.client_port, request.dq_flags), (Some(80), vec!["bad_value"]));
    }

    #[test]
    fn a_record_needs_a_time_it_can_be_filed_under() {
        let check = |fields: &str, record: &str, expected: RejectReason| {
            assert_eq!(decoded(fields, record).unwrap_err().reason, expected, "{record}");
        };
        check("date sc-bytes", "2020-05-06\t5", RejectReason::MissingFields);
        check("date time", "2020-05-06\t-", RejectReason::MissingEventTime);
        check("date time", "yesterday\t08:00:00", RejectReason::MissingEventTime);
        check("date time", "2009-12-31\t23:59:59", RejectReason::EventTimeOutOfRange);
        check("date time", "2023-11-16\t00:00:00", RejectReason::EventTimeOutOfRange);
        assert!(decoded("date time", "2023-11-15\t22:13:20").is_ok(), "exactly one day ahead");
        assert!(decoded("date time", "2010-01-01\t00:00:00").is_ok());
    }

    #[test]
    fn a_row_that_lost_its_names_is_read_if_it_has_the_shape_of_the_standard_log() {
        let row = ROW.trim_end();
        let assumed = *decode(row, None, &CONTEXT).unwrap();
        let named = decoded(STANDARD_FIELDS, row).unwrap();
        assert_eq!(assumed.dq_flags, [ASSUMED_FIELDS]);
        assert_eq!(
            CdnRequest {
                dq_flags: Vec::new(),
                ..assumed
            },
            named
        );
        let without_status = row.replacen("\t200\t", "\tOK\t", 1);
        let without_a_column = row.rsplit_once('\t').unwrap().0.to_owned();
        for row in [without_status, without_a_column] {
            assert_eq!(
                decode(&row, None, &CONTEXT).unwrap_err().reason,
                RejectReason::MissingFields,
                "{row}"
            );
        }
    }

    #[test]
    fn forwarded_addresses_are_separated_however_the_blank_is_written() {
        for cell in [
            "192.0.2.1, 192.0.2.2",
            "192.0.2.1,192.0.2.2",
            r"192.0.2.1,\x20192.0.2.2",
            "192.0.2.1,%20192.0.2.2",
            "192.0.2.1,%2520192.0.2.2",
            "192.0.2.1%2C%20192.0.2.2,,-",
        ] {
            let request = decoded("date time x-forwarded-for", &format!("2020-05-06\t08:00:00\t{cell}")).unwrap();
            assert_eq!(request.forwarded_for, ["192.0.2.1", "192.0.2.2"], "{cell}");
        }
        let many = "192.0.2.1,".repeat(FORWARDED_MAX + 1);
        let request = decoded("date time x-forwarded-for", &format!("2020-05-06\t08:00:00\t{many}")).unwrap();
        assert_eq!((request.forwarded_for.len(), request.dq_flags), (FORWARDED_MAX, vec!["truncated"]));
    }

    #[test]
    fn real_time_logs_swap_the_hosts_and_count_seconds() {
        let fields = "timestamp cs-host x-host-header";
        let request = decoded(fields, "1607374321.541\twww.example.com\td1.cloudfront.net").unwrap();
        assert_eq!(request.event_ts_ms, 1_607_374_321_541);
        assert_eq!(request.host.as_deref(), Some("d1.cloudfront.net"));
        assert_eq!(request.host_header.as_deref(), Some("www.example.com"));
        let request = decoded("timestamp(ms) timestamp", "1607374321541\t1").unwrap();
        assert_eq!(request.event_ts_ms, 1_607_374_321_541);
    }

    /// Events and metrics, 4.1: when the viewer left.
    #[test]
    fn a_viewer_who_left_is_told_from_an_error() {
        let check = |cells: &str, aborted: Option<bool>, error_code: Option<&str>| {
            let fields = "date time sc-status x-edge-result-type x-edge-response-result-type x-edge-detailed-result-type";
            let request = decoded(fields, &format!("2020-05-06\t08:00:00\t{cells}")).unwrap();
            assert_eq!(
                (request.is_aborted, request.error_code.as_deref()),
                (aborted, error_code),
                "{cells}"
            );
        };
        check("200\tHit\tHit\tHit", Some(false), None);
        check("000\tError\tError\tError", Some(true), None);
        check("000\t-\t-\t-", Some(true), None);
        check("200\tError\tHit\tError", Some(true), None);
        check("200\tError\tError\tError", Some(true), None);
        check("206\tError\tMiss\tAbortedOrigin", Some(true), Some("AbortedOrigin"));
        check("206\tError\t-\tClientCommError", Some(true), Some("ClientCommError"));
        check("502\tError\tError\tOriginDnsError", Some(false), Some("OriginDnsError"));
        check("404\tError\tError\tError", Some(false), None);
        check("200\t-\t-\t-", None, None);
    }

    #[test]
    fn columns_of_the_real_time_log_and_of_version_2_are_understood() {
        let fields =
            "timestamp(ms) origin-fbl origin-lbl asn c-country cache-behavior-path-pattern DistributionId cs-headers cmcd-session-id";
        let record = "1588752000123\t0.018\t0.2\t64500\tGB\t/a/*\tE1\tCookie:a=b%0AX-Forwarded-For:192.0.2.1%0A\ts1";
        let request = decoded(fields, record).unwrap();
        assert_eq!((request.origin_ttfb_ms, request.origin_time_ms), (Some(18), Some(200)));
        assert_eq!(
            (request.network.asn, request.network.country.as_deref()),
            (Some(64_500), Some("GB"))
        );
        let ext: Vec<&str> = request.ext.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            ext,
            ["DistributionId", "cache-behavior-path-pattern"],
            "headers hold cookies and addresses"
        );
        assert_eq!(request.player_event.unwrap().native_session_id.as_deref(), Some("s1"));
        let headers = decoded(
            "timestamp cs-headers cmcd-session-id",
            "1588752000\tCMCD-Session:sid=%22s2%22%0A\ts1",
        )
        .unwrap();
        assert_eq!(
            (headers.cmcd_carrier, headers.player_event.unwrap().native_session_id.as_deref()),
            (Some("headers"), Some("s2"))
        );
    }
}
