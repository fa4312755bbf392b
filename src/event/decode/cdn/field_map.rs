//! What a log of no known format means: which of its fields is which of ours, and in which unit.
//!
//! A map is one line of items separated by blanks, for it is kept beside every record in bronze:
//!
//! ```text
//! layout=csv separator=tab columns=ts,code,ms cdn_name=own time=ts:epoch_ms status=code time_taken=ms:ms
//! ```
//!
//! `layout` is `ndjson` (where not said) or `csv`. `columns` is the order of the cells, or `header`: it is
//! taken from the first line. `sample=10%` is the rate of a log that was thinned out as a whole. Every other item is `ours=theirs` or `ours=theirs:unit`; a dot in theirs leads
//! into a nested object. A blank, `%`, `=`, `:` and `,` in a name are percent-encoded.
//!
//! Stands before `generic`, which reads records by it.
//!
//! Invariant: a map names a time, and each field of ours once; the text of a map gives the same map.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::generic::cells;
use super::json_row::rounded;
use crate::event::decode::text::{decimal, reject, without_bom};
use crate::event::{Reject, RejectReason};

/// Bytes of a map: it is stored with every record.
const MAP_BYTES_MAX: usize = 16 * 1024;
/// Fields of ours are not half as many; the rest are entries of `ext`.
const BINDINGS_MAX: usize = 128;
/// Columns of a CSV, as of a CloudFront log.
const COLUMNS_MAX: usize = 256;
/// Characters of a name in `ext`.
const EXT_NAME_CHARS_MAX: usize = 64;
/// How deep a dotted name leads; deeper records are refused before.
const SEGMENTS_MAX: usize = 8;
/// Every request, in thousandths of a percent.
const ALL_MILLI_PERCENT: i64 = 100 * 1_000;
/// What `columns` says where the first line of a file names them.
const HEADER: &str = "header";
/// What a name cannot hold as it is.
const RESERVED: AsciiSet = CONTROLS.add(b' ').add(b'%').add(b'=').add(b':').add(b',');

/// A field of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Time,
    Start,
    Date,
    TimeOfDay,
    RequestId,
    EdgeLocation,
    Pop,
    ScBytes,
    CsBytes,
    Method,
    Host,
    HostHeader,
    Url,
    UriStem,
    UriQuery,
    Status,
    Referer,
    UserAgent,
    Cookie,
    ResultType,
    Protocol,
    ProtocolVersion,
    SslProtocol,
    SslCipher,
    TimeTaken,
    Ttfb,
    OriginTtfb,
    OriginTime,
    SampleInterval,
    SampleRate,
    ErrorCode,
    IsAborted,
    ForwardedFor,
    ClientAddress,
    ClientPort,
    ContentType,
    ContentLength,
    Range,
    Country,
    Region,
    City,
    Asn,
    Isp,
    IsBot,
    Cdn,
    CmcdRequest,
    CmcdObject,
    CmcdStatus,
    CmcdSession,
    Ext(String),
}

/// The names of settings and of a map's text.
const FIELDS: [(&str, Field); 49] = [
    ("time", Field::Time),
    ("start", Field::Start),
    ("date", Field::Date),
    ("time_of_day", Field::TimeOfDay),
    ("request_id", Field::RequestId),
    ("edge_location", Field::EdgeLocation),
    ("pop", Field::Pop),
    ("sc_bytes", Field::ScBytes),
    ("cs_bytes", Field::CsBytes),
    ("method", Field::Method),
    ("host", Field::Host),
    ("host_header", Field::HostHeader),
    ("url", Field::Url),
    ("uri_stem", Field::UriStem),
    ("uri_query", Field::UriQuery),
    ("status", Field::Status),
    ("referer", Field::Referer),
    ("user_agent", Field::UserAgent),
    ("cookie", Field::Cookie),
    ("result_type", Field::ResultType),
    ("protocol", Field::Protocol),
    ("protocol_version", Field::ProtocolVersion),
    ("ssl_protocol", Field::SslProtocol),
    ("ssl_cipher", Field::SslCipher),
    ("time_taken", Field::TimeTaken),
    ("ttfb", Field::Ttfb),
    ("origin_ttfb", Field::OriginTtfb),
    ("origin_time", Field::OriginTime),
    ("sample_interval", Field::SampleInterval),
    ("sample_rate", Field::SampleRate),
    ("error_code", Field::ErrorCode),
    ("is_aborted", Field::IsAborted),
    ("forwarded_for", Field::ForwardedFor),
    ("client_address", Field::ClientAddress),
    ("client_port", Field::ClientPort),
    ("content_type", Field::ContentType),
    ("content_length", Field::ContentLength),
    ("range", Field::Range),
    ("country", Field::Country),
    ("region", Field::Region),
    ("city", Field::City),
    ("asn", Field::Asn),
    ("isp", Field::Isp),
    ("is_bot", Field::IsBot),
    ("cdn", Field::Cdn),
    ("cmcd_request", Field::CmcdRequest),
    ("cmcd_object", Field::CmcdObject),
    ("cmcd_status", Field::CmcdStatus),
    ("cmcd_session", Field::CmcdSession),
];

impl Field {
    fn parse(name: &str) -> Option<Field> {
        if let Some(own) = name.strip_prefix("ext.") {
            let is_sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
            let is_name = !own.is_empty() && own.len() <= EXT_NAME_CHARS_MAX && own.bytes().all(is_sound);
            return is_name.then(|| Field::Ext(own.to_owned()));
        }
        let known = FIELDS.iter().find(|(known, _)| *known == name);
        known.map(|(_, field)| field.clone())
    }

    fn units(&self) -> &'static [(&'static str, Unit)] {
        match self {
            Field::Time | Field::Start => &TIME_UNITS,
            Field::TimeTaken | Field::Ttfb | Field::OriginTtfb | Field::OriginTime => &LENGTH_UNITS,
            Field::ScBytes | Field::CsBytes | Field::ContentLength => &[("bytes", Unit::Plain)],
            _ => &[],
        }
    }
}

/// What a number of theirs counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// A count, a text, or a length in milliseconds.
    Plain,
    /// A time that says by its look what it is.
    AnyTime,
    Iso8601,
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

const TIME_UNITS: [(&str, Unit); 5] = [
    ("iso8601", Unit::Iso8601),
    ("epoch_s", Unit::Seconds),
    ("epoch_ms", Unit::Milliseconds),
    ("epoch_us", Unit::Microseconds),
    ("epoch_ns", Unit::Nanoseconds),
];
const LENGTH_UNITS: [(&str, Unit); 4] = [
    ("s", Unit::Seconds),
    ("ms", Unit::Milliseconds),
    ("us", Unit::Microseconds),
    ("ns", Unit::Nanoseconds),
];

/// One item: our field, and where it stands in theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) field: Field,
    pub(super) theirs: String,
    /// Where the segments of `theirs` begin.
    starts: Vec<usize>,
    pub(super) unit: Unit,
}

impl Binding {
    /// What is left of the name at this depth, and the segment that it begins with; `None` below its end.
    pub(super) fn at_depth(&self, depth: usize) -> Option<(&str, &str)> {
        let rest = &self.theirs[*self.starts.get(depth)?..];
        let segment = rest.split('.').next().unwrap_or(rest);
        Some((rest, segment))
    }
}

/// How the records are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    Ndjson,
    Csv {
        separator: char,
        /// `None`: the first line names them, and has not been seen.
        columns: Option<Vec<String>>,
    },
}

/// A map, bound once for all records of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::event::decode) struct FieldMap {
    text: String,
    pub(super) layout: Layout,
    pub(super) cdn_name: Option<String>,
    /// Requests that a record stands for, in thousandths; `None`: all are there.
    pub(super) sample_weight_milli: Option<i64>,
    pub(super) bindings: Vec<Binding>,
    /// For each column of a CSV, the bindings that read it.
    pub(super) readers: Vec<Vec<usize>>,
}

impl FieldMap {
    /// Reads a map from one line of text.
    ///
    /// Errors: `MissingFields`, naming the item that cannot be used and what to write instead.
    pub(in crate::event::decode) fn new(text: &str) -> Result<FieldMap, Reject> {
        if text.len() > MAP_BYTES_MAX {
            return Err(unusable(format!("the field map is longer than {MAP_BYTES_MAX} bytes")));
        }
        let mut draft = Draft::default();
        for item in text.split_ascii_whitespace() {
            draft.item(item)?;
        }
        draft.finish(text)
    }

    /// The map as one line: its items separated by one blank.
    pub(in crate::event::decode) fn as_text(&self) -> &str {
        &self.text
    }

    /// True for a CSV whose first line names the columns, while that line has not been seen.
    pub(in crate::event::decode) fn needs_header(&self) -> bool {
        matches!(&self.layout, Layout::Csv { columns: None, .. })
    }

    /// This map with the columns of a header line, in place of `columns=header`.
    ///
    /// Errors: `MissingFields` if the line names none of the fields of the map, or is no line of cells.
    pub(in crate::event::decode) fn with_header(&self, line: &str) -> Result<FieldMap, Reject> {
        let Layout::Csv { separator, .. } = self.layout else {
            return Ok(self.clone());
        };
        let names = cells(without_bom(line), separator)?;
        let encoded: Vec<String> = names.iter().map(|name| encoded(name.text.trim())).collect();
        let columns = format!("columns={}", encoded.join(","));
        let items = self.text.split(' ').filter(|item| !item.starts_with("columns="));
        let text: Vec<&str> = items.chain([columns.as_str()]).collect();
        let map = FieldMap::new(&text.join(" "))?;
        if map.readers.iter().all(Vec::is_empty) {
            return Err(unusable(
                "the first line names no field of the map; list the columns in the settings".to_owned(),
            ));
        }
        Ok(map)
    }

    /// True for a line that repeats the names of the columns, as joined files have it.
    pub(in crate::event::decode) fn is_header(&self, line: &str) -> bool {
        let Layout::Csv {
            separator,
            columns: Some(columns),
        } = &self.layout
        else {
            return false;
        };
        let Some(first) = columns.first() else {
            return false;
        };
        // The first name tells nearly every record apart without cutting it into cells.
        let line = without_bom(line);
        if !line.trim_start_matches(['"', ' ']).starts_with(first.as_str()) {
            return false;
        }
        cells(line, *separator)
            .is_ok_and(|names| names.len() == columns.len() && names.iter().zip(columns).all(|(name, column)| name.text.trim() == column))
    }
}

fn unusable(detail: String) -> Reject {
    reject(RejectReason::MissingFields, detail)
}

fn encoded(name: &str) -> String {
    utf8_percent_encode(name, &RESERVED).to_string()
}

fn decoded(item: &str, name: &str) -> Result<String, Reject> {
    let name = percent_decode_str(name).decode_utf8().ok().filter(|name| !name.is_empty());
    let detail = || unusable(format!("the item {item} of the field map names nothing; write ours=theirs"));
    name.map(Cow::into_owned).ok_or_else(detail)
}

/// A map while its items are read.
#[derive(Default)]
struct Draft {
    is_csv: bool,
    separator: Option<char>,
    columns: Option<Vec<String>>,
    cdn_name: Option<String>,
    sample_weight_milli: Option<i64>,
    bindings: Vec<Binding>,
}

impl Draft {
    fn item(&mut self, item: &str) -> Result<(), Reject> {
        let Some((ours, theirs)) = item.split_once('=') else {
            return Err(unusable(format!(
                "the item {item} of the field map has no \"=\"; write ours=theirs"
            )));
        };
        match (ours, theirs) {
            ("layout", "ndjson") => self.is_csv = false,
            ("layout", "csv") => self.is_csv = true,
            ("layout", _) => return Err(unusable(format!("{item}: the layout is ndjson or csv"))),
            ("separator", _) => self.separator = Some(separator(item, theirs)?),
            ("columns", HEADER) => self.columns = None,
            ("columns", _) => self.columns = Some(columns(item, theirs)?),
            ("sample", _) => self.sample_weight_milli = sample_weight(item, theirs)?,
            ("cdn_name", _) => self.cdn_name = Some(decoded(item, theirs)?),
            _ => return self.binding(item, ours, theirs),
        }
        Ok(())
    }

    fn binding(&mut self, item: &str, ours: &str, theirs: &str) -> Result<(), Reject> {
        let Some(field) = Field::parse(ours) else {
            return Err(unusable(format!(
                "{item}: no field of ours is named {ours}; see docs/cdn-logs.md for the list"
            )));
        };
        if self.bindings.iter().any(|binding| binding.field == field) {
            return Err(unusable(format!("{item}: {ours} is in the field map twice")));
        }
        if self.bindings.len() >= BINDINGS_MAX {
            return Err(unusable(format!("the field map has more than {BINDINGS_MAX} items")));
        }
        let (name, unit) = unit(item, &field, theirs)?;
        let theirs = decoded(item, name)?;
        let starts: Vec<usize> = std::iter::once(0)
            .chain(theirs.match_indices('.').map(|(dot, _)| dot + 1))
            .collect();
        if starts.len() > SEGMENTS_MAX {
            return Err(unusable(format!("{item}: a name leads at most {SEGMENTS_MAX} levels deep")));
        }
        self.bindings.push(Binding {
            field,
            theirs,
            starts,
            unit,
        });
        Ok(())
    }

    fn finish(self, text: &str) -> Result<FieldMap, Reject> {
        let has = |field: Field| self.bindings.iter().any(|binding| binding.field == field);
        let has_time = has(Field::Time) || has(Field::Start) || (has(Field::Date) && has(Field::TimeOfDay));
        if !has_time {
            let detail = "the field map names no time; add time=theirs:unit, or start, or date and time_of_day";
            return Err(unusable(detail.to_owned()));
        }
        if !self.is_csv && (self.separator.is_some() || self.columns.is_some()) {
            return Err(unusable("separator and columns are for layout=csv".to_owned()));
        }
        let readers_of = |column: &String| {
            let places = self.bindings.iter().enumerate();
            places
                .filter(|(_, binding)| binding.theirs == *column)
                .map(|(place, _)| place)
                .collect()
        };
        let readers = self.columns.iter().flatten().map(readers_of).collect();
        let layout = if self.is_csv {
            let separator = self.separator.unwrap_or(',');
            let columns = self.columns;
            Layout::Csv { separator, columns }
        } else {
            Layout::Ndjson
        };
        let items: Vec<&str> = text.split_ascii_whitespace().collect();
        Ok(FieldMap {
            text: items.join(" "),
            layout,
            cdn_name: self.cdn_name,
            sample_weight_milli: self.sample_weight_milli,
            bindings: self.bindings,
            readers,
        })
    }
}

fn separator(item: &str, name: &str) -> Result<char, Reject> {
    match name {
        "comma" => Ok(','),
        "semicolon" => Ok(';'),
        "tab" => Ok('\t'),
        "pipe" => Ok('|'),
        "blank" => Ok(' '),
        _ => Err(unusable(format!("{item}: the separator is comma, semicolon, tab, pipe or blank"))),
    }
}

/// Thousandths of requests that a record stands for, where so many thousandths of a percent are there.
pub(super) fn weight_of_rate(rate: i64) -> Option<i64> {
    Some(rounded(ALL_MILLI_PERCENT * 1_000, rate)).filter(|weight| *weight != 1_000)
}

fn sample_weight(item: &str, rate: &str) -> Result<Option<i64>, Reject> {
    let rate = decimal(rate.strip_suffix('%').unwrap_or(rate), 3);
    let Some(rate) = rate.filter(|rate| (1..=ALL_MILLI_PERCENT).contains(rate)) else {
        return Err(unusable(format!(
            "{item}: the rate is above 0 and at most 100; write e.g. sample=10%"
        )));
    };
    Ok(weight_of_rate(rate))
}

/// A column without a name is one that nothing reads.
fn columns(item: &str, list: &str) -> Result<Vec<String>, Reject> {
    let names: Vec<&str> = list.split(',').take(COLUMNS_MAX + 1).collect();
    if names.len() > COLUMNS_MAX {
        return Err(unusable(format!("the columns of the field map are more than {COLUMNS_MAX}")));
    }
    let name = |name: &&str| if name.is_empty() { Ok(String::new()) } else { decoded(item, name) };
    names.iter().map(name).collect()
}

fn unit<'a>(item: &str, field: &Field, theirs: &'a str) -> Result<(&'a str, Unit), Reject> {
    let Some((name, unit)) = theirs.rsplit_once(':') else {
        let is_time = matches!(field, Field::Time | Field::Start);
        return Ok((theirs, if is_time { Unit::AnyTime } else { Unit::Plain }));
    };
    let units = field.units();
    if let Some((_, unit)) = units.iter().find(|(known, _)| *known == unit) {
        return Ok((name, *unit));
    }
    let known: Vec<&str> = units.iter().map(|(known, _)| *known).collect();
    let detail = match known.is_empty() {
        true => format!("{item}: this field has no unit; write %3A for a \":\" in a name"),
        false => format!("{item}: the unit {unit} is not known here; use one of {}", known.join(", ")),
    };
    Err(unusable(detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_map_gives_the_map() {
        let text = "  layout=csv\tseparator=tab columns=ts,Client%20IP,,a%2Cb time=ts:epoch_ms client_address=Client%20IP ext.x=a%2Cb ";
        let map = FieldMap::new(text).unwrap();
        assert_eq!(
            map.as_text(),
            "layout=csv separator=tab columns=ts,Client%20IP,,a%2Cb time=ts:epoch_ms client_address=Client%20IP ext.x=a%2Cb"
        );
        assert_eq!(FieldMap::new(map.as_text()), Ok(map.clone()));
        assert_eq!(map.readers, [vec![0], vec![1], vec![], vec![2]]);
        assert!(!map.needs_header());
    }

    #[test]
    fn the_maps_of_the_documentation_can_be_used() {
        let docs = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cdn-logs.md"));
        let blocks: Vec<&str> = docs
            .split("\nfields:\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .collect();
        assert_eq!(blocks.len(), 2);
        for block in blocks {
            let items = block.lines().filter_map(|line| line.trim().strip_prefix("- "));
            let items: Vec<&str> = items.filter_map(|item| item.split_whitespace().next()).collect();
            assert!(items.len() >= 5 && FieldMap::new(&items.join(" ")).is_ok(), "{items:?}");
        }
        for (name, _) in FIELDS {
            assert!(docs.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn every_field_has_its_name_once() {
        for (place, (name, field)) in FIELDS.iter().enumerate() {
            assert_eq!(Field::parse(name).as_ref(), Some(field));
            assert!(
                FIELDS[place + 1..].iter().all(|(other, also)| other != name && also != field),
                "{name}"
            );
        }
    }

    #[test]
    fn a_header_line_becomes_a_part_of_the_map() {
        let map = FieldMap::new("layout=csv separator=semicolon columns=header time=When status=HTTP%3A%20code").unwrap();
        assert!(map.needs_header());
        let bound = map.with_header("\u{feff}\"When\"; HTTP: code;Köln\r").unwrap();
        let text = "layout=csv separator=semicolon time=When status=HTTP%3A%20code columns=When,HTTP%3A%20code,K%C3%B6ln";
        assert_eq!(bound.as_text(), text);
        assert_eq!(FieldMap::new(text), Ok(bound.clone()));
        assert!(bound.is_header("When;\"HTTP: code\";Köln"));
        assert!(!bound.is_header("When;HTTP: code"));
        assert!(!bound.is_header("2023-11-14T22:13:20Z;200;x"));
        assert!(map.with_header("a;b;c").unwrap_err().detail.contains("names no field"));
        assert!(map.with_header("\"When").is_err());
    }

    #[test]
    fn a_map_that_cannot_be_used_is_refused_with_a_remedy() {
        let check = |text: &str, expected: &str| {
            let refused = FieldMap::new(text).unwrap_err();
            assert_eq!(refused.reason, RejectReason::MissingFields);
            assert!(refused.detail.contains(expected), "{text}: {}", refused.detail);
        };
        check("", "names no time");
        check("date=d status=code", "names no time");
        check("time", "has no \"=\"");
        check("time=ts clock=x", "no field of ours is named clock");
        check("time=ts time=tt", "twice");
        check("time=ts:ms", "use one of iso8601, epoch_s");
        check("time=ts time_taken=t:epoch_s", "use one of s, ms, us, ns");
        check("time=ts status=code:bytes", "%3A");
        check("time=", "names nothing");
        check("time=%FF", "names nothing");
        check("time=ts layout=xml", "ndjson or csv");
        check("time=ts layout=csv separator=,", "comma, semicolon, tab");
        check("time=ts columns=ts", "for layout=csv");
        check("time=ts sample=0", "above 0");
        check("time=ts sample=101%", "at most 100");
        check("time=ts ext.Bad=x", "no field of ours");
        check("time=a.b.c.d.e.f.g.h.i", "levels deep");
        check(&format!("time=ts {}", "x".repeat(MAP_BYTES_MAX)), "longer than");
    }
}
