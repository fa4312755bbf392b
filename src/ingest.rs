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

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use serde_json::{Value, json};

use crate::enrich::Enricher;
use crate::event::decode::Kind;
use crate::event::schema::{
    Column, PlayerRow, Provenance, RejectRow, RequestRow, bronze_cdn_columns, bronze_player_columns, count_duplicates, duplicate_columns,
    interval_columns, record_batch, reject_columns, session_columns, silver_cdn_columns, silver_player_columns,
};
use crate::lake::commit::Prepared;
use crate::lake::scan::{is_not_true, is_one_of, is_true};
use crate::lake::tables::{
    BRONZE_CDN, BRONZE_PLAYER, SILVER_DUPLICATES, SILVER_INTERVALS, SILVER_PLAYER, SILVER_REJECTS, SILVER_REQUESTS, SILVER_SESSIONS,
};
use crate::lake::{Commit, Lake, LakeError, TimeRange};
use crate::privacy::Privacy;
use crate::session::{FactChanges, KeyedEvent, SessionSettings, Sessions};
use crate::source::files::Discovered;
use crate::watermark::Watermarks;
use dedupe::{Dedupe, hour_range_ms};
use intake::{Batch, Position};

const DAY_MS: i64 = 86_400_000;
/// A session that has been silent for longer than this has ended: the idle gap and a margin.
const STILL_ALIVE_MS: i64 = 40 * 60_000;
/// Past any event time that the decoders let through, and safe to turn into microseconds.
const END_OF_TIME_MS: i64 = i64::MAX / 1000;
/// How far back the newest note is searched: every ingest commit leaves one, so a few suffice.
const NOTES_SEARCHED: i64 = 64;
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
}

impl Ingest {
    /// Takes up the lake where it stands, bringing silver up to bronze first.
    pub async fn open(lake: Arc<Lake>, enricher: Arc<Enricher>, privacy: Arc<Privacy>, shards: usize) -> Result<Ingest, LakeError> {
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
        };
        ingest.recover().await?;
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

    /// Where a file is to be read from.
    pub async fn position_of(&self, found: &Discovered) -> Result<i64, LakeError> {
        let marker = position_marker(&found.partition);
        let mut position = 0;
        for table in [BRONZE_PLAYER, BRONZE_CDN] {
            position = position.max(self.lake.covered(table, &marker).await?.unwrap_or(0));
        }
        Ok(position)
    }

    /// A file that is known and not read yet holds the watermark at its first event.
    pub fn expect(&mut self, partition: &Arc<str>, first_event_ms: Option<i64>) {
        if let Some(first_event_ms) = first_event_ms {
            self.watermarks.expect(partition, first_event_ms);
        }
    }

    /// Releases files that have been silent for long, or one of them would hold every window open.
    pub fn release_idle(&mut self, now_ms: i64) {
        self.watermarks.release_idle(now_ms);
    }

    /// Carries one batch to committed bronze and silver.
    pub async fn commit_batch(&mut self, batch: Batch, now_ms: i64) -> Result<Counts, LakeError> {
        let Batch {
            players,
            requests,
            rejects,
            positions,
        } = batch;
        let (players, known) = self.drop_known_players(players).await?;
        let requests = self.drop_known_requests(requests).await?;
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
        let mut counts = Counts::default();
        for (kind, stored) in [(Kind::Player, players.len()), (Kind::Cdn, requests.len())] {
            counts.add(count(kind, stored, &rejects, &positions));
        }
        self.commit_players(players, &rejects, &positions).await?;
        self.commit_requests(requests, &rejects, &positions).await?;
        tracing::debug!(open = self.sessions.open_sessions(), events = self.sessions.events_in_memory(), watermark = ?self.watermark_ms(), "sessions in memory");
        self.player_ids.end_batch();
        self.request_ids.end_batch();
        Ok(counts)
    }

    /// The rows that are new, and those that the lake holds already.
    async fn drop_known_players(&mut self, rows: Vec<PlayerRow>) -> Result<(Vec<PlayerRow>, Vec<PlayerRow>), LakeError> {
        let times = rows.iter().map(|row| row.event.event_ts_ms);
        load_hours(&self.lake, BRONZE_PLAYER, &mut self.player_ids, times).await?;
        let known = &mut self.player_ids;
        Ok(rows
            .into_iter()
            .partition(|row| known.insert(row.event.event_ts_ms, event_id(&row.event.event_id))))
    }

    async fn drop_known_requests(&mut self, rows: Vec<RequestRow>) -> Result<Vec<RequestRow>, LakeError> {
        let times = rows.iter().map(|row| row.request.event_ts_ms);
        load_hours(&self.lake, BRONZE_CDN, &mut self.request_ids, times).await?;
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
        table: &str,
        rows: &[T],
        place: fn(&T) -> &Provenance,
        positions: &[Position],
    ) -> Result<Vec<T>, LakeError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut landed: HashMap<Arc<str>, i64> = HashMap::new();
        for position in positions {
            let covered = self.lake.covered(table, &position_marker(&position.partition)).await?;
            landed.insert(Arc::clone(&position.partition), covered.unwrap_or(0));
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
        let mut covers = Vec::new();
        for position in positions {
            let marker = position_marker(&position.partition);
            let covered = self.lake.covered(table, &marker).await?.unwrap_or(0);
            covers.push((marker, position.to.max(covered)));
        }
        self.lake.append(table, vec![rows], Commit { covers, note }).await?;
        Ok(())
    }

    async fn commit_players(&mut self, rows: Vec<PlayerRow>, rejects: &[RejectRow], positions: &[Position]) -> Result<(), LakeError> {
        if !positions.iter().any(|position| position.kind == Kind::Player) {
            return Ok(());
        }
        let counts = count(Kind::Player, rows.len(), rejects, positions);
        let commit = self.bronze_commit(Kind::Player, BRONZE_PLAYER, counts, positions);
        let rows = Arc::new(rows);
        let (bronze, silver) = tokio::try_join!(
            self.prepare_rows(BRONZE_PLAYER, bronze_player_columns, &rows),
            self.prepare_rows(SILVER_PLAYER, silver_player_columns, &rows),
        )?;
        let events = keyed_events(&rows);
        drop(rows);
        let version = self.lake.commit(BRONZE_PLAYER, bronze, commit).await?;
        self.lake
            .commit(SILVER_PLAYER, silver, self.silver_commit(BRONZE_PLAYER, version))
            .await?;
        self.load_missing(&events).await?;
        let changes = self.sessions.apply(events, self.watermark_ms());
        self.commit_facts(changes, version).await
    }

    /// Rows to files, not yet committed. Each table is built on a task of its own.
    async fn prepare_rows<R: Send + Sync + 'static>(
        &self,
        table: &'static str,
        columns: fn() -> Vec<Column<R>>,
        rows: &Arc<Vec<R>>,
    ) -> Result<Prepared, LakeError> {
        let rows = Arc::clone(rows);
        // On a worker and not on the blocking pool, whose many threads would each keep their memory.
        let building = tokio::spawn(async move { to_batch(table, &columns(), &rows) });
        let batch = building
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        self.lake.prepare_append(table, vec![batch]).await
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
        let changes = self.sessions.apply(Vec::new(), self.watermark_ms());
        self.commit_facts(changes, version).await
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
        self.lake.prepare_edit(table, range, &is_victim, vec![added]).await
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
        Commit {
            covers: positions
                .map(|position| (position_marker(&position.partition), position.to))
                .collect(),
            note: json!({
                "counts": counts.to_json(),
                "totals": total.to_json(),
                "positions": spans,
                "watermark_ms": self.watermark_ms(),
            }),
        }
    }

    fn silver_commit(&self, bronze: &str, version: i64) -> Commit {
        Commit {
            covers: vec![(bronze.to_string(), version)],
            note: json!({"bronze": {bronze: version}, "watermark_ms": self.watermark_ms()}),
        }
    }

    /// Brings silver up to bronze and the session engine up to silver.
    async fn recover(&mut self) -> Result<(), LakeError> {
        for table in [BRONZE_PLAYER, BRONZE_CDN] {
            if let Some(note) = self.lake.newest_note(table, "totals", NOTES_SEARCHED).await? {
                self.totals.insert(table, Counts::from_json(&note["totals"]));
                self.watermark_floor_ms = self.watermark_floor_ms.max(note["watermark_ms"].as_i64());
            }
        }
        self.recover_requests().await?;
        let touched = self.recover_players().await?;
        self.recover_sessions(touched).await
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
        // Two days before the watermark hold every session that can still go on; a key that is written
        // anew may have older ones.
        let range = if is_half_done {
            TimeRange::ALL
        } else {
            TimeRange {
                from_ms: as_of_ms - 2 * DAY_MS,
                to_ms: END_OF_TIME_MS,
            }
        };
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
        let note = self.lake.newest_note(table, "watermark_ms", NOTES_SEARCHED).await?;
        Ok(note.and_then(|note| note["watermark_ms"].as_i64()))
    }
}

/// The application id under which a partition's position is kept.
fn position_marker(partition: &str) -> String {
    format!("files:{partition}")
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
    record_batch(columns, rows).map_err(|source| LakeError::Rows {
        table: table.to_string(),
        source,
    })
}

fn text_column(batch: &RecordBatch, name: &str) -> Result<arrow::array::StringArray, arrow::error::ArrowError> {
    Ok(cast(&batch[name], &DataType::Utf8)?.as_string::<i32>().clone())
}
