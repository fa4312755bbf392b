//! CloudFront's logs: the columns of all its formats, by name, and one record on its way through them
//! (events and metrics, 4.1 to 4.3). `standard` reads version 1 and the W3C form of version 2, `json` the
//! JSON and Parquet forms of version 2, `real_time` the records of Kinesis.
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`. Its time is the end of the
//! response, as CloudFront logs it.
//!
//! Invariant: a column is bound by its name.
//! Invariant: `-` and an empty cell are `None`.
//! Invariant: `cs-headers`, which holds cookies, referrers and addresses, gives its CMCD and nothing else.

pub(in crate::event::decode) mod json;
pub(in crate::event::decode) mod real_time;
pub(in crate::event::decode) mod standard;

#[cfg(test)]
mod samples;

use std::borrow::Cow;

use super::cmcd_in_log::{self, Candidates};
use crate::event::decode::DecodeContext;
use crate::event::decode::text::{INTEGER_MAX, decimal, event_time_in_range, ext, flag, percent_decoded, pop, reject, utc_ms};
use crate::event::private::{Holds, Written, is_telling, may_tell};
use crate::event::{CdnRequest, Reject, RejectReason};

/// Columns of one log: the real-time log has 61, and the list is kept with every record.
const COLUMNS_MAX: usize = 256;
/// Bytes of a field list, for the same reason.
const FIELDS_BYTES_MAX: usize = 16 * 1024;
/// Proxies believed in one `X-Forwarded-For`.
const FORWARDED_MAX: usize = 32;
/// The longest name of a column that is known has 33 bytes.
const NAME_BYTES_MAX: usize = 40;

const CDN: &str = "cloudfront";
const ERROR: &str = "Error";

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
    OriginFirstByte,
    OriginLastByte,
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
    Country,
    Asn,
    RequestHeaders,
    /// A key of CMCD that CloudFront parsed.
    Cmcd(&'static str),
    /// Known by its name alone: it may hold cookies, credentials or a query.
    Withheld,
    Unknown,
}

impl Column {
    /// `is_real_time`: those logs swap the two hosts. `cs-host` is what the viewer sent, and
    /// `x-host-header` is the distribution. Parquet has underscores for hyphens and parentheses.
    fn named(name: &str, is_real_time: bool) -> Column {
        let mut bytes = [0; NAME_BYTES_MAX];
        let Some(bytes) = bytes.get_mut(..name.len()) else {
            return Column::Unknown;
        };
        bytes.copy_from_slice(name.as_bytes());
        bytes.make_ascii_lowercase();
        if !bytes.contains(&b'-') {
            bytes.iter_mut().filter(|byte| **byte == b'_').for_each(|byte| *byte = b'-');
        }
        let Ok(name) = std::str::from_utf8(bytes) else {
            return Column::Unknown;
        };
        match name {
            "cs-host" | "x-host-header" if is_real_time == (name == "cs-host") => Column::HostHeader,
            "cs(host)" | "cs-host" | "x-host-header" => Column::Host,
            "date" => Column::Date,
            "time" => Column::Time,
            "timestamp" => Column::Timestamp,
            "timestamp(ms)" | "timestamp-ms" => Column::TimestampMs,
            "x-edge-location" => Column::EdgeLocation,
            "sc-bytes" => Column::ScBytes,
            "cs-bytes" => Column::CsBytes,
            "c-ip" => Column::ClientAddress,
            "cs-method" => Column::Method,
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
            "origin-fbl" => Column::OriginFirstByte,
            "origin-lbl" => Column::OriginLastByte,
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
            "c-country" => Column::Country,
            "asn" => Column::Asn,
            "cs-headers" => Column::RequestHeaders,
            _ if is_telling(name) => Column::Withheld,
            _ => name.strip_prefix("cmcd-").and_then(cmcd_key).map_or(Column::Unknown, Column::Cmcd),
        }
    }

    /// What of a viewer the column may tell.
    fn holds(self) -> Option<Holds> {
        Some(match self {
            Column::UriStem => Holds::Target,
            Column::UriQuery => Holds::Query,
            Column::Referer => Holds::Referer,
            Column::Cookie => Holds::Cookie,
            Column::RequestHeaders => Holds::HeadersBlock,
            Column::Withheld => Holds::Withheld,
            Column::Cmcd("nor") => Holds::CmcdUrl,
            _ => return None,
        })
    }
}

/// CMCD's key behind the name that CloudFront gives it.
fn cmcd_key(name: &str) -> Option<&'static str> {
    Some(match name {
        "encoded-bitrate" => "br",
        "buffer-length" => "bl",
        "buffer-starvation" => "bs",
        "content-id" => "cid",
        "object-duration" => "d",
        "deadline" => "dl",
        "measured-throughput" => "mtp",
        "next-object-request" => "nor",
        "next-range-request" => "nrr",
        "object-type" => "ot",
        "playback-rate" => "pr",
        "requested-maximum-throughput" => "rtp",
        "streaming-format" => "sf",
        "session-id" => "sid",
        "stream-type" => "st",
        "startup" => "su",
        "top-bitrate" => "tb",
        "version" => "v",
        _ => return None,
    })
}

/// True for names that only the real-time log has: it swaps the two hosts.
fn is_real_time_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("cs-host")
}

/// One record on its way into a `CdnRequest`.
#[derive(Default)]
struct Reading<'a> {
    /// Boxed from the start: a request is large, and would be copied at each step.
    request: Box<CdnRequest>,
    date: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    timestamp: Option<Cow<'a, str>>,
    timestamp_ms: Option<Cow<'a, str>>,
    headers_block: Option<Cow<'a, str>>,
    cmcd: Vec<(&'static str, Cow<'a, str>)>,
    unknown: Vec<(&'a str, Cow<'a, str>)>,
    /// Pieces of the record that may tell of the viewer.
    private: Vec<(&'a str, Holds)>,
}

impl<'a> Reading<'a> {
    /// Puts one cell that says something where it belongs. `raw` is the cell as it stands in the record.
    fn cell(&mut self, column: Column, name: impl FnOnce() -> &'a str, raw: &'a str, cell: Cow<'a, str>) {
        if let Some(holds) = column.holds().filter(|holds| may_tell(*holds, raw)) {
            self.private.push((raw, holds));
        }
        let request = &mut *self.request;
        let flags = &mut request.dq_flags;
        match column {
            Column::Date => self.date = Some(cell),
            Column::Time => self.time = Some(cell),
            Column::Timestamp => self.timestamp = Some(cell),
            Column::TimestampMs => self.timestamp_ms = Some(cell),
            Column::RequestHeaders => self.headers_block = Some(cell),
            Column::Cmcd(key) => self.cmcd.push((key, cell)),
            Column::ScBytes => request.sc_bytes = number(&cell, 0, flags),
            Column::CsBytes => request.cs_bytes = number(&cell, 0, flags),
            Column::Status => request.status = number(&cell, 0, flags),
            Column::TimeTaken => request.time_taken_ms = number(&cell, 3, flags),
            Column::TimeToFirstByte => request.ttfb_ms = number(&cell, 3, flags),
            Column::OriginFirstByte => request.origin_ttfb_ms = number(&cell, 3, flags),
            Column::OriginLastByte => request.origin_time_ms = number(&cell, 3, flags),
            Column::ClientPort => request.client_port = number(&cell, 0, flags),
            Column::ContentLength => request.content_length = number(&cell, 0, flags),
            Column::RangeStart => request.range_start = number(&cell, 0, flags),
            Column::RangeEnd => request.range_end = number(&cell, 0, flags),
            Column::Asn => request.network.asn = number(&cell, 0, flags),
            Column::Country => request.network.country = country(&cell, flags),
            Column::ForwardedFor => request.forwarded_for = forwarded_for(&cell, flags),
            Column::UserAgent => {
                let (user_agent, depth) = percent_decoded(&cell);
                request.user_agent = Some(user_agent.into_owned());
                request.decode_depth = Some(depth);
            }
            Column::Withheld => {}
            Column::Unknown => self.unknown.push((name(), cell)),
            _ => {
                if let Some(field) = text_field(request, column) {
                    *field = Some(cell.into_owned());
                }
            }
        }
    }

    /// `timestamp(ms)`, else `timestamp` in seconds, else `date` and `time` (4.2). Parquet may have them as
    /// dates and times of day.
    fn event_time_ms(&self) -> Option<i64> {
        if let Some(cell) = self.timestamp_ms.as_deref() {
            return decimal(cell, 0).or_else(|| moment_ms(cell));
        }
        if let Some(cell) = self.timestamp.as_deref() {
            return decimal(cell, 3).or_else(|| moment_ms(cell));
        }
        let (date, time) = (self.date.as_deref()?, self.time.as_deref()?);
        utc_ms(date, time).or_else(|| utc_ms(date.get(..10)?, time.get(..8)?))
    }

    /// The request, with what is told by several columns together. Sets neither `fields`, `event_id` nor
    /// `client_prefix`.
    fn finish(self, payload: &str, written: Written, context: &DecodeContext) -> Result<Box<CdnRequest>, Reject> {
        let event_ts_ms = self.event_time_ms().ok_or_else(|| {
            let detail = "date and time are empty or not YYYY-MM-DD and HH:MM:SS, and no timestamp is readable";
            reject(RejectReason::MissingEventTime, detail)
        })?;
        let mut request = self.request;
        request.event_ts_ms = event_time_in_range(event_ts_ms, context)?;
        request.cdn = Some(CDN.to_owned());
        request.pop = request.edge_location.as_deref().and_then(pop);
        request.is_aborted = is_aborted(&request);
        request.error_code = error_code(&request);
        request.ext = ext(self.unknown, None, &mut request.dq_flags);
        request.payload = payload.to_owned();
        for (raw, holds) in self.private {
            request.private.mark(payload, raw, holds, written);
        }
        if self.headers_block.is_some() || !self.cmcd.is_empty() {
            let candidates = Candidates {
                headers_block: self.headers_block.as_deref(),
                columns: self.cmcd.iter().map(|(key, cell)| (*key, cell.as_ref())).collect(),
                ..Candidates::default()
            };
            cmcd_in_log::take(&mut request, &candidates);
        }
        Ok(request)
    }
}

/// The field of a column that is kept as the text it is.
fn text_field(request: &mut CdnRequest, column: Column) -> Option<&mut Option<String>> {
    Some(match column {
        Column::EdgeLocation => &mut request.edge_location,
        Column::ClientAddress => &mut request.client_address,
        Column::Method => &mut request.method,
        Column::Host => &mut request.host,
        Column::HostHeader => &mut request.host_header,
        Column::UriStem => &mut request.uri_stem,
        Column::UriQuery => &mut request.uri_query,
        Column::Referer => &mut request.referer,
        Column::Cookie => &mut request.cookie,
        Column::ResultType => &mut request.result_type,
        Column::ResponseResultType => &mut request.response_result_type,
        Column::DetailedResultType => &mut request.detailed_result_type,
        Column::RequestId => &mut request.request_id,
        Column::Protocol => &mut request.protocol,
        Column::ProtocolVersion => &mut request.protocol_version,
        Column::SslProtocol => &mut request.ssl_protocol,
        Column::SslCipher => &mut request.ssl_cipher,
        Column::FleStatus => &mut request.fle_status,
        Column::FleEncryptedFields => &mut request.fle_encrypted_fields,
        Column::ContentType => &mut request.content_type,
        _ => return None,
    })
}

/// Status 000, an error of the connection to the viewer, or `Error` on a response that was none: the
/// viewer left (4.1). `None`: the log has not the columns that tell.
fn is_aborted(request: &CdnRequest) -> Option<bool> {
    if request.status == Some(0) {
        return Some(true);
    }
    let is_error = request.result_type.as_deref()? == ERROR;
    let detailed = request.detailed_result_type.as_deref();
    let lost_viewer = matches!(detailed, Some("ClientCommError" | "ClientHungUpRequest"));
    let answered = request.status == Some(200) || request.response_result_type.as_deref().is_some_and(|result| result != ERROR);
    Some(lost_viewer || is_error && answered)
}

/// CloudFront's word for an error, where it is more than the word `Error`.
fn error_code(request: &CdnRequest) -> Option<String> {
    if request.result_type.as_deref() != Some(ERROR) {
        return None;
    }
    request.detailed_result_type.clone().filter(|detailed| detailed != ERROR)
}

/// `2020-05-06T08:00:00.5` and the like, UTC.
fn moment_ms(text: &str) -> Option<i64> {
    let whole = utc_ms(text.get(..10)?, text.get(11..19)?)?;
    let fraction = text[19..].trim_end_matches('Z');
    if fraction.is_empty() {
        return Some(whole);
    }
    Some(whole + decimal(fraction.strip_prefix('.').map(|_| fraction)?, 3)?)
}

/// A count or length from 0 upwards, times 10^`scale`.
fn number(cell: &str, scale: usize, flags: &mut Vec<&'static str>) -> Option<i64> {
    let value = count(cell, scale);
    if value.is_none() {
        flag(flags, "bad_value");
    }
    value
}

fn count(cell: &str, scale: usize) -> Option<i64> {
    decimal(cell, scale).filter(|value| (0..=INTEGER_MAX).contains(value))
}

fn country(cell: &str, flags: &mut Vec<&'static str>) -> Option<String> {
    if cell.len() == 2 && cell.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Some(cell.to_ascii_uppercase());
    }
    flag(flags, "bad_value");
    None
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

/// The names of a field list, which stands in a log or in the settings; none of an empty list.
///
/// Rejects `MissingFields` where there are too many, named by `what`.
fn names_of<'l>(list: &'l str, what: &str) -> Result<Vec<&'l str>, Reject> {
    let names = list.split_ascii_whitespace();
    let names: Vec<&str> = names.take(COLUMNS_MAX + 1).collect();
    if names.len() > COLUMNS_MAX || list.len() > FIELDS_BYTES_MAX {
        let detail = format!("{what} names more than {COLUMNS_MAX} columns or exceeds {FIELDS_BYTES_MAX} bytes");
        return Err(reject(RejectReason::MissingFields, detail));
    }
    Ok(names)
}

/// The columns of a list of names.
fn bound(names: &[&str]) -> Vec<Column> {
    let is_real_time = names.iter().any(|name| is_real_time_name(name));
    names.iter().map(|name| Column::named(name, is_real_time)).collect()
}

/// True if a record with these columns can have a time.
fn has_time(columns: &[Column]) -> bool {
    let has = |column: Column| columns.contains(&column);
    has(Column::Date) && has(Column::Time) || has(Column::Timestamp) || has(Column::TimestampMs)
}

/// As many cells as names; one trailing tab is in the vendor's own sample. `what` names the list.
fn check_column_count(record: &str, columns: usize, what: &str) -> Result<(), Reject> {
    let cells = memchr::memchr_iter(b'\t', record.as_bytes()).count() + 1;
    let has_trailing_tab = cells == columns + 1 && record.ends_with('\t');
    if cells == columns || has_trailing_tab {
        return Ok(());
    }
    let detail = format!("{what} names {columns} columns, the record has {cells}");
    Err(reject(RejectReason::WrongColumnCount, detail))
}

/// The cells of a record in order. Cells are short and many: one vector scan finds all of their ends.
fn cells(record: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\t', record.as_bytes()).chain([record.len()]);
    ends.map(move |end| {
        let cell = &record[start..end];
        start = end + 1;
        cell
    })
}

/// False for a cell of a log that says nothing.
fn is_said(cell: &str) -> bool {
    !matches!(cell.as_bytes(), [] | [b'-'])
}

/// The name of a column, looked up for the few whose name is kept.
fn name_at(fields: &str, place: usize) -> &str {
    fields.split(' ').nth(place).unwrap_or_default()
}
