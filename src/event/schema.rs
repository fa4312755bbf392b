//! Columns: what each bronze and silver table holds, in which unit, and how a row becomes Arrow.
//!
//! Stands between the vocabulary and the lake. One list a table: name, type, nullability, meaning
//! and the accessor stand on one line, so the Delta schema, `docs/tables.md` and the writer cannot
//! drift apart.
//!
//! Invariant: bronze and silver rows are built from `privacy::Anonymous` values only.
//! Invariant: changes are additive: columns are appended, never renamed, retyped or removed.

mod cdn;
mod duplicate;
mod player;
mod reject;
mod session;
mod sorted;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, ListBuilder, MapBuilder, MapFieldNames, RecordBatch,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

pub use cdn::{bronze_cdn_columns, silver_cdn_columns};
pub use duplicate::{DuplicateRow, count_duplicates, duplicate_columns};
pub use player::{bronze_player_columns, silver_player_columns};
pub use reject::{RejectRow, reject_columns};
pub use session::{interval_columns, session_columns};
pub use sorted::Sorted;

use crate::privacy::{AnonymousEvent, AnonymousRequest};

/// Milliseconds in a day; event dates are UTC days.
const DAY_MS: i64 = 86_400_000;

/// Where a stored record came from.
#[derive(Debug, Clone)]
pub struct Provenance {
    /// File path (or topic and partition) that held the record.
    pub source_partition: Arc<str>,
    /// Where in it the record stood: byte of a file, offset of a topic, number in a shard.
    pub source_offset: i64,
    /// What came beside it (a message's key and headers), as JSON, anonymous.
    pub attributes: Option<Arc<str>>,
    /// When Playhead took the record in.
    pub received_at_ms: i64,
    /// The format it was read with, so that it can be read again from bronze.
    pub format: &'static str,
}

/// A player event with its provenance: a row of `bronze.` and `silver.player_events`.
pub struct PlayerRow {
    pub event: AnonymousEvent,
    pub place: Provenance,
}

/// A CDN request with its provenance: a row of `bronze.cdn_logs` and `silver.cdn_requests`.
pub struct RequestRow {
    pub request: AnonymousRequest,
    pub place: Provenance,
}

/// How one column takes its value from a row.
pub enum Get<R> {
    Text(fn(&R) -> Option<&str>),
    /// Text that has to be made.
    Made(fn(&R) -> Option<String>),
    Int(fn(&R) -> Option<i64>),
    Real(fn(&R) -> Option<f64>),
    Flag(fn(&R) -> Option<bool>),
    /// Epoch milliseconds, stored as microseconds UTC.
    Time(fn(&R) -> Option<i64>),
    /// Epoch milliseconds, stored as the UTC day.
    Date(fn(&R) -> i64),
    Flags(fn(&R) -> &[&'static str]),
    Texts(fn(&R) -> &[String]),
    /// Texts that have to be made.
    MadeTexts(fn(&R) -> Vec<String>),
    Map(fn(&R) -> &[(String, String)]),
}

/// One column of one table.
pub struct Column<R> {
    pub name: &'static str,
    pub get: Get<R>,
    pub required: bool,
    /// What it means, with the unit.
    pub about: &'static str,
}

impl<R> Column<R> {
    const fn new(name: &'static str, about: &'static str, get: Get<R>) -> Self {
        Column {
            name,
            get,
            required: false,
            about,
        }
    }

    const fn required(name: &'static str, about: &'static str, get: Get<R>) -> Self {
        Column {
            name,
            get,
            required: true,
            about,
        }
    }

    fn data_type(&self) -> DataType {
        match self.get {
            Get::Text(_) | Get::Made(_) => DataType::Utf8,
            Get::Int(_) => DataType::Int64,
            Get::Real(_) => DataType::Float64,
            Get::Flag(_) => DataType::Boolean,
            Get::Time(_) => timestamp_type(),
            Get::Date(_) => DataType::Date32,
            Get::Flags(_) | Get::Texts(_) | Get::MadeTexts(_) => list_type(),
            Get::Map(_) => map_type(),
        }
    }
}

/// Microseconds UTC: the only time type of the lake.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn list_type() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Utf8, true)))
}

fn map_type() -> DataType {
    let entry = Field::new(
        "key_value",
        DataType::Struct(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)].into()),
        false,
    );
    DataType::Map(Arc::new(entry), false)
}

/// The Arrow schema of a column list.
pub fn arrow_schema<R>(columns: &[Column<R>]) -> SchemaRef {
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| Field::new(column.name, column.data_type(), !column.required))
        .collect();
    Arc::new(Schema::new(fields))
}

/// Rows to one record batch.
///
/// # Errors
/// Only if a required column turns out null, which is a bug in the caller.
pub fn record_batch<R>(columns: &[Column<R>], rows: &[&R]) -> Result<RecordBatch, ArrowError> {
    let arrays: Vec<ArrayRef> = columns.iter().map(|column| array(column, rows)).collect();
    RecordBatch::try_new(arrow_schema(columns), arrays)
}

fn array<R>(column: &Column<R>, rows: &[&R]) -> ArrayRef {
    match &column.get {
        Get::Text(get) => {
            let bytes = rows.iter().filter_map(|row| get(row)).map(str::len).sum();
            let mut builder = StringBuilder::with_capacity(rows.len(), bytes);
            rows.iter().for_each(|row| builder.append_option(get(row)));
            Arc::new(builder.finish())
        }
        Get::Made(get) => {
            let mut builder = StringBuilder::with_capacity(rows.len(), rows.len() * 16);
            rows.iter().for_each(|row| builder.append_option(get(row)));
            Arc::new(builder.finish())
        }
        Get::Int(get) => {
            let mut builder = Int64Builder::with_capacity(rows.len());
            rows.iter().for_each(|row| builder.append_option(get(row)));
            Arc::new(builder.finish())
        }
        Get::Real(get) => {
            let mut builder = Float64Builder::with_capacity(rows.len());
            rows.iter().for_each(|row| builder.append_option(get(row)));
            Arc::new(builder.finish())
        }
        Get::Flag(get) => {
            let mut builder = BooleanBuilder::with_capacity(rows.len());
            rows.iter().for_each(|row| builder.append_option(get(row)));
            Arc::new(builder.finish())
        }
        Get::Time(get) => {
            let mut builder = TimestampMicrosecondBuilder::with_capacity(rows.len());
            rows.iter().for_each(|row| builder.append_option(get(row).map(|ms| ms * 1000)));
            Arc::new(builder.finish().with_timezone("UTC"))
        }
        Get::Date(get) => {
            let mut builder = Date32Builder::with_capacity(rows.len());
            rows.iter().for_each(|row| builder.append_value(utc_day(get(row))));
            Arc::new(builder.finish())
        }
        Get::Flags(get) => text_lists(rows.iter().map(|row| get(row).iter().copied())),
        Get::Texts(get) => text_lists(rows.iter().map(|row| get(row).iter().map(String::as_str))),
        Get::MadeTexts(get) => {
            let made: Vec<Vec<String>> = rows.iter().map(|row| get(row)).collect();
            text_lists(made.iter().map(|list| list.iter().map(String::as_str)))
        }
        Get::Map(get) => text_maps(rows.iter().map(|row| get(row))),
    }
}

fn text_lists<'a, L>(lists: impl Iterator<Item = L>) -> ArrayRef
where
    L: Iterator<Item = &'a str>,
{
    let mut builder = ListBuilder::new(StringBuilder::new()).with_field(Arc::new(Field::new("element", DataType::Utf8, true)));
    for list in lists {
        list.for_each(|text| builder.values().append_value(text));
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn text_maps<'a>(maps: impl Iterator<Item = &'a [(String, String)]>) -> ArrayRef {
    let names = MapFieldNames {
        entry: "key_value".to_string(),
        key: "key".to_string(),
        value: "value".to_string(),
    };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for map in maps {
        for (key, value) in map {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        // Keys and values are appended in pairs above, so their lengths cannot differ.
        let _ = builder.append(true);
    }
    Arc::new(builder.finish())
}

/// UTC day number of an instant (days since 1970-01-01).
pub fn utc_day(epoch_ms: i64) -> i32 {
    i32::try_from(epoch_ms.div_euclid(DAY_MS)).unwrap_or(i32::MAX)
}
