//! The log of a table: checkpoints, and the deletion of what lies before them.
//!
//! Invariant: a log file is deleted only if a checkpoint after it reads well, nobody has still to read
//! it to catch up (silver on bronze, gold on silver), and it is neither new nor among the newest.
//! Invariant: the oldest go first, so what a kill leaves is a log without a gap.

use deltalake::{DeltaTableBuilder, Path as StorePath};
use futures_util::TryStreamExt;
use object_store::ObjectStoreExt;

use super::{Action, UpkeepSettings};
use crate::lake::tables::{BRONZE_CDN, BRONZE_PLAYER, SILVER_INTERVALS, SILVER_PLAYER, SILVER_REQUESTS, SILVER_SESSIONS, WINDOWED_VIEWS};
use crate::lake::{Lake, LakeError, table_error};

/// Commits between two checkpoints: reading a log costs as many small files at the most.
pub const CHECKPOINT_EVERY: i64 = 100;
/// So late a checkpoint is not on its way any more.
const OVERDUE_AFTER: i64 = CHECKPOINT_EVERY + CHECKPOINT_EVERY / 4;
/// Log files that one step deletes.
const FILES_PER_STEP: usize = 2_000;
/// Letters of a version in the name of a log file.
const VERSION_DIGITS: usize = 20;

/// A file in a table's `_delta_log`.
#[derive(Debug, Clone)]
struct LogFile {
    path: StorePath,
    version: i64,
    kind: Kind,
    modified_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Commit,
    Checkpoint,
    Other,
}

/// Log files that nobody needs.
pub(super) struct Expired {
    /// The checkpoint that stands for them.
    checkpoint: i64,
    files: Vec<LogFile>,
}

impl Expired {
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    pub(super) fn action(&self, table: &str) -> Action {
        Action::CleanLog {
            table: table.to_string(),
            kept_from: self.checkpoint,
            files: self.files.len(),
        }
    }
}

/// The version and kind of a log file, by its name.
fn parsed(name: &str) -> Option<(i64, Kind)> {
    let (version, rest) = name.split_at_checked(VERSION_DIGITS)?;
    let version = version
        .bytes()
        .all(|digit| digit.is_ascii_digit())
        .then(|| version.parse().ok())??;
    Some(match rest {
        ".json" => (version, Kind::Commit),
        ".checkpoint.parquet" => (version, Kind::Checkpoint),
        _ => (version, Kind::Other),
    })
}

async fn log_files(lake: &Lake, table: &str) -> Result<Vec<LogFile>, LakeError> {
    let store = lake.get(table).await?.table.object_store();
    let found: Vec<_> = store
        .list(Some(&StorePath::from("_delta_log")))
        .try_collect()
        .await
        .map_err(|error| table_error("list the log of", table)(error.into()))?;
    let mut files: Vec<LogFile> = found
        .into_iter()
        .filter_map(|meta| {
            let (version, kind) = parsed(meta.location.filename()?)?;
            Some(LogFile {
                modified_ms: meta.last_modified.timestamp_millis(),
                path: meta.location,
                version,
                kind,
            })
        })
        .collect();
    files.sort_by_key(|file| (file.version, file.kind == Kind::Checkpoint));
    Ok(files)
}

/// A checkpoint that should be there and is not: the commit that was to write it could not.
pub(super) async fn due_checkpoint(lake: &Lake, table: &str) -> Result<Option<Action>, LakeError> {
    let version = lake.version(table).await?;
    if version <= OVERDUE_AFTER {
        return Ok(None);
    }
    let store = lake.get(table).await?.table.object_store();
    // Where the commits write them first, then wherever upkeep made up for one.
    let regular = version - version % CHECKPOINT_EVERY;
    for version in std::iter::once(regular).chain((version - OVERDUE_AFTER..=version).rev()) {
        let path = StorePath::from(format!("_delta_log/{version:020}.checkpoint.parquet"));
        if store.head(&path).await.is_ok() {
            return Ok(None);
        }
    }
    Ok(Some(Action::Checkpoint {
        table: table.to_string(),
        version,
    }))
}

impl Lake {
    /// Writes what the log says up to the newest version into one file.
    ///
    /// # Errors
    /// Whatever the log or the file system says; the table is not touched.
    pub async fn checkpoint(&self, name: &str) -> Result<(), LakeError> {
        let open = self.get(name).await?;
        deltalake::checkpoints::create_checkpoint(&open.table, None)
            .await
            .map_err(table_error("write a checkpoint of", name))
    }

    /// After a commit. The commit has landed: a checkpoint that fails is told and made up for by upkeep.
    pub(in crate::lake) async fn checkpoint_when_due(&self, name: &str, version: i64) {
        if version == 0 || version % CHECKPOINT_EVERY != 0 {
            return;
        }
        if let Err(error) = self.checkpoint(name).await {
            tracing::warn!(
                table = name,
                version,
                error = &error as &dyn std::error::Error,
                "no checkpoint was written; upkeep tries again"
            );
        }
    }
}

pub(super) async fn due_clean_up(lake: &Lake, table: &str, settings: &UpkeepSettings, now_ms: i64) -> Result<Option<Expired>, LakeError> {
    let newest = lake.version(table).await?;
    if newest <= settings.versions_kept {
        return Ok(None);
    }
    let needed_from = needed_from(lake, table)
        .await?
        .unwrap_or(newest)
        .min(newest - settings.versions_kept);
    let files = log_files(lake, table).await?;
    Ok(expired(files, needed_from, now_ms - settings.log_grace_ms))
}

/// What lies before the newest checkpoint up to `needed_from`. It pays from a checkpoint's worth on.
fn expired(mut files: Vec<LogFile>, needed_from: i64, before_ms: i64) -> Option<Expired> {
    let checkpoint = files
        .iter()
        .filter(|file| file.kind == Kind::Checkpoint && file.version <= needed_from)
        .map(|file| file.version)
        .max()?;
    let is_young = |file: &LogFile| file.modified_ms > before_ms;
    // No gaps: what follows a file that stays, stays.
    let first_kept = files.iter().filter(|file| is_young(file)).map(|file| file.version).min();
    let end = checkpoint.min(first_kept.unwrap_or(checkpoint));
    files.retain(|file| file.version < end);
    files.truncate(FILES_PER_STEP);
    (!files.is_empty()).then_some(Expired { checkpoint, files })
}

/// The version up to which all who read this log to catch up have taken it in, if anybody does.
pub(super) async fn needed_from(lake: &Lake, table: &str) -> Result<Option<i64>, LakeError> {
    let readers: Vec<String> = match table {
        BRONZE_PLAYER => [SILVER_PLAYER, SILVER_INTERVALS, SILVER_SESSIONS].map(String::from).into(),
        BRONZE_CDN => vec![SILVER_REQUESTS.to_string()],
        _ if WINDOWED_VIEWS.iter().any(|view| view.table == table) => {
            let names = lake.table_names().await.into_iter();
            names.filter(|name| name.starts_with("gold.")).collect()
        }
        _ => Vec::new(),
    };
    let is_silver = !table.starts_with("bronze.");
    let mut lowest = None;
    for reader in readers {
        let covered = match lake.covered(&reader, table).await? {
            // A gold table that covers nothing of it does not read it, or starts from its rows.
            None if is_silver => continue,
            covered => covered.unwrap_or(0),
        };
        lowest = Some(lowest.map_or(covered, |lowest: i64| lowest.min(covered)));
    }
    Ok(lowest)
}

/// Deletes the files, after making sure that the table can be read from the checkpoint.
pub(super) async fn clean_up(lake: &Lake, table: &str, expired: Expired) -> Result<Action, LakeError> {
    DeltaTableBuilder::from_url(lake.place.table_url(table))
        .map_err(table_error("open", table))?
        .with_storage_options(lake.place.options())
        .with_version(expired.checkpoint.unsigned_abs())
        .load()
        .await
        .map_err(table_error("read the checkpoint of", table))?;
    let action = expired.action(table);
    let store = lake.get(table).await?.table.object_store();
    for file in &expired.files {
        match store.delete(&file.path).await {
            Ok(()) | Err(deltalake::ObjectStoreError::NotFound { .. }) => {}
            Err(error) => return Err(table_error("clean up the log of", table)(error.into())),
        }
        tokio::task::yield_now().await;
    }
    lake.reload(table).await?;
    Ok(action)
}

impl Lake {
    /// Reads the table anew, so that nothing in memory leans on log files that are gone.
    async fn reload(&self, name: &str) -> Result<(), LakeError> {
        let turns = self.turns(name);
        let _turn = turns.commit().await;
        let table = self.load(name).await?;
        self.put(name, table).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: i64, kind: Kind, modified_ms: i64) -> LogFile {
        LogFile {
            path: StorePath::from("x"),
            version,
            kind,
            modified_ms,
        }
    }

    /// Ten commits with checkpoints at 3 and 7, written at 10 ms each.
    #[track_caller]
    fn check(needed_from: i64, before_ms: i64, expected: Option<(i64, usize)>) {
        let mut files: Vec<LogFile> = (0..10).map(|version| file(version, Kind::Commit, version * 10)).collect();
        files.push(file(3, Kind::Checkpoint, 30));
        files.push(file(7, Kind::Checkpoint, 70));
        files.sort_by_key(|file| file.version);
        let found = expired(files, needed_from, before_ms);
        assert_eq!(found.map(|expired| (expired.checkpoint, expired.files.len())), expected);
    }

    #[test]
    fn what_lies_before_the_checkpoint_that_all_readers_have_passed_goes() {
        check(9, 1_000, Some((7, 8)));
        check(6, 1_000, Some((3, 3)));
        check(2, 1_000, None);
    }

    #[test]
    fn young_log_files_stay_with_all_that_follow() {
        check(9, 15, Some((7, 2)));
        check(9, -1, None);
    }

    #[test]
    fn names_of_log_files_are_told_apart() {
        assert_eq!(parsed("00000000000000000012.json"), Some((12, Kind::Commit)));
        assert_eq!(parsed("00000000000000000012.checkpoint.parquet"), Some((12, Kind::Checkpoint)));
        assert_eq!(parsed("00000000000000000012.crc"), Some((12, Kind::Other)));
        assert_eq!(parsed("_last_checkpoint"), None);
        assert_eq!(parsed("0000000000000000000x.json"), None);
    }
}
