//! `ops.alert_causes`: what explained each alert when it was told, a row a cause.
//!
//! Stands behind the record of `watch`: recorded transitions in, rows out. What is in these rows is in the transitions
//! of `ops.alert_events` too, as JSON; here it can be asked by column.
//!
//! Invariant: these rows follow the transitions: a crash between the two commits is made good at the next start, by
//! the ids that are missing.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use crate::alert::message::{Cause, Causes};
use crate::alert::{Reason, Transition};
use crate::event::schema::utc_day;
use crate::lake::tables::ALERT_CAUSES;
use crate::lake::{Commit, Lake, LakeError, TimeRange};
use crate::sql::cause::texts;

/// Stores what is known of these transitions and not in the table yet.
///
/// # Errors
/// The table cannot be read or written.
pub async fn catch_up(lake: &Lake, events: &[Transition]) -> Result<(), LakeError> {
    if !events.iter().any(has_answer) {
        return Ok(());
    }
    let mut stored: HashSet<String> = HashSet::new();
    for batch in lake.scan(ALERT_CAUSES, &["event_id"], TimeRange::ALL, None).await? {
        stored.extend(texts(batch.column(0)).iter().flatten().map(str::to_owned));
    }
    store(lake, events.iter().filter(|event| !stored.contains(&event.event_id))).await
}

/// Stores the causes of transitions that were just recorded.
///
/// # Errors
/// The table cannot be written.
pub async fn store<'e>(lake: &Lake, events: impl IntoIterator<Item = &'e Transition>) -> Result<(), LakeError> {
    let mut rows: Vec<Row> = Vec::new();
    for event in events.into_iter().filter(|event| has_answer(event)) {
        rows.extend(event.causes.iter().flat_map(|causes| rows_of(event, causes)));
    }
    if rows.is_empty() {
        return Ok(());
    }
    lake.append(ALERT_CAUSES, vec![batch(&rows)?], Commit::default()).await?;
    Ok(())
}

/// True where the cause was looked for; a firing that is told again carries the answer of the first time.
fn has_answer(event: &Transition) -> bool {
    event.causes.is_some() && event.reason != Reason::Repeat
}

struct Row<'t> {
    event: &'t Transition,
    answer: &'t str,
    cause: Option<(i64, &'t Cause)>,
}

/// A row a cause, the best first; one without a cause where none was found.
fn rows_of<'t>(event: &'t Transition, causes: &'t Causes) -> Vec<Row<'t>> {
    let row = |cause| Row {
        event,
        answer: &causes.answer,
        cause,
    };
    match causes.found.is_empty() {
        true => vec![row(None)],
        false => (1..).zip(&causes.found).map(|cause| row(Some(cause))).collect(),
    }
}

fn batch(rows: &[Row]) -> Result<RecordBatch, LakeError> {
    let ends_ms = || rows.iter().map(|row| row.event.window_end_ms);
    let text = |of: &dyn Fn(&Row) -> Option<String>| -> ArrayRef { Arc::new(rows.iter().map(of).collect::<StringArray>()) };
    let of_cause = |row: &Row, of: &dyn Fn(&Cause) -> Option<f64>| row.cause.and_then(|(_, cause)| of(cause));
    let number =
        |of: &dyn Fn(&Cause) -> Option<f64>| -> ArrayRef { Arc::new(rows.iter().map(|row| of_cause(row, of)).collect::<Float64Array>()) };
    let ranks: Int64Array = rows.iter().map(|row| row.cause.map(|(rank, _)| rank)).collect();
    let times = TimestampMicrosecondArray::from_iter_values(ends_ms().map(|at_ms| at_ms * 1000)).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_date", Arc::new(Date32Array::from_iter_values(ends_ms().map(utc_day)))),
        ("window_end", Arc::new(times)),
        ("event_id", text(&|row| Some(row.event.event_id.clone()))),
        ("rule_uid", text(&|row| Some(row.event.rule_uid.clone()))),
        ("fingerprint", text(&|row| Some(row.event.fingerprint.to_string()))),
        ("answer", text(&|row| Some(row.answer.to_owned()))),
        ("rank", Arc::new(ranks)),
        ("cause", text(&|row| row.cause.map(|(_, cause)| cause.in_words()))),
        ("dims", text(&|row| row.cause.map(|(_, cause)| cause.dims_json()))),
        ("explains", number(&|cause| Some(cause.share))),
        ("value", number(&|cause| cause.now)),
        ("baseline", number(&|cause| cause.before)),
        ("samples", number(&|cause| Some(cause.samples))),
    ];
    RecordBatch::try_from_iter(columns).map_err(|source| LakeError::Rows {
        table: ALERT_CAUSES.to_string(),
        source,
    })
}
