//! A gold table as people ask it: the stored windows, and those that are open, computed once a snapshot.
//!
//! Invariant: a window is answered either as it is stored or as silver has it now, never from both.
//! Invariant: what is computed at once is bounded. Open windows further back than that are answered as they
//! are stored, and `is_final` says that this is not their last word.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session as PlanningSession, TableProvider};
use datafusion::datasource::{MemTable, TableType, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, col, lit, when};
use datafusion::physical_plan::ExecutionPlan;
use tokio::sync::OnceCell;

use super::range::Minutes;
use crate::lake::Lake;
use crate::rollup::open_windows_of;
use crate::sql::pipeline::Pipeline;
use crate::sql::{IS_FINAL, OpenWindows, SqlError, context_over, in_windows, live};

/// Windows that are computed when they are asked for: those within so many windows of the newest. As many
/// as one run of the rollup takes of the finest tables.
const LIVE_WINDOWS_MAX: i64 = 180;
/// Rows of them that are kept, of each table: more cardinality than this is read from the stored windows.
const LIVE_BYTES_MAX: usize = 64 << 20;
/// Whoever waits for them has a query's time to wait in.
const LIVE_TIME_MAX: Duration = Duration::from_secs(10);

pub struct GoldTable {
    made: Made,
    schema: SchemaRef,
    open: OnceCell<OpenWindows>,
    live: OnceCell<Live>,
}

/// Open windows as they were computed.
#[derive(Default)]
struct Live {
    computed: OpenWindows,
    /// Open ones that were not.
    left: OpenWindows,
    rows: Vec<RecordBatch>,
}

/// What a table is made of.
pub struct Made {
    pub pipeline: Pipeline,
    pub stored: Arc<dyn TableProvider>,
    pub finer: Option<Arc<GoldTable>>,
    pub lake: Arc<Lake>,
    pub runtime: Arc<RuntimeEnv>,
    pub memory_bytes: usize,
    pub live_cost_ms: Arc<AtomicU64>,
}

impl GoldTable {
    pub fn new(made: Made) -> GoldTable {
        let mut fields = made.stored.schema().fields().to_vec();
        fields.push(Arc::new(Field::new(IS_FINAL, DataType::Boolean, false)));
        GoldTable {
            schema: Arc::new(Schema::new(fields)),
            made,
            open: OnceCell::new(),
            live: OnceCell::new(),
        }
    }

    async fn open(&self) -> Result<&OpenWindows, SqlError> {
        self.open
            .get_or_try_init(|| open_windows_of(&self.made.lake, &self.made.pipeline))
            .await
    }

    /// The open windows, computed by whoever needs them first.
    async fn live(&self) -> Result<&Live, SqlError> {
        let open = self.open().await?;
        self.live.get_or_try_init(|| self.compute(open)).await
    }

    async fn compute(&self, open: &OpenWindows) -> Result<Live, SqlError> {
        let (left, computed) = newest(open, self.made.pipeline.slide_minutes);
        let began = Instant::now();
        let rows = tokio::time::timeout(LIVE_TIME_MAX, Box::pin(self.rows_of(&computed))).await;
        let cost_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.made.live_cost_ms.fetch_add(cost_ms, Ordering::Relaxed);
        let rows = match rows {
            Ok(rows) => rows?,
            Err(_) => None,
        };
        Ok(match rows {
            Some(rows) => Live { computed, left, rows },
            None => {
                tracing::warn!(
                    "{}: its {} open windows are too much to compute for a query and are answered as they are stored",
                    self.made.pipeline.table(),
                    open.len()
                );
                Live {
                    left: open.clone(),
                    ..Live::default()
                }
            }
        })
    }

    /// `None`: they are more than may be kept.
    async fn rows_of(&self, windows: &OpenWindows) -> Result<Option<Vec<RecordBatch>>, SqlError> {
        let finer = match &self.made.finer {
            Some(finer) => {
                let context = context_over(Arc::clone(&self.made.runtime), super::DATABASE, "gold");
                Some(context.read_table(Arc::clone(finer) as Arc<dyn TableProvider>)?)
            }
            None => None,
        };
        let frame = live::frame(&self.made.lake, &self.made.pipeline, windows, finer, self.made.memory_bytes).await?;
        let Some(frame) = frame else { return Ok(Some(Vec::new())) };
        let (mut kept, mut bytes) = (Vec::new(), 0);
        for batch in frame.collect().await? {
            let batch = self.shaped(&batch)?;
            bytes += batch.get_array_memory_size();
            if bytes > LIVE_BYTES_MAX {
                return Ok(None);
            }
            kept.push(batch);
        }
        Ok(Some(kept))
    }

    /// The same rows in the types in which the stored ones are read.
    fn shaped(&self, batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let columns = self.schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => Ok(cast(column, field.data_type())?),
            None => Err(DataFusionError::Internal(format!("an open window has no column {}", field.name()))),
        });
        let columns = columns.collect::<Result<Vec<_>, DataFusionError>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The rows that people see, before any condition.
    fn rows(&self, live: &Live) -> Result<LogicalPlanBuilder, DataFusionError> {
        let slide = self.made.pipeline.slide_minutes;
        let mut stored = LogicalPlanBuilder::scan("stored", provider_as_source(Arc::clone(&self.made.stored)), None)?;
        if !live.computed.is_empty() {
            stored = stored.filter(in_windows(&live.computed, slide).is_not_true())?;
        }
        let is_final = match live.left.is_empty() {
            true => lit(true),
            false => when(in_windows(&live.left, slide), lit(false)).otherwise(lit(true))?,
        };
        let names = self.made.stored.schema();
        let columns = names.fields().iter().map(|field| col(field.name()));
        let stored = stored.project(columns.chain([is_final.alias(IS_FINAL)]))?;
        if live.rows.is_empty() {
            return Ok(stored);
        }
        let open = MemTable::try_new(Arc::clone(&self.schema), vec![live.rows.clone()])?;
        let open = LogicalPlanBuilder::scan("stored", provider_as_source(Arc::new(open)), None)?;
        let columns = self.schema.fields().iter().map(|field| col(field.name()));
        stored.union(open.project(columns)?.build()?)
    }

    fn plan(
        &self,
        live: &Live,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<LogicalPlan, DataFusionError> {
        let mut rows = self.rows(live)?;
        if let Some(condition) = conjunction(filters.iter().cloned()) {
            rows = rows.filter(condition)?;
        }
        if let Some(projection) = projection {
            rows = rows.project(projection.iter().map(|at| col(self.schema.field(*at).name())))?;
        }
        if limit.is_some() {
            rows = rows.limit(0, limit)?;
        }
        rows.build()
    }
}

#[async_trait]
impl TableProvider for GoldTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// All conditions are applied here, where they reach the files.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn PlanningSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let minutes = Minutes::of(filters);
        let external = |error: SqlError| match error {
            SqlError::Query(error) => error,
            error => DataFusionError::External(Box::new(error)),
        };
        let open = self.open().await.map_err(external)?;
        let none = Live::default();
        let live = match open.iter().any(|minute| minutes.holds(*minute)) {
            true => self.live().await.map_err(external)?,
            false => &none,
        };
        session.create_physical_plan(&self.plan(live, projection, filters, limit)?).await
    }
}

impl fmt::Debug for GoldTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoldTable")
            .field("table", &self.made.pipeline.table())
            .finish_non_exhaustive()
    }
}

/// Open windows that are left as they are stored, and the newest ones, which are computed.
fn newest(open: &OpenWindows, slide: i64) -> (OpenWindows, OpenWindows) {
    let mut left = open.clone();
    let computed = match open.last() {
        Some(last) => left.split_off(&(last - (LIVE_WINDOWS_MAX - 1) * slide)),
        None => BTreeSet::new(),
    };
    (left, computed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_open_windows_are_computed() {
        let open = BTreeSet::from([0, 60, 60 * 179, 60 * 180]);
        let (left, computed) = newest(&open, 60);
        assert_eq!(left, BTreeSet::from([0]));
        assert_eq!(computed, BTreeSet::from([60, 60 * 179, 60 * 180]));
        assert_eq!(newest(&BTreeSet::new(), 1), (BTreeSet::new(), BTreeSet::new()));
    }
}
