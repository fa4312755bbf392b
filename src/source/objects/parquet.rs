//! Rows of a Parquet object as lines of JSON.
//!
//! Serves the objects source. A line's offset is the row's number, which no version of a writer of JSON
//! can move; rows before a start are skipped, whole row groups of them without being fetched.
//!
//! Invariant: one row group is held at a time, as it is stored, and some rows of it unpacked.

use std::io::{Cursor, Error, Result};
use std::ops::Range;
use std::sync::Arc;

use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};

use crate::event::decode::RECORD_BYTES_MAX;
use crate::source::{BatchLimits, Line, Part};

/// How much of the object's end is fetched to find its columns: more than most footers have.
const FOOTER_BYTES: u64 = 64 << 10;
/// Largest row group that is held, as stored: writers make them of 128 MiB.
const GROUP_BYTES_MAX: u64 = 256 << 20;
/// Rows that are unpacked at once.
const BATCH_ROWS: usize = 128;

/// Gives a range of the object's bytes.
pub type Fetch<'a> = &'a dyn Fn(Range<u64>) -> Result<Bytes>;

/// Reads the rows of one object in order.
pub struct RowReader<'a> {
    fetch: Fetch<'a>,
    size_bytes: u64,
    metadata: ArrowReaderMetadata,
    next_group: usize,
    /// Rows of the next group that were read before.
    skipped_rows: usize,
    batches: Option<ParquetRecordBatchReader>,
    /// Lines that wait, and how far they were handed over.
    text: Vec<u8>,
    text_at: usize,
    /// An error that waits until the rows before it are handed over.
    broken: Option<Error>,
}

impl<'a> RowReader<'a> {
    /// Opens an object at a row.
    ///
    /// # Errors
    /// The object cannot be fetched, or has no sound footer.
    pub fn open(fetch: Fetch<'a>, size_bytes: u64, row: i64) -> Result<RowReader<'a>> {
        let metadata = footer(fetch, size_bytes)?;
        let mut skipped_rows = usize::try_from(row).unwrap_or(0);
        let mut next_group = 0;
        for group in metadata.row_groups() {
            let rows = usize::try_from(group.num_rows()).unwrap_or(0);
            if skipped_rows < rows {
                break;
            }
            skipped_rows -= rows;
            next_group += 1;
        }
        Ok(RowReader {
            fetch,
            size_bytes,
            metadata: ArrowReaderMetadata::try_new(Arc::new(metadata), Default::default()).map_err(Error::other)?,
            next_group,
            skipped_rows,
            batches: None,
            text: Vec::new(),
            text_at: 0,
            broken: None,
        })
    }

    /// Fills an empty part whose `from` and `to` are the row where the reader stands.
    ///
    /// # Errors
    /// The object cannot be fetched, or is damaged, and no row came before; rows before go out first.
    pub fn read_part(&mut self, part: &mut Part, limits: BatchLimits) -> Result<()> {
        while part.lines.len() < limits.records && part.buffer.len() < limits.bytes {
            if self.hand_over_line(part) {
                continue;
            }
            let rendered = match self.broken.take() {
                Some(error) => Err(error),
                None => self.render_more(),
            };
            match rendered {
                Ok(true) => {}
                Ok(false) => {
                    part.finished = true;
                    break;
                }
                Err(error) if part.lines.is_empty() => return Err(error),
                Err(error) => {
                    self.broken = Some(error);
                    break;
                }
            }
        }
        Ok(())
    }

    fn hand_over_line(&mut self, part: &mut Part) -> bool {
        let waiting = &self.text[self.text_at..];
        let Some(length) = memchr::memchr(b'\n', waiting) else {
            return false;
        };
        let is_oversized = length > RECORD_BYTES_MAX;
        let start = part.buffer.len();
        if !is_oversized {
            part.buffer.extend_from_slice(&waiting[..length]);
        }
        part.lines.push(Line {
            offset: part.to,
            start,
            end: part.buffer.len(),
            attributes: (0, 0),
            oversized_bytes: is_oversized.then(|| i64::try_from(length).unwrap_or(i64::MAX)),
        });
        part.to += 1;
        self.text_at += length + 1;
        true
    }

    /// `false`: there are no more rows.
    fn render_more(&mut self) -> Result<bool> {
        self.text.clear();
        self.text_at = 0;
        loop {
            let Some(batches) = &mut self.batches else {
                if !self.open_group()? {
                    return Ok(false);
                }
                continue;
            };
            match batches.next() {
                Some(Ok(batch)) => {
                    let mut writer = LineDelimitedWriter::new(&mut self.text);
                    writer.write(&batch).and_then(|()| writer.finish()).map_err(Error::other)?;
                    return Ok(true);
                }
                Some(Err(error)) => return Err(Error::other(error)),
                None => self.batches = None,
            }
        }
    }

    fn open_group(&mut self) -> Result<bool> {
        let groups = self.metadata.metadata().num_row_groups();
        if self.next_group >= groups {
            return Ok(false);
        }
        let range = bytes_of(self.metadata.metadata().row_group(self.next_group), self.size_bytes)?;
        let window = Window {
            start: range.start,
            bytes: (self.fetch)(range)?,
            size_bytes: self.size_bytes,
        };
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(window, self.metadata.clone())
            .with_row_groups(vec![self.next_group])
            .with_offset(std::mem::take(&mut self.skipped_rows))
            .with_batch_size(BATCH_ROWS)
            .build();
        self.next_group += 1;
        self.batches = Some(batches.map_err(Error::other)?);
        Ok(true)
    }
}

fn footer(fetch: Fetch<'_>, size_bytes: u64) -> Result<ParquetMetaData> {
    let mut wanted = FOOTER_BYTES.min(size_bytes);
    loop {
        let end = fetch(size_bytes - wanted..size_bytes)?;
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&end, size_bytes) {
            Ok(()) => return reader.finish().map_err(Error::other),
            Err(ParquetError::NeedMoreData(needed)) if needed as u64 > wanted && needed as u64 <= size_bytes.min(GROUP_BYTES_MAX) => {
                wanted = needed as u64;
            }
            Err(error) => return Err(Error::other(error)),
        }
    }
}

/// The span of the object that holds a row group's columns.
fn bytes_of(group: &RowGroupMetaData, size_bytes: u64) -> Result<Range<u64>> {
    let columns = || group.columns().iter().map(|column| column.byte_range());
    let start = columns().map(|(start, _)| start).min().unwrap_or(0);
    let end = columns().map(|(start, length)| start.saturating_add(length)).max().unwrap_or(0);
    if end > size_bytes || start > end {
        return Err(Error::other("a row group lies outside of the object"));
    }
    if end - start > GROUP_BYTES_MAX {
        let text = format!("a row group has {} bytes, the most is {GROUP_BYTES_MAX}", end - start);
        return Err(Error::other(text));
    }
    Ok(start..end)
}

/// The fetched part of an object, under the offsets of the whole.
struct Window {
    start: u64,
    bytes: Bytes,
    size_bytes: u64,
}

impl Window {
    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let at = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        match at.filter(|at| *at <= self.bytes.len()) {
            Some(at) => Ok(self.bytes.slice(at..)),
            None => Err(ParquetError::EOF("a page lies outside of its row group".to_string())),
        }
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.size_bytes
    }
}

impl ChunkReader for Window {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Cursor<Bytes>> {
        self.from(start).map(Cursor::new)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF("a page lies outside of its row group".to_string()));
        }
        Ok(bytes.slice(..length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::contract::part;
    use std::cell::RefCell;

    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;

    const WIDE: BatchLimits = BatchLimits {
        bytes: 4 << 20,
        records: 1_000,
    };

    /// Rows in groups of 100, numbered, each with a text.
    fn object(rows: i64, text: &str) -> Bytes {
        let fields = vec![Field::new("n", DataType::Int64, false), Field::new("text", DataType::Utf8, true)];
        let schema = Arc::new(Schema::new(fields));
        let texts = (0..rows).map(|row| (row % 3 != 0).then_some(text));
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(0..rows)),
            Arc::new(StringArray::from_iter(texts)),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("columns fit");
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(100))
            .set_compression(Compression::SNAPPY)
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).expect("in memory");
        writer.write(&batch).expect("in memory");
        writer.into_inner().expect("in memory").into()
    }

    fn rows(object: &Bytes, from: i64, limits: BatchLimits) -> Result<Vec<(i64, String)>> {
        let fetch = |range: Range<u64>| Ok(object.slice(range.start as usize..range.end as usize));
        let mut reader = RowReader::open(&fetch, object.len() as u64, from)?;
        let mut all = Vec::new();
        let mut at = from;
        loop {
            let mut part = part("p", at, &[]);
            reader.read_part(&mut part, limits)?;
            for line in &part.lines {
                let text = String::from_utf8_lossy(&part.buffer[line.start..line.end]).into_owned();
                all.push((line.offset, line.oversized_bytes.map_or(text, |bytes| format!("oversized {bytes}"))));
            }
            at = part.to;
            if part.finished {
                return Ok(all);
            }
        }
    }

    #[test]
    fn rows_become_lines_numbered_by_row() {
        let got = rows(&object(250, "a\nb"), 0, WIDE).expect("sound");
        assert_eq!(got.len(), 250);
        assert_eq!(got[0], (0, r#"{"n":0}"#.to_string()));
        assert_eq!(got[100], (100, r#"{"n":100,"text":"a\nb"}"#.to_string()));
        assert_eq!(
            got,
            rows(&object(250, "a\nb"), 0, BatchLimits { records: 7, ..WIDE }).expect("sound")
        );
        assert_eq!(rows(&object(0, ""), 0, WIDE).expect("sound"), []);
    }

    #[test]
    fn reading_goes_on_at_a_row_wherever_it_stands() {
        let object = object(250, "x");
        let all = rows(&object, 0, WIDE).expect("sound");
        for from in [1, 99, 100, 101, 249, 250] {
            let got = rows(&object, from, WIDE).expect("sound");
            assert_eq!(got, all[usize::try_from(from).expect("small")..], "from {from}");
        }
    }

    #[test]
    fn row_groups_before_the_start_are_not_fetched() {
        let object = object(250, "x");
        let fetched = RefCell::new(Vec::new());
        let fetch = |range: Range<u64>| {
            fetched.borrow_mut().push(range.clone());
            Ok(object.slice(range.start as usize..range.end as usize))
        };
        let mut reader = RowReader::open(&fetch, object.len() as u64, 230).expect("sound");
        reader.read_part(&mut part("p", 230, &[]), WIDE).expect("sound");
        assert_eq!(fetched.borrow().len(), 2, "the footer and one group");
    }

    #[test]
    fn a_row_that_is_too_large_leaves_its_length() {
        let got = rows(&object(2, &"x".repeat(RECORD_BYTES_MAX)), 0, WIDE).expect("sound");
        assert_eq!(
            got[1],
            (1, format!("oversized {}", RECORD_BYTES_MAX + r#"{"n":1,"text":""}"#.len()))
        );
    }

    #[test]
    fn a_damaged_object_is_an_error_wherever_it_is_damaged() {
        let sound = object(250, "some text");
        for cut in [4, 20, sound.len() / 2, sound.len() - 1] {
            assert!(rows(&sound.slice(..cut), 0, WIDE).is_err(), "cut at {cut}");
        }
        let mut damaged = sound.to_vec();
        damaged[10..200].fill(0xff);
        assert!(rows(&damaged.into(), 0, WIDE).is_err());
    }
}
