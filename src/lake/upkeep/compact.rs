//! Compaction: small files of one day put together to one, sorted as the table is.
//!
//! Files are put together in tiers, so that a row is written again a few times and not with every
//! commit: many tiny ones to a small one, many small ones to a middle one, and those to one of the
//! target size. A day at rest is put together whatever its tiers.
//!
//! Invariant: the new file holds the same rows. They are counted, and the ids summed as hashes, from
//! what was read and from what lies on disk, before the commit.
//! Invariant: the commit takes out files that the newest version holds, or does not happen.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::col;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use deltalake::kernel::{Action as DeltaAction, Add};
use deltalake::protocol::DeltaOperation;
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use futures_util::StreamExt;
use object_store::ObjectStoreExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::files::{FileInfo, removes, settled_files_of};
use super::{Action, UpkeepSettings, carry};
use crate::lake::commit::{conform, writer_properties};
use crate::lake::tables::{PARTITION_COLUMN, TableSpec};
use crate::lake::{Lake, LakeError, OpenTable, query_error, table_error};

/// Upper ends of the tiers below the last, as parts of the target.
const TIERS: [u64; 2] = [64, 8];
/// A file of this share of the target (in quarters) is left alone.
const FULL_QUARTERS: u64 = 3;
/// A day into which nothing came for this long is at rest.
const REST_MS: i64 = 3_600_000;
/// Files that one step opens, to bound its time and memory.
const FILES_PER_STEP: usize = 1_000;
/// Up to this many bytes edits may be kept waiting for a step: well under a second of work.
const QUICK_BYTES: u64 = 8 << 20;
/// Columns that identify a row, the first that a table has.
const ID_COLUMNS: [&str; 2] = ["event_id", "session_id"];

/// Files of one day that are to become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    day: String,
    files: Vec<FileInfo>,
}

impl Group {
    pub(super) fn day(&self) -> &str {
        &self.day
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Read twice (once for the ids alone, reckoned as a whole), written once, read back.
    pub(super) fn io_bytes(&self) -> u64 {
        self.bytes() * 2
    }

    /// As many of the files as edits may be kept waiting for, if that is more than one.
    pub(super) fn quick(mut self) -> Option<Group> {
        self.files.truncate(fitting(&self.files, QUICK_BYTES));
        (self.files.len() > 1).then_some(self)
    }

    pub(super) fn action(&self, table: &str) -> Action {
        Action::Compact {
            table: table.to_string(),
            day: self.day.clone(),
            files: self.files.len(),
            bytes: self.bytes(),
            rows: self.files.iter().map(|file| file.rows).sum(),
        }
    }

    pub(super) fn postponed(&self, table: &str) -> Action {
        Action::Postpone {
            table: table.to_string(),
            day: self.day.clone(),
        }
    }
}

/// What of a table is to be put together: at most one group a day, the newest day first.
pub(super) async fn due(lake: &Lake, table: &str, settings: &UpkeepSettings, now_ms: i64) -> Result<Vec<Group>, LakeError> {
    Ok(groups(settled_files_of(lake, table).await?, settings, now_ms))
}

fn groups(files: Vec<FileInfo>, settings: &UpkeepSettings, now_ms: i64) -> Vec<Group> {
    let mut days: BTreeMap<String, Vec<FileInfo>> = BTreeMap::new();
    // A file of which the log does not say how many rows it has cannot be checked.
    for file in files.into_iter().filter(|file| file.rows >= 0) {
        days.entry(file.day.clone()).or_default().push(file);
    }
    let group = |(day, files)| {
        Some(Group {
            files: chosen(files, settings, now_ms)?,
            day,
        })
    };
    days.into_iter().rev().filter_map(group).collect()
}

fn chosen(mut files: Vec<FileInfo>, settings: &UpkeepSettings, now_ms: i64) -> Option<Vec<FileInfo>> {
    let target = settings.target_bytes;
    let newest_ms = files.iter().map(|file| file.modified_ms).max()?;
    files.retain(|file| file.bytes < target / 4 * FULL_QUARTERS);
    files.sort_by(|one, other| (one.bytes, &one.path).cmp(&(other.bytes, &other.path)));
    let tiers = TIERS.map(|part| (target / part, settings.min_files));
    let is_at_rest = now_ms - newest_ms > REST_MS;
    let last = (u64::MAX, if is_at_rest { 2 } else { settings.min_files });
    tiers.into_iter().chain([last]).find_map(|(below, at_least)| {
        let count = files.partition_point(|file| file.bytes < below);
        let fitting = fitting(&files[..count], target);
        (fitting >= at_least).then(|| files[..fitting].to_vec())
    })
}

/// How many of the first files make up the target at the most.
fn fitting(files: &[FileInfo], target: u64) -> usize {
    let mut sum = 0;
    let fits = |file: &&FileInfo| {
        sum += file.bytes;
        sum <= target
    };
    files.iter().take(FILES_PER_STEP).take_while(fits).count()
}

/// Puts the files together. `None` if one of them went meanwhile: nothing has changed then.
pub(super) async fn carry_out(
    lake: &Lake,
    table: &str,
    group: &Group,
    memory_bytes: usize,
    hold_off_edits: bool,
) -> Result<Option<Action>, LakeError> {
    let turns = lake.turns(table);
    let held = if hold_off_edits { turns.edit().await } else { turns.append().await };
    if removes(lake, table, &group.files, false).await?.is_none() {
        return Ok(None);
    }
    let open = lake.get(table).await?;
    let adds = rewrite(&open, group, memory_bytes).await?;
    // The edit turn comes before the flight in every order of locks.
    let _held = if hold_off_edits {
        held
    } else {
        let edit = turns.edit().await;
        drop(held);
        edit
    };
    let _turn = turns.commit().await;
    let Some(taken_out) = removes(lake, table, &group.files, false).await? else {
        give_up(&open, &adds).await;
        return Ok(None);
    };
    let mut actions: Vec<DeltaAction> = taken_out.into_iter().map(DeltaAction::Remove).collect();
    actions.extend(adds.into_iter().map(DeltaAction::Add));
    let change = carry::Change {
        actions,
        operation: DeltaOperation::Optimize {
            predicate: Some(format!("{PARTITION_COLUMN} = '{}'", group.day)),
            target_size: i64::try_from(group.bytes()).unwrap_or(i64::MAX),
        },
        note: json!({"compacted": group.files.len(), "day": group.day}),
        markers: Vec::new(),
    };
    carry::commit(lake, table, change).await?;
    Ok(Some(group.action(table)))
}

/// Deletes files that will not be committed; what stays is the vacuum's.
async fn give_up(open: &OpenTable, adds: &[Add]) {
    let store = open.table.object_store();
    for add in adds {
        if let Err(error) = store.delete(&deltalake::Path::from(add.path.as_str())).await {
            tracing::debug!(file = add.path, %error, "a file of a compaction that was given up stays for the vacuum");
        }
    }
}

/// Rows and the sum of the hashes of their ids.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Contents {
    rows: usize,
    ids: u64,
}

impl Contents {
    fn add(&mut self, batch: &RecordBatch, id: Option<&str>) -> Result<(), arrow::error::ArrowError> {
        self.rows += batch.num_rows();
        let Some(column) = id.and_then(|id| batch.column_by_name(id)) else {
            return Ok(());
        };
        let ids = cast(column, &DataType::Utf8)?;
        let ids = ids.as_string::<i32>();
        for id in ids.iter().flatten() {
            self.ids = self.ids.wrapping_add(xxh3_64(id.as_bytes()));
        }
        Ok(())
    }
}

/// Writes the rows of the files anew and makes sure that they are the same. Nothing is committed.
async fn rewrite(open: &OpenTable, group: &Group, memory_bytes: usize) -> Result<Vec<Add>, LakeError> {
    let name = open.spec.name.as_str();
    let id = id_column(&open.spec);
    let mut adds = write_sorted(open, group, memory_bytes).await?;
    let logged = group.files.iter().map(|file| file.rows).sum::<i64>();
    let read = contents_of_sources(open, group, id).await?;
    let mut written = Contents::default();
    for add in &adds {
        read_back(open, add, id, &mut written).await?;
    }
    if written != read || i64::try_from(read.rows) != Ok(logged) {
        give_up(open, &adds).await;
        return Err(LakeError::Damaged {
            table: name.to_string(),
            what: format!(
                "its log names {logged} rows in {} files of {}, reading them gave {} and writing them anew {} (ids {})",
                group.files.len(),
                group.day,
                read.rows,
                written.rows,
                if read.ids == written.ids { "alike" } else { "differ" }
            ),
        });
    }
    let modified_ms = group.files.iter().map(|file| file.modified_ms).max().unwrap_or_default();
    for add in &mut adds {
        add.data_change = false;
        // When rows last came in, which retention goes by.
        add.modification_time = modified_ms;
    }
    Ok(adds)
}

fn id_column(spec: &TableSpec) -> Option<&'static str> {
    ID_COLUMNS.into_iter().find(|name| spec.schema.column_with_name(name).is_some())
}

async fn write_sorted(open: &OpenTable, group: &Group, memory_bytes: usize) -> Result<Vec<Add>, LakeError> {
    let name = open.spec.name.as_str();
    let rows_error = |source| LakeError::Rows {
        table: name.to_string(),
        source,
    };
    let frame = frame(open, group, memory_bytes).await?;
    let order: Vec<_> = open.spec.sort_columns.iter().map(|column| col(column).sort(true, true)).collect();
    let mut rows = frame
        .sort(order)
        .map_err(query_error("read", name))?
        .execute_stream()
        .await
        .map_err(query_error("read", name))?;
    let mut writer = RecordBatchWriter::for_table(&open.table)
        .map_err(table_error("write to", name))?
        .with_writer_properties(writer_properties(name));
    // The table's own columns, which may be more than this release knows of.
    let schema: SchemaRef = writer.arrow_schema();
    while let Some(batch) = rows.next().await {
        let batch = conform(&batch.map_err(query_error("read", name))?, &schema).map_err(rows_error)?;
        writer.write(batch).await.map_err(table_error("write to", name))?;
        // Sorting and encoding take the CPU; ingest may have it in between.
        tokio::task::yield_now().await;
    }
    writer.flush().await.map_err(table_error("write to", name))
}

async fn frame(open: &OpenTable, group: &Group, memory_bytes: usize) -> Result<DataFrame, LakeError> {
    let name = open.spec.name.as_str();
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
        .build_arc()
        .map_err(query_error("read", name))?;
    // One partition: upkeep takes one core at the most.
    let context = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), runtime);
    open.table
        .update_datafusion_session(&context.state())
        .map_err(table_error("read", name))?;
    let provider = open
        .table
        .table_provider()
        .with_file_paths(group.files.iter().map(|file| file.path.clone()))
        .await
        .map_err(query_error("read", name))?;
    context.read_table(provider).map_err(query_error("read", name))
}

async fn contents_of_sources(open: &OpenTable, group: &Group, id: Option<&str>) -> Result<Contents, LakeError> {
    let name = open.spec.name.as_str();
    // The ids alone fit whatever sorting may use.
    let frame = frame(open, group, usize::MAX).await?;
    let frame = frame
        .select_columns(&[id.unwrap_or(PARTITION_COLUMN)])
        .map_err(query_error("read", name))?;
    let mut rows = frame.execute_stream().await.map_err(query_error("read", name))?;
    let mut contents = Contents::default();
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(query_error("read", name))?;
        contents.add(&batch, id).map_err(|source| LakeError::Rows {
            table: name.to_string(),
            source,
        })?;
    }
    Ok(contents)
}

/// Reads a new file from where it lies: not what was meant to be written, but what was.
async fn read_back(open: &OpenTable, add: &Add, id: Option<&str>, into: &mut Contents) -> Result<(), LakeError> {
    let name = open.spec.name.as_str();
    let store_error = |error| table_error("read back what was written to", name)(deltalake::DeltaTableError::from(error));
    let parquet_error = |error: parquet::errors::ParquetError| query_error("read back what was written to", name)(error.into());
    let path = deltalake::Path::from(add.path.as_str());
    let bytes = open
        .table
        .object_store()
        .get(&path)
        .await
        .map_err(store_error)?
        .bytes()
        .await
        .map_err(store_error)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(parquet_error)?;
    let columns = ProjectionMask::columns(builder.parquet_schema(), id);
    let reader = builder.with_projection(columns).build().map_err(parquet_error)?;
    for batch in reader {
        let rows_error = |source| LakeError::Rows {
            table: name.to_string(),
            source,
        };
        into.add(&batch.map_err(rows_error)?, id).map_err(rows_error)?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    /// A day with files of these sizes (MiB), written so many minutes ago, and how many are chosen.
    #[track_caller]
    fn check(mebibytes: &[u64], minutes_ago: i64, expected: Option<usize>) {
        let files = mebibytes.iter().enumerate().map(|(number, mebibytes)| FileInfo {
            path: format!("{number:04}"),
            day: "2026-01-01".to_string(),
            bytes: mebibytes << 20,
            rows: 1,
            modified_ms: NOW_MS - minutes_ago * 60_000,
        });
        let groups = groups(files.collect(), &UpkeepSettings::default(), NOW_MS);
        assert_eq!(groups.first().map(|group| group.files.len()), expected, "{mebibytes:?}");
    }

    #[test]
    fn a_day_in_use_waits_until_enough_files_of_a_tier_are_there() {
        check(&[1; 7], 0, None);
        check(&[1; 8], 0, Some(8));
        check(&[1, 1, 1, 1, 1, 1, 1, 20], 0, Some(8));
        check(&[10; 7], 0, None);
    }

    #[test]
    fn tiny_files_are_put_together_without_the_larger_ones() {
        check(&[1, 1, 1, 1, 1, 1, 1, 1, 10, 10, 60], 0, Some(8));
    }

    #[test]
    fn a_day_at_rest_is_put_together_whatever_its_tiers() {
        check(&[1, 20, 60], 61, Some(3));
        check(&[1], 61, None);
    }

    #[test]
    fn no_more_is_put_together_than_the_target_holds() {
        check(&[90, 90], 61, None);
        check(&[40, 40, 40, 40], 61, Some(3));
        check(&[97, 1, 1], 61, Some(2));
    }

    #[test]
    fn one_step_opens_a_bounded_number_of_files() {
        check(&[0; 3_000], 0, Some(FILES_PER_STEP));
    }
}
