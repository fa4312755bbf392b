//! Vacuum: files below a table that its newest version does not name.
//!
//! Two sorts. A file that a commit took out goes when the grace for queries has passed since. A file
//! that was never committed (a crash, a compaction that was given up) goes when it is old enough for a
//! commit of another program, and nothing of this process is in flight.
//!
//! Invariant: nothing that the newest version names is ever deleted, and only Parquet files of the
//! table and half-written ones are: what else lies there belongs to somebody else.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use deltalake::Path as StorePath;
use futures_util::TryStreamExt;
use object_store::ObjectStoreExt;

use super::{Action, UpkeepSettings};
use crate::lake::{Lake, LakeError, file_error, table_error};

/// Files that one step deletes.
const FILES_PER_STEP: usize = 1_000;
/// What deleting a file is reckoned at in the budget of bytes.
const BYTES_PER_DELETION: u64 = 4_096;

pub(super) fn cost_of_deleting(files: usize) -> u64 {
    files as u64 * BYTES_PER_DELETION
}

/// Files that may go.
#[derive(Debug, Default)]
pub(super) struct Litter {
    /// Taken out by a commit, long enough ago.
    removed: Vec<(StorePath, u64)>,
    /// Never committed.
    orphans: Vec<(StorePath, u64)>,
    /// Written in part when a process died: invisible to the object store, which would have renamed them.
    staged: Vec<(PathBuf, u64)>,
}

impl Litter {
    pub(super) fn action(&self, table: &str) -> Option<Action> {
        let sizes = self.removed.iter().chain(&self.orphans).map(|(_, bytes)| *bytes);
        let sizes: Vec<u64> = sizes.chain(self.staged.iter().map(|(_, bytes)| *bytes)).collect();
        let swept = Swept {
            files: sizes.len(),
            bytes: sizes.iter().sum(),
            is_all: true,
        };
        swept.action(table)
    }
}

/// What was deleted.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub files: usize,
    pub bytes: u64,
    /// False if something is left for the next step.
    pub is_all: bool,
}

impl Swept {
    pub(super) fn action(&self, table: &str) -> Option<Action> {
        (self.files > 0).then(|| Action::Vacuum {
            table: table.to_string(),
            files: self.files,
            bytes: self.bytes,
        })
    }
}

/// Finds the files that may go.
pub(super) async fn due(lake: &Lake, table: &str, settings: &UpkeepSettings, now_ms: i64) -> Result<Litter, LakeError> {
    let open = lake.get(table).await?;
    // Listed first: what a commit adds after this is not in the list.
    let listed: Vec<_> = open
        .table
        .object_store()
        .list(None)
        .try_collect()
        .await
        .map_err(|error| table_error("list the files of", table)(error.into()))?;
    let state = lake.get(table).await?.table;
    let snapshot = state.snapshot().map_err(table_error("read", table))?;
    let live: HashSet<StorePath> = snapshot.log_data().into_iter().map(|file| file.object_store_path()).collect();
    let log_store = state.log_store();
    let removed_ms: HashMap<StorePath, i64> = snapshot
        .all_tombstones(&log_store)
        .map_ok(|tombstone| (store_path(&tombstone.path()), tombstone.deletion_timestamp().unwrap_or(now_ms)))
        .try_collect()
        .await
        .map_err(table_error("read the log of", table))?;
    let mut litter = Litter {
        staged: match lake.place.table_folder(table) {
            Some(folder) => staged_files(&folder, now_ms - settings.orphan_grace_ms)?,
            None => Vec::new(),
        },
        ..Litter::default()
    };
    for meta in listed
        .into_iter()
        .filter(|meta| is_data_file(&meta.location) && !live.contains(&meta.location))
    {
        let file = (meta.location.clone(), meta.size);
        match removed_ms.get(&meta.location) {
            Some(at_ms) if now_ms - at_ms > settings.removed_grace_ms => litter.removed.push(file),
            Some(_) => {}
            None if now_ms - meta.last_modified.timestamp_millis() > settings.orphan_grace_ms => litter.orphans.push(file),
            None => {}
        }
    }
    Ok(litter)
}

/// As delta-rs turns a path of the log into one of the store.
fn store_path(path: &str) -> StorePath {
    StorePath::parse(path).unwrap_or_else(|_| StorePath::from(path))
}

fn is_data_file(path: &StorePath) -> bool {
    let is_hidden = path.parts().any(|part| part.as_ref().starts_with(['_', '.']));
    !is_hidden && path.extension() == Some("parquet")
}

/// Deletes a bounded number of them.
pub(super) async fn sweep(lake: &Lake, table: &str, litter: Litter) -> Result<Swept, LakeError> {
    let mut swept = Swept::default();
    let turns = lake.turns(table);
    let Litter { removed, orphans, staged } = litter;
    let mut left = FILES_PER_STEP;
    let is_all_removed = removed.len() <= left;
    delete(lake, table, removed.into_iter().take(left), &mut swept).await?;
    left -= swept.files;
    // Nothing is in flight while this is held, so what is not in the log now will not come into it.
    let Some(_alone) = turns.nothing_in_flight() else {
        return Ok(swept);
    };
    let state = lake.get(table).await?.table;
    let snapshot = state.snapshot().map_err(table_error("read", table))?;
    let live: HashSet<StorePath> = snapshot.log_data().into_iter().map(|file| file.object_store_path()).collect();
    let orphans: Vec<_> = orphans.into_iter().filter(|(path, _)| !live.contains(path)).collect();
    swept.is_all = is_all_removed && orphans.len() + staged.len() <= left;
    delete(lake, table, orphans.into_iter().take(left), &mut swept).await?;
    for (path, bytes) in staged.into_iter().take(FILES_PER_STEP - swept.files) {
        std::fs::remove_file(&path).map_err(file_error("delete", &path))?;
        swept.files += 1;
        swept.bytes += bytes;
    }
    Ok(swept)
}

async fn delete(lake: &Lake, table: &str, files: impl Iterator<Item = (StorePath, u64)>, swept: &mut Swept) -> Result<(), LakeError> {
    let store = lake.get(table).await?.table.object_store();
    for (path, bytes) in files {
        match store.delete(&path).await {
            Ok(()) | Err(deltalake::ObjectStoreError::NotFound { .. }) => {}
            Err(error) => return Err(table_error("delete files of", table)(error.into())),
        }
        swept.files += 1;
        swept.bytes += bytes;
    }
    Ok(())
}

/// Half-written files on a local disk (`name#1`), which the object store does not list.
fn staged_files(table: &Path, before_ms: i64) -> Result<Vec<(PathBuf, u64)>, LakeError> {
    let mut found = Vec::new();
    let mut folders = vec![table.to_path_buf()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(file_error("list", &folder))?.flatten() {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(path);
            } else if is_staged(&entry.file_name().to_string_lossy()) && modified_ms(&metadata) < before_ms {
                found.push((path, metadata.len()));
            }
        }
    }
    Ok(found)
}

fn is_staged(name: &str) -> bool {
    let Some((stem, number)) = name.rsplit_once('#') else {
        return false;
    };
    let is_ours = stem.ends_with(".parquet") || stem.ends_with(".json") || stem == "_last_checkpoint";
    is_ours && !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

fn modified_ms(metadata: &std::fs::Metadata) -> i64 {
    let since = metadata
        .modified()
        .ok()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_we_write_are_ever_deleted() {
        let check = |path: &str, expected| assert_eq!(is_data_file(&StorePath::from(path)), expected, "{path}");
        check("event_date=2026-01-01/part-00000-x.zstd.parquet", true);
        check("_delta_log/00000000000000000100.checkpoint.parquet", false);
        check("event_date=2026-01-01/notes.txt", false);
        check(".trash/part-0.parquet", false);
        check("_symlink_format_manifest/part-0.parquet", false);
    }

    #[test]
    fn half_written_files_are_known_by_their_number() {
        let check = |name: &str, expected| assert_eq!(is_staged(name), expected, "{name}");
        check("part-0.zstd.parquet#1", true);
        check("00000000000000000007.json#12", true);
        check("_last_checkpoint#3", true);
        check("part-0.zstd.parquet", false);
        check("somebody#1", false);
        check("part-0.parquet#x", false);
    }
}
