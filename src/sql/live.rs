//! Open windows of a gold table, computed from silver when they are asked for.
//!
//! Stands beside the stored windows: who asks puts the two together, so that a window comes from one of them.
//!
//! Invariant: the rows have the columns of the stored ones, in their order and types, and `is_final` is false.

use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast, col, lit};
use datafusion::prelude::DataFrame;
use datafusion::scalar::ScalarValue;

use super::pipeline::{PIPELINE_HASH, Pipeline, SILVER_VERSIONS};
use super::{IS_FINAL, OpenWindows, SqlError, empty_context, in_windows, range_of, register_finer, register_windowed_views};
use crate::lake::Lake;
use crate::lake::scan::in_range;
use crate::lake::tables::{PARTITION_COLUMN, TableSpec};

/// The rows of these windows, not computed yet. `finer`: the table that this one rolls up, stored windows
/// and open ones. `None`: there are no such windows, or nothing to make them from.
///
/// # Errors
/// A table cannot be read, or the pipeline cannot be planned.
pub async fn frame(
    lake: &Lake,
    pipeline: &Pipeline,
    windows: &OpenWindows,
    finer: Option<DataFrame>,
    memory_bytes: usize,
) -> Result<Option<DataFrame>, SqlError> {
    let Some(range) = range_of(windows, pipeline.window_minutes) else {
        return Ok(None);
    };
    let spec = lake.spec(&pipeline.table()).await?;
    // The views of another range must not meet the tables that people query: a context of its own.
    let apart = empty_context(memory_bytes)?;
    match (&pipeline.finer, finer) {
        (Some(known), Some(frame)) => register_finer(&apart, &known.table(), frame.filter(in_range("window_start", range))?)?,
        (Some(_), None) => return Ok(None),
        (None, _) => register_windowed_views(&apart, lake, pipeline, range).await?,
    }
    let plan = pipeline.plan(&apart).await?;
    let rows = apart
        .execute_logical_plan(plan)
        .await?
        .filter(in_windows(windows, pipeline.slide_minutes))?;
    let shaped = LogicalPlanBuilder::from(rows.into_unoptimized_plan()).project(columns(&spec, pipeline))?;
    Ok(Some(DataFrame::new(apart.state(), shaped.build()?)))
}

/// What makes the stored table's columns of the pipeline's.
fn columns(spec: &TableSpec, pipeline: &Pipeline) -> Vec<Expr> {
    let of_field = |field: &arrow::datatypes::FieldRef| {
        let value = match field.name().as_str() {
            PARTITION_COLUMN => cast(col("window_start"), field.data_type().clone()),
            PIPELINE_HASH => lit(pipeline.hash.clone()),
            SILVER_VERSIONS => lit(ScalarValue::Utf8(None)),
            name => cast(col(name), field.data_type().clone()),
        };
        value.alias(field.name())
    };
    let fields = spec.schema.fields().iter().map(of_field);
    fields.chain([lit(false).alias(IS_FINAL)]).collect()
}
