//! Reading rows back: the few look-ups that ingest itself needs from what was committed.
//!
//! Stands beside `lake::commit`; people's queries go through `sql`.
//!
//! Invariant: every scan names its columns and a time range, so it reads what it needs.

use arrow::array::RecordBatch;
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;

use super::commit::TimeRange;
use super::tables::PARTITION_COLUMN;
use super::{Lake, LakeError, query_error};
use crate::event::schema::utc_day;

impl Lake {
    /// Rows of a table in a range of its time column, with a further condition.
    pub async fn scan(
        &self,
        name: &str,
        columns: &[&str],
        range: TimeRange,
        condition: Option<Expr>,
    ) -> Result<Vec<RecordBatch>, LakeError> {
        if self.is_empty(name).await? {
            return Ok(Vec::new());
        }
        let time_column = self.spec(name).await?.time_column.clone();
        let context = SessionContext::new();
        let mut frame = context
            .read_table(self.provider(&context, name).await?)
            .and_then(|frame| frame.filter(in_range(&time_column, range)))
            .map_err(query_error("read", name))?;
        if let Some(condition) = condition {
            frame = frame.filter(condition).map_err(query_error("read", name))?;
        }
        frame
            .select_columns(columns)
            .map_err(query_error("read", name))?
            .collect()
            .await
            .map_err(query_error("read", name))
    }

    /// All rows of some files of a table.
    pub async fn scan_files(&self, name: &str, paths: Vec<String>) -> Result<Vec<RecordBatch>, LakeError> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let context = SessionContext::new();
        let frame = context
            .read_table(self.provider_of_files(&context, name, paths).await?)
            .map_err(query_error("read", name))?;
        frame.collect().await.map_err(query_error("read", name))
    }
}

/// `time_column` within the range, and its day within the range's days so that partitions prune.
pub fn in_range(time_column: &str, range: TimeRange) -> Expr {
    let time = |ms: i64| lit(ScalarValue::TimestampMicrosecond(Some(ms.saturating_mul(1000)), Some("UTC".into())));
    let within = col(time_column)
        .gt_eq(time(range.from_ms))
        .and(col(time_column).lt_eq(time(range.to_ms)));
    if range == TimeRange::ALL {
        return lit(true);
    }
    let day = |ms: i64| lit(ScalarValue::Date32(Some(utc_day(ms))));
    within
        .and(col(PARTITION_COLUMN).gt_eq(day(range.from_ms)))
        .and(col(PARTITION_COLUMN).lt_eq(day(range.to_ms)))
}

/// `column IN (values)`.
pub fn is_one_of(column: &str, values: impl IntoIterator<Item = String>) -> Expr {
    col(column).in_list(values.into_iter().map(lit).collect(), false)
}

/// A flag that is set.
pub fn is_true(column: &str) -> Expr {
    col(column).is_true()
}

/// A flag that is not set, or not known.
pub fn is_not_true(column: &str) -> Expr {
    col(column).is_not_true()
}
