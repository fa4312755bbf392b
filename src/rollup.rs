//! Closed windows: silver to gold.
//!
//! Runs after each epoch. Every silver commit names the minutes it touched; a minute that lies behind
//! the watermark and the allowed lateness is computed by each pipeline and replaced in its table.
//!
//! Invariant: a gold table says in its own commits which silver versions it covers and which windows
//! are still to do, so a crash at any moment loses no window.
//! Invariant: a run that needs more memory than it may have ends nothing: it is halved, and a window that
//! does not fit alone stays pending, with the coarser windows over it, while all others go on.
//! Invariant: a table has one writer; what is Arroyo's is left alone (`owner`), but for what `collect` brings back;
//! the coarser tables over that are computed here, from its rows.
//! Invariant: the first computation of a window and its tenth after late data take the same path.

pub mod again;
pub mod collect;
pub mod owner;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Date32Array, RecordBatch, StringArray};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::error::DataFusionError;
use serde_json::json;

use crate::lake::commit::{conform, minute_ranges, minutes_in};
use crate::lake::tables::{PARTITION_COLUMN, TableSpec, WINDOWED_VIEWS};
use crate::lake::{Commit, Lake, LakeError, TimeRange, Victims};
use crate::sql::pipeline::{PIPELINE_HASH, Pipeline, SILVER_VERSIONS};
use crate::sql::{MINUTE_MS, SqlError, planning_context, range_of, run_pipeline};
use again::{Extent, Front};
use owner::{Owner, owner};
use room::{Refused, Room};

/// Minutes that one run of a pipeline spans at the most, to bound memory: six hours of a busy service at
/// once took 1.3 GB, three take 0.7.
const MINUTES_PER_RUN: i64 = 180;
/// Tables that are computed side by side: planning and commits of the one fill the pauses of the other,
/// and each may use the memory of a query.
const TABLES_AT_ONCE: usize = 2;
const MINUTE_US: i64 = 60_000_000;
const MINUTES_PER_DAY: i64 = 1440;

/// One pipeline with what it still has to do.
struct Work {
    pipeline: Pipeline,
    spec: TableSpec,
    /// The tables whose changes reach it.
    sources: Vec<String>,
    /// Minutes of them that changed and are not in the gold table yet.
    pending: BTreeSet<i64>,
    /// There is something of each silver table that the pipeline begins with; before, nothing is pending.
    has_begun: bool,
    room: Room,
    front: Front,
}

/// All pipelines of a lake.
pub struct Rollup {
    lake: Arc<Lake>,
    work: Vec<Work>,
    /// Versions of the sources whose minutes are in `pending` or in gold.
    seen: BTreeMap<String, i64>,
    lateness_ms: i64,
    memory_bytes: usize,
}

/// What a run of the rollup wrote.
#[derive(Debug, Default)]
pub struct Closed {
    /// Minutes in which windows start that were computed, by table.
    pub minutes: BTreeMap<String, BTreeSet<i64>>,
    pub rows: usize,
}

impl Closed {
    fn add(&mut self, carried: Carried) {
        self.rows += carried.rows;
        if !carried.minutes.is_empty() {
            self.minutes.entry(carried.table).or_default().extend(carried.minutes);
        }
    }

    /// Minutes in which a window of any table starts.
    pub fn minute_count(&self) -> usize {
        self.minutes.values().flatten().collect::<BTreeSet<_>>().len()
    }
}

impl Rollup {
    /// Opens or creates the gold tables and finds out what each has still to do.
    pub async fn open(lake: Arc<Lake>, pipelines: Vec<Pipeline>, lateness_ms: i64, memory_bytes: usize) -> Result<Rollup, SqlError> {
        let mut rollup = Rollup {
            lake,
            work: Vec::new(),
            seen: BTreeMap::new(),
            lateness_ms,
            memory_bytes,
        };
        for pipeline in pipelines {
            let spec = table_spec(&pipeline).await?;
            rollup.lake.ensure(spec.clone()).await?;
            if pipeline.finer.is_none() && owner(&rollup.lake, &pipeline).await? == Owner::Arroyo {
                tracing::info!("{}: its rows come from Arroyo, it is not computed here", pipeline.table());
                continue;
            }
            let sources = sources(&rollup.lake, &pipeline).await?;
            for table in &sources {
                rollup.seen.insert(table.clone(), rollup.lake.version(table).await?);
            }
            let pending = pending_minutes(&rollup.lake, &pipeline).await?;
            let has_begun = has_begun(&rollup.lake, &pipeline).await?;
            let room = Room::new(MINUTES_PER_RUN);
            rollup.work.push(Work {
                pipeline,
                spec,
                sources,
                pending,
                has_begun,
                room,
                front: Front::default(),
            });
        }
        rollup.work.sort_by_key(Work::depth);
        Ok(rollup)
    }

    /// Windows of all tables that are still to be computed.
    pub fn dirty_windows(&self) -> usize {
        self.pending_windows().values().map(BTreeSet::len).sum()
    }

    /// Windows that are still to be computed, by table and the minute that they start in.
    pub fn pending_windows(&self) -> BTreeMap<String, BTreeSet<i64>> {
        let windows = |work: &Work| work.pending.iter().map(|minute| work.pipeline.window_of(*minute)).collect();
        self.work.iter().map(|work| (work.pipeline.table(), windows(work))).collect()
    }

    /// Computes the windows that the watermark has closed, as far as `extent` says.
    pub async fn run(&mut self, watermark_ms: Option<i64>, extent: Extent) -> Result<Closed, SqlError> {
        self.take_in_changes().await?;
        let bound = match (extent, watermark_ms) {
            (Extent::Everything, _) => i64::MAX,
            (_, Some(watermark_ms)) => watermark_ms.saturating_sub(self.lateness_ms).div_euclid(MINUTE_MS),
            (_, None) => return Ok(Closed::default()),
        };
        let mut closed = Closed::default();
        let run = Run {
            lake: &self.lake,
            seen: &self.seen,
            memory_bytes: self.memory_bytes,
            bound,
            extent,
            needed: self.needed(bound, extent),
        };
        let mut held = Held::new();
        // A finer table is complete before those that roll it up; tables of one depth know nothing of
        // each other.
        for level in self.work.chunk_by_mut(|one, next| one.depth() == next.depth()) {
            for some in level.chunks_mut(TABLES_AT_ONCE) {
                let carried = match some {
                    [one, other] => {
                        let (one, other) = tokio::try_join!(run.carry(one, &held), run.carry(other, &held))?;
                        vec![one, other]
                    }
                    [one] => vec![run.carry(one, &held).await?],
                    _ => Vec::new(),
                };
                for mut carried in carried {
                    held.insert(carried.table.clone(), std::mem::take(&mut carried.held));
                    closed.add(carried);
                }
            }
        }
        Ok(closed)
    }

    /// Minutes that new windows of coarser tables are made of, where others are left for later.
    fn needed(&self, bound: i64, extent: Extent) -> BTreeSet<i64> {
        if extent != Extent::New {
            return BTreeSet::new();
        }
        let coarser = self.work.iter().filter(|work| work.depth() > 0);
        let new_minutes = |work: &Work| {
            let due = work.due(bound);
            let minutes = work.front.new_minutes(&due, work.pipeline.window_minutes);
            minutes.collect::<Vec<_>>()
        };
        coarser.flat_map(new_minutes).collect()
    }

    /// Event time at or before which windows are closed at a watermark, ms.
    pub fn closed_ms(&self, watermark_ms: Option<i64>) -> Option<i64> {
        closed_ms(watermark_ms, self.lateness_ms)
    }

    async fn take_in_changes(&mut self) -> Result<(), SqlError> {
        for (table, seen) in &mut self.seen {
            let newest = self.lake.version(table).await?;
            if newest == *seen {
                continue;
            }
            let minutes = changed_minutes(&self.lake, table, *seen).await?;
            let readers = self.work.iter_mut().filter(|work| work.sources.contains(table));
            for work in readers.filter(|work| work.has_begun) {
                let mut reached = work.pipeline.reached(&minutes);
                work.pending
                    .extend(reached.split_off(&first_minute(&self.lake, &work.sources).await?));
            }
            *seen = newest;
        }
        for work in self.work.iter_mut().filter(|work| !work.has_begun) {
            if has_begun(&self.lake, &work.pipeline).await? {
                work.has_begun = true;
                work.pending = pending_minutes(&self.lake, &work.pipeline).await?;
            }
        }
        Ok(())
    }
}

/// Minutes of due windows that could not be computed, by table.
type Held = BTreeMap<String, BTreeSet<i64>>;

/// What a run did for one table.
struct Carried {
    table: String,
    /// Minutes in which the windows start that were computed.
    minutes: BTreeSet<i64>,
    rows: usize,
    /// Minutes of those that were due and were not.
    held: BTreeSet<i64>,
}

/// What the tables of one run have in common.
struct Run<'a> {
    lake: &'a Lake,
    seen: &'a BTreeMap<String, i64>,
    memory_bytes: usize,
    /// Windows that end at or before this minute are closed.
    bound: i64,
    extent: Extent,
    /// Minutes that are not left for later.
    needed: BTreeSet<i64>,
}

impl Run<'_> {
    /// Computes the due windows of one table. What memory does not suffice for is left pending.
    async fn carry(&self, work: &mut Work, held: &Held) -> Result<Carried, SqlError> {
        let width = work.pipeline.window_minutes;
        let mut left = work.due(self.bound);
        // A coarser window is made of all its finer ones or not at all.
        let finer = work.pipeline.finer.as_ref().and_then(|finer| held.get(&finer.table()));
        let mut not_now: BTreeSet<i64> = finer.into_iter().flatten().map(|minute| work.pipeline.window_of(*minute)).collect();
        not_now.retain(|window| left.remove(window));
        if self.extent == Extent::New {
            not_now.extend(work.front.put_off(&mut left, width, &self.needed));
        }
        not_now.extend(work.room.put_aside(&mut left, self.extent == Extent::Everything));
        let (mut minutes, mut rows) = (BTreeSet::new(), 0);
        while !left.is_empty() {
            let some = work.room.first_run(&left);
            match self.compute(work, &some).await {
                Ok(written) => {
                    work.room.fitted(&some, width, written);
                    work.front.advance(&some);
                    rows += written;
                    left.retain(|window| !some.contains(window));
                    minutes.extend(some);
                }
                Err(error) if is_out_of_memory(&error) => {
                    let refused = work.room.refused(&some, width);
                    self.tell(work, &refused, &error);
                    if let Refused::Alone { window, .. } = refused {
                        left.remove(&window);
                        not_now.insert(window);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Carried {
            table: work.pipeline.table(),
            minutes,
            rows,
            held: not_now.iter().flat_map(|window| *window..window + width).collect(),
        })
    }

    fn tell(&self, work: &Work, refused: &Refused, error: &SqlError) {
        let (table, mebibytes) = (work.pipeline.table(), self.memory_bytes >> 20);
        match refused {
            Refused::Narrowed { minutes } => {
                tracing::info!(
                    "{table}: a run needs more than the {mebibytes} MiB of sql.memory; its runs span {minutes} minutes from now on"
                );
            }
            Refused::Alone { window, is_new: true } => {
                let start = minute_text(*window);
                tracing::error!(
                    "{table}: the window of {start} needs more than the {mebibytes} MiB of sql.memory and is not computed; nothing is lost, \
                     it is tried again now and then: raise sql.memory, or have its pipeline group by less: {error}"
                );
            }
            Refused::Alone { window, is_new: false } => {
                tracing::debug!("{table}: the window of {} still does not fit", minute_text(*window));
            }
        }
    }

    async fn compute(&self, work: &mut Work, windows: &BTreeSet<i64>) -> Result<usize, SqlError> {
        let Work {
            pipeline,
            spec,
            sources,
            pending,
            ..
        } = work;
        let versions: BTreeMap<&str, i64> = sources.iter().map(|table| (table.as_str(), self.seen[table])).collect();
        tracing::debug!(
            table = spec.name,
            windows = windows.len(),
            first = windows.first(),
            last = windows.last(),
            "computing"
        );
        let rows = run_pipeline(self.lake, pipeline, windows, self.memory_bytes).await?;
        let batches = with_lineage(&rows, spec, pipeline, &versions).map_err(|source| rows_error(spec, source))?;
        let width = pipeline.window_minutes;
        let mut left = pending.clone();
        left.retain(|minute| !windows.contains(&pipeline.window_of(*minute)));
        let commit = Commit {
            covers: versions.iter().map(|(table, version)| (table.to_string(), *version)).collect(),
            note: json!({"pipeline": pipeline.hash, "pending": minute_ranges(&left), "silver": versions}),
        };
        let range = range_of(windows, width).unwrap_or(TimeRange::ALL);
        let is_victim = |batch: &RecordBatch| -> Result<BooleanArray, arrow::error::ArrowError> {
            let starts = batch["window_start"].as_primitive::<TimestampMicrosecondType>().clone();
            Ok(starts
                .iter()
                .map(|start| Some(start.is_some_and(|start| windows.contains(&start.div_euclid(MINUTE_US)))))
                .collect())
        };
        let victims = Victims {
            range,
            ids: None,
            is_victim: &is_victim,
        };
        let prepared = self.lake.prepare_edit(&spec.name, victims, batches).await?;
        let written = prepared.rows;
        self.lake.commit(&spec.name, prepared, commit).await?;
        *pending = left;
        Ok(written)
    }
}

impl Work {
    /// How many tables stand between silver and this one.
    fn depth(&self) -> usize {
        std::iter::successors(self.pipeline.finer.as_deref(), |finer| finer.finer.as_deref()).count()
    }

    /// Windows (by the minute they start in) that are pending and end at or before `bound` (a minute).
    fn due(&self, bound: i64) -> BTreeSet<i64> {
        let width = self.pipeline.window_minutes;
        self.pending
            .iter()
            .map(|minute| self.pipeline.window_of(*minute))
            .filter(|start| start.saturating_add(width) <= bound)
            .collect()
    }
}

/// Event time at or before which windows are closed at a watermark, ms.
pub fn closed_ms(watermark_ms: Option<i64>, lateness_ms: i64) -> Option<i64> {
    let closed_ms = watermark_ms?.saturating_sub(lateness_ms);
    Some(closed_ms - closed_ms.rem_euclid(MINUTE_MS))
}

/// Pipelines with the windows that gold does not answer yet: for questions while nothing is running.
pub async fn open_windows(lake: &Lake, pipelines: Vec<Pipeline>) -> Result<Vec<(Pipeline, BTreeSet<i64>)>, SqlError> {
    let mut answered = Vec::new();
    for pipeline in pipelines {
        let spec = table_spec(&pipeline).await?;
        let windows = match lake.open_existing(spec).await? {
            true => open_windows_of(lake, &pipeline).await?,
            false => BTreeSet::new(),
        };
        answered.push((pipeline, windows));
    }
    Ok(answered)
}

/// The windows of one open gold table that it does not answer yet, by the minute they start in.
///
/// # Errors
/// The table's log, or one that it is made from, cannot be read.
pub async fn open_windows_of(lake: &Lake, pipeline: &Pipeline) -> Result<BTreeSet<i64>, SqlError> {
    let minutes = pending_minutes(lake, pipeline).await?;
    Ok(minutes.into_iter().map(|minute| pipeline.window_of(minute)).collect())
}

/// The gold table that a pipeline fills: its columns come from planning it over an empty silver.
///
/// # Errors
/// `pipelines/x.sql: ` and what the planner refuses.
pub async fn table_spec(pipeline: &Pipeline) -> Result<TableSpec, SqlError> {
    let finer = match &pipeline.finer {
        Some(finer) => Some(Box::pin(table_spec(finer)).await?),
        None => None,
    };
    let context = planning_context(finer.as_ref())?;
    let plan = pipeline
        .plan(&context)
        .await
        .map_err(|error| SqlError::Pipeline(pipeline.complaint(&error)))?;
    pipeline.table_spec(&plan).map_err(SqlError::Pipeline)
}

/// False while a silver table that a pipeline begins with has had no rows: its first version is empty.
async fn has_begun(lake: &Lake, pipeline: &Pipeline) -> Result<bool, LakeError> {
    if pipeline.begins_with.is_empty() || owner(lake, pipeline).await? != Owner::Runner {
        return Ok(true);
    }
    for table in &pipeline.begins_with {
        if lake.version(table).await? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The tables whose changes reach a pipeline's table: silver, or, over rows that come from Arroyo, the next finer one.
async fn sources(lake: &Lake, pipeline: &Pipeline) -> Result<Vec<String>, LakeError> {
    if let Some(finer) = &pipeline.finer
        && owner(lake, pipeline).await? == Owner::Arroyo
    {
        return Ok(vec![finer.table()]);
    }
    let views = WINDOWED_VIEWS
        .iter()
        .filter(|view| pipeline.reads.iter().any(|name| name == view.name));
    let tables: BTreeSet<&str> = views.map(|view| view.table).collect();
    Ok(tables.into_iter().map(str::to_owned).collect())
}

/// Minutes of its sources that a pipeline's table does not cover; none before it has begun.
async fn pending_minutes(lake: &Lake, pipeline: &Pipeline) -> Result<BTreeSet<i64>, SqlError> {
    let is_collected = pipeline.finer.is_none() && owner(lake, pipeline).await? == Owner::Arroyo;
    if is_collected || !has_begun(lake, pipeline).await? {
        return Ok(BTreeSet::new());
    }
    let table = pipeline.table();
    let note = lake.newest_note(&table, "pipeline").await?;
    let same_text = note.as_ref().is_some_and(|note| note["pipeline"] == json!(pipeline.hash));
    let mut pending = BTreeSet::new();
    if let Some(note) = note.filter(|_| same_text) {
        pending.extend(minutes_in(&note["pending"]));
    }
    let sources = sources(lake, pipeline).await?;
    for source in &sources {
        let covered = if same_text { lake.covered(&table, source).await? } else { None };
        let minutes = match covered {
            Some(version) => changed_minutes(lake, source, version).await?,
            None => all_minutes(lake, source).await?,
        };
        pending.extend(pipeline.reached(&minutes));
    }
    Ok(pending.split_off(&first_minute(lake, &sources).await?))
}

/// Windows before it are never computed again: retention has dropped rows that they were made of.
async fn first_minute(lake: &Lake, sources: &[String]) -> Result<i64, LakeError> {
    let mut first = i64::MIN;
    for source in sources {
        let kept_from = lake.kept_from_day(source).await?;
        first = first.max(kept_from.map_or(i64::MIN, |day| day.saturating_mul(MINUTES_PER_DAY)));
    }
    Ok(first)
}

/// Minutes that the commits after `version` touched.
async fn changed_minutes(lake: &Lake, table: &str, version: i64) -> Result<BTreeSet<i64>, LakeError> {
    match lake.log_after(table, version).await? {
        Some(entries) => Ok(entries.iter().flat_map(|entry| minutes_in(&entry.note["minutes"])).collect()),
        None => all_minutes(lake, table).await,
    }
}

async fn all_minutes(lake: &Lake, table: &str) -> Result<BTreeSet<i64>, LakeError> {
    let columns = lake.spec(table).await?.window_columns.clone();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut minutes = BTreeSet::new();
    for batch in lake.scan(table, &columns, TimeRange::ALL, None).await? {
        for column in batch.columns() {
            let times = column.as_primitive::<TimestampMicrosecondType>();
            minutes.extend(times.iter().flatten().map(|time| time.div_euclid(MINUTE_US)));
        }
    }
    Ok(minutes)
}

fn minute_text(minute: i64) -> String {
    let start = chrono::DateTime::from_timestamp_millis(minute.saturating_mul(MINUTE_MS));
    start.map_or_else(
        || format!("minute {minute}"),
        |start| start.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    )
}

/// The memory of a run did not suffice, however deep the engines have wrapped it.
fn is_out_of_memory(error: &SqlError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = match error {
        SqlError::Query(error) => Some(error),
        SqlError::Lake(error) => Some(error),
        SqlError::Pipeline(_) | SqlError::Timeout(_) => None,
    };
    while let Some(error) = next {
        // A box or an `Arc` of an error gives its content's source as its own, and so hides the content.
        let shared = error.downcast_ref::<Arc<DataFusionError>>().map(Arc::as_ref);
        let boxed = error.downcast_ref::<Box<DataFusionError>>().map(Box::as_ref);
        if let Some(DataFusionError::ResourcesExhausted(_)) = error.downcast_ref().or(shared).or(boxed) {
            return true;
        }
        next = error.source();
    }
    false
}

fn with_lineage(
    rows: &[RecordBatch],
    spec: &TableSpec,
    pipeline: &Pipeline,
    versions: &BTreeMap<&str, i64>,
) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    let selected = Pipeline::selected_schema(spec);
    let silver: Vec<String> = versions.iter().map(|(table, version)| format!("{table}@{version}")).collect();
    let silver = silver.join(",");
    rows.iter()
        .filter(|batch| batch.num_rows() > 0)
        .map(|batch| {
            let batch = conform(batch, &selected)?;
            let count = batch.num_rows();
            let starts = batch["window_start"].as_primitive::<TimestampMicrosecondType>();
            let days = Date32Array::from_iter(
                starts
                    .iter()
                    .map(|start| start.map(|start| crate::event::schema::utc_day(start.div_euclid(1000)))),
            );
            let columns = spec.schema.fields().iter().map(|field| -> ArrayRef {
                match field.name().as_str() {
                    PARTITION_COLUMN => Arc::new(days.clone()),
                    PIPELINE_HASH => Arc::new(StringArray::from(vec![pipeline.hash.as_str(); count])),
                    SILVER_VERSIONS => Arc::new(StringArray::from(vec![silver.as_str(); count])),
                    name => Arc::clone(&batch[name]),
                }
            });
            RecordBatch::try_new(Arc::clone(&spec.schema), columns.collect())
        })
        .collect()
}

fn rows_error(spec: &TableSpec, source: arrow::error::ArrowError) -> SqlError {
    SqlError::Lake(LakeError::Rows {
        table: spec.name.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::error::ArrowError;
    use deltalake::DeltaTableError;

    fn exhausted() -> DataFusionError {
        DataFusionError::ResourcesExhausted("Failed to allocate additional 1 GB".to_owned())
    }

    #[track_caller]
    fn check(error: SqlError, expected: bool) {
        assert_eq!(is_out_of_memory(&error), expected, "{error}");
    }

    #[test]
    fn want_of_memory_is_known_however_it_is_wrapped() {
        let wrapped = DataFusionError::Shared(Arc::new(exhausted().context("HashJoinInput")));
        check(SqlError::Query(exhausted()), true);
        check(SqlError::Query(wrapped), true);
        check(
            SqlError::Query(DataFusionError::ArrowError(
                Box::new(ArrowError::ExternalError(Box::new(exhausted()))),
                None,
            )),
            true,
        );
        let table = || "gold.t".to_owned();
        check(
            SqlError::Lake(LakeError::Query {
                act: "read",
                table: table(),
                source: Box::new(exhausted()),
            }),
            true,
        );
        check(
            SqlError::Lake(LakeError::Table {
                act: "write",
                table: table(),
                source: Box::new(DeltaTableError::GenericError {
                    source: Box::new(exhausted()),
                }),
            }),
            true,
        );
        check(SqlError::Query(DataFusionError::Execution("divide by zero".to_owned())), false);
        check(SqlError::Timeout(std::time::Duration::from_secs(30)), false);
    }

    #[test]
    fn windows_are_named_by_their_start() {
        assert_eq!(minute_text(29_453_760), "2026-01-01T00:00:00Z");
    }
}
