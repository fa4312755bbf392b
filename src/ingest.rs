//! The epoch: one bounded batch from the source to committed bronze and silver.
//!
//! Drives intake, dedupe, the session engine and the lake, in this order: rejects, bronze, silver
//! events, intervals, sessions, requests. What a table covers of bronze is its transaction marker.
//!
//! Invariant: bronze is the ground. A silver table that is behind after a crash is brought up from
//! the bronze commits that it lacks (`recover`), and comes out the same.
//! Invariant: received = stored + duplicates + rejected, for each commit and in the totals.

pub mod dedupe;
pub mod history;
pub mod intake;
pub mod ledger;
mod positions;
pub mod snapshots;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::enrich::Enricher;
use crate::event::decode::Kind;
use crate::event::schema::{
    Column, PlayerRow, Provenance, RejectRow, RequestRow, Sorted, bronze_cdn_columns, bronze_player_columns, count_duplicates,
    duplicate_columns, interval_columns, record_batch, reject_columns, session_columns, silver_cdn_columns, silver_player_columns,
};
use crate::lake::commit::Prepared;
use crate::lake::scan::{is_not_true, is_one_of, is_true};
use crate::lake::tables::{
    BRONZE_CDN, BRONZE_PLAYER, SILVER_DUPLICATES, SILVER_INTERVALS, SILVER_PLAYER, SILVER_REJECTS, SILVER_REQUESTS, SILVER_SESSIONS,
};
use crate::lake::{Commit, Lake, LakeError, TimeRange, Victims, row_hash};
use crate::privacy::Privacy;
use crate::session::{FactChanges, KeyedEvent, SessionSettings, Sessions};
use crate::source::Mark;
use crate::source::objects::Known;
use crate::telemetry::metrics::{SessionSize, SourceCounts};
use crate::watermark::Watermarks;
use dedupe::{Dedupe, hour_range_ms};
use intake::{Batch, NewPartition, Position};
use positions::Positions;

const DAY_MS: i64 = 86_400_000;
/// A session that has been silent for longer than this has ended: the idle gap and a margin.
const STILL_ALIVE_MS: i64 = 40 * 60_000;
/// Past any event time that the decoders let through, and safe to turn into microseconds.
const END_OF_TIME_MS: i64 = i64::MAX / 1000;
/// Session keys asked of the lake in one query, to bound the length of its condition.
const KEYS_PER_QUERY: usize = 5_000;

/// What became of the records of a batch, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub received: u64,
    pub stored: u64,
    pub duplicates: u64,
    pub rejected: u64,
}

/// What became of one batch.
#[derive(Debug, Clone, Default)]
pub struct Epoch {
    pub counts: Counts,
    /// By the index of the source.
    pub by_source: BTreeMap<usize, SourceCounts>,
    /// Stored records whose minute had been closed.
    pub late: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.received += other.received;
        self.stored += other.stored;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
    }

    fn to_json(self) -> Value {
        json!({"received": self.received, "stored": self.stored, "duplicates": self.duplicates, "rejected": self.rejected})
    }

    fn from_json(value: &Value) -> Counts {
        let count = |key: &str| value[key].as_u64().unwrap_or(0);
        Counts {
            received: count("received"),
            stored: count("stored"),
            duplicates: count("duplicates"),
            rejected: count("rejected"),
        }
    }
}

/// The state of ingest between epochs. All of it can be rebuilt from the lake.
pub struct Ingest {
    lake: Arc<Lake>,
    enricher: Arc<Enricher>,
    privacy: Arc<Privacy>,
    player_ids: Dedupe,
    request_ids: Dedupe,
    sessions: Sessions,
    watermarks: Watermarks,
    /// The watermark of the run before, under which this one never falls.
    watermark_floor_ms: Option<i64>,
    totals: BTreeMap<&'static str, Counts>,
    positions: Positions,
    shards: usize,
    /// Folder of the snapshots of the session engine.
    snapshots: PathBuf,
    /// The last bronze commit of player events, if it is of this run or of the snapshot that it began with.
    bronze_version: Option<i64>,
    /// The engine has the events of every bronze commit, and the tables of facts have its rows. False once
    /// an epoch has failed half-way.
    is_whole: bool,
    /// What the newest snapshot was made of: its bronze version and the engine's watermark.
    snapshot_at: Option<(i64, Option<i64>)>,
}

impl Ingest {
    /// Takes up the lake where it stands, bringing silver up to bronze first.
    /// `folder` is the daemon's own, for what is kept to start faster.
    ///
    /// # Errors
    /// A table cannot be read or written.
    pub async fn open(
        lake: Arc<Lake>,
        enricher: Arc<Enricher>,
        privacy: Arc<Privacy>,
        shards: usize,
        folder: &Path,
        now_ms: i64,
    ) -> Result<Ingest, LakeError> {
        let positions = Positions::open(&lake, folder).await?;
        let mut ingest = Ingest {
            lake,
            enricher,
            privacy,
            player_ids: Dedupe::default(),
            request_ids: Dedupe::default(),
            sessions: Sessions::new(SessionSettings::default(), shards),
            watermarks: Watermarks::default(),
            watermark_floor_ms: None,
            totals: BTreeMap::new(),
            positions,
            shards,
            snapshots: folder.join(snapshots::FOLDER),
            bronze_version: None,
            is_whole: false,
            snapshot_at: None,
        };
        ingest.recover(now_ms).await?;
        ingest.is_whole = true;
        Ok(ingest)
    }

    /// Event time up to which the input is believed complete, ms.
    pub fn watermark_ms(&self) -> Option<i64> {
        self.watermarks.current().max(self.watermark_floor_ms)
    }

    /// All records since the lake was made.
    pub fn totals(&self) -> Counts {
        let mut all = Counts::default();
        self.totals.values().for_each(|counts| all.add(*counts));
        all
    }

    pub fn open_sessions(&self) -> usize {
        self.sessions.open_sessions()
    }

    pub fn session_size(&self) -> SessionSize {
        SessionSize {
            open: self.sessions.open_sessions(),
            events_in_memory: self.sessions.events_in_memory(),
            events_left_out: self.sessions.events_left_out(),
        }
    }

    /// Where a partition is to be read from; `None`: the lake has nothing of it.
    pub async fn position_of(&self, partition: &Arc<str>) -> Result<Option<Mark>, LakeError> {
        self.positions.of(&self.lake, partition).await
    }

    /// What the objects sources ask before they read an object.
    pub fn known_objects(&self, clock: Arc<dyn Clock>) -> Known {
        self.positions.known(clock)
    }

    /// A partition that is known and not read yet holds the watermark: a file at its first event for as
    /// long as it takes, one whose first event is not known where the watermark is, for a while.
    pub fn expect(&mut self, new: &NewPartition, now_ms: i64) {
        match new.first_event_ms {
            Some(first_event_ms) => self.watermarks.expect(&new.partition, first_event_ms),
            None if new.is_live => self.watermarks.assign(&new.partition, now_ms),
            None => {}
        }
    }

    /// Partitions that are not ours any more hold nothing back.
    pub fn release(&mut self, lost: &[Arc<str>]) {
        for partition in lost {
            self.watermarks.finish(partition);
        }
        self.positions.release(lost);
    }

    /// Writes what only saves time at the next start; that it cannot be written stops nothing.
    pub async fn save_caches(&mut self) {
        for saved in [self.positions.save(&self.lake).await, self.save_snapshot().await] {
            if let Err(error) = saved {
                tracing::warn!("{}; the next start takes longer", crate::telemetry::chain(&error));
            }
        }
    }

    /// Releases files that have been silent for long, or one of them would hold every window open.
    pub fn release_idle(&mut self, now_ms: i64) {
        self.watermarks.release_idle(now_ms);
    }

    /// Carries one batch to committed bronze and silver. `closed_ms`: windows that end at or before it have
    /// been computed.
    pub async fn commit_batch(&mut self, batch: Batch, closed_ms: Option<i64>, now_ms: i64) -> Result<Epoch, LakeError> {
        let Batch {
            players,
            reports,
            requests,
            rejects,
            positions,
            is_full: _,
        } = batch;
        let (players, known) = self.drop_known_players(players).await?;
        // One that the lake has came with a request that it has, which is counted.
        let (reports, _) = self.drop_known_players(reports).await?;
        let requests = self.drop_known_requests(requests).await?;
        self.positions.advance(&positions);
        for position in &positions {
            if let Some(newest_ms) = position.newest_ms {
                self.watermarks.observe(&position.partition, newest_ms, now_ms);
            }
            if position.finished {
                self.watermarks.finish(&position.partition);
            }
        }
        self.commit_rejects(&rejects, &positions).await?;
        self.commit_duplicates(&known, &positions).await?;
        drop(known);
        let times = players.iter().map(|row| row.event.event_ts_ms);
        let times = times.chain(requests.iter().map(|row| row.request.event_ts_ms));
        let mut epoch = Epoch {
            counts: Counts::default(),
            by_source: count_by_source(&players, &requests, &rejects, &positions),
            late: times.filter(|at_ms| Some(*at_ms) < closed_ms).count() as u64,
        };
        for (kind, stored) in [(Kind::Player, players.len()), (Kind::Cdn, requests.len())] {
            epoch.counts.add(count(kind, stored, &rejects, &positions));
        }
        // Reports before the requests that held them, whose commit says that they have been read.
        self.commit_players(players, reports, &rejects, &positions).await?;
        self.commit_requests(requests, &rejects, &positions).await?;
        self.positions.committed(&positions, now_ms);
        tracing::debug!(open = self.sessions.open_sessions(), events = self.sessions.events_in_memory(), watermark = ?self.watermark_ms(), "sessions in memory");
        self.player_ids.end_batch();
        self.request_ids.end_batch();
        Ok(epoch)
    }

    /// The rows that are new, and those that the lake holds already.
    async fn drop_known_players(&mut self, rows: Vec<PlayerRow>) -> Result<(Vec<PlayerRow>, Vec<PlayerRow>), LakeError> {
        let times = rows.iter().map(|row| row.event.event_ts_ms);
        // Silver is kept longer than bronze, and covers it whenever an epoch begins.
        load_hours(&self.lake, SILVER_PLAYER, &mut self.player_ids, times).await?;
        let known = &mut self.player_ids;
        Ok(rows
            .into_iter()
            .partition(|row| known.insert(row.event.event_ts_ms, event_id(&row.event.event_id))))
    }

    async fn drop_known_requests(&mut self, rows: Vec<RequestRow>) -> Result<Vec<RequestRow>, LakeError> {
        let times = rows.iter().map(|row| row.request.event_ts_ms);
        load_hours(&self.lake, SILVER_REQUESTS, &mut self.request_ids, times).await?;
        let known = &mut self.request_ids;
        Ok(rows
            .into_iter()
            .filter(|row| known.insert(row.request.event_ts_ms, event_id(&row.request.event_id)))
            .collect())
    }

    async fn commit_rejects(&mut self, rejects: &[RejectRow], positions: &[Position]) -> Result<(), LakeError> {
        let new = self.not_landed(SILVER_REJECTS, rejects, |row| &row.place, positions).await?;
        let rows = to_batch(SILVER_REJECTS, &reject_columns(), &new)?;
        self.land(SILVER_REJECTS, rows, positions, json!({"rejected": new.len()})).await
    }

    async fn commit_duplicates(&mut self, known: &[PlayerRow], positions: &[Position]) -> Result<(), LakeError> {
        let places: Vec<&PlayerRow> = known.iter().collect();
        let new = self.not_landed(SILVER_DUPLICATES, &places, |row| &row.place, positions).await?;
        let rows = to_batch(SILVER_DUPLICATES, &duplicate_columns(), &count_duplicates(new.iter().copied()))?;
        self.land(SILVER_DUPLICATES, rows, positions, json!({"duplicates": new.len()}))
            .await
    }

    /// Rejects and duplicates land before bronze, so they may be ahead after a crash: each partition's
    /// marker says from which byte on one is new.
    async fn not_landed<T: Clone>(
        &self,
        table: &'static str,
        rows: &[T],
        place: fn(&T) -> &Provenance,
        positions: &[Position],
    ) -> Result<Vec<T>, LakeError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut landed: HashMap<Arc<str>, i64> = HashMap::new();
        for position in positions {
            let covered = self.positions.landed(&self.lake, table, &position.partition).await?;
            landed.insert(Arc::clone(&position.partition), covered);
        }
        let is_new = |row: &&T| {
            let covered = landed.get(&place(row).source_partition);
            covered.is_none_or(|covered| place(row).source_offset >= *covered)
        };
        Ok(rows.iter().filter(is_new).cloned().collect())
    }

    async fn land(&self, table: &'static str, rows: RecordBatch, positions: &[Position], note: Value) -> Result<(), LakeError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut note = note;
        self.positions.note(&mut note, positions.iter());
        let mut covers = Vec::new();
        for (marker, to) in Positions::covers(positions.iter()) {
            let covered = self.lake.covered(table, &marker).await?.unwrap_or(0);
            covers.push((marker, to.max(covered)));
        }
        self.lake.append(table, vec![rows], Commit { covers, note }).await?;
        Ok(())
    }

    async fn commit_players(
        &mut self,
        mut rows: Vec<PlayerRow>,
        reports: Vec<PlayerRow>,
        rejects: &[RejectRow],
        positions: &[Position],
    ) -> Result<(), LakeError> {
        if reports.is_empty() && !positions.iter().any(|position| position.kind == Kind::Player) {
            return Ok(());
        }
        let counts = count(Kind::Player, rows.len(), rejects, positions);
        let mut commit = self.bronze_commit(Kind::Player, BRONZE_PLAYER, counts, positions);
        commit.note["reports"] = json!(reports.len());
        rows.extend(reports);
        let rows = Arc::new(rows);
        let (bronze, silver) = tokio::try_join!(
            self.prepare_rows(BRONZE_PLAYER, bronze_player_columns, &rows),
            self.prepare_rows(SILVER_PLAYER, silver_player_columns, &rows),
        )?;
        let events = keyed_events(&rows);
        drop(rows);
        let was_whole = std::mem::take(&mut self.is_whole);
        let version = self.lake.commit(BRONZE_PLAYER, bronze, commit).await?;
        self.lake
            .commit(SILVER_PLAYER, silver, self.silver_commit(BRONZE_PLAYER, version))
            .await?;
        self.load_missing(&events).await?;
        let changes = self.sessions.apply(events, self.watermark_ms());
        self.commit_facts(changes, version).await?;
        (self.is_whole, self.bronze_version) = (was_whole, Some(version));
        Ok(())
    }

    /// Rows to files, not yet committed. Each table is built on a task of its own.
    async fn prepare_rows<R: Send + Sync + 'static>(
        &self,
        table: &'static str,
        columns: fn() -> Vec<Column<R>>,
        rows: &Arc<Vec<R>>,
    ) -> Result<Prepared, LakeError> {
        let rows = Arc::clone(rows);
        let lake = Arc::clone(&self.lake);
        // On a worker and not on the blocking pool, whose many threads would each keep their memory.
        let building = tokio::spawn(async move {
            let by = lake.spec(table).await?.sort_columns.clone();
            lake.prepare_sorted(table, Sorted::new(columns(), &by, rows)).await
        });
        building.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    async fn commit_requests(&mut self, rows: Vec<RequestRow>, rejects: &[RejectRow], positions: &[Position]) -> Result<(), LakeError> {
        if !positions.iter().any(|position| position.kind == Kind::Cdn) {
            return Ok(());
        }
        let counts = count(Kind::Cdn, rows.len(), rejects, positions);
        let commit = self.bronze_commit(Kind::Cdn, BRONZE_CDN, counts, positions);
        let rows = Arc::new(rows);
        let (bronze, silver) = tokio::try_join!(
            self.prepare_rows(BRONZE_CDN, bronze_cdn_columns, &rows),
            self.prepare_rows(SILVER_REQUESTS, silver_cdn_columns, &rows),
        )?;
        drop(rows);
        let version = self.lake.commit(BRONZE_CDN, bronze, commit).await?;
        self.lake
            .commit(SILVER_REQUESTS, silver, self.silver_commit(BRONZE_CDN, version))
            .await?;
        Ok(())
    }

    /// Closes sessions whose time has run out although nothing new came for them.
    pub async fn close_due_sessions(&mut self) -> Result<(), LakeError> {
        let version = self.lake.version(BRONZE_PLAYER).await?;
        let was_whole = std::mem::take(&mut self.is_whole);
        let changes = self.sessions.apply(Vec::new(), self.watermark_ms());
        self.commit_facts(changes, version).await?;
        self.is_whole = was_whole;
        Ok(())
    }

    async fn commit_facts(&self, changes: FactChanges, bronze_version: i64) -> Result<(), LakeError> {
        let covered = self.lake.covered(SILVER_SESSIONS, BRONZE_PLAYER).await?;
        if changes == FactChanges::default() && covered == Some(bronze_version) {
            return Ok(());
        }
        let FactChanges {
            intervals_removed,
            intervals_added,
            sessions_removed,
            sessions_added,
            rewritten_keys,
        } = changes;
        let rewritten: HashSet<String> = rewritten_keys.into_iter().collect();
        let intervals = to_batch(SILVER_INTERVALS, &interval_columns(), &intervals_added)?;
        let sessions = to_batch(SILVER_SESSIONS, &session_columns(), &sessions_added)?;
        let (intervals, sessions) = tokio::try_join!(
            self.prepare_facts(SILVER_INTERVALS, "interval_start", &intervals_removed, &rewritten, intervals),
            self.prepare_facts(SILVER_SESSIONS, "started_at", &sessions_removed, &rewritten, sessions),
        )?;
        self.lake
            .commit(SILVER_INTERVALS, intervals, self.silver_commit(BRONZE_PLAYER, bronze_version))
            .await?;
        self.lake
            .commit(SILVER_SESSIONS, sessions, self.silver_commit(BRONZE_PLAYER, bronze_version))
            .await?;
        Ok(())
    }

    async fn prepare_facts(
        &self,
        table: &str,
        time_column: &str,
        removed: &[(String, i64)],
        rewritten: &HashSet<String>,
        added: RecordBatch,
    ) -> Result<Prepared, LakeError> {
        if removed.is_empty() && rewritten.is_empty() {
            return self.lake.prepare_append(table, vec![added]).await;
        }
        let range = if rewritten.is_empty() {
            TimeRange::around(removed.iter().map(|(_, at_ms)| *at_ms)).unwrap_or(TimeRange::ALL)
        } else {
            TimeRange::ALL
        };
        let mut victims: HashMap<&str, Vec<i64>> = HashMap::new();
        for (session_id, at_ms) in removed {
            victims.entry(session_id).or_default().push(at_ms * 1000);
        }
        let is_victim = |batch: &RecordBatch| -> Result<BooleanArray, arrow::error::ArrowError> {
            let ids = text_column(batch, "session_id")?;
            let keys = text_column(batch, "session_key")?;
            let times = batch[time_column].as_primitive::<TimestampMicrosecondType>().clone();
            Ok((0..batch.num_rows())
                .map(|row| {
                    let is_named = victims.get(ids.value(row)).is_some_and(|at| at.contains(&times.value(row)));
                    Some(is_named || rewritten.contains(keys.value(row)))
                })
                .collect())
        };
        let ids: HashSet<u64> = removed
            .iter()
            .map(|(session_id, at_ms)| row_hash(session_id, at_ms * 1000))
            .collect();
        let victims = Victims {
            range,
            // A key that is written anew may have had rows of any id.
            ids: rewritten.is_empty().then_some(&ids),
            is_victim: &is_victim,
        };
        self.lake.prepare_edit(table, victims, vec![added]).await
    }

    /// Brings into memory what the lake knows of the sessions that these events may continue.
    async fn load_missing(&mut self, events: &[KeyedEvent]) -> Result<(), LakeError> {
        let missing: HashSet<String> = self.sessions.missing(events).into_iter().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let times = events
            .iter()
            .filter(|event| missing.contains(&*event.session_key))
            .map(|event| event.event.event_ts_ms);
        // A session is at most 24 h long: the day before the first event holds whatever it may continue.
        let Some(first_ms) = times.min() else { return Ok(()) };
        let range = TimeRange {
            from_ms: first_ms - DAY_MS,
            to_ms: END_OF_TIME_MS,
        };
        let new: HashSet<u64> = events.iter().map(|event| event.event.event_id).collect();
        self.load_keys(missing.into_iter().collect(), range, &new).await
    }

    async fn load_keys(&mut self, keys: Vec<String>, range: TimeRange, except: &HashSet<u64>) -> Result<(), LakeError> {
        for keys in keys.chunks(KEYS_PER_QUERY) {
            let condition = is_one_of("session_key", keys.iter().cloned());
            let rows = self
                .lake
                .scan(SILVER_PLAYER, &history::SESSION_COLUMNS, range, Some(condition))
                .await?;
            let mut by_key: HashMap<String, Vec<_>> = keys.iter().map(|key| (key.clone(), Vec::new())).collect();
            for remembered in history::session_events(&rows) {
                if !except.contains(&remembered.event.event_id) {
                    by_key.entry(remembered.session_key).or_default().push(remembered.event);
                }
            }
            let loaded_from_ms = (range != TimeRange::ALL).then_some(range.from_ms);
            for (key, events) in by_key {
                self.sessions.load(&key, events, loaded_from_ms);
            }
        }
        Ok(())
    }

    fn bronze_commit(&mut self, kind: Kind, table: &'static str, counts: Counts, positions: &[Position]) -> Commit {
        let total = self.totals.entry(table).or_default();
        total.add(counts);
        let positions = positions.iter().filter(|position| position.kind == kind);
        let spans: serde_json::Map<String, Value> = positions
            .clone()
            .map(|position| (position.partition.to_string(), json!([position.from, position.to])))
            .collect();
        let covers = Positions::covers(positions.clone());
        let mut note = json!({
            "counts": counts.to_json(),
            "totals": total.to_json(),
            "positions": spans,
            "watermark_ms": self.watermark_ms(),
            "newest_ms": self.watermarks.newest(),
        });
        self.positions.note(&mut note, positions);
        Commit { covers, note }
    }

    fn silver_commit(&self, bronze: &str, version: i64) -> Commit {
        Commit {
            covers: vec![(bronze.to_string(), version)],
            note: json!({"bronze": {bronze: version}, "watermark_ms": self.watermark_ms()}),
        }
    }

    /// Brings silver up to bronze and the session engine up to silver.
    async fn recover(&mut self, now_ms: i64) -> Result<(), LakeError> {
        let mut newest_ms = None;
        for table in [BRONZE_PLAYER, BRONZE_CDN] {
            if let Some(note) = self.lake.newest_note(table, "totals").await? {
                self.totals.insert(table, Counts::from_json(&note["totals"]));
                self.watermark_floor_ms = self.watermark_floor_ms.max(note["watermark_ms"].as_i64());
                newest_ms = newest_ms.max(note["newest_ms"].as_i64());
            }
        }
        self.recover_requests().await?;
        let touched = self.recover_players().await?;
        self.recover_sessions(touched).await?;
        self.watermarks.restore(self.watermark_floor_ms, newest_ms, now_ms);
        Ok(())
    }

    async fn recover_requests(&self) -> Result<(), LakeError> {
        let covered = self.lake.covered(SILVER_REQUESTS, BRONZE_CDN).await?.unwrap_or(0);
        for (version, files) in self.bronze_after(BRONZE_CDN, covered).await? {
            let rows = self.lake.scan_files(BRONZE_CDN, files).await?;
            let remade = history::remake(&rows, &self.enricher, &self.privacy).requests;
            let rows = to_batch(SILVER_REQUESTS, &silver_cdn_columns(), &remade)?;
            self.lake
                .append(SILVER_REQUESTS, vec![rows], self.silver_commit(BRONZE_CDN, version))
                .await?;
        }
        Ok(())
    }

    /// Returns the session keys of the bronze commits that some silver table had not covered.
    async fn recover_players(&self) -> Result<BTreeSet<String>, LakeError> {
        let covered = |table: &'static str| self.lake.covered(table, BRONZE_PLAYER);
        let events = covered(SILVER_PLAYER).await?.unwrap_or(0);
        let facts = covered(SILVER_INTERVALS)
            .await?
            .unwrap_or(0)
            .min(covered(SILVER_SESSIONS).await?.unwrap_or(0));
        let mut touched = BTreeSet::new();
        for (version, files) in self.bronze_after(BRONZE_PLAYER, events.min(facts)).await? {
            let rows = self.lake.scan_files(BRONZE_PLAYER, files).await?;
            let remade = history::remake(&rows, &self.enricher, &self.privacy).players;
            let attributed = remade.iter().filter(|row| !row.event.unattributed);
            touched.extend(attributed.map(|row| row.event.session_key.clone()));
            if version > events {
                let rows = to_batch(SILVER_PLAYER, &silver_player_columns(), &remade)?;
                self.lake
                    .append(SILVER_PLAYER, vec![rows], self.silver_commit(BRONZE_PLAYER, version))
                    .await?;
            }
        }
        Ok(touched)
    }

    async fn bronze_after(&self, bronze: &str, version: i64) -> Result<Vec<(i64, Vec<String>)>, LakeError> {
        let log = self.lake.log_after(bronze, version).await?.ok_or_else(|| LakeError::Damaged {
            table: bronze.to_string(),
            what: format!("silver covers version {version} and the log no longer reaches back that far"),
        })?;
        // Commits of upkeep hold no new records and carry no positions.
        Ok(log
            .into_iter()
            .filter(|entry| entry.note["positions"].is_object())
            .map(|entry| (entry.version, entry.added))
            .collect())
    }

    /// Loads the sessions that may go on, and writes those anew that a crash may have left half done.
    async fn recover_sessions(&mut self, touched: BTreeSet<String>) -> Result<(), LakeError> {
        let Some(floor_ms) = self.watermark_floor_ms else { return Ok(()) };
        let intervals_as_of_ms = self.facts_as_of_ms(SILVER_INTERVALS).await?;
        let sessions_as_of_ms = self.facts_as_of_ms(SILVER_SESSIONS).await?;
        let is_half_done = !touched.is_empty() || intervals_as_of_ms != sessions_as_of_ms;
        // The notes of what is written from here on must not fall behind the rows.
        self.watermark_floor_ms = self.watermark_floor_ms.max(intervals_as_of_ms.min(sessions_as_of_ms));
        if let Some(as_of_ms) = intervals_as_of_ms.filter(|_| intervals_as_of_ms == sessions_as_of_ms)
            && self.resume(as_of_ms).await?
        {
            return Ok(());
        }
        // Requests move the watermark on without writing facts. Sessions that became due since are open
        // in the lake; taken up as they were written, the next commit closes them.
        let as_of_ms = intervals_as_of_ms.min(sessions_as_of_ms).unwrap_or(floor_ms);
        self.sessions.restore_watermark(as_of_ms);
        let recent = TimeRange {
            from_ms: as_of_ms - STILL_ALIVE_MS,
            to_ms: END_OF_TIME_MS,
        };
        let open = self
            .lake
            .scan(SILVER_SESSIONS, &["session_key"], TimeRange::ALL, Some(is_true("is_open")))
            .await?;
        let alive = self
            .lake
            .scan(SILVER_PLAYER, &["session_key"], recent, Some(is_not_true("unattributed")))
            .await?;
        let mut keys: BTreeSet<String> = history::texts(&open, "session_key").into_iter().collect();
        keys.extend(history::texts(&alive, "session_key"));
        keys.extend(touched.iter().cloned());
        if keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = keys.into_iter().collect();
        // A key that is written anew may have older sessions than those that can still go on.
        let range = if is_half_done { TimeRange::ALL } else { still_going_on(as_of_ms) };
        self.load_keys(keys.clone(), range, &HashSet::new()).await?;
        if !is_half_done {
            return Ok(());
        }
        let changes = self.sessions.rewrite(&keys, Some(floor_ms));
        let version = self.lake.version(BRONZE_PLAYER).await?;
        self.commit_facts(changes, version).await
    }

    /// The watermark at which a table of facts was last written.
    async fn facts_as_of_ms(&self, table: &str) -> Result<Option<i64>, LakeError> {
        let note = self.lake.newest_note(table, "watermark_ms").await?;
        Ok(note.and_then(|note| note["watermark_ms"].as_i64()))
    }
}

/// Two days before the watermark hold every session that can still go on.
fn still_going_on(as_of_ms: i64) -> TimeRange {
    TimeRange {
        from_ms: as_of_ms - 2 * DAY_MS,
        to_ms: END_OF_TIME_MS,
    }
}

fn event_id(hex: &str) -> u128 {
    u128::from_str_radix(hex, 16).unwrap_or_default()
}

fn keyed_events(rows: &[PlayerRow]) -> Vec<KeyedEvent> {
    rows.iter()
        .filter(|row| !row.event.unattributed)
        .map(|row| KeyedEvent::from(&*row.event))
        .collect()
}

/// What became of the records of one kind: whatever is neither stored nor rejected was a duplicate.
fn count(kind: Kind, stored: usize, rejects: &[RejectRow], positions: &[Position]) -> Counts {
    let of_kind: HashMap<&str, u64> = positions
        .iter()
        .filter(|position| position.kind == kind)
        .map(|position| (&*position.partition, position.received))
        .collect();
    let received = positions
        .iter()
        .filter(|position| position.kind == kind)
        .map(|position| position.received)
        .sum();
    let rejected = rejects
        .iter()
        .filter(|row| of_kind.contains_key(&*row.place.source_partition))
        .count() as u64;
    let stored = stored as u64;
    Counts {
        received,
        stored,
        rejected,
        duplicates: received - stored - rejected,
    }
}

/// What became of the records of each source: whatever is neither stored nor rejected was a duplicate.
fn count_by_source(
    players: &[PlayerRow],
    requests: &[RequestRow],
    rejects: &[RejectRow],
    positions: &[Position],
) -> BTreeMap<usize, SourceCounts> {
    let mut by_source: BTreeMap<usize, SourceCounts> = BTreeMap::new();
    let mut source_of: HashMap<&str, usize> = HashMap::new();
    for position in positions {
        by_source.entry(position.source).or_default().received += position.received;
        source_of.insert(&position.partition, position.source);
    }
    let source_of = |place: &Provenance| source_of.get(&*place.source_partition).copied();
    let stored = players.iter().map(|row| &row.place).chain(requests.iter().map(|row| &row.place));
    for source in stored.filter_map(source_of) {
        by_source.entry(source).or_default().stored += 1;
    }
    for row in rejects {
        let Some(source) = source_of(&row.place) else { continue };
        let counts = by_source.entry(source).or_default();
        *counts.rejected.entry(row.reject.reason).or_default() += 1;
    }
    for counts in by_source.values_mut() {
        let rejected: u64 = counts.rejected.values().sum();
        counts.duplicates = counts.received - counts.stored - rejected;
    }
    by_source
}

async fn load_hours(lake: &Lake, table: &str, known: &mut Dedupe, times_ms: impl Iterator<Item = i64>) -> Result<(), LakeError> {
    let hours = known.missing_hours(times_ms);
    let (Some(first), Some(last)) = (hours.first(), hours.last()) else {
        return Ok(());
    };
    let range = TimeRange {
        from_ms: hour_range_ms(*first).0,
        to_ms: hour_range_ms(*last).1,
    };
    let rows = lake.scan(table, &["event_ts", "event_id"], range, None).await?;
    let ids = history::event_ids(&rows);
    let wanted = ids.into_iter().filter(|(at_ms, _)| hours.contains(&dedupe::hour_of(*at_ms)));
    known.load(&hours, wanted);
    Ok(())
}

fn to_batch<R>(table: &str, columns: &[Column<R>], rows: &[R]) -> Result<RecordBatch, LakeError> {
    let rows: Vec<&R> = rows.iter().collect();
    record_batch(columns, &rows).map_err(|source| LakeError::Rows {
        table: table.to_string(),
        source,
    })
}

fn text_column(batch: &RecordBatch, name: &str) -> Result<arrow::array::StringArray, arrow::error::ArrowError> {
    Ok(cast(&batch[name], &DataType::Utf8)?.as_string::<i32>().clone())
}
