//! The data files of a table, as its log has them.
//!
//! What compaction and retention choose from.

use std::collections::HashSet;
use std::sync::PoisonError;

use deltalake::kernel::{LogicalFileView, Remove};

use super::log::needed_from;
use crate::event::schema::utc_day;
use crate::lake::tables::PARTITION_COLUMN;
use crate::lake::{Lake, LakeError, table_error};

/// A data file of a table, as its log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileInfo {
    pub path: String,
    /// The partition: `2026-01-31`.
    pub day: String,
    pub bytes: u64,
    pub rows: i64,
    /// When rows last came into it; files that are put together take the newest of theirs.
    pub modified_ms: i64,
}

impl FileInfo {
    /// Days since 1970.
    pub(super) fn day_number(&self) -> Option<i32> {
        let date = chrono::NaiveDate::parse_from_str(&self.day, "%Y-%m-%d").ok()?;
        Some(utc_day(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis()))
    }
}

async fn files_of(lake: &Lake, table: &str) -> Result<Vec<FileInfo>, LakeError> {
    let open = lake.get(table).await?;
    let snapshot = open.table.snapshot().map_err(table_error("read", table))?;
    let file_info = |file: LogicalFileView| {
        let mut partition = file.partition_values_map();
        FileInfo {
            path: file.path().to_string(),
            day: partition.remove(PARTITION_COLUMN).flatten().unwrap_or_default(),
            bytes: file.size().unsigned_abs(),
            rows: file.num_records().and_then(|rows| i64::try_from(rows).ok()).unwrap_or(-1),
            modified_ms: file.modification_time(),
        }
    };
    Ok(snapshot.log_data().into_iter().map(file_info).collect())
}

/// The files that upkeep may take out: of bronze only those that silver has taken in, because recovery
/// reads a commit's rows from the files that it added. Rows that change with every epoch are left to the
/// epochs, which write them anew as it is.
pub(super) async fn settled_files_of(lake: &Lake, table: &str) -> Result<Vec<FileInfo>, LakeError> {
    let mut files = files_of(lake, table).await?;
    let whereabouts = lake.whereabouts(table);
    files.retain(|file| !whereabouts.lock().unwrap_or_else(PoisonError::into_inner).has_open(&file.path));
    if files.is_empty() || !table.starts_with("bronze.") {
        return Ok(files);
    }
    let covered = needed_from(lake, table).await?.unwrap_or(0);
    let Some(entries) = lake.log_after(table, covered).await? else {
        return Ok(Vec::new());
    };
    let unsettled: HashSet<String> = entries
        .into_iter()
        .filter(|entry| entry.note["upkeep"].is_null())
        .flat_map(|entry| entry.added)
        .collect();
    files.retain(|file| !unsettled.contains(&file.path));
    Ok(files)
}

/// What takes these files out of the table, if it still holds all of them.
pub(super) async fn removes(lake: &Lake, table: &str, files: &[FileInfo], data_change: bool) -> Result<Option<Vec<Remove>>, LakeError> {
    let open = lake.get(table).await?;
    let snapshot = open.table.snapshot().map_err(table_error("read", table))?;
    let wanted: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let removes: Vec<Remove> = snapshot
        .log_data()
        .into_iter()
        .filter(|file| wanted.contains(&*file.path()))
        .map(|file| file.remove_action(data_change))
        .collect();
    Ok((removes.len() == wanted.len()).then_some(removes))
}
