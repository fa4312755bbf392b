//! Logs of no known format, NDJSON and CSV (RFC 4180, with any separator), read by a `FieldMap`.
//!
//! Stands first in the walk of a CDN request; the request goes to `enrich`.
//!
//! Event time: `time`, which the one who writes the map says is the end of the response; else `date` and
//! `time_of_day`; else `start` plus `time_taken`.
//!
//! Invariant: what the map does not name goes nowhere; the payload keeps it, unless its name tells of cookies,
//! queries and the like.
//! Invariant: the request carries the text of its map, columns included, so that bronze can be read again.

use std::borrow::Cow;

use super::field_map::{Binding, Field, FieldMap, Layout, Unit, weight_of_rate};
use super::json_row::{Members, Outcome, Row, is_said, moment_ms, nested, rfc3339_ms, rounded, value};
use crate::event::decode::DecodeContext;
use crate::event::decode::text::{decimal, reject, utc_ms, without_bom};
use crate::event::private::{Holds, Written, is_telling};
use crate::event::{CdnRequest, Reject, RejectReason};

/// What a source is called whose map gives it no name.
const CDN: &str = "generic";

/// One line, without its line end. Sets neither `event_id` nor `client_prefix`.
///
/// Errors: those of JSON; `WrongColumnCount`, `BadValue` for an open quote and `MissingFields` for a header
/// that never came (CSV); `MissingEventTime`, `EventTimeOutOfRange`.
pub(in crate::event::decode) fn decode(payload: &str, map: &FieldMap, context: &DecodeContext) -> Result<CdnRequest, Reject> {
    let mut reading = Reading::new(map);
    match &map.layout {
        Layout::Ndjson => {
            let object = Members::parse(payload)?;
            let every: Vec<&Binding> = map.bindings.iter().collect();
            reading.object(&object, 0, &every);
        }
        Layout::Csv { separator, columns } => {
            let Some(columns) = columns else {
                let detail = "the line that names the columns was not seen; list the columns in the settings";
                return Err(reject(RejectReason::MissingFields, detail));
            };
            let cells = cells(without_bom(payload), *separator)?;
            if cells.len() != columns.len() {
                let detail = format!("the field map has {} columns, the record has {}", columns.len(), cells.len());
                return Err(reject(RejectReason::WrongColumnCount, detail));
            }
            for ((cell, readers), name) in cells.into_iter().zip(&map.readers).zip(columns) {
                if readers.is_empty() && is_telling(name) {
                    reading.row.private(cell.raw, Holds::Withheld, Written::Csv(*separator));
                }
                reading.cell(cell, readers, Written::Csv(*separator));
            }
        }
    }
    reading.finish(payload, context)
}

/// A cell of CSV: what it says, and as it stands in the line, quotes included.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell<'a> {
    pub(super) text: Cow<'a, str>,
    raw: &'a str,
}

/// The cells of one line of CSV. A quoted cell may hold separators, and `""` for a quote.
///
/// Errors: `BadValue` for a quote that is not closed, or is followed by text.
pub(super) fn cells(line: &str, separator: char) -> Result<Vec<Cell<'_>>, Reject> {
    let mut cells = Vec::new();
    let mut rest = line.strip_suffix('\r').unwrap_or(line);
    loop {
        let start = line.len() - rest.len();
        let Some(inner) = rest.strip_prefix('"') else {
            let end = rest.find(separator);
            let raw = &rest[..end.unwrap_or(rest.len())];
            let text = Cow::Borrowed(raw);
            cells.push(Cell { text, raw });
            match end {
                Some(end) => rest = &rest[end + separator.len_utf8()..],
                None => return Ok(cells),
            }
            continue;
        };
        let Some(end) = closing_quote(inner) else {
            let detail = format!("the quote at byte {start} is not closed; the record was cut");
            return Err(reject(RejectReason::BadValue, detail));
        };
        let text = &inner[..end];
        let has_quote = text.contains('"');
        let text = if has_quote {
            Cow::Owned(text.replace("\"\"", "\""))
        } else {
            Cow::Borrowed(text)
        };
        let raw = &rest[..end + 2];
        cells.push(Cell { text, raw });
        rest = &inner[end + 1..];
        if rest.is_empty() {
            return Ok(cells);
        }
        let Some(next) = rest.strip_prefix(separator) else {
            let detail = format!("text follows the quoted cell that begins at byte {start}");
            return Err(reject(RejectReason::BadValue, detail));
        };
        rest = next;
    }
}

/// The first quote that is not one of a pair.
fn closing_quote(text: &str) -> Option<usize> {
    let mut quotes = memchr::memchr_iter(b'"', text.as_bytes()).peekable();
    while let Some(place) = quotes.next() {
        if quotes.next_if_eq(&(place + 1)).is_none() {
            return Some(place);
        }
    }
    None
}

struct Reading<'a> {
    map: &'a FieldMap,
    row: Row<'a>,
    end_ms: Option<i64>,
    start_ms: Option<i64>,
    date: Option<Cow<'a, str>>,
    time_of_day: Option<Cow<'a, str>>,
    query: Option<String>,
    host_header: Option<String>,
}

impl<'a> Reading<'a> {
    fn new(map: &'a FieldMap) -> Reading<'a> {
        Reading {
            map,
            row: Row::new(map.cdn_name.as_deref().unwrap_or(CDN)),
            end_ms: None,
            start_ms: None,
            date: None,
            time_of_day: None,
            query: None,
            host_header: None,
        }
    }

    /// The members of an object that the bindings name at this depth. A member may have the whole rest of
    /// a dotted name for its own, or lead on to the next segment.
    fn object(&mut self, object: &Members<'a>, depth: usize, bindings: &[&'a Binding]) {
        for (key, raw) in object.members() {
            let mut deeper = Vec::new();
            let mut is_bound = false;
            for binding in bindings {
                let Some((rest, segment)) = binding.at_depth(depth) else {
                    continue;
                };
                if rest == key {
                    is_bound = true;
                    if let Some(value) = value(raw) {
                        self.field(binding, raw, Written::Json, value);
                    }
                } else if segment == key {
                    deeper.push(*binding);
                }
            }
            match Some(raw).filter(|_| !deeper.is_empty()).and_then(nested) {
                Some(object) => self.object(&object, depth + 1, &deeper),
                None if !is_bound && value(raw).is_some() => self.row.unknown(key, raw),
                None => {}
            }
        }
    }

    fn cell(&mut self, cell: Cell<'a>, readers: &[usize], written: Written) {
        let Cell { text: cell, raw } = cell;
        let said = cell.trim();
        if !is_said(said) {
            return;
        }
        let map = self.map;
        for place in readers {
            let value = match &cell {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                Cow::Owned(_) => Cow::Owned(said.to_owned()),
            };
            self.field(&map.bindings[*place], raw, written, value);
        }
    }

    fn field(&mut self, binding: &'a Binding, raw: &'a str, written: Written, value: Cow<'a, str>) {
        let row = &mut self.row;
        if let Some(holds) = holds(binding) {
            row.private(raw, holds, written);
            if holds == Holds::Withheld {
                return;
            }
        }
        match &binding.field {
            Field::Time => self.end_ms = time_ms(&value, binding.unit),
            Field::Start => self.start_ms = time_ms(&value, binding.unit),
            Field::Date => self.date = Some(value),
            Field::TimeOfDay => self.time_of_day = Some(value),
            Field::TimeTaken => row.request.time_taken_ms = length_ms(row, &value, binding.unit),
            Field::Ttfb => row.request.ttfb_ms = length_ms(row, &value, binding.unit),
            Field::OriginTtfb => row.request.origin_ttfb_ms = length_ms(row, &value, binding.unit),
            Field::OriginTime => row.request.origin_time_ms = length_ms(row, &value, binding.unit),
            Field::RequestId => row.request.request_id = Some(value.into_owned()),
            Field::EdgeLocation => row.edge_location(&value),
            Field::Pop => row.request.pop = Some(value.to_ascii_uppercase()),
            Field::ScBytes => row.request.sc_bytes = row.number(&value, 0),
            Field::CsBytes => row.request.cs_bytes = row.number(&value, 0),
            Field::Status => row.request.status = row.number(&value, 0),
            Field::ResultType => {
                row.outcome = Outcome::of_word(&value);
                row.keep("cache_status", value);
            }
            Field::ErrorCode => row.request.error_code = Some(value.into_owned()),
            Field::IsAborted => row.request.is_aborted = row.boolean(&value),
            Field::SampleInterval => row.sample_interval(&value),
            Field::SampleRate => {
                let rate = row.number(&value, 3).filter(|rate| *rate > 0);
                row.request.sample_weight_milli = rate.and_then(weight_of_rate);
            }
            Field::Cdn => row.request.cdn = Some(value.into_owned()),
            Field::Ext(name) => row.keep(name, value),
            _ => self.viewer_field(&binding.field, value),
        }
    }

    /// What the viewer sent and got, and who the viewer is.
    fn viewer_field(&mut self, field: &Field, value: Cow<'a, str>) {
        let row = &mut self.row;
        match field {
            Field::Method => row.request.method = Some(value.into_owned()),
            Field::Host => row.host(&value),
            Field::HostHeader => self.host_header = Some(value.into_owned()),
            Field::Url => row.url(&value),
            Field::UriStem => row.target(&value),
            Field::UriQuery => self.query = Some(value.strip_prefix('?').unwrap_or(&value).to_owned()),
            Field::Referer => row.request.referer = Some(value.into_owned()),
            Field::UserAgent => row.user_agent(&value),
            Field::Cookie => row.request.cookie = Some(value.into_owned()),
            Field::Protocol => row.request.protocol = Some(value.to_ascii_lowercase()),
            Field::ProtocolVersion => row.protocol_version(&value),
            Field::SslProtocol => row.ssl_protocol(&value),
            Field::SslCipher => row.ssl_cipher(&value),
            Field::ForwardedFor => row.forwarded_for(&value),
            Field::ClientAddress => row.request.client_address = Some(value.into_owned()),
            Field::ClientPort => row.request.client_port = row.number(&value, 0),
            Field::ContentType => row.request.content_type = Some(value.into_owned()),
            Field::ContentLength => row.request.content_length = row.number(&value, 0),
            Field::Range => row.range(&value),
            Field::Country => row.country(&value),
            Field::Region => row.request.network.region = Some(value.into_owned()),
            Field::City => row.request.network.city = Some(value.into_owned()),
            Field::Asn => row.asn(&value),
            Field::Isp => row.request.network.isp = Some(value.into_owned()),
            Field::IsBot => row.request.is_bot = row.boolean(&value),
            Field::CmcdRequest => row.cmcd_header("cmcd-request", value),
            Field::CmcdObject => row.cmcd_header("cmcd-object", value),
            Field::CmcdStatus => row.cmcd_header("cmcd-status", value),
            Field::CmcdSession => row.cmcd_header("cmcd-session", value),
            _ => {}
        }
    }

    fn finish(mut self, payload: &str, context: &DecodeContext) -> Result<CdnRequest, Reject> {
        let request = &mut self.row.request;
        request.fields = Some(self.map.as_text().to_owned());
        request.sample_weight_milli = request.sample_weight_milli.or(self.map.sample_weight_milli);
        request.uri_query = self.query.take().filter(|query| is_said(query)).or(request.uri_query.take());
        request.host_header = self.host_header.take().or(request.host_header.take());
        let taken_ms = request.time_taken_ms.unwrap_or(0);
        let of_two = self
            .date
            .as_deref()
            .zip(self.time_of_day.as_deref())
            .and_then(|(date, time)| utc_ms(date, time));
        let of_start = self.start_ms.map(|ms| ms.saturating_add(taken_ms));
        let missing = "the time that the field map names is missing or not of its unit; look at time in the map";
        self.row.finish(self.end_ms.or(of_two).or(of_start), missing, payload, context)
    }
}

/// What of a viewer a field may tell.
fn holds(binding: &Binding) -> Option<Holds> {
    Some(match &binding.field {
        Field::Url | Field::UriStem => Holds::Target,
        Field::UriQuery => Holds::Query,
        Field::Referer => Holds::Referer,
        Field::Cookie => Holds::Cookie,
        Field::CmcdRequest | Field::CmcdObject | Field::CmcdStatus | Field::CmcdSession => Holds::Cmcd,
        Field::Ext(name) if is_telling(name) || is_telling(&binding.theirs) => Holds::Withheld,
        _ => return None,
    })
}

fn time_ms(text: &str, unit: Unit) -> Option<i64> {
    let per_ms = match unit {
        Unit::Iso8601 => return rfc3339_ms(text),
        Unit::Seconds => return decimal(text, 3),
        Unit::Milliseconds => 1,
        Unit::Microseconds => 1_000,
        Unit::Nanoseconds => 1_000_000,
        Unit::AnyTime | Unit::Plain => return moment_ms(text),
    };
    decimal(text, 0).map(|value| value / per_ms)
}

fn length_ms(row: &mut Row<'_>, text: &str, unit: Unit) -> Option<i64> {
    match unit {
        Unit::Seconds => row.number(text, 3),
        Unit::Microseconds => row.microseconds(text),
        Unit::Nanoseconds => row.number(text, 0).map(|value| rounded(value, 1_000_000)),
        _ => row.number(text, 0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Network;
    use crate::event::private::PrivateParts;

    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_800_000_000_000 };
    const NESTED: &str = "cdn_name=own time=ts:epoch_ms client_address=client.ip status=http.code url=http.url user_agent=http.ua \
        sc_bytes=http.bytes:bytes time_taken=took:s ttfb=first:us result_type=cache pop=edge.pop request_id=id country=client.geo.cc \
        sample_rate=sampled ext.tier=edge.tier cmcd_session=http.cmcd";
    const NESTED_LINE: &str = r#"{"ts":1700000000257,"took":"0.189","first":64400,"id":"a-1","client":{"ip":"203.0.113.77","geo":{"cc":"gb"}},"http.code":206,"http":{"url":"https://media.example.net/a.m4s?t=1","ua":"curl%2F8","bytes":"5227","cmcd":"sid=\"6e2fb550\"","authorization":"secret"},"cache":"HIT","edge":{"pop":"lhr","tier":2},"sampled":10}"#;
    const CSV: &str = "layout=csv separator=semicolon columns=id,ip,when,clock,ms,code,path,q,cache,note cdn_name=own \
        request_id=id client_address=ip date=when time_of_day=clock time_taken=ms:ms status=code uri_stem=path uri_query=q result_type=cache ext.note=note";
    const CSV_LINE: &str = "a-1;203.0.113.77;2023-11-14;22:13:20;189;206;/a.m4s;?t=1;TCP_HIT;\"say \"\"hi;\"\"\"";

    fn owned(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn map(text: &str) -> FieldMap {
        FieldMap::new(text).unwrap()
    }

    fn check_nested(line: &str) {
        let map = map(NESTED);
        let hit = owned("Hit");
        let expected = CdnRequest {
            cdn: owned("own"),
            event_ts_ms: 1_700_000_000_257,
            request_id: owned("a-1"),
            pop: owned("LHR"),
            sc_bytes: Some(5_227),
            host: owned("media.example.net"),
            host_header: owned("media.example.net"),
            protocol: owned("https"),
            uri_stem: owned("/a.m4s"),
            uri_query: owned("t=1"),
            status: Some(206),
            user_agent: owned("curl/8"),
            decode_depth: Some(1),
            result_type: hit.clone(),
            response_result_type: hit.clone(),
            detailed_result_type: hit,
            time_taken_ms: Some(189),
            ttfb_ms: Some(64),
            sample_weight_milli: Some(10_000),
            cmcd_carrier: Some("headers"),
            client_address: owned("203.0.113.77"),
            network: Network {
                country: owned("GB"),
                ..Network::default()
            },
            ext: vec![("cache_status".to_owned(), "HIT".to_owned()), ("tier".to_owned(), "2".to_owned())],
            payload: line.to_owned(),
            fields: owned(map.as_text()),
            ..CdnRequest::default()
        };
        let mut request = decode(line, &map, &CONTEXT).unwrap();
        let event = request.player_event.take().unwrap();
        assert_eq!(event.native_session_id.as_deref(), Some("6e2fb550"));
        // What is marked in the payload is tested with what becomes of it (`privacy`).
        request.private = PrivateParts::default();
        assert_eq!(request, expected);
    }

    #[test]
    fn nested_json_is_read_by_dotted_names() {
        check_nested(NESTED_LINE);
    }

    #[test]
    fn the_order_of_the_keys_is_nothing() {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(NESTED_LINE).unwrap();
        let members = object.iter().rev().map(|(key, value)| format!("\"{key}\":{value}"));
        check_nested(&format!("{{{}}}", members.collect::<Vec<_>>().join(", ")));
    }

    #[test]
    fn a_csv_is_read_by_its_columns_in_any_order() {
        let check = |text: &str, line: &str| {
            let map = map(text);
            let expected = CdnRequest {
                cdn: owned("own"),
                event_ts_ms: 1_700_000_000_000,
                request_id: owned("a-1"),
                uri_stem: owned("/a.m4s"),
                uri_query: owned("t=1"),
                status: Some(206),
                time_taken_ms: Some(189),
                client_address: owned("203.0.113.77"),
                result_type: owned("Hit"),
                response_result_type: owned("Hit"),
                detailed_result_type: owned("Hit"),
                ext: vec![
                    ("cache_status".to_owned(), "TCP_HIT".to_owned()),
                    ("note".to_owned(), "say \"hi;\"".to_owned()),
                ],
                payload: line.to_owned(),
                fields: owned(map.as_text()),
                ..CdnRequest::default()
            };
            let mut request = decode(line, &map, &CONTEXT).unwrap();
            request.private = PrivateParts::default();
            assert_eq!(request, expected, "{line}");
        };
        check(CSV, CSV_LINE);
        let shuffled = CSV.replace(
            "id,ip,when,clock,ms,code,path,q,cache,note",
            "note,ip,when,clock,ms,code,path,q,cache,id",
        );
        check(
            &shuffled,
            "\"say \"\"hi;\"\"\";203.0.113.77;2023-11-14;22:13:20;189;206;/a.m4s;?t=1;TCP_HIT;a-1",
        );
    }

    #[test]
    fn a_header_names_the_columns_and_bronze_reads_the_record_by_it() {
        let map = map("layout=csv columns=header time=Time status=Status");
        let refused = decode("2023-11-14T22:13:20Z,200", &map, &CONTEXT).unwrap_err();
        assert_eq!(refused.reason, RejectReason::MissingFields);
        let bound = map.with_header("Status,\"Time\"").unwrap();
        let request = decode("200,2023-11-14T22:13:20Z", &bound, &CONTEXT).unwrap();
        assert_eq!((request.status, request.event_ts_ms), (Some(200), 1_700_000_000_000));
        let again = FieldMap::new(request.fields.as_deref().unwrap()).unwrap();
        assert_eq!(decode(&request.payload, &again, &CONTEXT), Ok(request));
    }

    #[test]
    fn units_of_times_and_lengths_are_kept_apart() {
        let check = |item: &str, value: &str, expected: Option<i64>| {
            let map = map(&format!("{item} time_taken=none"));
            let request = decode(&format!(r#"{{"t":{value}}}"#), &map, &CONTEXT);
            assert_eq!(request.ok().map(|request| request.event_ts_ms), expected, "{item} {value}");
        };
        let expected = Some(1_700_000_000_257);
        check("time=t", "\"2023-11-14T22:13:20.257Z\"", expected);
        check("time=t:iso8601", "\"2023-11-14T23:13:20.257+01:00\"", expected);
        check("time=t:epoch_s", "1700000000.257", expected);
        check("time=t:epoch_ms", "\"1700000000257\"", expected);
        check("time=t:epoch_us", "1700000000257000", expected);
        check("time=t:epoch_ns", "1700000000257000000", expected);
        check("time=t:epoch_ms", "1700000000", None);
        check("time=t:iso8601", "1700000000257", None);

        let lengths = map("start=t:epoch_s time_taken=a:ns ttfb=b:us origin_ttfb=c:s origin_time=d");
        let request = decode(
            r#"{"t":1700000000,"a":257400000,"b":"64400","c":0.0411,"d":50}"#,
            &lengths,
            &CONTEXT,
        )
        .unwrap();
        assert_eq!(
            (request.event_ts_ms, request.time_taken_ms, request.ttfb_ms),
            (1_700_000_000_257, Some(257), Some(64))
        );
        assert_eq!((request.origin_ttfb_ms, request.origin_time_ms), (Some(41), Some(50)));
    }

    #[test]
    fn a_record_of_a_thinned_out_log_stands_for_many() {
        let check = |items: &str, expected: Option<i64>| {
            let map = map(&format!("time=t {items}"));
            let request = decode(r#"{"t":1700000000,"interval":20,"rate":"12.5"}"#, &map, &CONTEXT).unwrap();
            assert_eq!(request.sample_weight_milli, expected, "{items}");
        };
        check("", None);
        check("sample=100", None);
        check("sample=10%", Some(10_000));
        check("sample=30", Some(3_333));
        check("sample_interval=interval", Some(20_000));
        check("sample_rate=rate sample=10%", Some(8_000));
    }

    #[test]
    fn cells_follow_rfc_4180() {
        let check = |line: &str, expected: Result<&[&str], &str>| match (cells(line, ','), expected) {
            (Ok(found), Ok(expected)) => {
                let found: Vec<&str> = found.iter().map(|cell| cell.text.as_ref()).collect();
                assert_eq!(found, expected, "{line}");
            }
            (Err(refused), Err(expected)) => assert!(refused.detail.contains(expected), "{line}: {}", refused.detail),
            (found, _) => panic!("{line}: {found:?}"),
        };
        check("a,b", Ok(&["a", "b"]));
        check("", Ok(&[""]));
        check(",", Ok(&["", ""]));
        check("\"a,b\",\"\",\"c\"\"d\"\r", Ok(&["a,b", "", "c\"d"]));
        check("a\"b,c", Ok(&["a\"b", "c"]));
        check("a,\"b", Err("byte 2 is not closed"));
        check("\"a\"b", Err("begins at byte 0"));
        check("\"\"\"", Err("not closed"));
    }

    #[test]
    fn cut_and_foreign_lines_are_refused() {
        let check = |text: &str, line: &str, expected: RejectReason| {
            assert_eq!(decode(line, &map(text), &CONTEXT).unwrap_err().reason, expected, "{line}");
        };
        check(NESTED, &NESTED_LINE[..60], RejectReason::MalformedJson);
        check(NESTED, "[]", RejectReason::NotAnObject);
        check(NESTED, "{}", RejectReason::MissingEventTime);
        check(NESTED, r#"{"ts":"soon"}"#, RejectReason::MissingEventTime);
        check(NESTED, r#"{"ts":17}"#, RejectReason::EventTimeOutOfRange);
        check(CSV, &CSV_LINE[..20], RejectReason::WrongColumnCount);
        check(CSV, &CSV_LINE[..CSV_LINE.len() - 1], RejectReason::BadValue);
        check(CSV, "garbage", RejectReason::WrongColumnCount);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_survived(text in any::<String>(), items in "([a-z_.]{1,12}=[a-z.%0-9:é,]{0,12} ?){0,5}", line in "[a-z0-9\",;é ]{0,40}") {
            for map in [map(NESTED), map(CSV)] {
                let _ = decode(&text, &map, &CONTEXT);
                let _ = decode(&line, &map, &CONTEXT);
            }
            for separator in [',', ';', '\t', 'é'] {
                let _ = (cells(&text, separator), cells(&line, separator));
            }
            let _ = FieldMap::new(&text);
            if let Ok(map) = FieldMap::new(&format!("time=t {items}")) {
                prop_assert_eq!(FieldMap::new(map.as_text()), Ok(map));
            }
            if let Ok(map) = map("layout=csv columns=header time=t").with_header(&format!("t,{line}")) {
                let is_header = map.is_header(&format!("t,{line}"));
                prop_assert!(is_header);
            }
        }

        #[test]
        fn what_was_split_into_cells_was_joined_from_them(texts in proptest::collection::vec("[a-z\",; é]{0,6}", 1..6)) {
            let quoted: Vec<String> = texts.iter().map(|text| format!("\"{}\"", text.replace('"', "\"\""))).collect();
            let line = quoted.join(",");
            let cells = cells(&line, ',').unwrap();
            let (found, raw): (Vec<&str>, Vec<&str>) = cells.iter().map(|cell| (cell.text.as_ref(), cell.raw)).unzip();
            prop_assert_eq!(found, texts);
            prop_assert_eq!(raw, quoted);
        }
    }
}
