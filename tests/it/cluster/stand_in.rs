//! A stand-in for Arroyo: relayed silver out of its topics, window results into theirs.
//!
//! It reads what the relays have published, puts it into a lake of its own, has **our own runner** compute the shipped
//! pipelines over it, and writes the rows as Arroyo writes them. So it proves the way from silver through the topics to
//! the collector's gold, and that the union of several lakes' rows gives what one lake gives. It proves nothing of
//! Arroyo: not that it plans these texts, nor that it computes the same (`tests/it/arroyo.rs` does, with a binary).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::ReaderBuilder;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use playhead::builtin::PIPELINES;
use playhead::clock::SystemClock;
use playhead::lake::place::Place;
use playhead::lake::tables::fixed_tables;
use playhead::lake::{Commit, Lake};
use playhead::rollup::Rollup;
use playhead::rollup::again::Extent;
use playhead::sql::pipeline::parse_all;
use serde_json::Value;

use crate::collect::Writer;
use crate::relay::{VIEWS, published};
use crate::services::Service;
use crate::support::Bench;

const MEMORY_BYTES: usize = 512 << 20;
/// What Arroyo's text would be named by; here there is one.
const TEXT: &str = "0123456789abcdef";

/// Computes everything that was relayed, and publishes the windows that end by `until_s`. Gives the rows by table.
pub fn compute(broker: &Service, tables: &[String], until_s: i64) -> BTreeMap<String, usize> {
    let bench = Bench::new();
    let rows = relayed(broker);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("threads can be started").block_on(roll_up(&bench, rows));
    let mut counts = BTreeMap::new();
    let writer = Writer::new(broker, "stand-in");
    for table in tables {
        let query = format!("SELECT * FROM gold.{table} WHERE window_end <= to_timestamp({until_s}) ORDER BY window_start");
        let records: Vec<(String, String)> = bench.sql(&query).into_iter().map(result).collect();
        writer.write(&format!("playhead.gold.{table}"), &records, true);
        counts.insert(table.clone(), records.len());
    }
    counts
}

/// A row as Arroyo writes it: the columns of the SELECT, bytes as base64, its window as key, and the text that made it.
fn result(mut row: Value) -> (String, String) {
    let columns = row.as_object_mut().expect("a row is an object");
    for ours in ["event_date", "pipeline_hash", "silver_versions", "is_final"] {
        columns.remove(ours);
    }
    for (name, value) in columns.iter_mut() {
        if let (true, Some(hex)) = (name.ends_with("_sketch"), value.as_str()) {
            *value = Value::from(base64_of(hex));
        }
    }
    let key = columns["window_start"].as_str().expect("a time").to_string();
    columns.insert("playhead_window".to_string(), Value::from(key.as_str()));
    columns.insert("playhead_text".to_string(), Value::from(TEXT));
    (key, row.to_string())
}

fn base64_of(hex: &str) -> String {
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16).expect("a digit")).expect("small"))
        .collect();
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    BASE64_STANDARD.encode(bytes)
}

/// Rows by silver table; a session is relayed under each of its times, and is one row.
fn relayed(broker: &Service) -> BTreeMap<&'static str, Vec<Value>> {
    let mut rows: BTreeMap<&'static str, BTreeMap<String, Value>> = BTreeMap::new();
    for (view, table, _, _) in VIEWS {
        for (number, (_, _, _, row)) in published(broker, &format!("playhead.silver.{view}")).into_iter().enumerate() {
            let name = match table {
                "silver.playback_sessions" => format!("{} {}", row["session_id"], row["started_at"]),
                _ => format!("{view} {number}"),
            };
            rows.entry(table).or_default().insert(name, row);
        }
    }
    rows.into_iter()
        .map(|(table, rows)| (table, rows.into_values().collect()))
        .collect()
}

async fn roll_up(bench: &Bench, rows: BTreeMap<&'static str, Vec<Value>>) {
    let place = Place::folder(&bench.lake()).expect("a plain path");
    let lake = Arc::new(Lake::open(place, Arc::new(SystemClock)).await.expect("a new lake"));
    for (table, rows) in rows {
        let batch = decoded(table, rows);
        lake.append(table, vec![batch], Commit::default()).await.expect("the rows fit");
    }
    let files: Vec<(String, String)> = PIPELINES.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
    let pipelines = parse_all(&files).expect("shipped pipelines are sound");
    let mut rollup = Rollup::open(Arc::clone(&lake), pipelines, 0, MEMORY_BYTES)
        .await
        .expect("gold can be made");
    rollup.run(None, Extent::Everything).await.expect("gold can be computed");
    lake.give_back().await;
}

fn decoded(table: &str, mut rows: Vec<Value>) -> RecordBatch {
    let spec = fixed_tables().into_iter().find(|spec| spec.name == table).expect("a table");
    // Maps have no type in Arroyo and are not relayed; no pipeline reads one.
    let is_map = |field: &&Arc<Field>| matches!(field.data_type(), DataType::Map(..));
    for map in spec.schema.fields().iter().filter(is_map) {
        for row in &mut rows {
            row[map.name()] = Value::Object(serde_json::Map::new());
        }
    }
    // Nor have dates: the day is that of the row's own time.
    let (_, _, time, _) = VIEWS.iter().find(|(_, of, ..)| *of == table).expect("it is relayed");
    for row in &mut rows {
        let day = row[time].as_str().and_then(|time| time.get(..10)).map(str::to_owned);
        row["event_date"] = Value::from(day.expect("a time begins with its day"));
    }
    let fields: Vec<Field> = spec
        .schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    let reader = ReaderBuilder::new(Arc::new(Schema::new(fields))).with_batch_size(rows.len().max(1));
    let mut decoder = reader.build_decoder().expect("every column can be read");
    decoder.serialize(&rows).expect("the rows are of the table");
    decoder.flush().expect("the rows are of the table").expect("there are some")
}
