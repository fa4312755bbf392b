//! CloudFront standard logs, version 1: tab separated, columns named by a `#Fields` line
//! (events and metrics, 4.1). The names of the real-time log are understood too (4.3).
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`.
//!
//! Invariant: a column is bound by its name. A file that lost its `#Fields` line is read only if its
//! rows have the very shape of the standard log (24, 26 or 33 columns, a date, a time and a status
//! where they belong), and each of its records says so with the flag `assumed_fields`.
//! Invariant: `-` and an empty cell are `None`.

use std::borrow::Cow;

use super::DecodeContext;
use super::text::{INTEGER_MAX, decimal, event_time_in_range, ext, flag, percent_decoded, pop, reject, utc_ms, without_bom};
use crate::event::{CdnRequest, Reject, RejectReason};

/// Columns of one log: the real-time log has 61, and the list is kept with every record.
const COLUMNS_MAX: usize = 256;
/// Bytes of a `#Fields` list, for the same reason.
const FIELDS_BYTES_MAX: usize = 16 * 1024;
/// Proxies believed in one `X-Forwarded-For`.
const FORWARDED_MAX: usize = 32;

const CDN: &str = "cloudfront";

/// The columns of the standard log in their constant order; older logs have the first 24 or 26.
const STANDARD_FIELDS: &str = "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent) \
     cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes time-taken x-forwarded-for ssl-protocol \
     ssl-cipher x-edge-response-result-type cs-protocol-version fle-status fle-encrypted-fields c-port time-to-first-byte \
     x-edge-detailed-result-type sc-content-type sc-content-len sc-range-start sc-range-end";
const STANDARD_COLUMNS: [usize; 3] = [24, 26, 33];
const ASSUMED_FIELDS: &str = "assumed_fields";

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Date,
    Time,
    Timestamp,
    TimestampMs,
    EdgeLocation,
    ScBytes,
    CsBytes,
    ClientAddress,
    Method,
    Host,
    HostHeader,
    UriStem,
    UriQuery,
    Status,
    Referer,
    UserAgent,
    Cookie,
    ResultType,
    ResponseResultType,
    DetailedResultType,
    RequestId,
    Protocol,
    ProtocolVersion,
    TimeTaken,
    TimeToFirstByte,
    ForwardedFor,
    SslProtocol,
    SslCipher,
    FleStatus,
    FleEncryptedFields,
    ClientPort,
    ContentType,
    ContentLength,
    RangeStart,
    RangeEnd,
    Unknown,
}

impl Column {
    /// `is_real_time`: those logs swap the two hosts. `cs-host` is what the viewer sent, and
    /// `x-host-header` is the distribution.
    fn named(name: &str, is_real_time: bool) -> Column {
        match name.to_ascii_lowercase().as_str() {
            "date" => Column::Date,
            "time" => Column::Time,
            "timestamp" => Column::Timestamp,
            "timestamp(ms)" => Column::TimestampMs,
            "x-edge-location" => Column::EdgeLocation,
            "sc-bytes" => Column::ScBytes,
            "cs-bytes" => Column::CsBytes,
            "c-ip" => Column::ClientAddress,
            "cs-method" => Column::Method,
            "cs(host)" => Column::Host,
            "cs-host" => Column::HostHeader,
            "x-host-header" if is_real_time => Column::Host,
            "x-host-header" => Column::HostHeader,
            "cs-uri-stem" => Column::UriStem,
            "cs-uri-query" => Column::UriQuery,
            "sc-status" => Column::Status,
            "cs(referer)" | "cs-referer" => Column::Referer,
            "cs(user-agent)" | "cs-user-agent" => Column::UserAgent,
            "cs(cookie)" | "cs-cookie" => Column::Cookie,
            "x-edge-result-type" => Column::ResultType,
            "x-edge-response-result-type" => Column::ResponseResultType,
            "x-edge-detailed-result-type" => Column::DetailedResultType,
            "x-edge-request-id" => Column::RequestId,
            "cs-protocol" => Column::Protocol,
            "cs-protocol-version" => Column::ProtocolVersion,
            "time-taken" => Column::TimeTaken,
            "time-to-first-byte" => Column::TimeToFirstByte,
            "x-forwarded-for" => Column::ForwardedFor,
            "ssl-protocol" => Column::SslProtocol,
            "ssl-cipher" => Column::SslCipher,
            "fle-status" => Column::FleStatus,
            "fle-encrypted-fields" => Column::FleEncryptedFields,
            "c-port" => Column::ClientPort,
            "sc-content-type" => Column::ContentType,
            "sc-content-len" => Column::ContentLength,
            "sc-range-start" => Column::RangeStart,
            "sc-range-end" => Column::RangeEnd,
            _ => Column::Unknown,
        }
    }
}

/// The `#Fields` list in force, bound to columns once.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// The names, separated by one blank.
    fields: String,
    columns: Vec<Column>,
    has_time: bool,
}

impl Layout {
    /// `list`: the names without `#Fields:`, separated by blanks or tabs. `None` if it names nothing.
    pub(super) fn new(list: &str) -> Result<Option<Layout>, Reject> {
        let names: Vec<&str> = list.split_ascii_whitespace().take(COLUMNS_MAX + 1).collect();
        if names.is_empty() {
            return Ok(None);
        }
        if names.len() > COLUMNS_MAX || list.len() > FIELDS_BYTES_MAX {
            let detail = format!("the #Fields line names more than {COLUMNS_MAX} columns or exceeds {FIELDS_BYTES_MAX} bytes");
            return Err(reject(RejectReason::MissingFields, detail));
        }
        let is_real_time = names.iter().any(|name| name.eq_ignore_ascii_case("cs-host"));
        let columns: Vec<Column> = names.iter().map(|name| Column::named(name, is_real_time)).collect();
        let has = |column: Column| columns.contains(&column);
        let has_date_and_time = has(Column::Date) && has(Column::Time);
        Ok(Some(Layout {
            has_time: has_date_and_time || has(Column::Timestamp) || has(Column::TimestampMs),
            fields: names.join(" "),
            columns,
        }))
    }

    pub(super) fn fields(&self) -> &str {
        &self.fields
    }
}

/// The list of a `#Fields:` line; `None` for any other line.
pub(super) fn field_list(line: &str) -> Option<&str> {
    const PREFIX: &str = "#fields:";
    let start = line.get(..PREFIX.len())?;
    start.eq_ignore_ascii_case(PREFIX).then(|| &line[PREFIX.len()..])
}

/// One record line, without its line end. Sets neither `event_id` nor `client_prefix`.
pub(super) fn decode(payload: &str, layout: Option<&Layout>, context: &DecodeContext) -> Result<CdnRequest, Reject> {
    let Some(layout) = layout else {
        let Some(layout) = standard_layout(payload) else {
            let detail =
                "no #Fields line came before this record, and it has not the columns of the standard log; add the line to the file";
            return Err(reject(RejectReason::MissingFields, detail));
        };
        let mut request = decode(payload, Some(&layout), context)?;
        flag(&mut request.dq_flags, ASSUMED_FIELDS);
        return Ok(request);
    };
    if !layout.has_time {
        let detail = "#Fields names neither date and time nor timestamp";
        return Err(reject(RejectReason::MissingFields, detail));
    }
    let record = without_bom(payload);
    check_column_count(record, layout.columns.len())?;

    let mut reading = Reading::default();
    let names = layout.fields.split(' ');
    for ((name, column), cell) in names.zip(&layout.columns).zip(record.split('\t')) {
        if !cell.is_empty() && cell != "-" {
            reading.cell(*column, name, cell);
        }
    }
    let event_ts_ms = reading.event_time_ms().ok_or_else(|| {
        let detail = "date and time are empty or not YYYY-MM-DD and HH:MM:SS";
        reject(RejectReason::MissingEventTime, detail)
    })?;

    let mut request = reading.request;
    request.event_ts_ms = event_time_in_range(event_ts_ms, context)?;
    request.cdn = Some(CDN.to_owned());
    request.pop = request.edge_location.as_deref().and_then(pop);
    request.ext = ext(reading.unknown, None, &mut request.dq_flags);
    request.payload = payload.to_owned();
    request.fields = Some(layout.fields.clone());
    Ok(request)
}

/// The standard columns, if a row without names has their number and their look.
fn standard_layout(payload: &str) -> Option<Layout> {
    let cells: Vec<&str> = without_bom(payload).split('\t').collect();
    let has_look = cells.len() > 8 && utc_ms(cells[0], cells[1]).is_some() && cells[8].len() == 3 && cells[8].parse::<u16>().is_ok();
    if !has_look || !STANDARD_COLUMNS.contains(&cells.len()) {
        return None;
    }
    let names: Vec<&str> = STANDARD_FIELDS.split_ascii_whitespace().take(cells.len()).collect();
    Layout::new(&names.join(" ")).ok().flatten()
}

/// As many cells as names; one trailing tab is in the vendor's own sample.
fn check_column_count(record: &str, columns: usize) -> Result<(), Reject> {
    let cells = memchr::memchr_iter(b'\t', record.as_bytes()).count() + 1;
    let has_trailing_tab = cells == columns + 1 && record.ends_with('\t');
    if cells == columns || has_trailing_tab {
        return Ok(());
    }
    let detail = format!("#Fields names {columns} columns, the record has {cells}");
    Err(reject(RejectReason::WrongColumnCount, detail))
}

/// One record on its way into a `CdnRequest`.
#[derive(Default)]
struct Reading<'a> {
    request: CdnRequest,
    date: Option<&'a str>,
    time: Option<&'a str>,
    timestamp: Option<&'a str>,
    timestamp_ms: Option<&'a str>,
    unknown: Vec<(&'a str, Cow<'a, str>)>,
}

impl<'a> Reading<'a> {
    /// Puts one cell that says something where it belongs.
    fn cell(&mut self, column: Column, name: &'a str, cell: &'a str) {
        let request = &mut self.request;
        let text = || Some(cell.to_owned());
        match column {
            Column::Date => self.date = Some(cell),
            Column::Time => self.time = Some(cell),
            Column::Timestamp => self.timestamp = Some(cell),
            Column::TimestampMs => self.timestamp_ms = Some(cell),
            Column::EdgeLocation => request.edge_location = text(),
            Column::ScBytes => request.sc_bytes = number(cell, 0, &mut request.dq_flags),
            Column::CsBytes => request.cs_bytes = number(cell, 0, &mut request.dq_flags),
            Column::ClientAddress => request.client_address = text(),
            Column::Method => request.method = text(),
            Column::Host => request.host = text(),
            Column::HostHeader => request.host_header = text(),
            Column::UriStem => request.uri_stem = text(),
            Column::UriQuery => request.uri_query = text(),
            Column::Status => request.status = number(cell, 0, &mut request.dq_flags),
            Column::Referer => request.referer = text(),
            Column::UserAgent => {
                let (user_agent, depth) = percent_decoded(cell);
                request.user_agent = Some(user_agent.into_owned());
                request.decode_depth = Some(depth);
            }
            Column::Cookie => request.cookie = text(),
            Column::ResultType => request.result_type = text(),
            Column::ResponseResultType => request.response_result_type = text(),
            Column::DetailedResultType => request.detailed_result_type = text(),
            Column::RequestId => request.request_id = text(),
            Column::Protocol => request.protocol = text(),
            Column::ProtocolVersion => request.protocol_version = text(),
            Column::TimeTaken => request.time_taken_ms = number(cell, 3, &mut request.dq_flags),
            Column::TimeToFirstByte => request.ttfb_ms = number(cell, 3, &mut request.dq_flags),
            Column::ForwardedFor => request.forwarded_for = forwarded_for(cell, &mut request.dq_flags),
            Column::SslProtocol => request.ssl_protocol = text(),
            Column::SslCipher => request.ssl_cipher = text(),
            Column::FleStatus => request.fle_status = text(),
            Column::FleEncryptedFields => request.fle_encrypted_fields = text(),
            Column::ClientPort => request.client_port = number(cell, 0, &mut request.dq_flags),
            Column::ContentType => request.content_type = text(),
            Column::ContentLength => request.content_length = number(cell, 0, &mut request.dq_flags),
            Column::RangeStart => request.range_start = number(cell, 0, &mut request.dq_flags),
            Column::RangeEnd => request.range_end = number(cell, 0, &mut request.dq_flags),
            Column::Unknown => self.unknown.push((name, Cow::Borrowed(cell))),
        }
    }

    /// `timestamp(ms)`, else `timestamp` in seconds, else `date` and `time` (4.2 there).
    fn event_time_ms(&self) -> Option<i64> {
        if let Some(event_ts_ms) = self.timestamp_ms.and_then(|cell| decimal(cell, 0)) {
            return Some(event_ts_ms);
        }
        if let Some(event_ts_ms) = self.timestamp.and_then(|cell| decimal(cell, 3)) {
            return Some(event_ts_ms);
        }
        utc_ms(self.date?, self.time?)
    }
}

/// A count or length from 0 upwards, times 10^`scale`.
fn number(cell: &str, scale: usize, flags: &mut Vec<&'static str>) -> Option<i64> {
    let value = decimal(cell, scale).filter(|value| (0..=INTEGER_MAX).contains(value));
    if value.is_none() {
        flag(flags, "bad_value");
    }
    value
}

/// The proxies' addresses. The logger writes the blank after a comma as it is, as `%20`, or as a
/// literal `\x20`.
fn forwarded_for(cell: &str, flags: &mut Vec<&'static str>) -> Vec<String> {
    let (decoded, _) = percent_decoded(cell);
    let plain = decoded.replace("\\x20", " ");
    let items = plain.split(',').map(str::trim);
    let mut addresses = items.filter(|item| !item.is_empty() && *item != "-");
    let kept = addresses.by_ref().take(FORWARDED_MAX).map(str::to_owned).collect();
    if addresses.next().is_some() {
        flag(flags, "truncated");
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use chrono::{DateTime, SecondsFormat};
    use serde_json::{Map, Value, json};

    use super::*;

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
        decode(record, Some(&layout(fields)), &CONTEXT)
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
            fields: Some(layout(FIELDS_33).fields().to_owned()),
            ..CdnRequest::default()
        };
        assert_eq!(decoded(FIELDS_33, row), Ok(expected));
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
        let row = include_str!("../../../tests/reference/ref_cdn_v1_row.tsv").trim_end();
        let assumed = decode(row, None, &CONTEXT).unwrap();
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

    // The fixtures stand outside the repository, and no settings file is read in a unit test.
    #[allow(clippy::disallowed_methods)]
    fn fixtures() -> PathBuf {
        match std::env::var_os("PLAYHEAD_FIXTURES") {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")),
        }
    }

    /// Milliseconds as the seconds that the log had.
    fn seconds(length_ms: Option<i64>) -> Value {
        length_ms.map_or(Value::Null, |length_ms| json!(length_ms as f64 / 1000.0))
    }

    /// What was decoded under the log's own name for it; `None` for a name that only `ext` knows.
    fn by_column(request: &CdnRequest, name: &str) -> Option<Value> {
        let is_real_time = request.fields.as_ref().unwrap().contains("cs-host");
        let (host, host_header) = (json!(request.host), json!(request.host_header));
        let moment = DateTime::from_timestamp_millis(request.event_ts_ms).unwrap();
        Some(match name {
            "date" => json!(moment.format("%Y-%m-%d").to_string()),
            "time" => json!(moment.format("%H:%M:%S").to_string()),
            "timestamp" => json!(moment.format("%s%.3f").to_string()),
            "_ts" if is_real_time => json!(moment.to_rfc3339_opts(SecondsFormat::Millis, true)),
            "_ts" => json!(moment.to_rfc3339_opts(SecondsFormat::Secs, true)),
            "_columns" => json!(request.payload.split('\t').count()),
            "x-edge-location" => json!(request.edge_location),
            "sc-bytes" => json!(request.sc_bytes),
            "cs-bytes" => json!(request.cs_bytes),
            "c-ip" => json!(request.client_address),
            "cs-method" => json!(request.method),
            "cs(Host)" => host,
            "cs-host" => host_header,
            "x-host-header" if is_real_time => host,
            "x-host-header" => host_header,
            "cs-uri-stem" => json!(request.uri_stem),
            "cs-uri-query" => json!(request.uri_query),
            "sc-status" => json!(request.status),
            "cs(Referer)" | "cs-referer" => json!(request.referer),
            "cs(User-Agent)" | "cs-user-agent" => json!(request.user_agent),
            "cs(Cookie)" | "cs-cookie" => json!(request.cookie),
            "x-edge-result-type" => json!(request.result_type),
            "x-edge-response-result-type" => json!(request.response_result_type),
            "x-edge-detailed-result-type" => json!(request.detailed_result_type),
            "x-edge-request-id" => json!(request.request_id),
            "cs-protocol" => json!(request.protocol),
            "cs-protocol-version" => json!(request.protocol_version),
            "time-taken" => seconds(request.time_taken_ms),
            "time-to-first-byte" => seconds(request.ttfb_ms),
            "x-forwarded-for" if request.forwarded_for.is_empty() => Value::Null,
            "x-forwarded-for" => json!(request.forwarded_for),
            "ssl-protocol" => json!(request.ssl_protocol),
            "ssl-cipher" => json!(request.ssl_cipher),
            "fle-status" => json!(request.fle_status),
            "fle-encrypted-fields" => json!(request.fle_encrypted_fields),
            "c-port" => json!(request.client_port),
            "sc-content-type" => json!(request.content_type),
            "sc-content-len" => json!(request.content_length),
            "sc-range-start" => json!(request.range_start),
            "sc-range-end" => json!(request.range_end),
            _ => return None,
        })
    }

    /// The request as a row of `expected.json`, whose names it takes from the expected row.
    fn normalised(request: &CdnRequest, expected: &Map<String, Value>) -> Map<String, Value> {
        let mut row = Map::new();
        for (name, wanted) in expected {
            let value = by_column(request, name).unwrap_or_else(|| {
                let stored = request.ext.iter().find(|(key, _)| key == name);
                match stored {
                    Some((_, text)) if wanted.is_number() => json!(text.parse::<i64>().unwrap()),
                    Some((_, text)) => json!(text),
                    None => Value::Null,
                }
            });
            row.insert(name.clone(), value);
        }
        row
    }

    #[test]
    fn the_public_samples_come_out_as_expected() {
        let folder = fixtures().join("cloudfront-logs");
        let Ok(expected) = std::fs::read_to_string(folder.join("expected.json")) else {
            println!("skipped: no {}; set PLAYHEAD_FIXTURES", folder.display());
            return;
        };
        let expected: Map<String, Value> = serde_json::from_str(&expected).unwrap();
        assert_eq!(expected.len(), 4);
        for (file, expected) in &expected {
            let log = std::fs::read_to_string(folder.join(file)).unwrap();
            check_sample(file, &log, expected);
        }
    }

    fn check_sample(file: &str, log: &str, expected: &Value) {
        let mut bound = None;
        let mut requests = Vec::new();
        for line in log.lines() {
            if let Some(list) = field_list(line) {
                bound = Layout::new(list).unwrap();
            } else if !line.starts_with('#') {
                requests.push(decode(line, bound.as_ref(), &CONTEXT).unwrap());
            }
        }
        let columns = bound.unwrap().columns.len();
        assert_eq!(json!(columns), expected["columns_in_header"], "{file}");
        assert_eq!(json!(requests.len()), expected["data_rows"], "{file}");
        let sc_bytes: i64 = requests.iter().filter_map(|request| request.sc_bytes).sum();
        assert_eq!(json!(sc_bytes), expected["sum_sc_bytes"], "{file}");
        let time_taken_ms: i64 = requests.iter().filter_map(|request| request.time_taken_ms).sum();
        assert_eq!(seconds(Some(time_taken_ms)), expected["sum_time_taken"], "{file}");

        let rows = expected["rows"].as_array().unwrap();
        assert_eq!(requests.len(), rows.len(), "{file}");
        for (request, row) in requests.iter().zip(rows) {
            let row = row.as_object().unwrap();
            assert_eq!(&normalised(request, row), row, "{file}");
            assert!(request.dq_flags.is_empty(), "{file}");
            let extra = request.ext.iter().find(|(key, _)| !row.contains_key(key));
            assert_eq!(extra, None, "{file}");
        }
    }
}
