//! Questions: a DataFusion session over all layers of the lake, for people and for pipelines.
//!
//! Stands above the lake. `silver`, `bronze` and `ops` are the tables as committed; `gold` is the
//! stored windows plus, computed on the spot, those that are not final yet (`is_final`).
//!
//! Invariant: read-only. DDL, DML and statements are refused at plan level.
//! Invariant: a gold answer never mixes two states of a window: a window that silver has changed since
//! is answered from silver.

pub mod cause;
pub mod explain_change;
mod functions;
pub mod live;
pub mod pipeline;
pub mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::catalog::{CatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;

use crate::lake::scan::in_range;
use crate::lake::tables::{TableSpec, WINDOWED_VIEWS, WindowedView, fixed_tables};
use crate::lake::{Lake, LakeError, TimeRange};
use crate::metric::{METRICS, Metric};
use pipeline::{Pipeline, TIME_COLUMN};

pub const MINUTE_MS: i64 = 60_000;
/// A session is at most a day long: its row may lie a day before its end or its failure.
const SESSION_DAYS_MS: i64 = 86_400_000;
/// Column of gold tables that are asked: false in a row of a window that is not final yet.
pub const IS_FINAL: &str = "is_final";
/// The schemas of a session.
pub const LAYERS: [&str; 4] = ["bronze", "silver", "gold", "ops"];
const CATALOG: &str = "datafusion";
/// Planning needs next to none.
pub const PLANNING_MEMORY_BYTES: usize = 64 << 20;

/// A session over the tables, as `open` gives it.
pub type Session = SessionContext;

/// Bounds of a query.
#[derive(Debug, Clone, Copy)]
pub struct QueryLimits {
    pub memory_bytes: usize,
    pub timeout: Duration,
}

/// What can go wrong with a question.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error("{}", in_words(.0))]
    Query(DataFusionError),
    #[error("{0}")]
    Pipeline(pipeline::Complaint),
    #[error("the query took longer than {0:?} and was stopped; narrow its time range, or raise sql.timeout")]
    Timeout(Duration),
}

impl SqlError {
    /// True for what fails because the tables cannot be read, whatever is asked of them.
    pub fn is_of_lake(&self) -> bool {
        match self {
            SqlError::Lake(_) => true,
            SqlError::Query(error) => matches!(
                error.find_root(),
                DataFusionError::ObjectStore(_)
                    | DataFusionError::IoError(_)
                    | DataFusionError::External(_)
                    | DataFusionError::ParquetError(_)
            ),
            SqlError::Pipeline(_) | SqlError::Timeout(_) => false,
        }
    }
}

/// Not a `#[from]`: the text is already told in full, and a source would tell it once more.
impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> SqlError {
        SqlError::Query(error)
    }
}

fn in_words(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::SQL(parser, _) => parser.to_string(),
        _ => error.to_string(),
    }
}

/// The windows of one pipeline that are to be answered from silver, as epoch minutes of their starts.
pub type OpenWindows = BTreeSet<i64>;

/// A context with the four empty schemas and bounded memory.
pub fn empty_context(memory_bytes: usize) -> Result<SessionContext, DataFusionError> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
        .build_arc()?;
    let context = context_over(runtime, CATALOG, "public");
    let catalog = catalog(&context)?;
    for layer in LAYERS {
        catalog.register_schema(layer, Arc::new(MemorySchemaProvider::new()))?;
    }
    Ok(context)
}

/// A context with our functions and none of the tables; unqualified names mean those of `schema`.
pub fn context_over(runtime: Arc<RuntimeEnv>, catalog: &str, schema: &str) -> SessionContext {
    context_with(runtime, session_config(catalog, schema))
}

/// The settings of the engine that all sessions have.
pub fn session_config(catalog: &str, schema: &str) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_target_partitions(2)
        .with_default_catalog_and_schema(catalog, schema);
    // Errors of the planner then say where in the text they are.
    config.options_mut().sql_parser.collect_spans = true;
    // Columns carry comments; a UNION with a literal keeps them in one of its two plans only, and
    // DataFusion would take the difference for a bug.
    config.options_mut().execution.skip_physical_aggregate_schema_check = true;
    config
}

/// As `context_over`, with settings that go further.
pub fn context_with(runtime: Arc<RuntimeEnv>, config: SessionConfig) -> SessionContext {
    let context = SessionContext::new_with_config_rt(config, runtime);
    functions::register(&context);
    context
}

fn catalog(context: &SessionContext) -> Result<Arc<dyn CatalogProvider>, DataFusionError> {
    context
        .catalog(CATALOG)
        .ok_or_else(|| DataFusionError::Internal("the session has no default catalog".to_string()))
}

fn schema(context: &SessionContext, layer: &str) -> Result<Arc<dyn SchemaProvider>, DataFusionError> {
    catalog(context)?
        .schema(layer)
        .ok_or_else(|| DataFusionError::Internal(format!("the session has no schema {layer}")))
}

/// Registers what a pipeline reads: silver within a range of event time, with the hidden time.
async fn register_windowed_views(context: &SessionContext, lake: &Lake, pipeline: &Pipeline, range: TimeRange) -> Result<(), SqlError> {
    let silver = schema(context, "silver")?;
    let range = range.widened(pipeline.reach_minutes * MINUTE_MS);
    let is_read = |view: &&WindowedView| pipeline.reads.iter().any(|name| name == view.name);
    for view in WINDOWED_VIEWS.iter().filter(is_read) {
        let provider = lake.provider(context, view.table).await?;
        let frame = context.read_table(provider)?.filter(view_range(view.time_column, range))?;
        let frame = frame.with_column(TIME_COLUMN, col(view.time_column))?;
        silver.register_table(view.name.to_string(), frame.into_view())?;
    }
    Ok(())
}

/// The first and the last minute of a view's rows within a range; `None`: it has none there.
pub async fn view_bounds(lake: &Lake, view: &WindowedView, range: TimeRange, memory_bytes: usize) -> Result<Option<(i64, i64)>, SqlError> {
    let context = empty_context(memory_bytes)?;
    let time = || col(view.time_column);
    let frame = context.read_table(lake.provider(&context, view.table).await?)?;
    let frame = frame.filter(view_range(view.time_column, range))?;
    let frame = frame.aggregate(vec![], vec![min(time()).alias("first"), max(time()).alias("last")])?;
    let batches = frame.collect().await?;
    let minute = |name: &str| {
        let batch = batches.first().filter(|batch| batch.num_rows() > 0)?;
        let times = batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>()?;
        (!times.is_null(0)).then(|| times.value(0).div_euclid(MINUTE_MS * 1000))
    };
    Ok(minute("first").zip(minute("last")))
}

/// The rows of one minute of a view, part by part.
pub async fn view_rows(
    lake: &Lake,
    view: &WindowedView,
    columns: &[String],
    minute: i64,
    memory_bytes: usize,
) -> Result<SendableRecordBatchStream, SqlError> {
    let context = empty_context(memory_bytes)?;
    let range = minutes_range(minute..minute + 1);
    let columns: Vec<Expr> = columns.iter().map(col).collect();
    let frame = context
        .read_table(lake.provider(&context, view.table).await?)?
        .filter(view_range(view.time_column, range))?
        .select(columns)?;
    Ok(frame.execute_stream().await?)
}

/// The event time of minutes (epoch minutes).
pub fn minutes_range(minutes: Range<i64>) -> TimeRange {
    TimeRange {
        from_ms: minutes.start * MINUTE_MS,
        to_ms: minutes.end * MINUTE_MS - 1,
    }
}

/// Registers what pipelines may read, without rows: to plan and to check.
pub fn register_empty_views(context: &SessionContext) -> Result<(), SqlError> {
    let silver = schema(context, "silver")?;
    let specs = fixed_tables();
    for view in WINDOWED_VIEWS {
        let Some(spec) = specs.iter().find(|spec| spec.name == view.table) else {
            continue;
        };
        let empty = MemTable::try_new(Arc::clone(&spec.schema), vec![vec![]])?;
        let frame = context
            .read_table(Arc::new(empty))?
            .with_column(TIME_COLUMN, col(view.time_column))?;
        silver.register_table(view.name.to_string(), frame.into_view())?;
    }
    Ok(())
}

/// A context in which a pipeline can be planned: what it reads, without rows. `finer` is the table
/// that it rolls up, if it does.
pub fn planning_context(finer: Option<&TableSpec>) -> Result<SessionContext, SqlError> {
    let context = empty_context(PLANNING_MEMORY_BYTES)?;
    register_empty_views(&context)?;
    if let Some(spec) = finer {
        let empty = MemTable::try_new(Arc::clone(&spec.schema), vec![vec![]])?;
        register_finer(&context, &spec.name, context.read_table(Arc::new(empty))?)?;
    }
    Ok(context)
}

/// Registers the gold table that a pipeline rolls up; its windows' starts are its time.
fn register_finer(context: &SessionContext, table: &str, rows: DataFrame) -> Result<(), SqlError> {
    let rows = rows.with_column(TIME_COLUMN, col("window_start"))?;
    schema(context, "gold")?.register_table(table.trim_start_matches("gold.").to_string(), rows.into_view())?;
    Ok(())
}

/// A context with gold tables of these shapes and the views over them, without rows: to check what reads them.
pub async fn empty_gold(specs: &[TableSpec]) -> Result<SessionContext, SqlError> {
    gold_of(specs, &BTreeMap::new()).await
}

/// The same with rows in some of the tables, by name: for tests of what reads them.
pub async fn gold_of(specs: &[TableSpec], rows: &BTreeMap<String, RecordBatch>) -> Result<SessionContext, SqlError> {
    let context = empty_context(PLANNING_MEMORY_BYTES)?;
    for spec in specs {
        let (layer, name) = spec.name.split_once('.').unwrap_or(("gold", &spec.name));
        let table = match rows.get(&spec.name) {
            Some(batch) => MemTable::try_new(batch.schema(), vec![vec![batch.clone()]])?,
            None => MemTable::try_new(Arc::clone(&spec.schema), vec![vec![]])?,
        };
        let mut frame = context.read_table(Arc::new(table))?;
        if layer == "gold" {
            frame = frame.with_column(IS_FINAL, lit(true))?;
        }
        schema(&context, layer)?.register_table(name.to_string(), frame.into_view())?;
    }
    views::register(&context).await?;
    explain_change::register(&context);
    Ok(context)
}

/// The same with every other table of the lake beside gold.
pub async fn empty_lake(specs: &[TableSpec]) -> Result<SessionContext, SqlError> {
    let context = empty_gold(specs).await?;
    for spec in fixed_tables() {
        let Some((layer, table)) = spec.name.split_once('.') else {
            continue;
        };
        let empty = MemTable::try_new(Arc::clone(&spec.schema), vec![vec![]])?;
        schema(&context, layer)?.register_table(table.to_string(), Arc::new(empty))?;
    }
    Ok(context)
}

/// Sessions are partitioned by their start: by another time the days before must be looked at too.
fn view_range(time_column: &str, range: TimeRange) -> Expr {
    if !matches!(time_column, "ended_at" | "fatal_error_at") || range == TimeRange::ALL {
        return in_range(time_column, range);
    }
    let time = |ms: i64| lit(ScalarValue::TimestampMicrosecond(Some(ms.saturating_mul(1000)), Some("UTC".into())));
    let started = TimeRange {
        from_ms: range.from_ms.saturating_sub(SESSION_DAYS_MS),
        to_ms: range.to_ms,
    };
    in_range("started_at", started)
        .and(col(time_column).gt_eq(time(range.from_ms)))
        .and(col(time_column).lt_eq(time(range.to_ms)))
}

/// The range of event time that some windows cover.
pub fn range_of(windows: &BTreeSet<i64>, window_minutes: i64) -> Option<TimeRange> {
    let (first, last) = (windows.first()?, windows.last()?);
    Some(TimeRange {
        from_ms: first * MINUTE_MS,
        to_ms: (last + window_minutes) * MINUTE_MS - 1,
    })
}

/// Rows of a pipeline for some windows, computed from silver, or from the finer table if it has one,
/// whose windows must have been computed before.
pub async fn run_pipeline(
    lake: &Lake,
    pipeline: &Pipeline,
    windows: &BTreeSet<i64>,
    memory_bytes: usize,
) -> Result<Vec<RecordBatch>, SqlError> {
    let Some(range) = range_of(windows, pipeline.window_minutes) else {
        return Ok(Vec::new());
    };
    let context = empty_context(memory_bytes)?;
    match &pipeline.finer {
        None => register_windowed_views(&context, lake, pipeline, range).await?,
        Some(finer) => {
            let stored = context.read_table(lake.provider(&context, &finer.table()).await?)?;
            register_finer(&context, &finer.table(), stored.filter(in_range("window_start", range))?)?;
        }
    }
    let plan = pipeline.plan(&context).await?;
    let frame = context
        .execute_logical_plan(plan)
        .await?
        .filter(in_windows(windows, pipeline.slide_minutes))?;
    Ok(frame.collect().await?)
}

/// `window_start` is one of these windows: as ranges of neighbours, for there may be a day of them.
pub fn in_windows(windows: &BTreeSet<i64>, slide_minutes: i64) -> Expr {
    let time = |minute: i64| {
        lit(ScalarValue::TimestampMicrosecond(
            Some(minute * MINUTE_MS * 1000),
            Some("UTC".into()),
        ))
    };
    let mut spans: Vec<(i64, i64)> = Vec::new();
    for minute in windows {
        match spans.last_mut() {
            Some((_, last)) if *last + slide_minutes == *minute => *last = *minute,
            _ => spans.push((*minute, *minute)),
        }
    }
    let within = |(first, last): (i64, i64)| col("window_start").gt_eq(time(first)).and(col("window_start").lt_eq(time(last)));
    spans.into_iter().map(within).reduce(Expr::or).unwrap_or_else(|| lit(false))
}

/// A session for people: every table, with gold completed from silver.
pub async fn open(lake: &Lake, pipelines: &[(Pipeline, OpenWindows)], limits: QueryLimits) -> Result<SessionContext, SqlError> {
    let context = empty_context(limits.memory_bytes)?;
    for name in lake.table_names().await {
        let Some((layer, table)) = name.split_once('.') else { continue };
        if layer != "gold" {
            schema(&context, layer)?.register_table(table.to_string(), lake.provider(&context, &name).await?)?;
        }
    }
    // A finer table comes before those that roll it up, whose live answers are made from its own.
    let mut frames: BTreeMap<String, DataFrame> = BTreeMap::new();
    for (pipeline, windows) in pipelines {
        let finer = pipeline.finer.as_ref().and_then(|finer| frames.get(&finer.table()));
        if let Some(frame) = gold(&context, lake, pipeline, windows, finer, limits.memory_bytes).await? {
            schema(&context, "gold")?.register_table(pipeline.name.clone(), frame.clone().into_view())?;
            frames.insert(pipeline.table(), frame);
        }
    }
    views::register(&context).await?;
    explain_change::register(&context);
    Ok(context)
}

/// The pipelines whose tables a query may mean, itself or by a view, with those that they are rolled up from.
pub fn mentioned(pipelines: Vec<Pipeline>, query: &str) -> Vec<Pipeline> {
    let mut query = query.to_lowercase();
    let meant: Vec<views::View> = views::all().into_iter().filter(|view| query.contains(&view.name)).collect();
    query.extend(meant.iter().flat_map(views::View::reads).map(|table| format!(" {table}")));
    // A change is asked by the metric's name; the tables that answer it are the metric's.
    if query.contains(explain_change::NAME) {
        let metrics = METRICS.iter().filter(|metric| query.contains(metric.name));
        let tables: Vec<String> = metrics.flat_map(Metric::tables).collect();
        query.push_str(&format!(" {}", tables.join(" ")));
    }
    let names_all = ["information_schema", "show "].iter().any(|word| query.contains(word));
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    for pipeline in pipelines.iter().filter(|pipeline| names_all || query.contains(&pipeline.name)) {
        let mut next = Some(pipeline);
        while let Some(pipeline) = next {
            wanted.insert(pipeline.name.clone());
            next = pipeline.finer.as_deref();
        }
    }
    pipelines.into_iter().filter(|pipeline| wanted.contains(&pipeline.name)).collect()
}

/// Stored windows and open ones, one shape; `None` if there is neither table nor silver.
async fn gold(
    context: &SessionContext,
    lake: &Lake,
    pipeline: &Pipeline,
    windows: &OpenWindows,
    finer: Option<&DataFrame>,
    memory_bytes: usize,
) -> Result<Option<DataFrame>, SqlError> {
    let table = pipeline.table();
    if !lake.table_names().await.contains(&table) {
        return Ok(None);
    }
    let spec = lake.spec(&table).await?;
    let stored = context
        .read_table(lake.provider(context, &table).await?)?
        .with_column(IS_FINAL, lit(true))?;
    let live = match live::frame(lake, pipeline, windows, finer.cloned(), memory_bytes).await? {
        Some(live) => live.into_unoptimized_plan(),
        None => return Ok(Some(stored)),
    };
    let names: Vec<Expr> = spec
        .schema
        .fields()
        .iter()
        .map(|field| col(field.name()))
        .chain([col(IS_FINAL)])
        .collect();
    let stored = stored
        .filter(in_windows(windows, pipeline.slide_minutes).is_not_true())?
        .select(names)?;
    Ok(Some(stored.union(DataFrame::new(context.state(), live))?))
}

/// Runs one read-only query within its bounds.
///
/// # Errors
/// What the planner or the run says; a statement that would change anything is refused.
pub async fn query(
    context: &SessionContext,
    text: &str,
    limits: QueryLimits,
) -> Result<(arrow::datatypes::SchemaRef, Vec<RecordBatch>), SqlError> {
    let options = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    let frame = context.sql_with_options(text, options).await?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    match tokio::time::timeout(limits.timeout, frame.collect()).await {
        Ok(batches) => Ok((schema, batches?)),
        Err(_) => Err(SqlError::Timeout(limits.timeout)),
    }
}
