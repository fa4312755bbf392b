//! Bytes of one record into a `PlayerEvent` or a `CdnRequest`, or a `Reject` with its reason.
//!
//! Stands first in the walk of an event: a source hands lines in, `enrich` takes events out. Each
//! dialect has a file below this one; what they share is in `text`.
//!
//! Invariant: any bytes give an event, a reject or nothing; never a panic.
//! Invariant: a reject's detail holds field names, counts and offsets, never what a record says.
//! Invariant: the payload is the line as received, byte for byte, without its line end.

pub mod body;
mod cdn_json;
mod cloudfront;
pub mod cmcd;
mod epas;
mod ivs;
mod reading;
mod reference;
pub mod spooled;
mod text;

use super::{CdnRequest, PlayerEvent, Reject, RejectReason};
use cloudfront::Layout;
use spooled::Unspooled;
use text::{reject, without_bom, without_line_end};

/// Longest record, bytes: three hundred times an ordinary one, and small enough to hold many.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of a JSON record: players send one or two levels.
pub const NESTING_MAX: usize = 32;
/// Lines that `detect` looks at: a file whose first hundred lines decide nothing is not ours.
const DETECT_LINES_MAX: usize = 100;

/// How a file's records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// The reference player's events, one JSON object a line.
    Reference,
    /// Amazon IVS player events, one JSON object a line.
    Ivs,
    /// Eyevinn player analytics (EPAS), one JSON object a line.
    Epas,
    /// CMCD version 1 or 2, one record a line.
    Cmcd,
    /// The HTTP receiver's own spool: records of any dialect, already anonymous.
    Spooled,
    /// CloudFront standard log, version 1.
    CloudFrontV1,
    /// The reference system's 12-key JSON made of a CDN log.
    CdnJson,
}

/// What a format's records become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Player,
    Cdn,
}

impl Format {
    pub const ALL: [Format; 7] = [
        Format::Reference,
        Format::Ivs,
        Format::Epas,
        Format::Cmcd,
        Format::Spooled,
        Format::CloudFrontV1,
        Format::CdnJson,
    ];

    /// The name used in settings and in bronze.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Reference => "reference",
            Format::Ivs => "ivs",
            Format::Epas => "epas",
            Format::Cmcd => "cmcd",
            Format::Spooled => "spooled",
            Format::CloudFrontV1 => "cloudfront_v1",
            Format::CdnJson => "cdn_json",
        }
    }

    pub fn parse(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.as_str() == name)
    }

    pub fn table(self) -> Kind {
        match self {
            Format::Reference | Format::Ivs | Format::Epas | Format::Cmcd | Format::Spooled => Kind::Player,
            Format::CloudFrontV1 | Format::CdnJson => Kind::Cdn,
        }
    }
}

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

/// The format of a file by its first bytes, which may end anywhere.
///
/// The first line that decides counts. `None`: nothing decides yet, so look again with more bytes,
/// or give up if there are none.
pub fn detect(head: &[u8]) -> Option<Format> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
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

/// The text up to the first byte that is not UTF-8: the last line may be cut inside a character.
fn readable_start(line: &[u8]) -> &str {
    match line.utf8_chunks().next() {
        Some(chunk) => chunk.valid(),
        None => "",
    }
}

/// A whole line must be sound JSON to decide; one that is cut here decides by the keys it still has.
fn format_of(line: &str, is_whole: bool) -> Option<Format> {
    if line.starts_with('{') {
        return object_format(line, is_whole);
    }
    if cmcd::recognises(line) {
        return Some(Format::Cmcd);
    }
    if line.starts_with("#Version:") || cloudfront::field_list(line).is_some() {
        return Some(Format::CloudFrontV1);
    }
    let (first_cell, _) = line.split_once('\t')?;
    text::is_date(first_cell).then_some(Format::CloudFrontV1)
}

fn object_format(json: &str, is_whole: bool) -> Option<Format> {
    type Recognises = fn(&str, bool) -> bool;
    let dialects: [(Format, Recognises); 4] = [
        (Format::CdnJson, cdn_json::recognises),
        (Format::Ivs, ivs::recognises),
        (Format::Epas, epas::recognises),
        (Format::Reference, reference::recognises),
    ];
    let known = dialects.into_iter().find(|(_, recognises)| recognises(json, is_whole));
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

/// Decodes the lines of one file, in order: a CloudFront header holds for the lines after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoder {
    format: Format,
    /// The `#Fields` list in force; only CloudFront logs have one.
    layout: Option<Layout>,
}

impl Decoder {
    pub fn new(format: Format) -> Decoder {
        Decoder { format, layout: None }
    }

    /// A decoder in the middle of a file, or for a record out of bronze: `fields` is the list that
    /// was in force there, as `fields()` gave it. A list that cannot be used counts as none.
    pub fn with_fields(format: Format, fields: Option<&str>) -> Decoder {
        let layout = match (format, fields) {
            (Format::CloudFrontV1, Some(fields)) => Layout::new(fields).ok().flatten(),
            _ => None,
        };
        Decoder { format, layout }
    }

    /// The `#Fields` list in force, names separated by one blank.
    pub fn fields(&self) -> Option<&str> {
        self.layout.as_ref().map(Layout::fields)
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
                Ok(Decoded::Player(event))
            }
            Format::Spooled => Ok(Decoded::Spooled(spooled::decode(readable(line)?)?)),
            Format::CdnJson => {
                let request = cdn_json::decode(readable(line)?, context)?;
                Ok(Decoded::Cdn(Box::new(request)))
            }
            Format::CloudFrontV1 => self.decode_cloudfront(line, context),
        }
    }

    fn decode_cloudfront(&mut self, line: &[u8], context: &DecodeContext) -> Result<Decoded, Reject> {
        let header = without_bom(readable_start(line));
        if header.starts_with('#') {
            self.header(header, line)?;
            return Ok(Decoded::Nothing);
        }
        let request = cloudfront::decode(readable(line)?, self.layout.as_ref(), context)?;
        Ok(Decoded::Cdn(Box::new(request)))
    }

    /// A comment changes nothing. A `#Fields` line takes effect, or, if it cannot be used, ends the
    /// old one: records bound to a list that no longer holds would be wrong in silence.
    fn header(&mut self, header: &str, line: &[u8]) -> Result<(), Reject> {
        let Some(list) = cloudfront::field_list(header) else {
            return Ok(());
        };
        self.layout = None;
        readable(line)?;
        self.layout = Layout::new(list)?;
        Ok(())
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
    }

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
        let with_fields = Decoder::with_fields(Format::CloudFrontV1, Some(SHORT_FIELDS));
        let decoders = Format::ALL.map(Decoder::new).into_iter().chain([with_fields]);
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
