//! Upkeep of the lake: small files are put together, the log is kept short, what nothing names any
//! more is deleted, and what has outlived its layer's retention is dropped.
//!
//! Stands beside ingest and the roll-up and may run at any moment between and beside their commits.
//! One step does one bounded thing to one table; the daemon calls it again and again, `playhead
//! upkeep` until nothing is left to do.
//!
//! Invariant: no query sees another answer after a step than before it, except that rows of days
//! beyond the retention are gone.
//! Invariant: a commit of upkeep moves no position, touches no minute and carries the newest note of
//! its table on, so that whoever reads the log sees only what ingest and the roll-up wrote.
//! Invariant: killed at any moment, the table opens with the same rows; what a killed step leaves
//! behind are files that the next vacuum deletes.

mod carry;
mod compact;
mod files;
mod log;
mod retention;
mod vacuum;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::tables::{SILVER_INTERVALS, SILVER_SESSIONS};
use super::{Lake, LakeError};
pub use log::CHECKPOINT_EVERY;

/// Days for which the rows of a layer are kept; `None` keeps them for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub bronze_days: Option<u32>,
    pub silver_days: Option<u32>,
    pub gold_days: Option<u32>,
    /// `silver.rejects` and `silver.duplicates`: they explain the intake and are of use for some days.
    pub rejects_days: Option<u32>,
}

/// What upkeep may do, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpkeepSettings {
    /// Size that compaction works towards.
    pub target_bytes: u64,
    /// So many small files of a day are put together at once; a day at rest is put together from two on.
    pub min_files: usize,
    /// Time between two compactions of a table: commits that come faster than this do not make it work
    /// at every few of them.
    pub compact_every_ms: i64,
    /// Bytes read and written a minute at the most, on average.
    pub io_bytes_per_minute: u64,
    /// Memory for sorting; beyond it sorting goes to the temporary folder.
    pub memory_bytes: usize,
    /// A file that the log never named is deleted when it is older than this.
    pub orphan_grace_ms: i64,
    /// A file that a commit took out is deleted this much later: longer than the longest query.
    pub removed_grace_ms: i64,
    /// Time between two looks for files to delete, per table.
    pub vacuum_every_ms: i64,
    /// The newest versions of a log that are always kept.
    pub versions_kept: i64,
    /// A log file is deleted when it is older than this, too.
    pub log_grace_ms: i64,
    pub retention: Retention,
}

const HOUR_MS: i64 = 3_600_000;
const MIB: u64 = 1 << 20;
/// How long checkpoints name removed files. `removed_grace_ms` must not be longer: a file that the log
/// no longer names at all counts as never committed.
pub const TOMBSTONES_KEPT_HOURS: i64 = 24;
const MINUTE_MS: i64 = 60_000;
/// A table to which nothing is committed is looked at this often: days come to rest and expire.
const LOOK_AGAIN_MS: i64 = 10 * MINUTE_MS;

/// Tables whose newest rows are replaced from epoch to epoch.
const EDITED_TABLES: [&str; 2] = [SILVER_SESSIONS, SILVER_INTERVALS];

impl Default for UpkeepSettings {
    fn default() -> UpkeepSettings {
        UpkeepSettings {
            target_bytes: 128 * MIB,
            min_files: 8,
            compact_every_ms: 10_000,
            io_bytes_per_minute: 256 * MIB,
            memory_bytes: 256 << 20,
            orphan_grace_ms: HOUR_MS,
            removed_grace_ms: HOUR_MS,
            vacuum_every_ms: HOUR_MS,
            versions_kept: 1_000,
            log_grace_ms: HOUR_MS,
            retention: Retention {
                bronze_days: Some(7),
                silver_days: Some(30),
                gold_days: Some(400),
                rejects_days: Some(7),
            },
        }
    }
}

impl UpkeepSettings {
    /// What is wrong with these settings, for the settings check.
    pub fn complaint(&self) -> Option<String> {
        let longest_ms = TOMBSTONES_KEPT_HOURS * HOUR_MS;
        if self.removed_grace_ms > longest_ms {
            return Some(format!(
                "the grace for removed files is longer than {TOMBSTONES_KEPT_HOURS} hours, which is how long the log remembers them; lower it"
            ));
        }
        if self.min_files < 2 || self.target_bytes < MIB {
            return Some("compaction needs at least 2 files and a target of at least 1 MiB".to_string());
        }
        None
    }
}

/// One thing that upkeep did, or (in a dry run) would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// The log up to this version can be read from one file.
    Checkpoint { table: String, version: i64 },
    /// Small files of a day were put together.
    Compact {
        table: String,
        day: String,
        files: usize,
        bytes: u64,
        rows: i64,
    },
    /// Some of the files changed meanwhile: the day is left for a later step.
    Postpone { table: String, day: String },
    /// Days before `kept_from` were dropped.
    Drop {
        table: String,
        kept_from: String,
        files: usize,
        rows: i64,
    },
    /// Log files of versions before `kept_from` were deleted.
    CleanLog { table: String, kept_from: i64, files: usize },
    /// Files that nothing names were deleted.
    Vacuum { table: String, files: usize, bytes: u64 },
}

/// What one step did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub actions: Vec<Action>,
    /// Bytes read and written, deletions reckoned at a small price each.
    pub io_bytes: u64,
    /// Nothing more to do now: everything is done, or this minute's bytes are used up.
    pub is_idle: bool,
}

impl Report {
    /// Nothing was done.
    fn idle() -> Report {
        Report {
            is_idle: true,
            ..Report::default()
        }
    }
}

/// Upkeep of one lake. Several of them on one lake take turns table by table.
pub struct Upkeep {
    lake: Arc<Lake>,
    settings: UpkeepSettings,
    /// Bytes that may be moved now; below zero after a large step, until time has paid for it.
    allowance: i64,
    paid_until_ms: Option<i64>,
    /// The table that the last step looked at.
    last_table: Option<String>,
    compacted_ms: BTreeMap<String, i64>,
    vacuumed_ms: BTreeMap<String, i64>,
    /// Version and time at which nothing was due.
    at_rest: BTreeMap<String, (i64, i64)>,
    /// Version at which the log was last looked through.
    log_seen: BTreeMap<String, i64>,
    /// Tables' days of which a compaction met an edit, and when.
    contested: BTreeMap<(String, String), i64>,
}

impl Upkeep {
    pub fn new(lake: Arc<Lake>, settings: UpkeepSettings) -> Upkeep {
        Upkeep {
            lake,
            settings,
            allowance: 0,
            paid_until_ms: None,
            last_table: None,
            compacted_ms: BTreeMap::new(),
            vacuumed_ms: BTreeMap::new(),
            at_rest: BTreeMap::new(),
            log_seen: BTreeMap::new(),
            contested: BTreeMap::new(),
        }
    }

    /// Does the next thing that is due, to one table.
    ///
    /// # Errors
    /// Whatever the lake says. The table is as it was or as it was to be; the next step tries again.
    pub async fn step(&mut self, now_ms: i64) -> Result<Report, LakeError> {
        self.lake.refuse_if_lost()?;
        self.pay(now_ms);
        if self.allowance <= 0 {
            return Ok(Report::idle());
        }
        for table in self.tables_in_turn().await {
            self.last_table = Some(table.clone());
            let version = self.lake.version(&table).await?;
            if self.is_at_rest(&table, version, now_ms) {
                continue;
            }
            let turns = self.lake.turns(&table);
            let Some(_lease) = turns.upkeep() else { continue };
            if let Some((action, io_bytes)) = self.next_of(&table, now_ms).await? {
                self.allowance = self.allowance.saturating_sub_unsigned(io_bytes);
                self.at_rest.remove(&table);
                return Ok(Report {
                    actions: vec![action],
                    io_bytes,
                    is_idle: false,
                });
            }
            self.at_rest.insert(table, (version, now_ms));
            tokio::task::yield_now().await;
        }
        Ok(Report::idle())
    }

    /// What cannot wait until a backlog is carried: small files of tables whose rows are replaced for as
    /// long as their sessions go on, which every epoch and every window has to open. One small piece of one
    /// table, or nothing.
    ///
    /// # Errors
    /// As `step`.
    pub async fn step_beside_a_backlog(&mut self, now_ms: i64) -> Result<Report, LakeError> {
        self.lake.refuse_if_lost()?;
        self.pay(now_ms);
        if self.allowance <= 0 {
            return Ok(Report::idle());
        }
        for table in EDITED_TABLES {
            let turns = self.lake.turns(table);
            let Some(_lease) = turns.upkeep() else { continue };
            let due = compact::due(&self.lake, table, &self.settings, now_ms).await?;
            let Some(group) = due.into_iter().find_map(compact::Group::quick) else {
                continue;
            };
            let io_bytes = group.io_bytes();
            let done = compact::carry_out(&self.lake, table, &group, self.settings.memory_bytes, true).await?;
            self.allowance = self.allowance.saturating_sub_unsigned(io_bytes);
            return Ok(Report {
                actions: done.into_iter().collect(),
                io_bytes,
                is_idle: false,
            });
        }
        Ok(Report::idle())
    }

    /// True if nothing was due a while ago and nothing was committed since.
    fn is_at_rest(&self, table: &str, version: i64, now_ms: i64) -> bool {
        let looked = self.at_rest.get(table);
        looked.is_some_and(|(at_version, at_ms)| *at_version == version && (now_ms - at_ms).abs() < LOOK_AGAIN_MS)
    }

    /// Does everything that is due, with no regard to the budget: for a lake that nobody else uses.
    ///
    /// # Errors
    /// As `step`; what was done before stays done.
    pub async fn run_all(&mut self, now_ms: i64, told: &mut (dyn FnMut(&Action) + Send)) -> Result<Report, LakeError> {
        let mut all = Report::idle();
        loop {
            self.allowance = i64::MAX;
            self.compacted_ms.clear();
            let report = self.step(now_ms).await?;
            report.actions.iter().for_each(&mut *told);
            all.io_bytes += report.io_bytes;
            all.actions.extend(report.actions);
            if report.is_idle {
                return Ok(all);
            }
        }
    }

    /// What is due now, table by table. Changes nothing; compaction of a table may go in several steps
    /// of which this names the first.
    ///
    /// # Errors
    /// Whatever reading the lake says.
    pub async fn plan(&self, now_ms: i64) -> Result<Vec<Action>, LakeError> {
        let mut due = Vec::new();
        for table in self.lake.table_names().await {
            due.extend(log::due_checkpoint(&self.lake, &table).await?);
            let drop = retention::due(&self.lake, &table, &self.settings.retention, now_ms).await?;
            due.extend(drop.map(|drop| drop.action(&table)));
            let groups = compact::due(&self.lake, &table, &self.settings, now_ms).await?;
            due.extend(groups.iter().map(|group| group.action(&table)));
            let expired = log::due_clean_up(&self.lake, &table, &self.settings, now_ms).await?;
            due.extend(expired.map(|expired| expired.action(&table)));
            let litter = vacuum::due(&self.lake, &table, &self.settings, now_ms).await?;
            due.extend(litter.action(&table));
        }
        Ok(due)
    }

    fn pay(&mut self, now_ms: i64) {
        let a_minute = i64::try_from(self.settings.io_bytes_per_minute).unwrap_or(i64::MAX);
        // A clock that was turned back pays nothing and takes nothing.
        let passed_ms = match self.paid_until_ms {
            Some(until_ms) => (now_ms - until_ms).clamp(0, MINUTE_MS),
            None => MINUTE_MS,
        };
        self.paid_until_ms = Some(now_ms);
        let earned = a_minute.saturating_mul(passed_ms) / MINUTE_MS;
        self.allowance = self.allowance.saturating_add(earned).min(a_minute.max(self.allowance));
    }

    /// All tables, beginning with the one after the last.
    async fn tables_in_turn(&self) -> Vec<String> {
        let mut tables = self.lake.table_names().await;
        if let Some(last) = &self.last_table {
            let next = tables.partition_point(|table| table <= last);
            tables.rotate_left(next);
        }
        tables
    }

    async fn next_of(&mut self, table: &str, now_ms: i64) -> Result<Option<(Action, u64)>, LakeError> {
        if let Some(action) = log::due_checkpoint(&self.lake, table).await? {
            self.lake.checkpoint(table).await?;
            return Ok(Some((action, 0)));
        }
        if let Some(drop) = retention::due(&self.lake, table, &self.settings.retention, now_ms).await?
            && let Some(action) = retention::carry_out(&self.lake, table, drop).await?
        {
            return Ok(Some((action, 0)));
        }
        if let Some(done) = self.compact(table, now_ms).await? {
            return Ok(Some(done));
        }
        if let Some(done) = self.clean_log(table, now_ms).await? {
            return Ok(Some(done));
        }
        self.vacuum(table, now_ms).await
    }

    async fn clean_log(&mut self, table: &str, now_ms: i64) -> Result<Option<(Action, u64)>, LakeError> {
        let version = self.lake.version(table).await?;
        // Between two checkpoints nothing more can go.
        if self.log_seen.get(table).is_some_and(|seen| version - seen < CHECKPOINT_EVERY) {
            return Ok(None);
        }
        let Some(expired) = log::due_clean_up(&self.lake, table, &self.settings, now_ms).await? else {
            self.log_seen.insert(table.to_string(), version);
            return Ok(None);
        };
        let cost = vacuum::cost_of_deleting(expired.files());
        let action = log::clean_up(&self.lake, table, expired).await?;
        Ok(Some((action, cost)))
    }

    async fn compact(&mut self, table: &str, now_ms: i64) -> Result<Option<(Action, u64)>, LakeError> {
        let last_ms = self.compacted_ms.get(table);
        if last_ms.is_some_and(|last_ms| (now_ms - last_ms).abs() < self.settings.compact_every_ms) {
            return Ok(None);
        }
        let due = compact::due(&self.lake, table, &self.settings, now_ms).await?;
        let key_of = |group: &compact::Group| (table.to_string(), group.day().to_string());
        let is_contested = |group: &compact::Group| {
            let met_ms = self.contested.get(&key_of(group));
            met_ms.is_some_and(|met_ms| (now_ms - met_ms).abs() < LOOK_AGAIN_MS)
        };
        // Of a day that is being edited little is taken at a time, with edits held off meanwhile.
        let mut groups = due.into_iter().filter_map(|group| match is_contested(&group) {
            true => group.quick().map(|group| (group, true)),
            false => Some((group, false)),
        });
        let Some((group, hold_off_edits)) = groups.next() else {
            return Ok(None);
        };
        self.compacted_ms.insert(table.to_string(), now_ms);
        let io_bytes = group.io_bytes();
        let done = compact::carry_out(&self.lake, table, &group, self.settings.memory_bytes, hold_off_edits).await?;
        let action = done.unwrap_or_else(|| {
            self.contested.insert(key_of(&group), now_ms);
            // The next try is a small one that no edit can cross.
            self.compacted_ms.remove(table);
            group.postponed(table)
        });
        Ok(Some((action, io_bytes)))
    }

    async fn vacuum(&mut self, table: &str, now_ms: i64) -> Result<Option<(Action, u64)>, LakeError> {
        let last_ms = self.vacuumed_ms.get(table);
        if last_ms.is_some_and(|last_ms| (now_ms - last_ms).abs() < self.settings.vacuum_every_ms) {
            return Ok(None);
        }
        let litter = vacuum::due(&self.lake, table, &self.settings, now_ms).await?;
        let swept = vacuum::sweep(&self.lake, table, litter).await?;
        if swept.is_all {
            self.vacuumed_ms.insert(table.to_string(), now_ms);
        }
        let cost = vacuum::cost_of_deleting(swept.files);
        Ok(swept.action(table).map(|action| (action, cost)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::lake::place::Place;

    #[tokio::test]
    async fn bytes_are_earned_by_the_minute_and_a_large_step_is_paid_off_first() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let lake = Lake::open(Place::folder(folder.path()).expect("a folder is a place"), Arc::new(SystemClock))
            .await
            .expect("the lake opens");
        let settings = UpkeepSettings {
            io_bytes_per_minute: 600,
            ..UpkeepSettings::default()
        };
        let mut upkeep = Upkeep::new(Arc::new(lake), settings);
        upkeep.pay(0);
        assert_eq!(upkeep.allowance, 600);
        upkeep.allowance -= 1_000;
        upkeep.pay(30_000);
        assert_eq!(upkeep.allowance, -100);
        assert!(upkeep.step(30_000).await.expect("the step goes well").is_idle);
        upkeep.pay(60_000);
        assert_eq!(upkeep.allowance, 200);
        upkeep.pay(50_000);
        assert_eq!(upkeep.allowance, 200);
        upkeep.pay(600_000);
        assert_eq!(upkeep.allowance, 600);
    }

    #[test]
    fn a_grace_that_the_log_forgets_is_complained_of() {
        assert_eq!(UpkeepSettings::default().complaint(), None);
        let settings = UpkeepSettings {
            removed_grace_ms: 25 * HOUR_MS,
            ..UpkeepSettings::default()
        };
        assert!(settings.complaint().is_some());
    }
}
