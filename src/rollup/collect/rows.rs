//! Results as rows: JSON records of a gold topic in the columns of its table, or why not.
//!
//! Records are read together; only where one of them is no good is each looked at alone, to say which and why.
//!
//! Invariant: a record is a row or a complaint, never neither; a complaint holds no part of the record.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::arroyo::{MADE_BY, WINDOW_KEY};
use crate::event::{Reject, RejectReason};

const MINUTE_US: i64 = 60_000_000;
/// A row is some kilobytes; what is longer is none.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Years before it are a clock's default, not a time (2010-01-01).
const EARLIEST_US: i64 = 1_262_304_000_000_000;
/// A window this far ahead of the machine's clock is nobody's: it would hold back all others.
const AHEAD_MAX_US: i64 = 86_400_000_000;

/// What the rows of one table look like.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Columns of the SELECT, and behind them the two that tell where a row belongs.
    pub wire: SchemaRef,
    window_us: i64,
    slide_us: i64,
}

impl Shape {
    pub fn new(selected: &SchemaRef, window_minutes: i64, slide_minutes: i64) -> Shape {
        let own = [WINDOW_KEY, MADE_BY].map(|name| Arc::new(Field::new(name, DataType::Utf8, true)));
        let fields: Vec<Arc<Field>> = selected.fields().iter().cloned().chain(own).collect();
        Shape {
            wire: Arc::new(Schema::new(fields)),
            window_us: window_minutes * MINUTE_US,
            slide_us: slide_minutes * MINUTE_US,
        }
    }

    /// The rows of these records, in their order, and the complaints: each with the place in the list of its record.
    ///
    /// # Errors
    /// None that a record causes.
    pub fn read(&self, records: &[Option<&[u8]>], now_ms: i64) -> Result<Read, ArrowError> {
        let mut complaints = Vec::new();
        let mut sound = Vec::new();
        for (at, record) in records.iter().enumerate() {
            match object(*record) {
                Ok(bytes) => sound.push((at, bytes)),
                Err(reject) => complaints.push((at, reject)),
            }
        }
        let bytes: Vec<&[u8]> = sound.iter().map(|(_, bytes)| *bytes).collect();
        let (batch, places) = match self.decode(&bytes) {
            Ok(batch) => (batch, sound.iter().map(|(at, _)| *at).collect()),
            Err(_) => self.decode_each(&sound, &mut complaints)?,
        };
        let mut is_kept = Vec::with_capacity(places.len());
        for (row, at) in places.into_iter().enumerate() {
            let complaint = self.complaint(&batch, row, now_ms);
            is_kept.push(complaint.is_none());
            complaints.extend(complaint.map(|reject| (at, reject)));
        }
        complaints.sort_by_key(|(at, _)| *at);
        Ok(Read {
            batch: arrow::compute::filter_record_batch(&batch, &is_kept.into())?,
            complaints,
        })
    }

    fn decode(&self, records: &[&[u8]]) -> Result<RecordBatch, ArrowError> {
        decode(&self.wire, records)
    }

    /// Each record alone: those that are no good get their reason.
    fn decode_each(
        &self,
        sound: &[(usize, &[u8])],
        complaints: &mut Vec<(usize, Reject)>,
    ) -> Result<(RecordBatch, Vec<usize>), ArrowError> {
        let (mut batches, mut places) = (Vec::new(), Vec::new());
        for (at, bytes) in sound {
            match self.decode(&[bytes]) {
                Ok(batch) => {
                    batches.push(batch);
                    places.push(*at);
                }
                Err(_) => complaints.push((*at, self.why_not(bytes))),
            }
        }
        Ok((concat_batches(&self.wire, &batches)?, places))
    }

    /// The first column that makes a record no row.
    fn why_not(&self, record: &[u8]) -> Reject {
        let Ok(Value::Object(columns)) = serde_json::from_slice(record) else {
            return reject(RejectReason::MalformedJson, "no JSON that can be read");
        };
        for (name, value) in columns {
            let Ok(field) = self.wire.field_with_name(&name) else {
                let what = "it has a column that the table lacks: run the collector with the pipelines that were deployed";
                return reject(RejectReason::WrongColumnCount, what);
            };
            let alone = Value::Object([(name.clone(), value)].into_iter().collect()).to_string();
            let schema = Arc::new(Schema::new(vec![field.clone()]));
            if decode(&schema, &[alone.as_bytes()]).is_err() {
                return reject(RejectReason::BadValue, &format!("column {name} is no {}", field.data_type()));
            }
        }
        reject(RejectReason::BadValue, "its columns do not make a row")
    }

    /// Why a row cannot stand in the table.
    fn complaint(&self, batch: &RecordBatch, row: usize, now_ms: i64) -> Option<Reject> {
        let time = |name: &str| {
            let times = batch[name].as_primitive::<TimestampMicrosecondType>();
            times.is_valid(row).then(|| times.value(row))
        };
        let (Some(start), Some(end)) = (time("window_start"), time("window_end")) else {
            return Some(reject(RejectReason::MissingEventTime, "no window_start or no window_end"));
        };
        if start < EARLIEST_US || start > now_ms.saturating_mul(1000).saturating_add(AHEAD_MAX_US) {
            let what = "its window is before 2010, or more than a day ahead";
            return Some(reject(RejectReason::EventTimeOutOfRange, what));
        }
        if end - start != self.window_us || start.rem_euclid(self.slide_us) != 0 {
            let what = "its window is not one of the table's: run the collector with the pipelines that were deployed";
            return Some(reject(RejectReason::BadValue, what));
        }
        None
    }
}

/// What records came to.
#[derive(Debug)]
pub struct Read {
    pub batch: RecordBatch,
    pub complaints: Vec<(usize, Reject)>,
}

/// The bytes of one JSON object.
fn object(record: Option<&[u8]>) -> Result<&[u8], Reject> {
    let Some(bytes) = record else {
        return Err(reject(RejectReason::Tombstone, "a record without a value"));
    };
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(reject(RejectReason::TooLarge, "longer than 1 MiB"));
    }
    if std::str::from_utf8(bytes).is_err() {
        return Err(reject(RejectReason::NotUtf8, "no UTF-8"));
    }
    if serde_json::from_slice::<IgnoredAny>(bytes).is_err() {
        return Err(reject(RejectReason::MalformedJson, "no JSON"));
    }
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => Ok(bytes),
        _ => Err(reject(RejectReason::NotAnObject, "JSON, but no object")),
    }
}

/// Columns that a record lacks are NULL, one that the schema lacks is an error.
fn decode(schema: &SchemaRef, records: &[&[u8]]) -> Result<RecordBatch, ArrowError> {
    let written = Arc::new(as_written(schema));
    let mut decoder = ReaderBuilder::new(Arc::clone(&written))
        .with_batch_size(records.len().max(1))
        .with_strict_mode(true)
        .build_decoder()?;
    for record in records {
        decoder.decode(record)?;
        decoder.decode(b"\n")?;
    }
    let batch = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(written));
    if batch.num_rows() != records.len() {
        return Err(ArrowError::JsonError("records and rows differ in number".to_owned()));
    }
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| match field.data_type() {
            DataType::Binary => bytes_of(column),
            _ => Ok(Arc::clone(column)),
        });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, ArrowError>>()?)
}

/// Bytes are base64 in Arroyo's JSON (its `arroyo-formats`, `BinaryEncoder`); arrow's own reader takes them for hex.
fn as_written(schema: &SchemaRef) -> Schema {
    let written = |field: &Arc<Field>| match field.data_type() {
        DataType::Binary => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        _ => Arc::clone(field),
    };
    Schema::new(schema.fields().iter().map(written).collect::<Vec<_>>())
}

fn bytes_of(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let decoded = |text: &str| {
        BASE64_STANDARD
            .decode(text)
            .map_err(|error| ArrowError::JsonError(error.to_string()))
    };
    let bytes = column.as_string::<i32>().iter().map(|text| text.map(decoded).transpose());
    Ok(Arc::new(bytes.collect::<Result<BinaryArray, ArrowError>>()?))
}

fn reject(reason: RejectReason, detail: &str) -> Reject {
    Reject {
        reason,
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::schema::timestamp_type;

    /// 2026-01-01T00:00:00Z.
    const NOW_MS: i64 = 1_767_225_600_000;

    fn shape() -> Shape {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let selected = Schema::new(vec![
            field("window_start", timestamp_type()),
            field("window_end", timestamp_type()),
            field("cdn", DataType::Utf8),
            field("requests", DataType::Int64),
            field("share", DataType::Float64),
            field("sketch", DataType::Binary),
        ]);
        Shape::new(&Arc::new(selected), 1, 1)
    }

    fn row(rest: &str) -> String {
        format!(r#"{{"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00+00:00"{rest}}}"#)
    }

    #[track_caller]
    fn check(record: Option<&str>, expected: Result<(), (RejectReason, &str)>) {
        let good = row(r#","cdn":"a""#);
        let records = [Some(good.as_bytes()), record.map(str::as_bytes), Some(good.as_bytes())];
        let read = shape().read(&records, NOW_MS).unwrap();
        match expected {
            Ok(()) => assert!(read.complaints.is_empty(), "{:?}", read.complaints),
            Err((reason, words)) => {
                let [(1, reject)] = &read.complaints[..] else {
                    panic!("{:?}", read.complaints);
                };
                assert!(reject.reason == reason && reject.detail.contains(words), "{reject:?}");
            }
        }
        assert_eq!(read.batch.num_rows() + read.complaints.len(), 3, "the others are rows");
    }

    #[test]
    fn what_arroyo_writes_is_a_row() {
        check(
            Some(&row(
                r#","cdn":"a","requests":7,"share":0.5,"sketch":"AP8=","playhead_window":"x","playhead_text":"y""#,
            )),
            Ok(()),
        );
        check(Some(&row(r#","cdn":null"#)), Ok(()));
        let read = shape()
            .read(&[Some(row(r#","sketch":"AP8=","share":3"#).as_bytes())], NOW_MS)
            .unwrap();
        assert_eq!(read.batch["sketch"].as_binary::<i32>().value(0), [0, 255]);
    }

    #[test]
    fn what_is_no_row_gets_its_reason_and_harms_no_other() {
        check(None, Err((RejectReason::Tombstone, "without a value")));
        check(Some("not json"), Err((RejectReason::MalformedJson, "JSON")));
        check(Some("[1]"), Err((RejectReason::NotAnObject, "object")));
        check(
            Some(&format!("{} {}", row(""), row(""))),
            Err((RejectReason::MalformedJson, "JSON")),
        );
        check(
            Some(&row(r#","requests":"many""#)),
            Err((RejectReason::BadValue, "requests is no Int64")),
        );
        check(
            Some(&row(r#","sketch":"0102:""#)),
            Err((RejectReason::BadValue, "sketch is no Binary")),
        );
        check(Some(&row(r#","more":1"#)), Err((RejectReason::WrongColumnCount, "the table lacks")));
        check(Some("{}"), Err((RejectReason::MissingEventTime, "window_start")));
        let long = row(&format!(r#","cdn":"{}""#, "x".repeat(RECORD_BYTES_MAX)));
        check(Some(&long), Err((RejectReason::TooLarge, "1 MiB")));
    }

    #[test]
    fn a_window_that_the_table_cannot_have_is_refused() {
        let check = |start: &str, end: &str, reason: RejectReason, words: &str| {
            let record = format!(r#"{{"window_start":"{start}","window_end":"{end}"}}"#);
            super::tests::check(Some(&record), Err((reason, words)));
        };
        let (bad, range) = (RejectReason::BadValue, RejectReason::EventTimeOutOfRange);
        check("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z", bad, "not one of the table's");
        check("2026-01-01T00:00:30Z", "2026-01-01T00:01:30Z", bad, "not one of the table's");
        check("2026-01-02T00:01:00Z", "2026-01-02T00:02:00Z", range, "ahead");
        check("2009-12-31T23:59:00Z", "2010-01-01T00:00:00Z", range, "2010");
    }
}
