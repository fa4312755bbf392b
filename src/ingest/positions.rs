//! How far every partition has been read, as the lake tells it.
//!
//! Stands between the sources, which ask where to start, and the commits of an epoch, which say how far
//! they reach. A partition that lives on (a file, a topic's partition, a shard) has a transaction marker
//! in the tables. Objects come by the million and are read once: they stand in the commits' notes, and
//! what those say is gathered in the ledger.
//!
//! Invariant: everything here is read back from the tables' logs. The ledger's file is a cache: without
//! it a start takes longer and gives the same.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use serde_json::{Value, json};

use super::intake::Position;
use super::ledger::Ledger;
use crate::clock::Clock;
use crate::lake::cache::write_whole;
use crate::lake::tables::{BRONZE_CDN, BRONZE_PLAYER, SILVER_DUPLICATES, SILVER_REJECTS};
use crate::lake::{Lake, LakeError, TimeRange};
use crate::source::Mark;
use crate::source::objects::Known;

/// For how long an object may be announced again: a CDN delivers up to a day late, and a person may
/// need some days to mend a permission.
const HORIZON: Duration = Duration::from_hours(7 * 24);
/// At 100 bytes each: what a thousand edge locations write in a week.
const OBJECTS_MAX: usize = 1_000_000;
/// Name of the ledger's file in the daemon's folder.
const LEDGER_FILE: &str = "objects.ledger";
const BRONZE: [&str; 2] = [BRONZE_PLAYER, BRONZE_CDN];

/// The positions of all partitions.
pub struct Positions {
    /// Partitions that need more than a number to be found again: where they are, and that. They stand in
    /// every bronze note, so that the newest tells all.
    tokens: BTreeMap<Arc<str>, (i64, Arc<str>)>,
    ledger: Arc<Mutex<Ledger>>,
    /// Objects whose rejects or duplicates had landed when a crash kept bronze from following.
    ahead: HashMap<(&'static str, Arc<str>), i64>,
    file: PathBuf,
}

impl Positions {
    /// Reads them back from the lake. `folder` is the daemon's own.
    ///
    /// # Errors
    /// A table's log or rows cannot be read.
    pub async fn open(lake: &Lake, folder: &Path) -> Result<Positions, LakeError> {
        let mut positions = Positions {
            tokens: BTreeMap::new(),
            ledger: Arc::new(Mutex::new(Ledger::new(HORIZON, OBJECTS_MAX))),
            ahead: HashMap::new(),
            file: folder.join(LEDGER_FILE),
        };
        for table in BRONZE {
            if let Some(note) = lake.newest_note(table, "tokens").await? {
                positions.take_tokens(&note["tokens"]);
            }
        }
        let covered = positions.load_ledger();
        for table in BRONZE {
            match lake.log_after(table, covered.get(table).copied().unwrap_or(0)).await? {
                Some(entries) => entries.iter().for_each(|entry| positions.take_objects(&entry.note["objects"])),
                None => positions.take_rows(lake, table).await?,
            }
        }
        for table in [SILVER_REJECTS, SILVER_DUPLICATES] {
            let note = lake.newest_note(table, "objects").await?;
            for (partition, object) in note.iter().flat_map(|note| note["objects"].as_object()).flatten() {
                if let Some(offset) = object[0].as_i64() {
                    positions.ahead.insert((table, Arc::from(partition.as_str())), offset);
                }
            }
        }
        Ok(positions)
    }

    /// What the objects sources ask before they read an object.
    pub fn known(&self, clock: Arc<dyn Clock>) -> Known {
        let ledger = Arc::clone(&self.ledger);
        Arc::new(move |partition, last_modified_ms| {
            let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.standing(partition, last_modified_ms, clock.now_ms())
        })
    }

    /// Where a partition is to be read from; `None`: the lake has nothing of it.
    ///
    /// # Errors
    /// The markers cannot be read.
    pub async fn of(&self, lake: &Lake, partition: &str) -> Result<Option<Mark>, LakeError> {
        if is_object(partition) {
            let entry = self.ledger().position(partition);
            return Ok(entry.map(|entry| Mark {
                offset: entry.offset,
                token: Some(Arc::from(entry.last_modified_ms.to_string())),
            }));
        }
        let mut newest: Option<i64> = None;
        for table in BRONZE {
            newest = newest.max(lake.covered(table, &marker(partition)).await?);
        }
        let token = self.tokens.get(partition).map(|(_, token)| Arc::clone(token));
        Ok(newest.map(|offset| Mark { offset, token }))
    }

    /// Up to where a partition's rejects or duplicates have landed: they do before bronze.
    ///
    /// # Errors
    /// The markers cannot be read.
    pub async fn landed(&self, lake: &Lake, table: &'static str, partition: &Arc<str>) -> Result<i64, LakeError> {
        if is_object(partition) {
            let ahead = self.ahead.get(&(table, Arc::clone(partition)));
            return Ok(ahead.copied().unwrap_or(0));
        }
        Ok(lake.covered(table, &marker(partition)).await?.unwrap_or(0))
    }

    /// The markers of a commit that takes these partitions to where they are.
    pub fn covers<'a>(positions: impl Iterator<Item = &'a Position>) -> Vec<(String, i64)> {
        positions
            .filter(|position| !is_object(&position.partition))
            .map(|position| (marker(&position.partition), position.to))
            .collect()
    }

    /// Adds to a commit's note what its markers do not say.
    pub fn note<'a>(&self, note: &mut Value, positions: impl Iterator<Item = &'a Position>) {
        let objects: serde_json::Map<String, Value> = positions
            .filter(|position| is_object(&position.partition))
            .map(|position| (position.partition.to_string(), object_note(position)))
            .collect();
        if !objects.is_empty() {
            note["objects"] = Value::Object(objects);
        }
        if !self.tokens.is_empty() {
            let tokens = self.tokens.iter();
            note["tokens"] = tokens
                .map(|(partition, (offset, token))| (partition.to_string(), json!([offset, **token])))
                .collect();
        }
    }

    /// Takes up the tokens of a batch before its commits are written.
    pub fn advance(&mut self, positions: &[Position]) {
        for position in positions.iter().filter(|position| !is_object(&position.partition)) {
            if let Some(token) = &position.token {
                self.tokens
                    .insert(Arc::clone(&position.partition), (position.to, Arc::clone(token)));
            }
        }
    }

    /// Bronze has committed a batch.
    pub fn committed(&mut self, positions: &[Position], now_ms: i64) {
        self.ahead.clear();
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for position in positions.iter().filter(|position| is_object(&position.partition)) {
            ledger.record(&position.partition, position.to, position.finished, last_modified_ms(position));
        }
        ledger.prune(now_ms);
        if let Some(raised_ms) = ledger.take_raised() {
            tracing::warn!(
                "more than {OBJECTS_MAX} objects are remembered: those last modified before {raised_ms} (epoch ms) and not read yet will not be read; lower the source's `late`, or read it with fewer daemons' buckets in one"
            );
        }
    }

    /// Partitions that are not ours any more.
    pub fn release(&mut self, lost: &[Arc<str>]) {
        for partition in lost {
            self.tokens.remove(partition);
        }
    }

    /// Writes the ledger's cache, with the versions of bronze that it covers.
    ///
    /// # Errors
    /// The file cannot be written; the start after a crash then takes longer.
    pub async fn save(&self, lake: &Lake) -> Result<(), LakeError> {
        let bytes = {
            let ledger = self.ledger();
            if ledger.is_empty() {
                return Ok(());
            }
            ledger.encode()
        };
        let mut covered = BTreeMap::new();
        for table in BRONZE {
            covered.insert(table, lake.version(table).await?);
        }
        let mut file = serde_json::to_vec(&covered).expect("a map of texts and numbers");
        file.push(b'\n');
        file.extend(bytes);
        write_whole(&self.file, &file).map_err(|source| LakeError::File {
            act: "write",
            path: self.file.display().to_string(),
            source,
        })
    }

    /// Returns the versions of bronze that the file covers; none if there is no file that can be used.
    fn load_ledger(&mut self) -> BTreeMap<String, i64> {
        let Ok(bytes) = std::fs::read(&self.file) else {
            return BTreeMap::new();
        };
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let covered = serde_json::from_slice(&bytes[..end]);
        let ledger = Ledger::decode(bytes.get(end + 1..).unwrap_or_default(), HORIZON, OBJECTS_MAX);
        match (covered, ledger) {
            (Ok(covered), Ok(ledger)) => {
                self.ledger = Arc::new(Mutex::new(ledger));
                covered
            }
            (_, error) => {
                let why = error
                    .err()
                    .map_or_else(|| "its first line cannot be read".to_string(), |error| error.to_string());
                tracing::warn!("{}: {why}", self.file.display());
                BTreeMap::new()
            }
        }
    }

    fn take_tokens(&mut self, noted: &Value) {
        for (partition, token) in noted.as_object().into_iter().flatten() {
            let (Some(offset), Some(text)) = (token[0].as_i64(), token[1].as_str()) else {
                continue;
            };
            // The notes of both bronze tables tell tokens; of one partition the further one holds.
            let known = self.tokens.get(partition.as_str()).map(|(known, _)| *known);
            if known.is_none_or(|known| known < offset) {
                self.tokens.insert(Arc::from(partition.as_str()), (offset, Arc::from(text)));
            }
        }
    }

    fn take_objects(&mut self, noted: &Value) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, object) in noted.as_object().into_iter().flatten() {
            if let (Some(offset), Some(finished), Some(modified_ms)) = (object[0].as_i64(), object[1].as_bool(), object[2].as_i64()) {
                ledger.record(partition, offset, finished, modified_ms);
            }
        }
    }

    /// The log no longer reaches back to where the ledger's file stands: the rows tell the objects. Their
    /// last records are read once more, and known as duplicates.
    async fn take_rows(&mut self, lake: &Lake, table: &str) -> Result<(), LakeError> {
        let columns = ["source_partition", "source_offset"];
        let rows = lake.scan(table, &columns, TimeRange::ALL, None).await?;
        let rows_error = |source| LakeError::Rows {
            table: table.to_string(),
            source,
        };
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for batch in rows {
            let partitions = cast(&batch["source_partition"], &DataType::Utf8).map_err(rows_error)?;
            let offsets = batch["source_offset"].as_primitive::<Int64Type>();
            for (partition, offset) in partitions.as_string::<i32>().iter().zip(offsets) {
                if let (Some(partition), Some(offset)) = (partition.filter(|name| is_object(name)), offset) {
                    ledger.record(partition, offset, false, i64::MAX);
                }
            }
        }
        Ok(())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Objects are named by their URL.
fn is_object(partition: &str) -> bool {
    partition.contains("://")
}

/// The application id under which a partition's position is kept.
fn marker(partition: &str) -> String {
    format!("files:{partition}")
}

fn object_note(position: &Position) -> Value {
    json!([position.to, position.finished, last_modified_ms(position)])
}

/// An object's token is when it was last modified.
fn last_modified_ms(position: &Position) -> i64 {
    position.token.as_deref().and_then(|token| token.parse().ok()).unwrap_or(0)
}
