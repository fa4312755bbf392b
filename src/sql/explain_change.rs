//! `explain_change(metric, from, to, ...)`: the cause of a change as a table.
//!
//! ```sql
//! SELECT * FROM explain_change('rebuffer_ratio', '2026-11-01T20:00:00Z', '2026-11-01T20:05:00Z')
//! ```
//! Stands over `cause`, as a function of the sessions that people ask. Its arguments become an `alert::rule::Change`;
//! when it runs, both questions run below it, in the memory of its query, and one search over their rows.
//!
//! Invariant: planning asks no table for rows; EXPLAIN is cheap.
//! Invariant: the rows of the search are counted in the memory of the query.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session as PlanningSession, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, execute_stream};
use datafusion::scalar::ScalarValue;
use futures_util::StreamExt;

use super::cause::{Side, add};
use crate::alert::cause::{Answer, Explanation, Rows, Search, explain};
use crate::alert::rule::{Change, Why};
use crate::sql::Session;

pub const NAME: &str = "explain_change";
const USAGE: &str = "write explain_change(metric, from, to [, before_from, before_to [, dimensions [, condition]]]), such as \
                     explain_change('rebuffer_ratio', '2026-11-01T20:00:00Z', '2026-11-01T20:05:00Z')";
/// What a row takes while it is searched: its numbers, sums and keys, with room for its texts.
const ROW_BYTES: usize = 150;

/// Makes the function known to a session.
pub fn register(context: &Session) {
    context.register_udtf(NAME, Arc::new(ExplainChange));
}

#[derive(Debug)]
struct ExplainChange;

impl TableFunctionImpl for ExplainChange {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let change = change_of(args.exprs())?;
        change.tables().map_err(refused)?;
        Ok(Arc::new(ChangeTable { change }))
    }
}

fn refused(why: String) -> DataFusionError {
    DataFusionError::Plan(format!("{NAME}: {why}"))
}

/// The arguments, by their place.
fn change_of(given: &[Expr]) -> Result<Change> {
    if !matches!(given.len(), 3 | 5..=7) {
        return Err(refused(format!("it takes 3, 5, 6 or 7 values; {USAGE}")));
    }
    let text_at = |index: usize| given.get(index).map(text).transpose().map(Option::flatten);
    let time_at = |index: usize| time_ms(&given[index]);
    let metric = text_at(0)?.ok_or_else(|| refused(format!("the metric is missing; {USAGE}")))?;
    let before = match given.len() {
        3 => None,
        _ => Some((time_at(3)?, time_at(4)?)),
    };
    let dims = text_at(5)?.unwrap_or_default();
    Ok(Change {
        metric,
        now: (time_at(1)?, time_at(2)?),
        before,
        dims: names_in(&dims),
        filter: text_at(6)?.filter(|filter| !filter.trim().is_empty()),
    })
}

/// `cdn, pop` as names.
pub fn names_in(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn text(given: &Expr) -> Result<Option<String>> {
    match given {
        Expr::Literal(ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text), _) => Ok(text.clone()),
        Expr::Literal(ScalarValue::Null, _) => Ok(None),
        other => Err(refused(format!("`{other}` is no text; {USAGE}"))),
    }
}

/// An instant as text (`2026-11-01T20:00:00Z`) or as a timestamp.
fn time_ms(given: &Expr) -> Result<i64> {
    let timestamp = match given {
        Expr::Literal(value, _) => value
            .cast_to(&DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None))
            .ok(),
        _ => None,
    };
    if let (Some(ScalarValue::TimestampMillisecond(Some(at_ms), _)), false) = (&timestamp, is_text(given)) {
        return Ok(*at_ms);
    }
    let text = text(given)?.unwrap_or_default();
    match DateTime::parse_from_rfc3339(&text) {
        Ok(time) => Ok(time.timestamp_millis()),
        Err(_) => Err(refused(format!("`{text}` is no time; write 2026-11-01T20:00:00Z"))),
    }
}

fn is_text(given: &Expr) -> bool {
    matches!(
        given,
        Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::LargeUtf8(_) | ScalarValue::Utf8View(_), _)
    )
}

/// The columns of the answer.
pub fn schema() -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    Arc::new(Schema::new(vec![
        Field::new("answer", DataType::Utf8, false),
        Field::new("rank", DataType::Int64, true),
        Field::new("cause", DataType::Utf8, true),
        number("explains"),
        number("share"),
        number("value"),
        number("baseline"),
        number("excess"),
        number("samples"),
    ]))
}

/// A row a cause, the best first; one row without a cause where there is none.
///
/// # Errors
/// Never: the columns are those of `schema`.
pub fn rows_of(found: &Explanation) -> Result<RecordBatch> {
    let causes: Vec<_> = found.candidates.iter().map(Some).collect();
    let causes = if causes.is_empty() { vec![None] } else { causes };
    let number = |of: &dyn Fn(&crate::alert::cause::Cause) -> Option<f64>| -> ArrayRef {
        Arc::new(Float64Array::from_iter(causes.iter().map(|cause| cause.and_then(of))))
    };
    let ranks = (1..).zip(&causes).map(|(rank, cause)| cause.map(|_| rank));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(causes.iter().map(|_| word(found.answer)))),
        Arc::new(Int64Array::from_iter(ranks)),
        Arc::new(StringArray::from_iter(causes.iter().map(|cause| cause.map(ToString::to_string)))),
        number(&|cause| Some(cause.explains)),
        number(&|cause| Some(cause.share)),
        number(&|cause| cause.value),
        number(&|cause| cause.baseline),
        number(&|cause| Some(cause.excess)),
        number(&|cause| Some(cause.samples)),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// As messages write it.
pub fn word(answer: Answer) -> &'static str {
    match answer {
        Answer::Found => "found",
        Answer::NoSingleCause => "no_single_cause",
        Answer::NoExcess => "no_excess",
        Answer::NoBaseline => "no_baseline",
    }
}

/// The answer before it is worked out.
#[derive(Debug)]
struct ChangeTable {
    change: Change,
}

#[async_trait]
impl TableProvider for ChangeTable {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        session: &dyn PlanningSession,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(state) = session.as_any().downcast_ref::<SessionState>() else {
            return Err(DataFusionError::Internal("the session plans no questions of its own".to_owned()));
        };
        let why = why(state, &self.change).await?;
        let mut inputs = Vec::new();
        for question in [&why.now, &why.before] {
            let plan = state.create_logical_plan(question).await?;
            inputs.push(state.create_physical_plan(&plan).await?);
        }
        Ok(Arc::new(ChangeExec::new(why.dims, why.search, projection.cloned(), inputs)?))
    }
}

/// The questions, to the best table that the session has.
///
/// # Errors
/// No table can answer, or a name that it does not have.
pub async fn why(state: &SessionState, change: &Change) -> Result<Why> {
    for table in change.tables().map_err(refused)? {
        let Some((layer, name)) = table.split_once('.') else { continue };
        let reference = datafusion::common::TableReference::partial(layer, name);
        let Some(provider) = state.schema_for_ref(reference)?.table(name).await? else {
            continue;
        };
        let columns: Vec<String> = provider.schema().fields().iter().map(|field| field.name().clone()).collect();
        return change.why(&table, &columns).map_err(refused);
    }
    Err(refused(format!("there is no table to answer `{}` from yet", change.metric)))
}

/// Runs both questions, then searches.
struct ChangeExec {
    dims: Vec<String>,
    search: Search,
    projection: Option<Vec<usize>>,
    /// Now and before.
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    properties: Arc<PlanProperties>,
}

impl ChangeExec {
    fn new(dims: Vec<String>, search: Search, projection: Option<Vec<usize>>, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<ChangeExec> {
        let schema = match &projection {
            Some(kept) => Arc::new(schema().project(kept)?),
            None => schema(),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(ChangeExec {
            dims,
            search,
            projection,
            inputs,
            properties: Arc::new(properties),
        })
    }
}

impl fmt::Debug for ChangeExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeExec").field("dims", &self.dims).finish_non_exhaustive()
    }
}

impl DisplayAs for ChangeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeExec: dims=[{}]", self.dims.join(", "))
    }
}

impl ExecutionPlan for ChangeExec {
    fn name(&self) -> &str {
        "ChangeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.inputs.len()]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let made = ChangeExec::new(self.dims.clone(), self.search, self.projection.clone(), inputs)?;
        Ok(Arc::new(made))
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let asked = Asked {
            dims: self.dims.clone(),
            search: self.search,
            projection: self.projection.clone(),
            inputs: self.inputs.clone(),
        };
        let stream = futures_util::stream::once(asked.rows(context));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

/// What a run needs of its plan.
struct Asked {
    dims: Vec<String>,
    search: Search,
    projection: Option<Vec<usize>>,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
}

impl Asked {
    async fn rows(self, context: Arc<TaskContext>) -> Result<RecordBatch> {
        let rows = rows_of(&self.answer(&context).await?)?;
        match &self.projection {
            Some(kept) => Ok(rows.project(kept)?),
            None => Ok(rows),
        }
    }

    async fn answer(&self, context: &Arc<TaskContext>) -> Result<Explanation> {
        let too_much = |error: crate::alert::cause::RowsError| DataFusionError::Execution(format!("{NAME}: {error}"));
        let memory = MemoryConsumer::new(NAME).register(context.memory_pool());
        let mut rows = Rows::new(&self.dims).map_err(too_much)?;
        for (side, input) in [Side::Now, Side::Before].into_iter().zip(&self.inputs) {
            let mut batches = execute_stream(Arc::clone(input), Arc::clone(context))?;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                memory.try_grow(batch.num_rows() * ROW_BYTES)?;
                add(&mut rows, &batch, self.dims.len(), side).map_err(too_much)?;
            }
        }
        Ok(explain(&rows, self.search))
    }
}
