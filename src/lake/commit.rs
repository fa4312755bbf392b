//! Writing: rows to sorted Parquet files, files to one Delta commit with its markers and its note.
//!
//! Stands at the end of an epoch. Two shapes of change exist: an append, and an edit (`edit`) that takes
//! named rows out of the files that hold them and puts others in, in one commit.
//!
//! Invariant: rows, markers and note are one commit; a reader sees all of it or nothing.
//! Invariant: a marker never goes back. delta-rs accepts a lower one, so it is compared here.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{SortColumn, cast, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use deltalake::DeltaTable;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, Remove, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use serde_json::Value;

use super::tables::{PARTITION_COLUMN, SILVER_SESSIONS, TableSpec};
use super::turns::Held;
use super::{Lake, LakeError, table_error};

/// zstd level of every file: level 1 halves the CPU of level 3 for 8 % more bytes on our events.
const ZSTD_LEVEL: i32 = 1;
/// Columns whose values are nearly all different: a dictionary of them is hashed, compared and written, and saves
/// nothing.
const ALL_DIFFERENT: [&str; 10] = [
    "event_id",
    "payload",
    "request_id",
    "source_offset",
    "event_ts",
    "event_ts_raw",
    "interval_start",
    "interval_end",
    "started_at",
    "ended_at",
];
/// The same of a table with a row a session.
const ALL_DIFFERENT_SESSIONS: [&str; 4] = ["session_id", "session_key", "user_id", "client"];
const MINUTE_US: i64 = 60_000_000;

/// What a commit carries beside its rows.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Application and the version of it that the table covers once this commit has landed.
    pub covers: Vec<(String, i64)>,
    /// Written into the commit info as `playhead`.
    pub note: Value,
}

/// A span of event time, both ends included, epoch ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    pub from_ms: i64,
    pub to_ms: i64,
}

impl TimeRange {
    pub const ALL: TimeRange = TimeRange {
        from_ms: i64::MIN,
        to_ms: i64::MAX,
    };

    /// The smallest range that holds all of these instants.
    pub fn around(times_ms: impl Iterator<Item = i64>) -> Option<TimeRange> {
        times_ms.fold(None, |range, at| match range {
            None => Some(TimeRange { from_ms: at, to_ms: at }),
            Some(TimeRange { from_ms, to_ms }) => Some(TimeRange {
                from_ms: from_ms.min(at),
                to_ms: to_ms.max(at),
            }),
        })
    }

    pub fn widened(self, by_ms: i64) -> TimeRange {
        TimeRange {
            from_ms: self.from_ms.saturating_sub(by_ms),
            to_ms: self.to_ms.saturating_add(by_ms),
        }
    }
}

/// Files written and files to be taken out, not yet committed.
#[derive(Debug, Default)]
pub struct Prepared {
    pub adds: Vec<Add>,
    pub removes: Vec<Remove>,
    pub rows: usize,
    /// Minutes (epoch minutes) of every row that comes or goes: what the windows above must look at
    /// again.
    pub minutes: BTreeSet<i64>,
    /// Keeps upkeep away from these files until they are committed or given up.
    pub(super) held: Held,
}

impl Lake {
    /// Writes rows to new files. Nothing is visible until `commit`.
    pub async fn prepare_append(&self, name: &str, batches: Vec<RecordBatch>) -> Result<Prepared, LakeError> {
        let held = self.turns(name).append().await;
        let open = self.get(name).await?;
        let mut minutes = BTreeSet::new();
        for batch in &batches {
            collect_minutes(batch, &open.spec, &mut minutes);
        }
        let (adds, rows) = self.write_apart(&open, batches, Vec::new()).await?;
        Ok(Prepared {
            adds,
            removes: Vec::new(),
            rows,
            minutes,
            held,
        })
    }

    /// Writes rows that come part by part in the table's order. Nothing is visible until `commit`.
    pub async fn prepare_sorted(
        &self,
        name: &str,
        parts: impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send,
    ) -> Result<Prepared, LakeError> {
        let held = self.turns(name).append().await;
        let open = self.get(name).await?;
        let (mut rows, mut minutes) = (0, BTreeSet::new());
        let parts = parts.inspect(|part| {
            let Ok(part) = part else { return };
            rows += part.num_rows();
            collect_minutes(part, &open.spec, &mut minutes);
        });
        let adds = write_sorted(&open.table, &open.spec, parts).await?;
        Ok(Prepared {
            adds,
            removes: Vec::new(),
            rows,
            minutes,
            held,
        })
    }

    /// Commits prepared files with their markers and note.
    ///
    /// # Errors
    /// A marker that would go back is refused: the work had landed already.
    pub async fn commit(&self, name: &str, prepared: Prepared, commit: Commit) -> Result<i64, LakeError> {
        self.refuse_if_lost()?;
        let began = std::time::Instant::now();
        let version = self.commit_in_turn(name, prepared, commit).await?;
        if let Some(meters) = self.meters.get() {
            meters.commit_took(name, began.elapsed());
        }
        self.checkpoint_when_due(name, version).await;
        Ok(version)
    }

    async fn commit_in_turn(&self, name: &str, prepared: Prepared, commit: Commit) -> Result<i64, LakeError> {
        let turns = self.turns(name);
        let _turn = turns.commit().await;
        for (application, version) in &commit.covers {
            let covered = self.covered(name, application).await?;
            if covered.is_some_and(|covered| covered > *version) {
                return Err(LakeError::Damaged {
                    table: name.to_string(),
                    what: format!("a commit for {application} {version} came after {covered:?}"),
                });
            }
        }
        let open = self.get(name).await?;
        let Prepared {
            adds,
            removes,
            minutes,
            held: _until_committed,
            ..
        } = prepared;
        let is_edit = !removes.is_empty();
        let removed: Vec<String> = removes.iter().map(|file| file.path.clone()).collect();
        let mut actions: Vec<Action> = removes.into_iter().map(Action::Remove).collect();
        actions.extend(adds.into_iter().map(Action::Add));
        let markers = commit
            .covers
            .iter()
            .map(|(application, version)| Transaction::new(application.clone(), *version))
            .collect();
        let properties = quiet_commit()
            .with_application_transactions(markers)
            .with_metadata([("playhead".to_string(), note_with_minutes(commit.note, &minutes))]);
        let operation = DeltaOperation::Write {
            mode: if is_edit { SaveMode::Overwrite } else { SaveMode::Append },
            partition_by: Some(vec![PARTITION_COLUMN.to_string()]),
            predicate: None,
        };
        let mut table = open.table.clone();
        let finalized = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(
                Some(table.snapshot().map_err(table_error("commit to", name))?),
                table.log_store(),
                operation,
            )
            .await
            .map_err(table_error("commit to", name))?;
        table.state = Some(finalized.snapshot());
        self.landed(name, table, &removed).await;
        self.version(name).await
    }

    /// Writes and commits in one go.
    pub async fn append(&self, name: &str, batches: Vec<RecordBatch>, commit: Commit) -> Result<i64, LakeError> {
        let prepared = self.prepare_append(name, batches).await?;
        self.commit(name, prepared, commit).await
    }
}

/// A commit and nothing else: delta-rs would list the whole log after each one to see what has expired,
/// and fail a commit that has landed when its checkpoint does not. Both are upkeep's.
pub(super) fn quiet_commit() -> CommitProperties {
    CommitProperties::default()
        .with_create_checkpoint(false)
        .with_cleanup_expired_logs(Some(false))
}

/// The writer's note and the minutes that the commit touches, as ranges `[first, last]`.
fn note_with_minutes(note: Value, minutes: &BTreeSet<i64>) -> Value {
    let mut note = if note.is_object() {
        note
    } else {
        Value::Object(serde_json::Map::new())
    };
    if !minutes.is_empty() {
        note["minutes"] = serde_json::json!(minute_ranges(minutes));
    }
    note
}

/// Minutes as ranges `[first, last]`: how notes hold them.
pub fn minute_ranges(minutes: &BTreeSet<i64>) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for minute in minutes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *minute => *last = *minute,
            _ => ranges.push((*minute, *minute)),
        }
    }
    ranges
}

/// The minutes of such ranges in a note.
pub fn minutes_in(ranges: &Value) -> BTreeSet<i64> {
    let ranges = ranges.as_array().map(Vec::as_slice).unwrap_or_default();
    ranges
        .iter()
        .filter_map(|range| Some(range[0].as_i64()?..=range[1].as_i64()?))
        .flatten()
        .collect()
}

pub(super) fn collect_minutes(batch: &RecordBatch, spec: &TableSpec, into: &mut BTreeSet<i64>) {
    for name in &spec.window_columns {
        let Some(column) = batch.column_by_name(name) else { continue };
        let Some(times) = column.as_any().downcast_ref::<TimestampMicrosecondArray>() else {
            continue;
        };
        let mut last = i64::MIN;
        for time in times.iter().flatten() {
            let minute = time.div_euclid(MINUTE_US);
            if minute != last {
                into.insert(minute);
                last = minute;
            }
        }
    }
}

/// Picks the schema's columns by name and casts them; a column that the batch lacks becomes null.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => cast(column, field.data_type()),
            None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
        })
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// Sorts rows by the table's order and writes one file a partition.
pub(super) async fn write_files(table: &DeltaTable, spec: &TableSpec, batches: Vec<RecordBatch>) -> Result<(Vec<Add>, usize), LakeError> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows == 0 {
        return Ok((Vec::new(), 0));
    }
    let table = table.clone();
    let spec = spec.clone();
    // Sorting and encoding take the CPU: on a task of their own they use the second core.
    let task = tokio::spawn(async move {
        let rows_error = |source| LakeError::Rows {
            table: spec.name.clone(),
            source,
        };
        let conformed = batches
            .iter()
            .map(|batch| conform(batch, &spec.schema))
            .collect::<Result<Vec<_>, _>>()
            .map_err(rows_error)?;
        drop(batches);
        let whole = match &conformed[..] {
            [only] => only.clone(),
            several => concat_batches(&spec.schema, several).map_err(rows_error)?,
        };
        drop(conformed);
        let sorted = sort(&whole, &spec.sort_columns).map_err(rows_error)?;
        drop(whole);
        write_sorted(&table, &spec, std::iter::once(Ok(sorted))).await
    });
    let adds = task.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    Ok((adds, rows))
}

async fn write_sorted(
    table: &DeltaTable,
    spec: &TableSpec,
    parts: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<Vec<Add>, LakeError> {
    let rows_error = |source| LakeError::Rows {
        table: spec.name.clone(),
        source,
    };
    let mut writer = RecordBatchWriter::for_table(table)
        .map_err(table_error("write to", &spec.name))?
        .with_writer_properties(writer_properties(&spec.name));
    for part in parts {
        let part = conform(&part.map_err(rows_error)?, &spec.schema).map_err(rows_error)?;
        writer.write(part).await.map_err(table_error("write to", &spec.name))?;
    }
    writer.flush().await.map_err(table_error("write to", &spec.name))
}

fn sort(batch: &RecordBatch, by: &[String]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns: Vec<SortColumn> = by
        .iter()
        .filter_map(|name| batch.column_by_name(name))
        .map(|values| SortColumn {
            values: Arc::clone(values),
            options: None,
        })
        .collect();
    if columns.is_empty() {
        return Ok(batch.clone());
    }
    let order = lexsort_to_indices(&columns, None)?;
    take_record_batch(batch, &order)
}

pub(super) fn writer_properties(table: &str) -> WriterProperties {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
    let of_sessions: &[&str] = match table {
        SILVER_SESSIONS => &ALL_DIFFERENT_SESSIONS,
        _ => &[],
    };
    let packed = WriterProperties::builder().set_compression(Compression::ZSTD(level));
    let without =
        |properties: WriterPropertiesBuilder, column: &&str| properties.set_column_dictionary_enabled(ColumnPath::from(*column), false);
    ALL_DIFFERENT.iter().chain(of_sessions).fold(packed, without).build()
}
