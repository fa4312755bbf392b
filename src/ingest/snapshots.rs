//! Snapshots of the session engine in the daemon's folder: written every minute, taken up at a start.
//!
//! Stands beside `recover_sessions`, which reads two days of silver where no snapshot can be used. A
//! snapshot says which bronze commit its engine ends with; the events of later commits are read from the
//! silver commits that belong to them.
//!
//! Invariant: a snapshot costs nothing but time when it is missing, damaged, or not surely of this lake as
//! it stands: the start is then as it would be without.
//! Invariant: a file is there whole or not at all, and it is durable before an older one goes.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Handle, RuntimeFlavor};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Ingest, history, still_going_on};
use crate::lake::tables::{BRONZE_PLAYER, SILVER_INTERVALS, SILVER_PLAYER, SILVER_SESSIONS};
use crate::lake::{Lake, LakeError, LogEntry};
use crate::session::{KeyedEvent, Restored, SessionSettings, Sessions, SnapshotError};

/// The folder of snapshots in the daemon's own.
pub const FOLDER: &str = "state";
/// The newest, and one to fall back to.
const KEPT: usize = 2;
/// After more bronze commits than an hour has at the local cadence, two days of silver are read sooner.
const COMMITS_MAX: i64 = 1_000;

/// What of the lake an engine holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// The last commit of player events in bronze whose events the engine has, and the tables of facts too.
    pub bronze_version: i64,
    /// Tells that commit from one of the same number in another lake, or in one put back from a copy.
    pub bronze_commit: u64,
    /// The version of `silver.player_events` then.
    pub silver_version: i64,
    /// The watermark at which the tables of facts were last written. That of the engine may be later: then
    /// it changed no row.
    pub facts_as_of_ms: Option<i64>,
}

/// An engine from a file.
pub struct Loaded {
    pub sessions: Sessions,
    pub covered: Covered,
}

/// Writes a snapshot and forgets all but the newest two.
///
/// # Errors
/// The file cannot be written, or a session cannot be packed; the files before stay.
pub fn save(folder: &Path, sessions: &Sessions, covered: &Covered) -> Result<(), SnapshotError> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("sessions-{}.snapshot", covered.bronze_version));
    // One name for all, so that a crash leaves no more than one behind.
    let unfinished = folder.join("sessions.unfinished");
    let note = serde_json::to_value(covered).map_err(std::io::Error::from)?;
    let mut file = BufWriter::new(File::create(&unfinished)?);
    sessions.snapshot(&note, &mut file)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    std::fs::rename(&unfinished, &path)?;
    let mut own = 0;
    for (version, old) in files_of(folder) {
        // A later one is of a lake that is no more: bronze has not come so far.
        let is_foreign = version > covered.bronze_version;
        own += usize::from(!is_foreign);
        if is_foreign || own > KEPT {
            std::fs::remove_file(old)?;
        }
    }
    Ok(())
}

/// The newest snapshot that is sound. Each that is not is complained of.
pub fn load(folder: &Path, settings: SessionSettings, shards: usize) -> Option<Loaded> {
    for (_, path) in files_of(folder) {
        match load_one(&path, settings, shards) {
            Ok(loaded) => return Some(loaded),
            Err(error) => tracing::warn!(
                "{}: {}; nothing is lost, without an older one two days of sessions are read from the lake",
                path.display(),
                crate::telemetry::chain(&error)
            ),
        }
    }
    None
}

fn load_one(path: &Path, settings: SessionSettings, shards: usize) -> Result<Loaded, SnapshotError> {
    let Restored { sessions, note } = Sessions::restore(BufReader::new(File::open(path)?), settings, shards)?;
    let covered = serde_json::from_value(note).map_err(|_| SnapshotError::Damaged("it does not say what it covers"))?;
    Ok(Loaded { sessions, covered })
}

/// Snapshots by the bronze version that they cover, newest first.
fn files_of(folder: &Path) -> Vec<(i64, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let version_of = |path: &Path| -> Option<i64> {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("sessions-")?.strip_suffix(".snapshot")?.parse().ok()
    };
    let mut files: Vec<(i64, PathBuf)> = entries
        .filter_map(|entry| Some((version_of(&entry.path())?, entry.path())))
        .collect();
    files.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
    files
}

/// What tells a commit from any other: its note, and the names of its files, which are random.
fn fingerprint(entry: &LogEntry) -> u64 {
    let seed = xxh3_64_with_seed(entry.note.to_string().as_bytes(), entry.version.unsigned_abs());
    let mut names: Vec<&String> = entry.added.iter().collect();
    names.sort_unstable();
    names.into_iter().fold(seed, |hash, name| xxh3_64_with_seed(name.as_bytes(), hash))
}

/// A commit of player events after those that a snapshot covers.
struct Later {
    bronze_version: i64,
    stored: u64,
    watermark_ms: Option<i64>,
    /// Its files in `silver.player_events`.
    files: Vec<String>,
}

/// How an engine of a snapshot is brought up to the lake.
struct Plan {
    loaded: Loaded,
    /// Commits whose facts are written.
    written: Vec<Later>,
    /// The watermark at which they are.
    as_of_ms: i64,
    /// The commit that a crash kept from having its facts written, and its events.
    unwritten: Option<(i64, Vec<KeyedEvent>)>,
}

impl Ingest {
    /// Writes a snapshot if something has changed since the last one.
    ///
    /// # Errors
    /// A log cannot be read.
    pub(super) async fn save_snapshot(&mut self) -> Result<(), LakeError> {
        let Some(bronze_version) = self.bronze_version.filter(|_| self.is_whole) else {
            return Ok(());
        };
        let stands_at = (bronze_version, self.sessions.watermark_ms());
        if self.snapshot_at == Some(stands_at) {
            return Ok(());
        }
        let log = self.lake.log_after(BRONZE_PLAYER, bronze_version - 1).await?;
        let facts_as_of_ms = self.facts_as_of_ms(SILVER_INTERVALS).await?;
        let is_even = facts_as_of_ms == self.facts_as_of_ms(SILVER_SESSIONS).await?;
        let Some(newest) = log.unwrap_or_default().into_iter().next().filter(|_| is_even) else {
            return Ok(());
        };
        let covered = Covered {
            bronze_version,
            bronze_commit: fingerprint(&newest),
            silver_version: self.lake.version(SILVER_PLAYER).await?,
            facts_as_of_ms,
        };
        match beside_the_runtime(|| save(&self.snapshots, &self.sessions, &covered)) {
            Ok(()) => self.snapshot_at = Some(stands_at),
            Err(error) => tracing::warn!(
                "{}: {}; the next start takes longer",
                self.snapshots.display(),
                crate::telemetry::chain(&error)
            ),
        }
        Ok(())
    }

    /// Takes up the newest snapshot and what came after it; false: there is none that can be used, and
    /// nothing has changed. `as_of_ms`: the watermark at which both tables of facts were last written.
    ///
    /// # Errors
    /// A table cannot be read or written.
    pub(super) async fn resume(&mut self, as_of_ms: i64) -> Result<bool, LakeError> {
        let Some(loaded) = beside_the_runtime(|| load(&self.snapshots, SessionSettings::default(), self.shards)) else {
            return Ok(false);
        };
        let Some(plan) = self.plan(loaded, as_of_ms).await? else {
            tracing::info!("the snapshot of the sessions does not reach what the lake holds: two days are read");
            return Ok(false);
        };
        let (covered, keys) = (plan.loaded.covered.bronze_version, plan.loaded.sessions.open_sessions());
        let commits = plan.written.len();
        if !self.carry_out(plan).await? {
            self.sessions = Sessions::new(SessionSettings::default(), self.shards);
            return Ok(false);
        }
        tracing::info!("{keys} open sessions are taken up from the snapshot at bronze version {covered}, and {commits} commits after it");
        Ok(true)
    }

    /// `None`: it is not sure that the snapshot leads to the rows that the lake holds.
    async fn plan(&self, loaded: Loaded, as_of_ms: i64) -> Result<Option<Plan>, LakeError> {
        let facts = self.lake.covered(SILVER_INTERVALS, BRONZE_PLAYER).await?;
        let is_even = facts == self.lake.covered(SILVER_SESSIONS, BRONZE_PLAYER).await?;
        let facts = facts.filter(|version| is_even && *version >= loaded.covered.bronze_version);
        let (Some(facts), Some(later)) = (facts, later_commits(&self.lake, &loaded.covered).await?) else {
            return Ok(None);
        };
        let (written, mut rest): (Vec<Later>, Vec<Later>) = later.into_iter().partition(|commit| commit.bronze_version <= facts);
        // Rows at the engine's watermark are compared with what comes: they must be those of the lake.
        let is_before = loaded.sessions.watermark_ms() <= Some(as_of_ms);
        let is_untouched = written.is_empty() && loaded.covered.facts_as_of_ms == Some(as_of_ms);
        if !(is_before || is_untouched) || rest.len() > 1 {
            return Ok(None);
        }
        let mut unwritten = None;
        if let Some(commit) = rest.pop() {
            let Some(events) = events_of(&self.lake, &commit).await else {
                return Ok(None);
            };
            unwritten = Some((commit.bronze_version, events));
        }
        Ok(Some(Plan {
            loaded,
            written,
            as_of_ms,
            unwritten,
        }))
    }

    /// False if a commit's events are not there as they were; nothing is written then.
    async fn carry_out(&mut self, plan: Plan) -> Result<bool, LakeError> {
        let Plan {
            loaded,
            written,
            as_of_ms,
            unwritten,
        } = plan;
        self.sessions = loaded.sessions;
        self.bronze_version = Some(loaded.covered.bronze_version);
        let mut outdated = BTreeSet::new();
        for commit in written {
            let Some(events) = events_of(&self.lake, &commit).await else {
                self.bronze_version = None;
                return Ok(false);
            };
            // What they change stands in the tables already.
            self.sessions.catch_up(events, commit.watermark_ms, &mut outdated);
            self.bronze_version = Some(commit.bronze_version);
        }
        self.sessions.catch_up(Vec::new(), Some(as_of_ms), &mut outdated);
        if !outdated.is_empty() {
            let unwritten = unwritten.iter().flat_map(|(_, events)| events);
            let unwritten = unwritten.map(|event| event.event.event_id).collect();
            self.sessions.restore_watermark(as_of_ms);
            self.load_keys(outdated.into_iter().collect(), still_going_on(as_of_ms), &unwritten)
                .await?;
        }
        // The notes of what is written from here on must not fall behind the rows.
        self.watermark_floor_ms = self.watermark_floor_ms.max(self.sessions.watermark_ms());
        if let Some((version, events)) = unwritten {
            self.load_missing(&events).await?;
            let changes = self.sessions.apply(events, self.watermark_ms());
            self.commit_facts(changes, version).await?;
            self.bronze_version = Some(version);
        }
        Ok(true)
    }
}

/// A million sessions take seconds: requests and pages are answered meanwhile by other threads.
fn beside_the_runtime<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// The commits of player events after a snapshot, oldest first. `None`: the lake is not the one of the
/// snapshot, its logs do not reach back that far, or there are so many that they would take longer.
async fn later_commits(lake: &Lake, covered: &Covered) -> Result<Option<Vec<Later>>, LakeError> {
    if lake.version(BRONZE_PLAYER).await? - covered.bronze_version > COMMITS_MAX {
        return Ok(None);
    }
    let bronze = lake.log_after(BRONZE_PLAYER, covered.bronze_version - 1).await?;
    let silver = lake.log_after(SILVER_PLAYER, covered.silver_version).await?;
    let (Some(bronze), Some(silver)) = (bronze, silver) else {
        return Ok(None);
    };
    let mut bronze = bronze.into_iter();
    if bronze.next().is_none_or(|entry| fingerprint(&entry) != covered.bronze_commit) {
        return Ok(None);
    }
    let of_bronze = |entry: LogEntry| Some((entry.note["bronze"][BRONZE_PLAYER].as_i64()?, entry.added));
    let mut files: HashMap<i64, Vec<String>> = silver.into_iter().filter_map(of_bronze).collect();
    let later = bronze.filter(|entry| entry.note["positions"].is_object()).map(|entry| {
        Some(Later {
            bronze_version: entry.version,
            stored: entry.note["counts"]["stored"].as_u64()? + entry.note["reports"].as_u64().unwrap_or(0),
            watermark_ms: entry.note["watermark_ms"].as_i64(),
            files: files.remove(&entry.version)?,
        })
    });
    Ok(later.collect())
}

/// The events of a commit as silver holds them; `None` if its files are no longer as it wrote them, since
/// upkeep has joined them with others or someone's events were taken out.
async fn events_of(lake: &Lake, commit: &Later) -> Option<Vec<KeyedEvent>> {
    let rows = match lake.scan_files(SILVER_PLAYER, commit.files.clone()).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::debug!("{}", crate::telemetry::chain(&error));
            return None;
        }
    };
    let stored: usize = rows.iter().map(RecordBatch::num_rows).sum();
    if stored as u64 != commit.stored {
        return None;
    }
    let attributed: Option<Vec<RecordBatch>> = rows.iter().map(attributed).collect();
    let events = history::session_events(&attributed?).into_iter();
    Some(
        events
            .map(|remembered| KeyedEvent {
                session_key: remembered.session_key,
                event: remembered.event,
            })
            .collect(),
    )
}

/// The rows that belong to a session, with the columns that the engine needs.
fn attributed(batch: &RecordBatch) -> Option<RecordBatch> {
    let flags = batch.column_by_name("unattributed")?.as_boolean_opt()?;
    let keep: BooleanArray = flags.iter().map(|flag| Some(flag != Some(true))).collect();
    let schema = batch.schema();
    let columns: Vec<usize> = history::SESSION_COLUMNS
        .iter()
        .filter_map(|name| schema.index_of(name).ok())
        .collect();
    filter_record_batch(&batch.project(&columns).ok()?, &keep).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventKind, PlayerEvent};

    fn covered(bronze_version: i64) -> Covered {
        Covered {
            bronze_version,
            bronze_commit: 1,
            silver_version: 2,
            facts_as_of_ms: Some(3),
        }
    }

    fn engine(session_key: &str) -> Sessions {
        let mut sessions = Sessions::new(SessionSettings::default(), 1);
        let event = PlayerEvent {
            kind: Some(EventKind::PlaybackStart),
            event_ts_ms: 1_588_752_000_000,
            event_id: "00000000000000ff0000000000000001".to_owned(),
            session_key: session_key.to_owned(),
            ..PlayerEvent::default()
        };
        sessions.apply(vec![KeyedEvent::from(&event)], None);
        sessions
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("playhead-snapshots-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        folder
    }

    fn newest(folder: &Path) -> Option<(i64, usize)> {
        let loaded = load(folder, SessionSettings::default(), 2)?;
        Some((loaded.covered.bronze_version, loaded.sessions.open_sessions()))
    }

    #[test]
    fn the_newest_two_are_kept_and_the_newest_sound_one_is_taken() {
        let folder = folder("newest");
        assert_eq!(newest(&folder), None);
        for version in [8, 9, 10, 11] {
            save(&folder, &engine("k"), &covered(version)).expect("a folder that can be written");
        }
        let versions = |folder: &Path| -> Vec<i64> { files_of(folder).into_iter().map(|(version, _)| version).collect() };
        assert_eq!((versions(&folder), newest(&folder)), (vec![11, 10], Some((11, 1))));

        let path = folder.join("sessions-11.snapshot");
        let mut bytes = std::fs::read(&path).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).expect("a folder that can be written");
        std::fs::write(folder.join("sessions.unfinished"), "half").expect("a folder that can be written");
        assert_eq!(newest(&folder), Some((10, 1)));

        // A lake that was begun anew.
        save(&folder, &engine("k"), &covered(1)).expect("a folder that can be written");
        assert_eq!((versions(&folder), newest(&folder)), (vec![1], Some((1, 1))));
        drop(std::fs::remove_dir_all(&folder));
    }

    #[test]
    fn a_commit_of_the_same_number_in_another_lake_is_another() {
        let entry = |note: &str, added: &[&str]| LogEntry {
            version: 7,
            note: serde_json::json!({ "positions": note }),
            added: added.iter().map(|name| (*name).to_owned()).collect(),
        };
        let own = fingerprint(&entry("a", &["f1", "f2"]));
        assert_eq!(fingerprint(&entry("a", &["f2", "f1"])), own);
        for other in [entry("b", &["f1", "f2"]), entry("a", &["f1"]), entry("a", &["f1", "f3"])] {
            assert_ne!(fingerprint(&other), own);
        }
    }
}
