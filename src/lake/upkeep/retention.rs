//! Retention: whole days of a layer are dropped when they have outlived it.
//!
//! A day goes when it lies further back than the retention and nothing of it came in for as long: rows
//! of an old day that were read today (a backfill, a demonstration) stay for the whole retention.
//!
//! Invariant: events are kept a day longer than the sessions and intervals made of them, so that a
//! session whose row is kept can always be made again from its events.
//! Invariant: the first day that is kept is a marker of the table; no gold window before it is computed
//! again from a silver that no longer has its rows.

use std::collections::BTreeSet;

use deltalake::kernel::{Action as DeltaAction, Transaction};
use deltalake::protocol::DeltaOperation;
use serde_json::json;

use super::files::{FileInfo, removes, settled_files_of};
use super::{Action, Retention, carry};
use crate::event::schema::utc_day;
use crate::lake::tables::{HEALTH, PARTITION_COLUMN, SILVER_DUPLICATES, SILVER_PLAYER, SILVER_REJECTS};
use crate::lake::{Lake, LakeError};

const DAY_MS: i64 = 86_400_000;
/// Application under which a table says from which day (since 1970) on it is kept.
const KEPT_FROM: &str = "playhead:kept_from";

/// Files of days that are to be dropped.
pub(super) struct Outlived {
    kept_from: i32,
    files: Vec<FileInfo>,
}

impl Outlived {
    pub(super) fn action(&self, table: &str) -> Action {
        Action::Drop {
            table: table.to_string(),
            kept_from: date(self.kept_from),
            files: self.files.len(),
            rows: self.files.iter().map(|file| file.rows).sum(),
        }
    }
}

fn date(day: i32) -> String {
    chrono::DateTime::from_timestamp(i64::from(day) * 86_400, 0).map_or_else(String::new, |at| at.format("%Y-%m-%d").to_string())
}

/// Days that a table's rows are kept.
fn days_kept(table: &str, retention: &Retention) -> Option<i64> {
    let days = match table.split('.').next() {
        _ if [SILVER_REJECTS, SILVER_DUPLICATES, HEALTH].contains(&table) => retention.rejects_days,
        _ if table == SILVER_PLAYER => retention.silver_days.map(|days| days.saturating_add(1)),
        Some("bronze") => retention.bronze_days,
        Some("silver") => retention.silver_days,
        Some("gold") => retention.gold_days,
        _ => None,
    };
    days.map(i64::from)
}

pub(super) async fn due(lake: &Lake, table: &str, retention: &Retention, now_ms: i64) -> Result<Option<Outlived>, LakeError> {
    let Some(days) = days_kept(table, retention) else { return Ok(None) };
    let files = settled_files_of(lake, table).await?;
    Ok(outlived(&files, days, now_ms))
}

fn outlived(files: &[FileInfo], days: i64, now_ms: i64) -> Option<Outlived> {
    let horizon_ms = now_ms - days * DAY_MS;
    let kept_from = utc_day(horizon_ms);
    let day_of = |file: &FileInfo| file.day_number();
    let is_old = |file: &FileInfo| day_of(file).is_some_and(|day| day < kept_from);
    let in_use: BTreeSet<i32> = files
        .iter()
        .filter(|file| is_old(file) && file.modified_ms >= horizon_ms)
        .filter_map(day_of)
        .collect();
    let files: Vec<FileInfo> = files
        .iter()
        .filter(|file| is_old(file) && day_of(file).is_some_and(|day| !in_use.contains(&day)))
        .cloned()
        .collect();
    let newest_dropped = files.iter().filter_map(day_of).max()?;
    Some(Outlived {
        // Days in use before it are still there, and their windows are no longer computed anew.
        kept_from: newest_dropped + 1,
        files,
    })
}

/// Drops the days in one commit. `None` if the files changed meanwhile.
pub(super) async fn carry_out(lake: &Lake, table: &str, drop: Outlived) -> Result<Option<Action>, LakeError> {
    let turns = lake.turns(table);
    let _held = turns.edit().await;
    let _turn = turns.commit().await;
    let Some(taken_out) = removes(lake, table, &drop.files, true).await? else {
        return Ok(None);
    };
    let action = drop.action(table);
    let kept_from = lake.kept_from_day(table).await?.unwrap_or(i64::MIN).max(i64::from(drop.kept_from));
    let change = carry::Change {
        actions: taken_out.into_iter().map(DeltaAction::Remove).collect(),
        operation: DeltaOperation::Delete {
            predicate: Some(format!("{PARTITION_COLUMN} < '{}'", date(drop.kept_from))),
        },
        note: json!({"dropped_before": date(drop.kept_from), "files": drop.files.len()}),
        markers: vec![Transaction::new(KEPT_FROM, kept_from)],
    };
    carry::commit(lake, table, change).await?;
    lake.remember_kept_from(table, Some(kept_from));
    Ok(Some(action))
}

impl Lake {
    /// The day (since 1970) from which on retention has left the table's rows. `None`: nothing dropped.
    pub async fn kept_from_day(&self, name: &str) -> Result<Option<i64>, LakeError> {
        let known = self
            .kept_from
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .get(name)
            .copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let day = self.covered(name, KEPT_FROM).await?;
        self.remember_kept_from(name, day);
        Ok(day)
    }

    fn remember_kept_from(&self, name: &str, day: Option<i64>) {
        let mut known = self.kept_from.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.insert(name.to_string(), day);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 20_000 * DAY_MS + 5_000;

    /// A file of the day so many days back, last written so many days ago.
    fn file(days_back: i32, written_days_ago: i64) -> FileInfo {
        FileInfo {
            path: format!("{days_back}-{written_days_ago}"),
            day: date(20_000 - days_back),
            bytes: 10,
            rows: 1,
            modified_ms: NOW_MS - written_days_ago * DAY_MS,
        }
    }

    #[track_caller]
    fn check(files: &[FileInfo], dropped: &[&str]) {
        let drop = outlived(files, 7, NOW_MS);
        let names: Vec<String> = drop
            .map(|drop| drop.files.into_iter().map(|file| file.path).collect())
            .unwrap_or_default();
        assert_eq!(names, dropped);
    }

    #[test]
    fn a_day_goes_when_it_is_older_than_the_retention() {
        check(&[file(9, 9), file(8, 8), file(7, 8), file(0, 0)], &["9-9", "8-8"]);
    }

    #[test]
    fn a_day_that_was_written_lately_stays_whole() {
        check(&[file(300, 2), file(300, 290), file(8, 8)], &["8-8"]);
    }

    #[test]
    fn each_layer_has_its_own_retention_and_events_outlive_their_sessions_by_a_day() {
        let retention = Retention {
            bronze_days: Some(7),
            silver_days: Some(30),
            gold_days: None,
            rejects_days: Some(3),
        };
        let check = |table: &str, days| assert_eq!(days_kept(table, &retention), days, "{table}");
        check("bronze.player_events", Some(7));
        check("silver.playback_sessions", Some(30));
        check("silver.player_events", Some(31));
        check("silver.rejects", Some(3));
        check("gold.playback_1m", None);
        check("ops.alert_events", None);
    }
}
