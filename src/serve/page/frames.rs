//! Rows of an answer as columns of JSON, in the types that panels draw: time, number, text, bool.
//!
//! Invariant: a time is milliseconds since 1970, UTC; a number that JSON has no word for is null.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::error::ArrowError;
use serde::Serialize;
use serde_json::{Number, Value};

/// Grafana takes a number of this name for a time: its own macros make seconds since 1970 of it.
const TIME_NAMES: [&str; 2] = ["time", "time_sec"];
/// Seconds have fewer digits than this until the year 5138, milliseconds more since 1973.
const SECONDS_BELOW: f64 = 1e11;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Time,
    Number,
    Text,
    Bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub values: Vec<Value>,
}

impl Column {
    /// Value of a row as a text; null is none.
    pub fn text(&self, row: usize) -> Option<String> {
        match self.values.get(row)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

/// The first `rows_max` rows as columns.
///
/// # Errors
/// A type that cannot be shown as text.
pub fn columns(schema: &SchemaRef, batches: &[RecordBatch], rows_max: usize) -> Result<Vec<Column>, ArrowError> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (index, field) in schema.fields().iter().enumerate() {
        let kind = kind_of(field.data_type());
        let mut values = Vec::new();
        for batch in batches {
            let left = rows_max - values.len();
            let part = batch.column(index).slice(0, batch.num_rows().min(left));
            values.extend(values_of(&part, kind)?);
        }
        columns.push(with_epochs(Column {
            name: field.name().clone(),
            kind,
            values,
        }));
    }
    Ok(columns)
}

fn kind_of(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Kind::Time,
        DataType::Boolean => Kind::Bool,
        numeric if numeric.is_numeric() => Kind::Number,
        _ => Kind::Text,
    }
}

fn values_of(array: &dyn Array, kind: Kind) -> Result<Vec<Value>, ArrowError> {
    let integer = |value: Option<i64>| value.map_or(Value::Null, Value::from);
    Ok(match kind {
        Kind::Time => {
            let array = cast(array, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
            array.as_primitive::<TimestampMillisecondType>().iter().map(integer).collect()
        }
        Kind::Number if array.data_type().is_integer() && *array.data_type() != DataType::UInt64 => cast(array, &DataType::Int64)?
            .as_primitive::<Int64Type>()
            .iter()
            .map(integer)
            .collect(),
        Kind::Number => {
            let array = cast(array, &DataType::Float64)?;
            array.as_primitive::<Float64Type>().iter().map(float).collect()
        }
        Kind::Bool => array
            .as_boolean()
            .iter()
            .map(|value| value.map_or(Value::Null, Value::Bool))
            .collect(),
        Kind::Text => {
            let array = cast(array, &DataType::Utf8)?;
            let text = |value: Option<&str>| value.map_or(Value::Null, Value::from);
            array.as_string::<i32>().iter().map(text).collect()
        }
    })
}

fn float(value: Option<f64>) -> Value {
    value.and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

/// A column of numbers named `time` is one of times.
fn with_epochs(column: Column) -> Column {
    if column.kind != Kind::Number || !TIME_NAMES.contains(&column.name.as_str()) {
        return column;
    }
    let in_ms = |value: Value| match value.as_f64() {
        Some(number) if number.abs() < SECONDS_BELOW => Value::from((number * 1000.0).round() as i64),
        Some(number) => Value::from(number.round() as i64),
        None => Value::Null,
    };
    Column {
        kind: Kind::Time,
        values: column.values.into_iter().map(in_ms).collect(),
        ..column
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(name: &str, array: ArrayRef, kind: &str, values: &Value) {
        let batch = RecordBatch::try_from_iter_with_nullable([(name, array, true)]).unwrap();
        let columns = columns(&batch.schema(), &[batch.clone(), batch.slice(0, 1)], 3).unwrap();
        let expected = json!([{"name": name, "type": kind, "values": values}]);
        assert_eq!(serde_json::to_value(&columns).unwrap(), expected);
    }

    #[test]
    fn every_type_comes_as_a_panel_draws_it_and_no_more_rows_than_asked() {
        let stamps = TimestampMicrosecondArray::from(vec![Some(1_500), None]).with_timezone("UTC");
        check("at", Arc::new(stamps), "time", &json!([1, null, 1]));
        check("n", Arc::new(Int64Array::from(vec![Some(7), None])), "number", &json!([7, null, 7]));
        let floats = Float64Array::from(vec![0.5, f64::NAN, f64::INFINITY]);
        check("x", Arc::new(floats), "number", &json!([0.5, null, null]));
        check(
            "t",
            Arc::new(StringArray::from(vec!["<b>", "b"])),
            "text",
            &json!(["<b>", "b", "<b>"]),
        );
        check(
            "b",
            Arc::new(BooleanArray::from(vec![true, false])),
            "bool",
            &json!([true, false, true]),
        );
    }

    #[test]
    fn seconds_named_time_are_a_time() {
        check(
            "time",
            Arc::new(Int64Array::from(vec![1_700_000_000, 1_700_000_060_000])),
            "time",
            &json!([1_700_000_000_000_i64, 1_700_000_060_000_i64, 1_700_000_000_000_i64]),
        );
        check("times", Arc::new(Int64Array::from(vec![1, 2])), "number", &json!([1, 2, 1]));
    }
}
