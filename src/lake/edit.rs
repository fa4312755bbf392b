//! Edits: named rows are taken out of the files that hold them, and others put in, in one change.
//!
//! Stands beside the append (`commit`), which commits what is prepared here. Delta has no change in place:
//! a file that holds one victim is written anew without it. What keeps that small: the files are found by
//! what is remembered of them (`whereabouts`), and rows that are expected to change again lie in files
//! apart, so that those of the past are left alone.
//!
//! Invariant: rows that no victim test marks come out as they went in.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::PoisonError;

use arrow::array::{AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::kernels::boolean::not;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::prelude::{DataFrame, SessionContext};
use deltalake::DeltaTable;
use deltalake::kernel::{Add, Remove};
use futures_util::StreamExt;
use serde_json::Value;

use super::commit::{Prepared, TimeRange, collect_minutes, write_files};
use super::tables::TableSpec;
use super::whereabouts::{Contents, file_name, row_hash};
use super::{Lake, LakeError, OpenTable, query_error, table_error};

/// Name of the column that tells which file a row came from while an edit reads.
const FILE_COLUMN: &str = "__file";

/// The rows that an edit takes out.
pub struct Victims<'a> {
    /// Where in event time they are.
    pub range: TimeRange,
    /// Their `row_hash`es, where the table has a `row_id` and all of them can be named.
    pub ids: Option<&'a HashSet<u64>>,
    /// Marks them in rows of the table.
    pub is_victim: &'a (dyn Fn(&RecordBatch) -> Result<BooleanArray, ArrowError> + Sync),
}

/// Rows of one file that stay.
struct Left {
    file: String,
    rows: Vec<RecordBatch>,
}

impl Lake {
    /// Takes the victims out of the files that hold them, and writes what is left of those files together
    /// with the new rows. Nothing is visible until `commit`.
    pub async fn prepare_edit(&self, name: &str, victims: Victims<'_>, batches: Vec<RecordBatch>) -> Result<Prepared, LakeError> {
        let held = self.turns(name).edit().await;
        let open = self.get(name).await?;
        let candidates = candidate_files(&open.table, &open.spec, victims.range)?;
        let paths = match victims.ids {
            Some(ids) => self.files_holding(&open, &candidates, ids).await?,
            None => candidates.iter().map(|file| file.path.clone()).collect(),
        };
        let mut minutes = BTreeSet::new();
        for batch in &batches {
            collect_minutes(batch, &open.spec, &mut minutes);
        }
        let lefts = left_of(&open, paths, &victims, &mut minutes).await?;
        let hit: HashSet<&str> = lefts.iter().map(|left| file_name(&left.file)).collect();
        let removes = candidates
            .into_iter()
            .filter(|file| hit.contains(file_name(&file.path)))
            .map(|file| file.remove)
            .collect();
        let (adds, rows) = self
            .write_apart(&open, batches, lefts.into_iter().map(|left| left.rows).collect())
            .await?;
        Ok(Prepared {
            adds,
            removes,
            rows,
            minutes,
            held,
        })
    }

    /// Writes new rows and what is left of files: open rows together to one file, the others to one file for
    /// the new ones and one for each that they are left of. Put together with the new rows, a table whose
    /// newest rows keep changing would be written whole by every edit.
    pub(super) async fn write_apart(
        &self,
        open: &OpenTable,
        new: Vec<RecordBatch>,
        lefts: Vec<Vec<RecordBatch>>,
    ) -> Result<(Vec<Add>, usize), LakeError> {
        let spec = &open.spec;
        let (mut adds, mut rows, mut still_open) = (Vec::new(), 0, Vec::new());
        for batches in std::iter::once(new).chain(lefts) {
            let (settled, unsettled) = apart(batches, spec).map_err(rows_error(&spec.name))?;
            still_open.extend(unsettled);
            let (written, count) = write_files(&open.table, spec, settled).await?;
            adds.extend(written);
            rows += count;
        }
        let names = names_of(&still_open, spec).map_err(rows_error(&spec.name))?;
        let (written, count) = write_files(&open.table, spec, still_open).await?;
        if let ([only], Some(rows)) = (&written[..], names) {
            let contents = Contents { rows, has_open: true };
            self.whereabouts(&spec.name)
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .learn(&only.path, contents);
        }
        adds.extend(written);
        Ok((adds, rows + count))
    }

    /// Those of the candidates that hold one of the rows; files that are not known yet are looked into.
    async fn files_holding(&self, open: &OpenTable, candidates: &[Candidate], ids: &HashSet<u64>) -> Result<Vec<String>, LakeError> {
        let whereabouts = self.whereabouts(&open.spec.name);
        let paths = || candidates.iter().map(|file| file.path.as_str());
        let unknown = whereabouts.lock().unwrap_or_else(PoisonError::into_inner).unknown(paths());
        let found = look_into(open, unknown).await?;
        let mut whereabouts = whereabouts.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, contents) in found {
            whereabouts.learn(&path, contents);
        }
        Ok(whereabouts.holding(paths(), ids))
    }
}

/// Splits rows into those that are settled and those that are expected to change.
fn apart(batches: Vec<RecordBatch>, spec: &TableSpec) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>), ArrowError> {
    let Some(column) = spec.open_column else {
        return Ok((batches, Vec::new()));
    };
    let (mut settled, mut unsettled) = (Vec::new(), Vec::new());
    for batch in batches {
        let is_open = batch[column].as_boolean();
        settled.push(filter_record_batch(&batch, &not(is_open)?)?);
        unsettled.push(filter_record_batch(&batch, is_open)?);
    }
    for part in [&mut settled, &mut unsettled] {
        part.retain(|batch| batch.num_rows() > 0);
    }
    Ok((settled, unsettled))
}

/// The hashes of rows, if the table has names for them.
fn names_of(batches: &[RecordBatch], spec: &TableSpec) -> Result<Option<Vec<u64>>, ArrowError> {
    let Some(id) = spec.row_id else { return Ok(None) };
    let mut names = Vec::new();
    for batch in batches {
        let (ids, times) = (
            texts(batch, id)?,
            batch[spec.time_column.as_str()].as_primitive::<TimestampMicrosecondType>(),
        );
        names.extend((0..batch.num_rows()).map(|row| row_hash(ids.value(row), times.value(row))));
    }
    Ok(Some(names))
}

/// Reads the names of the rows of some files, and whether any of them is open.
async fn look_into(open: &OpenTable, paths: Vec<String>) -> Result<HashMap<String, Contents>, LakeError> {
    let spec = &open.spec;
    let mut found: HashMap<String, Contents> = HashMap::new();
    let (Some(id), false) = (spec.row_id, paths.is_empty()) else {
        return Ok(found);
    };
    let columns: Vec<&str> = [id, &spec.time_column, FILE_COLUMN].into_iter().chain(spec.open_column).collect();
    let frame = frame_of(&open.table, &spec.name, paths).await?;
    let frame = frame.select_columns(&columns).map_err(query_error("read", &spec.name))?;
    let mut stream = frame.execute_stream().await.map_err(query_error("read", &spec.name))?;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(query_error("read", &spec.name))?;
        let files = texts(&batch, FILE_COLUMN).map_err(rows_error(&spec.name))?;
        let names = names_of(std::slice::from_ref(&batch), spec).map_err(rows_error(&spec.name))?;
        let is_open = spec.open_column.map(|column| batch[column].as_boolean());
        for (row, name) in names.unwrap_or_default().into_iter().enumerate() {
            let contents = match found.get_mut(files.value(row)) {
                Some(contents) => contents,
                None => found.entry(files.value(row).to_owned()).or_default(),
            };
            contents.rows.push(name);
            contents.has_open |= is_open.is_some_and(|is_open| is_open.value(row));
        }
    }
    Ok(found)
}

/// What stays of the files that hold a victim, and the minutes of the victims.
async fn left_of(open: &OpenTable, paths: Vec<String>, victims: &Victims<'_>, minutes: &mut BTreeSet<i64>) -> Result<Vec<Left>, LakeError> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let name = &open.spec.name;
    let frame = frame_of(&open.table, name, paths).await?;
    let read = frame.collect().await.map_err(query_error("read", name))?;
    let mut hit = BTreeSet::new();
    let mut marked = Vec::with_capacity(read.len());
    for batch in read {
        let is_victim = (victims.is_victim)(&batch).map_err(rows_error(name))?;
        let files = texts(&batch, FILE_COLUMN).map_err(rows_error(name))?;
        for row in (0..batch.num_rows()).filter(|row| is_victim.value(*row)) {
            if !hit.contains(files.value(row)) {
                hit.insert(files.value(row).to_string());
            }
        }
        let gone = filter_record_batch(&batch, &is_victim).map_err(rows_error(name))?;
        collect_minutes(&gone, &open.spec, minutes);
        marked.push((batch, is_victim, files));
    }
    let mut lefts = Vec::with_capacity(hit.len());
    for file in hit {
        let mut rows = Vec::new();
        for (batch, is_victim, files) in &marked {
            let stays = |row| files.value(row) == file && !is_victim.value(row);
            let keep: BooleanArray = (0..batch.num_rows()).map(|row| Some(stays(row))).collect();
            let kept = filter_record_batch(batch, &keep).map_err(rows_error(name))?;
            if kept.num_rows() > 0 {
                rows.push(kept);
            }
        }
        lefts.push(Left { file, rows });
    }
    Ok(lefts)
}

struct Candidate {
    path: String,
    remove: Remove,
}

/// Files whose time statistics meet the range; a file without statistics always does.
fn candidate_files(table: &DeltaTable, spec: &TableSpec, range: TimeRange) -> Result<Vec<Candidate>, LakeError> {
    let snapshot = table.snapshot().map_err(table_error("read", &spec.name))?;
    let mut candidates = Vec::new();
    for file in snapshot.log_data() {
        if file.stats().is_none_or(|stats| may_hold(&stats, &spec.time_column, range)) {
            candidates.push(Candidate {
                path: file.path().to_string(),
                remove: file.remove_action(true),
            });
        }
    }
    Ok(candidates)
}

fn may_hold(stats: &str, time_column: &str, range: TimeRange) -> bool {
    let Ok(stats) = serde_json::from_str::<Value>(stats) else {
        return true;
    };
    let bound = |side: &str| {
        let text = stats[side][time_column].as_str()?;
        let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
        Some(time.timestamp_millis())
    };
    let starts_after = bound("minValues").is_some_and(|min| min > range.to_ms);
    let ends_before = bound("maxValues").is_some_and(|max| max < range.from_ms);
    !starts_after && !ends_before
}

async fn frame_of(table: &DeltaTable, name: &str, paths: Vec<String>) -> Result<DataFrame, LakeError> {
    let provider = table
        .table_provider()
        .with_file_column(FILE_COLUMN)
        .with_file_paths(paths)
        .await
        .map_err(query_error("read", name))?;
    let context = SessionContext::new();
    table
        .update_datafusion_session(&context.state())
        .map_err(table_error("read", name))?;
    context.read_table(provider).map_err(query_error("read", name))
}

fn texts(batch: &RecordBatch, column: &str) -> Result<StringArray, ArrowError> {
    let column = batch
        .column_by_name(column)
        .ok_or_else(|| ArrowError::SchemaError(format!("the scan gave no column {column}")))?;
    Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn rows_error(table: &str) -> impl FnOnce(ArrowError) -> LakeError + Copy + '_ {
    move |source| LakeError::Rows {
        table: table.to_string(),
        source,
    }
}
