//! The lake: opens or creates the Delta tables, and hands out what was committed.
//!
//! Stands after the rules: rows come in as record batches (`lake::commit`), and everything that is
//! known of progress is read back from the tables' own logs.
//!
//! Invariant: no second database. A table's transaction markers say what it covers, and the note in
//! each commit says what that commit held.
//! Invariant: one process writes a lake at a time; its lock says which (`place`).

pub mod cache;
pub mod commit;
mod edit;
mod lease;
pub mod place;
pub mod scan;
pub mod tables;
mod turns;
pub mod upkeep;
mod whereabouts;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use serde_json::Value;
use tokio::sync::RwLock;

use crate::clock::Clock;
use crate::telemetry::metrics::Meters;
pub use commit::{Commit, TimeRange};
pub use edit::Victims;
use place::{Lock, Place};
use tables::{PARTITION_COLUMN, TableSpec, fixed_tables};
use turns::Turns;
use whereabouts::Whereabouts;
pub use whereabouts::row_hash;

/// Version of the layout of the lake. A lake with a higher one was written by a newer Playhead.
pub const LAKE_FORMAT: u32 = 1;
/// How far back the newest note is searched: every commit of ours leaves one, a few of delta-rs' own
/// carry none.
const NOTES_SEARCHED: i64 = 64;
const FORMAT_PROPERTY: &str = "playhead.format";

/// What can go wrong with the lake.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    #[error("the lake {lake} is in use by another playhead process{holder}; stop it, or choose another folder with --data")]
    InUse { lake: String, holder: String },
    #[error(
        "{table} in the lake {lake} was written by a newer Playhead (lake format {found}, this program knows {LAKE_FORMAT}); install that release or newer, nothing was changed"
    )]
    Newer { lake: String, table: String, found: String },
    #[error("cannot {act} {table}")]
    Table {
        act: &'static str,
        table: String,
        #[source]
        source: Box<DeltaTableError>,
    },
    #[error("cannot {act} {table}")]
    Query {
        act: &'static str,
        table: String,
        #[source]
        source: Box<datafusion::error::DataFusionError>,
    },
    #[error("cannot {act} {path}")]
    File {
        act: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot build rows for {table}")]
    Rows {
        table: String,
        #[source]
        source: arrow::error::ArrowError,
    },
    #[error("{table} is damaged: {what}; restore the file from a copy, or move the table's folder away and rebuild it")]
    Damaged { table: String, what: String },
}

/// A committed change, as its table's log tells it.
#[derive(Debug, Clone)]
pub struct LogEntry {
    pub version: i64,
    /// The note that the writer left (`playhead` in the commit info).
    pub note: Value,
    /// Paths of the files that this version added, relative to the table.
    pub added: Vec<String>,
}

/// The open tables of one lake.
pub struct Lake {
    place: Place,
    tables: RwLock<BTreeMap<String, OpenTable>>,
    /// Who may change what of a table, within this process.
    turns: Mutex<BTreeMap<String, Arc<Turns>>>,
    /// Which file holds which rows, as far as edits had to know.
    whereabouts: Mutex<BTreeMap<String, Arc<Mutex<Whereabouts>>>>,
    /// Days (since 1970) from which on a table is kept, as far as asked for.
    kept_from: Mutex<BTreeMap<String, Option<i64>>>,
    /// Told of every commit, where somebody wants to know.
    meters: OnceLock<Meters>,
    /// Held for as long as this process may write.
    lock: Option<Lock>,
}

#[derive(Clone)]
struct OpenTable {
    table: DeltaTable,
    spec: Arc<TableSpec>,
}

impl Lake {
    fn over(place: Place) -> Lake {
        Lake {
            place,
            tables: RwLock::default(),
            turns: Mutex::default(),
            whereabouts: Mutex::default(),
            kept_from: Mutex::default(),
            meters: OnceLock::new(),
            lock: None,
        }
    }

    /// Opens the lake for writing: takes the lock and creates what is missing.
    ///
    /// # Errors
    /// `InUse`, `Newer`, or whatever the file system, the object store or a table's log says.
    pub async fn open(place: Place, clock: Arc<dyn Clock>) -> Result<Lake, LakeError> {
        let lake = Lake::over(place);
        lake.refuse_newer(fixed_tables().iter().map(|spec| spec.name.clone())).await?;
        let lock = lake.place.lock(clock).await?;
        let lake = Lake { lock: Some(lock), ..lake };
        for spec in fixed_tables() {
            lake.ensure(spec).await?;
        }
        Ok(lake)
    }

    /// Opens the lake for reading. Tables that do not exist yet are simply not there.
    pub async fn open_read_only(place: Place) -> Result<Lake, LakeError> {
        if !place.is_there() {
            return Err(LakeError::File {
                act: "open the lake folder (no lake there yet: run `playhead ingest` or `playhead run` first, or name it with --data)",
                path: place.name(),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        let lake = Lake::over(place);
        for spec in fixed_tables() {
            lake.open_existing(spec).await?;
        }
        Ok(lake)
    }

    /// The tables as they stand now, to be read for as long as their files are kept, whatever is committed meanwhile.
    pub async fn pinned(&self) -> Lake {
        Lake {
            tables: RwLock::new(self.tables.read().await.clone()),
            ..Lake::over(self.place.clone())
        }
    }

    /// The newest version of each open table that this process has seen or written.
    pub async fn versions(&self) -> BTreeMap<String, i64> {
        let version = |open: &OpenTable| open.table.version().map_or(0, |version| i64::try_from(version).unwrap_or(i64::MAX));
        let tables = self.tables.read().await;
        tables.iter().map(|(name, open)| (name.clone(), version(open))).collect()
    }

    /// True where this process writes: what it knows is then the newest.
    pub fn is_ours(&self) -> bool {
        self.lock.is_some()
    }

    /// Takes in what another process has committed: versions of the open tables, and tables of these shapes
    /// that were not there yet.
    ///
    /// # Errors
    /// As `open_read_only`.
    pub async fn catch_up(&self, specs: &[TableSpec]) -> Result<(), LakeError> {
        let known = self.tables.read().await.clone();
        // One after the other: each look blocks a thread of the few for files, and waits for others of them.
        for (name, open) in &known {
            let mut table = open.table.clone();
            table.update_state().await.map_err(table_error("read the log of", name))?;
            self.put(name, table).await;
        }
        for spec in specs.iter().filter(|spec| !known.contains_key(&spec.name)) {
            self.open_existing(spec.clone()).await?;
        }
        Ok(())
    }

    /// Reports commits from now on. A second call changes nothing.
    pub fn report_to(&self, meters: Meters) {
        let _ = self.meters.set(meters);
    }

    /// For people.
    pub fn name(&self) -> String {
        self.place.name()
    }

    /// Lets others write the lake at once; nothing may be committed after it.
    pub async fn give_back(&self) {
        if let Some(lock) = &self.lock {
            lock.give_back().await;
        }
    }

    /// # Errors
    /// Another daemon has taken the lake over.
    fn refuse_if_lost(&self) -> Result<(), LakeError> {
        match &self.lock {
            Some(lock) if !lock.is_held() => Err(LakeError::InUse {
                lake: self.place.name(),
                holder: " (it took the lock over)".to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Tells this lake from every other: drawn when its first table was made.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn id(&self) -> Result<String, LakeError> {
        let open = self.get(tables::BRONZE_PLAYER).await?;
        let snapshot = open.table.snapshot().map_err(table_error("read", tables::BRONZE_PLAYER))?;
        Ok(snapshot.metadata().id().to_string())
    }

    async fn refuse_newer(&self, names: impl Iterator<Item = String>) -> Result<(), LakeError> {
        for name in names {
            if self.place.holds(&name).await? {
                self.load(&name).await?;
            }
        }
        Ok(())
    }

    /// Opens a table if it exists; true if it does.
    pub async fn open_existing(&self, spec: TableSpec) -> Result<bool, LakeError> {
        if !self.place.holds(&spec.name).await? {
            return Ok(false);
        }
        let table = self.load(&spec.name).await?;
        self.tables.write().await.insert(
            spec.name.clone(),
            OpenTable {
                table,
                spec: Arc::new(spec),
            },
        );
        Ok(true)
    }

    /// Opens a table, creating it if it is missing and adding columns that it lacks.
    pub async fn ensure(&self, spec: TableSpec) -> Result<(), LakeError> {
        let name = spec.name.clone();
        if !self.open_existing(spec.clone()).await? {
            let table = self.create(&spec).await?;
            self.tables.write().await.insert(
                name,
                OpenTable {
                    table,
                    spec: Arc::new(spec),
                },
            );
            return Ok(());
        }
        self.add_missing_columns(&spec).await
    }

    async fn load(&self, name: &str) -> Result<DeltaTable, LakeError> {
        if let Some(folder) = self.place.table_folder(name) {
            refuse_empty_commit(name, &folder)?;
        }
        let table = DeltaTableBuilder::from_url(self.place.table_url(name))
            .map_err(table_error("open", name))?
            .with_storage_options(self.place.options())
            .load()
            .await
            .map_err(table_error("open", name))?;
        let found = table
            .snapshot()
            .map_err(table_error("open", name))?
            .metadata()
            .configuration()
            .get(FORMAT_PROPERTY)
            .cloned()
            .unwrap_or_default();
        match found.parse::<u32>() {
            Ok(format) if format <= LAKE_FORMAT => Ok(table),
            Ok(_) => Err(LakeError::Newer {
                lake: self.place.name(),
                table: name.to_string(),
                found,
            }),
            Err(_) => Err(LakeError::Damaged {
                table: name.to_string(),
                what: format!(
                    "{} is a Delta table that Playhead did not make (no property {FORMAT_PROPERTY})",
                    self.place.table_url(name)
                ),
            }),
        }
    }

    async fn create(&self, spec: &TableSpec) -> Result<DeltaTable, LakeError> {
        if let Some(folder) = self.place.table_folder(&spec.name) {
            std::fs::create_dir_all(&folder).map_err(file_error("create the table folder", &folder))?;
        }
        let schema: StructType = spec.schema.as_ref().try_into_kernel().map_err(|source| LakeError::Rows {
            table: spec.name.clone(),
            source,
        })?;
        let configuration: HashMap<String, Option<String>> = HashMap::from([
            (FORMAT_PROPERTY.to_string(), Some(LAKE_FORMAT.to_string())),
            ("delta.dataSkippingStatsColumns".to_string(), Some(spec.statistics.join(","))),
            // Checkpoints name removed files for as long as vacuum may have to spare them, and no longer.
            (
                "delta.deletedFileRetentionDuration".to_string(),
                Some(format!("interval {} hours", upkeep::TOMBSTONES_KEPT_HOURS)),
            ),
        ]);
        DeltaTable::try_from_url_with_storage_options(self.place.table_url(&spec.name), self.place.options())
            .await
            .map_err(table_error("create", &spec.name))?
            .create()
            .with_table_name(spec.name.clone())
            .with_comment(spec.about.clone())
            .with_columns(schema.fields().cloned())
            .with_partition_columns([PARTITION_COLUMN])
            .with_raise_if_key_not_exists(false)
            .with_configuration(configuration)
            .await
            .map_err(table_error("create", &spec.name))
    }

    /// Schema changes are additive: columns of this release that the table lacks are added, nullable.
    async fn add_missing_columns(&self, spec: &TableSpec) -> Result<(), LakeError> {
        let open = self.get(&spec.name).await?;
        let schema: StructType = spec.schema.as_ref().try_into_kernel().map_err(|source| LakeError::Rows {
            table: spec.name.clone(),
            source,
        })?;
        let present = open
            .table
            .snapshot()
            .map_err(table_error("read the schema of", &spec.name))?
            .schema();
        let missing: Vec<_> = schema
            .fields()
            .filter(|field| present.field(field.name()).is_none())
            .map(|field| {
                let mut field = field.clone();
                field.nullable = true;
                field
            })
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let table = open
            .table
            .add_columns()
            .with_fields(missing)
            .await
            .map_err(table_error("add columns to", &spec.name))?;
        self.put(&spec.name, table).await;
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<OpenTable, LakeError> {
        self.tables.read().await.get(name).cloned().ok_or_else(|| LakeError::Damaged {
            table: name.to_string(),
            what: "the table is not open".to_string(),
        })
    }

    async fn put(&self, name: &str, table: DeltaTable) {
        if let Some(open) = self.tables.write().await.get_mut(name) {
            open.table = table;
        }
    }

    /// The table as a commit has left it, without the files that it took out.
    async fn landed(&self, name: &str, table: DeltaTable, removed: &[String]) {
        self.put(name, table).await;
        self.whereabouts(name)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forget(removed);
    }

    fn turns(&self, name: &str) -> Arc<Turns> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(name.to_string()).or_default())
    }

    fn whereabouts(&self, name: &str) -> Arc<Mutex<Whereabouts>> {
        let mut whereabouts = self.whereabouts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(whereabouts.entry(name.to_string()).or_default())
    }

    /// Names of the open tables, sorted.
    pub async fn table_names(&self) -> Vec<String> {
        self.tables.read().await.keys().cloned().collect()
    }

    pub async fn spec(&self, name: &str) -> Result<Arc<TableSpec>, LakeError> {
        Ok(self.get(name).await?.spec)
    }

    /// The newest version that this process has seen or written.
    pub async fn version(&self, name: &str) -> Result<i64, LakeError> {
        let version = self.get(name).await?.table.version().unwrap_or(0);
        Ok(i64::try_from(version).unwrap_or(i64::MAX))
    }

    /// True if the table holds no file.
    pub async fn is_empty(&self, name: &str) -> Result<bool, LakeError> {
        let open = self.get(name).await?;
        let snapshot = open.table.snapshot().map_err(table_error("read", name))?;
        Ok(snapshot.log_data().num_files() == 0)
    }

    /// The transaction marker of an application: what this table covers of it.
    pub async fn covered(&self, name: &str, application: &str) -> Result<Option<i64>, LakeError> {
        let open = self.get(name).await?;
        let snapshot = open.table.snapshot().map_err(table_error("read", name))?;
        snapshot
            .transaction_version(&open.table.log_store(), application)
            .await
            .map_err(table_error("read the markers of", name))
    }

    /// The commits after `after`, oldest first. `None` if the log no longer reaches back that far.
    pub async fn log_after(&self, name: &str, after: i64) -> Result<Option<Vec<LogEntry>>, LakeError> {
        let open = self.get(name).await?;
        let newest = self.version(name).await?;
        let mut entries = Vec::new();
        for version in (after + 1).max(0)..=newest {
            let bytes = open
                .table
                .log_store()
                .read_commit_entry(version.unsigned_abs())
                .await
                .map_err(table_error("read the log of", name))?;
            match bytes {
                Some(bytes) => entries.push(log_entry(name, version, &bytes)?),
                None => return Ok(None),
            }
        }
        Ok(Some(entries))
    }

    /// The newest note that has `key`, searched backwards over `NOTES_SEARCHED` commits.
    pub async fn newest_note(&self, name: &str, key: &str) -> Result<Option<Value>, LakeError> {
        self.newest_note_that(name, |note| !note[key].is_null()).await
    }

    /// The newest note that has one of `keys`, searched as far.
    pub async fn newest_note_with_any(&self, name: &str, keys: &[&str]) -> Result<Option<Value>, LakeError> {
        self.newest_note_that(name, |note| keys.iter().any(|key| !note[key].is_null()))
            .await
    }

    /// The newest note that is as wanted, searched as far.
    async fn newest_note_that(&self, name: &str, is_wanted: impl Fn(&Value) -> bool) -> Result<Option<Value>, LakeError> {
        let open = self.get(name).await?;
        let newest = self.version(name).await?;
        for version in ((newest - NOTES_SEARCHED).max(0)..=newest).rev() {
            let bytes = open
                .table
                .log_store()
                .read_commit_entry(version.unsigned_abs())
                .await
                .map_err(table_error("read the log of", name))?;
            let Some(bytes) = bytes else { return Ok(None) };
            let note = log_entry(name, version, &bytes)?.note;
            if is_wanted(&note) {
                return Ok(Some(note));
            }
        }
        Ok(None)
    }

    /// The table as DataFusion reads it, pinned at the newest version that this process knows.
    pub async fn provider(&self, context: &SessionContext, name: &str) -> Result<Arc<dyn TableProvider>, LakeError> {
        let open = self.get(name).await?;
        open.table
            .update_datafusion_session(&context.state())
            .map_err(table_error("read", name))?;
        open.table.table_provider().await.map_err(query_error("read", name))
    }

    /// Some files of the table as DataFusion reads them.
    pub async fn provider_of_files(
        &self,
        context: &SessionContext,
        name: &str,
        paths: Vec<String>,
    ) -> Result<Arc<dyn TableProvider>, LakeError> {
        let open = self.get(name).await?;
        open.table
            .update_datafusion_session(&context.state())
            .map_err(table_error("read", name))?;
        open.table
            .table_provider()
            .with_file_paths(paths)
            .await
            .map_err(query_error("read", name))
    }
}

/// One commit's note and added files, from the JSON lines of its log file.
fn log_entry(table: &str, version: i64, bytes: &[u8]) -> Result<LogEntry, LakeError> {
    let mut entry = LogEntry {
        version,
        note: Value::Null,
        added: Vec::new(),
    };
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let action: Value = serde_json::from_slice(line).map_err(|_| LakeError::Damaged {
            table: table.to_string(),
            what: format!("version {version} of its log is not JSON"),
        })?;
        if let Some(note) = action["commitInfo"].get("playhead") {
            entry.note = note.clone();
        }
        if let Some(path) = action["add"]["path"].as_str() {
            entry.added.push(path.to_string());
        }
    }
    Ok(entry)
}

/// delta-rs takes an empty last commit file for a version; a torn write must be seen instead.
fn refuse_empty_commit(name: &str, path: &Path) -> Result<(), LakeError> {
    let log = path.join("_delta_log");
    let entries = std::fs::read_dir(&log).map_err(file_error("read", &log))?;
    for entry in entries.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let is_commit = file.ends_with(".json") && file.len() == "00000000000000000000.json".len();
        if is_commit && entry.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            return Err(LakeError::Damaged {
                table: name.to_string(),
                what: format!("its log file {file} is empty (a torn write)"),
            });
        }
    }
    Ok(())
}

fn file_error<'a>(act: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> LakeError + 'a {
    move |source| LakeError::File {
        act,
        path: path.display().to_string(),
        source,
    }
}

pub(crate) fn table_error<'a>(act: &'static str, table: &'a str) -> impl FnOnce(DeltaTableError) -> LakeError + 'a {
    move |source| LakeError::Table {
        act,
        table: table.to_string(),
        source: Box::new(source),
    }
}

pub(crate) fn query_error<'a>(act: &'static str, table: &'a str) -> impl FnOnce(datafusion::error::DataFusionError) -> LakeError + 'a {
    move |source| LakeError::Query {
        act,
        table: table.to_string(),
        source: Box::new(source),
    }
}
