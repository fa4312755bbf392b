//! One Kinesis record into the lines it holds.
//!
//! Stands between the reader and the parts: a plain record is a line or several, one that the Kinesis
//! Producer Library aggregated holds many records, and one that is gzip (CloudWatch, Firehose) is
//! expanded first. Nothing is decoded here.
//!
//! Invariant: every record gives one line at least, so that the count of lines grows with it.
//! Invariant: the same record always gives the same lines: a replay counts as the first run did.
//! Invariant: what a record may grow to is bounded; past it only its length is kept.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use md5::{Digest, Md5};
use prost::Message;
use serde::Serialize;

use crate::event::decode::RECORD_BYTES_MAX;

/// What all gzip inside one record may grow to: JSON shrinks to a tenth, so this is a record of 3 MiB.
/// What grows past it is broken or meant to harm.
const EXPANDED_BYTES_MAX: usize = 32 << 20;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Head of an aggregated record (KPL aggregation format, `aggregation-format.md`).
const AGGREGATED_MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
/// Its tail: the MD5 of the message between.
const DIGEST_BYTES: usize = 16;

/// The message of an aggregated record.
#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<UserRecord>,
}

/// One record inside; its `tags` are read over, nobody writes them.
#[derive(Clone, PartialEq, Message)]
struct UserRecord {
    #[prost(uint64, tag = "1")]
    partition_key_index: u64,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

/// What came beside a record.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Beside<'a> {
    /// A producer may leave the choice of the shard to the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_key: Option<&'a str>,
    /// Arrival at the stream, epoch ms; Amazon calls it approximate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<i64>,
    pub sequence_number: &'a str,
}

/// One line: where its bytes and its attributes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub line: (usize, usize),
    pub attributes: (usize, usize),
    pub oversized_bytes: Option<i64>,
}

/// Lines of many records, put behind one another.
#[derive(Debug, Default)]
pub struct Lines {
    /// Each line followed by a line feed.
    pub text: Vec<u8>,
    /// JSON objects.
    pub attributes: Vec<u8>,
    pub placed: Vec<Placed>,
}

impl Lines {
    pub fn bytes(&self) -> usize {
        self.text.len() + self.attributes.len()
    }

    /// Adds the lines of one record as Kinesis gives it.
    pub fn add(&mut self, data: &[u8], beside: &Beside) {
        let mut room = EXPANDED_BYTES_MAX;
        let Some(aggregated) = aggregated(data).filter(|aggregated| !aggregated.records.is_empty()) else {
            self.add_payload(data, beside, &mut room);
            return;
        };
        for record in &aggregated.records {
            let key = usize::try_from(record.partition_key_index)
                .ok()
                .and_then(|index| aggregated.partition_key_table.get(index));
            let beside = Beside {
                partition_key: key.map(String::as_str).or(beside.partition_key),
                ..*beside
            };
            self.add_payload(&record.data, &beside, &mut room);
        }
    }

    /// `room`: bytes that gzip inside the record may still grow to.
    fn add_payload(&mut self, data: &[u8], beside: &Beside, room: &mut usize) {
        let start = self.attributes.len();
        serde_json::to_writer(&mut self.attributes, beside).expect("a struct of texts and a number always becomes JSON");
        let attributes = (start, self.attributes.len());
        if !data.starts_with(&GZIP_MAGIC) {
            self.add_text(data, attributes);
            return;
        }
        match expand(data, *room) {
            Expanded::Whole(text) => {
                *room -= text.len();
                self.add_text(&text, attributes);
            }
            Expanded::TooLarge => self.add_oversized(EXPANDED_BYTES_MAX, attributes),
            // The decoder says what is wrong with it; cut at line feeds it would be wrong many times.
            Expanded::Damaged => self.add_line(data, attributes),
        }
    }

    fn add_text(&mut self, text: &[u8], attributes: (usize, usize)) {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        for line in text.split(|byte| *byte == b'\n') {
            self.add_line(line, attributes);
        }
    }

    fn add_line(&mut self, line: &[u8], attributes: (usize, usize)) {
        if line.len() > RECORD_BYTES_MAX {
            self.add_oversized(line.len(), attributes);
            return;
        }
        let start = self.text.len();
        self.text.extend_from_slice(line);
        self.placed.push(Placed {
            line: (start, self.text.len()),
            attributes,
            oversized_bytes: None,
        });
        self.text.push(b'\n');
    }

    fn add_oversized(&mut self, bytes: usize, attributes: (usize, usize)) {
        let at = self.text.len();
        self.placed.push(Placed {
            line: (at, at),
            attributes,
            oversized_bytes: Some(i64::try_from(bytes).unwrap_or(i64::MAX)),
        });
        self.text.push(b'\n');
    }
}

/// The message of an aggregated record; `None` if it is a plain one, which may begin with the same bytes.
fn aggregated(data: &[u8]) -> Option<AggregatedRecord> {
    let rest = data.strip_prefix(&AGGREGATED_MAGIC)?;
    let (message, digest) = rest.split_at_checked(rest.len().checked_sub(DIGEST_BYTES)?)?;
    if Md5::digest(message).as_slice() != digest {
        return None;
    }
    AggregatedRecord::decode(message).ok()
}

enum Expanded {
    Whole(Vec<u8>),
    TooLarge,
    Damaged,
}

fn expand(data: &[u8], room: usize) -> Expanded {
    let mut text = Vec::new();
    let read = MultiGzDecoder::new(data).take(room as u64 + 1).read_to_end(&mut text);
    match read {
        Err(_) => Expanded::Damaged,
        Ok(_) if text.len() > room => Expanded::TooLarge,
        Ok(_) => Expanded::Whole(text),
    }
}

/// Makes an aggregated record, as the producer library does.
#[cfg(test)]
pub fn aggregate(records: &[(&str, &[u8])]) -> Vec<u8> {
    let message = AggregatedRecord {
        partition_key_table: records.iter().map(|(key, _)| (*key).to_owned()).collect(),
        explicit_hash_key_table: vec![],
        records: (0..)
            .zip(records)
            .map(|(index, (_, data))| UserRecord {
                partition_key_index: index,
                explicit_hash_key_index: None,
                data: data.to_vec(),
            })
            .collect(),
    };
    let message = message.encode_to_vec();
    [&AGGREGATED_MAGIC, message.as_slice(), Md5::digest(&message).as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn lines_of(data: &[u8]) -> Lines {
        let mut lines = Lines::default();
        let beside = Beside {
            partition_key: Some("viewer-1"),
            timestamp_ms: Some(1_700_000_000_000),
            sequence_number: "4959",
        };
        lines.add(data, &beside);
        lines
    }

    fn texts(lines: &Lines) -> Vec<String> {
        let text = |placed: &Placed| String::from_utf8_lossy(&lines.text[placed.line.0..placed.line.1]).into_owned();
        lines.placed.iter().map(text).collect()
    }

    fn keys(lines: &Lines) -> Vec<String> {
        let key = |placed: &Placed| {
            let json: serde_json::Value = serde_json::from_slice(&lines.attributes[placed.attributes.0..placed.attributes.1]).unwrap();
            json["partition_key"].as_str().unwrap().to_owned()
        };
        lines.placed.iter().map(key).collect()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_plain_record_is_its_lines() {
        let check = |data: &[u8], expected: &[&str]| assert_eq!(texts(&lines_of(data)), expected);
        check(b"{\"a\":1}", &["{\"a\":1}"]);
        check(b"{\"a\":1}\n", &["{\"a\":1}"]);
        check(b"1700000000.1\t10\n1700000000.2\t20\n", &["1700000000.1\t10", "1700000000.2\t20"]);
        check(b"", &[""]);
        check(b"\n", &[""]);
    }

    #[test]
    fn attributes_say_what_came_beside() {
        let lines = lines_of(b"a\nb");
        assert_eq!(
            String::from_utf8_lossy(&lines.attributes),
            r#"{"partition_key":"viewer-1","timestamp_ms":1700000000000,"sequence_number":"4959"}"#
        );
        assert_eq!(lines.placed[0].attributes, lines.placed[1].attributes);
    }

    #[test]
    fn an_aggregated_record_is_expanded_with_the_keys_of_its_parts() {
        let lines = lines_of(&aggregate(&[("p", b"{\"a\":1}"), ("q", b"b\nc\n"), ("r", &gzip(b"d\ne\n"))]));
        assert_eq!(texts(&lines), ["{\"a\":1}", "b", "c", "d", "e"]);
        assert_eq!(keys(&lines), ["p", "q", "q", "r", "r"]);
    }

    #[test]
    fn bytes_of_another_producer_read_as_written() {
        // From the field numbers of the format: table "k" (1), one record (3) of key 0 (1) and data "x" (3).
        let message = [0x0a, 1, b'k', 0x1a, 5, 0x08, 0, 0x1a, 1, b'x'];
        let record = [&AGGREGATED_MAGIC[..], &message, Md5::digest(message).as_slice()].concat();
        let lines = lines_of(&record);
        assert_eq!((texts(&lines), keys(&lines)), (vec!["x".to_owned()], vec!["k".to_owned()]));
    }

    #[test]
    fn a_wrong_digest_or_message_makes_it_a_plain_record() {
        let mut wrong_digest = aggregate(&[("p", b"x")]);
        *wrong_digest.last_mut().unwrap() ^= 1;
        let not_a_message = [0xff, 0xff, 0xff];
        let wrong_message = [&AGGREGATED_MAGIC[..], &not_a_message, Md5::digest(not_a_message).as_slice()].concat();
        for record in [&wrong_digest[..], &wrong_message, &AGGREGATED_MAGIC, &aggregate(&[])] {
            let lines = lines_of(record);
            assert!(!lines.placed.is_empty());
            assert!(lines.text.starts_with(&AGGREGATED_MAGIC));
        }
    }

    #[test]
    fn gzip_is_expanded_within_a_bound_and_damage_stays_one_line() {
        assert_eq!(texts(&lines_of(&gzip(b"a\nb\n"))), ["a", "b"]);
        let two_members = [gzip(b"a\n"), gzip(b"b\n")].concat();
        assert_eq!(texts(&lines_of(&two_members)), ["a", "b"]);

        let bomb = gzip(&vec![b'x'; EXPANDED_BYTES_MAX + 1]);
        let lines = lines_of(&bomb);
        assert_eq!(lines.placed.len(), 1);
        assert_eq!(lines.placed[0].oversized_bytes, Some(EXPANDED_BYTES_MAX as i64));
        assert!(lines.bytes() < 200, "{}", lines.bytes());

        // Many inside one record share the room.
        let half = gzip(&[&vec![b'\n'; EXPANDED_BYTES_MAX / 2][..], b"x"].concat());
        let lines = lines_of(&aggregate(&[("p", &half), ("q", &half)]));
        assert_eq!(lines.placed.iter().filter(|placed| placed.oversized_bytes.is_some()).count(), 1);

        let whole = gzip(b"a\nb\nc\nd\n");
        let cut = &whole[..whole.len() - 6];
        let lines = lines_of(cut);
        assert_eq!((lines.placed.len(), lines.placed[0].line), (1, (0, cut.len())));
    }

    #[test]
    fn of_a_line_past_the_bound_only_its_length_is_kept() {
        let long = [&vec![b'x'; RECORD_BYTES_MAX + 1][..], b"\nshort"].concat();
        let lines = lines_of(&long);
        assert_eq!(texts(&lines), ["", "short"]);
        assert_eq!(lines.placed[0].oversized_bytes, Some(RECORD_BYTES_MAX as i64 + 1));
        assert_eq!(lines.placed[1].oversized_bytes, None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_line_at_least(head in 0..3_usize, tail in proptest::collection::vec(any::<u8>(), 0..64)) {
            let head: &[u8] = [&AGGREGATED_MAGIC[..], &GZIP_MAGIC, b""][head];
            let lines = lines_of(&[head, &tail].concat());
            prop_assert!(!lines.placed.is_empty());
        }
    }
}
