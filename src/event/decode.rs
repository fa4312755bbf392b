//! Bytes of one record into a `PlayerEvent` or a `CdnRequest`, or a `Reject` with its reason.
//!
//! Stands first in the walk of an event: a source hands lines in, `enrich` takes events out. Each
//! dialect has a file below this one; what they share is in `text`.
//!
//! Invariant: any bytes give an event, a reject or nothing; never a panic.
//! Invariant: a reject's detail holds field names, counts and offsets, never what a record says.
//! Invariant: the payload is the line as received, byte for byte, without its line end.

pub mod body;
mod cdn;
pub mod cmcd;
mod detect;
mod epas;
mod format;
mod ivs;
mod layout;
mod reading;
mod reference;
pub mod spooled;
mod text;
pub mod written;

use super::{CdnRequest, PlayerEvent, Reject, RejectReason};
use cdn::cloudfront::{json, real_time, standard};
use cdn::{akamai, cdn_json, cloudflare, cmcd_in_log, combined, fastly, generic, media_cdn, report};
use layout::Layout;
use spooled::Unspooled;
use text::{reject, without_bom, without_line_end};

pub use detect::{detect, detect_record};
pub use format::{Format, Kind};
pub use layout::{check_fields, names_columns};

/// Longest record, bytes: three hundred times an ordinary one, and small enough to hold many.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// The byte order mark as UTF-8 has it.
const BOM: &[u8] = b"\xef\xbb\xbf";
/// Deepest nesting of a JSON record: players send one or two levels.
pub const NESTING_MAX: usize = 32;

/// What a line turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    Player(Box<PlayerEvent>),
    Cdn(Box<CdnRequest>),
    /// A line of the receiver's spool: an event that was anonymised already, or a refusal.
    Spooled(Unspooled),
    /// A blank line, a comment or a header: no record, and counted as none.
    Nothing,
}

/// What a decoder is told about the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeContext {
    /// The receiver's time, epoch ms, for the bound on times in the future.
    pub now_ms: i64,
}

/// Decodes the lines of one file, in order: a CloudFront header holds for the lines after it. A source may
/// hand in such a line of its own, `#Fields: ...`, for every format that has a layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoder {
    format: Format,
    layout: Layout,
}

impl Decoder {
    pub fn new(format: Format) -> Decoder {
        let layout = Layout::Absent;
        Decoder { format, layout }
    }

    /// A decoder in the middle of a file, for a record out of bronze, or for a format whose records do not
    /// name their fields: `fields` is the list that is in force, as `fields()` gave it or as the settings
    /// have it. A list that cannot be used counts as none (`check_fields` says why).
    pub fn with_fields(format: Format, fields: Option<&str>) -> Decoder {
        let layout = fields.and_then(|fields| Layout::of(format, fields).ok());
        Decoder {
            format,
            layout: layout.unwrap_or(Layout::Absent),
        }
    }

    /// The field list in force, on one line.
    pub fn fields(&self) -> Option<&str> {
        self.layout.text()
    }

    /// One line, with or without its line end.
    ///
    /// Errors: the record cannot be used, for the reason given; the decoder stays usable.
    pub fn decode(&mut self, line: &[u8], context: &DecodeContext) -> Result<Decoded, Reject> {
        let line = without_line_end(line);
        if line.trim_ascii().is_empty() {
            return Ok(Decoded::Nothing);
        }
        match self.format {
            Format::Reference | Format::Ivs | Format::Epas | Format::Cmcd => {
                let event = decode_player(self.format, readable(line)?, context)?;
                return Ok(Decoded::Player(event));
            }
            Format::CmcdLog => return Ok(Decoded::Player(report::decode(readable(line)?, context)?)),
            Format::Spooled => return Ok(Decoded::Spooled(spooled::decode(readable(line)?)?)),
            _ => {}
        }
        let is_header = match self.format {
            Format::CloudFrontV1 | Format::CloudFrontRealTime => self.takes_comment(line)?,
            // A source that knows its layout says it so; in the records themselves such a line is data.
            Format::GenericJson | Format::GenericCsv if self.layout == Layout::Absent => self.takes_comment(line)?,
            Format::GenericCsv => self.takes_names(readable(line)?)?,
            _ => false,
        };
        if is_header {
            return Ok(Decoded::Nothing);
        }
        let mut request = self.decode_request(readable(line)?, context)?;
        cmcd_in_log::settle(&mut request);
        Ok(Decoded::Cdn(request))
    }

    fn decode_request(&self, line: &str, context: &DecodeContext) -> Result<Box<CdnRequest>, Reject> {
        let request = match (self.format, &self.layout) {
            (Format::CloudFrontV2, _) => return json::decode(line, context),
            (Format::CloudFrontRealTime, Layout::RealTime(list)) => return real_time::decode(line, Some(list), context),
            (Format::CloudFrontRealTime, _) => return real_time::decode(line, None, context),
            (Format::Akamai, _) => akamai::decode(line, context),
            (Format::Fastly, _) => fastly::decode(line, context),
            (Format::Cloudflare, _) => cloudflare::decode(line, context),
            (Format::GoogleMediaCdn, _) => media_cdn::decode(line, context),
            (Format::Combined, _) => combined::decode(line, context),
            (Format::CdnJson, _) => cdn_json::decode(line, context),
            (_, Layout::Mapped(map)) => generic::decode(line, map, context),
            (Format::GenericJson | Format::GenericCsv, _) => Err(reject(
                RejectReason::MissingFields,
                "the format has no names of its own; give the source a field map",
            )),
            (_, Layout::W3c(layout)) => return standard::decode(line, Some(layout), context),
            _ => return standard::decode(line, None, context),
        };
        request.map(Box::new)
    }

    /// True for the line of a CSV that names its columns, the first or a repeated one.
    fn takes_names(&mut self, line: &str) -> Result<bool, Reject> {
        let Layout::Mapped(map) = &mut self.layout else {
            return Ok(false);
        };
        if !map.needs_header() {
            return Ok(map.is_header(line));
        }
        *map = map.with_header(line)?;
        Ok(true)
    }

    /// True for a line of a W3C header. A comment changes nothing. A `#Fields` line takes effect, or, if it
    /// cannot be used, ends the old one: records bound to a list that no longer holds would be wrong in silence.
    fn takes_comment(&mut self, line: &[u8]) -> Result<bool, Reject> {
        if !line.strip_prefix(BOM).unwrap_or(line).starts_with(b"#") {
            return Ok(false);
        }
        let Some(list) = standard::field_list(without_bom(readable_start(line))) else {
            return Ok(true);
        };
        self.layout = Layout::Absent;
        readable(line)?;
        self.layout = Layout::of(self.format, list)?;
        Ok(true)
    }
}

/// One record of a player dialect. Where its own dialect refuses it and another knows it, the other
/// one reads it: players of several kinds share a topic or a file.
fn decode_player(format: Format, record: &str, context: &DecodeContext) -> Result<Box<PlayerEvent>, Reject> {
    let refused = match decode_as(format, record, context) {
        Ok(event) => return Ok(event),
        Err(refused) => refused,
    };
    match detect_record(record.as_bytes()) {
        Some(other) if other != format => decode_as(other, record, context),
        _ => Err(refused),
    }
}

fn decode_as(format: Format, record: &str, context: &DecodeContext) -> Result<Box<PlayerEvent>, Reject> {
    match format {
        Format::Ivs => ivs::decode(record, context).map(Box::new),
        Format::Epas => epas::decode(record, context).map(Box::new),
        Format::Cmcd => cmcd::decode_event(record, context),
        _ => reference::decode(record, context).map(Box::new),
    }
}

/// The text up to the first byte that is not UTF-8: the last line may be cut inside a character.
fn readable_start(line: &[u8]) -> &str {
    match line.utf8_chunks().next() {
        Some(chunk) => chunk.valid(),
        None => "",
    }
}

/// The line as text, within the bound on its size.
fn readable(line: &[u8]) -> Result<&str, Reject> {
    if line.len() > RECORD_BYTES_MAX {
        let detail = format!("{} bytes long, at most {RECORD_BYTES_MAX} are accepted", line.len());
        return Err(reject(RejectReason::TooLarge, detail));
    }
    std::str::from_utf8(line).map_err(|error| {
        let detail = format!("not UTF-8 at byte {}", error.valid_up_to());
        reject(RejectReason::NotUtf8, detail)
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_600_000_000_000 };
    const PLAYER_LINES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_player.ndjson"));
    const CDN_LINES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_cdn.ndjson"));
    const CDN_ROW: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_cdn_v1_row.tsv"));
    const HOSTILE_LINES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/hostile.ndjson"));
    const SHORT_FIELDS: &str = "date time c-ip x-forwarded-for cs(User-Agent) time-taken";

    fn outcome(format: Format, line: &[u8]) -> String {
        match Decoder::new(format).decode(line, &CONTEXT) {
            Ok(Decoded::Nothing) => "nothing".to_owned(),
            Ok(Decoded::Player(event)) => event.kind.map_or("no kind", |kind| kind.as_str()).to_owned(),
            Ok(Decoded::Cdn(_)) => "cdn".to_owned(),
            Ok(Decoded::Spooled(_)) => "spooled".to_owned(),
            Err(reject) => reject.reason.as_str().to_owned(),
        }
    }

    #[test]
    fn names_of_formats_read_back() {
        for format in Format::ALL {
            assert_eq!(Format::parse(format.as_str()), Some(format));
        }
        assert_eq!(Format::parse("Reference"), None);
        assert_eq!(Format::Reference.table(), Kind::Player);
        assert_eq!(Format::CloudFrontV1.table(), Kind::Cdn);
        assert_eq!(Format::CdnJson.table(), Kind::Cdn);
        let players = Format::ALL.into_iter().filter(|format| format.table() == Kind::Player);
        assert_eq!(players.count(), 6);
    }

    #[test]
    fn a_layout_of_the_settings_is_checked_and_carried_on_one_line() {
        let check = |format: Format, fields: &str, expected: Result<Option<&str>, RejectReason>| {
            let checked = check_fields(format, fields).map_err(|reject| reject.reason);
            assert_eq!(checked, expected.map(|_| ()), "{fields}");
            let decoder = Decoder::with_fields(format, Some(fields));
            assert_eq!(decoder.fields(), expected.unwrap_or_default(), "{fields}");
            assert_eq!(Decoder::with_fields(format, decoder.fields()), decoder);
        };
        let real_time = Format::CloudFrontRealTime;
        check(real_time, "timestamp, c-ip @sample=5%", Ok(Some("timestamp c-ip @sample=5%")));
        check(real_time, "c-ip", Err(RejectReason::MissingFields));
        check(real_time, "timestamp @sample=0", Err(RejectReason::MissingFields));
        check(Format::GenericJson, "time=ts status=code", Ok(Some("time=ts status=code")));
        check(Format::GenericJson, "status=code", Err(RejectReason::MissingFields));
        check(Format::CloudFrontV1, "date time", Ok(Some("date time")));
        check(Format::Fastly, "anything", Ok(None));
        assert_eq!(outcome(real_time, b"1588752000\t203.0.113.7"), "missing_fields");
        assert_eq!(outcome(Format::GenericJson, b"{}"), "missing_fields");
    }

    #[test]
    fn a_header_that_the_source_hands_in_is_the_layout() {
        for (format, header, fields) in [
            (Format::CloudFrontV1, "#Fields: date time", "date time"),
            (
                Format::CloudFrontRealTime,
                "#Fields: timestamp c-ip @sample=10%",
                "timestamp c-ip @sample=10%",
            ),
            (Format::GenericJson, "#Fields: time=ts", "time=ts"),
            (
                Format::GenericCsv,
                "#Fields: layout=csv columns=ts time=ts",
                "layout=csv columns=ts time=ts",
            ),
        ] {
            let mut decoder = Decoder::new(format);
            assert_eq!(decoder.decode(header.as_bytes(), &CONTEXT), Ok(Decoded::Nothing));
            assert_eq!(decoder.fields(), Some(fields));
        }
        let mut mapped = Decoder::with_fields(Format::GenericJson, Some("time=ts"));
        assert!(mapped.decode(b"#Fields: time=other", &CONTEXT).is_err());
        assert_eq!(mapped.fields(), Some("time=ts"));
    }

    #[test]
    fn a_csv_names_its_columns_once_or_again() {
        let mut decoder = Decoder::with_fields(Format::GenericCsv, Some("layout=csv columns=header time=ts:epoch_s status=code"));
        let mut read = |line: &str| match decoder.decode(line.as_bytes(), &CONTEXT) {
            Ok(Decoded::Cdn(request)) => (request.status, decoder.fields().map(str::to_owned)),
            other => (None, Some(format!("{other:?}"))),
        };
        assert_eq!(read("ts,code\n"), (None, Some("Ok(Nothing)".to_owned())));
        let (status, fields) = read("1588752000,206\n");
        assert_eq!(status, Some(206));
        assert_eq!(read("ts,code\n"), (None, Some("Ok(Nothing)".to_owned())));
        let mut resumed = Decoder::with_fields(Format::GenericCsv, fields.as_deref());
        assert!(matches!(resumed.decode(b"1588752000,200", &CONTEXT), Ok(Decoded::Cdn(request)) if request.status == Some(200)));
    }

    #[test]
    fn every_format_of_a_cdn_gives_the_players_report_and_takes_it_out_of_the_query() {
        let query = "t=1&CMCD=bl%3D0%2Cbs%2Csid%3D%22s%22";
        let line = |frame: &str| frame.replace('@', query);
        let check = |format: Format, fields: Option<&str>, frame: &str| {
            let decoded = Decoder::with_fields(format, fields).decode(line(frame).as_bytes(), &CONTEXT);
            let Ok(Decoded::Cdn(request)) = decoded else {
                panic!("{format:?}: {decoded:?}");
            };
            assert_eq!(
                (request.uri_stem.as_deref(), request.uri_query.as_deref()),
                (Some("/a/1.ts"), Some("t=1")),
                "{format:?}"
            );
            let event = request.player_event.unwrap_or_else(|| panic!("{format:?}"));
            assert_eq!(
                (event.native_session_id.as_deref(), event.stall_flag),
                (Some("s"), Some(true)),
                "{format:?}"
            );
            assert_eq!((event.source, event.cdn.is_some()), ("cmcd1_log", true), "{format:?}");
        };
        check(
            Format::CloudFrontV1,
            Some("date time cs-uri-stem cs-uri-query"),
            "2020-05-06\t08:00:00\t/a/1.ts\t@",
        );
        check(
            Format::CloudFrontV2,
            None,
            "{\"timestamp\":\"1588752000\",\"cs-uri-stem\":\"/a/1.ts\",\"cs-uri-query\":\"@\"}",
        );
        check(Format::CloudFrontRealTime, Some("timestamp cs-uri-stem"), "1588752000.1\t/a/1.ts?@");
        check(
            Format::Akamai,
            None,
            "{\"reqTimeSec\":\"1588752000.068\",\"reqPath\":\"a/1.ts\",\"queryStr\":\"@\"}",
        );
        check(
            Format::Fastly,
            None,
            "{\"playhead_fastly\":1,\"start_ms\":1588752000068,\"url\":\"/a/1.ts?@\"}",
        );
        check(
            Format::Cloudflare,
            None,
            "{\"EdgeStartTimestamp\":1588752000,\"RayID\":\"1\",\"ClientRequestURI\":\"/a/1.ts?@\"}",
        );
        check(
            Format::GoogleMediaCdn,
            None,
            "{\"timestamp\":\"2020-05-06T08:00:00Z\",\"httpRequest\":{\"requestUrl\":\"https://m.example/a/1.ts?@\"}}",
        );
        check(
            Format::Combined,
            None,
            "203.0.113.7 - - [06/May/2020:08:00:00 +0000] \"GET /a/1.ts?@ HTTP/1.1\" 200 5 \"-\" \"-\"",
        );
        check(
            Format::GenericJson,
            Some("time=ts:epoch_s url=u"),
            "{\"ts\":1588752000,\"u\":\"/a/1.ts?@\"}",
        );
        check(
            Format::GenericCsv,
            Some("layout=csv columns=ts,u time=ts:epoch_s url=u"),
            "1588752000,/a/1.ts?@",
        );
        check(
            Format::CdnJson,
            None,
            "{\"logdate\":\"2020-05-06\",\"logtime\":\"08:00:00\",\"cdn_source\":\"x\",\"uri\":\"/a/1.ts\",\"querystring\":\"@\"}",
        );
    }

    #[test]
    fn blank_lines_and_headers_are_no_records() {
        for format in Format::ALL {
            for line in [&b""[..], b"\n", b"\r\n", b"  \t \r\n"] {
                assert_eq!(outcome(format, line), "nothing", "{format:?}");
            }
        }
        assert_eq!(outcome(Format::CloudFrontV1, b"#Version: 1.0\r\n"), "nothing");
        assert_eq!(outcome(Format::Reference, b"#Version: 1.0\r\n"), "malformed_json");
    }

    #[test]
    fn the_hostile_lines_have_these_outcomes() {
        let outcomes: Vec<String> = HOSTILE_LINES
            .split('\n')
            .map(|line| outcome(Format::Reference, line.as_bytes()))
            .collect();
        let expected = [
            "malformed_json",
            "custom",
            "playback_request",
            "heartbeat",
            "event_time_out_of_range",
            "not_an_object",
            "nothing",
            "nothing",
        ];
        assert_eq!(outcomes, expected);
    }

    #[test]
    fn what_cannot_be_read_is_rejected_with_its_place_and_without_its_content() {
        let check = |format: Format, line: &[u8], reason: RejectReason, detail: &str| {
            let reject = Decoder::new(format).decode(line, &CONTEXT).unwrap_err();
            assert_eq!((reject.reason, reject.detail.as_str()), (reason, detail));
        };
        check(
            Format::Reference,
            b"{\"user_id\":\"secret",
            RejectReason::MalformedJson,
            "the JSON ends early, at column 18; the record was cut",
        );
        check(
            Format::Reference,
            b"{\"user_id\":secret}",
            RejectReason::MalformedJson,
            "the line is not JSON at column 12",
        );
        check(
            Format::CdnJson,
            b"\"secret\"",
            RejectReason::NotAnObject,
            "the line is JSON but not an object; send one object a line",
        );
        check(Format::Reference, b"{\"a\":\"\xff\"}", RejectReason::NotUtf8, "not UTF-8 at byte 6");
        check(
            Format::CloudFrontV1,
            b"2020-05-06\t08:00:00\t\xff",
            RejectReason::NotUtf8,
            "not UTF-8 at byte 20",
        );
        check(
            Format::CloudFrontV1,
            b"2020-05-06\t08:00:00\tLHR50-C1\t1370422",
            RejectReason::MissingFields,
            "no #Fields line came before this record, and it has not the columns of the standard log; add the line to the file",
        );
        check(
            Format::Reference,
            b"{\"user_id\":\"secret\"} secret",
            RejectReason::MalformedJson,
            "the line is not JSON at column 22",
        );
    }

    #[test]
    fn a_record_of_exactly_the_bound_is_read_and_one_byte_more_is_not() {
        let record = |bytes: usize| {
            let frame = r#"{"MetricType":"PLAY","TimeStamp":1588752000000,"x":""}"#.len();
            let filler = "x".repeat(bytes - frame);
            format!(r#"{{"MetricType":"PLAY","TimeStamp":1588752000000,"x":"{filler}"}}"#)
        };
        assert_eq!(outcome(Format::Reference, record(RECORD_BYTES_MAX).as_bytes()), "playback_request");
        assert_eq!(outcome(Format::Reference, record(RECORD_BYTES_MAX + 1).as_bytes()), "too_large");
    }

    #[test]
    fn nesting_is_bounded_and_brackets_in_texts_do_not_nest() {
        let record = |value: String| format!(r#"{{"MetricType":"PLAY","TimeStamp":1588752000000,"x":{value}}}"#);
        let nested = |levels: usize| record(format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
        let check = |line: String, expected: &str| {
            assert_eq!(outcome(Format::Reference, line.as_bytes()), expected, "{line}");
        };
        check(nested(NESTING_MAX - 1), "playback_request");
        check(nested(NESTING_MAX), "too_deep");
        check(nested(100_000), "too_deep");
        let deepest = format!("{}{}", "[".repeat(NESTING_MAX - 1), "]".repeat(NESTING_MAX - 1));
        check(record(format!("{deepest},\"y\":[]")), "playback_request");
        check(record(format!("\"\\\"{}\"", "[".repeat(100))), "playback_request");
        check(record(format!("[{}1]", "[1],".repeat(100))), "playback_request");
        check("[".repeat(100_000), "too_deep");
    }

    #[test]
    fn a_decoder_resumed_in_the_middle_of_a_file_goes_on_alike() {
        let header = "#Fields: date time x-edge-location sc-bytes\r\n";
        let row = "2020-05-06\t08:00:00\tLHR50-C1\t5\r\n";
        let mut whole = Decoder::new(Format::CloudFrontV1);
        assert_eq!(whole.decode(header.as_bytes(), &CONTEXT), Ok(Decoded::Nothing));
        assert_eq!(whole.fields(), Some("date time x-edge-location sc-bytes"));

        let mut resumed = Decoder::with_fields(Format::CloudFrontV1, whole.fields());
        assert_eq!(resumed, whole);
        let decoded = resumed.decode(row.as_bytes(), &CONTEXT);
        assert!(matches!(&decoded, Ok(Decoded::Cdn(request)) if request.sc_bytes == Some(5)));
        assert_eq!(decoded, whole.decode(row.as_bytes(), &CONTEXT));

        assert_eq!(Decoder::with_fields(Format::Reference, Some("date time")).fields(), None);
        assert_eq!(Decoder::with_fields(Format::CloudFrontV1, Some(" ")).fields(), None);
    }

    #[test]
    fn a_field_list_that_cannot_be_used_ends_the_old_one() {
        let fresh = || Decoder::with_fields(Format::CloudFrontV1, Some("date time"));
        let too_many = format!("#Fields: {}", "column ".repeat(1000));
        let too_long = format!("#Fields: {}", "c".repeat(RECORD_BYTES_MAX));
        for (header, expected) in [
            (&b"#Fields:\n"[..], None),
            (b"#Fields: date\xff time", Some(RejectReason::NotUtf8)),
            (too_many.as_bytes(), Some(RejectReason::MissingFields)),
            (too_long.as_bytes(), Some(RejectReason::TooLarge)),
        ] {
            let mut decoder = fresh();
            let reason = decoder.decode(header, &CONTEXT).err().map(|reject| reject.reason);
            assert_eq!((reason, decoder.fields()), (expected, None));
        }
        let mut decoder = fresh();
        assert_eq!(decoder.decode(b"#Software: \xff", &CONTEXT), Ok(Decoded::Nothing));
        assert_eq!(decoder.fields(), Some("date time"));
    }

    /// What must hold for any line of any format.
    fn check_any_line(line: &[u8]) {
        detect(line);
        let laid_out = [
            (Format::CloudFrontV1, SHORT_FIELDS),
            (Format::CloudFrontRealTime, "timestamp c-ip cs-uri-stem x-forwarded-for @sample=5%"),
            (Format::GenericCsv, "layout=csv columns=header time=logdate"),
            (Format::GenericJson, "time=TimeStamp:epoch_ms uri_stem=uri"),
        ];
        let laid_out = laid_out.map(|(format, fields)| Decoder::with_fields(format, Some(fields)));
        let decoders = Format::ALL.map(Decoder::new).into_iter().chain(laid_out);
        for mut decoder in decoders {
            let twin = decoder.clone().decode(line, &CONTEXT);
            let decoded = decoder.decode(line, &CONTEXT);
            assert_eq!(decoded, twin);
            let received = without_line_end(line);
            match decoded {
                Ok(Decoded::Player(event)) => {
                    assert_eq!(event.payload.as_bytes(), received);
                    let mut end = 0;
                    for (span, _) in &event.identity_spans {
                        assert!(span.start >= end && event.payload.get(span.clone()).is_some());
                        end = span.end;
                    }
                    assert!(event.ext.len() <= text::EXT_KEYS_MAX);
                    assert!(event.ext.is_sorted_by(|left, right| left.0 < right.0));
                }
                Ok(Decoded::Cdn(request)) => assert_eq!(request.payload.as_bytes(), received),
                Ok(Decoded::Nothing | Decoded::Spooled(_)) => {}
                Err(reject) => {
                    for secret in ["us-west-2", "5f2c7b1e", "203.0.113", "2001:db8", "198.51.100", "Mozilla"] {
                        assert!(!reject.detail.contains(secret), "{}", reject.detail);
                    }
                }
            }
        }
    }

    /// A line of the fixtures with some bytes replaced, inserted or deleted, and perhaps cut.
    fn mutated_line() -> impl Strategy<Value = Vec<u8>> {
        let lines: Vec<&str> = [PLAYER_LINES, CDN_LINES, CDN_ROW, HOSTILE_LINES]
            .iter()
            .flat_map(|file| file.split_inclusive('\n'))
            .collect();
        let bytes = prop_oneof![any::<u8>(), proptest::sample::select(b"\"\\{}[],:\t\n\r-.0e ".to_vec())];
        let edits = vec((any::<prop::sample::Index>(), bytes, 0..4u8), 0..8);
        (proptest::sample::select(lines), edits).prop_map(|(line, edits)| {
            let mut line = line.as_bytes().to_vec();
            for (place, byte, edit) in edits {
                if line.is_empty() {
                    break;
                }
                let place = place.index(line.len());
                match edit {
                    0 => line[place] = byte,
                    1 => line.insert(place, byte),
                    2 => drop(line.remove(place)),
                    _ => line.truncate(line.len().min(place + line.len() / 2)),
                }
            }
            line
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_survived(line in vec(any::<u8>(), 0..600)) {
            check_any_line(&line);
        }

        #[test]
        fn any_damaged_record_is_survived(line in mutated_line()) {
            check_any_line(&line);
        }

        #[test]
        fn any_object_is_survived(
            members in vec((r#"(MetricType|TimeStamp|at|fps|user_id|duration|logdate|bytes|rtt|x|"|\\u00e4)"#,
                r#"(null|true|-?[0-9]{1,25}(\.[0-9]{1,4})?(e[0-9]{1,3})?|"[ -~]{0,9}"|\[1\]|\{\}|"\\ud800")"#), 0..12),
        ) {
            let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            check_any_line(format!("{{{}}}", members.join(",")).as_bytes());
        }
    }
}
