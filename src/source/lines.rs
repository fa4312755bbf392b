//! Lines out of a stream of bytes: bounded records with the place of each, whatever the reads look like.
//!
//! What the files source and the objects source share: telling the codec, unpacking, splitting, and
//! what a head says. First step of the walk; a line is handed over as it stood.
//!
//! Invariant: a part never holds more than its limits plus one record, and a record that is too large
//! is skipped without being held, its length kept.
//! Invariant: offsets count unpacked bytes, so the same stream gives the same lines from any line start.

use std::io::{BufRead, BufReader, Read};

use super::{BatchLimits, Line, Part};
use crate::event::decode::RECORD_BYTES_MAX;

/// How much is read from a stream at once.
pub const CHUNK_BYTES: usize = 1 << 20;
/// How much of a stream's head is looked at for its format: a few records of the largest usual size.
pub const HEAD_BYTES: usize = 64 << 10;
/// A batch is put together from parts of this share of it, so that streams alternate within a batch.
const PARTS_PER_BATCH: usize = 8;

/// How the bytes of a file or object are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Plain,
    Gzip,
    Zstd,
}

impl Codec {
    /// By magic number, not by name: rotated and re-packed files keep wrong endings.
    pub fn of(magic: &[u8]) -> Codec {
        match magic {
            [0x1f, 0x8b, ..] => Codec::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::Zstd,
            _ => Codec::Plain,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Codec::Plain => "plain",
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
        }
    }

    /// Unpacks a stream from its start.
    ///
    /// # Errors
    /// The unpacker cannot be set up.
    pub fn unpack<R: BufRead + Send + 'static>(self, packed: R) -> std::io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Codec::Plain => Box::new(packed),
            Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Codec::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        })
    }
}

/// What the last line means if no line end follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLine {
    /// More may be written to it: it waits.
    Waits,
    /// It counts if it could be a whole record: a JSON line that lacks its end may still be written to.
    EndsIfWhole,
    /// The stream is complete: it is a record, sound or not.
    Ends,
}

/// The share of a batch that one part may fill.
pub fn share_of(limits: BatchLimits) -> BatchLimits {
    BatchLimits {
        bytes: (limits.bytes / PARTS_PER_BATCH).max(RECORD_BYTES_MAX),
        records: limits.records.div_ceil(PARTS_PER_BATCH),
    }
}

/// The first line that is neither blank nor a comment.
pub fn first_record(head: &[u8]) -> Option<&[u8]> {
    head.split(|byte| *byte == b'\n')
        .find(|line| !line.trim_ascii().is_empty() && !line.starts_with(b"#"))
}

/// Splits a head into what binds the columns of the records and the rest of it: comment lines (`#Fields`),
/// which the rest begins with again, or the line that names the columns of a CSV. A line without its end
/// names nothing yet, and no record follows it.
pub fn split_header(head: &[u8], names_columns: bool) -> (&[u8], &[u8]) {
    if !names_columns {
        let lines = head.split_inclusive(|byte| *byte == b'\n');
        let length = lines.take_while(|line| line.starts_with(b"#")).map(<[u8]>::len).sum();
        return (&head[..length], head);
    }
    let blank = head.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    match memchr::memchr(b'\n', &head[blank..]) {
        Some(end) => head.split_at(blank + end + 1),
        None => (&[], &[]),
    }
}

/// The newest `#Fields` line of a part, which binds the columns of what follows; looked for in logs that open
/// with one.
pub fn last_field_list(part: &Part) -> Option<&[u8]> {
    let lines = part.lines.iter().rev().map(|line| &part.buffer[line.start..line.end]);
    lines.take_while(|_| part.header.starts_with(b"#")).find(|line| is_field_list(line))
}

/// The newest `#Fields` line of a stream.
///
/// # Errors
/// The stream breaks.
pub fn newest_field_list(stream: impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut stream = BufReader::with_capacity(CHUNK_BYTES, stream);
    let (mut newest, mut line, mut is_start) = (None, Vec::new(), true);
    while stream.by_ref().take(RECORD_BYTES_MAX as u64).read_until(b'\n', &mut line)? > 0 {
        if is_start && is_field_list(&line) {
            newest = Some(line.clone());
        }
        is_start = line.ends_with(b"\n");
        line.clear();
    }
    Ok(newest)
}

fn is_field_list(line: &[u8]) -> bool {
    const START: &[u8] = b"#fields:";
    line.get(..START.len()).is_some_and(|start| start.eq_ignore_ascii_case(START))
}

/// Reads over the first bytes of an unpacked stream.
///
/// # Errors
/// The stream breaks before its place.
pub fn skip(reader: &mut dyn Read, bytes: u64) -> std::io::Result<()> {
    std::io::copy(&mut reader.take(bytes), &mut std::io::sink()).map(drop)
}

/// Splits an unpacked stream into parts.
pub struct LineReader {
    reader: Box<dyn Read + Send>,
    /// Bytes read and not yet handed over: the start of an unfinished line.
    rest: Vec<u8>,
    /// Bytes of a record that is too large, read and forgotten.
    skipping_bytes: i64,
    /// An error that waits until the lines before it are handed over.
    broken: Option<std::io::Error>,
}

/// Where the splitting of a part's buffer stands.
struct Cut {
    line_start: usize,
    searched: usize,
}

impl LineReader {
    /// The reader stands at the start of a line.
    pub fn new(reader: Box<dyn Read + Send>) -> LineReader {
        LineReader {
            reader,
            rest: Vec::new(),
            skipping_bytes: 0,
            broken: None,
        }
    }

    /// Bytes that were read and belong to a line whose end was not seen.
    pub fn unfinished_bytes(&self) -> u64 {
        self.skipping_bytes.unsigned_abs() + self.rest.len() as u64
    }

    /// Fills an empty part whose `from` and `to` are where the reader stands.
    ///
    /// # Errors
    /// The stream broke and no line came before the break; lines before it go out first.
    pub fn read_part(&mut self, part: &mut Part, limits: BatchLimits, last_line: LastLine) -> std::io::Result<()> {
        part.buffer.reserve(limits.bytes.min(CHUNK_BYTES * 2));
        part.buffer.append(&mut self.rest);
        let mut cut = Cut {
            line_start: 0,
            searched: 0,
        };
        loop {
            self.take_lines(part, &mut cut, limits.records);
            if part.lines.len() >= limits.records || cut.line_start >= limits.bytes {
                break;
            }
            self.forget_oversized(part, &mut cut);
            if !self.read_more(part)? {
                break;
            }
        }
        if part.finished && self.last_line_counts(part, &cut, last_line) {
            let end = part.buffer.len();
            self.push_line(part, cut.line_start, end, 0);
            cut.line_start = end;
        }
        self.rest = part.buffer.split_off(cut.line_start);
        Ok(())
    }

    fn take_lines(&mut self, part: &mut Part, cut: &mut Cut, records_max: usize) {
        while part.lines.len() < records_max {
            let Some(at) = memchr::memchr(b'\n', &part.buffer[cut.searched..]) else {
                cut.searched = part.buffer.len();
                return;
            };
            let end = cut.searched + at;
            self.push_line(part, cut.line_start, end, 1);
            cut.line_start = end + 1;
            cut.searched = end + 1;
        }
    }

    /// Adds the line at `start..end` of the buffer; `line_end_bytes` is 1 if a line feed follows.
    fn push_line(&mut self, part: &mut Part, start: usize, end: usize, line_end_bytes: i64) {
        let length = i64::try_from(end - start).unwrap_or(i64::MAX) + self.skipping_bytes;
        let oversized = std::mem::take(&mut self.skipping_bytes) > 0;
        part.lines.push(Line {
            offset: part.to,
            start,
            end: if oversized { start } else { end },
            attributes: (0, 0),
            oversized_bytes: oversized.then_some(length),
        });
        part.to += length + line_end_bytes;
    }

    /// A record is too large whatever follows: forget its bytes, keep its length.
    fn forget_oversized(&mut self, part: &mut Part, cut: &mut Cut) {
        let unfinished = part.buffer.len() - cut.line_start;
        if unfinished > RECORD_BYTES_MAX {
            self.skipping_bytes += i64::try_from(unfinished).unwrap_or(i64::MAX);
            part.buffer.truncate(cut.line_start);
            cut.searched = cut.line_start;
        }
    }

    /// `false`: the part ends here, because the stream does or because it broke.
    fn read_more(&mut self, part: &mut Part) -> std::io::Result<bool> {
        let before = part.buffer.len();
        let read = match self.broken.take() {
            Some(error) => Err(error),
            None => self.reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut part.buffer),
        };
        match read {
            Ok(0) => part.finished = true,
            Ok(_) => return Ok(true),
            // What came before the error counts: first its whole lines go out, then the error.
            Err(error) if part.buffer.len() > before => {
                self.broken = Some(error);
                return Ok(true);
            }
            Err(error) if part.lines.is_empty() => return Err(error),
            Err(error) => self.broken = Some(error),
        }
        Ok(false)
    }

    fn last_line_counts(&self, part: &Part, cut: &Cut, last_line: LastLine) -> bool {
        let line = part.buffer[cut.line_start..].trim_ascii();
        let has_rest = cut.line_start < part.buffer.len() || self.skipping_bytes > 0;
        has_rest
            && match last_line {
                LastLine::Waits => false,
                LastLine::EndsIfWhole => !line.starts_with(b"{") || line.ends_with(b"}"),
                LastLine::Ends => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::contract::part;

    /// Gives a few bytes a read, so that lines are cut anywhere, and may break at its end.
    struct Drip {
        bytes: Vec<u8>,
        at: usize,
        step: usize,
        breaks: bool,
    }

    impl Read for Drip {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let left = &self.bytes[self.at..];
            if left.is_empty() && std::mem::take(&mut self.breaks) {
                return Err(std::io::Error::other("cut off"));
            }
            let length = left.len().min(self.step).min(into.len());
            into[..length].copy_from_slice(&left[..length]);
            self.at += length;
            Ok(length)
        }
    }

    fn reader(bytes: &[u8], step: usize, breaks: bool) -> LineReader {
        LineReader::new(Box::new(Drip {
            bytes: bytes.to_vec(),
            at: 0,
            step,
            breaks,
        }))
    }

    const WIDE: BatchLimits = BatchLimits {
        bytes: 4 << 20,
        records: 1_000,
    };

    /// Every line with its offset, over as many parts as it takes.
    fn lines(mut reader: LineReader, limits: BatchLimits, last_line: LastLine) -> (Vec<(i64, String)>, Option<String>) {
        let mut all = Vec::new();
        let mut at = 0;
        loop {
            let mut part = part("p", at, &[]);
            if let Err(error) = reader.read_part(&mut part, limits, last_line) {
                return (all, Some(error.to_string()));
            }
            assert!(part.lines.len() <= limits.records);
            let text = |line: &Line| match line.oversized_bytes {
                Some(bytes) => format!("oversized {bytes}"),
                None => String::from_utf8_lossy(&part.buffer[line.start..line.end]).into_owned(),
            };
            all.extend(part.lines.iter().map(|line| (line.offset, text(line))));
            at = part.to;
            if part.finished {
                return (all, None);
            }
        }
    }

    fn check(input: &str, last_line: LastLine, expected: &[(i64, &str)]) {
        let expected: Vec<(i64, String)> = expected.iter().map(|(offset, line)| (*offset, (*line).to_string())).collect();
        for step in [1, 3, 1 << 20] {
            for records in [1, 2, 1_000] {
                let limits = BatchLimits { records, ..WIDE };
                let (got, error) = lines(reader(input.as_bytes(), step, false), limits, last_line);
                assert_eq!(
                    (got, error),
                    (expected.clone(), None),
                    "{input:?}, reads of {step}, {records} records"
                );
            }
        }
    }

    #[test]
    fn lines_keep_their_offsets_however_they_are_read() {
        check("", LastLine::Ends, &[]);
        check("a\nbc\n", LastLine::Waits, &[(0, "a"), (2, "bc")]);
        check("\n\nx\n", LastLine::Ends, &[(0, ""), (1, ""), (2, "x")]);
        check("a\r\nb\n", LastLine::Ends, &[(0, "a\r"), (3, "b")]);
    }

    #[test]
    fn an_unfinished_last_line_counts_as_it_is_told() {
        check("a\n{\"x\":1", LastLine::Waits, &[(0, "a")]);
        check("a\n{\"x\":1", LastLine::EndsIfWhole, &[(0, "a")]);
        check("a\n{\"x\":1}", LastLine::EndsIfWhole, &[(0, "a"), (2, "{\"x\":1}")]);
        check("a\n{\"x\":1", LastLine::Ends, &[(0, "a"), (2, "{\"x\":1")]);
    }

    #[test]
    fn a_record_that_is_too_large_leaves_its_length_and_not_its_bytes() {
        let large = 3 * RECORD_BYTES_MAX;
        let input = format!("a\n{}\nb\n", "x".repeat(large));
        let told = format!("oversized {large}");
        let after = 2 + i64::try_from(large).expect("small") + 1;
        check(&input, LastLine::Ends, &[(0, "a"), (2, &told), (after, "b")]);
        check(&input[..input.len() - 3], LastLine::Ends, &[(0, "a"), (2, &told)]);
    }

    #[test]
    fn what_came_before_a_break_is_handed_over_first() {
        let (got, error) = lines(reader(b"a\nb\nhalf", 2, true), WIDE, LastLine::Ends);
        assert_eq!(got, [(0, "a".to_string()), (2, "b".to_string())]);
        assert_eq!(error.as_deref(), Some("cut off"));
    }

    #[test]
    fn packed_streams_are_told_by_their_first_bytes() {
        let text = b"#Fields: a b\n1\t2\n";
        let gzip = {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, text).expect("in memory");
            encoder.finish().expect("in memory")
        };
        let zstd = zstd::encode_all(&text[..], 1).expect("in memory");
        for (packed, codec) in [(text.to_vec(), Codec::Plain), (gzip, Codec::Gzip), (zstd, Codec::Zstd)] {
            assert_eq!(Codec::of(&packed), codec);
            let mut unpacked = Vec::new();
            let mut reader = codec.unpack(std::io::Cursor::new(packed)).expect("readable");
            reader.read_to_end(&mut unpacked).expect("sound");
            assert_eq!(unpacked, text);
        }
        assert_eq!(split_header(text, false), (&b"#Fields: a b\n"[..], &text[..]));
        assert_eq!(first_record(text), Some(&b"1\t2"[..]));
    }
}
