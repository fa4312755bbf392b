//! Window results that Arroyo computed: from its topics to the gold tables, each once.
//!
//! Stands where the runner stands for a table of its own: alerts, questions and upkeep see no difference. Records
//! become rows (`collect/rows`), rows of one window replace earlier ones by one rule (`collect/merge`), and the rows
//! and the positions behind them are one commit.
//!
//! ```text
//! playhead.gold.x  ->  rows or rejects  ->  merged by window  ->  gold.x with markers kafka:playhead.gold.x/0 -> offset
//! ```
//!
//! Invariant: killed anywhere and started again, every record is in the table once: positions are read from its markers.
//! Invariant: received = stored + superseded + rejected; a reject is a row of `silver.rejects` with place and reason.
//! Invariant: only tables that are Arroyo's are written; at most `ROOM` of results is in memory.

mod merge;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Date32Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use serde_json::json;

use super::owner::{Owner, note_of, owner};
use super::table_spec;
use crate::arroyo::results::{Partition, Record, Results, ResultsError, Room, Settings as Brokers, Taken};
use crate::arroyo::{MADE_BY, results_topic};
use crate::event::Reject;
use crate::event::schema::{Provenance, RejectRow, record_batch, reject_columns, utc_day};
use crate::lake::commit::conform;
use crate::lake::tables::{PARTITION_COLUMN, SILVER_REJECTS, TableSpec};
use crate::lake::{Commit, Lake, LakeError, TimeRange, Victims};
use crate::sql::pipeline::{PIPELINE_HASH, Pipeline, SILVER_VERSIONS};
use crate::sql::{MINUTE_MS, SqlError};
use crate::telemetry::metrics::{Meters, SourceCounts};
use merge::{Merged, Naming, merge};
use rows::Shape;

/// Results of one step: a row of the widest table is two kilobytes of JSON, and is held three times over.
const ROOM: Room = Room {
    records: 20_000,
    bytes: 32 << 20,
};
/// How long a step waits for the first record; what librdkafka has fetched is there at once.
const TAKE_PATIENCE: Duration = Duration::from_millis(50);
/// The format that rejects of ours name.
const FORMAT: &str = "arroyo_results";
/// The name that results have among the sources in metrics and in `ops.health_1m`.
pub const SOURCE: &str = "arroyo results";
/// The note that tells through which window end a table has come.
const THROUGH: &str = "through_ms";

/// How results are taken in.
#[derive(Clone)]
pub struct Settings {
    pub brokers: Brokers,
    /// What topics begin with.
    pub topics: String,
    /// How far event time must be past a window before it counts as complete: results of one window come in parts.
    pub settle_ms: i64,
    /// A table from which nothing has come for this long holds up no other.
    pub idle_ms: i64,
}

/// One table that is collected.
struct Table {
    name: String,
    spec: TableSpec,
    shape: Shape,
    naming: Naming,
    /// The latest window end that has come.
    through_ms: Option<i64>,
    /// When something came last, by the machine's clock.
    heard_ms: i64,
}

/// Takes results in.
pub struct Collector {
    lake: Arc<Lake>,
    tables: Vec<Table>,
    results: Results,
    settings: Settings,
    meters: Option<Meters>,
    reached_ms: Option<i64>,
    /// The tables that alerts are judged by: the others hold up nobody.
    waited_for: BTreeSet<String>,
    is_full: bool,
    /// When a step took something last, by the machine's clock.
    taken_ms: i64,
    report: Report,
}

/// What has happened since it was last asked.
#[derive(Debug, Default)]
pub struct Report {
    pub counts: SourceCounts,
    /// What is wrong with the brokers.
    pub trouble: Option<String>,
}

/// What one step did.
#[derive(Debug, Default)]
pub struct Step {
    /// Minutes in which the windows start that were written, by table.
    pub minutes: BTreeMap<String, BTreeSet<i64>>,
}

impl Collector {
    /// Takes up the tables of these pipelines that are Arroyo's; `None`: none is.
    ///
    /// # Errors
    /// A table cannot be read, or the consumer's settings are wrong.
    pub async fn open(
        lake: Arc<Lake>,
        pipelines: &[Pipeline],
        settings: Settings,
        meters: Option<Meters>,
        now_ms: i64,
    ) -> anyhow::Result<Option<Collector>> {
        let mut tables = Vec::new();
        let mut topics = Vec::new();
        for pipeline in pipelines.iter().filter(|pipeline| runs_on_arroyo(pipeline)) {
            let spec = table_spec(pipeline).await?;
            if !lake.open_existing(spec.clone()).await? || owner(&lake, pipeline).await? != Owner::Arroyo {
                continue;
            }
            topics.push(results_topic(&settings.topics, &pipeline.name));
            tables.push(Table::open(&lake, pipeline, spec, now_ms).await?);
        }
        if tables.is_empty() {
            return Ok(None);
        }
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        tracing::info!("collecting the results of {}", names.join(", "));
        Ok(Some(Collector {
            results: Results::open(&settings.brokers, topics)?,
            lake,
            tables,
            settings,
            meters,
            reached_ms: None,
            waited_for: BTreeSet::new(),
            is_full: false,
            taken_ms: now_ms,
            report: Report::default(),
        }))
    }

    /// Takes in what waits, up to `ROOM`. Brokers that are away are no error: `take_report` tells.
    ///
    /// # Errors
    /// A table cannot be read or written; then everything is to be opened anew, from where the tables stand.
    pub async fn step(&mut self, now_ms: i64) -> Result<Step, SqlError> {
        let started = self.take_up_partitions().await?;
        let results = &mut self.results;
        let taken = tokio::task::block_in_place(|| results.take(ROOM, TAKE_PATIENCE));
        let Taken { records, is_full, trouble } = taken;
        self.report.trouble = started.or(trouble).map(|error| error.to_string());
        if !records.is_empty() {
            self.taken_ms = now_ms;
        }
        let mut by_table: BTreeMap<usize, Vec<Record>> = BTreeMap::new();
        for record in records {
            by_table.entry(record.partition.topic).or_default().push(record);
        }
        self.is_full = is_full;
        let mut step = Step::default();
        for (table, records) in by_table {
            self.land(table, &records, now_ms, &mut step).await?;
        }
        self.report_standing();
        Ok(step)
    }

    /// From now on windows are complete when they are in these tables; none of them: in all.
    pub fn wait_for(&mut self, tables: BTreeSet<String>) {
        self.waited_for = tables;
    }

    /// Windows that end by then are complete, as far as can be known: epoch ms; `None`: nothing ever came.
    ///
    /// Partitions are read one after the other: until all are read to their ends, the rest of a window may wait.
    pub fn closed_ms(&mut self, now_ms: i64) -> Option<i64> {
        if self.is_catching_up(now_ms) {
            return self.reached_ms;
        }
        let settle_ms = self.settings.settle_ms;
        let speaking = self.speaking(now_ms).filter_map(|table| table.through_ms).min();
        // Where nothing comes any more, nothing is waited for.
        let latest = self.tables.iter().filter_map(|table| table.through_ms).max();
        let reached = speaking.map(|through_ms| through_ms - settle_ms).or(latest);
        let reached = reached.map(|reached_ms| reached_ms - reached_ms.rem_euclid(MINUTE_MS));
        self.reached_ms = self.reached_ms.max(reached);
        self.reached_ms
    }

    /// True while results that came before we did wait at the brokers, or more than one step takes. What cannot be had,
    /// for its broker is away, holds nothing up for long.
    pub fn is_catching_up(&self, now_ms: i64) -> bool {
        now_ms - self.taken_ms < self.settings.idle_ms && (self.is_full || self.results.is_catching_up())
    }

    /// True while results come: what has not come yet is waited for.
    pub fn is_speaking(&self, now_ms: i64) -> bool {
        self.speaking(now_ms).next().is_some()
    }

    fn speaking(&self, now_ms: i64) -> impl Iterator<Item = &Table> {
        let idle_ms = self.settings.idle_ms;
        let speaks = move |table: &&Table| table.through_ms.is_some() && now_ms - table.heard_ms < idle_ms;
        let is_any_waited_for = self.tables.iter().any(|table| self.waited_for.contains(&table.name));
        let is_waited_for = move |table: &&Table| !is_any_waited_for || self.waited_for.contains(&table.name);
        self.tables.iter().filter(speaks).filter(is_waited_for)
    }

    /// True if the last step left something for the next.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// What has happened since the last call.
    pub fn take_report(&mut self) -> Report {
        std::mem::take(&mut self.report)
    }

    /// New partitions are read from where their table stands.
    async fn take_up_partitions(&mut self) -> Result<Option<ResultsError>, LakeError> {
        let results = &mut self.results;
        let new = match tokio::task::block_in_place(|| results.new_partitions()) {
            Ok(new) => new,
            Err(error) => return Ok(Some(error)),
        };
        let mut trouble = None;
        for partition in new {
            let table = &self.tables[partition.topic].name;
            let marker = self.marker(partition);
            let from = self.lake.covered(table, &marker).await?;
            let results = &mut self.results;
            match tokio::task::block_in_place(|| results.start(partition, from)) {
                Ok(0) => {}
                Ok(lost) => tracing::error!(
                    "{table}: {lost} offsets of {marker} were deleted by the broker before they were collected; deploy the pipeline again to have \
                     its windows computed anew"
                ),
                Err(error) => trouble = Some(error),
            }
        }
        Ok(trouble)
    }

    fn marker(&self, partition: Partition) -> String {
        let table = self.tables[partition.topic].name.trim_start_matches("gold.");
        format!("kafka:{}/{}", results_topic(&self.settings.topics, table), partition.number)
    }

    /// Brings the records of one table to the lake: rejects first, then rows and positions in one commit.
    async fn land(&mut self, at: usize, records: &[Record], now_ms: i64, step: &mut Step) -> Result<(), SqlError> {
        let mut next: BTreeMap<Partition, i64> = BTreeMap::new();
        for record in records {
            next.insert(record.partition, record.offset + 1);
        }
        let covers: Vec<(String, i64)> = next.iter().map(|(partition, next)| (self.marker(*partition), *next)).collect();
        let table = &self.tables[at];
        let payloads: Vec<Option<&[u8]>> = records.iter().map(|record| record.payload.as_deref()).collect();
        let read = table
            .shape
            .read(&payloads, now_ms)
            .map_err(|source| rows_error(&table.name, source))?;
        self.land_rejects(records, &read.complaints, &covers, now_ms).await?;
        let merged = merge(&read.batch, &table.naming).map_err(|source| rows_error(&table.name, source))?;
        let through_ms = table.through_ms.max(latest_end_ms(&read.batch));
        let minutes = table.land_rows(&self.lake, &merged, covers, through_ms).await?;
        self.results.committed(next.into_iter());
        let table = &mut self.tables[at];
        if read.batch.num_rows() > 0 {
            table.through_ms = through_ms;
            table.heard_ms = now_ms;
        }
        step.minutes.entry(table.name.clone()).or_default().extend(minutes);
        self.count(at, records.len(), &merged, &read.complaints);
        Ok(())
    }

    /// Rejects land before the rows, so after a crash they may be ahead: their own markers say from where on one is new.
    async fn land_rejects(
        &self,
        records: &[Record],
        complaints: &[(usize, Reject)],
        covers: &[(String, i64)],
        now_ms: i64,
    ) -> Result<(), LakeError> {
        if complaints.is_empty() {
            return Ok(());
        }
        let mut landed: BTreeMap<&str, i64> = BTreeMap::new();
        for (marker, _) in covers {
            landed.insert(marker, self.lake.covered(SILVER_REJECTS, marker).await?.unwrap_or(0));
        }
        let mut new = Vec::new();
        for (at, reject) in complaints {
            let record = &records[*at];
            let marker = self.marker(record.partition);
            if landed.get(marker.as_str()).is_some_and(|landed| record.offset >= *landed) {
                new.push(reject_row(record, &marker, reject, now_ms));
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        if let Some(row) = new.first() {
            tracing::warn!(
                "{} records of {} were rejected, the first at offset {}: {}; they are in silver.rejects",
                new.len(),
                row.place.source_partition,
                row.place.source_offset,
                row.reject.detail
            );
        }
        let batch = record_batch(&reject_columns(), &new.iter().collect::<Vec<_>>()).map_err(|source| LakeError::Rows {
            table: SILVER_REJECTS.to_owned(),
            source,
        })?;
        let covers = covers
            .iter()
            .map(|(marker, next)| (marker.clone(), (*next).max(landed[marker.as_str()])));
        let commit = Commit {
            covers: covers.collect(),
            note: json!({"rejected": new.len()}),
        };
        self.lake.append(SILVER_REJECTS, vec![batch], commit).await?;
        Ok(())
    }

    fn count(&mut self, at: usize, received: usize, merged: &Merged, complaints: &[(usize, Reject)]) {
        let (stored, superseded) = (merged.rows.num_rows() as u64, merged.superseded as u64);
        let counts = &mut self.report.counts;
        counts.received += received as u64;
        counts.stored += stored;
        counts.duplicates += superseded;
        for (_, reject) in complaints {
            *counts.rejected.entry(reject.reason).or_default() += 1;
        }
        if let Some(meters) = &self.meters {
            meters.collected(&self.tables[at].name, stored, superseded, complaints.len() as u64);
        }
    }

    fn report_standing(&self) {
        let Some(meters) = &self.meters else { return };
        for (topic, table) in self.tables.iter().enumerate() {
            meters.collect_standing(&table.name, self.results.lag(topic), table.through_ms);
        }
    }
}

/// True for what a cluster computes: coarser tables are rolled up here, from what comes back.
pub fn runs_on_arroyo(pipeline: &Pipeline) -> bool {
    pipeline.finer.is_none() && pipeline.here_only.is_none()
}

impl Table {
    async fn open(lake: &Lake, pipeline: &Pipeline, spec: TableSpec, now_ms: i64) -> Result<Table, LakeError> {
        let name = pipeline.table();
        let selected = Pipeline::selected_schema(&spec);
        let through = lake.newest_note(&name, THROUGH).await?;
        Ok(Table {
            shape: Shape::new(&selected, pipeline.window_minutes, pipeline.slide_minutes),
            naming: Naming::new(&pipeline.dimensions(), &selected),
            through_ms: through.and_then(|note| note[THROUGH].as_i64()),
            heard_ms: now_ms,
            spec,
            name,
        })
    }

    /// Rows and positions in one commit; gives the minutes in which the windows start that it touched.
    async fn land_rows(
        &self,
        lake: &Lake,
        merged: &Merged,
        covers: Vec<(String, i64)>,
        through_ms: Option<i64>,
    ) -> Result<Vec<i64>, SqlError> {
        let mut note = note_of(Owner::Arroyo);
        note["collected"] = json!(merged.rows.num_rows());
        note[THROUGH] = json!(through_ms);
        let from: Vec<String> = covers.iter().map(|(marker, next)| format!("{marker}@{next}")).collect();
        let commit = Commit { covers, note };
        let Some((first_us, last_us)) = merged.span_us() else {
            lake.append(&self.name, Vec::new(), commit).await?;
            return Ok(Vec::new());
        };
        let rows = stored(&merged.rows, &self.spec, &from.join(",")).map_err(|source| rows_error(&self.name, source))?;
        let victims = Victims {
            range: TimeRange {
                from_ms: first_us.div_euclid(1000),
                to_ms: last_us.div_euclid(1000),
            },
            ids: None,
            is_victim: &|batch: &RecordBatch| merged.replaces(batch),
        };
        let prepared = lake.prepare_edit(&self.name, victims, vec![rows]).await?;
        let minutes = prepared.minutes.iter().copied().collect();
        lake.commit(&self.name, prepared, commit).await?;
        Ok(minutes)
    }
}

/// Rows as their table holds them: with day, text and the positions that they came from.
fn stored(rows: &RecordBatch, spec: &TableSpec, from: &str) -> Result<RecordBatch, ArrowError> {
    let made_by = cast(&rows[MADE_BY], &DataType::Utf8)?;
    let starts = rows["window_start"].as_primitive::<TimestampMicrosecondType>().clone();
    let rows = conform(rows, &Pipeline::selected_schema(spec))?;
    let count = rows.num_rows();
    let columns = spec.schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            PARTITION_COLUMN => Arc::new(Date32Array::from_iter(
                starts.iter().map(|start| start.map(|start| utc_day(start.div_euclid(1000)))),
            )),
            PIPELINE_HASH => Arc::clone(&made_by),
            SILVER_VERSIONS => Arc::new(StringArray::from(vec![from; count])),
            name => Arc::clone(&rows[name]),
        }
    });
    RecordBatch::try_new(Arc::clone(&spec.schema), columns.collect())
}

fn latest_end_ms(rows: &RecordBatch) -> Option<i64> {
    let ends = rows["window_end"].as_primitive::<TimestampMicrosecondType>();
    ends.iter().flatten().max().map(|end| end.div_euclid(1000))
}

fn reject_row(record: &Record, marker: &str, reject: &Reject, now_ms: i64) -> RejectRow {
    RejectRow {
        reject: reject.clone(),
        place: Provenance {
            source_partition: Arc::from(marker),
            source_offset: record.offset,
            attributes: None,
            received_at_ms: now_ms,
            format: FORMAT,
        },
        size_bytes: record
            .payload
            .as_ref()
            .map_or(0, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX)),
    }
}

fn rows_error(table: &str, source: ArrowError) -> SqlError {
    SqlError::Lake(LakeError::Rows {
        table: table.to_owned(),
        source,
    })
}
